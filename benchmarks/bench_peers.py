"""soardb beside ScaNN, faiss, hnswlib, usearch and exact search, on the same vectors.

    datasets.py, peers.py -> [bench_peers.py] -> plots.py, results/

Every index lives in a process of its own, pinned to one core, and stays there with its index built
while the driver asks all of them in turn, pass after pass: noise of the machine meets everybody.
Only one process works at a time. Queries are timed as ann-benchmarks does it, one Python call a
query in a closed loop, and besides in one call for all, both on one thread. Recall is judged here,
in the driver, by distances computed anew from the ids.

    python -m benchmarks.bench_peers --dataset glove6b-100-angular --repeat 3 --queries 2000
    python -m benchmarks.bench_peers --tiny

Needs Linux: cores are pinned and resident memory is read through its interfaces.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import multiprocessing
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import datasets, peers, plots, provenance
from soardb.errors import InvalidArgument, SoarError

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

DEFAULT = "glove6b-100-angular"
TINY = "tiny-32-angular"
SEED = 0
TOLERANCE = 1e-5  # of the k-th distance: covers rounding alone
LOOSE_TOLERANCE = 1e-3  # in the manner of ann-benchmarks
WARM_UP = 100  # queries before each measurement
SINGLE_LIMIT_S = 10.0  # of one loop of single queries, for those who scan everything
RESULTS = Path(__file__).parent / "results"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Options:
    """What to measure and how; core is the one that queries run on."""

    dataset: str
    libraries: tuple[str, ...]
    only: str = ""
    repeat: int = 3
    queries: int = 2000
    k: int = 10
    build_threads: int = 2
    core: int = 0


class PeerError(SoarError):
    """A library raised or died in its process; the message carries its own words."""


# --- recall -------------------------------------------------------------------------------------


class Judge:
    """Recall@k of ids by their true distances, so that equally near vectors count alike.

    train    (n, d) float32        queries  (nq, d) float32
    nearest  (nq, >= k) int, rows of train, the true neighbours
    """

    def __init__(
        self, train: Vectors, queries: Vectors, nearest: npt.NDArray[Any], metric: str, k: int
    ) -> None:
        self.train, self.queries, self.metric, self.k = train, queries, metric, k
        self.limits: Distances = self._distances(nearest[:, :k].astype(np.int64)).max(axis=1)

    def recall(self, ids: Ids, *, tolerance: float) -> float:
        """Mean share of the k that was found by the first len(ids) queries.

        ids  (m, k) int64, m <= nq. Ids outside train are missing answers, a repeated id counts
        once. A vector counts if its distance is at most the true k-th distance plus tolerance
        times its size.
        """
        limits = self.limits[: len(ids)]
        limits = limits + tolerance * np.abs(limits)
        found = self._distances(_without_repeats(ids)) <= limits[:, None]
        return float(np.minimum(found.sum(axis=1), self.k).mean() / self.k)

    def _distances(self, ids: Ids) -> Distances:
        """Distances (m, k) of ids (m, k) to their queries, in float64; inf where no row is."""
        distances = np.full(ids.shape, np.inf)
        for start in range(0, len(ids), 1000):
            block = slice(start, min(start + 1000, len(ids)))
            real = (ids[block] >= 0) & (ids[block] < len(self.train))
            x = self.train[np.where(real, ids[block], 0)].astype(np.float64)  # (b, k, d)
            q = self.queries[block, None].astype(np.float64)  # (b, 1, d)
            distances[block] = np.where(real, _distance(x, q, self.metric), np.inf)
        return distances


def _distance(x: Distances, q: Distances, metric: str) -> Distances:
    """1 - cosine, Euclidean, or minus the inner product, over the last axis."""
    if metric == "l2":
        return np.asarray(np.sqrt(((x - q) ** 2).sum(axis=-1)))
    products: Distances = (x * q).sum(axis=-1)
    if metric == "dot":
        return -products
    return np.asarray(1 - products / np.sqrt((x * x).sum(axis=-1) * (q * q).sum(axis=-1)))


def _without_repeats(ids: Ids) -> Ids:
    """Ids with all but the first of equal ones in a row replaced by -1."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    kept = np.empty_like(ids)
    np.put_along_axis(kept, order, ordered, axis=1)
    return kept


# --- one index in its process -------------------------------------------------------------------


class Worker:
    """The far side: one index, its clock and its memory."""

    def __init__(self, spec: peers.Spec, options: Options) -> None:
        self.spec, self.options = spec, options
        self.cores = os.sched_getaffinity(0)

    def build(self) -> dict[str, Any]:
        """Load the vectors, build the index, let go of the vectors; report cost and sweep.

        The memory is what the process holds more than before it loaded anything: the index and
        whatever else the library keeps.
        """
        options = self.options
        dataset = datasets.load(options.dataset)
        vectors, metric = dataset.train, dataset.metric
        del dataset
        peer = peers.PEERS[self.spec.library].peer(metric, options.k, self.spec.build)
        self.peer = peer
        before = _resident_bytes() - vectors.nbytes
        start = time.perf_counter()
        peer.build(vectors, options.build_threads)
        peer.set_query_arguments(peer.sweep()[0])
        peer.query(vectors[0])  # some lay out the last of their tables at the first query
        seconds = time.perf_counter() - start
        del vectors
        rss_bytes = _resident_bytes() - before
        size = peer.size()
        _pin({options.core})
        return {
            "build_seconds": seconds,
            "build_threads": options.build_threads,
            "rss_bytes": rss_bytes,
            "index_bytes": size.total,
            "index_bytes_source": size.source,
            "index_bytes_parts": dict(size.parts),
            "sweep": [dict(arguments) for arguments in peer.sweep()],
        }

    def hold(self, queries: Vectors) -> None:
        """Keep the queries (nq, d) that `measure` will ask."""
        self.queries = np.ascontiguousarray(queries)
        self.single = list(self.queries)

    def measure(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask the queries one by one, then in one call.

        Returns latencies_s (m,) float64 and single_ids (m, k) int64 for the m queries that fitted
        into SINGLE_LIMIT_S, all unless the index is slow; batch_s and batch_ids (nq, k) int64.
        """
        peer, clock = self.peer, time.perf_counter
        peer.set_query_arguments(arguments)
        give_up = clock() + SINGLE_LIMIT_S / 10
        for query in self.single[:WARM_UP]:
            peer.query(query)
            if clock() > give_up:
                break
        latencies_s, answers = [], []
        give_up = clock() + SINGLE_LIMIT_S
        for query in self.single:
            start = clock()
            ids = peer.query(query)
            end = clock()
            latencies_s.append(end - start)
            answers.append(ids)
            if end > give_up:
                break
        start = clock()
        batch = peer.query_batch(self.queries)
        batch_s = clock() - start
        return {
            "latencies_s": np.array(latencies_s),
            "single_ids": _table_of_ids(answers, self.options.k),
            "batch_s": batch_s,
            "batch_ids": _table_of_ids(list(batch), self.options.k),
        }


def _table_of_ids(answers: Sequence[Sequence[int]], k: int) -> Ids:
    """Answers of up to k ids each as one (m, k) int64 array, -1 where there are fewer."""
    ids = np.full((len(answers), k), -1, np.int64)
    for row, answer in enumerate(answers):
        found = np.asarray(answer).astype(np.int64)[:k]
        ids[row, : len(found)] = found
    return ids


def _resident_bytes() -> int:
    """Resident memory of this process, after giving back what it no longer uses."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _pin(cores: set[int]) -> None:
    """Bind all threads of this process, those of the libraries included, to these cores."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def serve(connection: Connection, spec: peers.Spec, options: Options) -> None:
    """Answer (method, arguments) with (True, result) or (False, traceback) until told None."""
    worker = Worker(spec, options)
    while (request := connection.recv()) is not None:
        method, arguments = request
        try:
            answer = (True, getattr(worker, method)(*arguments))
        except Exception:  # noqa: BLE001 - whatever a library raises goes to the driver
            answer = (False, traceback.format_exc())
        connection.send(answer)


@contextmanager
def process(spec: peers.Spec, options: Options) -> Iterator[Callable[..., Any]]:
    """Start a worker; yield the function (method, *arguments) -> result that talks to it."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=serve, args=(far, spec, options), daemon=True)
    child.start()
    far.close()

    def ask(method: str, *arguments: Any) -> Any:
        try:
            near.send((method, arguments))
            succeeded, result = near.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            child.join(5)
            raise PeerError(
                f"{spec.label}: its process died during {method}, exit code {child.exitcode}"
            ) from error
        if not succeeded:
            raise PeerError(f"{spec.label}: {method} failed\n{result}")
        return result

    try:
        yield ask
        near.send(None)
        child.join(10)
    finally:
        if child.is_alive():
            child.terminate()
        near.close()


# --- the run ------------------------------------------------------------------------------------


def run(options: Options) -> dict[str, Any]:
    """Measure everything; return the report.

    Raises InvalidArgument for unknown or missing libraries, an unknown core or nothing to measure,
    PeerError if a library fails.
    """
    _check(options)
    started = datetime.datetime.now(datetime.UTC)
    dataset = datasets.load(options.dataset)
    chosen = _choose_queries(len(dataset.test), options.queries)
    queries = dataset.test[chosen]
    judge = Judge(dataset.train, queries, dataset.neighbors[chosen], dataset.metric, options.k)
    n, d = dataset.train.shape
    specs = _specs(options, n, dataset.metric)
    with _one_thread_each(), ExitStack() as stack:
        built = []
        for number, spec in enumerate(specs, 1):
            ask = stack.enter_context(process(spec, options))
            facts = ask("build")
            ask("hold", queries)
            built.append((spec, ask, facts))
            _say(f"[{number}/{len(specs)}] {spec.label}: built in {facts['build_seconds']:.1f} s")
        passes: list[list[list[dict[str, Any]]]] = [[] for _ in specs]
        for repeat in range(options.repeat):
            for of_peer, (spec, ask, facts) in zip(passes, built, strict=True):
                of_peer.append([ask("measure", arguments) for arguments in facts["sweep"]])
                _say(f"pass {repeat + 1}/{options.repeat}: {spec.label}")
    return {
        "benchmark": "peers",
        "commit": provenance.commit(),
        "date": started.isoformat(timespec="seconds"),
        "seconds": (datetime.datetime.now(datetime.UTC) - started).total_seconds(),
        "machine": provenance.machine(),
        "threads": {"query": 1, "build": options.build_threads, "core": options.core},
        "dataset": {
            "name": dataset.name,
            "metric": dataset.metric,
            "sha256": dataset.sha256,
            "n": n,
            "d": d,
            "queries": len(queries),
            "k": options.k,
        },
        "seed": SEED,
        "repeat": options.repeat,
        "tolerance": {"recall": TOLERANCE, "recall_loose": LOOSE_TOLERANCE},
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {library: peers.PEERS[library].version for library in options.libraries},
        "peers": [
            _summary(spec, facts, of_peer, judge)
            for (spec, _, facts), of_peer in zip(built, passes, strict=True)
        ],
    }


def _check(options: Options) -> None:
    if sys.platform != "linux":
        raise InvalidArgument(f"expected Linux, for its core pinning; this is {sys.platform}")
    peers.check_installed(options.libraries)
    if options.core not in (cores := os.sched_getaffinity(0)):
        raise InvalidArgument(f"expected a core among {sorted(cores)}, got {options.core}")
    for name in ("repeat", "queries", "k", "build_threads"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"expected {name} >= 1, got {getattr(options, name)}")
    if options.k > datasets.NEIGHBOURS:
        raise InvalidArgument(
            f"expected k <= {datasets.NEIGHBOURS}, the neighbours on file; got {options.k}"
        )


def _choose_queries(n_test: int, wanted: int) -> Ids:
    """Rows of the queries to ask, ascending: a seeded draw.

    Not the first ones, for sets of words are ordered by frequency and frequent words are easier.
    """
    rng = np.random.default_rng(SEED)
    return np.sort(rng.choice(n_test, min(wanted, n_test), replace=False)).astype(np.int64)


def _specs(options: Options, n: int, metric: str) -> list[peers.Spec]:
    specs = [spec for name in options.libraries for spec in peers.PEERS[name].peer.specs(n, metric)]
    kept = [spec for spec in specs if re.search(options.only, spec.label)]
    if not kept:
        labels = ", ".join(spec.label for spec in specs)
        raise InvalidArgument(f"expected --only to match one of {labels}; got {options.only!r}")
    return kept


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the processes that start meanwhile see one thread in every variable libraries read."""
    saved = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _summary(
    spec: peers.Spec, facts: dict[str, Any], passes: list[list[dict[str, Any]]], judge: Judge
) -> dict[str, Any]:
    """One peer of the report: what it is, what it cost, and each point over all passes."""
    sweep = facts.pop("sweep")
    points = [
        {"arguments": arguments, **_point([of_pass[i] for of_pass in passes], judge)}
        for i, arguments in enumerate(sweep)
    ]
    return {
        "library": spec.library,
        "label": spec.label,
        "version": peers.PEERS[spec.library].version,
        "build": dict(spec.build),
        **facts,
        "points": points,
    }


def _point(measured: list[dict[str, Any]], judge: Judge) -> dict[str, Any]:
    """Medians over the passes of one setting; recall as well, for some builds answer variably."""
    single = [
        {
            **_recalls(judge, one["single_ids"]),
            "qps": len(one["latencies_s"]) / one["latencies_s"].sum(),
            "p50_us": 1e6 * np.percentile(one["latencies_s"], 50),
            "p99_us": 1e6 * np.percentile(one["latencies_s"], 99),
            "queries": len(one["latencies_s"]),
        }
        for one in measured
    ]
    batch = [
        {**_recalls(judge, one["batch_ids"]), "qps": len(one["batch_ids"]) / one["batch_s"]}
        for one in measured
    ]
    return {"single": _medians(single), "batch": _medians(batch)}


def _recalls(judge: Judge, ids: Ids) -> dict[str, float]:
    return {
        "recall": judge.recall(ids, tolerance=TOLERANCE),
        "recall_loose": judge.recall(ids, tolerance=LOOSE_TOLERANCE),
    }


def _medians(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, and the QPS of every pass."""
    figures = {name: float(np.median([one[name] for one in passes])) for name in passes[0]}
    return {**figures, "qps_passes": [float(one["qps"]) for one in passes]}


# --- command line -------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> tuple[Options, Path]:
    """Read the command line: the options, and the folder to write to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_peers")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--dataset", default=DEFAULT, help=f"of benchmarks.datasets; {DEFAULT}")
    which.add_argument("--tiny", action="store_true", help=f"the small set {TINY}; a minute")
    parser.add_argument("--libraries", default=",".join(peers.PEERS), help="comma-separated")
    parser.add_argument("--only", default="", help="regular expression that labels must match")
    parser.add_argument("--repeat", type=int, default=3, help="passes over all indexes")
    parser.add_argument("--queries", type=int, default=2000, help="drawn from the test set, seeded")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--build-threads", type=int, default=2)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    options = Options(
        dataset=TINY if given.tiny else given.dataset,
        libraries=tuple(dict.fromkeys(given.libraries.split(","))),
        only=given.only,
        repeat=given.repeat,
        queries=given.queries,
        k=given.k,
        build_threads=given.build_threads,
        core=given.core,
    )
    return options, given.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, Markdown and figures, print the table; return the exit code."""
    options, folder = parse(arguments)
    try:
        report = run(options)
    except SoarError as error:
        _say(f"bench_peers: {error}")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"peers-{options.dataset}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    plots.write(report, stem)
    print(plots.table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
