"""What pipelines share at their ends: Parquet in, plain JSON out, payload fields to points.

files, collections -> [stored.py] -> select, diagnose, decide
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument, NotFound
from soardb.hits import need_pyarrow
from soardb.schema import PointId

__all__ = ["plain", "read_parquet", "set_fields"]

_AT_ONCE = 4096  # points of one write: the server takes messages of some size alone


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
