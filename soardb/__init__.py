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
"""

from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    InUse,
    InvalidArgument,
    NotFound,
    NotTrained,
    OutOfMemory,
    OutOfSpace,
    ReadOnly,
    SoarError,
    Unavailable,
    WriteFailed,
)
from soardb.filters import F
from soardb.hits import Group, Hit, Hits, Plan, Point
from soardb.index import FlatIndex, SoarIndex
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
    "Hits",
    "InUse",
    "InvalidArgument",
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
    "Unavailable",
    "WriteFailed",
    "connect",
]
