"""Calls on the actors of a cluster: many at once, a bounded wait, asked again where that is safe.

    cluster.py, collection.py, searching.py, registrar.py -> [calls.py] -> Ray

Ray calls an actor at most once and may report an error although the call ran. So a call that got no
answer is asked again, of the same actor or of the one that took its place, until the time is up: a
read does no harm twice, and a write carries a request id under which it is done once. What an actor
refuses is an answer, and is raised as it was there.

Nothing here knows what is called.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from soardb import deadline
from soardb.errors import InUse, SoarError, TimedOut, Unavailable

__all__ = ["REGISTRAR", "Actors", "Answers", "Job", "expect_all", "shard_name"]

REGISTRAR = "registrar"

_FIRST_S, _MOST_S = 0.02, 1.0  # bounds of the pause before a call is made again, which doubles

# Threads of an actor that each method may take. Whatever waits for a disk or a build must not keep
# a search from running; see registrar.py, where the groups are made.
_GROUPS = {
    "search": "reads",
    "get": "reads",
    "there": "reads",
    "page": "reads",
    "count": "reads",
    "describe": "reads",
    "put": "writes",
    "update_payload": "writes",
    "delete": "writes",
    "flush": "writes",
    "batches": "care",
    "compact": "care",
    "tune": "care",
    "snapshot": "care",
    "restore": "care",
}


def shard_name(number: int) -> str:
    """The name of a shard's actor, within the namespace of its cluster."""
    return f"shard-{number:04}"


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a method of an actor. is_repeatable: whether doing it twice is doing it once."""

    method: str
    arguments: tuple[Any, ...] = ()
    is_repeatable: bool = True


@dataclass(slots=True)
class Answers:
    """What actors answered, by name, and those that did not in time, with the reason."""

    found: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, BaseException] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class Actors:
    """The actors of one cluster, found by name. Safe for many threads.

    revive  makes an actor that is gone for good, by name; it may raise
    """

    def __init__(self, namespace: str, revive: Callable[[str], None]) -> None:
        self.namespace = namespace
        self._revive = revive
        self._handles: dict[str, Any] = {}

    def one(self, name: str, job: Job, timeout: float | None) -> Any:
        """The answer of one actor. Errors: those of the method, TimedOut, Unavailable."""
        return self.all({name: job}, timeout)[name]

    def all(self, jobs: Mapping[str, Job], timeout: float | None) -> dict[str, Any]:
        """The answers of all, once each has ended.

        Errors: the first refusal, TimedOut, Unavailable. Those that did not answer in time may
        have done it nevertheless.
        """
        answers = self.ask(jobs, timeout)
        for name in sorted(answers.refused):
            raise answers.refused[name]
        expect_all(answers, timeout)
        return answers.found

    def ask(self, jobs: Mapping[str, Job], timeout: float | None) -> Answers:
        """What each answers within `timeout` seconds; None: however long it takes."""
        return _Round(self, jobs, timeout).run()

    def stream(self, name: str, job: Job) -> Iterator[Any]:
        """What a generator of an actor yields, as it comes. Not asked again after Unavailable."""
        method = self.handle(name)
        method = getattr(method, job.method).options(
            num_returns="streaming", concurrency_group=_GROUPS[job.method]
        )
        with _translated(name):
            for reference in method.remote(*job.arguments):
                yield ray.get(reference)

    def handle(self, name: str, *, anew: bool = False) -> Any:
        """An actor. Errors: Unavailable."""
        if anew:
            self._handles.pop(name, None)
        known = self._handles.get(name)
        if known is None:
            known = self._handles[name] = self._found(name)
        return known

    def _found(self, name: str) -> Any:
        try:
            return ray.get_actor(name, namespace=self.namespace)
        except ValueError:
            self._revive(name)
        try:
            return ray.get_actor(name, namespace=self.namespace)
        except ValueError as error:
            raise Unavailable(f"{name} of the cluster is not there: {error}") from None

    def start(self, name: str, job: Job, *, anew: bool = False) -> Any:
        """Call, and do not wait: a reference."""
        method = getattr(self.handle(name, anew=anew), job.method)
        group = _GROUPS.get(job.method)
        if group is not None and name != REGISTRAR:
            method = method.options(concurrency_group=group)
        return method.remote(*job.arguments)


def expect_all(answers: Answers, timeout: float | None) -> None:
    """Raise where an actor is missing. Errors: TimedOut for a slow one, Unavailable."""
    if not answers.missing:
        return
    names = ", ".join(sorted(answers.missing))
    reasons = {reason for reason in answers.missing.values() if reason}
    if not reasons:
        raise TimedOut(
            f"expected an answer of {names} within {timeout:g} s, there was none; allow more time"
            if timeout is not None
            else f"expected an answer of {names}, there was none in time"
        )
    raise Unavailable(f"{names} did not answer in time: {'; '.join(sorted(reasons))}")


class _Round:
    """One call of several actors, each asked until it answers or the time is up."""

    def __init__(self, actors: Actors, jobs: Mapping[str, Job], timeout: float | None) -> None:
        self._actors, self._jobs = actors, jobs
        self._until = None if timeout is None else time.monotonic() + timeout
        self._flying: dict[Any, str] = {}
        self._due: dict[str, float] = {}  # when to ask again
        self._tried: dict[str, int] = dict.fromkeys(jobs, 0)
        self._why: dict[str, str] = {}
        self._answers = Answers()

    def run(self) -> Answers:
        for name in self._jobs:
            self._ask(name)
        while self._flying or self._due:
            deadline.check()
            wait_s = self._wait_s()
            if wait_s is not None and wait_s < 0:
                break
            if self._flying:
                ready, _ = ray.wait(list(self._flying), num_returns=1, timeout=wait_s)
                for reference in ready:
                    self._take(reference)
            elif wait_s:
                time.sleep(wait_s)
            now = time.monotonic()
            for name in [name for name, at in self._due.items() if at <= now]:
                del self._due[name]
                self._ask(name)
        for name in [*self._flying.values(), *self._due]:
            self._answers.missing[name] = self._why.get(name, "")
        return self._answers

    def _wait_s(self) -> float | None:
        """How long to wait at most; negative: the time is up."""
        now, ends = time.monotonic(), []
        if self._until is not None:
            if now >= self._until:
                return -1.0
            ends.append(self._until - now)
        if self._due:
            ends.append(max(0.0, min(self._due.values()) - now))
        if deadline.is_set():
            ends.append(deadline.POLL_S)
        return min(ends, default=None)

    def _ask(self, name: str) -> None:
        again = self._tried[name] > 0
        self._tried[name] += 1
        try:
            reference = self._actors.start(name, self._jobs[name], anew=again)
        except (RayError, Unavailable) as error:  # nothing was asked
            self._later(name, error)
        else:
            self._flying[reference] = name

    def _take(self, reference: Any) -> None:
        name = self._flying.pop(reference)
        try:
            self._answers.found[name] = ray.get(reference)
        except RayTaskError as error:
            cause = refusal_of(error)
            if isinstance(cause, InUse):  # the process before is not quite gone
                self._later(name, cause)
            else:
                self._answers.refused[name] = cause
        except RayError as error:
            if self._jobs[name].is_repeatable:
                self._later(name, error)
            else:
                self._answers.refused[name] = Unavailable(
                    f"{name} ended while it was asked; whether it did it is not known: "
                    f"{_first_line(error)}"
                )

    def _later(self, name: str, error: BaseException) -> None:
        self._why[name] = _first_line(error)
        bound = min(_MOST_S, _FIRST_S * 2.0 ** min(self._tried[name], 16))
        self._due[name] = time.monotonic() + random.uniform(bound / 2, bound)


def refusal_of(error: RayTaskError) -> BaseException:
    """What a method raised, as it was raised there."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SoarError) else error


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except RayTaskError as error:
        raise refusal_of(error) from None
    except GetTimeoutError as error:
        raise TimedOut(f"{name}: {_first_line(error)}") from None
    except RayError as error:
        raise Unavailable(f"{name} ended while it was read: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
