"""RaPTr's training: what learns, what is logged, baselines, and taking up a checkpoint.

models/small.py -> [test_raptr_run.py] -> pipelines/raptr/run.py, probes.py, baselines.py
"""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.training import TrainConfig, Windows, adam_of, cross_entropy, descend
from soardb.pipelines.raptr import RaptrConfig, Schedule, Subnetwork, run, sensitivities
from soardb.pipelines.raptr import run as run_module
from soardb.pipelines.raptr.baselines import (
    Stacking,
    constant,
    dropping,
    falling,
    full,
    planned_flops,
    stacking,
)
from soardb.pipelines.raptr.probes import one_left_out
from soardb.pipelines.raptr.subnetwork import held_out_loss
from tests.models.small import decoder, tokens

V = 20
CONFIG = DecoderConfig(V, 16, 4, 2, context=16)
TRAIN = TrainConfig(40, 8, 12, 1e-2, warm=5, seed=3)
RAPTR = RaptrConfig("2-3-4", evaluate_every=10, train=TRAIN)
METHODS = {
    "raptr": lambda: RAPTR,
    "bernoulli, decayed": lambda: replace(RAPTR, paths="bernoulli", skipped="decayed"),
    "widths": lambda: replace(RAPTR, heads="1-1-2", warm_up=4),
    "constant": lambda: constant(RAPTR, CONFIG),
    "falling": lambda: falling(RAPTR, CONFIG),
    "dropping": lambda: dropping(RAPTR, CONFIG),
    "stacking": lambda: stacking(RAPTR, CONFIG),
    "stacking, copied": lambda: replace(stacking(RAPTR, CONFIG), moments="copied"),
}


def periodic() -> Any:
    """A row in which the token five places before says what follows."""
    random = np.random.default_rng(0)
    row = np.tile(random.integers(0, V, 5), 400)
    noise = random.random(len(row)) < 0.1
    row[noise] = random.integers(0, V, int(noise.sum()))
    return row


ROW = periodic()
HELD_OUT = Windows(ROW, 12, 99)(40)


@pytest.mark.parametrize("name", METHODS)
def test_it_goes_on_from_a_checkpoint_to_the_same_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit: weights, losses, and the log but for times; of every method."""
    config = METHODS[name]()
    plain = run(Decoder(CONFIG), ROW, config, held_out=HELD_OUT)
    module, calls = __import__("sys").modules[run_module.__module__], []
    real = module.loss_of

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 24:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "loss_of", stopped)
    told: dict[str, Any] = {"held_out": HELD_OUT, "checkpoint": tmp_path / "state", "every": 9}
    with pytest.raises(KeyboardInterrupt):
        run(Decoder(CONFIG), ROW, config, **told)
    resumed = run(Decoder(CONFIG), ROW, config, **told)
    assert len(calls) == 24 + 40 - 18  # steps after the last writing were done again, no others
    assert resumed.losses == plain.losses
    for key, weight in plain.decoder.state_dict().items():
        assert torch.equal(weight, resumed.decoder.state_dict()[key]), key
    assert resumed.log.transitions == plain.log.transitions
    assert resumed.log.ran == plain.log.ran
    for one, two in zip(plain.log.evaluations, resumed.log.evaluations, strict=True):
        assert {**asdict(one), "seconds": 0} == {**asdict(two), "seconds": 0}


def test_another_configuration_does_not_take_it_up(tmp_path: Path) -> None:
    """Nor do other texts."""
    run(Decoder(CONFIG), ROW, RAPTR, checkpoint=tmp_path / "state")
    with pytest.raises(InvalidArgument, match="delete it"):
        run(Decoder(CONFIG), ROW, replace(RAPTR, scale="none"), checkpoint=tmp_path / "state")
    with pytest.raises(InvalidArgument, match="delete it"):
        run(Decoder(CONFIG), ROW[1:], RAPTR, checkpoint=tmp_path / "state")
    with pytest.raises(InvalidArgument, match="delete it"):
        run(Decoder(CONFIG), ROW, RAPTR, held_out=HELD_OUT, checkpoint=tmp_path / "state")


def test_the_whole_network_throughout_is_plain_training() -> None:
    """The same weights, bit by bit, as cross entropy and the same loop."""
    plain = Decoder(CONFIG)
    windows = Windows(ROW, 12, 3)
    losses = descend([plain], lambda step: cross_entropy(plain, windows(8)), TRAIN)
    found = run(Decoder(CONFIG), ROW, full(RAPTR, CONFIG))
    assert found.losses == losses
    for key, weight in plain.state_dict().items():
        assert torch.equal(weight, found.decoder.state_dict()[key])


@pytest.mark.parametrize("name", METHODS)
def test_the_log_counts_what_ran(name: str) -> None:
    """Layers and operations of each step; the whole network is evaluated at any time."""
    config = METHODS[name]()
    found = run(Decoder(CONFIG), ROW, config, held_out=HELD_OUT)
    log = found.log
    assert len(log.ran) == len(log.seconds) == 40
    assert all(seconds > 0 for seconds in log.seconds)
    if name not in ("bernoulli, decayed", "dropping"):
        assert log.flops == pytest.approx(planned_flops(config, CONFIG))
    assert [one.steps for one in log.evaluations] == [0, 10, 20, 30, 40]
    assert log.evaluations[0].flops == 0
    assert log.evaluations[-1].flops == log.flops
    whole = Subnetwork.of(range(4))
    assert log.evaluations[-1].loss == held_out_loss(found.decoder, HELD_OUT, whole, "none")
    assert set(log.step_ms()) == set(log.ran)
    with torch.no_grad():
        assert float(cross_entropy(found.decoder, HELD_OUT)) == pytest.approx(
            log.evaluations[-1].loss, abs=1e-5
        )


def test_training_learns() -> None:
    """The whole network, of which no step before the last stage saw all."""
    config = replace(RAPTR, train=replace(TRAIN, steps=150))
    found = run(Decoder(CONFIG), ROW, config, held_out=HELD_OUT)
    losses = [one.loss for one in found.log.evaluations]
    assert losses[0] > 2.9  # log 20 = 3.0
    assert losses[-1] < 1.6  # measured 1.1; the noise alone is 0.6
    assert not found.decoder.training


class TestTransitions:
    def test_both_sides_and_every_layer_are_looked_at(self) -> None:
        """At each beginning of a stage but the first."""
        found = run(Decoder(CONFIG), ROW, RAPTR, held_out=HELD_OUT).log.transitions
        assert [(one.step, one.before, one.after) for one in found] == [(14, 2, 3), (27, 3, 4)]
        last = found[-1]
        assert last.loss_after == pytest.approx(last.whole, abs=1e-6)
        assert len(last.changes) == 4
        assert all(change > 0 for change in last.changes)

    def test_probes_are_those_of_the_network(self) -> None:
        """Layer by layer, by hand; L_1 is a mean over what is not fixed."""
        model, windows = decoder(CONFIG), tokens(5, 12)
        found = sensitivities(model, windows, batch=2)
        with torch.no_grad():
            whole = model(windows[:, :-1])
            for layer, one in enumerate(found):
                rest = [other for other in range(4) if other != layer]
                without = model(windows[:, :-1], layers=rest)
                change = ((without - whole).norm(dim=-1) / whole.norm(dim=-1)).mean()
                assert one.change == pytest.approx(float(change), rel=1e-4)
                logits = model.logits(without).transpose(1, 2)
                loss = torch.nn.functional.cross_entropy(logits, windows[:, 1:])
                assert one.loss == pytest.approx(float(loss), rel=1e-4)
        assert one_left_out(found, (0, 3)) == (found[1].loss + found[2].loss) / 2
        assert one_left_out(found[:1], (0,)) == found[0].loss

    def test_looking_changes_nothing(self) -> None:
        """Training with windows held out is training without, bit by bit."""
        looked = run(Decoder(CONFIG), ROW, RAPTR, held_out=HELD_OUT)
        assert looked.losses == run(Decoder(CONFIG), ROW, RAPTR).losses


class TestMoments:
    def _after(self, skipped: Any) -> tuple[Any, Any]:
        """Weights of a layer after it ran for some steps, and after it did not for others."""
        seen: list[Any] = []
        model = Decoder(CONFIG)
        # Stage 1: all layers; stage 2: layers 0 and 3 alone.
        config = replace(RAPTR, depths="4-2", skipped=skipped)
        hook = model.layers[0].register_forward_pre_hook(
            lambda *_: seen.append(copy.deepcopy(model.layers[1].state_dict()))
        )
        run(model, ROW, config)
        hook.remove()
        return seen[20], model.layers[1].state_dict()

    def test_frozen_layers_stay_bit_by_bit(self) -> None:
        """While they do not run."""
        before, after = self._after("frozen")
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_decayed_ones_go_on(self) -> None:
        """By momentum and decay of weights."""
        before, after = self._after("decayed")
        assert not any(torch.equal(before[name], after[name]) for name in before)


class TestStacking:
    @pytest.mark.parametrize("moments", ["fresh", "copied"])
    def test_the_top_is_copied_onto_the_top(self, moments: Any) -> None:
        """From 2 layers to 5: whole stacks, and of the lowest its top, so that the top stays."""
        model = decoder(DecoderConfig(V, 16, 5, 2, context=16))
        plan = Stacking(Schedule.parsed("2-5", 10), moments)
        adam = adam_of([model], TRAIN)
        for layer in range(2):
            for weight in model.layers[layer].parameters():
                adam.state[weight] = {"exp_avg": torch.randn_like(weight)}
        plan.begin(3, model.layers, adam)
        blocks: Any = model.layers
        assert not torch.equal(blocks[2].mixer.up.weight, blocks[1].mixer.up.weight)
        plan.begin(5, model.layers, adam)
        for new, old in {2: 1, 3: 0, 4: 1}.items():
            pairs = zip(model.layers[new].parameters(), model.layers[old].parameters(), strict=True)
            for weight, source in pairs:
                assert torch.equal(weight, source)
                assert weight is not source
                assert (weight in adam.state) == (moments == "copied")
                if moments == "copied":
                    assert torch.equal(adam.state[weight]["exp_avg"], adam.state[source]["exp_avg"])
        assert [plan.draw(step).layers for step in (4, 5)] == [(0, 1), (0, 1, 2, 3, 4)]

    def test_layers_above_have_not_learned_before(self) -> None:
        """They are where they were made, until the stage in which they are copies."""
        model = Decoder(CONFIG)
        before = copy.deepcopy(model.layers[3].state_dict())
        config = replace(stacking(RAPTR, CONFIG), depths="2-3")
        run(model, ROW, config)
        after = model.layers[3].state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_windows_that_are_none_are_refused() -> None:
    """With their shape."""
    with pytest.raises(InvalidArgument, match="held out"):
        run(Decoder(CONFIG), ROW, RAPTR, held_out=torch.zeros(0, 12, dtype=torch.long))
    with pytest.raises(InvalidArgument, match="context"):
        run(Decoder(CONFIG), ROW, replace(RAPTR, train=replace(TRAIN, window=18)))
