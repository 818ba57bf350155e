"""What a selection is worth: its radius, its weight, and how far from the best it can be at most.

    wkc.py, parts.py, run.py -> [certificate.py]

Nothing here measures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """All of it is measured on all points, whatever the points were chosen with.

    radius        largest distance of a point to the closest chosen one
    radius_p99    99th percentile of these distances, which an outlier does not make
    weight        sum of the weights of the chosen points
    objective     radius_scale * radius + weight_scale * weight
    radius_scale, weight_scale  what lambda and `normalize` make of the two
    lower_bound   no k points have a smaller objective
    ratio         objective / lower_bound: 1.2 says that at most a sixth could be saved
    factor        what the method promises at worst; None where it promises nothing
    guess         the radius of the balls whose solution was taken; None for other methods
    separated     how many points were more than two guesses apart
    guesses       how many radii were tried
    """

    radius: float
    radius_p99: float
    weight: float
    objective: float
    radius_scale: float
    weight_scale: float
    lower_bound: float
    ratio: float
    factor: float | None = None
    guess: float | None = None
    separated: int | None = None
    guesses: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
