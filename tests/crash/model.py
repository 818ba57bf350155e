"""What the points of the crash tests must be: one small model, by which every answer is judged.

    workload.py, checker.py, test_*.py -> [model.py]

A point's vector follows from its id and a version, and the version stands in the point's payload:
so any point that is read tells by itself whether its vector and its payload belong together. An
operation is a JSON object; `apply` says what it makes of a writer's points. Ids belong to one
writer each, but for the hot ones, which all of them write.

Nothing here opens a database.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from soardb.kernels.layout import F32

__all__ = [
    "BUCKETS",
    "COLLECTIONS",
    "DIM",
    "HOT",
    "HOT_OWNER",
    "SCRATCH",
    "SCRATCH_DIM",
    "WRITERS",
    "Kind",
    "Operation",
    "PointId",
    "Points",
    "apply",
    "first_payload",
    "is_hot",
    "owned",
    "patch_of",
    "payload_where",
    "vectors_of",
]

DIM: Final = 24
SCRATCH_DIM: Final = 8
WRITERS: Final = 4
BUCKETS: Final = 20
HOT: Final = 6
HOT_OWNER: Final = 99
SCRATCH: Final = [f"scratch-{i}" for i in range(5)]

PointId = int | str
Operation = Mapping[str, Any]
Points = dict[PointId, dict[str, Any]]
"""Payload by id. payload["vector"] is the version that the vector follows from."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the long-lived collections of the harness."""

    name: str
    metric: str
    has_text_ids: bool
    schema: dict[str, str]
    nlist: int

    def id_of(self, number: int) -> PointId:
        """The point id of a number; negative ones are hot."""
        return f"word {number}" if self.has_text_ids else number


COLLECTIONS: Final = [
    Kind(
        "numbers",
        "cosine",
        has_text_ids=False,
        schema={"owner": "int", "bucket": "int", "body": "text"},
        nlist=16,
    ),
    Kind("words", "l2", has_text_ids=True, schema={"owner": "int", "bucket": "int"}, nlist=12),
]


def vectors_of(ids: Sequence[PointId], versions: Iterable[int], dim: int = DIM) -> F32:
    """(n, dim) float32 in -1..1: what points of these ids and versions hold."""
    keys = np.array([zlib.crc32(str(point_id).encode()) for point_id in ids], np.uint64)
    seeds = keys * np.uint64(0x9E3779B97F4A7C15) + np.array(
        [version * 0xBF58476D1CE4E5B9 & (1 << 64) - 1 for version in versions], np.uint64
    )
    steps = np.arange(1, dim + 1, dtype=np.uint64) * np.uint64(0x94D049BB133111EB)
    mixed = seeds[:, None] + steps
    for shift in (30, 27, 31):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0xBF58476D1CE4E5B9)
    unit = (mixed >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    return unit.astype(np.float32)


def first_payload(version: int, owner: int) -> dict[str, Any]:
    """The payload that an upsert of that version stores."""
    return {
        "vector": version,
        "owner": owner,
        "bucket": version % BUCKETS,
        "body": f"alpha{version % 7} beta",
    }


def is_hot(payload: Mapping[str, Any]) -> bool:
    """Whether the point is one of those that every writer writes."""
    return bool(payload["owner"] == HOT_OWNER)


def payload_where(owner: int, bucket: int) -> dict[str, Any]:
    """A filter for the points of a writer in a bucket."""
    return {
        "and": [
            {"field": "owner", "op": "eq", "value": owner},
            {"field": "bucket", "op": "eq", "value": bucket},
        ]
    }


def owned(points: Points, owner: int) -> Points:
    """The points of one writer, or the hot ones with HOT_OWNER."""
    return {i: payload for i, payload in points.items() if payload["owner"] == owner}


def apply(operation: Operation, points: Points) -> None:
    """Do an operation of one writer to its points, in place."""
    version, owner = operation["version"], operation["owner"]
    match operation["op"]:
        case "upsert":
            for point_id in operation["ids"]:
                points[point_id] = first_payload(version, owner)
        case "delete":
            for point_id in operation["ids"]:
                points.pop(point_id, None)
        case "patch":
            for point_id in operation["ids"]:
                points[point_id] = points[point_id] | patch_of(version)
        case "delete_where":
            for point_id in _in_bucket(points, operation["bucket"]):
                del points[point_id]
        case "patch_where":
            for point_id in _in_bucket(points, operation["bucket"]):
                points[point_id] = points[point_id] | patch_of(version)
        case "flush":
            pass
        case other:
            raise AssertionError(f"no operation {other!r}")


def patch_of(version: int) -> dict[str, Any]:
    """What a payload update of that version changes."""
    return {"patched": version, "bucket": version % BUCKETS}


def _in_bucket(points: Points, bucket: int) -> list[PointId]:
    return [i for i, payload in points.items() if payload["bucket"] == bucket]
