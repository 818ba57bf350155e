"""A language model that reads its head by HiRE, as a Model: it generates, drafts and verifies.

    trunk.py, head.py -> [model.py] -> generation, speculative decoding

As a draft it costs no exactness at all, since a target corrects whatever law its draft has. As a
target it is the law of the head that text follows: the model's own where greedy decoding finds the
largest logit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.session import Session
from soardb.pipelines.hire_lm.head import LAWS, HireHead, Law
from soardb.pipelines.hire_lm.trunk import Trunk

__all__ = ["HireModel", "HireSession"]


class HireModel:
    """A Model of a trunk and a head.

    law  of the logits; see LAWS. Neither is the model's own law
    """

    def __init__(self, trunk: Trunk, head: HireHead, law: Law = "kept") -> None:
        if law not in LAWS:
            raise InvalidArgument(f"expected law one of {', '.join(LAWS)}, got {law!r}")
        if trunk.head.shape != (head.vocabulary, head.estimator.d):
            raise InvalidArgument(
                f"expected a head of {trunk.head.shape}, as the model has, got "
                f"{(head.vocabulary, head.estimator.d)}"
            )
        self.trunk, self.head, self.law = trunk, head, law

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return self.head.vocabulary

    def session(self) -> HireSession:
        """A new one, with nothing read."""
        return HireSession(self.trunk.session(), self.head, self.law)


class HireSession:
    """Session of states, each with the logits that the head finds."""

    def __init__(self, states: Session, head: HireHead, law: Law) -> None:
        self._states, self._head, self._law = states, head, law

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self._states.length

    @property
    def room(self) -> int:
        """Tokens that fit in all."""
        return self._states.room

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read t more tokens: (t, vocabulary) logits, most of them as the law says."""
        states = self._states.read(tokens)
        return torch.from_numpy(self._head.logits(states.numpy(), self._law))

    def back_to(self, length: int) -> None:
        """Forget the tokens from position `length` on."""
        self._states.back_to(length)
