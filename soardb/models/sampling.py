"""From logits to the law that a token is drawn from, with everything that shapes it folded in.

    models -> [sampling.py] -> speculative decoding, generation

Greedy decoding is a law too, with all of its weight on one token, so whoever compares two models
compares laws alone (Leviathan et al., arXiv 2211.17192, "standardized sampling").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.options import as_number, as_share

__all__ = ["Sampling", "drawn"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature: 0 is greedy; top_k: the likeliest tokens alone; top_p: as few of the likeliest
    as sum to it. Applied in this order, as elsewhere.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if as_number(self.temperature, "temperature") < 0:
            raise InvalidArgument(f"expected a temperature of at least 0, got {self.temperature}")
        if self.top_k is not None:
            as_int(self.top_k, "top_k", 1, 2**31)
        as_share(self.top_p, "top_p")

    @property
    def is_greedy(self) -> bool:
        """Whether only one token can be drawn."""
        return self.temperature == 0 or self.top_k == 1

    def law(self, logits: Tensor) -> Tensor:
        """(..., v) logits -> (..., v) float64 probabilities; greedy takes the first of equals."""
        z = logits.double()
        if self.is_greedy:
            return torch.zeros_like(z).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)
        # From the highest on, so that a temperature near 0 gives no infinity but below it.
        z = (z - z.amax(-1, keepdim=True)) / self.temperature
        if self.top_k is not None and self.top_k < z.shape[-1]:
            least = z.topk(self.top_k, dim=-1).values[..., -1:]
            z = z.masked_fill(z < least, -torch.inf)
        p = z.softmax(-1)
        if self.top_p < 1:
            ranked, order = p.sort(dim=-1, descending=True, stable=True)
            before = ranked.cumsum(-1) - ranked
            ranked = ranked.masked_fill(before >= self.top_p, 0.0)
            p = torch.zeros_like(p).scatter_(-1, order, ranked)
            p = p / p.sum(-1, keepdim=True)
        return p


def drawn(law: Tensor, random: torch.Generator) -> Tensor:
    """(..., v) probabilities -> (...) tokens."""
    flat = law.reshape(-1, law.shape[-1])
    return torch.multinomial(flat, 1, generator=random).reshape(law.shape[:-1])
