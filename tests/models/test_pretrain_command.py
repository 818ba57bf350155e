"""`soardb models pretrain`: trained in stages, taken up again, listed with where it comes from.

-> [test_pretrain_command.py] -> soardb/cli/pretraining.py, pipelines/raptr
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import AlreadyExists, InvalidArgument, NotFound
from soardb.models.registry import Registry
from soardb.pipelines.raptr import run as run_module
from tests.models.trained import TEXTS

SIZES = (
    "--vocabulary", 280, "--width", 16, "--layers", 4, "--heads", 2, "--context", 32,
    "--steps", 40, "--batch", 4, "--window", 16, "--evaluate-every", 10, "--every", 10,
)  # fmt: skip


def asked(*arguments: Any) -> Any:
    """What the command did; its errors are raised."""
    return CliRunner().invoke(
        app, ["models", "pretrain", *map(str, arguments)], catch_exceptions=False
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of them."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), "utf-8")
    return tmp_path / "texts.txt"


def test_a_model_is_kept_with_what_made_it(tmp_path: Path, texts: Path) -> None:
    """Metrics and lineage; curves as JSON and a picture; no checkpoint is left."""
    pytest.importorskip("matplotlib")
    told = asked(
        tmp_path / "db", "grown", "--texts", texts, "--schedule", "2-3-4", *SIZES, "--json"
    )
    assert told.exit_code == 0
    said = json.loads(told.stdout)
    entry = Registry(tmp_path / "db").check("grown")
    assert entry.to_json() == said["model"]
    assert entry.lineage["method"] == "pretraining, random"
    assert entry.lineage["texts"] == "texts.txt"
    assert entry.lineage["config"]["depths"] == "2-3-4"
    assert set(entry.metrics) == {"training_loss", "flops", "loss"}
    assert entry.metrics["loss"] < 5 < np.log(280)
    folder = tmp_path / "db" / "pretraining" / "grown"
    assert {file.name for file in folder.iterdir()} == {"losses.json", "losses.png"}
    curves = json.loads((folder / "losses.json").read_text("utf-8"))
    assert len(curves["losses"]) == 40
    assert [one["steps"] for one in curves["evaluations"]] == [0, 10, 20, 30, 40]
    assert [(one["before"], one["after"]) for one in curves["transitions"]] == [(2, 3), (3, 4)]
    assert sorted(set(curves["ran"])) == [2, 3, 4]
    assert set(curves["step_ms"]) == {"2", "3", "4"}
    shown = CliRunner().invoke(app, ["models", "show", str(tmp_path / "db"), "grown"])
    assert "pretraining, random" in shown.stdout


def test_the_same_call_goes_on(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same model, bit by bit; another call does not."""
    plain = ("--texts", texts, "--schedule", "2-4", *SIZES)
    asked(tmp_path / "db", "plain", *plain)
    module = __import__("sys").modules[run_module.__module__]
    real, calls = module.loss_of, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 26:
            raise InvalidArgument("stopped")
        return real(*arguments)

    monkeypatch.setattr(module, "loss_of", stopped)
    with pytest.raises(InvalidArgument, match="stopped"):
        asked(tmp_path / "db", "cut", *plain)
    assert Registry(tmp_path / "db").names() == ["plain"]
    for other in (("--rate", 0.1), ("--vocabulary", 270)):
        with pytest.raises(InvalidArgument, match="delete it"):
            asked(tmp_path / "db", "cut", *plain, *other)
    asked(tmp_path / "db", "cut", *plain)
    assert len(calls) == 26 + 20
    held = Registry(tmp_path / "db")
    one, two = (held.load(name).decoder.state_dict() for name in ("plain", "cut"))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())


def test_texts_of_chosen_points(tmp_path: Path) -> None:
    """Of a collection, those that a filter takes, as soardb select marks them."""
    with soardb.connect(tmp_path / "db") as database:
        notes = database.create_collection("notes", 2, "l2", schema={"chosen": "bool"})
        payloads = [{"text": text, "chosen": i % 2 == 0} for i, text in enumerate(TEXTS)]
        notes.upsert(list(range(200)), np.ones((200, 2), np.float32), payloads)
    chosen = ("--collection", "notes", "--filter", "chosen = true", *SIZES)
    asked(tmp_path / "db", "some", *chosen, "--held-out", 0, "--head-schedule", "1")
    lineage = Registry(tmp_path / "db").get("some").lineage
    assert (lineage["collection"], lineage["filter"]) == ("notes", "chosen = true")
    (tmp_path / "some.txt").write_text("\n".join(TEXTS[::2]), "utf-8")
    asked(
        tmp_path / "db", "file", "--texts", tmp_path / "some.txt", *SIZES, "--held-out", 0,
        "--head-schedule", "1",
    )  # fmt: skip
    held = Registry(tmp_path / "db")
    one, two = (held.load(name).decoder.state_dict() for name in ("some", "file"))
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    asked(tmp_path / "db", "stack", *chosen, "--schedule", "2-4", "--method", "stacking",
          "--like", "some")  # fmt: skip
    assert held.load("stack").tokens.to_json() == held.load("some").tokens.to_json()
    with pytest.raises(InvalidArgument, match="texts in 'title'"):
        asked(tmp_path / "db", "none", *chosen, "--text-field", "title")


def test_what_does_not_fit_is_refused(tmp_path: Path, texts: Path) -> None:
    """Before anything is trained."""
    few, binary = tmp_path / "few.txt", tmp_path / "binary.txt"
    few.write_text("a\nb\n" * 20)
    binary.write_bytes(b"\xff\xfe text")
    asked(tmp_path / "db", "there", "--texts", texts, *SIZES)
    for error, arguments in (
        (AlreadyExists, ("there", "--texts", texts)),
        (InvalidArgument, ("new",)),
        (InvalidArgument, ("new", "--texts", texts, "--collection", "notes")),
        (InvalidArgument, ("new", "--texts", texts, "--filter", "n = 1")),
        (InvalidArgument, ("new", "--texts", texts, "--schedule", "2-9")),
        (NotFound, ("new", "--texts", tmp_path / "nothing.txt")),
        (InvalidArgument, ("pairs.json", "--texts", texts)),
        (InvalidArgument, ("new", "--texts", texts, "--held-out", 0.001)),
        (InvalidArgument, ("new", "--texts", few)),
        (InvalidArgument, ("new", "--texts", binary)),
    ):
        with pytest.raises(error):
            asked(tmp_path / "db", *arguments, *SIZES)
