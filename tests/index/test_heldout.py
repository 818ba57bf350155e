"""Points that training does not learn from: which they are, and that it does not.

soardb/index/heldout.py, model.py, exam.py -> [test_heldout.py]
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb import SoarIndex
from soardb.curve import Effort
from soardb.index.exam import Exam, last_scores, questions
from soardb.index.heldout import held_out
from soardb.index.ivf import _AsExamined
from soardb.index.model import Model, as_compared
from soardb.index.plan import BuildParams, choose_build
from soardb.kernels.layout import F32, I64
from soardb.metrics import METRICS, Metric
from tests.index.test_target import NQ, D, N, blobs


class TestHeldOut:
    @pytest.mark.parametrize("d", [1, 3, 24, 128])
    def test_one_in_eight(self, d: int) -> None:
        """Spread over the points as a coin would spread them."""
        vectors = np.random.default_rng(1).normal(size=(40_000, d)).astype(np.float32)
        found = held_out(vectors)
        assert abs(found.mean() - 1 / 8) < 0.007  # four standard errors
        halves = found[vectors[:, 0] < 0].mean(), found[vectors[:, 0] >= 0].mean()
        assert abs(halves[0] - halves[1]) < 0.014

    def test_by_the_vector_alone(self) -> None:
        """Whatever stands beside it, and however often it is there."""
        vectors = blobs(40_000, 2)
        order = np.random.default_rng(3).permutation(len(vectors))
        found = held_out(vectors)
        assert (held_out(vectors[order]) == found[order]).all()
        assert (held_out(vectors[::7]) == found[::7]).all()
        assert (held_out(np.repeat(vectors[:100], 3, axis=0)) == np.repeat(found[:100], 3)).all()

    def test_whole_numbers_too(self) -> None:
        """Their last bits are all zero."""
        vectors = np.random.default_rng(1).integers(0, 200, (20_000, 8)).astype(np.float32)
        assert abs(held_out(vectors).mean() - 1 / 8) < 0.01

    @pytest.mark.parametrize("metric", METRICS)
    def test_training_does_not_look_at_them(self, metric: Metric) -> None:
        """Others in their place change nothing, as long as they are held out too."""
        vectors = blobs(8_000, 2)
        is_held = held_out(as_compared(vectors, metric))
        spare = blobs(20_000, 4)
        spare = spare[held_out(as_compared(spare, metric))][: is_held.sum()]
        other = vectors.copy()
        other[is_held] = spare
        params = BuildParams.of({"nlist": 100}, metric)
        models = [
            Model.train(some, choose_build(params, len(some), D, metric), params, metric)
            for some in (vectors, other)
        ]
        assert (models[0].places == models[1].places).all()
        assert (models[0].centroids == models[1].centroids).all()
        assert (models[0].product.codebook == models[1].product.codebook).all()

    def test_where_a_sample_is_drawn_nothing_is_held_out(self) -> None:
        """Most points are not learnt from anyway, and the sample is as large as was asked for."""
        vectors = blobs(8_000, 2)
        params = BuildParams.of({"nlist": 20, "points_per_centroid": 100}, "l2")
        model = Model.train(vectors, choose_build(params, len(vectors), D, "l2"), params, "l2")
        changed = vectors.copy()
        changed[held_out(vectors)] += 1
        other = Model.train(changed, choose_build(params, len(vectors), D, "l2"), params, "l2")
        assert (model.places != other.places).any()


@pytest.fixture(scope="module", params=METRICS)
def examined(request: pytest.FixtureRequest) -> _AsExamined:
    """N vectors in lists of 60."""
    index = SoarIndex(D, request.param, nlist=200, seed=1)
    index.train(blobs(N, 2))
    index.add(blobs(N, 2))
    assert index._model is not None
    return _AsExamined(index, index._model)


class TestQuestions:
    def test_are_held_out(self, examined: _AsExamined) -> None:
        """In the order in which they were drawn."""
        drawn = np.random.default_rng(1).permutation(N)
        own = questions(examined, drawn, 1_000)
        assert len(own) == 1_000
        assert held_out(examined.drawn(own)).all()
        assert (np.diff([int(np.flatnonzero(drawn == row)[0]) for row in own[:50]]) > 0).all()

    def test_are_any_points_where_too_few_are_held_out(self, examined: _AsExamined) -> None:
        """A few questions that flatter are better than none."""
        drawn = np.random.default_rng(1).permutation(N)[:600]
        assert (questions(examined, drawn, 4_500) == drawn[:250]).all()
        assert len(questions(examined, drawn, 20)) == 20

    def test_do_not_flatter(self, examined: _AsExamined) -> None:
        """Points that were learnt from are found more easily than queries, by up to 0.02."""

        def recall(vectors: F32, own: I64) -> float:
            scores, rows = examined.exact(vectors, 11, None)
            last = last_scores(scores, rows, own, 10)
            return Exam(examined, 10, vectors, own, last).point(Effort(12, 165)).recall

        everything = np.arange(N)
        is_held = held_out(examined.drawn(everything))
        queries = recall(blobs(4 * NQ, 3), np.full(4 * NQ, -1))
        learnt = recall(examined.drawn(everything[~is_held]), everything[~is_held])
        held = recall(examined.drawn(everything[is_held]), everything[is_held])
        assert learnt - queries > 0.007  # measured 0.013 to 0.016
        assert abs(held - queries) < 0.011  # three standard errors; measured within 0.005
