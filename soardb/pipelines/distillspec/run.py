"""DistillSpec: train a draft towards a target, so that its tokens are kept more often.

    models, texts -> [run.py] -> divergences.py, training.py

    run(target, draft, windows, DistillConfig(divergence="fkl", fixed=0, student=1))

The coin of DistillSpec (arXiv 2310.08461, algorithm A.2) is thrown for each batch: texts of the
data, of the draft itself (on-policy), or of the target. Sampling has no gradient; both laws are at
temperature 1 in the loss, which is a mean over the tokens of a text, and then over texts.
"""

from __future__ import annotations

import copy
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
from soardb.models.sampling import Sampling
from soardb.models.session import sampled
from soardb.models.training import TrainConfig, Windows, descend
from soardb.options import as_number
from soardb.pipelines.distillspec.divergences import DIVERGENCES, divergence
from soardb.pipelines.distillspec.measure import until

__all__ = ["PRESETS", "DistillConfig", "Distilled", "run"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """What is learned from, and how.

    divergence  "fkl", "rkl", "jsd", "tvd", "tvd++"; or "ce": cross entropy of the texts' own
                tokens, which with fixed=1 is the control of equal steps, and with the target's
                texts SeqKD
    beta        of "jsd"
    fixed       probability that a batch comes from the data
    student     probability that one that does not is written by the draft; else by the target
    prompt, length  tokens that are given, and that are written after them
    temperature of what is written
    train       steps, batch, rate, seed; train.window is prompt + length
    """

    divergence: str = "fkl"
    beta: float = 0.5
    fixed: float = 0.0
    student: float = 1.0
    prompt: int = 8
    length: int = 24
    temperature: float = 1.0
    train: TrainConfig = field(default_factory=lambda: TrainConfig(300, rate=1e-3))

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if self.divergence not in (*DIVERGENCES, "ce"):
            raise InvalidArgument(
                f"expected divergence one of {', '.join(DIVERGENCES)}, ce, got {self.divergence!r}"
            )
        for name in ("fixed", "student"):
            if not 0 <= as_number(getattr(self, name), name) <= 1:
                raise InvalidArgument(f"expected {name} in 0..1, got {getattr(self, name)}")
        if not 0 < as_number(self.beta, "beta") < 1:
            raise InvalidArgument(f"expected beta between 0 and 1, got {self.beta}")
        if as_number(self.temperature, "temperature") < 0:
            raise InvalidArgument(f"expected a temperature of at least 0, got {self.temperature}")
        as_int(self.prompt, "prompt", 1, 1_000_000)
        as_int(self.length, "length", 1, 1_000_000)
        self.train.check()


PRESETS: dict[str, DistillConfig] = {
    "SeqKD": DistillConfig("ce", fixed=0, student=0),
    "SupKD": DistillConfig("fkl", fixed=1),
    "ImitKD": DistillConfig("fkl", fixed=0.5, student=1),
    "f-Distill": DistillConfig("tvd", fixed=0, student=0.5),
    "GKD": DistillConfig("fkl", fixed=0, student=1),
    "control": DistillConfig("ce", fixed=1),
}
"""Table 1 of the paper by name, SeqKD with texts that are written as it goes; and the control."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """draft: trained; losses: of each step; sources: how many batches came from data, draft and
    target.
    """

    draft: Decoder
    losses: list[float]
    sources: dict[str, int]


def run(
    target: Decoder,
    draft: Decoder,
    row: I64,
    config: DistillConfig,
    *,
    data: I64 | None = None,
    end: int | None = None,
    progress: Progress = lambda stage, share: None,
) -> Distilled:
    """Train a copy of the draft; the target and the draft that is given stay as they are.

    row   (n,) tokens of texts, as training.row_of makes, whose windows begin with the prompts
    data  likewise, where "data" are other texts than those
    end   the token after which a text that was written does not count

    Costs a step: writing `length` tokens, and a pass over them of the target, and of the draft
    there and back. Errors: InvalidArgument.
    """
    config.check()
    if target.config.vocabulary != draft.config.vocabulary:
        raise InvalidArgument(
            "expected a draft with the target's tokens, got "
            f"{draft.config.vocabulary} and {target.config.vocabulary}"
        )
    train = replace(config.train, window=config.prompt + config.length)
    if train.window > min(target.config.context, draft.config.context):
        raise InvalidArgument(f"expected prompt + length within both contexts, got {train.window}")
    student = copy.deepcopy(draft).train()
    windows = Windows(row, train.window, train.seed)
    fixed = windows if data is None else Windows(data, train.window, train.seed)
    coin = np.random.default_rng([train.seed, 1])
    random = torch.Generator().manual_seed(train.seed)
    sources = {"data": 0, "draft": 0, "target": 0}

    def loss_of(step: int) -> Tensor:
        mask = torch.ones(train.batch, config.length, dtype=torch.bool)
        if coin.random() < config.fixed:
            sources["data"] += 1
            texts = fixed(train.batch)
        else:
            by_student = coin.random() < config.student
            sources["draft" if by_student else "target"] += 1
            heads = windows(train.batch)[:, : config.prompt]
            law = Sampling(config.temperature)
            writer = student if by_student else target
            said = sampled(writer, heads, config.length, law, random, end)
            mask = until(said, end)
            texts = torch.cat([heads, said], 1)
        return _loss(target, student, texts, mask, config)

    losses = descend([student], loss_of, train, progress, f"distilling, {config.divergence}")
    return Distilled(student.eval(), losses, sources)


def _loss(
    target: Decoder, student: Decoder, texts: Tensor, mask: Tensor, config: DistillConfig
) -> Tensor:
    """Mean over texts of the mean over their tokens after the prompt."""
    before, first = texts[:, :-1], config.prompt - 1
    logits = student.logits(student(before)[:, first:])
    if config.divergence == "ce":
        said = texts[:, config.prompt :]
        each = functional.cross_entropy(logits.transpose(1, 2), said, reduction="none")
    else:
        with torch.no_grad():
            wanted = target.logits(target(before)[:, first:])
        kind = next(one for one in DIVERGENCES if one == config.divergence)
        each = divergence(kind, wanted, logits, config.beta)
    return ((each * mask).sum(1) / mask.sum(1)).mean()
