"""Databases, points and the oracle that the tests of collections share.

    test_*.py of this folder -> [conftest.py] -> tests/index/conftest.py (data, true scores)

The databases here compact only when told to, so that a test knows which strategy answers; the
background worker has tests of its own in test_compaction.py and test_ttl.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.compaction import Policy
from soardb.connect import connect
from soardb.database import Database
from soardb.hits import Hits
from soardb.kernels.layout import F32, Metric
from soardb.metrics import METRICS
from tests.index.conftest import clustered, true_scores

D = 8

BY_HAND = Policy(growth=1e18, skew=1e18, least=2**62, bounded=2**62)
"""A policy under which nothing is ever due: the index is rebuilt by compact() alone."""


def open_by_hand(folder: Path, **options: Any) -> Database:
    """A database that compacts only when told to."""
    return connect(folder, policy=BY_HAND, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the database of the test lies."""
    return tmp_path / "db"


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    """An empty database that compacts only when told to."""
    with open_by_hand(folder) as opened:
        yield opened


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Metric:
    """Every metric in turn."""
    found: Metric = request.param
    return found


Reopen = Callable[[], Collection]


@pytest.fixture
def reopened(folder: Path, database: Database) -> Iterator[Callable[[str], Collection]]:
    """Close the database of the test and have one of its collections from a new one."""
    opened: list[Database] = [database]

    def again(name: str) -> Collection:
        opened[-1].close()
        opened.append(open_by_hand(folder))
        return opened[-1].get_collection(name)

    yield again
    opened[-1].close()


def points(n: int, seed: int = 1, d: int = D) -> F32:
    """(n, d) float32 clustered vectors."""
    return clustered(n, d, seed)


def crashed(folder: Path, copy: Path) -> Path:
    """A copy of a database's files as a process that died now would leave them."""
    return Path(
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("rows.sqlite-shm", "LOCK"))
    )


def held(collection: Collection, ids: Sequence[Any]) -> tuple[list[dict[str, Any]], F32]:
    """Payloads and (n, d) vectors of ids that are all there."""
    found = collection.get(ids, with_vectors=True)
    payloads, vectors = [], []
    for point_id, point in zip(ids, found, strict=True):
        assert point is not None, f"{point_id!r} is missing"
        assert point.id == point_id
        assert point.payload is not None
        assert point.vector is not None
        payloads.append(point.payload)
        vectors.append(point.vector)
    return payloads, np.array(vectors, np.float32).reshape(-1, collection.d)


def ids_of(hits: Hits) -> list[Any]:
    """Ids of hits as a list, whatever their kind."""
    return hits.ids.tolist() if isinstance(hits.ids, np.ndarray) else list(hits.ids)


def expect_best(
    hits: Hits, ids: Sequence[Any], vectors: F32, query: F32, metric: Metric, k: int
) -> None:
    """The hits are the best k of ids by definition: right count, order, scores and members.

    Ids of equal score may stand in for each other, so members are judged by their scores.
    """
    truth = true_scores(vectors, query[None, :], metric)[0]
    best = np.sort(truth)[::-1][:k]
    found = ids_of(hits)
    assert len(found) == len(best) == len(hits.scores)
    assert len(set(found)) == len(found), "an id came twice"
    assert (np.diff(hits.scores) <= 0).all()
    place = {point_id: i for i, point_id in enumerate(ids)}
    own = np.array([truth[place[point_id]] for point_id in found])
    assert np.allclose(hits.scores, own, 1e-4, 1e-4), "a score is not that of its id"
    assert np.allclose(hits.scores, best, 1e-4, 1e-4), "a better point was left out"
