"""What pretraining begins with: texts of a file or of points, and a tokenizer that is learned once.

    [texts.py] -> pretraining.py, spactoring.py, embedding.py

With a filter the points may be those that `soardb select --write-field` chose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soardb.cli import models
from soardb.errors import InvalidArgument
from soardb.storage.catalog import as_name

if TYPE_CHECKING:
    from soardb.kernels.layout import I64
    from soardb.models.registry import Registry
    from soardb.models.tokens import Tokens

__all__ = [
    "CHECKPOINT",
    "Collection",
    "Field",
    "Texts",
    "Where",
    "clear",
    "expect_new",
    "row",
    "split",
    "texts_from",
    "tokens_of",
]

CHECKPOINT = "checkpoint.safetensors"
"""In the folder of a training, with the tokenizer that belongs to it."""


Texts = Annotated[Path | None, typer.Option("--texts", help="A file of texts, one a line.")]
Collection = Annotated[
    str | None, typer.Option("--collection", help="In its place: points that have texts.")
]
Field = Annotated[
    str, typer.Option("--text-field", "--field", help="Where points have their text.")
]
Where = Annotated[
    str | None, typer.Option("--filter", help='Of these points alone, such as "chosen = true".')
]


def texts_from(
    directory: Path, texts: Path | None, collection: str | None, field: str, where: str | None
) -> tuple[list[str], str]:
    """The texts, and a word for where they are from. Errors: InvalidArgument, NotFound."""
    if (texts is None) == (collection is None):
        raise InvalidArgument("expected one of --texts and --collection")
    if texts is not None:
        if where is not None:
            raise InvalidArgument("expected --filter with --collection, got --texts")
        return models.lines_of(texts), texts.name
    from soardb.connect import connect
    from soardb.pipelines.stored import pages, texts_of

    assert collection is not None
    with connect(directory, read_only=True) as database:
        held = database.get_collection(collection)
        found = [
            text
            for points in pages(held, where)
            for text in texts_of((point.payload for point in points), field)
        ]
    if not found:
        raise InvalidArgument(f"expected texts in {field!r} of points of {collection}, got none")
    return found, f"{collection}.{field}" + (f" where {where}" if where else "")


def expect_new(held: Registry, name: str) -> None:
    """AlreadyExists, or InvalidArgument for what is no name, before anything is trained."""
    held.expect_free(as_name(name, "model"))


def tokens_of(place: Path, lines: list[str], vocabulary: int) -> Tokens:
    """Learned from the lines, or those of a training so far that asked for as many."""
    from soardb.models.tokens import Tokens

    file = place / f"tokenizer-{vocabulary}.json"
    if (place / CHECKPOINT).exists() and file.exists():
        return Tokens.of_json(file.read_text("utf-8"))
    tokens = Tokens.trained(lines, vocabulary)
    place.mkdir(parents=True, exist_ok=True)
    file.write_text(tokens.to_json(), "utf-8")
    return tokens


def split(lines: list[str], share: float) -> tuple[list[str], list[str]]:
    """Texts to learn from, and a share of them to measure with, spread evenly.

    Errors: InvalidArgument where there are too few for both.
    """
    taken = [int((n + 1) * share) > int(n * share) for n in range(len(lines))]
    learned = [line for line, is_out in zip(lines, taken, strict=True) if not is_out]
    measured = [line for line, is_out in zip(lines, taken, strict=True) if is_out]
    if not learned or (share and not measured):
        raise InvalidArgument(
            f"expected texts to learn from, and {share:.0%} of them to measure with, got "
            f"{len(lines)} in all"
        )
    return learned, measured


def row(lines: list[str], tokens: Tokens, window: int, what: str) -> I64:
    """Their (n,) tokens. Errors: InvalidArgument for fewer than a window, naming `what`."""
    from soardb.models.training import row_of

    found = row_of(lines, tokens)
    if len(found) < window:
        raise InvalidArgument(
            f"expected texts {what} of at least a window of {window} tokens, got {len(found)}; "
            "give more texts, or a shorter --window"
        )
    return found


def clear(place: Path) -> None:
    """Delete the checkpoint and tokenizers of a training whose model is kept."""
    (place / CHECKPOINT).unlink()
    for file in place.glob("tokenizer-*.json"):
        file.unlink()
