"""k-means and the AVQ update: what the partitions are worth, on friendly and on hard data.

    soardb/clustering.py -> [test_clustering.py]

AVQ is the anisotropic loss of Guo et al. (ICML 2020); its formulas are checked by differentiating
the loss, not by repeating the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from soardb import InvalidArgument
from soardb.clustering import avq_centroids, kmeans
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I32
from soardb.metrics import unit_rows
from soardb.soar import nearest

Init = Literal["random", "kmeans++"]


def blobs(n: int, d: int, places: int, spread: float, seed: int = 0) -> F32:
    """n points around `places` standard normal centres, equally many each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(places, d))
    which = np.arange(n) % places
    return (centres[which] + spread * rng.normal(size=(n, d))).astype(np.float32)


def loss(vectors: F32, centroids: F32) -> float:
    """Mean squared distance to the nearest centroid."""
    difference = vectors - centroids[nearest(vectors, centroids)]
    return float(np.square(difference.astype(np.float64)).sum(axis=1).mean())


def list_sizes(vectors: F32, centroids: F32) -> np.ndarray:
    """How many vectors each list gets."""
    return np.bincount(nearest(vectors, centroids), minlength=len(centroids))


class TestKmeans:
    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    def test_every_centroid_is_the_mean_of_its_list(self, init: Init) -> None:
        """Lloyd's fixed point: after enough rounds, nothing moves."""
        vectors = blobs(600, 8, 6, 0.05)
        centroids = kmeans(vectors, 6, iterations=30, init=init)
        sums, counts = active.list_sums(vectors, nearest(vectors, centroids), 6)
        assert np.allclose(centroids, sums / counts[:, None], atol=1e-5)

    def test_kmeans_plus_plus_finds_separate_blobs(self) -> None:
        """D^2 sampling puts a seed into each of 40 far blobs; random seeds miss many of them."""
        vectors = blobs(4000, 16, 40, 0.02)
        ideal = 16 * 0.02**2
        spread = kmeans(vectors, 40, init="kmeans++", seed=1)
        assert loss(vectors, spread) < 1.5 * ideal  # measured 0.99 times
        plain = kmeans(vectors, 40, init="random", seed=1)
        assert loss(vectors, plain) > 100 * ideal  # measured 251 times

    def test_rounds_lower_the_loss(self) -> None:
        """More iterations cost time and buy a better partition."""
        vectors = np.random.default_rng(1).normal(size=(4000, 12)).astype(np.float32)
        losses = [loss(vectors, kmeans(vectors, 50, iterations=i)) for i in (1, 3, 10)]
        assert losses[0] > losses[1] > losses[2]

    def test_the_same_seed_gives_the_same_centroids(self) -> None:
        """On any number of threads, in any run."""
        vectors = blobs(3000, 8, 30, 0.5)
        inits: tuple[Init, ...] = ("random", "kmeans++")
        for init in inits:
            one = kmeans(vectors, 20, seed=3, init=init)
            two = kmeans(vectors, 20, seed=3, init=init, threads=3)
            other = kmeans(vectors, 20, seed=4, init=init)
            assert np.array_equal(one, two)
            assert not np.array_equal(one, other)

    def test_a_sample_is_enough(self) -> None:
        """points_per_centroid bounds the cost, and costs little in loss."""
        vectors = np.random.default_rng(2).normal(size=(20_000, 8)).astype(np.float32)
        whole = loss(vectors, kmeans(vectors, 40, points_per_centroid=500))
        part = loss(vectors, kmeans(vectors, 40, points_per_centroid=64))
        assert part < 1.05 * whole  # measured 1.020 times

    def test_spherical_centroids_have_unit_length(self) -> None:
        """Directions alone decide; the loss of the cosine is what falls."""
        vectors = blobs(2000, 8, 20, 0.3)
        centroids = kmeans(vectors, 20, spherical=True)
        assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)

    def test_the_result_is_ready_for_the_kernels(self) -> None:
        """Contiguous float32, and the input is left alone."""
        vectors = blobs(500, 6, 5, 0.3)
        before = vectors.copy()
        centroids = kmeans(vectors, 10)
        assert centroids.dtype == np.float32
        assert centroids.shape == (10, 6)
        assert centroids.flags.c_contiguous
        assert np.array_equal(vectors, before)
        assert not np.shares_memory(vectors, centroids)

    def test_progress_rises_to_one(self) -> None:
        """What a progress bar needs."""
        seen: list[tuple[str, float]] = []
        kmeans(blobs(300, 4, 3, 0.1), 3, progress=lambda stage, share: seen.append((stage, share)))
        assert {stage for stage, _ in seen} == {"k-means"}
        shares = [share for _, share in seen]
        assert shares == sorted(shares)
        assert shares[-1] == 1

    @pytest.mark.parametrize("nlist", [0, -1, 11])
    def test_as_many_centroids_as_vectors_at_most(self, nlist: int) -> None:
        """The message names the range."""
        with pytest.raises(InvalidArgument, match=r"nlist within 1\.\.10 .*got"):
            kmeans(blobs(10, 4, 2, 0.1), nlist)

    def test_an_unknown_init_is_refused(self) -> None:
        """Two are known."""
        with pytest.raises(InvalidArgument, match=r"'random' or 'kmeans\+\+', got 'best'"):
            kmeans(blobs(10, 4, 2, 0.1), 2, init="best")  # type: ignore[arg-type]

    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    @pytest.mark.parametrize("n", [1, 2, 17])
    def test_as_many_centroids_as_vectors(self, n: int, init: Init) -> None:
        """Each vector is its own centroid."""
        vectors = blobs(n, 4, n, 0.1)
        centroids = kmeans(vectors, n, init=init)
        assert loss(vectors, centroids) < 1e-12


def far_from_the_origin(rng: np.random.Generator) -> np.ndarray:
    return 1e4 + rng.normal(size=(6000, 16))


def one_giant_blob(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([0.05 * rng.normal(size=(5900, 16)), 10 * rng.normal(size=(100, 16))])


def giant_blob_off_the_origin(rng: np.random.Generator) -> np.ndarray:
    return 100 + one_giant_blob(rng)


def near_duplicates_and_noise(rng: np.random.Generator) -> np.ndarray:
    one = rng.normal(size=(1, 16)) + 1e-3 * rng.normal(size=(4800, 16))
    return unit_rows(np.concatenate([one, rng.normal(size=(1200, 16))]).astype(np.float32))


def line_of_many_scales(rng: np.random.Generator) -> np.ndarray:
    return np.outer(np.exp(3 * rng.normal(size=6000)), np.ones(16))


def unequal_shares(rng: np.random.Generator) -> np.ndarray:
    which = np.minimum(rng.geometric(0.2, 6000) - 1, 29)
    return rng.normal(size=(30, 16))[which] + 0.01 * rng.normal(size=(6000, 16))


HARD: list[Callable[[np.random.Generator], np.ndarray]] = [
    far_from_the_origin,
    one_giant_blob,
    giant_blob_off_the_origin,
    near_duplicates_and_noise,
    line_of_many_scales,
    unequal_shares,
]


class TestHardData:
    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    @pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
    def test_no_list_is_empty_or_giant(
        self, make: Callable[[np.random.Generator], np.ndarray], init: Init
    ) -> None:
        """A giant list is read whole by every query that comes near; an empty one is a lost one."""
        vectors = make(np.random.default_rng(0)).astype(np.float32)
        centroids = kmeans(vectors, 64, seed=1, init=init)
        sizes = list_sizes(vectors, centroids)
        assert len(centroids) == 64
        assert sizes.min() > 0
        assert sizes.max() < 8 * sizes.mean()  # measured 5.9 times at worst

    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    def test_heavy_duplicates_leave_no_list_empty(self, init: Init) -> None:
        """Equal vectors cannot be parted: their list is as big as they are many, no other is."""
        rng = np.random.default_rng(0)
        places = rng.normal(size=(80, 16)).astype(np.float32)
        vectors = np.repeat(places, [4000] + [25] * 79, axis=0)
        centroids = kmeans(vectors, 64, seed=1, init=init)
        sizes = np.sort(list_sizes(vectors, centroids))
        assert len(sizes) > 58  # measured 63 with random seeds, 64 with k-means++
        assert sizes[0] >= 25
        assert sizes[-1] == 4000
        assert sizes[-2] <= 8 * 25  # measured 75

    @pytest.mark.parametrize("places", [1, 2, 10])
    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    def test_fewer_places_than_lists_give_fewer_centroids(self, places: int, init: Init) -> None:
        """Ten places, sixty-four lists asked for: at most ten centroids, none of them twice."""
        vectors = np.repeat(blobs(places, 5, places, 0.1), 300 // places, axis=0)
        centroids = kmeans(vectors, 64, init=init)
        assert len(centroids) <= places
        assert len(np.unique(centroids, axis=0)) == len(centroids)
        assert list_sizes(vectors, centroids).min() > 0

    def test_all_zero(self) -> None:
        """One place, at the origin."""
        centroids = kmeans(np.zeros((100, 4), np.float32), 8)
        assert not centroids.any()
        assert len(centroids) == 1


class TestListSums:
    def test_equals_a_loop(self) -> None:
        """Lists without members sum to zero."""
        vectors = blobs(200, 5, 4, 0.3)
        lists = np.random.default_rng(0).choice([0, 2, 3, 6], 200).astype(np.int32)
        sums, counts = active.list_sums(vectors, lists, 8)
        for j in range(8):
            assert np.allclose(sums[j], vectors[lists == j].sum(axis=0), atol=1e-4)
            assert counts[j] == (lists == j).sum()


def anisotropic_loss(members: np.ndarray, centroid: np.ndarray, eta: float) -> float:
    """Sum of |x|^(eta - 1) * (eta |parallel error|^2 + |orthogonal error|^2), float64."""
    norms = np.linalg.norm(members, axis=1)
    errors = members - centroid
    along = np.einsum("ij,ij->i", errors, members) / norms
    squares = np.square(errors).sum(axis=1)
    return float((norms ** (eta - 1) * (eta * along**2 + squares - along**2)).sum())


def gradient(members: np.ndarray, centroid: np.ndarray, eta: float) -> np.ndarray:
    """By central differences; the loss is quadratic, so they are exact up to rounding."""
    steps = 1e-2 * np.eye(len(centroid))
    return np.array(
        [
            anisotropic_loss(members, centroid + step, eta)
            - anisotropic_loss(members, centroid - step, eta)
            for step in steps
        ]
    ) / (2 * 1e-2)


class TestAvq:
    @pytest.fixture
    def lists(self) -> tuple[F32, I32, F32]:
        """1,200 vectors of very different norms in nine lists, and the centroids of these."""
        rng = np.random.default_rng(5)
        scale = rng.uniform(0.3, 3, size=(1200, 1)).astype(np.float32)
        vectors = blobs(1200, 6, 9, 0.5, seed=5) * scale
        centroids = kmeans(vectors, 9)
        return vectors, nearest(vectors, centroids), centroids

    @pytest.mark.parametrize("eta", [1.0, 1.6, 4.125, 20.0])
    def test_the_gradient_of_the_loss_vanishes(
        self, lists: tuple[F32, I32, F32], eta: float
    ) -> None:
        """Before the one global rescale, every centroid is where its list's loss is least."""
        vectors, assigned, centroids = lists
        moved = avq_centroids(vectors, assigned, centroids, eta).astype(np.float64)
        members = [vectors[assigned == j].astype(np.float64) for j in range(9)]
        # The loss along t * c is a parabola; its lowest point undoes the scale of the first list.
        at = [anisotropic_loss(members[0], t * moved[0], eta) for t in (0.0, 1.0, 2.0)]
        undone = (at[0] - at[1]) / (at[0] - 2 * at[1] + at[2]) + 0.5
        for j in range(9):
            slope = gradient(members[j], undone * moved[j], eta)
            steepest = gradient(members[j], np.zeros(6), eta)
            assert np.linalg.norm(slope) < 1e-4 * np.linalg.norm(steepest)  # measured 6e-8 at worst

    @pytest.mark.parametrize("eta", [1.6, 4.125])
    def test_the_global_scale_is_the_best_one(
        self, lists: tuple[F32, I32, F32], eta: float
    ) -> None:
        """One factor for all centroids, and it minimises the plain squared error."""
        vectors, assigned, centroids = lists
        moved = avq_centroids(vectors, assigned, centroids, eta).astype(np.float64)[assigned]
        x = vectors.astype(np.float64)
        assert np.isclose((x * moved).sum(), np.square(moved).sum(), rtol=1e-6)
        best = np.square(x - moved).sum()
        for factor in (0.99, 1.01):
            assert np.square(x - factor * moved).sum() > best

    def test_eta_one_gives_the_means(self, lists: tuple[F32, I32, F32]) -> None:
        """All weights are |x|^0 and no direction counts more: plain k-means."""
        vectors, assigned, centroids = lists
        sums, counts = active.list_sums(vectors, assigned, 9)
        moved = avq_centroids(vectors, assigned, centroids, 1.0)
        assert np.allclose(moved, sums / counts[:, None], rtol=1e-4, atol=1e-5)

    def test_lowers_the_loss_that_it_is_about(self, lists: tuple[F32, I32, F32]) -> None:
        """Against the means, each of the two at the scale that serves it best."""
        vectors, assigned, centroids = lists
        moved = avq_centroids(vectors, assigned, centroids, 4.0)
        members = [vectors[assigned == j].astype(np.float64) for j in range(9)]

        def best(places: F32) -> float:
            scales = np.linspace(0.5, 2, 61)
            return min(
                sum(anisotropic_loss(members[j], t * places[j], 4.0) for j in range(9))
                for t in scales
            )

        assert best(moved) < 0.95 * best(centroids)  # measured 0.878 times

    def test_the_scale_of_the_vectors_does_not_matter(self, lists: tuple[F32, I32, F32]) -> None:
        """Norms are raised to eta - 1; a big eta must not overflow into NaN."""
        vectors, assigned, centroids = lists
        for eta in (2.0, 300.0, 1e6):
            one = avq_centroids(vectors, assigned, centroids, eta)
            large = avq_centroids(vectors * np.float32(2.0**20), assigned, centroids, eta)
            assert np.isfinite(one).all()
            assert np.allclose(large, one * 2.0**20, rtol=1e-4, atol=2.0**20 * 1e-6)

    def test_a_list_without_members_keeps_its_centroid(self) -> None:
        """Nothing is known of it; zero vectors count as nothing too. Only the scale is shared."""
        vectors = np.array([[1, 1], [1, 2], [0, 0], [0, 0]], np.float32)
        assigned = np.array([0, 0, 2, 2], np.int32)
        centroids = np.array([[1, 1], [3, 4], [5, 6]], np.float32)
        plain = avq_centroids(vectors, assigned, centroids, 1.0)
        assert np.allclose(plain, np.array([[1, 1.5], [3, 4], [5, 6]]))
        moved = avq_centroids(vectors, assigned, centroids, 3.0)
        scale = moved[1, 0] / 3
        assert np.allclose(moved[1:], scale * centroids[1:])

    def test_nothing_but_zeros(self) -> None:
        """No direction, no division by zero."""
        centroids = np.ones((2, 3), np.float32)
        moved = avq_centroids(np.zeros((4, 3), np.float32), np.zeros(4, np.int32), centroids, 2.0)
        assert np.array_equal(moved, centroids)
