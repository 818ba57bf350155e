"""Metrics: what a decision is judged by, and the rule that is best for it.

    laws.py, rules.py -> [metrics.py] -> run.py, compare.py, estimators.py

A metric of single decisions has losses, whose mean it is. A metric of a population, such as AUC,
has none; its rule is best for the whole of the questions. Measures are of truths and decisions, and
never see a law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.options import as_number
from soardb.pipelines.decide import rules
from soardb.pipelines.decide.laws import F64, Laws, Values, as_values, same
from soardb.schema import shown

__all__ = [
    "METRICS",
    "Metric",
    "as_metric",
    "auc",
    "cost",
    "f1",
    "of_loss",
    "pinball",
    "token_overlap",
]

Rule = Callable[[Laws], Values]
Losses = Callable[[Values, Values], F64]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """How good decisions are, and how to make them.

    name        as it is shown
    decide      (n,) decisions of n laws: those that are best for this metric
    losses      (n,) of (n,) truths and decisions, low is good; None for a metric of a population
    population  of such a metric: the measure of (n,) truths and decisions
    of_mean     otherwise the measure of the mean loss
    higher_is_better  of the measure
    fitted      the metric with what it can learn from laws of questions and their truths, such as
                the threshold of F1; None where there is nothing
    is_ordered  whether it matters how far off a decision is, so that laws are calibrated by CRPS;
                otherwise values are but names, and Brier's score is taken
    recipe      a function and what it makes this metric of: for pickle
    """

    name: str
    decide: Rule
    losses: Losses | None
    population: Callable[[Values, Values], float] | None = None
    of_mean: Callable[[float], float] = float
    higher_is_better: bool = False
    fitted: Callable[[Laws, Values], Metric] | None = None
    is_ordered: bool = False
    recipe: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.recipe:
            raise TypeError(
                f"cannot pickle the metric {self.name!r}: make it anew where it is used"
            )
        return self.recipe[0], self.recipe[1:]

    def __call__(self, truths: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
        """The measure of n truths and decisions. Errors: InvalidArgument."""
        y, v = as_values(truths), as_values(decisions)
        if y.shape != v.shape or y.ndim != 1 or not len(y):
            raise InvalidArgument(
                f"expected as many truths as decisions, got {y.shape} and {v.shape}"
            )
        return self.over(y, v)(np.arange(len(y)))

    def over(self, truths: Values, decisions: Values) -> Callable[[I64], float]:
        """The measure of some rows of both, for many choices of them: losses are had once."""
        if self.losses is not None:
            losses = self.losses(truths, decisions)
            return lambda rows: self.of_mean(float(losses[rows].mean()))
        assert self.population is not None
        measure = self.population
        return lambda rows: measure(truths[rows], decisions[rows])

    def risk(self, laws: Laws, decisions: Values) -> F64 | None:
        """(n,) the loss that each decision is expected to have; None without losses."""
        if self.losses is None:
            return None
        out = np.zeros(len(laws))
        for column in range(laws.weights.shape[1]):
            some = laws.weights[:, column] > 0
            found = self.losses(laws.values[some, column], decisions[some])
            out[some] += laws.weights[some, column] * found
        return out


def _of_numbers(name: str, rule: Rule, losses: Callable[[F64, F64], F64]) -> Metric:
    def checked(truths: Values, decisions: Values) -> F64:
        return losses(_numbers(truths), _numbers(decisions))

    return Metric(name, rule, checked, is_ordered=True, recipe=(as_metric, name))


def pinball(q: float) -> Metric:
    """q (y - v) above the decision v, (1 - q) (v - y) below it: the q-quantile."""
    if not 0 < as_number(q, "q") < 1:
        raise InvalidArgument(f"expected q between 0 and 1, got {q}")
    return _of_numbers(
        f"pinball:{float(q)!r}",
        lambda laws: rules.quantile(laws, q),
        lambda y, v: np.maximum(q * (y - v), (q - 1) * (y - v)),
    )


def cost(
    costs: npt.ArrayLike,
    classes: Sequence[Any],
    actions: Sequence[Any] | None = None,
    name: str = "cost",
) -> Metric:
    """costs (classes, actions): of the truth and of what is done; actions are the classes unless
    told.
    """
    for given in (classes, actions):
        if given is not None and (isinstance(given, str) or not hasattr(given, "__len__")):
            raise InvalidArgument(f"expected classes and actions as lists, got {shown(given)}")
    try:
        c = np.asarray(costs, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected costs as rows of numbers: {error}") from None
    rows = as_values(classes)
    columns = rows if actions is None else as_values(actions)
    if c.shape != (len(rows), len(columns)) or not c.size or not np.isfinite(c).all():
        raise InvalidArgument(
            f"expected finite costs ({len(rows)}, {len(columns)}), got shape {c.shape}"
        )
    row_of = {value: i for i, value in enumerate(rows.tolist())}
    column_of = {value: i for i, value in enumerate(columns.tolist())}

    def losses(truths: Values, decisions: Values) -> F64:
        try:
            at = [row_of[y] for y in truths.tolist()], [column_of[v] for v in decisions.tolist()]
        except KeyError as error:
            raise InvalidArgument(
                f"expected truths among {rows.tolist()} and decisions among {columns.tolist()}, "
                f"got {shown(error.args[0])}"
            ) from None
        return np.asarray(c[at])

    return Metric(
        name,
        lambda laws: rules.least_cost(laws, c, rows, columns),
        losses,
        recipe=(cost, costs, classes, actions, name),
    )


def f1(positive: Any = 1, threshold: float | None = None) -> Metric:
    """F1 of the positive class over a population.

    threshold  who is at least as probable is called positive. Unless told it is F*/2 of the laws at
               hand, which is good for many questions at once: one alone is always called positive

    Decisions are true or false, whether the positive class is called. The measure takes those, or
    values of which `positive` is one.
    """

    def decide(laws: Laws) -> Values:
        p = laws.of(positive)
        at = threshold
        if at is None:
            at = rules.f1_threshold(p) - 1e-12 if p.any() else 1.0
        return np.asarray(p >= at).astype(object)

    def measure(truths: Values, decisions: Values) -> float:
        y, v = same(truths, positive), _are_called(decisions, positive)
        return float(2 * (y & v).sum() / max(1, y.sum() + v.sum()))

    def fitted(laws: Laws, truths: Values) -> Metric:
        return f1(positive, rules.best_f1_cut(laws.of(positive), same(truths, positive)))

    name = f"f1:{positive}"
    return Metric(
        name,
        decide,
        None,
        measure,
        higher_is_better=True,
        fitted=fitted if threshold is None else None,
        recipe=(f1, positive, threshold),
    )


def auc(positive: Any = 1) -> Metric:
    """Area under the ROC curve: decisions are the probability of the positive class."""

    def measure(truths: Values, decisions: Values) -> float:
        return _concordance(same(truths, positive).astype(np.float64), _numbers(decisions))

    return Metric(
        f"auc:{positive}",
        lambda laws: laws.of(positive),
        None,
        measure,
        higher_is_better=True,
        recipe=(auc, positive),
    )


def of_loss(
    loss: Callable[[Any, Any], float],
    candidates: Laws | Sequence[Any] | None = None,
    name: str = "",
) -> Metric:
    """Any loss(truth, decision), made small over candidates: see rules.smallest_risk."""

    def losses(truths: Values, decisions: Values) -> F64:
        pairs = zip(truths.tolist(), decisions.tolist(), strict=True)
        return np.array([loss(y, v) for y, v in pairs], np.float64)

    return Metric(
        name or getattr(loss, "__name__", "loss"),
        lambda laws: rules.smallest_risk(laws, loss, candidates),
        losses,
        recipe=(of_loss, loss, candidates, name),
    )


def token_overlap(candidates: Laws | Sequence[Any] | None = None) -> Metric:
    """F1 of the words that truth and answer share, over candidates; the loss is what it is short of
    1.
    """

    def missed(truth: Any, answer: Any) -> float:
        return 1 - rules.token_f1(str(truth), str(answer))

    found = of_loss(missed, candidates, "token_f1")
    return replace(
        found,
        of_mean=lambda loss: 1 - loss,
        higher_is_better=True,
        recipe=(token_overlap, candidates),
    )


def _pearson(truths: Values, decisions: Values) -> float:
    y, v = _numbers(truths), _numbers(decisions)
    if len(y) < 2 or y.std() == 0 or v.std() == 0:
        return float("nan")
    return float(np.corrcoef(y, v)[0, 1])


def _ranking(truths: Values, decisions: Values) -> float:
    return _concordance(_numbers(truths), _numbers(decisions))


def _concordance(y: F64, v: F64) -> float:
    """Of the pairs with different truths, weighted by the difference, the share in the right order.

    Pairs with equal decisions count half; nan without pairs. n log n.
    """
    n = len(v)
    at = np.sort(v)
    below, above = np.searchsorted(at, v, "left"), n - np.searchsorted(at, v, "right")
    right_less_wrong = float(y @ (below - above).astype(np.float64))
    # Over i < j in rising order, y_j - y_i in all: y_j counts j times up, n - 1 - j times down.
    total = float(np.sort(y) @ (2 * np.arange(n) - n + 1.0))
    return (1 + right_less_wrong / total) / 2 if total > 0 else float("nan")


def _are_called(decisions: Values, positive: Any) -> npt.NDArray[np.bool_]:
    """Where truth values alone: themselves. Otherwise where they are the positive class."""
    if decisions.dtype == object and all(isinstance(v, bool) for v in decisions):
        return decisions.astype(np.bool_)
    return same(decisions, positive)


def _numbers(values: Values) -> F64:
    if values.dtype == object:
        raise InvalidArgument(
            f"expected truths and decisions as numbers for this metric, got {shown(values[0])}"
        )
    return values.astype(np.float64)


_WITH_VALUE: dict[str, Callable[[Any], Metric]] = {"pinball": pinball, "f1": f1, "auc": auc}


def as_metric(given: Any) -> Metric:
    """A Metric, a name of METRICS, "pinball:0.9", "f1:yes", "auc:1", or a loss(truth, decision).

    After a colon a whole number is one, other numbers are floats, true and false are what they say,
    the rest is text. Errors: InvalidArgument.
    """
    if isinstance(given, Metric):
        return given
    if callable(given):
        return of_loss(given)
    if isinstance(given, str):
        name, colon, told = given.partition(":")
        if not colon and name in METRICS:
            return METRICS[name]
        if name in ("f1", "auc") or (name == "pinball" and colon):
            return _WITH_VALUE[name](_value(told) if colon else 1)
    raise InvalidArgument(
        f"expected metric one of {', '.join(METRICS)}, pinball:Q, f1:POSITIVE, auc:POSITIVE, a "
        f"Metric or a loss, got {shown(given)}"
    )


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_SQUARED = _of_numbers("squared_error", rules.mean, lambda y, v: (y - v) ** 2)

METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric(
            "exact_match",
            rules.mode,
            lambda y, v: (~same(y, v)).astype(np.float64),
            of_mean=lambda missed: 1 - missed,
            higher_is_better=True,
            recipe=(as_metric, "exact_match"),
        ),
        _SQUARED,
        replace(_SQUARED, name="rmse", of_mean=math.sqrt, recipe=(as_metric, "rmse")),
        _of_numbers("absolute_error", rules.median, lambda y, v: np.abs(y - v)),
        _of_numbers(
            "squared_log_error",
            rules.squared_log,
            lambda y, v: (np.log1p(y) - np.log1p(v)) ** 2,
        ),
        _of_numbers("squared_relative_error", rules.relative, lambda y, v: ((v - y) / y) ** 2),
        Metric(
            "pearson",
            rules.mean,
            None,
            _pearson,
            higher_is_better=True,
            is_ordered=True,
            recipe=(as_metric, "pearson"),
        ),
        Metric(
            "ranking",
            rules.mean,
            None,
            _ranking,
            higher_is_better=True,
            is_ordered=True,
            recipe=(as_metric, "ranking"),
        ),
        token_overlap(),
    )
}
"""By name, those that need nothing to be told. "ranking" is the multi-partite AUC, whose pairs
weigh the difference of their truths."""
