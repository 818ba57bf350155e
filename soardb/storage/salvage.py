"""Salvage: a new row store of the sound rows of a damaged one.

    checkup.py -> [salvage.py] -> rows.py, sqlite.py

Rows are read by ranges of their numbers; a range that SQLite cannot read is halved until the rows
that can be read are. A row counts when its checksum holds; of two rows with one id the later.

The damaged file is only read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from soardb.errors import CorruptStorage, SoarError
from soardb.storage.rows import RowStore, row_is_sound
from soardb.storage.sqlite import fetch_all, open_file, translated

__all__ = ["salvage"]

_BATCH = 4_096
_COLUMNS = "row, id, expires, checksum, payload, vector"


def salvage(
    damaged: Path,
    target_folder: Path,
    d: int,
    settings: dict[str, Any],
    text_fields: Sequence[str],
    texts_of: Callable[[bytes], Sequence[str | None] | None],
) -> tuple[int | None, int]:
    """Make a row store in an empty folder; returns (points the old one counted, points saved).

    texts_of: the declared texts of a payload, or None where the payload is not sound either. The
    count is None where it cannot be read.
    """
    counted, seq = _counted(damaged)
    newest: dict[Any, int] = {}
    for record in _sound(damaged, d, seq):
        if texts_of(record[4]) is not None:
            newest[record[1]] = record[0]
    kept = set(newest.values())
    kind = "str" if any(isinstance(point_id, str) for point_id in newest) else "int"
    kept -= {row for i, row in newest.items() if isinstance(i, str) != (kind == "str")}
    extra = {"collection": settings} | ({"id_kind": kind} if kept else {})
    RowStore.create(target_folder, d, extra, text_fields)
    store = RowStore(target_folder, d)
    try:
        batch: list[tuple[Any, ...]] = []
        for record in _sound(damaged, d, seq):
            if record[0] in kept:
                batch.append(record)
            if len(batch) >= _BATCH:
                store.adopt(batch, [texts_of(r[4]) or () for r in batch], seq)
                batch = []
        store.adopt(batch, [texts_of(r[4]) or () for r in batch], seq)
        store.checkpoint(force=True)
    finally:
        store.close()
    return counted, len(kept)


def _counted(damaged: Path) -> tuple[int | None, int]:
    """Points and last sequence number that the damaged file announces."""
    with contextlib.suppress(SoarError, apsw.Error):
        connection = open_file(damaged, read_only=True)
        try:
            with translated(damaged):
                found = fetch_all(connection, "SELECT seq, live FROM state")
                last = fetch_all(connection, "SELECT max(row) FROM points")[0][0] or 0
            if found and all(isinstance(x, int) and 0 <= x < 2**62 for x in found[0]):
                return found[0][1], max(found[0][0], last)
        finally:
            connection.close()
    return None, 2**40


def _sound(damaged: Path, d: int, seq: int) -> Iterator[tuple[Any, ...]]:
    """Every record that can be read and whose checksum holds, in order."""
    try:
        connection = open_file(damaged, read_only=True)
    except SoarError:
        return
    try:
        for record in _readable(connection, damaged, 0, seq):
            if row_is_sound(d, *record):
                yield record
    finally:
        connection.close()


def _readable(
    connection: apsw.Connection, damaged: Path, after: int, upto: int
) -> Iterator[tuple[Any, ...]]:
    """Records with after < row <= upto that SQLite can read."""
    while after < upto:
        try:
            with translated(damaged):
                found = fetch_all(
                    connection,
                    f"SELECT {_COLUMNS} FROM points WHERE row > ? AND row <= ? "
                    "ORDER BY row LIMIT 256",
                    (after, upto),
                )
        except CorruptStorage:
            if upto - after == 1:
                return
            middle = after + (upto - after) // 2
            yield from _readable(connection, damaged, after, middle)
            after = middle
            continue
        if not found:
            return
        yield from found
        after = max(found[-1][0], after + 1)  # a damaged tree need not be in order
