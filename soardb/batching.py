"""Micro-batching: single queries that come while another is searched are searched together.

    soardb_service/points.py, soardb_client/gather.py -> [batching.py]

A search that finds a free slot runs at once, alone: nobody waits for company. While all slots are
taken, searches that ask for the same (collection, limit, filter, ...) gather; when a slot is free,
the first of those that wait takes it and searches for all of its kind, in one call of the engine.
So there is no timer and no thread of its own, and a queue makes itself shorter.

Nothing here knows what is searched: a kind is any hashable value.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from soardb.errors import InvalidArgument, TimedOut

__all__ = ["Batcher"]

Q = TypeVar("Q")
R = TypeVar("R")


class _Ticket(Generic[Q, R]):
    """One query that waits. wake is released when its answer is there or it is to lead."""

    __slots__ = ("answer", "error", "leads", "query", "wake")

    def __init__(self, query: Q) -> None:
        self.query = query
        self.wake = threading.Lock()
        self.wake.acquire()
        self.leads: list[_Ticket[Q, R]] = []
        self.answer: R | None = None
        self.error: BaseException | None = None


class Batcher(Generic[Q, R]):
    """Runs queries one kind at a time, in at most `slots` threads; largest batch `most`.

    While a query waits no slot is free: who ends gives the slot to those that wait, or back.
    """

    def __init__(self, slots: int, most: int) -> None:
        self._lock = threading.Lock()
        self._free = slots
        self._most = most
        self._waiting: OrderedDict[Hashable, list[_Ticket[Q, R]]] = OrderedDict()

    def run(
        self,
        kind: Hashable,
        query: Q,
        search: Callable[[Sequence[Q]], Sequence[R]],
        wait_s: float = -1,
    ) -> R:
        """The answer to one query, of search(queries), which has one answer a query in order.

        wait_s: the longest that it may wait until it is searched for (TimedOut); -1 for ever.

        Where several are refused by InvalidArgument each is tried again alone, so that a query
        which is wrong does not take the others with it. Any other error is one of all.
        """
        ticket: _Ticket[Q, R] | None = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                ticket = _Ticket(query)
                self._waiting.setdefault(kind, []).append(ticket)
        if ticket is None:
            try:
                return search([query])[0]
            finally:
                self._next()
        self._wait(kind, ticket, wait_s)
        if ticket.leads:
            try:
                self._lead(ticket.leads, search)
            finally:
                self._next()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.answer is not None
        return ticket.answer

    def _wait(self, kind: Hashable, ticket: _Ticket[Q, R], wait_s: float) -> None:
        """Wait to be answered or to lead. Who is interrupted meanwhile leaves nobody waiting."""
        try:
            if ticket.wake.acquire(timeout=wait_s):
                return
            if not self._withdrawn(kind, ticket):  # it was taken along at the last moment
                ticket.wake.acquire()
                return
        except BaseException:
            if not self._withdrawn(kind, ticket) and ticket.leads:
                self._put_back(kind, ticket.leads[1:])
            raise
        raise TimedOut(
            f"expected a search to begin within {wait_s:g} s, others were under way; allow more "
            "time, or more of them at once"
        )

    def _withdrawn(self, kind: Hashable, ticket: _Ticket[Q, R]) -> bool:
        """Take a query back, if nobody has taken it along yet."""
        with self._lock:
            tickets = self._waiting.get(kind, [])
            if ticket not in tickets:
                return False
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[kind]
            return True

    def _put_back(self, kind: Hashable, tickets: list[_Ticket[Q, R]]) -> None:
        """Let another lead those that a leader cannot."""
        if tickets:
            with self._lock:
                self._waiting[kind] = tickets + self._waiting.get(kind, [])
        self._next()

    def _lead(
        self, tickets: list[_Ticket[Q, R]], search: Callable[[Sequence[Q]], Sequence[R]]
    ) -> None:
        try:
            answers = search([ticket.query for ticket in tickets])
            for ticket, answer in zip(tickets, answers, strict=True):
                ticket.answer = answer
        except BaseException as error:  # noqa: BLE001  each of them is told
            for ticket in tickets:
                if len(tickets) == 1 or not isinstance(error, InvalidArgument):
                    ticket.error = error
                    continue
                try:
                    ticket.answer = search([ticket.query])[0]
                except BaseException as its_own:  # noqa: BLE001
                    ticket.error = its_own
        for ticket in tickets[1:]:
            ticket.wake.release()

    def _next(self) -> None:
        """Give the slot to the kind that has waited longest, or back."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            kind = next(iter(self._waiting))
            tickets = self._waiting.pop(kind)
            if len(tickets) > self._most:
                self._waiting[kind] = tickets[self._most :]
                tickets = tickets[: self._most]
            tickets[0].leads = tickets
        tickets[0].wake.release()
