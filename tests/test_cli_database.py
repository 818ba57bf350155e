"""The commands over databases: what they print, what they write, how they fail.

soardb/cli/database.py -> [test_cli_database.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import soardb
from soardb.cli import main

N, D = 200, 8


def run(*arguments: object) -> int:
    """Exit code of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int | None)
    return code or 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database of one collection with an alias."""
    with soardb.connect(tmp_path / "db") as db:
        words = db.create_collection("words", D, "l2", schema={"n": "int"})
        vectors = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
        words.upsert(np.arange(N), vectors, {"n": range(N)})
        words.compact()
        db.set_alias("latest", "words")
    return tmp_path / "db"


class TestStats:
    def test_shows_each_collection(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Name, alias, size, metric, fields."""
        assert run("stats", folder) == 0
        shown = capsys.readouterr().out
        for part in ("words (also latest)", "200 of 8 dimensions", "l2", "n int", "disk: rows"):
            assert part in shown

    def test_as_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """For programs."""
        assert run("stats", folder, "--json") == 0
        assert json.loads(capsys.readouterr().out)["words"]["points"] == N

    def test_runs_beside_a_writer(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever wants figures of a busy database must not have to stop it."""
        with soardb.connect(folder) as db:
            db.get_collection("words").upsert([1000], np.ones((1, D)))
            assert run("stats", folder, "--json") == 0
        assert json.loads(capsys.readouterr().out)["words"]["points"] == N + 1


class TestTune:
    def test_shows_the_curve(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A line a setting; here there are no partitions, so one."""
        assert run("tune", folder, "latest", "--queries", 20, "-k", 5) == 0
        shown = capsys.readouterr().out
        for part in ("latest: recall@5 of 20 queries", "nprobe", "exact", "1.0000", "median us"):
            assert part in shown

    def test_as_json_and_as_a_plot(
        self, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Beside the process that writes, as it only reads."""
        with soardb.connect(folder) as db:
            parts = db.create_collection("parts", D, index={"nlist": 16})
            parts.upsert(range(N), np.random.default_rng(1).standard_normal((N, D)))
            parts.compact()
            command = ("tune", folder, "parts", "--nprobe", 2, "--nprobe", 16, "--rerank", N)
            assert run(*command, "--json", "--plot", tmp_path / "curve.png") == 0
        curve = json.loads(capsys.readouterr().out)
        assert [(p["nprobe"], p["rerank"]) for p in curve["points"]] == [(2, N), (16, N)]
        assert curve["points"][1]["recall"] == 1
        assert (tmp_path / "curve.png").read_bytes()[1:4] == b"PNG"

    def test_what_cannot_be_measured(self, folder: Path) -> None:
        """Exit 2."""
        assert run("tune", folder, "words", "-k", N) == 2
        assert run("tune", folder, "none") == 2


class TestCare:
    def test_a_sound_database(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit 0 and a word, from both."""
        assert run("check", folder) == 0
        assert run("repair", folder) == 0
        shown = capsys.readouterr().out
        assert "sound: every checksum" in shown
        assert "nothing to repair" in shown

    def test_a_damaged_one(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit 1, what is wrong, what was done; afterwards it is sound."""
        (index,) = folder.glob("c-*/index/*.generation")
        index.write_bytes(b"rubbish")
        assert run("check", folder) == 1
        assert "words:" in capsys.readouterr().out
        assert run("repair", folder) == 0  # nothing is lost with an index
        assert "built again" in capsys.readouterr().out
        assert run("check", folder) == 0

    def test_a_busy_one_is_not_repaired(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One red line that names the process."""
        with soardb.connect(folder):
            assert run("repair", folder) == 2
        assert "is open in process" in " ".join(capsys.readouterr().err.split())


class TestMoving:
    def test_snapshot_and_restore(self, folder: Path, tmp_path: Path) -> None:
        """By alias, under a new name."""
        assert run("snapshot", folder, "latest", tmp_path / "s") == 0
        assert run("restore", folder, tmp_path / "s", "copy") == 0
        assert run("restore", folder, tmp_path / "s", "copy") == 2  # is there
        with soardb.connect(folder) as db:
            assert db.get_collection("copy").count() == N

    def test_export_and_import(self, folder: Path, tmp_path: Path) -> None:
        """Into another database."""
        assert run("export", folder, "words", tmp_path / "w.parquet") == 0
        assert run("import", tmp_path / "other", "words", tmp_path / "w.parquet") == 0
        with soardb.connect(tmp_path / "other") as db:
            words = db.get_collection("words")
            assert (words.count(), words.metric, words.schema) == (N, "l2", {"n": "int"})

    def test_import_of_a_file_of_others(self, tmp_path: Path) -> None:
        """Fields are declared on the line."""
        table = pa.table(
            {"id": ["a"], "vector": pa.array([[1.0] * D], pa.list_(pa.float32(), D)), "p": [2.5]}
        )
        pq.write_table(table, tmp_path / "f.parquet")
        command = ("import", tmp_path / "db", "shop", tmp_path / "f.parquet", "--metric", "dot")
        assert run(*command, "--field", "p=float") == 2
        assert run(*command, "--field", "p:float") == 0
        with soardb.connect(tmp_path / "db") as db:
            assert db.get_collection("shop").count("p > 2") == 1

    def test_what_is_not_there(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Exit 2 and the name."""
        assert run("export", folder, "none", tmp_path / "w.parquet") == 2
        assert "there is no 'none'" in " ".join(capsys.readouterr().err.split())
        assert run("stats", tmp_path / "nothing") == 2
        assert run("check", tmp_path / "nothing") == 2
