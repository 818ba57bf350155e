"""Packed columns of the messages <-> NumPy arrays and lists, for both ends of the wire.

    soardb_client, soardb_service -> [columns.py] -> v1/types_pb2.py

Packing trusts its caller. Unpacking trusts nobody: lengths are compared with what is announced
before anything is made of them, and ValueError says what was expected and what came. Arrays that
come out of a message are read-only views of its bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb_proto.v1 import types_pb2 as pb

__all__ = [
    "pack_ids",
    "pack_matrix",
    "pack_numbers",
    "plain_ids",
    "unpack_ids",
    "unpack_matrix",
    "unpack_numbers",
]

_DTYPES: dict[int, str] = {pb.F32: "<f4", pb.F16: "<f2"}


def pack_numbers(values: npt.ArrayLike, dtype: str) -> bytes:
    """Numbers as packed little-endian bytes of a NumPy dtype such as "<i8"."""
    return np.ascontiguousarray(values, dtype=dtype).tobytes()


def unpack_numbers(data: bytes, dtype: str, name: str) -> npt.NDArray[Any]:
    """(n,) numbers of packed bytes, in the machine's order. Errors: ValueError."""
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        raise ValueError(
            f"expected {name} as packed numbers of {size} bytes each, got {len(data)} bytes"
        )
    found = np.frombuffer(data, dtype)
    return found if sys.byteorder == "little" else found.astype(found.dtype.newbyteorder("="))


def pack_ids(ids: npt.NDArray[np.int64] | Sequence[Any]) -> pb.Ids:
    """Ids, all int64 or all strings; none at all are int64."""
    if isinstance(ids, np.ndarray) or not len(ids) or isinstance(ids[0], int):
        return pb.Ids(i64=pack_numbers(ids, "<i8"))
    return pb.Ids(strings=pb.Strings(values=ids))


def unpack_ids(ids: pb.Ids, name: str = "ids") -> npt.NDArray[np.int64] | list[str]:
    """(n,) int64, or n strings. Errors: ValueError."""
    if ids.WhichOneof("kind") == "strings":
        return list(ids.strings.values)
    return unpack_numbers(ids.i64, "<i8", name)


def plain_ids(ids: pb.Ids, name: str = "ids") -> list[Any]:
    """n ids as Python's own ints or strings. Errors: ValueError."""
    found = unpack_ids(ids, name)
    return found.tolist() if isinstance(found, np.ndarray) else found


def pack_matrix(rows: npt.NDArray[Any]) -> pb.Matrix:
    """(n, d) rows, as float16 where they are, else as float32."""
    is_half = rows.dtype == np.float16
    return pb.Matrix(
        data=pack_numbers(rows, "<f2" if is_half else "<f4"),
        dtype=pb.F16 if is_half else pb.F32,
        dim=rows.shape[1],
        count=len(rows),
    )


def unpack_matrix(matrix: pb.Matrix, name: str = "vectors") -> npt.NDArray[Any]:
    """(count, dim) rows. Errors: ValueError where the bytes are not as many as announced."""
    dtype = _DTYPES.get(matrix.dtype)
    if dtype is None:
        raise ValueError(f"expected the dtype of {name} as F32 or F16, got {matrix.dtype}")
    expected = matrix.count * matrix.dim * np.dtype(dtype).itemsize
    if len(matrix.data) != expected:
        raise ValueError(
            f"expected {expected:,} bytes of {name} for {matrix.count:,} rows of {matrix.dim:,} "
            f"numbers, got {len(matrix.data):,}"
        )
    if matrix.count and not matrix.dim:
        raise ValueError(f"expected the dim of {name} beside a count of {matrix.count:,}")
    return unpack_numbers(matrix.data, dtype, name).reshape(matrix.count, matrix.dim)
