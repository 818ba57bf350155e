"""LiveIndex against the definition: a base, what came since, and a bitmap of the rows allowed.

    soardb/index/live.py -> [test_live.py]

Base and delta must be one: the same scores, the same recall, whichever side of the seam a row is
on. The oracle is the definition in float64 (conftest.true_scores), over the rows allowed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soardb import FlatIndex
from soardb.errors import InvalidArgument
from soardb.index import live
from soardb.index.lists import CodeLists
from soardb.index.live import LiveIndex, Searched
from soardb.index.model import Model, as_compared
from soardb.index.plan import BuildParams, choose_build
from soardb.index.rows import Rows
from soardb.kernels.layout import F32, U8, Metric
from soardb.metrics import METRICS
from tests.index.conftest import clustered, true_scores

N, D, NLIST = 1_500, 20, 24

SPLITS = {"all base": 1500, "mostly base": 1200, "half": 750, "all delta": 0}


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    """Every metric in turn."""
    found: Metric = request.param
    return found


@pytest.fixture(params=[0.0, 1.5], ids=["one list", "two lists"])
def soar_lambda(request: pytest.FixtureRequest) -> float:
    """Plain partitions, and spilled ones."""
    return float(request.param)


@pytest.fixture(params=SPLITS)
def n_base(request: pytest.FixtureRequest) -> int:
    """How many of the rows stand in the base."""
    return SPLITS[request.param]


@pytest.fixture
def vectors() -> F32:
    """(N, D) clustered rows."""
    return clustered(N, D, seed=3)


@pytest.fixture
def queries() -> F32:
    """(30, D) near them."""
    return clustered(N + 30, D, seed=3)[N:]


def learnt(vectors: F32, metric: Metric, soar_lambda: float) -> LiveIndex:
    """An empty index with a model."""
    params = BuildParams(nlist=NLIST, soar_lambda=soar_lambda, seed=1)
    choice = choose_build(params, len(vectors), D, metric)
    return LiveIndex(D, metric, params, model=Model.train(vectors, choice, params, metric))


def made(vectors: F32, metric: Metric, soar_lambda: float, n_base: int) -> LiveIndex:
    """Rows in a base and a delta; the delta comes in uneven pieces."""
    empty = learnt(vectors, metric, soar_lambda)
    model = empty.model
    assert model is not None
    base, lists = Rows(D, empty._delta._arrays["store"].shape[1], metric == "l2"), None
    if n_base:
        whole = LiveIndex(D, metric, empty.params, model=model)
        whole.append(whole.code(vectors[:n_base]))
        base, lists = whole._delta, whole._delta_lists
    index = LiveIndex(D, metric, empty.params, model=model, lists=lists, base=base)
    for first, last in ((0, 1), (1, 8), (8, 300), (300, N)):
        piece = vectors[n_base:][first:last]
        if len(piece):
            index.append(index.code(piece))
    return index


def bitmap(keep: np.ndarray) -> U8:
    """Rows allowed, least bit first."""
    return np.packbits(keep, bitorder="little")


def expect(
    found: Searched, vectors: F32, queries: F32, metric: Metric, k: int, keep: np.ndarray
) -> float:
    """Full rows of allowed, distinct ids with exact scores, best first; returns the recall."""
    truth = true_scores(vectors, queries, metric)
    truth[:, ~keep] = -np.inf
    k = min(k, int(keep.sum()))
    assert found.rows.shape == found.scores.shape == (len(queries), k)
    assert (found.rows >= 0).all()
    assert keep[found.rows].all()
    assert all(len(set(row)) == k for row in found.rows.tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert np.allclose(found.scores, np.take_along_axis(truth, found.rows, 1), 1e-4, 1e-4)
    best = np.argsort(-truth, axis=1)[:, :k]
    hits = [len(set(a) & set(b)) for a, b in zip(found.rows.tolist(), best.tolist(), strict=True)]
    return sum(hits) / best.size


class TestSearch:
    def test_base_and_delta_are_one(
        self, vectors: F32, queries: F32, metric: Metric, soar_lambda: float, n_base: int
    ) -> None:
        """With every list visited only 8-bit near-ties may be lost, wherever the seam is."""
        index = made(vectors, metric, soar_lambda, n_base)
        assert (len(index), index.n_base) == (N, n_base)
        found = index.search(queries, 10, nprobe=NLIST, rerank=400, allowed=None)
        recall = expect(found, vectors, queries, metric, 10, np.ones(N, bool))
        assert recall >= 0.99  # measured 1.0

    def test_the_seam_changes_nothing(
        self, vectors: F32, queries: F32, metric: Metric, soar_lambda: float, n_base: int
    ) -> None:
        """The same rows as when all of them are in the delta: same lists, same codes, same plan."""
        one = made(vectors, metric, soar_lambda, 0)
        other = made(vectors, metric, soar_lambda, n_base)
        for nprobe in (2, 8):
            a = one.search(queries, 10, nprobe=nprobe, rerank=100, allowed=None)
            b = other.search(queries, 10, nprobe=nprobe, rerank=100, allowed=None)
            assert np.allclose(a.scores, b.scores, 1e-5, 1e-5)
            assert (a.rows == b.rows).mean() > 0.99
            assert a.scanned == b.scanned

    @pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
    def test_only_allowed_rows_and_enough_of_them(
        self, vectors: F32, queries: F32, metric: Metric, soar_lambda: float, n_base: int,
        share: float,
    ) -> None:  # fmt: skip
        """Tombstones and filters alike: what is left is found, and as much as was asked for."""
        index = made(vectors, metric, soar_lambda, n_base)
        keep = np.random.default_rng(5).random(N) < share
        found = index.search(queries, 10, nprobe=NLIST, rerank=400, allowed=bitmap(keep))
        assert expect(found, vectors, queries, metric, 10, keep) >= 0.99  # measured 1.0

    def test_few_lists_still_give_k(
        self, vectors: F32, queries: F32, metric: Metric, soar_lambda: float, n_base: int
    ) -> None:
        """More are visited until k are there, at last all of them."""
        index = made(vectors, metric, soar_lambda, n_base)
        keep = np.zeros(N, bool)
        keep[np.random.default_rng(6).choice(N, 25, replace=False)] = True
        for k in (1, 10, 25):
            found = index.search(queries, k, nprobe=1, rerank=None, allowed=bitmap(keep))
            expect(found, vectors, queries, metric, k, keep)

    def test_all_rows_can_be_asked_for(
        self, vectors: F32, queries: F32, metric: Metric, soar_lambda: float, n_base: int
    ) -> None:
        """k = n is every row once, by the lists alone."""
        index = made(vectors, metric, soar_lambda, n_base)
        found = index.search(queries[:2], N, nprobe=1, rerank=None, allowed=None)
        assert expect(found, vectors, queries[:2], metric, N, np.ones(N, bool)) == 1.0

    def test_threads_change_nothing(self, vectors: F32, queries: F32) -> None:
        """Neither rows nor scores."""
        index = made(vectors, "dot", 1.5, 750)
        one = index.search(queries, 10, nprobe=4, rerank=None, allowed=None, threads=1)
        four = index.search(queries, 10, nprobe=4, rerank=None, allowed=None, threads=4)
        assert np.array_equal(one.rows, four.rows)
        assert np.array_equal(one.scores, four.scores)


class TestExact:
    def test_it_is_the_flat_index(
        self, vectors: F32, queries: F32, metric: Metric, n_base: int, tmp_path: Path
    ) -> None:
        """Over all rows, base, delta and model or not."""
        flat = FlatIndex(D, metric)
        flat.train(vectors)
        flat.add(vectors)
        scores, ids = flat.search(queries, 20)
        plain = LiveIndex(D, metric, BuildParams())
        plain.append(plain.code(vectors))
        for index in (made(vectors, metric, 0.0, n_base), plain):
            found = index.exact(queries, 20, None)
            assert np.allclose(found.scores, scores, 1e-5, 1e-5)
            assert (found.rows == ids).mean() > 0.99
            assert found.plan is None
            assert found.scanned == N * len(queries)

    @pytest.mark.parametrize("m", [1, 30, 700])
    def test_over_some_rows(
        self, vectors: F32, queries: F32, metric: Metric, n_base: int, m: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Whole and in pieces, as large ones are scored."""
        index = made(vectors, metric, 0.0, n_base)
        rows = np.sort(np.random.default_rng(7).choice(N, m, replace=False))
        keep = np.zeros(N, bool)
        keep[rows] = True
        whole = index.exact(queries, min(10, m), rows)
        assert expect(whole, vectors, queries, metric, 10, keep) == 1.0
        monkeypatch.setattr(live, "_GATHER_BYTES", 4 * D * 13)
        pieces = index.exact(queries, min(10, m), rows)
        assert np.array_equal(pieces.rows, whole.rows)
        assert np.array_equal(pieces.scores, whole.scores)

    def test_equal_scores_by_row(self) -> None:
        """A total order: ties go to the lower row, across pieces and the seam."""
        index = LiveIndex(4, "l2", BuildParams())
        for _ in range(3):
            index.append(index.code(np.ones((5, 4), np.float32)))
        found = index.exact(np.zeros((1, 4), np.float32), 7, None)
        assert found.rows.tolist() == [[0, 1, 2, 3, 4, 5, 6]]

    def test_bad_queries_are_refused(self, vectors: F32) -> None:
        """By the lists and by the scan of all rows."""
        index = made(vectors, "cosine", 0.0, 750)
        for bad in (np.full((1, D), np.nan, np.float32), np.zeros((1, D), np.float32)):
            with pytest.raises(InvalidArgument):
                index.search(bad, 5, nprobe=4, rerank=None, allowed=None)
            with pytest.raises(InvalidArgument):
                index.exact(bad, 5, None)


class TestGrowing:
    def test_a_search_after_each_append_sees_it(self, vectors: F32) -> None:
        """The native view of the arrays follows them when they move, and when they do not."""
        index = learnt(vectors, "l2", 1.5)
        rng = np.random.default_rng(8)
        n = 0
        while n < N:
            m = int(rng.integers(1, 200))
            piece = vectors[n : n + m]
            index.append(index.code(piece))
            n += len(piece)
            found = index.search(vectors[n - 1 : n], 1, nprobe=4, rerank=None, allowed=None)
            assert found.rows.tolist() == [[n - 1]]
            assert found.scores[0, 0] == pytest.approx(0, abs=1e-3)

    def test_vectors_come_back_as_compared(self, vectors: F32, metric: Metric, n_base: int) -> None:
        """Unit length under cosine, untouched elsewhere, from both sides of the seam."""
        index = made(vectors, metric, 0.0, n_base)
        rows = np.random.default_rng(9).permutation(N)[:100]
        assert np.array_equal(index.vectors(rows), as_compared(vectors, metric)[rows])
        assert index.vectors(rows[:0]).shape == (0, D)

    def test_appending_nothing(self, vectors: F32) -> None:
        """Is fine, with a model and without."""
        for index in (learnt(vectors, "dot", 1.5), LiveIndex(D, "dot", BuildParams())):
            index.append(index.code(vectors[:0]))
            assert len(index) == 0


class TestHealth:
    def test_skew_is_longest_over_mean(self, vectors: F32, n_base: int) -> None:
        """Base and delta together."""
        index = made(vectors, "l2", 0.0, n_base)
        counts = np.zeros(NLIST, np.int64)
        for lists in (index._lists, index._delta_lists):
            if isinstance(lists, CodeLists):
                counts += lists.count
        assert counts.sum() == N
        assert index.skew() == pytest.approx(counts.max() / counts.mean())

    def test_residual_is_the_distance_to_the_nearest_centroid(
        self, vectors: F32, metric: Metric, n_base: int
    ) -> None:
        """Which grows when data drift away."""
        index = made(vectors, metric, 0.0, n_base)
        assert index.model is not None
        rows = np.arange(N - 200, N)
        centred = as_compared(vectors[rows], metric) - index.model.mean
        places = index.model.places
        squares = np.square(centred[:, None, :] - places[None]).sum(axis=2).min(axis=1)
        assert index.residual(rows) == pytest.approx(float(squares.mean()), rel=0.02)
        far = LiveIndex(D, metric, index.params, model=index.model)
        far.append(far.code(-vectors[rows] + 3))
        assert far.residual(np.arange(200)) > 1.5 * index.residual(rows)

    def test_memory_tells_base_from_delta(self, vectors: F32) -> None:
        """Only the delta's is not mapped."""
        sizes = made(vectors, "l2", 0.0, 1200).memory()
        assert sizes["base_vectors"] >= 1200 * D * 4
        assert 300 * D * 4 <= sizes["delta_vectors"] < 1200 * D * 4
        assert {"base_codes", "delta_codes", "base_rerank", "delta_rerank"} <= sizes.keys()
