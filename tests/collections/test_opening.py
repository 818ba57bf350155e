"""Opening a collection: once, whoever asks, and out of the way of all others.

    soardb/database.py, soardb/storage/catalog.py -> [test_opening.py]

A server opens collections when the first request names them. A large one takes seconds, in which
requests for the others, and for the list, have to be answered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soardb import database as databases
from soardb.collection import Collection
from soardb.core import Core
from soardb.database import Database
from soardb.errors import Closed, CorruptStorage, NotFound
from soardb.storage.catalog import Catalog
from tests.collections.conftest import D, open_by_hand, points


class Gate:
    """Holds back the opening of one folder until it is let through, and counts openings."""

    def __init__(self) -> None:
        self.folder = ""
        self.reached, self.through = threading.Event(), threading.Event()
        self.opened: list[str] = []
        self.failure: Exception | None = None

    def core(self, folder: Path, **options: Any) -> Core:
        """In the place of Core."""
        self.opened.append(folder.name)
        if folder.name == self.folder:
            self.reached.set()
            assert self.through.wait(30)
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
        return Core(folder, **options)


@pytest.fixture
def gate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A database with the collections "large", whose opening is held back, and "small"."""
    with open_by_hand(folder) as db:
        for name in ("large", "small"):
            db.create_collection(name, D).upsert([1], points(1))
        made = Gate()
        made.folder = db._catalog.collections["large"]
    monkeypatch.setattr(databases, "Core", made.core)
    return made


@pytest.fixture
def db(gate: Gate, folder: Path) -> Iterator[Database]:
    """That database, opened anew."""
    with open_by_hand(folder) as opened:
        yield opened
        gate.through.set()


class InThread:
    """A call in a thread of its own, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.answer: Any = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.answer = error

    def waits(self) -> bool:
        """Whether it has not ended after a moment."""
        self._thread.join(0.05)
        return self._thread.is_alive()

    def ended(self) -> Any:
        """What it returned or raised."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.answer


class TestOpening:
    def test_others_go_on_while_a_large_one_is_opened(self, db: Database, gate: Gate) -> None:
        """Listing, opening, making and dropping others needs none of its points."""
        large = InThread(lambda: db.get_collection("large").count())
        assert gate.reached.wait(30)
        assert db.list_collections() == ["large", "small"]
        assert db.get_collection("small").count() == 1
        db.create_collection("new", D)
        db.rename_collection("new", "newer")
        db.drop_collection("newer")
        assert set(db.stats()["collections"]) == {"small"}
        assert large.waits()
        gate.through.set()
        assert large.ended() == 1

    def test_it_is_opened_once_for_all_who_ask(self, db: Database, gate: Gate) -> None:
        """Two cores of one folder would write over one another."""
        db.set_alias("alias", "large")
        calls = [lambda: db.get_collection("large"), lambda: db.get_collection("alias")] * 4
        calls.append(lambda: db.create_collection("large", D, exist_ok=True))
        waiting = [InThread(call) for call in calls]
        assert gate.reached.wait(30)
        assert all(one.waits() for one in waiting)
        gate.through.set()
        found = [one.ended() for one in waiting]
        assert all(isinstance(one, Collection) for one in found), found
        assert len(set(map(id, found))) == 1
        assert gate.opened.count(gate.folder) == 1

    def test_one_that_fails_is_tried_again_by_the_next(self, db: Database, gate: Gate) -> None:
        """Who waited for it gets an answer of their own."""
        gate.failure = CorruptStorage("damaged")
        first = InThread(lambda: db.get_collection("large"))
        assert gate.reached.wait(30)
        second = InThread(lambda: db.get_collection("large"))
        assert second.waits()
        gate.through.set()
        assert isinstance(first.ended(), CorruptStorage)
        assert isinstance(second.ended(), Collection)
        assert gate.opened.count(gate.folder) == 2

    def test_a_drop_waits_for_it(self, db: Database, gate: Gate) -> None:
        """Files must not go from under one who reads them."""
        opening = InThread(lambda: db.get_collection("large"))
        assert gate.reached.wait(30)
        dropping = InThread(lambda: db.drop_collection("large"))
        assert dropping.waits()
        gate.through.set()
        collection = opening.ended()
        assert isinstance(collection, Collection)
        assert dropping.ended() is None
        with pytest.raises(Closed, match="dropped"):
            collection.count()
        with pytest.raises(NotFound):
            db.get_collection("large")

    def test_a_new_name_reaches_it(self, db: Database, gate: Gate) -> None:
        """Renamed while it was opened, it has the name that the catalog gives."""
        opening = InThread(lambda: db.get_collection("large"))
        assert gate.reached.wait(30)
        db.rename_collection("large", "huge")
        gate.through.set()
        assert opening.ended().name == "huge"

    def test_closing_waits_for_it_and_lets_none_in(
        self, db: Database, gate: Gate, folder: Path
    ) -> None:
        """The next process must find nobody in the files."""
        opening = InThread(lambda: db.get_collection("large"))
        assert gate.reached.wait(30)
        closing = InThread(db.close)
        assert closing.waits()
        gate.through.set()
        assert isinstance(opening.ended(), Closed)
        assert closing.ended() is None
        with open_by_hand(folder) as again:
            assert again.get_collection("large").count() == 1


class TestCatalogOfAReader:
    def test_it_is_read_again_only_when_it_was_replaced(
        self, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reader looks at the names with every call; most calls find the same file."""
        database.create_collection("a", D)
        read, times = Catalog.read, [0]

        def counted(path: Path) -> Catalog:
            times[0] += 1
            return read(path)

        monkeypatch.setattr(Catalog, "read", counted)
        catalog = folder / "catalog.json"
        os.utime(catalog, (1_000_000_000, 1_000_000_000))  # settled long ago
        with open_by_hand(folder, read_only=True) as beside:
            beside.list_collections()
            times[0] = 0
            for _ in range(10):
                assert beside.get_collection("a").count() == 0
                assert beside.list_collections() == ["a"]
                assert beside.list_aliases() == {}
            assert times[0] == 0
            database.set_alias("b", "a")
            os.utime(catalog, (1_000_000_000, 1_000_000_000))  # another file, of the same time
            assert beside.list_aliases() == {"b": "a"}
            assert times[0] == 1

    def test_a_file_of_this_moment_is_read_every_time(
        self, database: Database, folder: Path
    ) -> None:
        """Two replacements within one tick of the clock can look the same."""
        with open_by_hand(folder, read_only=True) as beside:
            for i in range(50):
                database.create_collection(f"c{i % 2}", D)
                assert beside.list_collections() == [f"c{i % 2}"]
                database.drop_collection(f"c{i % 2}")
                assert beside.list_collections() == []
