"""What a process may not have: handles, permissions, a disk that it may write to.

    soardb/database.py, soardb/storage/ -> [test_limits.py]

Handles are counted over many openings; few handles, and folders that cannot be written, must give
an error that says so, and what is there must stay as it was.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument, NotFound, ReadOnly, SoarError
from tests.crash.checker import AT_REST
from tests.crash.script import STEPS, play, world_after, world_of

HANDLES = Path("/proc/self/fd")


def handles() -> int:
    """Open handles of this process."""
    gc.collect()
    return len(list(HANDLES.iterdir()))


def made(path: Path) -> Path:
    """A database by the script."""
    play(path, STEPS, lambda number: None)
    return path


class TestHandles:
    @pytest.mark.skipif(not HANDLES.exists(), reason="handles are counted through /proc")
    def test_three_hundred_openings_leak_no_handle_and_no_thread(self, tmp_path: Path) -> None:
        """A service opens and closes databases for months."""
        made(tmp_path / "db")
        for turn in range(300):
            with Database(tmp_path / "db", policy=AT_REST) as db:
                collection = db.get_collection("kept")
                if turn % 10 == 0:
                    collection.search(np.ones(24), limit=1)
                    collection.upsert([1], np.ones((1, 24)))
                if turn % 50 == 0:
                    collection.compact(retrain=True)
            if turn == 60:
                settled, threads = handles(), threading.active_count()
        assert handles() <= settled
        assert threading.active_count() <= threads

    def test_with_few_handles_calls_fail_by_name_and_work_again(self, tmp_path: Path) -> None:
        """Readers have a connection each; without handles they hear an error of soardb."""
        made(tmp_path / "db")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        errors: list[BaseException] = []
        with Database(tmp_path / "db", policy=AT_REST) as db:
            collection = db.get_collection("kept")
            collection.count()
            resource.setrlimit(resource.RLIMIT_NOFILE, (_handles_in_use() + 8, hard))
            held = _all_but(2)
            try:
                readers = [
                    threading.Thread(target=_read, args=(collection, errors)) for _ in range(16)
                ]
                for reader in readers:
                    reader.start()
                for reader in readers:
                    reader.join(60)
                _attempt(lambda: db.create_collection("more", 8), errors)
                _attempt(lambda: collection.compact(retrain=True), errors)
                _attempt(lambda: collection.upsert([1], np.ones((1, 24))), errors)
            finally:
                for handle in held:
                    os.close(handle)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert errors, "the limit was not felt"
            assert [e for e in errors if not isinstance(e, SoarError)] == []
            assert len(collection.search(np.ones(24), limit=3)) == 3
            db.create_collection("again", 8)
            collection.compact(retrain=True)
        with Database(tmp_path / "db", policy=AT_REST) as db:
            found = world_of_kept(db)
            expected = world_after(len(STEPS)).collections["kept"]
            assert found.keys() - {1} == expected.keys() - {1}


def world_of_kept(db: Database) -> dict[int, int]:
    """{id: version} of the collection; a point without a version has -1."""
    page = db.get_collection("kept").scroll(page_size=10_000)
    return {int(p.id): (p.payload or {}).get("vector", -1) for p in page}


def _handles_in_use() -> int:
    """The greatest handle: a limit counts places, not handles."""
    return max(int(name) for name in os.listdir(HANDLES)) + 1 if HANDLES.exists() else 32


def _all_but(few: int) -> list[int]:
    """Take every handle that is left, but for a few."""
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    for _ in range(few):
        os.close(held.pop())
    return held


def _read(collection: Collection, errors: list[BaseException]) -> None:
    for turn in range(20):
        _attempt(partial(collection.search, np.ones(24), limit=5 + turn), errors)


def _attempt(call: Callable[[], object], errors: list[BaseException]) -> None:
    try:
        call()
    except (SoarError, OSError, RuntimeError, ValueError) as error:
        errors.append(error)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A database on a file system that is mounted for reading only."""
    target = tmp_path / "disk"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(target)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        made(target / "db")
        subprocess.run(["mount", "-o", "remount,ro", str(target)], check=True)
        yield target / "db"
    finally:
        gc.collect()
        subprocess.run(["umount", str(target)], check=True)


UNPRIVILEGED = """
import os, sys
import numpy as np
from pathlib import Path
from soardb.database import Database
from soardb.errors import ReadOnly
from tests.crash.checker import AT_REST
from tests.crash.script import STEPS, play, world_after, world_of
warm, path = Path(sys.argv[1]), Path(sys.argv[2])
play(warm, STEPS, lambda number: None)
with Database(warm, read_only=True) as db:
    world_of(db)
os.setresuid(65534, 65534, 0)
try:
    Database(path)
except ReadOnly as error:
    print(error)
else:
    sys.exit("opened for writing what cannot be written")
with Database(path, read_only=True) as db:
    assert world_of(db) == world_after(len(STEPS))
os.setresuid(0, 0, 0)
"""


class TestWithoutPermission:
    def test_a_read_only_file_system_is_read_and_not_written(self, read_only_disk: Path) -> None:
        """A DVD, a snapshot of a volume, a container's image."""
        with pytest.raises(ReadOnly, match=str(read_only_disk)):
            Database(read_only_disk)
        with Database(read_only_disk, read_only=True) as db:
            assert world_of(db) == world_after(len(STEPS))
            with pytest.raises(ReadOnly):
                db.get_collection("kept").upsert([1], np.ones((1, 24)))
            with pytest.raises(ReadOnly):
                db.drop_collection("kept")
        with pytest.raises(ReadOnly):
            Database(read_only_disk.parent / "other")

    @pytest.mark.skipif(os.geteuid() != 0, reason="root alone can take another user's place")
    def test_a_folder_of_another_user_is_read_and_not_written(self, tmp_path: Path) -> None:
        """Permissions are those of the user at the time, so root becomes nobody for this."""
        made(tmp_path / "db")
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_mode & 0o005 != 0o005 and folder.name.startswith(
                ("pytest", "popen-gw", "test")
            ):
                folder.chmod(folder.stat().st_mode | 0o055)
        ended = subprocess.run(
            [
                sys.executable,
                "-P",
                "-c",
                UNPRIVILEGED,
                str(tmp_path / "warm"),
                str(tmp_path / "db"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        assert str(tmp_path / "db") in ended.stdout

    @pytest.mark.skipif(os.geteuid() == 0, reason="root passes every permission")
    def test_a_folder_without_write_permission_is_refused(self, tmp_path: Path) -> None:
        """The same for an ordinary user."""
        path = made(tmp_path / "db")
        path.chmod(0o555)
        (path / "LOCK").chmod(0o444)
        try:
            with pytest.raises(ReadOnly):
                Database(path)
            with Database(path, read_only=True) as db:
                assert world_of(db) == world_after(len(STEPS))
        finally:
            path.chmod(0o755)


class TestPaths:
    def test_a_directory_may_be_a_link(self, tmp_path: Path) -> None:
        """People move data to another disk and leave a link."""
        made(tmp_path / "real")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with Database(tmp_path / "link", policy=AT_REST) as db:
            assert world_of(db) == world_after(len(STEPS))

    def test_what_is_no_directory_is_refused_and_not_touched(self, tmp_path: Path) -> None:
        """A typing error must not destroy a file, nor fill somebody's home with ours."""
        file = tmp_path / "letter.txt"
        file.write_text("dear")
        with pytest.raises(InvalidArgument):
            Database(file)
        with pytest.raises(InvalidArgument):
            Database(tmp_path)
        with pytest.raises(NotFound):
            Database(tmp_path / "none", create=False)
        with pytest.raises(NotFound):
            Database(tmp_path / "none", read_only=True)
        assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]
        assert file.read_text() == "dear"
