"""A server before a cluster: clients see a database, and of shards only what they ask for.

conftest.py (a cluster), tests/service (a server as a process) -> [test_served.py]
"""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.cluster import Cluster
from soardb.cluster.calls import shard_name
from soardb.cluster.placement import shard_of
from soardb.errors import InvalidArgument, SoarError, TimedOut
from soardb_client import Client
from soardb_service.convert import discreet, hide
from tests.cluster.conftest import PATIENCE_S, SHARDS
from tests.service.conftest import Served

D = 8
IDS = list(range(300))
VECTORS = np.random.default_rng(5).normal(size=(len(IDS), D)).astype(np.float32)
OWNERS = shard_of(IDS, SHARDS)


@pytest.fixture(scope="module")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server before the cluster."""
    folder = tmp_path_factory.mktemp("served") / "server"
    flags = ("--ray", "ray://auto", "--storage", cluster.storage)
    with Served(folder, *flags) as server, Client(server.target) as client:
        yield client


@pytest.fixture
def points(empty: Cluster, served: Client) -> Any:
    """A collection of 300 points, as a client sees it."""
    collection = served.create_collection("c", D, "l2", schema={"n": "int"})
    assert collection.upsert(IDS, VECTORS, {"n": IDS}) == len(IDS)
    return collection


class TestCalls:
    def test_what_clients_write_and_read_is_that_of_the_cluster(
        self, points: Any, cluster: Cluster, served: Client
    ) -> None:
        """Through the server and beside it."""
        beside = cluster.get_collection("c")
        assert points.count("n < 7") == beside.count("n < 7") == 7
        assert points.delete([1, 2, 999]) == 2
        assert points.update_payload({"n": -1}, ids=[3]) == 1
        assert [p and p.payload for p in beside.get([1, 3])] == [None, {"n": -1}]
        theirs = points.search(VECTORS[:40], 12, exact=True)
        ours = beside.search(VECTORS[:40], 12, exact=True)
        for one, other in zip(theirs, ours, strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.scores.tolist() == other.scores.tolist()
            assert one.plan is None
        points.compact()
        assert points.stats()["points"] == len(IDS) - 2
        assert served.list_collections() == ["c"]
        pages, token = [], None
        while True:
            page = points.scroll(page_size=70, page_token=token)
            pages += [point.id for point in page.points]
            token = page.next_page_token
            if token is None:
                break
        assert sorted(pages) == [i for i in IDS if i not in (1, 2)]
        served.set_alias("a", "c")
        assert served.get_collection("a").count() == len(IDS) - 2

    def test_a_search_says_how_it_went_over_the_shards(self, points: Any) -> None:
        """Planned and, on request, measured."""
        plan = points.search(VECTORS[0], 40, merge_recall=0.9, explain=True).plan
        assert plan.spread.shards == SHARDS
        assert 0 < plan.spread.c < 40
        assert plan.spread.measured_recall is None
        hits = points.search(VECTORS, 40, merge_recall=0.9, measure_merge=True)
        spread = hits[0].plan.spread
        assert spread.planned_recall >= 0.9
        assert abs(spread.measured_recall - spread.planned_recall) < 0.05
        with pytest.raises(InvalidArgument, match="merge_recall above 0 and at most 1"):
            points.search(VECTORS[0], merge_recall=0)

    def test_a_partial_answer_says_so(self, points: Any, cluster: Cluster) -> None:
        """Only where it is allowed."""
        process = cluster.processes()[shard_name(2)]
        points.search(VECTORS[0])
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(TimedOut):
                points.search(VECTORS[0], timeout=2.0)
            hits = points.search(VECTORS[0], len(IDS), timeout=2.0, allow_partial=True)
        finally:
            os.kill(process, signal.SIGCONT)
        assert hits.is_partial
        assert hits.plan.spread.missing == (2,)
        assert sorted(hits.ids.tolist()) == [i for i in IDS if OWNERS[i] != 2]


class TestSnapshots:
    def test_one_is_taken_and_restored_anywhere(
        self, points: Any, cluster: Cluster, served: Client, tmp_path: Path
    ) -> None:
        """A file of the client's machine, which an embedded database and a cluster restore too."""
        file = tmp_path / "c.snapshot"
        served.snapshot("c", file)
        assert served.list_snapshots("c") == []
        assert served.restore(file, "d").count() == len(IDS)
        assert cluster.restore(file, "e").count() == len(IDS)
        with soardb.connect(tmp_path / "db") as embedded:
            assert embedded.restore(file, "c").count() == len(IDS)
            embedded.snapshot("c", tmp_path / "one.snapshot")
        assert served.restore(tmp_path / "one.snapshot", "f").count() == len(IDS)

    def test_one_stays_on_the_server(self, points: Any, served: Client) -> None:
        """In the storage of the cluster, as each shard writes its part."""
        made = served.start_snapshot("c")
        made.wait()
        (listed,) = served.list_snapshots("c")
        assert listed.name == made.result["snapshot"]
        assert listed.size == made.result["size"] > 0
        served.start_restore("d", listed.name, source="c").wait()
        assert served.get_collection("d").count() == len(IDS)
        served.delete_snapshot("c", listed.name)
        assert served.list_snapshots("c") == []

    @pytest.mark.parametrize("kind", ["path", "stranger", "cut", "link"])
    def test_a_hostile_one_is_refused(
        self, points: Any, served: Client, tmp_path: Path, kind: str
    ) -> None:
        """Nothing of it stays."""
        file, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
        served.snapshot("c", file)
        with tarfile.open(file) as good, tarfile.open(bad, "w") as out:
            for member in good:
                source: Any = good.extractfile(member)
                if kind == "path" and member.name == "shard-0001.snapshot":
                    member.name = "../shard-0001.snapshot"
                if kind == "cut" and member.name == "shard-0001.snapshot":
                    member.size -= 1
                out.addfile(member, source)
            if kind == "stranger":
                more = tarfile.TarInfo("shard-0009.snapshot")
                more.size = 3
                out.addfile(more, io.BytesIO(b"abc"))
            if kind == "link":
                link = tarfile.TarInfo("shard-0009.snapshot")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                out.addfile(link)
        with pytest.raises(InvalidArgument):
            served.restore(bad, "d")
        with soardb.connect(tmp_path / "db") as embedded:
            with pytest.raises(InvalidArgument):
                embedded.restore(bad, "c")
            assert embedded.list_collections() == []
            assert sorted(p.name for p in embedded.path.iterdir() if p.is_dir()) == []
        assert served.list_snapshots("c") == []
        assert served.list_collections() == ["c"]


class TestDiscretion:
    def test_clients_learn_neither_the_storage_nor_its_password(
        self, ray_here: None, bucket: str, tmp_path: Path
    ) -> None:
        """A URI of a store may hold one; and folders of nodes are nobody's affair."""
        place, data = bucket.replace("/place", "/served"), tmp_path / "disk"
        hide(place)
        assert discreet(f"cluster {place} was closed") == "cluster the database was closed"
        flags = ("--ray", "ray://auto", "--storage", place, "--data", str(data), "--shards", "1")
        with Served(tmp_path / "server", *flags) as server, Client(server.target) as client:
            points = client.create_collection("c", D, "l2")
            points.upsert(IDS, VECTORS)
            told = []
            for ask in (
                lambda: client.get_collection("nothing"),
                lambda: client.create_collection("c", D),
                lambda: client.start_snapshot("c"),
                lambda: client.list_snapshots("c"),
                lambda: points.search(VECTORS[0][:3]),
            ):
                try:
                    made = ask()
                    told.append(str(made.wait()) if hasattr(made, "wait") else "")
                except SoarError as error:
                    told.append(str(error))
            assert all(told)
            for text in told:
                assert "word" not in text
                assert str(data) not in text
            with Cluster("ray://auto", storage=place, timeout=PATIENCE_S) as beside:
                beside.stop()


class TestSettings:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--storage", "x"), "expected --ray beside --storage"),
            (("--shards", "2"), "expected --ray beside --shards"),
            (("--ray", "ray://auto", "--readers", "1"), "expected no --readers with --ray"),
            (("--ray", "http://x"), "expected the path of a directory, a server"),
        ],
        ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
    )
    def test_what_cannot_be_is_refused(
        self, ray_here: None, tmp_path: Path, flags: tuple[str, ...], message: str
    ) -> None:
        """With what to do instead."""
        server = Served(tmp_path / "server", *flags)
        with pytest.raises(AssertionError):
            server.start()
        assert message in server.log()
