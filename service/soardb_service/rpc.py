"""Every method of the descriptors behind one gate: admit, parse, authorise, do, answer.

    server.py -> [rpc.py] -> gate.py, access.py, patience.py, convert.py; the handlers do the work

A request is bytes, which are received and parsed only for a caller who has been admitted, and
handled only for one who may: that is one function for all methods, made from the descriptors, so
that a method which is added to a .proto file is behind it from the start.

What a handler raises becomes a status; what nobody expected is logged under the id of the call and
told as INTERNAL with that id and nothing else.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from soardb import deadline
from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument, NotAllowed, SoarError, TimedOut
from soardb_proto.words import DETAILS
from soardb_service.access import Rule, rules
from soardb_service.convert import Internal, discreet, status_of
from soardb_service.gate import Caller, Gate, Overloaded
from soardb_service.observe import Metrics, Traces
from soardb_service.patience import Patience

__all__ = ["Call", "Door", "GrpcHandlers", "Pass", "abort", "handlers_of", "opened", "told_of"]

_log = structlog.get_logger("soardb_service")

_SEARCH = "/soardb.v1.Points/Search"
_PROCESS = secrets.token_hex(4)  # ids of calls: this, and a count
_NUMBERS = itertools.count(1)


@dataclass(slots=True)
class Call:
    """One call under way. notes: what the slow-call log should say of it."""

    id: str
    rule: Rule
    caller: Caller
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pass:
    """A handler of one method. takes_stream, gives_stream: as the descriptor says."""

    rule: Rule
    request: type[Message]
    handle: Callable[[Any, Call], Any]
    takes_stream: bool
    gives_stream: bool


def handlers_of(services: Mapping[str, object]) -> dict[str, Pass]:
    """{path: its handler}, for {service name: object with a method of each rpc's name}.

    Raises TypeError for a method of the descriptors that nobody handles.
    """
    passes = {}
    for rule in rules():
        handle = getattr(services.get(rule.service), rule.method.name, None)
        if handle is None:
            raise TypeError(f"{rule.path} has no handler")
        passes[rule.path] = Pass(
            rule,
            GetMessageClass(rule.method.input_type),
            handle,
            rule.method.client_streaming,
            rule.method.server_streaming,
        )
    return passes


class Door:
    """What stands between the wire and the handlers; gRPC and REST come through it alike.

    real_name(name): the collection that an alias stands for.
    """

    def __init__(
        self,
        gate: Gate,
        real_name: Callable[[str], str],
        metrics: Metrics,
        traces: Traces,
        *,
        default_timeout_s: float,
        streams: int,
        slow_ms: float | None,
        log_calls: bool,
    ) -> None:
        self._gate = gate
        self._real_name = real_name
        self._metrics = metrics
        self._traces = traces
        self._default_timeout_s = default_timeout_s
        self._streams = threading.BoundedSemaphore(streams)
        self._most_streams = streams
        self._slow_ms = slow_ms
        self._log_calls = log_calls
        self.in_flight = 0
        self._counting = threading.Lock()

    def count(self, step: int) -> None:
        """One call more or less under way."""
        with self._counting:
            self.in_flight += step
        self._metrics.in_flight.inc(step)

    # ---- the order in which a call is looked at ----

    def unary(
        self,
        way: Pass,
        data: bytes | Message | Callable[[], bytes],
        headers: Mapping[str, str],
        seconds: float | None,
        is_cancelled: Callable[[], bool],
    ) -> Message:
        """Answer one request: bytes, or what receives them; from REST a message.

        Errors: SoarError.
        """
        with _Counted(self, way, headers) as counted:
            call = counted.call()
            request = self._parsed(way, data)
            self.authorise(call, request)
            if seconds is None:
                seconds = self._default_timeout_s
            with deadline.within(seconds, is_cancelled=is_cancelled):
                deadline.check()
                reply: Message = way.handle(request, call)
            return reply

    def stream(
        self,
        way: Pass,
        data: Any,
        headers: Mapping[str, str],
        seconds: float | None,
        is_cancelled: Callable[[], bool],
    ) -> Generator[Message, None, None]:
        """Answer a call with a stream on either side. data: as in unary(), or an iterator."""
        with _Counted(self, way, headers) as counted:
            call = counted.call()
            with self.a_stream(), deadline.within(seconds, is_cancelled=is_cancelled):
                if way.takes_stream:
                    asked: Any = self._each_parsed(way, data, call)
                else:
                    asked = self._parsed(way, data)
                    self.authorise(call, asked)
                answer = way.handle(asked, call)
                if way.gives_stream:
                    yield from answer
                else:
                    yield answer

    def _each_parsed(self, way: Pass, data: Iterator[bytes], call: Call) -> Iterator[Message]:
        """Requests of a stream; the first names the collection, and no later one another."""
        name: str | None = None
        for part in data:
            request = self._parsed(way, part)
            named = str(getattr(request, "collection", ""))
            if name is None:
                self.authorise(call, request)
                name = named
            elif named not in ("", name):
                raise InvalidArgument(
                    f"expected one collection a stream, {name!r}, got {named!r} too"
                )
            yield request

    def authorise(self, call: Call, request: Message) -> None:
        """Refuse a request about a collection that is not the caller's."""
        if not call.rule.is_general:
            name = str(request.collection)  # type: ignore[attr-defined]
            self._gate.authorise(call.caller, call.rule, name, self._real_name)

    def _parsed(self, way: Pass, data: bytes | Message | Callable[[], bytes]) -> Message:
        if isinstance(data, Message):
            return data
        if not isinstance(data, bytes):
            data = data()
        try:
            return way.request.FromString(data)
        except DecodeError as error:
            raise InvalidArgument(
                f"expected {way.rule.method.input_type.full_name} as protobuf: {error}"
            ) from None

    # ---- what is counted and logged ----

    def known(self, headers: Mapping[str, str]) -> None:
        """Refuse a caller without a key. Errors: Unauthenticated."""
        self._gate.known(headers.get("authorization"), headers.get("x-api-key"))

    def a_stream(self) -> _Permit:
        """One of the streams and waits that may be open at once. Errors: Overloaded."""
        return _Permit(self._streams, self._most_streams)


class _Permit:
    """One of the streams that may be open."""

    def __init__(self, permits: threading.BoundedSemaphore, most: int) -> None:
        self._permits = permits
        self._most = most

    def __enter__(self) -> None:
        if not self._permits.acquire(blocking=False):
            raise Overloaded(
                f"expected at most {self._most} streams and waits at once, got more; close one, "
                "or start the server with a greater --max-streams",
                1.0,
            )

    def __exit__(self, *_: object) -> None:
        self._permits.release()


class _Counted:
    """A call from admission to its end, whatever that is: metrics, trace, log, errors as ours."""

    def __init__(self, door: Door, way: Pass, headers: Mapping[str, str]) -> None:
        self._door, self._way, self._headers = door, way, headers
        self._call: Call | None = None
        self.id = f"{_PROCESS}-{next(_NUMBERS)}"

    def __enter__(self) -> _Counted:
        self._started = time.perf_counter()
        self._door.count(1)
        self._span = self._door._traces.span(self._way.rule.path[1:], self._headers)
        if self._span is not None:
            self._span.__enter__()
        return self

    def call(self) -> Call:
        """The admitted call. Errors: Unauthenticated, NotAllowed, Overloaded."""
        headers, rule = self._headers, self._way.rule
        caller = self._door._gate.admit(
            rule, headers.get("authorization"), headers.get("x-api-key")
        )
        self._call = Call(self.id, rule, caller)
        return self._call

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        door, path = self._door, self._way.rule.path
        seconds = time.perf_counter() - self._started
        door.count(-1)
        told = None if error is None else told_of(error, self.id, path)
        code = "OK" if told is None else status_of(told)[0].name
        method = path.rpartition(".")[2]
        door._metrics.count(method, code, seconds)
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        is_slow = door._slow_ms is not None and seconds * 1e3 >= door._slow_ms
        if is_slow or door._log_calls:
            _log.info(
                "slow call" if is_slow else "call",
                method=method,
                code=code,
                ms=round(seconds * 1e3, 3),
                key=None if self._call is None else self._call.caller.id,
                call=self.id,
                **({} if self._call is None else self._call.notes),
            )
        if told is not None and told is not error and not isinstance(error, GeneratorExit):
            raise told from error


def told_of(error: BaseException, call_id: str, path: str) -> SoarError:
    """The error that a caller is told of."""
    if isinstance(error, SoarError):
        return error
    if isinstance(error, GeneratorExit | grpc.RpcError):
        return TimedOut("the caller went away")
    _log.error("internal error", call=call_id, method=path, exc_info=error)
    return Internal(f"an error inside the server, logged there as call {call_id}; report it")


def opened(database: Database, call: Call, name: str) -> Collection:
    """The collection of a name or an alias; an alias may just have changed, so look again."""
    collection = database.get_collection(name)
    if not call.caller.may(collection.name, call.rule.scope):
        raise NotAllowed(f"expected a key for {name!r}, got one without")
    call.notes["collection"] = collection.name
    return collection


# ---- gRPC ----


class GrpcHandlers(grpc.GenericRpcHandler):
    """The methods as grpc serves them. `forward`: how a reading process passes a method on.

    quick: threads and patience of searches, which are many and short: where more of them are awake
    than cores, they spend their time on passing the interpreter's lock on. grpc calls it
    experimental that a method has threads of its own; without that they share those of all.

    To grpc each method takes a stream: of such a call it does not receive the request before the
    handler asks for it, so a caller without a key cannot make a thread wait for one.
    """

    def __init__(
        self,
        door: Door,
        passes: Mapping[str, Pass],
        forward: Callable[[Pass, Any, Any], Any] | None = None,
        patience: Patience | None = None,
        quick: tuple[ThreadPoolExecutor, Patience] | None = None,
    ) -> None:
        self._door = door
        self._forward = forward
        self._quick = quick
        self._patience = patience or Patience()
        self._methods = {path: self._method(way) for path, way in passes.items()}

    def service(self, handler_call_details: Any) -> Any:
        """The method of a path; None leaves it to grpc to say UNIMPLEMENTED."""
        return self._methods.get(handler_call_details.method)

    def _method(self, way: Pass) -> Any:
        answer: Callable[[Any, Any], Any]
        if self._forward is not None and way.rule.on_writer:
            answer = self._forwarding(way)
        elif way.gives_stream:
            answer = self._streaming(way)
        elif way.takes_stream:
            answer = self._collecting(way)
        else:
            answer = self._unary(way)
        if self._quick is not None and way.rule.path == _SEARCH:
            setattr(answer, "experimental_thread_pool", self._quick[0])  # noqa: B010
        if way.gives_stream:
            return grpc.stream_stream_rpc_method_handler(answer)
        return grpc.stream_unary_rpc_method_handler(answer)

    def _patience_of(self, way: Pass) -> Patience:
        is_quick = way.rule.path == _SEARCH
        return self._quick[1] if self._quick and is_quick else self._patience

    def _asked(self, way: Pass, patience: Patience, requests: Iterator[bytes], context: Any) -> Any:
        """The requests of a call, or what receives its only one."""

        def received() -> bytes:
            with patience.wait(context.cancel):
                data = next(requests, None)
            if data is None:
                raise InvalidArgument("expected a request, got none")
            return data

        def all_of() -> Iterator[bytes]:
            yield received()
            yield from requests

        return all_of() if way.takes_stream else received

    def _unary(self, way: Pass) -> Callable[[Any, Any], bytes]:
        door, patience = self._door, self._patience_of(way)

        def answer(requests: Any, context: grpc.ServicerContext) -> bytes:
            headers = headers_of(context)
            asked = self._asked(way, patience, requests, context)
            try:
                reply = door.unary(
                    way, asked, headers, context.time_remaining(), lambda: not context.is_active()
                )
                return reply.SerializeToString()
            except SoarError as error:
                raise abort(context, error) from None

        return answer

    def _streaming(self, way: Pass) -> Callable[[Any, Any], Iterator[bytes]]:
        door, patience = self._door, self._patience_of(way)

        def answer(requests: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            headers = headers_of(context)
            asked = self._asked(way, patience, requests, context)
            try:
                for reply in door.stream(
                    way, asked, headers, context.time_remaining(), lambda: not context.is_active()
                ):
                    with patience.wait(context.cancel):
                        yield reply.SerializeToString()
            except SoarError as error:
                abort(context, error)

        return answer

    def _collecting(self, way: Pass) -> Callable[[Any, Any], bytes]:
        streaming = self._streaming(way)

        def answer(requests: Any, context: grpc.ServicerContext) -> bytes:
            (reply,) = streaming(requests, context)
            return reply

        return answer

    def _forwarding(self, way: Pass) -> Callable[[Any, Any], Any]:
        forward, patience = self._forward, self._patience_of(way)
        assert forward is not None

        def answer(requests: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._door.known(headers_of(context))
                asked = self._asked(way, patience, requests, context)
                return forward(way, asked if way.takes_stream else asked(), context)
            except SoarError as error:
                raise abort(context, error) from None

        return answer


def headers_of(context: grpc.ServicerContext) -> dict[str, str]:
    """The text headers of a call."""
    return {key: value for key, value in context.invocation_metadata() if type(value) is str}


@dataclass(frozen=True, slots=True)
class _Status(grpc.Status):
    code: grpc.StatusCode
    details: str
    trailing_metadata: Any


def abort(context: grpc.ServicerContext, error: SoarError) -> Exception:
    """End a call with the status of an error; does not return."""
    if isinstance(error, TimedOut) and not context.is_active():
        code = grpc.StatusCode.CANCELLED
        status = status_pb2.Status(code=code.value[0], message=discreet(str(error)))
    else:
        code, status = status_of(error)
    context.abort_with_status(
        _Status(code, status.message, ((DETAILS, status.SerializeToString()),))
    )
    raise AssertionError("abort_with_status raises")
