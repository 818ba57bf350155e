"""How replicas are trained: all at once, their weights stacked, one batched product a layer.

    [training.py] -> replicas.py

Each network has its own weights, batches and optimiser state, and is what it would be alone. All
that is random comes from NumPy, by seed and replica.

PyTorch is imported by trained().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable
from soardb.kernels.layout import F32, I64
from soardb.options import as_number
from soardb.pipelines.diagnose.ensemble import HALVES

__all__ = ["RANDOMNESS", "Maps", "Progress", "Randomness", "TrainConfig", "trained"]

Maps = list[tuple[F32, F32]]
"""(m, in, out) weights and (m, 1, out) biases of each affine map."""

Randomness = Literal["init", "bootstrap", "halves"]
RANDOMNESS: tuple[Randomness, ...] = get_args(Randomness)
Progress = Callable[[str, float], None]

_TOLD: dict[Randomness, str] = {
    "init": "init and order",
    "bootstrap": "init, order and bootstrap",
    "halves": HALVES,
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What to train.

    members        m, how many networks
    randomness     what differs between them, beside initial weights and order of batches, which
                   always do: "init" nothing, "bootstrap" each has a resampled training set,
                   "halves" replicas 0 and 1, 2 and 3, ... have the two halves of a random split:
                   diagnose them with the estimator "pairs"; m must be even
    width, layers  of the networks: `layers` affine maps with ReLU between, hidden ones `width` wide
    steps, batch   of training: steps of each network, samples a step
    rate           of AdamW at first; it falls to 0 as a cosine
    decay          of the weights
    seed           of what is random. Replica i is the same whatever m is, to rounding
    """

    members: int = 20
    randomness: Randomness = "init"
    width: int = 64
    layers: int = 3
    steps: int = 400
    batch: int = 128
    rate: float = 3e-3
    decay: float = 0.01
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if self.randomness not in RANDOMNESS:
            raise InvalidArgument(
                f"expected randomness one of {', '.join(RANDOMNESS)}, got {self.randomness!r}"
            )
        as_int(self.members, "members", 2, 100_000)
        if self.randomness == "halves" and self.members % 2:
            raise InvalidArgument(f"expected an even number of halves, got {self.members} members")
        for name in ("width", "batch", "steps"):
            as_int(getattr(self, name), name, 1, 10_000_000)
        as_int(self.layers, "layers", 1, 100)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        if not 0 < as_number(self.rate, "rate") < 10:
            raise InvalidArgument(f"expected rate between 0 and 10, got {self.rate}")
        if not 0 <= as_number(self.decay, "decay") < 1:
            raise InvalidArgument(f"expected decay of at least 0 and below 1, got {self.decay}")

    @property
    def told(self) -> str:
        """The randomness in words, for a report."""
        return _TOLD[self.randomness]


def trained(
    features: F32, codes: I64, classes: int, config: TrainConfig, progress: Progress
) -> Maps:
    """The maps of all replicas after config.steps steps."""
    torch = _torch()
    m, width = config.members, config.width
    rngs = [np.random.default_rng([config.seed, 1, member]) for member in range(m)]
    sizes = [features.shape[1], *[width] * (config.layers - 1), classes]
    maps = [
        tuple(torch.tensor(part, requires_grad=True) for part in one)
        for one in _initial(rngs, sizes)
    ]
    sets = _training_sets(len(features), config)
    orders = [_batches(rows, config.batch, rng) for rows, rng in zip(sets, rngs, strict=True)]
    x, y = torch.from_numpy(features), torch.from_numpy(codes)
    adam = torch.optim.AdamW(
        [part for one in maps for part in one],
        lr=config.rate,
        weight_decay=config.decay,
        fused=True,
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.steps)
    for step in range(config.steps):
        rows = torch.from_numpy(np.stack([next(order) for order in orders]))  # (m, batch)
        h = x[rows]  # (m, batch, d)
        for depth, (weights, biases) in enumerate(maps):
            h = torch.baddbmm(biases, h.relu() if depth else h, weights)
        # Summed over replicas, so that each has the gradient of its own mean loss.
        loss = torch.nn.functional.cross_entropy(
            h.flatten(0, 1), y[rows].flatten(), reduction="sum"
        )
        adam.zero_grad()
        (loss / config.batch).backward()
        adam.step()
        falling.step()
        progress("train", (step + 1) / config.steps)
    return [(weights.detach().numpy(), biases.detach().numpy()) for weights, biases in maps]


def _training_sets(n: int, config: TrainConfig) -> list[I64]:
    """Rows that each replica is trained on."""
    sets: list[I64] = []
    for member in range(config.members):
        if config.randomness == "init":
            sets.append(np.arange(n))
        elif config.randomness == "bootstrap":
            sets.append(np.random.default_rng([config.seed, 0, member]).integers(0, n, n))
        elif member % 2 == 0:
            split = np.random.default_rng([config.seed, 0, member]).permutation(n)
            sets += [split[: n // 2], split[n // 2 :]]
    return sets


def _batches(rows: I64, batch: int, rng: np.random.Generator) -> Iterator[I64]:
    """Rows for each step, without end: shuffled passes, one after the other."""
    order = rows[:0]
    while True:
        while len(order) < batch:
            order = np.concatenate([order, rng.permutation(rows)])
        yield order[:batch]
        order = order[batch:]


def _initial(rngs: Sequence[np.random.Generator], sizes: Sequence[int]) -> Maps:
    """(m, in, out) weights and (m, 1, out) biases of each map, uniform within 1 / sqrt(in)."""
    maps = []
    for before, after in pairwise(sizes):
        drawn = np.stack([rng.uniform(-1, 1, (before + 1, after)) for rng in rngs])
        drawn = (drawn / np.sqrt(before)).astype(np.float32)
        maps.append((drawn[:, :-1], drawn[:, -1:]))
    return maps


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise Unavailable("torch is not installed; pip install 'soardb[models]'") from error
    return torch
