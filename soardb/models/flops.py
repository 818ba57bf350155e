"""What a pass through a Decoder costs, counted: the multiply-adds of its matrix products, times 2.

    config.py -> [flops.py] -> pipelines that compare trainings by what they cost

The convention of torch.utils.flop_counter, which the tests count with: a multiply-add is two
operations; matrix products are counted, norms, turns and the lookup of an embedding are not. The
head, tied to the embedding, is counted, as small models spend much of their time there. A pass back
costs twice the pass forth; attention's five products there, as its scores are made once more. The
products of a causal mask are counted whole, though a kernel may leave out half of them.

Layers that are skipped cost nothing, and do not appear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from soardb.arrays import as_int
from soardb.models.config import DecoderConfig

__all__ = ["Breadth", "head_flops", "layer_flops", "pass_flops"]


@dataclass(frozen=True, slots=True)
class Breadth:
    """How much of a layer runs: heads of queries and of keys, units of the feed-forward part."""

    heads: int
    keys: int
    units: int

    @classmethod
    def whole(cls, config: DecoderConfig) -> Breadth:
        """Of a layer that runs as a whole."""
        return cls(config.heads, config.keys, config.units)


def layer_flops(
    config: DecoderConfig,
    rows: int,
    tokens: int,
    breadth: Breadth | None = None,
    *,
    back: bool = True,
) -> int:
    """Of one layer over `rows` sequences of `tokens`, forth, and back too unless told.

    breadth  of the layer; the whole of it unless told
    """
    part = breadth or Breadth.whole(config)
    size = config.width // config.heads
    maps = config.width * size * (2 * part.heads + 2 * part.keys)
    maps += config.width * part.units * (3 if config.mixer == "swiglu" else 2)
    scores = tokens * size * part.heads  # of a token with all others, once
    forth, again = maps + 2 * scores, 2 * maps + 5 * scores
    return 2 * rows * tokens * (forth + again * back)


def head_flops(config: DecoderConfig, rows: int, tokens: int, *, back: bool = True) -> int:
    """Of the logits of each token."""
    return 2 * rows * tokens * config.width * config.vocabulary * (3 if back else 1)


def pass_flops(
    config: DecoderConfig,
    rows: int,
    tokens: int,
    layers: int | Iterable[Breadth] | None = None,
    *,
    back: bool = True,
) -> int:
    """Of a pass over (rows, tokens) through some layers and the head, forth, and back unless told.

    layers  how many run, or how much of each that runs; all of them unless told

    Of a training step by training.cross_entropy, `tokens` is the window less 1. Errors:
    InvalidArgument.
    """
    as_int(rows, "rows", 1, 2**40)
    as_int(tokens, "tokens", 1, 2**40)
    if layers is None:
        layers = config.layers
    if isinstance(layers, int):
        as_int(layers, "layers", 0, config.layers)
        layers = [Breadth.whole(config)] * layers
    through = sum(layer_flops(config, rows, tokens, one, back=back) for one in layers)
    return through + head_flops(config, rows, tokens, back=back)
