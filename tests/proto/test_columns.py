"""Packed columns go out and come back; what does not fit is refused before an array is made.

    soardb_proto/columns.py -> [test_columns.py]

Lengths that a sender only announces are never believed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from soardb_proto import columns
from soardb_proto.v1 import types_pb2 as pb


@given(hnp.arrays(np.int64, st.integers(0, 20)))
def test_integer_ids_come_back(ids: np.ndarray) -> None:
    """Every int64, in order."""
    assert np.array_equal(columns.unpack_ids(columns.pack_ids(ids)), ids)


@given(st.lists(st.text(min_size=1, max_size=5).filter(lambda t: t.isprintable()), min_size=1))
def test_string_ids_come_back(ids: list[str]) -> None:
    """Every string that has a UTF-8 form."""
    assert columns.unpack_ids(columns.pack_ids(ids)) == ids


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16]),
        st.tuples(st.integers(0, 5), st.integers(1, 6)),
        elements=st.floats(-100, 100, width=16),
    )
)
def test_rows_come_back_in_their_type(rows: np.ndarray) -> None:
    """float16 stays float16, so half the bytes travel."""
    found = columns.unpack_matrix(columns.pack_matrix(rows))
    assert found.dtype == rows.dtype
    assert np.array_equal(found, rows)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (pb.Matrix(data=b"1234", dtype=pb.F32, dim=2, count=1), "expected 8 bytes"),
        (pb.Matrix(data=b"", dtype=pb.F32, dim=4096, count=2**32 - 1), "got 0"),
        (pb.Matrix(data=b"1234", dim=1, count=1), "dtype"),
        (pb.Matrix(data=b"", dtype=pb.F32, dim=0, count=7), "dim"),
    ],
)
def test_a_matrix_that_lies_is_refused(matrix: pb.Matrix, said: str) -> None:
    """Lengths are compared first: a message of 10 bytes cannot ask for 64 TiB."""
    with pytest.raises(ValueError, match=said):
        columns.unpack_matrix(matrix)


def test_bytes_that_are_no_ids_are_refused() -> None:
    """Nine bytes are no int64s."""
    with pytest.raises(ValueError, match="8 bytes each"):
        columns.unpack_ids(pb.Ids(i64=b"123456789"))
