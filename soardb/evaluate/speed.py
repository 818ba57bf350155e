"""The time that single queries take, one call each, as ann-benchmarks does, beside their recall.

    index, recall.py -> [speed.py] -> cli, demo, benchmarks

A time is worth nothing without its recall, so the answers are kept beside the latencies, and
search_curve judges them for one setting of nprobe after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.evaluate.recall import exact_scores, recall_at_k
from soardb.kernels.layout import F32, I64

Search = Callable[[F32], tuple[F32, I64]]
"""One call: queries (1, d) in, (scores (1, k), ids (1, k)) out."""

_WARM_UP = 32  # queries


class Searchable(Protocol):
    """The part of the index contract that is timed here."""

    def search(
        self,
        queries: F32,
        k: int = 10,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
    ) -> tuple[F32, I64]: ...


@dataclass(frozen=True)
class Exam:
    """Queries with what is needed to mark their answers.

    vectors      (n, d) float32, what the index holds; row number = id
    queries      (nq, d) float32
    true_scores  (nq, >= k) float32: see ground_truth
    """

    vectors: F32
    queries: F32
    true_scores: F32
    metric: str
    k: int = 10


@dataclass(frozen=True)
class Timing:
    """Answers and latencies of one set of queries, asked one by one.

    ids         (nq, k) int64, as the search returned them
    latency_ms  (repeats, nq) float64, wall time of each call
    """

    ids: I64
    latency_ms: npt.NDArray[np.float64]

    @property
    def qps(self) -> float:
        """Queries a second of one caller without pause; the median over the repeats."""
        return float(np.median(1e3 / self.latency_ms.mean(axis=1)))

    @property
    def qps_spread(self) -> tuple[float, float]:
        """The slowest and the fastest repeat."""
        rates = 1e3 / self.latency_ms.mean(axis=1)
        return float(rates.min()), float(rates.max())

    @property
    def p50_ms(self) -> float:
        return float(np.percentile(self.latency_ms, 50))

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.latency_ms, 99))


def time_queries(search: Search, queries: F32, *, repeats: int = 3) -> Timing:
    """Ask every query alone, `repeats` times over, after a few to warm up.

    queries  (nq, d) float32, nq >= 1
    """
    if len(queries) == 0 or repeats < 1:
        raise InvalidArgument(
            f"expected one query and one repeat at least, got {len(queries)} and {repeats}"
        )
    single = [queries[i : i + 1] for i in range(len(queries))]
    for query in single[:_WARM_UP]:
        search(query)
    latency_ms = np.empty((repeats, len(queries)))
    answers: list[I64] = []
    for repeat in range(repeats):
        answers = []
        for i, query in enumerate(single):
            start = time.perf_counter()
            _, ids = search(query)
            latency_ms[repeat, i] = 1e3 * (time.perf_counter() - start)
            answers.append(ids)
    return Timing(np.concatenate(answers), latency_ms)


@dataclass(frozen=True)
class CurvePoint:
    """One setting of a search: its recall@k and its times."""

    nprobe: int | None
    rerank: int | None
    recall: float
    timing: Timing

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures, for JSON."""
        slowest, fastest = self.timing.qps_spread
        return {
            "nprobe": self.nprobe,
            "rerank": self.rerank,
            "recall": self.recall,
            "qps": self.timing.qps,
            "qps_min": slowest,
            "qps_max": fastest,
            "p50_ms": self.timing.p50_ms,
            "p99_ms": self.timing.p99_ms,
        }


def search_curve(
    index: Searchable,
    exam: Exam,
    nprobes: Sequence[int | None],
    *,
    rerank: int | None = None,
    repeats: int = 3,
) -> list[CurvePoint]:
    """Recall and times of one index over nprobe, one query a call; None means the default."""
    points = []
    for nprobe in nprobes:

        def search(query: F32, nprobe: int | None = nprobe) -> tuple[F32, I64]:
            return index.search(query, exam.k, nprobe=nprobe, rerank=rerank)

        timing = time_queries(search, exam.queries, repeats=repeats)
        scores = exact_scores(exam.vectors, exam.queries, timing.ids, exam.metric)
        recall = recall_at_k(scores, timing.ids, exam.true_scores, exam.k).mean
        points.append(CurvePoint(nprobe, rerank, recall, timing))
    return points
