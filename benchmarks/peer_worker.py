"""One index of one library in a process of its own: built or opened, then timed on request.

    peers, index_cache.py -> [peer_worker.py] -> bench_peers.py, which says when to measure what

The process is bound to one core but for its build and for the batches that ask for more threads.
Needs Linux: cores are pinned and resident memory is read through its interfaces.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import multiprocessing
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import datasets, index_cache, peers
from benchmarks.judge import Ids, Vectors
from soardb.errors import SoarError

WARM_UP = 100  # queries before each measurement
SINGLE_LIMIT_S = 10.0  # of one loop of single queries, for those who scan everything


@dataclass(frozen=True)
class Options:
    """What to measure and how.

    core           the one that queries run on, but for batches of batch_threads
    batch_threads  of a second batch; 1 leaves it out
    build_anew     whether indexes kept by earlier runs are not good enough
    clock          "wall", or "cpu": of all threads of the process, where other work cannot be kept
                   off the core; batches of more threads are by the wall in any case
    """

    dataset: str
    libraries: tuple[str, ...]
    only: str = ""
    is_quick: bool = True
    repeat: int = 3
    queries: int = 2000
    k: int = 10
    build_threads: int = 2
    batch_threads: int = 1
    build_anew: bool = False
    clock: Literal["wall", "cpu"] = "wall"
    core: int = 0


class PeerError(SoarError):
    """A library raised or died in its process; the message carries its own words."""


class Worker:
    """The far side: one index, its clock and its memory."""

    def __init__(self, spec: peers.Spec, options: Options) -> None:
        self.spec, self.options = spec, options
        self.cores = os.sched_getaffinity(0)
        self.library = peers.PEERS[spec.library]

    @cached_property
    def dataset(self) -> datasets.Dataset:
        """Loaded when it is wanted, held until the index is ready."""
        return datasets.load(self.options.dataset)

    @cached_property
    def peer(self) -> peers.Peer:
        """The library's side, first without an index."""
        return self.library.peer(self.dataset.metric, self.options.k, self.spec.build)

    def open(self) -> dict[str, Any] | None:
        """Open the index if it was built before; its cost and sweep, or None where it was not."""
        facts = index_cache.read_facts(self._folder())
        if facts is None or self.options.build_anew:
            return None
        index_cache.reopen(self.peer, self._folder())
        return self._ready({**facts, "is_build_kept": True})

    def build(self) -> dict[str, Any]:
        """Build the index and keep it; its cost and sweep."""
        facts = self._build(self.dataset.train)
        index_cache.keep(self.peer, self._folder(), facts)
        return self._ready({**facts, "is_build_kept": False})

    def _folder(self) -> Path:
        options = self.options
        return index_cache.folder_of(
            self.spec, self.library, self.dataset.sha256, options.k, options.build_threads
        )

    def _ready(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Let go of the vectors, bind to the core; the facts with the sweep among them."""
        del self.dataset
        _pin({self.options.core})
        return {**facts, "sweep": [dict(arguments) for arguments in self.peer.sweep()]}

    def _build(self, vectors: Vectors) -> dict[str, Any]:
        """Build the index over vectors (n, d); what it cost, as JSON values.

        The memory is what the process holds more than with the vectors alone: the index and
        whatever else the library keeps.
        """
        before = _resident_bytes()
        start, cpu_start = time.perf_counter(), time.process_time()
        self.peer.build(vectors, self.options.build_threads)
        self.peer.set_query_arguments(self.peer.sweep()[0])
        self.peer.query(vectors[0])  # some lay out the last of their tables at the first query
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        rss_bytes = _resident_bytes() - before
        size = self.peer.size()
        return {
            "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "build_seconds": seconds,
            "build_cpu_seconds": cpu_seconds,
            "build_threads": self.options.build_threads,
            "rss_bytes": rss_bytes,
            "index_bytes": size.total,
            "index_bytes_source": size.source,
            "index_bytes_parts": dict(size.parts),
        }

    def hold(self, queries: Vectors) -> None:
        """Keep the queries (nq, d) that `measure` will ask."""
        self.queries = np.ascontiguousarray(queries)
        self.single = list(self.queries)

    def measure(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask the queries one by one, then in one call, then in one call on more threads.

        Returns latencies_s (m,) float64 and single_ids (m, k) int64 for the m queries that fitted
        into SINGLE_LIMIT_S, all unless the index is slow, and single_s of them all by the clock
        that was asked for; of the calls for all, batch_s and batch_ids (nq, k) int64, parallel_s
        and parallel_ids where more threads were asked for; cpu_share, of the loop over queries.
        """
        peer, clock = self.peer, time.perf_counter
        peer.set_query_arguments(arguments)
        give_up = clock() + SINGLE_LIMIT_S / 10
        for query in self.single[:WARM_UP]:
            peer.query(query)
            if clock() > give_up:
                break
        latencies_s, answers = [], []
        cpu_start = time.process_time()
        begin = clock()
        give_up = begin + SINGLE_LIMIT_S
        for query in self.single:
            start = clock()
            ids = peer.query(query)
            end = clock()
            latencies_s.append(end - start)
            answers.append(ids)
            if end > give_up:
                break
        cpu_s = time.process_time() - cpu_start
        wall_s = clock() - begin
        single_s = sum(latencies_s) * (cpu_s / wall_s if self.options.clock == "cpu" else 1)
        measured = {
            "latencies_s": np.array(latencies_s),
            "single_s": single_s,
            "cpu_share": cpu_s / wall_s,
            "single_ids": _table_of_ids(answers, self.options.k),
            **self._time_batch("batch", 1),
        }
        if self.options.batch_threads > 1:
            _pin(self.cores)
            peer.query_batch(self.queries[:WARM_UP], self.options.batch_threads)  # makes threads
            measured |= self._time_batch("parallel", self.options.batch_threads)
            _pin({self.options.core})
        return measured

    def _time_batch(self, mode: str, threads: int) -> dict[str, Any]:
        by_cpu = self.options.clock == "cpu" and threads == 1
        clock = time.process_time if by_cpu else time.perf_counter
        start = clock()
        ids = self.peer.query_batch(self.queries, threads)
        seconds = clock() - start
        return {f"{mode}_s": seconds, f"{mode}_ids": _table_of_ids(list(ids), self.options.k)}


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
        with suppress(ProcessLookupError):  # some end by themselves
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
