"""The tree and its spellings in Python and JSON: what is built, and what is refused with advice.

    soardb/filters/expr.py, json_form.py -> [test_expr.py]

Most of the refusals stand for a mistake that Python would let pass in silence: `and` for &, a
chained comparison, == None. Whether the spellings say the same is in test_agreement.py.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from soardb.errors import InvalidArgument
from soardb.filters import MAX_DEPTH, MAX_IN_VALUES, MAX_NODES, Expr, F, from_json, to_json
from soardb.filters.expr import (
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    In,
    IsNull,
    Matches,
    Micros,
    Not,
    Or,
    StartsWith,
    WithinBox,
    WithinRadius,
)

A, B, C = F("a") == 1, F("b") == 2, F("c") == 3

BUILT: list[tuple[Expr, Expr, Any]] = [
    (F("p") == 1, Compare("p", "eq", 1), {"field": "p", "op": "eq", "value": 1}),
    (F("p") != "x", Compare("p", "ne", "x"), {"field": "p", "op": "ne", "value": "x"}),
    (F("p") < 1.5, Compare("p", "lt", 1.5), {"field": "p", "op": "lt", "value": 1.5}),
    (F("p") <= 1, Compare("p", "le", 1), {"field": "p", "op": "le", "value": 1}),
    (F("p") > 1, Compare("p", "gt", 1), {"field": "p", "op": "gt", "value": 1}),
    (F("p") >= 1, Compare("p", "ge", 1), {"field": "p", "op": "ge", "value": 1}),
    (F("p").isin([1, 2]), In("p", (1, 2)), {"field": "p", "op": "in", "value": [1, 2]}),
    (F("p").isin([]), In("p", ()), {"field": "p", "op": "in", "value": []}),
    (F("p").is_null(), IsNull("p"), {"field": "p", "op": "is_null"}),
    (F("p").not_null(), Not(IsNull("p")), {"field": "p", "op": "not_null"}),
    (F("p").startswith("x"), StartsWith("p", "x"),
     {"field": "p", "op": "startswith", "value": "x"}),
    (F("p").contains("x"), ContainsAny("p", ("x",)),
     {"field": "p", "op": "contains", "value": "x"}),
    (F("p").contains_any(["x", "y"]), ContainsAny("p", ("x", "y")),
     {"field": "p", "op": "contains_any", "value": ["x", "y"]}),
    (F("p").contains_all(["x"]), ContainsAll("p", ("x",)),
     {"field": "p", "op": "contains_all", "value": ["x"]}),
    (F("p").matches("x y"), Matches("p", "x y", "all"),
     {"field": "p", "op": "matches", "value": "x y"}),
    (F("p").matches_any("x y"), Matches("p", "x y", "any"),
     {"field": "p", "op": "matches_any", "value": "x y"}),
    (F("p").within_radius(1, 2, 3), WithinRadius("p", 1.0, 2.0, 3.0),
     {"field": "p", "op": "within_radius", "value": {"lat": 1.0, "lon": 2.0, "metres": 3.0}}),
    (F("p").within_box(4, 170, 2, -170), WithinBox("p", 4.0, 170.0, 2.0, -170.0),
     {"field": "p", "op": "within_box",
      "value": {"top": 4.0, "left": 170.0, "bottom": 2.0, "right": -170.0}}),
    (A & B, And((A, B)), {"and": [to_json(A), to_json(B)]}),
    (A | B, Or((A, B)), {"or": [to_json(A), to_json(B)]}),
    (~A, Not(A), {"not": to_json(A)}),
    (~(A & ~B) | C, Or((Not(And((A, Not(B)))), C)),
     {"or": [{"not": {"and": [to_json(A), {"not": to_json(B)}]}}, to_json(C)]}),
]  # fmt: skip


class TestBuilding:
    @pytest.mark.parametrize(("built", "tree", "json_form"), BUILT)
    def test_each_operator_has_one_tree_and_one_json(
        self, built: Expr, tree: Expr, json_form: Any
    ) -> None:
        """The grammar of the wire, written out; a change here breaks clients."""
        assert built == tree
        assert hash(built) == hash(tree)
        assert to_json(tree) == json_form
        assert from_json(json_form) == tree

    def test_between_is_two_comparisons(self) -> None:
        """Both ends belong to it, in JSON too."""
        tree = (F("p") >= 1) & (F("p") <= 5)
        assert F("p").between(1, 5) == tree
        assert from_json({"field": "p", "op": "between", "value": [1, 5]}) == tree

    def test_chains_of_one_kind_are_one_node(self) -> None:
        """So a & b & c has the depth of a & b, however it is bracketed."""
        assert A & B & C == A & (B & C) == And((A, B, C))
        assert Or((A, B, C)) == A | (B | C)
        assert Or((And((A, B)), C)) == (A & B) | C
        assert from_json({"and": [{"and": [to_json(A), to_json(B)]}, to_json(C)]}) == A & B & C
        assert from_json({"or": [to_json(A)]}) == A

    def test_twice_not_is_once(self) -> None:
        """Unknown stays unknown under not, so nothing is lost."""
        assert ~~A == A
        assert from_json({"not": {"not": to_json(A)}}) == A

    def test_numpy_and_dates_are_values(self) -> None:
        """What comes out of an array may be compared with."""
        assert (F("p") < np.float32(0.5)) == Compare("p", "lt", 0.5)
        assert F("p").isin(np.arange(3)) == In("p", (0, 1, 2))
        assert type(F("p").isin(np.arange(3)).values[0]) is int  # type: ignore[attr-defined]
        day = date(2024, 1, 2)
        assert to_json(F("p") == day)["value"] == "2024-01-02T00:00:00Z"
        assert (
            to_json(F("p") == datetime(2024, 1, 2, tzinfo=UTC))["value"] == "2024-01-02T00:00:00Z"
        )
        assert to_json(F("p") == np.datetime64("2024-01-02"))["value"] == "2024-01-02T00:00:00Z"
        assert to_json(F("p").isin([Micros(1)]))["value"] == ["1970-01-01T00:00:00.000001Z"]

    def test_a_filter_prints_as_sql(self) -> None:
        """A log line can be pasted into a query."""
        assert str((F("p") < 10) & ~F("tags").contains("it's")) == (
            "p < 10 AND NOT (contains(tags, 'it''s'))"
        )


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: A and B, "expected filters combined with & | ~, .* a = 1; write & for and"),
    (lambda: not A, "write & for and"),
    (lambda: 1 < F("p") < 5, r"\.between\(low, high\)"),
    (lambda: F("p") == None, r"got None; .* \.is_null\(\)"),  # noqa: E711
    (lambda: F("p").isin([1, None]), "got None"),  # type: ignore[list-item]
    (lambda: F("p") == F("q"), r"got the field F\('q'\); a filter compares a field with values"),
    (lambda: F("p") == [1], r"got \[1\] \(list\)"),
    (lambda: F("p") < float("nan"), "expected a finite number"),
    (lambda: F("p") < np.inf, "expected a finite number"),
    (lambda: F("p") == np.datetime64("NaT"), "got None"),
    (lambda: F("p") > 1 & F("q"), "put parentheses around each comparison"),
    (lambda: F("p") & A, "put parentheses around each comparison"),
    (lambda: A & F("p"), r"filter on both sides of &, got F\('p'\) \(F\)"),
    (lambda: A | True, "filter on both sides of |, got True"),  # type: ignore[operator]
    (lambda: ~F("flag"), r"F\('flag'\) == True"),
    (lambda: bool(F("p")), "got the field alone"),
    (lambda: F("no way"), "expected the name of a declared field, such as"),
    (lambda: F(5), "expected the name of a declared field"),  # type: ignore[arg-type]
    (lambda: F("p").isin("abc"), r"a list of values, got 'abc' \(str\); write \['abc'\]"),
    (lambda: F("p").isin(5), "expected a list of values"),  # type: ignore[arg-type]
    (lambda: F("p").isin(range(MAX_IN_VALUES + 1)), "at most 100,000 values in one list"),
    (lambda: F("p").contains_any("abc"), r"write \['abc'\]"),
    (lambda: F("p").contains_any([1]), "each value of the list as a string, got 1"),  # type: ignore[list-item]
    (lambda: F("p").contains(["a"]), "expected a value as a string"),  # type: ignore[arg-type]
    (lambda: F("p").startswith(1), "expected a prefix as a string, got 1"),  # type: ignore[arg-type]
    (lambda: F("p").matches(None), "expected words as a string"),  # type: ignore[arg-type]
    (lambda: F("p").within_radius(91, 0, 1), r"the latitude within -90\.\.90, got 91"),
    (lambda: F("p").within_radius(0, -181, 1), r"the longitude within -180\.\.180"),
    (lambda: F("p").within_radius(0, 0, -1), r"the radius in metres within 0\.\."),
    (lambda: F("p").within_radius(0, 0, True), "the radius in metres as a number, got True"),
    (lambda: F("p").within_radius("0", 0, 1), "the latitude as a number"),  # type: ignore[arg-type]
    (lambda: F("p").within_box(1, 0, 2, 0), "top 1 and bottom 2; the order is top, left"),
    (lambda: functools.reduce(operator.or_, [A] * 1001), r"use \.isin\(values\)"),
]


class TestMistakes:
    @pytest.mark.parametrize(
        ("mistake", "message"), MISTAKES, ids=lambda v: v[:40] if isinstance(v, str) else None
    )
    def test_a_mistake_fails_where_it_is_made(
        self, mistake: Callable[[], Any], message: str
    ) -> None:
        """And says what to write instead."""
        with pytest.raises(InvalidArgument, match=message):
            mistake()

    def test_a_thousand_parts_are_enough_and_not_too_many(self) -> None:
        """The cap itself is allowed."""
        tree = functools.reduce(operator.and_, [A] * MAX_NODES)
        assert len(tree.children) == MAX_NODES  # type: ignore[attr-defined]


LEAF = {"field": "p", "op": "eq", "value": 1}


def nested(depth: int) -> Any:
    """Alternating, so that nothing merges."""
    value: Any = LEAF
    for level in range(depth - 1):
        value = {"and" if level % 2 else "or": [value, LEAF]}
    return value


class TestReadingJson:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "expected a filter as an object such as"),
            ([LEAF], r"as an object such as .* got \[\{"),
            ("p < 1", "as an object such as"),
            ({}, r"got the keys \[\]"),
            ({"and": [LEAF], "or": [LEAF]}, "join several by and"),
            ({"xor": [LEAF]}, "got 'xor'"),
            ({"and": []}, "a list of one filter or more under 'and'"),
            ({"or": LEAF}, "a list of one filter or more under 'or'"),
            ({"not": [LEAF]}, "expected a filter as an object"),
            ({"field": "p"}, "expected an op among eq, ne, lt, .* got None"),
            ({"field": "p", "op": "<", "value": 1}, "got '<'"),
            ({"field": "p", "op": ["eq"], "value": 1}, "expected an op among"),
            ({"op": "eq", "value": 1}, "expected the keys field, op, value beside op 'eq'"),
            ({"field": "p", "op": "eq"}, "expected the keys field, op, value"),
            ({"field": "p", "op": "is_null", "value": 1}, "expected the keys field, op beside"),
            ({**LEAF, "boost": 2}, "expected the keys field, op, value"),
            ({"field": 5, "op": "eq", "value": 1}, "name of a declared field"),
            ({"field": "p", "op": "eq", "value": None}, "got None"),
            ({"field": "p", "op": "eq", "value": {"a": 1}}, "got {'a': 1}"),
            ({"field": "p", "op": "in", "value": "ab"}, "expected a list of values"),
            ({"field": "p", "op": "in", "value": {"a": 1}}, "expected a list of values"),
            ({"field": "p", "op": "between", "value": [1]}, r"expected \[low, high\]"),
            ({"field": "p", "op": "within_radius", "value": [1, 2, 3]}, "keys lat, lon, metres"),
            ({"field": "p", "op": "within_radius", "value": {"lat": 1}}, "keys lat, lon, metres"),
            ({"field": "p", "op": "within_box", "value": {"self": 1}}, "keys top, left, bottom"),
        ],
    )
    def test_what_is_not_of_the_grammar_is_refused(self, value: Any, message: str) -> None:
        """A misspelt key that is ignored is a filter that matches too much."""
        with pytest.raises(InvalidArgument, match=message):
            from_json(value)

    def test_depth_has_a_cap(self) -> None:
        """At the cap it is read, behind it refused, ten thousand deep as well."""
        assert to_json(from_json(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
        for depth in (MAX_DEPTH + 1, 10_000):
            with pytest.raises(InvalidArgument, match="at most 16 levels deep"):
                from_json(nested(depth))

    def test_size_has_a_cap(self) -> None:
        """A million parts are refused by their number, before any is read."""
        assert to_json(from_json({"or": [LEAF] * (MAX_NODES - 1)}))
        with pytest.raises(InvalidArgument, match=re.escape("at most 1,000 parts, got at least")):
            from_json({"or": [LEAF] * MAX_NODES})
        with pytest.raises(InvalidArgument, match="got at least 1,000,001"):
            from_json({"or": [None] * 1_000_000})
        many = {"or": [LEAF] * 40}
        with pytest.raises(InvalidArgument, match="at most 1,000 parts"):
            from_json({"and": [many] * 40})
