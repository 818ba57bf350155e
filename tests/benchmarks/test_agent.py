"""The benchmark of the agent end to end on made-up names; a second run does nothing again.

-> [test_agent.py] -> benchmarks/bench_agent.py, lookups.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_agent, lookups
from soardb.pipelines.agent import machine, tuning

NOUNS = """\
  licence
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which is
00000002 03 n 02 water_vole 0 vole 0 002 @ 00000001 n 0000 #p 00000003 n 0000 | it swims; "a vole"
00000003 03 n 01 bank 0 001 @ 00000001 n 0000 | of a river
00000004 03 n 01 bank 1 001 @ 00000001 n 0000 | of money
"""


def test_every_policy_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Generations, other targets, twice the data and students; what is done is kept."""
    asked = ["--tiny", "--bounds", "--folder", str(tmp_path / "db"), "--results", str(tmp_path)]
    assert bench_agent.main(asked) == 0
    report = json.loads((tmp_path / "agent-tiny.json").read_text("utf-8"))
    rows = {row["policy"]: row for row in report["rows"]}
    assert list(rows) == [
        "teacher", "without faults", "base", "rest-g1", "g1-kept", "g1-perplexity", "g1-twice",
        "base-small", "g1-student", "g1-drawn", "g1-ideal", "g1-seed-1", "closed-book",
    ]  # fmt: skip
    assert rows["teacher"]["mean"] < rows["without faults"]["mean"] == 1.0
    assert len(rows["teacher"]["runs"]) == 2
    examples = {name: sum(row.get("examples", {}).values()) for name, row in rows.items()}
    assert examples["g1-kept"] == examples["g1-perplexity"]
    assert examples["g1-kept"] > examples["rest-g1"] == examples["g1-student"] > 0
    assert examples["g1-twice"] > examples["rest-g1"]
    assert examples["base"] == examples["base-small"] == 20
    assert rows["g1-student"]["parameters"] < rows["rest-g1"]["parameters"]
    assert "validation" in rows["rest-g1"]
    assert rows["without faults"]["first_faults"]["none"] == pytest.approx(1.0)
    assert 0 < rows["teacher"]["first_faults"]["none"] < 1
    assert rows["without faults"]["chains"] == 1.0 > rows["teacher"]["chains"]
    assert all(sum(row["first_faults"].values()) == pytest.approx(1.0) for row in rows.values())
    gap = next(one for one in report["gaps"] if one["over"] == "teacher")
    assert gap["gap"] == pytest.approx(-rows["teacher"]["mean"])
    assert gap["from"] <= gap["gap"] <= gap["to"]
    assert 0 < report["floor"] < 0.5
    assert (tmp_path / "agent-tiny.png").stat().st_size > 5000
    assert "without faults | 1.000" in (tmp_path / "agent-tiny.md").read_text("utf-8")
    monkeypatch.setattr(tuning, "descend", lambda *_: pytest.fail("learned again"))
    monkeypatch.setattr(machine.Agent, "answers", lambda *_: pytest.fail("answered again"))
    assert bench_agent.main(asked) == 0


def test_nouns_of_one_meaning() -> None:
    """Their facts, their passages; others are in neither, though facts may lead to them."""
    found = lookups.parsed(NOUNS)
    assert found.facts == {"water vole": {"kind": "entity", "whole": "bank"}}
    assert found.texts == {
        "water vole": '"water vole" is a kind of "entity". "water vole" is part of "bank". it swims'
    }
