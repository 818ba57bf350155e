"""Compaction: when a new generation is due, and making it while reads and writes go on.

    database.py (the worker) -> [compaction.py] -> generation.py, writer.py

A generation is built from the rows up to a sequence number, then brought up to date from the row
store outside any lock, and for the last few rows inside the writer's thread, which also makes it
the current one in the same transaction that prunes `gone`. Readers keep what they started with.

Due are: enough points for a first model, a tail or tombstones that have grown to a share of the
points, points that outgrew their model, centroids that no longer fit (drift), lists out of
balance, a damaged generation.

A collection that is loaded as a part of a larger one is given a model that was learnt elsewhere.
Until the load is done, or the points outgrow it, every build is made with that one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from soardb.budget import Budget, give_back
from soardb.contents import Contents
from soardb.core import GIVEN_MODEL, Core, Settings
from soardb.errors import Closed
from soardb.generation import BUILD_BYTES, Source, build, keep_model, kept_model, read_model
from soardb.index.layout import choice_for, wanted_for
from soardb.index.model import Model, as_compared
from soardb.index.plan import Choice, choose_build
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, Metric
from soardb.promises import keep_curves, measured
from soardb.storage.faults import reach
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated
from soardb.writer import Effect, Group, Writer

__all__ = [
    "Due",
    "Policy",
    "compact",
    "give_model",
    "remove_leftovers",
    "residual_of",
    "take_model",
    "why_due",
]

_log = logging.getLogger("soardb")

_SETTLED_ROWS = 4_096  # what the writer's thread may still have to code at the swap
_ROUNDS = 20
_LEAST_SAMPLE = 8  # points a partition, below which a memory limit refuses the training
_KEPT_MODEL = "model.part"


@dataclass(frozen=True, slots=True)
class Policy:
    """When a collection is compacted; shares are of the points of the generation.

    tail        points that came since
    tombstones  points struck
    growth      points over those that the model was learnt from
    drift       mean squared residual of recent points over that of the training
    skew        longest list over the mean one
    stale       points that came or went since the curves of recall were measured
    least       points below which there are no partitions
    bounded     rows since the generation, or struck, that are never too many: the next open reads
                them, in a fraction of a second
    loading     bytes of vectors since the generation that are never too many while a load goes on;
                beyond, as many points as there are in the generation are
    """

    tail: float = 0.2
    tombstones: float = 0.2
    growth: float = 2.0
    drift: float = 1.5
    skew: float = 50.0
    stale: float = 0.1
    least: int = 2_000
    bounded: int = 10_000
    loading: int = 2**28


@dataclass(frozen=True, slots=True)
class Due:
    """Why a generation is due, in words, and whether its model is to be learnt anew."""

    reason: str
    retrain: bool


def why_due(core: Core, policy: Policy) -> Due | None:
    """Whether a new generation is due. Cheap but for the look at drift, which codes 1,000 rows.

    While a load goes on, which ends with a build, one is made only to give memory back.
    """
    with core.lock.read():
        contents = core.contents
        table, index, generation = contents.table, contents.index, contents.generation
        live, tail, dead = table.live, table.tail, table.n - table.live
        n_base = table.n - tail
        if core.damage is not None:
            return Due("the generation was damaged or missing", True)
        if core.is_awaiting():
            if tail < max(n_base, policy.loading // (4 * core.settings.d)):
                return None
            return Due(f"{tail} points of a load since the last generation, of {table.n}", False)
        trained_on = generation.trained_on if generation else 0
        if index.model is None:
            if live >= policy.least and _choice(core.settings, live) is not None:
                return Due("enough points for partitions", True)
        elif live > policy.growth * trained_on or live < trained_on / (4 * policy.growth):
            return Due(f"{live} points, the partitions were learnt from {trained_on}", True)
        elif index.skew() > policy.skew and tail > policy.least:
            return Due(f"the longest list is {index.skew():.0f} times the mean one", True)
        is_long = tail > max(policy.tail * n_base, policy.bounded)
        is_sparse = dead > max(policy.tombstones * table.n, policy.bounded)
        if not (is_long or is_sparse):
            return None
        reason = f"{tail} points since the last generation, {dead} struck, of {table.n}"
        if index.model is None or generation is None:
            return Due(reason, index.model is not None)
        sample = np.arange(max(n_base, table.n - 1_000), table.n)
        sample = sample[table.is_live(sample)]
        if len(sample) >= 100 and index.residual(sample) > policy.drift * generation.residual:
            return Due(f"{reason}; recent points lie farther from the centroids", True)
        return Due(reason, False)


def _choice(settings: Settings, live: int) -> Choice | None:
    """The parameters of a model for so many points; None where they are searched exactly.

    Fewer points than the partitions that were asked for get none yet.
    """
    asked = settings.params.nlist
    if live == 0 or (asked is not None and live < asked):
        return None
    choice = choose_build(settings.params, live, settings.d, settings.metric)
    return choice if choice.nlist else None


@dataclass(slots=True)
class _Install:
    """The job that makes a generation the current one."""

    contents: Contents
    file: str
    folder: Path
    core: Core
    alone: bool = True

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return 1, 0

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run."""
        fresh, store = self.contents, group.store
        fresh.catch_up(store, store.seq)
        old = store.setting("generation")
        generation = fresh.generation
        assert generation is not None
        pointer = {"file": self.file, "seq": generation.seq, "crc32": generation.mapped.checksum}
        store.set("generation", pointer)
        keep_curves(store, fresh)
        store.forget_gone(generation.seq)
        reach("install.before_commit")

        def after() -> None:
            reach("install.after_commit")
            self.core.damage = None
            if old is not None and old["file"] != self.file:
                (self.folder / str(old["file"])).unlink(missing_ok=True)
            reach("install.old_removed")

        return Effect(np.empty(0, np.int64), contents=fresh, after=after), None


def compact(
    core: Core,
    writer: Writer,
    budget: Budget,
    *,
    retrain: bool,
    progress: Callable[[str, float], None] = lambda stage, share: None,
    stop: Sequence[threading.Event] = (),
) -> None:
    """Build the next generation and start it. Reads and writes go on meanwhile.

    progress(stage, share done). stop: the first that is set ends the build, which then leaves its
    model for the next.
    Errors: Closed when stopped, OutOfSpace, OutOfMemory, CorruptStorage for a damaged row.
    """

    def report(stage: str, share: float) -> None:
        if any(event.is_set() for event in stop):
            raise Closed("the build was stopped")
        progress(stage, share)

    with core.lock.read():
        contents = core.contents
        source = Source(
            core.store,
            core.settings.schema,
            core.settings.d,
            core.settings.metric,
            core.settings.params,
            contents.table.kind,
            contents.seq,
            core.settings.to_json(),
            contents.table.live + core.hidden(),
        )
    with translated(core.index_folder):
        core.index_folder.mkdir(exist_ok=True)
        model, residual, trained_on = _model(core, source, contents, retrain, budget, report)
        give_back()  # before the next large part
        name = f"{secrets.token_hex(8)}.generation"
        path = core.index_folder / name
        with budget.reserve(source.live * BUILD_BYTES, "building the index"):
            build(
                path,
                source,
                model,
                residual=residual,
                trained_on=trained_on,
                progress=report,
            )
        try:
            fresh = core.contents_of(path)
            fresh.verify()
            seed = core.settings.params.seed
            if not core.is_awaiting():  # else it is soon another one's turn
                fresh.curves = measured(
                    fresh,
                    contextlib.nullcontext,
                    seed=seed,
                    report=report,
                    asked=core.asked_queries(),
                )
            for _ in range(_ROUNDS):
                if fresh.catch_up(core.store, core.store.seq) < _SETTLED_ROWS:
                    break
            writer.submit(_Install(fresh, name, core.index_folder, core), "fsync")
        except BaseException:
            if core.generation_file() != path:
                path.unlink(missing_ok=True)
            raise
        (core.index_folder / _KEPT_MODEL).unlink(missing_ok=True)
    give_back()
    progress("done", 1.0)


def _model(
    core: Core,
    source: Source,
    contents: Contents,
    retrain: bool,
    budget: Budget,
    report: Callable[[str, float], None],
) -> tuple[Model | None, float, int]:
    """The model to build with, its mean squared residual, and how many points it stands for."""
    choice = _choice(core.settings, source.live)
    if choice is None:
        return None, 0.0, source.live
    given = kept_model(core.index_folder / GIVEN_MODEL, source)
    if given is not None:
        return given[0], given[1], source.live
    generation, model = contents.generation, contents.index.model
    if not retrain and model is not None and generation is not None:
        return model, generation.residual, generation.trained_on
    kept = core.index_folder / _KEPT_MODEL
    found = kept_model(kept, source)
    if found is not None:
        return found
    choice = _laid_out(core, source, choice, budget, report)
    wanted = min(source.live, choice.nlist * source.params.points_per_centroid)
    row_bytes = source.d * 4 * 5 // 2  # the sample, and the copy that training makes of it
    most = int(0.8 * budget.available()) // row_bytes
    wanted = max(min(wanted, most), min(_LEAST_SAMPLE * choice.nlist, source.live))
    with budget.reserve(wanted * row_bytes, "training the index"):
        sample = _sample(core, source, wanted)
        fitting = replace(choice, nlist=min(choice.nlist, len(sample)))
        model = Model.train(sample, fitting, source.params, source.metric, report)
        residual = residual_of(model, sample, source.metric)
    keep_model(kept, model, source.metric, source.params, residual, source.live)
    reach("build.trained")
    return model, residual, source.live


def residual_of(model: Model, sample: F32, metric: Metric) -> float:
    """Mean squared distance of (n, d) vectors to their centroids, by 8,192 of them at most."""
    few = as_compared(sample[:: -(-len(sample) // 8192)], metric) - model.mean
    _, scores = active.assign(few, model.places)
    squares = np.einsum("ij,ij->i", few, few, dtype=np.float64)
    return float((squares - 2 * scores).mean())


def _laid_out(
    core: Core,
    source: Source,
    choice: Choice,
    budget: Budget,
    report: Callable[[str, float], None],
) -> Choice:
    """The formulas' choice, or the measured one where the collection asks for it."""
    if source.params.layout == "formula":
        return choice
    row_bytes = source.d * 4 * 5  # the sample, a copy as compared, and an index of it
    most = int(0.8 * budget.available()) // row_bytes
    wanted = min(wanted_for(source.live, source.d), max(most, 1))
    with budget.reserve(wanted * row_bytes, "measuring layouts"):
        sample = _sample(core, source, wanted)
        return choice_for(sample, source.metric, source.params, source.live, report)


def _sample(core: Core, source: Source, wanted: int) -> F32:
    """Vectors of that many live rows, drawn at random with the collection's seed."""
    with core.lock.read():
        table = core.contents.table
        positions = table.live_positions()
        rng = np.random.default_rng(source.params.seed)
        if wanted < len(positions):
            positions = np.sort(rng.choice(positions, wanted, replace=False))
        rows = np.sort(table.rows_at(positions))
    sample = np.empty((len(rows), source.d), np.float32)
    filled = 0
    for first in range(0, len(rows), 8192):
        points = core.store.fetch(rows[first : first + 8192], with_vectors=True)
        for row in sorted(points):
            sample[filled] = points[row].vector
            filled += 1
    return sample[:filled]


def give_model(core: Core, data: bytes) -> None:
    """Let builds be made with a model that was learnt elsewhere: what keep_model() wrote.

    Errors: InvalidArgument for a model of another collection, CorruptStorage, OutOfSpace.
    """
    s, folder = core.settings, core.index_folder
    with translated(folder):
        folder.mkdir(exist_ok=True)
        beside = folder / f".{GIVEN_MODEL}.{secrets.token_hex(8)}"
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            read_model(beside, s.d, s.metric, s.params)
            os.replace(beside, folder / GIVEN_MODEL)
            sync_folder(folder)
        finally:
            beside.unlink(missing_ok=True)


def take_model(core: Core) -> None:
    """From now on builds learn models of their own, once the one that they have no longer fits."""
    with translated(core.index_folder):
        (core.index_folder / GIVEN_MODEL).unlink(missing_ok=True)


def remove_leftovers(core: Core) -> None:
    """Delete files of builds that did not finish, and generations that are no longer current."""
    folder = core.index_folder
    if not folder.is_dir():
        return
    current = core.generation_file()
    for file in folder.iterdir():
        is_model = file.name in (_KEPT_MODEL, GIVEN_MODEL)
        if file != current and not is_model:
            file.unlink(missing_ok=True)
    sync_folder(folder)
