"""What every index promises, run over each kind of index, metric and SIMD level.

The oracle is the definition in float64 (conftest.true_scores); how an index works is nobody's
business here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soardb import FlatIndex, InvalidArgument, NotTrained, SoarIndex
from soardb.index import INDEXES, Index
from tests.index.conftest import MAKERS, Data, Maker, clustered, filled, true_scores


def test_every_registered_index_is_under_contract() -> None:
    """An index that nobody lists here would be untested."""
    kinds = {type(make(4, "dot")) for make in MAKERS.values()}
    assert kinds == set(INDEXES)


class TestSearch:
    def test_scores_are_exact_for_the_ids_returned(
        self, make: Maker, data: Data, simd: str
    ) -> None:
        """Invariant 5: approximation may choose worse ids, never report a wrong score."""
        index = filled(make, data)
        scores, ids = index.search(data.queries, 10, nprobe=8, rerank=60)
        truth = true_scores(data.vectors, data.queries, data.metric)
        assert np.allclose(scores, np.take_along_axis(truth, ids, 1), rtol=1e-4, atol=1e-4)

    def test_best_first_without_repeats(self, make: Maker, data: Data, simd: str) -> None:
        """Invariant 4: the same id never twice, although it stands in two lists."""
        scores, ids = filled(make, data).search(data.queries, 30, nprobe=12, rerank=200)
        assert (np.diff(scores, axis=1) <= 0).all()
        assert all(len(set(row)) == 30 for row in ids.tolist())

    def test_full_probe_finds_the_true_neighbours(self, make: Maker, data: Data, simd: str) -> None:
        """With every list visited and plenty re-ranked, only 8-bit near-ties may be lost."""
        index = filled(make, data)
        _, ids = index.search(data.queries, 10, nprobe=24, rerank=600)
        truth = true_scores(data.vectors, data.queries, data.metric)
        best = np.argsort(-truth, axis=1)[:, :10]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, best, strict=True)])
        assert recall > 0.99  # measured 1.0

    def test_exact_equals_brute_force(self, make: Maker, data: Data) -> None:
        """exact=True scores every vector, whatever the index."""
        scores, ids = filled(make, data).search(data.queries, 25, exact=True)
        truth = true_scores(data.vectors, data.queries, data.metric)
        best = np.sort(truth, axis=1)[:, ::-1][:, :25]
        assert np.allclose(scores, best, rtol=1e-4, atol=1e-4)
        assert np.allclose(np.take_along_axis(truth, ids, 1), best, rtol=1e-4, atol=1e-4)

    def test_batch_and_threads_change_nothing(self, make: Maker, data: Data) -> None:
        """One call of many queries, on any number of threads, equals many calls of one."""
        index = filled(make, data)
        one = [index.search(q[None], 7, nprobe=6, rerank=50) for q in data.queries]
        for threads in (1, 3):
            scores, ids = index.search(data.queries, 7, nprobe=6, rerank=50, threads=threads)
            assert np.array_equal(ids, np.concatenate([i for _, i in one]))
            assert np.allclose(scores, np.concatenate([s for s, _ in one]), rtol=1e-6)

    def test_k_of_everything_returns_everything(self, make: Maker, data: Data) -> None:
        """min(k, held) rows come back even where the first lists hold fewer: probing widens."""
        index = filled(make, data)
        _, ids = index.search(data.queries[:3], 1500, nprobe=1)
        assert all(sorted(row) == list(range(1500)) for row in ids.tolist())

    def test_no_queries_give_no_rows(self, make: Maker, data: Data) -> None:
        """An empty batch is a batch."""
        scores, ids = filled(make, data).search(np.empty((0, 20), np.float32), 5)
        assert scores.shape == ids.shape == (0, 5)

    def test_ties_go_to_the_lower_id(self, make: Maker) -> None:
        """Two machines, two runs: the same order among equal scores."""
        vectors = np.repeat(clustered(60, 20, seed=5), 20, axis=0)
        ids = np.random.default_rng(0).permutation(1200)
        index = make(20, "l2")
        index.train(vectors)
        index.add(vectors, ids)
        _, found = index.search(vectors[::100], 20, nprobe=24, rerank=600)
        assert (np.diff(found, axis=1) > 0).all()


class TestChange:
    def test_added_is_found_removed_is_not(self, make: Maker, data: Data) -> None:
        """Both copies follow an add and a remove; the rest is untouched."""
        index = filled(make, data)
        extra = clustered(200, 20, seed=11)
        index.add(extra, np.arange(5000, 5200))
        _, ids = index.search(extra, 1, nprobe=24, rerank=600)
        if data.metric != "dot":  # under dot a longer vector may be closer than the same one
            assert (ids[:, 0] >= 5000).mean() > 0.99
        assert index.remove(np.arange(0, 1500, 2)) == 750
        assert index.remove([0, 2, 999_999]) == 0
        assert len(index) == 950
        index.validate()
        _, ids = index.search(data.queries, 950, nprobe=24)
        assert (np.sort(ids, axis=1) == np.r_[1:1500:2, 5000:5200]).all()

    def test_removing_all_empties_it_for_reuse(self, make: Maker, data: Data) -> None:
        """n may fall to 0 and rise again without training."""
        index = filled(make, data)
        index.remove(np.arange(1500))
        assert len(index) == 0
        index.validate()
        with pytest.raises(InvalidArgument, match="empty"):
            index.search(data.queries, 1)
        index.add(data.vectors[:100], np.arange(100))
        index.validate()
        assert len(index) == 100

    def test_ids_are_numbered_on_from_the_highest(self, make: Maker, data: Data) -> None:
        """Without ids a vector takes the next free number."""
        index = make(20, data.metric)
        index.train(data.vectors)
        index.add(data.vectors[:10], np.arange(90, 100))
        index.add(data.vectors[10:12])
        _, ids = index.search(data.queries[:1], 12)
        assert sorted(ids[0]) == list(range(90, 102))

    def test_a_refused_add_changes_nothing(self, make: Maker, data: Data) -> None:
        """All or nothing: a held id, a repeated one or a NaN leaves the index as it was."""
        index = filled(make, data)
        fresh = clustered(3, 20, seed=1)
        bad = fresh.copy()
        bad[2, 4] = np.nan
        for vectors, ids in ((fresh, [2000, 2001, 7]), (fresh, [3000, 3000, 3001])):
            with pytest.raises(InvalidArgument, match="expected"):
                index.add(vectors, ids)
        with pytest.raises(InvalidArgument, match="row 2"):
            index.add(bad, [4000, 4001, 4002])
        assert len(index) == 1500
        index.validate()


class TestStorage:
    def test_a_loaded_index_answers_the_same(self, make: Maker, data: Data, tmp_path: Path) -> None:
        """Bit for bit, and it can be changed afterwards without touching the file."""
        index = filled(make, data, np.arange(1500) * 3)
        index.remove(np.arange(0, 300, 3))
        path = tmp_path / "index.soar"
        index.save(path)
        before = path.read_bytes()
        loaded = type(index).load(path)
        loaded.validate()
        scores, ids = index.search(data.queries, 9, nprobe=5, rerank=80)
        loaded_scores, loaded_ids = loaded.search(data.queries, 9, nprobe=5, rerank=80)
        assert np.array_equal(ids, loaded_ids)
        assert np.array_equal(scores, loaded_scores)
        loaded.add(clustered(50, 20, seed=2), np.arange(9000, 9050))
        assert loaded.remove(np.arange(300, 600, 3)) == 100
        loaded.validate()
        assert path.read_bytes() == before

    def test_the_same_seed_gives_the_same_file(
        self, make: Maker, data: Data, tmp_path: Path
    ) -> None:
        """Same seed, same data, same SIMD level: same index."""
        for name in ("a", "b"):
            filled(make, data).save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class TestBadInput:
    @pytest.fixture
    def index(self, make: Maker) -> Index:
        """A filled index under cosine."""
        return filled(make, Data(clustered(800, 20, seed=3), np.empty(0, np.float32), "cosine"))

    @pytest.mark.parametrize(
        ("queries", "message"),
        [
            (np.zeros((2, 19), np.float32), r"shape \(n, 20\), got \(2, 19\)"),
            (np.ones(20, np.float32), r"queries\[None, :\]"),
            (np.full((1, 20), "x"), "real number type"),
            (np.ones((1, 20), complex), "real number type"),
            (np.full((3, 20), np.nan, np.float32), "query 0"),
            (np.full((1, 20), np.inf), "finite"),
            (np.full((1, 20), 1e300), "finite"),
            (np.zeros((1, 20), np.float32), "zero vector"),
            ([[1.0, 2.0], [3.0]], "array"),
        ],
    )
    def test_bad_queries(self, index: Index, queries: object, message: str) -> None:
        """Each ends in one clear error, never in an answer."""
        with pytest.raises(InvalidArgument, match=message):
            index.search(queries, 3)  # type: ignore[arg-type]

    @pytest.mark.parametrize("k", [0, -1, 801, 2.5, True, "3"])
    def test_bad_k(self, index: Index, k: object) -> None:
        """k beyond what is held is a mistake of the caller's, not a short answer."""
        with pytest.raises(InvalidArgument, match="k"):
            index.search(clustered(1, 20, seed=0), k)  # type: ignore[arg-type]

    @pytest.mark.parametrize("threads", [0, -2, 1.5])
    def test_bad_threads(self, index: Index, threads: object) -> None:
        """Threads are counted from one."""
        with pytest.raises(InvalidArgument, match="threads"):
            index.search(clustered(1, 20, seed=0), 3, threads=threads)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("vectors", "ids", "message"),
        [
            (np.zeros((2, 20), np.float32), None, "zero vector in row 0"),
            (np.ones((2, 7), np.float32), None, "shape"),
            (np.ones((2, 20), np.float32), [1], r"ids of shape \(2,\)"),
            (np.ones((2, 20), np.float32), [1.5, 2.5], "integer ids"),
            (np.ones((2, 20), np.float32), [-1, 5000], "0 or more"),
            (np.ones((2, 20), np.float32), np.array([2**63, 1], np.uint64), r"2\*\*63"),
            (np.full((2, 20), 3e38, np.float32), None, "too large"),
        ],
    )
    def test_bad_additions(
        self, index: Index, vectors: np.ndarray, ids: object, message: str
    ) -> None:
        """Refused whole, with the row that is wrong."""
        with pytest.raises(InvalidArgument, match=message):
            index.add(vectors, ids)  # type: ignore[arg-type]
        assert len(index) == 800


class TestSizes:
    @pytest.mark.parametrize("d", [2, 3, 17, 256, 300])
    @pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
    def test_any_size(self, n: int, d: int, data: Data) -> None:
        """Few vectors, odd dimensions: SOAR over them equals exact search."""
        vectors = clustered(n, d, seed=n)
        index = SoarIndex(d, data.metric, nlist=min(n, 3), soar_lambda=1.0)
        index.train(vectors)
        index.add(vectors)
        index.validate()
        flat = FlatIndex(d, data.metric)
        flat.add(vectors)
        queries = clustered(4, d, seed=99)
        k = min(n, 5)
        scores, _ = index.search(queries, k, nprobe=3, rerank=n)
        assert np.allclose(scores, flat.search(queries, k)[0], rtol=1e-5, atol=1e-5)

    def test_the_widest_dimension(self) -> None:
        """4096 dimensions at 1 a block: 4,096 sub-spaces, far past what 16 bits can add up."""
        vectors = clustered(200, 4096, seed=0)
        index = SoarIndex(4096, "cosine", nlist=4, dims_per_block=1, soar_lambda=1.5)
        index.train(vectors)
        index.add(vectors)
        _, ids = index.search(vectors, 1, nprobe=4, rerank=20)
        assert (ids[:, 0] == np.arange(200)).all()

    @pytest.mark.parametrize("d", [1, 0, -3, 4097, 2.0, "8"])
    def test_refused_dimensions(self, d: object) -> None:
        """d is within 2..4096."""
        for kind in INDEXES:
            with pytest.raises(InvalidArgument, match="d"):
                kind(d, "dot")  # type: ignore[call-arg]


class TestTraining:
    def test_untrained_is_refused(self) -> None:
        """The message says what to call."""
        index = SoarIndex(8, nlist=4)
        for call in (
            lambda: index.add(np.ones((1, 8))),
            lambda: index.search(np.ones((1, 8)), 1),
        ):
            with pytest.raises(NotTrained, match="train"):
                call()

    def test_training_a_filled_index_is_refused(self, make: Maker, data: Data) -> None:
        """SoarIndex would have to code everything anew; it says so."""
        index = filled(make, data)
        if isinstance(index, SoarIndex):
            with pytest.raises(InvalidArgument, match="empty index"):
                index.train(data.vectors)

    def test_progress_ends_at_one(self, make: Maker, data: Data) -> None:
        """Stages are named, shares run up to 1."""
        seen: list[tuple[str, float]] = []
        index = make(20, data.metric)
        index.train(data.vectors, progress=lambda stage, share: seen.append((stage, share)))
        index.add(data.vectors, progress=lambda stage, share: seen.append((stage, share)))
        assert all(0 <= share <= 1 for _, share in seen)
        if isinstance(index, SoarIndex) and index.nlist:
            assert {"k-means", "codebooks", "encode"} <= {stage for stage, _ in seen}
            assert seen[-1][1] == 1
