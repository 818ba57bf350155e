"""`soardb models spactor`: pretrained, measured on other texts, kept with where it is from.

-> [test_spactor_command.py] -> soardb/cli/spactoring.py
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
from soardb.errors import AlreadyExists, InvalidArgument
from soardb.models.registry import Registry
from tests.models.trained import TEXTS

SMALL = (
    "--vocabulary", 280, "--width", 16, "--layers", 2, "--decoder-layers", 1, "--heads", 2,
    "--batch", 8, "--window", 24, "--context", 48,
)  # fmt: skip


def asked(*arguments: Any) -> Any:
    """What the command did; its errors are raised."""
    return CliRunner().invoke(
        app, ["models", "spactor", *map(str, arguments)], catch_exceptions=False
    )


def test_it_is_trained_measured_and_kept(tmp_path: Path) -> None:
    """With the loss at every look, and what the registry tells of it; it can be loaded."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS * 2), "utf-8")
    told = json.loads(
        asked(tmp_path / "db", "bird", "--texts", texts, *SMALL, "--steps", 40, "--rate", 0.01,
              "--looks", 2, "--json").stdout
    )  # fmt: skip
    assert [one["step"] for one in told["looks"]] == [0, 20, 40]
    first, _, last = (one["clean"] for one in told["looks"])
    assert last < first
    entry = Registry(tmp_path / "db").get("bird")
    assert entry.metrics == told["metrics"]
    assert 0 < entry.metrics["rtd_auc"] < 1
    assert entry.lineage["switch"] == 10
    loaded = Registry(tmp_path / "db").load("bird")
    tokens = torch.tensor([loaded.tokens.encode("a small bird")])
    assert loaded.t5.encoder.vectors(tokens).shape == (1, 16)
    shown = asked(tmp_path / "db", "plain", "--texts", texts, *SMALL, "--like", "bird",
                  "--first", "sc", "--tau", "inf", "--steps", 2)  # fmt: skip
    assert "clean_loss" in shown.stdout
    assert "rtd_auc" not in shown.stdout
    curves = json.loads((tmp_path / "db/pretraining/bird/losses.json").read_text("utf-8"))
    assert [set(parts) for parts in curves["parts"][9:11]] == [{"mlm", "rtd", "sc"}, {"sc"}]
    assert curves["looks"] == told["looks"]
    assert (tmp_path / "db/pretraining/bird/losses.png").stat().st_size > 5000
    assert not (tmp_path / "db/pretraining/bird/checkpoint.safetensors").exists()
    with pytest.raises(AlreadyExists, match="named 'bird'"):
        asked(tmp_path / "db", "bird", "--texts", texts, *SMALL)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    """And nothing is kept."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), "utf-8")
    with pytest.raises(InvalidArgument, match="first one of"):
        asked(tmp_path / "db", "bird", "--texts", texts, *SMALL, "--first", "all")
    with pytest.raises(InvalidArgument, match="name"):
        asked(tmp_path / "db", "../bird", "--texts", texts, *SMALL)
    assert not (tmp_path / "db/bird").exists()
    assert Registry(tmp_path / "db").names() == []


def test_it_is_trained_on_chosen_points(tmp_path: Path) -> None:
    """Those that a filter lets through, as `soardb select --write-field` marks them."""
    with soardb.connect(tmp_path / "db") as database:
        notes = database.create_collection("notes", 2, "l2", schema={"chosen": "bool"})
        told = [{"text": text, "chosen": n % 2 == 0} for n, text in enumerate(TEXTS)]
        notes.upsert(list(range(len(TEXTS))), np.ones((len(TEXTS), 2), np.float32), told)
    asked(tmp_path / "db", "bird", "--collection", "notes", "--filter", "chosen = true", *SMALL,
          "--steps", 2)  # fmt: skip
    entry = Registry(tmp_path / "db").get("bird")
    assert entry.lineage["texts"] == "notes.text where chosen = true"
    for wrong, message in (
        ([], "one of --texts and --collection"),
        (["--texts", tmp_path / "texts.txt", "--filter", "chosen = true"], "--filter with"),
        (["--collection", "notes", "--field", "body"], "expected texts in 'body'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            asked(tmp_path / "db", "other", *wrong, *SMALL)
