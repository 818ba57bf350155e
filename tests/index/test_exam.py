"""The exam: whom a question competes with, and how few questions are corrected by many.

soardb/index/exam.py -> [test_exam.py]

The recall that comes of it, on other queries, is asked in test_target.py and test_recall.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from soardb.curve import Curve, Effort, OperatingPoint
from soardb.index.exam import Exam, moved
from soardb.kernels.layout import F32, I64, U8


def point(nprobe: int, recall: float, spread: float = 0.01) -> OperatingPoint:
    return of(Effort(nprobe, 100), recall, spread)


def of(effort: Effort, recall: float, spread: float = 0.0) -> OperatingPoint:
    return OperatingPoint(
        effort, recall, recall - spread, recall + spread, 1.0, 100.0 * effort.nprobe
    )


class Listening:
    """An index that finds nothing and remembers how it was asked."""

    nlist = 64

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def usual(self, k: int) -> Effort:
        return Effort(8, 100)

    def drawn(self, rows: I64) -> F32:
        raise AssertionError("questions were given")

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        raise AssertionError("truth was given")

    def search(
        self, queries: F32, k: int, effort: Effort, allowed: U8 | None
    ) -> tuple[F32, I64, int]:
        self.asked.append((len(queries), k, effort.rerank))
        shape = len(queries), k
        return np.full(shape, -np.inf, np.float32), np.full(shape, -1), len(queries)


class TestOwnPoint:
    """A question that finds its own point has a candidate and a result less for others."""

    def ask(self, own: I64, allowed: U8 | None) -> set[tuple[int, int, int]]:
        index, nq = Listening(), len(own)
        questions = np.zeros((nq, 2), np.float32)
        Exam(index, 10, questions, own, np.zeros(nq, np.float32), allowed).point(Effort(4, 17))
        return set(index.asked)

    def test_has_one_more_of_each(self) -> None:
        assert self.ask(np.arange(40), None) == {(40, 11, 18)}

    def test_is_not_there_for_queries_of_callers(self) -> None:
        assert self.ask(np.full(40, -1), None) == {(40, 10, 17)}

    def test_is_not_found_where_a_filter_forbids_it(self) -> None:
        """Else a filter of a tenth would be measured with a candidate too many, nine times of ten:
        at 17 candidates 0.02 of recall (benchmarks/LOG.md).
        """
        mask = np.zeros(64, bool)
        mask[[3, 8, 21]] = True
        allowed = np.packbits(mask, bitorder="little")
        assert self.ask(np.arange(40), allowed) == {(3, 11, 18), (37, 10, 17)}


class TestMoved:
    def test_what_is_missed_changes_by_the_factor_of_the_nearest_settings(self) -> None:
        """By straight lines of the logs between them, and as at the last ones beyond."""
        told_and_found = [(0.8, point(3, 0.7)), (0.9, point(6, 0.9))]
        recalls = {0.6: 0.4, 0.8: 0.7, 0.9: 0.9, 0.98: 0.98}
        found = moved([point(1, recall) for recall in recalls], told_and_found, 1e-6)
        assert [p.recall for p in found] == pytest.approx(list(recalls.values()))
        between = moved([point(1, 1 - 0.02**0.5)], told_and_found, 1e-6)[0]  # half-way by the logs
        assert 1 - between.recall == pytest.approx(0.02**0.5 * 1.5**0.5)

    def test_the_interval_is_that_of_many_questions(self) -> None:
        found = moved([point(1, 0.8, spread=0.1)], [(0.8, point(3, 0.8, spread=0.02))], 1e-6)[0]
        assert (found.low, found.high) == pytest.approx((0.78, 0.82))

    def test_no_miss_stays_none(self) -> None:
        """The least that may be told from nothing is half a result."""
        found = moved([point(1, 1.0, 0.0)], [(0.9, point(3, 0.9))], 0.001)[0]
        assert found.recall == pytest.approx(0.999)
        assert moved([point(1, 0.9)], [], 0.001) == [point(1, 0.9)]


def test_a_lucky_draw_of_a_few_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings look better by a third of what they miss until many questions are asked."""

    def recall_of(effort: Effort) -> float:
        return 1 - 0.5 / math.pow(effort.nprobe, 0.7)

    def ask(exam: Exam, effort: Effort | None, nq: int | None = None) -> OperatingPoint:
        assert effort is not None
        asked = len(exam.own) if nq is None else nq
        missed = (1 - recall_of(effort)) * (1.0 if asked > exam.few else 2 / 3)
        return of(effort, 1 - missed)

    monkeypatch.setattr(Exam, "point", ask)
    nq = 4_500
    none = np.zeros(nq, np.float32)
    exam = Exam(Listening(), 10, np.zeros((nq, 2), np.float32), np.zeros(nq, np.int64), none)
    curve: Curve = exam.sweep()
    for target in (0.8, 0.87, 0.9, 0.93, 0.95):
        effort = curve.choose(target).effort
        assert effort is not None
        least = next(n for n in range(1, 65) if recall_of(Effort(n, 100)) >= target)
        assert effort.nprobe in (least, least + 1)
