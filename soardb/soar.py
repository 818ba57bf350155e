"""Spilled assignment: give every vector a second partition that fails differently.

    clustering.py -> [soar.py] -> index/model.py

The primary partition is the nearest centroid. The spilled one minimises the squared distance plus
soar_lambda times the squared part of its residual parallel to the primary residual, so that a
query which misses the first partition is likely to hit the second. SOAR paper (Sun et al., NeurIPS
2023), theorem 3.1.

Nothing here reads a disk or knows about ids: arrays in, arrays out.
"""

from __future__ import annotations

import numpy as np

from soardb.kernels.dispatch import Assigning, active
from soardb.kernels.layout import F32, I32

__all__ = ["nearest", "residual_cosine", "spill"]


def nearest(vectors: F32, centroids: F32 | Assigning, *, threads: int = 1) -> I32:
    """The primary partition: (n,) int32, nearest centroid by L2, ties to the lower one.

    centroids (nlist, d) float32, or the kernels' Assigner of them, which a caller keeps who asks
    for a few vectors at a time.
    """
    return _prepared(centroids).assign(vectors, threads)[0]


def spill(
    vectors: F32,
    centroids: F32 | Assigning,
    primary: I32,
    *,
    soar_lambda: float = 1.5,
    include_primary: bool = True,
    threads: int = 1,
) -> I32:
    """Choose the second partition of each vector.

    vectors    (n, d) float32, finite
    centroids  (nlist, d) float32, or the kernels' Assigner of them
    primary    (n,) int32, the first partition of each vector

    Returns (n,) int32: argmin over all c of |x - c|^2 + soar_lambda * <r_hat, x - c>^2, where r_hat
    is the direction of the primary residual. Where the primary one itself wins, that vector is
    stored once; with include_primary=False it may not win, so that every vector is stored twice
    (soar_lambda 0 is then the second nearest centroid). A single centroid leaves no choice: the
    primary one is returned. Costs two (n, d) x (d, nlist) products.
    """
    return _prepared(centroids).spill(vectors, primary, soar_lambda, include_primary, threads)


def _prepared(centroids: F32 | Assigning) -> Assigning:
    return active.Assigner(centroids) if isinstance(centroids, np.ndarray) else centroids


def residual_cosine(vectors: F32, centroids: F32, primary: I32, spilled: I32) -> F32:
    """|cos| of the angle between the two residuals of each vector: (n,) float32, 0 where one is 0.

    What SOAR makes small: it is the correlation of the two partitions' score errors.
    """
    first = vectors - centroids[primary]
    second = vectors - centroids[spilled]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = np.abs(np.einsum("ij,ij->i", first, second)) / np.where(lengths > 0, lengths, 1)
    return np.where(lengths > 0, cosine, 0).astype(np.float32)
