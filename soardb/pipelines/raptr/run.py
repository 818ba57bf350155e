"""RaPTr: parts of a network that grow from stage to stage learn at random; the whole one is used.

    training.py, plans.py, baselines.py -> [run.py] -> probes.py, log.py

    config = RaptrConfig("4-5-7-8", train=TrainConfig(3000))
    found = run(Decoder(DecoderConfig(1024, layers=8)), row, config, held_out=windows)

Panigrahi et al., arXiv 2402.05913. One part for each batch, one schedule of the rate for all
stages, and the whole network can be evaluated at any time. Baselines are other values of the
configuration, so they are trained, counted and looked at by the same lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.models.checkpoint import Checkpoint, mark_of
from soardb.models.decoder import Decoder
from soardb.models.training import Windows, adam_of, descend, expect_tokens
from soardb.pipelines.raptr.baselines import plan_of
from soardb.pipelines.raptr.config import RaptrConfig
from soardb.pipelines.raptr.log import Log
from soardb.pipelines.raptr.probes import Transition, mean_loss, one_left_out, sensitivities
from soardb.pipelines.raptr.subnetwork import flops_of, held_out_loss, loss_of

__all__ = ["Pretrained", "run"]

Progress = Callable[[str, float], None]

_PROBED = 64  # windows of those held out that probes look at


@dataclass(frozen=True, slots=True)
class Pretrained:
    """decoder: as it is used; losses: of each step, of the part that learned; log: the rest."""

    decoder: Decoder
    losses: list[float]
    log: Log


def run(
    decoder: Decoder,
    row: I64,
    config: RaptrConfig,
    *,
    held_out: Tensor | None = None,
    checkpoint: Path | None = None,
    every: int = 500,
    progress: Progress = lambda stage, share: None,
) -> Pretrained:
    """Train a decoder in place.

    row         (n,) tokens of texts, as training.row_of makes
    held_out    (m, t) windows of other texts: with them the whole network is evaluated every
                config.evaluate_every steps, and transitions are looked at; without, neither
    checkpoint  file of the state, written every so many steps; where there is one of this
                training, it goes on from there, and ends bit by bit as if it had not been stopped

    Costs a step: a pass there and back through the layers that run. Errors: InvalidArgument,
    CorruptStorage of a checkpoint.
    """
    config.check(decoder.config)
    if held_out is not None and (held_out.dim() != 2 or not len(held_out)):
        raise InvalidArgument(f"expected windows (m, t) held out, got {tuple(held_out.shape)}")
    expect_tokens(row, decoder.config.vocabulary, "row")
    if held_out is not None:
        expect_tokens(held_out, decoder.config.vocabulary, "held_out")
    train = config.train
    windows = Windows(row, train.window, train.seed)
    plan, log = plan_of(config, decoder.config), Log()
    adam = adam_of([decoder.train()], train)
    if config.skipped == "decayed":
        adam.register_step_pre_hook(_nothing_is_zero)
    kept = None
    if checkpoint is not None:
        told = {
            "raptr": config.to_json(),
            "decoder": decoder.config.to_json(),
            "tokens": mark_of(row),
            "held_out": None if held_out is None else mark_of(held_out.numpy()),
        }
        randoms = {"windows": windows.random, **plan.randoms}
        kept = Checkpoint(checkpoint, every, told, randoms, {"log": log})

    def look(step: int) -> None:
        """Evaluate what is due before a step; begin what begins with it."""
        if held_out is not None and step % config.evaluate_every == 0:
            evaluate(step)
        if held_out is not None and plan.schedule.begins(step):
            log.transitions.append(
                _transition(
                    decoder, held_out[:_PROBED], config, step,
                    lambda: plan.begin(step, decoder.layers, adam),
                )
            )  # fmt: skip
        else:
            plan.begin(step, decoder.layers, adam)

    def evaluate(step: int) -> None:
        assert held_out is not None
        log.evaluated(
            step, held_out_loss(decoder, held_out, plan.whole(max(0, step - 1)), config.scale)
        )

    def loss_at(step: int) -> Tensor:
        log.end_step()
        look(step)
        part = plan.draw(step)
        cost = flops_of(decoder.config, train.batch, train.window - 1, part)
        log.begin_step(len(part.layers), cost)
        return loss_of(decoder, windows(train.batch), part, config.scale)

    losses = descend([decoder], loss_at, train, progress, "pretraining", adam=adam, checkpoint=kept)
    log.end_step()
    if held_out is not None:
        evaluate(train.steps)
    return Pretrained(decoder.eval(), losses, log)


def _transition(
    decoder: Decoder,
    windows: Tensor,
    config: RaptrConfig,
    step: int,
    begin: Callable[[], None],
) -> Transition:
    """What begin() and the larger parts do to the loss. Draws from generators of its own."""
    other = replace(config, train=replace(config.train, seed=config.train.seed + 10**9 + step))
    probe = plan_of(other, decoder.config)

    def loss(at: int) -> float:
        return mean_loss(decoder, windows, lambda: probe.draw(at), config.probe_paths, config.scale)

    before = loss(step - 1)
    begin()
    whole = probe.whole(step)
    found = sensitivities(decoder, windows, config.scale, whole.layers)
    return Transition(
        step,
        probe.schedule.at(step - 1).size,
        probe.schedule.at(step).size,
        before,
        loss(step),
        held_out_loss(decoder, windows, whole, config.scale),
        one_left_out(found, config.fixed_of(decoder.config.layers)),
        tuple(one.change for one in found),
    )


def _nothing_is_zero(adam: torch.optim.Optimizer, arguments: Any, named: Any) -> None:
    """A weight without a gradient has one of zero, so that its moments decay."""
    for group in adam.param_groups:
        for weight in group["params"]:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
