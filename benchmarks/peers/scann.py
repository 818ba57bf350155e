"""Google's ScaNN: tree, 4-bit asymmetric hashing of 2 dimensions a block, float32 reordering.

    face.py -> [scann.py] -> benchmarks.peers

SOAR and AVQ are defined for inner products, so under l2 there is the plain tree alone.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.face import (
    RERANKS,
    Arguments,
    Size,
    Spec,
    Vectors,
    band,
    folder_size,
    partitions,
    probes,
    unit,
)

PARALLEL_QUERIES = 256  # that a thread takes at a time, its default; fewer where there are fewer


class Scann:
    """A tree with or without SOAR, AVQ and quantised centroids."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.ops = importlib.import_module("scann").scann_ops_pybind
        self.metric, self.k, self.parameters = metric, k, parameters
        self.leaves = self.reorder = self.threads = 0

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        few, many = partitions(n), 2 * partitions(n)
        counts = sorted({max(1, round(0.6 * few)), few, many})
        if metric == "l2":
            return [Spec("scann", f"scann-l{leaves}", {"num_leaves": leaves}) for leaves in counts]
        specs = []
        for leaves in counts:
            for soar in (1.5, None):
                for avq in (2.0, 4.0, None):
                    for quantized in (False, True):
                        tree: dict[str, Any] = {"num_leaves": leaves}
                        if soar:
                            tree["soar_lambda"] = soar
                        if avq:
                            tree["avq"] = avq
                        if quantized:
                            tree["quantize_centroids"] = True
                        is_quick = leaves == few and bool(soar and avq) and not quantized
                        specs.append(Spec("scann", _label(tree), tree, is_quick))
        return specs

    def build(self, vectors: Vectors, threads: int) -> None:
        rows = unit(vectors) if self.metric == "cosine" else vectors
        measure = "squared_l2" if self.metric == "l2" else "dot_product"
        anisotropic = math.nan if self.metric == "l2" else 0.2
        self.searcher = (
            self.ops.builder(rows, self.k, measure)
            .set_n_training_threads(threads)
            .tree(num_leaves_to_search=1, training_sample_size=len(rows), **self.parameters)
            .score_ah(2, anisotropic_quantization_threshold=anisotropic)
            .reorder(RERANKS[0])
            .build()
        )

    def save(self, folder: Path) -> None:
        self.searcher.serialize(str(folder))

    def open(self, folder: Path) -> None:
        self.searcher = self.ops.load_searcher(str(folder))

    def sweep(self) -> list[Arguments]:
        pairs = band(probes(self.parameters["num_leaves"]), RERANKS)
        return [{"leaves": leaves, "reorder": reorder} for leaves, reorder in pairs]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.leaves, self.reorder = arguments["leaves"], arguments["reorder"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.searcher.search(query, self.k, self.reorder, self.leaves)[0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        asked = (queries, self.k, self.reorder, self.leaves)
        if threads == 1:
            return np.asarray(self.searcher.search_batched(*asked)[0])
        if threads != self.threads:  # each call makes the threads anew
            self.searcher.set_num_threads(threads)
            self.threads = threads
        share = min(PARALLEL_QUERIES, -(-len(queries) // threads))
        return np.asarray(self.searcher.search_batched_parallel(*asked, batch_size=share)[0])

    def size(self) -> Size:
        with tempfile.TemporaryDirectory() as folder:
            self.searcher.serialize(folder)
            return folder_size(Path(folder), "files of serialize()")


def _label(tree: Arguments) -> str:
    kind = "soar-" if "soar_lambda" in tree else ""
    avq = f"-avq{tree['avq']:g}" if "avq" in tree else ""
    quantized = "-qc" if "quantize_centroids" in tree else ""
    return f"scann-{kind}l{tree['num_leaves']}{avq}{quantized}"
