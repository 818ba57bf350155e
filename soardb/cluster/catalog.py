"""The cluster's catalog: what there is, as one small file in the storage that all nodes reach.

    registrar.py -> [catalog.py] -> storage/catalog.py, core.py

Names and aliases stand for ids, as in a database's own catalog they stand for folders. Every shard
calls a collection by its id, so a name changes here alone, at once. Beside them stand the ids of
the latest requests: a change and its request are one write, so a change that is asked for again is
done once.

Nothing here reads or writes: bytes in, bytes out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from soardb.core import Settings
from soardb.errors import CorruptStorage, SoarError
from soardb.storage.catalog import Catalog
from soardb.storage.requests import WINDOW_S

__all__ = ["CLUSTER_FORMAT", "ClusterCatalog", "Listed"]

CLUSTER_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Listed:
    """A collection: what it is, under its id as the name; the kind of its ids once one is there."""

    settings: Settings
    id_kind: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterCatalog:
    """Never changed in place.

    cluster   hex digits of this cluster and no other
    shards    how many there are; points are placed by it, so it stays
    data      the folder on each node under which shards lie; None: in the storage itself
    names     collections and aliases -> ids
    listed    {id: what it is}
    homes     {name of a shard: token of the actor that has it}, of those that have moved
    answered  {request id: second} of changes that were made in the last WINDOW_S seconds
    """

    cluster: str
    shards: int
    data: str | None
    names: Catalog = field(default_factory=Catalog)
    listed: Mapping[str, Listed] = field(default_factory=dict)
    answered: Mapping[str, int] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, shard: str) -> str:
        """The name of a shard's actor, and of its directory on a node with a disk of its own."""
        token = self.homes.get(shard)
        return shard if token is None else f"{shard}-{token}"

    def answering(self, request_id: str, now: int) -> ClusterCatalog:
        """With one more request that was done, and without those that are too old."""
        kept = {k: second for k, second in self.answered.items() if second >= now - WINDOW_S}
        return replace(self, answered={**kept, request_id: now})

    def to_bytes(self) -> bytes:
        """What of_bytes reads."""
        body = {
            "cluster": self.cluster,
            "shards": self.shards,
            "data": self.data,
            "collections": dict(self.names.collections),
            "aliases": dict(self.names.aliases),
            "listed": {
                name: {"settings": held.settings.to_json(), "id_kind": held.id_kind}
                for name, held in self.listed.items()
            },
            "answered": dict(self.answered),
            "homes": dict(self.homes),
        }
        outer = {"format": CLUSTER_FORMAT, "crc32": _checksum(body), "body": body}
        return json.dumps(outer, indent=1).encode()

    @classmethod
    def of_bytes(cls, data: bytes, where: str) -> ClusterCatalog:
        """The catalog of a file. Errors: CorruptStorage, naming `where`."""
        try:
            outer = json.loads(data)
            if outer["format"] != CLUSTER_FORMAT:
                raise CorruptStorage(
                    f"{where}: format {outer['format']!r}, this soardb reads {CLUSTER_FORMAT}"
                )
            body = outer["body"]
            if _checksum(body) != outer["crc32"]:
                raise CorruptStorage(f"{where}: the checksum fails; put a sound copy in its place")
            return cls(
                body["cluster"],
                body["shards"],
                body["data"],
                Catalog(body["collections"], body["aliases"]),
                {
                    name: Listed(Settings.of_json(held["settings"]), held["id_kind"])
                    for name, held in body["listed"].items()
                },
                {name: int(second) for name, second in body["answered"].items()},
                dict(body["homes"]),
            )
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            if isinstance(error, SoarError) and not isinstance(error, ValueError):
                raise
            raise CorruptStorage(f"{where}: not a catalog of ours ({error})") from None


def _checksum(body: Any) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
