"""A plan bound to an index: one query in, its results out, or None for whatever else comes.

    kernels.IvfSearcher.bind -> [test_bound_search.py] <- IvfSearcher.search, conftest.make_ivf

The answers are search()'s bit for bit, in every metric, and what search() would refuse or could not
fill is left to it.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, IvfArrays, Metric, SearchPlan

METRICS: tuple[Metric, ...] = get_args(Metric)
PLAN = SearchPlan(nprobe=8, cellprobe=0, collect=60, rerank=40, refine=20)
MakeIvf = Callable[..., IvfArrays]


def some_queries(d: int, n: int = 20) -> F32:
    return np.random.default_rng(5).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("plan", [PLAN, SearchPlan(20, 0, 60, 40, 20, stop=2.8)], ids=str)
def test_answers_as_search_does(
    kernels: Kernels, make_ivf: MakeIvf, metric: Metric, plan: SearchPlan
) -> None:
    searcher = kernels.IvfSearcher(make_ivf(seed=3, d=40, metric=metric, is_spilled=True))
    bound = searcher.bind(10, plan)
    for query in some_queries(40):
        scores, ids = np.empty((1, 10), np.float32), np.empty((1, 10), np.int64)
        assert searcher.search(query[None, :], 10, plan, 1, scores, ids) == 0
        found = bound(query[None, :])
        assert found is not None
        assert [array.dtype for array in found] == [np.float32, np.int64]
        np.testing.assert_array_equal(found[0].view(np.int32), scores.view(np.int32))
        np.testing.assert_array_equal(found[1], ids)


def test_takes_a_read_only_query_and_a_row_of_many(kernels: Kernels, make_ivf: MakeIvf) -> None:
    bound = kernels.IvfSearcher(make_ivf(seed=3, d=40)).bind(5, PLAN)
    queries = some_queries(40)
    queries.flags.writeable = False
    assert bound(queries[3:4]) is not None


@pytest.mark.parametrize(
    "other",
    [
        None,
        [[0.0] * 40],
        "query",
        np.zeros((1, 40), np.float64),
        np.zeros(40, np.float32),
        np.zeros((2, 40), np.float32),
        np.zeros((0, 40), np.float32),
        np.zeros((1, 41), np.float32),
        np.zeros((1, 40, 1), np.float32),
        np.zeros((1, 80), np.float32)[:, ::2],
        np.zeros((1, 40), ">f4"),
        np.ma.masked_array(np.ones((1, 40), np.float32)),
        np.frombuffer(bytes(161), np.uint8)[1:].view(np.float32).reshape(1, 40),
    ],
    ids=lambda other: f"{type(other).__name__}{getattr(other, 'shape', '')}",
)
def test_leaves_everything_else_to_search(
    kernels: Kernels, make_ivf: MakeIvf, other: object
) -> None:
    assert kernels.IvfSearcher(make_ivf(seed=3, d=40)).bind(5, PLAN)(other) is None


def test_leaves_what_has_no_full_answer_to_search(kernels: Kernels, make_ivf: MakeIvf) -> None:
    bound = kernels.IvfSearcher(make_ivf(seed=3, d=40, metric="cosine")).bind(5, PLAN)
    assert bound(np.zeros((1, 40), np.float32)) is None  # no direction
    assert bound(np.full((1, 40), np.nan, np.float32)) is None
    few = kernels.IvfSearcher(make_ivf(seed=4, d=40, n=12)).bind(10, SearchPlan(1, 0, 60, 40, 20))
    assert few(some_queries(40)[:1]) is None  # one list of few rows


def test_keeps_its_index_alive_and_lets_it_go(make_ivf: MakeIvf) -> None:
    native: Any = pytest.importorskip("soardb.kernels.native")
    arrays = make_ivf(seed=3, d=40)
    vectors = arrays.vectors
    held = sys.getrefcount(vectors)
    searcher = native.IvfSearcher(arrays)
    bound = searcher.bind(5, PLAN)
    del searcher, arrays
    gc.collect()
    query = some_queries(40)[:1]
    references = sys.getrefcount(query)
    for _ in range(100):
        assert bound(query) is not None
        assert bound(None) is None
    assert sys.getrefcount(query) == references
    assert sys.getrefcount(vectors) >= held
    del bound
    gc.collect()
    assert sys.getrefcount(vectors) < held


def test_threads_share_one(kernels: Kernels, make_ivf: MakeIvf) -> None:
    bound = kernels.IvfSearcher(make_ivf(seed=3, d=40)).bind(5, PLAN)
    queries = some_queries(40)
    expected = [bound(query[None, :]) for query in queries]
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(5):
            for i, query in enumerate(queries):
                found, want = bound(query[None, :]), expected[i]
                if found is None or want is None or not np.array_equal(found[1], want[1]):
                    wrong.append(i)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
