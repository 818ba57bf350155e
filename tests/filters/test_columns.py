"""Columns: appended, stored, mapped, reordered; and damaged.

    soardb/filters/columns.py and what it is made of -> [test_columns.py]

Whether columns answer filters rightly is in test_agreement.py; here it is that the same rows are in
them however they came in, and that arrays which are not ours are refused rather than read.
"""

from __future__ import annotations

import json
import math
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import CorruptStorage
from soardb.filters import Columns, F, as_filter, matching
from soardb.filters.dictionary import Dictionary
from soardb.filters.evaluate import no_text_match
from soardb.filters.grown import Array, Grown
from soardb.filters.keywords import KeywordLists, Keywords
from soardb.schema import FIELD_TYPES, Schema

SCHEMA = Schema.of({kind: kind for kind in FIELD_TYPES})
STORED_DTYPES = {"<f4", "<f8", "<i4", "<i8", "<u4", "|u1"}

ROW: dict[str, Any] = {
    "int": -5,
    "float": 0.25,
    "bool": True,
    "keyword": "b",
    "keyword_list": ["y", "x"],
    "text": "some words",
    "datetime": 1_700_000_000_000_000,
    "geo": (52.5, 13.4),
}
STRINGS = st.text("abé\U0001f600\0", max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "int": st.none() | st.integers(-(2**63), 2**63 - 1),
            "float": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "bool": st.none() | st.booleans(),
            "keyword": st.none() | STRINGS,
            "keyword_list": st.none() | st.lists(STRINGS, max_size=3),
            "text": st.none() | STRINGS,
            "datetime": st.none() | st.integers(-(2**55), 2**55),
            "geo": st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
        }
    ),
    max_size=30,
)


def added(columns: Columns, rows: list[dict[str, Any]]) -> Columns:
    columns.append({name: [row[name] for row in rows] for name in SCHEMA.fields}, len(rows))
    return columns


def filled(rows: list[dict[str, Any]]) -> Columns:
    return added(Columns(SCHEMA), rows)


def reopened(columns: Columns) -> Columns:
    """As after a restart: from JSON, and from arrays that nobody may write to."""
    parameters, arrays = columns.arrays()
    for array in arrays.values():
        assert array.dtype.newbyteorder("<").str in STORED_DTYPES
        assert array.ndim == 1
    frozen = {name: array.copy() for name, array in arrays.items()}
    for array in frozen.values():
        array.flags.writeable = False
    return Columns.of(SCHEMA, json.loads(json.dumps(parameters)), frozen)


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """The rows, read back from the stored form alone. A text is only there or not."""
    parameters, arrays = columns.arrays()
    n = parameters["n"]
    assert n == len(columns)
    return [{name: value_of(arrays, name, row) for name in SCHEMA.fields} for row in range(n)]


def value_of(arrays: dict[str, Array], name: str, row: int) -> Any:
    own = {key.partition(":")[2]: arrays[key] for key in arrays if key.startswith(name + ":")}
    kind = SCHEMA.fields[name]
    if kind in ("int", "datetime"):
        return int(own["values"][row]) if own["valid"][row] else None
    if kind == "float":
        return None if math.isnan(own["values"][row]) else float(own["values"][row])
    if kind == "bool":
        return [False, True, None][own["values"][row]]
    if kind == "geo":
        place = (float(own["lat"][row]), float(own["lon"][row]))
        return None if math.isnan(place[0]) else place
    if kind == "text":
        return bool(own["valid"][row])
    if kind == "keyword":
        return word_of(own, int(own["codes"][row])) if own["codes"][row] >= 0 else None
    listed = own["codes"][own["ends"][row] : own["ends"][row + 1]]
    return [word_of(own, code) for code in listed] if own["valid"][row] else None


def word_of(own: dict[str, Array], code: int) -> str:
    first, last = own["offsets"][code], own["offsets"][code + 1]
    return bytes(own["data"][first:last]).decode()


def seen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as columns keep them: a list without repetitions, of a text only whether it is there."""
    return [
        {
            **row,
            "text": row["text"] is not None,
            "keyword_list": row["keyword_list"] and list(dict.fromkeys(row["keyword_list"])),
        }
        for row in rows
    ]


class TestRows:
    @settings(deadline=None)
    @given(ROWS, ROWS, ROWS)
    def test_rows_stay_as_they_came(
        self, first: list[dict[str, Any]], second: list[dict[str, Any]], third: list[dict[str, Any]]
    ) -> None:
        """All at once, in parts, over a mapped base, and mapped again after that."""
        whole = seen(first + second + third)
        at_once = filled(first + second + third)
        assert rows_of(at_once) == whole
        in_parts = added(added(reopened(filled(first)), second), third)
        assert rows_of(in_parts) == whole
        assert rows_of(added(reopened(added(reopened(filled(first)), second)), third)) == whole
        assert same_arrays(reopened(in_parts), reopened(at_once))

    @settings(deadline=None)
    @given(ROWS, ROWS, st.data())
    def test_take_gives_the_rows_asked_for(
        self, first: list[dict[str, Any]], second: list[dict[str, Any]], data: st.DataObject
    ) -> None:
        """Compaction: some rows, in another order, from base and tail; then more rows."""
        rows = first + second
        columns = added(reopened(filled(first)), second)
        chosen = data.draw(st.permutations(range(len(rows))))
        chosen = chosen[: data.draw(st.integers(0, len(rows)))]
        taken = columns.take(np.array(chosen, np.int64))
        expected = [rows[position] for position in chosen]
        assert rows_of(taken) == seen(expected)
        assert rows_of(added(reopened(taken), second)) == seen(expected + second)
        assert rows_of(columns) == seen(rows)

    def test_take_forgets_strings_that_no_row_has(self) -> None:
        """A dictionary that only grows would outlive the rows it was for."""
        columns = filled([{**ROW, "keyword": f"k{i}", "keyword_list": [f"l{i}"]} for i in range(9)])
        _, arrays = columns.take(np.array([4, 2])).arrays()
        assert arrays["keyword:data"].tobytes() == b"k2k4"
        assert arrays["keyword:codes"].tolist() == [1, 0]
        assert arrays["keyword_list:data"].tobytes() == b"l2l4"

    def test_the_base_is_never_copied(self) -> None:
        """A generation of many gigabytes is mapped, not read; appending must not change that."""
        base = reopened(filled([ROW] * 1000))
        _, before = base.arrays()
        again = Columns.of(SCHEMA, {"n": 1000, "schema": SCHEMA.to_json()}, before)
        for name, array in again.arrays()[1].items():
            assert np.shares_memory(array, before[name])
        added(again, [ROW])
        for kind in ("int", "float", "bool", "datetime"):
            column: Any = again[kind]
            assert np.shares_memory(column.values.parts(1001)[0], before[f"{kind}:values"])
        keywords = again["keyword"]
        assert isinstance(keywords, Keywords)
        assert keywords.codes.base is before["keyword:codes"]

    def test_an_older_reader_sees_the_rows_of_its_time(self) -> None:
        """One writer appends while others read, without a lock: views of n rows do not change."""
        grown = Grown(np.arange(3))
        grown.append([3, 4])
        base, tail = grown.parts(4)
        for value in range(5, 5000):
            grown.append([value])
        assert base.tolist() + tail.tolist() == [0, 1, 2, 3]
        assert grown.at(np.array([4999, 0, 2500, 2])).tolist() == [4999, 0, 2500, 2]
        assert grown.whole().tolist() == list(range(5000))

    def test_growing_costs_amortised_constant_time(self) -> None:
        """Room is enlarged by half, so a row is copied about three times, however many come."""
        grown, moves = Grown(np.empty(0, np.int64)), 0
        last: Any = None
        for value in range(20_000):
            grown.append([value])
            tail = grown.parts(len(grown))[1].base
            moves += len(grown) if tail is not last else 0
            last = tail
        assert moves < 4 * 20_000

    def test_memory_counts_what_is_there(self) -> None:
        """The figure that operators plan with: at least the arrays, and inverted indexes too."""
        columns = reopened(filled([ROW] * 10_000))
        _, arrays = columns.arrays()
        before = columns.memory()
        assert before >= sum(array.nbytes for array in arrays.values())
        for field in ("keyword", "keyword_list"):
            column = columns[field]
            assert isinstance(column, Keywords | KeywordLists)
            assert column.postings.count(0) == 10_000
        assert columns.memory() >= before + 3 * 4 * 10_000


def same_arrays(one: Columns, other: Columns) -> bool:
    left, right = one.arrays()[1], other.arrays()[1]
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


class TestDictionary:
    @settings(deadline=None)
    @given(st.lists(STRINGS), st.lists(STRINGS), STRINGS, st.sampled_from(["lt", "le", "gt", "ge"]))
    def test_codes_stand_for_the_strings_that_compare_so(
        self, stored: list[str], later: list[str], text: str, op: str
    ) -> None:
        """An interval of the sorted strings, and single ones of those that came later."""
        first = Dictionary.empty()
        codes = np.array(first.encode(stored), np.int32)
        words = Dictionary.of(*first.stored(codes, keep_all=True)[1:], "f")
        strings = sorted(set(stored), key=str.encode)
        assert words.encode(strings) == list(range(len(strings)))
        strings += [other for other in dict.fromkeys(later) if other not in strings]
        words.encode([*later, None])
        compare = getattr(operator, op)
        for found, matches in [
            (words.compared(op, text), [other for other in strings if compare(other, text)]),
            (words.starting_with(text), [other for other in strings if other.startswith(text)]),
            (words.equal_to([text, "never"]), [other for other in strings if other == text]),
        ]:
            codes_found = [*range(found.low, found.high), *found.others.tolist()]
            assert [strings[code] for code in codes_found] == matches
        assert words.find("never") == -1

    def test_stored_strings_are_not_decoded_until_asked_for(self) -> None:
        """Opening must not cost a pass over a million strings: these are no UTF-8 and open."""
        data = np.full(3000, 0xFF, np.uint8)
        words = Dictionary.of(data, np.arange(0, 3001, 3), "f")
        assert len(words) == 1000
        assert words.find("a") == -1


DAMAGE: list[tuple[str, str, Any]] = [
    ("int:values", "5 values", lambda array: array[:-1]),
    ("int:values", "a flat array", lambda array: array.astype(np.int32)),
    ("int:values", "a flat array", lambda array: array[None, :]),
    ("int:valid", "5 values", lambda array: array[:-1]),
    ("int:valid", "validity 0 or 1", lambda array: array + 1),
    ("datetime:valid", "validity 0 or 1", lambda array: array * 255),
    ("float:values", "5 values", lambda array: array[1:]),
    ("float:values", "a flat array", lambda array: array.astype(np.float32)),
    ("bool:values", "5 values", lambda array: array[1:]),
    ("bool:values", "values 0, 1 or 2", lambda array: array + 2),
    ("geo:lat", "5 places", lambda array: array[1:]),
    ("geo:lon", "5 places", lambda array: array[1:]),
    ("text:valid", "5 validities", lambda array: array[1:]),
    ("text:valid", "validity 0 or 1", lambda array: array + 1),
    ("keyword:codes", "5 codes", lambda array: array[1:]),
    ("keyword:codes", "codes in range", lambda array: array - 2),
    ("keyword:codes", "codes in range", lambda array: array + 1),
    ("keyword:data", "run from 0 to 0", lambda array: array[1:]),
    ("keyword:offsets", "run from 0 to", lambda array: array + 1),
    ("keyword:offsets", "run from 0 to", lambda array: array[:0]),
    ("keyword_list:codes", "run from 0 to 9", lambda array: array[1:]),
    ("keyword_list:codes", "codes in range", lambda array: array + 1),
    ("keyword_list:codes", "codes in range", lambda array: array - 1),
    ("keyword_list:ends", "5 lists", lambda array: array[:-1]),
    ("keyword_list:ends", "run from 0 to 10", lambda array: array // 2),
    ("keyword_list:ends", "they fall behind 2", lambda array: array[[0, 1, 3, 2, 4, 5]]),
    ("keyword_list:valid", "5 lists", lambda array: array[:-1]),
    ("keyword_list:valid", "validity 0 or 1", lambda array: array + 1),
    ("keyword_list:offsets", "they fall behind 1", lambda array: array[[0, 2, 1, 2]]),
]  # fmt: skip


class TestDamage:
    @pytest.mark.parametrize(("name", "message", "damage"), DAMAGE)
    def test_arrays_that_do_not_fit_together_are_refused(
        self, name: str, message: str, damage: Any
    ) -> None:
        """An offset out of range would read another row, or crash; the error names the column."""
        parameters, arrays = filled([ROW] * 5).arrays()
        arrays[name] = damage(arrays[name])
        with pytest.raises(CorruptStorage, match=message) as caught:
            Columns.of(SCHEMA, parameters, arrays)
        assert name.partition(":")[0] in str(caught.value)

    def test_missing_arrays_are_refused(self) -> None:
        """Each by its name."""
        parameters, arrays = filled([ROW]).arrays()
        for name in arrays:
            others = {key: array for key, array in arrays.items() if key != name}
            with pytest.raises(CorruptStorage, match=f"expected a flat array '{name}' .* got none"):
                Columns.of(SCHEMA, parameters, others)

    @pytest.mark.parametrize("n", [None, -1, 4, 6, "5", 5.0, True])
    def test_another_number_of_rows_is_refused(self, n: Any) -> None:
        """The number stands beside the arrays; it must be theirs."""
        parameters, arrays = filled([ROW] * 5).arrays()
        with pytest.raises(CorruptStorage, match="expected"):
            Columns.of(SCHEMA, {**parameters, "n": n}, arrays)

    def test_another_schema_is_refused(self) -> None:
        """Columns of a field that since changed its type are rebuilt, not reread."""
        parameters, arrays = filled([ROW]).arrays()
        other = Schema.of({**SCHEMA.to_json(), "int": "datetime"})
        with pytest.raises(CorruptStorage, match="expected columns of the schema"):
            Columns.of(other, parameters, arrays)


class TestPostings:
    @settings(deadline=None)
    @given(ROWS)
    def test_an_inverted_index_lists_each_row_once(self, rows: list[dict[str, Any]]) -> None:
        """Sorted, so that lists can be merged; nulls stand in none."""
        columns = reopened(filled(rows))
        for name in ("keyword", "keyword_list"):
            column = columns[name]
            assert isinstance(column, Keywords | KeywordLists)
            for text in {text for row in rows for text in ([row[name]] if name == "keyword"
                         else row[name] or []) if text is not None}:  # fmt: skip
                listed = column.postings.of(column.words.find(text)).tolist()
                assert listed == [
                    position
                    for position, row in enumerate(rows)
                    if row[name] is not None
                    and (row[name] == text if name == "keyword" else text in row[name])
                ]

    def test_a_code_that_came_later_has_no_list(self) -> None:
        """The index is of the base; the tail is tested row by row."""
        columns = reopened(filled([ROW]))
        added(columns, [{**ROW, "keyword": "new"}])
        column = columns["keyword"]
        assert isinstance(column, Keywords)
        code = column.words.find("new")
        assert column.postings.count(code) == 0
        assert column.postings.of(code).tolist() == []

    def test_a_list_that_names_a_word_twice_on_disk_is_listed_once(self) -> None:
        """Not written by us, but readable: the row must not be found twice."""
        schema = Schema.of({"tags": "keyword_list"})
        arrays: dict[str, Array] = {
            "tags:codes": np.zeros(3, np.int32),
            "tags:ends": np.array([0, 3, *[3] * 99]),
            "tags:valid": np.ones(100, np.uint8),
            "tags:data": np.frombuffer(b"a", np.uint8),
            "tags:offsets": np.array([0, 1]),
        }
        columns = Columns.of(schema, {"n": 100, "schema": schema.to_json()}, arrays)
        expr = as_filter(F("tags").contains("a"), schema)
        assert expr is not None
        found = matching(expr, columns, no_text_match)
        assert found.is_sparse
        assert found.positions().tolist() == [0]
