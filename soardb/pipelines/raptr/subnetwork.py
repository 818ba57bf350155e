"""A part of a network runs, and the rest costs nothing: skipped layers are never called.

    plans.py -> [subnetwork.py] -> run.py, probes.py, polynomial.py; widths.py narrows layers

y_l = y_(l-1) + a_l f_l(y_(l-1)) over the layers of the path, where f_l is a whole layer less its
input; the others pass on what they get. The network that is used and evaluated is the whole one,
through soardb.models.decoder, to which all this is equal when nothing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.flops import Breadth, pass_flops
from soardb.pipelines.raptr.widths import Part, narrowed

__all__ = [
    "SCALES",
    "Scale",
    "Subnetwork",
    "flops_of",
    "held_out_loss",
    "hidden_of",
    "loss_of",
    "through",
]

Scale = Literal["none", "sqrt", "inverse", "stream"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""What layers are multiplied by while others are left out. Not verified against the paper.

none     nothing
sqrt     sqrt(L / n), n of L layers running, so that what they add up to varies as much as of all
inverse  1 / p, p the probability that a layer runs, so that what they add up to is the same on
         average, as in stochastic depth; 1 for fixed layers
stream   not the layers but the stream that enters layer j, by sqrt((j - 1) / i) where layer i was
         the last to run: as much as j - 1 layers would have made of it. The embedding, which is in
         the stream too, is not thought of
"""


@dataclass(frozen=True, slots=True)
class Subnetwork:
    """What runs in a step.

    layers  numbers from 0, in order
    keep    how likely each of them was to run
    parts   of layers that run only in part; the others run whole
    """

    layers: tuple[int, ...]
    keep: tuple[float, ...]
    parts: Mapping[int, Part] = field(default_factory=dict)

    @classmethod
    def of(cls, layers: Sequence[int]) -> Subnetwork:
        """These layers, for certain."""
        return cls(tuple(layers), (1.0,) * len(layers))


def through(
    blocks: Sequence[Callable[[Tensor], Tensor]], x: Tensor, part: Subnetwork, scale: Scale
) -> Tensor:
    """x behind those of the residual blocks that are in the part; see SCALES.

    blocks  each gives its input plus what it adds, of the same shape
    """
    dropped, last = len(part.layers) < len(blocks), 0
    for number, keep in zip(part.layers, part.keep, strict=True):
        if scale == "stream" and 0 < last < number:
            x = x * math.sqrt(number / last)
        last = number + 1
        factor = 1.0
        if dropped and scale == "sqrt":
            factor = math.sqrt(len(blocks) / len(part.layers))
        elif scale == "inverse":
            factor = 1 / keep
        out = blocks[number](x)
        x = out if factor == 1 else x + factor * (out - x)
    return x


def hidden_of(decoder: Decoder, tokens: Tensor, part: Subnetwork, scale: Scale) -> Tensor:
    """(b, t) tokens -> (b, t, width) hidden states, normed, of a part of the decoder."""

    def block(number: int) -> Callable[[Tensor], Tensor]:
        layer: Any = decoder.layers[number]
        share = part.parts.get(number)
        if share is None:
            return lambda x: layer(x, None, number)
        return lambda x: narrowed(layer, x, share, scale)

    blocks = [block(number) for number in range(len(decoder.layers))]
    hidden: Tensor = decoder.norm(through(blocks, decoder.embedding(tokens), part, scale))
    return hidden


def loss_of(decoder: Decoder, tokens: Tensor, part: Subnetwork, scale: Scale) -> Tensor:
    """training.cross_entropy of a part of the decoder, over (b, t) tokens."""
    logits = decoder.logits(hidden_of(decoder, tokens[:, :-1], part, scale))
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def flops_of(config: DecoderConfig, rows: int, tokens: int, part: Subnetwork) -> int:
    """Of a step of training with a part, over (rows, tokens) that are read; see models/flops.py."""
    whole = Breadth.whole(config)
    shares = [
        part.parts[number].breadth if number in part.parts else whole for number in part.layers
    ]
    return pass_flops(config, rows, tokens, shares)


def held_out_loss(
    decoder: Decoder, windows: Tensor, part: Subnetwork, scale: Scale, batch: int = 64
) -> float:
    """Mean cross entropy of (n, t) windows through a part, in nats a token."""
    with torch.inference_mode():
        found = [
            loss_of(decoder, some, part, scale) * len(some) for some in torch.split(windows, batch)
        ]
    return float(torch.stack(found).sum() / len(windows))
