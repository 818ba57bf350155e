"""One file of named arrays: versioned, checksummed, written atomically, mapped on reading.

    index/flat.py, index/stored.py -> [format.py]

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from soardb.errors import CorruptStorage, InvalidArgument, NotFound

__all__ = ["FORMAT_VERSION", "read_arrays", "write_arrays"]

FORMAT_VERSION = 1

_MAGIC = b"SOARDB\r\n"
_PREFIX = struct.Struct("<8sIIQ")
_ALIGN = 4096
_PIECE = 16 * 2**20
_MAX_HEADER = 64 * 2**20
_DTYPES = {"<f4", "<i4", "<i8", "<u4", "|u1"}


def write_arrays(
    path: str | os.PathLike[str],
    kind: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write the file whole or not at all: temporary, fsync, rename, fsync of the folder.

    kind names what the file holds, parameters are JSON values. An existing file of that name is
    replaced at once; readers that mapped it keep the old one. Errors: InvalidArgument for a folder,
    NotFound where its folder is missing, OSError of the file system; the old file is then as it
    was.
    """
    target = Path(path)
    entries, offset = [], 0
    contents = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in contents.items():
        raw = array.data.cast("B") if array.size else memoryview(b"")
        pieces = [zlib.crc32(raw[i : i + _PIECE]) for i in range(0, len(raw), _PIECE)]
        entries.append(
            {
                "name": name,
                "dtype": array.dtype.newbyteorder("<").str,
                "shape": list(array.shape),
                "offset": offset,
                "crc32": pieces,
            }
        )
        offset += _padded(array.nbytes)
    header = json.dumps({"kind": kind, "parameters": dict(parameters), "arrays": entries}).encode()
    start = _padded(_PREFIX.size + len(header))
    if target.is_dir():
        raise InvalidArgument(f"expected a file to write to, got the folder {target}")
    if not target.parent.is_dir():
        raise NotFound(f"expected the folder {target.parent} to exist; make it first")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
    try:
        with os.fdopen(handle, "wb") as file:
            prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, zlib.crc32(header), len(header))
            file.write(prefix + header)
            for entry, array in zip(entries, contents.values(), strict=True):
                file.seek(start + int(str(entry["offset"])))
                if array.size:
                    file.write(array.data.cast("B"))
            file.truncate(start + offset)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_arrays(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Map a file of write_arrays after checking every checksum.

    Returns (parameters, arrays). The arrays are views of a private mapping: reading shares the page
    cache, writing to them copies the page and never reaches the file. Errors: NotFound,
    CorruptStorage (not ours, another version, truncated, a checksum that fails), InvalidArgument
    (a sound file of another kind).
    """
    target = Path(path)
    if not target.is_file():
        raise NotFound(f"expected a soardb file at {target}, found none")
    with target.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(file.read(_PREFIX.size), file, size, target)
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    found, parameters, entries, start = header
    if found != kind:
        raise InvalidArgument(f"expected a file of kind {kind!r}, {target} holds {found!r}")
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for entry in entries:
        name = entry["name"]
        if entry["offset"] != at or name in arrays:
            raise CorruptStorage(f"{target}: array {name!r} stands twice or out of its place")
        arrays[name] = _map_array(mapping, entry, start, target)
        at += _padded(arrays[name].nbytes)
    if start + at != size:
        raise CorruptStorage(f"{target}: expected {start + at} bytes, the file has {size}")
    return parameters, arrays


def _read_header(
    prefix: bytes, file: Any, size: int, target: Path
) -> tuple[str, dict[str, Any], list[dict[str, Any]], int]:
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


def _map_array(mapping: mmap.mmap, entry: dict[str, Any], start: int, target: Path) -> np.ndarray:
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
    for piece, checksum in enumerate(entry["crc32"]):
        at = piece * _PIECE
        if zlib.crc32(view[at : at + _PIECE]) != checksum:
            raise CorruptStorage(
                f"{target}: checksum of array {name!r} fails at offset {first + at}"
            )
    try:
        return np.frombuffer(mapping, dtype, count, first).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise CorruptStorage(f"{target}: array {name!r} has no such shape: {error}") from None


def _padded(size: int) -> int:
    """Bytes up to the next multiple of the alignment."""
    return -(-size // _ALIGN) * _ALIGN
