"""Which rows does a filter match?

    check.as_filter (a tree), columns.py -> [evaluate.py] -> Matching

SQL's logic of three values: a comparison with null is unknown, so is its negation, and only true
matches. NOT is pushed to the leaves first (not (a and b) is not a, or not b), so that of each leaf
just one of "where is it true" and "where is it false" is asked, and unknown needs no place of its
own.

AND begins with the child that leaves the fewest rows. While few are left, the next child is asked
about these alone; so a rare keyword with a price costs the rows of that keyword. OR is the union.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NoReturn

import numpy as np

from soardb import deadline
from soardb.filters.columns import Columns
from soardb.filters.expr import And, Expr, Leaf, Not, Or
from soardb.filters.leaves import FEW, Bound, TextMatch, bound_leaf
from soardb.filters.matched import Bools, Matching
from soardb.kernels.layout import I64

__all__ = ["Matching", "TextMatch", "matching", "no_text_match"]


def matching(
    expr: Expr,
    columns: Columns,
    text_match: TextMatch,
    candidates: I64 | None = None,
) -> Matching:
    """The rows for which a checked filter is true.

    expr        as `as_filter` gives it, for the schema of the columns
    text_match  (field, words, mode) to sorted int64 positions; `no_text_match` where no field is
                text
    candidates  (m,) sorted int64 positions, each once: look only there

    Costs a pass over each column that is named, less where a keyword is rare: then its matches.
    """
    bound = _bound(expr, False, columns, len(columns), text_match)
    if candidates is None:
        return bound.everywhere()
    return Matching(candidates[bound.among(candidates)])


def no_text_match(field: str, words: str, mode: Literal["all", "any"]) -> NoReturn:
    """For schemas without text fields: never called."""
    raise AssertionError(f"a text filter on {field!r}, where no field is text")


def _bound(expr: Expr, is_negated: bool, columns: Columns, n: int, text_match: TextMatch) -> Bound:
    """The tree over the first n rows, NOT pushed to the leaves."""
    if isinstance(expr, Not):
        return _bound(expr.child, not is_negated, columns, n, text_match)
    if isinstance(expr, And | Or):
        parts = [_bound(child, is_negated, columns, n, text_match) for child in expr.children]
        return _All(parts, n) if isinstance(expr, And) != is_negated else _Any(parts, n)
    assert isinstance(expr, Leaf)
    return bound_leaf(expr, is_negated, columns[expr.field], n, text_match)


class _All(Bound):
    """Rows that all parts match."""

    def __init__(self, parts: Sequence[Bound], n: int) -> None:
        self.n = n
        self._parts = sorted(parts, key=lambda part: (part.expected, part.cost))
        self.expected = self._parts[0].expected
        self.cost = sum(part.cost for part in parts)

    def everywhere(self) -> Matching:
        current = self._parts[0].everywhere()
        for part in self._parts[1:]:
            deadline.check()
            if current.count * FEW <= self.n:
                few = current.positions()
                current = Matching(few[part.among(few)])
            else:
                current = _intersection(current, part.everywhere(), self.n)
        return current

    def among(self, at: I64) -> Bools:
        kept = np.arange(len(at))
        for part in self._parts:
            deadline.check()
            kept = kept[part.among(at[kept])]
        flags = np.zeros(len(at), np.bool_)
        flags[kept] = True
        return flags


def _intersection(one: Matching, other: Matching, n: int) -> Matching:
    if one.is_sparse:
        one, other = other, one
    if other.is_sparse:
        few = other.positions()
        return Matching(few[one.mask(n)[few]])
    mask = one.mask(n)
    mask &= other.mask(n)
    return Matching(mask=mask)


class _Any(Bound):
    """Rows that a part matches."""

    def __init__(self, parts: Sequence[Bound], n: int) -> None:
        self.n = n
        self._parts = sorted(parts, key=lambda part: part.cost)
        self.expected = min(n, sum(part.expected for part in parts))
        self.cost = sum(part.cost for part in parts)

    def everywhere(self) -> Matching:
        found = []
        for part in self._parts:
            deadline.check()
            found.append(part.everywhere())
        if all(one.is_sparse for one in found) and sum(one.count for one in found) * FEW <= self.n:
            return Matching(np.unique(np.concatenate([one.positions() for one in found])))
        mask = np.zeros(self.n, np.bool_)
        for one in found:
            if one.is_sparse:
                mask[one.positions()] = True
            else:
                mask |= one.mask(self.n)
        return Matching(mask=mask)

    def among(self, at: I64) -> Bools:
        flags, left = np.zeros(len(at), np.bool_), np.arange(len(at))
        for part in self._parts:
            deadline.check()
            hits = part.among(at[left])
            flags[left[hits]] = True
            left = left[~hits]
        return flags
