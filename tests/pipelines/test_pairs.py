"""A pair of any two models, measured through sessions: the same as through decoders at once.

models/trained.py -> [test_pairs.py] -> pipelines/distillspec/pairs.py
"""

from __future__ import annotations

import pytest
import torch

from soardb.errors import Closed, InvalidArgument
from soardb.models.registry import Loaded
from soardb.models.sampling import Sampling
from soardb.pipelines.distillspec import agreement, evaluated
from tests.models.trained import TEXTS, filled


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Loaded]:
    registry = filled(tmp_path_factory.mktemp("pairs"))
    return registry.load("large"), registry.load("small")


def test_it_is_what_is_measured_at_once(both: tuple[Loaded, Loaded]) -> None:
    """Greedily, where no dice are thrown: acceptance and tokens a pass are the same."""
    large, small = both
    greedy = Sampling(0)
    found = evaluated(
        large, small, TEXTS[:12], gamma=3, length=20, prompt_tokens=4, sampling=greedy
    )
    prompts = torch.tensor([large.tokens.encode(text)[:4] for text in TEXTS[:12]])
    want = agreement(large.network, small.network, prompts, 20, (3,), greedy, end=large.tokens.end)
    assert found["alpha"] == pytest.approx(want.alpha)
    assert found["tau_3"] == pytest.approx(want.tau[3])
    assert found["tokens"] == want.tokens
    assert found["c"] > 0
    assert found["speedup_3"] == pytest.approx(found["tau_3"] / (3 * found["c"] + 1))


def test_a_model_drafts_for_itself_perfectly(both: tuple[Loaded, Loaded]) -> None:
    """Every token is kept, with any law."""
    large, _ = both
    found = evaluated(large, large, TEXTS[:3], gamma=4, length=15, prompt_tokens=5)
    assert found["alpha"] == pytest.approx(1)
    assert found["tau_4"] > 4.5 or found["tokens"] < 45


def test_it_can_be_ended_between_tokens(both: tuple[Loaded, Loaded]) -> None:
    """Whoever is told of progress may end it."""
    told: list[float] = []

    def progress(stage: str, share: float) -> None:
        told.append(share)
        if len(told) == 7:
            raise Closed("enough")

    with pytest.raises(Closed):
        evaluated(*both, TEXTS, progress=progress)
    assert len(told) == 7
    assert told == sorted(told)


def test_what_cannot_be_measured_is_refused(both: tuple[Loaded, Loaded]) -> None:
    """No texts, no room."""
    with pytest.raises(InvalidArgument, match="texts to begin with"):
        evaluated(*both, ["", ""])
    with pytest.raises(InvalidArgument, match="fit in 128 tokens"):
        evaluated(*both, TEXTS, length=120)
    with pytest.raises(InvalidArgument, match="gamma"):
        evaluated(*both, TEXTS, gamma=0)
