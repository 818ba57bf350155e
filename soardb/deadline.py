"""How long the present call may take, and whether somebody still waits for it.

    a caller, a server -> [deadline.py] -> everything that may take long

A limit is set around a call and is seen by all that the call does in its thread (a context
variable): what may take long asks check() now and then, which raises TimedOut once the time is up
or the caller has gone. Other threads, such as the writer's, see no limit: a write that is queued
runs to its end.

Nothing here stops anything by force.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from math import inf

from soardb.errors import InvalidArgument, TimedOut

__all__ = ["POLL_S", "check", "is_set", "until", "within", "without"]

POLL_S = 0.02
"""How often those that wait for something else look at the limit, in seconds."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """Monotonic seconds at which the time is up, and all who may say that nobody waits."""

    until: float
    seconds: float
    callers: tuple[Callable[[], bool], ...]


_limit: ContextVar[_Limit | None] = ContextVar("soardb_deadline", default=None)


def check() -> None:
    """TimedOut where the time of the call is up or its caller went away; costs next to nothing."""
    limit = _limit.get()
    if limit is None:
        return
    for is_cancelled in limit.callers:
        if is_cancelled():
            raise TimedOut(
                "the caller of this call went away: a read was given up, of a write nothing was "
                "written"
            )
    if time.monotonic() >= limit.until:
        raise TimedOut(
            f"the call was not done within {limit.seconds:g} s: a read was given up, of a write "
            "nothing was written; allow more time, or ask for less at once"
        )


def is_set() -> bool:
    """Whether there is a limit, so that long work is to be cut into parts."""
    return _limit.get() is not None


def until() -> float:
    """Monotonic second at which the time of the call is up; infinity without a limit."""
    limit = _limit.get()
    return inf if limit is None else limit.until


class without:  # noqa: N801  with deadline.without()
    """No limit for the time of a block: what is done in it is done for others too."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _limit.set(None)

    def __exit__(self, *_: object) -> None:
        _limit.reset(self._token)


class within:  # noqa: N801  reads as what it does: with deadline.within(0.5)
    """A limit for the time of a block: seconds from now, or until is_cancelled() is true.

    A limit that is set already goes on beside it; without arguments nothing changes. Errors:
    InvalidArgument for seconds that are no number.
    """

    __slots__ = ("_callers", "_seconds", "_token")

    def __init__(
        self, seconds: float | None = None, is_cancelled: Callable[[], bool] | None = None
    ) -> None:
        if seconds is not None:
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not is_number or seconds != seconds:
                raise InvalidArgument(f"expected timeout as a number of seconds, got {seconds!r}")
        self._seconds = seconds
        self._callers = () if is_cancelled is None else (is_cancelled,)
        self._token: Token[_Limit | None] | None = None

    def __enter__(self) -> None:
        if self._seconds is None and not self._callers:
            return
        outer = _limit.get() or _Limit(inf, inf, ())
        mine = inf if self._seconds is None else time.monotonic() + self._seconds
        until, seconds = outer.until, outer.seconds
        if self._seconds is not None and mine < until:
            until, seconds = mine, self._seconds
        self._token = _limit.set(_Limit(until, seconds, outer.callers + self._callers))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _limit.reset(self._token)
            self._token = None
