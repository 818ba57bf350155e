"""Payloads: the fields that a collection declares, and the JSON that a point carries.

    the public API -> [schema.py] -> filters/columns.py (typed values), the row store (JSON bytes)

A payload is any JSON object. A schema names the parts of it that filters may speak of and gives
each a type; `extract` reads exactly these, typed and checked, and leaves the rest alone. A field
that is absent, or null, is null.

A moment in time is one int64, microseconds since 1970 in UTC; a time without an offset means UTC.

Nothing here knows of rows, columns or filters.
"""

from __future__ import annotations

import difflib
import json
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import chain
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np

from soardb.errors import CorruptStorage, InvalidArgument

__all__ = [
    "FIELD_NAME",
    "FIELD_TYPES",
    "MAX_FIELDS",
    "MAX_PAYLOAD_BYTES",
    "MAX_PAYLOAD_DEPTH",
    "FieldType",
    "PointId",
    "Schema",
    "decode_payload",
    "encode_payload",
    "iso_of",
    "micros_of",
    "normalise",
    "parse_payload",
    "shown",
    "values_at",
]

PointId = int | str
"""What names a point: within one collection all int64, or all strings of 1..512 bytes."""

FieldType = Literal["int", "float", "bool", "keyword", "keyword_list", "text", "datetime", "geo"]
FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)

MAX_FIELDS = 256
MAX_PAYLOAD_BYTES = 2**20
MAX_PAYLOAD_DEPTH = 32

_PART = "[A-Za-z_][A-Za-z0-9_]{0,63}"
FIELD_NAME = re.compile(rf"{_PART}(?:\.{_PART}){{0,7}}", re.ASCII)
"""What a field may be called, to be matched in full. A dot reaches into a nested object."""

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_MICROS = (datetime.min - _EPOCH) // _MICROSECOND
_LAST_MICROS = (datetime.max - _EPOCH) // _MICROSECOND

_Typed = list[Any]


def shown(value: object, limit: int = 80) -> str:
    """A value as error messages show it: its repr, cut, and its type."""
    text = repr(value)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return f"{text} ({type(value).__name__})"


# ---- moments ----


def micros_of(value: str | date) -> int:
    """Microseconds since 1970 in UTC of an ISO 8601 string, a datetime or a date (its midnight).

    ValueError says what is wrong with it; UTC must fall within the years 1..9999.
    """
    moment: date = value if isinstance(value, date) else datetime.fromisoformat(value)
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    micros = (moment - (_EPOCH if moment.tzinfo is None else _EPOCH_UTC)) // _MICROSECOND
    if not _FIRST_MICROS <= micros <= _LAST_MICROS:
        raise ValueError("outside the years 1..9999 of UTC")
    return micros


def iso_of(micros: int) -> str:
    """The ISO 8601 string, in UTC, that micros_of reads as these microseconds."""
    return (_EPOCH + timedelta(microseconds=int(micros))).isoformat() + "Z"


# ---- the schema ----


@dataclass(frozen=True, eq=False, repr=False)
class Schema:
    """The declared fields: name and type of each, in the order of their declaration.

    Made by `Schema.of`. Two schemas are equal when they declare the same, in whatever order.
    """

    items: tuple[tuple[str, FieldType], ...]

    @classmethod
    def of(cls, declared: Mapping[str, str] | None) -> Schema:
        """A schema of {name: type}, or InvalidArgument; None and {} declare nothing."""
        if declared is None:
            return cls(())
        if not isinstance(declared, Mapping):
            raise InvalidArgument(
                f"expected a schema such as {{'price': 'float'}}, got {shown(declared)}"
            )
        if len(declared) > MAX_FIELDS:
            raise InvalidArgument(
                f"expected at most {MAX_FIELDS} declared fields, got {len(declared)}; declare only "
                "those that filters use, the others are stored all the same"
            )
        return cls(tuple((_name(name), _type(name, kind)) for name, kind in declared.items()))

    @cached_property
    def fields(self) -> dict[str, FieldType]:
        """{name: type}; not to be changed."""
        return dict(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(frozenset(self.items))

    def __repr__(self) -> str:
        return f"Schema.of({self.fields!r})"

    def to_json(self) -> dict[str, str]:
        """{name: type}, which `of` reads."""
        return dict(self.items)

    def extract(self, payloads: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
        """The declared fields of n payloads: {name: n values}, None where absent or null.

        int -> int within int64, float -> float, finite, bool -> bool, keyword and text -> str,
        keyword_list -> list of str, datetime -> int (microseconds UTC), geo -> (lat, lon).
        InvalidArgument names row, field, what was expected and what came. Lists may be those of
        the payload itself. Costs about 0.1 us a value.
        """
        rows = _mappings(payloads)
        return {name: _typed(values_at(rows, name), name, kind) for name, kind in self.items}


def _name(name: object) -> str:
    if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
        raise InvalidArgument(
            f"expected a field name of letters, digits and underscores, up to 64 characters and "
            f"not a digit first, or up to 8 of these joined by dots; got {shown(name)}"
        )
    return name


def _type(name: str, kind: object) -> FieldType:
    if isinstance(kind, str) and kind in FIELD_TYPES:
        return next(known for known in FIELD_TYPES if known == kind)
    near = difflib.get_close_matches(str(kind), FIELD_TYPES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidArgument(
        f"expected the type of field {name!r} among {', '.join(FIELD_TYPES)}, "
        f"got {shown(kind)}{hint}"
    )


def _mappings(payloads: Sequence[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """The payloads as mappings, an empty one for None."""
    kinds = set(map(type, payloads))
    if kinds <= {dict}:
        return list(payloads)  # type: ignore[arg-type]
    for row, payload in enumerate(payloads):
        if payload is not None and not isinstance(payload, Mapping):
            raise InvalidArgument(
                f"expected payload {row} to be a dict or None, got {shown(payload)}"
            )
    return [{} if payload is None else payload for payload in payloads]


def values_at(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """What stands under a dotted name in each row, None where the way is not there."""
    first, *further = name.split(".")
    values = [row.get(first) for row in rows]
    for part in further:
        values = [value.get(part) if isinstance(value, Mapping) else None for value in values]
    return values


def _typed(values: list[Any], name: str, kind: FieldType) -> _Typed:
    """Typed values of one field: the whole batch at once where it is plain, else one by one."""
    whole, single, expected = _READERS[kind]
    typed = whole(values, set(map(type, values)))
    return _one_by_one(values, name, single, expected) if typed is None else typed


def _one_by_one(
    values: list[Any], name: str, single: Callable[[Any], Any], expected: str
) -> _Typed:
    typed = []
    for row, value in enumerate(values):
        try:
            typed.append(None if value is None else single(value))
        except (TypeError, ValueError, OverflowError) as error:
            reason = f"; {error}" if str(error) else ""
            raise InvalidArgument(
                f"expected field {name!r} of payload {row} to be {expected}, "
                f"got {shown(value)}{reason}"
            ) from None
    return typed


# Readers of a whole batch: the typed values, or None where a value is unusual or wrong. They see
# the set of types first, since that costs a tenth of a look at each value.

_NONE = type(None)


def _present(values: list[Any], kinds: set[type]) -> list[Any]:
    return [value for value in values if value is not None] if _NONE in kinds else values


def _whole_ints(values: list[Any], kinds: set[type]) -> _Typed | None:
    if not kinds <= {int, _NONE}:
        return None
    try:
        array("q", _present(values, kinds))
    except OverflowError:
        return None
    return values


def _whole_floats(values: list[Any], kinds: set[type]) -> _Typed | None:
    if not kinds <= {float, _NONE}:
        return None
    return values if all(map(isfinite, _present(values, kinds))) else None


def _whole_bools(values: list[Any], kinds: set[type]) -> _Typed | None:
    return values if kinds <= {bool, _NONE} else None


def _whole_strings(values: list[Any], kinds: set[type]) -> _Typed | None:
    if not kinds <= {str, _NONE}:
        return None
    return values if _is_unicode(_present(values, kinds)) else None


def _whole_string_lists(values: list[Any], kinds: set[type]) -> _Typed | None:
    if not kinds <= {list, _NONE}:
        return None
    strings = list(chain.from_iterable(_present(values, kinds)))
    return values if set(map(type, strings)) <= {str} and _is_unicode(strings) else None


def _never_whole(values: list[Any], kinds: set[type]) -> _Typed | None:
    return values if kinds <= {_NONE} else None


def _is_unicode(strings: Iterable[str]) -> bool:
    """Whether all can be encoded: a lone surrogate cannot."""
    try:
        "".join(strings).encode()
    except UnicodeEncodeError:
        return False
    return True


# Readers of one value. ValueError and TypeError carry what the general message does not say.


def _int(value: object) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError
    if not -(2**63) <= value < 2**63:
        raise ValueError("it does not fit int64")
    return int(value)


def _float(value: object) -> float:
    if isinstance(value, bool | np.bool_):
        raise TypeError
    if not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError
    number = float(value)
    if not isfinite(number):
        raise ValueError("leave the field out where there is no value")
    return number


def _bool(value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not _is_unicode([value]):
        raise ValueError("it holds half a surrogate pair, which has no UTF-8 form")
    return str.__str__(value)


def _strings(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return [_string(item) for item in value]


def _micros(value: object) -> int:
    if isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    if not isinstance(value, str | date):
        raise TypeError
    return micros_of(value)


def _place(value: object) -> tuple[float, float]:
    if isinstance(value, Mapping):
        if "lat" not in value or "lon" not in value:
            raise TypeError
        value = (value["lat"], value["lon"])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError
    lat, lon = _float(value[0]), _float(value[1])
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise ValueError("latitudes are within -90..90 and longitudes within -180..180")
    return lat, lon


_Whole = Callable[[list[Any], set[type]], _Typed | None]
_READERS: dict[FieldType, tuple[_Whole, Callable[[Any], Any], str]] = {
    "int": (_whole_ints, _int, "an int within int64"),
    "float": (_whole_floats, _float, "a finite float or an int"),
    "bool": (_whole_bools, _bool, "True or False"),
    "keyword": (_whole_strings, _string, "a string"),
    "keyword_list": (_whole_string_lists, _strings, "a list of strings"),
    "text": (_whole_strings, _string, "a string"),
    "datetime": (_never_whole, _micros, "an ISO 8601 string, a datetime or a date"),
    "geo": (_never_whole, _place, '{"lat": .., "lon": ..} or (lat, lon) in degrees'),
}


# ---- payloads as JSON ----

_PLAIN = frozenset({str, int, bool, _NONE})
_FLAT = _PLAIN | {float}
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)


def normalise(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy that is JSON: dates became ISO strings, tuples lists and NumPy scalars Python's.

    None is {}. InvalidArgument for anything else that is no JSON value, keys that are no strings,
    numbers that are not finite, and nesting beyond MAX_PAYLOAD_DEPTH, as cycles are.
    """
    if payload is None:
        return {}
    if not isinstance(payload, Mapping):
        raise InvalidArgument(f"expected a payload as a dict or None, got {shown(payload)}")
    return _Normaliser().members(payload, "payload", 1)


class _Normaliser:
    """One walk over one payload, with a count of what it has seen.

    The count matters for lists that hold one list many times over: such a payload is small in
    memory and without end as JSON.
    """

    def __init__(self) -> None:
        self._left = MAX_PAYLOAD_BYTES // 2  # a value takes two bytes of JSON or more

    def members(self, value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
        self._enter(len(value), where, depth)
        plain = {}
        for key, item in value.items():
            if type(key) is not str:
                key = self._key(key, where)
            plain[key] = item if type(item) in _PLAIN else self._value(item, where, key, depth)
        return plain

    def _enter(self, count: int, where: str, depth: int) -> None:
        if depth > MAX_PAYLOAD_DEPTH:
            raise InvalidArgument(
                f"expected a payload nested at most {MAX_PAYLOAD_DEPTH} deep, got more at "
                f"{where[:80]}; flatten it, and see that it does not hold itself"
            )
        self._left -= count
        if self._left < 0:
            raise _too_large("more values than fit")

    def _key(self, key: object, where: str) -> str:
        if not isinstance(key, str):
            raise InvalidArgument(
                f"expected the keys of {where[:80]} to be strings, as JSON has them, "
                f"got {shown(key)}"
            )
        return str.__str__(key)

    def _value(self, value: Any, parent: str, key: str | int, depth: int) -> Any:
        if isinstance(value, np.generic):
            value = value.astype("M8[us]").item() if value.dtype.kind == "M" else value.item()
        if isinstance(value, float):
            if not isfinite(value):
                raise InvalidArgument(
                    f"expected finite numbers, as JSON has them, got {value!r} at "
                    f"{parent}[{key!r}]; leave the key out or write None"
                )
            return float(value)
        where = f"{parent}[{key!r}]"
        if isinstance(value, Mapping):
            return self.members(value, where, depth + 1)
        if isinstance(value, list | tuple):
            return self._list(value, where, depth + 1)
        return _scalar(value, where)

    def _list(self, value: Sequence[Any], where: str, depth: int) -> list[Any]:
        self._enter(len(value), where, depth)
        return [
            item if type(item) in _PLAIN else self._value(item, where, index, depth)
            for index, item in enumerate(value)
        ]


def _scalar(value: object, where: str) -> Any:
    """A scalar of an unusual type as a plain one."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, date):
        return value.isoformat()
    hint = "; pass array.tolist()" if isinstance(value, np.ndarray) else ""
    raise InvalidArgument(
        "expected JSON values in a payload (dict, list, str, int, float, bool, None) or datetimes, "
        f"got {shown(value)} at {where[:80]}{hint}"
    )


def _too_large(what: str) -> InvalidArgument:
    return InvalidArgument(
        f"expected a payload of at most {MAX_PAYLOAD_BYTES:,} bytes as JSON, got {what}; "
        "keep large contents elsewhere and their address here"
    )


def _is_flat(payload: dict[Any, Any]) -> bool:
    """Whether it is JSON as it stands, but for numbers that are not finite: the usual case."""
    return set(map(type, payload)) <= {str} and set(map(type, payload.values())) <= _FLAT


def encode_payload(payload: Mapping[str, Any] | None) -> bytes:
    """The payload as compact JSON in UTF-8, normalised first; at most MAX_PAYLOAD_BYTES."""
    if type(payload) is dict and _is_flat(payload):
        try:
            data = _ENCODER.encode(payload).encode()
        except ValueError:
            data = b""  # not finite, or no Unicode: said below
        if data and len(data) <= MAX_PAYLOAD_BYTES:
            return data
    try:
        data = _ENCODER.encode(normalise(payload)).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"expected strings that have a UTF-8 form, got half a surrogate pair in "
            f"{shown(error.object[max(0, error.start - 20) : error.end + 20])}"
        ) from None
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(
            f"expected integers of at most 4,300 digits in a payload: {error}; write it as a string"
        ) from None
    if len(data) > MAX_PAYLOAD_BYTES:
        raise _too_large(f"{len(data):,}")
    return data


def decode_payload(data: bytes) -> dict[str, Any]:
    """What encode_payload wrote; CorruptStorage where it did not write this."""
    try:
        payload = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise CorruptStorage(f"expected a payload as JSON, got {shown(data)}: {error}") from None
    if not isinstance(payload, dict):
        raise CorruptStorage(f"expected a payload as a JSON object, got {shown(data)}")
    return payload


def parse_payload(data: bytes | str) -> dict[str, Any]:
    """A payload that came as JSON text from outside: InvalidArgument where it is none."""
    if len(data) > MAX_PAYLOAD_BYTES:
        raise _too_large(f"{len(data):,}")
    try:
        payload = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"expected a payload as JSON, got {shown(data)}: {error}") from None
    if not isinstance(payload, dict):
        raise InvalidArgument(f"expected a payload as a JSON object, got {shown(data)}")
    return normalise(payload)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
