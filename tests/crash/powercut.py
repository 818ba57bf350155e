"""Cut the power at any system call, lose what was not flushed, and open what is left.

    make powercut -> [powercut.py] -> script.py (a process under the shim), trace.py

    python -P -m tests.crash.powercut --states 1000 --seed 1

A script runs once and its system calls are recorded. Then states of the disk are drawn from
prefixes of the record, opened and compared: of each collection what is found must be what some
beginning of the script made of it, and that must hold all that was acknowledged with `fsync`.
Names and aliases are always acknowledged so.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from soardb.database import Database
from soardb.errors import SoarError
from tests.crash.checker import AT_REST, Check, check_files
from tests.crash.script import Step, World, advance, script, world_of
from tests.crash.shim import compile_shim, environment
from tests.crash.trace import LOSSES, Disk, Event, Loss, read_trace

__all__ = ["History", "Summary", "check_cuts", "check_state", "record_script", "run_states"]

_STATES_A_SCRIPT = 100


@dataclass(slots=True)
class Summary:
    """Totals over all states."""

    states: int = 0
    scripts: int = 0
    events: int = 0
    by_loss: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def record_script(folder: Path, library: Path, seed: int) -> list[Event]:
    """Run the script of a seed under the shim; its trace."""
    database, trace, mark = folder / "recorded", folder / "trace", folder / "mark"
    for path in (trace, mark):
        path.unlink(missing_ok=True)
    shutil.rmtree(database, ignore_errors=True)
    database.mkdir()
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "tests.crash.script", str(database.resolve()), str(seed)],
        env=environment(library, database, trace=trace, mark=mark),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return list(read_trace(trace))


class History:
    """What each collection held after each step of a script, whatever its name was then."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.worlds = [World()]
        self.numbers: list[dict[str, int]] = [{}]  # {name: number of the collection}
        self.known: list[dict[int, int]] = [{}]  # {number: last step flushed to the disk}
        for place, step in enumerate(steps, start=1):
            world, numbers = self.worlds[-1].copy(), dict(self.numbers[-1])
            known = dict(self.known[-1])
            advance(world, step)
            kind, what = step
            if kind == "create":
                numbers[what] = place
            elif kind == "rename":
                numbers[what[1]] = numbers.pop(what[0])
            elif kind == "drop":
                del numbers[what]
            name = what if kind in ("create", "compact") else None
            if kind in ("put", "delete") and what[-1] == "fsync":
                name = what[0]
            if name is not None:
                known[numbers[name]] = place
            self.worlds.append(world)
            self.numbers.append(numbers)
            self.known.append(known)

    def problem(self, found: World, done: int) -> str | None:
        """What is wrong with what was found, after `done` steps were acknowledged."""
        last = min(max(done, 0) + 1, len(self.worlds) - 1)
        for step in (max(done, 0), last):
            world, numbers = self.worlds[step], self.numbers[step]
            if set(numbers) == set(found.collections) and world.aliases == found.aliases:
                return self._content_problem(found, numbers, max(done, 0), last)
        return f"names {sorted(found.collections)}, aliases {found.aliases} after step {done}"

    def _content_problem(
        self, found: World, numbers: dict[str, int], done: int, last: int
    ) -> str | None:
        for name, number in numbers.items():
            allowed = []
            for step in range(self.known[done].get(number, number), last + 1):
                names = [n for n, other in self.numbers[step].items() if other == number]
                allowed += [self.worlds[step].collections[n] for n in names]
            if found.collections[name] not in allowed:
                return (
                    f"{name} holds {len(found.collections[name])} points after step {done}, "
                    f"expected what one of {len(allowed)} steps left: {[len(a) for a in allowed]}"
                )
        return None


def check_state(path: Path, history: History, done: int) -> str | None:
    """Open a state of the disk twice; what is wrong with it, or None."""
    try:
        with Database(path, policy=AT_REST) as db:
            found = world_of(db)
            files = Check()
            check_files(files, db, [db.get_collection(n) for n in db.list_collections()])
        with Database(path, policy=AT_REST) as db:
            again = world_of(db)
    except (SoarError, AssertionError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    if files.problems:
        return str(files.problems)
    if again != found:
        return "a second opening finds something else"
    return history.problem(found, done)


def run_states(folder: Path, states: int, seed: int, *, show: bool = False) -> Summary:
    """Draw and check states, a hundred a script; keeps those that are wrong."""
    summary = Summary()
    library = compile_shim(folder)
    rng = random.Random(seed)
    begun = time.perf_counter()
    while summary.states < states:
        number = summary.scripts
        events = record_script(folder, library, number)
        summary.scripts += 1
        summary.events += len(events)
        wanted = min(_STATES_A_SCRIPT, states - summary.states)
        cuts = sorted(rng.choices(range(len(events) + 1), k=wanted))
        check_cuts(folder, events, cuts, rng, summary, number)
        if show:
            print(
                f"script {number}: {len(events)} calls, {summary.states} states, "
                f"{len(summary.problems)} problems",
                flush=True,
            )
    summary.seconds = time.perf_counter() - begun
    return summary


def check_cuts(
    folder: Path,
    events: Sequence[Event],
    cuts: Sequence[int],
    rng: random.Random,
    summary: Summary,
    number: int,
) -> None:
    """One state for each of the rising cuts of a trace; number: the seed of its script."""
    history = History(script(number))
    disk, at = Disk(), 0
    by_loss = Counter(summary.by_loss)
    for cut in cuts:
        for event in events[at:cut]:
            disk.do(event)
        at = cut
        loss = rng.choice(LOSSES)
        target = folder / f"state-{number}-{cut}-{summary.states}"
        disk.leave(target, loss, rng)
        problem = _judged(target, history, disk)
        summary.states += 1
        by_loss[_name(loss)] += 1
        if problem is None:
            shutil.rmtree(target)
        else:
            summary.problems.append(f"{target}: {_name(loss)}, cut at {cut}: {problem}")
    summary.by_loss = dict(sorted(by_loss.items()))


def _judged(target: Path, history: History, disk: Disk) -> str | None:
    """The check runs on a copy, so that a state that is wrong stays as it was."""
    copy = target.with_name("opened")
    shutil.copytree(target, copy)
    try:
        return check_state(copy, history, int(disk.marks[-1]) if disk.marks else -1)
    finally:
        shutil.rmtree(copy)


def _name(loss: Loss) -> str:
    return f"names {loss.names}, data {loss.data}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soardb-powercut-"))
    summary = run_states(folder, options.states, options.seed, show=True)
    print(json.dumps(asdict(summary), indent=1))
    if summary.problems:
        print(f"kept: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
