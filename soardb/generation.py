"""A generation: one checksummed, mapped file that holds the index, the table and the columns.

    compaction.py, contents.py -> [generation.py] -> index/, table.py, filters/columns.py, storage/

Built from the row store alone, in batches: rows are read and given their lists, then put in list
order so that neighbours lie together, coded, and written into the file in place. What is held in
memory meanwhile is the training sample and about 100 bytes a point; the vectors pass through a
scratch file. A trained model is kept beside it, so a build that was interrupted does not learn
again.

A generation is derived and not trusted: it is used only after its checksums have passed, and one
that is missing or damaged is built anew.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soardb.errors import CorruptStorage, InvalidArgument, NotFound
from soardb.filters.columns import Columns
from soardb.index.form import Form
from soardb.index.lists import CodeLists
from soardb.index.live import LiveIndex
from soardb.index.model import Model, as_compared, store_stride
from soardb.index.plan import BuildParams
from soardb.index.rows import Rows
from soardb.index.stored import pack, unpack, unpack_model
from soardb.kernels.layout import BLOCK, F32, I32, I64, LINE, Metric
from soardb.schema import Schema, decode_payload
from soardb.storage.faults import reach
from soardb.storage.format import ArrayFile, Mapped, map_arrays, read_arrays, write_arrays
from soardb.storage.rows import RowStore
from soardb.table import Table

__all__ = [
    "BUILD_BYTES",
    "Generation",
    "Source",
    "build",
    "keep_model",
    "kept_model",
    "open_generation",
    "read_model",
]

_KIND, _MODEL_KIND = "generation", "model"
_BATCH = 16_384
_IN_PLACE = ("codes", "code_rows")  # filled batch by batch, in the file

BUILD_BYTES = 100
"""Bytes a point that a build holds: lists, order, ids, row numbers."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What a build reads and what it must know of the collection."""

    store: RowStore
    schema: Schema
    d: int
    metric: Metric
    params: BuildParams
    id_kind: str | None
    upto: int
    """The sequence number that the generation covers."""
    settings: dict[str, Any]
    """What the collection is, for a repair that finds its row store without."""
    live: int
    """Points that were live at `upto`: the most that a build can find."""


@dataclass(frozen=True, slots=True)
class Generation:
    """An open generation. verify() must have passed before index or table are used."""

    index: LiveIndex
    table: Table
    columns: Columns
    seq: int
    residual: float
    """Mean squared distance of the points to their centroids when the model was learnt."""
    trained_on: int
    """Points that there were then."""
    mapped: Mapped

    def verify(self) -> None:
        """Check every checksum of the file. Errors: CorruptStorage."""
        self.mapped.verify()


@dataclass(slots=True)
class _Pass:
    """What the first pass over the rows gathers, in order of row."""

    rows: I64
    parts: I32
    vectors: F32
    ids: list[Any]
    columns: Columns
    form: Form
    n: int = 0


def keep_model(
    path: Path, model: Model, metric: Metric, params: BuildParams, residual: float, trained_on: int
) -> None:
    """Write a trained model, for a build that was interrupted or is made elsewhere."""
    learnt, arrays = pack(model, CodeLists(len(model.centroids), model.product.m))
    parameters = {
        "d": len(model.mean),
        "metric": metric,
        "params": asdict(params),
        "residual": residual,
        "trained_on": trained_on,
    } | learnt
    write_arrays(path, _MODEL_KIND, parameters, arrays)


def read_model(path: Path, d: int, metric: Metric, params: BuildParams) -> tuple[Model, float, int]:
    """What keep_model() wrote: a model, its mean squared residual, points that it stands for.

    Errors: NotFound, CorruptStorage, InvalidArgument where it was learnt for another collection.
    """
    parameters, arrays = read_arrays(path, _MODEL_KIND)
    try:
        for name, expected in (("d", d), ("metric", metric), ("params", asdict(params))):
            if parameters[name] != expected:
                raise InvalidArgument(
                    f"expected a model learnt with {name} {expected}, got {parameters[name]}"
                )
        model = unpack_model(parameters, arrays, d, metric)
        return model, float(parameters["residual"]), int(parameters["trained_on"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise CorruptStorage(f"{path}: the contents are not a model's: {error}") from None


def kept_model(path: Path, source: Source) -> tuple[Model, float, int] | None:
    """The model that a file holds for this collection, if it is there and still fits."""
    try:
        model, residual, trained_on = read_model(path, source.d, source.metric, source.params)
    except (NotFound, CorruptStorage, InvalidArgument):
        return None  # it is only a saving: without it the build trains
    return (model, residual, trained_on) if source.live <= 1.5 * trained_on else None


def build(
    path: Path,
    source: Source,
    model: Model | None,
    *,
    residual: float,
    trained_on: int,
    progress: Progress,
) -> None:
    """Write the generation of all rows up to source.upto with this model (None: none).

    progress is called with (stage, share done) and may raise to stop the build, which then leaves
    nothing behind. Errors: CorruptStorage for a damaged row, OutOfSpace through the caller.
    """
    with tempfile.TemporaryFile(dir=path.parent, prefix=".scratch-") as scratch:
        taken = _read_rows(source, model, scratch.fileno(), progress)
        reach("build.encoded")
        order = _list_order(taken, model)
        _write(path, source, model, taken, order, residual, trained_on, progress)


def _read_rows(source: Source, model: Model | None, scratch: int, progress: Progress) -> _Pass:
    """Read and check every row and find its lists; vectors go to the scratch file."""
    n, d = source.live, source.d
    size = max(n, 1) * d * 4
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(scratch, 0, size)  # a full disk is an error now, not a signal later
    else:
        os.ftruncate(scratch, size)
    with os.fdopen(os.dup(scratch), "r+b") as file:
        vectors = np.memmap(file, np.float32, "r+", shape=(max(n, 1), d))
    taken = _Pass(
        rows=np.empty(n, np.int64),
        parts=np.full((n, 2), -1, np.int32),
        vectors=vectors,
        ids=[],
        columns=Columns(source.schema),
        form=Form.of(source.params.precision, source.metric, model),
    )
    for batch in source.store.batches(0, source.upto, _BATCH):
        first, last = taken.n, taken.n + len(batch.rows)
        if last > n:
            raise CorruptStorage(
                f"{source.store.path}: holds more than the {n} rows that were counted; "
                "run `soardb check`"
            )
        compared = taken.form.rounded(as_compared(batch.vectors, source.metric))
        taken.rows[first:last] = batch.rows
        taken.vectors[first:last] = compared
        taken.ids += batch.ids
        if source.schema.fields:
            payloads = [decode_payload(payload) for payload in batch.payloads]
            taken.columns.append(source.schema.extract(payloads), len(payloads))
        else:
            taken.columns.append({}, len(batch.rows))
        if model is not None:
            taken.parts[first:last] = model.assign(compared, source.params)
        taken.n = last
        progress("encode", last / max(n, 1))
    return taken


def _list_order(taken: _Pass, model: Model | None) -> I64:
    """The row order of the generation: by list, so that candidates of a list lie together."""
    if model is None:
        return np.arange(taken.n, dtype=np.int64)
    return np.argsort(taken.parts[: taken.n, 0], kind="stable").astype(np.int64)


def _write(
    path: Path,
    source: Source,
    model: Model | None,
    taken: _Pass,
    order: I64,
    residual: float,
    trained_on: int,
    progress: Progress,
) -> None:
    n, d, metric = taken.n, source.d, source.metric
    kind = source.id_kind or "int"
    small = Table.arrays(taken.rows[order], [taken.ids[i] for i in order], kind)
    small["ids"] = small.pop("rows")
    column_parameters, column_arrays = taken.columns.take(order).arrays()
    small |= {f"column/{name}": array for name, array in column_arrays.items()}
    parameters: dict[str, Any] = {
        "d": d,
        "metric": metric,
        "params": asdict(source.params),
        "id_kind": kind,
        "settings": source.settings,
        "seq": source.upto,
        "schema": source.schema.to_json(),
        "columns": column_parameters,
        "residual": residual,
        "trained_on": trained_on,
    }
    lists, parts = None, taken.parts[:n]
    if model is not None:
        lists = CodeLists(len(model.centroids), model.product.m)
        counts = np.bincount(parts[parts >= 0], minlength=len(model.centroids))
        learnt, packed = pack(model, lists)
        parameters |= learnt
        small |= {name: array for name, array in packed.items() if name not in _IN_PLACE}
    layout: dict[str, Any] = {name: (array.dtype, array.shape) for name, array in small.items()}
    is_l2 = metric == "l2"
    layout["vectors"] = (taken.form.dtype, (n if taken.form.has_vectors else 0, d))
    layout["store"] = (np.uint8, (n if model else 0, store_stride(d) if model else 0))
    layout["store_bias"] = (np.float32, (n if model and is_l2 else 0,))
    if model is not None:
        blocks = int((-(-counts // BLOCK)).sum())
        layout["codes"] = (np.uint8, (blocks, model.product.m // 8, LINE))
        layout["code_rows"] = (np.uint32, (blocks * BLOCK,))
    with ArrayFile(path, _KIND, parameters, layout) as file:
        for name, array in small.items():
            file.arrays[name][...] = array
        if lists is not None:
            lists.reserve(counts, (file.arrays["codes"], file.arrays["code_rows"]))
        for first in range(0, n, _BATCH):
            part = slice(first, min(first + _BATCH, n))
            vectors = taken.vectors[order[part]]
            if taken.form.has_vectors:
                file.arrays["vectors"][part] = taken.form.packed(vectors)
            if model is not None and lists is not None:
                copies = model.code(vectors, parts[order[part]], source.params)
                owners = (first + copies.owners).astype(np.uint32)
                lists.append(copies.lists, owners, copies.codes)
                centred = vectors - model.mean
                file.arrays["store"][part] = model.scalar.encode(centred, store_stride(d))
                if is_l2:
                    file.arrays["store_bias"][part] = 0.5 * np.square(centred).sum(axis=1)
            progress("write", first / max(n, 1))
        if lists is not None:
            file.arrays["list_start"][...] = lists.start
            file.arrays["list_count"][...] = lists.count
        file.seal(before_rename=lambda: reach("build.before_rename"))
    reach("build.after_rename")
    progress("write", 1.0)


def open_generation(path: Path, schema: Schema, d: int, metric: Metric) -> Generation:
    """Map a generation; O(header) and one look at the list and row numbers.

    Errors: NotFound, CorruptStorage.
    """
    mapped = map_arrays(path, _KIND)
    parameters, arrays = mapped.parameters, mapped.arrays
    try:
        if parameters["d"] != d or parameters["metric"] != metric:
            raise CorruptStorage(f"made for {parameters['d']} dimensions, {parameters['metric']}")
        params = BuildParams(**parameters["params"])
        if "choice" in parameters:
            model, lists, rows = unpack(parameters, arrays, d, metric, params.precision)
            index = LiveIndex(d, metric, params, model=model, lists=lists, base=rows)
        else:
            rows = Rows.of(arrays, d, form=Form.of(params.precision, metric, None))
            index = LiveIndex(d, metric, params, base=rows)
        n = len(arrays["ids"])
        table = Table.of(arrays | {"rows": arrays["ids"]}, parameters["id_kind"])
        held = {
            name.removeprefix("column/"): array
            for name, array in arrays.items()
            if name.startswith("column/")
        }
        # Fields declared since have no column here: the generation is then made anew.
        columns = Columns.of(Schema.of(parameters["schema"]), parameters["columns"], held)
        if len(index) != n or len(columns) != n or columns.schema != schema:
            raise CorruptStorage(f"expected {n} rows in every part and the declared fields")
        return Generation(
            index,
            table,
            columns,
            int(parameters["seq"]),
            float(parameters["residual"]),
            int(parameters["trained_on"]),
            mapped,
        )
    except (KeyError, TypeError, ValueError, OverflowError, CorruptStorage) as error:
        raise CorruptStorage(f"{path}: the contents are not a generation's: {error}") from None
