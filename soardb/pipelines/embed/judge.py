"""Rankings judged by what is right for each question: nDCG and recall at k.

    pairs.py, embedder.py -> [judge.py] -> cli, benchmarks

A text is right or not. nDCG@k is the sum of 1 / log2(1 + rank) over the right ones among the first
k, over what the best order would have; recall@k is the share of the right ones that are there, of
at most k (Jarvelin and Kekalainen, 2002).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.pipelines.embed.embedder import Embedder
from soardb.pipelines.embed.pairs import Pair

__all__ = ["judged", "ndcg", "recall"]


def judged(embedder: Embedder, pairs: Sequence[Pair], k: int = 10) -> dict[str, float]:
    """Means of ndcg_k and recall_k over the questions of some pairs, among the texts of all.

    Each question counts once, and all of its texts are right. Exact search; (questions x texts)
    products at once.
    """
    if not pairs:
        raise InvalidArgument("expected at least one pair to judge by, got none")
    texts = list(dict.fromkeys(pair.text for pair in pairs))
    place = {text: number for number, text in enumerate(texts)}
    right: dict[str, set[int]] = {}
    for pair in pairs:
        right.setdefault(pair.query, set()).add(place[pair.text])
    scores = embedder.vectors(list(right)) @ embedder.vectors(texts).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    rows = list(zip(best, right.values(), strict=True))
    return {
        f"ndcg_{k}": float(np.mean([ndcg(found, wanted, k) for found, wanted in rows])),
        f"recall_{k}": float(np.mean([recall(found, wanted, k) for found, wanted in rows])),
    }


def ndcg(found: Sequence[Hashable], right: Collection[Hashable], k: int = 10) -> float:
    """Of one question. found: ids, best first, each once; right: the ids that are."""
    _expect(found, right, k)
    gains = [1 / np.log2(2 + rank) for rank, one in enumerate(found[:k]) if one in right]
    best = sum(1 / np.log2(2 + rank) for rank in range(min(k, len(right))))
    return float(sum(gains) / best)


def recall(found: Sequence[Hashable], right: Collection[Hashable], k: int = 10) -> float:
    """Of one question: right ones among the first k, over min(k, how many there are)."""
    _expect(found, right, k)
    return sum(one in right for one in found[:k]) / min(k, len(right))


def _expect(found: Sequence[Hashable], right: Collection[Hashable], k: int) -> None:
    as_int(k, "k", 1, 1_000_000)
    if not right:
        raise InvalidArgument("expected at least one right answer a question, got none")
    if len(set(found[:k])) != len(found[:k]):
        raise InvalidArgument("expected each id once in a ranking, got one twice")
