"""How large variance is beside bias, over all samples: the cone under variance = C * bias^2.

    decomposition.py -> [cone.py] -> run.py, plot.py

Two bounds hold for any predictions and prove nothing about a model. Errors h - e_y never make an
obtuse angle, so of m replicas, plainly estimated, variance is at most (m - 1) bias^2. And as
||h - e_y||^2 is at most 2 (1 - h_y), variance is at most 2 sqrt((c - 1) / c) bias - bias^2 for c
classes. A cone says something where C is far below m - 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.pipelines.diagnose.decomposition import Decomposition
from soardb.pipelines.diagnose.ensemble import F64
from soardb.pipelines.stored import plain

__all__ = ["Cone", "cone_of", "envelope"]


@dataclass(frozen=True, slots=True)
class Cone:
    """Of variance / bias^2, over the samples whose bias^2 is above 0.

    largest, p99, median, low, high  the maximum, percentiles 99, 50, 25 and 75
    n, dropped    samples with a ratio, and without
    certain       m - 1: what `largest` cannot exceed when plainly estimated
    bound         the C that was asked about, and
    share_above   the share of all samples whose variance is above C bias^2; None without a C
    """

    largest: float
    p99: float
    median: float
    low: float
    high: float
    n: int
    dropped: int
    certain: int
    bound: float | None = None
    share_above: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def cone_of(parts: Decomposition, members: int, bound: float | None = None) -> Cone | None:
    """The cone of a decomposition; None where no sample has a bias^2 above 0.

    bound: a C above 0. Errors: InvalidArgument.
    """
    if bound is not None and as_number(bound, "bound") <= 0:
        raise InvalidArgument(f"expected a bound above 0, got {bound}")
    kept = parts.bias > 0
    if not kept.any():
        return None
    # variance <= C bias^2 is asked without dividing: bias^2 can be as small as 1e-300.
    with np.errstate(over="ignore"):
        ratios = parts.variance[kept] / parts.bias[kept]
    low, median, high, p99 = np.quantile(ratios, (0.25, 0.5, 0.75, 0.99)).tolist()
    above = None
    if bound is not None:
        above = float((parts.variance > bound * parts.bias).mean())
    return Cone(
        float(ratios.max()),
        p99,
        median,
        low,
        high,
        int(kept.sum()),
        int((~kept).sum()),
        members - 1,
        bound,
        above,
    )


def envelope(bias: npt.ArrayLike, classes: int) -> F64:
    """The largest variance that predictions over `classes` classes can have at each bias^2."""
    b = np.asarray(bias, np.float64)
    return np.asarray(2 * np.sqrt((classes - 1) / classes * b) - b)
