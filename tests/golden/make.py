"""Makes the golden directory of this version: run once a format, then committed for good.

    soardb -> [make.py] -> tests/golden/format-<n>/ -> test_golden.py

    python -P tests/golden/make.py tests/golden/format-1

What the directory holds follows from the functions below, which the test calls too; they must not
change while a directory made with them is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from soardb.kernels.layout import F32

SCHEMA = {
    "i": "int",
    "f": "float",
    "b": "bool",
    "k": "keyword",
    "l": "keyword_list",
    "t": "text",
    "d": "datetime",
    "g": "geo",
}


def vectors(n: int, d: int, seed: int) -> F32:
    """(n, d) float32: small integers, which every machine makes alike."""
    grid = (np.arange(n * d, dtype=np.int64) * 7919 + seed * 104729) % 17 - 8
    rows = grid.reshape(n, d).astype(np.float32)
    rows[:, 0] = np.arange(n) % 23 + 1
    return rows


def payload(i: int) -> dict[str, Any]:
    """A payload with every type of field, some of them absent."""
    whole: dict[str, Any] = {
        "i": i - 50,
        "f": i / 4,
        "b": i % 2 == 0,
        "k": f"k{i % 5}",
        "l": [f"l{j}" for j in range(i % 3)],
        "t": f"golden text number {i}",
        "d": f"2026-01-{i % 28 + 1:02}T00:00:00Z",
        "g": {"lat": i % 90, "lon": -(i % 180)},
        "undeclared": {"nested": [i, None, "ü"]},
    }
    return {name: value for j, (name, value) in enumerate(whole.items()) if (i + j) % 7}


def make(path: Path) -> None:
    """Two collections, each with a generation and a tail of writes after it."""
    never = soardb.Policy(tail=1e9, tombstones=1e9, least=2**60, bounded=2**60)
    with soardb.connect(path, policy=never) as db:
        ints = db.create_collection(
            "ints", dim=8, metric="l2", index={"nlist": 8, "soar_lambda": 1.5}
        )
        ints.upsert(np.arange(300), vectors(300, 8, 1))
        ints.compact()
        ints.upsert(np.arange(250, 320), vectors(70, 8, 2))
        ints.delete(np.arange(0, 300, 10))
        strings = db.create_collection("strings", dim=6, metric="cosine", schema=SCHEMA)
        names = [f"point-{i}" for i in range(120)]
        strings.upsert(names, vectors(120, 6, 3), [payload(i) for i in range(120)])
        strings.compact()
        strings.update_payload({"k": "changed"}, ids=names[:5])
        strings.delete(names[110:])
        db.set_alias("words", "strings")
    (path / "LOCK").unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
