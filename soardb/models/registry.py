"""The registry: models in a database directory, as data, and which drafts suit which targets.

    DIR/models/<name>/     manifest.json, weights.safetensors, tokenizer.json; for a model of
                           Hugging Face its config.json, *.safetensors and tokenizer files
    DIR/models/pairs.json  measured pairs of target and draft

    pipelines, cli, service -> [registry.py] -> decoder.py, t5.py, hugging.py, tokens.py,
                                                incoming.py

Weights are data: safetensors alone are read, architectures come from a closed list, and nothing in
a folder is executed. Every file has its size and SHA-256 in the manifest, and what fails them is
not used. A model is written beside its place and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound, SoarError
from soardb.models import incoming
from soardb.models.config import DecoderConfig, EncoderConfig, T5Config
from soardb.models.decoder import Decoder
from soardb.models.encoder import Encoder
from soardb.models.hugging import HuggingModel
from soardb.models.info import ModelInfo, ModelPair
from soardb.models.llama import as_decoder
from soardb.models.session import DecoderModel, Model, Session
from soardb.models.t5 import T5
from soardb.models.tokens import Tokens
from soardb.storage.catalog import as_name
from soardb.storage.format import sync_folder

__all__ = ["HUGGING", "MAX_BYTES", "Loaded", "Registry"]

MAX_BYTES = 8 * 2**30
"""Of the files of a model, unless told otherwise."""

HUGGING = (
    "gemma2", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3",
)  # fmt: skip
"""Architectures of Hugging Face that are loaded, by their model_type."""

_OURS = ("decoder", "t5", "encoder")  # architectures of this package
_FORMAT = 1
_MANIFEST, _WEIGHTS, _TOKENIZER, _PAIRS = (
    "manifest.json",
    "weights.safetensors",
    "tokenizer.json",
    "pairs.json",
)
_COPIED = (".safetensors", ".json", ".txt", ".model", ".jinja")  # of a Hugging Face folder


@dataclass(frozen=True, slots=True)
class Loaded:
    """model makes sessions; network is its PyTorch module; tokens its tokenizer.

    A T5 and an encoder write no text: their model has no sessions.
    """

    entry: ModelInfo
    model: Model
    network: Any
    tokens: Tokens

    @property
    def decoder(self) -> Decoder:
        """Itself, or a LLaMA of Hugging Face, whose weights are shared.

        Errors: InvalidArgument for what a Decoder cannot be, naming what differs.
        """
        if isinstance(self.network, Decoder):
            return self.network
        if isinstance(self.model, _Reader):
            raise self.model.refused()
        return as_decoder(self.network)

    @property
    def t5(self) -> T5:
        """Itself. Errors: InvalidArgument for another architecture."""
        if isinstance(self.network, T5):
            return self.network
        raise InvalidArgument(f"expected a t5, {_architecture(self.entry)}")

    @property
    def encoder(self) -> Encoder:
        """Itself, or that of a T5. Errors: InvalidArgument for another architecture."""
        if isinstance(self.network, T5):
            return self.network.encoder
        if isinstance(self.network, Encoder):
            return self.network
        raise InvalidArgument(f"expected an encoder or a t5, {_architecture(self.entry)}")


@dataclass(frozen=True, slots=True)
class _Reader:
    """The Model of what reads and does not write on."""

    entry: ModelInfo
    vocabulary: int

    def session(self) -> Session:
        """InvalidArgument."""
        raise self.refused()

    def refused(self) -> InvalidArgument:
        return InvalidArgument(f"expected a model that writes on, {_architecture(self.entry)}")


class Registry:
    """The models of one database directory. One process writes, as to the database itself."""

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> None:
        self.folder = Path(directory) / "models"
        self.max_bytes = max_bytes

    # --- what there is --------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Of all models, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(
            one.name for one in self.folder.iterdir() if (one / _MANIFEST).is_file()
            and not one.name.endswith(".new")
        )  # fmt: skip

    def get(self, name: str) -> ModelInfo:
        """Errors: NotFound, CorruptStorage."""
        path = self.folder / as_name(name, "model") / _MANIFEST
        if not path.is_file():
            known = ", ".join(self.names()) or "none"
            raise NotFound(f"expected a model named {name!r}, there are {known}")
        told = _read_json(path)
        if told.get("format") != _FORMAT:
            raise CorruptStorage(f"{path}: format {told.get('format')!r}, this reads {_FORMAT}")
        try:
            return ModelInfo(**told["entry"])
        except TypeError as error:
            raise CorruptStorage(f"{path}: {error}") from error

    def check(self, name: str) -> ModelInfo:
        """The entry, once every file has been compared with its size and SHA-256.

        Errors: CorruptStorage, naming the file.
        """
        entry = self.get(name)
        for file, told in entry.files.items():
            path = self.folder / name / file
            if not path.is_file():
                raise CorruptStorage(f"{path}: the manifest names it, and it is not there")
            if _told_of(path) != told:
                raise CorruptStorage(f"{path}: its size or SHA-256 is not that of the manifest")
        return entry

    def load(self, name: str) -> Loaded:
        """The model, ready to read; its files are checked first. Errors: as check()."""
        return self._loaded(self.check(name), self.folder / name)

    def _loaded(self, entry: ModelInfo, folder: Path) -> Loaded:
        if entry.architecture in _OURS:
            text = (folder / _TOKENIZER).read_text("utf-8")
            tokens = Tokens.of_json(text, entry.lineage.get("end", 0))
            network = _made(entry)
            _fill(network, folder / _WEIGHTS)
            if isinstance(network, Decoder):
                return Loaded(entry, DecoderModel(network), network, tokens)
            return Loaded(entry, _Reader(entry, _vocabulary(network)), network, tokens)
        _expect_known(entry.config)
        found = HuggingModel.of_folder(folder)
        return Loaded(entry, found, found.network, found.tokens)

    # --- changes --------------------------------------------------------------------------------

    def add_decoder(
        self,
        name: str,
        decoder: Decoder,
        tokens: Tokens,
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> ModelInfo:
        """Keep a decoder and its tokenizer. Errors: AlreadyExists, InvalidArgument if too large."""
        return self._keep(name, "decoder", decoder, tokens, metrics, lineage)

    def add_t5(
        self,
        name: str,
        t5: T5,
        tokens: Tokens,
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> ModelInfo:
        """Keep an encoder-decoder and its tokenizer. Errors: as add_decoder()."""
        return self._keep(name, "t5", t5, tokens, metrics, lineage)

    def add_encoder(
        self,
        name: str,
        encoder: Encoder,
        tokens: Tokens,
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> ModelInfo:
        """Keep an encoder and its tokenizer. Errors: as add_decoder()."""
        return self._keep(name, "encoder", encoder, tokens, metrics, lineage)

    def _keep(
        self,
        name: str,
        architecture: str,
        network: Decoder | T5 | Encoder,
        tokens: Tokens,
        metrics: Mapping[str, float] | None,
        lineage: Mapping[str, Any] | None,
    ) -> ModelInfo:
        """One of _OURS, as files of its own."""
        if len(tokens) > _vocabulary(network):
            raise InvalidArgument(
                f"expected a vocabulary of at least {len(tokens)} tokens, got "
                f"{_vocabulary(network)}"
            )
        told = {**(lineage or {}), "end": tokens.end}
        with self._making(name) as folder:
            safetensors.torch.save_file(network.state_dict(), folder / _WEIGHTS)
            (folder / _TOKENIZER).write_text(tokens.to_json(), "utf-8")
            count = sum(weight.numel() for weight in network.parameters())
            config = network.config.to_json()
            return self._seal(folder, name, architecture, config, count, metrics, told)

    def add_hugging(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> ModelInfo:
        """Copy a causal model of Hugging Face from a folder, or unpack one from a GGUF file.

        Only safetensors, JSON and tokenizer files are taken; of GGUF the weights become float32.
        The model is loaded once, to see that it can be. Errors: NotFound, InvalidArgument for an
        architecture that is not in HUGGING, AlreadyExists.
        """
        path = Path(source)
        with self._making(name) as folder:
            if path.is_file():
                found = HuggingModel.of_gguf(path)
                found.network.save_pretrained(folder, safe_serialization=True)
                found.tokenizer.save_pretrained(folder)
            else:
                _copy(path, folder, self.max_bytes)
            config = _read_json(folder / "config.json")
            _expect_known(config)
            found = HuggingModel.of_folder(folder)
            if not (folder / _TOKENIZER).exists():  # where the folder had merges and a vocabulary
                (folder / _TOKENIZER).write_text(found.tokens.to_json(), "utf-8")
            count = sum(weight.numel() for weight in found.network.parameters())
            kind = str(config["model_type"])
            return self._seal(folder, name, kind, config, count, metrics, dict(lineage or {}))

    def expected(self, name: str, manifest: Mapping[str, Any]) -> ModelInfo:
        """What an upload announces, before anything of it has come.

        manifest  an ModelInfo as JSON; its name is replaced. Errors: InvalidArgument, AlreadyExists
        """
        told = incoming.checked(manifest, ("decoder", *HUGGING), self.max_bytes)
        entry = ModelInfo(**{**told, "name": as_name(name, "model")})
        self.expect_free(name)
        return entry

    def add_files(self, name: str, manifest: Mapping[str, Any], files: Path) -> ModelInfo:
        """Take over an uploaded folder, once its files are those of the manifest, and load.

        manifest  as in expected()
        files     a folder with what it names; moved. Errors: InvalidArgument, AlreadyExists
        """
        entry = self.expected(name, manifest)
        with self._making(name) as folder:
            for file, told in entry.files.items():
                if not (files / file).is_file() or _told_of(files / file) != told:
                    raise InvalidArgument(f"expected {file} as the manifest tells of it, it is not")
                shutil.move(files / file, folder / file)
            if entry.architecture != "decoder":
                incoming.check_hugging(folder, entry.files, entry.architecture)
                if _read_json(folder / "config.json") != entry.config:
                    raise InvalidArgument("expected config.json as the manifest has it, it is not")
            sealed = self._seal(
                folder, name, entry.architecture, entry.config, entry.parameters, entry.metrics,
                entry.lineage,
            )  # fmt: skip
            self._expect_good(sealed, folder)
        return sealed

    def _expect_good(self, entry: ModelInfo, folder: Path) -> None:
        """InvalidArgument for what was uploaded and cannot be loaded, or has too many tokens."""
        try:
            if entry.architecture != "decoder":
                _expect_size(entry, HuggingModel.numbers_of(folder))
            found = self._loaded(entry, folder)
            said = found.model.session().read([0])
        except CorruptStorage as error:
            raise InvalidArgument(str(error)) from error
        except SoarError:
            raise
        except Exception as error:  # of the libraries, about what they were given
            raise InvalidArgument(
                f"expected a model that can be loaded, got {type(error).__name__}: {error}"
            ) from error
        count = sum(weight.numel() for weight in found.network.parameters())
        if count != entry.parameters:
            raise InvalidArgument(f"expected {count:,} parameters, got {entry.parameters:,}")
        if not bool(said.isfinite().all()):
            raise InvalidArgument("expected weights that are numbers, got some that are not")
        most = max(found.tokens.tokenizer.get_vocab().values(), default=0)
        if most >= found.model.vocabulary:
            raise InvalidArgument(
                f"expected tokens below {found.model.vocabulary}, which the model has, the "
                f"tokenizer has {most}"
            )

    @contextlib.contextmanager
    def arriving(self) -> Iterator[Path]:
        """A folder for the files of an upload, beside the models; gone after the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f"upload.{secrets.token_hex(8)}.new"
        scratch.mkdir(mode=0o700)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch)

    def clear_arrivals(self) -> None:
        """Delete what uploads left that a crash ended. For the process that takes uploads."""
        for left in self.folder.glob("upload.*.new"):
            shutil.rmtree(left)

    def measured(self, name: str, metrics: Mapping[str, float]) -> ModelInfo:
        """Add metrics to a model, those of the same name replaced."""
        entry = self.get(name)
        told = {**asdict(entry), "metrics": {**entry.metrics, **metrics}}
        _write_json(self.folder / name / _MANIFEST, {"format": _FORMAT, "entry": told})
        return self.get(name)

    def remove(self, name: str) -> None:
        """Delete a model and its pairs. Errors: NotFound."""
        self.get(name)
        gone = self.folder / f"{name}.{secrets.token_hex(4)}.new"
        (self.folder / name).rename(gone)
        shutil.rmtree(gone)
        kept = [pair for pair in self.pairs() if name not in (pair.target, pair.draft)]
        self._write_pairs(kept)

    # --- pairs ----------------------------------------------------------------------------------

    def pairs(self, target: str | None = None) -> list[ModelPair]:
        """All pairs, or those of a target."""
        path = self.folder / _PAIRS
        if not path.is_file():
            return []
        try:
            found = [ModelPair(**one) for one in _read_json(path)["pairs"]]
        except (TypeError, KeyError) as error:
            raise CorruptStorage(f"{path}: {error}") from error
        return [pair for pair in found if target in (None, pair.target)]

    def pair(self, target: str, draft: str, metrics: Mapping[str, float]) -> ModelPair:
        """Keep what was measured of a draft with a target. Errors: NotFound, InvalidArgument.

        Both must read the same tokens.
        """
        for name in (target, draft):
            entry = self.get(name)
            if entry.architecture in _OURS[1:]:
                raise InvalidArgument(f"expected models that write on, {_architecture(entry)}")
        texts = [self._tokenizer_of(name) for name in (target, draft)]
        if texts[0] != texts[1]:
            raise InvalidArgument(f"expected {draft!r} with the tokenizer of {target!r}")
        made = ModelPair(target, draft, dict(metrics))
        rest = [p for p in self.pairs() if (p.target, p.draft) != (target, draft)]
        self._write_pairs([*rest, made])
        return made

    def _tokenizer_of(self, name: str) -> str:
        self.get(name)
        told = json.loads((self.folder / name / _TOKENIZER).read_text("utf-8"))
        return json.dumps(told["model"]["vocab"], sort_keys=True)

    def _write_pairs(self, pairs: list[ModelPair]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_json(
            self.folder / _PAIRS, {"format": _FORMAT, "pairs": [p.to_json() for p in pairs]}
        )

    # --- how ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _making(self, name: str) -> Iterator[Path]:
        """A folder that becomes the model's, or is gone."""
        final = self.folder / as_name(name, "model")
        self.expect_free(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f"{name}.{secrets.token_hex(4)}.new"
        scratch.mkdir()
        try:
            yield scratch
            scratch.rename(final)
            sync_folder(self.folder)
        finally:
            if scratch.exists():
                shutil.rmtree(scratch)

    def expect_free(self, name: str) -> None:
        """InvalidArgument or AlreadyExists where no model can be made under the name."""
        if name == _PAIRS or name.endswith(".new"):
            raise InvalidArgument(f"expected another name for a model than {name!r}")
        if (self.folder / name).exists():
            raise AlreadyExists(f"expected a new name, there is a model named {name!r}")

    def _seal(
        self,
        folder: Path,
        name: str,
        architecture: str,
        config: Mapping[str, Any],
        parameters: int,
        metrics: Mapping[str, float] | None,
        lineage: Mapping[str, Any],
    ) -> ModelInfo:
        files = {one.name: _told_of(one) for one in sorted(folder.iterdir())}
        entry = ModelInfo(
            name, architecture, dict(config), parameters, dict(metrics or {}), dict(lineage), files,
            time.time(),
        )  # fmt: skip
        if entry.size > self.max_bytes:
            raise InvalidArgument(
                f"expected at most {self.max_bytes:,} bytes of a model, got {entry.size:,}"
            )
        for one in folder.iterdir():
            _sync(one)
        _write_json(folder / _MANIFEST, {"format": _FORMAT, "entry": entry.to_json()})
        return entry


def _architecture(entry: ModelInfo) -> str:
    return f"{entry.name} has the architecture {entry.architecture}"


def _made(entry: ModelInfo) -> Decoder | T5 | Encoder:
    """One of _OURS, with weights of no training."""
    if entry.architecture == "decoder":
        return Decoder(DecoderConfig.of_json(entry.config))
    if entry.architecture == "t5":
        return T5(T5Config.of_json(entry.config))
    return Encoder(EncoderConfig.of_json(entry.config))


def _vocabulary(network: Decoder | T5 | Encoder) -> int:
    """Tokens of a text that it knows."""
    if isinstance(network, Decoder):
        return network.config.vocabulary
    return (network.config.encoder if isinstance(network, T5) else network.config).text_tokens


def _fill(network: Decoder | T5 | Encoder, path: Path) -> None:
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise CorruptStorage(f"{path}: no weights of this configuration: {error}") from error
    network.eval()


def _expect_known(config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in HUGGING or "auto_map" in config:
        raise InvalidArgument(
            f"expected an architecture among {', '.join(HUGGING)}, without code of its own, got "
            f"{kind!r}"
        )


def _expect_size(entry: ModelInfo, numbers: int) -> None:
    """Refuse a configuration that takes more than the weights that came with it."""
    size = sum(int(one["bytes"]) for n, one in entry.files.items() if n.endswith(".safetensors"))
    if numbers > size:  # a weight has a byte at least, and usually two or four
        raise InvalidArgument(
            f"expected weights for the {numbers:,} numbers of the configuration, got {size:,} bytes"
        )


def _copy(source: Path, folder: Path, most: int) -> None:
    if not (source / "config.json").is_file():
        raise NotFound(f"expected a folder with config.json or a GGUF file at {source}")
    taken = [p for p in source.iterdir() if p.is_file() and p.name.endswith(_COPIED)]
    if not any(p.suffix == ".safetensors" for p in taken):
        raise InvalidArgument(f"expected *.safetensors in {source}; other weights are not read")
    if (size := sum(p.stat().st_size for p in taken)) > most:
        raise InvalidArgument(f"expected at most {most:,} bytes of a model, got {size:,}")
    for path in taken:
        shutil.copyfile(path, folder / path.name)


def _told_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": found}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise CorruptStorage(f"{path}: {error}") from error
    if not isinstance(told, dict):
        raise CorruptStorage(f"{path}: expected an object")
    return told


def _write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    scratch.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    _sync(scratch)
    scratch.replace(path)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
