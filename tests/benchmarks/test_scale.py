"""The benchmark of cost against size, end to end on a few thousand vectors.

benchmarks/bench_scale.py -> [test_scale.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_scale


def test_a_tiny_run_leaves_report_and_plot(tmp_path: Path) -> None:
    """Three sizes, of which the smallest is exact; recall stands beside every time."""
    assert bench_scale.main(["--tiny", "--out", str(tmp_path), "--folder", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "scale-tiny.json").read_text("utf-8"))
    assert [row["n"] for row in report["rows"]] == [3_000, 12_000, 24_000]
    assert report["rows"][0]["nlist"] == 0
    for row in report["rows"]:
        assert row["points"][-1]["recall"] > 0.95
        assert all(point["cpu_us"] > 0 for point in row["points"])
        assert 0 < row["file_bytes"] < 2_000 * row["n"]
    assert report["at_recall"]["sizes"] == [12_000, 24_000]
    assert (tmp_path / "scale-tiny.png").stat().st_size > 0
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_first_vectors_do_not_depend_on_how_many_follow() -> None:
    """A size is a sample of the next one."""
    setup = bench_scale.Setup()
    assert np.array_equal(bench_scale.chunk(setup, 3, 100), bench_scale.chunk(setup, 3, 100))
    assert not np.array_equal(bench_scale.chunk(setup, 3, 100), bench_scale.chunk(setup, 4, 100))


def test_the_exponent_of_a_power_is_found() -> None:
    sizes = [10, 100, 1000]
    assert bench_scale.exponent(sizes, [3 * n**0.5 for n in sizes]) == pytest.approx(0.5)


def test_cost_is_interpolated_between_points() -> None:
    points = [{"recall": 0.9, "cpu_us": 10.0}, {"recall": 1.0, "cpu_us": 40.0}]
    assert bench_scale.cost_at(points, 0.95) == pytest.approx(20.0)
    assert bench_scale.cost_at(points, 0.8) == 10.0
    assert bench_scale.cost_at(points[:1], 0.95) is None
