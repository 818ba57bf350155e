"""Maximal marginal relevance: results that are near the query and not near each other.

    langchain.py, llama_index.py -> [mmr.py] -> NumPy

Carbonell and Goldstein, SIGIR 1998. Nearness is the cosine, whatever the metric of the collection,
as both projects have it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32

__all__ = ["most_diverse"]


def most_diverse(query: npt.ArrayLike, vectors: F32, k: int, relevance: float) -> list[int]:
    """Which k of n candidates to take, in this order.

    query      (d,) real numbers
    vectors    (n, d) candidates
    relevance  1: the nearest ones; 0: each as far as can be from those before it

    The next is the one with the greatest relevance * cos(query) - (1 - relevance) * greatest
    cos(one that was taken). Ties go to the earlier candidate. Costs k products (n, d) x (d,).
    """
    if not 0 <= relevance <= 1:
        raise InvalidArgument(f"expected the weight of relevance within 0..1, got {relevance}")
    if not len(vectors):
        return []
    unit = _unit(vectors)
    near = unit @ _unit(np.asarray(query, np.float32)[None, :])[0]  # (n,)
    taken = [int(near.argmax())]
    overlap = unit @ unit[taken[0]]  # (n,) with the nearest of those taken
    while len(taken) < min(k, len(unit)):
        gain = relevance * near - (1 - relevance) * overlap
        gain[taken] = -np.inf
        taken.append(int(gain.argmax()))
        overlap = np.maximum(overlap, unit @ unit[taken[-1]])
    return taken


def _unit(vectors: F32) -> F32:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: F32 = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
