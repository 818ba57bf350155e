"""The registry: models come back as they were, and what is damaged or strange is refused.

small.py -> [test_registry.py] -> models/registry.py, tokens.py, hugging.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.hugging import HuggingModel
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.models.session import generate
from soardb.models.tokens import Tokens
from soardb.pipelines.speculate import ModelDrafter, SpeculateConfig, decode
from tests.models.trained import llama

TEXTS = ["the small bird sang", "a large bird of the north", "the north wind sang a song"] * 5
TOKENS = Tokens.trained(TEXTS, 280)
CONFIG = DecoderConfig(len(TOKENS), 32, 2, 2, context=48)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With one decoder, "bird"."""
    made = Registry(tmp_path)
    made.add_decoder(
        "bird", Decoder(CONFIG, 3), TOKENS, metrics={"loss": 2.5}, lineage={"method": "ce"}
    )
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaMA with its tokenizer, as Hugging Face writes it."""
    return llama(tmp_path_factory.mktemp("llama"), TOKENS, room=64)


def written_gguf(path: Path) -> np.ndarray[Any, Any]:
    """A small LLaMA with the tokens of this file as GGUF; its embedding is returned."""
    gguf = pytest.importorskip("gguf")
    told = json.loads(TOKENS.to_json())["model"]
    width, hidden, heads, keys, size = 32, 64, 4, 2, 8
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(told["vocab"], key=told["vocab"].__getitem__))
    writer.add_token_types([1] * len(TOKENS))
    writer.add_token_merges([" ".join(merge) for merge in told["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {
        "token_embd": (len(TOKENS), width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.attn_q": (heads * size, width),
        "blk.0.attn_k": (keys * size, width),
        "blk.0.attn_v": (keys * size, width),
        "blk.0.attn_output": (width, heads * size),
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    weights = {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights["token_embd"]


class TestTokens:
    @pytest.mark.parametrize("text", ["the bird", "", " Überschall 漢字 \t\n", "a" * 500, "\x00"])
    def test_any_text_comes_back(self, text: str) -> None:
        """Byte by byte, where no merge was learned."""
        assert TOKENS.decode(TOKENS.encode(text)) == text

    def test_what_is_common_is_short_and_the_end_ends(self) -> None:
        """And JSON keeps it all."""
        assert len(TOKENS.encode("the small bird")) < 14
        assert TOKENS.decode([*TOKENS.encode("the"), TOKENS.end or 0, 5]) == "the"
        again = Tokens.of_json(TOKENS.to_json())
        assert again.encode("the small bird") == TOKENS.encode("the small bird")
        assert (len(again), again.end) == (len(TOKENS), 0)
        with pytest.raises(InvalidArgument, match="a tokenizer as JSON"):
            Tokens.of_json("{}")
        with pytest.raises(InvalidArgument, match="vocabulary"):
            Tokens.trained(TEXTS, 100)


class TestDecoders:
    def test_a_model_comes_back_as_it_was(self, registry: Registry) -> None:
        """Weights, tokens, and what is told of it."""
        found = registry.load("bird")
        first = Decoder(CONFIG, 3)
        for name, weight in first.state_dict().items():
            assert torch.equal(weight, found.network.state_dict()[name])
        assert found.entry.metrics == {"loss": 2.5}
        assert found.entry.lineage["method"] == "ce"
        assert found.entry.parameters == sum(w.numel() for w in first.parameters())
        assert found.tokens.encode("a bird") == TOKENS.encode("a bird")
        assert registry.names() == ["bird"]
        random = torch.Generator().manual_seed(0)
        said = list(generate(found.model, TOKENS.encode("the"), 5, Sampling(), random))
        assert len(said) == 5

    def test_metrics_are_added(self, registry: Registry) -> None:
        """Others stay."""
        registry.measured("bird", {"alpha": 0.5})
        assert registry.measured("bird", {"loss": 2.0}).metrics == {"loss": 2.0, "alpha": 0.5}
        registry.check("bird")

    @pytest.mark.parametrize("file", ["weights.safetensors", "tokenizer.json"])
    def test_a_damaged_file_is_named(self, registry: Registry, file: str) -> None:
        """One byte, a missing end, and none at all."""
        path = registry.folder / "bird" / file
        whole = path.read_bytes()
        for damage in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
            path.write_bytes(damage)
            with pytest.raises(CorruptStorage, match=file):
                registry.load("bird")
        path.unlink()
        with pytest.raises(CorruptStorage, match="not there"):
            registry.load("bird")

    def test_a_damaged_manifest_is_named(self, registry: Registry) -> None:
        """Whatever is wrong with it."""
        path = registry.folder / "bird" / "manifest.json"
        for text in ("{", "[]", '{"format": 9}', '{"format": 1, "entry": {"code": 1}}'):
            path.write_text(text)
            with pytest.raises(CorruptStorage, match=r"manifest\.json"):
                registry.get("bird")

    def test_names_are_names(self, registry: Registry) -> None:
        """New ones, and none that is a path."""
        with pytest.raises(AlreadyExists, match="'bird'"):
            registry.add_decoder("bird", Decoder(CONFIG), TOKENS)
        for bad in ("../bird", "a/b", "", ".hidden", "pairs.json", "x.new"):
            with pytest.raises(InvalidArgument, match="name"):
                registry.add_decoder(bad, Decoder(CONFIG), TOKENS)
        with pytest.raises(NotFound, match="there are bird"):
            registry.load("fish")
        assert registry.names() == ["bird"]

    def test_what_fails_leaves_nothing(self, tmp_path: Path) -> None:
        """Too large, or a vocabulary that is too small."""
        small = Registry(tmp_path, max_bytes=1000)
        with pytest.raises(InvalidArgument, match="at most 1,000 bytes"):
            small.add_decoder("bird", Decoder(CONFIG), TOKENS)
        with pytest.raises(InvalidArgument, match="at least 280 tokens"):
            small.add_decoder("bird", Decoder(DecoderConfig(100, 32, 1, 2)), TOKENS)
        assert list(small.folder.iterdir()) == []

    def test_a_model_is_removed_with_its_pairs(self, registry: Registry) -> None:
        """And its name is free again."""
        registry.add_decoder("egg", Decoder(CONFIG, 4), TOKENS)
        registry.pair("bird", "egg", {"alpha": 0.6})
        registry.remove("egg")
        assert (registry.names(), registry.pairs()) == (["bird"], [])
        registry.add_decoder("egg", Decoder(CONFIG, 5), TOKENS)


class TestPairs:
    def test_pairs_are_kept_by_target(self, registry: Registry) -> None:
        """Measured again, they are replaced."""
        registry.add_decoder("egg", Decoder(CONFIG, 4), TOKENS)
        registry.pair("bird", "egg", {"alpha": 0.5})
        registry.pair("bird", "egg", {"alpha": 0.6, "tau": 2.0})
        (pair,) = registry.pairs("bird")
        assert (pair.draft, pair.metrics) == ("egg", {"alpha": 0.6, "tau": 2.0})
        assert registry.pairs("egg") == []

    def test_both_must_read_the_same_tokens(self, registry: Registry) -> None:
        """And be there."""
        other = Tokens.trained(["something else entirely"] * 3, 270)
        registry.add_decoder("fish", Decoder(CONFIG), other)
        with pytest.raises(InvalidArgument, match="tokenizer of 'bird'"):
            registry.pair("bird", "fish", {})
        with pytest.raises(NotFound):
            registry.pair("bird", "egg", {})


class TestHuggingFace:
    def test_a_folder_is_registered_and_read(self, registry: Registry, folder: Path) -> None:
        """Its sessions say what its one pass says, after going back too."""
        entry = registry.add_hugging("llama", folder)
        assert entry.architecture == "llama"
        found = registry.load("llama")
        row = TOKENS.encode("the small bird of the north")
        assert found.tokens.encode("the small bird of the north") == row
        with torch.inference_mode():
            whole = found.network(input_ids=torch.tensor([row])).logits[0]
        session = found.model.session()
        session.read(row[:3])
        session.read([1, 1, 1])
        session.back_to(3)
        steps = torch.cat([session.read([t]) for t in row[3:]])
        assert torch.allclose(steps, whole[3:], atol=1e-5)
        assert session.length == len(row)
        with pytest.raises(InvalidArgument, match="at most 64"):
            session.read([1] * 64)

    def test_it_drafts_and_is_drafted_for(self, registry: Registry, folder: Path) -> None:
        """Greedy speculative decoding with a decoder of ours, both ways."""
        registry.add_hugging("llama", folder)
        llama, bird = registry.load("llama").model, registry.load("bird").model
        config, random = SpeculateConfig(3, 20, Sampling(0)), torch.Generator()
        prompt = TOKENS.encode("the bird")
        for target, draft in ((llama, bird), (bird, llama)):
            want = list(generate(target, prompt, 20, Sampling(0), random))
            assert decode(target, ModelDrafter(draft), prompt, config).tokens == want

    def test_merges_and_a_vocabulary_are_a_tokenizer_too(
        self, registry: Registry, folder: Path, tmp_path: Path
    ) -> None:
        """It is written as tokenizer.json, so that the model can be paired and uploaded."""
        bare = tmp_path / "bare"
        shutil.copytree(folder, bare)
        (bare / "tokenizer.json").unlink()
        TOKENS.tokenizer.model.save(str(bare))
        told = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<end>", "unk_token": "<end>"}
        (bare / "tokenizer_config.json").write_text(json.dumps(told))
        assert "tokenizer.json" in registry.add_hugging("llama", bare).files
        assert registry.load("llama").tokens.encode("the bird") == TOKENS.encode("the bird")
        assert registry.pair("llama", "bird", {"alpha": 0.5}).target == "llama"

    def test_a_gguf_file_is_unpacked(self, registry: Registry, tmp_path: Path) -> None:
        """To float32 weights and files of Hugging Face, which load as any others."""
        pytest.importorskip("transformers")
        embedding = written_gguf(tmp_path / "small.gguf")
        entry = registry.add_hugging("small", tmp_path / "small.gguf")
        assert entry.architecture == "llama"
        assert "model.safetensors" in entry.files
        assert "quantization_config" not in entry.config
        found = registry.load("small")
        weight = found.network.get_input_embeddings().weight
        assert torch.equal(weight, torch.from_numpy(embedding))
        assert found.tokens.decode(found.tokens.encode("the bird")) == "the bird"
        assert found.model.session().read([1, 2]).isfinite().all()

    def test_code_and_unknown_architectures_are_refused(
        self, registry: Registry, folder: Path, tmp_path: Path
    ) -> None:
        """So are weights that are pickled, and folders that are none."""
        for change, message in (
            ({"model_type": "unheard"}, "architecture among"),
            ({"auto_map": {"AutoModel": "code.Model"}}, "without code of its own"),
        ):
            where = tmp_path / "strange"
            shutil.copytree(folder, where)
            told = json.loads((where / "config.json").read_text()) | change
            (where / "config.json").write_text(json.dumps(told))
            with pytest.raises(InvalidArgument, match=message):
                registry.add_hugging("strange", where)
            shutil.rmtree(where)
        shutil.copytree(folder, where)
        (where / "model.safetensors").rename(where / "pytorch_model.bin")
        with pytest.raises(InvalidArgument, match=r"expected \*\.safetensors"):
            registry.add_hugging("strange", where)
        with pytest.raises(NotFound, match=r"config\.json or a GGUF file"):
            registry.add_hugging("strange", tmp_path / "nowhere")
        assert registry.names() == ["bird"]

    @pytest.mark.parametrize("change", [{"vocab_size": 10**9}, {"intermediate_size": 10**10}])
    def test_an_upload_takes_no_more_memory_than_it_brings(
        self, registry: Registry, folder: Path, tmp_path: Path, change: dict[str, int]
    ) -> None:
        """A configuration of terabytes is refused before one number of it is made."""
        config = json.loads((folder / "config.json").read_text())

        count = registry.add_hugging("first", folder).parameters

        def upload(told: dict[str, Any], parameters: int = count) -> None:
            files = tmp_path / "files"
            shutil.rmtree(files, ignore_errors=True)
            shutil.copytree(folder, files)
            (files / "config.json").write_text(json.dumps(told))
            sizes = {
                one.name: {
                    "bytes": one.stat().st_size,
                    "sha256": hashlib.sha256(one.read_bytes()).hexdigest(),
                }
                for one in files.iterdir()
            }
            manifest: dict[str, Any] = {"architecture": "llama", "config": told, "files": sizes}
            manifest["parameters"] = parameters
            registry.add_files("llama", manifest, files)

        with pytest.raises(InvalidArgument, match="numbers of the configuration"):
            upload(config | change)
        with pytest.raises(InvalidArgument, match=f"expected {count:,} parameters, got 1"):
            upload(config, 1)
        assert registry.names() == ["bird", "first"]
        upload(config)
        assert registry.get("llama").parameters == count

    def test_an_upload_is_checked_before_it_counts(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """Files that differ from the manifest, paths, unknown architectures."""
        entry = registry.get("bird").to_json()

        def upload(change: dict[str, Any]) -> None:
            files = tmp_path / "upload"
            shutil.rmtree(files, ignore_errors=True)
            shutil.copytree(registry.folder / "bird", files)
            registry.add_files("again", entry | change, files)

        upload({})
        assert torch.equal(
            registry.load("again").network.embedding.weight,
            registry.load("bird").network.embedding.weight,
        )
        registry.remove("again")
        one = entry["files"]["weights.safetensors"]
        wrong = {**entry["files"], "weights.safetensors": one | {"sha256": "0"}}
        less = {**entry["files"], "weights.safetensors": one | {"bytes": 1}}
        outside = {**entry["files"], "../x.json": {"bytes": 1, "sha256": "0"}}
        for change, message in (
            ({"files": wrong}, r"weights\.safetensors as the manifest"),
            ({"files": less}, "no weights of this configuration"),
            ({"files": outside}, "plain names"),
            ({"architecture": "pickle"}, "architecture one of"),
            ({"code": 1}, "the manifest of a model"),
            ({"config": entry["config"] | {"layers": 3}}, "no weights of this configuration"),
        ):
            with pytest.raises((InvalidArgument, CorruptStorage), match=message):
                upload(change)
            assert registry.names() == ["bird"]


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Without a folder of models too."""
    assert Registry(tmp_path).names() == []
    with pytest.raises(NotFound, match="there are none"):
        Registry(tmp_path).get("bird")
    with pytest.raises(NotFound, match=r"config\.json"):
        HuggingModel.of_folder(tmp_path)
    with pytest.raises(NotFound, match="GGUF"):
        HuggingModel.of_gguf(tmp_path / "x.gguf")
