"""The memory limit: what does not fit is refused before it is begun, and nothing is lost by that.

    soardb/budget.py, soardb/database.py -> [test_budget.py]

How well the count agrees with what the process really uses is measured by the tests of the whole
process, not here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.budget import Budget
from soardb.connect import connect
from soardb.errors import InvalidArgument, OutOfMemory
from tests.collections.conftest import D, ids_of, open_by_hand, points

MIB = 2**20


class TestBudget:
    def test_it_adds_up_what_is_held_and_what_is_under_way(self) -> None:
        """Up to the limit and not a byte beyond; given back at the end of the block."""
        budget = Budget(100, lambda: 30)
        with budget.reserve(40, "a build"):
            assert budget.reserved == 40
            with budget.reserve(30, "a write"):
                assert budget.reserved == 70
            with (
                pytest.raises(OutOfMemory, match="a write needs 31 bytes, 30 are held and 40 in"),
                budget.reserve(31, "a write"),
            ):
                raise AssertionError("not reached")
        assert budget.reserved == 0

    def test_an_error_gives_it_back(self) -> None:
        """A failed write must not eat up the limit for good."""
        budget = Budget(100)
        with pytest.raises(KeyError), budget.reserve(100, "a write"):
            raise KeyError
        assert budget.reserved == 0

    def test_without_a_limit_everything_fits(self) -> None:
        """And held is never asked for, which costs a look at every collection."""
        budget = Budget(None, lambda: 1 // 0)
        with budget.reserve(2**60, "a build"):
            pass

    def test_what_to_do_stands_in_the_message(self) -> None:
        """The limit, and both ways out."""
        with (
            pytest.raises(OutOfMemory, match="the limit is 10; raise memory_limit, or do it in"),
            Budget(10).reserve(11, "a write"),
        ):
            raise AssertionError("not reached")


class TestDatabase:
    def test_a_large_write_is_refused_and_nothing_of_it_is_there(self, folder: Path) -> None:
        """The call can be repeated in parts; reads, and writes that fit, go on."""
        with open_by_hand(folder, memory_limit=16 * MIB) as database:
            collection = database.create_collection("c", 256, "l2")
            collection.upsert(range(100), points(100, d=256))
            large = points(10_000, d=256)
            with pytest.raises(OutOfMemory, match="writing 10,000 points needs .* bytes"):
                collection.upsert(range(10_000), large)
            assert collection.count() == 100
            assert len(collection.search(large[0], 10)) == 10
            for first in range(0, 2_000, 500):
                part = range(first, first + 500)
                collection.upsert(part, large[first : first + 500])
            assert collection.count() == 2_000

    def test_more_can_be_written_than_fits(self, folder: Path) -> None:
        """Where memory is full, the index is compacted: 40 MB of vectors pass through 24 MiB."""
        n, step = 40_000, 500
        vectors = points(step, d=256)
        with open_by_hand(folder, memory_limit=24 * MIB) as database:
            collection = database.create_collection("c", 256, "l2", index={"nlist": 0})
            for first in range(0, n, step):
                ids = range(first, first + step)
                assert collection.upsert(ids, vectors + np.float32(first), ack="logged") == step
                assert database.stats()["memory_held"] <= 24 * MIB
            assert collection.count() == n
            assert collection.delete(range(100)) == 100
            assert ids_of(collection.search(vectors[5] + np.float32(39_500), 1)) == [39_505]
        with open_by_hand(folder) as database:
            assert database.get_collection("c").count() == n - 100

    def test_compaction_gives_it_back(self, folder: Path) -> None:
        """What was held by the tail lies in a mapped file afterwards, so writing goes on."""
        with open_by_hand(folder, memory_limit=32 * MIB) as database:
            collection = database.create_collection("c", 128, "l2")
            vectors = points(1000, d=128)
            for i in range(5):
                collection.upsert(range(1000 * i, 1000 * i + 1000), vectors)
            before = database.stats()["memory_held"]
            collection.compact()
            after = database.stats()["memory_held"]
            assert after < before - 5000 * 128 * 4 * 0.8
            assert collection.count() == 5000

    def test_a_build_that_does_not_fit_is_refused(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By compact(), which says so; reads and writes go on as before."""
        n = 80_000
        with open_by_hand(folder) as database:
            collection = database.create_collection("c", 64, "l2")
            collection.upsert(range(n), points(n, d=64), ack="logged")
            collection.compact()
        monkeypatch.setattr("soardb.compaction.BUILD_BYTES", 400)
        with open_by_hand(folder, memory_limit=10 * MIB) as database:
            collection = database.get_collection("c")
            with pytest.raises(OutOfMemory, match=r"(building|training) the index needs"):
                collection.compact(retrain=True)
            assert collection.count() == n
            assert len(collection.search(np.zeros(64), 10)) == 10
            assert collection.upsert([n], np.ones((1, 64))) == 1
            files = {file.suffix for file in collection._core.index_folder.iterdir()}
            assert files <= {".generation", ".part"}  # .part: a model that was learnt already

    def test_stats_name_the_parts(self, folder: Path) -> None:
        """'Where is the memory' is answered by number."""
        with open_by_hand(folder, memory_limit=64 * MIB) as database:
            collection = database.create_collection("c", D, schema={"n": "int"})
            collection.upsert(range(100), points(100), {"n": list(range(100))})
            stats = database.stats()
            assert stats["memory_limit"] == 64 * MIB
            assert stats["memory_reserved"] == 0
            parts = stats["collections"]["c"]["memory_bytes"]
            assert parts["delta_vectors"] >= 100 * D * 4
            assert {"tail_ids", "columns", "row_cache", "tombstones"} <= parts.keys()
            held = sum(size for part, size in parts.items() if not part.startswith("base_"))
            assert 0 < stats["memory_held"] <= held

    @pytest.mark.parametrize("bad", [0, -1, 1000, 1.5, "1GB", True, 2**63])
    def test_limits_have_bounds(self, folder: Path, bad: Any) -> None:
        """Too small to work with is refused at the door."""
        with pytest.raises(InvalidArgument, match="expected memory_limit"):
            connect(folder, memory_limit=bad)
        assert not folder.exists()
