"""Indexes, data and the oracle for the contract tests.

To have the contract run on another index: a line in MAKERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from soardb import FlatIndex, SoarIndex
from soardb.index import Index
from soardb.kernels import dispatch
from soardb.kernels.layout import F32
from soardb.metrics import METRICS, Metric

Maker = Callable[[int, str], Index]


def _soar(soar_lambda: float, ncell: int = 0) -> Maker:
    def make(d: int, metric: str) -> Index:
        return SoarIndex(d, metric, nlist=24, soar_lambda=soar_lambda, ncell=ncell, seed=1)

    return make


MAKERS: dict[str, Maker] = {
    "flat": FlatIndex,
    "soar": _soar(1.5),
    "plain-ivf": _soar(0.0),
    "two-level": _soar(1.5, ncell=5),
    "small-exact": lambda d, metric: SoarIndex(d, metric, nlist=0),
}


@dataclass(frozen=True)
class Data:
    """Clustered vectors, queries near them, and one metric."""

    vectors: F32
    queries: F32
    metric: Metric


def clustered(n: int, d: int, seed: int, spread: float = 0.35) -> F32:
    """(n, d) float32 around 30 centres with very unequal shares, off the origin."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, d)) + 0.5
    which = np.minimum(rng.geometric(0.12, n) - 1, 29)
    return (centres[which] + spread * rng.normal(size=(n, d))).astype(np.float32)


@pytest.fixture(params=METRICS)
def data(request: pytest.FixtureRequest) -> Data:
    """1,500 stored vectors and 40 queries, d = 20, under each metric."""
    both = clustered(1540, 20, seed=3)
    return Data(both[:1500], both[1500:], request.param)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Maker:
    """A maker of each kind of index."""
    return MAKERS[request.param]


@pytest.fixture(params=dispatch.levels() or ("none",))
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every SIMD level of this machine in turn; "none" where the extension is absent."""
    before = dispatch.describe().simd
    if request.param != "none":
        dispatch.use_level(request.param)
    yield request.param
    if before != "none":
        dispatch.use_level(before)


def filled(make: Maker, data: Data, ids: np.ndarray | None = None) -> Index:
    """A trained index that holds data.vectors."""
    index = make(data.vectors.shape[1], data.metric)
    index.train(data.vectors)
    index.add(data.vectors, ids)
    return index


def true_scores(vectors: F32, queries: F32, metric: Metric) -> np.ndarray:
    """(nq, n) float64 scores by definition."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    if metric == "l2":
        return np.asarray(-np.square(q[:, None, :] - x[None, :, :]).sum(axis=2))
    return np.asarray(q @ x.T)
