"""How the blocking client reaches its server: channels, attempts, streams.

    client.py -> [wire.py] -> target.py, retry.py, failures.py; aio_wire.py is the same for asyncio

Nothing here knows what a call is about.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from soardb.errors import SoarError, Unavailable
from soardb_client.calls import Call, Steps
from soardb_client.collections import Known
from soardb_client.failures import Failure, error_of, failure_of
from soardb_client.gather import Gather
from soardb_client.ingest import ACK, PATH, Stream
from soardb_client.retry import Attempts, Backoff, Limit
from soardb_client.target import Settings

__all__ = ["Link", "Wire", "channel_of", "error_for", "serialised"]

T = TypeVar("T")


class Wire:
    """Channels to one server, used in turn, and how calls are made on them."""

    def __init__(self, settings: Settings, backoff: Backoff | None = None) -> None:
        self.settings = settings
        self.known = Known(settings.target)
        self.backoff = backoff or Backoff(settings.retries)
        channels = [channel_of(settings) for _ in range(settings.connections)]
        self._channels = channels
        made: list[tuple[grpc.Channel, dict[str, Any]]] = [(channel, {}) for channel in channels]
        self.gather = Gather(settings.gather) if settings.gather else None
        self._turns = itertools.cycle(made)

    def run(self, steps: Steps[T], timeout: float | None = None) -> T:
        """Run a method. timeout: seconds for all of it; that of each call unless told."""
        limit = self.limit(timeout)
        try:
            call = next(steps)
            while True:
                try:
                    reply = self.answer(call, limit)
                except SoarError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value

    def answer(self, call: Call, limit: Limit) -> Message:
        """The reply to one call, tried as often as it may be. Errors: SoarError."""
        attempts = Attempts(self.backoff, self._seconds(call, limit))
        while True:
            try:
                reply: Message = self._method("unary_unary", call.path, call.reply)(
                    call.request, timeout=attempts.remaining_s(), metadata=self.settings.metadata
                )
                return reply
            except grpc.RpcError as error:
                failure = failure_of(error)
                pause = attempts.pause_after(failure, call.is_repeatable)
                if pause is None:
                    raise error_for(failure, call.path, self.known) from None
            time.sleep(pause)

    def parts(self, call: Call, timeout: float | None = None) -> Iterator[Any]:
        """The parts of a streamed answer. Never tried again: what came before cannot be unsaid."""
        self.known.check_open()
        stream = self._method("unary_stream", call.path, call.reply)(
            call.request,
            timeout=self.limit(timeout).left_s(),
            metadata=self.settings.metadata,
        )
        try:
            yield from stream
        except grpc.RpcError as error:
            raise error_for(failure_of(error), call.path, self.known) from None
        finally:
            stream.cancel()

    def send(self, path: str, messages: Iterator[Message], reply: type[Message]) -> Any:
        """The answer to a stream of messages."""
        self.known.check_open()
        try:
            return self._method("stream_unary", path, reply)(
                messages, metadata=self.settings.metadata
            )
        except grpc.RpcError as error:
            raise error_for(failure_of(error), path, self.known) from None

    def ingest(self, stream: Stream, batches: Iterable[Any], resume: bool) -> int:
        """Write batches until there are no more; how many points."""
        feed = _Feed(stream, batches)
        retries = 4 * self.backoff.retries if resume else 0
        attempts = Attempts(replace(self.backoff, retries=retries), None)
        while True:
            self.known.check_open()
            link = Link(self._method("stream_stream", PATH, ACK), self.settings)
            try:
                _pump(stream, feed, link, attempts)
                return stream.count
            except grpc.RpcError as error:
                failure = failure_of(error)
                pause = attempts.pause_after(failure, is_repeatable=True)
                if pause is None:
                    raise error_for(failure, PATH, self.known) from None
            finally:
                link.end()
            time.sleep(pause)

    def close(self) -> None:
        """End calls under way and close the connections."""
        self.known.close()
        for channel in self._channels:
            channel.close()

    def limit(self, timeout: float | None) -> Limit:
        """The time that a method has. Errors: InvalidArgument."""
        return Limit(timeout, self.backoff.clock)

    def _seconds(self, call: Call, limit: Limit) -> float | None:
        self.known.check_open()
        left = limit.left_s()
        return self.settings.seconds(call.kind, call.least_s) if left is None else left

    def _method(self, shape: str, path: str, reply: type[Message]) -> Any:
        """A method on the channel whose turn it is; made once a channel."""
        channel, made = next(self._turns)
        if path not in made:
            made[path] = getattr(channel, shape)(
                path,
                request_serializer=serialised,
                response_deserializer=reply.FromString,
            )
        return made[path]


def error_for(failure: Failure, path: str, known: Known) -> SoarError:
    """What to raise; Closed where the call ended because the client was closed."""
    if failure.code == "CANCELLED" and known.closed:
        return known.was_closed()
    return error_of(failure, known.target, path)


def serialised(message: Message) -> bytes:
    """The bytes of a message."""
    return message.SerializeToString()


def channel_of(settings: Settings) -> grpc.Channel:
    """A connection of its own, made at the first call."""
    options = settings.channel_options()
    if settings.tls is None:
        return grpc.insecure_channel(settings.address, options)
    return grpc.secure_channel(
        settings.address, grpc.ssl_channel_credentials(*settings.tls), options
    )


class Link:
    """One stream of batches there and acknowledgements back."""

    def __init__(self, method: Any, settings: Settings) -> None:
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._stream = method(iter(self._waiting.get, None), metadata=settings.metadata)

    def send(self, message: Message) -> None:
        """Queue a message; how the stream ends is said by receive()."""
        self._waiting.put(message)

    def receive(self) -> Any:
        """The next acknowledgement. Errors: grpc.RpcError, Unavailable where the stream ended."""
        ack = next(self._stream, None)
        if ack is None:
            raise Unavailable("expected an acknowledgement of each batch, the stream ended before")
        return ack

    def finish(self) -> None:
        """Say that no more comes, and let the server end the stream."""
        self._waiting.put(None)
        for _ in self._stream:
            pass

    def end(self) -> None:
        """Let go of it, finished or not."""
        self._waiting.put(None)
        self._stream.cancel()


class _Feed:
    """The messages of a caller's batches, one after the other."""

    def __init__(self, stream: Stream, batches: Iterable[Any]) -> None:
        self._messages = (m for item in batches for m in stream.messages(item))
        self.error: Exception | None = None

    def next(self) -> tuple[Any, int] | None:
        """The next message and its rows; None at the end, or where the caller's batches failed."""
        try:
            return next(self._messages, None)
        except Exception as error:  # noqa: BLE001  raised once what came before is written
            self.error = error
            return None


def _pump(stream: Stream, feed: _Feed, link: Link, attempts: Attempts) -> None:
    """Send what the window allows and take acknowledgements, until all is written."""
    link.send(stream.opening())
    stream.opened(link.receive())
    for message in stream.unacknowledged():
        link.send(message)
    while True:
        while not stream.is_full and (following := feed.next()) is not None:
            stream.sent(*following)
            link.send(following[0])
        if stream.is_settled:
            break
        stream.acknowledged(link.receive())
        attempts.begin_again()
    link.finish()
    if feed.error is not None:
        raise feed.error
