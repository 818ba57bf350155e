"""Which tokens the generator replaces: some of those that are neither left out nor pads.

    spans.py -> [masks.py] -> objective.py

Tokens of a text alone are drawn, so what is masked and what span corruption left out are disjoint:
of a piece that was left out only its sentinel is in the inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soardb.models.config import EncoderConfig

__all__ = ["is_text", "masked"]


def is_text(inputs: Tensor, config: EncoderConfig) -> Tensor:
    """(b, s) tokens -> (b, s) true for those of a text: no pad, no mask, no sentinel."""
    return inputs < config.text_tokens


def masked(inputs: Tensor, rate: float, config: EncoderConfig, random: torch.Generator) -> Tensor:
    """(b, s) inputs -> (b, s) true for round(rate x text tokens) of each row, one at least.

    Drawn without replacement, each set as likely as another. A row without text has none.
    """
    there = is_text(inputs, config)
    wanted = (rate * there.sum(1)).round().clamp_min(1)  # (b,)
    lots = torch.rand(inputs.shape, generator=random).masked_fill(~there, torch.inf)
    rank = lots.argsort(1).argsort(1)
    return (rank < wanted[:, None]) & there
