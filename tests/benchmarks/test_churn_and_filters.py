"""The benchmarks of live collections run, and what they measure is what they promise.

benchmarks/bench_churn.py, benchmarks/bench_filters.py -> [test_churn_and_filters.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_churn, bench_filters, bench_target

TINY = "tiny-32-angular"


pytestmark = pytest.mark.usefixtures("cache")


def test_churn_measures_recall_in_each_round(tmp_path: Path) -> None:
    """Before and after compaction within what the database promises of a fresh build."""
    arguments = [TINY, "--rounds", "2", "--queries", "50", "--results", str(tmp_path)]
    assert bench_churn.main(arguments) == 0
    report = json.loads((tmp_path / f"churn-{TINY}.json").read_text())
    assert [step["round"] for step in report["steps"]] == [1, 2]
    for step in report["steps"]:
        assert step["struck"] > 0
        assert step["after"] >= step["fresh"] - 0.01
        assert step["before"] >= step["fresh"] - 0.03
    assert (tmp_path / f"churn-{TINY}.png").stat().st_size > 1000


def test_filters_measure_every_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full answers and recall at each, beside the speed."""
    monkeypatch.delattr("os.sched_setaffinity", raising=False)  # this process goes on afterwards
    arguments = [TINY, "--repeats", "1", "--queries", "20", "--results", str(tmp_path)]
    assert bench_filters.main(arguments) == 0
    report = json.loads((tmp_path / f"filters-{TINY}.json").read_text())
    assert {row["kind"] for row in report["rows"]} == {
        "none",
        "independent",
        "keyword",
        "clustered",
    }
    assert all(row["always_full"] and row["recall"] >= 0.95 for row in report["rows"])
    assert all(row["qps"] > 0 and row["qps_fresh"] > 0 for row in report["rows"])


def test_the_share_found_is_by_query() -> None:
    """A hit of another query does not count."""
    found, expected = np.array([[1, 2], [3, 4]]), np.array([[2, 9], [1, 2]])
    assert bench_churn.share_found(found, expected) == 0.25


def test_targets_are_asked_expected_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every filter at every target, within what so few queries can tell."""
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    assert bench_target.main(["--tiny", "--queries", "200", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / f"target-{TINY}.json").read_text())
    assert {row["kind"] for row in report["rows"]} == {"none", "random", "position", "clustered"}
    assert {row["target"] for row in report["rows"]} == set(bench_target.TARGETS)
    assert all(row["recall"] >= row["target"] - 0.05 for row in report["rows"])
    assert (tmp_path / f"target-{TINY}.png").stat().st_size > 1000
