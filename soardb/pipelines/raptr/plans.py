"""What runs at each step of a training: RaPTr's random parts, and the face that baselines share.

schedule.py, paths.py, widths.py -> [plans.py] -> baselines.py, run.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from soardb.models.checkpoint import Random
from soardb.pipelines.raptr.paths import Paths, keep_share
from soardb.pipelines.raptr.schedule import Schedule
from soardb.pipelines.raptr.subnetwork import Subnetwork
from soardb.pipelines.raptr.widths import Widths

__all__ = ["Plan", "RandomPlan"]


class Plan(Protocol):
    """Which part of the network learns, step by step."""

    @property
    def schedule(self) -> Schedule:
        """Stages, at whose beginnings transitions are looked at."""

    @property
    def randoms(self) -> Mapping[str, Random]:
        """What it draws from, by name, for a checkpoint."""

    def begin(self, step: int, layers: nn.ModuleList, adam: torch.optim.Optimizer) -> None:
        """Change the network before a step, where the plan does."""

    def draw(self, step: int) -> Subnetwork:
        """What learns in a step. Steps come in order, each once."""

    def whole(self, step: int) -> Subnetwork:
        """What would be used if training ended before this step."""


class RandomPlan:
    """RaPTr: a path of the stage's depth, and parts of its layers where widths grow too.

    A schedule of one stage is dropping with a constant probability, or plain training.
    """

    def __init__(
        self,
        schedule: Schedule,
        paths: Paths,
        widths: Widths | None = None,
        heads: Schedule | None = None,
        *,
        fixed_whole: bool = True,
    ) -> None:
        self.schedule, self.paths = schedule, paths
        self.widths, self.heads, self.fixed_whole = widths, heads, fixed_whole

    @property
    def randoms(self) -> Mapping[str, Random]:
        """Of paths, and of widths where there are some."""
        found: dict[str, Random] = {"paths": self.paths.random}
        if self.widths is not None:
            found["widths"] = self.widths.random
        return found

    def begin(self, step: int, layers: nn.ModuleList, adam: torch.optim.Optimizer) -> None:
        """Nothing: all layers are there from the start."""

    def draw(self, step: int) -> Subnetwork:
        """A path for a batch, of the stage that the step is in."""
        return self.drawn(self.schedule.at(step).size, self._heads_at(step))

    def drawn(self, depth: float, heads: float | None = None) -> Subnetwork:
        """A path of this depth, with so many heads of its layers; all unless told."""
        layers = self.paths(depth)
        fixed = self.paths.fixed
        share = keep_share(depth, self.paths.layers, len(fixed))
        keep = tuple(1.0 if layer in fixed else share for layer in layers)
        parts = {}
        if self.widths is not None and heads is not None and heads < self.widths.config.heads:
            narrow = [n for n in layers if not (self.fixed_whole and n in fixed)]
            parts = {number: self.widths(heads) for number in narrow}
        return Subnetwork(layers, keep, parts)

    def _heads_at(self, step: int) -> float | None:
        return None if self.heads is None else self.heads.at(step).size

    def whole(self, step: int) -> Subnetwork:
        """All layers, at any time."""
        return Subnetwork.of(range(self.paths.layers))
