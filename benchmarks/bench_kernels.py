"""The kernels one by one: every backend at every instruction set of this machine, NumPy beside.

    soardb/kernels/{native,portable,reference}.py -> [bench_kernels.py] -> pytest-benchmark's table

    python -m pytest benchmarks/bench_kernels.py --benchmark-only
    python -m pytest benchmarks/bench_kernels.py --benchmark-only -k "scan and native" \\
        --benchmark-json benchmarks/results/kernels.json

Sizes are those of an index of a million 100-d vectors. Times are of the calling thread's own CPU,
so that another load on the machine disturbs them least; `extra_info` in the JSON has the rates.
What a whole search costs, and the recall that it reaches, is bench_peers.py's business.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from soardb.kernels import dispatch, reference
from soardb.kernels.layout import BLOCK, F32, I8, I32, LINE, U8, U32, Metric

WAYS = [f"native-{level}" for level in dispatch.levels()]
WAYS += ["numba"] if importlib.util.find_spec("numba") else []
D = 100
METRICS: tuple[Metric, ...] = get_args(Metric)

pytestmark = pytest.mark.benchmark(
    timer=time.thread_time, min_rounds=5, max_time=0.3, warmup=True, warmup_iterations=1
)


@pytest.fixture(params=WAYS)
def kernels(request: pytest.FixtureRequest) -> Iterator[dispatch.Kernels]:
    """One backend at one instruction set; the level of the process is put back afterwards."""
    backend, _, level = request.param.partition("-")
    if backend == "numba":
        yield dispatch.load(backend)
        return
    from soardb.kernels import _native

    before = _native.level()
    dispatch.use_level(level)
    yield dispatch.load(backend)
    dispatch.use_level(before)


def measure(benchmark: Any, group: str, run: Callable[[], object], **amounts: float) -> None:
    """Time run(), and note amounts / second under the names given."""
    benchmark.group = group
    benchmark(run)
    if benchmark.stats is not None:  # --benchmark-disable
        for name, amount in amounts.items():
            benchmark.extra_info[f"{name}_per_s"] = amount / benchmark.stats.stats.median


@cache
def floats(n: int, d: int = D, seed: int = 0) -> F32:
    return np.random.default_rng([n, d, seed]).standard_normal((n, d), np.float32)


@cache
def byte_rows(n: int, d: int) -> U8:
    return np.random.default_rng([n, d]).integers(0, 256, (n, d), np.uint8)


def byte_query() -> I8:
    return np.random.default_rng(1).integers(-127, 128, D).astype(np.int8)


class ColdRows:
    """Rows of a big array, other ones at each call, so that they come from memory, not a cache."""

    def __init__(self, n: int, count: int) -> None:
        self._rows: U32 = np.random.default_rng(2).permutation(n).astype(np.uint32)
        self._count, self._at = count, 0

    def __call__(self) -> U32:
        self._at = (self._at + self._count) % (len(self._rows) - self._count)
        return self._rows[self._at : self._at + self._count]


class TestScan:
    @pytest.mark.parametrize(
        ("n", "m"), [(1_000_000, 56), (262_144, 192), (16_384, 56)], ids=["1M", "256k-wide", "L2"]
    )
    def test_scan(self, benchmark: Any, kernels: dispatch.Kernels, n: int, m: int) -> None:
        """The scan of packed codes with its fused selection of 100."""
        codes = byte_rows(-(-n // 16) * (m // 8), 64).reshape(-1, m // 8, 64)
        lut = np.random.default_rng(0).integers(0, 256, (m, 16), np.uint8)
        run = lambda: kernels.lut16_topk(codes, n, lut, 0, 100)  # noqa: E731
        measure(benchmark, f"scan {n} codes of {m}", run, vectors=n, codes=n * m)


@pytest.mark.parametrize("n", [2048, 5120, 20_032])
class TestCentroids:
    """One query against all centroids."""

    def test_int8(self, benchmark: Any, kernels: dispatch.Kernels, n: int) -> None:
        blocks, query = reference.pack_u8_blocks(byte_rows(n, D)), byte_query()
        run = lambda: kernels.score_blocks_u8(blocks, query)  # noqa: E731
        measure(benchmark, f"score {n} centroids", run, centroids=n)

    def test_float32(self, benchmark: Any, kernels: dispatch.Kernels, n: int) -> None:
        rows, query = floats(n), floats(1)[0]
        run = lambda: kernels.exact_scores(rows, query, "dot")  # noqa: E731
        measure(benchmark, f"score {n} centroids", run, centroids=n)

    def test_numpy(self, benchmark: Any, n: int) -> None:
        rows, query = floats(n), floats(1)[0]
        measure(benchmark, f"score {n} centroids", lambda: rows @ query, centroids=n)


@pytest.mark.parametrize("count", [300, 1000])
class TestRerank:
    """Candidates out of a million rows, cold."""

    n = 1_000_000

    @pytest.mark.parametrize("stride", [100, 128])
    def test_int8(self, benchmark: Any, kernels: dispatch.Kernels, count: int, stride: int) -> None:
        store, query, rows = byte_rows(self.n, stride), byte_query(), ColdRows(self.n, count)
        run = lambda: kernels.rerank_u8(store, rows(), query)  # noqa: E731
        measure(benchmark, f"rerank {count} rows", run, rows=count)

    def test_float32(self, benchmark: Any, kernels: dispatch.Kernels, count: int) -> None:
        vectors, query, rows = floats(self.n), floats(1)[0], ColdRows(self.n, count)
        run = lambda: kernels.rerank_f32(vectors, rows(), query, "dot")  # noqa: E731
        measure(benchmark, f"rerank {count} rows", run, rows=count)

    def test_numpy(self, benchmark: Any, count: int) -> None:
        vectors, query, rows = floats(self.n), floats(1)[0], ColdRows(self.n, count)
        run = lambda: vectors[rows()] @ query  # noqa: E731
        measure(benchmark, f"rerank {count} rows", run, rows=count)


def numpy_topk(vectors: F32, queries: F32, k: int) -> F32:
    scores = queries @ vectors.T
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    return np.sort(np.take_along_axis(scores, best, axis=1))


@pytest.mark.parametrize("k", [10, 100])
@pytest.mark.parametrize("nq", [1, 64])
class TestExactTopk:
    """Brute force over 100,000 vectors."""

    n = 100_000

    @pytest.mark.parametrize("metric", ["dot", "l2"])
    def test_exact_topk(
        self, benchmark: Any, kernels: dispatch.Kernels, nq: int, k: int, metric: Metric
    ) -> None:
        vectors, queries = floats(self.n), floats(nq, seed=1)
        run = lambda: kernels.exact_topk(vectors, queries, k, metric)  # noqa: E731
        measure(benchmark, f"top {k}, {nq} queries", run, products=self.n * nq)

    def test_numpy(self, benchmark: Any, nq: int, k: int) -> None:
        vectors, queries = floats(self.n), floats(nq, seed=1)
        run = lambda: numpy_topk(vectors, queries, k)  # noqa: E731
        measure(benchmark, f"top {k}, {nq} queries", run, products=self.n * nq)


class TestBuild:
    """Per vector, an index pays these once."""

    n, nlist, m = 10_000, 2000, 56

    def test_assign(self, benchmark: Any, kernels: dispatch.Kernels) -> None:
        vectors, centroids = floats(self.n), floats(self.nlist, seed=1)
        run = lambda: kernels.assign(vectors, centroids)  # noqa: E731
        measure(benchmark, "assign", run, vectors=self.n)

    def test_assign_numpy(self, benchmark: Any) -> None:
        vectors, centroids = floats(self.n), floats(self.nlist, seed=1)
        run = lambda: reference.assign(vectors, centroids)  # noqa: E731
        measure(benchmark, "assign", run, vectors=self.n)

    def test_spill_assign(self, benchmark: Any, kernels: dispatch.Kernels) -> None:
        vectors, centroids = floats(self.n), floats(self.nlist, seed=1)
        primary, _ = kernels.assign(vectors, centroids)
        run = lambda: kernels.spill_assign(vectors, centroids, primary, 1.5)  # noqa: E731
        measure(benchmark, "spill assign", run, vectors=self.n)

    @pytest.mark.parametrize("eta", [1.0, 4.0], ids=["nearest", "noise-shaped"])
    def test_encode(self, benchmark: Any, kernels: dispatch.Kernels, eta: float) -> None:
        residuals = floats(2000)
        directions = residuals / np.linalg.norm(residuals, axis=1, keepdims=True)
        bounds: I32 = (np.arange(self.m + 1) * D // self.m).astype(np.int32)
        codebook = floats(self.m * 2 * 16).ravel()[: self.m * 2 * 16].reshape(self.m, 2, 16).copy()
        codebook[np.arange(2) >= np.diff(bounds)[:, None]] = 0
        weights = np.full(2000, eta, np.float32)
        run = lambda: kernels.encode(residuals, directions, weights, codebook, bounds)  # noqa: E731
        measure(benchmark, f"encode, eta {eta}", run, vectors=2000)


class TestAdd:
    """What an index pays for each vector that is added alone or among few."""

    nlist, m = 2000, 56

    def test_assign_one(self, benchmark: Any, kernels: dispatch.Kernels) -> None:
        vector, assigner = floats(1), kernels.Assigner(floats(self.nlist, seed=1))
        measure(benchmark, "assign one", lambda: assigner.assign(vector), vectors=1)

    @pytest.mark.parametrize("n", [1, 1000])
    def test_append_codes(self, benchmark: Any, kernels: dispatch.Kernels, n: int) -> None:
        """Lists are emptied before each call, so that none ever has to move."""
        rng = np.random.default_rng(3)
        room = np.full(self.nlist, 4, np.int64)
        start, count = np.cumsum(room) - room, np.zeros(self.nlist, np.int32)
        used = int(room.sum())
        codes = np.zeros((used, self.m // 8, LINE), np.uint8)
        rows = np.zeros(used * BLOCK, np.uint32)
        parts = rng.integers(0, self.nlist, n).astype(np.int32)
        new_rows = np.arange(n, dtype=np.uint32)
        new_codes = (byte_rows(n, self.m) & 15).astype(np.uint8)

        def run() -> None:
            count[parts] = 0
            done = kernels.append_codes(
                start, count, room, used, codes, rows, parts, new_rows, new_codes
            )
            assert done == (n, used)

        measure(benchmark, f"append {n} codes", run, codes=n)
