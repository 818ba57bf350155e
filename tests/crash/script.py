"""A short scripted life of a database, one step after the other: what one process at a time does.

    test_points.py, powercut.py, disk.py -> [script.py] -> model.py

    python -P -m tests.crash.script DATABASE SEED

Every step is announced done by a number, on standard output or in the file SHIM_MARK. What stands
after a death is what the steps up to the last number made, or that and the step under way. The
script of seed 0 reaches every point of soardb/storage/faults.py that is not about snapshots; the
others are drawn at random.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soardb.collection import Collection
from soardb.database import Database
from tests.crash.checker import AT_REST, everything
from tests.crash.model import DIM, vectors_of

__all__ = ["STEPS", "Step", "World", "play", "script", "world_after", "world_of"]

Content = dict[int, int]


@dataclass(slots=True)
class World:
    """What there is: {collection: {id: version}} and {alias: collection}."""

    collections: dict[str, Content] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def copy(self) -> World:
        """One that is changed by itself."""
        contents = {name: dict(content) for name, content in self.collections.items()}
        return World(contents, dict(self.aliases))


Step = tuple[str, Any]

STEPS: list[Step] = [
    ("create", "kept"),
    *[("put", ("kept", range(50 * i, 50 * i + 80), i, "fsync")) for i in range(8)],
    ("compact", "kept"),
    ("delete", ("kept", range(30, 120), "fsync")),
    ("put", ("kept", range(200, 500), 9, "fsync")),
    ("checkpoint", "kept"),
    ("create", "second"),
    ("put", ("second", range(40), 10, "fsync")),
    ("alias", ("now", "second")),
    ("rename", ("second", "third")),
    ("put", ("kept", range(10), 11, "fsync")),
    ("compact", "kept"),
    ("checkpoint", "kept"),
    ("drop", "third"),
    ("create", "second"),
    ("drop", "second"),
    ("put", ("kept", range(1_000, 1_040), 12, "fsync")),
]


def script(seed: int) -> list[Step]:
    """The steps of a seed."""
    if seed == 0:
        return STEPS
    rng = random.Random(seed)
    steps: list[Step] = []
    names: list[str] = []
    version = 0
    while len(steps) < 40:
        version += 1
        free = [name for name in ("a", "b", "c") if name not in names]
        kind = rng.choice(
            ["put"] * 8 + ["delete"] * 3 + ["compact", "checkpoint", "checkpoint"]
            + ["create", "drop", "rename", "alias", "reopen"]
        )  # fmt: skip
        if not names or (kind == "create" and free):
            names.append(rng.choice(free))
            steps.append(("create", names[-1]))
            continue
        name = rng.choice(names)
        first = rng.randrange(200)
        ids = range(first, first + rng.choice([1, 10, 60, 200]))
        ack = rng.choice(["fsync", "logged"])
        match kind:
            case "put":
                steps.append(("put", (name, ids, version, ack)))
            case "delete":
                steps.append(("delete", (name, ids, ack)))
            case "compact" | "checkpoint":
                steps.append((kind, name))
            case "drop" if len(names) > 1:
                names.remove(name)
                steps.append(("drop", name))
            case "rename" if free:
                names[names.index(name)] = free[0]
                steps.append(("rename", (name, free[0])))
            case "alias":
                steps.append(("alias", ("now", name)))
            case "reopen":
                steps.append(("reopen", None))
    return steps


def advance(world: World, step: Step) -> None:
    """What one step makes of a world, in place."""
    kind, what = step
    match kind:
        case "create":
            world.collections[what] = {}
        case "put":
            world.collections[what[0]] |= dict.fromkeys(what[1], what[2])
        case "delete":
            for point_id in what[1]:
                world.collections[what[0]].pop(point_id, None)
        case "alias":
            world.aliases[what[0]] = what[1]
        case "rename":
            old, new = what
            world.collections[new] = world.collections.pop(old)
            world.aliases = {a: new if n == old else n for a, n in world.aliases.items()}
        case "drop":
            del world.collections[what]
            world.aliases = {a: n for a, n in world.aliases.items() if n != what}


def world_after(n: int, steps: Sequence[Step] = STEPS) -> World:
    """What the first n steps make."""
    world = World()
    for step in steps[:n]:
        advance(world, step)
    return world


def world_of(db: Database) -> World:
    """What a database holds, every vector checked against the version in its payload."""
    world = World(aliases=db.list_aliases())
    for name in db.list_collections():
        collection = db.get_collection(name)
        ids, payloads, vectors = everything(collection)
        versions = [payload["vector"] for payload in payloads]
        if ids:
            assert (vectors == vectors_of(ids, versions)).all(), "a vector of another version"
            some = slice(None, None, max(1, len(ids) // 50))
            hits = collection.search(vectors[some], limit=1, exact=True, with_payload=False)
            assert [h.ids[0] for h in hits] == ids[some], "a point does not find itself"
        assert collection.count() == len(ids) == len(set(ids)), "count, scroll and ids disagree"
        assert collection.stats()["damage"] is None, collection.stats()["damage"]
        world.collections[name] = {int(i): v for i, v in zip(ids, versions, strict=True)}
    return world


def play(path: Path, steps: Sequence[Step], done: Callable[[int], None]) -> None:
    """Do all steps; done(number) after each, 0 once the database is open."""
    db = Database(path, policy=AT_REST)
    done(0)
    for number, step in enumerate(steps, start=1):
        if step[0] == "reopen":
            db.close()
            db = Database(path, policy=AT_REST)
        else:
            _do(db, step)
        done(number)
    db.close()


def _do(db: Database, step: Step) -> None:
    kind, what = step
    match kind:
        case "create":
            db.create_collection(what, DIM, "l2", index={"nlist": 4})
        case "put":
            name, ids, version, ack = what
            _put(db.get_collection(name), list(ids), version, ack)
        case "delete":
            name, ids, ack = what
            db.get_collection(name).delete(list(ids), ack=ack)
        case "compact":
            db.get_collection(what).compact(retrain=True)
        case "checkpoint":
            db.get_collection(what)._core.store.checkpoint(force=True)
        case "alias":
            db.set_alias(*what)
        case "rename":
            db.rename_collection(*what)
        case "drop":
            db.drop_collection(what)


def _put(collection: Collection, ids: list[int], version: int, ack: Any) -> None:
    vectors = vectors_of(ids, [version] * len(ids))
    collection.upsert(ids, vectors, [{"vector": version}] * len(ids), ack=ack)


def _announcer() -> Callable[[int], None]:
    mark = os.environ.get("SHIM_MARK")
    if mark is None:
        return lambda number: print(number, flush=True)
    handle = os.open(mark, os.O_WRONLY | os.O_CREAT, 0o644)
    return lambda number: assert_written(os.write(handle, str(number).encode()))


def assert_written(n: int) -> None:
    """A mark was taken."""
    assert n > 0


if __name__ == "__main__":
    play(Path(sys.argv[1]), script(int(sys.argv[2])), _announcer())
