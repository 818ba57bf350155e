"""Weighted k-center over several machines: its factors, and that it is the same algorithm.

brute.py -> [test_select_parts.py]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soardb.errors import InvalidArgument, Unavailable
from soardb.pipelines.select import SelectConfig, run
from tests.pipelines.brute import instance
from tests.pipelines.test_select import CLOSE, config_of

RNG = np.random.default_rng(2)
POINTS = RNG.normal(size=(900, 6)).astype(np.float32)
WEIGHTS = RNG.random(900)


@pytest.mark.parametrize("is_sequential", [False, True], ids=["at once", "in turn"])
@pytest.mark.parametrize("first", range(0, 300, 60))
def test_within_its_factor_of_the_best(first: int, is_sequential: bool) -> None:
    """5 (1 + eps), or 3 (1 + eps) where machines add to what they are handed."""
    for seed in range(first, first + 60):
        given = instance(seed)
        machines = min(3, len(given.weights))
        if machines < 2:
            continue
        config = config_of(given, machines=machines, crew="here", sequential=is_sequential)
        found = run(given.points, config, weights=given.weights)
        best = given.value(given.best())
        factor = (3 if is_sequential else 5) * 1.1
        assert found.certificate.factor == pytest.approx(factor)
        value = given.value(found.rows.tolist())
        assert value == pytest.approx(found.certificate.objective, rel=1e-3, abs=1e-5), seed
        assert value <= factor * best * CLOSE + 1e-5, seed
        assert found.certificate.lower_bound <= best * CLOSE + 1e-5, seed
        assert len(set(found.ids)) == given.k


@pytest.mark.parametrize("is_sequential", [False, True], ids=["at once", "in turn"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_processes_answer_as_parts_of_this_one_do(metric: str, is_sequential: bool) -> None:
    """What travels is enough; and about as good as one machine that has all points."""
    config = SelectConfig(
        25, metric=metric, machines=3, crew="here", sequential=is_sequential, threads=1
    )
    here = run(POINTS, config, weights=WEIGHTS)
    there = run(POINTS, replace(config, crew="processes"), weights=WEIGHTS)
    assert here.ids == there.ids
    assert here.certificate == there.certificate
    one = run(POINTS, replace(config, machines=1, normalize=False), weights=WEIGHTS)
    many = run(POINTS, replace(config, normalize=False), weights=WEIGHTS)
    assert many.certificate.objective <= one.certificate.objective * 1.5


def test_there_must_be_a_point_for_each_machine() -> None:
    """Else a part would be empty."""
    with pytest.raises(InvalidArgument, match="at most 2 machines"):
        run(POINTS[:2], SelectConfig(1, machines=3, crew="here"))


def test_actors_need_a_ray_cluster() -> None:
    """It is not begun silently: tests/cluster has the ones that run."""
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("this process is part of a Ray cluster")
    with pytest.raises(Unavailable, match="part of a Ray cluster"):
        run(POINTS, SelectConfig(5, machines=2, crew="ray"))
