"""What shards found, as one result: DA-TOP-k over columns of hits.

    searching.py -> [merge.py]

All hits of all queries are put in order by one sort of integers that stand for query and score.

Nothing here calls a shard: columns in, columns out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from soardb.hits import HitColumns, Plan, Spread
from soardb.kernels.layout import F32, I64

__all__ = ["cut", "kept_share", "merged", "merged_plan", "spliced", "taken", "without"]


def merged(parts: Sequence[HitColumns], k: int) -> HitColumns:
    """The k best of each query, best first, equal scores by rising id; seq is the sum. No plan."""
    nq = len(parts[0].counts)
    ids = _joined_ids(parts)
    whole = HitColumns(
        np.zeros(nq, np.int64),
        ids,
        np.concatenate([part.scores for part in parts]),
        _joined([part.payloads for part in parts]),
        None if parts[0].vectors is None else np.concatenate([_matrix(p, parts) for p in parts]),
        None,
        None,
        parts[0].metric,
        sum(part.seq for part in parts),
    )
    query = np.concatenate([np.repeat(np.arange(nq), part.counts) for part in parts])
    counts = np.bincount(query, minlength=nq)
    places = _order(query, whole.scores, ids)[_within(counts) < k]
    return replace(taken(whole, places), counts=np.minimum(counts, k).astype(np.int64))


def taken(columns: HitColumns, places: I64) -> HitColumns:
    """The hits at some places, in their order; counts stay as they are."""
    ids, payloads = columns.ids, columns.payloads
    return replace(
        columns,
        ids=ids[places] if isinstance(ids, np.ndarray) else [ids[i] for i in places.tolist()],
        scores=columns.scores[places],
        payloads=None if payloads is None else [payloads[i] for i in places.tolist()],
        vectors=None if columns.vectors is None else columns.vectors[places],
    )


def cut(part: HitColumns, c: int) -> HitColumns:
    """The first c hits of each query."""
    within = _within(part.counts)
    return replace(
        taken(part, np.flatnonzero(within < c)), counts=np.minimum(part.counts, c).astype(np.int64)
    )


def without(columns: HitColumns, point_id: Any, k: int) -> HitColumns:
    """The first k hits of one query that are not this point."""
    ids = columns.ids.tolist() if isinstance(columns.ids, np.ndarray) else columns.ids
    places = np.array([i for i, held in enumerate(ids) if held != point_id][:k], np.int64)
    return replace(taken(columns, places), counts=np.array([len(places)], np.int64))


def spliced(part: HitColumns, queries: I64, fresh: HitColumns) -> HitColumns:
    """A part in which some queries, by rising number, have the hits of another answer."""
    each, others = part.each(), iter(fresh.each())
    for query in queries.tolist():
        each[query] = next(others)
    return replace(
        part,
        counts=np.concatenate([one.counts for one in each]),
        ids=_joined_ids(each),
        scores=np.concatenate([one.scores for one in each]),
        payloads=_joined([one.payloads for one in each]),
        vectors=None if part.vectors is None else np.concatenate([_matrix(o, each) for o in each]),
        seq=max(part.seq, fresh.seq),
    )


def kept_share(few: HitColumns, many: HitColumns) -> float:
    """Of the hits of `many`, of the same queries, the mean share that `few` has; 1 of none."""
    shares = []
    for one, other in zip(few.each(), many.each(), strict=True):
        wanted = _as_set(other.ids)
        if wanted:
            shares.append(len(wanted & _as_set(one.ids)) / len(wanted))
    return float(np.mean(shares)) if shares else 1.0


def merged_plan(parts: Sequence[HitColumns], spread: Spread, stages: dict[str, float]) -> Plan:
    """One plan of those of the shards: sums of counts, the most of settings and times.

    The expected recall is the mean of the shards', weighted by their points, times that of the
    merge.
    """
    plans = [part.plan for part in parts if part.plan is not None]
    live = [plan.live for plan in plans]
    weights = np.array(live, float) if any(live) else np.ones(len(plans))
    matching = [plan.matching for plan in plans if plan.matching is not None]
    for plan in plans:
        for name, ms in plan.stages.items():
            stages[name] = max(stages.get(name, 0.0), ms)

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known:
            return None
        return float(np.average(known, weights=weights))

    def times_merge(values: list[float | None]) -> float | None:
        found = mean(values)
        return None if found is None else found * spread.planned_recall

    return Plan(
        " / ".join(sorted({plan.strategy for plan in plans})),
        sum(live),
        sum(matching) if len(matching) == len(plans) else None,
        mean([plan.selectivity for plan in plans]) or 0.0,
        max((plan.nprobe for plan in plans if plan.nprobe is not None), default=None),
        max((plan.rerank for plan in plans if plan.rerank is not None), default=None),
        sum(plan.rows_scanned for plan in plans),
        stages,
        None,
        times_merge([plan.expected_recall for plan in plans]),
        times_merge([plan.expected_low for plan in plans]),
        times_merge([plan.expected_high for plan in plans]),
        spread,
    )


def _order(query: I64, scores: F32, ids: I64 | list[Any]) -> I64:
    """(n,) int64 places of n hits: by query, then best first, equal scores by rising id.

    Query and score are one integer each, whose order is theirs, so that one sort does; ids are
    looked at only where two of these are equal.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, which it equals
    # As an integer a float below zero falls where it should rise, and has the highest bit.
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    key = query.astype(np.uint64) << np.uint64(32) | falling
    order = np.argsort(key)
    ordered = key[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((_ranks(ids), key))
    return order


def _within(counts: I64) -> I64:
    """(n,) int64: which hit of its query each one is, from 0."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)


def _ranks(ids: I64 | list[Any]) -> I64:
    """(n,) int64 that are in the order of ids. One id may come for many queries."""
    if isinstance(ids, np.ndarray):
        return ids
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def _joined_ids(parts: Sequence[HitColumns]) -> I64 | list[Any]:
    """Ids end to end; parts without any say nothing of the kind."""
    told = [part.ids for part in parts if len(part.scores)]
    arrays = [ids for ids in told if isinstance(ids, np.ndarray)]
    if not told:
        return parts[0].ids
    if len(arrays) == len(told):
        return np.concatenate(arrays)
    return [point_id for ids in told for point_id in ids]


def _joined(parts: Sequence[list[bytes] | None]) -> list[bytes] | None:
    if any(part is None for part in parts):
        return None
    return [payload for part in parts for payload in part or ()]


def _matrix(part: HitColumns, parts: Sequence[HitColumns]) -> F32:
    """(n, d) vectors of a part, d of those that have any."""
    assert part.vectors is not None
    d = max(p.vectors.shape[1] for p in parts if p.vectors is not None)
    return part.vectors if len(part.vectors) else np.empty((0, d), np.float32)


def _as_set(ids: I64 | list[Any]) -> set[Any]:
    return set(ids.tolist() if isinstance(ids, np.ndarray) else ids)
