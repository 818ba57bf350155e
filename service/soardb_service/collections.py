"""The proto service Collections: collections and the names they go by.

rpc.py -> [collections.py] -> soardb.Database
"""

from __future__ import annotations

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument, NotAllowed
from soardb_proto.v1 import access_pb2
from soardb_proto.v1 import collections_pb2 as pb
from soardb_service.convert import metric_number, metric_of, options_of
from soardb_service.rpc import Call, opened

__all__ = ["Collections"]


class Collections:
    """One method an rpc, named as in the .proto file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def Create(self, request: pb.CreateCollectionRequest, call: Call) -> pb.Collection:  # noqa: N802
        """Make a collection."""
        schema: dict[str, str] = {}
        for field in request.schema:
            if field.name in schema:
                raise InvalidArgument(
                    f"expected each field once in schema, got {field.name!r} twice"
                )
            schema[field.name] = field.type
        return described(
            self._database.create_collection(
                request.collection,
                request.dim,
                metric_of(request.metric),
                schema=schema,
                index=options_of(request.index),
                ttl=request.ttl if request.HasField("ttl") else None,
                exist_ok=request.exist_ok,
            )
        )

    def Get(self, request: pb.GetCollectionRequest, call: Call) -> pb.Collection:  # noqa: N802
        """What a collection is."""
        return described(opened(self._database, call, request.collection))

    def List(  # noqa: N802
        self, request: pb.ListCollectionsRequest, call: Call
    ) -> pb.ListCollectionsReply:
        """The names that the caller may read."""
        may = call.caller.may
        names = self._database.list_collections()
        aliases = self._database.list_aliases()
        return pb.ListCollectionsReply(
            names=[name for name in names if may(name, access_pb2.READ)],
            aliases={a: name for a, name in aliases.items() if may(name, access_pb2.READ)},
        )

    def Rename(  # noqa: N802
        self, request: pb.RenameCollectionRequest, call: Call
    ) -> pb.RenameCollectionReply:
        """Give it another name, which must be the caller's too."""
        _must(call, request.new_name)
        self._database.rename_collection(request.collection, request.new_name)
        return pb.RenameCollectionReply()

    def Drop(  # noqa: N802
        self, request: pb.DropCollectionRequest, call: Call
    ) -> pb.DropCollectionReply:
        """Delete it with all its points."""
        self._database.drop_collection(request.collection)
        return pb.DropCollectionReply()

    def SetAliases(self, request: pb.SetAliasesRequest, call: Call) -> pb.SetAliasesReply:  # noqa: N802
        """Change aliases at once. Each alias, what it is to stand for and what it stood for."""
        held = self._database.list_aliases()
        for alias, name in request.aliases.items():
            for one in {alias, held.get(alias, alias), held.get(name, name) or alias}:
                _must(call, one)
        self._database.set_aliases({a: name or None for a, name in request.aliases.items()})
        return pb.SetAliasesReply()


def _must(call: Call, name: str) -> None:
    if not call.caller.may(name, access_pb2.ADMIN):
        raise NotAllowed(f"expected a key with the scope admin for {name!r}, got one without")


def described(collection: Collection) -> pb.Collection:
    """A collection as a message."""
    return pb.Collection(
        name=collection.name,
        dim=collection.d,
        metric=metric_number(collection.metric),
        schema=[pb.Field(name=name, type=kind) for name, kind in collection.schema.items()],
        ttl=collection.ttl,
        id_kind=collection.id_kind,
        points=collection.count(),
        seq=collection.seq,
        id=collection.id,
    )
