"""Points in a true metric: all that the algorithms of selection ask of distances.

    run.py -> [space.py] -> wkc.py, gonzalez.py, baselines.py, parts.py

Distances are compared as keys, numbers that grow with them: the square of a Euclidean distance, one
minus the cosine of an angle, or the distance itself where a matrix of them is given. So a block of
them is one product of matrices, and a radius is turned into a key once. Both ball tests of the
algorithms compare keys of the same arithmetic, which keeps disjoint balls disjoint.

Nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_vectors
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.metrics import unit_rows

__all__ = [
    "METRICS",
    "Matrix",
    "Space",
    "Vectors",
    "blocks",
    "checked",
    "first_near",
    "middle_of",
    "nearest_keys",
    "over_blocks",
    "radius_of",
    "space_of",
    "space_of_points",
]

METRICS = ("l2", "cosine")
"""Euclidean distance, and the angle between vectors in radians; an inner product is no metric."""

T = TypeVar("T")

_ROUNDING = 2e-6  # of a product of float32 vectors, in their squared lengths
_BLOCK_ELEMENTS = 2**23  # keys that one thread holds at a time, 32 MiB


class Space(Protocol):
    """n points, and their distances to points of this space or of another part of the same whole.

    resolution: a distance below which keys tell rounding, for all but a few points far out
    """

    resolution: float

    def __len__(self) -> int: ...

    def points(self, rows: I64) -> F32:
        """(c, ...) some points, as all the others here take them."""
        ...

    def keys(self, rows: slice | I64, points: F32) -> F32:
        """(m, c) float32 keys of the distances of m rows to c points. Costs m x c x d."""
        ...

    def nearest(self, points: F32, threads: int) -> F32:
        """(n,) float32 keys of each point to one of `points` that is closest or nearly so."""
        ...

    def distance(self, row: int, points: F32) -> float:
        """The distance of a point to the closest of some, in float64."""
        ...

    def key_of(self, radius: float) -> np.float32:
        """The key of a distance; that of a larger one is no smaller."""
        ...

    def radius_of(self, key: float) -> float:
        """The distance of a key."""
        ...


class Vectors:
    """(n, d) float32 vectors under "l2" or "cosine", taken over: they are centred or scaled."""

    def __init__(self, vectors: F32, metric: str, middle: F32 | None = None) -> None:
        self.metric = metric
        if metric == "cosine":
            for rows in blocks(len(vectors), vectors.shape[1]):
                vectors[rows] = unit_rows(vectors[rows])
        else:
            # Squares of differences lose fewer digits near the origin.
            vectors -= middle_of(vectors) if middle is None else middle
        self._vectors = vectors
        self._squares = np.einsum("ij,ij->i", vectors, vectors)
        self.resolution = float(np.sqrt(_ROUNDING * np.quantile(self._squares, 0.99)))

    def __len__(self) -> int:
        return len(self._vectors)

    def points(self, rows: I64) -> F32:
        """See Space: (c, d)."""
        return self._vectors[rows]

    def keys(self, rows: slice | I64, points: F32) -> F32:
        """See Space: squares of Euclidean distances, or 1 - cosine."""
        out: F32 = self._vectors[rows] @ points.T
        if self.metric == "cosine":
            np.subtract(np.float32(1), out, out=out)
        else:
            out *= np.float32(-2)
            out += self._squares[rows][:, None]
            out += np.einsum("ij,ij->i", points, points)
        return np.maximum(out, np.float32(0), out=out)

    def nearest(self, points: F32, threads: int) -> F32:
        """See Space: by the kernel that k-means uses, which sorts out by 8-bit products first."""
        _, scores = active.assign(self._vectors, points, threads)
        keys: F32 = np.maximum(self._squares - np.float32(2) * scores, np.float32(0))
        if self.metric == "cosine":
            keys *= np.float32(0.5)
        return keys

    def distance(self, row: int, points: F32) -> float:
        """See Space: from differences, which are exact where a product loses all digits."""
        apart = points.astype(np.float64) - self._vectors[row]
        least = float(np.sqrt(np.einsum("ij,ij->i", apart, apart).min()))
        return 2 * float(np.arcsin(min(least / 2, 1.0))) if self.metric == "cosine" else least

    def key_of(self, radius: float) -> np.float32:
        """See Space."""
        if self.metric == "cosine":
            return np.float32(1 - np.cos(min(radius, np.pi)))
        return np.float32(radius * radius)

    def radius_of(self, key: float) -> float:
        """See Space: a Euclidean distance, or an angle in radians."""
        if self.metric == "cosine":
            return float(np.arccos(np.clip(1 - float(key), -1, 1)))
        return float(np.sqrt(max(float(key), 0.0)))


class Matrix:
    """An (n, n) matrix of distances, for metrics that no vectors have, such as those of graphs.

    columns: the rows of a whole that these n points are, of which distances has all n' columns.
    """

    resolution = 0.0

    def __init__(self, distances: F32, columns: I64 | None = None) -> None:
        self._all = distances
        self._columns = np.arange(len(distances)) if columns is None else columns

    def __len__(self) -> int:
        return len(self._all)

    def points(self, rows: I64) -> F32:
        """See Space: (c, n') the distances of each to the whole."""
        return self._all[rows]

    def keys(self, rows: slice | I64, points: F32) -> F32:
        """See Space: the distances themselves."""
        return np.ascontiguousarray(points[:, self._columns[rows]].T)

    def nearest(self, points: F32, threads: int) -> F32:
        """See Space."""
        least: F32 = points[:, self._columns].min(axis=0)
        return least

    def distance(self, row: int, points: F32) -> float:
        """See Space."""
        return float(points[:, self._columns[row]].min())

    def key_of(self, radius: float) -> np.float32:
        """See Space."""
        return np.float32(radius)

    def radius_of(self, key: float) -> float:
        """See Space."""
        return float(key)


def checked(points: npt.ArrayLike, metric: str) -> F32:
    """(n, d) vectors, or an (n, n) matrix where metric is "distances", as float32.

    Errors: InvalidArgument, for what is not a metric too.
    """
    if metric == "distances":
        return _as_distances(points)
    if metric not in METRICS:
        raise InvalidArgument(
            f"expected a true metric, {' or '.join(METRICS)} or 'distances', got {metric!r}"
            + ("; scale the vectors to unit length and use 'cosine'" if metric == "dot" else "")
        )
    array = np.asarray(points)
    if array.ndim != 2 or not len(array):
        raise InvalidArgument(f"expected (n, d) vectors, n at least 1, got shape {array.shape}")
    return as_vectors(array, array.shape[1], "l2")


def space_of(points: F32, rows: I64, metric: str, middle: F32 | None = None) -> Space:
    """Some rows of what checked() gave as a space of its own, in their order. Copies them once.

    middle: (d,) of the whole, where distances between several such spaces are wanted
    """
    if metric == "distances":
        return Matrix(np.ascontiguousarray(points[rows]), rows)
    return Vectors(points[rows], metric, middle)


def space_of_points(points: F32, rows: I64, metric: str) -> Space:
    """What points() gave of several parts as a space. rows: (c,) those of the whole."""
    if metric == "distances":
        return Matrix(points, rows)
    return Vectors(points.copy(), metric, np.zeros(points.shape[1], np.float32))


def middle_of(vectors: F32) -> F32:
    """(d,) float32: the mean of (n, d) vectors."""
    return np.asarray(vectors.mean(axis=0, dtype=np.float64), np.float32)


def _as_distances(points: npt.ArrayLike) -> F32:
    array = np.asarray(points, np.float32)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not len(array):
        raise InvalidArgument(f"expected an (n, n) matrix of distances, got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InvalidArgument("expected distances that are finite and not negative")
    if not np.array_equal(array, array.T) or np.diagonal(array).any():
        raise InvalidArgument("expected a symmetric matrix of distances with zeros on its diagonal")
    return np.ascontiguousarray(array)


def blocks(n: int, width: int) -> list[slice]:
    """Slices of n rows of which each has few enough keys to `width` others."""
    size = max(64, _BLOCK_ELEMENTS // max(width, 1))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def over_blocks(parts: Sequence[slice], work: Callable[[slice], T], threads: int) -> Iterator[T]:
    """What work gives for each slice, in order."""
    if threads == 1 or len(parts) == 1:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(threads, "soardb-select") as pool:
        yield from pool.map(work, parts)


def nearest_keys(space: Space, points: F32, threads: int = 1) -> F32:
    """(n,) float32 keys of the distance of each point to the closest of some: n x c x d."""
    out = np.empty(len(space), np.float32)

    def work(rows: slice) -> None:
        space.keys(rows, points).min(axis=1, out=out[rows])

    for _ in over_blocks(blocks(len(space), len(points)), work, threads):
        pass
    return out


def first_near(space: Space, points: F32, narrow: np.float32, last: I64 | None = None) -> I64:
    """(c,) for each of some points the first row within `narrow` of it, -1 where there is none.

    last: (c,) rows of which it is known that they are; only those before are looked at
    """
    found = np.full(len(points), -1, np.int64) if last is None else last.copy()
    waiting = np.arange(len(points))
    end = len(space) if last is None else int(last.max()) + 1
    for rows in blocks(end, max(1024, len(points))):
        if last is not None:
            waiting = waiting[last[waiting] > rows.start]
        if not len(waiting):
            break
        is_within = space.keys(rows, points[waiting]) <= narrow
        first = is_within.argmax(axis=0)
        is_found = is_within[first, np.arange(len(waiting))]
        found[waiting[is_found]] = rows.start + first[is_found]
        waiting = waiting[~is_found]
    return found if last is None else np.minimum(found, last)


def radius_of(space: Space, points: F32, threads: int = 1) -> tuple[float, int]:
    """The largest distance of a point to the closest of some, and which point that is.

    As nearest_keys says, for less: nearest() bounds each key from above, so points are compared
    with all from the largest bound down, until no bound that is left is above what was found.
    """
    bounds = space.nearest(points, threads)
    order = np.argsort(-bounds, kind="stable")
    farthest, largest, first, size = 0, -np.inf, 0, 256
    while first < len(order) and bounds[order[first]] > largest:
        rows = order[first : first + size]
        keys = np.concatenate(
            [space.keys(rows[part], points).min(axis=1) for part in blocks(len(rows), len(points))]
        )
        if keys.max() > largest:
            farthest, largest = int(rows[keys.argmax()]), float(keys.max())
        first, size = first + size, 2 * size
    return space.distance(farthest, points), farthest
