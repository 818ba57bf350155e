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
from soardb.schema import PointId, decode_payload, shown

__all__ = ["Source", "of_arrays", "of_collection"]

F64 = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """points: (n, d) vectors or (n, n) distances, checked; weights: (n,); metric: see space.py."""

    ids: Sequence[PointId]
    points: F32
    weights: F64
    metric: str


def of_arrays(
    points: Any,
    config: Any,
    weights: npt.ArrayLike | None,
    probabilities: npt.ArrayLike | None,
    logits: npt.ArrayLike | None,
    progress: Progress,
) -> Source:
    """Arrays as a source; ids are row numbers, the metric is "l2" unless told."""
    for name in ("filter", "weight_field", "label_field"):
        if getattr(config, name) is not None:
            raise InvalidArgument(f"expected a collection with {name}, got an array")
    metric = config.metric or "l2"
    array = checked(points, metric)
    found = _given(len(array), config, weights, probabilities, logits)
    return Source(
        range(len(array)), array, np.zeros(len(array)) if found is None else found, metric
    )


def of_collection(
    collection: Any,
    config: Any,
    weights: npt.ArrayLike | None,
    probabilities: npt.ArrayLike | None,
    logits: npt.ArrayLike | None,
    progress: Progress,
) -> Source:
    """The points of a collection as a source, in the order in which it hands them out.

    weights, probabilities, logits: of that order, which scroll() has too.
    """
    metric = config.metric or collection.metric
    ids: list[PointId] = []
    parts: list[F32] = []
    payloads: list[dict[str, Any]] = []
    field = config.weight_field or config.label_field
    live = max(1, collection.count(config.filter))
    for point_ids, vectors, texts in _read(collection, config.filter):
        ids += point_ids
        parts.append(vectors)
        if field is not None:
            payloads += [t if isinstance(t, dict) else decode_payload(t) for t in texts]
        progress("read", min(1.0, len(ids) / live))
    if not ids:
        raise InvalidArgument("expected points to choose from, none match")
    array = checked(np.concatenate(parts), metric)
    found = _given(len(ids), config, weights, probabilities, logits)
    if found is not None and field is not None:
        raise InvalidArgument(f"expected weights or the field {field!r}, got both")
    if config.weight_field is not None:
        found = as_weights(_numbers(payloads, config.weight_field, ids), len(ids))
    elif config.label_field is not None:
        labels = [_member(payload, config.label_field) for payload in payloads]
        shares = votes(
            collection,
            ids,
            array,
            labels,
            config.neighbours,
            lambda share: progress("votes", share),
        )
        found = weights_of(shares, config.uncertainty)
    return Source(ids, array, np.zeros(len(ids)) if found is None else found, metric)


def _read(collection: Any, where: Any) -> Any:
    """(ids, vectors, payloads) of all points, or of those that match."""
    if where is None:
        for batch in collection.batches(4096):
            yield list(batch.ids), np.asarray(batch.vectors, np.float32), batch.payloads
        return
    token = None
    while True:
        page = collection.scroll(filter=where, page_size=1000, page_token=token, with_vectors=True)
        if page.points:
            yield (
                [p.id for p in page.points],
                np.stack([p.vector for p in page.points]),
                [dict(p.payload or {}) for p in page.points],
            )
        token = page.next_page_token
        if token is None:
            return


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
    shares = softmax(logits) if logits is not None else np.asarray(probabilities)
    if len(shares) != n:
        raise InvalidArgument(f"expected probabilities for each of {n} points, got {len(shares)}")
    return weights_of(shares, config.uncertainty)


def _member(payload: Any, name: str) -> Any:
    value = payload
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _numbers(payloads: Sequence[Any], name: str, ids: Sequence[PointId]) -> list[float]:
    out = []
    for payload, point_id in zip(payloads, ids, strict=True):
        value = _member(payload, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidArgument(
                f"expected a number in {name!r} of every point, got {shown(value)} for {point_id!r}"
            )
        out.append(float(value))
    return out
