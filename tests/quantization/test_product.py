"""Product quantization: sub-spaces, noise-shaped codes, the additive term of l2.

    soardb/quantization/product.py -> [test_product.py]

The coordinate descent itself is compared with the specification in tests/kernels; here is what its
codes are good for. AVQ is Guo et al., ICML 2020.
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.kernels.layout import F32, U8
from soardb.metrics import unit_rows
from soardb.quantization.product import ProductQuantizer, anisotropic_eta, block_count


class TestBlocks:
    @pytest.mark.parametrize("has_term", [False, True])
    @pytest.mark.parametrize("dims_per_block", [1, 2, 3, 4, 7, 64])
    @pytest.mark.parametrize("d", [2, 3, 8, 17, 50, 100, 128, 300, 768])
    def test_every_dimension_is_covered_once(
        self, d: int, dims_per_block: int, has_term: bool
    ) -> None:
        """Widths differ by at most one and stay within what was asked for; m fills whole lines."""
        residuals = np.random.default_rng(0).normal(size=(20, d)).astype(np.float32)
        product = ProductQuantizer.train(residuals, dims_per_block, has_term=has_term, iterations=1)
        dims = product.block_dims.astype(int)
        widths = np.diff(dims)[: block_count(d, dims_per_block, has_term)]
        assert product.m % 8 == 0
        assert product.m == len(dims) - 1 == block_count(d, dims_per_block, has_term) + 2 * has_term
        assert dims[0] == 0
        assert widths.sum() == d
        assert dims[-1] == d + 2 * has_term
        assert widths.min() >= 0
        assert widths.max() <= dims_per_block
        assert widths.max() - widths.min() <= 1
        assert product.codebook.shape == (product.m, max(widths.max(), 1), 16)
        assert product.codebook.dtype == np.float32
        assert product.block_dims.dtype == np.int32

    def test_no_sub_space_more_than_whole_lines_need(self) -> None:
        """Fifty sub-spaces of two dimensions are rounded up to fifty-six, no further."""
        assert block_count(100, 2, has_term=False) == 56
        assert block_count(100, 2, has_term=True) + 2 == 56
        assert block_count(64, 2, has_term=False) == 32
        assert block_count(64, 2, has_term=True) + 2 == 40


class TestEta:
    def test_the_value_of_the_paper(self) -> None:
        """d = 100, unit vectors, T = 0.2: 4.125, as the paper and ScaNN have it."""
        eta = anisotropic_eta(np.ones(1, np.float32), 100, 0.2, 1.0)
        assert eta.dtype == np.float32
        assert eta[0] == pytest.approx(4.125, rel=1e-6)

    @pytest.mark.parametrize(("d", "expected"), [(50, 2.0417), (100, 4.125), (768, 31.958)])
    def test_grows_with_the_dimension(self, d: int, expected: float) -> None:
        """(d - 1) T^2 / (1 - T^2)."""
        assert anisotropic_eta(np.ones(1, np.float32), d, 0.2, 1.0)[0] == pytest.approx(
            expected, rel=1e-4
        )

    def test_equals_the_formula(self) -> None:
        """(d - 1) t / (1 - t), t = (T / |x|)^2 with T a share of the typical norm."""
        norms = np.array([0.5, 1, 2, 3, 10], np.float32)
        t = (0.2 * 1.7 / norms.astype(np.float64)) ** 2
        expected = np.maximum(127 * t / (1 - t), 1)
        assert np.allclose(anisotropic_eta(norms, 128, 0.2, 1.7)[1:], expected[1:], rtol=1e-5)

    def test_short_vectors_are_capped(self) -> None:
        """Below twice the threshold the limit form runs away; a zero vector gives no NaN."""
        norms = np.array([0.4, 0.2, 0.1, 1e-20, 1e-45, 0], np.float32)
        eta = anisotropic_eta(norms, 31, 0.2, 1.0)
        assert np.allclose(eta, 10.0)  # (31 - 1) / 3

    def test_never_below_one(self) -> None:
        """Parallel error never counts less; without a threshold the codes are plain."""
        norms = np.array([0, 1, 1e6], np.float32)
        assert (anisotropic_eta(norms, 100, 0.0, 1.0) == 1).all()
        assert anisotropic_eta(norms, 100, 0.2, 1.0)[2] == 1
        assert (anisotropic_eta(norms, 100, 0.2, 0.0) == 1).all()

    @pytest.mark.parametrize("size", [1e-18, 1e18])
    def test_has_no_unit(self, size: float) -> None:
        """Vectors and typical norm scaled together: the same weights."""
        norms = np.array([0.1, 0.9, 1.3], np.float32)
        assert np.allclose(
            anisotropic_eta(norms * np.float32(size), 64, 0.2, size),
            anisotropic_eta(norms, 64, 0.2, 1.0),
            rtol=1e-4,
        )


@pytest.fixture(scope="module")
def vectors() -> F32:
    """(3000, 30) unit vectors on a curved surface; correlated dimensions, as embeddings have."""
    rng = np.random.default_rng(4)
    hidden = np.tanh(rng.normal(size=(3000, 8)) @ rng.normal(size=(8, 30)) / 2)
    return unit_rows((hidden + 0.2 * rng.normal(size=(3000, 30))).astype(np.float32))


@pytest.fixture(scope="module")
def product(vectors: F32) -> ProductQuantizer:
    """Fifteen pairs of dimensions, sixteen sub-spaces."""
    return ProductQuantizer.train(vectors - vectors.mean(axis=0), 2, has_term=False)


class TestTraining:
    def test_rounds_lower_the_error(self, vectors: F32) -> None:
        """k-means in every sub-space."""
        errors = []
        for iterations in (1, 4, 12):
            trained = ProductQuantizer.train(vectors, 2, has_term=False, iterations=iterations)
            error = vectors - trained.decode(trained.encode(vectors))
            errors.append(np.square(error).sum(axis=1).mean())
        assert errors[0] > errors[1] > errors[2]

    def test_the_same_seed_gives_the_same_codebook(self, vectors: F32) -> None:
        """On any number of threads."""
        one = ProductQuantizer.train(vectors, 2, has_term=True, seed=5)
        two = ProductQuantizer.train(vectors, 2, has_term=True, seed=5, threads=2)
        other = ProductQuantizer.train(vectors, 2, has_term=True, seed=6)
        assert np.array_equal(one.codebook, two.codebook)
        assert not np.array_equal(one.codebook, other.codebook)

    def test_no_centre_is_lost(self, vectors: F32) -> None:
        """A centre that no residual is nearest to starts again: all sixteen are used."""
        trained = ProductQuantizer.train(vectors, 2, has_term=False)
        codes = trained.encode(vectors)
        assert all(len(np.unique(codes[:, b])) == 16 for b in range(15))

    @pytest.mark.parametrize("n", [1, 2, 16])
    def test_few_residuals_are_coded_exactly(self, n: int) -> None:
        """Sixteen centres for at most sixteen points."""
        few = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
        trained = ProductQuantizer.train(few, 2, has_term=False, iterations=60)
        error = np.square(few - trained.decode(trained.encode(few))).sum(axis=1)
        assert error.max() < 1e-10

    def test_equal_residuals(self) -> None:
        """One point: one centre matters, nothing divides by zero."""
        same = np.full((50, 5), 3.0, np.float32)
        trained = ProductQuantizer.train(same, 2, has_term=False)
        assert np.array_equal(trained.decode(trained.encode(same)), same)

    def test_progress_rises_to_one(self, vectors: F32) -> None:
        """Under its own name."""
        seen: list[tuple[str, float]] = []
        ProductQuantizer.train(
            vectors[:100],
            2,
            has_term=False,
            progress=lambda stage, share: seen.append((stage, share)),
        )
        assert {stage for stage, _ in seen} == {"codebooks"}
        assert [share for _, share in seen] == sorted(share for _, share in seen)
        assert seen[-1][1] == 1


class TestCodes:
    def test_without_shaping_every_sub_space_takes_its_nearest_centre(
        self, vectors: F32, product: ProductQuantizer
    ) -> None:
        """Brute force in float64; eta 1 and no directions are the same thing."""
        some = vectors[:200]
        codes = product.encode(some)
        for b in range(product.m):
            low, high = product.block_dims[b : b + 2]
            centres = product.codebook[b, : high - low].astype(np.float64)  # (width, 16)
            distances = np.square(some[:, low:high, None] - centres[None]).sum(axis=1)
            taken = distances[np.arange(200), codes[:, b]]
            assert (taken <= distances.min(axis=1) + 1e-6).all()
        directions = unit_rows(np.random.default_rng(0).normal(size=some.shape).astype(np.float32))
        assert np.array_equal(product.encode(some, directions, np.ones(200, np.float32)), codes)

    def test_decoding_is_a_look_up(self, product: ProductQuantizer) -> None:
        """Each code of a sub-space stands for one centre."""
        codes = np.random.default_rng(0).integers(0, 16, (5, product.m)).astype(np.uint8)
        decoded = product.decode(codes)
        for i in range(5):
            for b in range(product.m):
                low, high = product.block_dims[b : b + 2]
                centre = product.codebook[b, : high - low, codes[i, b]]
                assert np.array_equal(decoded[i, low:high], centre)

    def test_threads_change_nothing(self, vectors: F32, product: ProductQuantizer) -> None:
        """Each vector is coded alone."""
        eta = np.full(3000, 4.0, np.float32)
        one = product.encode(vectors, vectors, eta)
        assert np.array_equal(product.encode(vectors, vectors, eta, threads=3), one)

    def test_no_residuals(self, product: ProductQuantizer) -> None:
        """An empty batch is a batch."""
        assert product.encode(np.empty((0, 30), np.float32)).shape == (0, product.m)


def split_error(x: F32, coded: F32, directions: F32) -> tuple[np.ndarray, np.ndarray]:
    """Squared parts of x - coded along and across (n, d) unit directions: two (n,) float64."""
    error = (x - coded).astype(np.float64)
    along = np.square(np.einsum("ij,ij->i", error, directions.astype(np.float64)))
    return along, np.square(error).sum(axis=1) - along


ETA = 4.0


@pytest.fixture(scope="module")
def errors(vectors: F32, product: ProductQuantizer) -> dict[str, np.ndarray]:
    """Parallel and orthogonal squared errors of plain and of shaped codes, (n,) each."""
    residuals = vectors - vectors.mean(axis=0)
    eta = np.full(len(vectors), ETA, np.float32)
    plain = split_error(residuals, product.decode(product.encode(residuals)), vectors)
    shaped = split_error(
        residuals, product.decode(product.encode(residuals, vectors, eta)), vectors
    )
    return {
        "plain along": plain[0],
        "plain across": plain[1],
        "shaped along": shaped[0],
        "shaped across": shaped[1],
    }


class TestNoiseShaping:
    def test_lowers_the_parallel_error(self, errors: dict[str, np.ndarray]) -> None:
        """Error along x is what moves the inner products that matter."""
        ratio = errors["shaped along"].mean() / errors["plain along"].mean()
        assert ratio < 0.3  # measured 0.217

    def test_no_vector_gets_a_bigger_one(self, errors: dict[str, np.ndarray]) -> None:
        """A move that would raise it is never taken."""
        assert (errors["shaped along"] <= errors["plain along"] + 1e-6).all()

    def test_lowers_the_anisotropic_loss(self, errors: dict[str, np.ndarray]) -> None:
        """Of every vector, since the descent starts from the plain codes."""
        plain = ETA * errors["plain along"] + errors["plain across"]
        shaped = ETA * errors["shaped along"] + errors["shaped across"]
        assert (shaped <= plain + 1e-6).all()
        assert shaped.mean() < 0.95 * plain.mean()  # measured 0.899 times

    def test_the_price_is_a_bigger_total_error(self, errors: dict[str, np.ndarray]) -> None:
        """Plain codes are the best that there are by length alone."""
        total = errors["shaped along"] + errors["shaped across"]
        plain = errors["plain along"] + errors["plain across"]
        assert (total >= plain - 1e-6).all()
        assert total.mean() < 1.2 * plain.mean()  # measured 1.089 times


class TestTerm:
    @pytest.fixture
    def fitted(self) -> ProductQuantizer:
        """A quantizer with the two sub-spaces of l2, levels over -3..9."""
        rows = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)
        product = ProductQuantizer.train(rows, 2, has_term=True, iterations=2)
        product.fit_term(np.array([-3.0, 9.0], np.float32))
        return product

    @staticmethod
    def value(product: ProductQuantizer, codes: U8) -> np.ndarray:
        """What the last two sub-spaces add to an estimate."""
        levels = product.codebook[-2:, 0].astype(np.float64)
        sums: np.ndarray = levels[0, codes[:, 0]] + levels[1, codes[:, 1]]
        return sums

    def test_256_levels_over_the_range(self, fitted: ProductQuantizer) -> None:
        """A coarse and a fine code of sixteen levels each; half a level is the most one is off."""
        terms = np.linspace(-3, 9, 5000).astype(np.float32)
        error = np.abs(self.value(fitted, fitted.encode_term(terms)) - terms)
        assert error.max() <= 12 / 255 / 2 * 1.001

    def test_beyond_the_range_is_clipped(self, fitted: ProductQuantizer) -> None:
        """Never wrapped round to the other end."""
        codes = fitted.encode_term(np.array([-1e30, 1e30], np.float32))
        assert np.allclose(self.value(fitted, codes), [-3, 9], atol=1e-5)

    def test_levels_span_zero(self, fitted: ProductQuantizer) -> None:
        """Terms of one sign still reach from zero, so that padding is harmless."""
        fitted.fit_term(np.array([5.0, 9.0], np.float32))
        codes = fitted.encode_term(np.array([0.0, 5.0, 9.0], np.float32))
        assert np.allclose(self.value(fitted, codes), [0, 5, 9], atol=9 / 255 / 2 * 1.001)

    def test_one_level(self, fitted: ProductQuantizer) -> None:
        """All terms zero: no division by a zero step."""
        fitted.fit_term(np.zeros(3, np.float32))
        codes = fitted.encode_term(np.array([0.0, 5.0], np.float32))
        assert not self.value(fitted, codes).any()

    def test_dimensions_are_coded_without_the_term(self, fitted: ProductQuantizer) -> None:
        """encode() and decode() leave the last two sub-spaces alone."""
        rows = np.random.default_rng(1).normal(size=(7, 10)).astype(np.float32)
        codes = fitted.encode(rows)
        assert codes.shape == (7, fitted.m - 2)
        joined = np.concatenate([codes, fitted.encode_term(rows[:, 0])], axis=1)
        assert np.array_equal(fitted.decode(joined), fitted.decode(codes))
        assert fitted.decode(joined).shape == (7, 10)
