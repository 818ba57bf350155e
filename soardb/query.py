"""One search call: planning, fetching and cutting, for vectors, text or both.

    ask.py -> [query.py] -> search.py, reads.py, fulltext.py

The call has been checked by ask.py; what comes out are HitColumns, payloads as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from soardb import deadline
from soardb.contents import Contents
from soardb.errors import InvalidArgument
from soardb.filters import Expr
from soardb.fulltext import fuse, text_query
from soardb.grouping import grouped
from soardb.hits import HitColumns, Plan
from soardb.kernels.layout import F32, I64
from soardb.options import MAX_LIMIT, Fusion
from soardb.reads import Reads
from soardb.schema import PointId
from soardb.search import Found, Knobs, Planner, has_text_condition
from soardb.storage.rows import StoredPoint

__all__ = ["MAX_LIMIT", "SearchCall", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of each hit is fetched."""

    payload: bool
    vectors: bool


@dataclass(slots=True)
class SearchCall:
    """One search call: planning, fetching and cutting, for vectors, text or both."""

    reads: Reads
    limit: int
    where: Expr | None
    knobs: Knobs
    wanted: Wanted
    score_threshold: float | None
    explain: bool
    left_out: PointId | None
    text_fields: Sequence[str] | None

    def many(self, queries: F32) -> HitColumns:
        """Hits of each query."""
        reads = self.reads
        if reads.budget.limit is None:
            return self._finish(lambda contents: self._vectors(contents, queries))
        size = len(queries) * (32 * self.limit + 8 * reads.core.settings.d)
        with reads.budget.reserve(size, f"a search of {len(queries):,} queries"):
            return self._finish(lambda contents: self._vectors(contents, queries))

    def _vectors(self, contents: Contents, queries: F32) -> tuple[list[I64], list[F32], Plan]:
        asked = self.reads.core.asked
        if asked is not None and self.left_out is None:
            asked.extend(np.array(queries[i : i + 1], np.float32) for i in range(len(queries)))
        extra = 0 if self.left_out is None else 1
        planner = Planner(contents, self.knobs, self.where, self.reads.text_match(contents))
        found = planner.search(queries, self.limit + extra)
        positions, scores = _cut(found)
        if self.left_out is not None:
            gone = contents.table.find([self.left_out])
            for i, row in enumerate(positions):
                keep = row != gone[0]
                positions[i], scores[i] = row[keep][: self.limit], scores[i][keep][: self.limit]
        if self.score_threshold is not None:
            for i, found_scores in enumerate(scores):
                keep = found_scores >= self.score_threshold
                positions[i], scores[i] = positions[i][keep], found_scores[keep]
        return positions, scores, found.plan

    def hybrid(
        self, queries: F32 | None, text: str, fusion: Fusion, weights: tuple[float, float]
    ) -> HitColumns:
        """Hits by words, or by words and a vector."""
        fields = self._text_columns()
        query = text_query(text, fields, "any")
        depth = max(4 * self.limit, 100)

        def read(contents: Contents) -> tuple[list[I64], list[F32], Plan]:
            by_text = self._by_text(contents, query, self.limit if queries is None else depth)
            if queries is None:
                positions, scores = by_text
                plan = Plan("text", contents.table.live, None, 1.0, None, None, 0, {})
                return [positions], [scores], plan
            planner = Planner(contents, self.knobs, self.where, self.reads.text_match(contents))
            found = planner.search(queries, depth)
            vector_positions, vector_scores = _cut(found)
            positions, scores = fuse(
                [(vector_positions[0], vector_scores[0]), by_text],
                weights,
                fusion,
                self.limit + 1,
            )
            if self.left_out is not None:
                keep = positions != contents.table.find([self.left_out])[0]
                positions, scores = positions[keep], scores[keep]
            return (
                [positions[: self.limit]],
                [scores[: self.limit]],
                replace(found.plan, strategy="hybrid"),
            )

        return self._finish(read, metric=None)

    def _text_columns(self) -> list[int]:
        declared = self.reads.core.settings.text_fields
        if not declared:
            raise InvalidArgument(
                "expected a collection with a text field for text search; declare one with "
                "schema={'body': 'text'}"
            )
        wanted = declared if self.text_fields is None else list(self.text_fields)
        for name in wanted:
            if name not in declared:
                raise InvalidArgument(
                    f"expected text_fields among {', '.join(declared)}, got {name!r}"
                )
        return [declared.index(name) for name in wanted]

    def _by_text(self, contents: Contents, query: str | None, limit: int) -> tuple[I64, F32]:
        """The best live and matching positions by BM25."""
        if query is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        planner = Planner(contents, self.knobs, self.where, self.reads.text_match(contents))
        ask, n = limit, contents.table.n
        while True:
            deadline.check()
            rows, scores = self.reads.core.store.match_text(query, ask)
            positions = contents.table.positions_of(rows)
            keep = positions >= 0
            keep[keep] = contents.table.is_live(positions[keep])
            if self.where is not None and keep.any():
                ordered = np.sort(positions[keep])
                fine = ordered[planner.holds(ordered)]
                keep &= np.isin(positions, fine)
            if int(keep.sum()) >= limit or len(rows) < ask or ask > 2 * n:
                return positions[keep][:limit], np.array(scores, np.float32)[keep][:limit]
            ask *= 8

    def grouped(self, queries: F32, name: str, size: int) -> HitColumns:
        """`limit` groups of at most `size` hits each, by the value of a field."""
        everything = replace(self, wanted=Wanted(True, self.wanted.vectors))

        def search(limit: int) -> HitColumns:
            everything.limit = limit
            return everything.many(queries)

        return grouped(search, name, self.limit, size, with_payload=self.wanted.payload)

    def _finish(
        self,
        search: Callable[[Contents], tuple[list[I64], list[F32], Plan]],
        metric: Any = "collection's",
    ) -> HitColumns:
        """The columns of what a search finds under the lock."""
        reads, wanted = self.reads, self.wanted
        has_text = metric is None or has_text_condition(self.where)
        metric = reads.core.settings.metric if metric == "collection's" else None

        def read(contents: Contents) -> tuple[HitColumns, I64]:
            positions, scores, plan = search(contents)
            flat = _joined(positions, np.int64)
            found = HitColumns(
                np.array([len(row) for row in positions], np.int64),
                contents.table.ids_at(flat),
                _joined(scores, np.float32),
                None,
                None,
                plan if self.explain else None,
                None,
                metric,
                contents.seq,
            )
            return found, contents.table.rows_at(flat) if is_fetched else flat

        is_fetched = wanted.payload or wanted.vectors
        if not is_fetched:
            reads.ready()
            if has_text:
                with reads.view(has_text) as contents:
                    return read(contents)[0]
            with reads.core.lock.read():
                return read(reads.core.contents)[0]
        (found, _), stored = reads.fetched(read, lambda f: f[1], wanted.vectors, has_text)
        return replace(
            found,
            payloads=[point.payload for point in stored] if wanted.payload else None,
            vectors=self._stack(stored) if wanted.vectors else None,
        )

    def _stack(self, points: list[StoredPoint]) -> F32:
        if not points:
            return np.empty((0, self.reads.core.settings.d), np.float32)
        return np.stack([point.vector for point in points if point.vector is not None])


def _cut(found: Found) -> tuple[list[I64], list[F32]]:
    """Positions and scores of each query without the missing ones."""
    positions = found.positions
    if (
        not positions.size
        or (positions[0, -1] if len(positions) == 1 else positions[:, -1].min()) >= 0
    ):
        return list(positions), list(found.scores)
    counts = (found.positions >= 0).sum(axis=1)
    return (
        [row[:n] for row, n in zip(found.positions, counts, strict=True)],
        [row[:n] for row, n in zip(found.scores, counts, strict=True)],
    )


def _joined(parts: list[Any], kind: Any) -> Any:
    """Arrays of one kind, one a query, end to end."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, kind)
