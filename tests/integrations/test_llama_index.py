"""The LlamaIndex adapter beside the code that LlamaIndex publishes for the same questions.

llama_index.core -> [test_llama_index.py] -> soardb/integrations/llama_index.py

No suite for vector stores is published as a package. So the references here are those of
llama-index-core itself: its evaluation of metadata filters, and SimpleVectorStore. The tests that
its repository has for that store run on ours by `make test-llama-index`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from soardb import InvalidArgument
from soardb.database import Database
from soardb.integrations.llama_index import SoardbVectorStore

D = 6
SCHEMA = {
    "colour": "keyword",
    "pages": "int",
    "weight": "float",
    "tags": "keyword_list",
    "words": "text",
    "is_new": "bool",
    "author.name": "keyword",
}
COLOURS = ["red", "Red", "dark red", "blue", ""]
TAGS = ["t", "u", "v"]


def node(number: int, rng: np.random.Generator) -> TextNode:
    """A node with some of the metadata; None, empty values and missing keys among them."""
    metadata: dict[str, Any] = {
        "colour": [*COLOURS, None][rng.integers(6)],
        "pages": int(rng.integers(0, 5)),
        "weight": float(rng.integers(0, 5)) / 2,
        "tags": [tag for tag in TAGS if rng.random() < 0.4],
    }
    metadata = {key: value for key, value in metadata.items() if rng.random() < 0.8}
    return TextNode(
        id_=f"n{number}",
        text=f"text of number {number}",
        embedding=rng.standard_normal(D).tolist(),
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{number % 7}")},
    )


@pytest.fixture(scope="module")
def nodes() -> list[TextNode]:
    """60 nodes of 7 documents."""
    rng = np.random.default_rng(5)
    return [node(number, rng) for number in range(60)]


@pytest.fixture
def store(target: Database, nodes: list[TextNode]) -> SoardbVectorStore:
    """The nodes, in a store."""
    made = SoardbVectorStore.from_target(target, "nodes", dim=D, schema=SCHEMA)
    made.add(nodes)
    return made


def matching(store: SoardbVectorStore, filters: MetadataFilters) -> set[str]:
    """The ids that match, by a search that is wide enough for all."""
    found = store.query(
        VectorStoreQuery(query_embedding=[1.0] * D, similarity_top_k=1000, filters=filters)
    )
    assert found.ids is not None
    return set(found.ids)


# ---- filters ----

O = FilterOperator  # noqa: E741
_TEMPLATES: list[tuple[str, FilterOperator, Any]] = [
    *[("colour", op, value) for op in (O.EQ, O.NE, O.LT, O.GTE) for value in ("red", "")],
    *[("pages", op, 2) for op in (O.EQ, O.NE, O.GT, O.LT, O.GTE, O.LTE)],
    *[("weight", op, 1.5) for op in (O.EQ, O.NE, O.GT, O.LT, O.GTE, O.LTE)],
    *[("colour", op, ["red", "blue"]) for op in (O.IN, O.NIN)],
    *[("pages", op, [1, 4]) for op in (O.IN, O.NIN)],
    *[("colour", op, value) for op in (O.TEXT_MATCH, O.TEXT_MATCH_INSENSITIVE)
      for value in ("red", "RED", "d r", "x", "")],
    *[("tags", op, ["t", "v"]) for op in (O.ANY, O.ALL)],
    ("tags", O.ANY, []),
    ("tags", O.ALL, []),
    ("tags", O.CONTAINS, "u"),
    *[(key, O.IS_EMPTY, None) for key in ("colour", "pages", "weight", "tags")],
]  # fmt: skip
LEAVES = [MetadataFilter(key=k, operator=op, value=value) for k, op, value in _TEMPLATES]


def expected(nodes: list[TextNode], part: MetadataFilter | MetadataFilters) -> set[str]:
    """What matches: single comparisons by LlamaIndex, their combination by sets."""
    everything = {one.node_id for one in nodes}
    if isinstance(part, MetadataFilter):
        metadata = {one.node_id: one.metadata for one in nodes}
        matches = build_metadata_filter_fn(metadata.__getitem__, MetadataFilters(filters=[part]))
        return {node_id for node_id in everything if matches(node_id)}
    found = [expected(nodes, child) for child in part.filters]
    any_of = {node_id for some in found for node_id in some}
    if part.condition == FilterCondition.OR:
        return any_of
    if part.condition == FilterCondition.NOT:
        return everything - any_of
    return everything.intersection(*found)


def random_filters(rng: np.random.Generator, depth: int) -> MetadataFilters:
    parts: list[MetadataFilter | MetadataFilters] = []
    for _ in range(rng.integers(1, 4)):
        if depth and rng.random() < 0.5:
            parts.append(random_filters(rng, depth - 1))
        else:
            parts.append(LEAVES[rng.integers(len(LEAVES))])
    return MetadataFilters(filters=parts, condition=list(FilterCondition)[rng.integers(3)])


class TestFilters:
    def test_every_operator_matches_as_in_llama_index(
        self, store: SoardbVectorStore, nodes: list[TextNode]
    ) -> None:
        """Alone and negated, over present, empty, null and missing values."""
        assert {leaf.operator for leaf in LEAVES} == set(FilterOperator)
        sizes = []
        for leaf in LEAVES:
            for condition in FilterCondition:
                filters = MetadataFilters(filters=[leaf], condition=condition)
                wanted = expected(nodes, filters)
                assert matching(store, filters) == wanted, (leaf, condition)
                sizes.append(len(wanted))
        assert sum(0 < size < len(nodes) for size in sizes) > 0.8 * len(sizes)

    def test_nested_conditions_match_as_in_sets(
        self, store: SoardbVectorStore, nodes: list[TextNode]
    ) -> None:
        """Nodes without a key must neither appear nor vanish below a NOT."""
        rng = np.random.default_rng(11)
        for _ in range(200):
            filters = random_filters(rng, 3)
            assert matching(store, filters) == expected(nodes, filters), filters

    def test_a_text_field_is_matched_by_words(self, target: Database) -> None:
        """And negated, for nodes without the text too; a keyword is matched by substring."""
        store = SoardbVectorStore.from_target(target, dim=2, schema=SCHEMA)
        texts = ["Quick brown foxes", "slow brown bear", None]
        store.add(
            [
                TextNode(id_=str(i), embedding=[1, i], metadata={"words": text} if text else {})
                for i, text in enumerate(texts)
            ]
        )
        leaf = MetadataFilter(key="words", operator=O.TEXT_MATCH, value="fox BROWN")
        assert matching_of_2d(store, MetadataFilters(filters=[leaf])) == {"0"}
        none_of = MetadataFilters(filters=[leaf], condition=FilterCondition.NOT)
        assert matching_of_2d(store, none_of) == {"1", "2"}

    def test_booleans_and_nested_metadata(self, target: Database) -> None:
        """MetadataFilter has no booleans, so 0 and 1 stand for them."""
        store = SoardbVectorStore.from_target(target, dim=2, schema=SCHEMA)
        store.add(
            [
                TextNode(
                    id_="new",
                    embedding=[1, 0],
                    metadata={"is_new": True, "author": {"name": ""}},
                ),
                TextNode(
                    id_="old",
                    embedding=[0, 1],
                    metadata={"is_new": False, "author": {"name": "Ann"}},
                ),
            ]
        )
        for key, operator, value, found in (
            ("is_new", O.EQ, 1, {"new"}),
            ("is_new", O.NIN, [1], {"old"}),
            ("author.name", O.EQ, "Ann", {"old"}),
            ("author.name", O.IS_EMPTY, None, {"new"}),
        ):
            leaf = MetadataFilter(key=key, operator=operator, value=value)
            assert matching_of_2d(store, MetadataFilters(filters=[leaf])) == found

    def test_no_filters_are_no_filter(
        self, store: SoardbVectorStore, nodes: list[TextNode]
    ) -> None:
        """As in LlamaIndex; within others an empty one means nothing, and is refused."""
        assert len(matching(store, MetadataFilters(filters=[]))) == len(nodes)
        with pytest.raises(InvalidArgument, match="nested"):
            matching(store, MetadataFilters(filters=[MetadataFilters(filters=[])]))

    def test_an_undeclared_key_is_an_error_that_says_what_to_do(
        self, store: SoardbVectorStore
    ) -> None:
        """Wherever filters are taken, and even where it could not change the result."""
        filters = MetadataFilters(
            filters=[MetadataFilter(key="pages", value=1), MetadataFilter(key="kind", value="a")],
            condition=FilterCondition.OR,
        )
        message = r"got 'kind'.*schema=\{'kind': 'keyword'\}"
        with pytest.raises(InvalidArgument, match=message):
            matching(store, filters)
        with pytest.raises(InvalidArgument, match=message):
            store.get_nodes(filters=filters)
        with pytest.raises(InvalidArgument, match=message):
            store.delete_nodes(filters=filters)
        assert len(store.get_nodes()) == 60

    @pytest.mark.parametrize(
        ("key", "operator", "value"),
        [
            ("pages", O.EQ, "2"),
            ("colour", O.EQ, None),
            ("colour", O.EQ, 1),
            ("pages", O.IN, 2),
            ("pages", O.CONTAINS, 2),
            ("colour", O.ANY, ["red"]),
            ("tags", O.CONTAINS, 1),
            ("tags", O.EQ, "t"),
            ("weight", O.TEXT_MATCH, "1"),
            ("colour", O.TEXT_MATCH, 1),
            ("is_new", O.EQ, 2),
        ],
    )
    def test_what_makes_no_sense_for_a_type_is_refused(
        self, store: SoardbVectorStore, key: str, operator: FilterOperator, value: Any
    ) -> None:
        """Silence would be a result without the nodes that were meant."""
        leaf = MetadataFilter(key=key, operator=operator, value=value)
        with pytest.raises(InvalidArgument):
            matching(store, MetadataFilters(filters=[leaf]))


def matching_of_2d(store: SoardbVectorStore, filters: MetadataFilters) -> set[str]:
    query = VectorStoreQuery(query_embedding=[1.0, 1.0], similarity_top_k=10, filters=filters)
    return set(store.query(query).ids or [])


# ---- queries ----


@pytest.fixture
def both(
    store: SoardbVectorStore, nodes: list[TextNode]
) -> tuple[BasePydanticVectorStore, BasePydanticVectorStore]:
    """Ours and LlamaIndex's, with the same nodes."""
    simple = SimpleVectorStore()
    simple.add(nodes)
    return store, simple


class TestQueries:
    def test_results_are_those_of_the_simple_store(
        self, both: tuple[BasePydanticVectorStore, BasePydanticVectorStore]
    ) -> None:
        """Order, ids and similarities, with filters and restrictions to nodes."""
        ours, simple = both
        rng = np.random.default_rng(3)
        leaves = [leaf for leaf in LEAVES if leaf.operator == O.NE]
        for vector in rng.standard_normal((30, D)):
            query = VectorStoreQuery(
                query_embedding=vector.tolist(),
                similarity_top_k=7,
                filters=MetadataFilters(filters=[leaves[rng.integers(len(leaves))]]),
                node_ids=[f"n{i}" for i in range(40)] if rng.random() < 0.5 else None,
            )
            found, wanted = ours.query(query), simple.query(query)
            assert found.ids == wanted.ids
            assert found.similarities == pytest.approx(wanted.similarities, abs=1e-5)
            assert [one.node_id for one in found.nodes or []] == wanted.ids

    def test_two_diverse_results_are_those_of_the_simple_store(
        self, both: tuple[BasePydanticVectorStore, BasePydanticVectorStore]
    ) -> None:
        """From the third on it looks at the last result alone, and ours at all before."""
        ours, simple = both
        rng = np.random.default_rng(4)
        for vector in rng.standard_normal((30, D)):
            threshold = float(rng.uniform(0.1, 1))
            query = VectorStoreQuery(
                query_embedding=vector.tolist(),
                similarity_top_k=2,
                mode=VectorStoreQueryMode.MMR,
            )
            found = ours.query(query, mmr_threshold=threshold, mmr_prefetch_k=60)
            assert found.ids == simple.query(query, mmr_threshold=threshold).ids

    def test_restrictions_to_documents_and_nodes_meet(self, store: SoardbVectorStore) -> None:
        """A restriction to no document gives none; LlamaIndex means any by no node ids."""

        def found(**restrictions: Any) -> set[str]:
            query = VectorStoreQuery([1.0] * D, similarity_top_k=100, **restrictions)
            return set(store.query(query).ids or [])

        assert found(doc_ids=["doc-3"]) == {f"n{i}" for i in range(3, 60, 7)}
        assert found(doc_ids=["doc-3"], node_ids=["n3", "n4"]) == {"n3"}
        assert found(doc_ids=[]) == set()
        assert len(found(node_ids=[])) == 60
        for key in ("ref_doc_id", "doc_id", "document_id"):
            by_key = MetadataFilters(filters=[MetadataFilter(key=key, value="doc-3")])
            assert found(filters=by_key) == found(doc_ids=["doc-3"])

    def test_words_are_searched_alone_or_with_the_vector(self, target: Database) -> None:
        """TEXT_SEARCH ranks by words; HYBRID by both, and alpha says how much of each."""
        store = SoardbVectorStore.from_target(target, dim=2)
        texts = {"fox": [1, 0], "whale": [0.9, 0.1], "whale song": [0, 1]}
        store.add([TextNode(id_=t, text=t, embedding=v) for t, v in texts.items()])

        def first(mode: VectorStoreQueryMode, alpha: float | None = None) -> str:
            query = VectorStoreQuery([1, 0], 3, query_str="song", mode=mode, alpha=alpha)
            return (store.query(query).ids or [""])[0]

        assert first(VectorStoreQueryMode.DEFAULT) == "fox"
        assert first(VectorStoreQueryMode.TEXT_SEARCH) == "whale song"
        assert first(VectorStoreQueryMode.SPARSE) == "whale song"
        assert first(VectorStoreQueryMode.HYBRID, 1.0) == "fox"
        assert first(VectorStoreQueryMode.HYBRID, 0.0) == "whale song"
        assert first(VectorStoreQueryMode.HYBRID) == "whale song"
        hybrid = VectorStoreQuery([1, 0], 1, query_str="song", mode=VectorStoreQueryMode.HYBRID)
        hybrid.hybrid_top_k = 2
        assert len(store.query(hybrid).ids or []) == 2

    def test_what_a_mode_needs_is_asked_for(
        self, target: Database, store: SoardbVectorStore
    ) -> None:
        """Modes that are not there, queries without words or vector, collections without text."""
        wrong: list[dict[str, Any]] = [
            {"mode": VectorStoreQueryMode.SVM, "query_embedding": [1.0] * D},
            {"mode": VectorStoreQueryMode.SEMANTIC_HYBRID, "query_embedding": [1.0] * D},
            {"mode": VectorStoreQueryMode.TEXT_SEARCH},
            {"mode": VectorStoreQueryMode.HYBRID, "query_str": "a"},
            {"mode": VectorStoreQueryMode.DEFAULT},
            {"mode": VectorStoreQueryMode.MMR},
        ]
        for query in wrong:
            with pytest.raises(InvalidArgument, match=query["mode"].value):
                store.query(VectorStoreQuery(**query))
        plain = SoardbVectorStore.from_target(target, "plain", dim=D, full_text=False)
        with pytest.raises(InvalidArgument, match="full_text=True"):
            plain.query(VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.TEXT_SEARCH))


# ---- nodes ----


class TestNodes:
    def test_every_kind_of_node_comes_back_as_it_was(self, target: Database) -> None:
        """Text, metadata, relationships, class; all but the embedding."""
        store = SoardbVectorStore.from_target(target, dim=2, schema=SCHEMA)
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", metadata={"a": 1})}
        held: list[BaseNode] = [
            TextNode(
                id_="text",
                text="some",
                metadata={"colour": "red", "else": {"deep": [1, None]}},
                relationships=source,
                excluded_embed_metadata_keys=["colour"],
                start_char_idx=3,
            ),
            TextNode(id_="empty", text=""),
            IndexNode(id_="index", text="of", index_id="other"),
            ImageNode(id_="image", text="seen", image_url="https://example.org/x.png"),
            Document(id_="document", text="whole"),
        ]
        for one in held:
            one.embedding = [1.0, 2.0]
        store.add(held)
        for one, found in zip(held, store.get_nodes([one.node_id for one in held]), strict=True):
            one.embedding = None
            if isinstance(one, Document):  # LlamaIndex reads all but three classes as TextNode
                assert found.node_id == one.node_id
                assert found.get_content() == "whole"
            else:
                assert found == one

    def test_nodes_are_replaced_got_and_deleted(
        self, store: SoardbVectorStore, nodes: list[TextNode]
    ) -> None:
        """By id, by document, by filters, by ids and filters."""
        store.add(nodes)
        assert len(store.get_nodes()) == 60
        assert [n.node_id for n in store.get_nodes(["n9", "nobody", "n2"])] == ["n9", "n2"]
        assert store.get_nodes([]) == []
        new = MetadataFilters(
            filters=[MetadataFilter(key="pages", operator=O.IS_EMPTY, value=None)],
            condition=FilterCondition.NOT,
        )
        paged = {n.node_id for n in nodes if "pages" in n.metadata}
        assert {n.node_id for n in store.get_nodes(filters=new)} == paged
        one = sorted(paged)[0]
        other = sorted({n.node_id for n in nodes} - paged)[0]
        store.delete_nodes([one, other], filters=new)
        assert [n.node_id for n in store.get_nodes([one, other])] == [other]
        store.delete("doc-1")
        store.delete("no such document")
        assert {n.ref_doc_id for n in store.get_nodes()} == {f"doc-{i}" for i in (0, 2, 3, 4, 5, 6)}
        store.delete_nodes(filters=new)
        assert store.get_nodes(filters=new) == []
        with pytest.raises(InvalidArgument, match="clear"):
            store.delete_nodes()
        assert store.get_nodes()
        store.clear()
        assert store.get_nodes() == []
        assert store.add([]) == []

    def test_a_node_without_its_embedding_is_refused(self, store: SoardbVectorStore) -> None:
        """By LlamaIndex, before anything is stored."""
        with pytest.raises(ValueError, match="embedding"):
            store.add([TextNode(text="x", embedding=[1.0] * D), TextNode(text="y")])
        assert len(store.get_nodes()) == 60

    async def test_every_method_has_its_asynchronous_form(self, target: Database) -> None:
        """The base class runs them on the event loop, which a flush would hold up."""
        store = SoardbVectorStore.from_target(target, dim=2)
        added = await store.async_add(
            [TextNode(id_=str(i), text="t", embedding=[1, i]) for i in range(4)]
        )
        assert added == ["0", "1", "2", "3"]
        found = await store.aquery(VectorStoreQuery([1.0, 0.0], similarity_top_k=1))
        assert found.ids == ["0"]
        await store.adelete("nobody")
        await store.adelete_nodes(["0"])
        assert len(await store.aget_nodes(["0", "1"])) == 1
        await store.aclear()
        assert await store.aget_nodes() == []


class TestTargets:
    def test_an_index_is_built_and_found_again(self, tmp_path: Path) -> None:
        """What users do: documents in, a retriever out, and again in another process."""
        embedding = MockEmbedding(embed_dim=4)
        documents = [
            Document(id_=f"d{i}", text=f"text {i}", metadata={"pages": i}) for i in range(5)
        ]
        few = MetadataFilters(filters=[MetadataFilter(key="pages", operator=O.LT, value=2)])
        with SoardbVectorStore.from_target(
            tmp_path / "db", dim=4, schema={"pages": "int"}
        ) as store:
            index = VectorStoreIndex.from_documents(
                documents,
                storage_context=StorageContext.from_defaults(vector_store=store),
                embed_model=embedding,
            )
            index.delete_ref_doc("d1")
        with SoardbVectorStore.from_target(tmp_path / "db") as store:
            index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
            retriever = index.as_retriever(similarity_top_k=10, filters=few)
            assert isinstance(retriever, VectorIndexRetriever)
            assert [found.node.get_content() for found in retriever.retrieve("text")] == ["text 0"]
            words = index.as_retriever(vector_store_query_mode="text_search", similarity_top_k=1)
            assert words.retrieve("3")[0].node.get_content() == "text 3"

    def test_what_is_lacking_is_named(self, target: Database) -> None:
        """A new collection needs a dimension, and an old one the fields of a store."""
        with pytest.raises(InvalidArgument, match="dim"):
            SoardbVectorStore.from_target(target)
        plain = target.create_collection("plain", dim=2)
        with pytest.raises(InvalidArgument, match="node_id"):
            SoardbVectorStore(plain)
        SoardbVectorStore.from_target(target, dim=2)
        with pytest.raises(InvalidArgument, match="pages"):
            SoardbVectorStore.from_target(target, schema={"pages": "int"})
