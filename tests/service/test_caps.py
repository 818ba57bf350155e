"""What one call may hold, how many may come, and how long they may take.

soardb_service/limits.py, gate.py, server.py -> [test_caps.py] -> running servers
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from soardb.filters.expr import MAX_DEPTH, MAX_IN_VALUES, MAX_NODES
from soardb_proto import columns
from soardb_proto.v1 import (
    admin_pb2,
    collections_pb2,
    indexes_pb2,
    operations_pb2,
    points_pb2,
    types_pb2,
)
from soardb_service.patience import Patience
from tests.service.running import METHODS, Running, added_key, metadata_of, outcome

D = 4
CAP = 2**20


def upsert(n: int, **others: Any) -> points_pb2.UpsertRequest:
    rows = np.random.default_rng(0).standard_normal((n, D)).astype(np.float32)
    return points_pb2.UpsertRequest(
        collection="a",
        ids=columns.pack_ids(np.arange(n)),
        vectors=columns.pack_matrix(rows),
        **others,
    )


def search(n: int = 1, limit: int = 10, **others: Any) -> points_pb2.SearchRequest:
    rows = np.ones((n, D), np.float32)
    return points_pb2.SearchRequest(
        collection="a", vectors=columns.pack_matrix(rows), limit=limit, **others
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    flags = [
        *("--max-message-bytes", str(CAP)),
        *("--max-rows", "100", "--max-queries", "10", "--max-results", "500"),
        *("--max-limit", "200", "--max-page-size", "50", "--max-streams", "3"),
        *("--threads", "2", "--waiting", "4"),
    ]
    with Running(tmp_path_factory.mktemp("caps") / "db", *flags) as made:
        create = collections_pb2.CreateCollectionRequest(
            collection="a", dim=D, schema=[collections_pb2.Field(name="n", type="int")]
        )
        made.call("Collections/Create", create)
        made.call("Points/Upsert", upsert(100))
        yield made


class TestOneCall:
    def test_a_message_of_the_cap_is_taken_and_one_byte_more_is_not(self, server: Running) -> None:
        """Refused by its announced length, before it is received."""
        ask = points_pb2.CountRequest(collection="a")
        room = (
            CAP
            - len(ask.SerializeToString())
            - len(
                points_pb2.CountRequest(filter=types_pb2.Filter(sql=" " * CAP)).SerializeToString()
            )
            + CAP
        )
        for spare, wanted in ((-1, True), (0, True), (1, False)):
            ask.filter.sql = " " * (room + spare)
            assert len(ask.SerializeToString()) == CAP + spare
            code, why = outcome(server.call, "Points/Count", ask)
            assert (code == "RESOURCE_EXHAUSTED") != wanted, (code, why)

    @pytest.mark.parametrize(
        ("method", "good", "bad"),
        [
            ("Points/Upsert", upsert(100), upsert(101)),
            ("Points/Search", search(10), search(11)),
            ("Points/Search", search(5, 100), search(6, 100)),
            ("Points/Search", search(1, 200), search(1, 201)),
            ("Points/Search", search(1, 200), search(1, 2**32 - 1)),
            (
                "Points/Scroll",
                points_pb2.ScrollRequest(collection="a", page_size=50),
                points_pb2.ScrollRequest(collection="a", page_size=51),
            ),
            (
                "Points/Get",
                points_pb2.GetRequest(collection="a", ids=columns.pack_ids(np.arange(100))),
                points_pb2.GetRequest(collection="a", ids=columns.pack_ids(np.arange(101))),
            ),
            (
                "Points/Delete",
                points_pb2.DeleteRequest(collection="a", ids=columns.pack_ids(np.arange(500, 600))),
                points_pb2.DeleteRequest(collection="a", ids=columns.pack_ids(np.arange(500, 601))),
            ),
            (
                "Points/Export",
                points_pb2.ExportRequest(collection="a", batch_size=100),
                points_pb2.ExportRequest(collection="a", batch_size=101),
            ),
        ],
    )
    def test_each_cap_holds_what_it_says(
        self, server: Running, method: str, good: Any, bad: Any
    ) -> None:
        """The cap itself is allowed; beyond it the message says the cap and what came."""
        assert outcome(server.call, method, good) == ("OK", "")
        code, why = outcome(server.call, method, bad)
        assert code == "INVALID_ARGUMENT"
        assert "expected at most" in why

    def test_announced_sizes_are_compared_before_anything_is_made(self, server: Running) -> None:
        """2**32 rows of 2**32 numbers in a message of forty bytes."""
        before = server.rss
        for count, dim in ((2**32 - 1, 2**32 - 1), (1, 2**32 - 1), (100, 2**31), (0, 2**32 - 1)):
            ask = upsert(1)
            ask.vectors.count, ask.vectors.dim = count, dim
            assert outcome(server.call, "Points/Upsert", ask)[0] == "INVALID_ARGUMENT"
        assert server.rss < before + 50 * 2**20

    @pytest.mark.parametrize(
        "sql",
        [
            " AND ".join(["n = 1"] * (MAX_NODES + 1)),
            "(n = 1 AND (n = 2 OR " * MAX_DEPTH + "n = 3" + "))" * MAX_DEPTH,
            "(" * 10_000 + "n = 1" + ")" * 10_000,
            f"n IN ({','.join(map(str, range(MAX_IN_VALUES + 1)))})",
            "n = 1 OR " * 50_000 + "n = 2",
        ],
        ids=["nodes", "depth", "brackets", "in-list", "size"],
    )
    def test_a_filter_without_end_is_refused_quickly(self, server: Running, sql: str) -> None:
        """Its size is its cost; what it would match was never looked at."""
        code, why = outcome(
            server.call,
            "Points/Count",
            points_pb2.CountRequest(collection="a", filter=types_pb2.Filter(sql=sql)),
            timeout=20,
        )
        assert code == "INVALID_ARGUMENT", why

    def test_a_json_filter_without_end_is_refused_too(self, server: Running) -> None:
        """The other spelling."""
        one = {"field": "n", "op": "eq", "value": 1}
        deep: Any = one
        for _ in range(MAX_DEPTH + 1):
            deep = {"not": deep}
        for filter in (
            json.dumps({"and": [one] * (MAX_NODES + 1)}).encode(),
            json.dumps(deep).encode(),
            b'{"not":' * 50_000 + b"1" + b"}" * 50_000,
            json.dumps(
                {"field": "n", "op": "in", "value": list(range(MAX_IN_VALUES + 1))}
            ).encode(),
        ):
            ask = points_pb2.CountRequest(collection="a", filter=types_pb2.Filter(json=filter))
            assert outcome(server.call, "Points/Count", ask)[0] == "INVALID_ARGUMENT"


class Held:
    """Streams or waits that are open until the block ends."""

    def __init__(self, server: Running, path: str, count: int, first: bytes | None = None) -> None:
        self._over = threading.Event()
        self._channel = server.channel()
        self.calls = []
        for _ in range(count):
            ask = self._channel.stream_stream(path)
            self.calls.append(ask(self._requests(first), metadata=metadata_of(server.key)))

    def _requests(self, first: bytes | None) -> Iterator[bytes]:
        if first is not None:
            yield first
        self._over.wait(60)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for call in self.calls:
            call.cancel()


def free_again(server: Running) -> None:
    """Wait until a stream can be opened again."""
    end = time.monotonic() + 10
    ask = points_pb2.ExportRequest(collection="a")
    while (told := outcome(server.call, "Points/Export", ask))[0] != "OK":
        assert time.monotonic() < end, told
        time.sleep(0.05)


class TestManyCalls:
    def test_streams_are_counted_and_calls_go_on_beside_them(self, server: Running) -> None:
        """A fourth is refused at once; those of one kind take no thread of the others."""
        opening = points_pb2.IngestRequest(collection="a").SerializeToString()
        with Held(server, METHODS["Points/Ingest"].path, 3, opening) as held:
            for call in held.calls:
                next(call)  # it is open
            code, why = outcome(
                server.call, "Points/Export", points_pb2.ExportRequest(collection="a")
            )
            assert code == "RESOURCE_EXHAUSTED"
            assert "streams" in why
            for _ in range(20):
                server.call("Points/Count", points_pb2.CountRequest(collection="a"), timeout=10)
        free_again(server)

    def test_reflection_and_waits_count_as_streams(self, server: Running) -> None:
        """Each holds a thread: else a key that may read could take all of them."""
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        with Held(server, path, 10) as held:
            refused = [call for call in held.calls if _ends(call, 1.0) == "RESOURCE_EXHAUSTED"]
            assert len(refused) == 7
            for _ in range(20):
                server.call("Points/Count", points_pb2.CountRequest(collection="a"), timeout=10)
        free_again(server)

    def test_the_writing_process_does_not_wait_for_a_write_to_come(self, server: Running) -> None:
        """It knows every write that was acknowledged; a wait would only hold a thread."""
        started = time.monotonic()
        for _ in range(20):
            ask = points_pb2.CountRequest(collection="a", min_seq=2**63)
            assert outcome(server.call, "Points/Count", ask)[0] == "FAILED_PRECONDITION"
        assert time.monotonic() - started < 20 * 0.5

    def test_a_call_too_many_is_refused_and_the_server_goes_on(self, server: Running) -> None:
        """Five threads and four places: of sixty calls that never send, many must go at once."""
        over = threading.Event()

        def nothing() -> Iterator[bytes]:
            over.wait(60)
            yield from ()

        channel = server.channel()
        ask = channel.stream_unary(METHODS["Points/Count"].path)
        calls = [ask.future(nothing()) for _ in range(60)]
        refused = sum(_ends(call, 5.0) == "RESOURCE_EXHAUSTED" for call in calls)
        assert refused >= 60 - 9 - 10
        over.set()
        for call in calls:
            call.cancel()
        end = time.monotonic() + 20
        while outcome(server.call, "Admin/ServerInfo", admin_pb2.ServerInfoRequest())[0] != "OK":
            assert time.monotonic() < end
            time.sleep(0.1)

    def test_a_key_that_calls_too_often_is_told_when_to_come_again(self, tmp_path: Path) -> None:
        """In the form that clients know: RetryInfo. Another key is not held up."""
        folder = tmp_path / "db"
        folder.mkdir()
        keys = [added_key(folder, "*:read") for _ in range(2)]
        with Running(folder, "--rate", "5") as server:
            ask = admin_pb2.ServerInfoRequest()
            refused = None
            for _ in range(40):
                try:
                    server.call("Admin/ServerInfo", ask, key=keys[0])
                except grpc.RpcError as error:
                    refused = error
            assert refused is not None
            status = status_pb2.Status()
            held: Any = refused.trailing_metadata()
            trailers: dict[str, bytes] = dict(held)
            status.ParseFromString(trailers["grpc-status-details-bin"])
            retry = error_details_pb2.RetryInfo()
            assert any(detail.Unpack(retry) for detail in status.details)
            assert 0 < retry.retry_delay.ToTimedelta().total_seconds() <= 1
            assert outcome(server.call, "Admin/ServerInfo", ask, key=keys[1]) == ("OK", "")
            time.sleep(1)
            assert outcome(server.call, "Admin/ServerInfo", ask, key=keys[0]) == ("OK", "")


def _ends(call: Any, seconds: float) -> str:
    """The status of a call that ends within a time, or OPEN."""
    end = time.monotonic() + seconds
    while call.is_active() and time.monotonic() < end:
        time.sleep(0.01)
    return "OPEN" if call.is_active() else str(call.code().name)


class TestTime:
    def test_a_deadline_of_a_millisecond_ends_the_call_and_frees_its_thread(
        self, server: Running
    ) -> None:
        """A server that works on for callers who are gone is a slow server."""
        codes = {
            outcome(server.call, "Points/Search", search(10, 50, exact=True), timeout=seconds)[0]
            for seconds in (0.001, 0.0001, 0.00001) * 20
        }
        assert "DEADLINE_EXCEEDED" in codes
        assert codes <= {"DEADLINE_EXCEEDED", "OK"}
        for _ in range(20):
            server.call("Points/Count", points_pb2.CountRequest(collection="a"), timeout=10)

    def test_cancelled_calls_leave_nothing_behind(self, server: Running) -> None:
        """At any moment, of any kind; permits, locks and threads are there again."""
        threads = server.threads
        for i in range(60):
            channel = server.channel()
            search_call = channel.unary_unary(METHODS["Points/Search"].path).future(
                search(10, 50, exact=True).SerializeToString()
            )
            export = channel.unary_stream(METHODS["Points/Export"].path)(
                points_pb2.ExportRequest(collection="a", batch_size=1).SerializeToString()
            )
            time.sleep(0.001 * (i % 7))
            search_call.cancel()
            export.cancel()
            channel.close()
        free_again(server)
        info = server.call("Admin/Stats", admin_pb2.StatsRequest())
        assert info.calls_in_flight == 1
        assert server.threads <= threads + 8

    def test_waiting_for_an_operation_is_bounded_and_knows_no_nan(self, server: Running) -> None:
        """NaN is not after any moment: a wait until then would not end."""
        operation = server.call("Indexes/Build", indexes_pb2.BuildRequest(collection="a"))
        for seconds in (float("nan"), -1.0, 0.0, float("-inf")):
            ask = operations_pb2.WaitOperationRequest(
                collection="a", name=operation.name, timeout_s=seconds
            )
            server.call("Operations/Wait", ask, timeout=10)
        ask.timeout_s = 1e308
        assert server.call("Operations/Wait", ask, timeout=60).state != operations_pb2.RUNNING


class TestPatience:
    def test_who_waits_too_long_is_cancelled_once(self) -> None:
        """And who is done before is not."""
        patience = Patience(seconds=0.2)
        cancelled: list[str] = []
        with patience.wait(lambda: cancelled.append("long")):
            with patience.wait(lambda: cancelled.append("short")):
                pass
            time.sleep(1.0)
            assert cancelled == ["long"]
        time.sleep(0.5)
        assert cancelled == ["long"]

    def test_in_a_crowd_a_wait_is_short(self) -> None:
        """Those who hold all threads by sending nothing are the first to go."""
        patience = Patience(seconds=600, crowd=3)
        cancelled: list[int] = []
        waits = [patience.wait(lambda i=i: cancelled.append(i)) for i in range(3)]  # type: ignore[misc]
        for wait in waits[:2]:
            wait.__enter__()
        time.sleep(1.5)
        assert cancelled == []
        waits[2].__enter__()
        time.sleep(0.8)
        assert cancelled == [0, 1]
        for wait in waits:
            wait.__exit__(None, None, None)

    def test_a_request_that_does_not_come_ends_the_call(self, tmp_path: Path) -> None:
        """gRPC itself would wait for ever, and with it one of the threads."""
        with Running(tmp_path / "db", "--stall-s", "0.5") as server:
            over = threading.Event()

            def nothing() -> Iterator[bytes]:
                over.wait(30)
                yield from ()

            call = server.channel().stream_unary(METHODS["Admin/ServerInfo"].path).future(nothing())
            assert _ends(call, 10) == "CANCELLED"
            over.set()
            assert "Traceback" not in server.log()
