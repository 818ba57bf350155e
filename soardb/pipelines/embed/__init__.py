"""Encoders for search: fine-tuned on pairs, they give points their vectors.

pairs.py     questions and the texts that answer them, of a file or a collection
contrast.py  fine-tuning: a question and its text come near, others go away
embedder.py  texts become vectors, and fill a collection
judge.py     nDCG and recall at k
"""

from soardb.pipelines.embed.contrast import ContrastConfig, contrast, contrasted
from soardb.pipelines.embed.embedder import Embedder, embed_points, embed_texts, expect_text
from soardb.pipelines.embed.judge import judged, ndcg, recall
from soardb.pipelines.embed.pairs import Pair, read_pairs, stored_pairs

__all__ = [
    "ContrastConfig",
    "Embedder",
    "Pair",
    "contrast",
    "contrasted",
    "embed_points",
    "embed_texts",
    "expect_text",
    "judged",
    "ndcg",
    "read_pairs",
    "recall",
    "stored_pairs",
]
