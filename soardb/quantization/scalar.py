"""8-bit scalar quantization, each dimension with its own offset and scale.

    index/model.py, index/upper.py -> [scalar.py]

    x ~ offset + scale * s,   s in -128..127, stored as u = s + 128

The extremes of the training data map to the ends of the range, so nothing is clipped in training;
later values beyond them are. Offset and scale fold into the query (kernels.quantize_query), which
leaves an integer product for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soardb.kernels.layout import F32, U8

__all__ = ["ScalarQuantizer"]

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class ScalarQuantizer:
    """offset (d,) float32 and scale (d,) float32, 0 where a dimension is constant."""

    offset: F32
    scale: F32

    @classmethod
    def train(cls, vectors: F32) -> ScalarQuantizer:
        """Ranges of (n >= 1, d) float32 vectors."""
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        scale = ((high.astype(np.float64) - low) / 255).astype(np.float32)
        return cls((low + np.float32(128) * scale).astype(np.float32), scale)

    def encode(self, vectors: F32, stride: int | None = None) -> U8:
        """(n, d) float32 to (n, stride or d) uint8; bytes beyond d are 128, which stands for 0."""
        n, d = vectors.shape
        codes = np.full((n, stride or d), 128, np.uint8)
        divisor = np.where(self.scale > 0, self.scale, np.float32(1))
        for first in range(0, n, _CHUNK):
            part = (vectors[first : first + _CHUNK] - self.offset) / divisor
            levels = np.clip(np.rint(part), -128, 127)
            levels[:, self.scale == 0] = 0
            codes[first : first + _CHUNK, :d] = (levels + 128).astype(np.uint8)
        return codes

    def decode(self, codes: U8) -> F32:
        """(n, >= d) uint8 to (n, d) float32."""
        levels = codes[:, : len(self.offset)].astype(np.float32) - np.float32(128)
        return self.offset + self.scale * levels
