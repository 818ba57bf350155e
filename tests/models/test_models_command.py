"""`soardb models`: trained, listed, distilled, asked, with passages of a collection before.

-> [test_models_command.py] -> soardb/cli/models.py, pipelines/speculate/writing.py
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
from soardb.errors import InvalidArgument, NotFound
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.models.session import generate
from soardb.pipelines.speculate import SpeculateConfig, writing
from tests.models.trained import llama

WORDS = [
    ["a", "the"],
    ["small", "large"],
    ["bird", "stone"],
    ["of", "near"],
    ["rivers", "old walls"],
]
TEXTS = [
    " ".join(np.random.default_rng(i).choice(words) for words in WORDS) + " — ok"
    for i in range(300)
]


def asked(*arguments: Any) -> Any:
    """What the command did; its errors are raised."""
    return CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with notes, a target and a draft that were trained on them."""
    folder = tmp_path_factory.mktemp("models")
    with soardb.connect(folder / "db") as database:
        notes = database.create_collection("notes", 2, "l2", schema={"text": "text"})
        notes.upsert(list(range(300)), np.ones((300, 2), np.float32), [{"text": t} for t in TEXTS])
    (folder / "texts.txt").write_text("\n".join(TEXTS), "utf-8")
    shape = ("--texts", folder / "texts.txt", "--context", 96, "--heads", 2, "--batch", 16)
    asked(
        "train", folder / "db", "large", *shape, "--vocabulary", 300, "--width", 48, "--steps", 120
    )
    asked(
        "train", folder / "db", "small", *shape, "--like", "large", "--width", 16, "--layers", 1,
        "--steps", 40,
    )  # fmt: skip
    return folder


def test_what_was_trained_is_listed(directory: Path) -> None:
    """With its loss, which is far below that of guessing, and where it comes from."""
    told = json.loads(asked("list", directory / "db", "--json").stdout)
    large, small = told["models"]
    assert (large["name"], small["name"]) == ("large", "small")
    assert large["metrics"]["training_loss"] < 3 < np.log(300)
    assert small["lineage"]["texts"] == "texts.txt"
    text = asked("list", directory / "db").stdout
    assert "large" in text
    assert "training_loss" in text
    assert "48" in asked("show", directory / "db", "large", "--json").stdout
    assert "safetensors" in asked("show", directory / "db", "large").stdout


def test_a_draft_is_distilled_and_paired(directory: Path) -> None:
    """Measured before and after on texts of the target; on-policy, it is kept more often."""
    options = ("--texts", directory / "texts.txt", "--steps", 60, "--rate", 0.01, "--gamma", 3)
    told = json.loads(
        asked("distil", directory / "db", "large", "small", "better", *options, "--json").stdout
    )
    assert told["better"]["alpha"] > told["small"]["alpha"]
    assert told["better"]["tau_3"] > told["small"]["tau_3"] >= 1
    pairs = {pair.draft: pair.metrics for pair in Registry(directory / "db").pairs("large")}
    assert pairs == told
    assert "large <- better" in asked("list", directory / "db").stdout
    assert Registry(directory / "db").get("better").lineage["parent"] == "small"
    asked("remove", directory / "db", "better")
    assert "better" not in asked("list", directory / "db").stdout


def test_a_draft_is_distilled_to_a_llama(directory: Path, tmp_path: Path) -> None:
    """Which stands in for any that Hugging Face has; the draft takes its tokenizer."""
    held = Registry(directory / "db")
    asked(
        "import", directory / "db", "llama",
        llama(
            tmp_path / "llama", held.load("large").tokens, tie_word_embeddings=True,
            initializer_range=0.2,
        ),
    )  # fmt: skip
    asked(
        "train", directory / "db", "begun", "--texts", directory / "texts.txt", "--like", "llama",
        "--width", 32, "--layers", 1, "--heads", 2, "--context", 96,
        "--steps", 2,
    )  # fmt: skip
    told = asked(
        "distil", directory / "db", "llama", "begun", "nearer", "--texts", directory / "texts.txt",
        "--steps", 60, "--rate", 0.01, "--json",
    )  # fmt: skip
    metrics = json.loads(told.stdout)
    assert metrics["nearer"]["alpha"] > metrics["begun"]["alpha"] + 0.01
    assert {pair.draft for pair in held.pairs("llama")} == {"begun", "nearer"}
    for name in ("begun", "nearer", "llama"):
        held.remove(name)


def test_text_is_written_and_a_draft_changes_no_word_of_it(directory: Path) -> None:
    """Greedily; the passes are fewer."""
    options = ("--temperature", 0, "--longest", 24, "--json")
    given = ("generate", directory / "db", "large", "the small")
    plain = json.loads(asked(*given, *options).stdout)
    fast = json.loads(asked(*given, *options, "--draft", "small").stdout)
    assert fast["text"] == plain["text"]
    assert fast["passes"] < plain["passes"] == plain["tokens"]
    assert asked(*given, *options[:-1]).stdout.strip() == plain["text"].strip()


def test_passages_of_a_collection_go_before(directory: Path) -> None:
    """And can be drafted from, with no model."""
    options = ("--temperature", 0, "--longest", 16, "--collection", "notes", "--passages", 2)
    given = ("generate", directory / "db", "large", "small bird")
    plain = json.loads(asked(*given, *options, "--json").stdout)
    fast = json.loads(asked(*given, *options, "--draft-from-text", "--json").stdout)
    assert fast["text"] == plain["text"]
    assert fast["passes"] <= plain["passes"]
    with pytest.raises(InvalidArgument, match="--collection"):
        asked(*given, "--draft-from-text")


def test_pieces_make_the_text_and_cut_no_character(directory: Path) -> None:
    """Bytes of a dash come one by one, the dash at once; strange bytes become replacements."""
    found = Registry(directory / "db").load("large")
    prompt, dashes = "the small bird of rivers", 0
    for seed in range(12):
        config = SpeculateConfig(3, 40, Sampling(1.0), seed=seed)
        pieces = list(writing(found, prompt, config))
        random = torch.Generator().manual_seed(seed)
        row = found.tokens.encode(prompt)
        said = list(generate(found.model, row, 40, Sampling(1.0), random, found.tokens.end))
        assert "".join(pieces) == found.tokens.decode(said)
        dashes += sum("—" in piece for piece in pieces)
    assert dashes > 3


def test_passages_that_do_not_fit_are_left_out(directory: Path) -> None:
    """The last ones first; a prompt that does not fit is refused."""
    found = Registry(directory / "db").load("large")
    config = SpeculateConfig(3, 40, Sampling(0))
    few, many = (list(writing(found, "the", config, context=TEXTS[:n])) for n in (2, 200))
    assert "".join(many)
    assert few
    for prompt in ("", "word " * 200):
        with pytest.raises(InvalidArgument, match="a prompt of 1 to 56 tokens"):
            writing(found, prompt, config)


def test_what_cannot_be_done_is_refused(directory: Path, tmp_path: Path) -> None:
    """With what was expected."""
    base = directory / "db"
    with pytest.raises(NotFound, match="a soardb database"):
        asked("list", tmp_path)
    with pytest.raises(NotFound, match="a file of texts"):
        asked("train", base, "new", "--texts", tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InvalidArgument, match="one a line"):
        asked("train", base, "new", "--texts", tmp_path / "empty.txt")
    with pytest.raises(InvalidArgument, match="preset one of"):
        asked(
            "distil", base, "large", "small", "new", "--texts", directory / "texts.txt",
            "--preset", "magic",
        )  # fmt: skip
    with pytest.raises(NotFound, match="'huge'"):
        asked("generate", base, "huge", "the")
    with pytest.raises(NotFound, match="GGUF file"):
        asked("import", base, "new", tmp_path / "nowhere")
    assert Registry(base).names() == ["large", "small"]
