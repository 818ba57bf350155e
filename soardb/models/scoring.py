"""Whole rows at once: log probabilities of what follows each token, of many rows of one length.

    decoder.py, hugging.py -> [scoring.py] -> pipelines that score closed sets of answers

The face that soardb.pipelines.decide.language asks for; sessions read one row and keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.models.decoder import Decoder
from soardb.models.encoder import Encoder
from soardb.models.t5 import T5

__all__ = ["scorer"]


def scorer(network: Any) -> Callable[[I64, int], F32]:
    """(b, t) tokens and a position -> (b, t - since, v) natural log probabilities.

    network  a Decoder, or a causal model of Hugging Face

    Errors: InvalidArgument for an encoder or a T5, which say nothing of what follows.
    """
    if isinstance(network, Encoder | T5):
        raise InvalidArgument(
            f"expected a model that writes on, got one of architecture {type(network).__name__}"
        )

    def logits(tokens: torch.Tensor, since: int) -> torch.Tensor:
        if isinstance(network, Decoder):
            return network.logits(network(tokens)[:, since:])
        found: torch.Tensor = network(input_ids=tokens).logits[:, since:]
        return found

    def score(tokens: npt.NDArray[np.int64], since: int) -> F32:
        with torch.inference_mode():
            found: F32 = logits(torch.from_numpy(tokens), since).log_softmax(-1).numpy()
            return found

    return score
