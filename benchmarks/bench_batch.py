"""Batches of queries: soardb beside ScaNN and faiss, at equal recall, on one core and on two.

    datasets.py, peers, index_cache.py, judge.py -> [bench_batch.py] -> results/batch-*.json, *.png

The indexes are those of bench_peers.py, the best builds of each library, kept between runs. A sweep
over their query parameters finds the cheapest setting that reaches each recall; these settings are
then timed for every size of batch. A pass goes over all of them before the next one begins, and
medians of the passes are reported. "planner" is soardb with no parameter at all; "exact" compares
exact search with exact search, for which ScaNN's brute force and faiss's flat index are built.

    python -m benchmarks.bench_batch glove6b-100-angular
    python -m benchmarks.bench_batch --tiny

With --lock, a lock on that file is held while the clock runs, and only then are all cores used.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import importlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import bench_peers, datasets, index_cache, peers, provenance
from benchmarks.judge import TOLERANCE, Judge, Vectors
from benchmarks.peer_worker import Options
from benchmarks.peers.face import unit
from benchmarks.peers.soardb import DEFAULT
from soardb.errors import SoarError

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("soardb", "scann", "faiss")
K = 10
RECALLS = (0.90, 0.95, 0.99)
SAMPLE = 1000  # queries that the sweep asks
WARM_UP = 1024  # queries at most, before each measurement
SAMPLE_ERROR = 0.005  # of recall: what comes so near a goal is judged by all queries
EXACT_QUERIES = 1024  # of the exact indexes, which take seconds for what is asked elsewhere
Ask = Callable[[Vectors, peers.Arguments, int], npt.NDArray[Any]]


@dataclass(frozen=True)
class Setup:
    """What one run measures. sizes: queries a batch, 0 for all of them."""

    dataset: str
    queries: int = 10_000
    sizes: tuple[int, ...] = (64, 1024, 0)
    threads: tuple[int, ...] = (1, 2)
    passes: int = 3
    seconds: float = 0.5
    only: str = ""
    lock: Path | None = None


@dataclass
class Contender:
    """An index that is asked in batches. settings: by goal ("0.95", "exact", "planner")."""

    label: str
    library: str
    ask: Ask
    sweep: Sequence[peers.Arguments]
    is_exact: bool = False
    settings: dict[str, peers.Arguments] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """What is timed at once: queries (nq, d) of one index at one goal, in batches of `size`."""

    one: Contender
    goal: str
    queries: Vectors
    size: int

    @property
    def setting(self) -> peers.Arguments:
        """The one that reaches the goal."""
        return self.one.settings[self.goal]


@dataclass(frozen=True)
class Row:
    """One measured cell: batches of `size` queries on `threads` cores, median of the passes.

    recall is of all queries, asked in batches of that size; cpu_us is what a query
    costs in CPU time of all threads, which other work on the machine disturbs less than the clock.
    """

    label: str
    library: str
    goal: str
    setting: peers.Arguments
    recall: float
    threads: int
    size: int
    qps: float
    qps_passes: tuple[float, ...]
    cpu_us: float


def contenders(setup: Setup, data: datasets.Dataset, options: Options) -> list[Contender]:
    """Every index, opened from the cache, and the two that score every vector."""
    n, d = data.train.shape
    found = []
    for name in LIBRARIES:
        library = peers.PEERS[name]
        for spec in library.peer.specs(n, d, data.metric):
            if not spec.is_quick or not re.search(setup.only, spec.label):
                continue
            peer = library.peer(data.metric, K, spec.build)
            threads = options.build_threads
            folder = index_cache.folder_of(spec, library, data.sha256, K, threads)
            index_cache.reopen(peer, folder)
            sweep = [setting for setting in peer.sweep() if setting]  # {} is the planner's
            found.append(Contender(spec.label, name, _asked(peer), sweep))
    return found + _exact_ones(data.train, data.metric)


def _asked(peer: peers.Peer) -> Ask:
    def ask(queries: Vectors, setting: peers.Arguments, threads: int) -> npt.NDArray[Any]:
        peer.set_query_arguments(setting)
        return peer.query_batch(queries, threads)

    return ask


def _exact_ones(vectors: Vectors, metric: str) -> list[Contender]:
    """ScaNN's brute force and faiss's flat index."""
    rows = unit(vectors) if metric == "cosine" else vectors
    builder = importlib.import_module("scann").scann_ops_pybind.builder
    measure = "squared_l2" if metric == "l2" else "dot_product"
    brute = builder(rows, K, measure).score_brute_force().build()
    faiss = importlib.import_module("faiss")
    faiss.cvar.distance_compute_blas_threshold = 20  # some releases read all anew for each query
    flat = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(rows.shape[1])
    flat.add(rows)

    def ask_brute(queries: Vectors, setting: peers.Arguments, threads: int) -> npt.NDArray[Any]:
        search = brute.search_batched if threads == 1 else brute.search_batched_parallel
        return np.asarray(search(queries, K)[0])

    def ask_flat(queries: Vectors, setting: peers.Arguments, threads: int) -> npt.NDArray[Any]:
        faiss.omp_set_num_threads(threads)
        return np.asarray(flat.search(queries, K)[1])

    return [
        Contender("scann-brute-force", "scann", ask_brute, [], is_exact=True),
        Contender("faiss-flat", "faiss", ask_flat, [], is_exact=True),
    ]


def recall(
    one: Contender, setting: peers.Arguments, queries: Vectors, judge: Judge, size: int
) -> float:
    """Recall of the (nq, d) queries, the first of the judge's, asked in batches of `size`."""
    starts = range(0, len(queries), size)
    ids = [one.ask(queries[i : i + size], setting, 1).astype(np.int64) for i in starts]
    return judge.recall(np.concatenate(ids), tolerance=TOLERANCE)


def cost(one: Contender, setting: peers.Arguments, some: Vectors) -> tuple[float, npt.NDArray[Any]]:
    """CPU seconds of one batch (nq, d), and the ids (nq, K) of its answer."""
    one.ask(some[:64], setting, 1)
    began = time.thread_time()
    ids = one.ask(some, setting, 1)
    return time.thread_time() - began, ids


def settle(
    one: Contender,
    costs: Sequence[tuple[float, npt.NDArray[Any]]],
    queries: Vectors,
    judge: Judge,
) -> None:
    """The cheapest setting of its sweep for each recall, and what needs no sweep.

    costs  of each setting by a sample, the first of the queries; that a goal is reached, all say
    """
    measured = [
        (spent, judge.recall(ids.astype(np.int64), tolerance=TOLERANCE), setting)
        for (spent, ids), setting in zip(costs, one.sweep, strict=True)
    ]
    measured.sort(key=lambda entry: entry[0])
    for goal in RECALLS:
        near = (setting for _, found, setting in measured if found >= goal - SAMPLE_ERROR)
        for setting in near:
            if recall(one, setting, queries, judge, len(queries)) >= goal:
                one.settings[f"{goal:.2f}"] = setting
                break
    if one.label == DEFAULT:
        one.settings |= {"planner": {}, "exact": {"exact": True}}
    if one.is_exact:
        one.settings["exact"] = {}


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
def alone(lock: Path | None, cores: Sequence[int], threads: int) -> Iterator[None]:
    """On the last of these cores, as many as threads, under the lock."""
    with contextlib.ExitStack() as stack:
        if lock is not None:
            fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX)
        stack.enter_context(on_cores(cores[-threads:]))
        yield


def speed(cell: Cell, threads: int, seconds: float) -> tuple[float, float]:
    """Queries a second, and CPU us of each, in batches for about so many seconds."""
    ask, queries, setting = cell.one.ask, cell.queries, cell.setting
    size = min(cell.size, len(queries))
    ask(queries[: min(size, WARM_UP)], setting, threads)
    done, first, began, cpu = 0, 0, time.perf_counter(), time.process_time()
    while done == 0 or time.perf_counter() - began < seconds:
        done += len(ask(queries[first : first + size], setting, threads))
        first = first + size if first + 2 * size <= len(queries) else 0
    spent = time.process_time() - cpu
    return done / (time.perf_counter() - began), 1e6 * spent / done


def run(setup: Setup) -> Iterator[list[Row]]:
    """Every cell, printed as it is measured: those of one number of threads after the other.

    Raises InvalidArgument where a library is missing, PeerError where one fails to build.
    """
    options = Options(setup.dataset, LIBRARIES, setup.only, k=K)
    bench_peers.build_all(options, setup.lock)
    data = datasets.load(setup.dataset)
    chosen = bench_peers.choose_queries(len(data.test), setup.queries)
    queries = np.ascontiguousarray(data.test[chosen])
    judge = Judge(data.train, queries, data.neighbors[chosen], data.metric, K)
    cores = sorted(os.sched_getaffinity(0))
    with on_cores(cores[:1] if setup.lock else cores):  # the others are somebody else's meanwhile
        every = contenders(setup, data, options)
        some = queries[:SAMPLE]
        with alone(setup.lock, cores, 1):
            costs = [[cost(one, setting, some) for setting in one.sweep] for one in every]
        for one, of_one in zip(every, costs, strict=True):
            settle(one, of_one, queries, judge)
            print(f"{one.label}: {one.settings}", flush=True)
        cells = [
            Cell(one, goal, queries[:EXACT_QUERIES] if one.is_exact else queries, size)
            for size in (size or len(queries) for size in setup.sizes)
            for one in every
            for goal in one.settings
        ]
        recalls = [recall(cell.one, cell.setting, cell.queries, judge, cell.size) for cell in cells]
        for threads in setup.threads:
            passes = []
            for _ in range(setup.passes):
                with alone(setup.lock, cores, threads):
                    passes.append([speed(cell, threads, setup.seconds) for cell in cells])
            by_cell = zip(*passes, strict=True)
            yield [
                _row(cell, reached, threads, found)
                for cell, reached, found in zip(cells, recalls, by_cell, strict=True)
            ]


def _row(cell: Cell, reached: float, threads: int, passes: Sequence[tuple[float, float]]) -> Row:
    row = Row(
        cell.one.label,
        cell.one.library,
        cell.goal,
        cell.setting,
        reached,
        threads,
        cell.size,
        statistics.median(qps for qps, _ in passes),
        tuple(qps for qps, _ in passes),
        statistics.median(cpu for _, cpu in passes),
    )
    print(
        f"threads {threads}  batch {row.size:>6}  {row.goal:>7}  {row.label:<26} "
        f"recall {reached:.4f}  {row.qps:>9,.0f} QPS  {row.cpu_us:>8,.1f} us  {row.setting}",
        flush=True,
    )
    return row


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
    parser.add_argument("--only", default="", help="regular expression that labels must match")
    parser.add_argument("--lock", type=Path, help="a file to lock while the clock runs")
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
        only=given.only,
        lock=given.lock,
    )
    return setup, given.results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write JSON and plot: exit code."""
    setup, results = parse(arguments)
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    rows: list[Row] = []
    try:
        for more in run(setup):
            rows += more
            _write(setup, rows, commit, results)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(setup: Setup, rows: Sequence[Row], commit: str, results: Path) -> None:
    report = {
        "benchmark": "batch",
        "commit": commit,
        "machine": provenance.machine(),
        "date": datetime.date.today().isoformat(),
        "setup": {k: v for k, v in asdict(setup).items() if k != "lock"},
        "k": K,
        "versions": {library: peers.PEERS[library].version for library in LIBRARIES},
        "rows": [asdict(row) for row in rows],
    }
    path = results / f"batch-{setup.dataset}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    plot(report, path.with_suffix(".png"))
    print(f"written: {path.name}, {path.with_suffix('.png').name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
