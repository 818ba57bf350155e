"""Check finds every damage, repair saves what is sound and says what was lost.

soardb/checkup.py, soardb/storage/salvage.py -> [test_checkup.py]
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import soardb
from soardb import InUse, NotFound
from soardb.checkup import check, repair
from tests.collections.conftest import D, open_by_hand

N = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed database of one collection "a" with fields, full text and a generation."""
    path = tmp_path / "db"
    with open_by_hand(path) as db:
        a = db.create_collection("a", D, schema={"n": "int", "t": "text"}, index={"nlist": 4})
        vectors = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
        a.upsert(np.arange(N), vectors, {"n": range(N), "t": ["word"] * N})
        a.compact()
        a.delete([0, 1, 2])
    return path


@pytest.fixture
def rows(folder: Path) -> Path:
    """Its row store."""
    (found,) = folder.glob("c-*/rows.sqlite")
    return found


@pytest.fixture
def raw(rows: Path) -> Iterator[sqlite3.Connection]:
    """Its row store, in the hands of a stranger."""
    connection = sqlite3.connect(rows)
    yield connection
    connection.close()


def told(path: Path) -> str:
    return "\n".join(str(finding) for finding in check(path))


class TestCheck:
    def test_finds_nothing_where_nothing_is(self, folder: Path) -> None:
        """And changes nothing."""
        before = {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}
        assert check(folder) == []
        for path, data in before.items():
            assert path.read_bytes() == data

    def test_runs_beside_a_writer(self, folder: Path) -> None:
        """A check that needs a maintenance window is not run."""
        with soardb.connect(folder) as db:
            db.get_collection("a").upsert([N], np.ones((1, D)))
            assert check(folder) == []

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (
                "UPDATE points SET payload = CAST('{\"n\":9}' AS BLOB) WHERE row = 50",
                "row 50 fails",
            ),
            ("UPDATE points SET vector = zeroblob(32) WHERE row = 60", "row 60 fails"),
            ("UPDATE points SET id = 7 WHERE row = 70", "row 70 fails"),
            ("DELETE FROM points WHERE row = 80", "396 rows, but 397"),
            ("UPDATE state SET live = 5", "state"),
            ("UPDATE settings SET value = '{}' WHERE name = 'collection'", "settings"),
        ],
    )
    def test_finds_what_a_stranger_changed(
        self, folder: Path, raw: sqlite3.Connection, damage: str, words: str
    ) -> None:
        """SQLite calls such a file sound; the checksums do not."""
        raw.execute(damage)
        raw.commit()
        assert words in told(folder)

    def test_finds_an_index_that_is_damaged_or_gone(self, folder: Path) -> None:
        """And says that it is no loss."""
        (index,) = folder.glob("c-*/index/*.generation")
        data = bytearray(index.read_bytes())
        for at in range(8192, len(data), 4096):  # where arrays begin; what fills pages is nobody's
            data[at] ^= 1
        index.write_bytes(data)
        assert "rebuilt from the rows" in told(folder)
        index.unlink()
        assert "rebuilt from the rows" in told(folder)

    def test_finds_folders_that_are_lost_or_missing(self, folder: Path) -> None:
        """Both directions of catalog and disk."""
        (collection,) = folder.glob("c-*")
        other = collection.with_name("c-" + "0" * 16)
        collection.rename(other)
        assert "does not list" in told(folder)
        assert "is missing" in told(folder)

    def test_of_nothing(self, tmp_path: Path) -> None:
        """A typing error in the path is not a sound database."""
        with pytest.raises(NotFound):
            check(tmp_path / "none")


class TestRepair:
    def test_leaves_a_sound_database_alone(self, folder: Path) -> None:
        """Byte by byte."""
        before = {p: p.read_bytes() for p in folder.rglob("*.generation")}
        done = repair(folder)
        assert (done.done, done.lost) == ([], {})
        assert {p: p.read_bytes() for p in folder.rglob("*.generation")} == before

    def test_saves_all_rows_but_the_damaged(
        self, folder: Path, rows: Path, raw: sqlite3.Connection
    ) -> None:
        """And keeps the damaged file for whoever can do better."""
        raw.execute("UPDATE points SET vector = zeroblob(32) WHERE row IN (60, 61)")
        raw.commit()
        raw.close()
        done = repair(folder)
        assert done.lost == {"a": 2}
        assert any("395 points were saved" in line for line in done.done)
        assert list(rows.parent.glob("rows.sqlite.damaged-*"))
        assert check(folder) == []
        with soardb.connect(folder) as db:
            a = db.get_collection("a")
            assert a.count() == N - 5
            assert a.get([59, 60]) == [None, None]  # row 60 has the id 59
            assert a.count("n >= 100") == 300
            assert len(a.search(text="word", limit=1000)) == N - 5
            a.upsert([59], np.ones((1, D)))
            assert a.count() == N - 4

    def test_saves_what_lies_around_a_torn_page(self, folder: Path, rows: Path) -> None:
        """SQLite reads nothing beyond such a page in one go; ranges around it are read."""
        data = bytearray(rows.read_bytes())
        pages = [i for i in range(0, len(data), 16384) if data[i] == 0x0D and i]  # leaves of tables
        page = max(pages, key=lambda i: data[i : i + 16384].count(b"word"))
        data[page : page + 16384] = bytes(16384)
        rows.write_bytes(data)
        assert check(folder)
        done = repair(folder)
        assert 0 < done.lost["a"] < N - 3
        with soardb.connect(folder) as db:
            assert db.get_collection("a").count() == N - 3 - done.lost["a"]
        assert check(folder) == []

    def test_makes_a_lost_catalog_from_the_folders(self, folder: Path) -> None:
        """Each folder knows its name."""
        (folder / "catalog.json").write_text("{}")
        done = repair(folder)
        assert any("aliases are lost" in line for line in done.done)
        with soardb.connect(folder) as db:
            assert db.get_collection("a").count() == N - 3

    def test_accepts_the_loss_of_a_wal(self, folder: Path, rows: Path) -> None:
        """Opening refuses a row store that ends before its witness; repair takes what there is."""
        before = rows.read_bytes()
        with open_by_hand(folder) as db:
            db.get_collection("a").upsert([1000], np.ones((1, D)))
        rows.write_bytes(before)  # the last flushed write is gone
        with soardb.connect(folder) as db:
            with pytest.raises(soardb.CorruptStorage, match="acknowledged as flushed"):
                db.get_collection("a")
            assert db.list_collections() == ["a"]  # the others stay up
        repair(folder)
        with soardb.connect(folder) as db:
            assert db.get_collection("a").count() == N - 3

    def test_takes_the_lock(self, folder: Path) -> None:
        """Nothing is repaired under a process that writes."""
        with soardb.connect(folder), pytest.raises(InUse, match="process"):
            repair(folder)
