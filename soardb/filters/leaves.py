"""One comparison, bound to its column: where is it true?

    elementwise.py, keywords.py -> [leaves.py] -> evaluate.py

A bound leaf answers two questions: which of all rows, and which of these few. Negation is part of
the leaf: a leaf that is unknown for a null is so when negated, hence "not true" and "false" are
different rows, and `is_negated` asks for the latter.

How leaves combine is not known here.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from soardb.filters.column import Column, Texts
from soardb.filters.dictionary import Codes
from soardb.filters.elementwise import OPPOSITE, Test, false_of, known, negated, test_of, whole
from soardb.filters.expr import (
    Compare,
    ContainsAll,
    ContainsAny,
    In,
    IsNull,
    Leaf,
    Matches,
    StartsWith,
)
from soardb.filters.grown import Array
from soardb.filters.keywords import KeywordLists, Keywords
from soardb.filters.matched import Bools, Matching
from soardb.kernels.layout import I64

__all__ = ["FEW", "Bound", "TextMatch", "bound_leaf"]

TextMatch = Callable[[str, str, Literal["all", "any"]], I64]
"""(field, words, mode) to the sorted positions whose text holds all or any of the words."""

FEW = 8
"""One row in so many is few: then single rows are looked up rather than all tested."""

_MIN_POSTED = 4096  # rows from which an inverted index is worth its making


class Bound(ABC):
    """A filter, or part of one, over the first n rows of the columns.

    expected  about how many rows match, at most n
    cost      what testing one row costs, in comparisons of a number
    """

    n: int
    expected: int
    cost: int

    @abstractmethod
    def everywhere(self) -> Matching:
        """Which of all n rows; a mask in it may be changed by the caller."""

    @abstractmethod
    def among(self, at: I64) -> Bools:
        """(m,) sorted positions to (m,) flags."""


def bound_leaf(
    leaf: Leaf, is_negated: bool, column: Column, n: int, text_match: TextMatch
) -> Bound:
    """The leaf over its column, where it is true; is_negated: where it is false."""
    if isinstance(leaf, Matches):
        assert isinstance(column, Texts)
        return _Words(leaf, is_negated, column, n, text_match)
    if isinstance(leaf, ContainsAny | ContainsAll):
        assert isinstance(column, KeywordLists)
        return _Lists(leaf, is_negated, column, n)
    if isinstance(leaf, IsNull):
        return _Rowwise(known(column) if is_negated else negated(known(column)), n)
    if isinstance(leaf, Compare) and is_negated:
        leaf, is_negated = dataclasses.replace(leaf, op=OPPOSITE[leaf.op]), False
    if isinstance(column, Keywords):
        return _bound_keywords(leaf, is_negated, column, n)
    test = test_of(leaf, column)
    return _Rowwise(false_of(test, column) if is_negated else test, n)


# ---- values by themselves ----


class _Rowwise(Bound):
    """A test of each row by itself."""

    def __init__(self, test: Test, n: int) -> None:
        self._test, self.n = test, n
        self.expected, self.cost = n, test.cost

    def everywhere(self) -> Matching:
        return Matching(mask=whole(self._test, self.n))

    def among(self, at: I64) -> Bools:
        return self._test.holds(*(grown.at(at) for grown in self._test.over))


# ---- keywords ----


def _bound_keywords(leaf: Leaf, is_negated: bool, column: Keywords, n: int) -> Bound:
    if isinstance(leaf, Compare) and leaf.op == "ne":
        leaf, is_negated = dataclasses.replace(leaf, op="eq"), True
    codes = _codes(leaf, column)
    test = Test((column.codes,), _holder(codes, len(column.words)))
    return _Rowwise(false_of(test, column), n) if is_negated else _Coded(test, codes, column, n)


def _codes(leaf: Leaf, column: Keywords) -> Codes:
    """The codes of the strings for which the leaf is true."""
    if isinstance(leaf, StartsWith):
        return column.words.starting_with(leaf.prefix)
    if isinstance(leaf, In):
        return column.words.equal_to(leaf.values)  # type: ignore[arg-type]
    assert isinstance(leaf, Compare)
    text = str(leaf.value)
    if leaf.op == "eq":
        return column.words.equal_to((text,))
    return column.words.compared(leaf.op, text)


def _holder(codes: Codes, size: int) -> Callable[[Array], Bools]:
    """A function from codes, of `size` strings, to whether each is in the set; -1 never is."""
    others = codes.others
    if len(others) > 4:
        table = np.zeros(size + 1, np.bool_)  # the last is for -1
        table[codes.low : codes.high] = True
        table[others] = True
        return lambda found: np.asarray(table[found])

    def holds(found: Array) -> Bools:
        if codes.low < codes.high:
            flags = (found >= codes.low) & (found < codes.high)
        elif len(others):
            return _any_equal(found, others.tolist())
        else:
            return np.zeros(len(found), np.bool_)
        return flags | _any_equal(found, others.tolist()) if len(others) else flags

    return holds


def _any_equal(found: Array, codes: Iterable[int]) -> Bools:
    first, *others = codes
    flags: Bools = found == first
    for code in others:
        flags |= found == code
    return flags


class _Coded(_Rowwise):
    """A set of keywords: by the inverted index where they are rare, else by a test of each row."""

    def __init__(self, test: Test, codes: Codes, column: Keywords, n: int) -> None:
        super().__init__(test, n)
        self._codes, self._column = codes, column
        self._in_base = len(column.codes.base)
        if self._in_base >= _MIN_POSTED:
            self._posted = self._count()
            self.expected = self._posted * n // self._in_base
        else:
            self._posted = self._in_base
            self.expected = n // 4  # a guess that puts it before comparisons of numbers

    def _count(self) -> int:
        """Rows of the base that match."""
        codes, postings = self._codes, self._column.postings
        in_span = int(postings.starts[codes.high] - postings.starts[codes.low])
        return in_span + sum(map(postings.count, codes.others.tolist()))

    def everywhere(self) -> Matching:
        if self._in_base < _MIN_POSTED or self._posted * FEW > self._in_base:
            return super().everywhere()
        _, tail = self._column.codes.parts(self.n)
        later = np.flatnonzero(self._test.holds(tail)) + self._in_base
        return Matching(np.concatenate([self._listed(), later]))

    def _listed(self) -> I64:
        """The rows of the base that match, sorted."""
        codes, postings = self._codes, self._column.postings
        span = postings.rows[postings.starts[codes.low] : postings.starts[codes.high]]
        lists = [postings.of(code) for code in codes.others.tolist()]
        if not len(span) and len(lists) == 1:
            return lists[0]
        return np.sort(np.concatenate([span.astype(np.int64), *lists]))


# ---- lists of keywords ----


class _Lists(Bound):
    """Rows whose list holds any or all of some keywords."""

    def __init__(
        self, leaf: ContainsAny | ContainsAll, is_negated: bool, column: KeywordLists, n: int
    ) -> None:
        self.n, self._column, self._is_negated = n, column, is_negated
        self._needs_all = isinstance(leaf, ContainsAll)
        wanted = set(leaf.values)
        codes = column.words.equal_to(wanted)
        self._codes = codes.others.tolist()
        self._is_possible = not self._needs_all or len(self._codes) == len(wanted)
        self._holds = _holder(codes, len(column.words))
        self._in_base = len(column.valid.base)
        self.cost, self.expected = 8, n if is_negated else self._expected()

    def _expected(self) -> int:
        counts = [self._column.postings.count(code) for code in self._codes]
        if not counts or not self._is_possible:
            return self.n if self._needs_all and self._is_possible else 0
        matches = min(counts) if self._needs_all else sum(counts)
        return min(self.n, matches + self.n - self._in_base)

    def everywhere(self) -> Matching:
        found = Matching(np.concatenate([self._listed(), self._later()]))
        if self._is_negated:
            mask = found.mask(self.n)
            return Matching(
                mask=np.logical_not(mask, out=mask) & whole(known(self._column), self.n)
            )
        return found if found.count * FEW <= self.n else Matching(mask=found.mask(self.n))

    def among(self, at: I64) -> Bools:
        counts, places = self._column.flat(at)
        ends = np.cumsum(counts)
        flags = self._enough(self._holds(self._column.codes.at(places)), ends - counts, ends)
        is_known: Bools = self._column.valid.at(at) != 0
        return is_known & ~flags if self._is_negated else is_known & flags

    def _enough(self, hits: Bools, starts: I64, ends: I64) -> Bools:
        """Whether each stretch of hits has enough of them. A row holds a keyword once."""
        before = np.concatenate([[0], np.cumsum(hits)])
        found = before[ends] - before[starts]
        if self._needs_all:
            return np.asarray(found == len(self._codes)) & self._is_possible
        return np.asarray(found > 0)

    def _listed(self) -> I64:
        """The rows of the base that match, sorted."""
        postings = self._column.postings
        codes = sorted(self._codes, key=postings.count)
        if not self._is_possible or (not codes and not self._needs_all):
            return np.empty(0, np.int64)
        if not codes:
            return np.flatnonzero(self._column.valid.base)
        rows = postings.of(codes[0])
        for code in codes[1:]:
            more = postings.of(code)
            rows = _shared(rows, more) if self._needs_all else np.concatenate([rows, more])
        return rows if self._needs_all or len(codes) == 1 else _once(rows, self._in_base)

    def _later(self) -> I64:
        """The rows behind the base that match, sorted."""
        column = self._column
        _, ends = column.ends.parts(self.n + 1)
        if not len(ends):
            return np.empty(0, np.int64)
        first = len(column.codes.base)
        ends = ends - first
        codes = column.codes.parts(first + int(ends[-1]))[1]
        flags = self._enough(self._holds(codes), np.concatenate([[0], ends[:-1]]), ends)
        flags &= column.valid.parts(self.n)[1] != 0
        return np.flatnonzero(flags) + self._in_base


def _shared(one: I64, other: I64) -> I64:
    """What two sorted arrays share; cheap where the first is short."""
    shared: I64 = one[_is_in(one, other)]
    return shared


def _once(rows: I64, n: int) -> I64:
    """Sorted, each once."""
    if len(rows) * FEW <= n:
        return np.unique(rows)
    mask = np.zeros(n, np.bool_)
    mask[rows] = True
    return np.flatnonzero(mask)


def _is_in(at: I64, positions: I64) -> Bools:
    """(m,) whether each is among sorted positions."""
    if not len(positions):
        return np.zeros(len(at), np.bool_)
    places = np.searchsorted(positions, at)
    places[places == len(positions)] = 0
    return np.equal(positions[places], at)


# ---- words ----


class _Words(Bound):
    """Rows whose text holds some words; found by the full text search, once."""

    def __init__(
        self, leaf: Matches, is_negated: bool, column: Texts, n: int, text_match: TextMatch
    ) -> None:
        self.n, self._leaf, self._is_negated = n, leaf, is_negated
        self._column, self._text_match = column, text_match
        # Its cost does not depend on the rows that are left, its result helps the others.
        self.expected, self.cost = n if is_negated else n // 16, 1

    def _found(self) -> I64:
        leaf = self._leaf
        found = np.asarray(self._text_match(leaf.field, leaf.words, leaf.mode), np.int64)
        return found[: np.searchsorted(found, self.n)]  # without rows that came since

    def everywhere(self) -> Matching:
        found = Matching(self._found())
        if not self._is_negated:
            return found
        return Matching(mask=~found.mask(self.n) & whole(known(self._column), self.n))

    def among(self, at: I64) -> Bools:
        flags = _is_in(at, self._found())
        return ~flags & (self._column.valid.at(at) != 0) if self._is_negated else flags
