"""The C++ kernels behind the same names as reference.py.

    dispatch.py -> [native.py] -> memory.py, _native (native/src/module.cpp)

Allocates the outputs and passes pointers; the instruction set was chosen when the library loaded
(`level`, `use_level`). Importing this module fails where the extension was not built.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    BoundSearch,
    IvfArrays,
    Metric,
    SearchPlan,
    Values,
)
from soardb.kernels.memory import aligned
from soardb.kernels.reference import EMPTY_KEY, pack_codes, pack_u8_blocks, unpack_codes
from soardb.kernels.topk_native import (
    bucket_survivors,
    bucket_topk,
    quantized_scores,
    quantized_topk,
    rescore_topk,
    select_topk,
)

__all__ = [
    "Assigner",
    "IvfSearcher",
    "append_codes",
    "assign",
    "avq_update",
    "bucket_survivors",
    "bucket_topk",
    "dot_u8",
    "encode",
    "exact_scores",
    "exact_topk",
    "list_sums",
    "lut16_sums",
    "lut16_topk",
    "pack_codes",
    "pack_u8_blocks",
    "quantized_scores",
    "quantized_topk",
    "rerank_f32",
    "rerank_u8",
    "rescore",
    "rescore_topk",
    "score_blocks_u8",
    "select_topk",
    "spill_assign",
    "store_error",
    "topk_u8",
    "unpack_codes",
]

_METRICS: dict[Metric, int] = {"dot": 0, "cosine": 1, "l2": 2}
_NONE = np.empty(0, np.float32)


def lut16_sums(packed: U8, n: int, lut: U8) -> I32:
    """See reference.lut16_sums."""
    out = np.empty(n, np.int32)
    _native.lut16_sums(packed, n, aligned(lut), out)
    return out


def lut16_topk(packed: U8, n: int, lut: U8, bias: int, keep: int) -> tuple[I32, I32]:
    """See reference.lut16_topk."""
    room = _native.pool_capacity(keep)
    keys, positions = np.empty(room, np.int32), np.empty(room, np.uint32)
    found = _native.lut16_topk(packed, n, aligned(lut), bias, keep, keys, positions)
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
    """See reference.topk_u8."""
    nq = len(codes)
    keys = np.full((nq, keep), EMPTY_KEY, np.int32)
    rows = np.zeros((nq, keep), np.uint32)
    counts = np.empty(nq, np.int64)
    _native.topk_u8(store, bias, first, codes, steps, keep, allowed, threads, keys, rows, counts)
    return keys, rows, counts


def rescore(
    vectors: Values,
    delta: Values,
    queries: F32,
    metric: Metric,
    rows: U32,
    bounds: F64,
    counts: I64,
    rest: F64,
    k: int,
    threads: int = 1,
    *,
    scale: F32 | None = None,
    offset: F32 | None = None,
) -> tuple[F32, I64, npt.NDArray[np.bool_]]:
    """See reference.rescore."""
    nq = len(queries)
    scores, found = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    proven = np.empty(nq, np.uint8)
    _native.rescore(
        vectors,
        delta,
        _NONE if scale is None else scale,
        _NONE if offset is None else offset,
        queries,
        _METRICS[metric],
        rows,
        bounds,
        counts,
        rest,
        k,
        threads,
        scores,
        found,
        proven,
    )
    return scores, found, proven.view(bool)


def store_error(
    vectors: F32, mean: F32, store: U8, scale: F32, offset: F32, threads: int = 1
) -> tuple[float, float, float]:
    """See reference.store_error."""
    out = np.empty(3, np.float64)
    _native.store_error(vectors, mean, store, scale, offset, threads, out)
    return float(out[0]), float(out[1]), float(out[2])


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
        self._native = _native.Searcher(arrays)
        self._search = self._native.search

    def bind(self, k: int, plan: SearchPlan) -> BoundSearch:
        """See reference.IvfSearcher.bind; a C function that makes its own results."""
        bound: BoundSearch = self._native.bind(
            k, plan.nprobe, plan.cellprobe, plan.collect, plan.rerank, plan.refine, plan.stop
        )
        return bound

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
            plan.stop,
            threads,
            scores,
            ids,
            allowed,
            scanned,
        )
