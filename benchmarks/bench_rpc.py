"""Which gRPC server in Python answers most: grpcio's thread pool, grpc.aio, grpc.aio on uvloop.

    the three as echo servers -> [bench_rpc.py] -> results/rpc-echo.json, a table

    python -m benchmarks.bench_rpc [--seconds 3] [--rounds 3] [--tiny]

Each server answers the bytes of a search of ten neighbours in 100 dimensions without looking at
them, pinned to one core; a client on the other core keeps N calls under way. That is the ceiling of
whatever is put behind it, and the ground on which soardb_service/server.py stands. The rounds are
interleaved; medians are told.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from benchmarks.provenance import commit, machine

__all__ = ["main"]

KINDS = ("thread pool", "aio", "aio, uvloop")
CLIENTS = (1, 4, 16, 64)
REQUEST, REPLY = b"x" * 430, b"y" * 150  # a query of 100 float32; ten ids and scores
RESULT = Path(__file__).parent / "results" / "rpc-echo.json"


class _Echo(grpc.GenericRpcHandler):
    """Answers any method with the same bytes."""

    def __init__(self, answer: Any) -> None:
        self._method: Any = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: Any) -> Any:
        """The one method."""
        return self._method


def serve(kind: str, port: int) -> None:
    """Answer until killed."""
    address = f"127.0.0.1:{port}"
    if kind == "thread pool":
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers((_Echo(lambda request, context: REPLY),))
        server.add_insecure_port(address)
        server.start()
        server.wait_for_termination()
        return

    async def answer(request: bytes, context: Any) -> bytes:
        return REPLY

    async def run() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Echo(answer),))
        server.add_insecure_port(address)
        await server.start()
        await server.wait_for_termination()

    _run(run(), kind == "aio, uvloop")


def _run(work: Any, on_uvloop: bool) -> Any:
    if on_uvloop:
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


def load(port: int, clients: int, seconds: float) -> dict[str, float]:
    """Calls a second and their latencies with so many calls under way."""

    async def run() -> dict[str, float]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(min(clients, 4))
        ]
        methods: list[Any] = [channel.unary_unary("/echo/Echo") for channel in channels]
        took: list[float] = []

        async def loop(method: Any, until: float) -> None:
            while (begun := time.perf_counter()) < until:
                await method(REQUEST, wait_for_ready=True)
                took.append(time.perf_counter() - begun)

        async def all_of(span: float) -> float:
            took.clear()
            begun = time.perf_counter()
            ways = [methods[i % len(methods)] for i in range(clients)]
            await asyncio.gather(*[loop(way, begun + span) for way in ways])
            return time.perf_counter() - begun

        await all_of(seconds / 4)
        span = await all_of(seconds)
        took.sort()
        for channel in channels:
            await channel.close()
        n = len(took)
        return {"rps": n / span, "p50_ms": took[n // 2] * 1e3, "p99_ms": took[n * 99 // 100] * 1e3}

    found: dict[str, float] = _run(run(), importlib.util.find_spec("uvloop") is not None)
    return found


def _pinned(core: int, *arguments: str) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-P", "-m", "benchmarks.bench_rpc", *arguments]
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]


def measure(kind: str, clients: Sequence[int], seconds: float) -> list[dict[str, float]]:
    """One server under each number of clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(_pinned(0, "--serve", kind, "--port", str(port)))
    try:
        out = []
        for n in clients:
            told = subprocess.run(
                _pinned(1, "--load", str(n), "--port", str(port), "--seconds", str(seconds)),
                capture_output=True,
                text=True,
                check=True,
            )
            out.append(json.loads(told.stdout))
        return out
    finally:
        server.kill()
        server.wait()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure all, print the table, write the JSON; returns what it wrote."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--tiny", action="store_true", help="one short round, for a test")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        serve(given.serve, given.port)
        return {}
    if given.load:
        found = load(given.port, given.load, given.seconds)
        print(json.dumps(found))
        return found
    clients = CLIENTS[:2] if given.tiny else CLIENTS
    seconds, rounds = (0.2, 1) if given.tiny else (given.seconds, given.rounds)
    kinds = [k for k in KINDS if "uvloop" not in k or importlib.util.find_spec("uvloop")]
    runs: dict[str, list[list[dict[str, float]]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            runs[kind].append(measure(kind, clients, seconds))
    table = {
        kind: [
            {"clients": n}
            | {name: statistics.median(r[i][name] for r in done) for name in done[0][i]}
            for i, n in enumerate(clients)
        ]
        for kind, done in runs.items()
    }
    result = {
        "commit": commit(),
        "machine": machine(),
        "grpcio": grpc.__version__,
        "seconds": seconds,
        "rounds": rounds,
        "request_bytes": len(REQUEST),
        "reply_bytes": len(REPLY),
        "servers": table,
    }
    print("| server | " + " | ".join(f"calls/s at {n}, p50 ms" for n in clients) + " |")
    print("|---|" + "---:|" * len(clients))
    for kind, rows in table.items():
        cells = [f"{row['rps']:,.0f}, {row['p50_ms']:.2f}" for row in rows]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return result


if __name__ == "__main__":
    main()
