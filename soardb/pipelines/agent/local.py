"""Models of the registry as language models: what they write, here and without a server.

    soardb.models.registry, soardb.models.batches -> [local.py] -> machine.py, feedback.py

A decoder, and a LLaMA of Hugging Face, which is one, write many prompts at once; any other model of
Hugging Face reads each prompt once and writes its samples one by one.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from soardb import deadline
from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.batches import Draws, Sample, continued, token_at, tokens_held
from soardb.models.decoder import Decoder
from soardb.models.registry import Loaded
from soardb.models.sampling import Sampling
from soardb.models.session import Session
from soardb.models.tokens import Tokens
from soardb.pipelines.agent.language import Completion, Usage, Wish

__all__ = ["LocalModel"]

_LEAST = 32
"""Tokens that a sample has to have room for, where so many are wished for."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """Which of the call it is, its tokens, its seed, and how many tokens may follow."""

    number: int
    tokens: list[int]
    seed: int
    longest: int


class LocalModel:
    """A model of the registry; a LanguageModel.

    found    from Registry.load()
    at_once  tokens of a batch, read and written, of all its samples: what bounds its memory

    Errors: InvalidArgument for a model that writes no text.
    """

    def __init__(self, found: Loaded, *, at_once: int = 32_768) -> None:
        self._at_once = as_int(at_once, "at_once", 1, 2**40)
        self._name, self._tokens, self._model = found.entry.name, found.tokens, found.model
        self._decoder = _decoder(found)
        self._room = (
            found.model.session().room if self._decoder is None else self._decoder.config.context
        )
        self._usage, self._lock = Usage(), threading.Lock()

    @property
    def name(self) -> str:
        """In the registry."""
        return self._name

    @property
    def usage(self) -> Usage:
        """What it cost so far; calls are those of complete()."""
        return self._usage

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        """wish.n samples for each prompt; for one that does not fit, the error.

        A prompt beside which wish.longest tokens have no room gets shorter samples, down to 32
        tokens. At temperature 0 one sample is written, and stands for all.

        Errors: InvalidArgument for a grammar, which nothing here keeps to.
        """
        wish.check()
        if wish.grammar is not None:
            raise InvalidArgument(
                f"expected no grammar, which model {self._name} of the registry cannot be held to; "
                "serve the model by llama.cpp and give its url"
            )
        began = time.perf_counter()
        read = [self._prompt(number, text, wish) for number, text in enumerate(prompts)]
        fit = [one for one in read if isinstance(one, _Prompt)]
        found: dict[int, list[Sample]] = {}
        draws = Draws(
            wish.n if wish.temperature > 0 else 1,
            wish.longest,
            Sampling(wish.temperature),
            self._tokens.end,
            _Stops(self._tokens, wish.stop) if wish.stop else None,
        )
        if self._decoder is None:
            for one in fit:
                found[one.number] = _one_by_one(self._model.session(), one, draws)
        else:
            for batch in self._batches(fit, draws):
                tokens, seeds = [one.tokens for one in batch], [one.seed for one in batch]
                came = continued(self._decoder, tokens, draws, seeds)
                found.update((one.number, made) for one, made in zip(batch, came, strict=True))
        self._count(fit, found, time.perf_counter() - began)
        return [
            [self._completion(sample, wish.stop) for sample in self._all(found[one.number], wish)]
            if isinstance(one, _Prompt)
            else one
            for one in read
        ]

    def _prompt(self, number: int, text: str, wish: Wish) -> _Prompt | InvalidArgument:
        tokens = self._tokens.encode(text)
        left = self._room - len(tokens)
        if not tokens:
            return InvalidArgument("expected a prompt, got an empty text")
        if left < min(_LEAST, wish.longest):
            return InvalidArgument(
                f"expected a prompt of at most {self._room - min(_LEAST, wish.longest)} tokens, "
                f"which leaves room for a sample in the context of {self._room} of model "
                f"{self._name}, got {len(tokens)}"
            )
        # By the prompt and not its place, so that it is the same whatever is asked beside it.
        seed = (wish.seed * 1_000_003 + zlib.crc32(text.encode())) % 2**63
        return _Prompt(number, tokens, seed, min(wish.longest, left))

    def _batches(self, prompts: Sequence[_Prompt], draws: Draws) -> Iterator[list[_Prompt]]:
        """Those of like length together, within at_once; one prompt at least."""
        batch: list[_Prompt] = []
        for one in sorted(prompts, key=lambda one: -len(one.tokens)):
            # The first is the longest of its batch, so it says how wide that is.
            if batch:
                each = tokens_held(draws.n, len(batch[0].tokens), draws.longest)
                if (len(batch) + 1) * each > self._at_once:
                    yield batch
                    batch = []
            batch.append(one)
        if batch:
            yield batch

    def _all(self, samples: list[Sample], wish: Wish) -> list[Sample]:
        return samples if wish.temperature > 0 else samples * wish.n

    def _completion(self, sample: Sample, stop: Sequence[str]) -> Completion:
        text = self._tokens.decode(sample.tokens)
        cut = min((at for at in map(text.find, stop) if at >= 0), default=len(text))
        return Completion(text[:cut], sample.logprob, len(sample.tokens), sample.is_finished)

    def _count(
        self, prompts: Sequence[_Prompt], found: dict[int, list[Sample]], seconds: float
    ) -> None:
        with self._lock:
            self._usage.calls += 1
            self._usage.prompt_tokens += sum(len(one.tokens) for one in prompts)
            self._usage.completion_tokens += sum(
                len(sample.tokens) for samples in found.values() for sample in samples
            )
            self._usage.seconds += seconds


class _Stops:
    """Whether the last of some tokens brings a text to stop at."""

    def __init__(self, tokens: Tokens, stop: Sequence[str]) -> None:
        self._tokens, self._stop = tokens, stop
        # A token is a byte at least; one more for a character that the tail begins in.
        self._tail = max(len(text.encode()) for text in stop) + 4

    def __call__(self, written: list[int]) -> bool:
        tail = self._tokens.decode(written[-self._tail :])
        return any(text in tail for text in self._stop)


def _decoder(found: Loaded) -> Decoder | None:
    """The network as a decoder; None for one that only its sessions can read.

    Errors: InvalidArgument for a model that has no sessions either.
    """
    try:
        return found.decoder
    except InvalidArgument:
        found.model.session()
        return None


def _one_by_one(session: Session, prompt: _Prompt, draws: Draws) -> list[Sample]:
    """Samples after a prompt that is read once, from the same numbers as in a batch."""
    first = session.read(prompt.tokens)[-1]
    random = torch.Generator().manual_seed(prompt.seed)
    numbers = torch.rand(prompt.longest, draws.n, generator=random, dtype=torch.float64).T
    samples = []
    for row in numbers:
        session.back_to(len(prompt.tokens))
        samples.append(_written(session, first, row, draws))
    return samples


def _written(session: Session, logits: torch.Tensor, numbers: torch.Tensor, draws: Draws) -> Sample:
    tokens: list[int] = []
    logprob = 0.0
    for number in numbers:
        deadline.check()
        if tokens:
            logits = session.read(tokens[-1:])[-1]
        token = int(token_at(draws.sampling.law(logits), number))
        logprob += float(logits.double().log_softmax(-1)[token])
        tokens.append(token)
        if token == draws.end or (draws.is_over is not None and draws.is_over(tokens)):
            return Sample(tokens, logprob, True)
    return Sample(tokens, logprob, False)
