"""Classifiers from an encoder: they learn, leave the encoder alone, and answer in order.

-> [test_spactor_classify.py] -> pipelines/spactor/classify.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import EncoderConfig
from soardb.models.encoder import Encoder, padded
from soardb.models.training import TrainConfig
from soardb.pipelines.spactor import fine_tuned

SHAPE = EncoderConfig(20, 2, 16, 1, 2, context=32)
QUICK = TrainConfig(80, 16, 12, 1e-2, warm=5)


def texts(count: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """Of unlike lengths; the class is which of three tokens stands somewhere in it."""
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for _ in range(count):
        label = int(random.integers(3))
        row = random.integers(5, 20, random.integers(2, 10)).tolist()
        row.insert(int(random.integers(len(row) + 1)), label + 1)
        rows.append(row)
        labels.append(label)
    return rows, labels


def test_it_learns_a_class_and_leaves_the_encoder_as_it_was() -> None:
    """On texts that it did not see, far above the third that guessing gets."""
    encoder = Encoder(SHAPE, 1)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    made = fine_tuned(encoder, *texts(300, 0), 3, QUICK)
    rows, labels = texts(200, 1)
    assert made.accuracy(rows, labels) > 0.9  # measured 1.0
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, before[name])
    again = fine_tuned(encoder, *texts(300, 0), 3, QUICK)
    assert torch.equal(again.map.weight, made.map.weight)


def test_answers_are_in_the_order_of_the_texts() -> None:
    """Though texts of like length are read together, in batches of any size."""
    made = fine_tuned(Encoder(SHAPE, 1), *texts(100, 2), 3, TrainConfig(10, 8, 12, 1e-2, warm=2))
    rows, labels = texts(30, 3)
    said = made.said(rows)
    with torch.inference_mode():
        alone = [int(made(padded([row], SHAPE.pad)).argmax()) for row in rows]
    assert said.tolist() == alone == made.said(rows, batch=7).tolist()
    right = sum(a == b for a, b in zip(alone, labels, strict=True)) / 30
    assert made.accuracy(rows, labels) == pytest.approx(right)


def test_what_does_not_fit_is_refused() -> None:
    """With what was expected."""
    encoder, (rows, labels) = Encoder(SHAPE), texts(5, 4)
    with pytest.raises(InvalidArgument, match="a label a text, got 4 for 5"):
        fine_tuned(encoder, rows, labels[:4], 3, QUICK)
    with pytest.raises(InvalidArgument, match=r"labels in 0\.\.1"):
        fine_tuned(encoder, rows, [0, 1, 2, 0, 1], 2, QUICK)
