"""Filters over metadata: the names that users write become declared fields of the payload.

    langchain.py, llama_index.py -> [fields.py] -> soardb.filters

The metadata of a document is one member of its payload, so that a key of a user never meets a
field of ours. Users write the key alone, `source`; what the collection declares is
`metadata.source`. A name that is declared neither way is an error, never an empty result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from operator import and_
from typing import Any

from soardb.errors import InvalidArgument
from soardb.filters import Expr, F, from_json
from soardb.filters.expr import And, Leaf, Not, Or
from soardb.schema import FIELD_NAME, shown

__all__ = ["Fields", "declared", "reached"]

_JOINS = {"and": list, "or": list, "not": Mapping}


def declared(schema: Mapping[str, str] | None, member: str) -> dict[str, str]:
    """The schema of metadata as that of the payload: {"source": ..} -> {"metadata.source": ..}."""
    return {_checked(member, key): kind for key, kind in (schema or {}).items()}


def _checked(member: str, key: object) -> str:
    name = f"{member}.{key}"
    if not isinstance(key, str) or not FIELD_NAME.fullmatch(name):
        raise InvalidArgument(
            "expected the key of metadata in schema to be made of letters, digits and underscores "
            f"and dots between them, got {shown(key)}; store it under such a key too to filter by "
            "it"
        )
    return name


def reached(payload: Any, name: str) -> Any:
    """What stands under a dotted name in a payload; None where the way is not there."""
    for part in name.split("."):
        payload = payload.get(part) if isinstance(payload, Mapping) else None
    return payload


@dataclass(frozen=True, slots=True)
class Fields:
    """What filters may name.

    schema   the declared fields of the collection
    member   the member of the payload that holds the metadata
    aliases  further names of declared fields
    """

    schema: Mapping[str, str]
    member: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def name(self, key: str) -> str:
        """The declared field that a key stands for. Errors: InvalidArgument."""
        for name in (f"{self.member}.{key}", key, self.aliases.get(key)):
            if name in self.schema:
                return str(name)
        start = f"{self.member}."
        keys = [name.removeprefix(start) for name in self.schema if name.startswith(start)]
        raise InvalidArgument(
            f"expected a filter over declared metadata ({', '.join(keys) or 'none is declared'}), "
            f"got {shown(key)}; declare it when the collection is made, as in "
            f"schema={{{key!r}: 'keyword'}}"
        )

    def expr(self, value: object) -> Expr | None:
        """A filter as Python, SQL, JSON or {key: value} of equalities, under declared names.

        None and {} are no filter. A value of None asks for what has none.
        """
        if value is None or value == {}:
            return None
        return self._named(self._read(value))

    def _read(self, value: object) -> Expr:
        if isinstance(value, Expr):
            return value
        if isinstance(value, str):
            from soardb.filters.parse import parse

            return parse(value)
        if not isinstance(value, Mapping):
            raise InvalidArgument(
                "expected a filter such as {'source': 'a'}, F('source') == 'a' or "
                f"\"source = 'a'\", got {shown(value)}"
            )
        if _is_json_form(value):
            return from_json(value)
        return reduce(and_, (_equality(key, wanted) for key, wanted in value.items()))

    def _named(self, expr: Expr) -> Expr:
        if isinstance(expr, And | Or):
            return type(expr)(tuple(self._named(child) for child in expr.children))
        if isinstance(expr, Not):
            return Not(self._named(expr.child))
        assert isinstance(expr, Leaf)
        return dataclasses.replace(expr, field=self.name(expr.field))

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Refuse a key with a dot that is declared: a dot leads into a nested object.

        The field would be null, and filters would miss the document in silence.
        """
        for key in metadata:
            if isinstance(key, str) and "." in key and f"{self.member}.{key}" in self.schema:
                raise InvalidArgument(
                    f"expected metadata nested as schema declares {key!r}, got a key with a dot "
                    "in it; store nested objects, or a key without dots"
                )


def _is_json_form(value: Mapping[Any, Any]) -> bool:
    """Whether a dict is a filter of the JSON grammar, and not keys with values they equal."""
    if isinstance(value.get("field"), str) and isinstance(value.get("op"), str):
        return True
    if len(value) != 1:
        return False
    ((key, held),) = value.items()
    return key in _JOINS and isinstance(held, _JOINS[key])


def _equality(key: object, value: object) -> Expr:
    if not isinstance(key, str):
        raise InvalidArgument(f"expected the keys of a filter to be strings, got {shown(key)}")
    if value is None:
        return F(key).is_null()
    if not isinstance(value, bool | int | float | str | date):
        raise InvalidArgument(
            f"expected {{key: value}} of plain values that are equal, got {shown(value)} for "
            f"{key!r}; for anything else write F({key!r}).isin([...]) or the like, SQL or JSON"
        )
    return F(key) == value
