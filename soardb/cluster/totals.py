"""Statistics of shards, added up.

collection.py, cluster.py -> [totals.py]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["total"]


def total(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers are summed, dicts member by member; bools: whether all are; texts are joined."""
    return {key: _together([one.get(key) for one in each]) for key in each[0]} if each else {}


def _together(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], bool):
        return all(known)
    if isinstance(known[0], dict):
        return total(known)
    return "; ".join(map(str, known)) if isinstance(known[0], str) else sum(known)
