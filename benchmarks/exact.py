"""Exact nearest neighbours, and how hard they make a set.

    dataset_files.py -> [exact.py] -> datasets.py

A float32 product over all rows is fast but rounds; float64 distances are right but slow. So the
product only proposes: every row within twice the bound of its rounding error of the k-th best.
Distances in float64 decide among those few, summed row by row, so that copies of a vector tie
exactly; ties go to the lower row.

Nothing here imports an index: what judges them must not depend on them. Nothing reads a file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.dataset_files import NEIGHBOURS, Dataset, Metric, Vectors
from benchmarks.environment import Progress, silent
from soardb.errors import InvalidArgument

SAMPLE_SEED = 0  # of the rows and the queries that hardness looks at


def ground_truth(
    train: Vectors,
    test: Vectors,
    metric: Metric,
    *,
    k: int = NEIGHBOURS,
    progress: Progress = silent,
) -> tuple[npt.NDArray[np.int32], Vectors]:
    """Find the exact k nearest rows of train for each row of test.

    train (n, d) float32, test (q, d) float32, finite, no zero rows under "cosine"; k <= n.
    Returns rows (q, k) int32, nearest first, ties to the lower row, and distances (q, k) float32.

    One float32 product finds the candidates: each row whose key lies within twice the rounding
    bound of the k-th best key. No true neighbour can fall outside. Distances of the candidates in
    float64 then settle the order. Scratch: under "cosine" a copy of train, and 128 MiB.
    """
    if metric not in ("cosine", "l2") or not k <= len(train):
        raise InvalidArgument(f"expected metric cosine or l2 and k <= n; got {metric}, {k=}")
    keys_of, bound = _float32_keys(train, test, metric)
    rows = np.empty((len(test), k), np.int32)
    distances = np.empty((len(test), k), np.float32)
    block = max(1, (1 << 25) // len(train))
    for start in range(0, len(test), block):
        progress("exact neighbours", start / len(test))
        keys = keys_of(slice(start, start + block))  # (block, n), bigger = closer
        floors = _lower_bound_of_kth(keys, k) - 2 * bound
        for q, floor in enumerate(floors, start):
            near = np.flatnonzero(keys[q - start] >= floor)
            exact = _float64_distances(train[near], test[q], metric)
            order = np.lexsort((near, exact))[:k]
            rows[q], distances[q] = near[order], exact[order]
    progress("exact neighbours", 1.0)
    return rows, distances


def _lower_bound_of_kth(keys: Vectors, k: int) -> Vectors:
    """Bound the k-th biggest key of each row from below: (b, n) -> (b,).

    The k-th biggest of the maxima of disjoint groups: k groups hold a key as big. Groups take
    every m-th row, so that like neighbours in the source fall in different ones. Far cheaper than
    a partition of all n keys, and hardly lower.
    """
    b, n = keys.shape
    size = max(1, min(64, n // (10 * k)))
    m = n // size
    maxima = keys[:, : size * m].reshape(b, size, m).max(axis=1)
    bounds: Vectors = np.partition(maxima, m - k, axis=1)[:, m - k]
    return bounds


def _float32_keys(
    train: Vectors, test: Vectors, metric: Metric
) -> tuple[Callable[[slice], Vectors], float]:
    """Return the function of a block of queries to its keys (block, n), and their error bound."""
    n_terms = (train.shape[1] + 4) * 2.0**-24  # of a sum of d products in float32, in any order
    if metric == "cosine":
        units, queries = _unit(train), _unit(test)
        return lambda block: queries[block] @ units.T, n_terms
    squares = np.einsum("nd,nd->n", train, train, dtype=np.float64).astype(np.float32)
    longest = float(np.sqrt(squares.max()))
    widest = float(np.linalg.norm(test, axis=1).max())

    def minus_squared_distance(block: slice) -> Vectors:
        """Up to the |q|^2 that is the same for all rows of train."""
        keys: Vectors = (2 * test[block]) @ train.T
        keys -= squares
        return keys

    return minus_squared_distance, n_terms * (2 * longest * widest + longest**2)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not lengths.all():
        raise InvalidArgument(f"row {int(np.argmin(lengths))} is zero and has no cosine; drop it")
    units: Vectors = vectors / lengths[:, None].astype(np.float32)
    return units


def _float64_distances(vectors: Vectors, query: Vectors, metric: Metric) -> npt.NDArray[np.float64]:
    """Distances (m,) of vectors (m, d) to one query (d,), equal rows to equal values."""
    x, q = vectors.astype(np.float64), query.astype(np.float64)
    # Row sums, not a matrix product: BLAS may round equal rows differently by their place.
    distances: npt.NDArray[np.float64]
    if metric == "l2":
        distances = np.sqrt(((x - q) ** 2).sum(axis=1))
    else:
        distances = 1.0 - (x * q).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (q * q).sum())
    return distances


def hardness(dataset: Dataset) -> tuple[float, float]:
    """Estimate how hard a set is: relative contrast (small = hard), intrinsic dimension.

    Relative contrast: mean distance to 1,000 random rows over mean distance to the nearest row.
    Intrinsic dimension: the maximum-likelihood estimate from the 100 neighbours, median over
    queries. Both over at most 1,000 queries; "cosine" counts as Euclidean between unit vectors.
    """
    rng = np.random.default_rng(SAMPLE_SEED)
    n_rows, n_queries = min(1000, len(dataset.train)), min(1000, len(dataset.test))
    rows = dataset.train[rng.choice(len(dataset.train), n_rows, replace=False)]
    chosen = rng.choice(len(dataset.test), n_queries, replace=False)
    far = np.stack([_float64_distances(rows, q, dataset.metric) for q in dataset.test[chosen]])
    near = dataset.distances[chosen].astype(np.float64)
    if dataset.metric == "cosine":
        near, far = np.sqrt(np.maximum(2 * near, 0)), np.sqrt(np.maximum(2 * far, 0))
    contrast = far.mean() / near[:, 0].mean()
    near = near[near[:, 0] > 0]  # a copy among the rows has no logarithm
    dimension = -1 / np.log(near[:, :-1] / near[:, -1:]).mean(axis=1)
    return float(contrast), float(np.median(dimension))
