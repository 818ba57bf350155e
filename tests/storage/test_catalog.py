"""The catalog: names and the folders that they stand for, replaced as a whole or not at all.

    soardb/storage/catalog.py -> [test_catalog.py]

How a database uses it, names included, is tried in tests/collections/test_database.py.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from soardb.errors import CorruptStorage, InvalidArgument, OutOfSpace
from soardb.storage.catalog import CATALOG_FORMAT, Catalog, as_name, new_folder

ONE, TWO = "c-" + "1" * 16, "c-" + "2" * 16
CATALOG = Catalog({"cats": ONE, "Dogs.v2": TWO}, {"live": TWO})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of CATALOG."""
    file = tmp_path / "catalog.json"
    CATALOG.write(file)
    return file


def forged(path: Path, body: Any, **outer: Any) -> None:
    """A file with a right checksum and any contents."""
    text = json.dumps(body, sort_keys=True).encode()
    whole = {"format": CATALOG_FORMAT, "crc32": zlib.crc32(text), "body": body} | outer
    path.write_text(json.dumps(whole))


class TestFile:
    def test_what_was_written_is_read(self, path: Path) -> None:
        """Empty too."""
        found = Catalog.read(path)
        assert dict(found.collections) == dict(CATALOG.collections)
        assert dict(found.aliases) == dict(CATALOG.aliases)
        Catalog().write(path)
        assert dict(Catalog.read(path).collections) == {}

    def test_every_changed_byte_is_seen_or_harmless(self, path: Path) -> None:
        """CorruptStorage, or the same names: blanks between the parts mean nothing."""
        data = path.read_bytes()
        refused = 0
        for place in range(len(data)):
            for bit in (0x01, 0x20, 0x80):
                damaged = bytearray(data)
                damaged[place] ^= bit
                path.write_bytes(damaged)
                try:
                    found = Catalog.read(path)
                except CorruptStorage:
                    refused += 1
                    continue
                assert dict(found.collections) == dict(CATALOG.collections)
                assert dict(found.aliases) == dict(CATALOG.aliases)
        assert refused > 2.5 * len(data)

    def test_every_cut_is_seen(self, path: Path) -> None:
        """Half a catalog is none."""
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(CorruptStorage, match=r"soardb repair"):
                Catalog.read(path)

    @pytest.mark.parametrize(
        "body",
        [
            [], "x", None, 5, {}, {"collections": {}}, {"collections": [], "aliases": 5},
            {"collections": {"a": 5}, "aliases": {}}, {"collections": {"a": None}, "aliases": {}},
            {"collections": {"a": ".."}, "aliases": {}},
            {"collections": {"a": "../c-1111111111111111"}, "aliases": {}},
            {"collections": {"a": ONE + "/.."}, "aliases": {}},
            {"collections": {"a": ONE + "\n"}, "aliases": {}},
            {"collections": {}, "aliases": {"b": "/etc"}},
        ],
    )  # fmt: skip
    def test_a_forged_one_names_no_other_folder(self, path: Path, body: Any) -> None:
        """With a right checksum: a folder of ours has sixteen hexadecimal digits and no path."""
        forged(path, body)
        with pytest.raises(CorruptStorage):
            Catalog.read(path)

    def test_another_format_is_named(self, path: Path) -> None:
        """A later version's file is not damaged, and not for us."""
        forged(path, {"collections": {}, "aliases": {}}, format=99)
        with pytest.raises(CorruptStorage, match="format 99, this soardb reads 1"):
            Catalog.read(path)

    def test_deep_nesting_is_no_crash(self, path: Path) -> None:
        """A file of brackets."""
        path.write_text("[" * 100_000)
        with pytest.raises(CorruptStorage):
            Catalog.read(path)

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_failed_write_leaves_the_old_one(
        self, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And no temporary file."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            with pytest.raises(OutOfSpace):
                Catalog().write(path)
        assert dict(Catalog.read(path).collections) == dict(CATALOG.collections)
        assert [file.name for file in path.parent.iterdir()] == ["catalog.json"]


class TestNames:
    def test_look_ups(self) -> None:
        """By collection, by alias, by folder; clashes ignore case, finding does not."""
        assert CATALOG.folder_of("cats") == ONE
        assert CATALOG.folder_of("live") == TWO
        assert CATALOG.folder_of("Cats") is None
        assert CATALOG.name_of(TWO) == "Dogs.v2"
        assert CATALOG.name_of("c-" + "3" * 16) is None
        assert CATALOG.clash("CATS") == "cats"
        assert CATALOG.clash("LIVE") == "live"
        assert CATALOG.clash("birds") is None

    def test_folders_are_new_each_time(self) -> None:
        """And of the form that read() demands."""
        folders = {new_folder() for _ in range(1000)}
        assert len(folders) == 1000
        body = {f"n{i}": folder for i, folder in enumerate(folders)}
        assert all(len(folder) == 18 and folder.startswith("c-") for folder in body.values())

    def test_the_message_says_what_a_name_is(self) -> None:
        """And shows a long one cut."""
        with pytest.raises(InvalidArgument, match=r"1\.\.128 ASCII letters.*got 'x+\.\.\.") as e:
            as_name("x" * 10_000)
        assert len(str(e.value)) < 400
        with pytest.raises(InvalidArgument, match="the name of a alias|the name of an alias"):
            as_name("..", "alias")
