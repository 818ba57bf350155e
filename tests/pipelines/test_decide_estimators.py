"""scikit-learn's face of decide: classifiers and collections that decide for a metric.

estimators.py -> [test_decide_estimators.py]
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from soardb.errors import InvalidArgument
from soardb.pipelines import decide
from soardb.pipelines.decide.estimators import ALPHAS, MetricAware, NeighbourDecider
from tests.pipelines.nouns import drawn, stored

X, Y = drawn(600, 0)
X_TEST, Y_TEST = drawn(400, 1)
PLAIN = LogisticRegression(max_iter=500)


def test_a_classifier_decides_for_the_metric() -> None:
    """The mean beats its predict() in squared error, the median in absolute error."""
    said = PLAIN.fit(X, Y).predict(X_TEST)
    for metric in ("rmse", "absolute_error"):
        model = MetricAware(PLAIN, metric).fit(X, Y)
        judge = decide.as_metric(metric)
        assert -model.score(X_TEST, Y_TEST) == judge(Y_TEST, model.predict(X_TEST))
        assert judge(Y_TEST, model.predict(X_TEST)) < judge(Y_TEST, said)
    shares = model.estimator_.predict_proba(X_TEST)
    assert model.predict_laws(X_TEST).weights == pytest.approx(shares)


def test_alpha_is_chosen_where_probabilities_are_too_flat() -> None:
    """A model that is unsure by regularisation is sharpened."""
    timid = LogisticRegression(C=1e-4, max_iter=500)
    plain, fitted = MetricAware(timid, "rmse"), MetricAware(timid, "rmse", alpha="fit")
    assert fitted.fit(X, Y).score(X_TEST, Y_TEST) > plain.fit(X, Y).score(X_TEST, Y_TEST)
    assert fitted.alpha_ > 1
    assert fitted.alpha_ in ALPHAS
    assert plain.alpha_ == 1


def test_the_threshold_of_f1_is_learned() -> None:
    """From out-of-fold probabilities; a lone question is not called positive for being alone."""
    rare, rare_test = Y > 8, Y_TEST > 8
    model = MetricAware(PLAIN, "f1:True").fit(X, rare)
    judge = decide.f1(True)
    said = PLAIN.fit(X, rare).predict(X_TEST)
    called = model.predict(X_TEST)
    assert judge(rare_test, called) > judge(rare_test, said)
    alone = np.array([model.predict(row[None])[0] for row in X_TEST[:50]])
    assert (alone == called[:50]).all()


def test_neighbours_decide_like_run(tmp_path: Path) -> None:
    """Fitted on stored points, or on questions of one's own."""
    with stored(tmp_path / "db") as nouns:
        model = NeighbourDecider(nouns, "depth", "rmse", held_out=200).fit()
        config = decide.DecideConfig("rmse", label_field="depth", held_out=200)
        want = decide.run(nouns, config, X_TEST)
        assert model.temperature_ == want.temperature
        assert model.score_ == want.score
        assert model.predict(X_TEST) == pytest.approx(want.values)
        own = NeighbourDecider(nouns, "depth", "rmse").fit(X_TEST[:200], Y_TEST[:200])
        found = decide.near(nouns, "depth", X_TEST[:200])
        assert own.temperature_ == decide.calibrated(found, Y_TEST[:200])[0]
        told = NeighbourDecider(nouns, "depth", "rmse", temperature=2.0).fit()
        assert (told.temperature_, told.score_) == (2.0, None)
        with pytest.raises(InvalidArgument, match="one of them"):
            model.fit(X_TEST)
        with pytest.raises(InvalidArgument, match="neighbours"):
            NeighbourDecider(nouns, "depth", neighbours=0).fit()


def test_they_go_through_scikit_learns_tools(tmp_path: Path) -> None:
    """clone, cross validation, a grid search, get and set of parameters."""
    scores = cross_val_score(MetricAware(PLAIN, "absolute_error"), X, Y, cv=3)
    assert (scores < 0).all()
    search = GridSearchCV(MetricAware(PLAIN, "rmse"), {"alpha": [0.25, 1.0]}, cv=3).fit(X, Y)
    assert search.best_params_ == {"alpha": 1.0}
    with stored(tmp_path / "db") as nouns:
        model = NeighbourDecider(nouns, "depth", neighbours=5)
        again = clone(model)
        assert again.collection is nouns
        assert again.set_params(neighbours=7).neighbours == 7
        search = GridSearchCV(model, {"neighbours": [1, 40]}, cv=3).fit(X_TEST, Y_TEST)
        assert search.best_params_ == {"neighbours": 40}


def test_what_has_no_probabilities_is_refused() -> None:
    """And what was not fitted."""

    class Bare:
        """No classifier."""

    bare: Any = Bare()
    with pytest.raises(InvalidArgument, match="predict_proba, got Bare"):
        MetricAware(bare).fit(X, Y)
    with pytest.raises(Exception, match="not fitted"):
        MetricAware(PLAIN).predict(X)


def test_folds_are_stratified_and_models_go_to_other_processes() -> None:
    """On flowers that stand in order of their kind; a bad alpha is named."""
    flowers = load_iris()
    scores = cross_val_score(MetricAware(PLAIN, "exact_match"), flowers.data, flowers.target, cv=3)
    assert scores.min() > 0.9
    model = MetricAware(PLAIN, "f1:True", alpha="fit").fit(X, Y > 6)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = pool.submit(model.predict, X_TEST).result(60)
    assert (there == model.predict(X_TEST)).all()
    assert model.n_features_in_ == X.shape[1]
    bad: Any
    for bad in ("best", [1], -1):
        with pytest.raises(InvalidArgument, match="alpha"):
            MetricAware(PLAIN, alpha=bad).fit(X, Y)
