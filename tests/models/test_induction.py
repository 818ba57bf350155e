"""A decoder copies from the beginning: no training, and still after some.

induction.py -> [test_induction.py]
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.induction import with_induction
from soardb.models.training import TrainConfig, descend

SHAPE = DecoderConfig(300, 128, 2, 2, context=1024, rope_base=500_000.0)


def copied(decoder: Decoder, length: int, seed: int = 0) -> torch.Tensor:
    """The loss of the second half of rows that say their first half again."""
    half = np.random.default_rng(seed).integers(0, 300, (8, length // 2))
    rows = torch.from_numpy(np.concatenate([half, half], 1))
    hidden = decoder(rows[:, :-1])[:, length // 2 :]
    return functional.cross_entropy(
        decoder.logits(hidden).flatten(0, 1), rows[:, length // 2 + 1 :].flatten()
    )


@pytest.mark.parametrize(
    ("width", "heads", "least"),
    [(128, 1, 0.8), (128, 2, 0.75), (128, 4, 0.4), (256, 4, 0.7), (100, 2, 0.5)],
)
def test_it_copies_before_it_learned_anything(width: int, heads: int, least: float) -> None:
    """Most tokens, with heads of all sizes; a decoder without it copies none."""
    config = DecoderConfig(300, width, 2, heads, context=1024, rope_base=500_000.0)
    half = np.random.default_rng(1).integers(0, 300, (8, 64))
    rows = torch.from_numpy(np.concatenate([half, half], 1))
    with torch.inference_mode():
        shares = []
        for decoder in (Decoder(config), with_induction(Decoder(config))):
            found = decoder.logits(decoder(rows[:, :-1])[:, 64:]).argmax(-1)
            shares.append(float((found == rows[:, 65:]).double().mean()))
    assert shares[0] < 0.05
    assert shares[1] > least, shares


def test_it_learns_on_from_there() -> None:
    """30 steps make a copy nearly sure, which takes a decoder without it hundreds."""
    config = TrainConfig(30, 8, 64, 3e-3, warm=5)
    losses = []
    for decoder in (Decoder(SHAPE), with_induction(Decoder(SHAPE))):
        descend([decoder], lambda step, one=decoder: copied(one, 64, step + 1), config)  # type: ignore[misc]
        with torch.inference_mode():
            losses.append(float(copied(decoder, 64)))
    assert losses[0] > 5.0
    assert losses[1] < 1.5  # measured 0.7


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(300, 64, 1, 2),
        DecoderConfig(300, 128, 2, 4, key_heads=2),
        DecoderConfig(300, 64, 2, 4),
    ],
)
def test_shapes_that_cannot_have_it_are_refused(config: DecoderConfig) -> None:
    """With what was expected."""
    with pytest.raises(InvalidArgument, match="at least 2 layers"):
        with_induction(Decoder(config))
