"""Floating-point operations of what ran: products of matrices, as counted by their shapes.

    objective.py -> [flops.py] -> run.py

A multiplication and its addition are two. Learning from a product takes two more of its size: the
gradient of what went in, and of the weights. Attention counts as the whole square, also where half
of it is hidden. Norms, activations, the softmax, drawing tokens and the optimiser are left out, as
torch.utils.flop_counter leaves them out, which the tests compare with.
"""

from __future__ import annotations

from soardb.models.config import DecoderConfig, T5Config

__all__ = ["LEARNING", "decoding", "encoding", "generating", "judging", "stack"]

LEARNING = 3
"""Forward and backward, in units of forward alone."""


def stack(shape: DecoderConfig, rows: int, length: int) -> int:
    """Of (rows, length) tokens through the layers of an encoder."""
    return shape.layers * rows * (_attention(shape, length, length) + length * _mixer(shape))


def encoding(config: T5Config, rows: int, length: int) -> int:
    """Of (rows, length) tokens through the encoder."""
    return stack(config.encoder.shape(config.encoder.layers), rows, length)


def decoding(config: T5Config, rows: int, read: int, written: int) -> int:
    """Of (rows, written) tokens with a view of (rows, read), and of the logits of all of them."""
    shape = config.decoder
    own = _attention(shape, written, written)
    layer = own + _attention(shape, written, read) + written * _mixer(shape)
    head = 2 * written * shape.width * shape.vocabulary
    return rows * (shape.layers * layer + head)


def generating(
    shape: DecoderConfig, embedded: int, text_tokens: int, inputs: tuple[int, int], places: int
) -> int:
    """Of a generator over (rows, length) inputs, that says what stands at so many places.

    shape  of its stack; embedded: width of its embedding, from which and to which a map leads where
           the two differ
    """
    bridge = 2 * shape.width * embedded if shape.width != embedded else 0
    rows, length = inputs
    maps = bridge * (rows * length + places)
    return stack(shape, rows, length) + maps + 2 * places * embedded * text_tokens


def judging(width: int, places: int, is_deep: bool) -> int:
    """Of the head of replaced-token detection at so many places."""
    return 2 * places * (width * width * is_deep + width)


def _attention(shape: DecoderConfig, queries: int, keys: int) -> int:
    """Of one text: four maps, scores and their sums."""
    maps = 2 * shape.width * shape.width * 2 * (queries + keys)
    return maps + 4 * queries * keys * shape.width


def _mixer(shape: DecoderConfig) -> int:
    """Of one token, SwiGLU."""
    return 2 * 3 * shape.width * shape.units
