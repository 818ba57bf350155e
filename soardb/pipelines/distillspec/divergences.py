"""Divergences between what a target and a draft say of the next token, differentiable in the draft.

    logits of both -> [divergences.py] -> run.py

DistillSpec (arXiv 2310.08461, appendix B.1): forward and reverse KL, Jensen-Shannon of any beta,
and total variation. TVD++ is an extension, after the idea of Goel et al. (arXiv 2403.00858): the
reward of total variation, centred and scaled; here by context, as over all of a batch its direction
would be that of total variation itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from soardb.errors import InvalidArgument

__all__ = ["DIVERGENCES", "Divergence", "divergence"]

Divergence = Literal["fkl", "rkl", "jsd", "tvd", "tvd++"]
DIVERGENCES: tuple[Divergence, ...] = get_args(Divergence)


def divergence(kind: Divergence, target: Tensor, draft: Tensor, beta: float = 0.5) -> Tensor:
    """(..., v) logits of both, at temperature 1 -> (...), in nats where it is a logarithm.

    fkl    KL(P || Q)                 rkl   KL(Q || P)
    jsd    beta KL(P || M) + (1 - beta) KL(Q || M), M = beta P + (1 - beta) Q
    tvd    sum |P - Q| / 2            tvd++ its policy gradient with a centred and scaled reward:
                                      a loss to descend, whose value means nothing

    P is the target's law and has no gradient. Errors: InvalidArgument.
    """
    if kind not in _KINDS:
        raise InvalidArgument(f"expected divergence one of {', '.join(DIVERGENCES)}, got {kind!r}")
    if not 0 < beta < 1:
        raise InvalidArgument(f"expected beta between 0 and 1, got {beta}")
    return _KINDS[kind](target.detach().log_softmax(-1), draft.log_softmax(-1), beta)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(P || Q) of (..., v) log probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def _jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    middle = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    return beta * _kl(p, middle) + (1 - beta) * _kl(q, middle)


def _tvd(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() - q.exp()).abs().sum(-1) / 2


def _tvd_plus(p: Tensor, q: Tensor) -> Tensor:
    # The gradient of total variation is -E_q[1{p > q} grad log q].
    law = q.detach().exp()
    reward = (p > q.detach()).to(q.dtype)
    mean = (law * reward).sum(-1, keepdim=True)
    spread = (law * (reward - mean) ** 2).sum(-1, keepdim=True).sqrt()
    return -(law * (reward - mean) / spread.clamp_min(1e-3) * q).sum(-1)


_KINDS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "fkl": lambda p, q, _: _kl(p, q),
    "rkl": lambda p, q, _: _kl(q, p),
    "jsd": _jsd,
    "tvd": lambda p, q, _: _tvd(p, q),
    "tvd++": lambda p, q, _: _tvd_plus(p, q),
}
