"""Which rows match: a few positions, or a mask over all.

    evaluate.py, leaves.py -> [matched.py] -> the collection, whose plan depends on the count

Whichever form was computed is kept; the other is made when asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import I64

__all__ = ["Bools", "Matching"]

Bools = npt.NDArray[np.bool_]


class Matching:
    """The rows that match, as sorted positions (is_sparse) or as a mask."""

    __slots__ = ("_count", "_mask", "_positions")

    def __init__(self, positions: I64 | None = None, mask: Bools | None = None) -> None:
        """Either (m,) sorted int64 positions, each once, or an (n,) bool mask; kept, not copied."""
        assert (positions is None) != (mask is None)
        self._positions, self._mask = positions, mask
        self._count = -1 if positions is None else len(positions)

    def __repr__(self) -> str:
        return f"Matching(count={self.count}, is_sparse={self.is_sparse})"

    @property
    def is_sparse(self) -> bool:
        """Whether it was computed as positions."""
        return self._mask is None

    @property
    def count(self) -> int:
        """How many rows match."""
        if self._count < 0:
            assert self._mask is not None
            self._count = int(np.count_nonzero(self._mask))
        return self._count

    def positions(self) -> I64:
        """(count,) sorted int64."""
        if self._positions is None:
            assert self._mask is not None
            self._positions = np.flatnonzero(self._mask)
        return self._positions

    def mask(self, n: int) -> Bools:
        """(n,) bool, for n of at least the rows there were; rows that came since do not match.

        Not to be written to.
        """
        if self._mask is not None and len(self._mask) == n:
            return self._mask
        mask = np.zeros(n, np.bool_)
        mask[self.positions()] = True
        return mask
