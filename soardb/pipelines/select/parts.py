"""Weighted k-center over several machines, each with a part of the points.

    run.py -> [parts.py] -> crew.py (machines), wkc.py (the same steps on one part)

For every guess there are three rounds, in which a machine sends at most k points. In the first each
finds points of its own that are more than two guesses apart, and the coordinator keeps a maximal
set of these that are; in the second each names its cheapest point within a guess of every one kept,
and the cheapest of all is taken; in the third each measures what it is from those taken. Every
point is then within 5 guesses, so the factor is 5 (1 + eps). Kept sequentially, each machine adding
only points that are far from those it is handed, every point is within 2 guesses of one kept and
the factor is 3 (1 + eps), at one message after the other. The derivation is that of wkc.py; the
paper says that a parallel algorithm with guarantees exists (arXiv 2312.10602, abstract).

Nothing here holds points but those that were sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import F32, I64
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.space import Matrix, Space, blocks, space_of, space_of_points
from soardb.pipelines.select.wkc import Best, grid, picks

__all__ = ["Coordinator", "Crew", "Part", "Points", "Terms"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Points:
    """Some points as they travel. rows: (m,) of the whole; weights: (m,); points: as Space says."""

    rows: I64
    weights: F64
    points: F32

    def __len__(self) -> int:
        return len(self.rows)

    def taken(self, places: I64) -> Points:
        """Some of them."""
        return Points(self.rows[places], self.weights[places], self.points[places])

    def with_others(self, places: I64, others: Points) -> Points:
        """With others in some places."""
        rows, weights, points = self.rows.copy(), self.weights.copy(), self.points.copy()
        rows[places], weights[places] = others.rows, others.weights
        points[places] = others.points
        return Points(rows, weights, points)

    @staticmethod
    def joined(several: Sequence[Points]) -> Points:
        """All of them, one after the other."""
        return Points(
            np.concatenate([p.rows for p in several]),
            np.concatenate([p.weights for p in several]),
            np.concatenate([p.points for p in several]),
        )


class Part:
    """The points of one machine.

    points: (n, d) vectors, or (n, n') distances to the whole. rows: (n,) of the whole.
    """

    def __init__(
        self, points: F32, rows: I64, weights: F64, metric: str, middle: F32 | None
    ) -> None:
        order = np.lexsort((rows, weights))
        self._rows, self._weights = rows[order], weights[order]
        if metric == "distances":
            self._space: Space = Matrix(points[order], self._rows)
        else:
            self._space = space_of(points, order, metric, middle)

    def cheapest(self, k: int) -> Points:
        """The k points of least weight."""
        return self._points(np.arange(min(k, len(self._rows))))

    def centres(self, k: int) -> Points:
        """k centres of Gonzalez's algorithm."""
        return self._points(gonzalez(self._space, min(k, len(self._rows)))[0])

    def apart(self, radius: float, k: int, kept: Points | None = None) -> Points:
        """Points more than 2 radius apart and away from those kept elsewhere, or more than k."""
        if kept is None or not len(kept):
            return self._points(picks(self._space, radius, k))
        is_open = np.ones(len(self._rows), bool)
        wide = self._space.key_of(2 * radius)
        for some in blocks(len(self._rows), len(kept)):
            is_open[some] = self._space.keys_to(some, kept.points).min(axis=1) > wide
        found = picks(self._space, radius, k, is_open=is_open)
        return self._points(found)

    def within(self, radius: float, kept: Points) -> tuple[I64, Points]:
        """Which of those kept have a point here within `radius`, and the cheapest of each."""
        narrow = self._space.key_of(radius)
        found = np.full(len(kept), -1, np.int64)
        waiting = np.arange(len(kept))
        for some in blocks(len(self._rows), max(1024, len(kept))):
            if not len(waiting):
                break
            is_within = self._space.keys_to(some, kept.points[waiting]) <= narrow
            first = is_within.argmax(axis=0)
            is_found = is_within[first, np.arange(len(waiting))]
            found[waiting[is_found]] = some.start + first[is_found]
            waiting = waiting[~is_found]
        which = np.flatnonzero(found >= 0)
        return which, self._points(found[which])

    def radius(self, chosen: F32) -> float:
        """The largest distance of a point here to the closest of chosen points."""
        farthest, largest = 0, -1.0
        for some in blocks(len(self._rows), len(chosen)):
            keys = self._space.keys_to(some, chosen).min(axis=1)
            if keys.max() > largest:
                farthest, largest = some.start + int(keys.argmax()), float(keys.max())
        return self._space.distance(farthest, chosen)

    def _points(self, places: I64) -> Points:
        return Points(self._rows[places], self._weights[places], self._space.points(places))


class Crew(Protocol):
    """Machines, each with a Part."""

    def __len__(self) -> int: ...

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """What the method of every part returns, in their order; they work at once."""
        ...

    def one(self, number: int, method: str, *arguments: Any) -> Any:
        """What the method of one part returns."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """k, and what makes the objective of a radius and a sum of weights."""

    k: int
    radius_scale: float
    weight_scale: float

    def value(self, radius: float, weights: F64) -> float:
        """The objective."""
        return self.radius_scale * radius + self.weight_scale * float(weights.sum())


@dataclass(slots=True)
class Coordinator:
    """Who asks the machines. metric, is_sequential, eps: as in the module's docstring."""

    crew: Crew
    metric: str
    eps: float
    is_sequential: bool = False

    def start(self, k: int) -> tuple[Points, float, Points]:
        """k centres of the centres of all parts, the radius that they leave, the k cheapest."""
        every = Points.joined(self.crew.all("centres", k))
        space = space_of_points(every.points, every.rows, self.metric)
        centres = every.taken(gonzalez(space, k)[0])
        pool = Points.joined(self.crew.all("cheapest", k))
        pool = pool.taken(np.lexsort((pool.rows, pool.weights))[:k])
        return centres, self.radius(centres), pool

    def solve(
        self,
        terms: Terms,
        start: tuple[Points, float, Points],
        progress: Callable[[float], None] = lambda share: None,
    ) -> Best:
        """The best solution of all guesses; chosen are rows of the whole. Three rounds a guess."""
        centres, radius, pool = start
        resolution = space_of_points(centres.points, centres.rows, self.metric).resolution
        least = terms.weight_scale * float(pool.weights.sum())
        # Centres of centres leave at most 4 times the best radius (Malkomes et al., 2015).
        best = Best(centres.rows, radius, terms.value(radius, centres.weights), radius / 4)
        self._try(terms, best, pool, None, None)
        if terms.radius_scale == 0:
            return best
        for step in grid(self.eps)(radius / 2):
            guess = math.hypot(step, resolution)
            if terms.radius_scale * step / (1 + self.eps) + least > best.value:
                break
            best.guesses += 1
            kept = self.kept(guess, terms.k)
            if kept is None:
                best.least_radius = max(best.least_radius, step)
                continue
            for chosen in (self.cheapest_within(guess, kept), kept):
                self._try(terms, best, _filled(chosen, pool, terms.k), guess, len(kept))
            progress(best.guesses)
        return best

    def kept(self, guess: float, k: int) -> Points | None:
        """A maximal set of points more than 2 guesses apart; None where it has more than k."""
        if self.is_sequential:
            so_far: Points | None = None
            for number in range(len(self.crew)):
                more = self.crew.one(number, "apart", guess, k, so_far)
                so_far = more if so_far is None else Points.joined([so_far, more])
                if len(so_far) > k:
                    return None
            return so_far
        found = self.crew.all("apart", guess, k)
        if any(len(part) > k for part in found):
            return None
        every = Points.joined(found)
        every = every.taken(np.lexsort((every.rows, every.weights)))
        space = space_of_points(every.points, every.rows, self.metric)
        kept = every.taken(picks(space, guess, k))
        return None if len(kept) > k else kept

    def cheapest_within(self, guess: float, kept: Points) -> Points:
        """For each point kept the cheapest of all parts within a guess of it: at least itself."""
        best = kept
        for which, found in self.crew.all("within", guess, kept):
            is_less = (found.weights < best.weights[which]) | (
                (found.weights == best.weights[which]) & (found.rows < best.rows[which])
            )
            best = best.with_others(which[is_less], found.taken(np.flatnonzero(is_less)))
        return best

    def radius(self, chosen: Points) -> float:
        """The largest distance of any point to the closest of those chosen."""
        return float(max(self.crew.all("radius", chosen.points)))

    def _try(
        self, terms: Terms, best: Best, chosen: Points, guess: float | None, apart: int | None
    ) -> None:
        least = terms.radius_scale * best.least_radius
        if least + terms.weight_scale * float(chosen.weights.sum()) >= best.value:
            return
        radius = self.radius(chosen)
        value = terms.value(radius, chosen.weights)
        if value < best.value:
            best.chosen, best.radius, best.value = chosen.rows, radius, value
            best.guess, best.separated = guess, apart


def _filled(chosen: Points, pool: Points, k: int) -> Points:
    """Distinct, and with the cheapest others to k in all."""
    _, places = np.unique(chosen.rows, return_index=True)
    distinct = chosen.taken(places)
    others = pool.taken(np.flatnonzero(~np.isin(pool.rows, distinct.rows))[: k - len(distinct)])
    return Points.joined([distinct, others])
