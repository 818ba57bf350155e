"""Training a Tandem: cross entropy, then half of it and half the primary's own laws.

    model.py, training.py -> [run.py] -> session.py

    tandem = Tandem(primary, secondary, layer_map("even", 5, 2))
    run(tandem, row, TandemConfig(gamma=2))

The primary is frozen, which the paper found best. Stage 1 is Tandem-CE, stage 2 Tandem-Distil
(arXiv 2402.08644, section 3). The weight of 1/2, and gamma = 2 in training, are the paper's; steps
and rates are not told there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.models.decoder import Decoder
from soardb.models.training import TrainConfig, Windows, descend
from soardb.options import as_number
from soardb.pipelines.tandem.model import Tandem
from soardb.pipelines.tandem.router import Router

__all__ = ["Quality", "TandemConfig", "distil_alone", "quality", "run", "train_router"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TandemConfig:
    """gammas   block lengths in training, one drawn a batch; the paper's is 2 alone
    ce, distil  both stages; distil None: Tandem-CE
    weight      of the texts' own tokens in stage 2, beside the primary's laws
    warm_projections  first steps in which the projections learn alone
    """

    gammas: tuple[int, ...] = (2,)
    ce: TrainConfig = field(default_factory=lambda: TrainConfig(1000))
    distil: TrainConfig | None = field(default_factory=lambda: TrainConfig(500, rate=1e-3))
    weight: float = 0.5
    warm_projections: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if not self.gammas:
            raise InvalidArgument("expected at least one gamma, got none")
        for gamma in self.gammas:
            as_int(gamma, "gammas", 1, 1_000_000)
        if not 0 <= as_number(self.weight, "weight") <= 1:
            raise InvalidArgument(f"expected weight in 0..1, got {self.weight}")
        as_int(self.warm_projections, "warm_projections", 0, 1_000_000)
        self.ce.check()
        if self.distil is not None:
            self.distil.check()


@dataclass(frozen=True, slots=True)
class Quality:
    """Of a small model beside a large one, over the tokens of some windows.

    accuracy   share of tokens that it finds likeliest
    loss       cross entropy, nats a token
    relative   share of tokens where it and the large one find the same likeliest
    variation  mean total variation of their laws
    """

    accuracy: float
    loss: float
    relative: float
    variation: float


def run(
    tandem: Tandem,
    row: I64,
    config: TandemConfig,
    progress: Progress = lambda stage, share: None,
) -> list[float]:
    """Train the secondary and the projections in place; the losses of all steps.

    row  (n,) tokens of texts, as training.row_of makes. Errors: InvalidArgument.
    """
    config.check()
    losses: list[float] = []
    if config.warm_projections:
        warm = replace(config.ce, steps=config.warm_projections, seed=config.ce.seed + 7)
        tandem.secondary.requires_grad_(requires_grad=False)
        try:
            losses += _stage(tandem, row, config, warm, 1.0, progress, "tandem, projections")
        finally:
            tandem.secondary.requires_grad_(requires_grad=True)
    losses += _stage(tandem, row, config, config.ce, 1.0, progress, "tandem, cross entropy")
    if config.distil is not None:
        later = replace(config.distil, seed=config.distil.seed + 1)
        losses += _stage(tandem, row, config, later, config.weight, progress, "tandem, distil")
    return losses


def _stage(
    tandem: Tandem,
    row: I64,
    config: TandemConfig,
    train: TrainConfig,
    weight: float,
    progress: Progress,
    stage: str,
) -> list[float]:
    windows = Windows(row, train.window, train.seed)
    rng = np.random.default_rng([train.seed, 2])

    def loss_of(step: int) -> Tensor:
        tokens = windows(train.batch)
        gamma = int(rng.choice(config.gammas))
        with torch.no_grad():
            states = tandem.primary.states(tokens[:, :-1])
            wanted = tandem.primary.logits(tandem.primary.norm(states[-1]))
        seen = [states[number] for number in tandem.map]
        logits = tandem.logits(tandem(tokens[:, :-1], gamma, seen))
        return mixed_loss(logits, tokens[:, 1:], wanted, weight)

    return descend([tandem.secondary, tandem.projections], loss_of, train, progress, stage)


def mixed_loss(logits: Tensor, tokens: Tensor, wanted: Tensor, weight: float) -> Tensor:
    """weight x cross entropy of the tokens + (1 - weight) x that of the wanted logits' law."""
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    if weight == 1:
        return loss
    law = wanted.softmax(-1)
    soft = -(law * logits.log_softmax(-1)).sum(-1).mean()
    return weight * loss + (1 - weight) * soft


def distil_alone(
    primary: Decoder,
    secondary: Decoder,
    row: I64,
    train: TrainConfig,
    weight: float = 0.5,
    progress: Progress = lambda stage, share: None,
) -> list[float]:
    """The baseline: the secondary alone, in place, by the same mixed loss; weight 1 is plain."""
    windows = Windows(row, train.window, train.seed)

    def loss_of(step: int) -> Tensor:
        tokens = windows(train.batch)
        with torch.no_grad():
            wanted = primary.logits(primary(tokens[:, :-1]))
        logits = secondary.logits(secondary(tokens[:, :-1]))
        return mixed_loss(logits, tokens[:, 1:], wanted, weight)

    return descend([secondary], loss_of, train, progress, "secondary alone")


def quality(
    primary: Decoder, logits_of: Callable[[Tensor], Tensor], windows: Tensor, batch: int = 64
) -> Quality:
    """Measure a small model on (n, t) windows.

    logits_of  (b, t - 1) tokens -> (b, t - 1, vocabulary), such as of a Tandem at some gamma
    """
    sums = torch.zeros(4, dtype=torch.float64)
    count = 0
    with torch.inference_mode():
        for part in torch.split(windows, batch):
            tokens, truth = part[:, :-1], part[:, 1:]
            small, large = logits_of(tokens), primary.logits(primary(tokens))
            said = small.argmax(-1)
            p, q = large.softmax(-1), small.softmax(-1)
            loss = functional.cross_entropy(small.flatten(0, 1), truth.flatten(), reduction="sum")
            sums += torch.stack(
                [
                    (said == truth).double().sum(),
                    loss.double(),
                    (said == large.argmax(-1)).double().sum(),
                    (p - q).abs().sum().double() / 2,
                ]
            )
            count += truth.numel()
    return Quality(*(sums / count).tolist())


def train_router(
    tandem: Tandem,
    router: Router,
    row: I64,
    gamma: int,
    train: TrainConfig,
    progress: Progress = lambda stage, share: None,
) -> list[float]:
    """Train a router in place, for blocks of gamma; primary and secondary stay as they are."""
    windows = Windows(row, train.window, train.seed)

    def loss_of(step: int) -> Tensor:
        tokens = windows(train.batch)
        with torch.no_grad():
            small = tandem.logits(tandem(tokens, gamma))
            large = tandem.primary.logits(tandem.primary(tokens))
            variation = (large.softmax(-1) - small.softmax(-1)).abs().sum(-1) / 2
        return router.loss(small, variation)

    return descend([router], loss_of, train, progress, "router")
