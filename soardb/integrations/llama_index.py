"""SoardbVectorStore: a collection as LlamaIndex's vector store.

    LlamaIndex -> [llama_index.py] -> llama_filters.py, target.py, mmr.py, Collection

A node is a point under its node id, with the payload

    text         its content
    metadata     its metadata, of which filters use the keys that the schema declares
    node         everything else of the node, as JSON text, and node_type, its class
    node_id, ref_doc_id    again as fields, since filters cannot name the ids of points
    empty        the declared fields whose value is empty, since filters cannot ask for that

The asynchronous methods run these in a thread. Scores are soardb's, where bigger is closer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.filters import Expr, F
from soardb.hits import Hits
from soardb.integrations.fields import Fields, declared, reached
from soardb.integrations.llama_filters import EMPTY, NODE_ID, SOURCE, expression
from soardb.integrations.mmr import most_diverse
from soardb.integrations.target import Target, open_collection

__all__ = ["SoardbVectorStore"]

_OWN = {NODE_ID: "keyword", SOURCE: "keyword", EMPTY: "keyword_list"}
_ALIASES = {"doc_id": SOURCE, "document_id": SOURCE}
_MEMBER = "metadata"
_PAGE = 1_000
_TEXT_MODES = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_MODES = (
    VectorStoreQueryMode.DEFAULT,
    VectorStoreQueryMode.HYBRID,
    VectorStoreQueryMode.MMR,
    *_TEXT_MODES,
)


class SoardbVectorStore(BasePydanticVectorStore):
    """Nodes in a collection of soardb, with their text: no document store is needed beside it.

    Made by from_target, or from a collection that it made. Safe for many threads. A context
    manager; close() closes what from_target opened.
    """

    stores_text: bool = True
    flat_metadata: bool = False

    _collection: Collection = PrivateAttr()
    _fields: Fields = PrivateAttr()
    _owned: Database | None = PrivateAttr(default=None)

    def __init__(self, collection: Collection) -> None:
        """Errors: InvalidArgument for a collection without the fields that from_target declares."""
        super().__init__(stores_text=True)
        lacking = [name for name, kind in _OWN.items() if collection.schema.get(name) != kind]
        if lacking:
            raise InvalidArgument(
                f"expected collection {collection.name!r} to declare {', '.join(lacking)}, as one "
                "made by SoardbVectorStore.from_target does; use that"
            )
        self._collection = collection
        self._fields = Fields(collection.schema, _MEMBER, _ALIASES)

    @classmethod
    def from_target(
        cls,
        target: Target,
        collection_name: str = "llama_index",
        *,
        dim: int | None = None,
        schema: Mapping[str, str] | None = None,
        metric: str | None = None,
        full_text: bool | None = None,
        **options: Any,
    ) -> SoardbVectorStore:
        """A store over a collection of a directory or of an open database; made if not there.

        dim        dimension of the embedding; needed for a new collection
        schema     {key of the metadata: type}, for the keys that filters use; see the docs of
                   soardb.filters for the types
        metric     "cosine" unless told, "dot" or "l2"
        full_text  index the words of the texts too, for the modes HYBRID and TEXT_SEARCH; done
                   unless told
        options    for create_collection: index, ttl

        A directory has one owner: for two stores in it, open it once with soardb.connect and pass
        the database. Errors: InvalidArgument where the collection is there and declares less.
        """

        def known_dim() -> int:
            if dim is None:
                raise InvalidArgument(
                    f"expected dim, the dimension of the embedding, for the new collection "
                    f"{collection_name!r}"
                )
            return dim

        words = {"text": "text"}
        found = open_collection(
            target,
            collection_name,
            dim=known_dim,
            metric=metric,
            schema=_OWN | declared(schema, _MEMBER) | (words if full_text else {}),
            wished=words if full_text is None else {},
            **options,
        )
        store = cls(found.collection)
        store._owned = found.owned
        return store

    # ------------------------------------------------------------------ what it is

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "SoardbVectorStore"

    @property
    def client(self) -> Collection:
        """The collection, for everything that LlamaIndex has no word for."""
        return self._collection

    def close(self) -> None:
        """Close the database that from_target opened; one that was passed in stays open."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> SoardbVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ writing

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings, in the place of those that have their ids.

        Whole or not at all, and durable when it returns. kwargs are for Collection.upsert: `ack`.
        """
        if nodes:
            self._collection.upsert(
                [node.node_id for node in nodes],
                [node.get_embedding() for node in nodes],
                [self._payload(node) for node in nodes],
                **kwargs,
            )
        return [node.node_id for node in nodes]

    def _payload(self, node: BaseNode) -> dict[str, Any]:
        rest = node.model_dump(mode="json", exclude={"embedding"})
        metadata = rest.pop("metadata", {})
        self._fields.check(metadata)
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        if text:  # it is the field `text`; a node may hold more than its text
            rest.pop("text", None)
            rest.pop("text_resource", None)
        payload = {
            "text": text or None,
            _MEMBER: metadata,
            "node": json.dumps(rest, ensure_ascii=False),
            "node_type": node.class_name(),
            NODE_ID: node.node_id,
            SOURCE: node.ref_doc_id,
        }
        empty = [name for name in self._fields.schema if reached(payload, name) in ("", [])]
        payload[EMPTY] = empty
        return {key: value for key, value in payload.items() if value is not None}

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document. delete_kwargs are for Collection.delete: `ack`."""
        self._collection.delete(filter=F(SOURCE) == ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete nodes by id, or all that match filters; those of the ids that do, with both."""
        where = self._where(node_ids, None, filters)
        if where is None:
            raise InvalidArgument("expected node_ids or filters, got neither; clear() deletes all")
        self._collection.delete(filter=where, **delete_kwargs)

    def clear(self) -> None:
        """Delete every node; the collection stays."""
        self._collection.delete(filter=F(NODE_ID).not_null())

    # ------------------------------------------------------------------ reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id, in their order; or all that match filters; or all. Without embeddings."""
        if node_ids is not None and filters is None:
            points = self._collection.get(list(node_ids)) if node_ids else []
            return [_node(p.payload) for p in points if p is not None]
        where = self._where(node_ids, None, filters)
        nodes: list[BaseNode] = []
        token = None
        while True:
            page = self._collection.scroll(filter=where, page_size=_PAGE, page_token=token)
            nodes += [_node(point.payload) for point in page]
            token = page.next_page_token
            if token is None:
                return nodes

    def _where(
        self,
        node_ids: Sequence[str] | None,
        doc_ids: Sequence[str] | None,
        filters: MetadataFilters | None,
    ) -> Expr | None:
        """All of what is asked for, as one filter; None where nothing is."""
        where = expression(filters, self._fields, self._collection)
        for name, wanted in ((NODE_ID, node_ids), (SOURCE, doc_ids)):
            if wanted is not None:
                one = F(name).isin(list(wanted))
                where = one if where is None else where & one
        return where

    # ------------------------------------------------------------------ searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes closest to a query, their scores and ids.

        Modes: DEFAULT, by the embedding. TEXT_SEARCH and SPARSE, by the words of query_str. HYBRID,
        by both: reciprocal ranks are added, or with `alpha` the scores of each, brought to 0..1,
        with the weights alpha for the embedding and 1 - alpha for the words. MMR: of
        `mmr_prefetch_factor` (4) times as many, or of `mmr_prefetch_k`, those near the query and
        far from each other; similarities are those to the query. Other modes are refused.

        Other kwargs are for Collection.search: target_recall, nprobe, rerank, exact, threads.
        """
        if query.mode not in _MODES:
            raise InvalidArgument(
                f"expected mode one of {', '.join(mode.value for mode in _MODES)}, "
                f"got {query.mode.value}"
            )
        # An index over a store that holds the text asks with an empty list of node ids for any.
        where = self._where(query.node_ids or None, query.doc_ids, query.filters)
        if query.mode == VectorStoreQueryMode.MMR:
            return self._diverse(query, where, **kwargs)
        limit, how = query.similarity_top_k, kwargs
        if query.mode in _TEXT_MODES:
            limit = query.sparse_top_k or limit
        elif query.mode == VectorStoreQueryMode.HYBRID:
            limit = query.hybrid_top_k or limit
            if query.alpha is not None:
                weights = (query.alpha, 1 - query.alpha)
                how = {"fusion": "weighted", "weights": weights, **kwargs}
        hits: Hits = self._collection.search(
            None if query.mode in _TEXT_MODES else _embedding(query),
            limit,
            text=None if query.mode == VectorStoreQueryMode.DEFAULT else self._words(query),
            filter=where,
            **how,
        )
        return _result(hits, range(len(hits)))

    def _words(self, query: VectorStoreQuery) -> str:
        if query.query_str is None:
            raise InvalidArgument(f"expected query_str for the mode {query.mode.value}, got none")
        if self._collection.schema.get("text") != "text":
            raise InvalidArgument(
                f"expected a collection with full text for the mode {query.mode.value}; make it "
                "with full_text=True"
            )
        return query.query_str

    def _diverse(
        self, query: VectorStoreQuery, where: Expr | None, **kwargs: Any
    ) -> VectorStoreQueryResult:
        relevance = kwargs.pop("mmr_threshold", query.mmr_threshold)
        factor = kwargs.pop("mmr_prefetch_factor", 4.0)
        fetched = int(kwargs.pop("mmr_prefetch_k", factor * query.similarity_top_k))
        vector = _embedding(query)
        hits: Hits = self._collection.search(
            vector,
            max(fetched, query.similarity_top_k),
            filter=where,
            with_vectors=True,
            **kwargs,
        )
        assert hits.vectors is not None
        relevance = 0.5 if relevance is None else relevance
        return _result(hits, most_diverse(vector, hits.vectors, query.similarity_top_k, relevance))

    # ------------------------------------------------------------------ the same, in a thread

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """add, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """delete, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """delete_nodes, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """clear, in a thread."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """get_nodes, in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """query, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _embedding(query: VectorStoreQuery) -> list[float]:
    if query.query_embedding is None:
        raise InvalidArgument(f"expected query_embedding for the mode {query.mode.value}, got none")
    return query.query_embedding


def _node(payload: Mapping[str, Any] | None) -> BaseNode:
    assert payload is not None
    content = {**json.loads(payload["node"]), "metadata": payload[_MEMBER]}
    held = {"_node_content": json.dumps(content), "_node_type": payload["node_type"]}
    return metadata_dict_to_node(held, payload.get("text"))


def _result(hits: Hits, chosen: Sequence[int]) -> VectorStoreQueryResult:
    """These of the hits, in this order."""
    found = list(hits)
    return VectorStoreQueryResult(
        nodes=[_node(found[i].payload) for i in chosen],
        similarities=[found[i].score for i in chosen],
        ids=[str(found[i].id) for i in chosen],
    )
