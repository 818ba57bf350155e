"""Limits: what one call may hold, and the words that refuse more.

    config.py -> [limits.py] -> convert.py, points.py, rest.py, admin.py

Rows, queries and pages are counted in what a message announces, before anything is made of it.
Filters are bounded by the engine: MAX_NODES, MAX_DEPTH and MAX_IN_VALUES of soardb.filters.
"""

from __future__ import annotations

from dataclasses import dataclass

from soardb.collection import MAX_PAGE
from soardb.errors import InvalidArgument
from soardb.query import MAX_LIMIT

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on one call.

    message_bytes  one message, either way, unpacked
    rows           points in one upsert, get, delete or batch of a stream
    queries        queries in one search
    results        queries times limit in one search
    limit          results a query
    page_size      points in one page
    streams        streams and waits at once, in this process
    ingest_window  unacknowledged batches of a stream
    """

    message_bytes: int = 64 * 2**20
    rows: int = 10_000
    queries: int = 1_000
    results: int = 1_000_000
    limit: int = MAX_LIMIT
    page_size: int = MAX_PAGE
    streams: int = 16
    ingest_window: int = 8

    def check(self, cap: str, value: int, field: str, advice: str = "") -> int:
        """The value, or InvalidArgument naming the field, the cap and what came."""
        most = int(getattr(self, cap))
        if value > most:
            raise InvalidArgument(
                f"expected at most {most:,} {cap} in {field}, got {value:,}"
                + (f"; {advice}" if advice else "")
            )
        return value
