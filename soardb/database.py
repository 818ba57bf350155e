"""Database: a directory of collections, owned by one process.

    connect.py -> [database.py] -> collection.py, storage/catalog.py, storage/lock.py

    LOCK                     held by the process that writes
    catalog.json             names and aliases -> folders
    c-<16 hex digits>/       one collection: rows.sqlite (+ WAL), witness, index/

A folder is made as `<name>.new` and gets its name once the catalog lists it; it is renamed to
`<name>.gone` before the catalog drops it. So after a crash the catalog says of every such folder
which way it goes, and a folder without either ending that the catalog does not list is never
touched: `soardb repair` lists it again.

One worker thread a database compacts, deletes what has expired, and measures what recall costs; one
that only reads does the last.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from soardb import snapshot
from soardb.budget import Budget
from soardb.collection import Collection
from soardb.compaction import Policy, compact, remove_leftovers, why_due
from soardb.core import Core, Settings
from soardb.errors import Closed, InvalidArgument, NotFound, ReadOnly, SoarError
from soardb.promises import are_stale, measure_filters, refresh_curves
from soardb.storage.catalog import Catalog, as_name, new_folder
from soardb.storage.faults import reach
from soardb.storage.format import sync_folder
from soardb.storage.lock import DirectoryLock
from soardb.storage.rows import RowStore
from soardb.storage.sqlite import translated
from soardb.writer import Delete, Writer

__all__ = ["Database"]

_log = logging.getLogger("soardb")

_TICK_S = 1.0
_RETRY_S = 30.0


class Database:
    """Open with soardb.connect(); a context manager. Safe for many threads."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        create: bool = True,
        memory_limit: int | None = None,
        policy: Policy | None = None,
        allow_network: bool = False,
    ) -> None:
        self.path = Path(path)
        self.is_read_only = read_only
        self._lock = threading.RLock()
        self._open: dict[str, Collection] = {}
        self._opening: dict[str, threading.Event] = {}  # set when done; see get_collection
        self._stamp: tuple[int, int, int] | None = None  # of the catalog that was read last
        self._cores: dict[str, Core] = {}
        self._budget = Budget(memory_limit, self._held_bytes)
        self._policy = policy or Policy()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._closed = False
        self._owner: DirectoryLock | None = None
        self._prepare(create, allow_network)
        self._worker = threading.Thread(target=self._work, name="soardb-worker", daemon=True)
        self._worker.start()
        # An interpreter that ends would end the worker within native code, and abort.
        atexit.register(self._end_worker)

    def _prepare(self, create: bool, allow_network: bool) -> None:
        """Make or find the directory, own it, and finish what a crash interrupted."""
        if self.path.exists() and not self.path.is_dir():
            raise InvalidArgument(f"expected a directory to open, {self.path} is a file")
        catalog = self._catalog_path
        if not catalog.exists():
            if self.is_read_only or not create:
                raise NotFound(f"expected a soardb database in {self.path}, found none")
            if self.path.exists() and any(
                file.name != "LOCK" and not file.name.startswith(".")
                for file in self.path.iterdir()
            ):
                raise InvalidArgument(
                    f"expected an empty directory or a soardb database, {self.path} holds other "
                    "files and no catalog.json; if it was a database, run `soardb repair`"
                )
            with translated(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
        if self.is_read_only:
            self._catalog = Catalog.read(catalog)
            return
        self._owner = DirectoryLock(self.path, allow_network=allow_network)
        try:
            with translated(self.path):
                if not catalog.exists():
                    Catalog().write(catalog)
                    sync_folder(self.path.resolve().parent)
                self._catalog = Catalog.read(catalog)
                self._settle_folders()
        except BaseException:
            self._owner.release()
            raise

    @property
    def _catalog_path(self) -> Path:
        return self.path / "catalog.json"

    def _settle_folders(self) -> None:
        """After a crash: listed folders get their names, unlisted .new and .gone ones go."""
        listed = set(self._catalog.collections.values())
        for entry in list(self.path.iterdir()):
            stem, dot, ending = entry.name.rpartition(".")
            if entry.name.startswith(".catalog.json."):
                entry.unlink()
            elif dot and ending in ("new", "gone") and entry.is_dir() and stem.startswith("c-"):
                if stem in listed and not (self.path / stem).exists():
                    entry.rename(self.path / stem)
                else:
                    shutil.rmtree(entry)
        sync_folder(self.path)

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
    ) -> Collection:
        """Make a collection, durable when this returns.

        dim     dimension of the vectors, 2..4096
        metric  "cosine", "dot" or "l2"
        schema  {field: type} of the payload fields that filters use; types are int, float, bool,
                keyword, keyword_list, text, datetime, geo
        index   options of SoarIndex (nlist, soar_lambda, ...); chosen by size unless told
        ttl     a declared datetime field: a point is gone once that moment has passed
        exist_ok  return an equal collection of that name if there is one

        Errors: InvalidArgument, AlreadyExists, ReadOnly, OutOfSpace.
        """
        self._check_writable()
        settings = Settings.asked(name, dim, metric, schema, index, ttl)
        while True:
            with self._lock:
                if not (exist_ok and self._catalog.folder_of(name)):
                    self._catalog.check_free(name)
                    folder = new_folder()
                    self._make_folder(folder, settings)
                    self._adopt(folder, name)
                    return self.get_collection(name)
            try:
                return self._same(name, settings)
            except NotFound:
                if self._catalog.folder_of(name):  # its folder is missing
                    raise

    def _same(self, name: str, settings: Settings) -> Collection:
        found = self.get_collection(name)
        found._core.settings.expect_same(settings)
        return found

    def _make_folder(self, folder: str, settings: Settings) -> None:
        new = self.path / f"{folder}.new"
        try:
            with translated(new):
                new.mkdir()
                (new / "index").mkdir()
                RowStore.create(
                    new, settings.d, {"collection": settings.to_json()}, settings.text_fields
                )
                sync_folder(new)
                sync_folder(self.path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        reach("create.folder_made")

    def _list(self, catalog: Catalog) -> None:
        """Make a catalog the current one. After an error that is what the file then says."""
        try:
            catalog.write(self._catalog_path)
        except BaseException:
            # Its flush may have failed after the file was replaced.
            with contextlib.suppress(SoarError):
                self._catalog = Catalog.read(self._catalog_path)
            raise
        self._catalog = catalog

    def get_collection(self, name: str) -> Collection:
        """The collection of a name or an alias. Errors: NotFound, CorruptStorage.

        Opened once, whoever asks; meanwhile others go on with other collections.
        """
        while True:
            with self._lock:
                self._check_open()
                self._refresh()
                folder = self._folder_of(name)
                if folder in self._open:
                    return self._open[folder]
                others = self._opening.get(folder)
                if others is None:
                    done = self._opening[folder] = threading.Event()
            if others is None:
                try:
                    return self._opened(folder, name)
                finally:
                    with self._lock:
                        del self._opening[folder]
                    done.set()
            others.wait()

    def _folder_of(self, name: str) -> str:
        folder = self._catalog.folder_of(name) if isinstance(name, str) else None
        if folder is None:
            as_name(name)
            raise NotFound(
                f"expected a collection of {self.path}, there is no {name!r}; there are "
                f"{', '.join(sorted(self._catalog.collections)) or 'none'}"
            )
        return folder

    def _opened(self, folder: str, name: str) -> Collection:
        """Open a folder, which takes long where many points came since its last generation."""
        core = Core(self.path / folder, read_only=self.is_read_only)
        collection = Collection(core, self._budget, self._wake.set)
        try:
            if not self.is_read_only:
                remove_leftovers(core)
            with self._lock:
                self._check_open()
                self._cores[folder], self._open[folder] = core, collection
                collection.rename_to(self._catalog.name_of(folder) or name)
        except BaseException:
            with self._lock:
                self._cores.pop(folder, None)
                self._open.pop(folder, None)
            collection.close()
            raise
        threading.Thread(target=self._verify, args=(core,), daemon=True).start()
        self._wake.set()
        return collection

    def _verify(self, core: Core) -> None:
        """Check the generation's checksums before somebody waits for it."""
        try:
            core.current()
        except (SoarError, ValueError) as error:  # closed meanwhile, or told to the first reader
            _log.info("%s: %s", core.folder, error)

    def list_collections(self) -> list[str]:
        """Names, sorted."""
        self._check_open()
        with self._lock:
            self._refresh()
            return sorted(self._catalog.collections)

    def _refresh(self) -> None:
        """Beside a writing process the names are those of now."""
        if not self.is_read_only:
            return
        stamp = Catalog.stamp(self._catalog_path)  # before reading: a later file has another
        if stamp is None or stamp != self._stamp:
            self._catalog = Catalog.read(self._catalog_path)
            self._stamp = stamp

    def drop_collection(self, name: str) -> None:
        """Delete a collection with all its points, and the aliases that stand for it."""
        while True:
            with self._lock:
                self._check_writable()
                folder = self._catalog.collections.get(as_name(name))
                if folder is None:
                    raise NotFound(f"expected a collection to drop, there is no {name!r}")
                others = self._opening.get(folder)
                if others is None:
                    self._drop(folder)
                    return
            others.wait()

    def _drop(self, folder: str) -> None:
        with self._lock:
            opened = self._open.pop(folder, None)
            core = self._cores.pop(folder, None)
            if core is not None:
                core.stop_build.set()
            if opened is not None:
                opened.close("dropped")
            self._unlist(folder)
            try:
                shutil.rmtree(self.path / f"{folder}.gone")
            except OSError as error:  # dropped all the same; the next opening tries again
                _log.warning("%s: could not be deleted yet: %s", self.path / folder, error)

    def _unlist(self, folder: str) -> None:
        """Take a folder out of the catalog; it is `.gone` then, or as before after an error."""
        gone = self.path / f"{folder}.gone"
        with translated(self.path):
            (self.path / folder).rename(gone)
            reach("drop.folder_moved")
            try:
                self._list(self._catalog.without(folder))
            except BaseException:
                if self._catalog.name_of(folder) is not None:
                    gone.rename(self.path / folder)
                raise
            reach("drop.unlisted")

    def rename_collection(self, name: str, new_name: str) -> None:
        """Give a collection another name; open handles and aliases go on working."""
        self._check_writable()
        with self._lock:
            self._list(self._catalog.renamed(name, new_name))
            folder = self._catalog.collections[new_name]
            if folder in self._open:
                self._open[folder].rename_to(new_name)

    # ------------------------------------------------------------------ aliases

    def set_alias(self, alias: str, collection: str) -> None:
        """Let an alias stand for a collection, in the place of another if it did: at once."""
        self.set_aliases({alias: collection})

    def set_aliases(self, aliases: Mapping[str, str | None]) -> None:
        """Change several aliases at once or not at all; None drops one."""
        self._check_writable()
        with self._lock:
            self._list(self._catalog.with_aliases(aliases))

    def real_name(self, name: str) -> str:
        """The collection that an alias stands for; any other name as it is."""
        self._check_open()
        if self.is_read_only:
            with self._lock:
                self._refresh()
        catalog = self._catalog
        folder = catalog.aliases.get(name)
        return name if folder is None else catalog.name_of(folder) or name

    def list_aliases(self) -> dict[str, str]:
        """{alias: collection}."""
        self._check_open()
        with self._lock:
            self._refresh()
            catalog = self._catalog
            return {a: catalog.name_of(f) or "" for a, f in sorted(catalog.aliases.items())}

    # ------------------------------------------------------------------ snapshots

    def snapshot(
        self,
        name: str,
        target: str | os.PathLike[str],
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> None:
        """Write a collection, as it is now, to one new file; writes go on meanwhile."""
        collection = self.get_collection(name)
        collection.flush()
        snapshot.take(collection._core, Path(target), progress)

    def restore(
        self,
        archive: str | os.PathLike[str],
        name: str,
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> Collection:
        """A snapshot as a new collection. Errors: AlreadyExists, InvalidArgument, CorruptStorage.

        archive  a file; or the snapshot of a collection over shards, a folder or the tar of one,
                 whose points are written anew and whose index is built here

        A hostile archive is refused, and nothing of it stays.
        """
        self._check_writable()
        self._catalog.check_free(as_name(name))
        with snapshot.unpacked(Path(archive), self.path) as place:
            if place.is_dir():
                files = snapshot.parts_of(place).files
                parts, settings = [place / file for file in files], snapshot.describe(place)
                made: Collection = snapshot.poured(
                    self, parts, len(parts), self.path, settings, name, progress
                )
                return made
            return self._restore_file(place, name, progress)

    def _restore_file(
        self, archive: Path, name: str, progress: Callable[[str, float], None]
    ) -> Collection:
        with self._lock:
            self._catalog.check_free(name)
            folder = new_folder()
            new = self.path / f"{folder}.new"
            with translated(new):
                new.mkdir()
            try:
                snapshot.unpack(archive, new, name, progress)
                core = Core(new)  # the points must be there and sound before the name is
                core.close()
            except BaseException:
                shutil.rmtree(new)
                raise
            self._adopt(folder, name)
        return self.get_collection(name)

    def _adopt(self, folder: str, name: str) -> None:
        """List a folder that was made as `.new`."""
        new = self.path / f"{folder}.new"
        with translated(self.path):
            try:
                sync_folder(self.path)
                self._list(self._catalog.with_collection(name, folder))
            except BaseException:
                if self._catalog.name_of(folder) is None:
                    shutil.rmtree(new, ignore_errors=True)
                else:
                    new.rename(self.path / folder)
                raise
            reach("create.listed")
            new.rename(self.path / folder)
            sync_folder(self.path)

    # ------------------------------------------------------------------ care

    def stats(self) -> dict[str, Any]:
        """Bytes by part and counts of every open collection: JSON values."""
        self._check_open()
        with self._lock:
            opened = list(self._open.values())
        return {
            "memory_limit": self._budget.limit,
            "memory_held": self._held_bytes(),
            "memory_reserved": self._budget.reserved,
            "collections": {c.name: c.stats() for c in opened},
        }

    def _held_bytes(self) -> int:
        """Bytes that are held for good and not mapped from a file."""
        total = 0
        for core in list(self._cores.values()):
            sizes = core.contents.memory()
            total += sum(
                size
                for part, size in sizes.items()
                if part.startswith("delta_") or part in ("tail_ids", "columns", "tombstones")
            )
            total += core.store.cache_bytes()
        return total + sum(c._writer.queued_bytes for c in list(self._open.values()))

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"database {self.path} was closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.is_read_only:
            raise ReadOnly(f"database {self.path} was opened with read_only=True")

    def cede(self) -> None:
        """Stop writing for good and let another process own the directory; reads go on.

        What is queued is written first. From then on writes are refused (Closed, ReadOnly), and
        reads answer as of now until close().
        """
        with self._lock:
            self._check_open()
            if self.is_read_only:
                return
            self.is_read_only = True  # what is opened from now on is opened for reading
            opening = list(self._opening.values())
        self._end_worker()
        for others in opening:
            others.wait()
        for core in list(self._cores.values()):
            core.stop_build.set()
        for folder, collection in list(self._open.items()):
            with self._cores[folder].building:
                collection._writer.close()
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    def _end_worker(self) -> None:
        self._stop.set()
        self._wake.set()
        for core in list(self._cores.values()):
            core.stop_build.set()
        self._worker.join()

    def close(self) -> None:
        """Finish what is queued, stop the worker, let the next process have the directory."""
        if self._closed:
            return
        self._end_worker()
        atexit.unregister(self._end_worker)
        with self._lock:
            self._closed = True
            opening = list(self._opening.values())
        for others in opening:
            others.wait()
        with self._lock:
            for collection in self._open.values():
                collection.close()
            if self._owner is not None:
                self._owner.release()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r})"

    # ------------------------------------------------------------------ the worker

    def _work(self) -> None:
        """Sweep and compact while there is something to do; at the lowest priority there is."""
        if hasattr(os, "setpriority") and hasattr(threading, "get_native_id"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        not_before: dict[str, float] = {}
        while not self._stop.is_set():
            self._wake.wait(_TICK_S)
            self._wake.clear()
            with self._lock:
                cores = list(self._cores.items())
            for folder, core in cores:
                if self._stop.is_set() or time.monotonic() < not_before.get(folder, 0.0):
                    continue
                try:
                    self._tend(folder, core)
                except Closed:
                    continue
                except Exception as error:  # noqa: BLE001  the worker outlives it and tries again
                    if core.stop_build.is_set():  # closed or dropped meanwhile
                        continue
                    is_known = isinstance(error, SoarError | OSError)
                    text = "%s: background work failed: %s"
                    _log.warning(text, core.folder, error, exc_info=not is_known)
                    not_before[folder] = time.monotonic() + _RETRY_S

    def _measure(self, core: Core, writer: Writer) -> None:
        """What recall costs, where that is not known or no longer holds."""

        def report(stage: str, share: float) -> None:
            if core.stop_build.is_set():
                raise Closed("the measuring was stopped")

        with core.measuring:
            if are_stale(core.contents, self._policy.stale):
                refresh_curves(core, writer, report)
            measure_filters(core, report)

    def _tend(self, folder: str, core: Core) -> None:
        collection = self._open.get(folder)
        if collection is None:
            return
        if self.is_read_only:
            self._measure(core, collection._writer)
            return
        writer = collection._writer
        if core.settings.ttl:
            due = core.store.expired(int(time.time() * 1e6))
            if len(due):
                writer.submit(Delete(rows=due), "logged")
        if why_due(core, self._policy) is None:
            if not core.is_awaiting():
                self._measure(core, writer)
            return
        with core.building:
            reason = why_due(core, self._policy)
            if reason is None:  # compact() has just done it, while this waited for its turn
                return
            _log.info("%s: a new generation is due: %s", core.folder, reason.reason)
            compact(core, writer, self._budget, retrain=reason.retrain, stop=[core.stop_build])
