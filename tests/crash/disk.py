"""What a full or failing disk does to one process: scenes, each played under the shim.

    test_disk.py -> [disk.py] (a process under shim.c) -> script.py

    python -P -m tests.crash.disk SCENE DATABASE FAULTS

A scene arms a fault by writing a line into the file FAULTS, calls the database, and takes the
fault away. It asserts what the caller hears, that reads go on, that nothing is half there, and
that the same process writes again; then it opens the directory anew and compares.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.database import Database
from soardb.errors import OutOfSpace, SoarError, WriteFailed
from tests.crash.checker import AT_REST, Check, check_files
from tests.crash.model import DIM, vectors_of
from tests.crash.script import World, world_of

__all__ = ["SCENES"]

ENOSPC, EIO, EINTR, SHORT = errno.ENOSPC, errno.EIO, errno.EINTR, -1
ALWAYS = 10**9
WAL = "rows.sqlite-wal"


class Scene:
    """The directory, the file of faults, and what must be there."""

    def __init__(self, path: Path, faults: Path) -> None:
        self.path, self.faults = path, faults
        self.warnings: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.warnings.append(  # type: ignore[method-assign]
            record.getMessage()
        )
        logging.getLogger("soardb").addHandler(handler)
        self.expected = World()
        self.db = Database(path, policy=AT_REST)

    @contextlib.contextmanager
    def failing(
        self, calls: str, number: int, part: str = "*", skip: int = 0, times: int = ALWAYS
    ) -> Iterator[None]:
        """Calls fail for the time of the block."""
        temporary = self.faults.with_suffix(".part")
        temporary.write_text(f"{calls} {number} {part} {skip} {times}")
        temporary.replace(self.faults)
        try:
            yield
        finally:
            self.faults.unlink()

    def create(self, name: str = "kept") -> Collection:
        """A collection, noted as there."""
        collection = self.db.create_collection(name, DIM, "l2", index={"nlist": 4})
        self.expected.collections[name] = {}
        return collection

    def put(self, ids: range, version: int, ack: Any = "fsync", name: str = "kept") -> None:
        """Points, noted as there once the call returns."""
        vectors = vectors_of(ids, [version] * len(ids))
        payloads = [{"vector": version}] * len(ids)
        self.db.get_collection(name).upsert(list(ids), vectors, payloads, ack=ack)
        self.expected.collections[name] |= dict.fromkeys(ids, version)

    def expect(self) -> None:
        """Counts, scrolls and searches give what is noted."""
        assert world_of(self.db) == self.expected

    def expect_clean(self, *, is_read_only_after: bool = False) -> None:
        """As expected now, writable unless told, and the same after opening anew."""
        self.expect()
        if not is_read_only_after:
            self.put(range(5_000, 5_010), 77)
            self.expect()
            self.db.get_collection("kept").compact(retrain=True)
            self.expect()
        self.reopen()
        self.expect()
        self.put(range(6_000, 6_010), 78)
        self.expect()
        found = Check()
        check_files(found, self.db, [self.db.get_collection(n) for n in self.expected.collections])
        assert not found.problems, found.problems
        self.db.close()

    def reopen(self, policy: Policy = AT_REST) -> None:
        """Close and open."""
        self.db.close()
        self.db = Database(self.path, policy=policy)


def refused(kind: type[SoarError], call: Callable[[], object]) -> str:
    """The message of the error that a call must raise."""
    with pytest.raises(kind) as raised:
        call()
    assert raised.type is kind, raised.value
    return str(raised.value)


# ---------------------------------------------------------------------- a full disk


def full_upsert(scene: Scene) -> None:
    """Every level of acknowledgement hears of it, and writes go on once there is space."""
    scene.create()
    scene.put(range(200), 1)
    with scene.failing("write", ENOSPC):
        for ack in ("fsync", "logged"):
            refused(OutOfSpace, partial(scene.put, range(100, 300), 2, ack))
            scene.expect()
        kept = dict(scene.expected.collections["kept"])
        scene.put(range(100, 300), 3, "memory")
        scene.expected.collections["kept"] = kept
        refused(OutOfSpace, scene.db.get_collection("kept").flush)
        scene.expect()
        refused(OutOfSpace, lambda: scene.db.get_collection("kept").delete([1]))
        patch = {"vector": 1, "x": 2}
        refused(OutOfSpace, lambda: scene.db.get_collection("kept").update_payload(patch, ids=[1]))
        scene.expect()
    scene.put(range(100, 300), 4)
    scene.expect_clean()


def full_midway(scene: Scene) -> None:
    """The disk may be full at any write of a transaction: it is whole or not there."""
    scene.create()
    scene.put(range(300), 1)
    failed = 0
    for skip in range(24):
        with scene.failing("write", ENOSPC, WAL, skip):
            try:
                scene.put(range(100, 500), 10 + skip)
            except OutOfSpace:
                failed += 1
        scene.expect()
    assert failed > 5, failed
    scene.expect_clean()


def full_witness(scene: Scene) -> None:
    """The transaction was flushed before the witness is written, so it stands."""
    scene.create()
    with scene.failing("write", ENOSPC, "witness$"):
        scene.put(range(50), 1)
        scene.expect()
    scene.put(range(40, 60), 2)
    scene.expect_clean()


def full_checkpoint(scene: Scene) -> None:
    """A WAL that cannot be folded in stays; a warning says so, and nobody's write fails."""
    scene.create()
    with scene.failing("write", ENOSPC, "rows.sqlite$"):
        for version in range(100):  # until the writer folds the WAL in by itself
            scene.put(range(6_000), version)
            if any("folded" in warning for warning in scene.warnings):
                break
        scene.expect()
        assert any("folded" in warning for warning in scene.warnings), scene.warnings
        scene.put(range(10), 30)
    scene.put(range(10), 31)
    scene.expect_clean()


def full_compaction(scene: Scene) -> None:
    """A build that finds no space leaves nothing, and what was searched before is still there."""
    collection = scene.create()
    scene.put(range(400), 1)
    collection.compact(retrain=True)
    scene.put(range(300, 500), 2)
    folder = collection._core.index_folder
    before = sorted(folder.iterdir())
    for calls, part, skip in (
        ("fallocate", "*", 0),
        ("fallocate", ".generation", 0),
        ("fallocate", "model.part", 0),
        ("open", "model.part", 0),
        ("open", ".generation", 0),
        ("rename", ".generation", 0),
        ("write", WAL, 0),
    ):
        (folder / "model.part").unlink(missing_ok=True)
        with scene.failing(calls, ENOSPC, part, skip):
            refused(OutOfSpace, lambda: collection.compact(retrain=True))
            scene.expect()
        left = [file for file in folder.iterdir() if file.name != "model.part"]
        assert sorted(left) == before, (calls, part, left)
    scene.expect_clean()


def full_in_background(scene: Scene) -> None:
    """The worker warns and tries again later; reads and writes do not notice."""
    scene.create()
    scene.put(range(400), 1)
    eager = Policy(tail=0.1, least=100, bounded=50)
    with scene.failing("fallocate", ENOSPC):
        scene.reopen(eager)
        scene.db.get_collection("kept")
        scene.put(range(300, 500), 2)
        wait_until(lambda: any("background" in warning for warning in scene.warnings))
        scene.expect()
        scene.put(range(300, 320), 3)
        scene.expect()
    scene.reopen(eager)
    stats = scene.db.get_collection("kept").stats
    wait_until(lambda: not stats()["is_exact"])
    scene.expect_clean()


def full_create(scene: Scene) -> None:
    """A collection that cannot be made is not there, in no part, and can be made later."""
    scene.create()
    scene.put(range(50), 1)
    root = sorted(scene.path.iterdir())
    for calls, part in (
        ("mkdir", ".new"),
        ("mkdir", "index"),
        ("open", "rows.sqlite$"),
        ("write", "rows.sqlite$"),
        ("write", WAL),
        ("open", ".catalog"),
        ("write", ".catalog"),
        ("rename", "catalog.json"),
    ):
        with scene.failing(calls, ENOSPC, part):
            try:
                scene.db.create_collection("more", DIM)
            except OutOfSpace:
                pass
            else:
                raise AssertionError(f"{calls} of {part} is not reached")
        assert sorted(scene.path.iterdir()) == root, (calls, part, sorted(scene.path.iterdir()))
        scene.expect()
    scene.create("more")
    scene.put(range(20), 2, name="more")
    scene.expect_clean()


def full_catalog(scene: Scene) -> None:
    """A drop, a rename or an alias that cannot be written has not happened."""
    scene.create()
    scene.put(range(50), 1)
    scene.create("more")
    scene.put(range(20), 2, name="more")
    with scene.failing("write", ENOSPC, ".catalog"):
        refused(OutOfSpace, lambda: scene.db.rename_collection("more", "other"))
        refused(OutOfSpace, lambda: scene.db.set_alias("now", "more"))
        refused(OutOfSpace, lambda: scene.db.drop_collection("more"))
        scene.expect()
    scene.put(range(10, 30), 3, name="more")
    scene.expect_clean()


def full_opening(scene: Scene) -> None:
    """A full disk at the opening is said, or does not matter; nothing is lost by it."""
    scene.create()
    scene.put(range(200), 1)
    scene.db.close()
    for calls in ("write", "open", "mkdir", "rename", "fallocate"):
        with scene.failing(calls, ENOSPC):
            try:
                with Database(scene.path, policy=AT_REST) as db:
                    assert world_of(db) == scene.expected
            except OutOfSpace:
                pass
        with Database(scene.path, policy=AT_REST) as db:
            assert world_of(db) == scene.expected
    scene.db = Database(scene.path, policy=AT_REST)
    scene.expect_clean()


# ---------------------------------------------------------------------- a failing disk


def failed_flush(scene: Scene) -> None:
    """A flush that fails is not tried again: not acknowledged, and closed to writes until reopened.

    The kernel forgets the pages that it could not write, so a second flush would succeed and mean
    nothing (PostgreSQL's fsyncgate).
    """
    scene.create()
    scene.put(range(100), 1)
    old = scene.expected.collections["kept"]
    with scene.failing("fsync", EIO, WAL, 0, 1):
        refused(WriteFailed, lambda: scene.put(range(50, 150), 2))
    scene.expect()
    refused(WriteFailed, lambda: scene.put(range(10), 3))
    refused(WriteFailed, lambda: scene.put(range(10), 3, "logged"))
    refused(WriteFailed, lambda: scene.db.get_collection("kept").compact(retrain=True))
    scene.expect()
    scene.reopen()
    found = world_of(scene.db).collections["kept"]
    assert found in (old, old | dict.fromkeys(range(50, 150), 2)), "neither old nor new"
    scene.expected.collections["kept"] = found
    scene.expect_clean()


def failed_write(scene: Scene) -> None:
    """A write that fails closes the collection to writes; reopened, it has all it acknowledged."""
    scene.create()
    scene.put(range(100), 1)
    with scene.failing("write", EIO, WAL, 0, 1):
        refused(WriteFailed, lambda: scene.put(range(50, 150), 2))
    scene.expect()
    refused(WriteFailed, lambda: scene.put(range(10), 3))
    scene.expect_clean(is_read_only_after=True)


def failed_build(scene: Scene) -> None:
    """A generation that cannot be flushed never becomes the current one."""
    collection = scene.create()
    scene.put(range(400), 1)
    collection.compact(retrain=True)
    scene.put(range(300, 500), 2)
    before = collection._core.generation_file()
    for calls, part in (("fsync", ".generation"), ("fsync", "model.part"), ("rename", ".gener")):
        (collection._core.index_folder / "model.part").unlink(missing_ok=True)
        with scene.failing(calls, EIO, part):
            refused(WriteFailed, lambda: collection.compact(retrain=True))
        assert collection._core.generation_file() == before
        scene.expect()
    left = [file for file in collection._core.index_folder.iterdir() if file.name != "model.part"]
    assert left == [before], left
    scene.expect_clean()


def failed_checkpoint(scene: Scene) -> None:
    """A checkpoint whose flush fails loses nothing, as the WAL stays."""
    scene.create()
    scene.put(range(500), 1)
    store = scene.db.get_collection("kept")._core.store
    for number in (EIO, ENOSPC):
        with scene.failing("fsync", number, "rows.sqlite", 0, 1):
            _try(lambda: store.checkpoint(force=True))
        scene.expect()
    with contextlib.suppress(WriteFailed):
        scene.put(range(400, 600), 2)
    scene.reopen()
    scene.expect_clean()


def failed_catalog(scene: Scene) -> None:
    """A flush of the catalog that fails: the names are the old ones or the new, never a mix."""
    scene.create()
    scene.put(range(50), 1)
    scene.create("more")
    for part in (".catalog", "database$"):
        with scene.failing("fsync", EIO, part):
            refused(WriteFailed, lambda: scene.db.set_alias("now", "more"))
            refused(WriteFailed, lambda: scene.db.create_collection("third", DIM))
        scene.db.get_collection("kept").count()
    scene.reopen()
    found = world_of(scene.db)
    assert {"kept", "more"} <= set(found.collections) <= {"kept", "more", "third"}
    assert found.aliases in ({}, {"now": "more"})
    scene.expected.aliases = found.aliases
    if "third" in found.collections:
        scene.expected.collections["third"] = {}
    scene.expect_clean()


def short_writes(scene: Scene) -> None:
    """The system may write less than it was asked to; the rest is then written too."""
    with scene.failing("write", SHORT):
        full_life(scene)


def interrupted_writes(scene: Scene) -> None:
    """A signal may interrupt a write; it is begun again."""
    with scene.failing("write", EINTR, "*", 0, 40):
        full_life(scene)


def full_life(scene: Scene) -> None:
    """Everything that writes, once."""
    collection = scene.create()
    scene.put(range(300), 1)
    scene.put(range(200, 400), 2, "logged")
    collection.compact(retrain=True)
    collection._core.store.checkpoint(force=True)
    scene.create("more")
    scene.put(range(20), 3, name="more")
    scene.db.drop_collection("more")
    del scene.expected.collections["more"]
    scene.db.set_alias("now", "kept")
    scene.expected.aliases = {"now": "kept"}
    scene.expect_clean()


def _try(call: Callable[[], object]) -> None:
    """Call; a full or failing disk may be said."""
    with contextlib.suppress(OutOfSpace, WriteFailed):
        call()


def wait_until(is_true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for the background."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if is_true():
            return
        pause.wait(0.02)
    raise AssertionError("waited in vain")


SCENES: dict[str, Callable[[Scene], None]] = {
    scene.__name__: scene
    for scene in (
        full_upsert,
        full_midway,
        full_witness,
        full_checkpoint,
        full_compaction,
        full_in_background,
        full_create,
        full_catalog,
        full_opening,
        failed_flush,
        failed_write,
        failed_build,
        failed_checkpoint,
        failed_catalog,
        short_writes,
        interrupted_writes,
    )
}


if __name__ == "__main__":
    SCENES[sys.argv[1]](Scene(Path(sys.argv[2]), Path(sys.argv[3])))
