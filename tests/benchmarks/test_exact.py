"""Exact answers and the estimates of hardness.

All distances in float64 are the oracle of what every other recall is measured against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.dataset_files import Dataset, Metric
from benchmarks.exact import ground_truth, hardness
from soardb.errors import InvalidArgument


def brute_force(
    train: npt.NDArray[Any], test: npt.NDArray[Any], metric: str, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """All distances in float64, a stable sort: the oracle of the oracle."""
    x, q = train.astype(np.float64), test.astype(np.float64)
    if metric == "l2":
        distances = np.sqrt(((q[:, None, :] - x[None, :, :]) ** 2).sum(axis=2))
    else:
        norms = np.sqrt((q * q).sum(axis=1)[:, None] * (x * x).sum(axis=1))
        distances = 1 - (q[:, None, :] * x[None, :, :]).sum(axis=2) / norms
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1)


class TestGroundTruth:
    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("d", [1, 7, 31, 128])
    def test_equals_brute_force_in_float64(self, metric: Metric, d: int) -> None:
        rng = np.random.default_rng(d)
        train = rng.standard_normal((3000, d), np.float32)
        test = rng.standard_normal((50, d), np.float32)
        rows, distances = ground_truth(train, test, metric)
        true_rows, true_distances = brute_force(train, test, metric, 100)
        np.testing.assert_allclose(distances, true_distances, rtol=1e-6, atol=1e-7)
        if d > 1:  # in one dimension all cosines are 1 or -1, up to the rounding of the norm
            assert (rows == true_rows).all()

    def test_gives_ties_to_the_lower_row(self) -> None:
        """Copies of one vector are what a float32 product orders by chance."""
        rng = np.random.default_rng(0)
        train = np.repeat(rng.standard_normal((40, 16), np.float32), 50, axis=0)
        rng.shuffle(train)
        rows, _ = ground_truth(train, train[:20], "cosine", k=100)
        assert (rows == brute_force(train, train[:20], "cosine", 100)[0]).all()

    def test_survives_cancellation(self) -> None:
        """Far from the origin, |x|^2 - 2xq loses every digit that tells the rows apart."""
        rng = np.random.default_rng(0)
        train = (10_000 + rng.standard_normal((2000, 24))).astype(np.float32)
        rows, distances = ground_truth(train, train[:10], "l2", k=10)
        assert (rows == brute_force(train, train[:10], "l2", 10)[0]).all()
        assert (distances[:, 0] == 0).all()

    def test_refuses_a_zero_row_under_cosine(self) -> None:
        train = np.eye(4, dtype=np.float32)
        train[2] = 0
        with pytest.raises(InvalidArgument, match="row 2 is zero"):
            ground_truth(train, train[:1], "cosine", k=2)

    def test_refuses_more_neighbours_than_rows(self) -> None:
        with pytest.raises(InvalidArgument, match="k <= n"):
            ground_truth(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), "l2")

    def test_is_what_a_set_holds(self, tiny: Dataset) -> None:
        rows, distances = brute_force(tiny.train, tiny.test, "cosine", 100)
        assert (tiny.neighbors == rows).all()
        np.testing.assert_allclose(tiny.distances, distances, rtol=1e-5, atol=1e-7)


class TestHardness:
    def test_finds_the_dimension_of_a_gaussian(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.standard_normal((20_100, 6), np.float32)
        train, test = points[100:], points[:100]
        rows, distances = ground_truth(train, test, "l2")
        dataset = Dataset("g", "l2", train, test, rows, distances, None, "")
        contrast, dimension = hardness(dataset)
        assert 5 < dimension < 7  # measured 5.8
        assert contrast > 3  # measured 6.4
