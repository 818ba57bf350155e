"""Keys and values of the tokens that a decoder has read, layer by layer.

    decoder.py -> [cache.py]

Room is taken at once; going back is a matter of a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig

__all__ = ["Cache"]


class Cache:
    """Of `rows` sequences of equal length, up to `room` tokens; the context unless told.

    length  how many tokens of each are in it, those of all branches counted
    starts  (rows,) the position at which each sequence begins: what is before is never seen, so
            that sequences of unlike lengths end at the same one. The context then limits each
            sequence, which is for the caller to keep, and not the room
    branches  of each sequence, from branch(): each reads a token a pass, after what they have in
            common
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int = 1,
        room: int | None = None,
        starts: Tensor | None = None,
    ) -> None:
        self._config = config
        wanted = config.context if room is None else room
        most = wanted if starts is not None else min(wanted, config.context)
        shape = (config.layers, 2, rows, config.keys, most, config.width // config.heads)
        self._held = torch.empty(shape)
        self._mask: tuple[int, Tensor] | None = None
        self.starts = starts
        self.branches = 1
        self._stem = 0  # tokens that the branches have in common
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

    def first(self, t: int) -> int | Tensor:
        """The position of the first of t new tokens; (t,) those of all, which branches share."""
        if self.branches == 1:
            return self.length
        if t != self.branches:
            raise InvalidArgument(f"expected a token of each of {self.branches} branches, got {t}")
        return torch.full((t,), self._stem + (self.length - self._stem) // self.branches)

    def mask(self, t: int) -> Tensor | None:
        """Where t new tokens may look; None: itself and what is before, with nothing older.

        (t, length + t) for all rows; (rows, 1, t, length + t) where they have starts: what is
        before a start sees itself alone, as a law over nothing is no number.
        """
        if self.starts is None and self.branches == 1:
            return _after(t, self.length) if self.length else None
        end = self.length + t
        if self._mask is None or self._mask[0] != end or self._mask[1].shape[-2] != t:
            places = torch.arange(end)
            new = places[self.length :, None]
            seen = places <= new
            if self.branches > 1:  # the stem, and what the same branch has read
                seen &= (places < self._stem) | ((new - places) % self.branches == 0)
            if self.starts is not None:
                seen = (seen & (places >= self.starts[:, None, None, None])) | (places == new)
            self._mask = end, seen
        return self._mask[1]

    def picked(self, rows: Tensor, room: int) -> Cache:
        """A copy of some rows, in this order, each as often as it is named, with other room."""
        starts = None if self.starts is None else self.starts[rows]
        found = Cache(self._config, len(rows), room, starts)
        for mine, held in zip(found._held, self._held, strict=True):
            mine[..., : self.length, :] = held[:, rows, :, : self.length]
        found.branches, found._stem, found.length = self.branches, self._stem, self.length
        return found

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in ascending order; no room is taken nor given back."""
        for held in self._held:
            held[:, : len(rows), :, : self.length] = held[:, rows, :, : self.length]
        self._held = self._held[:, :, : len(rows)]
        self.starts = None if self.starts is None else self.starts[rows]
        self._mask = None

    def branch(self, branches: int) -> None:
        """From here on each sequence goes on in so many ways: a pass reads one token of each.

        What was read so far is kept once for all of them. Costs of attention grow with the square
        of the branches, so a few. Errors: InvalidArgument where it has branches.
        """
        if self.branches > 1:
            raise InvalidArgument(f"expected a cache without branches, it has {self.branches}")
        self.branches = as_int(branches, "branches", 1, 1024)
        self._stem = self.length if branches > 1 else 0
        self._mask = None

    def back_to(self, length: int) -> None:
        """Forget all tokens from `length` on; with branches, whole passes of them alone."""
        if not self._stem <= length <= self.length:
            raise InvalidArgument(f"expected a length in {self._stem}..{self.length}, got {length}")
        if (length - self._stem) % self.branches:
            raise InvalidArgument(
                f"expected {self._stem} and a multiple of {self.branches} branches, got {length}"
            )
        self.length = length


def _after(t: int, first: int) -> Tensor:
    """(t, first + t): each of t new tokens sees all older ones, and the new ones up to itself."""
    return torch.ones(t, first + t, dtype=torch.bool).tril(first)
