"""The libraries that soardb is measured against, and soardb itself, behind one face.

    soardb, scann, faiss, hnswlib, usearch, numpy -> [peers.py] -> bench_peers.py

One small class per library. Each knows how to build its index, how to ask one query or many, which
query parameters to sweep and how large its index is; nothing of clocks, recall or processes. A
library is imported when its class is instantiated, so that the others can run without it.

Everything runs on one thread but the build, which is given its number of threads. Under "cosine"
a library that only knows inner products gets unit vectors; the query keeps its length, which no
order depends on, so that no peer pays for normalising it in Python.

To add one: a class here and its line in PEERS.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument

Vectors = npt.NDArray[np.float32]
Arguments = Mapping[str, Any]
"""Parameters by name: of a build, or of a query."""


@dataclass(frozen=True)
class Spec:
    """One index to measure: a library and the parameters of its build."""

    library: str
    label: str
    build: Arguments = field(default_factory=dict)


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
    def specs(n: int, metric: str) -> list[Spec]:
        """The builds worth measuring over n vectors."""
        ...

    def build(self, vectors: Vectors, threads: int) -> None:
        """Index vectors (n, d) float32; row number = id."""
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

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        """The ids (nq, k) of the neighbours of queries (nq, d), on one thread."""
        ...

    def size(self) -> Size: ...


def check_installed(libraries: Sequence[str]) -> None:
    """Raise InvalidArgument unless all libraries are known and importable here."""
    if unknown := [library for library in libraries if library not in PEERS]:
        raise InvalidArgument(f"expected libraries among {', '.join(PEERS)}; got {unknown}")
    missing = [name for name in libraries if importlib.util.find_spec(PEERS[name].module) is None]
    if missing:
        raise InvalidArgument(
            f"not installed: {', '.join(missing)}; pip install 'soardb[bench]', "
            "or name only the others with --libraries"
        )


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


RERANKS = (40, 70, 110, 180, 300)
WIDTHS = (10, 16, 24, 36, 54, 80, 120, 180, 270, 400, 600, 900)
"""Beam widths of the graph searches."""


def unit(vectors: Vectors) -> Vectors:
    """Rows of vectors (n, d) scaled to length one, as a C-contiguous float32 copy."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(scaled, dtype=np.float32)


class Soardb:
    """This project: the SOAR index, and the same index without spilling."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.soardb = importlib.import_module("soardb")
        self.metric, self.k, self.parameters = metric, k, parameters
        self.nprobe = self.rerank = 0

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        few, many = partitions(n), 2 * partitions(n)
        if metric == "l2":
            builds: list[Arguments] = [
                {"nlist": many, "soar_lambda": 1.5},
                {"nlist": many, "soar_lambda": 0.0},
            ]
        else:
            builds = [
                {"nlist": few, "soar_lambda": 1.5, "avq_eta": 2.5},
                {"nlist": many, "soar_lambda": 1.5, "avq_eta": 2.5},
                {"nlist": many, "soar_lambda": 0.0, "avq_eta": 2.5},
            ]
        return [Spec("soardb", "soardb"), *(Spec("soardb", _soardb_label(b), b) for b in builds)]

    def build(self, vectors: Vectors, threads: int) -> None:
        d = vectors.shape[1]
        self.index = self.soardb.SoarIndex(d, self.metric, threads=threads, **self.parameters)
        self.index.train(vectors)
        self.index.add(vectors)

    def sweep(self) -> list[Arguments]:
        pairs = band(probes(self.index.nlist), RERANKS)
        return [{"nprobe": nprobe, "rerank": rerank} for nprobe, rerank in pairs]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.nprobe, self.rerank = arguments["nprobe"], arguments["rerank"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(
            query[None], self.k, nprobe=self.nprobe, rerank=self.rerank
        )[1][0]
        return ids

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        _, ids = self.index.search(queries, self.k, nprobe=self.nprobe, rerank=self.rerank)
        return np.asarray(ids)

    def size(self) -> Size:
        parts = {part: int(count) for part, count in self.index.memory().items()}
        return Size(sum(parts.values()), "SoarIndex.memory()", parts)


def _soardb_label(build: Arguments) -> str:
    kind = "soar" if build["soar_lambda"] else "ivf"
    avq = f"-avq{build['avq_eta']:g}" if "avq_eta" in build else ""
    return f"soardb-{kind}-l{build['nlist']}{avq}"


class Scann:
    """Google's ScaNN: tree, 4-bit asymmetric hashing of 2 dimensions a block, float32 reordering.

    SOAR and AVQ are defined for inner products, so under l2 there is the plain tree alone.
    """

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.builder = importlib.import_module("scann").scann_ops_pybind.builder
        self.metric, self.k, self.parameters = metric, k, parameters
        self.leaves = self.reorder = 0

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        few, many = partitions(n), 2 * partitions(n)
        if metric == "l2":
            trees: list[Arguments] = [{"num_leaves": few}, {"num_leaves": many}]
        else:
            trees = [
                {"num_leaves": few, "soar_lambda": 1.5, "avq": 2.0},
                {"num_leaves": few, "soar_lambda": 1.5, "avq": 4.0},
                {"num_leaves": many, "soar_lambda": 1.5, "avq": 4.0},
                {"num_leaves": few, "avq": 2.0},
                {"num_leaves": many, "avq": 2.0},
            ]
        return [Spec("scann", _scann_label(tree), tree) for tree in trees]

    def build(self, vectors: Vectors, threads: int) -> None:
        rows = unit(vectors) if self.metric == "cosine" else vectors
        measure = "squared_l2" if self.metric == "l2" else "dot_product"
        anisotropic = math.nan if self.metric == "l2" else 0.2
        self.searcher = (
            self.builder(rows, self.k, measure)
            .set_n_training_threads(threads)
            .tree(num_leaves_to_search=1, training_sample_size=len(rows), **self.parameters)
            .score_ah(2, anisotropic_quantization_threshold=anisotropic)
            .reorder(RERANKS[0])
            .build()
        )

    def sweep(self) -> list[Arguments]:
        pairs = band(probes(self.parameters["num_leaves"]), RERANKS)
        return [{"leaves": leaves, "reorder": reorder} for leaves, reorder in pairs]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.leaves, self.reorder = arguments["leaves"], arguments["reorder"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.searcher.search(query, self.k, self.reorder, self.leaves)[0]
        return ids

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        return np.asarray(
            self.searcher.search_batched(queries, self.k, self.reorder, self.leaves)[0]
        )

    def size(self) -> Size:
        with tempfile.TemporaryDirectory() as folder:
            self.searcher.serialize(folder)
            parts = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
        return Size(sum(parts.values()), "files of serialize()", parts)


def _scann_label(tree: Arguments) -> str:
    kind = "soar-" if "soar_lambda" in tree else ""
    avq = f"-avq{tree['avq']:g}" if "avq" in tree else ""
    return f"scann-{kind}l{tree['num_leaves']}{avq}"


class Faiss:
    """faiss: IVF with 4-bit PQ fast scan refined in float32, and its HNSW graph."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.faiss = importlib.import_module("faiss")
        self.metric, self.k, self.parameters = metric, k, parameters
        self.factory = str(parameters["factory"])
        self.is_graph = self.factory.startswith("HNSW")

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        nlist = 2 ** round(math.log2(partitions(n)))
        return [
            Spec("faiss", f"faiss-ivf{nlist}-pqfs", {"factory": f"IVF{nlist},PQ{{m}}x4fs"}),
            Spec("faiss", "faiss-hnsw32", {"factory": "HNSW32", "ef_construction": 200}),
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

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        return np.asarray(self.index.search(queries, self.k)[1])

    def size(self) -> Size:
        return Size(int(self.faiss.serialize_index(self.index).nbytes), "serialize_index()")


class Hnswlib:
    """hnswlib: the HNSW graph of its authors."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.hnswlib = importlib.import_module("hnswlib")
        self.space = {"cosine": "cosine", "dot": "ip", "l2": "l2"}[metric]
        self.k, self.parameters = k, parameters

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        return [Spec("hnswlib", "hnswlib-M16", {"M": 16, "ef_construction": 200})]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.index = self.hnswlib.Index(space=self.space, dim=vectors.shape[1])
        self.index.init_index(len(vectors), **self.parameters)
        self.index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
        self.index.set_num_threads(1)

    def sweep(self) -> list[Arguments]:
        return [{"ef": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.index.set_ef(arguments["ef"])

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.knn_query(query, self.k)[0][0]
        return ids

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        return np.asarray(self.index.knn_query(queries, self.k)[0])

    def size(self) -> Size:
        return Size(int(self.index.index_file_size()), "index_file_size()")


class Usearch:
    """USearch: an HNSW graph over float32 or half-precision vectors."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.Index = importlib.import_module("usearch.index").Index
        self.metric = {"cosine": "cos", "dot": "ip", "l2": "l2sq"}[metric]
        self.k, self.parameters = k, parameters

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        return [
            Spec("usearch", f"usearch-{dtype}-M16", {"connectivity": 16, "dtype": dtype})
            for dtype in ("f16", "f32")
        ]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.index = self.Index(ndim=vectors.shape[1], metric=self.metric, **self.parameters)
        self.index.add(np.arange(len(vectors)), vectors, threads=threads)

    def sweep(self) -> list[Arguments]:
        return [{"expansion": width} for width in WIDTHS]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.index.expansion_search = arguments["expansion"]

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query, self.k, threads=1).keys
        return ids

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
        return np.asarray(self.index.search(queries, self.k, threads=1).keys)

    def size(self) -> Size:
        return Size(int(self.index.serialized_length), "serialized_length")


class Exact:
    """Every vector scored by NumPy: the floor under all of them, recall one by definition."""

    BLOCK = 64  # queries whose scores are held at once

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.metric, self.k = metric, k

    @staticmethod
    def specs(n: int, metric: str) -> list[Spec]:
        return [Spec("exact", "exact-numpy")]

    def build(self, vectors: Vectors, threads: int) -> None:
        self.vectors = unit(vectors) if self.metric == "cosine" else vectors.copy()
        self.penalties = np.zeros(len(vectors), np.float32)
        if self.metric == "l2":
            self.penalties = np.einsum("nd,nd->n", vectors, vectors) / 2

    def sweep(self) -> list[Arguments]:
        return [{}]

    def set_query_arguments(self, arguments: Arguments) -> None:
        """It has none."""

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self._best(self.vectors @ query - self.penalties)
        return ids

    def query_batch(self, queries: Vectors) -> npt.NDArray[Any]:
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


@dataclass(frozen=True)
class Library:
    """A library's class here, the module that it imports, and the distribution that has it."""

    peer: type[Peer]
    module: str
    distribution: str

    @property
    def version(self) -> str:
        """The installed one."""
        return importlib.metadata.version(self.distribution)


PEERS = {
    "soardb": Library(Soardb, "soardb", "soardb"),
    "scann": Library(Scann, "scann", "scann"),
    "faiss": Library(Faiss, "faiss", "faiss-cpu"),
    "hnswlib": Library(Hnswlib, "hnswlib", "hnswlib"),
    "usearch": Library(Usearch, "usearch", "usearch"),
    "exact": Library(Exact, "numpy", "numpy"),
}
