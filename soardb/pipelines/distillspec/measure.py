"""How well a draft suits a target: acceptance, block efficiency, and what it should gain in time.

    models -> [measure.py] -> run.py, benchmarks

Contexts are drawn from the target, as what speculative decoding writes follows the target's law
(DistillSpec, section 3). Given a text y of the target, the token y_t was kept from the draft with
probability min(1, q(y_t) / p(y_t)), independently of the others. So the number of blocks that a
text takes has an exact mean, and dice are thrown for the text alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling
from soardb.models.session import Model, sampled
from soardb.pipelines.speculate.verify import acceptance

__all__ = [
    "Agreement",
    "Cost",
    "agreement",
    "cost_of",
    "expected_blocks",
    "iid_tau",
    "kept_of",
    "metrics_of",
    "tau_of",
    "until",
]

_LAWS = 2**25  # probabilities of each model that are held at once


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one target and draft, over texts of the target.

    alpha   mean over tokens of sum min(p, q): how often a drafted token is kept. Of greedy
            decoding: how often both say the same
    tau     by gamma: tokens a pass of the target, the token that it adds itself included
    iid     by gamma: the same if acceptances were independent, (1 - alpha^(gamma+1)) / (1 - alpha)
    tokens  that were looked at
    """

    alpha: float
    tau: dict[int, float]
    iid: dict[int, float]
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cost:
    """draft_s, target_s: seconds of a pass, of the draft over one token, of the target over a
    block; c: the former over the latter.
    """

    draft_s: float
    target_s: float

    @property
    def c(self) -> float:
        """Time of the draft in units of that of the target."""
        return self.draft_s / self.target_s

    def speedup(self, tau: float, gamma: int) -> float:
        """tau / (c gamma + 1): over a pass of the target a token."""
        return tau / (self.c * gamma + 1)


def agreement(
    target: Decoder,
    draft: Decoder,
    prompts: Tensor,
    length: int,
    gammas: tuple[int, ...] = (3, 5, 7),
    sampling: Sampling | None = None,
    end: int | None = None,
    seed: int = 0,
) -> Agreement:
    """Draw `length` tokens of the target after each of (n, t) prompts, and look at both laws there.

    Costs a pass of the target a token, and one of both over all of it; a few GB at most, however
    many tokens there are. Errors: InvalidArgument.
    """
    as_int(length, "length", 1, target.config.context - prompts.shape[1])
    if target.config.vocabulary != draft.config.vocabulary:
        raise InvalidArgument(
            "expected a draft with the target's tokens, got "
            f"{draft.config.vocabulary} and {target.config.vocabulary}"
        )
    law = sampling or Sampling()
    random = torch.Generator().manual_seed(seed)
    batch = max(1, min(128, _LAWS // (length * target.config.vocabulary)))
    kept: list[Tensor] = []
    overlaps: list[Tensor] = []
    masks: list[Tensor] = []
    for part in torch.split(prompts, batch):
        said = sampled(target, part, length, law, random, end)
        mask = until(said, end)
        whole, first = torch.cat([part, said], 1)[:, :-1], part.shape[1] - 1
        with torch.inference_mode():
            p = law.law(target.logits(target(whole)[:, first:]))
            q = law.law(draft.logits(draft(whole)[:, first:]))
        kept.append(kept_of(p, q, said))
        overlaps.append(acceptance(p, q))
        masks.append(mask)
    mask = torch.cat(masks)
    count = mask.sum(1)
    alpha = float(torch.cat(overlaps)[mask].mean())
    accepted = torch.cat(kept)
    tau = {g: tau_of(accepted, count, g) for g in gammas}
    return Agreement(alpha, tau, {g: iid_tau(alpha, g) for g in gammas}, int(count.sum()))


def until(said: Tensor, end: int | None) -> Tensor:
    """(b, t) tokens -> a mask of those up to the first `end`, itself included."""
    if end is None:
        return torch.ones_like(said, dtype=torch.bool)
    is_end = said == end
    return (is_end.cumsum(1) - is_end.long()) == 0


def kept_of(p: Tensor, q: Tensor, said: Tensor) -> Tensor:
    """(..., t) how likely each token of a text of the target was drafted and kept.

    p, q  (..., t, v) laws of target and draft before each of the (..., t) tokens
    """
    mine = said[..., None]
    ratio = q.gather(-1, mine)[..., 0] / p.gather(-1, mine)[..., 0].clamp_min(1e-300)
    return ratio.clamp_max(1)


def tau_of(kept: Tensor, lengths: Tensor, gamma: int) -> float:
    """Tokens a pass of the target, of n texts: see expected_blocks(), whose kept this is but for
    the last token that there is room for, for which nothing is drafted.
    """
    drafted = kept.clone()
    drafted[:, -1] = 0
    return float(lengths.sum() / expected_blocks(drafted, lengths, gamma).sum())


def metrics_of(alpha: float, tau: float, gamma: int, cost: Cost) -> dict[str, float]:
    """A pair's metrics as a registry keeps them: alpha, tau_<gamma>, c, speedup_<gamma>."""
    return {
        "alpha": alpha,
        f"tau_{gamma}": tau,
        "c": cost.c,
        f"speedup_{gamma}": cost.speedup(tau, gamma),
    }


def expected_blocks(kept: Tensor, lengths: Tensor, gamma: int) -> Tensor:
    """(n,) mean number of blocks that n texts take.

    kept     (n, t) float64 probability that a token was drafted and kept; 0 where nothing is
             drafted, as for the last token that there is room for
    lengths  (n,) tokens of each text; what is behind does not count
    """
    as_int(gamma, "gamma", 1, 10_000)
    n, t = kept.shape
    # left[:, i]: blocks that are still to come when i tokens are done.
    left = torch.zeros(n, t + gamma + 2, dtype=torch.float64)
    for i in range(t - 1, -1, -1):
        total, through = torch.ones_like(left[:, 0]), torch.ones_like(left[:, 0])
        for at in range(i, i + gamma):
            a = kept[:, at] if at < t else torch.zeros_like(through)
            total += through * (1 - a) * left[:, at + 1]
            through = through * a
        total += through * left[:, i + gamma + 1]
        left[:, i] = torch.where(i < lengths, total, 0.0)
    return left[:, 0]


def iid_tau(alpha: float, gamma: int) -> float:
    """Tokens a pass of the target if each drafted token were kept with probability alpha."""
    return gamma + 1.0 if alpha >= 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


def cost_of(target: Model, draft: Model, prompt: list[int], gamma: int, repeats: int = 50) -> Cost:
    """Median seconds of a pass of each behind a prompt: one token, and gamma + 1 tokens."""
    seconds = []
    for model, size in ((draft, 1), (target, gamma + 1)):
        session = model.session()
        session.read(prompt)
        first, times = session.length, []
        for _ in range(repeats):
            began = time.perf_counter()
            session.read(prompt[:1] * size)
            times.append(time.perf_counter() - began)
            session.back_to(first)
        seconds.append(sorted(times)[len(times) // 2])
    return Cost(*seconds)
