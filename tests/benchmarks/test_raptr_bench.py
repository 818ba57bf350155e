"""The benchmarks of RaPTr, end to end at small size.

benchmarks/bench_raptr.py, bench_raptr_theory.py -> [test_raptr_bench.py]
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_raptr, bench_raptr_theory
from benchmarks.bench_raptr import interval


def test_every_arm_is_measured_at_its_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its curve, its transitions, and the time of steps; a second run trains nothing."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--seeds", "2", "--ablations", "--results", str(tmp_path)]
    assert bench_raptr.main(asked) == 0
    report = json.loads((tmp_path / "raptr-tiny.json").read_text("utf-8"))
    rows = {row["arm"]: row for row in report["summary"]}
    assert list(rows) == [*bench_raptr.ARMS, *bench_raptr.ABLATIONS]
    assert rows["whole"]["cost"] == 1
    for arm in ("whole, equal cost", "one depth", "stacking", "RaPTr backwards", "no scale"):
        assert rows[arm]["cost"] == pytest.approx(rows["RaPTr"]["cost"], abs=0.02), arm
    assert rows["RaPTr"]["cost"] < 0.82
    assert rows["whole, equal cost"]["steps"] < rows["RaPTr"]["steps"] == rows["whole"]["steps"]
    assert rows["whole"]["over whole"] == rows["RaPTr"]["over RaPTr"] == 0
    for row in report["rows"]:
        assert row["evaluations"][-1]["flops"] == row["flops"]
    assert {row["arm"] for row in report["transitions"]} >= {"RaPTr", "stacking", "warm-up"}
    assert [row["layers"] for row in report["timed"]] == [1, 2, 3, 4]
    assert (tmp_path / "raptr-tiny.png").stat().st_size > 5000
    table = (tmp_path / "raptr-tiny.md").read_text("utf-8")
    assert all(f"| {arm} |" in table for arm in rows)
    assert not list((tmp_path / "cache").glob("*.state"))
    monkeypatch.setattr(bench_raptr, "measured", lambda *_: pytest.fail("measured again"))
    assert bench_raptr.main(asked) == 0


def test_intervals_are_students() -> None:
    """By hand of three values, and none of one."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))
    assert interval([1.0]) is None
    rng = np.random.default_rng(0)
    held = [abs(float(x.mean())) < (interval(x.tolist()) or 0) for x in rng.normal(size=(4000, 4))]
    assert 0.94 < float(np.mean(held)) < 0.96


def test_the_theory_is_drawn(tmp_path: Path) -> None:
    """Slopes of the four combinations, and both degrees of every arm."""
    assert bench_raptr_theory.main(["--tiny", "--seeds", "2", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "raptr-theory-tiny.json").read_text("utf-8"))
    assert len(report["lemma"]) == 4
    assert {row["arm"] for row in report["summary"]} == set(bench_raptr_theory.ARMS)
    assert all(len(row["left"]["3"]) == len(row["steps"]) for row in report["rows"])
    assert (tmp_path / "raptr-theory-tiny.png").stat().st_size > 5000
