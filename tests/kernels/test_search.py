"""The fused search: one call a batch, equal to the reference in every id and every score.

    kernels.IvfSearcher -> [test_search.py] <- reference.IvfSearcher, conftest.make_ivf

From the quantised query to the last tie, each step is laid down, so the answers are compared bit
for bit over random indexes of every shape, and the first of them with exact search as well.
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
from soardb.kernels.layout import F32, I64, STATUS, IvfArrays, Metric, SearchPlan

METRICS: tuple[Metric, ...] = get_args(Metric)
DIMS = [1, 2, 7, 8, 31, 64, 100, 128, 768]
PLAN = SearchPlan(nprobe=8, cellprobe=0, collect=60, rerank=40, refine=20)
MakeIvf = Callable[..., IvfArrays]


class Answer(NamedTuple):
    status: int
    scores: F32
    ids: I64


def ask(
    searcher: type[Any], arrays: IvfArrays, queries: F32, k: int, plan: SearchPlan, threads: int = 1
) -> Answer:
    """Answers into arrays that hold rubbish, so that a place left out is seen."""
    scores = np.full((len(queries), k), 7, np.float32)
    ids = np.full((len(queries), k), 7, np.int64)
    status = searcher(arrays).search(queries, k, plan, threads, scores, ids)
    return Answer(status, scores, ids)


def queries_for(arrays: IvfArrays, nq: int, *, integers: bool = False) -> F32:
    rng = np.random.default_rng(99)
    shape = (nq, arrays.vectors.shape[1])
    if integers:
        return rng.integers(-3, 4, shape).astype(np.float32) + np.float32(0.5)
    return rng.standard_normal(shape).astype(np.float32) * 3


@pytest.fixture(scope="module")
def expected() -> Callable[..., Answer]:
    """The reference's answer about an index of `ivf`, computed once for all kernels."""
    known: dict[Any, tuple[IvfArrays, Answer]] = {}

    def of(arrays: IvfArrays, queries: F32, k: int, plan: SearchPlan) -> Answer:
        key = (id(arrays), queries.tobytes(), k, plan)
        if key not in known:  # the index is kept as well, else another could get its id
            known[key] = arrays, ask(reference.IvfSearcher, arrays, queries, k, plan)
        return known[key][1]

    return of


@pytest.fixture(scope="module")
def ivf(make_ivf: MakeIvf) -> MakeIvf:
    """make_ivf, each index made once."""
    return cache(make_ivf)


def agree(left: Answer, right: Answer) -> bool:
    return (
        left.status == right.status
        and np.array_equal(left.ids, right.ids)
        and np.array_equal(left.scores.view(np.int32), right.scores.view(np.int32))
    )


class TestAgreement:
    @pytest.mark.parametrize("is_spilled", [False, True], ids=["once", "spilled"])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("d", DIMS)
    def test_equals_the_reference_in_every_dimension(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        d: int,
        metric: Metric,
        is_spilled: bool,
    ) -> None:
        spec: dict[str, Any] = {"seed": d, "d": d, "metric": metric, "is_spilled": is_spilled}
        arrays = ivf(**spec, m=8 if d < 16 else 16)
        queries = queries_for(arrays, 3)
        answer = expected(arrays, queries, 10, PLAN)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, PLAN), answer)
        assert answer.status == 0

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("m", [8, 16, 56, 96, 264, 1024])
    def test_equals_the_reference_with_any_number_of_subspaces(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        m: int,
        metric: Metric,
    ) -> None:
        arrays = ivf(seed=m, d=100, m=m, metric=metric, is_spilled=True)
        queries = queries_for(arrays, 3)
        answer = expected(arrays, queries, 10, PLAN)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, PLAN), answer)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(("d", "turned"), [(1, 1), (20, 7), (40, 16), (100, 33), (96, 96)])
    def test_equals_the_reference_with_codes_of_turned_dimensions(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        d: int,
        turned: int,
        metric: Metric,
    ) -> None:
        arrays = ivf(seed=d, d=d, m=16, metric=metric, is_spilled=True, turned=turned)
        queries = np.concatenate([queries_for(arrays, 3), np.eye(1, d, dtype=np.float32) * 1e-30])
        answer = expected(arrays, queries, 10, PLAN)
        assert answer.status == 0
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, PLAN), answer)
        plain = replace(arrays, rotation_codes=ivf(seed=d, d=d).rotation_codes)
        if turned == d:  # the rotation is not passed over
            other = replace(plain, rotation_scale=np.empty(0, np.float32))
            assert not agree(ask(kernels.IvfSearcher, other, queries, 10, PLAN), answer)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 33, 1000, 5000])
    def test_equals_the_reference_at_any_size(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        n: int,
        metric: Metric,
    ) -> None:
        """Fewer rows than asked for included: what is missing is id -1, score -inf, status -1."""
        arrays = ivf(seed=n, n=n, nlist=40, metric=metric, is_spilled=True)
        queries = queries_for(arrays, 3)
        answer = expected(arrays, queries, 10, PLAN)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, PLAN), answer)

    @pytest.mark.parametrize("is_spilled", [False, True], ids=["once", "spilled"])
    @pytest.mark.parametrize("metric", METRICS)
    def test_ties_fall_the_same_way(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        metric: Metric,
        is_spilled: bool,
    ) -> None:
        """Whole numbers in few dimensions tie in lists, keys, 8-bit scores and final scores."""
        arrays = ivf(
            seed=5, n=2000, d=3, nlist=60, metric=metric, is_spilled=is_spilled, integers=True
        )
        queries = queries_for(arrays, 20, integers=True)
        plan = SearchPlan(nprobe=25, cellprobe=0, collect=300, rerank=100, refine=50)
        answer = expected(arrays, queries, 30, plan)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 30, plan), answer)
        assert (np.diff(answer.scores, axis=1) == 0).any()

    @pytest.mark.parametrize("cellprobe", [1, 2, 5, 17, 40])
    @pytest.mark.parametrize("ncell", [1, 2, 5, 17])
    def test_two_levels_equal_the_reference(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        ncell: int,
        cellprobe: int,
    ) -> None:
        """One cell is empty, and more cells may be asked for than there are."""
        arrays = ivf(seed=ncell, nlist=90, n=900, d=8, ncell=ncell, metric="l2", is_spilled=True)
        queries = queries_for(arrays, 5)
        plan = replace(PLAN, cellprobe=cellprobe)
        answer = expected(arrays, queries, 10, plan)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, plan), answer)

    @pytest.mark.parametrize(
        "plan",
        [
            SearchPlan(nprobe=1, cellprobe=0, collect=1, rerank=1, refine=1),
            SearchPlan(nprobe=2, cellprobe=0, collect=10, rerank=10, refine=10),
            SearchPlan(nprobe=21, cellprobe=0, collect=5000, rerank=5000, refine=5000),
            SearchPlan(nprobe=21, cellprobe=0, collect=64, rerank=1000, refine=1000),
            SearchPlan(nprobe=1000, cellprobe=0, collect=300, rerank=100, refine=50),
        ],
        ids=lambda plan: f"{plan.nprobe}-{plan.collect}-{plan.refine}",
    )
    def test_plans_equal_the_reference(
        self, kernels: Kernels, ivf: MakeIvf, expected: Callable[..., Answer], plan: SearchPlan
    ) -> None:
        """From one code kept to more than there are; more lists probed than exist."""
        arrays = ivf(seed=1, n=700, is_spilled=True)
        queries = queries_for(arrays, 5)
        k = min(10, plan.refine)
        answer = expected(arrays, queries, k, plan)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, k, plan), answer)

    @pytest.mark.parametrize("is_filtered", [False, True], ids=["all", "filtered"])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("stop", [0.0, 0.1, 0.5, 1.0, 2.0, 1e30])
    def test_passes_over_the_same_lists(
        self, kernels: Kernels, ivf: MakeIvf, stop: float, metric: Metric, is_filtered: bool
    ) -> None:
        """What is passed over follows from exact integers, not from when a pool was cut."""
        arrays = ivf(seed=2, n=4000, nlist=150, d=24, metric=metric, is_spilled=True)
        queries = queries_for(arrays, 12)
        plan = SearchPlan(150, 0, collect=40, rerank=30, refine=20, stop=stop)
        rng = np.random.default_rng(5)
        allowed = np.packbits(rng.random(4000) < 0.3, bitorder="little") if is_filtered else None
        answers = []
        for searcher in (kernels.IvfSearcher(arrays), reference.IvfSearcher(arrays)):
            scores, ids = np.empty((12, 10), np.float32), np.empty((12, 10), np.int64)
            seen = np.empty(12, np.int64)
            searcher.search(queries, 10, plan, 1, scores, ids, allowed, seen)
            answers.append((ids.tolist(), scores.tolist(), seen.tolist()))
        assert answers[0] == answers[1]
        everything = int(arrays.list_count.sum())
        assert (min(answers[0][2]) < everything) == (stop < 1e30)

    def test_one_searcher_after_another(self, kernels: Kernels, ivf: MakeIvf) -> None:
        """Scratch memory outlives a call: a small index after a big one, and back, is unharmed."""
        wide = ivf(seed=768, d=768, m=16, metric="l2", is_spilled=True)
        small = ivf(seed=7, d=7, m=8, metric="cosine", is_spilled=False)
        for arrays in (wide, small, wide, small):
            queries = queries_for(arrays, 2)
            assert agree(
                ask(kernels.IvfSearcher, arrays, queries, 5, PLAN),
                ask(reference.IvfSearcher, arrays, queries, 5, PLAN),
            )

    @pytest.mark.parametrize("nq", [0, 1, 2, 130])
    def test_threads_change_nothing(self, kernels: Kernels, ivf: MakeIvf, nq: int) -> None:
        arrays = ivf(seed=3, n=900, is_spilled=True)
        queries = queries_for(arrays, nq)
        alone = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        assert agree(ask(kernels.IvfSearcher, arrays, queries, 10, PLAN, threads=3), alone)

    def test_arrays_may_lie_anywhere(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        make_shifted: Callable[[npt.NDArray[Any], int], npt.NDArray[Any]],
    ) -> None:
        """Bytes at odd addresses, floats at odd multiples of four: what a mapped file may give."""
        arrays = ivf(seed=4, d=100, m=56, metric="l2", is_spilled=True)
        moved = replace(
            arrays,
            vectors=make_shifted(arrays.vectors, 4),
            centroid_codes=make_shifted(arrays.centroid_codes, 1),
            centroid_bias=make_shifted(arrays.centroid_bias, 12),
            codes=make_shifted(arrays.codes, 3),
            code_rows=make_shifted(arrays.code_rows, 4),
            codebook=make_shifted(arrays.codebook, 20),
            store=make_shifted(arrays.store, 7),
        )
        queries = make_shifted(queries_for(arrays, 3), 4)
        assert agree(
            ask(kernels.IvfSearcher, moved, queries, 10, PLAN),
            expected(arrays, queries, 10, PLAN),
        )

    def test_read_only_arrays_serve_too(
        self, kernels: Kernels, ivf: MakeIvf, expected: Callable[..., Answer]
    ) -> None:
        """A mapped generation is read-only."""
        arrays = ivf(seed=3, n=900, is_spilled=True)
        frozen: dict[str, Any] = {}
        for name in arrays.__slots__:
            value = getattr(arrays, name)
            if isinstance(value, np.ndarray):
                frozen[name] = value.copy()
                frozen[name].flags.writeable = False
        queries = queries_for(arrays, 3)
        assert agree(
            ask(kernels.IvfSearcher, replace(arrays, **frozen), queries, 10, PLAN),
            expected(arrays, queries, 10, PLAN),
        )


class TestAnswers:
    @pytest.mark.parametrize("metric", METRICS)
    def test_a_plan_that_leaves_nothing_out_is_exact_search(
        self, kernels: Kernels, ivf: MakeIvf, metric: Metric
    ) -> None:
        """All lists, all codes, all rows re-ranked: the codes do not matter any more."""
        arrays = ivf(seed=8, n=400, d=31, m=16, metric=metric, is_spilled=True)
        plan = SearchPlan(nprobe=21, cellprobe=0, collect=800, rerank=400, refine=400)
        queries = queries_for(arrays, 5)
        answer = ask(kernels.IvfSearcher, arrays, queries, 10, plan)
        assert answer.status == 0
        if metric == "cosine":
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        vectors = reference.opened(arrays.vectors, None, None)
        scores, rows = reference.exact_topk(vectors, queries, 10, metric)
        assert np.array_equal(answer.ids, arrays.ids[rows])
        np.testing.assert_allclose(answer.scores, scores, rtol=1e-5)

    def test_no_id_comes_twice(self, kernels: Kernels, ivf: MakeIvf) -> None:
        arrays = ivf(seed=9, n=500, is_spilled=True)
        plan = SearchPlan(nprobe=21, cellprobe=0, collect=900, rerank=500, refine=500)
        answer = ask(kernels.IvfSearcher, arrays, queries_for(arrays, 5), 200, plan)
        assert all(len(set(ids)) == 200 for ids in answer.ids.tolist())

    def test_what_is_missing_is_marked(self, kernels: Kernels, ivf: MakeIvf) -> None:
        arrays = ivf(seed=16, n=16, nlist=40, is_spilled=True)
        plan = SearchPlan(nprobe=40, cellprobe=0, collect=60, rerank=40, refine=20)
        answer = ask(kernels.IvfSearcher, arrays, queries_for(arrays, 3), 20, plan)
        assert answer.status == -1
        assert (answer.ids[:, 16:] == -1).all()
        assert (answer.ids[:, :16] >= 0).all()
        assert (answer.scores[:, 16:] == -np.inf).all()


class TestBadQueries:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
    @pytest.mark.parametrize("metric", METRICS)
    def test_one_that_is_not_finite_is_named(
        self, kernels: Kernels, ivf: MakeIvf, metric: Metric, value: float
    ) -> None:
        """So is one whose squared norm is not: no score of it would mean anything."""
        arrays = ivf(seed=2, metric=metric)
        queries = queries_for(arrays, 5)
        queries[3, 17] = value
        answer = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        assert answer.status == 3 * 4 + STATUS.index("not finite")
        assert ask(kernels.IvfSearcher, arrays, queries[3:4], 10, PLAN).status == 1
        assert ask(kernels.IvfSearcher, arrays, queries[:3], 10, PLAN).status == 0

    def test_a_zero_vector_has_no_cosine(self, kernels: Kernels, ivf: MakeIvf) -> None:
        arrays = ivf(seed=2, metric="cosine")
        queries = queries_for(arrays, 4)
        queries[1] = 0
        queries[3] = np.nan
        answer = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        assert answer.status == 1 * 4 + STATUS.index("zero vector")

    @pytest.mark.parametrize("metric", ["dot", "l2"])
    def test_a_zero_vector_is_a_query_elsewhere(
        self, kernels: Kernels, ivf: MakeIvf, expected: Callable[..., Answer], metric: Metric
    ) -> None:
        arrays = ivf(seed=2, metric=metric)
        queries = np.zeros((2, 31), np.float32)
        answer = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        assert agree(answer, expected(arrays, queries, 10, PLAN))
        assert answer.status == 0

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("size", [1e-44, 1e-39, 1e-30, 1e-22, 1e-18, 1e15])
    def test_tiny_and_huge_queries_equal_the_reference(
        self,
        kernels: Kernels,
        ivf: MakeIvf,
        expected: Callable[..., Answer],
        size: float,
        metric: Metric,
    ) -> None:
        """Squares, steps and inverses of steps leave the range of float32 at both of its ends."""
        arrays = ivf(seed=2, metric=metric, is_spilled=True)
        queries = (queries_for(arrays, 3) * size).astype(np.float32)
        answer = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        assert agree(answer, expected(arrays, queries, 10, PLAN))

    @pytest.mark.parametrize("size", [1e-36, 1e-22, 1e-18, 1.0, 1e15])
    @pytest.mark.parametrize("metric", ["cosine", "dot"])
    def test_the_length_of_a_query_does_not_choose_the_answer(
        self, kernels: Kernels, ivf: MakeIvf, metric: Metric, size: float
    ) -> None:
        """Neither ranking depends on it, though the square of 1e-22 is no normal float32."""
        arrays = ivf(seed=2, n=900, d=8, metric=metric, is_spilled=True)
        queries = queries_for(arrays, 5)
        usual = ask(kernels.IvfSearcher, arrays, queries, 10, PLAN)
        answer = ask(kernels.IvfSearcher, arrays, (queries * size).astype(np.float32), 10, PLAN)
        assert np.array_equal(answer.ids, usual.ids)
        scale = 1.0 if metric == "cosine" else size
        np.testing.assert_allclose(answer.scores, usual.scores * scale, rtol=1e-5)

    @pytest.mark.parametrize("bias", [-1e30, -1e9, 1e9, 1e30])
    def test_a_partition_score_of_any_size_fits_its_integer(
        self, kernels: Kernels, ivf: MakeIvf, bias: float
    ) -> None:
        """Far from the data, codes no longer tell lists apart; the bias must not overflow."""
        arrays = ivf(seed=2, metric="l2", is_spilled=True)
        shifted = arrays.centroid_bias + np.float32(bias)
        lopsided = arrays.centroid_bias.copy()
        lopsided[1] = bias
        for centroid_bias in (shifted, lopsided):
            biased = replace(arrays, centroid_bias=centroid_bias)
            queries = queries_for(arrays, 3)
            assert agree(
                ask(kernels.IvfSearcher, biased, queries, 10, PLAN),
                ask(reference.IvfSearcher, biased, queries, 10, PLAN),
            )
