"""The agent's only tool: search over a collection, whose answers are kept.

    a collection -> [tools.py] -> machine.py

Kept answers make trajectories reproducible: the same query finds the same snippets, whatever was
written to the collection since, until the cache is told to forget.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from soardb.arrays import as_int
from soardb.errors import CorruptStorage, InvalidArgument
from soardb.kernels.layout import F32
from soardb.schema import values_at

__all__ = ["CachedTool", "CollectionTool", "Snippet", "Tool"]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage that was found. document: the id of its point, as text."""

    document: str
    title: str
    text: str


class Tool(Protocol):
    """key: what else an answer depends on, for a cache."""

    @property
    def key(self) -> str: ...

    def search(self, query: str) -> list[Snippet]:
        """The best few passages for a query, best first."""


class CollectionTool:
    """Search of one collection.

    text    the payload field of the passages; title: that of their titles, none unless told
    embed   texts -> (n, d) vectors: searches by vector and words together, fused. None: by words
            alone, of text and title, as far as these are declared as text; text has to be
    count   passages, at most; longest: characters of one
    where   a filter: these points alone
    by      the name of what embeds, which a cache tells answers apart by
    """

    def __init__(
        self,
        collection: Any,
        text: str,
        *,
        title: str | None = None,
        embed: Callable[[Sequence[str]], F32] | None = None,
        count: int = 3,
        longest: int = 500,
        where: Any = None,
        by: str = "",
    ) -> None:
        self._collection = collection
        self._by = by
        self._text, self._title = text, title
        self._embed = embed
        self._count = as_int(count, "count", 1, 100)
        self._longest = as_int(longest, "longest", 1, 100_000)
        self._where = where
        named = [text] if title is None else [text, title]
        self._words = [field for field in named if collection.schema.get(field) == "text"]
        if embed is None and text not in self._words:
            raise InvalidArgument(
                f"expected the field {text!r} declared as text, or embed to search by vector; the "
                f"collection declares {collection.schema}"
            )

    @property
    def key(self) -> str:
        """Collection, fields, how it is searched."""
        told = (
            self._collection.name, str(getattr(self._collection, "id", "")), self._text,
            self._title, self._embed is not None, self._by, self._count, self._longest,
            str(self._where),
        )  # fmt: skip
        return json.dumps(told)

    def search(self, query: str) -> list[Snippet]:
        """The best few passages; none for a query without a word in any of them."""
        words = {"text": query, "text_fields": self._words} if self._words else {}
        vector = None if self._embed is None else self._embed([query])[0]
        hits = self._collection.search(
            vector, limit=self._count, filter=self._where, with_payload=True, **words
        )
        payloads = [payload or {} for payload in hits.payloads]
        texts = values_at(payloads, self._text)
        titles = values_at(payloads, self._title) if self._title else [None] * len(texts)
        return [
            Snippet(str(point), str(title if title is not None else point), self._cut(text))
            for point, title, text in zip(hits.ids, titles, texts, strict=True)
            if isinstance(text, str) and text.strip()
        ]

    def _cut(self, text: str) -> str:
        most = self._longest
        return text if len(text) <= most else (text[: max(0, most - 3)] + "...")[:most]


class CachedTool:
    """A tool whose answers are kept in a file, or in memory; safe for many threads."""

    def __init__(self, tool: Tool, path: str | Path | None = None) -> None:
        self._tool = tool
        self._lock = threading.Lock()
        try:
            self._held = sqlite3.connect(
                ":memory:" if path is None else Path(path), check_same_thread=False
            )
            # A cache may lose its last answers with the power, and no more than these.
            self._held.execute("PRAGMA journal_mode = WAL")
            self._held.execute("PRAGMA synchronous = NORMAL")
            with self._held:
                self._held.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key TEXT, query TEXT, found TEXT, "
                    "PRIMARY KEY (key, query)) WITHOUT ROWID"
                )
        except sqlite3.DatabaseError as error:
            raise CorruptStorage(f"{path}: not a cache of answers: {error}") from error

    @property
    def key(self) -> str:
        """That of the tool."""
        return self._tool.key

    def search(self, query: str) -> list[Snippet]:
        """As it was answered before, else as the tool answers now."""
        with self._lock:
            row = self._held.execute(
                "SELECT found FROM answers WHERE key = ? AND query = ?", (self.key, query)
            ).fetchone()
        if row is not None:
            return [Snippet(**one) for one in json.loads(row[0])]
        found = self._tool.search(query)
        told = json.dumps([asdict(one) for one in found])
        with self._lock, self._held:
            self._held.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (self.key, query, told)
            )
        return found

    def forget(self) -> None:
        """Drop all that is kept."""
        with self._lock, self._held:
            self._held.execute("DELETE FROM answers")

    def close(self) -> None:
        """Let go of the file."""
        self._held.close()
