"""The LangChain adapter: LangChain's own suite for vector stores, and what that leaves out.

langchain_tests.integration_tests -> [test_langchain.py] -> soardb/integrations/langchain.py

The suite covers writing, deleting and reading by id, synchronous and not. Filters, scores, MMR,
targets and errors are ours to test.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from soardb import F, InUse, InvalidArgument
from soardb.database import Database
from soardb.integrations.langchain import SoardbVectorStore

SCHEMA = {
    "source": "keyword",
    "page": "int",
    "tags": "keyword_list",
    "is_draft": "bool",
    "author.name": "keyword",
}


class TestPublishedSuite(VectorStoreIntegrationTests):
    """All of it, with nothing left out or expected to fail."""

    @pytest.fixture
    def vectorstore(self, target: Database) -> VectorStore:
        """An empty store."""
        return SoardbVectorStore.from_target(target, "suite", self.get_embeddings())


class Places(Embeddings):
    """A text begins with two numbers, `x y`; so a test says where its documents lie."""

    def embed_query(self, text: str) -> list[float]:
        x, y = (text.split() if text[:1] in "-0123456789" else ["1", "1"])[:2]
        return [float(x), float(y)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


DOCUMENTS = [
    Document(
        id="a",
        page_content="1 0 red fox",
        metadata={"source": "x", "page": 1, "tags": ["t", "u"], "author": {"name": "Ann"}},
    ),
    Document(
        id="b",
        page_content="0.9 0.1 brown fox",
        metadata={"source": "x", "page": 2, "tags": [], "is_draft": True},
    ),
    Document(id="c", page_content="0 1 blue whale", metadata={"source": "it's", "page": 3}),
    Document(id="d", page_content="-1 0 no metadata"),
]


@pytest.fixture
def store(target: Database) -> SoardbVectorStore:
    """The documents above, two dimensions, cosine."""
    made = SoardbVectorStore.from_target(target, "places", Places(), schema=SCHEMA, dim=2)
    made.add_documents(DOCUMENTS)
    return made


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


class TestFilters:
    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({"source": "x"}, "ab"),
            ({"source": "x", "page": 2}, "b"),
            ({"is_draft": True}, "b"),
            ({"page": None}, "d"),
            ({"author.name": "Ann"}, "a"),
            (F("page") >= 2, "bc"),
            ((F("page") >= 2) & ~(F("source") == "x"), "c"),
            (F("tags").contains("u"), "a"),
            (F("metadata.page") == 1, "a"),
            ("source = 'it''s' OR author.name = 'Ann'", "ac"),
            ({"field": "page", "op": "in", "value": [1, 3]}, "ac"),
            ({"not": {"field": "page", "op": "lt", "value": 3}}, "c"),
            ({"or": [{"field": "page", "op": "eq", "value": 1}, {"and": [{
                "field": "source", "op": "eq", "value": "it's"}]}]}, "ac"),
            (F("text").matches("fox"), "ab"),
            ({}, "abcd"),
            (None, "abcd"),
        ],
    )  # fmt: skip
    def test_every_spelling_is_understood(
        self, store: SoardbVectorStore, where: Any, expected: str
    ) -> None:
        """Python, SQL and JSON as everywhere in soardb, and the dict of equalities of LangChain."""
        assert sorted(map(str, ids(store.similarity_search("1 0", 10, where)))) == list(expected)

    def test_a_filter_bounds_every_kind_of_search(self, store: SoardbVectorStore) -> None:
        """A search that forgot its filter would show documents to whom they are not meant for."""
        where = {"source": "it's"}
        assert ids(store.similarity_search_by_vector([1, 0], filter=where)) == ["c"]
        assert ids(store.max_marginal_relevance_search("1 0", filter=where)) == ["c"]
        found = store.similarity_search_with_relevance_scores("1 0", filter=where)
        assert ids([document for document, _ in found]) == ["c"]
        assert ids(store.as_retriever(search_kwargs={"filter": where}).invoke("1 0")) == ["c"]

    def test_an_undeclared_key_is_an_error_that_says_what_to_do(
        self, store: SoardbVectorStore
    ) -> None:
        """An empty result would look like an answer."""
        with pytest.raises(InvalidArgument, match=r"got 'colour'.*schema=\{'colour': 'keyword'\}"):
            store.similarity_search("1 0", filter={"colour": "red"})

    @pytest.mark.parametrize(
        "where",
        [
            {"source": ["x"]},
            {"source": {"$eq": "x"}},
            {"page": "1"},
            {"tags": "t"},
            {1: 2},
            lambda document: True,
            {"and": [], "or": []},
        ],
    )
    def test_what_is_not_understood_is_refused(self, store: SoardbVectorStore, where: Any) -> None:
        """Operators of other stores and values of other types among them."""
        with pytest.raises(InvalidArgument):
            store.similarity_search("1 0", filter=where)

    def test_a_declared_key_with_a_dot_is_refused(self, store: SoardbVectorStore) -> None:
        """A dot leads into a nested object; the flat key would be null to every filter."""
        with pytest.raises(InvalidArgument, match="nested"):
            store.add_texts(["1 1"], [{"author.name": "Bob"}])
        assert store.collection.count() == 4

    def test_a_key_that_no_filter_can_name_is_refused_in_schema(self, target: Database) -> None:
        """Rather than at the first filter."""
        with pytest.raises(InvalidArgument, match="page-number"):
            SoardbVectorStore.from_target(target, "x", Places(), schema={"page-number": "int"})


class TestScores:
    @pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
    def test_relevance_is_within_0_and_1_and_keeps_the_order(
        self, target: Database, metric: str
    ) -> None:
        """LangChain's thresholds are over this scale, under every metric."""
        store = SoardbVectorStore.from_target(target, metric, Places(), metric=metric)
        rng = np.random.default_rng(0)
        store.add_texts([f"{x} {y}" for x, y in rng.normal(0, 30, (50, 2))])
        found = store.similarity_search_with_relevance_scores("3 4", k=50)
        scores = [score for _, score in found]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert ids([d for d, _ in found]) == ids(store.similarity_search("3 4", k=50))

    def test_the_same_text_is_fully_relevant(self, target: Database) -> None:
        """Where the metric has a best score."""
        for metric in ("cosine", "l2"):
            store = SoardbVectorStore.from_texts(
                ["3 4"], Places(), target=target, collection_name=metric, metric=metric
            )
            ((_, score),) = store.similarity_search_with_relevance_scores("3 4")
            assert score == pytest.approx(1.0)

    def test_a_retriever_can_have_a_threshold(self, store: SoardbVectorStore) -> None:
        """0.5 is a right angle under the cosine."""
        retriever = store.as_retriever(
            search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9}
        )
        assert ids(retriever.invoke("1 0")) == ["a", "b"]

    def test_text_is_searched_beside_the_vector(self, store: SoardbVectorStore) -> None:
        """Hybrid search; without it the whale is last but one."""
        assert ids(store.similarity_search("1 0", 4))[2] == "c"
        assert "c" in ids(store.similarity_search("1 0", 2, text="whale", weights=(0.1, 1.0)))


class TestDiversity:
    def test_the_second_result_is_far_from_the_first(self, store: SoardbVectorStore) -> None:
        """At lambda_mult 1 it is plain search; lower, b gives way, as it is like a."""
        near = store.max_marginal_relevance_search("1 0", k=2, lambda_mult=1.0)
        assert ids(near) == ["a", "b"]
        far = store.max_marginal_relevance_search("1 0", k=2, lambda_mult=0.1)
        assert ids(far) == ["a", "d"]
        assert ids(store.as_retriever(search_type="mmr").invoke("1 0"))[0] == "a"

    def test_no_documents_no_results(self, target: Database) -> None:
        """An empty store is no special case to callers."""
        store = SoardbVectorStore.from_target(target, "empty", Places())
        assert store.max_marginal_relevance_search("1 0") == []

    def test_a_weight_beyond_its_range_is_refused(self, store: SoardbVectorStore) -> None:
        """Negative weights would prefer what is far from the query."""
        with pytest.raises(InvalidArgument, match=r"0\.\.1"):
            store.max_marginal_relevance_search("1 0", lambda_mult=1.5)


class TestTargets:
    def test_documents_outlive_the_process(self, tmp_path: Path) -> None:
        """A path is opened by the store and closed with it."""
        embedding = DeterministicFakeEmbedding(size=8)
        with SoardbVectorStore.from_documents(
            DOCUMENTS, embedding, target=tmp_path / "db", schema={"source": "keyword"}
        ) as store:
            assert store.embeddings is embedding
            with pytest.raises(InUse):
                SoardbVectorStore.from_target(tmp_path / "db", "other", embedding)
        with SoardbVectorStore.from_target(tmp_path / "db", "langchain", embedding) as again:
            assert again.get_by_ids(["a", "d"]) == [DOCUMENTS[0], DOCUMENTS[3]]
            assert again.similarity_search("1 0 red fox", 1, {"source": "x"}) == [DOCUMENTS[0]]

    def test_a_database_that_was_passed_in_stays_open(self, target: Database) -> None:
        """Several stores share it."""
        SoardbVectorStore.from_texts(["1 0"], Places(), target=target).close()
        other = SoardbVectorStore.from_texts(["1 0"], Places(), target=target, collection_name="b")
        assert target.list_collections() == ["b", "langchain"]
        assert len(other.similarity_search("1 0")) == 1

    def test_a_collection_that_declares_less_is_refused(
        self, target: Database, store: SoardbVectorStore
    ) -> None:
        """A filter over the field would fail later, far from its cause."""
        for schema, metric in (
            ({"colour": "keyword"}, None),
            ({"page": "float"}, None),
            ({}, "l2"),
        ):
            with pytest.raises(InvalidArgument, match="places"):
                SoardbVectorStore.from_target(
                    target, "places", Places(), schema=schema, metric=metric
                )
        again = SoardbVectorStore.from_target(target, "places", Places(), schema={"page": "int"})
        assert again.collection.count() == 4

    def test_a_collection_of_other_origin_can_be_searched(self, target: Database) -> None:
        """Its members are named; metadata that is not there is empty."""
        plain = target.create_collection("plain", dim=2, schema={"about.year": "int"})
        plain.upsert(["p", "q"], [[1, 0], [0, 1]], [{"body": "one", "about": {"year": 1}}, {}])
        store = SoardbVectorStore(plain, Places(), text_field="body", metadata_field="about")
        assert store.similarity_search("1 0") == [
            Document(id="p", page_content="one", metadata={"year": 1}),
            Document(id="q", page_content="", metadata={}),
        ]
        assert ids(store.similarity_search("0 1", filter={"year": 1})) == ["p"]

    def test_there_is_no_database_in_memory(self) -> None:
        """from_texts without a target, as other stores have it, says what to pass."""
        with pytest.raises(InvalidArgument, match="target="):
            SoardbVectorStore.from_texts(["1 0"], Places())


class TestWriting:
    def test_a_text_without_an_id_gets_one(self, store: SoardbVectorStore) -> None:
        """Beside texts that have theirs."""
        first, second = store.add_texts(["1 1", "2 2"], ids=["mine", None])
        assert first == "mine"
        assert len(second) == 36
        assert store.add_texts([]) == []

    def test_lists_of_other_lengths_are_refused(self, store: SoardbVectorStore) -> None:
        """zip would drop the rest in silence."""
        with pytest.raises(InvalidArgument, match="as many metadatas"):
            store.add_texts(["1 1", "2 2"], [{}])
        with pytest.raises(InvalidArgument, match="as many ids"):
            store.add_texts(["1 1"], ids=["1", "2"])

    def test_delete_takes_ids_a_filter_or_everything(self, store: SoardbVectorStore) -> None:
        """Everything is LangChain's word for neither; an empty filter is nobody's."""
        assert store.delete(filter={"source": "x"})
        assert ids(store.get_by_ids(list("abcd"))) == ["c", "d"]
        wrong: dict[str, Any]
        for wrong in ({"ids": ["c"], "filter": {"page": 3}}, {"filter": {}}):
            with pytest.raises(InvalidArgument):
                store.delete(**wrong)
        assert store.delete([])
        assert store.collection.count() == 2
        assert asyncio.run(store.adelete())
        assert store.collection.count() == 0
        assert store.get_by_ids([]) == []
