"""The one door: soardb.connect(target).

    user code -> [connect.py] -> database.py, or soardb_client for a server, or cluster/ for Ray

Nothing here is more than a choice by the form of the target.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from soardb.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from soardb.database import Database

__all__ = ["connect"]


def connect(
    target: str | os.PathLike[str],
    *,
    read_only: bool = False,
    create: bool = True,
    memory_limit: int | None = None,
    allow_network: bool = False,
    **options: Any,
) -> Database:
    """Open a database directory, made if it is not there; or a server's, or a Ray cluster's.

    target         a directory, or grpc://host:port, grpcs://host:port, grpc://unix:PATH, or
                   ray://auto, ray://local, ray://host:port
    create         False: the directory must hold a database already
    read_only      beside a process that writes: sees what that has committed
    memory_limit   bytes that builds, writes and searches may use; None for no limit
    allow_network  open it on a network file system too, at your own risk

    One process owns a directory. Errors: InUse naming the other process, NotFound, ReadOnly,
    CorruptStorage, InvalidArgument.

    A server's address gives a soardb_client.Client, which has the same methods; `options` are then
    those of Client: api_key, ca, certificate, private_key, timeout, connections, retries. Nobody is
    called yet.

    ray:// gives a soardb.cluster.Cluster, which has them too; `options` are then those of Cluster:
    storage, which must be told, shards, data, timeout, write_timeout, cpus.
    """
    if not isinstance(target, str | os.PathLike) or not isinstance(os.fspath(target), str):
        raise InvalidArgument(f"expected the path of a directory, got {target!r}")
    text = os.fspath(target)
    if text.startswith("ray://"):
        if read_only or not create:
            raise InvalidArgument(
                f"expected no read_only or create beside a cluster, got one for {text!r}"
            )
        limits = {"memory_limit": memory_limit, "allow_network": allow_network}
        return _cluster(text, options | limits)
    if "://" in text:
        if not text.startswith(("grpc://", "grpcs://")):
            raise InvalidArgument(
                "expected the path of a directory, a server as grpc://host:port or "
                f"grpcs://host:port, or a cluster as ray://auto, got {text!r}"
            )
        if read_only or not create or memory_limit is not None or allow_network:
            raise InvalidArgument(
                "expected no read_only, create, memory_limit or allow_network beside the address "
                f"of a server, which decides these, got one for {text!r}"
            )
        return _client(text, options)
    from soardb.arrays import as_int
    from soardb.database import Database

    if not text or "\0" in text:
        raise InvalidArgument(f"expected the path of a directory, got {text!r}")
    limit = None if memory_limit is None else as_int(memory_limit, "memory_limit", 2**20, 2**62)
    return Database(
        text,
        read_only=read_only,
        create=create,
        memory_limit=limit,
        allow_network=allow_network,
        **options,
    )


def _client(target: str, options: dict[str, Any]) -> Database:
    """A client of a server, which does all that a Database does."""
    try:
        from soardb_client import Client
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{error.name} is not installed, which {target!r} takes; pip install 'soardb[client]'"
        ) from error
    return cast("Database", Client(target, **options))


def _cluster(target: str, options: dict[str, Any]) -> Database:
    """A cluster of shards, which does all that a Database does."""
    if "storage" not in options:
        raise InvalidArgument(
            f"expected storage= beside {target!r}: a folder that all nodes reach, or s3://bucket/..."
        )
    try:
        from soardb.cluster import Cluster
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{error.name} is not installed, which {target!r} takes; pip install 'soardb[ray]'"
        ) from error
    return cast("Database", Cluster(target, **options))
