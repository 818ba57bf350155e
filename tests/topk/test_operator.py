"""topk and approx_topk: the answers, the proof of exactness, and what is said of bad input.

    soardb.topk.operator -> [test_operator.py]

NumPy's stable sort is the judge of `topk`; `topk` is the judge of `approx_topk`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.topk import approx_topk, topk


def normal(nq: int, n: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((nq, n)).astype(np.float32)


def recall(found: npt.NDArray[np.int64], scores: F32, k: int) -> float:
    """Share of the k best scores that were found; equal scores serve alike."""
    least = -np.sort(-scores, axis=1)[:, k - 1 : k]
    return float((np.take_along_axis(scores, found, axis=1) >= least).mean())


class TestTopk:
    @pytest.mark.parametrize(("n", "k"), [(1, 1), (50, 50), (1000, 10), (100_000, 300)])
    def test_is_a_stable_sort(self, n: int, k: int) -> None:
        scores = normal(4, n)
        found, ids = topk(scores, k)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert np.array_equal(ids, order)
        assert np.array_equal(found, np.take_along_axis(scores, order, axis=1))

    def test_one_row_gives_one_row(self) -> None:
        scores = normal(1, 100)
        found, ids = topk(scores[0], 5)
        assert found.shape == ids.shape == (5,)
        assert np.array_equal(ids, topk(scores, 5)[1][0])

    def test_threads_change_nothing(self) -> None:
        scores = normal(33, 5000)
        assert np.array_equal(topk(scores, 20)[1], topk(scores, 20, threads=3)[1])

    def test_no_rows_give_no_rows(self) -> None:
        found, ids = topk(np.empty((0, 10), np.float32), 3)
        assert found.shape == ids.shape == (0, 3)

    def test_nan_and_minus_infinity_are_never_found(self) -> None:
        """-inf masks a score; what is missing is -1, as in every result of soardb."""
        found, ids = topk(np.array([np.nan, 2, -np.inf, 3, np.inf]), 5)
        assert ids.tolist() == [4, 3, 1, -1, -1]
        assert found.tolist() == [np.inf, 3, 2, -np.inf, -np.inf]

    def test_integers_and_lists_are_taken(self) -> None:
        assert topk([3, 1, 2], 2)[1].tolist() == [0, 2]

    @given(
        arrays.arrays(
            np.float32,
            st.tuples(st.integers(1, 3), st.integers(1, 200)),
            elements=st.sampled_from([0.0, -0.0, 1.0, 2.0, -5.0, np.inf, -np.inf, np.nan]),
        ),
        st.data(),
    )
    @settings(max_examples=200, deadline=None)
    def test_every_row_is_in_order_and_complete(self, scores: F32, data: st.DataObject) -> None:
        k = data.draw(st.integers(1, scores.shape[1]))
        found, ids = topk(scores, k)
        for row, got, places in zip(scores, found, ids, strict=True):
            wanted = sorted((-float(x), i) for i, x in enumerate(row) if x > -np.inf)[:k]
            assert places[: len(wanted)].tolist() == [i for _, i in wanted]
            assert got[: len(wanted)].tolist() == [-x for x, _ in wanted]
            assert (places[len(wanted) :] == -1).all()


class TestApproxTopk:
    @pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
    def test_reaches_the_recall_that_was_asked_for(self, target: float) -> None:
        scores = normal(40, 100_000)
        found = approx_topk(scores, 2000, recall_target=target)
        assert not found.plan.is_exact
        measured = recall(found.ids, scores, 2000)
        # 40 x 2,000 draws: four standard errors are below 0.005.
        assert measured > found.plan.expected_recall - 0.005
        assert abs(measured - found.plan.expected_recall) < 0.005

    def test_the_default_target_is_95_percent(self) -> None:
        assert approx_topk(normal(1, 100_000), 2000).plan.expected_recall >= 0.95

    def test_scores_are_those_of_the_ids(self) -> None:
        scores = normal(3, 4096)
        found = approx_topk(scores, 100, buckets=256, keep=2)
        assert np.array_equal(found.scores, np.take_along_axis(scores, found.ids, axis=1))
        assert (np.diff(found.scores, axis=1) <= 0).all()

    def test_a_proof_of_exactness_is_right_and_is_given(self) -> None:
        """Where it says exact it is; and with room to spare it does say so."""
        scores = normal(300, 2048)
        exact = topk(scores, 16)[1]
        found = approx_topk(scores, 16, buckets=128, keep=2)
        same = (found.ids == exact).all(axis=1)
        assert (same >= found.is_exact).all()
        assert 0.1 < found.is_exact.mean() < same.mean()  # measured 0.37, 0.89
        assert approx_topk(scores, 16, buckets=128, keep=5).is_exact.mean() > 0.95

    def test_every_survivor_can_be_had(self) -> None:
        scores = normal(2, 1000)
        found = approx_topk(scores, 8, buckets=64, keep=3, aggregate=False)
        assert found.ids.shape == (2, 192)
        best = -np.sort(-found.scores, axis=1)[:, :8]
        assert np.array_equal(best, approx_topk(scores, 8, buckets=64, keep=3).scores)

    def test_parts_of_a_bigger_array_are_planned_for_the_whole(self) -> None:
        """Four quarters, each by its own plan, then merged: the target holds for the whole."""
        scores, k = normal(20, 400_000), 4000
        whole = recall(topk(scores, k)[1], scores, k)
        assert whole == 1
        parts, owners = [], []
        for j in range(4):
            part = np.ascontiguousarray(scores[:, j::4])
            found = approx_topk(part, k, recall_target=0.95, total=400_000)
            assert found.plan.cost_ns < approx_topk(part, k, recall_target=0.95).plan.cost_ns
            parts.append(found.scores)
            owners.append(found.ids * 4 + j)
        merged, places = topk(np.concatenate(parts, axis=1), k)
        ids = np.take_along_axis(np.concatenate(owners, axis=1), places, axis=1)
        assert np.array_equal(np.take_along_axis(scores, ids, axis=1), merged)
        assert recall(ids, scores, k) > 0.945

    def test_an_order_tied_to_the_stride_is_the_pitfall_and_a_seed_its_cure(self) -> None:
        """All of the best in one bucket: the formula is false, is_exact says so, seed mends it."""
        n, k, buckets = 8192, 64, 128
        scores = normal(4, n)
        scores[:, ::buckets] += 100  # 64 of them, all in bucket 0
        plain = approx_topk(scores, k, buckets=buckets, keep=4)
        assert recall(plain.ids, scores, k) == 4 / 64
        assert not plain.is_exact.any()
        shuffled = approx_topk(scores, k, buckets=buckets, keep=4, seed=1)
        assert recall(shuffled.ids, scores, k) > 0.98  # expected 0.997
        assert np.array_equal(shuffled.scores, np.take_along_axis(scores, shuffled.ids, axis=1))

    @pytest.mark.parametrize("order", ["rising", "falling"])
    def test_sorted_rows_are_served_by_the_stride(self, order: str) -> None:
        """Neighbours go to different buckets, so sorted rows do better than random ones."""
        scores = np.sort(normal(3, 8192), axis=1)
        scores = np.ascontiguousarray(scores if order == "rising" else scores[:, ::-1])
        found = approx_topk(scores, 64, buckets=128, keep=1)
        assert recall(found.ids, scores, 64) == 1

    def test_missing_scores_stay_missing(self) -> None:
        scores = np.full((1, 100), -np.inf, np.float32)
        scores[0, [3, 50]] = np.nan, 7
        found = approx_topk(scores, 5, buckets=10)
        assert found.ids[0].tolist() == [50, -1, -1, -1, -1]
        assert approx_topk(scores, 5, buckets=10, keep=2, seed=3).ids[0].tolist()[:2] == [50, -1]

    @given(st.integers(1, 300), st.integers(0, 2**32), st.data())
    @settings(max_examples=150, deadline=None)
    def test_is_a_subset_in_order_and_exact_where_it_says_so(
        self, n: int, seed: int, data: st.DataObject
    ) -> None:
        k = data.draw(st.integers(1, n))
        buckets = data.draw(st.integers(1, n))
        keep = data.draw(st.integers(min(n, -(-k // buckets)), min(n, -(-k // buckets) + 2)))
        scores = np.random.default_rng(seed).integers(-9, 9, (1, n)).astype(np.float32)
        found = approx_topk(scores, k, buckets=buckets, keep=keep)
        exact_scores, exact_ids = topk(scores, k)
        there = found.ids[0] >= 0
        assert len(set(found.ids[0][there])) == there.sum()
        assert (found.scores[0] <= exact_scores[0]).all()
        if found.is_exact[0]:
            assert np.array_equal(found.ids, exact_ids)


class TestRefusals:
    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            (np.zeros((2, 2, 2)), r"of shape \(n,\) or \(nq, n\), got \(2, 2, 2\)"),
            (np.zeros((3, 0)), "of 1 to 2"),
            (np.array(["a"]), "of a real number type"),
            (np.array([1j]), "of a real number type"),
            ([[1, 2], [3]], "as one"),
            (np.ma.masked_array([1.0, 2.0], [True, False]), "without masked values"),
        ],
    )
    def test_what_is_no_scores(self, scores: object, message: str) -> None:
        for operator in (topk, approx_topk):
            with pytest.raises(InvalidArgument, match=message):
                operator(scores, 1)  # type: ignore[arg-type]

    @pytest.mark.parametrize("k", [0, -1, 11, 2.0, True, None])
    def test_k_outside_the_row(self, k: object) -> None:
        for operator in (topk, approx_topk):
            with pytest.raises(InvalidArgument, match="expected k"):
                operator(np.zeros(10), k)  # type: ignore[arg-type]

    def test_plans_that_contradict(self) -> None:
        scores = np.zeros(100)
        with pytest.raises(InvalidArgument, match="got both"):
            approx_topk(scores, 5, recall_target=0.9, buckets=10)
        with pytest.raises(InvalidArgument, match="expected buckets beside keep"):
            approx_topk(scores, 5, keep=2)
        with pytest.raises(InvalidArgument, match="fewer survive"):
            approx_topk(scores, 50, buckets=10, keep=4)
        with pytest.raises(InvalidArgument, match=r"expected buckets within 1\.\.100"):
            approx_topk(scores, 5, buckets=101)
