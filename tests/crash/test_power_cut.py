"""The power goes at any system call: what was acknowledged with `fsync` is there.

    tests/crash/powercut.py -> [test_power_cut.py]

`make powercut` draws a thousand states. Here are a few of two scripts, and the proof that the
method sees a flush that is missing.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from soardb.errors import Unavailable
from tests.crash.powercut import Summary, check_cuts, record_script
from tests.crash.script import STEPS
from tests.crash.shim import compile_shim
from tests.crash.trace import Event


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    try:
        return compile_shim(tmp_path_factory.mktemp("shim"))
    except Unavailable as missing:
        pytest.skip(str(missing))


def states(events: list[Event], n: int, folder: Path, number: int) -> Summary:
    """Check n states of a script's trace."""
    summary = Summary()
    rng = random.Random(number)
    cuts = sorted(rng.choices(range(len(events) + 1), k=n))
    check_cuts(folder, events, cuts, rng, summary, number)
    return summary


class TestPowerCut:
    @pytest.mark.parametrize("number", [0, 5])
    def test_what_was_flushed_survives(self, number: int, library: Path, tmp_path: Path) -> None:
        """At any moment, whatever the disk kept of what was not flushed, torn sectors included."""
        events = record_script(tmp_path, library, number)
        summary = states(events, 30, tmp_path, number)
        assert not summary.problems, "\n".join(summary.problems)
        assert summary.states == 30

    def test_the_trace_holds_what_the_script_did(self, library: Path, tmp_path: Path) -> None:
        """Every step is marked, and replaying all of it gives the directory byte for byte."""
        from tests.crash.trace import Disk, Loss

        events = record_script(tmp_path, library, 0)
        disk = Disk()
        for event in events:
            disk.do(event)
        assert disk.marks == [str(n) for n in range(len(STEPS) + 1)]
        disk.leave(tmp_path / "replayed", Loss("all", "all"), random.Random(0))
        recorded = {
            str(file.relative_to(tmp_path / "recorded")): file.read_bytes()
            for file in sorted((tmp_path / "recorded").rglob("*"))
            if file.is_file()
        }
        replayed = {
            str(file.relative_to(tmp_path / "replayed")): file.read_bytes()
            for file in sorted((tmp_path / "replayed").rglob("*"))
            if file.is_file()
        }
        assert sorted(recorded) == sorted(replayed)
        assert [name for name in recorded if recorded[name] != replayed[name]] == []

    @pytest.mark.parametrize("file", ["rows.sqlite-wal", ".generation", "catalog.json"])
    def test_a_missing_flush_is_seen(self, file: str, library: Path, tmp_path: Path) -> None:
        """With the flushes of one kind of file taken out, states are wrong and are found so."""
        events = record_script(tmp_path, library, 0)
        without = [
            event for event in events
            if not (event.kind in ("fsync", "content") and file in event.path)
        ]  # fmt: skip
        assert len(without) < len(events)
        assert states(without, 60, tmp_path, 0).problems
