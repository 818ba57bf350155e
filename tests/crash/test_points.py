"""Death at every named point of the write path, one by one.

    soardb/storage/faults.py -> [test_points.py] -> script.py

A random kill seldom hits the moment between two system calls; these do. After each the database
opens by itself and holds what the acknowledged steps made, and of the step under way all or
nothing. Points of snapshots have tests of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from soardb.database import Database
from soardb.storage.faults import POINTS
from tests.crash.checker import AT_REST, Check, check_files
from tests.crash.script import STEPS, play, world_after, world_of

REACHED: dict[str, tuple[int, ...]] = {
    "write.begun": (1, 2, 7, 12),
    "write.before_commit": (1, 2, 9, 10),
    "write.after_commit": (1, 2, 9, 10),
    "write.after_witness": (1, 2, 9, 10),
    "write.applied": (1, 2, 9, 10),
    "checkpoint.begun": (1, 2),
    "checkpoint.done": (1, 2),
    "build.trained": (1, 2),
    "build.encoded": (1, 2),
    "build.before_rename": (1, 2),
    "build.after_rename": (1, 2),
    "install.before_commit": (1, 2),
    "install.after_commit": (1, 2),
    "install.old_removed": (1, 2),
    "create.folder_made": (1, 2),
    "create.listed": (1, 2),
    "drop.folder_moved": (1, 2),
    "drop.unlisted": (1, 2),
    "catalog.before_rename": (1, 2, 4, 5, 6),
}
"""Points of the script, and at which of their times to die."""

ELSEWHERE = {"snapshot.copied", "snapshot.before_rename", "restore.unpacked"}
"""Points with tests of their own, beside those of snapshots."""

DEATHS = [(point, count) for point, counts in REACHED.items() for count in counts]


def run_until(point: str, count: int, database: Path) -> int:
    """Run the script until it dies there; the last step that it called done."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "tests.crash.script", str(database), "0"],
        env={**os.environ, "SOARDB_CRASH_AT": f"{point}:{count}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, f"{point}:{count} is not reached: {ended.stderr}"
    return int((ended.stdout.split() or ["0"])[-1])


class TestNamedPoints:
    def test_every_point_is_tried(self) -> None:
        """A point that is added to the write path must be added here, or in a list of another."""
        assert set(REACHED) | ELSEWHERE == set(POINTS)
        assert set(REACHED).isdisjoint(ELSEWHERE)

    def test_the_script_does_what_the_model_says(self, tmp_path: Path) -> None:
        """Without a death, so that the deaths below are judged by a model that holds."""
        play(tmp_path / "db", STEPS, lambda number: None)
        with Database(tmp_path / "db", policy=AT_REST) as db:
            assert world_of(db) == world_after(len(STEPS))

    @pytest.mark.parametrize(("point", "count"), DEATHS)
    def test_a_death_loses_nothing_acknowledged(
        self, point: str, count: int, tmp_path: Path
    ) -> None:
        """All acknowledged steps, and the one under way whole or not at all; no file is left."""
        last = run_until(point, count, tmp_path / "db")
        with Database(tmp_path / "db", policy=AT_REST) as db:
            found = world_of(db)
            assert found in (world_after(last), world_after(last + 1))
            files = Check()
            check_files(files, db, [db.get_collection(n) for n in db.list_collections()])
            assert not files.problems
        with Database(tmp_path / "db", policy=AT_REST) as db:
            assert world_of(db) == found, "a second opening finds what the first did"
