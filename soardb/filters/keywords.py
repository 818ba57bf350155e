"""The columns of keywords: codes into a dictionary, and an inverted index of the base.

    grown.py, dictionary.py, column.py -> [keywords.py] -> columns.py; read by leaves.py

    Keywords      keyword        int32 codes, -1 for null
    KeywordLists  keyword_list   int32 codes end to end, int64 offsets, and a validity: null is not
                                 empty

The inverted index is built when first asked for, so that a rare value costs its matches and not all
rows. It is of the base alone, which never changes; the tail is tested row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import numpy as np

from soardb.filters.column import Arrays, Column, expect, select
from soardb.filters.dictionary import Dictionary, check_offsets
from soardb.filters.grown import Grown
from soardb.kernels.layout import I32, I64, U8, U32

__all__ = ["KeywordLists", "Keywords", "Postings"]


class Postings:
    """Rows by code: those of code c, sorted, are rows[starts[c] : starts[c + 1]]."""

    __slots__ = ("rows", "starts")

    def __init__(self, codes: I32, rows: I64, size: int) -> None:
        """From pairs (code, row), in any order; codes of -1 are left out, pairs count once."""
        pairs = (codes.astype(np.int64) << 32) | rows
        pairs = np.sort(pairs[codes >= 0] if len(codes) and codes.min() < 0 else pairs)
        if len(pairs):
            pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])]
        self.rows: U32 = (pairs & 0xFFFFFFFF).astype(np.uint32)
        self.starts: I64 = np.zeros(size + 1, np.int64)
        np.cumsum(np.bincount(pairs >> 32, minlength=size), out=self.starts[1:])

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes + self.starts.nbytes)

    def count(self, code: int) -> int:
        """Rows that hold the code; 0 for one that came after the base."""
        return int(self.starts[code + 1] - self.starts[code]) if code + 1 < len(self.starts) else 0

    def of(self, code: int) -> I64:
        """The rows that hold the code, sorted."""
        if code + 1 >= len(self.starts):
            return np.empty(0, np.int64)
        return self.rows[self.starts[code] : self.starts[code + 1]].astype(np.int64)


class Keywords(Column):
    """keyword."""

    parts: ClassVar = {"codes": "<i4", "data": "|u1", "offsets": "<i8"}

    def __init__(self, codes: I32, words: Dictionary) -> None:
        self.codes, self.words = Grown(codes), words
        self._base_words = len(words)
        self._postings: Postings | None = None

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Keywords:
        codes = arrays["codes"]
        words = Dictionary.of(arrays["data"], arrays["offsets"], name)
        expect(len(codes) == n, name, f"{n} codes")
        expect(not n or (codes.min() >= -1 and codes.max() < len(words)), name, "codes in range")
        return cls(codes, words)

    @property
    def postings(self) -> Postings:
        """The inverted index of the base, built when first asked for."""
        if self._postings is None:
            base = self.codes.base
            self._postings = Postings(base, np.arange(len(base)), self._base_words)
        return self._postings

    def append(self, values: Sequence[str | None]) -> None:
        self.codes.append(self.words.encode(values))

    def stored(self, positions: I64 | None) -> Arrays:
        codes = select(self.codes, positions)
        codes, data, offsets = self.words.stored(codes, keep_all=positions is None)
        return {"codes": codes, "data": data, "offsets": offsets}

    @property
    def nbytes(self) -> int:
        postings = self._postings.nbytes if self._postings is not None else 0
        return self.codes.nbytes + self.words.nbytes + postings


class KeywordLists(Column):
    """keyword_list. `ends` has one more element than rows: row i is codes[ends[i] : ends[i + 1]].

    A row holds each of its keywords once.
    """

    parts: ClassVar = {
        "codes": "<i4",
        "ends": "<i8",
        "valid": "|u1",
        "data": "|u1",
        "offsets": "<i8",
    }

    def __init__(self, codes: I32, ends: I64, valid: U8, words: Dictionary) -> None:
        self.codes, self.ends, self.valid, self.words = (
            Grown(codes),
            Grown(ends),
            Grown(valid),
            words,
        )
        self._base_words = len(words)
        self._postings: Postings | None = None

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> KeywordLists:
        codes, ends, valid = arrays["codes"], arrays["ends"], arrays["valid"]
        words = Dictionary.of(arrays["data"], arrays["offsets"], name)
        expect(len(ends) == n + 1 and len(valid) == n, name, f"{n} lists")
        check_offsets(ends, len(codes), f"the column {name!r}")
        expect(not n or valid.max() <= 1, name, "validity 0 or 1")
        in_range = not len(codes) or (codes.min() >= 0 and codes.max() < len(words))
        expect(in_range, name, "codes in range")
        return cls(codes, ends, valid, words)

    @property
    def postings(self) -> Postings:
        """The inverted index of the base, built when first asked for."""
        if self._postings is None:
            ends = self.ends.base
            rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
            self._postings = Postings(self.codes.base, rows, self._base_words)
        return self._postings

    def append(self, values: Sequence[list[str] | None]) -> None:
        lists = [dict.fromkeys(value) if value else () for value in values]
        self.codes.append(self.words.encode(chain.from_iterable(lists)))
        last = len(self.codes) - sum(map(len, lists))
        self.ends.append(last + np.cumsum(list(map(len, lists)), dtype=np.int64))
        self.valid.append([value is not None for value in values])

    def flat(self, positions: I64) -> tuple[I64, I64]:
        """(counts, places): codes a row holds, and where in `codes` all of them stand, in order.

        positions sorted or not.
        """
        starts, ends = self.ends.at(positions), self.ends.at(positions + 1)
        counts = ends - starts
        before = np.cumsum(counts) - counts
        return counts, np.repeat(starts - before, counts) + np.arange(int(counts.sum()))

    def stored(self, positions: I64 | None) -> Arrays:
        if positions is None:
            codes, ends = self.codes.whole(), self.ends.whole()
        else:
            counts, places = self.flat(positions)
            codes, ends = self.codes.at(places), np.zeros(len(positions) + 1, np.int64)
            np.cumsum(counts, out=ends[1:])
        codes, data, offsets = self.words.stored(codes, keep_all=positions is None)
        valid = select(self.valid, positions)
        return {"codes": codes, "ends": ends, "valid": valid, "data": data, "offsets": offsets}

    @property
    def nbytes(self) -> int:
        grown = self.codes.nbytes + self.ends.nbytes + self.valid.nbytes
        return (
            grown + self.words.nbytes + (self._postings.nbytes if self._postings is not None else 0)
        )
