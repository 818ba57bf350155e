"""The measured curve: true recalls with honest intervals, and the cheapest setting of a target.

    soardb/tuning.py -> [test_tuning.py]

Recalls are compared with a count by hand; latencies are only asked to be there, as they are the
machine's.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest

from soardb import deadline
from soardb.collection import Collection
from soardb.curve import Curve, Effort, OperatingPoint
from soardb.database import Database
from soardb.errors import Closed, InvalidArgument, TimedOut
from soardb.index.exam import interval
from soardb.kernels.layout import Metric
from soardb.promises import Subject
from soardb.tuning import drawn_exam
from tests.collections.conftest import D, points

N = 3_000


def made(
    database: Database, metric: Metric = "l2", nlist: int = 0, kind: str = "int"
) -> Collection:
    """N points, in partitions where nlist says so."""
    index = {"nlist": nlist, "soar_lambda": 0.0} if nlist else {}
    collection = database.create_collection("c", D, metric, index=index)
    ids: list[Any] = list(range(N)) if kind == "int" else [f"p{i}" for i in range(N)]
    collection.upsert(ids, points(N))
    if nlist:
        collection.compact()
    return collection


class TestCurve:
    @pytest.mark.parametrize("kind", ["int", "str"])
    def test_recall_rises_to_one_with_the_lists_that_are_visited(
        self, database: Database, metric: Metric, kind: str
    ) -> None:
        """With every list and deep re-ranking nothing can be missed; with one list much is."""
        collection = made(database, metric, 40, kind)
        curve = collection.tune(10, queries=50, nprobes=[1, 4, 40], reranks=[N])
        assert [(p.nprobe, p.rerank) for p in curve.points] == [(1, N), (4, N), (40, N)]
        recalls = [p.recall for p in curve.points]
        assert recalls == sorted(recalls)
        assert recalls[0] < 0.95  # measured 0.51 to 0.83
        # Measured 0.99 and more: 8 bits choose the 15 of which the vectors choose 11.
        assert recalls[-1] >= 0.985
        assert all(p.low <= p.recall <= p.high for p in curve.points)
        assert all(p.latency_us > 0 for p in curve.points)
        assert (curve.k, curve.queries) == (10, 50)

    def test_it_sweeps_by_itself_from_one_list_on(self, database: Database) -> None:
        """From a recall that nobody wants less of to one beside which nothing is missed."""
        collection = made(database, nlist=40)
        curve = collection.tune(5)
        recalls = [p.recall for p in curve.points]
        assert curve.k == 5
        assert 320 < curve.queries < 430  # about an eighth of the points, which is held out
        assert min(p.nprobe or 0 for p in curve.points) == 1
        assert max(recalls) > 0.99  # measured 1

    def test_the_same_seed_measures_the_same_recalls(self, database: Database) -> None:
        """A curve that changes by itself would hide one that changes with the data."""
        collection = made(database, nlist=40)

        def recalls(seed: int) -> list[float]:
            curve = collection.tune(5, queries=30, nprobes=[1, 2], reranks=[10], seed=seed)
            return [p.recall for p in curve.points]

        assert recalls(1) == recalls(1) != recalls(2)

    def test_recall_is_what_a_count_by_hand_gives(self, database: Database) -> None:
        """Each query was drawn from a point, which it is denied."""
        collection = made(database, nlist=40)
        core = collection._core
        subject = Subject.of(core.contents, core.lock.read)
        exam = drawn_exam(subject, 5, 20, 3, lambda stage, share: None)
        ids = core.contents.table.ids_at(exam.own)
        hits = 0
        for query, own in zip(exam.queries, ids, strict=True):
            near = np.square(points(N) - query).sum(axis=1)
            assert near.argmin() == own, "the jitter moves a query nearer to another point"
            near[int(own)] = np.inf
            found = collection.search(query, 6, nprobe=2, rerank=50)
            kept = [i for i in found.ids.tolist() if i != own][:5]
            hits += len(set(kept) & set(np.argsort(near, kind="stable")[:5].tolist()))
        point = exam.point(Effort(2, 50))
        assert point.recall == pytest.approx(hits / 100)

    def test_without_partitions_it_is_one_exact_point(self, database: Database) -> None:
        """There is nothing to choose."""
        (point,) = made(database).tune(queries=20).points
        assert (point.nprobe, point.rerank, point.recall) == (None, None, 1.0)
        assert point.low == point.high == 1

    def test_points_that_are_all_alike(self, database: Database) -> None:
        """Whichever of equals is found, it is as good as the others."""
        collection = database.create_collection("c", D, "l2")
        collection.upsert(range(100), np.ones((100, D)))
        assert collection.tune(5, queries=10).points[0].recall == 1


class TestCalling:
    def test_it_needs_more_than_k_points(self, database: Database) -> None:
        """Recall@10 of ten points, one of them denied, is none."""
        collection = database.create_collection("c", D)
        with pytest.raises(InvalidArgument, match="more than k = 10 points"):
            collection.tune()
        collection.upsert(range(11), points(11))
        assert collection.tune().queries == 11

    @pytest.mark.parametrize("bad", [{"k": 0}, {"queries": 0}, {"nprobes": []}, {"nprobes": [0]},
                                     {"reranks": "12"}, {"seed": -1}, {"nprobes": 4}])  # fmt: skip
    def test_what_cannot_be_measured_is_refused(self, database: Database, bad: Any) -> None:
        """Before the exact searches are done."""
        collection = made(database)
        with pytest.raises(InvalidArgument):
            collection.tune(**bad)

    def test_it_reports_and_stops(self, database: Database) -> None:
        """It takes a while on a large collection, and nobody may be waiting any more."""
        collection = made(database, nlist=40)
        stop, told = threading.Event(), list[tuple[str, float]]()

        def progress(stage: str, share: float) -> None:
            told.append((stage, share))
            if stage == "curve":
                stop.set()

        with pytest.raises(Closed, match="the tuning was stopped"):
            collection.tune(queries=30, progress=progress, stop=stop)
        assert told[0] == ("truth", 0.0)
        assert all(0 <= share <= 1 for _, share in told)
        with pytest.raises(TimedOut), deadline.within(0):
            collection.tune(queries=30)


class TestChoosing:
    curve = Curve(
        10,
        100,
        [
            OperatingPoint(Effort(4, 40), 0.90, 0.88, 0.92, 30.0, 400.0),
            OperatingPoint(Effort(8, 40), 0.96, 0.95, 0.97, 50.0, 800.0),
            OperatingPoint(Effort(4, 80), 0.95, 0.93, 0.96, 45.0, 400.0),
        ],
    )

    def test_the_fastest_that_reaches_the_target(self) -> None:
        """More recall than asked for is not worth more time."""
        assert self.curve.cheapest(0.95) is self.curve.points[2]
        assert self.curve.cheapest(0.5) is self.curve.points[0]
        assert self.curve.cheapest(0.99) is None
        for bad in (0, 1.1, True, "0.9", float("nan")):
            with pytest.raises(InvalidArgument, match="target_recall"):
                self.curve.cheapest(bad)  # type: ignore[arg-type]

    def test_it_goes_through_json(self) -> None:
        """For files, and for other programs."""
        given = json.loads(json.dumps(self.curve.to_json()))
        assert given["points"][0]["nprobe"] == 4
        assert Curve.of_json(given) == self.curve


class TestInterval:
    def test_it_holds_the_truth_as_often_as_it_says(self) -> None:
        """95 of 100, also where the hits of a query are missed together."""
        rng = np.random.default_rng(0)
        inside = 0
        for _ in range(1_000):
            hard = rng.random(200) < 0.2  # a fifth of the queries find half, the others all but all
            recalls = rng.binomial(10, np.where(hard, 0.5, 0.99)) / 10
            low, high = interval(recalls, 10)
            inside += low <= 0.2 * 0.5 + 0.8 * 0.99 <= high
        assert inside > 930  # measured 949

    def test_a_sample_without_a_miss_is_not_taken_for_certain(self) -> None:
        """200 queries that miss nothing say 98 %, not 100 %."""
        low, high = interval(np.ones(200), 10)
        assert 0.97 < low < 0.985
        assert high == 1
