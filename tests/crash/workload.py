"""The process that is killed: writers, readers, builds and a changing catalog, all at once.

    harness.py -> [workload.py] -> model.py, journal.py

    python -P -m tests.crash.workload DATABASE STATE JOURNAL CYCLE SEED

Every write is announced in the journal before the call and noted after it. Readers check what they
see by itself: a point's vector must be the one of the version in its payload. Nothing here ends:
the process runs until it is killed, or until a fault point does it.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.database import Database
from tests.crash.journal import Journal
from tests.crash.model import (
    BUCKETS,
    COLLECTIONS,
    DIM,
    HOT,
    HOT_OWNER,
    SCRATCH,
    SCRATCH_DIM,
    WRITERS,
    Kind,
    Points,
    apply,
    first_payload,
    owned,
    patch_of,
    payload_where,
    vectors_of,
)

__all__ = ["CATALOG_THREAD", "EAGER", "open_collections", "state_points"]

EAGER = Policy(tail=0.05, tombstones=0.05, growth=1.3, drift=1.2, least=300, bounded=50)
"""Generations within a second, at a few thousand points."""

CATALOG_THREAD = WRITERS
_IDS_PER_WRITER = 1_500
_WANTED_LIVE = 700


def open_collections(db: Database) -> list[Collection]:
    """The long-lived collections, made if they are not there."""
    return [
        db.create_collection(
            kind.name,
            DIM,
            kind.metric,
            schema=kind.schema,
            index={"nlist": kind.nlist},
            exist_ok=True,
        )
        for kind in COLLECTIONS
    ]


def state_points(state: dict[str, Any], kind: Kind) -> Points:
    """The points of a collection as a state file has them."""
    return dict(state["points"].get(kind.name, []))


class _Writer:
    """One thread's operations on its own ids, and on the hot ones."""

    def __init__(
        self, thread: int, collection: Collection, kind: Kind, points: Points, load: _Load
    ) -> None:
        self.thread, self.collection, self.kind, self.load = thread, collection, kind, load
        self.points = points
        self.rng = random.Random(f"{load.seed}/{load.cycle}/{thread}")
        self.number = 0

    def run(self) -> None:
        while True:
            self.step()

    def step(self) -> None:
        """One operation of a random kind."""
        if len(self.points) < _WANTED_LIVE:
            self.upsert(self.rng.choice([64, 150]))
            return
        kinds = ["upsert", "patch", "delete", "delete_where", "patch_where", "flush", "hot"]
        (kind,) = self.rng.choices(kinds, [8, 4, 4, 1, 1, 2, 4])
        match kind:
            case "upsert":
                self.upsert(self.rng.choice([1, 1, 3, 20, 64]))
            case "patch" | "delete":
                few = min(self.rng.choice([1, 2, 10]), len(self.points))
                self.do({"op": kind, "ids": self.rng.sample(sorted(self.points, key=str), few)})
            case "delete_where" | "patch_where":
                self.do({"op": kind, "bucket": self.rng.randrange(BUCKETS)})
            case "flush":
                self.do({"op": kind})
            case "hot":
                hot = self.kind.id_of(-1 - self.rng.randrange(HOT))
                op = "upsert" if self.rng.random() < 0.8 else "delete"
                self.do({"op": op, "ids": [hot]}, owner=HOT_OWNER)

    def upsert(self, n: int) -> None:
        """New and existing ids."""
        numbers = self.rng.sample(range(_IDS_PER_WRITER), n)
        ids = [self.kind.id_of(number * WRITERS + self.thread) for number in numbers]
        self.do({"op": "upsert", "ids": ids})

    def do(self, what: dict[str, Any], owner: int | None = None) -> None:
        """Announce, call, note."""
        self.number += 1
        operation = what | {
            "thread": self.thread,
            "number": self.number,
            "owner": self.thread if owner is None else owner,
            "version": (self.load.cycle * 10 + self.thread) * 1_000_000 + self.number,
            "ack": self.rng.choice(["fsync", "logged", "logged", "memory"]),
        }
        self.load.journal.write(operation)
        self.call(operation)
        self.load.journal.write({"thread": self.thread, "done": self.number})
        if operation["owner"] == self.thread:
            apply(operation, self.points)

    def call(self, operation: dict[str, Any]) -> None:
        """Do the operation to the database."""
        version, ack, ids = operation["version"], operation["ack"], operation.get("ids", [])
        target = self.collection
        match operation["op"]:
            case "upsert":
                payload = first_payload(version, operation["owner"])
                vectors = vectors_of(ids, [version] * len(ids))
                target.upsert(ids, vectors, [payload] * len(ids), ack=ack)
            case "delete":
                target.delete(ids, ack=ack)
            case "patch":
                target.update_payload(patch_of(version), ids=ids, ack=ack)
            case "delete_where":
                target.delete(filter=payload_where(self.thread, operation["bucket"]), ack=ack)
            case "patch_where":
                where = payload_where(self.thread, operation["bucket"])
                target.update_payload(patch_of(version), filter=where, ack=ack)
            case "flush":
                target.flush()


class _Load:
    """All threads of the process, over one database."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.cycle, self.seed = int(options.cycle), options.seed
        self.journal = Journal(options.journal)
        logging.getLogger("soardb").addHandler(_ToJournal(self.journal))
        self.state = json.loads(options.state.read_text("utf-8"))
        self.db = Database(options.database, policy=EAGER)
        self.collections = open_collections(self.db)

    def start(self) -> None:
        """Start every thread."""
        threads: list[Callable[[], None]] = []
        for thread in range(WRITERS):
            place = thread % len(COLLECTIONS)
            kind, collection = COLLECTIONS[place], self.collections[place]
            points = owned(state_points(self.state, kind), thread)
            threads.append(_Writer(thread, collection, kind, points, self).run)
        threads += [self.change_catalog, self.build, lambda: self.read(0), lambda: self.read(1)]
        for run in threads:
            threading.Thread(target=self.guarded, args=(run,), daemon=True).start()
        self.journal.write({"ready": True})

    def guarded(self, run: Callable[[], None]) -> None:
        """Run a thread; what it raises is a finding."""
        try:
            run()
        except BaseException:
            self.journal.write({"error": traceback.format_exc()})
            raise

    # ------------------------------------------------------------------ the other threads

    def change_catalog(self) -> None:
        """Create, fill, rename and drop small collections; point an alias here and there."""
        rng = random.Random(f"{self.seed}/{self.cycle}/catalog")
        there = dict(self.state["scratch"])
        number = 0
        while True:
            number += 1
            name = rng.choice(SCRATCH)
            version = self.cycle * 1_000_000 + number
            free = [other for other in SCRATCH if other not in there]
            if rng.random() < 0.2:
                entry = {"op": "alias", "name": rng.choice(COLLECTIONS).name}
            elif name not in there:
                entry = {"op": "create", "name": name}
            elif rng.random() < 0.3 and free:
                entry = {"op": "rename", "name": name, "to": rng.choice(free)}
            else:
                entry = {"op": rng.choice(["fill", "fill", "drop"]), "name": name}
            operation = entry | {"thread": CATALOG_THREAD, "number": number, "version": version}
            self.journal.write(operation)
            self.call(operation)
            self.journal.write({"thread": CATALOG_THREAD, "done": number})
            apply_catalog(operation, there, {})

    def call(self, operation: dict[str, Any]) -> None:
        """Do an operation of the catalog's thread to the database."""
        name, db = operation["name"], self.db
        match operation["op"]:
            case "alias":
                db.set_alias("current", name)
            case "create":
                db.create_collection(name, SCRATCH_DIM, "dot")
            case "rename":
                db.rename_collection(name, operation["to"])
            case "drop":
                db.drop_collection(name)
            case "fill":
                version = operation["version"]
                db.get_collection(name).upsert(
                    [1, 2, 3],
                    vectors_of([1, 2, 3], [version] * 3, SCRATCH_DIM),
                    [{"vector": version}] * 3,
                )

    def build(self) -> None:
        """Build generations by hand beside those of the worker."""
        rng = random.Random(f"{self.seed}/{self.cycle}/build")
        pause = threading.Event()
        while True:
            pause.wait(rng.uniform(0.05, 0.5))
            rng.choice(self.collections).compact(retrain=rng.random() < 0.3)
            self.journal.write({"built": True})

    def read(self, number: int) -> None:
        """Get, search, scroll and count; every point seen is checked."""
        rng = random.Random(f"{self.seed}/{self.cycle}/read/{number}")
        done = 0
        while True:
            place = rng.randrange(len(COLLECTIONS))
            self.read_once(self.collections[place], COLLECTIONS[place], rng)
            done += 1
            if done % 50 == 0:
                self.journal.write({"reads": 50})

    def read_once(self, collection: Collection, kind: Kind, rng: random.Random) -> None:
        """One read of a random kind."""
        if collection.count() == 0:
            return
        choice = rng.randrange(5)
        if choice == 0:
            ids = [kind.id_of(rng.randrange(_IDS_PER_WRITER * WRITERS)) for _ in range(20)]
            for point in collection.get(ids, with_vectors=True):
                if point is not None:
                    _expect_whole([point.id], [point.payload], [point.vector])
        elif choice == 1:
            page = collection.scroll(page_size=rng.choice([10, 500]), with_vectors=True)
            ids = [point.id for point in page]
            assert len(set(ids)) == len(ids), "a page holds a point twice"
            _expect_whole(ids, [p.payload for p in page], [p.vector for p in page])
        elif choice == 2:
            where = {"field": "bucket", "op": "lt", "value": rng.randrange(BUCKETS)}
            assert 0 <= collection.count(where) <= _IDS_PER_WRITER * WRITERS
        else:
            query = vectors_of([rng.random().hex()], [1])[0]
            where = payload_where(rng.randrange(WRITERS), rng.randrange(BUCKETS))
            hits = collection.search(
                query,
                limit=10,
                filter=where if rng.random() < 0.3 else None,
                exact=choice == 3,
                with_vectors=True,
            )
            ids = list(hits.ids)
            assert len(set(ids)) == len(ids), "a search found a point twice"
            _expect_whole(ids, hits.payloads or [], hits.vectors if ids else [])


def _expect_whole(ids: Any, payloads: Any, vectors: Any) -> None:
    """Each vector is that of the version in its payload."""
    if not len(ids):
        return
    right = vectors_of(list(ids), [payload["vector"] for payload in payloads])
    held = np.stack(list(vectors))
    for i in np.flatnonzero((held != right).any(axis=1)):
        raise AssertionError(f"the vector of point {ids[i]!r} is not that of {payloads[i]}")


def apply_catalog(operation: Any, scratch: dict[str, int | None], aliases: dict[str, str]) -> None:
    """Do an operation of the catalog's thread to {name: version of its points}, and aliases."""
    name = operation["name"]
    match operation["op"]:
        case "alias":
            aliases["current"] = name
        case "create":
            scratch[name] = None
        case "fill":
            scratch[name] = operation["version"]
        case "rename":
            scratch[operation["to"]] = scratch.pop(name)
        case "drop":
            del scratch[name]


class _ToJournal(logging.Handler):
    """Warnings of the engine are findings."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.write({"warning": record.getMessage()})


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("database", "state", "journal"):
        parser.add_argument(name, type=Path)
    parser.add_argument("cycle", type=int)
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    load = _Load(options)
    load.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
