"""How the asyncio client reaches its server: channels, attempts, streams.

    aio.py -> [aio_wire.py] -> target.py, retry.py, failures.py, wire.py

Streams of requests, which are ingest() and uploads, go over grpc's blocking API with a thread to
wait in: where a write fails because the server has ended the stream, grpc.aio loses the status that
says why.

Nothing here knows what a call is about.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from soardb.errors import SoarError
from soardb_client.calls import Call, Steps
from soardb_client.collections import Known
from soardb_client.failures import failure_of
from soardb_client.ingest import ACK, PATH, Stream
from soardb_client.retry import Attempts, Backoff, Limit
from soardb_client.target import Settings
from soardb_client.wire import Link, channel_of, error_for, serialised

__all__ = ["AsyncWire"]

T = TypeVar("T")

_STREAMS = 64  # waited for at once


class AsyncWire:
    """Channels to one server, used in turn, and how calls are made on them."""

    def __init__(self, settings: Settings, backoff: Backoff | None = None) -> None:
        self.settings = settings
        self.known = Known(settings.target)
        self.backoff = backoff or Backoff(settings.retries)
        self._channels: list[grpc.aio.Channel] = []
        self._turns: Iterator[tuple[grpc.aio.Channel, dict[str, Any]]] = iter(())
        self._blocking: grpc.Channel | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, steps: Steps[T], timeout: float | None = None) -> T:
        """Run a method. timeout: seconds for all of it; that of each call unless told."""
        limit = self.limit(timeout)
        try:
            call = next(steps)
            while True:
                try:
                    reply = await self.answer(call, limit)
                except SoarError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as done:
            value: T = done.value
            return value

    async def answer(self, call: Call, limit: Limit) -> Message:
        """The reply to one call, tried as often as it may be. Errors: SoarError."""
        attempts = Attempts(self.backoff, self._seconds(call, limit))
        while True:
            try:
                reply: Message = await self._method("unary_unary", call.path, call.reply)(
                    call.request, timeout=attempts.remaining_s(), metadata=self.settings.metadata
                )
                return reply
            except asyncio.CancelledError:
                raise self.cancelled() from None
            except grpc.RpcError as error:
                failure = failure_of(error)
                pause = attempts.pause_after(failure, call.is_repeatable)
                if pause is None:
                    raise error_for(failure, call.path, self.known) from None
            await asyncio.sleep(pause)

    async def parts(self, call: Call, timeout: float | None = None) -> AsyncIterator[Any]:
        """The parts of a streamed answer. Never tried again: what came before cannot be unsaid."""
        self.known.check_open()
        stream = self._method("unary_stream", call.path, call.reply)(
            call.request,
            timeout=self.limit(timeout).left_s(),
            metadata=self.settings.metadata,
        )
        try:
            async for part in stream:
                yield part
        except asyncio.CancelledError:
            raise self.cancelled() from None
        except grpc.RpcError as error:
            raise error_for(failure_of(error), call.path, self.known) from None
        finally:
            stream.cancel()

    async def send(self, path: str, messages: Iterator[Message], reply: type[Message]) -> Any:
        """The answer to a stream of messages."""
        self.known.check_open()
        call = self._blocking_method("stream_unary", path, reply).future(
            messages, metadata=self.settings.metadata
        )
        try:
            return await self._elsewhere(call.result)
        except grpc.RpcError as error:
            raise error_for(failure_of(error), path, self.known) from None
        finally:
            call.cancel()

    async def ingest(
        self, stream: Stream, batches: Iterable[Any] | AsyncIterable[Any], resume: bool
    ) -> int:
        """Write batches until there are no more; how many points."""
        feed = _Feed(stream, batches)
        retries = 4 * self.backoff.retries if resume else 0
        attempts = Attempts(replace(self.backoff, retries=retries), None)
        while True:
            self.known.check_open()
            method = self._blocking_method("stream_stream", PATH, ACK)
            link = Link(method, self.settings)
            try:
                await self._pump(stream, feed, link, attempts)
                return stream.count
            except grpc.RpcError as error:
                failure = failure_of(error)
                pause = attempts.pause_after(failure, is_repeatable=True)
                if pause is None:
                    raise error_for(failure, PATH, self.known) from None
            finally:
                link.end()
            await asyncio.sleep(pause)

    async def _pump(self, stream: Stream, feed: _Feed, link: Link, attempts: Attempts) -> None:
        """Send what the window allows and take acknowledgements, until all is written."""
        link.send(stream.opening())
        stream.opened(await self._elsewhere(link.receive))
        for message in stream.unacknowledged():
            link.send(message)
        while True:
            while not stream.is_full and (following := await feed.next()) is not None:
                stream.sent(*following)
                link.send(following[0])
            if stream.is_settled:
                break
            stream.acknowledged(await self._elsewhere(link.receive))
            attempts.begin_again()
        await self._elsewhere(link.finish)
        if feed.error is not None:
            raise feed.error

    async def _elsewhere(self, wait: Callable[[], T]) -> T:
        """What a call that blocks gives, waited for in another thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_STREAMS, thread_name_prefix="soardb-stream")
        return await asyncio.get_running_loop().run_in_executor(self._threads, wait)

    def cancelled(self) -> BaseException:
        """What a call that was cancelled ends with: Closed where that came of close()."""
        task = asyncio.current_task()
        is_callers = task is not None and task.cancelling() > 0
        if self.known.closed and not is_callers:
            return self.known.was_closed()
        return asyncio.CancelledError()

    async def close(self) -> None:
        """End calls under way and close the connections."""
        self.known.close()
        for channel in self._channels:
            await channel.close()
        if self._blocking is not None:
            self._blocking.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def limit(self, timeout: float | None) -> Limit:
        """The time that a method has. Errors: InvalidArgument."""
        return Limit(timeout, self.backoff.clock)

    def _seconds(self, call: Call, limit: Limit) -> float | None:
        self.known.check_open()
        left = limit.left_s()
        return self.settings.seconds(call.kind, call.least_s) if left is None else left

    def _method(self, shape: str, path: str, reply: type[Message]) -> Any:
        """A method on the channel whose turn it is. Channels are made in the loop of the first."""
        if not self._channels:
            self._channels = [_channel(self.settings) for _ in range(self.settings.connections)]
            self._turns = itertools.cycle([(channel, {}) for channel in self._channels])
        channel, made = next(self._turns)
        if path not in made:
            made[path] = getattr(channel, shape)(
                path, request_serializer=serialised, response_deserializer=reply.FromString
            )
        return made[path]

    def _blocking_method(self, shape: str, path: str, reply: type[Message]) -> Any:
        """A method of grpc's blocking API, for streams of requests."""
        if self._blocking is None:
            self._blocking = channel_of(self.settings)
        return getattr(self._blocking, shape)(
            path, request_serializer=serialised, response_deserializer=reply.FromString
        )


def _channel(settings: Settings) -> grpc.aio.Channel:
    options = settings.channel_options()
    if settings.tls is None:
        return grpc.aio.insecure_channel(settings.address, options)
    return grpc.aio.secure_channel(
        settings.address, grpc.ssl_channel_credentials(*settings.tls), options
    )


class _Feed:
    """The messages of a caller's batches, one after the other."""

    def __init__(self, stream: Stream, batches: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._messages = _messages(stream, batches)
        self.error: Exception | None = None

    async def next(self) -> tuple[Any, int] | None:
        """The next message and its rows; None at the end, or where the caller's batches failed."""
        try:
            return await anext(self._messages, None)
        except Exception as error:  # noqa: BLE001  raised once what came before is written
            self.error = error
            return None


async def _messages(
    stream: Stream, batches: Iterable[Any] | AsyncIterable[Any]
) -> AsyncIterator[tuple[Any, int]]:
    if isinstance(batches, AsyncIterable):
        async for item in batches:
            for message in stream.messages(item):
                yield message
        return
    for item in batches:
        for message in stream.messages(item):
            yield message
