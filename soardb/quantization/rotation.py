"""A rotation of residuals into few directions that hold their energy, for the product quantizer.

    product.py -> [rotation.py] -> kernels (pack_u8_blocks)

Dimensions of learnt embeddings are correlated, and a code of 4 bits a few dimensions wastes bits on
what other codes already tell. In the directions of the residuals' principal components they are
not; the weakest ones, which hold a fiftieth of the energy, are left out, and the others are dealt
to the sub-spaces so that the product of variances is about the same in each (the allocation of
optimized product quantization: Ge et al., CVPR 2013, section 3.2).

A query has to be turned too, once. So the rows of the rotation are kept in 8 bits, and it is an
integer product like the scores of centroids; what codes stand for is turned back by the very rows
that a query is turned by, so that this rounding is no error of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soardb.kernels.dispatch import active
from soardb.kernels.layout import BLOCK, F32, F64, U8
from soardb.kernels.memory import aligned

__all__ = ["Rotation"]

_KEPT = 0.98  # share of the residuals' energy that the directions kept hold
_LEAST = 1e-6  # of the largest variance: below it directions are rounding errors


@dataclass(frozen=True, slots=True)
class Rotation:
    """codes (r, d) uint8 and scale (r,) float32: row j is scale[j] * (codes[j] - 128)."""

    codes: U8
    scale: F32

    @classmethod
    def train(cls, residuals: F32, blocks: int) -> Rotation:
        """The directions for `blocks` sub-spaces of (n, d) float32 residuals, r at least blocks.

        Costs O(n d^2 + d^3).
        """
        d = residuals.shape[1]
        moments = residuals.T @ residuals
        variance, directions = np.linalg.eigh(moments.astype(np.float64))
        variance, directions = np.maximum(variance[::-1], 0), directions[:, ::-1].T
        energy = np.cumsum(variance)
        kept = int(np.searchsorted(energy, _KEPT * energy[-1])) + 1
        kept = min(max(kept, blocks), d)
        order = _dealt(variance[:kept], min(blocks, kept))
        rows = directions[:kept][order]
        # The sign of an eigenvector is the library's whim.
        largest = rows[np.arange(kept), np.abs(rows).argmax(axis=1)]
        rows = rows * np.where(largest < 0, -1, 1)[:, None]
        scale = (np.abs(rows).max(axis=1) / 127).astype(np.float32)
        codes = np.rint(rows / scale[:, None]) + 128
        return cls(codes.astype(np.uint8), scale)

    @property
    def rows(self) -> F32:
        """(r, d) float32: the directions."""
        rows: F32 = (self.codes.astype(np.float32) - np.float32(128)) * self.scale[:, None]
        return rows

    def turn(self, vectors: F32) -> F32:
        """(n, d) float32 to (n, r) float32."""
        turned: F32 = vectors @ self.rows.T
        return turned

    def turn_back(self, turned: F32) -> F32:
        """(n, r) float32 to (n, d): whose products with a query are those of the turned ones."""
        vectors: F32 = turned @ self.rows
        return vectors

    def packed(self) -> tuple[U8, F32]:
        """The rows as kernels read them: (r', ceil(d / 4), 16, 4) uint8 blocks, and (16 r',) scale.

        Padding is of scale 0.
        """
        r = len(self.scale)
        scale = np.zeros(-(-r // BLOCK) * BLOCK, np.float32)
        scale[:r] = self.scale
        return aligned(active.pack_u8_blocks(self.codes)), scale


def _dealt(variance: F64, blocks: int) -> np.ndarray:
    """An order of (r,) falling variances: dealt to blocks of r // blocks or one more, in turn.

    Each goes to the block with room whose product of variances is the smallest so far; so the
    strong ones meet the weak ones.
    """
    r = len(variance)
    sizes = np.diff(np.arange(blocks + 1) * r // blocks)
    logs = np.log(np.maximum(variance, _LEAST * variance[0] if variance[0] > 0 else 1))
    logs -= logs.min() - 1  # all positive: one member more is always a bigger product
    dealt: list[list[int]] = [[] for _ in range(blocks)]
    products = np.zeros(blocks)
    for i in range(r):
        block = int(np.argmin(products))
        dealt[block].append(i)
        products[block] += logs[i]
        if len(dealt[block]) == sizes[block]:
            products[block] = np.inf
    return np.concatenate([np.array(members, np.int64) for members in dealt])
