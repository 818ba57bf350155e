"""The packed codes of the partitions: growing, shrinking, moving, saved without gaps.

soardb/index/lists.py -> [test_lists.py]
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb import CorruptStorage
from soardb.index.lists import CodeLists
from soardb.kernels.layout import BLOCK
from soardb.kernels.reference import unpack_codes

Model = list[list[tuple[int, tuple[int, ...]]]]


def draw(rng: np.random.Generator, n: int, m: int = 16) -> np.ndarray:
    """(n, m) random 4-bit codes."""
    return rng.integers(0, 16, (n, m)).astype(np.uint8)


def contents(lists: CodeLists) -> Model:
    """(row, code) pairs of every list, in order."""
    return [
        [
            (int(row), tuple(code))
            for row, code in zip(
                lists.list_rows(part).tolist(), lists.list_codes(part).tolist(), strict=True
            )
        ]
        for part in range(len(lists.count))
    ]


def reload(lists: CodeLists, n: int) -> CodeLists:
    """Saved and mapped again."""
    start, count, codes, rows = lists.packed()
    return CodeLists.of(start.copy(), count.copy(), codes.copy(), rows.copy(), n)


class Pair:
    """Lists and what they should hold."""

    def __init__(self, nlist: int, m: int = 16) -> None:
        self.lists, self.model = CodeLists(nlist, m), Model([] for _ in range(nlist))
        self.m = m

    def append(self, parts: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> None:
        self.lists.append(parts.astype(np.int32), rows.astype(np.uint32), codes)
        for part, row, code in zip(parts.tolist(), rows.tolist(), codes.tolist(), strict=True):
            self.model[part].append((row, tuple(code)))

    def keep(self, part: int, mask: np.ndarray) -> None:
        rows = self.lists.list_rows(part)[mask].copy()
        self.lists.replace(part, mask, rows)
        self.model[part] = [pair for pair, kept in zip(self.model[part], mask, strict=True) if kept]

    def agrees(self) -> bool:
        return contents(self.lists) == self.model and len(self.lists) == sum(map(len, self.model))


class TestAppend:
    @pytest.mark.parametrize("m", [8, 16, 48])
    def test_codes_keep_the_order_in_which_they_came(self, m: int) -> None:
        """In the first call, which builds, and in later ones, which grow."""
        rng, pair = np.random.default_rng(m), Pair(7, m)
        for n in (100, 1, 3, 250, 40):
            pair.append(rng.integers(0, 6, n), rng.integers(0, 9999, n), draw(rng, n, m))
            assert pair.agrees()
        assert pair.lists.m == m

    def test_one_by_one(self) -> None:
        """Lists move to the end of the arena as they outgrow their room; it is packed anew."""
        rng, pair = np.random.default_rng(0), Pair(5)
        for row in range(700):
            pair.append(rng.integers(0, 5, 1), np.array([row]), draw(rng, 1))
        assert pair.agrees()
        used = 700 * (16 // 2 + 4)
        assert sum(pair.lists.memory().values()) < 4 * used  # measured 3.0 times

    def test_nothing(self) -> None:
        """An empty batch is a batch, before and after the first."""
        pair = Pair(3)
        for _ in range(2):
            pair.append(np.empty(0), np.empty(0), np.empty((0, 16), np.uint8))
            assert pair.agrees()
            pair.append(np.array([1, 1]), np.array([4, 5]), draw(np.random.default_rng(0), 2))

    def test_a_pair_in_two_lists(self) -> None:
        """What a spilled vector needs; homes() tells both."""
        rng, pair = np.random.default_rng(0), Pair(4)
        pair.append(np.array([2, 0, 3, 1]), np.array([0, 1, 1, 2]), draw(rng, 4))
        assert pair.lists.homes(3).tolist() == [[2, -1], [0, 3], [1, -1]]

    def test_of_many_equals_one_by_one(self) -> None:
        """A list that takes several codes of one call included; contents alone are compared."""
        rng, at_once, singly = np.random.default_rng(11), Pair(50), Pair(50)
        for n in (30, 500, 2000):
            parts, rows, codes = rng.integers(0, 50, n), rng.integers(0, 99, n), draw(rng, n)
            at_once.append(parts, rows, codes)
            for i in range(n):
                singly.append(parts[i : i + 1], rows[i : i + 1], codes[i : i + 1])
            assert at_once.agrees()
            assert singly.agrees()

    def test_happens_in_place_while_there_is_room(self) -> None:
        """A searcher that holds the arrays sees what was added."""
        rng, lists = np.random.default_rng(12), CodeLists(3, 16)
        parts, rows = np.array([0, 1, 2], np.int32), np.arange(3, dtype=np.uint32)
        lists.append(parts, rows, draw(rng, 3))
        arrays = [lists.start, lists.count, lists.codes, lists.rows]
        for i in range(1, 16):
            lists.append(parts, rows + 3 * i, draw(rng, 3))
        assert all(
            array is now
            for array, now in zip(
                arrays, [lists.start, lists.count, lists.codes, lists.rows], strict=True
            )
        )
        assert lists.count.tolist() == [16, 16, 16]
        lists.append(parts, rows, draw(rng, 3))
        assert lists.codes is not arrays[2]
        assert lists.count.tolist() == [17, 17, 17]

    def test_what_is_left_behind_is_used_again(self) -> None:
        """Lists that move again and again do not make the arena grow without end."""
        rng, pair = np.random.default_rng(13), Pair(40)
        for _ in range(60):
            pair.append(rng.integers(0, 40, 100), rng.integers(0, 99, 100), draw(rng, 100))
        assert pair.agrees()
        blocks = (-(-pair.lists.count // BLOCK)).sum()
        assert len(pair.lists.codes) < 4 * blocks  # measured 2.4

    def test_places_after_the_last_code_hold_nothing(self) -> None:
        """Row 0 and code 0, also where a longer list has stood before."""
        rng, pair = np.random.default_rng(14), Pair(4)
        for _ in range(6):
            pair.append(rng.integers(0, 4, 90), rng.integers(1, 999, 90), draw(rng, 90))
            for part in range(4):
                pair.keep(part, rng.random(len(pair.model[part])) < 0.4)
            pair.append(rng.integers(0, 4, 5), rng.integers(1, 999, 5), draw(rng, 5))
            for part, (start, count) in enumerate(
                zip(pair.lists.start.tolist(), pair.lists.count.tolist(), strict=True)
            ):
                end = start + -(-count // BLOCK)
                assert not pair.lists.rows[start * BLOCK + count : end * BLOCK].any()
                padded = unpack_codes(pair.lists.codes[start:end], (end - start) * BLOCK)
                assert not padded[count:].any(), part


class TestReplace:
    def test_closes_the_gaps(self) -> None:
        """Order stays; the room that was left is used again."""
        rng, pair = np.random.default_rng(1), Pair(4)
        pair.append(rng.integers(0, 4, 300), np.arange(300), draw(rng, 300))
        before = pair.lists.memory()
        for part in range(4):
            pair.keep(part, rng.random(len(pair.model[part])) < 0.5)
        assert pair.agrees()
        pair.append(rng.integers(0, 4, 40), np.arange(300, 340), draw(rng, 40))
        assert pair.agrees()
        assert pair.lists.memory() == before

    def test_a_list_may_become_empty_and_be_filled_again(self) -> None:
        """Also when all of them are: then the arena starts anew."""
        rng, pair = np.random.default_rng(2), Pair(2)
        for _ in range(3):
            pair.append(np.array([0, 0, 1]), np.array([5, 6, 7]), draw(rng, 3))
            pair.keep(0, np.zeros(len(pair.model[0]), bool))
            assert pair.agrees()
            pair.keep(1, np.zeros(len(pair.model[1]), bool))
            assert pair.agrees()
            assert len(pair.lists) == 0

    def test_rows_are_renamed(self) -> None:
        """Rows move when others go; codes stay."""
        rng, lists = np.random.default_rng(3), CodeLists(1, 8)
        codes = draw(rng, 20, 8)
        lists.append(np.zeros(20, np.int32), np.arange(20, dtype=np.uint32), codes)
        lists.replace(0, np.arange(20) != 4, np.arange(100, 119, dtype=np.uint32))
        assert lists.list_rows(0).tolist() == list(range(100, 119))
        assert np.array_equal(lists.list_codes(0), np.delete(codes, 4, axis=0))


class TestRandomHistory:
    @pytest.mark.parametrize("seed", range(4))
    def test_equals_a_list_of_lists(self, seed: int) -> None:
        """Appends, removals and reloads in any order."""
        rng, pair = np.random.default_rng(seed), Pair(6, 8)
        for _ in range(120):
            action = rng.integers(0, 10)
            if action < 6:
                n = int(rng.integers(0, 40))
                parts = np.minimum(rng.geometric(0.5, n) - 1, 5)
                pair.append(parts, rng.integers(0, 1000, n), draw(rng, n, 8))
            elif action < 9:
                part = int(rng.integers(0, 6))
                pair.keep(part, rng.random(len(pair.model[part])) < rng.random())
            else:
                pair.lists = reload(pair.lists, 1000)
            assert pair.agrees()


class TestStored:
    def test_is_saved_without_gaps(self) -> None:
        """Spare room and moved lists leave no trace: the size depends on the contents alone."""
        rng, pair = np.random.default_rng(5), Pair(6)
        for _ in range(30):
            pair.append(rng.integers(0, 6, 9), rng.integers(0, 50, 9), draw(rng, 9))
        start, count, codes, rows = pair.lists.packed()
        blocks = -(-count.astype(int) // BLOCK)
        assert codes.shape == (blocks.sum(), 2, 64)
        assert rows.shape == (blocks.sum() * BLOCK,)
        assert (start == np.cumsum(blocks) - blocks).all()
        pair.lists = reload(pair.lists, 50)
        assert pair.agrees()

    def test_padding_holds_row_zero(self) -> None:
        """So that a row number out of range is found by one look at the array."""
        rng, pair = np.random.default_rng(6), Pair(3)
        pair.append(rng.integers(0, 3, 90), np.arange(910, 1000), draw(rng, 90))
        for part in range(3):
            pair.keep(part, rng.random(len(pair.model[part])) < 0.3)
        _, count, _, rows = pair.lists.packed()
        assert (rows > 0).sum() == count.sum()

    @pytest.mark.parametrize(
        ("name", "at", "value"),
        [
            ("count", 0, -1),
            ("count", 0, 2**31 - 1),
            ("count", 1, 17),
            ("start", 1, 0),
            ("start", 2, 2**62),
            ("start", 0, -1),
            ("start", 1, 2**63 - 1),
            ("rows", 3, 40),
            ("rows", 0, 2**32 - 1),
            ("rows", 15, 40),
        ],
    )
    def test_lists_that_leave_the_arena_are_refused(self, name: str, at: int, value: int) -> None:
        """Counts, starts and rows that a scan would follow out of the arrays."""
        rng, lists = np.random.default_rng(7), CodeLists(3, 8)
        lists.append(
            np.array([0] * 10 + [1] * 16 + [2] * 14, np.int32),
            np.arange(40, dtype=np.uint32),
            draw(rng, 40, 8),
        )
        start, count, codes, rows = lists.packed()
        start, count, rows = start.copy(), count.copy(), rows.copy()
        assert contents(CodeLists.of(start, count, codes, rows, 40)) == contents(lists)
        changed: dict[str, np.ndarray] = {"count": count, "start": start, "rows": rows}
        changed[name][at] = value
        with pytest.raises(CorruptStorage, match="list"):
            CodeLists.of(start, count, codes, rows, 40)

    def test_lists_that_do_not_fill_the_arena_are_refused(self) -> None:
        """Missing and spare blocks."""
        rng, lists = np.random.default_rng(8), CodeLists(2, 8)
        lists.append(np.array([0, 1], np.int32), np.arange(2, dtype=np.uint32), draw(rng, 2, 8))
        start, count, codes, rows = lists.packed()
        for broken in (
            (start, count, codes[:1], rows[:BLOCK]),
            (start, count, codes, rows[:BLOCK]),
            (start[:1], count[:1], codes, rows),
        ):
            with pytest.raises(CorruptStorage, match="fill"):
                CodeLists.of(*broken, 2)
        with pytest.raises(CorruptStorage, match="row 1, the index has 1"):
            CodeLists.of(start, count, codes, rows, 1)

    def test_empty_lists(self) -> None:
        """No rows, no blocks."""
        lists = reload(CodeLists(4, 24), 0)
        assert len(lists) == 0
        assert lists.m == 24
        assert contents(lists) == [[], [], [], []]
