"""Two servers that need no database: the raw echo, and an exact scan behind a socket.

    grpcio, NumPy -> [service_builtin.py] -> service_peers.py

    python -m benchmarks.service_builtin echo PORT D THREADS
    python -m benchmarks.service_builtin exact PORT VECTORS.npy

Echo answers fixed bytes of the sizes that a search would have: the ceiling of a gRPC server in
Python. Exact needs nothing but NumPy, so that the whole benchmark can be tested anywhere.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service_programs import (
    HOST,
    Answers,
    Ingested,
    Program,
    Settings,
    Vectors,
    answers_at,
    free_port,
)


class Echo:
    """A grpcio server that answers as many bytes as k ids and scores a query take; no search."""

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        port = free_port()
        threads = str(server.get("threads", 8))
        command = [sys.executable, "-P", "-m", "benchmarks.service_builtin", "echo", str(port)]
        self.program = Program([*command, str(d), threads], folder)
        self.program.wait_until(lambda: answers_at(port))
        self.pid = self.program.pid
        self.address = {"port": port}

    def versions(self) -> dict[str, str]:
        return {"grpcio": importlib.import_module("grpc").__version__}

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        return Ingested(0.0, 0.0)

    def set_search(self, search: Settings) -> None:
        """Nothing is searched."""

    def close(self) -> None:
        self.program.stop()


ECHO_METHOD = "/soardb.benchmark.Echo/Search"
ANSWER_BYTES = 12  # an id in eight and a score in four
FRAME_BYTES = 24  # names, lengths and tags around them, in either direction


class EchoSession:
    is_shared = True

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        grpc = importlib.import_module("grpc")
        self.channel = grpc.insecure_channel(f"{HOST}:{address['port']}")
        self.call = self.channel.unary_unary(ECHO_METHOD)
        self.k = k

    def ask(self, queries: Vectors) -> Answers:
        reply = self.call(bytes(FRAME_BYTES) + queries.tobytes())
        assert len(reply) == FRAME_BYTES + len(queries) * self.k * ANSWER_BYTES, len(reply)
        return [[] for _ in queries]

    def close(self) -> None:
        self.channel.close()


def serve_echo(port: int, d: int, threads: int, k: int = 10) -> None:
    """Answer until the process is ended."""
    grpc = importlib.import_module("grpc")
    futures = importlib.import_module("concurrent.futures")

    def search(request: bytes, context: Any) -> bytes:
        return bytes(FRAME_BYTES + (len(request) - FRAME_BYTES) // (4 * d) * k * ANSWER_BYTES)

    service, method = ECHO_METHOD.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(search)
    server = grpc.server(futures.ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


class Exact:
    """A product with all vectors for each query, behind a socket, in a process of its own."""

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        self.folder, self.port = folder, free_port()
        self.program: Program | None = None
        self.pid = os.getpid()
        self.address: dict[str, Any] = {"port": self.port}

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        self.close()
        start = time.perf_counter()
        np.save(self.folder / "vectors.npy", vectors)
        written = time.perf_counter()
        command = [sys.executable, "-P", "-m", "benchmarks.service_builtin", "exact"]
        one_thread = {"OPENBLAS_NUM_THREADS": "1"}
        self.program = Program(
            [*command, str(self.port), str(self.folder / "vectors.npy")], self.folder, one_thread
        )
        self.program.wait_until(lambda: answers_at(self.port))
        self.pid = self.program.pid
        return Ingested(written - start, time.perf_counter() - start)

    def set_search(self, search: Settings) -> None:
        """It knows no settings."""

    def close(self) -> None:
        if self.program is not None:
            self.program.stop()


class ExactSession:
    """Sends m and k as int32 and m queries as float32; receives m times k ids as int64."""

    is_shared = False

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        self.socket = socket.create_connection((HOST, address["port"]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A share of the vectors that is looked at, so that a sweep has something to find.
        self.share, self.k = search.get("percent", 100), k

    def ask(self, queries: Vectors) -> Answers:
        m = len(queries)
        self.socket.sendall(np.array([m, self.k, self.share], "<i4").tobytes() + queries.tobytes())
        reply = received(self.socket, 8 * m * self.k)
        answers: Answers = np.frombuffer(reply, "<i8").reshape(m, self.k).tolist()
        return answers

    def close(self) -> None:
        self.socket.close()


def received(peer: socket.socket, size: int) -> bytes:
    """Exactly size bytes, or none if the other side has closed."""
    parts: list[bytes] = []
    while size and (part := peer.recv(min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve_exact(port: int, path: str) -> None:
    """Answer until the process is ended."""
    socketserver = importlib.import_module("socketserver")
    vectors: Vectors = np.load(path)
    d = vectors.shape[1]

    class Handler(socketserver.BaseRequestHandler):  # type: ignore[misc, name-defined]
        def handle(self) -> None:
            while head := received(self.request, 12):
                m, k, share = np.frombuffer(head, "<i4").tolist()
                queries = np.frombuffer(received(self.request, 4 * m * d), "<f4").reshape(m, d)
                rows = max(k, len(vectors) * share // 100)
                keys = queries @ vectors[:rows].T
                best = np.argsort(-keys, axis=1, kind="stable")[:, :k]
                self.request.sendall(best.astype("<i8").tobytes())

    class Threads(socketserver.ThreadingTCPServer):  # type: ignore[misc, name-defined]
        daemon_threads = True
        request_queue_size = 128

    with Threads((HOST, port), Handler) as server:
        server.serve_forever()


def main(arguments: list[str]) -> None:
    """Be one of the two servers that need nothing installed."""
    kind, port, *rest = arguments
    if kind == "echo":
        serve_echo(int(port), int(rest[0]), int(rest[1]))
    else:
        serve_exact(int(port), rest[0])


if __name__ == "__main__":
    main(sys.argv[1:])
