"""Which shard a point is on: a hash of its id, the same in every process and for ever.

    collection.py -> [placement.py] -> table.py

The key that the tables sort ids by, integers themselves and eight bytes of BLAKE2b of strings, is
mixed once more (splitmix64), as the ids of users are seldom random and DA-TOP-k is true of random
placement alone.

Nothing here knows what a shard is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.kernels.layout import I64
from soardb.schema import PointId
from soardb.table import id_keys, id_kind_of

__all__ = ["order_of", "pack_ids", "rows_by_shard", "shard_of"]


def shard_of(ids: Sequence[PointId], shards: int) -> I64:
    """(n,) int64: the shard, 0..shards-1, of each of n ids of one kind. About 1 us a string."""
    if not len(ids):
        return np.empty(0, np.int64)
    x = id_keys(ids, id_kind_of(ids[0])).astype(np.uint64)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x % np.uint64(shards)).astype(np.int64)


def rows_by_shard(ids: Sequence[PointId], shards: int) -> dict[int, I64]:
    """{shard: rising places of its ids}, of shards that have any."""
    owner = shard_of(ids, shards)
    return {int(shard): np.flatnonzero(owner == shard) for shard in np.unique(owner)}


def order_of(point_id: PointId) -> tuple[int, PointId]:
    """What a scroll sorts by: integers by themselves, strings by their hashes, as a table does."""
    return int(id_keys([point_id], id_kind_of(point_id))[0]), point_id


def pack_ids(ids: Sequence[PointId], rows: npt.NDArray[np.int64]) -> Any:
    """The ids of some rows, as they travel: (m,) int64 or a list of strings."""
    chosen = [ids[row] for row in rows.tolist()]
    return np.array(chosen, np.int64) if chosen and isinstance(chosen[0], int) else chosen
