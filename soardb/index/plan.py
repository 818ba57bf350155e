"""What an index decides when the caller does not: build parameters and the plan of one search.

    ivf.py -> [plan.py]

The rules are short formulas of n, d, metric and k. They began as ScaNN's autopilot (section 4.8 of
the method's description) and follow what benchmarks/ measured; docs/index-guide.md has the figures.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Real
from typing import Any, Literal, Never, TypedDict, get_args

from soardb.arrays import as_int
from soardb.clustering import POINTS_PER_CENTROID
from soardb.errors import InvalidArgument
from soardb.kernels.layout import Metric, Precision, SearchPlan

__all__ = [
    "BuildOptions",
    "BuildParams",
    "as_real",
    "choose_build",
    "choose_search",
    "default_nprobe",
    "default_rerank",
    "reject_unknown",
]

_EXACT_FLOATS = 2**20
_EXACT_ROWS = 2_000
_SOAR_LAMBDA = 1.5
_AVQ_ETA = 2.5
_WIDE = 256  # dimensions from which on a centroid costs what a longer list does
_TWO_LEVEL_LISTS = 16_384
_LEAST_CELLS = 0.4  # share of the cells; a fifth loses 4 points of recall (benchmarks/LOG.md)
_MAX_LISTS = 2**20
_CHOSEN = ("nlist", "soar_lambda", "dims_per_block", "avq_eta", "ncell")  # None: by train()


class BuildOptions(TypedDict, total=False):
    """The keyword arguments of SoarIndex; see BuildParams for their meaning."""

    layout: Literal["formula", "measured"]
    nlist: int | None
    soar_lambda: float | None
    dims_per_block: int | None
    avq_eta: float | None
    anisotropic_threshold: float
    rotate: bool | None
    ncell: int | None
    include_primary: bool
    overretrieve: float
    spherical: bool
    init: Literal["random", "kmeans++"]
    iterations: int
    points_per_centroid: int
    seed: int
    threads: int
    precision: Precision


@dataclass(frozen=True, slots=True)
class BuildParams:
    """How an index is built. None is chosen by train(), as `layout` says.

    layout                 "formula": from n, d and metric; "measured": by what searches of a sample
                           cost (layout.py)
    nlist                  partitions; 0 keeps the index exact
    soar_lambda            weight of the parallel part in the spilled assignment; 0 is plain IVF
    dims_per_block         dimensions coded by one 4-bit code
    avq_eta                AVQ update of the centroids, at least 1; 0 leaves the k-means ones
    anisotropic_threshold  share of the typical norm above which inner products matter; 0 is plain
                           PQ. Not used under l2
    rotate                 whether residuals are turned into their principal directions before they
                           are coded; None: where that leaves at most 0.85 of the squared error
    ncell                  cells of the upper level of centroids; 0 is one level
    include_primary        whether the primary partition may win the second assignment, which
                           stores that vector once
    overretrieve           codes kept by the scan over `rerank`, when vectors stand in two lists
    spherical              k-means with centroids of unit length
    init                   k-means seeds: "random" or "kmeans++"
    iterations             rounds of k-means, and of the codebooks
    points_per_centroid    sampled points a centroid
    seed                   of every random choice
    threads                used by train() and add()
    precision              what is kept of a vector for the scores that a search returns: "float32",
                           the vector; "bfloat16", half of its bytes; "int8", only the 8-bit row
                           that there is anyway. Scores are exact of what is kept. Without
                           partitions, "int8" keeps float32
    """

    layout: Literal["formula", "measured"] = "formula"
    nlist: int | None = None
    soar_lambda: float | None = None
    dims_per_block: int | None = None
    avq_eta: float | None = None
    anisotropic_threshold: float = 0.2
    rotate: bool | None = None
    ncell: int | None = None
    include_primary: bool = True
    overretrieve: float = 2.0
    spherical: bool = False
    init: Literal["random", "kmeans++"] = "random"
    iterations: int = 10
    points_per_centroid: int = POINTS_PER_CENTROID
    seed: int = 0
    threads: int = 1
    precision: Precision = "float32"

    @classmethod
    def of(cls, options: dict[str, Any], metric: Metric) -> BuildParams:
        """Checked parameters; InvalidArgument names the first one that cannot be."""
        reject_unknown(options.keys() - BuildOptions.__annotations__.keys(), cls.__slots__)
        params = cls(**options)
        checked: dict[str, Any] = {}
        for name, low, high in (
            ("nlist", 0, _MAX_LISTS),
            ("dims_per_block", 1, 64),
            ("ncell", 0, _MAX_LISTS),
            ("iterations", 1, 1000),
            ("points_per_centroid", 1, 2**31),
            ("seed", 0, 2**63),
            ("threads", 1, 1024),
        ):
            value = getattr(params, name)
            if value is not None or name not in _CHOSEN:
                checked[name] = as_int(value, name, low, high)
        for name, least, most in (
            ("soar_lambda", 0.0, 1e6),
            ("avq_eta", 0.0, 1e6),
            ("anisotropic_threshold", 0.0, 1.0),
            ("overretrieve", 1.0, 2.0),
        ):
            value = getattr(params, name)
            if value is None and name in _CHOSEN:
                continue
            checked[name] = as_real(value, name, least, most)
        for name, others in (("include_primary", ()), ("spherical", ()), ("rotate", (None,))):
            value = getattr(params, name)
            if not isinstance(value, bool) and value not in others:
                choices = " or ".join(str(choice) for choice in (True, False, *others))
                raise InvalidArgument(f"expected {name} {choices}, got {value!r}")
        if params.init not in ("random", "kmeans++"):
            raise InvalidArgument(f"expected init 'random' or 'kmeans++', got {params.init!r}")
        if params.precision not in get_args(Precision):
            raise InvalidArgument(
                f"expected precision one of {', '.join(get_args(Precision))}, "
                f"got {params.precision!r}"
            )
        if params.precision == "int8" and params.nlist == 0:
            raise InvalidArgument(
                "expected precision 'float32' or 'bfloat16' with nlist 0, got 'int8': there are no "
                "8-bit rows without partitions"
            )
        if params.layout not in ("formula", "measured"):
            raise InvalidArgument(f"expected layout 'formula' or 'measured', got {params.layout!r}")
        if params.avq_eta and metric == "l2":
            raise InvalidArgument(
                "expected no avq_eta under l2: the anisotropic loss is about inner products; "
                "leave it out, or use metric 'dot' or 'cosine'"
            )
        if params.avq_eta and params.avq_eta < 1:
            raise InvalidArgument(f"expected avq_eta 0 (off) or at least 1, got {params.avq_eta}")
        return replace(params, **checked)


def as_real(value: object, name: str, least: float, most: float) -> float:
    """A number within [least, most], or InvalidArgument."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):  # type: ignore[operator]
        raise InvalidArgument(f"expected {name} within {least}..{most}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def reject_unknown(unknown: Iterable[str] | Iterable[Never], known: Iterable[str]) -> None:
    """InvalidArgument for the first unknown keyword, with the nearest known one."""
    choices = sorted(known)
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(choices)}"
        raise InvalidArgument(f"unknown parameter {name!r}{hint}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The parameters that were None, chosen."""

    nlist: int
    soar_lambda: float
    dims_per_block: int
    avq_eta: float
    ncell: int


def choose_build(params: BuildParams, n: int, d: int, metric: Metric) -> Choice:
    """Fill in what is None for n training vectors of d dimensions.

    Small collections stay exact (nlist 0). InvalidArgument when nlist exceeds n.
    """
    nlist = params.nlist
    if nlist is None:
        is_small = n * d <= _EXACT_FLOATS or n <= _EXACT_ROWS
        factor = 3.5 if d < _WIDE else 1.75
        nlist = 0 if is_small else min(max(round(factor * math.sqrt(n)), 16), _MAX_LISTS)
    if nlist > n:
        raise InvalidArgument(
            f"expected nlist of at most the {n} training vectors, got {nlist}; "
            "lower it, train on more, or leave it out"
        )
    soar_lambda = params.soar_lambda
    if soar_lambda is None:
        soar_lambda = _SOAR_LAMBDA
    dims_per_block = params.dims_per_block
    if dims_per_block is None:
        dims_per_block = 3 if d < _WIDE else 4
    avq_eta = params.avq_eta
    if avq_eta is None:
        avq_eta = _AVQ_ETA if metric != "l2" else 0.0
    ncell = params.ncell
    if ncell is None:
        ncell = round(math.sqrt(nlist)) if nlist >= _TWO_LEVEL_LISTS else 0
    return Choice(nlist, float(soar_lambda), dims_per_block, float(avq_eta), min(ncell, nlist))


@lru_cache(maxsize=1024)  # its arguments hardly change from one search to the next
def choose_search(
    *,
    k: int,
    nprobe: int | None,
    rerank: int | None,
    stop: float | None = None,
    n: int,
    nlist: int,
    ncell: int,
    collect_factor: float,
    copies: int,
    dims_per_block: int,
) -> SearchPlan:
    """The plan of one search over n rows, nlist >= 1 lists.

    Given knobs are kept within what exists (nprobe <= nlist, k <= rerank <= n); None takes a
    default meant for recall@k near 0.95, where no curve was measured (curve.py). copies is the
    most lists that a vector stands in: that many times k codes hold k vectors.
    """
    if nprobe is None:
        nprobe = default_nprobe(nlist, copies)
    if rerank is None:
        rerank = default_rerank(k, dims_per_block)
    nprobe = min(nprobe, nlist)
    rerank = min(max(rerank, k), n)
    cellprobe = 0
    if ncell:
        share = max(_LEAST_CELLS, 4 * nprobe / nlist)
        cellprobe = min(ncell, max(1, math.ceil(share * ncell)))
    return SearchPlan(
        nprobe=nprobe,
        cellprobe=cellprobe,
        collect=max(math.ceil(rerank * collect_factor), copies * k),
        rerank=rerank,
        refine=min(rerank, k + max(4, k // 4, rerank // 16)),
        stop=math.inf if stop is None else stop,
    )


def default_nprobe(nlist: int, copies: int) -> int:
    """Half of what ScaNN's autopilot visits, 42 * 2^log10(nlist / 42): 2,000 lists give 68.

    Half of that again where vectors stand in two lists, which are then twice as long.
    """
    if nlist <= 16:
        return nlist
    return max(8, math.ceil(21 / copies * 2 ** math.log10(max(nlist, 42) / 42)))


def default_rerank(k: int, dims_per_block: int) -> int:
    """Candidates scored again for k results: more where codes are coarser."""
    return math.ceil(max(4 * k, (12 * dims_per_block + 16) * math.sqrt(k)))
