"""The peers' benchmark: fair recall, honest curves, one whole run over the small set.

The libraries that are measured are not asked here, but for exact search and soardb itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks import bench_peers, bench_soar, datasets, index_cache, peers, plots
from benchmarks.judge import Judge
from benchmarks.peer_worker import Options, PeerError, process
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

    def judge(self, train: Any = None, k: int = 4) -> Judge:
        query = np.zeros((1, 2), np.float32)
        rows = self.train if train is None else train
        return Judge(rows, query, self.nearest, "l2", k)

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
        judge = Judge(train, query, np.array([[better]]), metric, 1)
        assert judge.recall(np.array([[better]]), tolerance=1e-3) == 1.0
        assert judge.recall(np.array([[1 - better]]), tolerance=1e-3) == 0.0

    def test_agrees_with_the_answers_on_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOARDB_DATA", str(tmp_path))
        data = datasets.load(bench_peers.TINY)
        judge = Judge(data.train, data.test, data.neighbors, data.metric, 10)
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
    @pytest.mark.parametrize("d", [50, 100, 384])
    def test_every_library_has_distinct_labels(self, metric: str, d: int) -> None:
        """A label names a line of the table and of the plot."""
        labels = [
            spec.label
            for library in peers.PEERS.values()
            for spec in library.peer.specs(331_479, d, metric)
        ]
        assert len(set(labels)) == len(labels)

    def test_scann_is_tried_with_all_that_it_has(self) -> None:
        """Its best is compared, so a quick run keeps SOAR with AVQ and a full one varies each."""
        specs = peers.PEERS["scann"].peer.specs(331_479, 100, "cosine")
        builds = [spec.build for spec in specs]
        assert {build["num_leaves"] for build in builds} == {600, 1000, 2000}
        for name in ("soar_lambda", "avq", "quantize_centroids"):
            assert {name in build for build in builds} == {True, False}
        quick = [spec.build for spec in specs if spec.is_quick]
        assert {build["avq"] for build in quick} == {2.0, 4.0}
        assert all("soar_lambda" in build for build in quick)

    def test_a_library_that_refuses_few_dimensions_is_left_out(self) -> None:
        assert peers.PEERS["rabitq"].peer.specs(390_000, 50, "cosine") == []
        assert peers.PEERS["rabitq"].peer.specs(331_479, 100, "cosine")

    def test_soardb_is_measured_as_it_comes(self) -> None:
        default = peers.PEERS["soardb"].peer.specs(331_479, 100, "cosine")[0]
        assert default == peers.Spec("soardb", plots.DEFAULT)


class TestWorthAskingAgain:
    """Later passes ask only what can be on a front between the recalls of the table."""

    @staticmethod
    def first(*pairs: tuple[float, float]) -> dict[int, dict[str, dict[str, float]]]:
        return {i: {"single": point} for i, point in enumerate(points(*pairs))}

    def test_drops_what_its_own_front_beats(self) -> None:
        sweep = [{"nprobe": i} for i in range(4)]
        first = self.first((0.85, 1000), (0.95, 500), (0.95, 300), (0.995, 100))
        assert bench_peers._worth_asking_again(sweep, first) == [0, 1, 3]

    def test_keeps_what_noise_may_have_slowed(self) -> None:
        sweep = [{"nprobe": i} for i in range(3)]
        first = self.first((0.85, 1000), (0.95, 500), (0.95, 460))
        assert bench_peers._worth_asking_again(sweep, first) == [0, 1, 2]

    def test_keeps_one_point_beyond_each_end_of_the_table(self) -> None:
        """QPS at 0.90 is read between two points, one of them below."""
        sweep = [{"nprobe": i} for i in range(5)]
        first = self.first((0.6, 900), (0.8, 800), (0.95, 500), (0.995, 100), (0.999, 50))
        assert bench_peers._worth_asking_again(sweep, first) == [1, 2, 3]

    def test_keeps_the_defaults_wherever_they_stand(self) -> None:
        first = self.first((0.5, 1), (0.85, 1000), (0.995, 100))
        sweep: list[dict[str, int]] = [{}, {"nprobe": 1}, {"nprobe": 2}]
        assert 0 in bench_peers._worth_asking_again(sweep, first)

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
        rows = bench_peers.choose_queries(10_000, 100)
        assert len(set(rows.tolist())) == 100
        assert rows.max() > 9000
        assert (bench_peers.choose_queries(50, 100) == np.arange(50)).all()

    def test_thread_variables_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        with bench_peers._one_thread_each():
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MKL_NUM_THREADS" not in os.environ


class TestMerge:
    base: ClassVar[dict[str, Any]] = {
        "dataset": {"name": "a"}, "seed": 0, "repeat": 3, "clock": "wall", "threads": {},
        "tolerance": {},
    }  # fmt: skip

    def report(self, versions: dict[str, str], *labels: tuple[str, int]) -> dict[str, Any]:
        named = [{"label": label, "qps": qps} for label, qps in labels]
        return {**self.base, "versions": versions, "peers": named}

    def test_what_is_measured_anew_takes_the_place_of_the_old(self) -> None:
        old = self.report({"scann": "1"}, ("a", 1), ("b", 1))
        merged = bench_peers.merge(old, self.report({"faiss": "2"}, ("b", 2), ("c", 2)))
        assert merged["peers"] == [
            {"label": "a", "qps": 1},
            {"label": "b", "qps": 2},
            {"label": "c", "qps": 2},
        ]
        assert merged["versions"] == {"scann": "1", "faiss": "2"}

    def test_other_data_are_refused(self) -> None:
        """A table over two sets would compare nothing."""
        old = {**self.report({}), "dataset": {"name": "b"}}
        with pytest.raises(InvalidArgument, match=r"same dataset.*--merge"):
            bench_peers.merge(old, self.report({}))


class TestKeptIndexes:
    spec = peers.Spec("exact", "exact-numpy")

    def folder(self, **changes: Any) -> Path:
        facts: dict[str, Any] = {"sha": "a", "k": 10, "threads": 2, "spec": self.spec} | changes
        library = peers.PEERS["exact"]
        return index_cache.folder_of(
            facts["spec"], library, facts["sha"], facts["k"], facts["threads"]
        )

    def test_whatever_changes_an_index_changes_its_folder(self) -> None:
        other = peers.Spec("exact", "exact-numpy", {"nlist": 5})
        folders = [self.folder(), self.folder(sha="b"), self.folder(k=5), self.folder(spec=other)]
        assert len(set(folders)) == 4
        assert self.folder() == self.folder()

    @pytest.mark.parametrize("library", list(peers.PEERS))
    def test_a_kept_index_answers_as_the_built_one(
        self, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of every library that is here, and under the setting that was swept last."""
        pytest.importorskip(peers.PEERS[library].module)
        monkeypatch.setenv("SOARDB_INDEXES", str(tmp_path))
        vectors = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
        spec = peers.PEERS[library].peer.specs(len(vectors), 64, "cosine")[0]
        built = peers.PEERS[library].peer("cosine", 5, spec.build)
        built.build(vectors, 1)
        folder = self.folder(spec=spec)
        assert index_cache.read_facts(folder) is None
        index_cache.keep(built, folder, {"build_seconds": 1.5})
        assert index_cache.read_facts(folder) == {"build_seconds": 1.5}
        opened = peers.PEERS[library].peer("cosine", 5, spec.build)
        index_cache.reopen(opened, folder)
        assert opened.size().total == built.size().total > vectors.nbytes // 4
        for peer in (built, opened):
            peer.set_query_arguments(built.sweep()[-1])
        queries = vectors[:20]
        found = opened.query_batch(queries, 2)
        assert (found == built.query_batch(queries, 1)).all()
        assert (np.asarray(found)[:, 0] == np.arange(20)).mean() > 0.8
        assert opened.query(queries[0])[0] == 0

    def test_an_index_whose_writing_was_cut_off_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOARDB_INDEXES", str(tmp_path))
        (self.folder() / "index").mkdir(parents=True)
        assert index_cache.read_facts(self.folder()) is None


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of exact search and soardb over the small set, through the command line."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOARDB_DATA", str(folder / "data"))
        patch.setenv("SOARDB_INDEXES", str(folder / "indexes"))
        command = ["--tiny", "--full", "--lock", str(folder / "lock"), "--repeat", "2"]
        command += ["--libraries", "exact,soardb", "--queries", "50"]
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
                for mode in {"single", "batch"} | (set(point) & {"parallel"}):
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
        for peer in report["peers"]:
            assert any(line.startswith(f"| {peer['label']} |") for line in lines)

    def test_the_table_ends_with_the_best_of_each_library(self, report: dict[str, Any]) -> None:
        """soardb's defaults stand apart from the best of its sweep."""
        best = plots.table(report).split("| best of its sweep |")[1].splitlines()
        names = {line.split(" |")[0].lstrip("| ") for line in best}
        assert {"soardb", plots.DEFAULT, "soardb, nothing named", "exact"} <= names

    def test_soardb_as_it_comes_is_among_the_points(self, report: dict[str, Any]) -> None:
        (default,) = (peer for peer in report["peers"] if peer["label"] == plots.DEFAULT)
        assert {} in [point["arguments"] for point in default["points"]]

    def test_a_failure_in_a_process_names_the_index(self) -> None:
        """The words of the library reach the user, not a hang."""
        options = Options(dataset="nosuch-set", libraries=("exact",))
        spec = peers.Spec("exact", "exact-broken")
        with (
            process(spec, options) as ask,
            pytest.raises(PeerError, match=r"exact-broken: build failed[\s\S]*nosuch"),
        ):
            ask("build")

    def test_two_threads_are_asked_for_in_a_batch_of_their_own(
        self, report: dict[str, Any]
    ) -> None:
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("one core")
        assert report["threads"]["batch"] == 2
        assert all("parallel" in point for peer in report["peers"] for point in peer["points"])


@pytest.fixture(scope="module")
def soar(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("soar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOARDB_DATA", str(folder / "data"))
        patch.setenv("SOARDB_INDEXES", str(folder / "indexes"))
        command = ["--dataset", bench_peers.TINY, "--lambdas", "0,1.5", "--factors", "1"]
        command += ["--repeat", "1", "--queries", "50", "--out", str(folder)]
        assert bench_soar.main(command) == 0
    stem = folder / f"soar-{bench_peers.TINY}"
    assert stem.with_suffix(".png").stat().st_size > 0
    report: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text())
    assert bench_soar.table(report) == stem.with_suffix(".md").read_text().rstrip("\n")
    return report


@pytest.mark.skipif(sys.platform != "linux", reason="pins cores through Linux")
class TestSoar:
    def test_off_stores_every_vector_once_and_on_most_twice(self, soar: dict[str, Any]) -> None:
        off, on = soar["peers"]
        assert off["spilled_share"] == 0
        assert 0.5 < on["spilled_share"] <= 1

    def test_codes_read_grow_with_nprobe_up_to_all(self, soar: dict[str, Any]) -> None:
        for peer in soar["peers"]:
            stored = 4000 * (1 + peer["spilled_share"])
            by_nprobe = sorted(
                (point["arguments"]["nprobe"], point["single"]["codes_read"])
                for point in peer["points"]
                if "nprobe" in point["arguments"] and point["arguments"]["stop"] is None
            )
            read = [codes for _, codes in by_nprobe]
            assert read == sorted(read)
            assert read[0] > 0
            assert read[-1] <= stored

    def test_the_default_that_follows_is_one_that_was_measured(self, soar: dict[str, Any]) -> None:
        follows = soar["follows"]
        assert follows["label"] in {peer["label"] for peer in soar["peers"]}
        assert 0 < follows["worst_ratio_to_best"] <= 1

    def test_the_best_is_who_is_never_far_behind(self) -> None:
        """Fastest at one recall and hopeless at another is no default."""

        def peer(label: str, *qps: float) -> dict[str, Any]:
            pairs = zip(plots.TARGETS, qps, strict=True)
            singles = [{"recall": r, "qps": q, "codes_read": 1.0} for r, q in pairs]
            return {"label": label, "build": {}, "points": [{"single": one} for one in singles]}

        peers_ = [peer("steady", 900, 450, 90), peer("uneven", 1000, 500, 20)]
        assert bench_soar.best_lambda(peers_)["label"] == "steady"
        assert bench_soar.best_lambda(peers_)["worst_ratio_to_best"] == pytest.approx(0.9)
