"""Weighted k-center: k points of little weight that are close to all others.

    run.py -> [wkc.py] -> space.py; balls.py finds balls otherwise, parts.py is over machines

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import I64
from soardb.pipelines.select.space import Space, blocks, first_near, over_blocks, radius_of

__all__ = [
    "Balls",
    "Best",
    "Exactly",
    "Field",
    "Terms",
    "Whole",
    "apart_of",
    "close",
    "exact_guesses",
    "filled",
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
class Terms:
    """k, and what makes the objective of a radius and a sum of weights."""

    k: int
    radius_scale: float
    weight_scale: float

    def value(self, radius: float, weight: float) -> float:
        """The objective."""
        return self.radius_scale * radius + self.weight_scale * weight


C = TypeVar("C")  # a choice: rows of a space, or points of several


class Field(Protocol[C]):
    """Where points are chosen: among those of this process, or over machines.

    resolution    of the space
    least_weight  of any k points
    is_sure       whether no choice of a radius exists where separated() finds too many points
    """

    resolution: float
    least_weight: float
    is_sure: bool

    def cheapest(self) -> C:
        """The k points of least weight."""
        ...

    def choices(self, radius: float) -> tuple[int, tuple[C, ...]] | None:
        """How many points are more than 2 radius apart, and k points for each way to serve them.

        None where there are more than k.
        """
        ...

    def weight(self, choice: C) -> float:
        """The sum of the weights of a choice."""
        ...

    def radius(self, choice: C, most: float) -> float | None:
        """What a choice leaves, measured on all points; None where it is seen to be above most."""
        ...


@dataclass(slots=True)
class Best(Generic[C]):
    """The best choice so far, and a radius below which there is none of k points."""

    chosen: C
    radius: float
    value: float
    least_radius: float
    guess: float | None = None
    separated: int | None = None
    guesses: int = 0


def solve(
    field: Field[C],
    terms: Terms,
    best: Best[C],
    guesses: Iterable[float],
    eps: float = 0.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Best[C]:
    """The best choice of all guesses, of the k cheapest points, and of `best` itself.

    best     the first choice, such as Gonzalez's centres; it is changed and returned
    guesses  the radii to try, rising
    eps      how far they are apart: a guess is left out, and all after it, once the best choice is
             no worse than any with a radius above guess / (1 + eps) can be
    progress called with a share that nears 1

    Costs about 2 n x k x d a guess.
    """
    least = terms.weight_scale * field.least_weight
    _try(field, terms, best, field.cheapest(), None, None)
    if terms.radius_scale == 0:  # then these are the best
        return best
    for guess in guesses:
        if terms.radius_scale * guess / (1 + eps) + least > best.value:
            break
        best.guesses += 1
        found = field.choices(math.hypot(guess, field.resolution))
        if found is None:
            if field.is_sure:  # k points of such a radius serve one of these each, and cannot
                best.least_radius = max(best.least_radius, guess)
            continue
        apart, choices = found
        for choice in choices:
            _try(field, terms, best, choice, guess, apart)
        progress(1 - 1 / (1 + best.guesses))
    progress(1.0)
    return best


def _try(
    field: Field[C],
    terms: Terms,
    best: Best[C],
    choice: C,
    guess: float | None,
    apart: int | None,
) -> None:
    """Take a choice if it is better, measured on all points unless it cannot be."""
    weight = field.weight(choice)
    rest = best.value - terms.weight_scale * weight
    if terms.radius_scale * best.least_radius >= rest:
        return
    radius = field.radius(choice, rest / terms.radius_scale if terms.radius_scale else math.inf)
    if radius is not None and terms.value(radius, weight) < best.value:
        best.chosen, best.radius, best.value = choice, radius, terms.value(radius, weight)
        best.guess, best.separated = guess, apart


class Whole:
    """All points in this process; a choice is (k,) rows.

    space, weights: n points in the order of their weights, (n,) float64, not negative
    balls: how separated points are found; exactly unless told, and only then for sure
    """

    def __init__(
        self, space: Space, weights: F64, k: int, threads: int = 1, balls: Balls | None = None
    ) -> None:
        self.space, self.k, self.threads = space, k, threads
        self.resolution, self.is_sure = space.resolution, balls is None
        self.least_weight = float(weights[:k].sum())
        self._weights = weights
        self._balls: Balls = Exactly(space, threads) if balls is None else balls
        self._remote: list[int] = []  # farthest points of choices that were tried

    def cheapest(self) -> I64:
        """See Field."""
        return np.arange(self.k)

    def choices(self, radius: float) -> tuple[int, tuple[I64, ...]] | None:
        """See Field: the cheapest point near each, and each itself."""
        found = self._balls.separated(radius, self.k)
        if found is None:
            return None
        apart, cheapest = found
        return len(apart), (filled(cheapest, self.k), filled(apart, self.k))

    def weight(self, choice: I64) -> float:
        """See Field."""
        return float(self._weights[choice].sum())

    def radius(self, choice: I64, most: float) -> float | None:
        """See Field: first to the points that were farthest from the choices before."""
        points = self.space.points(choice)
        if self._remote:
            keys = self.space.keys(np.array(self._remote[-_REMOTE:]), points).min(axis=1)
            if self.space.radius_of(float(keys.max())) - self.resolution > most:
                return None
        radius, farthest = radius_of(self.space, points, self.threads)
        self._remote.append(farthest)
        return radius


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
        narrow = self.space.key_of(radius)
        return apart, first_near(self.space, self.space.points(apart), narrow, apart)


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
    is_near = space.keys(rows, space.points(rows)) <= wide
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
    rows, points = np.flatnonzero(is_open[start:]) + start, space.points(taken)

    def work(part: slice) -> None:
        some = rows[part]
        is_open[some] = space.keys(some, points).min(axis=1) > wide

    for _ in over_blocks(blocks(len(rows), len(taken)), work, threads):
        pass


def filled(chosen: I64, k: int) -> I64:
    """With the first points that are not chosen, which are the cheapest, to k in all.

    Each once: rounding may have given two balls one cheapest point.
    """
    distinct = np.unique(chosen)
    return np.concatenate([distinct, np.setdiff1d(np.arange(k), distinct)[: k - len(distinct)]])


def grid(least: float, eps: float) -> Iterator[float]:
    """Guesses from a radius below the best one on, each (1 + eps) times the one before: no end.

    One of them is within (1 + eps) of the best radius. solve() ends them.
    """
    while least > 0:
        yield least
        least *= 1 + eps
    yield 0.0  # all points are at k places


def exact_guesses(space: Space, least: float) -> list[float]:
    """Every distance between two points from a radius on: the best one is there. For few points."""
    keys = space.keys(slice(0, len(space)), space.points(np.arange(len(space))))
    radii = sorted({0.0, *(space.radius_of(key) for key in np.unique(keys).tolist())})
    return [radius * (1 + _ROUNDING) for radius in radii if radius >= least * (1 - _ROUNDING)]
