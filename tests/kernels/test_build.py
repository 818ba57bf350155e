"""What builds an index: nearest and spilled partitions, and noise-shaped codes.

    kernels.{assign, spill_assign, Assigner, encode} -> [test_build.py] <- reference.py

Codes are compared bit for bit. Partitions come from matrix products that may round differently, so
a choice is judged by its cost: it may differ from the reference only where two lists cost the same
to within the rounding of float32. On whole numbers there is no rounding, and ties go to the lower
list everywhere.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import reference
from soardb.kernels.dispatch import Kernels
from soardb.kernels.layout import F32, I32, U8

DIMS = [1, 2, 7, 8, 31, 64, 100, 128, 768]
BYTES = 0.01
"""The same of products of bytes, which have an error of 1 / 254 of the largest element."""
F64 = npt.NDArray[np.float64]
ROUNDING = 2e-6
"""Of a cost, relative to |x|^2 + |c|^2; float32 has 6e-8 and sums of d terms lose some of it."""


@cache
def vectors(n: int, d: int, seed: int) -> F32:
    return np.random.default_rng([n, d, seed]).standard_normal((n, d)).astype(np.float32)


@cache
def whole_numbers(n: int, d: int, seed: int) -> F32:
    return np.random.default_rng([n, d, seed]).integers(-2, 3, (n, d)).astype(np.float32)


def distances(rows: F32, centroids: F32) -> F64:
    """(n, nlist) squared distances in float64."""
    difference = rows[:, None].astype(np.float64) - centroids[None]
    squared: F64 = np.square(difference).sum(axis=2)
    return squared


def spill_costs(rows: F32, centroids: F32, primary: I32, soar_lambda: float) -> F64:
    """(n, nlist) costs in float64, straight from theorem 3.1 of the SOAR paper."""
    x, c = rows.astype(np.float64), centroids.astype(np.float64)
    residual = x - c[primary]
    norm = np.linalg.norm(residual, axis=1, keepdims=True)
    least = 1e-7 * np.square(x).sum(axis=1, keepdims=True)
    direction = np.where(norm**2 <= least, 0, residual / np.maximum(norm, 1e-15))
    along = np.einsum("nd,nld->nl", direction, x[:, None] - c[None])
    costs: F64 = distances(rows, centroids) + soar_lambda * np.square(along)
    return costs


def choices_are_cheapest(chosen: I32, costs: F64, rows: F32, centroids: F32) -> bool:
    """All but 1 in 100 to within the rounding of float32, and those to within that of bytes.

    The extension sorts out centroids by bytes, where one may hide another that is as near.
    """
    scale = np.square(rows).sum(axis=1) + np.square(centroids).sum(axis=1).max()
    excess = (costs[np.arange(len(chosen)), chosen] - costs.min(axis=1)) / np.maximum(scale, 1e-30)
    near = excess <= ROUNDING
    return bool((~near).sum() <= max(1, len(near) // 100) and (excess <= BYTES).all())


class TestAssign:
    @pytest.mark.parametrize(("n", "nlist"), [(0, 1), (1, 1), (17, 33), (100, 32), (300, 75)])
    @pytest.mark.parametrize("d", DIMS)
    def test_takes_the_nearest_list(self, kernels: Kernels, d: int, n: int, nlist: int) -> None:
        rows, centroids = vectors(n, d, 0), vectors(nlist, d, 1)
        chosen, scores = kernels.assign(rows, centroids)
        assert chosen.dtype == np.int32
        assert scores.dtype == np.float32
        assert ((chosen >= 0) & (chosen < nlist)).all()
        assert choices_are_cheapest(chosen, distances(rows, centroids), rows, centroids)
        exact = rows @ centroids.T - 0.5 * np.square(centroids).sum(axis=1)
        scale = float(np.square(centroids).sum(axis=1).max()) + d
        expected = exact[np.arange(n), chosen]
        np.testing.assert_allclose(scores, expected, rtol=0, atol=ROUNDING * scale)

    @pytest.mark.parametrize("d", [1, 7, 31])
    def test_ties_go_to_the_lower_list(self, kernels: Kernels, d: int) -> None:
        """Repeated centroids, 33 of them apart: in the same lane, in another, in another panel."""
        rows, centroids = whole_numbers(200, d, 0), np.tile(whole_numbers(33, d, 1), (3, 1))
        chosen, scores = kernels.assign(rows, centroids)
        expected, expected_scores = reference.assign(rows, centroids)
        assert np.array_equal(chosen, expected)
        assert np.array_equal(scores, expected_scores)
        assert (chosen < 33).all()

    def test_threads_change_nothing(self, kernels: Kernels) -> None:
        rows, centroids = vectors(4000, 8, 0), vectors(50, 8, 1)
        alone, alone_scores = kernels.assign(rows, centroids)
        chosen, scores = kernels.assign(rows, centroids, threads=3)
        assert np.array_equal(chosen, alone)
        assert np.array_equal(scores, alone_scores)


class TestSpillAssign:
    @pytest.mark.parametrize("include_primary", [True, False])
    @pytest.mark.parametrize("soar_lambda", [0.0, 1.0, 1.5])
    @pytest.mark.parametrize("d", DIMS)
    def test_takes_the_cheapest_list(
        self, kernels: Kernels, d: int, soar_lambda: float, include_primary: bool
    ) -> None:
        rows, centroids = vectors(150, d, 0), vectors(70, d, 1)
        primary, _ = reference.assign(rows, centroids)
        chosen = kernels.spill_assign(rows, centroids, primary, soar_lambda, include_primary)
        costs = spill_costs(rows, centroids, primary, soar_lambda)
        if not include_primary:
            costs[np.arange(150), primary] = np.inf
            assert (chosen != primary).all()
        assert chosen.dtype == np.int32
        assert choices_are_cheapest(chosen, costs, rows, centroids)

    def test_without_a_penalty_the_nearest_list_wins_again(self, kernels: Kernels) -> None:
        rows, centroids = vectors(150, 31, 0), vectors(70, 31, 1)
        primary, _ = reference.assign(rows, centroids)
        assert np.array_equal(kernels.spill_assign(rows, centroids, primary, 0.0), primary)

    def test_a_row_on_its_centroid_goes_to_the_second_nearest(self, kernels: Kernels) -> None:
        """Its residual has no direction, so nothing is penalised but distance."""
        centroids = whole_numbers(40, 31, 1)
        primary = np.arange(40, dtype=np.int32)
        chosen = kernels.spill_assign(centroids, centroids, primary, 1.5, include_primary=False)
        assert np.array_equal(
            chosen, reference.spill_assign(centroids, centroids, primary, 1.5, False)
        )

    def test_of_two_lists_the_other_one(self, kernels: Kernels) -> None:
        rows, centroids = vectors(20, 7, 0), vectors(2, 7, 1)
        primary, _ = reference.assign(rows, centroids)
        assert np.array_equal(
            kernels.spill_assign(rows, centroids, primary, 1.5, include_primary=False), 1 - primary
        )

    @pytest.mark.parametrize("include_primary", [True, False])
    def test_a_single_list_leaves_no_choice(self, kernels: Kernels, include_primary: bool) -> None:
        rows, primary = vectors(20, 7, 0), np.zeros(20, np.int32)
        chosen = kernels.spill_assign(rows, vectors(1, 7, 1), primary, 1.5, include_primary)
        assert (chosen == 0).all()

    def test_threads_change_nothing(self, kernels: Kernels) -> None:
        rows, centroids = vectors(4000, 8, 0), vectors(50, 8, 1)
        primary, _ = reference.assign(rows, centroids)
        alone = kernels.spill_assign(rows, centroids, primary, 1.5)
        assert np.array_equal(kernels.spill_assign(rows, centroids, primary, 1.5, threads=3), alone)


class TestAssigner:
    @pytest.mark.parametrize("n", [0, 1, 13, 300])
    def test_equals_the_functions(self, kernels: Kernels, n: int) -> None:
        """Asked again and again, at any number of vectors."""
        rows, centroids = vectors(n, 31, 0), vectors(75, 31, 1)
        assigner = kernels.Assigner(centroids)
        for _ in range(2):
            primary, scores = assigner.assign(rows)
            expected, expected_scores = kernels.assign(rows, centroids)
            assert np.array_equal(primary, expected)
            assert np.array_equal(scores, expected_scores)
            for include_primary in (True, False):
                chosen = assigner.spill(rows, primary, 1.5, include_primary, threads=2)
                assert np.array_equal(
                    chosen, kernels.spill_assign(rows, centroids, primary, 1.5, include_primary)
                )

    def test_keeps_the_centroids_alive(self, kernels: Kernels) -> None:
        """It borrows them, and its caller may have no other use for them."""
        rows, centroids = vectors(50, 31, 0), vectors(75, 31, 1)
        primary, _ = kernels.assign(rows, centroids)
        assigner = kernels.Assigner(centroids.copy())
        filler = [np.full((75, 31), 1e3, np.float32) for _ in range(100)]
        chosen = assigner.spill(rows, primary, 1.5)
        assert np.array_equal(chosen, kernels.spill_assign(rows, centroids, primary, 1.5))
        assert len(filler) == 100


@cache
def encoding_case(n: int, d: int, m: int, integers: bool) -> tuple[F32, F32, F32, F32, I32]:
    """Residuals, unit directions, eta, codebook and bounds; a third of the rows has eta 1."""
    make = whole_numbers if integers else vectors
    residuals, towards = make(n, d, 2), make(n, d, 3) + np.float32(0.25)
    directions = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    eta = np.resize(np.array([4.7, 1.0, 30.0], np.float32), n)
    block_dims = (np.arange(m + 1) * d // m).astype(np.int32)
    widths = np.diff(block_dims)
    codebook = make(m * int(widths.max()), 16, 4).reshape(m, int(widths.max()), 16).copy()
    codebook[np.arange(codebook.shape[1]) >= widths[:, None]] = 0
    return residuals, directions.astype(np.float32), eta, codebook, block_dims


@cache
def expected_codes(n: int, d: int, m: int, integers: bool) -> U8:
    return reference.encode(*encoding_case(n, d, m, integers))


class TestEncode:
    @pytest.mark.parametrize("integers", [False, True], ids=["normal", "ties"])
    @pytest.mark.parametrize(
        ("n", "d", "m"),
        [
            (0, 8, 8),
            (33, 1, 8),
            (33, 2, 8),
            (33, 7, 8),
            (33, 8, 8),
            (33, 31, 16),
            (17, 64, 16),
            (17, 100, 56),
            (3, 128, 264),
            (3, 768, 192),
            (2, 768, 1024),
        ],
    )
    def test_equals_the_reference_bit_for_bit(
        self, kernels: Kernels, n: int, d: int, m: int, integers: bool
    ) -> None:
        """Sub-spaces of no dimension at all included: their code is 0."""
        codes = kernels.encode(*encoding_case(n, d, m, integers))
        assert codes.dtype == np.uint8
        assert np.array_equal(codes, expected_codes(n, d, m, integers))

    def test_of_zero_residuals(self, kernels: Kernels) -> None:
        """A vector on its centroid; its direction may be anything."""
        _, directions, eta, codebook, block_dims = encoding_case(33, 31, 16, False)
        zeros = np.zeros((33, 31), np.float32)
        codes = kernels.encode(zeros, directions, eta, codebook, block_dims)
        assert np.array_equal(codes, reference.encode(zeros, directions, eta, codebook, block_dims))

    def test_lowers_the_anisotropic_loss(self, kernels: Kernels) -> None:
        """What the descent is for: weighted error falls against the nearest codes, row by row."""
        residuals, directions, eta, codebook, block_dims = encoding_case(17, 100, 56, False)

        def loss(codes: U8) -> F64:
            decoded = np.zeros(residuals.shape)
            for b in range(len(codebook)):
                width = block_dims[b + 1] - block_dims[b]
                span = slice(block_dims[b], block_dims[b + 1])
                decoded[:, span] = codebook[b, :width].T[codes[:, b]]
            error = residuals - decoded
            parallel = np.square((error * directions).sum(axis=1))
            weighted: F64 = eta * parallel + np.square(error).sum(axis=1) - parallel
            return weighted

        nearest = kernels.encode(residuals, directions, np.ones_like(eta), codebook, block_dims)
        shaped = kernels.encode(residuals, directions, eta, codebook, block_dims)
        before, after = loss(nearest), loss(shaped)
        assert (after <= before * (1 + 1e-5)).all()
        assert (after[eta > 1] < before[eta > 1]).any()

    def test_threads_change_nothing(self, kernels: Kernels) -> None:
        residuals, directions, eta, codebook, block_dims = encoding_case(3000, 8, 8, False)
        alone = kernels.encode(residuals, directions, eta, codebook, block_dims)
        codes = kernels.encode(residuals, directions, eta, codebook, block_dims, threads=3)
        assert np.array_equal(codes, alone)
