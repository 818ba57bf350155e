"""One array that only grows: a base that is never copied, and a tail behind it.

    columns.py -> [grown.py]

The base is what was read from a file, or nothing; appending fills the tail, which is enlarged by
half as it fills. Reading names how many elements it wants to see, so that a reader which took its
count before an append sees the same rows during and after it, without a lock.

What the elements mean is not known here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import I64

__all__ = ["Array", "Grown"]

Array = npt.NDArray[Any]

_FIRST_TAIL = 256


class Grown:
    """A one-dimensional array of base and tail."""

    __slots__ = ("_tail", "_used", "base")

    def __init__(self, base: Array) -> None:
        self.base = base
        self._tail: Array = np.empty(0, base.dtype)
        self._used = 0

    def __len__(self) -> int:
        return len(self.base) + self._used

    @property
    def nbytes(self) -> int:
        """Bytes of both, room that is reserved included."""
        return int(self.base.nbytes + self._tail.nbytes)

    def append(self, values: npt.ArrayLike) -> None:
        """Add elements at the end; amortised constant time each."""
        added = np.asarray(values, self.base.dtype)
        used = self._used + len(added)
        if used > len(self._tail):
            tail = np.empty(max(used, len(self._tail) * 3 // 2, _FIRST_TAIL), self.base.dtype)
            tail[: self._used] = self._tail[: self._used]
            self._tail = tail
        self._tail[self._used : used] = added
        self._used = used

    def parts(self, n: int) -> tuple[Array, Array]:
        """The first n elements as two views: those of the base, those of the tail."""
        in_base = min(n, len(self.base))
        return self.base[:in_base], self._tail[: n - in_base]

    def at(self, positions: I64) -> Array:
        """(m,) elements at positions in any order."""
        in_base = positions < len(self.base)
        if in_base.all():
            return self.base[positions]
        if not in_base.any():
            return self._tail[positions - len(self.base)]
        out = np.empty(len(positions), self.base.dtype)
        out[in_base] = self.base[positions[in_base]]
        out[~in_base] = self._tail[positions[~in_base] - len(self.base)]
        return out

    def whole(self) -> Array:
        """All elements; a view where only one of base and tail holds any."""
        base, tail = self.parts(len(self))
        if not len(tail):
            return base
        return tail if not len(base) else np.concatenate([base, tail])
