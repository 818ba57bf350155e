"""A model that reads on, says what may follow, and can forget what it read last.

    decoder.py, hugging.py -> [session.py] -> generation, speculative decoding

The one face of every language model here: Session. Whoever decodes knows no architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling, drawn

__all__ = ["DecoderModel", "DecoderSession", "Model", "Session", "generate", "sampled"]


class Session(Protocol):
    """One sequence of tokens that grows and shrinks."""

    @property
    def length(self) -> int:
        """Tokens read so far."""

    @property
    def room(self) -> int:
        """Tokens that fit in all."""

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read t more tokens: (t, vocabulary) logits of what follows each of them."""

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""


class Model(Protocol):
    """What makes sessions, each with nothing read."""

    def session(self) -> Session:
        """A new one."""

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""


class DecoderSession:
    """Session of a Decoder, with its keys and values kept."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._cache = Cache(decoder.config)

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self._cache.length

    @property
    def room(self) -> int:
        """Tokens that fit in all."""
        return self._cache.room

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read t more tokens: (t, vocabulary) logits. Errors: InvalidArgument past the context."""
        if not len(tokens):
            raise InvalidArgument("expected tokens to read, got none")
        with torch.inference_mode():
            hidden = self._decoder(torch.tensor([list(tokens)]), self._cache)
            return self._decoder.logits(hidden)[0]

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""
        self._cache.back_to(length)


@dataclass(frozen=True, slots=True)
class DecoderModel:
    """A Decoder as a Model."""

    decoder: Decoder

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return self.decoder.config.vocabulary

    def session(self) -> DecoderSession:
        """A new one, with nothing read."""
        return DecoderSession(self.decoder)


def generate(
    model: Model,
    prompt: Sequence[int],
    longest: int,
    sampling: Sampling,
    random: torch.Generator,
    end: int | None = None,
) -> Iterator[int]:
    """The tokens that follow a prompt, one by one; `end`, where it comes, is the last of them.

    Stops where the context is full. Costs a pass over one token each.
    """
    sampling.check()
    session = model.session()
    logits = session.read(prompt)[-1]
    for _ in range(longest):
        token = int(drawn(sampling.law(logits), random))
        yield token
        if token == end or session.length >= session.room:
            return
        logits = session.read([token])[-1]


def sampled(
    decoder: Decoder,
    prompts: Tensor,
    longest: int,
    sampling: Sampling,
    random: torch.Generator,
    end: int | None = None,
) -> Tensor:
    """(b, t) prompts of equal length -> (b, longest) tokens after them; `end` to the end after it.

    All at once: a pass over b tokens a step. Stops early where all have ended.
    """
    sampling.check()
    cache = Cache(decoder.config, len(prompts), prompts.shape[1] + longest)
    fill = 0 if end is None else end
    out = torch.full((len(prompts), longest), fill)
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    tokens = prompts
    with torch.inference_mode():
        for step in range(longest):
            logits = decoder.logits(decoder(tokens, cache)[:, -1])
            found = drawn(sampling.law(logits), random)
            out[:, step] = torch.where(ended, fill, found)
            if end is not None:
                ended |= found == end
                if bool(ended.all()):
                    break
            tokens = out[:, step : step + 1]
    return out
