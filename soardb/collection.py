"""Collection: points with vectors and payloads, durable, searchable, changeable.

    database.py -> [collection.py] -> points.py, writer.py (writes), reads.py, ask.py (reads)

The public face. Arguments are checked here, in points.py and in ask.py; writes go through the
writer's queue, reads run under the shared lock and fetch payloads from the row store afterwards.

Nothing here knows names of other collections.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from soardb import deadline
from soardb.arrays import as_int
from soardb.ask import ask
from soardb.budget import Budget
from soardb.compaction import compact, give_model, take_model
from soardb.contents import Contents
from soardb.core import Core
from soardb.curve import QUERIES, Curve
from soardb.errors import (
    Closed,
    InvalidArgument,
    OutOfMemory,
    ReadOnly,
    SoarError,
)
from soardb.filters import Expr, as_filter, to_json
from soardb.hits import HitColumns, Point
from soardb.kernels.layout import I64, Metric
from soardb.loading import Begin, Loaded, Part, loaded
from soardb.once import once
from soardb.options import (
    ACKS,
    MAX_PAGE,
    MAX_WINDOW,
    Ack,
    Filter,
    Fusion,
    Mode,
    SearchOptions,
    as_mode,
    check_request_id,
)
from soardb.pages import Page, make_token, page_mark, read_token
from soardb.points import (
    Batch,
    Changes,
    Encoded,
    Payloads,
    as_batch,
    as_changes,
    as_columns,
    as_point_ids,
    encode,
    merged,
)
from soardb.reads import Reads, as_point
from soardb.schema import PointId, normalise
from soardb.search import Knobs, Planner, has_text_condition
from soardb.storage.rows import PointBatch
from soardb.tuning import tune
from soardb.writer import Configure, Delete, Job, Patch, Put, Writer

__all__ = ["MAX_PAGE", "Collection", "Filter", "Page"]

_STOP_S = 0.05  # how often one who waits for a build looks whether to go on
_WRITE_SHARE = 0.5  # of the memory limit; the other half is for builds, which make room again


class Collection:
    """Made by Database.create_collection and Database.get_collection; safe for many threads."""

    def __init__(self, core: Core, budget: Budget, wake: Callable[[], None]) -> None:
        self._core = core
        self._budget = budget
        self._wake = wake
        self._writer = Writer(core)
        self._reads = Reads(core, self._writer, budget, wake)

    # ------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The name in the database."""
        return self._core.settings.name

    @property
    def id(self) -> str:
        """Of this collection and no other, whatever it was or will be called."""
        return self._core.folder.name

    def rename_to(self, name: str) -> None:
        """Take the name that the catalog gives; Database.rename_collection does it all."""
        settings = replace(self._core.settings, name=name)
        if settings == self._core.settings:
            return
        if self._core.is_read_only:
            self._core.settings = settings
        else:
            self._write(Configure(settings), "fsync")

    @property
    def d(self) -> int:
        """Dimension of the vectors."""
        return self._core.settings.d

    @property
    def metric(self) -> Metric:
        """What "closer" means."""
        return self._core.settings.metric

    @property
    def schema(self) -> dict[str, str]:
        """The declared payload fields."""
        return self._core.settings.schema.to_json()

    @property
    def ttl(self) -> str | None:
        """The declared datetime field after which a point is gone, or None."""
        return self._core.settings.ttl

    @property
    def shards(self) -> int:
        """How many shards hold its points: 1. Over a cluster, see ShardedCollection, it is more."""
        return 1

    @property
    def seq(self) -> int:
        """The number of the last write that a read now would see; it grows with every write.

        Beside a writing process that of its last commit.
        """
        self._reads.ready()
        with self._core.lock.read():
            return self._core.contents.seq

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, dim={self.d}, metric={self.metric!r})"

    # ------------------------------------------------------------------ writing

    def upsert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
    ) -> int:
        """Store points, in the place of those that have their ids. Whole or not at all.

        ids       (n,) int64 or strings; or one table with the columns id, vector and payload
                  columns (Arrow, Polars, pandas), and nothing else
        vectors   (n, d) real numbers; stored as float32
        payloads  n dicts, or a dict of columns, or a table
        ack       "fsync": flushed to disk; "logged": survives the process; "memory": queued
        request_id  1..128 printable characters: the same call under the same id within ten
                  minutes writes nothing and gets the same answer, after a crash too

        Of several points with one id the last one counts. Returns how many points were stored
        (0 for ack="memory", which does not wait). Errors: InvalidArgument, OutOfSpace, WriteFailed,
        ReadOnly, OutOfMemory, Closed.
        """
        future = self.begin_put(ids, vectors, payloads, "upsert", ack=ack, request_id=request_id)
        return 0 if ack == "memory" else future.result()

    def insert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
    ) -> int:
        """Like upsert, but refuses the whole call where an id is there (AlreadyExists)."""
        mode = as_mode("insert", ack)
        return self.begin_put(ids, vectors, payloads, mode, ack=ack, request_id=request_id).result()

    def ingest(
        self,
        batches: Iterable[Any],
        mode: Mode = "upsert",
        ack: Ack = "fsync",
        *,
        window: int | None = None,
        resume: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Write many batches, one after the other; how many points in all.

        batches         (ids, vectors), (ids, vectors, payloads) or tables
        mode            "upsert", or "insert", which ends at a batch with an id that is there
        progress        called with how many points are written so far
        window, resume  for a server: batches under way at once, and whether a stream that breaks
                        is taken up again

        After an error the batches before it are written.
        """
        chosen = as_mode(mode, ack)
        self._check_writable(ack)
        if window is not None:
            as_int(window, "window", 1, MAX_WINDOW)
        done = 0
        for batch in batches:
            done += self.begin_put(*as_columns(batch), chosen, ack=ack).result()
            if progress is not None:
                progress(done)
        return done

    def begin_put(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        mode: Mode = "upsert",
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
    ) -> Future[int]:
        """Queue an upsert or insert; the future has its answer once it is acknowledged.

        Calls are written in their order, those that wait together in one transaction. The arrays
        must not change before the answer is there. Errors in the arguments come at once.
        """
        self._check_writable(ack, request_id)
        s = self._core.settings
        batch = as_batch(ids, vectors, payloads, s.d, s.metric)
        encoded = encode(batch.payloads, len(batch.ids), s.schema, s.ttl)
        if not batch.ids:
            return _answered(0)
        if ack == "memory":  # the caller may change its array as soon as this returns
            batch = replace(batch, vectors=batch.vectors.copy())
        return self._queued(batch, encoded, mode, ack, lambda job: once(job, request_id))

    def _queued(
        self, batch: Batch, encoded: Encoded, mode: Mode, ack: Ack, guard: Callable[[Put], Job]
    ) -> Future[int]:
        """Queue a put of checked points, once there is memory for it."""
        size = 2 * batch.vectors.nbytes + sum(map(len, encoded.payloads)) + 300 * len(batch.ids)
        if self._budget.limit is not None:
            size += self._core.contents.index.growth(len(batch.ids))
        job = Put(
            batch.ids,
            batch.vectors,
            encoded.payloads,
            encoded.values,
            encoded.texts,
            encoded.expires,
            mode,
        )
        with contextlib.ExitStack() as held:
            held.enter_context(self._room_for(size, f"writing {len(batch.ids):,} points"))
            future = self._writer.enqueue(guard(job), ack)
            kept = held.pop_all()
        future.add_done_callback(lambda _: kept.close())
        self._wake()
        return future

    @contextlib.contextmanager
    def _room_for(self, size: int, purpose: str) -> Iterator[None]:
        """Memory for the time of the block; where there is none, the index is compacted first.

        That moves what has come since the last generation out of the heap into a mapped file.
        """
        if self._budget.limit is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._budget.reserve(size, purpose, share=_WRITE_SHARE))
            except OutOfMemory:
                self._writer.settle()
                with self._core.lock.read():
                    tail = self._core.contents.table.tail
                if not tail:
                    raise
                with self._core.building:
                    compact(self._core, self._writer, self._budget, retrain=False)
                stack.enter_context(self._budget.reserve(size, purpose, share=_WRITE_SHARE))
            yield

    # ------------------------------------------------------------------ loading

    def _begin_load(self, load: str, model: bytes | None) -> None:
        """Take part in a load, of this collection's first points: a cluster's doing, not a user's.

        load   names it, and is remembered with the points
        model  what builds are made with until the load ends, as keep_model() wrote it; None: what
               they learn themselves

        Asked for again it does nothing. Errors: AlreadyExists where there are points, or another
        load was begun, InvalidArgument for a model of another collection.
        """
        self._check_writable("fsync")
        self._writer.submit(Begin(load), "fsync")
        if model is not None:
            give_model(self._core, model)
        self._core.await_more()

    def _load_part(
        self,
        load: str,
        number: int,
        ids: Any,
        vectors: npt.ArrayLike,
        payloads: Payloads = None,
    ) -> int:
        """Insert one part of a load, once for good; how many points that were (0 if it is in).

        Durable after _end_load(). Errors: AlreadyExists for an id that another part brought,
        InvalidArgument where the load was not begun.
        """
        self._check_writable("logged")
        s = self._core.settings
        batch = as_batch(ids, vectors, payloads, s.d, s.metric)
        encoded = encode(batch.payloads, len(batch.ids), s.schema, s.ttl)
        self._core.await_more()
        guard = partial(Part, load=load, number=number)
        return self._queued(batch, encoded, "insert", "logged", guard).result()

    def _loaded(self) -> Loaded | None:
        """The load that brought the first points, and which parts are in; None: there was none."""
        self._reads.check_open()
        return loaded(self._core.store)

    def _end_load(self, stop: threading.Event | None = None) -> None:
        """Build the index of what was loaded. Asked for again it does nothing. Errors: Closed."""
        with self._core.lock.read():
            is_built = not self._core.contents.table.tail
        self._core.await_no_more()
        if not is_built:
            self.compact(stop=stop)
        take_model(self._core)

    # ------------------------------------------------------------------ changing and deleting

    def update_payload(
        self,
        payload: Changes,
        *,
        ids: Any = None,
        filter: Filter = None,
        replace: bool = False,
        ack: Ack = "fsync",
        request_id: str | None = None,
    ) -> int:
        """Change payloads of ids, which must be there, or of all that match a filter.

        payload  a dict for all of them; or a list of n dicts, one for each of n ids

        Members of a dict replace those of the same name, None removes one; replace=True leaves
        nothing else. request_id: see upsert. Returns how many points changed. Errors: NotFound for
        an unknown id.
        """
        self._check_writable(ack, request_id)
        s = self._core.settings
        changes = as_changes(payload, ids, s.schema, s.ttl)
        chosen, where = self._chosen(ids, filter)
        for_all = isinstance(payload, Mapping)
        job = Patch(
            merge=lambda old, i: merged(old, changes[0 if for_all else i], replace),
            encode=lambda rows: encode(rows, len(rows), s.schema, s.ttl),
            ids=chosen,
            where=where,
        )
        said: Any = None
        if request_id:
            plain = list(map(normalise, changes))
            said = [plain[0] if for_all else plain, replace, self._said(filter)]
        return int(self._write(once(job, request_id, said), ack) or 0)

    def delete(
        self,
        ids: Any = None,
        *,
        filter: Filter = None,
        ack: Ack = "fsync",
        request_id: str | None = None,
    ) -> int:
        """Delete points by id, unknown ones being ignored, or all that match a filter.

        request_id: see upsert. Returns how many were deleted (0 for ack="memory", which does not
        wait).
        """
        self._check_writable(ack, request_id)
        chosen, where = self._chosen(ids, filter)
        said = self._said(filter) if request_id else None
        job = once(Delete(ids=chosen, where=where), request_id, said)
        return int(self._write(job, ack) or 0)

    def flush(self) -> None:
        """Wait for writes acknowledged from memory, and raise what went wrong with one of them."""
        self._reads.check_open()
        self._writer.flush()

    def _chosen(
        self, ids: Any, filter: Filter
    ) -> tuple[list[PointId] | None, Callable[[Contents], I64] | None]:
        if (ids is None) == (filter is None):
            raise InvalidArgument("expected either ids or a filter, got both or neither")
        if ids is not None:
            plain = as_point_ids(ids)
            return list(dict.fromkeys(plain)), None
        where = as_filter(filter, self._core.settings.schema)

        def matches(contents: Contents) -> I64:
            return Planner(contents, Knobs(), where, self._reads.text_match(contents)).matches()

        return None, matches

    def _said(self, filter: Filter) -> Any:
        """A filter as JSON values."""
        where = as_filter(filter, self._core.settings.schema)
        return None if where is None else to_json(where)

    def _check_writable(self, ack: str, request_id: str | None = None) -> None:
        self._reads.check_open()
        deadline.check()
        if self._core.is_read_only:
            raise ReadOnly(f"collection {self.name!r} was opened with read_only=True")
        if ack not in ACKS:
            raise InvalidArgument(f"expected ack one of {', '.join(ACKS)}, got {ack!r}")
        check_request_id(request_id, ack)

    def _write(self, job: Any, ack: Ack) -> Any:
        answer = self._writer.submit(job, ack)
        self._wake()
        return answer

    # ------------------------------------------------------------------ reading by id and in order

    def get(
        self, ids: Any, *, with_vectors: bool = False, timeout: float | None = None
    ) -> list[Point | None]:
        """The points of ids, in order; None where there is none.

        timeout: seconds after which it is given up (TimedOut).
        """
        with deadline.within(timeout):
            return self._reads.points(as_point_ids(ids), with_vectors)

    def scroll(
        self,
        *,
        filter: Filter = None,
        page_size: int = 100,
        page_token: str | None = None,
        with_payload: bool = True,
        with_vectors: bool = False,
        timeout: float | None = None,
    ) -> Page:
        """Points in a fixed order of their ids, a page at a time.

        page_token is that of the page before; it stays good while points are written: each point
        that is there all along comes exactly once. Errors: InvalidArgument for a token of another
        collection or filter, TimedOut after `timeout` seconds.
        """
        page_size = as_int(page_size, "page_size", 1, MAX_PAGE)
        where = as_filter(filter, self._core.settings.schema)
        mark = page_mark(self._core.folder.name, where)
        after = None if page_token is None else read_token(page_token, mark)

        def read(contents: Contents) -> tuple[I64, I64]:
            planner = Planner(contents, Knobs(), where, self._reads.text_match(contents))
            mask = None
            if where is not None:
                mask = np.zeros(contents.table.n, bool)
                mask[planner.matches()] = True
            positions = contents.table.page(after, page_size + 1, mask)
            return positions, contents.table.rows_at(positions[:page_size])

        with deadline.within(timeout):
            (positions, _), stored = self._reads.fetched(
                read, lambda r: r[1], with_vectors, has_text_condition(where)
            )
        points = [as_point(point, with_vectors, with_payload) for point in stored]
        is_last = len(positions) <= page_size
        token = None if is_last or not points else make_token(points[-1].id, mark)
        return Page(points, token)

    def batches(self, size: int = 4096) -> Iterator[PointBatch]:
        """Every point as of one moment, in the order of writing, `size` at a time, as stored.

        Writes go on meanwhile; the WAL cannot shrink until the last batch was taken. Points that
        have expired are left out.
        """
        self._reads.ready()
        now = int(time.time() * 1e6)
        for batch in self._core.store.consistent(size):
            deadline.check()
            keep = [e is None or e > now for e in batch.expires]
            yield batch if all(keep) else batch.take(keep)

    @property
    def id_kind(self) -> str | None:
        """ "int" or "str", as the first write had it; None before that."""
        return self._reads.ready().table.kind

    def count(self, filter: Filter = None, *, timeout: float | None = None) -> int:
        """How many points there are, or match; exact. Errors: TimedOut after `timeout` seconds."""
        where = as_filter(filter, self._core.settings.schema)
        with deadline.within(timeout):
            self._reads.ready()
            return self._count(where)

    def _count(self, where: Expr | None) -> int:
        with self._reads.view(has_text_condition(where)) as contents:
            return Planner(contents, Knobs(), where, self._reads.text_match(contents)).count()

    # ------------------------------------------------------------------ searching

    def search(
        self,
        query: npt.ArrayLike | None = None,
        limit: int = 10,
        *,
        k: int | None = None,
        id: PointId | None = None,
        text: str | None = None,
        text_fields: Sequence[str] | None = None,
        fusion: Fusion = "rrf",
        weights: tuple[float, float] = (1.0, 1.0),
        filter: Filter = None,
        nprobe: int | None = None,
        rerank: int | None = None,
        target_recall: float | None = None,
        exact: bool = False,
        threads: int = 1,
        score_threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 3,
        with_payload: bool = True,
        with_vectors: bool = False,
        explain: bool = False,
        merge_recall: float | None = None,
        measure_merge: bool = False,
        allow_partial: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """The closest points to a query: Hits, or a list of Hits for (nq, d) queries.

        query            (d,) or (nq, d) real numbers
        id               in place of a query: the vector of this point, which is left out
        text             words; alone they rank by BM25, with a query the two rankings are fused,
                         by `fusion` "rrf" or "weighted" with `weights` of (vector, text)
        text_fields      declared text fields to look in; all of them unless told
        limit, k         results wanted, at most 10,000; fewer come only where fewer match
        filter           F(...) expression, JSON or SQL-like string
        target_recall    share of the true results to find, by what was measured here; 0.95 where
                         nothing is said. Where no setting reaches it, every point is scored
        nprobe, rerank   in its place: lists visited, candidates scored again
        exact            in its place: score every matching point
        score_threshold  leave out scores below
        group_by         field: `limit` groups of at most `group_size` hits each
        explain          say how it was done in `plan`
        merge_recall, measure_merge, allow_partial  of no effect here: for a collection over shards,
                         whose ShardedCollection.search says what they mean
        timeout          seconds after which it is given up (TimedOut)

        Scores are exact for the ids returned; equal scores come in a fixed order.
        """
        if query is not None and not isinstance(query, np.ndarray):
            query = np.asarray(query)
        found = ask(
            self._reads,
            query,
            limit,
            k=k,
            id=id,
            text=text,
            text_fields=text_fields,
            fusion=fusion,
            weights=weights,
            filter=filter,
            nprobe=nprobe,
            rerank=rerank,
            target_recall=target_recall,
            exact=exact,
            threads=threads,
            score_threshold=score_threshold,
            group_by=group_by,
            group_size=group_size,
            with_payload=with_payload,
            with_vectors=with_vectors,
            explain=explain,
            timeout=timeout,
            merge_recall=merge_recall,
        )
        is_one = query is None or query.ndim == 1 or text is not None or group_by is not None
        return found.split()[0] if is_one else found.split()

    def search_columns(
        self,
        query: npt.ArrayLike | None = None,
        limit: int = 10,
        **options: Unpack[SearchOptions],
    ) -> HitColumns:
        """What search() finds, as flat columns, and payloads as the JSON that is stored.

        Takes the arguments of search(). For those who pass results on and need no object a hit.
        """
        return ask(self._reads, query, limit, **options)

    # ------------------------------------------------------------------ care

    def compact(
        self,
        *,
        retrain: bool = False,
        progress: Callable[[str, float], None] = lambda stage, share: None,
        stop: threading.Event | None = None,
    ) -> None:
        """Build the next generation of the index now, in this thread; reads and writes go on.

        The background worker does this by itself when it is due. retrain: learn partitions anew.
        stop: once it is set, the build ends (Closed) and the collection stays as it is.
        """
        self._check_writable("fsync")
        self._writer.settle()
        stops = [self._core.stop_build] if stop is None else [self._core.stop_build, stop]
        with self._only_build(stops):
            try:
                compact(
                    self._core,
                    self._writer,
                    self._budget,
                    retrain=retrain,
                    progress=progress,
                    stop=stops,
                )
            except (SoarError, OSError):
                self._reads.check_open()  # closed or dropped meanwhile: that is why
                raise

    def tune(
        self,
        k: int = 10,
        *,
        queries: int = QUERIES,
        nprobes: Sequence[int] | None = None,
        reranks: Sequence[int] | None = None,
        seed: int = 0,
        progress: Callable[[str, float], None] = lambda stage, share: None,
        stop: threading.Event | None = None,
    ) -> Curve:
        """Measure what recall@k costs here: recall and median latency for settings of a search.

        queries           how many are drawn from the stored points, at most
        nprobes, reranks  measure these settings alone, for the eye; chosen unless given
        stop              once it is set, the measuring ends (Closed)

        Without settings every curve is measured anew, and searches choose by them from then on;
        they are kept with the index unless the collection was opened to read. Costs `queries`
        exact searches and some thirty times as many others. Without partitions the curve is one
        exact point. Errors: InvalidArgument for k points or fewer.
        """
        return tune(self._reads, k, queries, nprobes, reranks, seed, progress, stop)

    def keep_queries(self, count: int) -> None:
        """Keep the last `count` queries in memory, and measure recall by them; 0: none, again.

        Curves are then of what is asked here, not of points (see docs/recall.md), once 250 queries
        are there: at the next build, tune() or drift. Nothing of them is written to disk. Errors:
        InvalidArgument.
        """
        count = as_int(count, "count", 0, 100_000)
        self._reads.check_open()
        self._core.asked = deque(self._core.asked or (), maxlen=count) if count else None

    @contextlib.contextmanager
    def _only_build(self, stops: Sequence[threading.Event]) -> Iterator[None]:
        """The right to build, for the time of the block; a build under way is waited for."""
        building = self._core.building
        while not building.acquire(timeout=_STOP_S):
            if any(event.is_set() for event in stops):
                self._reads.check_open()
                raise Closed("the build was stopped before it began")
        try:
            yield
        finally:
            building.release()

    def stats(self) -> dict[str, Any]:
        """Counts and bytes by part: JSON values."""
        self._reads.ready()
        with self._core.lock.read():
            contents = self._core.contents
            table, index = contents.table, contents.index
            memory = contents.memory()
            return {
                "points": table.live,
                "struck": table.n - table.live,
                "since_generation": table.tail,
                "seq": contents.seq,
                "nlist": index.nlist,
                "is_exact": index.model is None,
                "damage": self._core.damage,
                "memory_bytes": memory | {"row_cache": self._core.store.cache_bytes()},
                "disk_bytes": {
                    "rows": self._core.store.file_bytes(),
                    "index": _folder_bytes(self._core.index_folder),
                },
            }

    def close(self, how: str = "closed") -> None:
        """Finish what is queued and let go of the files. Database.close() does it for all."""
        if self._reads.closed:
            return
        self._writer.close()
        self._reads.closed = how
        self._core.close()


def _answered(count: int) -> Future[int]:
    """A future that has its answer."""
    future: Future[int] = Future()
    future.set_result(count)
    return future


def _folder_bytes(folder: Path) -> int:
    """Of the files that are there; a build or a drop may take some away meanwhile."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for file in list(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size
    return total
