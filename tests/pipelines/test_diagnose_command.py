"""`soardb diagnose`: files in, reports, fields and pictures out.

ensembles.py -> [test_diagnose_command.py] -> soardb/cli/diagnosing.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.diagnose import DiagnoseConfig, Ensemble, of_file, run
from soardb.pipelines.diagnose.ensemble import HALVES
from tests.pipelines.ensembles import logits_of
from tests.service.conftest import Served

Z, LABELS = logits_of(1)
IDS = np.arange(100, 180)
FIELDS = {"bias": "float", "misaligned": "bool"}


def asked(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)], catch_exceptions=False)


def payloads(directory: Path) -> list[Any]:
    with soardb.connect(directory, read_only=True) as database:
        points: Any = database.get_collection("samples").get(IDS)
        return [p.payload for p in points]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "p.npz", logits=Z, labels=LABELS, ids=IDS)
    return tmp_path / "p.npz"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with soardb.connect(tmp_path / "db") as database:
        made = database.create_collection("samples", 4, "l2", schema=FIELDS)
        vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
        made.upsert(IDS, vectors, [{"kind": int(label)} for label in LABELS])
    return tmp_path / "db"


def test_it_says_what_run_finds(file: Path) -> None:
    got = json.loads(asked(file, "--bootstrap", 20, "--splits", 1, "--members", 3, "--json").stdout)
    config = DiagnoseConfig(bootstrap=20, splits=1, members=(3,))
    want = run(Ensemble.of_logits(Z, LABELS, IDS), config)
    told = json.loads(json.dumps(want.to_json()))
    assert {k: v for k, v in got.items() if k != "seconds"} == {
        k: v for k, v in told.items() if k != "seconds"
    }


def test_it_shows_the_lines_and_the_cone(file: Path) -> None:
    shown = asked(file, "--bootstrap", 20, "--cone", 2, "--kl", "--splits", 2).stdout
    found = run(Ensemble.of_logits(Z, LABELS), DiagnoseConfig(bootstrap=20, cone=2.0))
    line = found.fits["correct"]
    assert line is not None
    assert f"slope {line.slope:.3f}" in shown
    for name in ("split half 2", "kl, correct", "above 2", "disagreement"):
        assert name in shown


def test_it_takes_labels_from_a_collection_and_writes_fields(
    tmp_path: Path, directory: Path
) -> None:
    """Without --write nothing is changed."""
    file = tmp_path / "unlabelled.npz"
    np.savez(file, logits=Z, ids=IDS)
    given = (file, directory, "samples", "--label-field", "kind", "--bootstrap", 0)
    assert asked(*given).exit_code == 0
    assert all(set(payload) == {"kind"} for payload in payloads(directory))
    assert asked(*given, "--write").exit_code == 0
    want = run(Ensemble.of_logits(Z, LABELS, IDS), DiagnoseConfig(bootstrap=0))
    written = payloads(directory)
    assert [payload["bias"] for payload in written] == want.parts.bias.tolist()
    assert [payload["misaligned"] for payload in written] == want.misaligned.tolist()


def test_a_served_collection_will_do(file: Path, directory: Path) -> None:
    """Fields are written over the wire, and read back from the server."""
    with Served(directory) as server:
        given = (file, server.target, "samples", "--bootstrap", 0, "--write", "--prefix", "one_")
        assert asked(*given).exit_code == 0
        with soardb.connect(server.target) as database:
            points: Any = database.get_collection("samples").get(IDS)
    want = run(Ensemble.of_logits(Z, LABELS, IDS), DiagnoseConfig(bootstrap=0))
    assert [p.payload["one_bias"] for p in points] == want.parts.bias.tolist()
    assert [p.payload["one_variance"] for p in points] == want.parts.variance.tolist()


def test_files_are_written(file: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("matplotlib")
    table, plot = tmp_path / "t.parquet", tmp_path / "a.png"
    assert asked(file, "--bootstrap", 0, "--table", table, "--plot", plot).exit_code == 0
    assert parquet.read_table(table)["id"].to_pylist() == IDS.tolist()
    assert plot.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--write",), "DIR and COLLECTION with --write"),
        (("--label-field", "kind"), "DIR and COLLECTION with --write or --label-field"),
        (("somewhere",), "COLLECTION after DIR"),
        (("--table", "t.csv"), r"ending in \.parquet"),
        (("--floor", "0.1"), "kl=True with a floor"),
    ],
)
def test_bad_options_are_named(file: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        asked(file, *options)


class TestFiles:
    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="there is none at"):
            of_file(tmp_path / "none.npz")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"labels": LABELS}, "logits or probabilities in p.npz, got labels"),
            ({"logits": Z, "probabilities": Z, "labels": LABELS}, "got logits, probabilities"),
            ({"logits": Z}, "labels in p.npz or from elsewhere, got neither"),
            ({"logits": np.array([[[None]]]), "labels": LABELS}, "file of numbers"),
        ],
    )
    def test_what_is_missing_is_named(
        self, tmp_path: Path, arrays: dict[str, Any], message: str
    ) -> None:
        np.savez(tmp_path / "p.npz", **arrays)
        with pytest.raises(InvalidArgument, match=message):
            of_file(tmp_path / "p.npz")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
    def test_other_files_are_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "p.npz").write_bytes(content)
        with pytest.raises(InvalidArgument, match="expected an .npz"):
            of_file(tmp_path / "p.npz")

    def test_one_array_alone_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "p.npy", Z)
        with pytest.raises(InvalidArgument, match="several arrays"):
            of_file(tmp_path / "p.npy")

    def test_labels_that_are_no_whole_numbers_are_named(self, file: Path, directory: Path) -> None:
        np.savez(file, logits=Z, ids=IDS)
        with soardb.connect(directory) as database:
            held = database.get_collection("samples")
            held.update_payload({"kind": "cat"}, ids=[103])
            with pytest.raises(
                InvalidArgument, match=r"in 'kind' of every point, got 'cat' .* for 103"
            ):
                of_file(file, held, "kind")
            held.delete(ids=[103])
            with pytest.raises(NotFound, match="none with 103"):
                of_file(file, held, "kind")


def test_a_file_of_halves_is_diagnosed_in_pairs(tmp_path: Path) -> None:
    """Unless told otherwise: its randomness says what its replicas share."""
    used = {}
    for name in (HALVES, "init and order"):
        np.savez(tmp_path / "p.npz", logits=Z, labels=LABELS, randomness=np.array(name))
        for told in ((), ("--estimator", "unbiased")):
            output = asked(tmp_path / "p.npz", "--bootstrap", 0, "--json", *told).stdout
            used[name, told[1:]] = json.loads(output)["config"]["estimator"]
    assert set(used.values()) == {"pairs", "unbiased"}
    assert used[HALVES, ()] == "pairs"
    assert list(used.values()).count("pairs") == 1


def test_labels_by_name_are_those_of_the_file(tmp_path: Path) -> None:
    """A payload field has the names of classes, which the file lists."""
    names = ["ant", "bee", "cat", "dog", "elk"]
    np.savez(tmp_path / "p.npz", logits=Z, ids=IDS, names=np.array(json.dumps(names)))
    with soardb.connect(tmp_path / "db") as database:
        made = database.create_collection("samples", 2, "l2")
        made.upsert(IDS, np.ones((80, 2)), [{"kind": names[label]} for label in LABELS])
        found = of_file(tmp_path / "p.npz", made, "kind")
        assert found.labels.tolist() == LABELS.tolist()
        made.update_payload([{"kind": "eel"}], ids=[IDS[3]])
        with pytest.raises(InvalidArgument, match="classes .*'ant'.* got 'eel' .* for 103"):
            of_file(tmp_path / "p.npz", made, "kind")
