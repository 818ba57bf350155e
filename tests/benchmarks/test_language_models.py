"""The benchmarks of drafts, end to end on made-up texts.

benchmarks/bench_distillspec.py, bench_tandem.py, bench_pretrained.py, glosses_lm.py, decoding.py
    -> [test_language_models.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import bench_distillspec, bench_pretrained, bench_tandem, glosses_lm
from soardb.models.config import DecoderConfig
from soardb.models.training import TrainConfig


def test_the_recipe_has_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And real decoding, lossy decoding and the garden beside it; a second run trains nothing."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--seeds", "1", "--results", str(tmp_path)]
    assert bench_distillspec.main(asked) == 0
    report = json.loads((tmp_path / "distillspec-tiny.json").read_text("utf-8"))
    arms = {(row["divergence"], row["source"]) for row in report["summary"]}
    assert arms == {("", "start"), *bench_distillspec.ARMS}
    control = next(r for r in report["summary"] if (r["divergence"], r["source"]) == ("ce", "data"))
    assert control["T = 1"]["gain"] == 0
    assert {row["draft"] for row in report["decoded"]} == {
        "none", "before", "control", "distilled for T = 1", "distilled for greedy", "stored text",
    }  # fmt: skip
    assert all(row["tau"] >= 1 for row in report["decoded"])
    for name in ("before", "distilled for T = 1"):
        taus = [r["tau"] for r in report["lossy"] if r["draft"] == name]
        assert max(taus) > taus[0]
    assert len(report["garden"]) == 7
    assert (tmp_path / "distillspec-tiny.png").stat().st_size > 5000
    monkeypatch.setattr(bench_distillspec, "measured", lambda *_: pytest.fail("measured again"))
    assert bench_distillspec.main(asked) == 0


def test_tandem_is_measured_in_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quality by block length, drafting with and without a router."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    assert bench_tandem.main(["--tiny", "--results", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "tandem-tiny.json").read_text("utf-8"))
    rows = report["summary"]["quality"]
    assert {row["arm"] for row in rows} == {"before", *bench_tandem.ARMS}
    alone = [row["loss"] for row in rows if row["arm"] == "alone, ce"]
    assert len(set(alone)) == 1  # it knows of no blocks
    drafting = report["summary"]["drafting"]
    assert {row["router"] for row in drafting if row["arm"].startswith("tandem")} == {True, False}
    assert (tmp_path / "tandem-tiny.png").stat().st_size > 5000


def test_a_draft_for_a_target_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, after and beside stored text; a second run trains and measures nothing."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--results", str(tmp_path)]
    assert bench_pretrained.main(asked) == 0
    report = json.loads((tmp_path / "pretrained-tiny.json").read_text("utf-8"))
    arms = ["before", *bench_pretrained.ARMS]
    assert [row["arm"] for row in report["summary"]] == arms
    alphas = {row["arm"]: row["alpha, T = 1"] for row in report["summary"]}
    assert all(alphas[arm] > alphas["before"] for arm in bench_pretrained.ARMS)
    assert {row["draft"] for row in report["decoded"]} == {"none", *arms, "stored text"}
    assert all(row["by_costs"] > 0 for row in report["decoded"] if row["draft"] != "none")
    assert (tmp_path / "pretrained-tiny.png").stat().st_size > 5000
    for name in ("measured", "run"):
        monkeypatch.setattr(bench_pretrained, name, lambda *_, **__: pytest.fail("done again"))
    assert bench_pretrained.main(asked) == 0


def test_what_was_trained_is_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it was trained with; other settings train anew."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path))
    texts = glosses_lm.made_up()
    config, train = DecoderConfig(300, 16, 1, 2, context=40), TrainConfig(3, 4, 16)
    first = glosses_lm.trained(texts, config, train)
    monkeypatch.setattr(glosses_lm, "descend", lambda *_: pytest.fail("trained again"))
    again = glosses_lm.trained(texts, config, train)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    with pytest.raises(pytest.fail.Exception):
        glosses_lm.trained(texts, config, TrainConfig(4, 4, 16))


def test_test_texts_are_in_no_training_text() -> None:
    """Each text ends; the tokens are those of the training texts."""
    texts = glosses_lm.made_up()
    assert texts.train[-1] == texts.test[-1] == texts.tokens.end
    assert int(np.sum(texts.test == texts.tokens.end)) == 200
    assert 1 < glosses_lm.characters(texts) < 10
