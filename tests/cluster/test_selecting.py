"""Selection where Ray is: by actors, and of a collection over shards.

conftest.py (a cluster) -> [test_selecting.py]; tests/pipelines has the rest
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soardb.cluster import Cluster
from soardb.pipelines.select import SelectConfig, run

RNG = np.random.default_rng(3)
POINTS = RNG.normal(size=(600, 6)).astype(np.float32)
WEIGHTS = RNG.random(600)


@pytest.mark.parametrize("is_sequential", [False, True], ids=["at once", "in turn"])
def test_actors_answer_as_parts_of_this_process_do(ray_here: None, is_sequential: bool) -> None:
    """What travels through Ray is enough."""
    config = SelectConfig(20, machines=2, crew="here", sequential=is_sequential, threads=1)
    here = run(POINTS, config, weights=WEIGHTS)
    there = run(POINTS, replace(config, crew="ray"), weights=WEIGHTS)
    assert there.ids == here.ids
    assert there.certificate == here.certificate


def test_a_collection_over_shards_is_chosen_from_and_written_back(empty: Cluster) -> None:
    """As from an embedded one: by votes of its labels, under a filter."""
    schema = {"kind": "keyword", "picked": "bool"}
    collection = empty.create_collection("c", 6, "l2", schema=schema)
    kinds = ["left" if x < 0 else "right" for x in POINTS[:, 0].tolist()]
    collection.upsert(list(range(600)), POINTS, {"kind": kinds})
    chosen = run(collection, SelectConfig(25, label_field="kind", radius_weight=0.1))
    assert len(set(chosen.ids)) == 25
    assert chosen.certificate.ratio >= 1
    assert chosen.write_field(collection, "picked") == 25
    assert collection.count("picked = true") == 25
    some = run(collection, SelectConfig(5, filter="kind = 'left'"))
    assert {kinds[i] for i in map(int, some.ids)} == {"left"}
