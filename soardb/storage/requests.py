"""The requests that a row store remembers, so that a write asked for twice is done once.

    rows.py, once.py -> [requests.py] -> sqlite.py

    requests(request_id, what, answer, time, checksum)

A caller that heard no answer cannot know whether its write was done. It asks again under the same
request id; the answer stands in the transaction of the write itself, so after any crash both are
there or neither. What is older than WINDOW_S is forgotten.

A store made before there was such a table gets it when it is opened for writing; readers never
look at it, and snapshots leave it behind. Nothing here knows what a request does.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import apsw

from soardb.errors import CorruptStorage, OutOfSpace
from soardb.storage.sqlite import fetch_all, translated

__all__ = ["REQUESTS_SCHEMA", "WINDOW_S", "Answered", "Requests"]

WINDOW_S = 600
"""Seconds for which an answer is remembered."""

_PRUNE_S = 60

# Word for word what a new store has: a restored one is compared with that.
REQUESTS_SCHEMA = """
CREATE TABLE requests(request_id TEXT PRIMARY KEY, what TEXT NOT NULL, answer INTEGER NOT NULL,
                      time INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests(time);
"""

_log = logging.getLogger("soardb")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request asked for, as a fingerprint, and the answer that it got."""

    what: str
    answer: int


class Requests:
    """The table, by the writer's connection and within its transactions."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path, self._writer = path, connection
        self._prune_at = 0
        self._is_there = False
        try:
            self._make()
        except OutOfSpace as error:  # reads go on; the first request to remember tries again
            _log.warning("%s", error)

    def _make(self) -> None:
        if self._is_there:
            return
        with translated(self._path):
            found = "SELECT 1 FROM sqlite_schema WHERE name = 'requests'"
            if not fetch_all(self._writer, found):
                with self._writer:  # a transaction, or part of the open one
                    self._writer.execute(REQUESTS_SCHEMA)
        self._is_there = True

    def find(self, request_id: str, now: int) -> Answered | None:
        """What was answered to a request not long before `now` microseconds, or None.

        Errors: CorruptStorage where the record fails its checksum.
        """
        if not self._is_there:
            return None
        with translated(self._path):
            found = fetch_all(
                self._writer,
                "SELECT what, answer, time, checksum FROM requests WHERE request_id = ?",
                (request_id,),
            )
        if not found:
            return None
        what, answer, time, checksum = found[0]
        if checksum != _checksum(request_id, what, answer, time):
            raise CorruptStorage(
                f"{self._path}: what is remembered of request {request_id!r} fails its checksum; "
                "look whether it was done, and repeat it under another id if not"
            )
        return Answered(what, answer) if time >= now - WINDOW_S * 1_000_000 else None

    def remember(self, request_id: str, answered: Answered, now: int) -> None:
        """Keep an answer in the open transaction, and drop those that are too old."""
        self._make()
        what, answer = answered.what, answered.answer
        with translated(self._path):
            if now >= self._prune_at:
                old = now - WINDOW_S * 1_000_000
                self._writer.execute("DELETE FROM requests WHERE time < ?", (old,))
                self._prune_at = now + _PRUNE_S * 1_000_000
            self._writer.execute(
                "INSERT OR REPLACE INTO requests VALUES(?, ?, ?, ?, ?)",
                (request_id, what, answer, now, _checksum(request_id, what, answer, now)),
            )

    def forget_all(self) -> None:
        """Drop every answer in the open transaction: in a copy they are another store's."""
        self._make()
        with translated(self._path):
            self._writer.execute("DELETE FROM requests")


def _checksum(*record: object) -> int:
    return zlib.crc32(repr(record).encode())
