"""Notes in LangChain's vector store, with filters, words and diversity: run me.

    soardb.integrations.langchain -> [langchain_notes.py]

    pip install 'soardb[langchain]'
    python examples/langchain_notes.py [DIRECTORY]

The embedding counts words, so that nothing is downloaded: texts that share words are near. Put a
model of yours in its place; the rest stays as it is.
"""

import hashlib
import sys
import tempfile

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from soardb import F
from soardb.integrations.langchain import SoardbVectorStore

NOTES = [
    ("The kettle descales with vinegar, then two rinses.", {"topic": "kitchen", "year": 2024}),
    ("Sourdough wants a warm place and twelve hours.", {"topic": "kitchen", "year": 2025}),
    (
        "Sourdough starter in a warm place eats rye flour.",
        {"topic": "kitchen", "year": 2026},
    ),
    (
        "Oil the chain of the bicycle before the rain.",
        {"topic": "bicycle", "year": 2025},
    ),
    ("The bicycle pump fits both valves.", {"topic": "bicycle", "year": 2026}),
    ("Prune the apple tree in a dry week of February.", {"topic": "garden", "year": 2024}),
]


class WordCounts(Embeddings):
    """256 counters, one of which each word adds to; which one, its hash says."""

    def embed_query(self, text: str) -> list[float]:
        counts = [0.0] * 256
        for word in text.lower().replace(".", " ").replace(",", " ").split():
            counts[hashlib.blake2b(word.encode(), digest_size=1).digest()[0]] += 1
        return counts

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def show(what: str, documents: list[Document]) -> None:
    print(what)
    for document in documents:
        print("   ", document.metadata["year"], document.page_content)


def main(directory: str) -> None:
    schema = {"topic": "keyword", "year": "int"}  # what filters will ask for
    with SoardbVectorStore.from_target(directory, "notes", WordCounts(), schema=schema) as store:
        texts, metadatas = zip(*NOTES, strict=True)
        ids = store.add_texts(texts, list(metadatas))
        print(len(ids), "notes, on the disk")

        question = "sourdough in a warm place"
        show("closest:", store.similarity_search(question, k=2))
        show("of the garden:", store.similarity_search(question, k=2, filter={"topic": "garden"}))
        recent = (F("year") >= 2025) & (F("topic") != "kitchen")
        show("recent, not the kitchen:", store.similarity_search("the bicycle", filter=recent))
        show("the word pump:", store.similarity_search("the bicycle", k=1, text="pump"))
        show("diverse:", store.max_marginal_relevance_search(question, k=3, lambda_mult=0.3))
        for document, relevance in store.similarity_search_with_relevance_scores(question, k=2):
            print(f"    {relevance:.2f} {document.page_content}")
        store.delete(filter="year < 2025")

    with SoardbVectorStore.from_target(directory, "notes", WordCounts()) as store:
        retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"topic": "kitchen"}})
        show("again, as a retriever:", retriever.invoke("rye flour"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
