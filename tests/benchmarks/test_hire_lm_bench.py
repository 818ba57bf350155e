"""The benchmark of HiRE in language models, end to end on a small decoder.

benchmarks/bench_hire_lm.py, hire_ffn.py -> [test_hire_lm_bench.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_hire_lm

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("cache")


def test_every_part_is_measured_and_recall_stands_beside_time(tmp_path: Path) -> None:
    """Nothing is fetched; predicted stands beside measured."""
    assert bench_hire_lm.main(["--tiny", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "hire-lm-tiny.json").read_text("utf-8"))
    assert set(bench_hire_lm.PARTS) <= set(report)
    assert {row["k"] for row in report["recall"]} == set(bench_hire_lm.KS)
    for row in report["recall"]:
        assert row["recall"] > 0.95
        curve = [value for name, value in row.items() if name.startswith("recall@k")]
        assert curve == sorted(curve)
    for row in report["head"]:
        assert row["us"] > 0
        assert row["predicted_speedup"] > 0
        if "predicted" in row:
            assert row["recall"] > 0.95
            assert row["tv_filled"] < row["tv_kept"]
    assert report["greedy"][0]["same_tokens"] == 1
    assert report["train"][0]["share"] == 1
    for row in report["mixers"]:
        assert row["recall"] > 0.95
        assert abs(row["loss"]) < 0.05
        assert row["computed_share"] <= 1
    assert {"us", "predicted_speedup_of_5"} <= set(report["wide"][-1])
    assert (tmp_path / "hire-lm-tiny.png").stat().st_size > 1000
    assert "## mixers" in (tmp_path / "hire-lm-tiny.md").read_text("utf-8")


def test_a_part_can_be_measured_alone(tmp_path: Path) -> None:
    """What other runs left in the report stays."""
    for part in ("wide", "train"):
        assert bench_hire_lm.main(["--tiny", "--parts", part, "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "hire-lm-tiny.json").read_text("utf-8"))
    assert report["wide"]
    assert report["train"]
    with pytest.raises(SystemExit):
        bench_hire_lm.main(["--parts", "nothing"])


def test_the_page_shows_what_was_measured() -> None:
    """Every row of its tables, and the picture."""
    results = ROOT / "benchmarks/results"
    table = (results / "hire-lm.md").read_text("utf-8").splitlines()
    page = (ROOT / "docs/hire-lm.md").read_text("utf-8").partition("## Measured")[2].splitlines()
    rows = [line for line in page if line.startswith("|")]
    assert len(rows) > 30
    assert [row for row in rows if row not in table] == []
    assert (ROOT / "docs/images/hire-lm.png").read_bytes() == (results / "hire-lm.png").read_bytes()
