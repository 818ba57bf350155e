"""The best hits by value of a field, out of a search that is widened until there are enough.

    query.py, cluster/searching.py -> [grouping.py] -> hits.py, schema.py

Nothing here searches or knows an index: it calls what does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from soardb.hits import HitColumns
from soardb.options import MAX_LIMIT
from soardb.schema import decode_payload, values_at

__all__ = ["grouped"]


def grouped(
    search: Callable[[int], HitColumns], name: str, groups: int, size: int, *, with_payload: bool
) -> HitColumns:
    """`groups` groups of at most `size` hits each, by the value of field `name`.

    search(limit) gives the hits of one query with their payloads. It is asked for four times as
    many until the groups are full, no more match, or MAX_LIMIT were asked for.
    """
    ask = groups * size * 2
    while True:
        limit = min(ask, MAX_LIMIT)
        found = search(limit)
        members: dict[Any, list[int]] = {}
        for place, payload in enumerate(found.payloads or ()):
            value = values_at([decode_payload(payload)], name)[0]
            if value is None:
                continue
            places = members.setdefault(value, [])
            if len(places) < size:
                places.append(place)
        best = list(members.items())[:groups]
        is_all = len(found.scores) < limit or limit >= MAX_LIMIT
        if is_all or (len(best) == groups and all(len(places) == size for _, places in best)):
            return _cut(found, best, with_payload)
        ask *= 4


def _cut(found: HitColumns, groups: list[tuple[Any, list[int]]], with_payload: bool) -> HitColumns:
    places = [place for _, members in groups for place in members]
    ids, payloads = found.ids, found.payloads if with_payload else None
    return replace(
        found,
        counts=np.array([len(places)], np.int64),
        ids=ids[places] if isinstance(ids, np.ndarray) else [ids[i] for i in places],
        scores=found.scores[places],
        payloads=None if payloads is None else [payloads[i] for i in places],
        vectors=None if found.vectors is None else found.vectors[places],
        groups=[(value, len(members)) for value, members in groups],
    )
