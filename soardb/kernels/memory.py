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

__all__ = ["aligned", "empty_aligned", "zeros_aligned"]


def empty_aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of whatever the memory held, from a multiple of 64 bytes on."""
    return _within(np.empty(_size(shape, dtype) + LINE, np.uint8), shape, dtype)


def zeros_aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros from a multiple of 64 bytes on; pages are taken when written."""
    return _within(np.zeros(_size(shape, dtype) + LINE, np.uint8), shape, dtype)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself where it is contiguous and starts at a multiple of 64 bytes, else a copy."""
    if array.flags.c_contiguous and array.ctypes.data % LINE == 0:
        return array
    out = empty_aligned(array.shape, array.dtype)
    out[...] = array
    return out


def _size(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _within(
    room: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    start = -room.ctypes.data % LINE
    return room[start : start + _size(shape, dtype)].view(dtype).reshape(shape)
