"""Directories written by earlier formats are opened, searched, written to and checked.

    tests/golden/format-<n>/ -> [test_golden.py]

One directory a format, committed when the format was new and never made again.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.checkup import check
from soardb.storage.rows import FORMAT

HERE = Path(__file__).parent
FORMATS = sorted(path.name for path in HERE.glob("format-*"))


def maker() -> Any:
    spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_format_of_this_version_has_a_directory() -> None:
    """A new format without one could not be held to its promise later."""
    assert f"format-{FORMAT}" in FORMATS


@pytest.mark.parametrize("name", FORMATS)
class TestGolden:
    @pytest.fixture
    def directory(self, name: str, tmp_path: Path) -> Path:
        shutil.copytree(HERE / name, tmp_path / "db")
        return tmp_path / "db"

    def test_is_sound(self, directory: Path) -> None:
        """Every checksum of that version is one of this version."""
        assert check(directory) == []

    def test_holds_what_was_written(self, directory: Path) -> None:
        """Vectors and payloads come back exactly; what was deleted does not."""
        made = maker()
        with soardb.connect(directory) as db:
            assert db.list_collections() == ["ints", "strings"]
            assert db.list_aliases() == {"words": "strings"}
            ints = db.get_collection("ints")
            assert ints.count() == 320 - 30
            later = made.vectors(70, 8, 2)
            point = ints.get([261], with_vectors=True)[0]
            assert point is not None
            assert point.vector is not None
            assert np.array_equal(point.vector, later[11])
            assert ints.get([10]) == [None]
            words = db.get_collection("words")
            assert words.count() == 110
            expected = made.payload(7) | {}
            got = words.get(["point-7", "point-2", "point-111"])
            assert got[0] is not None
            assert got[0].payload == expected
            assert got[1] is not None
            assert got[1].payload == made.payload(2) | {"k": "changed"}
            assert got[2] is None

    def test_is_searched_by_its_own_index(self, directory: Path) -> None:
        """The generation of that version is used, not thrown away and built again."""
        made = maker()
        with soardb.connect(directory) as db:
            ints = db.get_collection("ints")
            stats = ints.stats()
            assert stats["nlist"] == 8
            assert stats["damage"] is None
            assert stats["since_generation"] == 65  # five of the seventy were deleted again
            query = made.vectors(300, 8, 1)[5]
            by_lists = ints.search(query, 5, nprobe=8, rerank=290, explain=True)
            exact = ints.search(query, 5, exact=True)
            assert by_lists.plan is not None
            assert by_lists.plan.strategy == "lists"
            assert by_lists.scores.tolist() == exact.scores.tolist()
            words = db.get_collection("words")
            assert words.count("k = 'changed'") == 5
            assert words.count("k IN ('k1', 'k2') AND f < 10") == sum(
                made.payload(i).get("k") in ("k1", "k2") and made.payload(i).get("f", 99) < 10
                for i in range(5, 110)
            )
            assert words.search(text="number 77", limit=1).ids == ["point-77"]

    def test_goes_on_being_written(self, directory: Path) -> None:
        """An old directory is no museum: writes, a new generation and another opening."""
        made = maker()
        with soardb.connect(directory) as db:
            ints = db.get_collection("ints")
            ints.upsert([1000], made.vectors(1, 8, 9))
            ints.compact(retrain=True)
        with soardb.connect(directory) as db:
            assert db.get_collection("ints").count() == 291
        assert check(directory) == []
