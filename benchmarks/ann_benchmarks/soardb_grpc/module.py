"""soardb as a server under ann-benchmarks: to be copied to ann_benchmarks/algorithms/soardb_grpc.

    ann_benchmarks/algorithms/base -> [module.py] -> run.py of ann-benchmarks
                                          |
                                     `soardb serve`, a process of its own

What a user of the server gets: points come over one stream, each query is one call, a batch is a
few calls with many queries each. The server runs on the cores that the harness gives this process,
so under a single-query run both share one core, as they would in the harness's container.

The embedded index is in the folder beside this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from ann_benchmarks.algorithms.base.module import BaseANN

import soardb

METRICS = {"angular": "cosine", "euclidean": "l2"}
ROWS = 5_000  # in one batch of the stream
QUERIES = 500  # in one call of a batch run; a server takes 1,000
START_S, STOP_S = 60.0, 60.0


class Server:
    """`soardb serve` of a new directory on a free port, until stop()."""

    _options = ("--port", "0", "--rest-port", "-1", "--log-level", "warning")

    def __init__(self) -> None:
        """Start it and wait until it answers. Errors: RuntimeError with what it said."""
        self._folder = Path(tempfile.mkdtemp(prefix="soardb-ann-"))
        ready, log = self._folder / "ready.json", self._folder / "log.txt"
        command = [sys.executable, "-P", "-m", "soardb_service", str(self._folder / "db")]
        command += ["--ready-file", str(ready), *self._options]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink)
        end = time.monotonic() + START_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                said = log.read_text("utf-8", "replace")
                self.stop()
                raise RuntimeError(f"expected a server within {START_S:.0f} s; it said: {said}")
            time.sleep(0.02)
        self.target = f"grpc://127.0.0.1:{json.loads(ready.read_text('utf-8'))['port']}"

    def stop(self) -> None:
        """End the process and delete its directory."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class SoarDBServer(BaseANN):  # type: ignore[misc]  # ann-benchmarks has no types
    """One collection on a server; build holds the options of its index, such as nlist."""

    def __init__(self, metric: str, build: dict[str, Any]) -> None:
        self._metric, self._build = METRICS[metric], build
        self._server: Server | None = None
        self._client: Any = None
        self.name = f"soardb-grpc({build})"

    def fit(self, X: npt.NDArray[np.float32]) -> None:
        """Send the rows of X (n, d) float32, ids being row numbers, and wait for their index."""
        self._server = Server()
        self._client = soardb.connect(self._server.target)
        self._collection = self._client.create_collection(
            "vectors", X.shape[1], self._metric, index=self._build
        )
        self._collection.ingest(_batches(np.asarray(X, dtype=np.float32)))
        # Only now does it know all vectors that it is to learn its partitions from.
        self._collection.compact(retrain=True)

    def set_query_arguments(self, nprobe_rerank: tuple[int, int]) -> None:
        """Take the pair (partitions to visit, vectors to re-rank) for the queries that follow."""
        self._nprobe, self._rerank = nprobe_rerank
        self.name = f"soardb-grpc({self._build}, nprobe={self._nprobe}, rerank={self._rerank})"

    def _found(self, queries: npt.NDArray[np.float32], n: int) -> soardb.HitColumns:
        found: soardb.HitColumns = self._collection.search_columns(
            queries, n, nprobe=self._nprobe, rerank=self._rerank, with_payload=False
        )
        return found

    def query(self, q: npt.NDArray[np.float32], n: int) -> Any:
        """The ids of up to n neighbours of q (d,), nearest first: one call."""
        return self._found(q, n).ids

    def batch_query(self, X: npt.NDArray[np.float32], n: int) -> None:
        """Search all rows of X (nq, d) in calls of 500, as many at once as there are cores."""
        parts = [X[i : i + QUERIES] for i in range(0, len(X), QUERIES)]
        with ThreadPool(len(os.sched_getaffinity(0))) as pool:
            answers = pool.map(lambda part: self._found(part, n), parts)
        self.res = [ids for found in answers for ids in _each(found)]

    def get_batch_results(self) -> list[Any]:
        """The ids found for each row."""
        return self.res

    def get_memory_usage(self) -> float:
        """Resident memory of the server in kilobytes; 0 before it runs."""
        if self._server is None:
            return 0.0
        return float(psutil.Process(self._server.process.pid).memory_info().rss / 1024)

    def get_additional(self) -> dict[str, Any]:
        """What the collection itself says of its size, stored with the results."""
        stats = self._collection.stats()
        return {"nlist": stats["nlist"], "index_bytes": sum(stats["memory_bytes"].values())}

    def done(self) -> None:
        """Close the connection and stop the server."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.stop()
        self._client = self._server = None


def _batches(X: npt.NDArray[np.float32]) -> Iterator[tuple[npt.NDArray[np.int64], Any]]:
    for start in range(0, len(X), ROWS):
        rows = X[start : start + ROWS]
        yield np.arange(start, start + len(rows)), rows


def _each(found: soardb.HitColumns) -> list[Any]:
    """The ids of each query apart."""
    return np.split(np.asarray(found.ids), np.cumsum(found.counts)[:-1])
