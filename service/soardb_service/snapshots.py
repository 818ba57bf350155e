"""The proto service Snapshots: files of the server's own folder, under names that it makes.

    rpc.py -> [snapshots.py] -> operations.py, soardb.Database, soardb/snapshot.py

A client names a snapshot by what List and Create told it; a name of another form is refused, and
so never is a path. Of which collection a snapshot is, its own manifest says. That of a collection
over shards is a folder, which travels as a tar.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from soardb import deadline, snapshot
from soardb.database import Database
from soardb.errors import CorruptStorage, InvalidArgument, NotAllowed, NotFound
from soardb.storage.catalog import as_name
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated
from soardb_proto.v1 import access_pb2, operations_pb2
from soardb_proto.v1 import snapshots_pb2 as pb
from soardb_service.operations import Operations, Progress
from soardb_service.rpc import Call, opened

__all__ = ["Snapshots"]

_NAME = re.compile(r"s-[0-9a-f]{16}", re.ASCII)
_ENDING = ".snapshot"
_CHUNK = 2**20

_log = structlog.get_logger("soardb_service")


class Snapshots:
    """One method an rpc, named as in the .proto file.

    folder: made when it is first needed; None: every call is refused.
    """

    def __init__(self, database: Database, operations: Operations, folder: Path | None) -> None:
        self._database = database
        self._operations = operations
        self._place = folder

    def Create(self, request: pb.CreateSnapshotRequest, call: Call) -> operations_pb2.Operation:  # noqa: N802
        """Take a snapshot."""
        name = opened(self._database, call, request.collection).name
        taken = f"s-{secrets.token_hex(8)}"

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            target = self._made() / f"{taken}{_ENDING}"
            self._database.snapshot(name, target, progress)
            with translated(target):  # it may have been deleted at once
                return {"snapshot": taken, "size": _size_of(target)}

        return self._operations.start(request.collection, "snapshot", work)

    def List(self, request: pb.ListSnapshotsRequest, call: Call) -> pb.ListSnapshotsReply:  # noqa: N802
        """The snapshots of a collection, of this one's name, the latest last."""
        wanted = self._real(request.collection)
        found = [s for s in self._all() if s.collection == wanted]
        found.sort(key=lambda s: s.created.ToNanoseconds())
        return pb.ListSnapshotsReply(snapshots=found)

    def Delete(self, request: pb.DeleteSnapshotRequest, call: Call) -> pb.DeleteSnapshotReply:  # noqa: N802
        """Delete a snapshot."""
        path = self._path(request.snapshot, request.collection)
        with translated(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            sync_folder(self._folder)
        return pb.DeleteSnapshotReply()

    def Restore(self, request: pb.RestoreSnapshotRequest, call: Call) -> operations_pb2.Operation:  # noqa: N802
        """Make a new collection of a snapshot."""
        if not call.caller.may(self._real(request.source), access_pb2.READ):
            raise NotAllowed(
                f"expected a key with the scope read for {request.source!r}, got one without"
            )
        as_name(request.collection)
        path = self._path(request.snapshot, request.source)

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            return {"points": self._database.restore(path, request.collection, progress).count()}

        return self._operations.start(request.collection, "restore", work)

    def Download(self, request: pb.DownloadSnapshotRequest, call: Call) -> Iterator[pb.Chunk]:  # noqa: N802
        """The bytes of a snapshot."""
        path = self._path(request.snapshot, request.collection)
        with snapshot.packed(path) if path.is_dir() else path.open("rb") as file:
            while data := file.read(_CHUNK):
                deadline.check()
                yield pb.Chunk(data=data)

    def Upload(self, requests: Iterator[pb.UploadSnapshotRequest], call: Call) -> pb.Snapshot:  # noqa: N802
        """Take in a snapshot of the collection that the first message names."""
        first = next(iter(requests), None)
        if first is None or first.data:
            raise InvalidArgument("expected a first message with a collection and no data")
        name = f"s-{secrets.token_hex(8)}"
        target = self._made() / f"{name}{_ENDING}"
        temporary = target.with_suffix(".part")
        try:
            with translated(target), temporary.open("xb") as file:
                for request in requests:
                    deadline.check()
                    file.write(request.data)
                file.flush()
                os.fsync(file.fileno())
            with snapshot.unpacked(temporary, self._folder) as place:
                found = snapshot.describe(place)
                if found.name != first.collection:
                    raise InvalidArgument(
                        f"expected a snapshot of {first.collection!r}, got one of {found.name!r}"
                    )
                with translated(target):
                    place.rename(target)
                    sync_folder(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        return _described(name, target)

    # ---- the folder ----

    @property
    def _folder(self) -> Path:
        if self._place is None:
            raise InvalidArgument(
                "expected --storage as a folder, since a server keeps snapshots in one; take and "
                "restore those of a cluster in a bucket with soardb.connect('ray://...')"
            )
        return self._place

    def _made(self) -> Path:
        with translated(self._folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    def _real(self, name: str) -> str:
        return self._database.real_name(name)

    def _path(self, name: str, collection: str) -> Path:
        """The file of a snapshot of this collection. Errors: NotFound."""
        path = self._folder / f"{name}{_ENDING}"
        is_there = _NAME.fullmatch(name) is not None and path.exists()
        if is_there and _described(name, path).collection == self._real(collection):
            return path
        raise NotFound(f"expected a snapshot of {collection!r}, there is no {name[:80]!r}")

    def _all(self) -> Iterator[pb.Snapshot]:
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob(f"s-*{_ENDING}")):
            try:
                yield _described(path.stem, path)
            except (InvalidArgument, NotFound, CorruptStorage, FileNotFoundError) as error:
                _log.warning("unreadable snapshot", file=path.name, why=str(error))


def _described(name: str, path: Path) -> pb.Snapshot:
    out = pb.Snapshot(name=name, collection=snapshot.describe(path).name, size=_size_of(path))
    out.created.FromNanoseconds(path.stat().st_mtime_ns)
    return out


def _size_of(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
