"""hnswlib: the HNSW graph of its authors.

    face.py -> [hnswlib.py] -> benchmarks.peers

It keeps the vectors in float32 inside the graph and has no quantisation.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import WIDTHS, Arguments, Size, Spec, Vectors


class Hnswlib:
    """hnswlib: the HNSW graph of its authors."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.hnswlib = importlib.import_module("hnswlib")
        self.space = {"cosine": "cosine", "dot": "ip", "l2": "l2"}[metric]
        self.k, self.parameters = k, parameters

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        build = {"M": 16, "ef_construction": 200}
        return [Spec("hnswlib", "hnswlib-M16", build, is_quick=False)]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.index = self.hnswlib.Index(space=self.space, dim=vectors.shape[1])
        self.index.init_index(len(vectors), **self.parameters)
        self.index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
        self.index.set_num_threads(1)

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))
        (folder / "d").write_text(str(self.index.dim))

    def open(self, folder: Path) -> None:
        d = int((folder / "d").read_text())
        self.index = self.hnswlib.Index(space=self.space, dim=d)
        self.index.load_index(str(folder / "index"))
        self.index.set_num_threads(1)

    def sweep(self) -> list[Arguments]:
        return [{"ef": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.index.set_ef(arguments["ef"])

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.knn_query(query, self.k)[0][0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        return np.asarray(self.index.knn_query(queries, self.k, num_threads=threads)[0])

    def size(self) -> Size:
        return Size(int(self.index.index_file_size()), "index_file_size()")
