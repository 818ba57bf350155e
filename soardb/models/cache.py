"""Keys and values of the tokens that a decoder has read, layer by layer.

    decoder.py -> [cache.py]

Room is taken at once; going back is a matter of a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig

__all__ = ["Cache"]


class Cache:
    """Of `rows` sequences of equal length, up to `room` tokens; the context unless told.

    length  how many tokens of each are in it
    """

    def __init__(self, config: DecoderConfig, rows: int = 1, room: int | None = None) -> None:
        most = config.context if room is None else min(room, config.context)
        shape = (config.layers, 2, rows, config.keys, most, config.width // config.heads)
        self._held = torch.empty(shape)
        self.length = 0

    @property
    def room(self) -> int:
        """Tokens that fit."""
        return self._held.shape[4]

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (rows, key heads, t, size) to a layer; all of its keys and values, older ones first.

        length grows when the last layer is done, by the decoder.
        """
        end = self.length + keys.shape[2]
        if end > self.room:
            raise InvalidArgument(f"expected at most {self.room} tokens in the context, got {end}")
        held = self._held[layer]
        held[0, :, :, self.length : end] = keys
        held[1, :, :, self.length : end] = values
        return held[0, :, :, :end], held[1, :, :, :end]

    def back_to(self, length: int) -> None:
        """Forget all tokens from position `length` on."""
        if not 0 <= length <= self.length:
            raise InvalidArgument(f"expected a length in 0..{self.length}, got {length}")
        self.length = length
