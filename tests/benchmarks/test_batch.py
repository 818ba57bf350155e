"""The batch benchmark runs from end to end on a small set.

benchmarks/bench_batch.py -> [test_batch.py]
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import bench_batch
from benchmarks.bench_batch import Contender
from benchmarks.judge import Judge, Vectors
from benchmarks.peers import Arguments

ROWS = np.eye(12, dtype=np.float32)
QUERIES = ROWS + np.linspace(0.1, 0, 12, dtype=np.float32)  # row i first, then 0, 1, 2, ...


def answer(queries: Vectors, setting: Arguments, threads: int) -> npt.NDArray[Any]:
    """The true ids but for the last `lost` of each query, "wide" ones only in small batches."""
    ids = np.argsort(-(queries @ ROWS.T), axis=1, kind="stable")[:, :10].astype(np.uint32)
    lost = setting["lost"] if len(queries) > setting.get("wide", 0) else 0
    ids[:, 10 - lost :] = ids[:, :1]  # a repeated id is no second neighbour
    return ids


@pytest.fixture
def judge() -> Judge:
    """Of the queries above."""
    nearest = np.argsort(-(QUERIES @ ROWS.T), axis=1, kind="stable")[:, :10]
    return Judge(ROWS, QUERIES, nearest, "dot", bench_batch.K)


def test_recall_is_of_the_batches_that_are_timed(judge: Judge) -> None:
    """What answers small batches better has the recall of those when they are asked."""
    one = Contender("fake", "faiss", answer, [])
    setting = {"lost": 3, "wide": 4}
    assert bench_batch.recall(one, setting, QUERIES, judge, 12) == pytest.approx(0.7)
    assert bench_batch.recall(one, setting, QUERIES, judge, 4) == 1


def test_a_goal_is_met_by_all_queries_or_not_at_all(judge: Judge) -> None:
    """A setting is not taken for what a sample says, nor one that comes near its goal."""
    sweep = [{"lost": 5}, {"lost": 2}, {"lost": 2, "wide": 4}, {"lost": 1}]
    one = Contender("fake", "faiss", answer, sweep)
    costs = [(number, answer(QUERIES[:4], setting, 1)) for number, setting in enumerate(sweep)]
    bench_batch.settle(one, costs, QUERIES, judge)
    assert one.settings == {"0.90": {"lost": 1}}


def test_times_nothing_without_its_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every library at every goal that it reaches, each setting with what it found."""
    for name in ("scann", "faiss"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install 'soardb[bench]'")
    monkeypatch.setenv("SOARDB_INDEXES", str(tmp_path / "indexes"))
    assert bench_batch.main(["--tiny", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "batch-tiny-32-angular.json").read_text())
    goals = {row["goal"] for row in report["rows"] if row["library"] == "soardb"}
    assert goals == {"0.90", "0.95", "0.99", "planner", "exact"}
    assert {row["library"] for row in report["rows"]} == {"soardb", "scann", "faiss"}
    assert {row["label"] for row in report["rows"]} > {"soardb-default", "scann-brute-force"}
    for row in report["rows"]:
        assert row["qps"] > 0
        least = {"exact": 1.0, "planner": 0.9}.get(row["goal"]) or float(row["goal"])
        assert row["recall"] >= least - 1e-3  # batches of 64 may break ties otherwise
    assert (tmp_path / "batch-tiny-32-angular.png").stat().st_size > 1000
