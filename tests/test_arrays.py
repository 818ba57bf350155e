"""The gate: what is let in, as what, and what each refusal says.

    soardb/arrays.py -> [test_arrays.py]

tests/index/test_contract.py sends the same kinds of bad input through whole indexes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from soardb import InvalidArgument
from soardb.arrays import MAX_DIM, MIN_DIM, as_dim, as_ids, as_int, as_queries, as_vectors
from soardb.metrics import METRICS, Metric


class TestInt:
    @pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
    def test_integers_become_int(self, value: object) -> None:
        """A NumPy integer would not go into JSON."""
        assert type(as_int(value, "k", 1, 9)) is int

    @pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, [3], np.array([3]), 2 + 0j])
    def test_anything_else_is_refused(self, value: object) -> None:
        """3.0 may be a rounding of something else; True is a mistake."""
        with pytest.raises(InvalidArgument, match="expected k to be an integer, got"):
            as_int(value, "k", 1, 9)

    @pytest.mark.parametrize("value", [0, 10, -1, 10**400])
    def test_the_range_is_named(self, value: int) -> None:
        """What was expected, what came, what to do."""
        with pytest.raises(InvalidArgument, match=r"expected k within 1\.\.9, got .*; add more"):
            as_int(value, "k", 1, 9, "add more")
        with pytest.raises(InvalidArgument, match="expected k at least 11, got"):
            as_int(value, "k", 11, 2**40) if value < 11 else as_int(-1, "k", 11, 2**40)

    def test_too_large_a_value_is_told_what_is_the_largest(self) -> None:
        """A range without an end in practice has one all the same."""
        with pytest.raises(InvalidArgument, match=r"within 1..2147483648, got 1099511627776"):
            as_int(2**40, "nprobe", 1, 2**31)

    def test_dimensions(self) -> None:
        """Both ends belong to the range."""
        assert as_dim(MIN_DIM) == 2
        assert as_dim(np.int32(MAX_DIM)) == 4096
        for d in (1, 4097, 8.0):
            with pytest.raises(InvalidArgument, match="expected d"):
                as_dim(d)


class TestVectors:
    def test_float32_rows_are_taken_without_a_copy(self) -> None:
        """The usual case costs one pass and no memory."""
        rows = np.ones((5, 3), np.float32)
        assert as_vectors(rows, 3, "dot") is rows or np.shares_memory(
            as_vectors(rows, 3, "dot"), rows
        )

    @pytest.mark.parametrize(
        "rows",
        [
            np.arange(12.0).reshape(4, 3) + 1,
            np.arange(12, dtype=np.int64).reshape(4, 3) + 1,
            np.arange(12, dtype=np.uint8).reshape(4, 3) + 1,
            np.arange(12, dtype=np.float16).reshape(4, 3) + 1,
            (np.arange(12, dtype=">f4") + 1).reshape(4, 3),
            np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3) + 1),
            (np.arange(24, dtype=np.float32) // 2 + 1).reshape(4, 6)[:, ::2],
            [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10.0, 11, 12]],
        ],
        ids=["f8", "i8", "u1", "f2", "big-endian", "fortran", "strided", "list"],
    )
    def test_real_numbers_of_any_layout_become_float32(self, rows: np.ndarray) -> None:
        """One dtype, one layout behind the gate."""
        out = as_vectors(rows, 3, "cosine")
        assert out.dtype == np.float32
        assert out.flags.c_contiguous
        assert np.array_equal(out, np.arange(12, dtype=np.float32).reshape(4, 3) + 1)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (np.ones((2, 4)), r"expected vectors of shape \(n, 3\), got \(2, 4\)$"),
            (np.ones(3), r"got \(3,\); for one vector pass vectors\[None, :\]"),
            (np.ones(4), r"got \(4,\)$"),
            (np.ones((2, 3, 1)), r"got \(2, 3, 1\)"),
            (1.0, r"got \(\)"),
            (np.ones((2, 3), bool), "real number type .* got bool"),
            (np.ones((2, 3), complex), "got complex128"),
            (np.full((2, 3), None), "got object"),
            ([["1", "2", "3"]], "got <U1"),
            (np.zeros((2, 3), "M8[s]"), "got datetime64"),
            ([[1, 2, 3], [1]], r"expected vectors as one \(n, 3\) array"),
            ([[10**400, 1, 1]], "got object"),
        ],
    )
    def test_other_shapes_and_types_are_refused(self, rows: object, message: str) -> None:
        """Each with what came."""
        with pytest.raises(InvalidArgument, match=message):
            as_vectors(rows, 3, "dot")  # type: ignore[arg-type]

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        ("value", "what"),
        [
            (np.nan, "NaN or infinity"),
            (-np.inf, "NaN or inf"),
            (1e39, "NaN or inf"),
            (3e38, "large"),
        ],
    )
    def test_what_float32_cannot_hold_is_refused_with_its_row(
        self, metric: Metric, value: float, what: str
    ) -> None:
        """One bad value among many rows; it is named, and no warning is printed."""
        rows = np.ones((70_000, 2))
        rows[69_001, 1] = value
        with pytest.raises(InvalidArgument, match=rf"{what}.* in row 69001"):
            as_vectors(rows, 2, metric)

    def test_a_zero_vector_has_no_direction(self) -> None:
        """Refused under cosine alone; -0.0 is zero too."""
        rows = np.ones((3, 2), np.float32)
        rows[1] = [0.0, -0.0]
        with pytest.raises(InvalidArgument, match="zero vector in row 1"):
            as_vectors(rows, 2, "cosine")
        assert np.array_equal(as_vectors(rows, 2, "dot"), rows)
        assert np.array_equal(as_vectors(rows, 2, "l2"), rows)

    @pytest.mark.parametrize("size", [1e-23, 1e-30, 1e-45])
    def test_a_tiny_vector_has_one(self, size: float) -> None:
        """Its square is zero in float32, itself it is not."""
        rows = np.array([[size, 0], [0, -size]], np.float32)
        assert np.array_equal(as_vectors(rows, 2, "cosine"), rows)

    def test_no_rows(self) -> None:
        """An empty batch is a batch, whatever its type."""
        for empty in (np.empty((0, 3)), np.empty((0, 3), np.int8)):
            assert as_vectors(empty, 3, "cosine").shape == (0, 3)

    def test_masked_values_are_refused(self) -> None:
        """What lies under a mask is not data."""
        mask = [[False, False, True], [False] * 3]
        rows = np.ma.masked_array(np.ones((2, 3), np.float32), mask=mask)
        with pytest.raises(InvalidArgument, match="without masked values"):
            as_vectors(rows, 3, "l2")
        assert as_vectors(np.ma.masked_array(np.ones((2, 3))), 3, "l2").shape == (2, 3)

    def test_the_name_of_the_argument_is_told(self) -> None:
        """A caller with two arrays must know which one is meant."""
        with pytest.raises(InvalidArgument, match="expected samples of shape"):
            as_vectors(np.ones((2, 4)), 3, "dot", "samples")


class TestQueries:
    def test_the_usual_query_passes_untouched(self) -> None:
        """The same object: nothing is done for each query in Python."""
        queries = np.ones((1, 3), np.float32)
        assert as_queries(queries, 3) is queries

    @pytest.mark.parametrize(
        "queries",
        [
            [[1, 1, 1]],
            np.ones((1, 3)),
            np.ones((1, 3), ">f4"),
            np.ones((1, 6), np.float32)[:, ::2],
            np.asfortranarray(np.ones((2, 3), np.float32))[:1],
        ],
    )
    def test_the_unusual_one_is_converted(self, queries: np.ndarray) -> None:
        """Same rules as for vectors."""
        out = as_queries(queries, 3)
        assert type(out) is np.ndarray
        assert out.dtype == np.float32
        assert out.flags.c_contiguous
        assert np.array_equal(out, np.ones((1, 3)))

    def test_a_memory_map_is_a_query(self, tmp_path: object) -> None:
        """Subclasses of ndarray come in as plain arrays."""
        path = f"{tmp_path}/queries"
        mapped = np.memmap(path, np.float32, "w+", shape=(2, 3))
        assert type(as_queries(mapped, 3)) is np.ndarray

    def test_one_query_wants_two_axes(self) -> None:
        """The message says how."""
        with pytest.raises(InvalidArgument, match=r"for one query pass queries\[None, :\]"):
            as_queries(np.ones(3), 3)


class TestIds:
    @pytest.mark.parametrize(
        "ids", [[3, 0, 9], (3, 0, 9), np.array([3, 0, 9], np.uint8), np.array([3, 0, 9], ">i8")]
    )
    def test_integers_become_int64(self, ids: list[int]) -> None:
        """The dtype of every id behind the gate."""
        out = as_ids(ids, 3)
        assert out.dtype == np.int64
        assert out.dtype.isnative
        assert out.tolist() == [3, 0, 9]

    def test_the_highest_id(self) -> None:
        """All of the non-negative int64, from either integer type."""
        top = 2**63 - 1
        assert as_ids(np.array([top], np.uint64)).tolist() == [top]
        assert as_ids([top]).tolist() == [top]

    def test_no_ids(self) -> None:
        """An empty list has no dtype of its own."""
        assert as_ids([]).dtype == np.int64
        assert as_ids(np.empty(0), 0).shape == (0,)

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([1, 2], r"expected ids of shape \(3,\), got \(2,\)"),
            ([[1, 2, 3]], r"got \(1, 3\)"),
            (7, r"got \(\)"),
            ({1, 2, 3}, r"got \(\)"),
            ([1.0, 2.0, 3.0], "expected integer ids, got float64"),
            ([True, False, True], "got bool"),
            (["a", "b", "c"], "integer ids"),
            ([1, 2, None], "got object"),
            ([1, 2, 2**70], "got object"),
            (np.array([1, 2**63, 2], np.uint64), r"below 2\*\*63"),
            ([5, -1, 2], r"0 or more \(-1 stands for a missing result\), got -1 at 1"),
            ([[1], [2, 3], [4]], r"expected ids as one \(n,\) array"),
        ],
    )
    def test_anything_else_is_refused(self, ids: object, message: str) -> None:
        """One clear error of ours, never NumPy's."""
        with pytest.raises(InvalidArgument, match=message):
            as_ids(ids, 3)  # type: ignore[arg-type]


class TestAliasing:
    @pytest.mark.parametrize(
        "gate", [lambda x: as_vectors(x, 4, "cosine"), lambda x: as_queries(x, 4)]
    )
    def test_the_input_is_never_written(self, gate: Callable[[np.ndarray], np.ndarray]) -> None:
        """Read-only arrays are welcome."""
        rows = np.arange(8, dtype=np.float32).reshape(2, 4)
        rows.flags.writeable = False
        assert np.array_equal(gate(rows), rows)
