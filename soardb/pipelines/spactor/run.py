"""Training a T5 by SpacTor: a first stage under some objective, then span corruption alone.

    objective.py, measure.py, training.py -> [run.py]

    found = run(T5(config), row, SpactorConfig(tau=0.25), end=0)
    found.t5, found.looks[-1].clean

Every objective sees the same windows, left-out pieces and targets in every step of the same seed.
One optimiser goes through both stages: generator and head get no gradient in the second and stay as
they are; the moments of all else go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.models.checkpoint import Checkpoint, Random, mark_of
from soardb.models.t5 import T5
from soardb.models.training import TrainConfig, Windows, descend, expect_tokens
from soardb.pipelines.spactor.measure import Detection, clean_loss, detection
from soardb.pipelines.spactor.objective import (
    OBJECTIVES,
    Lesson,
    Objective,
    ObjectiveConfig,
    SpacTor,
)
from soardb.pipelines.spactor.spans import Spans, corrupted, span_counts

__all__ = ["Look", "Pretrained", "SpactorConfig", "run"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SpactorConfig:
    """How a T5 is trained.

    first   objective of the first stage; the second's is "sc"
    tau     share of the steps that the first stage has: 0 none, 1 or infinity all of them. Not
            verified against the paper
    weights of the parts, and sizes: ObjectiveConfig, none of it verified against the paper
    spans   what is left out: T5's
    train   steps, batch, window, rate
    looks   steps before which it is measured; it is measured after the last anyhow
    held    windows to measure with
    """

    first: Objective = "hybrid"
    tau: float = 0.25
    weights: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    spans: Spans = field(default_factory=Spans)
    train: TrainConfig = field(default_factory=TrainConfig)
    looks: tuple[int, ...] = ()
    held: int = 512

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if self.first not in OBJECTIVES:
            raise InvalidArgument(
                f"expected first one of {', '.join(OBJECTIVES)}, got {self.first!r}"
            )
        if not isinstance(self.tau, int | float) or not self.tau >= 0:
            raise InvalidArgument(
                f"expected tau as a share of the steps, or infinity, got {self.tau!r}"
            )
        for look in self.looks:
            as_int(look, "looks", 0, self.train.steps)
        as_int(self.held, "held", 1, 10_000_000)
        self.weights.check()
        self.spans.check()
        self.train.check()

    def to_json(self) -> dict[str, Any]:
        """Plain values by name; an infinite tau is 1, which is the same."""
        return {**asdict(self), "tau": min(self.tau, 1)}

    @property
    def switch(self) -> int:
        """The first step of the second stage."""
        return self.train.steps if self.tau >= 1 else round(self.tau * self.train.steps)

    def objective(self, step: int) -> Objective:
        """Of a step."""
        return self.first if step < self.switch else "sc"


@dataclass(frozen=True, slots=True)
class Look:
    """What was measured before a step, on windows that are not trained with.

    flops      operations of the steps before
    clean      cross entropy of span corruption on clean inputs, nats a target token
    detection  of generator and head; None where they do not run in the first stage. In the second
               they stay as they are while the encoder goes on
    """

    step: int
    flops: int
    clean: float
    detection: Detection | None

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Look:
        """From to_json()."""
        seen = told["detection"]
        return cls(**{**told, "detection": None if seen is None else Detection(**seen)})


@dataclass(frozen=True, slots=True)
class Pretrained:
    """spactor  the T5, and what was trained beside it
    parts    a step: the parts of its loss by name
    targets  a step: target tokens of span corruption that it had
    flops    a step: its operations
    looks    in order, the last after all steps
    """

    spactor: SpacTor
    parts: list[dict[str, float]]
    targets: list[int]
    flops: list[int]
    looks: list[Look]

    @property
    def t5(self) -> T5:
        """The model."""
        return self.spactor.t5

    def state(self) -> dict[str, Any]:
        """All but the networks, as JSON; what a checkpoint carries."""
        looks = [one.to_json() for one in self.looks]
        return {"parts": self.parts, "targets": self.targets, "flops": self.flops, "looks": looks}

    def restore(self, state: dict[str, Any]) -> None:
        """Be again what state() said."""
        self.parts[:], self.targets[:] = state["parts"], state["targets"]
        self.flops[:] = state["flops"]
        self.looks[:] = [Look.of_json(one) for one in state["looks"]]


def run(
    t5: T5,
    row: I64,
    config: SpactorConfig,
    *,
    end: int,
    held: I64 | None = None,
    look: Callable[[Look, SpacTor], None] = lambda found, spactor: None,
    checkpoint: Path | None = None,
    every: int = 500,
    progress: Progress = lambda stage, share: None,
) -> Pretrained:
    """Train a T5 in place.

    row   (n,) tokens of texts, as training.row_of makes
    end   what targets end with: that of the tokenizer
    held  (m,) tokens to measure with; the row itself unless told
    look  is called at each look, with what was measured
    checkpoint  file of the state, written every so many steps; where there is one of this training,
                it goes on from there, and ends bit by bit as if it had not been stopped

    Errors: InvalidArgument, CorruptStorage of a checkpoint.
    """
    config.check()
    apart = row if held is None else held
    _expect_fit(t5, row, apart, config, end)
    train, told = config.train, t5.config.encoder
    spactor = SpacTor(t5, config.weights, train.seed)
    windows = Windows(row, train.window, train.seed)
    cuts = np.random.default_rng([train.seed, 3])
    random = torch.Generator().manual_seed(train.seed)
    fixed = corrupted(
        Windows(apart, train.window, 12345)(config.held),
        config.spans, told, end, np.random.default_rng(12345),
    )  # fmt: skip
    found = Pretrained(spactor, [], [], [], [])
    kept = None
    if checkpoint is not None:
        of = {"spactor": config.to_json(), "t5": t5.config.to_json(), "end": end}
        marks = {"tokens": mark_of(row), "held": mark_of(apart)}
        randoms: dict[str, Random] = {"windows": windows.random, "cuts": cuts, "masks": random}
        kept = Checkpoint(checkpoint, every, {**of, **marks}, randoms, {"found": found})

    def measured(step: int) -> None:
        seen = None
        if config.switch > 0 and config.first in ("hybrid", "noise", "rtd"):
            seen = detection(spactor, fixed)
            if config.first == "noise":
                seen = replace(seen, area=None)
        one = Look(step, sum(found.flops), clean_loss(t5, fixed), seen)
        found.looks.append(one)
        look(one, spactor)

    def loss_of(step: int) -> Tensor:
        if step in config.looks:
            measured(step)
        batch = corrupted(windows(train.batch), config.spans, told, end, cuts)
        lesson: Lesson = spactor(batch, config.objective(step), random)
        found.parts.append({name: float(one.detach()) for name, one in lesson.parts.items()})
        found.targets.append(int((batch.targets != told.pad).sum()) if "sc" in lesson.parts else 0)
        found.flops.append(lesson.flops)
        return lesson.loss

    descend([spactor], loss_of, train, progress, f"pretraining, {config.first}", checkpoint=kept)
    t5.eval()
    measured(train.steps)
    return found


def _expect_fit(t5: T5, row: I64, held: I64, config: SpactorConfig, end: int) -> None:
    told = t5.config.encoder
    expect_tokens(row, told.text_tokens, "row")
    expect_tokens(held, told.text_tokens, "held")
    as_int(end, "end", 0, told.text_tokens - 1)
    left_out, pieces = span_counts(config.train.window, config.spans)
    longest = max(config.train.window - left_out + pieces, left_out + pieces + 1)
    if pieces > told.sentinels or longest > told.context:
        raise InvalidArgument(
            f"expected windows of at most {told.sentinels} pieces and {told.context} tokens, got "
            f"{pieces} and {longest}; take shorter windows, or a larger context"
        )
