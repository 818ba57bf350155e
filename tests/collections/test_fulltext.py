"""Full text: words of a user as they come, ranked by BM25, alone and beside a vector.

    soardb/fulltext.py, soardb/collection.py -> [test_fulltext.py]

Nothing that a user types is ever syntax: the words are looked for, and what is no word is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import InvalidArgument
from soardb.filters import F
from soardb.fulltext import MAX_WORDS, fuse, text_query
from tests.collections.conftest import D, ids_of, points

TEXTS = {
    1: "The quick brown fox jumps over the lazy dog",
    2: "Foxes are quick, and foxes are clever: a fox is never lazy",
    3: "Dogs sleep all day",
    4: "near or far, and not a fox in sight AND yet NEAR",
    5: "crème brûlée with C++ and a* search, 100% sure",
    6: "Übergrößenträger in Zürich",
    7: "",
}


@pytest.fixture
def collection(database: Database) -> Collection:
    """Seven texts, four of them in a generation."""
    schema = {"body": "text", "title": "text", "n": "int"}
    made = database.create_collection("texts", D, "l2", schema=schema)
    vectors = points(7)
    payloads = [{"body": text, "n": i, "title": f"number {i}"} for i, text in TEXTS.items()]
    made.upsert(list(TEXTS)[:4], vectors[:4], payloads[:4])
    made.compact()
    made.upsert(list(TEXTS)[4:], vectors[4:], payloads[4:])
    return made


def found(collection: Collection, text: str, **options: Any) -> list[Any]:
    """Ids of a search by text alone."""
    return ids_of(collection.search(text=text, **options))


class TestRanking:
    def test_the_text_that_says_it_more_often_is_first(self, collection: Collection) -> None:
        """BM25: frequency in the text over its length, rarer words count more; the stem counts."""
        assert found(collection, "fox")[0] == 2
        assert set(found(collection, "fox")) == {1, 2, 4}
        assert found(collection, "fox dog")[0] == 1
        hits = collection.search(text="lazy fox")
        assert (np.diff(hits.scores) <= 0).all()
        assert (hits.scores > 0).all()

    @pytest.mark.parametrize("words", ["FOX", "foxes", "fox's", " fox ", "fox!", "(fox)"])
    def test_case_and_endings_do_not_matter(self, collection: Collection, words: str) -> None:
        """As people expect of a search box."""
        assert {1, 2, 4} <= set(found(collection, words))

    def test_accents_do_not_matter(self, collection: Collection) -> None:
        """Composed, decomposed or left out."""
        for words in ("crème", "creme", "cre\N{COMBINING GRAVE ACCENT}me", "CRÈME"):
            assert found(collection, words) == [5], ascii(words)
        assert found(collection, "zurich") == [6]

    def test_fields_can_be_chosen(self, collection: Collection) -> None:
        """All text fields unless told."""
        assert len(found(collection, "number")) == 7
        assert found(collection, "number", text_fields=["body"]) == []
        assert len(found(collection, "number", text_fields=["title"])) == 7

    def test_the_limit_cuts_the_end(self, collection: Collection) -> None:
        """The best ones stay."""
        assert found(collection, "fox", limit=1) == found(collection, "fox")[:1]

    def test_a_text_search_has_payloads_and_a_plan(self, collection: Collection) -> None:
        """Hits like any others; their scores are no distances."""
        hits = collection.search(text="zürich", explain=True, with_vectors=True)
        assert hits.payloads is not None
        assert hits.payloads[0]["n"] == 6
        assert hits.plan is not None
        assert hits.plan.strategy == "text"
        assert hits.vectors is not None
        with pytest.raises(InvalidArgument, match="scores of vectors alone"):
            _ = hits.distances


class TestWords:
    @pytest.mark.parametrize(
        "text",
        ["fox AND nothing", "fox NOT quick", "fox OR", "NEAR(fox, 2)", "fox*", "^fox", '"fox',
         'fox"', '"', "fox'", "t0: fox", "{t0 t1} : fox", "body:fox", "-fox", "+fox", "fox)",
         "((((fox", "fox; DROP TABLE points", "fox --", "fox\0bar", "fox\nquick", "AND", "OR NOT",
         "fox NEAR/2 dog", "\\fox", "%fox%", "fox \ud800", "a:b:fox"],
    )  # fmt: skip
    def test_operators_and_quotes_are_just_words(self, collection: Collection, text: str) -> None:
        """A search box takes anything; nothing of it may be an error, or an operator."""
        ids = found(collection, text)
        if "fox" in text:
            assert {1, 2, 4} <= set(ids)

    def test_operators_are_looked_for_as_words(self, collection: Collection) -> None:
        """'near' and 'and' are words of text 4."""
        assert found(collection, "NEAR") == [4]
        assert set(found(collection, "not")) == {4}

    @pytest.mark.parametrize("text", ["", " ", "!?", '"', "\0", "\N{PILE OF POO}", "*", "()"])
    def test_no_word_finds_nothing(self, collection: Collection, text: str) -> None:
        """Not everything."""
        assert found(collection, text) == []
        assert collection.count(F("body").matches(text)) == 0

    def test_symbols_within_words_divide_them(self, collection: Collection) -> None:
        """The tokenizer's rule, for queries as for texts."""
        assert found(collection, "C++") == [5]
        assert found(collection, "100%") == [5]

    def test_too_many_words_are_refused(self, collection: Collection) -> None:
        """A pasted book is no query; the number is in the message."""
        found(collection, " ".join(["fox"] * MAX_WORDS))
        with pytest.raises(InvalidArgument, match="at most 64 words of text, got 65"):
            found(collection, " ".join(["fox"] * (MAX_WORDS + 1)))

    def test_no_user_text_stands_outside_quotes(self) -> None:
        """The whole of the defence: what is between the quotes holds no quote."""
        query = text_query('a" OR "b) NEAR {t9} : c*', [0, 1], "any")
        assert query == '{t0 t1} : ("a" OR "OR" OR "b" OR "NEAR" OR "t9" OR "c")'

    def test_all_or_any_in_a_filter(self, collection: Collection) -> None:
        """matches() wants every word, matches_any() one of them."""
        assert collection.count(F("body").matches("fox lazy")) == 2
        assert collection.count(F("body").matches_any("fox lazy sleep")) == 4
        assert collection.count(~F("body").matches("fox")) == 4
        assert collection.count(F("body").matches("fox OR sleep")) == 0

    @pytest.mark.parametrize("bad", ["n", "missing", "t0"])
    def test_only_text_fields_are_searched(self, collection: Collection, bad: str) -> None:
        """The message lists them."""
        with pytest.raises(InvalidArgument, match=f"among body, title, got '{bad}'"):
            found(collection, "fox", text_fields=[bad])

    def test_without_a_text_field_there_is_no_text(self, database: Database) -> None:
        """The message says how to declare one."""
        plain = database.create_collection("plain", D)
        with pytest.raises(InvalidArgument, match="schema={'body': 'text'}"):
            plain.search(text="fox")


class TestChanges:
    def test_deleted_texts_are_gone(self, collection: Collection) -> None:
        """Deleted, overwritten, patched: the old words find nothing."""
        collection.delete([2])
        assert set(found(collection, "fox")) == {1, 4}
        collection.upsert([1], points(1), [{"body": "a cat"}])
        assert set(found(collection, "fox")) == {4}
        assert found(collection, "cat") == [1]
        collection.update_payload({"body": "a bird"}, ids=[4])
        assert found(collection, "fox") == []
        assert found(collection, "bird") == [4]
        collection.update_payload({"body": None}, filter=F("n") == 3)
        assert found(collection, "dogs") == []
        assert found(collection, "number") != []

    def test_compaction_and_reopening_keep_them(
        self, collection: Collection, reopened: Callable[[str], Collection]
    ) -> None:
        """The full text lies in the row store and follows its rows."""
        collection.delete([1])
        before = found(collection, "fox lazy")
        collection.compact()
        assert found(collection, "fox lazy") == before
        collection = reopened("texts")
        assert found(collection, "fox lazy") == before
        assert collection._core.store.integrity() == []

    def test_many_gone_ones_do_not_hide_the_few(self, database: Database) -> None:
        """The best ranked rows may all be filtered out; the search goes on to the others."""
        made = database.create_collection("many", D, "l2", schema={"body": "text", "n": "int"})
        texts = ["fox " * 5 if i < 400 else "one fox among other words" for i in range(405)]
        made.upsert(range(405), points(405), {"body": texts, "n": list(range(405))})
        assert set(found(made, "fox", limit=5)) <= set(range(400))
        assert set(found(made, "fox", limit=5, filter=F("n") >= 400)) == set(range(400, 405))


class TestHybrid:
    @pytest.mark.parametrize("fusion", ["rrf", "weighted"])
    def test_both_rankings_count(self, collection: Collection, fusion: Any) -> None:
        """What is near and says the word comes before what does only one of them."""
        vectors = points(7)
        hits = collection.search(vectors[2], text="fox", fusion=fusion, limit=7, explain=True)
        ids = ids_of(hits)
        assert len(set(ids)) == len(ids) == 7
        assert (np.diff(hits.scores) <= 0).all()
        assert hits.plan is not None
        assert hits.plan.strategy == "hybrid"
        near_and_said = collection.search(vectors[1], text="fox", fusion=fusion)
        assert ids_of(near_and_said)[0] == 2

    def test_weights_choose_the_side(self, collection: Collection) -> None:
        """(1, 0) is the vector's order, (0, 1) that of the text."""
        query = points(7)[2]
        by_vector = ids_of(collection.search(query, 7))
        first_texts = found(collection, "fox")
        for fusion in ("rrf", "weighted"):
            hits = collection.search(query, 7, text="fox", weights=(1, 0), fusion=fusion)
            assert ids_of(hits)[0] == by_vector[0]
            hits = collection.search(query, 3, text="fox", weights=(0, 1), fusion=fusion)
            assert ids_of(hits)[0] == first_texts[0]
            assert set(ids_of(hits)) == set(first_texts) or fusion == "weighted"

    def test_rrf_by_hand(self) -> None:
        """Sum of weight / (60 + rank); ties go to the lower position."""
        rankings = [
            (np.array([4, 2, 9]), np.array([3.0, 2.0, 1.0], np.float32)),
            (np.array([2, 4, 7]), np.array([9.0, 8.0, 7.0], np.float32)),
        ]
        positions, scores = fuse(rankings, (1.0, 1.0), "rrf", 10)
        assert positions.tolist() == [2, 4, 7, 9]
        assert scores == pytest.approx([1 / 61 + 1 / 62] * 2 + [1 / 63] * 2)
        positions, _ = fuse(rankings, (2.0, 1.0), "rrf", 2)
        assert positions.tolist() == [4, 2]

    def test_weighted_by_hand(self) -> None:
        """Each ranking's scores are brought to 0..1 first."""
        rankings = [
            (np.array([4, 2, 9]), np.array([-1.0, -3.0, -5.0], np.float32)),
            (np.array([9, 7]), np.array([8.0, 6.0], np.float32)),
            (np.empty(0, np.int64), np.empty(0, np.float32)),
        ]
        positions, scores = fuse(rankings, (1.0, 2.0, 5.0), "weighted", 10)
        assert positions.tolist() == [9, 4, 2, 7]
        assert scores == pytest.approx([2.0, 1.0, 0.5, 0.0])
        one = [(np.array([3]), np.array([0.2], np.float32))]
        assert fuse(one, (0.5,), "weighted", 1)[1] == pytest.approx([0.5])

    def test_filters_hold_for_both(self, collection: Collection) -> None:
        """A text that matches but is filtered out does not come back through the other ranking."""
        for options in ({}, {"query": points(7)[0]}):
            ids = ids_of(collection.search(text="fox", filter=F("n") != 2, limit=7, **options))
            assert 2 not in ids
            assert ids

    def test_by_id_leaves_itself_out(self, collection: Collection) -> None:
        """In both rankings."""
        ids = ids_of(collection.search(id=2, text="fox", limit=7))
        assert 2 not in ids
        assert set(ids) == {1, 3, 4, 5, 6, 7}

    def test_words_that_find_nothing_leave_the_vector_ranking(self, collection: Collection) -> None:
        """A typo must not empty the page."""
        query = points(7)[3]
        by_vector = ids_of(collection.search(query, 7))
        for fusion in ("rrf", "weighted"):
            hits = collection.search(query, 7, text="zzzz", fusion=fusion)
            assert ids_of(hits) == by_vector

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"fusion": "sum"}, "fusion one of rrf, weighted, got 'sum'"),
            ({"group_by": "n"}, "no group_by or score_threshold beside text"),
            ({"score_threshold": 0.5}, "no group_by or score_threshold beside text"),
            ({"query": np.ones((2, D))}, "one query"),
        ],
    )
    def test_what_has_no_meaning_beside_text_is_refused(
        self, collection: Collection, options: dict[str, Any], words: str
    ) -> None:
        """Rather than ignored."""
        with pytest.raises(InvalidArgument, match=words):
            collection.search(text="fox", **options)
