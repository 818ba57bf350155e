"""The declared fields of all rows, in memory, in the form in which filters test them.

    column.py, keywords.py -> [columns.py] -> evaluate.py

Row i stands at position i. Rows are appended and never change: an update is another row, a removal
is known elsewhere. The base, mapped from a file, is never copied; the tail grows behind it.

One writer may append while others read: they see the rows that were there when they began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from soardb.errors import CorruptStorage
from soardb.filters.column import Arrays, Column, Flags, Floats, Longs, Places, Texts
from soardb.filters.grown import Array
from soardb.filters.keywords import KeywordLists, Keywords
from soardb.kernels.layout import I64
from soardb.schema import FieldType, Schema

__all__ = ["Columns"]

_KINDS: dict[FieldType, type[Column]] = {
    "int": Longs,
    "datetime": Longs,
    "float": Floats,
    "bool": Flags,
    "keyword": Keywords,
    "keyword_list": KeywordLists,
    "geo": Places,
    "text": Texts,
}


class Columns:
    """The declared fields of n rows; `columns[name]` is one of them."""

    def __init__(self, schema: Schema) -> None:
        """No rows yet."""
        self.schema = schema
        self._n = 0
        self._columns = {name: _empty(kind) for name, kind in schema.fields.items()}

    @classmethod
    def of(
        cls, schema: Schema, parameters: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Columns:
        """Columns over the arrays that `arrays` gave, which are borrowed and never written to.

        CorruptStorage for another schema, missing arrays, wrong shapes or dtypes, offsets that fall
        and codes out of range. Costs a pass over codes, offsets and validities; no string is
        decoded.
        """
        n = parameters.get("n")
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise CorruptStorage(f"expected a number of rows in the columns, got {n!r}")
        if parameters.get("schema") != schema.to_json():
            raise CorruptStorage(
                f"expected columns of the schema {schema.to_json()}, "
                f"got {parameters.get('schema')}; rebuild them"
            )
        columns = cls(schema)
        for name, kind in schema.fields.items():
            own = _own_arrays(arrays, name, _KINDS[kind].parts)
            columns._columns[name] = _KINDS[kind].of(own, n, name)
        columns._n = n
        return columns

    def __len__(self) -> int:
        """n, the rows."""
        return self._n

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def append(self, values: Mapping[str, Sequence[Any]], n: int) -> None:
        """Add n rows: {name: n values} as `Schema.extract` gives them. Amortised O(n)."""
        assert set(values) == set(self._columns), "values of schema.extract"
        assert all(len(column) == n for column in values.values())
        for name, column in self._columns.items():
            column.append(values[name])
        self._n += n

    def arrays(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """(parameters, arrays): all that `of` needs, as JSON and as flat arrays.

        Nothing is copied where nothing was appended to the base.
        """
        stored: dict[str, Array] = {}
        for name, column in self._columns.items():
            stored |= {f"{name}:{part}": array for part, array in column.stored(None).items()}
        return {"n": self._n, "schema": self.schema.to_json()}, stored

    def take(self, positions: I64) -> Columns:
        """(m,) positions to m rows in that order, as the base of new columns."""
        at = np.asarray(positions, np.int64)
        taken = Columns(self.schema)
        for name, column in self._columns.items():
            taken._columns[name] = type(column).of(column.stored(at), len(at), name)
        taken._n = len(at)
        return taken

    def memory(self) -> int:
        """Bytes of all columns, inverted indexes and room that is reserved included."""
        return sum(column.nbytes for column in self._columns.values())


def _empty(kind: FieldType) -> Column:
    parts = {part: np.empty(0, dtype) for part, dtype in _KINDS[kind].parts.items()}
    for part in ("offsets", "ends"):
        if part in parts:
            parts[part] = np.zeros(1, np.int64)
    return _KINDS[kind].of(parts, 0, "")


def _own_arrays(arrays: Mapping[str, Array], name: str, parts: Mapping[str, str]) -> Arrays:
    """The arrays of one field, each there, flat and of its dtype."""
    own = {}
    for part, dtype in parts.items():
        array = arrays.get(f"{name}:{part}")
        if array is None or array.ndim != 1 or array.dtype != np.dtype(dtype):
            got = "none" if array is None else f"{array.dtype} of shape {array.shape}"
            raise CorruptStorage(
                f"expected a flat array {name + ':' + part!r} of {dtype}, got {got}; rebuild it"
            )
        own[part] = array
    return own
