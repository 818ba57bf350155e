"""What rounding costs in recall is foretold from the rounded vectors alone.

index/rounding.py -> [test_rounding.py] <- the vectors as they were given
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soardb import SoarIndex
from soardb.curve import Curve, Curves, Effort, OperatingPoint
from soardb.index.form import FLOAT32, Form
from soardb.index.ivf import _AsExamined
from soardb.index.rounding import counted, kept_recall, lowered
from soardb.kernels.layout import F32, I64, Metric, Precision
from soardb.quantization.bfloat16 import to_bfloat16
from soardb.quantization.scalar import ScalarQuantizer
from tests.index.conftest import clustered, true_scores

METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")


def recall(ids: np.ndarray, truth: np.ndarray, k: int) -> float:
    best = np.argsort(-truth, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(ids, best, strict=True)]))


@pytest.fixture(scope="module", params=METRICS)
def data(request: pytest.FixtureRequest) -> tuple[Metric, F32, F32]:
    """A metric, 4,000 vectors so close that rounding changes their order, and 600 queries."""
    both = clustered(4600, 12, seed=8, spread=0.15)
    both = np.random.default_rng(0).permutation(both)
    return request.param, both[:4000], both[4000:]


def built(data: tuple[Metric, F32, F32], precision: Precision) -> SoarIndex:
    metric, vectors, _ = data
    index = SoarIndex(12, metric, nlist=16, seed=1, precision=precision)
    index.train(vectors)
    index.add(vectors)
    return index


class TestKeptRecall:
    @pytest.mark.parametrize("precision", ["bfloat16", "int8"])
    @pytest.mark.parametrize("k", [1, 10])
    def test_is_near_the_truth(
        self, data: tuple[Metric, F32, F32], precision: Precision, k: int
    ) -> None:
        """Neither flattering nor gloomy: within 0.02, where 0.02 to 0.15 are lost."""
        metric, vectors, queries = data
        index = built(data, precision)
        assert index._model is not None
        examined = _AsExamined(index, index._model)
        form, ids = index._rows.form, index._rows.ids
        foretold = kept_recall(examined, form, metric, ids, None, k, seed=0)
        found = index.search(queries, k, exact=True)[1]
        true = recall(found, true_scores(vectors, queries, metric), k)
        assert true < 0.99
        assert abs(foretold - true) < 0.02  # measured at most 0.012

    def test_nothing_is_lost_without_rounding(self) -> None:
        """Nor where there is nothing to exchange."""
        unasked: Any = None
        rows = np.arange(50)
        assert kept_recall(unasked, FLOAT32, "l2", rows, None, 10, 0) == 1
        assert kept_recall(unasked, Form("bfloat16"), "l2", rows, rows[:8], 10, 0) == 1


class TestCounted:
    @pytest.mark.parametrize("precision", ["bfloat16", "int8"])
    def test_a_target_is_met_of_the_given_vectors(
        self, data: tuple[Metric, F32, F32], precision: Precision
    ) -> None:
        """The reason of it all: what a search promises holds of what the caller gave."""
        metric, vectors, queries = data
        index = built(data, precision)
        truth = true_scores(vectors, queries, metric)
        for target in (0.7, 0.85):
            if index.expected(10, target).is_reached:
                found = recall(index.search(queries, 10, target_recall=target)[1], truth, 10)
                assert found > target - 0.02  # measured at least target - 0.005
        assert not index.expected(10, 0.999).is_reached

    def test_each_share_of_matches_has_its_own(self) -> None:
        """Fewer points lie further apart, and rounding exchanges fewer of them."""
        index = _Points(clustered(3000, 6, seed=2, spread=0.1))
        curves = Curves(3000, 3000, [curve(1.0), curve(0.02)])
        after = counted(curves, index, index.form, "l2", np.arange(3000), 0)
        whole, few = (c.points[0].recall / 0.9 for c in after.curves)
        assert 0.5 < whole < few - 0.01  # measured 0.981 and 0.998
        assert few <= 1
        assert counted(curves, index, FLOAT32, "l2", np.arange(3000), 0) is curves

    def test_the_interval_goes_with_it(self) -> None:
        """Recall and both of its ends; nothing else."""
        point = lowered(curve(1.0), 0.5).points[0]
        assert (point.recall, point.low, point.high) == (0.45, 0.4, 0.475)
        assert (point.effort, point.scanned) == (Effort(4, 50), 7.0)


def curve(share: float) -> Curve:
    return Curve(10, 100, [OperatingPoint(Effort(4, 50), 0.9, 0.8, 0.95, 1.0, 7.0)], share)


class _Points:
    """Rounded points, searched exactly, as exam.py sees an index."""

    def __init__(self, vectors: F32) -> None:
        self.form = Form("bfloat16")
        self.vectors = self.form.opened(to_bfloat16(vectors))
        self.nlist = 1

    def usual(self, k: int) -> Effort:
        return Effort(1, k)

    def drawn(self, rows: I64) -> F32:
        return self.vectors[rows]

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        rows = np.arange(len(self.vectors)) if rows is None else rows
        scores = true_scores(self.vectors[rows], queries, "l2")
        order = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1).astype(np.float32), rows[order]

    def search(self, *given: Any) -> Any:
        raise AssertionError("only exact searches are needed")


def test_steps_are_from_one_kept_number_to_the_next() -> None:
    """A number moved by half a step or less is rounded back to where it was."""
    x = np.random.default_rng(3).standard_normal((200, 5)).astype(np.float32)
    scalar = ScalarQuantizer.train(x)
    for form in (Form("bfloat16"), Form("int8", scalar)):
        kept = form.rounded(x)
        assert (np.abs(kept - x) <= form.steps(kept) * 0.5001).all()
        inside = np.abs(kept) < np.abs(x).max(axis=0) * 0.9
        moved = (kept + 0.24 * form.steps(kept)).astype(np.float32)
        assert np.array_equal(form.rounded(moved)[inside], kept[inside])
