"""What recall costs, as it was measured, and the setting of a search that a wished recall needs.

    index/exam.py, tuning.py, soardb_client -> [curve.py]

A curve holds the settings that were measured for one k, under filters that let through one share
of the points. Settings that differ in nprobe alone make a line, along which recall rises; between
two of them the log of what is missed is a smooth curve of the log of nprobe, so the nprobe of any
recall between is read off there. Lines of neighbouring reranks make a band, in which the rerank of
any recall is read off in the same way: where one list more would be a large step, it is the number
of candidates that meets the target. Of all that reach a target the cheapest is taken, by the codes
and candidates that it looks at: times are measured too, but the same data must give the same
answers again.

Nothing here measures.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument
from soardb.schema import shown

__all__ = [
    "DEFAULT_TARGET",
    "QUERIES",
    "WIDENING",
    "Curve",
    "Curves",
    "Effort",
    "Expected",
    "OperatingPoint",
    "as_only_target",
    "as_target",
]

DEFAULT_TARGET = 0.95
"""The recall that a search aims at when nothing is said."""

QUERIES = 4_500
"""Questions of a measuring, unless told: a recall of 0.8 has then a standard error of 0.004."""

WIDENING = 0.5
"""Where nobody measured, nprobe grows with (1 / share of matches) to this power."""

# What is chosen has this part of its 95 % interval to spare, half a standard error: settings are
# compared by what was measured, so the one that is chosen was a little lucky on average.
_MARGIN = 0.25

_NEIGHBOURS = 2.2  # times as many candidates at most, between which recall is drawn
_TRIED = 8  # nprobes of a band that are compared

# Codes that are scanned in the time in which a candidate is scored again, and a list put in order.
_RERANK_CODES, _LIST_CODES = 20.0, 8.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search works: lists visited, candidates scored again, lists passed over.

    stop  see kernels.layout.SearchPlan; None: no list is passed over

    A knob that is added here has a default, and settings that differ in it are lines of their own.
    """

    nprobe: int
    rerank: int
    stop: float | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One setting and what it gave: recall@k with its 95 % interval, time and work of a query.

    effort      None for exact search
    latency_us  median of single calls, or of batches on one thread: see who measured
    scanned     codes looked at, on average
    """

    effort: Effort | None
    recall: float
    low: float
    high: float
    latency_us: float
    scanned: float = 0.0

    @property
    def nprobe(self) -> int | None:
        """Lists visited; None for exact search."""
        return None if self.effort is None else self.effort.nprobe

    @property
    def rerank(self) -> int | None:
        """Candidates scored again; None for exact search."""
        return None if self.effort is None else self.effort.rerank


@dataclass(frozen=True, slots=True)
class Expected:
    """A setting chosen for a target, and the recall that it is expected to give.

    effort     None: an exact search, which misses nothing
    low, high  95 % interval of what was measured around it; None where recall is drawn out beyond
    """

    effort: Effort | None
    target: float
    recall: float | None
    low: float | None
    high: float | None
    cost: float
    """Codes looked at, and candidates by how many codes one of them takes."""

    @property
    def is_reached(self) -> bool:
        """Whether the target is expected to be met."""
        return self.recall is None or self.recall >= self.target - 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """What recall@k costs on this collection, on this machine, at the moment of measuring.

    share  of the points that the filter lets through; 1 without one
    """

    k: int
    queries: int
    points: list[OperatingPoint]
    share: float = 1.0
    _known: dict[tuple[float, bool], Expected] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    def cheapest(self, target_recall: float) -> OperatingPoint | None:
        """The fastest point whose measured recall reaches the target; None where none does.

        The interval of a point says how sure that is. Errors: InvalidArgument.
        """
        target = as_target(target_recall)
        good = [point for point in self.points if point.recall >= target]
        return min(good, key=lambda point: point.latency_us, default=None)

    def choose(self, target: float, *, passes_over: bool = True) -> Expected:
        """The cheapest setting expected to reach a target, between measured ones too.

        passes_over=False: of those that visit all nprobe lists. Where none reaches the target, the
        one that comes nearest: is_reached tells. Without partitions an exact search. Remembered.
        """
        known = self._known.get((target, passes_over))
        if known is None:
            if len(self._known) > 256:
                self._known.clear()
            known = self._known[target, passes_over] = self._chosen(target, passes_over)
        return known

    def _chosen(self, target: float, passes_over: bool) -> Expected:
        lines = [line for line in self._lines() if passes_over or line.rest.stop is None]
        if not lines:
            return Expected(None, target, 1.0, 1.0, 1.0, 0.0)
        found = [line.choose(target) for line in lines]
        for few in lines:
            for many in lines:
                found += _band(few, many, target)
        good = [choice for choice in found if choice.is_reached]
        if good:
            return min(good, key=lambda choice: choice.cost)
        return max(found, key=lambda choice: (choice.recall or 0.0, -choice.cost))

    def _lines(self) -> list[_Line]:
        by_rest: dict[Effort, list[OperatingPoint]] = {}
        for point in self.points:
            if point.effort is not None:
                by_rest.setdefault(replace(point.effort, nprobe=0), []).append(point)
        floor = 0.5 / (self.queries * self.k)
        return [_Line.of(rest, points, floor) for rest, points in by_rest.items()]

    def to_json(self) -> dict[str, Any]:
        """JSON values: k, queries, share, and the points as objects."""
        return {
            "k": self.k,
            "queries": self.queries,
            "share": self.share,
            "points": [_point_to_json(point) for point in self.points],
        }

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Curve:
        """The curve that to_json() wrote. Raises KeyError or TypeError for anything else."""
        points = [_point_of_json(point) for point in given["points"]]
        return cls(given["k"], given["queries"], points, given.get("share", 1.0))


def as_target(target_recall: object) -> float:
    """A recall to aim at: above 0 and at most 1. Errors: InvalidArgument."""
    if isinstance(target_recall, bool) or not isinstance(target_recall, int | float) or not (
        0 < target_recall <= 1
    ):  # fmt: skip
        raise InvalidArgument(
            f"expected target_recall above 0 and at most 1, got {shown(target_recall)}"
        )
    return float(target_recall)


def as_only_target(
    target_recall: object, nprobe: object, rerank: object, exact: object, stop: object = None
) -> float:
    """as_target() where no setting is said beside it. Errors: InvalidArgument."""
    said = {"nprobe": nprobe, "rerank": rerank, "stop": stop, "exact": exact or None}
    for name, value in said.items():
        if value is not None:
            raise InvalidArgument(
                f"expected either target_recall, by which the engine chooses, or {name}; got both"
            )
    return as_target(target_recall)


_NO_EFFORT = dict.fromkeys(field.name for field in fields(Effort))


def _point_to_json(point: OperatingPoint) -> dict[str, Any]:
    """A point as one flat object; what an exact search does not have is null."""
    effort = _NO_EFFORT if point.effort is None else asdict(point.effort)
    return effort | {k: v for k, v in asdict(point).items() if k != "effort"}


def _point_of_json(given: dict[str, Any]) -> OperatingPoint:
    said = dict(given)
    effort = {name: said.pop(name) for name in _NO_EFFORT if name in said}
    is_exact = effort.get("nprobe") is None
    return OperatingPoint(None if is_exact else Effort(**effort), **said)


# ------------------------------------------------------------------ between measured points


@dataclass(frozen=True, slots=True)
class _Line:
    """Settings that differ in nprobe alone, by rising nprobe; recalls made to rise with it.

    y       (m, 3) logs of what is missed, falling, and of the ends of its interval, the greater
            first; at least the log of the floor below which nothing was seen
    slopes  (m, 3) of y over x, the logs of nprobe
    """

    rest: Effort
    nprobes: list[int]
    x: list[float]
    y: np.ndarray
    slopes: np.ndarray
    scanned: list[float]
    floor: float

    @classmethod
    def of(cls, rest: Effort, points: Sequence[OperatingPoint], floor: float) -> _Line:
        ordered = sorted(points, key=lambda point: point.nprobe or 0)
        nprobes = [point.nprobe or 1 for point in ordered]
        drawn = [[getattr(p, end) for p in ordered] for end in ("recall", "low", "high")]
        y = np.log(np.maximum(1 - np.stack([_rising(values) for values in drawn], axis=1), floor))
        x = np.log(nprobes)
        scanned = [point.scanned for point in ordered]
        return cls(rest, nprobes, x.tolist(), y, _slopes(x, y), scanned, floor)

    def choose(self, target: float) -> Expected:
        """The least nprobe expected to reach the target, else the most that was measured."""
        wanted = math.log(max(1 - target, self.floor)) + 1e-9
        low, high = self.nprobes[0], self.nprobes[-1]
        if _surely(self.y[-1]) > wanted:
            return self._at(high, target)
        while low < high:
            middle = (low + high) // 2
            if _surely(self.logs(middle)) <= wanted:
                high = middle
            else:
                low = middle + 1
        return self._at(low, target)

    def _at(self, nprobe: int, target: float) -> Expected:
        effort = replace(self.rest, nprobe=nprobe)
        return self.expected(effort, target, self.logs(nprobe))

    def expected(self, effort: Effort, target: float, logs: np.ndarray) -> Expected:
        """A setting of which the logs (3,) of what is missed are known; see logs()."""
        recall, low, high = np.where(logs <= math.log(self.floor), 1.0, 1 - np.exp(logs)).tolist()
        scanned = float(np.interp(effort.nprobe, self.nprobes, self.scanned))
        cost = scanned + _RERANK_CODES * effort.rerank + _LIST_CODES * effort.nprobe
        return Expected(effort, target, recall, low, high, cost)

    def logs(self, nprobe: int) -> np.ndarray:
        """(3,) logs like a row of y, between its rows by cubics."""
        x, y, slopes = self.x, self.y, self.slopes
        if len(x) == 1:
            first: np.ndarray = y[0]
            return first
        at = math.log(nprobe)
        i = min(max(bisect_left(x, at) - 1, 0), len(x) - 2)
        h = x[i + 1] - x[i]
        t = (at - x[i]) / h
        found: np.ndarray = (
            y[i] * ((1 + 2 * t) * (1 - t) ** 2)
            + y[i + 1] * (t * t * (3 - 2 * t))
            + slopes[i] * (h * t * (1 - t) ** 2)
            + slopes[i + 1] * (h * t * t * (t - 1))
        )
        return found


def _surely(logs: np.ndarray) -> float:
    """The log of what is missed, of _Line.logs(), with the margin."""
    return float(logs[0] + _MARGIN * (logs[1] - logs[0]))


def _band(few: _Line, many: _Line, target: float) -> list[Expected]:
    """Settings with a rerank between those of two lines which reach a target just so.

    None where the lines are no neighbours. The log of what is missed is drawn as a straight line of
    the log of rerank, which asks for a little too many candidates rather than too few.
    """
    a, b = few.rest.rerank, many.rest.rerank
    if not (a < b <= _NEIGHBOURS * a and few.rest == replace(many.rest, rerank=a)):
        return []
    wanted = math.log(max(1 - target, many.floor)) + 1e-9
    least, most = many.choose(target), few.choose(target)
    if least.effort is None or most.effort is None or not least.is_reached:
        return []
    first = max(least.effort.nprobe, few.nprobes[0])
    last = min(most.effort.nprobe, many.nprobes[-1])
    found = []
    for nprobe in np.unique(np.geomspace(first, max(first, last), _TRIED).round().astype(int)):
        more, less = few.logs(int(nprobe)), many.logs(int(nprobe))
        above, below = _surely(more), _surely(less)
        if first > last or above <= wanted or below > wanted:
            continue
        rerank = math.ceil(a * (b / a) ** ((above - wanted) / (above - below)) - 1e-6)
        logs = more + math.log(rerank / a) / math.log(b / a) * (less - more)
        effort = replace(few.rest, nprobe=int(nprobe), rerank=rerank)
        found.append(few.expected(effort, target, logs))
    return found


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes (m, c) at points (m,) and (m, c) for cubics that rise or fall only where y does.

    At the points weighted harmonic means of those beside them, 0 at a turn (Fritsch and Butland,
    1984): so no target is missed by a swing, and twice the nprobe from point to point errs by less
    than 0.004 of recall, where straight lines err by 0.015 (benchmarks/LOG.md).
    """
    if len(x) == 1:
        return np.zeros_like(y)
    widths = np.diff(x)[:, None]
    steps = np.diff(y, axis=0) / widths
    before, after = steps[:-1], steps[1:]
    a, b = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    is_turn = before * after <= 0
    means = (a + b) / (a / np.where(is_turn, 1, before) + b / np.where(is_turn, 1, after))
    return np.concatenate([steps[:1], np.where(is_turn, 0, means), steps[-1:]])


def _rising(values: Sequence[float]) -> np.ndarray:
    """The closest values, by squares, that never fall: pool adjacent violators."""
    pools: list[list[float]] = []  # sum and count of each pool
    for value in values:
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1][0] += last[0]
            pools[-1][1] += last[1]
    return np.concatenate([np.full(int(count), total / count) for total, count in pools])


# ------------------------------------------------------------------ all that was measured


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one index, and the setting of any k, share and target by them.

    n, live  rows that the index held at the measuring, and those of them that were live
    curves   one a k without a filter, and one a share of matches for one of these k
    """

    n: int
    live: int
    curves: list[Curve]
    _known: dict[tuple[int, float, float], Expected] = field(
        default_factory=dict, compare=False, repr=False
    )

    def choose(self, k: int, target: float, share: float = 1.0) -> Expected:
        """The setting for k results at a target, under a filter that lets `share` through.

        Between the k that were measured, and between shares, the logs of the settings are drawn
        as straight lines; beyond the largest k the last one goes on, and then no recall is
        promised in figures. A target of 1, and one that no setting reaches, is an exact search's.
        Remembered, so a second call costs a look-up.
        """
        if target >= 1:
            return Expected(None, target, 1.0, 1.0, 1.0, float(self.live))
        share = float(f"{share:.2g}")
        known = self._known.get((k, target, share))
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            known = self._known[k, target, share] = self._chosen(k, target, share)
        return known

    def _chosen(self, k: int, target: float, share: float) -> Expected:
        plain, banded = self._plain(), [curve for curve in self.curves if curve.share < 1]
        if share >= 1 or not banded:
            found = {float(n): c.choose(target) for n, c in plain.items()}
            if len({bool(e.effort and e.effort.stop) for e in found.values()}) > 1:
                return self._steady(k, target) if k not in plain else found[float(k)]
            return _between(found, float(k))
        own = banded[0].k
        bands = {curve.share: curve.choose(target) for curve in banded}
        bands[1.0] = plain[own].choose(target, passes_over=False)
        chosen = _between(bands, share)
        if share < min(bands):
            chosen = _widened(chosen, bands[min(bands)], min(bands) / share)
        return self._for_k(chosen, own, k, target)

    def under(self, curve: Curve, k: int, target: float) -> Expected:
        """Like choose(), under a filter that has a curve of its own."""
        if target >= 1:
            return Expected(None, target, 1.0, 1.0, 1.0, float(self.live))
        return self._for_k(curve.choose(target), curve.k, k, target)

    def _plain(self) -> dict[int, Curve]:
        return {curve.k: curve for curve in self.curves if curve.share == 1}

    def _steady(self, k: int, target: float) -> Expected:
        """The setting for k results that visits all of its lists: what such settings scale by."""
        plain = self._plain().items()
        return _between({float(n): c.choose(target, passes_over=False) for n, c in plain}, float(k))

    def _for_k(self, found: Expected, own: int, k: int, target: float) -> Expected:
        """A setting measured for `own` results under a filter, for k of them.

        It takes as much more, or less, as it takes without the filter.
        """
        if k == own or found.effort is None:
            return found
        here, there = self._steady(k, target), self._steady(own, target)
        if here.effort is None or there.effort is None:
            return found
        scaled = _scaled(found.effort, here.effort, there.effort)
        cost = found.cost * here.cost / max(there.cost, 1.0)
        recall = None if here.recall is None else found.recall
        return replace(found, effort=scaled, cost=cost, recall=recall)

    def to_json(self) -> dict[str, Any]:
        """JSON values; see of_json()."""
        return {
            "n": self.n,
            "live": self.live,
            "curves": [curve.to_json() for curve in self.curves],
        }

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Curves:
        """The curves that to_json() wrote. Raises KeyError, TypeError or ValueError for others."""
        curves = [Curve.of_json(curve) for curve in given["curves"]]
        if not any(curve.share == 1 and curve.points for curve in curves):
            raise ValueError("expected a curve without a filter")
        return cls(int(given["n"]), int(given["live"]), curves)


def _between(measured: dict[float, Expected], at: float) -> Expected:
    """A setting between those measured at two places of an axis, by the logs of all."""
    places = sorted(measured)
    if at in measured:
        return measured[at]
    if len(places) == 1:
        return measured[places[0]]
    i = min(max(int(np.searchsorted(places, at)), 1), len(places) - 1)
    low, high = measured[places[i - 1]], measured[places[i]]
    if low.effort is None or high.effort is None:
        return high
    share = math.log(at / places[i - 1]) / math.log(places[i] / places[i - 1])
    a, b = asdict(low.effort), asdict(high.effort)
    effort = Effort(**{name: _power(a[name], b[name], share) for name in a})
    cost = math.exp(math.log(low.cost) + share * (math.log(high.cost) - math.log(low.cost)))
    if share > 1:  # of candidates as many a result as for the most that were measured
        rerank = math.ceil(high.effort.rerank * at / places[-1])
        return Expected(replace(effort, rerank=rerank), low.target, None, None, None, cost)
    if share < 0:
        return Expected(effort, low.target, None, None, None, cost)
    nearer = low if share < 0.5 else high
    recall = min(low.recall or 0.0, high.recall or 0.0)
    return replace(nearer, effort=effort, recall=recall, cost=cost)


def _widened(found: Expected, last: Expected, fewer: float) -> Expected:
    """What a line foretells for so many times fewer matches than the last that were measured.

    The line may fall, where among all points the candidates were too few and not the lists; but
    fewer matches are never found in fewer lists.
    """
    if found.effort is None or last.effort is None:
        return found
    nprobe = max(found.effort.nprobe, math.ceil(last.effort.nprobe * fewer**WIDENING))
    effort = Effort(nprobe, max(found.effort.rerank, last.effort.rerank), last.effort.stop)
    return replace(found, effort=effort, cost=max(found.cost, last.cost))


def _power(a: Any, b: Any, share: float) -> Any:
    """Between two values of a knob: counts as their logs go, margins as they are."""
    if a is None or b is None:
        return None
    if not isinstance(a, int):
        return a + share * (b - a)
    found = math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
    return max(1, math.ceil(found - 1e-6))


def _scaled(effort: Effort, more: Effort, less: Effort) -> Effort:
    """An effort times what one effort is over another, knob by knob."""
    a, b, c = asdict(effort), asdict(more), asdict(less)
    return Effort(
        **{
            name: max(1, math.ceil(value * b[name] / c[name] - 1e-6))
            if isinstance(value, int)
            else value
            for name, value in a.items()
        }
    )
