"""What a pretrained encoder is worth: fine-tuned on a few labelled texts, and asked about others.

    encoder.py, training.py -> [classify.py] -> benchmarks

A map from the mean state of a text to classes, learned together with the encoder. T5 itself writes
the name of the class; the map asks of the encoder alone, which is what replaced-token detection
trains.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.encoder import Encoder, padded
from soardb.models.training import TrainConfig, descend

__all__ = ["Classifier", "fine_tuned"]

Progress = Callable[[str, float], None]


class Classifier(nn.Module):
    """An encoder, and a map from the mean state of a text to classes, which begins at 0.

    longest  tokens of a text that are read
    """

    def __init__(self, encoder: Encoder, classes: int, longest: int) -> None:
        super().__init__()
        self.encoder, self.longest = encoder, longest
        self.map = nn.Linear(encoder.config.width, classes)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t) tokens -> (b, classes) logits."""
        found: Tensor = self.map(self.encoder.means(tokens))
        return found

    def said(self, rows: Sequence[list[int]], batch: int = 128) -> Tensor:
        """Tokens of n texts -> (n,) the likeliest class of each."""
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        found = torch.empty(len(rows), dtype=torch.int64)
        with torch.inference_mode():
            for first in range(0, len(rows), batch):
                part = order[first : first + batch]
                tokens = padded(
                    [rows[row][: self.longest] for row in part], self.encoder.config.pad
                )
                found[part] = self(tokens).argmax(-1)
        return found

    def accuracy(self, rows: Sequence[list[int]], labels: Sequence[int]) -> float:
        """Share of texts whose class it says."""
        return float((self.said(rows) == torch.tensor(labels)).double().mean())


def fine_tuned(
    encoder: Encoder,
    rows: Sequence[list[int]],
    labels: Sequence[int],
    classes: int,
    train: TrainConfig,
    progress: Progress = lambda stage, share: None,
) -> Classifier:
    """A Classifier of a copy of an encoder; the encoder stays as it is.

    rows    tokens of n texts; labels: their classes, from 0 on
    train   its window counts tokens of a text: what is longer is cut

    Every text is seen once before one is seen twice. Errors: InvalidArgument.
    """
    if not rows or len(rows) != len(labels):
        raise InvalidArgument(f"expected a label a text, got {len(labels)} for {len(rows)}")
    if not all(rows):
        raise InvalidArgument("expected texts with tokens, got an empty one")
    if not all(0 <= label < classes for label in labels):
        raise InvalidArgument(
            f"expected labels in 0..{classes - 1}, got {min(labels)}..{max(labels)}"
        )
    made = Classifier(copy.deepcopy(encoder), classes, train.window).train()
    truth = torch.tensor(labels)
    random = np.random.default_rng([train.seed, 5])
    waiting: list[int] = []

    def loss_of(step: int) -> Tensor:
        while len(waiting) < train.batch:
            waiting.extend(random.permutation(len(rows)).tolist())
        part, waiting[:] = waiting[: train.batch], waiting[train.batch :]
        tokens = padded([rows[row][: train.window] for row in part], encoder.config.pad)
        return functional.cross_entropy(made(tokens), truth[part])

    descend([made], loss_of, train, progress, "fine-tuning")
    return made.eval()
