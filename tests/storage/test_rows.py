"""The row store: what was committed is there, whole, checked, and in the order of its numbers.

    soardb/storage/rows.py, soardb/storage/sqlite.py -> [test_rows.py]

A store of its own, without a collection around it. Crashes and power cuts are tried on whole
processes in tests/crash/.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from soardb.errors import (
    Closed,
    CorruptStorage,
    InUse,
    InvalidArgument,
    OutOfMemory,
    OutOfSpace,
    ReadOnly,
    SoarError,
    WriteFailed,
)
from soardb.kernels.layout import F32
from soardb.storage.rows import RowStore, row_checksum
from soardb.storage.sqlite import open_file, translated

D = 4
SETTINGS = {"collection": {"name": "c", "ä": [1, None]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an empty row store of two text fields."""
    RowStore.create(tmp_path, D, SETTINGS, ["a", "b"])
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[RowStore]:
    """It, opened."""
    opened = RowStore(folder, D)
    yield opened
    opened.close()


def vectors(n: int, seed: int = 0) -> F32:
    """(n, D) float32."""
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def put(store: RowStore, ids: list[Any], **changes: Any) -> np.ndarray:
    """Insert in a transaction of its own; returns the rows."""
    n = len(ids)
    given: dict[str, Any] = {
        "payloads": [b'{"i":%d}' % i for i in range(n)],
        "vectors": vectors(n),
        "expires": None,
        "texts": [["fox"] * n, [None] * n],
    } | changes
    store.begin(durable=True)
    rows = store.insert(ids, **given)
    store.commit()
    return rows


def delete(store: RowStore, rows: Any) -> None:
    """In a transaction of its own."""
    store.begin(durable=False)
    store.delete(np.array(rows, np.int64), has_text=True)
    store.commit()


class TestWriting:
    def test_points_come_back_to_the_byte(self, store: RowStore) -> None:
        """Ids of either kind at their bounds, any payload bytes, any float bits."""
        ids = [0, -(2**63), 2**63 - 1, 5]
        payloads = [
            b"{}",
            b'{"a":"\xc3\xa9"}',
            b'{"n":"\\u0000"}',
            b'{"x":' + b"1" * 100_000 + b"}",
        ]
        odd = vectors(4)
        odd[0] = np.array([-0.0, 1e-45, np.finfo(np.float32).max, 0], np.float32)
        rows = put(store, ids, payloads=payloads, vectors=odd)
        assert rows.tolist() == [1, 2, 3, 4]
        found = store.fetch(rows, with_vectors=True)
        for row, point_id, payload, vector in zip(rows, ids, payloads, odd, strict=True):
            point = found[int(row)]
            assert (point.id, point.payload) == (point_id, payload)
            assert point.vector is not None
            assert point.vector.tobytes() == vector.tobytes()
        strings = ["", "a\0b", "é", "e\N{COMBINING ACUTE ACCENT}", "x" * 512, "5"]
        rows = put(store, strings)
        found = store.fetch(rows)
        assert [found[int(row)].id for row in rows] == strings
        assert found[int(rows[0])].vector is None

    def test_numbers_rise_and_count(self, store: RowStore) -> None:
        """seq and live after each commit; a deletion takes one number, an empty one none."""
        put(store, [1, 2, 3])
        assert (store.seq, store.live) == (3, 3)
        delete(store, [2])
        assert (store.seq, store.live) == (4, 2)
        assert put(store, [4]).tolist() == [5]
        delete(store, [])
        assert (store.seq, store.live) == (5, 3)
        assert store.gone_since(0).tolist() == [2]
        assert store.gone_since(3).tolist() == [2]
        assert store.gone_since(4).tolist() == []

    def test_everything_is_there_after_reopening(self, store: RowStore, folder: Path) -> None:
        """Counters, settings, rows, what is gone."""
        put(store, [1, 2, 3])
        delete(store, [1])
        store.begin(durable=False)
        store.set("generation", {"file": "x", "seq": 3})
        store.commit()
        store.close()
        again = RowStore(folder, D)
        assert (again.seq, again.live) == (4, 2)
        assert again.setting("generation") == {"file": "x", "seq": 3}
        assert again.setting("collection") == SETTINGS["collection"]
        assert again.setting("missing") is None
        assert sorted(again.fetch(np.arange(10))) == [2, 3]
        assert again.gone_since(0).tolist() == [1]
        again.close()

    def test_a_transaction_is_seen_by_itself_alone(self, store: RowStore) -> None:
        """Until it is committed; after rolling back nobody ever does."""
        put(store, [1])
        store.begin(durable=True)
        rows = store.insert([2], [b"{}"], vectors(1), None, [["cat"], [None]])
        store.delete(np.array([1]), has_text=True)
        assert store.fetch(rows) == {}
        assert list(store.fetch(rows, in_transaction=True)) == rows.tolist()
        assert list(store.fetch(np.array([1]))) == [1]
        assert store.fetch(np.array([1]), in_transaction=True) == {}
        store.roll_back(RuntimeError())
        assert store.fetch(rows) == {}
        assert list(store.fetch(np.array([1]))) == [1]
        assert (store.seq, store.live) == (1, 1)
        assert store.match_text('{t0} : ("cat")')[0].tolist() == []
        assert put(store, [2]).tolist() == [2]

    def test_deleting_what_is_not_there_is_an_error(self, store: RowStore) -> None:
        """The caller knows which rows live: this means that memory and disk disagree."""
        put(store, [1, 2])
        store.begin(durable=False)
        with pytest.raises(CorruptStorage, match="expected 2 rows to delete, found 1; run"):
            store.delete(np.array([2, 99]), has_text=False)
        store.roll_back(RuntimeError())
        assert store.live == 2

    def test_a_closed_store_says_so(self, store: RowStore) -> None:
        """Readers and the writer."""
        put(store, [1])
        store.close()
        store.close()
        for call in (
            lambda: store.fetch(np.array([1])),
            lambda: store.begin(durable=True),
            lambda: store.setting("x"),
            lambda: next(store.batches(0, 1)),
        ):
            with pytest.raises(Closed):
                call()

    def test_forgetting_what_is_gone(self, store: RowStore) -> None:
        """Up to a number, as a new generation allows."""
        put(store, list(range(6)))
        delete(store, [1, 2])
        delete(store, [3])
        store.begin(durable=False)
        store.forget_gone(7)
        store.commit()
        assert store.gone_since(0).tolist() == [3]
        assert store.gone_among(np.array([1, 3, 4])).tolist() == [3]


class TestReading:
    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_batches_are_the_live_rows_in_order(self, store: RowStore, size: int) -> None:
        """Between two numbers, whole, each once."""
        rows = put(store, [f"id{i}" for i in range(20)], vectors=vectors(20, 3),
                   expires=[i or None for i in range(20)])  # fmt: skip
        delete(store, rows[[4, 5, 19]])
        batches = list(store.batches(2, 18, size))
        assert [row for batch in batches for row in batch.rows] == [
            row for row in range(3, 19) if row not in (5, 6)
        ]
        assert max(len(batch.rows) for batch in batches) <= size
        for batch in batches:
            places = batch.rows - 1
            assert batch.ids == [f"id{i}" for i in places]
            assert batch.payloads == [b'{"i":%d}' % i for i in places]
            assert batch.expires == [int(i) or None for i in places]
            assert np.array_equal(batch.vectors, vectors(20, 3)[places])

    def test_one_moment_whatever_is_written(self, store: RowStore) -> None:
        """consistent() and pinned() see what was there when they began."""
        put(store, list(range(10)))
        walk = store.consistent(size=3)
        first = next(walk)
        with store.pinned():
            delete_in_thread(store, [1, 5, 10])
            assert sorted(store.fetch(np.arange(1, 11))) == list(range(1, 11))
            assert len(store.gone_since(0)) == 0
        assert sorted(store.fetch(np.arange(1, 11))) == [2, 3, 4, 6, 7, 8, 9]
        rest = [row for batch in walk for row in batch.rows.tolist()]
        assert [*first.rows.tolist(), *rest] == list(range(1, 11))

    def test_expiry(self, store: RowStore) -> None:
        """What is due, and what is due next; null never."""
        put(store, [1, 2, 3, 4, 5], expires=[30, None, 10, 10, -5])
        assert store.expired(9).tolist() == [5]
        assert sorted(store.expired(10).tolist()) == [3, 4, 5]
        assert store.next_expiry() == -5
        assert store.next_expiry(10) == 30
        assert store.next_expiry(30) is None

    def test_full_text_follows_the_rows(self, store: RowStore) -> None:
        """Either field, best first; deleted rows are out at once and for good."""
        texts = [["fox", "fox fox", None, "dog"], [None, None, "a fox there", ""]]
        rows = put(store, [1, 2, 3, 4], texts=texts)
        assert store.match_text('{t0 t1} : ("fox")')[0].tolist() == [1, 2, 3]
        best, scores = store.match_text('{t0 t1} : ("fox")', 10)
        assert best[0] == 2
        assert scores == sorted(scores, reverse=True)
        assert store.match_text('{t1} : ("fox")')[0].tolist() == [3]
        assert len(store.match_text('{t0 t1} : ("fox")', 1)[0]) == 1
        delete(store, rows[[1, 2]])
        assert store.match_text('{t0 t1} : ("fox")')[0].tolist() == [1]
        assert store.integrity() == []

    def test_many_threads_read_while_one_writes(self, store: RowStore) -> None:
        """Nobody waits and nobody sees half of a commit: pairs stay pairs."""
        put(store, [0, 1])
        stop = threading.Event()
        wrong: list[object] = []

        def read() -> None:
            try:
                while not stop.is_set():
                    rows = [row for batch in store.consistent() for row in batch.rows.tolist()]
                    if len(rows) != 2 or rows[1] != rows[0] + 1:
                        wrong.append(rows)
            except SoarError as error:
                wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(150):
            store.begin(durable=False)
            held = np.array([store.seq - 1, store.seq])
            store.delete(held, has_text=True)
            store.insert([0, 1], [b"{}"] * 2, vectors(2), None, [["x"] * 2, [None] * 2])
            store.commit()
        stop.set()
        for thread in threads:
            thread.join(30)
        assert not wrong
        assert store.live == 2


def delete_in_thread(store: RowStore, rows: list[int]) -> None:
    """By another thread than the one that reads."""
    thread = threading.Thread(target=delete, args=(store, rows))
    thread.start()
    thread.join(30)


class TestDamage:
    @pytest.mark.parametrize(
        "spoil",
        [
            "payload = CAST('{}x' AS BLOB)", "payload = '{\"i\":0}'", "payload = x''",
            "vector = zeroblob(16)", "vector = zeroblob(12)", "vector = 'text'", "id = 2",
            "id = '1'", "id = 1.5", "id = x'31'", "expires = 1", "expires = 'x'",
            "checksum = checksum + 1", "checksum = 0", "row = 7",
        ],
    )  # fmt: skip
    def test_no_changed_row_is_taken_for_sound(
        self, store: RowStore, folder: Path, spoil: str
    ) -> None:
        """Any column, any type, moved to another number: fetch and batches name it."""
        put(store, [1])
        store.close()
        connection = open_file(folder / "rows.sqlite")
        connection.execute(f"UPDATE points SET {spoil}")
        connection.close()
        again = RowStore(folder, D)
        row = 7 if spoil == "row = 7" else 1
        with pytest.raises(CorruptStorage, match=f"row {row} fails its checksum; `soardb repair`"):
            again.fetch(np.array([row]))
        with pytest.raises(CorruptStorage, match=f"row {row} fails its checksum"):
            list(again.batches(0, 10))
        with pytest.raises(CorruptStorage, match=f"row {row} fails its checksum"):
            list(again.consistent())
        again.close()

    def test_the_checksum_covers_every_part(self) -> None:
        """And tells the integer 1 from the string "1", and no time from any."""
        base: tuple[Any, ...] = (1, 1, None, b"{}", b"\0" * 16)
        others: list[tuple[Any, ...]] = [
            (2, *base[1:]), (1, "1", *base[2:]), (1, 2, *base[2:]), (1, 1, 0, *base[3:]),
            (1, 1, None, b"[]", base[4]), (1, 1, None, b"{}", b"\0" * 15 + b"\1"),
        ]  # fmt: skip
        assert len({row_checksum(*given) for given in [base, *others]}) == 7
        assert all(0 <= row_checksum(*given) < 2**63 for given in [base, *others])

    @pytest.mark.parametrize(
        "sql",
        ["UPDATE state SET seq = seq + 1", "UPDATE state SET live = 0", "DELETE FROM state",
         "UPDATE state SET checksum = 0", "DROP TABLE state"],
    )  # fmt: skip
    def test_a_changed_state_is_refused_at_opening(
        self, store: RowStore, folder: Path, sql: str
    ) -> None:
        """It says how much there is: without it nothing can be told from nothing."""
        put(store, [1])
        store.close()
        connection = open_file(folder / "rows.sqlite")
        connection.execute(sql)
        connection.close()
        with pytest.raises(CorruptStorage):
            RowStore(folder, D)

    def test_a_changed_setting_is_seen(self, store: RowStore, folder: Path) -> None:
        """Which generation is current must not be a guess."""
        store.close()
        connection = open_file(folder / "rows.sqlite")
        connection.execute("UPDATE settings SET value = '5' WHERE name = 'collection'")
        connection.close()
        again = RowStore(folder, D)
        with pytest.raises(CorruptStorage, match="setting 'collection' fails its checksum"):
            again.setting("collection")
        again.close()

    def test_a_lost_end_of_the_log_is_seen(
        self, store: RowStore, folder: Path, tmp_path: Path
    ) -> None:
        """SQLite opens without a word where the WAL is gone; the witness has one."""
        put(store, [1, 2, 3])
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("rows.sqlite", "witness"):
            shutil.copy(folder / name, copy)
        with pytest.raises(CorruptStorage, match="ends at write 0, but writes up to 3 were"):
            RowStore(copy, D)
        shutil.copy(folder / "rows.sqlite-wal", copy)
        found = RowStore(copy, D)
        assert found.live == 3
        found.close()

    @pytest.mark.parametrize("damage", ["empty", "garbage", "missing", "cut"])
    def test_a_file_that_is_no_database(self, store: RowStore, folder: Path, damage: str) -> None:
        """Is CorruptStorage, never a crash, never a new and empty one."""
        put(store, list(range(500)))
        store.close()
        path = folder / "rows.sqlite"
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "garbage": b"x" * 9000, "cut": data[:5000]}[damage])
        with pytest.raises(CorruptStorage):
            RowStore(folder, D)
        with pytest.raises(CorruptStorage):
            RowStore(folder, D, read_only=True)
        assert path.exists() == (damage != "missing")


class TestFailing:
    def test_a_write_that_the_disk_refused_ends_the_writing(self, store: RowStore) -> None:
        """Flushing again would not tell what is on the disk; reading goes on."""
        put(store, [1])
        store.begin(durable=True)
        store.insert([2], [b"{}"], vectors(1), None, [["x"], [None]])
        store.roll_back(WriteFailed("the disk refused"))
        with pytest.raises(WriteFailed, match="no writes since one failed .*open it anew"):
            store.begin(durable=True)
        assert list(store.fetch(np.arange(5))) == [1]

    def test_a_witness_that_cannot_be_written_only_lags(
        self, store: RowStore, folder: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        """The commit stands and is acknowledged."""
        put(store, [1])

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(type(store._witness), "write", full)
            put(store, [2])
        assert "witness could not be written" in caplog.text
        store.close()
        again = RowStore(folder, D)
        assert again.live == 2
        again.close()

    @pytest.mark.parametrize(
        ("raised", "expected"),
        [
            (apsw.FullError(), OutOfSpace),
            (apsw.CorruptError(), CorruptStorage),
            (apsw.NotADBError(), CorruptStorage),
            (apsw.BusyError(), InUse),
            (apsw.ReadOnlyError(), ReadOnly),
            (apsw.NoMemError(), OutOfMemory),
            (apsw.IOError(), WriteFailed),
            (apsw.SQLError(), CorruptStorage),
            (OSError(28, "No space left on device"), OutOfSpace),
            (OSError(122, "Disk quota exceeded"), OutOfSpace),
            (OSError(13, "Permission denied"), ReadOnly),
            (OSError(5, "Input/output error"), WriteFailed),
            (InUse("ours"), InUse),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
    )
    def test_errors_below_become_errors_of_ours(
        self, raised: Exception, expected: type[SoarError]
    ) -> None:
        """With the file's name; the original stays as the cause."""
        with pytest.raises(expected) as caught, translated("rows.sqlite"):
            raise raised
        if not isinstance(raised, SoarError):
            assert "rows.sqlite" in str(caught.value)
            assert caught.value.__cause__ is raised


class TestFiles:
    def test_a_reader_beside_the_writer(self, store: RowStore, folder: Path) -> None:
        """Sees each commit, and cannot write."""
        beside = RowStore(folder, D, read_only=True)
        put(store, [1, 2])
        assert beside.refresh() == 2
        assert (beside.seq, beside.live) == (2, 2)
        assert sorted(beside.fetch(np.arange(5))) == [1, 2]
        delete(store, [1])
        assert beside.refresh() == 3
        assert beside.live == 1
        with pytest.raises(ReadOnly):
            put(beside, [3])
        beside.close()

    def test_a_copy_is_of_one_moment(self, store: RowStore, tmp_path: Path) -> None:
        """Compact, and refused where a file is already."""
        put(store, list(range(100)))
        delete(store, list(range(1, 91)))
        target = tmp_path / "copy.sqlite"
        store.copy_to(target)
        put(store, [1000])
        copy = RowStore.open_copy(target, D)
        assert sorted(copy.fetch(np.arange(200))) == list(range(91, 101))
        copy.close()
        with pytest.raises(InvalidArgument, match="expected no file at"):
            store.copy_to(target)

    def test_the_log_is_folded_in(self, store: RowStore, folder: Path) -> None:
        """When it is long, and at closing; nothing is lost by it."""
        for i in range(20):
            put(store, list(range(200)), payloads=[b'{"x":"' + b"y" * 2000 + b'"}'] * 200)
            store.checkpoint(force=i % 5 == 4)
        wal = folder / "rows.sqlite-wal"
        assert wal.stat().st_size < 20 * 200 * 2000
        assert store.live == 4000
        store.close()
        assert not wal.exists()
        again = RowStore(folder, D)
        assert again.live == 4000
        assert again.integrity() == []
        again.close()
