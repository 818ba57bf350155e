"""What every read of a collection does: be up to date, look under the lock, fetch the rows.

    collection.py, query.py, ask.py -> [reads.py] -> core.py, writer.py, storage/rows.py

A read first waits for writes that were acknowledged from memory, follows the writing process where
it is beside one, and hides what has expired. It then looks at the contents under the shared lock,
and takes payloads and vectors from the row store afterwards.

Nothing here knows what is looked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from soardb import deadline
from soardb.budget import Budget
from soardb.contents import Contents
from soardb.core import Core
from soardb.errors import Closed, CorruptStorage
from soardb.fulltext import text_query
from soardb.hits import Point
from soardb.kernels.layout import I64
from soardb.schema import PointId, decode_payload
from soardb.search import TextMatch
from soardb.storage.rows import StoredPoint
from soardb.writer import Writer

__all__ = ["Reads", "as_point"]

_ATTEMPTS = 20
_ROWS_AT_ONCE = 2_048  # fetched between two looks at a limit
_UNDISTURBED = 3  # attempts before the writer is held off

T = TypeVar("T")


@dataclass(slots=True)
class Reads:
    """The reading side of one open collection. closed: how it was, or None. wake: the worker."""

    core: Core
    writer: Writer
    budget: Budget
    wake: Callable[[], None]
    closed: str | None = None

    def text_match(self, contents: Contents) -> TextMatch:
        """Positions that a full-text condition matches, for filters."""
        fields = self.core.settings.text_fields

        def match(name: str, words: str, mode: Any) -> I64:
            query = text_query(words, [fields.index(name)], mode)
            if query is None:
                return np.empty(0, np.int64)
            rows, _ = self.core.store.match_text(query)
            positions = contents.table.positions_of(rows)
            return np.sort(positions[positions >= 0])

        return match

    def ready(self) -> Contents:
        """Contents that hold every acknowledged write, nothing expired and no damage."""
        self.check_open()
        deadline.check()
        if self.writer.is_unsettled:
            self.writer.settle()
        core = self.core
        if core.is_read_only:
            core.follow()
        if core.is_due():
            core.hide_expired()
            self.wake()
        return core.current()

    @contextlib.contextmanager
    def view(self, has_text: bool, is_undisturbed: bool = False) -> Iterator[Contents]:
        """The contents under the shared lock; with has_text the full text of the same moment.

        The full text changes at a commit, the contents a little later. So the moment is taken while
        no writer is between the two; is_undisturbed: the caller holds core.changing already.
        """
        core = self.core
        if not has_text or core.is_read_only:  # beside a writing process all is pinned anyway
            with core.lock.read():
                yield core.contents
            return
        with contextlib.ExitStack() as held:
            with contextlib.nullcontext() if is_undisturbed else core.changing:
                held.enter_context(core.store.pinned())
                held.enter_context(core.lock.read())
            yield core.contents

    def fetched(
        self,
        read: Callable[[Contents], T],
        rows_of: Callable[[T], I64],
        with_vectors: bool,
        has_text: bool = False,
    ) -> tuple[T, list[StoredPoint]]:
        """What `read` finds under the lock, and the stored points of its rows.

        has_text: see view().

        A row may be overwritten between the two: then both are done again, at last with the writer
        held off, so that a row which is missing still is lost.
        """
        core = self.core
        for attempt in range(_ATTEMPTS):
            is_last = attempt >= _UNDISTURBED and not core.is_read_only
            # Beside a writing process all is read as of one moment.
            with core.store.pinned() if core.is_read_only else contextlib.nullcontext():
                self.ready()
                with core.changing if is_last else contextlib.nullcontext():
                    with self.view(has_text, is_undisturbed=is_last) as contents:
                        found = read(contents)
                    rows = rows_of(found)
                    stored = self._stored(rows, with_vectors)
            lost = next((row for row in rows.tolist() if row not in stored), None)
            if lost is None:
                return found, [stored[row] for row in rows.tolist()]
            if is_last:
                raise CorruptStorage(
                    f"{core.store.path}: row {lost} of a live point is missing; run "
                    "`soardb check`, then restore a snapshot or `soardb repair`"
                )
        raise CorruptStorage(f"{core.store.path}: rows keep changing while they are read")

    def _stored(self, rows: I64, with_vectors: bool) -> dict[int, StoredPoint]:
        """The stored points of rows, by number; under a limit some at a time."""
        if not deadline.is_set():
            return self.core.store.fetch(rows, with_vectors=with_vectors)
        found: dict[int, StoredPoint] = {}
        for i in range(0, len(rows), _ROWS_AT_ONCE):
            deadline.check()
            part = rows[i : i + _ROWS_AT_ONCE]
            found |= self.core.store.fetch(part, with_vectors=with_vectors)
        return found

    def points(self, ids: list[PointId], with_vectors: bool) -> list[Point | None]:
        """The points of checked ids, in order; None where there is none."""

        def read(contents: Contents) -> tuple[list[int], I64]:
            positions = contents.table.find(ids)
            is_there = positions >= 0
            return np.flatnonzero(is_there).tolist(), contents.table.rows_at(positions[is_there])

        (places, _), stored = self.fetched(read, lambda found: found[1], with_vectors)
        out: list[Point | None] = [None] * len(ids)
        for place, point in zip(places, stored, strict=True):
            out[place] = as_point(point, with_vectors)
        return out

    def check_open(self) -> None:
        """Closed where the collection was closed or dropped."""
        if self.closed:
            raise Closed(f"collection {self.core.settings.name!r} was {self.closed}")


def as_point(stored: StoredPoint, with_vectors: bool, with_payload: bool = True) -> Point:
    """A stored point as callers see it."""
    return Point(
        stored.id,
        decode_payload(stored.payload) if with_payload else None,
        stored.vector if with_vectors else None,
    )
