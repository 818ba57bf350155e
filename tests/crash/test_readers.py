"""Readers beside a writer: every call sees whole writes, in memory, rows and full text alike.

    soardb/reads.py -> [test_readers.py]

A commit is seen first by the row store and its full text, and a moment later by the contents in
memory. No reader may see the time between.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from tests.crash.checker import AT_REST

N = 100
WORDS = {"field": "body", "op": "matches", "value": "beta"}

CALLS: dict[str, Callable[[Collection], Any]] = {
    "count of words": lambda c: c.count(WORDS),
    "count of words and a number": lambda c: c.count(
        {"and": [WORDS, {"field": "n", "op": "eq", "value": 1}]}
    ),
    "text search": lambda c: len(c.search(text="beta", limit=N).ids),
    "filtered search": lambda c: len(c.search(np.ones(8), limit=N, filter=WORDS).ids),
    "scroll of words": lambda c: len(c.scroll(page_size=2 * N, filter=WORDS)),
    "points twice": lambda c: len([p for p in c.get([*range(N - 1), 5]) if p is not None]),
    "count": lambda c: c.count(),
}


@pytest.fixture
def overwritten(tmp_path: Path) -> Iterator[Collection]:
    """A collection whose points are all overwritten, over and over."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    stop = threading.Event()
    with Database(tmp_path / "db", policy=AT_REST) as db:
        collection = db.create_collection("a", 8, "l2", schema={"body": "text", "n": "int"})
        vectors = np.random.default_rng(1).standard_normal((N, 8), dtype=np.float32)
        collection.upsert(list(range(N)), vectors, [{"body": "beta", "n": 1}] * N)

        def write() -> None:
            while not stop.is_set():
                collection.update_payload({"x": 1}, ids=list(range(N)), ack="logged")

        writer = threading.Thread(target=write)
        writer.start()
        yield collection
        stop.set()
        writer.join()
    sys.setswitchinterval(interval)


class TestReadersBesideAWriter:
    @pytest.mark.parametrize("call", CALLS)
    def test_a_point_that_is_overwritten_is_never_missing(
        self, call: str, overwritten: Collection
    ) -> None:
        """Before there was one view of both, 8 of 100 text searches missed all the points."""
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            assert CALLS[call](overwritten) == N
