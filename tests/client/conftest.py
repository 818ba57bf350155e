"""A server that answers what a test tells it to, over real gRPC, and clients of both kinds to ask.

    test_*.py of this folder -> [conftest.py] -> grpcio, soardb_client

It speaks the protocol and holds no points: each method is a function of the test, which sees the
message and the call's context and gives a reply or ends the call with a status.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from soardb_client import AsyncClient, Client
from soardb_client.retry import Backoff
from soardb_proto.v1 import collections_pb2, points_pb2, types_pb2
from tests.service.conftest import Facade, loop

__all__ = ["Fake", "Opener", "loop", "status"]

D = 4
FAST = Backoff(retries=5, first_s=0.01, most_s=0.05)

Method = Callable[[Any, grpc.ServicerContext], Any]

REQUESTS: dict[str, type[Message]] = {
    "Upsert": points_pb2.UpsertRequest,
    "Delete": points_pb2.DeleteRequest,
    "Count": points_pb2.CountRequest,
    "Search": points_pb2.SearchRequest,
    "Get": collections_pb2.GetCollectionRequest,
    "Create": collections_pb2.CreateCollectionRequest,
    "Export": points_pb2.ExportRequest,
    "Ingest": points_pb2.IngestRequest,
}
STREAMS = {"Export": (False, True), "Ingest": (True, True)}


def status(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str = "so it is",
    reason: str = "",
    retry_s: float | None = None,
) -> Any:
    """End a call as a soardb server does, or, without reason and retry_s, as a proxy does."""
    details: list[Message] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="soardb"))
    if retry_s is not None:
        wait = duration_pb2.Duration()
        wait.FromNanoseconds(int(retry_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=wait))
    if details:
        packed = []
        for detail in details:
            item = any_pb2.Any()
            item.Pack(detail)
            packed.append(item)
        whole = status_pb2.Status(code=code.value[0], message=message, details=packed)
        context.set_trailing_metadata((("grpc-status-details-bin", whole.SerializeToString()),))
    context.abort(code, message)


class Fake(grpc.GenericRpcHandler):
    """methods: what answers, by the last part of the path. seen: (method, message, peer)."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.methods: dict[str, Method] = {"Get": describe}
        self.seen: list[tuple[str, Any, str]] = []
        self._lock = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(16), handlers=[self], options=[("grpc.so_reuseport", 0)]
        )
        port = self._server.add_insecure_port(address)
        self.target = f"grpc://{address}" if "unix" in address else f"grpc://127.0.0.1:{port}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        """The method of a path, or None for UNIMPLEMENTED."""
        name = handler_call_details.method.rpartition("/")[2]
        if name not in self.methods:
            return None

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._lock:
                self.seen.append((name, request, context.peer()))
            return self.methods[name](request, context)

        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[STREAMS.get(name, (False, False))]
        return make(
            answer,
            request_deserializer=REQUESTS[name].FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )

    def requests(self, name: str) -> list[Any]:
        """The messages that a method got, in order."""
        return [message for method, message, _ in self.seen if method == name]

    def stop(self) -> None:
        """End at once."""
        self._server.stop(0).wait()


def describe(request: Any, context: grpc.ServicerContext) -> collections_pb2.Collection:
    """Any name is a collection of four dimensions."""
    return collections_pb2.Collection(
        name=request.collection, dim=D, metric=types_pb2.COSINE, points=0
    )


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server that knows how to describe a collection, and what the test adds."""
    server = Fake()
    yield server
    server.stop()


Opener = Callable[..., Any]


@pytest.fixture(params=["grpc", "aio"])
def client_of(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Opener]:
    """Makes a client of a target, of each kind in turn, that does not wait long between tries."""
    made: list[Any] = []

    def make(target: str, **options: Any) -> Any:
        client: Any
        if request.param == "grpc":
            client = made_client = Client(target, **options)
        else:
            made_client = AsyncClient(target, **options)  # type: ignore[assignment]
            client = Facade(made_client, loop)
        wire = made_client._wire
        wire.backoff = dataclasses.replace(FAST, retries=wire.backoff.retries)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
