"""Rules: of each law the decision whose expected loss is least.

    laws.py -> [rules.py] -> metrics.py

Closed forms where there are some, otherwise the best of some candidates (minimum Bayes risk).
Source: Lukasik, Narasimhan, Menon, Yu and Kumar, arXiv 2403.04182, for the idea, exact match,
squared and absolute error; the others follow from setting the derivative of the risk to 0, F1 from
its known form. Every function is of n laws and returns (n,) decisions.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.pipelines.decide.laws import F64, Laws, Values, as_values

__all__ = [
    "best_f1_cut",
    "f1_threshold",
    "least_cost",
    "mean",
    "median",
    "mode",
    "quantile",
    "relative",
    "smallest_risk",
    "squared_log",
    "token_f1",
]

_ULPS = 1e-12  # sums of weights are that near to what they are compared with


def mode(laws: Laws) -> Values:
    """Exact match: the likeliest value, equal ones together; of ties the one that stands first."""
    if not len(laws):
        return laws.values[:, :0].ravel()
    at = laws.merged().weights.argmax(axis=1)
    return np.asarray(np.take_along_axis(laws.values, at[:, None], 1)[:, 0])


def mean(laws: Laws) -> F64:
    """Squared error."""
    return np.asarray((laws.weights * laws.numbers).sum(axis=1))


def median(laws: Laws) -> F64:
    """Absolute error: the middle of all that are as good, so of two middle samples."""
    return quantile(laws, 0.5)


def quantile(laws: Laws, q: float) -> F64:
    """Pinball loss of q: q (y - v) above the decision v, (1 - q) (v - y) below it."""
    if not 0 < as_number(q, "q") < 1:
        raise InvalidArgument(f"expected q between 0 and 1, got {q}")
    v = np.where(laws.weights > 0, laws.numbers, np.inf)
    order = np.argsort(v, axis=1, kind="stable")
    v = np.take_along_axis(v, order, 1)
    below = np.cumsum(np.take_along_axis(laws.weights, order, 1), axis=1)
    low = np.minimum((below < q - _ULPS).sum(axis=1), (v < np.inf).sum(axis=1) - 1)
    high = np.minimum((below <= q + _ULPS).sum(axis=1), (v < np.inf).sum(axis=1) - 1)
    rows = np.arange(len(v))
    return np.asarray((v[rows, low] + v[rows, high]) / 2)


def squared_log(laws: Laws) -> F64:
    """(log(1 + y) - log(1 + v))^2, of values above -1."""
    v = laws.numbers
    if (v <= -1).any():
        raise InvalidArgument(f"expected values above -1 for a log error, got {v.min()}")
    return np.asarray(np.expm1((laws.weights * np.log1p(v)).sum(axis=1)))


def relative(laws: Laws) -> F64:
    """((v - y) / y)^2, of values other than 0."""
    v = laws.numbers
    if ((v == 0) & (laws.weights > 0)).any():
        raise InvalidArgument("expected values other than 0 for a relative error")
    inverse = np.divide(1.0, v, out=np.zeros_like(v), where=v != 0)
    return np.asarray(
        (laws.weights * inverse).sum(axis=1) / (laws.weights * inverse**2).sum(axis=1)
    )


def least_cost(laws: Laws, costs: F64, classes: Values, actions: Values) -> Values:
    """The action of least expected cost: costs (classes, actions), of the truth and the action."""
    p = np.stack([laws.of(value) for value in classes.tolist()], axis=1)
    if (p.sum(axis=1) < 1 - 1e-9).any():
        row = int((p.sum(axis=1) < 1 - 1e-9).argmax())
        raise InvalidArgument(
            f"expected values among the classes {classes.tolist()}, row {row} has others"
        )
    return np.asarray(actions[(p @ costs).argmin(axis=1)])


def smallest_risk(
    laws: Laws,
    loss: Callable[[Any, Any], float],
    candidates: Laws | Sequence[Any] | None = None,
) -> Values:
    """Any loss(truth, decision): the best of the candidates, the first of equals.

    candidates  one list for all laws; or the values of as many other laws, such as samples of a
                lower temperature; or the values of each law itself

    A candidate that is a value too counts as that truth. Costs (values) x (candidates) calls a law.
    """
    out: list[Any] = []
    merged = laws.merged()
    others = candidates.merged() if isinstance(candidates, Laws) else None
    if others is not None and len(others) != len(laws):
        raise InvalidArgument(f"expected candidates for {len(laws)} laws, got {len(others)}")
    for row in range(len(laws)):
        kept = merged.weights[row] > 0
        truths, p = laws.values[row, kept].tolist(), merged.weights[row, kept].tolist()
        if isinstance(candidates, Laws):
            assert others is not None
            among = candidates.values[row, others.weights[row] > 0].tolist()
        else:
            among = truths if candidates is None else list(candidates)
        if not among:
            raise InvalidArgument("expected candidates to decide among, got none")
        risks = [sum(w * loss(y, v) for y, w in zip(truths, p, strict=True)) for v in among]
        if np.isnan(risks).any():
            raise InvalidArgument(f"expected a loss that is a number, got nan in row {row}")
        out.append(among[int(np.argmin(risks))])
    return as_values(out)


def f1_threshold(probabilities: npt.ArrayLike) -> float:
    """F*/2: who is at least as probable is called positive, for the best F1 of a population.

    probabilities  (n,) of being positive; F* is the best 2 E[hits] / (called + E[positives])
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1 + _ULPS)).all() or not p.any():
        raise InvalidArgument(f"expected (n,) probabilities, not all 0, got shape {p.shape}")
    hits = np.cumsum(np.sort(p)[::-1])
    return float((hits / (np.arange(1, len(p) + 1) + p.sum())).max())


def best_f1_cut(probabilities: F64, is_positive: npt.ArrayLike) -> float:
    """The threshold with the best F1 on n known answers, halfway to the next smaller probability.

    Needs no calibrated probabilities. 1.0 where nothing is positive.
    """
    y = np.asarray(is_positive, np.bool_)
    if not y.any():
        return 1.0
    order = np.argsort(-probabilities, kind="stable")
    p, hits = probabilities[order], np.cumsum(y[order])
    scores = 2 * hits / (np.arange(1, len(p) + 1) + y.sum())
    ends = np.append(p[1:] < p[:-1], True)  # equal probabilities are on one side
    at = int(np.where(ends, scores, -1.0).argmax())
    return float((p[at] + p[at + 1]) / 2) if at + 1 < len(p) else float(p[at])


def token_f1(truth: str, answer: str) -> float:
    """Overlap of words, 0..1: 2 x shared / (words of both).

    Words are lower case, without ASCII punctuation and articles, as SQuAD (arXiv 1606.05250) counts
    them.
    """
    a, b = _words(truth), _words(answer)
    if not a or not b:
        return float(a == b)
    return 2 * sum((Counter(a) & Counter(b)).values()) / (len(a) + len(b))


def _words(text: str) -> list[str]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return [word for word in bare.split() if word not in ("a", "an", "the")]
