"""HiRE: predict a few candidates from a cheap copy, score those exactly, keep the best.

    estimator.py -> [hire.py] -> kernels (rescore_topk)

    1  s~ = cheap scores of all n            reads the copy
    2  S' = the k' highest s~                k' > k
    3  s  = exact scores of S' alone         reads k' vectors
    4  the k best of S'

What is returned has its exact score; approximation decides only what is looked at. Recall depends
on k' alone, so k' is measured: `calibrate` finds, for each calibration query, how far down s~ its
true neighbours stand, and takes the k' that reaches a recall. HiRE: arXiv 2402.09360 (for the rows
of a model's weights; here for any vectors and inner products).

Not here: anything about training or softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_asked, as_int, as_vectors
from soardb.errors import InvalidArgument, NotTrained
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.topk.estimator import Estimator
from soardb.topk.plan import as_recall

__all__ = ["Calibration", "Hire", "Traffic", "curve_of", "ranks_of", "traffic"]

_QUERIES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one query moves.

    dense     all vectors, exactly
    estimate  the cheap copy
    rescore   the predicted rows, exactly
    """

    dense: int
    estimate: int
    rescore: int

    @property
    def speedup(self) -> float:
        """Dense bytes over bytes moved: what a search that is bound by memory may gain at most."""
        return self.dense / (self.estimate + self.rescore)


def traffic(
    n: int,
    d: int,
    predicted: int,
    *,
    bits: int | None = None,
    rank: int | None = None,
    value_bytes: int = 4,
) -> Traffic:
    """The cost model: bytes moved by a query that predicts k' of n vectors.

    bits         HiRE-Q with so many bits a value and a float32 scale a vector
    rank         or: HiRE-LR, factors of value_bytes
    value_bytes  of the exact vectors: 4 for float32, 2 for 16 bits
    """
    n, d = as_int(n, "n", 1, 2**40), as_int(d, "d", 1, 2**20)
    predicted = as_int(predicted, "predicted", 0, n)
    value_bytes = as_int(value_bytes, "value_bytes", 1, 8)
    if (bits is None) == (rank is None):
        raise InvalidArgument("expected either bits or rank, got both or neither")
    if rank is not None:
        estimate = (n + d) * as_int(rank, "rank", 1, d) * value_bytes
    else:
        estimate = n * d * as_int(bits, "bits", 1, 16) // 8 + 4 * n
    return Traffic(n * d * value_bytes, estimate, predicted * d * value_bytes)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How recall@k rises with k', measured.

    k           neighbours asked for
    predicted   (m,) int64, rising: k'
    recall      (m,) float64, mean over the queries
    low         (m,) float64, lower end of its one-sided confidence interval
    queries     how many were asked
    confidence  of `low`
    """

    k: int
    predicted: I64
    recall: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    queries: int
    confidence: float

    def choose(self, recall_target: float) -> int:
        """The least k' whose recall reaches the target even at the low end of its interval.

        InvalidArgument where no k' of the curve does, which only so few queries can bring about.
        """
        target = as_recall(recall_target)
        enough = np.flatnonzero(self.low >= target)
        if not len(enough):
            raise InvalidArgument(
                f"expected a recall_target of at most {self.low.max():.4f}, which {self.queries} "
                f"queries can show, got {target}; calibrate on more queries"
            )
        return int(self.predicted[enough[0]])


class Hire:
    """Top-k inner products over (n, d) vectors through an estimator.

    hire = Hire(vectors, Quantized(vectors, bits=4))
    hire.calibrate(some_queries, k=10, recall_target=0.95)
    scores, rows = hire.topk(queries, k=10)

    vectors    (n, d) float32, borrowed: keep them. Unit rows give cosines
    predicted  k', or None until `calibrate` has chosen it
    """

    def __init__(
        self, vectors: npt.ArrayLike, estimator: Estimator, *, predicted: int | None = None
    ) -> None:
        self.estimator = estimator
        self._vectors = as_vectors(vectors, estimator.d, "dot")
        if len(self._vectors) != estimator.n:
            raise InvalidArgument(
                f"expected the {estimator.n} vectors of the estimator, got {len(self._vectors)}"
            )
        self.predicted = (
            None if predicted is None else as_int(predicted, "predicted", 1, estimator.n)
        )

    def topk(
        self, queries: npt.ArrayLike, k: int = 10, *, predicted: int | None = None, threads: int = 1
    ) -> tuple[F32, I64]:
        """The k best rows of (d,) or (nq, d) queries among the k' predicted.

        predicted  k', at least k; None: that of the constructor or of `calibrate`

        Returns (scores (nq, k) float32, rows (nq, k) int64), best first, equal scores by rising
        row. Scores are exact. Costs one pass over the copy and k' rows.
        """
        asked = self._as_queries(queries)
        k = as_int(k, "k", 1, self.estimator.n)
        wanted = self.predicted if predicted is None else predicted
        if wanted is None:
            raise NotTrained("expected a number of predicted rows; pass predicted= or calibrate()")
        wanted = as_int(wanted, "predicted", k, self.estimator.n, "it must hold the k asked for")
        threads = as_int(threads, "threads", 1, 1024)
        rows = self.estimator.predict(asked, wanted, threads)
        return active.rescore_topk(self._vectors, asked, rows, k, threads)

    def calibrate(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        recall_target: float | None = None,
        confidence: float = 0.95,
        threads: int = 1,
    ) -> Calibration:
        """Measure recall@k over k' on queries that are not asked later.

        recall_target  also set `predicted` to the least k' that reaches it (Calibration.choose)

        Returns the whole curve. Costs an exact search and n predicted scores a query.
        """
        asked = self._as_queries(queries)
        if not len(asked):
            raise InvalidArgument("expected at least one query to calibrate on, got none")
        k = as_int(k, "k", 1, self.estimator.n)
        if not 0.5 <= confidence < 1:
            raise InvalidArgument(f"expected confidence within 0.5..1, below 1, got {confidence}")
        _, true_rows = active.exact_topk(self._vectors, asked, k, "dot", threads)
        ranks = np.empty((len(asked), k), np.int64)
        for first in range(0, len(asked), _QUERIES_AT_ONCE):
            some = slice(first, first + _QUERIES_AT_ONCE)
            scores = self.estimator.scores(asked[some], threads)
            ranks[some] = ranks_of(scores, true_rows[some])
        curve = curve_of(np.sort(ranks, axis=1), self.estimator.n, confidence)
        if recall_target is not None:
            self.predicted = curve.choose(recall_target)
        return curve

    def _as_queries(self, queries: npt.ArrayLike) -> F32:
        asked = as_asked(queries, self.estimator.d)
        if not np.isfinite(asked).all():
            raise InvalidArgument("expected finite queries, got NaN or infinity")
        return asked


def ranks_of(scores: F32, rows: I64) -> I64:
    """How many other scores of its row of (nq, n) are as high as that of each of (nq, k) rows."""
    ordered = np.sort(scores, axis=1)
    own = np.take_along_axis(scores, rows, axis=1)
    below = np.stack([np.searchsorted(a, b, "left") for a, b in zip(ordered, own, strict=True)])
    return np.asarray(scores.shape[1] - 1 - below, np.int64)


def curve_of(ranks: I64, n: int, confidence: float) -> Calibration:
    """From (nq, k) ascending ranks; k' stands at every rank that occurs: there the curve bends."""
    nq, k = ranks.shape
    predicted = np.unique(np.concatenate([np.maximum(ranks.ravel() + 1, k), [k, n]]))
    if len(predicted) > 4096:
        predicted = np.unique(
            np.concatenate([predicted[:: len(predicted) // 2048], predicted[-1:]])
        )
    found = np.stack([np.searchsorted(row, predicted, "left") for row in ranks]) / k  # (nq, m)
    mean = found.mean(axis=0)
    # Queries whose recall is 1 everywhere show no spread, and yet the next may miss: two misses
    # and two hits more than were seen keep the interval honest (Agresti and Coull).
    z = NormalDist().inv_cdf(confidence)
    spread = found.std(axis=0, ddof=1 if nq > 1 else 0)
    softened = (mean * nq + z * z / 2) / (nq + z * z)
    least = np.sqrt(softened * (1 - softened) / (nq * k))
    low = mean - z * np.maximum(spread / np.sqrt(nq), least)
    low[predicted >= n] = 1.0  # everything is predicted
    return Calibration(k, predicted, mean, np.maximum.accumulate(low), nq, confidence)
