"""Memory for the kernels starts where a cache line does.

    [test_memory.py] -> kernels/memory.py

What a load straddles cannot be seen in an answer, so it is asked of the address.
"""

from __future__ import annotations

import numpy as np
import pytest

from soardb import SoarIndex
from soardb.index.bundle import bundle
from soardb.kernels.memory import aligned, empty_aligned


@pytest.mark.parametrize("shape", [(1,), (3, 5, 64), (1 << 20, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_starts_at_a_line(shape: tuple[int, ...], dtype: type) -> None:
    made = empty_aligned(shape, dtype)
    assert made.shape == shape
    assert made.dtype == dtype
    assert made.flags.c_contiguous
    assert made.ctypes.data % 64 == 0


def test_what_is_aligned_stays_and_the_rest_is_copied() -> None:
    there = empty_aligned((100, 4), np.uint8)
    there[...] = np.arange(400).reshape(100, 4) % 256
    assert aligned(there) is there
    shifted = empty_aligned((401,), np.uint8)[1:]
    shifted[...] = there.ravel()
    copied = aligned(shifted)
    assert copied.ctypes.data % 64 == 0
    assert np.array_equal(copied, shifted)
    assert np.array_equal(aligned(there.T), there.T)


def test_what_a_search_streams_is_aligned() -> None:
    vectors = np.random.default_rng(0).standard_normal((5000, 24)).astype(np.float32)
    index = SoarIndex(d=24, metric="l2", nlist=40)
    index.train(vectors)
    index.add(vectors[:3000])
    index.add(vectors[3000:])
    assert index._model is not None
    assert index._lists is not None
    arrays = bundle(index._model, index._lists, index._rows, index._rows.ids, "l2")
    for name in ("codes", "store", "centroid_codes"):
        assert getattr(arrays, name).ctypes.data % 64 == 0, name
