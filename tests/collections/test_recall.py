"""Recall as a promise of a collection: with filters of every kind, after churn, after reopening.

    soardb/promises.py, filter_curves.py, search.py -> [test_recall.py]

Queries are drawn from the same clouds as the points and were not used in measuring.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb import F
from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.connect import connect
from soardb.core import CURVES
from soardb.curve import Curves
from soardb.database import Database
from soardb.deadline import within
from soardb.errors import InvalidArgument, TimedOut
from soardb.filters import Expr
from soardb.kernels.layout import F32
from soardb.promises import are_stale, refresh_curves
from tests.collections.test_compaction import wait_until
from tests.index.test_target import D, blobs

N, NQ = 12_000, 1_000
QUIET = lambda stage, share: None  # noqa: E731


def filled(database: Database, n: int = N) -> Collection:
    """n points: `rank` has nothing to do with the vectors, `side` follows them."""
    schema = {"rank": "int", "side": "int"}
    made = database.create_collection("c", D, "l2", schema=schema, index={"nlist": 200})
    vectors = blobs(n, 2)
    put(made, np.arange(n), vectors)
    made.compact()
    return made


def put(made: Collection, ids: np.ndarray, vectors: F32) -> None:
    """Points whose `side` is the tenth of the space that their first coordinate lies in."""
    side = np.searchsorted([-2.3, -1.5, -0.95, -0.46, 0.0, 0.46, 0.95, 1.5, 2.3], vectors[:, 0])
    rank = np.random.default_rng(int(ids[0])).permutation(len(ids)) % 100
    made.upsert(ids, vectors, {"rank": rank.tolist(), "side": side.tolist()}, ack="logged")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A collection that is measured, and only read."""
    with by_hand(tmp_path_factory.mktemp("recall") / "db") as database:
        yield filled(database)


def by_hand(folder: Path) -> Database:
    """A database whose worker builds nothing, and measures only what has no curve."""
    return connect(
        folder, policy=Policy(growth=1e18, skew=1e18, least=2**62, bounded=2**62, stale=1e18)
    )


def recall(made: Collection, where: Expr | None = None, nq: int = NQ, **how: Any) -> float:
    """Share of the true ten that is found, one query a call."""
    queries = blobs(nq, 3)
    truth = made.search(queries, 10, filter=where, exact=True, with_payload=False)
    found = [made.search(q, 10, filter=where, with_payload=False, **how) for q in queries]
    hits = [len(np.intersect1d(a.ids, b.ids)) for a, b in zip(found, truth, strict=True)]
    return float(np.mean(hits)) / 10


def curves_of(made: Collection) -> Curves:
    """What was measured."""
    assert made._core.contents.curves is not None
    return made._core.contents.curves


class TestPromise:
    @pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.99])
    def test_without_a_filter(self, made: Collection, target: float) -> None:
        """1,500 questions leave 0.007 to chance at 0.8, and 4,000 queries 0.004."""
        found = recall(made, nq=4_000, target_recall=target)
        assert abs(found - target) < 0.015  # measured 0.798, 0.904, 0.954 and 0.992

    @pytest.mark.parametrize("target", [0.8, 0.95])
    @pytest.mark.parametrize("share", [60, 40])
    def test_under_a_filter_that_has_nothing_to_do_with_the_vectors(
        self, made: Collection, monkeypatch: pytest.MonkeyPatch, share: int, target: float
    ) -> None:
        """By the curve of its share; small ones are scored exactly."""
        monkeypatch.setattr("soardb.search.EXACT_NUMBERS", 10_000)
        monkeypatch.setattr("soardb.search._EXACT_CODES", 100.0)
        monkeypatch.setattr("soardb.promises.EXACT_NUMBERS", 10_000)
        if not any(c.share < 0.1 for c in curves_of(made).curves):
            refresh_curves(made._core, made._writer, QUIET)
        where = F("rank") < share // 4
        plan = made.search(blobs(1, 3)[0], filter=where, target_recall=target, explain=True).plan
        assert plan.strategy == "filter in scan"
        assert abs(recall(made, where, target_recall=target) - target) < 0.02  # measured 0.008

    def test_under_a_filter_that_follows_the_vectors(
        self, made: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Exactly at first; once it was asked often, by as few lists as it takes."""
        monkeypatch.setattr("soardb.search.EXACT_NUMBERS", 10_000)
        monkeypatch.setattr("soardb.search._EXACT_CODES", 100.0)
        where = F("side") == 0
        first = made.search(blobs(1, 3)[0], filter=where, target_recall=0.9, explain=True).plan
        assert (first.strategy, first.expected_recall) == ("exact on matches", 1.0)
        assert recall(made, where, 200, target_recall=0.9) == 1
        wait_until(lambda: not made._core.contents.filter_curves.wanted())
        then = made.search(blobs(1, 3)[0], filter=where, target_recall=0.9, explain=True).plan
        assert then.nprobe < made.stats()["nlist"] // 2
        assert abs(recall(made, where, target_recall=0.9) - 0.9) < 0.02  # measured 0.898

    def test_few_matches_are_scored_exactly(self, made: Collection) -> None:
        """Which keeps every promise by itself."""
        where = F("rank") == 1
        plan = made.search(blobs(1, 3)[0], filter=where, target_recall=0.99, explain=True).plan
        assert (plan.strategy, plan.expected_recall) == ("exact on matches", 1.0)
        assert recall(made, where, 50, target_recall=0.99) == 1

    def test_nothing_said_aims_at_095(self, made: Collection) -> None:
        """And says so."""
        plan = made.search(blobs(1, 3)[0], explain=True).plan
        assert plan.target_recall == 0.95
        assert plan.expected_low < 0.95 < plan.expected_high
        assert "target recall 0.95, expected 0.95" in str(plan)
        assert made.search(blobs(1, 3)[0], nprobe=4, explain=True).plan.target_recall is None

    def test_a_target_that_no_list_reaches_is_met_exactly(self, made: Collection) -> None:
        """A promise is kept or refused, never silently broken."""
        plan = made.search(blobs(1, 3)[0], target_recall=1, explain=True).plan
        assert (plan.strategy, plan.expected_recall) == ("exact", 1.0)
        assert recall(made, nq=20, target_recall=0.999999) == 1

    def test_what_is_refused(self, made: Collection) -> None:
        """A target and a setting; and what is no recall."""
        for beside in ({"nprobe": 3}, {"rerank": 30}, {"exact": True}):
            with pytest.raises(InvalidArgument, match="got both"):
                made.search(blobs(1, 3)[0], target_recall=0.9, **beside)
        bad: Any
        for bad in (0, 1.5, "0.9", True):
            with pytest.raises(InvalidArgument, match="target_recall above 0 and at most 1"):
                made.search(blobs(1, 3)[0], target_recall=bad)


class TestKeeping:
    def test_after_reopening_nothing_is_measured(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The curves are the ones that were written with the generation."""
        with by_hand(folder) as database:
            before = filled(database, 3_000)._core.contents.curves
        assert before is not None
        monkeypatch.setattr("soardb.promises.measure", None)
        for read_only in (True, False):
            with connect(folder, read_only=read_only) as database:
                made = database.get_collection("c")
                assert made._core.contents.curves == before
                plan = made.search(blobs(1, 3)[0], target_recall=0.9, explain=True).plan
                assert plan.expected_recall >= 0.9

    @pytest.mark.parametrize("damage", ["other", "nonsense", "bytes", "gone"])
    def test_damaged_curves_are_measured_anew(
        self, folder: Path, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They are derived: a word in the log, and the next search has them again."""
        with by_hand(folder) as database:
            made = filled(database, 3_000)
            before = made._core.contents.curves
            store = made._core.store
            kept = store.setting(CURVES)
            if damage == "gone":
                store.unset(CURVES)
            elif damage == "other":
                store.set(CURVES, kept | {"generation": 1})
            elif damage == "nonsense":
                store.set(CURVES, kept | {"curves": {"n": 3}})
            else:
                text = "UPDATE settings SET value = '{}' WHERE name = ?"
                store._writer.execute(text, (CURVES,))
        with caplog.at_level(logging.WARNING, "soardb"), by_hand(folder) as database:
            made = database.get_collection("c")
            plan = made.search(blobs(1, 3)[0], target_recall=0.9, explain=True).plan
            assert plan.expected_recall >= 0.9
            after = made._core.contents.curves
            assert after is not None
            assert before is not None
            assert after.choose(10, 0.9).effort == before.choose(10, 0.9).effort
        told = "measured anew" in caplog.text
        assert told == (damage in ("nonsense", "bytes"))

    def test_it_holds_after_churn(self, folder: Path) -> None:
        """A third of the points goes, as many others come: the worker measures what is there."""
        with connect(folder, policy=Policy(tail=1e9, tombstones=1e9, growth=1e9)) as database:
            made = filled(database, 6_000)
            made.delete(range(2_000))
            put(made, np.arange(10_000, 12_000), blobs(2_000, 9))
            wait_until(lambda: not are_stale(made._core.contents, 0.1))
            assert curves_of(made).live == 6_000
            assert abs(recall(made, target_recall=0.9) - 0.9) < 0.025  # measured 0.897

    def test_writing_goes_on_while_it_is_measured(self, database: Database) -> None:
        """What comes and goes meanwhile is not looked at, and nothing waits."""
        made = filled(database, 3_000)
        steps = 0

        def write(stage: str, share: float) -> None:
            nonlocal steps
            if steps < 40:
                made.upsert([50_000 + steps], blobs(1, 7), ack="logged")
                made.delete([steps], ack="logged")
            steps += 1

        curve = made.tune(progress=write)
        assert made.count() == 3_000
        assert all(0 < point.recall <= 1 for point in curve.points)
        assert curves_of(made).live == 3_000

    def test_a_first_search_with_a_target_has_a_limit(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It measures, where nobody has; not longer than the caller waits."""
        made = filled(database, 3_000)
        made._core.contents.curves = None
        monkeypatch.setattr(Policy, "stale", 1e18, raising=False)
        with pytest.raises(TimedOut), within(1e-6):
            made.search(blobs(1, 3)[0], target_recall=0.9)

    def test_tune_measures_for_searches_too(self, database: Database) -> None:
        """And with settings of the caller for the eye alone."""
        made = filled(database, 3_000)
        before = made._core.contents.curves
        made.tune(nprobes=[1, 2], queries=20)
        assert made._core.contents.curves is before
        curve = made.tune(7, seed=5)
        after = curves_of(made)
        assert after is not before
        assert curve in after.curves
        assert made._core.store.setting(CURVES)["curves"] == after.to_json()

    def test_closing_ends_a_measuring(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody waits seconds for figures that can be had again."""
        begun = threading.Event()

        def slow(core: Any, report: Callable[[str, float], None]) -> None:
            begun.set()
            while True:
                report("curve", 0.0)

        monkeypatch.setattr("soardb.database.measure_filters", slow)
        with by_hand(folder) as database:
            filled(database, 3_000)
            assert begun.wait(20)
            started = time.monotonic()
        assert time.monotonic() - started < 10


class TestKeptQueries:
    def test_curves_are_of_what_is_asked(self, database: Database) -> None:
        """Queries far from the points find less: the promise holds for them all the same."""
        made = filled(database, 6_000)
        rng = np.random.default_rng(4)
        odd = rng.normal(size=(1_200, D)).astype(np.float32) * 0.3
        by_points = curves_of(made).choose(10, 0.9).effort
        assert made._core.asked is None, "no query is kept unless that is asked for"
        made.keep_queries(500)
        made.search(odd[:700], with_payload=False)
        assert made._core.asked is not None
        assert len(made._core.asked) == 500
        made.tune()
        by_queries = curves_of(made).choose(10, 0.9).effort
        assert by_queries != by_points
        truth = made.search(odd[700:], 10, exact=True, with_payload=False)
        asked = odd[700:]  # one by one, as a batch may be exact
        found = [made.search(query, 10, target_recall=0.9, with_payload=False) for query in asked]
        hits = [len(np.intersect1d(a.ids, b.ids)) for a, b in zip(found, truth, strict=True)]
        assert abs(np.mean(hits) / 10 - 0.9) < 0.03  # measured 0.898
        made.keep_queries(0)
        assert made._core.asked is None

    @pytest.mark.parametrize("bad", [-1, 1.5, "9", None])
    def test_what_is_no_count(self, database: Database, bad: Any) -> None:
        """Named."""
        with pytest.raises(InvalidArgument, match="count"):
            database.create_collection("c", D).keep_queries(bad)
