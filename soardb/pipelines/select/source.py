"""Where the points of a selection come from: arrays, or a collection read once.

    run.py -> [source.py] -> space.py (checks), uncertainty.py (weights)

Nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.pipelines.select.space import checked
from soardb.pipelines.select.uncertainty import as_weights, softmax, votes, weights_of
from soardb.schema import PointId, decode_payload, shown, values_at

__all__ = ["Source", "pages", "read", "read_points"]

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


def pages(collection: Any, where: Any, *, with_vectors: bool = False) -> Iterator[Sequence[Any]]:
    """The points that match, or all, a page at a time."""
    token = None
    while True:
        page = collection.scroll(
            filter=where, page_size=1000, page_token=token, with_vectors=with_vectors
        )
        yield page.points
        token = page.next_page_token
        if token is None:
            return


def read_points(
    collection: Any, where: Any, with_payloads: bool, progress: Progress
) -> tuple[list[PointId], F32, list[Any]]:
    """Ids, (n, d) vectors and payloads of all points, or of those that match.

    Errors: InvalidArgument where there are none.
    """
    ids: list[PointId] = []
    vectors: list[F32] = []
    payloads: list[Any] = []
    live = max(1, collection.count(where))
    if where is None:
        for batch in collection.batches(4096):
            ids += batch.ids
            vectors.append(np.asarray(batch.vectors, np.float32))
            if with_payloads:
                payloads += map(decode_payload, batch.payloads)
            progress("read", min(1.0, len(ids) / live))
    else:
        for points in pages(collection, where, with_vectors=True):
            ids += [point.id for point in points]
            vectors += [point.vector[None] for point in points]
            payloads += [point.payload for point in points]
            progress("read", min(1.0, len(ids) / live))
    if not ids:
        raise InvalidArgument("expected points, none match")
    return ids, np.concatenate(vectors), payloads


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
