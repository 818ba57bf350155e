"""The C++ top-k kernels behind the names of topk_reference.py.

    native.py -> [topk_native.py] -> _native (native/src/topk.cpp)

Allocates the outputs; the GIL is released meanwhile.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soardb.kernels import _native
from soardb.kernels.layout import F32, I8, I32, I64, U8

__all__ = [
    "bucket_survivors",
    "bucket_topk",
    "quantized_scores",
    "quantized_topk",
    "rescore_topk",
    "select_topk",
]


def _room(nq: int, k: int) -> tuple[F32, I64]:
    return np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)


def select_topk(scores: F32, k: int, threads: int = 1) -> tuple[F32, I64]:
    """See topk_reference.select_topk."""
    out, rows = _room(len(scores), k)
    _native.select_topk(scores, k, threads, out, rows)
    return out, rows


def bucket_survivors(scores: F32, buckets: int, keep: int, threads: int = 1) -> tuple[F32, I32]:
    """See topk_reference.bucket_survivors."""
    out = np.empty((len(scores), keep, buckets), np.float32)
    rows = np.empty((len(scores), keep, buckets), np.int32)
    _native.bucket_survivors(scores, buckets, keep, threads, out, rows)
    return out, rows


def bucket_topk(
    scores: F32, buckets: int, keep: int, k: int, threads: int = 1
) -> tuple[F32, I64, npt.NDArray[np.bool_]]:
    """See topk_reference.bucket_topk."""
    out, rows = _room(len(scores), k)
    certain = np.empty(len(scores), np.uint8)
    _native.bucket_topk(scores, buckets, keep, k, threads, out, rows, certain)
    return out, rows, certain.view(np.bool_)


def quantized_scores(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, threads: int = 1
) -> F32:
    """See topk_reference.quantized_scores."""
    out = np.empty((len(queries), n), np.float32)
    _native.quantized_scores(codes, bits, n, scale, queries, threads, out)
    return out


def quantized_topk(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """See topk_reference.quantized_topk."""
    out, rows = _room(len(queries), k)
    _native.quantized_topk(codes, bits, n, scale, queries, k, threads, out, rows)
    return out, rows


def rescore_topk(
    vectors: F32, queries: F32, chosen: I64, k: int, threads: int = 1
) -> tuple[F32, I64]:
    """See topk_reference.rescore_topk."""
    out, rows = _room(len(queries), k)
    _native.rescore_topk(vectors, queries, chosen, k, threads, out, rows)
    return out, rows
