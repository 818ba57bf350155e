"""Kill a database under load, open it, check it, and again: cycles on one directory.

    make crash -> [harness.py] -> workload.py, checker.py (a process each)

    python -P -m tests.crash.harness --cycles 200 --seed 1

A cycle ends by SIGKILL at a random moment, the opening included, or at a named point of the write
path (soardb/storage/faults.py). Now and then the process that opens is killed too, or dies after
its check, so that recovery starts from what a recovery left. The state carries over from cycle to
cycle. A summary in JSON comes last; the exit code is 1 where something was found, and the
directory as it was before the check is then kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Cycle", "Summary", "run_cycles"]

UNDER_LOAD = {
    "write.begun": 60,
    "write.before_commit": 60,
    "write.after_commit": 60,
    "write.after_witness": 20,
    "write.applied": 60,
    "checkpoint.begun": 1,
    "checkpoint.done": 1,
    "build.trained": 2,
    "build.encoded": 4,
    "build.before_rename": 4,
    "build.after_rename": 4,
    "install.before_commit": 4,
    "install.after_commit": 4,
    "install.old_removed": 4,
    "create.folder_made": 4,
    "create.listed": 4,
    "drop.folder_moved": 3,
    "drop.unlisted": 3,
    "catalog.before_rename": 8,
}
"""Points that the workload reaches, and the greatest count to die at."""

_LEAST_S, _MOST_S = 0.05, 3.0
_CHECK_TIMEOUT_S = 120.0
_EMPTY: dict[str, Any] = {"points": {}, "scratch": {}, "aliases": {}}


@dataclass(slots=True)
class Cycle:
    """What happened in one."""

    number: int
    how: str
    lived_s: float = 0.0
    writes: int = 0
    reads: int = 0
    builds: int = 0
    points: int = 0
    open_s: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Summary:
    """Totals over all cycles."""

    cycles: int = 0
    killed_at_random: int = 0
    killed_at_points: dict[str, int] = field(default_factory=dict)
    killed_in_recovery: int = 0
    writes: int = 0
    reads: int = 0
    builds: int = 0
    most_points: int = 0
    slowest_open_s: float = 0.0
    seconds: float = 0.0
    failed_cycles: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _Directory:
    """The files of a run: the database, the state that is expected, journals."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed = root, seed
        self.database = root / "database"
        self.before = root / "before-check"
        self.state, self.answer = root / "state.json", root / "answer.json"
        self.journal = root / "journal"
        self.output = root / "output"
        self.state.write_text(json.dumps(_EMPTY))

    def start(self, module: str, *arguments: object, at: str | None = None) -> Any:
        """A child process."""
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        environment.pop("SOARDB_CRASH_AT", None)
        if at:
            environment["SOARDB_CRASH_AT"] = at
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, arguments)],
                env=environment,
                stdout=output,
                stderr=output,
            )


def run_cycles(root: Path, cycles: int, seed: int, *, show: bool = False) -> Summary:
    """Run cycles in a folder; stops at the first that finds something."""
    directory, summary = _Directory(root, seed), Summary()
    begun = time.perf_counter()
    for number in range(1, cycles + 1):
        cycle = _run_cycle(directory, number, random.Random(f"{seed}/{number}"), summary)
        _add(summary, cycle)
        if show:
            print(
                f"{number:5d}  {cycle.how:34s} lived {cycle.lived_s:4.2f} s  "
                f"{cycle.writes:5d} writes {cycle.reads:5d} reads {cycle.builds:3d} builds  "
                f"{cycle.points:5d} points  opened in {cycle.open_s * 1e3:4.0f} ms  "
                f"{'FAILED' if cycle.problems else 'ok'}",
                flush=True,
            )
        if cycle.problems:
            break
    summary.seconds = time.perf_counter() - begun
    return summary


def _add(summary: Summary, cycle: Cycle) -> None:
    summary.cycles += 1
    if cycle.how.startswith("point "):
        points = Counter(summary.killed_at_points)
        points[cycle.how.split()[1].partition(":")[0]] += 1
        summary.killed_at_points = dict(points)
    else:
        summary.killed_at_random += 1
    summary.writes += cycle.writes
    summary.reads += cycle.reads
    summary.builds += cycle.builds
    summary.most_points = max(summary.most_points, cycle.points)
    summary.slowest_open_s = max(summary.slowest_open_s, cycle.open_s)
    if cycle.problems:
        summary.failed_cycles.append(cycle.number)
        summary.problems += cycle.problems


def _run_cycle(directory: _Directory, number: int, rng: random.Random, summary: Summary) -> Cycle:
    directory.journal.unlink(missing_ok=True)
    directory.output.unlink(missing_ok=True)
    at = None
    if rng.random() < 0.5:
        point = rng.choice(list(UNDER_LOAD))
        at = f"{point}:{rng.randint(1, UNDER_LOAD[point])}"
    wait_s = rng.uniform(_LEAST_S, _MOST_S)
    from_ready = rng.random() < 0.8
    cycle = Cycle(number, f"after {wait_s * 1e3:.0f} ms")
    problems = _load_and_kill(directory, cycle, at, wait_s, from_ready)
    shutil.rmtree(directory.before, ignore_errors=True)
    if directory.database.exists():
        shutil.copytree(directory.database, directory.before)
    if rng.random() < 0.25:
        summary.killed_in_recovery += 1
        _kill_in_recovery(directory, rng.uniform(0.2, 0.8))
    answer = _check(directory, abandon=rng.random() < 0.4)
    cycle.problems = problems + answer["problems"]
    if cycle.problems:
        cycle.problems.append(directory.output.read_text("utf-8", "replace")[-4000:])
        return cycle
    cycle.writes, cycle.reads = answer["writes"], answer["reads"]
    cycle.builds, cycle.points = answer["builds"], answer["points"]
    cycle.open_s = answer["open_s"]
    directory.state.write_text(json.dumps(answer["state"]))
    return cycle


def _load_and_kill(
    directory: _Directory, cycle: Cycle, at: str | None, wait_s: float, from_ready: bool
) -> list[str]:
    """Run the workload until its end; returns problems."""
    child = directory.start(
        "tests.crash.workload",
        directory.database,
        directory.state,
        directory.journal,
        cycle.number,
        directory.seed,
        at=at,
    )
    begun = time.perf_counter()
    if from_ready:
        while child.poll() is None and not _is_ready(directory.journal):
            time.sleep(0.005)
            if time.perf_counter() - begun > _CHECK_TIMEOUT_S:
                child.kill()
                return ["the workload did not get ready: a hang"]
    try:
        child.wait(_MOST_S if at else wait_s)
    except subprocess.TimeoutExpired:
        child.kill()
    else:
        if at:
            cycle.how = f"point {at}"
    child.wait()
    cycle.lived_s = time.perf_counter() - begun
    if child.returncode != -signal.SIGKILL:
        return [f"the workload ended by itself with {child.returncode}"]
    return []


def _is_ready(journal: Path) -> bool:
    return journal.exists() and b'"ready"' in journal.read_bytes()


def _kill_in_recovery(directory: _Directory, wait_s: float) -> None:
    """Start a check and kill it while it opens."""
    child = directory.start(
        "tests.crash.checker",
        directory.database,
        directory.state,
        directory.journal,
        directory.answer,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(wait_s)
    child.kill()
    child.wait()


def _check(directory: _Directory, *, abandon: bool) -> dict[str, Any]:
    directory.answer.unlink(missing_ok=True)
    child = directory.start(
        "tests.crash.checker",
        directory.database,
        directory.state,
        directory.journal,
        directory.answer,
        *(["--abandon"] if abandon else []),
    )
    try:
        child.wait(_CHECK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return {"problems": [f"the check took more than {_CHECK_TIMEOUT_S:.0f} s: a hang"]}
    if not directory.answer.exists():
        return {"problems": [f"the check ended with {child.returncode} and no answer"]}
    answer: dict[str, Any] = json.loads(directory.answer.read_text("utf-8"))
    return answer


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="where to work; a temporary one unless told")
    options = parser.parse_args()
    root = options.directory or Path(tempfile.mkdtemp(prefix="soardb-crash-"))
    root.mkdir(parents=True, exist_ok=True)
    summary = run_cycles(root, options.cycles, options.seed, show=True)
    print(json.dumps(asdict(summary), indent=1))
    if summary.problems:
        print(f"kept: {root}", file=sys.stderr)
        return 1
    if not options.directory:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
