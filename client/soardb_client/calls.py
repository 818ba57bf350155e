"""What a method of the client is, without saying how it travels: steps of calls.

    points.py, collections.py, operations.py -> [calls.py] -> run by client.py and aio.py

A method is a generator. It checks its arguments, yields a Call, is sent the reply, may yield more,
and returns its value. The blocking client and the asyncio one run the same generators, so what they
send and what they make of an answer cannot differ.

Nothing here imports grpc.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message

from soardb.errors import Closed, InvalidArgument
from soardb.kernels.layout import Metric
from soardb.schema import Schema, shown

__all__ = ["Call", "Held", "Steps", "as_text", "new_request_id"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request and how to treat it.

    path           /soardb.v1.Points/Search
    reply          the class of the answer, or of each part of a streamed one
    kind           which timeout it has where the caller says none; "long" has none
    is_repeatable  whether doing it twice is doing it once
    least_s        how long the server may take by what the request says, beside the timeout
    """

    path: str
    request: Message
    reply: type[Message]
    kind: Literal["read", "write", "long"] = "read"
    is_repeatable: bool = True
    least_s: float = 0.0


Steps = Generator[Call, Any, T]
"""A method: yields calls, is sent their replies, returns its value."""


@dataclass(slots=True)
class Held:
    """What the client knows of one collection, shared by all handles on it.

    id      of this collection and of no other that has its name
    seq     the last write of this client: reads ask for contents that hold it
    closed  how it was, or None
    """

    name: str
    d: int
    metric: Metric
    schema: Schema
    ttl: str | None
    id: str
    seq: int = 0
    closed: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def wrote(self, seq: int) -> None:
        """Note the sequence number of a write of ours."""
        with self._lock:
            self.seq = max(self.seq, seq)

    def check_open(self) -> None:
        """Closed where it was closed or dropped through this client."""
        if self.closed:
            raise Closed(f"collection {self.name!r} was {self.closed}")


def new_request_id(given: object = None) -> str:
    """The id under which a write is done once, however often it is sent."""
    if given is None:
        return uuid.uuid4().hex
    return as_text(given, "request_id")


def as_text(value: object, name: str) -> str:
    """A string with a UTF-8 form, as messages hold. Errors: InvalidArgument."""
    if not isinstance(value, str):
        raise InvalidArgument(f"expected {name} as a string, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"expected {name} that has a UTF-8 form, got half a surrogate pair: {shown(value)}"
        ) from None
    return value
