"""Models over the wire: sent, listed, paired, measured, and writing, as where they were made.

    models/trained.py, conftest.py -> [test_models.py] -> soardb_service/models.py, soardb_client

What is compared is what the same model does in this process, so no number is known beforehand but
by that. Times are measured nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch
from typer.testing import CliRunner

from soardb import deadline
from soardb.cli.commands import app
from soardb.errors import (
    AlreadyExists,
    Closed,
    InvalidArgument,
    NotAllowed,
    NotFound,
    SoarError,
    TimedOut,
)
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.pipelines.distillspec import evaluated
from soardb.pipelines.speculate import SpeculateConfig, writing
from soardb_client import AsyncClient, Client
from soardb_client.calls import Call
from soardb_proto.v1 import models_pb2 as pb
from soardb_service.shelf import Shelf
from tests.models.trained import TEXTS, filled, llama
from tests.service.conftest import Served, opened
from tests.service.running import Running, added_key

GREEDY = SpeculateConfig(3, 24, Sampling(0))
ASKED = {"gamma": 3, "longest": 24, "temperature": 0.0}
PROMPT = "the small"
MOST = 2**20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Where the models were made."""
    return filled(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory, home: Registry) -> Iterator[Served]:
    """A server with both models and a collection of notes; nothing is changed for good."""
    folder = tmp_path_factory.mktemp("holding") / "db"
    with Served(
        folder, "--max-model-bytes", str(MOST), "--models-loaded", "2", "--log-calls"
    ) as server:
        with Client(server.target) as client:
            notes = client.create_collection("notes", 2, "l2", schema={"text": "text"})
            rows = np.arange(400, dtype=np.float32).reshape(200, 2)
            payloads = [{"text": text, "other": i} for i, text in enumerate(TEXTS)]
            notes.upsert(range(200), rows, payloads)
            for name in home.names():
                client.models.upload(name, home.folder / name)
        yield server


@pytest.fixture
def client(holding: Served, kind: str, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Blocking, then asyncio."""
    with opened(holding.target, kind, loop) as made:
        yield made


def here(home: Registry, **options: Any) -> Any:
    """What the large model writes in this process: (text, passes)."""
    draft = options.pop("draft", None)
    found = writing(
        home.load("large"), PROMPT, GREEDY, draft=home.load(draft) if draft else None, **options
    )
    return "".join(found), found.passes


def there(client: Any, **options: Any) -> tuple[str, Any]:
    """What it writes on the server: (text, what it took)."""
    pieces = client.models.generate("large", PROMPT, **(ASKED | options))
    return "".join(pieces), pieces.written


class TestWhatThereIs:
    def test_a_model_arrives_as_it_was(self, client: Any, home: Registry) -> None:
        """Entry and files; its metrics and lineage came along."""
        infos = client.models.list()
        assert [info.name for info in infos] == ["large", "small"]
        for info in infos:
            sent, kept = home.get(info.name), client.models.get(info.name)
            assert kept == info
            told = info.to_json() | {"created": sent.created}
            assert told == sent.to_json()
            assert info.size == sent.size

    def test_one_is_sent_and_deleted(self, client: Any, home: Registry) -> None:
        """Its name is taken until then."""
        seen: list[float] = []
        folder = home.folder / "small"
        info = client.models.upload("again", folder, lambda stage, share: seen.append(share))
        assert info.files == home.get("small").files
        assert seen[-1] == 1.0
        with pytest.raises(AlreadyExists, match="'again'"):
            client.models.upload("again", folder)
        client.models.delete("again")
        assert [info.name for info in client.models.list()] == ["large", "small"]
        with pytest.raises(NotFound, match="'again'"):
            client.models.get("again")
        with pytest.raises(NotFound, match="'again'"):
            client.models.delete("again")

    def test_a_pair_is_kept(self, client: Any) -> None:
        """Measured again, replaced; of what is not there, none."""
        client.models.pair("large", "small", {"alpha": 0.25})
        pair = client.models.pair("large", "small", {"alpha": 0.5, "tau_3": 2})
        assert pair.metrics == {"alpha": 0.5, "tau_3": 2.0}
        assert client.models.pairs("large") == [pair] == client.models.pairs()
        assert client.models.pairs("small") == []
        with pytest.raises(NotFound, match="'none'"):
            client.models.pair("large", "none", {})
        with pytest.raises(InvalidArgument, match="alpha"):
            client.models.pair("large", "small", {"alpha": float("nan")})

    def test_a_pair_is_measured_as_here(self, client: Any, home: Registry) -> None:
        """On texts that are told, and on those of a collection; progress is told, it is kept."""
        large, small = home.load("large"), home.load("small")
        told = {"gamma": 3, "length": 12, "prompt_tokens": 5}
        want = evaluated(large, small, TEXTS[:6], seed=2, **told)  # type: ignore[arg-type]
        by_texts = client.models.evaluate("large", "small", TEXTS[:6], seed=2, **told)
        by_notes = client.models.evaluate(
            "large", "small", collection="notes", limit=6, seed=2, **told
        )
        assert by_texts.last.kind == "evaluate"
        for operation in (by_texts, by_notes):
            found = operation.wait()
            for name in ("alpha", "tau_3", "tokens"):
                assert found[name] == pytest.approx(want[name])
        assert client.models.pairs("large")[0].metrics == found

    def test_measuring_can_be_cancelled(self, client: Any) -> None:
        """Between two tokens; the models are free again, and no pair was kept."""
        client.models.pair("large", "small", {"alpha": 0.5})
        operation = client.models.evaluate("large", "small", TEXTS, length=100, prompt_tokens=8)
        operation.cancel()
        with pytest.raises(Closed, match="cancelled"):
            operation.wait()
        assert client.models.pairs()[0].metrics == {"alpha": 0.5}
        assert there(client)[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "either texts or collection"),
            ({"texts": []}, "expected texts"),
            ({"texts": "one"}, "one string"),
            ({"collection": "notes", "text_field": "none"}, "expected texts"),
            ({"texts": ["a"], "gamma": 0}, "gamma"),
        ],
    )
    def test_what_cannot_be_measured_is_refused_at_once(
        self, client: Any, options: Any, message: str
    ) -> None:
        """Not by an operation that fails later."""
        with pytest.raises(InvalidArgument, match=message):
            client.models.evaluate("large", "small", **options)
        with pytest.raises(NotFound, match="'none'"):
            client.models.evaluate("large", "none", ["a"])


class TestWriting:
    def test_text_is_that_of_the_same_model_here(self, client: Any, home: Registry) -> None:
        """Greedily, plain and drafted; a draft takes fewer passes and changes no word."""
        text, plain = there(client)
        assert text == here(home)[0]
        assert (plain.passes, plain.tau, plain.passages) == (plain.tokens, 1.0, 0)
        drafted, fast = there(client, draft="small")
        assert (drafted, fast.passes) == here(home, draft="small")
        assert drafted == text
        assert fast.passes < plain.passes
        assert fast.tau == pytest.approx(fast.tokens / fast.passes)

    def test_a_temperature_near_zero_is_greedy(self, client: Any) -> None:
        """The smallest number there is, by which nothing should be divided."""
        assert there(client, temperature=5e-324)[0] == there(client)[0]

    def test_a_seed_is_a_text(self, client: Any, home: Registry) -> None:
        """With temperature, top-k and top-p as here."""
        for seed in (1, 2):
            law = Sampling(0.9, 20, 0.95)
            config = SpeculateConfig(3, 24, law, seed=seed)
            want = "".join(writing(home.load("large"), PROMPT, config))
            found = there(client, temperature=0.9, top_k=20, top_p=0.95, seed=seed)[0]
            assert found == want

    def test_passages_go_before_the_prompt(
        self, client: Any, home: Registry, holding: Served
    ) -> None:
        """By full text and by a vector; those that full text finds are those of a search."""
        collection = client.get_collection("notes")
        hits = collection.search(text=PROMPT, text_fields=["text"], limit=2)
        words = [payload["text"] for payload in hits.payloads]
        text, told = there(client, collection="notes", passages=2)
        assert text == here(home, context=words)[0]
        assert told.passages == 2
        near = there(client, collection="notes", passages=1, vector=[20.0, 21.0])[0]
        assert near == here(home, context=[TEXTS[10]])[0]
        drafted, fast = there(client, collection="notes", passages=2, draft_passages=True)
        assert drafted == text
        assert fast.passes <= told.passes

    def test_no_passage_is_no_error(self, client: Any, home: Registry) -> None:
        """A field without text, which a vector finds all the same; nothing is drafted then."""
        options = {"collection": "notes", "text_field": "other", "vector": [1.0, 2.0]}
        text, told = there(client, draft_passages=True, **options)
        assert (text, told.passages) == (here(home)[0], 0)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"draft": "none"}, NotFound, "'none'"),
            ({"collection": "none"}, NotFound, "'none'"),
            ({"collection": "notes", "text_field": "other"}, InvalidArgument, "other"),
            ({"collection": "notes", "vector": [1.0, 2.0, 3.0]}, InvalidArgument, "3"),
            ({"collection": "notes", "passages": 10_001}, InvalidArgument, "passages"),
            ({"draft_passages": True}, InvalidArgument, "collection"),
            (
                {"collection": "notes", "draft": "small", "draft_passages": True}, InvalidArgument,
                "both",
            ),
            ({"longest": 200}, InvalidArgument, "a prompt of 1 to 0 tokens"),
            ({"temperature": -1.0}, InvalidArgument, "temperature"),
            ({"top_p": 0.0}, InvalidArgument, "top_p"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_written_is_refused(
        self, client: Any, options: Any, error: type[SoarError], message: str
    ) -> None:
        """With the words of the engine."""
        with pytest.raises(error, match=message):
            there(client, **options)

    def test_one_who_leaves_ends_the_writing(self, client: Any, holding: Served) -> None:
        """After one piece of a long text, and by a timeout; the model writes for others then."""

        def cut() -> int:
            lines = holding.log().splitlines()
            return sum("Models/Generate" in line and "DEADLINE" in line for line in lines)

        before = cut()
        for _ in range(20):
            if cut() > before:
                break
            with Client(client.target) as other:
                pieces = other.models.generate("large", PROMPT, longest=100)
                next(pieces)
                pieces.close()
                other.close()
                with pytest.raises(Closed):
                    next(other.models.generate("large", PROMPT))
            assert there(client)[0]
        assert cut() > before
        with pytest.raises(TimedOut):
            there(client, timeout=1e-4)
        assert there(client)[0]

    def test_async_pieces_can_be_left(self, holding: Served) -> None:
        """The asyncio client itself, as a program has it."""

        async def first() -> tuple[str, str]:
            client = AsyncClient(holding.target)
            async with client, client.models.generate("large", PROMPT, longest=100) as pieces:
                piece = await anext(pieces)
            async with AsyncClient(holding.target) as client:
                pieces = client.models.generate("large", PROMPT, **ASKED)  # type: ignore[arg-type]
                return piece, "".join([piece async for piece in pieces])

        piece, text = asyncio.run(first())
        assert piece
        assert text

    def test_several_write_at_once(self, holding: Served, home: Registry) -> None:
        """Each its own text: of two models, of which one or both are wanted."""
        want, found = here(home)[0], []

        def write(draft: str | None) -> None:
            with Client(holding.target) as client:
                found.append(there(client, draft=draft)[0])

        threads = [
            threading.Thread(target=write, args=(draft,)) for draft in (None, "small", "large") * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [want] * 6


class TestUploads:
    @pytest.fixture
    def copy(self, home: Registry, tmp_path: Path) -> Path:
        """Of a model's folder, to be damaged."""
        shutil.copytree(home.folder / "small", tmp_path / "small")
        return tmp_path / "small"

    def test_a_damaged_file_is_refused(self, client: Any, copy: Path) -> None:
        """Of the same length by the server, which keeps nothing; of another before it is sent."""
        weights = copy / "weights.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        with pytest.raises(InvalidArgument, match=r"weights\.safetensors as the manifest"):
            client.models.upload("new", copy)
        weights.write_bytes(data[:-1])
        with pytest.raises(InvalidArgument, match=r"bytes in .*weights\.safetensors"):
            client.models.upload("new", copy)
        weights.unlink()
        with pytest.raises(InvalidArgument, match="got nothing"):
            client.models.upload("new", copy)
        assert len(client.models.list()) == 2

    def test_a_folder_that_is_no_model_is_refused(self, client: Any, copy: Path) -> None:
        """Before anything is sent."""
        with pytest.raises(NotFound, match="the folder of a model"):
            client.models.upload("new", copy.parent)
        manifest = copy / "manifest.json"
        for text in ("{", "[]", '{"format": 1}', '{"format": 9, "entry": {"files": {}}}'):
            manifest.write_text(text)
            with pytest.raises(InvalidArgument, match=r"manifest\.json"):
                client.models.upload("new", copy)

    def test_one_too_large_is_refused(self, client: Any, copy: Path) -> None:
        """By what its manifest announces."""
        (copy / "weights.safetensors").write_bytes(b"\0" * MOST)
        manifest = copy / "manifest.json"
        told = json.loads(manifest.read_text())
        told["entry"]["files"]["weights.safetensors"]["bytes"] = MOST
        manifest.write_text(json.dumps(told))
        with pytest.raises(InvalidArgument, match=f"at most {MOST:,} bytes of a model"):
            client.models.upload("new", copy)

    def test_a_stream_out_of_order_leaves_nothing(self, holding: Served, home: Registry) -> None:
        """More than was announced, less, files twice, others, paths, no manifest."""
        entry = home.get("small")
        folder = home.folder / "small"
        data = {name: (folder / name).read_bytes() for name in entry.files}
        first, second = data
        told = json.dumps(entry.to_json()).encode()

        def manifest(name: str = "new", entry: bytes = told) -> pb.UploadModelRequest:
            return pb.UploadModelRequest(manifest=pb.ModelManifest(name=name, entry=entry))

        def file(name: str) -> pb.UploadModelRequest:
            return pb.UploadModelRequest(file=name)

        def part(some: bytes) -> pb.UploadModelRequest:
            return pb.UploadModelRequest(data=some)

        outside = json.loads(told)
        outside["files"]["../x.json"] = {"bytes": 1, "sha256": "0"}
        cases: list[tuple[list[pb.UploadModelRequest], str]] = [
            ([], "a request, got none"),
            ([pb.UploadModelRequest()], "manifest of a model"),
            ([file(first)], "manifest of a model"),
            ([manifest(name="../new")], "name of a model"),
            ([manifest(name="x.new")], "another name"),
            ([manifest(entry=b"{")], "entry as JSON"),
            ([manifest(entry=b"[]")], "manifest of a model"),
            ([manifest(entry=json.dumps(outside).encode())], "plain names"),
            ([manifest()], f"{first}, {second} too"),
            ([manifest(), part(b"x")], "expected a file among"),
            ([manifest(), manifest()], "expected a file among"),
            ([manifest(), file("x.json")], "'x.json'"),
            ([manifest(), file("../x.json")], "expected a file among"),
            ([manifest(), file(first), part(data[first][:-1])], "1 bytes more"),
            ([manifest(), file(first), part(data[first] + b"x")], "1 bytes less"),
            ([manifest(), file(first), part(data[first]), file(first)], "expected a file among"),
            ([manifest(), file(first), part(data[first])], f"{second} too"),
        ]

        def kept() -> list[Path]:
            return sorted(file for file in holding.folder.glob("models/*") if file.is_dir())

        before = kept()
        with Client(holding.target) as client:
            for messages, message in cases:
                with pytest.raises(InvalidArgument, match=message.replace(".", r"\.")):
                    client._wire.send("/soardb.v1.Models/Upload", iter(messages), pb.Model)
            whole = [manifest(), file(first), part(data[first]), file(second)]
            whole += [part(data[second][i : i + 1000]) for i in range(0, len(data[second]), 1000)]
            client._wire.send("/soardb.v1.Models/Upload", iter(whole), pb.Model)
            client.models.delete("new")
        assert kept() == before

    def test_what_makes_no_model_is_refused(self, client: Any, copy: Path) -> None:
        """Checksums may be good, and weights none of that configuration, or too many tokens."""
        manifest = copy / "manifest.json"
        told = json.loads(manifest.read_text())
        good = {name: (copy / name).read_bytes() for name in told["entry"]["files"]}
        weights = safetensors.torch.load_file(copy / "weights.safetensors")
        weights["norm.weight"][0] = float("nan")
        tokens = json.loads((copy / "tokenizer.json").read_text())
        tokens["model"]["vocab"]["many"] = 5000
        for change, message in (
            ({"weights.safetensors": b"\0" * 10**5}, "no weights of this configuration"),
            ({"weights.safetensors": safetensors.torch.save(weights)}, "that are numbers"),
            ({"tokenizer.json": json.dumps(tokens).encode()}, "the tokenizer has 5000"),
            ({"tokenizer.json": b"{}"}, "a tokenizer as JSON"),
        ):
            changed = json.loads(json.dumps(told))
            for name, data in (good | change).items():
                (copy / name).write_bytes(data)
                changed["entry"]["files"][name] = _told(data)
            manifest.write_text(json.dumps(changed))
            with pytest.raises(InvalidArgument, match=message):
                client.models.upload("new", copy)
        assert len(client.models.list()) == 2


def _told(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class TestHuggingFace:
    def test_one_is_sent_measured_and_writes(
        self, client: Any, home: Registry, tmp_path: Path
    ) -> None:
        """As those that were made here; with a draft of ours, no word changes."""
        made = Registry(tmp_path)
        made.add_hugging("llama", llama(tmp_path / "llama", home.load("large").tokens))
        found = made.load("llama")
        want = "".join(writing(found, PROMPT, GREEDY))
        info = client.models.upload("llama", made.folder / "llama")
        try:
            assert info.architecture == "llama"
            assert info.files == made.get("llama").files
            for draft in (None, "small"):
                pieces = client.models.generate("llama", PROMPT, draft=draft, **ASKED)
                assert "".join(pieces) == want
            metrics = client.models.evaluate("llama", "small", TEXTS[:2], length=6).wait()
            assert 0 < metrics["alpha"] < 1
            config = made.folder / "llama/config.json"
            told = json.loads(config.read_text()) | {"attn_implementation": "some/kernel"}
            config.write_text(json.dumps(told))
            path = made.folder / "llama/manifest.json"
            manifest = json.loads(path.read_text())
            manifest["entry"]["config"] = told
            manifest["entry"]["files"]["config.json"] = _told(config.read_bytes())
            path.write_text(json.dumps(manifest))
            with pytest.raises(InvalidArgument, match="without code of its own"):
                client.models.upload("other", made.folder / "llama")
        finally:
            client.models.delete("llama")


class TestKeys:
    def test_who_may_what(self, tmp_path: Path, home: Registry) -> None:
        """Models are everybody's who has a key; changes take one for all, passages their own."""
        folder = tmp_path / "db"
        folder.mkdir()
        keys = {
            name: added_key(folder, grant)
            for name, grant in (
                ("all", "*:admin"), ("writer", "*:write"), ("one", "notes:admin"),
                ("other", "other:read"),
            )
        }  # fmt: skip
        with Served(folder) as server:

            def asked(key: str) -> Client:
                return Client(server.target, api_key=keys[key])

            with asked("all") as client:
                notes = client.create_collection("notes", 2, schema={"text": "text"})
                notes.upsert([1], [[1, 1]], [{"text": TEXTS[0]}])
                for name in home.names():
                    client.models.upload(name, home.folder / name)
            with asked("one") as client:
                assert len(client.models.list()) == 2
                assert there(client, collection="notes")[1].passages == 1
                changes: list[Callable[[], Any]] = [
                    lambda: client.models.upload("new", home.folder / "small"),
                    lambda: client.models.delete("small"),
                    lambda: client.models.pair("large", "small", {}),
                    lambda: client.models.evaluate("large", "small", collection="notes"),
                ]
                for change in changes:
                    with pytest.raises(NotAllowed, match=r"for '\*'"):
                        change()
            with asked("other") as client:
                assert there(client)[0]
                for name in ("notes", "nothing"):
                    with pytest.raises(NotAllowed, match=f"scope read for '{name}'"):
                        there(client, collection=name)
            with asked("writer") as client:
                found = client.models.evaluate("large", "small", TEXTS[:1], length=4).wait()
                assert client.models.pairs()[0].metrics == found
                with pytest.raises(NotAllowed, match="scope admin"):
                    client.models.delete("small")
            server.stop()
            server.start()
            with asked("one") as client:
                assert [info.name for info in client.models.list()] == ["large", "small"]
                assert client.models.pairs()[0].metrics == found
                assert there(client)[0] == here(home)[0]


class TestOtherDoors:
    def test_rest_lists_pairs_writes_and_deletes(self, tmp_path: Path, home: Registry) -> None:
        """A text is a JSON object a line. What a crash left of an upload is gone."""
        shutil.copytree(home.folder.parent, tmp_path / "db")
        (tmp_path / "db/models/upload.0123.new").mkdir()
        with (
            Running(tmp_path / "db") as server,
            httpx.Client(base_url=server.url, timeout=60) as http,
        ):
            told = http.get("/v1/models").json()
            assert [model["name"] for model in told["models"]] == ["large", "small"]
            assert not (tmp_path / "db/models/upload.0123.new").exists()
            one = http.get("/v1/models/large").json()
            assert one["config"] == home.get("large").config
            assert one["metrics"] == {"loss": 1.5}
            pair = {"draft": "small", "metrics": {"alpha": 0.5}}
            assert http.post("/v1/models/large/pairs", json=pair).json()["draft"] == "small"
            assert http.get("/v1/models").json()["pairs"][0]["metrics"] == {"alpha": 0.5}
            body = {"prompt": PROMPT, "draft_model": "small", **ASKED}
            lines = http.post("/v1/models/large/generate", json=body).text.splitlines()
            *pieces, last = map(json.loads, lines)
            assert "".join(piece["piece"] for piece in pieces) == here(home)[0]
            assert last["written"]["tokens"] >= last["written"]["passes"] > 0
            for bad in ({"draft_passages": True}, {"gamma": 0}, {"seed": -1}, {"vector": [1]}):
                answer = http.post("/v1/models/large/generate", json=body | bad)
                assert answer.status_code == 400, answer.text
            assert http.post("/v1/models/none/generate", json=body).status_code == 404
            assert http.delete("/v1/models/small").status_code == 200
            assert http.get("/v1/models/small").status_code == 404

    def test_readers_pass_it_on(self, tmp_path: Path, home: Registry) -> None:
        """The writing process alone holds models."""
        shutil.copytree(home.folder.parent, tmp_path / "db")
        with Served(tmp_path / "db", "--readers", "1") as server:
            for _ in range(4):
                with Client(server.target) as client:
                    assert there(client, draft="small")[0] == here(home)[0]

    def test_the_command_line_asks_a_server(
        self, holding: Served, home: Registry, tmp_path: Path
    ) -> None:
        """As it asks a directory."""

        def asked(*arguments: Any) -> Any:
            command = ["models", *map(str, arguments)]
            return CliRunner().invoke(app, command, catch_exceptions=False).stdout

        target = holding.target
        base = home.folder.parent
        asked("upload", base, "small", target, "--as", "sent")
        assert [one["name"] for one in json.loads(asked("list", target, "--json"))["models"]] == [
            "large", "sent", "small",
        ]  # fmt: skip
        assert json.loads(asked("show", target, "sent", "--json"))["files"] == (
            home.get("small").files
        )
        (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:4]))
        options = ["--texts", tmp_path / "texts.txt", "--length", 8, "--prompt-tokens", 4]
        found = [
            json.loads(asked("evaluate", place, "large", "small", *options, "--json"))
            for place in (target, base)
        ]
        assert found[0]["alpha"] == pytest.approx(found[1]["alpha"])
        options = ["--temperature", 0, "--longest", 24, "--gamma", 3, "--draft", "small"]
        assert asked("generate", target, "large", PROMPT, *options).strip() == (
            asked("generate", base, "large", PROMPT, *options).strip()
        )
        told = asked("generate", target, "large", PROMPT, "--collection", "notes", "--json")
        assert json.loads(told)["passages"] == 3
        asked("remove", target, "sent")
        assert "sent" not in asked("list", target)
        with pytest.raises(InvalidArgument, match="grpc://HOST:PORT"):
            asked("list", "http://x")


class TestWithoutPyTorch:
    def test_a_server_starts_without_loading_it(self) -> None:
        """It costs seconds and hundreds of megabytes, for those who want vectors."""
        script = (
            "import sys, soardb_service.server\n"
            "print([m for m in ('torch', 'safetensors', 'transformers') if m in sys.modules])"
        )
        assert _printed(script) == "[]"

    def test_one_that_has_none_says_how_to_have_it(self, tmp_path: Path) -> None:
        """To every method, as Unavailable; all else is served."""
        script = (
            "import sys; sys.modules['torch'] = None\n"
            "from pathlib import Path\n"
            "from soardb.errors import Unavailable\n"
            "from soardb_service.models import Models\n"
            "models = Models(None, None, None, Path('.'), max_bytes=1, loaded=2)\n"
            "try: models.List(None, None)\n"
            "except Unavailable as error: print(error)"
        )
        assert "pip install 'soardb[models]'" in _printed(script)


def _printed(script: str) -> str:
    run = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()[-1]


class TestShelf:
    def test_the_one_that_was_used_last_goes_last(self, home: Registry, tmp_path: Path) -> None:
        """And one of the same name that came later is another model."""
        shutil.copytree(home.folder, tmp_path / "models")
        registry = Registry(tmp_path)
        shutil.copytree(registry.folder / "small", registry.folder / "third")
        shelf = Shelf(registry, 2)
        with shelf.lent("large", "small") as (large, small):
            assert (large.entry.name, small.entry.name) == ("large", "small")
        with shelf.lent("large") as (again,):
            assert again is large
        with shelf.lent("third"):
            assert shelf.names == ["large", "third"]
        shutil.rmtree(registry.folder / "large")
        shutil.copytree(registry.folder / "small", registry.folder / "large")
        with shelf.lent("large", "large") as (new, same):
            assert new is same
            assert new is not large
            assert new.entry.files == small.entry.files
        shelf.forget("large")
        assert shelf.names == ["third"]
        with pytest.raises(NotFound, match="'none'"), shelf.lent("third", "none"):
            pass

    def test_nobody_shares_a_network(self, home: Registry) -> None:
        """Who waits for one can be told to stop; what failed is free again."""
        shelf = Shelf(home, 2)
        with shelf.lent("large"):
            with deadline.within(0.05), pytest.raises(TimedOut), shelf.lent("small", "large"):
                pass
            with shelf.lent("small"):
                assert sorted(shelf.names) == ["large", "small"]
        with pytest.raises(ZeroDivisionError), shelf.lent("large"):
            raise ZeroDivisionError
        with shelf.lent("large"):
            pass


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Get", "GetModel"), ("Delete", "DeleteModel"), ("Pair", "PairModels"),
        ("Evaluate", "EvaluateModels"), ("Generate", "Generate"),
    ],
)  # fmt: skip
def test_a_message_that_names_no_model_is_refused(holding: Served, method: str, kind: str) -> None:
    """Which no client would send."""
    request, path = getattr(pb, f"{kind}Request")(), f"/soardb.v1.Models/{method}"
    with Client(holding.target) as client, pytest.raises(InvalidArgument, match="name of a model"):
        list(client._wire.parts(Call(path, request, pb.Model)))


def test_a_call_that_was_left_is_told_so_in_no_traceback(holding: Served) -> None:
    """After all tests of this file: nothing was a mistake of the server's own."""
    assert "Traceback" not in holding.log()
    assert "internal error" not in holding.log()
