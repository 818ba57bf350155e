"""scikit-learn's face: estimators that are fitted on questions with answers, and decide others.

    scikit-learn -> [estimators.py] -> laws.py, neighbours.py, metrics.py

MetricAware wraps a classifier, NeighbourDecider a collection; both take any metric of metrics.py.
Importing this module needs scikit-learn, the rest of the package does not.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils.validation import check_is_fitted

from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.pipelines.decide.laws import Laws, Values, as_values
from soardb.pipelines.decide.metrics import Metric, as_metric
from soardb.pipelines.decide.neighbours import Near, as_temperature, calibrated, near
from soardb.pipelines.decide.run import DecideConfig, held_out

__all__ = ["ALPHAS", "MetricAware", "NeighbourDecider"]

ALPHAS = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
"""What alpha="fit" chooses from."""


class _Decider(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both share: alpha and the F1 threshold from laws with known answers."""

    metric: Any
    alpha: Any

    def _fit_decision(self, laws: Laws, truths: npt.ArrayLike) -> None:
        metric, y = as_metric(self.metric), as_values(truths)
        self.alpha_ = self._checked_alpha()
        if self.alpha == "fit":
            sign = 1 if metric.higher_is_better else -1
            scored = [sign * metric(y, metric.decide(laws.powered(a))) for a in ALPHAS]
            # Of equals, and where a measure is undefined, the one closest to 1.
            order = sorted(range(len(ALPHAS)), key=lambda i: abs(np.log(ALPHAS[i])))
            self.alpha_ = ALPHAS[max(order, key=lambda i: np.nan_to_num(scored[i], nan=-np.inf))]
        self.metric_: Metric = metric
        if metric.fitted is not None:
            self.metric_ = metric.fitted(laws.powered(self.alpha_), y)

    def _checked_alpha(self) -> Any:
        """A number of at least 0, or "fit". Errors: InvalidArgument."""
        if self.alpha == "fit":
            return self.alpha
        if as_number(self.alpha, 'alpha, or "fit",') < 0:
            raise InvalidArgument(f"expected alpha of at least 0, got {self.alpha}")
        return self.alpha

    def _laws(self, X: Any) -> Laws:
        raise NotImplementedError

    def predict_laws(self, X: Any) -> Laws:
        """The distributions under which predict() decides, p^alpha."""
        check_is_fitted(self, "metric_")
        return self._laws(X).powered(self.alpha_)

    def predict(self, X: Any) -> Values:
        """(n,) decisions, best for the metric."""
        laws = self.predict_laws(X)
        return self.metric_.decide(laws)

    def score(self, X: Any, y: npt.ArrayLike) -> float:
        """The metric of predict(X), with its sign turned where low is good."""
        found = self.metric_(y, self.predict(X))
        return found if self.metric_.higher_is_better else -found


class MetricAware(MetaEstimatorMixin, _Decider):  # type: ignore[misc]
    """A classifier whose predict_proba is decided under by the best rule for a metric.

    estimator  a classifier with predict_proba; a clone of it is fitted
    metric     as DecideConfig.metric
    alpha      p^alpha; "fit": chosen of ALPHAS on out-of-fold probabilities, by the metric
    cv         folds for these, and for the threshold of F1; as in scikit-learn

    Fitted: estimator_, classes_, alpha_, metric_. To scikit-learn it is a classifier, so that folds
    are stratified.
    """

    def __sklearn_tags__(self) -> Any:
        """A classifier, as it is fitted on classes."""
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        return tags

    def __init__(
        self, estimator: Any, metric: Any = "squared_error", alpha: Any = 1.0, cv: Any = 5
    ) -> None:
        self.estimator = estimator
        self.metric = metric
        self.alpha = alpha
        self.cv = cv

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the classifier on (n, d) samples and n classes, and what the decision needs."""
        if not hasattr(self.estimator, "predict_proba"):
            raise InvalidArgument(
                f"expected a classifier with predict_proba, got {type(self.estimator).__name__}"
            )
        classes = np.unique(np.asarray(y))
        metric = as_metric(self.metric)
        if self._checked_alpha() == "fit" or metric.fitted is not None:
            shares = cross_val_predict(
                clone(self.estimator), X, y, cv=self.cv, method="predict_proba"
            )
            self._fit_decision(Laws.of_probabilities(shares, classes.tolist()), y)
        else:
            self.alpha_, self.metric_ = self.alpha, metric
        self.estimator_ = clone(self.estimator).fit(X, y)
        self.classes_ = self.estimator_.classes_
        if hasattr(self.estimator_, "n_features_in_"):
            self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def _laws(self, X: Any) -> Laws:
        return Laws.of_probabilities(self.estimator_.predict_proba(X), self.classes_.tolist())


class NeighbourDecider(_Decider):
    """Decisions from the labels that a collection stores near to a query.

    collection, label_field, ...  as in DecideConfig and run()
    metric, alpha                 as in MetricAware

    Fitted: temperature_, score_ (the proper score at it, None if it was given), alpha_, metric_.
    """

    def __init__(
        self,
        collection: Any,
        label_field: str,
        metric: Any = "squared_error",
        alpha: Any = 1.0,
        neighbours: int = 64,
        temperature: float | None = None,
        held_out: int = 1000,
        filter: Any = None,
        target_recall: float | None = None,
        seed: int = 0,
    ) -> None:
        self.collection = collection
        self.label_field = label_field
        self.metric = metric
        self.alpha = alpha
        self.neighbours = neighbours
        self.temperature = temperature
        self.held_out = held_out
        self.filter = filter
        self.target_recall = target_recall
        self.seed = seed

    def __sklearn_clone__(self) -> Self:
        """The same collection: it is not copied."""
        return type(self)(**self.get_params(deep=False))

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Measure temperature and alpha on (n, d) questions that are not stored, with n answers.

        Without them on `held_out` of the stored points, each of them without itself.
        """
        if (X is None) != (y is None):
            raise InvalidArgument("expected questions and answers, or neither, got one of them")
        if X is None:
            found, truths = held_out(self.collection, self._config())
        else:
            found, truths = self._near(X), as_values(y)
        temperature, self.score_ = as_temperature(self.temperature), None
        if temperature is None:
            ordered = as_metric(self.metric).is_ordered
            temperature, self.score_ = calibrated(found, truths, is_ordered=ordered)
        self.temperature_ = temperature
        self._fit_decision(found.laws(temperature), truths)
        return self

    def _config(self) -> DecideConfig:
        given = self.get_params(deep=False)
        config = DecideConfig(**{k: given[k] for k in given if k not in ("collection", "alpha")})
        config.check()
        return config

    def _near(self, X: Any) -> Near:
        config = self._config()
        return near(
            self.collection,
            self.label_field,
            X,
            config.neighbours,
            filter=config.filter,
            target_recall=config.target_recall,
        )

    def _laws(self, X: Any) -> Laws:
        return self._near(X).laws(self.temperature_)
