"""The gate for points: what callers pass becomes checked ids, vectors and payloads here.

    collection.py, writer.py -> [points.py] -> arrays.py, schema.py

A batch comes as separate ids, vectors and payloads, or as one table: an Arrow table or batch, a
Polars or pandas frame, anything that speaks the Arrow stream protocol. Payloads come as a dict a
point or as columns. Within one batch the last point of an id wins.

Nothing here touches a collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_vectors
from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.kernels.layout import F32, Metric
from soardb.schema import PointId, Schema, encode_payload, normalise, shown

__all__ = [
    "MAX_BATCH",
    "MAX_ID_BYTES",
    "Batch",
    "Changes",
    "Encoded",
    "as_batch",
    "as_changes",
    "as_columns",
    "as_point_ids",
    "encode",
    "is_table",
    "payloads_of",
    "vectors_of",
]

MAX_BATCH = 1_000_000
MAX_ID_BYTES = 512

_TEXTS = ("string", "large_string", "string_view")  # Arrow's types of text; Polars has the last

Payloads = Sequence[Mapping[str, Any] | None] | Mapping[str, Sequence[Any]] | None
Changes = Mapping[str, Any] | Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """n points under distinct ids."""

    ids: list[PointId]
    vectors: F32
    payloads: list[Mapping[str, Any] | None] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Payloads as they are stored: JSON, typed values by field, full texts, expiry times."""

    payloads: list[bytes]
    values: dict[str, list[Any]]
    texts: list[list[str | None]]
    expires: list[int | None] | None


def as_point_ids(ids: object, name: str = "ids") -> list[PointId]:
    """Ids as a list, all int64 or all strings of 1..512 bytes in UTF-8.

    Takes NumPy arrays, lists, tuples and Arrow or pandas columns. Errors: InvalidArgument.
    """
    if isinstance(ids, str | bytes | Set | Mapping) or not hasattr(ids, "__len__"):
        raise InvalidArgument(f"expected {name} as a list or an array, got {shown(ids)}")
    plain = _as_list(ids)
    kinds = set(map(type, plain))
    if kinds <= {int}:
        if plain and not (min(plain) >= -(2**63) and max(plain) < 2**63):
            raise InvalidArgument(f"expected {name} within int64, got {max(plain, key=abs)}")
        return plain
    if kinds == {str}:
        for point_id in plain:
            _check_text(point_id, name)
        return plain
    return _one_kind(plain, name)


def _as_list(values: Any) -> list[Any]:
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(values, method):
            return list(getattr(values, method)())
    return list(values)


def _check_text(point_id: str, name: str) -> None:
    try:
        size = len(point_id.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"expected {name} that have a UTF-8 form, got half a surrogate pair: {shown(point_id)}"
        ) from None
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"expected {name} of 1..{MAX_ID_BYTES} bytes in UTF-8, got {size}: {shown(point_id)}"
        )


def _one_kind(plain: list[Any], name: str) -> list[PointId]:
    """Ids of unusual types, one by one."""
    out: list[PointId] = []
    for point_id in plain:
        if isinstance(point_id, bool | np.bool_) or not isinstance(
            point_id, int | np.integer | str
        ):
            raise InvalidArgument(
                f"expected {name} of integers (int64) or strings, got {shown(point_id)}"
            )
        out.append(str(point_id) if isinstance(point_id, str) else int(point_id))
    if len({type(point_id) for point_id in out}) > 1:
        raise InvalidArgument(f"expected {name} of one kind, got integers and strings together")
    return as_point_ids(out, name)


def is_table(value: object) -> bool:
    """Whether it is an Arrow table or batch, or a frame that can become one."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__dataframe__")


def as_columns(item: Any) -> tuple[Any, Any, Any]:
    """One batch of several as ids, vectors and payloads, the arguments of as_batch.

    item: (ids, vectors), (ids, vectors, payloads) or a table. Errors: InvalidArgument.
    """
    if is_table(item):
        return item, None, None
    if isinstance(item, tuple | list) and len(item) in (2, 3):
        return item[0], item[1], item[2] if len(item) == 3 else None
    raise InvalidArgument(
        "expected each batch as (ids, vectors), (ids, vectors, payloads) or a table, "
        f"got {shown(item)}"
    )


def as_batch(
    ids: object, vectors: npt.ArrayLike | None, payloads: Payloads, d: int, metric: Metric
) -> Batch:
    """A checked batch; of several points with one id the last. Errors: InvalidArgument."""
    if vectors is None:
        if payloads is not None or not is_table(ids):
            raise InvalidArgument(
                "expected ids and vectors, or one Arrow table, Polars or pandas frame with the "
                f"columns id and vector; got {type(ids).__name__} and no vectors"
            )
        ids, vectors, payloads = from_table(ids, d)
    known = as_point_ids(ids)
    checked = as_vectors(vectors, d, metric)
    if len(known) != len(checked):
        raise InvalidArgument(
            f"expected as many ids as vectors, got {len(known)} ids and {len(checked)} vectors"
        )
    if len(known) > MAX_BATCH:
        raise InvalidArgument(
            f"expected at most {MAX_BATCH:,} points in one call, got {len(known):,}; a call is "
            "written whole or not at all: write several"
        )
    rows = _as_rows(payloads, len(known))
    if len(set(known)) == len(known):
        return Batch(known, checked, rows)
    last = {point_id: i for i, point_id in enumerate(known)}
    kept = sorted(last.values())
    return Batch(
        [known[i] for i in kept],
        np.ascontiguousarray(checked[kept]),
        None if rows is None else [rows[i] for i in kept],
    )


def _as_rows(payloads: Payloads, n: int) -> list[Mapping[str, Any] | None] | None:
    """One payload a point, or None where there are none at all."""
    if payloads is None:
        return None
    if is_table(payloads):
        payloads = _table_columns(payloads)
    if isinstance(payloads, Mapping):
        columns = {str(name): _as_list(values) for name, values in payloads.items()}
        for name, values in columns.items():
            if len(values) != n:
                raise InvalidArgument(
                    f"expected {n} values in payload column {name!r}, got {len(values)}"
                )
        names = list(columns)
        if not names:
            return None
        return [
            {k: v for k, v in zip(names, row, strict=True) if v is not None}
            for row in zip(*columns.values(), strict=True)
        ]
    if isinstance(payloads, str | bytes) or not hasattr(payloads, "__len__"):
        raise InvalidArgument(
            f"expected payloads as a list of dicts or a dict of columns, got {shown(payloads)}"
        )
    if len(payloads) != n:
        raise InvalidArgument(f"expected {n} payloads, one a point, got {len(payloads)}")
    return list(payloads)


def from_table(table: Any, d: int) -> tuple[Any, F32, Payloads]:
    """Ids, vectors and payload columns of a table with the columns id and vector.

    vector: lists or fixed-size lists of d numbers. Every other column is payload; where the only
    one is `payload` and holds JSON text, as an export has it, that is the payload.
    """
    arrow = _as_arrow(table)
    for name in ("id", "vector"):
        if name not in arrow.column_names:
            raise InvalidArgument(
                f"expected columns id and vector, got {', '.join(arrow.column_names)}"
            )
    vectors = vectors_of(arrow.column("vector"), d)
    return arrow.column("id"), vectors, payloads_of(arrow.drop_columns(["id", "vector"]))


def payloads_of(others: Any) -> Payloads:
    """Payloads of an Arrow table of columns other than id and vector, as from_table has them."""
    if others.column_names == ["payload"] and str(others.column("payload").type) in _TEXTS:
        from soardb.schema import parse_payload

        texts = others.column("payload").to_pylist()
        return [None if t is None else parse_payload(t) for t in texts]
    return _table_columns(others) if others.num_columns else None


def _as_arrow(table: Any) -> Any:
    pa = need_pyarrow()
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if hasattr(table, "iloc"):  # pandas: NaN of an object column means null
        return pa.Table.from_pandas(table, preserve_index=False)
    return pa.table(table)


def _table_columns(table: Any) -> dict[str, list[Any]]:
    arrow = _as_arrow(table)
    return {name: arrow.column(name).to_pylist() for name in arrow.column_names}


def vectors_of(column: Any, d: int) -> F32:
    """(n, d) float32 of a list column, without a Python object a number."""
    pa = need_pyarrow()
    if column.null_count:
        raise InvalidArgument("expected a vector in every row, got null")
    chunk = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    if isinstance(chunk, pa.ChunkedArray):
        chunk = pa.concat_arrays(chunk.chunks) if chunk.num_chunks else pa.array([], column.type)
    if not (pa.types.is_fixed_size_list(chunk.type) or pa.types.is_list(chunk.type)
            or pa.types.is_large_list(chunk.type)):  # fmt: skip
        raise InvalidArgument(f"expected column vector of lists of {d} numbers, got {chunk.type}")
    n, flat = len(chunk), chunk.flatten()
    if flat.null_count or len(flat) != n * d or not _all_of(chunk, d):
        raise InvalidArgument(f"expected {d} numbers in every vector, got others or nulls")
    found: F32 = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(n, d)
    return found


def _all_of(chunk: Any, d: int) -> bool:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(chunk)
    return bool(len(chunk) == 0 or pc.all(pc.equal(lengths, d)).as_py())


def encode(
    payloads: Sequence[Mapping[str, Any] | None] | None,
    n: int,
    schema: Schema,
    ttl: str | None,
) -> Encoded:
    """What is stored of n payloads. Errors: InvalidArgument, naming the payload."""
    if payloads is None:
        payloads = [None] * n
    values = schema.extract(payloads)
    encoded: list[bytes] = []
    for i, payload in enumerate(payloads):
        if not payload:
            encoded.append(b"{}")
            continue
        try:
            encoded.append(encode_payload(payload))
        except InvalidArgument as error:
            raise InvalidArgument(f"payload {i}: {error}") from None
    texts = [values[name] for name, kind in schema.fields.items() if kind == "text"]
    return Encoded(encoded, values, texts, values[ttl] if ttl else None)


def as_changes(
    payload: Any, ids: Any, schema: Schema, ttl: str | None
) -> Sequence[Mapping[str, Any]]:
    """What update_payload is to change: one dict for all, or n, one for each of n ids.

    None is an empty one. Errors: InvalidArgument, also where merged payloads could never be stored.
    """
    changes: list[Any] = [payload] if isinstance(payload, Mapping) else payload
    if not isinstance(changes, list | tuple):
        raise InvalidArgument(f"expected payload as a dict or a list of them, got {shown(payload)}")
    if changes is payload:
        changes = [{} if change is None else change for change in changes]
        plain = None if ids is None else as_point_ids(ids)
        if plain is None or len(plain) != len(changes) or len(set(plain)) != len(plain):
            got = "no" if plain is None else f"{len(set(plain)):,} different"
            raise InvalidArgument(
                f"expected a dict, or a dict for each of ids that differ; got {len(changes):,} "
                f"payloads and {got} ids"
            )
        for change in changes:
            if not isinstance(change, Mapping):
                raise InvalidArgument(f"expected every payload as a dict, got {shown(change)}")
    stored = [{k: v for k, v in change.items() if v is not None} for change in changes]
    encode(stored, len(stored), schema, ttl)
    return changes


def merged(payload: Mapping[str, Any], changes: Mapping[str, Any], replace: bool) -> dict[str, Any]:
    """A payload with changes: members of the same name are replaced, None removes one."""
    out = {} if replace else dict(payload)
    for key, value in normalise(changes).items():
        if value is None and not replace:
            out.pop(key, None)
        else:
            out[key] = value
    return out
