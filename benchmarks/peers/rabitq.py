"""RaBitQLib's SymphonyQG: a graph whose edges carry 1-bit RaBitQ codes of their ends.

    face.py -> [rabitq.py] -> benchmarks.peers

Under "cosine" it is asked for l2 among unit vectors, as its authors recommend: among those the
order does not depend on the query's length. Its rotation refuses less than 64 dimensions, so sets
of so few have no build of it.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import WIDTHS, Arguments, Size, Spec, Vectors, folder_size, unit

LEAST_DIMS = 64
EF_CONSTRUCTION = 400


class SymQG:
    """SymphonyQG over float32 vectors, or over 8-bit codes in their place."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.SymqgIndex = importlib.import_module("rabitqlib").SymqgIndex
        self.metric = {"cosine": "l2", "l2": "l2", "dot": "ip"}[metric]
        self.k, self.parameters, self.width = k, parameters, k
        self.is_cosine = metric == "cosine"

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        if d < LEAST_DIMS:
            return []
        return [
            Spec("rabitq", "symqg32", {"degree": 32, "bits": 0}),
            Spec("rabitq", "symqg64", {"degree": 64, "bits": 0}, is_quick=False),
            Spec("rabitq", "symqg32-b8", {"degree": 32, "bits": 8}, is_quick=False),
        ]

    def build(self, vectors: Vectors, threads: int) -> None:
        rows = unit(vectors) if self.is_cosine else vectors
        self.index = self.SymqgIndex(
            vectors.shape[1],
            self.parameters["degree"],
            metric=self.metric,
            quantization_bits=self.parameters["bits"],
        )
        self.index.build(rows, EF_CONSTRUCTION, num_threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.SymqgIndex.load(str(folder / "index"))

    def sweep(self) -> list[Arguments]:
        return [{"ef": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.width = arguments["ef"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query[None], self.k, self.width)[0][0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        return np.asarray(self.index.search_batch(queries, self.k, self.width, threads)[0])

    def size(self) -> Size:
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder))
            return folder_size(Path(folder), "file of save()")
