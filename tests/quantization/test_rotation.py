"""Residuals turned into few directions: what is kept, what is left out, what the codes gain.

    soardb/quantization/{rotation,product}.py -> [test_rotation.py]

Products with a turned query are compared with the specification in tests/kernels.
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.kernels.layout import F32
from soardb.kernels.reference import turn_query
from soardb.quantization.product import ProductQuantizer
from soardb.quantization.rotation import Rotation


def correlated(n: int, d: int, directions: int, seed: int = 0, noise: float = 0.02) -> F32:
    """(n, d) with most of the energy in a few random directions."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(directions, d)) * np.geomspace(1, 0.2, directions)[:, None]
    inside = rng.normal(size=(n, directions)) @ mix
    return (inside + noise * rng.normal(size=(n, d))).astype(np.float32)


def independent(n: int, d: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


class TestRotation:
    def test_keeps_the_directions_that_hold_the_energy(self) -> None:
        residuals = correlated(2000, 60, 12)
        rotation = Rotation.train(residuals, 8)
        assert rotation.codes.shape == (len(rotation.scale), 60)
        assert 8 <= len(rotation.scale) <= 13
        kept = np.square(rotation.turn(residuals)).sum() / np.square(residuals).sum()
        assert 0.97 < kept < 1.01

    def test_never_fewer_than_there_are_sub_spaces(self) -> None:
        assert len(Rotation.train(correlated(500, 40, 3), 16).scale) == 16
        assert len(Rotation.train(correlated(500, 10, 3), 16).scale) == 10

    def test_rows_are_close_to_orthonormal(self) -> None:
        rows = Rotation.train(correlated(2000, 60, 30), 16).rows
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=0.02)

    def test_products_are_those_of_what_is_turned_back(self) -> None:
        rotation = Rotation.train(correlated(2000, 60, 30), 16)
        turned, query = independent(50, len(rotation.scale)), independent(1, 60, seed=4)[0]
        np.testing.assert_allclose(
            rotation.turn_back(turned) @ query, turned @ rotation.turn(query), rtol=1e-4, atol=1e-4
        )

    def test_a_query_is_turned_in_bytes_by_the_same_rows(self) -> None:
        rotation = Rotation.train(correlated(2000, 61, 30), 16)
        query = independent(1, 61, seed=4)[0]
        turned = turn_query(query, *rotation.packed())
        expected = rotation.turn(query)
        assert not turned[len(expected) :].any()
        error = turned[: len(expected)] - expected
        assert np.abs(error).max() < 0.02 * np.linalg.norm(query)

    def test_strong_and_weak_directions_share_a_sub_space(self) -> None:
        residuals = correlated(4000, 64, 64, noise=0)
        rotation = Rotation.train(residuals, 16)
        variance = rotation.turn(residuals).var(axis=0)
        r = len(variance)
        products = [np.log(variance[i * r // 16 : (i + 1) * r // 16]).mean() for i in range(16)]
        in_order = np.log(np.sort(variance)[: 16 * (r // 16)]).reshape(16, -1).mean(axis=1)
        assert np.ptp(products) < 0.5 * np.ptp(in_order)

    def test_is_the_same_for_the_same_residuals(self) -> None:
        residuals = correlated(1000, 40, 20)
        first, second = Rotation.train(residuals, 8), Rotation.train(residuals.copy(), 8)
        np.testing.assert_array_equal(first.codes, second.codes)
        np.testing.assert_array_equal(first.scale, second.scale)


class TestProduct:
    @pytest.mark.parametrize("has_term", [False, True])
    def test_turned_codes_leave_less_error(self, has_term: bool) -> None:
        residuals = correlated(6000, 96, 40)
        turned = ProductQuantizer.train(residuals, 4, has_term=has_term, rotate=True)
        plain = ProductQuantizer.train(residuals, 4, has_term=has_term, rotate=False)
        assert turned.m == plain.m
        assert turned.rotation is not None
        assert turned.error(residuals) < 0.7 * plain.error(residuals)
        assert turned.spread == pytest.approx(plain.spread, rel=0.5)
        assert turned.decode(turned.encode(residuals)).shape == residuals.shape

    def test_is_chosen_where_it_pays_and_only_there(self) -> None:
        assert ProductQuantizer.train(
            correlated(6000, 96, 40), 4, has_term=False, rotate=None
        ).rotation
        assert not ProductQuantizer.train(
            independent(6000, 96), 4, has_term=False, rotate=None
        ).rotation

    def test_shaped_codes_are_better_along_the_direction(self) -> None:
        """The anisotropic loss is of turned residuals and turned directions."""
        residuals = correlated(4000, 96, 40)
        product = ProductQuantizer.train(residuals, 4, has_term=False, rotate=True)
        directions = residuals + 0.5 * independent(4000, 96, seed=2)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        along = []
        for eta in (1.0, 8.0):
            codes = product.encode(residuals, directions, np.full(4000, eta, np.float32))
            missed = residuals - product.decode(codes)
            along.append(float(np.square((missed * directions).sum(axis=1)).mean()))
        assert along[1] < 0.6 * along[0]

    @pytest.mark.parametrize("rotate", [None, True])
    def test_residuals_that_are_all_zero(self, rotate: bool | None) -> None:
        zeros = np.zeros((50, 24), np.float32)
        product = ProductQuantizer.train(zeros, 3, has_term=False, rotate=rotate)
        assert product.rotation is None
        assert product.error(zeros) == 0

    @pytest.mark.parametrize("n", [1, 2, 17])
    def test_few_residuals(self, n: int) -> None:
        residuals = correlated(n, 24, 3)
        product = ProductQuantizer.train(residuals, 3, has_term=True, rotate=True)
        assert product.error(residuals) < 0.1 * np.square(residuals).sum(axis=1).mean()
