"""What goes into a collection: every form of a batch, and everything that is refused.

    soardb/points.py, soardb/schema.py -> [test_points.py]

The claims: each form of the same points stores the same points, and a call that is refused for
any part of it leaves nothing of itself behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.filters import F
from soardb.kernels.layout import F32
from soardb.points import MAX_BATCH, MAX_ID_BYTES, as_batch, as_point_ids
from soardb.schema import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH
from tests.collections.conftest import D, held, points

IDS = [7, -1, 2**63 - 1, -(2**63)]
VECTORS = points(4)
PAYLOADS: list[dict[str, Any]] = [
    {"n": 1, "tag": "a"},
    {"n": 2, "tag": "b"},
    {"n": 3, "tag": "c"},
    {"n": 4, "tag": "d"},
]
COLUMNS = {"n": [1, 2, 3, 4], "tag": ["a", "b", "c", "d"]}

SCHEMA = {
    "n": "int",
    "price": "float",
    "is_new": "bool",
    "tag": "keyword",
    "tags": "keyword_list",
    "body": "text",
    "at": "datetime",
    "place": "geo",
}


@pytest.fixture
def collection(database: Database) -> Collection:
    """An empty collection with a field of each type."""
    return database.create_collection("things", D, "l2", schema=SCHEMA)


# ---- the forms; each gives the arguments of upsert for the four points above ----


def arrays() -> tuple[Any, ...]:
    return np.array(IDS), VECTORS, PAYLOADS


def lists() -> tuple[Any, ...]:
    return IDS, VECTORS.tolist(), PAYLOADS


def tuples() -> tuple[Any, ...]:
    return tuple(IDS), tuple(map(tuple, VECTORS.tolist())), tuple(PAYLOADS)


def columns() -> tuple[Any, ...]:
    return IDS, VECTORS.astype(np.float64), COLUMNS


def numpy_columns() -> tuple[Any, ...]:
    return IDS, np.asfortranarray(VECTORS), {k: np.array(v) for k, v in COLUMNS.items()}


def arrow_table() -> tuple[Any, ...]:
    pa = pytest.importorskip("pyarrow")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), D)
    return (pa.table({"id": IDS, "vector": vectors, **COLUMNS}),)


def arrow_batch_of_plain_lists() -> tuple[Any, ...]:
    pa = pytest.importorskip("pyarrow")
    vectors = pa.array(VECTORS.tolist(), pa.list_(pa.float64()))
    return (pa.record_batch({"id": IDS, "vector": vectors, **COLUMNS}),)


def arrow_table_in_chunks() -> tuple[Any, ...]:
    pa = pytest.importorskip("pyarrow")
    (whole,) = arrow_table()
    return (pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3)]),)


def arrow_slice() -> tuple[Any, ...]:
    pa = pytest.importorskip("pyarrow")
    (whole,) = arrow_table()
    return (pa.concat_tables([whole, whole]).combine_chunks().slice(4),)


def arrow_table_of_payload_text() -> tuple[Any, ...]:
    (whole,) = arrow_table()
    texts = [json.dumps(payload) for payload in PAYLOADS]
    return (whole.select(["id", "vector"]).append_column("payload", [texts]),)


def arrow_payloads_alone() -> tuple[Any, ...]:
    (whole,) = arrow_table()
    return IDS, VECTORS, whole.select(["n", "tag"])


def polars_frame() -> tuple[Any, ...]:
    pl = pytest.importorskip("polars")
    return (pl.DataFrame({"id": IDS, "vector": VECTORS.tolist(), **COLUMNS}),)


def polars_frame_of_arrays() -> tuple[Any, ...]:
    pl = pytest.importorskip("polars")
    vectors = pl.Series("vector", VECTORS, dtype=pl.Array(pl.Float32, D))
    return (pl.DataFrame({"id": IDS, "vector": vectors, **COLUMNS}),)


def polars_frame_of_payload_text() -> tuple[Any, ...]:
    pl = pytest.importorskip("polars")
    texts = [json.dumps(payload) for payload in PAYLOADS]
    return (pl.DataFrame({"id": IDS, "vector": VECTORS.tolist(), "payload": texts}),)


def pandas_frame() -> tuple[Any, ...]:
    pd = pytest.importorskip("pandas")
    return (pd.DataFrame({"id": IDS, "vector": VECTORS.tolist(), **COLUMNS}, index=list("wxyz")),)


def pandas_columns() -> tuple[Any, ...]:
    pd = pytest.importorskip("pandas")
    return pd.Series(IDS), VECTORS, pd.DataFrame(COLUMNS)


FORMS: list[Callable[[], tuple[Any, ...]]] = [
    arrays,
    lists,
    tuples,
    columns,
    numpy_columns,
    arrow_table,
    arrow_batch_of_plain_lists,
    arrow_table_in_chunks,
    arrow_slice,
    arrow_table_of_payload_text,
    arrow_payloads_alone,
    polars_frame,
    polars_frame_of_arrays,
    polars_frame_of_payload_text,
    pandas_frame,
    pandas_columns,
]


class TestForms:
    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_every_form_stores_the_same_points(
        self, collection: Collection, form: Callable[[], tuple[Any, ...]]
    ) -> None:
        """Somebody who has a frame should not have to take it apart, nor get other values."""
        assert collection.upsert(*form()) == 4
        payloads, vectors = held(collection, IDS)
        assert payloads == PAYLOADS
        assert np.array_equal(vectors, VECTORS)

    def test_a_missing_value_of_a_column_is_an_absent_field(self, collection: Collection) -> None:
        """Columns have no way to leave a field out but null, so null there means absent."""
        collection.upsert([1, 2], VECTORS[:2], {"n": [None, 5], "tag": ["a", None]})
        assert held(collection, [1, 2])[0] == [{"tag": "a"}, {"n": 5}]

    def test_nulls_of_pandas_are_absent_too(self, collection: Collection) -> None:
        """NaN stands for null in frames; as a number it would be refused."""
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({"price": [1.5, float("nan")], "tag": ["a", None]})
        collection.upsert([1, 2], VECTORS[:2], frame)
        assert held(collection, [1, 2])[0] == [{"price": 1.5, "tag": "a"}, {}]

    def test_points_without_payloads_have_an_empty_one(self, collection: Collection) -> None:
        """get() then has the same type for all points."""
        collection.upsert([1, 2, 3], VECTORS[:3], [None, {}, {"n": 1}])
        collection.upsert([4], VECTORS[:1])
        assert held(collection, [1, 2, 3, 4])[0] == [{}, {}, {"n": 1}, {}]

    def test_an_empty_batch_stores_nothing(self, collection: Collection) -> None:
        """A loop over slices meets one; it is no mistake."""
        assert collection.upsert([], np.empty((0, D), np.float32)) == 0
        assert collection.upsert(np.empty(0, np.int64), np.empty((0, D)), []) == 0
        assert collection.count() == 0

    def test_an_array_may_be_changed_as_soon_as_the_call_returns(
        self, collection: Collection
    ) -> None:
        """Buffers are reused in ingest loops, with ack="memory" above all."""
        given = VECTORS.copy()
        collection.upsert(IDS, given, ack="memory")
        given[:] = 0
        assert np.array_equal(held(collection, IDS)[1], VECTORS)


class TestTables:
    def test_a_table_needs_id_and_vector(self, collection: Collection) -> None:
        """The message lists what the table has, so that a typo is seen."""
        pa = pytest.importorskip("pyarrow")
        with pytest.raises(InvalidArgument, match="expected columns id and vector, got key, vec"):
            collection.upsert(pa.table({"key": [1], "vec": [[0.0] * D]}))

    @pytest.mark.parametrize(
        "bad",
        [
            [[0.0] * D, [0.0] * (D - 1)],
            [[0.0] * (D + 1), [0.0] * (D - 1)],  # the right count of numbers in all
            [[0.0] * D, None],
            [[0.0] * D, [0.0] * (D - 1) + [None]],
            ["a", "b"],
        ],
        ids=["short", "balanced", "null", "null inside", "text"],
    )
    def test_a_bad_vector_column_is_refused(self, collection: Collection, bad: list[Any]) -> None:
        """Lists of unequal length must not slide into each other."""
        pa = pytest.importorskip("pyarrow")
        with pytest.raises(InvalidArgument, match="vector"):
            collection.upsert(pa.table({"id": [1, 2], "vector": bad}))
        assert collection.count() == 0

    def test_a_null_id_is_refused(self, collection: Collection) -> None:
        """Nothing would ever find that point again."""
        pa = pytest.importorskip("pyarrow")
        with pytest.raises(InvalidArgument, match="expected ids"):
            collection.upsert(pa.table({"id": [1, None], "vector": VECTORS[:2].tolist()}))

    def test_a_null_vector_in_fixed_size_lists_is_refused(self, collection: Collection) -> None:
        """Its slot holds numbers that mean nothing."""
        pa = pytest.importorskip("pyarrow")
        vectors = pa.array([[0.5] * D, None], pa.list_(pa.float32(), D))
        with pytest.raises(InvalidArgument, match="null"):
            collection.upsert(pa.table({"id": [1, 2], "vector": vectors}))

    def test_no_vectors_and_no_table_is_refused(self, collection: Collection) -> None:
        """A forgotten argument."""
        with pytest.raises(InvalidArgument, match="expected ids and vectors, or one Arrow table"):
            collection.upsert([1, 2])

    def test_payload_text_that_is_no_json_is_refused(self, collection: Collection) -> None:
        """An import must not turn a broken line into an empty payload."""
        (table,) = arrow_table_of_payload_text()
        broken = table.set_column(2, "payload", [["{}", "{", "{}", "{}"]])
        with pytest.raises(InvalidArgument, match="expected a payload as JSON"):
            collection.upsert(broken)
        assert collection.count() == 0


class TestIds:
    def test_the_whole_of_int64_is_there(self, collection: Collection) -> None:
        """Hashes and snowflakes use all 64 bits, the sign included."""
        collection.upsert(IDS, VECTORS, PAYLOADS)
        collection.compact()
        assert held(collection, IDS)[0] == PAYLOADS
        assert {p.id for p in collection.scroll()} == set(IDS)
        assert set(collection.search(VECTORS[0], 4).ids.tolist()) == set(IDS)
        assert collection.delete([2**63 - 1, -(2**63)]) == 2

    @pytest.mark.parametrize("bad", [2**63, -(2**63) - 1, np.uint64(2**63)])
    def test_beyond_int64_is_refused(self, collection: Collection, bad: Any) -> None:
        """It would come back as another number."""
        with pytest.raises(InvalidArgument, match="expected ids within int64, got"):
            collection.upsert([1, bad], VECTORS[:2])

    @pytest.mark.parametrize("bad", [1.0, True, None, b"a", (1,), np.float32(1), np.bool_(True)])
    def test_other_types_are_refused(self, collection: Collection, bad: Any) -> None:
        """1.0 and True equal 1 in Python; taken for ids they would overwrite point 1."""
        with pytest.raises(InvalidArgument, match=r"expected ids of integers \(int64\) or strings"):
            collection.upsert([bad], VECTORS[:1])

    @pytest.mark.parametrize("bad", ["abc", b"abc", 5, None])
    def test_ids_come_as_a_list(self, collection: Collection, bad: Any) -> None:
        """A string is a sequence of strings, which nobody means."""
        with pytest.raises(InvalidArgument):
            collection.upsert(bad, VECTORS[:3])

    def test_strings_are_kept_to_the_byte(self, database: Database) -> None:
        """No case folding, trimming or Unicode normalisation: ids come from other systems."""
        accent, wide = "\N{COMBINING ACUTE ACCENT}", "\N{FULLWIDTH LATIN SMALL LETTER E}"
        names = ["é", "e" + accent, "E", "e", " e", "e ", wide, "a\0b", "a\0", "a", "-1", "0"]
        names += ["日本", "\N{RIGHT-TO-LEFT OVERRIDE}x", "'; --", "\n", "%00", "../x"]
        collection = database.create_collection("names", D, "l2")
        vectors = points(len(names))
        collection.upsert(names, vectors, [{"i": i} for i in range(len(names))])
        for _ in range(2):  # from the tail, then from a generation
            payloads, found = held(collection, names)
            assert payloads == [{"i": i} for i in range(len(names))]
            assert np.array_equal(found, vectors)
            assert set(collection.search(vectors[0], 100).ids) == set(names)
            collection.compact()

    def test_numpy_strings_are_ids_too(self, database: Database) -> None:
        """A column of an array of strings is what many have."""
        collection = database.create_collection("names", D, "l2")
        collection.upsert(np.array(["a", "bb"]), VECTORS[:2])
        collection.upsert(np.array(["c", "a"], object), VECTORS[2:])
        assert sorted(str(p.id) for p in collection.scroll()) == ["a", "bb", "c"]

    @pytest.mark.parametrize("size", [0, MAX_ID_BYTES + 1, 2**20])
    def test_an_empty_or_long_string_is_refused(self, database: Database, size: int) -> None:
        """The message shows the beginning of the id, not a megabyte of it."""
        collection = database.create_collection("names", D, "l2")
        with pytest.raises(InvalidArgument, match=f"expected ids of 1..512 bytes.*got {size}") as e:
            collection.upsert(["x" * size], VECTORS[:1])
        assert len(str(e.value)) < 300

    def test_the_limit_counts_bytes(self, database: Database) -> None:
        """256 letters of two bytes are the most."""
        collection = database.create_collection("names", D, "l2")
        collection.upsert(["é" * 256], VECTORS[:1])
        with pytest.raises(InvalidArgument, match="512 bytes"):
            collection.upsert(["é" * 256 + "x"], VECTORS[:1])

    def test_half_a_surrogate_pair_is_refused(self, database: Database) -> None:
        """It has no UTF-8 form, so it could not be stored."""
        collection = database.create_collection("names", D, "l2")
        with pytest.raises(InvalidArgument, match="UTF-8"):
            collection.upsert(["ok", "\ud800"], VECTORS[:2])

    def test_one_call_has_one_kind(self, collection: Collection) -> None:
        """1 and "1" would be two points for one key."""
        with pytest.raises(InvalidArgument, match="expected ids of one kind"):
            collection.upsert([1, "1"], VECTORS[:2])

    def test_a_collection_has_one_kind(self, collection: Collection) -> None:
        """The kind of the first points stays, even when they are gone."""
        collection.upsert([1], VECTORS[:1])
        collection.delete([1])
        with pytest.raises(InvalidArgument, match="expected integer ids, as the collection holds"):
            collection.upsert(["1"], VECTORS[:1])
        assert collection.get(["1"]) == [None]

    def test_the_last_of_one_id_wins(self, collection: Collection) -> None:
        """As if the points had been written one after the other."""
        given = [5, 6, 5, 5, 6]
        vectors = points(5)
        assert collection.upsert(given, vectors, [{"n": i} for i in range(5)]) == 2
        payloads, found = held(collection, [5, 6])
        assert payloads == [{"n": 3}, {"n": 4}]
        assert np.array_equal(found, vectors[3:])
        assert collection.count() == 2

    def test_too_many_in_one_call_are_refused(self) -> None:
        """A call is one transaction; without a bound it is the whole memory too."""
        ids = np.arange(MAX_BATCH + 1)
        assert len(as_point_ids(ids)) == MAX_BATCH + 1
        vectors = np.broadcast_to(np.float32(1), (MAX_BATCH + 1, 2))
        with pytest.raises(InvalidArgument, match="at most 1,000,000 points.*write several"):
            as_batch(ids, vectors, None, 2, "l2")


class TestVectors:
    @pytest.mark.parametrize("shape", [(3, D + 1), (3, D - 1), (3,), (3, D, 1), (2, D), (0, D)])
    def test_another_shape_is_refused(self, collection: Collection, shape: tuple[int, ...]) -> None:
        """The message says which shape came."""
        with pytest.raises(InvalidArgument, match=r"expected (vectors of shape|as many ids)"):
            collection.upsert([1, 2, 3], np.ones(shape, np.float32))
        assert collection.count() == 0

    def test_one_vector_alone_gets_the_advice(self, collection: Collection) -> None:
        """The commonest mistake of all."""
        with pytest.raises(InvalidArgument, match=r"pass vectors\[None, :\]"):
            collection.upsert([1], np.ones(D, np.float32))

    def test_ragged_lists_are_refused(self, collection: Collection) -> None:
        """NumPy would make objects of them, or fail with a message of its own."""
        with pytest.raises(InvalidArgument, match="expected vectors as one"):
            collection.upsert([1, 2], [[0.0] * D, [0.0] * (D - 1)])

    @pytest.mark.parametrize(
        ("value", "what"),
        [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-np.inf, "NaN or infinity"),
         (1e38, "too large a value"), (-1e30, "too large a value"), (1e300, "NaN or infinity")],
    )  # fmt: skip
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_what_has_no_finite_square_is_refused(
        self, collection: Collection, value: float, what: str, dtype: type
    ) -> None:
        """NaN sorts nowhere, and one such row spoils the centroids of all; the row is named."""
        vectors = np.ones((3, D))
        vectors[2, 5] = value
        with np.errstate(over="ignore"):
            typed: np.ndarray = vectors.astype(dtype)
        with pytest.raises(InvalidArgument, match=f"{what} in row 2"):
            collection.upsert([1, 2, 3], typed)
        assert collection.count() == 0

    @pytest.mark.parametrize("value", [1e18, 1e-30, 1e-45, -0.0])
    def test_large_and_tiny_values_are_kept(self, collection: Collection, value: float) -> None:
        """Finite is finite: subnormal numbers and minus zero come back bit by bit."""
        vectors = np.full((1, D), value, np.float32)
        collection.upsert([1], vectors)
        assert held(collection, [1])[1].tobytes() == vectors.tobytes()

    def test_zero_has_no_direction(self, database: Database) -> None:
        """Under cosine it is refused; elsewhere it is a point like any other."""
        vectors = np.vstack([np.ones(D), np.zeros(D)]).astype(np.float32)
        cosine = database.create_collection("cosine", D, "cosine")
        with pytest.raises(InvalidArgument, match="zero vector in row 1; leave it out or use"):
            cosine.upsert([1, 2], vectors)
        assert cosine.count() == 0
        for metric in ("l2", "dot"):
            other = database.create_collection(metric, D, metric)
            assert other.upsert([1, 2], vectors) == 2

    def test_a_tiny_vector_has_a_direction(self, database: Database) -> None:
        """Its square vanishes in float32, its direction does not."""
        cosine = database.create_collection("cosine", D, "cosine")
        tiny = np.zeros((2, D), np.float32)
        tiny[0, 0] = tiny[1, 1] = 1e-30
        cosine.upsert([1, 2], tiny)
        hits = cosine.search(tiny[1], 2)
        assert hits.ids.tolist() == [2, 1]
        assert np.allclose(hits.scores, [1, 0])

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int64])
    def test_real_numbers_become_float32(self, collection: Collection, dtype: type) -> None:
        """Embeddings come in all of these."""
        collection.upsert([1], np.full((1, D), 3, dtype))
        assert (held(collection, [1])[1] == 3).all()

    @pytest.mark.parametrize("dtype", [complex, bool, object, "U3"])
    def test_other_types_are_refused(self, collection: Collection, dtype: Any) -> None:
        """Booleans and strings of digits are mistakes, not numbers."""
        with pytest.raises(InvalidArgument, match="real number type"):
            collection.upsert([1], np.ones((1, D)).astype(dtype))

    def test_masked_values_are_refused(self, collection: Collection) -> None:
        """What is under the mask is garbage."""
        with pytest.raises(InvalidArgument, match="masked"):
            collection.upsert([1], np.ma.masked_equal(np.ones((1, D)), 1))


def nested(depth: int) -> dict[str, Any]:
    """A payload of that many dicts within each other."""
    payload: dict[str, Any] = {}
    for _ in range(depth - 1):
        payload = {"x": payload}
    return payload


def endless() -> dict[str, Any]:
    """A payload that holds itself."""
    payload: dict[str, Any] = {}
    payload["self"] = payload
    return payload


def bomb() -> dict[str, Any]:
    """Small in memory, 10^9 values as JSON."""
    value: list[Any] = [0] * 10
    for _ in range(8):
        value = [value] * 10
    return {"x": value}


class TestPayloads:
    def test_json_comes_back_as_it_went_in(self, collection: Collection) -> None:
        """Unicode, empty keys, big and small numbers, nesting, nulls: whatever JSON can say."""
        payload = {
            "": "empty key",
            "a.b": "a dot in a key",
            "nul\0": "\0\x01\x7f\u2028\N{PILE OF POO}",
            "numbers": [0, -1, 2**53 + 1, 2**64, -(2**70), 1.5, 1e308, 5e-324, -0.0],
            "nested": {"list": [{"x": [None, True, False]}, [], {}]},
            "id": 5,
            "vector": [1, 2],
            "n": 3,
        }
        collection.upsert([1], VECTORS[:1], [payload])
        (found,), _ = held(collection, [1])
        assert found == payload
        assert str(found) == str(payload)  # True is not 1, nor 1.0

    def test_unusual_values_become_json(self, collection: Collection) -> None:
        """Tuples, NumPy scalars and dates are what programs hold."""
        collection.upsert([1], VECTORS[:1], [{
            "t": (1, 2), "i": np.int32(7), "f": np.float32(0.5), "b": np.bool_(True),
            "d": date(2020, 1, 2), "dt": datetime(2020, 1, 2, 3, tzinfo=UTC),
            "m": np.datetime64("2020-01-02T03:04:05"),
        }])  # fmt: skip
        assert held(collection, [1])[0][0] == {
            "t": [1, 2], "i": 7, "f": 0.5, "b": True,
            "d": "2020-01-02", "dt": "2020-01-02T03:00:00+00:00", "m": "2020-01-02T03:04:05",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("payload", "words"),
        [
            ({"x": float("nan")}, "finite"),
            ({"x": [1, float("inf")]}, "finite"),
            ({"x": {1, 2}}, "JSON values"),
            ({"x": b"bytes"}, "JSON values"),
            ({"x": object()}, "JSON values"),
            ({"x": np.ones(3)}, r"array\.tolist\(\)"),
            ({"x": 1j}, "JSON values"),
            ({1: "x"}, "keys"),
            ({"x": {None: 1}}, "keys"),
            ({"x": "\ud800"}, "UTF-8"),
            ({"\udfff": 1}, "UTF-8"),
            ({"x": 10**5000}, "4,300 digits"),
            (nested(MAX_PAYLOAD_DEPTH + 1), f"at most {MAX_PAYLOAD_DEPTH} deep"),
            (nested(100_000), f"at most {MAX_PAYLOAD_DEPTH} deep"),
            (endless(), f"at most {MAX_PAYLOAD_DEPTH} deep"),
            (bomb(), "more values than fit"),
            ({"x": "y" * MAX_PAYLOAD_BYTES}, "1,048,576 bytes"),
            ([("x", 1)], "dict"),
            ("{}", "dict"),
            (7, "dict"),
        ],
        ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
    )
    def test_what_is_no_payload_is_refused_by_its_number(
        self, collection: Collection, payload: Any, words: str
    ) -> None:
        """In a batch of 10,000 the message must say which; and all others stay out with it."""
        with pytest.raises(InvalidArgument, match=f"payload 1.*{words}"):
            collection.upsert([1, 2], VECTORS[:2], [{}, payload])
        assert collection.count() == 0

    def test_the_bounds_themselves_are_fine(self, collection: Collection) -> None:
        """32 deep and just below a megabyte."""
        room = MAX_PAYLOAD_BYTES - len('{"x":""}')
        collection.upsert([1, 2], VECTORS[:2], [nested(MAX_PAYLOAD_DEPTH), {"x": "y" * room}])
        assert collection.count() == 2

    @pytest.mark.parametrize(
        ("field", "bad", "words"),
        [
            ("n", 1.5, "int within int64"),
            ("n", True, "int within int64"),
            ("n", "1", "int within int64"),
            ("n", 2**63, "does not fit int64"),
            ("price", "1.5", "finite float"),
            ("price", float("nan"), "finite float"),
            ("price", False, "finite float"),
            ("is_new", 1, "True or False"),
            ("is_new", "true", "True or False"),
            ("tag", 1, "a string"),
            ("tag", ["a"], "a string"),
            ("tag", "\ud800", "surrogate"),
            ("tags", "a", "a list of strings"),
            ("tags", ["a", 1], "a list of strings"),
            ("body", 1, "a string"),
            ("at", "yesterday", "ISO 8601"),
            ("at", 1700000000, "ISO 8601"),
            ("at", "0001-01-01T00:00:00+10:00", "1..9999"),
            ("place", [1, 2, 3], "lat"),
            ("place", {"lat": 1}, "lat"),
            ("place", [91, 0], "latitudes"),
            ("place", [0, float("nan")], "lat"),
        ],
    )
    def test_a_declared_field_has_its_type(
        self, collection: Collection, field: str, bad: Any, words: str
    ) -> None:
        """A filter on it could not see the value; the message names field, payload and value."""
        good = {"n": 1}
        with pytest.raises(InvalidArgument, match=f"field '{field}' of payload 1 .*{words}"):
            collection.upsert([1, 2], VECTORS[:2], [good, {field: bad}])
        assert collection.count() == 0

    def test_null_and_absent_are_the_same_to_a_filter(self, collection: Collection) -> None:
        """Whoever has no value writes one or the other."""
        collection.upsert([1, 2, 3], VECTORS[:3], [{"n": None}, {}, {"n": 0}])
        assert collection.count(F("n").is_null()) == 2

    @pytest.mark.parametrize("wrong", [[{}], [{}] * 3, {"n": [1]}, {"n": [1, 2, 3]}, "ab", 5])
    def test_one_payload_a_point(self, collection: Collection, wrong: Any) -> None:
        """zip() would silently stop at the shorter."""
        with pytest.raises(InvalidArgument, match="expected"):
            collection.upsert([1, 2], VECTORS[:2], wrong)
        assert collection.count() == 0


class TestAllOrNothing:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda ids, vectors, payloads: (ids[:-1], vectors, payloads),
            lambda ids, vectors, payloads: ([*ids[:-1], "x"], vectors, payloads),
            lambda ids, vectors, payloads: (ids, _with_nan(vectors), payloads),
            lambda ids, vectors, payloads: (ids, vectors, [*payloads[:-1], {"n": "one"}]),
            lambda ids, vectors, payloads: (ids, vectors, [*payloads[:-1], {"x": {1}}]),
        ],
        ids=["count", "kind", "nan", "typed", "json"],
    )
    @pytest.mark.parametrize("call", ["upsert", "insert"])
    def test_one_bad_point_keeps_all_out(
        self, collection: Collection, spoil: Callable[..., tuple[Any, ...]], call: str
    ) -> None:
        """Else the caller could not simply repeat the call."""
        collection.upsert([1], VECTORS[:1], [{"n": 0}])
        bad = spoil([1, 2, 3, 4], VECTORS, PAYLOADS)
        with pytest.raises(InvalidArgument):
            getattr(collection, call)(*bad)
        assert collection.count() == 1
        payloads, vectors = held(collection, [1])
        assert payloads == [{"n": 0}]
        assert np.array_equal(vectors, VECTORS[:1])
        assert len(collection.search(VECTORS[0], 10)) == 1


def _with_nan(vectors: F32) -> F32:
    spoiled = vectors.copy()
    spoiled[-1, -1] = np.nan
    return spoiled
