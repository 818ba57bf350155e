"""Searches of several threads share calls, and each has the answer of its own.

soardb_client/gather.py -> [test_gather.py] -> a server process
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import soardb
from soardb_client import Client
from tests.service.conftest import Served

D = 8
VECTORS = np.random.default_rng(5).standard_normal((600, D), dtype=np.float32)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.target, gather=1) as opened:
        for name in opened.list_collections():
            opened.drop_collection(name)
        words = opened.create_collection("words", D, schema={"n": "int"})
        words.upsert(np.arange(600), VECTORS, [{"n": i % 5} for i in range(600)])
        yield opened


@pytest.fixture
def calls(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each call to Search brought; the first waits until `hold` is set."""
    asked: list[int] = []
    answer = client._wire.answer

    def counted(call: Any, limit: Any) -> Any:
        if call.path.endswith("Search"):
            asked.append(call.request.vectors.count)
        return answer(call, limit)

    monkeypatch.setattr(client._wire, "answer", counted)
    return asked


def held_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Holds up the first search; what is returned lets it go."""
    go, answer = threading.Event(), client._wire.answer

    def held(call: Any, limit: Any) -> Any:
        if call.path.endswith("Search"):
            assert go.wait(30)
        return answer(call, limit)

    monkeypatch.setattr(client._wire, "answer", held)
    return go.set


def waiting(client: Client, count: int) -> None:
    gather = client._wire.gather
    assert gather is not None
    for _ in range(4000):
        with gather._batcher._lock:
            if sum(map(len, gather._batcher._waiting.values())) == count:
                return
        threading.Event().wait(0.005)
    raise AssertionError("they never waited")


class TestAnswers:
    def test_each_thread_has_its_own(
        self, client: Client, calls: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ids, scores and payloads as of a call alone; forty queries in two calls."""
        words = client.get_collection("words")
        with Client(client.target) as plain:
            expected = plain.get_collection("words").search(VECTORS[:41], 5)
        go = held_up(client, monkeypatch)
        with ThreadPoolExecutor(41) as pool:
            futures = [pool.submit(words.search, VECTORS[0], 5)]
            while client._wire.gather._batcher._free:  # type: ignore[union-attr]
                threading.Event().wait(0.005)
            futures += [pool.submit(words.search, VECTORS[i], 5) for i in range(1, 41)]
            waiting(client, 40)
            go()
            found = [future.result(30) for future in futures]
        assert [hits.ids.tolist() for hits in found] == [hits.ids.tolist() for hits in expected]
        assert [hits.scores.tolist() for hits in found] == [h.scores.tolist() for h in expected]
        assert [hits.payloads for hits in found] == [hits.payloads for hits in expected]
        assert sorted(calls) == [1, 40]

    def test_other_searches_do_not_share(
        self, client: Client, calls: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A filter or a limit more is another call; so is a search by id or by many vectors."""
        words = client.get_collection("words")
        go = held_up(client, monkeypatch)
        ways: list[Callable[[], Any]] = [
            lambda: words.search(VECTORS[0], 3),
            lambda: words.search(VECTORS[1], 3, filter="n = 1"),
            lambda: words.search(VECTORS[2], 4),
            lambda: words.search(VECTORS[3], 3, with_payload=False),
            lambda: words.search(VECTORS[:2], 3),
            lambda: words.search(id=5, limit=3),
        ]
        with ThreadPoolExecutor(len(ways)) as pool:
            futures = [pool.submit(way) for way in ways]
            waiting(client, 3)
            go()
            found = [future.result(30) for future in futures]
        assert [len(hits) for hits in found] == [3, 3, 4, 3, 2, 3]
        assert sorted(calls) == [0, 1, 1, 1, 1, 2]

    def test_one_that_is_refused_is_refused_alone(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query of NaN among others, which the server finds."""
        words = client.get_collection("words")
        go = held_up(client, monkeypatch)
        bad = VECTORS[1].copy()
        bad[2] = np.nan
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(words.search, VECTORS[0])
            while client._wire.gather._batcher._free:  # type: ignore[union-attr]
                threading.Event().wait(0.005)
            wrong = pool.submit(words.search, bad)
            right = pool.submit(words.search, VECTORS[2])
            waiting(client, 2)
            go()
            assert first.result(30).ids[0] == 0
            assert right.result(30).ids[0] == 2
            with pytest.raises(soardb.InvalidArgument):
                wrong.result(30)

    def test_a_single_thread_makes_single_calls(self, client: Client, calls: list[int]) -> None:
        """Nothing waits for company."""
        words = client.get_collection("words")
        for i in range(3):
            assert words.search(VECTORS[i]).ids[0] == i
        assert calls == [1, 1, 1]
