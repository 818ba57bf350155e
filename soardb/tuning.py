"""The measured curve of a collection: what recall costs, for its own points.

    collection.py -> [tuning.py] -> ask.py

Queries are drawn from the stored points, moved a little, and each is denied its own point: so they
lie where queries are likely to lie, and none finds itself. What they should find is what an exact
search finds. Then nprobe and rerank are swept, one query a call on one thread, as a program asks
that waits for its answer.

Recall is judged by scores, so that a point as close as the k-th one counts. Its 95 % interval is
Wilson's; hits of one query tend to be missed together, so as many independent trials are assumed
as the spread between queries tells, and no more than queries where there is no spread.

Nothing is kept here, and nothing of the collection is changed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb import deadline
from soardb.arrays import as_int
from soardb.ask import ask
from soardb.curve import Curve, OperatingPoint
from soardb.errors import Closed, InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.options import MAX_LIMIT, as_settings
from soardb.reads import Reads
from soardb.schema import PointId

__all__ = ["Curve", "OperatingPoint", "tune"]

Progress = Callable[[str, float], None]

_JITTER = 0.1  # of the spread of the points in each dimension
_Z = 1.96  # standard deviations that 95 % of a normal distribution lie within
_TRUTH_BATCH = 16
_WARM_UP = 10


def tune(
    reads: Reads,
    k: int,
    queries: int,
    nprobes: Sequence[int] | None,
    reranks: Sequence[int] | None,
    seed: int,
    progress: Progress,
    stop: threading.Event | None,
) -> Curve:
    """See Collection.tune."""
    k = as_int(k, "k", 1, MAX_LIMIT - 1)
    wanted = as_int(queries, "queries", 1, 100_000)
    asked = [as_settings(nprobes, "nprobes"), as_settings(reranks, "reranks")]
    rng = np.random.default_rng(as_int(seed, "seed", 0, 2**63 - 1))

    def report(stage: str, share: float) -> None:
        if stop is not None and stop.is_set():
            raise Closed("the tuning was stopped")
        deadline.check()
        progress(stage, share)

    report("truth", 0.0)
    exam = _Exam.draw(reads, k, wanted, rng, report)
    index = reads.core.contents.index
    if index.model is None:
        points = [exam.point(None, None, report)]
    else:
        points = list(_sweep(exam, index.nlist, index.default_nprobe, asked[0], asked[1], report))
    progress("done", 1.0)
    return Curve(k, len(exam.ids), points)


def _sweep(
    exam: _Exam,
    nlist: int,
    usual: int,
    nprobes: list[int] | None,
    reranks: list[int] | None,
    report: Progress,
) -> Iterator[OperatingPoint]:
    """Each nprobe with each rerank. Chosen here, no further than the default and recall 1."""
    chosen = exam.usual_rerank()
    probes = nprobes or sorted({min(2**i, nlist) for i in range(nlist.bit_length() + 1)} | {usual})
    depths = reranks or sorted({max(exam.k, chosen // 2), chosen, 4 * chosen})
    done = 0
    for rerank in depths:
        for i, nprobe in enumerate(probes):
            report("sweep", (done + i) / (len(depths) * len(probes)))
            point = exam.point(nprobe, rerank, report)
            yield point
            if nprobes is None and point.recall == 1 and nprobe >= usual:
                break
        done += len(probes)


@dataclass(slots=True)
class _Exam:
    """Queries (nq, d), the id of the point that each was drawn from, and its k-th true score."""

    reads: Reads
    k: int
    queries: F32
    ids: list[PointId]
    last_scores: F32

    @classmethod
    def draw(
        cls, reads: Reads, k: int, wanted: int, rng: np.random.Generator, report: Progress
    ) -> _Exam:
        """Draw points, move them, and find what an exact search finds."""
        vectors, ids = _drawn(reads, k, wanted, rng)
        if reads.core.settings.metric == "cosine":  # the spread is one of directions
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        spread = vectors.std(axis=0) if len(vectors) > 1 else np.abs(vectors[0])
        moved = vectors + _JITTER * spread * rng.standard_normal(vectors.shape)
        queries = np.ascontiguousarray(moved, np.float32)
        exam = cls(reads, k, queries, ids, np.empty(len(ids), np.float32))
        for first in range(0, len(ids), _TRUTH_BATCH):
            report("truth", first / len(ids))
            part = queries[first : first + _TRUTH_BATCH]
            found = ask(reads, part, k + 1, exact=True, with_payload=False).split()
            for i, hits in enumerate(found, start=first):
                scores = exam.without_own(i, hits.ids, hits.scores)
                exam.last_scores[i] = scores[-1] if len(scores) == k else -np.inf
        return exam

    def without_own(self, i: int, ids: Any, scores: F32) -> F32:
        """The scores of at most k hits of a query, without the point that it was drawn from."""
        own = self.ids[i]
        if isinstance(ids, np.ndarray):
            is_other = ids != own
        else:
            is_other = np.array([point_id != own for point_id in ids], bool)
        kept: F32 = scores[is_other][: self.k]
        return kept

    def usual_rerank(self) -> int:
        """How many candidates are scored again when nothing is said."""
        found = ask(self.reads, self.queries[:1], self.k + 1, with_payload=False, explain=True)
        assert found.plan is not None
        return found.plan.rerank or self.k

    def point(self, nprobe: int | None, rerank: int | None, report: Progress) -> OperatingPoint:
        """Ask every query with one setting; both None: exactly."""
        recalls, seconds = np.empty(len(self.ids)), np.empty(len(self.ids))
        is_exact = nprobe is None
        for i in [*range(min(_WARM_UP, len(self.ids))), *range(len(self.ids))]:
            if is_exact and i % _TRUTH_BATCH == 0:
                report("sweep", i / len(self.ids))
            start = time.perf_counter()
            found = ask(
                self.reads,
                self.queries[i],
                self.k + 1,
                nprobe=nprobe,
                rerank=rerank,
                exact=is_exact,
                with_payload=False,
            )
            seconds[i] = time.perf_counter() - start
            scores = self.without_own(i, found.ids, found.scores)
            last = self.last_scores[i]
            recalls[i] = np.count_nonzero(scores >= last - 1e-6 * abs(last)) / self.k
        # An exact search is what the others are measured by.
        low, high = (1.0, 1.0) if is_exact else interval(recalls, self.k)
        return OperatingPoint(
            nprobe, rerank, float(recalls.mean()), low, high, float(np.median(seconds) * 1e6)
        )


def _drawn(
    reads: Reads, k: int, wanted: int, rng: np.random.Generator
) -> tuple[F32, list[PointId]]:
    """Stored vectors (nq, d) of distinct points, and their ids."""
    live = reads.ready().table.live
    if live <= k:
        raise InvalidArgument(
            f"expected more than k = {k} points to measure recall@{k}, the collection has {live:,}"
        )

    def read(contents: Any) -> I64:
        positions = contents.table.live_positions()
        if wanted < len(positions):
            positions = rng.choice(positions, wanted, replace=False)
        rows: I64 = contents.table.rows_at(positions)
        return rows

    _, stored = reads.fetched(read, lambda rows: rows, with_vectors=True)
    vectors = np.stack([point.vector for point in stored if point.vector is not None])
    return vectors, [point.id for point in stored]


def interval(recalls: np.ndarray, k: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the mean of (nq,) recalls@k; see above for the trials assumed."""
    nq, mean = len(recalls), float(recalls.mean())
    variance = float(recalls.var(ddof=1)) / nq if nq > 1 else 0.0
    trials = nq if variance == 0 else min(max(mean * (1 - mean) / variance, nq), nq * k)
    centre = mean + _Z**2 / (2 * trials)
    half = _Z * math.sqrt(mean * (1 - mean) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    return (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)
