"""PostgreSQL with pgvector under load, spoken to in its binary forms.

    psycopg, pgserver -> [service_postgres.py] -> service_peers.py

A Server and a Session of service_programs.py. Vectors, arrays of them and the rows of COPY are
written in PostgreSQL's binary form by NumPy, the cheapest that its protocol allows, so that what
is measured is the server and not the making of text.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service_programs import (
    HOST,
    START_LIMIT_S,
    Answers,
    Ingested,
    Program,
    Settings,
    Vectors,
    answers_at,
    free_port,
    package_folder,
)


class Pgvector:
    """PostgreSQL with pgvector: COPY in binary, committed and flushed, then CREATE INDEX."""

    CONFIG = """
shared_buffers = 2GB
maintenance_work_mem = 2GB
max_connections = 200
max_parallel_maintenance_workers = 2
jit = off
random_page_cost = 1.1
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
"""

    def __init__(self, folder: Path, d: int, server: Settings) -> None:
        self.psycopg = importlib.import_module("psycopg")
        programs = package_folder("pgserver") / "pginstall" / "bin"
        port, data = free_port(), folder / "data"
        # It refuses to run as root, so root is somebody else to it, in a name space of users.
        mapped = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
        prefix = mapped if os.geteuid() == 0 else []
        make = [str(programs / "initdb"), "-U", "postgres", "--auth=trust", "-D", str(data)]
        subprocess.run([*prefix, *make], check=True, capture_output=True, cwd=folder)
        with (data / "postgresql.conf").open("a") as config:
            config.write(f"{self.CONFIG}port = {port}\n")
        run = [str(programs / "postgres"), "-D", str(data)]
        self.program = Program([*prefix, *run], folder, stop_signal=signal.SIGINT)  # fast shutdown
        self.program.wait_until(lambda: answers_at(port))
        self.pid = self.program.pid
        self.address = {"port": port}
        self.d = d
        self.connection = self._connect()
        self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def _connect(self) -> Any:
        give_up = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return pg_connection(self.address["port"])
            except self.psycopg.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    def versions(self) -> dict[str, str]:
        row = self.connection.execute(
            "SELECT current_setting('server_version'), extversion FROM pg_extension "
            "WHERE extname = 'vector'"
        ).fetchone()
        return {"postgresql": row[0], "pgvector": row[1], "psycopg": self.psycopg.__version__}

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        run = self.connection.execute
        run("DROP TABLE IF EXISTS items")
        run(f"CREATE TABLE items (id bigint PRIMARY KEY, v vector({self.d}))")
        start = time.perf_counter()
        copy = "COPY items (id, v) FROM STDIN WITH (FORMAT BINARY)"
        with self.connection.cursor() as cursor, cursor.copy(copy) as rows:
            rows.write(pg_rows(vectors))
        written = time.perf_counter()
        options = ", ".join(f"{k} = {v}" for k, v in index.items() if k not in ("method", "ops"))
        run(f"CREATE INDEX ON items USING {index['method']} (v {index['ops']}) WITH ({options})")
        ready = time.perf_counter()
        run("VACUUM ANALYZE items")
        return Ingested(written - start, ready - start)

    def set_search(self, search: Settings) -> None:
        """Each connection says it."""

    def close(self) -> None:
        self.connection.close()
        self.program.stop()


def pg_connection(port: int) -> Any:
    psycopg = importlib.import_module("psycopg")
    return psycopg.connect(
        host=HOST, port=port, user="postgres", dbname="postgres", autocommit=True
    )


def pg_vector(query: Vectors) -> bytes:
    """pgvector's binary form: dimension and zero as int16, the values as float32, big-endian."""
    return len(query).to_bytes(2, "big") + bytes(2) + query.astype(">f4").tobytes()


def pg_rows(vectors: Vectors) -> bytes:
    """Rows (id, v) in COPY's binary format, made as a whole by NumPy."""
    n, d = vectors.shape
    size = 4 + 4 * d
    layout = np.dtype(
        [
            ("fields", ">i2"),
            ("id_bytes", ">i4"),
            ("id", ">i8"),
            ("v_bytes", ">i4"),
            ("d", ">i2"),
            ("zero", ">i2"),
            ("v", ">f4", (d,)),
        ]
    )
    rows = np.zeros(n, layout)
    rows["fields"], rows["id_bytes"], rows["v_bytes"], rows["d"] = 2, 8, size, d
    rows["id"], rows["v"] = np.arange(n), vectors
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"


class PgvectorSession:
    """Prepared statements, binary both ways; a block of queries is one LATERAL join."""

    is_shared = False

    def __init__(self, address: Settings, search: Settings, k: int) -> None:
        psycopg = importlib.import_module("psycopg")
        self.connection = pg_connection(address["port"])
        for name, value in search.items():
            self.connection.execute(f"SET {name} = {value}")
        # The statement takes bytes as a vector: a dumper that calls them by that type.
        oid, many = self.connection.execute(
            "SELECT 'vector'::regtype::oid::int, 'vector[]'::regtype::oid::int"
        ).fetchone()
        base = importlib.import_module("psycopg.adapt").Dumper

        class OneVector(base):  # type: ignore[misc, valid-type]
            format = psycopg.pq.Format.BINARY

            def dump(self, obj: Any) -> bytes:
                return bytes(obj.raw)

        OneVector.oid = oid
        ManyVectors = type("ManyVectors", (OneVector,), {"oid": many})
        self.connection.adapters.register_dumper(_Vector, OneVector)
        self.connection.adapters.register_dumper(_VectorArray, ManyVectors)
        self.oid = oid
        self.cursor = self.connection.cursor(binary=True)
        nearest = "SELECT id, v <#> {q} AS s FROM items ORDER BY v <#> {q} LIMIT " + str(k)
        self.one = nearest.format(q="%(q)s")
        self.many = (
            "SELECT q.i, n.id, n.s FROM unnest(%(q)s) WITH ORDINALITY AS q (v, i), LATERAL ("
            + nearest.replace("v <#>", "items.v <#>").format(q="q.v")
            + ") AS n"
        )

    def ask(self, queries: Vectors) -> Answers:
        run = self.cursor.execute
        if len(queries) == 1:
            rows = run(self.one, {"q": _Vector(pg_vector(queries[0]))}, prepare=True).fetchall()
            return [[row[0] for row in rows]]
        answers: Answers = [[] for _ in queries]
        array = _VectorArray(pg_array([pg_vector(query) for query in queries], self.oid))
        found = [(s, i, id_) for i, id_, s in run(self.many, {"q": array}, prepare=True).fetchall()]
        for _, i, id_ in sorted(found):
            answers[i - 1].append(id_)
        return answers

    def close(self) -> None:
        self.connection.close()


@dataclass(frozen=True)
class _Vector:
    raw: bytes


@dataclass(frozen=True)
class _VectorArray:
    raw: bytes


def pg_array(elements: list[bytes], oid: int) -> bytes:
    """A one-dimensional array in PostgreSQL's binary form."""
    head = np.array([1, 0, oid, len(elements), 1], ">i4").tobytes()
    return head + b"".join(len(element).to_bytes(4, "big") + element for element in elements)
