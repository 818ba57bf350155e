"""The benchmark of bias and variance, end to end on made-up points, and its journal.

benchmarks/bench_diagnose.py, diagnose_report.py, journal.py -> [test_diagnose_bench.py]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import bench_diagnose
from benchmarks.bench_diagnose import TINY, cells
from benchmarks.diagnose_report import CELL, summary
from benchmarks.journal import Journal
from soardb.errors import InvalidArgument

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def report(folder: Path) -> Any:
    return json.loads((folder / "diagnose-tiny.json").read_text("utf-8"))


class TestRun:
    def test_a_stopped_run_goes_on_and_comes_to_the_same(self, tmp_path: Path) -> None:
        """Only what the journal lacks is trained again, and seeds are all there is to chance."""
        journal = tmp_path / "j.jsonl"
        call = ["--tiny", "--results", str(tmp_path), "--journal", str(journal)]
        assert bench_diagnose.main(call) == 0
        whole = report(tmp_path)
        lines = journal.read_text("utf-8").splitlines(keepends=True)
        wanted = [(cell.randomness, cell.width, cell.steps) for cell in cells(TINY)]
        assert len(lines) == 1 + 2 * len(wanted)
        assert [tuple(row[name] for name in CELL) for row in whole["summary"]] == wanted
        journal.write_text("".join(lines[:8]) + lines[8][:30], "utf-8")
        assert bench_diagnose.main(call) == 0
        again = report(tmp_path)

        def without_times(found: Any) -> Any:
            return [{k: v for k, v in row.items() if "cpu" not in k} for row in found["summary"]]

        assert without_times(again) == without_times(whole)
        assert again["collapse"]["normal, 0.5"]["slopes"][-1] == pytest.approx(1, abs=0.01)
        wide = next(row for row in whole["summary"] if row["width"] == 16)
        assert wide["member_accuracy"] > 0.7  # measured 0.83, of three kinds
        assert [row["width"] for row in whole["rows"] if "samples" in row] == [2, 16]
        text = (tmp_path / "diagnose-tiny.md").read_text("utf-8")
        for row in whole["summary"]:
            assert f"{row['slope']:.3f} (" in text
        assert (tmp_path / "diagnose-tiny.png").stat().st_size > 10_000

    def test_figures_are_means_with_lowest_and_highest_over_seeds(self) -> None:
        cell = {"randomness": "init", "width": 4, "steps": 10}
        rows = [
            {**cell, "seed": seed, "figures": {"slope": slope, "wrong_ratio": wrong}}
            for seed, (slope, wrong) in enumerate([(0.5, None), (0.8, 0.2), (0.2, 0.4)])
        ]
        (found,) = summary(rows)
        assert found["seeds"] == 3
        assert found["slope"] == pytest.approx(0.5)
        assert found["slope_range"] == [0.2, 0.8]
        assert found["wrong_ratio"] == pytest.approx(0.3)  # of the seeds that have one

    def test_the_figure_of_the_docs_is_that_of_the_results(self) -> None:
        """A page with an older picture than its tables would be wrong without anyone noticing."""
        shown = ROOT / "docs/images/diagnose-digits.png"
        assert shown.read_bytes() == (ROOT / "benchmarks/results" / shown.name).read_bytes()

    def test_the_table_of_the_docs_is_that_of_the_results(self) -> None:
        """Slope, R^2 and those of disjoint replicas, of every row of the page."""
        found = json.loads((ROOT / "benchmarks/results/diagnose-digits.json").read_text("utf-8"))
        page = (ROOT / "docs/diagnose.md").read_text("utf-8")
        for row in found["summary"]:
            early = f", {row['steps']} steps" if row["steps"] != found["setup"]["steps"] else ""
            figures = (row[name] for name in ("slope", "r2", "half_slope", "half_r2"))
            cells = " | ".join(f"{figure:.3f}" for figure in figures)
            assert f"| {row['randomness']}, {row['width']}{early} | " in page
            assert f" | {cells} | " in page
        assert np.isfinite([row["slope"] for row in found["summary"]]).all()


class TestJournal:
    def test_rows_are_kept_and_found_by_any_of_their_values(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "a" / "j.jsonl", {"size": (1, 2)})
        journal.add({"seed": 1, "width": 4, "slope": 0.5})
        journal.add({"seed": 2, "width": 4})
        with (tmp_path / "a" / "j.jsonl").open("a") as file:
            file.write('{"seed": 3, "wid')  # as a run leaves it that was killed
        again = Journal(tmp_path / "a" / "j.jsonl", {"size": [1, 2]})
        assert again.rows == [{"seed": 1, "width": 4, "slope": 0.5}, {"seed": 2, "width": 4}]
        assert again.has(seed=2, width=4)
        assert not again.has(seed=3, width=4)
        again.add({"seed": 3, "width": 8})
        assert len(Journal(tmp_path / "a" / "j.jsonl", {"size": [1, 2]}).rows) == 3

    def test_one_of_another_setup_is_refused(self, tmp_path: Path) -> None:
        Journal(tmp_path / "j.jsonl", {"size": 1})
        with pytest.raises(InvalidArgument, match="delete it to begin anew"):
            Journal(tmp_path / "j.jsonl", {"size": 2})
