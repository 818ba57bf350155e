"""USearch: an HNSW graph over float32 or half-precision vectors.

    face.py -> [usearch.py] -> benchmarks.peers

Its 8-bit graph has no re-ranking and stays below the recalls that are compared here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import WIDTHS, Arguments, Size, Spec, Vectors


class Usearch:
    """USearch: an HNSW graph over float32 or half-precision vectors."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.Index = importlib.import_module("usearch.index").Index
        self.metric = {"cosine": "cos", "dot": "ip", "l2": "l2sq"}[metric]
        self.k, self.parameters = k, parameters

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        return [
            Spec("usearch", f"usearch-{dtype}-M16", {"connectivity": 16, "dtype": dtype}, False)
            for dtype in ("f16", "f32")
        ]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.index = self.Index(ndim=vectors.shape[1], metric=self.metric, **self.parameters)
        self.index.add(np.arange(len(vectors)), vectors, threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.Index.restore(str(folder / "index"))

    def sweep(self) -> list[Arguments]:
        return [{"expansion": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.index.expansion_search = arguments["expansion"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query, self.k, threads=1).keys
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        return np.asarray(self.index.search(queries, self.k, threads=threads).keys)

    def size(self) -> Size:
        return Size(int(self.index.serialized_length), "serialized_length")
