"""The proto service Admin: the server itself.

rpc.py -> [admin.py] -> soardb.Database, limits.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import soardb
from soardb.database import Database
from soardb.errors import NotAllowed
from soardb.filters.expr import MAX_DEPTH, MAX_NODES
from soardb.kernels.dispatch import describe
from soardb_proto.v1 import access_pb2
from soardb_proto.v1 import admin_pb2 as pb
from soardb_service.limits import Limits
from soardb_service.rpc import Call

__all__ = ["Admin"]


class Admin:
    """One method an rpc, named as in the .proto file. in_flight(): calls that are worked on."""

    def __init__(self, database: Database, limits: Limits, in_flight: Callable[[], int]) -> None:
        self._database = database
        self._limits = limits
        self._in_flight = in_flight
        self._started = time.monotonic()

    def ServerInfo(self, request: pb.ServerInfoRequest, call: Call) -> pb.ServerInfoReply:  # noqa: N802
        """Version, caps and what the caller may."""
        limits = self._limits
        return pb.ServerInfoReply(
            version=soardb.__version__,
            simd=describe().simd,
            caps=pb.Caps(
                message_bytes=limits.message_bytes,
                rows=limits.rows,
                queries=limits.queries,
                limit=limits.limit,
                page_size=limits.page_size,
                filter_nodes=MAX_NODES,
                filter_depth=MAX_DEPTH,
                streams=limits.streams,
                ingest_window=limits.ingest_window,
            ),
            grants=[
                pb.Grant(collections=grant.collections, scope=_scope(grant.scope))
                for grant in call.caller.grants
            ],
            is_writer=not self._database.is_read_only,
            uptime_s=time.monotonic() - self._started,
        )

    def Stats(self, request: pb.StatsRequest, call: Call) -> pb.StatsReply:  # noqa: N802
        """Memory and counts of everything."""
        if not call.caller.may_all(access_pb2.ADMIN):
            raise NotAllowed("expected a key with the scope admin for '*', got one without")
        stats = self._database.stats()
        return pb.StatsReply(
            memory_held=stats["memory_held"],
            memory_reserved=stats["memory_reserved"],
            memory_limit=stats["memory_limit"],
            collections=len(stats["collections"]),
            calls_in_flight=self._in_flight(),
        )


def _scope(number: int) -> access_pb2.Scope:
    return access_pb2.Scope.Name(number)  # type: ignore[return-value]
