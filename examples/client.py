"""A collection on a server, from the first point to the last: run me beside a running server.

    soardb serve ./data
    python examples/client.py [grpc://127.0.0.1:7600]

The same program would run on a directory: only the argument of soardb.connect differs.
"""

import asyncio
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import soardb
from soardb import F
from soardb_client import AsyncClient

D = 32


def batches(n: int) -> Iterator[tuple[range, npt.NDArray[np.float32], list[dict[str, object]]]]:
    """Made-up articles, a thousand at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, n, 1000):
        ids = range(first, first + 1000)
        payloads: list[dict[str, object]] = [
            {"title": f"article {i}", "topic": f"topic-{i % 20}"} for i in ids
        ]
        yield ids, rng.standard_normal((1000, D), dtype=np.float32), payloads


def main(target: str) -> None:
    with soardb.connect(target) as db:
        db.create_collection("articles", D, schema={"topic": "keyword"}, exist_ok=True)
        articles = db.get_collection("articles")
        print("stored:", articles.ingest(batches(10_000)))

        query = np.random.default_rng(1).standard_normal(D)
        for hit in articles.search(query, limit=3, filter=F("topic") == "topic-3"):
            print(f"{hit.score:.3f}  {hit.payload}")

        articles.compact(progress=lambda stage, share: print(f"{stage}: {share:.0%}"))
        try:
            articles.search(query[:3])
        except soardb.InvalidArgument as error:
            print("refused, as embedded:", error)

    asyncio.run(many_at_once(target))
    with soardb.connect(target) as db:
        db.drop_collection("articles")


async def many_at_once(target: str) -> None:
    """Hundred queries under way at once, over two connections."""
    queries = np.random.default_rng(2).standard_normal((100, D))
    async with AsyncClient(target, connections=2) as db:
        articles = await db.get_collection("articles")
        found = await asyncio.gather(*(articles.search(query, 5) for query in queries))
    print("answered:", len(found), "best:", max(float(hits.scores[0]) for hits in found))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:7600")
