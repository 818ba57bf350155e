"""The benchmark of SpacTor end to end on made-up texts, and the arithmetic of its report.

-> [test_pretraining.py] -> benchmarks/bench_spactor.py, synsets.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_encoders, bench_spactor
from benchmarks.synsets import Synset, synsets_of


def test_every_arm_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ablations too, by the same texts and targets; a second run trains nothing."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--ablations", "--results", str(tmp_path)]
    assert bench_spactor.main(asked) == 0
    report = json.loads((tmp_path / "spactor-tiny.json").read_text("utf-8"))
    rows = {row["arm"]: row for row in report["rows"]}
    assert set(rows) == {*bench_spactor.ARMS, *bench_spactor.ABLATIONS}
    assert len({row["targets"] for name, row in rows.items() if "RTD" not in name}) == 1
    assert len({row["looks"][0]["clean"] for row in rows.values()}) == 1  # where all begin
    assert rows["SC"]["looks"][-1]["detection"] is None
    assert rows["SpacTor, T/4"]["flops"]["first"] > rows["SC"]["flops"]["first"]
    assert rows["SpacTor, T/4"]["flops"]["last"] == rows["SC"]["flops"]["last"]
    losses = {one["arm"]: one for one in report["summary"]["losses"]}
    assert losses["SC"]["over_sc"] == 0
    assert 0 <= losses["SpacTor, all"]["rtd_auc"] <= 1
    assert "rtd_auc" not in losses["noise only"]
    assert 0 <= losses["noise only"]["generator_same"] <= 1
    reaching = {one["arm"]: one for one in report["summary"]["reaching"]}
    assert reaching["SC"]["clean_step"] <= 1
    assert (tmp_path / "spactor-tiny.png").stat().st_size > 5000
    assert "over_sc" in (tmp_path / "spactor-tiny.md").read_text("utf-8")
    monkeypatch.setattr(bench_spactor, "measured", lambda *_: pytest.fail("measured again"))
    assert bench_spactor.main(asked) == 0


def test_where_a_curve_gets_to_a_score() -> None:
    """Between its points; at its first one; nowhere."""
    curve = [(0.0, 7.0), (10.0, 5.0), (20.0, 4.0), (30.0, 4.5)]
    assert bench_spactor.reached(curve, 6.0) == 5
    assert bench_spactor.reached(curve, 4.0) == 20
    assert bench_spactor.reached(curve, 8.0) == 0
    assert bench_spactor.reached(curve, 3.9) is None


def test_intervals_are_those_of_the_mean() -> None:
    """By hand, of five values; a single one has none."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    half = bench_spactor._half(values)
    assert half == pytest.approx(2.776 * np.std(values, ddof=1) / 5**0.5)
    assert bench_spactor._half([1.0]) is None


def test_synsets_are_read_with_their_words() -> None:
    """Two lines as WordNet writes them; marks of adjectives and blanks are undone."""
    text = (
        "  1 this is licence\n"
        "00001740 03 n 02 small_bird 0 birdie 1 000 | a bird that is small; "
        '"the birdie sang"; "look, a small bird"  \n'
        "00001741 00 a 01 galore(ip) 0 000 | in abundance\n"
    )
    bird, galore = synsets_of(text)
    assert bird.words == ("small bird", "birdie")
    assert (bird.file, bird.definition) == (3, "a bird that is small")
    assert bird.examples == ["the birdie sang", "look, a small bird"]
    assert galore == Synset(("galore",), 0, "in abundance")
    assert galore.examples == []


def test_encoders_are_asked_beside_bm25(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every base with and without fine-tuning; a second run trains and searches nothing."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--seeds", "2", "--results", str(tmp_path)]
    assert bench_encoders.main(asked) == 0
    report = json.loads((tmp_path / "encoders-tiny.json").read_text("utf-8"))
    rows = {row["system"]: row for row in report["summary"]}
    assert len(rows) == 1 + 3 * len(bench_encoders.BASES)
    assert rows["SpacTor, fine-tuned"]["seeds"] == 2
    assert all(0 <= row["word_ndcg"] <= 1 for row in rows.values())
    # An example says the number that its definition says; a word of a synset stands in none.
    assert rows["BM25"]["example_recall"] == 1
    assert rows["BM25"]["word_ndcg"] == 0
    assert (tmp_path / "encoders-tiny.png").stat().st_size > 5000
    for name in ("searched", "contrasted", "run"):
        monkeypatch.setattr(bench_encoders, name, lambda *_, **__: pytest.fail("again"))
    assert bench_encoders.main(asked) == 0


def test_what_is_asked_for_was_in_no_pair() -> None:
    """Neither the definitions nor the words nor the glosses of the synsets that are asked for."""
    bank = Synset(("bank", "shore"), 3, 'a slope beside water; "the bank was steep"')
    money = Synset(("bank",), 3, "a house of money")
    tree = Synset(("tree", "shore"), 3, 'a tall plant; "a tree fell"')
    setup = bench_encoders.Setup(asked=1, corpus=2)
    task = bench_encoders.task_of([bank, money, tree], setup)
    assert task.corpus == ["a slope beside water", "a house of money"]
    assert task.questions == [
        bench_encoders.Question("word", "bank", frozenset([0, 1])),
        bench_encoders.Question("example", "the bank was steep", frozenset([0])),
    ]
    assert [(one.query, one.text) for one in task.pairs] == [
        ("tree", "a tall plant"), ("a tree fell", "a tall plant"),
    ]  # fmt: skip
    assert task.glosses == [money.gloss, tree.gloss]
