"""Collections over the machines of a Ray cluster, behind the methods of an embedded database.

cluster.py     Cluster: names, aliases, snapshots
collection.py  ShardedCollection: points and searches
searching.py   one search over all shards; merge.py puts together what they found (DA-TOP-k)
placement.py   which shard a point is on
calls.py       calls on actors: a bounded wait, asked again where that is safe
registrar.py   the actor that writes the catalog and makes the shards; places.py says where
shard.py       the actor that holds a directory; handover.py gives it to another one
moves.py       which shards move when nodes come and go, and the copying
building.py    a collection loaded from Parquet files, parquet.py, with one model, training.py
catalog.py     what there is; storage.py where that is kept
curves.py, totals.py  what shards measured and counted, as one

    soardb.connect("ray://auto", storage=...) -> soardb.cluster -> Ray -> soardb.database

The only part of soardb that imports Ray, which is an extra: pip install 'soardb[ray]'.
"""

from __future__ import annotations

from soardb.cluster.cluster import Cluster
from soardb.cluster.collection import ShardedCollection

__all__ = ["Cluster", "ShardedCollection"]
