"""From one machine to a cluster, from a cluster to another, and back: nothing is lost on the way.

conftest.py (a cluster of four shards) -> [test_resharding.py]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.cluster import Cluster
from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound
from soardb.snapshot import SHARDS as MANIFEST
from tests.cluster.conftest import PATIENCE_S

D = 8
VECTORS = np.random.default_rng(9).normal(size=(500, D)).astype(np.float32)
IDS = [f"p{i}" for i in range(len(VECTORS))]
SCHEMA = {"n": "int", "body": "text"}


def everything(collection: Any) -> dict[str, tuple[dict[str, Any], list[float]]]:
    found = collection.get(IDS, with_vectors=True)
    return {p.id: (p.payload, p.vector.tolist()) for p in found if p is not None}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Any]:
    """A database of one machine with 500 points in a collection."""
    with soardb.connect(tmp_path / "db") as database:
        collection = database.create_collection(
            "c", D, "l2", schema=SCHEMA, index={"precision": "bfloat16"}
        )
        payloads = [{"n": i, "body": f"word{i % 7}", "free": [i]} for i in range(len(IDS))]
        collection.upsert(IDS, VECTORS, payloads)
        yield database


class TestThereAndBack:
    def test_from_one_machine_to_a_cluster_and_back(
        self, embedded: Any, empty: Cluster, tmp_path: Path
    ) -> None:
        """Two lines each."""
        known = everything(embedded.get_collection("c"))
        embedded.snapshot("c", tmp_path / "one.snapshot")
        moved = empty.restore(tmp_path / "one.snapshot", "c")
        assert everything(moved) == known
        assert moved.schema == SCHEMA
        assert moved._held.settings.params.precision == "bfloat16"
        moved.delete(IDS[:10])

        empty.snapshot("c", tmp_path / "four")
        back = embedded.restore(tmp_path / "four", "back")
        assert everything(back) == {i: known[i] for i in IDS[10:]}
        assert sorted(embedded.list_collections()) == ["back", "c"]
        query = VECTORS[0]
        theirs = moved.search(query, exact=True)
        ours = back.search(query, exact=True)
        assert ours.ids == theirs.ids
        assert ours.scores.tolist() == theirs.scores.tolist()

    def test_to_another_number_of_shards(
        self, embedded: Any, empty: Cluster, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """By the storage that both clusters reach, a bucket here."""
        place = request.getfixturevalue("bucket").replace("/place", "/resharded")
        embedded.snapshot("c", tmp_path / "one.snapshot")
        known = everything(empty.restore(tmp_path / "one.snapshot", "c"))
        empty.snapshot("c", place)
        with Cluster(
            "ray://auto",
            storage=tmp_path / "two",
            shards=2,
            timeout=PATIENCE_S,
            write_timeout=PATIENCE_S,
        ) as two:
            assert everything(two.restore(place, "d")) == known
            assert two.list_collections() == ["d"]
            two.stop()


class TestRefused:
    def test_a_name_that_is_taken(self, embedded: Any, empty: Cluster, tmp_path: Path) -> None:
        """Before anything is written."""
        embedded.snapshot("c", tmp_path / "one.snapshot")
        empty.restore(tmp_path / "one.snapshot", "c")
        with pytest.raises(AlreadyExists):
            empty.restore(tmp_path / "one.snapshot", "c")
        empty.snapshot("c", tmp_path / "four")
        with pytest.raises(AlreadyExists):
            embedded.restore(tmp_path / "four", "c")
        assert empty.list_collections() == ["c"]
        assert embedded.list_collections() == ["c"]

    @pytest.mark.parametrize("what", ["gone", "cut", "names", "format", "none"])
    def test_a_damaged_snapshot_leaves_nothing(
        self, embedded: Any, empty: Cluster, tmp_path: Path, what: str
    ) -> None:
        """Whichever part is wrong, a restored collection is whole or is not there."""
        folder = tmp_path / "four"
        embedded.snapshot("c", tmp_path / "one.snapshot")
        empty.restore(tmp_path / "one.snapshot", "c")
        empty.snapshot("c", folder)
        part, manifest = folder / "shard-0002.snapshot", folder / MANIFEST
        told = json.loads(manifest.read_bytes())
        if what == "gone":
            part.unlink()
        elif what == "cut":
            part.write_bytes(part.read_bytes()[:-20_000])
        elif what == "names":
            told["files"] = {"../../one.snapshot": 1}
        elif what == "format":
            told["format"] = 99
        if what == "none":
            manifest.unlink()
        else:
            manifest.write_text(json.dumps(told))
        with pytest.raises((NotFound, CorruptStorage, InvalidArgument)):
            embedded.restore(folder, "back")
        assert embedded.list_collections() == ["c"]
        with pytest.raises((NotFound, CorruptStorage, InvalidArgument)):
            empty.restore(folder, "back")
        assert empty.list_collections() == ["c"]
