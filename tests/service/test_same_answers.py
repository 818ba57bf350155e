"""Embedded or served, blocking or awaited: the same calls, the same answers, the same errors.

    conftest.py (an embedded database and a served one) -> [test_same_answers.py]

Each test asks both databases the same in the same order; Pair.same compares. What may differ is
the place and the names of others in a message, and the class of a batch of an export.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
import soardb_client
from soardb import F
from soardb.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    InvalidArgument,
    NotFound,
    TimedOut,
)
from tests.service.conftest import Pair, Served, opened

D, N = 8, 300
SCHEMA = {
    "lang": "keyword",
    "tags": "keyword_list",
    "freq": "int",
    "price": "float",
    "when": "datetime",
    "body": "text",
    "place": "geo",
    "sold": "bool",
}
VECTORS = np.random.default_rng(7).normal(size=(N, D)).astype(np.float32)
IDS = list(range(100, 100 + N))


def payload_of(i: int) -> dict[str, Any]:
    return {
        "lang": ["en", "de", "fr"][i % 3],
        "tags": [f"t{i % 5}", f"u{i % 7}"],
        "freq": i,
        "price": i / 4,
        "when": f"2024-01-{1 + i % 28:02}T00:00:00Z",
        "body": f"word{i % 10} of the number {i}",
        "place": {"lat": 40 + i / 100, "lon": 10},
        "sold": i % 2 == 0,
        "nested": {"free": [i, None, "ü"]},
    }


PAYLOADS = [payload_of(i) for i in range(N)]


def fill(database: Any, **options: Any) -> Any:
    collection = database.create_collection("c", D, schema=SCHEMA, **options)
    collection.upsert(IDS, VECTORS, PAYLOADS)
    return collection


@pytest.fixture
def full(pair: Pair) -> Pair:
    """Both with the same 300 points in collection c."""
    pair.same(fill)
    return pair


@pytest.fixture(scope="module")
def filled(
    tmp_path_factory: pytest.TempPathFactory, kind: str, loop: asyncio.AbstractEventLoop
) -> Iterator[Pair]:
    """The same for tests that only read; both are there for all of them."""
    folder = tmp_path_factory.mktemp("filled")
    with (
        soardb.connect(folder / "embedded") as embedded,
        Served(folder / "served") as served,
        opened(served.target, kind, loop) as remote,
    ):
        shared = Pair(embedded, remote, [str(embedded.path), str(served.folder), served.target])
        shared.same(fill)
        yield shared


def of_c(ask: Any) -> Any:
    """A question about collection c as one about the database."""
    return lambda database: ask(database.get_collection("c"))


# ---- the methods themselves ----

FACES = [
    (soardb.Database, soardb_client.Client),
    (soardb.Database, soardb_client.AsyncClient),
    (soardb.Collection, soardb_client.Collection),
    (soardb.Collection, soardb_client.AsyncCollection),
]

# What the engine has for those who build on it, and no program calls; and what is said where the
# data are: whether to keep what others ask.
NOT_FOR_CLIENTS = {"rename_to", "begin_put", "real_name", "keep_queries", "shards", "cede"}
# Parameters that one side alone has.
EXTRA = {"timeout"}
NOT_REMOTE = {"stop"}


def shown_parameters(method: Any) -> list[tuple[str, Any]]:
    return [
        (name, parameter.kind)
        for name, parameter in inspect.signature(method).parameters.items()
        if name not in EXTRA | NOT_REMOTE
    ]


class TestFaces:
    @pytest.mark.parametrize(("engine", "client"), FACES, ids=lambda c: c.__module__)
    def test_a_client_has_every_public_method_with_the_same_parameters(
        self, engine: type, client: type
    ) -> None:
        """A program must not change when its database moves to a server."""
        offenders = []
        for name, member in vars(engine).items():
            if name.startswith("_") or name in NOT_FOR_CLIENTS:
                continue
            theirs = vars(client).get(name)
            if theirs is None:
                offenders.append(f"{client.__name__} lacks {name}")
            elif isinstance(member, property) != isinstance(theirs, property):
                offenders.append(f"{client.__name__}.{name}: property or method?")
            elif not isinstance(member, property) and shown_parameters(member) != shown_parameters(
                theirs
            ):
                offenders.append(
                    f"{client.__name__}.{name}{inspect.signature(theirs)} for "
                    f"{inspect.signature(member)}"
                )
        assert not offenders

    @pytest.mark.parametrize(("engine", "client"), FACES, ids=lambda c: c.__module__)
    def test_defaults_are_the_same(self, engine: type, client: type) -> None:
        """A call that says nothing of a parameter means the same everywhere."""
        for name, member in vars(engine).items():
            if name.startswith("_") or name in NOT_FOR_CLIENTS or isinstance(member, property):
                continue
            theirs = inspect.signature(vars(client)[name]).parameters
            for key, parameter in inspect.signature(member).parameters.items():
                if key not in EXTRA | NOT_REMOTE and not callable(parameter.default):
                    assert theirs[key].default == parameter.default, (name, key)

    def test_the_two_clients_have_the_same_methods(self) -> None:
        """Awaiting is the only difference."""
        for one, other in (
            (soardb_client.Client, soardb_client.AsyncClient),
            (soardb_client.Collection, soardb_client.AsyncCollection),
            (soardb_client.Operation, soardb_client.AsyncOperation),
        ):
            names = [{n for n in vars(cls) if not n.startswith("_")} for cls in (one, other)]
            assert names[0] == names[1]

    def test_every_method_takes_a_timeout(self) -> None:
        """But for a stream of writes, which may last as long as it has something to write."""
        without = {"close", "ingest"}
        for cls in (soardb_client.Client, soardb_client.AsyncCollection):
            for name, member in vars(cls).items():
                if not name.startswith("_") and callable(member) and name not in without:
                    parameters = inspect.signature(member).parameters
                    assert parameters.keys() & {"timeout", "options"}, name


# ---- collections ----


class TestCollections:
    def test_made_found_listed_and_dropped(self, pair: Pair) -> None:
        """The life of a collection."""
        pair.same(lambda db: db.create_collection("a", D, "l2", schema={"n": "int"}, ttl=None))
        pair.same(lambda db: db.create_collection("b.2", 4, "dot"))
        assert pair.same(lambda db: db.list_collections()) == ["a", "b.2"]
        pair.same(lambda db: db.get_collection("a"))
        pair.same(lambda db: db.drop_collection("a"))
        assert pair.same(lambda db: db.list_collections()) == ["b.2"]
        pair.refuses(NotFound, lambda db: db.get_collection("a"))
        pair.refuses(NotFound, lambda db: db.drop_collection("a"))

    def test_what_it_is(self, pair: Pair) -> None:
        """Its properties, before the first point and after."""
        pair.same(lambda db: db.create_collection("c", D, schema=SCHEMA, ttl="when"))
        for name in ("name", "d", "metric", "schema", "ttl", "id_kind", "seq"):
            pair.same(of_c(lambda c, name=name: getattr(c, name)))
        pair.same(of_c(lambda c: c.upsert(["a"], [[1.0] * D])))
        for name in ("id_kind", "seq"):
            pair.same(of_c(lambda c, name=name: getattr(c, name)))

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (InvalidArgument, {"dim": 1}),
            (InvalidArgument, {"dim": "8"}),
            (InvalidArgument, {"dim": 5000}),
            (InvalidArgument, {"metric": "cosin"}),
            (InvalidArgument, {"schema": {"a": "integer"}}),
            (InvalidArgument, {"schema": {"1a": "int"}}),
            (InvalidArgument, {"schema": [1]}),
            (InvalidArgument, {"ttl": "when"}),
            (InvalidArgument, {"index": 3}),
            (InvalidArgument, {"index": {"nlist": 2**21}}),
            (InvalidArgument, {"index": {"overretrieve": 3.0}}),
            (InvalidArgument, {"index": {"init": "best"}}),
            (InvalidArgument, {"name": ""}),
            (InvalidArgument, {"name": "../up"}),
            (InvalidArgument, {"name": "con"}),
            (InvalidArgument, {"name": "ü"}),
        ],
        ids=str,
    )
    def test_refused(self, pair: Pair, kind: type[Exception], options: dict[str, Any]) -> None:
        """By the same words, whoever looks first."""
        given = {"name": "c", "dim": D} | options
        pair.refuses(kind, lambda db: db.create_collection(**given))

    @pytest.mark.parametrize("index", [{"nlists": 3}, {"nlist": -1}, {"nlist": "3"}], ids=str)
    def test_options_that_no_message_holds_are_refused(
        self, pair: Pair, index: dict[str, Any]
    ) -> None:
        """In words of the client's own, as they cannot be sent."""
        for database in (pair.embedded, pair.remote):
            with pytest.raises(InvalidArgument, match="nlist"):
                database.create_collection("c", D, index=index)

    @pytest.mark.parametrize("name", [5, None, "\ud800"])
    def test_names_that_no_message_holds_are_refused(self, pair: Pair, name: Any) -> None:
        """Likewise."""
        for database in (pair.embedded, pair.remote):
            for ask in (database.get_collection, database.drop_collection):
                with pytest.raises(InvalidArgument, match="expected the name of a collection"):
                    ask(name)

    def test_one_that_is_there(self, pair: Pair) -> None:
        """exist_ok takes an equal one, and no other."""
        pair.same(lambda db: db.create_collection("c", D))
        pair.refuses(AlreadyExists, lambda db: db.create_collection("c", D))
        pair.refuses(AlreadyExists, lambda db: db.create_collection("C", D))
        pair.same(lambda db: db.create_collection("c", D, exist_ok=True))
        pair.refuses(AlreadyExists, lambda db: db.create_collection("c", 9, exist_ok=True))

    def test_renamed(self, full: Pair) -> None:
        """A handle from before goes on working."""
        handles = {id(db): db.get_collection("c") for db in (full.embedded, full.remote)}
        full.same(lambda db: db.rename_collection("c", "other"))
        full.same(lambda db: (handles[id(db)].name, handles[id(db)].count()))
        full.same(lambda db: db.list_collections())
        full.refuses(NotFound, lambda db: db.rename_collection("c", "x"))
        full.refuses(InvalidArgument, lambda db: db.rename_collection("other", "a/b"))

    def test_aliases(self, full: Pair) -> None:
        """They stand for a collection, change at once, and go with it."""
        full.same(lambda db: db.create_collection("d", D))
        full.same(lambda db: db.set_alias("now", "c"))
        full.same(lambda db: db.get_collection("now"))
        full.same(lambda db: db.set_aliases({"now": "d", "then": "c"}))
        assert full.same(lambda db: db.list_aliases()) == {"now": "d", "then": "c"}
        full.same(lambda db: db.set_aliases({"now": None}))
        full.refuses(NotFound, lambda db: db.set_aliases({"now": None}))
        full.refuses(NotFound, lambda db: db.set_alias("now", "nobody"))
        full.refuses(AlreadyExists, lambda db: db.set_alias("d", "c"))
        full.refuses(AlreadyExists, lambda db: db.create_collection("then", D))
        full.same(lambda db: db.drop_collection("c"))
        assert full.same(lambda db: db.list_aliases()) == {}

    def test_an_alias_of_nothing_is_refused_not_dropped(self, full: Pair) -> None:
        """An empty name drops an alias on the wire; a caller who passes one made a mistake."""
        full.same(lambda db: db.set_alias("now", "c"))
        for database in (full.embedded, full.remote):
            with pytest.raises(InvalidArgument):
                database.set_alias("now", "")
        assert full.same(lambda db: db.list_aliases()) == {"now": "c"}


# ---- writing ----


def with_ids(ids: Any) -> Any:
    return of_c(lambda c: (c.upsert(ids, VECTORS[: len(ids)]), c.get(ids, with_vectors=True)))


class TestWriting:
    @pytest.mark.parametrize(
        "ids",
        [
            [1, 2, 3],
            [-(2**63), 2**63 - 1, 0],
            np.arange(5),
            np.arange(5, dtype=np.uint8),
            ["a", "ü" * 200, "\0x"],
            [3, 3, 1, 3],
            range(4),
            (),
        ],
        ids=lambda ids: type(ids).__name__,
    )
    def test_ids_of_any_form(self, pair: Pair, ids: Any) -> None:
        """They come back as they went."""
        pair.same(lambda db: db.create_collection("c", D))
        pair.same(with_ids(ids))

    @pytest.mark.parametrize("kind", ["float64", "float16", "int32", "float32"])
    def test_vectors_of_any_type(self, pair: Pair, kind: str) -> None:
        """Stored as float32 all."""
        vectors = (VECTORS[:20] * 10).astype(kind)
        pair.same(lambda db: db.create_collection("c", D, "l2"))
        pair.same(of_c(lambda c: c.upsert(range(20), vectors)))
        pair.same(of_c(lambda c: c.upsert([50, 51], vectors[:2].tolist())))
        pair.same(of_c(lambda c: c.get([0, 5, 50, 99], with_vectors=True)))

    def test_tables_and_columns(self, pair: Pair) -> None:
        """Arrow, Polars and pandas, and payloads as columns."""
        import pandas
        import polars
        import pyarrow as pa

        pair.same(lambda db: db.create_collection("c", D, schema={"n": "int"}))
        columns = {"id": [1, 2], "vector": VECTORS[:2].tolist(), "n": [5, None]}
        arrow = pa.table(columns)
        for table in (arrow, polars.DataFrame(columns), pandas.DataFrame(columns)):
            pair.same(of_c(lambda c, table=table: (c.upsert(table), c.get([1, 2]))))
        pair.same(of_c(lambda c: c.upsert([1, 3], VECTORS[:2], {"n": [7, 8], "s": ["a", None]})))
        pair.same(of_c(lambda c: c.get([1, 2, 3], with_vectors=True)))

    def test_payloads_come_back_as_json(self, pair: Pair) -> None:
        """Moments as ISO 8601, tuples as lists, NumPy scalars as numbers."""
        import datetime

        payload = {
            "when": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
            "tuple": (1, 2.5),
            "n": np.int32(4),
            "deep": {"a": {"b": [True, None]}},
            "big": 10**30,
            "text": "ü\u2028\0",
        }
        pair.same(lambda db: db.create_collection("c", D))
        pair.same(of_c(lambda c: c.upsert([1, 2, 3], VECTORS[:3], [payload, {}, None])))
        pair.same(of_c(lambda c: c.get([3, 1, 2])))

    @pytest.mark.parametrize(
        "arguments",
        [
            ([1], [[1.0] * 7]),
            ([1], [1.0] * D),
            ([1, 2], [[1.0] * D]),
            ([1], [[0.0] * D]),
            ([1], [[np.nan] * D]),
            ([1], [[1e30] * D]),
            ([1], [["x"] * D]),
            ([1, "a"], [[1.0] * D] * 2),
            ([1.5], [[1.0] * D]),
            ([True], [[1.0] * D]),
            ([""], [[1.0] * D]),
            (["\ud800"], [[1.0] * D]),
            ([2**63], [[1.0] * D]),
            ("abc", [[1.0] * D]),
            ([1], None),
            ([1], [[1.0] * D], [{"freq": "many"}]),
            ([1], [[1.0] * D], [{"freq": 2**63}]),
            ([1], [[1.0] * D], [{"when": "yesterday"}]),
            ([1], [[1.0] * D], [{"x": object}]),
            ([1], [[1.0] * D], [{"x": float("nan")}]),
            ([1], [[1.0] * D], [{"x": "y" * 2**21}]),
            ([1], [[1.0] * D], [{1: 2}]),
            ([1], [[1.0] * D], [{}, {}]),
            ([1], [[1.0] * D], {"n": [1, 2]}),
            ([1], [[1.0] * D], "text"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_refused(self, full: Pair, arguments: Any) -> None:
        """By the same words, and nothing of it is stored."""
        message = full.refuses(InvalidArgument, of_c(lambda c: c.upsert(*arguments)))
        assert "expected" in message
        full.same(of_c(len))

    def test_ids_of_the_other_kind_are_refused(self, full: Pair) -> None:
        """Which only the server knows."""
        full.refuses(InvalidArgument, of_c(lambda c: c.upsert(["a"], VECTORS[:1])))

    def test_insert(self, full: Pair) -> None:
        """Refuses the whole call where an id is there."""
        full.same(of_c(lambda c: c.insert([1, 2], VECTORS[:2], [{"freq": 1}, None])))
        full.refuses(AlreadyExists, of_c(lambda c: c.insert([3, 2], VECTORS[:2])))
        full.refuses(InvalidArgument, of_c(lambda c: c.insert([3], VECTORS[:1], ack="memory")))
        full.same(of_c(lambda c: (len(c), c.get([1, 2, 3]))))

    @pytest.mark.parametrize("ack", ["fsync", "logged", "memory"])
    def test_each_level_of_acknowledgement(self, full: Pair, ack: Any) -> None:
        """A read sees the write, however little of it was waited for."""
        full.same(of_c(lambda c: c.upsert([1], VECTORS[:1], ack=ack)))
        full.same(of_c(lambda c: c.update_payload({"x": 1}, ids=[1], ack=ack)))
        full.same(of_c(lambda c: c.get([1])))
        full.same(of_c(lambda c: c.delete([100], ack=ack)))
        full.same(of_c(lambda c: c.flush()))
        full.same(of_c(lambda c: (len(c), c.get([1, 100]))))

    def test_flush_tells_of_a_write_that_failed(self, full: Pair) -> None:
        """It was acknowledged from memory, so nobody else can."""
        full.same(of_c(lambda c: c.upsert(["a"], VECTORS[:1], ack="memory")))
        full.refuses(InvalidArgument, of_c(lambda c: c.flush()))
        full.same(of_c(lambda c: c.flush()))

    def test_a_level_that_there_is_not(self, full: Pair) -> None:
        """Said before anything is sent."""
        for ask in (
            lambda c: c.upsert([1], VECTORS[:1], ack="disk"),
            lambda c: c.delete([1], ack="disk"),
            lambda c: c.update_payload({}, ids=[1], ack="disk"),
        ):
            full.refuses(InvalidArgument, of_c(ask))

    def test_updates(self, full: Pair) -> None:
        """By id and by filter, changing and replacing."""
        full.same(of_c(lambda c: c.update_payload({"freq": 5, "body": None}, ids=[100, 101, 100])))
        full.same(of_c(lambda c: c.update_payload({"new": [1]}, filter=F("lang") == "de")))
        full.same(of_c(lambda c: c.update_payload({"only": 1}, ids=[102], replace=True)))
        some = [{"freq": 9}, {"only": None, "each": "ü"}, {}]
        full.same(of_c(lambda c: c.update_payload(some, ids=[103, 102, 101])))
        full.same(of_c(lambda c: c.update_payload([], ids=[])))
        full.same(of_c(lambda c: c.get([100, 101, 102, 103])))
        full.refuses(NotFound, of_c(lambda c: c.update_payload({"a": 1}, ids=[1])))
        full.refuses(NotFound, of_c(lambda c: c.update_payload([{}, {}], ids=[100, 1])))
        bad: list[Any] = [[{}], [{}, 1], [{}, {"freq": "many"}]]
        for several in bad:
            full.refuses(
                InvalidArgument, of_c(lambda c, s=several: c.update_payload(s, ids=[100, 101]))
            )
        for arguments in ({}, {"ids": [100], "filter": F("freq") == 1}):
            full.refuses(
                InvalidArgument, of_c(lambda c, a=arguments: c.update_payload({"x": 1}, **a))
            )
        for payload in ("text", {"freq": "many"}, {"x": object}):
            full.refuses(InvalidArgument, of_c(lambda c, p=payload: c.update_payload(p, ids=[100])))

    def test_deletions(self, full: Pair) -> None:
        """By id, unknown ones being ignored, and by filter."""
        full.same(of_c(lambda c: c.delete([100, 100, 7, 101])))
        full.same(of_c(lambda c: c.delete(filter="lang = 'en' AND freq < 50")))
        full.same(of_c(lambda c: c.delete([])))
        full.same(of_c(lambda c: len(c)))
        full.refuses(InvalidArgument, of_c(lambda c: c.delete()))
        full.refuses(InvalidArgument, of_c(lambda c: c.delete(filter="no such field = 1")))

    def test_a_request_id_is_done_once(self, full: Pair) -> None:
        """The same call gets the same answer, another one under its id is refused."""
        full.same(of_c(lambda c: c.insert([1], VECTORS[:1], request_id="r1")))
        full.same(of_c(lambda c: c.insert([1], VECTORS[:1], request_id="r1")))
        full.refuses(InvalidArgument, of_c(lambda c: c.insert([2], VECTORS[:1], request_id="r1")))
        full.same(of_c(lambda c: c.delete([100], request_id="r2")))
        full.same(of_c(lambda c: c.delete([100], request_id="r2")))
        for wrong in ("", "x" * 129, "a\nb", 5):
            full.refuses(
                InvalidArgument,
                of_c(lambda c, w=wrong: c.upsert([1], VECTORS[:1], request_id=w)),
            )
        full.refuses(
            InvalidArgument,
            of_c(lambda c: c.upsert([1], VECTORS[:1], ack="memory", request_id="r3")),
        )


class TestIngest:
    def test_batches_of_every_form(self, full: Pair) -> None:
        """Tuples with payloads and without, and tables."""
        import pyarrow as pa

        def batches() -> Iterator[Any]:
            yield [1, 2], VECTORS[:2]
            yield [3, 3], VECTORS[:2], [{"freq": 1}, {"freq": 2}]
            yield pa.table({"id": [4], "vector": VECTORS[:1].tolist(), "freq": [9]})
            yield [], np.empty((0, D), np.float32)

        counts: dict[int, list[int]] = {id(db): [] for db in (full.embedded, full.remote)}
        assert full.same(of_c(lambda c: c.ingest(batches()))) == 4
        full.same(of_c(lambda c: c.get([1, 2, 3, 4], with_vectors=True)))

        def told(database: Any) -> int:
            c = database.get_collection("c")
            return int(c.ingest(batches(), progress=counts[id(database)].append))

        full.same(told)
        assert all(c[-1] == 4 and c == sorted(c) for c in counts.values())

    @pytest.mark.parametrize(
        "options",
        [
            {"window": 1},
            {"ack": "logged"},
            {"ack": "memory"},
            {"resume": False},
            {"mode": "insert"},
        ],
        ids=str,
    )
    def test_many_batches(self, full: Pair, options: dict[str, Any]) -> None:
        """All of them, in their order, whatever is under way at once."""
        parts = [(range(i, i + 10), VECTORS[i : i + 10]) for i in range(0, 90, 10)]
        assert full.same(of_c(lambda c: c.ingest(parts, **options))) == 90
        full.same(of_c(lambda c: (len(c), c.get(range(90), with_vectors=True))))

    def test_a_bad_batch_ends_it_after_those_before(self, full: Pair) -> None:
        """Its error is that of an upsert, and what came before is written."""
        parts: list[Any] = [([1], VECTORS[:1]), ([2], VECTORS[:1]), ([3], [[0.0] * D])]
        full.refuses(InvalidArgument, of_c(lambda c: c.ingest(parts)))
        full.same(of_c(lambda c: c.get([1, 2, 3])))
        for wrong in (5, ([1],), "ab"):
            full.refuses(InvalidArgument, of_c(lambda c, w=wrong: c.ingest([w])))

    def test_an_id_that_is_there_ends_an_insert(self, full: Pair) -> None:
        """As it does an insert of its own."""
        parts = [([1], VECTORS[:1]), ([100], VECTORS[:1])]
        full.refuses(AlreadyExists, of_c(lambda c: c.ingest(parts, "insert")))
        full.same(of_c(lambda c: c.get([1])))

    @pytest.mark.parametrize(
        "options",
        [{"mode": "put"}, {"ack": "disk"}, {"window": 0}, {"mode": "insert", "ack": "memory"}],
        ids=str,
    )
    def test_refused(self, full: Pair, options: dict[str, Any]) -> None:
        """Before a batch is taken."""
        full.refuses(InvalidArgument, of_c(lambda c: c.ingest(iter(()), **options)))

    def test_an_error_of_the_callers_own_comes_through(self, full: Pair) -> None:
        """The batches before it are written."""

        def batches() -> Iterator[Any]:
            yield [1], VECTORS[:1]
            raise KeyError("mine")

        full.refuses(KeyError, of_c(lambda c: c.ingest(batches())))
        full.same(of_c(lambda c: c.get([1])))


# ---- reading ----

FILTERS = [
    F("lang") == "en",
    (F("freq") < 50) & ~(F("lang") == "de"),
    F("when") >= "2024-01-15",
    F("tags").contains_any(["t1", "u2"]),
    F("place").within_radius(40.5, 10, 20_000),
    F("body").matches("word3 number"),
    F("freq").isin(range(0, 300, 7)),
    {"and": [{"field": "sold", "op": "eq", "value": True}, {"field": "freq", "op": "not_null"}]},
    "lang IN ('de', 'fr') AND freq BETWEEN 10 AND 60",
    F("freq") > 10_000,
]

BAD_FILTERS: list[Any] = [
    F("nothing") == 1,
    F("freq") == "x",
    F("freq"),
    5,
    "freq <",
    "nothing = 1",
    {"field": "freq"},
    {"and": []},
    {"field": "freq", "op": "like", "value": 1},
]


class TestReading:
    @pytest.mark.parametrize("ids", [[100, 5, 101], [], np.array([399, 100])], ids=str)
    def test_get(self, filled: Pair, ids: Any) -> None:
        """In the order of the ids, None for those that are not there."""
        filled.same(of_c(lambda c: c.get(ids)))
        filled.same(of_c(lambda c: c.get(ids, with_vectors=True)))

    def test_get_refused(self, filled: Pair) -> None:
        """By the gate for ids."""
        for ids in ("abc", 5, [1, "a"], [None], None):
            filled.refuses(InvalidArgument, of_c(lambda c, ids=ids: c.get(ids)))

    @pytest.mark.parametrize("where", [None, *FILTERS], ids=str)
    def test_count_and_scroll(self, filled: Pair, where: Any) -> None:
        """Every point that matches, once, page by page."""

        def pages(c: Any) -> list[Any]:
            found, token = [], None
            while True:
                page = c.scroll(filter=where, page_size=40, page_token=token, with_vectors=True)
                found.append(page.points)
                token = page.next_page_token
                if token is None:
                    return found

        filled.same(of_c(lambda c: c.count(where)))
        filled.same(of_c(pages))
        filled.same(of_c(lambda c: c.scroll(filter=where, with_payload=False).points))

    def test_scroll_refused(self, filled: Pair) -> None:
        """Sizes and tokens that are none; a token of another filter."""
        for options in (
            {"page_size": 0},
            {"page_size": 10_001},
            {"page_size": "5"},
            {"page_token": ""},
            {"page_token": "x"},
            {"page_token": 7},
            {"page_token": "ü"},
            {"page_token": "AAAAAAAAAAAAAAAA"},
        ):
            filled.refuses(InvalidArgument, of_c(lambda c, o=options: c.scroll(**o)))

        def other(c: Any) -> Any:
            token = c.scroll(page_size=1).next_page_token
            return c.scroll(filter=F("freq") == 1, page_token=token)

        filled.refuses(InvalidArgument, of_c(other))

    @pytest.mark.parametrize("where", BAD_FILTERS, ids=str)
    def test_bad_filters(self, filled: Pair, where: Any) -> None:
        """In the same words, in every method that takes one."""
        for ask in (
            lambda c: c.count(where),
            lambda c: c.scroll(filter=where),
            lambda c: c.search(VECTORS[0], filter=where),
            lambda c: c.delete(filter=where),
            lambda c: c.update_payload({}, filter=where),
        ):
            filled.refuses(InvalidArgument, of_c(ask))

    @pytest.mark.parametrize("size", [1, 64, 300, 4096])
    def test_batches(self, full: Pair, size: int) -> None:
        """Every point, in the order of writing, as it is stored."""
        full.same(of_c(lambda c: c.upsert([100], VECTORS[5:6])))

        def read(c: Any) -> list[Any]:
            return [(list(b.ids), list(b.payloads), b.vectors) for b in c.batches(size)]

        full.same(of_c(read))

    def test_stats(self, full: Pair) -> None:
        """The same counts; bytes of memory depend on what was asked before."""
        mine = full.embedded.get_collection("c").stats()
        theirs = full.remote.get_collection("c").stats()
        for key in ("points", "struck", "since_generation", "seq", "nlist", "is_exact", "damage"):
            assert theirs[key] == mine[key]
        assert mine.keys() == theirs.keys()
        assert mine["memory_bytes"].keys() == theirs["memory_bytes"].keys()
        assert mine["disk_bytes"].keys() == theirs["disk_bytes"].keys()
        whole, served = full.embedded.stats(), full.remote.stats()
        assert whole.keys() <= served.keys()
        assert whole["collections"].keys() == served["collections"].keys() == {"c"}


# ---- searching ----

SEARCHES: list[dict[str, Any]] = [
    {"query": VECTORS[3]},
    {"query": VECTORS[3].tolist(), "limit": 3},
    {"query": VECTORS[:5], "limit": 7},
    {"query": VECTORS[:1], "k": 2},
    {"query": VECTORS[:0]},
    {"query": VECTORS[0].astype(np.float64), "exact": True},
    {"query": VECTORS[0], "limit": 10_000},
    {"query": VECTORS[0], "limit": 5, "with_payload": False},
    {"query": VECTORS[:2], "limit": 5, "with_vectors": True},
    {"query": VECTORS[0], "explain": True},
    {"query": VECTORS[:3], "explain": True, "filter": FILTERS[0]},
    {"query": VECTORS[0], "nprobe": 3, "rerank": 50, "threads": 2},
    {"query": VECTORS[0], "target_recall": 0.9, "explain": True},
    {"query": VECTORS[:3], "target_recall": 1},
    {"query": VECTORS[0], "target_recall": 0.5, "filter": FILTERS[0]},
    {"query": VECTORS[0], "score_threshold": 0.5},
    {"query": VECTORS[0], "score_threshold": np.float32(2)},
    {"query": VECTORS[0], "group_by": "lang", "limit": 2, "group_size": 4},
    {"query": VECTORS[0], "group_by": "sold", "with_payload": False, "filter": FILTERS[1]},
    {"query": VECTORS[0], "group_by": "freq", "filter": F("freq") < 0},
    {"id": 105},
    {"id": 105, "limit": 3, "filter": FILTERS[8]},
    {"text": "word3 number"},
    {"text": "word3", "text_fields": ["body"], "limit": 3},
    {"text": "nothing such"},
    {"text": ""},
    {"query": VECTORS[0], "text": "word3"},
    {"query": VECTORS[0], "text": "word3", "fusion": "weighted", "weights": (0.3, 2)},
    {"id": 105, "text": "word5", "limit": 4},
    *({"query": VECTORS[9], "filter": where, "limit": 5} for where in FILTERS),
]

BAD_SEARCHES: list[dict[str, Any]] = [
    {},
    {"query": VECTORS[0], "id": 105},
    {"query": VECTORS[0], "target_recall": 0},
    {"query": VECTORS[0], "target_recall": "much"},
    {"query": VECTORS[0], "target_recall": 0.9, "nprobe": 3},
    {"query": VECTORS[0], "target_recall": 0.9, "rerank": 30},
    {"query": VECTORS[0], "target_recall": 0.9, "exact": True},
    {"query": VECTORS[0][:3]},
    {"query": VECTORS[None]},
    {"query": ["a"] * D},
    {"query": [np.nan] * D},
    {"query": [0.0] * D},
    {"query": VECTORS[0], "limit": 0},
    {"query": VECTORS[0], "limit": 10_001},
    {"query": VECTORS[0], "k": "3"},
    {"query": VECTORS[0], "nprobe": 0},
    {"query": VECTORS[0], "rerank": -1},
    {"query": VECTORS[0], "threads": 0},
    {"query": VECTORS[0], "score_threshold": "high"},
    {"query": VECTORS[0], "score_threshold": np.nan},
    {"query": VECTORS[0], "group_by": "price"},
    {"query": VECTORS[0], "group_by": "nothing"},
    {"query": VECTORS[0], "group_by": ""},
    {"query": VECTORS[0], "group_by": "lang", "group_size": 0},
    {"query": VECTORS[:2], "group_by": "lang"},
    {"query": VECTORS[:2], "text": "word"},
    {"text": 5},
    {"text": "word", "text_fields": "body"},
    {"text": "word", "text_fields": ["lang"]},
    {"text": "word", "fusion": "sum"},
    {"text": "word", "weights": (1,)},
    {"text": "word", "weights": (1, np.inf)},
    {"text": "word", "group_by": "lang"},
    {"text": "word", "score_threshold": 0.1},
    {"text": "w " * 100},
    {"id": "a"},
    {"id": 1.5},
]


def name_of(options: dict[str, Any]) -> str:
    return ",".join(f"{k}={str(v)[:12]}" for k, v in options.items() if k != "query") or "query"


class TestSearching:
    @pytest.mark.parametrize("options", SEARCHES, ids=name_of)
    def test_hits(self, filled: Pair, options: dict[str, Any]) -> None:
        """Ids, scores, payloads, vectors, plan and groups."""
        filled.same(of_c(lambda c: c.search(**options)))

    @pytest.mark.parametrize("options", SEARCHES, ids=name_of)
    def test_columns(self, filled: Pair, options: dict[str, Any]) -> None:
        """The same as flat columns."""
        filled.same(of_c(lambda c: c.search_columns(**options)))

    @pytest.mark.parametrize("options", BAD_SEARCHES, ids=name_of)
    def test_refused(self, filled: Pair, options: dict[str, Any]) -> None:
        """In the same words."""
        error = filled.same(of_c(lambda c: c.search(**options)))
        assert isinstance(error, soardb.SoarError), error

    def test_like_a_point_that_is_not_there(self, filled: Pair) -> None:
        """NotFound, naming the collection."""
        filled.refuses(NotFound, of_c(lambda c: c.search(id=1)))

    def test_an_unknown_keyword_is_a_type_error(self, filled: Pair) -> None:
        """As Python has it."""
        for database in (filled.embedded, filled.remote):
            with pytest.raises(TypeError):
                database.get_collection("c").search_columns(VECTORS[0], limt=3)

    def test_strings_as_ids(self, pair: Pair) -> None:
        """Their results are lists."""
        pair.same(lambda db: db.create_collection("c", D))
        pair.same(of_c(lambda c: c.upsert([f"p{i}" for i in range(20)], VECTORS[:20])))
        pair.same(of_c(lambda c: c.search(VECTORS[:3], 4)))
        pair.same(of_c(lambda c: c.search(id="p3", limit=4)))
        pair.same(of_c(lambda c: c.get(["p3", "q"])))
        pair.same(of_c(lambda c: c.scroll(page_size=7).points))

    def test_an_empty_collection(self, pair: Pair) -> None:
        """No hits, no error."""
        pair.same(lambda db: db.create_collection("c", D))
        pair.same(of_c(lambda c: c.search(VECTORS[0], with_vectors=True)))
        pair.same(of_c(lambda c: c.search(VECTORS[:3])))
        pair.same(of_c(lambda c: list(c.batches())))

    @pytest.mark.parametrize("metric", ["dot", "l2"])
    def test_the_other_metrics(self, pair: Pair, metric: str) -> None:
        """Scores and distances."""
        pair.same(lambda db: db.create_collection("c", D, metric))
        pair.same(of_c(lambda c: c.upsert(IDS, VECTORS)))
        pair.same(of_c(lambda c: c.search(VECTORS[:4])))
        pair.same(of_c(lambda c: c.search(VECTORS[0]).distances))

    def test_results_become_tables(self, filled: Pair) -> None:
        """to_arrow and to_pandas come with Hits."""
        filled.same(of_c(lambda c: c.search(VECTORS[0], with_vectors=True).to_arrow().to_pydict()))
        filled.same(of_c(lambda c: c.search(VECTORS[0]).to_pandas().to_dict()))


# ---- care ----


class TestCare:
    @pytest.mark.parametrize("retrain", [False, True])
    def test_compaction_changes_no_answer(self, full: Pair, retrain: bool) -> None:
        """The same generation comes of the same points."""
        told: dict[int, list[tuple[str, float]]] = {}

        def compact(database: Any) -> None:
            stages = told.setdefault(id(database), [])
            c = database.get_collection("c")
            c.compact(retrain=retrain, progress=lambda stage, share: stages.append((stage, share)))

        full.same(compact)
        assert all(told.values())
        full.same(of_c(lambda c: [c.stats()[k] for k in ("points", "since_generation", "nlist")]))
        full.same(of_c(lambda c: c.search(VECTORS[:9], 5)))

    def test_tuning_measures_the_same_settings(self, full: Pair) -> None:
        """Recall depends on points and seed alone; times are measured where they are spent."""

        def settings(c: Any) -> Any:
            curve = c.tune(5, queries=30, nprobes=[1, 2, 400], reranks=[20], seed=3)
            return curve.k, curve.queries, [(p.nprobe, p.rerank, p.recall) for p in curve.points]

        full.same(of_c(settings))
        wrong: list[dict[str, Any]] = [
            {"k": 0},
            {"k": 300},
            {"queries": 0},
            {"nprobes": []},
            {"seed": -1},
        ]
        for options in wrong:
            full.refuses(InvalidArgument, of_c(lambda c, o=options: c.tune(**o)))

    def test_snapshots_of_one_are_restored_by_the_other(self, full: Pair, tmp_path: Path) -> None:
        """A snapshot is one file, wherever it was taken."""
        full.embedded.snapshot("c", tmp_path / "e")
        stages: list[str] = []
        full.remote.snapshot("c", tmp_path / "r", lambda stage, share: stages.append(stage))
        assert "download" in stages
        full.embedded.restore(tmp_path / "r", "d")
        full.remote.restore(tmp_path / "e", "d", lambda stage, share: stages.append(stage))
        assert "upload" in stages
        full.same(lambda db: db.list_collections())
        full.same(lambda db: db.get_collection("d").search(VECTORS[:5], 20, with_vectors=True))
        assert full.remote.list_snapshots("c") == []

    def test_snapshots_refused(self, full: Pair, tmp_path: Path) -> None:
        """A file that is there, a folder that is not, a name that is taken, no snapshot at all."""
        there = tmp_path / "there"
        there.write_bytes(b"x" * 5000)
        full.refuses(AlreadyExists, lambda db: db.snapshot("c", there))
        full.refuses(NotFound, lambda db: db.snapshot("c", tmp_path / "no" / "file"))
        full.refuses(NotFound, lambda db: db.snapshot("nobody", tmp_path / "new"))
        full.refuses(InvalidArgument, lambda db: db.restore(there, "d"))
        full.refuses(NotFound, lambda db: db.restore(tmp_path / "nothing", "d"))
        full.refuses(AlreadyExists, lambda db: db.restore(there, "c"))
        full.refuses(AlreadyExists, lambda db: db.restore(there, "C"))
        full.same(lambda db: db.list_collections())

    def test_a_damaged_snapshot_is_refused(self, full: Pair, tmp_path: Path) -> None:
        """And nothing of it stays."""
        full.embedded.snapshot("c", tmp_path / "s")
        data = bytearray((tmp_path / "s").read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "s").write_bytes(data)
        for database in (full.embedded, full.remote):
            with pytest.raises(CorruptStorage):
                database.restore(tmp_path / "s", "d")
        full.same(lambda db: db.list_collections())


def _ask_handle(ask: Callable[[Any], Any], handles: dict[int, Any], database: Any) -> Any:
    return ask(handles[id(database)])


class TestClosing:
    def test_a_dropped_collection_is_closed(self, full: Pair) -> None:
        """A handle says so, and what happened."""
        handles = {id(db): db.get_collection("c") for db in (full.embedded, full.remote)}
        full.same(lambda db: db.drop_collection("c"))
        for ask in (
            lambda c: c.count(),
            lambda c: c.get([1]),
            lambda c: c.search(VECTORS[0]),
            lambda c: c.upsert([1], VECTORS[:1]),
            lambda c: c.delete([1]),
            lambda c: c.flush(),
            lambda c: c.stats(),
            lambda c: c.compact(),
            lambda c: c.scroll(),
            lambda c: list(c.batches()),
        ):
            full.refuses(Closed, partial(_ask_handle, ask, handles))

    def test_after_close(self, full: Pair) -> None:
        """Every method refuses; closing again does nothing."""
        handles = {id(db): db.get_collection("c") for db in (full.embedded, full.remote)}
        full.same(lambda db: db.close())
        full.same(lambda db: db.close())
        full.refuses(Closed, lambda db: db.list_collections())
        full.refuses(Closed, lambda db: db.get_collection("c"))
        full.refuses(Closed, lambda db: db.create_collection("d", D))
        full.refuses(Closed, lambda db: db.stats())
        full.refuses(Closed, lambda db: handles[id(db)].count())
        full.refuses(Closed, lambda db: handles[id(db)].upsert([1], VECTORS[:1]))


class TestTimeouts:
    @pytest.mark.parametrize("timeout", ["soon", float("nan"), True])
    def test_that_are_none(self, filled: Pair, timeout: Any) -> None:
        """In the same words."""
        filled.refuses(InvalidArgument, of_c(lambda c: c.count(timeout=timeout)))

    @pytest.mark.parametrize("timeout", [1e-6, 0, -1])
    def test_that_are_too_short(self, filled: Pair, timeout: float) -> None:
        """TimedOut on both sides, in words of each."""
        for database in (filled.embedded, filled.remote):
            collection = database.get_collection("c")
            for ask in (collection.search, collection.search_columns):
                with pytest.raises(TimedOut):
                    ask(np.tile(VECTORS, (3, 1)), 300, exact=True, timeout=timeout)

    def test_that_are_without_end(self, filled: Pair) -> None:
        """Infinity is no limit."""
        filled.same(of_c(lambda c: c.count(timeout=float("inf"))))
