"""The best choice of few points by trying all, and metrics to try it in.

test_select.py, test_select_parts.py -> [brute.py]
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = ("l2", "cosine", "distances")

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Instance:
    """points: what run() takes under `metric`; distances: (n, n) float64; weights: (n,)."""

    metric: str
    points: Any
    distances: F64
    weights: F64
    k: int
    radius_weight: float

    def radius(self, chosen: Any) -> float:
        return float(self.distances[:, list(chosen)].min(axis=1).max())

    def value(self, chosen: Any) -> float:
        return self.radius_weight * self.radius(chosen) + float(self.weights[list(chosen)].sum())

    def best(self) -> tuple[int, ...]:
        """The choice with the smallest objective."""
        return min(combinations(range(len(self.weights)), self.k), key=self.value)

    def k_center(self) -> float:
        """The smallest radius that k points leave."""
        return min(map(self.radius, combinations(range(len(self.weights)), self.k)))


def instance(seed: int) -> Instance:
    """One of many: few points, in Euclidean space, on a sphere, or on a graph; some are equal."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    k = int(rng.integers(1, min(n, 4) + 1))
    metric = KINDS[seed % 3]
    if metric == "distances":
        lengths = rng.random((n, n))
        lengths = (lengths + lengths.T) / 2
        np.fill_diagonal(lengths, 0)
        for via in range(n):
            lengths = np.minimum(lengths, lengths[:, via, None] + lengths[via])
        points = lengths.astype(np.float32)
        distances = points.astype(np.float64)
    else:
        points = rng.normal(size=(n, 3)).astype(np.float32)
        if n > 4 and seed % 4 == 0:
            points[n // 2 :] = points[: n - n // 2]  # every point twice
        wide = points.astype(np.float64)
        if metric == "cosine":
            wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        distances = np.linalg.norm(wide[:, None] - wide[None], axis=2)
        if metric == "cosine":
            distances = 2 * np.arcsin(np.clip(distances / 2, 0, 1))
    weights = rng.random(n) * (seed % 5 > 0) * (rng.random(n) < 0.8)
    return Instance(metric, points, distances, weights, k, float(rng.choice([0.0, 0.1, 1.0, 10.0])))
