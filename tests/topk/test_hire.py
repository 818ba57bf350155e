"""Predicting from a cheap copy: exact scores, and the recall that calibration promised.

    soardb.topk.{estimator, hire} -> [test_hire.py] <- exact inner products

Vectors have a falling spectrum, as embeddings do, and queries come from the same source but are
never those that calibrated.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from soardb.errors import InvalidArgument, NotTrained
from soardb.kernels.layout import F32, I64
from soardb.topk import Hire, LowRank, Quantized, traffic
from soardb.topk.estimator import Estimator

N, D, K = 20_000, 48, 10


@cache
def data() -> tuple[F32, F32, F32, F32]:
    """Vectors (N, D), and queries to weigh by, to calibrate on and to judge with."""
    rng = np.random.default_rng(7)
    spectrum: F32 = (1 / np.sqrt(1 + np.arange(D))).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)

    def draw(n: int) -> F32:
        rows = (rng.standard_normal((n, D)).astype(np.float32) * spectrum) @ turn
        return np.ascontiguousarray(rows, np.float32)

    return draw(N), draw(2000), draw(400), draw(1000)


def truth(vectors: F32, queries: F32, k: int = K) -> I64:
    order: I64 = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return order


def recall(found: I64, wanted: I64) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]))


KINDS = ["int8", "int4", "rank 24", "rank 24, weighted"]


@cache
def estimator(kind: str) -> Estimator:
    vectors, weighing, _, _ = data()
    if kind.startswith("int"):
        return Quantized(vectors, bits=int(kind[3:]))
    return LowRank(vectors, rank=24, queries=weighing if "weighted" in kind else None)


@pytest.mark.parametrize("kind", KINDS)
class TestHire:
    @pytest.mark.parametrize("target", [0.9, 0.99])
    def test_held_out_queries_get_the_recall_that_was_calibrated(
        self, kind: str, target: float
    ) -> None:
        """The least k' that shows the target at the low end of its interval keeps its word."""
        vectors, _, calibrating, judging = data()
        hire = Hire(vectors, estimator(kind))
        hire.calibrate(calibrating, K, recall_target=target, confidence=0.99)
        _, rows = hire.topk(judging, K)
        assert recall(rows, truth(vectors, judging)) >= target

    def test_scores_times_factors_are_the_predicted_products(self, kind: str) -> None:
        """So they can stand beside exact ones."""
        vectors, _, _, judging = data()
        made = estimator(kind)
        found = made.scores(judging[:50]) * made.factors(judging[:50])[:, None]
        exact = judging[:50] @ vectors.T
        slope = float((found * exact).sum() / (exact * exact).sum())
        assert slope == pytest.approx(1, abs=0.05)
        assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.9

    def test_the_curve_is_the_recall_that_a_search_has(self, kind: str) -> None:
        vectors, _, calibrating, _ = data()
        hire = Hire(vectors, estimator(kind))
        curve = hire.calibrate(calibrating, K)
        assert (np.diff(curve.recall) >= 0).all()
        assert curve.recall[-1] == 1
        assert (curve.low <= np.maximum(curve.recall, curve.predicted >= N)).all()
        for at in (0, len(curve.predicted) // 2):
            _, rows = hire.topk(calibrating, K, predicted=int(curve.predicted[at]))
            measured = recall(rows, truth(vectors, calibrating))
            assert measured == pytest.approx(float(curve.recall[at]), abs=0.003)  # ties, rounding

    def test_scores_are_exact_and_best_first(self, kind: str) -> None:
        vectors, _, _, judging = data()
        scores, rows = Hire(vectors, estimator(kind), predicted=50).topk(judging, K)
        assert (np.diff(scores, axis=1) <= 0).all()
        exact = np.einsum("qkd,qd->qk", vectors[rows], judging)
        assert np.allclose(scores, exact, rtol=1e-5, atol=1e-5)
        assert all(len(set(row)) == K for row in rows.tolist())

    def test_predicting_everything_is_exact(self, kind: str) -> None:
        vectors, _, _, judging = data()
        _, rows = Hire(vectors, estimator(kind)).topk(judging[:5], K, predicted=N)
        assert recall(rows, truth(vectors, judging[:5])) == 1

    def test_one_query_and_threads_change_nothing(self, kind: str) -> None:
        vectors, _, _, judging = data()
        hire = Hire(vectors, estimator(kind), predicted=60)
        alone = hire.topk(judging[3], K)[1][0]
        assert np.array_equal(alone, hire.topk(judging, K, threads=2)[1][3])

    def test_the_copy_is_what_the_model_says(self, kind: str) -> None:
        """bytes_read within the padding of the cost model."""
        cheap = estimator(kind)
        how = {"rank": 24} if kind.startswith("rank") else {"bits": int(kind[3:])}
        assert cheap.bytes_read() == pytest.approx(traffic(N, D, 0, **how).estimate, rel=0.01)


class TestEstimators:
    def test_more_bits_and_more_ranks_predict_better(self) -> None:
        vectors, _, calibrating, _ = data()
        wanted = truth(vectors, calibrating)

        def measured(cheap: Estimator) -> float:
            return recall(cheap.predict(calibrating, K), wanted)

        assert measured(Quantized(vectors, bits=8)) > 0.95  # measured 0.981
        assert measured(Quantized(vectors, bits=8)) > measured(Quantized(vectors, bits=4))
        recalls = [measured(LowRank(vectors, rank=rank)) for rank in (4, 16, 40, D)]
        assert recalls == sorted(recalls)
        assert recalls[-1] > 0.999

    def test_weighing_by_queries_helps_where_they_differ_from_the_vectors(self) -> None:
        """Queries in a few directions: a rank as small as those is enough, and plain SVD is not."""
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((5000, 32)).astype(np.float32)
        few = np.linalg.qr(rng.standard_normal((32, 6)))[0].astype(np.float32)

        def asked(n: int) -> F32:
            return (rng.standard_normal((n, 6)).astype(np.float32) @ few.T).astype(np.float32)

        judging = asked(200)
        plain, weighted = LowRank(vectors, rank=8), LowRank(vectors, rank=8, queries=asked(500))
        wanted = truth(vectors, judging)
        assert recall(weighted.predict(judging, 20), wanted) > 0.95  # measured 1.0
        assert recall(plain.predict(judging, 20), wanted) < 0.6  # measured 0.1

    def test_zero_vectors_and_zero_queries_have_scores(self) -> None:
        vectors = np.zeros((20, 8), np.float32)
        vectors[3, 2] = 1
        for bits in (4, 8):
            cheap = Quantized(vectors, bits=bits)
            assert cheap.predict(np.eye(8, dtype=np.float32)[2:3], 1)[0, 0] == 3
            assert (cheap.scores(np.zeros((1, 8), np.float32)) == 0).all()

    @pytest.mark.parametrize("d", [2, 3, 7, 8, 9, 31, 100])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_levels_are_as_near_as_their_bits_allow(self, d: int, bits: int) -> None:
        """Half a step a value, times the query's levels, bounds the error of every score."""
        rng = np.random.default_rng(d)
        vectors = rng.standard_normal((50, d)).astype(np.float32)
        query = rng.integers(-3, 4, (1, d)).astype(np.float32)
        query[0, 0] = 127  # so that the query itself is not rounded
        scale = np.abs(vectors).max(axis=1) / (127 if bits == 8 else 7)
        scores = Quantized(vectors, bits=bits).scores(query)[0]
        error = np.abs(scores - vectors @ query[0])
        assert (error <= scale / 2 * np.abs(query).sum() * 1.001 + 1e-4).all()


class TestRefusals:
    def test_what_is_no_estimator(self) -> None:
        vectors = data()[0][:100]
        for bits in (5, 6, 16, "8"):
            with pytest.raises(InvalidArgument, match="bits"):
                Quantized(vectors, bits=bits)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="rank"):
            LowRank(vectors, rank=D + 1)
        with pytest.raises(InvalidArgument, match=r"expected vectors of shape \(n, d\)"):
            Quantized(vectors[0])
        with pytest.raises(InvalidArgument, match="finite"):
            Quantized(np.full((4, 4), np.nan))
        with pytest.raises(InvalidArgument, match="the 100 vectors of the estimator, got 99"):
            Hire(vectors[:99], Quantized(vectors))

    def test_what_is_no_search(self) -> None:
        vectors = data()[0][:100]
        hire = Hire(vectors, Quantized(vectors))
        with pytest.raises(NotTrained, match="calibrate"):
            hire.topk(vectors[:1], 5)
        with pytest.raises(InvalidArgument, match=r"expected predicted within 5\.\.100, got 4"):
            hire.topk(vectors[:1], 5, predicted=4)
        with pytest.raises(InvalidArgument, match="expected finite queries"):
            hire.topk(np.full((1, D), np.inf), 5, predicted=5)
        with pytest.raises(InvalidArgument, match="at least one query"):
            hire.calibrate(vectors[:0], 5)
        with pytest.raises(InvalidArgument, match="either bits or rank"):
            traffic(100, 10, 5)

    def test_one_query_can_promise_only_so_much(self) -> None:
        """Everything is predicted where a few queries cannot show the recall that is wanted."""
        vectors = data()[0][:1000]
        hire = Hire(vectors, Quantized(vectors, bits=4))
        hire.calibrate(data()[2][:2], 1, recall_target=0.99)
        assert hire.predicted == 1000


def test_the_cost_model_has_the_known_limits() -> None:
    """16-bit values and 4-bit copies: at most four times fewer bytes, whatever is predicted."""
    bound = traffic(10**6, 4096, 1, bits=4, value_bytes=2).speedup
    assert 3.9 < bound < 4
    many = traffic(10**6, 4096, 10**5, bits=4, value_bytes=2).speedup
    assert many == pytest.approx(16 / 4 / (1 + 16 * 0.1 / 4), rel=0.01)
    low = traffic(10**6, 4096, 1000, rank=128, value_bytes=2)
    assert low.estimate == (10**6 + 4096) * 128 * 2
    assert low.rescore == 1000 * 4096 * 2
