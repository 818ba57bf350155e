"""8-bit and float32 rows: the products by which candidates are scored again.

    kernels.{dot_u8, score_blocks_u8, rerank_*, exact_*} -> [test_rows.py] <- reference.py

Integer products are compared bit for bit, and so are the float32 scores: their order of additions
is laid down (reference.fold_lanes). Only the candidates of exact_topk come from a product that may
round differently; the scores that it returns do not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I8, U8, Metric

DIMS = [1, 2, 7, 8, 31, 64, 100, 128, 768]
COUNTS = [0, 1, 15, 16, 17, 33, 1000]
METRICS: tuple[Metric, ...] = get_args(Metric)
Shifted = Callable[[npt.NDArray[Any], int], npt.NDArray[Any]]


@cache
def byte_rows(n: int, d: int) -> U8:
    return np.random.default_rng([n, d]).integers(0, 256, (n, d)).astype(np.uint8)


@cache
def byte_query(d: int) -> I8:
    return np.random.default_rng(d).integers(-127, 128, d).astype(np.int8)


@cache
def vectors(n: int, d: int) -> F32:
    return np.random.default_rng([n, d]).standard_normal((n, d)).astype(np.float32)


@cache
def whole_numbers(n: int, d: int) -> F32:
    """Vectors whose scores are exact in float32 whatever the order of additions, and often tie."""
    return np.random.default_rng([n, d]).integers(-2, 3, (n, d)).astype(np.float32)


def same_bits(left: F32, right: F32) -> bool:
    return left.dtype == right.dtype == np.float32 and np.array_equal(
        left.view(np.int32), right.view(np.int32)
    )


class TestByteRows:
    @pytest.mark.parametrize("n", COUNTS)
    @pytest.mark.parametrize("d", DIMS)
    def test_products_equal_the_reference(self, kernels: Kernels, d: int, n: int) -> None:
        rows, query = byte_rows(n, d), byte_query(d)
        products = kernels.dot_u8(rows, query)
        assert products.dtype == np.int32
        assert np.array_equal(products, reference.dot_u8(rows, query))

    @pytest.mark.parametrize("n", COUNTS)
    @pytest.mark.parametrize("d", DIMS)
    def test_blocks_equal_the_reference(self, kernels: Kernels, d: int, n: int) -> None:
        """Padded rows stand for zero and score zero."""
        blocks, query = kernels.pack_u8_blocks(byte_rows(n, d)), byte_query(d)
        products = kernels.score_blocks_u8(blocks, query)
        assert products.dtype == np.int32
        assert np.array_equal(products[:n], reference.dot_u8(byte_rows(n, d), query))
        assert (products[n:] == 0).all()

    @pytest.mark.parametrize("query", [-127, 0, 127])
    @pytest.mark.parametrize("row", [0, 128, 255])
    @pytest.mark.parametrize("d", [1, 31, 768, 4096])
    def test_the_greatest_products_are_exact(
        self, kernels: Kernels, d: int, row: int, query: int
    ) -> None:
        """255 * 127 twice over is more than a signed 16-bit lane holds."""
        rows, queries = np.full((17, d), row, np.uint8), np.full(d, query, np.int8)
        expected = d * (row - 128) * query
        assert (kernels.dot_u8(rows, queries) == expected).all()
        blocks = kernels.pack_u8_blocks(rows)
        assert (kernels.score_blocks_u8(blocks, queries)[:17] == expected).all()

    @pytest.mark.parametrize("d", DIMS)
    def test_gathered_rows_equal_the_reference(self, kernels: Kernels, d: int) -> None:
        """Rows in any order, some twice, from a store whose rows are padded with rubbish."""
        store = byte_rows(200, -(-d // 64) * 64)
        rows = np.random.default_rng(0).integers(0, 200, 77).astype(np.uint32)
        products = kernels.rerank_u8(store, rows, byte_query(d))
        assert np.array_equal(products, reference.rerank_u8(store, rows, byte_query(d)))
        assert kernels.rerank_u8(store, rows[:0], byte_query(d)).shape == (0,)

    @pytest.mark.parametrize("by", [1, 4, 63])
    def test_rows_may_lie_at_any_byte(
        self, kernels: Kernels, make_shifted: Shifted, by: int
    ) -> None:
        rows, query = make_shifted(byte_rows(33, 100), by), make_shifted(byte_query(100), by)
        assert np.array_equal(kernels.dot_u8(rows, query), reference.dot_u8(rows, query))
        blocks = make_shifted(reference.pack_u8_blocks(rows), by)
        expected = reference.score_blocks_u8(blocks, query)
        assert np.array_equal(kernels.score_blocks_u8(blocks, query), expected)


class TestExactScores:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("n", COUNTS)
    @pytest.mark.parametrize("d", DIMS)
    def test_equal_the_reference_bit_for_bit(
        self, kernels: Kernels, d: int, n: int, metric: Metric
    ) -> None:
        query = vectors(1, d)[0]
        scores = kernels.exact_scores(vectors(n, d), query, metric)
        assert same_bits(scores, reference.exact_scores(vectors(n, d), query, metric))

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("d", DIMS)
    def test_gathered_rows_equal_the_reference_bit_for_bit(
        self, kernels: Kernels, d: int, metric: Metric
    ) -> None:
        rows = np.random.default_rng(0).integers(0, 200, 77).astype(np.uint32)
        query = vectors(1, d)[0]
        scores = kernels.rerank_f32(vectors(200, d), rows, query, metric)
        assert same_bits(scores, reference.rerank_f32(vectors(200, d), rows, query, metric))

    @pytest.mark.parametrize("metric", METRICS)
    def test_of_zeros_and_of_the_query_itself(self, kernels: Kernels, metric: Metric) -> None:
        """A sum of zeros has one sign on every path."""
        both = np.stack([vectors(1, 31)[0], np.zeros(31, np.float32), -np.zeros(31, np.float32)])
        for query in both:
            scores = kernels.exact_scores(both, query, metric)
            assert same_bits(scores, reference.exact_scores(both, query, metric))

    @pytest.mark.parametrize("by", [4, 12, 60])
    def test_vectors_may_lie_at_any_float(
        self, kernels: Kernels, make_shifted: Shifted, by: int
    ) -> None:
        rows, query = make_shifted(vectors(33, 100), by), make_shifted(vectors(1, 100)[0], by)
        for metric in METRICS:
            scores = kernels.exact_scores(rows, query, metric)
            assert same_bits(scores, reference.exact_scores(rows, query, metric))


class TestExactTopk:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("nq", [1, 3, 4, 30])
    @pytest.mark.parametrize(
        ("n", "d", "k"), [(1, 1, 1), (33, 7, 33), (1000, 31, 10), (5000, 100, 5)]
    )
    def test_finds_what_the_reference_finds(
        self, kernels: Kernels, n: int, d: int, k: int, nq: int, metric: Metric
    ) -> None:
        """One query goes row by row, a batch by blocks; 16 spare candidates absorb rounding."""
        rows, queries = vectors(n, d), vectors(30, d)[:nq]
        scores, found = kernels.exact_topk(rows, queries, k, metric)
        assert scores.dtype == np.float32
        assert found.dtype == np.int64
        expected, _ = reference.exact_topk(rows, queries, k, metric)
        np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
        for i, query in enumerate(queries):
            assert same_bits(scores[i], reference.rerank_f32(rows, found[i], query, metric))
            assert len(set(found[i])) == k
            assert (scores[i][:-1] >= scores[i][1:]).all()

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("nq", [1, 9])
    def test_ties_go_to_the_lower_row(self, kernels: Kernels, nq: int, metric: Metric) -> None:
        """Whole numbers leave no rounding to hide behind: the answers are equal."""
        rows, queries = whole_numbers(5000, 7), whole_numbers(20, 7)[:nq]
        scores, found = kernels.exact_topk(rows, queries, 50, metric)
        expected_scores, expected = reference.exact_topk(rows, queries, 50, metric)
        assert np.array_equal(found, expected)
        assert same_bits(scores, expected_scores)

    @pytest.mark.parametrize("nq", [1, 9])
    def test_of_equal_rows_the_first_ones(self, kernels: Kernels, nq: int) -> None:
        rows = np.tile(vectors(1, 31), (3000, 1))
        _, found = kernels.exact_topk(rows, vectors(20, 31)[:nq], 10, "l2")
        assert (found == np.arange(10)).all()

    @pytest.mark.parametrize("metric", METRICS)
    def test_rows_in_order_of_rising_score(self, kernels: Kernels, metric: Metric) -> None:
        """The worst case of a threshold: every row is better than all before it."""
        steps = np.linspace(-1, 0, 4000, dtype=np.float32)[:, None]
        queries = np.ones((5, 1), np.float32)
        _, found = kernels.exact_topk(steps, queries, 7, metric)
        assert (found == np.arange(3999, 3992, -1)).all()

    @pytest.mark.parametrize("nq", [2, 9, 40])
    def test_threads_change_nothing(self, kernels: Kernels, nq: int) -> None:
        rows, queries = whole_numbers(900, 8), whole_numbers(40, 8)[:nq]
        scores, found = kernels.exact_topk(rows, queries, 10, "dot")
        threaded_scores, threaded = kernels.exact_topk(rows, queries, 10, "dot", threads=3)
        assert np.array_equal(found, threaded)
        assert same_bits(scores, threaded_scores)
