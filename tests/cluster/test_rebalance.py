"""What of moving shards one node can show: moves that failed, and nodes that there are not.

conftest.py (a cluster) -> [test_rebalance.py]

`make ray-nodes` moves shards between nodes under load.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soardb.cluster import Cluster
from soardb.cluster.calls import REGISTRAR, Job, shard_name
from soardb.cluster.handover import OWNER
from soardb.errors import InvalidArgument, Unavailable
from tests.cluster.conftest import PATIENCE_S, SHARDS, folder_of
from tests.cluster.test_faults import kill

D = 8
IDS = list(range(100))
VECTORS = np.random.default_rng(3).normal(size=(len(IDS), D)).astype(np.float32)


@pytest.fixture
def points(empty: Cluster) -> Any:
    """A collection of 100 points."""
    collection = empty.create_collection("c", D, "l2")
    collection.upsert(IDS, VECTORS)
    return collection


def ceded(cluster: Cluster, shard: int) -> None:
    """As a registrar leaves it that dies in the middle of a move."""
    cluster._actors.one(shard_name(shard), Job("cede", ("0badc0de", False)), PATIENCE_S)
    assert (folder_of(cluster, shard) / OWNER).read_text() == "0badc0de"


class TestFailedMoves:
    def test_a_write_lets_the_shard_be_what_it_was(self, points: Any, cluster: Cluster) -> None:
        """Nobody else looks after a move whose registrar has died."""
        ceded(cluster, 1)
        assert points.count() == len(IDS)
        assert points.upsert(IDS, VECTORS, request_id="again") == len(IDS)
        assert points.upsert(IDS, VECTORS, request_id="again") == len(IDS)
        assert (folder_of(cluster, 1) / OWNER).read_text() == ""

    def test_also_where_both_processes_have_died_since(self, points: Any, cluster: Cluster) -> None:
        """What counts stands on the disk and in the catalog."""
        ceded(cluster, 2)
        kill(cluster, shard_name(2))
        kill(cluster, REGISTRAR)
        assert points.delete(IDS, request_id="gone") == len(IDS)
        assert points.count() == 0


class TestRebalance:
    def test_an_even_cluster_stays_as_it_is(self, cluster: Cluster) -> None:
        """One node has them all."""
        places = cluster.places()
        assert sorted(places) == [shard_name(shard) for shard in range(SHARDS)]
        said: list[tuple[str, float]] = []
        assert cluster.rebalance(lambda stage, share: said.append((stage, share))) == {}
        assert said == [("done", 1.0)]
        assert cluster.places() == places

    def test_nodes_are_named_and_one_must_be_left(self, cluster: Cluster) -> None:
        """An empty cluster would have nowhere to be."""
        (here,) = set(cluster.places().values())
        with pytest.raises(InvalidArgument, match=rf"addresses of nodes, {here}, got nowhere"):
            cluster.rebalance(without=["nowhere"])
        with pytest.raises(Unavailable, match="expected a node"):
            cluster.rebalance(without=[here])
