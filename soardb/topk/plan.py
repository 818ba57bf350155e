"""Expected recall of bucketed top-k, and the cheapest buckets that reach a recall.

    [plan.py] -> operator.py, shards.py

n scores are dealt into buckets of equal size and the `keep` biggest of each bucket survive. Of the
true top k a bucket of m scores holds X ~ Hypergeometric(n, k, m) where the order of the scores is
random, and loses what exceeds `keep`:

    E[recall] = (1 / k) * sum over buckets of E[min(X, keep)]

which is exact, not a bound. One survivor a bucket is the scheme of Chern et al. (arXiv 2206.14286,
`approx_max_k`), more than one that of Samaga et al. (arXiv 2506.04165), and s buckets that are
machines are DA-TOP-k (arXiv 2402.09360). The formula is derived here, not copied from them.

Nothing here looks at a score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument

__all__ = ["TopkPlan", "as_recall", "expected_recall", "hypergeometric", "plan_topk"]

F64 = npt.NDArray[np.float64]

LANES = 16
"""Planned bucket counts are multiples of this, as the kernels take so many buckets at once."""

MAX_KEEP = 8
"""The most survivors a bucket that the planner tries."""

MAX_N = 2**31 - 1

# Nanoseconds, measured with AVX-512 on rows of 2,000 to a million scores; only ratios matter.
_SCAN_NS = 0.08
"""A score compared with the threshold of an exact scan."""
_PUSH_NS = 4.0
"""A score that passes it, with its part of the selections that follow."""
_BUCKET_NS = 0.11
"""A score compared with the last survivor of its bucket, or put in its place where one is kept."""
_INSERT_NS, _SHIFT_NS = 1.0, 0.85
"""An insertion into 16 neighbouring buckets, and more for each survivor that a bucket keeps."""
_STAGE_NS, _SURVIVOR_NS = 800.0, 0.8
"""A second stage, and more for each survivor."""


@dataclass(frozen=True, slots=True)
class TopkPlan:
    """How a top k is found.

    buckets, keep    score i is in bucket i % buckets, and `keep` of each bucket survive
    is_exact         True: no buckets are made, the scan against a threshold is cheaper
    expected_recall  for scores in random order
    cost_ns          what the model expects a row to take on one core, for comparing plans
    """

    buckets: int
    keep: int
    is_exact: bool
    expected_recall: float
    cost_ns: float

    @property
    def survivors(self) -> int:
        """Scores that reach the second stage."""
        return self.buckets * self.keep


def as_recall(value: object, name: str = "recall_target") -> float:
    """A recall within (0, 1], or InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise InvalidArgument(f"expected {name} to be a number, got {value!r}")
    if not 0 < value <= 1:
        raise InvalidArgument(f"expected {name} above 0 and at most 1, got {value}")
    return float(value)


def hypergeometric(total: int, marked: int, drawn: int) -> tuple[int, F64]:
    """The law of how many of `marked` among `total` are within `drawn` of them.

    Returns (r0, p): p[i] = P(X = r0 + i) over the whole support. From ratios of neighbours, so the
    relative error stays near 1e-13 whatever the sizes.
    """
    low, high = max(0, drawn + marked - total), min(marked, drawn)
    r = np.arange(low, high, dtype=np.float64)
    steps = (
        np.log(marked - r)
        + np.log(drawn - r)
        - np.log(r + 1)
        - np.log(total - marked - drawn + r + 1)
    )
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return low, weights / weights.sum()


def _kept(total: int, k: int, size: int, keep: int) -> float:
    """E[min(X, keep)] of one bucket of `size` scores."""
    low, p = hypergeometric(total, k, size)
    return float(np.minimum(np.arange(low, low + len(p)), keep) @ p)


@lru_cache(maxsize=65536)
def _recall(n: int, k: int, buckets: int, keep: int, total: int) -> float:
    size, longer = divmod(n, buckets)
    kept = (buckets - longer) * _kept(total, k, size, keep)
    if longer:
        kept += longer * _kept(total, k, size + 1, keep)
    return min(1.0, kept / (k * n / total))


def expected_recall(
    n: int, k: int, buckets: int, keep: int = 1, *, total: int | None = None
) -> float:
    """Share of the true top k that survives, exact in expectation over a random order.

    n        scores, dealt to 1 <= buckets <= n; sizes differ by at most one
    keep     survivors of each bucket
    total    the n are a random part of so many scores, and k counts the best of all of them; the
             share is of those among the n. None: n

    Costs O(min(k, n / buckets)); answers are cached. Raises InvalidArgument for impossible sizes.
    """
    n = as_int(n, "n", 1, MAX_N)
    total = n if total is None else as_int(total, "total", n, MAX_N)
    k = as_int(k, "k", 1, total)
    buckets = as_int(buckets, "buckets", 1, n)
    return _recall(n, k, buckets, as_int(keep, "keep", 1, MAX_N), total)


def _least_buckets(n: int, k: int, keep: int, target: float, total: int) -> int | None:
    """The smallest multiple of LANES, below n, that reaches the target."""
    low, high = 0, (n - 1) // LANES  # low fails, high succeeds, in units of LANES
    if high < 1 or _recall(n, k, high * LANES, keep, total) < target:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _recall(n, k, middle * LANES, keep, total) >= target:
            high = middle
        else:
            low = middle
    return high * LANES


def _exact_ns(n: int, k: int) -> float:
    """The scan against a threshold: a score passes that is among the best 2 k so far, or so."""
    passes = min(n, 2 * k * (1 + math.log(max(1.0, n / (2 * k)))))
    return _SCAN_NS * n + _PUSH_NS * passes


def _bucket_ns(n: int, k: int, buckets: int, keep: int) -> float:
    """Both stages."""
    first = _BUCKET_NS * n
    if keep > 1:
        # One or more of 16 neighbouring buckets takes a score in so many of its rounds.
        size = n / buckets
        rounds = min(size, LANES * keep * (1 + math.log(max(1.0, size / keep))))
        first += (_INSERT_NS + _SHIFT_NS * keep) * rounds * buckets / LANES
    return first + _STAGE_NS + _SURVIVOR_NS * buckets * keep + _exact_ns(buckets * keep, k)


def bucket_plans(n: int, k: int, target: float, total: int | None = None) -> list[TopkPlan]:
    """The cheapest plan for each number of survivors a bucket, where there is one; unchecked."""
    total = n if total is None else total
    plans = []
    for keep in range(1, min(MAX_KEEP, k) + 1):
        buckets = _least_buckets(n, k, keep, target, total)
        if buckets is None:
            continue
        buckets = max(buckets, -(-k // (keep * LANES)) * LANES)  # k of them survive
        if buckets < n:
            recall = _recall(n, k, buckets, keep, total)
            cost = _bucket_ns(n, k, buckets, keep)
            plans.append(TopkPlan(buckets, keep, False, recall, cost))
    return plans


@lru_cache(maxsize=4096)
def _plan(n: int, k: int, target: float, total: int) -> TopkPlan:
    exact = TopkPlan(n, 1, True, 1.0, _exact_ns(n, k))
    plans = bucket_plans(n, k, target, total) if target < 1 else []
    return min([exact, *plans], key=lambda plan: plan.cost_ns)


def plan_topk(n: int, k: int, recall_target: float = 0.95, *, total: int | None = None) -> TopkPlan:
    """The cheapest way to a top k of n scores whose expected recall reaches a target.

    total  as in `expected_recall`: plan one shard's part of a bigger array

    Of each number of survivors a bucket the fewest buckets that do are found, in multiples of 16,
    and compared by a cost model; the exact scan takes part, and wins where k is small. A target of
    1 asks for it. Costs some milliseconds, once for each set of arguments.
    """
    n = as_int(n, "n", 1, MAX_N)
    total = n if total is None else as_int(total, "total", n, MAX_N)
    return _plan(n, as_int(k, "k", 1, n), as_recall(recall_target), total)
