"""The methods of a database, as steps: collections, names, aliases, the server itself.

    client.py, aio.py -> [collections.py] -> calls.py, convert.py

`Known` is the client's memory: what it holds of each collection by name, so that two handles on one
collection share what was written, and a collection that was dropped or renamed here is so for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soardb.arrays import as_dim
from soardb.errors import AlreadyExists, Closed, InvalidArgument, NotFound
from soardb.metrics import as_metric
from soardb.schema import Schema, shown
from soardb_client import convert, points
from soardb_client.calls import Call, Held, Steps, as_text
from soardb_proto import words
from soardb_proto.v1 import admin_pb2, collections_pb2

__all__ = [
    "Grant",
    "Known",
    "ServerInfo",
    "create",
    "drop",
    "expect_free",
    "get",
    "list_aliases",
    "list_names",
    "rename",
    "server_info",
    "set_aliases",
    "stats",
]


@dataclass(slots=True)
class Known:
    """What one client holds of the collections of its server."""

    target: str
    held: dict[str, Held] = field(default_factory=dict)
    closed: bool = False

    def check_open(self) -> None:
        """Closed after close()."""
        if self.closed:
            raise self.was_closed()

    def was_closed(self) -> Closed:
        """What calls after close() end with."""
        return Closed(f"database {self.target} was closed")

    def note(self, message: collections_pb2.Collection, *, is_new: bool = False) -> Held:
        """What is held of the collection that a server has just described."""
        found = convert.held_of(message)
        old = self.held.get(found.name)
        if old is not None and not is_new and not old.closed:
            if old.id == found.id:
                return old
            old.closed = "dropped"  # by another client, who made this one in its place
        self.held[found.name] = found
        return found

    def close(self) -> None:
        """Close every handle."""
        self.closed = True
        for held in self.held.values():
            held.closed = held.closed or "closed"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key may do: scope "read", "write" or "admin" with collections of a pattern."""

    collections: str
    scope: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server: version, SIMD level, caps on one call by name, what the caller's key may do."""

    version: str
    simd: str
    caps: dict[str, int]
    grants: list[Grant]
    is_writer: bool
    uptime_s: float


def create(
    known: Known,
    name: str,
    dim: int,
    metric: str,
    schema: Mapping[str, str] | None,
    index: Mapping[str, Any] | None,
    ttl: str | None,
    exist_ok: bool,
) -> Steps[Held]:
    """Make a collection."""
    known.check_open()
    chosen = as_metric(metric)
    fields = Schema.of(schema)
    if ttl is not None and not (isinstance(ttl, str) and fields.fields.get(ttl) == "datetime"):
        raise InvalidArgument(
            f"expected ttl as a field declared in schema as datetime, got {ttl!r}"
        )
    if index is not None and not isinstance(index, Mapping):
        raise InvalidArgument(
            f"expected index as a dict of options of SoarIndex, got {shown(index)}"
        )
    request = collections_pb2.CreateCollectionRequest(
        collection=as_text(name, "the name of a collection"),
        dim=as_dim(dim),
        metric=words.METRICS[chosen],
        schema=[collections_pb2.Field(name=n, type=kind) for n, kind in fields.items],
        index=None if not index else convert.index_options(dict(index)),
        ttl=ttl,
        exist_ok=bool(exist_ok),
    )
    reply: collections_pb2.Collection = yield Call(
        "/soardb.v1.Collections/Create",
        request,
        collections_pb2.Collection,
        "write",
        is_repeatable=bool(exist_ok),
    )
    return known.note(reply, is_new=not exist_ok)


def get(known: Known, name: str) -> Steps[Held]:
    """The collection of a name or an alias."""
    known.check_open()
    reply: collections_pb2.Collection = yield Call(
        "/soardb.v1.Collections/Get",
        collections_pb2.GetCollectionRequest(collection=_name(name)),
        collections_pb2.Collection,
    )
    return known.note(reply)


def _listed(known: Known) -> Steps[collections_pb2.ListCollectionsReply]:
    known.check_open()
    reply: collections_pb2.ListCollectionsReply = yield Call(
        "/soardb.v1.Collections/List",
        collections_pb2.ListCollectionsRequest(),
        collections_pb2.ListCollectionsReply,
    )
    return reply


def list_names(known: Known) -> Steps[list[str]]:
    """Names, sorted."""
    reply = yield from _listed(known)
    return sorted(reply.names)


def list_aliases(known: Known) -> Steps[dict[str, str]]:
    """{alias: collection}."""
    reply = yield from _listed(known)
    return dict(sorted(reply.aliases.items()))


def expect_free(known: Known, name: str) -> Steps[None]:
    """AlreadyExists where a collection or an alias has this name, in whatever case."""
    as_text(name, "the name of a collection")
    reply = yield from _listed(known)
    for kind, names in (("collection", reply.names), ("alias", reply.aliases)):
        for clash in names:
            if clash.lower() == name.lower():
                but = "" if clash == name else ", which differs only in upper and lower case"
                raise AlreadyExists(
                    f"expected a new name, got {name!r}: {kind} {clash!r} is there{but}"
                )


def drop(known: Known, name: str) -> Steps[None]:
    """Delete a collection."""
    known.check_open()
    yield Call(
        "/soardb.v1.Collections/Drop",
        collections_pb2.DropCollectionRequest(collection=_name(name)),
        collections_pb2.DropCollectionReply,
        "write",
        is_repeatable=False,
    )
    held = known.held.pop(name, None)
    if held is not None:
        held.closed = held.closed or "dropped"


def rename(known: Known, name: str, new_name: str) -> Steps[None]:
    """Give a collection another name."""
    known.check_open()
    yield Call(
        "/soardb.v1.Collections/Rename",
        collections_pb2.RenameCollectionRequest(collection=_name(name), new_name=_name(new_name)),
        collections_pb2.RenameCollectionReply,
        "write",
        is_repeatable=False,
    )
    held = known.held.pop(name, None)
    if held is not None:
        held.name = new_name
        known.held[new_name] = held


def set_aliases(known: Known, aliases: Mapping[str, str | None]) -> Steps[None]:
    """Change several aliases at once or not at all."""
    known.check_open()
    wanted = {}
    for alias, name in aliases.items():
        if name == "":  # which would drop it on the wire
            raise InvalidArgument(f"expected the name of a collection for {alias!r}, got ''")
        wanted[_name(alias)] = "" if name is None else _name(name)
    yield Call(
        "/soardb.v1.Collections/SetAliases",
        collections_pb2.SetAliasesRequest(aliases=wanted),
        collections_pb2.SetAliasesReply,
        "write",
        is_repeatable=None not in aliases.values(),
    )


def _name(name: object) -> str:
    return as_text(name, "the name of a collection")


# ---- the server ----


def server_info(known: Known) -> Steps[ServerInfo]:
    """Version, caps, and what the caller may."""
    known.check_open()
    reply: admin_pb2.ServerInfoReply = yield Call(
        "/soardb.v1.Admin/ServerInfo", admin_pb2.ServerInfoRequest(), admin_pb2.ServerInfoReply
    )
    from soardb_proto.v1 import access_pb2

    return ServerInfo(
        reply.version,
        reply.simd,
        {f.name: getattr(reply.caps, f.name) for f in reply.caps.DESCRIPTOR.fields},
        [
            Grant(grant.collections, access_pb2.Scope.Name(grant.scope).lower())
            for grant in reply.grants
        ],
        reply.is_writer,
        reply.uptime_s,
    )


def stats(known: Known) -> Steps[dict[str, Any]]:
    """Memory of the process, and counts and bytes of every collection."""
    known.check_open()
    reply: admin_pb2.StatsReply = yield Call(
        "/soardb.v1.Admin/Stats", admin_pb2.StatsRequest(), admin_pb2.StatsReply
    )
    collections: dict[str, Any] = {}
    for name in (yield from list_names(known)):
        try:
            held = yield from get(known, name)
            collections[name] = yield from points.stats(held)
        except (NotFound, Closed):
            continue  # dropped meanwhile
    return {
        "memory_limit": reply.memory_limit if reply.HasField("memory_limit") else None,
        "memory_held": reply.memory_held,
        "memory_reserved": reply.memory_reserved,
        "calls_in_flight": reply.calls_in_flight,
        "collections": collections,
    }
