"""Appending to growable lists: the arena afterwards, byte for byte.

    kernels.append_codes -> [test_append.py] <- reference.append_codes

What the reference itself does is held against a list of lists in tests/index/test_lists.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import BLOCK, I32, I64, LINE, U8, U32


@dataclass
class Arena:
    """What append_codes changes in place, and how much of it is taken."""

    start: I64
    count: I32
    room: I64
    codes: U8
    rows: U32
    used: int = 0

    def append(self, kernels: Any, parts: I32, rows: U32, codes: U8) -> int:
        """Returns how many were appended."""
        lists = (self.start, self.count, self.room)
        appended, self.used = kernels.append_codes(
            *lists, self.used, self.codes, self.rows, parts, rows, codes
        )
        return int(appended)

    def copy(self) -> Arena:
        return copy.deepcopy(self)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Arena)
        return self.used == other.used and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("start", "count", "room", "codes", "rows")
        )


def make_arena(nlist: int, m: int, nblock: int) -> Arena:
    """Empty lists without room, in an arena full of rubbish."""
    rng = np.random.default_rng(nblock)
    return Arena(
        np.zeros(nlist, np.int64),
        np.zeros(nlist, np.int32),
        np.zeros(nlist, np.int64),
        rng.integers(0, 256, (nblock, m // 8, LINE)).astype(np.uint8),
        rng.integers(0, 2**32, nblock * BLOCK).astype(np.uint32),
    )


def draw(n: int, nlist: int, m: int, seed: int = 0) -> tuple[I32, U32, U8]:
    """n random pairs; the lower a list the more it gets."""
    rng = np.random.default_rng([n, seed])
    parts = np.minimum(rng.geometric(2 / nlist, n) - 1, nlist - 1).astype(np.int32)
    rows = rng.integers(0, 2**32, n).astype(np.uint32)
    return parts, rows, rng.integers(0, 16, (n, m)).astype(np.uint8)


class TestAppendCodes:
    @pytest.mark.parametrize("m", [8, 16, 56, 264])
    def test_equals_the_reference_byte_for_byte(self, kernels: Kernels, m: int) -> None:
        """Lists move several times; blocks that nobody owns keep their rubbish."""
        arena = make_arena(30, m, 600)
        expected = arena.copy()
        for i, n in enumerate((1, 0, 15, 16, 17, 400, 1000)):
            new = draw(n, 30, m, i)
            assert arena.append(kernels, *new) == n
            assert expected.append(reference, *new) == n
            assert arena == expected
        assert expected.count.max() > 5 * BLOCK
        assert (expected.count == 0).any() or expected.count.min() < BLOCK

    def test_stops_where_the_arena_is_full(self, kernels: Kernels) -> None:
        """What was appended until then stays; the rest can follow into a bigger arena."""
        arena, (parts, rows, codes) = make_arena(30, 8, 20), draw(900, 30, 8)
        expected, done, stops = arena.copy(), 0, 0
        while True:
            some = arena.append(kernels, parts[done:], rows[done:], codes[done:])
            assert some == expected.append(reference, parts[done:], rows[done:], codes[done:])
            assert arena == expected
            done += some
            if done == len(parts):
                break
            stops += 1
            for full in (arena, expected):
                full.codes = np.concatenate([full.codes, np.zeros((20, 1, LINE), np.uint8)])
                full.rows = np.concatenate([full.rows, np.zeros(20 * BLOCK, np.uint32)])
        assert stops > 2
        assert arena.count.sum() == 900

    def test_codes_and_rows_are_read_back_in_order(self, kernels: Kernels) -> None:
        """By unpack_codes, so that a mistake of the reference would be seen as well."""
        arena, (parts, rows, codes) = make_arena(30, 16, 600), draw(900, 30, 16)
        arena.append(kernels, parts, rows, codes)
        for part in range(30):
            start, count = int(arena.start[part]), int(arena.count[part])
            blocks = arena.codes[start : start + -(-count // BLOCK)]
            whole = reference.unpack_codes(blocks, len(blocks) * BLOCK)
            assert np.array_equal(whole[:count], codes[parts == part])
            assert not whole[count:].any()
            held = arena.rows[start * BLOCK : (start + len(blocks)) * BLOCK]
            assert np.array_equal(held[:count], rows[parts == part])
            assert not held[count:].any()
