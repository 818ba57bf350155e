"""Full text: words of a user as an FTS5 query, and the fusion of two rankings.

    search.py, collection.py -> [fulltext.py]

Words are what SQLite's unicode61 tokenizer takes for words, stemmed by Porter; BM25 ranks. A word
of a user reaches FTS5 only between quotes, so none is ever an operator.

Fusion: reciprocal rank, sum of w / (rank_constant + rank) (Cormack, Clarke and Buettcher, SIGIR
2009), or the weighted sum of scores brought to 0..1 within each ranking.

Nothing here runs a query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.options import Fusion

__all__ = ["MAX_WORDS", "fuse", "text_query"]

MAX_WORDS = 64
_RANK_CONSTANT = 60
_WORD = re.compile(r"[\w\u0300-\u036f]+", re.UNICODE)  # accents may stand behind their letters


def text_query(words: str, fields: Sequence[int], mode: Literal["all", "any"]) -> str | None:
    """An FTS5 query for the words in some text fields, by position; None where there is no word.

    Errors: InvalidArgument for more than MAX_WORDS words.
    """
    found = _WORD.findall(words)
    if len(found) > MAX_WORDS:
        raise InvalidArgument(f"expected at most {MAX_WORDS} words of text, got {len(found)}")
    if not found:
        return None
    terms = (" AND " if mode == "all" else " OR ").join(f'"{word}"' for word in found)
    columns = " ".join(f"t{i}" for i in fields)
    return f"{{{columns}}} : ({terms})"


def fuse(
    rankings: Sequence[tuple[I64, F32]], weights: Sequence[float], how: Fusion, limit: int
) -> tuple[I64, F32]:
    """One ranking of several: (positions (m,), scores (m,)), m at most limit, best first.

    rankings: positions, best first, with their scores. Equal fused scores: the lower position.
    """
    total: dict[int, float] = {}
    for (positions, scores), weight in zip(rankings, weights, strict=True):
        if how == "rrf":
            shares = weight / (_RANK_CONSTANT + 1 + np.arange(len(positions)))
        else:
            low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
            span = high - low
            shares = weight * ((scores - low) / span if span > 0 else np.ones(len(scores)))
        for position, share in zip(positions.tolist(), shares.tolist(), strict=True):
            total[position] = total.get(position, 0.0) + share
    best = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return (
        np.array([position for position, _ in best], np.int64),
        np.array([score for _, score in best], np.float32),
    )
