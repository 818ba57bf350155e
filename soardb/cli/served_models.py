"""`soardb models` where the models are a server's: the same answers, through a client.

    models.py -> [served_models.py] -> soardb.connect("grpc://...")

Which of the two is asked follows from the form of the place alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soardb.cli import tables
from soardb.errors import InvalidArgument

__all__ = ["is_served", "served", "upload", "written"]


def is_served(place: str) -> bool:
    """Whether a place is a server's address and no directory."""
    return "://" in place


@contextlib.contextmanager
def served(place: str) -> Iterator[Any]:
    """The models of a server: soardb_client.Models. Errors: InvalidArgument, Unavailable."""
    from soardb.connect import connect

    if not place.startswith(("grpc://", "grpcs://")):
        raise InvalidArgument(
            f"expected a database directory, or a server as grpc://HOST:PORT, got {place!r}"
        )
    database: Any = connect(place)
    with database:
        yield database.models


def upload(directory: Path, name: str, place: str, called: str) -> Any:
    """Send a model of a directory to a server, where it is called `called`."""
    with served(place) as models, tables.bars() as progress:
        return models.upload(called, directory / "models" / name, progress)


class written:  # noqa: N801  reads as what it gives: for piece in written(place, ...)
    """Pieces of text of a server's model; then to_json() tells what they took."""

    def __init__(self, place: str, name: str, prompt: str, options: dict[str, Any]) -> None:
        self._asked = (place, name, prompt, options)
        self._told: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        place, name, prompt, options = self._asked
        with served(place) as models, models.generate(name, prompt, **options) as pieces:
            yield from pieces
            self._told = pieces.written.to_json()

    def to_json(self) -> dict[str, Any]:
        """tokens, passes, seconds, tau, passages."""
        return self._told
