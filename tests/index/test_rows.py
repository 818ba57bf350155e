"""Rows: always dense, whatever is added and removed; ids found after every change.

soardb/index/rows.py -> [test_rows.py]
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb import CorruptStorage, InvalidArgument
from soardb.index.rows import Rows

TOP = 2**63 - 1


def make(n: int, ids: list[int] | None = None) -> Rows:
    """n rows whose every array tells the id: vectors, 8-bit copies, biases."""
    rows = Rows(2, stride=4, has_bias=True)
    put(rows, np.arange(n) if ids is None else np.array(ids))
    return rows


def put(rows: Rows, ids: np.ndarray) -> np.ndarray:
    ids = ids.astype(np.int64)
    vectors = np.stack([ids, -ids], axis=1).astype(np.float32)
    store = np.repeat((ids % 251)[:, None], 4, axis=1).astype(np.uint8)
    return rows.append(vectors, ids, store, (ids / 2).astype(np.float32))


def agrees(rows: Rows) -> bool:
    """Whether all arrays still speak of the same ids, and each id is found at its row."""
    ids = rows.ids
    return (
        np.array_equal(rows.vectors[:, 0], ids)
        and np.array_equal(rows.vectors[:, 1], -ids)
        and np.array_equal(rows.store[:, 3], ids % 251)
        and np.array_equal(rows.store_bias, ids / 2)
        and np.array_equal(rows.find(ids), np.arange(len(rows)))
    )


class TestAppend:
    def test_rows_are_numbered_on(self) -> None:
        """The row numbers that lists will hold."""
        rows = make(3)
        assert put(rows, np.array([7, 9])).tolist() == [3, 4]
        assert len(rows) == 5
        assert agrees(rows)

    def test_arrays_grow_by_half(self) -> None:
        """Adding one by one copies each row a bounded number of times; room is accounted for."""
        rows = Rows(2, stride=4, has_bias=True)
        sizes = set()
        for i in range(1000):
            put(rows, np.array([i]))
            sizes.add(rows.memory()["vectors"])
        assert agrees(rows)
        assert len(sizes) < 20
        assert rows.memory()["vectors"] < 1.51 * rows.vectors.nbytes

    def test_the_first_rows_take_no_spare_room(self) -> None:
        """A collection that is loaded once pays for nothing else."""
        assert make(1001).memory() == {
            "vectors": 1001 * 8,
            "ids": 1001 * 8,
            "store": 1001 * 4,
            "store_bias": 1001 * 4,
            "lookup": 0,
        }

    def test_parts_may_be_absent(self) -> None:
        """An exact index has vectors and ids alone."""
        rows = Rows(2)
        rows.append(np.ones((3, 2), np.float32), np.arange(3))
        assert rows.store.shape == (0, 0)
        assert rows.store_bias.shape == (0,)
        rows.remove(np.array([0]))
        assert rows.ids.tolist() == [2, 1]


class TestNewIds:
    def test_numbers_go_on_from_the_highest(self) -> None:
        """Not from the count: an id that was removed last may come again, no other."""
        rows = make(3, [5, 90, 7])
        assert rows.new_ids(None, 2).tolist() == [91, 92]
        rows.remove(rows.find(np.array([90])))
        assert rows.new_ids(None, 1).tolist() == [8]
        assert Rows(2).new_ids(None, 2).tolist() == [0, 1]

    def test_there_is_an_end_of_numbers(self) -> None:
        """After the highest id of all there is none to give."""
        assert make(1, [TOP - 2]).new_ids(None, 2).tolist() == [TOP - 1, TOP]
        for highest, n in ((TOP, 1), (TOP - 2, 3)):
            with pytest.raises(
                InvalidArgument, match=rf"above the highest id, {highest}; pass ids"
            ):
                Rows.new_ids(_with_id(highest), None, n)
        assert len(_with_id(TOP).new_ids(None, 0)) == 0

    def test_given_ones_must_be_new_and_distinct(self) -> None:
        """The message names the id."""
        rows = make(5)
        assert rows.new_ids(np.array([9, 8]), 2).tolist() == [9, 8]
        with pytest.raises(InvalidArgument, match="got 9 twice in one call"):
            rows.new_ids(np.array([9, 8, 9]), 3)
        with pytest.raises(InvalidArgument, match="got 3; remove it first"):
            rows.new_ids(np.array([9, 3]), 2)


def _with_id(i: int) -> Rows:
    rows = Rows(2)
    rows.append(np.zeros((1, 2), np.float32), np.array([i]))
    return rows


class TestRemove:
    def test_the_last_rows_fill_the_holes(self) -> None:
        """And remove() says which moved where."""
        rows = make(8)
        moved_from, moved_to = rows.remove(np.array([1, 6, 3]))
        assert (moved_from.tolist(), moved_to.tolist()) == ([5, 7], [1, 3])
        assert rows.ids.tolist() == [0, 5, 2, 7, 4]
        assert agrees(rows)

    def test_the_last_ones_leave_no_hole(self) -> None:
        """Nothing moves."""
        rows = make(6)
        moved_from, moved_to = rows.remove(np.array([5, 4]))
        assert len(moved_from) == len(moved_to) == 0
        assert rows.ids.tolist() == [0, 1, 2, 3]

    def test_all_and_none(self) -> None:
        """Both ends."""
        rows = make(4)
        rows.remove(np.empty(0, np.int64))
        assert len(rows) == 4
        rows.remove(np.arange(4))
        assert len(rows) == 0
        put(rows, np.array([3, 1]))
        assert rows.ids.tolist() == [3, 1]
        assert agrees(rows)


class TestFind:
    def test_what_is_not_held_is_minus_one(self) -> None:
        """Below, between and above the held ones; before any, too."""
        rows = make(3, [10, 5, 20])
        assert rows.find(np.array([20, 0, 5, 7, 99, TOP])).tolist() == [2, -1, 1, -1, -1, -1]
        assert Rows(2).find(np.array([0])).tolist() == [-1]
        assert rows.find(np.empty(0, np.int64)).shape == (0,)

    def test_an_id_that_comes_back_is_found_at_its_new_row(self) -> None:
        """The order of before knows an old row for it."""
        rows = make(5)
        rows.find(np.array([0]))  # makes the order
        rows.remove(np.array([0]))
        assert rows.find(np.array([0])).tolist() == [-1]
        put(rows, np.array([0]))
        assert rows.find(np.array([0, 4])).tolist() == [4, 0]
        assert agrees(rows)

    @pytest.mark.parametrize("batch", [1, 7, 600])
    def test_equals_a_dictionary_after_many_changes(self, batch: int) -> None:
        """Small batches go through the list of recent changes, big ones make the order anew."""
        rng = np.random.default_rng(batch)
        rows, truth = Rows(2, stride=4, has_bias=True), set[int]()
        for _ in range(60):
            fresh = np.setdiff1d(rng.integers(0, 5000, batch), np.array(sorted(truth), np.int64))
            put(rows, rng.permutation(fresh))
            truth |= set(fresh.tolist())
            asked = np.unique(rng.integers(0, 5000, batch))
            found = rows.find(asked)
            assert ((found >= 0) == [i in truth for i in asked.tolist()]).all()
            rows.remove(found[found >= 0])
            truth -= set(asked.tolist())
            assert set(rows.ids.tolist()) == truth
            assert agrees(rows)


class TestStored:
    def test_comes_back_as_it_was(self) -> None:
        """Spare room is not saved; what is loaded can grow."""
        rows = make(10)
        put(rows, np.array([30]))
        rows.remove(np.array([2, 5]))
        loaded = Rows.of({name: array.copy() for name, array in rows.arrays().items()}, 2, 4, True)
        assert loaded.ids.tolist() == rows.ids.tolist()
        put(loaded, np.array([40, 41]))
        assert agrees(loaded)

    def test_no_rows_keep_their_parts(self) -> None:
        """An index that was saved empty has biases when it is filled later."""
        empty = Rows(2, stride=4, has_bias=True)
        loaded = Rows.of(empty.arrays(), 2, 4, True)
        put(loaded, np.array([3, 4]))
        assert agrees(loaded)

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            ("vectors", np.zeros((3, 2), np.float32)),
            ("vectors", np.zeros((4, 3), np.float32)),
            ("vectors", np.zeros((4, 2))),
            ("vectors", np.zeros(8, np.float32)),
            ("ids", np.zeros(5, np.int64)),
            ("ids", np.zeros(4, np.int32)),
            ("ids", np.zeros((4, 1), np.int64)),
            ("store", np.zeros((4, 3), np.uint8)),
            ("store", np.zeros((0, 4), np.uint8)),
            ("store_bias", np.zeros(0, np.float32)),
            ("store_bias", np.zeros(5, np.float32)),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, name: str, array: np.ndarray) -> None:
        """A kernel would read beyond them."""
        arrays = make(4).arrays() | {name: array}
        with pytest.raises(CorruptStorage, match="expected array"):
            Rows.of(arrays, 2, 4, True)

    def test_parts_that_should_not_be_are_refused(self) -> None:
        """Biases belong to l2 alone."""
        with pytest.raises(CorruptStorage, match="'store_bias' of shape \\(0,\\)"):
            Rows.of(make(4).arrays(), 2, 4)
