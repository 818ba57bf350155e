"""Where commands take texts from: a file of them, one a line, or the points of a collection.

    [texts.py] -> spactoring.py, embedding.py

With a filter the points may be those that `soardb select --write-field` chose.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soardb.cli import models
from soardb.errors import AlreadyExists, InvalidArgument
from soardb.storage.catalog import as_name

if TYPE_CHECKING:
    from soardb.models.registry import Registry

__all__ = ["Collection", "Field", "Texts", "Where", "expect_new", "texts_from"]

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
    if as_name(name, "model") in held.names():
        raise AlreadyExists(f"expected a new name, there is a model named {name!r}")
