"""The distinct strings of a keyword field, and their codes.

    columns.py -> [dictionary.py]

The strings of a file stand sorted by their UTF-8 bytes, which is the order of their code points
too: a code is a place in that order. So a string is found by bisection without decoding the others,
and a prefix or a comparison is an interval of codes. Strings that came since have the codes behind,
in order of arrival; they are compared one by one until the next file is written.

    data     (bytes,) uint8, all strings end to end
    offsets  (size + 1,) int64, where each begins

Null has the code -1 and stands in no dictionary.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from soardb.errors import CorruptStorage
from soardb.kernels.layout import I32, I64, U8

__all__ = ["Codes", "Dictionary", "check_offsets"]

# Behind every string that continues a prefix: no byte of UTF-8 is as large.
_BEHIND = b"\xff"
_ADDED_BYTES = 120  # what one added string costs in Python, roughly, besides its characters


@dataclass(frozen=True, slots=True)
class Codes:
    """A set of codes: those in low..high - 1, and the single ones of `others`, sorted."""

    low: int
    high: int
    others: I64


class Dictionary:
    """Strings by code and codes by string. Strings are added, never removed."""

    def __init__(self, data: U8, offsets: I64) -> None:
        self._data = data
        self._offsets = offsets
        self._sorted = _Sorted(data, offsets)
        self._added: list[str] = []
        self._codes: dict[str, int] = {}  # of strings met since the file was read
        self._added_bytes = 0

    @classmethod
    def empty(cls) -> Dictionary:
        return cls(np.empty(0, np.uint8), np.zeros(1, np.int64))

    @classmethod
    def of(cls, data: U8, offsets: I64, name: str) -> Dictionary:
        """A dictionary over mapped arrays; CorruptStorage where offsets are not those of data.

        Costs a pass over the offsets, none over the strings.
        """
        check_offsets(offsets, len(data), f"the dictionary of {name!r}")
        return cls(data, offsets)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._added)

    @property
    def nbytes(self) -> int:
        added = self._added_bytes + _ADDED_BYTES * len(self._codes)
        return int(self._data.nbytes + self._offsets.nbytes + added)

    # ---- codes of strings ----

    def encode(self, values: Iterable[str | None]) -> list[int]:
        """The code of each value, -1 for None; unknown strings are added."""
        known = self._codes
        return [
            -1 if value is None else known[value] if value in known else self._add(value)
            for value in values
        ]

    def _add(self, text: str) -> int:
        code = self._sorted.find(text.encode())
        if code < 0:
            code = len(self)
            self._added.append(text)
            self._added_bytes += len(text)
        self._codes[text] = code
        return code

    def find(self, text: str) -> int:
        """The code of a string, -1 where no row ever had it."""
        code = self._codes.get(text)
        return self._sorted.find(text.encode()) if code is None else code

    def equal_to(self, texts: Iterable[str]) -> Codes:
        """The codes of these strings, without those that no row ever had."""
        found = {self.find(text) for text in texts} - {-1}
        return Codes(0, 0, np.array(sorted(found), np.int64))

    def starting_with(self, prefix: str) -> Codes:
        """The codes of all strings that begin so."""
        start = prefix.encode()
        return self._interval(
            bisect_left(self._sorted, start),
            bisect_left(self._sorted, start + _BEHIND),
            (text.startswith(prefix) for text in self._added),
        )

    def compared(self, op: str, text: str) -> Codes:
        """The codes of all strings that are lt, le, gt or ge this one, by code points."""
        key, size = text.encode(), len(self._sorted)
        if op == "lt":
            added = (other < text for other in self._added)
            return self._interval(0, bisect_left(self._sorted, key), added)
        if op == "le":
            added = (other <= text for other in self._added)
            return self._interval(0, bisect_right(self._sorted, key), added)
        if op == "gt":
            added = (other > text for other in self._added)
            return self._interval(bisect_right(self._sorted, key), size, added)
        added = (other >= text for other in self._added)
        return self._interval(bisect_left(self._sorted, key), size, added)

    def _interval(self, low: int, high: int, added: Iterable[bool]) -> Codes:
        others = np.flatnonzero(np.fromiter(added, np.bool_)) + len(self._sorted)
        return Codes(low, high, others.astype(np.int64, copy=False))

    # ---- strings of codes ----

    def _bytes(self, code: int) -> bytes:
        size = len(self._sorted)
        return self._sorted[code] if code < size else self._added[code - size].encode()

    def stored(self, codes: I32, keep_all: bool) -> tuple[I32, U8, I64]:
        """(codes, data, offsets) as a file has them: strings sorted, codes to match.

        keep_all False leaves out the strings that no code here names. A dictionary to which
        nothing was added is passed through as it is, with keep_all.
        """
        if keep_all and not self._added:
            return codes, self._data, self._offsets
        used = np.arange(len(self)) if keep_all else np.unique(codes[codes >= 0])
        texts = [self._bytes(code) for code in used.tolist()]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        renamed = np.full(len(self) + 1, -1, np.int32)  # the last is for null, whose code is -1
        renamed[used[order]] = np.arange(len(order), dtype=np.int32)
        return renamed[codes], *_packed([texts[place] for place in order])


def _packed(texts: list[bytes]) -> tuple[U8, I64]:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(list(map(len, texts)), out=offsets[1:])
    return np.frombuffer(b"".join(texts), np.uint8), offsets


class _Sorted:
    """The strings of the file as a sequence of bytes, each read when asked for."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, data: U8, offsets: I64) -> None:
        self._data, self._offsets = data.data, offsets.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, code: int) -> bytes:
        return bytes(self._data[self._offsets[code] : self._offsets[code + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return (self[code] for code in range(len(self)))

    def find(self, key: bytes) -> int:
        place = bisect_left(self, key)
        return place if place < len(self) and self[place] == key else -1


def check_offsets(offsets: I64, total: int, what: str) -> None:
    """CorruptStorage unless offsets run from 0 to total and never back."""
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != total:
        raise CorruptStorage(f"expected the offsets of {what} to run from 0 to {total}")
    if (offsets[1:] < offsets[:-1]).any():
        at = int((offsets[1:] < offsets[:-1]).argmax())
        raise CorruptStorage(f"expected the offsets of {what} to rise, they fall behind {at}")
