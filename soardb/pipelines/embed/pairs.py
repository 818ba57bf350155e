"""Pairs of a question and the text that answers it: what an embedder learns from.

    files, collections -> [pairs.py] -> contrast.py

Of a collection they are two payload fields of a point; where one holds a list, each member of it is
a pair. Nothing is made up: a point that lacks one of both gives none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.stored import pages
from soardb.schema import values_at

__all__ = ["Pair", "read_pairs", "stored_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """query: what is asked; text: what is to be found for it."""

    query: str
    text: str


def read_pairs(file: Path) -> list[Pair]:
    """A pair a line, with a tab between question and text. Errors: NotFound, InvalidArgument."""
    if not file.is_file():
        raise NotFound(f"expected a file of pairs, there is none at {file}")
    found = []
    try:
        lines = file.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"expected {file.name} in UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        query, tab, text = line.partition("\t")
        if not tab or not query.strip() or not text.strip():
            raise InvalidArgument(
                f"expected a question, a tab and a text in line {number} of {file.name}, got "
                f"{line[:80]!r}"
            )
        found.append(Pair(query.strip(), text.strip()))
    if not found:
        raise InvalidArgument(f"expected pairs, one a line, in {file.name}, got none")
    return found


def stored_pairs(
    collection: Any, query_field: str, text_field: str, where: Any = None
) -> list[Pair]:
    """Of the points that match, or of all. Errors: InvalidArgument where no point has both."""
    found = [
        Pair(query, text)
        for points in pages(collection, where)
        for point in points
        for text in _said(point.payload, text_field)
        for query in _said(point.payload, query_field)
    ]
    if not found:
        raise InvalidArgument(
            f"expected points with texts in {query_field!r} and {text_field!r}, got none"
        )
    return found


def _said(payload: Mapping[str, Any] | None, field: str) -> Iterator[str]:
    """The text in a field, or the texts of the list there."""
    (value,) = values_at([payload or {}], field)
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            yield one
