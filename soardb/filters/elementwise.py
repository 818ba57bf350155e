"""Tests of single values: numbers, booleans and places, each row by itself.

    expr.Leaf, column.py -> [elementwise.py] -> leaves.py

A test names the arrays that it reads and a function from them to flags; so it can be asked of all
rows, or of a few that were gathered. It is never true of a null. The negation of a test is where it
is *false*, which a null is not either.

Numbers compare exactly, as if they were real numbers: an int field with 10.5, a float field with
2**53 + 1. Such values are turned into a comparison that the machine can do without rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb import deadline
from soardb.filters.column import NO_FLAG, Column, Flags, Floats, Longs, Places, Texts
from soardb.filters.expr import Compare, In, Leaf, Op, WithinBox, WithinRadius
from soardb.filters.grown import Array, Grown
from soardb.filters.keywords import KeywordLists, Keywords
from soardb.filters.matched import Bools
from soardb.kernels.layout import I64

__all__ = [
    "EARTH_RADIUS_METRES",
    "OPPOSITE",
    "Test",
    "false_of",
    "known",
    "negated",
    "test_of",
    "whole",
]

EARTH_RADIUS_METRES = 6_371_008.8

_MAX_TABLE = 2**22
_ROWS_AT_ONCE = 2**18  # between two looks at a limit


@dataclass(frozen=True, slots=True)
class Test:
    """holds(*arrays) gives a flag for each element of the arrays `over`; never true for a null."""

    over: tuple[Grown, ...]
    holds: Callable[..., Bools]
    cost: int = 1


def whole(test: Test, n: int) -> Bools:
    """The test over the first n rows, base and tail."""
    split = [grown.parts(n) for grown in test.over]
    bases, tails = zip(*split, strict=True)
    if not len(tails[0]):
        return _held(test, bases)
    if not len(bases[0]):
        return _held(test, tails)
    return np.concatenate([_held(test, bases), _held(test, tails)])


def _held(test: Test, arrays: tuple[Array, ...]) -> Bools:
    """The test of arrays; under a limit some rows at a time, which changes no answer."""
    n = len(arrays[0])
    if n <= _ROWS_AT_ONCE or not deadline.is_set():
        return test.holds(*arrays)
    flags = np.empty(n, np.bool_)
    for i in range(0, n, _ROWS_AT_ONCE):
        deadline.check()
        part = slice(i, i + _ROWS_AT_ONCE)
        flags[part] = test.holds(*(array[part] for array in arrays))
    return flags


def known(column: Column) -> Test:
    """Where the field is not null."""
    if isinstance(column, Longs | KeywordLists | Texts):
        return Test((column.valid,), lambda valid: valid != 0)
    if isinstance(column, Floats):
        return Test((column.values,), lambda values: values == values)
    if isinstance(column, Flags):
        return Test((column.values,), lambda values: values != NO_FLAG)
    if isinstance(column, Keywords):
        return Test((column.codes,), lambda codes: codes >= 0)
    assert isinstance(column, Places)
    return Test((column.lat,), lambda lat: lat == lat)


def negated(test: Test) -> Test:
    return Test(test.over, lambda *arrays: ~test.holds(*arrays), test.cost)


def _both(one: Test, other: Test) -> Test:
    split = len(one.over)
    return Test(
        one.over + other.over,
        lambda *arrays: one.holds(*arrays[:split]) & other.holds(*arrays[split:]),
        one.cost + other.cost,
    )


def false_of(test: Test, column: Column) -> Test:
    """Where the test is false rather than unknown."""
    return _both(negated(test), known(column))


def test_of(leaf: Leaf, column: Column) -> Test:
    if isinstance(column, Longs):
        return _test_longs(leaf, column)
    if isinstance(column, Floats):
        return _test_floats(leaf, column)
    if isinstance(column, Flags):
        return _test_flags(leaf, column)
    assert isinstance(column, Places)
    return _test_places(leaf, column)


# ---- numbers ----

OPPOSITE: dict[Op, Op] = {
    "eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt",
}  # fmt: skip
_UFUNC: dict[Op, Callable[..., Bools]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip


def _test_longs(leaf: Leaf, column: Longs) -> Test:
    if isinstance(leaf, In):
        wanted = {int(value) for value in leaf.values if _is_long(value)}  # type: ignore[arg-type]
        test = _one_long_of(column.values, np.array(sorted(wanted), np.int64))
    else:
        assert isinstance(leaf, Compare)
        assert isinstance(leaf.value, int | float)
        test = _longs_compared(column.values, leaf.op, leaf.value)
    return _both(test, known(column)) if column.has_nulls else test


def _is_long(value: Any) -> bool:
    """Whether some int64 equals the value."""
    return bool(-(2**63) <= value < 2**63 and value == int(value))


def _longs_compared(over: Grown, op: Op, value: float) -> Test:
    """int64 with a number, as if both were real numbers."""
    if not -(2**63) <= value < 2**63:
        is_above = value > 0
        return _constant(over, op == "ne" or op in (("lt", "le") if is_above else ("gt", "ge")))
    whole = math.floor(value)
    if whole != value:  # between two integers
        if op in ("eq", "ne"):
            return _constant(over, op == "ne")
        op = "le" if op in ("lt", "le") else "gt"
    return Test((over,), lambda values: _UFUNC[op](values, whole))


def _constant(over: Grown, is_true: bool) -> Test:
    return Test((over,), lambda values: np.full(len(values), is_true), 0)


def _test_floats(leaf: Leaf, column: Floats) -> Test:
    if isinstance(leaf, In):
        wanted = {float(value) for value in leaf.values if value == float(value)}  # type: ignore[arg-type]
        return _one_of(column.values, np.array(sorted(wanted), np.float64))
    assert isinstance(leaf, Compare)
    assert isinstance(leaf.value, int | float)
    op, value = _nearest(leaf.op, leaf.value)
    if op == "ne":  # the one comparison that holds for NaN
        return false_of(_floats_compared(column.values, "eq", value), column)
    return _floats_compared(column.values, op, value)


def _floats_compared(over: Grown, op: Op, value: float | None) -> Test:
    if value is None:
        return _constant(over, False)
    return Test((over,), lambda values: _UFUNC[op](values, value))


def _nearest(op: Op, value: float) -> tuple[Op, float | None]:
    """A float64 and an operator that together say the same; no float equals None."""
    near = float(value)
    if near == value:
        return op, near
    if op in ("eq", "ne"):
        return op, None
    if near < value:
        return "le" if op in ("lt", "le") else "gt", near
    return "lt" if op in ("lt", "le") else "ge", near


def _one_of(over: Grown, wanted: Array) -> Test:
    """Elements among sorted values."""
    if len(wanted) <= 4:

        def holds(values: Array) -> Bools:
            flags = np.zeros(len(values), np.bool_)
            for value in wanted:
                flags |= values == value
            return flags

        return Test((over,), holds, len(wanted))

    def found(values: Array) -> Bools:
        places = np.searchsorted(wanted, values)
        places[places == len(wanted)] = 0
        return np.equal(wanted[places], values)

    return Test((over,), found, 8)


def _one_long_of(over: Grown, wanted: I64) -> Test:
    """int64 among sorted values, by a table where these lie close together."""
    if len(wanted) <= 4 or wanted[-1] - float(wanted[0]) >= _MAX_TABLE:
        return _one_of(over, wanted)
    low, span = int(wanted[0]), int(wanted[-1]) - int(wanted[0]) + 1
    table = np.zeros(span + 1, np.bool_)  # the last is for all that lie outside
    table[wanted - low] = True

    def holds(values: Array) -> Bools:
        # As unsigned numbers, what lies below is large too; the difference may wrap and still is.
        places = np.minimum((values - low).view(np.uint64), np.uint64(span))
        return np.asarray(table[places.view(np.int64)])

    return Test((over,), holds, 2)


def _test_flags(leaf: Leaf, column: Flags) -> Test:
    if isinstance(leaf, In):
        wanted = {int(value) for value in leaf.values}  # type: ignore[arg-type]
    else:
        assert isinstance(leaf, Compare)
        wanted = {int(bool(leaf.value) == (leaf.op == "eq"))}
    return _one_of(column.values, np.array(sorted(wanted), np.uint8))


# ---- places ----


def _test_places(leaf: Leaf, column: Places) -> Test:
    over = (column.lat, column.lon)
    if isinstance(leaf, WithinBox):
        return Test(over, lambda lat, lon: _in_box(leaf, lat, lon), 4)
    assert isinstance(leaf, WithinRadius)
    return Test(over, lambda lat, lon: _in_radius(leaf, lat, lon), 16)


def _in_box(box: WithinBox, lat: Array, lon: Array) -> Bools:
    inside = (lat <= box.top) & (lat >= box.bottom)
    if box.left <= box.right:
        return np.asarray(inside & (lon >= box.left) & (lon <= box.right))
    return np.asarray(inside & ((lon >= box.left) | (lon <= box.right)))


def _in_radius(circle: WithinRadius, lat: Array, lon: Array) -> Bools:
    """By the haversine, on a sphere; computed only where the latitude is near enough."""
    angle = circle.metres / EARTH_RADIUS_METRES
    if angle >= math.pi:
        return np.equal(lat, lat)
    flags = np.abs(lat - circle.lat) <= math.degrees(angle) + 1e-6
    near = np.flatnonzero(flags)
    phi, there = math.radians(circle.lat), np.radians(lat[near])
    half = np.sin((there - phi) / 2) ** 2
    half += math.cos(phi) * np.cos(there) * np.sin(np.radians(lon[near] - circle.lon) / 2) ** 2
    flags[near] = half <= math.sin(angle / 2) ** 2
    return flags
