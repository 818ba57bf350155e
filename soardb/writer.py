"""The writer of a collection: one thread that takes jobs from a queue, a group at a time.

    collection.py, compaction.py -> [writer.py] -> core.py, storage/rows.py

Callers wait for their job; those that wait together share one transaction and one flush (group
commit). A job is first checked against what the group has done so far, so a refused one leaves
the others alone; then all are committed, then the contents in memory change, then the callers
hear. So what is acknowledged is durable as asked and visible to the next search.

Levels of acknowledgement:
    fsync    flushed to the disk: survives a power cut
    logged   handed to the system: survives the death of the process
    memory   taken into the queue; the next read waits for it, a failure shows at flush()

Nothing here parses what users pass: jobs hold checked values.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from soardb import deadline
from soardb.contents import Contents
from soardb.core import Core, Settings
from soardb.errors import AlreadyExists, Closed, CorruptStorage, InvalidArgument, NotFound
from soardb.index.live import Coded
from soardb.kernels.layout import F32, I64
from soardb.options import ACKS, Ack
from soardb.points import Encoded
from soardb.schema import PointId, decode_payload
from soardb.storage.faults import reach
from soardb.table import id_kind_of

__all__ = [
    "ACKS",
    "Ack",
    "Configure",
    "Delete",
    "Effect",
    "Group",
    "Job",
    "Patch",
    "Put",
    "Writer",
]


_GROUP_ROWS = 20_000
_QUEUE_BYTES = 128 * 2**20

_log = logging.getLogger("soardb")


@dataclass(slots=True)
class Effect:
    """What a committed job changes in memory: rows struck, then rows that came."""

    struck: I64
    rows: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    ids: Sequence[PointId] = ()
    coded: Coded | None = None
    values: dict[str, list[Any]] = field(default_factory=dict)
    contents: Contents | None = None
    """New contents that take the place of the old ones, for the start of a generation."""
    after: Callable[[], None] | None = None


class Group:
    """The open transaction: the core, and which row each id has by what the group did so far."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.store, self.contents = core.store, core.current()
        self._rows: dict[PointId, int] = {}
        self.id_kind = self.contents.table.kind

    def find(self, ids: Sequence[PointId]) -> I64:
        """Live row of each id, -1 where it has none. Errors: InvalidArgument for another kind."""
        if len(ids) and self.id_kind not in (None, id_kind_of(ids[0])):
            raise InvalidArgument(
                f"expected {'integer' if self.id_kind == 'int' else 'string'} ids, as the "
                f"collection holds, got {ids[0]!r}"
            )
        table = self.contents.table
        positions = table.find(ids)
        rows = np.full(len(ids), -1, np.int64)
        held = positions >= 0
        rows[held] = table.rows_at(positions[held])
        if self._rows:
            for i, point_id in enumerate(ids):
                rows[i] = self._rows.get(point_id, rows[i])
        return rows

    def note(self, ids: Sequence[PointId], rows: Sequence[int]) -> None:
        """Remember the rows that ids have now; -1 for none."""
        self._rows.update(zip(ids, rows, strict=True))

    def strike(self, rows: I64) -> None:
        """Delete live rows from the store."""
        self.store.delete(rows, has_text=bool(self.core.settings.text_fields))

    def code(self, vectors: F32) -> Coded:
        """Vectors ready for the index as it is now."""
        return self.contents.index.code(vectors)


class Job(Protocol):
    """One write. `alone`: it reads the contents, so it has a group of its own."""

    @property
    def alone(self) -> bool:
        """Whether it may share a transaction."""
        ...

    def size(self) -> tuple[int, int]:
        """Rows and bytes, for the bounds of group and queue."""
        ...

    def run(self, group: Group) -> tuple[Effect, Any]:
        """Check, write into the open transaction; returns the effect and the caller's answer.

        May raise for the caller alone only before it has written anything.
        """
        ...


@dataclass(slots=True)
class Put:
    """Points to store. mode: "upsert" replaces what an id has, "insert" refuses it."""

    ids: Sequence[PointId]
    vectors: F32
    payloads: Sequence[bytes]
    values: dict[str, list[Any]]
    texts: list[list[str | None]]
    expires: Sequence[int | None] | None
    mode: Literal["upsert", "insert"] = "upsert"
    alone: bool = False

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return len(self.ids), self.vectors.nbytes + sum(map(len, self.payloads))

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run; answers with the number of points."""
        old = group.find(self.ids)
        if self.mode == "insert" and (old >= 0).any():
            held = self.ids[int((old >= 0).argmax())]
            raise AlreadyExists(
                f"expected new ids, {held!r} is in the collection; nothing of this call was "
                "written. Use upsert to replace"
            )
        coded = group.code(self.vectors)
        if group.id_kind is None:
            group.id_kind = id_kind_of(self.ids[0])
            group.store.set("id_kind", group.id_kind)
        struck = old[old >= 0]
        group.strike(struck)
        rows = group.store.insert(self.ids, self.payloads, self.vectors, self.expires, self.texts)
        group.note(self.ids, rows.tolist())
        return Effect(struck, rows, self.ids, coded, self.values), len(self.ids)


@dataclass(slots=True)
class Delete:
    """Points to delete, by id, or by row (what expired), or those that `where` finds."""

    ids: Sequence[PointId] | None = None
    rows: I64 | None = None
    where: Callable[[Contents], I64] | None = None

    @property
    def alone(self) -> bool:
        """Whether it reads the contents."""
        return self.ids is None

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        n = len(self.ids) if self.ids is not None else 1
        return n, 16 * n

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run; answers with the number of points deleted."""
        if self.ids is not None:
            found = group.find(self.ids)
            struck = found[found >= 0]
            ids: Sequence[PointId] = [self.ids[i] for i in np.flatnonzero(found >= 0).tolist()]
        elif self.where is not None:
            positions = self.where(group.contents)
            struck, ids = group.contents.table.rows_at(positions), ()
        else:
            assert self.rows is not None
            still = group.store.fetch(self.rows, in_transaction=True)
            struck, ids = np.array(sorted(still), np.int64), ()
        group.strike(struck)
        group.note(ids, [-1] * len(ids))
        return Effect(struck), len(struck)


@dataclass(slots=True)
class Patch:
    """Payloads to change: of ids, which must be there, or of what `where` finds.

    merge takes a point's payload and its place among the ids, and gives its new one; encode gives
    what is stored of it.
    """

    merge: Callable[[dict[str, Any], int], dict[str, Any]]
    encode: Callable[[Sequence[dict[str, Any]]], Encoded]
    ids: Sequence[PointId] | None = None
    where: Callable[[Contents], I64] | None = None

    @property
    def alone(self) -> bool:
        """Whether it reads the contents."""
        return self.ids is None

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        n = len(self.ids) if self.ids is not None else _GROUP_ROWS
        return n, 1024 * n

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run; answers with the number of points changed."""
        if self.ids is not None:
            old = group.find(self.ids)
            if (old < 0).any():
                raise NotFound(
                    f"expected ids of the collection, {self.ids[int((old < 0).argmax())]!r} is not "
                    "in it; nothing of this call was written"
                )
        else:
            assert self.where is not None
            old = group.contents.table.rows_at(self.where(group.contents))
        points = group.store.fetch(old, with_vectors=True, in_transaction=True)
        if len(points) != len(old):
            raise CorruptStorage(f"{group.store.path}: rows of live points are missing")
        if not len(old):
            return Effect(old), 0
        chosen = [points[row] for row in old.tolist()]
        encoded = self.encode(
            [self.merge(decode_payload(p.payload), i) for i, p in enumerate(chosen)]
        )
        vectors = np.stack([p.vector for p in chosen if p.vector is not None])
        ids = [p.id for p in chosen]
        coded = group.code(vectors)
        group.strike(old)
        rows = group.store.insert(ids, encoded.payloads, vectors, encoded.expires, encoded.texts)
        group.note(ids, rows.tolist())
        return Effect(old, rows, ids, coded, encoded.values), len(old)


@dataclass(slots=True)
class Configure:
    """Other settings for the collection: its name."""

    settings: Settings
    alone: bool = True

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return 1, 0

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run."""
        group.store.set("collection", self.settings.to_json())

        def after() -> None:
            group.core.settings = self.settings

        return Effect(np.empty(0, np.int64), after=after), None


@dataclass(slots=True)
class _Ticket:
    job: Job
    durable: bool
    future: Future[Any]
    rows: int
    bytes: int


class Writer:
    """The thread, started at the first job. submit() may be called from any thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._condition = threading.Condition()
        self._queue: deque[_Ticket] = deque()
        self._queued_bytes = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._unsettled: deque[Future[Any]] = deque()  # acknowledged from memory
        self._failure: BaseException | None = None
        self._pid = os.getpid()

    def submit(self, job: Job, ack: Ack = "fsync") -> Any:
        """Do a job; returns its answer once it is acknowledged at that level (memory: None).

        The limit of the call counts until the job is queued; from then on it runs to its end.
        """
        future = self.enqueue(job, ack)
        return None if ack == "memory" else future.result()

    def enqueue(self, job: Job, ack: Ack = "fsync") -> Future[Any]:
        """Queue a job; its answer comes in the future, once it is committed. Waits for room."""
        if os.getpid() != self._pid:
            raise Closed(
                "the database was opened before this process was forked; open it anew here"
            )
        deadline.check()
        rows, size = job.size()
        ticket = _Ticket(job, ack == "fsync", Future(), rows, size)
        with self._condition:
            while self._queued_bytes > _QUEUE_BYTES and not self._closing:
                self._condition.wait(deadline.POLL_S if deadline.is_set() else None)
                deadline.check()
            if self._closing:
                raise Closed("the collection was closed")
            self._queue.append(ticket)
            self._queued_bytes += size
            if ack == "memory":
                self._unsettled.append(ticket.future)
            if self._thread is None:
                name = f"soardb-writer-{self._core.settings.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return ticket.future

    @property
    def queued_bytes(self) -> int:
        """Bytes of the writes that wait."""
        return self._queued_bytes

    @property
    def is_unsettled(self) -> bool:
        """Whether a write was acknowledged from memory and may not be done."""
        return bool(self._unsettled)

    def settle(self) -> None:
        """Wait for every write that was acknowledged from memory; a read begins with this."""
        while self._unsettled:
            try:
                future = self._unsettled[0]
            except IndexError:
                return
            while deadline.is_set() and not wait([future], deadline.POLL_S).done:
                deadline.check()
            error = future.exception()
            if error is not None and self._failure is None:
                self._failure = error
            with self._condition:
                if self._unsettled and self._unsettled[0] is future:
                    self._unsettled.popleft()

    def flush(self) -> None:
        """Wait for every write and raise what went wrong with one acknowledged from memory."""
        self.settle()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()
            self.settle()
            if self._failure is not None:
                text = "%s: a write acknowledged from memory failed, and nobody called flush(): %s"
                _log.warning(text, self._core.folder, self._failure)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            group = self._take()
            if not group:
                return
            try:
                self._commit(group)
            except BaseException as error:  # noqa: BLE001  the callers are told; the thread goes on
                for ticket in group:
                    if not ticket.future.done():
                        ticket.future.set_exception(error)
            self._checkpoint()

    def _take(self) -> list[_Ticket]:
        """The next group; empty when closing and nothing is left."""
        with self._condition:
            while not self._queue and not self._closing:
                self._condition.wait()
            group: list[_Ticket] = []
            rows = 0
            while self._queue and rows < _GROUP_ROWS:
                is_alone = self._queue[0].job.alone
                if group and is_alone:
                    break
                ticket = self._queue.popleft()
                group.append(ticket)
                rows += ticket.rows
                self._queued_bytes -= ticket.bytes
                if is_alone:
                    break
            self._condition.notify_all()
            return group

    def _commit(self, tickets: list[_Ticket]) -> None:
        core, store = self._core, self._core.store
        done: list[tuple[_Ticket, Effect, Any]] = []
        if core.is_due():  # an expired id is free, its point not there to be changed
            core.hide_expired()
        store.begin(durable=any(ticket.durable for ticket in tickets))
        try:
            group = Group(core)
            for ticket in tickets:
                try:
                    effect, answer = ticket.job.run(group)
                except (InvalidArgument, AlreadyExists, NotFound) as error:  # before any write
                    ticket.future.set_exception(error)
                    continue
                done.append((ticket, effect, answer))
        except BaseException as error:
            store.roll_back(error)
            raise
        with core.changing:
            try:
                store.commit()
            except BaseException as error:
                store.roll_back(error)
                raise
            self._apply(group, [effect for _, effect, _ in done])
        reach("write.applied")
        for ticket, effect, answer in done:
            if effect.after:
                effect.after()
            ticket.future.set_result(answer)

    def _apply(self, group: Group, effects: list[Effect]) -> None:
        """Change the contents in memory as the committed transaction says."""
        core = self._core
        try:
            with core.lock.write():
                contents = core.contents
                if contents is not group.contents:
                    # Replaced meanwhile, because its file was damaged: the rows have it all.
                    contents.catch_up(core.store, core.store.seq)
                    return
                for effect in effects:
                    if effect.contents is not None:
                        core.strike_expired(effect.contents)
                        core.contents = contents = effect.contents
                    contents.strike(effect.struck)
                    if effect.coded is not None:
                        contents.append(effect.rows, effect.ids, effect.coded, effect.values)
                contents.seq = core.store.seq
                self._note_expiry(effects)
        except BaseException as error:  # noqa: BLE001
            # The transaction stands. What is in memory may be half changed: make it anew.
            _log.warning("%s: %s; reading the contents again", core.folder, error)
            reason = f"a change in memory failed: {error}"
            try:
                core.recover(core.contents, reason)
            except BaseException as second:
                core.unusable = f"{reason}, and reading the contents again too: {second}"
                raise

    def _note_expiry(self, effects: list[Effect]) -> None:
        ttl = self._core.settings.ttl
        if ttl is None:
            return
        times = [t for effect in effects for t in effect.values.get(ttl, ()) if t is not None]
        if times:
            soonest = min(times)
            if self._core.next_expiry is None or soonest < self._core.next_expiry:
                self._core.next_expiry = soonest

    def _checkpoint(self) -> None:
        try:
            self._core.store.checkpoint()
        except OSError as error:
            _log.warning("%s: the WAL could not be folded in yet: %s", self._core.folder, error)
