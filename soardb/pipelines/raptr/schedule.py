"""Stages of a training: how large the part of the network is that learns, and for how many steps.

    config.py -> [schedule.py] -> plans.py, baselines.py

"6-8-10-12" is four stages with these numbers of layers on average, RaPTr's own way of writing it
(arXiv 2402.05913). Stages are equally long, or as long as their number. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from soardb.arrays import as_int
from soardb.errors import InvalidArgument

__all__ = ["LENGTHS", "Lengths", "Schedule", "Stage", "sizes_of"]

Lengths = Literal["equal", "proportional"]
LENGTHS: tuple[Lengths, ...] = get_args(Lengths)


@dataclass(frozen=True, slots=True)
class Stage:
    """size, of what learns, from step `first` on, for `steps`."""

    size: float
    first: int
    steps: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Stages that follow one another from step 0 on."""

    stages: tuple[Stage, ...]

    @classmethod
    def parsed(
        cls,
        text: str,
        steps: int,
        lengths: Lengths = "equal",
        *,
        warm_up: int = 0,
        whole: float | None = None,
    ) -> Schedule:
        """Of "6-8-10-12" over `steps` steps.

        lengths  equal; or proportional, where stage i has i times as many steps as the first: with
                 "12-16-20-24" the cost that the paper tells of its largest model, not verified
                 against the paper
        warm_up  steps of a first stage with the whole network, of size `whole`, before the others,
                 which share what is left

        Steps that do not divide go to the stages whose share was cut the most, earlier ones first.
        Errors: InvalidArgument, also where there are fewer steps than stages.
        """
        sizes = sizes_of(text)
        as_int(steps, "steps", 1, 100_000_000)
        as_int(warm_up, "warm_up", 0, 100_000_000)
        if lengths not in LENGTHS:
            raise InvalidArgument(f"expected lengths one of {', '.join(LENGTHS)}, got {lengths!r}")
        weights = [1] * len(sizes) if lengths == "equal" else list(range(1, len(sizes) + 1))
        counts = _dealt(steps - warm_up, weights)
        if min(counts) < 1:
            raise InvalidArgument(
                f"expected a step at least for each stage of {text}, got {steps} steps with "
                f"{warm_up} of warm_up"
            )
        if warm_up:
            sizes, counts = [whole or max(sizes), *sizes], [warm_up, *counts]
        firsts = [0, *accumulate(counts)]
        return cls(tuple(map(Stage, sizes, firsts, counts)))

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def mean(self) -> float:
        """Size, on average over steps."""
        return sum(stage.size * stage.steps for stage in self.stages) / self.steps

    def at(self, step: int) -> Stage:
        """The stage of a step."""
        return next(stage for stage in reversed(self.stages) if stage.first <= step)

    def begins(self, step: int) -> bool:
        """Whether a stage begins with this step that is not the first one."""
        return any(stage.first == step for stage in self.stages[1:])


def sizes_of(text: str) -> list[float]:
    """The numbers of "6-8-10-12". Errors: InvalidArgument."""
    try:
        sizes = [float(part) for part in text.split("-")]
    except ValueError as error:
        raise InvalidArgument(
            f"expected sizes with - between them, such as 6-8-10-12, got {text!r}"
        ) from error
    if not all(0 < size < 1e6 for size in sizes):
        raise InvalidArgument(f"expected sizes above 0, got {text!r}")
    return sizes


def _dealt(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in parts by weight, whole numbers."""
    whole = sum(weights)
    counts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
