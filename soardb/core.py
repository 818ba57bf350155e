"""The core of an open collection: row store, contents and the lock between reads and changes.

    collection.py, writer.py, compaction.py -> [core.py] -> contents.py, storage/rows.py

The row store is opened and its contents brought up to date; where the generation is missing or
damaged, the contents are made from the rows alone, exact and larger in memory, until the next
generation is built. What the collection is (dimension, metric, schema, ...) stands in the row
store's settings, so a folder says by itself what it holds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from soardb.arrays import as_dim
from soardb.contents import Contents
from soardb.curve import Curves
from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound, WriteFailed
from soardb.index.plan import BuildParams
from soardb.kernels.layout import F32, Metric
from soardb.metrics import as_metric
from soardb.rwlock import ReadWriteLock
from soardb.schema import Schema, shown
from soardb.storage.catalog import as_name
from soardb.storage.rows import FORMAT, RowStore

__all__ = ["CURVES", "GIVEN_MODEL", "Core", "Settings"]

CURVES = "curves"
"""The setting of the row store that holds what recall costs, of the generation that it names."""

GIVEN_MODEL = "model.given"
"""The file beside the generation with a model that was learnt elsewhere; see compaction.py."""

_PATIENCE_S = 300.0  # for more points of a load

_log = logging.getLogger("soardb")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a collection is. ttl: the datetime field after which a point is gone, or None."""

    name: str
    d: int
    metric: Metric
    schema: Schema = field(default_factory=lambda: Schema.of({}))
    params: BuildParams = field(default_factory=BuildParams)
    ttl: str | None = None

    @classmethod
    def asked(
        cls,
        name: str,
        dim: int,
        metric: str,
        schema: Mapping[str, str] | None,
        index: Mapping[str, Any] | None,
        ttl: str | None,
    ) -> Settings:
        """What a caller wants a collection to be, checked. Errors: InvalidArgument."""
        known = as_metric(metric)
        fields = Schema.of(schema)
        if ttl is not None and fields.fields.get(ttl) != "datetime":
            raise InvalidArgument(
                f"expected ttl as a field declared in schema as datetime, got {ttl!r}"
            )
        if index is not None and not isinstance(index, Mapping):
            raise InvalidArgument(
                f"expected index as a dict of options of SoarIndex, got {shown(index)}"
            )
        params = BuildParams.of(dict(index or {}), known)
        return cls(as_name(name), as_dim(dim), known, fields, params, ttl)

    def expect_same(self, wanted: Settings) -> None:
        """AlreadyExists where a collection that is there is not what is wanted."""
        for part in ("d", "metric", "schema", "ttl"):
            if getattr(self, part) != getattr(wanted, part):
                raise AlreadyExists(
                    f"collection {wanted.name!r} is there with {part} {getattr(self, part)!r}, "
                    f"expected {getattr(wanted, part)!r}"
                )

    def to_json(self) -> dict[str, Any]:
        """JSON values; see of_json()."""
        return {
            "name": self.name,
            "d": self.d,
            "metric": self.metric,
            "schema": self.schema.to_json(),
            "params": asdict(self.params),
            "ttl": self.ttl,
        }

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Settings:
        """Settings of to_json(), checked. Errors: InvalidArgument, KeyError, TypeError."""
        metric = as_metric(given["metric"])
        return cls(
            str(given["name"]),
            as_dim(given["d"]),
            metric,
            Schema.of(given["schema"]),
            BuildParams.of(dict(given["params"]), metric),
            given["ttl"],
        )

    @property
    def asking(self) -> dict[str, Any]:
        """The arguments of create_collection, but for the name, that make one like it."""
        return {
            "dim": self.d,
            "metric": self.metric,
            "schema": self.schema.to_json(),
            "index": asdict(self.params),
            "ttl": self.ttl,
        }

    @property
    def text_fields(self) -> list[str]:
        """Declared text fields, in order."""
        return [name for name, kind in self.schema.fields.items() if kind == "text"]


class Core:
    """Open folders only through here; Collection is the face of it."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.index_folder = folder / "index"
        self.is_read_only = read_only
        self.lock = ReadWriteLock()
        self.changing = threading.Lock()  # from a commit until memory follows; before `lock`
        self.expired_upto = -(2**63)  # microseconds: what expired until then has been struck
        self.damage: str | None = None
        self.store = RowStore(folder, 0, read_only=read_only)
        try:
            self.settings = self._read_settings()
            self.store.d = self.settings.d
            with self.store.pinned():
                self.store.refresh()
                self.contents = self._open_contents()
        except BaseException:
            self.store.close()
            raise
        self.next_expiry = self.store.next_expiry() if self.settings.ttl else None
        self._recovering = threading.Lock()
        self.unusable: str | None = None  # why the contents in memory are not to be read
        self.stop_build = threading.Event()
        self.building = threading.Lock()  # one build of a collection at a time
        self.asked: deque[F32] | None = None  # (1, d) each, the last ones, if the user wants that
        self.measuring = threading.Lock()  # one caller measures, others wait for its curves
        self._awaits_until = -math.inf  # of time.monotonic()
        if (self.index_folder / GIVEN_MODEL).exists():
            self.await_more()

    # ------------------------------------------------------------------ opening

    def _read_settings(self) -> Settings:
        version = self.store.setting("format")
        if version != FORMAT:
            raise CorruptStorage(
                f"{self.store.path}: format {version!r}, this soardb reads {FORMAT}; open it with "
                "the version that wrote it, export it, and import it here"
            )
        try:
            return Settings.of_json(self.store.setting("collection"))
        except (KeyError, TypeError, InvalidArgument) as error:
            raise CorruptStorage(f"{self.store.path}: settings are not ours: {error}") from None

    def generation_file(self) -> Path | None:
        """The current generation's file, as the row store names it."""
        pointer = self.store.setting("generation")
        return None if pointer is None else self.index_folder / str(pointer["file"])

    def _open_contents(self) -> Contents:
        """The current generation and what came since; without a sound one, all from the rows."""
        path = self.generation_file()
        try:
            contents = self.current_contents()
        except (NotFound, CorruptStorage) as error:
            if path is None:
                raise
            _log.warning("%s; searching exactly until the index is rebuilt", error)
            self.damage = str(error)
            contents = self.contents_of(None)
        if not self.is_read_only and contents.table.live != self.store.live:
            raise CorruptStorage(
                f"{self.store.path}: expected {self.store.live} points, found "
                f"{contents.table.live}: rows are missing; run `soardb check`, then restore a "
                "snapshot or `soardb repair`"
            )
        return contents

    def current_contents(self) -> Contents:
        """Contents of the generation that the row store names, and of no other in its place."""
        pointer = self.store.setting("generation")
        if pointer is None:
            return self.contents_of(None)
        return self.contents_of(self.index_folder / str(pointer["file"]), pointer["crc32"])

    def contents_of(self, path: Path | None, checksum: int | None = None) -> Contents:
        """Contents of a generation's file, or of none, up to the last commit.

        checksum: that of the file's header, where it is known. Errors: NotFound, CorruptStorage.
        """
        s = self.settings
        kind = self.store.setting("id_kind")
        contents = Contents.open(path, s.schema, s.d, s.metric, s.params, kind)
        found = contents.generation
        if checksum is not None and found is not None and found.mapped.checksum != checksum:
            raise CorruptStorage(f"{path}: another generation than the one that was written here")
        contents.catch_up(self.store, self.store.seq)
        contents.curves = self.kept_curves(contents)
        return contents

    def kept_curves(self, contents: Contents) -> Curves | None:
        """What recall costs in contents of this generation, as the row store has it; else None.

        It is derived: where it is damaged the log says so, and it is measured anew.
        """
        if contents.generation is None:
            return None
        try:
            kept = self.store.setting(CURVES)
            if kept is None or kept["generation"] != contents.generation.mapped.checksum:
                return None
            return Curves.of_json(kept["curves"])
        except (CorruptStorage, KeyError, TypeError, ValueError) as error:
            _log.warning("%s: no curves of recall, they are measured anew: %s", self.folder, error)
            return None

    # ------------------------------------------------------------------ reading

    def current(self) -> Contents:
        """The contents, their checksums passed. Call with the lock held or before taking it.

        A generation that fails them is given up here: see recover().
        """
        if self.unusable:
            raise WriteFailed(
                f"{self.folder}: {self.unusable}; the row store has all that was acknowledged: "
                "close the database and open it anew"
            )
        contents = self.contents
        try:
            contents.verify()
        except CorruptStorage as error:
            self.recover(contents, str(error))
            contents = self.contents
        return contents

    def recover(self, damaged: Contents, reason: str) -> None:
        """Replace contents whose generation is damaged by others from the rows alone."""
        beside = self.store.pinned() if self.is_read_only else contextlib.nullcontext()
        with self._recovering, beside:
            if self.contents is not damaged:
                return
            if self.is_read_only:
                self.store.refresh()
            _log.warning("%s; searching exactly until the index is rebuilt", reason)
            fresh = self.contents_of(None)
            with self.lock.write():
                self.damage = reason
                fresh.catch_up(self.store, self.store.seq)
                self.strike_expired(fresh)
                self.contents = fresh

    def follow(self) -> None:
        """Beside a writing process: take over what it has committed since."""
        if not self.is_read_only:
            return
        with self._recovering, self.store.pinned():
            if self.store.refresh() <= self.contents.seq:
                return
            path = self.generation_file()
            held = self.contents.generation
            name = None if held is None else str(held.mapped.path)
            if (None if path is None else str(path)) == name:
                with self.lock.write():
                    self.contents.catch_up(self.store, self.store.seq)
                    self.strike_expired(self.contents)
                if self.contents.curves is None and self.contents.index.model is not None:
                    self.contents.curves = self.kept_curves(self.contents)
                return
            self.damage = None
            fresh = self._open_contents()
            with self.lock.write():
                self.strike_expired(fresh)
                self.contents = fresh

    def asked_queries(self) -> F32 | None:
        """(m, d) the last queries, where they are kept; see Collection.keep_queries."""
        kept = None if self.asked is None else list(self.asked)
        return np.concatenate(kept) if kept else None

    def await_more(self) -> None:
        """More points of a load are on their way, and a build at its end: few need be made now."""
        self._awaits_until = time.monotonic() + _PATIENCE_S

    def is_awaiting(self) -> bool:
        """Whether the last points of a load came not long ago."""
        return time.monotonic() < self._awaits_until

    def await_no_more(self) -> None:
        """The load is done."""
        self._awaits_until = -math.inf

    # ------------------------------------------------------------------ expiry

    def is_due(self) -> bool:
        """Whether a point's time has come that still counts as live."""
        return self.next_expiry is not None and time.time() * 1e6 >= self.next_expiry

    def hide_expired(self) -> None:
        """Strike what has expired, in memory; the row store follows by a write of its own."""
        with self.lock.write():
            self.strike_expired(self.contents)

    def strike_expired(self, contents: Contents) -> None:
        """Strike in contents, which are or will be the core's, what has expired; needs the lock."""
        if self.settings.ttl is None:
            return
        now = int(time.time() * 1e6)
        contents.strike(self.store.expired(now))
        self.next_expiry = self.store.next_expiry(now)
        self.expired_upto = max(self.expired_upto, now)  # the clock may be set back

    def hidden(self) -> int:
        """At most so many rows are struck in memory and still in the row store."""
        if self.settings.ttl is None:
            return 0
        return len(self.store.expired(max(self.expired_upto, int(time.time() * 1e6))))

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()
