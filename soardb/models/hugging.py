"""Causal models of Hugging Face: from a local folder or a GGUF file, as sessions.

    transformers -> [hugging.py] -> session.py's face

Nothing is fetched and no code of a model is run: only architectures that transformers itself holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soardb.errors import InvalidArgument, NotFound, Unavailable
from soardb.models.tokens import Tokens

__all__ = ["HuggingModel", "HuggingSession", "need_transformers"]


def need_transformers() -> Any:
    """transformers, or the word on how to have it."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise Unavailable("transformers is not installed; pip install 'soardb[hugging]'") from error
    return transformers


class HuggingModel:
    """A causal language model with its tokenizer.

    network    its transformers model, float32, for inference
    tokenizer  its transformers tokenizer
    """

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer

    @classmethod
    def of_folder(cls, folder: str | Path) -> HuggingModel:
        """From a folder with config.json, *.safetensors and a tokenizer. Errors: NotFound."""
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise NotFound(f"expected config.json of a model in {path}, there is none")
        return cls._loaded(path, {"use_safetensors": True})

    @classmethod
    def of_gguf(cls, file: str | Path) -> HuggingModel:
        """From a GGUF file, whose weights are unpacked to float32. Errors: NotFound."""
        path = Path(file)
        if not path.is_file():
            raise NotFound(f"expected a GGUF file, there is none at {path}")
        found = cls._loaded(path.parent, {"gguf_file": path.name})
        # The weights are plain float32 now; transformers goes on to call them quantised, and then
        # refuses to save them.
        found.network.hf_quantizer = None
        if hasattr(found.network.config, "quantization_config"):
            del found.network.config.quantization_config
        return found

    @classmethod
    def _loaded(cls, folder: Path, told: dict[str, Any]) -> HuggingModel:
        transformers = need_transformers()
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokens = {k: v for k, v in told.items() if k == "gguf_file"}
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **tokens, **options)
            network = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, **told, **options
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InvalidArgument(
                f"expected a causal model that transformers knows in {folder}: {error}"
            ) from error
        return cls(network, tokenizer)

    @staticmethod
    def numbers_of(folder: str | Path) -> int:
        """How many weights and other numbers a folder's configuration takes; none is made."""
        transformers = need_transformers()
        options = {"local_files_only": True, "trust_remote_code": False}
        config = transformers.AutoConfig.from_pretrained(Path(folder), **options)
        with torch.device("meta"):
            network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return sum(part.numel() for part in (*network.parameters(), *network.buffers()))

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self.network.get_output_embeddings().weight.shape[0])

    @property
    def end(self) -> int | None:
        """The token that ends a text."""
        found: int | None = self.tokenizer.eos_token_id
        return found

    @property
    def tokens(self) -> Tokens:
        """Its tokenizer, as those here. Errors: InvalidArgument for one that is not a fast one."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InvalidArgument(
                "expected a tokenizer of the tokenizers library, got "
                f"{type(self.tokenizer).__name__}; save it as tokenizer.json"
            )
        return Tokens(backend, self.end)

    def session(self) -> HuggingSession:
        """A new one, with nothing read."""
        return HuggingSession(self.network)


class HuggingSession:
    """Session of a Hugging Face model, over its own cache."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._cache = need_transformers().DynamicCache(config=network.config)

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return int(self._cache.get_seq_length())

    @property
    def room(self) -> int:
        """Tokens that fit in all."""
        return int(self._network.config.max_position_embeddings)

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read t more tokens: (t, vocabulary) logits. Errors: InvalidArgument past the context."""
        if not len(tokens):
            raise InvalidArgument("expected tokens to read, got none")
        if self.length + len(tokens) > self.room:
            raise InvalidArgument(
                f"expected at most {self.room} tokens in the context, got "
                f"{self.length + len(tokens)}"
            )
        with torch.inference_mode():
            found = self._network(
                input_ids=torch.tensor([list(tokens)]), cache=self._cache, use_cache=True
            )
            logits: Tensor = found.logits[0]
            return logits

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""
        if not 0 <= length <= self.length:
            raise InvalidArgument(f"expected a length in 0..{self.length}, got {length}")
        if length < self.length:
            self._cache.crop(length - self.length)  # minus how many to forget
