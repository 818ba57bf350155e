"""Language models of a registry as the replicas of an ensemble.

small.py -> [test_diagnose_language.py] -> diagnose/language.py, models/scoring.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.pipelines.diagnose import DiagnoseConfig, of_language_models, run
from tests.models.small import decoder

TOKENS = Tokens.trained(["a small bird sang", "a large stone fell"] * 4, 270)
CONFIG = DecoderConfig(len(TOKENS), 32, 1, 2, context=48)
PROMPTS = ["a small", "a large bird", "a", "the stone fell"]
ANSWERS = [" bird", " stone", " stone fell"]


def test_probabilities_are_products_over_the_tokens_of_an_answer(tmp_path: Path) -> None:
    """And its end, token by token through sessions; then they are diagnosed as any others."""
    registry = Registry(tmp_path)
    for seed in range(4):
        registry.add_decoder(f"m{seed}", decoder(CONFIG, seed, sharp=5), TOKENS)
    models = [registry.load(name) for name in registry.names()]
    found = of_language_models(models, PROMPTS, ANSWERS, [0, 1, 2, 0], randomness="init")
    assert found.probabilities.shape == (4, 4, 3)
    assert found.names == ANSWERS
    for m, one in enumerate(models):
        for n, prompt in enumerate(PROMPTS):
            logs = []
            for answer in ANSWERS:
                session, said = one.model.session(), TOKENS.encode(answer)
                rows = session.read([*TOKENS.encode(prompt), *said]).log_softmax(-1)
                wanted = torch.tensor([*said, 0])
                logs.append(float(rows[-len(wanted) :].gather(1, wanted[:, None]).sum()))
            p = np.exp(np.array(logs) - max(logs))
            assert found.probabilities[m, n] == pytest.approx(p / p.sum(), rel=1e-4)
    assert run(found, DiagnoseConfig(bootstrap=0, splits=0)).parts.risk.shape == (4,)


def test_a_model_whose_texts_have_no_end_is_refused(tmp_path: Path) -> None:
    """An answer that begins another would count what is the other's."""
    registry = Registry(tmp_path)
    registry.add_decoder("m", decoder(CONFIG), TOKENS)
    loaded = registry.load("m")
    endless = replace(loaded, tokens=Tokens(loaded.tokens.tokenizer, None))
    with pytest.raises(InvalidArgument, match="'m' has none"):
        of_language_models([loaded, endless], PROMPTS, ANSWERS, [0, 1, 2, 0])
