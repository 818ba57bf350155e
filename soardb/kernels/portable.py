"""The kernels in Numba, for machines without the extension: the same names, the same answers.

    dispatch.py -> [portable.py] == reference.py, native/

Plain loops, compiled once a machine and cached beside this file (or where NUMBA_CACHE_DIR says).
Fast-math stays off, so that no sum is put in another order and no product is fused with a sum; only
the matrix kernels, which may round differently, allow fused multiply-adds. Numbers are float32
throughout: a bare 2.0 would make a float64 of its neighbour.

Arrays reach compiled code as read-only views: mapped files are read-only, and each kind of array
would else be compiled for anew. `threads` of a call are threads of its own that end with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from soardb.kernels.layout import (
    BLOCK,
    F32,
    FIRST_LOOK,
    I8,
    I32,
    I64,
    STEPS,
    U8,
    U32,
    BoundSearch,
    IvfArrays,
    Metric,
    SearchPlan,
    Values,
)
from soardb.kernels.reference import (
    avq_update,
    bind_search,
    list_sums,
    pack_codes,
    pack_u8_blocks,
    rescore,
    store_error,
    topk_u8,
    unpack_codes,
)
from soardb.kernels.topk_portable import (
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

U16 = npt.NDArray[np.uint16]
A = TypeVar("A", bound=npt.NDArray[Any])

_PANEL = 64
"""Vectors side by side in a panel of the matrix kernels: (d, 64), so that one fits a cache."""

_ROW_BLOCK = 2048
"""Rows that exact_topk turns into panels at once."""

_QUERY_BLOCK = 1024
"""Queries whose candidates exact_topk holds at once."""

_EXTRA_CANDIDATES = 16
_POOL_SLACK = 512
_NOTHING_YET = -(2**31) - 1
"""A threshold below every key."""

_ZERO, _ONE = np.float32(0), np.float32(1)
_127, _128, _255 = np.float32(127), np.float32(128), np.float32(255)
_FLOAT32, _BFLOAT16, _INT8 = 0, 1, 2
_TINY, _SMALL = np.float32(2.0**-110), np.float32(2.0**-100)  # as in reference.py
_LIFT, _BIAS_RANGE = np.float32(2.0**100), np.float32(2.0**-20)
_INFINITY = np.float32(np.inf)

_jit: Any = njit(cache=True, nogil=True, error_model="numpy")
_matrix: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


def _frozen(array: A) -> A:
    view = array.view()
    view.flags.writeable = False
    return view


def _spread(n: int, grain: int, threads: int, body: Callable[[int, int], object]) -> None:
    """Call body(begin, end) over [0, n) in pieces of `grain`, on `threads` threads."""
    if threads <= 1 or n <= grain:
        if n:
            body(0, n)
        return
    begins = range(0, n, grain)
    with ThreadPoolExecutor(min(threads, len(begins))) as pool:
        list(pool.map(lambda begin: body(begin, min(begin + grain, n)), begins))


# ---------------------------------------------------------------------------- products


@_jit
def _fold(lanes: F32) -> np.float32:
    """reference.fold_lanes of 64 lanes, which are overwritten."""
    for j in range(16):
        lanes[j] = (lanes[j] + lanes[16 + j]) + (lanes[32 + j] + lanes[48 + j])
    half = 8
    while half > 0:
        for j in range(half):
            lanes[j] = lanes[j] + lanes[half + j]
        half //= 2
    return np.float32(lanes[0])


@_jit
def _dot(left: F32, right: F32, lanes: F32) -> np.float32:
    """reference.lane_dot of two vectors."""
    whole = len(right) // 64 * 64
    lanes[:] = _ZERO
    for i in range(0, whole, 64):
        for j in range(64):
            lanes[j] += left[i + j] * right[i + j]
    for j in range(len(right) - whole):
        lanes[j] += left[whole + j] * right[whole + j]
    return np.float32(_fold(lanes))


@_jit
def _score(row: F32, query: F32, is_l2: bool, lanes: F32) -> np.float32:
    if not is_l2:
        return np.float32(_dot(row, query, lanes))
    whole = len(query) // 64 * 64
    lanes[:] = _ZERO
    for i in range(0, whole, 64):
        for j in range(64):
            difference = row[i + j] - query[i + j]
            lanes[j] += difference * difference
    for j in range(len(query) - whole):
        difference = row[whole + j] - query[whole + j]
        lanes[j] += difference * difference
    return np.float32(-_fold(lanes))


@_jit
def _element(base: Any, delta: Any, i: int) -> Any:
    """Element i of an array in two segments."""
    return base[i] if i < len(base) else delta[i - len(base)]


@_jit
def _score_rows(base: F32, delta: F32, rows: U32, query: F32, is_l2: bool, out: F32) -> None:
    lanes = np.empty(64, np.float32)
    for i in range(len(rows)):
        out[i] = _score(_element(base, delta, np.int64(rows[i])), query, is_l2, lanes)


@_jit
def _dot_rows(base: U8, delta: U8, rows: U32, query: I8, out: I32) -> None:
    for i in range(len(rows)):
        row = _element(base, delta, np.int64(rows[i]))
        total = np.int64(0)
        for j in range(len(query)):
            total += (np.int32(row[j]) - 128) * np.int32(query[j])
        out[i] = total


@_jit
def _score_blocks(blocks: U8, query: I8, out: I32) -> None:
    for b in range(blocks.shape[0]):
        for i in range(16):
            total = np.int64(0)
            for j in range(blocks.shape[1]):
                for part in range(4):
                    code = np.int32(blocks[b, j, i, part]) - 128
                    total += code * np.int32(query[4 * j + part])
            out[16 * b + i] = total


@_jit
def _open(values: Any, kind: int, scale: F32, offset: F32, out: F32) -> None:
    """reference.opened of one row."""
    if kind == _BFLOAT16:
        bits = np.empty(len(out), np.uint32)
        for j in range(len(out)):
            bits[j] = np.uint32(values[j]) << np.uint32(16)
        out[:] = bits.view(np.float32)
    else:
        for j in range(len(out)):
            level = np.float32(values[j]) - _128
            out[j] = offset[j] + scale[j] * level


@_jit
def _score_kept(
    base: Any,
    delta: Any,
    kind: int,
    scale: F32,
    offset: F32,
    rows: U32,
    query: F32,
    is_l2: bool,
    is_cosine: bool,
    out: F32,
) -> None:
    """reference.kept_scores of chosen rows."""
    lanes = np.empty(64, np.float32)
    opened = np.empty(len(query), np.float32)
    for i in range(len(rows)):
        row = _element(base, delta, np.int64(rows[i]))
        if kind == _FLOAT32:
            out[i] = _score(row, query, is_l2, lanes)
        else:
            _open(row, kind, scale, offset, opened)
            out[i] = _score(opened, query, is_l2, lanes)
            if is_cosine:
                squared = _dot(opened, opened, lanes)
                if squared > _ZERO:
                    out[i] = out[i] / np.sqrt(squared)


def _kind(values: Values) -> int:
    """Which form values are kept in, as a number that compiled code can tell apart."""
    return {"float32": _FLOAT32, "uint16": _BFLOAT16, "uint8": _INT8}[values.dtype.name]


def exact_scores(vectors: F32, query: F32, metric: Metric) -> F32:
    """See reference.exact_scores; one query, (n, d) rows."""
    return rerank_f32(vectors, np.arange(len(vectors), dtype=np.uint32), query, metric)


def rerank_f32(vectors: F32, rows: U32, query: F32, metric: Metric) -> F32:
    """See reference.rerank_f32."""
    out = np.empty(len(rows), np.float32)
    vectors = _frozen(vectors)
    _score_rows(vectors, vectors[:0], rows.copy(), query.copy(), metric == "l2", out)
    return out


def dot_u8(rows: U8, query: I8) -> I32:
    """See reference.dot_u8."""
    return rerank_u8(rows, np.arange(len(rows), dtype=np.uint32), query)


def rerank_u8(store: U8, rows: U32, query: I8) -> I32:
    """See reference.rerank_u8."""
    out = np.empty(len(rows), np.int32)
    store = _frozen(store)
    _dot_rows(store, store[:0], rows.copy(), query.copy(), out)
    return out


def score_blocks_u8(blocks: U8, query: I8) -> I32:
    """See reference.score_blocks_u8."""
    padded = np.zeros(blocks.shape[1] * 4, np.int8)
    padded[: len(query)] = query
    out = np.empty(len(blocks) * BLOCK, np.int32)
    _score_blocks(_frozen(blocks), padded, out)
    return out


# ---------------------------------------------------------------------------- selection


@_jit
def _keep_largest(keys: I32, values: U32, n: int, keep: int) -> tuple[int, int]:
    """Keep the `keep` biggest of n keys with their values, in place and in order of arrival.

    Returns (how many are left, the key that a later one must exceed); equal keys: the earlier stay.
    """
    if n <= keep:
        return n, _NOTHING_YET
    low, high = np.int64(2**31), np.int64(-(2**31))
    for i in range(n):
        low = min(low, np.int64(keys[i]))
        high = max(high, np.int64(keys[i]))
    high += 1
    while high - low > 1:  # as many as `keep` keys reach low, fewer reach high
        middle = low + (high - low) // 2
        count = 0
        for i in range(n):
            count += keys[i] >= middle
        if count >= keep:
            low = middle
        else:
            high = middle
        if count == keep:
            break
    ties = keep
    for i in range(n):
        ties -= keys[i] > low
    kept = 0
    for i in range(n):
        key = keys[i]
        is_tie = key == low and ties > 0
        if key > low or is_tie:
            ties -= is_tie
            keys[kept] = key
            values[kept] = values[i]
            kept += 1
    return kept, int(low)


@_jit
def _sortable(scores: F32, n: int) -> I32:
    """The bits of n floats as integers that sort the same way; -0 and +0 are made one."""
    keys = np.empty(n, np.float32)
    for i in range(n):
        keys[i] = scores[i] + _ZERO
    bits = keys.view(np.int32)
    for i in range(n):
        if bits[i] < 0:
            bits[i] ^= 0x7FFF_FFFF
    return bits


@_jit
def _best_first(scores: F32, ids: I64) -> I64:
    """Positions by falling score, equal scores by rising id (Shell sort)."""
    n = len(scores)
    order = np.arange(n)
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            moving = order[i]
            j = i
            while j >= gap:
                other = order[j - gap]
                if scores[moving] < scores[other]:
                    break
                if scores[moving] == scores[other] and ids[moving] >= ids[other]:
                    break
                order[j] = other
                j -= gap
            order[j] = moving
        gap //= 3
    return order


# ---------------------------------------------------------------------------- packed 4-bit codes


@_jit
def _pair_tables(lut: U8) -> U16:
    """(m, 16) tables as (m/2, 256): one for each of the bytes that a vector has in its lines."""
    pairs = np.empty((len(lut) // 2, 256), np.uint16)
    for byte in range(len(pairs)):
        sub = byte // 4 * 8 + byte % 4
        for high in range(16):
            for low in range(16):
                pairs[byte, 16 * high + low] = np.int64(lut[sub, low]) + lut[sub + 4, high]
    return pairs


@_jit
def _code_sum(packed: U8, i: int, pairs: U16) -> int:
    block, at = i // 16, i % 16 * 4
    total = 0
    for g in range(packed.shape[1]):
        for part in range(4):
            total += pairs[4 * g + part, packed[block, g, at + part]]
    return total


@_jit
def _code_sums(packed: U8, lut: U8, out: I32) -> None:
    pairs = _pair_tables(lut)
    for i in range(len(out)):
        out[i] = _code_sum(packed, i, pairs)


@_jit
def _is_allowed(bitmap: U8, row: int) -> bool:
    """reference.is_allowed of one row."""
    byte = row >> 3
    return byte < len(bitmap) and (np.int64(bitmap[byte]) >> (row & 7)) & 1 == 1


@_jit
def _scan(
    packed: U8,
    n: int,
    pairs: U16,
    bias: int,
    first: int,
    keep: int,
    keys: I32,
    places: U32,
    size: int,
    threshold: int,
    rows: U32,
    allowed: U8,
    is_filtered: bool,
) -> tuple[int, int]:
    """Push what exceeds the threshold into the pool; returns its size and the new threshold.

    is_filtered: of (>= n,) rows only those whose bit of the bitmap is set.
    """
    is_open = threshold == _NOTHING_YET
    for i in range(n):
        if is_filtered and is_open and not _is_allowed(allowed, np.int64(rows[i])):
            continue  # spares the sum
        key = bias + _code_sum(packed, i, pairs)
        if key > threshold and (
            is_open or not is_filtered or _is_allowed(allowed, np.int64(rows[i]))
        ):
            keys[size] = key
            places[size] = first + i
            size += 1
            if size == len(keys):
                size, threshold = _keep_largest(keys, places, size, keep)
                is_open = False
    return size, threshold


@_jit
def _scan_all(packed: U8, n: int, lut: U8, bias: int, keep: int, keys: I32, places: U32) -> int:
    size, threshold = np.int64(0), np.int64(_NOTHING_YET)
    first, pairs = np.int64(0), _pair_tables(lut)
    rows, allowed = np.empty(0, np.uint32), np.empty(0, np.uint8)
    size, threshold = _scan(
        packed, n, pairs, bias, first, keep, keys, places, size, threshold, rows, allowed, False
    )
    return int(_keep_largest(keys, places, size, keep)[0])


def lut16_sums(packed: U8, n: int, lut: U8) -> I32:
    """See reference.lut16_sums."""
    out = np.empty(n, np.int32)
    _code_sums(_frozen(packed), lut.copy(), out)
    return out


def lut16_topk(packed: U8, n: int, lut: U8, bias: int, keep: int) -> tuple[I32, I32]:
    """See reference.lut16_topk."""
    room = 2 * keep + _POOL_SLACK
    keys, places = np.empty(room, np.int32), np.empty(room, np.uint32)
    found = _scan_all(_frozen(packed), n, lut.copy(), int(bias), keep, keys, places)
    return keys[:found], places[:found].astype(np.int32)


# ---------------------------------------------------------------------------- matrix kernels


def _panels(vectors: F32) -> F32:
    """(n, d) vectors as (ceil(n/64), d, 64), padded with zeros."""
    n, d = vectors.shape
    count = -(-n // _PANEL)
    padded = np.zeros((count * _PANEL, d), np.float32)
    padded[:n] = vectors
    return np.ascontiguousarray(padded.reshape(count, _PANEL, d).transpose(0, 2, 1))


def _padded_norms(centroids: F32, factor: float) -> F32:
    """|c|^2 times factor, +inf for the padding of `_panels`, which so never wins."""
    norms = np.full(-(-len(centroids) // _PANEL) * _PANEL, np.inf, np.float32)
    norms[: len(centroids)] = np.square(centroids, dtype=np.float64).sum(axis=1) * factor
    return norms


@_matrix
def _products(x: F32, panel: F32, out: F32) -> None:
    """out (64,) = x @ panel; four dimensions at a time, so that out is loaded less often."""
    d = len(x)
    out[:] = _ZERO
    whole = d // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, e = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(_PANEL):
            total = out[j] + a * panel[i, j]
            total = total + b * panel[i + 1, j]
            total = total + c * panel[i + 2, j]
            out[j] = total + e * panel[i + 3, j]
    for i in range(whole, d):
        for j in range(_PANEL):
            out[j] += x[i] * panel[i, j]


@_matrix
def _minus_distances(x: F32, panel: F32, out: F32) -> None:
    """out (64,) = minus the squared distances of x from the columns of a panel."""
    out[:] = _ZERO
    for i in range(len(x)):
        for j in range(_PANEL):
            difference = x[i] - panel[i, j]
            out[j] -= difference * difference


@_jit
def _assign(vectors: F32, panels: F32, half_norms: F32, out: I32, scores: F32) -> None:
    products = np.empty(_PANEL, np.float32)
    out[:] = 0
    scores[:] = -_INFINITY
    for p in range(len(panels)):  # a panel stays in the cache while the vectors pass by
        for i in range(len(vectors)):
            _products(vectors[i], panels[p], products)
            for j in range(_PANEL):
                score = products[j] - half_norms[p * _PANEL + j]
                if score > scores[i]:
                    scores[i] = score
                    out[i] = p * _PANEL + j


@_jit
def _spill(
    vectors: F32,
    directions: F32,
    along: F32,
    panels: F32,
    norms: F32,
    primary: I32,
    soar_lambda: np.float32,
    include_primary: bool,
    out: I32,
) -> None:
    dots, shadows = np.empty(_PANEL, np.float32), np.empty(_PANEL, np.float32)
    lowest = np.full(len(vectors), _INFINITY)
    out[:] = 0
    for p in range(len(panels)):
        for i in range(len(vectors)):
            _products(vectors[i], panels[p], dots)
            _products(directions[i], panels[p], shadows)
            for j in range(_PANEL):
                column = p * _PANEL + j
                shadow = along[i] - shadows[j]
                cost = (norms[column] - (dots[j] + dots[j])) + soar_lambda * (shadow * shadow)
                if cost < lowest[i] and (include_primary or column != primary[i]):
                    lowest[i] = cost
                    out[i] = column


class Assigner:
    """See reference.Assigner. Holds the centroids in the panels of the matrix kernels."""

    def __init__(self, centroids: F32) -> None:
        self._centroids = _frozen(centroids)
        self._panels = _frozen(_panels(centroids))
        self._norms = _frozen(_padded_norms(centroids, 1.0))
        self._half_norms = _frozen(_padded_norms(centroids, 0.5))

    def assign(self, vectors: F32, threads: int = 1) -> tuple[I32, F32]:
        """See reference.assign."""
        out, scores = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)
        vectors = _frozen(vectors)

        def some(begin: int, end: int) -> None:
            part = slice(begin, end)
            _assign(vectors[part], self._panels, self._half_norms, out[part], scores[part])

        _spread(len(vectors), 1024, threads, some)
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
        vectors, primary = _frozen(vectors), _frozen(primary)

        def some(begin: int, end: int) -> None:
            x = vectors[begin:end]
            residual = (x - self._centroids[primary[begin:end]]).astype(np.float64)
            squared = np.square(residual).sum(axis=1, keepdims=True)
            least = 1e-7 * np.square(x, dtype=np.float64).sum(axis=1, keepdims=True)
            inverse = np.where(squared <= least, 0, 1 / np.sqrt(np.maximum(squared, 1e-300)))
            directions = (residual * inverse).astype(np.float32)
            along = np.einsum("nd,nd->n", directions, x, dtype=np.float64).astype(np.float32)
            _spill(
                x,
                _frozen(directions),
                _frozen(along),
                self._panels,
                self._norms,
                primary[begin:end],
                np.float32(soar_lambda),
                include_primary,
                out[begin:end],
            )

        _spread(len(vectors), 1024, threads, some)
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


@_jit
def _offer_panels(
    panels: F32,
    count: int,
    first: int,
    queries: F32,
    is_l2: bool,
    keep: int,
    keys: I32,
    rows: U32,
    sizes: I64,
    thresholds: I64,
) -> None:
    """Push the scores of `count` rows from row `first` into the pool of each query."""
    scores = np.empty(_PANEL, np.float32)
    for p in range(len(panels)):
        for q in range(len(queries)):
            if is_l2:
                _minus_distances(queries[q], panels[p], scores)
            else:
                _products(queries[q], panels[p], scores)
            found = _sortable(scores, min(_PANEL, count - p * _PANEL))
            size, threshold = sizes[q], thresholds[q]
            for j in range(len(found)):
                if found[j] > threshold:
                    keys[q, size] = found[j]
                    rows[q, size] = first + p * _PANEL + j
                    size += 1
            if size > keys.shape[1] - _PANEL:
                size, threshold = _keep_largest(keys[q], rows[q], size, keep)
            sizes[q], thresholds[q] = size, threshold


@_jit
def _finish_topk(
    vectors: F32,
    queries: F32,
    is_l2: bool,
    keep: int,
    keys: I32,
    rows: U32,
    sizes: I64,
    out_scores: F32,
    out_rows: I64,
) -> None:
    """Score each query's candidates again, in the shared order, and write the best."""
    for q in range(len(queries)):
        size = _keep_largest(keys[q], rows[q], sizes[q], keep)[0]
        exact = np.empty(size, np.float32)
        _score_rows(vectors, vectors[:0], rows[q, :size], queries[q], is_l2, exact)
        order = _best_first(exact, rows[q, :size].astype(np.int64))
        for i in range(out_rows.shape[1]):
            out_scores[q, i] = exact[order[i]]
            out_rows[q, i] = rows[q, order[i]]


def exact_topk(
    vectors: F32, queries: F32, k: int, metric: Metric, threads: int = 1
) -> tuple[F32, I64]:
    """See reference.exact_topk."""
    n, is_l2, keep = len(vectors), metric == "l2", min(k + _EXTRA_CANDIDATES, len(vectors))
    out_scores = np.empty((len(queries), k), np.float32)
    out_rows = np.empty((len(queries), k), np.int64)
    vectors, queries = _frozen(vectors), queries.copy()

    def some(begin: int, end: int) -> None:
        room = (end - begin, 2 * keep + _POOL_SLACK)
        keys, rows = np.empty(room, np.int32), np.empty(room, np.uint32)
        sizes, thresholds = np.zeros(room[0], np.int64), np.full(room[0], _NOTHING_YET)
        x = queries[begin:end]
        for first in range(0, n, _ROW_BLOCK):
            count = min(_ROW_BLOCK, n - first)
            panels = _frozen(_panels(vectors[first : first + count]))
            _offer_panels(panels, count, first, x, is_l2, keep, keys, rows, sizes, thresholds)
        scores = out_scores[begin:end]
        _finish_topk(vectors, x, is_l2, keep, keys, rows, sizes, scores, out_rows[begin:end])

    share = -(-len(queries) // max(threads, 1))
    for begin in range(0, len(queries), _QUERY_BLOCK * max(threads, 1)):
        end = min(begin + _QUERY_BLOCK * max(threads, 1), len(queries))
        _spread(end - begin, max(1, min(share, _QUERY_BLOCK)), threads, some)
    return out_scores, out_rows


# ---------------------------------------------------------------------------- encoding


@_jit
def _encode_one(
    residual: F32, direction: F32, eta: np.float32, codebook: F32, dims: I32, code: U8
) -> None:
    m = len(codebook)
    norms, alongs = np.zeros((m, 16), np.float32), np.zeros((m, 16), np.float32)
    chosen = np.empty(m, np.float32)
    parallel = _ZERO
    for b in range(m):
        for j in range(dims[b], dims[b + 1]):
            for c in range(16):
                error = residual[j] - codebook[b, j - dims[b], c]
                norms[b, c] += error * error
                alongs[b, c] += error * direction[j]
        nearest = 0
        for c in range(16):
            nearest = c if norms[b, c] < norms[b, nearest] else nearest
        code[b] = nearest
        chosen[b] = norms[b, nearest]
        parallel += alongs[b, nearest]
    if eta == _ONE:
        return
    order = _best_first(chosen, np.arange(m))
    for _ in range(10):
        changed = False
        for b in order:
            old = code[b]
            best, lowest = np.int64(old), _ZERO
            for c in range(16):
                moved = (parallel - alongs[b, old]) + alongs[b, c]
                d_parallel = moved * moved - parallel * parallel
                d_norm = norms[b, c] - norms[b, old]
                cost = eta * d_parallel + (d_norm - d_parallel)
                if d_parallel <= _ZERO and cost < lowest and c != old:
                    best, lowest = np.int64(c), cost
            if lowest < _ZERO:
                parallel = (parallel - alongs[b, old]) + alongs[b, best]
                code[b] = best
                changed = True
        if not changed:
            break


@_jit
def _encode(residuals: F32, directions: F32, eta: F32, codebook: F32, dims: I32, out: U8) -> None:
    for i in range(len(residuals)):
        _encode_one(residuals[i], directions[i], eta[i], codebook, dims, out[i])


def encode(
    residuals: F32, directions: F32, eta: F32, codebook: F32, block_dims: I32, threads: int = 1
) -> U8:
    """See reference.encode."""
    out = np.empty((len(residuals), len(codebook)), np.uint8)
    residuals, directions, eta = _frozen(residuals), _frozen(directions), _frozen(eta)
    codebook, dims = _frozen(codebook), _frozen(block_dims)

    def some(begin: int, end: int) -> None:
        part = slice(begin, end)
        _encode(residuals[part], directions[part], eta[part], codebook, dims, out[part])

    _spread(len(residuals), 1024, threads, some)
    return out


# ---------------------------------------------------------------------------- growable lists


@_jit
def _append_codes(
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
    for i in range(len(parts)):
        part = parts[i]
        block, lane = np.int64(count[part]) // 16, np.int64(count[part]) % 16
        if lane == 0 and block == room[part]:
            wanted = block + 1 + (block + 1) // 2 if block > 0 else np.int64(2)  # room_for
            if used + wanted > len(codes):
                return i, used
            old = start[part]
            codes[used : used + block] = codes[old : old + block]
            rows[used * 16 : (used + block) * 16] = rows[old * 16 : (old + block) * 16]
            start[part], room[part] = used, wanted
            used = int(used + wanted)
        block += start[part]
        if lane == 0:
            codes[block] = 0
            rows[block * 16 : (block + 1) * 16] = 0
        for g in range(codes.shape[1]):
            for byte in range(4):
                low, high = new_codes[i, 8 * g + byte], new_codes[i, 8 * g + 4 + byte]
                codes[block, g, 4 * lane + byte] = low | high << 4
        rows[block * 16 + lane] = new_rows[i]
        count[part] += 1
    return len(parts), used


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
    """See reference.append_codes."""
    new = _frozen(parts), _frozen(new_rows), _frozen(new_codes)
    appended, used = _append_codes(start, count, room, used, codes, rows, *new)
    return appended, used


# ---------------------------------------------------------------------------- the fused search


class _Ivf(NamedTuple):
    """What compiled code reads of IvfArrays; see layout.py."""

    is_l2: bool
    is_cosine: bool
    is_spilled: bool
    spread: np.float32
    kind: int
    vectors: Any
    ids: I64
    mean: F32
    centroid_bias: F32
    centroid_codes: U8
    centroid_scale: F32
    centroid_offset: F32
    slot_list: I32
    cell_codes: U8
    cell_bias: F32
    cell_start: I32
    list_start: I64
    list_count: I32
    codes: U8
    code_rows: U32
    codebook: F32
    block_dims: I32
    store: U8
    store_scale: F32
    store_bias: F32
    rotation_codes: U8
    rotation_scale: F32
    vector_offset: F32
    delta_vectors: Any
    delta_ids: I64
    delta_store: U8
    delta_store_bias: F32
    delta_start: I64
    delta_count: I32
    delta_codes: U8
    delta_code_rows: U32


@_jit
def _quantize(query: F32, scale: F32, out: I8) -> np.float32:
    """reference.quantize_query into out, zeros after the last dimension; returns the step."""
    peak = _ZERO
    for i in range(len(scale)):
        peak = max(peak, abs(query[i] * scale[i]))
    out[:] = 0
    if peak < _TINY:
        return _ZERO
    inverse = _127 / peak
    for i in range(len(scale)):
        out[i] = np.int8(np.rint(query[i] * scale[i] * inverse))
    return peak / _127


@_jit
def _coded_query(ivf: _Ivf, centred: F32) -> F32:
    """What the sub-spaces are of: reference.turn_query, and what l2 multiplies by one."""
    if len(ivf.rotation_codes) == 0:
        return centred
    d = len(ivf.mean)
    codes = np.empty(4 * ivf.rotation_codes.shape[1], np.int8)
    step = _quantize(centred, np.ones(d, np.float32), codes)
    products = np.empty(len(ivf.rotation_scale), np.int32)
    _score_blocks(ivf.rotation_codes, codes, products)
    coded = np.ones(ivf.block_dims[-1], np.float32)
    for i in range(len(coded) - (2 if ivf.is_l2 else 0)):
        coded[i] = np.float32(products[i]) * step * ivf.rotation_scale[i]
    return coded


@_jit
def _build_lut(query: F32, codebook: F32, dims: I32) -> tuple[U8, np.float32, np.float32]:
    """reference.build_lut."""
    m = len(codebook)
    tables, lows = np.zeros((m, 16), np.float32), np.empty(m, np.float32)
    span, floor = _ZERO, _ZERO
    for b in range(m):
        for j in range(dims[b], dims[b + 1]):
            for c in range(16):
                tables[b, c] += query[j] * codebook[b, j - dims[b], c]
        low = high = tables[b, 0]
        for c in range(1, 16):
            low, high = min(low, tables[b, c]), max(high, tables[b, c])
        lows[b] = low
        floor += low
        span = max(span, high - low)
    step = _255 / span if span >= _TINY else _ZERO
    lut = np.empty((m, 16), np.uint8)
    for b in range(m):
        for c in range(16):
            lut[b, c] = np.uint8(np.rint((tables[b, c] - lows[b]) * step))
    return lut, span, floor


@_jit
def _score_slots(
    codes: U8,
    bias: F32,
    first: int,
    end: int,
    query: I8,
    step: np.float32,
    scores: F32,
    slots: U32,
    seen: int,
) -> int:
    """Append scores and numbers of the slots in blocks first..end; returns how many there are."""
    products = np.empty((end - first) * 16, np.int32)
    _score_blocks(codes[first:end], query, products)
    for i in range(len(products)):
        slot = first * 16 + i
        scores[seen + i] = np.float32(products[i]) * step + bias[slot]
        slots[seen + i] = slot
    return seen + len(products)


@_jit
def _sort_roughly(lists: I32, scores: F32) -> None:
    """reference.roughly_sorted in place, of lists and their scores."""
    n = len(scores)
    best, worst = -_INFINITY, _INFINITY
    for i in range(n):
        best, worst = max(best, scores[i]), min(worst, scores[i])
    span = best - worst
    if not (span >= _TINY and span < _INFINITY):
        return
    inverse = np.float32(STEPS - 1) / span
    steps, start = np.empty(n, np.int32), np.zeros(STEPS + 1, np.int64)
    for i in range(n):
        steps[i] = np.int32((best - scores[i]) * inverse)
        start[steps[i] + 1] += 1
    for step in range(STEPS):
        start[step + 1] += start[step]
    old_lists, old_scores = lists.copy(), scores.copy()
    for i in range(n):
        place = start[steps[i]]
        lists[place] = old_lists[i]
        scores[place] = old_scores[i]
        start[steps[i]] += 1


@_jit
def _next_look(look: int) -> int:
    """reference.next_look."""
    doubled = FIRST_LOOK
    while 2 * doubled <= look:
        doubled *= 2
    return look + doubled // 2


@_jit
def _best_lists(ivf: _Ivf, query: F32, nprobe: int, cellprobe: int, lanes: F32) -> tuple[I32, F32]:
    """The lists to visit, in visiting order, and the score of each one's centroid."""
    codes = np.empty(4 * ivf.centroid_codes.shape[1], np.int8)
    step = _quantize(query, ivf.centroid_scale, codes)
    offset = _dot(query, ivf.centroid_offset, lanes)
    room = max(len(ivf.slot_list), len(ivf.cell_bias))
    scores, slots = np.empty(room, np.float32), np.empty(room, np.uint32)
    ranges = np.zeros((1, 2), np.int64)  # of blocks: first, end
    ranges[0, 1] = len(ivf.centroid_codes)
    first, seen, ncell = np.int64(0), np.int64(0), len(ivf.cell_start) - 1
    if ncell > 0:
        end = len(ivf.cell_codes)
        n = _score_slots(
            ivf.cell_codes, ivf.cell_bias, first, end, codes, step, scores, slots, seen
        )
        n = _keep_largest(_sortable(scores, n), slots, n, cellprobe)[0]
        ranges = np.zeros((n, 2), np.int64)
        for i in range(n):
            if slots[i] < ncell:
                ranges[i, 0], ranges[i, 1] = ivf.cell_start[slots[i]], ivf.cell_start[slots[i] + 1]
    for i in range(len(ranges)):
        seen = _score_slots(
            ivf.centroid_codes, ivf.centroid_bias, ranges[i, 0], ranges[i, 1], codes, step, scores,
            slots, seen,
        )  # fmt: skip
    chosen = np.empty(seen, np.uint32)
    for i in range(seen):
        chosen[i] = i
    n = _keep_largest(_sortable(scores, seen), chosen, seen, nprobe)[0]
    lists, list_scores = np.empty(n, np.int32), np.empty(n, np.float32)
    kept = 0
    for place in chosen[:n]:
        if ivf.slot_list[slots[place]] >= 0:
            lists[kept] = ivf.slot_list[slots[place]]
            list_scores[kept] = scores[place]
            kept += 1
    _sort_roughly(lists[:kept], list_scores[:kept])
    for i in range(kept):
        list_scores[i] += offset
    return lists[:kept], list_scores[:kept]


@_jit
def _scan_lists(
    ivf: _Ivf,
    lists: I32,
    scores: F32,
    query: F32,
    keep: int,
    margin: np.float32,
    keys: I32,
    places: U32,
    allowed: U8,
    is_filtered: bool,
) -> tuple[int, int]:
    """Fill the pool with the best codes of the lists; returns how many, and how many were seen."""
    lut, span, floor = _build_lut(_coded_query(ivf, query), ivf.codebook, ivf.block_dims)
    peak = _ZERO
    for score in scores:
        peak = max(peak, abs(score))
    widest = max(span, (peak + abs(floor)) * _BIAS_RANGE)
    if widest > span:
        lut[:] = 0
    step = np.float64(_255 / widest) if widest >= _TINY else 0.0
    pairs = _pair_tables(lut)
    size, threshold, seen = np.int64(0), np.int64(_NOTHING_YET), np.int64(0)
    slack = np.int64(0)
    if margin < _INFINITY:
        slack = np.int64(np.rint(min(np.float64(margin) * step, 2.0**29)))
    least_reach, look = np.int64(_NOTHING_YET), np.int64(len(lists))
    if margin < _INFINITY:
        look = np.int64(FIRST_LOOK)
    for i in range(len(lists)):
        if i == look:
            if size > keep:
                size, threshold = _keep_largest(keys, places, size, keep)
            if threshold != _NOTHING_YET:
                least_reach = np.int64(keys[:size].min()) - slack
            look = _next_look(look)
        if np.rint(np.float64(scores[i]) * step) < least_reach:
            continue
        bias = np.int64(np.rint(np.float64(scores[i] + floor) * step))
        start, count = ivf.list_start[lists[i]], np.int64(ivf.list_count[lists[i]])
        size, threshold = _scan(
            ivf.codes[start:], count, pairs, bias, start * 16, keep, keys, places, size, threshold,
            ivf.code_rows[start * 16 :], allowed, is_filtered,
        )  # fmt: skip
        seen += count
        if len(ivf.delta_start) > 0:
            start, count = ivf.delta_start[lists[i]], np.int64(ivf.delta_count[lists[i]])
            first = len(ivf.code_rows) + start * 16
            size, threshold = _scan(
                ivf.delta_codes[start:], count, pairs, bias, first, keep, keys, places, size,
                threshold, ivf.delta_code_rows[start * 16 :], allowed, is_filtered,
            )  # fmt: skip
            seen += count
    return int(_keep_largest(keys, places, size, keep)[0]), int(seen)


@_jit
def _join_copies(keys: I32, rows: U32, n: int) -> int:
    """reference.average_copies in place; returns how many are left."""
    size = 64
    while size < 2 * n:
        size *= 2
    places = np.full(size, -1, np.int64)
    kept = 0
    for i in range(n):
        at = (np.int64(rows[i]) * 2654435769 >> 7) & (size - 1)
        while places[at] >= 0 and rows[places[at]] != rows[i]:
            at = (at + 1) & (size - 1)
        if places[at] >= 0:
            keys[places[at]] = (np.int64(keys[places[at]]) + keys[i]) >> 1
            continue
        places[at] = kept
        keys[kept] = keys[i]
        rows[kept] = rows[i]
        kept += 1
    return kept


@_jit
def _search_one(
    ivf: _Ivf,
    raw: F32,
    nprobe: int,
    cellprobe: int,
    collect: int,
    rerank: int,
    refine: int,
    stop: np.float32,
    allowed: U8,
    is_filtered: bool,
    scores: F32,
    ids: I64,
) -> tuple[int, int]:
    """Returns (status, codes scanned)."""
    d = len(raw)
    lanes = np.empty(64, np.float32)
    query = raw.copy()
    squared = _dot(query, query, lanes)
    if not squared < _INFINITY:
        return 1, 0
    lift = _LIFT if squared < _SMALL else _ONE
    # Beyond d: what l2 multiplies by one.
    centred = np.ones(max(d, ivf.block_dims[-1]), np.float32)
    for i in range(d):
        centred[i] = query[i] - ivf.mean[i] if ivf.is_l2 else query[i] * lift
    if ivf.is_cosine:
        squared = _dot(centred[:d], centred[:d], lanes)
        if squared == _ZERO:
            return 2, 0
        inverse = _ONE / np.sqrt(squared)
        for i in range(d):
            query[i] = centred[i] = centred[i] * inverse

    lists, list_scores = _best_lists(ivf, centred, nprobe, cellprobe, lanes)
    room = 2 * collect + _POOL_SLACK
    keys, rows = np.empty(room, np.int32), np.empty(room, np.uint32)
    margin = _INFINITY
    if stop < _INFINITY:
        margin = stop * (ivf.spread * np.sqrt(_dot(centred[:d], centred[:d], lanes)))
    n, seen = _scan_lists(
        ivf, lists, list_scores, centred, collect, margin, keys, rows, allowed, is_filtered
    )
    for i in range(n):
        rows[i] = _element(ivf.code_rows, ivf.delta_code_rows, np.int64(rows[i]))
    if ivf.is_spilled:
        n = _join_copies(keys, rows, n)
    n = _keep_largest(keys, rows, n, rerank)[0]

    codes = np.empty(d, np.int8)
    step = _quantize(centred, ivf.store_scale, codes)
    _dot_rows(ivf.store, ivf.delta_store, rows[:n], codes, keys)
    rough = np.empty(n, np.float32)
    for i in range(n):
        rough[i] = np.float32(keys[i]) * step
        if ivf.is_l2:
            rough[i] -= _element(ivf.store_bias, ivf.delta_store_bias, np.int64(rows[i]))
    n = _keep_largest(_sortable(rough, n), rows, n, refine)[0]

    exact, found = np.empty(n, np.float32), np.empty(n, np.int64)
    _score_kept(
        ivf.vectors, ivf.delta_vectors, ivf.kind, ivf.store_scale, ivf.vector_offset, rows[:n],
        query, ivf.is_l2, ivf.is_cosine, exact,
    )  # fmt: skip
    for i in range(n):
        found[i] = _element(ivf.ids, ivf.delta_ids, np.int64(rows[i]))
    order = _best_first(exact, found)
    for i in range(len(ids)):
        scores[i] = exact[order[i]] if i < n else -_INFINITY
        ids[i] = found[order[i]] if i < n else -1
    return 0, seen


@_jit
def _search(
    ivf: _Ivf,
    queries: F32,
    nprobe: int,
    cellprobe: int,
    collect: int,
    rerank: int,
    refine: int,
    stop: np.float32,
    allowed: U8,
    is_filtered: bool,
    scores: F32,
    ids: I64,
    scanned: I64,
) -> int:
    is_short = False
    for q in range(len(queries)):
        status, scanned[q] = _search_one(
            ivf, queries[q], nprobe, cellprobe, collect, rerank, refine, stop, allowed,
            is_filtered, scores[q], ids[q],
        )  # fmt: skip
        if status != 0:
            return int(q * 4 + status)
        is_short = is_short or ids[q, -1] < 0
    return -1 if is_short else 0


class IvfSearcher:
    """See reference.IvfSearcher. Holds views of the arrays."""

    def __init__(self, arrays: IvfArrays) -> None:
        views = [_frozen(getattr(arrays, name)) for name in _Ivf._fields[5:]]
        is_l2, is_cosine = arrays.metric == "l2", arrays.metric == "cosine"
        spread = np.float32(arrays.spread)
        kind = _kind(arrays.vectors)
        if not len(arrays.delta_vectors):  # of the dtype that the compiled code expects
            views[_Ivf._fields.index("delta_vectors") - 5] = _frozen(arrays.vectors[:0])
        self._ivf = _Ivf(is_l2, is_cosine, arrays.is_spilled, spread, kind, *views)

    def bind(self, k: int, plan: SearchPlan) -> BoundSearch:
        """See reference.IvfSearcher.bind."""
        return bind_search(self, len(self._ivf.mean), k, plan)

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
        """See reference.IvfSearcher.search."""
        queries = _frozen(queries)
        bitmap = _frozen(np.empty(0, np.uint8) if allowed is None else allowed)
        seen = np.empty(len(queries), np.int64) if scanned is None else scanned
        statuses: dict[int, int] = {}

        def some(begin: int, end: int) -> None:
            statuses[begin] = _search(
                self._ivf,
                queries[begin:end],
                plan.nprobe,
                plan.cellprobe,
                plan.collect,
                plan.rerank,
                plan.refine,
                np.float32(plan.stop),
                bitmap,
                allowed is not None,
                scores[begin:end],
                ids[begin:end],
                seen[begin:end],
            )

        _spread(len(queries), 16, threads, some)
        for begin in sorted(statuses):
            if statuses[begin] > 0:
                return 4 * begin + statuses[begin]
        return min(statuses.values(), default=0)
