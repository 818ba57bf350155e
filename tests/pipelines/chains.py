"""Models that are tables, for tests of decoding: what follows depends on the last two tokens.

-> [chains.py] -> test_speculate.py
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from soardb.models.sampling import Sampling

__all__ = ["Chain", "ChainSession", "exact_laws"]


class ChainSession:
    """Session of a Chain; counts its passes."""

    room = 1000

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._read: list[int] = []

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return len(self._read)

    def read(self, tokens: Sequence[int]) -> Tensor:
        """(t, v) logits."""
        self._chain.passes += 1
        out = []
        for token in tokens:
            before = self._read[-1] if self._read else 0
            self._read.append(int(token))
            out.append(self._chain.logits[before, int(token)])
        return torch.stack(out)

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""
        assert 0 <= length <= len(self._read)
        del self._read[length:]


class Chain:
    """A Model: (v, v, v) logits by the last two tokens."""

    def __init__(self, vocabulary: int, seed: int, like: Chain | None = None) -> None:
        random = torch.Generator().manual_seed(seed)
        shape = (vocabulary, vocabulary, vocabulary)
        self.logits = 1.5 * torch.randn(shape, generator=random)
        if like is not None:
            self.logits = like.logits + 0.7 * self.logits
        self.vocabulary = vocabulary
        self.passes = 0

    def session(self) -> ChainSession:
        """A new one, with nothing read."""
        return ChainSession(self)


def exact_laws(
    chain: Chain, prompt: Sequence[int], length: int, sampling: Sampling
) -> dict[tuple[int, ...], float]:
    """The probability of every continuation of so many tokens."""
    out = {}
    for tokens in itertools.product(range(chain.vocabulary), repeat=length):
        session, p = chain.session(), 1.0
        logits = session.read(prompt)[-1]
        for token in tokens:
            p *= float(sampling.law(logits)[token])
            logits = session.read([token])[-1]
        out[tokens] = p
    return out
