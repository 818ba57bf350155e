"""Intel's Scalable Vector Search: a Vamana graph over LVQ or LeanVec codes.

    face.py -> [svs.py] -> benchmarks.peers

LVQ4x8 traverses with 4-bit codes and re-ranks with 8 more bits; LeanVec traverses with 4-bit codes
of a projection and re-ranks with 8-bit codes of all dimensions. Both come with the wheel, for
Intel's processors alone. An LVQ graph takes minutes to build where the others take seconds.
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

LEAST_LEANVEC_DIMS = 200  # below, a projection leaves too little
DEGREE, WINDOW, PADDING = 64, 200, 32


class Svs:
    """Vamana of degree 64, built with windows of 200."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.svs = importlib.import_module("svs")
        self.is_l2, self.is_cosine = metric == "l2", metric == "cosine"
        self.distance = self.svs.L2 if self.is_l2 else self.svs.MIP
        self.k, self.parameters = k, parameters

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        lvq = Spec("svs", "svs-lvq4x8", {"bits": (4, 8)}, is_quick=False)
        if d < LEAST_LEANVEC_DIMS:
            return [lvq]
        dims = 160 if d == 384 else d // 32 * 16
        return [Spec("svs", f"svs-leanvec{dims}", {"leanvec_dims": dims}), lvq]

    def build(self, vectors: Vectors, threads: int) -> None:
        svs = self.svs
        rows = unit(vectors) if self.is_cosine else vectors
        parameters = svs.VamanaBuildParameters(
            alpha=1.2 if self.is_l2 else 0.95, graph_max_degree=DEGREE, window_size=WINDOW
        )
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "rows.fvecs")
            svs.write_vecs(rows, path)
            data = svs.VectorDataLoader(path, svs.float32, dims=rows.shape[1])
            self.index = svs.Vamana.build(
                parameters, self._compressed(data), self.distance, num_threads=threads
            )
        self.index.num_threads = 1

    def _compressed(self, data: Any) -> Any:
        svs = self.svs
        if "leanvec_dims" in self.parameters:
            return svs.LeanVecLoader(
                data,
                leanvec_dims=self.parameters["leanvec_dims"],
                primary_kind=svs.LeanVecKind.lvq4,
                secondary_kind=svs.LeanVecKind.lvq8,
                alignment=PADDING,
            )
        first, second = self.parameters["bits"]
        return svs.LVQLoader(data, primary=first, residual=second, padding=PADDING)

    def save(self, folder: Path) -> None:
        self.index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def open(self, folder: Path) -> None:
        svs, data = self.svs, str(folder / "data")
        if "leanvec_dims" in self.parameters:
            loader = svs.LeanVecLoader(data, alignment=PADDING)
        else:
            loader = svs.LVQLoader(data, padding=PADDING)
        graph = svs.GraphLoader(str(folder / "graph"))
        self.index = svs.Vamana(str(folder / "config"), graph, loader, self.distance, num_threads=1)

    def sweep(self) -> list[Arguments]:
        return [{"window": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.index.search_window_size = arguments["window"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query, self.k)[0][0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        self.index.num_threads = threads
        ids = np.asarray(self.index.search(queries, self.k)[0])
        self.index.num_threads = 1
        return ids

    def size(self) -> Size:
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder))
            return folder_size(Path(folder), "files of save()")
