"""The cluster's catalog and its storage: whole, checked, replaced at once; a folder or a bucket.

catalog.py, storage.py -> [test_catalog.py] -> moto's server, as an object store
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from soardb.cluster.catalog import ClusterCatalog, Listed
from soardb.cluster.storage import Storage, storage_of
from soardb.core import Settings
from soardb.errors import CorruptStorage, InvalidArgument, NotFound, Unavailable
from soardb.storage.catalog import Catalog, new_folder
from soardb.storage.requests import WINDOW_S


def some_catalog() -> ClusterCatalog:
    first, second = new_folder(), new_folder()
    settings = Settings.asked("x", 8, "l2", {"a": "int"}, {"nlist": 4}, None)
    return ClusterCatalog(
        "ab12",
        3,
        None,
        Catalog({"a": first, "b": second}, {"now": first}),
        {
            first: Listed(replace(settings, name=first), "int"),
            second: Listed(replace(settings, name=second)),
        },
        {"request": 1_000},
        {"shard-0001": "5be1c07a"},
    )


class TestCatalog:
    def test_comes_back_as_it_went(self) -> None:
        """What is listed, aliased and answered."""
        catalog = some_catalog()
        assert ClusterCatalog.of_bytes(catalog.to_bytes(), "here") == catalog

    def test_any_changed_byte_is_noticed(self) -> None:
        """A catalog that is wrong would let a shard delete what is listed."""
        data = some_catalog().to_bytes()
        for place in range(0, len(data), 7):
            damaged = bytearray(data)
            damaged[place] ^= 1
            try:
                found = ClusterCatalog.of_bytes(bytes(damaged), "here")
            except CorruptStorage as error:
                assert "here" in str(error)  # noqa: PT017
            else:
                assert found == some_catalog_of(data)  # white space between two values

    def test_a_shard_that_has_moved_has_another_name(self) -> None:
        """So its new actor and its old one, and their directories, are never taken for another."""
        catalog = some_catalog()
        assert catalog.place_of("shard-0000") == "shard-0000"
        assert catalog.place_of("shard-0001") == "shard-0001-5be1c07a"

    def test_requests_are_forgotten_in_time(self) -> None:
        """The file must not grow for ever."""
        catalog = some_catalog().answering("new", 1_000 + WINDOW_S)
        assert set(catalog.answered) == {"request", "new"}
        assert set(catalog.answering("newer", 1_001 + WINDOW_S).answered) == {"new", "newer"}


def some_catalog_of(data: bytes) -> ClusterCatalog:
    return ClusterCatalog.of_bytes(data, "here")


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return storage_of(str(tmp_path / "storage"))
    return storage_of(request.getfixturevalue("bucket"))


class TestStorage:
    def test_files_are_replaced_and_read(self, storage: Storage) -> None:
        """A small file as a whole; none where there is none."""
        assert storage.read("nothing") is None
        storage.replace("catalog", b"one")
        storage.replace("catalog", b"two")
        assert storage.read("catalog") == b"two"

    def test_files_are_sent_and_fetched(self, storage: Storage, tmp_path: Path) -> None:
        """Larger than a part of an upload."""
        data = bytes(range(256)) * (12 * 2**12)
        (tmp_path / "sent").write_bytes(data)
        storage.send(tmp_path / "sent", "deep/down/file")
        storage.fetch("deep/down/file", tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == data
        with pytest.raises(NotFound):
            storage.fetch("deep/other", tmp_path / "other")

    def test_files_are_removed(self, storage: Storage) -> None:
        """Asked for twice, too."""
        storage.replace("loads/one", b"one")
        for _ in range(2):
            storage.remove("loads/one")
            assert storage.read("loads/one") is None

    def test_only_a_folder_can_hold_shards(self, storage: Storage, tmp_path: Path) -> None:
        """A database cannot be in an object store."""
        assert storage.folder in (None, tmp_path / "storage")

    @pytest.mark.parametrize("uri", ["", "what://ever", "\0"])
    def test_what_is_no_place_is_refused(self, uri: str) -> None:
        """Before anything is started."""
        with pytest.raises(InvalidArgument):
            storage_of(uri)

    def test_a_store_that_is_away_is_worth_retrying(self) -> None:
        """Nobody listens there."""
        away = storage_of(
            "s3://key:word@b/p?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"
        )
        with pytest.raises(Unavailable):
            away.read("catalog")
