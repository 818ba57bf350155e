"""What goes wrong in a cluster: lost replies, dead and slow shards, half-made collections.

conftest.py (a cluster), kills.py (load and kills) -> [test_faults.py]
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from soardb.cluster import Cluster
from soardb.cluster.calls import REGISTRAR, Job, shard_name
from soardb.cluster.placement import shard_of
from soardb.cluster.registrar import CATALOG
from soardb.core import Settings
from soardb.errors import (
    AlreadyExists,
    CorruptStorage,
    InvalidArgument,
    NotFound,
    SoarError,
    TimedOut,
    Unavailable,
)
from soardb.storage.catalog import new_folder
from tests.cluster.conftest import PATIENCE_S, SHARDS, folder_of
from tests.cluster.kills import KINDS, campaign

D = 8
IDS = list(range(200))
VECTORS = np.random.default_rng(3).normal(size=(len(IDS), D)).astype(np.float32)
OWNERS = shard_of(IDS, SHARDS)


@pytest.fixture
def points(empty: Cluster) -> Any:
    """A collection of 200 points."""
    collection = empty.create_collection("c", D, "l2", schema={"n": "int"})
    collection.upsert(IDS, VECTORS, {"n": IDS})
    return collection


def kill(cluster: Cluster, name: str, *, no_restart: bool = False) -> None:
    ray.kill(ray.get_actor(name, namespace=cluster._namespace), no_restart=no_restart)


class Pause:
    """Lets shards' processes stand still for a while."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._still: set[int] = set()

    def __call__(self, shard: int) -> None:
        self._still.add(self._processes[shard_name(shard)])
        os.kill(self._processes[shard_name(shard)], signal.SIGSTOP)

    def end(self) -> None:
        while self._still:
            os.kill(self._still.pop(), signal.SIGCONT)


@pytest.fixture
def stopped(cluster: Cluster) -> Iterator[Pause]:
    """Ended with the test."""
    pause = Pause(cluster.processes())
    yield pause
    pause.end()


class TestOnce:
    def test_a_write_that_is_asked_for_again_is_not_done_again(self, points: Any) -> None:
        """Its answer was lost; meanwhile others have changed the points."""
        assert points.upsert([1, 2], VECTORS[:2], {"n": [7, 7]}, request_id="put") == 2
        assert points.update_payload({"n": 8}, ids=[1, 2, 3], request_id="patch") == 3
        assert points.delete([3, 4, 999], request_id="gone") == 2
        assert points.insert([1000], VECTORS[:1], request_id="new") == 1
        points.upsert([1, 2, 3, 4], VECTORS[4:8], {"n": [9, 9, 9, 9]})
        points.delete([1000])
        seq = points.seq
        assert points.upsert([1, 2], VECTORS[:2], {"n": [7, 7]}, request_id="put") == 2
        assert points.update_payload({"n": 8}, ids=[1, 2, 3], request_id="patch") == 3
        assert points.delete([3, 4, 999], request_id="gone") == 2
        assert points.insert([1000], VECTORS[:1], request_id="new") == 1
        assert points.seq == seq
        assert [p.payload for p in points.get([1, 2, 3, 4])] == [{"n": 9}] * 4
        assert points.get([1000]) == [None]

    def test_nor_after_the_shards_have_died(self, points: Any, cluster: Cluster) -> None:
        """What is remembered stands in the row store, with the write."""
        ids = IDS[:40]
        assert points.insert([i + 500 for i in ids], VECTORS[:40], request_id="new") == 40
        points.delete([500, 501])
        for process in cluster.processes().values():
            os.kill(process, signal.SIGKILL)
        assert points.insert([i + 500 for i in ids], VECTORS[:40], request_id="new") == 40
        assert points.count() == len(IDS) + 38
        with pytest.raises(InvalidArgument, match="same call under request_id"):
            points.insert([i + 600 for i in ids], VECTORS[:40], request_id="new")

    def test_a_change_of_the_catalog_is_done_once(self, empty: Cluster) -> None:
        """Asked for twice under one id, as a driver does that heard no answer."""
        settings = Settings.asked("c", D, "l2", None, None, None).to_json()
        for _ in range(2):
            assert empty._registrar("create", "c", settings, False, "made") == "c"
        with pytest.raises(AlreadyExists):
            empty._registrar("create", "c", settings, False, "other")
        for _ in range(2):
            empty._registrar("rename", "c", "d", "named")
        for _ in range(2):
            empty._registrar("drop", "d", "dropped")
        kill(empty, REGISTRAR, no_restart=True)
        empty._registrar("drop", "d", "dropped")
        assert empty.list_collections() == []


class TestWholeOrRefused:
    def test_an_insert_of_an_id_that_is_there_writes_nothing(self, points: Any) -> None:
        """Whichever shard has it."""
        for held in IDS[:8]:
            with pytest.raises(AlreadyExists, match="nothing of this call was written"):
                points.insert([*range(1000, 1050), held], VECTORS[:51])
        assert points.count() == len(IDS)

    def test_an_update_of_an_unknown_id_changes_nothing(self, points: Any) -> None:
        """Likewise."""
        for unknown in range(1000, 1008):
            with pytest.raises(NotFound):
                points.update_payload({"n": -1}, ids=[*IDS, unknown])
        assert points.count("n = -1") == 0


class TestMissingShards:
    def test_a_slow_shard_is_waited_for_no_longer_than_was_said(
        self, points: Any, stopped: Pause
    ) -> None:
        """Then it is an error, or an answer without its points that says so."""
        points.search(VECTORS[0])
        stopped(2)
        began = time.monotonic()
        asks: list[Callable[[], Any]] = [
            lambda: points.search(VECTORS[0], timeout=1.0),
            lambda: points.count(timeout=1.0),
            lambda: points.scroll(timeout=1.0),
            lambda: points.get(IDS, timeout=1.0),
        ]
        for ask in asks:
            with pytest.raises(TimedOut, match=r"within 1 s"):
                ask()
        hits = points.search(VECTORS[:3], len(IDS), timeout=1.0, allow_partial=True)
        assert time.monotonic() - began < 10.0
        for one in hits:
            assert one.is_partial
            assert one.plan.spread.missing == (2,)
            assert "PARTIAL: without shards 2" in str(one.plan)
            assert sorted(one.ids.tolist()) == [i for i in IDS if OWNERS[i] != 2]
        grouped = points.search(
            VECTORS[0], group_by="n", limit=5, group_size=1, timeout=2.0, allow_partial=True
        )
        assert grouped.is_partial

    def test_a_write_that_is_not_answered_says_how_to_go_on(
        self, points: Any, stopped: Pause
    ) -> None:
        """Nobody knows whether it was done; asked again it is done once."""
        stopped(1)
        rid = uuid.uuid4().hex
        with pytest.raises(TimedOut, match=f"again under request_id='{rid}': it is done once"):
            points.delete(IDS, request_id=rid, timeout=1.0)
        stopped.end()
        assert points.delete(IDS, request_id=rid) == len(IDS)
        assert points.delete(IDS) == 0

    def test_all_shards_away_is_an_error_even_if_some_may_be(
        self, points: Any, stopped: Pause
    ) -> None:
        """An empty answer would look like one."""
        for shard in range(SHARDS):
            stopped(shard)
        with pytest.raises(TimedOut):
            points.search(VECTORS[0], timeout=0.5, allow_partial=True)

    def test_actors_that_are_gone_for_good_are_made_again(
        self, points: Any, cluster: Cluster
    ) -> None:
        """Whoever calls next has them made: the registrar a shard, a driver the registrar."""
        kill(cluster, shard_name(3), no_restart=True)
        kill(cluster, REGISTRAR, no_restart=True)
        assert points.count() == len(IDS)
        assert cluster.list_collections() == ["c"]

    def test_a_directory_that_is_not_there_is_not_made_anew(
        self, points: Any, cluster: Cluster
    ) -> None:
        """An empty shard would be a silent loss."""
        away = folder_of(cluster, 0).with_name("away")
        os.rename(folder_of(cluster, 0), away)
        try:
            before = cluster.processes()[shard_name(0)]
            kill(cluster, shard_name(0))
            while cluster.processes()[shard_name(0)] == before:  # it takes Ray a moment
                time.sleep(0.05)
            with pytest.raises(Unavailable, match="shard 0 has no data on this node"):
                points.count()
            assert not folder_of(cluster, 0).exists()
        finally:
            os.rename(away, folder_of(cluster, 0))
        assert points.count() == len(IDS)


class TestLeftovers:
    def test_a_collection_that_was_never_listed_is_deleted(self, empty: Cluster) -> None:
        """The registrar died after a shard had made it."""
        kept = empty.create_collection("c", D)
        kept.upsert(IDS, VECTORS)
        made = Settings.asked(new_folder(), D, "l2", None, None, None).to_json()
        empty._actors.one(shard_name(1), Job("create", (made,)), PATIENCE_S)
        kill(empty, REGISTRAR)
        with Cluster("ray://auto", storage=empty.storage, timeout=PATIENCE_S) as other:
            held = other._actors.one(shard_name(1), Job("collections"), PATIENCE_S)
            assert held == [kept.id]
            assert other.get_collection("c").count() == len(IDS)


class TestOpening:
    def test_a_cluster_stays_as_it_was_made(self, cluster: Cluster, tmp_path: Path) -> None:
        """Points are placed by the number of shards."""
        with pytest.raises(InvalidArgument, match=f"shards={SHARDS}, as this cluster was made"):
            Cluster("ray://auto", storage=cluster.storage, shards=SHARDS + 1)
        with pytest.raises(InvalidArgument, match="data="):
            Cluster("ray://auto", storage=cluster.storage, data=tmp_path)

    @pytest.mark.parametrize(
        ("target", "options"),
        [
            ("ray://", {"storage": "x"}),
            ("ray://auto", {"storage": ""}),
            ("ray://auto", {"storage": 7}),
            ("ray://auto", {"storage": "x", "shards": 0}),
            ("ray://auto", {"storage": "x", "timeout": "soon"}),
            ("ray://auto", {"storage": "x", "read_only": True}),
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(
        self, ray_here: None, target: str, options: dict[str, Any]
    ) -> None:
        """Before anything is started."""
        import soardb

        with pytest.raises(InvalidArgument):
            soardb.connect(target, **options)

    def test_a_storage_that_cannot_be_used_is_named(self, ray_here: None, tmp_path: Path) -> None:
        """At once, as the reason would be lost if the registrar died of it."""
        import soardb

        with pytest.raises(InvalidArgument, match="expected storage= beside 'ray://auto'"):
            soardb.connect("ray://auto")
        (tmp_path / CATALOG).write_text("{}")
        with pytest.raises(CorruptStorage, match=CATALOG):
            soardb.connect("ray://auto", storage=tmp_path)
        away = "s3://key:word@b/p?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"
        with pytest.raises(Unavailable, match="the object store failed"):
            soardb.connect("ray://auto", storage=away, data=tmp_path)

    def test_a_closed_one_refuses_and_the_cluster_goes_on(
        self, points: Any, cluster: Cluster
    ) -> None:
        """Drivers come and go, the cluster goes on."""
        other = Cluster("ray://auto", storage=cluster.storage)
        theirs = other.get_collection("c")
        other.close()
        other.close()
        for ask in (other.list_collections, theirs.count, lambda: other.get_collection("c")):
            with pytest.raises(SoarError, match="closed"):
                ask()
        assert points.count() == len(IDS)


class TestKills:
    def test_nothing_is_lost_or_done_twice(self, empty: Cluster) -> None:
        """A few kills of each kind under load; `make ray-kills` is the long form."""
        tally = campaign(empty, 6, seed=11, kinds=KINDS)
        assert tally.wrong == []
        assert tally.calls["searches whole"] > 0
        assert tally.calls["upsert"] > 10
