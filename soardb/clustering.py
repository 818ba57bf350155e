"""k-means for the coarse quantizer.

    index/, cluster/ -> [clustering.py] -> kernels (assign)

Lloyd's algorithm with L2 distances on a seeded sample, which need not lie in one process. After
every round but the last two, small lists take half of giant ones, so that no list ends up empty or
giant unless equal vectors make it so; a centroid that still has no point at the end is dropped.
AVQ's centroid update (Guo et al., ICML 2020) is here too, since it moves the same centroids.

Nothing here knows of codes or ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I32, I64
from soardb.metrics import unit_rows

__all__ = ["POINTS_PER_CENTROID", "Progress", "Sample", "avq_centroids", "kmeans", "lloyd"]

Progress = Callable[[str, float], None]

POINTS_PER_CENTROID = 160
"""Sampled points a centroid. Fewer than 128 cost recall: see docs/index-guide.md."""

_GIANT = 6.0
_SETTLING_ROUNDS = 2


class Sample(Protocol):
    """n vectors in a fixed order, wherever they are, as Lloyd's algorithm asks for them."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def rows(self, chosen: I64) -> F32:
        """The vectors of (m,) places: (m, d), not shared with the sample."""
        ...

    def sums(self, centroids: F32) -> tuple[F32, I64]:
        """Give each vector its nearest list: (nlist, d) sums of the lists, (nlist,) counts."""
        ...

    def members(self, held: int, backwards: I64) -> F32:
        """Vectors of a list of the last sums(), by their places in it from its end: (m, d)."""
        ...


class _Held:
    """A sample in memory."""

    def __init__(self, vectors: F32, threads: int) -> None:
        self._vectors, self._threads = vectors, threads
        self._lists: I32 = np.empty(0, np.int32)
        self._order: tuple[I64, I64] | None = None

    def __len__(self) -> int:
        return len(self._vectors)

    def rows(self, chosen: I64) -> F32:
        """See Sample."""
        chosen_rows: F32 = self._vectors[chosen]
        return chosen_rows

    def sums(self, centroids: F32) -> tuple[F32, I64]:
        """See Sample."""
        self._lists, _ = active.assign(self._vectors, centroids, self._threads)
        self._order = None
        return active.list_sums(self._vectors, self._lists, len(centroids), self._threads)

    def members(self, held: int, backwards: I64) -> F32:
        """See Sample."""
        if self._order is None:
            ends = np.cumsum(np.bincount(self._lists))
            self._order = np.argsort(self._lists, kind="stable"), ends
        order, ends = self._order
        found: F32 = self._vectors[order[ends[held] - 1 - backwards]]
        return found


def kmeans(
    vectors: F32,
    nlist: int,
    *,
    seed: int = 0,
    iterations: int = 10,
    init: Literal["random", "kmeans++"] = "random",
    spherical: bool = False,
    points_per_centroid: int = POINTS_PER_CENTROID,
    threads: int = 1,
    progress: Progress | None = None,
) -> F32:
    """Centroids of (n, d) float32 vectors.

    Returns (nlist, d) float32, fewer where the data have fewer distinct places. Costs `iterations`
    products of (min(n, nlist * points_per_centroid), d) x (d, nlist). spherical: centroids are
    scaled to unit length after each round. Errors: InvalidArgument when nlist > n.
    """
    if not 1 <= nlist <= len(vectors):
        raise InvalidArgument(
            f"expected nlist within 1..{len(vectors)} (the training vectors), got {nlist}"
        )
    rng = np.random.default_rng(seed)
    wanted = max(nlist * points_per_centroid, 1)
    sample = vectors
    if wanted < len(vectors):
        sample = vectors[np.sort(rng.choice(len(vectors), wanted, replace=False))]
    return lloyd(
        _Held(sample, threads),
        nlist,
        rng,
        iterations=iterations,
        init=init,
        spherical=spherical,
        progress=progress,
    )


def lloyd(
    sample: Sample,
    nlist: int,
    rng: np.random.Generator,
    *,
    iterations: int,
    init: Literal["random", "kmeans++"],
    spherical: bool,
    progress: Progress | None = None,
) -> F32:
    """kmeans() of all vectors of a sample, nlist of them at most.

    Holds (nlist, d) numbers, and with "kmeans++" 32 times as many; the rest is the sample's.
    """
    centroids = _seeds(sample, nlist, init, rng)
    counts = np.zeros(nlist, np.int64)
    for i in range(iterations):
        if progress:
            progress("k-means", i / iterations)
        centroids, counts = _means(sample, centroids)
        if i < iterations - _SETTLING_ROUNDS:
            _rebalance(sample, centroids, counts, rng)
        if spherical:
            centroids = unit_rows(centroids)
    if (counts == 0).any():
        _, counts = sample.sums(centroids)
    if progress:
        progress("k-means", 1.0)
    return np.ascontiguousarray(centroids[counts > 0])


def _seeds(sample: Sample, nlist: int, init: str, rng: np.random.Generator) -> F32:
    if init == "random":
        return sample.rows(rng.choice(len(sample), nlist, replace=False))
    if init != "kmeans++":
        raise InvalidArgument(f"expected init 'random' or 'kmeans++', got {init!r}")
    # D^2 sampling over a part of the sample: enough for seeds, and one pass a seed stays cheap.
    drawn = np.arange(len(sample))
    if len(sample) > 32 * nlist:
        drawn = rng.choice(len(sample), 32 * nlist, replace=False)
    pool = sample.rows(drawn)
    chosen = np.empty(nlist, np.int64)
    chosen[0] = rng.integers(len(pool))
    nearest = np.full(len(pool), np.inf)
    for i in range(1, nlist):
        scores = active.exact_scores(pool, np.ascontiguousarray(pool[chosen[i - 1]]), "l2")
        nearest = np.minimum(nearest, -scores.astype(np.float64))
        total = nearest.sum()
        chosen[i] = (
            rng.choice(len(pool), p=nearest / total) if total > 0 else rng.integers(len(pool))
        )
    return pool[chosen].copy()


def _means(sample: Sample, centroids: F32) -> tuple[F32, I64]:
    sums, counts = sample.sums(centroids)
    moved = centroids.copy()
    held = counts > 0
    moved[held] = sums[held] / counts[held, None].astype(np.float32)
    return moved, counts


def _rebalance(sample: Sample, centroids: F32, counts: I64, rng: np.random.Generator) -> None:
    """Let small lists take half of the largest ones; centroids change in place.

    An empty list always moves; the smallest ones move while a list holds more than 6 times the
    mean. A list is parted along the difference of two of its members: equal vectors stay together.
    """
    origin, room, mean = np.arange(len(counts)), counts.copy(), counts.mean()
    for poor in np.argsort(counts, kind="stable"):
        rich = int(room.argmax())
        if room[rich] < 2 or (counts[poor] > 0 and room[rich] <= _GIANT * mean):
            return
        held = origin[rich]
        one, other = sample.members(int(held), rng.integers(counts[held], size=2))
        if (one == other).all():
            room[rich] = 0
            continue
        nudge = np.float32(0.1) * (one - other)
        centroids[poor] = centroids[rich] + nudge
        centroids[rich] -= nudge
        origin[poor], room[poor] = held, room[rich] // 2
        room[rich] -= room[poor]


def avq_centroids(vectors: F32, lists: I32, centroids: F32, eta: float, threads: int = 1) -> F32:
    """Move every centroid to where it minimises the anisotropic loss over its members.

    vectors (n, d), lists (n,) int32, centroids (nlist, d), eta >= 1 (1 is the norm-weighted mean).
    Solves one system of d numbers a list (kernels.avq_update), then applies the single global
    rescale. A list without members keeps its centroid, but for the rescale; assignments stay as
    they are. AVQ, section 3.4 of the method's description.
    """
    moved = active.avq_update(vectors, lists, centroids, eta, threads)
    sums, _ = active.list_sums(vectors, lists, len(centroids), threads)
    counts = np.bincount(lists[vectors.any(axis=1)], minlength=len(centroids))
    agreement = float(np.einsum("ij,ij->", moved, sums, dtype=np.float64))
    norm = float(counts @ np.einsum("ij,ij->i", moved, moved))
    if norm > 0 and agreement > 0:
        moved *= agreement / norm
    return moved.astype(np.float32)
