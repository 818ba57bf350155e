"""Writing: soardb beside Qdrant Edge, zvec, LanceDB, Chroma and Milvus Lite, each in the process.

    datasets.py, ingest_run.py, ingest_syncs.py -> [bench_ingest.py] -> ingest_report.py, results/

Rows a second in durable batches and the latency of single durable upserts; beside each figure what
the database flushed before it answered, measured by tracing its system calls, and what a search
finds afterwards, at once and with the index built, so that no fast writing without an index goes
unseen. Each database and round is a process of its own on fixed cores, with an empty folder; the
rounds take all databases in turn, beginning with another one each time.

    python -m benchmarks.bench_ingest --dataset glove6b-100-angular --n 100000 --rounds 3
    python -m benchmarks.bench_ingest --tiny --only soardb

A database that is not installed, and one that fails, is named in the report with the reason. Needs
Linux: memory is read and cores are pinned through its interfaces.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, ingest_report, ingest_syncs, provenance
from benchmarks.bench_peers import THREAD_VARIABLES
from benchmarks.exact import ground_truth
from benchmarks.ingest_peers import ENTRIES, Entry, Vectors
from benchmarks.ingest_run import Job
from benchmarks.judge import TOLERANCE, Judge
from soardb.errors import InvalidArgument, SoarError

DEFAULT = "glove6b-100-angular"
TINY = "random-32-angular"
SEED = 0
RESULTS = Path(__file__).parent / "results"
PROBE_BATCHES, PROBE_BATCH, PROBE_SINGLES = 5, 100, 20
SYNC_TRIALS = 100


@dataclass(frozen=True)
class Options:
    """What to measure and how.

    n        rows written in batches, the first of the set; None: all but those for `singles`
    singles  points written one by one afterwards
    cores    that every database may use
    folder   where the databases are made: its file system is what is measured
    limit_s  after which a process counts as failed
    """

    dataset: str
    only: str = ""
    n: int | None = 100_000
    batch: int = 1_000
    singles: int = 300
    rounds: int = 3
    queries: int = 200
    k: int = 10
    cores: tuple[int, ...] = (0,)
    folder: Path | None = None
    limit_s: float = 3_600.0


class RunFailed(SoarError):
    """A process of a database failed; the message has its last words."""


def run(options: Options) -> dict[str, Any]:
    """Measure everything; return the report.

    Raises InvalidArgument for a set that is not angular or too small, unknown cores, or nothing to
    measure.
    """
    _check(options)
    chosen = [entry for entry in ENTRIES.values() if re.search(options.only, entry.label)]
    skipped = {entry.label: why for entry in chosen if (why := entry.missing())}
    entries = [entry for entry in chosen if entry.label not in skipped]
    if not entries:
        raise InvalidArgument(
            f"expected --only to match an installed one of {', '.join(ENTRIES)}; "
            f"got {options.only!r}, skipped {skipped}"
        )
    for label, why in skipped.items():
        _say(f"skipped: {label}: {why}")
    started = datetime.datetime.now(datetime.UTC)
    name, sha256, vectors, queries = _vectors(options)
    n, d = len(vectors) - options.singles, vectors.shape[1]
    options = replace(options, n=n)
    nearest, _ = ground_truth(vectors, queries, "cosine", k=options.k)
    judge = Judge(vectors, queries, nearest, "cosine", options.k)
    with tempfile.TemporaryDirectory(prefix="soardb-ingest-", dir=options.folder) as temporary:
        work = Path(temporary)
        np.save(work / "vectors.npy", vectors)
        np.save(work / "queries.npy", queries)
        syncs = {entry.label: _probe(entry, options, work) for entry in entries}
        rounds, failed, disk_ms = _rounds(entries, options, work)
        filesystem = _filesystem(work)
    return {
        "benchmark": "ingest",
        "commit": provenance.commit(),
        "date": started.isoformat(timespec="seconds"),
        "seconds": (datetime.datetime.now(datetime.UTC) - started).total_seconds(),
        "machine": provenance.machine(),
        "threads": {"cores": list(options.cores), "pinned_by": _pinning(options)[1]},
        "disk": {
            "filesystem": filesystem,
            "fsync_p50_ms": float(np.percentile(disk_ms, 50)),
            "fsync_p99_ms": float(np.percentile(disk_ms, 99)),
        },
        "dataset": {"name": name, "metric": "cosine", "sha256": sha256, "n": n, "d": d},
        "seed": SEED,
        "parameters": {
            "batch": options.batch,
            "singles": options.singles,
            "rounds": options.rounds,
            "queries": len(queries),
            "k": options.k,
            "only": options.only,
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {entry.library: entry.version() for entry in entries if entry.packages},
        "skipped": skipped,
        "failed": failed,
        "peers": [
            _summary(entry, rounds[entry.label], syncs[entry.label], judge, n + options.singles)
            for entry in entries
            if rounds[entry.label]
        ],
    }


def _check(options: Options) -> None:
    if sys.platform != "linux":
        raise InvalidArgument(f"expected Linux, for its core pinning; this is {sys.platform}")
    if not options.dataset.endswith("-angular"):
        raise InvalidArgument(f"expected an angular set, got {options.dataset!r}")
    if unknown := set(options.cores) - (cores := os.sched_getaffinity(0)):
        raise InvalidArgument(f"expected cores among {sorted(cores)}, got {sorted(unknown)}")
    for name in ("batch", "singles", "rounds", "queries", "k"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"expected {name} >= 1, got {getattr(options, name)}")


def _vectors(options: Options) -> tuple[str, str | None, Vectors, Vectors]:
    """Name, digest, (n + singles, d) rows and the queries."""
    rng = np.random.default_rng(SEED)
    if options.dataset == TINY:
        wanted = (options.n or 2_000) + options.singles
        vectors = rng.standard_normal((wanted, 32), dtype=np.float32)
        return TINY, None, vectors, rng.standard_normal((options.queries, 32), dtype=np.float32)
    dataset = datasets.load(options.dataset)
    n = len(dataset.train) - options.singles if options.n is None else options.n
    if n < 1 or n + options.singles > len(dataset.train):
        raise InvalidArgument(
            f"expected n + singles of at most {len(dataset.train):,}, the rows of "
            f"{options.dataset}; got {n:,} + {options.singles:,}"
        )
    drawn = rng.choice(len(dataset.test), min(options.queries, len(dataset.test)), replace=False)
    queries = dataset.test[np.sort(drawn)]
    return dataset.name, dataset.sha256, dataset.train[: n + options.singles], queries


# --- processes ----------------------------------------------------------------------------------


def _rounds(
    entries: Sequence[Entry], options: Options, work: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str], list[float]]:
    """What each round measured by label, what failed, and the disk's own latencies of fsync."""
    done: dict[str, list[dict[str, Any]]] = {entry.label: [] for entry in entries}
    failed: dict[str, str] = {}
    disk_ms: list[float] = []
    for number in range(options.rounds):
        first = number * len(entries) // options.rounds
        for entry in (*entries[first:], *entries[:first]):
            if entry.label in failed:
                continue
            here_ms = _fsync_ms(work)
            start = time.perf_counter()
            try:
                result = _process(_job("measure", entry, options), options, work)
            except RunFailed as error:
                failed[entry.label] = str(error)
                _say(f"failed: {entry.label}: {error}")
                continue
            rate = (options.n or 0) / result["written"]["insert_s"]
            done[entry.label].append({"disk_fsync_p50_ms": float(np.median(here_ms)), **result})
            disk_ms += here_ms
            _say(
                f"round {number + 1}/{options.rounds}: {entry.label}: {rate:,.0f} rows/s, "
                f"{time.perf_counter() - start:.0f} s in all"
            )
    return done, failed, disk_ms


def _job(task: str, entry: Entry, options: Options) -> Job:
    assert options.n is not None
    is_probe = task == "probe"
    return Job(
        task=task,
        label=entry.label,
        folder="",
        vectors="",
        queries="",
        n=PROBE_BATCHES * PROBE_BATCH if is_probe else options.n,
        batch=PROBE_BATCH if is_probe else options.batch,
        singles=PROBE_SINGLES if is_probe else options.singles,
        k=options.k,
        seed=SEED,
    )


def _process(job: Job, options: Options, work: Path, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run one job in a process on the chosen cores, in a folder that is deleted afterwards."""
    folder = work / "database"
    folder.mkdir()
    described = replace(
        job,
        folder=str(folder),
        vectors=str(work / "vectors.npy"),
        queries=str(work / "queries.npy"),
    )
    (work / "job.json").write_text(json.dumps(asdict(described)))
    command = [*_pinning(options)[0], *prefix, sys.executable, "-P", "-m", "benchmarks.ingest_run"]
    threads = dict.fromkeys(THREAD_VARIABLES, str(len(options.cores)))
    try:
        done = subprocess.run(
            [*command, str(work / "job.json")],
            cwd=work,
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            timeout=options.limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"not done after {options.limit_s:,.0f} s") from error
    finally:
        shutil.rmtree(folder)
    if done.returncode != 0:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise RunFailed(f"exit code {done.returncode}: {words}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _pinning(options: Options) -> tuple[list[str], str]:
    """The command that binds a process to the cores, and its name; none where taskset is not."""
    if shutil.which("taskset") is None:
        return [], "nothing: taskset is not installed"
    return ["taskset", "-c", ",".join(map(str, options.cores))], "taskset"


def _probe(entry: Entry, options: Options, work: Path) -> dict[str, Any]:
    """What the database flushes before each write returns, or why that was not measured."""
    if shutil.which("strace") is None:
        return {"measured": False, "why": "strace is not installed"}
    trace = work / "trace.txt"
    trace.unlink(missing_ok=True)
    options = replace(options, n=max(options.n or 0, PROBE_BATCHES * PROBE_BATCH))
    try:
        prefix = (*ingest_syncs.STRACE, "-o", str(trace))
        _process(_job("probe", entry, options), options, work, prefix)
        with trace.open(errors="replace") as lines:
            found = ingest_syncs.parse(lines, str(work / "database" / "database"))
    except (RunFailed, OSError) as error:
        return {"measured": False, "why": str(error)}
    if not found["batch"]["writes"] or not found["single"]["writes"]:
        return {"measured": False, "why": "the trace has no marks"}
    return {"measured": True, "how": " ".join(ingest_syncs.STRACE), **found}


def _fsync_ms(folder: Path) -> list[float]:
    """Latencies of writing and flushing 4 KiB, the least that a durable write costs here."""
    latencies = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(SYNC_TRIALS):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            latencies.append(1e3 * (time.perf_counter() - start))
    return latencies


def _filesystem(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


# --- the report ---------------------------------------------------------------------------------


def _summary(
    entry: Entry, rounds: list[dict[str, Any]], syncs: dict[str, Any], judge: Judge, points: int
) -> dict[str, Any]:
    """One row of the report: medians over the rounds, and each round with its recall."""
    for result in rounds:
        for moment in ("at_once", "built"):
            asked = result[moment]
            asked["recall"] = judge.recall(_table(asked.pop("ids"), judge.k), tolerance=TOLERANCE)
            asked["is_count_right"] = asked["count"] == points
        written = result["written"]
        n = points - len(written["single_ms"])
        written["rows_per_s"] = n / written["insert_s"]
        written["single_p50_ms"] = float(np.percentile(written["single_ms"], 50))
        written["single_p99_ms"] = float(np.percentile(written["single_ms"], 99))
        written["single_ms"] = [round(value, 4) for value in written["single_ms"]]
        written["batch_ms"] = [round(value, 3) for value in written["batch_ms"]]

    def median(*path: str) -> float:
        values = []
        for result in rounds:
            value: Any = result
            for name in path:
                value = value[name]
            values.append(value)
        return float(np.median(values))

    def state(name: str) -> dict[str, Any]:
        indexed = [result[name]["indexed"] for result in rounds]
        return {
            "recall": median(name, "recall"),
            "p50_ms": median(name, "p50_ms"),
            "p99_ms": median(name, "p99_ms"),
            "queries": [result[name]["queries"] for result in rounds],
            "indexed": indexed,
            "counts": [result[name]["count"] for result in rounds],
        }

    return {
        "label": entry.label,
        "library": entry.library,
        "version": entry.version() or "this checkout",
        "is_strongest": entry.is_strongest,
        "durability": entry.durability,
        "source": entry.source,
        "gap": entry.gap,
        "index": entry.index,
        "syncs": syncs,
        "rows_per_s": median("written", "rows_per_s"),
        "rows_per_s_rounds": [result["written"]["rows_per_s"] for result in rounds],
        "convert_share": median("written", "convert_s") / median("written", "insert_s"),
        "single_p50_ms": median("written", "single_p50_ms"),
        "single_p99_ms": median("written", "single_p99_ms"),
        "is_count_right": all(
            result[name]["is_count_right"] for result in rounds for name in ("at_once", "built")
        ),
        "at_once": state("at_once"),
        "build_s": median("build_s"),
        "built": state("built"),
        "disk_bytes": median("disk_bytes"),
        "peak_rss_bytes": median("peak_rss_bytes"),
        "rounds": rounds,
    }


def _table(answers: list[list[int]], k: int) -> Any:
    """Answers of up to k ids each as one (m, k) int64 array, -1 where there are fewer."""
    ids = np.full((len(answers), k), -1, np.int64)
    for row, answer in enumerate(answers):
        ids[row, : len(answer[:k])] = answer[:k]
    return ids


# --- command line -------------------------------------------------------------------------------


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> tuple[Options, Path]:
    """Read the command line: the options, and the folder to write to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_ingest")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--dataset", default=DEFAULT, help=f"angular, of datasets.py; {DEFAULT}")
    which.add_argument("--tiny", action="store_true", help="2,000 random points of 32 dimensions")
    parser.add_argument("--only", default="", help="regular expression that labels must match")
    parser.add_argument("--n", type=int, default=100_000, help="rows written; 0 for the whole set")
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--singles", type=int, default=300, help="points written one by one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--cores",
        default=str(max(os.sched_getaffinity(0))),
        help="comma-separated, that each database may use; the last one",
    )
    parser.add_argument("--folder", type=Path, help="where databases are made; the temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    options = Options(
        dataset=TINY if given.tiny else given.dataset,
        only=given.only,
        n=min(given.n, 2_000) or 2_000 if given.tiny else given.n or None,
        batch=min(given.batch, 500) if given.tiny else given.batch,
        singles=min(given.singles, 50) if given.tiny else given.singles,
        rounds=given.rounds,
        queries=min(given.queries, 50) if given.tiny else given.queries,
        k=given.k,
        cores=tuple(int(core) for core in given.cores.split(",")),
        folder=given.folder,
    )
    return options, given.out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, Markdown and figure, print the table; 1 if a database failed."""
    options, folder = parse(arguments)
    try:
        report = run(options)
    except SoarError as error:
        _say(f"bench_ingest: {error}")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"ingest-{options.dataset}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    ingest_report.write(report, stem)
    print(ingest_report.table(report))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
