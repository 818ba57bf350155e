"""Twenty deaths under mixed load on one directory; `make crash` makes it two hundred.

    tests/crash/harness.py -> [test_kill.py]

Four writers, two readers, builds and a changing catalog run when the process is killed, at random
or at a named point. What was acknowledged must be there, exactly, and what was not must be whole
or absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.crash.checker import prefix_problem
from tests.crash.harness import run_cycles
from tests.crash.journal import Record
from tests.crash.model import first_payload


class TestKills:
    def test_no_acknowledged_write_is_lost_in_twenty_kills(self, tmp_path: Path) -> None:
        """A database that forgets what it has confirmed is none."""
        summary = run_cycles(tmp_path, cycles=20, seed=20_260_101)
        assert not summary.problems, "\n".join(summary.problems)
        assert summary.cycles == 20
        assert summary.writes > 500  # measured 6,085
        assert summary.killed_at_points


class TestTheCheckerItself:
    """A checker that finds nothing is worth what it would have found."""

    records: ClassVar = [
        Record({"op": "upsert", "ids": [1, 2], "version": 5, "owner": 0, "number": 1}, 0, 1),
        Record({"op": "delete", "ids": [1], "version": 6, "owner": 0, "number": 2}, 2, None),
    ]
    stored: ClassVar = first_payload(5, 0)

    def test_it_takes_the_old_and_the_new_of_what_was_under_way(self) -> None:
        """An unacknowledged delete may have been done or not."""
        assert not prefix_problem({}, {1: self.stored, 2: self.stored}, self.records, 1)
        assert not prefix_problem({}, {2: self.stored}, self.records, 1)

    def test_it_refuses_a_lost_write_a_mix_and_a_resurrection(self) -> None:
        """Each is a way to be wrong that was seen in some database."""
        assert prefix_problem({}, {}, self.records, 1)
        assert prefix_problem({}, {1: self.stored}, self.records, 0)
        assert prefix_problem({}, {1: self.stored, 2: self.stored}, self.records, 2)
        other = self.stored | {"vector": 4}
        assert prefix_problem({}, {1: self.stored, 2: other}, self.records, 1)
