"""What a measured library looks like from outside, and the grids that its queries sweep.

    [face.py] <- soardb.py, scann.py, faiss.py, ... <- benchmarks.peers -> bench_peers.py

One class per library has this face. It knows how to build its index, how to save and open it, how
to ask one query or many, which query parameters to sweep and how large its index is; nothing of
clocks, recall or processes. A library is imported when its class is instantiated, so that the
others can run without it.

Under "cosine" a library that only knows inner products or distances gets unit vectors; under inner
products the query keeps its length, which no order depends on, so that no peer pays for
normalising it in Python.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Arguments = Mapping[str, Any]
"""Parameters by name: of a build, or of a query."""

RERANKS = (40, 70, 110, 180, 300)
WIDTHS = (10, 16, 24, 36, 54, 80, 120, 180, 270, 400, 600, 900)
"""Beam widths of the graph searches."""


@dataclass(frozen=True)
class Spec:
    """One index to measure: a library and the parameters of its build.

    is_quick  whether it is among the best of its library, which a quick run measures
    """

    library: str
    label: str
    build: Arguments = field(default_factory=dict)
    is_quick: bool = True


@dataclass(frozen=True)
class Size:
    """Bytes of an index, vectors for re-ranking included, and where the figure comes from."""

    total: int
    source: str
    parts: Mapping[str, int] = field(default_factory=dict)


class Peer(Protocol):
    """One index of one library; metric is cosine, dot or l2, parameters are those of Spec.build."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None: ...

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        """The builds worth measuring over n vectors of d dimensions."""
        ...

    def build(self, vectors: Vectors, threads: int) -> None:
        """Index vectors (n, d) float32; row number = id."""
        ...

    def save(self, folder: Path) -> None:
        """Write the built index into an empty folder."""
        ...

    def open(self, folder: Path) -> None:
        """Be the index that `save` wrote."""
        ...

    def sweep(self) -> list[Arguments]:
        """Query parameters from fast to exact; known once the index is built."""
        ...

    def set_query_arguments(self, arguments: Arguments) -> None:
        """Apply one element of the sweep to all queries that follow."""
        ...

    def query(self, query: Vectors) -> Sequence[int]:
        """The ids of up to k neighbours of one query (d,), as the library returns them."""
        ...

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        """The ids (nq, k) of the neighbours of queries (nq, d)."""
        ...

    def size(self) -> Size: ...


@dataclass(frozen=True)
class Library:
    """A library's class here, the module that it imports, and the distribution that has it.

    identity  what tells two states of one version apart, for those that have such
    """

    peer: type[Peer]
    module: str
    distribution: str
    identity: Callable[[], str] = str

    @property
    def version(self) -> str:
        """The installed one."""
        return importlib.metadata.version(self.distribution)


def partitions(n: int) -> int:
    """A good number of partitions for n vectors: 1.75 sqrt(n), 1,000 at 331k, 1,800 at 1M."""
    wanted = 1.75 * math.sqrt(n)
    return max(1, int(round(wanted, -2 if wanted >= 500 else 0)))


def probes(nlist: int) -> list[int]:
    """Numbers of partitions to visit, spread evenly in logarithm from 0.4 % to 40 % of nlist."""
    fractions = (0.004, 0.007, 0.012, 0.018, 0.027, 0.04, 0.06, 0.09, 0.14, 0.22, 0.4)
    return sorted({max(1, round(nlist * fraction)) for fraction in fractions})


def band(nprobes: Sequence[int], reranks: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs near the diagonal: many partitions with few re-ranked vectors, or few with many, waste.

    Each nprobe meets the three entries of reranks about its own relative place.
    """
    pairs = []
    for i, nprobe in enumerate(nprobes):
        centre = round(i / max(1, len(nprobes) - 1) * (len(reranks) - 1))
        pairs += [(nprobe, rerank) for rerank in reranks[max(0, centre - 1) : centre + 2]]
    return pairs


def unit(vectors: Vectors) -> Vectors:
    """Rows of vectors (n, d) scaled to length one, as a C-contiguous float32 copy."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def folder_size(folder: Path, source: str) -> Size:
    """The files under a folder as the parts of an index."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    return Size(sum(parts.values()), source, parts)
