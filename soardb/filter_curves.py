"""What recall costs under filters that follow the vectors: a curve each, once they are asked often.

    search.py, promises.py -> [filter_curves.py] -> curve.py, filters/

Most filters have nothing to do with where a vector lies (a tenant, a price), and then the share of
the points that match says all: a random draw of as many is measured in advance. Others do (a
language, a subject): the nearest matches of a query then stand in far lists, and how far is a
matter of the filter. Which kind it is shows in the counts of matches along the generation, whose
rows lie in the order of the lists: random ones scatter by the binomial law, to a chi-square near 1
a degree of freedom; those of a subject by tens of that.

Until such a filter has a curve its matches are scored one by one, since no rule of the share is
right for all of them. One that is asked again and again is worth measuring, and the worker is told
so.

In memory only, a bounded number of them; safe for many threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from soardb.curve import Curve
from soardb.filters.allowed import Allowed
from soardb.filters.expr import Expr

__all__ = ["FilterCurves", "Known", "unevenness"]

_MOST = 64
_UNEVEN = 1.6  # chi-square a degree of freedom; random filters: 1 +- 0.05 over 1,000 lists
_WORTH = 50  # queries under one filter after which it is measured
_SAME = 0.1  # share by which the matches may change while a curve holds


@dataclass(slots=True)
class Known:
    """One filter: how many matched when it was looked at, and what it needs.

    asked  queries since, while there is no curve
    """

    allowed: Allowed
    is_even: bool
    curve: Curve | None = None
    asked: int = 0


class FilterCurves:
    """The filters that were asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Expr, Known] = OrderedDict()

    def look(self, where: Expr, allowed: Allowed, n_base: int, parts: int, queries: int) -> Known:
        """What is known of a filter that `queries` are asked under now.

        n_base  positions in list order, which `parts` equal pieces are counted of
        """
        with self._lock:
            known = self._held.get(where)
            if known is None or abs(allowed.count - known.allowed.count) > (
                _SAME * known.allowed.count
            ):
                is_even = unevenness(allowed, n_base, parts) <= _UNEVEN
                known = self._held[where] = Known(allowed, is_even)
                while len(self._held) > _MOST:
                    self._held.popitem(last=False)
            self._held.move_to_end(where)
            if not known.is_even and known.curve is None:
                known.asked += queries
            return known

    def wanted(self) -> list[Known]:
        """Those that are worth measuring and are not measured yet."""
        with self._lock:
            return [
                known
                for known in self._held.values()
                if not known.is_even and known.curve is None and known.asked >= _WORTH
            ]


def unevenness(allowed: Allowed, n_base: int, parts: int) -> float:
    """Chi-square a degree of freedom of the matches' counts in equal pieces of the positions."""
    size = n_base // max(parts, 1)
    if not size:
        return 1.0
    whole = size * parts
    if allowed.few is not None:
        inside = allowed.few[allowed.few < whole]
        counts = np.bincount(inside // size, minlength=parts)
    else:
        assert allowed.bits is not None
        mask = np.unpackbits(allowed.bits, count=whole, bitorder="little")
        counts = mask.reshape(parts, size).sum(axis=1, dtype=np.int64)
    share = counts.sum() / whole
    expected = share * size * (1 - share)
    return float(np.square(counts - share * size).mean() / expected) if expected else 1.0
