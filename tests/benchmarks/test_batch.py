"""The batch benchmark runs from end to end on a small set.

benchmarks/bench_batch.py -> [test_batch.py]
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_batch


def test_recall_counts_each_true_neighbour_once() -> None:
    """An id that comes twice is one neighbour found."""
    ids = np.array([[1, 1, 2], [7, 8, 9]])
    truth = np.array([[1, 2, 3], [9, 8, 7]])
    assert bench_batch.recall(ids, truth) == pytest.approx((2 / 3 + 1) / 2)


def test_times_nothing_without_its_recall(tmp_path: Path) -> None:
    """Every library at every goal that it reaches, each setting with what it found."""
    for name in ("scann", "faiss"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install 'soardb[bench]'")
    assert bench_batch.main(["--tiny", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "batch-tiny-32-angular.json").read_text())
    goals = {row["goal"] for row in report["rows"] if row["library"] == "soardb"}
    assert goals == {"0.90", "0.95", "0.99", "planner", "exact"}
    assert {row["library"] for row in report["rows"]} == {"soardb", "scann", "faiss"}
    for row in report["rows"]:
        assert row["qps"] > 0
        least = {"exact": 1.0, "planner": 0.9}.get(row["goal"]) or float(row["goal"])
        assert row["recall"] >= least - 1e-9
    assert (tmp_path / "batch-tiny-32-angular.png").stat().st_size > 1000
