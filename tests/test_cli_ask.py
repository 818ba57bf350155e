"""`soardb ask`: what it shows of the steps and of the answer, over a directory and over a server.

openai_server.py, scripted_policy.py -> [test_cli_ask.py] -> soardb/cli/asking.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import soardb
from soardb.cli import main
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from tests.pipelines.openai_server import OpenAIServer
from tests.pipelines.scripted_policy import EMPTY, ENDLESS, FACTS, QUESTION, filled, reply
from tests.service.conftest import Served

ANSWER = "It was printed in Varna [link_id="
FEW = ["--collection", "facts", "--title", "title", "--samples", "1"]


@pytest.fixture(scope="module")
def outside() -> Iterator[OpenAIServer]:
    """A language model that wants a key."""
    with OpenAIServer(reply, key="sk-1") as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the facts, and a decoder that has learned nothing."""
    made = tmp_path_factory.mktemp("ask") / "db"
    with soardb.connect(made) as database:
        filled(database)
        escapes = database.create_collection("escapes", 4, schema={"text": "text"})
        escapes.upsert([1], [[1, 0, 0, 0]], [{"text": "Mira Tal \x1b[2J\x1b]0;owned\x07 wrote."}])
    tokens = Tokens.trained([fact["text"] for fact in FACTS.values()], 280)
    decoder = Decoder(DecoderConfig(len(tokens), 16, 1, 2, context=4096), 0)
    Registry(made).add_decoder("babbler", decoder, tokens, lineage={"agent": True})
    (made.parent / "key").write_text("sk-1\n")
    return made


@pytest.fixture
def behind(folder: Path, outside: OpenAIServer) -> list[str]:
    """The options that name the model outside."""
    key = str(folder.parent / "key")
    return ["--url", outside.url, "--model", "policy", "--key-file", key, *FEW]


def run(*arguments: object) -> int:
    """Exit code of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int | None)
    return code or 0


class TestDirectory:
    def test_steps_and_the_answer_are_shown(
        self, folder: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Steps on standard error, the answer with its source on standard output."""
        assert run("ask", QUESTION, folder, *behind) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(ANSWER)
        assert "] The Glass Orchard (12)" in shown.out
        for part in (
            "decision", "search novel of Mira Tal", "[1] Mira Tal: Mira Tal wrote one novel",
            "summary", "According to [link_id=1]", "asks for something. Not selected.",
            "relevance", "grounding", "2 searches",
        ):  # fmt: skip
            assert part in shown.err
        assert "sk-1" not in shown.err + shown.out

    def test_as_json(
        self, folder: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """All of it in one object, and nothing beside it; a filter is for all searches."""
        assert run("ask", QUESTION, folder, *behind, "--filter", "title != 'A note'", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["answer"].startswith(ANSWER)
        assert [one["point"] for one in told["sources"]] == ["12"]
        assert len(told["steps"]) == 8
        assert {one["point"] for step in told["steps"] for one in step["found"]} == {"11", "12"}

    def test_passages_are_cut(
        self, folder: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The model is shown so many characters, and so is who asks."""
        assert run("ask", QUESTION, folder, *behind, "--passage-length", "20", "--json") == 0
        steps = json.loads(capsys.readouterr().out)["steps"]
        texts = {one["text"] for step in steps for one in step["found"]}
        assert texts
        assert {len(text) for text in texts} == {20}

    def test_nothing_found_and_no_end_of_searches(
        self, folder: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Both are answered."""
        assert run("ask", EMPTY, folder, *behind, "--no-self-checks") == 0
        shown = capsys.readouterr()
        assert shown.out.strip() == "Nothing was found."
        assert "nothing was found" in shown.err
        assert "grounding" not in shown.err
        assert run("ask", ENDLESS, folder, *behind, "--searches", "2", "--json") == 0
        assert json.loads(capsys.readouterr().out)["searches"] == 2

    def test_a_passage_moves_no_cursor(
        self, folder: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What a terminal would obey is shown as a sign of its own."""
        assert run("ask", QUESTION, folder, *behind, "--collection", "escapes") == 0
        shown = capsys.readouterr()
        assert "\x1b" not in shown.err + shown.out
        assert "\ufffd[2J\ufffd]0;owned" in shown.err

    def test_what_cannot_be_read_is_one_line(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By a model of the registry, that says of itself that it needs no examples."""
        assert run("ask", QUESTION, folder, "--model", "babbler", "--longest", 20, *FEW) == 2
        assert "expected one of 2 samples of the step 'decision'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--model", "none"], "'none'"),
            (["--model", "babbler", "--key-file", "x"], "expected --url beside --key-file"),
            (["--model", "a", "--url", "nowhere"], "expected a url"),
            (["--model", "a", "--url", "http://127.0.0.1:9/v1", "--key-file", "x"], "with a key"),
            (["--model", "babbler", "--embedder", "babbler"], "expected an encoder"),
            (["--model", "babbler", "--text", "none"], "declared as text"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_asked_is_one_line(
        self, folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As of every command."""
        assert run("ask", QUESTION, folder, *FEW, *options) == 2
        assert message in capsys.readouterr().err

    def test_a_place_that_is_none(
        self, tmp_path: Path, behind: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing is made there."""
        assert run("ask", QUESTION, tmp_path / "none", *behind) == 2
        assert "found none" in capsys.readouterr().err
        assert not (tmp_path / "none").exists()
        assert run("ask", QUESTION, "http://x", *behind) == 2
        assert "grpc://HOST:PORT" in capsys.readouterr().err


def test_a_server_is_asked_like_a_directory(
    folder: Path, outside: OpenAIServer, behind: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answer; its models are those that its settings name."""
    key = str(folder.parent / "key")
    told: dict[str, Any] = {"own": {"url": outside.url, "model": "policy", "key_file": key}}
    assert run("ask", QUESTION, folder, *behind, "--json") == 0
    here = json.loads(capsys.readouterr().out)
    with Served(folder, "--llm", json.dumps(told)) as server:
        assert run("ask", QUESTION, server.target, "--model", "own", *FEW, "--json") == 0
        there = json.loads(capsys.readouterr().out)
        cut = ["--passage-length", "20", "--json"]
        assert run("ask", QUESTION, server.target, "--model", "own", *FEW, *cut) == 0
        steps = json.loads(capsys.readouterr().out)["steps"]
        assert run("ask", QUESTION, server.target, "--model", "own", *FEW) == 0
        shown = capsys.readouterr()
        assert run("ask", QUESTION, server.target, *behind) == 2
        assert "its own settings name" in capsys.readouterr().err
    assert there | {"seconds": 0} == here | {"seconds": 0}
    assert {len(one["text"]) for step in steps for one in step["found"]} == {20}
    assert shown.out.startswith(ANSWER)
    assert "search Glass Orchard" in shown.err
