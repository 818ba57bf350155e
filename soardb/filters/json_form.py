"""A filter as JSON: the form that travels.

    a dict that came over the wire <-> [json_form.py] <-> expr.py

The grammar is closed; a key or an operator that is not named here is refused:

    filter  = {"and": [filter, ...]} | {"or": [filter, ...]} | {"not": filter} | leaf
    leaf    = {"field": name, "op": op}                    is_null, not_null
            | {"field": name, "op": op, "value": value}    all others, whose value is

    eq ne lt le gt ge               a number, a string (moments as ISO 8601), true or false
    in contains_any contains_all    a list of these
    between                         [low, high], both included
    startswith contains             a string
    matches matches_any             a string: all of its words, any of its words
    within_radius                   {"lat": number, "lon": number, "metres": number}
    within_box                      {"top": number, "left": number, "bottom": number, "right": ..}

`from_json` counts nodes and depth as it goes and lists before it enters them, so that a hostile
value is refused early. Types of fields are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, get_args

from soardb.errors import InvalidArgument
from soardb.filters.expr import (
    MAX_DEPTH,
    MAX_NODES,
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    Expr,
    F,
    In,
    IsNull,
    Matches,
    Micros,
    Not,
    Op,
    Or,
    StartsWith,
    Value,
    WithinBox,
    WithinRadius,
    all_of,
    any_of,
    negation,
)
from soardb.schema import iso_of, micros_of, shown

__all__ = ["from_json", "to_json"]

# ---- writing ----


def to_json(expr: Expr) -> dict[str, Any]:
    """The filter as a JSON value, which from_json reads; moments become ISO 8601 strings."""
    match expr:
        case And(children):
            return {"and": [to_json(child) for child in children]}
        case Or(children):
            return {"or": [to_json(child) for child in children]}
        case Not(IsNull(field)):
            return {"field": field, "op": "not_null"}
        case Not(child):
            return {"not": to_json(child)}
        case IsNull(field):
            return {"field": field, "op": "is_null"}
        case Compare(field, op, value):
            return _leaf(field, op, _plain(value))
        case In(field, values):
            return _leaf(field, "in", [_plain(value) for value in values])
        case ContainsAny(field, (value,)):
            return _leaf(field, "contains", value)
        case ContainsAny(field, values):
            return _leaf(field, "contains_any", list(values))
        case ContainsAll(field, values):
            return _leaf(field, "contains_all", list(values))
        case StartsWith(field, prefix):
            return _leaf(field, "startswith", prefix)
        case Matches(field, words, mode):
            return _leaf(field, "matches" if mode == "all" else "matches_any", words)
        case WithinRadius(field, lat, lon, metres):
            return _leaf(field, "within_radius", {"lat": lat, "lon": lon, "metres": metres})
        case WithinBox(field, top, left, bottom, right):
            box = {"top": top, "left": left, "bottom": bottom, "right": right}
            return _leaf(field, "within_box", box)
    raise AssertionError(f"a node without a JSON form: {type(expr).__name__}")


def _leaf(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"field": field, "op": op, "value": value}


def _plain(value: Value) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Micros):
        return iso_of(value)
    return iso_of(micros_of(value)) if isinstance(value, date) else value


# ---- reading ----


def from_json(value: object) -> Expr:
    """The filter that a JSON value of the grammar above stands for, or InvalidArgument."""
    return _Reader().read(value, 1)


class _Reader:
    """Counts the nodes of one filter while reading it."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def read(self, value: object, depth: int) -> Expr:
        if depth > MAX_DEPTH:
            raise InvalidArgument(
                f"expected a filter at most {MAX_DEPTH} levels deep, got more; "
                "write and, or of many parts as one list"
            )
        if not isinstance(value, Mapping):
            raise InvalidArgument(
                'expected a filter as an object such as {"field": "price", "op": "lt", "value": 10}'
                f", got {shown(value)}"
            )
        self._count(1)
        if "field" in value or "op" in value:
            return _read_leaf(value)
        if len(value) != 1:
            raise InvalidArgument(
                'expected one key, "and", "or" or "not", or "field" with "op", '
                f"got the keys {shown(list(value))}; join several by and"
            )
        (key,) = value
        if key == "not":
            return negation(self.read(value[key], depth + 1))
        if key not in ("and", "or"):
            raise InvalidArgument(
                f'expected the key "and", "or" or "not", or "field" with "op", got {shown(key)}'
            )
        children = self._children(value[key], key, depth + 1)
        return all_of(children) if key == "and" else any_of(children)

    def _children(self, value: object, key: str, depth: int) -> tuple[Expr, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise InvalidArgument(
                f"expected a list of one filter or more under {key!r}, got {shown(value)}"
            )
        if len(value) > self._left:
            self._count(len(value))
        return tuple(self.read(child, depth) for child in value)

    def _count(self, nodes: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise InvalidArgument(
                f"expected a filter of at most {MAX_NODES:,} parts, got at least "
                f"{MAX_NODES - self._left:,}; for many values of one field use the operator in"
            )


def _read_leaf(value: Mapping[str, Any]) -> Expr:
    op = value.get("op")
    if not isinstance(op, str) or op not in _READERS:
        raise InvalidArgument(f"expected an op among {', '.join(_READERS)}, got {shown(op)}")
    wanted = {"field", "op"} if op in _WITHOUT_VALUE else {"field", "op", "value"}
    if set(value) != wanted:
        raise InvalidArgument(
            f"expected the keys {', '.join(sorted(wanted))} beside op {op!r}, "
            f"got {shown(sorted(map(str, value)))}"
        )
    return _READERS[op](F(value["field"]), value.get("value"))


def _comparison(op: Op) -> Callable[[F, Any], Expr]:
    def read(field: F, value: Any) -> Expr:
        return field.compared(op, value)

    return read


def _between(field: F, value: Any) -> Expr:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InvalidArgument(f"expected [low, high] as the value of between, got {shown(value)}")
    return field.between(*value)


def _named(method: Callable[..., Expr], *names: str) -> Callable[[F, Any], Expr]:
    """A reader of an object with exactly these keys, passed on by name."""

    def read(field: F, value: Any) -> Expr:
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise InvalidArgument(
                f"expected an object with the keys {', '.join(names)}, got {shown(value)}"
            )
        return method(field, **value)

    return read


_WITHOUT_VALUE = {"is_null", "not_null"}
_READERS: dict[str, Callable[[F, Any], Expr]] = {
    **{op: _comparison(op) for op in get_args(Op)},
    "in": F.isin,
    "between": _between,
    "is_null": lambda field, _: field.is_null(),
    "not_null": lambda field, _: field.not_null(),
    "startswith": F.startswith,
    "contains": F.contains,
    "contains_any": F.contains_any,
    "contains_all": F.contains_all,
    "matches": F.matches,
    "matches_any": F.matches_any,
    "within_radius": _named(F.within_radius, "lat", "lon", "metres"),
    "within_box": _named(F.within_box, "top", "left", "bottom", "right"),
}
