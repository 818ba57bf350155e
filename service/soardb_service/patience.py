"""How long a call waits for its client: to send a request, or to take the next part of a reply.

    rpc.py -> [patience.py] -> a thread that cancels

A call that waits for its client holds one of the threads that do the work, and gRPC itself waits
for ever. So each such wait is entered here, and a call that has waited for too long is cancelled.
While many wait at once, "too long" is a moment: who only wants to fill the threads does not.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["Patience"]

_LOOK_S = 0.25
_HURRIED_S = 1.0


class Patience:
    """Waits of one process. seconds: the longest one; crowd: so many at once are too many."""

    def __init__(self, seconds: float = 60.0, crowd: int = 16) -> None:
        self._seconds = seconds
        self._crowd = crowd
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waits: dict[int, tuple[float, Callable[[], object]]] = {}  # the oldest first
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None

    def wait(self, cancel: Callable[[], object]) -> _Wait:
        """A block that waits for the client; cancel() is called once where that takes too long."""
        return _Wait(self, cancel)

    def _enter(self, cancel: Callable[[], object]) -> int:
        number = next(self._numbers)
        with self._lock:
            self._waits[number] = (time.monotonic(), cancel)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="soardb-patience", daemon=True
                )
                self._thread.start()
        if not self._is_needed.is_set():
            self._is_needed.set()
        return number

    def _leave(self, number: int) -> None:
        with self._lock:
            self._waits.pop(number, None)

    def _watch(self) -> None:
        while True:
            self._is_needed.wait()
            time.sleep(_LOOK_S)
            for cancel in self._over():
                cancel()

    def _over(self) -> list[Callable[[], object]]:
        """What cancels the waits that took too long; they are forgotten here."""
        with self._lock:
            if not self._waits:
                self._is_needed.clear()
            is_crowded = len(self._waits) >= self._crowd
            longest = min(_HURRIED_S, self._seconds) if is_crowded else self._seconds
            then = time.monotonic() - longest
            over = []
            for number, (since, _) in self._waits.items():
                if since > then:
                    break
                over.append(number)
            return [self._waits.pop(number)[1] for number in over]


class _Wait:
    __slots__ = ("_cancel", "_number", "_patience")

    def __init__(self, patience: Patience, cancel: Callable[[], object]) -> None:
        self._patience = patience
        self._cancel = cancel

    def __enter__(self) -> None:
        self._number = self._patience._enter(self._cancel)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patience._leave(self._number)
