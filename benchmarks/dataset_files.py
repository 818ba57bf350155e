"""A set of vectors with its exact answers, and the HDF5 file that holds it.

    environment.py -> [dataset_files.py] -> exact.py, recipes.py, datasets.py

The layout is that of ann-benchmarks, so its files and ours are read by one function:

    train      (n, d)  float32      test       (q, d)   float32
    neighbors  (q, 100) int32       distances  (q, 100) float32, 1 - cosine or Euclidean, ascending
    labels, test_labels             the word or text of each row, where the source has one
    attrs      type, distance, dimension, point_type; ours besides: source, sha256

A file appears under its name only when it is whole, its digest is checked each time it is opened,
and so is the recipe it was made by: one name always speaks of the same vectors.

Nothing here makes vectors or answers, and nothing knows which sets there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.environment import need
from soardb.errors import CorruptStorage

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.object_]
Metric = Literal["cosine", "l2", "dot"]

NEIGHBOURS = 100
METRIC_OF: dict[str, Metric] = {"angular": "cosine", "euclidean": "l2", "dot": "dot"}
DISTANCE_OF = {metric: distance for distance, metric in METRIC_OF.items()}

_ARRAYS = ("train", "test", "neighbors", "distances")
_TEXTS = ("labels", "test_labels")
_REMEDY = "delete it, and the next load makes it anew"


@dataclass(frozen=True)
class Dataset:
    """Vectors, queries and the exact answers.

    train        (n, d) float32, the rows to index; row number = id
    test         (q, d) float32, the queries; none of them is a row of train
    neighbors    (q, 100) int32, rows of train, nearest first, ties to the lower row
    distances    (q, 100) float32, 1 - cosine for "cosine", Euclidean for "l2", ascending
    labels       (n,) str objects, or None;  test_labels  (q,) likewise
    sha256       digest of all arrays above, as stored and verified
    """

    name: str
    metric: Metric
    train: Vectors
    test: Vectors
    neighbors: npt.NDArray[np.int32]
    distances: Vectors
    labels: Labels | None
    sha256: str
    test_labels: Labels | None = None


def digest(*arrays: npt.NDArray[Any] | None) -> str:
    """SHA-256 over dtype, shape and bytes of each array in turn; labels as UTF-8, NUL between."""
    sha = hashlib.sha256()
    for array in arrays:
        if array is None:
            sha.update(b"none;")
        elif array.dtype == object:
            sha.update(f"text {array.shape};".encode())
            sha.update("\0".join(array.tolist()).encode())
        else:
            sha.update(f"{array.dtype.str} {array.shape};".encode())
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def write(path: Path, dataset: Dataset, *, source: str) -> None:
    """Write one HDF5 file, whole or not at all: a temporary beside it, then a rename."""
    h5py = need("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["type"] = "dense"
        file.attrs["distance"] = DISTANCE_OF[dataset.metric]
        file.attrs["dimension"] = dataset.train.shape[1]
        file.attrs["point_type"] = "float"
        file.attrs["source"] = source
        file.attrs["sha256"] = dataset.sha256
        for key in _ARRAYS:
            file[key] = getattr(dataset, key)
        for key in _TEXTS:
            if getattr(dataset, key) is not None:
                file.create_dataset(key, data=getattr(dataset, key), dtype=h5py.string_dtype())


def read(path: Path, *, source: str | None = None) -> Dataset:
    """Read a file of `write` or of ann-benchmarks; check the digest, and the source if given."""
    h5py = need("h5py")
    try:
        with h5py.File(path, "r") as file:
            metric = METRIC_OF[file.attrs["distance"]]
            stored, origin = file.attrs["sha256"], file.attrs.get("source")
            arrays = [file[key][:] for key in _ARRAYS]
            texts = [file[key].asstr()[:] if key in file else None for key in _TEXTS]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CorruptStorage(f"{path}: not a whole dataset file ({error}); {_REMEDY}") from error
    if (found := digest(*arrays, *texts)) != stored:
        raise CorruptStorage(
            f"{path}: expected sha256 {stored}, its arrays have {found}; {_REMEDY}"
        )
    if source is not None and origin != source:
        raise CorruptStorage(f"{path}: made from other sources than this version pins; {_REMEDY}")
    train, test, neighbors, distances = arrays
    labels, test_labels = texts
    return Dataset(
        path.stem, metric, train, test, neighbors, distances, labels, stored, test_labels
    )


def seal(path: Path) -> None:
    """Give a file of ann-benchmarks, downloaded or put there by hand, the digest `read` wants."""
    try:
        with need("h5py").File(path, "r+") as file:
            if "sha256" not in file.attrs:
                file.attrs["sha256"] = digest(*(file[key][:] for key in _ARRAYS), None, None)
    except (OSError, KeyError) as error:
        raise CorruptStorage(f"{path}: not a whole dataset file ({error}); {_REMEDY}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
