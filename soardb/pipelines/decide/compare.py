"""Which rule wins for which metric, on questions with known answers.

    laws.py, metrics.py -> [compare.py] -> benchmarks, user code

The table of rules by metrics is what is to be reported: no one decoding is "the model's score".
Theory says that the diagonal wins. Beside the rules stand controls that know no law: a constant,
and the likeliest value drawn to the truths by a line fitted on other questions, as a gain in
squared error may be nothing but shrinkage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.options import as_share
from soardb.pipelines.decide.laws import F64, Laws, Values, as_values
from soardb.pipelines.decide.metrics import as_metric
from soardb.pipelines.stored import plain

__all__ = ["Cell", "Difference", "Swept", "Table", "compare", "controls", "sweep"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A measure of one set of decisions, with its interval over resampled questions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What the metric's own decisions gain over others, on the same questions.

    gain  above 0: the own ones are better, whether the metric is high or low where it is good
    low, high  of the gain over resampled questions, both resampled alike (a paired bootstrap)
    """

    gain: float
    low: float
    high: float

    @property
    def wins(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def loses(self) -> bool:
        """Whether the whole interval is below 0."""
        return self.high < 0


@dataclass(frozen=True, slots=True)
class Table:
    """Of n questions: cells[decisions, metric], and gains[decisions, metric] of own[metric]."""

    cells: dict[tuple[str, str], Cell]
    gains: dict[tuple[str, str], Difference]
    own: dict[str, str]
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain values: a row a cell, with its gain unless it is the metric's own; None for nan."""
        rows = []
        for (name, metric), cell in self.cells.items():
            numbers = {"value": cell.value, "low": cell.low, "high": cell.high}
            if (gain := self.gains.get((name, metric))) is not None:
                numbers |= {"gain": gain.gain, "gain_low": gain.low, "gain_high": gain.high}
            rows.append(
                {"decisions": name, "metric": metric, "own": self.own[metric], **plain(numbers)}
            )
        return {"n": self.n, "cells": rows}


def compare(
    decisions: Mapping[str, npt.ArrayLike],
    truths: npt.ArrayLike,
    metrics: Mapping[Any, str],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    leave_out: bool = False,
) -> Table:
    """Measure each set of n decisions by each metric, with paired bootstrap intervals.

    decisions  by name
    metrics    the metric, as for as_metric, and the name of the decisions that are its own
    resamples  of questions, with replacement; all cells use the same ones
    leave_out  no cell where a metric cannot be asked of decisions, such as squared error of words

    Errors: InvalidArgument, also for two metrics of one name.
    """
    y = as_values(truths)
    held = {name: as_values(values) for name, values in decisions.items()}
    as_int(resamples, "resamples", 1, 1_000_000)
    tail = (1 - as_share(level, "level")) / 2
    for name, values in held.items():
        if values.shape != y.shape or not len(y):
            raise InvalidArgument(f"expected {len(y)} decisions of {name!r}, got {len(values)}")
    own: dict[str, str] = {}
    over: dict[tuple[str, str], Callable[[I64], float]] = {}
    measures: dict[tuple[str, str], float] = {}
    signs: dict[str, int] = {}
    for given, mine in metrics.items():
        metric = as_metric(given)
        if mine not in held:
            raise InvalidArgument(f"expected decisions named {mine!r} for {metric.name}, got none")
        if metric.name in own:
            raise InvalidArgument(f"expected metrics of different names, got two {metric.name!r}")
        own[metric.name], signs[metric.name] = mine, 1 if metric.higher_is_better else -1
        for name, decided in held.items():
            try:
                measured = metric.over(y, decided)
                measures[name, metric.name] = measured(np.arange(len(y)))
            except InvalidArgument:
                if leave_out and name != mine:
                    continue
                raise
            over[name, metric.name] = measured
    drawn = {key: np.empty(resamples) for key in over}
    rng = np.random.default_rng(seed)
    for i in range(resamples):
        rows = rng.integers(0, len(y), len(y))
        for key, measured in over.items():
            drawn[key][i] = measured(rows)
    cells = {key: Cell(value, *_interval(drawn[key], tail)) for key, value in measures.items()}
    gains: dict[tuple[str, str], Difference] = {}
    for name, which in over:
        best, sign = (own[which], which), signs[which]
        if name != own[which]:
            gain = sign * (measures[best] - measures[name, which])
            between = _interval(sign * (drawn[best] - drawn[name, which]), tail)
            gains[name, which] = Difference(gain, *between)
    return Table(cells, gains, own, len(y))


def controls(
    laws: Laws, fit_laws: Laws, fit_truths: npt.ArrayLike, rule: Callable[[Laws], Values]
) -> dict[str, F64]:
    """Decisions of numbers that theory must beat, fitted on other questions with known answers.

    constant mean, constant median  of the fit's truths, the same for every question
    recalibrated  a + b x the rule's decisions, a and b by least squares on the fit
    """
    y = as_values(fit_truths).astype(np.float64)
    x = np.asarray(rule(fit_laws), np.float64)
    slope, intercept = np.polyfit(x, y, 1) if x.std() > 0 else (0.0, float(y.mean()))
    return {
        "constant mean": np.full(len(laws), y.mean()),
        "constant median": np.full(len(laws), np.median(y)),
        "recalibrated": np.asarray(intercept + slope * np.asarray(rule(laws), np.float64)),
    }


@dataclass(frozen=True, slots=True)
class Swept:
    """A measure by the number of samples k: its mean over draws, and the interval of it."""

    k: int
    value: float
    low: float
    high: float


def sweep(
    samples: Sequence[Sequence[Any]],
    truths: npt.ArrayLike,
    metric: Any,
    counts: Sequence[int],
    *,
    rule: Callable[[Laws], Values] | None = None,
    otherwise: Any = None,
    draws: int = 50,
    level: float = 0.95,
    seed: int = 0,
) -> list[Swept]:
    """How many samples a metric needs: of n questions with samples each, k are drawn.

    samples    values, None where one could not be parsed: it is left out
    otherwise  stands where none of the k that were drawn could be
    rule   that of the metric unless told
    draws  of k samples and, at the same time, of questions, with replacement: the interval is of
           both

    Costs draws x counts decisions of all questions. Errors: InvalidArgument, for a count above the
    samples that a question has.
    """
    y = as_values(truths)
    as_int(draws, "draws", 2, 100_000)
    judge = as_metric(metric)
    decide = rule or judge.decide
    tail = (1 - as_share(level, "level")) / 2
    if len(samples) != len(y):
        raise InvalidArgument(f"expected samples for {len(y)} questions, got {len(samples)}")
    drawer = _Drawer(samples, otherwise, np.random.default_rng(seed))
    out = []
    for k in counts:
        as_int(k, "counts", 1, drawer.fewest, "a question has no more samples than that")
        whole, resampled = [], []
        for _ in range(draws):
            measured = judge.over(y, as_values(decide(drawer.laws(k))))
            whole.append(measured(np.arange(len(y))))
            resampled.append(measured(drawer.rng.integers(0, len(y), len(y))))
        out.append(Swept(k, float(np.mean(whole)), *_interval(np.array(resampled), tail)))
    return out


class _Drawer:
    """Some of the samples of every question, all questions at once."""

    def __init__(
        self, samples: Sequence[Sequence[Any]], otherwise: Any, rng: np.random.Generator
    ) -> None:
        self.rng = rng
        self.fewest = min(map(len, samples), default=0)
        self._otherwise = otherwise
        most = max(map(len, samples), default=0)
        flat = [value for row in samples for value in [*row, *[None] * (most - len(row))]]
        fill = next((value for value in flat if value is not None), otherwise)
        held = as_values(
            [fill if value is None else value for value in flat]
            + [fill if otherwise is None else otherwise]
        )
        self._values = held[:-1].reshape(len(samples), most)
        self._parsed = np.array([value is not None for value in flat]).reshape(len(samples), most)
        self._there = np.arange(most) < np.array([[len(row)] for row in samples])

    def laws(self, k: int) -> Laws:
        """Of k samples of each, without replacement."""
        order = np.where(self._there, self.rng.random(self._there.shape), np.inf)
        drawn = np.argpartition(order, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(self._values, drawn, 1)
        weights = np.take_along_axis(self._parsed, drawn, 1).astype(np.float64)
        none = ~weights.any(axis=1)
        if none.any():
            if self._otherwise is None:
                raise InvalidArgument(
                    f"expected a sample that parses among {k}, got none; tell what stands otherwise"
                )
            values[none, 0], weights[none, 0] = self._otherwise, 1.0
        return Laws.of_matrix(values, weights)


def _interval(values: F64, tail: float) -> tuple[float, float]:
    """Of resampled measures; nan where some are, such as the correlation of a constant."""
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
