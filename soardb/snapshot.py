"""Snapshots: a collection as one file, taken while writes go on, and restored under any name.

    database.py, cli -> [snapshot.py] -> storage/rows.py, core.py

A snapshot is an uncompressed tar of soardb-snapshot.json (format, settings, size and CRC-32 of each
file), rows.sqlite as of one moment, and the generation of the index if there is one. What a
restored archive says is not trusted: only these members are read, their names are never used as
paths, sizes and checksums must be those announced, and the tables must be exactly ours.

A collection over shards is a folder of such files, one a shard, and of soardb-cluster-snapshot.json
(format, settings, the files). What was taken of one number of shards is restored to any other, one
included, by writing its points anew. It travels as a tar of its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from soardb.core import Core, Settings
from soardb.errors import (
    AlreadyExists,
    CorruptStorage,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    SoarError,
)
from soardb.schema import decode_payload
from soardb.storage.catalog import new_folder
from soardb.storage.faults import reach
from soardb.storage.format import sync_folder
from soardb.storage.rows import RowStore
from soardb.storage.sqlite import translated

__all__ = [
    "SHARDS",
    "SNAPSHOT_FORMAT",
    "Parts",
    "describe",
    "packed",
    "parts_of",
    "poured",
    "take",
    "unpack",
    "unpacked",
]

SNAPSHOT_FORMAT = 1

_MANIFEST, _ROWS, _GENERATION = "soardb-snapshot.json", "rows.sqlite", "index.generation"
SHARDS = "soardb-cluster-snapshot.json"
"""The file that is written last to a snapshot of a collection over shards."""

_MAX_MANIFEST = 2**20
_PART = re.compile(r"shard-[0-9]{4}\.snapshot", re.ASCII)
_POURED = 4096  # points a batch
_CHUNK = 2**20

Progress = Callable[[str, float], None]


def _quiet(stage: str, share: float) -> None:
    """Report nothing."""


def take(core: Core, target: Path, progress: Progress = _quiet) -> None:
    """Write a snapshot of all that was committed when this began. Whole or not at all.

    Errors: AlreadyExists where the file is there, NotFound for its folder, OutOfSpace.
    """
    if target.exists():
        raise AlreadyExists(f"expected a new file for the snapshot, {target} is there")
    if not target.parent.is_dir():
        raise NotFound(f"expected the folder {target.parent} to exist; make it first")
    with translated(target), contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".snapshot-", dir=target.parent))
        )
        progress("copy", 0.0)
        core.store.copy_to(folder / _ROWS)
        reach("snapshot.copied")
        files: dict[str, Path] = {_ROWS: folder / _ROWS}
        pointer = _pointer_of(folder / _ROWS, core)
        if pointer is not None:
            # A link keeps the file, should a new generation take its place meanwhile.
            with contextlib.suppress(FileNotFoundError):
                _link(core.index_folder / pointer, folder / _GENERATION)
                files[_GENERATION] = folder / _GENERATION
        manifest = {
            "format": SNAPSHOT_FORMAT,
            "settings": core.settings.to_json(),
            "files": {name: _measured(file, progress) for name, file in files.items()},
        }
        temporary = folder / "archive"
        with temporary.open("xb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                _add(archive, _MANIFEST, BytesIO(text := json.dumps(manifest).encode()), len(text))
                for name, file in files.items():
                    progress("write", 0.5)
                    with file.open("rb") as source:
                        _add(archive, name, source, file.stat().st_size)
            raw.flush()
            os.fsync(raw.fileno())
        reach("snapshot.before_rename")
        os.link(temporary, target)  # unlike a rename, this replaces nothing
        sync_folder(target.parent)
    progress("done", 1.0)


def _pointer_of(rows: Path, core: Core) -> str | None:
    """The file of the generation that the copied row store calls the current one."""
    copy = RowStore.open_copy(rows, core.settings.d)
    try:
        pointer = copy.setting("generation")
    finally:
        copy.close()
    return None if pointer is None else str(pointer["file"])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _measured(file: Path, progress: Progress) -> dict[str, int]:
    size, checksum, done = file.stat().st_size, 0, 0
    with file.open("rb") as source:
        while block := source.read(_CHUNK):
            checksum = zlib.crc32(block, checksum)
            done += len(block)
            progress("checksum", done / max(size, 1))
    return {"size": size, "crc32": checksum}


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    archive.addfile(member, source)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the manifest of a snapshot of shards says. files: {name: bytes}, in order of shards."""

    settings: Settings
    files: Mapping[str, int]

    def to_bytes(self) -> bytes:
        """What of_bytes reads."""
        body = {
            "format": SNAPSHOT_FORMAT,
            "settings": self.settings.to_json(),
            "files": dict(self.files),
        }
        return json.dumps(body, indent=1).encode()

    @classmethod
    def of_bytes(cls, data: bytes, where: str) -> Parts:
        """Checked: the names are plain ones. Errors: InvalidArgument, naming `where`."""
        try:
            body = json.loads(data)
            if body["format"] != SNAPSHOT_FORMAT:
                raise InvalidArgument(
                    f"{where}: snapshot format {body['format']!r}, this soardb reads "
                    f"{SNAPSHOT_FORMAT}"
                )
            files = {str(name): int(size) for name, size in body["files"].items()}
            settings = Settings.of_json(body["settings"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"{where}: {SHARDS} is none of ours: {error!r}") from None
        if not files or not all(_PART.fullmatch(name) for name in files):
            raise InvalidArgument(f"{where}: expected files such as shard-0000.snapshot")
        return cls(settings, files)


def parts_of(folder: Path) -> Parts:
    """Of a folder that holds a snapshot of shards. Errors: NotFound, InvalidArgument."""
    manifest = folder / SHARDS
    with translated(manifest):
        if not manifest.is_file():
            raise NotFound(f"expected a snapshot of a collection over shards, found no {manifest}")
        return Parts.of_bytes(manifest.read_bytes()[: _MAX_MANIFEST + 1], str(folder))


def poured(
    database: Any,
    parts: Iterable[Path],
    count: int,
    scratch: Path,
    settings: Settings,
    name: str,
    progress: Progress = _quiet,
) -> Any:
    """A new collection of a database of any kind with the points of snapshots, written anew.

    parts    `count` files; one is looked at when the one before is done
    scratch  a folder with room for the largest

    It has its name once all is in; after an error nothing of it stays.
    """
    made = database.create_collection(f"restoring-{new_folder()}", **settings.asking)
    try:
        for number, part in enumerate(parts):
            _pour(part, scratch, made)
            progress("write", (number + 1) / count)
        database.rename_collection(made.name, name)
    except BaseException:
        database.drop_collection(made.name)
        raise
    progress("done", 1.0)
    return database.get_collection(name)


def _pour(part: Path, scratch: Path, collection: Any) -> None:
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=scratch) as folder:
        settings = unpack(part, Path(folder), collection.name)
        store = RowStore(Path(folder), settings.d)
        try:
            collection.ingest(
                (b.ids, b.vectors, [decode_payload(text) for text in b.payloads])
                for b in store.consistent(_POURED)
            )
        finally:
            store.close()


@contextlib.contextmanager
def packed(folder: Path) -> Iterator[IO[bytes]]:
    """A snapshot of shards as a tar to be read, in a file that nobody sees and as large as it is.

    soardb-cluster-snapshot.json is its first member. Errors: those of parts_of, OutOfSpace.
    """
    with tempfile.TemporaryFile(dir=folder.parent) as out:
        with (
            translated(folder),
            tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            for name in (SHARDS, *parts_of(folder).files):
                archive.add(folder / name, name, recursive=False)
        out.seek(0)
        yield out


@contextlib.contextmanager
def unpacked(archive: Path, scratch: Path) -> Iterator[Path]:
    """A snapshot as it can be restored: itself, or a folder in scratch where it is one of packed().

    The folder is removed at the end, unless it was moved. Errors: NotFound, InvalidArgument for a
    file that is none or a hostile one, OutOfSpace.
    """
    if archive.is_dir():
        yield archive
        return
    if not archive.is_file():
        raise NotFound(f"expected a snapshot at {archive}, found none")
    with contextlib.ExitStack() as stack:
        try:
            with translated(archive):
                opened = stack.enter_context(tarfile.open(archive, mode="r:"))
                first = opened.next()
            if first is None or first.name != SHARDS:
                yield archive
                return
            folder = scratch / f".restore-{secrets.token_hex(8)}"
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with translated(folder):
                folder.mkdir()
                _take_parts(opened, first, folder, archive)
        except tarfile.TarError as error:
            raise InvalidArgument(f"{archive}: not a snapshot of ours: {error}") from None
        yield folder


def _take_parts(
    opened: tarfile.TarFile, member: tarfile.TarInfo | None, folder: Path, archive: Path
) -> None:
    _expect_room(folder, archive.stat().st_size)
    while member is not None:
        is_known = member.name == SHARDS or _PART.fullmatch(member.name) is not None
        source = opened.extractfile(member) if is_known and member.isreg() else None
        if source is None:
            raise InvalidArgument(f"{archive}: expected no member {member.name[:80]!r}")
        with (folder / member.name).open("xb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
            out.flush()
            os.fsync(out.fileno())
        member = opened.next()
    found = {path.name: path.stat().st_size for path in folder.iterdir()}
    del found[SHARDS]
    if found != dict(parts_of(folder).files):
        raise InvalidArgument(f"{archive}: expected the files that {SHARDS} names, of their sizes")


def describe(archive: Path) -> Settings:
    """What a snapshot says it is of, read from its manifest alone: its files are not checked.

    Errors: NotFound, InvalidArgument for a file that is none.
    """
    if archive.is_dir():
        return parts_of(archive).settings
    if not archive.is_file():
        raise NotFound(f"expected a snapshot at {archive}, found none")
    try:
        with translated(archive), tarfile.open(archive, mode="r:") as opened:
            return Settings.of_json(_read_manifest(opened, archive)["settings"])
    except tarfile.TarError as error:
        raise InvalidArgument(f"{archive}: not a snapshot of ours: {error}") from None
    except (KeyError, TypeError) as error:
        raise InvalidArgument(f"{archive}: the settings are none of ours: {error!r}") from None


def unpack(archive: Path, folder: Path, name: str, progress: Progress = _quiet) -> Settings:
    """Unpack a snapshot into an empty folder, as the collection `name`; returns its settings.

    Errors: NotFound, InvalidArgument for a file that is none or a hostile one, CorruptStorage for
    a damaged one, OutOfSpace. The caller removes the folder after an error.
    """
    if not archive.is_file():
        raise NotFound(f"expected a snapshot at {archive}, found none")
    try:
        with translated(folder), tarfile.open(archive, mode="r:") as opened:
            manifest = _read_manifest(opened, archive)
            _expect_room(folder, sum(entry["size"] for entry in manifest["files"].values()))
            (folder / "index").mkdir()
            generation = f"{secrets.token_hex(8)}.generation"
            places = {_ROWS: folder / _ROWS, _GENERATION: folder / "index" / generation}
            for member_name, entry in manifest["files"].items():
                _extract(opened, archive, member_name, entry, places[member_name])
                progress("unpack", 0.5)
    except tarfile.TarError as error:
        raise InvalidArgument(f"{archive}: not a snapshot of ours: {error}") from None
    has_generation = _GENERATION in manifest["files"]
    settings = _adopt(folder, archive, name, generation if has_generation else None)
    reach("restore.unpacked")
    progress("done", 1.0)
    return settings


def _read_manifest(opened: tarfile.TarFile, archive: Path) -> dict[str, Any]:
    member = opened.next()
    if member is None or member.name != _MANIFEST or not member.isreg():
        raise InvalidArgument(f"{archive}: expected a snapshot, which begins with {_MANIFEST}")
    if member.size > _MAX_MANIFEST:
        raise InvalidArgument(f"{archive}: {_MANIFEST} of {member.size} bytes is none of ours")
    source = opened.extractfile(member)
    assert source is not None
    try:
        manifest = json.loads(source.read(_MAX_MANIFEST))
        if manifest["format"] != SNAPSHOT_FORMAT:
            raise InvalidArgument(
                f"{archive}: snapshot format {manifest['format']!r}, this soardb reads "
                f"{SNAPSHOT_FORMAT}"
            )
        files = manifest["files"]
        is_ours = (
            {_ROWS} <= set(files) <= {_ROWS, _GENERATION}
            and next(iter(files)) == _ROWS
            and all(
                isinstance(entry[key], int) and entry[key] >= 0
                for entry in files.values()
                for key in ("size", "crc32")
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{archive}: {_MANIFEST} is none of ours: {error!r}") from None
    if not is_ours:
        raise InvalidArgument(f"{archive}: expected {_ROWS} and at most {_GENERATION} beside it")
    return dict(manifest)


def _expect_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutOfSpace(f"{folder}: the snapshot needs {size:,} bytes, {free:,} are free")


def _extract(
    opened: tarfile.TarFile, archive: Path, name: str, entry: dict[str, int], target: Path
) -> None:
    member = opened.next()
    if member is None or member.name != name or not member.isreg() or member.size != entry["size"]:
        raise InvalidArgument(f"{archive}: expected the file {name} of {entry['size']} bytes next")
    source = opened.extractfile(member)
    assert source is not None
    checksum, done = 0, 0
    with target.open("xb") as out:
        while block := source.read(min(_CHUNK, entry["size"] - done)):
            checksum = zlib.crc32(block, checksum)
            done += len(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if done != entry["size"] or checksum != entry["crc32"]:
        raise CorruptStorage(f"{archive}: {name} is cut short or fails its checksum")


def _adopt(folder: Path, archive: Path, name: str, generation: str | None) -> Settings:
    """Check that the row store is exactly one of ours, and give it its name and its generation."""
    store = RowStore(folder, 0)
    try:
        settings = Settings.of_json(store.setting("collection"))
        store.d = settings.d
        if store.tables() != _fresh_tables(settings):
            raise InvalidArgument(f"{archive}: {_ROWS} defines other tables than ours")
        adopted = Settings.of_json(settings.to_json() | {"name": name})
        pointer = store.setting("generation")
        store.begin(durable=True)
        store.set("collection", adopted.to_json())
        store.renew_identity()
        store.requests.forget_all()
        if generation is not None and pointer is not None:
            store.set("generation", dict(pointer) | {"file": generation})
        elif pointer is not None:
            store.unset("generation")
        store.commit()
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SoarError):
            raise
        raise InvalidArgument(f"{archive}: the settings are none of ours: {error!r}") from None
    finally:
        store.close()
    sync_folder(folder / "index")
    sync_folder(folder)
    return adopted


def _fresh_tables(settings: Settings) -> list[tuple[str, str, str | None]]:
    with tempfile.TemporaryDirectory(prefix="soardb-") as folder:
        RowStore.create(Path(folder), settings.d, {}, settings.text_fields)
        store = RowStore(Path(folder), settings.d)
        try:
            return store.tables()
        finally:
            store.close()
