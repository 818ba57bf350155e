"""Filters as SQLite's SQL: no text of a user inside, no limit of SQLite's reached.

    soardb/filters/sql.py -> [test_sql.py]

That it finds the right rows is in test_agreement.py.
"""

from __future__ import annotations

from functools import reduce
from operator import and_, or_

import pytest

from soardb.errors import InvalidArgument
from soardb.filters import MAX_IN_VALUES, MAX_NODES, Expr, F, as_filter
from soardb.filters.sql import register_functions, where
from soardb.schema import Schema, encode_payload

apsw = pytest.importorskip("apsw")

SCHEMA = Schema.of(
    {
        "n": "int",
        "order.tag": "keyword",
        "tags": "keyword_list",
        "body": "text",
        "when": "datetime",
        "place": "geo",
    }
)
EVIL = "x' OR 1=1; DROP TABLE points; --"


def checked(expr: Expr) -> Expr:
    found = as_filter(expr, SCHEMA)
    assert found is not None
    return found


def rows(expr: Expr, payloads: list[dict[str, object]]) -> list[int]:
    database = apsw.Connection(":memory:")
    register_functions(database)
    database.execute("CREATE TABLE points (row INTEGER PRIMARY KEY, id, payload TEXT)")
    inserted = [(row, encode_payload(payload).decode()) for row, payload in enumerate(payloads)]
    database.executemany("INSERT INTO points VALUES (?1, ?1, ?2)", inserted)
    condition, parameters = where(checked(expr), SCHEMA)
    found = database.execute(f"SELECT row FROM points WHERE {condition}", parameters)
    return [row for (row,) in found]


class TestParameters:
    def test_no_text_of_a_user_stands_in_the_sql(self) -> None:
        """Neither values nor names of fields: all of them are parameters."""
        expr = (
            (F("order.tag") == EVIL)
            | F("order.tag").isin([EVIL])
            | F("order.tag").startswith(EVIL)
            | F("tags").contains_any([EVIL])
            | F("tags").contains_all([EVIL])
            | F("body").matches(EVIL)
            | (F("when") > "2024-01-01")
            | F("place").within_box(1, 2, 0, 3)
            | F("place").within_radius(1, 2, 3)
            | (F("n") == 7_777)
        )
        condition, parameters = where(checked(expr), SCHEMA, lambda *asked: ("f(?, ?, ?)", asked))
        for text in ("DROP", "order", "tags", "body", "7777", "2024"):
            assert text not in condition
        assert condition.count("?") == len(parameters)
        assert str(parameters).count("DROP TABLE") == 6

    def test_a_hostile_value_is_a_value(self) -> None:
        """It finds the row that holds it, and the table is still there."""
        payloads: list[dict[str, object]] = [{"order": {"tag": EVIL}}, {"order": {"tag": "x"}}]
        assert rows(F("order.tag") == EVIL, payloads) == [0]
        assert rows(F("order.tag").isin([EVIL, "y"]), payloads) == [0]

    def test_words_need_a_full_text_search(self) -> None:
        """Without one the filter is refused rather than half applied."""
        with pytest.raises(InvalidArgument, match="there is no full text here"):
            where(checked(F("n").is_null() | F("body").matches("a")), SCHEMA)


class TestLimits:
    @pytest.mark.parametrize("join", [and_, or_])
    def test_the_largest_filter_is_within_the_limits_of_sqlite(self, join: object) -> None:
        """A thousand parts in a chain would be a tree too deep for it."""
        assert callable(join)
        expr = reduce(join, [F("n") == 1] * (MAX_NODES - 1))
        assert rows(expr, [{"n": 1}, {"n": 2}]) == [0]

    def test_the_longest_list_is_one_parameter(self) -> None:
        """A hundred thousand question marks would be refused."""
        expr = F("n").isin(range(MAX_IN_VALUES))
        assert len(where(checked(expr), SCHEMA)[1]) == 2
        assert rows(expr, [{"n": MAX_IN_VALUES - 1}, {"n": MAX_IN_VALUES}]) == [0]
