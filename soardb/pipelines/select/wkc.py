"""Weighted k-center: k points of little weight that are close to all others.

    run.py (and gonzalez.py's centres) -> [wkc.py] -> space.py

The objective is that of Ramalingam, Awasthi and Kumar ("A Weighted K-Center Algorithm for Data
Subset Selection", arXiv 2312.10602, abstract): the k-center radius, weighted by lambda, plus the
sum of the weights of the chosen points, to be small. For a guess r of the radius: greedily take
points that are more than 2r apart, replace each by the cheapest point within r of it, and fill up
with the cheapest points there are. At the right guess the radius is at most three times the best
one and the weight at most the best one's (the argument of Hochbaum and Shmoys with an exchange for
the fill; tests compare it with brute force), so trying guesses up to (1 + eps) apart gives a factor
of 3 (1 + eps).

Points are looked at by rising weight, so they are sorted once, and the cheapest point of a ball is
the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import I64
from soardb.pipelines.select.space import Space, blocks, over_blocks, radius_of

__all__ = [
    "Balls",
    "Best",
    "Exactly",
    "Problem",
    "apart_of",
    "close",
    "exact_guesses",
    "filled",
    "first_within",
    "grid",
    "open_rows",
    "picks",
    "solve",
]

F64 = npt.NDArray[np.float64]
_AT_ONCE, _WINDOW = 256, 2**16
_REMOTE = 64
_ROUNDING = 1e-6  # of float32 keys, so that a ball holds the point that its radius is of


@dataclass(frozen=True, slots=True)
class Problem:
    """space: n points in the order of their weights. weights: (n,) float64, rising, not negative.

    radius_scale, weight_scale: what makes the objective of a radius and a sum of weights.
    """

    space: Space
    weights: F64
    k: int
    radius_scale: float
    weight_scale: float
    threads: int = 1

    @property
    def least_weight(self) -> float:
        """Of any k points."""
        return float(self.weights[: self.k].sum())

    def value(self, radius: float, chosen: I64) -> float:
        """The objective of chosen points that leave a radius."""
        return self.radius_scale * radius + self.weight_scale * float(self.weights[chosen].sum())


@dataclass(slots=True)
class Best:
    """The best solution so far, and what no solution can beat."""

    chosen: I64
    radius: float
    value: float
    least_radius: float
    guess: float | None = None
    separated: int | None = None
    guesses: int = 0
    remote: list[int] = field(default_factory=list)  # farthest points of choices that were tried

    def lower_bound(self, problem: Problem) -> float:
        """Both terms at their least, as if one choice had both."""
        return (
            problem.radius_scale * self.least_radius + problem.weight_scale * problem.least_weight
        )


def solve(
    problem: Problem,
    best: Best,
    guesses: Callable[[float], Iterator[float]],
    eps: float = 0.0,
    *,
    balls: Balls | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Best:
    """The best solution of all guesses, of the k cheapest points, and of Gonzalez's centres.

    best     these centres; it is changed and returned
    guesses  given the radius that they leave, the radii to try, rising
    eps      how far they are apart: a guess is left out, and all after it, once the best solution
             is no worse than any with a radius above guess / (1 + eps) can be
    balls    how separated points are found: exactly unless told

    Costs about 2 n x k x d a guess. What is reported is measured on all points.
    """
    space, k = problem.space, problem.k
    find = Exactly(space, problem.threads) if balls is None else balls
    least = problem.weight_scale * problem.least_weight
    _try(problem, best, np.arange(k), None, None)
    if problem.radius_scale == 0:  # then these are the best
        return best
    for guess in guesses(2 * best.least_radius):
        if problem.radius_scale * guess / (1 + eps) + least > best.value:
            break
        best.guesses += 1
        found = find.separated(math.hypot(guess, space.resolution), k)
        if found is None:
            if balls is None:  # k points of such a radius serve one of these each, and cannot
                best.least_radius = max(best.least_radius, guess)
            continue
        apart, cheapest = found
        for kept in (cheapest, apart):
            _try(problem, best, filled(kept, k), guess, len(apart))
        progress(best.guesses)
    return best


def _try(problem: Problem, best: Best, chosen: I64, guess: float | None, apart: int | None) -> None:
    """Take a choice if it is better, measured on all points unless it cannot be."""
    weight = problem.weight_scale * float(problem.weights[chosen].sum())
    if problem.radius_scale * best.least_radius + weight >= best.value:
        return
    if best.remote and _least_of_radius(problem, best.remote, chosen) + weight > best.value:
        return
    radius, farthest = radius_of(problem.space, chosen, problem.threads)
    best.remote.append(farthest)
    value = problem.value(radius, chosen)
    if value < best.value:
        best.chosen, best.radius, best.value = chosen, radius, value
        best.guess, best.separated = guess, apart


def _least_of_radius(problem: Problem, remote: list[int], chosen: I64) -> float:
    """What the radius counts for at least, as these points are among those that are to be near."""
    keys = problem.space.keys(np.array(remote[-_REMOTE:]), chosen).min(axis=1)
    least = problem.space.radius_of(float(keys.max()))
    return problem.radius_scale * max(0.0, least - problem.space.resolution)


class Balls(Protocol):
    """A way to find separated points."""

    def separated(self, radius: float, k: int) -> tuple[I64, I64] | None:
        """Points more than 2 radius apart that no other can be added to, taken by rising number.

        Returns them, and for each the first point within `radius` of it: of points sorted by weight
        the cheapest. None where there are more than k. Both tests are "at most", on keys.
        """
        ...


@dataclass(frozen=True, slots=True)
class Exactly:
    """By comparing with all points that may be within a ball."""

    space: Space
    threads: int = 1

    def separated(self, radius: float, k: int) -> tuple[I64, I64] | None:
        """See Balls."""
        apart = picks(self.space, radius, k, self.threads)
        if len(apart) > k:
            return None
        return apart, first_within(self.space, apart, self.space.key_of(radius))


def picks(
    space: Space,
    radius: float,
    k: int,
    threads: int = 1,
    is_open: npt.NDArray[np.bool_] | None = None,
) -> I64:
    """Rising rows more than 2 radius apart that no other can be added to, or more than k of them.

    is_open: (n,) rows that may be taken, all unless told; they are closed as others are taken

    Each batch of points that are open is settled among itself, then closes what it reaches: what is
    taken is what one point after the other would take.
    """
    wide = space.key_of(2 * radius)
    if is_open is None:
        is_open = np.ones(len(space), bool)
    apart: list[int] = []
    start = 0
    while len(apart) <= k and (some := open_rows(is_open, start)) is not None:
        taken = apart_of(space, some, wide)
        apart += taken.tolist()
        start = int(some[-1]) + 1
        close(space, is_open, start, taken, wide, threads)
    return np.array(apart, np.int64)


def open_rows(is_open: npt.NDArray[np.bool_], start: int) -> I64 | None:
    """The next rows that are open, some at a time; None where there are none."""
    for first in range(start, len(is_open), _WINDOW):
        ahead = np.flatnonzero(is_open[first : first + _WINDOW])
        if len(ahead):
            return ahead[:_AT_ONCE] + first
    return None


def apart_of(space: Space, rows: I64, wide: np.float32) -> I64:
    """Of some open points, in order, those farther than `wide` from each that was taken before."""
    is_near = space.keys(rows, rows) <= wide
    is_open = np.ones(len(rows), bool)
    taken = []
    for place in range(len(rows)):
        if is_open[place]:
            taken.append(place)
            is_open &= ~is_near[place]
    return rows[taken]


def close(
    space: Space,
    is_open: npt.NDArray[np.bool_],
    start: int,
    taken: I64,
    wide: np.float32,
    threads: int,
) -> None:
    """Mark points from `start` on that are within `wide` of one of those taken."""
    rows = np.flatnonzero(is_open[start:]) + start

    def work(part: slice) -> None:
        some = rows[part]
        is_open[some] = space.keys(some, taken).min(axis=1) > wide

    for _ in over_blocks(blocks(len(rows), len(taken)), work, threads):
        pass


def first_within(space: Space, centres: I64, narrow: np.float32) -> I64:
    """For each of some rising rows the first row within `narrow` of it, which may be itself."""
    found = centres.copy()
    waiting = np.arange(len(centres))
    for rows in blocks(int(centres.max()) + 1, max(1024, len(centres))):
        waiting = waiting[centres[waiting] > rows.start]
        if not len(waiting):
            break
        is_within = space.keys(rows, centres[waiting]) <= narrow
        first = is_within.argmax(axis=0)
        is_found = is_within[first, np.arange(len(waiting))]
        found[waiting[is_found]] = np.minimum(
            found[waiting[is_found]], rows.start + first[is_found]
        )
        waiting = waiting[~is_found]
    return found


def filled(chosen: I64, k: int) -> I64:
    """With the first points that are not chosen, which are the cheapest, to k in all.

    Each once: rounding may have given two balls one cheapest point.
    """
    distinct = np.unique(chosen)
    return np.concatenate([distinct, np.setdiff1d(np.arange(k), distinct)[: k - len(distinct)]])


def grid(eps: float) -> Callable[[float], Iterator[float]]:
    """Guesses from half of Gonzalez's radius on, each (1 + eps) times the one before, without end.

    One of them is within (1 + eps) of the best radius. solve() ends them.
    """

    def guesses(radius: float) -> Iterator[float]:
        guess = radius / 2
        while guess > 0:
            yield guess
            guess *= 1 + eps
        yield 0.0  # all points are at k places

    return guesses


def exact_guesses(space: Space) -> Callable[[float], Iterator[float]]:
    """Every distance between two points, and 0: the best radius is one of them. For few points."""
    keys = space.keys(slice(0, len(space)), np.arange(len(space)))
    radii = sorted({0.0, *(space.radius_of(key) for key in np.unique(keys).tolist())})

    def guesses(radius: float) -> Iterator[float]:
        for guess in radii:
            if guess >= radius / 2 * (1 - _ROUNDING):
                yield guess * (1 + _ROUNDING)

    return guesses
