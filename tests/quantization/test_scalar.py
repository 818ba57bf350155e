"""8-bit scalar quantization: ranges, rounding, padding.

    soardb/quantization/scalar.py -> [test_scalar.py]

How the kernels score these bytes is tested in tests/kernels.
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb.kernels.layout import F32
from soardb.quantization.scalar import ScalarQuantizer


@pytest.fixture
def vectors() -> F32:
    """(500, 6): each dimension with its own range, one of them constant, one all zero."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, size=(500, 6)) * [1, 100, 1e-3, 0, 0, 1] + [0, 50, 7, 3, 0, -1e4]
    return rows.astype(np.float32)


class TestRoundTrip:
    def test_error_is_half_a_step_at_most(self, vectors: F32) -> None:
        """Every dimension is cut into 255 steps of its own range."""
        scalar = ScalarQuantizer.train(vectors)
        error = np.abs(scalar.decode(scalar.encode(vectors)).astype(np.float64) - vectors)
        width = vectors.max(axis=0).astype(np.float64) - vectors.min(axis=0)
        rounding = 2e-7 * np.abs(vectors).max(axis=0)  # of float32 itself
        assert (error.max(axis=0) <= width / 255 / 2 * 1.001 + rounding).all()

    def test_the_extremes_of_training_are_kept(self, vectors: F32) -> None:
        """Bytes 0 and 255 are the least and the greatest value: nothing is clipped in training."""
        scalar = ScalarQuantizer.train(vectors)
        codes = scalar.encode(vectors)
        for dim in (0, 1, 2, 5):
            assert codes[vectors[:, dim].argmin(), dim] == 0
            assert codes[vectors[:, dim].argmax(), dim] == 255

    def test_a_constant_dimension_costs_nothing(self, vectors: F32) -> None:
        """Scale 0, value exact, and no division by zero."""
        scalar = ScalarQuantizer.train(vectors)
        codes = scalar.encode(vectors)
        assert scalar.scale[3] == scalar.scale[4] == 0
        assert (codes[:, 3:5] == 128).all()
        assert (scalar.decode(codes)[:, 3:5] == [3, 0]).all()

    def test_later_values_are_clipped_not_wrapped(self, vectors: F32) -> None:
        """A byte that wrapped round would turn the farthest value into the nearest."""
        scalar = ScalarQuantizer.train(vectors)
        far = np.array([[9e9] * 6, [-9e9] * 6], np.float32)
        codes = scalar.encode(far)
        assert codes[0, [0, 1, 2, 5]].tolist() == [255] * 4
        assert codes[1, [0, 1, 2, 5]].tolist() == [0] * 4

    @pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30, 1.5e38])
    def test_any_range_of_float32(self, size: float) -> None:
        """Tiny and huge ranges give finite parameters, and no warning."""
        rows = (np.random.default_rng(1).uniform(-1, 1, size=(64, 3)) * size).astype(np.float32)
        scalar = ScalarQuantizer.train(rows)
        assert np.isfinite(scalar.scale).all()
        assert np.isfinite(scalar.offset).all()
        error = np.abs(scalar.decode(scalar.encode(rows)) - rows).max()
        assert error <= 0.01 * size

    def test_one_vector(self) -> None:
        """All dimensions are constant."""
        row = np.array([[1.5, -2, 0]], np.float32)
        scalar = ScalarQuantizer.train(row)
        assert np.array_equal(scalar.decode(scalar.encode(row)), row)


class TestLayout:
    def test_padding_stands_for_zero(self, vectors: F32) -> None:
        """128 is level 0: kernels may read whole lines."""
        scalar = ScalarQuantizer.train(vectors)
        codes = scalar.encode(vectors, 16)
        assert codes.shape == (500, 16)
        assert codes.dtype == np.uint8
        assert (codes[:, 6:] == 128).all()
        assert np.array_equal(codes[:, :6], scalar.encode(vectors))
        assert np.array_equal(scalar.decode(codes), scalar.decode(codes[:, :6]))

    def test_no_vectors(self, vectors: F32) -> None:
        """An empty batch is a batch."""
        assert ScalarQuantizer.train(vectors).encode(vectors[:0], 16).shape == (0, 16)

    def test_more_vectors_than_one_chunk(self) -> None:
        """Encoding in pieces leaves no seam."""
        rows = np.random.default_rng(2).normal(size=(65_540, 2)).astype(np.float32)
        scalar = ScalarQuantizer.train(rows)
        codes = scalar.encode(rows)
        assert np.array_equal(codes[65_530:], scalar.encode(rows[65_530:]))
