"""Whether a line is more than arithmetic: from disjoint replicas, and from fewer of them.

    ensemble.py, fit.py -> [stability.py] -> run.py

Where one replica of m is far off and the rest agree, bias^2 is about x / m^2 and variance x / m
from the very same number x: slope 1 and intercept log m, with nothing behind it. Bias from some
replicas and variance from others do not share that number, and an intercept that moves with the
number of replicas gives it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.pipelines.diagnose.decomposition import Estimator, squared
from soardb.pipelines.diagnose.ensemble import Ensemble
from soardb.pipelines.diagnose.fit import Fit, fit_line

__all__ = ["MIN_SPLIT", "by_members", "split_half"]

MIN_SPLIT = 4
"""Replicas of which both halves have a variance."""

Mask = npt.NDArray[np.bool_]


def split_half(
    ensemble: Ensemble,
    among: Mask,
    splits: int,
    estimator: Estimator = "unbiased",
    seed: int = 0,
    **options: Any,
) -> list[Fit]:
    """A fit of each of `splits` random halvings: bias^2 of one half, variance of the other.

    among      (n,) the samples in the fit
    estimator  with "pairs", pairs stay together and are estimated from; otherwise "unbiased" is
               taken, as the error of a plain bias^2 is a variance again
    options    those of fit_line

    Fewer than `splits` where a line cannot be drawn. Errors: InvalidArgument with
    fewer than 4 replicas, and for pairs of an odd number.
    """
    as_int(splits, "splits", 0, 10_000)
    m = ensemble.members
    if splits and m < MIN_SPLIT:
        raise InvalidArgument(f"expected at least {MIN_SPLIT} replicas to halve, got {m}")
    kind: Estimator = "pairs" if estimator == "pairs" else "unbiased"
    together = 2 if kind == "pairs" else 1
    if m % together:
        raise InvalidArgument(f"expected an even number of replicas with 'pairs', got {m}")
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(splits):
        units = np.arange(m).reshape(-1, together)[rng.permutation(m // together)]
        first, second = units[: len(units) // 2].ravel(), units[len(units) // 2 :].ravel()
        bias = squared(ensemble.only(first), kind).bias
        variance = squared(ensemble.only(second), kind).variance
        found = fit_line(bias[among], variance[among], **{**options, "seed": seed})
        if found is not None:
            out.append(found)
    return out


def by_members(
    ensemble: Ensemble,
    among: Mask,
    counts: Sequence[int],
    estimator: Estimator = "unbiased",
    **options: Any,
) -> dict[int, Fit | None]:
    """The fit of the first m replicas for each m of `counts`. Errors: InvalidArgument."""
    out = {}
    for count in counts:
        as_int(count, "members", 2, ensemble.members)
        part = squared(ensemble.only(slice(0, count)), estimator)
        out[count] = fit_line(part.bias[among], part.variance[among], **options)
    return out
