"""The top k of scores that are there: exact, or by buckets at a stated recall.

    plan.py -> [operator.py] -> kernels (select_topk, bucket_topk)

`topk` compares every score with the k-th best so far and keeps what passes. `approx_topk` deals the
scores into buckets, keeps a few of each and selects among those: its cost does not depend on the
order of the scores, its recall does (plan.py), so score i goes to bucket i % buckets, which takes
neighbours apart, and `seed` shuffles where even that is not enough.

For both: bigger is better, equal scores go to the lower place, and NaN and -inf are never found;
what is missing is place -1 with score -inf.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.ma as ma
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.topk.plan import MAX_N, TopkPlan, expected_recall, plan_topk

__all__ = ["ApproxTopk", "approx_topk", "as_scores", "topk"]


class ApproxTopk(NamedTuple):
    """What `approx_topk` found.

    scores    (nq, k) float32, best first; or of all survivors, see `aggregate`
    ids       int64 of the same shape: the places of these scores in their row; -1 where missing
    is_exact  (nq,) bool: proven to be the exact top k of this row
    plan      how it was found, with the expected recall
    """

    scores: F32
    ids: I64
    is_exact: npt.NDArray[np.bool_]
    plan: TopkPlan


def as_scores(array: npt.ArrayLike, name: str = "scores") -> tuple[F32, bool]:
    """(nq, n) C-contiguous float32 with n >= 1, and whether one row (n,) was given."""
    if ma.is_masked(array):
        raise InvalidArgument(f"expected {name} without masked values; set them to -inf")
    try:
        given = np.asarray(array)
    except ValueError as error:
        raise InvalidArgument(f"expected {name} as one (nq, n) array: {error}") from None
    if given.dtype.kind not in "fiu":
        raise InvalidArgument(
            f"expected {name} of a real number type (float32 is taken as it is), got {given.dtype}"
        )
    if given.ndim not in (1, 2):
        raise InvalidArgument(f"expected {name} of shape (n,) or (nq, n), got {given.shape}")
    if not 1 <= given.shape[-1] <= MAX_N:
        raise InvalidArgument(
            f"expected {name} of 1 to 2**31 - 1 values a row, got {given.shape[-1]}"
        )
    with np.errstate(over="ignore"):
        rows: F32 = np.ascontiguousarray(np.atleast_2d(given), dtype=np.float32)
    return rows, given.ndim == 1


def _as_k(k: object, n: int) -> int:
    return as_int(k, "k", 1, n, f"a row has {n} scores")


def topk(scores: npt.ArrayLike, k: int, *, threads: int = 1) -> tuple[F32, I64]:
    """The k biggest scores of each row, exactly.

    scores  (n,) or (nq, n), float32 taken as it is and others converted; 1 <= k <= n

    Returns (scores, ids) of shape (k,) or (nq, k), best first; ids are places in the row. For the
    k smallest pass -scores. One pass over the scores; what it costs beyond that is the more the
    later the big ones come, at worst a few nanoseconds a score.
    """
    rows, is_one = as_scores(scores)
    found, ids = active.select_topk(
        rows, _as_k(k, rows.shape[1]), as_int(threads, "threads", 1, 1024)
    )
    return (found[0], ids[0]) if is_one else (found, ids)


def _as_plan(
    n: int,
    k: int,
    recall_target: float | None,
    buckets: int | None,
    keep: int | None,
    total: int | None,
) -> TopkPlan:
    if buckets is None and keep is None:
        return plan_topk(n, k, 0.95 if recall_target is None else recall_target, total=total)
    if recall_target is not None:
        raise InvalidArgument(
            "expected recall_target or buckets and keep, got both; a plan follows from either"
        )
    if buckets is None:
        raise InvalidArgument("expected buckets beside keep; or name a recall_target")
    buckets = as_int(buckets, "buckets", 1, n, f"a row has {n} scores")
    keep = as_int(1 if keep is None else keep, "keep", 1, n)
    recall = expected_recall(n, k, buckets, keep, total=total)
    if buckets * keep < k:
        raise InvalidArgument(
            f"expected buckets * keep of at least k = {k}, got {buckets} * {keep}; fewer survive "
            "than are asked for"
        )
    return TopkPlan(buckets, keep, False, recall, float("nan"))


def approx_topk(
    scores: npt.ArrayLike,
    k: int,
    *,
    recall_target: float | None = None,
    buckets: int | None = None,
    keep: int | None = None,
    aggregate: bool = True,
    total: int | None = None,
    seed: int | None = None,
    threads: int = 1,
) -> ApproxTopk:
    """The k biggest scores of each row, nearly: at an expected recall, or by given buckets.

    scores         (n,) or (nq, n), as for `topk`; 1 <= k <= n
    recall_target  the cheapest plan that reaches it; 0.95 if nothing is said. Where the exact scan
                   is the cheapest, as it is for small k, the answer is exact; 1 asks for it
    buckets, keep  or: the plan itself, buckets * keep >= k
    aggregate      False: all survivors, buckets * keep of them, in no order, for who merges them
                   with those of other arrays; is_exact then tells whether the top k are among them.
                   Of an exact plan the k best alone
    total          the row is a random part of so many scores, and recall is meant of the k best of
                   all: for a part held elsewhere. `reduction_input_size_override` in JAX
    seed           shuffle the columns first, for rows whose order is tied to their scores. Costs
                   more than the selection does

    Returns ApproxTopk; of one row (n,) its arrays lose the first axis. `is_exact` is a proof, not a
    guess: False says that a bucket was too full to be sure.
    """
    rows, is_one = as_scores(scores)
    nq, n = rows.shape
    k = _as_k(k, n)
    threads = as_int(threads, "threads", 1, 1024)
    plan = _as_plan(n, k, recall_target, buckets, keep, total)
    order = None
    if seed is not None and not plan.is_exact:
        order = np.random.default_rng(as_int(seed, "seed", 0, 2**63 - 1)).permutation(n)
        rows = np.ascontiguousarray(rows[:, order])
    if plan.is_exact:
        found, ids = active.select_topk(rows, k, threads)
        certain = np.ones(nq, np.bool_)
    else:
        found, ids, certain = active.bucket_topk(rows, plan.buckets, plan.keep, k, threads)
        if not aggregate:
            survivors, owners = active.bucket_survivors(rows, plan.buckets, plan.keep, threads)
            found = survivors.reshape(nq, plan.survivors)
            ids = owners.reshape(nq, plan.survivors).astype(np.int64)
    if order is not None:
        ids = np.where(ids < 0, np.int64(-1), order[np.maximum(ids, 0)])
        if aggregate:  # equal scores stand in the order of their places again
            best = np.lexsort((ids, -found), axis=1)
            found, ids = np.take_along_axis(found, best, 1), np.take_along_axis(ids, best, 1)
    if is_one:
        return ApproxTopk(found[0], ids[0], certain[0], plan)
    return ApproxTopk(found, ids, certain, plan)
