"""What a model is made of: plain values, checked, as they are stored beside the weights.

    registry.py, decoder.py, encoder.py, t5.py -> [config.py]

Nothing here imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.schema import shown

__all__ = ["MIXERS", "DecoderConfig", "EncoderConfig", "Mixer", "T5Config"]

Mixer = Literal["swiglu", "relu"]
MIXERS: tuple[Mixer, ...] = get_args(Mixer)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A causal transformer.

    vocabulary  tokens that there are
    width       of the residual stream; heads divide it evenly, into an even number each
    layers, heads
    key_heads   heads of keys and values, each shared by heads / key_heads queries; heads unless
                told
    hidden      of the feed-forward part; 8/3 of the width, up to a multiple of 32, unless told
    context     tokens that can be seen at once
    rope_base   of the rotary positions (Su et al., arXiv 2104.09864)
    norm_eps    what the norms add to the mean square
    mixer       "swiglu", or "relu", whose units are mostly off and can be left out
    active      of "relu": units that stay on, by the size of their activation; all unless told
    group       of "relu": units that go on and off together
    """

    vocabulary: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    key_heads: int | None = None
    hidden: int | None = None
    context: int = 512
    rope_base: float = 10_000.0
    norm_eps: float = 2.0**-23
    mixer: Mixer = "swiglu"
    active: int | None = None
    group: int = 1

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.vocabulary, "vocabulary", 2, 1_000_000)
        as_int(self.width, "width", 2, 16_384)
        as_int(self.layers, "layers", 1, 256)
        as_int(self.heads, "heads", 1, 256)
        as_int(self.context, "context", 2, 1_000_000)
        as_int(self.keys, "key_heads", 1, self.heads)
        as_int(self.units, "hidden", 1, 131_072)
        as_int(self.group, "group", 1, self.units)
        if self.width % (2 * self.heads):
            raise InvalidArgument(
                f"expected a width that is a multiple of 2 x heads, got {self.width} and "
                f"{self.heads}"
            )
        if self.heads % self.keys:
            raise InvalidArgument(
                f"expected heads that key_heads divide, got {self.heads} and {self.keys}"
            )
        if as_number(self.rope_base, "rope_base") <= 1:
            raise InvalidArgument(f"expected rope_base above 1, got {self.rope_base}")
        if not 0 < as_number(self.norm_eps, "norm_eps") < 1:
            raise InvalidArgument(f"expected norm_eps between 0 and 1, got {self.norm_eps}")
        if self.mixer not in MIXERS:
            raise InvalidArgument(f"expected mixer one of {', '.join(MIXERS)}, got {self.mixer!r}")
        if self.units % self.group:
            raise InvalidArgument(
                f"expected hidden units that groups of {self.group} divide, got {self.units}"
            )
        if self.active is not None:
            as_int(self.active, "active", 1, self.units)
            if self.mixer != "relu" or self.active % self.group:
                raise InvalidArgument(
                    "expected active units with mixer 'relu', a multiple of the group, got "
                    f"{self.active} with {self.mixer!r} and {self.group}"
                )

    @property
    def keys(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.key_heads is None else self.key_heads

    @property
    def units(self) -> int:
        """Hidden units of the feed-forward part."""
        return -(-8 * self.width // 96) * 32 if self.hidden is None else self.hidden

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Self:
        """From to_json(); checked. Errors: InvalidArgument for unknown names."""
        known = {one.name for one in fields(cls)}
        if not isinstance(told, Mapping) or not {"vocabulary"} <= set(told) <= known:
            raise InvalidArgument(f"expected the settings of a decoder, got {shown(told)}")
        found = cls(**told)
        found.check()
        return found


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A transformer in which every token sees all others, and the tokens that are not of a text.

    text_tokens  of the tokenizer, from 0 on; behind them stand a pad, a mask and the sentinels
    sentinels    how many there are: each stands for a span that is left out of a text
    width, layers, heads, hidden, context, rope_base, norm_eps  as of a DecoderConfig
    levelled     whether the vectors of texts are brought to mean 0 and deviation 1, coordinate by
                 coordinate, before they are brought to length one
    """

    text_tokens: int
    sentinels: int = 32
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int | None = None
    context: int = 512
    rope_base: float = 10_000.0
    norm_eps: float = 2.0**-23
    levelled: bool = False

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.text_tokens, "text_tokens", 2, 900_000)
        as_int(self.sentinels, "sentinels", 1, 10_000)
        self.shape(self.layers).check()

    def shape(self, layers: int) -> DecoderConfig:
        """Of a stack of layers over these tokens."""
        return DecoderConfig(
            self.vocabulary, self.width, layers, self.heads, None, self.hidden, self.context,
            self.rope_base, self.norm_eps,
        )  # fmt: skip

    @property
    def vocabulary(self) -> int:
        """All tokens."""
        return self.text_tokens + 2 + self.sentinels

    @property
    def pad(self) -> int:
        """The token behind the end of what is shorter than others of its batch."""
        return self.text_tokens

    @property
    def mask(self) -> int:
        """The token in place of one that is to be guessed."""
        return self.text_tokens + 1

    @property
    def first_sentinel(self) -> int:
        """The sentinel of the first span; those of others follow it."""
        return self.text_tokens + 2

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Self:
        """From to_json(); checked. Errors: InvalidArgument for unknown names."""
        known = {one.name for one in fields(cls)}
        if not isinstance(told, Mapping) or not {"text_tokens"} <= set(told) <= known:
            raise InvalidArgument(f"expected the settings of an encoder, got {shown(told)}")
        found = cls(**told)
        found.check()
        return found


@dataclass(frozen=True, slots=True)
class T5Config:
    """An encoder, and `decoder_layers` that write with a view of it; width and heads are one."""

    encoder: EncoderConfig
    decoder_layers: int = 2

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.decoder_layers, "decoder_layers", 1, 256)
        self.encoder.check()

    @property
    def decoder(self) -> DecoderConfig:
        """The shape of the decoder's layers, but for what looks across."""
        return self.encoder.shape(self.decoder_layers)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Self:
        """From to_json(); checked. Errors: InvalidArgument for unknown names."""
        if not isinstance(told, Mapping) or set(told) != {"encoder", "decoder_layers"}:
            raise InvalidArgument(f"expected the settings of a T5, got {shown(told)}")
        found = cls(EncoderConfig.of_json(told["encoder"]), told["decoder_layers"])
        found.check()
        return found
