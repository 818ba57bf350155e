"""Ground truth and recall: what a search should have found, and how much of it was.

    kernels -> [recall.py] -> benchmarks, cli, tests

Points with equal scores are interchangeable. So recall is not a comparison of ids: a returned
point counts when its exact score reaches the k-th true score within a tolerance. The exact scores
are computed anew from the vectors in float64, so an index cannot vouch for itself.

Rows are positions in the given vectors. An index that was given other ids must have them mapped
back to rows first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_dim, as_vectors
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.metrics import Metric, as_metric, unit_rows

_BLOCK_BYTES = 1 << 26  # of gathered float64 vectors


@dataclass(frozen=True)
class Recall:
    """per_query  (nq,) float64, the share of its true neighbours that each query found."""

    per_query: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The figure that benchmarks report."""
        return float(self.per_query.mean())


def ground_truth(
    vectors: npt.ArrayLike, queries: npt.ArrayLike, k: int, metric: str, *, threads: int = 1
) -> tuple[F32, I64]:
    """The true k neighbours of every query, by brute force.

    vectors  (n, d) float32, finite; not all zero in any row under cosine
    queries  (nq, d) float32, the same
    metric   "cosine", "dot" or "l2"

    Returns (scores (nq, k) float32, rows (nq, k) int64), best first, ties to the lower row. Scores
    are summed in float64, so they are the same on every machine. Costs one (nq, d) x (d, n)
    product, and a normalised copy of the vectors under cosine.
    Raises InvalidArgument, also when k > n.
    """
    metric = as_metric(metric)
    vectors, queries = _checked(vectors, queries, metric)
    if not 1 <= k <= len(vectors):
        raise InvalidArgument(f"expected k within 1..{len(vectors)} (the vectors given), got {k}")
    if metric == "cosine":
        _, rows = active.exact_topk(unit_rows(vectors), unit_rows(queries), k, metric, threads)
    else:
        _, rows = active.exact_topk(vectors, queries, k, metric, threads)
    scores = exact_scores(vectors, queries, rows, metric)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def exact_scores(vectors: F32, queries: F32, rows: I64, metric: str) -> F32:
    """The true scores of the rows that a search returned.

    vectors  (n, d) float32
    queries  (nq, d) float32
    rows     (nq, m) int64, -1 where nothing was found

    Returns (nq, m) float32, summed in float64; -inf at -1. Raises InvalidArgument for rows past n.
    """
    if rows.ndim != 2 or len(rows) != len(queries):
        raise InvalidArgument(f"expected rows of shape ({len(queries)}, m), got {rows.shape}")
    if rows.size and (rows.min() < -1 or rows.max() >= len(vectors)):
        raise InvalidArgument(
            f"expected rows within -1..{len(vectors) - 1}, got {rows.min()}..{rows.max()}; "
            "map the ids of an index back to rows first"
        )
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    step = max(1, _BLOCK_BYTES // (8 * max(1, rows.shape[1] * vectors.shape[1])))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        of_query, column = np.nonzero(rows[block] >= 0)
        left = queries[block][of_query].astype(np.float64)
        right = vectors[rows[block][of_query, column]].astype(np.float64)
        scores[block][of_query, column] = _pair_scores(left, right, metric)
    return scores


def recall_at_k(
    scores: F32, ids: I64, true_scores: F32, k: int, *, tolerance: float = 1e-5
) -> Recall:
    """The share of the true k neighbours that each query found; ties are interchangeable.

    scores       (nq, m) float32, exact scores of the ids: see exact_scores
    ids          (nq, m) int64, best first; -1 never counts, a repeated id counts once
    true_scores  (nq, >= k) float32, best first: see ground_truth; -inf where fewer points exist
    tolerance    a score s reaches the k-th true score t when s >= t - tolerance * max|true score|
                 of that query; covers float32 rounding and nothing else

    The first k columns of ids count; with m < k the rest is missing. A query for which no point
    exists at all has recall 1. Raises InvalidArgument on shapes that do not fit.
    """
    if ids.ndim != 2 or scores.shape != ids.shape or len(true_scores) != len(ids):
        raise InvalidArgument(
            f"expected scores and ids of one shape (nq, m) and as many rows of true scores, got "
            f"{scores.shape}, {ids.shape} and {true_scores.shape}"
        )
    if not 1 <= k <= true_scores.shape[1]:
        raise InvalidArgument(f"expected k within 1..{true_scores.shape[1]}, got {k}")
    true = true_scores[:, :k].astype(np.float64)
    exists = np.isfinite(true)
    possible = exists.sum(axis=1)
    scale = np.abs(np.where(exists, true, 0)).max(axis=1)
    last = np.where(exists, true, np.inf).min(axis=1)  # inf where no point exists
    reaches = scores[:, :k] >= (last - tolerance * scale)[:, None]
    hits = (reaches & _first_occurrence(ids[:, :k])).sum(axis=1)
    return Recall(np.minimum(hits, possible) / np.maximum(possible, 1) + (possible == 0))


def _first_occurrence(ids: I64) -> npt.NDArray[np.bool_]:
    """Where a real id stands for the first time in its row."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    first = np.ones(ids.shape, dtype=np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    unordered = np.empty_like(first)
    np.put_along_axis(unordered, order, first, axis=1)
    return unordered & (ids >= 0)


def _checked(vectors: npt.ArrayLike, queries: npt.ArrayLike, metric: Metric) -> tuple[F32, F32]:
    shape = np.shape(vectors)
    if len(shape) != 2:
        raise InvalidArgument(f"expected vectors of shape (n, d), got {shape}")
    d = as_dim(shape[1])
    return as_vectors(vectors, d, metric), as_vectors(queries, d, metric, "queries")


def _pair_scores(
    left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], metric: str
) -> npt.NDArray[np.float64]:
    if metric == "l2":
        difference = left - right
        squared: npt.NDArray[np.float64] = np.einsum("md,md->m", difference, difference)
        return -squared
    products: npt.NDArray[np.float64] = np.einsum("md,md->m", left, right)
    if metric == "cosine":
        products /= np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return products
