"""The models that are in memory: a few, lent to one caller at a time each.

    models.py -> [shelf.py] -> soardb/models/registry.py

A network is shared by nobody while it is lent, and all that a caller wants is lent at once, so two
callers never wait for each other. Nothing here imports PyTorch: whoever loads does.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from soardb import deadline

if TYPE_CHECKING:
    from soardb.models.registry import Loaded, Registry

__all__ = ["Shelf"]


class Shelf:
    """At most `most` models of a registry, of which the one that was used last goes last."""

    def __init__(self, registry: Registry, most: int) -> None:
        self._registry = registry
        self._most = most
        self._held: OrderedDict[str, Loaded] = OrderedDict()
        self._lent: set[str] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def lent(
        self, *names: str, check: Callable[[], None] = deadline.check
    ) -> Iterator[list[Loaded]]:
        """Models by name, loaded where they are not, to be used by nobody else in the block.

        check  called while waiting; what it raises ends that. Errors: those of Registry.load
        """
        wanted = set(names)
        for name in wanted:
            self._registry.get(name)  # so that nobody waits for what is not there
        with self._changed:
            while wanted & self._lent or len(wanted | self._lent) > self._most:
                check()
                self._changed.wait(deadline.POLL_S)
            self._lent |= wanted
            self._make_room()
        try:
            found = {name: self._taken(name) for name in sorted(wanted)}
            yield [found[name] for name in names]
        finally:
            with self._changed:
                self._lent -= wanted
                self._changed.notify_all()

    def forget(self, name: str) -> None:
        """Let go of a model that was deleted; whoever has it may go on with it."""
        with self._changed:
            self._held.pop(name, None)

    @property
    def names(self) -> list[str]:
        """Of those in memory, the one that was used last at the end."""
        with self._changed:
            return list(self._held)

    def _make_room(self) -> None:
        """Let go of those that were not used for longest; of none that is lent."""
        for name in [n for n in self._held if n not in self._lent]:
            if len(set(self._held) | self._lent) <= self._most:
                return
            del self._held[name]

    def _taken(self, name: str) -> Loaded:
        """A model that is lent to us; loaded anew where another of its name took its place."""
        now = self._registry.get(name)
        with self._changed:
            held = self._held.pop(name, None)
        if held is None or held.entry.files != now.files:
            held = None  # before its successor comes
            held = self._registry.load(name)
        with self._changed:
            self._held[name] = held
        return held
