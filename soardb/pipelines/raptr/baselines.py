"""What RaPTr is compared with, each at the cost that was counted.

    config.py, plans.py -> [baselines.py] -> run.py, benchmarks

full        the whole network for as many steps; or, at equal cost, for fewer, whose rate falls to
            the end of them
constant    paths of the same depth throughout, the average of RaPTr's stages
dropping    progressive layer dropping (Zhang and He, arXiv 2010.13369): ever fewer layers, later
            ones first; each is there with its own probability
falling     RaPTr's stages backwards, which differs from it in nothing but the order
stacking    gradual stacking (Gong et al., 2019; Reddi et al., 2023): a small network that grows by
            copies of its top layers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from soardb.errors import InvalidArgument
from soardb.models.checkpoint import Random
from soardb.models.config import DecoderConfig
from soardb.models.flops import Breadth, pass_flops
from soardb.pipelines.raptr.config import Moments, RaptrConfig
from soardb.pipelines.raptr.paths import Paths
from soardb.pipelines.raptr.plans import Plan, RandomPlan
from soardb.pipelines.raptr.schedule import Schedule
from soardb.pipelines.raptr.subnetwork import Subnetwork
from soardb.pipelines.raptr.widths import Widths

__all__ = [
    "Dropping",
    "Stacking",
    "constant",
    "dropping",
    "falling",
    "full",
    "full_at_equal_flops",
    "plan_of",
    "planned_flops",
    "stacking",
]


class Dropping:
    """Progressive layer dropping: theta(t) = (1 - limit) exp(-speed t / T) + limit, and layer l of
    L is there with probability 1 - l (1 - theta) / L.

    The formulas are remembered, not verified against that paper.
    """

    def __init__(
        self, layers: int, steps: int, limit: float = 0.5, speed: float = 100.0, seed: int = 0
    ) -> None:
        self.layers, self.limit, self.speed = layers, limit, speed
        self.random = np.random.default_rng([seed, 4])
        self.schedule = Schedule.parsed(str(layers), steps)

    @property
    def randoms(self) -> Mapping[str, Random]:
        """Of the layers."""
        return {"dropping": self.random}

    def begin(self, step: int, layers: nn.ModuleList, adam: torch.optim.Optimizer) -> None:
        """Nothing."""

    def shares(self, step: int) -> list[float]:
        """How likely each layer is to run."""
        done = math.exp(-self.speed * step / self.schedule.steps)
        theta = (1 - self.limit) * done + self.limit
        return [1 - (number + 1) * (1 - theta) / self.layers for number in range(self.layers)]

    def draw(self, step: int) -> Subnetwork:
        """Each layer by its own probability."""
        shares = self.shares(step)
        drawn = [number for number in range(self.layers) if self.random.random() < shares[number]]
        return Subnetwork(tuple(drawn), tuple(shares[number] for number in drawn))

    def whole(self, step: int) -> Subnetwork:
        """All layers."""
        return Subnetwork.of(range(self.layers))


class Stacking:
    """The lowest layers alone at first; at each stage the top ones are copied onto the top.

    moments  of the optimiser for copied layers: "fresh", or "copied" too
    """

    def __init__(self, schedule: Schedule, moments: Moments = "fresh") -> None:
        self.schedule, self.moments = schedule, moments

    @property
    def randoms(self) -> Mapping[str, Random]:
        """None."""
        return {}

    def begin(self, step: int, layers: nn.ModuleList, adam: torch.optim.Optimizer) -> None:
        """Copy, where a stage begins."""
        if not self.schedule.begins(step):
            return
        before, now = self._depth(step - 1), self._depth(step)
        for number in range(before, now):  # the top one of the old ones comes out on top
            self._copy(layers[before - 1 - (now - 1 - number) % before], layers[number], adam)

    def _copy(self, source: nn.Module, to: nn.Module, adam: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for old, new in zip(source.parameters(), to.parameters(), strict=True):
                new.copy_(old)
                if self.moments == "copied" and old in adam.state:
                    adam.state[new] = {name: m.clone() for name, m in adam.state[old].items()}

    def draw(self, step: int) -> Subnetwork:
        """All layers that there are by now."""
        return Subnetwork.of(range(self._depth(step)))

    def whole(self, step: int) -> Subnetwork:
        """The same: there is no larger network yet."""
        return self.draw(min(step, self.schedule.steps - 1))

    def _depth(self, step: int) -> int:
        return round(self.schedule.at(step).size)


def plan_of(config: RaptrConfig, decoder: DecoderConfig) -> Plan:
    """What config.method says, seeded by config.train.seed."""
    seed, schedule = config.train.seed, config.schedule(decoder.layers)
    if config.method == "stacking":
        return Stacking(schedule, config.moments)
    if config.method == "dropping":
        return Dropping(decoder.layers, config.train.steps, config.limit, config.speed, seed)
    paths = Paths(decoder.layers, config.fixed_of(decoder.layers), config.paths, seed)
    heads = config.widths(decoder.heads)
    widths = None if heads is None else Widths(decoder, seed)
    return RandomPlan(schedule, paths, widths, heads, fixed_whole=config.fixed_whole)


def planned_flops(config: RaptrConfig, decoder: DecoderConfig) -> float:
    """What a training is expected to cost, counted as models/flops.py does; evaluation aside."""
    rows, tokens = config.train.batch, config.train.window - 1
    nothing = pass_flops(decoder, rows, tokens, 0)
    layer = (pass_flops(decoder, rows, tokens) - nothing) / decoder.layers
    steps = config.train.steps
    if config.method == "dropping":
        plan = Dropping(decoder.layers, steps, config.limit, config.speed)
        return nothing * steps + layer * sum(sum(plan.shares(step)) for step in range(steps))
    schedule, heads = config.schedule(decoder.layers), config.widths(decoder.heads)
    total = nothing * steps + layer * schedule.mean * steps
    if heads is None or config.method == "stacking":
        return total
    fixed = len(config.fixed_of(decoder.layers)) if config.fixed_whole else 0
    whole, widths = Breadth.whole(decoder), Widths(decoder)
    for stage, wide in zip(schedule.stages, heads.stages, strict=True):
        narrow = widths.breadth(wide.size)
        saved = pass_flops(decoder, rows, tokens, [whole]) - pass_flops(
            decoder, rows, tokens, [narrow]
        )
        total -= saved * (stage.size - fixed) * stage.steps
    return total


# --- RaPTr's configuration, made into one of a baseline -------------------------------------------


def full(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """The whole network, as many steps."""
    return replace(config, method="random", depths=str(decoder.layers), warm_up=0, heads=None)


def full_at_equal_flops(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """The whole network, as many steps as cost the same, its rate falling to the end of them."""
    whole = full(config, decoder)
    steps = planned_flops(config, decoder) * whole.train.steps / planned_flops(whole, decoder)
    return replace(whole, train=replace(whole.train, steps=max(1, round(steps))))


def constant(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """Paths of one depth, the average of the stages: stochastic depth at the same cost."""
    mean = config.schedule(decoder.layers).mean
    return replace(config, method="random", depths=repr(mean), warm_up=0, heads=None)


def falling(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """The stages backwards. Errors: InvalidArgument for what is no matter of their order."""
    if config.lengths != "equal" or config.warm_up or config.heads is not None:
        raise InvalidArgument(
            "expected equal stages without warm_up and heads, to be taken backwards, got "
            f"{config.lengths!r}, {config.warm_up} and {config.heads}"
        )
    depths = "-".join(reversed(config.depths.split("-")))
    return replace(config, method="random", depths=depths, warm_up=0, heads=None)


def stacking(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """A network that grows to the depth of each stage; it is always whole, so nothing is scaled."""
    return replace(config, method="stacking", scale="none", skipped="frozen", warm_up=0, heads=None)


def dropping(config: RaptrConfig, decoder: DecoderConfig) -> RaptrConfig:
    """Progressive layer dropping, to a limit with which it costs the same on average.

    Layers are multiplied by 1 / p, as there. Where no limit drops enough, the lowest, 1 / L.
    """
    steps, layers = config.train.steps, decoder.layers
    wanted = config.schedule(layers).mean / layers
    theta = 1 - (1 - wanted) * 2 * layers / (layers + 1)
    fallen = float(np.mean(np.exp(-config.speed * np.arange(steps) / steps)))
    limit = min(1.0, max(1 / layers, (theta - fallen) / (1 - fallen)))
    return replace(
        config, method="dropping", scale="inverse", limit=limit, depths=str(layers), warm_up=0,
        heads=None,
    )  # fmt: skip
