"""One curve of recall of those that shards measured.

    collection.py -> [curves.py] -> curve.py

Each shard holds a random share of the points, so it holds as large a share of the true results of
a query, and what is found of all of them is the mean of what shards find of theirs.

Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Sequence

from soardb.curve import Curve, Effort, OperatingPoint

__all__ = ["joined_curve"]


def joined_curve(curves: Sequence[Curve]) -> Curve | None:
    """The settings that all have; None where there are none.

    A shard without partitions searches exactly, whatever the setting. recall, low and high are
    means, latency_us is that of the slowest, scanned the sum.
    """
    with_lists = [curve for curve in curves if any(p.effort is not None for p in curve.points)]
    exact = [curve for curve in curves if curve not in with_lists]
    efforts: list[Effort | None] = [None]
    if with_lists:
        shared = [
            point.effort
            for point in with_lists[0].points
            if all(any(p.effort == point.effort for p in c.points) for c in with_lists)
        ]
        efforts = list(shared)
    points = []
    for effort in efforts:
        each = [_point(curve, effort) for curve in with_lists]
        each += [_point(curve, None) for curve in exact]
        points.append(
            OperatingPoint(
                effort,
                sum(p.recall for p in each) / len(each),
                sum(p.low for p in each) / len(each),
                sum(p.high for p in each) / len(each),
                max(p.latency_us for p in each),
                sum(p.scanned for p in each),
            )
        )
    if not points:
        return None
    return Curve(curves[0].k, sum(curve.queries for curve in curves), points, curves[0].share)


def _point(curve: Curve, effort: Effort | None) -> OperatingPoint:
    return next(point for point in curve.points if point.effort == effort)
