"""An encoder-decoder of T5's kind: reads one text at once, and writes another from left to right.

    config.py, encoder.py, decoder.py -> [t5.py] -> pipelines/spactor

Raffel et al., arXiv 1910.10683. The encoder sees all of its text, pads excepted. A layer of the
decoder looks at what was written, then across at the encoder, then feeds forward; the output is
tied to the one embedding that both sides share. As everywhere in soardb.models, positions are
rotary, where T5 learns a bias a distance, and layers have RMS norms and SwiGLU. Across, no token is
before another, so nothing is turned there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.models.cache import Cache
from soardb.models.config import DecoderConfig, T5Config
from soardb.models.decoder import Attention, Mixer
from soardb.models.encoder import Encoder, begin

__all__ = ["T5", "Memory", "WritingLayer", "shifted"]

_NOWHERE = torch.zeros(1)  # the position of all tokens across


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decoder sees of an encoded text.

    pairs  by layer, keys and values (b, heads, s, size)
    seen   (b, s), false for pads
    """

    pairs: list[tuple[Tensor, Tensor]]
    seen: Tensor


class T5(nn.Module):
    """See T5Config. Weights are drawn anew from `seed`."""

    def __init__(self, config: T5Config, seed: int = 0) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.encoder = Encoder(config.encoder, seed)
        shape = config.decoder
        self.layers = nn.ModuleList(WritingLayer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.norm_eps)
        begin(self.layers, shape.layers, seed + 1)

    def forward(self, inputs: Tensor, said: Tensor) -> Tensor:
        """(b, s) read and (b, t) written tokens -> (b, t, width); logits() says what follows."""
        return self.decode(said, self.memory(self.encoder(inputs), inputs))

    def memory(self, encoded: Tensor, inputs: Tensor) -> Memory:
        """What the layers of the decoder see of (b, s, width) states of (b, s) tokens.

        Made once a text, however many tokens are written after it.
        """
        pairs = []
        for layer in self.layers:
            assert isinstance(layer, WritingLayer)
            across = layer.across
            pairs.append((across.key_of(encoded, _NOWHERE), across.value_of(encoded)))
        return Memory(pairs, self.encoder.seen(inputs))

    def decode(self, said: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """(b, t) tokens after those in the cache -> (b, t, width) hidden states, normed.

        cache  Cache(config.decoder, b), grown by them. Pads among `said` are tokens like others
        """
        x = self.encoder.embedding(said)
        for number, layer in enumerate(self.layers):
            x = layer(x, memory.pairs[number], memory.seen, cache, number)
        if cache is not None:
            cache.length += said.shape[1]
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) hidden states -> (..., vocabulary)."""
        return self.encoder.logits(hidden)

    def loss(self, encoded: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over (b, t) targets but pads of -log p(target | those before, inputs), in nats."""
        pad = self.config.encoder.pad
        hidden = self.decode(shifted(targets, pad), self.memory(encoded, inputs))
        return functional.cross_entropy(
            self.logits(hidden).flatten(0, 1), targets.flatten(), ignore_index=pad
        )


class WritingLayer(nn.Module):
    """x + attention to what was written, x + attention across, x + feed-forward, of normed x."""

    def __init__(self, shape: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.attention = Attention(shape)
        self.across_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.across = Attention(shape)
        self.mixer_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.mixer = Mixer(shape)

    def forward(
        self,
        x: Tensor,
        pair: tuple[Tensor, Tensor],
        seen: Tensor,
        cache: Cache | None,
        number: int,
    ) -> Tensor:
        """(b, t, width) -> the same. pair, seen: of a Memory; number: of this layer."""
        x = x + self.attention(self.attention_norm(x), cache, number)
        queries = self.across.queries(self.across_norm(x), _NOWHERE)
        x = x + self.across.attend(queries, *pair, seen[:, None, None, :])
        out: Tensor = x + self.mixer(self.mixer_norm(x))
        return out


def shifted(targets: Tensor, pad: int) -> Tensor:
    """(b, t) what is to be written -> (b, t) what was written before each: a pad to begin with."""
    return torch.cat([torch.full_like(targets[:, :1], pad), targets[:, :-1]], 1)
