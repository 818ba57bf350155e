"""Replicas of a small network: the ensemble of those who have none.

    features, labels -> training.py -> [replicas.py] -> ensemble.py, source.py

    replicas = Replicas(TrainConfig(members=20)).fit(features, labels)
    Ensemble.of_logits(replicas.logits(others), replicas.codes(their_labels))
    cross_fit(features, labels)  # every sample asked of networks that did not see it

PyTorch trains, NumPy predicts. Nothing here touches a collection.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.pipelines.diagnose.ensemble import F64, Ensemble
from soardb.pipelines.diagnose.training import Maps, Progress, TrainConfig, trained

__all__ = ["Replicas", "cross_fit"]

_BLOCK = 1 << 22  # activations of all replicas that are held at once when predicting


class Replicas:
    """m networks from vectors to classes, with fit, predict, predict_proba and classes_."""

    def __init__(self, config: TrainConfig | None = None) -> None:
        self.config = config or TrainConfig()
        self.config.check()
        self.classes_: npt.NDArray[Any] = np.empty(0, np.int64)
        self._middle, self._scale = np.empty(0, np.float32), np.float32(1)
        self._maps: Maps = []

    def fit(
        self,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        classes: npt.ArrayLike | None = None,
        progress: Progress = lambda stage, share: None,
    ) -> Self:
        """Train on (n, d) features and n labels: whole numbers, strings or truth values.

        classes   all labels that there are, sorted, where some may be missing here
        progress  called with "train" and a share of it

        Features are centred and divided by one number, their root mean square, that of these n.
        Costs about 6 x members x batch x weights a step. Errors: InvalidArgument; Unavailable
        without PyTorch.
        """
        x, y = _features(features), _labels(labels)
        if len(x) != len(y) or len(y) < 2:
            raise InvalidArgument(
                f"expected as many labels as features, at least 2, got {len(y)} and {len(x)}"
            )
        self.classes_ = np.unique(_labels(y if classes is None else classes))
        if len(self.classes_) < 2:
            raise InvalidArgument(f"expected at least 2 classes, got {self.classes_.tolist()}")
        self._middle = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = float(np.sqrt(np.mean((x - self._middle) ** 2, dtype=np.float64)))
        self._scale = np.float32(spread if spread > 0 else 1)
        scaled = (x - self._middle) / self._scale
        self._maps = trained(scaled, self.codes(y), len(self.classes_), self.config, progress)
        return self

    def codes(self, labels: npt.ArrayLike) -> I64:
        """The places of labels in `classes_`. Errors: InvalidArgument for one that is not there."""
        y = _labels(labels)
        places = np.searchsorted(self.classes_, y)
        found = self.classes_[np.minimum(places, len(self.classes_) - 1)]
        if (found != y).any():
            other = y[found != y].tolist()[0]
            raise InvalidArgument(f"expected labels of {self.classes_.tolist()}, got {other!r}")
        return np.asarray(places, np.int64)

    def logits(self, features: npt.ArrayLike) -> F32:
        """(m, n, c) logits for (n, d) features, c in the order of `classes_`."""
        if not self._maps:
            raise InvalidArgument("expected trained replicas; call fit first")
        x = _features(features)
        if x.shape[1] != len(self._middle):
            raise InvalidArgument(
                f"expected features of {len(self._middle)} dimensions, got {x.shape[1]}"
            )
        m, widest = self.config.members, max(b.shape[2] for _, b in self._maps)
        out = np.empty((m, len(x), len(self.classes_)), np.float32)
        step = max(1, _BLOCK // (m * widest))
        for first in range(0, len(x), step):
            h = (x[first : first + step] - self._middle) / self._scale  # (some, d)
            for depth, (weights, biases) in enumerate(self._maps):
                h = np.matmul(np.maximum(h, 0) if depth else h, weights) + biases
            out[:, first : first + step] = h
        return out

    def predict_proba(self, features: npt.ArrayLike) -> F64:
        """(n, c) mean probabilities of the replicas."""
        logits = self.logits(features)
        return Ensemble.of_logits(logits, np.zeros(logits.shape[1], np.int64)).mean

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n,) the class that is likeliest on the average of the replicas."""
        return np.asarray(self.classes_[self.predict_proba(features).argmax(axis=1)])


def cross_fit(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    config: TrainConfig | None = None,
    *,
    folds: int = 5,
    ids: Any = None,
    progress: Progress = lambda stage, share: None,
) -> Ensemble:
    """What replicas say of (n, d) features that they were not trained on, of every one.

    The samples are dealt into `folds` parts, each label evenly. Of each part the replicas that are
    asked are trained on the others, m of them, so that folds x m networks are trained. Bias and
    variance of a sample are of the m that were asked about it.

    The labels of the ensemble are places in its `names`. Errors: those of Replicas.fit.
    """
    config = config or TrainConfig()
    config.check()
    x, y = _features(features), _labels(labels)
    if len(x) != len(y):
        raise InvalidArgument(f"expected as many labels as features, got {len(y)} and {len(x)}")
    as_int(folds, "folds", 2, max(2, len(y)))
    classes = np.unique(y)
    fold_of = _dealt(y, folds, config.seed)
    logits = np.empty((config.members, len(y), len(classes)), np.float32)
    for fold in range(folds):
        asked = fold_of == fold
        seed = int(np.random.SeedSequence([config.seed, fold]).generate_state(1)[0])
        replicas = Replicas(replace(config, seed=seed)).fit(
            x[~asked],
            y[~asked],
            classes=classes,
            progress=partial(_part, progress, fold, folds),
        )
        logits[:, asked] = replicas.logits(x[asked])
    codes = np.searchsorted(classes, y)
    return Ensemble.of_logits(logits, codes, ids, randomness=config.told, names=classes.tolist())


def _labels(labels: npt.ArrayLike) -> npt.NDArray[Any]:
    """(n,) whole numbers, strings or truth values. Errors: InvalidArgument."""
    y = np.asarray(labels)
    if y.dtype == object and len({type(label) for label in y.ravel()}) == 1:
        y = np.array(y.tolist())
    if y.ndim != 1 or y.dtype.kind not in "iuUb" or not len(y):
        raise InvalidArgument(
            "expected n labels, all whole numbers, strings or truth values, got "
            f"{y.dtype} of shape {y.shape}"
        )
    return y


def _part(progress: Progress, fold: int, folds: int, stage: str, share: float) -> None:
    progress(stage, (fold + share) / folds)


def _features(values: npt.ArrayLike) -> F32:
    try:
        x = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected features as (n, d) numbers: {error}") from error
    if x.ndim != 2 or not x.shape[1] or not np.isfinite(x).all():
        raise InvalidArgument(f"expected features as finite (n, d) numbers, got shape {x.shape}")
    return x


def _dealt(labels: npt.NDArray[Any], folds: int, seed: int) -> I64:
    """(n,) the fold of each sample: shuffled, then those of a label dealt in turn."""
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    out = np.empty(len(labels), np.int64)
    out[order] = np.arange(len(labels)) % folds
    return out
