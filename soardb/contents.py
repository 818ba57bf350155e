"""What a collection holds in memory: index, table and columns, up to one sequence number.

    collection.py, writer.py, compaction.py -> [contents.py] -> generation.py, storage/rows.py

Opened from a generation and brought up to date from the row store: rows with greater numbers are
appended, rows gone since are struck. Recovery after a crash, the start of a new generation and a
reader that follows another process are this one path.

Not for concurrent use: the owner lets reads run together and changes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soardb.curve import Curves
from soardb.errors import CorruptStorage
from soardb.filter_curves import FilterCurves
from soardb.filters.allowed import Remembered
from soardb.filters.columns import Columns
from soardb.generation import Generation, open_generation
from soardb.index.live import Coded, LiveIndex
from soardb.index.plan import BuildParams
from soardb.kernels.layout import F32, I64, Metric
from soardb.schema import PointId, Schema, decode_payload
from soardb.storage.rows import RowStore
from soardb.table import Table

__all__ = ["Contents"]


class Contents:
    """Positions 0..n-1 of one collection; see table.py for what a position is."""

    def __init__(
        self,
        schema: Schema,
        d: int,
        metric: Metric,
        params: BuildParams,
        id_kind: str | None,
        generation: Generation | None = None,
    ) -> None:
        self.schema = schema
        self.generation = generation
        self.seq = 0
        self.curves: Curves | None = None  # what recall costs, once it was measured
        if generation is not None:
            self.index, self.table = generation.index, generation.table
            self.columns, self.seq = generation.columns, generation.seq
            if self.table.kind != id_kind and len(self.index):
                raise CorruptStorage("a generation holds ids of another kind than its collection")
            self.table.kind = id_kind
        else:
            self.index = LiveIndex(d, metric, params)
            self.table, self.columns = Table(id_kind), Columns(schema)
        self.version = 0  # counts changes, for what is remembered between them
        self.filtered = Remembered()
        self.filter_curves = FilterCurves()
        self._verify_lock = threading.Lock()
        self._is_verified = generation is None

    @classmethod
    def open(
        cls,
        path: Path | None,
        schema: Schema,
        d: int,
        metric: Metric,
        params: BuildParams,
        id_kind: str | None,
    ) -> Contents:
        """Contents of the generation at path, or empty ones. Errors: NotFound, CorruptStorage."""
        generation = None if path is None else open_generation(path, schema, d, metric)
        return cls(schema, d, metric, params, id_kind, generation)

    def verify(self) -> None:
        """Check the generation's checksums, once. Errors: CorruptStorage."""
        if self._is_verified:
            return
        with self._verify_lock:
            if not self._is_verified and self.generation is not None:
                self.generation.verify()
            self._is_verified = True

    # ------------------------------------------------------------------ changes

    def append(
        self,
        rows: I64,
        ids: Sequence[PointId],
        coded: Coded,
        values: dict[str, list[Any]],
    ) -> None:
        """Add (n,) rows with their ids, coded vectors and typed field values."""
        self.version += 1
        self.index.append(coded)
        self.columns.append(values, len(rows))
        self.table.append(rows, ids)

    def strike(self, rows: I64) -> None:
        """Strike rows; those that are not here, or are struck, do not count."""
        if not len(rows):
            return
        self.version += 1
        positions = self.table.positions_of(rows)
        self.table.strike(positions[positions >= 0])

    def values_of(self, payloads: Sequence[bytes]) -> dict[str, list[Any]]:
        """Typed field values of stored payloads."""
        if not self.schema.fields:
            return {}
        return self.schema.extract([decode_payload(payload) for payload in payloads])

    def catch_up(self, store: RowStore, upto: int) -> int:
        """Take over what the row store has between `seq` and upto; returns how many rows came.

        Errors: CorruptStorage for a damaged row.
        """
        if upto <= self.seq:
            return 0
        came = 0
        gone = store.gone_since(self.seq)
        for batch in store.batches(self.seq, upto):
            coded = self.index.code(batch.vectors)
            self.append(batch.rows, batch.ids, coded, self.values_of(batch.payloads))
            came += len(batch.rows)
        self.strike(gone)
        self.seq = upto
        return came

    # ------------------------------------------------------------------ questions

    @property
    def changed(self) -> int:
        """Points that came or went since the curves were measured; 0 where there are none."""
        curves, table = self.curves, self.table
        if curves is None:
            return 0
        came = table.n - curves.n
        return came + (table.n - table.live) - (curves.n - curves.live)

    def vectors(self, positions: I64) -> F32:
        """(m, d) float32 vectors as the metric compares them."""
        return self.index.vectors(positions)

    def memory(self) -> dict[str, int]:
        """Bytes by part."""
        return (
            self.index.memory()
            | self.table.memory()
            | {
                "columns": self.columns.memory(),
                "filters": self.filtered.nbytes,
            }
        )
