"""The access rules of the methods, read from the descriptors where they stand beside each method.

    soardb_proto/v1/*.proto -> [access.py] -> rpc.py, gate.py, rest.py

A method without a rule is an error at start: it could be called by nobody or by everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from soardb_proto.v1 import (
    access_pb2,
    admin_pb2,
    agent_pb2,
    collections_pb2,
    indexes_pb2,
    models_pb2,
    operations_pb2,
    points_pb2,
    snapshots_pb2,
)

__all__ = ["FILES", "Rule", "rules"]

FILES: tuple[FileDescriptor, ...] = (
    collections_pb2.DESCRIPTOR,
    points_pb2.DESCRIPTOR,
    indexes_pb2.DESCRIPTOR,
    operations_pb2.DESCRIPTOR,
    snapshots_pb2.DESCRIPTOR,
    models_pb2.DESCRIPTOR,
    agent_pb2.DESCRIPTOR,
    admin_pb2.DESCRIPTOR,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One method and who may call it.

    path        /soardb.v1.Points/Search
    scope       the least scope a key must have, of soardb.v1.Scope
    is_general  not about one collection
    on_writer   only the writing process can do it
    """

    path: str
    method: MethodDescriptor
    scope: int
    is_general: bool
    on_writer: bool

    @property
    def service(self) -> str:
        """Its service's name, without the package."""
        return str(self.method.containing_service.name)


def rules() -> Iterator[Rule]:
    """The rule of every method. Raises TypeError for one without."""
    for file in FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                options: Any = method.GetOptions()
                access = options.Extensions[access_pb2.access]
                path = f"/{service.full_name}/{method.name}"
                if access.scope == access_pb2.SCOPE_UNSPECIFIED:
                    raise TypeError(f"{path} has no access rule in its .proto file")
                if not access.general and "collection" not in method.input_type.fields_by_name:
                    raise TypeError(f"{path} is about a collection that its request does not name")
                yield Rule(path, method, access.scope, access.general, access.writer)
