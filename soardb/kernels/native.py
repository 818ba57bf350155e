"""The C++ kernels behind the same names as reference.py.

    dispatch.py -> [native.py] -> _native (native/src/module.cpp)

Allocates the outputs and passes pointers; the instruction set was chosen when the library loaded
(`level`, `use_level`). Importing this module fails where the extension was not built.
"""

from __future__ import annotations

import numpy as np

from soardb.kernels import _native
from soardb.kernels.layout import (
    BLOCK,
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    U32,
    IvfArrays,
    Metric,
    SearchPlan,
)
from soardb.kernels.reference import pack_codes, pack_u8_blocks, unpack_codes

__all__ = [
    "Assigner",
    "IvfSearcher",
    "append_codes",
    "assign",
    "avq_update",
    "dot_u8",
    "encode",
    "exact_scores",
    "exact_topk",
    "list_sums",
    "lut16_sums",
    "lut16_topk",
    "pack_codes",
    "pack_u8_blocks",
    "rerank_f32",
    "rerank_u8",
    "score_blocks_u8",
    "spill_assign",
    "unpack_codes",
]

_METRICS: dict[Metric, int] = {"dot": 0, "cosine": 1, "l2": 2}


def _aligned(lut: U8) -> U8:
    """A copy of byte tables at a multiple of 64 bytes, as the vector loads want them."""
    room = np.empty(lut.size + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + lut.size].reshape(lut.shape)
    out[:] = lut
    return out


def lut16_sums(packed: U8, n: int, lut: U8) -> I32:
    """See reference.lut16_sums."""
    out = np.empty(n, np.int32)
    _native.lut16_sums(packed, n, _aligned(lut), out)
    return out


def lut16_topk(packed: U8, n: int, lut: U8, bias: int, keep: int) -> tuple[I32, I32]:
    """See reference.lut16_topk."""
    room = _native.pool_capacity(keep)
    keys, positions = np.empty(room, np.int32), np.empty(room, np.uint32)
    found = _native.lut16_topk(packed, n, _aligned(lut), bias, keep, keys, positions)
    return keys[:found], positions[:found].astype(np.int32)


def dot_u8(rows: U8, query: I8) -> I32:
    """See reference.dot_u8."""
    out = np.empty(len(rows), np.int32)
    _native.dot_u8(rows, query, out)
    return out


def score_blocks_u8(blocks: U8, query: I8) -> I32:
    """See reference.score_blocks_u8."""
    padded = np.zeros(blocks.shape[1] * 4, np.int8)
    padded[: len(query)] = query
    out = np.empty(len(blocks) * BLOCK, np.int32)
    _native.score_blocks_u8(blocks, padded, out)
    return out


def rerank_u8(store: U8, rows: U32, query: I8) -> I32:
    """See reference.rerank_u8."""
    out = np.empty(len(rows), np.int32)
    _native.rerank_u8(store, rows, query, out)
    return out


def exact_scores(vectors: F32, query: F32, metric: Metric) -> F32:
    """See reference.exact_scores; one query, (n, d) rows."""
    out = np.empty(len(vectors), np.float32)
    _native.score_f32(vectors, query, _METRICS[metric], out)
    return out


def rerank_f32(vectors: F32, rows: U32, query: F32, metric: Metric) -> F32:
    """See reference.rerank_f32."""
    out = np.empty(len(rows), np.float32)
    _native.rerank_f32(vectors, rows, query, _METRICS[metric], out)
    return out


def exact_topk(
    vectors: F32, queries: F32, k: int, metric: Metric, threads: int = 1
) -> tuple[F32, I64]:
    """See reference.exact_topk."""
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    _native.exact_topk(vectors, queries, k, _METRICS[metric], threads, scores, rows)
    return scores, rows


class Assigner:
    """See reference.Assigner. Holds the centroids as bytes, packed."""

    def __init__(self, centroids: F32) -> None:
        self._packed = _native.Assigner(centroids)

    def assign(self, vectors: F32, threads: int = 1) -> tuple[I32, F32]:
        """See reference.assign."""
        out, scores = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)
        self._packed.assign(vectors, threads, out, scores)
        return out, scores

    def spill(
        self,
        vectors: F32,
        primary: I32,
        soar_lambda: float,
        include_primary: bool = True,
        threads: int = 1,
    ) -> I32:
        """See reference.spill_assign."""
        out = np.empty(len(vectors), np.int32)
        self._packed.spill(vectors, primary, soar_lambda, include_primary, threads, out)
        return out


def assign(vectors: F32, centroids: F32, threads: int = 1) -> tuple[I32, F32]:
    """See reference.assign."""
    return Assigner(centroids).assign(vectors, threads)


def spill_assign(
    vectors: F32,
    centroids: F32,
    primary: I32,
    soar_lambda: float,
    include_primary: bool = True,
    threads: int = 1,
) -> I32:
    """See reference.spill_assign."""
    return Assigner(centroids).spill(vectors, primary, soar_lambda, include_primary, threads)


def list_sums(vectors: F32, lists: I32, nlist: int, threads: int = 1) -> tuple[F32, I64]:
    """See reference.list_sums."""
    sums = np.empty((nlist, vectors.shape[1]), np.float32)
    counts = np.empty(nlist, np.int64)
    _native.list_sums(vectors, lists, threads, sums, counts)
    return sums, counts


def avq_update(vectors: F32, lists: I32, centroids: F32, eta: float, threads: int = 1) -> F64:
    """See reference.avq_update."""
    moved = centroids.astype(np.float64)
    _native.avq_update(vectors, lists, eta, threads, moved)
    return moved


def encode(
    residuals: F32, directions: F32, eta: F32, codebook: F32, block_dims: I32, threads: int = 1
) -> U8:
    """See reference.encode."""
    out = np.empty((len(residuals), len(codebook)), np.uint8)
    _native.encode(residuals, directions, eta, codebook, block_dims, threads, out)
    return out


append_codes = _native.append_codes


class IvfSearcher:
    """See reference.IvfSearcher. Holds references to the arrays that C++ reads in place."""

    def __init__(self, arrays: IvfArrays) -> None:
        self._search = _native.Searcher(arrays).search

    def search(
        self,
        queries: F32,
        k: int,
        plan: SearchPlan,
        threads: int,
        scores: F32,
        ids: I64,
        allowed: U8 | None = None,
        scanned: I64 | None = None,
    ) -> int:
        """See reference.IvfSearcher.search; the GIL is released meanwhile."""
        return self._search(
            queries,
            k,
            plan.nprobe,
            plan.cellprobe,
            plan.collect,
            plan.rerank,
            plan.refine,
            threads,
            scores,
            ids,
            allowed,
            scanned,
        )
