"""Rows that a filter lets through, in the form that a search needs, and a memory of the last ones.

    search.py -> [allowed.py] -> matched.py

Filters are asked again and again (a tenant, a language), and between two writes the answer is the
same: `Remembered` keeps it for as long as the version of the contents does not change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from soardb.filters.expr import Expr
from soardb.filters.matched import Matching
from soardb.kernels.layout import I64, U8

__all__ = ["Allowed", "Remembered"]

_MOST_ENTRIES = 32
_MOST_BYTES = 32 * 2**20


_FEW = 64  # as positions where at most one row in so many matches: the bitmap would be larger


@dataclass(frozen=True, slots=True)
class Allowed:
    """`count` of n rows: as rising positions where they are few, else as a bitmap."""

    n: int
    count: int
    few: I64 | None
    bits: U8 | None

    @classmethod
    def of(cls, matching: Matching, n: int, alive: np.ndarray | None) -> Allowed:
        """The matching rows that are alive ((n,) bool; None: all are)."""
        if matching.is_sparse:
            positions = matching.positions()
            if alive is not None:
                positions = positions[alive[positions]]
            if len(positions) * _FEW <= n:
                return cls(n, len(positions), positions, None)
            mask = np.zeros(n, bool)
            mask[positions] = True
        else:
            mask = matching.mask(n) if alive is None else matching.mask(n) & alive
        count = int(np.count_nonzero(mask))
        if count * _FEW <= n:
            return cls(n, count, np.flatnonzero(mask), None)
        return cls(n, count, None, np.packbits(mask, bitorder="little"))

    def positions(self) -> I64:
        """Rising positions."""
        if self.few is not None:
            return self.few
        assert self.bits is not None
        return np.flatnonzero(np.unpackbits(self.bits, count=self.n, bitorder="little"))

    def bitmap(self) -> U8:
        """(ceil(n / 8),) uint8, least bit first."""
        if self.bits is not None:
            return self.bits
        mask = np.zeros(self.n, bool)
        mask[self.positions()] = True
        return np.packbits(mask, bitorder="little")

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in (self.few, self.bits) if part is not None)


class Remembered:
    """The answers of the last filters, for one version of the contents. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = -1
        self._held: OrderedDict[Expr, Allowed] = OrderedDict()
        self._bytes = 0

    def get(self, version: int, expr: Expr) -> Allowed | None:
        """What was remembered of a filter, if the contents are the same still."""
        with self._lock:
            if version != self._version:
                return None
            found = self._held.get(expr)
            if found is not None:
                self._held.move_to_end(expr)
            return found

    def put(self, version: int, expr: Expr, allowed: Allowed) -> None:
        """Remember an answer; the oldest go when there are many."""
        with self._lock:
            if version != self._version:
                self._held.clear()
                self._version, self._bytes = version, 0
            if expr in self._held:
                return
            self._held[expr] = allowed
            self._bytes += allowed.nbytes
            while len(self._held) > _MOST_ENTRIES or self._bytes > _MOST_BYTES:
                _, gone = self._held.popitem(last=False)
                self._bytes -= gone.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._bytes
