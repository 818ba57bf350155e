"""What "closer" means: names, unit rows, distances.

    soardb/metrics.py -> [test_metrics.py]

That searches rank by these scores is the contract's to test (tests/index).
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb import InvalidArgument
from soardb.metrics import METRICS, Metric, as_metric, distance, unit_rows


class TestNames:
    def test_each_metric_is_known_by_its_name(self) -> None:
        """Three, and no synonyms."""
        assert METRICS == ("dot", "cosine", "l2")
        assert tuple(map(as_metric, METRICS)) == METRICS

    @pytest.mark.parametrize("name", ["euclidean", "ip", "L2", "", None, 2])
    def test_others_are_refused_with_the_choices(self, name: object) -> None:
        """The message lists what there is."""
        with pytest.raises(InvalidArgument, match=r"one of dot, cosine, l2, got"):
            as_metric(name)  # type: ignore[arg-type]


class TestUnitRows:
    def test_rows_have_length_one(self) -> None:
        """At every scale that float32 holds: the length is taken in float64."""
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(7, 33)) * np.logspace(-38, 18, 7)[:, None]
        unit = unit_rows(rows.astype(np.float32))
        assert unit.dtype == np.float32
        assert np.abs(np.linalg.norm(unit.astype(np.float64), axis=1) - 1).max() < 2e-7

    def test_directions_stay(self) -> None:
        """Only the length changes, and the input does not."""
        rows = np.array([[3, 4], [-1, 0]], np.float32)
        before = rows.copy()
        assert np.array_equal(unit_rows(rows), np.array([[0.6, 0.8], [-1, 0]], np.float32))
        assert np.array_equal(rows, before)

    def test_a_row_of_zeros_stays(self) -> None:
        """It has no direction: no NaN comes of it. The gate refuses it where it matters."""
        assert not unit_rows(np.zeros((2, 5), np.float32)).any()

    def test_no_rows(self) -> None:
        """An empty batch is a batch."""
        assert unit_rows(np.empty((0, 4), np.float32)).shape == (0, 4)


class TestDistance:
    @pytest.mark.parametrize(
        ("metric", "scores", "distances"),
        [
            ("cosine", [1, 0.25, -1], [0, 0.75, 2]),
            ("l2", [0, -4, -9], [0, 2, 3]),
            ("dot", [5, 0, -2], [-5, 0, 2]),
        ],
    )
    def test_smaller_is_closer(
        self, metric: Metric, scores: list[float], distances: list[float]
    ) -> None:
        """The convention of the field's files: the order turns round."""
        found = distance(np.array(scores, np.float32), metric)
        assert found.dtype == np.float32
        assert np.array_equal(found, np.array(distances, np.float32))

    @pytest.mark.parametrize("metric", METRICS)
    def test_a_missing_result_is_infinitely_far(self, metric: Metric) -> None:
        """Score -inf becomes distance inf, without a warning."""
        assert distance(np.array([-np.inf], np.float32), metric)[0] == np.inf

    def test_rounding_above_zero_gives_no_nan(self) -> None:
        """A squared distance may round to a hair below zero."""
        assert distance(np.array([1e-9], np.float32), "l2")[0] == 0
