"""The rows of an index: ids, vectors and their 8-bit copies, dense at all times.

    flat.py, ivf.py, live.py -> [rows.py] -> form.py

Row numbers run from 0 to n - 1 without holes: removing a row moves the last one into its place, and
`remove` says which moved. Arrays grow by half as they fill. Arrays mapped from a file are private
to the process and become ordinary ones at the first growth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from soardb.errors import CorruptStorage, InvalidArgument
from soardb.index.form import FLOAT32, Form
from soardb.kernels.layout import F32, I64, U8, U32, Values
from soardb.kernels.memory import empty_aligned

__all__ = ["Rows", "expect_array"]

_PIECE_BYTES = 32 * 2**20
_FEW = 8  # places of the order that are closed one by one
_STRIDE = 16  # ids in order of which one is kept beside; found by it, then by halving


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
    """n rows; `ids`, `store`, `store_bias` and `values` are views of exactly n rows.

    store (n, stride) uint8 and store_bias (n,) float32 may be absent: stride 0, has_bias False.
    form says how vectors are kept; `values` is what they are kept as.
    """

    def __init__(
        self, d: int, stride: int = 0, has_bias: bool = False, form: Form = FLOAT32
    ) -> None:
        self.form = form
        self._arrays: dict[str, np.ndarray] = {
            "vectors": np.empty((0, d), form.dtype),
            "ids": np.empty(0, np.int64),
            "store": np.empty((0, stride), np.uint8),
            "store_bias": np.empty(0, np.float32),
        }
        self._absent = set() if form.has_vectors else {"vectors"}
        if not has_bias:
            self._absent.add("store_bias")
        self._n = 0
        self._order: _Order | None = None
        self._recent: dict[int, int] = {}  # id to row, added since

    @classmethod
    def of(
        cls,
        arrays: dict[str, np.ndarray],
        d: int,
        stride: int = 0,
        has_bias: bool = False,
        form: Form = FLOAT32,
    ) -> Rows:
        """Rows over the arrays of `arrays()`; CorruptStorage where a shape or dtype differs."""
        rows, n = cls(d, stride, has_bias, form), len(arrays["ids"])
        absent = rows._absent | ({"store"} if stride == 0 else set())
        for name, empty in rows._arrays.items():
            shape = (0 if name in absent else n, *empty.shape[1:])
            expect_array(arrays, name, empty.dtype, shape)
            rows._arrays[name] = arrays[name]
        rows._n = n
        return rows

    def __len__(self) -> int:
        return self._n

    @property
    def vectors(self) -> F32:
        """(n, d) float32: a view where they are kept so, else opened in O(n d)."""
        return self.some(slice(None))

    @property
    def values(self) -> Values:
        """What n vectors are kept as; of int8, `store`."""
        return self.form.values(self._arrays)[: self._n]  # type: ignore[no-any-return]

    def some(self, which: slice | I64) -> F32:
        """(m, d) float32 vectors of a slice of the rows, or of row numbers."""
        return self.form.opened(self.values[which])

    def pieces(self, rows: I64 | None = None) -> Iterator[tuple[I64, F32]]:
        """(row numbers, their float32 vectors) of some rows, or of all; a piece at a time."""
        d = self._arrays["vectors"].shape[1]
        step = max(1, _PIECE_BYTES // (4 * d))
        for first in range(0, self._n if rows is None else len(rows), step):
            if rows is None:
                part = slice(first, min(first + step, self._n))
                yield np.arange(part.start, part.stop), self.some(part)
            else:
                chosen = rows[first : first + step]
                yield chosen, self.some(chosen)

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
        return self._arrays["store_bias"][: self._n]

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be saved."""
        return {name: array[: self._n] for name, array in self._arrays.items()}

    def whole(self) -> dict[str, np.ndarray]:
        """The arrays with their spare room: written in place until they are full, then replaced."""
        return self._arrays

    def memory(self) -> dict[str, int]:
        """Bytes of each array, spare room included; "lookup" is what finds ids, made when asked."""
        lookup = self._order.nbytes if self._order else 0
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
            if n > len(array) and name not in self._absent:
                self._grow(name, n)

    def truncate(self, n: int) -> None:
        """Forget the rows from n on."""
        self._n = n
        self._forget_order()

    def append(
        self, vectors: F32, ids: I64, store: U8 | None = None, bias: F32 | None = None
    ) -> I64:
        """Add rows at the end; returns their row numbers. Vectors are rounded to the form."""
        first, self._n = self._n, self._n + len(ids)
        self._write("vectors", first, self.form.packed(vectors))
        self._write("ids", first, ids)
        if store is not None:
            self._write("store", first, store)
        if bias is not None:
            self._write("store_bias", first, bias)
        if self._order is not None:
            if len(ids) + len(self._recent) > 1024 + first // 8:
                self._forget_order()
            else:
                self._recent.update(zip(ids.tolist(), range(first, self._n), strict=True))
        return np.arange(first, self._n)

    def growth(self, n: int) -> int:
        """Bytes of larger arrays that appending n rows would allocate; 0 while there is room."""
        need, size = self._n + n, 0
        for name, array in self._arrays.items():
            if need > len(array) and name not in self._absent:
                row = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
                size += row * max(need, len(array) + len(array) // 2)
        return size

    def _write(self, name: str, first: int, values: np.ndarray) -> None:
        if name in self._absent:
            return
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
        self._order, self._recent = None, {}

    def find(self, ids: I64) -> I64:
        """Row of each id, -1 where it is not held. O(n log n) once after many changes."""
        if self._order is None:
            self._order = _Order.of(self.ids)
        found = self._order.find(self.ids, ids)[1]
        if self._recent:
            for i in np.flatnonzero(found < 0):
                found[i] = self._recent.get(int(ids[i]), -1)
        return found

    def remove(self, rows: I64) -> tuple[I64, I64]:
        """Drop distinct rows. Returns (moved_from, moved_to): the last rows that fill the holes."""
        left = self._n - len(rows)
        is_gone = np.zeros(self._n, bool)
        is_gone[rows] = True
        moved_to = np.flatnonzero(is_gone[:left])
        moved_from = left + np.flatnonzero(~is_gone[left:])
        if self._order is not None:
            self._order = self._order.changed(self.ids, rows, moved_from, moved_to)
            if self._recent:
                for gone in self.ids[rows].tolist():
                    self._recent.pop(gone, None)
                for moved, row in zip(
                    self.ids[moved_from].tolist(), moved_to.tolist(), strict=True
                ):
                    if moved in self._recent:
                        self._recent[moved] = row
        for name, array in self._arrays.items():
            if len(array) and name not in self._absent:
                array[moved_to] = array[moved_from]
        self._n = left
        if self._order is not None:
            self._order.mark(self.ids)
        return moved_from, moved_to


class _Order:
    """Rows in order of their ids, in four bytes each, and every sixteenth of these ids.

    Ids that came since are not in it; of those that are, each row is the one that holds the id now.
    """

    def __init__(self, rows: U32 | I64) -> None:
        self._rows = rows
        self._marks = np.empty(0, np.int64)

    @classmethod
    def of(cls, ids: I64) -> _Order:
        """The order of (n,) ids; O(n log n)."""
        rows = np.argsort(ids, kind="stable")
        order = cls(rows.astype(np.uint32) if len(ids) < 2**32 else rows)
        order.mark(ids)
        return order

    def mark(self, ids: I64) -> None:
        """Take every sixteenth id, of the rows as they are now."""
        self._marks = ids[self._rows[::_STRIDE]]

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._marks.nbytes

    def find(self, ids: I64, wanted: I64) -> tuple[I64, I64]:
        """(place in the order, row) of each wanted id, -1 and -1 where it is not there."""
        last = len(self._rows) - 1
        if last < 0:
            missing = np.full(len(wanted), -1, np.int64)
            return missing, missing.copy()
        # The last place whose id is no greater is within the stride from a mark on.
        place = (np.searchsorted(self._marks, wanted, side="right") - 1) * _STRIDE
        np.maximum(place, 0, out=place)
        step = _STRIDE // 2
        while step:
            ahead = np.minimum(place + step, last)
            place = np.where(ids[self._rows[ahead]] <= wanted, ahead, place)
            step //= 2
        rows = self._rows[place].astype(np.int64)
        is_there = ids[rows] == wanted
        return np.where(is_there, place, -1), np.where(is_there, rows, -1)

    def changed(self, ids: I64, gone: I64, moved_from: I64, moved_to: I64) -> _Order:
        """The order without some rows and with others renamed; `ids` are those of before.

        Takes this one's memory. Needs mark() once the rows have moved.
        """
        moved, places = self.find(ids, ids[moved_from])[0], self.find(ids, ids[gone])[0]
        rows, places = self._rows, places[places >= 0]
        rows[moved[moved >= 0]] = moved_to[moved >= 0]
        if len(places) > _FEW:
            is_left = np.ones(len(rows), bool)
            is_left[places] = False
            return _Order(rows[is_left])
        for place in np.sort(places)[::-1].tolist():
            rows[place:-1] = rows[place + 1 :]
            rows = rows[:-1]
        return _Order(rows)
