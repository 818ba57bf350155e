"""A policy is fine-tuned: what is written at each step, after the case that is read.

    mixture.py, a network -> [tuning.py] -> rest.py

Prompts are without examples and only what is written counts in the loss, its end included, unless
a weight is given to what is read: a small model then learns to copy from every name that a prompt
says again. All weights learn, or low-rank additions to them that are merged at the end (LoRA, Hu et
al., arXiv 2106.09685), which the method's authors do not use. Sizes, rates and lengths are not told
in arXiv 2312.10003: not verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable
from soardb.models.checkpoint import Checkpoint
from soardb.models.decoder import Decoder
from soardb.models.encoder import padded
from soardb.models.tokens import Tokens
from soardb.models.training import Progress, TrainConfig, descend
from soardb.options import as_number
from soardb.pipelines.agent.mixture import Example

__all__ = ["TuneConfig", "Tuned", "held_out", "tune"]


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """How a policy is fine-tuned.

    epochs   times that each example is read, also a part of one
    tokens   of a batch at most, with its pads
    rate, warm, weight_decay, clip, seed  as of a TrainConfig; warm is a share of the steps
    lora     rank of the additions; None: all weights learn
    reading  weight of the mean loss of prompts, beside that of what is written
    """

    epochs: float = 2.0
    tokens: int = 8192
    rate: float = 1e-3
    warm: float = 0.05
    weight_decay: float = 0.05
    clip: float = 1.0
    lora: int | None = None
    seed: int = 0
    reading: float = 0.0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.tokens, "tokens", 16, 100_000_000)
        if as_number(self.epochs, "epochs") <= 0:
            raise InvalidArgument(f"expected epochs above 0, got {self.epochs}")
        if as_number(self.reading, "reading") < 0:
            raise InvalidArgument(f"expected reading of at least 0, got {self.reading}")
        if not 0 <= as_number(self.warm, "warm") < 1:
            raise InvalidArgument(f"expected warm as a share of the steps, got {self.warm}")
        if self.lora is not None:
            as_int(self.lora, "lora", 1, 10_000)
        self.train(1).check()

    def train(self, steps: int) -> TrainConfig:
        """For so many steps."""
        return TrainConfig(
            steps, 1, 2, self.rate, round(self.warm * steps), self.weight_decay, self.clip,
            self.seed,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tuned:
    """losses: of each step, nats a token of what is written, with the weighted one of prompts where
    these have a weight; examples that were learned from; too_long: others.
    """

    losses: list[float]
    examples: int
    too_long: int


@dataclass(frozen=True, slots=True)
class _Row:
    """Tokens of an example; begins: of what is written."""

    tokens: list[int]
    begins: int


def tune(
    network: Any,
    tokens: Tokens,
    examples: Sequence[Example],
    config: TuneConfig | None = None,
    progress: Progress = lambda stage, share: None,
    checkpoint: Checkpoint | None = None,
) -> Tuned:
    """Fine-tune a Decoder, or a causal model of Hugging Face, in place.

    Examples that do not fit into the context are left out, and counted. Errors: InvalidArgument;
    Unavailable where peft is asked for and missing.
    """
    config = TuneConfig() if config is None else config
    config.check()
    rows = _rows(network, tokens, examples)
    if not rows:
        raise InvalidArgument(
            f"expected examples of at most {_context(network)} tokens, none of {len(examples)} is"
        )
    batches = _batches(rows, config)
    learning = network if config.lora is None else _with_lora(network, config.lora)
    learning.train()
    try:
        losses = descend(
            [learning],
            lambda step: _loss(network, [rows[row] for row in batches[step]], config.reading),
            config.train(len(batches)),
            progress,
            "fine-tuning",
            checkpoint=checkpoint,
        )
    finally:
        learning.eval()
        if config.lora is not None:
            learning.merge_and_unload()
            network.requires_grad_(True)
    return Tuned(losses, len(rows), len(examples) - len(rows))


def held_out(network: Any, tokens: Tokens, examples: Sequence[Example], at_once: int = 16) -> float:
    """Mean loss of what is written in these examples, in nats a token."""
    rows = sorted(_rows(network, tokens, examples), key=lambda row: len(row.tokens))
    if not rows:
        raise InvalidArgument("expected examples that fit into the context, there are none")
    total, count = 0.0, 0
    with torch.inference_mode():
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            written = sum(len(row.tokens) - row.begins for row in some)
            total += float(_loss(network, some)) * written
            count += written
    return total / count


def _rows(network: Any, tokens: Tokens, examples: Sequence[Example]) -> list[_Row]:
    """Those that fit."""
    found = []
    for one in examples:
        prompt, target = tokens.encode(one.prompt), tokens.encode(one.target)
        end = [] if tokens.end is None else [tokens.end]
        found.append(_Row([*prompt, *target, *end], len(prompt)))
    most = _context(network)
    return [row for row in found if len(row.tokens) <= most]


def _batches(rows: Sequence[_Row], config: TuneConfig) -> list[list[int]]:
    """Numbers of rows of like length under the budget, in an order that is drawn, for all epochs.

    A part of an epoch is its first part. A batch has at least one row.
    """
    random = np.random.default_rng(config.seed)
    total = max(1, round(config.epochs * len(rows)))
    order = np.concatenate([random.permutation(len(rows)) for _ in range(-(-total // len(rows)))])[
        :total
    ].tolist()
    batches: list[list[int]] = []
    for first in range(0, total, 1024):  # long and short ones from near each other alone
        some = sorted(order[first : first + 1024], key=lambda row: len(rows[row].tokens))
        batch: list[int] = []
        for row in some:
            if batch and (len(batch) + 1) * len(rows[row].tokens) > config.tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    return [batches[place] for place in random.permutation(len(batches))]


def _loss(network: Any, rows: Sequence[_Row], reading: float = 0.0) -> Tensor:
    """Mean cross entropy of what is written, and that of prompts times `reading`; a scalar, nats.

    Pads stand behind, where nobody looks from.
    """
    read = padded([row.tokens for row in rows], 0)
    written = torch.zeros(read.shape, dtype=torch.bool)
    prompts = torch.zeros_like(written)
    for number, row in enumerate(rows):
        written[number, row.begins : len(row.tokens)] = True
        prompts[number, 1 : row.begins] = True
    is_ours = isinstance(network, Decoder)
    states = network(read[:, :-1]) if is_ours else network(input_ids=read[:, :-1]).logits

    def loss(counts: Tensor) -> Tensor:
        some = states[counts[:, 1:]]
        logits = network.logits(some) if is_ours else some
        return functional.cross_entropy(logits, read[:, 1:][counts[:, 1:]])

    found = loss(written)
    return found + reading * loss(prompts) if reading and bool(prompts.any()) else found


def _context(network: Any) -> int:
    config = network.config
    return int(config.context if isinstance(network, Decoder) else config.max_position_embeddings)


def _with_lora(network: nn.Module, rank: int) -> Any:
    """The network with additions of a rank beside its linear layers, which alone learn."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise Unavailable("peft is not installed; pip install 'soardb[lora]'") from error
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, part in network.named_modules()
            if isinstance(part, nn.Linear) and not name.endswith("lm_head")
        }
    )
    told = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    return peft.LoraModel(network, told, "policy")
