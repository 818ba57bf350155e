"""Pages of a scroll, and the tokens that lead from one to the next.

    collection.py -> [pages.py]

A token holds the last id of its page and a mark of the collection and the filter, so it stays good
whatever is written, and is refused where it does not belong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from soardb.errors import InvalidArgument
from soardb.filters.expr import Expr
from soardb.filters.json_form import to_json
from soardb.hits import Point
from soardb.schema import PointId, shown

__all__ = ["Page", "make_token", "page_mark", "read_token"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some points in the collection's order, and the token for those after them (None: no more)."""

    points: list[Point]
    next_page_token: str | None

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)


def page_mark(collection: str, where: Expr | None) -> bytes:
    """What a page token must fit: this collection, by its folder, and this filter."""
    text = "" if where is None else json.dumps(to_json(where), sort_keys=True)
    return hashlib.blake2b(f"{collection}\n{text}".encode(), digest_size=8).digest()


_TOKEN = struct.Struct("<8sI")


def make_token(last: PointId, mark: bytes) -> str:
    """The token of a page that ends with this id."""
    body = json.dumps(last).encode()
    return base64.urlsafe_b64encode(_TOKEN.pack(mark, zlib.crc32(body + mark)) + body).decode()


def read_token(token: object, mark: bytes) -> PointId:
    """The last id of the page before. Errors: InvalidArgument."""
    advice = "; pass next_page_token of a page of the same collection and filter, unchanged"
    if not isinstance(token, str):
        raise InvalidArgument(f"expected page_token as a string, got {shown(token)}{advice}")
    try:
        data = base64.urlsafe_b64decode(token.encode())
        found, checksum = _TOKEN.unpack(data[: _TOKEN.size])
        body = data[_TOKEN.size :]
        last = json.loads(body) if checksum == zlib.crc32(body + found) else None
    except (ValueError, struct.error):
        last = None
    if last is None or isinstance(last, bool) or not isinstance(last, int | str):
        raise InvalidArgument(f"expected a page_token of ours, got {shown(token)}{advice}")
    if found != mark:
        raise InvalidArgument(f"expected a page_token of this collection and filter{advice}")
    return last
