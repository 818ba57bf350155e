"""The proto service Points: writing, reading and searching, all but the streams of writes.

    rpc.py -> [points.py] -> soardb.Collection, soardb/batching.py; ingest.py has Ingest

Each method turns a message into one call of the engine and its answer into a message.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from soardb import deadline
from soardb.batching import Batcher
from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.hits import Point
from soardb.kernels.layout import F32
from soardb.options import Ack
from soardb_proto import columns
from soardb_proto.v1 import points_pb2 as pb
from soardb_proto.v1 import types_pb2
from soardb_service.convert import (
    ack_of,
    filter_of,
    ids_of,
    json_of,
    mode_of,
    payloads_message,
    payloads_of,
    search_reply,
    vectors_message,
    vectors_of,
)
from soardb_service.gate import NotYet
from soardb_service.ingest import ingest, seq_of
from soardb_service.limits import Limits
from soardb_service.observe import Metrics
from soardb_service.rpc import Call, opened

__all__ = ["Points"]

_FOLLOW_S = 1.0
_EXPORT_BATCH = 1_000
_DEFAULT_LIMIT = 10
_DEFAULT_PAGE = 100


class Points:
    """One method an rpc, named as in the .proto file."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        metrics: Metrics,
        batcher: Batcher[Any, Any] | None,
    ) -> None:
        self._database = database
        self._limits = limits
        self._metrics = metrics
        self._batcher = batcher

    # ---- writing ----

    def Upsert(self, request: pb.UpsertRequest, call: Call) -> pb.WriteReply:  # noqa: N802
        """Store points."""
        collection = opened(self._database, call, request.collection)
        ids = ids_of(request.ids, self._limits)
        vectors = vectors_of(request.vectors, self._limits, "rows")
        payloads = payloads_of(request.payloads, len(ids))
        write = collection.insert if mode_of(request.mode) == "insert" else collection.upsert
        ack = ack_of(request.ack)
        count = write(ids, vectors, payloads, ack=ack, request_id=request.request_id or None)
        return self._written(collection, count, ack)

    def Delete(self, request: pb.DeleteRequest, call: Call) -> pb.WriteReply:  # noqa: N802
        """Delete points by id, or all that match."""
        collection = opened(self._database, call, request.collection)
        ids, where = self._chosen(request)
        ack = ack_of(request.ack)
        count = collection.delete(ids, filter=where, ack=ack, request_id=request.request_id or None)
        return self._written(collection, count, ack)

    def UpdatePayload(self, request: pb.UpdatePayloadRequest, call: Call) -> pb.WriteReply:  # noqa: N802
        """Change payloads of ids, or of all that match."""
        collection = opened(self._database, call, request.collection)
        ids, where = self._chosen(request)
        payload: Any = payloads_of(request.payloads, 0 if ids is None else len(ids))
        if payload is None:
            payload = json_of(request.payload, "payload")
        elif request.payload:
            raise InvalidArgument("expected payload or payloads, got both")
        ack = ack_of(request.ack)
        count = collection.update_payload(
            payload,
            ids=ids,
            filter=where,
            replace=request.replace,
            ack=ack,
            request_id=request.request_id or None,
        )
        return self._written(collection, count, ack)

    def _chosen(self, request: Any) -> tuple[list[Any] | None, Any]:
        what = request.WhichOneof("what")
        if what == "ids":
            return ids_of(request.ids, self._limits), None
        where = filter_of(request.filter)
        if where is None:
            raise InvalidArgument("expected either ids or a filter, got both or neither")
        return None, where

    def _written(self, collection: Collection, count: int, ack: Ack) -> pb.WriteReply:
        self._metrics.rows.inc(count)
        return pb.WriteReply(count=count, seq=seq_of(collection, ack))

    def Flush(self, request: pb.FlushRequest, call: Call) -> pb.FlushReply:  # noqa: N802
        """Wait for writes that were acknowledged from memory."""
        collection = opened(self._database, call, request.collection)
        collection.flush()
        return pb.FlushReply(seq=seq_of(collection))

    def Ingest(self, requests: Iterator[pb.IngestRequest], call: Call) -> Iterator[pb.IngestAck]:  # noqa: N802
        """Write a stream of batches."""
        return ingest(self._database, self._limits, self._metrics, requests, call)

    # ---- reading ----

    def Get(self, request: pb.GetRequest, call: Call) -> pb.GetReply:  # noqa: N802
        """Points by id."""
        collection = self._read(request, call)
        ids = ids_of(request.ids, self._limits)
        found = collection.get(ids, with_vectors=request.with_vectors)
        places = [i for i, point in enumerate(found) if point is not None]
        points = [point for point in found if point is not None]
        reply = pb.GetReply(
            found=columns.pack_numbers(places, "<u4"), payloads=payloads_message(points)
        )
        if request.with_vectors:
            reply.vectors.CopyFrom(vectors_message(points, collection.d))
        return reply

    def Scroll(self, request: pb.ScrollRequest, call: Call) -> pb.ScrollReply:  # noqa: N802
        """A page of points."""
        collection = self._read(request, call)
        size = request.page_size or min(_DEFAULT_PAGE, self._limits.page_size)
        page = collection.scroll(
            filter=filter_of(request.filter),
            page_size=self._limits.check("page_size", size, "page_size"),
            page_token=request.page_token or None,
            with_payload=request.with_payload,
            with_vectors=request.with_vectors,
        )
        points: list[Point] = page.points
        reply = pb.ScrollReply(
            ids=columns.pack_ids([point.id for point in points]),
            next_page_token=page.next_page_token or "",
        )
        if request.with_payload:
            reply.payloads.CopyFrom(payloads_message(points))
        if request.with_vectors:
            reply.vectors.CopyFrom(vectors_message(points, collection.d))
        return reply

    def Count(self, request: pb.CountRequest, call: Call) -> pb.CountReply:  # noqa: N802
        """How many points there are, or match."""
        collection = self._read(request, call)
        return pb.CountReply(count=collection.count(filter_of(request.filter)))

    def Export(self, request: pb.ExportRequest, call: Call) -> Iterator[pb.ExportBatch]:  # noqa: N802
        """Every point, as of now."""
        collection = self._read(request, call)
        size = request.batch_size or min(_EXPORT_BATCH, self._limits.rows)
        self._limits.check("rows", size, "batch_size")
        for batch in collection.batches(size):
            deadline.check()
            yield pb.ExportBatch(
                ids=columns.pack_ids(batch.ids),
                vectors=columns.pack_matrix(batch.vectors),
                payloads=types_pb2.Payloads(json=batch.payloads),
            )

    def _read(self, request: Any, call: Call) -> Collection:
        """The collection of a request, with the writes that it wants to see."""
        collection = opened(self._database, call, request.collection)
        if request.min_seq:
            # Only a reading process can be behind what was acknowledged.
            wait_s = _FOLLOW_S if self._database.is_read_only else 0.0
            end = time.monotonic() + wait_s
            while collection.seq < request.min_seq:
                deadline.check()
                if time.monotonic() > end:
                    raise NotYet(
                        f"expected {collection.name!r} to hold write {request.min_seq}, it is at "
                        f"{collection.seq}; was it dropped or restored meanwhile?"
                    )
                time.sleep(0.002)
        return collection

    # ---- searching ----

    def Search(self, request: pb.SearchRequest, call: Call) -> pb.SearchReply:  # noqa: N802
        """The closest points to each query."""
        collection = self._read(request, call)
        asked = _asked(request)
        queries: Any = None
        if request.WhichOneof("query") == "vectors":
            queries = vectors_of(request.vectors, self._limits, "queries")
        n = 1 if queries is None else len(queries)
        limit = self._limits.check(
            "limit", request.limit or min(_DEFAULT_LIMIT, self._limits.limit), "limit"
        )
        self._limits.check("results", n * limit, "queries times limit", "ask in several calls")
        call.notes.update(queries=n, limit=limit)
        self._metrics.queries.inc(n)
        if self._batcher is not None and _can_gather(request, queries, collection):
            return self._gathered(collection, request, queries, limit, asked)
        if request.WhichOneof("query") == "like":
            asked["id"] = _one_id(request.like, self._limits)
        found = collection.search_columns(queries, limit, filter=filter_of(request.filter), **asked)
        if found.plan is not None:
            call.notes["plan"] = found.plan.strategy
        return search_reply(found)

    def _gathered(
        self,
        collection: Collection,
        request: pb.SearchRequest,
        queries: F32,
        limit: int,
        asked: dict[str, Any],
    ) -> pb.SearchReply:
        """One query, searched together with others of its kind if there are any waiting."""
        assert self._batcher is not None
        where = request.filter.SerializeToString(deterministic=True)
        kind: Hashable = (collection.id, where, limit, *sorted(asked.items()))

        def search(together: Sequence[F32]) -> Sequence[pb.SearchReply]:
            if len(together) > 1:
                self._metrics.batch.observe(len(together))
            joined = together[0] if len(together) == 1 else np.concatenate(together)
            # Not under the deadline of one of them: a query takes a fraction of a millisecond.
            with deadline.without():
                found = collection.search_columns(
                    joined, limit, filter=filter_of(request.filter), **asked
                )
            return [search_reply(part) for part in found.each()]

        reply: pb.SearchReply = self._batcher.run(kind, queries, search)
        return reply


def _asked(request: pb.SearchRequest) -> dict[str, Any]:
    """The arguments of search_columns that a message says, but for query, limit and filter."""
    asked: dict[str, Any] = {
        "exact": request.exact,
        "with_payload": request.with_payload,
        "with_vectors": request.with_vectors,
    }
    for name in ("nprobe", "rerank", "target_recall", "score_threshold", "merge_recall"):
        if request.HasField(name):
            asked[name] = getattr(request, name)
    for name in ("explain", "measure_merge", "allow_partial"):
        if getattr(request, name):
            asked[name] = True
    if request.group_by:
        asked["group_by"] = request.group_by
        asked["group_size"] = request.group_size or 3
    if request.HasField("text"):
        text = request.text
        asked["text"] = text.words
        asked["text_fields"] = list(text.fields) or None
        asked["fusion"] = text.fusion or "rrf"
        asked["weights"] = (
            text.vector_weight if text.HasField("vector_weight") else 1.0,
            text.text_weight if text.HasField("text_weight") else 1.0,
        )
    return asked


def _can_gather(request: pb.SearchRequest, queries: Any, collection: Collection) -> bool:
    """Whether it is one plain query, which may share a call with others.

    Not over shards: one that is slow would keep all of them beyond the deadlines of some.
    """
    return (
        queries is not None
        and queries.shape == (1, collection.d)
        and collection.shards == 1
        and queries.dtype == np.float32
        and not (request.exact or request.explain or request.measure_merge)
        and not (request.group_by or request.HasField("text"))
    )


def _one_id(ids: types_pb2.Ids, limits: Limits) -> Any:
    found = ids_of(ids, limits, "like")
    if len(found) != 1:
        raise InvalidArgument(f"expected one id in like, got {len(found)}")
    return found[0]
