"""Packed 4-bit codes: their order in memory, and the scan over them.

    kernels.{pack_codes, unpack_codes, lut16_sums, lut16_topk} -> [test_codes.py] <- reference.py

Everything here is an integer, so everything is compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import I32, U8

SUBSPACES = [8, 16, 56, 96, 264, 1024]  # the 16-bit sums of AVX2 and NEON are flushed past 256
COUNTS = [0, 1, 15, 16, 17, 33, 1000]
TABLES = ["random", "full", "zero", "few"]


@cache
def random_codes(n: int, m: int) -> U8:
    return np.random.default_rng([n, m]).integers(0, 16, (n, m)).astype(np.uint8)


@cache
def packed_codes(n: int, m: int) -> U8:
    """Packed codes whose padding is not the zeros of pack_codes: readers must not rely on it."""
    filled = np.random.default_rng(0).integers(0, 16, (-(-n // 16) * 16, m)).astype(np.uint8)
    filled[:n] = random_codes(n, m)
    return reference.pack_codes(filled)


@cache
def tables(m: int, kind: str) -> U8:
    """(m, 16) tables: any bytes, all 255, all 0, or bytes so few that sums tie."""
    rng = np.random.default_rng(m)
    return {
        "random": rng.integers(0, 256, (m, 16)),
        "full": np.full((m, 16), 255),
        "zero": np.zeros((m, 16)),
        "few": rng.integers(0, 2, (m, 16)) * (rng.random((m, 1)) < 4 / m),
    }[kind].astype(np.uint8)


@cache
def expected_sums(n: int, m: int, kind: str) -> I32:
    """What reference.lut16_sums says; the plain double loop says it too, see below."""
    return reference.lut16_sums(packed_codes(n, m), n, tables(m, kind))


class TestLayout:
    def test_a_byte_holds_two_codes_of_one_vector(self, kernels: Kernels) -> None:
        """layout.py in words: byte 4*i + L of line g has sub-spaces 8*g + L and 8*g + 4 + L."""
        codes = random_codes(33, 56)
        packed = kernels.pack_codes(codes)
        assert packed.shape == (3, 7, 64)
        for vector, g, at in [(0, 0, 0), (15, 6, 3), (16, 3, 2), (31, 0, 1), (32, 5, 0)]:
            byte = packed[vector // 16, g, 4 * (vector % 16) + at]
            assert byte & 15 == codes[vector, 8 * g + at]
            assert byte >> 4 == codes[vector, 8 * g + 4 + at]

    @pytest.mark.parametrize("n", COUNTS)
    def test_unpacking_gives_the_codes_back(self, kernels: Kernels, n: int) -> None:
        codes = random_codes(n, 16)
        assert np.array_equal(kernels.unpack_codes(kernels.pack_codes(codes), n), codes)

    def test_the_reference_is_the_double_loop(self) -> None:
        """The oracle of this file, checked once against the definition itself."""
        codes, lut = random_codes(17, 56), tables(56, "random")
        sums = [sum(int(lut[b, code]) for b, code in enumerate(row)) for row in codes]
        assert expected_sums(17, 56, "random").tolist() == sums


class TestLut16Sums:
    @pytest.mark.parametrize("kind", TABLES)
    @pytest.mark.parametrize("n", COUNTS)
    @pytest.mark.parametrize("m", SUBSPACES)
    def test_lut16_equals_the_scalar_reference_bit_for_bit(
        self, kernels: Kernels, m: int, n: int, kind: str
    ) -> None:
        sums = kernels.lut16_sums(packed_codes(n, m), n, tables(m, kind))
        assert sums.dtype == np.int32
        assert np.array_equal(sums, expected_sums(n, m, kind))

    @pytest.mark.parametrize("m", SUBSPACES)
    def test_the_greatest_sum_does_not_overflow(self, kernels: Kernels, m: int) -> None:
        """Codes 15 and tables of 255 are the most that a 16-bit lane is ever asked to hold."""
        packed = np.full((2, m // 8, 64), 255, np.uint8)
        assert (kernels.lut16_sums(packed, 32, tables(m, "full")) == 255 * m).all()

    @pytest.mark.parametrize("by", [1, 4, 32, 63])
    def test_codes_may_lie_at_any_byte(
        self,
        kernels: Kernels,
        make_shifted: Callable[[npt.NDArray[np.uint8], int], U8],
        by: int,
    ) -> None:
        """A list in a mapped file starts where it starts."""
        packed, lut = make_shifted(packed_codes(33, 56), by), make_shifted(tables(56, "random"), by)
        assert np.array_equal(kernels.lut16_sums(packed, 33, lut), expected_sums(33, 56, "random"))


class TestLut16Topk:
    @pytest.mark.parametrize("kind", TABLES)
    @pytest.mark.parametrize(("n", "keep"), [(1, 1), (17, 5), (33, 33), (1000, 10), (1000, 999)])
    @pytest.mark.parametrize("m", [8, 56, 264])
    def test_equals_the_reference_ties_included(
        self, kernels: Kernels, m: int, n: int, keep: int, kind: str
    ) -> None:
        """Among equal keys the earlier position stays, so that every machine keeps the same."""
        packed, lut = packed_codes(n, m), tables(m, kind)
        keys, positions = kernels.lut16_topk(packed, n, lut, -7, keep)
        expected_keys, expected_positions = reference.lut16_topk(packed, n, lut, -7, keep)
        assert keys.dtype == positions.dtype == np.int32
        assert np.array_equal(positions, expected_positions)
        assert np.array_equal(keys, expected_keys)

    @pytest.mark.parametrize(("n", "keep"), [(0, 1), (1, 100), (33, 34), (1000, 5000)])
    def test_keeps_all_where_there_are_no_more(self, kernels: Kernels, n: int, keep: int) -> None:
        keys, positions = kernels.lut16_topk(packed_codes(n, 16), n, tables(16, "random"), 0, keep)
        assert np.array_equal(positions, np.arange(n))
        assert np.array_equal(keys, expected_sums(n, 16, "random"))

    @pytest.mark.parametrize("bias", [-(2**31), -(2**29), 2**29, 2**31 - 1 - 255 * 16])
    def test_takes_a_bias_of_any_size(self, kernels: Kernels, bias: int) -> None:
        """The bias is a partition's whole score in table units, not a small correction."""
        packed, lut = packed_codes(1000, 16), tables(16, "random")
        keys, positions = kernels.lut16_topk(packed, 1000, lut, bias, 20)
        expected_keys, expected_positions = reference.lut16_topk(packed, 1000, lut, bias, 20)
        assert np.array_equal(positions, expected_positions)
        assert np.array_equal(keys, expected_keys)

    @pytest.mark.parametrize("falling", [False, True], ids=["rising", "falling"])
    def test_the_order_of_arrival_does_not_matter(self, kernels: Kernels, falling: bool) -> None:
        """Rising keys are the worst case: every code beats the threshold, the pool fills often."""
        rank = np.arange(4096)[::-1] if falling else np.arange(4096)
        codes = np.zeros((4096, 8), np.uint8)
        lut = np.zeros((8, 16), np.uint8)
        for digit in range(2):  # the low byte of the rank, in base 16
            codes[:, digit] = rank >> (4 * digit) & 15
            lut[digit] = np.arange(16) << (4 * digit)
        keys, positions = kernels.lut16_topk(kernels.pack_codes(codes), 4096, lut, 0, 50)
        expected_keys, expected_positions = reference.lut16_topk(
            reference.pack_codes(codes), 4096, lut, 0, 50
        )
        assert np.array_equal(positions, expected_positions)
        assert np.array_equal(keys, expected_keys)
