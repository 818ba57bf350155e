"""The methods of a collection, as steps: write, read, search.

    client.py, aio.py -> [points.py] -> calls.py, convert.py

Arguments are checked in the order in which the engine checks them, by the same functions where
they are soardb's, so that a wrong call fails with the same words on both sides, and before anything
is sent. What only the server can know it says itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from soardb.arrays import as_asked, as_int
from soardb.curve import as_only_target
from soardb.errors import InvalidArgument, Unavailable
from soardb.hits import HitColumns, Point
from soardb.kernels.layout import F32
from soardb.options import (
    ACKS,
    MAX_LIMIT,
    MAX_PAGE,
    Ack,
    Filter,
    Fusion,
    Mode,
    SearchOptions,
    as_mode,
    as_number,
    as_share,
    check_group_by,
    check_request_id,
    check_sought,
    check_words,
    one_query,
)
from soardb.pages import Page, read_token
from soardb.points import Changes, Payloads, as_batch, as_changes, as_point_ids, encode
from soardb.schema import PointId, encode_payload
from soardb_client import convert
from soardb_client.calls import Call, Held, Steps, as_text, new_request_id
from soardb_client.failures import NotYet
from soardb_proto import columns, words
from soardb_proto.v1 import collections_pb2, indexes_pb2, points_pb2

__all__ = [
    "PointBatch",
    "count",
    "delete",
    "described",
    "export",
    "flush",
    "get",
    "put",
    "scroll",
    "search",
    "search_columns",
    "stats",
    "update_payload",
]

_EXPORT_ROWS = 10_000
_EXPORT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class PointBatch:
    """n points as columns: ids, payloads as JSON in UTF-8, and (n, d) float32 vectors."""

    ids: list[PointId]
    payloads: list[bytes]
    vectors: F32

    def __len__(self) -> int:
        return len(self.ids)


# ---- writing ----


def put(
    held: Held,
    ids: Any,
    vectors: npt.ArrayLike | None,
    payloads: Payloads,
    mode: Mode,
    ack: Ack,
    request_id: str | None,
) -> Steps[int]:
    """Store points; how many."""
    as_mode(mode, ack)
    _check_write(held, ack, request_id)
    batch = as_batch(ids, vectors, payloads, held.d, held.metric)
    encoded = encode(batch.payloads, len(batch.ids), held.schema, held.ttl)
    if not batch.ids:
        return 0
    request = points_pb2.UpsertRequest(
        collection=held.name,
        ids=convert.ids_message(batch.ids),
        vectors=columns.pack_matrix(batch.vectors),
        payloads=None if batch.payloads is None else convert.payloads_message(encoded.payloads),
        mode=points_pb2.INSERT if mode == "insert" else points_pb2.UPSERT,
    )
    return (yield from _written(held, "Upsert", request, ack, request_id))


def update_payload(
    held: Held,
    payload: Changes,
    ids: Any,
    filter: Filter,
    replace: bool,
    ack: Ack,
    request_id: str | None,
) -> Steps[int]:
    """Change payloads; of how many points."""
    _check_write(held, ack, request_id)
    changes = as_changes(payload, ids, held.schema, held.ttl)
    texts = list(map(encode_payload, changes))
    request = points_pb2.UpdatePayloadRequest(collection=held.name, replace=bool(replace))
    _choose(held, request, ids, filter)
    if isinstance(payload, Mapping):
        request.payload = texts[0]
    elif texts:
        request.payloads.CopyFrom(convert.payloads_message(texts))
    else:
        return 0
    return (yield from _written(held, "UpdatePayload", request, ack, request_id))


def delete(held: Held, ids: Any, filter: Filter, ack: Ack, request_id: str | None) -> Steps[int]:
    """Delete points; how many there were."""
    _check_write(held, ack, request_id)
    request = points_pb2.DeleteRequest(collection=held.name)
    _choose(held, request, ids, filter)
    return (yield from _written(held, "Delete", request, ack, request_id))


def flush(held: Held) -> Steps[None]:
    """Wait for all writes that were queued before. Raises what went wrong with one of them."""
    held.check_open()
    reply: points_pb2.FlushReply = yield Call(
        "/soardb.v1.Points/Flush",
        points_pb2.FlushRequest(collection=held.name),
        points_pb2.FlushReply,
        "write",
        is_repeatable=False,  # a failure is told once
    )
    held.wrote(reply.seq)


def _check_write(held: Held, ack: str, request_id: object) -> None:
    held.check_open()
    if ack not in ACKS:
        raise InvalidArgument(f"expected ack one of {', '.join(ACKS)}, got {ack!r}")
    check_request_id(request_id, ack)


def _choose(
    held: Held,
    request: points_pb2.DeleteRequest | points_pb2.UpdatePayloadRequest,
    ids: Any,
    filter: Filter,
) -> None:
    if (ids is None) == (filter is None):
        raise InvalidArgument("expected either ids or a filter, got both or neither")
    if ids is not None:
        request.ids.CopyFrom(convert.ids_message(list(dict.fromkeys(as_point_ids(ids)))))
    elif (where := convert.filter_message(filter, held.schema)) is not None:
        request.filter.CopyFrom(where)


def _written(held: Held, method: str, request: Any, ack: Ack, request_id: str | None) -> Steps[int]:
    """Send a write. Under its request id it is done once; without one it is sent once."""
    request.ack = words.ACKS[ack]
    if ack != "memory":
        request.request_id = new_request_id(request_id)
    reply: points_pb2.WriteReply = yield Call(
        f"/soardb.v1.Points/{method}",
        request,
        points_pb2.WriteReply,
        "write",
        is_repeatable=ack != "memory",
    )
    held.wrote(reply.seq)
    return reply.count


# ---- reading ----


def _read(held: Held, method: str, request: Message, reply: type[Message]) -> Steps[Any]:
    """Send a read that wants to see the writes of this client.

    Where the server has not seen them, another client may have made a new collection of that name:
    then this handle is one of a collection that was dropped. Errors: Closed, Unavailable.
    """
    call = Call(f"/soardb.v1.Points/{method}", request, reply)
    try:
        return (yield call)
    except NotYet:
        message = yield from described(held)
    if message.id != held.id:
        held.closed = "dropped"
        held.check_open()
    try:
        return (yield call)
    except NotYet as error:
        raise Unavailable(str(error)) from None


def described(held: Held) -> Steps[collections_pb2.Collection]:
    """What the server says of the collection now."""
    held.check_open()
    reply: collections_pb2.Collection = yield Call(
        "/soardb.v1.Collections/Get",
        collections_pb2.GetCollectionRequest(collection=held.name),
        collections_pb2.Collection,
    )
    return reply


def get(held: Held, ids: Any, with_vectors: bool) -> Steps[list[Point | None]]:
    """The points of ids, in order; None where there is none."""
    plain = as_point_ids(ids)
    held.check_open()
    reply: points_pb2.GetReply = yield from _read(
        held,
        "Get",
        points_pb2.GetRequest(
            collection=held.name,
            ids=convert.ids_message(plain),
            with_vectors=bool(with_vectors),
            min_seq=held.seq,
        ),
        points_pb2.GetReply,
    )
    return convert.points_found(reply, plain, held.d, bool(with_vectors))


def scroll(
    held: Held,
    filter: Filter,
    page_size: int,
    page_token: str | None,
    with_payload: bool,
    with_vectors: bool,
) -> Steps[Page]:
    """One page."""
    page_size = as_int(page_size, "page_size", 1, MAX_PAGE)
    where = convert.filter_message(filter, held.schema)
    if page_token is not None and (not isinstance(page_token, str) or not page_token.isascii()):
        read_token(page_token, b"")  # no message holds it; this says what is wrong
    if page_token == "":
        read_token("", b"")
    held.check_open()
    reply: points_pb2.ScrollReply = yield from _read(
        held,
        "Scroll",
        points_pb2.ScrollRequest(
            collection=held.name,
            filter=where,
            page_size=page_size,
            page_token=page_token,
            with_payload=bool(with_payload),
            with_vectors=bool(with_vectors),
            min_seq=held.seq,
        ),
        points_pb2.ScrollReply,
    )
    return convert.page_of(reply, held.d, bool(with_payload), bool(with_vectors))


def count(held: Held, filter: Filter) -> Steps[int]:
    """How many points there are, or match."""
    where = convert.filter_message(filter, held.schema)
    held.check_open()
    request = points_pb2.CountRequest(collection=held.name, filter=where, min_seq=held.seq)
    reply: points_pb2.CountReply = yield from _read(held, "Count", request, points_pb2.CountReply)
    return reply.count


def export(held: Held, size: int) -> Call:
    """The call that streams every point. Batches are smaller where `size` points are many bytes."""
    size = as_int(size, "size", 1, 2**31)
    held.check_open()
    rows = min(size, _EXPORT_ROWS, max(1, _EXPORT_BYTES // (4 * held.d + 256)))
    return Call(
        "/soardb.v1.Points/Export",
        points_pb2.ExportRequest(collection=held.name, batch_size=rows, min_seq=held.seq),
        points_pb2.ExportBatch,
        "long",
        is_repeatable=False,
    )


def stats(held: Held) -> Steps[dict[str, Any]]:
    """Counts and bytes by part."""
    held.check_open()
    reply: indexes_pb2.IndexStatus = yield Call(
        "/soardb.v1.Indexes/Status",
        indexes_pb2.IndexStatusRequest(collection=held.name),
        indexes_pb2.IndexStatus,
    )
    return convert.status_of(reply)


# ---- searching ----


def search(
    held: Held, query: npt.ArrayLike | None, limit: int, options: SearchOptions
) -> Steps[Any]:
    """Hits, or a list of them for (nq, d) queries."""
    if query is not None and not isinstance(query, np.ndarray):
        query = np.asarray(query)
    found = yield from search_columns(held, query, limit, options)
    is_one = (
        query is None
        or query.ndim == 1
        or options.get("text") is not None
        or options.get("group_by") is not None
    )
    return found.split()[0] if is_one else found.split()


def search_columns(
    held: Held, query: npt.ArrayLike | None, limit: int, options: SearchOptions
) -> Steps[HitColumns]:
    """The flat columns of a search."""
    unknown = options.keys() - SearchOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"search() got an unexpected keyword argument {min(unknown)!r}")
    request = search_request(held, query, limit, **options)
    return (yield from searched(held, request, is_grouped=options.get("group_by") is not None))


def searched(
    held: Held, request: points_pb2.SearchRequest, *, is_grouped: bool = False
) -> Steps[HitColumns]:
    """Send a search that was checked."""
    held.check_open()
    reply: points_pb2.SearchReply = yield from _read(
        held, "Search", request, points_pb2.SearchReply
    )
    return convert.hit_columns(
        reply, held.d, request.with_payload, request.with_vectors, is_grouped
    )


def search_request(
    held: Held,
    query: npt.ArrayLike | None,
    limit: int,
    *,
    k: int | None = None,
    id: PointId | None = None,
    text: str | None = None,
    text_fields: Sequence[str] | None = None,
    fusion: Fusion = "rrf",
    weights: tuple[float, float] = (1.0, 1.0),
    filter: Filter = None,
    nprobe: int | None = None,
    rerank: int | None = None,
    target_recall: float | None = None,
    exact: bool = False,
    threads: int = 1,
    score_threshold: float | None = None,
    group_by: str | None = None,
    group_size: int = 3,
    with_payload: bool = True,
    with_vectors: bool = False,
    explain: bool = False,
    merge_recall: float | None = None,
    measure_merge: bool = False,
    allow_partial: bool = False,
    timeout: float | None = None,
) -> points_pb2.SearchRequest:
    """Check one search as soardb/ask.py does, and in its order. timeout: not its affair."""
    request = points_pb2.SearchRequest(
        collection=held.name,
        with_payload=bool(with_payload),
        with_vectors=bool(with_vectors),
        limit=as_int(limit if k is None else k, "limit", 1, MAX_LIMIT),
        filter=convert.filter_message(filter, held.schema),
        nprobe=None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
        rerank=None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
        target_recall=(
            None if target_recall is None else as_only_target(target_recall, nprobe, rerank, exact)
        ),
        exact=bool(exact),
        explain=bool(explain),
        merge_recall=None if merge_recall is None else as_share(merge_recall, "merge_recall"),
        measure_merge=bool(measure_merge),
        allow_partial=bool(allow_partial),
        min_seq=held.seq,
    )
    as_int(threads, "threads", 1, 1024)  # how many it takes is the server's affair
    check_sought(query, id, text)
    if score_threshold is not None:
        request.score_threshold = as_number(score_threshold, "score_threshold")
    if id is not None:
        request.like.CopyFrom(convert.ids_message(as_point_ids([id])))
    if text is not None:
        how, shares = check_words(text, text_fields, fusion, weights, score_threshold, group_by)
        request.text.CopyFrom(_text_query(text, text_fields, how, shares))
    if group_by is not None:
        check_group_by(group_by, held.schema.fields.get(group_by))
        request.group_by = group_by
    if query is not None:
        queries = as_asked(query, held.d)
        if text is not None or group_by is not None:
            one_query(queries)
        request.vectors.CopyFrom(columns.pack_matrix(queries))
    if group_by is not None:
        request.group_size = as_int(group_size, "group_size", 1, 1000)
    return request


def _text_query(
    text: str, text_fields: Sequence[str] | None, fusion: Fusion, weights: tuple[float, float]
) -> points_pb2.TextQuery:
    return points_pb2.TextQuery(
        words=as_text(text, "text"),
        fields=[as_text(name, "text_fields") for name in text_fields or ()],
        fusion=fusion,
        vector_weight=weights[0],
        text_weight=weights[1],
    )
