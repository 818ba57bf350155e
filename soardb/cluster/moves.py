"""Shards move and points do not: which move where, and one move from the first byte to the last.

    cluster.py (a plan), registrar.py (a move) -> [moves.py] -> handover.py by way of Ray

A shard that moves gets a new actor on the other node. Where each node has a disk of its own, the
directory is copied first, while the old actor answers reads and writes; parts go from node to node,
a few at a time. Then the old actor cedes: it finishes what is queued, answers reads, and tells
whoever writes to come again. What was written since is copied, the new actor opens all of it, and
the catalog says that it has the shard. Only then the old one leaves and its copy is deleted.

Until the catalog says so the old actor has the shard, and a move that fails leaves it so; from then
on the new one has it. There is nothing in between, whoever dies.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from soardb.cluster.calls import refusal_of
from soardb.cluster.handover import Mark, Part
from soardb.errors import TimedOut, Unavailable

__all__ = ["Copy", "plan_moves"]

_PART_BYTES = 2**22
_AT_ONCE = 4  # parts under way between two nodes
_ENOUGH_BYTES = 2**22  # so little left to copy that writes may wait for it
_ROUNDS = 20
_PART_S = 60.0


def plan_moves(places: Mapping[str, str], nodes: Sequence[str]) -> list[tuple[str, str]]:
    """Which shards move to which nodes, so that each has its share: as few as can be.

    places  {shard: node that it is on}; nodes that are not among `nodes` are emptied
    nodes   where shards may be

    Afterwards no node has two shards more than another. Returns (shard, node) in order. Errors:
    Unavailable without nodes.
    """
    if not nodes:
        raise Unavailable("expected a node to move shards to, there is none")
    held = Counter(dict.fromkeys(nodes, 0))
    held.update(node for node in places.values() if node in held)
    base, more = divmod(len(places), len(nodes))
    # Those that have most keep one more than the others, where not all can have as many.
    ranked = sorted(nodes, key=lambda node: (-held[node], node))
    share = {node: base + (i < more) for i, node in enumerate(ranked)}
    leaving = []
    for shard in sorted(places, reverse=True):
        node = places[shard]
        if node not in share:
            leaving.append(shard)
        elif held[node] > share[node]:
            held[node] -= 1
            leaving.append(shard)
    free = [node for node in ranked for _ in range(share[node] - held[node])]
    return list(zip(sorted(leaving), free, strict=True))


class Copy:
    """The copying of one directory, from an actor to another. name: of this copy and no other."""

    def __init__(self, source: Any, target: Any, name: str) -> None:
        self._source, self._target, self._name = source, target, name
        self._have: dict[str, Part] = {}

    def most(self) -> None:
        """Copy until what is left is little, while the source is written."""
        for _ in range(_ROUNDS):
            if self._round() <= _ENOUGH_BYTES:
                return

    def rest(self, marks: Mapping[str, Mark]) -> None:
        """Copy what is left, and let the target have the directory. Nobody may write any more.

        marks: how far the collections had come. Errors: CorruptStorage where the copy has not.
        """
        self._round()
        sizes = {name: part.size for name, part in self._have.items()}
        _got(_called(self._target, "finish_parts", sizes, marks))

    def _round(self) -> int:
        """Copy what is new; how many bytes."""
        begins = not self._have
        found: dict[str, Part] = _got(_called(self._source, "list_parts", self._name, begins))
        flying: deque[Any] = deque()
        done = 0
        for name, part in found.items():
            known = self._have.get(name)
            begin = known.size if known is not None and known.tag == part.tag else 0
            for offset in range(begin, part.size, _PART_BYTES):
                size = min(_PART_BYTES, part.size - offset)
                data = _called(self._source, "read_part", self._name, name, offset, size)
                flying.append(_called(self._target, "write_part", name, offset, data))
                done += size
                while len(flying) >= _AT_ONCE:
                    _got(flying.popleft())
        while flying:
            _got(flying.popleft())
        self._have = found
        return done


def _called(actor: Any, method: str, *arguments: Any) -> Any:
    return getattr(actor, method).remote(*arguments)


def _got(reference: Any) -> Any:
    """An answer. Errors: those of the method, TimedOut, Unavailable."""
    try:
        return ray.get(reference, timeout=_PART_S)
    except RayTaskError as error:
        cause = refusal_of(error)
        if isinstance(cause, RayTaskError) and isinstance(cause.cause, RayError):
            raise Unavailable(f"an actor ended while its shard moved: {cause.cause}") from None
        raise cause from None
    except GetTimeoutError:
        raise TimedOut(f"a part of a shard was not copied within {_PART_S:g} s") from None
    except RayError as error:
        raise Unavailable(f"an actor ended while its shard moved: {error}") from None
