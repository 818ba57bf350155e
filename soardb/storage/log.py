"""SQLite's log (WAL) of a row store that is copied while it is written.

    cluster/handover.py -> [log.py] -> sqlite.py

While a read transaction is open, SQLite changes the main file by nothing that is not in the log as
well, and the log is begun anew at most once, before the first of that. So the main file as it is
read meanwhile, in whatever order, and the log up to a commit that came later are the row store as
of that commit.

Nothing here knows what is in the tables.
"""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import apsw

from soardb.errors import Unavailable
from soardb.storage.sqlite import open_file, translated

__all__ = ["HeldLog", "log_end"]

# SQLite's file format, sections "WAL file format" and "WAL-index header": 14 bytes of other things,
# size of a page, frames that are committed, pages, checksum, salt, checksum.
_INDEX = struct.Struct("=14sHIIII8s8s")
_LOG_HEAD, _FRAME_HEAD = 32, 24
_LOOKS = 1_000


class HeldLog:
    """Open from construction to close(). path: of the row store."""

    def __init__(self, path: Path) -> None:
        self._connection = open_file(path, read_only=True)
        with translated(path):
            self._connection.execute("BEGIN")
            # A transaction begins with its first look.
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    def close(self) -> None:
        """Let SQLite have its log back."""
        with contextlib.suppress(apsw.Error):
            self._connection.close()


def log_end(log: Path) -> tuple[int, str]:
    """How many bytes of a log are committed, and which log it is: another one has another name.

    A log that was folded in is written from the beginning again, within the file; so its end is not
    that of the file. Both that and its salt stand in the header of the index in shared memory,
    twice: while the two differ it is being changed. Errors: Unavailable.
    """
    index = Path(f"{str(log).removesuffix('-wal')}-shm")
    for _ in range(_LOOKS):
        with translated(index), index.open("rb") as source:
            head = source.read(2 * _INDEX.size)
        if len(head) == 2 * _INDEX.size and head[: _INDEX.size] == head[_INDEX.size :]:
            _, page, frames, _, _, _, salt, _ = _INDEX.unpack(head[: _INDEX.size])
            size = 65536 if page == 1 else page
            return _LOG_HEAD + frames * (_FRAME_HEAD + size) if frames else 0, salt.hex()
        time.sleep(0.001)
    raise Unavailable(f"{log}: its index is never at rest")
