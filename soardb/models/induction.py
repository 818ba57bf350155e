"""Weights with which a decoder copies from the beginning: what followed a token follows it again.

    decoder.py -> [induction.py] -> pretraining, benchmarks

An induction head looks where the last token stood before and says what came after it (Olsson et
al., In-context Learning and Induction Heads, arXiv 2209.11895). Training finds it late, and in
decoders of a million numbers often not at all, while a model that searches has to write names that
stand in its prompt. Here one is written into the first two layers: a head of the first notes which
token is before each, by the positions alone, and a head of the second looks for the noted token
that is the last one. Everything learns on from there. The construction and its numbers are ours.
"""

from __future__ import annotations

import math

import torch

from soardb.errors import InvalidArgument
from soardb.models.decoder import Attention, Decoder, Layer

__all__ = ["with_induction"]

_SIZE = 32  # coordinates of a head, at least
_SCALE = 0.1  # deviation of the embedding
_LEVEL = 3.0  # of the coordinate that all tokens have alike, in deviations
_BACK = 10.0  # nats by which the token before is seen more than the one before that
_ALIKE = 20.0  # nats by which the same token is seen more than one without likeness
_COPIED = 4.0  # times what the last token is worth at the output
_FAST = 0.05  # radians a token: pairs of coordinates that turn faster tell neighbours apart


def with_induction(decoder: Decoder, seed: int = 0) -> Decoder:
    """The decoder with an induction head in its first two layers, changed in place and returned.

    The embedding is drawn anew, and the first head of both layers set; the rest stays. The larger a
    head, the surer the copy: of 128 tokens among 300, two heads of 64 coordinates copy 87 % before
    any training, four of 32 copy 61 %. A larger rope_base (500,000) keeps it from fading far away.

    Errors: InvalidArgument for fewer than two layers, heads that share keys, or have fewer than 32
    coordinates.
    """
    config = decoder.config
    if config.layers < 2 or config.keys != config.heads or config.width < _SIZE * config.heads:
        raise InvalidArgument(
            "expected a decoder of at least 2 layers whose heads have keys of their own and at "
            f"least {_SIZE} coordinates, got {config.layers} layers, {config.heads} heads, "
            f"{config.keys} with keys, width {config.width}"
        )
    width, size = config.width, config.width // config.heads
    half = size // 2
    random = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=random))[0]
    basis[0] = 0.0  # the first coordinate is the one that all have alike
    seen, noted = basis[:, :half], basis[:, half : 2 * half]
    with torch.no_grad():
        rms = _embed(decoder.embedding.weight, random)
        first, second = _attention(decoder, 0), _attention(decoder, 1)
        _look_back(first, size, _LEVEL * _SCALE / rms)
        first.value.weight[:size] = 0.0
        first.value.weight[:half] = seen.T
        first.out.weight[:, :size] = 0.0
        first.out.weight[:, :half] = noted * rms
        # Of the pairs, those that turn slowest see what is alike from far away as from near.
        pairs = torch.arange(half - half // 2, half)
        slow = torch.cat([pairs, pairs + half])
        after = math.hypot(rms, _SCALE * math.sqrt(half / width))  # root mean square, with the note
        by = math.sqrt(_ALIKE * math.sqrt(size) / len(slow)) * after / _SCALE
        for matrix, read in ((second.query.weight, seen), (second.key.weight, noted)):
            matrix[:size] = 0.0
            matrix[slow] = by * read.T[: len(slow)]
        second.value.weight[:size] = basis[:, :size].T
        second.out.weight[:, :size] = _COPIED * config.heads * after * basis[:, :size]
    return decoder


def _attention(decoder: Decoder, number: int) -> Attention:
    layer = decoder.layers[number]
    assert isinstance(layer, Layer)
    return layer.attention


def _embed(weight: torch.Tensor, random: torch.Generator) -> float:
    """Draw rows of one length with a coordinate in common; the root mean square of each."""
    width = weight.shape[1]
    weight.normal_(generator=random)
    weight[:, 0] = 0.0
    weight *= _SCALE * math.sqrt(width) / weight.norm(dim=1, keepdim=True)
    weight[:, 0] = _LEVEL * _SCALE
    return _SCALE * math.sqrt(1 + _LEVEL**2 / width)


def _look_back(attention: Attention, size: int, common: float) -> None:
    """Have the first head look at the token before, by a coordinate that all have alike."""
    rates = attention.base ** (-torch.arange(0, size, 2) / size)
    rates = rates[rates > _FAST]
    fast = len(rates)
    gap = float((1 - rates.cos()).sum())
    by = math.sqrt(_BACK * math.sqrt(size) / gap) / common
    query, key = attention.query.weight, attention.key.weight
    query[:size] = 0.0
    key[:size] = 0.0
    query[:fast, 0] = by
    # Turned on by one token: a key looks as if it stood where the next one stands.
    key[:fast, 0] = by * rates.cos()
    key[size // 2 : size // 2 + fast, 0] = by * rates.sin()
