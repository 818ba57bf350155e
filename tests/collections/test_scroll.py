"""Scrolling: pages in a fixed order, with tokens that stay good while points are written.

    soardb/collection.py, soardb/table.py -> [test_scroll.py]

The claim that matters: each point that is there all along comes exactly once, whatever is written,
deleted or rebuilt between two pages.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from soardb.collection import MAX_PAGE, Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.filters import F
from tests.collections.conftest import D, points

KINDS: dict[str, Callable[[int], Any]] = {
    "integers": lambda i: (i * 7919) % 1000 - 500,
    "strings": lambda i: f"id-{i}",
}


@pytest.fixture(params=KINDS)
def name_of(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    """The id of the i-th point: integers in no order, or strings."""
    return KINDS[request.param]


@pytest.fixture
def collection(database: Database, name_of: Callable[[int], Any]) -> Collection:
    """Points 0..299, two thirds of them in a generation."""
    made = database.create_collection("pages", D, "l2", schema={"n": "int"})
    names = [name_of(i) for i in range(300)]
    payloads = [{"n": i} for i in range(300)]
    made.upsert(names[:200], points(200), payloads[:200])
    made.compact()
    made.upsert(names[200:], points(100), payloads[200:])
    return made


def walk(
    collection: Collection,
    page_size: int,
    between: Callable[[int], None] = lambda page: None,
    **options: Any,
) -> list[Any]:
    """Ids of all pages; `between` is called after each."""
    found: list[Any] = []
    token: str | None = None
    for number in range(10_000):
        page = collection.scroll(page_size=page_size, page_token=token, **options)
        assert len(page) <= page_size
        found += [point.id for point in page]
        token = page.next_page_token
        if token is None:
            return found
        assert len(page) == page_size, "a page that is not the last must be full"
        between(number)
    raise AssertionError("scrolling does not end")


class TestPages:
    @pytest.mark.parametrize("page_size", [1, 7, 100, 299, 300, 301, MAX_PAGE])
    def test_every_point_comes_once(
        self, collection: Collection, name_of: Callable[[int], Any], page_size: int
    ) -> None:
        """Whatever the size of the pages, and in the same order."""
        found = walk(collection, page_size)
        assert sorted(found) == sorted(name_of(i) for i in range(300))
        assert found == walk(collection, 50)

    def test_integers_come_in_their_order(self, collection: Collection) -> None:
        """A promise: a range of ids lies together. Strings have a fixed order and no meaning."""
        found = walk(collection, 30)
        if isinstance(found[0], int):
            assert found == sorted(found)

    @pytest.mark.parametrize("page_size", [1, 20, 1000])
    def test_a_filter_gives_the_matches(
        self, collection: Collection, name_of: Callable[[int], Any], page_size: int
    ) -> None:
        """All of them and no others, in full pages."""
        found = walk(collection, page_size, filter=F("n") < 30)
        assert sorted(found) == sorted(name_of(i) for i in range(30))
        assert walk(collection, page_size, filter=F("n") > 1000) == []

    def test_the_last_page_has_no_token(self, collection: Collection) -> None:
        """Even when it is exactly full: nobody should have to ask for an empty page."""
        assert collection.scroll(page_size=300).next_page_token is None
        assert collection.scroll(page_size=299).next_page_token is not None

    def test_an_empty_collection_is_one_empty_page(self, database: Database) -> None:
        """And no token."""
        page = database.create_collection("empty", D).scroll()
        assert (len(page), page.next_page_token) == (0, None)

    def test_what_is_not_asked_for_is_not_there(self, collection: Collection) -> None:
        """Payload by default, vectors on demand."""
        (point,) = collection.scroll(page_size=1)
        assert point.payload is not None
        assert point.vector is None
        (point,) = collection.scroll(page_size=1, with_payload=False, with_vectors=True)
        assert point.payload is None
        assert point.vector is not None
        assert point.vector.shape == (D,)

    @pytest.mark.parametrize("bad", [0, -1, MAX_PAGE + 1, 1.0, True])
    def test_page_sizes_have_bounds(self, collection: Collection, bad: Any) -> None:
        """One page is one answer in memory."""
        with pytest.raises(InvalidArgument, match="expected page_size"):
            collection.scroll(page_size=bad)


class TestWhileWriting:
    @pytest.mark.parametrize("page_size", [7, 40])
    def test_each_point_that_stays_comes_once(
        self, collection: Collection, name_of: Callable[[int], Any], page_size: int
    ) -> None:
        """Between the pages: points come, go, are overwritten, and the generation changes."""
        rng = np.random.default_rng(5)
        stays = [name_of(i) for i in range(0, 300, 2)]
        goes = [name_of(i) for i in range(1, 300, 2)]

        def disturb(page: int) -> None:
            changed = [stays[i] for i in rng.choice(len(stays), 20, replace=False)]
            collection.upsert(changed, points(20, seed=page), [{"n": -1}] * 20, ack="logged")
            if goes:
                collection.delete([goes.pop() for _ in range(min(5, len(goes)))])
            collection.upsert([name_of(1000 + page)], points(1))
            if page % 5 == 2:
                collection.compact()

        found = walk(collection, page_size, disturb)
        assert len(set(found)) == len(found)
        assert set(stays) <= set(found)

    def test_a_filter_judges_each_point_when_its_page_is_made(
        self, collection: Collection, name_of: Callable[[int], Any]
    ) -> None:
        """Points that match all along come once; one that stops matching does not come later."""
        stays = {name_of(i) for i in range(100)}
        leaving = [name_of(i) for i in range(100, 200)]
        left: dict[Any, int] = {}

        def disturb(page: int) -> None:
            for _ in range(min(10, len(leaving))):
                left[leaving[-1]] = page
                collection.update_payload({"n": 999}, ids=[leaving.pop()], ack="logged")

        found = walk(collection, 20, disturb, filter=F("n") < 200)
        assert len(set(found)) == len(found)
        assert stays <= set(found)
        assert left
        for place, point_id in enumerate(found):
            assert place // 20 <= left.get(point_id, 1000), "it no longer matched"

    def test_the_point_of_the_token_may_be_gone(self, collection: Collection) -> None:
        """The token names a place in the order, not a point."""
        everything = walk(collection, 50)
        page = collection.scroll(page_size=50)
        collection.delete(everything[:60])
        rest: list[Any] = []
        token = page.next_page_token
        while token:
            page = collection.scroll(page_size=50, page_token=token)
            rest += [point.id for point in page]
            token = page.next_page_token
        assert rest == everything[60:]

    def test_a_token_outlives_the_process(
        self,
        collection: Collection,
        name_of: Callable[[int], Any],
        reopened: Callable[[str], Collection],
    ) -> None:
        """It holds all it needs: no cursor is kept open anywhere."""
        everything = walk(collection, 100)
        token = collection.scroll(page_size=100).next_page_token
        again = reopened("pages")
        page = again.scroll(page_size=200, page_token=token)
        assert [point.id for point in page] == everything[100:]


class TestTokens:
    def test_of_another_collection_or_filter(
        self, database: Database, collection: Collection
    ) -> None:
        """Going on there would silently skip points."""
        token = collection.scroll(page_size=10).next_page_token
        other = database.create_collection("other", D, "l2", schema={"n": "int"})
        other.upsert(range(20), points(20))
        with pytest.raises(InvalidArgument, match="page_token of this collection and filter"):
            other.scroll(page_token=token)
        filtered = collection.scroll(page_size=10, filter=F("n") < 100).next_page_token
        for given, where in ((token, F("n") < 100), (filtered, None), (filtered, F("n") <= 100)):
            with pytest.raises(InvalidArgument, match="page_token of this collection and filter"):
                collection.scroll(page_token=given, filter=where)

    def test_one_filter_in_any_spelling(self, collection: Collection) -> None:
        """The token fits the meaning, not the text."""
        token = collection.scroll(page_size=10, filter=F("n") < 100).next_page_token
        spelled = {"field": "n", "op": "lt", "value": 100}
        assert len(collection.scroll(page_token=token, filter=spelled)) == 90
        assert len(collection.scroll(page_token=token, filter="n < 100")) == 90

    def test_after_a_rename_it_goes_on(self, database: Database, collection: Collection) -> None:
        """The collection is the same one."""
        token = collection.scroll(page_size=10).next_page_token
        database.rename_collection("pages", "leaves")
        page = database.get_collection("leaves").scroll(page_token=token, page_size=MAX_PAGE)
        assert len(page) == 290

    @pytest.mark.parametrize(
        "garbage",
        ["", "x", "====", "AAAA", "a" * 10_000, "é", "\0", b"bytes", 5, True, ["a"],
         base64.urlsafe_b64encode(b"x" * 40).decode()],
    )  # fmt: skip
    def test_garbage_is_refused(self, collection: Collection, garbage: Any) -> None:
        """As what it is, and never as a crash."""
        with pytest.raises(InvalidArgument, match="expected (a )?page_token.*pass next_page_token"):
            collection.scroll(page_token=garbage)

    def test_every_damaged_byte_is_seen(self, collection: Collection) -> None:
        """A token that was cut or mangled on its way must not jump somewhere."""
        token = collection.scroll(page_size=10).next_page_token
        assert token is not None
        data = bytearray(base64.urlsafe_b64decode(token))
        for place in range(len(data)):
            damaged = data.copy()
            damaged[place] ^= 0x15
            text = base64.urlsafe_b64encode(damaged).decode()
            with pytest.raises(InvalidArgument, match="page_token"):
                collection.scroll(page_token=text)
        for length in range(len(token)):
            with pytest.raises(InvalidArgument, match="page_token"):
                collection.scroll(page_token=token[:length])
