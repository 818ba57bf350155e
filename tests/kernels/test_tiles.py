"""All rows against many queries from bytes, and the float32 scores of what comes out.

    reference.topk_u8, rescore, store_error -> [test_tiles.py] <- native/src/batch.cpp, tiles_*.cpp

Integers, rows and counts must be the reference's bit for bit, at every level of the machine, for
any number of threads. Sizes lie on both sides of a block of 16 rows, a panel of 16 queries, a tile
of 64 bytes, what is gathered at once (256) and what gets a start threshold from a sample (16,384).
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I8, U8, Metric

SHAPES = [
    # n, d, stride, nq, keep
    (1, 1, 16, 1, 1),
    (15, 7, 16, 3, 40),
    (16, 64, 64, 16, 5),
    (257, 100, 128, 17, 10),
    (1000, 50, 64, 33, 20),
    (2049, 96, 96, 5, 12),
    (600, 300, 304, 20, 16),
    (40, 1500, 1504, 18, 40),
    (20_011, 31, 32, 35, 9),
]


def rows_and_queries(n: int, d: int, stride: int, nq: int) -> tuple[U8, I8, F32]:
    """Random rows, the second half of them again the first, queries and steps."""
    rng = np.random.default_rng(n + d)
    store = rng.integers(0, 256, (n, stride), dtype=np.uint8)
    store[n // 2 :] = store[: n - n // 2]
    codes = rng.integers(-127, 128, (nq, d)).astype(np.int8)
    codes[-1] = 0
    steps = (rng.random(nq) * 0.01).astype(np.float32)
    steps[-1] = 0
    return store, codes, steps


class TestTopkU8:
    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("has_bias", [False, True])
    @pytest.mark.parametrize(("n", "d", "stride", "nq", "keep"), SHAPES)
    def test_equals_the_reference(
        self,
        kernels: Kernels,
        n: int,
        d: int,
        stride: int,
        nq: int,
        keep: int,
        has_bias: bool,
        threads: int,
    ) -> None:
        """Every row stands twice: the lower of two equals wins, however rows are dealt out."""
        store, codes, steps = rows_and_queries(n, d, stride, nq)
        bias = np.random.default_rng(1).random(n).astype(np.float32) if has_bias else None
        if bias is not None:
            bias[n // 2 :] = bias[: n - n // 2]
        got = kernels.topk_u8(store, codes, steps, keep, bias=bias, threads=threads)
        expected = reference.topk_u8(store, codes, steps, keep, bias=bias)
        for array, oracle in zip(got, expected, strict=True):
            np.testing.assert_array_equal(array, oracle)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 1.0])
    @pytest.mark.parametrize("first", [0, 5, 1024])
    def test_only_rows_of_the_bitmap_take_part(
        self, kernels: Kernels, first: int, share: float
    ) -> None:
        """The bitmap counts from row 0, the segment from `first`; what is missing is counted."""
        store, codes, steps = rows_and_queries(3000, 40, 48, 19)
        rng = np.random.default_rng(2)
        allowed = np.packbits(rng.random(first + 2900) < share, bitorder="little")
        got = kernels.topk_u8(store, codes, steps, 25, first=first, allowed=allowed, threads=2)
        expected = reference.topk_u8(store, codes, steps, 25, first=first, allowed=allowed)
        for array, oracle in zip(got, expected, strict=True):
            np.testing.assert_array_equal(array, oracle)
        assert (
            got[2]
            <= reference.is_allowed(np.arange(first, first + 3000, dtype=np.uint32), allowed).sum()
        ).all()

    def test_reads_mapped_rows_at_any_address(self, kernels: Kernels) -> None:
        """A file's array need not start at a cache line."""
        store, codes, steps = rows_and_queries(500, 70, 80, 20)
        room = np.empty(store.size + 3, np.uint8)
        moved = room[3:].reshape(store.shape)
        moved[:] = store
        moved.flags.writeable = False
        got = kernels.topk_u8(moved, codes, steps, 9)
        np.testing.assert_array_equal(got[1], reference.topk_u8(store, codes, steps, 9)[1])

    def test_extreme_bytes_do_not_saturate(self, kernels: Kernels) -> None:
        """0 and 255 against -127 and 127, where pairwise sums exceed 16 bits."""
        store = np.repeat(np.array([[0], [255], [128]], np.uint8), 128, axis=1)
        codes = np.repeat(np.array([[127], [-127]], np.int8), 128, axis=1)
        keys, rows, _ = kernels.topk_u8(store, codes, np.ones(2, np.float32), 3)
        assert keys.tolist() == [
            [-128 * 127 * 128, 127 * 127 * 128, 0],
            [128 * 127 * 128, -127 * 127 * 128, 0],
        ]
        assert rows.tolist() == [[0, 1, 2]] * 2


class TestRescore:
    @pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
    @pytest.mark.parametrize("n_delta", [0, 40])
    def test_equals_the_reference(self, kernels: Kernels, metric: Metric, n_delta: int) -> None:
        """Scores bit for bit, rows and proofs; some queries lack candidates, some are unproven."""
        rng = np.random.default_rng(3)
        n, d, nq, room, k = 300, 37, 50, 60, 7
        everything = rng.standard_normal((n + n_delta, d)).astype(np.float32)
        everything[5] = everything[6]
        queries = rng.standard_normal((nq, d)).astype(np.float32)
        rows = np.stack([rng.permutation(n + n_delta)[:room] for _ in range(nq)]).astype(np.uint32)
        counts = rng.integers(0, room + 1, nq)
        exact = np.stack(
            [reference.exact_scores(everything[rows[i]], queries[i], metric) for i in range(nq)]
        )
        bounds = exact + rng.random(exact.shape)
        rest = np.where(counts < room, -np.inf, bounds.min(axis=1))
        rest[::3] = 1e9
        given = (everything[:n], everything[n:], queries, metric, rows, bounds, counts, rest, k)
        got = kernels.rescore(*given, threads=2)
        for array, oracle in zip(got, reference.rescore(*given), strict=True):
            np.testing.assert_array_equal(array, oracle)
        assert 0 < got[2].sum() < nq

    def test_an_equal_bound_proves_nothing(self, kernels: Kernels) -> None:
        """A row left out might score the same and be the lower one."""
        vectors, query = np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32)
        rows, bounds = np.array([[1]], np.uint32), np.array([[1.0]])
        for rest, is_proven in ((1.0, False), (np.nextafter(1.0, 0), True)):
            *_, proven = kernels.rescore(
                vectors,
                vectors[:0],
                query,
                "dot",
                rows,
                bounds,
                np.array([1]),
                np.array([rest]),
                1,
            )
            assert proven.tolist() == [is_proven]


class TestStoreError:
    @pytest.mark.parametrize(("n", "d"), [(0, 5), (1, 1), (5000, 33)])
    def test_is_the_largest_of_all_rows(self, kernels: Kernels, n: int, d: int) -> None:
        """Rounding may differ in the last places, which the bound has room for."""
        rng = np.random.default_rng(4)
        vectors = rng.standard_normal((n, d)).astype(np.float32)
        mean, offset = (rng.random(d).astype(np.float32) for _ in range(2))
        scale = np.full(d, 0.03, np.float32)
        store = rng.integers(0, 256, (n, d + 3), dtype=np.uint8)
        levels = store[:, :d].astype(np.float64) - 128
        got = kernels.store_error(vectors, mean, store, scale, offset, threads=2)
        expected = [
            np.linalg.norm(part, axis=1).max(initial=0)
            for part in (vectors - mean - (offset + scale * levels), levels, vectors - mean)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
