"""Layers that run in part: some of their heads and some of their hidden units, at random.

    plans.py -> [widths.py] -> subnetwork.py

RaPTr over widths in place of depths. That heads and units are drawn anew for each step and layer,
that both have the same share, and that the fixed layers stay whole, are readings of ours: not
verified against the paper. Only what runs is multiplied: the weights are cut before the product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Attention, Layer, Mixer, turned
from soardb.models.flops import Breadth

__all__ = ["Part", "Widths", "narrowed"]


@dataclass(frozen=True, slots=True)
class Part:
    """(k,) numbers of the key heads that run, each with its queries, and (u,) of hidden units."""

    keys: Tensor
    units: Tensor
    config: DecoderConfig

    @property
    def breadth(self) -> Breadth:
        """How much that is."""
        group = self.config.heads // self.config.keys
        return Breadth(len(self.keys) * group, len(self.keys), len(self.units))


class Widths:
    """Random parts of layers, the same ones for the same seed."""

    def __init__(self, config: DecoderConfig, seed: int = 0) -> None:
        if config.active is not None:
            raise InvalidArgument(
                "expected a decoder whose units are all on, to run some of them, got active="
                f"{config.active}"
            )
        self.config = config
        self.random = np.random.default_rng([seed, 3])

    def check(self, heads: float) -> None:
        """InvalidArgument for a number of heads that a layer cannot have."""
        group = self.config.heads // self.config.keys
        if heads % group or not group <= heads <= self.config.heads:
            raise InvalidArgument(
                f"expected heads of a layer that are a multiple of {group}, up to "
                f"{self.config.heads}, got {heads:g}"
            )

    def breadth(self, heads: float) -> Breadth:
        """Of a layer with so many heads, and the same share of its units, one at least."""
        keys = round(heads) * self.config.keys // self.config.heads
        units = max(1, round(self.config.units * heads / self.config.heads))
        return Breadth(round(heads), keys, units)

    def __call__(self, heads: float) -> Part:
        """One with so many heads of queries."""
        wanted = self.breadth(heads)
        keys = self.random.permutation(self.config.keys)[: wanted.keys]
        units = self.random.permutation(self.config.units)[: wanted.units]
        return Part(torch.from_numpy(np.sort(keys)), torch.from_numpy(np.sort(units)), self.config)


def narrowed(layer: Layer, x: Tensor, part: Part, scale: str) -> Tensor:
    """(b, t, width) -> the same, through a part of a decoder's Layer.

    scale  "sqrt" and "inverse" multiply what the heads add by sqrt(H / h) and H / h, h of H heads
           running, and what the units add likewise; the others by nothing
    """
    config = part.config
    heads, units = config.keys / len(part.keys), config.units / len(part.units)
    power = {"sqrt": 0.5, "inverse": 1.0}.get(scale, 0.0)
    x = x + heads**power * _attended(layer.attention, layer.attention_norm(x), part)
    out: Tensor = x + units**power * _mixed(layer.mixer, layer.mixer_norm(x), part.units)
    return out


def _attended(attention: Attention, x: Tensor, part: Part) -> Tensor:
    config = part.config
    size, group = config.width // config.heads, config.heads // config.keys
    heads = (part.keys[:, None] * group + torch.arange(group)).flatten()

    def read(weight: Tensor, chosen: Tensor) -> Tensor:
        rows = weight.view(-1, size, config.width).index_select(0, chosen).flatten(0, 1)
        found = functional.linear(x, rows).view(*x.shape[:2], len(chosen), size)
        return found.transpose(1, 2)  # (b, chosen, t, size)

    q = turned(read(attention.query.weight, heads), 0, attention.base)
    k = turned(read(attention.key.weight, part.keys), 0, attention.base)
    v = read(attention.value.weight, part.keys)
    found = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=group > 1)
    out = attention.out.weight.view(config.width, -1, size).index_select(1, heads).flatten(1)
    return functional.linear(found.transpose(1, 2).flatten(2), out)


def _mixed(mixer: Mixer, x: Tensor, units: Tensor) -> Tensor:
    found = functional.linear(x, mixer.up.weight.index_select(0, units))
    if mixer.gate is None:
        found = functional.relu(found)
    else:
        found = (
            functional.silu(functional.linear(x, mixer.gate.weight.index_select(0, units))) * found
        )
    return functional.linear(found, mixer.out.weight.index_select(1, units))
