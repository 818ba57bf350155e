"""One search over all shards: what is asked of each, and what their answers are together.

    collection.py -> [searching.py] -> calls.py, merge.py, topk/shards.py

Each shard is asked for c results, fewer than the k that are wanted: the planner says how many keep
the merge at its recall (DA-TOP-k). All queries of a call go to a shard in one message. Where a
filter lets so few points through that c of each are not k in all, the shards that may have more
are asked once more, for k. So if k points match, k come back.

Words are ranked by each shard with the statistics of its own points, which are a random share of
all; the fusion of two rankings is made here, over the merged ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from soardb import deadline
from soardb.arrays import as_asked, as_int
from soardb.cluster.calls import Actors, Answers, Job, expect_all, shard_name
from soardb.cluster.merge import cut, kept_share, merged, merged_plan, spliced, taken, without
from soardb.curve import DEFAULT_TARGET, as_only_target
from soardb.filters import as_filter, to_json
from soardb.fulltext import fuse
from soardb.grouping import grouped
from soardb.hits import HitColumns, Spread
from soardb.kernels.layout import F32
from soardb.options import (
    MAX_LIMIT,
    Filter,
    Fusion,
    as_number,
    as_share,
    check_group_by,
    check_sought,
    check_words,
    one_query,
)
from soardb.points import as_point_ids
from soardb.schema import PointId, Schema
from soardb.topk import ShardPlan, plan_shards

__all__ = ["Asked", "Fan", "asked_of"]

_MERGE_SHARE = 0.05
"""Part of the loss that a target allows which the merge may take, unless merge_recall says."""

_PATIENCE = 0.8
"""Share of its time for which a search waits that may answer without those it waits for."""

_LARGE_BYTES = 100_000  # of an argument that is stored once and not sent with each call
_LEAST_DEPTH = 100  # of two rankings that are fused, as in query.py
_MOST_N = 2**30


@dataclass(frozen=True, slots=True)
class Asked:
    """A search that was checked. shared: the options that go to every shard as they are."""

    limit: int
    queries: F32 | None
    id: PointId | None
    text: str | None
    fusion: Fusion
    weights: tuple[float, float]
    target: float | None
    is_exact: bool
    has_settings: bool
    merge_recall: float | None
    measure_merge: bool
    allow_partial: bool
    group_by: str | None
    group_size: int
    explain: bool
    with_payload: bool
    text_fields: Sequence[str] | None
    shared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def merge_target(self) -> float:
        """The recall that the merge is planned for."""
        if self.merge_recall is not None:
            return self.merge_recall
        if self.is_exact:
            return 1.0
        return 1 - _MERGE_SHARE * (1 - (self.target or DEFAULT_TARGET))


def asked_of(
    d: int,
    schema: Schema,
    query: npt.ArrayLike | None,
    limit: int,
    *,
    k: int | None = None,
    id: PointId | None = None,
    text: str | None = None,
    text_fields: Sequence[str] | None = None,
    fusion: Fusion = "rrf",
    weights: tuple[float, float] = (1.0, 1.0),
    filter: Filter = None,
    nprobe: int | None = None,
    rerank: int | None = None,
    target_recall: float | None = None,
    exact: bool = False,
    threads: int = 1,
    score_threshold: float | None = None,
    group_by: str | None = None,
    group_size: int = 3,
    with_payload: bool = True,
    with_vectors: bool = False,
    explain: bool = False,
    timeout: float | None = None,
    merge_recall: float | None = None,
    measure_merge: bool = False,
    allow_partial: bool = False,
) -> Asked:
    """Check one search in the order of soardb/ask.py. timeout: not its affair.

    Errors: InvalidArgument.
    """
    limit = as_int(limit if k is None else k, "limit", 1, MAX_LIMIT)
    where = as_filter(filter, schema)
    shared: dict[str, Any] = {
        "filter": None if where is None else to_json(where),
        "nprobe": None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
        "rerank": None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
        "exact": bool(exact),
        "threads": as_int(threads, "threads", 1, 1024),
        "with_vectors": bool(with_vectors),
    }
    target = None
    if target_recall is not None:
        target = as_only_target(target_recall, nprobe, rerank, exact)
    check_sought(query, id, text)
    if score_threshold is not None:
        shared["score_threshold"] = as_number(score_threshold, "score_threshold")
    how, shares = fusion, weights
    if id is not None:
        as_point_ids([id])
    if text is not None:
        how, shares = check_words(text, text_fields, fusion, weights, score_threshold, group_by)
    if group_by is not None:
        check_group_by(group_by, schema.fields.get(group_by))
        as_int(group_size, "group_size", 1, 1000)
    queries = None if query is None else as_asked(query, d)
    if queries is not None and (text is not None or group_by is not None):
        one_query(queries)
    return Asked(
        limit,
        queries,
        id,
        text,
        how,
        shares,
        target,
        bool(exact),
        nprobe is not None or rerank is not None,
        None if merge_recall is None else as_share(merge_recall, "merge_recall"),
        bool(measure_merge),
        bool(allow_partial),
        group_by,
        group_size,
        bool(explain),
        bool(with_payload),
        text_fields,
        shared,
    )


@lru_cache(maxsize=1024)
def _planned(n: int, k: int, shards: int, recall: float) -> ShardPlan:
    if recall >= 1.0 or shards > n:
        return ShardPlan(shards, k, k, 1.0, 0.0)
    return plan_shards(n, k, shards, recall_target=recall)


def planned(n: int, k: int, shards: int, recall: float) -> ShardPlan:
    """What each shard is asked for. n rounded up, which asks for rather more, to be remembered."""
    size = max(k, shards, 1)
    while size < min(n, _MOST_N):
        size *= 2
    return _planned(size, k, shards, recall)


class Fan:
    """One search call over the shards. live: about how many points there are."""

    def __init__(
        self, actors: Actors, shards: int, id: str, live: int, timeout: float, asked: Asked
    ) -> None:
        self._actors, self._shards, self._id, self._live = actors, shards, id, live
        self._asked = asked
        now = time.monotonic()
        self._until = min(now + timeout, deadline.until())
        self._timeout = self._until - now
        self._missing: set[int] = set()
        self._stages: dict[str, float] = {}
        self.live: int | None = None  # as the shards said, all of them

    def run(self, queries: F32 | None) -> HitColumns:
        """The answer. queries: those of the call, or the vector of the point that was named.

        Errors: TimedOut, Unavailable; what a shard refuses.
        """
        asked = self._asked
        if asked.text is not None:
            found = self._words(queries)
        elif asked.group_by is not None:
            assert queries is not None
            found = self._groups(queries, asked.group_by)
        else:
            assert queries is not None
            found = self._left(self._vectors(queries, asked.limit + self._extra), asked.limit)
        is_told = asked.explain or asked.measure_merge or found.is_partial
        return found if is_told else replace(found, plan=None)

    @property
    def _extra(self) -> int:
        return 0 if self._asked.id is None else 1

    def _left(self, found: HitColumns, k: int) -> HitColumns:
        return found if self._asked.id is None else without(found, self._asked.id, k)

    # ------------------------------------------------------------------ vectors

    def _vectors(self, queries: F32, k: int, with_payload: bool | None = None) -> HitColumns:
        asked = self._asked
        plan = planned(self._live, k, self._shards, asked.merge_target)
        c = min(plan.c, k)
        ask = k if asked.measure_merge else c
        options = self._options(ask, plan.expected_recall, with_payload)
        parts = self._ask(queries, options)
        whole = merged(list(parts.values()), k) if asked.measure_merge else None
        if asked.measure_merge:
            parts = {shard: replace(cut(p, c), plan=p.plan) for shard, p in parts.items()}
        began = time.perf_counter()
        found = merged(list(parts.values()), k)
        parts, found = self._completed(queries, options, parts, found, c, k)
        self._stages["merge"] = (time.perf_counter() - began) * 1e3
        spread = Spread(
            self._shards,
            c,
            plan.expected_recall,
            None if whole is None else kept_share(found, whole),
            tuple(sorted(self._missing)),
        )
        return replace(found, plan=self._plan_of(list(parts.values()), spread))

    def _plan_of(self, parts: list[HitColumns], spread: Spread) -> Any:
        plan = merged_plan(parts, spread, self._stages)
        if not spread.missing:
            self.live = plan.live
        asked = self._asked
        is_aimed = not (asked.is_exact or asked.has_settings)
        aim = (asked.target or DEFAULT_TARGET) if is_aimed else None
        return replace(plan, target_recall=aim)

    def _options(self, limit: int, merge: float, with_payload: bool | None) -> dict[str, Any]:
        asked = self._asked
        options = dict(asked.shared) | {
            "limit": min(limit, MAX_LIMIT),
            "with_payload": asked.with_payload if with_payload is None else with_payload,
            "explain": True,
        }
        if asked.target is not None:
            options["target_recall"] = min(1.0, asked.target / merge)
        return options

    def _completed(
        self,
        queries: F32,
        options: dict[str, Any],
        parts: dict[int, HitColumns],
        found: HitColumns,
        c: int,
        k: int,
    ) -> tuple[dict[int, HitColumns], HitColumns]:
        """With what is missing to k, of those shards that gave all that they were asked for."""
        short = found.counts < k
        if c >= k or not short.any():
            return parts, found
        full = {shard for shard, part in parts.items() if (part.counts[short] >= c).any()}
        if not full:
            return parts, found
        rows = np.flatnonzero(short)
        more = self._ask(queries[rows], options | {"limit": min(k, MAX_LIMIT)}, full)
        for shard, part in more.items():
            parts[shard] = replace(spliced(parts[shard], rows, part), plan=part.plan)
        return parts, merged(list(parts.values()), k)

    def _ask(
        self, queries: F32 | None, options: Mapping[str, Any], shards: set[int] | None = None
    ) -> dict[int, HitColumns]:
        """What shards answer; all but the missing ones unless told."""
        began = time.perf_counter()
        wanted = set(range(self._shards)) - self._missing if shards is None else shards
        left = max(0.001, self._until - time.monotonic())
        if self._asked.allow_partial:
            left *= _PATIENCE
        sent: Any = queries
        if queries is not None and queries.nbytes > _LARGE_BYTES and len(wanted) > 1:
            sent = ray.put(queries)
        job = Job("search", (self._id, sent, dict(options) | {"timeout": left}))
        answers = self._actors.ask({shard_name(shard): job for shard in sorted(wanted)}, left)
        self._stages["shards"] = self._stages.get("shards", 0.0) + (
            (time.perf_counter() - began) * 1e3
        )
        return self._told(answers, wanted)

    def _told(self, answers: Answers, wanted: set[int]) -> dict[int, HitColumns]:
        for name, error in sorted(answers.refused.items()):
            if not (self._asked.allow_partial and isinstance(error, TimeoutError)):
                raise error
            answers.missing[name] = str(error)
        found = {
            shard: answers.found[shard_name(shard)]
            for shard in sorted(wanted)
            if shard_name(shard) in answers.found
        }
        if answers.missing and not (self._asked.allow_partial and found):
            expect_all(answers, self._timeout)
        self._missing |= wanted - set(found)
        return found

    # ------------------------------------------------------------------ groups and words

    def _groups(self, queries: F32, name: str) -> HitColumns:
        asked = self._asked

        def search(limit: int) -> HitColumns:
            more = min(limit + self._extra, MAX_LIMIT)
            return self._left(self._vectors(queries, more, with_payload=True), limit)

        return grouped(search, name, asked.limit, asked.group_size, with_payload=asked.with_payload)

    def _words(self, queries: F32 | None) -> HitColumns:
        asked = self._asked
        if queries is None:
            return self._by_text(asked.limit)
        depth = min(max(4 * asked.limit, _LEAST_DEPTH), MAX_LIMIT)
        by_vector, by_text = self._vectors(queries, depth), self._by_text(depth)
        both = merged([self._numbered(by_vector), self._numbered(by_text)], 2 * depth)
        place = {point_id: i for i, point_id in enumerate(_listed(both))}
        rankings = [
            (np.array([place[i] for i in _listed(part)], np.int64), part.scores)
            for part in (by_vector, by_text)
        ]
        places, scores = fuse(rankings, asked.weights, asked.fusion, asked.limit + self._extra)
        found = replace(
            taken(both, places),
            scores=scores,
            counts=np.array([len(places)], np.int64),
            metric=None,
            seq=max(by_vector.seq, by_text.seq),
            plan=by_vector.plan,
        )
        if found.plan is not None:
            spread = found.plan.spread
            assert spread is not None
            missing = tuple(sorted(self._missing))
            plan = replace(found.plan, strategy="hybrid", spread=replace(spread, missing=missing))
            found = replace(found, plan=plan)
        return self._left(found, asked.limit)

    def _numbered(self, part: HitColumns) -> HitColumns:
        """Without scores, so that what two rankings have is in the order of ids."""
        return replace(part, scores=np.zeros(len(part.scores), np.float32), plan=None)

    def _by_text(self, limit: int) -> HitColumns:
        asked = self._asked
        options = dict(asked.shared) | {
            "limit": limit,
            "text": asked.text,
            "text_fields": asked.text_fields,
            "with_payload": asked.with_payload,
            "explain": True,
        }
        parts = list(self._ask(None, options).values())
        found = merged(parts, limit)
        spread = Spread(self._shards, limit, 1.0, None, tuple(sorted(self._missing)))
        return replace(found, plan=self._plan_of(parts, spread))


def _listed(part: HitColumns) -> list[Any]:
    return part.ids.tolist() if isinstance(part.ids, np.ndarray) else part.ids
