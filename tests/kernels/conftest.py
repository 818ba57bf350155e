"""The kernels under test, one at a time, and indexes made by hand for them to search.

    reference.py, layout.py -> [conftest.py] -> test_*.py

The fixture `kernels` is every backend at every instruction set of this machine, reference.py
excepted: that one is the oracle. `make_ivf` fills an IvfArrays with random partitions and random
codes; nothing of it comes from soardb.index, so that a fault there cannot hide one here.
`split_off` and `thin_out` cut others from it: a base with a delta, and lists of some rows only.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from soardb.kernels import dispatch
from soardb.kernels.layout import BLOCK, F32, I32, I64, U8, U32, IvfArrays, Metric
from soardb.kernels.reference import pack_codes, pack_u8_blocks, unpack_codes

WAYS = [f"native-{level}" for level in dispatch.levels()] or ["native"]
WAYS += ["numba"]


@pytest.fixture(params=WAYS)
def kernels(request: pytest.FixtureRequest) -> Iterator[dispatch.Kernels]:
    """One backend at one instruction set; the level of the process is put back afterwards."""
    backend, _, level = request.param.partition("-")
    if backend == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("Numba is not installed; pip install 'soardb[portable]'")
    if backend == "native" and not level:
        pytest.skip("the extension was not built")
    if backend == "numba":
        yield dispatch.load(backend)
        return
    from soardb.kernels import _native

    before = _native.level()
    dispatch.use_level(level)
    assert _native.level() == level
    yield dispatch.load(backend)
    dispatch.use_level(before)


def split_dims(d: int, blocks: int) -> I32:
    """Bounds (blocks + 1,) of d dimensions cut into sub-spaces whose widths differ by at most 1."""
    return (np.arange(blocks + 1) * d // blocks).astype(np.int32)


def quantize_rows(rows: F32) -> tuple[U8, F32, F32]:
    """(n, d) rows as (codes (n, d) uint8, scale (d,), offset (d,)); see layout.py."""
    low, high = rows.min(axis=0, initial=0), rows.max(axis=0, initial=0)
    offset = ((low + high) / 2).astype(np.float32)
    scale = (np.maximum(high - low, 1e-6) / 254).astype(np.float32)
    codes = np.rint((rows - offset) / scale) + 128
    return codes.astype(np.uint8), scale, offset


def shifted(array: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    """A contiguous copy whose first byte lies `by` bytes past a multiple of 64."""
    room = np.empty(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + by
    out = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def random_lists(
    rng: np.random.Generator, n: int, nlist: int, is_spilled: bool
) -> list[npt.NDArray[np.int64]]:
    """Rows of each list in random order; sizes are uneven and the last list is empty if it may."""
    open_lists = max(1, nlist - 1)
    weights = rng.random(open_lists) ** 2 + 1e-3
    primary = rng.choice(open_lists, n, p=weights / weights.sum())
    lists = [np.flatnonzero(primary == part) for part in range(nlist)]
    if is_spilled and open_lists > 1:
        other = (primary + rng.integers(1, open_lists, n)) % open_lists
        other[rng.random(n) < 0.1] = -1  # stored once
        for part in range(open_lists):
            lists[part] = np.concatenate([lists[part], np.flatnonzero(other == part)])
    return [rng.permutation(rows) for rows in lists]


def place_slots(counts: list[int]) -> tuple[list[int], I32]:
    """Where centroids go when each cell starts at a block: (slot of each centroid, cell_start)."""
    starts = np.concatenate([[0], np.cumsum([-(-count // BLOCK) for count in counts])])
    slots = [
        start * BLOCK + i
        for start, count in zip(starts, counts, strict=False)
        for i in range(count)
    ]
    return [int(slot) for slot in slots], starts.astype(np.int32)


def make_random_ivf(
    *,
    seed: int,
    n: int = 300,
    d: int = 31,
    m: int = 8,
    nlist: int = 21,
    metric: Metric = "dot",
    is_spilled: bool = False,
    ncell: int = 0,
    integers: bool = False,
    turned: int = 0,
) -> IvfArrays:
    """A random index: n rows of d dimensions in nlist lists, codes of m sub-spaces.

    integers   small whole numbers everywhere, so that scores tie often
    ncell      0: one level; else the lists are cut into this many cells, the last one empty
    turned     0: codes are of the d dimensions; else of so many directions

    Padding holds rubbish wherever a kernel must not look.
    """
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> F32:
        if integers:
            return rng.integers(-3, 4, shape).astype(np.float32)
        return rng.standard_normal(shape).astype(np.float32)

    is_l2 = metric == "l2"
    vectors, mean, centroids = floats(n, d), np.zeros(d, np.float32), floats(nlist, d)
    if metric == "cosine":
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    if is_l2:
        mean = floats(d)
    centred = vectors - mean

    counts = [nlist]
    if ncell:
        cuts = np.sort(rng.integers(0, nlist + 1, ncell - 2)) if ncell > 1 else np.array([], int)
        counts = np.diff([0, *cuts.tolist(), nlist, nlist])[:ncell].tolist()
    slots, cell_start = place_slots(counts)
    nslot = int(cell_start[-1]) * BLOCK
    codes, scale, offset = quantize_rows(centroids)
    slot_codes = np.full((nslot, d), 128, np.uint8)
    slot_codes[slots] = codes
    slot_list = np.full(nslot, -1, np.int32)
    slot_list[slots] = rng.permutation(nlist)
    bias = np.full(nslot, -np.inf, np.float32)
    half_norms = np.square(centroids).sum(axis=1) / 2
    bias[slots] = -half_norms if is_l2 else 0
    cell_codes = rng.integers(0, 256, (-(-ncell // BLOCK) * BLOCK, d)).astype(np.uint8)
    cell_bias = np.full(len(cell_codes), -np.inf, np.float32)
    cell_bias[:ncell] = floats(ncell)

    lists = random_lists(rng, n, nlist, is_spilled)
    blocks = [-(-len(rows) // BLOCK) for rows in lists]
    starts = np.concatenate([[0], np.cumsum(blocks)])
    code_rows = np.full(starts[-1] * BLOCK, 0xFFFF_FFFF, np.uint32)
    for start, rows in zip(starts, lists, strict=False):
        code_rows[start * BLOCK : start * BLOCK + len(rows)] = rows
    packed = pack_codes(rng.integers(0, 16, (len(code_rows), m)).astype(np.uint8))

    extended = m - 2 if is_l2 else m
    coded = turned or d
    block_dims = split_dims(coded, extended)
    if is_l2:
        block_dims = np.concatenate([block_dims, [coded + 1, coded + 2]]).astype(np.int32)
    rotation_codes = rng.integers(1, 256, (-(-turned // BLOCK) * BLOCK, d)).astype(np.uint8)
    rotation_scale = np.zeros(len(rotation_codes), np.float32)
    rotation_scale[:turned] = np.abs(floats(turned)) / 100
    widths = np.diff(block_dims)
    codebook = floats(m, int(widths.max()), 16)
    codebook[np.arange(codebook.shape[1]) >= widths[:, None]] = 0

    row_codes, store_scale, store_offset = quantize_rows(centred)
    store = rng.integers(0, 256, (n, -(-d // 4) * 4)).astype(np.uint8)
    store[:, :d] = row_codes
    return IvfArrays(
        metric=metric,
        vectors=vectors,
        ids=rng.permutation(n) * 7 + 2**40,
        mean=mean,
        centroids=centroids,
        centroid_bias=bias,
        centroid_codes=pack_u8_blocks(slot_codes),
        centroid_scale=scale,
        centroid_offset=offset,
        slot_list=slot_list,
        cell_codes=pack_u8_blocks(cell_codes),
        cell_bias=cell_bias,
        cell_start=cell_start if ncell else np.empty(0, np.int32),
        list_start=starts[:-1].astype(np.int64),
        list_count=np.array([len(rows) for rows in lists], np.int32),
        codes=packed,
        code_rows=code_rows,
        codebook=codebook,
        block_dims=block_dims,
        store=store,
        store_scale=store_scale,
        store_offset=store_offset,
        store_bias=np.square(centred).sum(axis=1) / 2 if is_l2 else np.empty(0, np.float32),
        is_spilled=is_spilled,
        spread=float(np.sqrt(np.square(codebook[:extended]).mean(axis=2).sum() / d)),
        rotation_codes=pack_u8_blocks(rotation_codes),
        rotation_scale=rotation_scale,
    )


Lists = list[tuple[npt.NDArray[np.int64], U8]]


def lists_of(arrays: IvfArrays) -> Lists:
    """The rows (count,) of each list and their (count, m) unpacked codes, in order."""
    lists = []
    for start, count in zip(arrays.list_start.tolist(), arrays.list_count.tolist(), strict=True):
        rows = arrays.code_rows[start * BLOCK : start * BLOCK + count].astype(np.int64)
        lists.append((rows, unpack_codes(arrays.codes[start : start + -(-count // BLOCK)], count)))
    return lists


def arena_of(lists: Lists, m: int) -> tuple[I64, I32, U8, U32]:
    """start, count, codes and code_rows of lists, as in IvfArrays; a spare block after each list.

    Padding holds rubbish.
    """
    blocks = [-(-len(rows) // BLOCK) + 1 for rows, _ in lists]
    starts = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
    code_rows = np.full(starts[-1] * BLOCK, 0xFFFF_FFFF, np.uint32)
    codes = np.random.default_rng(1).integers(0, 16, (len(code_rows), m)).astype(np.uint8)
    for start, (rows, some) in zip((starts * BLOCK).tolist(), lists, strict=False):
        code_rows[start : start + len(rows)] = rows
        codes[start : start + len(rows)] = some
    count = np.array([len(rows) for rows, _ in lists], np.int32)
    return starts[:-1].copy(), count, pack_codes(codes), code_rows


def relist(arrays: IvfArrays, lists: Lists) -> IvfArrays:
    """The same index with these lists."""
    start, count, codes, code_rows = arena_of(lists, len(arrays.codebook))
    return dataclasses.replace(
        arrays, list_start=start, list_count=count, codes=codes, code_rows=code_rows
    )


def only(lists: Lists, is_wanted: npt.NDArray[np.bool_]) -> Lists:
    """What is left of lists where only the rows of an (n,) mask may stay."""
    return [(rows[is_wanted[rows]], codes[is_wanted[rows]]) for rows, codes in lists]


def with_delta(arrays: IvfArrays, n: int) -> tuple[IvfArrays, IvfArrays]:
    """An index whose rows from n on are a delta, and the same in one segment: base codes first.

    The delta has room for more rows than it has; that room holds rubbish.
    """
    lists, is_base = lists_of(arrays), np.arange(len(arrays.ids)) < n
    base, delta = only(lists, is_base), only(lists, ~is_base)
    start, count, codes, code_rows = arena_of(delta, len(arrays.codebook))
    grown: dict[str, Any] = {
        f"delta_{name}": np.concatenate([values[n:], np.full_like(values[:5], 77)])
        for name, values in (
            ("vectors", arrays.vectors),
            ("ids", arrays.ids),
            ("store", arrays.store),
            ("store_bias", arrays.store_bias),
        )
    }
    two = dataclasses.replace(
        relist(arrays, base),
        vectors=arrays.vectors[:n],
        ids=arrays.ids[:n],
        store=arrays.store[:n],
        store_bias=arrays.store_bias[:n],
        delta_start=start,
        delta_count=count,
        delta_codes=codes,
        delta_code_rows=code_rows,
        **grown,
    )
    joined = [
        (np.concatenate([a, c]), np.concatenate([b, d]))
        for (a, b), (c, d) in zip(base, delta, strict=True)
    ]
    return two, relist(arrays, joined)


def keep_only(arrays: IvfArrays, is_wanted: npt.NDArray[np.bool_]) -> IvfArrays:
    """The same rows in one segment, but lists that hold only those of an (n,) mask."""
    return relist(arrays, only(lists_of(arrays), is_wanted))


@pytest.fixture(scope="session")
def split_off() -> Callable[[IvfArrays, int], tuple[IvfArrays, IvfArrays]]:
    return with_delta


@pytest.fixture(scope="session")
def thin_out() -> Callable[[IvfArrays, npt.NDArray[np.bool_]], IvfArrays]:
    return keep_only


@pytest.fixture(scope="session")
def make_ivf() -> Callable[..., IvfArrays]:
    return make_random_ivf


@pytest.fixture(scope="session")
def make_shifted() -> Callable[[npt.NDArray[Any], int], npt.NDArray[Any]]:
    return shifted
