"""The rows of an index: ids, vectors and their 8-bit copies, dense at all times.

    flat.py, ivf.py -> [rows.py]

Row numbers run from 0 to n - 1 without holes: removing a row moves the last one into its place, and
`remove` says which moved. Arrays grow by half as they fill. Arrays mapped from a file are private
to the process and become ordinary ones at the first growth.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from soardb.errors import CorruptStorage, InvalidArgument
from soardb.kernels.layout import F32, I64, U8
from soardb.kernels.memory import empty_aligned

__all__ = ["Rows", "expect_array"]


def expect_array(
    arrays: dict[str, np.ndarray], name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> None:
    """CorruptStorage unless arrays[name] is of that dtype and shape."""
    got = arrays[name]
    if got.dtype != dtype or got.shape != shape:
        raise CorruptStorage(
            f"expected array {name!r} of shape {shape} and {np.dtype(dtype)}, "
            f"got {got.shape} and {got.dtype}"
        )


class Rows:
    """n rows; `vectors`, `ids`, `store` and `store_bias` are views of exactly n rows.

    store (n, stride) uint8 and store_bias (n,) float32 may be absent: stride 0, has_bias False.
    """

    def __init__(self, d: int, stride: int = 0, has_bias: bool = False) -> None:
        self._arrays: dict[str, np.ndarray] = {
            "vectors": np.empty((0, d), np.float32),
            "ids": np.empty(0, np.int64),
            "store": np.empty((0, stride), np.uint8),
            "store_bias": np.empty(0, np.float32),
        }
        self._has_bias = has_bias
        self._n = 0
        self._sorted: tuple[I64, I64] | None = None  # ids in order, and their rows
        self._recent: dict[int, int] = {}  # id to row, added since

    @classmethod
    def of(
        cls, arrays: dict[str, np.ndarray], d: int, stride: int = 0, has_bias: bool = False
    ) -> Rows:
        """Rows over the arrays of `arrays()`; CorruptStorage where a shape or dtype differs."""
        rows, n = cls(d, stride, has_bias), len(arrays["ids"])
        absent = {"store": stride == 0, "store_bias": not has_bias}
        for name, empty in rows._arrays.items():
            shape = (0 if absent.get(name) else n, *empty.shape[1:])
            expect_array(arrays, name, empty.dtype, shape)
            rows._arrays[name] = arrays[name]
        rows._n = n
        return rows

    def __len__(self) -> int:
        return self._n

    @property
    def vectors(self) -> F32:
        """(n, d) float32."""
        return self._arrays["vectors"][: self._n]

    @property
    def ids(self) -> I64:
        """(n,) int64."""
        return self._arrays["ids"][: self._n]

    @property
    def store(self) -> U8:
        """(n, stride) uint8."""
        return self._arrays["store"][: self._n]

    @property
    def store_bias(self) -> F32:
        """(n,) float32, or empty."""
        return self._arrays["store_bias"][: self._n if self._has_bias else 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be saved."""
        return {
            "vectors": self.vectors,
            "ids": self.ids,
            "store": self.store,
            "store_bias": self.store_bias,
        }

    def whole(self) -> dict[str, np.ndarray]:
        """The arrays with their spare room: written in place until they are full, then replaced."""
        return self._arrays

    def memory(self) -> dict[str, int]:
        """Bytes of each array, spare room included; "lookup" is what finds ids, made when asked."""
        lookup = sum(array.nbytes for array in self._sorted or ())
        lookup += (sys.getsizeof(self._recent) + 64 * len(self._recent)) if self._recent else 0
        return {name: array.nbytes for name, array in self._arrays.items()} | {"lookup": lookup}

    def new_ids(self, ids: I64 | None, n: int) -> I64:
        """The ids of n rows about to be added: checked to be new and distinct, or made."""
        if ids is None:
            highest, top = int(self.ids.max(initial=-1)), np.iinfo(np.int64).max
            if n > top - highest:
                raise InvalidArgument(
                    f"expected {n} numbers free above the highest id, {highest}; pass ids"
                )
            return np.arange(1, n + 1, dtype=np.int64) + highest
        ordered = np.sort(ids)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            raise InvalidArgument(f"expected distinct ids, got {twice[0]} twice in one call")
        held = self.find(ids) >= 0
        if held.any():
            raise InvalidArgument(
                f"expected ids that are not in the index, got {ids[held.argmax()]}; "
                "remove it first to replace it"
            )
        return ids

    def reserve(self, n: int) -> None:
        """Room for n rows in all: appends copy nothing until they are more."""
        for name, array in self._arrays.items():
            if n > len(array) and (name != "store_bias" or self._has_bias):
                self._grow(name, n)

    def truncate(self, n: int) -> None:
        """Forget the rows from n on."""
        self._n = n
        self._forget_order()

    def append(
        self, vectors: F32, ids: I64, store: U8 | None = None, bias: F32 | None = None
    ) -> I64:
        """Add rows at the end; returns their row numbers."""
        first, self._n = self._n, self._n + len(ids)
        self._write("vectors", first, vectors)
        self._write("ids", first, ids)
        if store is not None:
            self._write("store", first, store)
        if bias is not None and self._has_bias:
            self._write("store_bias", first, bias)
        if self._sorted is not None:
            if len(ids) + len(self._recent) > 1024 + first // 8:
                self._forget_order()
            else:
                self._recent.update(zip(ids.tolist(), range(first, self._n), strict=True))
        return np.arange(first, self._n)

    def growth(self, n: int) -> int:
        """Bytes of larger arrays that appending n rows would allocate; 0 while there is room."""
        need, size = self._n + n, 0
        for name, array in self._arrays.items():
            if need > len(array) and (name != "store_bias" or self._has_bias):
                row = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
                size += row * max(need, len(array) + len(array) // 2)
        return size

    def _write(self, name: str, first: int, values: np.ndarray) -> None:
        array = self._arrays[name]
        need = first + len(values)
        if need > len(array):
            room = need if first == 0 else max(need, len(array) + len(array) // 2)
            array = self._grow(name, room)
        array[first:need] = values

    def _grow(self, name: str, room: int) -> np.ndarray:
        array, held = self._arrays[name], min(self._n, len(self._arrays[name]))
        grown = empty_aligned((room, *array.shape[1:]), array.dtype)
        grown[:held] = array[:held]
        self._arrays[name] = grown
        return grown

    def _forget_order(self) -> None:
        self._sorted, self._recent = None, {}

    def find(self, ids: I64) -> I64:
        """Row of each id, -1 where it is not held. O(n log n) once after many changes."""
        if self._sorted is None:
            order = np.argsort(self.ids, kind="stable")
            self._sorted = self.ids[order], order
        known, rows = self._sorted
        found = np.full(len(ids), -1, np.int64)
        if len(known):
            place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            found = np.where(known[place] == ids, rows[place], -1)
        # Rows move when others are removed: an entry is right only if its row still has the id.
        stale = (found >= 0) & (self._id_at(found) != ids)
        found[stale] = -1
        if self._recent:
            for i in np.flatnonzero(found < 0):
                found[i] = self._recent.get(int(ids[i]), -1)
        return found

    def _id_at(self, rows: I64) -> I64:
        valid = (rows >= 0) & (rows < self._n)
        out = np.full(len(rows), -1, np.int64)
        out[valid] = self.ids[rows[valid]]
        return out

    def remove(self, rows: I64) -> tuple[I64, I64]:
        """Drop distinct rows. Returns (moved_from, moved_to): the last rows that fill the holes."""
        left = self._n - len(rows)
        is_gone = np.zeros(self._n, bool)
        is_gone[rows] = True
        moved_to = np.flatnonzero(is_gone[:left])
        moved_from = left + np.flatnonzero(~is_gone[left:])
        gone_ids = self.ids[rows].tolist()
        for name, array in self._arrays.items():
            if len(array) and (name != "store_bias" or self._has_bias):
                array[moved_to] = array[moved_from]
        self._n = left
        if self._sorted is not None:
            for gone in gone_ids:
                self._recent.pop(gone, None)
            self._recent.update(zip(self.ids[moved_to].tolist(), moved_to.tolist(), strict=True))
            if len(self._recent) > 1024 + left // 8:
                self._forget_order()
        return moved_from, moved_to
