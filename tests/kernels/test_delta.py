"""The delta: rows that follow the base's, in lists of their own, seen by one search with them.

    kernels.IvfSearcher -> [test_delta.py] <- reference.IvfSearcher, conftest.split_off

The oracle is the reference on the same arrays, and the same rows in one segment besides, whose
lists hold the base's codes first: the cut between the segments must not be seen in an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, IvfArrays, Metric, SearchPlan

METRICS: tuple[Metric, ...] = get_args(Metric)
PLAN = SearchPlan(nprobe=8, cellprobe=0, collect=60, rerank=40, refine=20)
Answer = tuple[int, bytes, bytes]
Cut = tuple[IvfArrays, IvfArrays]


def ask(searcher: Any, queries: F32, k: int = 10, plan: SearchPlan = PLAN) -> Answer:
    """Status, scores and ids, of which the last two are compared bit for bit."""
    scores = np.full((len(queries), k), 7, np.float32)
    ids = np.full((len(queries), k), 7, np.int64)
    status = searcher.search(queries, k, plan, 1, scores, ids)
    return status, scores.tobytes(), ids.tobytes()


def draw_queries(d: int, nq: int = 4) -> F32:
    return np.random.default_rng(98).standard_normal((nq, d)).astype(np.float32) * 3


@pytest.fixture(scope="module")
def cut(make_ivf: Callable[..., IvfArrays], split_off: Callable[..., Cut]) -> Callable[..., Cut]:
    """(index of a base of n_base rows and a delta, the same in one segment), each made once."""

    @cache
    def make(n_base: int, **spec: Any) -> Cut:
        return split_off(make_ivf(**spec), n_base)

    return make


class TestDelta:
    @pytest.mark.parametrize("is_spilled", [False, True], ids=["once", "spilled"])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("n_base", [0, 1, 150, 299, 300])
    @pytest.mark.parametrize("ncell", [0, 5])
    def test_the_cut_is_not_seen(
        self,
        kernels: Kernels,
        cut: Callable[..., Cut],
        ncell: int,
        n_base: int,
        metric: Metric,
        is_spilled: bool,
    ) -> None:
        """From all rows in the delta to none; a list may be empty in either."""
        spec: dict[str, Any] = {"metric": metric, "is_spilled": is_spilled, "ncell": ncell}
        two, one = cut(n_base, seed=3, n=300, **spec)
        queries = draw_queries(31)
        plan = replace(PLAN, cellprobe=3 if ncell else 0)
        expected = ask(reference.IvfSearcher(two), queries, plan=plan)
        assert expected == ask(reference.IvfSearcher(one), queries, plan=plan)
        assert ask(kernels.IvfSearcher(two), queries, plan=plan) == expected

    @pytest.mark.parametrize("metric", METRICS)
    def test_ties_fall_the_same_way(
        self, kernels: Kernels, cut: Callable[..., Cut], metric: Metric
    ) -> None:
        """Of equal keys the base's stays, as it is scanned first; of equal scores the lower id."""
        two, _ = cut(
            900, seed=5, n=2000, d=3, nlist=60, metric=metric, is_spilled=True, integers=True
        )
        queries = np.rint(draw_queries(3, 20)) + np.float32(0.5)
        plan = SearchPlan(nprobe=25, cellprobe=0, collect=300, rerank=100, refine=50)
        expected = ask(reference.IvfSearcher(two), queries, 30, plan)
        assert ask(kernels.IvfSearcher(two), queries, 30, plan) == expected

    @pytest.mark.parametrize(("d", "m"), [(1, 8), (7, 8), (64, 16), (100, 56), (768, 264)])
    @pytest.mark.parametrize("metric", METRICS)
    def test_equals_the_reference_in_every_dimension(
        self, kernels: Kernels, cut: Callable[..., Cut], metric: Metric, d: int, m: int
    ) -> None:
        two, _ = cut(200, seed=d, n=400, d=d, m=m, metric=metric, is_spilled=True)
        queries = draw_queries(d)
        assert ask(kernels.IvfSearcher(two), queries) == ask(reference.IvfSearcher(two), queries)

    def test_what_is_added_in_place_is_found_by_the_next_search(
        self, kernels: Kernels, cut: Callable[..., Cut]
    ) -> None:
        """Counts, codes and rows are read anew at each search: an add makes no new searcher."""
        two, _ = cut(100, seed=3, n=300, metric="l2", is_spilled=True)
        start, count = two.delta_start.copy(), two.delta_count.copy()
        two = replace(two, delta_start=start, delta_count=np.zeros_like(count))
        plan, queries = replace(PLAN, nprobe=21), draw_queries(31)
        searcher = kernels.IvfSearcher(two)
        empty = ask(searcher, queries, plan=plan)
        assert empty == ask(reference.IvfSearcher(two), queries, plan=plan)
        two.delta_count[:] = count
        full = ask(searcher, queries, plan=plan)
        assert full == ask(reference.IvfSearcher(two), queries, plan=plan)
        assert full != empty
        two.delta_start[:] = start[::-1]  # lists move when they outgrow their room
        two.delta_count[:] = np.minimum(count, count[::-1])
        moved = ask(searcher, queries, plan=plan)
        assert moved == ask(reference.IvfSearcher(two), queries, plan=plan)
        assert moved not in (full, empty)

    def test_of_another_dimension_is_refused(
        self, kernels: Kernels, cut: Callable[..., Cut]
    ) -> None:
        """The C++ would else read past the arrays."""
        if kernels.__name__ != "soardb.kernels.native":  # type: ignore[attr-defined]
            pytest.skip("only the extension reads memory unchecked")
        two, _ = cut(150, seed=3, n=300, metric="dot")
        for broken in (
            {"delta_vectors": np.zeros((5, 30), np.float32)},
            {"delta_store": np.zeros((5, 36), np.uint8)},
            {"delta_start": np.zeros(20, np.int64)},
        ):
            with pytest.raises(ValueError, match="delta"):
                kernels.IvfSearcher(replace(two, **broken))
