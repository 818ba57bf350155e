"""Vectors kept as bfloat16 or as bytes: every backend opens them to the same float32.

    kernels.IvfSearcher, rescore -> [test_precision.py] <- reference.opened

The oracle is the reference on the same arrays, and besides the reference on an index whose vectors
are what the kept ones stand for, as float32: the form must not be seen in an answer. Under cosine
scores are divided by the lengths of rounded vectors, which is not the same in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I64, IvfArrays, Metric, SearchPlan, Values
from soardb.metrics import unit_rows

METRICS: tuple[Metric, ...] = get_args(Metric)
PLAN = SearchPlan(nprobe=8, cellprobe=0, collect=60, rerank=40, refine=20)
FORMS = ("bfloat16", "int8")
Cut = tuple[IvfArrays, IvfArrays]


def ask(searcher: Any, queries: F32) -> tuple[int, F32, I64]:
    scores = np.full((len(queries), 10), 7, np.float32)
    ids = np.full((len(queries), 10), 7, np.int64)
    status = searcher.search(queries, 10, PLAN, 1, scores, ids)
    return status, scores, ids


def agree(kernels: Kernels, kept: IvfArrays, meant: IvfArrays, queries: F32) -> None:
    """Backend and reference bit for bit, and both with what is meant."""
    expected, got = (
        ask(reference.IvfSearcher(kept), queries),
        ask(kernels.IvfSearcher(kept), queries),
    )
    assert got[0] == expected[0]
    assert got[1].tobytes() == expected[1].tobytes()
    assert got[2].tobytes() == expected[2].tobytes()
    status, scores, ids = ask(reference.IvfSearcher(meant), queries)
    assert status == got[0]
    if kept.metric == "cosine":
        np.testing.assert_allclose(got[1], scores, rtol=1e-5, atol=1e-6)
        assert len(kept.mean) == 1 or (got[2] == ids).mean() > 0.95
    else:
        assert got[1].tobytes() == scores.tobytes()
        assert got[2].tobytes() == ids.tobytes()


def in_form(arrays: IvfArrays, form: str) -> tuple[IvfArrays, IvfArrays]:
    """The index with its vectors in that form, and with the vectors that these stand for."""
    offset = np.random.default_rng(4).standard_normal(len(arrays.mean)).astype(np.float32)
    kept: Values = arrays.store
    if form == "bfloat16":
        kept = (arrays.vectors.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    meant = reference.opened(kept, arrays.store_scale, offset)
    if arrays.metric == "cosine":
        meant = unit_rows(meant)
    return (
        replace(arrays, vectors=kept, vector_offset=offset),
        replace(arrays, vectors=meant),
    )


@pytest.mark.parametrize("form", FORMS)
class TestSearch:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("d", [1, 15, 31, 100])
    def test_answers_are_those_of_what_is_meant(
        self,
        kernels: Kernels,
        make_ivf: Callable[..., IvfArrays],
        metric: Metric,
        d: int,
        form: str,
    ) -> None:
        """Bit for bit, at widths with and without a rest after the lanes."""
        kept, meant = in_form(make_ivf(seed=5, n=300, d=d, metric=metric), form)
        queries = np.random.default_rng(6).standard_normal((4, d)).astype(np.float32)
        agree(kernels, kept, meant, queries)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("n_base", [0, 150, 299])
    def test_the_delta_is_kept_alike(
        self,
        kernels: Kernels,
        make_ivf: Callable[..., IvfArrays],
        split_off: Callable[..., Cut],
        metric: Metric,
        n_base: int,
        form: str,
    ) -> None:
        """Rows of both segments are opened the same way."""
        kept, meant = in_form(make_ivf(seed=3, n=300, metric=metric), form)
        queries = np.random.default_rng(6).standard_normal((4, len(kept.mean))).astype(np.float32)
        two = split_off(kept, n_base)[0]
        if form == "int8":  # the vectors are the 8-bit rows themselves, in the delta too
            two = replace(two, delta_vectors=two.delta_store)
        agree(kernels, two, split_off(meant, n_base)[0], queries)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [3, 16, 70])
def test_candidates_of_all_rows_are_scored_alike(
    kernels: Kernels, d: int, metric: Metric, form: str
) -> None:
    """What an exact search from bytes ends with; rows of the base and of the delta."""
    rng = np.random.default_rng(7)
    scale, offset = (rng.standard_normal(d).astype(np.float32) for _ in range(2))
    if form == "bfloat16":
        numbers = rng.standard_normal((60, d)).astype(np.float32)
        rows: Values = (numbers.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    else:
        rows = rng.integers(0, 256, (60, d + 5)).astype(np.uint8)
    queries = rng.standard_normal((5, d)).astype(np.float32)
    chosen = np.stack([rng.permutation(60)[:30] for _ in range(5)]).astype(np.uint32)
    bounds = np.full((5, 30), np.inf)
    counts, rest = np.full(5, 30), np.full(5, -np.inf)
    given: Any = (queries, metric, chosen, bounds, counts, rest, 8)
    got = kernels.rescore(rows[:40], rows[40:], *given, scale=scale, offset=offset)
    same = reference.rescore(rows[:40], rows[40:], *given, scale=scale, offset=offset)
    assert all(np.array_equal(got[i], same[i]) for i in range(3))
    meant = reference.opened(rows, scale, offset)
    if metric == "cosine":
        meant = unit_rows(meant)
    scores, found, _ = reference.rescore(meant[:40], meant[40:], *given)
    np.testing.assert_allclose(got[0], scores, rtol=1e-5, atol=1e-6)
    assert np.array_equal(got[1], found)
