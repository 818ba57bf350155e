"""Decisions under the labels that a collection stores, and under laws that are given.

nouns.py -> [test_decide.py] -> run.py, neighbours.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.errors import InvalidArgument
from soardb.pipelines import decide
from soardb.pipelines.decide import DecideConfig, Laws, rules
from soardb.pipelines.decide.run import held_out
from soardb.pipelines.decide.scores import proper
from tests.pipelines.nouns import D, drawn, payload, stored
from tests.service.conftest import Served

QUERIES, TRUTHS = drawn(200, 1)
CONFIG = DecideConfig("squared_error", label_field="depth", neighbours=32, held_out=200)


@pytest.fixture
def nouns(tmp_path: Path) -> Any:
    with stored(tmp_path / "db") as collection:
        yield collection


def test_neighbours_are_those_of_a_search_by_hand(nouns: Any) -> None:
    """Labels and scores, closest first, and a softmax of the latter."""
    found = decide.near(nouns, "depth", QUERIES[:5], 7)
    for row, hits in enumerate(nouns.search(QUERIES[:5], 7, with_payload=True)):
        assert found.labels[row].tolist() == [p["depth"] for p in hits.payloads]
        assert found.scores[row] == pytest.approx(hits.scores)
        w = np.exp((hits.scores - hits.scores.max()) / 0.7)
        assert found.laws(0.7).weights[row] == pytest.approx(w / w.sum(), rel=1e-6)
    assert found.laws(1e-9).weights[:, 0] == pytest.approx(1)
    assert found.laws(np.inf).weights == pytest.approx(1 / 7)


def test_the_mean_is_best_for_its_metric_and_the_median_for_its_own(nouns: Any) -> None:
    """On questions that are not stored; both beat the likeliest value and what is constant."""
    laws = decide.run(nouns, CONFIG, QUERIES).laws
    table = decide.compare(
        {
            "mode": rules.mode(laws),
            "mean": rules.mean(laws),
            "median": rules.median(laws),
            "constant": np.full(len(laws), 5.0),
        },
        TRUTHS,
        {"rmse": "mean", "absolute_error": "median"},
    )
    for metric in ("rmse", "absolute_error"):
        assert table.gains["mode", metric].wins
        assert table.gains["constant", metric].wins


def test_the_temperature_is_the_best_of_a_fine_search(nouns: Any) -> None:
    """By the score that it is chosen by, and never worse than all alike."""
    found, truths = held_out(nouns, CONFIG)
    temperature, score = decide.calibrated(found, truths)
    tried = [proper(found.laws(t), truths).mean() for t in np.geomspace(1e-3, 1e4, 400)]
    assert score <= min(tried) + 1e-4
    assert score == pytest.approx(proper(found.laws(temperature), truths).mean())
    assert decide.run(nouns, CONFIG, QUERIES).temperature == temperature


def test_where_scores_say_nothing_all_weigh_alike() -> None:
    """Random labels: the temperature has no end."""
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 9, (500, 16)), -np.sort(rng.random((500, 16)), axis=1)
    temperature, score = decide.calibrated(decide.Near(labels, scores), rng.integers(0, 9, 500))
    flat = decide.Near(labels, scores).laws(np.inf)
    assert temperature > 1
    assert score <= proper(flat, rng.integers(0, 9, 500)).mean() + 0.2


def test_held_out_points_are_not_their_own_neighbours(nouns: Any) -> None:
    """Or every one of them would know its label."""
    found, truths = held_out(nouns, CONFIG)
    assert len(found) == 200
    assert (found.scores[:, 0] < -1e-3).all()  # minus the squared distance
    assert (found.labels[:, 0] != truths).any()


def test_points_without_a_label_are_decided_and_written(tmp_path: Path) -> None:
    """By their ids; a declared field is then searched and filtered as any other."""
    with stored(tmp_path / "db", 500, 40) as nouns:
        decided = decide.run(nouns, DecideConfig("exact_match", label_field="depth", held_out=100))
        assert sorted(decided.ids) == list(range(500, 540))
        assert decided.write_field(nouns, "depth") == 40
        for point, value in zip(nouns.get(decided.ids), decided.values.tolist(), strict=True):
            assert point.payload == {"depth": value}
        assert nouns.count("depth IS NULL") == 0
        with pytest.raises(InvalidArgument, match="points without 'depth'"):
            decide.run(nouns, DecideConfig(label_field="depth"))


def test_a_label_that_is_not_declared_will_do(tmp_path: Path) -> None:
    """Points without one are no neighbours; the dotted way leads deeper."""
    with stored(tmp_path / "db", 500, 40, schema={"kind": "keyword"}) as nouns:
        config = DecideConfig(label_field="loose.depth", held_out=100)
        decided = decide.run(nouns, config, QUERIES)
        assert decided.laws.weights.shape == (200, 64)
        with pytest.raises(InvalidArgument, match="truth values in 'loose', got"):
            decide.run(nouns, DecideConfig(label_field="loose", temperature=1.0), QUERIES)
        config = DecideConfig(label_field="nowhere", temperature=1.0)
        with pytest.raises(InvalidArgument, match="'nowhere' near query 0, there are none"):
            decide.run(nouns, config, QUERIES)
        with pytest.raises(InvalidArgument, match="points with 'nowhere'"):
            decide.run(nouns, DecideConfig(label_field="nowhere"), QUERIES)


def test_a_filter_says_who_takes_part(nouns: Any) -> None:
    """Neighbours, held-out points and questions."""
    config = DecideConfig(label_field="depth", filter="depth < 3", held_out=50)
    decided = decide.run(nouns, config, QUERIES)
    assert decided.laws.values[decided.laws.weights > 0].max() <= 2
    assert decided.values.max() <= 2


def test_words_are_decided_by_their_share(nouns: Any) -> None:
    """And calibrated by Brier's score; costs and F1 are of the same laws."""
    truths = np.array([payload(int(y))["kind"] for y in TRUTHS], object)
    said = decide.run(nouns, DecideConfig("exact_match", label_field="kind"), QUERIES)
    assert decide.METRICS["exact_match"](truths, said.values) > (truths == "flat").mean()
    costs = decide.cost([[0, 1], [9, 0]], ["deep", "flat"])
    wary = decide.run(nouns, DecideConfig(costs, label_field="kind"), QUERIES)
    assert costs(truths, wary.values) < costs(truths, said.values)
    called = decide.run(nouns, DecideConfig("f1:deep", label_field="kind"), QUERIES)
    f1 = decide.f1("deep")
    assert f1(truths, called.values) > f1(truths, said.values)


def test_the_promised_loss_is_about_the_one_that_comes(nouns: Any) -> None:
    """Of laws at the temperature that was measured."""
    decided = decide.run(nouns, CONFIG, QUERIES)
    assert decided.risk is not None
    came = float(((decided.values - TRUTHS) ** 2).mean())
    assert decided.risk.mean() == pytest.approx(came, rel=0.35)


def test_a_served_collection_will_do(tmp_path: Path) -> None:
    """Its neighbours and its temperature, as of an embedded one."""
    vectors, depths = drawn(300, 0)
    with Served(tmp_path / "db") as server, soardb.connect(server.target) as client:
        nouns = client.create_collection("nouns", D, "l2", schema={"depth": "int"})
        nouns.upsert(list(range(300)), vectors, [payload(int(y)) for y in depths])
        config = DecideConfig("rmse", label_field="depth", neighbours=8, temperature=0.5)
        decided = decide.run(nouns, config, QUERIES[:20])
        found = decide.near(nouns, "depth", QUERIES[:20], 8)
        assert decided.values == pytest.approx(rules.mean(found.laws(0.5)))


def test_laws_of_ones_own_are_decided(tmp_path: Path) -> None:
    """With alpha and ids; the report as a table and as JSON."""
    laws = Laws.of_rows([[1, 5, 4], [2, 2]], [[0.5, 0.4, 0.1], [0.3, 0.3]])
    decided = decide.run(laws, DecideConfig("rmse"), ids=["a", "b"])
    table = decided.to_arrow()
    assert table.column("id").to_pylist() == ["a", "b"]
    assert table.column("decision").to_pylist() == pytest.approx([2.9, 2])
    assert table.column("risk").to_pylist() == pytest.approx([3.69, 0], abs=1e-12)
    assert table.column("mass").to_pylist() == pytest.approx([1, 0.6])
    assert decided.to_json()["mean_risk"] == pytest.approx(1.845)
    sharp = decide.run(laws, DecideConfig("rmse", alpha=2))
    assert sharp.values == pytest.approx([(0.25 + 5 * 0.16 + 4 * 0.01) / 0.42, 2])
    ranked = decide.run(laws, DecideConfig("auc:2"))
    assert ranked.risk is None
    assert ranked.to_arrow().column("risk").null_count == 2
    assert ranked.values == pytest.approx([0, 1])


def test_a_trial_on_stored_points_prefers_the_own_decisions(nouns: Any) -> None:
    """Of the points that are held out, half are asked about."""
    table = decide.trial(nouns, DecideConfig("pinball:0.9", label_field="depth", held_out=300))
    assert table.n == 150
    assert table.own["pinball:0.9"] == "pinball:0.9"
    assert table.gains["rmse", "pinball:0.9"].wins
    assert table.gains["pinball:0.9", "rmse"].wins
    words = decide.trial(nouns, DecideConfig("exact_match", label_field="kind", held_out=40))
    assert list(words.own) == ["exact_match", "token_f1"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"metric": "mse"}, "expected metric one of"),
        ({"alpha": -1.0}, "alpha of at least 0"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"neighbours": 0}, "neighbours"),
        ({"held_out": 0}, "held_out"),
        ({"label_field": None}, "a collection with a label_field"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    nouns: Any, config: dict[str, Any], message: str
) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidArgument, match=message):
        decide.run(nouns, DecideConfig(**{"label_field": "depth", **config}), QUERIES)


def test_questions_that_mean_nothing_are_refused(nouns: Any) -> None:
    """Of laws, of vectors and of ids."""
    laws = Laws.of_rows([[1]])
    with pytest.raises(InvalidArgument, match="got laws"):
        decide.run(laws, DecideConfig(), QUERIES)
    with pytest.raises(InvalidArgument, match="an id for each of 1"):
        decide.run(laws, DecideConfig(), ids=[1, 2])
    with pytest.raises(InvalidArgument, match="got ids alone"):
        decide.run(nouns, CONFIG, ids=[1])
    with pytest.raises(InvalidArgument, match=r"\(n, 8\)"):
        decide.run(nouns, CONFIG, QUERIES[:, :3])
    with pytest.raises(InvalidArgument, match="3 truths"):
        decide.calibrated(decide.near(nouns, "depth", QUERIES[:3]), [1, 2])


def test_decisions_go_into_fields_of_their_type(tmp_path: Path) -> None:
    """Whole numbers into an int field, rounded if it is asked for; never half of them."""
    with stored(tmp_path / "db", 500, 40) as nouns:
        config = DecideConfig("squared_error", label_field="depth", held_out=100)
        halves = decide.run(nouns, config)
        with pytest.raises(InvalidArgument, match="'depth', of type int"):
            halves.write_field(nouns, "depth")
        assert nouns.count("depth IS NULL") == 40
        whole = decide.run(nouns, replace(config, rounded=True))
        assert whole.values.tolist() == np.rint(halves.values).tolist()
        assert whole.write_field(nouns, "depth") == 40
        median = decide.run(
            nouns, replace(config, metric="absolute_error"), QUERIES, ids=range(200)
        )
        with pytest.raises(InvalidArgument, match="'kind', of type keyword"):
            median.write_field(nouns, "kind")
        words = decide.run(nouns, DecideConfig("exact_match", label_field="kind"), QUERIES)
        with pytest.raises(InvalidArgument, match="got ones about queries"):
            words.write_field(nouns, "kind")
        with pytest.raises(InvalidArgument, match="numbers to round"):
            decide.run(
                nouns, DecideConfig("exact_match", rounded=True, label_field="kind"), QUERIES
            )


@pytest.mark.parametrize("metric", ["f1:5", "auc:5", "cost", "pinball:0.25"])
def test_a_trial_takes_any_metric(nouns: Any, metric: str) -> None:
    """Cells that a metric cannot be asked about are not there; its own is."""
    given: Any = metric
    if metric == "cost":
        given = decide.cost(np.abs(np.subtract.outer(range(10), range(10))), range(10))
    table = decide.trial(nouns, DecideConfig(given, label_field="depth", held_out=100))
    name = decide.as_metric(given).name
    assert (name, name) in table.cells
    assert ("rmse", "rmse") in table.cells
    words = decide.trial(nouns, DecideConfig("f1:deep", label_field="kind", held_out=100))
    assert ("f1:deep", "f1:deep") in words.cells


def test_names_of_classes_have_no_order(nouns: Any) -> None:
    """Numbered anew, the same temperature comes for exact match, by Brier's score."""
    found, truths = held_out(nouns, CONFIG)
    other = np.random.default_rng(0).permutation(10)
    renamed = decide.Near(other[found.labels], found.scores)
    by_name = [
        decide.calibrated(near, y, is_ordered=False)[0]
        for near, y in ((found, truths), (renamed, other[truths]))
    ]
    assert by_name[0] == pytest.approx(by_name[1])
    assert not decide.METRICS["exact_match"].is_ordered
    assert decide.METRICS["rmse"].is_ordered
    decided = decide.run(nouns, replace(CONFIG, metric="exact_match"), QUERIES)
    assert decided.temperature == pytest.approx(by_name[0])


def test_an_infinite_temperature_is_json() -> None:
    """As text; and no questions are no error."""
    laws = Laws.of_rows([[1, 2]])
    told = replace(decide.run(laws, DecideConfig("rmse")), temperature=float("inf")).to_json()
    assert json.loads(json.dumps(told, allow_nan=False))["temperature"] == "inf"
    nothing = decide.run(laws[:0], DecideConfig("exact_match"))
    assert (len(nothing), nothing.to_json()["mean_risk"]) == (0, None)
