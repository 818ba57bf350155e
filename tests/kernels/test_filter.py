"""The filter: a search among some rows only, and what it says of the work done.

    kernels.IvfSearcher -> [test_filter.py] <- reference.IvfSearcher, conftest.thin_out

The oracle is the reference under the same filter, and without one over lists that hold the allowed
rows alone: what may not be returned must not take a place that another row could have had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I64, U8, IvfArrays, Metric, SearchPlan

METRICS: tuple[Metric, ...] = get_args(Metric)
PLAN = SearchPlan(nprobe=12, cellprobe=0, collect=60, rerank=40, refine=20)
N, N_BASE = 3000, 1700
Mask = npt.NDArray[np.bool_]
Cut = tuple[IvfArrays, IvfArrays]


class Answer(NamedTuple):
    status: int
    scores: F32
    ids: I64
    scanned: I64

    def agrees(self, other: Answer, *, but_scanned: bool = False) -> bool:
        """Bit for bit."""
        return (
            self.status == other.status
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.scores.view(np.int32), other.scores.view(np.int32))
            and (but_scanned or np.array_equal(self.scanned, other.scanned))
        )


def ask(
    searcher: Any, queries: F32, allowed: U8 | None, plan: SearchPlan = PLAN, threads: int = 1
) -> Answer:
    """Ten neighbours of each query, into arrays that hold rubbish."""
    scores = np.full((len(queries), 10), 7, np.float32)
    ids, scanned = np.full((len(queries), 10), 7), np.full(len(queries), -7)
    status = searcher.search(queries, 10, plan, threads, scores, ids, allowed, scanned)
    return Answer(status, scores, ids, scanned)


def draw_queries(d: int, nq: int = 4) -> F32:
    return np.random.default_rng(97).standard_normal((nq, d)).astype(np.float32) * 3


def draw_mask(density: float, n: int = N) -> Mask:
    return np.random.default_rng(int(1000 * density)).random(n) < density


def as_bitmap(mask: Mask) -> U8:
    return np.packbits(mask, bitorder="little")


@pytest.fixture(scope="module")
def cut(make_ivf: Callable[..., IvfArrays], split_off: Callable[..., Cut]) -> Callable[..., Cut]:
    """(index of a base and a delta, the same in one segment), each made once."""
    return cache(lambda **spec: split_off(make_ivf(n=N, **spec), N_BASE))


class TestFilter:
    @pytest.mark.parametrize("density", [0, 0.001, 0.1, 0.5, 1])
    @pytest.mark.parametrize("is_spilled", [False, True], ids=["once", "spilled"])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("ncell", [0, 5])
    def test_answers_as_if_the_other_rows_were_not_there(
        self,
        kernels: Kernels,
        cut: Callable[..., Cut],
        thin_out: Callable[[IvfArrays, Mask], IvfArrays],
        ncell: int,
        metric: Metric,
        is_spilled: bool,
        density: float,
    ) -> None:
        """Both copies of a row alike; fewer rows than are asked for are marked, status -1."""
        two, one = cut(seed=4, nlist=40, metric=metric, is_spilled=is_spilled, ncell=ncell)
        mask, queries = draw_mask(density), draw_queries(31)
        plan = replace(PLAN, cellprobe=3 if ncell else 0)
        expected = ask(reference.IvfSearcher(two), queries, as_bitmap(mask), plan)
        thin = ask(reference.IvfSearcher(thin_out(one, mask)), queries, None, plan)
        assert expected.agrees(thin, but_scanned=True)
        assert expected.status == (0 if density > 0.05 else -1)
        for arrays in (two, one):
            answer = ask(kernels.IvfSearcher(arrays), queries, as_bitmap(mask), plan)
            assert answer.agrees(expected)
        assert set(answer.ids.ravel().tolist()) <= {-1, *one.ids[mask].tolist()}

    @pytest.mark.parametrize("density", [0.02, 0.5])
    @pytest.mark.parametrize("metric", METRICS)
    def test_ties_fall_the_same_way(
        self, kernels: Kernels, cut: Callable[..., Cut], metric: Metric, density: float
    ) -> None:
        """Whole numbers in few dimensions tie in keys, 8-bit scores and final scores."""
        two, _ = cut(seed=5, d=3, nlist=60, metric=metric, is_spilled=True, integers=True)
        queries = np.rint(draw_queries(3, 20)) + np.float32(0.5)
        bitmap = as_bitmap(draw_mask(density))
        plan = SearchPlan(nprobe=25, cellprobe=0, collect=100, rerank=50, refine=30)
        expected = ask(reference.IvfSearcher(two), queries, bitmap, plan)
        assert ask(kernels.IvfSearcher(two), queries, bitmap, plan).agrees(expected)

    @pytest.mark.parametrize("collect", [20, 300, 4000])
    def test_pools_of_any_size(
        self, kernels: Kernels, cut: Callable[..., Cut], collect: int
    ) -> None:
        """Those that fill soon, late and never: the filter is asked before and after that."""
        two, _ = cut(seed=4, nlist=40, metric="dot", is_spilled=True)
        queries, bitmap = draw_queries(31), as_bitmap(draw_mask(0.3))
        plan = SearchPlan(nprobe=40, cellprobe=0, collect=collect, rerank=20, refine=20)
        expected = ask(reference.IvfSearcher(two), queries, bitmap, plan)
        assert ask(kernels.IvfSearcher(two), queries, bitmap, plan).agrees(expected)

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 16, 200, 374, 375, 376, 1000])
    def test_rows_beyond_the_bitmap_are_not_allowed(
        self,
        kernels: Kernels,
        cut: Callable[..., Cut],
        thin_out: Callable[[IvfArrays, Mask], IvfArrays],
        make_shifted: Callable[[U8, int], U8],
        size: int,
    ) -> None:
        """Bytes of a bitmap of ones: 375 are all 3,000 rows. It may lie at any address."""
        two, one = cut(seed=4, nlist=40, metric="dot", is_spilled=True)
        queries, plan = draw_queries(31), replace(PLAN, nprobe=40)
        expected = ask(
            reference.IvfSearcher(thin_out(one, np.arange(N) < 8 * size)), queries, None, plan
        )
        bitmap = make_shifted(np.full(size, 0xFF, np.uint8), 3)
        answer = ask(kernels.IvfSearcher(two), queries, bitmap, plan)
        assert answer.agrees(expected, but_scanned=True)

    def test_one_row_alone_is_found(self, kernels: Kernels, cut: Callable[..., Cut]) -> None:
        """Each bit of a byte, in both segments: bit r is row r's."""
        two, one = cut(seed=4, nlist=40, metric="l2", is_spilled=True)
        searcher, plan = kernels.IvfSearcher(two), replace(PLAN, nprobe=40)
        for row in [*range(9), *range(N_BASE - 2, N_BASE + 10), N - 1]:
            answer = ask(searcher, draw_queries(31, 1), as_bitmap(np.arange(N) == row), plan)
            assert answer.status == -1
            assert answer.ids[0].tolist() == [one.ids[row]] + [-1] * 9
            assert answer.scores[0, 1:].tolist() == [-np.inf] * 9

    def test_threads_change_nothing(self, kernels: Kernels, cut: Callable[..., Cut]) -> None:
        """One bitmap for all queries; each query's count at its own place."""
        two, _ = cut(seed=4, nlist=40, metric="l2", is_spilled=True)
        queries, bitmap = draw_queries(31, 130), as_bitmap(draw_mask(0.1))
        alone = ask(kernels.IvfSearcher(two), queries, bitmap)
        assert ask(kernels.IvfSearcher(two), queries, bitmap, threads=3).agrees(alone)
        assert len(set(alone.scanned.tolist())) > 10

    def test_a_bitmap_may_be_read_only(self, kernels: Kernels, cut: Callable[..., Cut]) -> None:
        two, _ = cut(seed=4, nlist=40, metric="l2", is_spilled=True)
        queries, bitmap = draw_queries(31), as_bitmap(draw_mask(0.1))
        expected = ask(kernels.IvfSearcher(two), queries, bitmap)
        bitmap.flags.writeable = False
        assert ask(kernels.IvfSearcher(two), queries, bitmap).agrees(expected)


class TestScanned:
    @pytest.mark.parametrize("bitmap", [None, np.zeros(400, np.uint8)], ids=["all", "none"])
    def test_counts_the_codes_of_the_visited_lists(
        self, kernels: Kernels, cut: Callable[..., Cut], bitmap: U8 | None
    ) -> None:
        """Those of base and delta, whether or not the filter lets them pass."""
        two, _ = cut(seed=4, nlist=40, metric="dot", is_spilled=True)
        queries = draw_queries(31)
        every = ask(kernels.IvfSearcher(two), queries, bitmap, replace(PLAN, nprobe=40))
        assert every.scanned.tolist() == [two.list_count.sum() + two.delta_count.sum()] * 4
        some = ask(kernels.IvfSearcher(two), queries, bitmap)
        assert np.array_equal(
            some.scanned, ask(reference.IvfSearcher(two), queries, bitmap).scanned
        )
        assert (some.scanned < every.scanned).all()

    def test_may_be_left_out(self, kernels: Kernels, cut: Callable[..., Cut]) -> None:
        two, _ = cut(seed=4, nlist=40, metric="dot", is_spilled=True)
        queries = draw_queries(31)
        scores, ids = np.empty((4, 10), np.float32), np.empty((4, 10), np.int64)
        assert kernels.IvfSearcher(two).search(queries, 10, PLAN, 1, scores, ids) == 0
        assert np.array_equal(ids, ask(kernels.IvfSearcher(two), queries, None).ids)
