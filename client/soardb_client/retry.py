"""When a failed call is tried again, and after how long.

    client.py, aio.py -> [retry.py] -> failures.py

Exponential back-off with jitter (the pause is drawn between the half and the whole of a bound that
doubles), so that many clients of one server that was away do not come back together, and no client
gives up before grpc itself would look whether the server is back: five pauses, as by default, take
1.5 s at least. A call is tried again where it would do no harm: a read, a write that carries a
request id, or any call that the server refused before doing anything (it says so by a RetryInfo).
Never after its deadline, and never when that deadline is what failed.

Nothing here sleeps or calls: it says how long to wait.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from soardb.errors import TimedOut
from soardb_client.failures import Failure
from soardb_client.target import as_timeout

__all__ = ["Attempts", "Backoff", "Limit"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how fast to try again.

    retries  attempts after the first
    first_s  bound of the first pause; it doubles up to most_s
    uniform  the dice
    """

    retries: int = 5
    first_s: float = 0.1
    most_s: float = 2.0
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic

    def pause(self, attempt: int) -> float:
        """Seconds before the attempt after this one, which counts from 0."""
        bound = min(self.most_s, self.first_s * 2.0 ** min(attempt, 32))
        return self.uniform(bound / 2, bound)


class Attempts:
    """The attempts of one call within its deadline; None for none."""

    def __init__(self, backoff: Backoff, timeout_s: float | None) -> None:
        self._backoff = backoff
        self._deadline = None if timeout_s is None else backoff.clock() + timeout_s
        self._made = 0

    def remaining_s(self) -> float | None:
        """Seconds until the deadline; what grpc wants as its timeout."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._backoff.clock())

    def begin_again(self) -> None:
        """Count anew, as there was progress."""
        self._made = 0

    def pause_after(self, failure: Failure, is_repeatable: bool) -> float | None:
        """Seconds to wait before the next attempt, or None where there is to be none."""
        made, self._made = self._made, self._made + 1
        was_refused = failure.retry_s is not None
        if made >= self._backoff.retries or not failure.is_passing:
            return None
        if not (is_repeatable or was_refused):
            return None
        pause = self._backoff.pause(made) + (failure.retry_s or 0.0)
        remaining = self.remaining_s()
        return None if remaining is not None and pause >= remaining else pause


class Limit:
    """The time that a method of several calls has; without seconds there is no limit."""

    def __init__(self, seconds: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + as_timeout(seconds)

    def left_s(self) -> float | None:
        """Seconds until then. Errors: TimedOut."""
        if self._end is None:
            return None
        left = self._end - self._clock()
        if left == math.inf:
            return None
        if left <= 0:
            raise TimedOut("expected it to be done within timeout=, it was not; pass a longer one")
        return left
