"""Matrix tiles give the integers of the plain products, so the same partitions.

    kernels.native.Assigner at every level -> [test_assign_tiles.py]

The level "amx" has the tiles, the others do without.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from soardb.kernels import reference

if importlib.util.find_spec("soardb.kernels._native") is None:
    pytest.skip("the extension was not built", allow_module_level=True)

from soardb.kernels import _native, dispatch, native


@pytest.mark.parametrize("d", [2, 7, 64, 65, 100, 384, 1000])
@pytest.mark.parametrize("n", [1, 5, 17, 32, 333])
def test_levels_and_tiles_choose_alike(n: int, d: int) -> None:
    """Bit for bit, lists and scores, at every instruction set of this machine."""
    rng = np.random.default_rng([n, d])
    rows = rng.standard_normal((n, d)).astype(np.float32)
    centroids = rng.standard_normal((300, d)).astype(np.float32)
    before, found = _native.level(), []
    try:
        for level in dispatch.levels():
            dispatch.use_level(level)
            assigner = native.Assigner(centroids)
            lists, scores = assigner.assign(rows)
            found.append((lists, scores, assigner.spill(rows, lists, 1.5)))
    finally:
        dispatch.use_level(before)
    for lists, scores, second in found:
        assert np.array_equal(lists, found[0][0])
        assert np.array_equal(scores, found[0][1])
        assert np.array_equal(second, found[0][2])


def test_a_vector_that_is_no_number_gets_a_list() -> None:
    """The gate refuses it, a forged file does not."""
    rows = np.full((3, 8), np.nan, np.float32)
    centroids = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    lists, _ = native.Assigner(centroids).assign(rows)
    assert ((lists >= 0) & (lists < 40)).all()


@pytest.mark.parametrize("eta", [1.0, 2.5, 40.0])
def test_avq_by_conjugate_gradients_solves_the_system(eta: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 31)).astype(np.float32) + np.float32(0.5)
    vectors[7] = 0
    lists = rng.integers(0, 5, 400).astype(np.int32)
    centroids = rng.standard_normal((6, 31)).astype(np.float32)
    found = native.avq_update(vectors, lists, centroids, eta, threads=2)
    expected = reference.avq_update(vectors, lists, centroids, eta)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert np.array_equal(found[5], centroids[5])


def test_sums_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(-9, 9, (1000, 13)).astype(np.float32)
    lists = rng.integers(0, 40, 1000).astype(np.int32)
    for threads in (1, 3):
        sums, counts = native.list_sums(vectors, lists, 50, threads)
        expected, held = reference.list_sums(vectors, lists, 50)
        assert np.array_equal(sums, expected)
        assert np.array_equal(counts, held)
