"""One file of named arrays: versioned, checksummed, written atomically, mapped on reading.

    index/flat.py, index/ivf.py, generation.py -> [format.py]

    bytes 0..7    magic "SOARDB\\r\\n" (the line ending betrays a text-mode copy)
          8..11   format version, little-endian uint32
          12..15  CRC-32 of the header text, uint32
          16..23  length of the header text, uint64
          24..    header: JSON with the kind, its parameters and one entry an array: name, dtype,
                  shape, offset, CRC-32 of every 16 MiB piece
          ...     the arrays, each at a multiple of 4096 bytes, little-endian, C order

Every byte that is read is covered by a checksum; a file that fails one is never used and the error
names the file, the array and the offset. No pickle, no code, no paths inside. This module holds
every magic number of the format.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import CorruptStorage, InvalidArgument, NotFound

__all__ = [
    "FORMAT_VERSION",
    "ArrayFile",
    "Mapped",
    "map_arrays",
    "read_arrays",
    "sync_folder",
    "write_arrays",
]

FORMAT_VERSION = 1

_MAGIC = b"SOARDB\r\n"
_PREFIX = struct.Struct("<8sIIQ")
_ALIGN = 4096
_PIECE = 16 * 2**20
_MAX_HEADER = 64 * 2**20
_DTYPES = {"<f4", "<f8", "<i4", "<i8", "<u2", "<u4", "|u1"}


class ArrayFile:
    """A file under way: its arrays are mapped and filled in place, then sealed.

        with ArrayFile(path, kind, parameters, {"vectors": (np.float32, (n, d))}) as file:
            file.arrays["vectors"][:] = vectors
            file.seal()

    The whole size is reserved on the disk first, so that a full disk is an error here and no
    signal later. Left without seal(), the block leaves nothing behind. Pages that were written may
    be dropped from memory by the system, so the size is not bounded by memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        parameters: Mapping[str, Any],
        layout: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]],
    ) -> None:
        self._target = Path(path)
        if self._target.is_dir():
            raise InvalidArgument(f"expected a file to write to, got the folder {self._target}")
        if not self._target.parent.is_dir():
            raise NotFound(f"expected the folder {self._target.parent} to exist; make it first")
        self._entries: list[dict[str, Any]] = []
        offset = 0
        for name, (dtype, shape) in layout.items():
            little = np.dtype(dtype).newbyteorder("<")
            size = int(np.prod(shape, dtype=object)) * little.itemsize
            pieces = [0xFFFFFFFF] * -(-size // _PIECE)
            entry = {"name": name, "dtype": little.str, "shape": list(shape), "offset": offset}
            self._entries.append(entry | {"crc32": pieces})
            offset += _padded(size)
        self._kind, self._parameters = kind, dict(parameters)
        self._header_size = len(self._header())  # with the longest checksums
        self._start = _padded(_PREFIX.size + self._header_size)
        self._size = self._start + offset
        self._temporary = self._target.with_name(f".{self._target.name}.{secrets.token_hex(8)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._handle = os.open(self._temporary, flags, 0o666)  # less the umask
        try:
            _reserve(self._handle, self._size)
            self._mapping = mmap.mmap(self._handle, self._size)
        except BaseException:
            self._discard()
            raise
        self.arrays = {
            entry["name"]: np.frombuffer(
                self._mapping,
                np.dtype(entry["dtype"]),
                int(np.prod(entry["shape"], dtype=object)),
                self._start + entry["offset"],
            ).reshape(entry["shape"])
            for entry in self._entries
        }

    def _header(self) -> bytes:
        return json.dumps(
            {"kind": self._kind, "parameters": self._parameters, "arrays": self._entries}
        ).encode()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            self._discard()

    def _discard(self) -> None:
        os.close(self._handle)
        self._handle = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def seal(self, before_rename: Callable[[], None] | None = None) -> None:
        """Checksum, flush and rename: from here on the file is there, whole.

        before_rename is called between the flush and the rename. An existing file of that name is
        replaced at once; readers that mapped it keep the old one.
        """
        view = memoryview(self._mapping)
        for entry in self._entries:
            first = self._start + entry["offset"]
            size = self.arrays[entry["name"]].nbytes
            entry["crc32"] = [
                zlib.crc32(view[first + i : first + min(i + _PIECE, size)])
                for i in range(0, size, _PIECE)
            ]
        header = self._header().ljust(self._header_size)
        prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, zlib.crc32(header), len(header))
        view[: len(prefix) + len(header)] = prefix + header
        self._mapping.flush()
        os.fsync(self._handle)
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)
        _forget_pages(self._handle)
        if before_rename:
            before_rename()
        os.replace(self._temporary, self._target)
        os.close(self._handle)
        self._handle = -1
        sync_folder(self._target.parent)


def _forget_pages(handle: int) -> None:
    """Let the system drop what it holds in memory of a file that is on the disk.

    Read again, the file comes in the largest pages that there are: a search, which reads all over
    it, is 5 to 10 % faster than over the pages that were written (benchmarks/LOG.md).
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _reserve(handle: int, size: int) -> None:
    """Give a file its size and its blocks; OSError ENOSPC where the disk has not got them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    block = bytes(1 << 20)  # macOS has no such call: blocks are reserved by writing them
    for first in range(0, size, len(block)):
        os.pwrite(handle, block[: min(len(block), size - first)], first)


def write_arrays(
    path: str | os.PathLike[str],
    kind: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write the file whole or not at all: temporary, fsync, rename, fsync of the folder.

    kind names what the file holds, parameters are JSON values. Errors: InvalidArgument for a
    folder, NotFound where its folder is missing, OSError of the file system; an old file of that
    name is then as it was.
    """
    layout = {name: (array.dtype, array.shape or (1,)) for name, array in arrays.items()}
    with ArrayFile(path, kind, parameters, layout) as file:
        for name, array in arrays.items():
            file.arrays[name][...] = array
        file.seal()


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder: what was made, renamed or removed there stays so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_arrays(
    path: str | os.PathLike[str], kind: str, verify: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Map a file of write_arrays after checking every checksum: (parameters, arrays).

    verify=False checks the header's alone, which costs no look at the arrays.

    Errors: those of map_arrays, and CorruptStorage for a checksum that fails.
    """
    mapped = map_arrays(path, kind)
    if verify:
        mapped.verify()
    return mapped.parameters, mapped.arrays


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file whose header is sound. Its arrays are not to be used before verify() has passed.

    The arrays are views of a private mapping: reading shares the page cache, writing to them copies
    the page and never reaches the file.
    """

    parameters: dict[str, Any]
    arrays: dict[str, np.ndarray]
    path: Path
    checksum: int
    """Of the header, which holds those of all arrays: it tells this file from every other."""
    _pieces: list[tuple[str, int, memoryview, int]]

    def verify(self) -> None:
        """Check every checksum, O(file); CorruptStorage names file, array and offset."""
        for name, offset, view, checksum in self._pieces:
            if zlib.crc32(view) != checksum:
                raise CorruptStorage(
                    f"{self.path}: checksum of array {name!r} fails at offset {offset}"
                )


def map_arrays(path: str | os.PathLike[str], kind: str) -> Mapped:
    """Map a file of write_arrays, its header checked and its arrays not yet: O(header).

    Errors: NotFound, CorruptStorage (not ours, another version, truncated), InvalidArgument (a
    sound file of another kind).
    """
    target = Path(path)
    if not target.is_file():
        raise NotFound(f"expected a soardb file at {target}, found none")
    with target.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(file.read(_PREFIX.size), file, size, target)
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    found, parameters, entries, start, checksum = header
    if found != kind:
        raise InvalidArgument(f"expected a file of kind {kind!r}, {target} holds {found!r}")
    arrays: dict[str, np.ndarray] = {}
    pieces: list[tuple[str, int, memoryview, int]] = []
    at = 0
    for entry in entries:
        name = entry["name"]
        if entry["offset"] != at or name in arrays:
            raise CorruptStorage(f"{target}: array {name!r} stands twice or out of its place")
        arrays[name], found_pieces = _map_array(mapping, entry, start, target)
        pieces += found_pieces
        at += _padded(arrays[name].nbytes)
    if start + at != size:
        raise CorruptStorage(f"{target}: expected {start + at} bytes, the file has {size}")
    return Mapped(parameters, arrays, target, checksum, pieces)


def _read_header(
    prefix: bytes, file: Any, size: int, target: Path
) -> tuple[str, dict[str, Any], list[dict[str, Any]], int, int]:
    if len(prefix) < _PREFIX.size:
        raise CorruptStorage(f"{target}: truncated at offset {len(prefix)}, inside the file prefix")
    magic, version, checksum, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise CorruptStorage(f"{target}: not a soardb file (offset 0 holds {magic!r})")
    if version != FORMAT_VERSION:
        raise CorruptStorage(
            f"{target}: format version {version} at offset 8, this soardb reads {FORMAT_VERSION}; "
            "build the index anew or use the version that wrote it"
        )
    if length > min(size, _MAX_HEADER):
        raise CorruptStorage(f"{target}: header length {length} at offset 16 exceeds the file")
    text = file.read(length)
    if len(text) < length or zlib.crc32(text) != checksum:
        raise CorruptStorage(f"{target}: header checksum fails at offset {_PREFIX.size}")
    try:
        header = json.loads(text)
        entries = [_check_entry(entry, target) for entry in header["arrays"]]
        return (
            str(header["kind"]),
            dict(header["parameters"]),
            entries,
            _padded(_PREFIX.size + length),
            checksum,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptStorage(f"{target}: the header is not one of ours: {error}") from None


def _check_entry(entry: Any, target: Path) -> dict[str, Any]:
    shape, offset = entry["shape"], entry["offset"]
    counts = [offset, *shape, *entry["crc32"]]
    if (
        not isinstance(entry["name"], str)
        or entry["dtype"] not in _DTYPES
        or any(not isinstance(x, int) or x < 0 for x in counts)
    ):
        raise CorruptStorage(f"{target}: array {entry['name']!r} is not described as one of ours")
    return dict(entry)


def _map_array(
    mapping: mmap.mmap, entry: dict[str, Any], start: int, target: Path
) -> tuple[np.ndarray, list[tuple[str, int, memoryview, int]]]:
    """One array, and (name, offset, bytes, checksum) of each of its pieces."""
    name, dtype, shape = entry["name"], np.dtype(entry["dtype"]), tuple(entry["shape"])
    count = int(np.prod(shape, dtype=object)) if shape else 1
    first, length = start + entry["offset"], count * dtype.itemsize
    if first + length > len(mapping):
        raise CorruptStorage(
            f"{target}: truncated: array {name!r} ends at offset {first + length}, "
            f"the file at {len(mapping)}"
        )
    if len(entry["crc32"]) != -(-length // _PIECE):
        raise CorruptStorage(f"{target}: array {name!r} lacks checksums")
    view = memoryview(mapping)[first : first + length]
    pieces = [
        (name, first + i * _PIECE, view[i * _PIECE : (i + 1) * _PIECE], checksum)
        for i, checksum in enumerate(entry["crc32"])
    ]
    try:
        return np.frombuffer(mapping, dtype, count, first).reshape(shape), pieces
    except (ValueError, OverflowError) as error:
        raise CorruptStorage(f"{target}: array {name!r} has no such shape: {error}") from None


def _padded(size: int) -> int:
    """Bytes up to the next multiple of the alignment."""
    return -(-size // _ALIGN) * _ALIGN
