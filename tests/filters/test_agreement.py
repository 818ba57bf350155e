"""Random filters over random rows: three evaluators and three spellings must agree.

    soardb/filters/* -> [test_agreement.py]

The columns (evaluate.py) are compared with SQLite over the JSON payloads (sql.py), which shares no
code with them, and with a page of plain Python below, which is SQL's logic of three values written
down once more. Values are drawn from few, so that filters hit, and from the edges of their types.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import random
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soardb.filters import Columns, Expr, F, as_filter, from_json, matching, to_json
from soardb.filters.expr import (
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    In,
    IsNull,
    Leaf,
    Matches,
    Not,
    Op,
    Or,
    StartsWith,
    WithinBox,
    WithinRadius,
    all_of,
    any_of,
)
from soardb.filters.parse import parse
from soardb.filters.sql import register_functions, where
from soardb.kernels.layout import I64
from soardb.schema import Schema, encode_payload

apsw = pytest.importorskip("apsw", reason="SQLite is the oracle")

SCHEMA = Schema.of(
    {
        "n": "int",
        "x": "float",
        "flag": "bool",
        "tag": "keyword",
        "order.tag": "keyword",  # nested, and a word of SQL
        "tags": "keyword_list",
        "body": "text",
        "when": "datetime",
        "place": "geo",
    }
)
Payload = dict[str, Any] | None

# ---- rows ----

INTS = [*range(-1, 12), 2**53, 2**53 + 1, 2**53 - 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 0.5, 1.0, 10.5, -1.0, 1e300, 5e-324, 2.0**53, 2.0**63, -(2.0**63), 0.1]
WORDS = [
    "", "a", "ab", "abc", "b", "é", "e\u0301", "\uffff", "\U0001f600", "a%", "a_", "a\\", "it's",
    'q"q', "a\0b", "\n", "--", "0",
]  # fmt: skip
MOMENTS = [
    "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01", "2024-06-01T12:30:00.000001",
    "0001-01-01", "9999-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999",
]  # fmt: skip
LATS = [-90.0, -45.0, 0.0, 10.0, 45.0, 90.0]
LONS = [-180.0, -170.0, -10.0, 0.0, 20.0, 170.0, 180.0]

PLACES = [{"lat": lat, "lon": lon} for lat in LATS for lon in LONS] + list(product(LATS, LONS))
TAG_LISTS = [[], ["a"], ["b", "b"], ["é", "a"], ["a", "b", "ab"], ["", "\n", "0", "a\0b"], ["--"]]
ORDERS = [{"tag": word} for word in WORDS] + [{}, {"tag": None}, "a", 5, ["a"]]
VALUES: dict[str, list[Any]] = {
    "n": INTS,
    "x": FLOATS + INTS,
    "flag": [True, False],
    "tag": WORDS,
    "order": ORDERS,  # where it is no object, order.tag is out of reach
    "tags": TAG_LISTS,
    "body": WORDS,
    "when": MOMENTS,
    "place": PLACES,
    "other": [1],
}
"""What each key of a payload may hold, and null besides."""

PAYLOADS: st.SearchStrategy[Payload] = st.none() | st.fixed_dictionaries(
    {}, optional={key: st.sampled_from([*values, None]) for key, values in VALUES.items()}
)


def many_payloads(seed: int) -> list[Payload]:
    """400 payloads: so many that rare and frequent values are looked up in different ways."""
    rng = random.Random(seed)
    return [
        {key: rng.choice([*values, None]) for key, values in VALUES.items() if rng.random() < 0.8}
        for _ in range(400)
    ]


# ---- trees ----

NUMBERS = st.sampled_from(INTS + FLOATS) | st.floats(allow_nan=False, allow_infinity=False)
STRINGS = st.sampled_from(WORDS)
DATES = st.sampled_from(MOMENTS)
OPS = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])


def comparisons(field: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(lambda op, value: F(field).compared(op, value), OPS, values),
        st.builds(lambda chosen: F(field).isin(chosen), st.lists(values, max_size=9)),
        st.just(F(field).is_null()),
    )


def keyword_leaves(field: str) -> st.SearchStrategy[Expr]:
    return st.one_of(comparisons(field, STRINGS), st.builds(F(field).startswith, STRINGS))


LEAVES: st.SearchStrategy[Expr] = st.one_of(
    comparisons("n", NUMBERS),
    comparisons("x", NUMBERS),
    st.builds(lambda value: F("flag") == value, st.booleans()),
    st.builds(lambda value: F("flag") != value, st.booleans()),
    st.builds(F("flag").isin, st.lists(st.booleans(), max_size=2)),
    keyword_leaves("tag"),
    keyword_leaves("order.tag"),
    comparisons("when", DATES),
    st.builds(F("tags").contains_any, st.lists(STRINGS, max_size=3)),
    st.builds(F("tags").contains_all, st.lists(STRINGS, max_size=3)),
    st.just(F("tags").is_null()),
    st.builds(F("body").matches, STRINGS),
    st.builds(F("body").matches_any, STRINGS),
    st.just(F("body").is_null()),
    st.builds(
        F("place").within_radius,
        st.sampled_from(LATS),
        st.sampled_from(LONS),
        st.sampled_from([1.0, 1.5e6, 1.1e7, 2.1e7]),
    ),
    st.builds(
        lambda lats, left, right: F("place").within_box(max(lats), left, min(lats), right),
        st.tuples(st.sampled_from(LATS), st.sampled_from(LATS)),
        st.sampled_from(LONS),
        st.sampled_from(LONS),
    ),
    st.just(F("place").is_null()),
)
TREES: st.SearchStrategy[Expr] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda parts: all_of(tuple(parts)), st.lists(inner, min_size=2, max_size=4)),
        st.builds(lambda parts: any_of(tuple(parts)), st.lists(inner, min_size=2, max_size=4)),
        st.builds(operator.invert, inner),
    ),
    max_leaves=12,
)

COMPARED: dict[str, list[Any]] = {
    "n": INTS + FLOATS,
    "x": INTS + FLOATS,
    "tag": WORDS,
    "order.tag": WORDS,
    "when": MOMENTS,
}


def leaves_of(field: str) -> list[Expr]:
    """Every leaf that a field can answer, with every value that its type is tested with."""
    f = F(field)
    leaves: list[Expr] = [f.is_null()]
    for op in get_args(Op):
        leaves += [f.compared(op, value) for value in COMPARED.get(field, [])]
    if field in COMPARED:
        values = COMPARED[field]
        leaves += [f.isin(values[first : first + size]) for first in (0, 3) for size in (0, 2, 12)]
    if field in ("tag", "order.tag"):
        leaves += [f.startswith(word) for word in WORDS]
    if field == "flag":
        leaves += [f == True, f != True, f.isin([]), f.isin([False]), f.isin([True, False])]  # noqa: E712
    if field == "tags":
        for words in [[], *([word] for word in WORDS), ["a", "b"], ["é", "never"], ["b", "0", ""]]:
            leaves += [f.contains_any(words), f.contains_all(words)]
    if field == "body":
        leaves += [search(word) for word in WORDS for search in (f.matches, f.matches_any)]
    if field == "place":
        leaves += [f.within_radius(lat, 20, metres) for lat in LATS for metres in (1, 3e6, 2.1e7)]
        leaves += [f.within_box(45, left, -45, right) for left in LONS for right in LONS]
    return leaves


# ---- the words of a text, in the simplest possible full text search: is it a substring? ----


def holds_words(text: str, words: str, mode: str) -> bool:
    return words in text if mode == "all" else any(char in text for char in words)


class Table:
    """The same rows as columns, in SQLite and as typed Python values."""

    def __init__(self, payloads: list[Payload], nbase: int) -> None:
        self.values = SCHEMA.extract(payloads)
        self.n = len(payloads)
        self.columns = columns_of(self.values, self.n, nbase)
        self.database = apsw.Connection(":memory:")
        register_functions(self.database)
        self.database.create_scalar_function("holds_words", holds_words, 3, deterministic=True)
        self.database.execute("CREATE TABLE points (row INTEGER PRIMARY KEY, id, payload TEXT)")
        self.database.executemany(
            "INSERT INTO points VALUES (?, ?, ?)",
            ((row, row, encode_payload(p).decode()) for row, p in enumerate(payloads)),
        )

    def by_columns(self, expr: Expr, candidates: I64 | None = None) -> list[int]:
        found = matching(expr, self.columns, self.text_match, candidates)
        assert found.count == len(found.positions()) == np.count_nonzero(found.mask(self.n))
        rows: list[int] = found.positions().tolist()
        return rows

    def text_match(self, field: str, words: str, mode: str) -> I64:
        texts = enumerate(self.values[field])
        rows = [row for row, text in texts if text is not None and holds_words(text, words, mode)]
        return np.array(rows, np.int64)

    def by_sql(self, expr: Expr) -> list[int]:
        condition, parameters = where(expr, SCHEMA, self.text_rows)
        found = self.database.execute(
            f"SELECT row FROM points WHERE {condition} ORDER BY row", parameters
        )
        return [row for (row,) in found]

    def text_rows(self, field: str, words: str, mode: str) -> tuple[str, list[str]]:
        read = f"json_extract(payload, '$.{field}')"
        return f"holds_words({read}, ?, ?)", [words, mode]

    def by_python(self, expr: Expr) -> list[int]:
        rows = ({name: self.values[name][row] for name in self.values} for row in range(self.n))
        return [row for row, values in enumerate(rows) if truth(expr, values) is True]


@functools.cache
def large_table(seed: int, nbase: int) -> Table:
    return Table(many_payloads(seed), nbase)


def columns_of(values: dict[str, list[Any]], n: int, nbase: int) -> Columns:
    """Columns whose first nbase rows are a base and the others a tail, in two appends."""
    columns = Columns(SCHEMA)
    columns.append({name: value[:nbase] for name, value in values.items()}, nbase)
    columns = Columns.of(SCHEMA, *columns.arrays())
    middle = (nbase + n) // 2
    for first, last in [(nbase, middle), (middle, n)]:
        part = {name: value[first:last] for name, value in values.items()}
        columns.append(part, last - first)
    return columns


# ---- three-valued logic in plain Python: True, False and None ----


def truth(expr: Expr, values: dict[str, Any]) -> bool | None:
    if isinstance(expr, Not):
        child = truth(expr.child, values)
        return None if child is None else not child
    if isinstance(expr, And | Or):
        decisive = isinstance(expr, Or)
        found = [truth(child, values) for child in expr.children]
        return decisive if decisive in found else None if None in found else not decisive
    assert isinstance(expr, Leaf)
    value = values[expr.field]
    if isinstance(expr, IsNull):
        return value is None
    return None if value is None else claim(expr, value)


def claim(leaf: Leaf, value: Any) -> bool:
    """A leaf about a value that is not null."""
    match leaf:
        case Compare(_, op, other):
            return bool(getattr(operator, op)(value, other))
        case In(_, others):
            return value in others
        case StartsWith(_, prefix):
            return bool(value.startswith(prefix))
        case ContainsAny(_, others):
            return any(other in value for other in others)
        case ContainsAll(_, others):
            return all(other in value for other in others)
        case Matches(_, words, mode):
            return holds_words(value, words, mode)
        case WithinBox(_, top, left, bottom, right):
            is_east, is_west = value[1] >= left, value[1] <= right
            across = is_east and is_west if left <= right else is_east or is_west
            return bool(bottom <= value[0] <= top and across)
        case WithinRadius(_, lat, lon, metres):
            return great_circle(value, (lat, lon)) <= metres
    raise AssertionError(leaf)


def great_circle(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Metres by the spherical law of cosines, which needs no more than the test's coarse places."""
    phi, psi = math.radians(one[0]), math.radians(other[0])
    cosine = math.sin(phi) * math.sin(psi)
    cosine += math.cos(phi) * math.cos(psi) * math.cos(math.radians(one[1] - other[1]))
    return 0.0 if one == other else math.acos(max(-1.0, min(1.0, cosine))) * 6_371_008.8


@pytest.fixture(autouse=True)
def small_bases_are_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverted indexes from the first row on, as for large collections."""
    monkeypatch.setattr("soardb.filters.leaves._MIN_POSTED", 1)


many = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROWS = st.lists(PAYLOADS, max_size=40)


class TestEvaluatorsAgree:
    @many
    @given(ROWS, TREES, st.integers(0, 40), st.sets(st.integers(0, 39)))
    def test_columns_sqlite_and_python_find_the_same_rows(
        self, payloads: list[Payload], tree: Expr, nbase: int, chosen: set[int]
    ) -> None:
        """Null semantics, exact numbers, order of strings: written three times, equal always."""
        table = Table(payloads, min(nbase, len(payloads)))
        expr = as_filter(tree, SCHEMA)
        assert expr is not None
        expected = table.by_python(expr)
        assert table.by_sql(expr) == expected
        assert table.by_columns(expr) == expected
        candidates = np.array(sorted(row for row in chosen if row < table.n), np.int64)
        assert table.by_columns(expr, candidates) == [r for r in expected if r in chosen]

    @pytest.mark.parametrize("field", SCHEMA.fields)
    @pytest.mark.parametrize("nbase", [5, 400])
    def test_they_agree_on_every_leaf_and_its_negation(self, field: str, nbase: int) -> None:
        """Nothing left to chance: each operator with each value that stands in a row or nearly."""
        table = large_table(0, nbase)
        for leaf in leaves_of(field):
            for expr in (as_filter(leaf, SCHEMA), as_filter(~leaf, SCHEMA)):
                assert expr is not None
                expected = table.by_python(expr)
                assert table.by_columns(expr) == expected, str(expr)
                assert table.by_sql(expr) == expected, str(expr)
                one_by_one = table.by_columns(expr, np.arange(table.n))
                assert one_by_one == expected, str(expr)

    @many
    @given(TREES, st.integers(0, 3), st.sampled_from([0, 130, 400]), st.integers(0, 2**32))
    def test_they_agree_on_larger_tables(
        self, tree: Expr, seed: int, nbase: int, chosen: int
    ) -> None:
        """Where few rows of many match they are listed, not tested; the answer is the same."""
        table = large_table(seed, nbase)
        expr = as_filter(tree, SCHEMA)
        assert expr is not None
        expected = table.by_python(expr)
        assert table.by_sql(expr) == expected
        assert table.by_columns(expr) == expected
        rows = np.random.default_rng(chosen).permutation(table.n)[: chosen % table.n]
        kept = set(rows.tolist())
        assert table.by_columns(expr, np.sort(rows)) == [row for row in expected if row in kept]


class TestSpellingsAgree:
    @many
    @given(TREES)
    def test_a_filter_survives_json_and_sql(self, tree: Expr) -> None:
        """What is sent, logged or copied from a log says the same as what was written."""
        assert from_json(json.loads(json.dumps(to_json(tree)))) == tree
        assert parse(str(tree)) == tree

    @many
    @given(TREES)
    def test_a_checked_filter_survives_too(self, tree: Expr) -> None:
        """Moments are numbers then, and are written as moments again; checking twice is once."""
        expr = as_filter(tree, SCHEMA)
        assert expr is not None
        assert as_filter(expr, SCHEMA) == expr
        assert as_filter(str(expr), SCHEMA) == expr
        assert as_filter(to_json(expr), SCHEMA) == expr
