"""Selection and quantized rows: every backend finds the same places and the same bits.

    kernels.{select_topk, bucket_*, ...} -> [test_topk.py] <- topk_reference.py

Scores are drawn so that they tie, are missing, are infinite or come sorted: what a threshold, a
bucket or a sort could get wrong. The specification itself is compared with a plain sort.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import reference, topk_reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I8, U8

KINDS = ["normal", "ties", "equal", "rising", "falling", "holes", "zeros"]
SIZES = [1, 2, 15, 16, 17, 63, 64, 65, 200, 1000, 5003]


def rows_of(kind: str, n: int, nq: int = 3) -> F32:
    """(nq, n) scores of one kind."""
    rng = np.random.default_rng([KINDS.index(kind), n])
    scores = rng.standard_normal((nq, n)).astype(np.float32)
    if kind == "ties":
        scores = rng.integers(-3, 4, (nq, n)).astype(np.float32)
    elif kind == "equal":
        scores[:] = 1.5
    elif kind == "rising":
        scores.sort(axis=1)
    elif kind == "falling":
        scores = -np.sort(scores, axis=1)
    elif kind == "holes":
        values = np.array([np.nan, -np.nan, -np.inf, np.inf, 0, 1, 2e38, -2e38], np.float32)
        scores = rng.choice(values, (nq, n))
    elif kind == "zeros":
        scores = rng.choice(np.array([0.0, -0.0, -1.0], np.float32), (nq, n))
    return np.ascontiguousarray(scores)


def same(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> bool:
    return (
        left.dtype == right.dtype == np.float32
        and left.shape == right.shape
        and np.array_equal(left.view(np.int32), right.view(np.int32))
    )


@pytest.mark.parametrize("kind", KINDS)
class TestSelection:
    @pytest.mark.parametrize("n", SIZES)
    def test_top_k_equals_the_reference(self, kernels: Kernels, n: int, kind: str) -> None:
        """From one score to all of them, in one order."""
        scores = rows_of(kind, n)
        for k in sorted({1, min(n, 7), min(n, 193), n}):
            found, places = kernels.select_topk(scores, k)
            wanted, wanted_places = topk_reference.select_topk(scores, k)
            assert same(found, wanted)
            assert np.array_equal(places, wanted_places)

    @pytest.mark.parametrize("n", [1, 17, 200, 1003])
    def test_buckets_equal_the_reference(self, kernels: Kernels, n: int, kind: str) -> None:
        """Whole registers, tails of rows, and a last row of buckets that is cut short."""
        scores = rows_of(kind, n, 2)
        for buckets in sorted({1, min(n, 5), min(n, 16), min(n, 48), min(n, 77), n}):
            for keep in (1, 2, 5):
                found, places = kernels.bucket_survivors(scores, buckets, keep)
                wanted, wanted_places = topk_reference.bucket_survivors(scores, buckets, keep)
                assert np.array_equal(places, wanted_places)
                assert same(found + np.float32(0), wanted)
                k = min(buckets * keep, 50)
                two = kernels.bucket_topk(scores, buckets, keep, k)
                wanted_two = topk_reference.bucket_topk(scores, buckets, keep, k)
                assert same(two[0], wanted_two[0])
                assert np.array_equal(two[1], wanted_two[1])
                assert np.array_equal(two[2], wanted_two[2])


@cache
def quantized(n: int, d: int, bits: int) -> tuple[U8, F32]:
    """Random codes of n rows in blocks and their scales; padding rows hold rubbish."""
    rng = np.random.default_rng([n, d, bits])
    levels = rng.integers(0, 256 if bits == 8 else 16, (-(-n // 16) * 16, d)).astype(np.uint8)
    if bits == 8:
        blocks = reference.pack_u8_blocks(levels)
        blocks = blocks.reshape(*blocks.shape[:2], 64)
    else:
        padded = np.full((len(levels), -(-d // 8) * 8), 8, np.uint8)
        padded[:, :d] = levels
        blocks = reference.pack_codes(padded)
    scale = rng.choice(np.array([0.5, 1.0, 0.001], np.float32), len(levels))
    return blocks, scale


def byte_queries(nq: int, d: int, bits: int) -> I8:
    width = -(-d // (4 if bits == 8 else 8)) * (4 if bits == 8 else 8)
    queries = np.zeros((nq, width), np.int8)
    queries[:, :d] = np.random.default_rng([nq, d]).integers(-127, 128, (nq, d))
    return queries


@pytest.mark.parametrize("bits", [4, 8])
class TestQuantizedRows:
    @pytest.mark.parametrize("n", [1, 16, 33, 3000])
    @pytest.mark.parametrize("d", [2, 8, 31, 100, 384])
    def test_scores_and_top_k_equal_the_reference(
        self, kernels: Kernels, d: int, n: int, bits: int
    ) -> None:
        """Padding rows never score; a tile's end is no row's end."""
        codes, scale = quantized(n, d, bits)
        queries = byte_queries(5, d, bits)
        scores = kernels.quantized_scores(codes, bits, n, scale, queries)
        assert same(scores, topk_reference.quantized_scores(codes, bits, n, scale, queries))
        for k in sorted({1, min(n, 40), n}):
            found, rows = kernels.quantized_topk(codes, bits, n, scale, queries, k, threads=2)
            wanted, wanted_rows = topk_reference.select_topk(scores, k)
            assert same(found, wanted)
            assert np.array_equal(rows, wanted_rows)

    @pytest.mark.parametrize("level", [0, 255])
    @pytest.mark.parametrize("query", [-127, 127])
    def test_the_greatest_products_are_exact(
        self, kernels: Kernels, query: int, level: int, bits: int
    ) -> None:
        """4096 dimensions at the ends of both ranges fit the integer sums."""
        units = 4096 // (4 if bits == 8 else 8)
        codes = np.full((1, units, 64), level, np.uint8)
        queries = np.full((1, 4096), query, np.int8)
        scale = np.ones(16, np.float32)
        scores = kernels.quantized_scores(codes, bits, 16, scale, queries)
        value = level - 128 if bits == 8 else (level & 15) - 8
        assert (scores == np.float32(4096 * query * value)).all()

    def test_levels_are_where_the_packing_puts_them(self, kernels: Kernels, bits: int) -> None:
        """Against plain products of the rows before they were packed."""
        rng = np.random.default_rng(bits)
        top = 127 if bits == 8 else 7
        rows = rng.integers(-top, top + 1, (37, 24))
        packed = (
            reference.pack_u8_blocks((rows + 128).astype(np.uint8)).reshape(3, 6, 64)
            if bits == 8
            else reference.pack_codes((rows + 8).astype(np.uint8))
        )
        query = rng.integers(-127, 128, (1, 24)).astype(np.int8)
        scores = kernels.quantized_scores(packed, bits, 37, np.ones(48, np.float32), query)
        assert np.array_equal(scores[0], (rows @ query[0].astype(np.int64)).astype(np.float32))


class TestRescoring:
    @pytest.mark.parametrize("d", [2, 31, 128])
    def test_equals_the_reference(self, kernels: Kernels, d: int) -> None:
        """Exact scores in the shared order of additions; rows that are missing stay missing."""
        rng = np.random.default_rng(d)
        vectors = rng.integers(-2, 3, (300, d)).astype(np.float32)  # scores tie
        queries = rng.standard_normal((4, d)).astype(np.float32)
        queries[0] = 1
        chosen = np.stack([rng.permutation(300)[:60] for _ in queries])
        chosen[1, 10:] = -1
        chosen[2, ::3] = -1
        found, rows = kernels.rescore_topk(vectors, queries, chosen, 20, threads=2)
        wanted, wanted_rows = topk_reference.rescore_topk(vectors, queries, chosen, 20)
        assert same(found, wanted)
        assert np.array_equal(rows, wanted_rows)
        assert (rows[1, 10:] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_a_plain_sort(kind: str) -> None:
    """Written once more, so that the specification has a judge too."""
    scores = rows_of(kind, 200)
    found, places = topk_reference.select_topk(scores, 200)
    for q, row in enumerate(scores):
        there = [(-float(x), i) for i, x in enumerate(row) if x > -np.inf]
        assert places[q, : len(there)].tolist() == [i for _, i in sorted(there)]
        assert (places[q, len(there) :] == -1).all()
        assert np.isneginf(found[q, len(there) :]).all()
