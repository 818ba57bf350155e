"""Every vector scored by NumPy: the floor under all of them, recall one by definition.

    face.py -> [exact.py] -> benchmarks.peers

Its batch runs on the threads of NumPy's BLAS, which the benchmark holds at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import Arguments, Size, Spec, Vectors, unit


class Exact:
    """Every vector scored by NumPy: the floor under all of them, recall one by definition."""

    BLOCK = 64  # queries whose scores are held at once

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.metric, self.k = metric, k

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        return [Spec("exact", "exact-numpy", is_quick=False)]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.vectors = unit(vectors) if self.metric == "cosine" else vectors.copy()
        self.penalties = np.zeros(len(vectors), np.float32)
        if self.metric == "l2":
            self.penalties = np.einsum("nd,nd->n", vectors, vectors) / 2

    def save(self, folder: Path) -> None:
        np.savez(folder / "arrays.npz", vectors=self.vectors, penalties=self.penalties)

    def open(self, folder: Path) -> None:
        with np.load(folder / "arrays.npz") as arrays:
            self.vectors, self.penalties = arrays["vectors"], arrays["penalties"]

    def sweep(self) -> list[Arguments]:
        return [{}]

    def set_query_arguments(self, arguments: Arguments) -> None:
        """It has none."""

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self._best(self.vectors @ query - self.penalties)
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        blocks = [queries[i : i + self.BLOCK] for i in range(0, len(queries), self.BLOCK)]
        return np.concatenate([self._best(x @ self.vectors.T - self.penalties) for x in blocks])

    def _best(self, scores: Vectors) -> Any:
        """Ids (..., k) of the best scores (..., n), best first."""
        first = scores.shape[-1] - self.k
        ids = np.argpartition(scores, first, axis=-1)[..., first:]
        order = np.argsort(-np.take_along_axis(scores, ids, axis=-1), axis=-1)
        return np.take_along_axis(ids, order, axis=-1)

    def size(self) -> Size:
        return Size(self.vectors.nbytes + self.penalties.nbytes, "its two arrays")
