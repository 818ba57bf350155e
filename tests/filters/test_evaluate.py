"""Evaluation by claim: unknown, exact numbers, order of work, and what a Matching promises.

    soardb/filters/evaluate.py, leaves.py, elementwise.py, matched.py -> [test_evaluate.py]

That every operator finds the right rows is in test_agreement.py. Here are the cases that a reader
should be able to look up, and the promises about cost, counted in rows rather than in seconds.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

import numpy as np
import pytest

from soardb.filters import Columns, Expr, F, Matching, as_filter, matching
from soardb.filters.column import Flags, Floats, Longs
from soardb.filters.evaluate import no_text_match
from soardb.filters.grown import Grown
from soardb.kernels.layout import I64
from soardb.schema import Schema


def columns_of(kind: str, values: list[Any]) -> Columns:
    """One field, f, of the given values."""
    schema = Schema.of({"f": kind})
    columns = Columns(schema)
    columns.append(schema.extract([{"f": value} for value in values]), len(values))
    return columns


def found(expr: Expr, columns: Columns) -> list[int]:
    checked = as_filter(expr, columns.schema)
    assert checked is not None
    rows: list[int] = matching(checked, columns, no_text_match).positions().tolist()
    return rows


class TestUnknown:
    def test_neither_a_comparison_nor_its_negation_matches_null(self) -> None:
        """As in SQL, and unlike Python: the row is in neither half."""
        columns = columns_of("int", [1, 2, None])
        assert found(F("f") == 1, columns) == [0]
        assert found(~(F("f") == 1), columns) == [1]
        assert found(F("f") != 1, columns) == [1]
        assert found((F("f") == 1) | (F("f") != 1), columns) == [0, 1]
        assert found(F("f").is_null(), columns) == [2]
        assert found(F("f").not_null(), columns) == [0, 1]

    def test_unknown_or_true_is_true(self) -> None:
        """And unknown and false is false, so its negation matches."""
        columns = columns_of("int", [None])
        assert found((F("f") == 1) | F("f").is_null(), columns) == [0]
        assert found(~((F("f") == 1) & F("f").not_null()), columns) == [0]
        assert found(~((F("f") == 1) | F("f").is_null()), columns) == []

    def test_none_of_no_values(self) -> None:
        """An empty list matches nothing; its negation all but null, of which nothing is known."""
        columns = columns_of("keyword", ["a", None])
        assert found(F("f").isin([]), columns) == []
        assert found(~F("f").isin([]), columns) == [0]

    def test_an_empty_list_is_not_null(self) -> None:
        """It holds all of no keywords, and not a single one."""
        columns = columns_of("keyword_list", [[], None, ["a"]])
        assert found(F("f").is_null(), columns) == [1]
        assert found(~F("f").contains("a"), columns) == [0]
        assert found(F("f").contains_all([]), columns) == [0, 2]
        assert found(F("f").contains_any([]), columns) == []


BIG = 2**53


class TestExactNumbers:
    @pytest.mark.parametrize(
        ("expr", "rows"),
        [
            (F("f") < 10.5, [0, 1]),
            (F("f") <= 10.0, [0, 1]),
            (F("f") == 10.5, []),
            (F("f") != 10.5, [0, 1, 2, 3, 4]),
            (F("f") > 10.5, [2, 3, 4]),
            (F("f") == BIG + 1, [3]),
            (F("f") == float(BIG), [2]),
            (F("f") > float(BIG), [3, 4]),
            (F("f").isin([float(BIG), 10.5, 1e300]), [2]),
            (F("f") < 1e19, [0, 1, 2, 3, 4]),
            (F("f") >= 2.0**63, []),
            (F("f") > -(2.0**63), [1, 2, 3, 4]),
            (F("f") >= -(2.0**63), [0, 1, 2, 3, 4]),
        ],
        ids=str,
    )
    def test_int_fields_compare_with_floats_as_real_numbers(
        self, expr: Expr, rows: list[int]
    ) -> None:
        """Above 2**53 a float64 cannot tell neighbours apart; ids live there."""
        columns = columns_of("int", [-(2**63), 10, BIG, BIG + 1, 2**63 - 1])
        assert found(expr, columns) == rows

    @pytest.mark.parametrize(
        ("expr", "rows"),
        [
            (F("f") == BIG + 1, []),
            (F("f") != BIG + 1, [0, 1, 2]),
            (F("f") < BIG + 1, [0, 1]),
            (F("f") <= BIG + 1, [0, 1]),
            (F("f") > BIG + 1, [2]),
            (F("f") >= BIG + 3, [2]),
            (F("f") < BIG + 3, [0, 1]),
            (F("f").isin([BIG + 1, BIG]), [1]),
            (F("f") == 0, [0]),
        ],
        ids=str,
    )
    def test_float_fields_compare_with_ints_as_real_numbers(
        self, expr: Expr, rows: list[int]
    ) -> None:
        """Rounding the int first would call unequal numbers equal."""
        columns = columns_of("float", [-0.0, float(BIG), float(BIG + 4)])
        assert found(expr, columns) == rows

    def test_many_ints_are_found_over_the_whole_range(self) -> None:
        """The table for close values must not wrap around at the ends of int64."""
        values = [-(2**63), -1, 0, 5, 2**63 - 6, 2**63 - 1]
        columns = columns_of("int", values)
        for wanted in ([2**63 - i for i in range(1, 9)], [i - 2**63 for i in range(9)],
                       list(range(-4, 5)), [*values, 1, 2]):  # fmt: skip
            rows = [row for row, value in enumerate(values) if value in wanted]
            assert found(F("f").isin(wanted), columns) == rows


class TestPlaces:
    def test_a_radius_is_measured_on_the_sphere(self) -> None:
        """Berlin to Paris is 878 km, and Fiji lies on both sides of the 180th meridian."""
        columns = columns_of("geo", [(52.52, 13.405), (48.8566, 2.3522), (-17, 179.9), None])
        assert found(F("f").within_radius(52.52, 13.405, 0), columns) == [0]
        assert found(F("f").within_radius(52.52, 13.405, 877_000), columns) == [0]
        assert found(F("f").within_radius(52.52, 13.405, 879_000), columns) == [0, 1]
        assert found(F("f").within_radius(-17, -179.9, 22_000), columns) == [2]
        assert found(F("f").within_radius(0, 0, 20_100_000), columns) == [0, 1, 2]
        assert found(~F("f").within_radius(0, 0, 1), columns) == [0, 1, 2]

    def test_a_pole_is_near_whatever_the_longitude(self) -> None:
        """There a degree of longitude is no distance."""
        columns = columns_of("geo", [(90, 0), (89.99, 90), (89, 180)])
        assert found(F("f").within_radius(90, -120, 1200), columns) == [0, 1]

    def test_a_box_may_cross_the_180th_meridian(self) -> None:
        """Then its left edge is the greater number."""
        columns = columns_of("geo", [(0, 175), (0, -175), (0, 0), (0, 180), (11, 180), None])
        assert found(F("f").within_box(10, 170, -10, -170), columns) == [0, 1, 3]
        assert found(F("f").within_box(10, -170, -10, 170), columns) == [2]
        assert found(F("f").within_box(0, 0, 0, 0), columns) == [2]


def large(n: int = 20_000) -> Columns:
    """A rare keyword in one row of 100, a frequent one in the others; all of them base."""
    schema = Schema.of({"tag": "keyword", "tags": "keyword_list", "x": "float", "n": "int"})
    columns = Columns(schema)
    rare = [row % 100 == 0 for row in range(n)]
    columns.append(
        {
            "tag": ["rare" if is_rare else "frequent" for is_rare in rare],
            "tags": [["rare"] if is_rare else ["frequent"] for is_rare in rare],
            "x": [float(row) for row in range(n)],
            "n": list(range(n)),
        },
        n,
    )
    return Columns.of(schema, *columns.arrays())


class Touched:
    """Counts the elements that filters read from each column, by watching Grown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        parts, at = Grown.parts, Grown.at

        def watched_parts(grown: Grown, n: int) -> Any:
            self.count += n
            return parts(grown, n)

        def watched_at(grown: Grown, positions: I64) -> Any:
            self.count += len(positions)
            return at(grown, positions)

        monkeypatch.setattr(Grown, "parts", watched_parts)
        monkeypatch.setattr(Grown, "at", watched_at)


class TestCost:
    @pytest.mark.parametrize(
        "expr",
        [
            (F("x") < 1000) & (F("tag") == "rare"),
            (F("n") < 1000) & F("tags").contains("rare"),
            (F("x") < 1000) & (F("n").isin(list(range(0, 2000, 7)))) & F("tag").startswith("ra"),
            ((F("x") < 1000) | ~(F("n") < 900)) & (F("tag") == "rare"),
        ],
        ids=str,
    )
    def test_a_rare_keyword_costs_its_matches(
        self, expr: Expr, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wherever it stands in the filter, the other conditions see its 200 rows, not 20,000."""
        columns = large()
        expected = found(expr, columns)
        assert expected
        touched = Touched(monkeypatch)
        assert found(expr, columns) == expected
        # The keyword itself asks for its codes as a whole, to test the tail, which is empty.
        assert touched.count - 20_000 <= 4 * 200

    def test_a_rare_keyword_is_found_in_the_tail_too(self) -> None:
        """Rows that came after the base are in no inverted index."""
        columns = large()
        more: dict[str, Any] = {"tag": ["rare", "new"], "tags": [["rare"], ["new"]]}
        columns.append({**more, "x": [0.0, 0.0], "n": [0, 0]}, 2)
        rows = [*range(0, 20_000, 100), 20_000]
        assert found(F("tag") == "rare", columns) == rows
        assert found(F("tags").contains("rare"), columns) == rows
        assert found(F("tags").contains_any(["rare", "new"]), columns) == [*rows, 20_001]
        assert found(F("tag").isin(["new"]), columns) == [20_001]
        assert found(F("tags").contains_all(["rare", "new"]), columns) == []

    def test_few_rows_are_positions_and_many_a_mask(self) -> None:
        """The plan of a search depends on the count; neither form costs more than it must."""
        columns = large()
        schema = columns.schema
        few = matching(as_filter("tag = 'rare'", schema), columns, no_text_match)  # type: ignore[arg-type]
        many = matching(as_filter("tag = 'frequent'", schema), columns, no_text_match)  # type: ignore[arg-type]
        assert few.is_sparse
        assert not many.is_sparse
        assert (few.count, many.count) == (200, 19_800)

    def test_candidates_bound_the_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sampling a filter must cost the sample."""
        columns = large()
        candidates = np.arange(0, 20_000, 200)
        expr = as_filter("x >= 100 AND NOT (tag = 'frequent' OR n > 1000)", columns.schema)
        assert expr is not None
        touched = Touched(monkeypatch)
        rows = matching(expr, columns, no_text_match, candidates)
        assert rows.positions().tolist() == [200, 400, 600, 800, 1000]
        assert touched.count <= 4 * len(candidates)


class TestReadersAndAWriter:
    def test_a_filter_sees_whole_rows_while_others_are_added(self) -> None:
        """No lock is held: a row is found by all of its fields or not yet, and none is lost."""
        columns = large(5_000)
        expr = as_filter(
            "tag != 'rare' AND contains(tags, 'frequent') AND x >= 0 AND n IS NOT NULL OR n < -1",
            columns.schema,
        )
        assert expr is not None
        expected = [row for row in range(5_000) if row % 100]
        added = threading.Thread(target=add_frequent_rows, args=(columns, 300))
        added.start()
        while added.is_alive():
            before = len(columns)
            found_rows = matching(expr, columns, no_text_match).positions().tolist()
            assert len(found_rows) >= len(expected) + before - 5_000
            assert found_rows[: len(expected)] == expected
            assert found_rows[len(expected) :] == list(
                range(5_000, 5_000 + len(found_rows) - len(expected))
            )
        added.join()
        assert len(columns) == 5_000 + 300 * 20


def add_frequent_rows(columns: Columns, batches: int) -> None:
    """Twenty rows a batch, each with keywords that no row had before."""
    for batch in range(batches):
        rows = range(batch * 20, batch * 20 + 20)
        values: dict[str, Any] = {
            "tag": [f"t{row}" for row in rows],
            "tags": [["frequent", f"l{row}"] for row in rows],
            "x": [1.0] * 20,
            "n": list(rows),
        }
        columns.append(values, 20)


class TestText:
    def columns(self) -> Columns:
        return columns_of("text", ["a", None, "b", "a b"])

    def test_words_are_searched_once_and_elsewhere(self) -> None:
        """The callback gets field, words and mode; null is unknown here too."""
        calls = []

        def search(field: str, words: str, mode: Literal["all", "any"]) -> I64:
            calls.append((field, words, mode))
            return np.array([0, 3])

        columns = self.columns()
        for text, rows in [("matches(f, 'a')", [0, 3]), ("NOT matches_any(f, 'a')", [2])]:
            expr = as_filter(text, columns.schema)
            assert expr is not None
            assert matching(expr, columns, search).positions().tolist() == rows
            kept = matching(expr, columns, search, np.array([1, 2, 3])).positions().tolist()
            assert kept == [row for row in rows if row != 0]
        assert calls == [("f", "a", "all")] * 2 + [("f", "a", "any")] * 2

    def test_rows_that_came_since_are_not_found(self) -> None:
        """The full text may be ahead of the columns; a position without a row must not come out."""
        expr = as_filter("matches(f, 'a') OR f IS NULL", self.columns().schema)
        assert expr is not None
        rows = matching(expr, self.columns(), lambda *_: np.array([0, 3, 4, 5]))
        assert rows.positions().tolist() == [0, 1, 3]

    def test_without_text_fields_nobody_searches(self) -> None:
        """The stand-in says so, if it should ever be called."""
        with pytest.raises(AssertionError, match="where no field is text"):
            no_text_match("f", "a", "all")


class TestMatching:
    @pytest.mark.parametrize(
        "rows",
        [Matching(np.array([1, 3])), Matching(mask=np.array([False, True, False, True]))],
        ids=["positions", "mask"],
    )
    def test_both_forms_say_the_same(self, rows: Matching) -> None:
        """A mask over more rows than there were leaves the later ones out."""
        assert rows.count == 2
        assert rows.positions().tolist() == [1, 3]
        assert rows.mask(4).tolist() == [False, True, False, True]
        assert rows.mask(6).tolist() == [False, True, False, True, False, False]
        assert "count=2" in repr(rows)

    def test_no_rows_match_nothing(self) -> None:
        """Every operator on an empty collection, and every one on a collection of nulls."""
        kinds: list[tuple[str, Any]] = [
            ("int", 1),
            ("float", 1.0),
            ("bool", True),
            ("keyword", "a"),
        ]
        for kind, value in kinds:
            for values in ([], [None, None]):
                columns = columns_of(kind, values)
                for expr in (F("f") == value, ~(F("f") == value), F("f").isin([value])):
                    assert found(expr, columns) == []
                assert found(F("f").is_null(), columns) == list(range(len(values)))

    def test_an_answer_shares_nothing_with_the_columns(self) -> None:
        """Its mask may be written to; the rows must not change with it."""
        for kind, value in [("int", 1), ("float", 1.0), ("bool", True)]:
            columns = columns_of(kind, [value, value])
            column = columns["f"]
            assert isinstance(column, Longs | Floats | Flags)
            expr = as_filter(F("f").not_null(), columns.schema)
            assert expr is not None
            matching(expr, columns, no_text_match).mask(2)[:] = False
            assert found(F("f").not_null(), columns) == [0, 1]
