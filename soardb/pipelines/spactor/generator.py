"""The generator: a small encoder that guesses masked tokens, and whose guesses replace them.

    encoder.py, masks.py -> [generator.py] -> objective.py

It reads the text with its sentinels and masks, and says what stood under the masks. A token is then
drawn from its law at temperature 1; a drawn token is a number, so no gradient goes through it. Only
tokens of a text can be said. Tied, it reads and writes with the embedding of the T5 itself, as in
ELECTRA (Clark et al., arXiv 2003.10555), through a matrix each way where it is narrower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.models.config import DecoderConfig, EncoderConfig
from soardb.models.encoder import Stack, begin
from soardb.models.sampling import Sampling, drawn
from soardb.options import as_share

__all__ = ["Generator", "GeneratorConfig", "said"]


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """How large the generator is. Not verified against the paper, all three.

    depth  share of the encoder's layers, one at least; ELECTRA and METRO take a quarter to a third
    width  share of its width, to a multiple of what its heads need
    tied   one embedding for both; the generator's loss then moves the T5's embedding too
    """

    depth: float = 0.25
    width: float = 1.0
    tied: bool = True

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        for name in ("depth", "width"):
            as_share(getattr(self, name), name)

    def shape(self, config: EncoderConfig) -> DecoderConfig:
        """Of the generator's stack beside an encoder; hidden units have the share of the width."""
        layers = max(1, round(self.depth * config.layers))
        least = 2 * config.heads
        width = max(least, round(self.width * config.width / least) * least)
        whole = config.shape(layers)
        if width == config.width:
            return whole
        units = max(1, whole.units * width // config.width)
        return replace(whole, width=width, hidden=units)


class Generator(nn.Module):
    """A masked language model. embedding: the T5's; shared, or only its shape is taken."""

    def __init__(
        self, config: EncoderConfig, size: GeneratorConfig, embedding: nn.Embedding, seed: int = 0
    ) -> None:
        super().__init__()
        size.check()
        shape = size.shape(config)
        self.text_tokens = config.text_tokens
        self.pad = config.pad
        self.shape = shape
        narrow = size.tied and shape.width != config.width
        self.stack = Stack(shape)
        self.into = nn.Linear(config.width, shape.width, bias=False) if narrow else None
        self.back = nn.Linear(shape.width, config.width, bias=False) if narrow else None
        begin(self, shape.layers, seed)
        self.embedding = embedding  # after the others were drawn, as it is not to be
        if not size.tied:
            self.embedding = nn.Embedding(config.vocabulary, shape.width)
            begin(self.embedding, shape.layers, seed + 1)

    def forward(self, inputs: Tensor, where: Tensor) -> Tensor:
        """(b, s) inputs, masks among them, and (b, s) where -> (m, text tokens) logits there.

        m is how many places there are, row by row; the head reads these alone.
        """
        x = self.embedding(inputs)
        if self.into is not None:
            x = self.into(x)
        hidden = self.stack(x, inputs != self.pad)[where]
        if self.back is not None:
            hidden = self.back(hidden)
        return functional.linear(hidden, self.embedding.weight[: self.text_tokens])


def said(logits: Tensor, random: torch.Generator) -> Tensor:
    """(m, v) logits -> (m,) tokens drawn at temperature 1, without a gradient."""
    with torch.no_grad():
        return drawn(Sampling().law(logits), random)
