"""The one door: soardb.connect(target).

    user code -> [connect.py] -> database.py

Nothing here is more than a choice by the form of the target.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from soardb.errors import InvalidArgument

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
    """Open a database directory; made if it is not there, unless create=False.

    read_only      beside a process that writes: sees what that has committed
    memory_limit   bytes that builds, writes and searches may use; None for no limit
    allow_network  open it on a network file system too, at your own risk

    One process owns a directory. Errors: InUse naming the other process, NotFound, ReadOnly,
    CorruptStorage, InvalidArgument.
    """
    from soardb.arrays import as_int
    from soardb.database import Database

    if not isinstance(target, str | os.PathLike) or not isinstance(os.fspath(target), str):
        raise InvalidArgument(f"expected the path of a directory, got {target!r}")
    text = os.fspath(target)
    if "://" in text:
        raise InvalidArgument(
            f"expected the path of a directory, got {text!r}: servers are not there yet"
        )
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
