"""A collection whose index rounds: what is stored is not, and errors do not pile up.

    generation.py, live.py, database.py -> [test_precision.py] <- the row store

The row store keeps every vector as it was given. The index is made from it each time, never from an
index before, so that a vector is rounded once however often it is compacted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.errors import InvalidArgument
from soardb.index.form import Form
from soardb.index.model import as_compared
from soardb.index.plan import BuildOptions
from soardb.kernels.layout import F32, Metric, Precision
from tests.collections.conftest import D, ids_of, open_by_hand, points
from tests.index.conftest import true_scores

N = 2_000
ROUNDED: tuple[Precision, ...] = ("bfloat16", "int8")


def expect_rounded_once(collection: Collection, vectors: F32) -> None:
    """The index holds the rounded vectors, each under the number of its id."""
    index, table = collection._core.contents.index, collection._core.contents.table
    form = Form.of(index.params.precision, collection.metric, index.model)
    positions = table.live_positions()
    ids = np.asarray(table.ids_at(positions))
    rounded = form.rounded(as_compared(vectors[ids], collection.metric))
    assert np.array_equal(index.vectors(positions), as_compared(rounded, collection.metric))


@pytest.mark.parametrize("precision", ROUNDED)
class TestPrecision:
    def test_only_the_index_rounds(
        self, folder: Path, metric: Metric, precision: Precision
    ) -> None:
        """Points come back as they were given, through compactions, changes and a new opening."""
        vectors = points(N)
        options: BuildOptions = {"nlist": 16, "precision": precision}
        with open_by_hand(folder) as database:
            made = database.create_collection("c", D, metric, index=options)
            made.upsert(range(N), vectors, ack="logged")
            made.compact()
            expect_rounded_once(made, vectors)
            fresh = points(200, seed=5)
            made.upsert(range(0, 400, 2), fresh)  # into the delta
            vectors[0:400:2] = fresh
            made.delete(range(1, 400, 4))
            expect_rounded_once(made, vectors)
            made.compact(retrain=True)
            made.compact()
            expect_rounded_once(made, vectors)
        with open_by_hand(folder) as database:
            again = database.get_collection("c")
            expect_rounded_once(again, vectors)
            held = again.get(list(range(400, 500)), with_vectors=True)
            assert all(
                point is not None
                and point.vector is not None
                and np.array_equal(point.vector, vectors[400 + i])
                for i, point in enumerate(held)
            )
            assert again._core.contents.index.memory()["base_vectors"] == (
                0 if precision == "int8" else 2 * D * (N - 100)
            )

    def test_searches_find_what_is_near(
        self, folder: Path, metric: Metric, precision: Precision
    ) -> None:
        """By the lists, exactly, under a filter and by a target, from base and delta."""
        vectors, queries = np.split(points(N + 200), [N])
        with open_by_hand(folder) as database:
            made = database.create_collection(
                "c", D, metric, schema={"n": "int"}, index={"nlist": 16, "precision": precision}
            )
            payloads = [{"n": i} for i in range(N)]
            made.upsert(range(1500), vectors[:1500], payloads[:1500], ack="logged")
            made.compact()
            made.upsert(range(1500, N), vectors[1500:], payloads[1500:])
            truth = true_scores(vectors, queries, metric)
            several: list[dict[str, Any]] = [
                {"exact": True}, {"nprobe": 16, "rerank": 400}, {"target_recall": 0.9}
            ]  # fmt: skip
            for options in several:
                hits = made.search(queries, 10, **options)
                recall = np.mean(
                    [
                        len(set(ids_of(row)) & set(np.argsort(-true)[:10].tolist())) / 10
                        for row, true in zip(hits, truth, strict=True)
                    ]
                )
                assert recall > 0.85  # measured 0.95 for int8, 0.99 for bfloat16
            few = made.search(queries[0], 10, filter="n < 300")
            best = np.sort(truth[0, :300])[::-1][:10]
            assert np.abs(np.array(few.scores) - best).max() < 0.01 * np.ptp(truth)


def test_a_bad_precision_is_refused(folder: Path) -> None:
    """Before anything is written."""
    with open_by_hand(folder) as database:
        with pytest.raises(InvalidArgument, match="expected precision one of"):
            database.create_collection("c", D, index={"precision": "half"})
        assert database.list_collections() == []
