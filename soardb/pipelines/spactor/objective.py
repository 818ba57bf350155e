"""SpacTor's losses: what a batch of corrupted texts teaches the T5, the generator and the head.

    spans.py, masks.py, generator.py, head.py, t5.py -> [objective.py] -> run.py

The hybrid objective (Ye et al., arXiv 2401.13160) reads each text once: the generator replaces some
tokens outside the pieces that were left out, the encoder reads the result, a head at each of its
tokens says whether it was replaced, and the decoder writes what was left out.

    loss = (masked guessing + lambda1 x replaced or not + lambda2 x what was left out) / lambda2

Divided so, the last part has one scale in both stages and under every objective. The moments of the
optimiser, which stay when the stage changes, then go on to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.t5 import T5
from soardb.options import as_number, as_share
from soardb.pipelines.spactor import flops
from soardb.pipelines.spactor.generator import Generator, GeneratorConfig, said
from soardb.pipelines.spactor.head import HEADS, HeadKind, ReplacedHead
from soardb.pipelines.spactor.masks import is_text, masked
from soardb.pipelines.spactor.spans import Corrupted

__all__ = ["OBJECTIVES", "Lesson", "Noised", "Objective", "ObjectiveConfig", "SpacTor"]

Objective = Literal["sc", "hybrid", "noise", "rtd", "sc+mlm"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """Weights and sizes. None of them is verified against the paper, whose text told no number.

    lambda1    weight of replaced-token detection, beside 1 of masked guessing
    lambda2    weight of span corruption; lambda2 / lambda1 is what matters under Adam
    mask_rate  share of the tokens outside the pieces that is replaced; BERT's and ELECTRA's
    generator  its size
    head       "mlp", two maps as ELECTRA's, or "linear"
    """

    lambda1: float = 10.0
    lambda2: float = 10.0
    mask_rate: float = 0.15
    generator: GeneratorConfig = GeneratorConfig()  # noqa: RUF009  # frozen
    head: HeadKind = "mlp"

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if as_number(self.lambda1, "lambda1") < 0:
            raise InvalidArgument(f"expected lambda1 of at least 0, got {self.lambda1}")
        if as_number(self.lambda2, "lambda2") <= 0:
            raise InvalidArgument(f"expected lambda2 above 0, got {self.lambda2}")
        as_share(self.mask_rate, "mask_rate")
        if self.head not in HEADS:
            raise InvalidArgument(f"expected head one of {', '.join(HEADS)}, got {self.head!r}")
        self.generator.check()


@dataclass(frozen=True, slots=True)
class Noised:
    """A batch after the generator.

    seen     (b, s) what the T5 reads: a drawn token at each masked place, and no mask
    where    (b, s) true for the masked places
    wanted   (m,) tokens that stood there; logits (m, text tokens) of the generator
    """

    seen: Tensor
    where: Tensor
    wanted: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Lesson:
    """loss to descend; parts by name, "sc", "mlm", "rtd", those that were looked at; and the
    operations of learning from it, see flops.py.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    flops: int


class SpacTor(nn.Module):
    """A T5 with a generator and a head beside it, which are of no use once it is trained."""

    def __init__(self, t5: T5, config: ObjectiveConfig, seed: int = 0) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.t5 = t5
        encoder = t5.encoder
        self.generator = Generator(encoder.config, config.generator, encoder.embedding, seed + 1)
        self.head = ReplacedHead(encoder.config.width, config.head, seed + 2)

    def forward(self, batch: Corrupted, objective: Objective, random: torch.Generator) -> Lesson:
        """What a batch teaches.

        "sc"      span corruption alone: the second stage, and the baseline
        "hybrid"  all three parts
        "noise"   as hybrid without replaced-token detection: what the replacements alone do
        "rtd"     as hybrid without span corruption; the decoder does not run
        "sc+mlm"  the T5's encoder itself guesses the masked tokens, no generator runs, and masks
                  reach the T5: here alone

        Draws from `random` for all but "sc".
        """
        inputs, parts, seen, cost = batch.inputs, {}, batch.inputs, 0
        if objective in ("hybrid", "noise", "rtd"):
            noised = self.noised(inputs, random)
            seen = noised.seen
            parts["mlm"] = functional.cross_entropy(noised.logits, noised.wanted)
            cost += self._generating(inputs, len(noised.wanted))
        where = torch.zeros_like(inputs, dtype=torch.bool)
        if objective == "sc+mlm":
            where = self._masked(inputs, random)
            seen = inputs.masked_fill(where, self.t5.encoder.config.mask)
        encoded = self.t5.encoder(seen)
        cost += flops.encoding(self.t5.config, *inputs.shape)
        if objective == "sc+mlm":
            parts["mlm"] = self._guessed(encoded[where], inputs[where])
            cost += self._guessing(len(inputs[where]))
        if objective in ("hybrid", "rtd"):
            there = is_text(inputs, self.t5.encoder.config)
            parts["rtd"] = functional.binary_cross_entropy_with_logits(
                self.head(encoded[there]), (seen != inputs)[there].to(encoded.dtype)
            )
            cost += flops.judging(encoded.shape[-1], int(there.sum()), self.config.head == "mlp")
        if objective != "rtd":
            parts["sc"] = self.t5.loss(encoded, seen, batch.targets)
            cost += flops.decoding(
                self.t5.config, len(inputs), inputs.shape[1], batch.targets.shape[1]
            )
        return Lesson(self._sum(parts), parts, flops.LEARNING * cost)

    def noised(self, inputs: Tensor, random: torch.Generator) -> Noised:
        """Mask some text tokens of (b, s) inputs, and put what the generator draws there."""
        where = self._masked(inputs, random)
        logits = self.generator(inputs.masked_fill(where, self.t5.encoder.config.mask), where)
        seen = inputs.masked_scatter(where, said(logits, random))
        return Noised(seen, where, inputs[where], logits)

    def _masked(self, inputs: Tensor, random: torch.Generator) -> Tensor:
        return masked(inputs, self.config.mask_rate, self.t5.encoder.config, random)

    def _guessed(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        """Masked guessing by the T5's own encoder."""
        weight = self.t5.encoder.embedding.weight[: self.t5.encoder.config.text_tokens]
        return functional.cross_entropy(functional.linear(hidden, weight), wanted)

    def _sum(self, parts: Mapping[str, Tensor]) -> Tensor:
        weights = {"mlm": 1.0, "rtd": self.config.lambda1, "sc": self.config.lambda2}
        found = sum((weights[name] * part for name, part in parts.items()), start=torch.zeros(()))
        return found / self.config.lambda2

    def _generating(self, inputs: Tensor, places: int) -> int:
        made, (rows, length) = self.generator, inputs.shape
        return flops.generating(
            made.shape, made.embedding.embedding_dim, made.text_tokens, (rows, length), places
        )

    def _guessing(self, places: int) -> int:
        told = self.t5.encoder.config
        return 2 * places * told.width * told.text_tokens
