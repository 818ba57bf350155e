"""Language models of the agent: behind real servers, in the registry, held to a grammar.

openai_server.py, tiny_gguf.py, soardb/pipelines/agent -> [test_agent_language.py]
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import soardb
from soardb import deadline
from soardb.errors import (
    InvalidArgument,
    NotAllowed,
    NotFound,
    TimedOut,
    Unavailable,
)
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.models.session import generate
from soardb.models.tokens import Tokens
from soardb.pipelines.agent.actions import (
    END,
    LinkSelection,
    ResultItem,
    Search,
    SearchResult,
    SelectLink,
    read_output,
)
from soardb.pipelines.agent.choice import language_model
from soardb.pipelines.agent.grammars import grammar
from soardb.pipelines.agent.language import Completion, LanguageModel, Wish
from soardb.pipelines.agent.llama_cpp import served
from soardb.pipelines.agent.local import LocalModel
from soardb.pipelines.agent.openai_api import OpenAIModel
from soardb.pipelines.agent.prompts import Case
from tests.pipelines.openai_server import Fault, OpenAIServer, logprob_of, tokens_of
from tests.pipelines.tiny_gguf import tiny_gguf

pytest.importorskip("openai")

KEY = "sk-never-shown"
BUSY = Fault(429, "slow down", headers={"retry-after-ms": "1"})


def asked(server: OpenAIServer, **told: Any) -> OpenAIModel:
    return OpenAIModel(server.url, "scripted", **{"retries": 0, "timeout": 20.0, **told})


def samples(found: list[Completion] | InvalidArgument) -> list[Completion]:
    assert isinstance(found, list), found
    return found


class TestOpenAIModel:
    @pytest.mark.parametrize(
        ("endpoint", "form"),
        [("completions", "legacy"), ("completions", "content"), ("chat", "content")],
    )
    def test_samples_come_with_their_log_probabilities(self, endpoint: Any, form: Any) -> None:
        """In whichever form a server sends them; the stop is not in the text."""
        wish = Wish(3, 0.7, 100, (END,), 5)

        def reply(prompt: str, body: dict[str, Any]) -> list[str]:
            return [f"{prompt} said {number}  {END} more" for number in range(3)]

        with (
            OpenAIServer(reply, logprobs=form) as server,
            asked(server, endpoint=endpoint) as model,
        ):
            found = model.complete(["one", "two"], wish)
        for prompt, came in zip(["one", "two"], found, strict=True):
            for number, one in enumerate(samples(came)):
                text = f"{prompt} said {number}  "
                laws = [logprob_of(token) for token in tokens_of(text)]
                assert one == Completion(text, math.fsum(laws), len(laws), True)
                assert one.perplexity == pytest.approx(math.exp(-sum(laws) / len(laws)))
        assert len(server.requests) == 2
        for request in server.requests:
            body = request.body
            assert (body["n"], body["temperature"], body["max_tokens"]) == (3, 0.7, 100)
            assert body["stop"] == [END]
            assert body["model"] == "scripted"
        assert len({request.body["seed"] for request in server.requests}) == 2

    @pytest.mark.parametrize(
        ("said", "text", "inside"),
        [
            ("```python\nx = 1\n```\n", "x = 1", 3),
            ("```\nx = 1  ", "x = 1  ", 4),  # the stop came before the last line
            ("```c++ \r\nx = 1\n```", "x = 1", 3),
            ("```\n```", "", 0),
            ("x = '```'\n", "x = '```'\n", 4),
        ],
    )
    def test_a_fence_around_what_a_chat_writes_is_no_part_of_it(
        self, said: str, text: str, inside: int
    ) -> None:
        """Of a completion it would be."""
        for endpoint, came in (("chat", text), ("completions", said)):
            with (
                OpenAIServer(lambda *_: [said]) as server,
                asked(server, endpoint=endpoint) as model,
            ):
                (one,) = samples(model.complete(["x"], Wish(1, longest=50))[0])
            assert one.text == came
            # A fence is nearly certain, so with it a text would be preferred.
            whole = len(tokens_of(said))
            assert one.tokens == (inside if endpoint == "chat" else whole)

    def test_a_sample_that_is_cut_off_says_so(self) -> None:
        """At the longest that was wished for."""
        with OpenAIServer(lambda *_: ["a b c d"]) as server, asked(server) as model:
            (one,) = samples(model.complete(["x"], Wish(1, longest=2))[0])
        assert (one.text, one.tokens, one.is_finished) == ("a b", 2, False)

    def test_a_server_that_overlooks_n_is_asked_again(self) -> None:
        """Each time with another seed, or it would send the same again."""
        with OpenAIServer(most=2) as server, asked(server) as model:
            assert len(samples(model.complete(["x"], Wish(5))[0])) == 5
        assert [request.body["n"] for request in server.requests] == [5, 3, 1]
        assert len({request.body["seed"] for request in server.requests}) == 3

    def test_at_temperature_0_one_sample_stands_for_all(self) -> None:
        """As each would be the same, one is paid for."""
        with OpenAIServer() as server, asked(server) as model:
            found = samples(model.complete(["x"], Wish(4, 0))[0])
        assert len(found) == 4
        assert [request.body["n"] for request in server.requests] == [1]

    def test_tokens_and_cost_are_counted(self) -> None:
        """By what the server says."""
        with (
            OpenAIServer(lambda *_: ["a b c"] * 2) as server,
            asked(server, prices=(0.5, 2.0)) as model,
        ):
            model.complete(["one two", "three"], Wish(2))
            usage = model.usage
        assert (usage.calls, usage.prompt_tokens, usage.completion_tokens) == (2, 3, 12)
        assert usage.cost == pytest.approx(3 * 0.5 + 12 * 2.0)
        assert usage.seconds > 0

    def test_prompts_are_asked_side_by_side(self) -> None:
        """As many as told, so that a slow server is waited for once."""

        def reply(prompt: str, body: dict[str, Any]) -> list[str]:
            time.sleep(0.5)
            return [prompt]

        began = time.perf_counter()
        with OpenAIServer(reply) as server, asked(server, parallel=8) as model:
            found = model.complete([str(number) for number in range(8)], Wish(1))
        assert [samples(one)[0].text for one in found] == [str(number) for number in range(8)]
        assert time.perf_counter() - began < 3.5  # 4 one after another

    def test_a_busy_server_is_asked_again(self) -> None:
        """429 and 500 pass; what came at last is what counts."""
        failed = Fault(500, "oops", headers={"retry-after-ms": "1"})
        with OpenAIServer(faults=[BUSY, failed]) as server, asked(server, retries=2) as model:
            assert samples(model.complete(["x"], Wish(1))[0])[0].text == " ok"
            assert model.usage.calls == 1
        assert len(server.requests) == 3

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_a_prompt_that_is_refused_fails_alone(self, status: int) -> None:
        """Whatever the reason, as a filter of its words: with what the server said."""
        faults = [Fault(status, "not these words")]
        with OpenAIServer(faults=faults) as server, asked(server, parallel=1) as model:
            refused, fine = model.complete(["a", "b"], Wish(1))
        assert isinstance(refused, InvalidArgument)
        assert "not these words" in str(refused)
        assert not isinstance(fine, InvalidArgument)

    def test_headers_of_the_environment_stay_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are meant for OpenAI, whichever server is asked."""
        for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            monkeypatch.setenv(name, "mine")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: mine")
        with OpenAIServer() as server, asked(server) as model:
            model.complete(["a"], Wish(1))
            assert "mine" not in server.requests[0].headers.values()

    def test_a_prompt_that_is_too_long_fails_alone(self) -> None:
        """The other prompts of the call have their samples."""
        said = "This model's maximum context length is 8 tokens. However, you requested 9 tokens."
        with OpenAIServer(faults=[Fault(400, said)]) as server, asked(server, parallel=1) as model:
            first, second = model.complete(["too long", "x"], Wish(1))
        assert isinstance(first, InvalidArgument)
        assert "maximum context length is 8" in str(first)
        assert samples(second)[0].text == " ok"

    @pytest.mark.parametrize(
        ("fault", "kind", "word"),
        [
            (Fault(401, f"Incorrect API key provided: {KEY}"), NotAllowed, "Incorrect"),
            (Fault(403, "not for you"), NotAllowed, "not for you"),
            (Fault(404, "The model does not exist"), NotFound, "does not exist"),
            (BUSY, Unavailable, "slow down"),
            (Fault(500, "oops"), Unavailable, "500"),
            (Fault(503, "loading"), Unavailable, "loading"),
            (Fault(raw=b"{not json"), Unavailable, "OpenAI protocol"),
            (Fault(raw=b"[]"), Unavailable, "OpenAI protocol"),
            (Fault(raw=b"{}"), Unavailable, "no choices"),
            (Fault(raw=b'{"choices": [{"index": 0}]}'), Unavailable, "no text"),
            (Fault(seconds=30), TimedOut, "0.3 s"),
        ],
    )
    def test_each_fault_has_its_error(self, fault: Fault, kind: type[Exception], word: str) -> None:
        """Which names the server and what it said, and never the key."""
        with OpenAIServer(faults=[fault]) as server:
            timeout = 0.3 if fault.seconds else 20.0
            with asked(server, key=KEY, timeout=timeout) as model:
                with pytest.raises(kind, match=word) as caught:
                    model.complete(["x"], Wish(1))
                assert server.url in str(caught.value)
        # The client's own error, which may hold the key, is not shown before it.
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert KEY not in str(caught.value)
        assert KEY not in repr(model)

    def test_no_server_is_an_error(self) -> None:
        """Where nothing listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
            with (
                OpenAIModel(url, "m", retries=0) as model,
                pytest.raises(Unavailable, match="no server answers"),
            ):
                model.complete(["x"], Wish(1))

    @pytest.mark.parametrize("endpoint", ["completions", "chat"])
    def test_a_server_without_log_probabilities_is_refused(self, endpoint: Any) -> None:
        """Samples without them cannot be compared."""
        refused = pytest.raises(InvalidArgument, match="log-probabilities")
        with (
            OpenAIServer(logprobs=None) as server,
            asked(server, endpoint=endpoint) as model,
            refused,
        ):
            model.complete(["x"], Wish(1))

    def test_the_key_is_sent_and_only_the_one_that_was_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key of the environment is for another server."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
        with OpenAIServer(key=KEY) as server:
            with asked(server, key=KEY) as model:
                assert samples(model.complete(["x"], Wish(1))[0])
            with asked(server) as model, pytest.raises(NotAllowed):
                model.complete(["x"], Wish(1))
        assert "sk-of-the-environment" not in str([one.headers for one in server.requests])

    def test_the_time_of_the_call_is_kept(self) -> None:
        """A limit around the call counts, though the server may take longer."""
        with OpenAIServer(faults=[Fault(seconds=30)]) as server, asked(server) as model:
            began = time.perf_counter()
            with deadline.within(0.3), pytest.raises(TimedOut):
                model.complete(["x"], Wish(1))
            assert time.perf_counter() - began < 10

    @pytest.mark.parametrize(
        ("told", "word"),
        [
            ({"url": "127.0.0.1:8000"}, "url"),
            ({"url": "ftp://127.0.0.1"}, "url"),
            ({"url": "http://me:secret@127.0.0.1/v1"}, "give key"),
            ({"model": ""}, "model"),
            ({"endpoint": "edits"}, "endpoint"),
            ({"timeout": 0}, "timeout"),
            ({"retries": -1}, "retries"),
            ({"parallel": 0}, "parallel"),
            ({"key": "with\nline"}, "key"),
        ],
    )
    def test_what_cannot_be_is_refused(self, told: dict[str, Any], word: str) -> None:
        """Before anything is sent, and without the secret."""
        with pytest.raises(InvalidArgument, match=word) as caught:
            OpenAIModel(**{"url": "http://127.0.0.1:1", "model": "m", **told})
        assert "secret" not in str(caught.value)
        assert "line" not in str(caught.value)


TEXTS = ["a small bird near rivers", "the large stone of walls"] * 20


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """With a decoder "small" and a GPT-2 of Hugging Face "other", untrained."""
    folder = tmp_path_factory.mktemp("models")
    soardb.connect(folder).close()
    registry = Registry(folder)
    tokens = Tokens.trained(TEXTS, 280)
    model = Decoder(DecoderConfig(len(tokens), 32, 2, 2, context=96), 1).eval()
    with torch.no_grad():
        model.embedding.weight *= 8
    registry.add_decoder("small", model, tokens)
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokens), n_positions=96, n_embd=32, n_layer=1, n_head=2,
        bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    source = tmp_path_factory.mktemp("gpt2")
    transformers.GPT2LMHeadModel(config).save_pretrained(source)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens.tokenizer, eos_token="<end>"
    )
    fast.save_pretrained(source)
    registry.add_hugging("other", source)
    return registry


@pytest.fixture(params=["small", "other"])
def local(request: pytest.FixtureRequest, registry: Registry) -> LocalModel:
    return LocalModel(registry.load(request.param))


class TestLocalModel:
    def test_each_prompt_has_its_samples(self, local: LocalModel) -> None:
        """In their order, with the probability that the model gives them."""
        prompts = ["a small bird", "the", "a large stone of walls near"]
        found = local.complete(prompts, Wish(3, 1.0, 10, seed=4))
        again = local.complete(prompts, Wish(3, 1.0, 10, seed=4))
        assert found == again
        assert found != local.complete(prompts, Wish(3, 1.0, 10, seed=5))
        for came in found:
            assert len(samples(came)) == 3
            assert len({one.text for one in samples(came)}) > 1
            assert all(one.tokens <= 10 and one.logprob < 0 for one in samples(came))
        assert local.usage.calls == 3
        assert local.usage.completion_tokens > 0

    def test_greedy_samples_are_those_of_a_session(
        self, local: LocalModel, registry: Registry
    ) -> None:
        """One is written, and stands for all."""
        loaded = registry.load(local.name)
        prompt = loaded.tokens.encode("a small bird")
        expected = list(
            generate(loaded.model, prompt, 12, Sampling(0), torch.Generator(), loaded.tokens.end)
        )
        found = samples(local.complete(["a small bird"], Wish(2, 0.0, 12))[0])
        assert [one.text for one in found] == [loaded.tokens.decode(expected)] * 2
        assert local.usage.completion_tokens == len(expected)

    def test_a_sample_stops_before_a_text(self, local: LocalModel) -> None:
        """Which is not in it, though its tokens are counted; nothing is written after it."""
        free = samples(local.complete(["the"], Wish(1, 0.0, 20))[0])[0].text
        stop = free[3:5]
        cut = samples(local.complete(["the"], Wish(1, 0.0, 20, (stop,)))[0])[0]
        assert cut.text == free[: free.index(stop)]
        assert cut.is_finished
        assert cut.tokens < 20

    def test_a_prompt_that_does_not_fit_fails_alone(self, local: LocalModel) -> None:
        """It says both lengths; one that leaves some room has shorter samples."""
        words = "bird " * 200
        tokens = local._tokens.encode(words)
        room = local._tokens.decode(tokens[:60])  # of 96
        too_long, fits, short = local.complete([words, room, "a"], Wish(1, 1.0, 50))
        assert isinstance(too_long, InvalidArgument)
        assert "at most 64 tokens" in str(too_long)
        assert str(len(tokens)) in str(too_long)
        assert samples(fits)[0].tokens <= 96 - len(local._tokens.encode(room))
        assert samples(short)[0].tokens <= 50
        assert isinstance(local.complete([""], Wish(1))[0], InvalidArgument)

    def test_a_grammar_is_refused(self, local: LocalModel) -> None:
        """With the way to have it."""
        with pytest.raises(InvalidArgument, match=r"llama\.cpp"):
            local.complete(["a"], Wish(grammar="root ::= [a-z]"))

    def test_batches_change_nothing(self, registry: Registry) -> None:
        """However few tokens are read at once."""
        prompts = ["a small bird", "the", "a large stone of walls near", "of"]
        wish = Wish(2, 1.0, 10, ("e",))
        loaded = registry.load("small")
        whole = LocalModel(loaded).complete(prompts, wish)
        parts = LocalModel(loaded, at_once=1).complete(prompts, wish)
        for some, others in zip(whole, parts, strict=True):
            assert [one.text for one in samples(some)] == [one.text for one in samples(others)]


class TestChoice:
    def test_a_name_is_of_the_registry_or_of_a_server(self, registry: Registry) -> None:
        """By whether there is a url."""
        with OpenAIServer(key=KEY) as server:
            far: LanguageModel = language_model(
                "scripted", url=server.url, key=KEY, registry=registry
            )
            assert samples(far.complete(["x"], Wish(1))[0])[0].text == " ok"
        near = language_model("small", registry=registry)
        assert (far.name, near.name) == ("scripted", "small")
        with pytest.raises(InvalidArgument, match="url beside key"):
            language_model("small", key=KEY, registry=registry)
        with pytest.raises(InvalidArgument, match="registry of models"):
            language_model("small")
        with pytest.raises(NotFound):
            language_model("none", registry=registry)


ITEMS = tuple(ResultItem(number, f"Title {number}", "A snippet.") for number in (3, 4, 5))
PAST = (Search("a", "b"), SelectLink(ITEMS[:2], "According to [link_id=3] it is.", "good"))
CASES = [
    Case("decision", "Who?", PAST, remaining=3),
    Case("summary", "Who?", PAST[:1], results=SearchResult(ITEMS)),
    Case("summary", "Who?", PAST[:1], results=SearchResult(())),
    Case("answer", "Who?", PAST),
    Case("relevance", "Who?", PAST, answer="He."),
    Case("grounding", "Who?", (), answer="He."),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIModel]:
    """A tiny LLaMA behind llama.cpp's server."""
    pytest.importorskip("xllamacpp")
    path = tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")
    with (
        served(path, context=2048, threads=1, samples=4) as url,
        OpenAIModel(url, "tiny", retries=0) as model,
    ):
        yield model


class TestLlamaCpp:
    def test_samples_come_with_their_log_probabilities(self, llama: OpenAIModel) -> None:
        """At temperature 1, whatever they were drawn at: those of a token are a law's."""
        found = llama.complete(["ab", "cd"], Wish(3, 0.5, 6))
        for came in found:
            assert len(samples(came)) == 3
            for one in samples(came):
                assert 1 <= one.tokens <= 6
                assert one.logprob < 0
        assert llama.usage.prompt_tokens >= 4
        assert llama.usage.completion_tokens >= sum(
            one.tokens for came in found for one in samples(came)
        )

    def test_a_prompt_that_is_too_long_is_told(self, llama: OpenAIModel) -> None:
        """Alone, as behind any server."""
        long, short = llama.complete(["a" * 3000, "a"], Wish(1, longest=2))
        assert isinstance(long, InvalidArgument)
        assert samples(short)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.step)
    def test_what_a_grammar_allows_can_be_read(self, llama: OpenAIModel, case: Case) -> None:
        """A model of no training writes what read_output() takes, for each step."""
        wish = Wish(2, 1.0, 1000, (END,), grammar=grammar(case, longest=24))
        known = {3, 4, 5} if case.results and case.results.links else set()
        for one in samples(llama.complete(["Go on:\n"], wish)[0]):
            assert one.is_finished, one.text
            action = read_output(case.step, one.text).action
            if isinstance(action, LinkSelection):
                chosen = action.selected_link_ids
                assert set(chosen) <= known
                assert len(set(chosen)) == len(chosen)

    def test_a_grammar_that_is_none_is_told(self, llama: OpenAIModel) -> None:
        """By the server's own words."""
        [refused] = llama.complete(["a"], Wish(1, grammar="root ::= ("))
        assert isinstance(refused, InvalidArgument)
        assert "grammar" in str(refused)

    def test_files_that_are_no_model_are_told(self, tmp_path: Path) -> None:
        """Before llama.cpp sees them, or by it."""
        with pytest.raises(NotFound), served(tmp_path / "none.gguf"):
            pass
        (tmp_path / "text.gguf").write_text("text")
        with pytest.raises(InvalidArgument, match="GGUF"), served(tmp_path / "text.gguf"):
            pass
        (tmp_path / "cut.gguf").write_bytes(b"GGUF" + b"\0" * 20)
        with pytest.raises(InvalidArgument, match=r"llama\.cpp"), served(tmp_path / "cut.gguf"):
            pass


class TestGrammar:
    def test_a_choice_of_many_links_stays_small(self) -> None:
        """A hundred links have no branch for each choice of them; each may be taken alone."""
        items = tuple(ResultItem(number, "t", "s") for number in range(100))
        found = grammar(Case("summary", "Who?", results=SearchResult(items)))
        assert found.count("selected_link_ids") == 101
        few = grammar(Case("summary", "Who?", results=SearchResult(items[:3])))
        assert few.count("selected_link_ids") == 8
