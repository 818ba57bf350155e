"""The transformer: reads tokens from left to right and says what may follow each.

    config.py, cache.py -> [decoder.py] -> session.py, training.py, pipelines

Pre-norm residual layers of attention and a feed-forward part, rotary positions, root-mean-square
norms, the output tied to the embedding. Written to be read: no kernels, no dropout, one device.

Pieces are public, as research on top of them takes the layers apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.config import DecoderConfig

__all__ = ["Attention", "Decoder", "Layer", "Mixer", "top_groups", "turned"]


class Decoder(nn.Module):
    """A causal language model; see DecoderConfig. Weights are drawn anew from `seed`."""

    def __init__(self, config: DecoderConfig, seed: int = 0) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        random = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # What is added to the residual stream grows with the depth, so it begins smaller.
                scale = 0.02 / math.sqrt(2 * config.layers) if name.endswith("out.weight") else 0.02
                nn.init.normal_(weight, std=scale, generator=random)

    def forward(
        self, tokens: Tensor, cache: Cache | None = None, layers: Sequence[int] | None = None
    ) -> Tensor:
        """(b, t) int64 tokens -> (b, t, width) hidden states, normed; logits() reads them.

        cache   of the tokens before these; it is grown by them
        layers  which to go through, in this order; all unless told. Not with a cache
        """
        hidden: Tensor = self.norm(self.states(tokens, cache, layers)[-1])
        return hidden

    def states(
        self, tokens: Tensor, cache: Cache | None = None, layers: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The (b, t, width) residual stream before each layer and after the last, not normed."""
        if cache is not None and layers is not None:
            raise InvalidArgument("expected all layers with a cache, got some of them")
        found = [self.embedding(tokens)]
        for number in range(len(self.layers)) if layers is None else layers:
            found.append(self.layers[number](found[-1], cache, number))
        if cache is not None:
            cache.length += tokens.shape[1]
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) hidden states -> (..., vocabulary)."""
        return functional.linear(hidden, self.embedding.weight)


class Layer(nn.Module):
    """x + attention, then x + feed-forward, each of a normed x."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.mixer_norm = nn.RMSNorm(config.width, config.norm_eps)
        self.mixer = Mixer(config)

    def forward(self, x: Tensor, cache: Cache | None, number: int) -> Tensor:
        """(b, t, width) -> the same. number: of this layer, for the cache."""
        x = x + self.attention(self.attention_norm(x), cache, number)
        out: Tensor = x + self.mixer(self.mixer_norm(x))
        return out


class Attention(nn.Module):
    """Each token looks at itself and those before it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        size = config.width // config.heads
        self.heads, self.keys = config.heads, config.keys
        self.base = config.rope_base
        self.query = nn.Linear(config.width, config.heads * size, bias=False)
        self.key = nn.Linear(config.width, config.keys * size, bias=False)
        self.value = nn.Linear(config.width, config.keys * size, bias=False)
        self.out = nn.Linear(config.heads * size, config.width, bias=False)

    def forward(self, x: Tensor, cache: Cache | None = None, number: int = 0) -> Tensor:
        """(b, t, width) normed -> the same."""
        first = 0 if cache is None else cache.first(x.shape[1])
        q, k, v = self.queries(x, first), self.key_of(x, first), self.value_of(x)
        if cache is not None:
            k, v = cache.put(number, k, v)
        return self.attend(q, k, v, mask=None if cache is None else cache.mask(x.shape[1]))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (b, heads, t, size) over keys and values (b, key heads, s, size).

        mask  (t, s), or (b, 1, t, s), true where a query may look; None: itself and what is
              before, with s = t
        """
        found = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=self.keys != self.heads
        )
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out

    def queries(self, x: Tensor, first: int | Tensor) -> Tensor:
        """(b, t, width) -> (b, heads, t, size), turned to positions from `first` on."""
        return turned(_split(self.query(x), self.heads), first, self.base)

    def key_of(self, x: Tensor, first: int | Tensor) -> Tensor:
        """(b, s, width) -> (b, key heads, s, size), turned likewise."""
        return turned(_split(self.key(x), self.keys), first, self.base)

    def value_of(self, x: Tensor) -> Tensor:
        """(b, s, width) -> (b, key heads, s, size)."""
        return _split(self.value(x), self.keys)


class Mixer(nn.Module):
    """The feed-forward part. SwiGLU, or ReLU of which only the largest units stay on."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.active, self.group = config.active, config.group
        self.up = nn.Linear(config.width, config.units, bias=False)
        self.gate = (
            nn.Linear(config.width, config.units, bias=False) if config.mixer == "swiglu" else None
        )
        self.out = nn.Linear(config.units, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) normed -> the same."""
        if self.gate is not None:
            units = functional.silu(self.gate(x)) * self.up(x)
        else:
            units = functional.relu(self.up(x))
            if self.active is not None:
                units = units * top_groups(units, self.active, self.group)
        out: Tensor = self.out(units)
        return out


def top_groups(units: Tensor, active: int, group: int) -> Tensor:
    """(..., units) -> a mask of them: the groups with the largest sums, `active` units in all.

    No gradient goes through the choice, as for any top-k.
    """
    sums = units.detach().reshape(*units.shape[:-1], -1, group).sum(-1)
    chosen = sums.topk(active // group, dim=-1).indices
    mask = torch.zeros_like(sums).scatter_(-1, chosen, 1.0)
    return mask.repeat_interleave(group, -1) if group > 1 else mask


def turned(x: Tensor, first: int | Tensor, base: float) -> Tensor:
    """Rotary positions of (b, heads, t, size): pairs of coordinates turn with the position.

    first  of the first token; or (t,) the position of each
    """
    t, size = x.shape[-2:]
    places = torch.arange(t) + first if isinstance(first, int) else first
    rates = base ** (-torch.arange(0, size, 2) / size)
    angles = places[:, None] * rates  # (t, size / 2)
    cosine, sine = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)
