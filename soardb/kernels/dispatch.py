"""Which kernels run: chosen once when the package is imported, logged once, shown by `soardb info`.

    index, clustering, ... -> [dispatch.py] -> native.py | portable.py | reference.py

SOARDB_KERNELS=native|numba|reference forces a backend; unset, it is the extension where it was
built, else Numba where it is installed, else NumPy. SOARDB_SIMD=scalar|avx2|avx512|amx|neon forces
the instruction set of the extension; amx is avx512 with tiles beside it. What is forced and cannot
be had is an error, never a silent fallback.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import (
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    U32,
    BoundSearch,
    IvfArrays,
    Metric,
    SearchPlan,
    Values,
)

__all__ = [
    "LEVELS",
    "Assigning",
    "Kernels",
    "Searcher",
    "active",
    "describe",
    "levels",
    "load",
    "use_level",
]

LEVELS = ("scalar", "avx2", "avx512", "amx", "neon")

_log = logging.getLogger("soardb")


class Searcher(Protocol):
    """A prepared index; see reference.IvfSearcher."""

    def __init__(self, arrays: IvfArrays) -> None: ...
    def bind(self, k: int, plan: SearchPlan) -> BoundSearch: ...

    def search(
        self,
        queries: F32,
        k: int,
        plan: SearchPlan,
        threads: int,
        scores: F32,
        ids: I64,
        allowed: U8 | None = None,
        scanned: I64 | None = None,
    ) -> int:
        """Fill scores and ids; see reference.IvfSearcher.search."""
        ...


class Assigning(Protocol):
    """Prepared centroids; see reference.Assigner."""

    def __init__(self, centroids: F32) -> None: ...
    def assign(self, vectors: F32, threads: int = 1) -> tuple[I32, F32]: ...
    def spill(
        self,
        vectors: F32,
        primary: I32,
        soar_lambda: float,
        include_primary: bool = True,
        threads: int = 1,
    ) -> I32: ...


class Kernels(Protocol):
    """What every backend offers; reference.py says what each function computes."""

    Assigner: type[Assigning]
    IvfSearcher: type[Searcher]

    def pack_codes(self, codes: U8) -> U8: ...
    def unpack_codes(self, packed: U8, n: int) -> U8: ...
    def pack_u8_blocks(self, rows: U8) -> U8: ...
    def lut16_sums(self, packed: U8, n: int, lut: U8) -> I32: ...
    def lut16_topk(self, packed: U8, n: int, lut: U8, bias: int, keep: int) -> tuple[I32, I32]: ...
    def dot_u8(self, rows: U8, query: I8) -> I32: ...
    def score_blocks_u8(self, blocks: U8, query: I8) -> I32: ...
    def rerank_u8(self, store: U8, rows: U32, query: I8) -> I32: ...
    def rerank_f32(self, vectors: F32, rows: U32, query: F32, metric: Metric) -> F32: ...
    def exact_scores(self, vectors: F32, query: F32, metric: Metric) -> F32: ...
    def exact_topk(
        self, vectors: F32, queries: F32, k: int, metric: Metric, threads: int = 1
    ) -> tuple[F32, I64]: ...
    def topk_u8(
        self,
        store: U8,
        codes: I8,
        steps: F32,
        keep: int,
        *,
        bias: F32 | None = None,
        first: int = 0,
        allowed: U8 | None = None,
        threads: int = 1,
    ) -> tuple[I32, U32, I64]: ...
    def rescore(
        self,
        vectors: Values,
        delta: Values,
        queries: F32,
        metric: Metric,
        rows: U32,
        bounds: F64,
        counts: I64,
        rest: F64,
        k: int,
        threads: int = 1,
        *,
        scale: F32 | None = None,
        offset: F32 | None = None,
    ) -> tuple[F32, I64, npt.NDArray[np.bool_]]: ...
    def store_error(
        self, vectors: F32, mean: F32, store: U8, scale: F32, offset: F32, threads: int = 1
    ) -> tuple[float, float, float]: ...
    def assign(self, vectors: F32, centroids: F32, threads: int = 1) -> tuple[I32, F32]: ...
    def spill_assign(
        self,
        vectors: F32,
        centroids: F32,
        primary: I32,
        soar_lambda: float,
        include_primary: bool = True,
        threads: int = 1,
    ) -> I32: ...
    def list_sums(
        self, vectors: F32, lists: I32, nlist: int, threads: int = 1
    ) -> tuple[F32, I64]: ...
    def avq_update(
        self, vectors: F32, lists: I32, centroids: F32, eta: float, threads: int = 1
    ) -> F64: ...
    def encode(
        self,
        residuals: F32,
        directions: F32,
        eta: F32,
        codebook: F32,
        block_dims: I32,
        threads: int = 1,
    ) -> U8: ...
    def append_codes(
        self,
        start: I64,
        count: I32,
        room: I64,
        used: int,
        codes: U8,
        rows: U32,
        parts: I32,
        new_rows: U32,
        new_codes: U8,
    ) -> tuple[int, int]: ...
    def select_topk(self, scores: F32, k: int, threads: int = 1) -> tuple[F32, I64]: ...
    def bucket_survivors(
        self, scores: F32, buckets: int, keep: int, threads: int = 1
    ) -> tuple[F32, I32]: ...
    def bucket_topk(
        self, scores: F32, buckets: int, keep: int, k: int, threads: int = 1
    ) -> tuple[F32, I64, npt.NDArray[np.bool_]]: ...
    def quantized_scores(
        self, codes: U8, bits: int, n: int, scale: F32, queries: I8, threads: int = 1
    ) -> F32: ...
    def quantized_topk(
        self, codes: U8, bits: int, n: int, scale: F32, queries: I8, k: int, threads: int = 1
    ) -> tuple[F32, I64]: ...
    def rescore_topk(
        self, vectors: F32, queries: F32, chosen: I64, k: int, threads: int = 1
    ) -> tuple[F32, I64]: ...


@dataclass(frozen=True, slots=True)
class Description:
    """The chosen path. backend: native, numba or reference; simd: the level, or "none"."""

    backend: str
    simd: str
    cpu_features: str


_MODULES = {
    "native": "soardb.kernels.native",
    "numba": "soardb.kernels.portable",
    "reference": "soardb.kernels.reference",
}


def _is_available(backend: str) -> bool:
    if backend == "native":
        return importlib.util.find_spec("soardb.kernels._native") is not None
    return backend == "reference" or importlib.util.find_spec("numba") is not None


def _choose() -> str:
    forced = os.environ.get("SOARDB_KERNELS")
    if not forced:
        return next(name for name in _MODULES if _is_available(name))
    if forced not in _MODULES:
        raise InvalidArgument(
            f"expected SOARDB_KERNELS to be one of {', '.join(_MODULES)}, got {forced!r}"
        )
    if not _is_available(forced):
        raise InvalidArgument(
            f"SOARDB_KERNELS={forced} cannot be had here: "
            + (
                "the extension was not built; install soardb with a C++20 compiler at hand"
                if forced == "native"
                else "Numba is not installed; pip install 'soardb[portable]'"
            )
        )
    return forced


def load(backend: str) -> Kernels:
    """The kernels of one backend by name, whatever is active. For tests and benchmarks."""
    if backend not in _MODULES:
        raise InvalidArgument(f"expected one of {', '.join(_MODULES)}, got {backend!r}")
    module: ModuleType = importlib.import_module(_MODULES[backend])
    return cast("Kernels", module)


def levels() -> tuple[str, ...]:
    """The instruction sets of the extension that this machine can run; () without the extension."""
    if not _is_available("native"):
        return ()
    from soardb.kernels import _native

    return tuple(name for name in LEVELS if _native.has_level(name))


def use_level(name: str) -> None:
    """Force the extension's instruction set for the whole process, as SOARDB_SIMD does."""
    if name not in levels():
        raise InvalidArgument(
            f"expected a SIMD level of this machine ({', '.join(levels()) or 'none: no extension'})"
            f", got {name!r}"
        )
    from soardb.kernels import _native

    _native.use_level(name)


def describe() -> Description:
    """The backend in use, its instruction set and what the CPU offers."""
    if _backend != "native":
        return Description(_backend, "none", "")
    from soardb.kernels import _native

    return Description(_backend, _native.level(), _native.cpu_features())


_backend = _choose()
active: Kernels = load(_backend)
"""The kernels that the index uses."""

if _backend == "native" and os.environ.get("SOARDB_SIMD"):
    use_level(os.environ["SOARDB_SIMD"])
_log.info("soardb kernels: %s, SIMD level %s", describe().backend, describe().simd)
if _backend != "native" and not os.environ.get("SOARDB_KERNELS"):
    _log.warning(
        "soardb was imported without its C++ extension and runs on %s, many times slower; install "
        "it with a C++20 compiler at hand, and do not import it from its source tree",
        "Numba" if _backend == "numba" else "NumPy alone",
    )
