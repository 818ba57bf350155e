"""How a server ends: drained when it is asked, without loss when it is killed.

soardb_service/server.py, ingest.py -> [test_ending.py] -> server processes, soardb_client
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import soardb
from soardb_client import Client
from tests.service.conftest import Served

D = 16


def batch(number: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray, list[dict[str, int]]]:
    """Points that can be told from all others: the vector and the payload say the id."""
    ids = np.arange(number * rows, (number + 1) * rows)
    vectors = np.random.default_rng(number).standard_normal((rows, D), dtype=np.float32)
    return ids, vectors, [{"n": int(i)} for i in ids]


class TestKill:
    def test_kill_9_during_ingest_loses_no_acknowledged_batch(self, tmp_path: Path) -> None:
        """The client goes on where it was: each point is there once, as it was sent."""
        kills, batches, acknowledged = 4, 120, [0]
        with Served(tmp_path / "db") as server, Client(server.target, retries=50) as client:
            words = client.create_collection("words", D, metric="l2", schema={"n": "int"})
            at_kill: list[tuple[int, int]] = []

            def source() -> Iterator[Any]:
                for i in range(batches):
                    if i and i % (batches // (kills + 1)) == 0:
                        seen = acknowledged[0]
                        server.stop(signal.SIGKILL)
                        with soardb.connect(server.folder, read_only=True) as after:
                            at_kill.append((seen, after.get_collection("words").count()))
                        server.start()
                    yield batch(i)

            def note(count: int) -> None:
                acknowledged[0] = count

            total = words.ingest(source(), progress=note)
            assert total == batches * 200
            assert len(at_kill) >= kills
            for seen, kept in at_kill:
                assert kept >= seen
            assert words.count() == total
            for i in (0, batches // 2, batches - 1):
                ids, vectors, payloads = batch(i)
                points: list[Any] = words.get(ids, with_vectors=True)
                assert [point.payload for point in points] == payloads
                assert np.array_equal(np.stack([point.vector for point in points]), vectors)

    def test_inserts_are_not_applied_twice(self, tmp_path: Path) -> None:
        """A batch whose answer was lost is known by its number; insert would refuse it."""
        with Served(tmp_path / "db") as server, Client(server.target, retries=50) as client:
            words = client.create_collection("words", D)

            def source() -> Iterator[Any]:
                for i in range(30):
                    if i % 10 == 9:
                        server.stop(signal.SIGKILL)
                        server.start()
                    yield batch(i)

            assert words.ingest(source(), mode="insert") == 30 * 200
            assert words.count() == 30 * 200


class TestDrain:
    def test_calls_under_way_are_finished(self, tmp_path: Path) -> None:
        """SIGTERM during a search of a second: the answer comes, and then the end."""
        with Served(tmp_path / "db") as server, Client(server.target, retries=0) as client:
            words = client.create_collection("words", D, metric="l2")
            for i in range(40):
                ids, vectors, _ = batch(i, 1000)
                words.upsert(ids, vectors, ack="logged")
            queries = batch(99, 1000)[1]
            answers: list[Any] = []
            asking = threading.Thread(
                target=lambda: answers.append(words.search(queries, exact=True, timeout=60))
            )
            asking.start()
            time.sleep(0.1)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            asking.join(60)
            assert server.process.wait(60) == 0
            # Where the signal came before the call, it was refused; it was never cut off.
            assert not answers or len(answers[0]) == 1000
            with pytest.raises(soardb.Unavailable):
                words.count()
        with soardb.connect(tmp_path / "db") as database:
            assert database.get_collection("words").count() == 40_000

    def test_a_second_signal_ends_it_at_once(self, tmp_path: Path) -> None:
        """For an operator who will not wait for a stream that never ends."""
        with ExitStack() as held:
            server = held.enter_context(Served(tmp_path / "db", "--drain-s", "600"))
            channel = held.enter_context(grpc.insecure_channel(server.target[7:]))
            hold = threading.Event()
            ask: Any = channel.stream_stream("/soardb.v1.Points/Ingest")
            opened = ask(iter(lambda: hold.wait(120) or b"", None))
            time.sleep(0.5)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(30) == 128 + signal.SIGINT
            opened.cancel()
            hold.set()
