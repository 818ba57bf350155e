"""Recall of answers by their true distances, so that equally near vectors count alike.

    answers of any library -> [judge.py] -> bench_peers.py, bench_soar.py, bench_batch.py

Distances are computed anew from the ids, in float64; what a library says of its own is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]

TOLERANCE = 1e-5  # of the k-th distance: covers rounding alone
LOOSE_TOLERANCE = 1e-3  # in the manner of ann-benchmarks


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
