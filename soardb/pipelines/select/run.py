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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.kernels.layout import F32, I64
from soardb.options import Filter, as_number
from soardb.pipelines.select.balls import IndexBalls
from soardb.pipelines.select.baselines import facility_location, gist, uniform
from soardb.pipelines.select.certificate import Certificate
from soardb.pipelines.select.crew import CREWS
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.parts import Coordinator, Terms
from soardb.pipelines.select.source import Source, of_arrays, of_collection
from soardb.pipelines.select.space import Vectors, middle_of, nearest_keys, radius_of, space_of
from soardb.pipelines.select.uncertainty import KINDS, Uncertainty
from soardb.pipelines.select.wkc import Best, Problem, exact_guesses, grid, solve
from soardb.schema import PointId

__all__ = ["METHODS", "Method", "SelectConfig", "Selection", "run"]

Method = Literal["wkc", "gonzalez", "margin", "random", "facility", "gist"]
METHODS: tuple[Method, ...] = get_args(Method)

_FEW = 64
"""Points for which every distance between two is tried as the radius."""

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
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)

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
        before = [p.id for p in _scrolled(collection, f"{name} IS NOT NULL", name)]
        stale = [point_id for point_id in before if point_id not in chosen]
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


def _scrolled(collection: Any, where: str, name: str) -> Sequence[Any]:
    if name not in collection.schema:
        return [p for p in _pages(collection, None) if name in (p.payload or {})]
    return list(_pages(collection, where))


def _pages(collection: Any, where: str | None) -> Any:
    token = None
    while True:
        page = collection.scroll(filter=where, page_size=1000, page_token=token)
        yield from page.points
        token = page.next_page_token
        if token is None:
            return


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
    make = of_arrays if _is_array(points) else of_collection
    source = make(points, config, weights, probabilities, logits, progress)
    n = len(source.ids)
    if config.k > n:
        raise InvalidArgument(f"expected k of at most {n:,} points, got {config.k:,}")
    began = time.perf_counter()
    if config.machines > 1:
        rows, certificate = _over_machines(source, config, progress)
    else:
        rows, certificate = _here(source, config, progress)
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


def _is_array(points: Any) -> bool:
    return isinstance(points, np.ndarray | list | tuple) or hasattr(points, "__array__")


def _scales(config: SelectConfig, radius: float) -> tuple[float, float]:
    """What the radius and the sum of weights are multiplied by; radius: of Gonzalez's centres."""
    if not config.normalize:
        return config.radius_weight, 1.0
    return config.radius_weight / (radius if radius > 0 else 1.0), 1.0 / config.k


def _here(source: Source, config: SelectConfig, progress: Progress) -> tuple[I64, Certificate]:
    n, k, threads = len(source.ids), config.k, config.threads
    order = np.lexsort((np.arange(n), source.weights))
    space = space_of(source.points, order, source.metric)
    weights = source.weights[order]
    centres, radius = gonzalez(
        space, k, threads=threads, progress=lambda share: progress("k-center", share)
    )
    radius_scale, weight_scale = _scales(config, radius)
    problem = Problem(space, weights, k, radius_scale, weight_scale, threads)
    best = Best(centres, radius, problem.value(radius, centres), radius / 2)

    def tell(guesses: float) -> None:
        progress("guesses", 1 - 1 / (1 + guesses))

    factor: float | None = None
    if config.method == "wkc":
        balls = None
        if config.index:
            assert isinstance(space, Vectors)
            balls = IndexBalls(space, threads, config.seed)
        is_small = n <= _FEW and balls is None
        eps = 0.0 if is_small else config.eps
        guesses = exact_guesses(space) if is_small else grid(eps)
        best = solve(problem, best, guesses, eps, balls=balls, progress=tell)
        factor = 3 * (1 + eps) if balls is None else None
    elif config.method == "gonzalez":
        factor = None
    else:
        chosen = _baseline(problem, config, progress)
        best.chosen, (best.radius, _) = chosen, radius_of(space, chosen, threads)
    keys = nearest_keys(space, best.chosen, threads)
    return order[best.chosen], _certificate(
        best.radius,
        space.radius_of(float(np.quantile(keys, 0.99))),
        float(weights[best.chosen].sum()),
        (radius_scale, weight_scale),
        best.lower_bound(problem),
        factor,
        best,
    )


def _baseline(problem: Problem, config: SelectConfig, progress: Progress) -> I64:
    space, k, threads = problem.space, config.k, config.threads
    if config.method == "margin":
        return np.arange(k)
    if config.method == "random":
        return uniform(len(space), k, config.seed)
    if config.method == "gist":
        return gist(space, problem.weights, k, problem.radius_scale, config.eps, threads)
    return facility_location(space, k, threads, lambda share: progress("facilities", share))


def _over_machines(
    source: Source, config: SelectConfig, progress: Progress
) -> tuple[I64, Certificate]:
    n = len(source.ids)
    if n < config.machines:
        raise InvalidArgument(
            f"expected at most {n} machines for {n} points, got {config.machines}"
        )
    middle: F32 | None = None
    if source.metric == "l2":
        middle = middle_of(source.points)
    parts = [
        (source.points[rows], rows, source.weights[rows], source.metric, middle)
        for rows in np.array_split(np.arange(n), config.machines)
    ]
    crew = CREWS[config.crew](parts)
    try:
        coordinator = Coordinator(crew, source.metric, config.eps, config.sequential)
        start = coordinator.start(config.k)
        terms = Terms(config.k, *_scales(config, start[1]))
        best = coordinator.solve(
            terms, start, lambda guesses: progress("guesses", 1 - 1 / (1 + guesses))
        )
    finally:
        crew.close()
    weight = float(source.weights[best.chosen].sum())
    least = float(np.sort(source.weights)[: config.k].sum())
    # The radius as one machine measures it: rounding may differ from that of the parts.
    space = space_of(source.points, np.arange(n), source.metric)
    keys = nearest_keys(space, best.chosen, config.threads)
    return best.chosen, _certificate(
        radius_of(space, best.chosen, config.threads)[0],
        space.radius_of(float(np.quantile(keys, 0.99))),
        weight,
        (terms.radius_scale, terms.weight_scale),
        terms.radius_scale * best.least_radius + terms.weight_scale * least,
        (3 if config.sequential else 5) * (1 + config.eps),
        best,
    )


def _certificate(
    radius: float,
    radius_p99: float,
    weight: float,
    scales: tuple[float, float],
    lower_bound: float,
    factor: float | None,
    best: Best,
) -> Certificate:
    objective = scales[0] * radius + scales[1] * weight
    without_bound = 1.0 if objective <= 0 else float("inf")
    ratio = objective / lower_bound if lower_bound > 0 else without_bound
    return Certificate(
        radius,
        radius_p99,
        weight,
        objective,
        *scales,
        lower_bound,
        ratio,
        factor,
        best.guess,
        best.separated,
        best.guesses,
    )
