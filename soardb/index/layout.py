"""The layout of an index, chosen by measuring on a sample: lists, codes, AVQ and spilling.

    ivf.py, compaction.py, soardb.choose_layout -> [layout.py] -> exam.py, live.py, work.py, plan.py

plan.choose_build() knows n, d and the metric, not the data. Here small indexes are built over a
sample and each is asked held-out points, moved a little, for what it has to look at to reach the
recall that is asked for. From the formulas' choice one option is changed at a time, to the values
beside it, as long as that makes searches cheaper (coordinate descent). The winner is then compared
with the formulas' choice on questions that had no part in choosing it, and loses a tie.

From the sample to n: a number of lists stands for its ratio to sqrt(n), so lists and their lengths
grow by sqrt(n / sample); nprobe and candidates stay as they are. That holds where data look alike
at every scale, and it is checked: a quarter of the sample must miss as much as the sample does with
the same nprobe. Clusters smaller than the sample can show fail it; then nothing is chosen.

Cost is counted work (work.py) and no clock is read, so a seed gives the same layout on every
machine whose kernels agree.

Held-out questions have not pulled any centroid towards themselves: small lists do not flatter.
Nothing here knows of ids or files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_dim, as_int, as_vectors
from soardb.clustering import Progress
from soardb.curve import DEFAULT_TARGET, Curve, Effort, OperatingPoint, as_target
from soardb.errors import InvalidArgument
from soardb.index.exam import Exam, jittered, last_scores
from soardb.index.live import LiveIndex
from soardb.index.model import Model, store_stride
from soardb.index.plan import (
    BuildOptions,
    BuildParams,
    Choice,
    choose_build,
    choose_search,
    default_rerank,
)
from soardb.index.work import work_of
from soardb.kernels.layout import F32, I64, U8, Metric
from soardb.metrics import as_metric
from soardb.quantization.product import block_count

__all__ = [
    "QUESTIONS",
    "SAMPLE",
    "Layout",
    "Tried",
    "choice_for",
    "choose_layout",
    "measure_layout",
    "wanted_for",
]

_log = logging.getLogger("soardb")

SAMPLE = 50_000
"""Points of the sample, unless told."""

QUESTIONS = 1_000
"""Held-out questions that choose, and as many again that confirm."""

_MOST_NUMBERS = 2**26  # of a sample: 256 MiB
_LEAST_POINTS = 1_000  # of a sample, below which its lists say nothing of others
_FACTORS = tuple(2 ** (i / 2) for i in range(-4, 5))  # numbers of lists, by the formula's
_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)  # dimensions a code
_ETAS = (0.0, 1.5, 2.5, 4.0)
_LAMBDAS = (0.0, 1.0, 1.5, 2.0)
_LEAST_QUESTIONS = 250  # of a small set
_ROUNDS = 3  # over all options, at most
_GAIN = 0.02  # of the cost, below which a step is not taken, nor a winner confirmed
_NEARER = 0.003  # of recall, likewise where no layout reaches the target
_EASY = 0.9  # recall at which scales are compared
_STEADY = 1.4  # times as many misses with a quarter of the points, at most, and as many fewer
_BATCH = 8_192


@dataclass(frozen=True, slots=True)
class Tried:
    """One layout, and what the target took on the sample.

    choice   its options for n vectors
    effort   the cheapest setting that reaches the target, or where none does the one nearest to it
    recall   that is expected of it
    scanned  codes that a query looks at, foreseen for n vectors
    cost_us  counted time of a query on one core, foreseen for n vectors
    bytes    of codes, row numbers and 8-bit rows a vector
    """

    choice: Choice
    effort: Effort
    recall: float
    is_reached: bool
    scanned: float
    cost_us: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout that was chosen, and all that were tried.

    choice     what was chosen for n vectors; nlist 0 is exact search
    tried      in the order of trying, the formulas' choice first; empty where nothing was measured
    confirmed  the formulas' choice and the winner, asked the other half of the questions; empty
               where the formulas' choice won
    reason     in words
    """

    n: int
    d: int
    metric: Metric
    k: int
    target_recall: float
    sample: int
    questions: int
    choice: Choice
    tried: list[Tried]
    confirmed: list[Tried]
    reason: str

    @property
    def options(self) -> BuildOptions:
        """Keyword arguments of SoarIndex, and the `index` of a collection."""
        chosen: BuildOptions = {
            "nlist": self.choice.nlist,
            "soar_lambda": self.choice.soar_lambda,
            "dims_per_block": self.choice.dims_per_block,
            "avq_eta": self.choice.avq_eta,
            "ncell": self.choice.ncell,
        }
        return chosen

    def to_json(self) -> dict[str, Any]:
        """JSON values of all fields."""
        return asdict(self)


def choose_layout(
    vectors: npt.ArrayLike,
    metric: str = "cosine",
    *,
    n: int | None = None,
    k: int = 10,
    target_recall: float = DEFAULT_TARGET,
    sample: int = SAMPLE,
    questions: int = QUESTIONS,
    progress: Progress | None = None,
    **options: Unpack[BuildOptions],
) -> Layout:
    """Choose nlist, dims_per_block, avq_eta and soar_lambda for (n, d) vectors by measuring.

        layout = soardb.choose_layout(vectors, "cosine", target_recall=0.95)
        index = soardb.SoarIndex(d, "cosine", **layout.options)

    vectors   (m, d); of a memory-mapped array only the rows of the sample are read
    n         vectors that the index will hold; None: as many as are given
    k         neighbours that a query asks for
    sample    points that candidates are built of; fewer where there are fewer
    options   of SoarIndex: what is given stays fixed, `seed` decides every draw

    Builds 10 to 25 indexes of the sample and asks each some 70 settings: half a minute of one core
    for 100 dimensions, two for 384. Where the formulas keep the index exact nothing is measured,
    and `reason` says so. Errors: InvalidArgument.
    """
    known = as_metric(metric)
    params = BuildParams.of(dict(options), known)
    given = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if given.ndim != 2:
        raise InvalidArgument(f"expected vectors of shape (n, d), got {given.shape}")
    as_dim(given.shape[1])
    if not len(given):
        raise InvalidArgument("expected vectors to measure, got none")
    return measure_layout(
        given,
        known,
        params,
        n=len(given) if n is None else as_int(n, "n", len(given), 2**40, "leave it out"),
        k=as_int(k, "k", 1, 1000),
        target_recall=as_target(target_recall),
        sample=as_int(sample, "sample", _LEAST_POINTS, 2**31),
        questions=as_int(questions, "questions", 100, 100_000),
        progress=progress,
    )


def measure_layout(
    vectors: np.ndarray,
    metric: Metric,
    params: BuildParams,
    *,
    n: int,
    k: int = 10,
    target_recall: float = DEFAULT_TARGET,
    sample: int = SAMPLE,
    questions: int = QUESTIONS,
    progress: Progress | None = None,
) -> Layout:
    """choose_layout() with checked arguments; of the vectors, those that are drawn are checked."""
    d = vectors.shape[1]
    start = choose_build(params, n, d, metric)
    made = Layout(n, d, metric, k, target_recall, 0, 0, start, [], [], "")
    if start.nlist == 0:
        why = "few vectors: a search scores every one"
        return replace(made, reason="nlist 0 was asked for" if params.nlist == 0 else why)
    drawn = _Drawn.of(vectors, metric, params.seed, min(sample, _MOST_NUMBERS // d), questions)
    if len(drawn.points) < max(_LEAST_POINTS, k + 1):
        why = f"too few vectors to measure beside the questions, {len(drawn.points):,}"
        return replace(made, reason=f"{why}: the formulas' choice stays")
    trials = _Trials(drawn, metric, params, n, k, target_recall, progress)
    made = replace(made, sample=len(drawn.points), questions=len(drawn.asked[0]))
    if n > 2 * len(drawn.points):
        why = _unlike(drawn, metric, params, n, k, start, progress)
        if why:
            return replace(made, tried=[trials.of(start)], reason=why)
    trials.of(start)
    best = trials.descend(start)
    made = replace(made, tried=list(trials.tried.values()))
    if best == start:
        why = "no other layout that was tried is cheaper than the formulas' choice"
        if not made.tried[0].is_reached:
            why = f"no layout reaches {target_recall:g} on the sample: the formulas' choice stays"
        return replace(made, reason=why)
    before, after = trials.confirmed(start), trials.confirmed(best)
    made = replace(made, confirmed=[before, after])
    if not _is_better(after, before):
        why = "the winner was no better on other questions: the formulas' choice stays"
        return replace(made, reason=why)
    why = "nearer to the target than the formulas' choice, on questions that chose nothing"
    if before.is_reached:
        saved = 1 - after.cost_us / before.cost_us
        why = f"{saved:.0%} less work than the formulas' choice, on questions that chose nothing"
    return replace(made, choice=best, reason=why)


def choice_for(
    vectors: np.ndarray,
    metric: Metric,
    params: BuildParams,
    n: int,
    progress: Progress | None = None,
) -> Choice:
    """The choice of a build of n vectors: the formulas', or measured where params ask for it.

    vectors (m, d): those of the build, or a sample of them. Errors: InvalidArgument.
    """
    if params.layout == "formula":
        return choose_build(params, n, vectors.shape[1], metric)
    made = measure_layout(vectors, metric, params, n=n, progress=progress)
    _log.info("layout of %d vectors: %s; %s", n, made.options, made.reason)
    return made.choice


def wanted_for(n: int, d: int) -> int:
    """Rows of n that measure_layout() makes use of, where it is given a part of them."""
    return min(n, 2 * QUESTIONS + min(SAMPLE, _MOST_NUMBERS // d))


def _unlike(
    drawn: _Drawn,
    metric: Metric,
    params: BuildParams,
    n: int,
    k: int,
    start: Choice,
    progress: Progress | None,
) -> str:
    """Why the sample does not tell of n vectors; empty where a quarter of it tells of the sample.

    Asked of a recall that few lists reach, since nothing grows beyond all of them.
    """
    whole = _Trials(drawn, metric, params, n, k, _EASY, progress)
    part = _Trials(drawn.thinned(), metric, params, n, k, _EASY, progress)
    first = whole.of(start)
    misses, others = 1 - first.recall, 1 - part.recall(start, first.effort)
    if misses / _STEADY <= others <= misses * _STEADY:
        return ""
    return (
        f"a quarter of the sample misses {others:.3f} where all of it misses {misses:.3f}, so the "
        f"sample tells little of {n:,} vectors; the formulas' choice stays, take a larger sample"
    )


def _is_better(one: Tried, other: Tried) -> bool:
    """Whether a layout is better by more than chance is likely to make it."""
    if one.is_reached and other.is_reached:
        return one.cost_us < (1 - _GAIN) * other.cost_us
    if one.is_reached or other.is_reached:
        return one.is_reached
    return one.recall > other.recall + _NEARER


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A sample (m, d), and two halves of held-out questions (nq, d)."""

    points: F32
    asked: tuple[F32, F32]

    @classmethod
    def of(cls, vectors: np.ndarray, metric: Metric, seed: int, most: int, wanted: int) -> _Drawn:
        """Distinct rows, drawn at random; of a mapped array only these are read."""
        rng = np.random.default_rng(seed)
        n = len(vectors)
        nq = min(wanted, max(_LEAST_QUESTIONS, n // 10), n // 4)
        rows = rng.permutation(n)[: 2 * nq + most]

        def read(some: I64) -> F32:
            return as_vectors(vectors[np.sort(some)], vectors.shape[1], metric, "drawn vectors")

        halves = [jittered(read(rows[i * nq : (i + 1) * nq]), metric, rng) for i in (0, 1)]
        return cls(read(rows[2 * nq :]), (halves[0], halves[1]))

    def thinned(self) -> _Drawn:
        """A quarter of the sample, and the same questions."""
        return replace(self, points=np.ascontiguousarray(self.points[::4]))


class _Trials:
    """Layouts of one sample, each built and examined once."""

    def __init__(
        self,
        drawn: _Drawn,
        metric: Metric,
        params: BuildParams,
        n: int,
        k: int,
        target: float,
        progress: Progress | None,
    ) -> None:
        self.tried: dict[Choice, Tried] = {}
        self._drawn, self._metric, self._params = drawn, metric, params
        self._n, self._k, self._target = n, k, target
        self._progress, self._share = progress, 0.0
        self._last: list[F32 | None] = [None, None]

    def descend(self, start: Choice) -> Choice:
        """The best that was found; what was tried is in `tried`, in order."""
        best = start
        axes = self._axes(start)
        for i in range(_ROUNDS):
            before = best
            for j, (name, values) in enumerate(axes):
                self._share = (i + j / len(axes)) / (_ROUNDS + 1)
                best = self._along(name, values, best)
            if best == before:
                break
        return best

    def confirmed(self, choice: Choice) -> Tried:
        """A choice, asked the other half of the questions."""
        self._share = _ROUNDS / (_ROUNDS + 1)
        return self._examined(choice, 1)

    def _axes(self, start: Choice) -> list[tuple[str, Sequence[float]]]:
        """The options that are free, and the values of each by size."""
        d, is_l2, params = self._drawn.points.shape[1], self._metric == "l2", self._params
        widths = {block_count(d, width, is_l2): width for width in reversed(_WIDTHS) if width <= d}
        if start.dims_per_block not in widths.values():
            widths[block_count(d, start.dims_per_block, is_l2)] = start.dims_per_block
        axes: list[tuple[str, Sequence[float]]] = [
            ("dims_per_block", sorted(widths.values())),
            ("nlist", [round(factor * start.nlist) for factor in _FACTORS]),
            ("soar_lambda", sorted({*_LAMBDAS, start.soar_lambda})),
        ]
        if not is_l2:
            axes.append(("avq_eta", sorted({*_ETAS, start.avq_eta})))
        return [axis for axis in axes if getattr(params, axis[0]) is None]

    def _along(self, name: str, values: Sequence[float], best: Choice) -> Choice:
        """The best choice on one axis, from a place by steps that each pay.

        Off, a value of 0, is beside every other value.
        """
        while True:
            i = values.index(getattr(best, name))
            beside = [values[j] for j in (i - 1, i + 1) if 0 <= j < len(values)]
            if values[0] == 0 and i > 1:
                beside.append(values[0])
            found = best
            for value in beside:
                choice = self._changed(best, name, value)
                if choice is not None and _is_better(self.of(choice), self.of(found)):
                    found = choice
            if found == best:
                return best
            best = found

    def _changed(self, choice: Choice, name: str, value: float) -> Choice | None:
        """A choice with another value; None where there are too few vectors for so many lists."""
        if name == "nlist" and not 1 <= value <= self._n:
            return None
        fixed: dict[str, Any] = asdict(choice) | {name: value, "ncell": self._params.ncell}
        params = replace(self._params, **fixed)
        return choose_build(params, self._n, self._drawn.points.shape[1], self._metric)

    def of(self, choice: Choice) -> Tried:
        """A choice built over the sample and asked, once."""
        if choice not in self.tried:
            self.tried[choice] = self._examined(choice, 0)
        return self.tried[choice]

    def recall(self, choice: Choice, effort: Effort) -> float:
        """That of one setting."""
        return self._exam(self._build(choice), 0).point(effort).recall

    def _examined(self, choice: Choice, half: int) -> Tried:
        """The best that a choice does, asked one half of the questions."""
        built = self._build(choice)
        curve = self._exam(built, half).sweep()
        found = [self._foreseen(choice, built, line) for line in _lines(curve)]

        def rank(tried: Tried) -> tuple[bool, float]:
            return not tried.is_reached, tried.cost_us if tried.is_reached else -tried.recall

        return min(found, key=rank)

    def _build(self, choice: Choice) -> _Built:
        """An index of the sample, with as many times fewer lists as it has fewer points by sqrt."""
        self._report("layout")
        n = len(self._drawn.points)
        nlist = max(min(round(choice.nlist * math.sqrt(n / self._n)), n // 2), 1)
        some = replace(choice, nlist=nlist, ncell=0)
        return _Built.of(self._drawn.points, some, self._params, self._metric)

    def _exam(self, built: _Built, half: int) -> Exam:
        asked, k = self._drawn.asked[half], self._k
        own = np.full(len(asked), -1, np.int64)  # of no point
        last = self._last[half]
        if last is None:
            last = self._last[half] = last_scores(*built.exact(asked, k + 1, None), own, k)
        return Exam(built, k, asked, own, last, report=lambda stage, share: self._report(stage))

    def _foreseen(self, choice: Choice, built: _Built, line: Curve) -> Tried:
        """What a line of settings costs at the target, foreseen for n vectors."""
        found = line.choose(self._target)
        effort = found.effort
        assert effort is not None
        ordered = sorted(line.points, key=lambda point: point.nprobe or 0)
        nprobes = [float(point.nprobe or 0) for point in ordered]
        scanned = float(np.interp(effort.nprobe, nprobes, [point.scanned for point in ordered]))
        lists = min(float(effort.nprobe), scanned / built.mean_list)
        scanned *= math.sqrt(self._n / len(self._drawn.points))
        d = self._drawn.points.shape[1]
        plan = choose_search(
            k=self._k,
            nprobe=min(effort.nprobe, choice.nlist),
            rerank=effort.rerank,
            stop=effort.stop,
            n=self._n,
            nlist=choice.nlist,
            ncell=choice.ncell,
            collect_factor=self._params.overretrieve if choice.soar_lambda > 0 else 1.0,
            copies=2 if choice.soar_lambda > 0 else 1,
            dims_per_block=choice.dims_per_block,
        )
        m = built.model.product.m
        return Tried(
            choice=choice,
            effort=effort,
            recall=1.0 if found.recall is None else found.recall,
            is_reached=found.is_reached,
            scanned=scanned,
            cost_us=work_of(plan, choice, scanned, lists, m, d).microseconds,
            bytes=built.copies * (m / 2 + 4) + store_stride(d),
        )

    def _report(self, _: str) -> None:
        if self._progress:
            self._progress("layout", self._share)


@dataclass(frozen=True, slots=True)
class _Built:
    """A choice over the sample, as exam.py measures it.

    copies     codes a vector
    mean_list  codes a list
    """

    live: LiveIndex
    model: Model
    threads: int
    copies: float
    mean_list: float

    @classmethod
    def of(cls, points: F32, choice: Choice, params: BuildParams, metric: Metric) -> _Built:
        """Train on the sample and fill with it."""
        model = Model.train(points, choice, params, metric)
        live = LiveIndex(points.shape[1], metric, params, model=model)
        codes = 0
        for first in range(0, len(points), _BATCH):
            coded = live.code(points[first : first + _BATCH], params.threads)
            codes += int(np.count_nonzero(coded.parts >= 0))
            live.append(coded)
        return cls(live, model, params.threads, codes / len(points), codes / live.nlist)

    @property
    def nlist(self) -> int:
        """See Examined."""
        return self.live.nlist

    def usual(self, k: int) -> Effort:
        """See Examined."""
        rerank = default_rerank(k, self.model.choice.dims_per_block)
        return Effort(self.live.default_nprobe, rerank)

    def drawn(self, rows: I64) -> F32:
        """See Examined."""
        return self.live.vectors(rows)

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        """See Examined."""
        done = self.live.exact(queries, k, rows, self.threads)
        return done.scores, done.rows

    def search(
        self, queries: F32, k: int, effort: Effort, allowed: U8 | None
    ) -> tuple[F32, I64, int]:
        """See Examined."""
        done = self.live.search(
            queries,
            k,
            nprobe=effort.nprobe,
            rerank=effort.rerank,
            stop=effort.stop,
            allowed=allowed,
        )
        return done.scores, done.rows, done.scanned


def _lines(curve: Curve) -> Iterator[Curve]:
    """The parts of a curve whose settings differ in nprobe alone."""
    by_rest: dict[Effort, list[OperatingPoint]] = {}
    for point in curve.points:
        assert point.effort is not None
        by_rest.setdefault(replace(point.effort, nprobe=0), []).append(point)
    for points in by_rest.values():
        yield replace(curve, points=points)
