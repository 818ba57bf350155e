"""Cost against size: one clustered distribution from ten thousand to ten million vectors.

    SoarIndex -> [bench_scale.py] -> results/scale-*.json, *.png

Vectors are drawn in chunks from a seed and written to a mapped file, so that the first n of them
are a sample of the same distribution for every n. Every n is built in a process of its own, from
the mapped file, and searched in another, which maps the saved index; so peak memory and the time
of opening are those of that n alone. The figure is the time of a query at recall@10 0.95, by the
calling thread's own clock, with the exponent of a power of n fitted to it.

    python -m benchmarks.bench_scale
    python -m benchmarks.bench_scale --tiny
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from soardb import SoarIndex
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.metrics import unit_rows

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
NPROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
_CHUNK = 100_000
_MIB = 2**20


@dataclass(frozen=True)
class Setup:
    """What one run does."""

    sizes: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    d: int = 96
    centres: int = 200
    own_dims: int = 24
    queries: int = 500
    recall: float = 0.95
    repeats: int = 3
    threads: int = 2
    seed: int = 0


# ---------------------------------------------------------------- data


def chunk(setup: Setup, number: int, count: int) -> F32:
    """Chunk `number` of the vectors, (count, d) float32: clusters, each flat in its own way.

    A point is its centre, plus noise in one of 64 sub-spaces of own_dims dimensions, plus a little
    noise in all of them. Clusters differ in size by a power law.
    """
    rng = np.random.default_rng([setup.seed, 1])
    centres = rng.standard_normal((setup.centres, setup.d), np.float32)
    bases = rng.standard_normal((64, setup.own_dims, setup.d), np.float32)
    bases /= np.linalg.norm(bases, axis=2, keepdims=True)
    shares = (1 + np.arange(setup.centres)) ** -0.5
    rng = np.random.default_rng([setup.seed, 2, number])
    cluster = np.sort(rng.choice(setup.centres, count, p=shares / shares.sum()))
    vectors = rng.standard_normal((count, setup.d), np.float32)
    vectors *= np.float32(0.25)
    vectors += centres[cluster]
    own = rng.standard_normal((count, setup.own_dims), np.float32)
    own *= np.float32(1.2)
    flat = cluster % 64
    for which in np.unique(flat):
        members = flat == which
        vectors[members] += own[members] @ bases[which]
    return vectors[rng.permutation(count)]


def write_vectors(setup: Setup, path: Path) -> None:
    """The largest size of vectors as raw float32, chunk by chunk."""
    n = setup.sizes[-1]
    with path.open("wb") as file:
        for number, first in enumerate(range(0, n, _CHUNK)):
            chunk(setup, number, min(_CHUNK, n - first)).tofile(file)


def mapped(setup: Setup, path: Path, n: int) -> F32:
    """The first n vectors, read from the file as they are needed."""
    return np.memmap(path, np.float32, "r", shape=(n, setup.d))


def truth(setup: Setup, path: Path, queries: F32) -> dict[int, I64]:
    """The exact K nearest rows of each query at every size: one pass over the file."""
    best_scores = np.empty((len(queries), 0), np.float32)
    best_rows = np.empty((len(queries), 0), np.int64)
    found, unit, first = {}, unit_rows(queries), 0
    for n in setup.sizes:
        while first < n:
            last = min(first + _CHUNK, n)
            part = unit_rows(mapped(setup, path, n)[first:last])
            scores, rows = active.exact_topk(part, unit, K, "cosine", setup.threads)
            best_scores = np.concatenate([best_scores, scores], axis=1)
            best_rows = np.concatenate([best_rows, rows + first], axis=1)
            order = np.lexsort((best_rows, -best_scores), axis=1)[:, :K]
            best_scores = np.take_along_axis(best_scores, order, axis=1)
            best_rows = np.take_along_axis(best_rows, order, axis=1)
            first = last
        found[n] = best_rows
    return found


# ---------------------------------------------------------------- one size, in its own process


class PeakMemory(threading.Thread):
    """The most anonymous memory that the process had, looked at 50 times a second (Linux).

    Pages of the mapped source are not counted: the system takes them back when it wants to.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._done = 0, threading.Event()

    def run(self) -> None:
        """Look until stop()."""
        while not self._done.wait(0.02):
            self.peak = max(self.peak, anonymous_bytes())

    def stop(self) -> int:
        """The peak, in bytes."""
        self._done.set()
        self.join()
        return max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(x for x in status.read_text("ascii").splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def build(setup: Setup, vectors: Path, n: int, index_file: Path) -> dict[str, Any]:
    """Build the index of the first n vectors and save it."""
    before, memory = anonymous_bytes(), PeakMemory()
    memory.start()
    index = SoarIndex(setup.d, "cosine", threads=setup.threads, seed=setup.seed)
    source = mapped(setup, vectors, n)
    start, cpu = time.perf_counter(), time.process_time()
    index.train(source)
    trained, trained_cpu = time.perf_counter(), time.process_time()
    index.add(source)
    added, added_cpu = time.perf_counter(), time.process_time()
    peak = memory.stop()
    index.save(index_file)
    return {
        "n": n,
        "nlist": index.nlist,
        "train_s": trained - start,
        "train_cpu_s": trained_cpu - cpu,
        "add_s": added - trained,
        "add_cpu_s": added_cpu - trained_cpu,
        "save_s": time.perf_counter() - added,
        "peak_anonymous_bytes": peak - before,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "index_bytes": index.memory(),
        "file_bytes": index_file.stat().st_size,
        "parameters": index.describe(),
    }


def search(setup: Setup, index_file: Path, queries: F32, expected: I64) -> dict[str, Any]:
    """Open the saved index and measure recall and time of single queries."""
    start = time.perf_counter()
    index = SoarIndex.load(index_file, verify=False)
    opened = time.perf_counter()
    index.search(queries[:1], K)
    first = time.perf_counter()
    checked = SoarIndex.load(index_file)
    verified = time.perf_counter()
    points, before = [], 0.0
    for nprobe in NPROBES:
        if index.nlist and nprobe > index.nlist:
            break
        recall, wall_us, cpu_us = measure(setup, checked, queries, expected, nprobe)
        points.append({"nprobe": nprobe, "recall": recall, "wall_us": wall_us, "cpu_us": cpu_us})
        if recall > 0.995 or index.nlist == 0 or (before and recall - before < 0.0005):
            break
        before = recall
    return {
        "open_s": opened - start,
        "first_query_s": first - opened,
        "open_checked_s": verified - first,
        "points": points,
    }


def measure(
    setup: Setup, index: SoarIndex, queries: F32, expected: I64, nprobe: int
) -> tuple[float, float, float]:
    """Recall, and microseconds a query by the wall and by the thread's own clock (medians)."""
    asked = nprobe if index.nlist else None
    # One by one, as they are timed: a batch visits more lists for all where one query needs them.
    ids = np.concatenate([index.search(query[None, :], K, nprobe=asked)[1] for query in queries])
    hits = (ids[:, :, None] == expected[:, None, :]).any(axis=1)
    walls, cpus = [], []
    for _ in range(setup.repeats):
        start, cpu = time.perf_counter(), time.thread_time()
        for query in queries:
            index.search(query[None, :], K, nprobe=asked)
        walls.append((time.perf_counter() - start) / len(queries) * 1e6)
        cpus.append((time.thread_time() - cpu) / len(queries) * 1e6)
    return float(hits.mean()), float(np.median(walls)), float(np.median(cpus))


# ---------------------------------------------------------------- what follows


def cost_at(points: Sequence[dict[str, float]], recall: float, key: str = "cpu_us") -> float | None:
    """Microseconds a query at that recall, between the two points around it; None out of reach."""
    for low, high in zip([None, *points], points, strict=False):
        if high["recall"] >= recall:
            if low is None:
                return high[key]
            share = (recall - low["recall"]) / (high["recall"] - low["recall"])
            return float(low[key] ** (1 - share) * high[key] ** share)
    return None


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Of the power of n that fits the costs best, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def summary(rows: Sequence[dict[str, Any]], recall: float) -> dict[str, Any]:
    """Sizes with partitions that reach the recall, their costs, and the fitted exponent."""
    reached = [
        (row["n"], cost)
        for row in rows
        if row["nlist"] and (cost := cost_at(row["points"], recall))
    ]
    sizes, costs = [n for n, _ in reached], [cost for _, cost in reached]
    fitted = exponent(sizes, costs) if len(sizes) > 1 else None
    return {"sizes": sizes, "cpu_us": costs, "exponent": fitted}


def plot(report: dict[str, Any], path: Path) -> None:
    """Cost of a query and of a build against n, both axes logarithmic."""
    from matplotlib.figure import Figure

    found, rows = report["at_recall"], report["rows"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(found["sizes"], found["cpu_us"], "o-", color="#1f77b4")
    if found["exponent"] is not None:
        left.set_title(
            f"a query at recall@{K} {report['setup']['recall']}: n^{found['exponent']:.2f}"
        )
    left.set_ylabel("µs, one thread")
    right.loglog(
        [r["n"] for r in rows], [r["train_s"] + r["add_s"] for r in rows], "o-", color="#d62728"
    )
    right.set_title(f"a build on {report['setup']['threads']} threads")
    right.set_ylabel("s")
    for axes in (left, right):
        axes.set_xlabel("vectors")
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, dpi=150)


def child(setup: Setup, task: str, folder: Path, n: int) -> dict[str, Any]:
    """The result of one task in a process of its own."""
    command = [sys.executable, "-P", "-m", "benchmarks.bench_scale", "--task", task]
    command += ["--folder", str(folder), "--n", str(n), "--setup", json.dumps(asdict(setup))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(setup: Setup, folder: Path, stem: Path) -> dict[str, Any]:
    """Every size; the report is written anew after each, so that a run that is cut leaves some."""
    print(f"writing {setup.sizes[-1]:,} vectors", flush=True)
    write_vectors(setup, folder / "vectors")
    queries = chunk(setup, 10**6, setup.queries)
    np.save(folder / "queries.npy", queries)
    print("exact answers", flush=True)
    for n, rows in truth(setup, folder / "vectors", queries).items():
        np.save(folder / f"truth-{n}.npy", rows)
    report: dict[str, Any] = {
        "setup": asdict(setup),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [],
    }
    for n in setup.sizes:
        row = child(setup, "build", folder, n) | child(setup, "search", folder, n)
        (folder / f"index-{n}").unlink()
        report["rows"].append(row)
        report["at_recall"] = summary(report["rows"], setup.recall)
        cost = cost_at(row["points"], setup.recall)
        print(
            f"{n:>11,}: nlist {row['nlist']:,}, train {row['train_s']:.1f} s, add "
            f"{row['add_s']:.1f} s, peak {row['peak_anonymous_bytes'] / _MIB:,.0f} MiB for "
            f"{sum(row['index_bytes'].values()) / _MIB:,.0f} of index; open {row['open_s']:.3f} s; "
            + (f"{cost:,.0f} us at {setup.recall}" if cost else f"{setup.recall} out of reach"),
            flush=True,
        )
        stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        if len(report["at_recall"]["sizes"]) > 1:
            plot(report, stem.with_suffix(".png"))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print one line a size, write JSON and plot; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="three small sizes, for a look")
    parser.add_argument("--most", type=int, default=10_000_000, help="the largest size")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where JSON and plot go")
    parser.add_argument("--folder", type=Path, help="for vectors and indexes; 10 GB")
    for hidden in ("--task", "--setup"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.task:
        fields = json.loads(given.setup)
        setup = Setup(**fields | {"sizes": tuple(fields["sizes"])})
        print(json.dumps(_task(setup, given.task, given.folder, given.n)))
        return 0
    setup = Setup(threads=given.threads)
    if given.tiny:
        setup = Setup((3_000, 12_000, 24_000), centres=100, queries=50, threads=given.threads)
    sizes = tuple(n for n in setup.sizes if n <= given.most)
    setup = Setup(**asdict(setup) | {"sizes": sizes})
    given.out.mkdir(parents=True, exist_ok=True)
    name = "scale-tiny" if given.tiny else f"scale-{setup.d}"
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as folder:
        run(setup, Path(folder), given.out / name)
    return 0


def _task(setup: Setup, task: str, folder: Path, n: int) -> dict[str, Any]:
    index_file = folder / f"index-{n}"
    if task == "build":
        return build(setup, folder / "vectors", n, index_file)
    queries = np.load(folder / "queries.npy")
    return search(setup, index_file, queries, np.load(folder / f"truth-{n}.npy"))


if __name__ == "__main__":
    sys.exit(main())
