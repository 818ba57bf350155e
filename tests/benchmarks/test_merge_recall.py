"""Recall of the merge over shards: what the formula predicts is what random placement gives.

benchmarks/bench_merge.py, soardb/topk/shards.py -> [test_merge_recall.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[test-ray]'")

from benchmarks import bench_merge
from soardb.cluster.merge import cut, merged
from soardb.kernels.layout import F32
from soardb.metrics import unit_rows
from soardb.topk import expected_recall, plan_shards

N, D, NQ, PLACEMENTS = 4_000, 8, 60, 20


def drawn() -> tuple[F32, F32]:
    rng = np.random.default_rng(5)
    vectors = unit_rows(rng.standard_normal((N, D), np.float32))
    return vectors, unit_rows(rng.standard_normal((NQ, D), np.float32))


@pytest.mark.parametrize("shards", [2, 3, 5, 8, 16])
def test_predicted_is_measured(shards: int) -> None:
    """Within four standard errors of the mean over placements by hash, and these are small.

    A formula that is off by one in c is off by more: the neighbours of c are refused.
    """
    vectors, queries = drawn()
    k = 20
    c = plan_shards(N, k, shards, recall_target=0.9).c
    means = []
    for placement in range(PLACEMENTS):
        ids = bench_merge.ids_of(N, placement)
        parts = bench_merge.answers(vectors, queries, ids, shards, k)
        means.append(bench_merge.merge_recall(parts, merged(parts, k), c, k).mean())
    error = np.std(means, ddof=1) / PLACEMENTS**0.5
    assert error < 0.004
    assert abs(np.mean(means) - expected_recall(N, k, shards, c)) < 4 * error
    for other in (c - 1, c + 1):
        assert abs(np.mean(means) - expected_recall(N, k, shards, other)) > 4 * error


def test_all_that_is_asked_loses_nothing() -> None:
    """c = k is the exact answer, whatever lies where: also where shards hold fewer than k."""
    vectors, queries = drawn()
    for shards, k in ((4, 20), (16, 300)):
        parts = bench_merge.answers(vectors, queries, bench_merge.ids_of(N, 0), shards, k)
        whole = merged(parts, k)
        assert bench_merge.merge_recall(parts, whole, k, k).min() == 1.0
        every = queries @ vectors.T
        assert (np.sort(every, axis=1)[:, -k] <= whole.scores.reshape(NQ, k).min(1) + 1e-6).all()


def test_recall_counts_each_query_by_itself() -> None:
    """A hit of one query that another wanted is none."""
    vectors, queries = drawn()
    parts = bench_merge.answers(vectors, queries, bench_merge.ids_of(N, 1), 4, 12)
    whole = merged(parts, 12)
    found = bench_merge.merge_recall(parts, whole, 4, 12)
    few = merged([cut(part, 4) for part in parts], 12)
    expected = [
        len(set(np.asarray(a.ids).tolist()) & set(np.asarray(b.ids).tolist())) / 12
        for a, b in zip(whole.each(), few.each(), strict=True)
    ]
    assert found.tolist() == expected


def test_a_tiny_run_leaves_report_table_and_plot(tmp_path: Path) -> None:
    """Prediction, measurement and interval beside each other; the plans are among the rows."""
    pytest.importorskip("h5py")
    pytest.importorskip("matplotlib")
    arguments = ["--tiny", "--shards", "4,9", "--out", str(tmp_path), "--threads", "1"]
    assert bench_merge.main(arguments) == 0
    report = json.loads((tmp_path / "merge-tiny.json").read_text("utf-8"))
    part = report["datasets"]["tiny-32-angular"]
    assert {row["shards"] for row in part["rows"]} == {4, 9}
    assert {t for row in part["rows"] for t in row["planned_for"]} == set(bench_merge.TARGETS)
    assert part["summary"]["rms_difference"] < 0.02
    for row in part["rows"]:
        assert row["interval"][0] <= row["measured"] <= row["interval"][1]
    assert "planned for" in (tmp_path / "merge-tiny.md").read_text("utf-8")
    assert (tmp_path / "merge-tiny.png").stat().st_size > 0
