"""DA-TOP-k: the top k of an array that s shards hold, from the best c of each.

    plan.py -> [shards.py]

Each shard answers with its c best, c well below k; the union is merged and the k best of it stay.
A true one is lost only where its shard holds more than c of them. If vectors were placed at random,
a shard of m among n holds X ~ Hypergeometric(n, k, m) of the true k, so

    E[recall] = (s / k) * E[min(X, c)]        P(recall < 1) <= s * P(X > c)

and a little slack over c = k / s buys nearly everything. The idea is of Samaga et al. (HiRE, arXiv
2402.09360); formulas and planner are derived here. Where placement is not random (by time, by
frequency, by tenant) the formulas are false: place by a hash of the id.

Nothing here talks to a machine: arrays in, arrays out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.topk.operator import as_scores
from soardb.topk.plan import MAX_N, as_recall, expected_recall, hypergeometric

__all__ = [
    "Placement",
    "ShardPlan",
    "chernoff_bound",
    "loss_bound",
    "merge_topk",
    "plan_shards",
    "simulate_shards",
]

Placement = Literal["random", "striped", "contiguous"]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What each shard is asked for.

    shards, k        the question
    c                results asked of each shard
    expected_recall  under random placement
    loss_bound       P(recall < 1) is at most this
    """

    shards: int
    k: int
    c: int
    expected_recall: float
    loss_bound: float

    @property
    def slack(self) -> float:
        """c over an even share k / shards."""
        return self.c * self.shards / self.k

    @property
    def transferred(self) -> int:
        """Results that travel for one query; k * shards without the approximation."""
        return self.c * self.shards


def loss_bound(n: int, k: int, shards: int, c: int) -> float:
    """P(recall < 1) <= s * P(X > c): the hypergeometric tail, summed over shards."""
    n = as_int(n, "n", 1, MAX_N)
    k, shards = as_int(k, "k", 1, n), as_int(shards, "shards", 1, n)
    c = as_int(c, "c", 1, MAX_N)
    size, longer = divmod(n, shards)
    bound = 0.0
    for count, held in ((shards - longer, size), (longer, size + 1)):
        if count and held > c:
            low, p = hypergeometric(n, k, held)
            bound += count * float(p[max(0, c + 1 - low) :].sum())
    return min(1.0, bound)


def chernoff_bound(k: int, shards: int, c: int) -> float:
    """P(recall < 1) <= s * exp(-(k/s) * ((1+d) ln(1+d) - d)), c = (1+d) k/s: for any n.

    Weaker than `loss_bound`, and it needs no n. 1 where c is no more than k / s; 0 from k on.
    """
    k, shards = as_int(k, "k", 1, MAX_N), as_int(shards, "shards", 1, MAX_N)
    c = as_int(c, "c", 1, MAX_N)
    if c >= k:
        return 0.0
    # X > c means X >= c + 1, which is what the inequality is about.
    share = k / shards
    excess = (c + 1) / share - 1
    if excess <= 0:
        return 1.0
    return min(1.0, shards * math.exp(-share * ((1 + excess) * math.log1p(excess) - excess)))


def plan_shards(
    n: int,
    k: int,
    shards: int,
    *,
    recall_target: float | None = None,
    loss: float | None = None,
    bound: Literal["exact", "chernoff"] = "exact",
) -> ShardPlan:
    """The least c that each of s shards must answer with.

    n              vectors, placed at random over the shards
    recall_target  reach this expected recall; 0.99 if neither is given
    loss           or: lose anything at all with at most this probability
    bound          for `loss`: the exact hypergeometric tail, or Chernoff's, which holds for any n

    c never exceeds k, where nothing can be lost. Costs O(k log k).
    """
    n = as_int(n, "n", 1, MAX_N)
    k, shards = as_int(k, "k", 1, n), as_int(shards, "shards", 1, n)
    if recall_target is not None and loss is not None:
        raise InvalidArgument("expected recall_target or loss, got both; name one promise")
    if bound not in ("exact", "chernoff"):
        raise InvalidArgument(f"expected bound 'exact' or 'chernoff', got {bound!r}")
    if loss is not None:
        allowed = as_recall(loss, "loss")

        def suffices(c: int) -> bool:
            found = (
                loss_bound(n, k, shards, c) if bound == "exact" else chernoff_bound(k, shards, c)
            )
            return found <= allowed
    else:
        target = as_recall(0.99 if recall_target is None else recall_target)

        def suffices(c: int) -> bool:
            return expected_recall(n, k, shards, c) >= min(target, 1 - 1e-12)

    low, high = 0, k  # k suffices always
    while high - low > 1:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle
    return ShardPlan(
        shards, k, high, expected_recall(n, k, shards, high), loss_bound(n, k, shards, high)
    )


def merge_topk(parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], k: int) -> tuple[F32, I64]:
    """The k best of what shards answered.

    parts  a pair (scores (nq, c) float32, ids (nq, c) int64) of each shard; c may differ; a missing
           result is id -1. Ids are global, and no id is on two shards.

    Returns (scores (nq, k) float32, ids (nq, k) int64), best first, equal scores by rising id; what
    is missing is id -1 with score -inf. Costs one selection over the union a query.
    """
    if not parts:
        raise InvalidArgument("expected the results of at least one shard, got none")
    k = as_int(k, "k", 1, MAX_N)
    scores: list[F32] = []
    ids: list[I64] = []
    for number, (part_scores, part_ids) in enumerate(parts):
        some, _ = as_scores(part_scores, f"scores of shard {number}")
        names = np.atleast_2d(np.asarray(part_ids))
        if names.dtype.kind not in "iu" or names.shape != some.shape:
            raise InvalidArgument(
                f"expected integer ids of shape {some.shape} beside the scores of shard {number}, "
                f"got {names.dtype} of {names.shape}"
            )
        if len(some) != len(scores[0] if scores else some):
            raise InvalidArgument(
                f"expected the same {len(scores[0])} queries of every shard, got {len(some)} of "
                f"shard {number}"
            )
        scores.append(some)
        ids.append(names.astype(np.int64))
    every, owners = np.concatenate(scores, axis=1), np.concatenate(ids, axis=1)
    every = np.where(owners < 0, np.float32(-np.inf), every)
    # The selection breaks ties by place, so places are put in order of id.
    order = np.argsort(owners, axis=1, kind="stable")
    every = np.take_along_axis(every, order, axis=1)
    owners = np.take_along_axis(owners, order, axis=1)
    found, places = active.select_topk(np.ascontiguousarray(every), min(k, every.shape[1]))
    named = np.where(places < 0, np.int64(-1), np.take_along_axis(owners, np.maximum(places, 0), 1))
    out_scores = np.full((len(every), k), -np.inf, np.float32)
    out_ids = np.full((len(every), k), -1, np.int64)
    out_scores[:, : found.shape[1]], out_ids[:, : found.shape[1]] = found, named
    return out_scores, out_ids


def simulate_shards(
    scores: npt.ArrayLike,
    k: int,
    shards: int,
    c: int,
    *,
    placement: Placement = "random",
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Measured recall of DA-TOP-k on real scores: (nq,) float64, one value a query.

    scores     (nq, n) of every vector for each query
    placement  "random": each vector on a shard drawn anew for each query by `seed`; "striped": row
               i on shard i % shards; "contiguous": the rows in `shards` runs, as a file is cut

    Ties of the k-th score count for whoever holds one. Costs a selection of c a shard and query.
    """
    rows, _ = as_scores(scores)
    nq, n = rows.shape
    k, shards = as_int(k, "k", 1, n), as_int(shards, "shards", 1, n)
    c = as_int(c, "c", 1, MAX_N)
    if placement not in get_args(Placement):
        raise InvalidArgument(
            f"expected placement to be one of {', '.join(get_args(Placement))}, got {placement!r}"
        )
    rng = np.random.default_rng(seed)
    recalls = np.empty(nq)
    for i, row in enumerate(rows):
        if placement == "random":
            row = row[rng.permutation(n)]
        cuts = [row[j::shards] for j in range(shards)]
        if placement == "contiguous":
            cuts = np.array_split(row, shards)
        union = [
            active.select_topk(np.ascontiguousarray(cut)[None], min(c, len(cut)))[0][0]
            for cut in cuts
        ]
        least = active.select_topk(row[None].copy(), k)[0][0, -1]
        recalls[i] = min(k, int((np.concatenate(union) >= least).sum())) / k
    return recalls
