"""The kernels of exact search in batches, in NumPy: what the C++ ones must equal.

    reference.py, portable.py -> [reference_batch.py] == native/src/batch.cpp, tiles_*.cpp

Every row is scored from its bytes, as integers that are the same everywhere; the best few of each
query are then scored in float32 (`reference.exact_scores`). A bound on what the bytes leave open
says for each query whether that was enough: `bounds` is the most that a row's float32 score can be,
given its bytes.

Integer products are computed in float32 by the BLAS, a thousand dimensions at a time: products of
bytes that are summed below 2^24 are exact in any order. Nothing here checks its caller.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import F32, F64, I8, I32, I64, U8, U32, Metric
from soardb.kernels.reference import exact_scores, first_largest, is_allowed

__all__ = ["EMPTY_KEY", "quantize_queries", "rescore", "rough_scores", "store_error", "topk_u8"]

EMPTY_KEY = np.int32(-(2**31))
"""The key of a place that holds no row."""

_EXACT_DIMS = 1024  # 1024 * 128 * 127 < 2^24
_PRODUCTS_AT_ONCE = 2**24
_TINY = np.float32(2.0**-110)


def quantize_queries(queries: F32, scale: F32) -> tuple[I8, F32]:
    """`reference.quantize_query` of (nq, d) queries: (codes (nq, d) int8, steps (nq,) float32)."""
    folded = queries * scale
    peaks = np.abs(folded).max(axis=1, initial=0.0).astype(np.float32)
    is_zero = peaks < _TINY
    inverse = np.where(is_zero, np.float32(0), np.float32(127) / np.maximum(peaks, _TINY))
    codes = np.rint(folded * inverse[:, None]).astype(np.int8)
    return codes, np.where(is_zero, np.float32(0), peaks / np.float32(127))


def topk_u8(
    store: U8,
    codes: I8,
    steps: F32,
    keep: int,
    *,
    bias: F32 | None = None,
    first: int = 0,
    allowed: U8 | None = None,
    threads: int = 1,
) -> tuple[I32, U32, I64]:
    """The `keep` best of all rows by their bytes, for each query.

    store    (n, stride) uint8, value + 128, bytes beyond d without meaning
    codes    (nq, d) int8 queries and their steps (nq,) float32: quantize_queries()
    bias     (n,) float32 under l2, else None
    first    number of row 0
    allowed  bitmap of row numbers, least bit first: only these take part; None: all

    Returns keys (nq, keep) int32, rows (nq, keep) uint32 in order of row, counts (nq,) int64 of how
    many of them are filled. A key is the integer product of row and query, or with a bias the
    sortable bits of float32 product * step - bias (`rough_scores` undoes that). Among equal keys
    the lower row stays. Costs nq * n * d products of bytes.
    """
    del threads
    numbers = np.arange(first, first + len(store), dtype=np.uint32)
    places = np.arange(len(store)) if allowed is None else np.flatnonzero(is_allowed(numbers, allowed))
    keys = np.full((len(codes), keep), EMPTY_KEY, np.int32)
    rows = np.zeros((len(codes), keep), np.uint32)
    count = min(keep, len(places))
    step = max(1, _PRODUCTS_AT_ONCE // max(len(codes), 1))
    every = np.empty((len(codes), len(places)), np.int32)
    for i in range(0, len(places), step):
        some = places[i : i + step]
        products = _products(store[some], codes)
        if bias is not None:
            rough = products.astype(np.float32) * steps[:, None] - bias[some]
            products = _sortable(rough)
        every[:, i : i + len(some)] = products
    for q in range(len(codes)):
        best = first_largest(every[q], keep)
        keys[q, :count], rows[q, :count] = every[q, best], numbers[places[best]]
    return keys, rows, np.full(len(codes), count, np.int64)


def _products(store: U8, codes: I8) -> I32:
    """(nq, n) int32 products."""
    total = np.zeros((len(codes), len(store)), np.int32)
    for i in range(0, codes.shape[1], _EXACT_DIMS):
        query = codes[:, i : i + _EXACT_DIMS].astype(np.float32)
        levels = store[:, i : i + query.shape[1]].astype(np.float32) - np.float32(128)
        total += (query @ levels.T).astype(np.int32)
    return total


def _sortable(values: F32) -> I32:
    bits = (values + np.float32(0)).view(np.int32)
    out: I32 = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return out


def rough_scores(keys: I32, steps: F32, has_bias: bool) -> F32:
    """What keys (nq, keep) of topk_u8() stand for: float32 product * step - bias."""
    if not has_bias:
        return keys.astype(np.float32) * steps[:, None]
    return (keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def rescore(
    vectors: F32,
    delta: F32,
    queries: F32,
    metric: Metric,
    rows: U32,
    bounds: F64,
    counts: I64,
    rest: F64,
    k: int,
    threads: int = 1,
) -> tuple[F32, I64, npt.NDArray[np.bool_]]:
    """The k best of each query's candidates by float32 scores, and whether no other row is better.

    vectors  (n, d) float32; rows from n on are in delta (m, d)
    queries  (nq, d) float32 as the metric compares them
    rows     (nq, room) uint32, of which counts (nq,) are candidates, with bounds (nq, room) float64
             on their scores
    rest     (nq,) float64, the bound on the score of any row that is no candidate; -inf: there is
             none

    Returns scores (nq, k) float32 and rows (nq, k) int64, best first, ties to the lower row, -inf
    and -1 where there are no more; proven (nq,) bool. Candidates are scored in order of falling
    bound, as long as the bound allows them among the k best.
    """
    del threads
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    proven = np.empty(len(queries), bool)
    n = len(vectors)
    for q, query in enumerate(queries):
        some = rows[q, : counts[q]].astype(np.int64)
        exact = np.empty(len(some), np.float32)
        is_base = some < n
        exact[is_base] = exact_scores(vectors[some[is_base]], query, metric)
        exact[~is_base] = exact_scores(delta[some[~is_base] - n], query, metric)
        best = np.lexsort((some, -exact))[:k]
        scores[q, : len(best)], found[q, : len(best)] = exact[best], some[best]
        is_full = len(best) == k
        proven[q] = rest[q] == -np.inf or (is_full and rest[q] < exact[best[-1]])
    return scores, found, proven


def store_error(
    vectors: F32, mean: F32, store: U8, scale: F32, offset: F32, threads: int = 1
) -> tuple[float, float, float]:
    """How far bytes are from what they stand for, at most, over n rows.

    vectors (n, d) float32, centred here by mean (d,). Returns the largest |x - (offset + scale *
    s)|, the largest |s| and the largest |x|, s being the signed bytes; 0 without rows.
    """
    del threads
    worst = np.zeros(3)
    d = len(mean)
    for i in range(0, len(vectors), 65_536):
        x = vectors[i : i + 65_536] - mean
        s = store[i : i + 65_536, :d].astype(np.float32) - np.float32(128)
        for j, part in enumerate((x - (offset + scale * s), s, x)):
            worst[j] = max(worst[j], np.einsum("ij,ij->i", part, part).max(initial=0))
    error, level, size = np.sqrt(worst).tolist()
    return error, level, size
