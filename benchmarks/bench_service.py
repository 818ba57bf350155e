"""Load on vector servers: soardb's beside Milvus, Redis Stack, PostgreSQL and Chroma.

    datasets.py, service_settings.py, service_environments.py, service_load.py
        -> [bench_service.py] -> service_report.py, results/

Each server with its client on the same machine, at equal recall, the cheapest setting that reaches
it: single queries a second and their latencies under 1 to 64 closed-loop clients, queries a second
by many a call, and what it takes to load the vectors until they are found. Beside them a gRPC
server that answers fixed bytes, the ceiling of soardb's stack in the same run.

A round starts each server anew with an empty folder, one at a time, beginning with another one each
time. The first round of a server tries its indexes. Clients are threads of one process or of two,
whichever answers more at that point. The report is written after each server of each round, so an
interrupted run keeps what it has.

    python -m benchmarks.bench_service --dataset glove6b-100-angular --rounds 3
    python -m benchmarks.bench_service --peers soardb,redis --n 50000
    python -m benchmarks.bench_service --tiny

Needs Linux. Servers are installed into environments of their own at the first run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import datasets, provenance, service_report
from benchmarks.dataset_files import replacing
from benchmarks.exact import ground_truth
from benchmarks.judge import TOLERANCE, Judge
from benchmarks.service_environments import isolation, python_for
from benchmarks.service_load import machine_cpu_s
from benchmarks.service_settings import ENTRIES, Entry, Search, Variant
from soardb.errors import InvalidArgument, SoarError, Unavailable

DEFAULT = "glove6b-100-angular"
TINY = "random-32-angular"
SEED = 0
RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parent.parent
TUNE_CLIENTS, TUNE_S = 16, 2.0  # of the load that chooses between indexes
POINT_FIELDS = (
    "calls_per_s",
    "queries_per_s",
    "p50_ms",
    "p99_ms",
    "server_cpu_ms",
    "client_cpu_ms",
    "other_cores",
)
QUIET_CORES, QUIET_S = 0.2, 1.0  # what an idle server takes, and how long that is looked at
BATCH_CLIENTS = (1, 4)  # the better one counts
OPEN_LIMIT_S, CLOSE_LIMIT_S, FAILED_LIMIT_S = 300.0, 60.0, 3.0

Vectors = npt.NDArray[np.float32]
Report = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to measure and how.

    n        vectors, the first of the set
    recall   that every server has to reach
    clients  numbers of closed loops of single queries
    batches  queries a call
    seconds  of each point, after warm_s
    folder   where the servers keep their data
    limit_s  after which loading counts as failed
    patience_s  that a point waits for other work to end; how much there was is in the report
    """

    dataset: str
    peers: tuple[str, ...] = ("echo", "soardb", "milvus", "redis", "pgvector", "chroma")
    n: int = 100_000
    rounds: int = 3
    queries: int = 1_000
    k: int = 10
    recall: float = 0.95
    clients: tuple[int, ...] = (1, 4, 16, 64)
    batches: tuple[int, ...] = (64, 512)
    seconds: float = 5.0
    warm_s: float = 1.0
    folder: Path | None = None
    limit_s: float = 1_800.0
    patience_s: float = 0.0


class RunFailed(SoarError):
    """A server or its clients failed; the message has the last words."""


def run(options: Options, save: Callable[[Report], None] = lambda _: None) -> Report:
    """Measure everything; return the report, which `save` has got after each server too.

    Raises InvalidArgument for a set that is not angular or too small, or an unknown server.
    """
    _check(options)
    name, sha256, vectors, queries = _vectors(options)
    options = replace(options, n=len(vectors))
    nearest, _ = ground_truth(vectors, queries, "cosine", k=options.k)
    judge = Judge(vectors, queries, nearest, "cosine", options.k)
    pythons, skipped = _pythons([ENTRIES[peer] for peer in options.peers])
    report: Report = {
        "benchmark": "service",
        "commit": provenance.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "is_complete": False,
        "machine": provenance.machine(),
        "isolation": " ".join(isolation()) or "none",
        "dataset": {
            "name": name,
            "metric": "cosine",
            "sha256": sha256,
            "n": options.n,
            "d": vectors.shape[1],
        },
        "seed": SEED,
        "parameters": {
            "rounds": options.rounds,
            "queries": len(queries),
            "k": options.k,
            "recall": options.recall,
            "clients": list(options.clients),
            "batches": list(options.batches),
            "seconds": options.seconds,
            "warm_s": options.warm_s,
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "skipped": skipped,
        "failed": {},
        "peers": [],
    }
    entries = [ENTRIES[peer] for peer in options.peers if peer in pythons]
    with tempfile.TemporaryDirectory(prefix="soardb-service-", dir=options.folder) as temporary:
        work = Path(temporary)
        np.save(work / "vectors.npy", _unit(vectors))
        np.save(work / "queries.npy", _unit(queries))
        _rounds(entries, _Run(options, judge, nearest, work, pythons), report, save)
    report["is_complete"] = True
    save(report)
    return report


def _check(options: Options) -> None:
    if sys.platform != "linux":
        raise InvalidArgument(f"expected Linux, for its processes; this is {sys.platform}")
    if not options.dataset.endswith("-angular"):
        raise InvalidArgument(f"expected an angular set, got {options.dataset!r}")
    if not options.peers or set(options.peers) - set(ENTRIES):
        raise InvalidArgument(
            f"expected --peers among {', '.join(ENTRIES)}; got {', '.join(options.peers)!r}"
        )
    for name in ("n", "rounds", "queries", "k"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"expected {name} >= 1, got {getattr(options, name)}")


def _vectors(options: Options) -> tuple[str, str | None, Vectors, Vectors]:
    """Name, digest, the rows and the queries, drawn at random from the test set."""
    rng = np.random.default_rng(SEED)
    if options.dataset == TINY:
        vectors = rng.standard_normal((options.n, 32), dtype=np.float32)
        return TINY, None, vectors, rng.standard_normal((options.queries, 32), dtype=np.float32)
    dataset = datasets.load(options.dataset)
    if options.n > len(dataset.train):
        raise InvalidArgument(
            f"expected n of at most {len(dataset.train):,}, the rows of {options.dataset}; "
            f"got {options.n:,}"
        )
    drawn = rng.choice(len(dataset.test), min(options.queries, len(dataset.test)), replace=False)
    return dataset.name, dataset.sha256, dataset.train[: options.n], dataset.test[np.sort(drawn)]


def _unit(rows: Vectors) -> Vectors:
    """The rows with length 1, so that a server may take the inner product for the cosine."""
    scaled = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit: Vectors = np.ascontiguousarray(scaled, np.float32)
    return unit


def _pythons(entries: Sequence[Entry]) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreter of each server that can run here, and why the others cannot."""
    pythons: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    for entry in entries:
        if entry.listens_everywhere and not isolation():
            skipped[entry.label] = "listens on every address, and unshare(1) is not allowed here"
            continue
        if why := entry.missing():
            skipped[entry.label] = why
            continue
        try:
            pythons[entry.name] = python_for(entry.name, entry.requirements)
        except Unavailable as error:
            skipped[entry.label] = str(error)
    for label, why in skipped.items():
        _say(f"skipped: {label}: {why}")
    return pythons, skipped


# --- rounds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What the parts of one run share."""

    options: Options
    judge: Judge
    nearest: npt.NDArray[np.int32]
    work: Path
    pythons: Mapping[str, Path]


def _rounds(
    entries: Sequence[Entry], run: _Run, report: Report, save: Callable[[Report], None]
) -> None:
    rounds: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in entries}
    chosen: dict[str, tuple[Variant, Search, list[dict[str, Any]]]] = {}
    for number in range(run.options.rounds):
        first = number * len(entries) // run.options.rounds
        for entry in (*entries[first:], *entries[:first]):
            if entry.label in report["failed"]:
                continue
            start = time.perf_counter()
            try:
                if entry.name not in chosen:
                    chosen[entry.name] = _choose(entry, run)
                variant, search, _ = chosen[entry.name]
                done = _measure(entry, variant, search, run)
            except RunFailed as error:
                report["failed"][entry.label] = str(error)
                _say(f"failed: {entry.label}: {error}")
                save(report)
                continue
            rounds[entry.name].append(done)
            report["peers"] = [
                _summary(one, chosen[one.name], rounds[one.name], run.options)
                for one in entries
                if rounds[one.name]
            ]
            save(report)
            rates = ", ".join(f"{c}: {p['calls_per_s']:,.0f}" for c, p in done["singles"].items())
            _say(
                f"round {number + 1}/{run.options.rounds}: {entry.label}: RPC/s by clients "
                f"{rates}; {time.perf_counter() - start:.0f} s in all"
            )


def _choose(entry: Entry, run: _Run) -> tuple[Variant, Search, list[dict[str, Any]]]:
    """The variant that answers most at the wanted recall, and what each of them did."""
    if len(entry.variants) == 1 and len(entry.variants[0].searches) == 1:
        return entry.variants[0], entry.variants[0].searches[0], []
    tried: list[tuple[float, Variant, Search]] = []
    told: list[dict[str, Any]] = []
    for variant in entry.variants:
        try:
            for search, row in _try(entry, variant, run):
                told.append({"variant": variant.label, "fixed": dict(search.fixed), **row})
                if row["recall"] is not None:
                    tried.append((row["calls_per_s"], variant, search))
                _say(f"tried: {entry.label}: {told[-1]}")
        except RunFailed as error:
            told.append({"variant": variant.label, "failed": str(error)})
            _say(f"tried: {entry.label}: {told[-1]}")
    if not tried:
        raise RunFailed(f"no setting reaches recall {run.options.recall}: {told}")
    _, variant, search = max(tried, key=lambda one: one[0])
    return variant, search, told


def _try(entry: Entry, variant: Variant, run: _Run) -> Iterator[tuple[Search, dict[str, Any]]]:
    """How each search of one index does under a short load; recall None if it falls short."""
    with _peer(entry, run) as peer:
        loaded = peer.order("ingest", run.options.limit_s, index=dict(variant.index))
        for search in variant.searches:
            row: dict[str, Any] = {"ready_s": loaded["ready_s"], "recall": None}
            if found := _cheapest(peer, search, run):
                at = search.at(found[0])
                point = _best(peer, at, (TUNE_CLIENTS,), 1, TUNE_S, run)
                row |= {"search": at, "recall": found[1], "other_cores": point["other_cores"]}
                row |= {name: point[name] for name in ("calls_per_s", "p50_ms", "p99_ms")}
            yield search, row


def _measure(entry: Entry, variant: Variant, search: Search, run: _Run) -> dict[str, Any]:
    """One round of one server: load, find the cheapest setting, then every point."""
    options = run.options
    with _peer(entry, run) as peer:
        loaded = peer.order("ingest", options.limit_s, index=dict(variant.index))
        found = _cheapest(peer, search, run) if not entry.is_ceiling else (search.values[0], None)
        if found is None:
            raise RunFailed(f"{variant.label} does not reach recall {options.recall}")
        at = search.at(found[0])
        singles = {
            str(clients): _best(peer, at, (clients,), 1, options.seconds, run)
            for clients in options.clients
        }
        batched = {
            str(batch): _best(peer, at, BATCH_CLIENTS, batch, options.seconds, run)
            for batch in (options.batches if entry.batch else ())
        }
        rate = options.n / loaded["write_s"] if loaded["write_s"] else 0.0
        return {
            "versions": peer.versions,
            "ingest": loaded | {"vectors_per_s": rate},
            "search": at,
            "recall": found[1],
            "singles": singles,
            "batches": batched,
        }


def _cheapest(peer: _Peer, search: Search, run: _Run) -> tuple[int, float] | None:
    """The first value of the knob that reaches the recall, by bisection, and its recall."""
    best: tuple[int, float] | None = None
    low, high = 0, len(search.values)
    while low < high:
        middle = (low + high) // 2
        value = search.values[middle]
        asked = peer.order("ask", run.options.limit_s, search=search.at(value))
        recall = run.judge.recall(_table(asked["ids"], run.options.k), tolerance=TOLERANCE)
        if recall >= run.options.recall:
            best, high = (value, recall), middle
        else:
            low = middle + 1
    return best


def _best(
    peer: _Peer,
    search: Mapping[str, Any],
    clients: Sequence[int],
    batch: int,
    seconds: float,
    run: _Run,
) -> dict[str, Any]:
    """The load that answers most, over the numbers of clients and of their processes."""
    points = [
        _point(peer, search, number, processes, batch, seconds, run)
        for number in clients
        for processes in ((1, 2) if number > 1 else (1,))
    ]
    return max(points, key=lambda point: float(point["calls_per_s"]))


def _point(
    peer: _Peer,
    search: Mapping[str, Any],
    clients: int,
    processes: int,
    batch: int,
    seconds: float,
    run: _Run,
) -> dict[str, Any]:
    _wait_for_quiet(run.options.patience_s)
    point = peer.order(
        "load",
        60 + 10 * seconds,
        search=dict(search),
        clients=clients,
        processes=processes,
        batch=batch,
        seconds=seconds,
        warm_s=run.options.warm_s,
        seed=SEED,
    )
    answers: dict[int, list[int]] = dict(point.pop("answers"))
    if any(answers.values()):
        point["recall"] = _recall_of(answers, run)
    return {"clients": clients, "processes": processes, "batch": batch, **point}


def _wait_for_quiet(limit_s: float) -> None:
    """Wait for other work to leave the machine alone, at most so long; zero does not look."""
    give_up = time.monotonic() + limit_s
    while time.monotonic() < give_up:
        busy = machine_cpu_s()
        time.sleep(QUIET_S)
        if machine_cpu_s() - busy < QUIET_CORES * QUIET_S:
            return


def _recall_of(answers: Mapping[int, list[int]], run: _Run) -> float:
    """Recall of answers to some of the queries, by their rows."""
    rows, judge = sorted(answers), run.judge
    part = Judge(judge.train, judge.queries[rows], run.nearest[rows], judge.metric, judge.k)
    return part.recall(_table([answers[row] for row in rows], judge.k), tolerance=TOLERANCE)


def _table(answers: Sequence[Sequence[int]], k: int) -> npt.NDArray[np.int64]:
    """Answers of up to k ids each as one (m, k) array, -1 where there are fewer."""
    ids = np.full((len(answers), k), -1, np.int64)
    for row, answer in enumerate(answers):
        ids[row, : len(answer[:k])] = answer[:k]
    return ids


# --- processes ----------------------------------------------------------------------------------


class _Peer:
    """The controller of service_load.py in a process, spoken to by lines of JSON."""

    def __init__(self, entry: Entry, run: _Run, folder: Path, log: Path) -> None:
        environment = dict(os.environ)
        if entry.requirements:  # this very environment knows the folder already
            environment["PYTHONPATH"] = str(ROOT)
        command = [
            *isolation(),
            str(run.pythons[entry.name]),
            "-P",
            "-m",
            "benchmarks.service_load",
        ]
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.versions: dict[str, str] = {}

    def order(self, operation: str, limit_s: float, **words: Any) -> dict[str, Any]:
        """Send an order and wait for its answer; raises RunFailed for an error or a late one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"op": operation, **words}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise RunFailed(f"{operation}: {self._last_words()}") from error
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            if not waiting.select(limit_s):
                raise RunFailed(f"{operation}: no answer after {limit_s:,.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise RunFailed(f"{operation}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunFailed(f"{operation}: {answer['error']}")
        return answer

    def close(self, limit_s: float) -> None:
        """Let it stop the server; end it, and by its name spaces all it started, if it does not."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()  # the end of its orders
            self.process.wait(limit_s)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _last_words(self) -> str:
        words = self.log.read_text(errors="replace").strip().splitlines()[-8:]
        return f"ended with code {self.process.wait(CLOSE_LIMIT_S)}: " + " | ".join(words)


@contextmanager
def _peer(entry: Entry, run: _Run) -> Iterator[_Peer]:
    """A server started in an empty folder, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(
        prefix=f"{entry.name}-", dir=run.work, ignore_cleanup_errors=True
    ) as folder:
        peer = _Peer(entry, run, Path(folder), run.work / f"{entry.name}.log")
        try:
            peer.versions = peer.order(
                "open",
                OPEN_LIMIT_S,
                peer=entry.peer,
                folder=folder,
                vectors=str(run.work / "vectors.npy"),
                queries=str(run.work / "queries.npy"),
                k=run.options.k,
                server=dict(entry.server),
            )["versions"]
            yield peer
        except BaseException:
            peer.close(FAILED_LIMIT_S)  # it may be busy with what nobody waits for any more
            raise
        peer.close(CLOSE_LIMIT_S)


# --- the report ---------------------------------------------------------------------------------


def _summary(
    entry: Entry,
    chosen: tuple[Variant, Search, list[dict[str, Any]]],
    rounds: list[dict[str, Any]],
    options: Options,
) -> dict[str, Any]:
    """One row of the report: medians over the rounds, and each round."""
    variant, _, tried = chosen

    def point(kind: str, name: str) -> dict[str, float]:
        return {
            field: float(np.median([one[kind][name][field] for one in rounds]))
            for field in POINT_FIELDS
        }

    def ingest(field: str) -> float:
        return float(np.median([one["ingest"][field] for one in rounds]))

    recalls = [one["recall"] for one in rounds if one["recall"] is not None]
    return {
        "name": entry.name,
        "label": entry.label,
        "versions": rounds[-1]["versions"],
        "variant": variant.label,
        "index": dict(variant.index),
        "server": dict(entry.server),
        "searches": [one["search"] for one in rounds],
        "is_ceiling": entry.is_ceiling,
        "batch": entry.batch,
        "durability": entry.durability,
        "source": entry.source,
        "recall": float(np.median(recalls)) if recalls else None,
        "singles": {str(c): point("singles", str(c)) for c in options.clients},
        "batches": {b: point("batches", b) for b in rounds[0]["batches"]},
        "vectors_per_s": ingest("vectors_per_s"),
        "write_s": ingest("write_s"),
        "ready_s": ingest("ready_s"),
        "server_bytes": ingest("server_bytes"),
        "disk_bytes": ingest("disk_bytes"),
        "tried": tried,
        "rounds": rounds,
    }


# --- command line -------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> tuple[Options, Path]:
    """Read the command line: the options, and the folder to write to."""

    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(",") if word.strip())

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(map(int, words(text)))

    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_service")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--dataset", default=DEFAULT, help=f"angular, of datasets.py; {DEFAULT}")
    which.add_argument(
        "--tiny", action="store_true", help="2,000 random points, servers that need no package"
    )
    parser.add_argument("--peers", type=words, help=f"comma-separated: {', '.join(ENTRIES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=100_000, help="vectors, the first of the set")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95, help="that each server must reach")
    parser.add_argument("--clients", type=numbers, default=(1, 4, 16, 64))
    parser.add_argument("--batches", type=numbers, default=(64, 512), help="queries a call")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each point")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds a point waits for a quiet machine"
    )
    parser.add_argument("--folder", type=Path, help="where servers keep data; the temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    options = Options(
        dataset=given.dataset,
        peers=given.peers or Options.peers,
        n=given.n,
        rounds=given.rounds,
        queries=given.queries,
        k=given.k,
        recall=given.recall,
        clients=given.clients,
        batches=given.batches,
        seconds=given.seconds,
        patience_s=given.patience,
        folder=given.folder,
    )
    if given.tiny:
        options = replace(
            options,
            dataset=TINY,
            peers=given.peers or ("echo", "exact"),
            n=min(given.n, 2_000),
            rounds=1,
            queries=min(given.queries, 50),
            clients=(1, 4),
            batches=(8,),
            seconds=0.3,
            warm_s=0.1,
        )
    return options, given.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, Markdown and figure, print the table; 1 if a server failed."""
    options, folder = parse(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"service-{options.dataset}"

    def save(report: Report) -> None:
        with replacing(stem.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")

    try:
        report = run(options, save)
    except SoarError as error:
        _say(f"bench_service: {error}")
        return 1
    service_report.write(report, stem)
    print(service_report.table(report))
    return 1 if report["failed"] else 0


def _stop_in_order(number: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C, so that servers are stopped and their folders deleted."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_in_order)
    sys.exit(main())
