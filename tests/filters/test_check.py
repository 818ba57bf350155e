"""A filter against the schema: fields that are not declared, types that do not fit, sizes.

    soardb/filters/check.py -> [test_check.py]

These are the errors that users see most, so their advice is tested like any other behaviour.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from soardb.errors import InvalidArgument
from soardb.filters import MAX_DEPTH, MAX_NODES, MAX_STRING_BYTES, Expr, F, as_filter
from soardb.filters.expr import Compare, In, Micros, Not
from soardb.schema import FIELD_TYPES, Schema

SCHEMA = Schema.of({f"a_{kind}": kind for kind in FIELD_TYPES})
DAY = 86_400_000_000


class TestSpellings:
    def test_three_spellings_one_tree(self) -> None:
        """Python, JSON, SQL; and nothing is no filter."""
        tree = F("a_int") < 10
        assert as_filter(tree, SCHEMA) == tree
        assert as_filter({"field": "a_int", "op": "lt", "value": 10}, SCHEMA) == tree
        assert as_filter("a_int < 10", SCHEMA) == tree
        assert as_filter(None, SCHEMA) is None

    @pytest.mark.parametrize("value", [5, True, ["a_int < 10"], b"a_int < 10", lambda row: True])
    def test_anything_else_is_no_filter(self, value: Any) -> None:
        """False and the empty list too: they are more likely a mistake than a filter."""
        with pytest.raises(InvalidArgument, match="expected a filter such as F"):
            as_filter(value, SCHEMA)

    def test_a_field_is_no_filter(self) -> None:
        """It lacks its comparison."""
        with pytest.raises(InvalidArgument, match=r"compare it: F\('a_bool'\) == 1"):
            as_filter(F("a_bool"), SCHEMA)


class TestFields:
    def test_an_undeclared_field_is_refused_with_near_ones(self) -> None:
        """Matching nothing in silence is the complaint about other databases."""
        schema = Schema.of({"price": "float", "prize": "int", "tag": "keyword"})
        message = (
            r"got 'pricce'; did you mean 'price' or 'prize'\? Declared are: price, prize, tag\. "
            r"To filter by 'pricce', declare it when the collection is made: "
            r"schema=\{'pricce': 'keyword'\}"
        )
        with pytest.raises(InvalidArgument, match=message):
            as_filter(F("tag").is_null() | (F("pricce") < 1), schema)

    def test_without_a_schema_there_is_nothing_near(self) -> None:
        """The message is a sentence all the same."""
        with pytest.raises(InvalidArgument, match=r"got 'tag'\. Declared are: none\."):
            as_filter("tag = 'a'", Schema.of(None))


FITTING: list[Expr] = [
    F("a_int") == 1,
    F("a_int") < 1.5,
    F("a_int").isin([1, 2.5]),
    F("a_float") == 1,
    F("a_bool") != True,  # noqa: E712
    F("a_bool").isin([True]),
    F("a_keyword") < "x",
    F("a_keyword").startswith("x"),
    F("a_keyword_list").contains_all(["x"]),
    F("a_text").matches_any("x"),
    F("a_geo").within_radius(0, 0, 1),
    *(F(f"a_{kind}").is_null() for kind in FIELD_TYPES),
]
MISFITS: list[tuple[Expr, str]] = [
    (F("a_int") == "1", "expected a number to compare with field 'a_int' of type int, got '1'"),
    (F("a_int") == True, "expected a number .* got True"),  # noqa: E712
    (F("a_int") == date(2024, 1, 1), "expected a number .* got datetime.date"),
    (F("a_int") == Micros(5), r"expected a number .* got Micros\(5\)"),
    (F("a_int") < 2**63, "an int within int64, or a float beyond it"),
    (F("a_float") < 10**30, "an int within int64, or a float beyond it"),
    (F("a_float").isin([1, "2"]), "expected a number .* got '2'"),
    (F("a_bool") == 1, "expected True or False .* got 1"),
    (F("a_bool") < True, "of 'a_bool', got an ordering; compare it with True or False"),
    (F("a_keyword") == 5, "expected a string .* got 5"),
    (F("a_keyword").contains("x"), "got contains; .* for lists of keywords declare it"),
    (F("a_keyword").matches("x"), "got matches; .* for words within it 'text'"),
    (F("a_keyword_list") == "x", "got a comparison; use contains, contains_any"),
    (F("a_keyword_list").isin(["x"]), "got isin; use contains, contains_any"),
    (F("a_text") == "x", "got a comparison; use matches"),
    (F("a_text").startswith("x"), "got startswith; use matches"),
    (F("a_datetime") > 1700000000, "expected an ISO 8601 string, a datetime or a date .* got 17"),
    (F("a_datetime") > "soon", r"a date \(Invalid isoformat string: 'soon'\) to compare"),
    (F("a_datetime").startswith("2024"), "got startswith; compare it, or use isin, between"),
    (F("a_geo") == "x", "got a comparison; use within_radius"),
    (F("a_int").within_box(1, 0, 0, 1), "got within_box; compare it"),
]  # fmt: skip


class TestTypes:
    @pytest.mark.parametrize("expr", FITTING, ids=str)
    def test_what_fits_passes_unchanged(self, expr: Expr) -> None:
        """Only moments are converted."""
        assert as_filter(expr, SCHEMA) == expr

    @pytest.mark.parametrize(("expr", "message"), MISFITS, ids=str)
    def test_what_does_not_fit_is_refused_with_advice(self, expr: Expr, message: str) -> None:
        """Wherever in the tree it stands."""
        with pytest.raises(InvalidArgument, match=message):
            as_filter(~(expr & F("a_int").is_null()), SCHEMA)

    @pytest.mark.parametrize(
        "value",
        ["1970-01-02", "1970-01-02T00:00:00Z", "1970-01-02T01:00+01:00", date(1970, 1, 2),
         datetime(1970, 1, 2), datetime(1970, 1, 2, 1, tzinfo=timezone(timedelta(hours=1)))],
    )  # fmt: skip
    def test_a_moment_becomes_microseconds_of_utc(self, value: Any) -> None:
        """However it was written; and a checked filter may be checked again."""
        checked = as_filter(~F("a_datetime").isin([value]), SCHEMA)
        assert checked == Not(In("a_datetime", (Micros(DAY),)))
        assert as_filter(checked, SCHEMA) == checked
        compared = as_filter(F("a_datetime") < value, SCHEMA)
        assert compared == Compare("a_datetime", "lt", Micros(DAY))
        assert str(compared) == "a_datetime < TIMESTAMP '1970-01-02T00:00:00Z'"


class TestLimits:
    @pytest.mark.parametrize(
        "make",
        [lambda text: F("a_keyword") == text, lambda text: F("a_keyword").isin([text]),
         lambda text: F("a_keyword").startswith(text), lambda text: F("a_text").matches(text),
         lambda text: F("a_keyword_list").contains(text)],
    )  # fmt: skip
    def test_strings_have_a_cap_in_bytes(self, make: Any) -> None:
        """At the cap they pass."""
        assert as_filter(make("x" * MAX_STRING_BYTES), SCHEMA) is not None
        assert as_filter(make("é" * (MAX_STRING_BYTES // 2)), SCHEMA) is not None
        for text in ("x" * (MAX_STRING_BYTES + 1), "é" * (MAX_STRING_BYTES // 2 + 1)):
            with pytest.raises(InvalidArgument, match="at most 8,192 bytes for field 'a_.*, got 8"):
                as_filter(make(text), SCHEMA)
        with pytest.raises(InvalidArgument, match="half a surrogate pair"):
            as_filter(make("\ud800"), SCHEMA)

    def test_a_tree_built_in_python_has_the_caps_of_the_others(self) -> None:
        """Depth is that of the merged tree; ten thousand levels are refused, not crashed on."""
        expr = leaf = F("a_int") == 1
        for level in range(MAX_DEPTH - 1):
            expr = expr & leaf if level % 2 else expr | leaf
        assert as_filter(expr, SCHEMA) == expr
        for level in range(10_000):
            expr = expr & leaf if level % 2 == 0 else expr | leaf
        with pytest.raises(InvalidArgument, match="at most 16 levels deep"):
            as_filter(expr, SCHEMA)

    def test_the_size_of_a_tree_has_a_cap(self) -> None:
        """Also where no single and or or is over it."""
        part = F("a_int") == 1
        for _ in range(39):
            part |= F("a_int") == 2
        whole = part & part
        for _ in range(22):
            whole &= part
        assert 24 * 41 + 1 < MAX_NODES < 25 * 41
        assert as_filter(whole, SCHEMA) == whole
        with pytest.raises(InvalidArgument, match="at most 1,000 parts"):
            as_filter(whole & part, SCHEMA)
