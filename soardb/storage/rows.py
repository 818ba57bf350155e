"""The row store: the points of one collection, in SQLite. The only truth.

    collection, builds, recovery -> [rows.py] -> sqlite.py, requests.py, witness.py

A point is a row that never changes: `row`, its number, is also the sequence number of the write
that made it, so an update is a new row and the old one goes, and what came after a moment are the
rows with greater numbers. A deleted row's number stays in `gone` until the next generation of the
index, which tells recovery and readers what to strike out.

    points(row, id, expires, checksum, payload, vector)
    gone(row, seq)                  rows deleted, and when
    state(seq, live, gone, checksum)  one row: the last sequence number, how many points there are,
                                    and a sum over `gone`
    settings(name, value, checksum) what the collection is; which generation is current
    requests                        what was answered to writes of late; see requests.py
    fulltext                        FTS5 over the declared text fields, contentless

Which id a row has is found from memory (table.py), so there is no index over ids here that could
disagree with the rows. Every row carries checksums of its payload and of its vector; state and
settings carry theirs; a WAL that lost its end is betrayed by the witness. A row store has a random
identity, which goes into the checksum of its state and stands in the witness, so that a file in
the place of another store's is refused.

One thread writes; any thread reads. Nothing here knows of partitions, filters or types of fields.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from soardb import deadline
from soardb.errors import Closed, CorruptStorage, InvalidArgument, SoarError, WriteFailed
from soardb.kernels.layout import F32, I64
from soardb.schema import PointId
from soardb.storage.faults import reach
from soardb.storage.requests import REQUESTS_SCHEMA, Requests
from soardb.storage.sqlite import fetch_all, open_file, translated
from soardb.storage.witness import Witness

__all__ = ["FORMAT", "PointBatch", "RowStore", "StoredPoint", "row_is_sound"]

FORMAT = 1

_log = logging.getLogger("soardb")

_62_BITS = 2**62 - 1
_LARGE_DIM = 512  # a page of 32 KiB from here on, else 16 KiB
_CHECKPOINT_PAGES = 2_000
_CACHE_BYTES = 2_000 * 1024  # a connection: SQLite's own default
_HEAD = struct.Struct("<qq")
_NEVER = -(2**63)
_STEPS = 10_000  # of SQLite's machine between two looks at a limit: less than a millisecond

_SCHEMA = """
CREATE TABLE points(row INTEGER PRIMARY KEY, id NOT NULL, expires INTEGER,
                    checksum INTEGER NOT NULL, payload BLOB NOT NULL, vector BLOB NOT NULL);
CREATE INDEX points_by_expiry ON points(expires) WHERE expires IS NOT NULL;
CREATE TABLE gone(row INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE INDEX gone_by_seq ON gone(seq);
CREATE TABLE state(one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,
                   live INTEGER NOT NULL, gone INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point as it was written. payload: JSON text; vector: (d,) float32, or None."""

    row: int
    id: PointId
    payload: bytes
    vector: F32 | None


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Consecutive rows: (n,) row numbers, ids, payloads, (n, d) float32 vectors, expiry times."""

    rows: I64
    ids: list[PointId]
    payloads: list[bytes]
    vectors: F32
    expires: list[int | None]

    def take(self, keep: Sequence[bool]) -> PointBatch:
        """The rows where keep (n,) is true."""
        return PointBatch(
            self.rows[np.array(keep)],
            list(itertools.compress(self.ids, keep)),
            list(itertools.compress(self.payloads, keep)),
            self.vectors[np.array(keep)],
            list(itertools.compress(self.expires, keep)),
        )


def row_checksum(
    row: int, point_id: PointId, expires: int | None, payload: bytes, vector: bytes | memoryview
) -> int:
    """What stands beside a row: CRC-32 of all but the vector, times 2^31, plus half the vector's.

    Kept within 63 bits, as SQLite's integers are signed.
    """
    head = zlib.crc32(_HEAD.pack(row, _NEVER if expires is None else expires))
    name = b"s" + point_id.encode() if isinstance(point_id, str) else b"i%d" % point_id
    head = zlib.crc32(payload, zlib.crc32(name, head))
    return (head << 31) | (zlib.crc32(vector) >> 1)


def row_is_sound(
    d: int, row: Any, point_id: Any, expires: Any, checksum: Any, payload: Any, vector: Any
) -> bool:
    """Whether a record has the types and the checksum that insert() gave it."""
    return (
        isinstance(payload, bytes)
        and isinstance(vector, bytes)
        and len(vector) == 4 * d
        and isinstance(point_id, int | str)
        and (expires is None or isinstance(expires, int))
        and row_checksum(row, point_id, expires, payload, vector) == checksum
    )


class RowStore:
    """The file `rows.sqlite` of a collection's folder, and the witness beside it."""

    def __init__(
        self,
        folder: Path,
        d: int,
        *,
        read_only: bool = False,
        file: str = "rows.sqlite",
        witness: str | None = "witness",
    ) -> None:
        self.path = folder / file
        self.d = d
        self.is_read_only = read_only
        self._witness_path = None if witness is None else folder / witness
        self._writer = open_file(self.path, read_only=read_only)
        self._pin = threading.local()  # the connection of a thread that reads one moment
        self._spare: list[apsw.Connection] = []  # readers' connections not in use
        self._readers: set[apsw.Connection] = set()
        self._closed = False
        self._durable = True
        self._failed: str | None = None
        self._identity = self._read_identity()
        self.seq, self.live, self._gone = self._read_state()  # as of the last commit
        self._next_seq, self._next_live = self.seq, self.live  # as of the open transaction
        self._next_gone = self._gone
        self._gone_is_sound = False
        found = None if self._witness_path is None else Witness.read(self._witness_path)
        if found is not None:
            self._expect_witnessed(*found)
        self._witness: Witness | None = None
        self._requests = None if read_only else Requests(self.path, self._writer)
        if not read_only and self._witness_path is not None:
            with translated(self._witness_path):
                self._witness = Witness(self._witness_path, self._identity)
            if found is None:
                self._bear_witness(0)  # what is read now need not be flushed

    def _expect_witnessed(self, identity: int, seq: int) -> None:
        """Refuse a row store that ends before its witness, or that is not the witness's."""
        if identity != self._identity:
            raise CorruptStorage(
                f"{self.path}: not the row store that the file witness beside it is about; one of "
                "the two belongs elsewhere. Put the right one back, or restore a snapshot"
            )
        if seq > self.seq:
            raise CorruptStorage(
                f"{self.path}: ends at write {self.seq}, but writes up to {seq} were "
                "acknowledged as flushed: its WAL is damaged or missing. Restore a snapshot, or "
                "accept the loss with `soardb repair`"
            )

    def _bear_witness(self, seq: int) -> None:
        assert self._witness is not None
        try:
            self._witness.write(seq)
        except OSError as error:  # the transaction stands; a witness may lag behind
            _log.warning("%s: the witness could not be written: %s", self.path, error)

    # ------------------------------------------------------------------ making one

    @staticmethod
    def create(folder: Path, d: int, settings: dict[str, Any], text_fields: Sequence[str]) -> None:
        """Make the file, empty and flushed."""
        path = folder / "rows.sqlite"
        page = 32768 if d >= _LARGE_DIM else 16384
        with translated(path):  # made here, as SQLite does not say why it cannot make a file
            path.touch(exist_ok=False)
        connection = open_file(path, create_pages=page)
        with translated(path):
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA + REQUESTS_SCHEMA)
            if text_fields:
                columns = ", ".join(f"t{i}" for i in range(len(text_fields)))
                connection.execute(
                    f"CREATE VIRTUAL TABLE fulltext USING fts5({columns}, content='', "
                    "contentless_delete=1, tokenize='porter unicode61')"
                )
            identity = _new_identity()
            for name, value in {"format": FORMAT, "identity": identity, **settings}.items():
                _put_setting(connection, name, value)
            _put_state(connection, identity, 0, 0, 0)
            connection.execute("COMMIT")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            connection.close()

    @classmethod
    def open_copy(cls, path: Path, d: int) -> RowStore:
        """A row store for reading in a file of any name, without a witness."""
        return cls(path.parent, d, read_only=True, file=path.name, witness=None)

    # ------------------------------------------------------------------ what it is

    def setting(self, name: str) -> Any:
        """A setting as it was put; None where there is none. Errors: CorruptStorage."""
        with self._reading() as connection:
            found = fetch_all(
                connection, "SELECT value, checksum FROM settings WHERE name = ?", (name,)
            )
        if not found:
            return None
        value, checksum = found[0]
        if zlib.crc32(f"{name}={value}".encode()) != checksum:
            raise CorruptStorage(f"{self.path}: setting {name!r} fails its checksum")
        return json.loads(value)

    def _read_identity(self) -> int:
        identity = self.setting("identity")
        if not isinstance(identity, int):
            raise CorruptStorage(f"{self.path}: a row store without an identity is none of ours")
        return identity

    def _read_state(self) -> tuple[int, int, int]:
        with self._reading() as connection:
            found = fetch_all(connection, "SELECT seq, live, gone, checksum FROM state")
        is_sound = (
            len(found) == 1
            and all(isinstance(value, int) for value in found[0])
            and found[0][3] == _state_checksum(self._identity, *found[0][:3])
        )
        if not is_sound:
            raise CorruptStorage(f"{self.path}: the state row is missing or fails its checksum")
        return int(found[0][0]), int(found[0][1]), int(found[0][2])

    def refresh(self) -> int:
        """For readers beside a writer: take over its latest commit; returns its number.

        Within pinned() the latest as of that moment.
        """
        self.seq, self.live, self._gone = self._read_state()
        return self.seq

    # ------------------------------------------------------------------ writing, one thread

    def begin(self, *, durable: bool) -> None:
        """Open the transaction. durable: its commit is flushed to the disk."""
        self._expect_writable()
        with translated(self.path):
            if durable != self._durable:
                self._writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._writer.execute("BEGIN IMMEDIATE")
            self._next_seq, self._next_live = self.seq, self.live
            self._next_gone = self._gone
            reach("write.begun")

    def _expect_writable(self) -> None:
        if self._closed:
            raise Closed(f"{self.path}: closed")
        if self._failed:
            raise WriteFailed(
                f"{self.path}: takes no writes since one failed ({self._failed}); close the "
                "database and open it anew"
            )

    def insert(
        self,
        ids: Sequence[PointId],
        payloads: Sequence[bytes],
        vectors: F32,
        expires: Sequence[int | None] | None,
        texts: Sequence[Sequence[str | None]],
    ) -> I64:
        """Add rows in the open transaction; returns their numbers (n,) int64, rising.

        texts: for each declared text field its n values.
        """
        n, first = len(ids), self._next_seq + 1
        raw = np.ascontiguousarray(vectors).data.cast("B") if n else memoryview(b"")
        size = self.d * 4
        blobs = [raw[i * size : (i + 1) * size] for i in range(n)]
        times = expires if expires is not None else [None] * n
        records = [
            (row, i, e, row_checksum(row, i, e, p, v), p, v)
            for row, i, e, p, v in zip(
                range(first, first + n), ids, times, payloads, blobs, strict=True
            )
        ]
        with translated(self.path):
            self._writer.executemany("INSERT INTO points VALUES(?,?,?,?,?,?)", records)
            if texts:
                self._put_texts(range(first, first + n), list(zip(*texts, strict=True)))
        self._next_seq += n
        self._next_live += n
        return np.arange(first, first + n, dtype=np.int64)

    def delete(self, rows: I64, *, has_text: bool) -> None:
        """Strike (m,) distinct live rows in the open transaction.

        Errors: CorruptStorage where one is not there: the caller knows which rows are live.
        """
        if not len(rows):
            return
        self._next_seq += 1
        chosen = np.ascontiguousarray(rows, np.int64)
        with translated(self.path):
            self._writer.execute(
                "DELETE FROM points WHERE row IN carray(?)", (apsw.carray(chosen),)
            )
            if self._writer.changes() != len(chosen):
                raise CorruptStorage(
                    f"{self.path}: expected {len(chosen)} rows to delete, found "
                    f"{self._writer.changes()}; run `soardb repair`"
                )
            self._writer.execute(
                "INSERT INTO gone SELECT value, ? FROM carray(?)",
                (self._next_seq, apsw.carray(chosen)),
            )
            if has_text:
                self._writer.execute(
                    "DELETE FROM fulltext WHERE rowid IN carray(?)", (apsw.carray(chosen),)
                )
        self._next_live -= len(chosen)
        self._next_gone = (self._next_gone + _gone_sum(chosen, self._next_seq)) & _62_BITS

    @property
    def requests(self) -> Requests:
        """What was answered to writes of late, for the writer's thread."""
        assert self._requests is not None, "opened for reading"
        return self._requests

    def adopt(
        self,
        records: Sequence[tuple[Any, ...]],
        texts: Sequence[Sequence[str | None]],
        seq: int,
    ) -> None:
        """Write sound records of another row store under their old numbers: a transaction."""
        self.begin(durable=True)
        with translated(self.path):
            self._writer.executemany("INSERT INTO points VALUES(?,?,?,?,?,?)", records)
            if texts and texts[0]:
                self._put_texts([record[0] for record in records], texts)
        self._next_live += len(records)
        self._next_seq = max(self._next_seq, seq if seq < 2**40 else 0, *(r[0] for r in records), 0)
        self.commit()

    def _put_texts(self, rows: Sequence[int], texts: Sequence[Sequence[str | None]]) -> None:
        """Index the texts of rows: for each row those of every declared text field."""
        width = len(texts[0])
        marks, columns = ",".join("?" * width), ",".join(f"t{i}" for i in range(width))
        self._writer.executemany(
            f"INSERT INTO fulltext(rowid, {columns}) VALUES(?, {marks})",
            [(row, *values) for row, values in zip(rows, texts, strict=True)],
        )

    def set(self, name: str, value: Any) -> None:
        """Put a setting in the open transaction."""
        with translated(self.path):
            _put_setting(self._writer, name, value)

    def unset(self, name: str) -> None:
        """Remove a setting in the open transaction."""
        with translated(self.path):
            self._writer.execute("DELETE FROM settings WHERE name = ?", (name,))

    def renew_identity(self) -> None:
        """Become another row store than the one that this is a copy of, in the open transaction."""
        self._identity = _new_identity()
        self.set("identity", self._identity)
        if self._witness is not None:
            self._witness.identity = self._identity

    def forget_gone(self, seq: int) -> None:
        """Drop from `gone` what was deleted up to seq, in the open transaction."""
        with translated(self.path):
            dropped = fetch_all(self._writer, "SELECT row, seq FROM gone WHERE seq <= ?", (seq,))
            self._writer.execute("DELETE FROM gone WHERE seq <= ?", (seq,))
        self._next_gone = (self._next_gone - _gone_sum(*_columns(dropped))) & _62_BITS

    def commit(self) -> None:
        """Make the transaction stand. On an error nothing of it does, and the error is raised.

        A write or flush that the disk refused leaves the collection closed to writes: what the
        disk holds is uncertain, and flushing again would not tell (the kernel forgets the pages).
        """
        reach("write.before_commit")
        with translated(self.path):
            _put_state(
                self._writer, self._identity, self._next_seq, self._next_live, self._next_gone
            )
            self._writer.execute("COMMIT")
            self.seq, self.live, self._gone = self._next_seq, self._next_live, self._next_gone
        reach("write.after_commit")
        if self._durable and self._witness is not None:
            self._bear_witness(self.seq)
            reach("write.after_witness")

    def roll_back(self, error: BaseException) -> None:
        """Undo the open transaction after an error."""
        with contextlib.suppress(apsw.Error):  # SQLite may have rolled back by itself
            if not self._writer.get_autocommit():
                self._writer.execute("ROLLBACK")
        if isinstance(error, WriteFailed):
            self._failed = str(error)

    def checkpoint(self, *, force: bool = False) -> None:
        """Move the WAL's pages into the file when there are many. The writer's thread only.

        Readers are not waited for; what they still need stays in the WAL. Errors are those of a
        write; none of them loses anything, as the WAL stays.
        """
        wal = Path(f"{self.path}-wal")
        page = 32768 if self.d >= _LARGE_DIM else 16384
        if not force and (not wal.exists() or wal.stat().st_size < _CHECKPOINT_PAGES * page):
            return
        reach("checkpoint.begun")
        with translated(self.path):
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        reach("checkpoint.done")

    # ------------------------------------------------------------------ reading, any thread

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """A reader's connection, for the time of the block."""
        if self._closed:
            raise Closed(f"{self.path}: closed")
        pinned: apsw.Connection | None = getattr(self._pin, "connection", None)
        if pinned is not None:
            with translated(self.path):
                yield pinned
            return
        try:
            connection = self._spare.pop()
        except IndexError:
            connection = open_file(self.path, read_only=True)
            self._readers.add(connection)
        try:
            with translated(self.path):
                yield connection
        finally:
            if self._closed:
                connection.close()
            else:
                self._spare.append(connection)

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """All that this thread reads in the block is of one moment, whatever is committed."""
        if getattr(self._pin, "connection", None) is not None:
            yield
            return
        with self._reading() as connection:
            connection.execute("BEGIN")
            self._pin.connection = connection
            try:
                self._read_state()  # the moment is that of the first look
                yield
            finally:
                self._pin.connection = None
                connection.execute("ROLLBACK")

    def fetch(
        self, rows: I64, *, with_vectors: bool = False, in_transaction: bool = False
    ) -> dict[int, StoredPoint]:
        """The points of (m,) row numbers, by number; rows that are not there are left out.

        in_transaction: through the writer's connection, which sees what it has not committed.
        Errors: CorruptStorage where a checksum fails.
        """
        query = (
            "SELECT row, id, expires, checksum, payload, vector FROM points WHERE row IN carray(?)"
        )
        binding = (apsw.carray(np.ascontiguousarray(rows, np.int64)),) if len(rows) else None
        if binding is None:
            return {}
        if in_transaction:
            with translated(self.path):
                found = fetch_all(self._writer, query, binding)
        else:
            with self._reading() as connection:
                found = fetch_all(connection, query, binding)
        points: dict[int, StoredPoint] = {}
        for row, point_id, expires, checksum, payload, vector in found:
            self._check(row, point_id, expires, checksum, payload, vector)
            array = np.frombuffer(vector, np.float32) if with_vectors else None
            points[row] = StoredPoint(row, point_id, payload, array)
        return points

    def _check(self, *record: Any) -> None:
        if not row_is_sound(self.d, *record):
            raise CorruptStorage(
                f"{self.path}: row {record[0]} fails its checksum; `soardb repair` saves all others"
            )

    def batches(self, after: int, upto: int, size: int = 4096) -> Iterator[PointBatch]:
        """Live rows with after < row <= upto in order, `size` at a time.

        Each batch is read by itself: no transaction is held open meanwhile, so rows deleted since
        the start may be missing. Errors: CorruptStorage.
        """
        while after < upto:
            with self._reading() as connection:
                found = fetch_all(
                    connection,
                    "SELECT row, id, expires, checksum, payload, vector FROM points "
                    "WHERE row > ? AND row <= ? ORDER BY row LIMIT ?",
                    (after, upto, size),
                )
            if not found:
                return
            for record in found:
                self._check(*record)
            after = found[-1][0]
            yield self._as_batch(found)

    def consistent(self, size: int = 4096) -> Iterator[PointBatch]:
        """Every live row as of one moment, in order, whatever is written meanwhile.

        The WAL cannot shrink until the last batch was taken. Errors: CorruptStorage.
        """
        connection = open_file(self.path, read_only=True)
        try:
            with translated(self.path):
                connection.execute("BEGIN")
                found = connection.execute(
                    "SELECT row, id, expires, checksum, payload, vector FROM points ORDER BY row"
                )
                while records := list(itertools.islice(found, size)):
                    for record in records:
                        self._check(*record)
                    yield self._as_batch(records)
        finally:
            connection.close()

    def _as_batch(self, records: Sequence[tuple[Any, ...]]) -> PointBatch:
        rows, ids, expires, _, payloads, vectors = zip(*records, strict=True)
        return PointBatch(
            np.array(rows, np.int64),
            list(ids),
            list(payloads),
            np.frombuffer(b"".join(vectors), np.float32).reshape(len(rows), self.d),
            list(expires),
        )

    def everything(self) -> tuple[int, int, Iterator[tuple[Any, ...]]]:
        """As of one moment: last write, count of points, and every record unchecked, in order."""
        connection = open_file(self.path, read_only=True)
        with translated(self.path):
            connection.execute("BEGIN")
            seq, live = fetch_all(connection, "SELECT seq, live FROM state")[0]

        def records() -> Iterator[tuple[Any, ...]]:
            try:
                with translated(self.path):
                    yield from connection.execute(
                        "SELECT row, id, expires, checksum, payload, vector FROM points "
                        "ORDER BY row"
                    )
            finally:
                connection.close()

        return int(seq), int(live), records()

    def gone_among(self, rows: I64) -> I64:
        """Those of (m,) rows that were deleted since the generation began."""
        if not len(rows):
            return rows
        with self._reading() as connection:
            found = fetch_all(
                connection, "SELECT row FROM gone WHERE row IN carray(?)", (apsw.carray(rows),)
            )
        return np.array([row for (row,) in found], np.int64)

    def gone_since(self, seq: int) -> I64:
        """Rows deleted after sequence number seq: (m,) int64, rising.

        The first call reads all of `gone` and checks its sum. Errors: CorruptStorage.
        """
        if not self._gone_is_sound:
            return self._checked_gone_since(seq)
        with self._reading() as connection:
            found = fetch_all(connection, "SELECT row FROM gone WHERE seq > ? ORDER BY row", (seq,))
        return np.array([row for (row,) in found], np.int64)

    def _checked_gone_since(self, seq: int) -> I64:
        # One statement, so that the sum and the rows are of one moment.
        query = "SELECT state.gone, g.row, g.seq FROM state LEFT JOIN gone AS g"
        with self._reading() as connection:
            found = fetch_all(connection, query)
        pairs = [record[1:] for record in found if record[1] is not None]
        is_sound = bool(found) and all(isinstance(seq, int) for _, seq in pairs)
        rows, seqs = _columns(pairs if is_sound else [])
        if not is_sound or found[0][0] != _gone_sum(rows, seqs):
            raise CorruptStorage(
                f"{self.path}: the list of deleted rows fails its checksum; `soardb repair` makes "
                "it anew"
            )
        self._gone_is_sound = True
        return np.sort(rows[seqs > seq])

    def expired(self, now: int) -> I64:
        """Rows whose time has come, at `now` microseconds: (m,) int64."""
        with self._reading() as connection:
            found = fetch_all(
                connection,
                "SELECT row FROM points WHERE expires IS NOT NULL AND expires <= ?",
                (now,),
            )
        return np.array([row for (row,) in found], np.int64)

    def next_expiry(self, after: int = _NEVER) -> int | None:
        """The earliest time after `after` at which a row expires, in microseconds, or None."""
        with self._reading() as connection:
            found = fetch_all(
                connection,
                "SELECT min(expires) FROM points WHERE expires IS NOT NULL AND expires > ?",
                (after,),
            )
        return found[0][0] if found and found[0][0] is not None else None

    def match_text(self, query: str, limit: int | None = None) -> tuple[I64, list[float]]:
        """Rows that an FTS5 query matches, best first by BM25, and their scores, bigger better.

        Without a limit: all of them, by row number, and no scores. `query` is made by fulltext.py
        from quoted words; text of a user never stands in it unquoted.
        """
        with self._reading() as connection, _watched(connection):
            if limit is None:
                found = fetch_all(
                    connection,
                    "SELECT rowid FROM fulltext WHERE fulltext MATCH ? ORDER BY rowid",
                    (query,),
                )
                return np.array([row for (row,) in found], np.int64), []
            best = fetch_all(
                connection,
                "SELECT rowid, bm25(fulltext) FROM fulltext WHERE fulltext MATCH ? "
                "ORDER BY bm25(fulltext), rowid LIMIT ?",
                (query, limit),
            )
        return np.array([row for row, _ in best], np.int64), [-score for _, score in best]

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong, indexes and full text included; O(file)."""
        problems: list[str] = []
        try:
            with self._reading() as connection:
                found = fetch_all(connection, "PRAGMA integrity_check(20)")
            problems = [text for (text,) in found if text != "ok"]
        except SoarError as error:
            problems = [str(error)]
        return problems

    def tables(self) -> list[tuple[str, str, str | None]]:
        """(type, name, SQL) of all that the file defines, sorted."""
        with self._reading() as connection:
            return sorted(fetch_all(connection, "SELECT type, name, sql FROM sqlite_schema"))

    def copy_to(self, target: Path) -> None:
        """A consistent copy of the file as of now, compact, while writes go on."""
        if target.exists():
            raise InvalidArgument(f"expected no file at {target}")
        with self._reading() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    def file_bytes(self) -> int:
        """Bytes on disk, the WAL included."""
        files = (self.path, Path(f"{self.path}-wal"))
        total = 0
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # SQLite takes its log away when it likes
                total += file.stat().st_size
        return total

    def cache_bytes(self) -> int:
        """Bytes that the page caches of all connections may hold."""
        return _CACHE_BYTES * (1 + len(self._readers))

    def close(self) -> None:
        """Let go of the file; what was committed stays, the WAL is folded in."""
        if self._closed:
            return
        self._closed = True
        while self._spare:
            self._spare.pop().close()
        with contextlib.suppress(apsw.Error):  # a full disk: the WAL stays and is read next time
            self._writer.close()
        if self._witness is not None:
            self._witness.close()


@contextlib.contextmanager
def _watched(connection: apsw.Connection) -> Iterator[None]:
    """For the time of the block a query ends, with TimedOut, once the call's limit is reached."""
    if not deadline.is_set():
        yield
        return

    def look() -> bool:
        deadline.check()
        return False

    connection.set_progress_handler(look, _STEPS)
    try:
        deadline.check()
        yield
    finally:
        connection.set_progress_handler(None)


def _put_setting(connection: apsw.Connection, name: str, value: Any) -> None:
    text = json.dumps(value, sort_keys=True)
    connection.execute(
        "INSERT OR REPLACE INTO settings VALUES(?, ?, ?)",
        (name, text, zlib.crc32(f"{name}={text}".encode())),
    )


def _new_identity() -> int:
    return secrets.randbits(62)


def _columns(records: Sequence[tuple[Any, ...]]) -> tuple[I64, I64]:
    """Pairs of integers as two arrays."""
    pairs = np.array(records, np.int64).reshape(len(records), 2)
    return pairs[:, 0], pairs[:, 1]


def _gone_sum(rows: I64, seqs: I64 | int) -> int:
    """A number of 62 bits that tells a set of (row, seq); that of a union is the sum."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.broadcast_to(np.asarray(seqs, np.int64), rows.shape).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64)) & _62_BITS


def _put_state(connection: apsw.Connection, identity: int, seq: int, live: int, gone: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO state VALUES(1, ?, ?, ?, ?)",
        (seq, live, gone, _state_checksum(identity, seq, live, gone)),
    )


def _state_checksum(identity: int, seq: int, live: int, gone: int) -> int:
    return zlib.crc32(b"%d %d %d %d" % (identity, seq, live, gone))
