"""Search results as columns: what search() says, flat, and with the JSON that is stored.

    soardb/ask.py, soardb/query.py, soardb/hits.py -> [test_columns.py]

A server passes columns on; so they have to say all that Hits say, and split into the same ones.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.ask import ask
from soardb.collection import Collection
from soardb.connect import connect
from soardb.database import Database
from soardb.errors import CorruptStorage
from soardb.filters import F
from soardb.hits import HitColumns, Hits
from soardb.options import SearchOptions
from tests.collections.conftest import D, points

N = 60


@pytest.fixture(params=["int", "str"])
def collection(request: pytest.FixtureRequest, database: Database) -> Collection:
    """Sixty points, half of them in a generation, under either kind of id."""
    made = database.create_collection("c", D, schema={"n": "int", "body": "text"})
    ids: list[Any] = list(range(N)) if request.param == "int" else [f"p{i}" for i in range(N)]
    payloads = [{"n": i % 4, "body": f"word{i % 3}", "\u00e9": [1, None]} for i in range(N)]
    made.upsert(ids[:30], points(N)[:30], payloads[:30])
    made.compact()
    made.upsert(ids[30:], points(N)[30:], payloads[30:])
    return made


CALLS: dict[str, dict[str, Any]] = {
    "one": {"query": points(N + 1)[-1]},
    "batch": {"query": points(N + 3)[-3:]},
    "empty batch": {"query": points(N)[:0]},
    "none match": {"query": points(2), "filter": F("n") == 9},
    "vectors alone": {"query": points(2), "with_payload": False, "with_vectors": True},
    "all": {"query": points(2), "with_vectors": True, "explain": True, "exact": True},
    "fewer for one": {"query": points(N + 2)[-2:], "score_threshold": 0.2, "limit": 50},
    "groups": {"query": points(1)[0], "group_by": "n", "group_size": 2},
    "groups bare": {"query": points(1)[0], "group_by": "n", "with_payload": False},
    "text": {"text": "word1"},
    "hybrid": {"text": "word1", "query": points(1)[0], "with_vectors": True},
}


def equal(one: Hits, other: Hits) -> bool:
    """The same hits, field by field; times of a plan differ from call to call."""
    for field in dataclasses.fields(Hits):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if field.name == "plan" and mine is not None:
            mine, its = (dataclasses.replace(plan, stages={}) for plan in (mine, its))
        if isinstance(mine, np.ndarray):
            if mine.dtype != its.dtype or not np.array_equal(mine, its):
                return False
        elif mine != its:
            return False
    return True


class TestColumns:
    @pytest.mark.parametrize("name", CALLS)
    def test_they_split_into_what_search_returns(self, collection: Collection, name: str) -> None:
        """One Hits a query, whatever was asked for; grouped ones keep their groups."""
        call = CALLS[name]
        hits = collection.search(**call)
        expected = [hits] if isinstance(hits, Hits) else hits
        found = collection.search_columns(**call).split()
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert equal(one, other)

    @pytest.mark.parametrize("name", CALLS)
    def test_every_column_has_its_shape(self, collection: Collection, name: str) -> None:
        """Who writes them to a wire reads sizes off them and trusts them."""
        found = collection.search_columns(**CALLS[name])
        n = int(found.counts.sum())
        assert found.counts.dtype == np.int64
        assert found.scores.shape == (n,)
        assert found.scores.dtype == np.float32
        assert len(found.ids) == n
        if isinstance(found.ids, np.ndarray):
            assert found.ids.dtype == np.int64
        else:
            assert all(isinstance(point_id, str) for point_id in found.ids)
        if found.vectors is not None:
            assert found.vectors.shape == (n, D)
            assert found.vectors.dtype == np.float32
        if found.groups is not None:
            assert sum(size for _, size in found.groups) == n

    def test_payloads_are_the_stored_json(self, collection: Collection) -> None:
        """Decoding and encoding each again would be most of the cost of a server."""
        found = collection.search_columns(points(1)[0], 5)
        assert found.payloads is not None
        assert all(type(payload) is bytes for payload in found.payloads)
        assert [json.loads(p) for p in found.payloads] == collection.search(
            points(1)[0], 5
        ).payloads

    @pytest.mark.parametrize("name", [n for n in CALLS if "explain" not in CALLS[n]])
    def test_apart_they_are_those_of_each_query(self, collection: Collection, name: str) -> None:
        """A server answers callers whose queries it searched together."""
        found = collection.search_columns(**CALLS[name])
        apart = [hits for part in found.each() for hits in part.split()]
        together = found.split()
        assert len(apart) == len(together)
        assert all(map(equal, apart, together))

    def test_a_payload_that_is_no_json_is_told_when_it_is_split(self) -> None:
        """Columns may come from elsewhere than the row store's checksummed rows."""
        counts, scores = np.ones(1, np.int64), np.ones(1, np.float32)
        bad = HitColumns(counts, ["a"], scores, [b"{"], None, None, None, "l2", 1)
        with pytest.raises(CorruptStorage, match="payload as JSON"):
            bad.split()

    def test_both_calls_take_the_same_arguments(self) -> None:
        """The keywords stand in three places; here they are one."""
        search = inspect.signature(Collection.search).parameters
        asked = inspect.signature(ask).parameters
        own = [p for p in search.values() if p.name != "self"]
        its = [p for p in asked.values() if p.name != "reads"]
        assert own == its
        assert [p.name for p in own if p.kind is p.KEYWORD_ONLY] == [*SearchOptions.__annotations__]


class TestSequence:
    def test_results_say_up_to_which_write_they_see(self, collection: Collection) -> None:
        """So a caller can tell whether an answer is older than a write it knows of."""
        before = collection.seq
        assert collection.search_columns(points(1)[0]).seq == before
        assert collection.search_columns(points(1)[0], with_payload=False).seq == before
        collection.upsert([*collection.search(points(1)[0], 1).ids], points(1))
        assert collection.seq > before
        assert collection.search_columns(points(1)[0]).seq == collection.seq

    def test_a_reader_beside_the_writer_sees_its_last_commit(
        self, collection: Collection, folder: Path
    ) -> None:
        """The number is that after following, not that of when it was opened."""
        with connect(folder, read_only=True) as beside:
            same = beside.get_collection("c")
            assert same.seq == collection.seq
            collection.delete(filter=F("n") == 1)
            assert same.seq == collection.seq
            assert same.search_columns(points(1)[0]).seq == collection.seq
