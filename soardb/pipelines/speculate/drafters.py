"""Who drafts: a small model, or text that is stored.

    models, texts -> [drafters.py] -> decode.py

A drafter is told what was read and proposes tokens, with the law that each was drawn from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.sampling import Sampling, drawn
from soardb.models.session import Model, Session

__all__ = ["Drafter", "ModelDrafter", "TextDrafter"]


class Drafter(Protocol):
    """Proposes what may follow. One drafter serves one generation at a time."""

    def begin(self) -> None:
        """A new text."""

    def propose(
        self, read: Sequence[int], most: int, sampling: Sampling, random: torch.Generator
    ) -> tuple[list[int], Tensor]:
        """At most `most` tokens after all that was read, and the (g, v) laws they are drawn from.

        read  the text so far, which begins with what was there at the last call but for tokens
              that were proposed and not kept
        """


class ModelDrafter:
    """A model drafts, token by token; what was not kept is forgotten from its cache.

    passes: how often it has run, over however many tokens.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._session: Session | None = None
        self._read: list[int] = []
        self.passes = 0

    def begin(self) -> None:
        """A new text."""
        self._session, self._read = self._model.session(), []

    def propose(
        self, read: Sequence[int], most: int, sampling: Sampling, random: torch.Generator
    ) -> tuple[list[int], Tensor]:
        """See Drafter."""
        if self._session is None:
            raise InvalidArgument("expected begin() before propose()")
        # At least the last token is read again where all were kept: its logits are wanted.
        same = _common(self._read, read)
        same = min(same, len(read) - 1)
        self._session.back_to(same)
        self._read = list(read)
        tokens: list[int] = []
        laws: list[Tensor] = []
        unread = list(read[same:])
        for _ in range(most):
            if self._session.length + len(unread) > self._session.room:
                break
            law = sampling.law(self._session.read(unread)[-1])
            self.passes += 1
            token = int(drawn(law, random))
            laws.append(law)
            tokens.append(token)
            unread = [token]
        self._read += tokens[:-1]  # the last one was drawn and not read
        width = self._model.vocabulary
        return tokens, torch.stack(laws) if laws else torch.empty(0, width, dtype=torch.float64)


class TextDrafter:
    """Stored text drafts: what followed the last few tokens where they stood before.

    Needs no model. Its laws are sure, so of a sampling target a token is kept with its probability.

    texts       rows of tokens, such as passages that were found for the prompt
    vocabulary  tokens that there are
    longest, shortest  how many last tokens must be found; longer ones first

    Errors: InvalidArgument, for tokens that there are not.
    """

    passes = 0

    def __init__(
        self,
        texts: Iterable[Sequence[int]],
        vocabulary: int,
        longest: int = 4,
        shortest: int = 1,
    ) -> None:
        as_int(longest, "longest", 1, 64)
        as_int(shortest, "shortest", 1, longest)
        self._vocabulary = vocabulary
        self._sizes = range(longest, shortest - 1, -1)
        self._texts = [list(text) for text in texts]
        for text in self._texts:
            if text and not (min(text) >= 0 and max(text) < vocabulary):
                raise InvalidArgument(
                    f"expected tokens in 0..{vocabulary - 1}, got some in {min(text)}..{max(text)}"
                )
        self._after: dict[tuple[int, ...], tuple[int, int]] = {}
        for number, text in enumerate(self._texts):
            for size in self._sizes:
                for first in range(len(text) - size):
                    key = tuple(text[first : first + size])
                    self._after.setdefault(key, (number, first + size))

    def begin(self) -> None:
        """A new text."""

    def propose(
        self, read: Sequence[int], most: int, sampling: Sampling, random: torch.Generator
    ) -> tuple[list[int], Tensor]:
        """See Drafter. Looks in the text that was read as well, its latest place first."""
        found = self._within(read) or self._stored(read)
        tokens = found[:most]
        laws = torch.zeros(len(tokens), self._vocabulary, dtype=torch.float64)
        laws[torch.arange(len(tokens)), torch.tensor(tokens, dtype=torch.int64)] = 1.0
        return tokens, laws

    def _within(self, read: Sequence[int]) -> list[int]:
        longest = self._sizes[0]
        if len(read) <= longest:
            return []
        tail = list(read[-longest:])
        for first in range(len(read) - longest - 1, -1, -1):
            if list(read[first : first + longest]) == tail:
                return list(read[first + longest :])
        return []

    def _stored(self, read: Sequence[int]) -> list[int]:
        for size in self._sizes:
            place = self._after.get(tuple(read[-size:])) if len(read) >= size else None
            if place is not None:
                return self._texts[place[0]][place[1] :]
        return []


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))
