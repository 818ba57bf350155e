"""soardb beside ScaNN, faiss, SVS, SymphonyQG, hnswlib, usearch and exact search.

    datasets.py, peers, peer_worker.py, judge.py -> [bench_peers.py] -> plots.py, results/

Every index lives in a process of its own, pinned to one core, and stays there with its index built
while the driver asks all of them in turn, pass after pass: noise of the machine meets everybody.
Only one process works at a time. Queries are timed as ann-benchmarks does it, one Python call a
query in a closed loop, and besides in one call for all, on one thread and on two. Recall is judged
here, in the driver, by distances computed anew from the ids.

    python -m benchmarks.bench_peers --dataset glove6b-100-angular --quick
    python -m benchmarks.bench_peers --full --only 'scann|soardb' --merge
    python -m benchmarks.bench_peers --tiny

--quick measures the builds that were best of their library, --full all; --only picks by label and
--merge puts what was measured into the report that is there. Built indexes are kept between runs
(index_cache.py); --build-only makes them and measures nothing.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, peers, plots, provenance
from benchmarks.judge import LOOSE_TOLERANCE, TOLERANCE, Ids, Judge
from benchmarks.peer_worker import Options, process
from soardb.errors import InvalidArgument, SoarError

DEFAULT = "glove6b-100-angular"
TINY = "tiny-32-angular"
SEED = 0
RESULTS = Path(__file__).parent / "results"
MODES = ("single", "batch", "parallel")
SLACK = 0.13  # a point that its library's own front beats by more is asked once alone
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
class Output:
    """Where a report goes, and what a run does besides measuring.

    is_merged    whether the peers join those of the report that is there
    builds_only  whether indexes are built and kept, and that is all
    lock         a file to hold while building or measuring, where several runs share the machine
    """

    folder: Path = RESULTS
    is_merged: bool = False
    builds_only: bool = False
    lock: Path | None = None


# --- the run ------------------------------------------------------------------------------------


def run(options: Options, lock: Path | None = None) -> dict[str, Any]:
    """Measure everything; return the report.

    Raises InvalidArgument for unknown or missing libraries, an unknown core or nothing to measure,
    PeerError if a library fails.
    """
    _check(options)
    started = datetime.datetime.now(datetime.UTC)
    dataset = datasets.load(options.dataset)
    n, d = dataset.train.shape
    specs = _specs(options, n, d, dataset.metric)
    summaries = measure(specs, dataset, options, lock)
    origin = {
        "date": started.isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "load_average": os.getloadavg()[0],
    }
    return {
        "benchmark": "peers",
        **origin,
        "seconds": (datetime.datetime.now(datetime.UTC) - started).total_seconds(),
        **circumstances(dataset, options),
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {library: peers.PEERS[library].version for library in options.libraries},
        "peers": [{**summary, "run": origin} for summary in summaries],
    }


def circumstances(dataset: datasets.Dataset, options: Options) -> dict[str, Any]:
    """What all figures of a report share: machine, threads, data and how they were taken."""
    n, d = dataset.train.shape
    return {
        "machine": provenance.machine(),
        "threads": {
            "query": 1,
            "build": options.build_threads,
            "batch": options.batch_threads,
            "core": options.core,
        },
        "dataset": {
            "name": dataset.name,
            "metric": dataset.metric,
            "sha256": dataset.sha256,
            "n": n,
            "d": d,
            "queries": min(options.queries, len(dataset.test)),
            "k": options.k,
        },
        "seed": SEED,
        "repeat": options.repeat,
        "clock": options.clock,
        "tolerance": {"recall": TOLERANCE, "recall_loose": LOOSE_TOLERANCE},
    }


def measure(
    specs: Sequence[peers.Spec],
    dataset: datasets.Dataset,
    options: Options,
    lock: Path | None = None,
) -> list[dict[str, Any]]:
    """Build or open each index in a process of its own, ask them all in turn; a summary of each.

    The lock is held while one index is built, and during each pass over all of them.
    """
    chosen = choose_queries(len(dataset.test), options.queries)
    queries = dataset.test[chosen]
    judge = Judge(dataset.train, queries, dataset.neighbors[chosen], dataset.metric, options.k)
    with _one_thread_each(), ExitStack() as stack:
        built = []
        for number, spec in enumerate(specs, 1):
            ask = stack.enter_context(process(spec, options))
            facts = _opened_or_built(ask, lock)
            ask("hold", queries)
            built.append((spec, ask, facts))
            _say(f"[{number}/{len(specs)}] {_built(spec, facts)}")
        passes: list[list[dict[int, dict[str, Any]]]] = [[] for _ in specs]
        for repeat in range(options.repeat):
            with _held(lock):
                for of_peer, (spec, ask, facts) in zip(passes, built, strict=True):
                    again: Sequence[int] = range(len(facts["sweep"]))
                    if of_peer:
                        again = _worth_asking_again(facts["sweep"], of_peer[0])
                    measured = {i: ask("measure", facts["sweep"][i]) for i in again}
                    of_peer.append({i: _figures(one, judge) for i, one in measured.items()})
                    _say(f"pass {repeat + 1}/{options.repeat}: {_seen(spec, of_peer[-1])}")
    return [
        _summary(spec, facts, of_peer)
        for (spec, _, facts), of_peer in zip(built, passes, strict=True)
    ]


def build_all(options: Options, lock: Path | None = None) -> None:
    """Build and keep the indexes, one after the other; errors as of `run`."""
    _check(options)
    dataset = datasets.load(options.dataset)
    n, d = dataset.train.shape
    specs = _specs(options, n, d, dataset.metric)
    del dataset
    with _one_thread_each():
        for number, spec in enumerate(specs, 1):
            with process(spec, options) as ask:
                facts = _opened_or_built(ask, lock)
            _say(f"[{number}/{len(specs)}] {_built(spec, facts)}")


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new report with those peers of the old one that it has not measured itself.

    Raises InvalidArgument where they cannot be compared: other data, queries, passes or threads.
    """
    for field in ("dataset", "seed", "repeat", "clock", "threads", "tolerance"):
        if old.get(field) != new[field]:
            raise InvalidArgument(
                f"expected a report with the same {field} to merge into, {new[field]}; "
                f"got {old.get(field)}; leave out --merge to begin a new one"
            )
    measured = {peer["label"] for peer in new["peers"]}
    kept = [peer for peer in old["peers"] if peer["label"] not in measured]
    return {
        **new,
        "versions": old["versions"] | new["versions"],
        "peers": [*kept, *new["peers"]],
    }


def _opened_or_built(ask: Callable[..., Any], lock: Path | None) -> dict[str, Any]:
    facts: dict[str, Any] | None = ask("open")
    if facts is None:
        with _held(lock):
            facts = ask("build")
    assert facts is not None
    return facts


def _seen(spec: peers.Spec, figures: Mapping[int, Mapping[str, Any]]) -> str:
    front = plots.pareto([modes["single"] for modes in figures.values()])
    at = ((target, plots.qps_at(front, target)) for target in plots.TARGETS)
    speeds = ", ".join(f"{qps:,.0f} at {target:.2f}" for target, qps in at if qps is not None)
    return f"{spec.label}, {len(figures)} points: {speeds or 'no recall of the table'}"


def _built(spec: peers.Spec, facts: Mapping[str, Any]) -> str:
    kept = ", kept" if facts["is_build_kept"] else ""
    return (
        f"{spec.label}: built in {facts['build_seconds']:.1f} s, "
        f"{facts['build_cpu_seconds']:.1f} s of CPU{kept}"
    )


def _check(options: Options) -> None:
    if sys.platform != "linux":
        raise InvalidArgument(f"expected Linux, for its core pinning; this is {sys.platform}")
    peers.check_installed(options.libraries)
    if options.core not in (cores := os.sched_getaffinity(0)):
        raise InvalidArgument(f"expected a core among {sorted(cores)}, got {options.core}")
    for name in ("repeat", "queries", "k", "build_threads", "batch_threads"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"expected {name} >= 1, got {getattr(options, name)}")
    if options.batch_threads > len(cores):
        raise InvalidArgument(
            f"expected batch_threads <= {len(cores)}, a core for each; got {options.batch_threads}"
        )
    if options.k > datasets.NEIGHBOURS:
        raise InvalidArgument(
            f"expected k <= {datasets.NEIGHBOURS}, the neighbours on file; got {options.k}"
        )


def choose_queries(n_test: int, wanted: int) -> Ids:
    """Rows of the queries to ask, ascending: a seeded draw.

    Not the first ones, for sets of words are ordered by frequency and frequent words are easier.
    """
    rng = np.random.default_rng(SEED)
    return np.sort(rng.choice(n_test, min(wanted, n_test), replace=False)).astype(np.int64)


def _specs(options: Options, n: int, d: int, metric: str) -> list[peers.Spec]:
    specs = [
        spec
        for name in options.libraries
        for spec in peers.PEERS[name].peer.specs(n, d, metric)
        if spec.is_quick or not options.is_quick
    ]
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


@contextmanager
def _held(lock: Path | None) -> Iterator[None]:
    """Hold the lock of this file, if there is one, against other runs that do the same."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _worth_asking_again(
    sweep: Sequence[Mapping[str, Any]], first: Mapping[int, Mapping[str, Any]]
) -> list[int]:
    """Which settings of a sweep the passes after the first ask: those that can matter.

    first  the figures of the first pass by position in the sweep

    Kept is what comes near the front in some mode, between the last point below the least recall
    of the table and the first one above the greatest; and what names nothing, the defaults.
    """
    kept = {i for i in first if not sweep[i]}
    for mode in first[0]:
        points = {i: figures[mode] for i, figures in first.items()}
        front = plots.pareto(list(points.values()))
        recalls = [point["recall"] for point in front]
        low = max((r for r in recalls if r < plots.TARGETS[0]), default=0.0)
        high = min((r for r in recalls if r > plots.TARGETS[-1]), default=1.0)
        for i, point in points.items():
            best = plots.qps_at(front, point["recall"])
            if low <= point["recall"] <= high and best and point["qps"] >= (1 - SLACK) * best:
                kept.add(i)
    return sorted(kept)


def _figures(measured: Mapping[str, Any], judge: Judge) -> dict[str, dict[str, Any]]:
    """What one pass says of one setting, by mode."""
    latencies = measured["latencies_s"]
    figures: dict[str, dict[str, Any]] = {
        "single": {
            **_recalls(judge, measured["single_ids"]),
            "qps": len(latencies) / measured["single_s"],
            "cpu_share": measured["cpu_share"],
            "p50_us": 1e6 * np.percentile(latencies, 50),
            "p99_us": 1e6 * np.percentile(latencies, 99),
            "queries": len(latencies),
        }
    }
    for mode in MODES[1:]:
        if f"{mode}_ids" in measured:
            ids = measured[f"{mode}_ids"]
            figures[mode] = {**_recalls(judge, ids), "qps": len(ids) / measured[f"{mode}_s"]}
    return figures


def _recalls(judge: Judge, ids: Ids) -> dict[str, float]:
    return {
        "recall": judge.recall(ids, tolerance=TOLERANCE),
        "recall_loose": judge.recall(ids, tolerance=LOOSE_TOLERANCE),
    }


def _summary(
    spec: peers.Spec, facts: dict[str, Any], passes: Sequence[Mapping[int, Mapping[str, Any]]]
) -> dict[str, Any]:
    """One peer of the report: what it is, what it cost, and the points that all passes asked."""
    sweep = facts.pop("sweep")
    asked = [i for i in range(len(sweep)) if all(i in one for one in passes)]
    points = [
        {
            "arguments": sweep[i],
            **{mode: _medians([one[i][mode] for one in passes]) for mode in passes[0][i]},
        }
        for i in asked
    ]
    return {
        "library": spec.library,
        "label": spec.label,
        "version": peers.PEERS[spec.library].version,
        "build": dict(spec.build),
        **facts,
        "points_asked_once": len(sweep) - len(asked),
        "points": points,
    }


def _medians(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, recall as well, for some builds answer variably; every QPS."""
    figures = {name: float(np.median([one[name] for one in passes])) for name in passes[0]}
    return {**figures, "qps_passes": [float(one["qps"]) for one in passes]}


# --- command line -------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> tuple[Options, Output]:
    """Read the command line: what to measure, and what becomes of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_peers")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--dataset", default=DEFAULT, help=f"of benchmarks.datasets; {DEFAULT}")
    which.add_argument("--tiny", action="store_true", help=f"the small set {TINY}; a minute")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--quick", action="store_true", help="the best builds only; the default")
    much.add_argument("--full", action="store_true", help="every build")
    parser.add_argument("--libraries", default=",".join(peers.PEERS), help="comma-separated")
    parser.add_argument("--only", default="", help="regular expression that labels must match")
    parser.add_argument("--repeat", type=int, default=3, help="passes over all indexes")
    parser.add_argument("--queries", type=int, default=2000, help="drawn from the test set, seeded")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--build-threads", type=int, default=2)
    parser.add_argument("--batch-threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--build-anew", action="store_true", help="do not open kept indexes")
    parser.add_argument("--build-only", action="store_true", help="build and keep, then end")
    parser.add_argument("--lock", type=Path, help="file to hold while building or measuring")
    parser.add_argument("--merge", action="store_true", help="into the report that is there")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    options = Options(
        dataset=TINY if given.tiny else given.dataset,
        libraries=tuple(dict.fromkeys(given.libraries.split(","))),
        only=given.only,
        is_quick=not given.full,
        repeat=given.repeat,
        queries=given.queries,
        k=given.k,
        build_threads=given.build_threads,
        batch_threads=given.batch_threads,
        build_anew=given.build_anew,
        clock=given.clock,
        core=given.core,
    )
    return options, Output(given.out, given.merge, given.build_only, given.lock)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, Markdown and figures, print the table; return the exit code."""
    options, output = parse(arguments)
    stem = output.folder / f"peers-{options.dataset}"
    path = stem.with_suffix(".json")
    try:
        if output.builds_only:
            build_all(options, output.lock)
            return 0
        report = run(options, output.lock)
        if output.is_merged and path.exists():
            report = merge(json.loads(path.read_text()), report)
    except SoarError as error:
        _say(f"bench_peers: {error}")
        return 1
    output.folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    plots.write(report, stem)
    print(plots.table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
