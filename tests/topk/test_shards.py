"""DA-TOP-k: the merge, its expected recall and its slack, on simulated shards.

    soardb.topk.shards -> [test_shards.py]

A table of expected recall, summed elsewhere, is checked value by value, the bounds by
simulation, the merge against one selection over everything.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.topk import (
    chernoff_bound,
    expected_recall,
    loss_bound,
    merge_topk,
    plan_shards,
    simulate_shards,
    topk,
)

TABLE = [
    (2, 128, [0.965, 1.000, 1.000, 1.000]),
    (4, 128, [0.939, 0.996, 1.000, 1.000]),
    (8, 64, [0.870, 0.955, 0.988, 0.9997]),
    (8, 128, [0.907, 0.982, 0.998, 1.000]),
    (8, 1024, [0.968, 1.000, 1.000, 1.000]),
    (16, 128, [0.865, 0.951, 0.986, 0.9995]),
    (32, 1024, [0.932, 0.994, 0.9998, 1.000]),
]


def normal(nq: int, n: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((nq, n)).astype(np.float32)


class TestExpectedRecall:
    @pytest.mark.parametrize(("shards", "k", "row"), TABLE)
    def test_slack_buys_what_the_table_says(self, shards: int, k: int, row: list[float]) -> None:
        for slack, recall in zip((1, 1.25, 1.5, 2), row, strict=True):
            found = expected_recall(32_768, k, shards, int(slack * k / shards))
            assert found == pytest.approx(recall, abs=6e-4)

    @pytest.mark.parametrize(("shards", "k", "c"), [(4, 64, 16), (8, 64, 12), (7, 50, 9)])
    def test_is_what_a_simulation_measures(self, shards: int, k: int, c: int) -> None:
        """Random placement anew for each of 1,000 queries; four standard errors."""
        recalls = simulate_shards(normal(1000, 2000), k, shards, c)
        error = recalls.std() / np.sqrt(len(recalls))
        assert abs(recalls.mean() - expected_recall(2000, k, shards, c)) < 4 * error

    def test_bounds_hold_and_the_exact_one_is_the_tighter(self) -> None:
        recalls = simulate_shards(normal(1000, 2000), 64, 8, 14)
        lost = float((recalls < 1).mean())
        exact, chernoff = loss_bound(2000, 64, 8, 14), chernoff_bound(64, 8, 14)
        assert 0.02 < lost <= exact + 4 * np.sqrt(exact / 1000)  # measured 0.05
        assert exact < chernoff < 1

    def test_a_placement_by_order_breaks_the_promise(self) -> None:
        """Scores that rise with the row: contiguous shards put all of the best on one."""
        scores = np.sort(normal(5, 4096), axis=1)
        assert simulate_shards(scores, 64, 8, 12, placement="contiguous").mean() == 12 / 64
        assert simulate_shards(scores, 64, 8, 12, placement="striped").mean() == 1
        assert simulate_shards(scores, 64, 8, 12).mean() > 0.9


class TestPlan:
    @given(st.integers(1, 20_000), st.integers(1, 40), st.data())
    @settings(max_examples=150, deadline=None)
    def test_c_is_the_least_that_keeps_the_promise(
        self, n: int, shards: int, data: st.DataObject
    ) -> None:
        shards = min(shards, n)
        k = data.draw(st.integers(1, min(n, 500)))
        target = data.draw(st.sampled_from([0.5, 0.9, 0.99, 1.0]))
        plan = plan_shards(n, k, shards, recall_target=target)
        assert plan.expected_recall >= min(target, 1 - 1e-12)
        assert plan.c <= k
        if plan.c > 1:
            assert expected_recall(n, k, shards, plan.c - 1) < min(target, 1 - 1e-12)

    def test_the_promise_of_losing_nothing(self) -> None:
        exact = plan_shards(32_768, 128, 8, loss=1e-3)
        chernoff = plan_shards(32_768, 128, 8, loss=1e-3, bound="chernoff")
        assert loss_bound(32_768, 128, 8, exact.c) <= 1e-3
        assert loss_bound(32_768, 128, 8, exact.c - 1) > 1e-3
        assert chernoff_bound(128, 8, chernoff.c) <= 1e-3
        assert 128 / 8 < exact.c < chernoff.c < 128
        assert exact.transferred == exact.c * 8
        assert exact.slack == exact.c * 8 / 128

    def test_one_shard_answers_alone(self) -> None:
        assert plan_shards(1000, 10, 1, recall_target=1.0).c == 10

    def test_what_contradicts_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="got both"):
            plan_shards(1000, 10, 2, recall_target=0.9, loss=0.1)
        with pytest.raises(InvalidArgument, match="'exact' or 'chernoff'"):
            plan_shards(1000, 10, 2, loss=0.1, bound="markov")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"expected shards within 1\.\.1000"):
            plan_shards(1000, 10, 1001)


class TestMerge:
    def test_all_of_every_shard_is_one_selection(self) -> None:
        """Ties go to the lower id, whichever shard holds it and in whichever order they come."""
        scores = np.random.default_rng(0).integers(0, 30, (6, 900)).astype(np.float32)
        owners = np.random.default_rng(1).permutation(900)
        parts = []
        for rows in np.array_split(owners, 4):
            found, places = topk(np.ascontiguousarray(scores[:, rows]), 50)
            parts.append((found, rows[places]))
        # A shard breaks ties by its own places, so only distinct scores have to agree as a set.
        merged, ids = merge_topk(parts, 50)
        exact, _ = topk(scores, 50)
        assert np.array_equal(merged, exact)
        assert np.array_equal(np.take_along_axis(scores, ids, axis=1), merged)
        ties = np.diff(merged, axis=1) == 0
        assert (np.diff(ids, axis=1)[ties] > 0).all()
        again = merge_topk(parts[::-1], 50)
        assert np.array_equal(again[1], ids)

    def test_shards_may_answer_with_less(self) -> None:
        """Different c, missing results, and more asked for than came."""
        parts = [
            (np.array([[3.0, 1.0]], np.float32), np.array([[5, 2]])),
            (np.array([[2.0, -np.inf, 9.0]], np.float32), np.array([[7, -1, -1]])),
        ]
        scores, ids = merge_topk(parts, 5)
        assert ids.tolist() == [[5, 7, 2, -1, -1]]
        assert scores.tolist() == [[3, 2, 1, -np.inf, -np.inf]]

    def test_recall_of_the_merge_is_the_formula_s(self) -> None:
        scores, k, c = normal(500, 3000), 40, 7
        parts = []
        for j in range(8):
            found, places = topk(np.ascontiguousarray(scores[:, j::8]), c)
            parts.append((found, places * 8 + j))
        _, ids = merge_topk(parts, k)
        exact = topk(scores, k)[1]
        recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, ids, strict=True)])
        assert recall == pytest.approx(expected_recall(3000, k, 8, c), abs=0.01)

    def test_what_shards_cannot_have_answered_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="at least one shard"):
            merge_topk([], 3)
        with pytest.raises(InvalidArgument, match="beside the scores of shard 0"):
            merge_topk([(np.zeros((1, 3)), np.zeros((1, 2), np.int64))], 3)
        with pytest.raises(InvalidArgument, match="the same 2 queries of every shard"):
            merge_topk(
                [
                    (np.zeros((2, 3)), np.zeros((2, 3), np.int64)),
                    (np.zeros((1, 3)), np.zeros((1, 3), np.int64)),
                ],
                3,
            )
