"""soardb.evaluate: what judges an index is itself judged against loops that cannot be wrong.

    soardb.evaluate -> [test_evaluate.py]

The slow loops here are the specification: one query, one neighbour, one list at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb import evaluate
from soardb.errors import InvalidArgument, Unavailable
from soardb.kernels.layout import F32, I64

METRICS = ["cosine", "dot", "l2"]


def normal(n: int, d: int, seed: int) -> F32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def all_scores(vectors: F32, queries: F32, metric: str) -> npt.NDArray[np.float64]:
    """Every score of every query, in float64, straight from the definition of the metric."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        squares: npt.NDArray[np.float64] = ((q[:, None] - x[None]) ** 2).sum(axis=2)
        return -squares
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    products: npt.NDArray[np.float64] = q @ x.T
    return products


class TestGroundTruth:
    @pytest.mark.parametrize("metric", METRICS)
    def test_equals_sorting_all_scores(self, metric: str) -> None:
        vectors, queries = normal(500, 17, 0), normal(20, 17, 1)
        scores, rows = evaluate.ground_truth(vectors, queries, 10, metric)
        every = all_scores(vectors, queries, metric)
        expected = np.argsort(-every, axis=1, kind="stable")[:, :10]
        assert np.array_equal(rows, expected)
        np.testing.assert_allclose(scores, np.take_along_axis(every, expected, axis=1), rtol=1e-6)
        assert scores.dtype == np.float32
        assert rows.dtype == np.int64

    @pytest.mark.parametrize("metric", METRICS)
    def test_equal_points_score_equal_and_the_lower_row_comes_first(self, metric: str) -> None:
        """Recall with ties rests on this: copies of one vector must not differ in the last bit."""
        vectors = np.tile(normal(50, 31, 2), (4, 1))
        scores, rows = evaluate.ground_truth(vectors, normal(10, 31, 3), 4, metric)
        assert (scores == scores[:, :1]).all()
        assert np.array_equal(rows, rows[:, :1] + 50 * np.arange(4))

    def test_of_all_vectors(self) -> None:
        vectors = normal(5, 3, 0)
        _, rows = evaluate.ground_truth(vectors, vectors, 5, "l2")
        assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(5), (5, 1)))
        assert np.array_equal(rows[:, 0], np.arange(5))

    @pytest.mark.parametrize("k", [0, -1, 6])
    def test_refuses_more_neighbours_than_there_are(self, k: int) -> None:
        with pytest.raises(InvalidArgument, match=r"1\.\.5"):
            evaluate.ground_truth(normal(5, 3, 0), normal(2, 3, 1), k, "dot")

    def test_refuses_bad_input(self) -> None:
        vectors, queries = normal(5, 3, 0), normal(2, 3, 1)
        holed, blank = vectors.copy(), vectors.copy()
        holed[2, 1] = np.nan
        blank[2] = 0
        with pytest.raises(InvalidArgument):
            evaluate.ground_truth(vectors, queries[:, :2], 1, "dot")
        with pytest.raises(InvalidArgument):
            evaluate.ground_truth(holed, queries, 1, "dot")
        with pytest.raises(InvalidArgument):
            evaluate.ground_truth(blank, queries, 1, "cosine")
        with pytest.raises(InvalidArgument, match="hamming"):
            evaluate.ground_truth(vectors, queries, 1, "hamming")


class TestExactScores:
    @pytest.mark.parametrize("metric", METRICS)
    def test_equals_the_definition(self, metric: str) -> None:
        vectors, queries = normal(60, 9, 0), normal(7, 9, 1)
        rows = np.random.default_rng(2).integers(0, 60, (7, 5))
        found = evaluate.exact_scores(vectors, queries, rows, metric)
        expected = np.take_along_axis(all_scores(vectors, queries, metric), rows, axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)

    def test_nothing_found_scores_minus_infinity(self) -> None:
        rows = np.array([[0, -1], [-1, -1]])
        found = evaluate.exact_scores(normal(3, 2, 0), normal(2, 2, 1), rows, "dot")
        assert np.isfinite(found[0, 0])
        assert np.isneginf(found[[0, 1, 1], [1, 0, 1]]).all()

    def test_ids_that_are_no_rows(self) -> None:
        with pytest.raises(InvalidArgument, match="map the ids"):
            evaluate.exact_scores(normal(3, 2, 0), normal(1, 2, 1), np.array([[3]]), "dot")


class TestRecall:
    TRUE = np.array([[9, 8, 7, 7, 1]], dtype=np.float32)

    def recall(self, scores: list[float], ids: list[int], k: int) -> float:
        return evaluate.recall_at_k(
            np.array([scores], dtype=np.float32), np.array([ids]), self.TRUE, k
        ).mean

    def test_all_found(self) -> None:
        assert self.recall([9, 8, 7], [4, 5, 6], 3) == 1

    def test_points_of_equal_score_are_interchangeable(self) -> None:
        """Two points tie for third place; whichever came back, nothing was missed."""
        assert self.recall([9, 8, 7], [4, 5, 66], 3) == 1

    def test_order_does_not_matter_within_k(self) -> None:
        assert self.recall([7, 9, 8], [6, 4, 5], 3) == 1

    def test_what_comes_after_k_does_not_count(self) -> None:
        assert self.recall([1, 9, 8], [1, 4, 5], 2) == 0.5

    def test_padding_never_counts(self) -> None:
        """Not even with a score that would do."""
        assert self.recall([9, 9, 9], [4, -1, -1], 3) == pytest.approx(1 / 3)

    def test_a_repeated_id_counts_once(self) -> None:
        assert self.recall([9, 9, 9], [4, 4, 4], 3) == pytest.approx(1 / 3)

    def test_too_short_an_answer_is_a_partial_one(self) -> None:
        assert self.recall([9], [4], 2) == 0.5

    def test_tolerance_covers_rounding_only(self) -> None:
        assert self.recall([9, np.nextafter(np.float32(8), np.float32(0))], [4, 5], 2) == 1
        assert self.recall([9, 7.999], [4, 5], 2) == 0.5

    def test_tolerance_follows_the_scale_of_the_scores(self) -> None:
        """Tiny vectors have tiny scores; an absolute tolerance would call everything found."""
        true = np.array([[-1e-12, -2e-12]], dtype=np.float32)
        found = evaluate.recall_at_k(np.array([[-1e-12, -3e-12]]), np.array([[0, 1]]), true, 2)
        assert found.mean == 0.5

    def test_a_share_of_those_that_exist(self) -> None:
        """Behind a filter fewer than k points may match; no point at all is nothing missed."""
        true = np.array([[3, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
        scores = np.array([[3, -np.inf], [-np.inf, -np.inf]], dtype=np.float32)
        found = evaluate.recall_at_k(scores, np.array([[1, -1], [-1, -1]]), true, 2)
        assert found.per_query.tolist() == [1, 1]

    def test_one_value_a_query(self) -> None:
        true = np.array([[3, 2], [3, 2]], dtype=np.float32)
        scores = np.array([[3, 2], [2, 1]], dtype=np.float32)
        found = evaluate.recall_at_k(scores, np.array([[1, 2], [3, 4]]), true, 2)
        assert found.per_query.tolist() == [1, 0.5]
        assert found.mean == 0.75

    def test_shapes_that_do_not_fit(self) -> None:
        ids, scores = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32)
        for wrong in ((scores[:1], ids, scores, 2), (scores, ids, scores[:1], 2)):
            with pytest.raises(InvalidArgument, match="shape"):
                evaluate.recall_at_k(*wrong)
        with pytest.raises(InvalidArgument, match=r"1\.\.3"):
            evaluate.recall_at_k(scores, ids, scores, 4)

    @given(seed=st.integers(0, 10_000), k=st.integers(1, 8))
    @settings(max_examples=60, deadline=None)
    def test_equals_counting_one_by_one(self, seed: int, k: int) -> None:
        """Few distinct values, so that ties, repetitions and padding are everywhere."""
        rng = np.random.default_rng(seed)
        points = rng.integers(0, 6, 12).astype(np.float32)  # the score of each of 12 points
        true = -np.sort(-points)[None, :8]
        ids = rng.integers(-1, 12, (1, 8))
        scores = np.where(ids >= 0, points[ids], -np.inf).astype(np.float32)
        hits = {int(i) for i in ids[0, :k] if i >= 0 and points[i] >= true[0, k - 1]}
        found = evaluate.recall_at_k(scores, ids, true, k)
        assert found.mean == pytest.approx(len(hits) / k)


@pytest.fixture(scope="module")
def spilled_set() -> tuple[F32, F32, I64, F32]:
    """(vectors, centroids, (n, 2) partitions, queries): some vectors are stored once."""
    vectors, centroids = normal(300, 6, 0), normal(12, 6, 1)
    nearest = np.argsort(((vectors[:, None] - centroids[None]) ** 2).sum(2), axis=1)[:, :2]
    nearest[::3, 1] = nearest[::3, 0]
    return vectors, centroids, nearest.astype(np.int64), normal(15, 6, 2)


class TestKMeansRecall:
    @pytest.mark.parametrize("metric", METRICS)
    def test_equals_visiting_lists_one_by_one(
        self,
        metric: str,
        spilled_set: tuple[F32, F32, I64, F32],
    ) -> None:
        vectors, centroids, partitions, queries = spilled_set
        _, true_rows = evaluate.ground_truth(vectors, queries, 4, metric)
        found = evaluate.kmeans_recall(centroids, partitions, queries, true_rows, metric)

        lists = [set(np.flatnonzero((partitions == p).any(axis=1))) for p in range(12)]
        ranking = all_scores(centroids, queries, "l2" if metric == "l2" else "dot")
        for t in range(1, 13):
            shares, points = [], []
            for ranked, rows in zip(np.argsort(-ranking, axis=1), true_rows, strict=True):
                visited = [lists[p] for p in ranked[:t]]
                shares.append(np.mean([row in set().union(*visited) for row in rows]))
                points.append(sum(len(members) for members in visited))
            assert found.nprobe[t - 1] == t
            assert found.recall[t - 1] == pytest.approx(np.mean(shares))
            assert found.points_read[t - 1] == pytest.approx(np.mean(points))

    def test_every_list_holds_every_copy(self, spilled_set: tuple[F32, F32, I64, F32]) -> None:
        """In the end all is found, and both copies of a spilled vector have been read."""
        vectors, centroids, partitions, queries = spilled_set
        rows = np.tile(np.arange(10), (15, 1))
        spilled = int((partitions[:, 0] != partitions[:, 1]).sum())
        whole = evaluate.kmeans_recall(centroids, partitions, queries, rows)
        plain = evaluate.kmeans_recall(centroids, partitions[:, 0], queries, rows)
        assert whole.recall[-1] == plain.recall[-1] == 1
        assert whole.points_read[-1] == len(vectors) + spilled
        assert plain.points_read[-1] == len(vectors)

    def test_no_copy_and_a_repeated_one_are_the_same(
        self, spilled_set: tuple[F32, F32, I64, F32]
    ) -> None:
        _, centroids, partitions, queries = spilled_set
        rows = np.tile(np.arange(10), (15, 1))
        absent = partitions.copy()
        absent[::3, 1] = -1
        one = evaluate.kmeans_recall(centroids, partitions, queries, rows)
        other = evaluate.kmeans_recall(centroids, absent, queries, rows)
        assert np.array_equal(one.points_read, other.points_read)
        assert np.array_equal(one.recall, other.recall)

    def test_points_read_at_a_recall_between_two_steps(self) -> None:
        curve = evaluate.KMeansRecall(
            np.array([1, 2, 3]), np.array([10.0, 30.0, 60.0]), np.array([0.5, 0.9, 0.98])
        )
        assert curve.points_read_at(0.9) == 30
        assert curve.points_read_at(0.7) == pytest.approx(20)
        assert curve.points_read_at(0.2) == 10
        with pytest.raises(InvalidArgument, match=r"0\.98"):
            curve.points_read_at(0.99)
        with pytest.raises(InvalidArgument):
            curve.points_read_at(90)

    def test_rows_and_partitions_out_of_range(self) -> None:
        centroids, queries = normal(3, 2, 0), normal(1, 2, 1)
        with pytest.raises(InvalidArgument, match="true_rows"):
            evaluate.kmeans_recall(centroids, np.array([0, 1]), queries, np.array([[2]]))
        with pytest.raises(InvalidArgument, match="partitions"):
            evaluate.kmeans_recall(centroids, np.array([0, 3]), queries, np.array([[1]]))
        with pytest.raises(InvalidArgument, match="metric"):
            evaluate.kmeans_recall(centroids, np.array([0]), queries, np.array([[0]]), "hamming")


class TestResidualAngles:
    def test_known_angles(self) -> None:
        """One vector between three centroids: opposite, right angle, and not spilled."""
        vectors = np.zeros((3, 2), np.float32)
        centroids = np.array([[1, 0], [-2, 0], [0, 3]], dtype=np.float32)
        found = evaluate.residual_angles(
            vectors, centroids, np.array([0, 0, 0]), np.array([1, 2, 0])
        )
        assert found.cosines.tolist() == pytest.approx([-1, 0])
        assert found.spilled_fraction == pytest.approx(2 / 3)
        assert found.mean_abs == pytest.approx(0.5)

    def test_a_vector_upon_its_centroid_has_no_angle(self) -> None:
        """A zero residual must not become a nan."""
        vectors, centroids = np.ones((1, 2), np.float32), np.array([[1, 1], [0, 1]], np.float32)
        found = evaluate.residual_angles(vectors, centroids, np.array([0]), np.array([1]))
        assert found.cosines.size == 0
        assert found.spilled_fraction == 1

    def test_nothing_spilled(self) -> None:
        vectors = normal(4, 2, 0)
        found = evaluate.residual_angles(vectors, vectors, np.arange(4), np.array([0, 1, -1, -1]))
        assert found.spilled_fraction == 0
        assert np.isnan(found.mean_abs)

    @pytest.mark.parametrize("cosine", [-0.6, 0.0, 0.3, 0.9])
    def test_on_the_sphere_the_correlation_is_the_cosine(self, cosine: float) -> None:
        """SOAR paper, section 3: for q uniform on the sphere, corr(<q,r>, <q,r'>) = cos(r, r')."""
        centroids = np.array([[1, 0, 0, 0], [cosine, (1 - cosine**2) ** 0.5, 0, 0]], np.float32)
        vectors = np.zeros((1, 4), np.float32)
        queries = normal(200_000, 4, 0)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        primary, spilled = np.array([0]), np.array([1])
        errors = evaluate.score_errors(
            vectors, centroids, primary, spilled, queries, np.zeros((len(queries), 1), np.int64)
        )
        angles = evaluate.residual_angles(vectors, centroids, primary, spilled)
        assert angles.cosines[0] == pytest.approx(cosine, abs=1e-6)
        assert errors.correlation == pytest.approx(cosine, abs=0.01)

    def test_score_errors_equal_the_definition(
        self, spilled_set: tuple[F32, F32, I64, F32]
    ) -> None:
        vectors, centroids, partitions, queries = spilled_set
        rows = np.random.default_rng(0).integers(0, 300, (15, 3))
        primary, spilled = partitions[:, 0], partitions[:, 1]
        found = evaluate.score_errors(vectors, centroids, primary, spilled, queries, rows)
        pairs = [(q, x) for q in range(15) for x in rows[q] if primary[x] != spilled[x]]
        for values, partition in ((found.primary, primary), (found.spilled, spilled)):
            expected = [queries[q] @ (vectors[x] - centroids[partition[x]]) for q, x in pairs]
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)

    def test_no_pair_no_correlation(self) -> None:
        empty = evaluate.ScoreErrors(np.empty(0), np.empty(0))
        assert np.isnan(empty.correlation)


class FixedIndex:
    """The least that memory accounting asks of an index."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def memory(self) -> dict[str, int]:
        return {"codes": 250, "centroids": 50}


class TestMemory:
    def test_parts_and_their_sum(self) -> None:
        found = evaluate.bytes_per_vector(FixedIndex(10))
        assert found == {"codes": 25, "centroids": 5, "total": 30}
        assert list(found)[-1] == "total"

    def test_an_empty_index_has_none(self) -> None:
        with pytest.raises(InvalidArgument, match="empty"):
            evaluate.bytes_per_vector(FixedIndex(0))


class TestTimeQueries:
    def test_every_query_is_asked_alone_and_in_order(self) -> None:
        asked: list[float] = []

        def search(query: F32) -> tuple[F32, I64]:
            assert query.shape == (1, 2)
            asked.append(float(query[0, 0]))
            return query[:, :1], np.array([[int(query[0, 0])]])

        queries = np.arange(100, dtype=np.float32).reshape(50, 2)
        found = evaluate.time_queries(search, queries, repeats=2)
        assert found.ids[:, 0].tolist() == queries[:, 0].tolist()
        assert asked[-100:] == [*queries[:, 0], *queries[:, 0]]
        assert found.latency_ms.shape == (2, 50)

    def test_figures_follow_from_the_latencies(self) -> None:
        latency_ms = np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 4.0]])
        found = evaluate.Timing(np.zeros((2, 1), np.int64), latency_ms)
        assert found.qps == 500
        assert found.qps_spread == (250, 500)
        assert found.p50_ms == 2.5
        assert found.p50_ms < found.p99_ms <= 4

    def test_no_query_no_time(self) -> None:
        with pytest.raises(InvalidArgument):
            evaluate.time_queries(lambda q: (q, q.astype(np.int64)), np.empty((0, 2), np.float32))


class TestPlots:
    CURVE = evaluate.KMeansRecall(
        np.arange(1, 5), np.array([10.0, 20, 40, 80]), np.array([0.6, 0.9, 0.995, 1.0])
    )
    ANGLES = evaluate.ResidualAngles(np.linspace(-1, 1, 50), 0.5)

    @pytest.mark.parametrize("suffix", ["png", "svg"])
    def test_each_figure_is_written(self, tmp_path: Path, suffix: str) -> None:
        pytest.importorskip("matplotlib")
        one, two = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
        three, four = tmp_path / f"3.{suffix}", tmp_path / f"4.{suffix}"
        evaluate.plot_kmeans_recall({"plain": self.CURVE}, one, title="t")
        evaluate.plot_recall_qps({"x": ([0.99, 0.8], [100, 900]), "y": ([1.0], [5])}, two)
        evaluate.plot_residual_angles({"SOAR": self.ANGLES}, three)
        evaluate.plot_memory({"a": {"codes": 5, "total": 5}, "b": {"ids": 8, "codes": 1}}, four)
        assert all(file.stat().st_size > 1000 for file in (one, two, three, four))

    def test_lines_carry_the_names(self) -> None:
        pytest.importorskip("matplotlib")
        figure = evaluate.plot_kmeans_recall({"plain": self.CURVE, "SOAR": self.CURVE})
        _, labels = figure.axes[0].get_legend_handles_labels()
        assert labels == ["plain", "SOAR"]

    def test_the_bar_ends_at_the_total(self) -> None:
        pytest.importorskip("matplotlib")
        figure = evaluate.plot_memory({"a": {"codes": 5.0, "ids": 3.0, "total": 8.0}})
        assert [text.get_text().strip() for text in figure.axes[0].texts] == ["8.0"]

    def test_without_matplotlib_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(Unavailable, match=r"soardb\[plot\]"):
            evaluate.plot_memory({"a": {"codes": 1.0}})
