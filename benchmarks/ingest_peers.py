"""The embedded databases whose writing is measured, and soardb itself, behind one face.

    soardb, qdrant-edge-py, zvec, lancedb, chromadb, milvus-lite -> [ingest_peers.py]
        -> ingest_run.py, which has the clock

One small class per database: make an empty one in a folder, write points, ask, build what index is
not built yet, close. Each is used as its documentation says, with its default index and search
settings; what is chosen is only the metric and when a write counts as done. Where the strongest
durability is not the default, both are entries of ENTRIES: the default is what people run, the
strongest what they would need. A library is imported when its class is instantiated.

Words about a library carry their source. What a call really flushes is measured by
ingest_syncs.py and stands beside them in the report.

To add one: a class here and its lines in ENTRIES. Nothing here knows clocks, recall or processes.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

KIND, NUMBER, TITLE = "kind", "number", "title"  # the payload: a keyword, an int, a short string


@dataclass(frozen=True)
class Rows:
    """Points to write: ids (m,) int64, vectors (m, d) float32, and m values of each field."""

    ids: npt.NDArray[np.int64]
    vectors: Vectors
    kinds: list[str]
    numbers: list[int]
    titles: list[str]

    def payloads(self) -> list[dict[str, Any]]:
        """One dict a point, for those that take rows."""
        return [
            {KIND: kind, NUMBER: number, TITLE: title}
            for kind, number, title in zip(self.kinds, self.numbers, self.titles, strict=True)
        ]


class Peer(Protocol):
    """One database under cosine; folder is empty, entry says which durability is wanted."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None: ...

    def convert(self, rows: Rows) -> Any:
        """The rows in the form that the library takes."""
        ...

    def insert(self, converted: Any) -> None:
        """Write new points; returns when the library calls them written."""
        ...

    def upsert(self, converted: Any) -> None:
        """Write points whether their ids are there or not; returns likewise."""
        ...

    def settle(self) -> None:
        """Wait for what was queued; nothing for those that queue nothing."""
        ...

    def count(self) -> int: ...

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        """Ids of up to k neighbours of query (d,), by the library's default search."""
        ...

    def indexed(self) -> int | None:
        """How many points the index holds, or None where the library does not tell."""
        ...

    def build(self) -> None:
        """The library's own call that builds or completes the index now."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Entry:
    """One row of the comparison: a library at one durability.

    durability  what the library is told, and what that promises
    source      where that is written
    index       when the index is built, and the call of `build`
    gap         what its flush leaves out, where something is
    """

    label: str
    library: str
    packages: tuple[str, ...]
    peer: Callable[[Path, int, Entry], Peer]
    mode: str
    is_strongest: bool
    durability: str
    source: str
    index: str
    gap: str = ""

    def missing(self) -> str | None:
        """Why the entry cannot run here, or None if it can."""
        absent = [name for name in self.packages if _version(name) is None]
        if absent:
            return f"not installed: {', '.join(absent)}; pip install 'soardb[bench-ingest]'"
        return None

    def version(self) -> str:
        return ", ".join(f"{name} {_version(name)}" for name in self.packages)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Soardb:
    """This project; mode is the acknowledgement."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        soardb = importlib.import_module("soardb")
        self.ack = entry.mode
        self.database = soardb.connect(folder / "soardb")
        self.collection = self.database.create_collection(
            "points", d, "cosine", schema={KIND: "keyword", NUMBER: "int"}
        )

    def convert(self, rows: Rows) -> Any:
        columns = {KIND: rows.kinds, NUMBER: rows.numbers, TITLE: rows.titles}
        return rows.ids, rows.vectors, columns

    def insert(self, converted: Any) -> None:
        self.upsert(converted)  # its insert looks for the ids first, and so does its upsert

    def upsert(self, converted: Any) -> None:
        self.collection.upsert(*converted, ack=self.ack)

    def settle(self) -> None:
        self.collection.flush()

    def count(self) -> int:
        return int(self.collection.count())

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        ids: Sequence[int] = self.collection.search(query, k, with_payload=False).ids.tolist()
        return ids

    def indexed(self) -> int | None:
        stats = self.collection.stats()
        return 0 if stats["is_exact"] else int(stats["points"] - stats["since_generation"])

    def build(self) -> None:
        self.collection.compact()

    def close(self) -> None:
        self.database.close()


class QdrantEdge:
    """Qdrant's engine in the process; mode "flush" calls flush() after each update."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        self.edge = edge = importlib.import_module("qdrant_edge")
        self.is_flushed = entry.mode == "flush"
        vectors = edge.EdgeVectorParams(size=d, distance=edge.Distance.Cosine)
        self.shard = edge.EdgeShard.create(str(folder / "qdrant"), edge.EdgeConfig(vectors=vectors))

    def convert(self, rows: Rows) -> Any:
        point = self.edge.Point
        points = [
            point(id=id_, vector=vector, payload=payload)
            for id_, vector, payload in zip(
                rows.ids.tolist(), rows.vectors.tolist(), rows.payloads(), strict=True
            )
        ]
        return self.edge.UpdateOperation.upsert_points(points)

    def insert(self, converted: Any) -> None:
        self.upsert(converted)

    def upsert(self, converted: Any) -> None:
        self.shard.update(converted)
        if self.is_flushed:
            self.shard.flush()

    def settle(self) -> None:
        """Nothing is queued."""

    def count(self) -> int:
        return int(self.shard.count(self.edge.CountRequest(exact=True)))

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        nearest = self.edge.Query.Nearest(query.tolist())
        hits = self.shard.query(self.edge.QueryRequest(limit=k, query=nearest))
        return [hit.id for hit in hits]

    def indexed(self) -> int | None:
        return int(self.shard.info().indexed_vectors_count)

    def build(self) -> None:
        self.shard.optimize()

    def close(self) -> None:
        self.shard.close()


class Zvec:
    """Alibaba's zvec, with its default HNSW; mode "flush" calls flush() after each write."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        self.zvec = zvec = importlib.import_module("zvec")
        self.is_flushed = entry.mode == "flush"
        types = zvec.DataType
        schema = zvec.CollectionSchema(
            name="points",
            fields=[
                zvec.FieldSchema(KIND, types.STRING),
                zvec.FieldSchema(NUMBER, types.INT64),
                zvec.FieldSchema(TITLE, types.STRING),
            ],
            vectors=zvec.VectorSchema(
                "vector",
                types.VECTOR_FP32,
                d,
                index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE),
            ),
        )
        self.collection = zvec.create_and_open(str(folder / "zvec"), schema)

    def convert(self, rows: Rows) -> Any:
        return [
            self.zvec.Doc(id=str(id_), vectors={"vector": vector}, fields=payload)
            for id_, vector, payload in zip(
                rows.ids.tolist(), rows.vectors, rows.payloads(), strict=True
            )
        ]

    def insert(self, converted: Any) -> None:
        self._written(self.collection.insert(converted))

    def upsert(self, converted: Any) -> None:
        self._written(self.collection.upsert(converted))

    def _written(self, statuses: Sequence[Any]) -> None:
        if failed := [status for status in statuses if not status.ok()]:
            raise RuntimeError(f"zvec refused {len(failed)} points: {failed[0]}")
        if self.is_flushed:
            self.collection.flush()

    def settle(self) -> None:
        """Nothing is queued."""

    def count(self) -> int:
        return int(self.collection.stats.doc_count)

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        wanted = self.zvec.Query(field_name="vector", vector=query)
        return [int(hit.id) for hit in self.collection.query(wanted, topk=k)]

    def indexed(self) -> int | None:
        stats = self.collection.stats
        indexed: int = round(stats.index_completeness["vector"] * stats.doc_count)
        return indexed

    def build(self) -> None:
        self.collection.optimize()

    def close(self) -> None:
        self.collection.close()


class LanceDB:
    """LanceDB on local files; one table version a write, IVF_PQ when asked to build."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        self.lancedb = importlib.import_module("lancedb")
        self.arrow = arrow = importlib.import_module("pyarrow")
        self.schema = arrow.schema(
            [
                ("id", arrow.int64()),
                ("vector", arrow.list_(arrow.float32(), d)),
                (KIND, arrow.string()),
                (NUMBER, arrow.int64()),
                (TITLE, arrow.string()),
            ]
        )
        self.d = d
        database = self.lancedb.connect(str(folder / "lance"))
        self.table = database.create_table("points", schema=self.schema)

    def convert(self, rows: Rows) -> Any:
        arrow = self.arrow
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.vectors.ravel()), self.d)
        columns = [rows.ids, vectors, rows.kinds, rows.numbers, rows.titles]
        return arrow.table(columns, schema=self.schema)

    def insert(self, converted: Any) -> None:
        self.table.add(converted)

    def upsert(self, converted: Any) -> None:
        merge = self.table.merge_insert("id")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(converted)

    def settle(self) -> None:
        """Nothing is queued."""

    def count(self) -> int:
        return int(self.table.count_rows())

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        search = self.table.search(query).distance_type("cosine").limit(k)
        ids: Sequence[int] = search.select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        return ids

    def indexed(self) -> int | None:
        stats = self.table.index_stats("vector_idx")
        return 0 if stats is None else int(stats.num_indexed_rows)

    def build(self) -> None:
        # By default the sub-vectors have 16 or 8 dimensions (docstring of IvfPq); where d is
        # divisible by neither there is but one of them: recall@10 of 0.02 on GloVe, 0.53 with 5.
        size = next(size for size in (16, 8, 5, 4, 2, 1) if self.d % size == 0)
        ivf_pq = importlib.import_module("lancedb.index").IvfPq
        self.table.optimize()
        self.table.create_index(
            "vector", config=ivf_pq(distance_type="cosine", num_sub_vectors=self.d // size)
        )

    def close(self) -> None:
        """Tables and connections of LanceDB have nothing to close."""


class Chroma:
    """Chroma's PersistentClient: SQLite, and an HNSW that takes each write at once."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        chromadb = importlib.import_module("chromadb")
        self.client = chromadb.PersistentClient(
            str(folder / "chroma"), settings=chromadb.Settings(anonymized_telemetry=False)
        )
        self.collection = self.client.create_collection(
            "points", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def convert(self, rows: Rows) -> Any:
        return {
            "ids": [str(id_) for id_ in rows.ids.tolist()],
            "embeddings": rows.vectors,
            "metadatas": rows.payloads(),
        }

    def insert(self, converted: Any) -> None:
        self.collection.add(**converted)

    def upsert(self, converted: Any) -> None:
        self.collection.upsert(**converted)

    def settle(self) -> None:
        """Nothing is queued."""

    def count(self) -> int:
        return int(self.collection.count())

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        found = self.collection.query(query_embeddings=query[None], n_results=k, include=[])
        return [int(id_) for id_ in found["ids"][0]]

    def indexed(self) -> int | None:
        return None

    def build(self) -> None:
        """It has no such call."""

    def close(self) -> None:
        self.client.close()


class MilvusLite:
    """Milvus Lite through MilvusClient; mode "flush" calls flush() after each write."""

    def __init__(self, folder: Path, d: int, entry: Entry) -> None:
        pymilvus = importlib.import_module("pymilvus")
        self.is_flushed = entry.mode == "flush"
        self.client = pymilvus.MilvusClient(str(folder / "milvus.db"))
        types = pymilvus.DataType
        schema = self.client.create_schema()
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=d)
        schema.add_field(KIND, types.VARCHAR, max_length=64)
        schema.add_field(NUMBER, types.INT64)
        schema.add_field(TITLE, types.VARCHAR, max_length=256)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        self.client.create_collection("points", schema=schema, index_params=index)

    def convert(self, rows: Rows) -> Any:
        return [
            {"id": id_, "vector": vector, **payload}
            for id_, vector, payload in zip(
                rows.ids.tolist(), rows.vectors, rows.payloads(), strict=True
            )
        ]

    def insert(self, converted: Any) -> None:
        self.client.insert("points", converted)
        if self.is_flushed:
            self.client.flush("points")

    def upsert(self, converted: Any) -> None:
        self.client.upsert("points", converted)
        if self.is_flushed:
            self.client.flush("points")

    def settle(self) -> None:
        """Nothing is queued."""

    def count(self) -> int:
        return int(self.client.query("points", output_fields=["count(*)"])[0]["count(*)"])

    def query(self, query: Vectors, k: int) -> Sequence[int]:
        hits = self.client.search("points", [query], limit=k, anns_field="vector")
        return [hit["id"] for hit in hits[0]]

    def indexed(self) -> int | None:
        return None  # describe_index reports every row as indexed, built or not

    def build(self) -> None:
        self.client.flush("points")
        self.client.release_collection("points")
        self.client.load_collection("points")

    def close(self) -> None:
        self.client.close()


_SOARDB_INDEX = "in the background once due; exact scan of what is newer; compact() builds now"
_QDRANT_INDEX = "at optimize() alone; exact scan until then"
_ZVEC_INDEX = "at optimize() alone; exact scan until then"
_MILVUS_INDEX = (
    "per segment at flush, merged ones in the background; flush, release, load build now"
)

ENTRIES: dict[str, Entry] = {
    entry.label: entry
    for entry in (
        Entry(
            "soardb, fsync",
            "soardb",
            (),
            Soardb,
            "fsync",
            True,
            'ack="fsync", the default: the log of SQLite is flushed before the call returns',
            "soardb.collection.Collection.upsert",
            _SOARDB_INDEX,
        ),
        Entry(
            "soardb, logged",
            "soardb",
            (),
            Soardb,
            "logged",
            False,
            'ack="logged": handed to the system; survives the process, not a power cut',
            "soardb.collection.Collection.upsert",
            _SOARDB_INDEX,
        ),
        Entry(
            "soardb, memory",
            "soardb",
            (),
            Soardb,
            "memory",
            False,
            'ack="memory": queued. Single times are of the call alone; rows/s are over all the '
            "time until the queue was written and flush() returned",
            "soardb.collection.Collection.upsert",
            _SOARDB_INDEX,
        ),
        Entry(
            "Qdrant Edge, flush",
            "qdrant-edge",
            ("qdrant-edge-py",),
            QdrantEdge,
            "flush",
            True,
            "update(), then flush(): the shard is flushed to disk",
            "docstrings of EdgeShard.flush and of EdgeConfig's wal_enabled, qdrant_edge.pyi",
            _QDRANT_INDEX,
        ),
        Entry(
            "Qdrant Edge, update",
            "qdrant-edge",
            ("qdrant-edge-py",),
            QdrantEdge,
            "update",
            False,
            "update(), the default: into a memory-mapped write-ahead log; not flushed",
            "qdrant, lib/edge/src/edge_shard/update.rs: wal.write() and no flush",
            _QDRANT_INDEX,
        ),
        Entry(
            "zvec, flush",
            "zvec",
            ("zvec",),
            Zvec,
            "flush",
            True,
            "insert() or upsert(), then flush(): the log is flushed, then deleted",
            "docstring of zvec.Collection.flush; zvec, src/db/index/segment/segment.cc",
            _ZVEC_INDEX,
            gap="the index, column and manifest files that take the log's place are not flushed",
        ),
        Entry(
            "zvec, insert",
            "zvec",
            ("zvec",),
            Zvec,
            "insert",
            False,
            "insert() or upsert(), the default: written to a log that is not flushed",
            "zvec, src/db/index/storage/wal/local_wal_file.cc: append() flushes only when told",
            _ZVEC_INDEX,
        ),
        Entry(
            "LanceDB",
            "lancedb",
            ("lancedb", "pyarrow"),
            LanceDB,
            "add",
            True,
            "add() and merge_insert(): files are written and renamed; no setting flushes them",
            "apache/arrow-rs-object-store pull request 643: local files are flushed only if told",
            "at create_index() alone, IVF_PQ without re-ranking, sub-vectors of 5 dimensions where "
            "16 and 8 do not divide d; exact scan until then",
        ),
        Entry(
            "Chroma",
            "chroma",
            ("chromadb",),
            Chroma,
            "add",
            True,
            "add() and upsert(): one SQLite transaction with its rollback journal; the HNSW files "
            "are made again from it",
            "cookbook.chromadb.dev/core/advanced/wal",
            "in the call itself; there is no other",
        ),
        Entry(
            "Milvus Lite, flush",
            "milvus-lite",
            ("milvus-lite", "pymilvus"),
            MilvusLite,
            "flush",
            True,
            "insert() or upsert(), then flush(): manifest and log are flushed, then the log is "
            "deleted",
            "milvus_lite/engine/flush.py and storage/data_file.py, which has no fsync",
            _MILVUS_INDEX,
            gap="the Parquet files that take the log's place are not flushed",
        ),
        Entry(
            "Milvus Lite, insert",
            "milvus-lite",
            ("milvus-lite", "pymilvus"),
            MilvusLite,
            "insert",
            False,
            "insert() or upsert(), the default: log handed to the system; survives the process",
            'milvus_lite/storage/wal.py: sync_mode "close", which the client cannot change',
            _MILVUS_INDEX,
        ),
    )
}
"""Every row of the comparison by its label; libraries in the order of the table."""
