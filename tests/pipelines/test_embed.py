"""Encoders for search: what is learned from pairs, what is judged, and what is written where.

trained.py -> [test_embed.py] -> pipelines/embed, soardb/cli/embedding.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import InvalidArgument, NotFound
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.encoder import Encoder
from soardb.models.registry import Registry
from soardb.models.t5 import T5
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig
from soardb.pipelines.embed import (
    ContrastConfig,
    Embedder,
    Pair,
    contrast,
    contrasted,
    embed_points,
    embed_texts,
    judged,
    ndcg,
    read_pairs,
    recall,
    stored_pairs,
)

NAMES = ["bird", "stone", "river", "song", "wall", "tree", "ship", "cloud", "lamp", "horse"]
COLOURS = ["red", "blue", "green", "grey", "white", "black", "brown", "gold"]
PAIRS = [
    Pair(f"{colour[::-1]} {name[::-1]}", f"what is called a {name} here and looks {colour}")
    for name in NAMES
    for colour in COLOURS
]
TOKENS = Tokens.trained([f"{pair.query} {pair.text}" for pair in PAIRS], 300)
SHAPE = EncoderConfig(len(TOKENS), 4, 32, 1, 2, context=48)
QUICK = TrainConfig(60, 16, 24, 1e-2, warm=5)


class TestContrast:
    def test_the_loss_is_by_hand(self) -> None:
        """Three pairs both ways; the same text of another pair, and its mirror, do not count."""
        random = torch.Generator().manual_seed(0)
        q, t = torch.randn(2, 3, 5, generator=random)
        q, t = q / q.norm(dim=1, keepdim=True), t / t.norm(dim=1, keepdim=True)
        plain = torch.eye(3, dtype=torch.bool)
        config = ContrastConfig(0.1, both_ways=False)
        found = float(contrast(q, t, plain, plain, config))
        z = (q @ t.T / 0.1).tolist()
        rows = [math.log(sum(map(math.exp, row))) - row[n] for n, row in enumerate(z)]
        assert found == pytest.approx(sum(rows) / 3, abs=1e-5)
        columns = [math.log(sum(math.exp(r[n]) for r in z)) - z[n][n] for n in range(3)]
        both = float(contrast(q, t, plain, plain, ContrastConfig(0.1)))
        assert both == pytest.approx((sum(rows) + sum(columns)) / 6, abs=1e-5)
        same = plain.clone()
        same[0, 1] = same[1, 0] = True
        found = float(contrast(q, t, plain, same, config))
        rows[0] = math.log(math.exp(z[0][0]) + math.exp(z[0][2])) - z[0][0]
        rows[1] = math.log(math.exp(z[1][1]) + math.exp(z[1][2])) - z[1][1]
        assert found == pytest.approx(sum(rows) / 3, abs=1e-5)
        assert float(contrast(q, t, same, plain, config)) == pytest.approx(found, abs=1e-6)

    def test_it_learns_what_belongs_together(self) -> None:
        """On pairs that it did not see: names and colours it did. The encoder stays as it is."""
        test = PAIRS[::7]
        train = [pair for pair in PAIRS if pair not in test]
        encoder = Encoder(SHAPE, 1)
        before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
        made, losses = contrasted(encoder, TOKENS, train, ContrastConfig(train=QUICK))
        assert len(losses) == 60
        assert losses[-1] < losses[0]
        for name, weight in encoder.state_dict().items():
            assert torch.equal(weight, before[name])
        old, new = (judged(Embedder(one, TOKENS), test) for one in (encoder.eval(), made))
        assert new["ndcg_10"] > max(0.8, old["ndcg_10"])  # measured 0.97, 0.53
        again, _ = contrasted(encoder, TOKENS, train, ContrastConfig(train=QUICK))
        assert judged(Embedder(again, TOKENS), test) == new

    def test_vectors_that_are_all_alike_are_told_apart(self) -> None:
        """As those of a model that was pretrained little; a text's vector is its own again."""
        encoder = Encoder(SHAPE, 1)
        with torch.no_grad():
            encoder.embedding.weight += 2 * torch.randn(
                SHAPE.width, generator=torch.Generator().manual_seed(0)
            )
        texts = [pair.text for pair in PAIRS]
        alike = Embedder(encoder.eval(), TOKENS).vectors(texts)
        assert (alike @ alike.T).min() > 0.99
        made, _ = contrasted(encoder, TOKENS, PAIRS, ContrastConfig(train=QUICK))
        assert made.config.levelled
        found = Embedder(made, TOKENS).vectors(texts)
        assert abs(float((found @ found.T).mean())) < 0.2
        assert np.allclose(found[3], Embedder(made, TOKENS).vectors(texts[3:4])[0], atol=1e-5)
        again, _ = contrasted(made, TOKENS, PAIRS, ContrastConfig(train=QUICK))
        assert judged(Embedder(again, TOKENS), PAIRS)["ndcg_10"] > 0.8

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (ContrastConfig(0), "temperature"),
            (ContrastConfig(train=TrainConfig(2, 1, 8)), "at least 2 pairs"),
            (ContrastConfig(train=TrainConfig(2, 100, 8)), "at least a batch of 100"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, config: ContrastConfig, message: str) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match=message):
            contrasted(Encoder(SHAPE), TOKENS, PAIRS, config)


class TestJudge:
    def test_rankings_by_hand(self) -> None:
        """Two of three right ones, at the first and the third place."""
        found, right = [7, 1, 8, 2], {7, 8, 9}
        best = 1 + 1 / math.log2(3) + 1 / 2
        assert ndcg(found, right, 4) == pytest.approx((1 + 1 / 2) / best)
        assert recall(found, right, 4) == pytest.approx(2 / 3)
        assert recall(found, right, 2) == 1 / 2
        assert ndcg([7], {7}) == recall([7], {7}) == 1
        assert ndcg([], {7}) == recall([1], {7}) == 0
        with pytest.raises(InvalidArgument, match="at least one right"):
            ndcg([1], set())
        with pytest.raises(InvalidArgument, match="each id once"):
            recall([1, 1], {1})

    def test_a_question_with_two_texts_counts_once(self) -> None:
        """Both are right."""
        pairs = [Pair("red bird", "a"), Pair("red bird", "b"), Pair("stone", "c")]
        assert judged(Embedder(Encoder(SHAPE), TOKENS), pairs) == {
            "ndcg_10": pytest.approx(1, abs=0.5),
            "recall_10": 1,
        }


class TestPairs:
    def test_of_a_file(self, tmp_path: Path) -> None:
        """A tab between; what is not so is named with its line."""
        file = tmp_path / "pairs.tsv"
        file.write_text("red bird\ta bird\n\nstone\ta stone\tgrey\n", "utf-8")
        assert read_pairs(file) == [Pair("red bird", "a bird"), Pair("stone", "a stone\tgrey")]
        file.write_text("red bird\ta bird\nno tab\n", "utf-8")
        with pytest.raises(InvalidArgument, match=r"line 2 of pairs.tsv, got 'no tab'"):
            read_pairs(file)
        file.write_text("\n", "utf-8")
        with pytest.raises(InvalidArgument, match="got none"):
            read_pairs(file)
        with pytest.raises(NotFound, match="none at"):
            read_pairs(tmp_path / "other")

    def test_of_a_collection(self, tmp_path: Path) -> None:
        """Lists are a pair a member; points without one of both are left out; a filter counts."""
        with soardb.connect(tmp_path) as database:
            notes = database.create_collection("notes", 2, "l2", schema={"n": "int"})
            told: list[dict[str, Any]] = [
                {"n": 0, "title": ["red", "bird"], "text": "a red bird"},
                {"n": 1, "title": "stone", "text": "a stone"},
                {"n": 2, "title": 7, "text": "seven"},
                {"n": 3, "text": "nothing"},
            ]
            notes.upsert([0, 1, 2, 3], np.ones((4, 2), np.float32), told)
            red, bird = Pair("red", "a red bird"), Pair("bird", "a red bird")
            stone = Pair("stone", "a stone")
            assert set(stored_pairs(notes, "title", "text")) == {red, bird, stone}
            assert stored_pairs(notes, "title", "text", "n = 1") == [stone]
            with pytest.raises(InvalidArgument, match="got none"):
                stored_pairs(notes, "title", "body")


class TestEmbedder:
    def test_vectors_are_those_of_texts_alone(self) -> None:
        """In their order and of length one, whatever they are read beside; long ones are cut."""
        made = Embedder(Encoder(SHAPE, 2).eval(), TOKENS)
        texts = [pair.text for pair in PAIRS[:20]] + ["red", "a bird"]
        found = made.vectors(texts)
        assert found.dtype == np.float32
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        for number in (0, 7, 20, 21):
            assert np.allclose(found[number], made.vectors([texts[number]])[0], atol=1e-5)
        short = Embedder(Encoder(SHAPE, 2).eval(), TOKENS, 2)
        one, other = short.vectors(["red bird", "red bird of the north"])
        assert np.allclose(one, other, atol=1e-6)
        with pytest.raises(InvalidArgument, match="number 1 is empty"):
            made.vectors(["red", ""])
        with pytest.raises(InvalidArgument, match="longest"):
            Embedder(Encoder(SHAPE), TOKENS, 49)

    def test_points_are_given_vectors_in_place_and_elsewhere(self, tmp_path: Path) -> None:
        """Payloads stay, points without a text stay; a text finds itself."""
        made = Embedder(Encoder(SHAPE, 3).eval(), TOKENS)
        texts = [pair.text for pair in PAIRS]
        with soardb.connect(tmp_path) as database:
            notes = database.create_collection("notes", 32, schema={"n": "int"})
            told: list[dict[str, Any]] = [{"n": n, "text": text} for n, text in enumerate(texts)]
            told.append({"n": 99})
            blank = np.ones((len(told), 32), np.float32)
            notes.upsert(list(range(len(told))), blank, told)
            assert embed_points(made, notes, "text") == len(texts)
            (last,) = notes.get([len(texts)], with_vectors=True)
            assert last is not None
            assert last.payload == {"n": 99}
            assert last.vector is not None
            assert np.ptp(last.vector) == 0  # as it was
            for number in (0, 41):
                (query,) = made.vectors([texts[number]])
                hits = notes.search(query, 1, exact=True, with_payload=True)
                assert hits.payloads[0] == {"n": number, "text": texts[number]}
            other = database.create_collection("other", 32, schema=notes.schema)
            assert embed_points(made, notes, "text", other, "n < 10") == 10
            assert other.count() == 10
            with pytest.raises(InvalidArgument, match="a text in 'body'"):
                embed_points(made, notes, "body")
            wide = database.create_collection("wide", 33)
            with pytest.raises(
                InvalidArgument, match="dimension 32, as the model has, wide has 33"
            ):
                embed_points(made, notes, "text", wide)

    def test_texts_become_points(self, tmp_path: Path) -> None:
        """0 to n - 1; the same call mends what was broken off, and other points stay."""
        made = Embedder(Encoder(SHAPE, 3).eval(), TOKENS)
        with soardb.connect(tmp_path) as database:
            notes = database.create_collection("notes", 32)
            assert embed_texts(made, ["red bird", "grey stone"], notes, "text") == 2
            told = [one.payload for one in notes.get([0, 1]) if one is not None]
            assert told == [{"text": "red bird"}, {"text": "grey stone"}]
            notes.delete([1])
            assert embed_texts(made, ["red bird", "grey stone"], notes, "text") == 2
            assert notes.count() == 2
            with pytest.raises(InvalidArgument, match="notes has one with id 0"):
                embed_texts(made, ["red"], notes, "text")
            notes.upsert([7], [[0.0] * 31 + [1.0]], [{"text": ""}])
            assert embed_points(made, notes, "text") == 2


class TestCommands:
    def asked(self, *arguments: Any) -> Any:
        """What the program did; its errors are raised."""
        return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)

    def test_from_pairs_to_search(self, tmp_path: Path) -> None:
        """An encoder of a t5 is fine-tuned and kept, and fills a collection of texts."""
        db = tmp_path / "db"
        soardb.connect(db).close()
        Registry(db).add_t5("base", T5(T5Config(SHAPE, 1), 1), TOKENS)
        (tmp_path / "pairs.tsv").write_text(
            "\n".join(f"{pair.query}\t{pair.text}" for pair in PAIRS), "utf-8"
        )
        told = json.loads(
            self.asked(
                "models", "embedder", db, "base", "finder", "--pairs", tmp_path / "pairs.tsv",
                "--steps", 60, "--batch", 16, "--rate", 0.01, "--json",
            ).stdout
        )  # fmt: skip
        assert told["after_ndcg_10"] >= told["before_ndcg_10"]
        entry = Registry(db).get("finder")
        assert (entry.architecture, entry.lineage["parent"]) == ("encoder", "base")
        assert entry.metrics == told
        (tmp_path / "texts.txt").write_text("\n".join(pair.text for pair in PAIRS), "utf-8")
        told = json.loads(
            self.asked("embed", db, "finder", "--texts", tmp_path / "texts.txt", "--into", "notes",
                       "--json").stdout
        )  # fmt: skip
        assert told == {"collection": "notes", "points": len(PAIRS), "dim": 32}
        said = self.asked("embed", db, "base", "--collection", "notes", "--into", "other")
        assert said.exit_code == 0
        assert self.asked("embed", db, "finder", "--collection", "notes").exit_code == 0
        found = Registry(db).load("finder")
        with soardb.connect(db, read_only=True) as database:
            notes = database.get_collection("notes")
            assert notes.schema == {"text": "text"}
            query = Embedder(found.encoder, found.tokens).vectors([PAIRS[9].query])[0]
            texts = [one["text"] for one in notes.search(query, 3, with_payload=True).payloads]
            assert PAIRS[9].text in texts
            assert database.get_collection("other").count() == len(PAIRS)

    def test_what_does_not_fit_is_said(self, tmp_path: Path) -> None:
        """Before anything is made."""
        db = tmp_path / "db"
        soardb.connect(db).close()
        for wrong, message in (
            (["embed", db, "finder"], "one of --texts"),
            (["embed", db, "finder", "--texts", "x.txt"], "--into"),
            (["models", "embedder", db, "base", "finder"], "one of --pairs"),
        ):
            with pytest.raises(InvalidArgument, match=message):
                self.asked(*wrong)
        with pytest.raises(NotFound, match="a model named 'finder'"):
            self.asked("embed", db, "finder", "--texts", "x.txt", "--into", "notes")
