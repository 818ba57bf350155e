"""The local ends of what is sent: snapshots that appear whole or not at all, or are read; models.

    client.py, aio.py -> [files.py]

Refused with the words of the engine, which writes snapshots and models itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from soardb.errors import AlreadyExists, InvalidArgument, NotFound, OutOfSpace, WriteFailed

__all__ = ["CHUNK_BYTES", "Chunks", "ModelFiles", "chunks_of", "model_files", "new_file"]

CHUNK_BYTES = 2**20

_MANIFESTS = ("soardb-snapshot.json", "soardb-cluster-snapshot.json")
_MAX_MANIFEST = 2**20
_MODEL_MANIFEST, _MODEL_FORMAT = "manifest.json", 1


@dataclass(frozen=True, slots=True)
class Chunks:
    """A snapshot to send: the collection it is of, its bytes a piece at a time, how many."""

    source: str
    parts: Iterator[bytes]
    size: int


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name once the block has ended well and it is on disk.

    Errors: AlreadyExists where the file is there, NotFound for its folder, OutOfSpace, WriteFailed.
    """
    if target.exists():
        raise AlreadyExists(f"expected a new file for the snapshot, {target} is there")
    if not target.parent.is_dir():
        raise NotFound(f"expected the folder {target.parent} to exist; make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".snapshot-", dir=target.parent) as folder:
            temporary = Path(folder, "archive")
            with temporary.open("xb") as sink:
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
            _name(temporary, target)
    except FileExistsError:
        raise AlreadyExists(f"expected a new file for the snapshot, {target} is there") from None
    except OSError as error:
        if error.errno is None:  # one of ours, of the call that fills the file
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise (OutOfSpace if full else WriteFailed)(f"{target}: {error.strerror}") from error


def _name(temporary: Path, target: Path) -> None:
    os.link(temporary, target)  # unlike a rename, this replaces nothing
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def chunks_of(archive: Path) -> Chunks:
    """What to send of a file. Errors: NotFound, InvalidArgument for a file that is no snapshot."""
    if not archive.is_file():
        raise NotFound(f"expected a snapshot at {archive}, found none")
    return Chunks(_source_of(archive), _chunks(archive), archive.stat().st_size)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model to send: its entry as JSON, its files, how many bytes these are."""

    entry: bytes
    files: tuple[Path, ...]
    size: int

    def chunks(self, file: Path) -> Iterator[bytes]:
        """The bytes of a file, a piece at a time."""
        return _chunks(file)


def model_files(folder: Path) -> ModelFiles:
    """What to send of a model's folder in a registry; the server compares the checksums.

    Errors: NotFound, InvalidArgument for a folder that is no model, or where a file is not as the
    manifest tells.
    """
    path = folder / _MODEL_MANIFEST
    if not path.is_file():
        raise NotFound(
            f"expected the folder of a model, such as DIR/models/NAME, with {_MODEL_MANIFEST}; "
            f"found none in {folder}"
        )
    try:
        told = json.loads(path.read_text("utf-8"))
        entry, sizes = (
            told["entry"],
            {n: int(f["bytes"]) for n, f in told["entry"]["files"].items()},
        )
        is_ours = told["format"] == _MODEL_FORMAT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"{path}: not a manifest of ours: {error!r}") from None
    if not is_ours:
        raise InvalidArgument(f"{path}: expected format {_MODEL_FORMAT}, got {told['format']!r}")
    files = tuple(folder / name for name in sizes)
    for file, size in zip(files, sizes.values(), strict=True):
        found = file.stat().st_size if file.parent == folder and file.is_file() else None
        if found != size:
            what = "nothing" if found is None else f"{found:,}"
            raise InvalidArgument(
                f"expected {size:,} bytes in {file}, as its manifest tells, got {what}"
            )
    return ModelFiles(json.dumps(entry).encode(), files, sum(sizes.values()))


def _source_of(archive: Path) -> str:
    """The collection that a snapshot says it is of; the server checks everything else."""
    try:
        with tarfile.open(archive, mode="r:") as opened:
            member = opened.next()
            source = None if member is None or not member.isreg() else opened.extractfile(member)
            if source is None or member is None or member.name not in _MANIFESTS:
                raise InvalidArgument(
                    f"{archive}: expected a snapshot, which begins with {_MANIFESTS[0]}"
                )
            return str(json.loads(source.read(_MAX_MANIFEST))["settings"]["name"])
    except tarfile.TarError as error:
        raise InvalidArgument(f"{archive}: not a snapshot of ours: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{archive}: its manifest is none of ours: {error!r}") from None


def _chunks(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
