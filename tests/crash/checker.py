"""The process that opens what a killed one left, and judges it by the journal.

    harness.py -> [checker.py] -> model.py, journal.py

    python -P -m tests.crash.checker DATABASE STATE JOURNAL ANSWER [--abandon]

Each writer did one thing after the other, and writes stand in the order in which they were queued.
So what is found of a writer's points must be what some beginning of its operations made, and that
beginning must hold all that were acknowledged. Hot ids, which all writers write, must hold a value
that no acknowledged write came after. The answer is a JSON file: problems, and the state found,
which is the next cycle's beginning.

Nothing here repairs: opening must do.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.database import Database
from soardb.errors import SoarError
from tests.crash.journal import Read, Record, read_journal
from tests.crash.model import (
    COLLECTIONS,
    HOT_OWNER,
    SCRATCH_DIM,
    WRITERS,
    Kind,
    PointId,
    Points,
    apply,
    first_payload,
    owned,
    payload_where,
    vectors_of,
)
from tests.crash.workload import CATALOG_THREAD, apply_catalog, state_points

__all__ = [
    "AT_REST",
    "SURVIVES_KILL",
    "SURVIVES_POWER_CUT",
    "Check",
    "check",
    "check_files",
    "everything",
    "prefix_problem",
]

AT_REST = Policy(growth=1e9, skew=1e9, least=10**9, bounded=10**9)
"""Nothing is built while somebody looks."""

SURVIVES_KILL = frozenset({"fsync", "logged"})
SURVIVES_POWER_CUT = frozenset({"fsync"})

_SAMPLE = 60
_ROOT_NAMES = re.compile(r"LOCK|catalog\.json|c-[0-9a-f]{16}")
_FOLDER_NAMES = {"rows.sqlite", "rows.sqlite-wal", "rows.sqlite-shm", "witness", "index"}
_INDEX_NAMES = re.compile(r"[0-9a-f]{16}\.generation|model\.part")


@dataclass(slots=True)
class Check:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    points: int = 0
    open_s: float = 0.0

    def expect(self, claim: object, problem: str) -> None:
        """Note a problem where the claim does not hold."""
        if not claim:
            self.problems.append(problem)


def everything(collection: Collection) -> tuple[list[PointId], list[dict[str, Any]], Any]:
    """All points by pages: ids, payloads, (n, d) vectors."""
    points, token = [], None
    while True:
        page = collection.scroll(page_size=1_000, page_token=token, with_vectors=True)
        points += page.points
        token = page.next_page_token
        if token is None:
            break
    vectors = np.stack([p.vector for p in points if p.vector is not None]) if points else None
    return [p.id for p in points], [p.payload or {} for p in points], vectors


def check(
    database: Path,
    state: dict[str, Any],
    journal: Read,
    *,
    survives: frozenset[str] = SURVIVES_KILL,
    abandon: bool = False,
) -> Check:
    """Open the directory and compare. abandon: die afterwards instead of closing."""
    found = Check()
    begun = time.perf_counter()
    db = Database(database, policy=AT_REST)
    names = db.list_collections()
    collections = [db.get_collection(name) for name in names]
    found.open_s = time.perf_counter() - begun
    _check_catalog(found, db, state, journal)
    found.state["points"] = {}
    for kind in COLLECTIONS:
        if kind.name not in names:
            is_new = not state["points"].get(kind.name) and not journal.is_ready
            found.expect(is_new, f"collection {kind.name} is gone")
            continue
        _check_points(found, db.get_collection(kind.name), kind, state, journal, survives)
    check_files(found, db, collections)
    if not abandon:
        db.close()
    return found


# ---------------------------------------------------------------------- points


def _check_points(
    found: Check,
    collection: Collection,
    kind: Kind,
    state: dict[str, Any],
    journal: Read,
    survives: frozenset[str],
) -> None:
    ids, payloads, vectors = everything(collection)
    points: Points = dict(zip(ids, payloads, strict=True))
    found.points += len(ids)
    found.expect(len(points) == len(ids), f"{kind.name}: a scroll returned a point twice")
    if ids:
        right = vectors_of(ids, [payload["vector"] for payload in payloads])
        for i in np.flatnonzero((vectors != right).any(axis=1))[:3]:
            found.problems.append(f"{kind.name}: {ids[i]!r} has another vector than {payloads[i]}")
    before = state_points(state, kind)
    for thread in range(COLLECTIONS.index(kind), WRITERS, len(COLLECTIONS)):
        records = [r for r in journal.by_thread.get(thread, []) if r.operation["owner"] == thread]
        known = _durable(journal.by_thread.get(thread, []), survives)
        problem = prefix_problem(owned(before, thread), owned(points, thread), records, known)
        found.expect(not problem, f"{kind.name}, writer {thread}: {problem}")
    _check_hot(found, kind, before, points, journal, survives)
    _check_answers(found, collection, kind, points)
    found.state["points"][kind.name] = list(points.items())


def _durable(records: Sequence[Record], survives: frozenset[str]) -> int:
    """The last operation number of a thread that must have survived; 0 for none."""
    last = 0
    for record in records:
        # A flush empties the queue, not the disk's cache, whatever "ack" stands in its record.
        is_flush = record.operation["op"] == "flush"
        level = "logged" if is_flush else record.operation["ack"]
        if record.done is not None and level in survives:
            last = record.operation["number"]
    return last


def prefix_problem(
    points: Points, actual: Points, records: Sequence[Record], known: int
) -> str | None:
    """Why no beginning of the operations that holds those up to number `known` made `actual`."""
    closest: tuple[int, str] | None = None
    numbers = [0, *(record.operation["number"] for record in records)]
    for place, number in enumerate(numbers):
        if place:
            apply(records[place - 1].operation, points)
        following = numbers[place + 1] if place + 1 < len(numbers) else None
        if following is not None and following <= known:
            continue
        if points == actual:
            return None
        differing = [i for i in {*points, *actual} if points.get(i) != actual.get(i)]
        if closest is None or len(differing) < closest[0]:
            some = [(i, points.get(i), actual.get(i)) for i in sorted(differing, key=str)[:3]]
            text = f"after operation {number}: {len(differing)} points differ, as {some}"
            closest = len(differing), text
    return (
        f"no beginning of {len(records)} operations that holds the acknowledged {known} "
        f"made what was found; the closest is {closest}"
    )


def _check_hot(
    found: Check,
    kind: Kind,
    before: Points,
    points: Points,
    journal: Read,
    survives: frozenset[str],
) -> None:
    """A hot id holds what its last write left, as far as acknowledgements tell an order."""
    writes: dict[PointId, list[tuple[Record, bool]]] = {}
    for thread in range(COLLECTIONS.index(kind), WRITERS, len(COLLECTIONS)):
        records = journal.by_thread.get(thread, [])
        known = _durable(records, survives)
        for record in records:
            if record.operation["owner"] == HOT_OWNER:
                is_durable = record.operation["number"] <= known
                writes.setdefault(record.operation["ids"][0], []).append((record, is_durable))
    hot = {*owned(before, HOT_OWNER), *writes, *owned(points, HOT_OWNER)}
    for point_id in hot:
        made = writes.get(point_id, [])
        durable = [record.begun for record, is_durable in made if is_durable]
        allowed: list[Any] = [] if durable else [before.get(point_id)]
        for record, _ in made:
            if record.done is None or not any(begun > record.done for begun in durable):
                version = record.operation["version"]
                is_delete = record.operation["op"] == "delete"
                allowed.append(None if is_delete else first_payload(version, HOT_OWNER))
        found.expect(
            points.get(point_id) in allowed,
            f"{kind.name}: hot {point_id!r} is {points.get(point_id)}, none of {allowed[-4:]}",
        )


def _check_answers(found: Check, collection: Collection, kind: Kind, points: Points) -> None:
    """Counts, filters and exact searches agree with what was scrolled."""
    stats = collection.stats()
    n = len(points)
    counts = {"count()": collection.count(), "stats()": stats["points"], "len": len(collection)}
    for name, count in counts.items():
        found.expect(count == n, f"{kind.name}: {name} is {count}, scrolled {n}")
    found.expect(stats["damage"] is None, f"{kind.name}: damage: {stats['damage']}")
    for thread in range(COLLECTIONS.index(kind), WRITERS, len(COLLECTIONS)):
        for bucket in (0, 7):
            where = payload_where(thread, bucket)
            right = sum(p["owner"] == thread and p["bucket"] == bucket for p in points.values())
            count = collection.count(where)
            found.expect(count == right, f"{kind.name}: {where} counts {count}, is {right}")
    if "body" in kind.schema:
        for word in ("alpha3", "beta"):
            right = sum(word in p["body"].split() for p in points.values())
            count = collection.count({"field": "body", "op": "matches", "value": word})
            found.expect(count == right, f"{kind.name}: {word!r} counts {count}, is {right}")
    if not points:
        return
    rng = np.random.default_rng(n)
    order = sorted(points, key=str)
    ids = [order[i] for i in rng.choice(n, min(_SAMPLE, n), replace=False)]
    queries = vectors_of(ids, [points[i]["vector"] for i in ids])
    for is_exact in (True, False):
        found_ids = [list(h.ids) for h in collection.search(queries, limit=2, exact=is_exact)]
        lost = [i for i, near in zip(ids, found_ids, strict=True) if i not in near]
        few = 0 if is_exact else _SAMPLE // 4
        found.expect(len(lost) <= few, f"{kind.name}: exact={is_exact} does not find {lost[:5]}")


# ---------------------------------------------------------------------- names and files


def _check_catalog(found: Check, db: Database, state: dict[str, Any], journal: Read) -> None:
    """Collections, their few points and the alias are what a beginning of the thread made."""
    names = {kind.name for kind in COLLECTIONS}
    actual = {
        name: _scratch_version(found, db.get_collection(name))
        for name in db.list_collections()
        if name not in names
    }
    aliases = db.list_aliases()
    found.state |= {"scratch": actual, "aliases": aliases}
    scratch, expected_aliases = dict(state["scratch"]), dict(state["aliases"])
    records = journal.by_thread.get(CATALOG_THREAD, [])
    states = []
    for place, record in enumerate([None, *records]):
        if record is not None:
            apply_catalog(record.operation, scratch, expected_aliases)
        if place + 1 <= len(records) and records[place].done is not None:
            continue
        states.append((dict(scratch), dict(expected_aliases)))
    found.expect(
        (actual, aliases) in states,
        f"catalog: found {actual}, {aliases}; expected one of {states}",
    )


def _scratch_version(found: Check, collection: Collection) -> int | None:
    ids, payloads, vectors = everything(collection)
    if not ids:
        return None
    version = int(payloads[0]["vector"])
    right = vectors_of([1, 2, 3], [version] * 3, SCRATCH_DIM)
    is_whole = sorted(ids, key=str) == [1, 2, 3] and (vectors == right[np.array(ids) - 1]).all()
    found.expect(is_whole, f"{collection.name}: half of a batch: {ids}, {payloads}")
    return version


def check_files(found: Check, db: Database, collections: Sequence[Collection]) -> None:
    """After opening, nothing is left of what was interrupted."""
    folders = {collection._core.folder.name for collection in collections}
    for entry in db.path.iterdir():
        is_known = _ROOT_NAMES.fullmatch(entry.name)
        is_listed = entry.name in folders or not entry.is_dir()
        found.expect(is_known and is_listed, f"left over: {entry.name}")
    for folder in folders:
        strays = {file.name for file in (db.path / folder).iterdir()} - _FOLDER_NAMES
        found.expect(not strays, f"left over in {folder}: {strays}")
        index = [file.name for file in (db.path / folder / "index").iterdir()]
        found.expect(
            all(map(_INDEX_NAMES.fullmatch, index))
            and sum(name.endswith(".generation") for name in index) <= 1,
            f"left over in the index of {folder}: {index}",
        )


def main() -> None:
    """Check once; the answer goes to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("database", "state", "journal", "answer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--abandon", action="store_true", help="die instead of closing")
    options = parser.parse_args()
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("soardb").addHandler(handler)
    journal = read_journal(options.journal)
    state = json.loads(options.state.read_text("utf-8"))
    try:
        found = check(options.database, state, journal, abandon=options.abandon)
    except (SoarError, AssertionError, LookupError, TypeError, ValueError) as error:
        found = Check([f"{type(error).__name__}: {error}"])
    answer = {
        "problems": journal.problems + warnings + found.problems,
        "state": found.state,
        "points": found.points,
        "open_s": found.open_s,
        "reads": journal.reads,
        "builds": journal.builds,
        "writes": sum(len(records) for records in journal.by_thread.values()),
    }
    temporary = options.answer.with_suffix(".part")
    temporary.write_text(json.dumps(answer))
    temporary.replace(options.answer)
    if options.abandon:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
