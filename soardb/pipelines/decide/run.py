"""Decide: for each question the answer that is best for a metric, under a predictive distribution.

    user code, soardb decide -> [run.py] -> neighbours.py, metrics.py

    decided = decide.run(collection, DecideConfig("absolute_error", label_field="depth"), queries)
    decided.values, decided.risk, decided.temperature
    decide.run(Laws.of_samples(texts, float), DecideConfig("rmse"))

The same face whatever the distributions come from. Nothing is written unless it is asked for.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.kernels.layout import F32
from soardb.options import Filter, as_number
from soardb.pipelines.decide.compare import Table, compare
from soardb.pipelines.decide.laws import F64, Laws, Values, as_values
from soardb.pipelines.decide.metrics import Metric, as_metric
from soardb.pipelines.decide.neighbours import Near, as_temperature, calibrated, near
from soardb.pipelines.stored import pages, plain, set_fields
from soardb.points import as_point_ids
from soardb.schema import PointId, shown, values_at

__all__ = ["DecideConfig", "Decisions", "held_out", "run", "trial"]

_OF_NUMBERS = ("rmse", "absolute_error", "pearson", "ranking")

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class DecideConfig:
    """What to decide, and from what.

    metric         a name of METRICS, "pinball:0.9", "f1:yes", "auc:1", a Metric, a loss(truth, v)
    alpha          p^alpha is decided under: above 1 sharper, below flatter
    rounded        numbers become the closest whole ones, which gives back a part of the gain

    Of a collection:

    label_field    payload field of the labels
    neighbours     how many labelled points make a law, at most
    temperature    what scores are divided by; inf weighs all alike. None: measured on `held_out`
                   stored points, each of them without itself
    filter         the points that take part
    target_recall  of the searches; that of the collection unless told
    seed           of which points are held out
    """

    metric: Any = "squared_error"
    alpha: float = 1.0
    rounded: bool = False
    label_field: str | None = None
    neighbours: int = 64
    temperature: float | None = None
    held_out: int = 1000
    filter: Filter = None
    target_recall: float | None = None
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_metric(self.metric)
        if as_number(self.alpha, "alpha") < 0:
            raise InvalidArgument(f"expected alpha of at least 0, got {self.alpha}")
        as_int(self.neighbours, "neighbours", 1, 5000)
        as_int(self.held_out, "held_out", 1, 1_000_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        as_temperature(self.temperature)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The report: (n,) values, by the order of the questions.

    ids          of stored points, or 0..n-1
    risk         (n,) the loss that each is expected to have under its law; None for a metric of a
                 population, such as AUC
    laws         what was decided under
    temperature  that was taken; None unless the laws came from neighbours
    score        mean proper score of the held-out points at it: CRPS, or Brier's where values are
                 but names; None where the temperature was given
    are_points   whether ids are of points: they were told, or read from the collection
    """

    ids: list[PointId]
    values: Values
    risk: F64 | None
    laws: Laws
    metric: Metric
    temperature: float | None
    score: float | None
    seconds: float
    are_points: bool

    def __len__(self) -> int:
        return len(self.ids)

    def to_arrow(self) -> Any:
        """A pyarrow.Table of id, decision, risk (null without losses), mass."""
        pa = need_pyarrow()
        n = len(self)
        return pa.table(
            {
                "id": self.ids,
                "decision": self.values.tolist(),
                "risk": pa.nulls(n, pa.float64()) if self.risk is None else self.risk,
                "mass": self.laws.mass,
            }
        ).replace_schema_metadata({"metric": self.metric.name})

    def to_json(self) -> dict[str, Any]:
        """Plain values by name, without the laws; an infinite temperature is "inf"."""
        mean_risk = None if self.risk is None or not len(self) else float(self.risk.mean())
        found: dict[str, Any] = plain(
            {
                "metric": self.metric.name,
                "ids": self.ids,
                "decisions": self.values.tolist(),
                "risk": None if self.risk is None else self.risk.tolist(),
                "mean_risk": mean_risk,
                "mean_mass": float(self.laws.mass.mean()) if len(self) else None,
                "temperature": self.temperature,
                "score": self.score,
                "seconds": self.seconds,
            }
        )
        return found

    def write_field(self, collection: Any, name: str) -> int:
        """Set a payload field of the points to what was decided; returns how many were set.

        Written into the field of the labels, decisions are evidence for the next ones. Errors:
        InvalidArgument, before anything is written, where ids were not told, or where the field is
        declared to be of another type; NotFound, likewise, where ids are of no points.
        """
        if not self.are_points:
            raise InvalidArgument(
                "expected decisions about stored points, got ones about queries; tell their ids"
            )
        values = self.values.tolist()
        kind = dict(collection.schema).get(name)
        check_kind(kind, name, values)
        whole = kind == "int"
        changes = [{name: int(value) if whole else value} for value in values]
        return set_fields(collection, self.ids, changes)


def check_kind(kind: str | None, name: str, values: Sequence[Any]) -> None:
    """InvalidArgument where decisions do not go into a payload field of this declared type."""
    fits: dict[str, Callable[[Any], bool]] = {
        "int": lambda v: not isinstance(v, bool | str) and float(v).is_integer(),
        "float": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        "bool": lambda v: isinstance(v, bool),
        "keyword": lambda v: isinstance(v, str),
        "text": lambda v: isinstance(v, str),
    }
    wrong = [v for v in values if kind in fits and not fits[kind](v)]
    if wrong:
        raise InvalidArgument(
            f"expected decisions that go into {name!r}, of type {kind}, got {shown(wrong[0])}; "
            "round them, take another metric, or write to another field"
        )


def run(
    source: Any,
    config: DecideConfig,
    queries: Any = None,
    *,
    ids: Sequence[PointId] | None = None,
    progress: Progress = lambda stage, share: None,
) -> Decisions:
    """Decide each question of `source`: Laws, or a collection with stored labels.

    queries  of a collection: (n, d) vectors; without, the stored points that have no label
    ids      names of the questions, 0..n-1 unless told

    Costs a search of config.neighbours a query, one of each held-out point where the temperature is
    to be measured, and a pass over the collection to draw those. Errors: InvalidArgument, for laws
    that do not suit the metric or a collection without labels.
    """
    config.check()
    metric = as_metric(config.metric)
    began = time.perf_counter()
    temperature = score = None
    names = None if ids is None else as_point_ids(ids)
    if isinstance(source, Laws):
        if queries is not None:
            raise InvalidArgument("expected a collection with queries, got laws")
        laws = source
    elif hasattr(source, "search") and config.label_field is not None:
        if queries is None:
            if names is not None:
                raise InvalidArgument("expected queries with ids, got ids alone")
            names, queries = _unlabelled(source, config, progress)
        temperature = as_temperature(config.temperature)
        if temperature is None:
            temperature, score = calibrated(
                *held_out(source, config, progress), is_ordered=metric.is_ordered
            )
        laws = near(
            source,
            config.label_field,
            queries,
            config.neighbours,
            filter=config.filter,
            target_recall=config.target_recall,
            progress=lambda share: progress("neighbours", share),
        ).laws(temperature)
    else:
        raise InvalidArgument(
            f"expected laws, or a collection with a label_field, got {shown(source)}"
        )
    if names is not None and len(names) != len(laws):
        raise InvalidArgument(f"expected an id for each of {len(laws)} questions, got {len(names)}")
    laws = laws.powered(config.alpha)
    values = metric.decide(laws)
    if config.rounded:
        values = _rounded(values)
    return Decisions(
        list(range(len(laws))) if names is None else names,
        values,
        metric.risk(laws, values),
        laws,
        metric,
        temperature,
        score,
        time.perf_counter() - began,
        names is not None,
    )


def _rounded(values: Values) -> Values:
    if values.dtype == object:
        raise InvalidArgument(
            f"expected decisions that are numbers to round, got {shown(values[0])}"
        )
    return np.rint(values).astype(np.int64)


def held_out(
    collection: Any, config: DecideConfig, progress: Progress = lambda stage, share: None
) -> tuple[Near, Values]:
    """config.held_out stored points with a label, drawn at random: their neighbours, and labels.

    None of them is its own neighbour. Errors: InvalidArgument where no two points have a label.
    """
    assert config.label_field is not None
    ids, vectors, labels = _labelled(collection, config, progress)
    found = near(
        collection,
        config.label_field,
        vectors,
        config.neighbours,
        filter=config.filter,
        without=ids,
        target_recall=config.target_recall,
        progress=lambda share: progress("temperature", share),
    )
    return found, as_values(labels)


def trial(
    collection: Any,
    config: DecideConfig,
    *,
    resamples: int = 1000,
    progress: Progress = lambda stage, share: None,
) -> Table:
    """What the decisions of each metric are worth by all of them, on stored points.

    Of config.held_out labelled points half are for the temperature, half are asked about. Metrics
    are config.metric, exact match, and those of numbers or of words, as the labels are; no cell
    where one cannot be asked of the other's decisions. Errors:
    InvalidArgument, with fewer than two of such points.
    """
    config.check()
    found, truths = held_out(collection, config, progress)
    half = len(truths) // 2
    if half < 1:
        raise InvalidArgument(f"expected at least 2 labelled points, got {len(truths)}")
    temperature = as_temperature(config.temperature)
    if temperature is None:
        ordered = as_metric(config.metric).is_ordered
        temperature, _ = calibrated(found[:half], truths[:half], is_ordered=ordered)
    laws = found[half:].laws(temperature).powered(config.alpha)
    names = ["token_f1"] if truths.dtype == object else list(_OF_NUMBERS)
    wanted = [as_metric(one) for one in ("exact_match", *names, config.metric)]
    metrics: dict[Any, str] = {one: one.name for one in {one.name: one for one in wanted}.values()}
    decided = {one.name: one.decide(laws) for one in metrics}
    return compare(
        decided, truths[half:], metrics, resamples=resamples, seed=config.seed, leave_out=True
    )


def _labelled(
    collection: Any, config: DecideConfig, progress: Progress
) -> tuple[list[PointId], F32, list[Any]]:
    """Ids, vectors and labels of config.held_out points drawn at random."""
    rng = np.random.default_rng(config.seed)
    drawn = heapq.nsmallest(
        config.held_out,
        (
            (rng.random(), row, point, label)
            for row, (point, label) in enumerate(_points(collection, config, progress))
            if label is not None
        ),
    )
    if not drawn:
        raise InvalidArgument(
            f"expected points with {config.label_field!r} in the collection, there are none"
        )
    points = [point for _, _, point, _ in drawn]
    vectors = np.stack([point.vector for point in points])
    return [point.id for point in points], vectors, [label for _, _, _, label in drawn]


def _unlabelled(
    collection: Any, config: DecideConfig, progress: Progress
) -> tuple[list[PointId], F32]:
    """Ids and vectors of the points without a label."""
    found = [point for point, label in _points(collection, config, progress) if label is None]
    if not found:
        raise InvalidArgument(
            f"expected queries, or points without {config.label_field!r}, got none of either"
        )
    return [point.id for point in found], np.stack([point.vector for point in found])


def _points(collection: Any, config: DecideConfig, progress: Progress) -> Iterator[tuple[Any, Any]]:
    """The points that take part, each with its label or None; vectors are copies."""
    assert config.label_field is not None
    live, done = max(1, collection.count(config.filter)), 0
    for page in pages(collection, config.filter, with_vectors=True):
        labels = values_at([point.payload for point in page], config.label_field)
        for point, label in zip(page, labels, strict=True):
            yield replace(point, vector=np.array(point.vector)), label
        done += len(page)
        progress("points", min(1.0, done / live))
