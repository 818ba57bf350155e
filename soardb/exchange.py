"""Export and import of collections as Parquet and Arrow files, streaming.

    cli, user code -> [exchange.py] -> collection.py, pyarrow

One row a point: id (int64 or string), vector (fixed-size list of float32), payload (JSON text). The
schema's metadata says what the collection is, so that an import can make an equal one. Files of
others are imported too: every column but id and vector is then payload.

Both hold one batch in memory. Vectors are not compressed: they do not shrink.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import AlreadyExists, InvalidArgument, NotFound
from soardb.hits import need_pyarrow
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated

__all__ = ["FORMATS", "about", "export_points", "import_points"]

FORMATS = (".parquet", ".arrow")

_BATCH = 10_000
_METADATA = b"soardb"
Progress = Callable[[str, float], None]


def _quiet(stage: str, share: float) -> None:
    """Report nothing."""


def _as_format(path: Path) -> str:
    if path.suffix not in FORMATS:
        raise InvalidArgument(f"expected a file named *{' or *'.join(FORMATS)}, got {path.name!r}")
    return path.suffix


def export_points(
    collection: Collection, path: str | os.PathLike[str], progress: Progress = _quiet
) -> int:
    """Write every point, as of the moment of the call, to a new file; returns how many.

    The ending says the format: .parquet or .arrow (Arrow's IPC file). Errors: AlreadyExists,
    NotFound for the folder, OutOfSpace, CorruptStorage for a damaged row, Unavailable without
    pyarrow. The file is there whole or not at all.
    """
    pa = need_pyarrow()
    target = Path(path)
    kind = _as_format(target)
    if target.exists():
        raise AlreadyExists(f"expected a new file for the export, {target} is there")
    if not target.parent.is_dir():
        raise NotFound(f"expected the folder {target.parent} to exist; make it first")
    total, written = collection.count(), 0
    schema = _arrow_schema(collection, pa)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    with translated(target):
        try:
            with temporary.open("xb") as file, _writer(file, schema, kind, pa) as writer:
                for batch in collection.batches(_BATCH):
                    flat = pa.array(batch.vectors.reshape(-1))
                    writer.write_batch(
                        pa.record_batch(
                            [
                                pa.array(batch.ids, schema.field("id").type),
                                pa.FixedSizeListArray.from_arrays(flat, collection.d),
                                pa.array([p.decode() for p in batch.payloads], pa.string()),
                            ],
                            schema=schema,
                        )
                    )
                    written += len(batch.ids)
                    progress("export", min(written / max(total, 1), 1.0))
            with temporary.open("rb+") as written_file:
                os.fsync(written_file.fileno())
            os.link(temporary, target)  # unlike a rename, this replaces nothing
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    progress("export", 1.0)
    return written


def _arrow_schema(collection: Collection, pa: Any) -> Any:
    settings = collection._core.settings
    identity = pa.string() if collection.id_kind == "str" else pa.int64()
    about = {
        "dim": settings.d,
        "metric": settings.metric,
        "schema": settings.schema.to_json(),
        "index": asdict(settings.params),
        "ttl": settings.ttl,
    }
    return pa.schema(
        [
            pa.field("id", identity, nullable=False),
            pa.field("vector", pa.list_(pa.float32(), collection.d), nullable=False),
            pa.field("payload", pa.string(), nullable=False),
        ],
        metadata={_METADATA: json.dumps(about).encode()},
    )


@contextlib.contextmanager
def _writer(file: Any, schema: Any, kind: str, pa: Any) -> Iterator[Any]:
    if kind == ".arrow":
        with pa.ipc.new_file(file, schema) as writer:
            yield writer
        return
    import pyarrow.parquet as pq

    compression = {"id": "zstd", "vector.list.element": "none", "payload": "zstd"}
    with pq.ParquetWriter(
        file, schema, compression=compression, use_dictionary=["payload"]
    ) as writer:
        yield writer


def import_points(
    database: Database,
    name: str,
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    schema: dict[str, str] | None = None,
    progress: Progress = _quiet,
) -> int:
    """Upsert every row of a Parquet or Arrow file into a collection; returns how many.

    A collection that is not there is made: as the file's metadata says, where soardb wrote it,
    else with the dimension of its vectors, `metric` ("cosine" unless told) and `schema`. Each batch
    of 10,000 rows is durable when the next begins: after an error, import again. Errors: NotFound,
    InvalidArgument for other columns or bad values, with the batch's place.
    """
    pa = need_pyarrow()
    source = Path(path)
    _as_format(source)
    if not source.is_file():
        raise NotFound(f"expected a file at {source}, found none")
    try:
        total, arrow_schema, batches = _reader(source, pa)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InvalidArgument(
            f"{source}: expected a {source.suffix[1:]} file, cannot read it: {error}"
        ) from None
    collection = _target(database, name, arrow_schema, metric, schema, pa)
    done = 0
    for batch in batches:
        try:
            collection.upsert(batch)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"{source}, rows {done}..{done + len(batch) - 1}: {error}; the rows before are in"
            ) from None
        done += len(batch)
        progress("import", done / max(total, 1))
    progress("import", 1.0)
    return done


def _reader(source: Path, pa: Any) -> tuple[int, Any, Iterator[Any]]:
    """Rows, schema and batches of a file."""
    if source.suffix == ".arrow":
        opened = pa.ipc.open_file(pa.memory_map(str(source)))
        count = sum(opened.get_batch(i).num_rows for i in range(opened.num_record_batches))
        pieces = (
            batch.slice(first, _BATCH)
            for i in range(opened.num_record_batches)
            for batch in [opened.get_batch(i)]
            for first in range(0, batch.num_rows, _BATCH)
        )
        return count, opened.schema, pieces
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    return file.metadata.num_rows, file.schema_arrow, file.iter_batches(_BATCH)


def _target(
    database: Database,
    name: str,
    arrow_schema: Any,
    metric: str | None,
    schema: dict[str, str] | None,
    pa: Any,
) -> Collection:
    if name in database.list_collections() or name in database.list_aliases():
        if metric is not None or schema is not None:
            raise InvalidArgument(
                f"expected no metric or schema for {name!r}, which is there and has its own"
            )
        return database.get_collection(name)
    said = about(arrow_schema)
    dim = said.get("dim") or _dimension(arrow_schema, pa)
    return database.create_collection(
        name,
        dim,
        metric or said.get("metric") or "cosine",
        schema=schema if schema is not None else said.get("schema"),
        index=said.get("index"),
        ttl=said.get("ttl") if schema is None else None,
    )


def about(arrow_schema: Any) -> dict[str, Any]:
    """What the metadata of a file of ours says (dim, metric, schema, index, ttl); {} of others."""
    raw = (arrow_schema.metadata or {}).get(_METADATA)
    if raw is None:
        return {}
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the file's metadata is none of ours: {error}") from None
    if not isinstance(said, dict):
        raise InvalidArgument(f"the file's metadata is none of ours: {str(said)[:80]}")
    return said


def _dimension(arrow_schema: Any, pa: Any) -> int:
    if "vector" not in arrow_schema.names:
        raise InvalidArgument(
            f"expected columns id and vector, got {', '.join(arrow_schema.names)}"
        )
    kind = arrow_schema.field("vector").type
    if not pa.types.is_fixed_size_list(kind):
        raise InvalidArgument(
            "expected vectors of a fixed size to make a collection from; create the collection "
            "first, then import into it"
        )
    return int(kind.list_size)
