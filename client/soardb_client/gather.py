"""Single searches of several threads in one call: what comes while one is under way goes together.

    client.py -> [gather.py] -> soardb/batching.py, points.py

A call to a server costs some tenths of a millisecond, whatever it asks; a query more in it costs a
hundredth. So threads that search through one client are served many times faster when their
queries share calls, and one thread alone waits no longer: there is no timer. Only searches that
differ in nothing but their vector share a call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soardb.batching import Batcher
from soardb.hits import Hits
from soardb.options import SearchOptions
from soardb_client import points
from soardb_client.calls import Held
from soardb_client.target import as_timeout
from soardb_proto.v1 import points_pb2

if TYPE_CHECKING:
    from soardb_client.wire import Wire

__all__ = ["Gather"]

_MOST = 128


class Gather:
    """calls: how many may be under way at once; what comes meanwhile waits for the next."""

    def __init__(self, calls: int) -> None:
        self._batcher: Batcher[points_pb2.SearchRequest, Hits] = Batcher(calls, _MOST)

    @staticmethod
    def takes(query: npt.ArrayLike | None, options: SearchOptions) -> bool:
        """Whether it is a search by one vector and nothing else."""
        return (
            query is not None
            and np.ndim(query) == 1
            and options["id"] is options["text"] is options["group_by"] is None
            and not (options["explain"] or options["measure_merge"])
        )

    def search(
        self,
        wire: Wire,
        held: Held,
        query: npt.ArrayLike,
        limit: int,
        options: SearchOptions,
        timeout: float | None,
    ) -> Hits:
        """The hits of one query. Errors: as of a call of its own.

        Its time counts twice: for the wait until it is sent, and for the call.
        """
        request = points.search_request(held, query, limit, **options)
        rest = points_pb2.SearchRequest()
        rest.CopyFrom(request)
        rest.ClearField("vectors")
        rest.ClearField("min_seq")
        kind: tuple[Any, ...] = (held.id, timeout, rest.SerializeToString(deterministic=True))

        def together(requests: Sequence[points_pb2.SearchRequest]) -> list[Hits]:
            return wire.run(points.searched(held, _joined(requests)), timeout).split()

        seconds = wire.settings.timeout_s if timeout is None else as_timeout(timeout)
        return self._batcher.run(kind, request, together, -1 if math.isinf(seconds) else seconds)


def _joined(requests: Sequence[points_pb2.SearchRequest]) -> points_pb2.SearchRequest:
    """One request with the queries of all, that wants to see what any of them does."""
    if len(requests) == 1:
        return requests[0]
    joined = points_pb2.SearchRequest()
    joined.CopyFrom(requests[0])
    joined.vectors.data = b"".join(request.vectors.data for request in requests)
    joined.vectors.count = len(requests)
    joined.min_seq = max(request.min_seq for request in requests)
    return joined
