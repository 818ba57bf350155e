"""Top-k over scores and over quantized rows in NumPy: the specification of the faster versions.

    reference.py -> [topk_reference.py] == topk_portable.py == topk_native.py (native/src/topk.*)

One order everywhere: the bigger score first, equal scores by rising row; -0 and +0 are equal. NaN
and -inf are never found. What is missing is row -1 with score -inf. All versions agree bit for bit.

Two-stage selection: Chern et al., NeurIPS 2022 (arXiv 2206.14286); several survivors a bucket:
Samaga et al. (arXiv 2506.04165). Neither recall nor plans are here (soardb/topk/plan.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import F32, I8, I32, I64, U8

__all__ = [
    "bucket_survivors",
    "bucket_topk",
    "quantized_scores",
    "quantized_topk",
    "rescore_topk",
    "select_topk",
]

Bools = npt.NDArray[np.bool_]


def _best(scores: F32, rows: I64, k: int) -> tuple[F32, I64]:
    """The k best of (n,) scores with their rows, in the common order, padded."""
    there = (scores > -np.inf) & (rows >= 0)
    scores, rows = scores[there], rows[there]
    order = np.lexsort((rows, -scores))[:k]
    out, found = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int64)
    out[: len(order)] = scores[order] + np.float32(0)
    found[: len(order)] = rows[order]
    return out, found


def select_topk(scores: F32, k: int, threads: int = 1) -> tuple[F32, I64]:
    """The k best of each row of (nq, n) scores: (scores (nq, k), places (nq, k)), best first."""
    del threads
    nq, n = scores.shape
    out, rows = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    for q in range(nq):
        out[q], rows[q] = _best(scores[q], np.arange(n), k)
    return out, rows


def bucket_survivors(scores: F32, buckets: int, keep: int, threads: int = 1) -> tuple[F32, I32]:
    """The `keep` best of each bucket; score i of a row is in bucket i % buckets.

    scores (nq, n). Returns (scores (nq, keep, buckets) float32, places (nq, keep, buckets) int32),
    each bucket best first.
    """
    del threads
    nq, n = scores.shape
    out = np.full((nq, keep, buckets), -np.inf, np.float32)
    rows = np.full((nq, keep, buckets), -1, np.int32)
    every = np.arange(n)
    for q in range(nq):
        for b in range(buckets):
            out[q, :, b], rows[q, :, b] = _best(scores[q, b::buckets], every[b::buckets], keep)
    return out, rows


def bucket_topk(
    scores: F32, buckets: int, keep: int, k: int, threads: int = 1
) -> tuple[F32, I64, Bools]:
    """The k best of `bucket_survivors`, k <= buckets * keep.

    Returns (scores (nq, k), places (nq, k), certain (nq,) bool). Certain: no score that a bucket
    dropped is among the k best, as no last survivor of a bucket that dropped any comes before the
    k-th found.
    """
    survivors, owners = bucket_survivors(scores, buckets, keep, threads)
    nq, n = scores.shape
    out, rows = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    certain = np.empty(nq, np.bool_)
    sizes = n // buckets + (np.arange(buckets) < n % buckets)
    for q in range(nq):
        out[q], rows[q] = _best(survivors[q].ravel(), owners[q].ravel().astype(np.int64), k)
        last, last_row = survivors[q, -1], owners[q, -1]
        before = (last > out[q, -1]) | ((last == out[q, -1]) & (last_row < rows[q, -1]))
        certain[q] = not (before & (last_row >= 0) & (sizes > keep)).any()
    return out, rows, certain


def quantized_scores(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, threads: int = 1
) -> F32:
    """Scores of n quantized rows: scale[row] * float32(<row's levels, query>).

    codes    (nblock, units, 64) uint8. 8 bits: `pack_u8_blocks` of level + 128, its two last axes
             made one. 4 bits: `pack_codes` of level + 8
    scale    (nblock * 16,) float32, one a row
    queries  (nq, units * 4 or units * 8) int8 within -127..127

    Returns (nq, n) float32. The integer product is exact; one rounding to float32, one product.
    """
    del threads
    nblock, units, _ = codes.shape
    if bits == 8:
        quads = codes.reshape(nblock, units, 16, 4).transpose(0, 2, 1, 3)
        levels = quads.reshape(nblock * 16, units * 4).astype(np.int32) - 128
    else:
        lines = codes.reshape(nblock, units, 16, 4).transpose(0, 2, 1, 3)
        nibbles = np.stack([lines & 15, lines >> 4], axis=3)  # (block, row, line, nibble, L)
        levels = nibbles.reshape(nblock * 16, units * 8).astype(np.int32) - 8
    products = queries.astype(np.int32) @ levels[:n].T
    scores: F32 = products.astype(np.float32) * scale[:n]
    return scores


def quantized_topk(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """`select_topk` of `quantized_scores`, which are never stored whole."""
    return select_topk(quantized_scores(codes, bits, n, scale, queries, threads), k, threads)


def rescore_topk(
    vectors: F32, queries: F32, chosen: I64, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """The k best of chosen rows by exact inner product, in the shared order of additions.

    vectors (n, d), queries (nq, d), chosen (nq, c) int64 distinct rows of each query, -1 for none.
    Returns (scores (nq, k), rows (nq, k)), best first.
    """
    from soardb.kernels.reference import exact_scores

    del threads
    nq = len(queries)
    out, rows = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    for q in range(nq):
        some = chosen[q][chosen[q] >= 0]
        out[q], rows[q] = _best(exact_scores(vectors[some], queries[q], "dot"), some, k)
    return out, rows
