"""Points that training does not learn from, so that what is measured by them is not flattered.

    model.py, exam.py -> [heldout.py] -> quantization/bfloat16.py

A stored point has pulled the centroid of its list towards itself, and is found more easily than a
query that only lies where points lie: by 0.015 of recall at 60 points a list, 0.008 at 70, and by
nothing that can be measured at 160 (benchmarks/LOG.md). So an eighth of the points takes no part in
k-means where all of them would, and the exam draws its questions among these.

Which they are is told by the upper bits of a vector alone, which are those of what is kept of it
unless that is 8-bit rows, whose curves are as flattered as said. So nothing has to be kept, equal
vectors are held out together, and a point that comes later belongs to the eighth or not like any
other.
"""

from __future__ import annotations

import numpy as np

from soardb.kernels.layout import F32
from soardb.quantization.bfloat16 import to_bfloat16

__all__ = ["held_out"]

_BATCH = 16_384


def held_out(vectors: F32) -> np.ndarray:
    """(n,) bool of (n, d) float32 vectors as the metric compares them: one in eight, by a hash."""
    n, d = vectors.shape
    odd = np.random.default_rng(d).integers(0, 2**32, d, np.uint32) | np.uint32(1)
    chosen = np.empty(n, bool)
    for first in range(0, n, _BATCH):
        part = to_bfloat16(vectors[first : first + _BATCH])
        bits = part * odd  # (m, d) uint32, modulo 2^32
        bits ^= bits >> np.uint32(15)
        mixed = bits.sum(axis=1, dtype=np.uint32) * np.uint32(0x9E3779B1)
        chosen[first : first + len(part)] = mixed >> np.uint32(29) == 0
    return chosen
