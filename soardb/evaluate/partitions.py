"""How well a partitioning serves its queries, before any quantisation comes into play.

    clustering, soar -> [partitions.py] -> plots.py, benchmarks

Two questions are answered. How many points must be read to reach the partitions which hold the
true neighbours (the k-means-recall curve)? And do the two partitions of a spilled vector fail on
the same queries (the angle between its residuals, and the correlation of the two score errors)?
For q uniform on the sphere that correlation is the cosine of the angle: SOAR paper, section 3.

Curves of different spilling rules are compared at equal points read, never at equal nprobe: the
lists of a spilled index are up to twice as long. Cosine means: pass normalised vectors, as the
index does. Nothing here trains or assigns; centroids and partitions come in as arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.metrics import as_metric

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.integer[Any]]

_BLOCK = 512  # queries, or thousands of vectors, worked on at once


@dataclass(frozen=True)
class KMeansRecall:
    """Recall of the partition choice alone, for nprobe = 1 .. nlist.

    nprobe       (nlist,) int64, 1 .. nlist
    points_read  (nlist,) float64, mean size of the lists visited; a point in two of them counts
                 twice, as a scan reads both copies
    recall       (nlist,) float64, mean share of the true neighbours which lie in a visited list
    """

    nprobe: I64
    points_read: Floats
    recall: Floats

    def points_read_at(self, recall: float) -> float:
        """Points read to reach a recall, interpolated linearly between two values of nprobe."""
        if not 0 < recall <= 1:
            raise InvalidArgument(f"expected a recall within (0, 1], got {recall}")
        reached = int(np.searchsorted(self.recall, recall))
        if reached == 0:
            return float(self.points_read[0])
        if reached == len(self.recall):
            raise InvalidArgument(
                f"recall {recall} is out of reach: all lists together hold "
                f"{self.recall[-1]:.4f} of the true neighbours"
            )
        ends = slice(reached - 1, reached + 1)
        return float(np.interp(recall, self.recall[ends], self.points_read[ends]))


@dataclass(frozen=True)
class ResidualAngles:
    """cos(r, r') of the spilled vectors.

    cosines           (m,) float64, of the m vectors which have two different partitions and two
                      non-zero residuals
    spilled_fraction  share of all vectors which have two different partitions
    """

    cosines: Floats
    spilled_fraction: float

    @property
    def mean_abs(self) -> float:
        """Mean of |cos(r, r')|; nan without a spilled vector."""
        return float(np.abs(self.cosines).mean()) if self.cosines.size else float("nan")


@dataclass(frozen=True)
class ScoreErrors:
    """The part of a score which a partition's centroid does not see, over true neighbours.

    primary  (m,) float64, <q, x - c> for the primary partition of each (query, neighbour) pair
    spilled  (m,) float64, the same for the spilled partition
    """

    primary: Floats
    spilled: Floats

    @property
    def correlation(self) -> float:
        """Pearson correlation of the two errors; nan with fewer than two pairs or no variance."""
        if len(self.primary) < 2 or not (self.primary.std() and self.spilled.std()):
            return float("nan")
        return float(np.corrcoef(self.primary, self.spilled)[0, 1])


def kmeans_recall(
    centroids: F32, partitions: Rows, queries: F32, true_rows: Rows, metric: str = "dot"
) -> KMeansRecall:
    """The k-means-recall curve: share of true neighbours in the top partitions, by points read.

    centroids   (nlist, d) float32
    partitions  (n,) integers without spilling, or (n, copies): column 0 primary, then the spilled
                ones; -1 or a repetition means no further copy
    queries     (nq, d) float32
    true_rows   (nq, k) int64, rows of partitions
    metric      how partitions are ranked: "dot" and "cosine" by <q, c>, "l2" by -|q - c|^2

    Ties in the ranking go to the lower partition. Costs one (nq, d) x (d, nlist) product and a
    sort of each of its rows.
    """
    nlist = len(centroids)
    copies = _copies(partitions, nlist)
    if true_rows.min(initial=0) < 0 or true_rows.max(initial=0) >= len(copies):
        raise InvalidArgument(f"expected true_rows within 0..{len(copies) - 1}")
    sizes = np.bincount(copies[copies >= 0], minlength=nlist)
    found = np.zeros(nlist + 1, dtype=np.int64)  # by the rank of the best partition of each
    points = np.zeros(nlist, dtype=np.float64)
    for block in _blocks(len(queries), _BLOCK):
        order = _partition_order(centroids, queries[block], metric)  # (b, nlist), best first
        points += np.cumsum(sizes[order], axis=1).sum(axis=0)
        ranks = np.full((len(order), nlist + 1), nlist)  # the last column serves copy -1
        np.put_along_axis(ranks, order, np.arange(nlist)[None, :], axis=1)
        held_by = copies[true_rows[block]]  # (b, k, copies)
        best = ranks[np.arange(len(order))[:, None, None], held_by].min(axis=2)
        found += np.bincount(best.ravel(), minlength=nlist + 1)
    return KMeansRecall(
        nprobe=np.arange(1, nlist + 1),
        points_read=points / len(queries),
        recall=np.cumsum(found[:nlist]) / true_rows.size,
    )


def residual_angles(vectors: F32, centroids: F32, primary: Rows, spilled: Rows) -> ResidualAngles:
    """Cosine of the angle between the two residuals of every spilled vector.

    vectors   (n, d) float32
    primary   (n,) integers
    spilled   (n,) integers, equal to primary (or -1) where a vector is stored once
    """
    rows = np.flatnonzero((spilled != primary) & (spilled >= 0))
    cosines = [np.empty(0)]
    for block in _blocks(len(rows), 1000 * _BLOCK // max(1, vectors.shape[1] // 16)):
        chosen = rows[block]
        r = _residuals(vectors, centroids, chosen, primary)
        other = _residuals(vectors, centroids, chosen, spilled)
        lengths = np.linalg.norm(r, axis=1) * np.linalg.norm(other, axis=1)
        products = np.einsum("nd,nd->n", r, other)
        cosines.append(products[lengths > 0] / lengths[lengths > 0])
    fraction = len(rows) / len(vectors) if len(vectors) else 0.0
    return ResidualAngles(np.concatenate(cosines), fraction)


def score_errors(
    vectors: F32,
    centroids: F32,
    primary: Rows,
    spilled: Rows,
    queries: F32,
    true_rows: Rows,
) -> ScoreErrors:
    """<q, r> and <q, r'> over every true (query, neighbour) pair whose neighbour is spilled.

    A correlation near 1 says that the second copy is missed by the queries that miss the first.
    """
    errors: tuple[list[Floats], list[Floats]] = ([np.empty(0)], [np.empty(0)])
    for block in _blocks(len(queries), _BLOCK):
        rows = true_rows[block]
        is_spilled = (spilled[rows] != primary[rows]) & (spilled[rows] >= 0)
        of_query, column = np.nonzero(is_spilled)
        chosen = rows[of_query, column]
        q = queries[block][of_query].astype(np.float64)
        for errors_of, partition in zip(errors, (primary, spilled), strict=True):
            residuals = _residuals(vectors, centroids, chosen, partition)
            errors_of.append(np.einsum("md,md->m", q, residuals))
    return ScoreErrors(np.concatenate(errors[0]), np.concatenate(errors[1]))


def _residuals(vectors: F32, centroids: F32, rows: Rows, partition: Rows) -> Floats:
    return vectors[rows].astype(np.float64) - centroids[partition[rows]]


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _copies(partitions: Rows, nlist: int) -> I64:
    """(n, copies): every list a vector lies in, once; -1 in place of a repetition."""
    copies = np.array(partitions[:, None] if partitions.ndim == 1 else partitions, np.int64)
    if copies.ndim != 2:
        raise InvalidArgument(
            f"expected partitions of shape (n,) or (n, copies), got {partitions.shape}"
        )
    if copies.size and (copies.min() < -1 or copies.max() >= nlist):
        raise InvalidArgument(f"expected partitions within -1..{nlist - 1}")
    for column in range(1, copies.shape[1]):
        repeated = (copies[:, :column] == copies[:, column, None]).any(axis=1)
        copies[repeated, column] = -1
    return copies


def _partition_order(centroids: F32, queries: F32, metric: str) -> I64:
    scores = queries @ centroids.T  # (b, nlist)
    if as_metric(metric) == "l2":
        scores -= np.float32(0.5) * np.einsum("cd,cd->c", centroids, centroids)
    return np.argsort(-scores, axis=1, kind="stable")
