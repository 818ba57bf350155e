"""What tuning measured: recall and latency of settings of a search.

    tuning.py, soardb_client -> [curve.py]

Nothing here measures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from soardb.errors import InvalidArgument
from soardb.schema import shown

__all__ = ["Curve", "OperatingPoint"]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One setting and what it gave: recall@k with its 95 % interval, median time of a query.

    nprobe, rerank: None for exact search
    """

    nprobe: int | None
    rerank: int | None
    recall: float
    low: float
    high: float
    latency_us: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What recall@k costs on this collection, on this machine, at the moment of measuring."""

    k: int
    queries: int
    points: list[OperatingPoint]

    def cheapest(self, target_recall: float) -> OperatingPoint | None:
        """The fastest point whose measured recall reaches the target; None where none does.

        The interval of a point says how sure that is. Errors: InvalidArgument.
        """
        if isinstance(target_recall, bool) or not isinstance(target_recall, int | float) or not (
            0 < target_recall <= 1
        ):  # fmt: skip
            raise InvalidArgument(
                f"expected target_recall above 0 and at most 1, got {shown(target_recall)}"
            )
        good = [point for point in self.points if point.recall >= target_recall]
        return min(good, key=lambda point: point.latency_us, default=None)

    def to_json(self) -> dict[str, Any]:
        """JSON values: k, queries, and the points as objects."""
        return {
            "k": self.k,
            "queries": self.queries,
            "points": [asdict(point) for point in self.points],
        }

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Curve:
        """The curve that to_json() wrote. Raises KeyError or TypeError for anything else."""
        points = [OperatingPoint(**point) for point in given["points"]]
        return cls(given["k"], given["queries"], points)
