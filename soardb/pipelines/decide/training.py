"""Training losses for models that will be decided under, over a grid of values.

    a model's log probabilities -> [training.py] -> its optimiser

Tensors of PyTorch, or anything that has its arithmetic: nothing is imported. Sources: RAFT, for the
first (Lukasik et al., "Better autoregressive regression with LLMs via regression-aware
fine-tuning", ICLR 2025); the second is what it is compared with there.
"""

from __future__ import annotations

from typing import Any

__all__ = ["mbr_loss", "raft_loss"]


def raft_loss(logs: Any, grid: Any, targets: Any) -> Any:
    """Mean of (target - sum over the grid of p(v) v)^2: regression-aware fine-tuning.

    logs     (b, c) log probabilities of the grid's values, with the tokens that end them; they need
             not sum to 1
    grid     (c,) the values; targets (b,) within its span, or nothing reaches them

    A scalar with a gradient, the smaller the better the mean is as a decision.
    """
    return ((targets - logs.exp() @ grid) ** 2).mean()


def mbr_loss(logs: Any, grid: Any, targets: Any) -> Any:
    """Mean of sum over the grid of p(v) (target - v)^2: it drives p into one value, as its least
    is there; to compare with.
    """
    return (logs.exp() * (targets[:, None] - grid) ** 2).sum(1).mean()
