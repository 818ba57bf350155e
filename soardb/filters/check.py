"""A filter that a user wrote, compared with what the collection declares.

    the public API -> [check.py] -> evaluate.py, sql.py

Whatever the spelling, one tree comes out whose fields are declared, whose values are of the types
of their fields, whose moments are microseconds and whose size is within the limits. What is behind
trusts it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

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
    Leaf,
    Matches,
    Micros,
    Not,
    Or,
    StartsWith,
    Value,
    WithinBox,
    WithinRadius,
)
from soardb.filters.json_form import from_json
from soardb.schema import FieldType, Schema, micros_of, shown

__all__ = ["MAX_STRING_BYTES", "as_filter"]

MAX_STRING_BYTES = 8 * 2**10


def as_filter(value: object, schema: Schema) -> Expr | None:
    """The checked tree of a filter written in Python, as JSON or as SQL; None for None.

    Errors: InvalidArgument for an unknown field, a type that does not fit, more than MAX_NODES
    nodes, MAX_DEPTH levels, MAX_IN_VALUES values in a list or MAX_STRING_BYTES in a string. A
    checked tree may be checked again.
    """
    if value is None:
        return None
    expr = _read(value)
    _measure(expr)
    return _typed(expr, schema)


def _read(value: object) -> Expr:
    if isinstance(value, Expr):
        return value
    if isinstance(value, str):
        from soardb.filters.parse import parse

        return parse(value)
    if isinstance(value, Mapping):
        return from_json(value)
    if isinstance(value, F):
        raise InvalidArgument(
            f"expected a filter, got the field {value!r}; compare it: {value!r} == 1"
        )
    raise InvalidArgument(
        f"expected a filter such as F('price') < 10, 'price < 10' or "
        f'{{"field": "price", "op": "lt", "value": 10}}, got {shown(value)}'
    )


def _measure(expr: Expr) -> None:
    """Refuse a tree that is too deep or too large, without recursion."""
    level, nodes = [expr], 0
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise InvalidArgument(
                f"expected a filter of at most {MAX_NODES:,} parts, got at least {nodes:,}; "
                "for many values of one field use .isin(values), in SQL IN"
            )
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise InvalidArgument(
        f"expected a filter at most {MAX_DEPTH} levels deep, got more; "
        "join parts of one kind without parentheses between them"
    )


def _children(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, And | Or):
        return expr.children
    return (expr.child,) if isinstance(expr, Not) else ()


def _typed(expr: Expr, schema: Schema) -> Expr:
    if isinstance(expr, And | Or):
        return type(expr)(tuple(_typed(child, schema) for child in expr.children))
    if isinstance(expr, Not):
        return Not(_typed(expr.child, schema))
    assert isinstance(expr, Leaf)
    return _typed_leaf(expr, _declared(expr.field, schema))


def _declared(field: str, schema: Schema) -> FieldType:
    if field in schema.fields:
        return schema.fields[field]
    near = difflib.get_close_matches(field, schema.fields, 3, 0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    known = ", ".join(schema.fields) or "none"
    known = known if len(known) <= 200 else known[:197] + "..."
    raise InvalidArgument(
        f"expected a declared field, got {field!r}{hint} Declared are: {known}. To filter by "
        f"{field!r}, declare it when the collection is made: schema={{{field!r}: 'keyword'}}"
    )


# ---- which leaf may be asked of which type ----

_ORDERED = (Compare, In, IsNull)
_ALLOWED: dict[FieldType, tuple[type[Leaf], ...]] = {
    "int": _ORDERED,
    "float": _ORDERED,
    "datetime": _ORDERED,
    "bool": _ORDERED,
    "keyword": (*_ORDERED, StartsWith),
    "keyword_list": (ContainsAny, ContainsAll, IsNull),
    "text": (Matches, IsNull),
    "geo": (WithinRadius, WithinBox, IsNull),
}
_ADVICE: dict[FieldType, str] = {
    "int": "compare it, or use isin, between, is_null",
    "float": "compare it, or use isin, between, is_null",
    "datetime": "compare it, or use isin, between, is_null",
    "bool": "compare it with True or False by == or !=",
    "keyword": "compare it, or use isin, startswith, is_null; for lists of keywords declare it "
    "'keyword_list', for words within it 'text'",
    "keyword_list": "use contains, contains_any, contains_all or is_null",
    "text": "use matches, matches_any or is_null; to compare whole strings declare it 'keyword'",
    "geo": "use within_radius, within_box or is_null",
}
_ASKED: dict[type[Leaf], str] = {
    Compare: "a comparison",
    In: "isin",
    StartsWith: "startswith",
    ContainsAny: "contains",
    ContainsAll: "contains_all",
    Matches: "matches",
    WithinRadius: "within_radius",
    WithinBox: "within_box",
}


def _typed_leaf(leaf: Leaf, kind: FieldType) -> Leaf:
    is_ordering = isinstance(leaf, Compare) and leaf.op not in ("eq", "ne")
    if not isinstance(leaf, _ALLOWED[kind]) or (kind == "bool" and is_ordering):
        asked = "an ordering" if kind == "bool" and is_ordering else _ASKED[type(leaf)]
        raise InvalidArgument(
            f"expected what a field of type {kind} can answer of {leaf.field!r}, got {asked}; "
            f"{_ADVICE[kind]}"
        )
    if isinstance(leaf, Compare):
        return dataclasses.replace(leaf, value=_VALUES[kind](leaf.value, leaf.field, kind))
    if isinstance(leaf, In):
        return dataclasses.replace(leaf, values=_typed_values(leaf, kind))
    if isinstance(leaf, ContainsAny | ContainsAll):
        _short(leaf.values, leaf.field)
    elif isinstance(leaf, StartsWith):
        _short((leaf.prefix,), leaf.field)
    elif isinstance(leaf, Matches):
        _short((leaf.words,), leaf.field)
    return leaf


def _typed_values(leaf: In, kind: FieldType) -> tuple[Value, ...]:
    """The values of a list; long lists of one plain type are checked at once."""
    if kind == "keyword" and set(map(type, leaf.values)) <= {str}:
        _short(leaf.values, leaf.field)
        return leaf.values
    return tuple(_VALUES[kind](value, leaf.field, kind) for value in leaf.values)


def _mismatch(value: object, field: str, kind: FieldType, expected: str) -> InvalidArgument:
    return InvalidArgument(
        f"expected {expected} to compare with field {field!r} of type {kind}, got {shown(value)}"
    )


def _number(value: Value, field: str, kind: FieldType) -> Value:
    if isinstance(value, bool | Micros) or not isinstance(value, int | float):
        raise _mismatch(value, field, kind, "a number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _mismatch(value, field, kind, "an int within int64, or a float beyond it,")
    return float(value) if isinstance(value, float) else int(value)


def _bool(value: Value, field: str, kind: FieldType) -> Value:
    if not isinstance(value, bool):
        raise _mismatch(value, field, kind, "True or False")
    return value


def _keyword(value: Value, field: str, kind: FieldType) -> Value:
    if not isinstance(value, str):
        raise _mismatch(value, field, kind, "a string")
    _short((value,), field)
    return str.__str__(value)


def _moment(value: Value, field: str, kind: FieldType) -> Value:
    if isinstance(value, Micros):
        return value
    expected = "an ISO 8601 string, a datetime or a date"
    if not isinstance(value, str | date):
        raise _mismatch(value, field, kind, expected)
    try:
        return Micros(micros_of(value))
    except ValueError as error:
        raise _mismatch(value, field, kind, f"{expected} ({error})") from None


_VALUES: dict[FieldType, Callable[[Value, str, FieldType], Value]] = {
    "int": _number,
    "float": _number,
    "bool": _bool,
    "keyword": _keyword,
    "datetime": _moment,
}


def _short(strings: tuple[Any, ...], field: str) -> None:
    """Refuse strings that are too long or have no UTF-8 form."""
    for string in strings:
        if string.isascii():
            size = len(string)
        else:
            size = len(string.encode(errors="surrogatepass"))
            if any("\ud800" <= char <= "\udfff" for char in string):
                raise InvalidArgument(
                    f"expected strings that have a UTF-8 form for field {field!r}, got half a "
                    f"surrogate pair in {shown(string)}"
                )
        if size > MAX_STRING_BYTES:
            raise InvalidArgument(
                f"expected strings of at most {MAX_STRING_BYTES:,} bytes for field {field!r}, "
                f"got {size:,}"
            )
