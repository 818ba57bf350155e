"""Questions over the wire: steps as they are done, the answer with its sources, and what ends them.

    openai_server.py, scripted_policy.py, conftest.py -> [test_agent.py]
        -> soardb_service/agent.py, soardb_client

Behind the server's settings stands a real server that speaks the OpenAI protocol and answers by a
script; its registry holds a decoder that has learned nothing, and so writes what nobody can read.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import soardb
from soardb import F
from soardb.errors import (
    InvalidArgument,
    MalformedOutput,
    NotAllowed,
    NotFound,
    SoarError,
    TimedOut,
    Unavailable,
)
from soardb.models.config import DecoderConfig, EncoderConfig
from soardb.models.decoder import Decoder
from soardb.models.encoder import Encoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.pipelines.agent.asking import asking
from soardb.pipelines.agent.machine import AgentConfig
from soardb.pipelines.agent.openai_api import OpenAIModel
from soardb.pipelines.agent.prompts import read_case
from soardb.pipelines.agent.tools import CollectionTool
from soardb_client import Client
from soardb_client.calls import Call
from soardb_proto.v1 import agent_pb2 as pb
from tests.pipelines.openai_server import Fault, OpenAIServer
from tests.pipelines.scripted_policy import EMPTY, ENDLESS, FACTS, INJECTED, QUESTION, filled, reply
from tests.service.conftest import Served, opened
from tests.service.running import Running, added_key

KEY = "sk-of-the-server"
ASKED: dict[str, Any] = {"model": "scripted", "title_field": "title", "samples": 2}
STEPS = ["decision", "summary", "decision", "summary", "decision", "answer", "relevance",
         "grounding"]  # fmt: skip
TOKENS = Tokens.trained([fact["text"] for fact in FACTS.values()], 280)


@pytest.fixture(scope="module")
def outside() -> Iterator[OpenAIServer]:
    """The language model, which takes no call without its key."""
    with OpenAIServer(reply, key=KEY, model="policy") as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, outside: OpenAIServer) -> Path:
    """A database with the facts, two models of no use, and settings that name four outside."""
    made = tmp_path_factory.mktemp("agent") / "db"
    with soardb.connect(made) as database:
        filled(database)
        filled(database, "other")
        database.create_collection("mute", 4).upsert([1], [[1, 0, 0, 0]], [{"text": "a"}])
    registry = Registry(made)
    registry.add_decoder(
        "babbler",
        Decoder(DecoderConfig(len(TOKENS), 16, 1, 2, context=4096), 0),
        TOKENS,
        lineage={"agent": True},
    )
    registry.add_encoder("eye", Encoder(EncoderConfig(len(TOKENS), 4, 4, 1, 2, context=64)), TOKENS)
    (made.parent / "key").write_text(f"{KEY}\n")
    told = {"url": outside.url, "model": "policy", "key_file": str(made.parent / "key")}
    settings = {
        "scripted": told,
        "eye": told,  # settings come before the registry
        "locked": {"url": outside.url, "model": "policy"},
        "absent": {**told, "model": "none"},
        "nobody": {"url": "http://127.0.0.1:9/v1", "model": "policy"},
    }
    lines = [
        f"[llm.{name}]\n" + "".join(f"{key} = {json.dumps(one)}\n" for key, one in values.items())
        for name, values in settings.items()
    ]
    (made.parent / "soardb.toml").write_text("\n".join(lines))
    return made


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Served]:
    """A server over it; nothing is changed for good."""
    with Served(folder, "--config", str(folder.parent / "soardb.toml"), "--log-calls") as server:
        yield server


@pytest.fixture
def client(serving: Served, kind: str, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Blocking, then asyncio."""
    with opened(serving.target, kind, loop) as made:
        yield made


def asked(client: Any, question: str = QUESTION, collection: str = "facts", **options: Any) -> Any:
    """(steps, answer) of a question."""
    steps = client.ask(collection, question, **(ASKED | options))
    return [step for step in steps], steps.answer  # noqa: C416  list() asks the facade its length


class TestAnswers:
    def test_steps_come_and_then_the_answer(self, client: Any) -> None:
        """Two look-ups, of which the second needs what the first found."""
        steps, answer = asked(client)
        assert [step.step for step in steps] == STEPS
        first, summary = steps[0], steps[1]
        assert (first.query, first.thoughts) == ("novel of Mira Tal", "Search 1 is missing.")
        assert first.samples == 2
        assert first.perplexity > 1
        assert first.text.startswith("ACTION_SELECTED = ActionWrapper(")
        assert first.found[0].title == "Mira Tal"
        assert first.found[0].text == FACTS[11]["text"]
        assert summary.said.startswith("According to [link_id=1]")
        assert 1 in summary.selected
        assert steps[2].query == "Glass Orchard"
        assert steps[4].query is None
        assert steps[6].said is None
        assert steps[7].said == answer.answer
        assert answer.draft == answer.after_relevance == "It was printed in Varna."
        link = next(one.link for one in steps[2].found if one.point == "12")
        assert answer.answer == f"It was printed in Varna [link_id={link}]."
        (source,) = answer.sources
        assert (source.link, source.point, source.title) == (link, "12", "The Glass Orchard")
        assert answer.searches == 2
        assert answer.prompt_tokens > answer.completion_tokens > 0
        assert answer.seconds > 0

    def test_they_are_those_of_the_same_agent_here(
        self, client: Any, folder: Path, outside: OpenAIServer
    ) -> None:
        """Every step as it is where nothing is between: an id is one for one document."""
        steps, answer = asked(client, shots=False)
        with soardb.connect(folder, read_only=True) as database:
            tool = CollectionTool(database.get_collection("facts"), "text", title="title")
            model = OpenAIModel(outside.url, "policy", key=KEY)
            here = asking(QUESTION, model, tool, AgentConfig(samples=2))
            assert list(here) == steps
        assert here.answer is not None
        same = {"seconds": 0.0}
        assert here.answer.to_json() | same == answer.to_json() | same

    def test_without_self_checks(self, client: Any) -> None:
        """The draft is the answer."""
        steps, answer = asked(client, self_checks=False)
        assert [step.step for step in steps] == STEPS[:6]
        assert answer.answer == answer.draft
        assert answer.after_relevance is None
        assert answer.sources == ()

    def test_examples_are_shown_where_they_are_wanted(
        self, client: Any, outside: OpenAIServer
    ) -> None:
        """To a model of the settings they are unless told; options go out as they were said."""
        wanted: list[tuple[dict[str, Any], bool]] = [
            ({}, True), ({"shots": True}, True), ({"shots": False}, False)
        ]  # fmt: skip
        for options, is_shown in wanted:
            outside.requests.clear()
            asked(client, temperature=0.25, longest=99, **options)
            for request in outside.requests:
                assert ("# Example 1" in request.body["prompt"]) == is_shown
                assert request.body["temperature"] == 0.25
                assert request.body["max_tokens"] == 99

    def test_nothing_found_is_an_answer_too(self, client: Any) -> None:
        """An empty search leads to a summary of nothing."""
        steps, answer = asked(client, EMPTY)
        assert steps[0].query == "xylophone"
        assert steps[0].found == ()
        assert steps[1].said == "Nothing is selected."
        assert answer.answer == "Nothing was found."
        assert answer.sources == ()

    def test_searches_come_to_an_end(self, client: Any) -> None:
        """One that would go on for ever is made to answer when no search is left."""
        steps, answer = asked(client, ENDLESS, searches=3)
        assert answer.searches == 3 == sum(step.query is not None for step in steps)
        assert [step.step for step in steps[-3:]] == ["answer", "relevance", "grounding"]

    def test_what_a_passage_asks_for_is_data(self, client: Any, outside: OpenAIServer) -> None:
        """It stands in the prompt as the text that was stored, and ends nothing there."""
        outside.requests.clear()
        steps, answer = asked(client)
        assert INJECTED in [one.text for step in steps for one in step.found]
        cases = [read_case(request.body["prompt"]) for request in outside.requests]
        shown = [item.snippet for case in cases if case.results for item in case.results.links]
        assert INJECTED in shown
        assert any("asks for something" in line for step in steps for line in step.comments)
        assert "PWNED" not in answer.answer

    @pytest.mark.parametrize(
        "where", ["title = 'Mira Tal'", F("title") == "Mira Tal",
                  {"field": "title", "op": "eq", "value": "Mira Tal"}],
    )  # fmt: skip
    def test_a_filter_is_for_all_searches(self, client: Any, where: Any) -> None:
        """In each of its spellings."""
        steps, answer = asked(client, filter=where)
        assert {one.point for step in steps for one in step.found} == {"11"}
        assert answer.answer == "Nothing was found."

    def test_vectors_of_queries_find_what_words_do_not(self, client: Any) -> None:
        """By a model of the registry, while the model that writes is of the settings."""
        steps, _ = asked(client, EMPTY, embedder="eye", passages=2)
        assert len(steps[0].found) == 2
        assert client.get_collection("facts").count() == 3

    def test_passages_are_cut(self, client: Any) -> None:
        """The model is shown as much as was asked for."""
        whole, _ = asked(client, EMPTY, embedder="eye")
        steps, _ = asked(client, EMPTY, embedder="eye", passage_length=20)
        for one, cut in zip(whole[0].found, steps[0].found, strict=True):
            assert len(one.text) > 20
            assert cut.text == one.text[:17] + "..."

    def test_settings_come_before_the_registry(self, client: Any) -> None:
        """Nobody takes a name of theirs by an upload."""
        assert asked(client, model="eye")[1].searches == 2


class TestWhatEndsThem:
    def test_what_cannot_be_read_is_named(self, client: Any) -> None:
        """By the registry's decoder, which babbles; to each client the same error."""
        with pytest.raises(MalformedOutput, match="expected one of 4 samples of the step"):
            asked(client, model="babbler", longest=40)

    @pytest.mark.parametrize("model", ["locked", "absent", "nobody"])
    def test_what_fails_behind_the_settings_is_told_without_an_address(
        self, client: Any, model: str, serving: Served, outside: OpenAIServer
    ) -> None:
        """A caller is not told where it is, nor that its own key were wrong; the log says why."""
        with pytest.raises(Unavailable, match=f"{model!r}.*settings name") as raised:
            asked(client, model=model, timeout=60)
        assert "127.0.0.1" not in str(raised.value).replace(serving.target, "")
        assert "language model of the settings" in serving.log()
        assert KEY not in serving.log()

    def test_what_is_refused_there_is_told_without_an_address(
        self, client: Any, serving: Served, outside: OpenAIServer
    ) -> None:
        """Nor in that server's words, which the log has; but for a prompt that is too long."""
        said = "org-12 at db7.corp.local"
        outside.faults = [Fault(400, said)]
        with pytest.raises(InvalidArgument, match="'scripted' takes.*the log says why") as raised:
            asked(client, grammars=True)
        assert said not in str(raised.value)
        assert said in serving.log()
        outside.faults = [Fault(400, "maximum context length is 8")]
        with pytest.raises(InvalidArgument, match="'scripted' takes.*too long"):
            asked(client)

    def test_time_is_up(self, client: Any, outside: OpenAIServer) -> None:
        """In the middle of a request to the model."""
        outside.faults = [Fault(seconds=5)]
        began = time.monotonic()
        with pytest.raises(TimedOut):
            asked(client, timeout=0.5)
        assert time.monotonic() - began < 4

    def test_a_client_that_leaves_ends_the_agent(
        self, serving: Served, outside: OpenAIServer
    ) -> None:
        """No model is asked for nobody."""
        with Client(serving.target) as client:
            with client.ask("facts", ENDLESS, **ASKED) as steps:
                next(steps)
                outside.faults = [Fault(seconds=0.1)] * 100
            time.sleep(0.5)
            before = len(outside.requests)
            time.sleep(0.7)
            assert len(outside.requests) == before
            outside.faults = []
            assert asked(client)[1].searches == 2

    @pytest.mark.parametrize(
        ("options", "kind", "message"),
        [
            ({"question": " "}, InvalidArgument, "expected a question"),
            ({"question": "a" * 10_001}, InvalidArgument, "at most 10,000 characters"),
            ({"model": "none"}, NotFound, "'none'"),
            ({"model": "scripted", "embedder": "none"}, NotFound, "'none'"),
            ({"embedder": "babbler"}, InvalidArgument, "expected an encoder"),
            ({"collection": "none"}, NotFound, "'none'"),
            ({"collection": "mute"}, InvalidArgument, "declared as text"),
            ({"text_field": "none"}, InvalidArgument, "declared as text"),
            ({"filter": "none = 1"}, InvalidArgument, "none"),
            ({"filter": {"bad": 1}}, InvalidArgument, "bad"),
            ({"searches": 11}, InvalidArgument, "searches"),
            ({"samples": 33}, InvalidArgument, "samples of at most 32"),
            ({"samples": 0}, InvalidArgument, "samples"),
            ({"longest": 5000}, InvalidArgument, "longest of at most 4,096"),
            ({"passages": 21}, InvalidArgument, "passages of at most 20"),
            ({"passage_length": 0}, InvalidArgument, "passage_length"),
            ({"passage_length": 10_001}, InvalidArgument, "passage_length of at most 10,000"),
            ({"temperature": -1.0}, InvalidArgument, "temperature"),
            ({"temperature": float("nan")}, InvalidArgument, "temperature"),
            ({"seed": -1}, InvalidArgument, "seed"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_asked_is_refused(
        self, client: Any, options: dict[str, Any], kind: type[SoarError], message: str
    ) -> None:
        """Before any model is asked."""
        with pytest.raises(kind, match=message):
            asked(client, **options)

    def test_no_message_names_an_address(self) -> None:
        """What a request may say of a model is its name."""
        assert not [f for f in pb.AskRequest.DESCRIPTOR.fields_by_name if "url" in f or "key" in f]

    def test_an_empty_message_is_refused(self, serving: Served) -> None:
        """Which no client would send."""
        call = Call("/soardb.v1.Agent/Ask", pb.AskRequest(collection="facts"), pb.AskReply)
        with Client(serving.target) as client, pytest.raises(InvalidArgument, match="a question"):
            list(client._wire.parts(call))


class TestOtherDoors:
    def test_rest_gives_a_line_a_step(self, folder: Path, serving: Served, tmp_path: Path) -> None:
        """As JSON under the protocol's names; keys are asked for as everywhere."""
        serving.stop()  # a directory has one owner
        try:
            with (
                Running(folder, "--config", str(folder.parent / "soardb.toml")) as server,
                httpx.Client(base_url=server.url, timeout=60) as http,
            ):
                body = {"question": QUESTION, **ASKED}
                answer = http.post("/v1/collections/facts/ask", json=body)
                *steps, last = map(json.loads, answer.text.splitlines())
                assert [one["step"]["step"] for one in steps] == STEPS
                assert steps[0]["step"]["found"][0]["point"] == "11"
                assert last["answer"]["sources"][0]["point"] == "12"
                assert last["answer"]["searches"] == 2
                cut = http.post("/v1/collections/facts/ask", json=body | {"passage_length": 20})
                first = json.loads(cut.text.splitlines()[0])
                assert len(first["step"]["found"][0]["text"]) == 20
                for bad in (
                    {"searches": 0},
                    {"passage_length": 0},
                    {"url": "http://x"},
                    {"filter": "none = 1"},
                ):
                    answer = http.post("/v1/collections/facts/ask", json=body | bad)
                    assert answer.status_code == 400, answer.text
                lost = {"question": QUESTION, "model": "none"}
                assert http.post("/v1/collections/facts/ask", json=lost).status_code == 404
        finally:
            serving.start()

    def test_readers_pass_it_on_and_keys_are_for_collections(
        self, folder: Path, serving: Served
    ) -> None:
        """Reading the collection is what it takes."""
        serving.stop()
        keys = {name: added_key(folder, f"{name}:read") for name in ("facts", "other")}
        try:
            flags = ["--config", str(folder.parent / "soardb.toml"), "--readers", "1"]
            with Served(folder, *flags) as server:
                for _ in range(3):
                    with Client(server.target, api_key=keys["facts"]) as client:
                        assert asked(client)[1].searches == 2
                        with pytest.raises(NotAllowed, match="'other'"):
                            asked(client, collection="other")
        finally:
            (folder / ".keys.json").unlink()
            serving.start()


def test_a_server_without_the_package_says_so() -> None:
    """And serves all else."""
    import subprocess
    import sys

    script = (
        "import sys; sys.modules['openai'] = None\n"
        "from soardb.errors import Unavailable\n"
        "from soardb_service.agent import _Outside\n"
        "from soardb_service.config import OutsideModel\n"
        "try: _Outside('a', OutsideModel(url='http://x/v1', model='m'))\n"
        "except Unavailable as error: print(error.__cause__)"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'soardb[agent]'" in run.stdout.splitlines()[-1]


def test_nothing_was_a_mistake_of_the_servers_own(serving: Served) -> None:
    """After all tests of this file."""
    assert "Traceback" not in serving.log()
    assert "internal error" not in serving.log()
