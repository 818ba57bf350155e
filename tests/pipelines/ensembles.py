"""Ensembles by hand and by chance, for tests of what is measured on them.

test_diagnose.py, test_diagnose_lines.py -> [ensembles.py]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from soardb.pipelines.diagnose import Ensemble


def logits_of(seed: int, members: int = 6, n: int = 80, classes: int = 5) -> tuple[Any, Any]:
    """(m, n, c) logits of replicas that mostly agree, and (n,) labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    margin = rng.uniform(-1, 12, n)
    z = rng.normal(size=(members, n, classes))
    z[:, np.arange(n), labels] += margin
    return z, labels


def by_chance(seed: int, members: int = 6, n: int = 80, classes: int = 5) -> Ensemble:
    """An ensemble of such logits."""
    return Ensemble.of_logits(*logits_of(seed, members, n, classes))


def wild(seed: int, members: int, n: int, classes: int) -> Ensemble:
    """Anything in the simplex: corners, edges and the middle, right and wrong."""
    rng = np.random.default_rng(seed)
    sharpness = 10 ** rng.uniform(-2, 1, (members, n, 1))
    p = rng.gamma(np.broadcast_to(sharpness, (members, n, classes))) + 1e-300
    return Ensemble.of_probabilities(p / p.sum(axis=2, keepdims=True), rng.integers(0, classes, n))
