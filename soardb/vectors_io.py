"""Vector files: read and write .npy, .fvecs, .fbin and ann-benchmarks .hdf5.

    disk -> [vectors_io.py] -> index, evaluate, cli

A file is measured against its own header before a byte of it is used: one that is shorter or
longer than it claims raises CorruptStorage with the file and the offset, one that holds
something other than vectors raises InvalidArgument. Writing goes to a temporary file beside the
target, which replaces it at the end, so that no reader ever sees half a file.

Finiteness is not looked at here; the gate in arrays.py does that once, where the vectors are used.
h5py is imported only when an .hdf5 file is named.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from soardb.errors import CorruptStorage, InvalidArgument, NotFound, Unavailable
from soardb.kernels.layout import F32, I64, Metric

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIXES = (".hdf5", ".h5")
SUFFIXES = (".npy", ".fvecs", ".fbin", *HDF5_SUFFIXES)

# What ann-benchmarks calls a distance, and the metric of ours that orders points in the same way.
METRIC_OF_DISTANCE: dict[str, Metric] = {"angular": "cosine", "euclidean": "l2", "dot": "dot"}
DISTANCE_OF_METRIC = {metric: distance for distance, metric in METRIC_OF_DISTANCE.items()}

_FBIN_HEADER = 8  # uint32 n, uint32 d
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class BenchmarkFile:
    """One data set in the ann-benchmarks layout.

    train      (n, d) float32, the vectors to index
    test       (nq, d) float32, the queries
    neighbors  (nq, depth) int64, rows of train, nearest first
    distances  (nq, depth) float32, 1 - cosine for angular, L2 for euclidean, ascending
    metric     "cosine", "l2" or "dot"
    """

    train: F32
    test: F32
    neighbors: I64
    distances: F32
    metric: Metric


def read_vectors(path: str | os.PathLike[str], *, part: str = "train") -> F32:
    """Read the vectors of one file; the suffix tells the format.

    path  .npy, .fvecs, .fbin or .hdf5
    part  which data set of an .hdf5 file: "train" or "test"; the other formats hold only one

    Returns (n, d) float32, C order. A float32 .npy or .fbin is memory-mapped and read-only; other
    number types and formats are converted into memory.
    Raises NotFound, InvalidArgument (not a file of vectors) or CorruptStorage (damaged).
    """
    file = _existing(path)
    match file.suffix.lower():
        case ".npy":
            return _read_npy(file)
        case ".fvecs":
            return _read_fvecs(file)
        case ".fbin":
            return _read_fbin(file)
        case suffix if suffix in HDF5_SUFFIXES:
            with _open_hdf5(file) as content:
                return _matrix(file, content, part, np.float32)
        case suffix:
            raise InvalidArgument(_unknown_suffix(file, suffix))


def read_ids(path: str | os.PathLike[str]) -> I64:
    """Read ids from an .npy file of integers of shape (n,); returns (n,) int64.

    Whether they are distinct and not negative is the index's to check.
    Raises NotFound, InvalidArgument or CorruptStorage, like read_vectors.
    """
    file = _existing(path)
    if file.suffix.lower() != ".npy":
        raise InvalidArgument(_unknown_suffix(file, file.suffix, (".npy",)))
    ids = _map_npy(file)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InvalidArgument(
            f"{file}: expected integer ids of shape (n,), got {ids.dtype} {ids.shape}"
        )
    return np.array(ids, dtype=np.int64)


def write_vectors(path: str | os.PathLike[str], vectors: npt.ArrayLike) -> None:
    """Write vectors as .npy, .fvecs or .fbin; the suffix tells the format.

    vectors  (n, d), any real number type; stored as little-endian float32

    For .hdf5 use write_benchmark, which also needs queries and their neighbours.
    """
    file = Path(path)
    rows = np.ascontiguousarray(_as_float32(file, np.asarray(vectors)), dtype="<f4")
    if file.suffix.lower() not in (".npy", ".fvecs", ".fbin"):
        raise InvalidArgument(_unknown_suffix(file, file.suffix, (".npy", ".fvecs", ".fbin")))
    with replacing(file) as scratch, scratch.open("wb") as out:
        match file.suffix.lower():
            case ".npy":
                np.save(out, rows)
            case ".fbin":
                np.array(rows.shape, dtype="<u4").tofile(out)
                rows.tofile(out)
            case ".fvecs":
                lengths = np.full((len(rows), 1), rows.shape[1], dtype="<i4")
                np.hstack((lengths.view("<f4"), rows)).tofile(out)


def read_benchmark(path: str | os.PathLike[str]) -> BenchmarkFile:
    """Read a whole ann-benchmarks .hdf5 file into memory.

    Raises InvalidArgument when a part is missing, the distance is none of ours or the shapes do
    not fit together, and CorruptStorage when the file is damaged or its neighbours point outside
    of the train set.
    """
    file = _existing(path)
    with _open_hdf5(file) as content:
        distance = content.attrs.get("distance")
        if isinstance(distance, bytes):
            distance = distance.decode("utf-8", "replace")
        if distance not in METRIC_OF_DISTANCE:
            raise InvalidArgument(
                f"{file}: expected the attribute distance to be one of "
                f"{', '.join(METRIC_OF_DISTANCE)}, got {distance!r}"
            )
        found = BenchmarkFile(
            train=_matrix(file, content, "train", np.float32),
            test=_matrix(file, content, "test", np.float32),
            neighbors=_matrix(file, content, "neighbors", np.int64),
            distances=_matrix(file, content, "distances", np.float32),
            metric=METRIC_OF_DISTANCE[distance],
        )
    _check_benchmark(file, found)
    return found


def write_benchmark(path: str | os.PathLike[str], benchmark: BenchmarkFile) -> None:
    """Write an .hdf5 file in the ann-benchmarks layout, attributes included."""
    h5py = _h5py()
    file = Path(path)
    if file.suffix.lower() not in HDF5_SUFFIXES:
        raise InvalidArgument(_unknown_suffix(file, file.suffix, HDF5_SUFFIXES))
    if benchmark.metric not in DISTANCE_OF_METRIC:
        raise InvalidArgument(
            f"expected a metric of {', '.join(DISTANCE_OF_METRIC)}, got {benchmark.metric!r}"
        )
    _check_benchmark(file, benchmark)
    with replacing(file) as scratch, h5py.File(scratch, "w") as content:
        content.attrs["type"] = "dense"
        content.attrs["distance"] = DISTANCE_OF_METRIC[benchmark.metric]
        content.attrs["dimension"] = benchmark.train.shape[1]
        content.attrs["point_type"] = "float"
        content["train"] = benchmark.train.astype(np.float32, copy=False)
        content["test"] = benchmark.test.astype(np.float32, copy=False)
        content["neighbors"] = benchmark.neighbors.astype(np.int32)
        content["distances"] = benchmark.distances.astype(np.float32, copy=False)


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.exists():
        raise NotFound(f"no file {file}")
    if not file.is_file():
        raise InvalidArgument(f"expected a vector file ({', '.join(SUFFIXES)}), {file} is none")
    return file


def _unknown_suffix(file: Path, suffix: str, known: tuple[str, ...] = SUFFIXES) -> str:
    return f"{file}: expected a file name ending in {', '.join(known)}, got {suffix!r}"


def _as_float32(file: Path, rows: npt.NDArray[Any]) -> F32:
    if rows.ndim != 2:
        raise InvalidArgument(f"{file}: expected vectors of shape (n, d), got {rows.shape}")
    if rows.dtype.kind not in "fiu":
        raise InvalidArgument(f"{file}: expected real numbers, got dtype {rows.dtype}")
    with np.errstate(over="ignore"):  # too large for float32: infinite, which the gate refuses
        return np.ascontiguousarray(rows, dtype=np.float32)


def _truncated(file: Path, expected: int, size: int) -> CorruptStorage:
    problem = "ends" if size < expected else "should end"
    return CorruptStorage(
        f"{file}: expected {expected} bytes as its header says, got {size}; "
        f"the file {problem} at offset {min(expected, size)}; copy or make it again"
    )


def _read_npy(file: Path) -> F32:
    return _as_float32(file, _map_npy(file))


def _map_npy(file: Path) -> npt.NDArray[Any]:
    """The array of an .npy file, mapped read-only, after header and size were found to agree."""
    size = file.stat().st_size
    with file.open("rb") as content:
        if content.read(6) != b"\x93NUMPY":
            raise CorruptStorage(f"{file}: expected the .npy magic bytes at offset 0, got others")
        content.seek(0)
        try:
            version = np.lib.format.read_magic(content)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(content)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(content)
            else:
                raise InvalidArgument(f"{file}: expected .npy version 1 or 2, got {version}")
        except InvalidArgument:
            raise
        except ValueError as error:
            raise CorruptStorage(
                f"{file}: unreadable .npy header before offset {content.tell()}: {error}"
            ) from error
        start = content.tell()
    if dtype.hasobject:
        raise InvalidArgument(f"{file}: expected an array of numbers, got Python objects")
    expected = start + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise _truncated(file, expected, size)
    if size == start:
        return np.empty(shape, dtype)
    order: Literal["C", "F"] = "F" if fortran else "C"
    return np.asarray(np.memmap(file, dtype, "r", start, shape, order))


def _read_fbin(file: Path) -> F32:
    size = file.stat().st_size
    if size < _FBIN_HEADER:
        raise _truncated(file, _FBIN_HEADER, size)
    n, d = (int(value) for value in np.fromfile(file, dtype="<u4", count=2))
    expected = _FBIN_HEADER + 4 * n * d
    if size != expected:
        raise _truncated(file, expected, size)
    if n == 0 or d == 0:
        return np.empty((n, d), dtype=np.float32)
    rows = np.memmap(file, dtype="<f4", mode="r", offset=_FBIN_HEADER, shape=(n, d))
    return _as_float32(file, np.asarray(rows))


def _read_fvecs(file: Path) -> F32:
    size = file.stat().st_size
    if size < 4:
        raise _truncated(file, 4, size)
    d = int(np.fromfile(file, dtype="<i4", count=1)[0])
    if d <= 0:
        raise CorruptStorage(f"{file}: expected a dimension of 1 or more at offset 0, got {d}")
    row_bytes = 4 + 4 * d
    if size % row_bytes:
        raise CorruptStorage(
            f"{file}: expected rows of {row_bytes} bytes (d = {d}), the last one is cut or the "
            f"dimension is wrong: row {size // row_bytes} at offset {size - size % row_bytes}"
        )
    table = np.memmap(file, dtype="<i4", mode="r").reshape(-1, 1 + d)
    wrong = np.flatnonzero(table[:, 0] != d)
    if wrong.size:
        row = int(wrong[0])
        raise CorruptStorage(
            f"{file}: expected dimension {d} in every row, got {int(table[row, 0])} "
            f"in row {row} at offset {row * row_bytes}"
        )
    return _as_float32(file, np.asarray(table[:, 1:]).view("<f4"))


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise Unavailable(
            "reading or writing .hdf5 needs h5py; install it with: pip install h5py"
        ) from error
    return h5py


@contextlib.contextmanager
def _open_hdf5(file: Path) -> Iterator[h5py.File]:
    """Open for reading; every way in which h5py reports damage becomes CorruptStorage."""
    h5py = _h5py()
    size = file.stat().st_size
    with file.open("rb") as content:
        if content.read(len(_HDF5_MAGIC)) != _HDF5_MAGIC:
            raise CorruptStorage(f"{file}: expected the HDF5 magic bytes at offset 0, got others")
    try:
        with h5py.File(file, "r") as content:
            yield content
    except (InvalidArgument, CorruptStorage):
        raise
    except (OSError, RuntimeError, KeyError) as error:
        raise CorruptStorage(
            f"{file}: damaged or cut HDF5 file ({size} bytes, so cut at offset {size} if it "
            f"should be longer): {error}; copy or make it again"
        ) from error


def _matrix(file: Path, content: h5py.File, part: str, dtype: type[Any]) -> npt.NDArray[Any]:
    """One (rows, columns) data set of an open file, as dtype in C order."""
    h5py = _h5py()
    if part not in content:
        raise InvalidArgument(
            f"{file}: expected a data set {part!r}, the file has {', '.join(content) or 'none'}"
        )
    held = content[part]
    if not isinstance(held, h5py.Dataset) or held.ndim != 2 or held.dtype.kind not in "fiu":
        raise InvalidArgument(f"{file}: expected {part!r} to hold numbers in rows, got {held}")
    return np.ascontiguousarray(held[()], dtype=dtype)


def _check_benchmark(file: Path, found: BenchmarkFile) -> None:
    (n, d), (nq, queries_d) = found.train.shape, found.test.shape
    if queries_d != d:
        raise InvalidArgument(f"{file}: expected test vectors of dimension {d}, got {queries_d}")
    for name, table in (("neighbors", found.neighbors), ("distances", found.distances)):
        if table.shape != (nq, found.neighbors.shape[1]):
            raise InvalidArgument(
                f"{file}: expected {name} of {nq} rows, one a test vector, all as wide as "
                f"neighbors, got {table.shape}"
            )
    outside = np.argwhere((found.neighbors < 0) | (found.neighbors >= n))
    if outside.size:
        row, column = (int(value) for value in outside[0])
        raise CorruptStorage(
            f"{file}: expected neighbours within 0..{n - 1}, got {found.neighbors[row, column]} "
            f"at row {row}, column {column} of neighbors"
        )


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A scratch file beside `file` that takes its place when the block ends well."""
    if not file.parent.is_dir():
        raise NotFound(f"no folder {file.parent} to write {file.name} into")
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        scratch = Path(folder) / file.name
        yield scratch
        scratch.replace(file)
