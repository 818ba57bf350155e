"""soardb: a vector search database around a SOAR spilled-IVF index.

    import soardb
    from soardb import F

    db = soardb.connect("./data")
    words = db.create_collection("words", dim=100, schema={"lang": "keyword", "freq": "int"})
    words.upsert(ids, vectors, payloads)
    hits = words.search(query, limit=10, filter=F("lang") == "en")

or the bare index, as faiss or ScaNN users know it:

    index = soardb.SoarIndex(d=100, metric="cosine")
    index.train(vectors)
    index.add(vectors, ids)
    scores, ids = index.search(queries, k=10)

The public names are below; everything else may change.

A name is loaded when it is first asked for (PEP 562): `import soardb` alone loads no kernels, so a
client takes errors, filters and results from here where no kernel was ever compiled.
`connect` is bound at once, as its module bears the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soardb.connect import connect

if TYPE_CHECKING:
    from soardb.collection import Collection
    from soardb.compaction import Policy
    from soardb.database import Database
    from soardb.errors import (
        AlreadyExists,
        Closed,
        CorruptStorage,
        InUse,
        InvalidArgument,
        MalformedOutput,
        NotAllowed,
        NotFound,
        NotTrained,
        OutOfMemory,
        OutOfSpace,
        ReadOnly,
        SoarError,
        TimedOut,
        Unavailable,
        WriteFailed,
    )
    from soardb.filters.expr import F
    from soardb.hits import Group, Hit, HitColumns, Hits, Plan, Point, Spread
    from soardb.index import FlatIndex, Layout, SoarIndex, choose_layout
    from soardb.pages import Page

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Closed",
    "Collection",
    "CorruptStorage",
    "Database",
    "F",
    "FlatIndex",
    "Group",
    "Hit",
    "HitColumns",
    "Hits",
    "InUse",
    "InvalidArgument",
    "Layout",
    "MalformedOutput",
    "NotAllowed",
    "NotFound",
    "NotTrained",
    "OutOfMemory",
    "OutOfSpace",
    "Page",
    "Plan",
    "Point",
    "Policy",
    "ReadOnly",
    "SoarError",
    "SoarIndex",
    "Spread",
    "TimedOut",
    "Unavailable",
    "WriteFailed",
    "choose_layout",
    "connect",
]

_HOMES = {
    "Collection": "soardb.collection",
    "Database": "soardb.database",
    "F": "soardb.filters.expr",
    "FlatIndex": "soardb.index",
    "Group": "soardb.hits",
    "Hit": "soardb.hits",
    "HitColumns": "soardb.hits",
    "Hits": "soardb.hits",
    "Layout": "soardb.index",
    "Page": "soardb.pages",
    "Plan": "soardb.hits",
    "Point": "soardb.hits",
    "Policy": "soardb.compaction",
    "SoarIndex": "soardb.index",
    "Spread": "soardb.hits",
    "choose_layout": "soardb.index",
}
"""Where a public name is at home; those that stand neither here nor above are errors."""


if not TYPE_CHECKING:  # a type checker would take any name for known

    def __getattr__(name: str) -> Any:
        """A public name, loaded when it is first asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, "soardb.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
