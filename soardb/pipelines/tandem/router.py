"""The router: how likely it is that the primary agrees, from what the secondary says alone.

    run.py -> [router.py] -> session.py

Section 4.2 of the Tandem paper: a perceptron of two layers over the entropy of the secondary's law,
its largest probabilities, and the embeddings of these tokens; trained by cross entropy towards the
total variation between both laws, which is the probability of a disagreement. A block goes on while
one less that is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.decoder import Decoder

__all__ = ["Router"]


class Router(nn.Module):
    """threshold: smallest predicted acceptance with which a block goes on. top: probabilities, and
    embeddings, that it looks at; hidden: units. Neither is told by the paper.
    """

    def __init__(
        self,
        secondary: Decoder,
        threshold: float = 0.5,
        top: int = 4,
        hidden: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        as_int(top, "top", 1, secondary.config.vocabulary)
        if not 0 <= threshold <= 1:
            raise InvalidArgument(f"expected a threshold in 0..1, got {threshold}")
        self.threshold, self.top = threshold, top
        # Kept out of the module's own weights: they are the secondary's.
        self._embedding: Sequence[Tensor] = (secondary.embedding.weight,)
        width = 1 + top + top * secondary.config.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def features(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) logits of the secondary -> (..., features)."""
        logs = logits.detach().log_softmax(-1)
        p = logs.exp()
        entropy = -(p * logs).sum(-1, keepdim=True)
        shares, tokens = p.topk(self.top, dim=-1)
        embedded = functional.embedding(tokens, self._embedding[0].detach()).flatten(-2)
        scale = self._embedding[0].detach().std()
        return torch.cat([entropy, shares, embedded / scale], -1)

    def forward(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) logits of the secondary -> (...) log odds of a disagreement."""
        odds: Tensor = self.net(self.features(logits))
        return odds[..., 0]

    def loss(self, logits: Tensor, variation: Tensor) -> Tensor:
        """Mean cross entropy towards (...) total variations."""
        return functional.binary_cross_entropy_with_logits(self(logits), variation.detach())

    def goes_on(self, logits: Tensor) -> bool:
        """Whether a token of these logits is worth being drafted."""
        return float(1 - self(logits).sigmoid()) >= self.threshold
