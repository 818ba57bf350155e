"""Values of a caller <-> messages of the wire.

    points.py, collections.py, operations.py -> [convert.py] -> soardb_proto/columns.py

What a caller passes has been checked by soardb's own gate (points.py, arrays.py, filters); what a
server sends is not trusted to be well formed, and Unavailable says so.

Nothing here calls anybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from soardb.curve import Curve
from soardb.errors import InvalidArgument, Unavailable
from soardb.filters.check import as_filter
from soardb.filters.json_form import to_json
from soardb.hits import HitColumns, Plan, Point, Spread
from soardb.kernels.layout import F32, Metric
from soardb.pages import Page
from soardb.schema import PointId, Schema, decode_payload
from soardb_client.calls import Held, as_text
from soardb_proto import columns
from soardb_proto.v1 import collections_pb2, indexes_pb2, points_pb2, types_pb2
from soardb_proto.words import METRICS

__all__ = [
    "curve_of",
    "exported",
    "filter_message",
    "held_of",
    "hit_columns",
    "ids_message",
    "metric_of",
    "page_of",
    "payloads_message",
    "points_found",
    "status_of",
]

T = TypeVar("T")

_METRIC_NAMES = {int(number): cast(Metric, name) for name, number in METRICS.items()}


# ---- requests ----


def filter_message(filter: Any, schema: Schema) -> types_pb2.Filter | None:
    """A filter as it travels: SQL as it is, trees and dicts checked here and as JSON."""
    if filter is None:
        return None
    if isinstance(filter, str):
        return types_pb2.Filter(sql=as_text(filter, "filter"))
    checked = as_filter(filter, schema)
    assert checked is not None
    return types_pb2.Filter(json=json.dumps(to_json(checked), ensure_ascii=False).encode())


def ids_message(ids: Sequence[PointId]) -> types_pb2.Ids:
    """Checked ids."""
    return columns.pack_ids(ids)


def payloads_message(payloads: Sequence[bytes]) -> types_pb2.Payloads:
    """Payloads as JSON texts, one a point."""
    return types_pb2.Payloads(json=payloads)


# ---- replies ----


def _well_formed(read: Callable[..., T], *arguments: Any) -> T:
    try:
        return read(*arguments)
    except ValueError as error:
        raise Unavailable(f"expected a well-formed answer of the server: {error}") from None


def _as_many(n: int, found: int, what: str) -> None:
    if n != found:
        raise Unavailable(f"expected a well-formed answer of the server: {found} {what} for {n}")


def _ids(ids: types_pb2.Ids) -> list[PointId]:
    return _well_formed(columns.plain_ids, ids)


def _vectors(matrix: types_pb2.Matrix, n: int, d: int) -> F32:
    """(n, d) float32, the caller's own."""
    if not n:
        return np.empty((0, d), np.float32)
    found = _well_formed(columns.unpack_matrix, matrix)
    _as_many(n, len(found), "vectors")
    return found.astype(np.float32)  # a copy: views of messages are read-only


def metric_of(number: int) -> Metric | None:
    """The metric of a message; None where it says none."""
    return _METRIC_NAMES.get(number)


def held_of(message: collections_pb2.Collection) -> Held:
    """What a server says of a collection."""
    return Held(
        message.name,
        message.dim,
        metric_of(message.metric) or "cosine",
        Schema.of({field.name: field.type for field in message.schema}),
        message.ttl if message.HasField("ttl") else None,
        message.id,
    )


def _plan(message: types_pb2.Plan) -> Plan:
    return Plan(
        message.strategy,
        message.live,
        message.matching if message.HasField("matching") else None,
        message.selectivity,
        message.nprobe if message.HasField("nprobe") else None,
        message.rerank if message.HasField("rerank") else None,
        message.rows_scanned,
        dict(message.stages),
        message.target_recall if message.HasField("target_recall") else None,
        message.expected_recall if message.HasField("expected_recall") else None,
        message.expected_low if message.HasField("expected_low") else None,
        message.expected_high if message.HasField("expected_high") else None,
        _spread(message.spread) if message.HasField("spread") else None,
    )


def _spread(message: types_pb2.Spread) -> Spread:
    return Spread(
        message.shards,
        message.c,
        message.planned_recall,
        message.measured_recall if message.HasField("measured_recall") else None,
        tuple(message.missing),
    )


def hit_columns(
    reply: points_pb2.SearchReply, d: int, with_payload: bool, with_vectors: bool, is_grouped: bool
) -> HitColumns:
    """The columns of a search. Errors: Unavailable for an answer that contradicts itself."""
    counts = np.fromiter(reply.counts, np.int64, len(reply.counts))
    n = sum(reply.counts)
    ids: Any = _well_formed(columns.unpack_ids, reply.ids)
    scores = _well_formed(columns.unpack_numbers, reply.scores, "<f4", "scores")
    _as_many(n, len(ids), "ids")
    _as_many(n, len(scores), "scores")
    if with_payload:
        _as_many(n, len(reply.payloads.json), "payloads")
    groups = [(_well_formed(json.loads, group.value), group.count) for group in reply.groups]
    if is_grouped:
        _as_many(n, sum(count for _, count in groups), "grouped hits")
    return HitColumns(
        counts,
        ids.copy() if isinstance(ids, np.ndarray) else ids,
        scores.copy(),
        list(reply.payloads.json) if with_payload else None,
        _vectors(reply.vectors, n, d) if with_vectors else None,
        _plan(reply.plan) if reply.HasField("plan") else None,
        groups if is_grouped else None,
        metric_of(reply.metric),
        reply.seq,
    )


def _points(
    ids: list[PointId],
    payloads: types_pb2.Payloads,
    vectors: types_pb2.Matrix,
    d: int,
    with_payload: bool,
    with_vectors: bool,
) -> list[Point]:
    n = len(ids)
    if with_payload:
        _as_many(n, len(payloads.json), "payloads")
    rows = _vectors(vectors, n, d) if with_vectors else None
    return [
        Point(
            point_id,
            decode_payload(payloads.json[i]) if with_payload else None,
            None if rows is None else rows[i],
        )
        for i, point_id in enumerate(ids)
    ]


def points_found(
    reply: points_pb2.GetReply, ids: Sequence[PointId], d: int, with_vectors: bool
) -> list[Point | None]:
    """One point for each id asked for, None where there is none."""
    found = _well_formed(columns.unpack_numbers, reply.found, "<u4", "found").tolist()
    if any(place >= len(ids) for place in found):
        raise Unavailable("expected a well-formed answer of the server: a place beyond the ids")
    known = [ids[place] for place in found]
    out: list[Point | None] = [None] * len(ids)
    points = _points(known, reply.payloads, reply.vectors, d, True, with_vectors)
    for place, point in zip(found, points, strict=True):
        out[place] = point
    return out


def page_of(reply: points_pb2.ScrollReply, d: int, with_payload: bool, with_vectors: bool) -> Page:
    """One page of a scroll."""
    points = _points(_ids(reply.ids), reply.payloads, reply.vectors, d, with_payload, with_vectors)
    return Page(points, reply.next_page_token or None)


def exported(reply: points_pb2.ExportBatch, d: int) -> tuple[list[PointId], list[bytes], F32]:
    """Ids, payloads and vectors of one batch of an export."""
    ids = _ids(reply.ids)
    _as_many(len(ids), len(reply.payloads.json), "payloads")
    return ids, list(reply.payloads.json), _vectors(reply.vectors, len(ids), d)


def status_of(message: indexes_pb2.IndexStatus) -> dict[str, Any]:
    """What Collection.stats() says."""
    return {
        "points": message.points,
        "struck": message.struck,
        "since_generation": message.since_generation,
        "seq": message.seq,
        "nlist": message.nlist,
        "is_exact": message.is_exact,
        "damage": message.damage or None,
        "memory_bytes": dict(message.memory_bytes),
        "disk_bytes": dict(message.disk_bytes),
    }


def result_of(data: bytes) -> dict[str, Any]:
    """The result of an operation: a JSON object, {} where it says none."""
    found = _well_formed(json.loads, data) if data else {}
    if not isinstance(found, dict):
        raise Unavailable("expected a JSON object as the result of an operation")
    return found


def curve_of(result: dict[str, Any]) -> Curve:
    """The curve of a tuning's result."""
    try:
        return Curve.of_json(result)
    except (KeyError, TypeError) as error:
        raise Unavailable(f"expected a curve as the result of tuning: {error!r}") from None


def index_options(options: dict[str, Any]) -> collections_pb2.IndexOptions:
    """Options of an index; what is None is left to the server. Errors: InvalidArgument."""
    known = collections_pb2.IndexOptions.DESCRIPTOR.fields_by_name
    for name in sorted(options.keys() - known.keys()):
        raise InvalidArgument(f"unknown parameter {name!r}; known are {', '.join(sorted(known))}")
    try:
        return collections_pb2.IndexOptions(**{k: v for k, v in options.items() if v is not None})
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"expected options of SoarIndex as index, got {options}: {error}"
        ) from None
