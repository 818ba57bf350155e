"""Snapshots: of one moment, whole, restored under any name, and nothing of a hostile one.

soardb/snapshot.py, soardb/database.py -> [test_snapshot.py]
"""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb import AlreadyExists, CorruptStorage, Database, InvalidArgument, NotFound, SoarError
from soardb.kernels.layout import F32
from soardb.snapshot import SNAPSHOT_FORMAT
from tests.collections.conftest import D

SCHEMA = {"n": "int", "t": "text"}


def points(n: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def folders(database: Database) -> set[str]:
    return {entry.name for entry in database.path.iterdir()}


@pytest.fixture
def snapshot(database: Database, tmp_path: Path) -> Path:
    """Of a collection "source" of 300 points, with a generation and a tail."""
    source = database.create_collection("source", D, "l2", schema=SCHEMA)
    source.upsert(np.arange(200), points(200), {"n": range(200), "t": ["word"] * 200})
    source.compact()
    source.upsert(np.arange(200, 300), points(100, 1), {"n": range(200, 300)})
    source.delete([5])
    database.snapshot("source", tmp_path / "snapshot")
    return tmp_path / "snapshot"


class TestTaking:
    def test_restores_every_point_exactly(self, database: Database, snapshot: Path) -> None:
        """Vectors, payloads and full text, under another name, beside the original."""
        copy = database.restore(snapshot, "copy")
        source = database.get_collection("source")
        for mine, theirs in zip(
            copy.scroll(page_size=1000, with_vectors=True),
            source.scroll(page_size=1000, with_vectors=True),
            strict=True,
        ):
            assert (mine.id, mine.payload) == (theirs.id, theirs.payload)
            assert np.array_equal(mine.vector, theirs.vector)  # type: ignore[arg-type]
        assert copy.count() == 299
        assert copy.name == "copy"
        assert len(copy.search(text="words", limit=500)) == 199

    def test_brings_its_index(self, database: Database, snapshot: Path) -> None:
        """A restored collection is searched at full speed at once, and not built again."""
        stats = database.restore(snapshot, "copy").stats()
        assert stats["since_generation"] == 100
        assert stats["damage"] is None

    def test_is_of_one_moment(self, database: Database, tmp_path: Path) -> None:
        """While pairs of points are written together, no snapshot holds half a pair."""
        source = database.create_collection("source", D)
        stop = threading.Event()

        def write() -> None:
            i = 0
            while not stop.is_set():
                source.upsert([2 * i, 2 * i + 1], points(2, i), ack="logged")
                i += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for i in range(5):
                database.snapshot("source", tmp_path / f"s{i}")
        finally:
            stop.set()
            thread.join()
        counts = []
        for i in range(5):
            copy = database.restore(tmp_path / f"s{i}", f"copy{i}")
            ids = {p.id for p in copy.scroll(page_size=10_000)}
            assert ids == set(range(len(ids)))
            assert len(ids) % 2 == 0
            counts.append(len(ids))
        assert counts == sorted(counts)

    def test_replaces_no_file(self, database: Database, snapshot: Path) -> None:
        """A backup that overwrites the one before it is one failure from none."""
        before = snapshot.read_bytes()
        with pytest.raises(AlreadyExists, match="is there"):
            database.snapshot("source", snapshot)
        assert snapshot.read_bytes() == before
        with pytest.raises(NotFound, match="make it first"):
            database.snapshot("source", snapshot.parent / "none" / "file")

    def test_leaves_only_its_file(self, database: Database, snapshot: Path) -> None:
        """No temporary copy stays beside it."""
        assert {p.name for p in snapshot.parent.iterdir()} == {"db", "snapshot"}


class TestRestoring:
    def test_refuses_a_name_that_is_taken(self, database: Database, snapshot: Path) -> None:
        """A restore never replaces what is there."""
        with pytest.raises(AlreadyExists):
            database.restore(snapshot, "source")
        assert database.get_collection("source").count() == 299

    def test_goes_on_being_written(self, database: Database, snapshot: Path) -> None:
        """And survives being closed."""
        copy = database.restore(snapshot, "copy")
        copy.upsert([1000], points(1))
        copy.compact()
        folder = database.path
        database.close()
        with Database(folder) as again:
            assert again.get_collection("copy").count() == 300

    def test_of_an_empty_collection(self, database: Database, tmp_path: Path) -> None:
        """Nothing is a fine thing to keep."""
        database.create_collection("empty", D)
        database.snapshot("empty", tmp_path / "s")
        copy = database.restore(tmp_path / "s", "copy")
        assert copy.count() == 0
        copy.upsert(["a"], points(1))  # its ids may be of any kind still
        assert copy.count() == 1

    def test_a_file_that_is_missing(self, database: Database, tmp_path: Path) -> None:
        """Named, as are all of these."""
        with pytest.raises(NotFound, match="none"):
            database.restore(tmp_path / "none", "copy")


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive, "r:") as opened:
        return {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore[union-attr]


def rebuilt(target: Path, contents: dict[str, bytes], change: Any = None) -> Path:
    """An archive of these members, the manifest made to fit unless `change` says otherwise."""
    manifest = json.loads(contents["soardb-snapshot.json"])
    for name in manifest["files"]:
        data = contents.get(name, b"")
        manifest["files"][name] = {"size": len(data), "crc32": zlib.crc32(data)}
    if change is not None:
        change(manifest)
    contents = contents | {"soardb-snapshot.json": json.dumps(manifest).encode()}
    with tarfile.open(target, "w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target


class TestHostile:
    @pytest.fixture(autouse=True)
    def _nothing_stays(self, database: Database, snapshot: Path) -> Any:
        """Whatever the archive was, the directory is as before."""
        before = folders(database)
        yield
        assert folders(database) == before
        assert database.list_collections() == ["source"]

    def test_no_archive_at_all(self, database: Database, tmp_path: Path) -> None:
        """Random bytes, an empty file, a compressed tar."""
        for data in (b"", b"\0" * 10_240, np.random.default_rng(0).bytes(5000)):
            (tmp_path / "bad").write_bytes(data)
            with pytest.raises(InvalidArgument, match="snapshot"):
                database.restore(tmp_path / "bad", "copy")
        with tarfile.open(tmp_path / "bad.gz", "w:gz"):
            pass
        with pytest.raises(InvalidArgument, match="snapshot"):
            database.restore(tmp_path / "bad.gz", "copy")

    @pytest.mark.parametrize(
        "name", ["../evil", "/etc/evil", "index/../../evil", "rows.sqlite-wal"]
    )
    def test_members_of_other_names(
        self, database: Database, snapshot: Path, tmp_path: Path, name: str
    ) -> None:
        """Only the announced members are read, in their order; names are never paths."""
        contents = members(snapshot)
        head = {"soardb-snapshot.json": contents.pop("soardb-snapshot.json")}
        bad = rebuilt(tmp_path / "bad", head | {name: b"evil"} | contents)
        with pytest.raises(InvalidArgument, match="expected the file"):
            database.restore(bad, "copy")
        assert not (tmp_path / "evil").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
    def test_members_that_are_no_files(
        self, database: Database, snapshot: Path, tmp_path: Path, kind: bytes
    ) -> None:
        """A link in the place of the rows would point out of the directory."""
        manifest = members(snapshot)["soardb-snapshot.json"]
        with tarfile.open(tmp_path / "bad", "w") as archive:
            head = tarfile.TarInfo("soardb-snapshot.json")
            head.size = len(manifest)
            archive.addfile(head, io.BytesIO(manifest))
            link = tarfile.TarInfo("rows.sqlite")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
        with pytest.raises(InvalidArgument, match="expected the file"):
            database.restore(tmp_path / "bad", "copy")

    def test_a_size_beyond_the_disk(
        self, database: Database, snapshot: Path, tmp_path: Path
    ) -> None:
        """Refused before the first byte is written."""

        def huge(manifest: dict[str, Any]) -> None:
            manifest["files"]["rows.sqlite"]["size"] = 2**60

        with pytest.raises(SoarError, match="free"):
            database.restore(rebuilt(tmp_path / "bad", members(snapshot), huge), "copy")

    @pytest.mark.parametrize(
        "change",
        [
            {"format": SNAPSHOT_FORMAT + 1},
            {"files": {}},
            {"files": {"../x": {"size": 1, "crc32": 1}}},
            {"files": {"rows.sqlite": {"size": -1, "crc32": 0}}},
            {"files": {"rows.sqlite": {"size": "1", "crc32": 0}}},
            {"files": []},
        ],
    )
    def test_a_manifest_of_another_form(
        self, database: Database, snapshot: Path, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        """Everything that it says is checked before it is used."""
        bad = rebuilt(tmp_path / "bad", members(snapshot), lambda m: m.update(change))
        with pytest.raises(InvalidArgument):
            database.restore(bad, "copy")

    def test_tables_that_are_not_ours(
        self, database: Database, snapshot: Path, tmp_path: Path
    ) -> None:
        """A trigger in a foreign file would be code of the stranger."""
        contents = members(snapshot)
        (tmp_path / "rows").write_bytes(contents["rows.sqlite"])
        connection = sqlite3.connect(tmp_path / "rows")
        connection.execute(
            "CREATE TRIGGER evil AFTER INSERT ON points BEGIN DELETE FROM points; END"
        )
        connection.commit()
        connection.close()
        contents["rows.sqlite"] = (tmp_path / "rows").read_bytes()
        with pytest.raises(InvalidArgument, match="other tables"):
            database.restore(rebuilt(tmp_path / "bad", contents), "copy")

    def test_a_flipped_or_missing_byte_anywhere(
        self, database: Database, snapshot: Path, tmp_path: Path
    ) -> None:
        """Damage is found before the collection is listed."""
        good = snapshot.read_bytes()
        rng = np.random.default_rng(3)
        for at in rng.integers(0, len(good), 40).tolist():
            bad = bytearray(good)
            bad[at] ^= 0x40
            (tmp_path / "bad").write_bytes(bad)
            try:
                copy = database.restore(tmp_path / "bad", "copy")
            except (InvalidArgument, CorruptStorage, NotFound):
                continue
            assert copy.count() == 299  # a byte of the tar's padding or of a member's owner
            database.drop_collection("copy")
        for size in rng.integers(0, len(good) - 20_000, 20).tolist():
            (tmp_path / "bad").write_bytes(good[:size])
            with pytest.raises((InvalidArgument, CorruptStorage)):
                database.restore(tmp_path / "bad", "copy")
