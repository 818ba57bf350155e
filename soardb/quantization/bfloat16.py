"""bfloat16: the upper half of a float32, rounded to the nearest.

    index/form.py -> [bfloat16.py]

A bfloat16 has the exponent of a float32 and seven bits of its fraction, so a number is off by at
most 2^-8 of itself, and opening one is a shift. They are held as uint16, which every array
library, file format and machine knows.
"""

from __future__ import annotations

import numpy as np

from soardb.kernels.layout import F32, U16

__all__ = ["to_bfloat16"]


def to_bfloat16(vectors: F32) -> U16:
    """Finite (n, d) float32 to (n, d) uint16, ties to the even one; kernels/reference.py opens it.

    A number that is one already keeps its bits.
    """
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return rounded.astype(np.uint16)
