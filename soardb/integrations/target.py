"""From a target and a name to a collection: the one that is there, or a new one.

    langchain.py, llama_index.py -> [target.py] -> soardb.connect, Database

A target is what soardb.connect takes, or what it gives: an open database can hold the collections
of many stores, while a directory has one owner.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from soardb.collection import Collection
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import InvalidArgument, NotFound

__all__ = ["Opened", "Target", "open_collection"]

Target = str | os.PathLike[str] | Database


@dataclass(frozen=True, slots=True)
class Opened:
    """A collection, and the database that was opened for it alone: None where it was open."""

    collection: Collection
    owned: Database | None


def open_collection(
    target: Target,
    name: str,
    *,
    dim: Callable[[], int],
    metric: str | None,
    schema: Mapping[str, str],
    wished: Mapping[str, str],
    **options: Any,
) -> Opened:
    """The collection of that name; where there is none it is made with `dim()`.

    metric   None: that of the collection, or "cosine" for a new one
    schema   fields that it declares, with these types
    wished   fields that a new one declares besides, and one that is there may lack
    options  for create_collection: index, ttl

    Errors: InvalidArgument where the collection is there and has another metric or declares less,
    and those of connect and create_collection.
    """
    owned = connect(target) if isinstance(target, str | os.PathLike) else None
    database: Any = target if owned is None else owned
    try:
        found = None
        with contextlib.suppress(NotFound):
            found = database.get_collection(name)
        if found is None:
            found = database.create_collection(
                name,
                dim(),
                metric or "cosine",
                schema={**wished, **schema},
                exist_ok=True,
                **options,
            )
        _check(found, metric, schema)
    except BaseException:
        if owned is not None:
            owned.close()
        raise
    return Opened(found, owned)


def _check(collection: Collection, metric: str | None, schema: Mapping[str, str]) -> None:
    if metric is not None and collection.metric != metric:
        raise InvalidArgument(
            f"expected collection {collection.name!r} to have the metric {metric!r}, it has "
            f"{collection.metric!r}; leave metric out, or use another collection"
        )
    declared = collection.schema
    lacking = {name: kind for name, kind in schema.items() if declared.get(name) != kind}
    if lacking:
        raise InvalidArgument(
            f"expected collection {collection.name!r} to declare {lacking}, it declares "
            f"{declared}; fields are declared when a collection is made, so use another one"
        )
