"""Where an ensemble comes from: models, classifiers, or networks trained on stored points.

    models, estimators, collections -> [source.py] -> ensemble.py

Files and tables of predictions are read by files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.diagnose.ensemble import F64, NOT_TOLD, Ensemble
from soardb.pipelines.diagnose.replicas import cross_fit
from soardb.pipelines.diagnose.training import Progress, TrainConfig
from soardb.pipelines.stored import read_points
from soardb.schema import PointId, shown, values_at

__all__ = ["labels_of", "of_collection", "of_estimators", "of_models"]


def of_models(
    models: Sequence[Callable[[Any], npt.ArrayLike]],
    samples: Any,
    labels: npt.ArrayLike,
    ids: Any = None,
    *,
    randomness: str = NOT_TOLD,
) -> Ensemble:
    """Of models, each a function from the samples to (n, c) logits. Errors: InvalidArgument."""
    return Ensemble.of_logits(
        _stacked([model(samples) for model in models]), labels, ids, randomness=randomness
    )


def of_estimators(
    estimators: Sequence[Any],
    samples: Any,
    labels: npt.ArrayLike,
    ids: Any = None,
    *,
    randomness: str = NOT_TOLD,
) -> Ensemble:
    """Of fitted classifiers with predict_proba and classes_, such as those of scikit-learn.

    labels  n of `classes_`, on which the classifiers must agree; they name the classes

    Probabilities end where float64 or the classifier does, so prefer of_models where there are
    logits. Errors: InvalidArgument.
    """
    if not len(estimators):
        raise InvalidArgument("expected at least 2 classifiers, got none")
    names = np.asarray(estimators[0].classes_)
    for other in estimators:
        if not np.array_equal(other.classes_, names):
            raise InvalidArgument(
                f"expected classifiers of the same classes, got {names} and {other.classes_}"
            )
    places = {name: place for place, name in enumerate(names.tolist())}
    given = np.asarray(labels).tolist()
    unknown = [label for label in given if label not in places]
    if unknown:
        raise InvalidArgument(f"expected labels of {names}, got {unknown[0]!r}")
    return Ensemble.of_probabilities(
        _stacked([one.predict_proba(samples) for one in estimators]),
        [places[label] for label in given],
        ids,
        randomness=randomness,
        names=names.tolist(),
    )


def of_collection(
    collection: Any,
    label_field: str,
    config: TrainConfig | None = None,
    *,
    folds: int = 5,
    filter: Any = None,
    progress: Progress = lambda stage, share: None,
) -> Ensemble:
    """Of networks trained on the stored vectors and asked about those that they did not see.

    label_field  payload field of the labels, all whole numbers, strings or truth values; points
                 without it have no part in this
    folds        see cross_fit, which every point gets its predictions from
    filter       only of these points

    Holds one copy of the vectors, and the (m, n, c) predictions in float64 twice. Errors:
    InvalidArgument, Unavailable without PyTorch.
    """
    ids, vectors, payloads = read_points(collection, filter, True, progress)
    values = values_at(payloads, label_field)
    kept = [row for row, value in enumerate(values) if value is not None]
    if not kept:
        raise InvalidArgument(f"expected points with the field {label_field!r}, there are none")
    labels = [values[row] for row in kept]
    kinds = {type(label) for label in labels}
    if len(kinds) > 1 or not kinds <= {int, str, bool}:
        told = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InvalidArgument(
            f"expected whole numbers alone, or strings alone, in {label_field!r}, got {told}"
        )
    own = [ids[row] for row in kept]
    return cross_fit(vectors[kept], labels, config, folds=folds, ids=own, progress=progress)


def labels_of(
    collection: Any, ids: Sequence[PointId], label_field: str, names: Sequence[Any] | None = None
) -> list[int]:
    """A payload field of points, as classes: whole numbers, or places of `names`.

    names  of the classes; the field then has these. Errors: NotFound, InvalidArgument.
    """
    # As JSON, in which 1, true, 1.0 and "1" are four names.
    codes = None if names is None else {json.dumps(name): code for code, name in enumerate(names)}
    out = []
    for first in range(0, len(ids), 1000):
        some = ids[first : first + 1000]
        for point_id, point in zip(some, collection.get(some), strict=True):
            if point is None:
                raise NotFound(f"expected a point for each sample, there is none with {point_id!r}")
            (label,) = values_at([point.payload or {}], label_field)
            if codes is not None:
                if (name := json.dumps(label, default=str)) not in codes:
                    raise InvalidArgument(
                        f"expected one of the classes {shown(names)} in {label_field!r} of "
                        f"every point, got {shown(label)} for {point_id!r}"
                    )
                out.append(codes[name])
                continue
            if isinstance(label, bool) or not isinstance(label, int):
                raise InvalidArgument(
                    f"expected a whole number in {label_field!r} of every point, got "
                    f"{shown(label)} for {point_id!r}"
                )
            out.append(label)
    return out


def _stacked(predictions: Sequence[npt.ArrayLike]) -> F64:
    found = [np.asarray(one, np.float64) for one in predictions]
    shapes = sorted({one.shape for one in found})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise InvalidArgument(
            f"expected (n, c) predictions of every model, all of one shape, got {shapes or 'none'}"
        )
    return np.stack(found)
