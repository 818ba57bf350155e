"""Messages <-> what the engine takes and gives; errors <-> statuses. The gate of the wire.

    points.py, collections.py, indexes.py, rest.py -> [convert.py] -> soardb_proto/columns.py

What is refused here is refused before arrays are made of it. The table STATUSES says which status
each error of soardb is; the client reads the class from the reason, so the table has every leaf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from soardb import errors
from soardb.errors import InvalidArgument, SoarError
from soardb.filters.expr import Expr
from soardb.filters.json_form import from_json
from soardb.hits import HitColumns, Plan, Point, Spread
from soardb.kernels.layout import Metric
from soardb.options import Ack, Mode
from soardb.schema import encode_payload, parse_payload
from soardb_proto import columns
from soardb_proto.v1 import collections_pb2, points_pb2, types_pb2
from soardb_proto.words import ACKS, DOMAIN, METRICS, reason_of
from soardb_service.gate import NotYet, Overloaded, Unauthenticated
from soardb_service.limits import Limits

__all__ = [
    "STATUSES",
    "Internal",
    "ack_of",
    "discreet",
    "filter_of",
    "hide",
    "ids_of",
    "json_of",
    "metric_number",
    "metric_of",
    "mode_of",
    "options_of",
    "payloads_message",
    "payloads_of",
    "plan_message",
    "search_reply",
    "status_of",
    "vectors_message",
    "vectors_of",
]


class Internal(SoarError):
    """A mistake of ours. The caller learns the id under which it was logged, and nothing else."""


STATUSES: dict[type[SoarError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotTrained: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.CorruptStorage: grpc.StatusCode.DATA_LOSS,
    errors.OutOfSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.WriteFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InUse: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ReadOnly: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    errors.Closed: grpc.StatusCode.UNAVAILABLE,
    errors.TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.MalformedOutput: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotYet: grpc.StatusCode.FAILED_PRECONDITION,
    Internal: grpc.StatusCode.INTERNAL,
}

_METRIC_NAMES = {int(number): name for name, number in METRICS.items()}
_ACK_NAMES = {int(number): name for name, number in ACKS.items()}


# ---- errors ----


_hidden: set[str] = set()
_OTHERS = re.compile(r"expected a collection of .*?, there is no (.*?); there are .*", re.DOTALL)
_LIKE = re.compile(r": (?:alias|collection) '[^']*' is there, which differs only in upper")


def hide(place: Path | str) -> None:
    """Tell no caller where this folder is, or this URI, which may hold a password."""
    _hidden.add(str(place))


def discreet(text: str) -> str:
    """A message without folders of the server and names that the caller did not say itself."""
    text = _OTHERS.sub(r"expected a collection that is there, there is no \1", text)
    text = _LIKE.sub(": one is there that differs only in upper", text)
    for place in sorted(_hidden, key=len, reverse=True):  # one may lie in another
        text = text.replace(f"{place}/", "").replace(place, "the database")
    return text


def status_of(error: SoarError, call_id: str = "") -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of an error of soardb: code, message, and google.rpc details."""
    code = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    info = error_details_pb2.ErrorInfo(reason=reason_of(type(error)), domain=DOMAIN)
    if call_id:
        info.metadata["call"] = call_id
    details: list[Message] = [info]
    if isinstance(error, Overloaded):
        wait = duration_pb2.Duration()
        wait.FromNanoseconds(int(error.retry_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=wait))
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    number = code.value[0]
    return code, status_pb2.Status(code=number, message=discreet(str(error))[:8192], details=packed)


def refused(error: ValueError) -> InvalidArgument:
    """What columns.py refused, as an error of ours."""
    return InvalidArgument(str(error))


# ---- requests ----


def ids_of(ids: types_pb2.Ids, limits: Limits, field: str = "ids") -> list[Any]:
    """Ids of a message as a list. Errors: InvalidArgument."""
    kind = ids.WhichOneof("kind")
    if kind is None:
        raise InvalidArgument(f"expected {field}, got none")
    count = len(ids.i64) // 8 if kind == "i64" else len(ids.strings.values)
    limits.check("rows", count, field, "send several calls, or a stream")
    try:
        return columns.plain_ids(ids, field)
    except ValueError as error:
        raise refused(error) from None


def vectors_of(
    matrix: types_pb2.Matrix, limits: Limits, cap: str, field: str = "vectors"
) -> np.ndarray[Any, Any]:
    """(n, d) rows of a message. Errors: InvalidArgument."""
    limits.check(cap, matrix.count, field, "send several calls, or a stream")
    try:
        return columns.unpack_matrix(matrix, field)
    except ValueError as error:
        raise refused(error) from None


def payloads_of(payloads: types_pb2.Payloads, n: int) -> list[Mapping[str, Any] | None] | None:
    """Payloads of a message, one a point, or None where there are none at all."""
    if not payloads.json:
        return None
    if len(payloads.json) != n:
        raise InvalidArgument(f"expected {n} payloads, one a point, got {len(payloads.json)}")
    found: list[Mapping[str, Any] | None] = []
    for row, data in enumerate(payloads.json):
        try:
            found.append(parse_payload(data) if data else None)
        except InvalidArgument as error:
            raise InvalidArgument(f"payload {row}: {error}") from None
    return found


def filter_of(filter: types_pb2.Filter) -> Expr | str | None:
    """A filter of a message, not yet compared with a schema. Errors: InvalidArgument."""
    kind = filter.WhichOneof("kind")
    if kind == "sql":
        return str(filter.sql)
    if kind == "json":
        return from_json(json_of(filter.json, "filter"))
    return None


def json_of(data: bytes, field: str) -> Any:
    """A JSON value of a message. Errors: InvalidArgument."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"expected {field} as JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def metric_of(number: int) -> Metric:
    """The metric of a message; cosine where it says none. Errors: InvalidArgument."""
    if number == types_pb2.METRIC_UNSPECIFIED:
        return "cosine"
    if number not in _METRIC_NAMES:
        raise InvalidArgument(f"expected a metric of soardb.v1.Metric, got {number}")
    return cast(Metric, _METRIC_NAMES[number])


def ack_of(number: int) -> Ack:
    """The level of acknowledgement; fsync where it says none. Errors: InvalidArgument."""
    if number == types_pb2.DURABILITY_UNSPECIFIED:
        return "fsync"
    if number not in _ACK_NAMES:
        raise InvalidArgument(f"expected an ack of soardb.v1.Durability, got {number}")
    return cast(Ack, _ACK_NAMES[number])


def mode_of(number: int) -> Mode:
    """Whether ids that are there are replaced or refused. Errors: InvalidArgument."""
    if number not in (
        points_pb2.WRITE_MODE_UNSPECIFIED,
        points_pb2.UPSERT,
        points_pb2.INSERT,
    ):
        raise InvalidArgument(f"expected a mode of soardb.v1.WriteMode, got {number}")
    return "insert" if number == points_pb2.INSERT else "upsert"


def options_of(options: collections_pb2.IndexOptions) -> dict[str, Any]:
    """The options of an index that a message says."""
    return {field.name: value for field, value in options.ListFields()}


# ---- replies ----


def plan_message(plan: Plan) -> types_pb2.Plan:
    """A plan as a message."""
    return types_pb2.Plan(
        strategy=plan.strategy,
        live=plan.live,
        matching=plan.matching,
        selectivity=plan.selectivity,
        nprobe=plan.nprobe,
        rerank=plan.rerank,
        rows_scanned=plan.rows_scanned,
        stages=plan.stages,
        target_recall=plan.target_recall,
        expected_recall=plan.expected_recall,
        expected_low=plan.expected_low,
        expected_high=plan.expected_high,
        spread=None if plan.spread is None else _spread_message(plan.spread),
    )


def _spread_message(spread: Spread) -> types_pb2.Spread:
    return types_pb2.Spread(
        shards=spread.shards,
        c=spread.c,
        planned_recall=spread.planned_recall,
        measured_recall=spread.measured_recall,
        missing=spread.missing,
    )


def metric_number(metric: str | None) -> types_pb2.Metric:
    """A metric as a message says it."""
    return types_pb2.METRIC_UNSPECIFIED if metric is None else METRICS[metric]


def search_reply(found: HitColumns) -> points_pb2.SearchReply:
    """The columns of a search as a message."""
    reply = points_pb2.SearchReply(
        counts=found.counts.tolist(),
        ids=columns.pack_ids(found.ids),
        scores=columns.pack_numbers(found.scores, "<f4"),
        metric=metric_number(found.metric),
        seq=found.seq,
    )
    if found.payloads is not None:
        reply.payloads.json.extend(found.payloads)
    if found.vectors is not None:
        reply.vectors.CopyFrom(columns.pack_matrix(found.vectors))
    if found.plan is not None:
        reply.plan.CopyFrom(plan_message(found.plan))
    for value, count in found.groups or ():
        reply.groups.add(value=json.dumps(value).encode(), count=count)
    return reply


def payloads_message(points: Iterable[Point]) -> types_pb2.Payloads:
    """Payloads of points."""
    return types_pb2.Payloads(json=[encode_payload(point.payload) for point in points])


def vectors_message(points: list[Point], d: int) -> types_pb2.Matrix:
    """Vectors of points."""
    rows = [point.vector for point in points if point.vector is not None]
    stacked = np.stack(rows) if rows else np.empty((0, d), np.float32)
    return columns.pack_matrix(stacked)
