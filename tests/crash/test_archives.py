"""Death in the middle of a snapshot or a restore: nothing half done stays in the way.

soardb/snapshot.py, soardb/database.py, faults.POINTS -> [test_archives.py]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import soardb
from soardb.checkup import check

CHILD = """
import sys, soardb
with soardb.connect(sys.argv[1]) as db:
    if sys.argv[3] == "snapshot":
        db.snapshot("a", sys.argv[2])
    else:
        db.restore(sys.argv[2], "copy")
"""


def die(point: str, *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, *arguments],
        env={**os.environ, "SOARDB_CRASH_AT": point},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database of one collection of 100 points with an index."""
    with soardb.connect(tmp_path / "db") as db:
        a = db.create_collection("a", 8)
        a.upsert(np.arange(100), np.random.default_rng(0).standard_normal((100, 8)))
        a.compact()
    return tmp_path / "db"


@pytest.mark.parametrize("point", ["snapshot.copied", "snapshot.before_rename"])
def test_a_snapshot_is_there_whole_or_not_at_all(folder: Path, point: str) -> None:
    """Half a backup under the name of a whole one is the worst backup."""
    target = folder.parent / "snapshot"
    die(point, str(folder), str(target), "snapshot")
    assert not target.exists()
    with soardb.connect(folder) as db:
        db.snapshot("a", target)  # nothing of the dead one is in the way
        assert db.restore(target, "copy").count() == 100
    assert check(folder) == []


@pytest.mark.parametrize("point", ["restore.unpacked", "create.listed"])
def test_a_restore_is_there_whole_or_not_at_all(folder: Path, point: str) -> None:
    """Before the catalog lists it it is not there, and its folder goes; afterwards it is."""
    target = folder.parent / "snapshot"
    with soardb.connect(folder) as db:
        db.snapshot("a", target)
    die(point, str(folder), str(target), "restore")
    with soardb.connect(folder) as db:
        is_listed = point == "create.listed"
        assert db.list_collections() == (["a", "copy"] if is_listed else ["a"])
        if is_listed:
            assert db.get_collection("copy").count() == 100
        else:
            assert db.restore(target, "copy").count() == 100
    assert check(folder) == []
    assert not [entry for entry in folder.iterdir() if entry.name.endswith(".new")]
