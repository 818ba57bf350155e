"""Memory that starts at a multiple of a cache line, as the kernels' loads want it.

    index/, native.py -> [memory.py]

A 64-byte line of codes that straddles two cache lines is loaded twice, and a row of 128 bytes takes
three lines instead of two. NumPy aligns to 16 bytes. Arrays of megabytes come with huge pages where
the system gives them, as all of NumPy's do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import LINE

__all__ = ["aligned", "empty_aligned"]


def empty_aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of whatever the memory held, from a multiple of 64 bytes on."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(kind).reshape(shape)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself where it is contiguous and starts at a multiple of 64 bytes, else a copy."""
    if array.flags.c_contiguous and array.ctypes.data % LINE == 0:
        return array
    out = empty_aligned(array.shape, array.dtype)
    out[...] = array
    return out
