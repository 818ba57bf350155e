"""A lock that many readers share and one writer has alone; a waiting writer goes first.

    collection.py, writer.py -> [rwlock.py]

Not reentrant. Nothing here knows what is protected.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["ReadWriteLock"]


class ReadWriteLock:
    """Use `with lock.read():` and `with lock.write():`."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._readers = 0
        self._writing = False
        self._waiting = 0

    def read(self) -> _Reading:
        """Share the lock for the time of the block."""
        return _Reading(self)

    def acquire_read(self) -> None:
        """Begin to read; waits while a writer has the lock or waits for it."""
        with self._condition:
            while self._writing or self._waiting:
                self._condition.wait()
            self._readers += 1

    def release_read(self) -> None:
        """End reading."""
        with self._condition:
            self._readers -= 1
            if not self._readers:
                self._condition.notify_all()

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """Have the lock alone for the time of the block."""
        with self._condition:
            self._waiting += 1
            while self._writing or self._readers:
                self._condition.wait()
            self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._condition.notify_all()


class _Reading:
    """A context manager without the cost of a generator: reads are many."""

    __slots__ = ("_lock",)

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire_read()

    def __exit__(self, *_: object) -> None:
        self._lock.release_read()
