"""An ensemble of language models: what each of them makes of the same closed set of answers.

models/registry.py, decide/language.py -> [language.py] -> ensemble.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.pipelines.decide.language import score
from soardb.pipelines.diagnose.ensemble import NOT_TOLD, Ensemble

if TYPE_CHECKING:
    from soardb.models.registry import Loaded

__all__ = ["of_language_models"]


def of_language_models(
    models: Sequence[Loaded],
    prompts: Sequence[str],
    answers: Sequence[str],
    labels: npt.ArrayLike,
    *,
    ids: Any = None,
    randomness: str = NOT_TOLD,
) -> Ensemble:
    """Models of a registry as replicas: n prompts are samples, c answers the classes.

    models  at least 2, as Registry.load gives them; each reads with its own tokenizer
    labels  (n,) which answer is right, 0..c-1

    A class's logit is the log probability of its answer with the token that ends it, so the c
    probabilities are made to sum to 1. Costs n x c passes a model. Errors: InvalidArgument; of a
    model without a token that ends a text too.
    """
    from soardb.models.scoring import scorer

    logits = []
    for one in models:
        if one.tokens.end is None:
            raise InvalidArgument(
                f"expected a model with a token that ends a text, {one.entry.name!r} has none"
            )
        asked = [one.tokens.encode(prompt) for prompt in prompts]
        said = [one.tokens.encode(answer) for answer in answers]
        logits.append(score(scorer(one.network), asked, said, one.tokens.end))
    return Ensemble.of_logits(
        np.array(logits), labels, ids, randomness=randomness, names=list(answers)
    )
