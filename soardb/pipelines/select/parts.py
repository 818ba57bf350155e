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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import F32, I64
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.space import (
    Matrix,
    Space,
    first_near,
    nearest_keys,
    radius_of,
    space_of,
    space_of_points,
)
from soardb.pipelines.select.wkc import picks

__all__ = ["Coordinator", "Crew", "Part", "Points"]

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
        is_open = np.ones(len(self._rows), bool)
        if kept is not None and len(kept):
            wide = self._space.key_of(2 * radius)
            is_open = nearest_keys(self._space, kept.points) > wide
        return self._points(picks(self._space, radius, k, is_open=is_open))

    def within(self, radius: float, kept: Points) -> tuple[I64, Points]:
        """Which of those kept have a point here within `radius`, and the cheapest of each."""
        found = first_near(self._space, kept.points, self._space.key_of(radius))
        which = np.flatnonzero(found >= 0)
        return which, self._points(found[which])

    def radius(self, chosen: F32) -> float:
        """The largest distance of a point here to the closest of chosen points."""
        return radius_of(self._space, chosen)[0]

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


class Coordinator:
    """The points of a crew, as wkc.Field has them; a choice is Points.

    is_sequential: machine after machine, as the module says
    """

    is_sure = True

    def __init__(self, crew: Crew, metric: str, k: int, *, is_sequential: bool = False) -> None:
        self._crew, self._metric, self.k = crew, metric, k
        self._is_sequential = is_sequential
        every = Points.joined(crew.all("centres", k))
        space = space_of_points(every.points, every.rows, metric)
        self.centres = every.taken(gonzalez(space, k)[0])
        """k centres of the centres of all parts, which leave 4 times the best radius at most
        (Malkomes et al., 2015)."""
        self.resolution = space_of_points(self.centres.points, self.centres.rows, metric).resolution
        pool = Points.joined(crew.all("cheapest", k))
        self._pool = pool.taken(np.lexsort((pool.rows, pool.weights))[:k])
        self.least_weight = float(self._pool.weights.sum())

    def cheapest(self) -> Points:
        """See Field."""
        return self._pool

    def choices(self, radius: float) -> tuple[int, tuple[Points, ...]] | None:
        """See Field: the cheapest point near each, and each itself."""
        kept = self._kept(radius)
        if kept is None:
            return None
        both = self._cheapest_within(radius, kept), kept
        return len(kept), tuple(_filled(chosen, self._pool, self.k) for chosen in both)

    def weight(self, choice: Points) -> float:
        """See Field."""
        return float(choice.weights.sum())

    def radius(self, choice: Points, most: float = np.inf) -> float:
        """See Field: each machine measures its points."""
        return float(max(self._crew.all("radius", choice.points)))

    def _kept(self, radius: float) -> Points | None:
        """A maximal set of points more than 2 radius apart; None where it has more than k."""
        if self._is_sequential:
            so_far: Points | None = None
            for number in range(len(self._crew)):
                more = self._crew.one(number, "apart", radius, self.k, so_far)
                so_far = more if so_far is None else Points.joined([so_far, more])
                if len(so_far) > self.k:
                    return None
            return so_far
        found = self._crew.all("apart", radius, self.k)
        if any(len(part) > self.k for part in found):
            return None
        every = Points.joined(found)
        every = every.taken(np.lexsort((every.rows, every.weights)))
        space = space_of_points(every.points, every.rows, self._metric)
        kept = every.taken(picks(space, radius, self.k))
        return None if len(kept) > self.k else kept

    def _cheapest_within(self, radius: float, kept: Points) -> Points:
        """For each point kept the cheapest of all parts within a radius of it: at least itself."""
        best = kept
        for which, found in self._crew.all("within", radius, kept):
            is_less = (found.weights < best.weights[which]) | (
                (found.weights == best.weights[which]) & (found.rows < best.rows[which])
            )
            best = best.with_others(which[is_less], found.taken(np.flatnonzero(is_less)))
        return best


def _filled(chosen: Points, pool: Points, k: int) -> Points:
    """Distinct, and with the cheapest others to k in all."""
    _, places = np.unique(chosen.rows, return_index=True)
    distinct = chosen.taken(places)
    others = pool.taken(np.flatnonzero(~np.isin(pool.rows, distinct.rows))[: k - len(distinct)])
    return Points.joined([distinct, others])
