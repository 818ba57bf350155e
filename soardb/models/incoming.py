"""What a stranger may bring as a model: looked at before a byte of it counts.

    registry.py, a server's uploads -> [incoming.py] -> config.py

A manifest is plain values of known kinds. Files have plain names. What the JSON files of Hugging
Face say is followed by the libraries that load them, so they may name no code, and no file but
those that came along. A model is not made before the weights are there that it takes, as a small
manifest could ask for any amount of memory.

Nothing here imports PyTorch, or opens what is not named in the manifest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.schema import shown

__all__ = ["check_hugging", "checked", "floats_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,63}){1,4}", re.ASCII)
_ENDINGS = (".safetensors", ".json", ".txt", ".model", ".jinja")
_DECODER = {"weights.safetensors", "tokenizer.json"}
_HUGGING = {"config.json", "tokenizer.json"}
_KINDS: dict[str, type] = {
    "architecture": str,
    "config": dict,
    "parameters": int,
    "metrics": dict,
    "lineage": dict,
    "files": dict,
}
_SELDOM = {"name", "created"}  # of a ModelInfo, and not taken from one who uploads
_CODE = {
    "auto_map", "attn_implementation", "_attn_implementation", "experts_implementation",
    "_experts_implementation", "quantization_config", "custom_pipelines", "custom_generate",
}  # fmt: skip
"""Members of Hugging Face's files by which code of somebody is found and run."""

_FLOAT = 4  # bytes
_MOST_LAYERS = 1024  # each costs time before its size is known


def checked(manifest: Any, architectures: Collection[str], most: int) -> dict[str, Any]:
    """The arguments of a ModelInfo but for its name; of files of at most `most` bytes in all.

    Errors: InvalidArgument, naming what is wrong.
    """
    if not isinstance(manifest, Mapping):
        raise InvalidArgument(f"expected the manifest of a model, got {shown(manifest)}")
    told = {name: manifest.get(name, kind()) for name, kind in _KINDS.items()}
    unknown = set(manifest) - set(_KINDS) - _SELDOM
    wrong = [n for n, kind in _KINDS.items() if type(told[n]) is not kind]
    if unknown or wrong:
        what = ", ".join(map(repr, sorted(unknown) or wrong))
        raise InvalidArgument(f"expected the manifest of a model, got one with a strange {what}")
    if told["architecture"] not in architectures:
        raise InvalidArgument(
            f"expected architecture one of {', '.join(architectures)}, got "
            f"{shown(told['architecture'])}"
        )
    for name, value in told["metrics"].items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InvalidArgument(f"expected metrics as numbers, got {name} {shown(value)}")
    _check_files(told["files"], told["architecture"] == "decoder", most)
    if told["architecture"] == "decoder":
        _check_decoder(told, most)
    return told


def _check_files(files: dict[str, Any], is_decoder: bool, most: int) -> None:
    total = 0
    for name, one in files.items():
        is_plain = _NAME.fullmatch(name) is not None and name.endswith(_ENDINGS)
        if not is_plain or name == "manifest.json" or name.startswith("adapter"):
            raise InvalidArgument(f"expected plain names of model files, got {shown(name)}")
        is_told = isinstance(one, dict) and set(one) == {"bytes", "sha256"}
        if not is_told or type(one["bytes"]) is not int or one["bytes"] < 0:
            raise InvalidArgument(f"expected bytes and sha256 of {name}, got {shown(one)}")
        total += one["bytes"]
    if total > most:
        raise InvalidArgument(f"expected at most {most:,} bytes of a model, got {total:,}")
    if is_decoder and set(files) != _DECODER:
        raise InvalidArgument(
            f"expected the files {' and '.join(sorted(_DECODER))} of a decoder, got "
            f"{', '.join(files) or 'none'}"
        )
    if not is_decoder and not (
        set(files) >= _HUGGING and any(name.endswith(".safetensors") for name in files)
    ):
        raise InvalidArgument(
            f"expected config.json, tokenizer.json and *.safetensors, got "
            f"{', '.join(files) or 'none'}"
        )


def _check_decoder(told: dict[str, Any], most: int) -> None:
    """The weights are those of the configuration, and what it keeps of a context fits in `most`."""
    config = DecoderConfig.of_json(told["config"])
    count = floats_of(config)
    if (
        told["parameters"] != count
        or told["files"]["weights.safetensors"]["bytes"] < _FLOAT * count
    ):
        raise InvalidArgument(
            f"no weights of this configuration: expected {count:,} float32, got "
            f"{told['parameters']:,} in {told['files']['weights.safetensors']['bytes']:,} bytes"
        )
    size = config.width // config.heads
    kept = _FLOAT * 2 * config.layers * config.keys * size * config.context
    if kept > most:
        raise InvalidArgument(
            f"expected a context whose keys and values take at most {most:,} bytes, got {kept:,}"
        )
    end = told["lineage"].get("end", 0)
    if end is not None and (type(end) is not int or not 0 <= end < config.vocabulary):
        raise InvalidArgument(f"expected lineage with a token as its end, got {shown(end)}")


def floats_of(config: DecoderConfig) -> int:
    """How many numbers the weights of a Decoder are."""
    size = config.width // config.heads
    attention = 2 * config.width * size * (config.heads + config.keys)
    mixer = config.width * config.units * (3 if config.mixer == "swiglu" else 2)
    layer = attention + mixer + 2 * config.width
    return config.vocabulary * config.width + config.layers * layer + config.width


def check_hugging(folder: Path, files: Collection[str], architecture: str) -> None:
    """Refuse JSON files that name code, or files that did not come along.

    Errors: InvalidArgument, naming the file.
    """
    for name in files:
        if not name.endswith(".json") or name == "tokenizer.json":  # which tokenizers alone reads
            continue
        told = _json_of(folder / name)
        if name == "config.json" and (
            not isinstance(told, dict) or told.get("model_type") != architecture
        ):
            raise InvalidArgument(f"expected {name} of architecture {architecture}, it is not")
        if name.endswith(".index.json"):
            _check_index(name, told, files)
        elif name.endswith(("config.json", "tokens_map.json")):
            _check_members(name, told, files)


def _check_index(name: str, told: Any, files: Collection[str]) -> None:
    shards = told.get("weight_map") if isinstance(told, dict) else None
    if not isinstance(shards, dict) or not all(
        isinstance(shard, str) and shard in files for shard in shards.values()
    ):
        raise InvalidArgument(f"expected {name} to name files of the model alone")


def _check_members(name: str, told: Any, files: Collection[str]) -> None:
    for member, value in _members(told):
        if "layers" in member and type(value) is int and value > _MOST_LAYERS:
            raise InvalidArgument(
                f"expected {name} with at most {_MOST_LAYERS} layers, got {value}"
            )
        if member in _CODE and value is not None:
            raise InvalidArgument(f"expected {name} without code of its own, got {member}")
        is_file = member.endswith(("_file", "_files")) and value not in (None, [], {})
        if is_file and not (isinstance(value, str) and value in files):
            raise InvalidArgument(f"expected {name} to name files of the model alone, see {member}")


def _members(told: Any) -> Iterator[tuple[str, Any]]:
    """Every member at any depth."""
    waiting = [told]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"expected {path.name} as JSON: {error}") from None
