"""The exam of an index: its own points as questions, and the recall of settings on them.

    live.py, ivf.py, tuning.py -> [exam.py] -> curve.py, heldout.py

Questions are stored points, moved a little, and each is denied its own point: so they lie where
queries are likely to lie, and none finds itself. They are among those that training held out
(heldout.py). What they should find is what an exact search
finds. Recall is judged by scores, so that a point as close as the k-th one counts.

Lists and candidates are swept together, no wider than promises are asked for: from a recall of
about 0.75 on, until more lists find nothing more. All settings answer the same few questions, which
is enough to tell them apart. How high recall is takes many questions, but they may be asked of few
settings: of those that would be chosen for 0.8, 0.85, 0.9, 0.95 and 0.99. What these turn out to
have moves the whole curve, since an easy draw of questions was easy for every setting.

Filters are stood for by nested random draws of the points. Nothing hangs on a clock: the same index
has the same curves.

Recall's 95 % interval is Wilson's; hits of one query tend to be missed together, so as many
independent trials are assumed as the spread between queries tells, and no fewer than queries.

Nothing here knows of ids, files or locks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from soardb.curve import QUERIES, Curve, Curves, Effort, OperatingPoint
from soardb.index.heldout import held_out
from soardb.kernels.layout import F32, FIRST_LOOK, I64, U8, Metric

__all__ = [
    "JITTER",
    "LEAST",
    "Exam",
    "Examined",
    "interval",
    "jittered",
    "measure",
    "measure_filter",
    "moved",
]

Report = Callable[[str, float], None]

JITTER = 0.1
"""How far questions are moved, of the spread of the points in each dimension."""

LEAST = 100
"""Rows below which nothing is measured: the questions would be too few to promise anything."""

_Z = 1.96  # standard deviations that 95 % of a normal distribution lie within
_K = 10  # results that most searches ask for, and that shares of matches are measured with
_KS = {1: (1.0, 400), 10: (1.0, 600), 100: (0.5, 200)}  # k -> share of the questions; the few
_BAND, _NARROW = (0.7, 300), (0.7, 200)  # likewise, for each share of matches; for one below 0.05
_SURER = ((0.97, 0.5), (0.92, 0.7))  # above a recall, which then varies less, so many of the few
_LEVELS = ((0.8, 1.0), (0.85, 0.8), (0.9, 0.6), (0.95, 0.4), (0.99, 0.25))  # and of all of them
_ROUNDS = 3  # of asking for the levels
_NEAR, _LIKE = 0.01, 1.1  # of recall, and of numbers: too little to ask again
_STOPS = (2.4, 2.8, 3.2)  # standard deviations; see kernels.layout.SearchPlan
# Parts of the usual rerank, each up to a recall above which so few candidates do not pay.
_FEWER = ((0.5, 0.995), (0.25, 0.985), (0.125, 0.93), (0.06, 0.9))
_MORE = (2.0, 4.0, 8.0, 16.0)  # times the usual rerank, as long as that finds more
_MOST, _TRIED = 4_000, 5  # candidates; nprobes to begin with
_FEWEST = 250  # questions of a small index, which are drawn of all of its points
_DRAWN = 16_384  # points that are looked at together
_BATCH = 250  # queries between two reports
_LOWEST, _HIGHEST = 0.78, 0.995  # recalls beyond which no more settings are measured
_STEP = 2.0  # from one nprobe to the next
_DEEP, _NEARLY = 0.93, 0.03  # recall from which more candidates may pay; or so near the best
_LOWER = 8  # the first nprobe is so much less than the usual one
_STEEP, _SURE, _NO_MISS = 3.0, 0.985, 0.004  # misses fall so many times from point to point
_GAIN, _GAIN_BELOW = 5e-4, 5e-3  # recall below which a step is not worth its cost; below _LOWEST
_FAR = 0.2  # recall below which a step says nothing yet


class Examined(Protocol):
    """What is measured. Rows are numbers; a search never returns a row that is struck."""

    @property
    def nlist(self) -> int:
        """Partitions, at least one."""

    def usual(self, k: int) -> Effort:
        """The setting for k results when nothing is known of recall."""

    def drawn(self, rows: I64) -> F32:
        """(m, d) vectors of rows."""

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        """Scores and rows (nq, k) of an exact search among some live rows; None: all of them."""

    def search(
        self, queries: F32, k: int, effort: Effort, allowed: U8 | None
    ) -> tuple[F32, I64, int]:
        """Scores and rows (nq, k), and codes looked at; allowed: a bitmap of live rows, or all."""


@dataclass(slots=True)
class Exam:
    """Questions (nq, d), the row that each was drawn from, and its k-th true score.

    own     -1 for questions of callers; either all were drawn or none
    few     so many of the questions are asked of every setting of a sweep
    is_far  what is sought may stand in far lists: recall may rise late, after many steps of none
    """

    index: Examined
    k: int
    queries: F32
    own: I64
    last: F32
    allowed: U8 | None = None
    share: float = 1.0
    few: int = 600
    is_far: bool = False
    report: Report = lambda stage, share: None

    def point(self, effort: Effort | None, nq: int | None = None) -> OperatingPoint:
        """Ask the first nq questions, or all, with one setting, on one thread; None: exactly."""
        nq = len(self.own) if nq is None else nq
        scores = np.full((nq, self.k + 1), -np.inf, np.float32)
        rows = np.full((nq, self.k + 1), -1, np.int64)
        seconds, scanned = [], 0
        for some in self._batches(nq):
            self.report("curve", 0.0)
            # A question's own point takes a result and a candidate that a query has for another.
            spare = int(self._finds_itself(some[:1])[0])
            k = self.k + spare
            started = time.perf_counter()
            if effort is None:
                part = (*self.index.exact(self.queries[some], k, None), 0)
            else:
                asked = replace(effort, rerank=effort.rerank + spare)
                part = self.index.search(self.queries[some], k, asked, self.allowed)
            seconds.append((time.perf_counter() - started) / len(some))
            found = part[0].shape[1]
            scores[some, :found], rows[some, :found] = part[0], part[1]
            scanned += part[2]
        recalls = recall_of(scores, rows, self.own[:nq], self.last[:nq], self.k)
        # An exact search is what the others are measured by.
        low, high = (1.0, 1.0) if effort is None else interval(recalls, self.k)
        latency = float(np.median(seconds)) * 1e6
        return OperatingPoint(effort, float(recalls.mean()), low, high, latency, scanned / nq)

    def _finds_itself(self, some: I64) -> np.ndarray:
        """(m,) bool: questions whose own point may be found."""
        own = self.own[some]
        if self.allowed is None:
            is_drawn: np.ndarray = own >= 0
            return is_drawn
        bits = self.allowed[own >> 3] >> (own & 7).astype(np.uint8) & 1
        is_found: np.ndarray = (own >= 0) & (bits == 1)
        return is_found

    def _batches(self, nq: int) -> Iterator[I64]:
        """The first nq questions, those that find themselves apart from the others."""
        is_found = self._finds_itself(np.arange(nq))
        for group in (np.flatnonzero(is_found), np.flatnonzero(~is_found)):
            for first in range(0, len(group), _BATCH):
                yield group[first : first + _BATCH]

    def _rough(self, effort: Effort, expected: float = 0.0) -> OperatingPoint:
        """point() of a few questions; expected: about what recall it has."""
        share = next((part for above, part in _SURER if expected >= above), 1.0)
        return self.point(effort, max(1, round(share * min(self.few, len(self.own)))))

    def sweep(self) -> Curve:
        """The curve: lists by steps, candidates by parts and some multiples of the usual ones."""
        return self._levelled(Curve(self.k, len(self.own), self._swept(), self.share))

    def _swept(self) -> list[OperatingPoint]:
        """Every setting, of a few questions."""
        usual = self.index.usual(self.k)
        ladder = nprobes(self.index.nlist, _STEP)
        start = int(np.searchsorted(ladder, max(1, usual.nprobe // _LOWER)))
        line = dict(self._up(ladder, start, usual))
        for i in range(start - 1, -1, -1):
            if line[i + 1].recall <= _LOWEST:
                break
            line[i] = self._rough(replace(usual, nprobe=ladder[i]))
        points = self._refined([line[i] for i in sorted(line)])
        points += self._passing_over(ladder, line)
        return points + self._with_fewer(ladder, line) + self._with_more(ladder, line)

    def _with_fewer(
        self, ladder: list[int], line: dict[int, OperatingPoint]
    ) -> list[OperatingPoint]:
        """Settings of a line with fewer candidates, until recall is less than is asked for."""
        points: list[OperatingPoint] = []
        usual, above = self.index.usual(self.k), line
        known_rerank = usual.rerank
        for depth, most in _FEWER:
            other = replace(usual, rerank=max(self.k, math.ceil(depth * usual.rerank)))
            if other.rerank == known_rerank:
                break
            known_rerank = other.rerank
            some = [i for i, known in above.items() if _LOWEST < known.recall < most]
            worth = [i for i in above if some and min(some) - 1 <= i <= max(some)]
            above = {
                i: self._rough(replace(other, nprobe=ladder[i]), above[i].recall - 0.01)
                for i in sorted(worth)
            }
            points += above.values()
        return points

    def _with_more(
        self, ladder: list[int], line: dict[int, OperatingPoint]
    ) -> list[OperatingPoint]:
        """Settings of a line with more candidates, as long as these find more."""
        points: list[OperatingPoint] = []
        usual, best = self.index.usual(self.k), line[max(line)].recall
        least = min(_DEEP, best - _NEARLY)
        worth = sorted(i for i, known in line.items() if known.recall >= least)[:_TRIED]
        before = line[worth[-1]].recall
        for depth in _MORE:
            other = replace(usual, rerank=math.ceil(depth * usual.rerank))
            if other.rerank > _MOST or (before > _HIGHEST and depth > _MORE[0]):
                break
            last = self._rough(replace(other, nprobe=ladder[worth[-1]]), before)
            if last.recall - before < _GAIN:
                break
            before = last.recall
            some = [
                self._rough(replace(other, nprobe=ladder[i]), line[i].recall) for i in worth[:-1]
            ]
            points += self._refined([*some, last])
            if last.recall < _HIGHEST and worth[-1] + 1 < len(ladder):
                points += [p for _, p in self._up(ladder, worth[-1] + 1, other)]
        return points

    def _levelled(self, curve: Curve) -> Curve:
        """A curve of few questions, moved to the recalls that its own choices have of many.

        Choices that turned out to have another recall than they were chosen for are made again.
        """
        known: dict[Effort, OperatingPoint] = {}
        for _ in range(_ROUNDS):
            told_and_found = []
            for target, share in _LEVELS:
                told = curve.choose(target)
                if told.effort is None or told.recall is None:
                    continue
                near = known.get(told.effort) or next(
                    (
                        point
                        for effort, point in known.items()
                        if _is_like(effort, told.effort) and abs(point.recall - target) < _NEAR
                    ),
                    None,
                )
                if near is None:
                    part = share if told.is_reached else _LEVELS[-1][1]
                    near = self.point(told.effort, max(1, round(part * len(self.own))))
                    known[told.effort] = near
                    told_and_found.append((told.recall, near))
                else:
                    told_and_found.append((near.recall, near))
            others = [point for point in curve.points if point.effort not in known]
            least = 0.5 / (len(self.own) * self.k)
            points = moved(others, told_and_found, least) + list(known.values())
            curve = replace(curve, points=points)
        return curve

    def _passing_over(
        self, ladder: list[int], line: dict[int, OperatingPoint]
    ) -> list[OperatingPoint]:
        """Settings that pass lists over, where those that visit them all have a recall in use.

        Each stands for more lists than are visited, so it starts where the others end, and the
        first lists are never passed over. Filters, whose matches may stand in lists far from the
        query, are not asked this way.
        """
        points: list[OperatingPoint] = []
        worth = [i for i, known in line.items() if known.recall > _LOWEST]
        if self.share < 1 or not worth or self.index.nlist <= FIRST_LOOK:
            return points
        start = max(min(worth) - 1, int(np.searchsorted(ladder, FIRST_LOOK, "right")))
        for stop in _STOPS:
            for depth in (0.5, 1.0, 2.0):
                effort = self.index.usual(self.k)
                effort = replace(
                    effort, stop=stop, rerank=max(self.k, math.ceil(depth * effort.rerank))
                )
                line_up = self._up(ladder, start, effort)
                points += self._refined([point for _, point in line_up])
        return points

    def _refined(self, points: list[OperatingPoint]) -> list[OperatingPoint]:
        """Points of a line by rising nprobe, with more of them where recall rises steeply.

        So it does under filters whose matches stand in lists that are far from most queries: from
        0.8 to 1 within half as many lists again.
        """
        points, i = list(points), 0
        while i + 1 < len(points):
            low, high = points[i], points[i + 1]
            assert low.effort is not None
            assert high.effort is not None
            a, b = low.effort.nprobe, high.effort.nprobe
            drop = (1 - low.recall) / max(1 - high.recall, _NO_MISS)
            is_in_use = high.recall > _LOWEST and low.recall < _SURE
            if drop > _STEEP and is_in_use and b > 1.15 * a + 1:
                effort = replace(low.effort, nprobe=round(math.sqrt(a * b)))
                points.insert(i + 1, self._rough(effort, low.recall))
            else:
                i += 1
        return points

    def _up(
        self, ladder: list[int], start: int, effort: Effort
    ) -> Iterator[tuple[int, OperatingPoint]]:
        """Points by rising nprobe, until recall is high or more lists hardly help."""
        before = 0.0
        for i in range(start, len(ladder)):
            point = self._rough(replace(effort, nprobe=ladder[i]), before)
            yield i, point
            least = _GAIN if point.recall > _LOWEST else _GAIN_BELOW
            may_end = point.recall > (_LOWEST if self.is_far else _FAR)
            is_flat = may_end and point.recall - before < least
            if point.recall >= _HIGHEST or is_flat:
                break
            before = point.recall


def measure(
    index: Examined,
    rows: I64,
    metric: Metric,
    *,
    n: int | None = None,
    asked: F32 | None = None,
    ks: Sequence[int] = (),
    shares: Sequence[float] = (),
    queries: int = QUERIES,
    seed: int = 0,
    report: Report = lambda stage, share: None,
) -> Curves:
    """Every curve of an index with these live rows, of n in all; LEAST or more.

    asked   (m, d) queries in the place of points; None: points are drawn
    ks      results asked for that are measured besides 1, 10 and 100
    shares  of matches that are measured besides 1
    Costs `queries` exact searches and about forty times as many by lists.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(rows)
    if asked is None:
        own = questions(index, drawn[::-1], queries)
        asked = jittered(index.drawn(own), metric, rng)
    else:
        asked = asked[:queries]
        own = np.full(len(asked), -1, np.int64)  # of no point
    report("truth", 0.0)
    wanted = sorted(k for k in {*_KS, *ks} if k < len(rows))
    scores, found = _exact(index, asked, wanted[-1] + 1, None, report)
    parts = [(k, 1.0) for k in wanted] + [(_K, share) for share in shares]
    curves = []
    for i, (k, share) in enumerate(parts):
        part, few = _KS.get(k, _KS[_K]) if share == 1 else _BAND if share > 0.05 else _NARROW
        nq = max(1, round(part * len(own)))
        bits = None
        true = scores[:nq], found[:nq]
        if share < 1:
            some = np.sort(drawn[: round(share * len(rows))])
            bits = _bitmap(some, len(rows) if n is None else n)
            true = _exact(index, asked[:nq], k + 1, some, report)
        last = last_scores(*true, own[:nq], k)

        def told(stage: str, _: float, done: int = i) -> None:
            report(stage, done / len(parts))

        exam = Exam(index, k, asked[:nq], own[:nq], last, bits, share, few, False, told)
        curves.append(exam.sweep())
    return Curves(len(rows) if n is None else n, len(rows), curves)


def measure_filter(
    index: Examined,
    rows: I64,
    matching: I64,
    metric: Metric,
    *,
    n: int,
    queries: int = QUERIES,
    seed: int = 0,
    report: Report = lambda stage, share: None,
) -> Curve:
    """The curve of the k that most ask for under one filter, whose matching rows are given."""
    rng = np.random.default_rng(seed)
    own = questions(index, rng.permutation(rows), queries)
    asked = jittered(index.drawn(own), metric, rng)
    last = last_scores(*_exact(index, asked, _K + 1, matching, report), own, _K)
    share = len(matching) / len(rows)
    exam = Exam(index, _K, asked, own, last, _bitmap(matching, n), share, _BAND[1], True, report)
    return exam.sweep()


def questions(index: Examined, drawn: I64, wanted: int) -> I64:
    """The first rows, of all in a random order, that training did not learn from.

    Any, where an eighth of a small index would be too few questions.
    """
    found: list[I64] = []
    for first in range(0, len(drawn), _DRAWN):
        part = drawn[first : first + _DRAWN]
        found.append(part[held_out(index.drawn(part))])
        if sum(map(len, found)) >= wanted:
            break
    own = np.concatenate(found)[:wanted]
    return own if len(own) >= min(_FEWEST, wanted) else drawn[: min(wanted, _FEWEST)]


def _bitmap(rows: I64, n: int) -> U8:
    """(ceil(n / 8),) uint8 of some of n rows, least bit first."""
    mask = np.zeros(n, bool)
    mask[rows] = True
    return np.packbits(mask, bitorder="little")


def _exact(
    index: Examined, queries: F32, k: int, rows: I64 | None, report: Report
) -> tuple[F32, I64]:
    done = []
    for first in range(0, len(queries), 2 * _BATCH):
        report("truth", first / len(queries))
        done.append(index.exact(queries[first : first + 2 * _BATCH], k, rows))
    return np.concatenate([part[0] for part in done]), np.concatenate([part[1] for part in done])


def jittered(vectors: F32, metric: Metric, rng: np.random.Generator) -> F32:
    """Vectors (nq, d) moved a little, as questions."""
    if metric == "cosine":  # the spread is one of directions
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    spread = vectors.std(axis=0) if len(vectors) > 1 else np.abs(vectors[0])
    moved = vectors + JITTER * spread * rng.standard_normal(vectors.shape)
    return np.ascontiguousarray(moved, np.float32)


def last_scores(scores: F32, rows: I64, own: I64, k: int) -> F32:
    """The k-th score of each row of (nq, >k) results, its own row left out; -inf where none."""
    out = np.full(len(own), -np.inf, np.float32)
    for i, mine in enumerate(own.tolist()):
        others = scores[i][(rows[i] != mine) & (rows[i] >= 0)]
        if len(others) >= k:
            out[i] = others[k - 1]
    return out


def recall_of(scores: F32, rows: I64, own: I64, last: F32, k: int) -> np.ndarray:
    """(nq,) recall@k of (nq, k + 1) results, of which each row's own one does not count."""
    is_other = (rows != own[:, None]) & (rows >= 0)
    is_kept = is_other & (np.cumsum(is_other, axis=1) <= k)
    is_good = scores >= (last - 1e-6 * np.abs(last))[:, None]
    found: np.ndarray = np.count_nonzero(is_kept & is_good, axis=1) / k
    return found


def _is_like(a: Effort, b: Effort) -> bool:
    """Whether two settings are so near to each other that one need not be asked after the other."""
    ratios = (a.nprobe / b.nprobe, a.rerank / b.rerank)
    return a.stop == b.stop and all(1 / _LIKE < ratio < _LIKE for ratio in ratios)


def moved(
    points: Sequence[OperatingPoint],
    told_and_found: Sequence[tuple[float, OperatingPoint]],
    least: float,
) -> list[OperatingPoint]:
    """Points whose recalls change as those of some settings did.

    What is missed changes by a factor, which is drawn between these settings as a straight line of
    logs, and stays the same beyond them; so does the width of the intervals. Less than `least` is
    not told from nothing.
    """
    if not told_and_found:
        return list(points)

    def logs(*recalls: float) -> np.ndarray:
        found: np.ndarray = np.log(np.maximum(1 - np.array(recalls), least))
        return found

    rows = {}  # by what was told: logs of what was found to be missed, and of the interval's ends
    for told, found in told_and_found:
        rows[float(logs(told)[0])] = logs(found.recall, found.low, found.high)
    at = np.array(sorted(rows))
    factors = np.stack([rows[x] - x for x in at])

    def one(point: OperatingPoint) -> OperatingPoint:
        missed = logs(point.recall)[0]
        drawn = [missed + np.interp(missed, at, factors[:, j]) for j in range(3)]
        recall, low, high = (1 - np.minimum(1.0, np.exp(drawn))).tolist()
        return replace(point, recall=recall, low=low, high=high)

    return [one(point) for point in points]


def nprobes(nlist: int, step: float) -> list[int]:
    """1, about step times as many each time, and nlist."""
    found = [1]
    while found[-1] < nlist:
        found.append(min(nlist, max(found[-1] + 1, round(found[-1] * step))))
    return found


def interval(recalls: np.ndarray, k: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the mean of (nq,) recalls@k; see above for the trials assumed."""
    nq, mean = len(recalls), float(recalls.mean())
    variance = float(recalls.var(ddof=1)) / nq if nq > 1 else 0.0
    trials = nq if variance == 0 else min(max(mean * (1 - mean) / variance, nq), nq * k)
    centre = mean + _Z**2 / (2 * trials)
    half = _Z * math.sqrt(mean * (1 - mean) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)
