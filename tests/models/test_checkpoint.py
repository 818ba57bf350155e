"""A training that was stopped and taken up again ends bit by bit as one that was not.

small.py -> [test_checkpoint.py] -> models/checkpoint.py, training.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from soardb.errors import CorruptStorage, InvalidArgument
from soardb.models.checkpoint import Checkpoint, Random
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.training import TrainConfig, Windows, cross_entropy, descend

CONFIG = DecoderConfig(20, 16, 3, 2, context=16)
TRAIN = TrainConfig(30, 4, 12, 1e-2, warm=4)
ROW = np.random.default_rng(0).integers(0, 20, 500)


class Stopped(Exception):
    """As a machine that is switched off."""


class Counted:
    """Carried along: how many steps there were."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def state(self) -> Any:
        return self.steps

    def restore(self, state: Any) -> None:
        self.steps = list(state)


class Run:
    """Training that draws from every kind of generator, and skips layers at random."""

    def __init__(self, path: Path | None = None, every: int = 7, told: Any = "a") -> None:
        self.decoder = Decoder(CONFIG, 1)
        self.windows = Windows(ROW, 12, 5)
        self.coin = np.random.default_rng(6)
        self.noise = torch.Generator().manual_seed(7)
        self.counted = Counted()
        self.checkpoint = None
        if path is not None:
            randoms: dict[str, Random] = {
                "windows": self.windows.random,
                "coin": self.coin,
                "noise": self.noise,
            }
            self.checkpoint = Checkpoint(
                path, every, {"what": told}, randoms, {"counted": self.counted}
            )

    def loss_of(self, step: int) -> Tensor:
        self.counted.steps.append(step)
        batch = self.windows(4)
        batch[torch.rand(batch.shape, generator=self.noise) < 0.1] = 0
        batch[torch.rand(batch.shape) < 0.1] = 1  # of PyTorch's own generator
        if step < 25 and self.coin.random() < 0.7:  # a layer whose moments begin late
            hidden = self.decoder(batch[:, :-1], layers=[0, 2])
            logits = self.decoder.logits(hidden)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        return cross_entropy(self.decoder, batch)

    def run(self, until: int | None = None) -> list[float]:
        def loss_of(step: int) -> Tensor:
            if step == until:
                raise Stopped
            return self.loss_of(step)

        return descend([self.decoder], loss_of, TRAIN, checkpoint=self.checkpoint)


@pytest.mark.parametrize("stops", [[9], [3, 13, 14, 29]])
def test_it_ends_as_if_it_had_not_been_stopped(tmp_path: Path, stops: list[int]) -> None:
    """Weights, losses and generators, bit by bit, wherever it was stopped and however often."""
    torch.manual_seed(3)
    plain = Run()
    losses = plain.run()
    torch.manual_seed(3)
    for stop in stops:
        with pytest.raises(Stopped):
            Run(tmp_path / "state").run(stop)
        if stop < 7:  # nothing was written yet, so it begins anew, as the process does
            torch.manual_seed(3)
        else:
            torch.manual_seed(99)  # of another process
    last = Run(tmp_path / "state")
    assert last.run() == losses
    for name, weight in plain.decoder.state_dict().items():
        assert torch.equal(weight, last.decoder.state_dict()[name]), name
    assert last.counted.steps == list(range(30))
    assert last.coin.random() == plain.coin.random()
    assert last.windows.random.random() == plain.windows.random.random()


def test_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    """Writing it is no part of the arithmetic; a run that is done is not done again."""
    torch.manual_seed(3)
    losses = Run().run()
    torch.manual_seed(3)
    assert Run(tmp_path / "state").run() == losses
    again = Run(tmp_path / "state")
    assert again.run(until=0) == losses
    assert again.counted.steps == list(range(30))
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_layers_that_never_ran_have_no_moments(tmp_path: Path) -> None:
    """Nor have they after it was taken up."""
    decoder = Decoder(CONFIG, 1)

    def loss_of(step: int) -> Tensor:
        return (
            decoder.logits(decoder(torch.ones(1, 4, dtype=torch.long), layers=[0])).square().sum()
        )

    before = copy.deepcopy(decoder.layers[1].state_dict())
    held = Checkpoint(tmp_path / "state", 2)
    descend([decoder], loss_of, TrainConfig(3, 1, 4), checkpoint=held)
    descend([decoder], loss_of, TrainConfig(5, 1, 4), checkpoint=held)
    assert all(torch.equal(w, before[n]) for n, w in decoder.layers[1].state_dict().items())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _changed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 1
    path.write_bytes(bytes(whole))


@pytest.mark.parametrize("damage", [_cut, _changed])
def test_a_damaged_file_is_not_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """It is named."""
    Run(tmp_path / "state").run()
    damage(tmp_path / "state")
    with pytest.raises(CorruptStorage, match="state"):
        Run(tmp_path / "state").run()


def test_another_training_is_refused(tmp_path: Path) -> None:
    """By what is told of it, and by its shapes."""
    Run(tmp_path / "state").run()
    with pytest.raises(InvalidArgument, match="delete it to begin anew"):
        Run(tmp_path / "state", told="b").run()
    other = Run(tmp_path / "state")
    other.decoder = Decoder(DecoderConfig(20, 16, 4, 2, context=16))
    with pytest.raises(CorruptStorage, match="not of these parts"):
        other.run()
    with pytest.raises(InvalidArgument, match="every"):
        Run(tmp_path / "state", every=0)
