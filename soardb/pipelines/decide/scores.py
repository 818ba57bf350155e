"""Scores: how good laws are themselves, before anything is decided.

    laws.py -> [scores.py] -> neighbours.py, run.py

Both are proper: on average nothing is better than the true law (Gneiting and Raftery, "Strictly
proper scoring rules, prediction, and estimation", 2007). Low is good.
"""

from __future__ import annotations

import numpy as np

from soardb.pipelines.decide.laws import F64, Laws, Values

__all__ = ["brier", "crps", "proper"]


def brier(laws: Laws, truths: Values) -> F64:
    """(n,) 1 - 2 p(truth) + sum p^2, in 0..2."""
    return np.asarray(1 - 2 * laws.at(truths) + (laws.merged().weights ** 2).sum(axis=1))


def crps(laws: Laws, truths: Values) -> F64:
    """(n,) E|Y - truth| - E|Y - Y'| / 2 of numbers, in their unit; of a sure law its error."""
    v, w = laws.numbers, laws.weights
    off = (w * np.abs(v - truths.astype(np.float64)[:, None])).sum(axis=1)
    order = np.argsort(v, axis=1)
    v, w = np.take_along_axis(v, order, 1), np.take_along_axis(w, order, 1)
    apart = (v * w * (2 * np.cumsum(w, axis=1) - w - 1)).sum(axis=1)
    return np.asarray(off - apart)


def proper(laws: Laws, truths: Values, *, is_ordered: bool = True) -> F64:
    """(n,) crps where values and truths are numbers and their order means something, else brier."""
    is_text = object in (laws.values.dtype, truths.dtype)
    return crps(laws, truths) if is_ordered and not is_text else brier(laws, truths)
