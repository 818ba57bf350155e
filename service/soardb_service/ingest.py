"""Streams of writes: batches in, acknowledgements out, as many under way as the window allows.

    points.py -> [ingest.py] -> soardb.Collection.begin_put

One thread takes batches from the wire, checks them and queues them, and the collection's writer
commits what has gathered at once; the other thread, grpc's own, answers in order. So a slow disk
fills the window, the window stops the client, and nothing piles up here.

A batch is written under the request id `stream/number`: sent twice, it is applied once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from soardb import deadline
from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.options import Ack
from soardb_proto.v1 import points_pb2 as pb
from soardb_service.convert import ack_of, ids_of, mode_of, payloads_of, vectors_of
from soardb_service.limits import Limits
from soardb_service.observe import Metrics
from soardb_service.rpc import Call, opened

__all__ = ["ingest", "seq_of"]

_MAX_STREAM_ID = 64
_LOOK_S = 0.1


def seq_of(collection: Collection, ack: Ack = "fsync") -> int:
    """What a read must name to see all that was written; 0: nothing, or it sees that anyway.

    Over a cluster each shard has one process, which searches all that it acknowledged.
    """
    return 0 if ack == "memory" or collection.shards > 1 else collection.seq


def ingest(
    database: Database,
    limits: Limits,
    metrics: Metrics,
    requests: Iterator[pb.IngestRequest],
    call: Call,
) -> Iterator[pb.IngestAck]:
    """Acknowledgements of a stream, the first of which opens it. Errors end the stream.

    What was acknowledged stands, whatever comes after.
    """
    first = next(iter(requests), None)
    if first is None:
        raise InvalidArgument("expected a first message that names the collection, got none")
    if first.ids.WhichOneof("kind") is not None or first.vectors.data:
        raise InvalidArgument("expected the first message to open the stream, got points in it")
    if not first.stream_id.isprintable() or len(first.stream_id) > _MAX_STREAM_ID:
        raise InvalidArgument(
            f"expected a stream_id of at most {_MAX_STREAM_ID} printable characters, "
            f"got {first.stream_id[:80]!r}"
        )
    collection = opened(database, call, first.collection)
    stream = _Stream(collection, limits, first)
    yield pb.IngestAck(window=limits.ingest_window)
    taker = threading.Thread(target=stream.take, args=(requests,), daemon=True)
    taker.start()
    total = 0
    try:
        for number, count in stream.finished():
            total += count
            metrics.rows.inc(count)
            yield pb.IngestAck(batch=number, count=total, seq=seq_of(collection, stream.ack))
    finally:
        stream.is_over.set()
        call.notes["points"] = total


class _Stream:
    """The batches under way of one stream: (number, future of the count), or what ended it."""

    def __init__(self, collection: Collection, limits: Limits, first: pb.IngestRequest) -> None:
        self._collection = collection
        self._limits = limits
        self._mode = mode_of(first.mode)
        self.ack = ack_of(first.ack)
        self._id = first.stream_id
        self._last: int | None = None
        self.is_over = threading.Event()
        self._under_way: queue.Queue[tuple[int, Future[int]] | BaseException | None] = queue.Queue(
            limits.ingest_window
        )

    def take(self, requests: Iterator[pb.IngestRequest]) -> None:
        """Queue each batch that comes, until the client is done, wrong or gone."""
        end: BaseException | None = None
        try:
            for request in requests:
                if not self._put((request.batch, self._begin(request))):
                    return
        except BaseException as error:  # noqa: BLE001  the other thread raises it
            end = error
        self._put(end)

    def _put(self, item: Any) -> bool:
        while not self.is_over.is_set():
            try:
                self._under_way.put(item, timeout=_LOOK_S)
                return True
            except queue.Full:
                continue
        return False

    def _begin(self, request: pb.IngestRequest) -> Future[int]:
        if self._last is not None and request.batch != self._last + 1:
            raise InvalidArgument(
                f"expected batch {self._last + 1} next, got {request.batch}; batches count up by 1"
            )
        self._last = request.batch
        try:
            ids = ids_of(request.ids, self._limits)
            vectors = vectors_of(request.vectors, self._limits, "rows")
            payloads = payloads_of(request.payloads, len(ids))
            return self._collection.begin_put(
                ids,
                vectors,
                payloads,
                mode=self._mode,
                ack=self.ack,
                request_id=f"{self._id}/{request.batch}" if self._id else None,
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"batch {request.batch}: {error}") from None

    def finished(self) -> Iterator[tuple[int, int]]:
        """(number, count) of each batch once it is written, in order."""
        while True:
            try:
                item = self._under_way.get(timeout=_LOOK_S)
            except queue.Empty:
                deadline.check()
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            number, future = item
            yield number, future.result()
