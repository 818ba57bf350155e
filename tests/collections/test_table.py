"""The table: which position has which id, row and life, in the base and in the tail.

    soardb/table.py -> [test_table.py]

Ids of strings are found by 64 bits of a hash. Two that collide will not be met in a lifetime of
testing, so the tests make them collide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from soardb import table as tables
from soardb.errors import CorruptStorage
from soardb.table import Table, id_kind_of

INTS = [5, -7, 2**63 - 1, -(2**63), 0, 12, 3, 99]
STRINGS = ["b", "a", "ä", "a\0", "zz", " ", "A", "9" * 512]


def made(ids: Sequence[Any], n_base: int, step: int = 3) -> Table:
    """A table of ids; the first n_base in the base, whose rows are in no order."""
    rows = np.arange(1, len(ids) + 1) * step
    kind = id_kind_of(ids[0])
    base_rows = rows[:n_base][::-1].copy()
    table = Table.of(Table.arrays(base_rows, ids[:n_base], kind), kind) if n_base else Table(None)
    table.append(rows[n_base:], ids[n_base:])
    return table


@pytest.fixture(params=["integers", "strings", "colliding", "all colliding"])
def ids(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Eight ids, in the last cases strings whose keys are equal in twos, or all equal."""
    if request.param == "integers":
        return list(INTS)
    if request.param != "strings":
        divisor = 2 if request.param == "colliding" else 100
        places = {name: i // divisor for i, name in enumerate(STRINGS)}

        def keys(given: Sequence[Any], kind: str) -> np.ndarray:
            return np.array([places.get(name, -5) for name in given], np.int64)

        monkeypatch.setattr(tables, "id_keys", keys)
    return list(STRINGS)


@pytest.mark.parametrize("n_base", [0, 1, 5, 8])
class TestFinding:
    def test_every_id_has_its_position(self, ids: list[Any], n_base: int) -> None:
        """And back, whatever the order of the question."""
        table = made(ids, n_base)
        assert table.find(ids).tolist() == list(range(8))
        assert table.find(ids[::-1]).tolist() == list(range(8))[::-1]
        assert list(table.ids_at(np.array([7, 0, 3]))) == [ids[7], ids[0], ids[3]]
        assert (table.n, table.live, table.tail) == (8, 8, 8 - n_base)

    def test_unknown_ids_have_none(self, ids: list[Any], n_base: int) -> None:
        """Of the same kind, of the other, and none at all."""
        table = made(ids, n_base)
        unknown: list[Any] = [1000, -1] if isinstance(ids[0], int) else ["?", "aa"]
        assert table.find(unknown).tolist() == [-1, -1]
        other: list[Any] = ["1"] if isinstance(ids[0], int) else [1]
        assert table.find(other).tolist() == [-1]
        assert len(table.find([])) == 0

    def test_struck_ids_have_none(self, ids: list[Any], n_base: int) -> None:
        """Their positions and rows stay known, so that a late deletion is understood."""
        table = made(ids, n_base)
        assert table.strike(np.array([1, 6])) == 2
        assert table.strike(np.array([6, 2])) == 1
        assert table.find(ids).tolist() == [0, -1, -1, 3, 4, 5, -1, 7]
        assert table.live == 5
        assert table.live_positions().tolist() == [0, 3, 4, 5, 7]
        assert table.is_live(np.arange(8)).tolist() == [i in (0, 3, 4, 5, 7) for i in range(8)]
        rows = table.rows_at(np.arange(8))
        assert table.positions_of(rows).tolist() == list(range(8))

    def test_an_id_can_come_again(self, ids: list[Any], n_base: int) -> None:
        """Struck, then appended: the new position is the one; and again."""
        table = made(ids, n_base)
        for again in range(3):
            table.strike(table.find([ids[2], ids[7]]))
            table.append(np.array([1000 + 2 * again, 1001 + 2 * again]), [ids[7], ids[2]])
            assert table.find([ids[2], ids[7]]).tolist() == [table.n - 1, table.n - 2]
            assert table.live == 8

    def test_rows_and_positions(self, ids: list[Any], n_base: int) -> None:
        """Rows of the base are in no order; rows that are not there have no position."""
        table = made(ids, n_base)
        rows = table.rows_at(np.arange(8))
        assert sorted(rows.tolist()) == [3 * i for i in range(1, 9)]
        assert table.positions_of(rows[::-1]).tolist() == list(range(8))[::-1]
        assert table.positions_of(np.array([0, 4, 25, 10**12])).tolist() == [-1] * 4

    def test_pages_hold_every_live_one_once(self, ids: list[Any], n_base: int) -> None:
        """Whatever the page size, with ids that collide and ids that are struck, in one order."""
        table = made(ids, n_base)
        table.strike(np.array([2]))
        orders = []
        for size in (1, 2, 3, 8, 20):
            found: list[Any] = []
            after = None
            while len(page := table.page(after, size, None)):
                found += list(table.ids_at(page))
                after = found[-1]
                assert len(found) < 8, "a page began again"
            orders.append(found)
            assert sorted(found) == sorted(ids[:2] + ids[3:])
        assert all(order == orders[0] for order in orders)
        if isinstance(ids[0], int):
            assert orders[0] == sorted(orders[0])

    def test_pages_under_a_mask(self, ids: list[Any], n_base: int) -> None:
        """A filter's matches alone."""
        table = made(ids, n_base)
        mask = np.arange(8) % 2 == 1
        first = table.page(None, 2, mask)
        rest = table.page(table.ids_at(first)[-1], 10, mask)
        assert sorted([*first.tolist(), *rest.tolist()]) == [1, 3, 5, 7]


class TestGrowing:
    @pytest.mark.parametrize("n_base", [0, 7, 8, 9])
    def test_bits_stay_right_while_it_grows(self, n_base: int) -> None:
        """The bitmap is made anew now and then; struck stays struck, new is live."""
        rng = np.random.default_rng(1)
        ids = list(range(n_base))
        table = made(ids, n_base) if n_base else Table(None)
        alive = [True] * n_base
        row = 10**6
        for _ in range(60):
            m = int(rng.integers(0, 700))
            new = list(range(table.n, table.n + m))
            table.append(np.arange(row, row + m), new)
            row += m
            alive += [True] * m
            if alive:
                gone = np.unique(rng.integers(0, len(alive), 50))
                expected = sum(alive[i] for i in gone)
                assert table.strike(gone) == expected
                for i in gone.tolist():
                    alive[i] = False
        assert table.live == sum(alive)
        assert table.alive_mask().tolist() == alive
        bits = table.alive
        assert bits is not None
        assert np.unpackbits(bits, count=table.n, bitorder="little").tolist() == alive
        assert table.find(list(range(table.n))).tolist() == [
            i if is_alive else -1 for i, is_alive in enumerate(alive)
        ]

    def test_all_live_needs_no_bitmap(self) -> None:
        """None lets the kernels skip the look."""
        table = made(INTS, 4)
        assert table.alive is None
        table.strike(np.array([0]))
        assert table.alive is not None

    def test_appending_nothing_changes_nothing(self) -> None:
        """Not even the kind of an empty table."""
        table = Table(None)
        assert len(table.append(np.empty(0, np.int64), [])) == 0
        assert table.kind is None


class TestPagesWhileGrowing:
    def test_what_came_behind_the_token_is_not_missed(self) -> None:
        """The sorted tail is made anew when it has grown."""
        table = made(INTS, 4)
        first = list(table.ids_at(table.page(None, 3, None)))
        table.append(np.array([500, 501]), [first[-1] + 1, -(2**62)])
        rest = list(table.ids_at(table.page(first[-1], 100, None)))
        assert first[-1] + 1 in rest
        assert (-(2**62) in rest) == (first[-1] < -(2**62))
        assert rest == sorted(rest)


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "spoil"),
        [
            ("rows", lambda a: a[:-1]),
            ("row_order", lambda a: np.full_like(a, 8)),
            ("id_order", lambda a: np.full_like(a, 2**31)),
            ("id_keys", lambda a: a.astype(np.int32)),
            ("id_offsets", lambda a: a[::-1].copy()),
            ("id_offsets", lambda a: a + 1),
            ("id_bytes", lambda a: a[:-1]),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, name: str, spoil: Any) -> None:
        """A file with a right checksum may still be no table of ours."""
        arrays = Table.arrays(np.arange(8), STRINGS, "str")
        arrays[name] = spoil(arrays[name])
        with pytest.raises(CorruptStorage):
            Table.of(arrays, "str")
