"""One collection or four shards of it: the same calls, the same answers, the same errors.

    conftest.py (a cluster) and tests/service (the questions) -> [test_same_answers.py]

What changes something; test_same_reads.py has the questions that change nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb import F
from soardb.cluster import Cluster, ShardedCollection
from soardb.errors import AlreadyExists, Closed, InvalidArgument, NotFound
from tests.cluster.conftest import SHARDS
from tests.service.conftest import Pair
from tests.service.test_same_answers import (
    IDS,
    PAYLOADS,
    VECTORS,
    D,
    fill,
    of_c,
)

FACES = [(soardb.Database, Cluster), (soardb.Collection, ShardedCollection)]
NOT_FOR_CLUSTERS = {"rename_to", "cede"}
EXTRA = {"timeout", "merge_recall", "measure_merge", "allow_partial"}


@pytest.fixture
def pair(empty: Cluster, tmp_path: Path) -> Iterator[Pair]:
    """Two empty databases that are to answer alike."""
    with soardb.connect(tmp_path / "embedded") as embedded:
        yield Pair(embedded, empty, [str(embedded.path), empty.storage])


class TestFaces:
    @pytest.mark.parametrize(("engine", "theirs"), FACES, ids=lambda c: c.__name__)
    def test_has_every_public_method_with_the_same_parameters(
        self, engine: type, theirs: type
    ) -> None:
        """A program must not change when its database moves to a cluster."""
        for name, member in vars(engine).items():
            if name.startswith("_") or name in NOT_FOR_CLUSTERS:
                continue
            other = vars(theirs).get(name)
            assert other is not None, name
            assert isinstance(member, property) == isinstance(other, property), name
            if isinstance(member, property):
                continue
            expected = inspect.signature(member).parameters
            found = inspect.signature(other).parameters
            assert list(expected) == [n for n in found if n in expected or n not in EXTRA], name
            for key, parameter in expected.items():
                assert found[key].kind == parameter.kind, (name, key)
                if not callable(parameter.default):
                    assert found[key].default == parameter.default, (name, key)


class TestCollections:
    def test_made_found_listed_renamed_and_dropped(self, pair: Pair) -> None:
        """The life of a collection, and of its aliases."""
        pair.same(lambda db: db.create_collection("a", D, "l2", schema={"n": "int"}).schema)
        pair.same(lambda db: db.create_collection("b.2", 4, "dot").metric)
        assert pair.same(lambda db: db.list_collections()) == ["a", "b.2"]
        pair.refuses(AlreadyExists, lambda db: db.create_collection("A", D))
        pair.same(
            lambda db: db.create_collection("a", D, "l2", schema={"n": "int"}, exist_ok=True).d
        )
        pair.refuses(AlreadyExists, lambda db: db.create_collection("a", 9, exist_ok=True))
        pair.same(lambda db: db.set_aliases({"now": "a", "then": "b.2"}))
        assert pair.same(lambda db: db.list_aliases()) == {"now": "a", "then": "b.2"}
        pair.same(lambda db: [db.real_name(name) for name in ("now", "a", "x")])
        pair.refuses(NotFound, lambda db: db.set_alias("x", "nobody"))
        pair.refuses(AlreadyExists, lambda db: db.set_alias("a", "b.2"))
        pair.same(lambda db: db.rename_collection("a", "c"))
        pair.same(lambda db: (db.get_collection("now").name, db.get_collection("c").count()))
        pair.refuses(NotFound, lambda db: db.get_collection("a"))
        pair.refuses(NotFound, lambda db: db.rename_collection("a", "x"))
        pair.refuses(InvalidArgument, lambda db: db.rename_collection("c", "a/b"))
        handles = {id(db): db.get_collection("c") for db in (pair.embedded, pair.remote)}
        pair.same(lambda db: db.drop_collection("c"))
        pair.refuses(Closed, lambda db: handles[id(db)].count())
        pair.refuses(Closed, lambda db: handles[id(db)].upsert([1], VECTORS[:1]))
        assert pair.same(lambda db: db.list_aliases()) == {"then": "b.2"}
        pair.refuses(NotFound, lambda db: db.drop_collection("c"))

    @pytest.mark.parametrize(
        "options",
        [
            {"dim": 1},
            {"metric": "cosin"},
            {"schema": {"a": "integer"}},
            {"ttl": "when"},
            {"index": 3},
            {"index": {"nlists": 3}},
            {"name": "../up"},
            {"name": None},
        ],
        ids=str,
    )
    def test_refused(self, pair: Pair, options: dict[str, Any]) -> None:
        """In the same words, before any shard is asked."""
        given: dict[str, Any] = {"name": "c", "dim": D} | options
        pair.refuses(InvalidArgument, lambda db: db.create_collection(**given))

    def test_a_drop_is_heard_of_by_others(self, empty: Cluster) -> None:
        """Another driver's handle says so, too, and nothing comes back to life."""
        mine = empty.create_collection("c", D)
        other = Cluster("ray://auto", storage=empty.storage)
        theirs = other.get_collection("c")
        theirs.upsert([1, 2], VECTORS[:2])
        empty.drop_collection("c")
        again = empty.create_collection("c", D)
        with pytest.raises(Closed, match="collection 'c' was dropped"):
            theirs.upsert([3], VECTORS[:1])
        with pytest.raises(Closed):
            mine.count()
        assert again.count() == other.get_collection("c").count() == 0
        other.close()


class TestWriting:
    @pytest.mark.parametrize(
        "ids",
        [
            [1, 2, 3],
            [-(2**63), 2**63 - 1, 0],
            np.arange(50),
            ["a", "ü" * 200, "\0x"],
            [3, 3, 1],
            (),
        ],
        ids=str,
    )
    def test_ids_of_any_form(self, pair: Pair, ids: Any) -> None:
        """They come back as they went."""
        pair.same(lambda db: db.create_collection("c", D).d)
        pair.same(of_c(lambda c: c.upsert(ids, VECTORS[: len(ids)])))
        pair.same(of_c(lambda c: (c.get(ids, with_vectors=True), c.count(), c.id_kind)))

    def test_ids_are_of_one_kind_on_all_shards(self, pair: Pair) -> None:
        """The first write decides, whichever shard it went to."""
        pair.same(lambda db: db.create_collection("c", D).d)
        pair.same(of_c(lambda c: c.upsert([1], VECTORS[:1])))
        for i in range(8):
            pair.refuses(InvalidArgument, of_c(lambda c, i=i: c.upsert([f"{i}"], VECTORS[:1])))
            pair.refuses(InvalidArgument, of_c(lambda c, i=i: c.delete([f"{i}"])))
        pair.same(of_c(lambda c: c.get(["1"])))

    def test_changes(self, pair: Pair) -> None:
        """Overwritten, inserted, patched, deleted: the same counts, and the same points after."""
        pair.same(lambda db: bool(fill(db)))

        def all_points(c: Any) -> Any:
            return c.scroll(page_size=1000, with_vectors=True).points

        for change in (
            lambda c: c.upsert(IDS[:50], VECTORS[50:100], PAYLOADS[50:100]),
            lambda c: c.insert([1, 2, 3], VECTORS[:3], {"freq": [7, 8, 9]}),
            lambda c: c.insert([4, 5, IDS[0], 6], VECTORS[:4]),
            lambda c: c.update_payload({"freq": 5, "price": None}, ids=IDS[:20]),
            lambda c: c.update_payload([{"freq": n} for n in range(20)], ids=IDS[20:0:-1]),
            lambda c: c.update_payload([{"freq": 1}, {"lang": None}], ids=[IDS[3], IDS[2]]),
            lambda c: c.update_payload([{"freq": 1}, {}], ids=[IDS[3]]),
            lambda c: c.update_payload({"freq": 6}, ids=[*IDS[:9], 99]),
            lambda c: c.update_payload({"lang": "it"}, filter=F("freq") > 200, replace=True),
            lambda c: c.update_payload({"freq": "many"}, ids=[1]),
            lambda c: c.delete([*IDS[:7], 99]),
            lambda c: c.delete(filter=F("lang") == "it"),
            lambda c: c.delete(),
            lambda c: c.upsert([1], VECTORS[:1, :3]),
            lambda c: c.upsert([1], VECTORS[:1], ack="never"),
            lambda c: c.upsert([7], VECTORS[:1], [{"freq": 1.5}]),
            lambda c: (c.upsert([8], VECTORS[:1], ack="memory"), c.flush()),
            lambda c: c.ingest([([10, 11], VECTORS[:2]), ([12], VECTORS[:1], [{"freq": 3}])]),
            lambda c: c.begin_put([13, 14], VECTORS[:2]).result(),
        ):
            pair.same(of_c(change))
            pair.same(of_c(all_points))
            pair.same(of_c(lambda c: (c.count(), c.count(F("freq") == 5))))


class TestReadingBack:
    def test_strings_are_paged_in_the_order_of_a_table(self, pair: Pair) -> None:
        """That of their hashes."""
        pair.same(lambda db: db.create_collection("c", D).d)
        pair.same(of_c(lambda c: c.upsert([f"p{i}" for i in range(90)], VECTORS[:90])))
        pair.same(of_c(lambda c: [p.id for p in c.scroll(page_size=60).points]))

    def test_k_come_back_where_k_match(self, empty: Cluster) -> None:
        """Even where all that match are on one shard, and c of it are fewer than k."""
        from soardb.cluster.placement import shard_of

        c = empty.create_collection("c", D, schema={"n": "int"})
        owners = shard_of(IDS, SHARDS).tolist()
        c.upsert(IDS, VECTORS, [{"n": owner} for owner in owners])
        for shard in range(SHARDS):
            (hits, other) = c.search(VECTORS[:2], 20, filter=F("n") == shard, explain=True)
            assert hits.plan.spread.c < 20
            assert len(hits) == len(other) == 20
            exact = c.search(VECTORS[:2], 20, filter=F("n") == shard, exact=True)
            assert hits.ids.tolist() == exact[0].ids.tolist()


class TestCare:
    def test_compaction_and_tuning(self, empty: Cluster) -> None:
        """All shards do it; no answer changes; the curve is that of all."""
        c = fill(empty)
        before = c.search(VECTORS[:5], exact=True)
        told: list[tuple[str, float]] = []
        c.compact(retrain=True, progress=lambda stage, share: told.append((stage, share)))
        assert told[-1] == ("done", 1.0)
        assert c.stats()["since_generation"] == 0
        after = c.search(VECTORS[:5], exact=True)
        assert [h.ids.tolist() for h in after] == [h.ids.tolist() for h in before]
        curve = c.tune(5, queries=30, nprobes=[1, 2], reranks=[20])
        assert curve.k == 5
        assert all(0 < point.recall <= 1 for point in curve.points)
        with pytest.raises(InvalidArgument, match="more than k"):
            c.tune(299)
        c.keep_queries(10)

    @pytest.mark.parametrize("place", ["folder", "bucket"])
    def test_snapshots(
        self, empty: Cluster, place: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """Of all shards, in a folder or an object store; each part is one that any soardb opens."""
        c = fill(empty)
        target = str(tmp_path / "snapshot")
        if place == "bucket":
            target = request.getfixturevalue("bucket").replace("/place", "/snapshot")
        empty.snapshot("c", target)
        with pytest.raises(AlreadyExists):
            empty.snapshot("c", target)
        c.delete(IDS[:100])
        restored = empty.restore(target, "d")
        assert restored.count() == len(IDS)
        assert restored.id_kind == "int"
        found = restored.search(VECTORS[:5], exact=True)
        with soardb.connect(tmp_path / "embedded") as embedded:
            expected = fill(embedded).search(VECTORS[:5], exact=True)
            assert [h.ids.tolist() for h in found] == [h.ids.tolist() for h in expected]
            if place == "folder":
                part = embedded.restore(tmp_path / "snapshot" / "shard-0001.snapshot", "part")
                assert 0 < part.count() < len(IDS)
        with pytest.raises(AlreadyExists):
            empty.restore(target, "d")
        with pytest.raises(NotFound):
            empty.restore(tmp_path / "nothing", "e")
        assert empty.list_collections() == ["c", "d"]
