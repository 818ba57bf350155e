"""What weighted k-center is compared with: random, the least certain, facility location, GIST.

    run.py -> [baselines.py] -> space.py, wkc.py

Points are in the order of their weights, as in wkc.py; of each method the rows that it chooses.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.pipelines.select.space import Space, blocks, nearest_keys, over_blocks
from soardb.pipelines.select.wkc import picks

__all__ = ["MOST_FACILITIES", "facility_location", "gist", "uniform"]

F64 = npt.NDArray[np.float64]

MOST_FACILITIES = 50_000
"""Points that facility location takes, which compares each with all."""


def uniform(n: int, k: int, seed: int) -> I64:
    """k of n, each as likely."""
    return np.random.default_rng(seed).choice(n, k, replace=False)


def facility_location(
    space: Space, k: int, threads: int = 1, progress: Callable[[float], None] = lambda share: None
) -> I64:
    """Greedily k points that make the sum over all of the similarity to the closest one large.

    The similarity is the largest key there is less the key. Greedy by lazy evaluation (Minoux,
    1978), within 1 - 1/e of the best. Costs n x n x d, and n x d for each gain that is looked at
    again. Errors: InvalidArgument for more than MOST_FACILITIES points.
    """
    n = len(space)
    if n > MOST_FACILITIES:
        raise InvalidArgument(
            f"expected at most {MOST_FACILITIES:,} points for facility location, which compares "
            f"each with all, got {n:,}; sample, or use another method"
        )
    everything = space.points(np.arange(n))
    sums, tops = np.empty(n), np.empty(n, np.float32)

    def look(rows: slice) -> None:
        keys = space.keys(rows, everything)
        sums[rows], tops[rows] = keys.sum(axis=1, dtype=np.float64), keys.max(axis=1)

    for _ in over_blocks(blocks(n, n), look, threads):
        pass
    top = float(tops.max())
    best: F32 = np.zeros(n, np.float32)
    heap = [(-(n * top - total), row) for row, total in enumerate(sums.tolist())]
    heapq.heapify(heap)
    chosen: list[int] = []
    fresh_at = np.zeros(n, np.int64)
    while len(chosen) < k:
        _, row = heapq.heappop(heap)
        similarity = np.float32(top) - space.keys(slice(0, n), space.points(np.array([row])))[:, 0]
        if fresh_at[row] < len(chosen):
            gain = float(np.maximum(similarity - best, 0).sum(dtype=np.float64))
            fresh_at[row] = len(chosen)
            heapq.heappush(heap, (-gain, row))
            continue
        np.maximum(best, similarity, out=best)
        chosen.append(row)
        progress(len(chosen) / k)
    return np.array(chosen, np.int64)


def gist(space: Space, weights: F64, k: int, diversity: float, eps: float, threads: int = 1) -> I64:
    """Points whose utility and smallest distance to one another are large together.

    Maximises the sum of utilities, 1 - weight each over k, plus `diversity` times the smallest
    distance between two, over the smallest such thresholds: for each, greedily the most useful
    points that are farther apart. Source: Fahrbach et al., "GIST: Greedy Independent Set
    Thresholding for Max-Min Diversification with Submodular Utility", arXiv 2405.18754.
    """
    utility = 1 - weights / max(float(weights.max()), 1e-300)
    best, best_value = np.arange(k), float(utility[:k].sum()) / k
    best_value += diversity * _least_distance(space, best)
    reach = space.radius_of(float(nearest_keys(space, space.points(np.array([0])), threads).max()))
    threshold = 2 * reach
    while threshold > reach * 1e-3 and reach > 0:
        chosen = picks(space, threshold / 2, k, threads)[:k]
        if len(chosen) == k:
            useful = float(utility[chosen].sum())
            value = useful / k + diversity * _least_distance(space, chosen)
            if value > best_value:
                best, best_value = chosen, value
            if useful >= float(utility[:k].sum()):  # closer points could only be closer
                break
        threshold /= 1 + eps
    return best


def _least_distance(space: Space, rows: I64) -> float:
    if len(rows) < 2:
        return 0.0
    least, points = np.inf, space.points(rows)
    for part in blocks(len(rows), len(rows)):
        keys = space.keys(rows[part], points)
        keys[np.arange(len(keys)), np.arange(part.start, part.start + len(keys))] = np.inf
        least = min(least, float(keys.min()))
    return space.radius_of(least)
