"""Settings of the soardb client of VectorDBBench: where the server is, how to index and search.

    cli.py -> [config.py] -> soardb.py

What is None is left to the server, which chooses by the size of the collection.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, SecretStr
from vectordb_bench.backend.clients.api import DBCaseConfig, DBConfig, MetricType

METRICS = {"COSINE": "cosine", "L2": "l2", "IP": "dot", "DP": "dot"}


class SoarDBConfig(DBConfig):  # type: ignore[misc]  # VectorDBBench has no types
    """A server: its address, and a key where it wants one."""

    uri: str = "grpc://127.0.0.1:7600"
    api_key: SecretStr | None = None

    def to_dict(self) -> dict[str, Any]:
        """The arguments of soardb.connect."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return {"target": self.uri, "api_key": key}


class SoarDBIndexConfig(BaseModel, DBCaseConfig):  # type: ignore[misc]
    """How to build, how to search, and how durable a write is when it is acknowledged."""

    metric_type: MetricType | None = None
    nlist: int | None = None
    soar_lambda: float | None = None
    nprobe: int | None = None
    rerank: int | None = None
    ack: Literal["fsync", "logged", "memory"] = "fsync"

    def index_param(self) -> dict[str, Any]:
        """The metric, and options of SoarIndex. Errors: ValueError for a metric of no vectors."""
        metric = "COSINE" if self.metric_type is None else str(self.metric_type.value)
        if metric not in METRICS:
            raise ValueError(f"expected a metric of {', '.join(METRICS)}, got {metric}")
        chosen = {"nlist": self.nlist, "soar_lambda": self.soar_lambda}
        index = {name: value for name, value in chosen.items() if value is not None}
        return {"metric": METRICS[metric], "index": index}

    def search_param(self) -> dict[str, Any]:
        """Options of Collection.search."""
        return {"nprobe": self.nprobe, "rerank": self.rerank}
