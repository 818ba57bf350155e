"""SpacTor in training: two stages and one optimiser, equal targets for all, and that it learns.

-> [test_spactor_run.py] -> pipelines/spactor/run.py, measure.py
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.t5 import T5
from soardb.models.training import TrainConfig
from soardb.pipelines.spactor import (
    OBJECTIVES,
    Corrupted,
    Look,
    ObjectiveConfig,
    SpacTor,
    SpactorConfig,
    Spans,
    clean_loss,
    corrupted,
    detection,
    run,
)

TEXT = EncoderConfig(24, 6, 32, 2, 2, context=64)
CONFIG = T5Config(TEXT, 1)
QUICK = TrainConfig(12, 8, 24, 3e-3, warm=2)


def periodic(length: int = 4000) -> Any:
    """A row in which what stands left and right says what is between: easy to fill in."""
    random = np.random.default_rng(0)
    row = np.tile(np.arange(1, 13), length // 12)
    noise = random.random(len(row)) < 0.05
    row[noise] = random.integers(1, 24, int(noise.sum()))
    return row


def trained(tau: float, first: Any = "hybrid", train: TrainConfig = QUICK, **told: Any) -> Any:
    config = SpactorConfig(first, tau, train=train, held=32, **told)
    return run(T5(CONFIG, 1), periodic(), config, end=0)


class TestStages:
    @pytest.mark.parametrize(
        ("tau", "switch"), [(0, 0), (0.25, 3), (0.99, 12), (1, 12), (math.inf, 12)]
    )
    def test_the_first_stage_ends_at_tau(self, tau: float, switch: int) -> None:
        """None of it at 0, nothing else at infinity; no generator and no head after it."""
        found = trained(tau)
        names = [set(parts) for parts in found.parts]
        assert names == [{"mlm", "rtd", "sc"}] * switch + [{"sc"}] * (12 - switch)
        first, second = found.flops[:switch], found.flops[switch:]
        assert len(set(first)) <= 1
        assert len(set(second)) <= 1
        if first and second:
            assert first[0] > second[0]

    def test_at_zero_it_is_the_baseline(self) -> None:
        """Weight by weight, whatever the first stage would have been."""
        one, other = trained(0, "hybrid"), trained(1, "sc")
        for a, b in zip(one.t5.parameters(), other.t5.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_moments_stay_at_the_switch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One optimiser: those of the T5 go on, those of generator and head end with the stage."""
        made: list[torch.optim.AdamW] = []
        plain = torch.optim.AdamW

        def kept(*told: Any, **more: Any) -> torch.optim.AdamW:
            made.append(plain(*told, **more))
            return made[-1]

        monkeypatch.setattr(torch.optim, "AdamW", kept)
        found = trained(0.25)
        assert len(made) == 1
        steps = {id(w): int(told["step"]) for w, told in made[0].state.items()}
        t5 = {id(w) for w in found.t5.parameters()}
        beside = {id(w) for w in found.spactor.parameters()} - t5
        assert {steps[one] for one in t5} == {12}
        assert {steps[one] for one in beside} == {3}

    def test_generator_and_head_stay_as_they_are_after_it(self) -> None:
        """Weight decay does not eat them either: what is kept is what was trained."""
        kept: list[dict[str, torch.Tensor]] = []

        def look(found: Look, spactor: SpacTor) -> None:
            kept.append(copy.deepcopy(spactor.state_dict()))

        config = SpactorConfig("hybrid", 0.25, train=QUICK, looks=(3,), held=8)
        run(T5(CONFIG, 1), periodic(), config, end=0, look=look)
        before, after = kept
        for name, weight in after.items():
            is_beside = name.startswith(("head", "generator")) and "embedding" not in name
            assert torch.equal(weight, before[name]) == is_beside, name


@pytest.mark.parametrize("stopped", [2, 7, 11])
def test_it_goes_on_from_a_checkpoint_to_the_same_end(
    stopped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, whichever stage it was stopped in: weights, losses, and what was measured."""
    config = SpactorConfig("hybrid", 0.5, train=QUICK, looks=(0, 4, 8), held=16)
    plain = run(T5(CONFIG, 1), periodic(), config, end=0)
    forward, steps = SpacTor.forward, []

    def breaks(self: SpacTor, *told: Any) -> Any:
        steps.append(1)
        if len(steps) == stopped + 1:
            raise KeyboardInterrupt
        return forward(self, *told)

    monkeypatch.setattr(SpacTor, "forward", breaks)
    told: dict[str, Any] = {"end": 0, "checkpoint": tmp_path / "state", "every": 3}
    with pytest.raises(KeyboardInterrupt):
        run(T5(CONFIG, 1), periodic(), config, **told)
    resumed = run(T5(CONFIG, 1), periodic(), config, **told)
    assert len(steps) == stopped + 1 + 12 - stopped // 3 * 3
    assert resumed.state() == plain.state()
    weights = plain.spactor.state_dict()
    for name, weight in resumed.spactor.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    for other in (SpactorConfig("hybrid", 0.25, train=QUICK), replace(config, held=15)):
        with pytest.raises(InvalidArgument, match="delete it"):
            run(T5(CONFIG, 1), periodic(), other, **told)


class TestFairness:
    def test_all_see_the_same_targets_in_every_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same windows, cuts and targets: else a comparison says nothing."""
        seen: dict[str, list[Corrupted]] = {}
        forward: Callable[..., Any] = SpacTor.forward

        def watched(self: SpacTor, batch: Corrupted, *told: Any) -> Any:
            seen[name].append(batch)
            return forward(self, batch, *told)

        monkeypatch.setattr(SpacTor, "forward", watched)
        counts = {}
        for name in OBJECTIVES:
            for tau in (0.5, 1):
                seen[name] = []
                counts[name, tau] = trained(tau, name).targets
        for name in OBJECTIVES:
            for one, other in zip(seen["sc"], seen[name], strict=True):
                assert torch.equal(one.inputs, other.inputs)
                assert torch.equal(one.targets, other.targets)
        assert all(count == counts["sc", 1] for (n, _), count in counts.items() if n != "rtd")
        assert counts["rtd", 0.5] == [0] * 6 + counts["sc", 1][6:]

    def test_the_same_seed_is_the_same_model(self) -> None:
        """Another is another."""
        a, b, c = (
            trained(0.5, train=TrainConfig(4, 4, 24, 1e-2, warm=1, seed=s)) for s in (0, 0, 1)
        )
        assert a.parts == b.parts
        assert a.looks[-1].clean == b.looks[-1].clean
        assert a.parts[-1] != c.parts[-1]


class TestMeasures:
    def test_the_clean_loss_is_on_clean_inputs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A generator is not asked, and parts of a batch make no difference."""
        t5 = T5(CONFIG, 2).eval()
        told = [*periodic()[:480].reshape(20, 24), periodic()[:9]]
        batch = corrupted(told, Spans(), TEXT, 0, np.random.default_rng(1))
        monkeypatch.setattr(SpacTor, "noised", lambda *_: pytest.fail("replaced"))
        with torch.inference_mode():
            want = float(t5.loss(t5.encoder(batch.inputs), batch.inputs, batch.targets))
        assert clean_loss(t5, batch) == pytest.approx(want, abs=1e-5)
        assert clean_loss(t5, batch, rows=4) == pytest.approx(want, abs=1e-5)

    def test_looks_are_taken_where_they_are_asked(self) -> None:
        """Before these steps and after the last, with the operations of the steps before."""
        found = trained(0.5, looks=(0, 4, 8))
        assert [one.step for one in found.looks] == [0, 4, 8, 12]
        assert [one.flops for one in found.looks] == [sum(found.flops[:n]) for n in (0, 4, 8, 12)]
        assert found.looks[0].clean == pytest.approx(math.log(TEXT.vocabulary), abs=0.1)
        assert all(one.detection is not None for one in found.looks)
        noise = trained(1, "noise").looks[-1].detection
        assert noise is not None
        assert noise.area is None  # of a head that was not trained
        assert trained(0).looks[-1].detection is None
        assert trained(1, "sc+mlm").looks[-1].detection is None

    def test_a_look_changes_nothing(self) -> None:
        """What is trained is the same, however often it was looked at."""
        plain, watched = trained(1), trained(1, looks=(1, 2, 7))
        for a, b in zip(plain.t5.parameters(), watched.t5.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_it_learns_all_three(self) -> None:
        """Filling in, guessing and telling replaced tokens, on an easy text."""
        train = TrainConfig(240, 16, 24, 1e-2, warm=10)
        config = SpactorConfig(
            "hybrid", 1, ObjectiveConfig(mask_rate=0.2), train=train, looks=(0,), held=64
        )
        found = run(T5(CONFIG, 1), periodic(), config, end=0)
        first, last = found.looks
        assert last.clean < 1.5 < 3 < first.clean  # measured 0.87 and 3.53
        assert last.detection is not None
        assert last.detection.accuracy > 0.6  # measured 0.90
        assert last.detection.area is not None
        assert last.detection.area > 0.7  # measured 0.85
        assert 0 < last.detection.replaced < 0.2
        again = detection(found.spactor, _held(), seed=1)
        assert again == detection(found.spactor, _held(), seed=1)
        assert again.area == pytest.approx(last.detection.area, abs=0.15)


def _held() -> Corrupted:
    rows = periodic()[:480].reshape(20, 24)
    return corrupted(list(rows), Spans(), TEXT, 0, np.random.default_rng(3))


@pytest.mark.parametrize(
    ("told", "end", "message"),
    [
        ({"first": "all"}, 0, "first one of sc, hybrid"),
        ({"tau": -1}, 0, "tau"),
        ({"tau": float("nan")}, 0, "tau"),
        ({"looks": (13,)}, 0, "looks"),
        ({"spans": Spans(0)}, 0, "density"),
        ({}, 24, "end"),
        ({"spans": Spans(0.5, 1.0)}, 0, "at most 6 pieces"),
        ({"train": TrainConfig(2, 2, 200)}, 0, "at most 6 pieces and 64 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(told: dict[str, Any], end: int, message: str) -> None:
    """With what was expected, before anything is trained."""
    with pytest.raises(InvalidArgument, match=message):
        run(T5(CONFIG), periodic(), SpactorConfig(**{"train": QUICK, **told}), end=end)


def test_tokens_beyond_the_text_are_refused() -> None:
    """They would be read as pads, masks and sentinels."""
    row = periodic()
    row[5] = TEXT.pad
    with pytest.raises(InvalidArgument, match=r"tokens in 0\.\.23"):
        run(T5(CONFIG), row, SpactorConfig(train=QUICK), end=0)
