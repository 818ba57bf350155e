"""What a search returns: columns of ids, scores and payloads, and how it was done.

    collection.py -> [hits.py]

Nothing here searches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument, Unavailable
from soardb.kernels.layout import F32, I64, Metric
from soardb.metrics import distance
from soardb.schema import PointId, decode_payload

__all__ = ["Group", "Hit", "HitColumns", "Hits", "Plan", "Point", "Spread", "need_pyarrow"]


@dataclass(frozen=True, slots=True)
class Point:
    """A stored point: its id, its payload and, where asked for, its (d,) float32 vector."""

    id: PointId
    payload: dict[str, Any] | None = None
    vector: F32 | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result."""

    id: PointId
    score: float
    payload: dict[str, Any] | None = None
    vector: F32 | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The best hits that share a value of the field that a search grouped by."""

    value: Any
    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class Spread:
    """How a search went over the shards of a collection.

    shards           how many there are
    c                results that each was asked for
    planned_recall   share of what the shards found for k each that c each are expected to keep
    measured_recall  that share, where it was asked for; else None
    missing          shards that did not answer in time: their points were not searched
    """

    shards: int
    c: int
    planned_recall: float
    measured_recall: float | None = None
    missing: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"{self.c} of each of {self.shards} shards, merge recall {self.planned_recall:.4f}"
        if self.measured_recall is not None:
            text += f" (measured {self.measured_recall:.4f})"
        if self.missing:
            text += f"; PARTIAL: without shards {', '.join(map(str, self.missing))}"
        return text


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search was done: `explain=True`.

    strategy      "exact": every live point was scored, as asked or as a batch costs less.
                  "lists": the SOAR index. With a filter: "exact on matches", "filter in scan" or
                  "post-filter". "text": full text alone, and "hybrid" for both
    live          points that there were
    matching      points that match the filter; None where that was not counted
    selectivity   their share, counted or estimated; 1 without a filter
    nprobe, rerank  lists visited and candidates scored again, at last; None for exact search
    rows_scanned  codes or vectors that were looked at
    stages        milliseconds by stage
    target_recall    what was aimed at; None where settings were said
    expected_recall  share of the true results that settings of this kind found when they were
                     measured; None where they were not. Below the target where nothing reaches it
    expected_low, expected_high  its 95 % interval
    spread           over shards, where there are any
    """

    strategy: str
    live: int
    matching: int | None
    selectivity: float
    nprobe: int | None
    rerank: int | None
    rows_scanned: int
    stages: dict[str, float] = field(default_factory=dict)
    target_recall: float | None = None
    expected_recall: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None
    spread: Spread | None = None

    def __str__(self) -> str:
        parts = [
            f"{self.strategy}: {self.rows_scanned:,} rows scanned of {self.live:,} live",
            f"selectivity {self.selectivity:.4g}"
            + (f" ({self.matching:,} match)" if self.matching is not None else " (estimated)"),
        ]
        if self.nprobe is not None:
            parts.append(f"nprobe {self.nprobe}, rerank {self.rerank}")
        if self.target_recall is not None:
            parts.append(f"target recall {self.target_recall:g}, {self._expected()}")
        if self.spread is not None:
            parts.append(str(self.spread))
        parts += [f"{name} {ms:.3f} ms" for name, ms in self.stages.items()]
        return "; ".join(parts)

    def _expected(self) -> str:
        if self.expected_recall is None:
            return "none measured"
        if self.expected_low is None or self.expected_high is None:
            return f"expected {self.expected_recall:.3f}"
        interval = f"{self.expected_low:.3f}..{self.expected_high:.3f}"
        return f"expected {self.expected_recall:.3f} ({interval})"


@dataclass(frozen=True, slots=True)
class Hits:
    """The results of one query, best first.

    ids       (k,) int64, or a list of strings
    scores    (k,) float32, bigger is closer; of a hybrid search the fused ones
    payloads  list of k dicts; None where not asked for
    vectors   (k, d) float32 as they were stored; None where not asked for
    plan      how; None unless explain=True
    groups    the same hits by value, where the search grouped them
    """

    ids: I64 | list[PointId]
    scores: F32
    payloads: list[dict[str, Any]] | None = None
    vectors: F32 | None = None
    plan: Plan | None = None
    groups: list[Group] | None = None
    metric: Metric | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Hit]:
        ids = self.ids.tolist() if isinstance(self.ids, np.ndarray) else self.ids
        for i, point_id in enumerate(ids):
            yield Hit(
                point_id,
                float(self.scores[i]),
                None if self.payloads is None else self.payloads[i],
                None if self.vectors is None else self.vectors[i],
            )

    @property
    def is_partial(self) -> bool:
        """Whether shards are missing that did not answer in time; `plan.spread` says which."""
        return _is_partial(self.plan)

    @property
    def distances(self) -> F32:
        """1 - cosine, the Euclidean distance, or minus the inner product; smaller is closer."""
        if self.metric is None:
            raise InvalidArgument("expected scores of vectors alone, got fused ones: no distances")
        return distance(self.scores, self.metric)

    def to_arrow(self) -> Any:
        """A pyarrow Table: id, score and, where there are any, payload (JSON text) and vector."""
        import json

        pa = need_pyarrow()
        columns: dict[str, Any] = {
            "id": pa.array(self.ids if isinstance(self.ids, np.ndarray) else list(self.ids)),
            "score": pa.array(self.scores),
        }
        if self.payloads is not None:
            columns["payload"] = pa.array(
                [json.dumps(p, ensure_ascii=False) for p in self.payloads], pa.string()
            )
        if self.vectors is not None:
            flat = pa.array(np.ascontiguousarray(self.vectors).reshape(-1))
            columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1])
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """A pandas DataFrame of to_arrow()."""
        return self.to_arrow().to_pandas()


@dataclass(frozen=True, slots=True)
class HitColumns:
    """The results of nq queries as flat columns, n hits in all: those of the first query first.

    counts    (nq,) int64, hits of each query
    ids       (n,) int64, or a list of n strings
    scores    (n,) float32, bigger is closer
    payloads  list of n JSON texts in UTF-8, as they are stored; None where not asked for
    vectors   (n, d) float32 as they were stored; None where not asked for
    plan      how; None unless explain=True
    groups    (value, how many hits) of each group in order, where the search grouped them
    metric    None where the scores are fused ones
    seq       the number of the last write that the search saw
    """

    counts: I64
    ids: I64 | list[PointId]
    scores: F32
    payloads: list[bytes] | None
    vectors: F32 | None
    plan: Plan | None
    groups: list[tuple[Any, int]] | None
    metric: Metric | None
    seq: int

    @property
    def is_partial(self) -> bool:
        """Whether shards are missing that did not answer in time; `plan.spread` says which."""
        return _is_partial(self.plan)

    def split(self) -> list[Hits]:
        """One Hits a query, payloads decoded. Errors: CorruptStorage for one that is no JSON."""
        return [self._hits(part) for part in self._parts()]

    def each(self) -> list[HitColumns]:
        """The columns of each query apart; of several without the plan, which is of all."""
        if len(self.counts) == 1:
            return [self]
        return [
            HitColumns(
                self.counts[i : i + 1],
                self.ids[part],
                self.scores[part],
                None if self.payloads is None else self.payloads[part],
                None if self.vectors is None else self.vectors[part],
                None,
                None,
                self.metric,
                self.seq,
            )
            for i, part in enumerate(self._parts())
        ]

    def _parts(self) -> list[slice]:
        """Where the hits of each query stand."""
        if len(self.counts) == 1:
            return [slice(None)]
        ends = np.cumsum(self.counts).tolist()
        counts = self.counts.tolist()
        return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def _hits(self, part: slice) -> Hits:
        payloads = self.payloads
        hits = Hits(
            self.ids[part],
            self.scores[part],
            None if payloads is None else [decode_payload(p) for p in payloads[part]],
            None if self.vectors is None else self.vectors[part],
            self.plan,
            None,
            self.metric,
        )
        return hits if self.groups is None else replace(hits, groups=self._grouped(hits))

    def _grouped(self, hits: Hits) -> list[Group]:
        members = iter(hits)
        return [Group(value, list(islice(members, n))) for value, n in self.groups or ()]


def _is_partial(plan: Plan | None) -> bool:
    return plan is not None and plan.spread is not None and bool(plan.spread.missing)


def need_pyarrow() -> Any:
    """pyarrow, or the word on how to have it."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise Unavailable("pyarrow is not installed; pip install 'soardb[arrow]'") from error
    return pyarrow
