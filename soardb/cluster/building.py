"""The distributed build: a collection loaded from Parquet files and indexed with one model.

    cluster.py -> [building.py] -> parquet.py, training.py, collection.py (shards), Ray

Four stages, each of which goes on where it was when the same load is called again:

  1. train   partitions and codebooks are learnt on a sample and kept in the storage
  2. begin   every shard is given the model, and remembers the name of the load
  3. load    tasks read row groups, bit by bit, and send each shard its points of a part; a shard
             writes a part once, with its number, so what is in is asked of the shards themselves
  4. build   every shard encodes its points with the model that it was given

A load is named by the files as they are (paths, sizes, times of change). At most `parallel` row
groups are read at once, and each of them holds one part until the shards have written it.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from soardb.cluster.calls import REGISTRAR, Actors, Job, refusal_of, shard_name
from soardb.cluster.collection import ShardedCollection
from soardb.cluster.parquet import ParquetSource, Part, RowGroup
from soardb.cluster.placement import pack_ids, rows_by_shard
from soardb.cluster.registrar import Layout, located
from soardb.cluster.storage import Storage
from soardb.cluster.training import choice_of, cpus, train
from soardb.clustering import Progress
from soardb.core import Settings
from soardb.errors import AlreadyExists, Closed, InvalidArgument, Unavailable

__all__ = ["Build"]

_PART_S = 600.0  # for the shards to write one part; they may be restarted meanwhile
_CALL_S = 60.0
_LOOK_S = 0.2
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Work:
    """What a task must know to read row groups and to reach the shards."""

    source: ParquetSource
    settings: Settings
    collection: str
    load: str
    shards: int
    namespace: str
    layout: Layout


class Build:
    """One load of one source into one collection without points."""

    def __init__(
        self,
        actors: Actors,
        storage: Storage,
        layout: Layout,
        collection: ShardedCollection,
        source: ParquetSource,
        parallel: int | None,
        progress: Progress,
        stop: threading.Event | None,
    ) -> None:
        self._actors, self._storage, self._collection = actors, storage, collection
        self._source, self._progress, self._stop = source, progress, stop
        self._settings: Settings = collection._held.settings
        self._names = [shard_name(number) for number in range(collection.shards)]
        self._load = source.digest
        self._parallel = parallel
        self._work = _Work(
            source,
            self._settings,
            collection.id,
            self._load,
            collection.shards,
            actors.namespace,
            layout,
        )

    def run(self) -> None:
        """All stages. Errors: see Cluster.load."""
        done = self._done()
        if done.all() and self._manifest().get("stage") == "done":
            return
        if not done.all():
            model = self._model()
            reference = None if model is None else ray.put(model)
            self._all(Job("begin_load", (self._collection.id, self._load, reference)))
            self._fix_kind()
            self._note("load")
            self._send(done)
        self._note("build")
        self._collection._cared(
            "end_load", (), lambda _, share: self._progress("build", share), self._stop
        )
        self._note("done")
        self._storage.remove(self._model_file)
        self._progress("done", 1.0)

    # ------------------------------------------------------------------ what is there

    def _done(self) -> np.ndarray:
        """(parts,) bool: which all shards have. Errors: AlreadyExists where others are there."""
        done = np.ones(self._source.parts, bool)
        each = self._all(Job("loaded", (self._collection.id,)))
        if not any(each) and self._collection.count():
            raise AlreadyExists(
                f"expected {self._collection.name!r} without points, to load it; it has some: add "
                "to it by upsert or ingest"
            )
        for found in each:
            here = np.zeros(len(done), bool)
            if found is not None:
                if found.load != self._load:
                    raise AlreadyExists(
                        f"expected {self._collection.name!r} without points, it was loaded from "
                        f"{self._noted()}, or these files have changed since; drop it to load it "
                        "anew"
                    )
                for first, end in found.ranges:
                    here[first:end] = True
            done &= here
        return done

    @property
    def _file(self) -> str:
        return f"loads/{self._collection.id}.json"

    @property
    def _model_file(self) -> str:
        return f"loads/{self._collection.id}.{self._load}.model"

    def _manifest(self) -> dict[str, Any]:
        """What the storage says of a load of this collection; {} where it says nothing."""
        data = self._storage.read(self._file)
        try:
            found = json.loads(data or b"{}")
        except ValueError:
            return {}  # it is for the eye, and saves work; shards know what is in
        return found if isinstance(found, dict) and found.get("format") == _FORMAT else {}

    def _noted(self) -> str:
        files = self._manifest().get("files") or ["other files"]
        return f"{files[0]}" + (f" and {len(files) - 1} more files" if len(files) > 1 else "")

    def _note(self, stage: str) -> None:
        source = self._source
        manifest = {
            "format": _FORMAT,
            "load": self._load,
            "collection": self._collection.name,
            "stage": stage,
            "files": [path for path, _, _ in source.files],
            "row_groups": len(source.groups),
            "rows": source.rows,
            "parts": source.parts,
        }
        self._storage.replace(self._file, json.dumps(manifest, indent=1).encode())

    # ------------------------------------------------------------------ the model

    def _model(self) -> bytes | None:
        """The one that was learnt before, or a new one; None where shards stay exact."""
        live = -(-self._source.rows // self._collection.shards)
        choice = choice_of(self._settings, live)
        if choice is None:
            return None
        kept = self._storage.read(self._model_file)
        if kept is not None:
            return kept
        self._note("train")
        model = train(self._source, self._settings, choice, live, self._report)
        with tempfile.TemporaryDirectory(prefix="soardb-") as folder:
            file = Path(folder) / secrets.token_hex(4)
            file.write_bytes(model)
            self._storage.send(file, self._model_file)
        return model

    # ------------------------------------------------------------------ the points

    def _fix_kind(self) -> None:
        job = Job("fix_kind", (self._collection.id, self._source.id_kind))
        kind = self._actors.one(REGISTRAR, job, _CALL_S)
        if kind != self._source.id_kind:
            raise Closed(f"collection {self._collection.name!r} was dropped")
        self._collection._held.id_kind = kind

    def _send(self, done: np.ndarray) -> None:
        """Let tasks read what is not done, some row groups at once."""
        source = self._source
        flying: dict[Any, RowGroup] = {}
        groups = [
            group
            for group in source.groups
            if not done[_slice_of(source.part_numbers(group))].all()
        ]
        total, came = source.rows, source.rows - sum(group.rows for group in groups)
        window = self._parallel or max(2, cpus())
        waiting = iter(groups)
        self._report("load", came / total)
        try:
            while True:
                for group in _some(waiting, window - len(flying)):
                    part = done[_slice_of(source.part_numbers(group))]
                    flying[_loaded.remote(self._work, group, part)] = group
                if not flying:
                    return
                ready, _ = ray.wait(list(flying), num_returns=1, timeout=_LOOK_S)
                for reference in ready:
                    group = flying.pop(reference)
                    self._taken(reference, group)
                    came += group.rows
                self._report("load", came / total)
        finally:
            for reference in flying:  # what they have sent is in, and known to be
                ray.cancel(reference)

    def _taken(self, reference: Any, group: RowGroup) -> None:
        try:
            ray.get(reference)
        except RayTaskError as error:
            cause = refusal_of(error)
            if isinstance(cause, InvalidArgument | AlreadyExists):
                raise type(cause)(
                    f"{cause}. A part of the points is in {self._collection.name!r}: drop it, mend "
                    "the file and load it anew"
                ) from None
            raise cause from None
        except RayError as error:
            raise Unavailable(
                f"the task that loads {group.file}, row group {group.number}, died; call again to "
                f"go on from there: {error}"
            ) from None

    # ------------------------------------------------------------------ calls

    def _all(self, job: Job) -> list[Any]:
        found = self._actors.all(dict.fromkeys(self._names, job), _PART_S)
        return [found[name] for name in self._names]

    def _report(self, stage: str, share: float) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Closed("the load was stopped; call again to go on")
        self._progress(stage, share)


def _slice_of(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def _some(groups: Iterable[RowGroup], count: int) -> list[RowGroup]:
    return [group for _, group in zip(range(count), groups)]  # noqa: B905  the shorter one ends it


# ---------------------------------------------------------------------- tasks


def _load_group(work: _Work, group: RowGroup, done: np.ndarray) -> int:
    """Read a row group and send its parts to the shards, one part at a time; how many points.

    done: which of its parts are in. Done again after a death of the worker it sends again what was
    sent, and shards write it once.
    """
    actors = Actors(work.namespace, partial(located, work.layout))
    first, sent = group.first_part, 0
    for part in work.source.read(group, lambda number: bool(done[number - first]), work.settings):
        _send_part(work, actors, group, part)
        sent += len(part.batch.ids)
    return sent


_loaded: Any = ray.remote(_load_group).options(max_retries=3)


def _send_part(work: _Work, actors: Actors, group: RowGroup, part: Part) -> None:
    ids = part.batch.ids
    owned = rows_by_shard(ids, work.shards)
    nothing = np.empty(0, np.int64)
    jobs = {}
    for shard in range(work.shards):
        rows = owned.get(shard, nothing)
        texts = None if part.payloads is None else [part.payloads[row] for row in rows.tolist()]
        args = pack_ids(ids, rows), part.batch.vectors[rows], texts
        job = Job("load_part", (work.collection, work.load, part.number, *args))
        jobs[shard_name(shard)] = job
    try:
        actors.all(jobs, _PART_S)
    except AlreadyExists as error:
        raise _named(work, actors, group, part, error) from None


def _named(
    work: _Work, actors: Actors, group: RowGroup, part: Part, error: AlreadyExists
) -> AlreadyExists:
    """The error of an id that another part has brought, with its row."""
    ids = part.batch.ids
    for shard, rows in rows_by_shard(ids, work.shards).items():
        name = shard_name(shard)
        found = actors.one(name, Job("loaded", (work.collection,)), _CALL_S)
        if found is not None and part.number in found:
            continue  # it took its points of this part
        job = Job("get", (work.collection, pack_ids(ids, rows), False))
        held = actors.one(name, job, _CALL_S)
        for row, point in zip(rows.tolist(), held, strict=True):
            if point is not None:
                return work.source.doubled(group, ids[row], part.row + row, "in another part")
    return AlreadyExists(f"{group.file}, row group {group.number}: {error}")
