"""Limits of a call: looked at often, obeyed at once, and without a trace in the answers.

    soardb/deadline.py, all that asks it -> [test_deadline.py]

Nothing here depends on how fast the machine is: `is_cancelled` counts how often it is asked, and
says yes the n-th time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from soardb import deadline
from soardb.collection import Collection
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import InvalidArgument, TimedOut
from soardb.filters import F, elementwise
from soardb.hits import Hits
from soardb.index import live
from tests.collections.conftest import D, points

N = 5_000


class Caller:
    """A caller that goes away when it is asked for the n-th time; None: never."""

    def __init__(self, leaves_at: int | None = None) -> None:
        self.leaves_at, self.asked = leaves_at, 0

    def is_gone(self) -> bool:
        """Whether it went away."""
        self.asked += 1
        return self.leaves_at is not None and self.asked >= self.leaves_at


@pytest.fixture(scope="module", params=["lists", "exact"])
def collection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """5,000 points with number, keyword and text; searched by lists, or each scored."""
    from tests.collections.conftest import open_by_hand

    schema = {"n": "int", "k": "keyword", "body": "text"}
    index = {"nlist": 64} if request.param == "lists" else {}
    with open_by_hand(tmp_path_factory.mktemp("db")) as db:
        made = db.create_collection("c", D, "l2", schema=schema, index=index)
        payloads = [{"n": i % 100, "k": f"k{i % 7}", "body": f"word{i % 3} and"} for i in range(N)]
        made.upsert(range(N - 100), points(N)[: N - 100], payloads[: N - 100])
        if request.param == "lists":
            made.compact()
        made.upsert(range(N - 100, N), points(N)[N - 100 :], payloads[N - 100 :])
        yield made


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that 5,000 points have many, as a million have with the real ones."""
    monkeypatch.setattr(live, "_CODES_AT_ONCE", 2_000)
    monkeypatch.setattr(live, "_NUMBERS_AT_ONCE", 20_000)
    monkeypatch.setattr(live, "_GATHER_BYTES", 4 * D * 1_000)
    monkeypatch.setattr("soardb.index.rows._PIECE_BYTES", 4 * D * 1_000)
    monkeypatch.setattr(elementwise, "_ROWS_AT_ONCE", 500)
    monkeypatch.setattr("soardb.reads._ROWS_AT_ONCE", 50)
    monkeypatch.setattr("soardb.storage.rows._STEPS", 100)


WHERE = ((F("n") < 50) | (F("n") > 97)) & (F("k") != "k3")
READS: dict[str, tuple[int, Callable[[Collection], Any]]] = {
    "search of many": (10, lambda c: c.search(points(40, 3), 10)),
    "search in all lists": (3, lambda c: c.search(points(3, 3), 10, nprobe=64)),
    "exact search of one": (5, lambda c: c.search(points(1, 3)[0], 10, exact=True)),
    "exact search of many": (20, lambda c: c.search(points(40, 3), 10, exact=True)),
    "filtered search": (10, lambda c: c.search(points(2, 3), 10, filter=WHERE)),
    "exact on matches": (10, lambda c: c.search(points(2, 3), 9, filter=WHERE, exact=True)),
    "many payloads": (5, lambda c: c.search(points(2, 3), 1_000)),
    "columns": (5, lambda c: c.search_columns(points(40, 3), 10).scores.tolist()),
    "groups": (2, lambda c: c.search(points(1, 3)[0], 5, group_by="k")),
    "text": (10, lambda c: c.search(text="word1", limit=20)),
    "hybrid": (10, lambda c: c.search(points(1, 3)[0], 20, text="word1")),
    "text in a filter": (10, lambda c: c.count(F("body").matches("word1 and"))),
    "get": (5, lambda c: c.get(range(500))),
    "scroll": (5, lambda c: list(c.scroll(filter=F("n") < 60, page_size=500))),
    "count": (5, lambda c: c.count((F("n") > 3) & (F("n") < 96))),
    "batches": (5, lambda c: sum(len(batch.ids) for batch in c.batches(500))),
}


def plain(answer: Any) -> Any:
    """An answer in a form that can be compared."""
    if isinstance(answer, Hits):
        ids = answer.ids.tolist() if isinstance(answer.ids, np.ndarray) else answer.ids
        return ids, answer.scores.tolist(), answer.payloads
    return [plain(one) for one in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("name", READS)
class TestReads:
    def test_it_looks_often_and_answers_the_same(self, collection: Collection, name: str) -> None:
        """Cutting the work into parts must not be seen in a score, an id or their order."""
        least, read = READS[name]
        expected = plain(read(collection))
        forget_filters(collection)
        caller = Caller()
        with deadline.within(is_cancelled=caller.is_gone):
            assert plain(read(collection)) == expected
        assert caller.asked >= least

    def test_it_stops_at_whatever_look_the_caller_is_gone(
        self, collection: Collection, name: str
    ) -> None:
        """Not a single part more is done; the collection answers the next caller as before."""
        _, read = READS[name]
        expected = plain(read(collection))
        forget_filters(collection)
        caller = Caller()
        with deadline.within(is_cancelled=caller.is_gone):
            read(collection)
        is_counted = "text" not in name and name != "hybrid"  # SQLite's steps differ a little
        last = caller.asked if is_counted else caller.asked // 2
        for leaves_at in sorted({1, 2, caller.asked // 2 + 1, last}):
            forget_filters(collection)
            leaving = Caller(leaves_at)
            left = pytest.raises(TimedOut, match="went away")
            with left, deadline.within(is_cancelled=leaving.is_gone):
                read(collection)
            assert leaving.asked == leaves_at
        assert plain(read(collection)) == expected


def forget_filters(collection: Collection) -> None:
    """So that the next call evaluates its filter itself."""
    collection._core.contents.version += 1


class TestTimeouts:
    @pytest.mark.parametrize("timeout", [0, -1.5, 1e-9])
    def test_each_read_takes_one(self, collection: Collection, timeout: float) -> None:
        """Seconds; a time that is over already is over."""
        for read in (
            lambda: collection.search(points(1)[0], timeout=timeout),
            lambda: collection.search_columns(points(1)[0], timeout=timeout),
            lambda: collection.get([1], timeout=timeout),
            lambda: collection.scroll(timeout=timeout),
            lambda: collection.count(timeout=timeout),
        ):
            with pytest.raises(TimedOut, match=r"not done within .* s"):
                read()

    def test_one_that_is_long_enough_changes_nothing(self, collection: Collection) -> None:
        """Who sets a generous one gets what others get."""
        assert plain(collection.search(points(3), timeout=600)) == plain(
            collection.search(points(3))
        )
        assert collection.count(timeout=600) == N

    @pytest.mark.parametrize("bad", ["1", float("nan"), True])
    def test_what_is_no_number_of_seconds_is_refused(
        self, collection: Collection, bad: Any
    ) -> None:
        """A string from a configuration is the usual one."""
        with pytest.raises(InvalidArgument, match="timeout as a number of seconds"):
            collection.count(timeout=bad)

    def test_a_bad_query_is_named_by_its_place_in_the_call(self, collection: Collection) -> None:
        """Also where the call is done in parts."""
        queries = points(40, 3)
        queries[33, 2] = np.nan
        with pytest.raises(InvalidArgument, match="query 33"):
            collection.search(queries, timeout=600)


class TestLimits:
    def test_without_one_there_is_nothing_to_look_at(self) -> None:
        """check() is on the path of every search."""
        assert not deadline.is_set()
        deadline.check()
        with deadline.within():
            assert not deadline.is_set()

    def test_of_two_both_count(self) -> None:
        """A server's limit is not lifted by a longer one inside, nor by its end."""
        outer = Caller()
        with deadline.within(0.0, outer.is_gone):
            with deadline.within(600), pytest.raises(TimedOut, match="within 0 s"):
                deadline.check()
            with pytest.raises(TimedOut):
                deadline.check()
        assert outer.asked == 2
        with deadline.within(600), deadline.within(-1), pytest.raises(TimedOut, match="-1 s"):
            deadline.check()
        assert not deadline.is_set()

    def test_it_is_that_of_its_thread(self) -> None:
        """Calls of other threads, and the threads of the engine, have their own."""
        seen: list[bool] = []
        with deadline.within(0):
            thread = threading.Thread(target=lambda: seen.append(deadline.is_set()))
            thread.start()
            thread.join()
        assert seen == [False]


class TestWrites:
    @pytest.mark.parametrize(
        "write",
        [
            lambda c: c.upsert([1], points(1)),
            lambda c: c.insert([1], points(1)),
            lambda c: c.delete([0]),
            lambda c: c.update_payload({"a": 1}, ids=[0]),
        ],
    )
    def test_one_that_is_late_writes_nothing(
        self, database: Database, write: Callable[[Collection], Any]
    ) -> None:
        """TimedOut of a write means that it was not done, so it may be repeated."""
        collection = database.create_collection("w", D)
        collection.upsert([0], points(1))
        before = collection.seq
        late = pytest.raises(TimedOut, match="of a write nothing was written")
        with late, deadline.within(0):
            write(collection)
        assert collection.seq == before

    def test_one_that_is_queued_runs_to_its_end(self, database: Database) -> None:
        """Its answer is worth more than the time: without it nobody knows what holds."""
        collection = database.create_collection("w", D)
        gone = threading.Event()
        done: list[int] = []

        def write() -> None:
            with deadline.within(is_cancelled=gone.is_set):
                done.append(collection.upsert([0], points(1)))

        core = collection._core
        with core.changing:
            thread = threading.Thread(target=write)
            thread.start()
            while core.store._next_seq == core.store.seq:
                time.sleep(0.001)
            gone.set()
        thread.join()
        assert done == [1]
        assert collection.count() == 1

    def test_a_read_does_not_wait_longer_for_writes_in_the_queue(self, database: Database) -> None:
        """A read begins with waiting for what was acknowledged from memory."""
        collection = database.create_collection("w", D)
        with collection._core.changing:
            collection.upsert([0], points(1), ack="memory")
            caller = Caller(5)
            with pytest.raises(TimedOut), deadline.within(is_cancelled=caller.is_gone):
                collection.count()
        assert collection.count() == 1


def test_a_reader_beside_the_writer_is_whole_after_one(database: Database, folder: Any) -> None:
    """Following the writer is never given up half-way: the next read sees all of it."""
    collection = database.create_collection("w", D)
    with connect(folder, read_only=True) as beside:
        same = beside.get_collection("w")
        for i in range(4):
            collection.upsert(range(i * 100, i * 100 + 100), points(100))
            with pytest.raises(TimedOut), deadline.within(is_cancelled=Caller(2).is_gone):
                same.search(points(1)[0], exact=True)
            assert same.count() == i * 100 + 100
