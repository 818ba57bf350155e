"""One collection or four shards of it: the same questions, the same answers, the same errors.

    conftest.py (a cluster) and tests/service (the questions) -> [test_same_reads.py]

The questions are those that a server is asked. Where each shard is asked for all that is wanted,
c = k, the answers are the same; words alone are ranked with other statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import soardb
from soardb.cluster import Cluster, ShardedCollection
from soardb.errors import InvalidArgument, NotFound
from soardb.hits import HitColumns, Hits
from tests.cluster.conftest import SHARDS
from tests.service.conftest import Pair
from tests.service.test_same_answers import (
    BAD_FILTERS,
    BAD_SEARCHES,
    FILTERS,
    IDS,
    SEARCHES,
    VECTORS,
    fill,
    name_of,
    of_c,
)


@pytest.fixture(scope="module")
def filled(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both with the same 300 points in a collection, for tests that only read."""
    with soardb.connect(tmp_path_factory.mktemp("filled") / "embedded") as embedded:
        shared = Pair(embedded, Renamed(cluster), [str(embedded.path), cluster.storage])
        shared.same(lambda db: bool(fill(db)))
        yield shared


class Renamed:
    """A cluster whose collection "c" has a name of its own, as other tests drop theirs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._collection: Any = None

    def create_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._collection = self._cluster.create_collection("kept", *arguments, **options)
        self._cluster._held[self._collection.id].name = name
        return self._collection

    def get_collection(self, name: str) -> Any:
        return self._collection


def plainly(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A question about collection c; of its answer neither how it was found, nor by which write."""

    def bare(found: Any) -> Any:
        if isinstance(found, HitColumns):
            return replace(found, plan=None, seq=0)
        if isinstance(found, Hits):
            return replace(found, plan=None)
        return [bare(one) for one in found] if isinstance(found, list) else found

    return lambda database: bare(ask(database.get_collection("c")))


def whole(c: Any) -> dict[str, Any]:
    """The options with which each shard is asked for all that is wanted."""
    return {"merge_recall": 1.0} if isinstance(c, ShardedCollection) else {}


class TestReading:
    @pytest.mark.parametrize("where", [None, *FILTERS], ids=str)
    def test_counted_and_paged(self, filled: Pair, where: Any) -> None:
        """Every point once, in the same order."""

        def pages(c: Any) -> list[Any]:
            found, token = [], None
            while True:
                page = c.scroll(filter=where, page_size=47, page_token=token)
                found += page.points
                token = page.next_page_token
                if token is None:
                    return found

        filled.same(of_c(lambda c: c.count(where)))
        filled.same(of_c(pages))

    @pytest.mark.parametrize("where", BAD_FILTERS, ids=str)
    def test_bad_filters(self, filled: Pair, where: Any) -> None:
        """In the same words."""
        filled.refuses(InvalidArgument, of_c(lambda c: c.count(where)))
        filled.refuses(InvalidArgument, of_c(lambda c: c.search(VECTORS[0], filter=where)))

    def test_every_batch(self, filled: Pair) -> None:
        """All points, of one shard after the other."""
        found = {
            (point_id, payload, vector.tobytes())
            for batch in filled.remote.get_collection("c").batches(40)
            for point_id, payload, vector in zip(
                batch.ids, batch.payloads, batch.vectors, strict=True
            )
        }
        expected = {
            (point_id, payload, vector.tobytes())
            for batch in filled.embedded.get_collection("c").batches(40)
            for point_id, payload, vector in zip(
                batch.ids, batch.payloads, batch.vectors, strict=True
            )
        }
        assert found == expected

    def test_stats_are_sums(self, filled: Pair) -> None:
        """The counts of one collection, and those of each shard."""
        mine = filled.embedded.get_collection("c").stats()
        theirs = filled.remote.get_collection("c").stats()
        assert theirs["points"] == mine["points"]
        assert theirs.keys() == mine.keys() | {"shards"}
        assert len(theirs["shards"]) == SHARDS
        assert sum(one["points"] for one in theirs["shards"]) == mine["points"]


BY_VECTOR = [options for options in SEARCHES if "text" not in options]


class TestSearching:
    @pytest.mark.parametrize("options", BY_VECTOR, ids=name_of)
    def test_hits(self, filled: Pair, options: dict[str, Any]) -> None:
        """Ids, scores, payloads, vectors and groups; as objects and as columns."""
        filled.same(plainly(lambda c: c.search(**options | whole(c))))
        filled.same(plainly(lambda c: c.search_columns(**options | whole(c))))

    @pytest.mark.parametrize("options", BAD_SEARCHES, ids=name_of)
    def test_refused(self, filled: Pair, options: dict[str, Any]) -> None:
        """In the same words."""
        error = filled.same(of_c(lambda c: c.search(**options)))
        assert isinstance(error, soardb.SoarError), error

    def test_like_a_point_that_is_not_there(self, filled: Pair) -> None:
        """NotFound, naming the collection."""
        filled.refuses(NotFound, of_c(lambda c: c.search(id=1)))

    def test_words_find_what_has_them(self, filled: Pair) -> None:
        """Scores are by the statistics of each shard, so the order is another, the set is not."""
        for c in (filled.embedded.get_collection("c"), filled.remote.get_collection("c")):
            hits = c.search(text="word3", limit=100)
            assert sorted(hits.ids) == [i for i in IDS if (i - 100) % 10 == 3]
        fused = filled.remote.get_collection("c").search(VECTORS[0], text="word3", explain=True)
        assert fused.plan.strategy == "hybrid"
        assert fused.metric is None
        nearest = filled.embedded.get_collection("c").search(VECTORS[0], limit=1)
        assert nearest.ids[0] in fused.ids
        assert any((i - 100) % 10 == 3 for i in fused.ids)

    def test_merge_recall_is_planned_and_measured(self, filled: Pair) -> None:
        """What was lost by asking each shard for c, against asking each for k."""
        c = filled.remote.get_collection("c")
        found = c.search_columns(
            VECTORS, 10, merge_recall=0.9, measure_merge=True, with_payload=False, explain=True
        )
        spread = found.plan.spread
        assert spread.shards == SHARDS
        assert spread.c < 10
        assert spread.planned_recall >= 0.9
        # 300 queries of 10: three standard errors are 0.02.
        assert abs(spread.measured_recall - spread.planned_recall) < 0.03  # measured 0.005
        usual = c.search(VECTORS[0], 10, explain=True).plan.spread
        assert usual.planned_recall > 1 - 0.05 * 0.05 - 1e-9
        assert usual.measured_recall is None
        exact = c.search(VECTORS[0], 10, exact=True, explain=True).plan.spread
        assert (exact.c, exact.planned_recall) == (10, 1.0)

    @pytest.mark.parametrize("value", [0, 1.1, "much", True])
    def test_a_merge_recall_that_is_none_is_refused(self, filled: Pair, value: Any) -> None:
        """It is a share."""
        with pytest.raises(InvalidArgument, match="merge_recall"):
            filled.remote.get_collection("c").search(VECTORS[0], merge_recall=value)
