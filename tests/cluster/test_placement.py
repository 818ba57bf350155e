"""Where points go: the same place in every process and version, and evenly.

placement.py -> [test_placement.py]
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.cluster.placement import order_of, pack_ids, rows_by_shard, shard_of


class TestShardOf:
    def test_is_what_it_was(self) -> None:
        """A change here would lose every point of every cluster that there is."""
        assert shard_of([0, 1, 2, -1, 2**63 - 1, -(2**63)], 7).tolist() == [2, 2, 4, 0, 2, 6]
        assert shard_of(["a", "b", "ü", "a" * 512], 7).tolist() == [2, 1, 2, 2]

    @pytest.mark.parametrize("shards", [1, 2, 3, 16, 1000])
    def test_ids_in_a_row_are_spread_as_if_at_random(self, shards: int) -> None:
        """DA-TOP-k is true of random placement; ids of users count up, or by steps."""
        for step in (1, 2, 1000, 2**32):
            counts = np.bincount(shard_of(list(range(0, 20_000 * step, step)), shards))
            expected = 20_000 / shards
            assert len(counts) == shards
            # Chi-squared over its mean is 1 on average; its deviation is sqrt(2 / shards).
            assert ((counts - expected) ** 2 / expected).sum() / shards < 1 + 6 / shards**0.5

    def test_none_are_nowhere(self) -> None:
        """An empty call asks nobody."""
        assert shard_of([], 4).tolist() == []
        assert rows_by_shard([], 4) == {}


class TestRows:
    @pytest.mark.parametrize("ids", [list(range(100)), [f"p{i}" for i in range(100)]], ids=type)
    def test_each_id_is_in_one_part(self, ids: list[int] | list[str]) -> None:
        """A point on two shards would be found twice."""
        parts = rows_by_shard(ids, 5)
        packed = [list(pack_ids(ids, rows)) for rows in parts.values()]
        assert sorted(point_id for part in packed for point_id in part) == sorted(ids)

    def test_integers_are_in_their_order(self) -> None:
        """A scroll over shards goes in the order of one over a table."""
        assert sorted([3, -5, 0], key=order_of) == [-5, 0, 3]
