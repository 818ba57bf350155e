"""Texts become tokens and come back; where spaces are decides what two places have in common.

tokens.py -> [test_tokens.py]
"""

from __future__ import annotations

from typing import get_args

import pytest

from soardb.errors import InvalidArgument
from soardb.models.tokens import Spaces, Tokens

TEXTS = [
    "What is the kind of sea lavender?",
    "Search(query='sea lavender', thoughts='I need to know what sea lavender is a kind of.')",
    "sea lavender is a kind of statice. sea holly is a kind of eryngo.",
    "link_id=17, 3 of 42",
] * 3


@pytest.mark.parametrize("spaces", get_args(Spaces))
def test_any_text_comes_back(spaces: Spaces) -> None:
    """Also one of bytes that it never saw, and through its file."""
    tokens = Tokens.trained(TEXTS, 320, spaces)
    again = Tokens.of_json(tokens.to_json())
    for text in [*TEXTS, "  two  spaces\n\tand Größe, 東京 🙂, e\u0301tude नमस्ते", ""]:
        assert tokens.decode(tokens.encode(text)) == text
        assert again.encode(text) == tokens.encode(text)


def test_a_name_begins_alike_wherever_it_stands() -> None:
    """With spaces after words; with spaces before them a quote makes it another one."""

    def begins(spaces: Spaces) -> list[str]:
        tokens = Tokens.trained(TEXTS, 400, spaces)
        found = []
        for before in ("the kind of ", "query='"):
            some, all_of_it = tokens.encode(before), tokens.encode(f"{before}sea lavender")
            assert spaces == "before" or all_of_it[: len(some)] == some
            found.append(tokens.decode(all_of_it[len(some) : len(some) + 1]))
        return found

    one, other = begins("after")
    assert one == other
    assert one.startswith("s")
    one, other = begins("before")
    assert one != other


def test_a_quoted_name_is_the_same_everywhere() -> None:
    """Of one word too."""
    tokens = Tokens.trained(TEXTS, 400, "after")

    def between(before: str, name: str, after: str) -> list[int]:
        some = tokens.encode(before + name + after)
        return some[len(tokens.encode(before)) : len(some) - len(tokens.encode(after))]

    for name in ("lavender", "sea holly", "e\u0301tude"):
        assert between('what is "', name, '"') == between("query='", name, "'")
    # A mark belongs to its letter: nothing begins with one.
    parts = [tokens.tokenizer.pre_tokenizer.pre_tokenize_str("e\u0301tude")]
    assert [len(part) for part in parts] == [1]


def test_other_spaces_are_refused() -> None:
    """With what there is."""
    with pytest.raises(InvalidArgument, match="'before' or 'after'"):
        Tokens.trained(TEXTS, 300, "beside")  # type: ignore[arg-type]
