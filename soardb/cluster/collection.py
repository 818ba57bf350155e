"""A collection over shards: the methods of an embedded one, on actors of a Ray cluster.

    cluster.py -> [collection.py] -> placement.py, calls.py, searching.py

Arguments are checked here by the functions that check them in the engine, so a wrong call fails in
the same words before anything is sent. A point is on the shard that the hash of its id names; a
call goes to each shard that it concerns in one message.

A write is whole on each shard. What can be refused (an id that insert finds there, one that
update_payload does not find) is looked for first, so it is refused before anything is written; a
shard that fails half-way leaves the others' parts written, and the same call under the same request
id completes it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from soardb import deadline
from soardb.arrays import as_int
from soardb.cluster.calls import REGISTRAR, Actors, Answers, Job, expect_all, shard_name
from soardb.cluster.curves import joined_curve
from soardb.cluster.placement import order_of, pack_ids, rows_by_shard
from soardb.cluster.searching import Asked, Fan, asked_of
from soardb.cluster.totals import total
from soardb.core import Settings
from soardb.curve import QUERIES, Curve
from soardb.errors import Closed, InvalidArgument, NotFound, SoarError, TimedOut, Unavailable
from soardb.filters import as_filter, to_json
from soardb.hits import HitColumns, Point
from soardb.kernels.layout import F32, Metric
from soardb.options import (
    ACKS,
    MAX_LIMIT,
    MAX_PAGE,
    MAX_WINDOW,
    Ack,
    Filter,
    Fusion,
    Mode,
    SearchOptions,
    as_mode,
    as_settings,
    check_request_id,
)
from soardb.pages import Page, make_token, page_mark, read_token
from soardb.points import Changes, Payloads, as_batch, as_changes, as_columns, as_point_ids, encode
from soardb.schema import PointId, encode_payload
from soardb.table import id_kind_of

__all__ = ["Held", "PointBatch", "ShardedCollection", "Waits"]

_LOOK_S = 0.2  # how often one who waits for a build looks whether to go on


@dataclass(frozen=True, slots=True)
class PointBatch:
    """n points as columns: ids, payloads as JSON in UTF-8, and (n, d) float32 vectors."""

    ids: list[PointId]
    payloads: list[bytes]
    vectors: F32

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds for a call that says none."""

    read_s: float
    write_s: float


@dataclass(slots=True)
class Held:
    """What a driver knows of a collection, shared by its handles.

    id       its name on every shard, and of no other collection
    id_kind  as the catalog has it; None before the first write
    live     about how many points there are; None: not asked yet
    closed   how it was, or None
    """

    name: str
    id: str
    settings: Settings
    id_kind: str | None
    live: int | None = None
    closed: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    queue: ThreadPoolExecutor | None = field(default=None, repr=False)

    def check_open(self) -> None:
        """Closed where it was closed or dropped."""
        if self.closed:
            raise Closed(f"collection {self.name!r} was {self.closed}")


class ShardedCollection:
    """Made by Cluster.create_collection and Cluster.get_collection; safe for many threads.

    timeout: seconds for the whole call, in which shards that do not answer are asked again; 30 for
    reads and 60 for writes unless told. Errors of every method: TimedOut where a shard was too
    slow, Unavailable where one was not there, Closed.
    """

    def __init__(self, actors: Actors, shards: int, held: Held, waits: Waits) -> None:
        self._actors, self._shards, self._held, self._waits = actors, shards, held, waits

    # ------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The name in the database."""
        return self._held.name

    @property
    def id(self) -> str:
        """Of this collection and no other, whatever it was or will be called."""
        return self._held.id

    @property
    def shards(self) -> int:
        """How many shards hold its points."""
        return self._shards

    @property
    def d(self) -> int:
        """Dimension of the vectors."""
        return self._held.settings.d

    @property
    def metric(self) -> Metric:
        """What "closer" means."""
        return self._held.settings.metric

    @property
    def schema(self) -> dict[str, str]:
        """The declared payload fields."""
        return self._held.settings.schema.to_json()

    @property
    def ttl(self) -> str | None:
        """The declared datetime field after which a point is gone, or None."""
        return self._held.settings.ttl

    @property
    def id_kind(self) -> str | None:
        """ "int" or "str", as the first write had it; None before that."""
        if self._held.id_kind is None:
            self._held.check_open()
            job = Job("kind_of", (self.id,))
            self._held.id_kind = self._actors.one(REGISTRAR, job, self._waits.read_s)
        return self._held.id_kind

    @property
    def seq(self) -> int:
        """The sum of the numbers of the shards' last writes; it grows with every write."""
        return sum(seq for seq, _, _ in self._all(Job("describe", (self.id,)), None))

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"ShardedCollection({self.name!r}, dim={self.d}, shards={self.shards})"

    # ------------------------------------------------------------------ writing

    def upsert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Store points, in the place of those that have their ids.

        ids         (n,) int64 or strings; or one table with the columns id, vector and payload
                    columns (Arrow, Polars, pandas), and nothing else
        vectors     (n, d) real numbers; stored as float32
        payloads    n dicts, or a dict of columns, or a table
        ack         "fsync": flushed to disk; "logged": survives the shard's process; "memory":
                    queued there, and sent once only
        request_id  made for each call unless told; under it the write is done once on each shard,
                    however often it is sent within ten minutes

        Whole or not at all on each shard. Returns how many points were stored (0 for ack="memory",
        which does not wait). Errors: those of Collection.upsert.
        """
        return self._put(ids, vectors, payloads, "upsert", ack, request_id, timeout)

    def insert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Like upsert, but refuses the whole call where an id is there (AlreadyExists).

        Where another caller inserts one of the ids at the same moment, the shards that do not have
        it may have written their parts; the error says so.
        """
        return self._put(ids, vectors, payloads, "insert", ack, request_id, timeout)

    def _put(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None,
        payloads: Payloads,
        mode: Mode,
        ack: Ack,
        request_id: str | None,
        timeout: float | None,
    ) -> int:
        as_mode(mode, ack)
        self._check_write(ack, request_id)
        s = self._held.settings
        batch = as_batch(ids, vectors, payloads, s.d, s.metric)
        encoded = encode(batch.payloads, len(batch.ids), s.schema, s.ttl)
        if not batch.ids:
            return 0
        self._fix_kind(batch.ids[0])
        request = _request_id(request_id, ack)
        parts = rows_by_shard(batch.ids, self._shards)
        jobs = {}
        for shard, rows in parts.items():
            texts = None
            if batch.payloads is not None:
                texts = [encoded.payloads[row] for row in rows.tolist()]
            part = pack_ids(batch.ids, rows), batch.vectors[rows], texts
            jobs[shard] = Job("put", (self.id, *part, mode, ack, request), ack != "memory")
        first: set[int] = set()
        if mode == "insert":
            first = {shard for shard, held in self._there(batch.ids, timeout).items() if held}
        return self._written(jobs, first, request, timeout)

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

        Calls are written in their order, one after the other. The arrays must not change before the
        answer is there. Errors in the arguments come with the answer.
        """
        self._check_write(ack, request_id)
        with self._held.lock:
            if self._held.queue is None:
                self._held.queue = ThreadPoolExecutor(1, "soardb-put")
            queue = self._held.queue
        return queue.submit(self._put, ids, vectors, payloads, mode, ack, request_id, None)

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
        window, resume  for a server

        After an error the batches before it are written.
        """
        chosen = as_mode(mode, ack)
        self._check_write(ack, None)
        if window is not None:
            as_int(window, "window", 1, MAX_WINDOW)
        done = 0
        for batch in batches:
            done += self._put(*as_columns(batch), chosen, ack, None, None)
            if progress is not None:
                progress(done)
        return done

    def update_payload(
        self,
        payload: Changes,
        *,
        ids: Any = None,
        filter: Filter = None,
        replace: bool = False,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Change payloads of ids, which must be there, or of all that match a filter.

        payload  a dict for all of them; or a list of n dicts, one for each of n ids

        Members of a dict replace those of the same name, None removes one; replace=True leaves
        nothing else. Returns how many points changed. Errors: NotFound for an unknown id.
        """
        self._check_write(ack, request_id)
        s = self._held.settings
        changes = as_changes(payload, ids, s.schema, s.ttl)
        texts, request = list(map(encode_payload, changes)), _request_id(request_id, ack)
        for_all = isinstance(payload, Mapping)
        plain, where = self._chosen(ids, filter)
        first: set[int] = set()
        if plain:
            held = self._there(plain, timeout)
            parts = rows_by_shard(plain, self._shards)
            first = {shard for shard, rows in parts.items() if held[shard] < len(rows)}
        jobs = self._by_id_or_filter(
            plain,
            lambda part, rows: Job(
                "update_payload",
                (
                    self.id,
                    texts if for_all else [texts[row] for row in rows],
                    part,
                    where,
                    bool(replace),
                    ack,
                    request,
                ),
                ack != "memory",
            ),
        )
        return self._written(jobs, first, request, timeout)

    def delete(
        self,
        ids: Any = None,
        *,
        filter: Filter = None,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete points by id, unknown ones being ignored, or all that match a filter.

        Returns how many were deleted (0 for ack="memory", which does not wait).
        """
        self._check_write(ack, request_id)
        request = _request_id(request_id, ack)
        plain, where = self._chosen(ids, filter)
        jobs = self._by_id_or_filter(
            plain,
            lambda part, _: Job("delete", (self.id, part, where, ack, request), ack != "memory"),
        )
        return self._written(jobs, set(), request, timeout)

    def flush(self, *, timeout: float | None = None) -> None:
        """Wait for writes acknowledged from memory, and raise what went wrong with one of them."""
        wait = self._waits.write_s if timeout is None else timeout
        self._all(Job("flush", (self.id,), is_repeatable=False), wait)

    def _chosen(
        self, ids: Any, filter: Filter
    ) -> tuple[list[PointId] | None, dict[str, Any] | None]:
        """Distinct ids, of the collection's kind, or a filter as JSON values."""
        if (ids is None) == (filter is None):
            raise InvalidArgument("expected either ids or a filter, got both or neither")
        if ids is None:
            return None, self._where(filter)
        plain = list(dict.fromkeys(as_point_ids(ids)))
        if plain and self.id_kind is not None:
            _expect_kind(plain[0], self.id_kind)
        return plain, None

    def _where(self, filter: Filter) -> dict[str, Any] | None:
        where = as_filter(filter, self._held.settings.schema)
        return None if where is None else to_json(where)

    def _by_id_or_filter(
        self, ids: list[PointId] | None, job: Callable[[Any, list[int]], Job]
    ) -> dict[int, Job]:
        """job: of the ids of a shard and their places among all."""
        if ids is None:
            return dict.fromkeys(range(self._shards), job(None, []))
        parts = rows_by_shard(ids, self._shards)
        return {shard: job(pack_ids(ids, rows), rows.tolist()) for shard, rows in parts.items()}

    def _check_write(self, ack: str, request_id: object) -> None:
        self._held.check_open()
        deadline.check()
        if ack not in ACKS:
            raise InvalidArgument(f"expected ack one of {', '.join(ACKS)}, got {ack!r}")
        check_request_id(request_id, ack)

    def _fix_kind(self, point_id: PointId) -> None:
        """Let the first write decide what ids are, for all shards. Errors: InvalidArgument."""
        if self._held.id_kind is None:
            job = Job("fix_kind", (self.id, id_kind_of(point_id)))
            kind = self._actors.one(REGISTRAR, job, self._waits.write_s)
            if kind is None:
                self._held.closed = "dropped"
                self._held.check_open()
            self._held.id_kind = kind
        _expect_kind(point_id, self._held.id_kind or "")

    def _there(self, ids: Sequence[PointId], timeout: float | None) -> dict[int, int]:
        """How many of distinct ids are there, by shard."""
        jobs = {
            shard: Job("there", (self.id, pack_ids(ids, rows)))
            for shard, rows in rows_by_shard(ids, self._shards).items()
        }
        return self._each(jobs, self._waits.write_s if timeout is None else timeout)

    def _written(
        self, jobs: dict[int, Job], first: set[int], request: str | None, timeout: float | None
    ) -> int:
        """Do a write on all its shards; the sum of what they answer.

        first: those that will refuse, unless they remember the request: the others are asked once
        these have agreed.
        """
        wait = self._waits.write_s if timeout is None else timeout
        done: dict[str, int] = {}
        for some in (first, set(jobs) - first):
            named = {shard_name(shard): jobs[shard] for shard in sorted(some)}
            answers = self._actors.ask(named, wait)
            done |= answers.found
            if answers.refused or answers.missing:
                self._raise_written(answers, done, len(jobs), request, wait)
        return sum(done.values())

    def _raise_written(
        self, answers: Answers, done: dict[str, int], total: int, request: str | None, wait: float
    ) -> None:
        again = ""
        if request is not None:
            again = f" Make the same call again under request_id={request!r}: it is done once."
        if answers.refused:
            error = answers.refused[min(answers.refused)]
            self._check_dropped(error)
            if not done or not isinstance(error, SoarError):
                raise error
            raise type(error)(
                f"{error}. Of {total} shards {len(done)} have written their part: "
                f"{', '.join(sorted(done))}"
            )
        try:
            expect_all(answers, wait)
        except (TimedOut, Unavailable) as error:
            raise type(error)(
                f"{error}. Whether it was written there is not known.{again}"
            ) from None

    # ------------------------------------------------------------------ reading by id and in order

    def get(
        self, ids: Any, *, with_vectors: bool = False, timeout: float | None = None
    ) -> list[Point | None]:
        """The points of ids, in order; None where there is none."""
        plain = as_point_ids(ids)
        self._held.check_open()
        parts = rows_by_shard(plain, self._shards)
        jobs = {
            shard: Job("get", (self.id, pack_ids(plain, rows), bool(with_vectors)))
            for shard, rows in parts.items()
        }
        found: list[Point | None] = [None] * len(plain)
        for shard, points in self._each(jobs, timeout).items():
            for row, point in zip(parts[shard].tolist(), points, strict=True):
                found[row] = point
        return found

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
        that is there all along comes exactly once. Costs a page of every shard.
        """
        page_size = as_int(page_size, "page_size", 1, MAX_PAGE)
        where = as_filter(filter, self._held.settings.schema)
        mark = page_mark(self.id, where)
        after = None if page_token is None else read_token(page_token, mark)
        said = None if where is None else to_json(where)
        flags = bool(with_payload), bool(with_vectors)
        job = Job("page", (self.id, after, said, page_size, *flags, self._read_s(timeout)))
        pages = self._all(job, timeout)
        points = sorted(
            (point for found, _ in pages for point in found), key=lambda p: order_of(p.id)
        )
        is_last = len(points) <= page_size and not any(more for _, more in pages)
        points = points[:page_size]
        return Page(points, None if is_last or not points else make_token(points[-1].id, mark))

    def batches(self, size: int = 4096) -> Iterator[PointBatch]:
        """Every point, at most `size` at a time, one shard after the other.

        Of each shard as of one moment and in the order of writing there; the moments differ. Not
        asked again after Unavailable: the points that came are sound, and not all.
        """
        size = as_int(size, "size", 1, 2**31)
        self._held.check_open()
        for shard in range(self._shards):
            for ids, payloads, vectors in self._actors.stream(
                shard_name(shard), Job("batches", (self.id, size)), self._waits.read_s
            ):
                plain = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
                yield PointBatch(plain, payloads, vectors)

    def count(self, filter: Filter = None, *, timeout: float | None = None) -> int:
        """How many points there are, or match; exact, of each shard when it was asked."""
        where = self._where(filter)
        found: int = sum(self._all(Job("count", (self.id, where, self._read_s(timeout))), timeout))
        if where is None:
            self._held.live = found
        return found

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

        As Collection.search, and:

        merge_recall   share of what the shards would find for k each that the merge is to keep; a
                       twentieth of what target_recall allows to be lost unless told, and all of it
                       with exact=True. It decides how many results each shard is asked for
        measure_merge  ask each shard for k and say in `plan.spread` which share was kept
        allow_partial  answer without shards that are not there within `timeout`: is_partial then,
                       and `plan.spread.missing` says which. Else that is an error

        target_recall  of the whole: what a shard aims at makes up for the merge. Text is ranked by
                       each shard with the statistics of its own points.
        """
        if query is not None and not isinstance(query, np.ndarray):
            query = np.asarray(query)
        found = self.search_columns(
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
            measure_merge=measure_merge,
            allow_partial=allow_partial,
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
        with deadline.within(options.get("timeout")):
            asked = asked_of(self.d, self._held.settings.schema, query, limit, **options)
            self._held.check_open()
            return self._searched(asked, self._read_s(options.get("timeout")))

    def _searched(self, asked: Asked, timeout: float) -> HitColumns:
        queries = asked.queries
        if asked.id is not None:
            queries = self._vector_of(asked.id, timeout)
        live = self._held.live
        if live is None:
            live = 0 if asked.allow_partial else self.count(timeout=timeout)
        fan = Fan(self._actors, self._shards, self.id, live, timeout, asked)
        try:
            found = fan.run(queries)
        except Closed as error:
            self._check_dropped(error)
            raise
        if fan.live is not None:
            self._held.live = fan.live
        return found

    def _vector_of(self, point_id: PointId, timeout: float) -> F32:
        (point,) = self.get([point_id], with_vectors=True, timeout=timeout)
        if point is None or point.vector is None:
            raise NotFound(f"expected the id of a point of {self.name!r}, got {point_id!r}")
        return np.ascontiguousarray(point.vector[None])

    # ------------------------------------------------------------------ care

    def compact(
        self,
        *,
        retrain: bool = False,
        progress: Callable[[str, float], None] = lambda stage, share: None,
        stop: threading.Event | None = None,
    ) -> None:
        """Build the next generation of every shard's index now; reads and writes go on.

        Each shard does this by itself when it is due. retrain: learn partitions anew. stop: once it
        is set, the builds end (Closed). progress counts the shards that are done.
        """
        self._cared("compact", (bool(retrain),), progress, stop)

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
        """Measure what recall@k costs on every shard: recall and median latency for settings.

        The arguments are those of Collection.tune; without settings every shard chooses its own,
        keeps what it measured, and searches by it from then on. The curve that comes back is that
        of settings which all shards measured: recall is the mean, the time that of the slowest.
        Errors: InvalidArgument for a shard of k points or fewer.
        """
        options = {
            "k": as_int(k, "k", 1, MAX_LIMIT - 1),
            "queries": as_int(queries, "queries", 1, 100_000),
            "nprobes": as_settings(nprobes, "nprobes"),
            "reranks": as_settings(reranks, "reranks"),
            "seed": as_int(seed, "seed", 0, 2**63 - 1),
        }
        found = self._cared("tune", (options,), progress, stop)
        curve = joined_curve([Curve.of_json(one) for one in found])
        if curve is not None:
            return curve
        # Every shard chose settings of its own: let all measure those of the first, for the eye.
        chosen = Curve.of_json(found[0]).points
        options["nprobes"] = sorted({point.nprobe for point in chosen if point.nprobe})
        options["reranks"] = sorted({point.rerank for point in chosen if point.rerank})
        found = self._cared("tune", (options,), progress, stop)
        curve = joined_curve([Curve.of_json(one) for one in found])
        assert curve is not None
        return curve

    def _cared(
        self,
        method: str,
        arguments: tuple[Any, ...],
        progress: Callable[[str, float], None],
        stop: threading.Event | None,
    ) -> list[Any]:
        """Long work on every shard, until all have ended. Errors: Closed after `stop`."""
        self._held.check_open()
        operation = uuid.uuid4().hex
        names = [shard_name(shard) for shard in range(self._shards)]
        found: dict[str, Any] = {}
        progress(method, 0.0)
        with ThreadPoolExecutor(len(names), "soardb-care") as pool:
            job = Job(method, (self.id, *arguments, operation))
            calls = [pool.submit(self._actors.one, name, job, None) for name in names]
            while not all(call.done() for call in calls):
                if stop is not None and stop.wait(_LOOK_S):
                    self._actors.ask(dict.fromkeys(names, Job("stop", (operation,))), _LOOK_S)
                elif stop is None:
                    _wait_for_one(calls)
                progress(method, sum(call.done() for call in calls) / len(names))
            for name, call in zip(names, calls, strict=True):
                try:
                    found[name] = call.result()
                except Closed as error:
                    self._check_dropped(error)
                    raise
        progress("done", 1.0)
        return [found[name] for name in names]

    def keep_queries(self, count: int) -> None:
        """Keep the last `count` queries in each shard's memory; see Collection.keep_queries.

        A shard whose process ends has none, and keeps none until it is told again.
        """
        count = as_int(count, "count", 0, 100_000)
        self._all(Job("keep_queries", (self.id, count)), None)

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Counts and bytes by part, of all shards together, and of each under "shards"."""
        each = self._all(Job("stats", (self.id,)), timeout)
        return total(each) | {"shards": each}

    def close(self, how: str = "closed") -> None:
        """Refuse further calls through this driver. The shards go on."""
        with self._held.lock:
            queue, self._held.queue = self._held.queue, None
            self._held.closed = self._held.closed or how
        if queue is not None:
            queue.shutdown()

    # ------------------------------------------------------------------ calls

    def _read_s(self, timeout: float | None) -> float:
        return self._waits.read_s if timeout is None else float(timeout)

    def _all(self, job: Job, timeout: float | None) -> list[Any]:
        """What every shard answers, in their order."""
        found = self._each(dict.fromkeys(range(self._shards), job), timeout)
        return [found[shard] for shard in range(self._shards)]

    def _each(self, jobs: Mapping[int, Job], timeout: float | None) -> dict[int, Any]:
        """What some shards answer, each to its own job."""
        self._held.check_open()
        named = {shard_name(shard): job for shard, job in jobs.items()}
        with deadline.within(timeout):
            try:
                found = self._actors.all(named, self._read_s(timeout))
            except Closed as error:
                self._check_dropped(error)
                raise
        return {shard: found[shard_name(shard)] for shard in jobs}

    def _check_dropped(self, error: BaseException) -> None:
        """Closed in the words of a handle, where shards no longer have the collection."""
        if isinstance(error, Closed) and "was dropped" in str(error):
            self._held.closed = "dropped"
            self._held.check_open()


def _request_id(given: str | None, ack: Ack) -> str | None:
    if ack == "memory":
        return None
    return uuid.uuid4().hex if given is None else given


def _expect_kind(point_id: PointId, kind: str) -> None:
    if id_kind_of(point_id) != kind:
        raise InvalidArgument(
            f"expected {'integer' if kind == 'int' else 'string'} ids, as the collection holds, "
            f"got {point_id!r}"
        )


def _wait_for_one(calls: Sequence[Future[Any]]) -> None:
    wait([call for call in calls if not call.done()], timeout=_LOOK_S, return_when=FIRST_COMPLETED)
