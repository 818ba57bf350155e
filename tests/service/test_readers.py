"""Reading processes: the same port, the writes of the other, and their own deaths.

    soardb_service/readers.py, reader.py -> [test_readers.py] -> a server with children

Which process a connection reaches is the kernel's choice, so each test opens connections until it
has met all of them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from soardb_proto import columns
from soardb_proto.v1 import admin_pb2, collections_pb2, points_pb2, types_pb2
from tests.service.running import Running, code_of

READERS = 2


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("readers") / "data"
    with Running(folder, "--readers", str(READERS)) as running:
        yield running


def children(server: Running) -> list[Any]:
    found: list[Any] = psutil.Process(server.process.pid).children()
    return found


def met(server: Running, writers: int, readers: int) -> dict[bool, list[grpc.Channel]]:
    """Connections by whether they end at the writing process, at least so many of each kind."""
    found: dict[bool, list[grpc.Channel]] = {True: [], False: []}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        channel = server.channel()
        try:
            info = server.call("Admin/ServerInfo", admin_pb2.ServerInfoRequest(), channel=channel)
        except grpc.RpcError:  # a process that is starting
            time.sleep(0.05)
            continue
        found[info.is_writer].append(channel)
        if info.is_writer and not found[False]:  # the others start yet
            time.sleep(0.02)
        if len(found[True]) >= writers and len(found[False]) >= readers:
            return found
    raise AssertionError({kind: len(channels) for kind, channels in found.items()})


def rows(first: int, n: int) -> points_pb2.UpsertRequest:
    vectors = np.random.default_rng(first).standard_normal((n, 4), dtype=np.float32)
    return points_pb2.UpsertRequest(
        collection="words",
        ids=columns.pack_ids(np.arange(first, first + n)),
        vectors=columns.pack_matrix(vectors),
    )


def make(server: Running) -> None:
    request = collections_pb2.CreateCollectionRequest(collection="words", dim=4)
    server.call("Collections/Create", request)


class TestWhatAReaderSees:
    def test_every_acknowledged_write_at_its_next_read(self, server: Running) -> None:
        """Whoever wrote it, through whichever process."""
        make(server)
        channels = met(server, 1, 2)
        writer, readers = channels[True][0], channels[False]
        count = points_pb2.CountRequest(collection="words")
        for i in range(20):
            through = writer if i % 2 else readers[i % len(readers)]
            server.call("Points/Upsert", rows(10 * i, 10), channel=through)
            for reader in readers:
                assert server.call("Points/Count", count, channel=reader).count == 10 * (i + 1)

    def test_min_seq_of_a_write_is_there(self, server: Running) -> None:
        """And one that was never written is FAILED_PRECONDITION, not a wrong answer."""
        make(server)
        reader = met(server, 0, 1)[False][0]
        seq = server.call("Points/Upsert", rows(0, 5), channel=reader).seq
        count = points_pb2.CountRequest(collection="words", min_seq=seq)
        assert server.call("Points/Count", count, channel=reader).count == 5
        count.min_seq = seq + 1
        with pytest.raises(grpc.RpcError) as caught:
            server.call("Points/Count", count, channel=reader)
        assert code_of(caught.value) == "FAILED_PRECONDITION"

    def test_errors_of_the_writing_process_come_back_whole(self, server: Running) -> None:
        """Code, message and details, as if it had been asked itself."""
        make(server)
        channels = met(server, 1, 1)
        wrong = points_pb2.UpsertRequest(collection="words", ids=types_pb2.Ids(i64=b"1234"))
        errors = []
        for channel in (channels[True][0], channels[False][0]):
            with pytest.raises(grpc.RpcError) as caught:
                server.call("Points/Upsert", wrong, channel=channel)
            error: grpc.Call = caught.value  # type: ignore[assignment]
            details = dict(error.trailing_metadata())["grpc-status-details-bin"]
            errors.append((error.code(), error.details(), details))
        assert errors[0] == errors[1]

    def test_streams_pass_through(self, server: Running) -> None:
        """Ingest is passed on to the writing process, export is answered where it arrives."""
        make(server)
        reader = met(server, 0, 1)[False][0]
        batches = [points_pb2.IngestRequest(collection="words", stream_id="s")]
        for i in range(1, 6):
            given = rows(100 * i, 100)
            batches.append(points_pb2.IngestRequest(batch=i, ids=given.ids, vectors=given.vectors))
        acks = server.call("Points/Ingest", batches, channel=reader)
        assert acks[-1].batch == 5
        assert acks[-1].count == 500
        export = points_pb2.ExportRequest(collection="words")
        parts = server.call("Points/Export", export, channel=reader)
        assert sum(part.vectors.count for part in parts) == 500


class TestDeaths:
    def test_a_reader_that_dies_is_started_again(self, server: Running) -> None:
        """Its clients connect anew; nobody else notices."""
        make(server)
        met(server, 1, 1)
        before = {child.pid for child in children(server)}
        assert len(before) == READERS
        os.kill(min(before), signal.SIGKILL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            alive = {c.pid for c in children(server) if c.status() != psutil.STATUS_ZOMBIE}
            if len(alive) == READERS and alive != before:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("it was not started again")
        server.call("Points/Upsert", rows(0, 5))
        reader = met(server, 0, 1)[False][0]
        count = points_pb2.CountRequest(collection="words")
        assert server.call("Points/Count", count, channel=reader).count == 5

    def test_all_end_with_the_writing_process(self, server: Running) -> None:
        """kill -9 of the parent leaves no reader that answers from an old state."""
        met(server, 1, 1)
        pids = [child.pid for child in children(server)]
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + 60
        while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [pid for pid in pids if psutil.pid_exists(pid)]

    def test_sigterm_ends_all_cleanly(self, server: Running) -> None:
        """With status 0, and the directory free for the next."""
        met(server, 1, 1)
        pids = [child.pid for child in children(server)]
        assert server.stop() == 0
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        with Running(server.folder, "--readers", "1") as again:
            met(again, 1, 1)
