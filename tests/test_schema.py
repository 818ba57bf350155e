"""Declared fields and payloads: what is read, what is refused, what comes back.

    soardb/schema.py -> [test_schema.py]

A payload is what users have most of and check least, so each refusal must name the row, the field
and the value.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soardb.errors import CorruptStorage, InvalidArgument
from soardb.schema import (
    FIELD_TYPES,
    MAX_FIELDS,
    MAX_PAYLOAD_BYTES,
    MAX_PAYLOAD_DEPTH,
    Schema,
    decode_payload,
    encode_payload,
    iso_of,
    micros_of,
    normalise,
    parse_payload,
)

DAY = 86_400_000_000


class Colour(StrEnum):
    """A string that is also something else, as users of pydantic have them."""

    RED = "red"


class TestDeclaring:
    def test_declares_every_type(self) -> None:
        """A schema is its own JSON."""
        declared = {f"f{i}": kind for i, kind in enumerate(FIELD_TYPES)}
        schema = Schema.of(declared)
        assert schema.fields == schema.to_json() == declared
        assert Schema.of(schema.to_json()) == schema

    def test_equal_schemas_are_one_key(self) -> None:
        """A collection is reopened with the schema in another order, and a plan is cached by it."""
        one, other = Schema.of({"a": "int", "b": "geo"}), Schema.of({"b": "geo", "a": "int"})
        assert one == other
        assert len({one, other}) == 1
        assert one != Schema.of({"a": "int", "b": "text"})
        assert list(one.fields) == ["a", "b"]

    def test_nothing_declared_is_a_schema(self) -> None:
        """Most collections begin so."""
        assert Schema.of(None) == Schema.of({})
        assert Schema.of(None).extract([{"a": 1}, None]) == {}

    @pytest.mark.parametrize(
        "name",
        ["", "1a", "a-b", "a b", "a.", ".a", "a..b", "é", "a\n", "a" * 65, ".".join("abcdefghi"),
         "$a", 'a"b', 5, None],
    )  # fmt: skip
    def test_refuses_names_that_sql_or_json_could_not_say(self, name: Any) -> None:
        """A name appears in filters, in JSON paths and in files."""
        with pytest.raises(InvalidArgument, match="expected a field name"):
            Schema.of({name: "int"})

    @pytest.mark.parametrize("name", ["a", "_", "A1_b", "a" * 64, "a.b", ".".join("abcdefgh")])
    def test_accepts_dotted_names(self, name: str) -> None:
        """Up to eight parts of 64 characters."""
        assert Schema.of({name: "int"}).fields == {name: "int"}

    def test_an_unknown_type_is_refused_with_the_near_one(self) -> None:
        """`keywords` is what everyone writes once."""
        with pytest.raises(InvalidArgument, match=r"field 'tag' among int, .*'keyword'\?"):
            Schema.of({"tag": "keywords"})
        with pytest.raises(InvalidArgument, match="got <class 'str'>"):
            Schema.of({"tag": str})  # type: ignore[dict-item]

    def test_refuses_more_fields_than_the_cap(self) -> None:
        """Each declared field costs memory in every row."""
        fields = {f"f{i}": "int" for i in range(MAX_FIELDS)}
        assert len(Schema.of(fields).fields) == MAX_FIELDS
        with pytest.raises(InvalidArgument, match="at most 256 declared fields, got 257"):
            Schema.of({**fields, "more": "int"})

    def test_refuses_what_is_no_mapping(self) -> None:
        """A list of names declares no types."""
        with pytest.raises(InvalidArgument, match="expected a schema such as"):
            Schema.of(["a"])  # type: ignore[arg-type]


GOOD: list[tuple[str, Any, Any]] = [
    ("int", 5, 5),
    ("int", -(2**63), -(2**63)),
    ("int", 2**63 - 1, 2**63 - 1),
    ("int", np.int32(7), 7),
    ("int", np.uint64(7), 7),
    ("float", 1.5, 1.5),
    ("float", 2, 2.0),
    ("float", 2**53 + 1, float(2**53)),
    ("float", np.float32(0.5), 0.5),
    ("bool", True, True),
    ("bool", np.bool_(False), False),
    ("keyword", "é\U0001f600\0", "é\U0001f600\0"),
    ("keyword", np.str_("a"), "a"),
    ("keyword", Colour.RED, "red"),
    ("keyword_list", [], []),
    ("keyword_list", ("a", "b"), ["a", "b"]),
    ("text", "the quick fox", "the quick fox"),
    ("datetime", "1970-01-02", DAY),
    ("datetime", "1970-01-02T00:00:00Z", DAY),
    ("datetime", "1970-01-02T01:00:00.000001+01:00", DAY + 1),
    ("datetime", datetime(1970, 1, 2), DAY),
    ("datetime", datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=-1))), DAY + DAY // 24),
    ("datetime", date(1970, 1, 2), DAY),
    ("datetime", np.datetime64("1970-01-02", "ns"), DAY),
    ("geo", {"lat": 1, "lon": -2.5, "alt": 3}, (1.0, -2.5)),
    ("geo", (90, 180), (90.0, 180.0)),
    ("geo", [np.float64(1), 2], (1.0, 2.0)),
]
BAD: list[tuple[str, Any, str]] = [
    ("int", True, "an int within int64, got True (bool)"),
    ("int", np.bool_(True), "an int within int64, got"),
    ("int", 1.0, "an int within int64, got 1.0 (float)"),
    ("int", "1", "an int within int64, got '1' (str)"),
    ("int", 2**63, "it does not fit int64"),
    ("int", np.uint64(2**63), "it does not fit int64"),
    ("float", False, "a finite float or an int, got False (bool)"),
    ("float", float("nan"), "leave the field out"),
    ("float", float("inf"), "leave the field out"),
    ("float", 10**400, "too large"),
    ("float", "1.5", "got '1.5' (str)"),
    ("bool", 1, "True or False, got 1 (int)"),
    ("bool", "true", "True or False, got 'true' (str)"),
    ("keyword", 5, "a string, got 5 (int)"),
    ("keyword", b"a", "a string, got b'a' (bytes)"),
    ("keyword", ["a"], "a string, got ['a'] (list)"),
    ("keyword", "\ud800", "half a surrogate pair"),
    ("text", "\udfff", "half a surrogate pair"),
    ("keyword_list", "abc", "a list of strings, got 'abc' (str)"),
    ("keyword_list", ["a", 1], "a list of strings"),
    ("keyword_list", ["a", None], "a list of strings"),
    ("keyword_list", {"a"}, "a list of strings"),
    ("keyword_list", ["\ud800"], "half a surrogate pair"),
    ("datetime", 1700000000, "an ISO 8601 string, a datetime or a date, got 1700000000"),
    ("datetime", "yesterday", "Invalid isoformat string"),
    ("datetime", "0001-01-01T00:00:00+01:00", "outside the years 1..9999"),
    ("datetime", np.datetime64("NaT"), "an ISO 8601 string"),
    ("geo", (91, 0), "latitudes are within -90..90"),
    ("geo", (0, 180.1), "latitudes are within -90..90"),
    ("geo", (0, float("nan")), "leave the field out"),
    ("geo", {"lat": 1}, "(lat, lon) in degrees, got {'lat': 1} (dict)"),
    ("geo", (1, 2, 3), "(lat, lon) in degrees"),
    ("geo", "1,2", "(lat, lon) in degrees"),
    ("geo", (True, False), "(lat, lon) in degrees"),
]


class TestExtracting:
    @pytest.mark.parametrize(("kind", "value", "typed"), GOOD)
    def test_a_value_becomes_the_canonical_one(self, kind: str, value: Any, typed: Any) -> None:
        """Alone and beside others of the usual type, as batches take a faster way."""
        schema = Schema.of({"f": kind})
        for payloads in ([{"f": value}], [{"f": value}, {"f": GOOD_OF[kind]}, {}]):
            found = schema.extract(payloads)["f"][0]
            assert found == typed
            assert type(found) is type(typed)

    @pytest.mark.parametrize(("kind", "value", "message"), BAD)
    def test_a_wrong_value_names_row_field_and_value(
        self, kind: str, value: Any, message: str
    ) -> None:
        """Among a thousand rows, which one is it?"""
        payloads = [{"f": GOOD_OF[kind]}, None, {"f": value}]
        wanted = f"expected field 'f' of payload 2 to be .*{re.escape(message)}"
        with pytest.raises(InvalidArgument, match=wanted):
            Schema.of({"f": kind}).extract(payloads)

    def test_absent_and_null_are_the_same(self) -> None:
        """Filters know one kind of nothing."""
        for kind in FIELD_TYPES:
            schema = Schema.of({"f": kind})
            assert schema.extract([{}, None, {"f": None}, {"g": 1}]) == {"f": [None] * 4}

    def test_a_dotted_name_reaches_into_objects(self) -> None:
        """And finds nothing where the way ends early, or where a key merely looks like it."""
        schema = Schema.of({"a.b": "int", "a": "keyword"})
        payloads: list[Any] = [{"a": "x"}, {"a": None}, {"a.b": 1}, {}]
        assert schema.extract(payloads)["a.b"] == [None] * 4
        nested = Schema.of({"a.b.c": "int"})
        assert nested.extract([{"a": {"b": {"c": 1}}}, {"a": {"b": 5}}, {"a": [1]}]) == {
            "a.b.c": [1, None, None]
        }

    def test_any_mapping_is_a_payload(self) -> None:
        """A row of a table library is often no dict."""
        assert Schema.of({"a": "int"}).extract([MappingProxyType({"a": 1})]) == {"a": [1]}

    def test_what_is_no_mapping_is_refused_by_its_row(self) -> None:
        """A list of values where a dict was meant."""
        with pytest.raises(InvalidArgument, match="expected payload 1 to be a dict or None, got 5"):
            Schema.of({"a": "int"}).extract([{}, 5])  # type: ignore[list-item]

    def test_no_payloads_are_no_values(self) -> None:
        """An empty batch is a batch."""
        assert Schema.of({"a": "int", "b": "geo"}).extract([]) == {"a": [], "b": []}


GOOD_OF: dict[str, Any] = {kind: value for kind, value, _ in reversed(GOOD)}


class TestMoments:
    @given(st.datetimes(timezones=st.none() | st.just(UTC)))
    def test_a_moment_survives_as_microseconds(self, moment: datetime) -> None:
        """To the microsecond, over all years that Python knows."""
        micros = micros_of(moment)
        assert micros_of(iso_of(micros)) == micros
        assert micros_of(moment.isoformat()) == micros

    def test_order_is_kept(self) -> None:
        """Filters compare the numbers in place of the moments."""
        moments = ["0001-01-01", "1969-12-31T23:59:59.999999", "1970-01-01", "9999-12-31"]
        assert sorted(map(micros_of, moments)) == [micros_of(moment) for moment in moments]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\u00e9"), inner, max_size=4)
    ),
    max_leaves=20,
)


class TestPayloads:
    @given(st.dictionaries(st.text("abc"), JSON_VALUES, max_size=5))
    def test_json_comes_back_as_it_was(self, payload: dict[str, Any]) -> None:
        """Types included: 1.0 stays a float and True a bool."""
        data = encode_payload(payload)
        assert repr(decode_payload(data)) == repr(payload)
        assert repr(parse_payload(data)) == repr(payload)

    def test_other_types_become_json(self) -> None:
        """What NumPy and datetime hand out is accepted, since it is what users have."""
        payload = {
            "a": np.float32(0.5),
            "b": np.int64(3),
            "c": np.bool_(True),
            "d": (1, np.str_("x")),
            "e": datetime(2024, 1, 2, 3, 4, 5),
            "f": date(2024, 1, 2),
            "g": np.datetime64("2024-01-02T03:04:05.5", "ns"),
            "h": Colour.RED,
            "i": MappingProxyType({"j": [Colour.RED]}),
        }
        assert decode_payload(encode_payload(payload)) == {
            "a": 0.5,
            "b": 3,
            "c": True,
            "d": [1, "x"],
            "e": "2024-01-02T03:04:05",
            "f": "2024-01-02",
            "g": "2024-01-02T03:04:05.500000",
            "h": "red",
            "i": {"j": ["red"]},
        }

    def test_the_text_is_compact_and_readable(self) -> None:
        """It is stored once a row, and read by people with sqlite3."""
        assert encode_payload({"a": [1, 2], "b": "é"}) == '{"a":[1,2],"b":"é"}'.encode()
        assert encode_payload(None) == b"{}"

    def test_normalising_copies(self) -> None:
        """The caller may change the dict before the row is written."""
        inner: dict[str, Any] = {"a": [1]}
        plain = normalise({"b": inner})
        inner["a"].append(2)
        assert plain == {"b": {"a": [1]}}

    @pytest.mark.parametrize(
        ("payload", "message"),
        [
            ({"a": float("nan")}, r"finite numbers, as JSON has them, got nan at payload\['a'\]"),
            ({"a": [1, np.inf]}, r"got inf at payload\['a'\]\[1\]"),
            ({1: 2}, r"keys of payload to be strings, as JSON has them, got 1 \(int\)"),
            ({"a": {None: 2}}, r"keys of payload\['a'\] to be strings"),
            ({"a": "x\ud800y"}, "half a surrogate pair"),
            ({"\udc00": 1}, "half a surrogate pair"),
            ({"a": 10**5000}, "write it as a string"),
            ({"a": np.zeros(2)}, r"at payload\['a'\]; pass array.tolist\(\)"),
            ({"a": {1, 2}}, r"expected JSON values .* got \{1, 2\} \(set\)"),
            ({"a": b"x"}, r"got b'x' \(bytes\)"),
            ({"a": np.datetime64("NaT")}, "^$"),
            ([("a", 1)], "expected a payload as a dict or None"),
            ({"a": "x" * MAX_PAYLOAD_BYTES}, "at most 1,048,576 bytes as JSON, got 1,048,584"),
        ],
    )  # fmt: skip
    def test_what_json_cannot_say_is_refused_with_its_place(
        self, payload: Any, message: str
    ) -> None:
        """NaN, above all, which Python's json writes and no other reader accepts."""
        if message == "^$":
            assert encode_payload(payload) == b'{"a":null}'
            return
        with pytest.raises(InvalidArgument, match=message):
            encode_payload(payload)

    def test_nesting_has_a_cap(self) -> None:
        """A reader in another language has less stack than ours."""
        deep: Any = 1
        for _ in range(MAX_PAYLOAD_DEPTH - 1):
            deep = {"a": deep}
        assert decode_payload(encode_payload({"a": deep}))
        with pytest.raises(InvalidArgument, match="nested at most 32 deep"):
            encode_payload({"a": {"a": deep}})

    def test_a_payload_that_holds_itself_is_refused(self) -> None:
        """Without end it is deeper than any cap."""
        cycle: dict[str, Any] = {}
        cycle["a"] = [cycle]
        with pytest.raises(InvalidArgument, match="see that it does not hold itself"):
            encode_payload(cycle)

    def test_a_payload_of_one_list_many_times_is_refused_at_once(self) -> None:
        """Thirty lists in memory, a billion values as JSON."""
        doubled: list[Any] = [1]
        for _ in range(30):
            doubled = [doubled, doubled]
        with pytest.raises(InvalidArgument, match="more values than fit"):
            encode_payload({"a": doubled})

    @pytest.mark.parametrize(
        "data",
        ["[1]", "1", "", '{"a":NaN}', '{"a":1e999}', "{", '{"a":' + "9" * 5000 + "}", "[" * 100_000,
         b"\xff", '{"a":' * 40 + "1" + "}" * 40, '{"a":"' + "x" * MAX_PAYLOAD_BYTES + '"}'],
        ids=lambda data: repr(data[:12]),
    )  # fmt: skip
    def test_hostile_json_from_outside_is_refused(self, data: Any) -> None:
        """A server reads this from strangers: an InvalidArgument, and no other error."""
        with pytest.raises(InvalidArgument, match="expected"):
            parse_payload(data)

    @pytest.mark.parametrize("data", [b"[1]", b"", b"{", b"\xff", b"[" * 100_000])
    def test_a_stored_payload_that_is_none_is_corrupt(self, data: bytes) -> None:
        """Nobody's argument was wrong: the bytes on disk are."""
        with pytest.raises(CorruptStorage, match="expected a payload as"):
            decode_payload(data)

    def test_json_text_is_read_by_any_reader(self) -> None:
        """Standard JSON, whatever was put in."""
        assert json.loads(encode_payload({"a": "\u2028\0\x7f"})) == {"a": "\u2028\0\x7f"}
