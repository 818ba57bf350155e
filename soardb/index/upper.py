"""The upper level: centroids as a search reads them.

    model.py -> [upper.py] -> clustering.py, soar.py, quantization/scalar.py, kernels

A search ranks centroids by 8-bit products, a block of them at a time. Where there are many, k-means
groups them into cells, a search ranks the cells first, and each cell fills whole blocks: a slot
that holds no list has list -1 and bias -inf, so that it never ranks.

Nothing here is saved: it follows from the centroids and is made anew when a search first needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb.clustering import kmeans
from soardb.kernels.dispatch import active
from soardb.kernels.layout import BLOCK, F32, I32, U8
from soardb.kernels.memory import aligned
from soardb.quantization.scalar import ScalarQuantizer
from soardb.soar import nearest

__all__ = ["Upper", "arrange_centroids"]


@dataclass(frozen=True, slots=True)
class Upper:
    """Centroids as a search reads them; fields as in IvfArrays."""

    scalar: ScalarQuantizer
    centroid_codes: U8
    centroid_bias: F32
    slot_list: I32
    cell_codes: U8
    cell_bias: F32
    cell_start: I32


def arrange_centroids(centroids: F32, ncell: int, is_l2: bool) -> Upper:
    """Centroids (nlist, d) float32 in 8 bits and in blocks, gathered by cell where ncell > 1.

    Costs a k-means of the centroids where there are cells; the same input gives the same cells.
    """
    nlist, d = centroids.shape
    ncell = min(ncell, nlist)  # k-means may have dropped lists
    scalar = ScalarQuantizer.train(centroids)
    norms = 0.5 * np.square(centroids).sum(axis=1)
    bias = -norms if is_l2 else np.zeros(nlist, np.float32)
    if ncell < 2:
        return Upper(
            scalar,
            aligned(active.pack_u8_blocks(scalar.encode(centroids))),
            _padded(bias, -np.inf),
            _padded(np.arange(nlist, dtype=np.int32), -1),
            np.empty((0, -(-d // 4), BLOCK, 4), np.uint8),
            np.empty(0, np.float32),
            np.empty(0, np.int32),
        )
    cells = kmeans(centroids, ncell, seed=0, points_per_centroid=nlist)
    home = nearest(centroids, cells)
    members = [np.flatnonzero(home == cell).astype(np.int32) for cell in range(len(cells))]
    slots = np.concatenate([_padded(lists, -1) for lists in members])
    is_real = slots >= 0
    slot_bias = np.full(len(slots), -np.inf, np.float32)
    slot_bias[is_real] = bias[slots[is_real]]
    codes = np.full((len(slots), d), 128, np.uint8)
    codes[is_real] = scalar.encode(centroids[slots[is_real]])
    blocks = [-(-len(lists) // BLOCK) for lists in members]
    cell_norms = 0.5 * np.square(cells).sum(axis=1)
    cell_bias = -cell_norms if is_l2 else np.zeros(len(cells), np.float32)
    return Upper(
        scalar,
        aligned(active.pack_u8_blocks(codes)),
        slot_bias,
        slots,
        aligned(active.pack_u8_blocks(scalar.encode(cells))),
        _padded(cell_bias, -np.inf),
        np.concatenate([[0], np.cumsum(blocks)]).astype(np.int32),
    )


def _padded(values: np.ndarray, fill: float) -> Any:
    """Values followed by `fill` up to a multiple of the block, same dtype."""
    out = np.full(-(-len(values) // BLOCK) * BLOCK, fill, values.dtype)
    out[: len(values)] = values
    return out
