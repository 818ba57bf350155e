"""Tandem: a small decoder writes, and looks at what a large one made of all blocks before.

    a frozen decoder, a small one -> [model.py] -> session.py, run.py

Aishwarya et al., arXiv 2402.08644, equations 1 and 2. Positions are dealt into blocks of gamma. At
position i of a block that begins at k the small model's queries come from its own stream; keys and
values of positions before k come from the large model's states, brought to the small width by a
linear map of each layer, and those of k..i from its own stream. Both go through the same key and
value matrices, and through the same norm before them.

Position k itself is never seen by way of the large model: its state there knows what the small one
is to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.decoder import Decoder, Layer

__all__ = ["MAPS", "LayerMap", "Tandem", "block_mask", "layer_map"]

LayerMap = Literal["even", "last", "middle"]
MAPS: tuple[LayerMap, ...] = get_args(LayerMap)


class Tandem(nn.Module):
    """primary is frozen; secondary and the projections are trained.

    layers  for each layer of the secondary the state of the primary that it looks at: 0 is the
            embedding, the number of layers the last state
    """

    def __init__(
        self, primary: Decoder, secondary: Decoder, layers: Sequence[int], seed: int = 0
    ) -> None:
        super().__init__()
        large, small = primary.config, secondary.config
        if large.vocabulary != small.vocabulary:
            raise InvalidArgument(
                "expected a secondary with the primary's tokens, got "
                f"{small.vocabulary} and {large.vocabulary}"
            )
        if len(layers) != small.layers:
            raise InvalidArgument(f"expected a state for each of {small.layers} layers")
        for number in layers:
            as_int(number, "layers", 0, large.layers)
        self.primary = primary.requires_grad_(False)
        self.secondary = secondary
        self.map = tuple(layers)
        random = torch.Generator().manual_seed(seed)
        self.projections = nn.ModuleList(
            nn.Linear(large.width, small.width, bias=False) for _ in layers
        )
        for one in self.projections:
            assert isinstance(one, nn.Linear)
            nn.init.normal_(one.weight, std=large.width**-0.5, generator=random)

    def forward(self, tokens: Tensor, gamma: int, states: Sequence[Tensor] | None = None) -> Tensor:
        """All blocks at once: (b, t) tokens -> (b, t, width) states of the secondary, normed.

        states  of the primary for these tokens, one a layer of the secondary; made unless given
        """
        t = tokens.shape[1]
        seen = self.seen(tokens) if states is None else states
        mask = block_mask(t, gamma)
        x = self.secondary.embedding(tokens)
        for layer, state, projection in zip(self._layers(), seen, self.projections, strict=True):
            own = layer.attention_norm(x)
            other = self.projected(layer, state, projection)
            attention = layer.attention
            k = torch.cat([attention.key_of(other, 0), attention.key_of(own, 0)], 2)
            v = torch.cat([attention.value_of(other), attention.value_of(own)], 2)
            x = x + attention.attend(attention.queries(own, 0), k, v, mask)
            x = x + layer.mixer(layer.mixer_norm(x))
        hidden: Tensor = self.secondary.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the secondary."""
        return self.secondary.logits(hidden)

    def seen(self, tokens: Tensor) -> list[Tensor]:
        """The primary's states that the secondary looks at, without a gradient."""
        with torch.no_grad():
            found = self.primary.states(tokens)
        return [found[number] for number in self.map]

    def projected(self, layer: Layer, state: Tensor, projection: nn.Module) -> Tensor:
        """The primary's state as a layer of the secondary sees it.

        Its own scale is taken away first: residual streams grow with the depth.
        """
        brought = projection(functional.rms_norm(state, state.shape[-1:]))
        normed: Tensor = layer.attention_norm(brought)
        return normed

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.secondary.layers if isinstance(layer, Layer)]


def block_mask(t: int, gamma: int) -> Tensor:
    """(t, 2 t): true where position i may look, at the primary's states first, at its own then."""
    as_int(gamma, "gamma", 1, 1_000_000)
    place = torch.arange(t)
    begin = (place // gamma * gamma)[:, None]
    other = place[None] < begin
    own = (place[None] >= begin) & (place[None] <= place[:, None])
    return torch.cat([other, own], 1)


def layer_map(kind: LayerMap, primary: int, secondary: int) -> tuple[int, ...]:
    """Which states each of the secondary's layers looks at.

    even    spread over all of the primary, the last layer at the last state
    last    the last state for all
    middle  the one in the middle for all
    """
    if kind not in MAPS:
        raise InvalidArgument(f"expected layer map one of {', '.join(MAPS)}, got {kind!r}")
    if kind == "even":
        return tuple(round((j + 1) * primary / secondary) for j in range(secondary))
    return (primary if kind == "last" else (primary + 1) // 2,) * secondary
