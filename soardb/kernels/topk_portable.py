"""The top-k kernels in Numba behind the names of topk_reference.py.

    portable.py -> [topk_portable.py] == topk_reference.py

Same integers, same order of float operations, so the same bits. `threads` of a call are threads of
its own that end with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from soardb.kernels.layout import F32, I8, I32, I64, U8

__all__ = [
    "bucket_survivors",
    "bucket_topk",
    "quantized_scores",
    "quantized_topk",
    "rescore_topk",
    "select_topk",
]

_MISSING, _ZERO = np.float32(-np.inf), np.float32(0)

_jit: Any = njit(cache=True, nogil=True, error_model="numpy")


def _each(nq: int, threads: int, body: Callable[[int], object]) -> None:
    """Call body(q) for every query, on `threads` threads."""
    if threads <= 1 or nq <= 1:
        for q in range(nq):
            body(q)
        return
    with ThreadPoolExecutor(min(threads, nq)) as pool:
        list(pool.map(body, range(nq)))


@_jit
def _comes_first(score: np.float32, row: int, other: np.float32, other_row: int) -> bool:
    return bool(score > other or (score == other and row < other_row))


@_jit
def _sink(scores: F32, rows: I64, at: int, size: int) -> None:
    """Restore the heap, whose root comes last of all, below `at`."""
    while True:
        worst = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < size and _comes_first(
                scores[worst], rows[worst], scores[child], rows[child]
            ):
                worst = child
        if worst == at:
            return
        scores[at], scores[worst] = scores[worst], scores[at]
        rows[at], rows[worst] = rows[worst], rows[at]
        at = worst


@_jit
def _select(values: F32, owners: I64, scores: F32, rows: I64) -> None:
    """The best of values into scores and rows, best first; owners below 0 count for nothing."""
    k, size = len(scores), 0
    for i in range(len(values)):
        value, owner = values[i], owners[i]
        if not value > _MISSING or owner < 0:
            continue
        if size < k:
            scores[size], rows[size] = value, owner
            size += 1
            if size == k:
                for at in range(k // 2 - 1, -1, -1):
                    _sink(scores, rows, at, k)
        elif _comes_first(value, owner, scores[0], rows[0]):
            scores[0], rows[0] = value, owner
            _sink(scores, rows, 0, k)
    if size < k:
        for at in range(size // 2 - 1, -1, -1):
            _sink(scores, rows, at, size)
    for left in range(size - 1, 0, -1):  # the root is the last of those that are left
        scores[0], scores[left] = scores[left], scores[0]
        rows[0], rows[left] = rows[left], rows[0]
        _sink(scores, rows, 0, left)
    for i in range(size):
        scores[i] += _ZERO
    scores[size:] = _MISSING
    rows[size:] = -1


@_jit
def _deal(scores: F32, values: F32, rows: I32) -> None:
    """topk_reference.bucket_survivors of one row."""
    keep, count = values.shape
    values[:] = _MISSING
    rows[:] = -1
    for i in range(len(scores)):
        b = i % count
        value, row = scores[i], np.int32(i)
        if not value > values[keep - 1, b]:
            continue
        j = keep - 1
        while j > 0 and value > values[j - 1, b]:
            values[j, b], rows[j, b] = values[j - 1, b], rows[j - 1, b]
            j -= 1
        values[j, b], rows[j, b] = value + _ZERO, row


@_jit
def _is_certain(n: int, values: F32, rows: I32, kth: np.float32, kth_row: int) -> bool:
    keep, count = values.shape
    for b in range(count):
        size = n // count + (b < n % count)
        last, row = values[keep - 1, b], np.int64(rows[keep - 1, b])
        if size > keep and row >= 0 and (kth_row < 0 or _comes_first(last, row, kth, kth_row)):
            return False
    return True


@_jit
def _score_rows(codes: U8, bits: int, scale: F32, query: I32, out: F32) -> None:
    units = codes.shape[1]
    for i in range(len(out)):
        block, lane = i // 16, i % 16 * 4
        product = 0
        for g in range(units):
            for part in range(4):
                byte = np.int64(codes[block, g, lane + part])
                if bits == 8:
                    product += (byte - 128) * query[4 * g + part]
                else:
                    product += ((byte & 15) - 8) * query[8 * g + part]
                    product += ((byte >> 4) - 8) * query[8 * g + 4 + part]
        out[i] = np.float32(product) * scale[i]


def _room(nq: int, k: int) -> tuple[F32, I64]:
    return np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)


def select_topk(scores: F32, k: int, threads: int = 1) -> tuple[F32, I64]:
    """See topk_reference.select_topk."""
    out, rows = _room(len(scores), k)
    every = np.arange(scores.shape[1])
    _each(len(scores), threads, lambda q: _select(scores[q].copy(), every, out[q], rows[q]))
    return out, rows


def bucket_survivors(scores: F32, buckets: int, keep: int, threads: int = 1) -> tuple[F32, I32]:
    """See topk_reference.bucket_survivors."""
    out = np.empty((len(scores), keep, buckets), np.float32)
    rows = np.empty((len(scores), keep, buckets), np.int32)
    _each(len(scores), threads, lambda q: _deal(scores[q].copy(), out[q], rows[q]))
    return out, rows


def bucket_topk(
    scores: F32, buckets: int, keep: int, k: int, threads: int = 1
) -> tuple[F32, I64, npt.NDArray[np.bool_]]:
    """See topk_reference.bucket_topk."""
    n = scores.shape[1]
    survivors, owners = bucket_survivors(scores, buckets, keep, threads)
    out, rows = _room(len(scores), k)
    certain = np.empty(len(scores), np.bool_)

    def one(q: int) -> None:
        _select(survivors[q].ravel(), owners[q].ravel().astype(np.int64), out[q], rows[q])
        certain[q] = _is_certain(n, survivors[q], owners[q], out[q, -1], int(rows[q, -1]))

    _each(len(scores), threads, one)
    return out, rows, certain


def quantized_scores(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, threads: int = 1
) -> F32:
    """See topk_reference.quantized_scores."""
    out = np.empty((len(queries), n), np.float32)
    codes, scale = codes.view(), scale.view()
    codes.flags.writeable = scale.flags.writeable = False
    wide = queries.astype(np.int32)
    _each(len(queries), threads, lambda q: _score_rows(codes, bits, scale, wide[q], out[q]))
    return out


def quantized_topk(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """See topk_reference.quantized_topk; here the scores of one query are stored whole."""
    out, rows = _room(len(queries), k)
    for q in range(len(queries)):
        scores = quantized_scores(codes, bits, n, scale, queries[q : q + 1])
        out[q : q + 1], rows[q : q + 1] = select_topk(scores, k)
    del threads
    return out, rows


def rescore_topk(
    vectors: F32, queries: F32, chosen: I64, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """See topk_reference.rescore_topk."""
    from soardb.kernels.portable import rerank_f32

    out, rows = _room(len(queries), k)

    def one(q: int) -> None:
        some = chosen[q][chosen[q] >= 0]
        scores = rerank_f32(vectors, some.astype(np.uint32), queries[q], "dot")
        _select(scores, some, out[q], rows[q])

    _each(len(queries), threads, one)
    return out, rows
