"""The gate: who calls, whether they may, and how often. Before a request is parsed.

    rpc.py, rest.py -> [gate.py] -> keys.py, access.py

A call is first admitted by its key alone: known, not expired, of the scope that the method asks
for somewhere, not too frequent. Once the request says which collection it is about, that must be
one of the key's; an alias counts as the collection that it stands for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from soardb.errors import CorruptStorage, NotAllowed, Unavailable
from soardb_proto.v1 import access_pb2
from soardb_service.access import Rule
from soardb_service.keys import Grant, Key, KeyFile

__all__ = ["ANYBODY", "Caller", "Gate", "NotYet", "Overloaded", "Unauthenticated"]


_UNREADABLE = "expected keys that can be read, the server's are damaged; its log says how"


class Unauthenticated(NotAllowed):
    """No key, an unknown or an expired one."""


class Overloaded(Unavailable):
    """More than the server takes now; the same call may work after `retry_s` seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class NotYet(Unavailable):
    """The contents do not hold the write that a read wants to see."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the id of the key, for logs, and what it may."""

    id: str
    grants: tuple[Grant, ...]

    def may(self, collection: str, scope: int) -> bool:
        """Whether a grant covers this scope over this collection."""
        return any(grant.allows(collection, scope) for grant in self.grants)

    def may_all(self, scope: int) -> bool:
        """Whether a grant covers this scope over every collection that could be."""
        return any(g.scope >= scope and set(g.collections) == {"*"} for g in self.grants)


ANYBODY = Caller("anybody", (Grant("*", access_pb2.ADMIN),))
"""Who calls where no key is asked for: on loopback, before the first key was made."""


class Gate:
    """Keys and rates of one process. Safe for many threads."""

    def __init__(
        self,
        keys: KeyFile,
        *,
        require_key: bool,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._required = require_key or bool(keys.keys()) or keys.is_there
        self._rate = rate
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def admit(self, rule: Rule, authorization: str | None, api_key: str | None) -> Caller:
        """The caller, by `authorization: Bearer KEY` or `x-api-key: KEY`.

        Errors: Unauthenticated, NotAllowed, Overloaded.
        """
        caller = self.known(authorization, api_key)
        if not any(grant.scope >= rule.scope for grant in caller.grants):
            raise _too_little(rule, "any collection")
        self._spend(caller.id)
        return caller

    def known(self, authorization: str | None, api_key: str | None) -> Caller:
        """The caller with this key, whatever it may do. Errors: Unauthenticated."""
        text = api_key
        if authorization is not None:
            kind, _, text = authorization.partition(" ")
            if kind.lower() != "bearer":
                raise Unauthenticated("expected 'authorization: Bearer KEY', got another kind")
        if text is None:
            if self.is_key_required:
                raise Unauthenticated(
                    "expected an API key, got none; pass api_key=, or the header "
                    "'authorization: Bearer KEY'. `soardb keys add` makes one"
                )
            return ANYBODY
        try:
            key = self._keys.find(text.strip())
        except CorruptStorage:
            raise Unauthenticated(_UNREADABLE) from None
        if key is None:
            raise Unauthenticated("expected a known API key, got another; `soardb keys list`")
        if key.is_expired():
            raise Unauthenticated(f"expected a valid API key, {key.id} has expired")
        return _caller_of(key)

    @property
    def is_key_required(self) -> bool:
        """Whether calls without a key are refused; once so, always so."""
        if not self._required:
            try:
                self._required = bool(self._keys.keys())
            except CorruptStorage:
                self._required = True
        return self._required

    def authorise(
        self, caller: Caller, rule: Rule, name: str, real_name: Callable[[str], str]
    ) -> None:
        """Refuse a collection that is not the caller's.

        real_name(name) is the collection that an alias stands for. A caller that may not is told
        the same whether there is such a collection or not. Errors: NotAllowed.
        """
        if not caller.may(real_name(name), rule.scope):
            raise _too_little(rule, repr(name))

    def _spend(self, key_id: str) -> None:
        """One call of this key; a bucket holds two seconds' worth."""
        if self._rate is None:
            return
        now, most = self._clock(), max(1.0, 2 * self._rate)
        with self._lock:
            left, then = self._buckets.get(key_id, (most, now))
            left = min(most, left + (now - then) * self._rate)
            self._buckets[key_id] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            raise Overloaded(
                f"expected at most {self._rate:g} calls a second of one key, got more; slow down, "
                "or send more in one call",
                (1 - left) / self._rate,
            )


def _caller_of(key: Key) -> Caller:
    return Caller(key.id, key.grants)


def _too_little(rule: Rule, what: str) -> NotAllowed:
    scope = access_pb2.Scope.Name(rule.scope).lower()
    return NotAllowed(f"expected a key with the scope {scope} for {what}, got one without")
