"""What a hostile client does to a server, beside which an ordinary one goes on being served.

    test_attacks.py, `make attacks` -> [attacks.py] -> a running server

Each attack is a context manager: inside it, it goes on; afterwards it has let go. What is asserted
is never a time: that calls of another client are answered, that memory is bounded, and that
threads, connections and permits are there again.

    python -P -m tests.service.attacks            every attack, at its full size
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.exceptions
import httpx
import numpy as np

from soardb_proto import columns
from soardb_proto.v1 import collections_pb2, points_pb2
from tests.service.running import METHODS, Running, added_key, metadata_of, outcome

__all__ = ["ATTACKS", "attacked", "fill", "main", "prepared"]

MEMORY = 256 * 2**20
COUNT = points_pb2.CountRequest(collection="a")
D = 64


def prepared(folder: Path) -> str:
    """Make a directory with a key, whose text is returned; the points come with fill()."""
    folder.mkdir()
    return added_key(folder, "*:admin")


def fill(server: Running, rows: int = 20_000) -> None:
    """Some megabytes of points, more than any window of a stream holds."""
    create = collections_pb2.CreateCollectionRequest(collection="a", dim=D, exist_ok=True)
    server.call("Collections/Create", create)
    random = np.random.default_rng(0)
    for start in range(0, rows, 5_000):
        ids = np.arange(start, start + 5_000)
        vectors = random.standard_normal((5_000, D)).astype(np.float32)
        server.call(
            "Points/Upsert",
            points_pb2.UpsertRequest(
                collection="a", ids=columns.pack_ids(ids), vectors=columns.pack_matrix(vectors)
            ),
        )


# ---- the other client ----


def served(server: Running, calls: int) -> None:
    """So many calls of a client of its own are answered, over gRPC and over REST."""
    channel = server.channel()
    vectors = columns.pack_matrix(np.ones((1, D), np.float32))
    asked = points_pb2.SearchRequest(collection="a", vectors=vectors, limit=5)
    headers = {"x-api-key": server.key or ""}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as link:
        for _ in range(calls):
            assert outcome(server.call, "Points/Count", COUNT, channel=channel) == ("OK", "")
            assert outcome(server.call, "Points/Search", asked, channel=channel) == ("OK", "")
            assert link.get("/v1/collections/a").status_code == 200
    channel.close()


def recovers(server: Running, threads: int, files: int, seconds: float = 60.0) -> None:
    """Threads and files are as they were, and a stream can be opened."""
    end = time.monotonic() + seconds
    while True:
        is_free = outcome(
            server.call, "Points/Export", points_pb2.ExportRequest(collection="a", batch_size=9000)
        )
        # Pools of threads do not shrink, and SQLite keeps files that it closed while others read
        # them, for the next that opens them; both are bounded.
        found = (is_free, server.threads, server.files)
        if is_free == ("OK", "") and server.threads <= threads + 40 and server.files <= files + 20:
            return
        assert time.monotonic() < end, f"{found}, before: {threads} threads, {files} files"
        time.sleep(0.2)


def attacked(server: Running, attack: Attack, size: int, calls: int) -> None:
    """Run one attack: others are served meanwhile, and all is well afterwards."""
    served(server, 2)
    threads, files, memory = server.threads, server.files, server.rss
    with attack(server, size):
        served(server, calls)
        assert server.rss < memory + MEMORY, f"{server.rss:,} bytes, {memory:,} before"
    recovers(server, threads, files)
    served(server, 2)
    assert "Traceback" not in server.log(), server.log()[-4000:]


# ---- raw connections ----


def dial(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


class Raw:
    """An HTTP/2 client that does what it is told to, right or wrong."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.link = dial(server.port)
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        self.http.initiate_connection()
        self.is_over = False
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent; a server that hung up is noticed."""
        try:
            self.link.sendall(self.http.data_to_send())
        except OSError:
            self.is_over = True

    def drain(self) -> None:
        """Take what came, so that the two sides do not wait for each other."""
        self.link.setblocking(False)
        try:
            while True:
                data = self.link.recv(2**16)
                if not data:
                    self.is_over = True
                    break
                self.http.receive_data(data)
        except BlockingIOError:
            pass
        except (OSError, h2.exceptions.ProtocolError):
            self.is_over = True
        finally:
            self.link.setblocking(True)
        if not self.is_over:
            self.flush()

    def open(self, method: str) -> int:
        """Send the head of a call; its stream."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", METHODS[method].path),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("authorization", f"Bearer {self.server.key}"),
            ],
        )
        return stream

    def close(self) -> None:
        self.link.close()


Attack = Callable[[Running, int], AbstractContextManager[None]]


@contextlib.contextmanager
def _going_on(step: Callable[[], None]) -> Iterator[None]:
    """Repeat a step in a thread until the block ends; what it raises is raised there."""
    over = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        while not over.is_set() and not failed:
            try:
                step()
            except BaseException as error:  # noqa: BLE001  raised below
                failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _dripping(links: list[socket.socket], byte: bytes, pause_s: float = 0.2) -> Iterator[None]:
    """Send a byte on each connection now and then; closed ones are left alone."""

    def step() -> None:
        for link in links:
            with contextlib.suppress(OSError):
                link.sendall(byte)
        time.sleep(pause_s)

    try:
        with _going_on(step):
            yield
    finally:
        for link in links:
            link.close()


# ---- the attacks ----


@contextlib.contextmanager
def idle_connections(server: Running, size: int) -> Iterator[None]:
    """Connections that say nothing, on both ports."""
    links = [dial(port) for port in (server.port, server.rest_port) for _ in range(size)]
    try:
        yield
    finally:
        for link in links:
            link.close()


@contextlib.contextmanager
def slow_preface(server: Running, size: int) -> Iterator[None]:
    """The first bytes of HTTP/2, one at a time."""
    links = [dial(server.port) for _ in range(size)]
    for link in links:
        link.sendall(b"PRI * HTTP/2.0")
    with _dripping(links, b"", 0.5):
        yield


@contextlib.contextmanager
def slow_calls(server: Running, size: int) -> Iterator[None]:
    """Calls with a good key whose message comes by the byte, on streams of some connections."""
    raws = [Raw(server) for _ in range(max(1, size // 10))]
    streams = [(raw, raw.open("Points/Upsert")) for raw in raws for _ in range(10)]
    for raw, stream in streams:
        raw.http.send_data(stream, b"\0" + struct.pack(">I", 10_000))
        raw.flush()

    def step() -> None:
        for raw, stream in streams:
            if not raw.is_over:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    raw.http.send_data(stream, b"x")
                raw.flush()
                raw.drain()
        time.sleep(0.2)

    try:
        with _going_on(step):
            yield
    finally:
        for raw in raws:
            raw.close()


@contextlib.contextmanager
def calls_without_key(server: Running, size: int) -> Iterator[None]:
    """Calls of nobody, which never send their message, as many as go."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(120)
        yield from ()

    channel = server.channel()
    try:
        ask = channel.stream_unary(METHODS["Points/Upsert"].path)
        calls = [ask.future(nothing()) for _ in range(size)]
        yield
        for call in calls:
            assert call.code().name in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
    finally:
        over.set()
        channel.close()


@contextlib.contextmanager
def slow_rest_heads(server: Running, size: int) -> Iterator[None]:
    """Headers by the byte: of a first request, and of one after an answered one."""
    links = [dial(server.rest_port) for _ in range(size)]
    for i, link in enumerate(links):
        if i % 2:
            link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert link.recv(15) == b"HTTP/1.1 200 OK"
        link.sendall(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    with _dripping(links, b"a"):
        yield


@contextlib.contextmanager
def slow_rest_bodies(server: Running, size: int) -> Iterator[None]:
    """Bodies by the byte: with a good key, and after one that was refused."""
    links = [dial(server.rest_port) for _ in range(size)]
    for i, link in enumerate(links):
        key = server.key if i % 2 else "soar_no"
        head = (
            "POST /v1/collections/a/count HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Api-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
        link.sendall(head.encode())
    with _dripping(links, b" "):
        yield


@contextlib.contextmanager
def stalled_readers(server: Running, size: int) -> Iterator[None]:
    """Exports that nobody takes; half of them over REST."""
    channel = server.channel(("grpc.http2.lookahead_bytes", 1))
    calls = []
    links = []
    for i in range(size):
        if i % 2:
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect(("127.0.0.1", server.rest_port))
            link.sendall(
                "GET /v1/collections/a/export HTTP/1.1\r\nHost: localhost\r\n"
                f"X-Api-Key: {server.key}\r\n\r\n".encode()
            )
            links.append(link)
        else:
            ask = channel.unary_stream(METHODS["Points/Export"].path)
            asked = points_pb2.ExportRequest(collection="a").SerializeToString()
            calls.append(ask(asked, metadata=metadata_of(server.key)))
    try:
        yield
    finally:
        for call in calls:
            call.cancel()
        for link in links:
            link.close()
        channel.close()


@contextlib.contextmanager
def half_closed_ingests(server: Running, size: int) -> Iterator[None]:
    """Streams of writes that end before they began, after the opening, or not at all."""
    over = threading.Event()
    opening = points_pb2.IngestRequest(collection="a").SerializeToString()

    def parts(kind: int) -> Iterator[bytes]:
        if kind > 0:
            yield opening
        if kind > 1:
            over.wait(120)

    channel = server.channel()
    ask = channel.stream_stream(METHODS["Points/Ingest"].path)
    calls = [ask(parts(i % 3), metadata=metadata_of(server.key)) for i in range(size)]
    try:
        yield
    finally:
        over.set()
        for call in calls:
            call.cancel()
        channel.close()


@contextlib.contextmanager
def watched_health(server: Running, size: int) -> Iterator[None]:
    """Watches of health, which need no key."""
    channel = server.channel()
    calls = [channel.unary_stream("/grpc.health.v1.Health/Watch")(b"") for _ in range(size)]
    try:
        next(calls[0])
        yield
    finally:
        for call in calls:
            call.cancel()
        channel.close()


@contextlib.contextmanager
def gzip_bombs(server: Running, size: int) -> Iterator[None]:
    """Messages of a thousand times their length, with a good key and without."""
    bomb = b"\0" * (200 * 2**20)
    channel = server.channel()
    for key in (server.key, None):
        for _ in range(size):
            code, _ = outcome(
                server.call,
                "Points/Upsert",
                bomb,
                key=key,
                channel=channel,
                compression=grpc.Compression.Gzip,
            )
            assert code in ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED")
    channel.close()
    yield


@contextlib.contextmanager
def ping_flood(server: Running, size: int) -> Iterator[None]:
    """Pings without end; a connection that is hung up on comes back."""
    raws = [Raw(server) for _ in range(4)]

    def step() -> None:
        for i, raw in enumerate(raws):
            try:
                for _ in range(size):
                    raw.http.ping(b"12345678")
                raw.flush()
                raw.drain()
            except h2.exceptions.ProtocolError:  # the server has said good-bye
                raw.is_over = True
            if raw.is_over:
                raw.close()
                raws[i] = Raw(server)

    try:
        with _going_on(step):
            yield
    finally:
        for raw in raws:
            raw.close()


@contextlib.contextmanager
def rapid_reset(server: Running, size: int) -> Iterator[None]:
    """Calls that are opened and reset at once, so that none counts as open."""
    raws = [Raw(server) for _ in range(2)]

    def step() -> None:
        for i, raw in enumerate(raws):
            try:
                for _ in range(size):
                    raw.http.reset_stream(raw.open("Points/Count"))
                raw.flush()
                raw.drain()
            except h2.exceptions.ProtocolError:
                raw.is_over = True
            if raw.is_over:
                raw.close()
                raws[i] = Raw(server)
        time.sleep(0.01)

    try:
        with _going_on(step):
            yield
    finally:
        for raw in raws:
            raw.close()


ATTACKS: dict[str, tuple[Attack, int, int]] = {
    # name: (attack, size in CI, size of the long form)
    "idle connections": (idle_connections, 200, 1_000),
    "slow preface": (slow_preface, 30, 300),
    "slow calls": (slow_calls, 20, 100),
    "calls without key": (calls_without_key, 60, 300),
    "slow REST heads": (slow_rest_heads, 30, 1_000),
    "slow REST bodies": (slow_rest_bodies, 30, 400),
    "stalled readers": (stalled_readers, 8, 14),
    "half-closed ingests": (half_closed_ingests, 12, 15),
    "watched health": (watched_health, 90, 400),
    "gzip bombs": (gzip_bombs, 1, 10),
    "ping flood": (ping_flood, 50, 500),
    "rapid reset": (rapid_reset, 10, 100),
}


def main() -> None:
    """Every attack at its full size, one after the other on one server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help="The name of one attack.")
    parser.add_argument("--calls", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "db"
        key = prepared(folder)
        with Running(folder, "--slow-ms", "60000", key=key) as server:
            fill(server)
            for name, (attack, _, size) in ATTACKS.items():
                if given.only not in (None, name):
                    continue
                started = time.monotonic()
                attacked(server, attack, size, given.calls)
                print(
                    f"{name:<22} x {size:<6,} {given.calls * 3:,} calls answered in "
                    f"{time.monotonic() - started:5.1f} s; afterwards RSS "
                    f"{server.rss / 2**20:.0f} MiB, {server.threads} threads, "
                    f"{server.files} files",
                    flush=True,
                )


if __name__ == "__main__":
    main()
