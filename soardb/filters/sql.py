"""The same tree as parameterised SQL over the stored payloads: the independent check.

    check.as_filter (a tree) -> [sql.py] -> SQLite, over points(row, id, payload)

Nothing is shared with evaluate.py but the tree: values are read from the JSON of the payload, NOT
and unknown are SQLite's own, moments, lists, prefixes and places are tested by small functions
that `register_functions` adds to a connection. Tests compare the two; it also serves rows of which
no columns are in memory, at about a microsecond a row and field.

No text of a user becomes SQL: names of fields travel as JSON paths and values as JSON, both as
parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from soardb.errors import InvalidArgument
from soardb.filters.expr import (
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    Expr,
    In,
    IsNull,
    Leaf,
    Matches,
    Not,
    Op,
    Or,
    StartsWith,
    WithinBox,
    WithinRadius,
)
from soardb.schema import FieldType, Schema, micros_of

if TYPE_CHECKING:
    import apsw

__all__ = ["TextRows", "register_functions", "where"]

TextRows = Callable[[str, str, Literal["all", "any"]], tuple[str, Sequence[Any]]]
"""(field, words, mode) to a condition on `row` and its parameters, such as
("row IN (SELECT rowid FROM fulltext WHERE fulltext MATCH ?)", [query])."""

_SIGNS: dict[Op, str] = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def where(expr: Expr, schema: Schema, text_rows: TextRows | None = None) -> tuple[str, list[Any]]:
    """(condition, parameters) for SELECT row FROM points WHERE <condition>.

    expr as `as_filter` gives it. text_rows finds words; without it, InvalidArgument for a filter
    that asks for words. The connection needs `register_functions`.
    """
    compiler = _Compiler(schema, text_rows)
    return compiler.condition(expr), compiler.parameters


class _Compiler:
    """One walk over one tree. Parameters are collected in the order of their question marks."""

    def __init__(self, schema: Schema, text_rows: TextRows | None) -> None:
        self.parameters: list[Any] = []
        self._schema, self._text_rows = schema, text_rows

    def condition(self, expr: Expr) -> str:
        if isinstance(expr, And | Or):
            word = " AND " if isinstance(expr, And) else " OR "
            return _joined([self.condition(child) for child in expr.children], word)
        if isinstance(expr, Not):
            return f"(NOT {self.condition(expr.child)})"
        assert isinstance(expr, Leaf)
        return f"({self._leaf(expr, self._schema.fields[expr.field])})"

    def _leaf(self, leaf: Leaf, kind: FieldType) -> str:
        match leaf:
            case IsNull(field):
                return f"{self._json(field)} IS NULL"
            case Compare(field, op, value):
                return f"{self._read(field, kind)} {_SIGNS[op]} {self._parameter(value)}"
            case In(field, values):
                return self._in(field, kind, values)
            case StartsWith(field, prefix):
                return f"soardb_startswith({self._json(field)}, {self._parameter(prefix)})"
            case ContainsAny(field, values):
                return f"soardb_contains_any({self._json(field)}, {self._list(values)})"
            case ContainsAll(field, values):
                return f"soardb_contains_all({self._json(field)}, {self._list(values)})"
            case WithinRadius(field, lat, lon, metres):
                place = f"{self._json(field)}, {self._parameter(lat)}, {self._parameter(lon)}"
                return f"soardb_metres({place}) <= {self._parameter(metres)}"
            case WithinBox():
                return self._box(leaf)
            case Matches():
                return self._matches(leaf)
        raise AssertionError(f"a leaf without SQL: {type(leaf).__name__}")

    def _parameter(self, value: Any) -> str:
        self.parameters.append(int(value) if isinstance(value, int) else value)
        return "?"

    def _list(self, values: Sequence[Any]) -> str:
        return self._parameter(json.dumps(values, ensure_ascii=False))

    def _json(self, field: str) -> str:
        """The field as SQLite reads it from the payload: NULL where absent, null or out of reach.

        True and false are 1 and 0, lists and objects their JSON text.
        """
        path = "$." + ".".join(f'"{part}"' for part in field.split("."))
        return f"json_extract(payload, {self._parameter(path)})"

    def _read(self, field: str, kind: FieldType) -> str:
        """The field as a value to be compared."""
        if kind == "float":  # which may stand in the payload as an integer of any size
            return f"CAST({self._json(field)} AS REAL)"
        if kind == "datetime":
            return f"soardb_micros({self._json(field)})"
        return self._json(field)

    def _in(self, field: str, kind: FieldType, values: Sequence[Any]) -> str:
        read = self._read(field, kind)
        if not values:  # SQLite has NULL IN () as false; here a null makes every question unknown
            return f"CASE WHEN {read} IS NOT NULL THEN 0 END"
        plain = [int(value) if isinstance(value, int) else value for value in values]
        return f"{read} IN (SELECT value FROM json_each({self._list(plain)}))"

    def _box(self, box: WithinBox) -> str:
        lat = f"soardb_lat({self._json(box.field)})"
        lat += f" BETWEEN {self._parameter(box.bottom)} AND {self._parameter(box.top)}"
        west = f"soardb_lon({self._json(box.field)}) >= {self._parameter(box.left)}"
        east = f"soardb_lon({self._json(box.field)}) <= {self._parameter(box.right)}"
        return f"{lat} AND ({west} {'AND' if box.left <= box.right else 'OR'} {east})"

    def _matches(self, leaf: Matches) -> str:
        if self._text_rows is None:
            raise InvalidArgument(
                f"expected a filter without words to search, got matches on {leaf.field!r}; there "
                "is no full text here"
            )
        is_there = f"{self._json(leaf.field)} IS NOT NULL"
        condition, parameters = self._text_rows(leaf.field, leaf.words, leaf.mode)
        self.parameters += parameters
        return f"CASE WHEN {is_there} THEN ({condition}) END"


def _joined(parts: list[str], word: str) -> str:
    """The parts joined two by two: SQLite bounds the depth of a tree, a chain of 1,000 is one."""
    while len(parts) > 1:
        pairs = [
            f"({one}{word}{other})" for one, other in zip(parts[::2], parts[1::2], strict=False)
        ]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0]


# ---- functions for SQLite ----


def register_functions(connection: apsw.Connection) -> None:
    """Add the functions that `where` uses; each answers NULL for NULL."""
    for name, function, count in _FUNCTIONS:
        connection.create_scalar_function(
            f"soardb_{name}", _null_for_null(function), count, deterministic=True
        )


def _null_for_null(function: Callable[..., Any]) -> Callable[..., Any]:
    def answer(value: Any, *others: Any) -> Any:
        return None if value is None else function(value, *others)

    return answer


def _startswith(text: str, prefix: str) -> bool:
    return text[: len(prefix)] == prefix


def _contains_any(listed: str, wanted: str) -> bool:
    return not set(json.loads(listed)).isdisjoint(json.loads(wanted))


def _contains_all(listed: str, wanted: str) -> bool:
    return set(json.loads(listed)).issuperset(json.loads(wanted))


def _place(listed: str) -> tuple[float, float]:
    place = json.loads(listed)
    return (place["lat"], place["lon"]) if isinstance(place, dict) else (place[0], place[1])


def _lat(listed: str) -> float:
    return float(_place(listed)[0])


def _lon(listed: str) -> float:
    return float(_place(listed)[1])


def _metres(listed: str, lat: float, lon: float) -> float:
    """The great circle distance, by the angle between unit vectors on a sphere."""
    one, other = _unit(*_place(listed)), _unit(lat, lon)
    chord = math.dist(one, other)
    return 2 * math.asin(min(1.0, chord / 2)) * 6_371_008.8


def _unit(lat: float, lon: float) -> tuple[float, float, float]:
    phi, theta = math.radians(lat), math.radians(lon)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)


_FUNCTIONS: list[tuple[str, Callable[..., Any], int]] = [
    ("micros", micros_of, 1),
    ("startswith", _startswith, 2),
    ("contains_any", _contains_any, 2),
    ("contains_all", _contains_all, 2),
    ("metres", _metres, 3),
    ("lat", _lat, 1),
    ("lon", _lon, 1),
]
