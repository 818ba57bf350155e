"""The encoder: reads a text at once, each token with a view of all others.

    config.py, decoder.py -> [encoder.py] -> t5.py, pipelines

The layers are those of the decoder without its blindness for what comes later, and pads are seen by
nobody. The mean of what it says of a text's tokens, at length one, is the text's vector (Reimers
and Gurevych, Sentence-BERT, 2019). Of texts of all kinds these means have most of their length in
common, and learning to tell texts apart tends to make them all alike; so an encoder that learns it
levels them first, by a batch normalisation without weights (Ioffe and Szegedy, 2015).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.models.config import DecoderConfig, EncoderConfig
from soardb.models.decoder import Attention, Mixer

__all__ = ["Encoder", "EncoderLayer", "Stack", "begin", "level", "padded"]


class Encoder(nn.Module):
    """An embedding and a Stack; see EncoderConfig. Weights are drawn anew from `seed`."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.stack = Stack(config.shape(config.layers))
        self.level = level(config.width) if config.levelled else None
        begin(self, config.layers, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, t) int64 tokens -> (b, t, width) hidden states, normed; those of pads mean nothing.

        Each row has a token that is no pad.
        """
        hidden: Tensor = self.stack(self.embedding(tokens), self.seen(tokens))
        return hidden

    def seen(self, tokens: Tensor) -> Tensor:
        """(b, t) tokens -> (b, t) true where there is one, and no pad."""
        return tokens != self.config.pad

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) hidden states -> (..., vocabulary)."""
        return functional.linear(hidden, self.embedding.weight)

    def means(self, tokens: Tensor) -> Tensor:
        """(b, t) tokens -> (b, width): the mean of the states over what is no pad."""
        there = self.seen(tokens)[..., None]
        found: Tensor = self(tokens).masked_fill(~there, 0.0).sum(1) / there.sum(1)
        return found

    def vectors(self, tokens: Tensor) -> Tensor:
        """(b, t) tokens -> (b, width): the same, levelled if the encoder does so, at length one.

        In training, levelled is by the means of this batch, of two rows at least.
        """
        means = self.means(tokens)
        return functional.normalize(means if self.level is None else self.level(means), dim=-1)


class Stack(nn.Module):
    """Layers one after the other, and a norm."""

    def __init__(self, shape: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.norm_eps)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(b, t, width) -> the same, normed. seen: (b, t), false for what nobody may look at."""
        for layer in self.layers:
            x = layer(x, seen)
        out: Tensor = self.norm(x)
        return out


class EncoderLayer(nn.Module):
    """x + attention, then x + feed-forward, each of a normed x."""

    def __init__(self, shape: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.attention = Attention(shape)
        self.mixer_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.mixer = Mixer(shape)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(b, t, width) -> the same. seen: (b, t), as of a Stack."""
        normed, look = self.attention_norm(x), self.attention
        mask = seen[:, None, None, :]  # (b, heads, queries, keys)
        q, k, v = look.queries(normed, 0), look.key_of(normed, 0), look.value_of(normed)
        x = x + look.attend(q, k, v, mask)
        out: Tensor = x + self.mixer(self.mixer_norm(x))
        return out


def level(width: int) -> nn.BatchNorm1d:
    """What brings (b, width) means to mean 0 and deviation 1; it has nothing to learn."""
    return nn.BatchNorm1d(width, affine=False)


def begin(network: nn.Module, layers: int, seed: int) -> None:
    """Draw all matrices of a network of so many layers, in place, as a Decoder's are drawn."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if weight.dim() == 2:
            scale = 0.02 / math.sqrt(2 * layers) if name.endswith("out.weight") else 0.02
            nn.init.normal_(weight, std=scale, generator=random)


def padded(rows: list[list[int]], pad: int) -> Tensor:
    """Lists of tokens -> (b, t), t of the longest, with pads behind the shorter ones."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
