"""A shard's directory given to another actor: who may write it, and its files as parts.

    shard.py -> [handover.py] -> storage/log.py

A shard counts the calls that are under way, and refuses those that are to be made elsewhere.

A directory has one owner, by the token of the actor's name. The file OWNER says whose it is from
now on; it is written, durably, before the one before stops to write, so that this one does not
begin again when its process does.

A database is copied while it is written. SQLite's log (WAL) of each collection is held, see
storage/log.py, so the main file can be read at leisure, the log in pieces as it grows, and what is
left once writing has ended is a few pages. Generations of the index never change.

Nothing here knows of Ray or of the catalog.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from soardb.core import GIVEN_MODEL, Core
from soardb.errors import Closed, CorruptStorage, InvalidArgument, ReadOnly, Unavailable
from soardb.storage.format import sync_folder
from soardb.storage.log import HeldLog, log_end
from soardb.storage.rows import RowStore
from soardb.storage.sqlite import translated

__all__ = [
    "OWNER",
    "Arriving",
    "Calls",
    "Leaving",
    "Mark",
    "Moved",
    "Moving",
    "Part",
    "owner_of",
    "reading",
    "set_owner",
    "writing",
]

OWNER = "OWNER"
Mark = tuple[int, int]  # number of a collection's last write, and how many points it has

P = ParamSpec("P")
T = TypeVar("T")


class Moving(Unavailable):
    """Nothing was done, as the shard is about to be elsewhere: the same call again soon."""


class Moved(Unavailable):
    """Nothing was done, as the shard is elsewhere: look for it anew."""


def owner_of(path: Path) -> str | None:
    """The token of the actor that may write a directory; None: whoever opens it."""
    try:
        with translated(path):
            return (path / OWNER).read_text("ascii") if (path / OWNER).exists() else None
    except UnicodeDecodeError:
        raise CorruptStorage(f"{path / OWNER}: none of ours") from None


def set_owner(path: Path, token: str) -> None:
    """Let an actor alone write a directory, durably."""
    beside = path / f".{OWNER}"
    with translated(path):
        with beside.open("w", encoding="ascii") as out:
            out.write(token)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path / OWNER)
        sync_folder(path)


class Calls:
    """The calls of a shard: which of them it takes, and how many are under way."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self.is_ceded = False
        self._is_closed = self._has_left = False

    def check(self, is_write: bool) -> None:
        """Errors: Moving, Moved."""
        if self._has_left:
            raise Moved("the shard is on another node")
        if self._is_closed or (self.is_ceded and is_write):
            raise Moving("the shard is about to be on another node")

    @contextlib.contextmanager
    def one(self, *, is_write: bool) -> Iterator[None]:
        """A call. One that finds the database closed or for reading says what the reason is."""
        self.check(is_write)
        with self._condition:
            self._count += 1
        try:
            yield
        except (Closed, ReadOnly):
            self.check(is_write)
            raise
        finally:
            with self._condition:
                self._count -= 1
                self._condition.notify_all()

    def cede(self, is_closed: bool) -> None:
        """Take no more writes; is_closed: nor reads."""
        self.is_ceded, self._is_closed = True, is_closed

    def resume(self) -> None:
        """Take all again."""
        self.is_ceded = self._is_closed = False

    def leave(self, wait_s: float) -> None:
        """Take nothing any more; waits so long for calls that are under way."""
        self._has_left = True
        with self._condition:
            self._condition.wait_for(lambda: not self._count, wait_s)


def reading(method: Callable[P, T]) -> Callable[P, T]:
    """A method of a shard that looks and changes nothing."""
    return _counted(method, is_write=False)


def writing(method: Callable[P, T]) -> Callable[P, T]:
    """A method of a shard that changes it."""
    return _counted(method, is_write=True)


def _counted(method: Callable[P, T], *, is_write: bool) -> Callable[P, T]:
    @wraps(method)
    def counted(*arguments: P.args, **options: P.kwargs) -> T:
        shard: Any = arguments[0]
        with shard._calls.one(is_write=is_write):
            return method(*arguments, **options)

    return counted


@dataclass(frozen=True, slots=True)
class Part:
    """A file to be copied. tag: as long as it stays, the bytes up to `size` stay too."""

    size: int
    tag: str


class Leaving:
    """The side that has the files. One caller at a time lists; any number read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[Path, HeldLog] = {}
        self._listed: set[str] = set()

    def parts(self, cores: Iterable[Core]) -> dict[str, Part]:
        """The files of these collections and the catalog, by their names below the directory."""
        found = {}
        for core in cores:
            if core.folder not in self._held:
                self._held[core.folder] = HeldLog(core.store.path)
            files = [core.store.path, Path(f"{core.store.path}-wal"), core.folder / "witness"]
            files.append(core.index_folder / GIVEN_MODEL)  # of a load that is under way
            generation = core.generation_file()
            for file in files if generation is None else [*files, generation]:
                part = self._part(file)
                if part is not None:
                    found[str(file.relative_to(self._path))] = part
        catalog = self._part(self._path / "catalog.json")
        assert catalog is not None
        self._listed = {*found, "catalog.json"}
        return found | {"catalog.json": catalog}

    def _part(self, file: Path) -> Part | None:
        with contextlib.suppress(FileNotFoundError):
            size, changed = file.stat().st_size, file.stat().st_mtime_ns
            if file.suffix in (".sqlite", ".generation"):
                return Part(size, "")
            if file.name.endswith("-wal"):
                return Part(*log_end(file))
            if file.name == GIVEN_MODEL:
                return Part(size, str(changed))
            return Part(size, file.read_bytes().hex())  # some bytes, replaced as a whole
        return None

    def read(self, name: str, offset: int, size: int) -> tuple[bytes, int]:
        """Bytes of a file that was listed, and their CRC-32."""
        if name not in self._listed:
            raise InvalidArgument(f"expected a file that was listed, got {name!r}")
        with translated(self._path / name), (self._path / name).open("rb") as source:
            data = os.pread(source.fileno(), size, offset)
        if len(data) != size:
            raise Unavailable(f"{name}: changed while it was copied")
        return data, zlib.crc32(data)

    def close(self) -> None:
        """Let SQLite have its log back."""
        while self._held:
            self._held.popitem()[1].close()


class Arriving:
    """The side that gets the files: in a folder beside the one that is to be."""

    def __init__(self, path: Path) -> None:
        self._path, self._beside = path, Path(f"{path}.partial")

    def write(self, name: str, offset: int, part: tuple[bytes, int]) -> None:
        """Put bytes where they belong. Errors: CorruptStorage where the checksum fails."""
        data, checksum = part
        if zlib.crc32(data) != checksum:
            raise CorruptStorage(f"{name}: bytes {offset} to {offset + len(data)} came damaged")
        file = self._beside / name
        with translated(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(handle, data, offset)
            finally:
                os.close(handle)

    def finish(self, sizes: Mapping[str, int], marks: Mapping[str, Mark]) -> None:
        """Give the files their sizes and the folder its name, durably; others are removed.

        marks: what the collections must have come to. Errors: CorruptStorage.
        """
        with translated(self._beside):
            for file in [file for file in self._beside.rglob("*") if file.is_file()]:
                if str(file.relative_to(self._beside)) not in sizes:
                    file.unlink()
            for name, size in sizes.items():
                file = self._beside / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("ab") as out:
                    out.truncate(size)
                    os.fsync(out.fileno())
            for folder in self._beside.glob("c-*"):
                (folder / "index").mkdir(exist_ok=True)
            self._expect(marks)
            for folder in [f for f in self._beside.rglob("*") if f.is_dir()]:
                sync_folder(folder)
            sync_folder(self._beside)
            os.replace(self._beside, self._path)
            sync_folder(self._path.parent)

    def _expect(self, marks: Mapping[str, Mark]) -> None:
        found = {}
        for folder in self._beside.glob("c-*"):
            store = RowStore(folder, 0, read_only=True)
            found[folder.name] = store.seq, store.live
            store.close()
        if found != dict(marks):
            raise CorruptStorage(
                f"{self._path}: expected a copy of collections that had come to {dict(marks)}, "
                f"found {found}; the shard stays where it was"
            )

    def drop(self) -> None:
        """Remove what came, and what was finished."""
        shutil.rmtree(self._beside, ignore_errors=True)
        shutil.rmtree(self._path, ignore_errors=True)
