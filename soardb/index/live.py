"""LiveIndex: a mapped base and a growing delta, searched as one under a bitmap of rows.

    contents.py -> [live.py] -> model.py, lists.py, rows.py, form.py, upper.py, plan.py, kernels

The base is a generation's, immutable and mapped. What came since is coded by the same model into
the delta's lists of the same partitions, so a visit of a partition reads its base slice, then its
delta slice, and a new point is found as well as an old one. Rows are numbered through: the base's
from 0 on, then the delta's. Nothing is ever removed here: the caller passes a bitmap of the rows
that may be returned, which is how tombstones and filters work.

Without a model (few vectors, or none learnt yet) every row is scored.

Not for concurrent use: the owner lets searches run together and changes alone.
Nothing here knows of ids, payloads or files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from soardb import deadline
from soardb.index.base import refuse_bad_query
from soardb.index.bundle import bundle
from soardb.index.flat import as_compared_queries
from soardb.index.form import Form
from soardb.index.lists import CodeLists
from soardb.index.model import Model, as_compared, store_stride
from soardb.index.plan import BuildParams, choose_search, default_nprobe
from soardb.index.rows import Rows
from soardb.index.tiles import (
    ByteSearch,
    as_bitmap,
    closest,
    is_cheaper_by_bytes,
    pays_exactly,
)
from soardb.kernels.dispatch import Searcher, active
from soardb.kernels.layout import F32, I32, I64, U8, Metric, SearchPlan

__all__ = ["Coded", "LiveIndex", "Searched"]

_GATHER_BYTES = 32 * 2**20
_CODES_AT_ONCE = 2_000_000  # codes scanned between two looks at a limit: a few milliseconds
_NUMBERS_AT_ONCE = 200_000_000  # products of exact scoring, likewise
_LARGE_BATCH = 256  # vectors that are coded on every core
_CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Coded:
    """(n, d) vectors made ready to be appended to an index with this model."""

    model: Model | None
    compared: F32
    parts: I32
    codes: list[U8]
    store: U8
    bias: F32


@dataclass(frozen=True, slots=True)
class Searched:
    """Scores (nq, k) float32 and rows (nq, k) int64, best first; row -1 where fewer were found.

    scanned  codes that were looked at, all queries together; plan: None where every row was scored
    """

    scores: F32
    rows: I64
    scanned: int
    plan: SearchPlan | None


class LiveIndex:
    """n rows: the base's, then the delta's."""

    def __init__(
        self,
        d: int,
        metric: Metric,
        params: BuildParams,
        *,
        model: Model | None = None,
        lists: CodeLists | None = None,
        base: Rows | None = None,
    ) -> None:
        self.d, self.metric, self.params, self.model = d, metric, params, model
        stride = store_stride(d) if model else 0
        has_bias = model is not None and metric == "l2"
        self.form = Form.of(params.precision, metric, model)
        self._base = base if base is not None else Rows(d, stride, has_bias, self.form)
        self._lists = lists
        self._delta = Rows(d, stride, has_bias, self.form)
        self._delta_lists: CodeLists | None = None
        if model is not None:
            self._delta_lists = CodeLists(len(model.centroids), model.product.m)
        self._numbers: I64 = np.arange(len(self._base), dtype=np.int64)
        self._searcher: Searcher | None = None
        self._bytes: ByteSearch | None = None
        self._seen_by_searcher: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self._base) + len(self._delta)

    @property
    def n_base(self) -> int:
        """Rows of the base."""
        return len(self._base)

    @property
    def nlist(self) -> int:
        """Partitions; 0 without a model."""
        return len(self.model.centroids) if self.model else 0

    @property
    def default_nprobe(self) -> int:
        """Partitions that a search visits when it is not told."""
        return default_nprobe(self.nlist, self._copies) if self.model else 0

    @property
    def _copies(self) -> int:
        return 2 if self.model and self.model.choice.soar_lambda > 0 else 1

    # ------------------------------------------------------------------ adding

    def code(self, vectors: F32, threads: int | None = None) -> Coded:
        """Make checked (n, d) float32 vectors ready for append(); needs no lock.

        threads  None: every core for a large batch
        """
        compared, model = self.form.rounded(as_compared(vectors, self.metric)), self.model
        empty = np.empty(0, np.float32)
        if model is None:
            none = np.empty((len(vectors), 0), np.uint8)
            return Coded(None, compared, np.empty((0, 2), np.int32), [], none, empty)
        if threads is None:
            threads = _CORES if len(vectors) >= _LARGE_BATCH else 1
        parts, codes = model.encode(compared, replace(self.params, threads=threads))
        centred = compared - model.mean
        bias = 0.5 * np.square(centred).sum(axis=1) if self.metric == "l2" else empty
        store = model.scalar.encode(centred, store_stride(self.d))
        return Coded(model, compared, parts, codes, store, bias)

    def append(self, coded: Coded) -> None:
        """Add the vectors of code(); they take the next row numbers."""
        assert coded.model is self.model, "coded for another model"
        n = len(coded.compared)
        first = len(self)
        numbers = np.arange(first, first + n, dtype=np.int64)
        if self.model is None or self._delta_lists is None:
            self._delta.append(coded.compared, numbers)
            return
        bias = coded.bias if self.metric == "l2" else None
        self._delta.append(coded.compared, numbers, coded.store, bias)
        parts, rows = coded.parts, numbers.astype(np.uint32)
        if self._copies == 1:
            self._delta_lists.append(np.ascontiguousarray(parts[:, 0]), rows, coded.codes[0])
            return
        is_spilled = parts[:, 1] >= 0
        self._delta_lists.append(
            np.concatenate([parts[:, 0], parts[is_spilled, 1]]),
            np.concatenate([rows, rows[is_spilled]]),
            np.concatenate([coded.codes[0], coded.codes[1][is_spilled]]),
        )

    def growth(self, n: int) -> int:
        """Bytes that appending n vectors would allocate beyond those of the vectors themselves."""
        return self._delta.growth(n)

    # ------------------------------------------------------------------ searching

    def search(
        self,
        queries: F32,
        k: int,
        *,
        nprobe: int | None,
        rerank: int | None,
        stop: float | None = None,
        allowed: U8 | None,
        threads: int = 1,
        all_rows: int = 0,
    ) -> Searched:
        """The k closest rows of each of (nq, d) queries by the lists; needs a model.

        allowed: bitmap of rows, least bit first; None allows all. Where the visited lists hold
        fewer than k allowed rows, more are visited, at last all of them: with at least k allowed
        rows, k come back. all_rows: how many rows are allowed, where a batch may be answered by
        scoring each of them, if that costs less; its plan is then None. Errors: InvalidArgument
        for a bad query.
        """
        plan = self._plan(k, nprobe, rerank, stop)
        if all_rows and self._prefers_bytes(len(queries), all_rows, plan):
            return self._exact_by_bytes(queries, k, allowed, all_rows, threads)
        if len(queries) <= 1 or not deadline.is_set():
            return self._search_some(queries, k, plan, allowed, threads, 0)
        step = threads * self._queries_at_once(plan)
        done = [
            self._search_some(queries[i : i + step], k, plan, allowed, threads, i)
            for i in range(0, len(queries), step)
        ]
        if len(done) == 1:
            return done[0]
        return Searched(
            np.concatenate([part.scores for part in done]),
            np.concatenate([part.rows for part in done]),
            sum(part.scanned for part in done),
            max((part.plan for part in done if part.plan), key=lambda plan: plan.nprobe),
        )

    def _queries_at_once(self, plan: SearchPlan) -> int:
        """How many queries may be searched between two looks at the limit of the call."""
        codes = len(self) * self._copies * plan.nprobe // max(self.nlist, 1)
        return max(1, min(256, _CODES_AT_ONCE // (codes + self.nlist + plan.rerank + 1)))

    def _search_some(
        self,
        queries: F32,
        k: int,
        plan: SearchPlan,
        allowed: U8 | None,
        threads: int,
        first: int,
    ) -> Searched:
        """search() of queries of which the caller's `first` is the first."""
        assert self.model is not None
        deadline.check()
        searcher = self._open_searcher()
        scores = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        scanned = np.zeros(len(queries), np.int64)
        status = searcher.search(queries, k, plan, threads, scores, rows, allowed, scanned)
        total = int(scanned[0]) if len(queries) == 1 else int(scanned.sum())
        while status < 0 and plan.nprobe < self.nlist:
            deadline.check()
            plan = self._plan(k, plan.nprobe * 4, plan.rerank, None)
            short = np.flatnonzero(rows[:, -1] < 0)
            part = np.ascontiguousarray(queries[short])
            some_scores = np.empty((len(short), k), np.float32)
            some_rows = np.empty((len(short), k), np.int64)
            some_scanned = np.zeros(len(short), np.int64)
            status = searcher.search(
                part, k, plan, threads, some_scores, some_rows, allowed, some_scanned
            )
            scores[short], rows[short] = some_scores, some_rows
            total += int(some_scanned.sum())
        refuse_bad_query(status + 4 * first if status > 0 else status)
        return Searched(scores, rows, total, plan)

    def _plan(
        self, k: int, nprobe: int | None, rerank: int | None, stop: float | None
    ) -> SearchPlan:
        assert self.model is not None
        spills = self._copies == 2
        return choose_search(
            k=k,
            nprobe=nprobe,
            rerank=rerank,
            stop=stop,
            n=len(self),
            nlist=self.nlist,
            ncell=self.model.choice.ncell,
            collect_factor=self.params.overretrieve if spills else 1.0,
            copies=self._copies,
            dims_per_block=self.model.choice.dims_per_block,
        )

    def exact(self, queries: F32, k: int, rows: I64 | None, threads: int = 1) -> Searched:
        """The k closest of (m,) rows by scoring each; None: of all rows.

        k is at most m. Costs O(nq m d); rows are gathered a piece at a time.
        """
        m = len(self) if rows is None else len(rows)
        if self.model is not None and pays_exactly(m, self.d):
            allowed = None if rows is None else as_bitmap(rows, len(self))
            return self._exact_by_bytes(queries, k, allowed, m, threads)
        compared = as_compared_queries(queries, self.metric)
        scores, found = closest(self._pieces(rows), compared, k, self.metric, threads, self._scored)
        return Searched(scores, found, m * len(queries), None)

    def _exact_by_bytes(
        self, queries: F32, k: int, allowed: U8 | None, m: int, threads: int
    ) -> Searched:
        """exact() from the 8-bit rows; m rows are allowed, or scored at least."""
        assert self.model is not None
        if self._bytes is None:
            segments = (self._base, self._delta)
            self._bytes = ByteSearch(segments, self.model.scalar, self.model.mean, self.metric)
        compared = as_compared_queries(queries, self.metric)
        scores, rows = self._bytes.search(compared, k, allowed=allowed, threads=threads)
        return Searched(scores, rows, m * len(queries), None)

    def _prefers_bytes(self, nq: int, m: int, plan: SearchPlan) -> bool:
        assert self.model is not None
        return nq > 1 and is_cheaper_by_bytes(
            nq,
            m,
            len(self),
            self.d,
            plan,
            nlist=self.nlist,
            copies=self._copies,
            sub_spaces=self.model.product.m,
        )

    def _scored(
        self, vectors: F32, compared: F32, k: int, metric: Metric, threads: int
    ) -> tuple[F32, I64]:
        """The k closest of some vectors to each query; under a limit a few queries at a time."""
        if not deadline.is_set():
            return active.exact_topk(vectors, compared, k, metric, threads)
        step = max(1, threads * _NUMBERS_AT_ONCE // max(1, vectors.size))
        scores = np.empty((len(compared), k), np.float32)
        rows = np.empty((len(compared), k), np.int64)
        for i in range(0, len(compared), step):
            deadline.check()
            part = slice(i, i + step)
            scores[part], rows[part] = active.exact_topk(
                vectors, compared[part], k, metric, threads
            )
        return scores, rows

    def _pieces(self, rows: I64 | None) -> Iterator[tuple[I64, F32]]:
        """(row numbers, their vectors) of some rows, or of all, a piece at a time."""
        if rows is None:
            for part, first in ((self._base, 0), (self._delta, len(self._base))):
                for numbers, vectors in part.pieces():
                    yield first + numbers, vectors
            return
        step = max(1, _GATHER_BYTES // (4 * self.d))
        for i in range(0, len(rows), step):
            yield rows[i : i + step], self.vectors(rows[i : i + step])

    def vectors(self, rows: I64) -> F32:
        """(m, d) float32 vectors as the metric compares them and as they are kept: a copy."""
        if not len(self._delta):
            return self._base.some(rows)
        if not len(self._base):
            return self._delta.some(rows)
        out = np.empty((len(rows), self.d), np.float32)
        is_base = rows < len(self._base)
        out[is_base] = self._base.some(rows[is_base])
        out[~is_base] = self._delta.some(rows[~is_base] - len(self._base))
        return out

    def _open_searcher(self) -> Searcher:
        """The native view of the arrays, made anew when one of them has moved."""
        model, delta, lists = self.model, self._delta, self._delta_lists
        assert model is not None
        assert lists is not None
        grown = delta.whole()
        vectors = self.form.values(grown)
        seen = (vectors, lists.codes, lists.start, lists.count)
        if self._searcher is not None and all(
            a is b for a, b in zip(seen, self._seen_by_searcher, strict=True)
        ):
            return self._searcher
        base_lists = self._lists or CodeLists(self.nlist, model.product.m)
        base = bundle(model, base_lists, self._base, self._numbers, self.metric)
        is_l2 = self.metric == "l2"
        self._searcher = active.IvfSearcher(
            replace(
                base,
                delta_vectors=vectors,
                delta_ids=grown["ids"],
                delta_store=grown["store"],
                delta_store_bias=grown["store_bias"] if is_l2 else np.empty(0, np.float32),
                delta_start=lists.start,
                delta_count=lists.count,
                delta_codes=lists.codes,
                delta_code_rows=lists.rows,
            )
        )
        self._seen_by_searcher = seen
        return self._searcher

    # ------------------------------------------------------------------ health

    def residual(self, rows: I64) -> float:
        """Mean squared distance of rows to their nearest centroid: grows when data drift."""
        assert self.model is not None
        centred = self.vectors(rows) - self.model.mean
        _, scores = active.assign(centred, self.model.places)
        squares = np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
        return float((squares - 2 * scores).mean())

    def skew(self) -> float:
        """Longest list over the mean one, base and delta together."""
        if self.model is None or not len(self) or self._delta_lists is None:
            return 1.0
        counts = self._delta_lists.count.astype(np.int64)
        if self._lists is not None:
            counts = counts + self._lists.count
        return float(counts.max() / max(counts.mean(), 1e-9))

    def validate(self) -> None:
        """Check the base in O(n): CorruptStorage where lists and rows do not match."""
        if self._lists is not None:
            self._lists.validate(len(self._base), self._copies)

    def memory(self) -> dict[str, int]:
        """Bytes by part: the base's are mapped from a file, the delta's are not."""
        base, delta = self._base.memory(), self._delta.memory()
        sizes = {
            "base_vectors": base["vectors"],
            "base_rerank": base["store"] + base["store_bias"],
            "delta_vectors": delta["vectors"],
            "delta_rerank": delta["store"] + delta["store_bias"],
        }
        if self.model is not None:
            sizes["centroids"] = self.model.centroids.nbytes + self.model.places.nbytes
        for name, lists in (("base", self._lists), ("delta", self._delta_lists)):
            if lists is not None:
                sizes[f"{name}_codes"] = sum(lists.memory().values())
        return sizes
