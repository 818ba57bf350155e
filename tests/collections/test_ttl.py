"""Expiry: a point whose moment has passed is gone, at once for readers and soon from the disk.

    soardb/core.py, soardb/writer.py, soardb/database.py -> [test_ttl.py]

A clock in place of the system's says when; the background worker is held still but where the test
is about it, so that each state between "expired" and "deleted" is really tried.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from soardb import collection as collections
from soardb import core as cores
from soardb import database as databases
from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument, NotFound
from soardb.filters import F
from tests.collections.conftest import D, crashed, held, ids_of, open_by_hand, points

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """The time of day for soardb alone."""

    def __init__(self) -> None:
        self.now = NOW - timedelta(seconds=1)

    def time(self) -> float:
        return self.now.timestamp()

    def at(self, seconds: float) -> None:
        self.now = NOW + timedelta(seconds=seconds)

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """It is a second before NOW until a test says otherwise."""
    made = Clock()
    fake = SimpleNamespace(time=made.time, monotonic=time.monotonic, sleep=time.sleep)
    for module in (collections, cores, databases):
        monkeypatch.setattr(module, "time", fake)
    return made


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background worker does nothing."""
    monkeypatch.setattr(Database, "_tend", lambda self, folder, core: None)


@pytest.fixture
def collection(clock: Clock, database: Database) -> Collection:
    """Points 0..9 that expire after 0, 10, ... 90 seconds, and 10..19 that never do."""
    made = database.create_collection(
        "sessions", D, "l2", schema={"until": "datetime", "n": "int", "body": "text"}, ttl="until"
    )
    payloads = [{"n": i, "until": after(10 * i), "body": "fox"} for i in range(10)]
    made.upsert(range(10), points(20)[:10], payloads)
    made.upsert(range(10, 20), points(20)[10:], [{"n": i, "body": "fox"} for i in range(10, 20)])
    return made


def after(seconds: float) -> str:
    """That many seconds after NOW, as ISO 8601."""
    return (NOW + timedelta(seconds=seconds)).isoformat()


def expect(collection: Collection, ids: set[int]) -> None:
    """Every way of reading sees these points and no others."""
    assert collection.count() == len(ids)
    assert len(collection) == len(ids)
    assert {p.id for p in collection.scroll()} == ids
    assert {p.id for p in collection.scroll(filter=F("n") >= 0, page_size=3)} <= ids
    assert {p.id for p in collection.get(range(20)) if p} == ids & set(range(20))
    query = points(1)[0]
    assert set(ids_of(collection.search(query, 100))) == ids
    assert set(ids_of(collection.search(query, 100, filter=F("n") >= 0))) == ids
    assert set(ids_of(collection.search(text="fox", limit=100))) == ids
    assert set(ids_of(collection.search(query, 100, text="fox"))) == ids
    assert collection.count(F("body").matches("fox")) == len(ids)


@pytest.mark.usefixtures("still")
class TestVanishing:
    @pytest.mark.parametrize("is_compacted", [False, True])
    def test_at_once_and_for_every_read(
        self, collection: Collection, clock: Clock, is_compacted: bool
    ) -> None:
        """Nobody should get a session that has ended because a sweeper was late."""
        if is_compacted:
            collection.compact()
        expect(collection, set(range(20)))
        for seconds in (0, 9.999, 10, 35, 1000):
            clock.at(seconds)
            gone = {i for i in range(10) if 10 * i <= seconds}
            expect(collection, set(range(20)) - gone)

    @pytest.mark.parametrize(
        "read",
        [
            lambda c: c.count(),
            lambda c: c.count(F("n") >= 0),
            lambda c: len(c.scroll()),
            lambda c: len(c.search(np.zeros(D), 100)),
            lambda c: len(c.search(np.zeros(D), 100, exact=True, filter=F("n") < 100)),
            lambda c: len(c.search(text="fox", limit=100)),
            lambda c: sum(p is not None for p in c.get(range(20))),
            lambda c: c.stats()["points"],
        ],
    )
    def test_the_first_read_after_it_is_right(
        self, collection: Collection, clock: Clock, read: Callable[[Collection], int]
    ) -> None:
        """Whichever read comes first: none relies on another having looked."""
        clock.at(25)
        assert read(collection) == 17

    def test_a_moment_that_has_passed_already(self, collection: Collection, clock: Clock) -> None:
        """Such a point is written and gone."""
        assert collection.upsert([100], points(1), [{"until": after(-5)}]) == 1
        assert collection.get([100]) == [None]
        assert collection.count() == 20

    def test_a_change_of_the_moment_counts(self, collection: Collection, clock: Clock) -> None:
        """Longer, shorter, for ever."""
        collection.update_payload({"until": after(500)}, ids=[0])
        collection.update_payload({"until": None}, ids=[1])
        collection.update_payload({"until": after(1)}, ids=[9, 15])
        clock.at(100)
        expect(collection, {0, 1, *range(10, 20)} - {15})

    def test_time_going_back_brings_nothing_back(
        self, collection: Collection, clock: Clock
    ) -> None:
        """A clock that is set back by a minute must not wake the dead for those who saw them go."""
        clock.at(25)
        assert collection.count() == 17
        clock.at(5)
        assert collection.count() == 17


@pytest.mark.usefixtures("still")
class TestWritingOverIt:
    def test_an_expired_id_can_be_inserted(self, collection: Collection, clock: Clock) -> None:
        """Its point is gone, whether or not somebody has read since."""
        clock.at(25)
        assert collection.insert([0, 1], points(2), [{"n": 100}, {"n": 101}]) == 2
        assert held(collection, [0, 1])[0] == [{"n": 100}, {"n": 101}]
        assert collection.count() == 19

    @pytest.mark.parametrize("is_seen", [False, True])
    def test_an_expired_id_has_no_payload_to_update(
        self, collection: Collection, clock: Clock, is_seen: bool
    ) -> None:
        """By id it is unknown, by filter it does not match: it cannot be brought back to life."""
        clock.at(25)
        if is_seen:
            assert collection.count() == 17
        with pytest.raises(NotFound):
            collection.update_payload({"until": after(1000)}, ids=[0])
        changed = collection.update_payload({"until": after(1000)}, filter=F("n") < 5)
        assert changed == 2
        assert collection.count() == 17

    def test_deleting_it_counts_for_nothing(self, collection: Collection, clock: Clock) -> None:
        """It was gone already."""
        clock.at(25)
        assert collection.delete([0, 1, 3]) == 1
        assert collection.count() == 16

    @pytest.mark.parametrize("is_compacted_first", [False, True])
    @pytest.mark.parametrize("is_seen", [False, True])
    def test_upsert_over_it_lives(
        self,
        collection: Collection,
        clock: Clock,
        reopened: Callable[[str], Collection],
        is_compacted_first: bool,
        is_seen: bool,
    ) -> None:
        """The old row may still lie on disk: the new one is what counts, through a build and more.

        Found by, and returned under, its id exactly once.
        """
        if is_compacted_first:
            collection.compact()
        clock.at(25)
        if is_seen:
            assert collection.count() == 17
        vectors = points(3, seed=8)
        collection.upsert([0, 1, 2], vectors, [{"n": 200 + i, "body": "fox"} for i in range(3)])
        for step in (lambda c: c, _compacted, lambda c: reopened("sessions"), _compacted):
            collection = step(collection)
            expect(collection, set(range(20)))
            payloads, stored = held(collection, [0, 1, 2])
            assert [payload["n"] for payload in payloads] == [200, 201, 202]
            assert np.array_equal(stored, vectors)
            assert ids_of(collection.search(vectors[1], 1)) == [1]
        assert collection.delete([0, 1, 2]) == 3
        expect(collection, set(range(3, 20)))


def _compacted(collection: Collection) -> Collection:
    collection.compact()
    return collection


@pytest.mark.usefixtures("still")
class TestCare:
    @pytest.mark.parametrize("is_seen", [False, True])
    def test_a_build_among_expired_points(
        self, collection: Collection, clock: Clock, is_seen: bool
    ) -> None:
        """The rows that expired and are not deleted yet are no damage to a build."""
        clock.at(25)
        if is_seen:
            assert collection.count() == 17
        collection.compact()
        expect(collection, set(range(3, 20)))
        clock.at(45)
        expect(collection, set(range(5, 20)))
        assert collection.stats()["damage"] is None

    def test_reopening_finds_them_gone(
        self, collection: Collection, clock: Clock, reopened: Callable[[str], Collection]
    ) -> None:
        """What expired while nothing ran is gone at the first read."""
        collection.compact()
        clock.at(35)
        again = reopened("sessions")
        expect(again, set(range(4, 20)))

    def test_after_a_crash_too(
        self, collection: Collection, clock: Clock, folder: Path, tmp_path: Path
    ) -> None:
        """Expired and seen to be so, not deleted, and the process dies."""
        clock.at(25)
        assert collection.count() == 17
        with open_by_hand(crashed(folder, tmp_path / "copy")) as copy:
            expect(copy.get_collection("sessions"), set(range(3, 20)))

    def test_a_lost_generation_brings_nothing_back(
        self, collection: Collection, clock: Clock, folder: Path
    ) -> None:
        """Contents that are read anew hold the expired rows again, and must hide them again."""
        collection.compact()
        clock.at(25)
        assert collection.count() == 17
        collection._core.recover(collection._core.contents, "said the test")
        expect(collection, set(range(3, 20)))

    def test_a_reader_beside_the_writer_sees_them_go(
        self, collection: Collection, clock: Clock, folder: Path
    ) -> None:
        """It cannot delete anything, and must not show it either."""
        with open_by_hand(folder, read_only=True) as reader:
            beside = reader.get_collection("sessions")
            expect(beside, set(range(20)))
            clock.at(25)
            expect(beside, set(range(3, 20)))
            collection.upsert([0], points(1), [{"n": 0, "body": "fox"}])
            expect(beside, {0, *range(3, 20)})


class TestSweeping:
    def test_the_worker_deletes_them(self, collection: Collection, clock: Clock) -> None:
        """From the disk too, without being asked, and without touching any other."""
        store = collection._core.store
        clock.at(35)
        assert collection.count() == 16
        deadline = time.monotonic() + 20
        while store.live != 16 and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert store.live == 16
        assert len(store.expired(int(clock.time() * 1e6))) == 0
        expect(collection, set(range(4, 20)))

    def test_nobody_has_to_read(self, collection: Collection, clock: Clock) -> None:
        """A collection that is only written to must not grow for ever."""
        clock.at(1000)
        deadline = time.monotonic() + 20
        while collection._core.store.live != 10 and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert collection._core.store.live == 10

    def test_writes_go_on_meanwhile(
        self, database: Database, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Points come with short lives, expire and are swept, while others stay; none is lost."""
        made = database.create_collection(
            "busy", D, "l2", schema={"until": "datetime", "n": "int"}, ttl="until"
        )
        made.upsert(range(1000, 1050), points(50))
        with caplog.at_level(logging.WARNING, "soardb"):
            for i in range(100):
                until = (clock.now + timedelta(seconds=3)).isoformat()
                ids = [i % 20, 20 + i % 7]
                made.upsert(ids, points(2), [{"until": until, "n": i}] * 2, ack="logged")
                assert [p.payload["n"] for p in made.get(ids) if p and p.payload] == [i, i]
                if i % 10 == 9:
                    made.compact()
                clock.forward(1)
                assert made.count() >= 50
        assert not caplog.records
        clock.forward(100)
        assert made.count() == 50
        assert {p.id for p in made.scroll(page_size=1000)} == set(range(1000, 1050))


class TestDeclaring:
    @pytest.mark.parametrize("bad", ["n", "missing", 5, ""])
    def test_only_a_declared_datetime(self, database: Database, bad: Any) -> None:
        """The message says what it must be."""
        with pytest.raises(InvalidArgument, match="ttl as a field declared in schema as datetime"):
            database.create_collection("x", D, schema={"n": "int", "at": "datetime"}, ttl=bad)
        assert database.list_collections() == []

    def test_a_datetime_that_is_not_ttl_expires_nothing(self, database: Database) -> None:
        """A birthday in the past is fine."""
        made = database.create_collection("x", D, schema={"at": "datetime"})
        made.upsert([1], np.ones((1, D)), [{"at": "1970-01-01"}])
        assert made.count() == 1
