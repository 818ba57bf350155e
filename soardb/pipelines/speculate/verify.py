"""The step that keeps speculative decoding exact: accept what was drafted, or draw what is missing.

    laws of draft and target -> [verify.py] -> decode.py

Leviathan, Kalman and Matias, arXiv 2211.17192, algorithm 1: a drafted token y is kept with
probability min(1, p(y) / q(y)); the first that is not is replaced by one of the residual
norm(max(0, p - q)); after the last one follows a token of the target. What comes out is drawn from
p. The lossy modes are those of DistillSpec (arXiv 2310.08461, appendix A.1): p in the test, and
only there, becomes larger, and the residual stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.sampling import drawn
from soardb.options import as_share

__all__ = ["LENIENCES", "Lenience", "Leniency", "acceptance", "residual", "verified"]

Leniency = Literal["linear", "square", "power"]
LENIENCES: tuple[Leniency, ...] = get_args(Leniency)


@dataclass(frozen=True, slots=True)
class Lenience:
    """How much more willingly drafted tokens are kept: eps 1 is exact, smaller is lossy.

    kind  "linear": p / eps; "square": p / eps^2; "power": p^eps
    """

    kind: Leniency = "linear"
    eps: float = 1.0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if self.kind not in LENIENCES:
            raise InvalidArgument(
                f"expected lenience one of {', '.join(LENIENCES)}, got {self.kind!r}"
            )
        as_share(self.eps, "eps")

    def of(self, p: Tensor) -> Tensor:
        """f(p, eps)."""
        if self.kind == "linear":
            return p / self.eps
        if self.kind == "square":
            return p / self.eps**2
        return p**self.eps


EXACT = Lenience()


def acceptance(p: Tensor, q: Tensor) -> Tensor:
    """(..., v) laws of target and draft -> (...) the probability that a token of q is kept.

    sum of min(p, q) = 1 - total variation.
    """
    return torch.minimum(p, q).sum(-1)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """(v,) what p has more than q, made to sum to 1; p itself where they are equal."""
    more = (p - q).clamp_min(0)
    total = more.sum()
    return more / total if total > 0 else p


def verified(
    p: Tensor,
    q: Tensor,
    drafted: Sequence[int],
    random: torch.Generator,
    lenience: Lenience = EXACT,
) -> tuple[int, int]:
    """How many of g drafted tokens are kept, and the token that follows them.

    p  (g + 1, v) laws of the target at each of them, and after the last
    q  (g, v) laws they were drawn from
    """
    for place, token in enumerate(drafted):
        keep = float(lenience.of(p[place, token]) / q[place, token])
        if float(torch.rand((), generator=random, dtype=torch.float64)) >= keep:
            return place, int(drawn(residual(p[place], q[place]), random))
    return len(drafted), int(drawn(p[len(drafted)], random))
