"""What all nodes of a cluster reach: a shared folder, or a bucket of an object store.

    registrar.py, shard.py -> [storage.py] -> pyarrow.fs

It holds the cluster's catalog and snapshots: few, whole files, replaced as a whole. An object store
replaces an object at once by itself; in a folder a file is written beside, flushed and renamed.

Nothing here knows what the files are.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Protocol

from soardb.errors import InvalidArgument, NotFound, SoarError, Unavailable
from soardb.hits import need_pyarrow
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated

__all__ = ["Storage", "storage_of"]


class Storage(Protocol):
    """Files by name; a name may have folders, divided by '/'."""

    @property
    def folder(self) -> Path | None:
        """The folder itself, where it is one."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file, in the place of another: whole or not at all, durable on return."""
        ...

    def send(self, file: Path, name: str) -> None:
        """Copy a file of this machine to there."""
        ...

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file from there to a new one of this machine. Errors: NotFound."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...


def storage_of(uri: str) -> Storage:
    """The storage of a path or of a URI that pyarrow.fs knows. Errors: InvalidArgument."""
    if not isinstance(uri, str) or not uri or "\0" in uri:
        raise InvalidArgument(
            f"expected storage as the path of a folder that all nodes reach, or s3://..., got "
            f"{uri!r}"
        )
    if "://" not in uri:
        return Folder(Path(uri).absolute())
    need_pyarrow()
    from pyarrow.fs import FileSystem

    try:
        system, path = FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise InvalidArgument(
            f"expected storage that pyarrow.fs reaches, got {uri!r}: {error}"
        ) from None
    return Folder(Path(path)) if system.type_name == "local" else Bucket(system, path.rstrip("/"))


class Folder:
    """A folder of a file system that every node has mounted, or of the only machine."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        self._root = folder

    def read(self, name: str) -> bytes | None:
        """See Storage."""
        file = self._root / name
        with translated(file):
            return file.read_bytes() if file.exists() else None

    def replace(self, name: str, data: bytes) -> None:
        """See Storage."""
        with translated(self._root / name):
            beside = self._beside(name)
            try:
                with beside.open("xb") as out:
                    out.write(data)
                self._settle(beside, name)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise

    def send(self, file: Path, name: str) -> None:
        """See Storage."""
        with translated(self._root / name):
            beside = self._beside(name)
            try:
                shutil.copyfile(file, beside)
                self._settle(beside, name)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise

    def fetch(self, name: str, file: Path) -> None:
        """See Storage."""
        if not (self._root / name).is_file():
            raise NotFound(f"expected the file {self._root / name}, found none")
        with translated(file):
            shutil.copyfile(self._root / name, file)

    def remove(self, name: str) -> None:
        """See Storage."""
        with translated(self._root / name):
            (self._root / name).unlink(missing_ok=True)

    def _beside(self, name: str) -> Path:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.{secrets.token_hex(8)}")

    def _settle(self, beside: Path, name: str) -> None:
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, self._root / name)
        sync_folder((self._root / name).parent)


class Bucket:
    """A place in an object store, by pyarrow.fs."""

    folder: Path | None = None

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root

    def read(self, name: str) -> bytes | None:
        """See Storage."""
        with _reached(self._root, name):
            if not self._is_there(name):
                return None
            with self._system.open_input_stream(f"{self._root}/{name}") as source:
                return bytes(source.read())

    def replace(self, name: str, data: bytes) -> None:
        """See Storage."""
        with (
            _reached(self._root, name),
            self._system.open_output_stream(f"{self._root}/{name}") as out,
        ):
            out.write(data)

    def send(self, file: Path, name: str) -> None:
        """See Storage."""
        with (
            _reached(self._root, name),
            file.open("rb") as source,
            self._system.open_output_stream(f"{self._root}/{name}") as out,
        ):
            shutil.copyfileobj(source, out, 2**22)

    def fetch(self, name: str, file: Path) -> None:
        """See Storage."""
        with _reached(self._root, name):
            if not self._is_there(name):
                raise NotFound(f"expected the object {self._root}/{name}, found none")
            with (
                self._system.open_input_stream(f"{self._root}/{name}") as source,
                file.open("xb") as out,
            ):
                shutil.copyfileobj(source, out, 2**22)

    def remove(self, name: str) -> None:
        """See Storage."""
        with _reached(self._root, name):
            if self._is_there(name):
                self._system.delete_file(f"{self._root}/{name}")

    def _is_there(self, name: str) -> bool:
        from pyarrow.fs import FileType

        info = self._system.get_file_info(f"{self._root}/{name}")
        return bool(info.type == FileType.File)


class _reached:  # noqa: N801  reads as what it does: with _reached(root, name)
    """Errors of an object store as Unavailable, naming the object."""

    def __init__(self, root: str, name: str) -> None:
        self._what = f"{root}/{name}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, SoarError):
            raise Unavailable(f"{self._what}: the object store failed: {error}") from error
