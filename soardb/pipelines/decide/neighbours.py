"""Neighbours: laws of the labels that are stored near to a query.

    a collection -> [neighbours.py] -> laws.py; temperature from held-out questions

A label weighs exp(score / temperature), the score being that of the collection's metric: cold, the
closest alone counts; hot, all k alike. Which temperature is right is measured, on points whose
label is known, by a proper score: one that is best, on average, where the law is the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int, as_vectors
from soardb.errors import InvalidArgument
from soardb.filters import F, as_filter
from soardb.options import Filter, as_number
from soardb.pipelines.decide.laws import F64, Laws, Values, as_values
from soardb.pipelines.decide.scores import proper
from soardb.schema import PointId, Schema, shown, values_at

__all__ = ["Near", "as_temperature", "calibrated", "near"]

Progress = Callable[[float], None]

_BATCH = 512
_STEPS = 33  # temperatures of one pass
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Near:
    """The labelled points closest to n queries, closest first.

    labels  (n, k) what is stored; anything where there is no further point
    scores  (n, k) of the collection's metric, bigger is closer; -inf where there is none
    """

    labels: Values
    scores: F64

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice) -> Near:
        return Near(self.labels[rows], self.scores[rows])

    def laws(self, temperature: float) -> Laws:
        """exp(score / temperature), made to sum to 1; inf weighs all alike."""
        if not temperature > 0:
            raise InvalidArgument(f"expected a temperature above 0, got {temperature}")
        there = np.isfinite(self.scores)
        z = np.where(there, self.scores - self.scores.max(axis=1, keepdims=True), 0.0)
        return Laws.of_matrix(self.labels, np.exp(z / temperature) * there)


def near(
    collection: Any,
    label_field: str,
    queries: npt.ArrayLike,
    k: int = 64,
    *,
    filter: Filter = None,
    without: Sequence[PointId] | None = None,
    target_recall: float | None = None,
    progress: Progress = lambda share: None,
) -> Near:
    """The k labelled points closest to each of (n, d) queries.

    collection   embedded, served, or over a cluster
    label_field  payload field, dotted if it is deeper. Where the schema declares it, only points
                 that have it are searched; where it does not, those without are left out of what
                 was found, and k is at most
    without      an id a query: a stored point is no neighbour of itself
    target_recall  as in search(); its default unless told

    Errors: InvalidArgument, also where no labelled point is found for a query.
    """
    as_int(k, "neighbours", 1, 5000)
    vectors = as_vectors(queries, collection.d, collection.metric, "queries")
    if without is not None and len(without) != len(vectors):
        raise InvalidArgument(f"expected an id for each of {len(vectors)} queries")
    schema = dict(collection.schema)
    where = as_filter(filter, Schema.of(schema))
    if label_field in schema:
        has_label = F(label_field).not_null()
        where = has_label if where is None else where & has_label
    extra = 0 if without is None else 1
    options: dict[str, Any] = {} if target_recall is None else {"target_recall": target_recall}
    scores = np.full((len(vectors), k), -np.inf)
    labels: list[Any] = [None] * scores.size
    for first in range(0, len(vectors), _BATCH):
        found = collection.search(
            vectors[first : first + _BATCH], k + extra, filter=where, **options
        )
        for row, hits in enumerate(found, first):
            mine = None if without is None else without[row]
            said = values_at(hits.payloads, label_field)
            kept = [
                (label, score)
                for point_id, label, score in zip(hits.ids, said, hits.scores, strict=True)
                if label is not None and (extra == 0 or point_id != mine)
            ][:k]
            if not kept:
                raise InvalidArgument(
                    f"expected points with {label_field!r} near query {row}, there are none; "
                    "declare the field in the schema, or label more points"
                )
            for column, (label, score) in enumerate(kept):
                if isinstance(label, list | dict):
                    raise InvalidArgument(
                        f"expected numbers, text or truth values in {label_field!r}, got "
                        f"{shown(label)}"
                    )
                labels[row * k + column] = label
                scores[row, column] = score
        progress(min(1.0, (first + _BATCH) / len(vectors)))
    there = np.isfinite(scores).ravel()
    held = as_values([label for label, is_there in zip(labels, there, strict=True) if is_there])
    matrix = np.zeros(scores.size, held.dtype)
    matrix[there] = held
    return Near(matrix.reshape(scores.shape), scores)


def calibrated(
    found: Near, truths: npt.ArrayLike, *, is_ordered: bool = True
) -> tuple[float, float]:
    """The temperature whose laws score best on questions with known answers, and that mean score.

    found   of these questions, none of them its own neighbour
    truths  (n,) their labels
    is_ordered  whether numbers are more than names of classes: see Metric

    By CRPS where labels are such numbers, otherwise by Brier's score (scores.py): both are finite
    where the truth is not among the neighbours. Tries 99 temperatures, ever closer together; inf,
    where nothing is gained by the scores, is one of them. Costs as many passes over (n, k).
    """
    y = as_values(truths)
    if y.shape != (len(found),) or not len(found):
        raise InvalidArgument(f"expected {len(found)} truths, at least one, got shape {y.shape}")
    there = np.isfinite(found.scores)
    worst = np.where(there, found.scores, np.inf).min(axis=1)
    spread = found.scores.max(axis=1) - worst
    typical = float(np.median(spread[spread > 0])) if (spread > 0).any() else 1.0

    def score(temperature: float) -> float:
        return float(proper(found.laws(temperature), y, is_ordered=is_ordered).mean())

    best, at = score(np.inf), np.inf
    low, high = np.log(typical / 1000), np.log(typical * 100)
    for _ in range(_PASSES):
        tried = np.linspace(low, high, _STEPS)
        scored = [score(float(np.exp(t))) for t in tried]
        place = int(np.argmin(scored))
        if scored[place] < best:
            best, at = scored[place], float(np.exp(tried[place]))
        low, high = tried[max(0, place - 1)], tried[min(_STEPS - 1, place + 1)]
    return at, best


def as_temperature(value: float | None) -> float | None:
    """A temperature above 0, inf allowed, or None: measure it. Errors: InvalidArgument."""
    if value is None or value == np.inf:
        return value
    if as_number(value, "temperature") <= 0:
        raise InvalidArgument(f"expected a temperature above 0, got {value}")
    return float(value)
