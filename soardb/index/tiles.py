"""Every row scored for a batch of queries from its bytes, and float32 scores that are proven.

    flat.py, ivf.py, live.py -> [tiles.py] -> quantization/scalar.py, kernels (topk_u8, rescore)

The 8-bit copy of a row is a quarter of its vector, and machines multiply bytes by tiles of 16 x 16
(AMX) or in wide registers (VNNI) many times faster than float32. A batch is scored against all
bytes; the best few of each query are scored again from their vectors.

That is exact where it can be proven. With x the row and y what its bytes stand for, and the query q
folded and rounded to bytes with an error e, the score of the bytes is off by at most

    |q| max|x - y|  +  |e| max|bytes|

(Cauchy and Schwarz, twice). A query whose k-th best score is above what the best row that was left
out can have, by this bound and the rounding of float32, has its exact answer. The others, few or
none on real data, are asked again with more candidates, and at last from the vectors alone.

Nothing here reads a file or knows ids: rows are numbered through the segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from soardb import deadline
from soardb.kernels.dispatch import active, describe
from soardb.kernels.layout import F32, F64, I64, U8, Metric, SearchPlan, Values
from soardb.kernels.reference import quantize_queries, rough_scores
from soardb.quantization.scalar import ScalarQuantizer

__all__ = [
    "ByteSearch",
    "CodedRows",
    "as_bitmap",
    "closest",
    "is_cheaper_by_bytes",
    "pays_exactly",
]

_RATES = {"amx": 700.0, "avx512": 250.0}
"""Products of bytes per nanosecond and core, top-k included; benchmarks/bench_batch.py."""

_STREAM = 18.0  # bytes of rows that a core reads per nanosecond
_RESCORE_NS = 8_000.0  # candidates of one query scored again, its share of the Python included
_LEAST_NUMBERS = 2**17  # rows times dimensions below which vectors are scored as soon

_LIST_NS = 4_000.0  # one query's fixed part by the lists
_CODE_RATE = 60.0  # look-ups of 4-bit codes per nanosecond, in a batch that goes list by list
_CENTROID_RATE = 100.0  # products of bytes per nanosecond, centroids against one query
_GATHER_NS = 40.0  # a gathered 8-bit row; a float32 row costs twice that

_CANDIDATES_AT_ONCE = 2**22
_OPENED_AT_ONCE = 2**16  # rows
_PRODUCTS_AT_ONCE = 2_000_000_000  # between two looks at a limit: a few milliseconds
_MORE = 8  # times as many candidates for the queries whose answer is not proven


def pays_exactly(n: int, d: int) -> bool:
    """Whether all of n rows are scored sooner from bytes than from vectors, here."""
    return n * d >= _LEAST_NUMBERS and describe().simd in _RATES


def is_cheaper_by_bytes(
    nq: int,
    m: int,
    n: int,
    d: int,
    plan: SearchPlan,
    *,
    nlist: int,
    copies: float,
    sub_spaces: int,
) -> bool:
    """Whether nq queries cost less by scoring m rows of n than by the lists of a plan.

    A model of the time of one core; both sides scale alike with more of them.
    """
    rate = _RATES.get(describe().simd)
    if rate is None or nq < 2:
        return False
    row_bytes = m * (-(-d // 64) * 64)
    all_rows = row_bytes * (-(-nq // 16) * 16 / rate + 1 / _STREAM) / nq + _RESCORE_NS
    codes = n * copies * plan.nprobe / nlist
    centroids = nlist if not plan.cellprobe else nlist * 0.5
    by_lists = (
        _LIST_NS
        + codes * sub_spaces / _CODE_RATE
        + centroids * d / _CENTROID_RATE
        + (plan.rerank + 2 * plan.refine) * _GATHER_NS
    )
    return all_rows < by_lists


def as_bitmap(rows: I64, n: int) -> U8:
    """The bitmap of (m,) row numbers below n, least bit first."""
    bits = np.zeros(n, np.uint8)
    bits[rows] = 1
    return np.packbits(bits, bitorder="little")


class ByteRows(Protocol):
    """n vectors as they are kept, their bytes (n, stride) uint8, |x|^2 / 2 (n,) float32 under l2.

    Vectors are as the metric compares them, bytes are of them less the mean; `pieces` opens them.
    """

    def __len__(self) -> int: ...
    @property
    def values(self) -> Values: ...
    def some(self, which: slice | I64) -> F32: ...
    def pieces(self, rows: I64 | None = None) -> Iterator[tuple[I64, F32]]: ...
    @property
    def store(self) -> U8: ...
    @property
    def store_bias(self) -> F32: ...


@dataclass(frozen=True, slots=True)
class CodedRows:
    """ByteRows made of vectors that have none."""

    vectors: F32
    store: U8
    store_bias: F32

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def values(self) -> Values:
        """The vectors."""
        return self.vectors

    def some(self, which: slice | I64) -> F32:
        """Some of the vectors."""
        return self.vectors[which]

    def pieces(self, rows: I64 | None = None) -> Iterator[tuple[I64, F32]]:
        """(row numbers, vectors) of some rows or of all, at once."""
        yield (np.arange(len(self)), self.vectors) if rows is None else (rows, self.vectors[rows])

    @classmethod
    def search_over(cls, vectors: F32, metric: Metric) -> tuple[ByteSearch, int]:
        """A search over (n >= 1, d) float32 vectors and how many bytes it took; O(n d)."""
        mean = np.zeros(vectors.shape[1], np.float32)
        if metric == "l2":
            mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = vectors - mean
        scalar = ScalarQuantizer.train(centred)
        bias = 0.5 * np.square(centred).sum(axis=1) if metric == "l2" else mean[:0]
        stride = -(-vectors.shape[1] // 64) * 64
        rows = cls(vectors, scalar.encode(centred, stride), bias)
        return ByteSearch([rows], scalar, mean, metric), rows.store.nbytes + bias.nbytes


@dataclass(slots=True)
class _Spread:
    """The most that the rows seen so far are off; grows with them."""

    rows: ByteRows
    seen: int = 0
    error: float = 0.0
    level: float = 0.0
    size: float = 0.0

    def cover(self, mean: F32, scalar: ScalarQuantizer, threads: int) -> None:
        """Look at the rows that came since; O(d) each, once."""
        for first in range(self.seen, len(self.rows), _OPENED_AT_ONCE):
            new = slice(first, min(first + _OPENED_AT_ONCE, len(self.rows)))
            error, level, size = active.store_error(
                self.rows.some(new),
                mean,
                self.rows.store[new],
                scalar.scale,
                scalar.offset,
                threads,
            )
            self.error, self.level = max(self.error, error), max(self.level, level)
            self.size, self.seen = max(self.size, size), new.stop


class ByteSearch:
    """Rows of one or two segments, scored from their bytes for many queries at once.

    Rows may be appended to the segments meanwhile, and are found; after any other change a new
    ByteSearch is needed. The second segment's rows are numbered on from the first's.
    """

    def __init__(
        self, segments: Sequence[ByteRows], scalar: ScalarQuantizer, mean: F32, metric: Metric
    ) -> None:
        self._segments = [_Spread(rows) for rows in segments]
        self._scalar, self._mean, self._metric = scalar, mean, metric
        self._asked_more = 1  # how many times the usual candidates recent batches have needed

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self._segments)

    def search(
        self, compared: F32, k: int, *, allowed: U8 | None = None, threads: int = 1
    ) -> tuple[F32, I64]:
        """The k closest rows of each query, exactly: scores (nq, k) float32 and rows (nq, k) int64.

        compared  (nq, d) float32 queries as the metric compares them
        allowed   bitmap of rows, least bit first; None allows all. At least k must be allowed.

        Ties go to the lower row. Costs nq * n * d products of bytes, and one look at the vectors of
        rows that were not searched before.
        """
        for part in self._segments:
            part.cover(self._mean, self._scalar, threads)
        scores = np.empty((len(compared), k), np.float32)
        rows = np.empty((len(compared), k), np.int64)
        keep = self._asked_more * (64 + 3 * k)
        step = max(16, _CANDIDATES_AT_ONCE // keep)
        if deadline.is_set():
            step = min(step, max(16, threads * _PRODUCTS_AT_ONCE // (len(self) * len(self._mean))))
        for i in range(0, len(compared), step):
            deadline.check()
            some = slice(i, i + step)
            scores[some], rows[some] = self._search_some(compared[some], k, keep, allowed, threads)
        return scores, rows

    def _search_some(
        self, compared: F32, k: int, keep: int, allowed: U8 | None, threads: int
    ) -> tuple[F32, I64]:
        scores, rows, is_proven = self._attempt(compared, k, keep, allowed, threads)
        if not is_proven.all():
            left = np.flatnonzero(~is_proven)
            if 4 * len(left) > len(compared) and self._asked_more < _MORE:
                self._asked_more *= 2
            again = np.ascontiguousarray(compared[left])
            more = self._attempt(again, k, _MORE * keep, allowed, threads)
            scores[left], rows[left], is_proven[left] = more
        if not is_proven.all():
            deadline.check()
            left = np.flatnonzero(~is_proven)
            again = np.ascontiguousarray(compared[left])
            scores[left], rows[left] = self._by_vectors(again, k, allowed, threads)
        return scores, rows

    def _attempt(
        self, compared: F32, k: int, keep: int, allowed: U8 | None, threads: int
    ) -> tuple[F32, I64, np.ndarray]:
        """search() with `keep` candidates a query, and whether each answer is proven."""
        is_l2 = self._metric == "l2"
        centred = compared - self._mean if is_l2 else compared
        scalar = self._scalar
        codes, steps = quantize_queries(centred, scalar.scale)
        keep = min(keep, len(self))
        found, first = [], 0
        for part in self._segments:
            rows = part.rows
            if len(rows):
                found.append(
                    active.topk_u8(
                        rows.store,
                        codes,
                        steps,
                        keep,
                        bias=rows.store_bias if is_l2 else None,
                        first=first,
                        allowed=allowed,
                        threads=threads,
                    )
                )
            first += len(rows)
        keys = np.concatenate([part[0] for part in found], axis=1)
        rows_found = np.concatenate([part[1] for part in found], axis=1)
        counts = np.asarray([part[2] for part in found])
        bounds = self._bounds(centred, codes, steps, keys)
        # What a segment left out is no better than the last that it kept, if it kept all it could.
        rest = np.full(len(compared), -np.inf)
        for i, count in enumerate(counts):
            lowest = bounds[:, i * keep : (i + 1) * keep].min(axis=1)
            rest = np.maximum(rest, np.where(count == keep, lowest, -np.inf))
        if len(found) > 1:
            is_filled = (np.arange(keep) < counts[:, :, None]).transpose(1, 0, 2)
            is_filled = is_filled.reshape(len(compared), -1)
            order = np.argsort(~is_filled, axis=1, kind="stable")
            rows_found = np.take_along_axis(rows_found, order, axis=1)
            bounds = np.take_along_axis(bounds, order, axis=1)
        base = self._segments[0].rows.values
        delta = self._segments[1].rows.values if len(self._segments) > 1 else base[:0]
        return active.rescore(
            base,
            delta,
            compared,
            self._metric,
            rows_found,
            bounds,
            counts.sum(axis=0),
            rest,
            k,
            threads,
            scale=scalar.scale,
            offset=self._mean + scalar.offset,
        )

    def _bounds(self, centred: F32, codes: np.ndarray, steps: F32, keys: np.ndarray) -> F64:
        """(nq, m) float64: the most that the float32 score of a row with such a key can be."""
        is_l2, scalar = self._metric == "l2", self._scalar
        wide = centred.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
        folding = np.linalg.norm(wide * scalar.scale - codes * steps[:, None].astype(float), axis=1)
        error = max(part.error for part in self._segments)
        level = max(part.level for part in self._segments)
        size = max(part.size for part in self._segments)
        # Sums of float32 over d terms in 64 lanes, and a handful of other roundings.
        rounding = (centred.shape[1] / 32 + 64) * 2.0**-24 * np.square(lengths + size)
        most = lengths * error * (1 + 1e-4) + folding * level * (1 + 1e-4) + rounding
        most += wide @ scalar.offset.astype(np.float64)
        bounds: F64 = rough_scores(keys, steps, is_l2) + most[:, None]
        if is_l2:
            bounds = 2 * bounds - np.square(lengths)[:, None]
        return bounds

    def _by_vectors(
        self, compared: F32, k: int, allowed: U8 | None, threads: int
    ) -> tuple[F32, I64]:
        """Every allowed row scored from its vector."""
        return closest(self._allowed_pieces(allowed), compared, k, self._metric, threads)

    def _allowed_pieces(self, allowed: U8 | None) -> Iterator[tuple[I64, F32]]:
        first = 0
        for part in self._segments:
            n, places = len(part.rows), None
            if allowed is not None:
                bits = np.unpackbits(allowed, bitorder="little")[first : first + n].astype(bool)
                places = np.flatnonzero(bits)
            for rows, vectors in part.rows.pieces(places):
                yield first + rows, vectors
            first += n


def closest(
    pieces: Iterable[tuple[I64, F32]],
    compared: F32,
    k: int,
    metric: Metric,
    threads: int,
    scored: Callable[[F32, F32, int, Metric, int], tuple[F32, I64]] = active.exact_topk,
) -> tuple[F32, I64]:
    """The k closest rows of each query among pieces of rows: scores and rows (nq, <= k).

    pieces    (row numbers (m,), vectors (m, d) float32)
    compared  (nq, d) float32 queries as the metric compares them
    scored    (vectors, queries, k, metric, threads) to scores and places of one piece

    Best first, ties to the lower row. Holds 2 k results a query besides a piece.
    """
    best_scores = np.empty((len(compared), 0), np.float32)
    best_rows = np.empty((len(compared), 0), np.int64)
    for numbers, vectors in pieces:
        if not len(numbers):
            continue
        scores, found = scored(vectors, compared, min(k, len(numbers)), metric, threads)
        best_scores = np.concatenate([best_scores, scores], axis=1)
        best_rows = np.concatenate([best_rows, numbers[found]], axis=1)
        order = np.lexsort((best_rows, -best_scores), axis=1)[:, :k]
        best_scores = np.take_along_axis(best_scores, order, axis=1)
        best_rows = np.take_along_axis(best_rows, order, axis=1)
    return best_scores, best_rows
