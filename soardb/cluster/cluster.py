"""Cluster: a database whose collections lie on shards, as actors of a Ray cluster.

    connect.py -> [cluster.py] -> collection.py (points), registrar.py (names), calls.py

The methods are those of an embedded database. A driver holds nothing but names of actors: they are
detached, so they outlive it, and any number of drivers may be connected at once. What there is
stands in the catalog in the storage; the points stand in the directories of the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from soardb.arrays import as_int
from soardb.cluster.building import Build
from soardb.cluster.calls import REGISTRAR, Actors, Job, shard_name
from soardb.cluster.collection import Held, ShardedCollection, Waits
from soardb.cluster.moves import plan_moves
from soardb.cluster.parquet import open_source
from soardb.cluster.places import end_actors
from soardb.cluster.registrar import Layout, located, make_registrar
from soardb.cluster.storage import Storage, storage_of
from soardb.cluster.totals import total
from soardb.core import Settings
from soardb.errors import (
    AlreadyExists,
    Closed,
    InvalidArgument,
    NotFound,
    TimedOut,
    Unavailable,
)
from soardb.options import as_number
from soardb.snapshot import SHARDS, Parts, describe, parts_of, poured, unpacked
from soardb.storage.catalog import as_name

__all__ = ["DEFAULT_SHARDS", "MAX_SHARDS", "Cluster"]

DEFAULT_SHARDS = 4
MAX_SHARDS = 4096
_log = logging.getLogger("soardb")

_MOVE_FAILURES = 5  # of moves before a rebalancing gives up
_OPEN_S = 120.0  # to make the actors of a cluster and wait for them


class Cluster:
    """Open with soardb.connect("ray://..."); a context manager. Safe for many threads.

    target         "ray://auto": the Ray cluster that this machine or process is part of already;
                   "ray://local": one of this machine alone, for the life of the process;
                   "ray://host:port": another one, through its Ray Client server
    storage        where the catalog and snapshots are kept: a folder that all nodes reach, or a
                   URI such as s3://bucket/prefix that pyarrow.fs knows
    shards         how many, when the cluster is made; 4 unless told. It stays
    data           folder on each node for its shards, on a disk of its own; unless told they lie in
                   the storage, and a shard whose node is lost goes on elsewhere
    timeout        seconds for a read, unless the call says another
    write_timeout  seconds for a write
    cpus           of Ray's books for each shard
    memory_limit, allow_network  of each shard's database; see soardb.connect

    Errors: Unavailable where Ray or an actor is not there, InvalidArgument, CorruptStorage.
    """

    def __init__(
        self,
        target: str,
        *,
        storage: str | os.PathLike[str],
        shards: int | None = None,
        data: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        write_timeout: float = 60.0,
        cpus: float = 0.0,
        memory_limit: int | None = None,
        allow_network: bool = False,
    ) -> None:
        place = _absolute(storage)
        storage_of(place)  # says what is wrong with it before anything is started
        limit = None if memory_limit is None else as_int(memory_limit, "memory_limit", 2**20, 2**62)
        options = {"memory_limit": limit, "allow_network": bool(allow_network)}
        self.target, self.storage, self.is_read_only = target, place, False
        self._layout = Layout(
            place,
            None if shards is None else as_int(shards, "shards", 1, MAX_SHARDS),
            None if data is None else str(Path(data).absolute()),
            as_number(cpus, "cpus"),
            options,
        )
        self._waits = Waits(
            as_number(timeout, "timeout"), as_number(write_timeout, "write_timeout")
        )
        self._namespace = f"soardb-{hashlib.blake2b(place.encode(), digest_size=8).hexdigest()}"
        self._closed = False
        self._held: dict[str, Held] = {}
        self._began_ray = _begin_ray(target)
        self._actors = Actors(self._namespace, partial(located, self._layout))
        try:
            make_registrar(self._namespace, self._layout)
            job = Job("open", (self._layout, DEFAULT_SHARDS))
            self.id, self.shards = self._actors.one(REGISTRAR, job, _OPEN_S)
        except BaseException:
            self._leave()
            raise

    @property
    def _names(self) -> list[str]:
        """Of the actors of all shards, in order."""
        return [shard_name(number) for number in range(self.shards)]

    def _registrar(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        self._check_open()
        wait = self._waits.write_s if timeout is None else timeout
        return self._actors.one(REGISTRAR, Job(method, arguments), wait)

    # ------------------------------------------------------------------ collections

    def create_collection(
        self,
        name: str,
        dim: int,
        metric: str = "cosine",
        *,
        schema: Mapping[str, str] | None = None,
        index: Mapping[str, Any] | None = None,
        ttl: str | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> ShardedCollection:
        """Make a collection on every shard, durable when this returns.

        The arguments and errors are those of Database.create_collection; `index` is of the index of
        each shard.
        """
        settings = Settings.asked(name, dim, metric, schema, index, ttl)
        request = uuid.uuid4().hex
        made = self._registrar(
            "create", name, settings.to_json(), bool(exist_ok), request, timeout=timeout
        )
        return self.get_collection(made, timeout=timeout)

    def get_collection(self, name: str, *, timeout: float | None = None) -> ShardedCollection:
        """The collection of a name or an alias. Errors: NotFound."""
        if not isinstance(name, str):
            as_name(name)
        real, id, settings, kind = self._registrar("find", name, timeout=timeout)
        held = self._held.get(id)
        if held is None or held.closed:
            held = self._held[id] = Held(real, id, Settings.of_json(settings), kind)
        held.name = real
        return ShardedCollection(self._actors, self.shards, held, self._waits)

    def list_collections(self, *, timeout: float | None = None) -> list[str]:
        """Names, sorted."""
        names: list[str] = self._registrar("list_collections", timeout=timeout)
        return names

    def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection with all its points, and the aliases that stand for it."""
        as_name(name)
        self._registrar("drop", name, uuid.uuid4().hex, timeout=timeout)
        for held in self._held.values():
            if held.name == name:
                held.closed = held.closed or "dropped"

    def rename_collection(self, name: str, new_name: str, *, timeout: float | None = None) -> None:
        """Give a collection another name; handles and aliases go on working."""
        self._registrar("rename", as_name(name), new_name, uuid.uuid4().hex, timeout=timeout)
        for held in self._held.values():
            if held.name == name and not held.closed:
                held.name = new_name

    # ------------------------------------------------------------------ loading

    def load(
        self,
        name: str,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        id_column: str = "id",
        vector_column: str = "vector",
        metric: str | None = None,
        schema: Mapping[str, str] | None = None,
        index: Mapping[str, Any] | None = None,
        ttl: str | None = None,
        parallel: int | None = None,
        progress: Callable[[str, float], None] = lambda stage, share: None,
        stop: threading.Event | None = None,
    ) -> ShardedCollection:
        """Load Parquet files into a collection without points, and build its index, on all nodes.

        source         files, folders or patterns, or a list of them, as every node reaches them:
                       paths, or URIs that pyarrow.fs knows
        id_column      integers or strings, each of which comes once
        vector_column  lists of numbers; every other column is payload
        metric, schema, index, ttl
                       of a collection that is not there yet, as in create_collection; unless told
                       they are those of an export, or the defaults
        parallel       row groups that are read at once; as many as Ray has CPUs unless told
        progress       called with (stage, share): sample, k-means, codebooks, load, build
        stop           once it is set, the load ends (Closed)

        Partitions and codebooks are learnt once, on a sample of all files; each shard encodes its
        points with them. Memory: of a task some MiB, of a shard as docs/cluster-build.md tells.

        After an interruption of any kind the same call goes on where it was: each part is written
        once. Files must not change meanwhile. Errors: NotFound, AlreadyExists where there are
        points or an id comes twice, InvalidArgument for values that cannot be, each with file, row
        group and row; Unavailable where tasks or shards died too often: call again.
        """
        self._check_open()
        most = None if parallel is None else as_int(parallel, "parallel", 1, 2**20)
        found = open_source(source, id_column, vector_column, self.shards)
        made = {"metric": metric, "schema": schema, "index": index, "ttl": ttl}
        told: dict[str, Any] = {k: v for k, v in made.items() if v is not None}
        if name in self.list_collections() or name in self.list_aliases():
            collection = self.get_collection(name)
            held = replace(collection._held.settings, name=collection.name)
            given = held.to_json() | {"index": held.to_json()["params"]} | told
            said = [given[key] for key in ("metric", "schema", "index", "ttl")]
            asked = Settings.asked(held.name, found.d, *said)
            held.expect_same(asked)
            if asked.params != held.params:
                raise AlreadyExists(
                    f"collection {held.name!r} is there with index {held.params}, expected "
                    f"{asked.params}"
                )
        else:
            options: dict[str, Any] = {key: found.about.get(key) for key in made} | told
            if schema is not None and ttl is None:
                options["ttl"] = None  # that of the export is a field of its schema
            options["metric"] = options["metric"] or "cosine"
            collection = self.create_collection(name, found.d, **options)
        storage = storage_of(self.storage)
        Build(self._actors, storage, self._layout, collection, found, most, progress, stop).run()
        return collection

    # ------------------------------------------------------------------ aliases

    def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> None:
        """Let an alias stand for a collection, in the place of another if it did: at once."""
        self.set_aliases({alias: collection}, timeout=timeout)

    def set_aliases(
        self, aliases: Mapping[str, str | None], *, timeout: float | None = None
    ) -> None:
        """Change several aliases at once or not at all; None drops one."""
        self._registrar("set_aliases", dict(aliases), uuid.uuid4().hex, timeout=timeout)

    def real_name(self, name: str) -> str:
        """The collection that an alias stands for; any other name as it is."""
        return self.list_aliases().get(name, name)

    def list_aliases(self, *, timeout: float | None = None) -> dict[str, str]:
        """{alias: collection}."""
        found: dict[str, str] = self._registrar("list_aliases", timeout=timeout)
        return found

    # ------------------------------------------------------------------ snapshots

    def snapshot(
        self,
        name: str,
        target: str | os.PathLike[str],
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> None:
        """Write a collection to a new folder, one file a shard; writes go on meanwhile.

        target: a folder that all nodes reach, or a URI that pyarrow.fs knows. Of each shard it is
        as of one moment; the moments differ by how long it takes. The snapshot is there once its
        last file is, soardb-cluster-snapshot.json; an embedded database restores the folder, too.
        Errors: AlreadyExists, NotFound for the collection, Unavailable.
        """
        place = _absolute(target)
        storage = storage_of(place)
        if storage.read(SHARDS) is not None:
            raise AlreadyExists(f"expected a new folder for the snapshot, one is in {place}")
        held = self.get_collection(name)._held
        files = {f"{shard}.snapshot": shard for shard in self._names}
        progress("write", 0.0)
        jobs = {shard: Job("snapshot", (held.id, place, file)) for file, shard in files.items()}
        sizes = self._actors.all(jobs, None)
        parts = Parts(
            replace(held.settings, name=held.name),
            {file: sizes[shard] for file, shard in files.items()},
        )
        storage.replace(SHARDS, parts.to_bytes())
        progress("done", 1.0)

    def restore(
        self,
        archive: str | os.PathLike[str],
        name: str,
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> ShardedCollection:
        """A snapshot as a new collection.

        archive  where snapshot() wrote one, of a cluster of as many shards: each takes its file. Of
                 another number of shards, or a file of this machine that an embedded database or a
                 server wrote: the points are written anew, and each shard builds its index

        Errors: NotFound, AlreadyExists, InvalidArgument, CorruptStorage.
        """
        place = _absolute(archive)
        self._registrar("check_free", as_name(name))
        if "://" not in place and Path(place).is_file():
            return self._restore_file(Path(place), name, progress)
        storage = storage_of(place)
        data = storage.read(SHARDS)
        if data is None:
            raise NotFound(f"expected a snapshot in {place}, found no {SHARDS}")
        parts = Parts.of_bytes(data, place)
        files = list(parts.files)
        if files == [f"{shard}.snapshot" for shard in self._names]:
            progress("unpack", 0.0)
            told = parts.settings.to_json()
            job = Job("restore", (name, place, files, told, uuid.uuid4().hex))
            self._actors.one(REGISTRAR, job, None)
            progress("done", 1.0)
            return self.get_collection(name)
        with tempfile.TemporaryDirectory(prefix="soardb-restore-") as folder:
            fetched, here = _fetched(storage, files, Path(folder)), Path(folder)
            made: ShardedCollection = poured(
                self, fetched, len(files), here, parts.settings, name, progress
            )
            return made

    def _restore_file(
        self, archive: Path, name: str, progress: Callable[[str, float], None]
    ) -> ShardedCollection:
        with tempfile.TemporaryDirectory(prefix="soardb-restore-") as folder:
            scratch = Path(folder)
            with unpacked(archive, scratch) as place:
                files = [place]
                if place.is_dir():
                    files = [place / file for file in parts_of(place).files]
                made: ShardedCollection = poured(
                    self, files, len(files), scratch, describe(place), name, progress
                )
                return made

    # ------------------------------------------------------------------ care

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Bytes by part and counts, of all shards together, and of each under "shards"."""
        self._check_open()
        jobs = dict.fromkeys(self._names, Job("database_stats"))
        found = self._actors.all(jobs, self._waits.read_s if timeout is None else timeout)
        each = [found[name] for name in sorted(found)]
        whole = total([{k: v for k, v in one.items() if k != "collections"} for one in each])
        collections = {}
        for name in self.list_collections(timeout=timeout):
            with contextlib.suppress(NotFound, Closed):  # dropped meanwhile
                collections[name] = self.get_collection(name).stats(timeout=timeout)
        return whole | {"collections": collections, "shards": each}

    def processes(self, *, timeout: float | None = None) -> dict[str, int]:
        """{name of an actor: number of its process on its node}, of all shards."""
        self._check_open()
        jobs = dict.fromkeys(self._names, Job("process"))
        return self._actors.all(jobs, self._waits.read_s if timeout is None else timeout)

    def places(self, *, timeout: float | None = None) -> dict[str, str]:
        """{name of a shard: address of the node that it is on}."""
        places, nodes = self._registrar("nodes", timeout=timeout)
        return {shard: nodes.get(node, node) for shard, node in sorted(places.items())}

    def rebalance(
        self,
        progress: Callable[[str, float], None] = lambda stage, share: None,
        *,
        without: Iterable[str] = (),
        timeout: float | None = None,
    ) -> dict[str, str]:
        """Move shards until each node has its share: as few as can be, one after the other.

        To be called when nodes have joined, or are to leave. Reads and writes go on; writes of a
        shard wait for a moment while it moves. Where each node has a disk of its own (`data`), the
        shard's directory is copied to the other node first.

        without  addresses of nodes that are to have none, as they will leave
        timeout  seconds for each shard; unless told, as long as it takes

        Returns {name of a shard: address of its new node} of those that moved. A shard of which an
        actor or a node is lost meanwhile stays where it was, and is tried again. Errors:
        InvalidArgument for an unknown node, Unavailable.
        """
        leaving, failures = set(without), 0
        moved: dict[str, str] = {}
        while True:
            places, nodes = self._registrar("nodes", timeout=timeout)
            unknown = leaving - set(nodes.values())
            if unknown:
                raise InvalidArgument(
                    f"expected addresses of nodes, {', '.join(sorted(nodes.values()))}, got "
                    f"{', '.join(sorted(map(str, unknown)))}"
                )
            plan = plan_moves(places, [node for node in nodes if nodes[node] not in leaving])
            if not plan:
                progress("done", 1.0)
                return moved
            shard, node = plan[0]
            progress(f"move {shard} to {nodes[node]}", len(moved) / (len(moved) + len(plan)))
            try:
                self._actors.one(REGISTRAR, Job("move", (shard, node)), timeout)
            except (TimedOut, Unavailable) as error:
                _log.warning("%s was not moved to %s: %s", shard, nodes[node], error)
                failures += 1
                if failures > _MOVE_FAILURES:
                    raise
            else:
                moved[shard] = nodes[node]

    def stop(self) -> None:
        """End the actors of the cluster for all drivers, and close this one. The data stay.

        What was acknowledged from memory is written first.
        """
        self._check_open()
        self._actors.ask(dict.fromkeys(self._names, Job("close")), self._waits.write_s)
        end_actors(self._namespace)
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"cluster {self.storage} was closed")

    def close(self) -> None:
        """Refuse further calls through this object. The cluster goes on."""
        if self._closed:
            return
        for held in self._held.values():
            held.closed = held.closed or "closed"
            if held.queue is not None:
                held.queue.shutdown()
        self._closed = True
        self._leave()

    def _leave(self) -> None:
        if self._began_ray:
            ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cluster({self.storage!r})"


def _fetched(storage: Storage, files: Iterable[str], folder: Path) -> Iterator[Path]:
    """Files of a storage, one at a time, each gone when the next is asked for."""
    for file in files:
        here = folder / file
        storage.fetch(file, here)
        yield here
        here.unlink()


def _absolute(place: str | os.PathLike[str]) -> str:
    """A path from the root, as other processes have other working directories; a URI as it is."""
    if not isinstance(place, str | os.PathLike) or not isinstance(os.fspath(place), str):
        raise InvalidArgument(f"expected a path or a URI, got {place!r}")
    text = os.fspath(place)
    if not text:
        raise InvalidArgument("expected a path or a URI, got an empty one")
    return text if "://" in text else str(Path(text).absolute())


def _begin_ray(target: str) -> bool:
    """Be part of a Ray cluster; whether this began it. Errors: Unavailable, InvalidArgument."""
    where = target.removeprefix("ray://")
    if where in ("auto", "local") and ray.is_initialized():
        return False
    if not where:
        raise InvalidArgument(
            f"expected ray://auto, ray://local or ray://host:port, got {target!r}"
        )
    address = where if where in ("auto", "local") else target
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()  # what a client that found nobody leaves keeps the next one from beginning
        raise Unavailable(f"{target}: Ray did not answer: {error}") from None
    return True
