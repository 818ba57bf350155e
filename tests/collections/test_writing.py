"""Writes: what they change, when that is seen, and what many writers at once leave behind.

    soardb/collection.py, soardb/writer.py -> [test_writing.py]

The claims: what is acknowledged is visible to the next read, a refused call changes nothing, the
counts are exact, and calls from many threads come out as if they had been made one by one. What a
crash leaves is the business of the tests of storage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import (
    AlreadyExists,
    Closed,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    WriteFailed,
)
from soardb.filters import Columns, F
from soardb.storage.rows import RowStore
from soardb.writer import ACKS, Ack
from tests.collections.conftest import D, crashed, held, ids_of, open_by_hand, points

SCHEMA = {"n": "int", "tag": "keyword", "body": "text"}


@pytest.fixture
def collection(database: Database) -> Collection:
    """An empty collection with three fields."""
    return database.create_collection("things", D, "l2", schema=SCHEMA)


@pytest.fixture
def hundred(collection: Collection) -> Collection:
    """A collection of the points 0..99, n being the id; half in a generation, half since."""
    vectors = points(100)
    collection.upsert(range(50), vectors[:50], [{"n": i, "tag": f"t{i % 3}"} for i in range(50)])
    collection.compact()
    rest = range(50, 100)
    collection.upsert(rest, vectors[50:], [{"n": i, "tag": f"t{i % 3}"} for i in rest])
    return collection


def everything(collection: Collection) -> dict[Any, Any]:
    """{id: payload} of all points, by scroll."""
    return {p.id: p.payload for p in collection.scroll(page_size=10_000)}


class TestUpsert:
    def test_it_replaces_vector_and_payload(self, hundred: Collection) -> None:
        """Nothing of the old point stays, neither a field nor a place in the index."""
        new = points(3, seed=9) + 100
        assert hundred.upsert([3, 60, 200], new, [{"n": -1}, None, {"tag": "x"}]) == 3
        payloads, vectors = held(hundred, [3, 60, 200])
        assert payloads == [{"n": -1}, {}, {"tag": "x"}]
        assert np.array_equal(vectors, new)
        assert hundred.count() == 101
        assert hundred.count(F("n") == 3) == 0
        assert hundred.count(F("tag") == "t0") == 32
        assert ids_of(hundred.search(new[0], 1)) == [3]
        assert ids_of(hundred.search(points(100)[3], 1)) != [3]

    def test_many_versions_of_one_point_are_one_point(self, collection: Collection) -> None:
        """A counter or a presence that is written all day must not fill the results."""
        vectors = points(30)
        for i in range(30):
            collection.upsert([7], vectors[i : i + 1], [{"n": i}])
            if i == 20:
                collection.compact()
        assert collection.count() == 1
        assert everything(collection) == {7: {"n": 29}}
        assert ids_of(collection.search(vectors[0], 10)) == [7]


class TestInsert:
    def test_it_refuses_the_whole_call_where_an_id_is_there(self, hundred: Collection) -> None:
        """That is what it is for; the message names the id."""
        before = everything(hundred)
        with pytest.raises(AlreadyExists, match="99 is in the collection.*Use upsert"):
            hundred.insert([100, 99], points(2))
        assert everything(hundred) == before
        assert hundred.insert([100, 101], points(2)) == 2
        assert hundred.count() == 102

    def test_a_deleted_id_is_free(self, hundred: Collection) -> None:
        """In the generation and since."""
        hundred.delete([1, 99])
        assert hundred.insert([1, 99], points(2)) == 2
        assert hundred.count() == 100

    def test_it_has_to_look_first(self, collection: Collection) -> None:
        """With ack="memory" nobody would hear of the refusal."""
        with pytest.raises(InvalidArgument, match="expected ack 'fsync' or 'logged' for insert"):
            collection.insert([1], points(1), ack="memory")


class TestUpdatePayload:
    def test_members_are_merged(self, hundred: Collection) -> None:
        """Named members are replaced, None removes one, the others stay; the vector too."""
        vector = held(hundred, [5])[1]
        assert hundred.update_payload({"tag": None, "new": {"x": 1}}, ids=[5]) == 1
        payloads, vectors = held(hundred, [5])
        assert payloads == [{"n": 5, "new": {"x": 1}}]
        assert np.array_equal(vectors, vector)
        assert hundred.count(F("tag").is_null()) == 1
        hundred.update_payload({"new": {"y": 2}}, ids=[5])
        assert held(hundred, [5])[0] == [{"n": 5, "new": {"y": 2}}]  # not merged deeply

    def test_replace_leaves_nothing_else(self, hundred: Collection) -> None:
        """The other meaning of update, asked for by name."""
        hundred.update_payload({"tag": "only"}, ids=[5, 55], replace=True)
        assert held(hundred, [5, 55])[0] == [{"tag": "only"}] * 2

    def test_each_id_can_have_a_change_of_its_own(self, hundred: Collection) -> None:
        """In the order of the ids and not of their rows; vectors stay."""
        vectors = held(hundred, [70, 5, 99])[1]
        changes: list[Any] = [{"tag": "a"}, {"tag": None, "new": 5}, None]
        assert hundred.update_payload(changes, ids=[70, 5, 99]) == 3
        payloads, after = held(hundred, [70, 5, 99])
        assert payloads[0]["tag"] == "a"
        assert payloads[1] == {"n": 5, "new": 5}
        assert payloads[2]["n"] == 99
        assert np.array_equal(after, vectors)
        assert hundred.count(F("tag") == "a") == 1
        hundred.update_payload([{"n": 2}, {"n": 1}], ids=[1, 2], replace=True)
        assert held(hundred, [1, 2])[0] == [{"n": 2}, {"n": 1}]
        assert hundred.update_payload([], ids=[]) == 0

    @pytest.mark.parametrize(
        ("changes", "chosen", "words"),
        [
            ([{"n": 1}], {"ids": [1, 2]}, "got 1 payloads and 2 different ids"),
            ([{"n": 1}] * 2, {"ids": [1, 1]}, "got 2 payloads and 1 different ids"),
            ([{"n": 1}], {"ids": [1, 1]}, "got 1 payloads and 1 different ids"),
            ([{"n": 1}], {"filter": "n < 3"}, "got 1 payloads and no ids"),
            ([{"n": 1}, 7], {"ids": [1, 2]}, "every payload as a dict, got 7"),
            ([{"n": 1}, {"n": "x"}], {"ids": [1, 2]}, "field 'n'"),
            ([{"n": 1}, {"n": 2}], {"ids": [1, 100]}, "100 is not in it"),
        ],
    )
    def test_changes_that_fit_no_ids_refuse_the_call(
        self, hundred: Collection, changes: Any, chosen: Any, words: str
    ) -> None:
        before = everything(hundred)
        with pytest.raises((InvalidArgument, NotFound), match=words):
            hundred.update_payload(changes, **chosen)
        assert everything(hundred) == before

    def test_by_filter(self, hundred: Collection) -> None:
        """Every match is changed, whichever side of the generation it is on."""
        assert hundred.update_payload({"tag": "low"}, filter=F("n") < 70) == 70
        assert hundred.count(F("tag") == "low") == 70
        assert hundred.count() == 100
        assert hundred.update_payload({"tag": "none"}, filter=F("n") > 1000) == 0

    def test_an_unknown_id_refuses_the_call(self, hundred: Collection) -> None:
        """Otherwise a typo looks like success."""
        before = everything(hundred)
        with pytest.raises(NotFound, match="expected ids of the collection, 100 is not in it"):
            hundred.update_payload({"tag": "x"}, ids=[1, 100])
        assert everything(hundred) == before

    @pytest.mark.parametrize(
        ("change", "words"),
        [({"n": "x"}, "field 'n'"), ({"x": {1}}, "JSON"), ({1: 2}, "keys"), ([], "dict"),
         (None, "dict")],
    )  # fmt: skip
    def test_a_bad_change_refuses_the_call(
        self, hundred: Collection, change: Any, words: str
    ) -> None:
        """By ids and by filter alike, and nothing is half done."""
        before = everything(hundred)
        for chosen in ({"ids": [1]}, {"filter": F("n") < 50}):
            with pytest.raises(InvalidArgument, match=words):
                hundred.update_payload(change, **chosen)
        assert everything(hundred) == before

    def test_growing_beyond_the_limit_changes_nothing(self, collection: Collection) -> None:
        """Each part fits, the merged payload does not; the second of the two is the one."""
        collection.upsert([1, 2], points(2), [{}, {"a": "x" * 600_000}])
        with pytest.raises(InvalidArgument, match="1,048,576 bytes"):
            collection.update_payload({"b": "y" * 600_000}, ids=[1, 2])
        assert held(collection, [1])[0] == [{}]

    @pytest.mark.parametrize("chosen", [{}, {"ids": [1], "filter": "n < 3"}])
    def test_ids_or_a_filter(self, hundred: Collection, chosen: dict[str, Any]) -> None:
        """Neither could mean all, both could mean either."""
        with pytest.raises(InvalidArgument, match="either ids or a filter, got both or neither"):
            hundred.update_payload({"n": 1}, **chosen)
        with pytest.raises(InvalidArgument, match="either ids or a filter, got both or neither"):
            hundred.delete(**chosen)


class TestDelete:
    def test_by_ids(self, hundred: Collection) -> None:
        """Unknown ids and repetitions count for nothing."""
        assert hundred.delete([1, 2, 1, 60, 1000]) == 3
        assert hundred.get([1, 2, 60]) == [None] * 3
        assert hundred.count() == 97
        assert hundred.delete([1, 2, 60]) == 0

    def test_by_filter(self, hundred: Collection) -> None:
        """The answer is how many there were."""
        assert hundred.delete(filter=F("tag") == "t1") == 33
        assert hundred.count() == 67
        assert hundred.count(F("tag") == "t1") == 0
        assert hundred.delete(filter=F("tag") == "t1") == 0

    def test_all_and_again(self, hundred: Collection) -> None:
        """An emptied collection answers, and fills again."""
        assert hundred.delete(filter=F("n") >= 0) == 100
        assert hundred.count() == 0
        assert everything(hundred) == {}
        assert len(hundred.search(points(1)[0], 5)) == 0
        hundred.upsert([5], points(1))
        assert ids_of(hundred.search(points(1)[0], 5)) == [5]
        hundred.delete([5])
        hundred.compact()
        assert hundred.count() == 0
        assert len(hundred.search(points(1)[0], 5)) == 0
        hundred.upsert([6], points(1))
        assert ids_of(hundred.search(points(1)[0], 5)) == [6]


class TestGet:
    def test_in_the_order_asked_for(self, hundred: Collection) -> None:
        """With repetitions, and None where there is none, so that zip(ids, points) is right."""
        found = hundred.get([99, 5, 1000, 5])
        assert [p and p.id for p in found] == [99, 5, None, 5]
        assert all(p.vector is None for p in found if p)

    def test_vectors_come_back_as_they_were_written(
        self, database: Database, metric: str, reopened: Callable[[str], Collection]
    ) -> None:
        """Bit by bit under every metric, cosine too, through generation and reopening."""
        collection = database.create_collection("exact", D, metric)
        vectors = points(40) * 17
        collection.upsert(range(40), vectors)
        for is_compacted in (False, True):
            if is_compacted:
                collection.compact()
            assert held(collection, range(40))[1].tobytes() == vectors.tobytes()
            page = collection.scroll(page_size=40, with_vectors=True)
            assert np.array_equal([p.vector for p in page], vectors)  # type: ignore[arg-type]
            hits = collection.search(vectors[0], 40, with_vectors=True)
            assert hits.vectors is not None
            assert np.array_equal(hits.vectors, vectors[hits.ids])
        collection = reopened("exact")
        assert held(collection, range(40))[1].tobytes() == vectors.tobytes()

    def test_a_point_can_be_changed_by_its_owner(self, hundred: Collection) -> None:
        """What get() returned is a copy: editing it changes nothing here."""
        (point,) = hundred.get([1])
        assert point is not None
        assert point.payload is not None
        point.payload["n"] = "spoilt"
        assert held(hundred, [1])[0] == [{"n": 1, "tag": "t1"}]


class TestAcknowledgement:
    @pytest.mark.parametrize("ack", ACKS)
    def test_every_level_is_seen_by_the_next_read(self, collection: Collection, ack: Ack) -> None:
        """Read your own writes, whatever was asked of the disk."""
        for i in range(20):
            collection.upsert([i], points(1, seed=i), [{"n": i}], ack=ack)
            assert collection.count() == i + 1
            assert held(collection, [i])[0] == [{"n": i}]
            assert collection.count(F("n") == i) == 1
            assert i in ids_of(collection.search(points(1, seed=i)[0], 20))
            collection.update_payload({"tag": "x"}, ids=[i], ack=ack)
            assert collection.count(F("tag") == "x") == i + 1
        collection.delete(filter=F("n") < 5, ack=ack)
        assert collection.count() == 15
        assert {p.id for p in collection.scroll()} == set(range(5, 20))

    @pytest.mark.parametrize("ack", ACKS)
    def test_every_level_is_there_after_closing(
        self, collection: Collection, ack: Ack, reopened: Callable[[str], Collection]
    ) -> None:
        """close() finishes what is queued."""
        for i in range(50):
            collection.upsert([i], points(1, seed=i), [{"n": i}], ack=ack)
        assert everything(reopened("things")) == {i: {"n": i} for i in range(50)}

    @pytest.mark.parametrize("ack", ["fsync", "logged"])
    def test_what_was_acknowledged_is_in_the_files(
        self, collection: Collection, ack: Ack, folder: Path, tmp_path: Path
    ) -> None:
        """The files as they lie there hold it: nothing waits in memory or for close()."""
        collection.upsert(range(20), points(20), [{"n": i} for i in range(20)], ack=ack)
        collection.delete([3], ack=ack)
        with open_by_hand(crashed(folder, tmp_path / "copy")) as copy:
            expected = {i: {"n": i} for i in range(20) if i != 3}
            assert everything(copy.get_collection("things")) == expected

    def test_memory_answers_zero(self, collection: Collection) -> None:
        """It does not wait, so it cannot know."""
        assert collection.upsert([1], points(1), ack="memory") == 0
        assert collection.delete([1], ack="memory") == 0
        collection.flush()
        assert collection.count() == 0

    def test_failures_show_at_flush(self, collection: Collection) -> None:
        """Once; the writes around the failed one stand."""
        collection.upsert([1], points(1), ack="memory")
        collection.update_payload({"n": 1}, ids=[2], ack="memory")
        collection.upsert([3], points(1), ack="memory")
        with pytest.raises(NotFound, match="2 is not in it"):
            collection.flush()
        collection.flush()
        assert set(everything(collection)) == {1, 3}

    def test_a_read_does_not_raise_what_a_write_did(self, collection: Collection) -> None:
        """The reader may be another thread than the one that wrote."""
        collection.upsert([1], points(1), ack="memory")
        collection.update_payload({"n": 1}, ids=[2], ack="memory")
        assert collection.count() == 1
        with pytest.raises(NotFound):
            collection.flush()

    def test_a_later_write_does_not_raise_it_either(self, collection: Collection) -> None:
        """It would be taken for a failure of its own, and repeated or given up wrongly."""
        collection.upsert([1], points(1))
        collection.update_payload({"n": 1}, ids=[2], ack="memory")
        assert collection.count() == 1  # waits for the failed one
        assert collection.upsert([3], points(1)) == 1
        assert collection.delete([1]) == 1
        assert set(everything(collection)) == {3}
        with pytest.raises(NotFound, match="2 is not in it"):
            collection.flush()

    def test_what_nobody_asked_for_is_in_the_log(
        self, database: Database, collection: Collection, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Closing is the last moment to say it."""
        collection.update_payload({"n": 1}, ids=[2], ack="memory")
        database.close()
        assert "nobody called flush()" in caplog.text
        assert "2 is not in it" in caplog.text

    def test_another_level_is_refused(self, collection: Collection) -> None:
        """With the names that there are."""
        with pytest.raises(InvalidArgument, match="one of fsync, logged, memory, got 'disk'"):
            collection.upsert([1], points(1), ack="disk")  # type: ignore[arg-type]

    def test_the_disk_is_flushed_when_asked(
        self, collection: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """fsync asks the store for a durable commit, logged for one handed to the system."""
        asked: list[bool] = []
        begin = RowStore.begin

        def noted(self: RowStore, *, durable: bool) -> None:
            asked.append(durable)
            begin(self, durable=durable)

        monkeypatch.setattr(RowStore, "begin", noted)
        for ack in ACKS:
            collection.upsert([1], points(1), ack=ack)
            collection.flush()
        assert asked == [True, False, False]


class TestTogether:
    def test_concurrent_calls_come_out_one_by_one(self, collection: Collection) -> None:
        """16 threads write, change and delete the same ids; every point is of one call, whole."""
        threads, rounds, ids = 16, 25, list(range(12))
        failures: list[BaseException] = []

        def work(number: int) -> None:
            rng = np.random.default_rng(number)
            for i in range(rounds):
                chosen = sorted(rng.choice(ids, 4, replace=False).tolist())
                stamp = number * rounds + i
                try:
                    if rng.random() < 0.2:
                        collection.delete(chosen, ack="logged")
                    else:
                        vectors = np.full((4, D), stamp, np.float32)
                        payloads = [{"n": stamp, "of": chosen}] * 4
                        collection.upsert(chosen, vectors, payloads, ack="logged")
                    hits = collection.search(np.zeros(D), 12)
                    assert len(set(ids_of(hits))) == len(hits)
                except BaseException as error:  # noqa: BLE001 - told to the test's thread below
                    failures.append(error)
                    return

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        assert not failures
        found = everything(collection)
        payloads, vectors = held(collection, list(found))
        for point_id, payload, vector in zip(found, payloads, vectors, strict=True):
            assert point_id in payload["of"]
            assert (vector == payload["n"]).all()
        assert collection.count() == len(found)
        assert collection._core.store.live == len(found)
        assert len(collection.search(np.zeros(D), 100)) == len(found)

    def test_insert_of_one_id_succeeds_once(self, collection: Collection) -> None:
        """The look and the write are one step: a unique key can be relied on."""
        barrier = threading.Barrier(16)

        def work(number: int) -> int:
            barrier.wait()
            try:
                return collection.insert([1, 100 + number], points(2), [{"n": number}] * 2)
            except AlreadyExists:
                return 0

        with ThreadPoolExecutor(16) as pool:
            done = list(pool.map(work, range(16)))
        assert sorted(done) == [0] * 15 + [2]
        winner = done.index(2)
        assert everything(collection) == {1: {"n": winner}, 100 + winner: {"n": winner}}

    def test_counters_by_update_lose_nothing(self, collection: Collection) -> None:
        """16 threads each set a member of their own in the same point: all 16 are there."""
        collection.upsert([1], points(1))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda i: collection.update_payload({f"m{i}": i}, ids=[1]), range(16)))
        assert held(collection, [1])[0] == [{f"m{i}": i for i in range(16)}]

    def test_callers_that_wait_share_a_flush(
        self, collection: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Group commit: with the first held up, the others stand in one transaction."""
        first, go = threading.Event(), threading.Event()
        commits: list[int] = []
        commit = RowStore.commit

        def held_up(self: RowStore) -> None:
            commits.append(self._next_seq)
            if len(commits) == 1:
                first.set()
                assert go.wait(30)
            commit(self)

        monkeypatch.setattr(RowStore, "commit", held_up)
        with ThreadPoolExecutor(20) as pool:
            jobs = [pool.submit(collection.upsert, [0], points(1))]
            assert first.wait(30)
            jobs += [pool.submit(collection.upsert, [i], points(1)) for i in range(1, 20)]
            while len(collection._writer._queue) < 19:
                threading.Event().wait(0.01)
            go.set()
            assert [job.result() for job in jobs] == [1] * 20
        assert len(commits) == 2
        assert collection.count() == 20

    def test_a_refused_call_leaves_its_group_alone(
        self, collection: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who shares a transaction with a mistake must not pay for it."""
        collection.upsert([0], points(1))
        first, go = threading.Event(), threading.Event()
        commit = RowStore.commit

        def held_up(self: RowStore) -> None:
            if not first.is_set():
                first.set()
                assert go.wait(30)
            commit(self)

        calls: list[Callable[[], int]] = [
            lambda: collection.upsert([1], points(1)),
            lambda: collection.insert([2, 0], points(2)),
            lambda: collection.upsert(["x"], points(1)),
            lambda: collection.update_payload({"n": 1}, ids=[77]),
            lambda: collection.insert([3], points(1)),
            lambda: collection.delete([0]),
        ]
        monkeypatch.setattr(RowStore, "commit", held_up)
        with ThreadPoolExecutor(len(calls) + 1) as pool:
            pool.submit(collection.upsert, [9], points(1))
            assert first.wait(30)
            jobs = []
            for number, call in enumerate(calls):
                jobs.append(pool.submit(call))
                while len(collection._writer._queue) < number + 1:
                    threading.Event().wait(0.005)
            go.set()
            errors = [type(job.exception()) for job in jobs]
        kinds = [type(None), AlreadyExists, InvalidArgument, NotFound, type(None), type(None)]
        assert errors == kinds
        assert set(everything(collection)) == {1, 3, 9}

    def test_readers_see_whole_calls(self, collection: Collection) -> None:
        """A batch becomes visible at once: counts are multiples of it while it is replaced."""
        stop = threading.Event()
        wrong: list[int] = []

        def read() -> None:
            while not stop.is_set():
                count = collection.count()
                if count % 50:
                    wrong.append(count)

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for i in range(30):
                    collection.upsert(range(50 * (i % 3), 50 * (i % 3) + 50), points(50))
                    if i % 5 == 4:
                        collection.delete(range(50))
            finally:
                stop.set()
            for reader in readers:
                reader.result()
        assert not wrong


class TestFailures:
    @pytest.mark.parametrize("error", [OutOfSpace("full"), WriteFailed("refused")])
    def test_a_failed_commit_leaves_nothing(
        self, hundred: Collection, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not in the file, not in memory; reads go on."""
        before = everything(hundred)

        def failing(self: RowStore) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(RowStore, "commit", failing)
            with pytest.raises(type(error)):
                hundred.upsert([1, 500], points(2), [{"n": -1}] * 2)
            with pytest.raises((OutOfSpace, WriteFailed)):
                hundred.delete([1, 2, 3])
        assert everything(hundred) == before
        assert len(hundred.search(points(1)[0], 1000)) == 100

    def test_a_full_disk_may_be_tried_again(
        self, hundred: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody has to reopen anything once there is room."""
        with monkeypatch.context() as patched:
            patched.setattr(RowStore, "commit", lambda self: _raise(OutOfSpace("full")))
            with pytest.raises(OutOfSpace):
                hundred.upsert([500], points(1))
        assert hundred.upsert([500], points(1)) == 1
        assert hundred.count() == 101

    def test_a_refused_flush_ends_the_writing(
        self,
        hundred: Collection,
        monkeypatch: pytest.MonkeyPatch,
        reopened: Callable[[str], Collection],
    ) -> None:
        """After it nobody knows what the disk holds; writing on would build on sand."""
        with monkeypatch.context() as patched:
            patched.setattr(RowStore, "commit", lambda self: _raise(WriteFailed("refused")))
            with pytest.raises(WriteFailed):
                hundred.upsert([500], points(1))
        with pytest.raises(WriteFailed, match="close the database and open it anew"):
            hundred.upsert([500], points(1))
        assert hundred.count() == 100
        again = reopened("things")
        assert again.upsert([500], points(1)) == 1
        assert again.count() == 101

    def test_a_change_in_memory_that_fails_is_made_good(
        self, hundred: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The transaction stands, so the contents are read anew from the rows."""
        append, failed = Columns.append, list[int]()

        def fails_once(self: Columns, *given: Any) -> None:
            if not failed:
                failed.append(1)
                raise MemoryError
            append(self, *given)

        monkeypatch.setattr(Columns, "append", fails_once)
        assert hundred.upsert([1], points(1), [{"n": -5}]) == 1
        assert failed
        assert held(hundred, [1])[0] == [{"n": -5}]
        assert hundred.count() == 100
        assert hundred.count(F("n") == 1) == 0
        assert len(set(ids_of(hundred.search(points(1)[0], 1000)))) == 100

    def test_contents_that_cannot_be_read_again_are_not_read_at_all(
        self,
        hundred: Collection,
        reopened: Callable[[str], Collection],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Half a change must not be answered from; the rows have the whole of it."""
        with monkeypatch.context() as patched:
            patched.setattr(Columns, "append", lambda *given: _raise(MemoryError()))
            with pytest.raises(MemoryError):
                hundred.upsert([1], points(1), [{"n": -5}])
            for read in (hundred.count, lambda: hundred.search(points(1)[0])):
                with pytest.raises(WriteFailed, match="open it anew"):
                    read()
        again = reopened("things")
        assert held(again, [1])[0] == [{"n": -5}]
        assert again.count() == 100

    def test_a_closed_collection_says_so(self, database: Database, collection: Collection) -> None:
        """Reads and writes alike."""
        database.close()
        calls: list[Callable[[], object]] = [
            lambda: collection.upsert([1], points(1)),
            lambda: collection.delete([1]),
            lambda: collection.update_payload({}, ids=[1]),
            lambda: collection.get([1]),
            lambda: collection.count(),
            lambda: collection.scroll(),
            lambda: collection.search(points(1)[0]),
            lambda: collection.flush(),
            lambda: collection.compact(),
            lambda: collection.stats(),
        ]
        for call in calls:
            with pytest.raises(Closed, match="collection 'things' was closed"):
                call()


def _raise(error: BaseException) -> None:
    raise error
