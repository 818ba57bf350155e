"""A language model without its head: states where there were logits, and the head's matrix.

    soardb.models -> [trunk.py] -> model.py, measure.py

The head of every model here is one product, logits = head @ state. That is tried on a token when a
trunk is made, so a model that does more after it (a bias, a cap) is refused and not approximated.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.models.decoder import Decoder
from soardb.models.hugging import HuggingModel, HuggingSession
from soardb.models.session import DecoderModel, DecoderSession, Model, Session

__all__ = ["Trunk"]

_CLOSE = 1e-3


class Trunk:
    """A Model whose sessions read() to (t, width) states, normed as the head takes them.

    model  a DecoderModel or a HuggingModel. Errors: InvalidArgument for others, and where logits
           are not the product of head and state
    head   (vocabulary, width) float32, borrowed from the model
    """

    def __init__(self, model: Model) -> None:
        weight: Tensor
        if isinstance(model, DecoderModel):
            self._bare: Any = _BareDecoder(model.decoder)
            self._reader: Any = DecoderSession
            weight = model.decoder.embedding.weight
        elif isinstance(model, HuggingModel):
            self._bare = _BareHugging(model.network)
            self._reader = HuggingSession
            weight = model.network.get_output_embeddings().weight
        else:
            raise InvalidArgument(
                f"expected a DecoderModel or a HuggingModel, got {type(model).__name__}"
            )
        self.head: F32 = weight.detach().numpy()
        self._check(model)

    @property
    def width(self) -> int:
        """Of a state."""
        return int(self.head.shape[1])

    def session(self) -> Session:
        """A new one, with nothing read."""
        session: Session = self._reader(self._bare)
        return session

    def states(self, tokens: Tensor, batch: int = 8) -> F32:
        """(b, t) tokens -> (b * t, width) float32 states, sequence by sequence, nothing kept."""
        with torch.inference_mode():
            parts = [self._bare.states(part) for part in torch.split(tokens, batch)]
        found: F32 = torch.cat(parts).flatten(0, 1).numpy()
        return found

    def _check(self, model: Model) -> None:
        state = self.session().read([0])
        told = model.session().read([0])
        found = state @ torch.from_numpy(self.head).T
        if not torch.allclose(found, told, rtol=_CLOSE, atol=_CLOSE * float(told.abs().max())):
            raise InvalidArgument(
                "expected logits that are the product of head and state; this model does more "
                f"after it, they differ by {float((found - told).abs().max()):.3g}"
            )


class _BareDecoder:
    """What DecoderSession asks of a Decoder, whose logits are the states themselves."""

    def __init__(self, network: Decoder) -> None:
        self._network = network
        self.config = network.config

    def __call__(self, tokens: Tensor, cache: Any) -> Any:
        return self._network(tokens, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def states(self, tokens: Tensor) -> Any:
        return self._network(tokens)


class _BareHugging:
    """What HuggingSession asks of a network, likewise."""

    def __init__(self, network: Any) -> None:
        self._body = network.base_model
        self.config = network.config

    def __call__(self, **told: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self._body(**told).last_hidden_state)

    def states(self, tokens: Tensor) -> Any:
        return self._body(input_ids=tokens, use_cache=False).last_hidden_state
