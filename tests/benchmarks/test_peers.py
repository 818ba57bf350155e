"""The peers' benchmark: fair recall, honest curves, one whole run over the small set.

The libraries that are measured are not asked here, but for exact search and soardb itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_peers, datasets, peers, plots
from soardb.errors import InvalidArgument

pytest.importorskip("h5py")


def points(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"recall": recall, "qps": qps} for recall, qps in pairs]


class TestPareto:
    def test_keeps_what_no_other_point_beats(self) -> None:
        """A slower point is worth showing only if it finds more."""
        front = plots.pareto(points((0.9, 100), (0.8, 90), (0.95, 50), (0.7, 300), (0.95, 40)))
        assert front == points((0.7, 300), (0.9, 100), (0.95, 50))

    def test_of_equal_speed_the_better_recall_stays(self) -> None:
        assert plots.pareto(points((0.8, 10), (0.9, 10))) == points((0.9, 10))

    def test_of_nothing_is_nothing(self) -> None:
        assert plots.pareto([]) == []


class TestQpsAt:
    front = points((0.8, 1000), (0.9, 100), (1.0, 10))

    def test_is_exact_at_a_measured_point(self) -> None:
        assert plots.qps_at(self.front, 0.9) == pytest.approx(100)

    def test_is_the_geometric_mean_halfway(self) -> None:
        """Linear in recall and logarithmic in QPS, as the plots are drawn."""
        assert plots.qps_at(self.front, 0.85) == pytest.approx(np.sqrt(1000 * 100))

    def test_never_promises_more_speed_than_was_measured(self) -> None:
        """Below the front, its fastest point: it reaches more recall than was asked."""
        assert plots.qps_at(self.front, 0.5) == 1000

    def test_is_none_where_no_point_reaches(self) -> None:
        assert plots.qps_at(self.front[:2], 0.95) is None
        assert plots.qps_at([], 0.9) is None


class TestJudge:
    """Queries on a line: row i of train lies at distance i from the only query."""

    train = np.arange(10, dtype=np.float32)[:, None].repeat(2, axis=1) * np.sqrt(0.5, dtype="f4")
    nearest = np.arange(10)[None]

    def judge(self, train: Any = None, k: int = 4) -> bench_peers.Judge:
        query = np.zeros((1, 2), np.float32)
        rows = self.train if train is None else train
        return bench_peers.Judge(rows, query, self.nearest, "l2", k)

    def recall(self, *ids: int, tolerance: float = 1e-3, **kwargs: Any) -> float:
        found = np.array([ids], np.int64)
        return self.judge(**kwargs).recall(found, tolerance=tolerance)

    def test_counts_the_found_share(self) -> None:
        assert self.recall(0, 1, 2, 3) == 1.0
        assert self.recall(0, 1, 8, 9) == 0.5

    def test_order_does_not_matter(self) -> None:
        assert self.recall(3, 2, 1, 0) == 1.0

    def test_an_equally_near_vector_counts(self) -> None:
        """Which of two equal vectors a library names is its own affair."""
        train = self.train.copy()
        train[9] = train[3]
        assert self.recall(0, 1, 2, 9, train=train) == 1.0

    def test_the_tolerance_is_relative_to_the_kth_distance(self) -> None:
        train = self.train.copy()
        train[9] = train[3] * np.float32(1.0009)
        assert self.recall(0, 1, 2, 9, train=train) == 1.0
        assert self.recall(0, 1, 2, 9, train=train, tolerance=1e-5) == 0.75
        train[9] = train[3] * np.float32(1.0011)
        assert self.recall(0, 1, 2, 9, train=train) == 0.75

    def test_a_repeated_id_counts_once(self) -> None:
        """An index that spills vectors could name one twice."""
        assert self.recall(0, 0, 0, 0) == 0.25

    def test_missing_and_impossible_ids_count_nothing(self) -> None:
        assert self.recall(0, -1, -1, 10**12) == 0.25

    @pytest.mark.parametrize(("metric", "better"), [("dot", 1), ("cosine", 0)])
    def test_judges_by_the_metric_of_the_set(self, metric: str, better: int) -> None:
        """Row 0 points the query's way, row 1 is longer and points elsewhere."""
        train = np.array([[1, 0], [3, 3]], np.float32)
        query = np.array([[2, 0]], np.float32)
        judge = bench_peers.Judge(train, query, np.array([[better]]), metric, 1)
        assert judge.recall(np.array([[better]]), tolerance=1e-3) == 1.0
        assert judge.recall(np.array([[1 - better]]), tolerance=1e-3) == 0.0

    def test_agrees_with_the_answers_on_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOARDB_DATA", str(tmp_path))
        data = datasets.load(bench_peers.TINY)
        judge = bench_peers.Judge(data.train, data.test, data.neighbors, data.metric, 10)
        assert judge.recall(data.neighbors[:, :10].astype(np.int64), tolerance=1e-5) == 1.0
        assert judge.recall(data.neighbors[:, 50:60].astype(np.int64), tolerance=1e-5) < 0.1


class TestSweeps:
    def test_probes_climb_and_fit_into_the_index(self) -> None:
        for nlist in (1, 7, 111, 1000, 4096):
            probes = peers.probes(nlist)
            assert probes == sorted(set(probes))
            assert 1 <= probes[0] <= probes[-1] <= max(1, nlist // 2)

    def test_a_band_meets_both_corners(self) -> None:
        pairs = peers.band([1, 2, 3, 4, 5], [10, 20, 30])
        assert (1, 10) in pairs
        assert (5, 30) in pairs
        assert (1, 30) not in pairs

    @pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
    def test_every_library_has_distinct_labels(self, metric: str) -> None:
        """A label names a line of the table and of the plot."""
        labels = [
            spec.label
            for library in peers.PEERS.values()
            for spec in library.peer.specs(331_479, metric)
        ]
        assert len(set(labels)) == len(labels)

    def test_partitions_follow_the_square_root(self) -> None:
        assert [peers.partitions(n) for n in (1, 331_479, 1_000_000)] == [2, 1000, 1800]


class TestAsking:
    def test_a_missing_library_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InvalidArgument, match=r"scann.*soardb\[bench\]"):
            peers.check_installed(["scann"])

    def test_an_unknown_library_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="nosuch"):
            peers.check_installed(["nosuch"])

    def test_queries_are_drawn_from_the_whole_test_set(self) -> None:
        """The first queries of a word set are its frequent words, which are easier."""
        rows = bench_peers._choose_queries(10_000, 100)
        assert len(set(rows.tolist())) == 100
        assert rows.max() > 9000
        assert (bench_peers._choose_queries(50, 100) == np.arange(50)).all()

    def test_thread_variables_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with bench_peers._one_thread_each():
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MKL_NUM_THREADS" not in os.environ


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of exact search and soardb over the small set, through the command line."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOARDB_DATA", str(folder / "data"))
        command = ["--tiny", "--libraries", "exact,soardb", "--repeat", "2", "--queries", "50"]
        assert bench_peers.main([*command, "--out", str(folder)]) == 0
    stem = folder / f"peers-{bench_peers.TINY}"
    for suffix in (".md", ".png", "-latency.png", "-memory.png"):
        assert stem.with_name(stem.name + suffix).stat().st_size > 0
    report: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text())
    return report


@pytest.mark.skipif(sys.platform != "linux", reason="pins cores through Linux")
class TestRun:
    def test_the_report_says_how_it_was_made(self, report: dict[str, Any]) -> None:
        """A number without its commit, machine, data and parameters cannot be checked."""
        for field in ("commit", "date", "machine", "threads", "dataset", "seed", "repeat"):
            assert report[field] not in (None, ""), field
        assert {"cpu", "features", "soardb_kernels"} <= set(report["machine"])
        assert {"exact", "soardb", "python"} <= set(report["versions"])
        assert report["dataset"]["queries"] == 50
        for peer in report["peers"]:
            assert peer["build_seconds"] > 0
            assert peer["index_bytes"] >= 4000 * 32
            assert peer["index_bytes_source"]
            assert peer["points"]

    def test_every_point_has_its_recall_and_all_passes(self, report: dict[str, Any]) -> None:
        for peer in report["peers"]:
            for point in peer["points"]:
                for mode in ("single", "batch"):
                    measured = point[mode]
                    assert 0 <= measured["recall"] <= measured["recall_loose"] <= 1
                    assert len(measured["qps_passes"]) == 2
                    assert measured["qps"] == pytest.approx(np.median(measured["qps_passes"]))
                assert 0 < point["single"]["p50_us"] <= point["single"]["p99_us"]

    def test_exact_search_finds_all(self, report: dict[str, Any]) -> None:
        (exact,) = (peer for peer in report["peers"] if peer["library"] == "exact")
        assert exact["points"][0]["single"]["recall"] == 1.0
        assert exact["points"][0]["batch"]["recall"] == 1.0

    def test_soardb_reaches_high_recall(self, report: dict[str, Any]) -> None:
        for peer in report["peers"]:
            assert plots.front_of(peer, "single")[-1]["recall"] > 0.99
            assert plots.front_of(peer, "batch")[-1]["recall"] > 0.99

    def test_the_table_names_every_index(self, report: dict[str, Any]) -> None:
        lines = plots.table(report).splitlines()
        assert len(lines) == 4 + len(report["peers"])
        for peer in report["peers"]:
            assert any(line.startswith(f"| {peer['label']} |") for line in lines)

    def test_a_failure_in_a_process_names_the_index(self) -> None:
        """The words of the library reach the user, not a hang."""
        options = bench_peers.Options(dataset="nosuch-set", libraries=("exact",))
        spec = peers.Spec("exact", "exact-broken")
        with (
            bench_peers.process(spec, options) as ask,
            pytest.raises(bench_peers.PeerError, match=r"exact-broken: build failed[\s\S]*nosuch"),
        ):
            ask("build")
