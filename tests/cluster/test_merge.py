"""Columns of shards as one result: compared with a plain sort of all hits.

merge.py -> [test_merge.py]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soardb.cluster.merge import cut, kept_share, merged, spliced, without
from soardb.hits import HitColumns


def columns(rows: list[list[tuple[Any, float]]], seq: int = 1) -> HitColumns:
    """Hits [(id, score), ...] of each query as columns, with payloads that name the id."""
    flat = [hit for row in rows for hit in row]
    ids = [point_id for point_id, _ in flat]
    is_text = any(isinstance(point_id, str) for point_id in ids)
    return HitColumns(
        np.array([len(row) for row in rows], np.int64),
        ids if is_text else np.array(ids, np.int64),
        np.array([score for _, score in flat], np.float32),
        [str(point_id).encode() for point_id in ids],
        np.array([[score, 0.0] for _, score in flat], np.float32).reshape(-1, 2),
        None,
        None,
        "dot",
        seq,
    )


def rows_of(found: HitColumns) -> list[list[tuple[Any, float]]]:
    rows = []
    for one in found.each():
        ids = one.ids.tolist() if isinstance(one.ids, np.ndarray) else one.ids
        assert one.payloads == [str(point_id).encode() for point_id in ids]
        assert one.vectors is not None
        assert one.vectors[:, 0].tolist() == one.scores.tolist()
        rows.append(list(zip(ids, one.scores.tolist(), strict=True)))
    return rows


def drawn(seed: int, shards: int, nq: int, kind: type) -> list[list[list[tuple[Any, float]]]]:
    """[shard][query] hits, best first; scores of few values, so that many are equal."""
    rng = np.random.default_rng(seed)
    parts = []
    for shard in range(shards):
        queries = []
        for _ in range(nq):
            n = int(rng.integers(0, 9))
            ids = rng.choice(40, n, replace=False) * shards + shard
            hits = [(kind(i), float(rng.integers(0, 5))) for i in ids.tolist()]
            queries.append(sorted(hits, key=lambda hit: -hit[1]))
        parts.append(queries)
    return parts


class TestMerged:
    @pytest.mark.parametrize("kind", [int, str])
    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_sorted_union(self, kind: type, seed: int) -> None:
        """Best first, equal scores by id, payloads and vectors beside their hits."""
        parts = drawn(seed, shards=1 + seed % 5, nq=1 + seed % 4, kind=kind)
        k = 1 + seed % 12
        found = merged([columns(part, seq=i) for i, part in enumerate(parts)], k)
        expected = [
            sorted((hit for part in parts for hit in part[q]), key=lambda hit: (-hit[1], hit[0]))[
                :k
            ]
            for q in range(len(parts[0]))
        ]
        assert rows_of(found) == expected
        assert found.seq == sum(range(len(parts)))

    @pytest.mark.parametrize("seed", range(5))
    def test_puts_scores_of_any_size_and_sign_in_order(self, seed: int) -> None:
        """Floats are sorted as integers: below zero, tiny, huge; and both zeros are equal."""
        rng = np.random.default_rng(seed)
        values = np.float32([-3e38, -2.5, -1e-40, -0.0, 0.0, 1e-40, 1e-7, 2.5, 3e38])
        shards = []
        for shard in range(3):
            hits = [(int(i) * 3 + shard, float(rng.choice(values))) for i in rng.permutation(7)]
            shards.append([sorted(hits, key=lambda hit: -hit[1])])
        found = merged([columns(part) for part in shards], 12)
        every = [hit for (part,) in shards for hit in part]
        expected = sorted(every, key=lambda hit: (-hit[1], hit[0]))[:12]
        assert np.asarray(found.ids).tolist() == [point_id for point_id, _ in expected]

    def test_of_no_hits_and_of_no_queries(self) -> None:
        """An empty collection answers, too."""
        assert merged([columns([[], []]), columns([[], []])], 3).counts.tolist() == [0, 0]
        assert merged([columns([]), columns([])], 3).counts.tolist() == []

    def test_a_shard_without_hits_does_not_say_the_kind_of_ids(self) -> None:
        """Of no ids at all nobody can say the kind."""
        found = merged([columns([[]]), columns([[("a", 1.0)]])], 3)
        assert found.ids == ["a"]


class TestParts:
    def test_cut_keeps_the_first(self) -> None:
        """What a shard would have answered, had it been asked for less."""
        part = columns([[(1, 3.0), (2, 2.0), (3, 1.0)], [], [(4, 1.0)]])
        assert rows_of(cut(part, 2)) == [[(1, 3.0), (2, 2.0)], [], [(4, 1.0)]]

    def test_spliced_replaces_some_queries(self) -> None:
        """Those that were asked again."""
        part = columns([[(1, 3.0)], [(2, 2.0)], [(3, 1.0)]])
        fresh = columns([[(2, 2.0), (5, 1.0)]])
        found = spliced(part, np.array([1]), fresh)
        assert rows_of(found) == [[(1, 3.0)], [(2, 2.0), (5, 1.0)], [(3, 1.0)]]

    def test_without_leaves_one_out(self) -> None:
        """The point whose likes are sought."""
        part = columns([[(1, 3.0), (2, 2.0), (3, 1.0)]])
        assert rows_of(without(part, 2, 2)) == [[(1, 3.0), (3, 1.0)]]
        assert rows_of(without(part, 9, 2)) == [[(1, 3.0), (2, 2.0)]]

    def test_kept_share(self) -> None:
        """Measured merge recall is a mean over queries."""
        many = columns([[(1, 3.0), (2, 2.0)], [(3, 1.0)], []])
        few = columns([[(1, 3.0), (7, 2.0)], [(3, 1.0)], []])
        assert kept_share(few, many) == 0.75
        assert kept_share(many, many) == 1.0
