"""Metrics, logs and traces: what happened is told, and no secret with it.

    soardb_service/observe.py -> [test_observe.py] -> a server process, an OTLP receiver

The receiver of traces is a gRPC server that speaks OTLP, as a collector does.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from soardb_proto import columns
from soardb_proto.v1 import collections_pb2, points_pb2, types_pb2
from tests.service.running import Running


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def exercise(server: Running) -> None:
    """A collection, ten points, two searches and an error."""
    made = collections_pb2.CreateCollectionRequest(collection="words", dim=4)
    server.call("Collections/Create", made)
    vectors = np.random.default_rng(0).standard_normal((10, 4), dtype=np.float32)
    matrix = columns.pack_matrix(vectors)
    ids = columns.pack_ids(np.arange(10))
    server.call(
        "Points/Upsert", points_pb2.UpsertRequest(collection="words", ids=ids, vectors=matrix)
    )
    for _ in range(2):
        server.call("Points/Search", points_pb2.SearchRequest(collection="words", vectors=matrix))
    with pytest.raises(grpc.RpcError):
        server.call("Points/Count", points_pb2.CountRequest(collection="nowhere"))


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


class TestMetrics:
    @pytest.mark.parametrize("readers", [0, 1])
    def test_calls_are_counted_by_method_and_status(self, tmp_path: Path, readers: int) -> None:
        """Over all processes, on a port that shows nothing else."""
        port = free_port()
        flags = ("--metrics-port", str(port), "--readers", str(readers))
        with Running(tmp_path / "data", *flags) as server:
            exercise(server)
            found = scraped(port)
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/v1/collections", data=b"", timeout=30
                )
        # Which method of which service, as the label says it.
        calls = {k: v for k, v in found.items() if k.startswith("soardb_calls_total")}
        by_method = {
            name: sum(v for k, v in calls.items() if name in k and 'code="OK"' in k)
            for name in ("Create", "Upsert", "Search")
        }
        assert by_method == {"Create": 1, "Upsert": 1, "Search": 2}
        assert sum(v for k, v in calls.items() if 'code="NOT_FOUND"' in k) == 1
        assert found["soardb_points_written_total"] == 10
        assert found["soardb_queries_total"] == 20
        assert found["soardb_calls_in_flight"] == 0


class TestLogs:
    def test_a_slow_call_is_told_with_its_plan(self, tmp_path: Path) -> None:
        """As one JSON object a line; a vector, a filter and a payload are not in it."""
        with Running(tmp_path / "data", "--log-format", "json", "--slow-ms", "0.0001") as server:
            exercise(server)
            request = points_pb2.SearchRequest(
                collection="words",
                vectors=columns.pack_matrix(np.full((1, 4), 0.123456, np.float32)),
                explain=True,
            )
            server.call("Points/Search", request)
            server.stop()
            lines = [json.loads(line) for line in server.log().splitlines() if line[:1] == "{"]
        slow = [line for line in lines if line["event"] == "slow call"]
        search = next(line for line in slow if line.get("plan"))
        assert search["plan"] == "exact"
        assert search["collection"] == "words"
        assert search["code"] == "OK"
        assert search["queries"] == 1
        assert search["ms"] > 0
        assert "0.123456" not in server.log()
        assert [line["code"] for line in slow if "Count" in line["method"]] == ["NOT_FOUND"]

    def test_quick_calls_are_not_told(self, tmp_path: Path) -> None:
        """Unless --log-calls asks for all of them."""
        with Running(tmp_path / "quiet", "--slow-ms", "60000") as server:
            exercise(server)
            server.stop()
            assert "Upsert" not in server.log()
        with Running(tmp_path / "all", "--slow-ms", "60000", "--log-calls") as server:
            exercise(server)
            server.stop()
            assert "Upsert" in server.log()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.came = threading.Event()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


class TestTraces:
    @pytest.fixture
    def collector(self) -> Iterator[tuple[Collector, int]]:
        server = grpc.server(ThreadPoolExecutor(2))
        found = Collector()
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(found, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield found, port
        server.stop(None).wait()

    def test_each_call_is_a_span_under_the_callers(
        self, tmp_path: Path, collector: tuple[Collector, int]
    ) -> None:
        """So a slow request is followed from the program that made it."""
        found, port = collector
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        with Running(tmp_path / "data", "--traces", f"http://127.0.0.1:{port}") as server:
            exercise(server)
            server.call(
                "Points/Count",
                points_pb2.CountRequest(collection="words", filter=types_pb2.Filter()),
                metadata=[("traceparent", f"00-{trace}-{parent}-01")],
            )
        end = time.monotonic() + 30
        while time.monotonic() < end and not any(s.parent_span_id for s in found.spans):
            found.came.wait(0.1)
        names = {span.name for span in found.spans}
        assert {"soardb.v1.Points/Search", "soardb.v1.Points/Upsert"} <= names
        (child,) = [span for span in found.spans if span.parent_span_id]
        assert child.trace_id.hex() == trace
        assert child.parent_span_id.hex() == parent
