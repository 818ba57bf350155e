"""Balls by the index: the points around some, without looking at all of them.

    run.py -> [balls.py] -> soardb.index, wkc.py

Where many points are chosen the balls are small, and a search finds a ball in a fraction of the
time. A ball that holds more than a search returns is found by comparing with all points. What a
search misses stays open and may be taken although it is close to another, so the factor of three is
no longer promised, nor does a guess with too many separated points bound anything; what is reported
is measured on all points all the same.

Nothing here chooses but as wkc.py does.
"""

from __future__ import annotations

import numpy as np

from soardb.index import SoarIndex
from soardb.kernels.layout import I64
from soardb.pipelines.select.space import Vectors, first_near
from soardb.pipelines.select.wkc import apart_of, close, open_rows

__all__ = ["IndexBalls"]

_LIMIT = 512  # points of a ball that one search returns
_SHARE = 16  # one of so many partitions is visited
_LEAST_LISTS = 8


class IndexBalls:
    """See separated(). space: n vectors in the order of their weights. Builds an index of them."""

    def __init__(self, space: Vectors, threads: int = 1, seed: int = 0) -> None:
        self._space, self._threads = space, threads
        vectors = space.points(np.arange(len(space)))
        self._index = SoarIndex(vectors.shape[1], metric="l2", seed=seed)
        self._index.train(vectors)
        self._index.add(vectors)
        self._nprobe = max(_LEAST_LISTS, self._index.nlist // _SHARE)
        self._key_per_score = -0.5 if space.metric == "cosine" else -1.0

    def separated(self, radius: float, k: int) -> tuple[I64, I64] | None:
        """As wkc.separated(), but for what searches miss."""
        space, n = self._space, len(self._space)
        wide, narrow = space.key_of(2 * radius), space.key_of(radius)
        is_open = np.ones(n, bool)
        apart: list[I64] = []
        cheapest: list[I64] = []
        start = count = 0
        while (some := open_rows(is_open, start)) is not None:
            taken = apart_of(space, some, wide)
            count += len(taken)
            if count > k:
                return None
            start = int(some[-1]) + 1
            apart.append(taken)
            cheapest.append(self._around(taken, is_open, start, wide, narrow))
        return np.concatenate(apart), np.concatenate(cheapest)

    def _around(
        self, taken: I64, is_open: np.ndarray, start: int, wide: np.float32, narrow: np.float32
    ) -> I64:
        """Close the points around some; the first point within `narrow` of each."""
        limit = min(_LIMIT, len(self._space))
        scores, ids = self._index.search(
            self._space.points(taken),
            limit,
            nprobe=self._nprobe,
            rerank=2 * limit,
            threads=self._threads,
        )
        keys = np.where(ids >= 0, scores * self._key_per_score, np.inf)
        is_whole = keys[:, -1] > wide
        is_open[ids[is_whole][keys[is_whole] <= wide]] = False
        first = np.where((keys <= narrow) & (ids >= 0), ids, len(self._space)).min(axis=1)
        first = np.minimum(first, taken)
        cut = np.flatnonzero(~is_whole)
        if len(cut):
            close(self._space, is_open, start, taken[cut], wide, self._threads)
            points = self._space.points(taken[cut])
            first[cut] = first_near(self._space, points, narrow, taken[cut])
        return np.asarray(first, np.int64)
