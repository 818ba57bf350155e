"""A small collection of points whose labels follow from where they lie, for the tests of decide.

-> [nouns.py] -> test_decide_*.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import soardb

D = 8
SCHEMA = {"depth": "int", "kind": "keyword"}


def drawn(n: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(n, 8) vectors and their depths, 0..9: the first coordinate with noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, D)).astype(np.float32)
    depths = np.clip(np.rint(5 + 2 * vectors[:, 0] + rng.normal(0, 1.2, n)), 0, 9)
    return vectors, depths.astype(np.int64)


def payload(depth: int) -> dict[str, Any]:
    """The depth, and whether it is deep, in words."""
    return {"depth": depth, "kind": "deep" if depth > 6 else "flat", "loose": {"depth": depth}}


@contextmanager
def stored(
    folder: Path, n: int = 600, without: int = 0, schema: dict[str, str] | None = None
) -> Iterator[Any]:
    """n labelled points and `without` ones that have no label, in a collection "nouns"."""
    vectors, depths = drawn(n + without, 0)
    payloads = [payload(depth) for depth in depths[:n].tolist()] + [{}] * without
    with soardb.connect(folder) as database:
        made = database.create_collection("nouns", D, "l2", schema=schema or SCHEMA)
        made.upsert(list(range(n + without)), vectors, payloads)
        yield made
