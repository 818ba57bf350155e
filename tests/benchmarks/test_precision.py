"""The benchmark of precisions: a small run says what it should.

benchmarks/bench_precision.py -> [test_precision.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_precision


def test_a_small_run_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the bytes and then none; recall falls with them; the table is that of the report."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(bench_precision, "SETTINGS", ((8, 60),))
    monkeypatch.setattr(bench_precision, "TARGETS", (0.9,))
    command = ["--dataset", "tiny-32-angular", "--nlist", "32", "--queries", "50", "--repeat", "1"]
    assert bench_precision.main([*command, "--out", str(tmp_path)]) == 0
    stem = tmp_path / "precision-tiny-32"
    report = json.loads(stem.with_suffix(".json").read_text("utf-8"))
    assert report["commit"]
    assert report["machine"]["cpu"]
    found = report["precisions"]
    held = [found[name]["bytes_per_vector"]["vectors"] for name in ("float32", "bfloat16", "int8")]
    assert held == [128, 64, 0]
    recalls = [found[name]["exact_recall"] for name in ("float32", "bfloat16", "int8")]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] == 1
    assert all(abs(one["exact_recall"] - one["foretold_recall"]) < 0.02 for one in found.values())
    assert stem.with_suffix(".md").read_text("utf-8").rstrip() == bench_precision.table(report)
