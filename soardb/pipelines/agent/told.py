"""What is told of an answer under way: plain values, the same of a directory and of a server.

    asking.py, soardb_client -> [told.py] -> cli, integrations/mcp.py

Nothing here imports the engine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["AgentAnswer", "AgentStep", "FoundPassage", "Source"]


@dataclass(frozen=True, slots=True)
class FoundPassage:
    """A passage that a search found.

    link   the number under which the answer cites its point
    point  the id of the point, as text
    """

    link: int
    point: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class AgentStep:
    """A step that is done; its texts are those of the sample that was gone on from.

    step        "decision", "summary", "answer", "relevance" or "grounding"
    text        as the model wrote it
    comments    lines before its action: why links were left out, what a check looked at
    thoughts    "" where it gave none
    query       of a decision that searched; found: what that found, best first
    said        the summary, the answer, or a better answer that a check has made; None for a
                decision, and for a check that left the answer as it was
    selected    links that a summary selected
    samples     how many were drawn
    perplexity  of the chosen one
    """

    step: str
    text: str
    comments: tuple[str, ...] = ()
    thoughts: str = ""
    query: str | None = None
    found: tuple[FoundPassage, ...] = ()
    said: str | None = None
    selected: tuple[int, ...] = ()
    samples: int = 0
    perplexity: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Source:
    """A point that the answer cites. link: by this number; point: its id, as text."""

    link: int
    point: str
    title: str


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """The answer, and what it took.

    answer           after the self-checks, with citations, [link_id=3]
    draft            before them; after_relevance: after the first, None where there were none
    sources          what the answer cites
    searches         how many there were
    prompt_tokens, completion_tokens  that the model read and wrote, over all steps and samples
    """

    answer: str
    draft: str
    after_relevance: str | None
    sources: tuple[Source, ...]
    searches: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
