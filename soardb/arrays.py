"""The gate: what callers pass becomes a checked, contiguous array here, once.

    the public API -> [arrays.py] -> everything inside, which trusts its input

Vectors become (n, d) C-contiguous float32, finite; ids become (n,) int64. A float64, float16 or
integer array is converted when no value overflows; anything else is refused with the reason.

Nothing here knows of indexes.
"""

from __future__ import annotations

import numpy as np
import numpy.ma as ma  # here, as NumPy loads it at first use, which two threads at once break
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64, Metric

__all__ = [
    "MAX_DIM",
    "MIN_DIM",
    "as_asked",
    "as_dim",
    "as_ids",
    "as_int",
    "as_queries",
    "as_vectors",
]

MIN_DIM, MAX_DIM = 2, 4096

_CHUNK = 65536


def as_int(value: object, name: str, low: int, high: int, hint: str = "") -> int:
    """An integer within [low, high], or InvalidArgument. Booleans and floats are refused."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidArgument(f"expected {name} to be an integer, got {value!r}")
    if not low <= value <= high:
        span = f"within {low}..{high}" if high < 2**31 or value > high else f"at least {low}"
        raise InvalidArgument(
            f"expected {name} {span}, got {value}" + (f"; {hint}" if hint else "")
        )
    return int(value)


def as_dim(d: object) -> int:
    """A dimension within MIN_DIM..MAX_DIM."""
    return as_int(d, "d", MIN_DIM, MAX_DIM)


def _as_float_matrix(array: npt.ArrayLike, d: int, name: str, one_row: str) -> F32:
    if ma.is_masked(array):
        raise InvalidArgument(f"expected {name} without masked values; fill them or leave them out")
    try:
        given = np.asarray(array)
    except ValueError as error:
        raise InvalidArgument(f"expected {name} as one (n, {d}) array: {error}") from None
    if given.ndim != 2 or given.shape[1] != d:
        hint = one_row if given.ndim == 1 and given.shape == (d,) else ""
        raise InvalidArgument(
            f"expected {name} of shape (n, {d}), got {given.shape}" + (f"; {hint}" if hint else "")
        )
    if given.dtype.kind not in "fiu":
        raise InvalidArgument(
            f"expected {name} of a real number type (float32 is kept as it is), got {given.dtype}"
        )
    if given.dtype.kind == "f" and given.dtype.itemsize > 4:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(given, dtype=np.float32)
    return np.ascontiguousarray(given, dtype=np.float32)


def as_vectors(array: npt.ArrayLike, d: int, metric: Metric, name: str = "vectors") -> F32:
    """(n, d) finite float32 rows, none of them zero under cosine.

    Costs one pass; copies only where dtype or layout asks for it.
    """
    vectors = _as_float_matrix(array, d, name, f"for one vector pass {name}[None, :]")
    for first in range(0, len(vectors), _CHUNK):
        part = vectors[first : first + _CHUNK]
        squares = np.einsum("ij,ij->i", part, part)
        bad = ~np.isfinite(squares)
        if bad.any():
            row = first + int(bad.argmax())
            what = "NaN or infinity" if not np.isfinite(vectors[row]).all() else "too large a value"
            raise InvalidArgument(
                f"expected finite {name} whose squares fit float32, got {what} in row {row}"
            )
        # The square of a tiny vector vanishes too, but it has a direction.
        zero = np.flatnonzero(squares == 0) if metric == "cosine" else np.empty(0, np.int64)
        zero = zero[~part[zero].any(axis=1)]
        if len(zero):
            row = first + int(zero[0])
            raise InvalidArgument(
                f"expected {name} with a direction under cosine, got a zero vector in row {row}; "
                "leave it out or use metric 'dot' or 'l2'"
            )
    return vectors


def as_queries(array: npt.ArrayLike, d: int) -> F32:
    """(nq, d) float32 queries. Whether values are finite is checked by the search itself."""
    if (
        type(array) is np.ndarray
        and array.dtype == np.float32
        and array.ndim == 2
        and array.shape[1] == d
        and array.flags.c_contiguous
    ):
        return array
    return _as_float_matrix(array, d, "queries", "for one query pass queries[None, :]")


def as_asked(query: npt.ArrayLike, d: int) -> F32:
    """Queries (nq, d) of one (d,) or of many, as a search takes them."""
    given = query if isinstance(query, np.ndarray) else np.asarray(query)
    return as_queries(given[None, :] if given.ndim == 1 else given, d)


def as_ids(ids: npt.ArrayLike, n: int | None = None) -> I64:
    """(n,) int64 ids, not negative. n None: any number of them."""
    try:
        given = np.asarray(ids)
    except ValueError as error:
        raise InvalidArgument(f"expected ids as one (n,) array: {error}") from None
    if given.size == 0 and given.ndim == 1:
        given = given.astype(np.int64)
    if given.ndim != 1 or (n is not None and len(given) != n):
        want = f"({n},)" if n is not None else "(n,)"
        raise InvalidArgument(f"expected ids of shape {want}, got {given.shape}")
    if given.dtype.kind not in "iu":
        raise InvalidArgument(f"expected integer ids, got {given.dtype}")
    if given.dtype == np.uint64 and (given > np.iinfo(np.int64).max).any():
        raise InvalidArgument("expected ids below 2**63, got a larger one")
    out: I64 = np.ascontiguousarray(given, dtype=np.int64)
    if (out < 0).any():
        row = int((out < 0).argmax())
        raise InvalidArgument(
            f"expected ids of 0 or more (-1 stands for a missing result), got {out[row]} at {row}"
        )
    return out
