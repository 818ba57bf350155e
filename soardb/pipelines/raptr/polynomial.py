"""A toy in which order matters: terms of low and of high degree, learned by a residual net.

    plans.py, subnetwork.py, training.py -> [polynomial.py] -> benchmarks/bench_raptr_theory.py

y(x) = sum_S c_S prod_(i in S) x_i over x in {-1, 1}^d, with terms of degree 1 and 3, say. Where
layers are dropped late, what learns last is too small for the high degrees, and loses them; RaPTr
learns the low ones first and then the others (arXiv 2402.05913, version 2). What is left of each
degree can be told apart, as different products of coordinates are orthogonal. Sizes are ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.training import TrainConfig, adam_of, descend
from soardb.pipelines.raptr.plans import Plan
from soardb.pipelines.raptr.subnetwork import Scale, Subnetwork, through

__all__ = ["Learned", "Polynomial", "ResidualNet", "learn"]

Progress = Callable[[str, float], None]


class Polynomial:
    """Random terms of some degrees in `variables` variables, each degree of the same energy.

    terms    how many of each degree
    energies  of each degree, the mean square over x: 1 / number of degrees
    """

    def __init__(
        self, variables: int = 20, degrees: Sequence[int] = (1, 3), terms: int = 10, seed: int = 0
    ) -> None:
        as_int(variables, "variables", 1, 10_000)
        as_int(terms, "terms", 1, 100_000)
        random = np.random.default_rng(seed)
        self.variables = variables
        self.terms: dict[int, Tensor] = {}
        for degree in degrees:
            as_int(degree, "degree", 1, variables)
            chosen: set[tuple[int, ...]] = set()
            if terms > math.comb(variables, degree):
                raise InvalidArgument(
                    f"expected at most {math.comb(variables, degree)} terms of degree {degree}, "
                    f"got {terms}"
                )
            while len(chosen) < terms:
                drawn = random.choice(variables, degree, replace=False)
                chosen.add(tuple(sorted(drawn.tolist())))
            self.terms[degree] = torch.tensor(sorted(chosen))
        energy = 1 / (terms * len(self.terms))
        signs = random.choice([-1.0, 1.0], (len(self.terms), terms))
        self.coefficients = {
            degree: torch.from_numpy(row * energy**0.5).float()
            for degree, row in zip(self.terms, signs, strict=True)
        }

    def inputs(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, variables) of -1 and 1, each as likely."""
        return torch.randint(0, 2, (rows, self.variables), generator=random).float() * 2 - 1

    def products(self, x: Tensor, degree: int) -> Tensor:
        """(rows, terms) values of the terms of a degree, without coefficients."""
        return x[:, self.terms[degree]].prod(-1)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows,) values."""
        return torch.stack(
            [self.products(x, degree) @ self.coefficients[degree] for degree in self.terms]
        ).sum(0)

    def left(self, x: Tensor, found: Tensor) -> dict[int, float]:
        """By degree: the share of its energy that (rows,) answers found for x leave.

        The projection of what is wrong onto each term, over x: exact over all x, otherwise off by
        about 1 / rows of the error for each term.
        """
        wrong = self(x) - found
        left = {}
        for degree in self.terms:
            told = (self.products(x, degree) * wrong[:, None]).mean(0)
            left[degree] = float(told.square().sum() / self.coefficients[degree].square().sum())
        return left


class ResidualNet(nn.Module):
    """An input map, residual blocks of one hidden layer behind a norm, and an output map."""

    def __init__(
        self, variables: int, layers: int = 8, width: int = 64, hidden: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        as_int(layers, "layers", 1, 1000)
        self.first = nn.Linear(variables, width)
        self.layers = nn.ModuleList(_Block(width, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 1)
        random = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=random)
            elif weight.dim() == 1:
                nn.init.zeros_(weight)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)

    def forward(self, x: Tensor, part: Subnetwork, scale: Scale = "sqrt") -> Tensor:
        """(rows, variables) -> (rows,) through the blocks of the part."""
        found: Tensor = self.last(self.norm(through(list(self.layers), self.first(x), part, scale)))
        return found[:, 0]


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(functional.relu(self.up(self.norm(x))))
        return out


@dataclass(frozen=True, slots=True)
class Learned:
    """steps at which the net was looked at, and by degree the share of energy that was left then:
    by the whole net, and by parts as they learned in the step before, on average.
    """

    steps: list[int]
    left: dict[int, list[float]]
    left_by_parts: dict[int, list[float]]


def learn(
    polynomial: Polynomial,
    net: ResidualNet,
    plan: Plan,
    train: TrainConfig,
    scale: Scale = "sqrt",
    *,
    looks: int = 20,
    parts: int = 4,
    tested: int = 2**14,
    progress: Progress = lambda stage, share: None,
) -> Learned:
    """Train a net in place, on new random x each step, by the square of what is wrong.

    train.batch rows a step; train.window is not read. The whole net, and so many parts, are looked
    at `looks` times and at the end, over `tested` x.
    """
    random = torch.Generator().manual_seed(train.seed)
    test = polynomial.inputs(tested, torch.Generator().manual_seed(train.seed + 10**9))
    found = Learned([], {n: [] for n in polynomial.terms}, {n: [] for n in polynomial.terms})
    probe = copy.deepcopy(plan)  # so that looking changes no path
    adam = adam_of([net], train)
    every = max(1, train.steps // looks)

    def look(step: int) -> None:
        found.steps.append(step)
        drawn = [probe.draw(max(0, step - 1)) for _ in range(parts)]
        for told, some in ((found.left, [probe.whole(step)]), (found.left_by_parts, drawn)):
            with torch.inference_mode():
                shares = [polynomial.left(test, net(test, part, scale)) for part in some]
            for degree, row in told.items():
                row.append(sum(share[degree] for share in shares) / len(shares))

    def loss_of(step: int) -> Tensor:
        plan.begin(step, net.layers, adam)
        if step % every == 0:
            look(step)
        x = polynomial.inputs(train.batch, random)
        wrong: Tensor = net(x, plan.draw(step), scale) - polynomial(x)
        return wrong.square().mean()

    descend([net], loss_of, train, progress, "polynomial", adam=adam)
    look(train.steps)
    return found
