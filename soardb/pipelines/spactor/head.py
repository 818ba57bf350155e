"""Replaced-token detection: which tokens of a text are not those that stood there.

    encoder.py -> [head.py] -> objective.py, measure.py

A drawn token that is the one that stood there counts as such. Sentinels and pads are not asked
about. As about nine in ten tokens are as they were, accuracy says little, and the area under the
curve is what is told.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.errors import InvalidArgument

__all__ = ["HEADS", "HeadKind", "ReplacedHead", "area"]

HeadKind = Literal["linear", "mlp"]
HEADS: tuple[HeadKind, ...] = get_args(HeadKind)


class ReplacedHead(nn.Module):
    """States become logits of having been replaced: one map, or two with GELU between them."""

    def __init__(self, width: int, kind: HeadKind = "mlp", seed: int = 0) -> None:
        super().__init__()
        if kind not in HEADS:
            raise InvalidArgument(f"expected a head one of {', '.join(HEADS)}, got {kind!r}")
        self.inner = nn.Linear(width, width) if kind == "mlp" else None
        self.out = nn.Linear(width, 1)
        random = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=0.02, generator=random)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (...) logits."""
        if self.inner is not None:
            hidden = functional.gelu(self.inner(hidden))
        found: Tensor = self.out(hidden)[..., 0]
        return found


def area(scores: Tensor, is_replaced: Tensor) -> float:
    """How often a replaced token has the larger of (m,) scores than another; ties count half.

    nan where all are alike.
    """
    labels = is_replaced.bool()
    yes = int(labels.sum())
    no = len(labels) - yes
    if yes == 0 or no == 0:
        return float("nan")
    _, place, counts = torch.unique(scores.detach(), return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts - 1) / 2)[place]  # from 1 on, the mean of equals
    return float((ranks[labels].sum() - yes * (yes + 1) / 2) / (yes * no))
