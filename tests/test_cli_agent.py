"""`soardb agent`: improve, evaluate and export, with models behind a server of the OpenAI protocol.

openai_server.py, benchmarks/lookup_models.py -> [test_cli_agent.py] -> soardb/cli/improving.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from benchmarks import lookups
from benchmarks.lookup_models import Faults, Judge, Rater, Teacher
from soardb.cli import main
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.pipelines.agent.store import Trajectories, hashed
from soardb.pipelines.agent.tools import CollectionTool
from tests.pipelines.openai_server import OpenAIServer

MODELS = {
    "teacher": Teacher(), "perfect": Teacher(faults=Faults.none()), "rater": Rater(),
    "judge": Judge(),
}  # fmt: skip


def reply(prompt: str, body: dict[str, Any]) -> list[str]:
    """What the model of that name writes."""
    if body["model"] == "mute":
        return ["nonsense"] * int(body.get("n") or 1)
    random = np.random.default_rng(int(body.get("seed") or 0))
    return [MODELS[body["model"]].text(prompt, random) for _ in range(int(body.get("n") or 1))]


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    """All four models."""
    with OpenAIServer(reply) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of made-up nouns, a base model, and questions beside it."""
    made = tmp_path_factory.mktemp("agent") / "db"
    nouns = lookups.made_up(300)
    with soardb.connect(made) as database:
        tool = CollectionTool(
            lookups.collection_of(database, "nouns", nouns), "text", title="title"
        )
        split = lookups.split(
            nouns, lambda n: [one.title for one in tool.search(n)], {"train": 4, "held": 3}, 0
        )
    for name, some in split.items():
        lines = [
            json.dumps({"id": one.question.id, "question": one.question.text,
                        "answer": list(one.question.references)})
            for one in some
        ]  # fmt: skip
        (made.parent / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    tokens = Tokens.trained(nouns.texts.values(), 300)
    config = DecoderConfig(len(tokens), 16, 1, 2, context=2048)
    Registry(made).add_decoder("base", Decoder(config), tokens)
    return made


def run(*arguments: object) -> int:
    """Exit code of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def common(folder: Path, server: OpenAIServer, *models: str) -> list[object]:
    """Options of both commands that ask."""
    return ["--collection", "nouns", "--title", "title", "--url", server.url, *models,
            "--no-shots", "--runs", 2]  # fmt: skip


def test_improve_evaluate_and_export(
    folder: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generation is grown and learned from; the same call finds it done; its steps are a file."""
    told = [
        "agent", "improve", folder, "--name", "first", "--base", "base",
        *common(folder, server, "--model", "teacher", "--rater", "rater", "--judge", "judge"),
        "--questions", folder.parent / "train.jsonl", "--validation", folder.parent / "held.jsonl",
        "--generations", 1, "--epochs", 0.2, "--reading", 1, "--longest", 200,
        "--passages", 2, "--passage-length", 90, "--grow-samples", 12, "--may-refuse", "--json",
    ]  # fmt: skip
    assert run(*told) == 0
    first = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in first] == ["teacher", "first-g1"]
    assert 0 <= first[1]["validation"]["mean"] <= first[0]["validation"]["mean"] <= 1
    lineage = Registry(folder).get("first-g1").lineage
    assert lineage["agent"] is True
    assert lineage["tune"]["reading"] == 1.0
    with soardb.connect(folder, read_only=True) as database:
        ways = Trajectories(database.get_collection("trajectories"), hashed, "first").all()
    steps = [step for one in ways for step in one.steps]
    assert {len(step.samples) for step in steps} == {12}
    assert max(len(step.ranking.order) for step in steps if step.ranking is not None) > 4
    assert lineage["may_refuse"] is True
    uses = [step.tool.found for one in ways for step in one.steps if step.tool is not None]
    assert max(map(len, uses)) == 2
    assert max(len(one.text) for found in uses for one in found) == 90
    asked = len(server.requests)
    assert run(*told) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(server.requests) == asked

    out = folder.parent / "steps.jsonl"
    assert run("agent", "export", folder, out, "--name", "first", "--generation", 1) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == sum(first[1]["examples"].values())
    assert run("agent", "export", folder, out, "--name", "nobody") == 2
    assert run("agent", "export", folder, "steps.csv", "--name", "first") == 2
    said = capsys.readouterr().err
    assert "there are none" in said
    assert "expected a .jsonl or .parquet file" in said


def test_evaluate(folder: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy without faults answers all; of a judge that cannot judge there are no verdicts."""
    held = folder.parent / "held.jsonl"
    told = common(folder, server, "--model", "perfect")
    command = ["agent", "evaluate", folder, *told, "--questions", held]
    assert run(*command, "--judge", "judge", "--json") == 0
    assert json.loads(capsys.readouterr().out)["mean"] == 1.0
    cut = ["--passage-length", 20, "--passages", 1, "--name", "cut"]
    assert run(*command, *cut, "--judge", "judge", "--json") == 0
    assert json.loads(capsys.readouterr().out)["mean"] == 0.0  # what it needs was cut off
    assert run(*command, "--judge", "judge") == 0
    assert "1.000 ± 0.000" in capsys.readouterr().out
    assert run(*command, "--judge", "mute") == 0
    assert "0.000 ± 0.000, before the self-checks 0.000, no answer 0.000, no verdict 1.000" in (
        capsys.readouterr().out
    )
    asked = len(server.requests)
    assert run(*command, "--judge", "judge", "--judge-anew") == 0
    assert "1.000 ± 0.000" in capsys.readouterr().out
    assert {one.body["model"] for one in server.requests[asked:]} == {"judge"}
    others = [one if one != "perfect" else "teacher" for one in command]
    assert run(*others, "--judge", "judge", "--name", "perfect") == 2  # the name is another's
    assert "expected trajectories with model 'teacher'" in capsys.readouterr().err
    assert run("agent", "evaluate", folder.parent, *told, "--questions", held) == 2
    assert "expected a soardb database" in capsys.readouterr().err
