"""The text of a filter taken apart: by a closed list of tokens, before any parser sees it.

    a string that a user wrote -> [scan.py] -> parse.py

What is not on the list is refused by name. What is comes out as a text for sqlglot in which each
name is quoted, each run of literals is one number in quotes, and functions bear names of our own:

    price < 10 AND "order".no IN (1, 2)   ->   "price" < '0' AND "order.no" IN ('1')

So no word of SQL that sqlglot knows and we do not can play a part, and a hundred thousand literals
cost it as much as one. The scan bounds tokens and parentheses too; of grammar it knows nothing.
"""

from __future__ import annotations

import re
from typing import NoReturn

from soardb.errors import InvalidArgument
from soardb.filters.expr import MAX_NODES, Micros, Value
from soardb.schema import FIELD_NAME, micros_of, shown

__all__ = ["FUNCTIONS", "OWN", "RESERVED", "Scan"]

FUNCTIONS = (
    "startswith", "contains", "contains_any", "contains_all", "matches", "matches_any",
    "within_radius", "within_box",
)  # fmt: skip

_MAX_TOKENS = 20 * MAX_NODES
_MAX_PARENTHESES = 32
_MAX_NUMBER_LENGTH = 100

_NAME = r'(?:[A-Za-z_]\w*|"(?:[^"]|"")*")'
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    | (?P<comment>--|/\*|\#)
    | (?P<moment>(?i:TIMESTAMP|DATETIME|DATE)\s*'(?:[^']|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<number>[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<name>{_NAME}(?:\.{_NAME})*)(?P<call>(?=\s*\())?
    | (?P<sign><=|>=|<>|!=|==|[=<>(),])
    | (?P<other>.)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)

_KEYWORDS = {"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "LIKE"}
_CONSTANTS = {"TRUE": True, "FALSE": False}
_REFUSED = {
    "ALL", "ALTER", "ANY", "AS", "ATTACH", "CASE", "CAST", "COLLATE", "CREATE", "DELETE",
    "DISTINCT", "DIV", "DROP", "ELSE", "END", "ESCAPE", "EXISTS", "FROM", "GLOB", "GROUP",
    "HAVING", "ILIKE", "INSERT", "INTERSECT", "INTERVAL", "JOIN", "LIMIT", "MOD", "OFFSET",
    "ORDER", "PRAGMA", "REGEXP", "RLIKE", "SELECT", "SIMILAR", "SOME", "THEN", "UNION", "UPDATE",
    "WHEN", "WHERE", "WITH", "XOR",
}  # fmt: skip
RESERVED = _KEYWORDS | _REFUSED | set(_CONSTANTS) | {"TIMESTAMP", "DATETIME", "DATE"}
OWN = "soardb_"  # before the names of our functions, so that sqlglot knows none of them


class Scan:
    """One pass over a text: `text` for sqlglot, `lists` the literals that its numbers stand for."""

    def __init__(self, text: str) -> None:
        self.lists: list[list[Value]] = []
        self._out: list[str] = []
        self._has_comma = False  # after a literal, not written yet: a literal may follow
        self._is_behind_value = False
        self._is_behind_comma = False
        self._depth = 0
        for found in _TOKEN.finditer(text):
            if found.lastgroup != "space":
                self._token(found)
        if self._depth:
            raise InvalidArgument(f"expected a ) for each ( in the filter {shown(text, 200)}")
        self._write()
        self.text = " ".join(self._out)

    def _token(self, found: re.Match[str]) -> None:
        kind, token = found.lastgroup, found.group()
        if kind == "sign":
            self._sign(token)
            return
        self._is_behind_comma = False
        if kind in ("call", "name"):
            self._name(found.group("name"), is_call=found.group("call") is not None)
        elif kind == "number":
            self._number(token)
        elif kind == "string":
            self._literal(_unquoted(token, "'"))
        elif kind == "moment":
            self._literal(_moment(token[token.index("'") :]))
        else:
            _refuse_character(token, found.string[found.start() : found.start() + 20])

    def _write(self, *tokens: str) -> None:
        """Emit tokens, and before them the comma that was held back."""
        if self._has_comma:
            self._out.append(",")
            self._has_comma = False
        self._out += tokens
        if len(self._out) > _MAX_TOKENS:
            raise InvalidArgument(
                f"expected a filter of at most {MAX_NODES:,} parts, got many more; for many values "
                "of one field use IN (...)"
            )

    def _literal(self, value: Value) -> None:
        if self._has_comma:
            self._has_comma = False
            self.lists[-1].append(value)
        else:
            self._write(f"'{len(self.lists)}'")
            self.lists.append([value])
        self._is_behind_value = True

    def _number(self, token: str) -> None:
        digits = "".join(token.split())
        if digits[0] in "+-" and self._is_behind_value:
            _refuse_character(digits[0], token)
        if len(digits) > _MAX_NUMBER_LENGTH:
            raise InvalidArgument(
                f"expected numbers of at most {_MAX_NUMBER_LENGTH} characters, got {shown(digits)}"
            )
        self._literal(int(digits) if digits.lstrip("+-").isdigit() else float(digits))

    def _sign(self, token: str) -> None:
        if (token == "," and not self._is_behind_value) or (token == ")" and self._is_behind_comma):
            raise InvalidArgument("expected a value on both sides of each comma in the filter")
        self._is_behind_comma = token == ","
        if token == "," and self._out and self._is_behind_value and self._out[-1][0] == "'":
            self._write()
            self._has_comma = True
        else:
            self._write(token)
        self._depth += (token == "(") - (token == ")")
        self._is_behind_value = token == ")"
        if self._depth < 0:
            raise InvalidArgument("expected a ( for each ) in the filter, got a ) too many")
        if self._depth > _MAX_PARENTHESES:
            raise InvalidArgument(
                f"expected parentheses at most {_MAX_PARENTHESES} deep in a filter, got more"
            )

    def _name(self, name: str, is_call: bool) -> None:
        word = name.upper()
        if word in _CONSTANTS:
            self._literal(_CONSTANTS[word])
        elif word in _KEYWORDS:
            self._write(word)
            self._is_behind_value = word == "NULL"
        elif word in _REFUSED:
            raise InvalidArgument(
                f"expected what the filter language has, got {word}, which is not part of it; "
                f'if it is the name of a field, quote it: "{name}"'
            )
        elif is_call:
            self._write(OWN + _function(name))
        else:
            self._write(f'"{_field(name)}"')
            self._is_behind_value = True


def _unquoted(token: str, quote: str) -> str:
    return token[1:-1].replace(quote * 2, quote)


def _moment(token: str) -> Micros:
    try:
        return Micros(micros_of(_unquoted(token, "'")))
    except ValueError as error:
        raise InvalidArgument(
            f"expected an ISO 8601 date and time after TIMESTAMP or DATE, got {token}: {error}"
        ) from None


def _function(name: str) -> str:
    if name.lower() in FUNCTIONS:
        return name.lower()
    raise InvalidArgument(
        f"expected one of the functions {', '.join(FUNCTIONS)}, got {name}(...), which is not "
        "part of the filter language"
    )


def _field(name: str) -> str:
    """The dotted name of a field whose parts may be quoted."""
    parts = re.findall(_NAME, name, re.ASCII)
    plain = ".".join(_unquoted(part, '"') if part[0] == '"' else part for part in parts)
    if FIELD_NAME.fullmatch(plain):
        return plain
    raise InvalidArgument(
        f"expected the name of a field, got {name}; strings stand in single quotes: 'text'"
    )


def _refuse_character(token: str, context: str) -> NoReturn:
    what = {
        "'": "a string without its closing '",
        '"': 'a quoted name without its closing "',
        ";": "a ; where only one filter is expected",
        "--": "a comment",
        "/*": "a comment",
        "#": "a comment",
        "?": "a parameter; write the value itself",
        ":": "a parameter or a cast; write the value itself",
    }.get(token)
    if what is None and token in "+-*/%|&^~":
        what = f"the operator {token}; filters compare a field with values and do not compute"
    raise InvalidArgument(
        f"expected what the filter language has, got {what or repr(token)}, at {context!r}"
    )
