"""Spilled assignment: the theorem, the definition, the corner cases, the gain.

    soardb/soar.py -> [test_soar.py] <- clustering.py (for centroids)

Kernels at every SIMD level are compared in tests/kernels; here is what they have to mean. The paper
is SOAR (Sun et al., NeurIPS 2023).
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.clustering import kmeans
from soardb.kernels.layout import F32, I32
from soardb.soar import nearest, residual_cosine, spill

LAMBDAS = np.array([0.0, 0.5, 1.0, 1.5, 3.0])


def expected_losses(d: int, r: np.ndarray, others: np.ndarray, draws: int) -> np.ndarray:
    """Monte-Carlo estimates of E |cos(q, r)|^lambda <q, r'>^2 for q uniform on the sphere.

    r (d,) of length one, others (m, d). Returns (len(LAMBDAS), m).
    """
    rng = np.random.default_rng(0)
    total = np.zeros((len(LAMBDAS), len(others)))
    for _ in range(0, draws, 20_000):
        q = rng.normal(size=(20_000, d))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        total += np.abs(q @ r) ** LAMBDAS[:, None] @ np.square(q @ others.T)
    return total / draws


class TestTheorem:
    """Theorem 3.1: the loss of a second residual r' is |r'|^2 + lambda |projection of r' on r|^2.

    Up to a factor that is the same for every r', for queries of any direction whose misses of the
    first partition weigh |cos(q, r)|^lambda. It holds in every dimension, not only in the limit.
    """

    @pytest.mark.parametrize("d", [3, 10, 100])
    def test_loss_is_the_squared_length_plus_lambda_times_the_parallel_part(self, d: int) -> None:
        """The ratio of loss to formula is one constant over parallel, orthogonal and other r'."""
        rng = np.random.default_rng(d)
        r = rng.normal(size=d)
        r /= np.linalg.norm(r)
        across = rng.normal(size=(6, d))
        across -= np.outer(across @ r, r)
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        angles = np.radians([0, 20, 45, 60, 80, 90])
        others = np.outer(np.cos(angles), r) + np.sin(angles)[:, None] * across
        others *= np.array([1, 0.5, 2, 1, 3, 1])[:, None]

        losses = expected_losses(d, r, others, draws=400_000)
        formulas = np.square(others).sum(axis=1) + np.outer(LAMBDAS, np.square(others @ r))
        ratios = losses / formulas  # (lambda, r')
        spread = np.abs(ratios / ratios.mean(axis=1, keepdims=True) - 1).max()
        assert spread < 0.01  # measured 0.0048 at worst

    def test_the_wrong_penalty_is_told_apart(self) -> None:
        """The test above has teeth: lambda + 1/2 in the place of lambda misses by far."""
        axes = np.eye(10)
        losses = expected_losses(10, axes[0], axes[:2], draws=100_000)
        wrong = 1 + np.outer(LAMBDAS + 0.5, [1, 0])
        ratios = losses / wrong
        assert (np.abs(ratios[:, 0] / ratios[:, 1] - 1) > 0.1).all()  # measured 0.109 at least


def costs(vectors: F32, centroids: F32, primary: I32, soar_lambda: float) -> np.ndarray:
    """(n, nlist) float64 costs of every partition as a second one, by the definition."""
    x, c = vectors.astype(np.float64), centroids.astype(np.float64)
    r = x - c[primary]
    length = np.linalg.norm(r, axis=1, keepdims=True)
    least = 1e-7 * np.square(x).sum(axis=1, keepdims=True)
    direction = np.where(length**2 <= least, 0, r / np.maximum(length, 1e-30))
    offset = x[:, None, :] - c[None, :, :]
    along = np.einsum("id,ijd->ij", direction, offset)
    result: np.ndarray = np.square(offset).sum(axis=2) + soar_lambda * np.square(along)
    return result


def cloud(n: int, d: int, nlist: int, seed: int) -> tuple[F32, F32]:
    """n vectors and nlist centroids, both standard normal around a common offset."""
    rng = np.random.default_rng(seed)
    both = (rng.normal(size=(n + nlist, d)) + 0.5).astype(np.float32)
    return both[:n], both[n:]


class TestNearest:
    @pytest.mark.parametrize("d", [2, 7, 64, 100])
    def test_equals_brute_force(self, d: int) -> None:
        """In float64, or one that is as good: what is near is found from 8-bit products.

        Native builds miss the nearest of a vector in ten thousand; of these clouds, where all
        distances are alike, of one in a few hundred.
        """
        vectors, centroids = cloud(501, d, 45, seed=d)
        found = nearest(vectors, centroids)
        distances = costs(vectors, centroids, found, 0.0)
        assert found.dtype == np.int32
        assert (distances[np.arange(501), found] <= distances.min(axis=1) * (1 + 1e-2)).all()
        assert (found == distances.argmin(axis=1)).mean() > 0.99

    def test_ties_go_to_the_lower_list(self) -> None:
        """Two machines agree: equal centroids, equal distances."""
        centroids = np.array([[5, 5], [0, 1], [0, -1], [0, 1]], np.float32)
        assert nearest(np.array([[3, 0], [0, 1]], np.float32), centroids).tolist() == [1, 1]


class TestSpill:
    @pytest.mark.parametrize("include_primary", [True, False])
    @pytest.mark.parametrize("soar_lambda", [0.0, 0.3, 1.0, 1.5, 10.0])
    @pytest.mark.parametrize(("d", "nlist"), [(2, 3), (7, 33), (64, 40), (100, 17)])
    def test_equals_the_definition(
        self, d: int, nlist: int, soar_lambda: float, include_primary: bool
    ) -> None:
        """Brute force in float64 over every partition; a tie in float32 may go either way."""
        vectors, centroids = cloud(301, d, nlist, seed=nlist)
        primary = nearest(vectors, centroids)
        found = spill(
            vectors,
            centroids,
            primary,
            soar_lambda=soar_lambda,
            include_primary=include_primary,
        )
        cost = costs(vectors, centroids, primary, soar_lambda)
        if not include_primary:
            cost[np.arange(301), primary] = np.inf
        assert found.dtype == np.int32
        assert (cost[np.arange(301), found] <= cost.min(axis=1) * (1 + 1e-5)).all()
        assert (found == cost.argmin(axis=1)).mean() > 0.995

    def test_spills_nothing_without_a_penalty(self) -> None:
        """At soar_lambda 0 the nearest centroid wins twice, so every vector is stored once."""
        vectors, centroids = cloud(2000, 20, 70, seed=1)
        primary = nearest(vectors, centroids)
        assert (spill(vectors, centroids, primary, soar_lambda=0.0) == primary).all()

    def test_is_the_second_nearest_without_a_penalty_or_the_primary(self) -> None:
        """Plain spilling is the special case that SOAR is measured against."""
        vectors, centroids = cloud(2000, 20, 70, seed=1)
        primary = nearest(vectors, centroids)
        found = spill(vectors, centroids, primary, soar_lambda=0.0, include_primary=False)
        second = np.argsort(costs(vectors, centroids, primary, 0.0), axis=1)[:, 1]
        assert (found == second).mean() > 0.999
        assert (found != primary).all()

    def test_the_scale_of_the_data_changes_nothing(self) -> None:
        """Millimetres or kilometres: the same second partitions."""
        rng = np.random.default_rng(3)
        vectors, centroids = rng.normal(size=(300, 6)), rng.normal(size=(12, 6))
        found = []
        for scale in (1.0, 2.0**-14, 2.0**14):
            x, c = (scale * vectors).astype(np.float32), (scale * centroids).astype(np.float32)
            found.append(spill(x, c, nearest(x, c), soar_lambda=1.5))
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])

    def test_a_bigger_penalty_spills_more(self) -> None:
        """The primary one costs (1 + lambda) |r|^2: it loses the more often the bigger lambda."""
        vectors, centroids = cloud(2000, 20, 70, seed=1)
        primary = nearest(vectors, centroids)
        shares = [
            (spill(vectors, centroids, primary, soar_lambda=x) != primary).mean()
            for x in (0.0, 0.2, 0.5, 1.0, 1.5, 2.5)
        ]
        assert shares == sorted(shares)
        assert shares[0] == 0
        assert shares[-1] > 0.9

    def test_the_primary_one_is_an_argument(self) -> None:
        """It need not be the nearest: AVQ moves centroids after the vectors were assigned."""
        vectors, centroids = cloud(300, 12, 20, seed=4)
        primary = np.random.default_rng(0).integers(0, 20, 300).astype(np.int32)
        found = spill(vectors, centroids, primary, soar_lambda=1.5)
        best = costs(vectors, centroids, primary, 1.5).argmin(axis=1)
        assert (found == best).mean() > 0.995

    @pytest.mark.parametrize("include_primary", [True, False])
    def test_a_vector_on_its_centroid_has_no_direction(self, include_primary: bool) -> None:
        """Residual zero: no NaN, the penalty is nothing and plain distance decides."""
        _, centroids = cloud(1, 9, 30, seed=2)
        vectors = centroids.copy()
        primary = np.arange(30, dtype=np.int32)
        found = spill(vectors, centroids, primary, soar_lambda=1.5, include_primary=include_primary)
        if include_primary:
            assert (found == primary).all()
        else:
            expected = np.argsort(costs(vectors, centroids, primary, 0.0), axis=1)[:, 1]
            assert (found == expected).all()

    @pytest.mark.parametrize("include_primary", [True, False])
    def test_one_partition_leaves_no_choice(self, include_primary: bool) -> None:
        """nlist 1: the primary one again, which means stored once."""
        vectors, centroids = cloud(10, 5, 1, seed=0)
        primary = np.zeros(10, np.int32)
        found = spill(vectors, centroids, primary, include_primary=include_primary)
        assert (found == 0).all()

    def test_of_two_partitions_it_is_the_other(self) -> None:
        """With the primary one excluded, every vector is stored twice."""
        vectors, centroids = cloud(50, 5, 2, seed=0)
        primary = nearest(vectors, centroids)
        found = spill(vectors, centroids, primary, include_primary=False)
        assert (found == 1 - primary).all()

    def test_of_no_vectors(self) -> None:
        """An empty batch is a batch."""
        vectors, centroids = cloud(0, 5, 4, seed=0)
        assert spill(vectors, centroids, nearest(vectors, centroids)).shape == (0,)

    def test_threads_change_nothing(self) -> None:
        """Each vector is decided alone."""
        vectors, centroids = cloud(5000, 16, 64, seed=6)
        primary = nearest(vectors, centroids)
        one = spill(vectors, centroids, primary)
        assert (nearest(vectors, centroids, threads=3) == primary).all()
        assert (spill(vectors, centroids, primary, threads=3) == one).all()


@pytest.fixture(scope="module")
def manifold() -> tuple[F32, F32, I32]:
    """8,000 points on a curved 10-dimensional surface in 32, 80 centroids, the primary lists."""
    rng = np.random.default_rng(8)
    hidden = np.tanh(rng.normal(size=(8000, 10)) @ rng.normal(size=(10, 64)) / 3)
    vectors = (hidden @ rng.normal(size=(64, 32)) / 8).astype(np.float32)
    centroids = kmeans(vectors, 80, seed=0)
    return vectors, centroids, nearest(vectors, centroids)


class TestGain:
    def test_residuals_are_closer_to_orthogonal_than_those_of_the_second_nearest(
        self, manifold: tuple[F32, F32, I32]
    ) -> None:
        """What SOAR is for: the two copies of a vector fail on different queries."""
        vectors, centroids, primary = manifold
        plain = spill(vectors, centroids, primary, soar_lambda=0.0, include_primary=False)
        soar = spill(vectors, centroids, primary, soar_lambda=1.5, include_primary=False)
        before = residual_cosine(vectors, centroids, primary, plain).mean()
        after = residual_cosine(vectors, centroids, primary, soar).mean()
        assert after < 0.85 * before  # measured 0.305 against 0.379

    def test_the_price_is_a_longer_second_residual(self, manifold: tuple[F32, F32, I32]) -> None:
        """Stated, as it bounds how big lambda should be."""
        vectors, centroids, primary = manifold
        lengths = [
            np.square(
                vectors
                - centroids[
                    spill(vectors, centroids, primary, soar_lambda=x, include_primary=False)
                ]
            )
            .sum(axis=1)
            .mean()
            for x in (0.0, 1.5, 6.0)
        ]
        assert lengths == sorted(lengths)
        assert lengths[1] < 1.06 * lengths[0]  # measured 1.033 times

    def test_the_cosine_is_the_correlation_of_the_two_errors(
        self, manifold: tuple[F32, F32, I32]
    ) -> None:
        """For q uniform on the sphere: corr(<q, r>, <q, r'>) = cos(r, r')."""
        vectors, centroids, primary = manifold
        second = spill(vectors, centroids, primary, soar_lambda=1.0, include_primary=False)
        cosine = residual_cosine(vectors, centroids, primary, second)
        q = np.random.default_rng(1).normal(size=(200_000, 32))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        for i in range(0, 8000, 1600):
            r, other = vectors[i] - centroids[primary[i]], vectors[i] - centroids[second[i]]
            correlation = np.corrcoef(q @ r, q @ other)[0, 1]
            assert abs(abs(correlation) - cosine[i]) < 0.01  # measured 0.0021 at worst

    def test_a_zero_residual_counts_as_orthogonal(self) -> None:
        """No 0 / 0."""
        centroids = np.eye(3, dtype=np.float32)
        first = np.zeros(1, np.int32)
        assert residual_cosine(centroids[:1], centroids, first, first + 1).tolist() == [0.0]
