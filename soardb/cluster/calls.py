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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import ray
import ray.util.client
from ray.exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayError,
    RayTaskError,
)

from soardb import deadline
from soardb.cluster.handover import Moved, Moving
from soardb.errors import InUse, InvalidArgument, SoarError, TimedOut, Unavailable

__all__ = ["REGISTRAR", "Actors", "Answers", "Job", "expect_all", "shard_name"]

REGISTRAR = "registrar"

_FIRST_S, _MOST_S = 0.02, 1.0  # bounds of the pause before a call is made again, which doubles


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

    locate  given this and a name, says which name Ray has for the actor, made anew where it is
            gone; it may raise
    """

    def __init__(self, namespace: str, locate: Callable[[Actors, str], str]) -> None:
        self.namespace = namespace
        self._locate = locate
        self._handles: dict[str, Any] = {}
        self._sought: set[str] = set()
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()  # of these three
        self._one_lookup = threading.Lock()  # Ray looks names up slowly, and badly many at once

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

    def stream(self, name: str, job: Job, timeout: float) -> Iterator[Any]:
        """What a generator of an actor yields, as it comes. Not asked again after Unavailable.

        timeout: seconds for the actor to be found.
        """
        through: Any = ray.util.client.ray  # untyped
        if through.is_connected():
            raise InvalidArgument(
                f"{job.method} is a stream, which Ray Client does not carry; run the program on a "
                "node of the cluster (ray://auto), or take pages by scroll(with_vectors=True)"
            )
        until = time.monotonic() + timeout
        while True:
            handle, has_begun = self._waited_for(name, until, timeout), False
            try:
                with _translated(name):
                    for reference in _called(handle, job, streaming=True):
                        item, has_begun = ray.get(reference), True
                        yield item
                return
            except Moved:
                if has_begun or time.monotonic() > until:
                    raise
                self.forget(name, handle)

    def _waited_for(self, name: str, until: float, timeout: float) -> Any:
        while (handle := self.known(name)) is None:
            deadline.check()
            if time.monotonic() > until:
                raise Unavailable(f"{name} was not found in {timeout:g} s: {self.why(name)}")
            time.sleep(_FIRST_S)
        return handle

    def known(self, name: str) -> Any:
        """The actor's handle; None while it is looked for, which this begins. Never waits."""
        handle = self._handles.get(name)
        if handle is None:
            with self._lock:
                is_sought = name in self._sought
                self._sought.add(name)
            if not is_sought:
                threading.Thread(
                    target=self._seek, args=(name,), name=f"soardb-{name}", daemon=True
                ).start()
        return handle

    def why(self, name: str) -> str:
        """Why the last look for an actor found none."""
        return self._failed.get(name, "it is being looked for")

    def forget(self, name: str, handle: Any) -> None:
        """An actor is gone for good: the next call looks for the one in its place.

        One that Ray starts again keeps its handle and is not to be forgotten.
        """
        with self._lock:
            if self._handles.get(name) is handle:
                del self._handles[name]

    def _seek(self, name: str) -> None:
        """Find an actor, made anew if it is gone: what a caller cannot wait for without a bound."""
        try:
            handle = self._found(name)
        except Exception as error:  # noqa: BLE001  whoever asks for the actor is told
            self._failed[name] = _first_line(error)
        else:
            self._failed.pop(name, None)
            self._handles[name] = handle
        finally:
            with self._lock:
                self._sought.discard(name)

    def _found(self, name: str) -> Any:
        place = self._locate(self, name)
        with self._one_lookup:
            return ray.get_actor(place, namespace=self.namespace)


def _called(handle: Any, job: Job, *, streaming: bool = False) -> Any:
    """Call, and do not wait: a reference, or a generator of them."""
    method = getattr(handle, job.method)
    if streaming:
        method = method.options(num_returns="streaming")
    return method.remote(*job.arguments)


def expect_all(answers: Answers, timeout: float | None) -> None:
    """Raise where an actor is missing. Errors: TimedOut for a slow one, Unavailable."""
    if not answers.missing:
        return
    names = ", ".join(sorted(answers.missing))
    reasons = {reason for reason in answers.missing.values() if reason}
    if not reasons:
        raise TimedOut(
            f"expected an answer of {names} within {timeout:.3g} s, there was none; allow more time"
            if timeout is not None
            else f"expected an answer of {names}, there was none in time"
        )
    raise Unavailable(f"{names} did not answer in time: {'; '.join(sorted(reasons))}")


class _Round:
    """One call of several actors, each asked until it answers or the time is up."""

    def __init__(self, actors: Actors, jobs: Mapping[str, Job], timeout: float | None) -> None:
        self._actors, self._jobs = actors, jobs
        own = inf if timeout is None else time.monotonic() + timeout
        # The shorter of both, so that who did not answer is told before the limit of the call is.
        self._until = min(own, deadline.until())
        self._flying: dict[Any, tuple[str, Any]] = {}  # {reference: actor, its handle}
        self._due: dict[str, float] = {}  # when to ask again
        self._tried: dict[str, int] = dict.fromkeys(jobs, 0)
        self._why: dict[str, str] = {}
        self._answers = Answers()

    def run(self) -> Answers:
        for name in self._jobs:
            self._ask(name)
        while self._flying or self._due:
            wait_s = self._wait_s()
            if wait_s is not None and wait_s < 0:
                break
            deadline.check()
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
        for name in [*(name for name, _ in self._flying.values()), *self._due]:
            self._answers.missing[name] = self._why.get(name, "")
        return self._answers

    def _wait_s(self) -> float | None:
        """How long to wait at most; negative: the time is up."""
        now, ends = time.monotonic(), []
        if self._until < inf:
            if now >= self._until:
                return -1.0
            ends.append(self._until - now)
        if self._due:
            ends.append(max(0.0, min(self._due.values()) - now))
        if deadline.is_set():
            ends.append(deadline.POLL_S)
        return min(ends, default=None)

    def _ask(self, name: str) -> None:
        self._tried[name] += 1
        handle = self._actors.known(name)
        if handle is None:
            self._why[name] = self._actors.why(name)
            self._due[name] = time.monotonic() + _FIRST_S
            return
        try:
            reference = _called(handle, self._jobs[name])
        except RayError as error:  # nothing was asked
            self._lost(name, handle, error)
        else:
            self._flying[reference] = name, handle

    def _take(self, reference: Any) -> None:
        name, handle = self._flying.pop(reference)
        try:
            self._answers.found[name] = ray.get(reference)
        except RayTaskError as error:
            cause = refusal_of(error)
            if isinstance(cause, InUse):  # the process before is not quite gone
                self._later(name, cause)
            elif isinstance(cause, Moving | Moved):  # nothing was done
                self._actors.forget(name, handle)
                self._later(name, cause)
            else:
                self._answers.refused[name] = cause
        except RayError as error:
            if self._jobs[name].is_repeatable:
                self._lost(name, handle, error)
            else:
                self._answers.refused[name] = Unavailable(
                    f"{name} ended while it was asked; whether it did it is not known: "
                    f"{_first_line(error)}"
                )

    def _lost(self, name: str, handle: Any, error: BaseException) -> None:
        if isinstance(error, ActorDiedError | ActorUnschedulableError):  # or its node is lost
            self._actors.forget(name, handle)
        self._later(name, error)

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
