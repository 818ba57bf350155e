"""HiRE-LR whose factors were trained: towards what the head itself would say of states.

    soardb.topk.LowRank -> [factors.py] -> copies.py

An SVD makes all products near; a head is asked for its largest. So the factors go on from the
weighted SVD by gradient, and the loss is the Kullback-Leibler divergence of the softmax of the
predicted logits from that of the exact ones, which counts the tokens that are likely.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.models.training import TrainConfig, descend
from soardb.topk import LowRank

__all__ = ["trained"]


class _Factors(nn.Module):
    """Both factors of a copy, of the same size a number, so that one rate suits both."""

    def __init__(self, begun: LowRank) -> None:
        super().__init__()
        up, rows = (torch.from_numpy(one.copy()) for one in begun.products)
        size = (rows.square().mean() / up.square().mean()).pow(0.25)
        self.up, self.rows = nn.Parameter(up * size), nn.Parameter(rows / size)

    def forward(self, states: Tensor) -> Tensor:
        """(m, d) -> (m, n) predicted products."""
        products: Tensor = (states @ self.up) @ self.rows.T
        return products


def trained(
    weight: F32, states: F32, rank: int, steps: int, *, batch: int = 64, rate: float = 3e-3
) -> LowRank:
    """Factors of rank `rank` of (n, d) rows, trained for `steps` on (m, d) states.

    rate  of AdamW at its highest, in units of the root mean square of both factors

    Costs of each step a product of `batch` states with the rows, and three with the factors.
    Errors: InvalidArgument.
    """
    as_int(steps, "steps", 1, 10_000_000)
    if not len(states) or not weight.any():
        raise InvalidArgument("expected states to learn from, and a weight that is not 0")
    factors = _Factors(LowRank(weight, rank=rank, queries=states))
    asked, matrix = torch.from_numpy(states), torch.from_numpy(weight)
    unit = float(factors.rows.detach().square().mean().sqrt())
    config = TrainConfig(steps, batch, rate=rate * unit, warm=min(10, steps - 1), weight_decay=0.0)
    random = torch.Generator().manual_seed(config.seed)

    def loss_of(step: int) -> Tensor:
        some = asked[torch.randint(0, len(asked), (batch,), generator=random)]
        with torch.no_grad():
            wanted = (some @ matrix.T).log_softmax(-1)
        said = factors(some).log_softmax(-1)
        divergence: Tensor = (wanted.exp() * (wanted - said)).sum(-1).mean()
        return divergence

    descend([factors], loss_of, config, stage="training factors")
    up, rows = (one.detach().numpy() for one in (factors.up, factors.rows))
    return LowRank.of_products(np.ascontiguousarray(up), np.ascontiguousarray(rows))
