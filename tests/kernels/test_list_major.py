"""A large batch, which goes list by list, answers as its queries do alone.

    kernels.IvfSearcher -> [test_list_major.py] <- native/src/list_major.cpp, list_major.inl

A query's codes are the same in another order, so where no pool has to drop one of two equal keys
the answers are equal bit for bit; with the usual small pools they may differ in such ties alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I64, U8, IvfArrays, Metric, SearchPlan

METRICS: tuple[Metric, ...] = get_args(Metric)
N, N_BASE, NLIST, NQ, K = 2500, 1600, 40, 150, 10
EVERYTHING = SearchPlan(nprobe=25, cellprobe=0, collect=2 * N, rerank=2 * N, refine=2 * N)
USUAL = SearchPlan(nprobe=25, cellprobe=0, collect=60, rerank=40, refine=20)

Make = Callable[..., IvfArrays]
Split = Callable[[IvfArrays, int], tuple[IvfArrays, IvfArrays]]


def ask(
    searcher: Any, queries: F32, plan: SearchPlan, allowed: U8 | None, threads: int
) -> tuple[int, F32, I64, I64]:
    scores, ids = np.empty((len(queries), K), np.float32), np.empty((len(queries), K), np.int64)
    scanned = np.empty(len(queries), np.int64)
    status = searcher.search(queries, K, plan, threads, scores, ids, allowed, scanned)
    return status, scores, ids, scanned


def one_by_one(
    searcher: Any, queries: F32, plan: SearchPlan, allowed: U8 | None
) -> tuple[F32, I64, I64]:
    every = [ask(searcher, queries[i : i + 1], plan, allowed, 1) for i in range(len(queries))]
    scores, ids, scanned = (np.concatenate([one[j] for one in every]) for j in (1, 2, 3))
    return scores, ids, scanned


def draw_queries(d: int) -> F32:
    return np.random.default_rng(11).standard_normal((NQ, d)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("is_filtered", [False, True])
@pytest.mark.parametrize("has_delta", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_answers_like_single_queries(
    kernels: Kernels,
    make_ivf: Make,
    split_off: Split,
    metric: Metric,
    has_delta: bool,
    is_filtered: bool,
    threads: int,
) -> None:
    """With and without a delta and a filter; scores, ids and the count of codes."""
    arrays = make_ivf(seed=8, n=N, d=24, metric=metric, nlist=NLIST, is_spilled=True)
    if has_delta:
        arrays = split_off(arrays, N_BASE)[0]
    searcher, queries = kernels.IvfSearcher(arrays), draw_queries(24)
    allowed = None
    if is_filtered:
        allowed = np.packbits(np.random.default_rng(12).random(N) < 0.4, bitorder="little")
    expected = one_by_one(searcher, queries, EVERYTHING, allowed)
    _, *got = ask(searcher, queries, EVERYTHING, allowed, threads)
    for array, oracle in zip(got, expected, strict=True):
        np.testing.assert_array_equal(array, oracle)
    usual = one_by_one(searcher, queries, USUAL, allowed)
    _, _, ids, scanned = ask(searcher, queries, USUAL, allowed, threads)
    assert (ids == usual[1]).mean() > 0.98
    np.testing.assert_array_equal(scanned, usual[2])


def test_names_the_first_bad_query(kernels: Kernels, make_ivf: Make) -> None:
    """As a batch that goes query by query does."""
    arrays = make_ivf(seed=8, n=N, d=24, metric="cosine", nlist=NLIST, is_spilled=False)
    queries = draw_queries(24)
    queries[90] = np.nan
    queries[70] = 0
    status, *_ = ask(kernels.IvfSearcher(arrays), queries, USUAL, None, 2)
    assert status == 70 * 4 + 2
