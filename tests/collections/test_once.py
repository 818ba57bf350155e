"""Writes under a request id: done once, answered alike, whatever happens in between.

    soardb/once.py, soardb/storage/requests.py -> [test_once.py]

A caller that heard no answer asks again. What must not follow is a second effect, a different
answer, or an answer to a write that was lost.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from soardb import once
from soardb.collection import Collection
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound, OutOfSpace
from soardb.filters import F
from soardb.storage import requests
from soardb.storage.requests import WINDOW_S
from tests.collections.conftest import D, crashed, open_by_hand, points

GOLDEN = Path(__file__).parent.parent / "golden/format-1"


@pytest.fixture
def collection(database: Database) -> Collection:
    """Twenty points with a field n."""
    made = database.create_collection("c", D, schema={"n": "int"})
    made.upsert(range(20), points(20), {"n": range(20)})
    return made


CALLS: dict[str, Callable[[Collection, str | None], int]] = {
    "upsert": lambda c, r: c.upsert([1, 50], points(2), {"n": [7, 7]}, request_id=r),
    "insert": lambda c, r: c.insert([60, 61], points(2), request_id=r),
    "update_payload": lambda c, r: c.update_payload({"n": 90}, ids=[3, 4], request_id=r),
    "update_payload of each": lambda c, r: c.update_payload(
        [{"n": 90}, {"n": 91}], ids=[3, 4], request_id=r
    ),
    "update_payload by filter": lambda c, r: c.update_payload(
        {"n": 91}, filter=F("n") < 5, request_id=r
    ),
    "delete": lambda c, r: c.delete([5, 6, 99], request_id=r),
    "delete by filter": lambda c, r: c.delete(filter=F("n") >= 15, request_id=r),
}


def state(collection: Collection) -> tuple[int, dict[Any, Any]]:
    """The last write, and every payload."""
    return collection.seq, {p.id: p.payload for p in collection.scroll(page_size=1000)}


@pytest.mark.parametrize("name", CALLS)
class TestTwice:
    def test_the_second_call_writes_nothing_and_answers_alike(
        self, collection: Collection, name: str
    ) -> None:
        """The answer of a delete is how many were there, which the second would have as 0."""
        answer = CALLS[name](collection, "r1")
        assert answer > 0
        before = state(collection)
        collection.update_payload({"other": 1}, ids=[0])
        collection.update_payload({"other": None}, ids=[0])
        again = collection.seq
        assert CALLS[name](collection, "r1") == answer
        assert collection.seq == again
        assert state(collection)[1] == before[1]

    def test_so_it_is_after_reopening(
        self, collection: Collection, reopened: Callable[[str], Collection], name: str
    ) -> None:
        """The caller may outlive the process that did its write."""
        answer = CALLS[name](collection, "r1")
        before = state(collection)
        collection = reopened("c")
        assert CALLS[name](collection, "r1") == answer
        assert state(collection) == before

    def test_so_it_is_in_what_a_crash_leaves(
        self, collection: Collection, folder: Path, tmp_path: Path, name: str
    ) -> None:
        """The answer is in the transaction of the write, not after it."""
        answer = CALLS[name](collection, "r1")
        before = state(collection)
        with open_by_hand(crashed(folder, tmp_path / "copy")) as copy:
            assert CALLS[name](copy.get_collection("c"), "r1") == answer
            assert state(copy.get_collection("c")) == before

    def test_another_id_is_another_call(self, collection: Collection, name: str) -> None:
        """Nothing is guessed from equal contents; without an id each call is done."""
        CALLS[name](collection, "r1")
        if name == "insert":
            with pytest.raises(AlreadyExists):
                CALLS[name](collection, "r2")
            return
        second = CALLS[name](collection, "r2")
        assert second == CALLS[name](collection, None)
        assert (
            name in ("upsert", "update_payload", "update_payload of each")
            or second == 0
            or "filter" in name
        )


class TestTogether:
    def test_two_that_wait_in_one_group_are_done_once(self, collection: Collection) -> None:
        """A client that gives up and asks again finds its first call still in the queue."""
        core, answers = collection._core, list[int]()

        def delete() -> None:
            answers.append(collection.delete([1, 2], request_id="r"))

        core.changing.acquire()  # holds the writer in the commit of the first write
        try:
            first = threading.Thread(target=collection.upsert, args=([100], points(1)))
            again = [threading.Thread(target=delete) for _ in range(3)]
            first.start()
            while core.store._next_seq == core.store.seq:
                time.sleep(0.001)
            for thread in again:
                thread.start()
            while len(collection._writer._queue) < 3:
                time.sleep(0.001)
        finally:
            core.changing.release()
        for thread in [first, *again]:
            thread.join()
        assert answers == [2, 2, 2]
        assert collection.count() == 19
        assert collection.delete([1, 2]) == 0


class TestRefused:
    @pytest.mark.parametrize("name", [n for n in CALLS if n != "delete"])
    def test_the_id_of_another_call_is_refused(self, collection: Collection, name: str) -> None:
        """Else the answer to a delete would be taken for that to an upsert."""
        collection.delete([5, 6, 99], request_id="r1")
        before = state(collection)
        with pytest.raises(InvalidArgument, match="used for delete of 3 ids"):
            CALLS[name](collection, "r1")
        assert state(collection) == before

    def test_the_id_of_other_contents_is_refused(self, collection: Collection) -> None:
        """Vectors, payloads, ids, filters and changes: what the call says is what it is."""
        collection.upsert([1, 2], points(2), {"n": [1, 2]}, request_id="u")
        others = [([1, 3], 1, [1, 2]), ([1, 2], 9, [1, 2]), ([1, 2], 1, [1, 3])]
        for ids, seed, n in others:
            with pytest.raises(InvalidArgument, match="with other contents"):
                collection.upsert(ids, points(2, seed), {"n": n}, request_id="u")
        with pytest.raises(InvalidArgument, match="used for upsert of 2 ids; got upsert of 1"):
            collection.upsert([1], points(1), request_id="u")
        collection.update_payload({"n": 3}, filter=F("n") == 1, request_id="p")
        collection.update_payload([{"n": 3}, {"n": 4}], ids=[3, 4], request_id="q")
        for changes in ([{"n": 4}, {"n": 3}], {"n": 3}):
            with pytest.raises(InvalidArgument, match="update_payload of 2 ids with other"):
                collection.update_payload(changes, ids=[3, 4], request_id="q")
        for change, where in (({"n": 4}, F("n") == 1), ({"n": 3}, F("n") == 2)):
            with pytest.raises(InvalidArgument, match="update_payload by filter with other"):
                collection.update_payload(change, filter=where, request_id="p")

    def test_a_refused_call_leaves_nothing(self, collection: Collection) -> None:
        """It was not done, so it may be tried again, as it was or corrected."""
        with pytest.raises(AlreadyExists):
            collection.insert([1, 200], points(2), request_id="r")
        with pytest.raises(NotFound):
            collection.update_payload({"n": 1}, ids=[300], request_id="r")
        collection.delete([1])
        assert collection.insert([1, 200], points(2), request_id="r") == 2

    @pytest.mark.parametrize("bad", ["", "x" * 129, "a\nb", "\ud800", 7, b"r"])
    def test_an_id_of_another_form_is_refused(self, collection: Collection, bad: Any) -> None:
        """It stands in messages and logs, and in a table that must stay small."""
        for call in CALLS.values():
            with pytest.raises(InvalidArgument, match="printable characters"):
                call(collection, bad)
        assert collection.upsert([1], points(1), request_id="\u00fc" * 128) == 1

    def test_a_write_that_nobody_waits_for_takes_none(self, collection: Collection) -> None:
        """ack='memory' has no answer that could be given again."""
        with pytest.raises(InvalidArgument, match="waits for none"):
            collection.upsert([1], points(1), ack="memory", request_id="r")


class TestForgetting:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Moves the clock that once.py reads."""
        passed = [0.0]
        real = once._now
        monkeypatch.setattr(once, "_now", lambda: real() + int(passed[0] * 1e6))
        return lambda seconds: passed.__setitem__(0, passed[0] + seconds)

    def test_an_answer_stays_for_ten_minutes(
        self, collection: Collection, clock: Callable[[float], None]
    ) -> None:
        """Longer than any client waits; not for ever."""
        assert collection.delete([1], request_id="r") == 1
        clock(WINDOW_S - 5)
        assert collection.delete([1], request_id="r") == 1
        clock(10)
        assert collection.delete([1], request_id="r") == 0

    def test_old_answers_are_deleted(
        self, collection: Collection, clock: Callable[[float], None], folder: Path
    ) -> None:
        """The table holds ten minutes of requests, and at most a minute more."""
        for i in range(20):
            collection.delete([i], request_id=f"r{i}")
        clock(WINDOW_S + requests._PRUNE_S)
        collection.delete([0], request_id="new")
        rows = folder / collection._core.folder.name / "rows.sqlite"
        reader = apsw.Connection(str(rows), flags=apsw.SQLITE_OPEN_READONLY)
        assert reader.execute("SELECT request_id FROM requests").fetchall() == [("new",)]
        reader.close()

    def test_a_damaged_answer_is_never_given(self, collection: Collection) -> None:
        """A wrong count would be believed; an error is looked into."""
        collection.delete([1], request_id="r")
        writer = collection._core.store._writer
        writer.execute("UPDATE requests SET answer = 7")
        with pytest.raises(CorruptStorage, match="request 'r' fails its checksum"):
            collection.delete([1], request_id="r")
        assert collection.delete([2], request_id="s") == 1


class TestOlderStores:
    def test_one_without_the_table_gets_it_when_it_is_opened_for_writing(
        self, tmp_path: Path
    ) -> None:
        """The format stays what it was: an older soardb reads the directory as before."""
        folder = Path(shutil.copytree(GOLDEN, tmp_path / "db"))
        with connect(folder, read_only=True) as db:
            assert "requests" not in names(db)
            assert db.get_collection("ints").count() == 290
        with connect(folder) as db:
            assert "requests" in names(db)
            ints = db.get_collection("ints")
            assert ints.delete([1, 2], request_id="r") == ints.delete([1, 2], request_id="r") == 2

    def test_a_full_disk_does_not_keep_it_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading an old collection needs no table; the first request makes it."""
        folder = Path(shutil.copytree(GOLDEN, tmp_path / "db"))

        def full(_: Any) -> None:
            raise OutOfSpace("the disk is full")

        make = requests.Requests._make
        monkeypatch.setattr(requests.Requests, "_make", full)
        with connect(folder) as db:
            ints = db.get_collection("ints")
            assert ints.count() == 290
            monkeypatch.setattr(requests.Requests, "_make", make)
            assert ints.delete([1, 2], request_id="r") == 2
            assert ints.delete([1, 2], request_id="r") == 2

    def test_a_snapshot_of_one_is_restored(self, tmp_path: Path, database: Database) -> None:
        """Its tables are compared with those that a new store has."""
        folder = Path(shutil.copytree(GOLDEN, tmp_path / "old"))
        with connect(folder, read_only=True) as db:
            db.snapshot("ints", tmp_path / "snapshot")
        ints = database.restore(tmp_path / "snapshot", "ints")
        assert ints.delete([1, 2], request_id="r") == 2

    def test_a_restored_collection_knows_no_request(
        self, collection: Collection, database: Database, tmp_path: Path
    ) -> None:
        """They were asked of another collection."""
        assert collection.delete([1], request_id="r") == 1
        database.snapshot("c", tmp_path / "snapshot")
        assert database.restore(tmp_path / "snapshot", "copy").delete([1], request_id="r") == 0


def names(db: Database) -> list[str]:
    """What the row store of "ints" defines."""
    return [name for _, name, _ in db.get_collection("ints")._core.store.tables()]


SCRIPT = """
import sys
from tests.collections.conftest import open_by_hand
with open_by_hand(sys.argv[1]) as db:
    db.get_collection("c").update_payload({"n": 1000}, ids=[3], request_id="before")
    db.get_collection("c").delete([1, 2, 77], request_id="r")
"""


class TestDeath:
    @pytest.mark.parametrize(
        "point", ["write.after_commit", "write.after_witness", "write.applied"]
    )
    def test_between_commit_and_answer_the_retry_is_done_once(
        self, collection: Collection, database: Database, folder: Path, point: str
    ) -> None:
        """The moment for which request ids are made: done, and nobody was told."""
        database.close()
        ended = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, str(folder)],
            env={**os.environ, "SOARDB_CRASH_AT": f"{point}:2"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        with open_by_hand(folder) as db:
            again = db.get_collection("c")
            assert again.count() == 18  # done before the death
            again.insert([1], points(1))  # what a second delete would take
            assert again.delete([1, 2, 77], request_id="r") == 2
            assert again.count() == 19

    def test_before_the_commit_the_retry_does_it(
        self, collection: Collection, database: Database, folder: Path
    ) -> None:
        """An answer without its write would be worse than none."""
        database.close()
        ended = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, str(folder)],
            env={**os.environ, "SOARDB_CRASH_AT": "write.before_commit:2"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        with open_by_hand(folder) as db:
            again = db.get_collection("c")
            assert again.count() == 20
            assert again.delete([1, 2, 77], request_id="r") == 2
            assert again.count() == 18
