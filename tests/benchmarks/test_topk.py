"""The benchmark of top-k runs, and its measured recall is the one that was predicted.

benchmarks/bench_topk.py -> [test_topk.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_topk

pytestmark = pytest.mark.usefixtures("cache")


def test_every_part_is_measured_and_recall_stands_beside_time(tmp_path: Path) -> None:
    assert bench_topk.main(["--tiny", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "topk-tiny.json").read_text())
    assert set(bench_topk.PARTS) <= set(report)
    for row in [*report["selection"], *report["hire"], *report["lists"]]:
        assert row["us"] > 0
        assert 0 < row["recall"] <= 1
    random = [row for row in report["selection"] if row["scores"] == "random"]
    assert all(abs(row["recall"] - row.get("expected_recall", 1)) < 0.06 for row in random)
    for row in report["shards"]:
        error = max(row["standard_error"], 0.005)
        assert abs(row["recall"] - row["expected_recall"]) < 5 * error
    assert (tmp_path / "topk-tiny.png").stat().st_size > 1000
    assert "## hire" in (tmp_path / "topk-tiny.md").read_text("utf-8")


def test_a_part_can_be_measured_alone(tmp_path: Path) -> None:
    """What other runs left in the report stays."""
    assert bench_topk.main(["--tiny", "--parts", "lists", "--results", str(tmp_path)]) == 0
    assert bench_topk.main(["--tiny", "--parts", "shards", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "topk-tiny.json").read_text())
    assert report["lists"]
    assert report["shards"]
    with pytest.raises(SystemExit):
        bench_topk.main(["--parts", "nothing"])


def test_the_share_found_counts_equal_scores() -> None:
    scores = np.array([[3, 2, 2, 1]], np.float32)
    assert bench_topk.share_found(np.array([[0, 2]]), scores, 2) == 1
    assert bench_topk.share_found(np.array([[0, 3]]), scores, 2) == 0.5
