"""What pipelines share at their ends: Parquet in, plain JSON out, payload fields to points.

files, collections -> [stored.py] -> select, diagnose, decide
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument, NotFound
from soardb.hits import need_pyarrow
from soardb.kernels.layout import F32
from soardb.schema import PointId, decode_payload, values_at

__all__ = [
    "pages",
    "plain",
    "read_parquet",
    "read_points",
    "retrieved",
    "set_fields",
    "texts_of",
]

Progress = Callable[[str, float], None]

_AT_ONCE = 4096  # points of one write: the server takes messages of some size alone


def pages(collection: Any, where: Any, *, with_vectors: bool = False) -> Iterator[Sequence[Any]]:
    """The points that match, or all, a page at a time."""
    token = None
    while True:
        page = collection.scroll(
            filter=where, page_size=1000, page_token=token, with_vectors=with_vectors
        )
        yield page.points
        token = page.next_page_token
        if token is None:
            return


def read_points(
    collection: Any, where: Any, with_payloads: bool, progress: Progress
) -> tuple[list[PointId], F32, list[Any]]:
    """Ids, (n, d) vectors and payloads of all points, or of those that match.

    Errors: InvalidArgument where there are none.
    """
    ids: list[PointId] = []
    vectors: list[F32] = []
    payloads: list[Any] = []
    live = max(1, collection.count(where))
    if where is None:
        for batch in collection.batches(4096):
            ids += batch.ids
            vectors.append(np.asarray(batch.vectors, np.float32))
            if with_payloads:
                payloads += map(decode_payload, batch.payloads)
            progress("read", min(1.0, len(ids) / live))
    else:
        for points in pages(collection, where, with_vectors=True):
            ids += [point.id for point in points]
            vectors += [point.vector[None] for point in points]
            payloads += [point.payload for point in points]
            progress("read", min(1.0, len(ids) / live))
    if not ids:
        raise InvalidArgument("expected points, none match")
    return ids, np.concatenate(vectors), payloads


def read_parquet(path: Path) -> Any:
    """The pyarrow.Table of a file. Errors: NotFound, InvalidArgument."""
    pa = need_pyarrow()
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise NotFound(f"expected a Parquet file, there is none at {path}")
    try:
        return parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise InvalidArgument(f"expected a Parquet file, {path.name}: {error}") from error


def plain(value: Any) -> Any:
    """The same for JSON, which knows neither: None in place of nan, "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def texts_of(payloads: Iterable[Mapping[str, Any] | None] | None, field: str) -> list[str]:
    """What stands in a payload field, dotted if it is deeper, where that is text."""
    found = values_at([payload or {} for payload in payloads or ()], field)
    return [text for text in found if isinstance(text, str)]


def retrieved(
    collection: Any, field: str, count: int, *, text: str, vector: Any = None
) -> list[str]:
    """Texts of the `count` closest points: by full text of `field`, or to a (d,) vector."""
    if vector is not None:
        hits = collection.search(vector, count, with_payload=True)
    else:
        hits = collection.search(text=text, text_fields=[field], limit=count, with_payload=True)
    return texts_of(hits.payloads, field)


def set_fields(
    collection: Any, ids: Sequence[PointId], changes: Sequence[Mapping[str, Any]]
) -> int:
    """Set payload fields of points, a change for each id; None removes one. Others stay.

    Returns how many were set. Written a few thousand at a time, so an interruption leaves some as
    they were, and the same call again mends it. Errors: NotFound, before anything is written, where
    points are not there.
    """
    parts = [slice(first, first + _AT_ONCE) for first in range(0, len(ids), _AT_ONCE)]
    for part in parts:
        there = collection.get(ids[part])
        gone = [i for i, point in zip(ids[part], there, strict=True) if point is None]
        if gone:
            raise NotFound(f"expected a point for each id, there is none with {gone[0]!r}")
    return sum(collection.update_payload(list(changes[part]), ids=ids[part]) for part in parts)
