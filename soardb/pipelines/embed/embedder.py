"""An embedder: texts become unit vectors, and collections are filled with them.

    models/encoder.py -> [embedder.py] -> cli, benchmarks

A vector is the mean of the encoder's states of a text, levelled where the encoder does so, at
length one, so `cosine` and `dot` rank alike. Texts of like length are read together, so that few
pads are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.models.encoder import Encoder, padded
from soardb.models.tokens import Tokens
from soardb.pipelines.stored import pages, texts_of

__all__ = ["Embedder", "embed_points", "embed_texts", "expect_text"]

Progress = Callable[[str, float], None]

_AT_ONCE = 8192  # tokens that are read at once
_PAGE = 1000  # points of one write


class Embedder:
    """An encoder, its tokenizer, and how many tokens of a text it reads at most."""

    def __init__(self, encoder: Encoder, tokens: Tokens, longest: int | None = None) -> None:
        most = encoder.config.context
        self.longest = most if longest is None else as_int(longest, "longest", 1, most)
        self._encoder = encoder
        self._tokens = tokens

    @property
    def d(self) -> int:
        """Dimension of the vectors."""
        return self._encoder.config.width

    def vectors(self, texts: Sequence[str], progress: Progress = lambda stage, share: None) -> F32:
        """(n, d) float32 of length one, in the order of the texts.

        Errors: InvalidArgument for a text of no token.
        """
        rows = [self._tokens.encode(text)[: self.longest] for text in texts]
        if empty := [number for number, row in enumerate(rows) if not row]:
            raise InvalidArgument(f"expected texts with tokens, number {empty[0]} is empty")
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        found = np.empty((len(rows), self.d), np.float32)
        done = 0
        while done < len(rows):
            # Sized by its first text, which is its longest.
            part = order[done : done + max(1, _AT_ONCE // len(rows[order[done]]))]
            tokens = padded([rows[row] for row in part], self._encoder.config.pad)
            with torch.inference_mode():
                found[part] = self._encoder.vectors(tokens).numpy()
            done += len(part)
            progress("embedding", done / len(rows))
        return found


def embed_points(
    embedder: Embedder,
    source: Any,
    field: str,
    target: Any = None,
    where: Any = None,
    progress: Progress = lambda stage, share: None,
) -> int:
    """Give points the vectors of their texts; how many were written.

    source  a collection whose points have texts in `field`; those without are left alone
    target  a collection that the points are written to, with their payloads; the source unless told
    where   a filter: these points alone

    Written a page at a time, so an interruption leaves some as they were, and the same call again
    mends it. Points are written whole: what others write to them meanwhile is undone. Errors:
    InvalidArgument for a target of another dimension, or where no point has a text.
    """
    into = source if target is None else target
    _expect_fit(embedder, into)
    expect_text(source, field, where)
    total, seen, written = max(1, source.count(where)), 0, 0
    for points in pages(source, where):
        there = [point for point in points if any(texts_of([point.payload], field))]
        texts = texts_of((point.payload for point in there), field)
        for first in range(0, len(there), _PAGE):
            part = there[first : first + _PAGE]
            vectors = embedder.vectors(texts[first : first + _PAGE])
            into.upsert([p.id for p in part], vectors, [dict(p.payload or {}) for p in part])
        seen, written = seen + len(points), written + len(there)
        progress("embedding", min(1.0, seen / total))
    return written


def expect_text(source: Any, field: str, where: Any = None) -> None:
    """InvalidArgument where no point of a collection has a text in the field."""
    for points in pages(source, where):
        if any(texts_of((point.payload for point in points), field)):
            return
    raise InvalidArgument(f"expected points with a text in {field!r}, got none")


def embed_texts(
    embedder: Embedder,
    texts: Sequence[str],
    target: Any,
    field: str,
    progress: Progress = lambda stage, share: None,
) -> int:
    """Write texts as points 0 to n - 1 of a collection, each with its vector and itself in `field`.

    After an interruption the same call again mends it. Errors: InvalidArgument for a target of
    another dimension, or one with such an id whose point has another text.
    """
    _expect_fit(embedder, target)
    parts = [list(texts[first : first + _PAGE]) for first in range(0, len(texts), _PAGE)]
    for first, part in zip(range(0, len(texts), _PAGE), parts, strict=True):
        for number, point in enumerate(target.get(list(range(first, first + len(part))))):
            if point is not None and (point.payload or {}).get(field) != part[number]:
                raise InvalidArgument(
                    f"expected a collection without other points, {target.name} has one with id "
                    f"{first + number}"
                )
    for first, part in zip(range(0, len(texts), _PAGE), parts, strict=True):
        ids = list(range(first, first + len(part)))
        target.upsert(ids, embedder.vectors(part), [{field: text} for text in part])
        progress("embedding", (first + len(part)) / len(texts))
    return len(texts)


def _expect_fit(embedder: Embedder, target: Any) -> None:
    if target.d != embedder.d:
        raise InvalidArgument(
            f"expected a collection of dimension {embedder.d}, as the model has, {target.name} "
            f"has {target.d}; write to another one"
        )
