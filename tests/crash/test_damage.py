"""Damaged files: the right answers or an error that names the place, never another answer.

    tests/crash/damage.py -> [test_damage.py]

`make damage` tries thousands. Here is every damage of a whole file, small files cut at every
eleventh byte, and a few hundred flips, cuts and pages.
"""

from __future__ import annotations

import random

import pytest

from tests.crash.damage import Summary, all_damages, campaign, every_cut, make_directories


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """One campaign, for all tests."""
    folder = tmp_path_factory.mktemp("damage")
    make_directories(folder)
    damages = all_damages(folder, 220, random.Random(7)) + every_cut(folder)[::11]
    return campaign(folder, damages)


class TestDamage:
    def test_no_damage_gives_a_signal_a_hang_or_another_answer(self, summary: Summary) -> None:
        """A wrong answer is worse than none; a crash takes the service with it."""
        assert not summary.problems, "\n".join(summary.problems)
        assert summary.damages > 300

    def test_damage_is_noticed_and_harmless_damage_is_not(self, summary: Summary) -> None:
        """Were all refused, or none, the comparison would prove nothing."""
        assert summary.refused > 50  # measured 128
        assert summary.right > 50  # measured 210

    def test_every_kind_of_file_and_of_damage_is_tried(self, summary: Summary) -> None:
        """A file that is added to the directory is damaged here unasked; these are there now."""
        assert {
            "LOCK",
            "catalog.json",
            "witness",
            "rows.sqlite",
            "rows.sqlite-wal",
            "*.generation",
            "model.part",
        } <= set(summary.by_file)
        kinds = {"flip", "cut", "zeros", "noise", "longer", "deleted", "other", "past"}
        assert set(summary.by_kind) == kinds
