"""What a stranger may bring as a model, and what is refused before it counts.

-> [test_incoming.py] -> models/incoming.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.incoming import check_hugging, checked, floats_of

CONFIG = DecoderConfig(300, 32, 2, 4, key_heads=2, context=48)
COUNT = floats_of(CONFIG)
KINDS = ("decoder", "llama")
MOST = 10**6


def manifest(**change: Any) -> dict[str, Any]:
    """Of a decoder, good but for what is changed."""
    return {
        "name": "bird",
        "architecture": "decoder",
        "config": CONFIG.to_json(),
        "parameters": COUNT,
        "files": {
            "weights.safetensors": {"bytes": 4 * COUNT + 80, "sha256": "0" * 64},
            "tokenizer.json": {"bytes": 100, "sha256": "0" * 64},
        },
    } | change


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        DecoderConfig(300, 64, 1, 2, hidden=48, mixer="relu"),
        DecoderConfig(257, 32, 3, 2),
    ],
)
def test_weights_are_counted_without_making_them(config: DecoderConfig) -> None:
    """A configuration can ask for any amount of memory; its file cannot lie about its size."""
    assert floats_of(config) == sum(w.numel() for w in Decoder(config).parameters())


def test_a_good_manifest_is_taken() -> None:
    """What it does not say is empty."""
    told = checked(manifest(), KINDS, MOST)
    assert (told["metrics"], told["lineage"], told["parameters"]) == ({}, {}, COUNT)
    assert "name" not in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "x"}, "strange 'code'"),
        ({"config": []}, "strange 'config'"),
        ({"parameters": True}, "strange 'parameters'"),
        ({"architecture": "pickle"}, "architecture one of decoder, llama"),
        ({"metrics": {"loss": float("nan")}}, "metrics as numbers"),
        ({"metrics": {"loss": "1"}}, "metrics as numbers"),
        ({"files": {}}, r"tokenizer\.json and weights\.safetensors of a decoder, got none"),
        ({"config": CONFIG.to_json() | {"width": 16_384}}, "no weights of this configuration"),
        ({"config": CONFIG.to_json() | {"width": "32"}}, "width"),
        ({"config": CONFIG.to_json() | {"context": 10**6}}, "keys and values take at most"),
        ({"parameters": COUNT - 1}, "no weights of this configuration"),
        ({"lineage": {"end": 300}}, "a token as its end"),
    ],
)
def test_what_is_strange_is_named(change: dict[str, Any], message: str) -> None:
    """Types, sizes, numbers."""
    with pytest.raises(InvalidArgument, match=message):
        checked(manifest(**change), KINDS, MOST)
    with pytest.raises(InvalidArgument, match="manifest of a model"):
        checked([], KINDS, MOST)


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "/x.json",
        "a/b.json",
        ".x.json",
        "x.py",
        "x.bin",
        "manifest.json",
        "x\0.json",
        "adapter_config.json",
        "",
        "x.json\n",
        "x..json",
        "é.json",
        "x" * 500 + ".json",
    ],
)
def test_names_are_plain_names_of_known_kinds(name: str) -> None:
    """None of them is a path, or what a library would follow elsewhere."""
    files = manifest()["files"] | {name: {"bytes": 1, "sha256": ""}}
    with pytest.raises(InvalidArgument, match="plain names of model files"):
        checked(manifest(files=files), KINDS, MOST)


@pytest.mark.parametrize("told", [None, {"bytes": -1, "sha256": ""}, {"bytes": 1.5, "sha256": ""}])
def test_sizes_are_told_and_bounded(told: Any) -> None:
    """All files together."""
    files = manifest()["files"]
    with pytest.raises(InvalidArgument, match="bytes and sha256"):
        checked(manifest(files=files | {"x.json": told}), KINDS, MOST)
    with pytest.raises(InvalidArgument, match="at most 1,000 bytes"):
        checked(manifest(), KINDS, 1000)
    with pytest.raises(InvalidArgument, match=r"config\.json, tokenizer\.json and \*\.safetensors"):
        checked(manifest(architecture="llama"), KINDS, MOST)


class TestHuggingFace:
    FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")

    def check(self, folder: Path, **told: Any) -> None:
        """A folder whose JSON files are those told."""
        files = {"config.json": {"model_type": "llama"}, "tokenizer_config.json": {}}
        files |= {name.replace("__", "."): value for name, value in told.items()}
        for name, value in files.items():
            (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
        check_hugging(folder, [*self.FILES, *files], "llama")

    def test_plain_ones_are_taken(self, tmp_path: Path) -> None:
        """Files that came along may be named."""
        self.check(
            tmp_path,
            tokenizer_config__json={"tokenizer_file": "tokenizer.json", "vocab_file": None},
            model__index__json={"weight_map": {"a": "model.safetensors"}},
        )

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"config__json": {"model_type": "llama", "num_hidden_layers": 10**6}}, "at most 1024"),
            ({"config__json": "{"}, r"config\.json as JSON"),
            ({"config__json": "[" * 100_000}, r"config\.json as JSON"),
            ({"config__json": {"model_type": "gpt2"}}, "architecture llama"),
            ({"config__json": {"model_type": "llama", "auto_map": {}}}, "auto_map"),
            (
                {"config__json": {"model_type": "llama", "a": [{"attn_implementation": "x/y"}]}},
                "attn_implementation",
            ),
            ({"tokenizer_config__json": {"vocab_file": "/etc/passwd"}}, "vocab_file"),
            ({"model__index__json": {"weight_map": {"a": "../x.safetensors"}}}, "of the model"),
            ({"model__index__json": {"weight_map": {"a": ["x"]}}}, "of the model"),
            ({"model__index__json": []}, "of the model"),
        ],
    )
    def test_no_code_and_no_other_file_is_named(
        self, tmp_path: Path, told: dict[str, Any], message: str
    ) -> None:
        """Libraries would follow."""
        with pytest.raises(InvalidArgument, match=message):
            self.check(tmp_path, **told)
