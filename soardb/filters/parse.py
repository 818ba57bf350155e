"""A filter as SQL: price < 10 AND tag IN ('a', 'b'), read and written.

    scan.py -> [parse.py] <-> expr.py

The scan refuses what is not of the language. sqlglot knows precedence, and its tree is translated
node by node, by a closed list again.

`to_sql_text` writes the same language; what it writes reads back as the same tree.

Whether fields are declared and types fit is not known here; see check.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from soardb.errors import InvalidArgument
from soardb.filters.expr import (
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
from soardb.filters.scan import OWN, RESERVED, Scan
from soardb.schema import iso_of, micros_of, shown

__all__ = ["MAX_SQL_LENGTH", "parse", "to_sql_text"]

MAX_SQL_LENGTH = 2**20

Node = Any
"""A node of sqlglot's tree. Which class that is differs between versions, the names do not."""

_EXAMPLE = "price < 10 AND tag IN ('a', 'b')"


def parse(text: str) -> Expr:
    """The filter that the text says, or InvalidArgument that names what is not of the language.

    Costs about 0.2 ms for a few conditions, 0.2 s for the longest text that is accepted.
    """
    if len(text) > MAX_SQL_LENGTH:
        raise InvalidArgument(
            f"expected a filter of at most {MAX_SQL_LENGTH:,} characters of SQL, got {len(text):,};"
            " pass long lists of values by F(field).isin(values), or as JSON"
        )
    scan = Scan(text)
    return _Translation(scan.lists).expr(_tree(scan.text, text))


def _tree(rewritten: str, text: str) -> Node:
    """What sqlglot makes of the rewritten text."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        return sqlglot.parse_one(rewritten, into=exp.Condition)
    except SqlglotError:
        raise InvalidArgument(
            f"expected a filter as SQL, such as {_EXAMPLE}, got {shown(text, 200)}, which does not "
            "parse; see that each condition is complete and AND or OR stands between two of them"
        ) from None
    except RecursionError:
        raise InvalidArgument(
            f"expected a filter that is not nested so deeply, got {shown(text)}"
        ) from None


# ---- the translation ----

_OPS: dict[str, Op] = {"eq": "eq", "neq": "ne", "lt": "lt", "lte": "le", "gt": "gt", "gte": "ge"}
_MIRRORED: dict[Op, Op] = {
    "eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le",
}  # fmt: skip


class _Translation:
    """sqlglot's tree to ours, node by node; by the names that sqlglot has for its nodes."""

    def __init__(self, lists: list[list[Value]]) -> None:
        self._lists = lists

    def expr(self, node: Node) -> Expr:
        kind = node.key
        if kind == "paren":
            return self.expr(node.this)
        if kind == "not":
            return negation(self.expr(node.this))
        if kind in ("and", "or"):
            children = tuple(self.expr(part) for part in _chain(node))
            return all_of(children) if kind == "and" else any_of(children)
        if kind in _OPS:
            return self._comparison(_OPS[kind], node)
        if kind in _CONDITIONS:
            return _CONDITIONS[kind](self, node)
        if kind == "column":
            name = node.name
            raise InvalidArgument(
                f"expected a condition, got the field {name} alone; compare it: {name} = true"
            )
        raise InvalidArgument(
            f"expected conditions such as {_EXAMPLE}, got {self._described(node)}"
        )

    def _described(self, node: Node) -> str:
        """A node that stands in a wrong place, in the user's words."""
        if node.key == "literal":
            return ", ".join(map(_literal_text, self._lists[int(node.name)][:5]))
        if node.key == "column":
            return f"the field {node.name}"
        if node.key == "null":
            return "NULL; ask IS NULL or IS NOT NULL"
        if node.key == "paren":
            return self._described(node.this)
        return _DESCRIBED.get(node.key, "a condition")

    def _is_field(self, node: Node) -> bool:
        return bool(node.key == "column" and len(node.parts) == 1)

    def _field(self, node: Node) -> F:
        if not self._is_field(node):
            raise InvalidArgument(f"expected the name of a field, got {self._described(node)}")
        return F(node.name)

    def _values(self, nodes: Sequence[Node]) -> list[Value]:
        """The literals in order; each node stands for one or more."""
        values: list[Value] = []
        for node in nodes:
            if node.key != "literal":
                hint = "; a filter compares a field with values" if self._is_field(node) else ""
                raise InvalidArgument(f"expected a value, got {self._described(node)}{hint}")
            values += self._lists[int(node.name)]
        return values

    def _value(self, node: Node) -> Value:
        values = self._values([node.this if node.key == "paren" else node])
        if len(values) != 1:
            raise InvalidArgument(
                f"expected one value to compare with, got {self._described(node)}; use IN (...)"
            )
        return values[0]

    def _comparison(self, op: Op, node: Node) -> Expr:
        left, right = node.this, node.expression
        if not self._is_field(left) and self._is_field(right):
            return self._field(right).compared(_MIRRORED[op], self._value(left))
        return self._field(left).compared(op, self._value(right))

    def _in(self, node: Node) -> Expr:
        if node.args.get("field") is not None or node.args.get("query") is not None:
            raise InvalidArgument("expected values in parentheses after IN, as in tag IN ('a')")
        return self._field(node.this).isin(self._values(node.expressions))

    def _between(self, node: Node) -> Expr:
        low, high = self._value(node.args["low"]), self._value(node.args["high"])
        return self._field(node.this).between(low, high)

    def _is(self, node: Node) -> Expr:
        if node.expression.key != "null":
            raise InvalidArgument(
                f"expected IS NULL or IS NOT NULL, got IS {self._described(node.expression)}; "
                "compare with = true or = false"
            )
        return self._field(node.this).is_null()

    def _like(self, node: Node) -> Expr:
        field, pattern = self._field(node.this), self._value(node.expression)
        prefix = pattern[:-1] if isinstance(pattern, str) else ""
        if not isinstance(pattern, str) or pattern[-1:] != "%" or re.search(r"[%_\\]", prefix):
            raise InvalidArgument(
                f"expected a pattern of a prefix and one %, as in LIKE 'abc%', got "
                f"{_literal_text(pattern)}; for a prefix that holds %, _ or \\ use "
                "startswith(field, prefix), for the whole string =, for words a text field and "
                "matches(field, words)"
            )
        expr = field.startswith(prefix)
        # Some versions of sqlglot have NOT LIKE as a flag of LIKE.
        return negation(expr) if node.args.get("negate") else expr

    def _call(self, node: Node) -> Expr:
        name = str(node.this).removeprefix(OWN)
        method, count = _FUNCTIONS[name]
        arguments = node.expressions
        if not arguments:
            raise InvalidArgument(f"expected a field and values in {name}(...), got nothing")
        field, values = self._field(arguments[0]), self._values(arguments[1:])
        if count is None:
            return method(field, values)
        if len(values) != count:
            raise InvalidArgument(
                f"expected {count} value{'s' * (count > 1)} after the field in {name}(...), "
                f"got {len(values)}"
            )
        return method(field, *values)


_DESCRIBED = {
    "tuple": "several things in parentheses",
    "concat": "two literals in a row",
    "anonymous": "a function",
}
_CONDITIONS: dict[str, Callable[[_Translation, Node], Expr]] = {
    "in": _Translation._in,
    "between": _Translation._between,
    "is": _Translation._is,
    "like": _Translation._like,
    "anonymous": _Translation._call,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Expr], int | None]] = {
    "startswith": (F.startswith, 1),
    "contains": (F.contains, 1),
    "contains_any": (F.contains_any, None),
    "contains_all": (F.contains_all, None),
    "matches": (F.matches, 1),
    "matches_any": (F.matches_any, 1),
    "within_radius": (F.within_radius, 3),
    "within_box": (F.within_box, 4),
}


def _chain(node: Node) -> list[Node]:
    """The parts of a AND b AND c, which hang in a long tree to the left."""
    kind, parts = node.key, []
    while node.key == kind:
        parts.append(node.expression)
        node = node.this
    return [node, *reversed(parts)]


# ---- writing ----

_SIGNS: dict[Op, str] = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def to_sql_text(expr: Expr) -> str:
    """The filter as SQL that parse reads back as the same tree; moments as TIMESTAMP '...'."""
    match expr:
        case And(children):
            return " AND ".join(map(_part, children))
        case Or(children):
            return " OR ".join(map(_part, children))
        case Not(IsNull(field)):
            return f"{_name_text(field)} IS NOT NULL"
        case Not(In(field, values)):
            return f"{_name_text(field)} NOT IN ({_list_text(values)})"
        case Not(child):
            return f"NOT ({to_sql_text(child)})"
        case IsNull(field):
            return f"{_name_text(field)} IS NULL"
        case Compare(field, op, value):
            return f"{_name_text(field)} {_SIGNS[op]} {_literal_text(value)}"
        case In(field, values):
            return f"{_name_text(field)} IN ({_list_text(values)})"
        case StartsWith(field, prefix) if not re.search(r"[%_\\]", prefix):
            return f"{_name_text(field)} LIKE {_literal_text(prefix + '%')}"
    return _call_text(expr)


def _call_text(expr: Expr) -> str:
    match expr:
        case StartsWith(field, prefix):
            return _call("startswith", field, prefix)
        case ContainsAny(field, (value,)):
            return _call("contains", field, value)
        case ContainsAny(field, values):
            return _call("contains_any", field, *values)
        case ContainsAll(field, values):
            return _call("contains_all", field, *values)
        case Matches(field, words, mode):
            return _call("matches" if mode == "all" else "matches_any", field, words)
        case WithinRadius(field, lat, lon, metres):
            return _call("within_radius", field, lat, lon, metres)
        case WithinBox(field, top, left, bottom, right):
            return _call("within_box", field, top, left, bottom, right)
    raise AssertionError(f"a node without a form in SQL: {type(expr).__name__}")


def _part(expr: Expr) -> str:
    text = to_sql_text(expr)
    return f"({text})" if isinstance(expr, And | Or) else text


def _call(name: str, field: str, *values: Value) -> str:
    return f"{name}({', '.join([_name_text(field), *map(_literal_text, values)])})"


def _list_text(values: Sequence[Value]) -> str:
    return ", ".join(map(_literal_text, values))


def _name_text(field: str) -> str:
    parts = field.split(".")
    return ".".join(f'"{part}"' if part.upper() in RESERVED else part for part in parts)


def _literal_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Micros):
        return f"TIMESTAMP '{iso_of(value)}'"
    if isinstance(value, date):
        return f"TIMESTAMP '{iso_of(micros_of(value))}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)
