"""A collection from the first point to the last: run me.

    soardb.connect -> [collections.py]

    python examples/collections.py [DIRECTORY]

Ten thousand made-up articles are stored, searched with and without filters, changed and deleted;
then the directory is opened again, as after a crash, and everything is there.
"""

import sys
import tempfile

import numpy as np

import soardb
from soardb import F


def main(directory: str) -> None:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((50, 64)).astype(np.float32)
    topic = rng.integers(0, 50, 10_000)
    vectors = topics[topic] + 0.4 * rng.standard_normal((10_000, 64), dtype=np.float32)
    payloads = [
        {"title": f"article {i} on topic {t}", "topic": f"topic-{t}", "price": float(i % 100)}
        for i, t in enumerate(topic.tolist())
    ]

    with soardb.connect(directory) as db:
        articles = db.create_collection(
            "articles",
            dim=64,
            schema={"title": "text", "topic": "keyword", "price": "float"},
        )
        articles.upsert(np.arange(10_000), vectors, payloads)
        print(articles.count(), "points,", articles.count(F("price") < 10), "of them under 10")

        for hit in articles.search(vectors[7], limit=3):
            print("near 7:", hit.id, round(hit.score, 3), hit.payload)
        cheap = (F("price") < 10) & F("topic").isin(["topic-1", "topic-2"])
        found = articles.search(topics[1], limit=3, filter=cheap, explain=True)
        print("cheap and near topic 1:", found.ids, found.plan)
        print("by SQL:", articles.search(topics[1], limit=3, filter="price < 10").ids)
        print("by words:", articles.search(text="article 4711", limit=1).ids)
        print("by both:", articles.search(vectors[7], text="topic 3", limit=3).ids)

        articles.update_payload({"price": 0.0}, ids=[7])
        articles.delete(filter=F("price") > 90)
        print(articles.count(), "points left")

    with soardb.connect(directory) as db:  # nothing to load, nothing to repair
        articles = db.get_collection("articles")
        print("again:", articles.count(), "points, 7 is", articles.get([7])[0])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
