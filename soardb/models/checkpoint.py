"""A training that was stopped goes on as if it had not been: its whole state in one file.

    [checkpoint.py] -> training.py

Weights, the moments of the optimiser, the place in the schedule of the rate, the losses so far, the
states of every random generator, and whatever else the caller carries along. A file of safetensors,
whose header holds the plain values as JSON and a SHA-256 of all of it; it is replaced as a whole or
not at all, and nothing in it is executed.

What is drawn at random must be drawn from a generator that is told here, or from PyTorch's own. The
end is the same bit by bit on the same machine, with as many threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from soardb.arrays import as_int
from soardb.errors import CorruptStorage, InvalidArgument
from soardb.kernels.layout import I64
from soardb.storage.format import sync_folder

__all__ = ["Carried", "Checkpoint", "Random", "mark_of"]

Random = np.random.Generator | torch.Generator

_FORMAT = "1"
_HEADER = 90_000_000  # bytes, of the 100 million that the library reads
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each weight that had a gradient


class Carried(Protocol):
    """Something whose state goes with a training, as plain values."""

    def state(self) -> Any:
        """As JSON."""

    def restore(self, state: Any) -> None:
        """Be again what state() said."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a training is kept, and what belongs to it.

    path     of the file; its folder is made
    every    steps between two writings; the last step is written too
    told     what is trained, as JSON: a file of something else is refused
    randoms  generators that the loss draws from, by name
    carried  whatever else changes with the steps, by name
    """

    path: Path
    every: int = 500
    told: Mapping[str, Any] = field(default_factory=dict)
    randoms: Mapping[str, Random] = field(default_factory=dict)
    carried: Mapping[str, Carried] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_int(self.every, "every", 1, 100_000_000)

    def is_due(self, done: int, steps: int) -> bool:
        """Whether to write after `done` steps of `steps`."""
        return done % self.every == 0 or done == steps

    def save(
        self,
        parts: Sequence[nn.Module],
        adam: torch.optim.Optimizer,
        rates: torch.optim.lr_scheduler.LRScheduler,
        losses: Sequence[float],
    ) -> None:
        """Write the state after len(losses) steps, whole or not at all."""
        told = adam.state_dict()
        tensors = {f"part.{i}.{n}": w for i, one in enumerate(parts) for n, w in _weights(one)}
        for number, moments in told["state"].items():
            tensors |= {f"adam.{number}.{name}": moments[name] for name in _MOMENTS}
        tensors["losses"] = torch.tensor(list(losses), dtype=torch.float64)
        tensors["random.torch"] = torch.get_rng_state()
        states: dict[str, Any] = {}
        for name, random in self.randoms.items():
            if isinstance(random, torch.Generator):
                tensors[f"random.{name}"] = random.get_state()
            else:
                states[name] = random.bit_generator.state
        plain = {
            "told": self.told,
            "rates": [
                {k: group[k] for k in ("lr", "initial_lr")} for group in told["param_groups"]
            ],
            "epoch": rates.last_epoch,
            "randoms": states,
            "carried": {name: one.state() for name, one in self.carried.items()},
        }
        self._write(tensors, json.dumps(plain, sort_keys=True))

    def load(
        self,
        parts: Sequence[nn.Module],
        adam: torch.optim.Optimizer,
        rates: torch.optim.lr_scheduler.LRScheduler,
    ) -> list[float]:
        """Take up the state of the file, where there is one: the losses of the steps so far.

        Errors: InvalidArgument for a checkpoint of another training, CorruptStorage.
        """
        if not self.path.exists():
            return []
        tensors, plain = self._read()
        if plain["told"] != (mine := json.loads(json.dumps(self.told))):
            raise InvalidArgument(
                f"expected a checkpoint of {mine}, {self.path} is of {plain['told']}; delete it to "
                "begin anew"
            )
        try:
            for i, part in enumerate(parts):
                with torch.no_grad():
                    for name, weight in _weights(part):
                        weight.copy_(_of_shape(tensors[f"part.{i}.{name}"], weight))
            self._load_optimiser(adam, tensors, plain["rates"])
            rates.last_epoch = plain["epoch"]
            rates._last_lr = [group["lr"] for group in adam.param_groups]
            for name, random in self.randoms.items():
                if isinstance(random, torch.Generator):
                    random.set_state(tensors[f"random.{name}"])
                else:
                    random.bit_generator.state = plain["randoms"][name]
            for name, one in self.carried.items():
                one.restore(plain["carried"][name])
            torch.set_rng_state(tensors["random.torch"])
            losses: list[float] = tensors["losses"].tolist()
        except (KeyError, ValueError) as error:
            raise CorruptStorage(f"{self.path}: not of these parts: {error}") from error
        return losses

    def _load_optimiser(
        self,
        adam: torch.optim.Optimizer,
        tensors: Mapping[str, Tensor],
        rates: Sequence[Mapping[str, float]],
    ) -> None:
        told = adam.state_dict()
        numbers = [number for group in told["param_groups"] for number in group["params"]]
        told["state"] = {
            number: {name: tensors[f"adam.{number}.{name}"] for name in _MOMENTS}
            for number in numbers
            if f"adam.{number}.step" in tensors
        }
        for group, rate in zip(told["param_groups"], rates, strict=True):
            group.update(rate)
        adam.load_state_dict(told)

    def _write(self, tensors: Mapping[str, Tensor], plain: str) -> None:
        if len(plain) > _HEADER:
            raise InvalidArgument(
                f"expected a state of at most {_HEADER:,} bytes beside the weights, got "
                f"{len(plain):,}; the last checkpoint stays, train in fewer steps"
            )
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        mark = {"format": _FORMAT, "state": plain, "sha256": _digest(whole, plain)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            safetensors.torch.save_file(whole, scratch, mark)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(self.path)
        finally:
            scratch.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                mark = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise CorruptStorage(f"{self.path}: {error}") from error
        if mark.get("format") != _FORMAT:
            raise CorruptStorage(
                f"{self.path}: format {mark.get('format')!r}, this reads {_FORMAT}"
            )
        if _digest(tensors, mark.get("state", "")) != mark.get("sha256"):
            raise CorruptStorage(f"{self.path}: its SHA-256 is not that of its header")
        plain: dict[str, Any] = json.loads(mark["state"])
        return tensors, plain


def _weights(part: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, each once."""
    return [*part.named_parameters(), *part.named_buffers()]


def _of_shape(found: Tensor, wanted: Tensor) -> Tensor:
    if found.shape != wanted.shape:
        raise ValueError(f"expected a weight of {tuple(wanted.shape)}, got {tuple(found.shape)}")
    return found


def mark_of(tokens: I64) -> str:
    """SHA-256 of texts, by which a checkpoint says what it was trained on."""
    return hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()


def _digest(tensors: Mapping[str, Tensor], plain: str) -> str:
    found = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
