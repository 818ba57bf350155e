"""The tree of a filter: what it may say, and how Python writes it.

    F("price") < 10, json_form.py, parse.py -> [expr.py] -> check.py -> evaluate.py, sql.py

Each node is a frozen dataclass; two trees are equal when they say the same in the same order. A
filter is true, false or unknown for a row: whatever is asked of a null field is unknown, and so is
its negation. Only rows for which the whole filter is true match.

`And` and `Or` hold no child of their own kind, they are merged on construction, and ~ undoes
itself: so one filter has one tree, and one depth, in each spelling.

What a field is declared as is not known here; `as_filter` in check.py compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import islice
from math import isfinite
from typing import ClassVar, Literal, NoReturn

import numpy as np

from soardb.errors import InvalidArgument
from soardb.schema import FIELD_NAME, shown

__all__ = [
    "MAX_DEPTH",
    "MAX_IN_VALUES",
    "MAX_NODES",
    "And",
    "Compare",
    "ContainsAll",
    "ContainsAny",
    "Expr",
    "F",
    "In",
    "IsNull",
    "Leaf",
    "Matches",
    "Micros",
    "Not",
    "Op",
    "Or",
    "StartsWith",
    "Value",
    "WithinBox",
    "WithinRadius",
    "all_of",
    "any_of",
    "negation",
]

MAX_DEPTH = 16
MAX_NODES = 1_000
MAX_IN_VALUES = 100_000

Op = Literal["eq", "ne", "lt", "le", "gt", "ge"]
Value = bool | int | float | str | date


class Micros(int):
    """A moment within a checked filter: microseconds since 1970 in UTC, an int64.

    A type of its own, so that a plain number compared with a datetime field is seen as a mistake.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Micros({int(self)})"


# ---- the nodes ----


class Expr:
    """A filter. Combine filters with & | and ~, and put each comparison in parentheses."""

    __slots__ = ()

    def __and__(self, other: Expr) -> Expr:
        return And((self, _operand(other, "&")))

    def __or__(self, other: Expr) -> Expr:
        return Or((self, _operand(other, "|")))

    def __invert__(self) -> Expr:
        return negation(self)

    def __bool__(self) -> NoReturn:
        text = str(self)
        raise InvalidArgument(
            "expected filters combined with & | ~, got one used as True or False: "
            f"{text if len(text) <= 200 else text[:197] + '...'}; write & for and, | for or, ~ for "
            "not, and .between(low, high) for low <= field <= high"
        )

    def __str__(self) -> str:
        """The filter as SQL; `parse` reads it back."""
        from soardb.filters.parse import to_sql_text

        return to_sql_text(self)


def _operand(other: object, sign: str) -> Expr:
    if isinstance(other, Expr):
        return other
    raise InvalidArgument(
        f"expected a filter on both sides of {sign}, got {shown(other)}; put parentheses around "
        f"each comparison, as in (F('a') < 1) {sign} (F('b') == 2)"
    )


@dataclass(frozen=True, slots=True)
class And(Expr):
    """True where all children are, two or more."""

    children: tuple[Expr, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", _merged(And, self.children))


@dataclass(frozen=True, slots=True)
class Or(Expr):
    """True where a child is, of two or more."""

    children: tuple[Expr, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", _merged(Or, self.children))


@dataclass(frozen=True, slots=True)
class Not(Expr):
    """True where the child is false; unknown where the child is."""

    child: Expr


def _merged(kind: type[And] | type[Or], children: tuple[Expr, ...]) -> tuple[Expr, ...]:
    flat: list[Expr] = []
    for child in children:
        flat += child.children if isinstance(child, kind) else [child]
    assert len(flat) >= 2, "see all_of and any_of"
    if len(flat) > MAX_NODES:
        # Refused here, since each & copies what was there: building would cost the square.
        raise InvalidArgument(
            f"expected a filter of at most {MAX_NODES:,} parts, got {len(flat):,} in one "
            f"{kind.__name__.lower()}; for many values of one field use .isin(values)"
        )
    return tuple(flat)


def all_of(children: tuple[Expr, ...]) -> Expr:
    """The children joined by And, or the only one."""
    return And(children) if len(children) > 1 else children[0]


def any_of(children: tuple[Expr, ...]) -> Expr:
    """The children joined by Or, or the only one."""
    return Or(children) if len(children) > 1 else children[0]


def negation(child: Expr) -> Expr:
    """Not the child; twice not is once."""
    return child.child if isinstance(child, Not) else Not(child)


@dataclass(frozen=True, slots=True)
class Leaf(Expr):
    """A claim about one field."""

    field: str


@dataclass(frozen=True, slots=True)
class Compare(Leaf):
    """field < value, and the other five. Strings compare by code points."""

    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class In(Leaf):
    """The field equals one of the values, which may be none at all."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull(Leaf):
    """The field is null or absent. Never unknown."""


@dataclass(frozen=True, slots=True)
class StartsWith(Leaf):
    """The string begins with the prefix, case included."""

    prefix: str


@dataclass(frozen=True, slots=True)
class ContainsAny(Leaf):
    """The list holds one of the values or more."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainsAll(Leaf):
    """The list holds each of the values."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matches(Leaf):
    """The text holds all of the words, or any of them, as full text search sees words."""

    words: str
    mode: Literal["all", "any"]


@dataclass(frozen=True, slots=True)
class WithinRadius(Leaf):
    """The place is at most so many metres away, along a great circle."""

    lat: float
    lon: float
    metres: float


@dataclass(frozen=True, slots=True)
class WithinBox(Leaf):
    """The place is in the box, edges included; left > right crosses the 180th meridian."""

    top: float
    left: float
    bottom: float
    right: float


# ---- the builder ----


class F:
    """A declared field, to be compared: F("price") < 10, F("address.city").isin(["Oslo"])."""

    __slots__ = ("_name",)
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = _field(name)

    def __repr__(self) -> str:
        return f"F({self._name!r})"

    def compared(self, op: Op, value: object) -> Expr:
        """The comparison by its name; the signs below are what people write."""
        return Compare(self._name, op, _value(value))

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return self.compared("eq", other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return self.compared("ne", other)

    def __lt__(self, other: Value) -> Expr:
        return self.compared("lt", other)

    def __le__(self, other: Value) -> Expr:
        return self.compared("le", other)

    def __gt__(self, other: Value) -> Expr:
        return self.compared("gt", other)

    def __ge__(self, other: Value) -> Expr:
        return self.compared("ge", other)

    def isin(self, values: Iterable[Value]) -> Expr:
        """Equal to one of the values; with none of them no row matches."""
        return In(self._name, _values(values))

    def between(self, low: Value, high: Value) -> Expr:
        """low <= field <= high, both ends included."""
        return (self >= low) & (self <= high)

    def is_null(self) -> Expr:
        """Null or absent."""
        return IsNull(self._name)

    def not_null(self) -> Expr:
        """There, and not null."""
        return Not(IsNull(self._name))

    def startswith(self, prefix: str) -> Expr:
        """A keyword that begins with the prefix, case included."""
        return StartsWith(self._name, _text(prefix, "a prefix"))

    def contains(self, value: str) -> Expr:
        """A keyword_list that holds the value."""
        return ContainsAny(self._name, (_text(value, "a value"),))

    def contains_any(self, values: Iterable[str]) -> Expr:
        """A keyword_list that holds one of the values or more."""
        return ContainsAny(self._name, _texts(values))

    def contains_all(self, values: Iterable[str]) -> Expr:
        """A keyword_list that holds each of the values."""
        return ContainsAll(self._name, _texts(values))

    def matches(self, words: str) -> Expr:
        """A text that holds all of the words."""
        return Matches(self._name, _text(words, "words"), "all")

    def matches_any(self, words: str) -> Expr:
        """A text that holds one of the words or more."""
        return Matches(self._name, _text(words, "words"), "any")

    def within_radius(self, lat: float, lon: float, metres: float) -> Expr:
        """A place at most so many metres from this one."""
        return _radius(self._name, lat, lon, metres)

    def within_box(self, top: float, left: float, bottom: float, right: float) -> Expr:
        """A place in the box; left > right crosses the 180th meridian."""
        return _box(self._name, top, left, bottom, right)

    def _not_a_filter(self, *_: object) -> NoReturn:
        raise InvalidArgument(
            f"expected a comparison of {self!r}, got the field alone; put parentheses around each "
            f"comparison, as in ({self!r} == 1) & (F('b') < 2), and compare booleans: "
            f"{self!r} == True"
        )

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = __bool__ = _not_a_filter


def _field(name: object) -> str:
    if isinstance(name, str) and FIELD_NAME.fullmatch(name):
        return name
    raise InvalidArgument(
        f"expected the name of a declared field, such as 'price' or 'address.city', "
        f"got {shown(name)}"
    )


def _value(value: object) -> Value:
    """A value to compare with, NumPy's scalars made Python's."""
    if isinstance(value, np.generic):
        value = value.astype("M8[us]").item() if value.dtype.kind == "M" else value.item()
    if value is None:
        raise InvalidArgument(
            "expected a value to compare with, got None; whether a field is null is asked with "
            ".is_null() or .not_null(), in SQL IS NULL or IS NOT NULL"
        )
    if isinstance(value, F):
        raise InvalidArgument(
            f"expected a value to compare with, got the field {value!r}; a filter compares a field "
            "with values, not with another field"
        )
    if isinstance(value, float) and not isfinite(value):
        raise InvalidArgument(
            f"expected a finite number to compare with, got {value!r}; for rows without a value "
            "use .is_null()"
        )
    if not isinstance(value, bool | int | float | str | date):
        raise InvalidArgument(
            f"expected a number, string, bool, datetime or date to compare with, got {shown(value)}"
        )
    return value


def _values(values: object) -> tuple[Value, ...]:
    given = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidArgument(f"expected a list of values, got {shown(values)}; write [{values!r}]")
    listed = tuple(islice(given, MAX_IN_VALUES + 1))
    if len(listed) > MAX_IN_VALUES:
        raise InvalidArgument(
            f"expected at most {MAX_IN_VALUES:,} values in one list, got more; "
            "store what they have in common as a field of its own"
        )
    if set(map(type, listed)) <= {str, int, bool}:
        return listed
    return tuple(map(_value, listed))


def _text(value: object, what: str) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    raise InvalidArgument(f"expected {what} as a string, got {shown(value)}")


def _texts(values: object) -> tuple[str, ...]:
    return tuple(_text(value, "each value of the list") for value in _values(values))


def _number(value: object, what: str, low: float, high: float) -> float:
    number = _value(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidArgument(f"expected {what} as a number, got {shown(value)}")
    if not low <= number <= high:
        span = f"within {low:g}..{high:g}" if isfinite(high) else f"of {low:g} or more"
        raise InvalidArgument(f"expected {what} {span}, got {shown(value)}")
    return float(number)


def _radius(field: str, lat: object, lon: object, metres: object) -> Expr:
    return WithinRadius(
        field,
        _number(lat, "the latitude", -90, 90),
        _number(lon, "the longitude", -180, 180),
        _number(metres, "the radius in metres", 0, 1e12),
    )


def _box(field: str, top: object, left: object, bottom: object, right: object) -> Expr:
    box = WithinBox(
        field,
        _number(top, "the latitude of the top", -90, 90),
        _number(left, "the longitude of the left edge", -180, 180),
        _number(bottom, "the latitude of the bottom", -90, 90),
        _number(right, "the longitude of the right edge", -180, 180),
    )
    if box.bottom > box.top:
        raise InvalidArgument(
            f"expected a box whose top is not below its bottom, got top {box.top:g} and bottom "
            f"{box.bottom:g}; the order is top, left, bottom, right"
        )
    return box
