"""Exact answers from bytes: the same as from the vectors, whatever the data are like.

    index/tiles.py, flat.py -> [test_tiles.py]

The judge is FlatIndex over the same vectors. Data that the bytes tell apart are proven at once;
those that they do not (many near ties, values beyond the range that was learnt) must come out right
all the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soardb import deadline
from soardb.errors import InvalidArgument, TimedOut
from soardb.index import tiles
from soardb.index.flat import FlatIndex, as_compared_queries, exact_search
from soardb.index.ivf import SoarIndex
from soardb.index.live import LiveIndex
from soardb.index.plan import BuildParams
from soardb.index.rows import Rows
from soardb.index.tiles import ByteSearch, as_bitmap, is_cheaper_by_bytes
from soardb.kernels.dispatch import describe
from soardb.kernels.layout import F32, Metric, SearchPlan
from soardb.quantization.scalar import ScalarQuantizer

METRICS = ("cosine", "dot", "l2")


@pytest.fixture(autouse=True)
def any_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are asked however small the data, and whatever this machine is fast at."""
    monkeypatch.setattr(tiles, "pays_exactly", lambda n, d: True)
    for module in ("flat", "ivf", "live"):
        monkeypatch.setattr(f"soardb.index.{module}.pays_exactly", lambda n, d: True)


def clustered(n: int, d: int, spread: float, seed: int = 0) -> F32:
    """Vectors about 40 centres, away from the origin; a tenth of them stand twice."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, d)) + 1
    x = centres[rng.integers(0, 40, n)] + spread * rng.standard_normal((n, d))
    x[-n // 10 :] = x[: n // 10]
    return x.astype(np.float32)


def same_answers(index: SoarIndex, flat: FlatIndex, queries: F32, k: int, threads: int) -> None:
    """The scores of both judges, and the ids of the one whose rows have the same numbers."""
    scores, ids = index.search(queries, k, exact=True, threads=threads)
    by_vectors = exact_search(index._rows, index.metric, queries, k, 1)
    np.testing.assert_array_equal(ids, by_vectors[1])
    for expected in (by_vectors[0], flat.search(queries, k)[0]):
        np.testing.assert_array_equal(scores, expected)


class TestSoarIndexExactly:
    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(("d", "spread"), [(13, 0.5), (100, 0.01), (130, 1.0)])
    def test_answers_as_the_exact_index(
        self, metric: Metric, d: int, spread: float, threads: int
    ) -> None:
        """Also after rows went, and came beyond the range that the bytes were made for."""
        x = clustered(3000, d, spread)
        index, flat = SoarIndex(d, metric, nlist=20), FlatIndex(d, metric)
        index.train(x)
        index.add(x)
        flat.add(x)
        queries = clustered(50, d, spread, seed=1)
        queries[:5] = x[:5]
        same_answers(index, flat, queries, 10, threads)
        for one in (index, flat):
            one.remove(np.arange(0, 300, 2))
            one.add(3 * x[:100], np.arange(5000, 5100))
        same_answers(index, flat, queries, 10, threads)
        same_answers(index, flat, queries[:1], len(flat), threads)

    def test_names_a_bad_query(self) -> None:
        """Like every other search."""
        x = clustered(500, 8, 0.5)
        index = SoarIndex(8, nlist=4)
        index.train(x)
        index.add(x)
        queries = x[:3].copy()
        queries[1] = 0
        with pytest.raises(InvalidArgument, match="zero vector at 1"):
            index.search(queries, 5, exact=True)


class TestFlatIndex:
    @pytest.mark.parametrize("metric", METRICS)
    def test_makes_bytes_once_many_have_asked(self, metric: Metric) -> None:
        """The answers stay the same; a change of the vectors forgets the bytes."""
        x = clustered(2000, 40, 0.5)
        flat = FlatIndex(40, metric)
        flat.add(x)
        few = flat.search(x[:300], 6)
        assert "bytes" not in flat.memory()
        many = flat.search(x[:300], 6)
        assert flat.memory()["bytes"] >= 2000 * 40
        np.testing.assert_array_equal(few[0], many[0])
        np.testing.assert_array_equal(few[1], many[1])
        flat.remove([0])
        assert "bytes" not in flat.memory()


class TestByteSearch:
    def test_proves_what_bytes_tell_apart(self) -> None:
        """Spread-out data are proven by the first candidates: no second look, no vectors."""
        search, x = self.search_of(clustered(4000, 64, 1.0))
        *_, proven = search._attempt(x[:100], 10, 94, None, 1)
        assert proven.mean() > 0.95  # measured 1.0

    @pytest.mark.parametrize("metric", METRICS)
    def test_is_exact_where_nothing_is_proven(self, metric: Metric) -> None:
        """Near ties by the thousand: the vectors decide, and later batches ask more at once."""
        rng = np.random.default_rng(5)
        x = (1 + 1e-4 * rng.standard_normal((6000, 24))).astype(np.float32)
        x[0] = -3  # so that the bytes of all others are the same
        search, x = self.search_of(x, metric)
        queries = as_compared_queries(x[100:140], metric)
        before = search._asked_more
        scores, rows = search.search(queries, 5)
        flat = FlatIndex(24, metric)
        flat.add(x)
        expected, ids = flat.search(queries, 5)
        np.testing.assert_array_equal(rows, ids)
        np.testing.assert_array_equal(scores, expected)
        assert search._asked_more > before

    def test_asks_the_filter_and_counts_on_over_segments(self) -> None:
        """Rows of the second segment are numbered on; those not allowed do not exist."""
        x = clustered(900, 20, 0.5)
        scalar = ScalarQuantizer.train(x)
        parts = [self.rows_of(part, scalar) for part in (x[:700], x[700:])]
        search = ByteSearch(parts, scalar, np.zeros(20, np.float32), "dot")
        allowed = np.sort(np.random.default_rng(6).choice(900, 60, replace=False))
        scores, rows = search.search(x[:30], 9, allowed=as_bitmap(allowed, 900), threads=2)
        every = x[:30] @ x[allowed].T
        expected = np.argsort(-every, axis=1, kind="stable")[:, :9]
        np.testing.assert_allclose(scores, np.take_along_axis(every, expected, axis=1), rtol=1e-5)
        assert set(rows.ravel()) <= set(allowed.tolist())

    def test_sees_rows_that_came_since(self) -> None:
        """The delta grows in place; how far its bytes are off is looked up for what is new."""
        x = clustered(400, 16, 0.5)
        scalar = ScalarQuantizer.train(x)
        rows = self.rows_of(x[:200], scalar)
        search = ByteSearch([rows], scalar, np.zeros(16, np.float32), "dot")
        search.search(x[:2], 3)
        far = 50 * x[200:]
        rows.append(far, np.arange(200, 400), scalar.encode(far, 16))
        assert (search.search(x[:2], 3)[1] >= 200).all()

    def test_keeps_to_the_limit_of_the_call(self) -> None:
        """A batch is cut into pieces with a look at the clock between them."""
        search, x = self.search_of(clustered(2000, 16, 0.5))
        with deadline.within(1e-9), pytest.raises(TimedOut):
            search.search(x[:64], 3)

    @staticmethod
    def rows_of(x: F32, scalar: ScalarQuantizer, has_bias: bool = False) -> Rows:
        stride = -(-x.shape[1] // 16) * 16
        rows = Rows(x.shape[1], stride, has_bias)
        bias = 0.5 * np.square(x).sum(axis=1)
        rows.append(x, np.arange(len(x)), scalar.encode(x, stride), bias)
        return rows

    @classmethod
    def search_of(cls, x: F32, metric: Metric = "cosine") -> tuple[ByteSearch, F32]:
        x = as_compared_queries(x, metric)
        scalar = ScalarQuantizer.train(x)
        rows = cls.rows_of(x, scalar, metric == "l2")
        return ByteSearch([rows], scalar, np.zeros(x.shape[1], np.float32), metric), x


class TestLiveIndex:
    @pytest.mark.parametrize("metric", METRICS)
    def test_exact_over_base_and_delta_and_chosen_rows(self, metric: Metric) -> None:
        """The same rows and scores as from the vectors."""
        x = clustered(1500, 30, 0.5)
        trained = SoarIndex(30, metric, nlist=12)
        trained.train(x)
        live = LiveIndex(30, metric, BuildParams(nlist=12), model=trained._model)
        live.append(live.code(x[:1000]))
        live.append(live.code(x[1000:]))
        rows = np.sort(np.random.default_rng(7).choice(1500, 400, replace=False))
        for chosen in (None, rows):
            got = live.exact(x[:40], 8, chosen, threads=2)
            flat = FlatIndex(30, metric)
            numbers = np.arange(1500) if chosen is None else chosen
            flat.add(x[numbers], numbers)
            scores, ids = flat.search(x[:40], 8)
            np.testing.assert_array_equal(got.rows, ids)
            np.testing.assert_array_equal(got.scores, scores)
            assert got.plan is None


class TestChoice:
    PLAN = SearchPlan(nprobe=60, cellprobe=0, collect=126, rerank=126, refine=20)

    def choose(self, nq: int, n: int, plan: SearchPlan, m: int | None = None) -> bool:
        return is_cheaper_by_bytes(nq, m or n, n, 100, plan, nlist=2000, copies=1, sub_spaces=56)

    def test_follows_the_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All rows where the lists would visit much of them, or few are allowed; never for one."""
        monkeypatch.setattr(tiles, "_RATES", {describe().simd: 700.0})
        assert not self.choose(1024, 330_000, self.PLAN)
        assert self.choose(1024, 330_000, replace(self.PLAN, nprobe=1000))
        assert self.choose(1024, 20_000, self.PLAN)
        assert self.choose(1024, 330_000, self.PLAN, m=10_000)
        assert not self.choose(1, 30_000, self.PLAN)
        assert not self.choose(2, 330_000, replace(self.PLAN, nprobe=300))

    def test_is_by_the_lists_where_the_machine_has_no_tiles(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without AMX or VNNI, bytes gain little over vectors."""
        monkeypatch.setattr(tiles, "_RATES", {})
        assert not self.choose(1024, 30_000, self.PLAN)

    def test_a_batch_that_names_nprobe_visits_lists(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was asked for is done: sweeps over nprobe measure the lists, not the planner."""
        x = clustered(3000, 16, 0.5)
        index = SoarIndex(16, "dot", nlist=30)
        index.train(x)
        index.add(x)
        monkeypatch.setattr("soardb.index.ivf.is_cheaper_by_bytes", lambda *_, **__: True)
        exact = index.search(x[:50], 5, exact=True)[1]
        assert (index.search(x[:50], 5)[1] == exact).all()
        assert not (index.search(x[:50], 5, nprobe=1, rerank=5)[1] == exact).all()
