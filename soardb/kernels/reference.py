"""The kernels in NumPy: the specification that every faster version must equal.

    [reference.py] == portable.py (Numba) == native/ (C++ per instruction set)

Clear before fast. Integers agree bit for bit everywhere. So do the float32 scores of a search,
because one order of operations is laid down here (`lane_dot`): products are added into 64 lanes,
lane by lane, and the lanes are folded in halves, without fused multiply-adds. Only the matrix
kernels (`assign`, `spill_assign`, `exact_topk` before its re-scoring) may round differently.

SOAR: Sun et al., NeurIPS 2023 (arXiv 2404.00774). Anisotropic codes: Guo et al., ICML
2020 (arXiv 1908.10396).

Nothing here checks its caller (arrays.py does) and nothing reads a disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import (
    BLOCK,
    F32,
    F64,
    FIRST_LOOK,
    I8,
    I32,
    I64,
    LINE,
    STEPS,
    U8,
    U32,
    BoundSearch,
    IvfArrays,
    Metric,
    SearchPlan,
    Values,
)
from soardb.kernels.topk_reference import (  # noqa: F401 - kernels too, in a file of their own
    bucket_survivors,
    bucket_topk,
    quantized_scores,
    quantized_topk,
    rescore_topk,
    select_topk,
)

_LANES = 64
_EXTRA_CANDIDATES = 16
_EXACT_DIMS = 1024  # 1024 * 128 * 127 < 2^24
_PRODUCTS_AT_ONCE = 2**24
_TINY = np.float32(2.0**-110)
"""Ranges below this count as zero: the inverse of their step is no float32."""

EMPTY_KEY = np.int32(-(2**31))
"""The key of a place of topk_u8() that holds no row."""

# ---------------------------------------------------------------------------- products


def fold_lanes(products: F32) -> F32:
    """Sum (..., d) float32 products over the last axis in the order that all kernels share.

    Element i goes to lane i % 64; a lane adds its elements in order; the four quarters of 16 lanes
    are joined as (0 + 1) + (2 + 3); those 16 lanes are then folded in halves.
    """
    d = products.shape[-1]
    chunks = -(-d // _LANES)
    padded = np.zeros((*products.shape[:-1], chunks * _LANES), np.float32)
    padded[..., :d] = products
    lanes = np.zeros((*products.shape[:-1], _LANES), np.float32)
    for c in range(chunks):
        lanes = lanes + padded[..., c * _LANES : (c + 1) * _LANES]
    quarters = lanes.reshape(*products.shape[:-1], 4, 16)
    folded = (quarters[..., 0, :] + quarters[..., 1, :]) + (
        quarters[..., 2, :] + quarters[..., 3, :]
    )
    for half in (8, 4, 2, 1):
        folded = folded[..., :half] + folded[..., half : 2 * half]
    total: F32 = folded[..., 0]
    return total


def lane_dot(left: F32, right: F32) -> F32:
    """Inner product over the last axis, broadcasting; float32, in the shared order."""
    return fold_lanes(np.multiply(left, right, dtype=np.float32))


def exact_scores(vectors: F32, query: F32, metric: Metric) -> F32:
    """Scores of (n, d) rows for one (d,) query: bigger is closer.

    dot and cosine: the inner product (cosine expects unit vectors on both sides).
    l2: minus the squared distance.
    """
    if metric == "l2":
        difference = np.subtract(vectors, query, dtype=np.float32)
        return -lane_dot(difference, difference)
    return lane_dot(vectors, query)


def opened(values: Values, scale: F32 | None, offset: F32 | None) -> F32:
    """The float32 vectors that (n, ...) kept values stand for: (n, d).

    float32: themselves. uint16: the upper half of each float32, whose lower half is zero. uint8:
    offset + scale * (value - 128), of (d,) scale and offset, each operation rounded.
    """
    if values.dtype == np.uint16:
        bits: U32 = values.astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    if values.dtype == np.uint8:
        assert scale is not None
        assert offset is not None
        return offset + scale * (values[:, : len(scale)].astype(np.float32) - np.float32(128))
    return values.astype(np.float32, copy=False)


def kept_scores(
    values: Values, scale: F32 | None, offset: F32 | None, query: F32, metric: Metric
) -> F32:
    """`exact_scores` of (n, ...) kept values.

    Vectors that were rounded are no longer quite of unit length: under cosine their inner product
    is divided by it.
    """
    vectors = opened(values, scale, offset)
    scores = exact_scores(vectors, query, metric)
    if metric == "cosine" and values.dtype != np.float32:
        squared = lane_dot(vectors, vectors)
        lengths = np.where(squared > 0, np.sqrt(squared), np.float32(1))
        scores = (scores / lengths).astype(np.float32)
    return scores


# ---------------------------------------------------------------------------- packed 4-bit codes


def pack_codes(codes: U8) -> U8:
    """Interleave (n, m) 4-bit codes, m a multiple of 8, into (ceil(n/16), m/8, 64) lines.

    The last block is padded with code 0; readers mask by count.
    """
    n, m = codes.shape
    blocks = -(-n // BLOCK)
    padded = np.zeros((blocks * BLOCK, m), np.uint8)
    padded[:n] = codes
    lines = padded.reshape(blocks, BLOCK, m // 8, 2, 4)  # (block, vector, line, nibble, L)
    packed = lines[:, :, :, 0, :] | (lines[:, :, :, 1, :] << 4)
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3)).reshape(blocks, m // 8, LINE)


def unpack_codes(packed: U8, n: int) -> U8:
    """The first n rows of `pack_codes`' input: (n, m) uint8 in 0..15."""
    blocks, lines, _ = packed.shape
    quads = packed.reshape(blocks, lines, BLOCK, 4).transpose(0, 2, 1, 3)
    codes = np.stack([quads & 0x0F, quads >> 4], axis=3)  # (block, vector, line, nibble, L)
    return np.ascontiguousarray(codes.reshape(blocks * BLOCK, lines * 8)[:n])


def lut16_sums(packed: U8, n: int, lut: U8) -> I32:
    """Sum of table entries of each of n packed codes.

    packed (nblock, m/8, 64) uint8, lut (m, 16) uint8. Returns (n,) int32.
    """
    codes = unpack_codes(packed, n)
    sums: I32 = lut[np.arange(codes.shape[1]), codes].sum(axis=1, dtype=np.int32)
    return sums


def lut16_topk(packed: U8, n: int, lut: U8, bias: int, keep: int) -> tuple[I32, I32]:
    """Scan n packed codes and keep the `keep` biggest keys (sum + bias).

    Returns (keys, positions), both (min(keep, n),) int32 in order of position; among equal keys the
    earlier position stays.
    """
    keys = lut16_sums(packed, n, lut) + np.int32(bias)
    chosen = first_largest(keys, keep).astype(np.int32)
    return keys[chosen], chosen


def first_largest(keys: I32 | F32, keep: int) -> I64:
    """Positions of the `keep` biggest keys, in order of position; equal keys: the earlier stays."""
    order = np.argsort(-keys.astype(np.float64), kind="stable")[:keep]
    return np.sort(order)


def roughly_sorted(scores: F32) -> I64:
    """(n,) positions, best score first, in STEPS equal steps from the best score to the worst.

    Within a step the order stays. It is a counting sort: all that a visit of lists needs.
    """
    if not len(scores):
        return np.empty(0, np.int64)
    best = scores.max()
    span = best - scores.min()
    if not _TINY <= span < np.inf:
        return np.arange(len(scores))
    inverse = np.float32(STEPS - 1) / span
    return np.argsort(((best - scores) * inverse).astype(np.int32), kind="stable")


def next_look(look: int) -> int:
    """How many lists are visited until the next look at the threshold: 8, 12, 16, 24, 32, ..."""
    return look + (FIRST_LOOK << ((look // FIRST_LOOK).bit_length() - 1)) // 2


# ---------------------------------------------------------------------------- 8-bit rows


def quantize_query(query: F32, scale: F32) -> tuple[I8, np.float32]:
    """Fold the rows' scale into (d,) query and round it to signed bytes.

    Returns (codes (d,) int8 in [-127, 127], step): <query, row> ~ step * <codes, row codes> plus
    <query, offset>. A zero query, or one as good as zero, gives zeros and step 0.
    """
    folded = query * scale
    peak = np.float32(np.max(np.abs(folded), initial=0.0))
    if peak < _TINY:
        return np.zeros(query.shape, np.int8), np.float32(0)
    codes = np.rint(folded * (np.float32(127) / peak)).astype(np.int8)
    return codes, peak / np.float32(127)


def turn_query(query: F32, blocks: U8, scale: F32) -> F32:
    """Products of a (d,) query with rows of 8 bits in blocks, scale (r,) of each: (r,) float32."""
    codes, step = quantize_query(query, np.ones_like(query))
    turned: F32 = score_blocks_u8(blocks, codes).astype(np.float32) * step * scale
    return turned


def dot_u8(rows: U8, query: I8) -> I32:
    """Integer products of (n, >= d) uint8 rows (value + 128) with a (d,) int8 query: (n,) int32."""
    d = query.shape[0]
    return (rows[:, :d].astype(np.int32) - 128) @ query.astype(np.int32)


def pack_u8_blocks(rows: U8) -> U8:
    """Interleave (n, d) uint8 rows for `score_blocks_u8`: (ceil(n/16), ceil(d/4), 16, 4).

    Padding is 128, which stands for zero.
    """
    n, d = rows.shape
    nblock, quads = -(-n // BLOCK), -(-d // 4)
    padded = np.full((nblock * BLOCK, quads * 4), 128, np.uint8)
    padded[:n, :d] = rows
    blocks = padded.reshape(nblock, BLOCK, quads, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks)


def score_blocks_u8(blocks: U8, query: I8) -> I32:
    """Integer products of every row of `pack_u8_blocks` with a (d,) int8 query: (nblock*16,)."""
    nblock, quads = blocks.shape[:2]
    rows = blocks.transpose(0, 2, 1, 3).reshape(nblock * BLOCK, quads * 4)
    return dot_u8(rows, query)


def rerank_u8(store: U8, rows: U32, query: I8) -> I32:
    """`dot_u8` of the gathered rows: (len(rows),) int32."""
    return dot_u8(store[rows], query)


def rerank_f32(vectors: F32, rows: U32, query: F32, metric: Metric) -> F32:
    """`exact_scores` of the gathered rows: (len(rows),) float32."""
    return exact_scores(vectors[rows], query, metric)


# ---------------------------------------------------------------------------- exact search


def exact_topk(
    vectors: F32, queries: F32, k: int, metric: Metric, threads: int = 1
) -> tuple[F32, I64]:
    """The k closest rows of every query by brute force.

    vectors (n, d) float32, queries (nq, d) float32 (unit vectors under cosine), 1 <= k <= n.
    Returns (scores (nq, k) float32, rows (nq, k) int64), best first; ties go to the lower row.
    A blocked matrix product finds k + 16 candidates, which are then scored in the shared order.
    """
    del threads
    keep = min(k + _EXTRA_CANDIDATES, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for i, query in enumerate(queries):
        candidates = first_largest(exact_scores(vectors, query, metric), keep)
        found = exact_scores(vectors[candidates], query, metric)
        best = np.lexsort((candidates, -found))[:k]
        scores[i], rows[i] = found[best], candidates[best]
    return scores, rows


# ---------------------------------------------------------------------------- exact, from bytes
#
# Every row is scored from its bytes, as integers that are the same everywhere; the best few of each
# query are scored again in float32. `bounds` is the most that a row's float32 score can be, given
# its bytes: it says for each query whether that was enough. Integer products are computed in
# float32 by the BLAS, a thousand dimensions at a time: products of bytes that are summed below 2^24
# are exact in any order.


def quantize_queries(queries: F32, scale: F32) -> tuple[I8, F32]:
    """`quantize_query` of (nq, d) queries: (codes (nq, d) int8, steps (nq,) float32)."""
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
    places = (
        np.arange(len(store)) if allowed is None else np.flatnonzero(is_allowed(numbers, allowed))
    )
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
    """The k best of each query's candidates by float32 scores, and whether no other row is better.

    vectors  n kept rows of d dimensions; rows from n on are in delta, which is kept alike
    queries  (nq, d) float32 as the metric compares them
    rows     (nq, room) uint32, of which counts (nq,) are candidates, with bounds (nq, room) float64
             on their scores
    rest     (nq,) float64, the bound on the score of any row that is no candidate; -inf: there is
             none
    scale, offset  (d,) float32, of vectors that are kept as bytes

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
        for mine, kept in (
            (is_base, vectors[some[is_base]]),
            (~is_base, delta[some[~is_base] - n]),
        ):
            exact[mine] = kept_scores(kept, scale, offset, query, metric)
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


# ---------------------------------------------------------------------------- building


def assign(vectors: F32, centroids: F32, threads: int = 1) -> tuple[I32, F32]:
    """Nearest centroid of every vector by L2.

    vectors (n, d), centroids (nlist, d). Returns (list (n,) int32, <x, c> - |c|^2/2 (n,) float32);
    ties go to the lower list. Costs one (n, d) x (d, nlist) product. The extension sorts out
    centroids by 8-bit products first, and may take another list where two are as near as the
    rounding of float32 or, in less than 1 of 1,000 vectors, of those products.
    """
    del threads
    scores = vectors @ centroids.T - 0.5 * np.square(centroids).sum(axis=1)
    nearest = scores.argmax(axis=1).astype(np.int32)
    return nearest, scores[np.arange(len(vectors)), nearest].astype(np.float32)


def spill_assign(
    vectors: F32,
    centroids: F32,
    primary: I32,
    soar_lambda: float,
    include_primary: bool = True,
    threads: int = 1,
) -> I32:
    """Second partition of every vector: argmin |x - c|^2 + lambda <r_hat, x - c>^2 over all c.

    r_hat is the unit primary residual (zero where |r|^2 <= 1e-7 |x|^2). Returns (n,) int32; equal
    to primary where nothing beats it, which `include_primary=False` rules out unless there is no
    other list. SOAR, theorem 3.1.
    """
    del threads
    residual = vectors - centroids[primary]
    squared = np.square(residual).sum(axis=1, keepdims=True)
    least = 1e-7 * np.square(vectors).sum(axis=1, keepdims=True)
    direction = np.where(squared <= least, 0, residual / np.sqrt(np.maximum(squared, 1e-37)))
    along = (direction * vectors).sum(axis=1, keepdims=True) - direction @ centroids.T
    cost = np.square(centroids).sum(axis=1) - 2 * (vectors @ centroids.T)
    cost = cost + np.float32(soar_lambda) * np.square(along)
    if not include_primary:
        cost[np.arange(len(vectors)), primary] = np.inf
    second: I32 = cost.argmin(axis=1).astype(np.int32)
    return second


class Assigner:
    """`assign` and `spill_assign` for one set of centroids, which is prepared once.

    Borrows centroids (nlist, d) float32, which must not change. What the calls cost besides their
    products no longer grows with nlist: for those who ask for a few vectors at a time.
    """

    def __init__(self, centroids: F32) -> None:
        self._centroids = centroids

    def assign(self, vectors: F32, threads: int = 1) -> tuple[I32, F32]:
        """`assign` of (n, d) vectors."""
        return assign(vectors, self._centroids, threads)

    def spill(
        self,
        vectors: F32,
        primary: I32,
        soar_lambda: float,
        include_primary: bool = True,
        threads: int = 1,
    ) -> I32:
        """`spill_assign` of (n, d) vectors with their primary lists (n,)."""
        return spill_assign(
            vectors, self._centroids, primary, soar_lambda, include_primary, threads
        )


def list_sums(vectors: F32, lists: I32, nlist: int, threads: int = 1) -> tuple[F32, I64]:
    """Sum of the vectors of each list, and how many: ((nlist, d) float32, (nlist,) int64).

    vectors (n, d), lists (n,) int32 within 0..nlist - 1. A list's vectors are added in order.
    """
    del threads
    counts = np.bincount(lists, minlength=nlist)
    sums = np.zeros((nlist, vectors.shape[1]), np.float32)
    order = np.argsort(lists, kind="stable")
    held = counts > 0
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[held]
    if len(starts):
        sums[held] = np.add.reduceat(vectors[order], starts, axis=0)
    return sums, counts


def avq_update(vectors: F32, lists: I32, centroids: F32, eta: float, threads: int = 1) -> F64:
    """Where each centroid minimises the anisotropic loss over its members: (nlist, d) float64.

    vectors (n, d), lists (n,) int32, centroids (nlist, d), eta >= 1. Solves, a list, the system
    (W + (eta - 1) sum w x x^T / |x|^2) c = eta sum w x with w = |x|^(eta - 1), any scale of w, and
    W the sum of w. A list without members that have a direction keeps its centroid. AVQ, section
    3.4. The extension solves to 1e-9 of the right-hand side.
    """
    del threads
    nlist, d = centroids.shape
    moved: F64 = centroids.astype(np.float64)
    order = np.argsort(lists, kind="stable")
    counts = np.bincount(lists, minlength=nlist)
    ends = np.cumsum(counts)
    for j in range(nlist):
        members = vectors[order[ends[j] - counts[j] : ends[j]]].astype(np.float64)
        squared = np.einsum("ij,ij->i", members, members)
        members, squared = members[squared > 0], squared[squared > 0]
        if not len(members):
            continue
        weights = (squared / squared.max()) ** ((eta - 1) / 2)  # of one list: any scale will do
        outer = (members * (weights / squared)[:, None]).T @ members
        system = weights.sum() * np.eye(d) + (eta - 1) * outer
        moved[j] = eta * np.linalg.solve(system, weights @ members)
    return moved


def encode(
    residuals: F32,
    directions: F32,
    eta: F32,
    codebook: F32,
    block_dims: I32,
    threads: int = 1,
) -> U8:
    """Product codes of (n, d) residuals, noise-shaped along (n, d) unit directions.

    eta (n,) float32 weighs error parallel to the direction against error across it; 1 gives the
    nearest code of each sub-space. codebook (m, width, 16), block_dims (m + 1,). Returns (n, m)
    uint8. Coordinate descent, at most 10 rounds, sub-spaces in order of falling error; a move that
    would raise the parallel error is never taken. AVQ, section 3.2.
    """
    del threads
    n, m = len(residuals), len(codebook)
    codes = np.empty((n, m), np.uint8)
    for i in range(n):
        codes[i] = _encode_one(residuals[i], directions[i], eta[i], codebook, block_dims)
    return codes


def _encode_one(residual: F32, direction: F32, eta: np.float32, codebook: F32, dims: I32) -> U8:
    m = len(codebook)
    norms = np.zeros((m, 16), np.float32)
    alongs = np.zeros((m, 16), np.float32)
    for b in range(m):
        for j, dim in enumerate(range(dims[b], dims[b + 1])):
            error = residual[dim] - codebook[b, j]
            norms[b] = norms[b] + error * error
            alongs[b] = alongs[b] + error * direction[dim]
    code: U8 = norms.argmin(axis=1).astype(np.uint8)
    if eta == 1:
        return code
    every = np.arange(m)
    parallel = np.float32(0)
    for b in range(m):
        parallel = parallel + alongs[b, code[b]]
    order = np.argsort(-norms[every, code], kind="stable")
    for _ in range(10):
        changed = False
        for b in order:
            old = code[b]
            moved = (parallel - alongs[b, old]) + alongs[b]  # (16,)
            d_parallel = moved * moved - parallel * parallel
            d_norm = norms[b] - norms[b, old]
            cost = eta * d_parallel + (d_norm - d_parallel)
            cost = np.where(d_parallel > 0, np.float32(np.inf), cost)
            cost[old] = 0
            best = int(cost.argmin())
            if cost[best] < 0:
                parallel = moved[best]
                code[b] = best
                changed = True
        if not changed:
            break
    return code


# ---------------------------------------------------------------------------- growable lists


def room_for(blocks: int) -> int:
    """Blocks given to a list that needs `blocks` and has to move: half as many again."""
    return blocks + max(blocks // 2, 1)


def append_codes(
    start: I64,
    count: I32,
    room: I64,
    used: int,
    codes: U8,
    rows: U32,
    parts: I32,
    new_rows: U32,
    new_codes: U8,
) -> tuple[int, int]:
    """Append (n,) pairs of a row and an (n, m) code to the lists parts (n,), in order, in place.

    start (nlist,) int64 first block of each list, count (nlist,) int32 its codes, room (nlist,)
    int64 the blocks that are its own; codes (nblock, m/8, 64) uint8 and rows (nblock * 16,) uint32
    are the arena, of which `used` blocks are taken. A list without room moves to the end of what
    is taken (`room_for`). Places after the last code of a block hold row 0 and code 0.

    Returns (how many were appended, used): fewer than n where the arena has no room for a list that
    has to move. Costs O(m) a pair, and the bytes of the lists that move.
    """
    for i, part in enumerate(parts.tolist()):
        block, lane = divmod(int(count[part]), BLOCK)
        if lane == 0 and block == room[part]:
            wanted = room_for(block + 1)
            if used + wanted > len(codes):
                return i, used
            old = int(start[part])
            codes[used : used + block] = codes[old : old + block]
            rows[used * BLOCK :][: block * BLOCK] = rows[old * BLOCK :][: block * BLOCK]
            start[part], room[part] = used, wanted
            used += wanted
        block += int(start[part])
        if lane == 0:
            codes[block] = 0
            rows[block * BLOCK : (block + 1) * BLOCK] = 0
        codes[block, :, 4 * lane : 4 * lane + 4] = pack_codes(new_codes[i : i + 1])[0, :, :4]
        rows[block * BLOCK + lane] = new_rows[i]
        count[part] += 1
    return len(parts), used


# ---------------------------------------------------------------------------- the fused search


def build_lut(query: F32, codebook: F32, block_dims: I32) -> tuple[U8, np.float32, np.float32]:
    """Byte tables of one extended query.

    query (block_dims[-1],), codebook (m, width, 16). Returns (lut (m, 16) uint8, span, floor):
    <query, codeword sum> ~ floor + sum(lut) * span / 255, where span is the widest table's range.
    """
    m = len(codebook)
    tables = np.zeros((m, 16), np.float32)
    for b in range(m):
        for j, dim in enumerate(range(block_dims[b], block_dims[b + 1])):
            tables[b] = tables[b] + query[dim] * codebook[b, j]
    low = tables.min(axis=1)
    span = np.float32((tables.max(axis=1) - low).max())
    floor = np.float32(0)
    for b in range(m):
        floor = floor + low[b]
    step = np.float32(255) / span if span >= _TINY else np.float32(0)
    return np.rint((tables - low[:, None]) * step).astype(np.uint8), span, floor


def bind_search(searcher: Any, d: int, k: int, plan: SearchPlan) -> BoundSearch:
    """What IvfSearcher.bind returns, over a searcher's search()."""

    def search_one(query: object) -> tuple[F32, I64] | None:
        is_read_in_place = (
            type(query) is np.ndarray
            and query.dtype == np.float32
            and query.shape == (1, d)
            and query.flags.c_contiguous
            and query.flags.aligned
        )
        if not is_read_in_place:
            return None
        scores, ids = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
        status = searcher.search(query, k, plan, 1, scores, ids)
        return None if status else (scores, ids)

    return search_one


class IvfSearcher:
    """The fused query over borrowed arrays. Same face in every backend."""

    def __init__(self, arrays: IvfArrays) -> None:
        self.arrays = arrays

    def bind(self, k: int, plan: SearchPlan) -> BoundSearch:
        """A search of one query that is told nothing else: the shortest way in and out.

        It takes a (1, d) float32 array in C order and returns scores (1, k) and ids (1, k). It
        returns None for anything else, and where search() would not return 0: search() then does
        what there is to do.
        """
        return bind_search(self, len(self.arrays.mean), k, plan)

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
        """Fill scores (nq, k) and ids (nq, k) for (nq, d) raw queries, best first.

        allowed  (bytes,) uint8, a bitmap as of np.packbits(..., bitorder="little"): only row r
                 whose bit r is set may be returned, none beyond the end. The answers are those of
                 lists that hold the allowed rows alone.
        scanned  (nq,) int64, receives how many codes the visited lists hold, before the filter

        Returns 0; or the first bad query as ``position * 4 + status`` (see layout.STATUS), which
        leaves the outputs undefined; or -1 when the visited lists held fewer than k rows for some
        query. What was not found is id -1 and score -inf.
        """
        del threads
        for i, query in enumerate(queries):
            status, count = self._search_one(query, k, plan, allowed, scores[i], ids[i])
            if status:
                return i * 4 + status
            if scanned is not None:
                scanned[i] = count
        return -1 if (ids < 0).any() else 0

    def _search_one(
        self, raw: F32, k: int, plan: SearchPlan, allowed: U8 | None, scores: F32, ids: I64
    ) -> tuple[int, int]:
        """Returns (status, codes scanned)."""
        a = self.arrays
        squared = lane_dot(raw, raw)
        if not np.isfinite(squared):
            return 1, 0
        # The square of a tiny query loses bits; a power of two moves nothing but the exponent.
        lifted = raw * np.float32(2.0**100 if squared < np.float32(2.0**-100) else 1)
        query, centred = raw, lifted
        if a.metric == "cosine":
            squared = lane_dot(lifted, lifted)
            if squared == 0:
                return 2, 0
            query = centred = lifted * np.float32(np.float32(1) / np.sqrt(squared))
        elif a.metric == "l2":
            centred = raw - a.mean

        slots, centroid_scores = self._best_lists(centred, plan)
        coded = centred
        if len(a.rotation_codes):
            coded = turn_query(centred, a.rotation_codes, a.rotation_scale)
        extended = np.ones(a.block_dims[-1], np.float32)
        dims = len(extended) - (2 if a.metric == "l2" else 0)
        extended[:dims] = coded[:dims]
        lut, span, floor = build_lut(extended, a.codebook, a.block_dims)
        margin = np.float32(np.inf)
        if plan.stop < np.inf:
            size = np.sqrt(np.float32(lane_dot(centred, centred)))
            margin = np.float32(plan.stop) * (np.float32(a.spread) * np.float32(size))
        keys, rows, count = self._scan(
            slots, centroid_scores, lut, span, floor, margin, plan.collect, allowed
        )
        chosen = first_largest(keys, plan.collect)
        keys, rows = keys[chosen], rows[chosen]
        if a.is_spilled:
            keys, rows = average_copies(keys, rows)
        rows = rows[first_largest(keys, plan.rerank)]

        codes, step = quantize_query(centred, a.store_scale)
        rough = dot_u8(self._take("store", rows), codes).astype(np.float32) * step
        if a.metric == "l2":
            rough = rough - self._take("store_bias", rows)
        rows = rows[first_largest(rough, plan.refine)]
        kept = self._take("vectors", rows)
        exact = kept_scores(kept, a.store_scale, a.vector_offset, query, a.metric)
        found = self._take("ids", rows)
        best = np.lexsort((found, -exact))[:k]
        scores[:], ids[:] = -np.inf, -1
        scores[: len(best)], ids[: len(best)] = exact[best], found[best]
        return 0, count

    def _take(self, name: str, rows: U32) -> Any:
        """Elements of a row-wise array: of the base below row n, of the delta from there on."""
        base, delta = getattr(self.arrays, name), getattr(self.arrays, f"delta_{name}")
        if not len(delta):
            return base[rows]
        is_base = rows < len(base)
        out = np.empty((len(rows), *base.shape[1:]), base.dtype)
        out[is_base] = base[rows[is_base]]
        out[~is_base] = delta[rows[~is_base] - len(base)]
        return out

    def _best_lists(self, query: F32, plan: SearchPlan) -> tuple[I64, F32]:
        """Slots to visit, in visiting order, and the score of each slot's centroid."""
        a = self.arrays
        codes, step = quantize_query(query, a.centroid_scale)
        offset = lane_dot(query, a.centroid_offset)
        blocks = np.arange(len(a.centroid_codes))
        if len(a.cell_bias):
            cells = score_blocks_u8(a.cell_codes, codes).astype(np.float32)
            best = first_largest(cells * step + a.cell_bias, plan.cellprobe)
            best = best[best < len(a.cell_start) - 1]  # no padding
            blocks = np.concatenate(
                [np.arange(a.cell_start[cell], a.cell_start[cell + 1]) for cell in best]
            )
        slots = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        products = score_blocks_u8(a.centroid_codes[blocks], codes).astype(np.float32)
        scores = products * step + a.centroid_bias[slots]
        chosen = first_largest(scores, plan.nprobe)
        chosen = chosen[a.slot_list[slots[chosen]] >= 0]
        order = chosen[roughly_sorted(scores[chosen])]
        return slots[order], scores[order] + offset

    def _scan(
        self,
        slots: I64,
        scores: F32,
        lut: U8,
        span: np.float32,
        floor: np.float32,
        margin: np.float32,
        keep: int,
        allowed: U8 | None,
    ) -> tuple[I32, U32, int]:
        """The allowed codes of the visited lists as (integer keys, rows), in visiting order.

        The third is how many codes these lists hold. A list is passed over where its centroid
        scores lower, by more than the margin, than the keep-th best code at the last look; looks
        are taken after 8, 12, 16, 24, 32, 48, ... lists.
        """
        a = self.arrays
        peak = np.float32(np.max(np.abs(scores), initial=0.0))
        # The floor of the span keeps a list's integer bias below 2^29.
        widest = np.maximum(span, (peak + np.abs(floor)) * np.float32(2.0**-20))
        step = np.float64(np.float32(255) / widest if widest >= _TINY else np.float32(0))
        if widest > span:
            lut = np.zeros_like(lut)
        keys, rows, count = [np.empty(0, np.int32)], [np.empty(0, np.uint32)], 0
        look = FIRST_LOOK if margin < np.inf else len(slots)
        least_reach = -(2**31)
        for i, (slot, score) in enumerate(zip(slots, scores, strict=True)):
            if i == look:
                found = np.concatenate(keys)
                if len(found) > keep:
                    slack = np.rint(min(np.float64(margin) * step, 2.0**29))
                    least_reach = int(np.sort(found)[-keep]) - int(slack)
                look = next_look(look)
            if np.rint(np.float64(score) * step) < least_reach:
                continue
            part = a.slot_list[slot]
            bias = np.int32(np.rint(np.float64(score + floor) * step))
            for packed, code_rows in self._codes_of(part):
                count += len(code_rows)
                sums = lut16_sums(packed, len(code_rows), lut) + bias
                passes = slice(None) if allowed is None else is_allowed(code_rows, allowed)
                keys.append(sums[passes])
                rows.append(code_rows[passes])
        return np.concatenate(keys), np.concatenate(rows), count

    def _codes_of(self, part: np.int32) -> Iterator[tuple[U8, U32]]:
        """Packed codes of one list and the row of each: those of the base, then the delta's."""
        a = self.arrays
        for start, count, codes, code_rows in (
            (a.list_start, a.list_count, a.codes, a.code_rows),
            (a.delta_start, a.delta_count, a.delta_codes, a.delta_code_rows),
        ):
            if len(start):
                first, n = start[part], count[part]
                rows = code_rows[first * BLOCK : first * BLOCK + n]
                yield codes[first : first + -(-n // BLOCK)], rows


def is_allowed(rows: U32, bitmap: U8) -> npt.NDArray[np.bool_]:
    """Whether bit r of a bitmap, in little bit order, is set for each of (n,) rows r."""
    bits = np.unpackbits(bitmap, bitorder="little").astype(bool)
    inside = rows < len(bits)
    inside[inside] = bits[rows[inside]]
    return inside


def average_copies(keys: I32, rows: U32) -> tuple[I32, U32]:
    """Join the two codes of a row: the floor of their mean key, at the first one's place."""
    seen: dict[int, int] = {}
    out_keys: list[int] = []
    out_rows: list[int] = []
    for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
        if row in seen:
            out_keys[seen[row]] = (out_keys[seen[row]] + key) >> 1
        else:
            seen[row] = len(out_rows)
            out_keys.append(key)
            out_rows.append(row)
    return np.array(out_keys, np.int32), np.array(out_rows, np.uint32)
