"""SoardbVectorStore: a collection as LangChain's VectorStore.

    LangChain -> [langchain.py] -> target.py, fields.py, mmr.py, Collection

A document is a point: its id a string, its vector the embedding of its text, its payload
{"text": .., "metadata": {..}}. The asynchronous methods are those of the base class, which run
these in a thread.

Scores are soardb's, where bigger is closer; relevance scores bring them to 0..1.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.filters import Expr
from soardb.hits import Hits
from soardb.integrations.fields import Fields, declared
from soardb.integrations.mmr import most_diverse
from soardb.integrations.target import Target, open_collection
from soardb.kernels.layout import Metric

__all__ = ["MetadataFilter", "SoardbVectorStore"]

MetadataFilter = Expr | Mapping[str, Any] | str | None
"""F("source") == "a", {"source": "a"}, "source = 'a'", or a filter as JSON."""

_PAGE = 1_000


class SoardbVectorStore(VectorStore):
    """Documents in a collection of soardb; made by from_target or from_texts.

    Or from a collection that is there, whatever made it: `text_field` is the member of its
    payloads that holds the text, `metadata_field` the one with the metadata. Filters name keys of
    the metadata, which the schema of the collection has to declare.

    Safe for many threads. A context manager; close() closes what from_target opened.
    """

    def __init__(
        self,
        collection: Collection,
        embedding: Embeddings,
        *,
        text_field: str = "text",
        metadata_field: str = "metadata",
    ) -> None:
        self._collection = collection
        self._embedding = embedding
        self._text_field = text_field
        self._metadata_field = metadata_field
        self._fields = Fields(collection.schema, metadata_field)
        self._owned: Database | None = None

    @classmethod
    def from_target(
        cls,
        target: Target,
        collection_name: str,
        embedding: Embeddings,
        *,
        schema: Mapping[str, str] | None = None,
        metric: str | None = None,
        dim: int | None = None,
        full_text: bool | None = None,
        **options: Any,
    ) -> SoardbVectorStore:
        """A store over a collection of a directory or of an open database; made if not there.

        schema     {key of the metadata: type}, for the keys that filters use; see the docs of
                   soardb.filters for the types
        metric     "cosine" unless told, "dot" or "l2"
        dim        dimension of the embedding; one text is embedded to find out, unless told
        full_text  index the words of the texts too, for searches with text=; done unless told
        options    for create_collection: index, ttl

        A directory has one owner: for two stores in it, open it once with soardb.connect and pass
        the database. Errors: InvalidArgument where the collection is there and declares less.
        """
        words = {"text": "text"}
        found = open_collection(
            target,
            collection_name,
            dim=lambda: len(embedding.embed_query("dimension")) if dim is None else dim,
            metric=metric,
            schema=declared(schema, "metadata") | (words if full_text else {}),
            wished=words if full_text is None else {},
            **options,
        )
        store = cls(found.collection, embedding)
        store._owned = found.owned
        return store

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        target: Target | None = None,
        collection_name: str = "langchain",
        **kwargs: Any,
    ) -> SoardbVectorStore:
        """A store as from_target(target, collection_name, ...) has it, with these texts added."""
        if target is None:
            raise InvalidArgument(
                "expected target, a directory or an open database; there are no databases in "
                "memory: pass target='./data'"
            )
        store = cls.from_target(target, collection_name, embedding, **kwargs)
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.close()
            raise
        return store

    # ------------------------------------------------------------------ what it is

    @property
    def collection(self) -> Collection:
        """The collection, for everything that LangChain has no word for."""
        return self._collection

    @property
    def embeddings(self) -> Embeddings:
        """What embeds texts and queries."""
        return self._embedding

    def close(self) -> None:
        """Close the database that from_target opened; one that was passed in stays open."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> SoardbVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._collection.metric]

    # ------------------------------------------------------------------ writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and store them, in the place of those that have their ids.

        Whole or not at all, and durable when it returns. A text without an id gets a UUID. kwargs
        are for Collection.upsert: `ack`. Returns the ids, in order.
        """
        plain = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(plain):
                raise InvalidArgument(
                    f"expected as many {name} as texts, {len(plain)}, got {len(given)}"
                )
        chosen = [given or str(uuid.uuid4()) for given in ids or [None] * len(plain)]
        held = metadatas or [{} for _ in plain]
        for metadata in held:
            self._fields.check(metadata)
        if plain:
            payloads = [
                {self._text_field: text, self._metadata_field: metadata}
                for text, metadata in zip(plain, held, strict=True)
            ]
            self._collection.upsert(
                chosen, self._embedding.embed_documents(plain), payloads, **kwargs
            )
        return chosen

    def delete(
        self, ids: list[str] | None = None, *, filter: MetadataFilter = None, **kwargs: Any
    ) -> bool:
        """Delete documents by id, unknown ones being ignored, or all that match a filter.

        With neither all go, as LangChain has it: page by page, so not at one moment.
        """
        if ids is not None and filter is not None:
            raise InvalidArgument("expected ids or a filter, got both")
        where = self._fields.expr(filter)
        if ids is not None:
            if len(ids):
                self._collection.delete(list(ids), **kwargs)
        elif where is not None:
            self._collection.delete(filter=where, **kwargs)
        elif filter is not None:
            raise InvalidArgument("expected a filter that says what to delete, got an empty one")
        else:
            while page := self._collection.scroll(page_size=_PAGE, with_payload=False).points:
                self._collection.delete([point.id for point in page], **kwargs)
        return True

    # ------------------------------------------------------------------ reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of ids, in order; unknown ids are left out."""
        points = self._collection.get(list(ids)) if len(ids) else []
        return [self._document(p.id, p.payload) for p in points if p is not None]

    def _document(self, point_id: object, payload: Mapping[str, Any] | None) -> Document:
        held = payload or {}
        return Document(
            id=str(point_id),
            page_content=held.get(self._text_field) or "",
            metadata=held.get(self._metadata_field) or {},
        )

    # ------------------------------------------------------------------ searching

    def similarity_search(
        self, query: str, k: int = 4, filter: MetadataFilter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents closest to a query.

        kwargs are for Collection.search: target_recall, nprobe, rerank, exact, threads, and text,
        whose words are searched too and fused with the vector: `text=query` is hybrid search.
        """
        found = self.similarity_search_with_score(query, k, filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: MetadataFilter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Documents with the scores of soardb: bigger is closer, under every metric."""
        vector = self._embedding.embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter, **kwargs)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: MetadataFilter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents closest to an embedding."""
        found = self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: MetadataFilter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k documents closest to an embedding, with their scores."""
        hits: Hits = self._collection.search(
            embedding, k, filter=self._fields.expr(filter), **kwargs
        )
        return [(self._document(hit.id, hit.payload), hit.score) for hit in hits]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """k documents of the fetch_k closest, near the query and far from each other."""
        return self.max_marginal_relevance_search_by_vector(
            self._embedding.embed_query(query), k, fetch_k, lambda_mult, filter, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The same for an embedding; lambda_mult 1 asks for nearness alone, 0 for difference."""
        hits: Hits = self._collection.search(
            embedding,
            max(k, fetch_k),
            filter=self._fields.expr(filter),
            with_vectors=True,
            **kwargs,
        )
        assert hits.vectors is not None
        found = list(hits)
        return [
            self._document(found[i].id, found[i].payload)
            for i in most_diverse(embedding, hits.vectors, k, lambda_mult)
        ]


def _of_cosine(score: float) -> float:
    """1 in the same direction, 0 in the opposite one."""
    return min(1.0, max(0.0, (1 + score) / 2))


def _of_dot(score: float) -> float:
    """The logistic function: 0.5 for a product of 0. tanh does not overflow."""
    return (1 + math.tanh(score / 2)) / 2


def _of_l2(score: float) -> float:
    """1 / (1 + the Euclidean distance)."""
    return 1 / (1 + math.sqrt(max(0.0, -score)))


_RELEVANCE: dict[Metric, Callable[[float], float]] = {
    "cosine": _of_cosine,
    "dot": _of_dot,
    "l2": _of_l2,
}
