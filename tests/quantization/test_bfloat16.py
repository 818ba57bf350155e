"""bfloat16: rounded to the nearest, and back.

quantization/bfloat16.py -> [test_bfloat16.py] <- kernels/reference.py (opened)
"""

from __future__ import annotations

import numpy as np

from soardb.kernels.layout import F32
from soardb.kernels.reference import opened
from soardb.quantization.bfloat16 import to_bfloat16


def rounded(vectors: F32) -> F32:
    return opened(to_bfloat16(vectors), None, None)


class TestToBfloat16:
    def test_the_nearest_is_taken(self) -> None:
        """Of the two bfloat16 about a number, the one that is closer, over all magnitudes."""
        rng = np.random.default_rng(0)
        scale = 2.0 ** rng.integers(-60, 60, 20_000)
        x = (rng.standard_normal(20_000) * scale).astype(np.float32)[None]
        below = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # towards zero
        above = (below.view(np.uint32) + np.uint32(0x10000)).view(np.float32)
        wide, low, high = (part.astype(np.float64) for part in (x, below, above))
        nearest = np.where(np.abs(wide - low) < np.abs(wide - high), below, above)
        is_tie = np.abs(wide - low) == np.abs(wide - high)
        assert np.array_equal(rounded(x)[~is_tie], nearest[~is_tie])
        assert (np.abs(rounded(x) - x) <= np.abs(x) * 2.0**-8).all()

    def test_a_tie_goes_to_the_even_one(self) -> None:
        """So that many roundings do not drift to one side."""
        ties = np.array([[1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0.0]], np.float32)
        assert rounded(ties).tolist() == [[1.0, 1 + 2.0**-6, -1.0, 0.0]]

    def test_rounding_twice_is_rounding_once(self) -> None:
        """What is kept keeps its bits."""
        x = np.random.default_rng(1).standard_normal((50, 9)).astype(np.float32)
        assert np.array_equal(to_bfloat16(rounded(x)), to_bfloat16(x))

    def test_takes_vectors_in_any_order_of_memory(self) -> None:
        """A slice of columns is rounded like its copy."""
        x = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)
        assert np.array_equal(to_bfloat16(x[:, ::2]), to_bfloat16(x[:, ::2].copy()))
