"""Byte-level BPE: any text becomes tokens, and comes back as it was.

    the tokenizers library -> [tokens.py] -> registry.py, pipelines

Every byte is a token to begin with, so nothing is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable

__all__ = ["END", "Spaces", "Tokens"]

END = "<end>"
"""The token that ends a text, 0 in those that are trained here."""

Spaces = Literal["before", "after"]

_WORDS = r"[\p{L}\p{M}_]+ ?|\p{N}|[^\p{L}\p{M}\p{N}_]+"


class Tokens:
    """A tokenizer of the tokenizers library, and the token that ends a text."""

    def __init__(self, tokenizer: Any, end: int | None) -> None:
        self.tokenizer = tokenizer
        self.end = end

    @classmethod
    def trained(
        cls, texts: Iterable[str], vocabulary: int = 1024, spaces: Spaces = "before"
    ) -> Tokens:
        """Merges of the commonest pairs, up to `vocabulary` tokens, at least 257.

        spaces  "before": a word and the space before it are merged, as usual; "after": and the one
                behind it, so that a name has the same tokens behind a space and behind a quote,
                but for its last word where no space follows, and a model can copy it from one to
                the other. Digits stand alone then
        """
        as_int(vocabulary, "vocabulary", 257, 1_000_000)
        if spaces not in get_args(Spaces):
            raise InvalidArgument(
                f"expected spaces {' or '.join(map(repr, get_args(Spaces)))}, got {spaces!r}"
            )
        library = _need()
        parts = library.pre_tokenizers
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = parts.ByteLevel(add_prefix_space=False)
        if spaces == "after":
            words = parts.Split(library.Regex(_WORDS), "isolated")
            as_bytes = parts.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = parts.Sequence([words, as_bytes])
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END],
            initial_alphabet=parts.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer, 0)

    @classmethod
    def of_json(cls, text: str, end: int | None = 0) -> Tokens:
        """From to_json(), or a tokenizer.json of others. Errors: InvalidArgument."""
        try:
            return cls(_need().Tokenizer.from_str(text), end)
        except Unavailable:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise InvalidArgument(f"expected a tokenizer as JSON: {error}") from error

    def to_json(self) -> str:
        """As the tokenizers library writes it."""
        text: str = self.tokenizer.to_str()
        return text

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without an end."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, up to the first end; bytes that are no UTF-8 become replacements."""
        plain = list(tokens)
        if self.end in plain:
            plain = plain[: plain.index(self.end)]
        text: str = self.tokenizer.decode(plain, skip_special_tokens=False)
        return text


def _need() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        raise Unavailable("tokenizers is not installed; pip install 'soardb[models]'") from error
    return tokenizers
