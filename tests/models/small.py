"""A decoder that is small enough to try everything with.

-> [small.py] -> test_decoder.py, pipelines/test_speculate.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder

SMALL = DecoderConfig(20, 32, 2, 2, context=24)


def decoder(config: DecoderConfig = SMALL, seed: int = 0, sharp: float = 30.0) -> Decoder:
    """With weights that are larger than those of a beginning, so that its laws are not flat."""
    model = Decoder(config, seed).eval()
    with torch.no_grad():
        model.embedding.weight *= sharp
    return model


def tokens(rows: int, length: int, seed: int = 0, vocabulary: int = SMALL.vocabulary) -> Tensor:
    """(rows, length) at random."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (rows, length), generator=random)
