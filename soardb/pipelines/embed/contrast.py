"""Contrastive fine-tuning: a question and its text come near, the other texts of the batch go away.

    pairs.py, models/encoder.py -> [contrast.py] -> embedder.py

The loss of a pair is the cross entropy of its text among all texts of the batch, by the product of
unit vectors over a temperature (in-batch negatives; Henderson et al., arXiv 1705.00652; the
temperature as in SimCSE, arXiv 2104.08821), and of its question among all questions likewise. The
same text, or the same question, twice in a batch is no wrong answer and is left out. Vectors are
levelled (see models/encoder.py): without that the loss is soonest made small by vectors that are
all alike, from which nothing leads away.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.encoder import Encoder, level, padded
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, descend
from soardb.options import as_number
from soardb.pipelines.embed.pairs import Pair

__all__ = ["ContrastConfig", "contrast", "contrasted"]

Progress = Callable[[str, float], None]

_LEVELS = 2048  # pairs by which an encoder levels, at the end
_AT_ONCE = 256  # texts


@dataclass(frozen=True, slots=True)
class ContrastConfig:
    """temperature  what products are divided by: the smaller, the more the nearest texts count
    both_ways    questions are also told apart for each text
    train        batch: pairs a step, so that each has batch - 1 wrong answers; window: tokens of a
                 question or text, what is longer is cut
    """

    temperature: float = 0.1
    both_ways: bool = True
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(1000, 64, 48, 1e-3, weight_decay=0.01)
    )

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if as_number(self.temperature, "temperature") <= 0:
            raise InvalidArgument(f"expected a temperature above 0, got {self.temperature}")
        if self.train.batch < 2:
            raise InvalidArgument("expected batches of at least 2 pairs, got 1")
        self.train.check()


def contrasted(
    encoder: Encoder,
    tokens: Tokens,
    pairs: Sequence[Pair],
    config: ContrastConfig,
    progress: Progress = lambda stage, share: None,
) -> tuple[Encoder, list[float]]:
    """A fine-tuned copy of an encoder, and the loss of every step; the encoder stays as it is.

    Every pair is seen once before one is seen twice. Errors: InvalidArgument.
    """
    config.check()
    if len(pairs) < config.train.batch:
        raise InvalidArgument(
            f"expected at least a batch of {config.train.batch} pairs, got {len(pairs)}"
        )
    made = _levelled(encoder).train()
    window, pad = config.train.window, encoder.config.pad
    random = np.random.default_rng([config.train.seed, 6])
    queries = [tokens.encode(pair.query)[:window] for pair in pairs]
    texts = [tokens.encode(pair.text)[:window] for pair in pairs]
    if not all(queries) or not all(texts):
        raise InvalidArgument("expected pairs with tokens in question and text, got an empty one")
    waiting: list[int] = []

    def loss_of(step: int) -> Tensor:
        while len(waiting) < config.train.batch:
            waiting.extend(random.permutation(len(pairs)).tolist())
        part, waiting[:] = waiting[: config.train.batch], waiting[config.train.batch :]
        both = [queries[row] for row in part] + [texts[row] for row in part]
        asked, told = made.vectors(padded(both, pad)).chunk(2)
        same_query = _alike([pairs[row].query for row in part])
        same_text = _alike([pairs[row].text for row in part])
        return contrast(asked, told, same_query, same_text, config)

    losses = descend([made], loss_of, config.train, progress, "fine-tuning on pairs")
    some = random.permutation(len(pairs))[:_LEVELS].tolist()
    _measure_levels(made, [rows[row] for row in some for rows in (queries, texts)])
    return made.eval(), losses


def _levelled(encoder: Encoder) -> Encoder:
    """A copy that levels its vectors."""
    made = copy.deepcopy(encoder)
    if made.level is None:
        made.config = replace(encoder.config, levelled=True)
        made.level = level(made.config.width)
    return made


def _measure_levels(encoder: Encoder, rows: Sequence[list[int]]) -> None:
    """Have the encoder level by the means and deviations of these rows, as it is now."""
    assert encoder.level is not None
    assert encoder.level.running_mean is not None
    assert encoder.level.running_var is not None
    pad = encoder.config.pad
    with torch.no_grad():
        parts = [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]
        means = torch.cat([encoder.means(padded(list(part), pad)) for part in parts])
        encoder.level.running_mean.copy_(means.mean(0))
        encoder.level.running_var.copy_(means.var(0))


def contrast(
    queries: Tensor, texts: Tensor, same_query: Tensor, same_text: Tensor, config: ContrastConfig
) -> Tensor:
    """The mean loss of b pairs.

    queries, texts  (b, d) of length one, row by row a pair
    same_query, same_text  (b, b) true where two pairs have the same one
    """
    products = queries @ texts.T / config.temperature  # (b, b)
    others = ~torch.eye(len(products), dtype=torch.bool)
    # Another text of the same question is right too, and so is the same text of another pair.
    unclear = (same_query | same_text) & others
    products = products.masked_fill(unclear, -torch.inf)
    right = torch.arange(len(products))
    loss = functional.cross_entropy(products, right)
    if config.both_ways:
        loss = (loss + functional.cross_entropy(products.T, right)) / 2
    return loss


def _alike(words: Sequence[str]) -> Tensor:
    """(b, b) true where two are the same."""
    _, number = np.unique(words, return_inverse=True)
    found = torch.from_numpy(number)
    return found[:, None] == found[None]
