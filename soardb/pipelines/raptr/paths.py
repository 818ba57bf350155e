"""Which layers run: the fixed ones, and others at random.

    schedule.py -> [paths.py] -> plans.py

A path is drawn for a whole batch. With "bernoulli" each layer that is not fixed is there with the
same probability, (n - |F|) / (L - |F|) for a mean depth of n; with "exact" there are always n,
drawn without putting back, so that every step of a stage takes the same time.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from soardb.errors import InvalidArgument

__all__ = ["KINDS", "Kind", "Paths", "keep_share"]

Kind = Literal["exact", "bernoulli"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Paths:
    """Random paths through `layers` layers, the same ones for the same seed.

    fixed   layers, from 0 on, that are in every path
    random  the generator
    """

    def __init__(
        self, layers: int, fixed: tuple[int, ...], kind: Kind = "exact", seed: int = 0
    ) -> None:
        if not set(fixed) <= set(range(layers)) or len(set(fixed)) != len(fixed):
            raise InvalidArgument(
                f"expected fixed layers among 0..{layers - 1}, each once, got {fixed}"
            )
        if kind not in KINDS:
            raise InvalidArgument(f"expected paths one of {', '.join(KINDS)}, got {kind!r}")
        self.layers, self.fixed, self.kind = layers, fixed, kind
        self.random = np.random.default_rng([seed, 2])
        self._loose = [layer for layer in range(layers) if layer not in fixed]

    def check(self, depth: float) -> None:
        """InvalidArgument for a depth that no path has."""
        if not len(self.fixed) <= depth <= self.layers:
            raise InvalidArgument(
                f"expected depths of {len(self.fixed)} (the fixed layers) to {self.layers}, got "
                f"{depth:g}"
            )

    def __call__(self, depth: float) -> tuple[int, ...]:
        """A path of this depth on average, in order.

        An exact depth between two whole numbers is one of both, by chance, for the right average.
        """
        wanted = depth - len(self.fixed)
        if self.kind == "bernoulli":
            share = keep_share(depth, self.layers, len(self.fixed))
            drawn = [layer for layer in self._loose if self.random.random() < share]
        else:
            count = math.floor(wanted)
            if wanted > count:
                count += int(self.random.random() < wanted - count)
            drawn = self.random.permutation(self._loose)[:count].tolist()
        return tuple(sorted([*self.fixed, *drawn]))


def keep_share(depth: float, layers: int, fixed: int) -> float:
    """How likely a layer that is not fixed runs, for a mean depth; 1 where all are fixed."""
    return 1.0 if layers == fixed else (depth - fixed) / (layers - fixed)
