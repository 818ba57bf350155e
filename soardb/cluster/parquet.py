"""Parquet files as the source of a load: which rows there are, and row groups read bit by bit.

    building.py, training.py -> [parquet.py] -> pyarrow, points.py

The files' footers say everything but the values: columns, types, row groups and their rows. So what
cannot be loaded is refused before a value is read, and all parts of a load are known by number when
it begins. A part is a run of rows of one row group, small enough to be held many times.

What is wrong with a value is said with its file, row group and row. Nothing here imports Ray.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from soardb.core import Settings
from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound, Unavailable
from soardb.hits import need_pyarrow
from soardb.kernels.layout import F32
from soardb.points import MAX_BATCH, Batch, as_batch, encode, payloads_of, vectors_of

__all__ = ["ParquetSource", "Part", "RowGroup", "open_source"]

_PART_BYTES = 8 * 2**20  # of the vectors of one part
_SHARD_BYTES = 2**20  # of them for each shard, where there are many shards
_MOST_BYTES = 128 * 2**20
_FOOTERS_AT_ONCE = 16
_STREAM_BYTES = 2**20  # read ahead of a column
_HIDDEN = re.compile(r"/[._]")
_ROW_OF_ONE = re.compile(r" in row 0\b|\bpayload 0: ")  # of a table of one row it says nothing


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group. first_row: of the file; first_part: of the load."""

    file: str
    number: int
    rows: int
    first_row: int
    first_part: int


@dataclass(frozen=True, slots=True)
class Part:
    """Checked points of a part, payloads as JSON, and where its first row stands in its file."""

    number: int
    batch: Batch
    payloads: list[bytes] | None
    row: int


@dataclass(frozen=True)
class ParquetSource:
    """Files that one load reads; a value that travels to the tasks.

    uri          of the file system, as pyarrow.fs knows it; None: this machine's
    files        (path, bytes, nanosecond of the last change)
    id_kind      "int" or "str"
    about        metadata of the first file's schema, as exchange.about() reads it
    """

    uri: str | None
    files: tuple[tuple[str, int, int], ...]
    groups: tuple[RowGroup, ...]
    id_column: str
    vector_column: str
    id_kind: str
    d: int
    part_rows: int
    about: dict[str, Any]

    @cached_property
    def rows(self) -> int:
        """Of all files."""
        return sum(group.rows for group in self.groups)

    @cached_property
    def parts(self) -> int:
        """How many parts they are."""
        last = self.groups[-1]
        return last.first_part + -(-last.rows // self.part_rows)

    @cached_property
    def digest(self) -> str:
        """Names these files as they are, and how they are cut into parts."""
        said = [
            self.uri and self.uri.partition("?")[0].rpartition("@")[2],
            self.files,
            [[group.rows, group.first_part] for group in self.groups],
            self.id_column,
            self.vector_column,
            self.part_rows,
        ]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()

    def part_numbers(self, group: RowGroup) -> range:
        """The parts of a row group."""
        return range(group.first_part, group.first_part - (-group.rows // self.part_rows))

    def sample(self, group: RowGroup, chosen: np.ndarray, settings: Settings) -> F32:
        """The vectors of rising rows of a row group, checked: (m, d) float32."""
        found = np.empty((len(chosen), self.d), np.float32)
        for first, table in self._tables(group, [self.vector_column]):
            low, high = np.searchsorted(chosen, [first, first + table.num_rows])
            if low == high:
                continue
            some = table.take(chosen[low:high] - first)

            def gate(rows: Any) -> Batch:
                vectors = vectors_of(rows.column(self.vector_column), self.d)
                return as_batch(np.arange(len(vectors)), vectors, None, self.d, settings.metric)

            at = group.first_row + chosen[low:high]
            found[low:high] = _checked(gate, some, group, at.tolist()).vectors
        return found

    def read(
        self, group: RowGroup, is_done: Callable[[int], bool], settings: Settings
    ) -> Iterator[Part]:
        """The parts of a row group that are not done yet, one after the other.

        Errors: InvalidArgument for values that cannot be stored, with file, row group and row,
        and what _tables() raises.
        """
        if all(is_done(number) for number in self.part_numbers(group)):
            return
        for first, table in self._tables(group, None):
            number = group.first_part + first // self.part_rows
            if is_done(number):
                continue
            row = group.first_row + first
            yield self._part(table, number, group, row, settings)

    def _part(self, table: Any, number: int, group: RowGroup, row: int, settings: Settings) -> Part:
        texts: list[bytes] | None = None

        def gate(rows: Any) -> Batch:
            nonlocal texts
            vectors = vectors_of(rows.column(self.vector_column), self.d)
            payloads = payloads_of(rows.drop_columns([self.id_column, self.vector_column]))
            ids = rows.column(self.id_column)
            batch = as_batch(ids, vectors, payloads, self.d, settings.metric)
            encoded = encode(batch.payloads, len(batch.ids), settings.schema, settings.ttl)
            texts = None if batch.payloads is None else encoded.payloads
            return batch

        places = list(range(row, row + table.num_rows))
        batch = _checked(gate, table, group, places)
        if len(batch.ids) < table.num_rows:
            raise self.doubled(group, *_twice(table.column(self.id_column).to_pylist(), row))
        return Part(number, batch, texts, row)

    def doubled(self, group: RowGroup, point_id: object, row: int, where: str) -> AlreadyExists:
        """The error of an id that two rows have."""
        return AlreadyExists(
            f"{group.file}, row group {group.number}, row {row}: expected ids that are there once, "
            f"{point_id!r} is {where}, too; which of the points is meant?"
        )

    def _tables(self, group: RowGroup, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
        """(first row within the group, table) of each part.

        Errors: NotFound, CorruptStorage, Unavailable; InvalidArgument for a file that changed.
        """
        pa = need_pyarrow()
        import pyarrow.parquet as pq

        with _reading(group.file, pa), system_of(self.uri)[0].open_input_file(group.file) as opened:
            file = pq.ParquetFile(opened, buffer_size=_STREAM_BYTES, pre_buffer=False)
            if (
                group.number >= file.num_row_groups
                or file.metadata.row_group(group.number).num_rows != group.rows
            ):
                raise InvalidArgument(
                    f"{group.file}: expected row group {group.number} of {group.rows} rows, as "
                    "when the load began; the file has changed"
                )
            held, first = [], 0
            batches = file.iter_batches(
                self.part_rows, row_groups=[group.number], columns=columns, use_threads=False
            )
            for batch in batches:
                held.append(batch)
                whole = sum(map(len, held)) == min(self.part_rows, group.rows - first)
                if whole:
                    yield first, pa.Table.from_batches(held)
                    first += self.part_rows
                    held = []
            if held:
                raise CorruptStorage(
                    f"{group.file}: row group {group.number} has fewer rows than its footer says"
                )


def _checked(
    gate: Callable[[Any], Batch], table: Any, group: RowGroup, places: Sequence[int]
) -> Batch:
    """What the gate makes of a table; an error of it with the place of the first bad row."""
    try:
        return gate(table)
    except InvalidArgument as error:
        low, high, what = 0, table.num_rows, error  # `low` rows pass, `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            found = _refusal(gate, table.slice(0, middle))
            low, high, what = (middle, high, what) if found is None else (low, middle, found)
        what = _refusal(gate, table.slice(high - 1, 1)) or what
        said = _ROW_OF_ONE.sub("", str(what))
        where = f"{group.file}, row group {group.number}, row {places[high - 1]}"
        raise InvalidArgument(f"{where}: {said}") from None


def _refusal(gate: Callable[[Any], Batch], table: Any) -> InvalidArgument | None:
    try:
        gate(table)
    except InvalidArgument as error:
        return error
    return None


def _twice(ids: list[Any], first: int) -> tuple[Any, int, str]:
    """The first id that comes again, its row, and where it was before."""
    seen: dict[Any, int] = {}
    for row, point_id in enumerate(ids, first):
        if point_id in seen:
            return point_id, row, f"in row {seen[point_id]}"
        seen[point_id] = row
    raise AssertionError("expected an id that comes twice")


def system_of(uri: str | None) -> tuple[Any, str]:
    """The file system of a URI and the root there, or this machine's. Errors: InvalidArgument."""
    need_pyarrow()
    from pyarrow.fs import FileSystem, LocalFileSystem

    if uri is None:
        return LocalFileSystem(), ""
    try:
        system, root = FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise InvalidArgument(
            f"expected files that pyarrow.fs reaches, got {uri.partition('?')[0]!r}: {error}"
        ) from None
    return system, root.rstrip("/")


def open_source(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    id_column: str,
    vector_column: str,
    shards: int,
) -> ParquetSource:
    """Find the files and read their footers; they must agree.

    source: a file, a folder (all *.parquet below it), a pattern with * ? [ ], or a list of these:
    paths that every node reaches, or URIs of one file system that pyarrow.fs knows. shards: among
    how many a part will be divided. Errors: NotFound, InvalidArgument, CorruptStorage, Unavailable.
    """
    pa = need_pyarrow()
    wanted = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not wanted:
        raise InvalidArgument("expected Parquet files to load, got an empty list")
    parted = [_parted(one) for one in wanted]
    if len({uri for uri, _ in parted}) > 1:
        raise InvalidArgument("expected sources of one file system, got several")
    uri = parted[0][0]
    system, root = system_of(uri)
    infos = {}
    for _, path in parted:
        for info in _found(system, f"{root}/{path}" if root else path, pa):
            infos[info.path] = info
    files = [infos[path] for path in sorted(infos)]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, "soardb-footers") as pool:
        footers = list(pool.map(lambda info: _footer(system, info.path, pa), files))
    columns = [
        _columns(schema, info.path, id_column, vector_column, pa)
        for info, (_, schema) in zip(files, footers, strict=True)
    ]
    for info, found in zip(files, columns, strict=True):
        if found[0] != columns[0][0] or (
            None not in (found[1], columns[0][1]) and found[1] != columns[0][1]
        ):
            raise InvalidArgument(
                f"{info.path}: expected columns as in {files[0].path}, {_shown(columns[0])}; "
                f"got {_shown(found)}"
            )
    known = [found[1] for found in columns if found[1] is not None]
    d = known[0] if known else _first_length(system, files, footers, vector_column, pa)
    size = min(max(_PART_BYTES, shards * _SHARD_BYTES), _MOST_BYTES)
    part_rows = min(max(size // (4 * d), 1), MAX_BATCH)
    groups, part = [], 0
    for info, (counts, _) in zip(files, footers, strict=True):
        row = 0
        for number, rows in enumerate(counts):
            if rows:
                groups.append(RowGroup(info.path, number, rows, row, part))
            row, part = row + rows, part - (-rows // part_rows)
    if not groups:
        raise InvalidArgument(f"expected rows to load, the {len(files)} files have none")
    from soardb.exchange import about

    return ParquetSource(
        uri,
        tuple((info.path, info.size or 0, info.mtime_ns or 0) for info in files),
        tuple(groups),
        id_column,
        vector_column,
        columns[0][0],
        d,
        part_rows,
        about(footers[0][1]),
    )


def _parted(source: str | os.PathLike[str]) -> tuple[str | None, str]:
    """The URI of the file system, None for this machine's, and the path after its root.

    A '?' begins the options of a URI where a '=' follows it, else it is of a pattern.
    """
    text = os.fspath(source)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return None, str(Path(text).absolute())
    if scheme == "file":
        return None, rest
    before, _, options = rest.rpartition("?")
    if "=" not in options:
        before, options = rest, ""
    root, _, path = before.partition("/")
    return f"{scheme}://{root}" + (f"?{options}" if options else ""), path


def _found(system: Any, path: str, pa: Any) -> list[Any]:
    """Files of a path, a folder or a pattern. Errors: NotFound.

    Of a folder not those that writers hide while at work: names that begin with '.' or '_'.
    """
    from pyarrow.fs import FileSelector, FileType

    def below(folder: str) -> list[Any]:
        infos = system.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        return [info for info in infos if info.type == FileType.File]

    with _reading(path, pa):
        info = system.get_file_info(path)
        if info.type == FileType.File:
            files = [info]
        elif info.type == FileType.Directory:
            files = [
                one
                for one in below(path)
                if one.extension == "parquet" and not _HIDDEN.search(one.path[len(path) :])
            ]
        else:
            marks = [path.find(mark) for mark in "*?[" if mark in path]
            base = path[: min(marks, default=0)].rpartition("/")[0]
            files = (
                [one for one in below(base) if fnmatch.fnmatchcase(one.path, path)] if marks else []
            )
    if not files:
        raise NotFound(f"expected Parquet files at {path}, found none")
    return files


def _footer(system: Any, path: str, pa: Any) -> tuple[list[int], Any]:
    """Rows of each row group, and the schema."""
    import pyarrow.parquet as pq

    with _reading(path, pa), system.open_input_file(path) as opened:
        file = pq.ParquetFile(opened)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        return counts, file.schema_arrow


def _columns(
    schema: Any, path: str, id_column: str, vector_column: str, pa: Any
) -> tuple[str, int | None]:
    """Kind of the ids, and dimension where the type says it. Errors: InvalidArgument."""
    for name in (id_column, vector_column):
        if schema.names.count(name) != 1:
            raise InvalidArgument(
                f"{path}: expected one column {name!r}, got the columns {', '.join(schema.names)}; "
                "say which they are by id_column= and vector_column="
            )
    kind, vector = schema.field(id_column).type, schema.field(vector_column).type
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind)
    if not (is_text or types.is_integer(kind)):
        raise InvalidArgument(
            f"{path}: expected ids of integers or strings in {id_column!r}, got {kind}"
        )
    is_list = types.is_list(vector) or types.is_large_list(vector)
    if not (is_list or types.is_fixed_size_list(vector)) or not (
        types.is_floating(vector.value_type) or types.is_integer(vector.value_type)
    ):
        raise InvalidArgument(
            f"{path}: expected lists of numbers in {vector_column!r}, got {vector}"
        )
    return "str" if is_text else "int", None if is_list else int(vector.list_size)


def _shown(columns: tuple[str, int | None]) -> str:
    return f"{columns[0]} ids and vectors of {columns[1] or 'any'} numbers"


def _first_length(
    system: Any, files: list[Any], footers: list[Any], vector_column: str, pa: Any
) -> int:
    """How many numbers the first vector has."""
    import pyarrow.parquet as pq

    for info, (counts, _) in zip(files, footers, strict=True):
        for number, rows in enumerate(counts):
            if not rows:
                continue
            with _reading(info.path, pa), system.open_input_file(info.path) as opened:
                file = pq.ParquetFile(opened, buffer_size=_STREAM_BYTES)
                batch = next(file.iter_batches(1, row_groups=[number], columns=[vector_column]))
                vector = batch.column(0)[0].as_py()
            if not vector:
                raise InvalidArgument(
                    f"{info.path}, row group {number}, row 0 of it: expected a vector, got none"
                )
            return len(vector)
    raise InvalidArgument(f"expected rows to load, the {len(files)} files have none")


@contextmanager
def _reading(path: str, pa: Any) -> Iterator[None]:
    """Errors of files in our words, naming the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"expected a Parquet file at {path}: {error}") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorruptStorage(
            f"{path}: expected a sound Parquet file, cannot read it: {error}"
        ) from None
    except OSError as error:
        if isinstance(error, CorruptStorage | Unavailable):
            raise
        raise Unavailable(f"{path}: the file system failed: {error}") from error
