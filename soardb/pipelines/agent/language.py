"""The one face of every language model that an agent asks: texts in, sampled continuations out.

    openai_api.py, local.py -> [language.py] -> machine.py, feedback.py, judge.py

Many prompts at once, as a local model answers them in one pass and a server side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.options import as_number

__all__ = ["Completion", "LanguageModel", "Usage", "Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    n            samples of each prompt
    temperature  0 takes the likeliest token each time
    longest      tokens of a sample, at most
    stop         texts before which a sample ends
    seed         of the samples; a model that cannot be seeded, as over HTTP, may differ
    grammar      in GBNF, that samples have to follow; None: any text. Models that cannot keep to
                 one refuse it
    """

    n: int = 4
    temperature: float = 0.5
    longest: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    grammar: str | None = None

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.n, "n", 1, 1000)
        as_int(self.longest, "longest", 1, 1_000_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        if as_number(self.temperature, "temperature") < 0:
            raise InvalidArgument(f"expected a temperature of at least 0, got {self.temperature}")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise InvalidArgument(f"expected texts to stop at, got {self.stop!r}")


@dataclass(frozen=True, slots=True)
class Completion:
    """A sample.

    text         without the stop
    logprob      natural log of the probability of its tokens, at temperature 1
    tokens       how many they are, with those of the stop where the model counts them
    is_finished  whether it came to a stop or to the end of a text, and was not cut off
    """

    text: str
    logprob: float
    tokens: int
    is_finished: bool = True

    @property
    def perplexity(self) -> float:
        """exp(-logprob / tokens); infinite for no token."""
        if not self.tokens:
            return math.inf
        return math.exp(min(700.0, -self.logprob / self.tokens))


@dataclass(slots=True)
class Usage:
    """What was asked so far: calls, tokens read and written, seconds, cost where prices are known.

    calls  requests that a server answered, or batches that a model here was asked for
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


class LanguageModel(Protocol):
    """name: which it is, for the record; usage: what it cost so far."""

    @property
    def name(self) -> str: ...

    @property
    def usage(self) -> Usage: ...

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        """wish.n samples for each prompt, in their order; for one that does not fit, the error.

        Errors, of all of them: InvalidArgument for a wish that the model cannot fulfil; Unavailable
        and TimedOut where a server does not answer, NotAllowed where it wants a key.
        """
