"""The proto service Indexes: how the index of a collection is, and work on it.

rpc.py -> [indexes.py] -> operations.py, soardb.Collection
"""

from __future__ import annotations

import threading
from typing import Any

from soardb.curve import QUERIES
from soardb.database import Database
from soardb_proto.v1 import indexes_pb2 as pb
from soardb_proto.v1 import operations_pb2
from soardb_service.operations import Operations, Progress
from soardb_service.rpc import Call, opened

__all__ = ["Indexes"]


class Indexes:
    """One method an rpc, named as in the .proto file."""

    def __init__(self, database: Database, operations: Operations) -> None:
        self._database = database
        self._operations = operations

    def Status(self, request: pb.IndexStatusRequest, call: Call) -> pb.IndexStatus:  # noqa: N802
        """Counts and bytes."""
        stats = opened(self._database, call, request.collection).stats()
        stats.pop("shards", None)
        return pb.IndexStatus(**(stats | {"damage": stats["damage"] or ""}))

    def Build(self, request: pb.BuildRequest, call: Call) -> operations_pb2.Operation:  # noqa: N802
        """Learn partitions anew."""
        return self._compact(request.collection, call, "build", retrain=True)

    def Compact(self, request: pb.CompactRequest, call: Call) -> operations_pb2.Operation:  # noqa: N802
        """Build the next generation."""
        return self._compact(request.collection, call, "compact", retrain=False)

    def _compact(
        self, name: str, call: Call, kind: str, *, retrain: bool
    ) -> operations_pb2.Operation:
        collection = opened(self._database, call, name)

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            collection.compact(retrain=retrain, progress=progress, stop=stop)
            stats = collection.stats()
            return {"nlist": stats["nlist"], "points": stats["points"]}

        return self._operations.start(name, kind, work)

    def Tune(self, request: pb.TuneRequest, call: Call) -> operations_pb2.Operation:  # noqa: N802
        """Measure the curve of recall and latency."""
        collection = opened(self._database, call, request.collection)

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            curve = collection.tune(
                request.k or 10,
                queries=request.queries or QUERIES,
                nprobes=list(request.nprobes) or None,
                reranks=list(request.reranks) or None,
                seed=request.seed,
                progress=progress,
                stop=stop,
            )
            found: dict[str, Any] = curve.to_json()
            return found

        return self._operations.start(request.collection, "tune", work)
