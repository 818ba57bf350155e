"""Risk of each sample as bias and variance: what replicas share, and in what they differ.

    ensemble.py -> [decomposition.py] -> fit.py, cone.py, run.py

squared  bias^2 = ||E h - e_y||^2, variance = E ||h - E h||^2, risk = E ||h - e_y||^2
kl       bias = -log g(y), variance = E KL(g || h), risk = E[-log h(y)]; g: the geometric mean of
         the replicas, made to sum to 1. Heskes, "Bias/variance decompositions for likelihood-based
         estimators", 1998

Both sum up exactly. They are different statements and do not replace one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from soardb.errors import InvalidArgument
from soardb.pipelines.diagnose.ensemble import F64, Ensemble

__all__ = ["ESTIMATORS", "Decomposition", "Estimator", "kl", "squared"]

Estimator = Literal["unbiased", "plain", "pairs"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True, slots=True)
class Decomposition:
    """bias, variance, risk: each (n,); risk = bias + variance. bias of "squared" is bias^2."""

    bias: F64
    variance: F64
    risk: F64


def squared(ensemble: Ensemble, estimator: Estimator = "unbiased") -> Decomposition:
    """Of squared loss on probabilities, however the replicas were trained.

    plain     of the m replicas there are: bias^2 is too large by variance / m on average
    unbiased  of all replicas that could be: variance with m - 1, and as bias^2 the mean of
              <h_i - e_y, h_j - e_y> over two different replicas. Errors never make an obtuse
              angle, so it is not below 0; it is 0 where no two replicas err
    pairs     as unbiased, from replicas 0 and 1, 2 and 3, ... alone: for those trained on the two
              halves of the same split, which are independent of nothing else. m must be even

    Holds up to three copies of the probabilities. Errors: InvalidArgument.
    """
    m = ensemble.members
    errors = ensemble.errors()
    risk = np.asarray((errors**2).sum(axis=2).mean(axis=0))
    if estimator == "pairs":
        if m % 2:
            raise InvalidArgument(f"expected an even number of replicas with 'pairs', got {m}")
        first, second = errors[::2], errors[1::2]
        bias = (first * second).sum(axis=2).mean(axis=0)
        variance = ((first - second) ** 2).sum(axis=2).mean(axis=0) / 2
        return Decomposition(np.asarray(bias), np.asarray(variance), risk)
    middle = errors.mean(axis=0)
    bias = (middle**2).sum(axis=1)
    variance = ((errors - middle) ** 2).sum(axis=2).sum(axis=0)
    if estimator == "plain":
        return Decomposition(bias, variance / m, risk)
    if estimator == "unbiased":
        return Decomposition(_between(errors), variance / (m - 1), risk)
    raise InvalidArgument(f"expected estimator one of {', '.join(ESTIMATORS)}, got {estimator!r}")


def _between(errors: F64) -> F64:
    """(n,) mean product of the errors of two different replicas.

    Summed from terms of one sign: bias^2 less variance / m would leave rounding where one replica
    has made most of both.
    """
    m = len(errors)
    before = np.cumsum(errors[:-1], axis=0)
    return np.asarray(np.einsum("mnc,mnc->n", before, errors[1:]) * 2 / (m * (m - 1)))


def kl(ensemble: Ensemble) -> Decomposition:
    """Of cross entropy, in nats, of the replicas there are: no correction for their number.

    Errors: InvalidArgument where a probability is 0, as the variance is infinite there; give
    logits, or a floor.
    """
    if np.isneginf(ensemble.logs).any():
        raise InvalidArgument(
            "expected probabilities above 0 for the KL decomposition, some are 0; give logits, "
            "or set a floor"
        )
    rows = np.arange(len(ensemble))
    middle = ensemble.logs.mean(axis=0)  # (n, c)
    at_label = middle[rows, ensemble.labels]
    others = middle.copy()
    others[rows, ensemble.labels] = -np.inf
    bias = np.logaddexp(0, np.logaddexp.reduce(others, axis=1) - at_label)
    # -log Z, where 1 - Z is summed from small terms: its largest class is taken by expm1.
    top = middle.argmax(axis=1)
    parts = np.exp(middle)
    parts[rows, top] = np.expm1(middle[rows, top])
    variance = np.maximum(-np.log1p(parts.sum(axis=1)), 0)
    risk = -ensemble.logs[:, rows, ensemble.labels].mean(axis=0)
    return Decomposition(np.asarray(bias), variance, np.asarray(risk))
