"""What a T5 in training is worth, the same way under every objective.

    objective.py -> [measure.py] -> run.py, benchmarks

Span corruption is measured on clean inputs: on replaced ones it is another task, and its loss drops
when the second stage begins though nothing was learned then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from soardb.models.t5 import T5, shifted
from soardb.pipelines.spactor.head import area
from soardb.pipelines.spactor.masks import is_text
from soardb.pipelines.spactor.objective import SpacTor
from soardb.pipelines.spactor.spans import Corrupted

__all__ = ["Detection", "clean_loss", "detection"]


@dataclass(frozen=True, slots=True)
class Detection:
    """Of generator and head, over the text tokens of some inputs.

    area      under the curve of replaced-token detection; 1/2 is guessing. None where the head
              was not trained
    replaced  share of the text tokens that are not what stood there
    accuracy  share of masked tokens that the generator finds likeliest
    same      share of masked tokens for which it drew the one that stood there
    """

    area: float | None
    replaced: float
    accuracy: float
    same: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def clean_loss(t5: T5, batch: Corrupted, rows: int = 64) -> float:
    """Cross entropy of span corruption on clean inputs, in nats a target token, pads excepted.

    rows  that are read at once
    """
    pad = t5.config.encoder.pad
    total, count = 0.0, 0
    with torch.inference_mode():
        for inputs, targets in _parts(batch, rows):
            logits = t5.logits(t5(inputs, shifted(targets, pad)))
            loss = functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum"
            )
            total, count = total + float(loss), count + int((targets != pad).sum())
    return total / count


def detection(spactor: SpacTor, batch: Corrupted, seed: int = 0, rows: int = 64) -> Detection:
    """Replace tokens of a batch once, and see who finds them."""
    random = torch.Generator().manual_seed(seed)
    config = spactor.t5.encoder.config
    scores, labels, best, same = [], [], [], []
    with torch.inference_mode():
        for inputs, _ in _parts(batch, rows):
            noised = spactor.noised(inputs, random)
            there = is_text(inputs, config)
            scores.append(spactor.head(spactor.t5.encoder(noised.seen)[there]))
            labels.append((noised.seen != inputs)[there])
            best.append(noised.logits.argmax(-1) == noised.wanted)
            same.append(noised.seen[noised.where] == noised.wanted)
    replaced = torch.cat(labels)
    return Detection(
        area(torch.cat(scores), replaced),
        float(replaced.double().mean()),
        float(torch.cat(best).double().mean()),
        float(torch.cat(same).double().mean()),
    )


def _parts(batch: Corrupted, rows: int) -> list[tuple[Tensor, Tensor]]:
    parts = torch.split(batch.inputs, rows), torch.split(batch.targets, rows)
    return list(zip(*parts, strict=True))
