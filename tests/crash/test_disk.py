"""A disk that is full, or fails: what the caller hears, and what is there afterwards.

    tests/crash/disk.py -> [test_disk.py] -> shim.c

Each scene is a process of its own, whose system calls fail where the scene says. A real small disk
has its test too, where this machine lets one be mounted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import OutOfSpace, Unavailable
from soardb.kernels.layout import F32
from tests.crash.checker import AT_REST
from tests.crash.disk import SCENES
from tests.crash.shim import compile_shim, environment


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    try:
        return compile_shim(tmp_path_factory.mktemp("shim"))
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory."""
    target = tmp_path / "small"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(target)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield target
    subprocess.run(["umount", str(target)], check=True)


def _is_stored(collection: Collection, first: int, vectors: F32) -> bool:
    """Store 500 points more; False where the disk is full."""
    try:
        collection.upsert(np.arange(first, first + 500), vectors)
    except OutOfSpace:
        return False
    return True


class TestScenes:
    @pytest.mark.parametrize("scene", SCENES)
    def test_scene(self, scene: str, library: Path, tmp_path: Path) -> None:
        """See the docstring of each scene in disk.py."""
        database, faults = tmp_path / "database", tmp_path / "faults"
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "tests.crash.disk", scene, str(database), str(faults)],
            env=environment(library, database, faults=faults),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr


class TestSmallDisk:
    def test_a_disk_that_fills_up_refuses_and_goes_on(self, small_disk: Path) -> None:
        """Without a shim: SQLite, mapped files and the file system's own errors together."""
        rng = np.random.default_rng(5)
        vectors = rng.standard_normal((500, 64), dtype=np.float32)
        with Database(small_disk / "db", policy=AT_REST) as db:
            collection = db.create_collection("a", 64, "l2", index={"nlist": 4})
            stored = 0
            while _is_stored(collection, stored, vectors):
                stored += 500
            assert collection.count() == stored > 5_000
            with pytest.raises(OutOfSpace):
                collection.compact(retrain=True)
            hits = collection.search(vectors[7], limit=3, exact=True)
            assert hits.ids[0] % 500 == 7
        with Database(small_disk / "db", policy=AT_REST) as db:
            assert db.get_collection("a").count() == stored
