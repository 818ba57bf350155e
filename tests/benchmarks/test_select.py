"""The benchmarks of selection, end to end on small sets, and what they compute by themselves.

benchmarks/bench_select.py, bench_select_training.py, clothes.py -> [test_select.py]
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_select, bench_select_training
from benchmarks.clothes import read_clothes
from soardb.errors import CorruptStorage
from soardb.pipelines import select


class TestAtAMillion:
    def test_a_tiny_run_leaves_a_row_of_each_kind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No time without a certificate, and the two facility locations agree."""
        pytest.importorskip("apricot")
        monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
        assert bench_select.main(["--tiny", "--results", str(tmp_path)]) == 0
        report = json.loads((tmp_path / "select-tiny.json").read_text("utf-8"))
        rows = {(row["part"], row["label"]): row for row in report["rows"]}
        assert set(rows) == {(job.part, job.label) for job in bench_select.jobs(bench_select.TINY)}
        for row in rows.values():
            assert row["cpu_s"] > 0
            assert row["peak_anonymous_bytes"] > 2**20
            if row["how"] in ("select", "weighted", "votes"):
                assert row["objective"] >= row["lower_bound"] > 0
            if row.get("factor"):
                assert row["ratio"] <= row["factor"]
        plain = rows["million", "NumPy, greedy k-center"]
        ours = rows["million", "greedy k-center"]
        assert ours["radius"] == pytest.approx(plain["radius"], rel=1e-5)
        theirs = rows["small", "apricot, facility location"]
        assert rows["small", "facility location"]["similarity"] == pytest.approx(
            theirs["similarity"], rel=1e-3
        )
        assert (tmp_path / "select-tiny.png").stat().st_size > 1000
        assert "| votes |" in (tmp_path / "select-tiny.md").read_text("utf-8")

    def test_the_plain_loop_takes_the_farthest(self) -> None:
        line = np.array([[0], [1], [10], [4]], np.float32)
        chosen, radius = bench_select.numpy_gonzalez(line, 3)
        assert chosen.tolist() == [0, 2, 3]
        assert radius == pytest.approx(1)

    def test_a_second_run_keeps_rows_that_it_does_not_measure(self, tmp_path: Path) -> None:
        setup = bench_select.TINY
        row = {"wall_s": 1.0, "cpu_s": 1.0, "peak_anonymous_bytes": 1.0}
        for job in list(bench_select.jobs(setup))[:2]:
            of_job = {**row, **asdict(job), "n": 10}
            bench_select._write(setup, of_job, "c", {"million": 3, "glove": 3}, tmp_path / "x")
        report = json.loads((tmp_path / "x.json").read_text("utf-8"))
        assert [row["label"] for row in report["rows"]] == [
            "NumPy, greedy k-center",
            "greedy k-center",
        ]


class TestTraining:
    @pytest.fixture
    def libraries(self) -> None:
        for name in ("torch", "sklearn", "scipy", "matplotlib"):
            pytest.importorskip(name)

    @pytest.mark.usefixtures("libraries")
    def test_a_stopped_run_goes_on_and_comes_to_the_same(self, tmp_path: Path) -> None:
        """Only what the journal lacks is trained again, and seeds are all there is to chance."""
        journal, results = tmp_path / "j.jsonl", str(tmp_path)
        call = ["--tiny", "--results", results, "--journal", str(journal)]
        assert bench_select_training.main([*call, "--seeds", "2"]) == 0
        whole = json.loads((tmp_path / "select-training-tiny.json").read_text("utf-8"))
        lines = journal.read_text("utf-8").splitlines(keepends=True)
        assert len(lines) == 1 + 2 * 2 * 6  # seeds, budgets, methods
        journal.write_text("".join(lines[:20]) + lines[20][:15], "utf-8")
        assert bench_select_training.main([*call, "--seeds", "2"]) == 0
        again = json.loads((tmp_path / "select-training-tiny.json").read_text("utf-8"))
        assert again["summary"] == whole["summary"]
        assert whole["coarse_accuracy"] > 0.3
        best = max(row["accuracy"] for row in whole["summary"] if row["budget"] == 0.5)
        assert best > 0.4
        assert (tmp_path / "select-training-tiny.png").stat().st_size > 1000
        assert "± " in (tmp_path / "select-training-tiny.md").read_text("utf-8")

    @pytest.mark.usefixtures("libraries")
    def test_a_journal_of_something_else_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        journal = tmp_path / "j.jsonl"
        journal.write_text('{"dataset": "other"}\n', "utf-8")
        call = ["--tiny", "--results", str(tmp_path), "--journal", str(journal)]
        assert bench_select_training.main(call) == 1
        assert "delete it to begin anew" in capsys.readouterr().err

    def test_differences_are_taken_seed_by_seed(self) -> None:
        """What varies from seed to seed alike for both has no part in the interval."""
        pytest.importorskip("scipy")
        same = {"budget": 0.1, "k": 5, "radius": 1.0, "mean_weight": 0.5}
        rows = [
            {**same, "seed": seed, "method": method, "accuracy": base + gain}
            for seed, base in enumerate((0.1, 0.5, 0.9))
            for method, gain in (("random", 0.0), ("margin", 0.05))
        ]
        found = {row["method"]: row for row in bench_select_training.summary(rows)}
        assert found["margin"]["accuracy"] == pytest.approx(0.55)
        assert found["margin"]["accuracy_ci95"] > 0.9
        assert found["margin"]["over_random"] == pytest.approx(0.05)
        assert found["margin"]["over_random_ci95"] == pytest.approx(0, abs=1e-9)

    def test_the_interval_is_that_of_student(self) -> None:
        pytest.importorskip("scipy")
        mean, half = bench_select_training.interval([1.0, 2.0, 3.0])
        assert mean == 2
        assert half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)  # t of 2 degrees, deviation 1

    def test_every_method_selects_as_many_distinct_points(self) -> None:
        rng = np.random.default_rng(0)
        pool = bench_select_training.Pool(
            rng.standard_normal((450, 6)).astype(np.float32), rng.random(450), 0
        )
        setup = bench_select_training.TINY
        named = set()
        for method, share, choose in bench_select_training.selections(pool, setup):
            rows = choose()
            assert len(set(rows.tolist())) == len(rows) == round(share * 450)
            named.add(method)
            if method == "margin":
                assert set(rows.tolist()) == set(np.argsort(pool.weights)[: len(rows)].tolist())
        assert len(named) == 6

    def test_the_k_center_selected_is_that_of_the_library(self) -> None:
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((450, 6)).astype(np.float32)
        pool = bench_select_training.Pool(vectors, rng.random(450), 0)
        for method, share, choose in bench_select_training.selections(
            pool, bench_select_training.TINY
        ):
            if method == "k-center":
                config = select.SelectConfig(
                    round(share * 450), "gonzalez", metric="cosine", threads=1
                )
                found = select.run(vectors, config, weights=pool.weights)
                assert set(found.rows.tolist()) == set(choose().tolist())


class TestClothes:
    def tarball(self, path: Path, kinds: int, picture: list[int]) -> Path:
        with tarfile.open(path, "w:gz") as archive:
            for kind in range(kinds):
                content = json.dumps({"data": [picture, []]}).encode()
                member = tarfile.TarInfo(f"package/src/clothes/{kind}.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    def read(self, path: Path) -> tuple[np.ndarray, list[str]]:
        return read_clothes(path, lambda stage, share: None)

    def test_reads_a_file_a_kind_without_empty_pictures(self, tmp_path: Path) -> None:
        pictures, kinds = self.read(self.tarball(tmp_path / "c.tgz", 10, list(range(784))))
        assert pictures.shape == (10, 784)
        assert pictures.dtype == np.float32
        assert pictures[3].tolist() == list(range(784))
        assert kinds == [str(kind) for kind in range(10)]

    def test_refuses_what_is_not_whole(self, tmp_path: Path) -> None:
        with pytest.raises(CorruptStorage, match=r"9\.json"):
            self.read(self.tarball(tmp_path / "c.tgz", 9, list(range(784))))
        with pytest.raises(CorruptStorage, match="784 pixels"):
            self.read(self.tarball(tmp_path / "d.tgz", 10, [1, 2]))
