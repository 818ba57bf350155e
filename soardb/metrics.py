"""What "closer" means: three metrics, one convention.

    arrays.py, index/ -> [metrics.py]

A score is bigger where a point is closer: `dot` is the inner product, `cosine` the cosine of the
angle, `l2` minus the squared distance. `distance` turns scores into what the field's file formats
hold.

Nothing here searches.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, Metric

__all__ = ["METRICS", "Metric", "as_metric", "distance", "unit_rows"]

METRICS: tuple[Metric, ...] = get_args(Metric)


def as_metric(name: str) -> Metric:
    """The metric of that name, or InvalidArgument."""
    for metric in METRICS:
        if name == metric:
            return metric
    raise InvalidArgument(f"expected metric to be one of {', '.join(METRICS)}, got {name!r}")


def unit_rows(vectors: F32) -> F32:
    """(n, d) rows divided by their length; a row of zeros stays. Returns a new float32 array."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    lengths[lengths == 0] = 1
    unit = np.empty(vectors.shape, np.float32)
    np.divide(vectors, lengths[:, None], out=unit, casting="unsafe")  # no float64 copy on the way
    return unit


def distance(scores: F32, metric: Metric) -> F32:
    """Distances of scores, same shape: 1 - cosine, Euclidean distance, or minus the product."""
    if metric == "cosine":
        return np.float32(1) - scores
    if metric == "l2":
        return np.sqrt(np.maximum(-scores, np.float32(0)))
    return -scores
