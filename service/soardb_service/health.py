"""grpc.health.v1 and reflection: what monitors and tools ask of any gRPC server.

    server.py -> [health.py] -> grpcio-health-checking, grpcio-reflection

Health is answered without a key: of the server ("") and of each proto service. Reflection tells
what there is to call, so it asks for a key where other calls do, and counts as a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from soardb.errors import SoarError
from soardb_service.gate import Gate
from soardb_service.rpc import abort

__all__ = ["Health"]

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Health of server and services, and reflection over them."""

    def __init__(
        self,
        gate: Gate,
        files: Sequence[FileDescriptor],
        *,
        has_reflection: bool,
        a_stream: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._servicer = health.HealthServicer()
        self._gate = gate
        self._names = [s.full_name for file in files for s in file.services_by_name.values()]
        self._has_reflection = has_reflection
        self._a_stream = a_stream
        self.is_serving = False
        self.set_serving(False)

    def set_serving(self, is_serving: bool) -> None:
        """Tell whether calls are taken."""
        self.is_serving = is_serving
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if is_serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            self._servicer.set(name, status)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a grpc.Server takes."""
        collected = _Collected()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, collected)
        if self._has_reflection:
            names = [*self._names, _HEALTH, reflection.SERVICE_NAME]
            guarded = _Collected(self._guarded)
            reflection.enable_server_reflection(names, guarded)
            collected.handlers += guarded.handlers
        return collected.handlers

    def _guarded(self, handler: grpc.GenericRpcHandler) -> grpc.GenericRpcHandler:
        return _Guarded(handler, self._gate, self._a_stream)


class _Collected:
    """Stands in for a grpc.Server to which handlers are added, and keeps them."""

    def __init__(self, wrap: Callable[[Any], Any] = lambda handler: handler) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []
        self._wrap = wrap

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self.handlers += [self._wrap(handler) for handler in handlers]

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        """Newer stubs add methods a second way, for speed; the generic one is enough."""


class _Guarded(grpc.GenericRpcHandler):
    """Handlers of streams, for callers with a key alone; an open one is a stream like others."""

    def __init__(
        self,
        handler: grpc.GenericRpcHandler,
        gate: Gate,
        a_stream: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._handler = handler
        self._gate = gate
        self._a_stream = a_stream

    def service(self, handler_call_details: Any) -> Any:
        """The method, or one that refuses."""
        method = self._handler.service(handler_call_details)
        if method is None:
            return None
        headers = {k: v for k, v in handler_call_details.invocation_metadata if type(v) is str}
        try:
            self._gate.known(headers.get("authorization"), headers.get("x-api-key"))
        except SoarError as error:
            return _refusing(error)
        return grpc.stream_stream_rpc_method_handler(
            self._permitted(method.stream_stream),
            method.request_deserializer,
            method.response_serializer,
        )

    def _permitted(self, behaviour: Any) -> Any:
        def answer(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with self._a_stream():
                    yield from behaviour(requests, context)
            except SoarError as error:
                abort(context, error)

        return answer


def _refusing(error: SoarError) -> Any:
    def refuse(requests: Any, context: grpc.ServicerContext) -> Any:
        abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)
