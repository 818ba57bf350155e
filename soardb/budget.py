"""The memory budget of a database: builds, writes and searches reserve what they are about to use.

    database.py, collection.py, compaction.py -> [budget.py]

The limit counts what soardb allocates itself: the growing parts of the indexes, the row stores'
caches, and reservations of work under way. Pages of mapped files are not counted, since the system
takes them back when it needs them. What does not fit is refused before it is begun.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator

from soardb.errors import OutOfMemory

__all__ = ["Budget", "give_back"]


def give_back() -> None:
    """Hand freed memory to the system, where the C library can (glibc keeps much of it)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Budget:
    """limit: bytes, or None for none. held: called for what the collections hold for good."""

    def __init__(self, limit: int | None, held: Callable[[], int] = lambda: 0) -> None:
        self.limit = limit
        self._held = held
        self._reserved = 0
        self._lock = threading.Lock()

    @property
    def reserved(self) -> int:
        """Bytes of work under way."""
        return self._reserved

    def available(self) -> int:
        """Bytes that are neither held nor reserved; a large number without a limit."""
        return 2**62 if self.limit is None else self.limit - self._held() - self._reserved

    @contextlib.contextmanager
    def reserve(self, size: int, purpose: str, *, share: float = 1.0) -> Iterator[None]:
        """Have `size` bytes for the time of the block. Errors: OutOfMemory, naming the parts.

        share: of the limit that this kind of work may fill; writes leave room for builds, which
        are what gives memory back.
        """
        if self.limit is None:
            yield
            return
        held = self._held()
        with self._lock:
            if held + self._reserved + size > share * self.limit:
                part = "" if share == 1 else f", of which writes fill at most {share:.0%}"
                raise OutOfMemory(
                    f"{purpose} needs {size:,} bytes, {held:,} are held and {self._reserved:,} in "
                    f"use, the limit is {self.limit:,}{part}; raise memory_limit, or do it in "
                    "smaller parts"
                )
            self._reserved += size
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= size
