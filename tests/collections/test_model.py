"""A collection against a dict: random calls in random order, and the same answers.

    soardb/collection.py and all below it -> [test_model.py] -> hypothesis

The model is a dict from id to vector and payload, scores by the definition of the metric, filters
by SQL's logic of three values over the dict. Whatever the collection does to be fast (generations,
tails, tombstones, plans), every answer must be the model's: ids, scores, payloads, counts, pages.

Four variants: integer and string ids, each answered by exact scans and by the lists. "Crash" opens
a copy of the files as they lie there. `make model` runs it for long; SOARDB_MODEL_EXAMPLES says how
many examples of 50 steps each variant gets.

Not here: expiry (test_ttl.py), several threads (test_writing.py), damage (test_compaction.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from soardb import search as planning
from soardb.collection import Collection
from soardb.errors import AlreadyExists, InvalidArgument, NotFound
from soardb.filters import Expr, F
from soardb.hits import Hits
from soardb.metrics import METRICS
from soardb.writer import ACKS
from tests.collections.conftest import crashed, expect_best, held, ids_of, open_by_hand

EXAMPLES = int(os.environ.get("SOARDB_MODEL_EXAMPLES", "0"))
STEPS = 50

_D = 3
_SCHEMA = {
    "n": "int",
    "x": "float",
    "is_new": "bool",
    "tag": "keyword",
    "tags": "keyword_list",
    "at": "datetime",
    "in.side": "int",
    "body": "text",
}
_TAGS = ["a", "b", "ab", "", "ä"]
_START = datetime(2024, 1, 1, tzinfo=UTC)
_INTS = [0, -1, 1, 2**63 - 1, -(2**63), *range(100, 117)]
_STRINGS = ["a", "A", "é", "e\N{COMBINING ACUTE ACCENT}", "0", " ", *(f"id{i}" for i in range(16))]

counted: Counter[str] = Counter()
"""Steps done, by rule, over all variants."""

Truth = Callable[[dict[str, Any]], bool | None]


@dataclass(frozen=True)
class Filter:
    """A filter and what it says of a payload: True, False or None for unknown."""

    expr: Expr
    truth: Truth

    def __repr__(self) -> str:
        return str(self.expr)


def _leaf(expr: Expr, field: str, test: Callable[[Any], bool]) -> Filter:
    def truth(payload: dict[str, Any]) -> bool | None:
        value: Any = payload
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else test(value)

    return Filter(expr, truth)


def _null(field: str) -> Filter:
    inner = _leaf(F(field).is_null(), field, lambda value: False)
    return Filter(inner.expr, lambda payload: inner.truth(payload) is None)


def _words(text: str) -> set[str]:
    return set(text.split())


def _moment(days: int) -> str:
    return (_START + timedelta(days=days)).isoformat()


_SMALL = st.integers(-3, 3)
_LEAVES: list[st.SearchStrategy[Filter]] = [
    _SMALL.map(lambda v: _leaf(F("n") < v, "n", lambda n: bool(n < v))),
    _SMALL.map(lambda v: _leaf(F("n") == v, "n", lambda n: bool(n == v))),
    _SMALL.map(lambda v: _leaf(F("in.side") >= v, "in.side", lambda n: bool(n >= v))),
    st.lists(_SMALL, max_size=3).map(lambda v: _leaf(F("n").isin(v), "n", lambda n: n in v)),
    _SMALL.map(lambda v: _leaf(F("x") > v / 2, "x", lambda x: bool(x > v / 2))),
    st.booleans().map(lambda v: _leaf(F("is_new") == v, "is_new", lambda b: bool(b == v))),
    st.sampled_from(_TAGS).map(lambda v: _leaf(F("tag") == v, "tag", lambda t: bool(t == v))),
    st.sampled_from(_TAGS).map(lambda v: _leaf(F("tag") != v, "tag", lambda t: bool(t != v))),
    st.sampled_from(["", "a"]).map(
        lambda v: _leaf(F("tag").startswith(v), "tag", lambda t: bool(t.startswith(v)))
    ),
    st.sampled_from(_TAGS).map(lambda v: _leaf(F("tags").contains(v), "tags", lambda t: v in t)),
    st.lists(st.sampled_from(_TAGS), min_size=1, max_size=2).map(
        lambda v: _leaf(F("tags").contains_all(v), "tags", lambda t: set(v) <= set(t))
    ),
    _SMALL.map(
        lambda v: _leaf(
            F("at") < _moment(v), "at", lambda t: datetime.fromisoformat(t) < _START + timedelta(v)
        )
    ),
    st.sampled_from(["fox", "dog"]).map(
        lambda v: _leaf(F("body").matches(v), "body", lambda t: v in _words(t))
    ),
    st.just(F("body").matches_any("fox cow")).map(
        lambda expr: _leaf(expr, "body", lambda t: bool(_words(t) & {"fox", "cow"}))
    ),
    st.sampled_from(["n", "x", "tag", "tags", "at", "in.side"]).map(_null),
]  # fmt: skip


def _joined(children: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    def both(pair: tuple[Filter, Filter]) -> Filter:
        def truth(payload: dict[str, Any]) -> bool | None:
            found = {pair[0].truth(payload), pair[1].truth(payload)}
            return False if False in found else None if None in found else True

        return Filter(pair[0].expr & pair[1].expr, truth)

    def either(pair: tuple[Filter, Filter]) -> Filter:
        def truth(payload: dict[str, Any]) -> bool | None:
            found = {pair[0].truth(payload), pair[1].truth(payload)}
            return True if True in found else None if None in found else False

        return Filter(pair[0].expr | pair[1].expr, truth)

    def opposite(one: Filter) -> Filter:
        def truth(payload: dict[str, Any]) -> bool | None:
            found = one.truth(payload)
            return None if found is None else not found

        return Filter(~one.expr, truth)

    pairs = st.tuples(children, children)
    return st.one_of(pairs.map(both), pairs.map(either), children.map(opposite))


FILTERS = st.recursive(st.one_of(_LEAVES), _joined, max_leaves=4)

_TYPED = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63)]),
        "x": st.none() | st.sampled_from([-1.5, 0.0, 0.5, 1.0, 1e300]),
        "is_new": st.none() | st.booleans(),
        "tag": st.none() | st.sampled_from(_TAGS),
        "tags": st.none() | st.lists(st.sampled_from(_TAGS), max_size=3),
        "at": st.none() | st.integers(-3, 3).map(_moment),
        "in": st.none() | st.just({}) | st.integers(-3, 3).map(lambda v: {"side": v}),
        "body": st.none() | st.sampled_from(["", "fox", "dog fox", "cow dog", "the"]),
        "free": st.sampled_from([None, [1, {"a": None}], "\0", {"": 2**64}]),
    },
)
PAYLOADS = st.none() | _TYPED
_NUMBERS = st.sampled_from([-2.0, -1.0, -0.5, 0.25, 1.0, 3.0])
VECTORS = st.lists(_NUMBERS, min_size=_D, max_size=_D)
LIMITS = st.sampled_from([1, 2, 5, 100])


class CollectionMachine(RuleBasedStateMachine):
    """One collection and its model. The variants below say which ids and which plans."""

    ids: ClassVar[list[Any]] = []
    by_lists: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        if self.by_lists:
            self.patched.setattr(planning, "EXACT_NUMBERS", 0)
            self.patched.setattr(planning, "_EXACT_CODES", 1e9)
            self.patched.setattr(planning, "_LARGE", 0)
        self.root = Path(tempfile.mkdtemp(prefix="soardb-model-"))
        self.opened = 0
        self.database = open_by_hand(self.root / "0")
        self.model: dict[Any, tuple[Any, dict[str, Any]]] = {}

    def teardown(self) -> None:
        """Close and clean up; counts stay."""
        self.database.close()
        shutil.rmtree(self.root)
        self.patched.undo()

    @initialize(metric=st.sampled_from(METRICS))
    def create(self, metric: str) -> None:
        index = {"nlist": 3} if self.by_lists else {}
        self.database.create_collection("c", _D, metric, schema=_SCHEMA, index=index)
        self.collection: Collection = self.database.get_collection("c")

    # ------------------------------------------------------------------ writes

    def ids_drawn(self, data: st.DataObject, least: int = 1) -> list[Any]:
        return data.draw(st.lists(st.sampled_from(self.ids), min_size=least, max_size=6))

    def points_drawn(self, data: st.DataObject) -> tuple[list[Any], np.ndarray, list[Any]]:
        ids = self.ids_drawn(data)
        size = {"min_size": len(ids), "max_size": len(ids)}
        vectors = np.array(data.draw(st.lists(VECTORS, **size)), np.float32)  # type: ignore[arg-type]
        return ids, vectors, data.draw(st.lists(PAYLOADS, **size))  # type: ignore[arg-type]

    def store(self, ids: list[Any], vectors: np.ndarray, payloads: list[Any]) -> None:
        for point_id, vector, payload in zip(ids, vectors, payloads, strict=True):
            self.model[point_id] = vector, dict(payload or {})

    @rule(data=st.data(), ack=st.sampled_from(ACKS))
    def upsert(self, data: st.DataObject, ack: Any) -> None:
        counted["upsert"] += 1
        ids, vectors, payloads = self.points_drawn(data)
        stored = self.collection.upsert(ids, vectors, payloads, ack=ack)
        assert stored == (0 if ack == "memory" else len(set(ids)))
        self.store(ids, vectors, payloads)

    @rule(data=st.data())
    def insert(self, data: st.DataObject) -> None:
        counted["insert"] += 1
        ids, vectors, payloads = self.points_drawn(data)
        if self.model.keys() & set(ids):
            with pytest.raises(AlreadyExists):
                self.collection.insert(ids, vectors, payloads, ack="logged")
        else:
            assert self.collection.insert(ids, vectors, payloads, ack="logged") == len(set(ids))
            self.store(ids, vectors, payloads)

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        counted["refused"] += 1
        ids, vectors, payloads = self.points_drawn(data)
        vectors[-1, 0] = np.nan
        with pytest.raises(InvalidArgument):
            self.collection.upsert(ids, vectors, payloads)

    @rule(data=st.data(), ack=st.sampled_from(ACKS))
    def delete(self, data: st.DataObject, ack: Any) -> None:
        counted["delete"] += 1
        ids = self.ids_drawn(data)
        gone = self.model.keys() & set(ids)
        assert self.collection.delete(ids, ack=ack) == (0 if ack == "memory" else len(gone))
        for point_id in gone:
            del self.model[point_id]

    @rule(where=FILTERS)
    def delete_by_filter(self, where: Filter) -> None:
        counted["delete_by_filter"] += 1
        gone = self.matching(where)
        if len(gone) > len(self.model) / 2:  # else the collection is empty most of the time
            where = _and_tag(where)
            gone = self.matching(where)
        assert self.collection.delete(filter=where.expr, ack="logged") == len(gone)
        for point_id in gone:
            del self.model[point_id]

    @rule(data=st.data(), change=_TYPED, replace=st.booleans())
    def update_payload(self, data: st.DataObject, change: dict[str, Any], replace: bool) -> None:
        counted["update_payload"] += 1
        ids = self.ids_drawn(data)
        if set(ids) <= self.model.keys():
            done = self.collection.update_payload(change, ids=ids, replace=replace, ack="logged")
            assert done == len(set(ids))
            self.change(set(ids), change, replace)
        else:
            with pytest.raises(NotFound):
                self.collection.update_payload(change, ids=ids, replace=replace)

    @rule(where=FILTERS, change=_TYPED, ack=st.sampled_from(ACKS))
    def update_by_filter(self, where: Filter, change: dict[str, Any], ack: Any) -> None:
        counted["update_by_filter"] += 1
        chosen = self.matching(where)
        done = self.collection.update_payload(change, filter=where.expr, ack=ack)
        assert done == (0 if ack == "memory" else len(chosen))
        self.change(set(chosen), change, False)

    def change(self, ids: set[Any], change: dict[str, Any], replace: bool) -> None:
        for point_id in ids:
            vector, payload = self.model[point_id]
            new = change if replace else payload | change
            removed = set() if replace else {k for k, v in change.items() if v is None}
            self.model[point_id] = vector, {k: v for k, v in new.items() if k not in removed}

    # ------------------------------------------------------------------ reads

    def matching(self, where: Filter | None) -> list[Any]:
        return [
            point_id
            for point_id, (_, payload) in self.model.items()
            if where is None or where.truth(payload) is True
        ]

    def expect(self, hits: Hits, query: Any, limit: int, chosen: list[Any]) -> None:
        vectors = np.array([self.model[i][0] for i in chosen], np.float32).reshape(-1, _D)
        if chosen:
            asked = np.array(query, np.float32)
            expect_best(hits, chosen, vectors, asked, self.collection.metric, limit)
        else:
            assert ids_of(hits) == []
        for hit in hits:
            assert hit.payload == self.model[hit.id][1]

    @rule(query=VECTORS, limit=LIMITS, exact=st.booleans())
    def search(self, query: list[float], limit: int, exact: bool) -> None:
        counted["search"] += 1
        self.expect(
            self.collection.search(query, limit, exact=exact), query, limit, list(self.model)
        )

    @rule(query=VECTORS, limit=LIMITS, where=FILTERS, exact=st.booleans())
    def search_filtered(self, query: list[float], limit: int, where: Filter, exact: bool) -> None:
        counted["search_filtered"] += 1
        hits = self.collection.search(query, limit, filter=where.expr, exact=exact)
        self.expect(hits, query, limit, self.matching(where))

    @rule(data=st.data(), limit=LIMITS)
    def search_by_id(self, data: st.DataObject, limit: int) -> None:
        counted["search_by_id"] += 1
        point_id = data.draw(st.sampled_from(self.ids))
        if point_id not in self.model:
            with pytest.raises(NotFound):
                self.collection.search(id=point_id)
            return
        hits = self.collection.search(id=point_id, limit=limit)
        others = [other for other in self.model if other != point_id]
        self.expect(hits, self.model[point_id][0], limit, others)

    @rule(word=st.sampled_from(["fox", "dog", "cow", "nothing"]))
    def search_text(self, word: str) -> None:
        counted["search_text"] += 1
        expected = {i for i, (_, p) in self.model.items() if word in _words(p.get("body") or "")}
        found = ids_of(self.collection.search(text=word, limit=100))
        assert len(set(found)) == len(found)
        assert set(found) == expected

    @rule(where=FILTERS)
    def count(self, where: Filter) -> None:
        counted["count"] += 1
        assert self.collection.count(where.expr) == len(self.matching(where))

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        counted["get"] += 1
        ids = self.ids_drawn(data, least=0)
        for point_id, point in zip(ids, self.collection.get(ids, with_vectors=True), strict=True):
            if point_id not in self.model:
                assert point is None
                continue
            vector, payload = self.model[point_id]
            assert point is not None
            assert (point.id, point.payload) == (point_id, payload)
            assert np.array_equal(point.vector, vector)  # type: ignore[arg-type]

    @rule(where=st.none() | FILTERS, page_size=st.sampled_from([1, 3, 100]))
    def scroll(self, where: Filter | None, page_size: int) -> None:
        counted["scroll"] += 1
        found: list[Any] = []
        token: str | None = None
        while True:
            expr = None if where is None else where.expr
            page = self.collection.scroll(filter=expr, page_size=page_size, page_token=token)
            found += [point.id for point in page]
            for point in page:
                assert point.payload == self.model[point.id][1]
            token = page.next_page_token
            if token is None:
                break
        assert len(set(found)) == len(found)
        assert set(found) == set(self.matching(where))

    # ------------------------------------------------------------------ care

    @precondition(lambda self: not self.by_lists or len(self.model) >= 3)
    @rule(retrain=st.booleans())
    def compact(self, retrain: bool) -> None:
        counted["compact"] += 1
        self.collection.compact(retrain=retrain)
        if self.by_lists:
            assert self.collection.stats()["nlist"] == 3

    @rule()
    def reopen(self) -> None:
        counted["reopen"] += 1
        self.database.close()
        self.database = open_by_hand(self.database.path)
        self.collection = self.database.get_collection("c")
        self.check_all()

    @rule()
    def crash(self) -> None:
        counted["crash"] += 1
        self.collection.flush()
        self.opened += 1
        copy = crashed(self.database.path, self.root / str(self.opened))
        self.database.close()
        shutil.rmtree(self.database.path)
        self.database = open_by_hand(copy)
        self.collection = self.database.get_collection("c")
        self.check_all()

    def check_all(self) -> None:
        payloads, vectors = held(self.collection, list(self.model))
        assert payloads == [payload for _, payload in self.model.values()]
        for vector, (expected, _) in zip(vectors, self.model.values(), strict=True):
            assert np.array_equal(vector, expected)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "collection"):
            assert self.collection.count() == len(self.model)


def _and_tag(where: Filter) -> Filter:
    """The filter, and the tag being "a": far fewer points match."""
    tag = _leaf(F("tag") == "a", "tag", lambda value: bool(value == "a"))

    def truth(payload: dict[str, Any]) -> bool | None:
        return where.truth(payload) is True and tag.truth(payload) is True

    return Filter(where.expr & tag.expr, truth)


class IntsByScans(CollectionMachine):
    ids = _INTS


class StringsByScans(CollectionMachine):
    ids = _STRINGS


class IntsByLists(CollectionMachine):
    ids = _INTS
    by_lists = True


class StringsByLists(CollectionMachine):
    ids = _STRINGS
    by_lists = True


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    """Say at the end how many steps were run; seen with pytest -s, as `make model` has it."""
    counted.clear()
    yield
    each = ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items()))
    print(f"\n{sum(counted.values()):,} steps: {each}")


@pytest.mark.parametrize(
    "machine", [IntsByScans, StringsByScans, IntsByLists, StringsByLists], ids=lambda m: m.__name__
)
def test_a_collection_answers_as_the_model_does(machine: type[CollectionMachine]) -> None:
    """One oracle for everything at once; what fails is shrunk to the shortest way there."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 12,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
