"""faiss: IVF with 4-bit PQ fast scan refined in float32, and its HNSW graph.

    face.py -> [faiss.py] -> benchmarks.peers

The refining index keeps the vectors in float32 beside the codes, as soardb and ScaNN do.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import (
    RERANKS,
    WIDTHS,
    Arguments,
    Size,
    Spec,
    Vectors,
    band,
    partitions,
    probes,
    unit,
)


class Faiss:
    """faiss: IVF with 4-bit PQ fast scan refined in float32, and its HNSW graph."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.faiss = importlib.import_module("faiss")
        self.metric, self.k, self.parameters = metric, k, parameters
        self.factory = str(parameters["factory"])
        self.is_graph = self.factory.startswith("HNSW")

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        nlist = 2 ** round(math.log2(partitions(n)))
        graph = {"factory": "HNSW32", "ef_construction": 200}
        return [
            Spec("faiss", f"faiss-ivf{nlist}-pqfs", {"factory": f"IVF{nlist},PQ{{m}}x4fs"}),
            Spec("faiss", "faiss-hnsw32", graph, is_quick=False),
        ]

    def build(self, vectors: Vectors, threads: int) -> None:
        faiss = self.faiss
        faiss.omp_set_num_threads(threads)
        d = vectors.shape[1]
        rows = unit(vectors) if self.metric == "cosine" else vectors
        measure = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.base = faiss.index_factory(
            d, self.factory.format(m=d // 2 if d % 2 == 0 else d), measure
        )
        if self.is_graph:
            self.base.hnsw.efConstruction = self.parameters["ef_construction"]
            self.index = self.base
        else:
            self.index = faiss.IndexRefineFlat(self.base)
            self.index.train(rows)
        self.index.add(rows)
        faiss.omp_set_num_threads(1)

    def save(self, folder: Path) -> None:
        self.faiss.write_index(self.index, str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / "index"))
        self.base = self.index
        if not self.is_graph:
            self.base = self.faiss.downcast_index(self.index.base_index)
        self.faiss.omp_set_num_threads(1)

    def sweep(self) -> list[Arguments]:
        if self.is_graph:
            return [{"ef_search": width} for width in WIDTHS]
        pairs = band(probes(self.base.nlist), [rerank // self.k for rerank in RERANKS])
        return [{"nprobe": nprobe, "k_factor": k_factor} for nprobe, k_factor in pairs]

    def set_query_arguments(self, arguments: Arguments) -> None:
        if self.is_graph:
            self.base.hnsw.efSearch = arguments["ef_search"]
        else:
            self.base.nprobe = arguments["nprobe"]
            self.index.k_factor = arguments["k_factor"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query[None], self.k)[1][0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        self.faiss.omp_set_num_threads(threads)
        ids = np.asarray(self.index.search(queries, self.k)[1])
        self.faiss.omp_set_num_threads(1)
        return ids

    def size(self) -> Size:
        return Size(int(self.faiss.serialize_index(self.index).nbytes), "serialize_index()")
