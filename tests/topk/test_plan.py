"""The formulas of expected recall, judged by counting and by simulation.

    soardb.topk.plan -> [test_plan.py]

A formula that nobody has counted after is a guess: on small arrays every placement is enumerated,
on larger ones the operator itself is run on shuffled scores.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.topk import TopkPlan, approx_topk, expected_recall, plan_topk
from soardb.topk.plan import _bucket_ns, hypergeometric


def counted_recall(n: int, k: int, buckets: int, keep: int) -> float:
    """Every set of k places out of n, dealt to buckets by stride."""
    kept = [
        sum(min(sum(place % buckets == b for place in places), keep) for b in range(buckets))
        for places in combinations(range(n), k)
    ]
    return float(np.mean(kept)) / k


class TestExpectedRecall:
    @pytest.mark.parametrize("n", [1, 5, 9, 12])
    def test_equals_the_count_over_every_placement(self, n: int) -> None:
        """Buckets of unequal size included."""
        for k in range(1, n + 1):
            for buckets in range(1, n + 1):
                for keep in range(1, 4):
                    expected = expected_recall(n, k, buckets, keep)
                    assert expected == pytest.approx(counted_recall(n, k, buckets, keep), abs=1e-12)

    @pytest.mark.parametrize(
        ("n", "k", "buckets", "keep", "recall"),
        [
            (262_144, 1024, 16_384, 1, 0.9713),
            (262_144, 1024, 2048, 2, 0.9680),
            (262_144, 1024, 512, 4, 0.9630),
            (262_144, 1024, 512, 6, 0.9971),
            (32_768, 128, 128, 4, 0.9960),
        ],
    )
    def test_known_values(self, n: int, k: int, buckets: int, keep: int, recall: float) -> None:
        """Summed elsewhere, from binomial coefficients."""
        assert expected_recall(n, k, buckets, keep) == pytest.approx(recall, abs=5e-5)

    @pytest.mark.parametrize(
        ("n", "k", "buckets", "keep"), [(4096, 64, 256, 1), (4096, 64, 64, 2), (5000, 100, 77, 3)]
    )
    def test_equals_what_the_operator_finds(self, n: int, k: int, buckets: int, keep: int) -> None:
        """Shuffled scores, 2,000 rows: the mean recall lies within four standard errors."""
        rng = np.random.default_rng([n, k])
        rows = rng.permuted(np.tile(np.arange(n, dtype=np.float32), (2000, 1)), axis=1)
        found = approx_topk(rows, k, buckets=buckets, keep=keep)
        recalls = (found.scores >= n - k).sum(axis=1) / k
        error = recalls.std() / np.sqrt(len(recalls))
        assert abs(recalls.mean() - expected_recall(n, k, buckets, keep)) < 4 * error

    def test_a_part_of_a_bigger_array_is_asked_for_less(self) -> None:
        """A quarter of the scores holds a quarter of the best; the formula of the whole agrees."""
        part = expected_recall(4096, 64, 64, 2, total=4 * 4096)
        assert part == pytest.approx(expected_recall(4 * 4096, 64, 4 * 64, 2), abs=1e-12)
        assert part > expected_recall(4096, 64, 64, 2)

    @given(st.integers(1, 400), st.data())
    @settings(max_examples=200, deadline=None)
    def test_is_a_share_that_grows_with_survivors(self, n: int, data: st.DataObject) -> None:
        k = data.draw(st.integers(1, n))
        buckets = data.draw(st.integers(1, n))
        recalls = [expected_recall(n, k, buckets, keep) for keep in range(1, 6)]
        assert all(0 < recall <= 1 for recall in recalls)
        assert recalls == sorted(recalls)
        assert expected_recall(n, k, buckets, n) == pytest.approx(1, abs=1e-12)

    def test_the_law_sums_to_one_and_has_its_mean(self) -> None:
        for total, marked, drawn in [(10, 3, 4), (10, 8, 7), (2**20, 1000, 4096), (7, 7, 7)]:
            low, p = hypergeometric(total, marked, drawn)
            assert p.sum() == pytest.approx(1, abs=1e-12)
            mean = (low + np.arange(len(p))) @ p
            assert mean == pytest.approx(marked * drawn / total, rel=1e-9)

    def test_impossible_sizes_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match=r"expected k within 1\.\.10, got 11"):
            expected_recall(10, 11, 2)
        with pytest.raises(InvalidArgument, match=r"expected buckets within 1\.\.10, got 0"):
            expected_recall(10, 2, 0)
        with pytest.raises(InvalidArgument, match="expected total"):
            expected_recall(10, 2, 2, total=9)


class TestPlan:
    @pytest.mark.parametrize("target", [0.8, 0.95])
    @pytest.mark.parametrize(("n", "k"), [(262_144, 1024), (1_000_000, 4096), (100_000, 2000)])
    def test_reaches_its_target_by_the_fewest_buckets(self, n: int, k: int, target: float) -> None:
        """One lane group less would miss it; survivors hold the k asked for."""
        plan = plan_topk(n, k, target)
        assert not plan.is_exact
        assert plan.expected_recall >= target
        assert plan.expected_recall == expected_recall(n, k, plan.buckets, plan.keep)
        assert plan.survivors >= k
        assert plan.buckets % 16 == 0
        assert expected_recall(n, k, plan.buckets - 16, plan.keep) < target or (
            (plan.buckets - 16) * plan.keep < k
        )

    @pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 0.999])
    def test_no_other_plan_that_reaches_the_target_is_cheaper(self, target: float) -> None:
        """Every legal pair of buckets and survivors, by the same cost model."""
        n, k = 20_000, 700
        plan = plan_topk(n, k, target)
        for keep in range(1, 9):
            for buckets in range(16, n, 16):
                if buckets * keep >= k and expected_recall(n, k, buckets, keep) >= target:
                    assert plan.cost_ns <= _bucket_ns(n, k, buckets, keep)

    def test_a_small_k_is_scanned_for(self) -> None:
        """Few scores pass the threshold of an exact scan, so nothing is cheaper."""
        assert plan_topk(331_479, 10, 0.8).is_exact

    def test_a_target_of_one_is_exact(self) -> None:
        assert plan_topk(262_144, 1024, 1.0).is_exact

    def test_a_harder_target_is_not_cheaper(self) -> None:
        costs = [plan_topk(1_000_000, 4096, target).cost_ns for target in (0.8, 0.9, 0.95, 0.99, 1)]
        assert costs == sorted(costs)

    def test_small_rows_have_a_plan_too(self) -> None:
        for n in (1, 2, 16, 17, 40):
            for k in (1, n):
                assert isinstance(plan_topk(n, k, 0.5), TopkPlan)

    @pytest.mark.parametrize("target", [0, -1, 1.01, float("nan"), "much", True])
    def test_a_target_that_is_none_is_refused(self, target: object) -> None:
        with pytest.raises(InvalidArgument, match="recall_target"):
            plan_topk(100, 10, target)  # type: ignore[arg-type]
