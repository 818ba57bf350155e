"""Selection at a million points: time, memory and certificate, beside NumPy and apricot-select.

    recipes.py, datasets.py, soardb.pipelines.select -> [bench_select.py] -> results/select*.json

Every row is a process of its own, which maps its vectors from a file: weighted k-center, exactly,
by the index and over two machines; greedy k-center, and the plain NumPy loop that is to find its
centres; and on as many points as it can take, facility location, here and by apricot-select. The
weights are margins of a random linear classifier with ten classes, or what the ten nearest points
say of that classifier's classes. Memory is what no file stands behind, of the process and of those
it began, at most, looked at twenty times a second (Linux).

    python -m benchmarks.bench_select
    python -m benchmarks.bench_select --only million
    python -m benchmarks.bench_select --tiny

With --lock, a lock on that file is held while a row is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks import datasets, provenance
from benchmarks.environment import need
from benchmarks.recipes import mixture
from soardb.errors import SoarError, Unavailable
from soardb.kernels.layout import F32, I64
from soardb.metrics import unit_rows
from soardb.pipelines import select

__all__ = ["Job", "jobs", "main", "numpy_gonzalez"]

RESULTS = Path(__file__).resolve().parent / "results"
EXTRA = "bench-select"
CLASSES = 10
_MIB = 2**20
_CHUNK = 50_000


@dataclass(frozen=True)
class Setup:
    """What one run measures. A part with n of 0 is left out."""

    name: str = ""
    million: int = 1_000_000
    million_k: int = 1_000
    d: int = 100
    glove: str = "glove6b-100-angular"
    glove_k: int = 50_000
    small: int = 10_000
    small_k: int = 1_000
    voters: int = 100_000
    threads: int = 2


TINY = Setup("-tiny", 3_000, 50, 16, "tiny-32-angular", 500, 800, 40, 1_000)


@dataclass(frozen=True)
class Job:
    """One row: what is done with the first n vectors of a file.

    how: the name of a function of _WAYS; options: of SelectConfig
    """

    part: str
    label: str
    how: str
    vectors: str
    n: int
    k: int
    options: dict[str, Any]


def jobs(setup: Setup) -> Iterator[Job]:
    """All rows, part after part."""
    wkc = {"metric": "l2", "threads": setup.threads}
    first = ("million", setup.million, setup.million_k)
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("NumPy, greedy k-center", "numpy", {}),
        ("greedy k-center", "select", {**wkc, "method": "gonzalez"}),
        ("weighted k-center", "weighted", wkc),
        ("weighted k-center, index", "weighted", {**wkc, "index": True}),
        ("weighted k-center, 2 machines", "weighted", {**wkc, "machines": 2, "threads": 1}),
    ]
    for label, how, options in ways:
        yield _job(first, "million", label, how, options)
    angles = {**wkc, "metric": "cosine"}
    second = ("glove", 0, setup.glove_k)
    yield _job(second, "glove", "weighted k-center", "weighted", angles)
    yield _job(second, "glove", "weighted k-center, index", "weighted", {**angles, "index": True})
    third = ("small", setup.small, setup.small_k)
    yield _job(third, "million", "apricot, facility location", "apricot", {})
    yield _job(third, "million", "facility location", "select", {**wkc, "method": "facility"})
    yield _job(third, "million", "weighted k-center", "weighted", wkc)
    fourth = ("votes", setup.voters, setup.small_k)
    yield _job(fourth, "glove", "weighted k-center, votes of a collection", "votes", angles)


def _job(
    part: tuple[str, int, int], vectors: str, label: str, how: str, options: dict[str, Any]
) -> Job:
    name, n, k = part
    return Job(name, label, how, vectors, n, k, options)


def make_files(setup: Setup, folder: Path) -> None:
    """<name>.npy, (n, d) float32, and <name>-logits.npy, (n, CLASSES), of each source."""
    sources: dict[str, Callable[[], F32]] = {
        "million": lambda: mixture(
            setup.million, setup.d, clusters=4000 if setup.million > 10**5 else 40,
            rank=min(24, setup.d // 2), noise=0.2, seed=0,
        ),
        "glove": lambda: datasets.load(setup.glove).train,
    }  # fmt: skip
    for name, made in sources.items():
        vectors = made()
        np.save(folder / f"{name}.npy", vectors)
        planes = np.random.default_rng(1).standard_normal((vectors.shape[1], CLASSES), np.float32)
        rows = range(0, len(vectors), _CHUNK)
        logits = [4 * unit_rows(vectors[row : row + _CHUNK].copy()) @ planes for row in rows]
        np.save(folder / f"{name}-logits.npy", np.concatenate(logits))


# --- one row, in its own process ----------------------------------------------------------------


def numpy_gonzalez(vectors: F32, k: int) -> tuple[I64, float]:
    """The loop that one would write: k centres from row 0 on, and the radius that they leave."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    near = np.full(len(vectors), np.inf, np.float32)
    chosen = np.zeros(k, np.int64)
    for step in range(k):
        if step:
            chosen[step] = near.argmax()
        centre = vectors[chosen[step]]
        np.minimum(near, squares - 2 * (vectors @ centre) + centre @ centre, out=near)
    return chosen, float(np.sqrt(max(near.max(), 0)))


def _numpy(job: Job, vectors: F32, logits: F32) -> dict[str, Any]:
    vectors = np.array(vectors)  # in memory, as the others have it
    began = _clocks()
    vectors -= vectors.mean(axis=0)  # for digits
    chosen, radius = numpy_gonzalez(vectors, job.k)
    return {**_since(began), "radius": radius, "first": chosen[:10].tolist()}


def _select(job: Job, vectors: F32, logits: F32) -> dict[str, Any]:
    return _run(job, vectors, None)


def _weighted(job: Job, vectors: F32, logits: F32) -> dict[str, Any]:
    return _run(job, vectors, logits)


def _run(job: Job, vectors: F32, logits: F32 | None) -> dict[str, Any]:
    began = _clocks()
    config = select.SelectConfig(job.k, **job.options)
    chosen = select.run(vectors, config, logits=logits)
    row = {**_since(began), **chosen.certificate.to_json()}
    if config.method == "facility":
        row["similarity"] = _similarity(vectors, chosen.rows)
    return row


def _apricot(job: Job, vectors: F32, logits: F32) -> dict[str, Any]:
    made = need("apricot", EXTRA).FacilityLocationSelection
    made(5, metric="euclidean").fit(vectors[:50])  # compiles
    began = _clocks()
    rows = np.asarray(made(job.k, metric="euclidean").fit(np.array(vectors)).ranking, np.int64)
    return {**_since(began), "similarity": _similarity(vectors, rows)}


def _votes(job: Job, vectors: F32, logits: F32) -> dict[str, Any]:
    """Points, with classes in their payloads, as a collection; the load is not timed."""
    with tempfile.TemporaryDirectory() as folder, soardb.connect(folder) as database:
        collection = database.create_collection("points", vectors.shape[1], metric="cosine")
        kinds = logits.argmax(axis=1)
        for first in range(0, len(vectors), _CHUNK):
            ids = range(first, min(first + _CHUNK, len(vectors)))
            collection.upsert(
                list(ids), vectors[ids.start : ids.stop], [{"kind": int(kinds[i])} for i in ids]
            )
        collection.compact()
        began = _clocks()
        chosen = select.run(
            collection, select.SelectConfig(job.k, label_field="kind", **job.options)
        )
        return {**_since(began), "without_votes_s": chosen.seconds, **chosen.certificate.to_json()}


def _similarity(vectors: F32, chosen: I64) -> float:
    """Facility location's objective a point, in float64: the largest squared distance less the
    squared distance to the closest chosen point, as both take it."""
    points = np.asarray(vectors, np.float64)
    points = points - points.mean(axis=0)
    squares = np.einsum("ij,ij->i", points, points)
    total, top = 0.0, 0.0
    for first in range(0, len(points), 500):
        rows = slice(first, first + 500)
        keys = squares[rows, None] - 2 * points[rows] @ points.T + squares
        top = max(top, float(keys.max()))
        total += float(keys[:, chosen].min(axis=1).sum())
    return top - total / len(points)


def _clocks() -> tuple[float, float]:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + ended.ru_utime + ended.ru_stime


def _since(began: tuple[float, float]) -> dict[str, float]:
    """Wall and CPU seconds; the latter of processes that have ended, too."""
    return {name: b - a for name, a, b in zip(("wall_s", "cpu_s"), began, _clocks(), strict=True)}


_WAYS: dict[str, Callable[[Job, F32, F32], dict[str, Any]]] = {
    "numpy": _numpy,
    "select": _select,
    "weighted": _weighted,
    "apricot": _apricot,
    "votes": _votes,
}


def work(job: Job, folder: Path) -> dict[str, Any]:
    """Do one row here."""
    n = job.n or None
    vectors = np.load(folder / f"{job.vectors}.npy", mmap_mode="r")[:n]
    logits = np.load(folder / f"{job.vectors}-logits.npy", mmap_mode="r")[:n]
    found = _WAYS[job.how](job, vectors, logits)
    return {**asdict(job), "n": len(vectors), **found}


def apart(job: Job, folder: Path, lock: Path | None) -> dict[str, Any]:
    """One row in a process of its own, with the memory that it took."""
    command = [sys.executable, "-P", "-m", "benchmarks.bench_select"]
    command += ["--one", json.dumps(asdict(job)), "--folder", str(folder)]
    with contextlib.ExitStack() as stack:
        if lock is not None:
            fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak = 0
        while True:
            peak = max(peak, _anonymous_bytes(process.pid))
            try:
                out, _ = process.communicate(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise Unavailable(f"{job.part}, {job.label}: ended with code {process.returncode}")
    row: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {**row, "peak_anonymous_bytes": peak, "load_average": os.getloadavg()[0]}


def _anonymous_bytes(pid: int) -> int:
    """Of a process and of those it began; 0 where the system does not tell."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text("ascii", "replace").splitlines()
        own = next((int(x.split()[1]) for x in lines if x.startswith("RssAnon")), 0) * 1024
        children = [
            int(child)
            for task in (folder / "task").iterdir()
            for child in (task / "children").read_text("ascii").split()
        ]
    except OSError:
        return 0
    return own + sum(map(_anonymous_bytes, children))


# --- the report ---------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """Markdown: a line a row."""
    header = ["part", "n x d, k", "what", "wall s", "CPU s", "peak MiB", "radius", "mean weight"]
    header += ["objective", "bound", "ratio", "factor", "guesses", "similarity"]
    lines = [header, ["---", "---", "---", *["---:"] * (len(header) - 3)]]
    for row in report["rows"]:
        k = row["k"]
        weight = None if row.get("weight") is None else row["weight"] / k
        values = [row.get("radius"), weight, row.get("objective"), row.get("lower_bound")]
        values += [row.get("ratio"), row.get("factor"), row.get("guesses"), row.get("similarity")]
        lines.append(
            [
                row["part"],
                f"{row['n']:,} x {report['dimensions'][row['vectors']]}, {k:,}",
                row["label"],
                f"{row['wall_s']:,.1f}",
                f"{row['cpu_s']:,.1f}",
                f"{row['peak_anonymous_bytes'] / _MIB:,.0f}",
                *("" if value is None else f"{value:.4g}" for value in values),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """CPU time and memory of every row, as bars."""
    from matplotlib.figure import Figure

    rows = report["rows"][::-1]
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [f"{row['part']}: {row['label']}" for row in rows]
    ours = ["#1f5fa8" if row["how"] in ("numpy", "apricot") else "#c8102e" for row in rows]
    memory = [row["peak_anonymous_bytes"] / _MIB for row in rows]
    for axes, values, label in (
        (panels[0], [row["cpu_s"] for row in rows], "CPU seconds"),
        (panels[1], memory, "peak anonymous memory, MiB"),
    ):
        bars = axes.barh(names, values, color=ours)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set(xlabel=label, xscale="log")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)


def _version(name: str) -> str | None:
    """Of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _write(
    setup: Setup, row: dict[str, Any], commit: str, dimensions: dict[str, int], stem: Path
) -> None:
    """JSON, table and plot: what an older report has of other rows stays in it."""
    path = stem.with_suffix(".json")
    before = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    dated = {**row, "commit": commit, "date": datetime.date.today().isoformat()}
    by_key = {(row["part"], row["label"]): row for row in [*before, dated]}
    report = {
        "benchmark": "select",
        "machine": provenance.machine(),
        "setup": asdict(setup),
        "dimensions": dimensions,
        "versions": {name: _version(name) for name in ("numpy", "apricot-select")},
        "rows": [
            by_key[job.part, job.label] for job in jobs(setup) if (job.part, job.label) in by_key
        ],
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(table(report), "utf-8")
    plot(report, stem.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure row after row; JSON, table and plot after each: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_select", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small sets, to see that it runs")
    parser.add_argument("--only", default="", help="regular expression for 'part: label'")
    parser.add_argument("--glove-k", type=int, default=Setup.glove_k)
    parser.add_argument("--threads", type=int, default=Setup.threads)
    parser.add_argument("--lock", type=Path, help="a file to lock while a row is measured")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help="to keep the vectors in, or that has them")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one is not None:
        print(json.dumps(work(Job(**json.loads(given.one)), given.folder)))
        return 0
    setup = TINY if given.tiny else Setup(glove_k=given.glove_k, threads=given.threads)
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary)
            if not (folder / "glove-logits.npy").exists():
                folder.mkdir(parents=True, exist_ok=True)
                make_files(setup, folder)
            dimensions = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r").shape[1]
                for name in ("million", "glove")
            }
            for job in jobs(setup):
                if not re.search(given.only, f"{job.part}: {job.label}"):
                    continue
                row = apart(job, folder, given.lock)
                print(
                    f"{job.part}: {job.label}: {row['wall_s']:.1f} s, CPU {row['cpu_s']:.1f} s, "
                    f"{row['peak_anonymous_bytes'] / _MIB:,.0f} MiB, radius {row.get('radius')}, "
                    f"ratio {row.get('ratio')}, guesses {row.get('guesses')}",
                    flush=True,
                )
                _write(setup, row, commit, dimensions, given.results / f"select{setup.name}")
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
