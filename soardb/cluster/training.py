"""The model of a load: partitions and codebooks of all points, learnt on a sample by Ray tasks.

    building.py -> [training.py] -> parquet.py, clustering.py (Lloyd), index/model.py, Ray

A sample is drawn at random, rows of each row group as many as its share; of very many row groups
some are drawn first. Its parts stay in the object store of the nodes that read them. Each round of
Lloyd's algorithm is one task a part: it gives each vector its list, and sums and counts of the
lists come back. The rounds themselves are those of an embedded build (clustering.lloyd), so both
find the same centroids of the same sample. What is left, the codebooks and the move of the
centroids by AVQ, is learnt by one task of at most 1 GiB of the sample.

Nothing here knows of points or shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from soardb.cluster.calls import refusal_of
from soardb.cluster.parquet import ParquetSource, RowGroup
from soardb.clustering import Progress, lloyd
from soardb.compaction import residual_of
from soardb.core import Settings
from soardb.errors import Unavailable
from soardb.generation import keep_model
from soardb.index.layout import choice_for, wanted_for
from soardb.index.model import Model, as_compared, learnt
from soardb.index.plan import Choice, choose_build
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I32, I64, Metric

__all__ = ["choice_of", "cpus", "train"]

_MOST_GROUPS = 1_000  # row groups that a sample is read from
_SAMPLE_PART_BYTES = 64 * 2**20
_FINISH_BYTES = 2**30  # of the sample, for what one task learns
_ADDED = 8  # sums of parts that are added by one task, where there are more


def choice_of(settings: Settings, live: int) -> Choice | None:
    """The parameters of the index of a shard of so many points; None where it is exact."""
    asked = settings.params.nlist
    if live == 0 or (asked is not None and live < asked):
        return None
    choice = choose_build(settings.params, live, settings.d, settings.metric)
    return choice if choice.nlist else None


def cpus() -> int:
    """Of Ray's books, on all nodes; 1 at least."""
    resources: Any = ray.cluster_resources  # untyped
    return max(1, int(resources().get("CPU", 1)))


def train(
    source: ParquetSource, settings: Settings, choice: Choice, live: int, progress: Progress
) -> bytes:
    """The model for shards of `live` points each, as keep_model() writes it.

    The seed is that of the collection's index options: the same files give the same sample. Costs
    reading the vectors of up to 1,000 row groups, and iterations * sample * nlist * d
    multiply-adds. Errors: those of reading the files, Unavailable where tasks died.
    """
    try:
        return _train(source, settings, choice, live, progress)
    except RayTaskError as error:
        raise refusal_of(error) from None
    except RayError as error:
        raise Unavailable(
            f"a task that learns the partitions died; call again to learn them anew: {error}"
        ) from None


def _train(
    source: ParquetSource, settings: Settings, choice: Choice, live: int, progress: Progress
) -> bytes:
    params, metric = settings.params, settings.metric
    wanted = choice.nlist * params.points_per_centroid
    progress("sample", 0.0)
    if params.layout == "measured":
        few = _drawn(source, settings, wanted_for(live, settings.d), lambda done: None)
        choice = ray.get(_chosen.remote(settings, live, *few.parts))
    sample = _drawn(source, settings, wanted, lambda share: progress("sample", share))
    choice = replace(choice, nlist=min(choice.nlist, len(sample)))
    rng = np.random.default_rng(params.seed)
    mean = np.zeros(settings.d, np.float32)
    centred = sample
    if metric == "l2":
        mean = sample.mean(settings.d)
        centred = sample.less(mean)
    places = lloyd(
        centred,
        choice.nlist,
        rng,
        iterations=params.iterations,
        init=params.init,
        spherical=params.spherical,
        progress=progress,
    )
    progress("codebooks", 0.0)
    made: bytes = ray.get(_finished.remote(settings, choice, live, places + mean, *sample.parts))
    progress("codebooks", 1.0)
    return made


# ---------------------------------------------------------------------- the sample


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rising rows of a row group that are of the sample."""

    group: RowGroup
    count: int
    seed: tuple[int, int]

    def rows(self) -> I64:
        """(count,) rows."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(self.group.rows, self.count, replace=False))


def shares(source: ParquetSource, wanted: int, seed: int) -> list[_Wanted]:
    """How many rows of which row groups are a sample of `wanted`; all where there are fewer."""
    rng = np.random.default_rng(seed)
    at = np.arange(len(source.groups))
    if len(at) > _MOST_GROUPS:
        at = np.sort(rng.permutation(at)[: max(_MOST_GROUPS, _enough(source, wanted))])
    rows = np.array([source.groups[i].rows for i in at.tolist()], np.int64)
    wanted = min(wanted, int(rows.sum()))
    exact = wanted * (rows / rows.sum())
    counts = np.floor(exact).astype(np.int64)
    # What rounding left over goes to random groups that have rows left.
    left = wanted - int(counts.sum())
    order = rng.permutation(len(rows))
    order = order[counts[order] < rows[order]]
    counts[order[:left]] += 1
    return [
        _Wanted(source.groups[i], count, (seed, i))
        for i, count in zip(at.tolist(), counts.tolist(), strict=True)
        if count
    ]


def _enough(source: ParquetSource, wanted: int) -> int:
    """Row groups that have twice the rows of a sample, by their mean."""
    return min(len(source.groups), -(-2 * wanted * len(source.groups) // source.rows))


def _drawn(
    source: ParquetSource, settings: Settings, wanted: int, progress: Callable[[float], None]
) -> _Spread:
    """The sample, as the metric compares vectors, in the object store."""
    each = shares(source, wanted, settings.params.seed)
    total = sum(one.count for one in each)
    most = max(_SAMPLE_PART_BYTES // (4 * settings.d), 1)
    lanes = cpus()
    size = min(most, max(-(-total // lanes), 1))
    works: list[list[_Wanted]] = [[]]
    for one in each:
        held = sum(other.count for other in works[-1])
        if held and held + one.count > size:
            works.append([])
        works[-1].append(one)
    is_all = wanted > source.rows
    read = [_sampled.options(num_returns=2).remote(source, settings, is_all, w) for w in works]
    counts = [count for _, count in read]
    waiting = list(counts)
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=1)
        progress(1 - len(waiting) / len(counts))
    return _Spread([part for part, _ in read], ray.get(counts), settings.params.threads)


class _Spread:
    """A sample in parts in the object store: see clustering.Sample."""

    def __init__(self, parts: list[Any], sizes: Sequence[int], threads: int) -> None:
        held = [(part, size) for part, size in zip(parts, sizes, strict=True) if size]
        self.parts, self._threads = [part for part, _ in held], threads
        self._ends = np.cumsum([size for _, size in held])
        self._lists: list[Any] = []
        self._counts: list[Any] = []  # of the lists in each part
        self._known: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, chosen: I64) -> F32:
        """See Sample."""
        owner = np.searchsorted(self._ends, chosen, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        asked = {
            int(part): _taken.remote(self.parts[part], chosen[owner == part] - starts[part])
            for part in np.unique(owner)
        }
        first = ray.get(next(iter(asked.values())))
        found = np.empty((len(chosen), first.shape[1]), np.float32)
        for part, reference in asked.items():
            found[owner == part] = ray.get(reference)
        return found

    def sums(self, centroids: F32) -> tuple[F32, I64]:
        """See Sample."""
        shared = ray.put(centroids)
        each = [
            _summed.options(num_returns=3).remote(part, shared, self._threads)
            for part in self.parts
        ]
        self._lists = [lists for _, _, lists in each]
        self._counts, self._known = [counts for _, counts, _ in each], None
        sums = [total for total, _, _ in each]
        while len(sums) > _ADDED:
            sums = [_added.remote(*sums[i : i + _ADDED]) for i in range(0, len(sums), _ADDED)]
        total = ray.get(sums[0]).copy()
        for other in sums[1:]:
            total += ray.get(other)
        return total, self._per_part().sum(axis=0)

    def _per_part(self) -> np.ndarray:
        if self._known is None:
            self._known = np.array(ray.get(self._counts), np.int64)
        return self._known

    def members(self, held: int, backwards: I64) -> F32:
        """See Sample."""
        counts = self._per_part()[:, held]
        ends = np.cumsum(counts)
        places = ends[-1] - 1 - backwards  # from the front
        found = []
        for place in places.tolist():
            part = int(np.searchsorted(ends, place, side="right"))
            at = place - int(ends[part] - counts[part])
            found.append(_member.remote(self.parts[part], self._lists[part], held, at))
        return np.stack(ray.get(found))

    def mean(self, d: int) -> F32:
        """(d,) of all vectors."""
        total = np.zeros(d, np.float64)
        for reference in [_total.remote(part) for part in self.parts]:
            total += ray.get(reference)
        return (total / len(self)).astype(np.float32)

    def less(self, mean: F32) -> _Spread:
        """The same with a vector taken from each."""
        sizes = np.diff(self._ends, prepend=0).tolist()
        return _Spread([_less.remote(part, mean) for part in self.parts], sizes, self._threads)


# ---------------------------------------------------------------------- tasks


def _task(function: Callable[..., Any]) -> Any:
    """A Ray task; its worker may die and it is done again."""
    made: Any = ray.remote  # typed for functions without options
    return made(max_retries=3)(function)


@_task
def _sampled(
    source: ParquetSource, settings: Settings, is_all: bool, works: list[_Wanted]
) -> tuple[F32, int]:
    """Vectors of the sample, as compared; without the held-out ones where every row is wanted."""
    metric: Metric = settings.metric
    found = np.concatenate([source.sample(one.group, one.rows(), settings) for one in works])
    if is_all:
        rows = learnt(found, metric)
        found = found if rows is None else found[rows]
    return as_compared(found, metric), len(found)


@_task
def _taken(part: F32, rows: I64) -> F32:
    taken: F32 = part[rows]
    return taken


@_task
def _total(part: F32) -> np.ndarray:
    total: np.ndarray = part.sum(axis=0, dtype=np.float64)
    return total


@_task
def _less(part: F32, mean: F32) -> F32:
    less: F32 = part - mean
    return less


@_task
def _summed(part: F32, centroids: F32, threads: int) -> tuple[F32, I64, I32]:
    """Sums of lists, counts, and the list of each vector, which stays where it is."""
    lists, _ = active.assign(part, centroids, threads)
    sums, counts = active.list_sums(part, lists, len(centroids), threads)
    return sums, counts, lists


@_task
def _added(*sums: F32) -> F32:
    total: F32 = np.sum(sums, axis=0, dtype=np.float32)
    return total


@_task
def _member(part: F32, lists: I32, held: int, at: int) -> F32:
    member: F32 = part[np.flatnonzero(lists == held)[at]]
    return member


@_task
def _chosen(settings: Settings, live: int, *parts: F32) -> Choice:
    """The layout measured on a sample."""
    return choice_for(np.concatenate(parts), settings.metric, settings.params, live)


@_task
def _finished(settings: Settings, choice: Choice, live: int, places: F32, *parts: F32) -> bytes:
    """Everything but the partitions, and all of it as a file."""
    size = sum(part.nbytes for part in parts)
    step = -(-size // _FINISH_BYTES)
    sample = np.concatenate([part[::step] for part in parts])
    metric, params = settings.metric, settings.params
    model = Model.train(sample, choice, params, metric, places=places)
    with tempfile.TemporaryDirectory(prefix="soardb-") as folder:
        file = Path(folder) / "model"
        keep_model(file, model, metric, params, residual_of(model, sample, metric), live)
        return file.read_bytes()
