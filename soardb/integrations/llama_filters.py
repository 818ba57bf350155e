"""LlamaIndex's MetadataFilters as filters of soardb: the same nodes match.

    llama_index.py -> [llama_filters.py] -> fields.py, soardb.filters

LlamaIndex knows true and false where soardb knows unknown too: of a node without the key, `==` is
false, and `!=`, `nin` and every negation are true. So negations are brought down to the single
comparisons, and there the nodes without the key are named.

Over a `text` field, text_match means all of the words. Over a `keyword` it means a substring, which
no filter of soardb asks for: the values that hold it are collected from the collection first, which
reads every node that has the key.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from soardb.collection import Collection
from soardb.errors import InvalidArgument
from soardb.filters import Expr, F
from soardb.integrations.fields import Fields, reached

__all__ = ["EMPTY", "NODE_ID", "SOURCE", "expression"]

NODE_ID = "node_id"
SOURCE = "ref_doc_id"
EMPTY = "empty"

_PAGE = 1_000

_POSITIVE: dict[FilterOperator, Callable[[F, Any], Expr]] = {
    FilterOperator.EQ: lambda field, value: field == value,
    FilterOperator.GT: lambda field, value: field > value,
    FilterOperator.GTE: lambda field, value: field >= value,
    FilterOperator.LT: lambda field, value: field < value,
    FilterOperator.LTE: lambda field, value: field <= value,
    FilterOperator.IN: F.isin,
    FilterOperator.ANY: F.contains_any,
    FilterOperator.ALL: F.contains_all,
    FilterOperator.CONTAINS: F.contains,
}
_NEGATIVE = {FilterOperator.NE: FilterOperator.EQ, FilterOperator.NIN: FilterOperator.IN}
_TEXT = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


def expression(
    filters: MetadataFilters | None, fields: Fields, collection: Collection
) -> Expr | None:
    """The filter, under declared names; None for none. Errors: InvalidArgument."""
    if filters is None or not filters.filters:
        return None
    return _Translation(fields, collection).tree(filters, False)


class _Translation:
    """One filter on its way, over the fields of one collection."""

    def __init__(self, fields: Fields, collection: Collection) -> None:
        self._fields = fields
        self._collection = collection

    def tree(self, filters: MetadataFilters, is_negated: bool) -> Expr:
        """NOT means none of them, so it is the negations joined by and."""
        if not filters.filters:
            raise InvalidArgument("expected one filter or more in nested MetadataFilters, got none")
        condition = filters.condition or FilterCondition.AND
        is_none_of = condition == FilterCondition.NOT
        is_any_of = condition == FilterCondition.OR
        parts = [
            self.tree(part, is_negated != is_none_of)
            if isinstance(part, MetadataFilters)
            else self.leaf(part, is_negated != is_none_of)
            for part in filters.filters
        ]
        return reduce(or_ if is_any_of != is_negated else and_, parts)

    def leaf(self, leaf: MetadataFilter, is_negated: bool) -> Expr:
        name = self._fields.name(leaf.key)
        operator: FilterOperator = leaf.operator
        if operator == FilterOperator.IS_EMPTY:
            is_empty = F(name).is_null() | F(EMPTY).contains(name)
            return ~is_empty if is_negated else is_empty
        if operator in _NEGATIVE:
            operator, is_negated = _NEGATIVE[operator], not is_negated
        if leaf.value is None:
            raise InvalidArgument(
                f"expected a value for {leaf.key!r} {operator.value}, got None; nodes without the "
                f"key are asked for with the operator {FilterOperator.IS_EMPTY.value}"
            )
        positive = self._positive(name, operator, leaf.value)
        return ~positive | F(name).is_null() if is_negated else positive

    def _positive(self, name: str, operator: FilterOperator, value: Any) -> Expr:
        kind = self._fields.schema[name]
        if operator in _TEXT:
            if not isinstance(value, str):
                raise InvalidArgument(
                    f"expected a string for {operator.value} of {name!r}, got {value!r}"
                )
            if kind != "keyword":
                return F(name).matches(value)
            return F(name).isin(self._values_with(name, value, operator))
        if operator not in _POSITIVE:
            raise InvalidArgument(f"expected an operator that is known here, got {operator.value}")
        if kind == "bool":  # MetadataFilter has no booleans
            value = _as_bools(value)
        return _POSITIVE[operator](F(name), value)

    def _values_with(self, name: str, part: str, operator: FilterOperator) -> list[str]:
        """The values of a keyword that hold a string."""
        is_folded = operator == FilterOperator.TEXT_MATCH_INSENSITIVE
        sought = part.lower() if is_folded else part
        found: set[str] = set()
        token = None
        while True:
            page = self._collection.scroll(
                filter=F(name).not_null(), page_size=_PAGE, page_token=token
            )
            for point in page:
                value = reached(point.payload, name)
                if sought in (value.lower() if is_folded else value):
                    found.add(value)
            token = page.next_page_token
            if token is None:
                return sorted(found)


def _as_bools(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_bools(one) for one in value]
    return bool(value) if value in (0, 1) else value
