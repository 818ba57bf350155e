"""`soardb decide`: collections and files in, decisions, fields and tables out.

nouns.py -> [test_decide_command.py] -> soardb/cli/deciding.py
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
from soardb.pipelines import decide
from tests.pipelines.nouns import drawn, stored

QUERIES, _ = drawn(30, 1)


def asked(*arguments: Any) -> Any:
    """What the command did; its errors are raised."""
    return CliRunner().invoke(app, ["decide", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """400 labelled points, and 20 without a label."""
    with stored(tmp_path / "db", 400, 20):
        pass
    np.save(tmp_path / "q.npy", QUERIES)
    return tmp_path / "db"


def test_it_says_what_run_finds(directory: Path, tmp_path: Path) -> None:
    """As JSON, as a table in a file, and as text."""
    options = ("--label-field", "depth", "--metric", "rmse", "--held-out", 100)
    table = tmp_path / "t.parquet"
    said = asked(
        directory, "nouns", *options, "--queries", tmp_path / "q.npy", "--json", "--table", table
    )
    got = json.loads(said.stdout)
    with soardb.connect(directory, read_only=True) as database:
        config = decide.DecideConfig("rmse", label_field="depth", held_out=100)
        want = decide.run(database.get_collection("nouns"), config, QUERIES)
    assert got["decisions"] == pytest.approx(want.values.tolist())
    assert got["temperature"] == want.temperature
    import pyarrow.parquet as parquet

    assert parquet.read_table(table).column("decision").to_pylist() == got["decisions"]
    text = asked(directory, "nouns", *options).stdout
    assert "20 decided for rmse" in text
    assert f"{want.temperature:.4g}" in text


def test_points_without_a_label_are_set(directory: Path) -> None:
    """And nothing is written unless it is asked for."""
    options = ("--label-field", "depth", "--metric", "exact_match", "--temperature", 1)
    asked(directory, "nouns", *options)
    with soardb.connect(directory, read_only=True) as database:
        assert database.get_collection("nouns").count("depth IS NULL") == 20
    asked(directory, "nouns", *options, "--write-field", "depth")
    with soardb.connect(directory, read_only=True) as database:
        assert database.get_collection("nouns").count("depth IS NULL") == 0


def test_laws_come_from_a_file(tmp_path: Path) -> None:
    """With ids, for costs from another one."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file, costs = tmp_path / "laws.parquet", tmp_path / "costs.json"
    laws = decide.Laws.of_rows([["ill", "well"], ["well"]], [[0.2, 0.8], [1.0]])
    parquet.write_table(laws.to_arrow().append_column("id", pa.array(["a", "b"])), file)
    got = json.loads(asked("--laws", file, "--metric", "exact_match", "--json").stdout)
    assert (got["ids"], got["decisions"]) == (["a", "b"], ["well", "well"])
    told = {"costs": [[9, 1], [0, 1]], "classes": ["ill", "well"], "actions": ["wait", "treat"]}
    costs.write_text(json.dumps(told))
    got = json.loads(asked("--laws", file, "--costs", costs, "--json").stdout)
    assert (got["decisions"], got["risk"]) == (["treat", "wait"], [1, 0])


def test_a_trial_shows_decisions_by_metrics(directory: Path) -> None:
    """On the diagonal each is best, or about."""
    options = ("--label-field", "depth", "--trial", "--held-out", 200)
    text = asked(directory, "nouns", *options).stdout
    assert "100 held-out points" in text
    assert "best for absolute_error" in text
    got = json.loads(asked(directory, "nouns", *options, "--json").stdout)
    assert got["n"] == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "DIR and COLLECTION, or --laws"),
        (("db",), "COLLECTION and --label-field"),
        (("db", "nouns"), "COLLECTION and --label-field"),
        (("db", "nouns", "--label-field", "depth", "--metric", "mse"), "expected metric one of"),
        (("db", "nouns", "--label-field", "depth", "--table", "t.csv"), "ending in .parquet"),
        (("--laws", "none.parquet"), "there is none"),
        (("db", "nouns", "--label-field", "d", "--metric", "rmse", "--costs", "c"), "got both"),
        (("db", "nouns", "--label-field", "d", "--trial", "--table", "t.parquet"), "--trial alone"),
        (("--laws", "q.npy", "--temperature", "2"), "DIR and COLLECTION with"),
        (("--laws", "x.parquet", "--trial"), "DIR and COLLECTION with --trial"),
        (("db", "nouns", "--label-field", "d", "--costs", "none.json"), "a file of costs"),
        (
            ("db", "nouns", "--label-field", "d", "--queries", "q.npy", "--write-field", "d"),
            "got --queries",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(
    directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    """With what was expected."""
    here = [str(directory) if word == "db" else word for word in arguments]
    with pytest.raises((InvalidArgument, NotFound), match=message):
        asked(*here)


def test_costs_that_are_none_are_refused(directory: Path, tmp_path: Path) -> None:
    """By the name of the file."""
    file = tmp_path / "c.json"
    for text in ("{", "[]", '{"costs": []}'):
        file.write_text(text)
        with pytest.raises(InvalidArgument, match=r"c\.json"):
            asked(directory, "nouns", "--label-field", "depth", "--costs", file)


def test_a_file_that_is_no_table_is_named(directory: Path, tmp_path: Path) -> None:
    """Not by a traceback; rounding makes whole labels."""
    with pytest.raises(InvalidArgument, match=r"a Parquet file, q\.npy"):
        asked("--laws", tmp_path / "q.npy")
    options = ("--label-field", "depth", "--metric", "absolute_error", "--temperature", 1)
    asked(directory, "nouns", *options, "--round", "--write-field", "depth")
    with soardb.connect(directory, read_only=True) as database:
        assert database.get_collection("nouns").count("depth IS NULL") == 0
