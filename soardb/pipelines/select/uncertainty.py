"""How sure a model is of each point, as weights: small where it is not, never negative.

    run.py -> [uncertainty.py] -> a collection's searches, for votes of neighbours

The objective is made small, so a point that a model cannot decide must weigh little: its margin,
not one minus its margin. Source of the margin: Scheffer, Decomain and Wrobel, "Active hidden Markov
models for information extraction", 2001; its place in the objective: arXiv 2312.10602, abstract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.schema import PointId

__all__ = ["KINDS", "Uncertainty", "as_weights", "softmax", "votes", "weights_of"]

Uncertainty = Literal["margin", "entropy", "least_confidence"]
KINDS: tuple[Uncertainty, ...] = get_args(Uncertainty)

F64 = npt.NDArray[np.float64]

_BATCH = 1024
_LARGEST = 1e300  # of a sum that is to be multiplied still


def weights_of(probabilities: npt.ArrayLike, kind: Uncertainty = "margin") -> F64:
    """(n,) weights in 0..1 of (n, c) probabilities, c at least 2.

    margin            the largest less the second largest
    entropy           1 - entropy / log c
    least_confidence  (the largest - 1/c) / (1 - 1/c)

    0: all classes, or two of them, are as likely; 1: one is certain. Errors: InvalidArgument.
    """
    p = _as_floats(probabilities, "probabilities")
    if p.ndim != 2 or p.shape[1] < 2:
        raise InvalidArgument(f"expected (n, c) probabilities, c at least 2, got shape {p.shape}")
    if not np.isfinite(p).all() or (p < 0).any() or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise InvalidArgument(
            "expected rows of probabilities that sum to 1; logits go through softmax()"
        )
    c = p.shape[1]
    if kind == "margin":
        top = np.partition(p, c - 2, axis=1)
        return np.asarray(np.clip(top[:, -1] - top[:, -2], 0, 1))
    if kind == "entropy":
        logs = np.log(p, out=np.zeros_like(p), where=p > 0)
        return np.asarray(np.clip(1 + (p * logs).sum(axis=1) / np.log(c), 0, 1))
    if kind == "least_confidence":
        return np.asarray(np.clip((p.max(axis=1) - 1 / c) / (1 - 1 / c), 0, 1))
    raise InvalidArgument(f"expected uncertainty one of {', '.join(KINDS)}, got {kind!r}")


def softmax(logits: npt.ArrayLike) -> F64:
    """(n, c) probabilities of (n, c) logits. Errors: InvalidArgument."""
    z = _as_floats(logits, "logits")
    if z.ndim != 2 or not np.isfinite(z).all():
        raise InvalidArgument(f"expected (n, c) finite logits, got shape {z.shape}")
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def as_weights(weights: npt.ArrayLike, n: int) -> F64:
    """(n,) finite weights that are not negative. Errors: InvalidArgument, naming the first one."""
    w = _as_floats(weights, "weights")
    if w.shape != (n,):
        raise InvalidArgument(f"expected a weight for each of {n} points, got shape {w.shape}")
    bad = np.flatnonzero(~np.isfinite(w) | (w < 0))
    if len(bad):
        raise InvalidArgument(
            f"expected finite weights of at least 0, got {w[bad[0]]} for point {bad[0]} and "
            f"{len(bad) - 1} more"
        )
    with np.errstate(over="ignore"):
        is_large = w.sum() > _LARGEST
    if is_large:
        raise InvalidArgument(f"expected weights whose sum is at most {_LARGEST:g}, got more")
    return w


def _as_floats(values: npt.ArrayLike, name: str) -> F64:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected {name} as an array of numbers: {error}") from None


def votes(
    collection: Any,
    ids: Sequence[PointId],
    vectors: F32,
    labels: Sequence[Any],
    neighbours: int = 10,
    progress: Callable[[float], None] = lambda share: None,
) -> F64:
    """(n, c) shares of the labels among the closest labelled points of each, itself left out.

    collection  searched for them; its points bring the labels, by id
    labels      of each point; None where it has none
    neighbours  how many have a vote, each weighing 1

    A point of which no neighbour has a label: every class is as likely. Errors: InvalidArgument
    with fewer than two classes.
    """
    classes = sorted({label for label in labels if label is not None}, key=repr)
    if len(classes) < 2:
        raise InvalidArgument(
            f"expected labels of at least two classes among the points, got {classes!r}"
        )
    number = {label: i for i, label in enumerate(classes)}
    place = {
        point_id: number[label]
        for point_id, label in zip(ids, labels, strict=True)
        if label is not None
    }
    out = np.zeros((len(ids), len(classes)))
    for first in range(0, len(ids), _BATCH):
        found = collection.search(
            vectors[first : first + _BATCH], neighbours + 1, with_payload=False
        )
        for row, hits in enumerate(found, first):
            near = [other for other in list(hits.ids) if other != ids[row]][:neighbours]
            for other in near:
                if other in place:
                    out[row, place[other]] += 1
        progress(min(1.0, (first + _BATCH) / len(ids)))
    total = out.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, out / np.maximum(total, 1), 1 / len(classes)))
