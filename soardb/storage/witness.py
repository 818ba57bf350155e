"""The witness: a few bytes beside the row store that say how far its flushed commits had come.

    rows.py -> [witness.py]

SQLite takes a damaged WAL for one that ends earlier, and opens without a word. The witness is
written after a commit was flushed and is not flushed itself, so it may lag behind the row store
but never run ahead of it: a row store that ends before its witness has lost acknowledged writes,
and says so. It also says whose commits they were, so that a row store which lies in the place of
another is found out. A witness that is absent or fails its checksum witnesses nothing.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

__all__ = ["Witness"]

_MAGIC = b"SOARWIT1"
_RECORD = struct.Struct("<8sQQ")
_CHECKSUM = struct.Struct("<I")


class Witness:
    """One number in one file. identity: of the row store that it is about."""

    def __init__(self, path: Path, identity: int) -> None:
        self.identity = identity
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(self, seq: int) -> None:
        """Witness that everything up to seq was flushed."""
        record = _RECORD.pack(_MAGIC, self.identity, seq)
        os.pwrite(self._handle, record + _CHECKSUM.pack(zlib.crc32(record)), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    @staticmethod
    def read(path: Path) -> tuple[int, int] | None:
        """The identity of the row store and the number witnessed; None where there is none."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        record = data[: _RECORD.size]
        if len(data) != _RECORD.size + _CHECKSUM.size or record[:8] != _MAGIC:
            return None
        if _CHECKSUM.unpack(data[_RECORD.size :])[0] != zlib.crc32(record):
            return None
        _, identity, seq = _RECORD.unpack(record)
        return identity, seq
