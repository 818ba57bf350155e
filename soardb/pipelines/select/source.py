"""Where the points of a selection come from: arrays, or a collection read once.

    run.py -> [source.py] -> space.py (checks), uncertainty.py (weights)

Nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.pipelines.select.space import checked
from soardb.pipelines.select.uncertainty import as_weights, softmax, votes, weights_of
from soardb.pipelines.stored import read_points
from soardb.schema import PointId, shown, values_at

__all__ = ["Source", "read"]

F64 = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """points: (n, d) vectors or (n, n) distances, checked; weights: (n,); metric: see space.py."""

    ids: Sequence[PointId]
    points: F32
    weights: F64
    metric: str


def read(
    points: Any,
    config: Any,
    weights: npt.ArrayLike | None = None,
    probabilities: npt.ArrayLike | None = None,
    logits: npt.ArrayLike | None = None,
    progress: Progress = lambda stage, share: None,
) -> Source:
    """What run() chooses from. The arguments are those of run(); config: a SelectConfig.

    Ids of arrays are row numbers, and their metric is "l2" unless told. A collection is read once,
    in the order in which it hands out its points. Errors: InvalidArgument.
    """
    field = config.weight_field or config.label_field
    if isinstance(points, np.ndarray | list | tuple) or hasattr(points, "__array__"):
        for name in ("filter", "weight_field", "label_field"):
            if getattr(config, name) is not None:
                raise InvalidArgument(f"expected a collection with {name}, got an array")
        array = checked(points, config.metric or "l2")
        found = _given(len(array), config, weights, probabilities, logits)
        ids: Sequence[PointId] = range(len(array))
        return Source(ids, array, _or_none(found, len(array)), config.metric or "l2")
    if not hasattr(points, "scroll"):
        raise InvalidArgument(f"expected a collection or an array, got {shown(points)}")
    metric = config.metric or points.metric
    ids, vectors, payloads = read_points(points, config.filter, field is not None, progress)
    array = checked(vectors, metric)
    found = _given(len(ids), config, weights, probabilities, logits)
    if found is not None and field is not None:
        raise InvalidArgument(f"expected weights or the field {field!r}, got both")
    if field is not None:
        values = values_at(payloads, field)
        if config.weight_field is not None:
            found = as_weights(_numbers(values, field, ids), len(ids))
        else:
            shares = votes(
                points,
                ids,
                array,
                values,
                config.neighbours,
                lambda share: progress("votes", share),
            )
            found = weights_of(shares, config.uncertainty)
    return Source(ids, array, _or_none(found, len(ids)), metric)


def _or_none(weights: F64 | None, n: int) -> F64:
    return np.zeros(n) if weights is None else weights


def _given(
    n: int,
    config: Any,
    weights: npt.ArrayLike | None,
    probabilities: npt.ArrayLike | None,
    logits: npt.ArrayLike | None,
) -> F64 | None:
    told = [x for x in (weights, probabilities, logits) if x is not None]
    if len(told) > 1:
        raise InvalidArgument("expected one of weights, probabilities and logits, got several")
    if weights is not None:
        return as_weights(weights, n)
    if not told:
        return None
    shares = softmax(logits) if logits is not None else probabilities
    assert shares is not None
    found = weights_of(shares, config.uncertainty)
    if len(found) != n:
        raise InvalidArgument(f"expected probabilities for each of {n} points, got {len(found)}")
    return found


def _numbers(values: Sequence[Any], name: str, ids: Sequence[PointId]) -> list[float]:
    for value, point_id in zip(values, ids, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidArgument(
                f"expected a number in {name!r} of every point, got {shown(value)} for {point_id!r}"
            )
    return list(map(float, values))
