"""soardb: a vector search database around a SOAR spilled-IVF index.

    from soardb import SoarIndex

    index = SoarIndex(d=100, metric="cosine")
    index.train(vectors)
    index.add(vectors, ids)
    scores, ids = index.search(queries, k=10)

The public names are below; everything else may change.
"""

from soardb.errors import (
    CorruptStorage,
    InvalidArgument,
    NotFound,
    NotTrained,
    SoarError,
    Unavailable,
)
from soardb.index import FlatIndex, SoarIndex

__version__ = "0.1.0"

__all__ = [
    "CorruptStorage",
    "FlatIndex",
    "InvalidArgument",
    "NotFound",
    "NotTrained",
    "SoarError",
    "SoarIndex",
    "Unavailable",
]
