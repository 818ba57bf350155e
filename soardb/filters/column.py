"""One declared field of all rows: what a column is, and those that hold plain values.

    grown.py -> [column.py] -> keywords.py, columns.py; read by elementwise.py

    Longs    int, datetime   int64 values and a validity
    Floats   float           float64, NaN for null
    Flags    bool            uint8: 0, 1, or 2 for null
    Places   geo             two float64 in degrees, NaN for null
    Texts    text            a validity; the words are searched elsewhere

A column takes what `Schema.extract` gives and trusts it; of arrays from a file it trusts nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from soardb.errors import CorruptStorage
from soardb.filters.grown import Array, Grown
from soardb.kernels.layout import I64, U8

__all__ = [
    "NO_FLAG",
    "Arrays",
    "Column",
    "Flags",
    "Floats",
    "Longs",
    "Places",
    "Texts",
    "expect",
    "select",
]

NO_FLAG = 2
"""What stands for null among booleans."""

Arrays = dict[str, Array]


class Column(ABC):
    """One field: append, store, and be read by evaluate.py through the `Grown` it holds.

    `of` reads what `stored` wrote. positions None stores all rows, else these, in their order.
    """

    parts: ClassVar[dict[str, str]]
    """Name and dtype of each stored array."""

    @abstractmethod
    def append(self, values: Sequence[Any]) -> None:
        """Add one value a row, None for null."""

    @abstractmethod
    def stored(self, positions: I64 | None) -> Arrays:
        """The arrays of `parts`; base arrays themselves where nothing was added."""

    @classmethod
    @abstractmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Column:
        """A column over checked arrays, or CorruptStorage."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes in memory, or mapped."""


def select(grown: Grown, positions: I64 | None) -> Array:
    """All elements, or those at positions in any order."""
    return grown.whole() if positions is None else grown.at(positions)


def expect(is_sound: bool | np.bool_, name: str, what: str) -> None:
    """CorruptStorage unless what was read from a file is sound."""
    if not is_sound:
        raise CorruptStorage(f"expected the column {name!r} to have {what}; rebuild it")


class Longs(Column):
    """int and datetime."""

    parts: ClassVar = {"values": "<i8", "valid": "|u1"}

    def __init__(self, values: I64, valid: U8) -> None:
        self.values, self.valid = Grown(values), Grown(valid)
        self.has_nulls = not bool(valid.all())

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Longs:
        values, valid = arrays["values"], arrays["valid"]
        expect(len(values) == len(valid) == n, name, f"{n} values")
        expect(not n or valid.max() <= 1, name, "validity 0 or 1")
        return cls(values, valid)

    def append(self, values: Sequence[int | None]) -> None:
        valid = [value is not None for value in values]
        if not all(valid):
            self.has_nulls = True
        self.values.append([0 if value is None else value for value in values])
        self.valid.append(valid)

    def stored(self, positions: I64 | None) -> Arrays:
        return {"values": select(self.values, positions), "valid": select(self.valid, positions)}

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.valid.nbytes


class Floats(Column):
    """float."""

    parts: ClassVar = {"values": "<f8"}

    def __init__(self, values: Array) -> None:
        self.values = Grown(values)

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Floats:
        expect(len(arrays["values"]) == n, name, f"{n} values")
        return cls(arrays["values"])

    def append(self, values: Sequence[float | None]) -> None:
        self.values.append(np.array(values, np.float64))  # None becomes NaN

    def stored(self, positions: I64 | None) -> Arrays:
        return {"values": select(self.values, positions)}

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


class Flags(Column):
    """bool."""

    parts: ClassVar = {"values": "|u1"}

    def __init__(self, values: U8) -> None:
        self.values = Grown(values)

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Flags:
        values = arrays["values"]
        expect(len(values) == n, name, f"{n} values")
        expect(not n or values.max() <= NO_FLAG, name, "values 0, 1 or 2")
        return cls(values)

    def append(self, values: Sequence[bool | None]) -> None:
        self.values.append([NO_FLAG if value is None else value for value in values])

    def stored(self, positions: I64 | None) -> Arrays:
        return {"values": select(self.values, positions)}

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


class Places(Column):
    """geo, in degrees."""

    parts: ClassVar = {"lat": "<f8", "lon": "<f8"}

    def __init__(self, lat: Array, lon: Array) -> None:
        self.lat, self.lon = Grown(lat), Grown(lon)

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Places:
        expect(len(arrays["lat"]) == len(arrays["lon"]) == n, name, f"{n} places")
        return cls(arrays["lat"], arrays["lon"])

    def append(self, values: Sequence[tuple[float, float] | None]) -> None:
        nowhere = (np.nan, np.nan)
        places = np.array([nowhere if value is None else value for value in values], np.float64)
        places = places.reshape(-1, 2)  # for no values at all
        self.lat.append(places[:, 0])
        self.lon.append(places[:, 1])

    def stored(self, positions: I64 | None) -> Arrays:
        return {"lat": select(self.lat, positions), "lon": select(self.lon, positions)}

    @property
    def nbytes(self) -> int:
        return self.lat.nbytes + self.lon.nbytes


class Texts(Column):
    """text: only whether there is one."""

    parts: ClassVar = {"valid": "|u1"}

    def __init__(self, valid: U8) -> None:
        self.valid = Grown(valid)

    @classmethod
    def of(cls, arrays: Arrays, n: int, name: str) -> Texts:
        valid = arrays["valid"]
        expect(len(valid) == n, name, f"{n} validities")
        expect(not n or valid.max() <= 1, name, "validity 0 or 1")
        return cls(valid)

    def append(self, values: Sequence[str | None]) -> None:
        self.valid.append([value is not None for value in values])

    def stored(self, positions: I64 | None) -> Arrays:
        return {"valid": select(self.valid, positions)}

    @property
    def nbytes(self) -> int:
        return self.valid.nbytes
