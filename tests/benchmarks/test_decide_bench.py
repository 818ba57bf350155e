"""The benchmark of decisions, end to end on made-up glosses, and the readers of its data.

benchmarks/bench_decide.py, depth_reader.py, depths.py, words.py -> [test_decide_bench.py]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_decide, depth_reader, depths, words
from soardb.pipelines import decide

ROOT = Path(__file__).resolve().parents[2]


def test_a_tiny_run_fills_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again: the second time nothing is trained again, and the report is the same."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    asked = ["--tiny", "--seeds", "1", "--results", str(tmp_path)]
    assert bench_decide.main(asked) == 0
    report = json.loads((tmp_path / "decide-tiny.json").read_text("utf-8"))
    for source in ("retrieval", "reader"):
        cells = {(c["decisions"], c["metric"]): c for c in report[source]["table"]}
        assert {name for name, _ in cells} >= {*bench_decide.RULES, "constant mean", "recalibrated"}
        rmse = {name: cell["value"] for (name, metric), cell in cells.items() if metric == "rmse"}
        assert rmse["mean"] < rmse["constant mean"]
        assert len(report[source]["wins_by_seed"]["rmse"]) == 1
    assert {row["k"] for row in report["samples"]} == {1, 2, 4, 8}
    assert {row["decisions"] for row in report["words"]["cells"]} == {"overlap", "mode"}
    assert {row["decisions"].partition(",")[0] for row in report["training"]} == {
        "reader", "ce", "raft", "mbr",
    }  # fmt: skip
    for name in ("decide-tiny.md", "decide-tiny.png", "decide-tiny-samples.png"):
        assert (tmp_path / name).stat().st_size > 1000
    monkeypatch.setattr(bench_decide, "measured", lambda *_: pytest.fail("trained again"))
    assert bench_decide.main(asked) == 0
    again = json.loads((tmp_path / "decide-tiny.json").read_text("utf-8"))
    of_the_run = ("machine", "date")  # how busy it was, and when
    assert {k: v for k, v in again.items() if k not in of_the_run} == {
        k: v for k, v in report.items() if k not in of_the_run
    }


def test_the_page_shows_what_was_measured() -> None:
    """Every row of its tables, and both pictures."""
    results, images = ROOT / "benchmarks/results", ROOT / "docs/images"
    table = (results / "decide.md").read_text("utf-8").splitlines()
    page = (ROOT / "docs/decide.md").read_text("utf-8").partition("## Measured")[2].splitlines()
    rows = [line for line in page if line.startswith("|")]
    assert len(rows) > 40
    assert [row for row in rows if row not in table] == []
    for name in ("decide.png", "decide-samples.png"):
        assert (images / name).read_bytes() == (results / name).read_bytes()


def test_parts_share_no_gloss() -> None:
    """And every seed deals anew."""
    some = depths.parts(100, 20, 30, None, 0)
    assert sorted(np.concatenate(some).tolist()) == list(range(100))
    assert list(map(len, some)) == [50, 20, 30]
    assert some[2].tolist() != depths.parts(100, 20, 30, None, 1)[2].tolist()


def test_the_grid_of_the_losses_is_what_is_scored() -> None:
    """Of an untrained reader: the two digits as the loss sees them, and as score() does."""
    data, setup = depths.made_up(20), bench_decide.TINY.reader
    vocabulary = depth_reader.Vocabulary([noun.gloss for noun in data.nouns], setup)
    prompts = [vocabulary.prompt(noun.gloss)[2:] if i % 2 else vocabulary.prompt(noun.gloss)
               for i, noun in enumerate(data.nouns)]  # fmt: skip
    reader = depth_reader.Reader(len(vocabulary), setup, 0)
    seen = []

    def keep(logs: object, grid: object, targets: object) -> object:
        seen.append(logs)
        return logs

    depth_reader._of_grid(keep)(reader, prompts, data.depths)
    answers = [depth_reader.answer(depth) for depth in bench_decide.GRID]
    whole = decide.score(reader, prompts, answers, depth_reader.END)
    ends = np.stack(
        [
            [reader(np.array([[*p, *a]]), len(p) + 1)[0, 0, depth_reader.END] for a in answers]
            for p in prompts
        ]
    )
    assert whole - ends == pytest.approx(seen[0].detach().numpy(), abs=1e-4)  # type: ignore[attr-defined]


def test_what_a_reader_says_is_parsed() -> None:
    """Two digits up to 18."""
    assert [depth_reader.depth_of(text) for text in ("00", "07", "18")] == [0, 7, 18]
    assert depth_reader.said([*depth_reader.answer(17), 99]) == "17?"
    for text in ("7", "19", "1?", ""):
        with pytest.raises(ValueError, match="two digits"):
            depth_reader.depth_of(text)


def test_depths_and_words_above_of_nouns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pointers up, the shortest way; a synset without any is at the top; each gloss once."""
    text = (
        "  1 licence\n"
        "00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | what is  \n"
        "00000002 03 n 02 living_thing 0 being 0 001 @ 00000001 n 0000 | what lives  \n"
        "00000003 05 n 01 dog 0 002 @ 00000002 n 0000 ~ 00000004 n 0000 | barks  \n"
        "00000004 05 n 01 Lassie 0 003 @i 00000003 n 0000 @ 00000002 n 0000 + 00000009 v 0101"
        " | a film star  \n"
        "00000005 05 n 01 pup 0 001 @ 00000003 n 0000 | barks  \n"
    )
    monkeypatch.setattr(words, "debian_files", lambda _, wanted: [(wanted[0], text.encode())])
    assert words.read_nouns(tmp_path) == [
        words.Noun("what is", 0, "entity"),
        words.Noun("what lives", 1, "entity"),
        words.Noun("barks", 2, "living thing"),
        words.Noun("a film star", 2, "dog"),
    ]
