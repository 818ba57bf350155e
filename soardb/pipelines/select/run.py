"""Select: which k of n points to label or train on, from a collection or from arrays.

    user code, soardb select -> [run.py] -> wkc.py, parts.py, baselines.py, uncertainty.py

    chosen = select.run(collection, SelectConfig(k=100, label_field="kind"))
    chosen.certificate.ratio, chosen.ids
    chosen.write_field(collection, "selected")

The same face whatever the points come from. Nothing is written unless it is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from dataclasses import field as given_by
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.kernels.layout import I64
from soardb.options import Filter, as_number
from soardb.pipelines.select.balls import IndexBalls
from soardb.pipelines.select.baselines import facility_location, gist, uniform
from soardb.pipelines.select.certificate import Certificate
from soardb.pipelines.select.crew import CREWS
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.parts import Coordinator
from soardb.pipelines.select.source import Source, read
from soardb.pipelines.select.space import (
    Space,
    Vectors,
    middle_of,
    nearest_keys,
    radius_of,
    space_of,
)
from soardb.pipelines.select.uncertainty import KINDS, Uncertainty
from soardb.pipelines.select.wkc import Best, C, Field, Terms, Whole, exact_guesses, grid, solve
from soardb.pipelines.stored import pages
from soardb.schema import PointId

__all__ = ["METHODS", "Method", "SelectConfig", "Selection", "run"]

Method = Literal["wkc", "gonzalez", "margin", "random", "facility", "gist"]
METHODS: tuple[Method, ...] = get_args(Method)

_FEW = 64
"""Points for which every distance between two is tried as the radius."""

F64 = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """What to choose.

    k              how many points
    method         "wkc": weighted k-center; or what it is compared with: "gonzalez" (k-center),
                   "margin" (the k smallest weights), "random", "facility" (location), "gist"
    radius_weight  lambda: what the radius counts beside the weights; 0 is "margin"
    normalize      the radius in units of that of Gonzalez's centres, and the mean weight in place
                   of the sum, so that a lambda of about 1 weighs both
    eps            how far guesses of the radius are apart; the factor is 3 (1 + eps). Up to 64
                   points every radius is tried
    metric         "l2", "cosine" (the angle, in radians) or "distances" (an (n, n) matrix); that
                   of the collection unless told
    filter         which points of a collection may be chosen and are to be covered
    uncertainty    "margin", "entropy" or "least_confidence", of probabilities and votes
    weight_field   payload field that holds each point's weight
    label_field    payload field of labels: the weight is the uncertainty of the votes of the
                   `neighbours` closest points, itself left out
    machines       1, or over how many the points are divided: `crew` "processes", "ray", "here"
    sequential     machines one after the other: factor 3 (1 + eps) in place of 5 (1 + eps)
    index          find balls by a SOAR index: faster where k is many thousands, without a promise;
                   the certificate is measured on all points
    seed, threads  of what is random; of blocks
    """

    k: int
    method: Method = "wkc"
    radius_weight: float = 1.0
    normalize: bool = True
    eps: float = 0.1
    metric: str | None = None
    filter: Filter = None
    uncertainty: Uncertainty = "margin"
    weight_field: str | None = None
    label_field: str | None = None
    neighbours: int = 10
    machines: int = 1
    crew: str = "processes"
    sequential: bool = False
    index: bool = False
    seed: int = 0
    threads: int = given_by(default_factory=lambda: os.cpu_count() or 1)

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.k, "k", 1, 2**31)
        if self.method not in METHODS:
            raise InvalidArgument(
                f"expected method one of {', '.join(METHODS)}, got {self.method!r}"
            )
        if self.uncertainty not in KINDS:
            raise InvalidArgument(
                f"expected uncertainty one of {', '.join(KINDS)}, got {self.uncertainty!r}"
            )
        if as_number(self.radius_weight, "radius_weight") < 0:
            raise InvalidArgument(f"expected radius_weight of at least 0, got {self.radius_weight}")
        if not 0 < as_number(self.eps, "eps") <= 1:
            raise InvalidArgument(f"expected eps above 0 and at most 1, got {self.eps}")
        if self.weight_field is not None and self.label_field is not None:
            raise InvalidArgument("expected weight_field or label_field, got both")
        as_int(self.neighbours, "neighbours", 1, 1000)
        as_int(self.machines, "machines", 1, 1024)
        as_int(self.threads, "threads", 1, 1024)
        if self.crew not in CREWS:
            raise InvalidArgument(f"expected crew one of {', '.join(CREWS)}, got {self.crew!r}")
        if (self.machines > 1 or self.index) and self.method != "wkc":
            raise InvalidArgument(
                f"expected method 'wkc' with machines or index, got {self.method!r}"
            )
        if self.index and (self.machines > 1 or self.metric == "distances"):
            raise InvalidArgument("expected vectors on one machine with index=True")


@dataclass(frozen=True, slots=True)
class Selection:
    """The report. ids, weights: of the k chosen points, by rising weight; rows: (k,) in the source.

    n, seconds: how many points there were, and how long it took without reading them.
    """

    ids: list[PointId]
    rows: I64
    weights: npt.NDArray[np.float64]
    certificate: Certificate
    config: SelectConfig
    n: int
    seconds: float

    def __len__(self) -> int:
        return len(self.ids)

    def to_arrow(self) -> Any:
        """A pyarrow.Table of id, row, weight; the certificate is in its metadata."""
        pa = need_pyarrow()
        table = pa.table({"id": self.ids, "row": self.rows, "weight": self.weights})
        told = {str(k): str(v) for k, v in self.certificate.to_json().items()}
        return table.replace_schema_metadata(told)

    def to_json(self) -> dict[str, Any]:
        """Plain values: ids, certificate, config."""
        return {
            "ids": self.ids,
            "weights": self.weights.tolist(),
            "certificate": self.certificate.to_json(),
            "config": {k: v for k, v in asdict(self.config).items() if k != "filter"},
            "n": self.n,
            "seconds": self.seconds,
        }

    def write_field(self, collection: Any, name: str) -> int:
        """Set a payload field to true for the chosen points, and drop it from all others.

        Returns how many were chosen. Errors: NotFound where one was deleted meanwhile.
        """
        chosen = set(self.ids)
        where = f"{name} IS NOT NULL" if name in collection.schema else None
        stale = [
            point.id
            for page in pages(collection, where)
            for point in page
            if name in point.payload and point.id not in chosen
        ]
        if stale:
            collection.update_payload({name: None}, ids=stale)
        changed: int = collection.update_payload({name: True}, ids=self.ids)
        return changed

    def write_collection(self, source: Any, target: Any) -> int:
        """Copy the chosen points, with payloads, to another collection; returns how many."""
        written = 0
        for first in range(0, len(self.ids), 1000):
            some = self.ids[first : first + 1000]
            found = [p for p in source.get(some, with_vectors=True) if p is not None]
            if len(found) < len(some):
                raise InvalidArgument(
                    f"expected the chosen points to be there, {len(some) - len(found)} are not; "
                    "select again"
                )
            written += target.upsert(
                [p.id for p in found],
                np.stack([p.vector for p in found]),
                [dict(p.payload) for p in found],
            )
        return written


def run(
    points: Any,
    config: SelectConfig,
    *,
    weights: npt.ArrayLike | None = None,
    probabilities: npt.ArrayLike | None = None,
    logits: npt.ArrayLike | None = None,
    progress: Progress = lambda stage, share: None,
) -> Selection:
    """Choose config.k of the points of a collection, of (n, d) vectors or of (n, n) distances.

    points         these, or what read() made of them, for several choices of the same
    weights        (n,) what each point costs, at least 0: low where it is worth being chosen
    probabilities  (n, c) of a model, whose uncertainty makes the weights; or its `logits`
    progress       called with a stage and a share of it

    Of a collection the weights may also come from config.weight_field or config.label_field.
    Without any every weight is 0, and only the radius counts. Holds one copy of the vectors.
    Errors: InvalidArgument, for k > n, weights that are not finite or negative, metrics that are
    none; NotFound.

    Costs, with method "wkc", about 2 n x k x d a guess of the radius, 5 to 30 guesses.
    """
    config.check()
    source = points
    if not isinstance(points, Source):
        source = read(points, config, weights, probabilities, logits, progress)
    elif any(given is not None for given in (weights, probabilities, logits)):
        raise InvalidArgument("expected no weights beside a source, which has them, got some")
    n = len(source.ids)
    if config.k > n:
        raise InvalidArgument(f"expected k of at most {n:,} points, got {config.k:,}")
    began = time.perf_counter()
    choose = _here if config.machines == 1 else _over_machines
    rows, certificate = choose(source, config, progress)
    seconds = time.perf_counter() - began
    rows = rows[np.lexsort((rows, source.weights[rows]))]
    return Selection(
        [source.ids[row] for row in rows.tolist()],
        rows,
        source.weights[rows],
        certificate,
        replace(config, metric=source.metric),
        n,
        seconds,
    )


def _terms(config: SelectConfig, radius: float) -> Terms:
    """radius: that of Gonzalez's centres, in units of which the radius counts."""
    if not config.normalize:
        return Terms(config.k, config.radius_weight, 1.0)
    scale = config.radius_weight / (radius if radius > 0 else 1.0)
    return Terms(config.k, scale, 1.0 / config.k)


def _here(source: Source, config: SelectConfig, progress: Progress) -> tuple[I64, Certificate]:
    n, k, threads = len(source.ids), config.k, config.threads
    order = np.lexsort((np.arange(n), source.weights))
    space = space_of(source.points, order, source.metric)
    weights = source.weights[order]
    balls = None
    if config.index:
        assert isinstance(space, Vectors)  # as check() wants
        balls = IndexBalls(space, threads, config.seed)
    whole = Whole(space, weights, k, threads, balls)
    centres, radius = gonzalez(
        space, k, threads=threads, progress=lambda share: progress("k-center", share)
    )
    terms = _terms(config, radius)
    best = Best(centres, radius, terms.value(radius, whole.weight(centres)), radius / 2)
    factor: float | None = None
    if config.method == "wkc":
        is_small = n <= _FEW and whole.is_sure
        eps = 0.0 if is_small else config.eps
        least = best.least_radius
        guesses = exact_guesses(space, least) if is_small else grid(least, eps)
        best = solve(whole, terms, best, guesses, eps, lambda share: progress("guesses", share))
        factor = 3 * (1 + eps) if whole.is_sure else None
    elif config.method != "gonzalez":
        best.chosen = _baseline(space, weights, terms, config, progress)
        best.radius, _ = radius_of(space, space.points(best.chosen), threads)
    p99 = _radius_p99(space, best.chosen, threads)
    return order[best.chosen], _certificate(whole, terms, best, p99, factor)


def _baseline(
    space: Space, weights: F64, terms: Terms, config: SelectConfig, progress: Progress
) -> I64:
    k, threads = config.k, config.threads
    if config.method == "margin":
        return np.arange(k)
    if config.method == "random":
        return uniform(len(space), k, config.seed)
    if config.method == "gist":
        return gist(space, weights, k, terms.radius_scale, config.eps, threads)
    return facility_location(space, k, threads, lambda share: progress("facilities", share))


def _over_machines(
    source: Source, config: SelectConfig, progress: Progress
) -> tuple[I64, Certificate]:
    n = len(source.ids)
    if n < config.machines:
        raise InvalidArgument(
            f"expected at most {n} machines for {n} points, got {config.machines}"
        )
    middle = middle_of(source.points) if source.metric == "l2" else None
    parts = [
        (source.points[rows], rows, source.weights[rows], source.metric, middle)
        for rows in np.array_split(np.arange(n), config.machines)
    ]
    crew = CREWS[config.crew](parts)
    try:
        field = Coordinator(crew, source.metric, config.k, is_sequential=config.sequential)
        radius = field.radius(field.centres)
        terms, weight = _terms(config, radius), field.weight(field.centres)
        best = Best(field.centres, radius, terms.value(radius, weight), radius / 4)
        guesses = grid(best.least_radius, config.eps)
        best = solve(
            field, terms, best, guesses, config.eps, lambda share: progress("guesses", share)
        )
    finally:
        crew.close()
    rows = best.chosen.rows
    # The radius as one machine measures it: rounding may differ from that of the parts.
    space = space_of(source.points, np.arange(n), source.metric)
    best.radius, _ = radius_of(space, space.points(rows), config.threads)
    factor = (3 if config.sequential else 5) * (1 + config.eps)
    p99 = _radius_p99(space, rows, config.threads)
    return rows, _certificate(field, terms, best, p99, factor)


def _radius_p99(space: Space, rows: I64, threads: int) -> float:
    keys = nearest_keys(space, space.points(rows), threads)
    return space.radius_of(float(np.quantile(keys, 0.99)))


def _certificate(
    field: Field[C], terms: Terms, best: Best[C], radius_p99: float, factor: float | None
) -> Certificate:
    weight = field.weight(best.chosen)
    objective = terms.value(best.radius, weight)
    lower_bound = terms.value(best.least_radius, field.least_weight)
    without_bound = 1.0 if objective <= 0 else float("inf")
    return Certificate(
        best.radius,
        radius_p99,
        weight,
        objective,
        terms.radius_scale,
        terms.weight_scale,
        lower_bound,
        objective / lower_bound if lower_bound > 0 else without_bound,
        factor,
        best.guess,
        best.separated,
        best.guesses,
    )
