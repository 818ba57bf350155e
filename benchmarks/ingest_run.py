"""One database, written and asked once, in a process of its own.

    job.json, vectors.npy -> ingest_peers.py -> [ingest_run.py] -> one line of JSON

    python -m benchmarks.ingest_run job.json

`measure` writes in batches, then single points, counts, asks, lets the index be built and asks
again. `probe` writes a little and marks where each write begins and ends, by flushing a file of
its own, so that ingest_syncs.py can tell from a trace of system calls what happened in between.

The driver is bench_ingest.py. Recall is not judged here: the ids go back as they came.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.ingest_peers import ENTRIES, Peer, Rows, Vectors

KINDS = 20  # different keywords
SEARCH_LIMIT_S = 20.0  # of one loop of queries, for those who scan everything
WARM_UP_LIMIT_S = 2.0
WARM_UP = 50


@dataclass(frozen=True)
class Job:
    """What one process does; vectors has n + singles rows, the folder is empty.

    task  "measure" or "probe"
    """

    task: str
    label: str
    folder: str
    vectors: str
    queries: str
    n: int
    batch: int
    singles: int
    k: int
    seed: int


def rows_of(vectors: Vectors, start: int, stop: int, seed: int) -> Rows:
    """Points start..stop with their payloads, which follow from the seed and the id."""
    ids = np.arange(start, stop, dtype=np.int64)
    draw = np.random.default_rng([seed, start]).integers(0, KINDS, stop - start)
    return Rows(
        ids,
        np.ascontiguousarray(vectors[start:stop]),
        [f"kind-{kind}" for kind in draw.tolist()],
        ids.tolist(),
        [f"point number {id_}" for id_ in ids.tolist()],
    )


def measure(job: Job) -> dict[str, Any]:
    """Write n rows in batches and then `singles` one by one; ask before and after `build`."""
    clock = time.perf_counter
    vectors: Vectors = np.load(job.vectors)
    queries: Vectors = np.load(job.queries)
    batches = [
        rows_of(vectors, start, min(start + job.batch, job.n), job.seed)
        for start in range(0, job.n, job.batch)
    ]
    singles = [rows_of(vectors, i, i + 1, job.seed) for i in range(job.n, job.n + job.singles)]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    peer = ENTRIES[job.label].peer(Path(job.folder), vectors.shape[1], ENTRIES[job.label])
    bulk = _timed_writes(peer, peer.insert, batches)
    alone = _timed_writes(peer, peer.upsert, singles)
    written = {
        "insert_s": float(bulk.total_s),
        "convert_s": float(bulk.convert_s.sum()),
        "batch_ms": (1e3 * (bulk.convert_s + bulk.write_s)).tolist(),
        "single_ms": (1e3 * (alone.convert_s + alone.write_s)).tolist(),
        "peak_rss_bytes": _memory("VmHWM") - before,
        "disk_bytes": disk_bytes(Path(job.folder)),
    }
    result: dict[str, Any] = {"rss_before_bytes": before, "written": written}
    result["at_once"] = _ask(peer, queries, job.k)
    start = clock()
    peer.build()
    result["build_s"] = clock() - start
    result["built"] = _ask(peer, queries, job.k)
    start = clock()
    peer.close()
    result["close_s"] = clock() - start
    result["peak_rss_bytes"] = _memory("VmHWM") - before
    result["disk_bytes"] = disk_bytes(Path(job.folder))
    return result


@dataclass(frozen=True)
class _Writes:
    """Seconds of each write and of its conversion, and of all with what was queued."""

    convert_s: npt.NDArray[np.float64]
    write_s: npt.NDArray[np.float64]
    total_s: float


def _timed_writes(peer: Peer, write: Callable[[Any], None], batches: list[Rows]) -> _Writes:
    clock = time.perf_counter
    convert_s, write_s = [], []
    begin = clock()
    for rows in batches:
        start = clock()
        converted = peer.convert(rows)
        middle = clock()
        write(converted)
        write_s.append(clock() - middle)
        convert_s.append(middle - start)
    peer.settle()
    return _Writes(np.array(convert_s), np.array(write_s), clock() - begin)


def _ask(peer: Peer, queries: Vectors, k: int) -> dict[str, Any]:
    """Count, then ask the queries one by one, all that fit into SEARCH_LIMIT_S."""
    clock = time.perf_counter
    count, indexed = peer.count(), peer.indexed()
    give_up = clock() + WARM_UP_LIMIT_S
    for query in queries[:WARM_UP]:
        peer.query(query, k)
        if clock() > give_up:
            break
    latencies_ms, answers = [], []
    give_up = clock() + SEARCH_LIMIT_S
    for query in queries:
        start = clock()
        answer = peer.query(query, k)
        end = clock()
        latencies_ms.append(1e3 * (end - start))
        answers.append([int(id_) for id_ in answer])
        if end > give_up:
            break
    return {
        "count": count,
        "indexed": indexed,
        "queries": len(answers),
        "p50_ms": float(np.percentile(latencies_ms, 50)),
        "p99_ms": float(np.percentile(latencies_ms, 99)),
        "ids": answers,
    }


def _memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None, field
    return int(found.group(1)) * 1024


def disk_bytes(folder: Path) -> int:
    """Bytes that the files of a folder take on disk; holes of sparse files take none."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            path = Path(root, name)
            if path.exists():  # background work may have deleted it
                total += path.stat().st_blocks * 512
    return total


# --- the probe ----------------------------------------------------------------------------------


def probe(job: Job) -> dict[str, Any]:
    """Write batches and single points between marks; the trace around this process is the result.

    The marks are flushes of the files begin-batch, end-batch, begin-single and end-single.
    """
    vectors: Vectors = np.load(job.vectors)
    folder = Path(job.folder) / "database"
    folder.mkdir()
    peer = ENTRIES[job.label].peer(folder, vectors.shape[1], ENTRIES[job.label])
    for start in range(0, job.n, job.batch):
        converted = peer.convert(rows_of(vectors, start, start + job.batch, job.seed))
        with _marked(job, "batch"):
            peer.insert(converted)
    for i in range(job.n, job.n + job.singles):
        converted = peer.convert(rows_of(vectors, i, i + 1, job.seed))
        with _marked(job, "single"):
            peer.upsert(converted)
    peer.settle()
    count = peer.count()
    peer.close()
    return {"count": count}


@contextmanager
def _marked(job: Job, kind: str) -> Iterator[None]:
    _mark(job, f"begin-{kind}")
    yield
    _mark(job, f"end-{kind}")


def _mark(job: Job, name: str) -> None:
    with (Path(job.folder) / name).open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def main(arguments: list[str]) -> int:
    """Do one job; the last line of the output is the result."""
    job = Job(**json.loads(Path(arguments[0]).read_text("utf-8")))
    result = {"measure": measure, "probe": probe}[job.task](job)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
