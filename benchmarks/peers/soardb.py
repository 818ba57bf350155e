"""This project: its defaults, and the builds among which a sweep finds its best.

    face.py -> [soardb.py] -> benchmarks.peers

Query parameters are passed on as they stand in the sweep, so that a new keyword of
SoarIndex.search is measured by adding it to `sweep`.
"""

from __future__ import annotations

import hashlib
import importlib
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
    partitions,
    probes,
)

DEFAULT = "soardb-default"
WIDE_RERANKS = (*RERANKS, 450)  # each with every nprobe: what a stop leaves out, these make up
TARGETS = (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
STOPS = (None, 2.8, 3.2, 3.6)
PRECISIONS = {"bfloat16": "bf16", "int8": "int8"}  # beside the default; and their labels
WIDE_DIMS = 256  # from here on four dimensions a code are worth trying


class Soardb:
    """SoarIndex with and without spilling, AVQ, coarser codes and finer lists."""

    def __init__(self, metric: str, k: int, parameters: Arguments) -> None:
        self.soardb = importlib.import_module("soardb")
        self.metric, self.k, self.parameters = metric, k, parameters
        self.arguments: Arguments = {}

    @staticmethod
    def specs(n: int, d: int, metric: str) -> list[Spec]:
        few, many = partitions(n), 2 * partitions(n)
        knows_avq = metric != "l2"
        widths: list[Arguments] = [{}, {"dims_per_block": 4}] if d >= WIDE_DIMS else [{}]
        specs = [Spec("soardb", DEFAULT)]
        for precision, short in PRECISIONS.items():
            specs.append(Spec("soardb", f"soardb-{short}", {"precision": precision}))
        for nlist in (few, many):
            for soar_lambda in (1.5, 0.0):
                for eta in (2.5, 0.0) if knows_avq else (None,):
                    for width in widths:
                        build: dict[str, Any] = {"nlist": nlist, "soar_lambda": soar_lambda}
                        if eta is not None:
                            build["avq_eta"] = eta
                        build |= width
                        is_best = bool(width) if d >= WIDE_DIMS else eta != 0.0
                        is_quick = is_best and not (nlist == few and not soar_lambda)
                        specs.append(Spec("soardb", _label(build), build, is_quick))
        return specs

    def build(self, vectors: Vectors, threads: int) -> None:
        d = vectors.shape[1]
        self.index = self.soardb.SoarIndex(d, self.metric, threads=threads, **self.parameters)
        self.index.train(vectors)
        self.index.add(vectors)
        self.index.tune()

    def save(self, folder: Path) -> None:
        self.index.save(folder / "index")

    def open(self, folder: Path) -> None:
        self.index = self.soardb.SoarIndex.load(folder / "index")

    def sweep(self) -> list[Arguments]:
        """Nothing named, which is how it comes, then recalls, then the grid of settings."""
        pairs = [(nprobe, rerank) for nprobe in probes(self.index.nlist) for rerank in WIDE_RERANKS]
        return [
            {},
            *({"target_recall": target} for target in TARGETS),
            *(
                {"nprobe": nprobe, "rerank": rerank, "stop": stop}
                for nprobe, rerank in pairs
                for stop in STOPS
            ),
        ]

    def set_query_arguments(self, arguments: Arguments) -> None:
        self.arguments = arguments

    def query(self, query: Vectors) -> Sequence[int]:
        ids: Sequence[int] = self.index.search(query[None], self.k, **self.arguments)[1][0]
        return ids

    def query_batch(self, queries: Vectors, threads: int) -> npt.NDArray[Any]:
        _, ids = self.index.search(queries, self.k, threads=threads, **self.arguments)
        return np.asarray(ids)

    def size(self) -> Size:
        parts = {part: int(count) for part, count in self.index.memory().items()}
        return Size(sum(parts.values()), "SoarIndex.memory()", parts)


def _label(build: Arguments) -> str:
    kind = "soar" if build["soar_lambda"] else "ivf"
    avq = f"-avq{build['avq_eta']:g}" if build.get("avq_eta") else ""
    width = f"-{build['dims_per_block']}d" if "dims_per_block" in build else ""
    return f"soardb-{kind}-l{build['nlist']}{avq}{width}"


def code_digest() -> str:
    """A digest of all that the package runs: its Python files and its compiled kernels."""
    digest = hashlib.sha256()
    soardb = importlib.import_module("soardb")
    native = importlib.import_module("soardb.kernels._native")
    sources = {path for folder in soardb.__path__ for path in Path(folder).rglob("*.py")}
    for path in (*sorted(sources), Path(str(native.__file__))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
