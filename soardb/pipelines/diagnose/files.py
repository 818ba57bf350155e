"""Predictions in files and tables: an ensemble read from them, and written so that it can be.

    .npz, .parquet, Arrow -> [files.py] -> ensemble.py and back

They hold logits or probabilities, and may hold labels, ids, the names of the classes and what
differs between replicas. Nothing in a file is executed, so arrays of Python objects are refused.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument, NotFound
from soardb.hits import need_pyarrow
from soardb.pipelines.diagnose.ensemble import F64, NOT_TOLD, Ensemble
from soardb.pipelines.diagnose.source import labels_of
from soardb.pipelines.stored import read_parquet
from soardb.points import as_point_ids
from soardb.schema import shown

__all__ = ["SUFFIXES", "check_target", "of_arrow", "of_file", "to_arrow", "to_file"]

SUFFIXES = (".npz", ".parquet")
_NAMES = ("logits", "probabilities", "labels", "ids", "names", "randomness")


def of_file(
    path: str | os.PathLike[str], collection: Any = None, label_field: str | None = None
) -> Ensemble:
    """The ensemble of an .npz file, or of a .parquet one with the columns that of_arrow reads.

    collection, label_field  where the labels are, if not in the file: a payload field of the points
                             with the file's ids; the file's names of classes, or whole numbers in
                             0..c-1 where it has none

    Errors: NotFound, InvalidArgument.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"expected a file of predictions, there is none at {file}")
    if label_field is not None and collection is None:
        raise InvalidArgument("expected a collection with a label field, got none")
    held = _columns(read_parquet(file)) if file.suffix == ".parquet" else _arrays(file)
    labels = None
    if label_field is not None:
        if "ids" not in held:
            raise InvalidArgument(f"expected ids in {file.name} with a label field, got none")
        names = _listed(held["names"]) if "names" in held else None
        labels = labels_of(collection, as_point_ids(held["ids"]), label_field, names)
    return _made(held, labels, file.name)


def to_file(ensemble: Ensemble, path: str | os.PathLike[str]) -> None:
    """Write what of_file reads; the ending, .npz or .parquet, says the format.

    Errors: InvalidArgument for another ending, NotFound for the folder.
    """
    file = Path(path)
    check_target(file)
    if file.suffix == ".parquet":
        table = to_arrow(ensemble)
        import pyarrow.parquet as parquet

        parquet.write_table(table, file)
        return
    kind, values = _said(ensemble)
    held: dict[str, Any] = {
        kind: values,
        "labels": ensemble.labels,
        "ids": np.array(ensemble.ids),
        "randomness": np.array(ensemble.randomness),
    }
    if ensemble.names is not None:
        held["names"] = np.array(json.dumps(ensemble.names))
    np.savez(file, **held)


def check_target(path: Path) -> None:
    """Errors: InvalidArgument for a file that to_file would not write, NotFound for its folder."""
    if path.suffix not in SUFFIXES:
        raise InvalidArgument(f"expected a file named *{' or *'.join(SUFFIXES)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise NotFound(f"expected the folder {path.parent} to exist; make it first")


def to_arrow(ensemble: Ensemble) -> Any:
    """A pyarrow.Table, a row a sample: id, label, and m lists of c logits, as of_arrow reads it.

    In place of logits there are probabilities where some are 0.
    """
    pa = need_pyarrow()
    kind, values = _said(ensemble)
    m, n, c = values.shape
    flat = pa.array(np.ascontiguousarray(values.transpose(1, 0, 2)).ravel())
    lists = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, c), m)
    assert len(lists) == n
    table = pa.table({"id": ensemble.ids, "label": ensemble.labels, kind: lists})
    told = {"randomness": ensemble.randomness}
    if ensemble.names is not None:
        told["names"] = json.dumps(ensemble.names)
    return table.replace_schema_metadata(told)


def of_arrow(table: Any, labels: npt.ArrayLike | None = None) -> Ensemble:
    """Of a table with a column `logits` or `probabilities`: in each row m lists of c numbers.

    label  whole numbers in 0..c-1, unless `labels` are given
    id     of the points, where there are ids

    The metadata may have `randomness`, and `names`, a JSON list. Errors: InvalidArgument.
    """
    return _made(_columns(table), labels, "the table")


def _made(held: dict[str, Any], labels: npt.ArrayLike | None, what: str) -> Ensemble:
    """held: some of _NAMES."""
    both = [name for name in ("logits", "probabilities") if name in held]
    if len(both) != 1:
        names = ", ".join(held) or "none"
        raise InvalidArgument(f"expected logits or probabilities in {what}, got {names}")
    if (labels is None) == ("labels" not in held):
        raise InvalidArgument(
            f"expected labels in {what} or from elsewhere, got "
            + ("both" if labels is not None else "neither")
        )
    make = Ensemble.of_logits if both == ["logits"] else Ensemble.of_probabilities
    return make(
        held[both[0]],
        held["labels"] if labels is None else labels,
        as_point_ids(held["ids"]) if "ids" in held else None,
        randomness=str(held.get("randomness", NOT_TOLD)),
        names=_listed(held["names"]) if "names" in held else None,
    )


def _listed(names: Any) -> Any:
    """From JSON, as to_file writes it, or from an array of others."""
    given = np.asarray(names)
    if given.ndim:
        return given.tolist()
    try:
        return json.loads(str(given))
    except ValueError as error:
        raise InvalidArgument(f"expected names as a list or JSON, got {given}") from error


def _said(ensemble: Ensemble) -> tuple[str, F64]:
    """What loses nothing: logarithms, which are logits too, unless some are of 0."""
    if np.isneginf(ensemble.logs).any():
        return "probabilities", ensemble.probabilities
    return "logits", ensemble.logs


def _columns(table: Any) -> dict[str, Any]:
    if not hasattr(table, "column_names"):
        raise InvalidArgument(f"expected a pyarrow.Table, got {shown(table)}")
    held: dict[str, Any] = {
        name: _cube(table[name], name)
        for name in ("logits", "probabilities")
        if name in table.column_names
    }
    for column, name in (("label", "labels"), ("id", "ids")):
        if column in table.column_names:
            held[name] = table[column].to_pylist()
    told = table.schema.metadata or {}
    if b"randomness" in told:
        held["randomness"] = told[b"randomness"].decode()
    if b"names" in told:
        held["names"] = told[b"names"].decode()
    return held


def _cube(column: Any, name: str) -> F64:
    """(m, n, c) of a column with m lists of c numbers in each row."""
    import pyarrow as pa
    import pyarrow.compute as compute

    array = column.combine_chunks()
    shape = []
    for _ in range(2):
        is_list = hasattr(array.type, "value_type")
        lengths = compute.unique(compute.list_value_length(array)).to_pylist() if is_list else []
        if len(lengths) != 1 or not lengths[0]:
            raise InvalidArgument(
                f"expected m lists of c numbers in every row of {name!r}, got {column.type} of "
                f"lengths {lengths}"
            )
        shape.append(lengths[0])
        array = compute.list_flatten(array)
    if array.null_count or not (
        pa.types.is_floating(array.type) or pa.types.is_integer(array.type)
    ):
        raise InvalidArgument(f"expected numbers in {name!r}, got {array.type} or nulls")
    cube = array.to_numpy(zero_copy_only=False).reshape(-1, *shape)
    return np.asarray(cube.transpose(1, 0, 2), np.float64)


def _arrays(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:  # closed whatever NumPy makes of it
        try:
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.lib.npyio.NpzFile):
                with held:
                    return {name: held[name] for name in _NAMES if name in held}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidArgument(
                f"expected an .npz file of numbers, {path.name}: {error}"
            ) from error
    raise InvalidArgument(
        f"expected an .npz with several arrays, got one array in {path.name}; "
        "numpy.savez(file, logits=..., labels=...) makes one"
    )
