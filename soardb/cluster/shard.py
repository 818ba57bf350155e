"""A shard: one ordinary database directory, and the methods that a cluster calls on it.

    calls.py (as a Ray actor) -> [shard.py] -> database.py, collection.py, handover.py

It is reloaded from its directory whenever its process starts; whatever was acknowledged is there.
Every collection is called by the id that the cluster's catalog gives it. Every write carries a
request id, so that one which is asked for twice, before a crash and after it, is done once.

A shard that moves first cedes its directory: it answers reads and no writes. Then it leaves, and
whoever asks is told that the shard is elsewhere.

Nothing here imports Ray or knows of other shards: plain values in, plain values out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soardb.cluster.handover import (
    Arriving,
    Calls,
    Leaving,
    Mark,
    Part,
    owner_of,
    reading,
    set_owner,
    writing,
)
from soardb.cluster.storage import storage_of
from soardb.collection import Collection
from soardb.core import Core, Settings
from soardb.database import Database
from soardb.errors import Closed, InvalidArgument, NotFound, SoarError, Unavailable
from soardb.filters import as_filter
from soardb.hits import HitColumns, Point
from soardb.kernels.layout import F32
from soardb.loading import Loaded
from soardb.options import Ack, Mode
from soardb.pages import make_token, page_mark
from soardb.schema import PointId, Schema, decode_payload

__all__ = ["Shard"]

_log = logging.getLogger("soardb")

_LINGER_S = 10.0  # for reads under way, when what they read is given up

Ids = Any  # (n,) int64, or a list of strings


class Shard:
    """One directory of a cluster. Safe for many threads.

    token    of this actor, "" for the first one of a shard: what OWNER says of a directory that
             another actor had before
    options  of the database
    """

    def __init__(self, path: str, number: int, options: Mapping[str, Any], token: str = "") -> None:
        self._path, self.number, self._options = Path(path), number, dict(options)
        self._token = token
        self._lock = threading.Lock()
        self._open: Database | None = None
        self._stops: dict[str, threading.Event] = {}
        self._calls = Calls()
        self._leaving: Leaving | None = None
        self._copy = ""  # the name of what is being copied
        self._arriving = Arriving(self._path)
        try:
            if self._path.exists() and (owner_of(self._path) or "") == token:
                self._database()
        except SoarError as error:  # whoever calls is told; then it is tried again
            _log.warning("shard %d: %s", number, error)

    def make(self) -> None:
        """Make the directory of a new cluster. Errors: InvalidArgument where it holds something."""
        with self._lock:
            if self._open is None:
                self._open = Database(self._path, **self._options)
        if self._open.list_collections():
            raise InvalidArgument(
                f"expected no collections in {self._path} of a new cluster; was the cluster's "
                "catalog lost? Put it back in the storage"
            )

    def _database(self) -> Database:
        """Opened at the first call, as the process before may not be gone yet (InUse)."""
        with self._lock:
            if self._open is None:
                try:
                    is_ours = owner_of(self._path) in (None, self._token)
                    if not is_ours:
                        self._calls.cede(self._is_shared_by_network)
                    self._open = Database(
                        self._path, create=False, read_only=not is_ours, **self._options
                    )
                    if is_ours:
                        self._sweep()
                except NotFound as error:
                    raise Unavailable(
                        f"shard {self.number} has no data on this node: {error}; let the node that "
                        "has them join the cluster again"
                    ) from None
            return self._open

    @property
    def _is_shared_by_network(self) -> bool:
        """Whether two processes must not have it open at once, as one of them may be elsewhere."""
        return bool(self._options.get("allow_network"))

    def _sweep(self) -> None:
        """Remove half-made snapshots of a process that was killed."""
        for pattern in (".snapshot-*", ".restore-*"):
            for folder in self._path.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def _collection(self, name: str) -> Collection:
        try:
            return self._database().get_collection(name)
        except NotFound:
            raise Closed(f"collection {name!r} was dropped") from None

    # ------------------------------------------------------------------ collections

    def process(self) -> int:
        """The number of the process that it lives in."""
        return os.getpid()

    @writing
    def create(self, settings: Mapping[str, Any]) -> None:
        """Make the part of a collection that lies here, if it is not there."""
        made = Settings.of_json(dict(settings))
        self._database().create_collection(made.name, **made.asking, exist_ok=True)

    @reading
    def collections(self) -> list[str]:
        """The ids of those that have a part here."""
        return self._database().list_collections()

    @writing
    def drop(self, names: Sequence[str]) -> None:
        """Delete the parts of some, if they are there."""
        database = self._database()
        for name in set(database.list_collections()) & set(names):
            database.drop_collection(name)

    @reading
    def describe(self, name: str) -> tuple[int, int, str | None]:
        """Number of the last write, points, kind of ids."""
        collection = self._collection(name)
        return collection.seq, collection.count(), collection.id_kind

    # ------------------------------------------------------------------ writing

    @writing
    def put(
        self,
        name: str,
        ids: Ids,
        vectors: F32,
        payloads: Sequence[bytes] | None,
        mode: Mode,
        ack: Ack,
        request_id: str | None,
    ) -> int:
        """Store points, payloads as JSON; how many."""
        collection = self._collection(name)
        write = collection.insert if mode == "insert" else collection.upsert
        given = None if payloads is None else [decode_payload(payload) for payload in payloads]
        return write(ids, vectors, given, ack=ack, request_id=request_id)

    @writing
    def update_payload(
        self,
        name: str,
        payloads: Sequence[bytes],
        ids: Ids | None,
        where: Mapping[str, Any] | None,
        replace: bool,
        ack: Ack,
        request_id: str | None,
    ) -> int:
        """Change payloads, by one change for all or one for each of ids; of how many points."""
        changes = list(map(decode_payload, payloads))
        return self._collection(name).update_payload(
            changes[0] if len(changes) == 1 else changes,
            ids=ids,
            filter=where,
            replace=replace,
            ack=ack,
            request_id=request_id,
        )

    @writing
    def delete(
        self,
        name: str,
        ids: Ids | None,
        where: Mapping[str, Any] | None,
        ack: Ack,
        request_id: str | None,
    ) -> int:
        """Delete points; how many there were."""
        return self._collection(name).delete(ids, filter=where, ack=ack, request_id=request_id)

    @writing
    def flush(self, name: str) -> None:
        """See Collection.flush."""
        self._collection(name).flush()

    # ------------------------------------------------------------------ loading

    @writing
    def begin_load(self, name: str, load: str, model: bytes | None) -> None:
        """See Collection._begin_load."""
        self._collection(name)._begin_load(load, model)

    @reading
    def loaded(self, name: str) -> Loaded | None:
        """See Collection._loaded."""
        return self._collection(name)._loaded()

    @writing
    def load_part(
        self,
        name: str,
        load: str,
        number: int,
        ids: Ids,
        vectors: F32,
        payloads: Sequence[bytes] | None,
    ) -> int:
        """See Collection._load_part; payloads as JSON."""
        given = None if payloads is None else [decode_payload(payload) for payload in payloads]
        return self._collection(name)._load_part(load, number, ids, vectors, given)

    @writing
    def end_load(self, name: str, operation: str) -> None:
        """See Collection._end_load; stop(operation) ends it."""
        with self._operation(operation) as stop:
            self._collection(name)._end_load(stop)

    # ------------------------------------------------------------------ reading

    @reading
    def there(self, name: str, ids: Ids) -> int:
        """How many of distinct ids have a point."""
        found = self._collection(name).get(ids)
        return sum(point is not None for point in found)

    @reading
    def get(self, name: str, ids: Ids, with_vectors: bool) -> list[Point | None]:
        """See Collection.get."""
        return self._collection(name).get(ids, with_vectors=with_vectors)

    @reading
    def page(
        self,
        name: str,
        after: PointId | None,
        where: Mapping[str, Any] | None,
        size: int,
        with_payload: bool,
        with_vectors: bool,
        timeout: float | None = None,
    ) -> tuple[list[Point], bool]:
        """At most `size` points after an id in the order of ids, and whether there are more."""
        collection = self._collection(name)
        token = None
        if after is not None:
            mark = page_mark(collection.id, as_filter(where, Schema.of(collection.schema)))
            token = make_token(after, mark)
        page = collection.scroll(
            filter=where,
            page_size=size,
            page_token=token,
            with_payload=with_payload,
            with_vectors=with_vectors,
            timeout=timeout,
        )
        return page.points, page.next_page_token is not None

    def batches(self, name: str, size: int) -> Iterator[tuple[Ids, list[bytes], F32]]:
        """Every point as of one moment, some at a time: ids, payloads as JSON, vectors."""
        with self._calls.one(is_write=False):
            for batch in self._collection(name).batches(size):
                ids: Ids = batch.ids
                if ids and isinstance(ids[0], int):
                    ids = np.array(ids, np.int64)
                yield ids, batch.payloads, batch.vectors

    @reading
    def count(self, name: str, where: Mapping[str, Any] | None, timeout: float | None) -> int:
        """See Collection.count."""
        return self._collection(name).count(where, timeout=timeout)

    @reading
    def search(self, name: str, query: F32 | None, options: Mapping[str, Any]) -> HitColumns:
        """See Collection.search_columns."""
        return self._collection(name).search_columns(query, **options)

    # ------------------------------------------------------------------ care

    @writing
    def compact(self, name: str, retrain: bool, operation: str) -> None:
        """See Collection.compact; stop(operation) ends it."""
        with self._operation(operation) as stop:
            self._collection(name).compact(retrain=retrain, stop=stop)

    @writing
    def tune(self, name: str, options: Mapping[str, Any], operation: str) -> dict[str, Any]:
        """See Collection.tune: a curve as JSON values; stop(operation) ends it."""
        with self._operation(operation) as stop:
            return self._collection(name).tune(**options, stop=stop).to_json()

    def stop(self, operation: str) -> None:
        """End a compaction or a tuning that is under way."""
        with self._lock:
            event = self._stops.get(operation)
        if event is not None:
            event.set()

    def _operation(self, operation: str) -> _Operation:
        return _Operation(self._stops, self._lock, operation)

    @reading
    def keep_queries(self, name: str, count: int) -> None:
        """See Collection.keep_queries."""
        self._collection(name).keep_queries(count)

    @reading
    def stats(self, name: str) -> dict[str, Any]:
        """See Collection.stats."""
        return self._collection(name).stats()

    @reading
    def database_stats(self) -> dict[str, Any]:
        """See Database.stats."""
        return self._database().stats()

    # ------------------------------------------------------------------ moving

    def cede(self, token: str, lets_close: bool) -> dict[str, Mark]:
        """Let another actor have the directory. Reads go on, writes are refused (Moving).

        token: of that actor. lets_close: whether it will open the same directory; where that is
        shared by a network, reads wait too until it has, since the files are closed here. Returns
        how far the collections had come, by their folders.
        """
        database = self._database()
        set_owner(self._path, token)
        is_closed = lets_close and self._is_shared_by_network
        self._calls.cede(is_closed)
        database.cede()
        marks = {core.folder.name: (core.store.seq, core.store.live) for core in self._cores()}
        if is_closed:
            self.close()
        return marks

    def ceded_to(self) -> str | None:
        """The token of the actor that has the directory in the place of this one, or None."""
        owner = owner_of(self._path)
        return None if owner in (None, self._token) else owner

    def resume(self, ceded_to: str) -> None:
        """Be the one that writes again, after a move to that actor which failed.

        Where the directory is another's by now, this was said too late, and does nothing.
        """
        with self._lock:
            if owner_of(self._path) != ceded_to:
                return
            set_owner(self._path, self._token)
            before = self._open
            self._open = Database(self._path, create=False, **self._options)
            self._calls.resume()
        if before is not None:  # what reads there are have so long
            threading.Timer(_LINGER_S, before.close).start()
        self._end_copy()

    def ready(self) -> None:
        """Have everything open, before others wait for it."""
        self._cores()

    def _cores(self) -> list[Core]:
        """Of all collections, opened."""
        database, found = self._database(), []
        for name in database.list_collections():
            with contextlib.suppress(NotFound):  # dropped meanwhile
                found.append(database.get_collection(name)._core)
        return found

    def leave(self, wait_s: float) -> None:
        """Refuse all that comes (Moved); wait so long for what is under way."""
        self._calls.leave(wait_s)

    def list_parts(self, copy: str, begins: bool) -> dict[str, Part]:
        """The files of this directory, to be copied; see handover.py.

        copy: a name for it; begins: whether it begins with this call. Errors: Unavailable where the
        process is another one than it began with: what was copied before is worth nothing.
        """
        cores = self._cores()
        with self._lock:
            if begins:
                self._end_copy()
                self._leaving, self._copy = Leaving(self._path), copy
            return self._copied(copy).parts(cores)

    def read_part(self, copy: str, name: str, offset: int, size: int) -> tuple[bytes, int]:
        """Bytes of a file that was listed, and their checksum."""
        return self._copied(copy).read(name, offset, size)

    def _copied(self, copy: str) -> Leaving:
        if self._leaving is None or self._copy != copy:
            raise Unavailable(f"shard {self.number} was restarted while it was copied")
        return self._leaving

    def write_part(self, name: str, offset: int, part: tuple[bytes, int]) -> None:
        """Take over bytes of a directory that is copied to here."""
        self._arriving.write(name, offset, part)

    def finish_parts(self, sizes: Mapping[str, int], marks: Mapping[str, Mark]) -> None:
        """All has come: have the directory. Errors: CorruptStorage where it is another one."""
        self._arriving.finish(sizes, marks)

    def drop_parts(self) -> None:
        """Nothing more will come: forget it. Of a directory that is nobody's yet."""
        self.close()
        self._arriving.drop()

    def _end_copy(self) -> None:
        if self._leaving is not None:
            self._leaving.close()
        self._leaving = None

    # ------------------------------------------------------------------ snapshots

    @reading
    def snapshot(self, name: str, storage: str, file: str) -> int:
        """Write the part of a collection that lies here to a storage; its size in bytes."""
        database = self._database()
        with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=self._path) as folder:
            archive = Path(folder) / "archive"
            database.snapshot(name, archive)
            storage_of(storage).send(archive, file)
            return archive.stat().st_size

    @writing
    def restore(self, name: str, storage: str, file: str) -> str | None:
        """Make the part of a collection of a snapshot; the kind of its ids."""
        database = self._database()
        if name in database.list_collections():  # asked for again
            return database.get_collection(name).id_kind
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=self._path) as folder:
            archive = Path(folder) / "archive"
            storage_of(storage).fetch(file, archive)
            return database.restore(archive, name).id_kind

    def close(self) -> None:
        """Finish what is queued and let go of the directory."""
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None


class _Operation:
    """A stop that can be found by name for the time of a block."""

    def __init__(self, stops: dict[str, threading.Event], lock: threading.Lock, name: str) -> None:
        self._stops, self._lock, self._name = stops, lock, name

    def __enter__(self) -> threading.Event:
        event = threading.Event()
        with self._lock:
            self._stops[self._name] = event
        return event

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stops.pop(self._name, None)
