"""The parts of a load: each is written once for good, and the row store remembers which are in.

    collection.py -> [loading.py] -> writer.py, storage/rows.py

A load brings the first points of a collection in numbered parts, from many senders that may die and
send again. What is in stands in the transaction that wrote it, as ranges of numbers that grow
together. Unlike the answers to requests (once.py) it is never forgotten, so a load that was broken
off goes on after days, and asking the collection is all that it takes to know where.

Nothing here knows where parts come from.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from soardb.errors import AlreadyExists, InvalidArgument
from soardb.storage.rows import RowStore
from soardb.writer import Effect, Group, Put

__all__ = ["Begin", "Loaded", "Part", "loaded"]

_SETTING = "load"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load by its name, and the numbers of its parts that are in: rising [first, end) ranges."""

    load: str
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.ranges, number, key=lambda r: r[0]) - 1
        return at >= 0 and number < self.ranges[at][1]

    def having(self, number: int) -> Loaded:
        """With one part more."""
        if number in self:
            return self
        grown: list[tuple[int, int]] = []
        for first, end in sorted([*self.ranges, (number, number + 1)]):
            if grown and grown[-1][1] == first:
                grown[-1] = grown[-1][0], end
            else:
                grown.append((first, end))
        return Loaded(self.load, grown)


def loaded(store: RowStore) -> Loaded | None:
    """What a row store remembers, as of its last commit. Errors: CorruptStorage."""
    held = store.setting(_SETTING)
    if held is None:
        return None
    return Loaded(held["load"], [(first, end) for first, end in held["ranges"]])


def _remember(store: RowStore, held: Loaded) -> None:
    store.set(_SETTING, {"load": held.load, "ranges": held.ranges})


@dataclass(slots=True)
class Begin:
    """The first job of a load. Alone, as what is in is read as of the last commit."""

    load: str
    alone: bool = True

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return 1, 0

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run."""
        held = loaded(group.store)
        if held is not None and held.load != self.load:
            raise AlreadyExists(
                "expected a collection without points, it was loaded from another source or from "
                "one that has changed since; drop it to load it anew"
            )
        if held is None:
            if group.contents.table.live:
                raise AlreadyExists(
                    f"expected a collection without points to load, got one of "
                    f"{group.contents.table.live:,}; add to it by upsert or ingest"
                )
            _remember(group.store, Loaded(self.load))
        return Effect(np.empty(0, np.int64)), None


@dataclass(slots=True)
class Part:
    """A put of a load; of no points where the part has none for this collection."""

    put: Put
    load: str
    number: int
    alone: bool = True

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return self.put.size()

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run; answers with the number of points, 0 where the part is in already."""
        held = loaded(group.store)
        if held is None or held.load != self.load:
            raise InvalidArgument("expected a part of the load that was begun here, got another's")
        effect, count = Effect(np.empty(0, np.int64)), 0
        if self.number in held:
            return effect, count
        if self.put.ids:
            effect, count = self.put.run(group)
        _remember(group.store, held.having(self.number))
        return effect, count
