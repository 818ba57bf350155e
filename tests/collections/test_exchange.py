"""Export and import: every point, exactly, in files that others read and write too.

soardb/exchange.py -> [test_exchange.py]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from soardb import AlreadyExists, Collection, Database, InvalidArgument, NotFound
from soardb.exchange import export_points, import_points
from soardb.kernels.layout import F32
from tests.collections.conftest import D

SCHEMA = {"k": "keyword", "w": "datetime"}
FORMATS = [".parquet", ".arrow"]


def points(n: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def held(collection: Collection) -> dict[object, tuple[object, bytes]]:
    page = collection.scroll(page_size=10_000, with_vectors=True)
    return {p.id: (p.payload, p.vector.tobytes()) for p in page if p.vector is not None}


@pytest.fixture
def source(database: Database) -> Collection:
    """250 points with string ids, of a collection with options."""
    found = database.create_collection("source", D, "l2", schema=SCHEMA, index={"nlist": 4})
    ids = [f"id-{i}" for i in range(250)]
    found.upsert(ids, points(250), [{"k": f"k{i % 3}", "free": [i]} for i in range(250)])
    return found


@pytest.mark.parametrize("ending", FORMATS)
class TestThereAndBack:
    def test_every_point_comes_back_exactly(
        self, database: Database, source: Collection, tmp_path: Path, ending: str
    ) -> None:
        """Into a collection that is made as the file says."""
        assert export_points(source, tmp_path / f"f{ending}") == 250
        assert import_points(database, "copy", tmp_path / f"f{ending}") == 250
        copy = database.get_collection("copy")
        assert held(copy) == held(source)
        assert (copy.metric, copy.schema, copy.d) == ("l2", SCHEMA, D)
        assert copy._core.settings.params.nlist == 4

    def test_integer_ids_stay_integers(
        self, database: Database, tmp_path: Path, ending: str
    ) -> None:
        """And both ends of int64 fit."""
        ids = [-(2**63), -1, 0, 2**63 - 1]
        database.create_collection("source", D).upsert(ids, points(4))
        export_points(database.get_collection("source"), tmp_path / f"f{ending}")
        import_points(database, "copy", tmp_path / f"f{ending}")
        assert set(held(database.get_collection("copy"))) == set(ids)

    def test_an_empty_collection(self, database: Database, tmp_path: Path, ending: str) -> None:
        """A file without rows is a file."""
        database.create_collection("source", D)
        assert export_points(database.get_collection("source"), tmp_path / f"f{ending}") == 0
        assert import_points(database, "copy", tmp_path / f"f{ending}") == 0
        assert database.get_collection("copy").count() == 0

    def test_progress_ends_at_the_whole(
        self, database: Database, source: Collection, tmp_path: Path, ending: str
    ) -> None:
        """Shares rise to one."""
        seen: list[float] = []
        export_points(source, tmp_path / f"f{ending}", lambda _, share: seen.append(share))
        import_points(
            database, "copy", tmp_path / f"f{ending}", progress=lambda _, s: seen.append(s)
        )
        assert seen.count(1.0) >= 2
        assert all(0 <= share <= 1 for share in seen)

    def test_replaces_no_file_and_leaves_none(
        self, source: Collection, tmp_path: Path, ending: str
    ) -> None:
        """What is there stays; an export that is refused leaves nothing beside it."""
        target = tmp_path / f"f{ending}"
        target.write_bytes(b"mine")
        with pytest.raises(AlreadyExists, match="is there"):
            export_points(source, target)
        assert target.read_bytes() == b"mine"
        assert {p.name for p in tmp_path.iterdir()} == {"db", target.name}

    def test_a_damaged_file(
        self, database: Database, source: Collection, tmp_path: Path, ending: str
    ) -> None:
        """Refused with its name; no collection is made of it."""
        export_points(source, tmp_path / f"f{ending}")
        data = (tmp_path / f"f{ending}").read_bytes()
        (tmp_path / f"f{ending}").write_bytes(data[: len(data) // 2])
        with pytest.raises(InvalidArgument, match=f"f{ending}"):
            import_points(database, "copy", tmp_path / f"f{ending}")
        assert database.list_collections() == ["source"]


class TestFilesOfOthers:
    def test_other_columns_become_payload(self, database: Database, tmp_path: Path) -> None:
        """A table as people have it: lists of doubles, columns of their own, nulls."""
        table = pa.table(
            {
                "id": pa.array([1, 2, 3]),
                "price": pa.array([1.5, None, 3.0]),
                "tags": pa.array([["a"], ["b", "c"], None]),
                "vector": pa.array([[1.0] * D, [2.0] * D, [3.0] * D], pa.list_(pa.float64(), D)),
            }
        )
        pq.write_table(table, tmp_path / "f.parquet")
        schema = {"price": "float", "tags": "keyword_list"}
        import_points(database, "new", tmp_path / "f.parquet", metric="dot", schema=schema)
        new = database.get_collection("new")
        assert new.metric == "dot"
        assert [p and p.payload for p in new.get([1, 2, 3])] == [
            {"price": 1.5, "tags": ["a"]},
            {"tags": ["b", "c"]},
            {"price": 3.0},
        ]
        assert new.count("price > 2") == 1

    def test_into_a_collection_that_is_there(self, database: Database, tmp_path: Path) -> None:
        """Points of the same ids are replaced; its metric and schema are its own."""
        there = database.create_collection("there", D)
        there.upsert([1, 9], points(2))
        table = pa.table({"id": [1], "vector": pa.array([[1.0] * D])})
        pq.write_table(table, tmp_path / "f.parquet")
        import_points(database, "there", tmp_path / "f.parquet")
        assert there.count() == 2
        with pytest.raises(InvalidArgument, match="its own"):
            import_points(database, "there", tmp_path / "f.parquet", metric="l2")

    def test_errors_name_the_rows(self, database: Database, tmp_path: Path) -> None:
        """Of a million rows, which one is it?"""
        vectors = [[1.0] * D] * 15_000
        vectors[12_345] = [0.0] * D
        table = pa.table(
            {"id": range(15_000), "vector": pa.array(vectors, pa.list_(pa.float32(), D))}
        )
        pq.write_table(table, tmp_path / "f.parquet")
        with pytest.raises(InvalidArgument, match=r"rows 10000\.\.14999.*zero vector in row 2345"):
            import_points(database, "new", tmp_path / "f.parquet")
        assert database.get_collection("new").count() == 10_000

    def test_what_cannot_be_imported(self, database: Database, tmp_path: Path) -> None:
        """Columns, endings and files that are none."""
        pq.write_table(pa.table({"id": [1], "embedding": [[1.0] * D]}), tmp_path / "f.parquet")
        with pytest.raises(InvalidArgument, match="columns id and vector"):
            import_points(database, "new", tmp_path / "f.parquet")
        with pytest.raises(InvalidArgument, match=r"\.parquet or"):
            import_points(database, "new", tmp_path / "f.csv")
        with pytest.raises(NotFound, match="none"):
            import_points(database, "new", tmp_path / "none.parquet")
        assert database.list_collections() == []
