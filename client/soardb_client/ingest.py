"""The client's side of a stream of writes: what is under way, and what to send again.

    client.py, aio.py -> [ingest.py] -> points.py (the gate), convert.py

Batches are numbered from 1. At most `window` of them are unacknowledged; their messages are kept,
and a stream that is opened again under its id begins with them. The server remembers what it has
applied of a stream, so a batch whose acknowledgement was lost is not applied twice.

Nothing here sends: the two clients do, in their own way.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable
from soardb.options import ACKS, MAX_WINDOW, as_mode
from soardb.points import as_batch, as_columns, encode
from soardb_client import convert
from soardb_client.calls import Held
from soardb_proto import columns, words
from soardb_proto.v1 import points_pb2

__all__ = ["ACK", "PATH", "Stream"]

PATH, ACK = "/soardb.v1.Points/Ingest", points_pb2.IngestAck

_ROWS = 10_000
_BYTES = 16 * 2**20


class Stream:
    """One ingest(). Not for several threads."""

    def __init__(
        self,
        held: Held,
        mode: str,
        ack: str,
        window: int | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Errors: InvalidArgument, Closed."""
        chosen = as_mode(mode, ack)
        held.check_open()
        if ack not in ACKS:
            raise InvalidArgument(f"expected ack one of {', '.join(ACKS)}, got {ack!r}")
        self.count = 0
        self._held = held
        self._wanted = None if window is None else as_int(window, "window", 1, MAX_WINDOW)
        self._window = 1
        self._progress = progress
        self._last = 0
        self._under_way: dict[int, tuple[points_pb2.IngestRequest, int]] = {}
        self._opening = points_pb2.IngestRequest(
            collection=held.name,
            mode=points_pb2.INSERT if chosen == "insert" else points_pb2.UPSERT,
            ack=words.ACKS[ack],
            # What is only queued is not remembered, so there is nothing to resume by.
            stream_id="" if ack == "memory" else uuid.uuid4().hex,
        )

    # ---- what to send ----

    def opening(self) -> points_pb2.IngestRequest:
        """The first message, of the first stream and of each that resumes it."""
        self._opening.collection = self._held.name
        return self._opening

    def unacknowledged(self) -> list[points_pb2.IngestRequest]:
        """The batches to send again on a new stream, in order."""
        return [message for message, _ in self._under_way.values()]

    def messages(self, item: Any) -> Iterator[tuple[points_pb2.IngestRequest, int]]:
        """One batch of the caller as messages of a size that a server takes, and their rows.

        item: (ids, vectors), (ids, vectors, payloads) or a table. Errors: InvalidArgument.
        """
        held = self._held
        batch = as_batch(*as_columns(item), held.d, held.metric)
        encoded = encode(batch.payloads, len(batch.ids), held.schema, held.ttl)
        for rows in _parts([len(p) for p in encoded.payloads], 4 * held.d):
            self._last += 1
            message = points_pb2.IngestRequest(
                batch=self._last,
                ids=convert.ids_message(batch.ids[rows]),
                vectors=columns.pack_matrix(batch.vectors[rows]),
                payloads=None
                if batch.payloads is None
                else convert.payloads_message(encoded.payloads[rows]),
            )
            yield message, rows.stop - rows.start

    # ---- what was sent, and what came back ----

    def sent(self, message: points_pb2.IngestRequest, rows: int) -> None:
        """A batch is under way."""
        self._under_way[message.batch] = message, rows

    @property
    def is_full(self) -> bool:
        """Whether an acknowledgement has to come before the next batch is sent."""
        return len(self._under_way) >= self._window

    @property
    def is_settled(self) -> bool:
        """Whether everything that was sent is acknowledged."""
        return not self._under_way

    def opened(self, ack: points_pb2.IngestAck) -> None:
        """The server has opened the stream."""
        window = max(1, ack.window)
        self._window = window if self._wanted is None else min(window, self._wanted)
        self.acknowledged(ack)

    def acknowledged(self, ack: points_pb2.IngestAck) -> None:
        """All batches up to one are written. Errors: Unavailable for one that was never sent."""
        if ack.batch > self._last:
            raise Unavailable(
                f"expected an acknowledgement of batches up to {self._last}, got {ack.batch}"
            )
        self._held.wrote(ack.seq)
        before = self.count
        for number in [number for number in self._under_way if number <= ack.batch]:
            self.count += self._under_way.pop(number)[1]
        if self._progress is not None and self.count > before:
            self._progress(self.count)


def _parts(payload_bytes: list[int], vector_bytes: int) -> Iterator[slice]:
    """Rows that fit one message each."""
    ends = np.cumsum(np.array(payload_bytes, np.int64) + (vector_bytes + 64))
    first, n = 0, len(payload_bytes)
    while first < n:
        before = int(ends[first - 1]) if first else 0
        fits = int(np.searchsorted(ends, before + _BYTES, "right"))
        last = min(n, first + _ROWS, max(fits, first + 1))
        yield slice(first, last)
        first = last
