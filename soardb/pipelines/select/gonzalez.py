"""Greedy k-center of Gonzalez (1985): always the point that is farthest from those chosen.

    wkc.py, run.py -> [gonzalez.py] -> space.py

Its radius is at most twice that of the best k centres, so half of it bounds theirs from below.

A step of it reads all points. Here it reads a pool of those that were farthest when all were looked
at last: distances only fall, so as long as the farthest of the pool is above what the others were
at most then, it is the farthest of all. Then all steps since are made good for every point at once,
as one product of matrices. The centres are those of the plain loop, which a test has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from soardb.kernels.layout import F32, I64
from soardb.pipelines.select.space import Space, blocks, over_blocks

__all__ = ["gonzalez"]

_POOL = 4096
_TAKEN = np.float32(-1)  # below every key, so that no point is taken twice
_MOST_AT_ONCE = 256  # centres that are made good at a time


def gonzalez(
    space: Space,
    k: int,
    *,
    first: int = 0,
    threads: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[I64, float]:
    """The k centres in the order of their choice, and the radius that they leave.

    first: the first one. Of points that are equally far the one with the smallest number is taken;
    each is taken once, wherever others lie.
    Costs n x k x d. Source: Gonzalez, "Clustering to minimize the maximum intercluster distance",
    1985.
    """
    n = len(space)
    chosen = np.empty(k, np.int64)
    chosen[0] = first
    done, made_good = 1, 0
    near = np.full(n, np.inf, np.float32)
    while done < k:
        _make_good(space, near, chosen[made_good:done], threads)
        made_good = done
        pool = _farthest(near, min(_POOL, n))
        others = _most_outside(near, pool)
        held = near[pool].copy()
        while done < k and done - made_good < _MOST_AT_ONCE:
            place = int(held.argmax())  # of equals the first, and the pool is in order
            if done > made_good and held[place] <= others:
                break
            chosen[done] = pool[place]
            centre = space.points(chosen[done : done + 1])
            np.minimum(held, space.keys(pool, centre)[:, 0], out=held)
            held[place] = _TAKEN
            done += 1
            if done > made_good + 1 and held.max() <= others:
                break
        progress(done / k)
    _make_good(space, near, chosen[made_good:done], threads)
    return chosen, space.distance(int(near.argmax()), space.points(chosen))


def _make_good(space: Space, near: F32, centres: I64, threads: int) -> None:
    points = space.points(centres)

    def work(rows: slice) -> None:
        np.minimum(near[rows], space.keys(rows, points).min(axis=1), out=near[rows])

    for _ in over_blocks(blocks(len(space), len(centres)), work, threads):
        pass
    near[centres] = _TAKEN


def _farthest(near: F32, count: int) -> I64:
    """Rows of the largest values, rising; of equal ones those with the smallest numbers."""
    if count >= len(near):
        return np.arange(len(near))
    least = np.partition(near, len(near) - count)[len(near) - count]
    above = np.flatnonzero(near > least)
    equal = np.flatnonzero(near == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _most_outside(near: F32, pool: I64) -> np.float32:
    """The largest value of a point that is not in the pool; minus infinity where all are."""
    if len(pool) == len(near):
        return np.float32(-np.inf)
    return np.float32(near[pool].min())
