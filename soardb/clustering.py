"""k-means for the coarse quantizer.

    index/ -> [clustering.py] -> kernels (assign)

Lloyd's algorithm with L2 distances on a seeded sample. After every round but the last two, small
lists take half of giant ones, so that no list ends up empty or giant unless equal vectors make it
so; a centroid that still has no point at the end is dropped. AVQ's centroid update (Guo et al.,
ICML 2020) is here too, since it moves the same centroids.

Nothing here knows of codes or ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I32
from soardb.metrics import unit_rows

__all__ = ["POINTS_PER_CENTROID", "Progress", "avq_centroids", "kmeans"]

Progress = Callable[[str, float], None]

POINTS_PER_CENTROID = 160
"""Sampled points a centroid. Fewer than 128 cost recall: see docs/index-guide.md."""

_GIANT = 6.0
_SETTLING_ROUNDS = 2


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
    centroids = _seeds(sample, nlist, init, rng)
    counts = np.zeros(nlist, np.int64)
    for i in range(iterations):
        if progress:
            progress("k-means", i / iterations)
        lists, _ = active.assign(sample, centroids, threads)
        centroids, counts = _means(sample, lists, centroids, threads)
        if i < iterations - _SETTLING_ROUNDS:
            _rebalance(sample, lists, centroids, counts, rng)
        if spherical:
            centroids = unit_rows(centroids)
    if (counts == 0).any():
        lists, _ = active.assign(sample, centroids, threads)
        counts = np.bincount(lists, minlength=nlist)
    if progress:
        progress("k-means", 1.0)
    return np.ascontiguousarray(centroids[counts > 0])


def _seeds(sample: F32, nlist: int, init: str, rng: np.random.Generator) -> F32:
    if init == "random":
        return sample[rng.choice(len(sample), nlist, replace=False)].copy()
    if init != "kmeans++":
        raise InvalidArgument(f"expected init 'random' or 'kmeans++', got {init!r}")
    # D^2 sampling over a part of the sample: enough for seeds, and one pass a seed stays cheap.
    pool = sample
    if len(sample) > 32 * nlist:
        pool = sample[rng.choice(len(sample), 32 * nlist, replace=False)]
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


def _means(sample: F32, lists: I32, centroids: F32, threads: int) -> tuple[F32, np.ndarray]:
    sums, counts = active.list_sums(sample, lists, len(centroids), threads)
    moved = centroids.copy()
    held = counts > 0
    moved[held] = sums[held] / counts[held, None].astype(np.float32)
    return moved, counts


def _rebalance(
    sample: F32, lists: I32, centroids: F32, counts: np.ndarray, rng: np.random.Generator
) -> None:
    """Let small lists take half of the largest ones; centroids change in place.

    An empty list always moves; the smallest ones move while a list holds more than 6 times the
    mean. A list is parted along the difference of two of its members: equal vectors stay together.
    """
    order, ends = np.argsort(lists, kind="stable"), np.cumsum(counts)
    origin, room, mean = np.arange(len(counts)), counts.copy(), counts.mean()
    for poor in np.argsort(counts, kind="stable"):
        rich = int(room.argmax())
        if room[rich] < 2 or (counts[poor] > 0 and room[rich] <= _GIANT * mean):
            return
        held = origin[rich]
        one, other = sample[order[ends[held] - 1 - rng.integers(counts[held], size=2)]]
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
