"""Shards that move: the plan, the copy of a database that is written meanwhile, and who may write.

moves.py, handover.py, shard.py, database.py -> [test_moves.py]

All within this process: what needs several nodes is in on_nodes.py (`make ray-nodes`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from soardb.cluster.handover import Arriving, Leaving, Moved, Moving, owner_of, set_owner
from soardb.cluster.moves import plan_moves
from soardb.cluster.places import remove_copies
from soardb.cluster.registrar import _METHODS, _THREADS, ShardActor
from soardb.cluster.shard import Shard
from soardb.core import Settings
from soardb.database import Database
from soardb.errors import Closed, CorruptStorage, InvalidArgument, ReadOnly, Unavailable

D = 8
RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(600, D)).astype(np.float32)
SETTINGS = Settings.asked("c", D, "l2", {"n": "int"}, None, None).to_json()


class TestPlan:
    @given(st.data())
    def test_evens_out_with_as_few_moves_as_can_be(self, data: st.DataObject) -> None:
        """No fewer would do: each node keeps all that its share allows."""
        nodes = [f"n{i}" for i in range(data.draw(st.integers(1, 6)))]
        homes = [*nodes, "leaves", "gone"]
        places = {
            f"shard-{i:04}": data.draw(st.sampled_from(homes))
            for i in range(data.draw(st.integers(0, 20)))
        }
        moves = plan_moves(places, nodes)
        after = places | dict(moves)
        held = Counter(dict.fromkeys(nodes, 0))
        held.update(after.values())
        assert set(held) == set(nodes)
        assert max(held.values()) - min(held.values()) <= 1
        assert len(dict(moves)) == len(moves)
        base, more = divmod(len(places), len(nodes))
        before = sorted((Counter(places.values())[node] for node in nodes), reverse=True)
        stay = sum(min(n, base + (i < more)) for i, n in enumerate(before))
        assert len(moves) == len(places) - stay

    def test_an_even_cluster_stays(self) -> None:
        """Rebalancing is called by schedule, too."""
        assert plan_moves({"a": "x", "b": "y", "c": "x"}, ["x", "y"]) == []

    def test_there_must_be_a_node(self) -> None:
        """Else shards would go nowhere."""
        with pytest.raises(Unavailable, match="expected a node"):
            plan_moves({"a": "x"}, [])


def copied(source: Shard, target: Shard, names: set[str] | None = None, part: int = 1000) -> None:
    """One round of Copy, without Ray."""
    begins = names is None
    for name, found in source.list_parts("copy", begins).items():
        for offset in range(0, found.size, part):
            size = min(part, found.size - offset)
            target.write_part(name, offset, source.read_part("copy", name, offset, size))


def put(shard: Shard, first: int, count: int, request: str) -> Any:
    ids = np.arange(first, first + count)
    payloads = [b'{"n":%d}' % i for i in ids.tolist()]
    return shard.put("c", ids, VECTORS[:count], payloads, "upsert", "fsync", request)


def writes_of(shard: Shard) -> list[Callable[[], Any]]:
    return [
        lambda: put(shard, 0, 1, "late"),
        lambda: shard.delete("c", np.arange(3), None, "fsync", "late"),
        lambda: shard.create(SETTINGS | {"name": "other"}),
        lambda: shard.compact("c", False, "late"),
        lambda: shard.drop(["c"]),
    ]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Shard]:
    """A shard of 300 points."""
    shard = Shard(str(tmp_path / "shard-0000"), 0, {})
    shard.make()
    shard.create(SETTINGS)
    put(shard, 0, 300, "first")
    yield shard
    shard.close()


class TestCopy:
    def test_of_a_database_that_is_written_meanwhile_has_all(
        self, source: Shard, tmp_path: Path
    ) -> None:
        """The log is folded in, a generation is built, points go: and the requests come too."""
        target = Shard(str(tmp_path / "shard-0000-aa"), 0, {}, "aa")
        for i in range(9):  # the log is long, and is then written from its beginning again
            put(source, 0, 300, f"before-{i}")
        source._database().get_collection("c")._core.store.checkpoint(force=True)
        put(source, 0, 1, "short")
        copied(source, target)
        put(source, 1, 1, "short too")
        copied(source, target, set())
        for i in range(5):
            put(source, 100 * i, 250, f"more-{i}")
            source._database().get_collection("c")._core.store.checkpoint(force=True)
            copied(source, target, set())
        source.delete("c", np.arange(40, 50), None, "fsync", "gone")
        source.compact("c", False, "build")
        copied(source, target, set())
        put(source, 700, 1, "last")
        marks = source.cede("aa", False)
        sizes = {name: part.size for name, part in source.list_parts("copy", False).items()}
        with pytest.raises(CorruptStorage, match="the shard stays where it was|ends at write"):
            target.finish_parts(sizes, marks)  # the rest has not come yet
        copied(source, target, set())
        target.finish_parts(sizes, marks)
        assert target.count("c", None, None) == source.count("c", None, None) == 641
        found = [shard.search("c", VECTORS[:9], {"limit": 20}) for shard in (source, target)]
        assert np.array_equal(found[0].ids, found[1].ids)
        assert np.array_equal(found[0].scores, found[1].scores)
        seq = target.describe("c")[0]
        assert target.delete("c", np.arange(40, 50), None, "fsync", "gone") == 10
        assert target.describe("c")[0] == seq
        assert put(target, 5000, 10, "new") == 10
        target.close()
        assert Database(tmp_path / "shard-0000-aa", create=False).get_collection("c").count() == 651

    def test_the_main_file_changes_by_nothing_that_is_not_in_the_log(self, tmp_path: Path) -> None:
        """What the copy rests on, of SQLite: one byte for another, whatever is committed."""
        database = Database(tmp_path / "d")
        collection = database.create_collection("c", D)
        collection.upsert(list(range(300)), VECTORS[:300])
        core = collection._core
        core.store.checkpoint(force=True)
        leaving = Leaving(tmp_path / "d")
        leaving.parts([core])
        before = core.store.path.read_bytes()
        for i in range(4):
            collection.upsert(list(range(i, 300 + i)), VECTORS[:300])
            core.store.checkpoint(force=True)
        log = Path(f"{core.store.path}-wal").read_bytes()
        (tmp_path / "rows.sqlite").write_bytes(before)
        (tmp_path / "rows.sqlite-wal").write_bytes(log)
        with sqlite3.connect(tmp_path / "rows.sqlite") as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT count(*) FROM points").fetchone() == (303,)
        copy.close()
        leaving.close()
        database.close()

    def test_damage_on_the_way_is_noticed(self, source: Shard, tmp_path: Path) -> None:
        """Memory and networks flip bits."""
        name = "catalog.json"
        size = source.list_parts("copy", True)[name].size
        data, checksum = source.read_part("copy", name, 0, size)
        arriving = Arriving(tmp_path / "other")
        with pytest.raises(CorruptStorage, match=r"catalog\.json: bytes 0 to"):
            arriving.write(name, 0, (b"x" + data[1:], checksum))

    def test_does_not_go_on_after_the_source_was_restarted(
        self, source: Shard, tmp_path: Path
    ) -> None:
        """Its files may have changed in any way since."""
        source.list_parts("copy", True)
        source.close()
        again = Shard(str(tmp_path / "shard-0000"), 0, {})
        with pytest.raises(Unavailable, match="restarted while it was copied"):
            again.list_parts("copy", False)
        with pytest.raises(Unavailable, match="restarted while it was copied"):
            again.read_part("copy", "catalog.json", 0, 1)
        again.close()

    def test_only_listed_files_are_read(self, source: Shard) -> None:
        """A caller names no path of its own."""
        source.list_parts("copy", True)
        with pytest.raises(InvalidArgument, match="that was listed"):
            source.read_part("copy", "../../secret", 0, 1)


class TestOwner:
    def test_a_shard_that_cedes_reads_and_does_not_write(
        self, source: Shard, tmp_path: Path
    ) -> None:
        """Nor does its next process: the disk says whose the directory is."""
        source.cede("aa", False)
        for shard in (source, Shard(str(tmp_path / "shard-0000"), 0, {})):
            assert shard.count("c", None, None) == 300
            assert len(shard.search("c", VECTORS[:1], {"limit": 5}).ids) == 5
            for write in writes_of(shard):
                with pytest.raises(Moving):
                    write()
        shard.close()

    def test_the_new_one_opens_a_shared_directory_while_the_old_one_reads(
        self, source: Shard, tmp_path: Path
    ) -> None:
        """Where all nodes see the same disk."""
        target = Shard(str(tmp_path / "shard-0000"), 0, {}, "aa")
        source.cede("aa", True)
        target.ready()
        assert put(target, 0, 10, "there") == 10
        assert source.count("c", None, None) == 300
        source.leave(1.0)
        with pytest.raises(Moved):
            source.count("c", None, None)
        source.close()
        assert target.count("c", None, None) == 300
        target.close()

    def test_on_a_network_two_never_have_it_open(self, tmp_path: Path) -> None:
        """SQLite's shared memory does not reach another machine, so reads wait for a moment."""
        options = {"allow_network": True}
        source = Shard(str(tmp_path / "shard-0000"), 0, options)
        source.make()
        source.create(SETTINGS)
        source.cede("aa", True)
        with pytest.raises(Moving):
            source.count("c", None, None)
        assert source._open is None

    def test_a_move_that_fails_gives_the_directory_back(
        self, source: Shard, tmp_path: Path
    ) -> None:
        """Reads that are under way are not disturbed."""
        source.cede("aa", False)
        reads = source.batches("c", 50)
        next(reads)
        source.resume("bb")  # said of another move: too late
        with pytest.raises(Moving):
            put(source, 0, 1, "x")
        assert source.ceded_to() == "aa"
        source.resume("aa")
        assert source.ceded_to() is None
        assert put(source, 0, 1, "x") == 1
        assert sum(len(ids) for ids, _, _ in reads) == 250
        assert owner_of(tmp_path / "shard-0000") == ""

    def test_leaving_waits_for_what_is_under_way(self, source: Shard) -> None:
        """Else a stream of points would break off."""
        reads = source.batches("c", 50)
        next(reads)
        left = threading.Thread(target=source.leave, args=(60.0,))
        left.start()
        assert sum(len(ids) for ids, _, _ in reads) == 250
        left.join(10.0)
        assert not left.is_alive()

    def test_what_moved_away_is_removed_and_nothing_else(self, tmp_path: Path) -> None:
        """Only where the directory itself says who took it over, and that one has the shard."""
        for name, owner in [
            ("shard-0000", "aa"),  # went to aa, which has it
            ("shard-0000-aa", None),
            ("shard-0000-cc", "dd"),  # of a move that nobody knows of
            ("shard-0001", "bb"),  # went to bb, but the catalog has it here
            ("shard-0002-ee", "ee"),  # shared once, or ceded and given back
            ("shard-0003-ff.partial", None),
        ]:
            (tmp_path / name).mkdir()
            if owner is not None:
                set_owner(tmp_path / name, owner)
        remove_copies(str(tmp_path), {"shard-0000": "aa", "shard-0002": "ee"})
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "shard-0000-aa",
            "shard-0000-cc",
            "shard-0001",
            "shard-0002-ee",
        ]


class TestCede:
    def test_what_was_queued_is_written_and_reads_go_on(self, tmp_path: Path) -> None:
        """Another process may own the directory meanwhile."""
        database = Database(tmp_path / "d")
        collection = database.create_collection("c", D)
        database.create_collection("unopened", D)
        collection.upsert(list(range(300)), VECTORS[:300], ack="memory")
        database.cede()
        database.cede()
        assert collection.count() == 300
        with pytest.raises((Closed, ReadOnly)):
            collection.upsert([1], VECTORS[:1])
        with pytest.raises(ReadOnly):
            database.create_collection("more", D)
        with Database(tmp_path / "d", create=False) as other:
            other.get_collection("c").upsert([1000], VECTORS[:1])
            assert other.get_collection("c").count() == 301
            assert len(collection.search(VECTORS[0], 7)) == 7
            assert database.get_collection("unopened").count() == 0
        database.close()


class TestThreads:
    def test_each_method_has_those_of_its_group(self) -> None:
        """Else a build or a disk would keep searches from running; Ray must see what was said."""
        made: Any = ray.remote  # typed for other classes
        actor = made(concurrency_groups=_THREADS)(ShardActor)
        found = actor.__ray_metadata__.method_meta.concurrency_group_for_methods
        assert found == {name: group for group, names in _METHODS.items() for name in names}
