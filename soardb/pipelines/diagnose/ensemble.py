"""The predictions of several replicas of a model for the same samples, checked once.

    files, models -> [ensemble.py] -> decomposition.py, calibration.py, stability.py

Everything is float64, and what a replica is short of certainty is the sum over the other classes,
not one minus the largest: of a sure model the latter is rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.options import as_number
from soardb.points import as_point_ids
from soardb.schema import PointId

__all__ = ["F64", "NOT_TOLD", "Ensemble"]

F64 = npt.NDArray[np.float64]

NOT_TOLD = "not told"
HALVES = "init, order and halves"
"""The randomness of replicas of which 0 and 1, 2 and 3, ... have the two halves of a split."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Made by of_probabilities or of_logits.

    probabilities  (m, n, c) of m replicas for n samples of c classes
    logs           (m, n, c) their logarithms; -inf where a probability was given as 0
    labels         (n,) the true classes, in 0..c-1
    ids            n ids of points, 0..n-1 unless told
    randomness     what differs between replicas, in your words: what variance is depends on it
    names          c names of the classes; None where they are called 0..c-1
    """

    probabilities: F64
    logs: F64
    labels: I64
    ids: list[PointId]
    randomness: str = NOT_TOLD
    names: list[Any] | None = None

    @property
    def in_pairs(self) -> bool:
        """Whether replicas 0 and 1, 2 and 3, ... share a split, as their randomness says."""
        return self.randomness == HALVES

    @classmethod
    def of_probabilities(
        cls,
        probabilities: npt.ArrayLike,
        labels: npt.ArrayLike,
        ids: Any = None,
        *,
        randomness: str = NOT_TOLD,
        names: Sequence[Any] | None = None,
    ) -> Self:
        """Of (m, n, c) probabilities, which are divided by their sum; it must be 1 within 1e-3.

        m and c at least 2. Holds two float64 copies. Logits are better where they can be had, as
        float32 probabilities end at 1e-7 from 1. Errors: InvalidArgument.
        """
        p = _three(probabilities, "probabilities")
        if (p < 0).any():
            raise InvalidArgument(
                "expected probabilities of at least 0, some are below; logits go through of_logits"
            )
        total = p.sum(axis=2, keepdims=True)
        worst = float(np.abs(total - 1).max())
        if worst > 1e-3:
            raise InvalidArgument(
                f"expected probabilities that sum to 1, one sum is off by {worst:.3g}; logits go "
                "through of_logits"
            )
        p = p / total
        with np.errstate(divide="ignore"):
            logs = np.log(p)
        top = p.argmax(axis=2)[..., None]
        others = p.sum(axis=2, where=_not_at(top, p.shape[2]))[..., None]
        np.put_along_axis(logs, top, np.log1p(-others), axis=2)
        return cls(p, logs, *_samples(labels, ids, p.shape), randomness, _names(names, p.shape[2]))

    @classmethod
    def of_logits(
        cls,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        ids: Any = None,
        *,
        randomness: str = NOT_TOLD,
        names: Sequence[Any] | None = None,
    ) -> Self:
        """Of (m, n, c) logits; m and c at least 2. Errors: InvalidArgument."""
        z = _three(logits, "logits")
        top = z.argmax(axis=2)[..., None]
        z = z - np.take_along_axis(z, top, axis=2)
        others = np.exp(z).sum(axis=2, where=_not_at(top, z.shape[2]))[..., None]
        logs = z - np.log1p(others)
        return cls(
            np.exp(logs),
            logs,
            *_samples(labels, ids, z.shape),
            randomness,
            _names(names, z.shape[2]),
        )

    def __len__(self) -> int:
        """How many samples."""
        return len(self.labels)

    @property
    def members(self) -> int:
        """How many replicas."""
        return len(self.probabilities)

    @property
    def classes(self) -> int:
        """How many classes."""
        return int(self.probabilities.shape[2])

    @property
    def mean(self) -> F64:
        """(n, c) mean of the replicas."""
        return np.asarray(self.probabilities.mean(axis=0))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the mean of the replicas is largest at the label; of equals, the first."""
        return np.asarray(self.mean.argmax(axis=1) == self.labels)

    def named(self, codes: I64) -> list[Any]:
        """What the classes of these codes are called."""
        plain: list[Any] = codes.tolist()
        return plain if self.names is None else [self.names[code] for code in plain]

    def errors(self) -> F64:
        """(m, n, c) predictions less the one-hot labels, which sum to 0 over the classes."""
        out = self.probabilities.copy()
        at = np.broadcast_to(self.labels[None, :, None], (*out.shape[:2], 1))
        np.put_along_axis(out, at, 0.0, axis=2)
        np.put_along_axis(out, at, -out.sum(axis=2, keepdims=True), axis=2)
        return out

    def only(self, members: Any) -> Self:
        """The same samples with some of the replicas, by their numbers.

        What is left of HALVES without whole pairs in order is no longer said to be in pairs.
        """
        made = replace(self, probabilities=self.probabilities[members], logs=self.logs[members])
        kept = np.arange(self.members)[members]
        whole = len(kept) % 2 == 0 and bool(
            (kept[::2] % 2 == 0).all() and (kept[1::2] == kept[::2] + 1).all()
        )
        return made if whole or not self.in_pairs else replace(made, randomness=NOT_TOLD)

    def floored(self, floor: float) -> Self:
        """The same with probabilities of at least `floor`, in 0..1/c, before they sum to 1."""
        if not 0 < as_number(floor, "floor") <= 1 / self.classes:
            raise InvalidArgument(
                f"expected floor above 0 and at most 1/{self.classes}, got {floor}"
            )
        raised = np.maximum(self.probabilities, floor)
        raised /= raised.sum(axis=2, keepdims=True)
        return replace(
            type(self).of_probabilities(raised, self.labels),
            ids=self.ids,
            randomness=self.randomness,
            names=self.names,
        )


def _three(values: npt.ArrayLike, name: str) -> F64:
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected {name} as numbers of shape (m, n, c): {error}") from error
    if found.ndim != 3 or found.shape[0] < 2 or found.shape[1] < 1 or found.shape[2] < 2:
        raise InvalidArgument(
            f"expected {name} of shape (m, n, c) with at least 2 replicas, 1 sample and 2 "
            f"classes, got shape {found.shape}"
        )
    if not np.isfinite(found).all():
        raise InvalidArgument(f"expected finite {name}, some are not")
    return found


def _samples(labels: npt.ArrayLike, ids: Any, shape: tuple[int, ...]) -> tuple[I64, list[PointId]]:
    _, n, c = shape
    y = np.asarray(labels)
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise InvalidArgument(
            f"expected a whole number as the label of each of {n} samples, got {y.dtype} of shape "
            f"{y.shape}"
        )
    bad = np.flatnonzero((y < 0) | (y >= c))
    if len(bad):
        raise InvalidArgument(f"expected labels in 0..{c - 1}, got {y[bad[0]]} at {bad[0]}")
    names: list[PointId] = list(range(n)) if ids is None else as_point_ids(ids)
    if len(names) != n or len(set(names)) != n:
        raise InvalidArgument(
            f"expected {n} ids that differ, got {len(names)}, {len(set(names))} of them different"
        )
    return y.astype(np.int64), names


def _names(names: Sequence[Any] | None, c: int) -> list[Any] | None:
    if names is None:
        return None
    plain = [one.item() if isinstance(one, np.generic) else one for one in names]
    if len(plain) != c or len(set(plain)) != c:
        raise InvalidArgument(f"expected {c} names of classes that differ, got {plain}")
    return plain


def _not_at(places: npt.NDArray[np.intp], c: int) -> npt.NDArray[np.bool_]:
    return np.asarray(np.arange(c) != places)
