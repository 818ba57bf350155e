"""The REST gateway: the methods of the protocol over HTTP and JSON, behind the same door.

    server.py -> [rest.py] -> rpc.py (Door), rest_bodies.py, FastAPI, uvicorn

A request is refused for its key, its Host or its size before its body is read. Then it becomes the
message that gRPC would have brought, and whatever holds there holds here: scopes, limits, errors.
`/docs` shows all of it, `/openapi.json` is for programs.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from google.protobuf.message import Message
from uvicorn.protocols.http.h11_impl import H11Protocol

import soardb
from soardb.errors import InvalidArgument, SoarError, Unavailable
from soardb_proto import columns
from soardb_proto.v1 import (
    admin_pb2,
    agent_pb2,
    collections_pb2,
    indexes_pb2,
    models_pb2,
    operations_pb2,
    points_pb2,
    snapshots_pb2,
)
from soardb_service import rest_bodies as bodies
from soardb_service.config import ServerConfig
from soardb_service.convert import status_of
from soardb_service.gate import Gate, Overloaded
from soardb_service.health import Health
from soardb_service.rpc import Door, Pass

__all__ = ["RestServer", "app_of"]

_HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 412,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_WITHOUT_KEY = {"/healthz", "/docs", "/openapi.json"}
_ONCE = {"authorization", "x-api-key", "host", "content-length"}
_HEADERS_S = 10.0
_KEEP_ALIVE_S = 30.0
_LOOK_S = 2.0
_MOST_CONNECTIONS = 10_000
_SLOWEST_BYTES_PER_S = 64 * 2**10

Name = Annotated[str, Path(description="A collection or an alias.")]
Timeout = Annotated[
    float | None, Header(alias="x-timeout-s", gt=0, description="Seconds that the call may take.")
]


_Tell = Callable[[Request, str, Message, float | None], dict[str, Any]]
"""Calls a method and gives its reply as JSON."""


def answer_of(error: SoarError) -> JSONResponse:
    """An error as HTTP has it."""
    code, status = status_of(error)
    headers = (
        {"retry-after": str(max(1, round(error.retry_s)))} if isinstance(error, Overloaded) else {}
    )
    if code.name == "UNAUTHENTICATED":
        headers["www-authenticate"] = "Bearer"
    body = {"error": {"code": code.name, "message": status.message}}
    return JSONResponse(body, _HTTP[code.name], headers=headers)


def _headers_of(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name. Errors: InvalidArgument where one that decides comes twice."""
    headers: dict[str, str] = {}
    for key, value in raw:
        name = key.decode("latin-1")
        if name in headers and name in _ONCE:
            raise InvalidArgument(f"expected the header {name} once, got it twice")
        headers[name] = value.decode("latin-1")
    return headers


class _Front:
    """The first look at a request: Host, key, size and pace; the body is not read before."""

    def __init__(self, app: Any, gate: Gate, config: ServerConfig) -> None:
        self._app, self._gate = app, gate
        self._most = min(config.max_json_bytes, config.max_message_bytes)
        self._most_at_once = config.threads + config.waiting
        self._at_once = 0
        self._stall_s = config.stall_s
        self._is_local = config.is_loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._taken(send)
        try:
            self._look(scope["path"], _headers_of(scope["headers"]))
        except SoarError as error:
            await answer_of(error)(scope, receive, send)
            return
        self._at_once += 1
        try:
            await self._app(scope, self._measured(receive), send)
        finally:
            self._at_once -= 1

    def _look(self, path: str, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._is_local and name not in ("127.0.0.1", "localhost", "[::1]", ""):
            # A page in a browser may reach loopback under a name of its own.
            raise InvalidArgument(f"expected the Host of a loopback address, got {host[:80]!r}")
        if "origin" in headers and not self._gate.is_key_required:
            raise InvalidArgument(
                "expected no request of a web page to a server without keys; make one with "
                "`soardb keys add`"
            )
        if path not in _WITHOUT_KEY:
            self._gate.known(headers.get("authorization"), headers.get("x-api-key"))
        if self._at_once >= self._most_at_once:
            raise Overloaded(
                f"expected at most {self._most_at_once} requests at once, got more; slow down", 1.0
            )
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > self._most:
            raise InvalidArgument(
                f"expected a body of at most {self._most:,} bytes, got {size[:20]}"
            )

    def _measured(self, receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        """What receives the body: within the cap, and within a time that grows with it."""
        total, is_whole, end = 0, False, time.monotonic() + self._stall_s

        async def measured() -> Any:
            nonlocal total, is_whole
            if is_whole:
                return await receive()
            try:
                left = end + total / _SLOWEST_BYTES_PER_S - time.monotonic()
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except TimeoutError:
                return {"type": "http.disconnect"}
            total += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if total > self._most:
                raise InvalidArgument(f"expected a body of at most {self._most:,} bytes, got more")
            return message

        return measured

    def _taken(self, send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """What sends a part of the answer, and gives up on a client that does not take it."""

        async def taken(message: Any) -> None:
            try:
                await asyncio.wait_for(send(message), self._stall_s)
            except TimeoutError:
                raise ConnectionError("the client did not take the answer in time") from None

        return taken


def app_of(
    config: ServerConfig, door: Door, passes: Mapping[str, Pass], gate: Gate, health: Health
) -> FastAPI:
    """The application: one route a method."""
    app = FastAPI(
        title="soardb",
        version=soardb.__version__,
        description="Vector search. The names are those of the gRPC protocol soardb.v1.",
        redoc_url=None,
    )
    app.add_middleware(_Front, gate=gate, config=config)

    @app.exception_handler(SoarError)
    async def refused(request: Request, error: SoarError) -> JSONResponse:
        return answer_of(error)

    @app.exception_handler(UnicodeEncodeError)
    async def half_a_character(request: Request, error: UnicodeEncodeError) -> JSONResponse:
        return answer_of(InvalidArgument("expected text of whole characters, got half a surrogate"))

    @app.exception_handler(RequestValidationError)
    async def misshapen(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5]
        )
        return answer_of(InvalidArgument(f"expected another request; {said}. See /docs"))

    def ask(request: Request, path: str, message: Message, timeout: float | None) -> Any:
        way = passes[f"/soardb.v1.{path}"]
        return door.unary(way, message, dict(request.headers), timeout, lambda: False)

    def tell(
        request: Request, path: str, message: Message, timeout: float | None
    ) -> dict[str, Any]:
        return bodies.plain(ask(request, path, message, timeout))

    def each(request: Request, path: str, message: Any) -> Generator[Any, None, None]:
        way = passes[f"/soardb.v1.{path}"]
        return door.stream(way, message, dict(request.headers), None, lambda: False)

    _points_routes(app, ask, tell, each)
    _collection_routes(app, tell)
    _index_routes(app, tell)
    _snapshot_routes(app, tell, each)
    _model_routes(app, tell, each)
    _agent_routes(app, each)

    @app.get("/healthz", tags=["server"])
    def healthz() -> JSONResponse:
        """Whether calls are taken: 200 or 503. Needs no key."""
        return JSONResponse({"serving": health.is_serving}, 200 if health.is_serving else 503)

    @app.get("/v1/info", tags=["server"])
    def info(request: Request, timeout: Timeout = None) -> dict[str, Any]:
        """Version, caps and what the key may do."""
        return tell(request, "Admin/ServerInfo", admin_pb2.ServerInfoRequest(), timeout)

    @app.get("/v1/stats", tags=["server"])
    def stats(request: Request, timeout: Timeout = None) -> dict[str, Any]:
        """Memory and counts of everything."""
        return tell(request, "Admin/Stats", admin_pb2.StatsRequest(), timeout)

    return app


def _points_routes(app: FastAPI, ask: Any, tell: _Tell, each: Any) -> None:
    base = "/v1/collections/{collection}"
    tags: list[Any] = ["points"]

    @app.post(f"{base}/upsert", tags=tags)
    def upsert(
        request: Request, collection: Name, body: bodies.UpsertBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Store points; mode "insert" refuses ids that are there."""
        return tell(request, "Points/Upsert", body.message(collection), timeout)

    @app.post(f"{base}/flush", tags=tags)
    def flush(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Wait for writes that were acknowledged from memory."""
        message = points_pb2.FlushRequest(collection=collection)
        return tell(request, "Points/Flush", message, timeout)

    @app.post(f"{base}/delete", tags=tags)
    def delete(
        request: Request, collection: Name, body: bodies.DeleteBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Delete points of ids, or all that match a filter."""
        return tell(request, "Points/Delete", body.message(collection), timeout)

    @app.post(f"{base}/update_payload", tags=tags)
    def update_payload(
        request: Request, collection: Name, body: bodies.UpdatePayloadBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Change payloads of ids, or of all that match a filter."""
        return tell(request, "Points/UpdatePayload", body.message(collection), timeout)

    @app.post(f"{base}/get", tags=tags)
    def get(
        request: Request, collection: Name, body: bodies.GetBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Points by id, null where there is none."""
        return body.answer(ask(request, "Points/Get", body.message(collection), timeout))

    @app.post(f"{base}/search", tags=tags)
    def search(
        request: Request, collection: Name, body: bodies.SearchBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """The closest points to each query."""
        return body.answer(ask(request, "Points/Search", body.message(collection), timeout))

    @app.post(f"{base}/scroll", tags=tags)
    def scroll(
        request: Request,
        collection: Name,
        body: Annotated[bodies.ScrollBody | None, Body()] = None,
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """A page of points."""
        body = body or bodies.ScrollBody()
        return body.answer(ask(request, "Points/Scroll", body.message(collection), timeout))

    @app.post(f"{base}/count", tags=tags)
    def count(
        request: Request,
        collection: Name,
        body: Annotated[bodies.CountBody | None, Body()] = None,
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """How many points there are, or match."""
        message = (body or bodies.CountBody()).message(collection)
        return tell(request, "Points/Count", message, timeout)

    @app.get(f"{base}/export", tags=tags, response_class=StreamingResponse)
    def export(request: Request, collection: Name) -> StreamingResponse:
        """Every point, one JSON object a line."""
        batches = each(request, "Points/Export", points_pb2.ExportRequest(collection=collection))
        return _streamed(batches, _lines, "application/x-ndjson")


def _collection_routes(app: FastAPI, tell: _Tell) -> None:
    base = "/v1/collections"
    tags: list[Any] = ["collections"]

    @app.get(base, tags=tags)
    def list_collections(request: Request, timeout: Timeout = None) -> dict[str, Any]:
        """The collections and aliases that the key may read."""
        message = collections_pb2.ListCollectionsRequest()
        return tell(request, "Collections/List", message, timeout)

    @app.post(base, tags=tags)
    def create(
        request: Request, body: bodies.CreateBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Make a collection."""
        return tell(request, "Collections/Create", body.message(), timeout)

    @app.get(f"{base}/{{collection}}", tags=tags)
    def get_collection(
        request: Request, collection: Name, timeout: Timeout = None
    ) -> dict[str, Any]:
        """What a collection is."""
        message = collections_pb2.GetCollectionRequest(collection=collection)
        return tell(request, "Collections/Get", message, timeout)

    @app.delete(f"{base}/{{collection}}", tags=tags)
    def drop(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Delete a collection with all its points."""
        message = collections_pb2.DropCollectionRequest(collection=collection)
        return tell(request, "Collections/Drop", message, timeout)

    @app.post(f"{base}/{{collection}}/rename", tags=tags)
    def rename(
        request: Request,
        collection: Name,
        new_name: Annotated[str, Body(embed=True)],
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """Give it another name."""
        message = collections_pb2.RenameCollectionRequest(collection=collection, new_name=new_name)
        return tell(request, "Collections/Rename", message, timeout)

    @app.post("/v1/aliases", tags=tags)
    def set_aliases(
        request: Request,
        aliases: Annotated[dict[str, str | None], Body(embed=True)],
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """Change aliases, all at once or none; null drops one."""
        message = collections_pb2.SetAliasesRequest(
            aliases={alias: name or "" for alias, name in aliases.items()}
        )
        return tell(request, "Collections/SetAliases", message, timeout)


def _index_routes(app: FastAPI, tell: _Tell) -> None:
    base = "/v1/collections/{collection}"
    tags: list[Any] = ["index"]

    @app.get(f"{base}/index", tags=tags)
    def status(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Counts and bytes of the index."""
        message = indexes_pb2.IndexStatusRequest(collection=collection)
        return tell(request, "Indexes/Status", message, timeout)

    @app.post(f"{base}/index/build", tags=tags)
    def build(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Learn partitions anew; answers with an operation."""
        message = indexes_pb2.BuildRequest(collection=collection)
        return tell(request, "Indexes/Build", message, timeout)

    @app.post(f"{base}/index/compact", tags=tags)
    def compact(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Build the next generation; answers with an operation."""
        message = indexes_pb2.CompactRequest(collection=collection)
        return tell(request, "Indexes/Compact", message, timeout)

    @app.post(f"{base}/index/tune", tags=tags)
    def tune(
        request: Request,
        collection: Name,
        k: Annotated[int, Body(ge=1, le=10_000)] = 10,
        queries: Annotated[int, Body(ge=1, le=100_000)] = 200,
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """Measure recall and latency; answers with an operation whose result is the curve."""
        message = indexes_pb2.TuneRequest(collection=collection, k=k, queries=queries)
        return tell(request, "Indexes/Tune", message, timeout)

    @app.get(f"{base}/operations", tags=tags)
    def operations(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """The operations of a collection."""
        message = operations_pb2.ListOperationsRequest(collection=collection)
        return tell(request, "Operations/List", message, timeout)

    @app.get(f"{base}/operations/{{name}}", tags=tags)
    def operation(
        request: Request, collection: Name, name: str, wait_s: float = 0.0, timeout: Timeout = None
    ) -> dict[str, Any]:
        """How an operation is, once it is done or wait_s are over."""
        message = operations_pb2.WaitOperationRequest(
            collection=collection, name=name, timeout_s=wait_s
        )
        return tell(request, "Operations/Wait", message, timeout)

    @app.delete(f"{base}/operations/{{name}}", tags=tags)
    def cancel(
        request: Request, collection: Name, name: str, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Ask an operation to stop."""
        message = operations_pb2.CancelOperationRequest(collection=collection, name=name)
        return tell(request, "Operations/Cancel", message, timeout)


def _snapshot_routes(app: FastAPI, tell: _Tell, each: Any) -> None:
    base = "/v1/collections/{collection}/snapshots"
    tags: list[Any] = ["snapshots"]

    @app.post(base, tags=tags)
    def take(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """Take a snapshot; answers with an operation."""
        message = snapshots_pb2.CreateSnapshotRequest(collection=collection)
        return tell(request, "Snapshots/Create", message, timeout)

    @app.get(base, tags=tags)
    def snapshots(request: Request, collection: Name, timeout: Timeout = None) -> dict[str, Any]:
        """The snapshots of a collection."""
        message = snapshots_pb2.ListSnapshotsRequest(collection=collection)
        return tell(request, "Snapshots/List", message, timeout)

    @app.delete(f"{base}/{{snapshot}}", tags=tags)
    def forget(
        request: Request, collection: Name, snapshot: str, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Delete a snapshot."""
        message = snapshots_pb2.DeleteSnapshotRequest(collection=collection, snapshot=snapshot)
        return tell(request, "Snapshots/Delete", message, timeout)

    @app.post(f"{base}/{{snapshot}}/restore", tags=tags)
    def restore(
        request: Request,
        collection: Name,
        snapshot: str,
        new_name: Annotated[str, Body(embed=True)],
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """Make the new collection new_name of a snapshot; answers with an operation."""
        message = snapshots_pb2.RestoreSnapshotRequest(
            collection=new_name, source=collection, snapshot=snapshot
        )
        return tell(request, "Snapshots/Restore", message, timeout)

    @app.get(f"{base}/{{snapshot}}", tags=tags, response_class=StreamingResponse)
    def download(request: Request, collection: Name, snapshot: str) -> StreamingResponse:
        """The file of a snapshot."""
        message = snapshots_pb2.DownloadSnapshotRequest(collection=collection, snapshot=snapshot)
        chunks = each(request, "Snapshots/Download", message)
        return _streamed(chunks, lambda chunk: bytes(chunk.data), "application/octet-stream")


def _model_routes(app: FastAPI, tell: _Tell, each: Any) -> None:
    """Uploads and evaluations are for gRPC: streams in, and operations of no collection."""
    base = "/v1/models"
    tags: list[Any] = ["models"]

    @app.get(base, tags=tags)
    def list_models(request: Request, timeout: Timeout = None) -> dict[str, Any]:
        """Language models, and pairs of target and draft."""
        return tell(request, "Models/List", models_pb2.ListModelsRequest(), timeout)

    @app.get(f"{base}/{{model}}", tags=tags)
    def get_model(request: Request, model: str, timeout: Timeout = None) -> dict[str, Any]:
        """What is told of a model."""
        return tell(request, "Models/Get", models_pb2.GetModelRequest(model=model), timeout)

    @app.delete(f"{base}/{{model}}", tags=tags)
    def delete_model(request: Request, model: str, timeout: Timeout = None) -> dict[str, Any]:
        """Delete a model with its pairs."""
        return tell(request, "Models/Delete", models_pb2.DeleteModelRequest(model=model), timeout)

    @app.post(f"{base}/{{model}}/pairs", tags=tags)
    def pair(
        request: Request, model: str, body: bodies.PairBody, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Keep what was measured of a draft with this target."""
        return tell(request, "Models/Pair", body.message(model), timeout)

    @app.post(f"{base}/{{model}}/generate", tags=tags, response_class=StreamingResponse)
    def generate(request: Request, model: str, body: bodies.GenerateBody) -> StreamingResponse:
        """Write on from a prompt: a JSON object a line, each a piece, the last what it took."""
        parts = each(request, "Models/Generate", body.message(model))
        return _streamed(parts, _line, "application/x-ndjson")


def _agent_routes(app: FastAPI, each: Any) -> None:
    @app.post("/v1/collections/{collection}/ask", tags=["agent"], response_class=StreamingResponse)
    def ask(request: Request, collection: Name, body: bodies.AskBody) -> StreamingResponse:
        """Answer a question by searching: a JSON object a line, each a step, at last the answer."""
        parts = each(request, "Agent/Ask", body.message(collection))
        return _streamed(parts, _told, "application/x-ndjson")


def _told(part: agent_pb2.AskReply) -> bytes:
    name = str(part.WhichOneof("part"))
    return json.dumps({name: bodies.plain(getattr(part, name))}).encode() + b"\n"


def _line(part: models_pb2.GenerateReply) -> bytes:
    name = part.WhichOneof("part")
    told = part.piece if name == "piece" else bodies.plain(part.written)
    return json.dumps({name: told}).encode() + b"\n"


def _streamed(
    messages: Generator[Any, None, None], bytes_of: Callable[[Any], bytes], media_type: str
) -> StreamingResponse:
    """A body made message by message. The first is made here, so that a refusal is still one.

    Each is made in another thread, but all in one context: the limit of the call is in it.
    """
    context = contextvars.copy_context()
    message = context.run(next, messages, None)

    def all_of() -> Iterator[bytes]:
        nonlocal message
        while message is not None:
            yield bytes_of(message)
            message = context.run(next, messages, None)

    return _Streamed(all_of(), partial(context.run, messages.close), media_type)


class _Streamed(StreamingResponse):
    """A body of parts, which are ended with the answer, also where its client went away."""

    def __init__(self, parts: Iterator[bytes], end: Callable[[], None], media_type: str) -> None:
        super().__init__(parts, media_type=media_type)
        self._end = end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _lines(batch: points_pb2.ExportBatch) -> bytes:
    vectors = columns.unpack_matrix(batch.vectors)
    return b"".join(
        json.dumps(
            {"id": point_id, "vector": row.tolist(), "payload": json.loads(payload)}
        ).encode()
        + b"\n"
        for point_id, row, payload in zip(
            columns.plain_ids(batch.ids),
            vectors,
            batch.payloads.json,
            strict=True,
        )
    )


class _Impatient(H11Protocol):
    """A connection that waits for a request, of which none comes, is closed in time.

    The time runs from one answer to the next whole head of a request; what comes by the byte
    meanwhile, of a head or of a body that was refused, does not stop it.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        self._patience_s = _HEADERS_S
        self.loop.call_later(_LOOK_S, self._look)
        if len(self.connections) > _MOST_CONNECTIONS:
            waiting = [c for c in self.connections if isinstance(c, _Impatient) and c._is_waiting]
            min(waiting, key=lambda c: c._since, default=self).transport.close()

    @property
    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()
        self._patience_s = _KEEP_ALIVE_S

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self._is_waiting and self.loop.time() - self._since > self._patience_s:
            self.transport.abort()
            return
        self.loop.call_later(_LOOK_S, self._look)


class RestServer:
    """uvicorn in a thread of its own."""

    def __init__(
        self,
        config: ServerConfig,
        door: Door,
        passes: Mapping[str, Pass],
        gate: Gate,
        health: Health,
    ) -> None:
        self._config = config
        app = app_of(config, door, passes, gate, health)
        options: dict[str, Any] = {}
        if config.tls_certificate is not None:
            options |= {"ssl_certfile": config.tls_certificate, "ssl_keyfile": config.tls_key}
        if config.tls_client_ca is not None:
            options |= {
                "ssl_ca_certs": str(config.tls_client_ca),
                "ssl_cert_reqs": ssl.CERT_REQUIRED,
            }
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Impatient,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(_KEEP_ALIVE_S),
                timeout_graceful_shutdown=int(config.drain_s) or 1,
                h11_max_incomplete_event_size=64 * 2**10,
                **options,
            )
        )
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> int:
        """Listen and answer; returns the port. Errors: Unavailable."""
        host = self._config.host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, self._config.rest_port))
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                f"expected a free port for REST at {host}:{self._config.rest_port}: {error}; "
                "name another with --rest-port, or -1 for none"
            ) from None
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="soardb-rest", daemon=True
        )
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def stop(self, drain_s: float) -> None:
        """Finish what is under way and end."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(drain_s + 5)
        if self._socket is not None:
            self._socket.close()
