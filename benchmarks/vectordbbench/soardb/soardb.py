"""soardb as a database of VectorDBBench, through gRPC.

    VectorDBBench's runners -> [soardb.py] -> soardb.connect("grpc://..."), a running server

The runners make one SoarDB, pickle it into several processes, and call init() in each before
anything else. So an object holds settings, and a connection only inside init(). One connection
serves all threads of a process.

An id is the point's id, and a payload field too, since filters look at payloads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from vectordb_bench.backend.clients.api import VectorDB
from vectordb_bench.backend.filter import FilterOp

import soardb

log = logging.getLogger(__name__)

SCHEMA = {"id": "int", "label": "keyword"}


class SoarDB(VectorDB):  # type: ignore[misc]  # VectorDBBench has no types
    """One collection on a server."""

    name = "SoarDB"
    thread_safe = True
    supported_filter_types = (FilterOp.NonFilter, FilterOp.NumGE, FilterOp.StrEqual)

    def __init__(
        self,
        dim: int,
        db_config: dict[str, Any],
        db_case_config: Any,
        collection_name: str = "vectordbbench",
        drop_old: bool = False,
        **_: Any,
    ) -> None:
        """Make the collection if it is not there; with drop_old, anew.

        db_config       the arguments of soardb.connect, as SoarDBConfig.to_dict() says them
        db_case_config  SoarDBIndexConfig
        """
        self._server, self._collection_name = db_config, collection_name
        self._ack = db_case_config.ack
        self._options = db_case_config.search_param() | {"with_payload": False}
        self._collection: Any = None
        with soardb.connect(**db_config) as client:
            if drop_old and collection_name in client.list_collections():
                client.drop_collection(collection_name)
            client.create_collection(
                collection_name, dim, schema=SCHEMA, exist_ok=True, **db_case_config.index_param()
            )

    def __getstate__(self) -> dict[str, Any]:
        """What goes into another process: no connection."""
        return self.__dict__ | {"_collection": None}

    @contextmanager
    def init(self) -> Iterator[None]:
        """Connect; every other method is called inside."""
        with soardb.connect(**self._server) as client:
            self._collection = client.get_collection(self._collection_name)
            try:
                yield
            finally:
                self._collection = None

    def insert_embeddings(
        self,
        embeddings: list[list[float]],
        metadata: list[int],
        labels_data: list[str] | None = None,
        **_: Any,
    ) -> tuple[int, Exception | None]:
        """Store vectors under the ids in metadata; how many, or 0 and why not: whole or nothing."""
        payloads: dict[str, Any] = {"id": metadata}
        if labels_data is not None:
            payloads["label"] = labels_data
        try:
            self._collection.upsert(
                metadata, np.asarray(embeddings, dtype=np.float32), payloads, ack=self._ack
            )
        except soardb.SoarError as error:
            log.warning("insert of %d failed: %s", len(metadata), error)
            return 0, error
        return len(metadata), None

    def optimize(self, data_size: int | None = None) -> None:
        """Learn the partitions from all vectors and wait for that index."""
        self._collection.flush()
        self._collection.compact(retrain=True)
        stats = self._collection.stats()
        log.info("%d points in %d partitions", stats["points"], stats["nlist"])
        if data_size is not None and stats["points"] != data_size:
            log.warning("expected %d points, got %d", data_size, stats["points"])

    def poll_insert_readiness(self, expected_count: int) -> dict[str, Any]:
        """Points are searched from the moment that they are stored, and in the index at once."""
        points = self._collection.stats()["points"]
        is_there = points >= expected_count
        return {
            "fully_searchable": is_there,
            "fully_indexed": is_there,
            "additional_parameters": {"points": points},
        }

    def prepare_filter(self, filters: Any) -> None:
        """Take the filter of the searches that follow: none, id >= value, or label == value."""
        if filters.type == FilterOp.NonFilter:
            self._options.pop("filter", None)
        elif filters.type == FilterOp.NumGE:
            self._options["filter"] = soardb.F("id") >= filters.int_value
        elif filters.type == FilterOp.StrEqual:
            self._options["filter"] = soardb.F("label") == filters.label_value
        else:
            raise ValueError(f"expected a filter of {self.supported_filter_types}, got {filters}")

    def search_embedding(self, query: list[float], k: int = 100, **_: Any) -> list[int]:
        """The ids of up to k points closest to query, best first."""
        found = self._collection.search_columns(
            np.asarray(query, dtype=np.float32), k, **self._options
        )
        ids: list[int] = np.asarray(found.ids).tolist()
        return ids
