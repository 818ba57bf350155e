"""Filters as SQL: what is read, what is refused by name, and how soon.

    soardb/filters/scan.py, parse.py -> [test_parse.py]

The language is a closed list, so the tests of refusal matter as much as the others: text of a user
must not reach a part of SQL that nobody thought of. Round trips are in test_agreement.py.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.filters import MAX_IN_VALUES, MAX_SQL_LENGTH, Expr, F, to_sql_text
from soardb.filters.expr import Micros
from soardb.filters.parse import parse
from soardb.schema import micros_of

A, B, C = F("a") == 1, F("b") == 2, F("c") == 3

READ: list[tuple[str, Expr]] = [
    ("a = 1", A),
    ("a == 1", A),
    ("(((a = (1))))", A),
    ("1 = a", A),
    ("10 < p", F("p") > 10),
    ("10 >= p", F("p") <= 10),
    ("p != 'x'", F("p") != "x"),
    ("p <> 'it''s'", F("p") != "it's"),
    ("p < -1.5e3", F("p") < -1500.0),
    ("p < - 1", F("p") < -1),
    ("p > +.5", F("p") > 0.5),
    ("p = 1.", F("p") == 1.0),
    ("p = true OR p = False", (F("p") == True) | (F("p") == False)),  # noqa: E712
    ("a = 1 OR b = 2 AND NOT c = 3", A | (B & ~C)),
    ("(a = 1 OR b = 2) AND c = 3", (A | B) & C),
    ("not not a = 1", A),
    ("NOT (a = 1 AND b = 2)", ~(A & B)),
    ("p IN (1, -2, 'x', TRUE)", F("p").isin([1, -2, "x", True])),
    ("p NOT IN ('x')", ~F("p").isin(["x"])),
    ("p IN ()", F("p").isin([])),
    ("p BETWEEN -1 AND 2 AND a = 1", (F("p") >= -1) & (F("p") <= 2) & A),
    ("p NOT BETWEEN 1 AND 2", ~F("p").between(1, 2)),
    ("p IS NULL", F("p").is_null()),
    ("p IS NOT NULL", F("p").not_null()),
    ("p LIKE 'ab%'", F("p").startswith("ab")),
    ("p LIKE '%'", F("p").startswith("")),
    ("p NOT LIKE 'ab%'", ~F("p").startswith("ab")),
    ("startswith(p, '50%_')", F("p").startswith("50%_")),
    ("contains(tags, 'a')", F("tags").contains("a")),
    ("Contains_Any (tags, 'a', 'b')", F("tags").contains_any(["a", "b"])),
    ("contains_all(tags)", F("tags").contains_all([])),
    ("matches(body, 'quick fox')", F("body").matches("quick fox")),
    ("NOT matches_any(body, 'quick fox')", ~F("body").matches_any("quick fox")),
    ("within_radius(place, 52.5, 13.4, 1000)", F("place").within_radius(52.5, 13.4, 1000)),
    ("within_box(place, 1, 170, -1, -170)", F("place").within_box(1, 170, -1, -170)),
    ("t >= TIMESTAMP '2024-01-01'", F("t") >= Micros(micros_of("2024-01-01"))),
    ("t < date'2024-01-01T00:00:00+02:00'", F("t") < Micros(micros_of("2023-12-31T22:00:00"))),
    ("t < '2024-01-01'", F("t") < "2024-01-01"),
    ("a.b.c.d.e.f.g.h = 1", F("a.b.c.d.e.f.g.h") == 1),
    ('"order"."select".x = 1', F("order.select.x") == 1),
    ('"a.b" = 1', F("a.b") == 1),
    ("date = 'x' AND contains = 1 AND timestamp IS NULL",
     (F("date") == "x") & (F("contains") == 1) & F("timestamp").is_null()),
    ("p = '; -- /* \" :x ?'", F("p") == '; -- /* " :x ?'),
    ("\n\ta\r\n=\f1 ", A),
]  # fmt: skip

REFUSED: list[tuple[str, str]] = [
    ("", "does not parse"),
    ("   ", "does not parse"),
    ("a =", "does not parse"),
    ("a = 1 b = 2", "does not parse"),
    ("a = 1 AND", "does not parse"),
    ("a", "got the field a alone; compare it: a = true"),
    ("NOT flag AND a = 1", "the field flag alone"),
    ("true", "got true"),
    ("a = b", "got the field b; a filter compares a field with values"),
    ("1 = 1", "expected the name of a field, got 1"),
    ("'a' = 'a'", "expected the name of a field, got 'a'"),
    ("a < 1 < 2", "expected the name of a field, got a condition"),
    ("(a = 1) = true", "expected the name of a field, got a condition"),
    ("a = 1, 2", r"expected one value to compare with, got 1, 2; use IN"),
    ("(a, b) = (1, 2)", "got several things in parentheses"),
    ("a = '1' '2'", "two literals in a row"),
    ("a = NULL", "got NULL; ask IS NULL or IS NOT NULL"),
    ("a IS TRUE", "got IS true; compare with = true"),
    ("a IN 1", "values in parentheses after IN"),
    ("a IN (b)", "expected a value, got the field b"),
    ("a IN (1, 2,)", "a value on both sides of each comma"),
    ("a IN (,1)", "a value on both sides of each comma"),
    ("contains(tags,,'a')", "a value on both sides of each comma"),
    ("a + 1 < 2", r"the operator \+; filters compare"),
    ("a -1 < 2", "the operator -"),
    ("a < 1 -1", "the operator -"),
    ("a * 2 = 4", r"the operator \*"),
    ("a % 2 = 0", "the operator %"),
    ("a || b = 'x'", r"the operator \|"),
    ("lower(a) = 'x'", r"got lower\(\.\.\.\), which is not part of the filter language"),
    ("soardb_contains(a, 'x')", r"got soardb_contains\(\.\.\.\)"),
    ("load_extension('x')", r"got load_extension\(\.\.\.\)"),
    ("a = contains(b, 'c')", "expected a value, got a function"),
    ("contains(tags)", r"expected 1 value after the field in contains\(\.\.\.\), got 0"),
    ("contains(tags, 'a', 'b')", "expected 1 value after the field"),
    ("within_radius(p, 1, 2)", "expected 3 values after the field"),
    ("contains('a', tags)", "expected the name of a field, got 'a'"),
    ("contains()", "expected a field and values in contains"),
    ("contains(tags, 1)", "expected a value as a string, got 1"),
    ("within_radius(place, 100, 0, 1)", "expected the latitude within"),
    ("a LIKE '%x'", "expected a pattern of a prefix and one %"),
    ("a LIKE 'x'", "for the whole string ="),
    ("a LIKE 'a_b%'", r"use startswith\(field, prefix\)"),
    ("a LIKE 5", "expected a pattern"),
    ("a LIKE 'x%' ESCAPE '!'", "got ESCAPE, which is not part of it"),
    ("a ILIKE 'x%'", "got ILIKE"),
    ("a = 1; DROP TABLE points", "a ; where only one filter is expected"),
    ("a = 1 -- x", "got a comment"),
    ("a /* */ = 1", "got a comment"),
    ("a IN (SELECT row FROM points)", 'got SELECT, .* quote it: "SELECT"'),
    ("EXISTS (SELECT 1)", "got EXISTS"),
    ("CASE WHEN a = 1 THEN b END", "got CASE"),
    ("CAST(a AS INT) = 1", "got CAST"),
    ("a = 1 UNION a = 2", "got UNION"),
    ("a = ?", "got a parameter; write the value itself"),
    ("a = :x", "got a parameter or a cast"),
    ("a = 1::int", "got a parameter or a cast"),
    ("a = @x", "got '@'"),
    ("a[1] = 2", r"got '\['"),
    ("{{x}}", "got '{'"),
    ("a = 0x10", "at '0x10'"),
    ("a = 1_000", "at '1_000'"),
    ("a = 1.2.3", r"at '1\.2\.3'"),
    ("a = 1e999", "expected a finite number"),
    ("a = 'x", "a string without its closing '"),
    ('"a = 1', 'a quoted name without its closing "'),
    ('"a b" = 1', 'expected the name of a field, got "a b"; strings stand in single quotes'),
    ('a = "b c"', "strings stand in single quotes"),
    ("a.b.c.d.e.f.g.h.i = 1", "expected the name of a field"),
    ("a . b = 1", r"got '\.'"),
    ("é = 1", "got 'é'"),
    ("(a = 1", r"expected a \) for each \("),
    ("a = 1)", r"a \) too many"),
    (")a = 1(", r"a \) too many"),
    ("t > TIMESTAMP 'soon'", "expected an ISO 8601 date and time after TIMESTAMP"),
]


class TestReading:
    @pytest.mark.parametrize(("text", "expr"), READ)
    def test_reads_the_language(self, text: str, expr: Expr) -> None:
        """Every form, with SQL's precedence; and what it prints is read back."""
        assert parse(text) == expr
        assert parse(to_sql_text(expr)) == expr

    @pytest.mark.parametrize(("text", "message"), REFUSED)
    def test_refuses_the_rest_by_name(self, text: str, message: str) -> None:
        """With InvalidArgument, whose text says what is not of the language."""
        with pytest.raises(InvalidArgument, match=message):
            parse(text)

    def test_every_word_may_name_a_field(self) -> None:
        """Quoted where it must be, and printed so: no keyword of sqlglot plays a part."""
        from sqlglot.parser import Parser
        from sqlglot.tokens import Tokenizer

        words = {word for word in Tokenizer.KEYWORDS if word.isidentifier() and word.isascii()}
        words |= {name for name in Parser.FUNCTIONS if name.isidentifier()}
        assert len(words) > 300
        for word in words:
            expr = (F(word) == 1) & ~F(f"x.{word.lower()}").startswith("a")
            assert parse(to_sql_text(expr)) == expr

    @settings(deadline=None)
    @given(st.text() | st.text("ab=<>()'\"%_,.-+*/;:[]{}! \n019ANDORNTIS"))
    def test_random_text_is_read_or_refused(self, text: str) -> None:
        """Never another error, whatever comes in; and what was read prints and reads the same."""
        try:
            expr = parse(text)
        except InvalidArgument:
            return
        assert parse(str(expr)) == expr

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                ["a", "b", "=", "<", "(", ")", ",", "1", "'x%'", "AND", "OR", "NOT", "IN", "IS",
                 "NULL", "LIKE", "BETWEEN", "contains", "TRUE", "DATE", "'2024-01-01'", "-", '"c"']
            ),
            max_size=14,
        )
    )  # fmt: skip
    def test_random_tokens_are_read_or_refused(self, tokens: list[str]) -> None:
        """As above, from nearer to the language."""
        try:
            expr = parse(" ".join(tokens))
        except InvalidArgument:
            return
        assert parse(str(expr)) == expr


HOSTILE = {
    "ten thousand parentheses": "(" * 10**4 + "a = 1" + ")" * 10**4,
    "ten thousand times not": "NOT " * 10**4 + "a = 1",
    "a million terms": "a=1 OR " * 10**6 + "a=1",
    "terms up to the length": "a=1 OR " * (MAX_SQL_LENGTH // 7 - 1) + "a=1",
    "terms up to the tokens": "a=1 OR " * 4_900 + "a=1",
    "values up to the length": "a IN (" + "1," * (MAX_SQL_LENGTH // 2 - 5) + "1)",
    "comparisons in a row": "a" + "=1" * 9_000,
    "fields in a list": "a IN (b" + ",b" * 9_000 + ")",
    "nested functions": "contains(" * 30 + "a" + ")" * 30,
    "between without end": "a BETWEEN 1 AND " * 3_000,
    "quotes": "'" * MAX_SQL_LENGTH,
    "an open string": "'" * (MAX_SQL_LENGTH - 1),
    "open names": '"' * (MAX_SQL_LENGTH - 1),
    "dots": "a." * (MAX_SQL_LENGTH // 2),
    "digits": "a=" + "1" * (MAX_SQL_LENGTH - 2),
    "spaces": " " * MAX_SQL_LENGTH,
    "spaces in a number": "a = -" + " " * (MAX_SQL_LENGTH - 10) + "x",
    "signs": "- " * (MAX_SQL_LENGTH // 2),
}


class TestHostileText:
    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
    def test_is_refused_soon(self, text: str) -> None:
        """By its length, its tokens or its depth, before any part costs more than its bytes."""
        began = time.perf_counter()
        with pytest.raises(InvalidArgument, match="expected"):
            parse(text)
        assert time.perf_counter() - began < 5  # measured 0.5 at most

    def test_parentheses_have_a_cap_that_the_deepest_filter_keeps(self) -> None:
        """Twice the levels of a filter; beyond it the parser of others is not even asked."""
        assert parse("(" * 32 + "a = 1" + ")" * 32) == A
        with pytest.raises(InvalidArgument, match="parentheses at most 32 deep"):
            parse("(" * 33 + "a = 1" + ")" * 33)

    def test_a_list_up_to_the_cap_is_read(self) -> None:
        """And quickly: sqlglot sees one literal, however many there are."""
        values = ",".join(map(str, range(MAX_IN_VALUES)))
        began = time.perf_counter()
        assert parse(f"a IN ({values})") == F("a").isin(range(MAX_IN_VALUES))
        assert time.perf_counter() - began < 2  # measured 0.2
        with pytest.raises(InvalidArgument, match="at most 100,000 values in one list"):
            parse(f"a IN ({values},1)")
