"""soardb under ann-benchmarks: to be copied to ann_benchmarks/algorithms/soardb there.

    ann_benchmarks/algorithms/base -> [module.py] -> run.py of ann-benchmarks

Row numbers are the ids. A single query runs on the calling thread; building and batches use the
cores that the process may run on, one in the container of a single-query run.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from ann_benchmarks.algorithms.base.module import BaseANN

import soardb

METRICS = {"angular": "cosine", "euclidean": "l2"}


class SoarDB(BaseANN):  # type: ignore[misc]  # ann-benchmarks has no types
    """One SoarIndex; build holds its parameters, such as nlist and soar_lambda."""

    def __init__(self, metric: str, build: dict[str, Any]) -> None:
        self._metric, self._build = METRICS[metric], build
        self._cores = len(os.sched_getaffinity(0))
        self.name = f"soardb({build})"

    def fit(self, X: npt.NDArray[np.float32]) -> None:
        """Train on X (n, d) float32 and add its rows."""
        X = np.ascontiguousarray(X, dtype=np.float32)
        self._index = soardb.SoarIndex(X.shape[1], self._metric, threads=self._cores, **self._build)
        self._index.train(X)
        self._index.add(X)
        self._search = self._index.search

    def set_query_arguments(self, nprobe_rerank: tuple[int, int]) -> None:
        """Take the pair (partitions to visit, vectors to re-rank) for the queries that follow."""
        self._nprobe, self._rerank = nprobe_rerank
        self.name = f"soardb({self._build}, nprobe={self._nprobe}, rerank={self._rerank})"

    def query(self, q: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.int64]:
        """The ids of up to n neighbours of q (d,), nearest first."""
        ids: npt.NDArray[np.int64] = self._search(
            q[None], n, nprobe=self._nprobe, rerank=self._rerank
        )[1][0]
        return ids if ids[-1] >= 0 else ids[ids >= 0]

    def batch_query(self, X: npt.NDArray[np.float32], n: int) -> None:
        """Search all rows of X (nq, d) in one call; get_batch_results has the answer."""
        self.res = self._search(
            X, n, nprobe=self._nprobe, rerank=self._rerank, threads=self._cores
        )[1]

    def get_batch_results(self) -> list[npt.NDArray[np.int64]]:
        """The ids found for each row, without the -1 of missing ones."""
        return [ids[ids >= 0] for ids in self.res]

    def get_additional(self) -> dict[str, Any]:
        """What the index itself says of its size, stored with the results."""
        return {"nlist": self._index.nlist, "index_bytes": sum(self._index.memory().values())}
