"""Batches of queries: soardb beside ScaNN and faiss, at equal recall, on one core and on two.

    datasets.py, peers.py -> [bench_batch.py] -> results/batch-*.json, *.png

Each index is built once. A sweep over its query parameters, with all queries in one batch, finds
the cheapest setting that reaches each recall; these settings are then timed for every size of
batch. A pass goes over all indexes before the next one begins, and medians of the passes are
reported. "planner" is soardb with no parameter at all; "exact" compares exact search with exact
search, for which ScaNN's brute force and faiss's flat index are built as well.

    python -m benchmarks.bench_batch glove6b-100-angular
    python -m benchmarks.bench_batch --tiny

With --lock, a lock on that file is held while the clock runs.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import peers, provenance
from benchmarks.datasets import load
from soardb.errors import SoarError
from soardb.index.ivf import SoarIndex
from soardb.kernels.layout import F32, Metric

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
RECALLS = (0.90, 0.95, 0.99)
Ids = npt.NDArray[Any]
Ask = Callable[[F32, dict[str, Any], int], Ids]


@dataclass(frozen=True)
class Setup:
    """What one run measures. sizes: queries a batch, 0 for all of them."""

    dataset: str
    queries: int = 10_000
    sizes: tuple[int, ...] = (64, 256, 1024, 0)
    threads: tuple[int, ...] = (1, 2)
    passes: int = 3
    seconds: float = 0.5
    folder: str | None = None
    lock: str | None = None


@dataclass
class Contender:
    """An index that is asked in batches. settings: by goal ("0.95", "exact", "planner")."""

    label: str
    library: str
    ask: Ask
    sweep: list[dict[str, Any]]
    is_exact: bool = False
    settings: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One measured cell: batches of `size` queries on `threads` cores, median of the passes.

    cpu_us is what a query costs in CPU time of all threads, which other work on the machine
    disturbs less than the clock.
    """

    label: str
    library: str
    goal: str
    setting: dict[str, Any]
    recall: float
    threads: int
    size: int
    qps: float
    qps_passes: tuple[float, ...]
    cpu_us: float


def contenders(setup: Setup, vectors: F32, metric: Metric) -> list[Contender]:
    """Every index over (n, d) vectors, built on all cores."""
    found = [_soardb(setup, vectors, metric)]
    n, cores = len(vectors), os.cpu_count() or 1
    for spec in [s for s in peers.Scann.specs(n, metric) if "soar_lambda" not in s.build]:
        one = peers.Scann(metric, K, spec.build)
        one.build(vectors, cores)
        found.append(Contender(spec.label, "scann", _scann_ask(one.searcher), _plain(one.sweep())))
    spec = peers.Faiss.specs(n, metric)[0]
    fast = peers.Faiss(metric, K, spec.build)
    fast.build(vectors, cores)
    found.append(Contender(spec.label, "faiss", _faiss_ask(fast), _plain(fast.sweep())))
    return found + _exact_ones(vectors, metric)


def _plain(sweep: Sequence[peers.Arguments]) -> list[dict[str, Any]]:
    return [dict(setting) for setting in sweep]


def _soardb(setup: Setup, vectors: F32, metric: Metric) -> Contender:
    path = Path(setup.folder, f"batch-{setup.dataset}.index") if setup.folder else None
    if path is not None and path.exists():
        index = SoarIndex.load(path)
    else:
        nlist = None if len(vectors) >= 20_000 else 64
        index = SoarIndex(vectors.shape[1], metric, nlist=nlist, threads=os.cpu_count() or 1)
        index.train(vectors)
        index.add(vectors)
        if path is not None:
            index.save(path)
    pairs = peers.band(peers.probes(index.nlist), peers.RERANKS)
    sweep: list[dict[str, Any]] = [{"nprobe": p, "rerank": r} for p, r in pairs]

    def ask(queries: F32, setting: dict[str, Any], threads: int) -> Ids:
        return index.search(queries, K, threads=threads, **setting)[1]

    return Contender("soardb", "soardb", ask, sweep)


def _scann_ask(searcher: Any) -> Ask:
    def ask(queries: F32, setting: dict[str, Any], threads: int) -> Ids:
        batched = searcher.search_batched if threads == 1 else searcher.search_batched_parallel
        return np.asarray(batched(queries, K, setting.get("reorder"), setting.get("leaves"))[0])

    return ask


def _faiss_ask(peer: peers.Faiss) -> Ask:
    def ask(queries: F32, setting: dict[str, Any], threads: int) -> Ids:
        peer.faiss.omp_set_num_threads(threads)
        peer.set_query_arguments(setting)
        return peer.query_batch(queries)

    return ask


def _exact_ones(vectors: F32, metric: Metric) -> list[Contender]:
    """ScaNN's brute force and faiss's flat index."""
    rows = peers.unit(vectors) if metric == "cosine" else vectors
    builder = importlib.import_module("scann").scann_ops_pybind.builder
    measure = "squared_l2" if metric == "l2" else "dot_product"
    brute = builder(rows, K, measure).score_brute_force().build()
    faiss = importlib.import_module("faiss")
    flat = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(rows.shape[1])
    flat.add(rows)

    def ask_flat(queries: F32, setting: dict[str, Any], threads: int) -> Ids:
        faiss.omp_set_num_threads(threads)
        return np.asarray(flat.search(queries, K)[1])

    return [
        Contender("scann-brute-force", "scann", _scann_ask(brute), [{}], is_exact=True),
        Contender("faiss-flat", "faiss", ask_flat, [{}], is_exact=True),
    ]


def recall(ids: Ids, truth: Ids) -> float:
    """Share of the true K found, over (nq, K) ids."""
    return float((ids[:, :, None] == truth[:, None, :]).any(axis=1).mean())


def settle(one: Contender, queries: F32, truth: Ids) -> None:
    """The cheapest setting of its sweep for each recall, and what needs no sweep."""

    def timed(setting: dict[str, Any]) -> tuple[float, float]:
        one.ask(queries[:64], setting, 1)
        began = time.thread_time()
        ids = one.ask(queries, setting, 1)
        return time.thread_time() - began, recall(ids, truth)

    if one.is_exact:
        one.settings["exact"] = ({}, recall(one.ask(queries[:256], {}, 1), truth[:256]))
        return
    measured = [(*timed(setting), setting) for setting in one.sweep]
    for goal in RECALLS:
        enough = [entry for entry in measured if entry[1] >= goal]
        if enough:
            _, reached, setting = min(enough, key=lambda entry: entry[0])
            one.settings[f"{goal:.2f}"] = (setting, reached)
    if one.library == "soardb":
        whole: dict[str, dict[str, Any]] = {"planner": {}, "exact": {"exact": True}}
        for name, setting in whole.items():
            one.settings[name] = (setting, timed(setting)[1])


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Every thread of this process on some cores, then on those of before."""
    before = os.sched_getaffinity(0)

    def move(chosen: set[int]) -> None:
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), chosen)

    move(set(cores))
    try:
        yield
    finally:
        move(before)


@contextlib.contextmanager
def alone(setup: Setup, threads: int) -> Iterator[None]:
    """On the last cores, as many as threads, under the lock."""
    with contextlib.ExitStack() as stack:
        if setup.lock:
            lock = stack.enter_context(open(setup.lock, "a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        stack.enter_context(on_cores(sorted(os.sched_getaffinity(0))[-threads:]))
        yield


def speed(
    one: Contender, queries: F32, setting: dict[str, Any], size: int, threads: int, seconds: float
) -> tuple[float, float]:
    """Queries a second, and CPU us of each, in batches of `size` for about so many seconds."""
    one.ask(queries[:size], setting, threads)
    done, first, began, cpu = 0, 0, time.perf_counter(), time.process_time()
    while done == 0 or time.perf_counter() - began < seconds:
        done += len(one.ask(queries[first : first + size], setting, threads))
        first = first + size if first + 2 * size <= len(queries) else 0
    spent = time.process_time() - cpu
    return done / (time.perf_counter() - began), 1e6 * spent / done


def run(setup: Setup) -> list[Row]:
    """Every cell, printed as it is measured."""
    data = load(setup.dataset)
    queries = data.test[: setup.queries]
    if data.metric == "cosine":
        queries = peers.unit(queries)
    truth = data.neighbors[: setup.queries, :K]
    cores = sorted(os.sched_getaffinity(0))
    with on_cores(cores[:1] if setup.lock else cores):  # the others are somebody else's meanwhile
        all_of_them = contenders(setup, data.train, data.metric)
    some = min(2000, len(queries))
    for one in all_of_them:
        with alone(setup, 1):
            settle(one, queries[:some], truth[:some])
    rows = []
    for threads in setup.threads:
        for size in setup.sizes:
            rows += _measured(setup, all_of_them, queries, size or len(queries), threads)
    return rows


def _measured(
    setup: Setup, every: list[Contender], queries: F32, size: int, threads: int
) -> list[Row]:
    cells = [(one, goal) for one in every for goal in one.settings]
    passes: list[list[tuple[float, float]]] = [[] for _ in cells]
    for _ in range(setup.passes):
        with alone(setup, threads):
            for (one, goal), found in zip(cells, passes, strict=True):
                setting = one.settings[goal][0]
                # Exact search in float32 takes seconds for what is asked elsewhere.
                some = queries[: min(len(queries), 1024)] if one.is_exact else queries
                args = (some, setting, min(size, len(some)), threads, setup.seconds)
                found.append(speed(one, *args))
    rows = []
    for (one, goal), found in zip(cells, passes, strict=True):
        setting, reached = one.settings[goal]
        row = Row(
            one.label,
            one.library,
            goal,
            setting,
            reached,
            threads,
            size,
            statistics.median(qps for qps, _ in found),
            tuple(qps for qps, _ in found),
            statistics.median(cpu for _, cpu in found),
        )
        rows.append(row)
        print(
            f"threads {threads}  batch {size:>6}  {goal:>7}  {one.label:<26} "
            f"recall {reached:.4f}  {row.qps:>9,.0f} QPS  {row.cpu_us:>8,.1f} us  {setting}",
            flush=True,
        )
    return rows


def plot(report: dict[str, Any], path: Path) -> None:
    """A panel for each goal: QPS over the size of a batch, the best index of each library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    goals = [f"{goal:.2f}" for goal in RECALLS] + ["exact"]
    figure, panels = pyplot.subplots(1, len(goals), figsize=(3.6 * len(goals), 3.8), sharey=True)
    sizes = sorted({row["size"] for row in report["rows"]})
    colors = {"soardb": "#0b6e99", "scann": "#d9730d", "faiss": "#6b7280"}
    for panel, goal in zip(panels, goals, strict=True):
        for library, color in colors.items():
            for threads, style in ((1, "-"), (2, "--")):
                best = [
                    max((r["qps"] for r in report["rows"] if (r["library"], r["goal"], r["threads"],
                         r["size"]) == (library, goal, threads, size)), default=np.nan)
                    for size in sizes
                ]  # fmt: skip
                panel.plot(sizes, best, style, color=color, marker="o", ms=4,
                           label=f"{library}, {threads} thread{'s' * (threads > 1)}")  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel="queries a batch")
        panel.set_title("exact" if goal == "exact" else f"recall@10 ≥ {goal}")
        panel.grid(True, which="both", alpha=0.2)
    panels[0].set_ylabel("queries a second")
    panels[-1].legend(fontsize=7)
    figure.suptitle(f"{report['setup']['dataset']}: batches of queries")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def parse(arguments: Sequence[str] | None) -> tuple[Setup, Path]:
    """The setup and the folder of the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_batch", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="glove6b-100-angular")
    parser.add_argument("--tiny", action="store_true", help="a small set, to see that it runs")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each cell in each pass")
    parser.add_argument("--folder", help="keep soardb's index there, and take it from there")
    parser.add_argument("--lock", help="a file to lock while the clock runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if given.tiny:
        return Setup("tiny-32-angular", 256, (64, 0), (1, 2), 1, 0.01), given.results
    threads = tuple(t for t in (1, 2) if t <= len(os.sched_getaffinity(0)))
    setup = Setup(
        given.dataset,
        given.queries,
        threads=threads,
        passes=given.passes,
        seconds=given.seconds,
        folder=given.folder,
        lock=given.lock,
    )
    return setup, given.results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write JSON and plot: exit code."""
    setup, results = parse(arguments)
    try:
        peers.check_installed(["scann", "faiss"])
        commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
        rows = run(setup)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        "benchmark": "batch",
        "commit": commit,
        "machine": provenance.machine(),
        "date": datetime.date.today().isoformat(),
        "setup": {k: v for k, v in asdict(setup).items() if k not in ("folder", "lock")},
        "k": K,
        "rows": [asdict(row) for row in rows],
    }
    path = results / f"batch-{setup.dataset}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    plot(report, path.with_suffix(".png"))
    print(f"written: {path.name}, {path.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
