"""Collection: points with vectors and payloads, durable, searchable, changeable.

    database.py -> [collection.py] -> points.py, writer.py (writes), reads.py, query.py (reads)

The public face. Arguments are checked here and in points.py; writes go through the writer's queue,
reads run under the shared lock and fetch payloads from the row store afterwards.

Nothing here knows names of other collections.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int, as_queries
from soardb.budget import Budget
from soardb.compaction import compact
from soardb.contents import Contents
from soardb.core import Core
from soardb.errors import (
    InvalidArgument,
    NotFound,
    OutOfMemory,
    ReadOnly,
    SoarError,
)
from soardb.filters import Expr, as_filter
from soardb.fulltext import FUSIONS, Fusion
from soardb.hits import Point
from soardb.kernels.layout import F32, I64, Metric
from soardb.pages import Page, make_token, page_mark, read_token
from soardb.points import Payloads, as_batch, as_point_ids, encode, merged
from soardb.query import MAX_LIMIT, SearchCall, Wanted
from soardb.reads import Reads, as_point
from soardb.schema import shown
from soardb.search import Knobs, Planner, has_text_condition
from soardb.storage.rows import PointBatch, PointId
from soardb.writer import ACKS, Ack, Configure, Delete, Patch, Put, Writer

__all__ = ["MAX_PAGE", "Collection", "Filter", "Page"]

MAX_PAGE = 10_000
_WRITE_SHARE = 0.5  # of the memory limit; the other half is for builds, which make room again

Filter = Expr | Mapping[str, Any] | str | None


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
    ) -> int:
        """Store points, in the place of those that have their ids. Whole or not at all.

        ids       (n,) int64 or strings; or one table with the columns id, vector and payload
                  columns (Arrow, Polars, pandas), and nothing else
        vectors   (n, d) real numbers; stored as float32
        payloads  n dicts, or a dict of columns, or a table
        ack       "fsync": flushed to disk; "logged": survives the process; "memory": queued

        Of several points with one id the last one counts. Returns how many points were stored
        (0 for ack="memory", which does not wait). Errors: InvalidArgument, OutOfSpace, WriteFailed,
        ReadOnly, OutOfMemory, Closed.
        """
        return self._put(ids, vectors, payloads, "upsert", ack)

    def insert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
    ) -> int:
        """Like upsert, but refuses the whole call where an id is there (AlreadyExists)."""
        if ack == "memory":
            raise InvalidArgument(
                "expected ack 'fsync' or 'logged' for insert, which has to look first; got 'memory'"
            )
        return self._put(ids, vectors, payloads, "insert", ack)

    def _put(self, ids: Any, vectors: Any, payloads: Payloads, mode: Any, ack: Ack) -> int:
        self._check_writable(ack)
        s = self._core.settings
        batch = as_batch(ids, vectors, payloads, s.d, s.metric)
        encoded = encode(batch.payloads, len(batch.ids), s.schema, s.ttl)
        if not batch.ids:
            return 0
        size = 2 * batch.vectors.nbytes + sum(map(len, encoded.payloads)) + 300 * len(batch.ids)
        if self._budget.limit is not None:
            size += self._core.contents.index.growth(len(batch.ids))
        if ack == "memory":  # the caller may change its array as soon as this returns
            batch = replace(batch, vectors=batch.vectors.copy())
        job = Put(
            batch.ids,
            batch.vectors,
            encoded.payloads,
            encoded.values,
            encoded.texts,
            encoded.expires,
            mode,
        )
        with self._room_for(size, f"writing {len(batch.ids):,} points"):
            return int(self._write(job, ack) or 0)

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

    def update_payload(
        self,
        payload: Mapping[str, Any],
        *,
        ids: Any = None,
        filter: Filter = None,
        replace: bool = False,
        ack: Ack = "fsync",
    ) -> int:
        """Change payloads of ids, which must be there, or of all that match a filter.

        Members of `payload` replace those of the same name, None removes one; replace=True leaves
        nothing else. Returns how many points changed. Errors: NotFound for an unknown id.
        """
        self._check_writable(ack)
        s = self._core.settings
        if not isinstance(payload, Mapping):
            raise InvalidArgument(f"expected payload as a dict, got {shown(payload)}")
        encode([{k: v for k, v in payload.items() if v is not None}], 1, s.schema, s.ttl)
        chosen, where = self._chosen(ids, filter)
        job = Patch(
            merge=lambda old: merged(old, payload, replace),
            encode=lambda rows: encode(rows, len(rows), s.schema, s.ttl),
            ids=chosen,
            where=where,
        )
        return int(self._write(job, ack) or 0)

    def delete(self, ids: Any = None, *, filter: Filter = None, ack: Ack = "fsync") -> int:
        """Delete points by id, unknown ones being ignored, or all that match a filter.

        Returns how many were deleted (0 for ack="memory", which does not wait).
        """
        self._check_writable(ack)
        chosen, where = self._chosen(ids, filter)
        return int(self._write(Delete(ids=chosen, where=where), ack) or 0)

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

    def _check_writable(self, ack: str) -> None:
        self._reads.check_open()
        if self._core.is_read_only:
            raise ReadOnly(f"collection {self.name!r} was opened with read_only=True")
        if ack not in ACKS:
            raise InvalidArgument(f"expected ack one of {', '.join(ACKS)}, got {ack!r}")

    def _write(self, job: Any, ack: Ack) -> Any:
        answer = self._writer.submit(job, ack)
        self._wake()
        return answer

    # ------------------------------------------------------------------ reading by id and in order

    def get(self, ids: Any, *, with_vectors: bool = False) -> list[Point | None]:
        """The points of ids, in order; None where there is none."""
        plain = as_point_ids(ids)

        def read(contents: Contents) -> tuple[list[int], I64]:
            positions = contents.table.find(plain)
            is_there = positions >= 0
            return np.flatnonzero(is_there).tolist(), contents.table.rows_at(positions[is_there])

        places, stored = self._reads.fetched(read, lambda r: r[1], with_vectors)
        out: list[Point | None] = [None] * len(plain)
        for place, point in zip(places[0], stored, strict=True):
            out[place] = as_point(point, with_vectors)
        return out

    def scroll(
        self,
        *,
        filter: Filter = None,
        page_size: int = 100,
        page_token: str | None = None,
        with_payload: bool = True,
        with_vectors: bool = False,
    ) -> Page:
        """Points in a fixed order of their ids, a page at a time.

        page_token is that of the page before; it stays good while points are written: each point
        that is there all along comes exactly once. Errors: InvalidArgument for a token of another
        collection or filter.
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
            keep = [e is None or e > now for e in batch.expires]
            yield batch if all(keep) else batch.take(keep)

    @property
    def id_kind(self) -> str | None:
        """ "int" or "str", as the first write had it; None before that."""
        return self._reads.ready().table.kind

    def count(self, filter: Filter = None) -> int:
        """How many points there are, or match; exact."""
        where = as_filter(filter, self._core.settings.schema)
        self._reads.ready()
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
        exact: bool = False,
        threads: int = 1,
        score_threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 3,
        with_payload: bool = True,
        with_vectors: bool = False,
        explain: bool = False,
    ) -> Any:
        """The closest points to a query: Hits, or a list of Hits for (nq, d) queries.

        query            (d,) or (nq, d) real numbers
        id               in place of a query: the vector of this point, which is left out
        text             words; alone they rank by BM25, with a query the two rankings are fused,
                         by `fusion` "rrf" or "weighted" with `weights` of (vector, text)
        text_fields      declared text fields to look in; all of them unless told
        limit, k         results wanted, at most 10,000; fewer come only where fewer match
        filter           F(...) expression, JSON or SQL-like string
        nprobe, rerank   lists visited, candidates scored again; chosen unless told
        exact            score every matching point
        score_threshold  leave out scores below
        group_by         field: `limit` groups of at most `group_size` hits each
        explain          say how it was done in `plan`

        Scores are exact for the ids returned; equal scores come in a fixed order.
        """
        wanted = Wanted(with_payload, with_vectors)
        limit = as_int(limit if k is None else k, "limit", 1, MAX_LIMIT)
        where = as_filter(filter, self._core.settings.schema)
        knobs = Knobs(
            None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
            None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
            bool(exact),
            as_int(threads, "threads", 1, 1024),
        )
        if sum(x is not None for x in (query, id)) > 1 or query is id is text is None:
            raise InvalidArgument("expected one of query and id, or text, or text beside one")
        if score_threshold is not None:
            score_threshold = _as_number(score_threshold, "score_threshold")
        left_out = None
        if id is not None:
            left_out = id
            query = self._vector_of(id)
        job = SearchCall(
            self._reads,
            limit,
            where,
            knobs,
            wanted,
            score_threshold,
            explain,
            left_out,
            text_fields,
        )
        if text is not None:
            if not isinstance(text, str):
                raise InvalidArgument(f"expected text as a string, got {shown(text)}")
            if isinstance(text_fields, str):
                raise InvalidArgument(f"expected text_fields as a list, got {shown(text_fields)}")
            weights = _as_weights(weights)
            if fusion not in FUSIONS:
                raise InvalidArgument(
                    f"expected fusion one of {', '.join(FUSIONS)}, got {fusion!r}"
                )
            if group_by is not None or score_threshold is not None:
                raise InvalidArgument(
                    "expected no group_by or score_threshold beside text: its scores are ranks"
                )
            return job.hybrid(self._one_query(query), text, fusion, weights)
        assert query is not None
        if group_by is not None:
            self._check_group_by(group_by)
            one = self._one_query(query)
            assert one is not None
            return job.grouped(one, group_by, as_int(group_size, "group_size", 1, 1000))
        queries, is_one = self._queries(query)
        found = job.many(queries)
        return found[0] if is_one else found

    def _queries(self, query: npt.ArrayLike) -> tuple[F32, bool]:
        given = query if isinstance(query, np.ndarray) else np.asarray(query)
        is_one = given.ndim == 1
        return as_queries(given[None, :] if is_one else given, self.d), is_one

    def _one_query(self, query: npt.ArrayLike | None) -> F32 | None:
        if query is None:
            return None
        queries, _ = self._queries(query)
        if len(queries) != 1:
            raise InvalidArgument(f"expected one query here, got {len(queries)}")
        return queries

    def _vector_of(self, point_id: PointId) -> F32:
        (point,) = self.get([point_id], with_vectors=True)
        if point is None or point.vector is None:
            raise NotFound(f"expected the id of a point of {self.name!r}, got {point_id!r}")
        return point.vector

    def _check_group_by(self, name: str) -> None:
        kind = self._core.settings.schema.fields.get(name)
        if kind not in ("int", "keyword", "bool"):
            raise InvalidArgument(
                f"expected group_by a declared field of type int, keyword or bool, got {name!r}"
                + (f" of type {kind}" if kind else "")
            )

    # ------------------------------------------------------------------ care

    def compact(
        self,
        *,
        retrain: bool = False,
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> None:
        """Build the next generation of the index now, in this thread; reads and writes go on.

        The background worker does this by itself when it is due. retrain: learn partitions anew.
        """
        self._check_writable("fsync")
        self._writer.settle()
        with self._core.building:
            try:
                compact(
                    self._core,
                    self._writer,
                    self._budget,
                    retrain=retrain,
                    progress=progress,
                    stop=self._core.stop_build,
                )
            except (SoarError, OSError):
                self._reads.check_open()  # closed or dropped meanwhile: that is why
                raise

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


def _as_number(value: Any, name: str) -> float:
    """A finite number. Errors: InvalidArgument."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise InvalidArgument(f"expected {name} as a finite number, got {shown(value)}")
    return float(value)


def _as_weights(weights: Any) -> tuple[float, float]:
    """The weights of vector and text. Errors: InvalidArgument."""
    if not isinstance(weights, list | tuple) or len(weights) != 2:
        raise InvalidArgument(
            f"expected weights as two numbers, of (vector, text), got {shown(weights)}"
        )
    return _as_number(weights[0], "weights[0]"), _as_number(weights[1], "weights[1]")


def _folder_bytes(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.iterdir())
