"""The arrays that a search reads: one frozen bundle, the same for every kernel backend.

    index/ivf.py -> [layout.py] -> kernels/{reference,portable,native}.IvfSearcher

Packed codes. One 64-byte line holds 16 vectors x 8 sub-spaces of 4-bit codes. Byte ``4*i + L``
(vector i of 16, L of 4) has the code of sub-space ``8*g + L`` in its low nibble and that of
``8*g + 4 + L`` in its high nibble, where g counts the lines of a block of 16 vectors. The number
of sub-spaces m is a multiple of 8, so no line is partly used.

8-bit rows. A value is stored as ``u8 = s8 + 128`` with ``x ~ offset[dim] + scale[dim] * s8``; the
query side is a signed byte in [-127, 127]. All integer sums are exact in int32.

Nothing here computes: shapes, names and the constants that the kernels share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["dot", "cosine", "l2"]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Precision = Literal["float32", "bfloat16", "int8"]
Values = F32 | U16 | U8
"""Vectors as they are kept for exact scores: (n, d) float32; (n, d) uint16, the upper halves of
float32 (bfloat16); or (n, >= d) uint8, 8-bit rows. kernels/reference.py opens them."""

BoundSearch = Callable[[object], tuple[F32, I64] | None]
"""One query with its plan bound; see reference.IvfSearcher.bind."""

BLOCK = 16
"""Vectors in a block: lists are padded to this many, and so are the blocks of 8-bit centroids."""

LINE = 64
"""Bytes in a code line, and the stride unit of the 8-bit row store."""

STEPS = 64
"""Steps of score in which the lists to visit are put in order; within one, memory order stays."""

FIRST_LOOK = 8
"""Lists that every search visits before it may pass any over."""

STATUS = ("ok", "not finite", "zero vector")
"""What a search says of a query, by code."""


@dataclass(frozen=True, slots=True)
class IvfArrays:
    """Everything that one query touches. Borrowed, never copied: keep the owner alive.

    metric             "dot", "cosine" (rows and centroids of unit rows) or "l2"
    vectors            n rows of d dimensions as they are kept (Values), and as compared: normalised
                       under cosine, raw otherwise; where no vectors are kept beside the 8-bit rows,
                       `store` itself
    ids                (n,) int64, external id of each row
    mean               (d,) float32, subtracted from everything but `vectors` under l2, else zeros
    centroids          (nlist, d) float32, centred by mean
    centroid_bias      (nslot,) float32, added to <q, c>: -|c|^2/2 under l2, else 0; -inf in padding
    centroid_codes     (nslot/16, ceil(d/4), 16, 4) uint8, 8-bit centroids in scan order
    centroid_scale     (d,) float32 and centroid_offset (d,) float32 of those codes
    slot_list          (nslot,) int32, the list of each centroid slot; -1 in padding
    cell_codes, cell_bias, cell_start
                       the upper level, or arrays of no rows: cells like centroids, padded the same
                       way; cell_start (ncell + 1,) int32 counts blocks of 16 centroid slots
    list_start         (nlist,) int64, first block of each list in `codes`
    list_count         (nlist,) int32, codes in each list
    codes              (nblock, m/8, 64) uint8, packed 4-bit codes of all lists
    code_rows          (nblock * 16,) uint32, row of each code
    codebook           (m, width, 16) float32, zero where a sub-space is narrower than width
    block_dims         (m + 1,) int32, sub-space b covers coded dims [b], [b+1]: those of the query
                       or, where there is a rotation, its products with the rotation's rows; under
                       l2 two more follow, which are 1 in every query
    store              (n, stride) uint8, 8-bit rows, stride a multiple of 4
    store_scale, store_offset
                       (d,) float32 of those rows
    vector_offset      (d,) float32, mean + store_offset: a row of bytes stands for vector_offset +
                       store_scale * s8; not read where `vectors` are no bytes
    store_bias         (n,) float32, subtracted after the product under l2 (|x|^2/2), else empty
    is_spilled         whether a row may stand in two lists
    spread             standard deviation of a component of what the codes stand for: a row less its
                       centroid
    rotation_codes     (r/16, ceil(d/4), 16, 4) uint8, 8-bit rows of the rotation, or none
    rotation_scale     (r,) float32 of these rows, 0 in padding

    A second segment, the delta, may follow the base: the same lists, coded with the same codebook.
    Its rows are numbered from n on, its codes are scanned after the base's of the same list. Its
    owner changes contents and counts in place between two searches, never during one; where an
    array has to grow, a new searcher is made. Without a delta, all of its arrays are empty.

    delta_vectors (cap, ...), delta_ids (cap,), delta_store (cap, stride), delta_store_bias (cap,)
    or empty           as those above, of rows n, n + 1, ...; cap may exceed the rows in use
    delta_start (nlist,), delta_count (nlist,), delta_codes (nblock, m/8, 64)
                       as list_start, list_count and codes
    delta_code_rows    (nblock * 16,) uint32, row of each code, n or above
    """

    metric: Metric
    vectors: Values
    ids: I64
    mean: F32
    centroids: F32
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
    store_offset: F32
    store_bias: F32
    is_spilled: bool
    spread: float
    rotation_codes: U8 = field(default_factory=lambda: np.empty((0, 0, BLOCK, 4), np.uint8))
    rotation_scale: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    vector_offset: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    delta_vectors: Values = field(default_factory=lambda: np.empty((0, 0), np.float32))
    delta_ids: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    delta_store: U8 = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    delta_store_bias: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    delta_start: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    delta_count: I32 = field(default_factory=lambda: np.empty(0, np.int32))
    delta_codes: U8 = field(default_factory=lambda: np.empty((0, 0, 0), np.uint8))
    delta_code_rows: U32 = field(default_factory=lambda: np.empty(0, np.uint32))


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How hard one search works. Checked and completed by index/plan.py, trusted by the kernels.

    nprobe      lists visited, 1..nlist
    cellprobe   cells visited in a two-level index, else 0
    collect     codes kept by the scan (`rerank` times the over-retrieval factor when spilled)
    rerank      rows scored again from the 8-bit store
    refine      rows scored again from `vectors`; k <= refine <= rerank
    stop        a list is passed over when its centroid's score lies further below the worst of the
                codes kept so far than this many standard deviations of <query, residual>, taken as
                |query| * spread; infinite: all nprobe lists are visited
    """

    nprobe: int
    cellprobe: int
    collect: int
    rerank: int
    refine: int
    stop: float = math.inf
