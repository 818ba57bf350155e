"""Metrics of decide against their definitions, and scikit-learn's where it has them.

metrics.py, scores.py -> [test_decide_metrics.py]
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.pipelines import decide
from soardb.pipelines.decide import Laws, rules
from soardb.pipelines.decide.scores import brier, crps, proper

Y, V = np.array([1.0, 2.0, 4.0, 4.0]), np.array([2.0, 2.0, 1.0, 5.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exact_match", 1 / 4),
        ("squared_error", 11 / 4),
        ("rmse", (11 / 4) ** 0.5),
        ("absolute_error", 5 / 4),
        ("pinball:0.9", (0.1 + 0 + 0.9 * 3 + 0.1) / 4),
        ("squared_log_error", float(np.mean((np.log1p(Y) - np.log1p(V)) ** 2))),
        ("squared_relative_error", (1 + 0 + 9 / 16 + 1 / 16) / 4),
        ("pearson", float(np.corrcoef(Y, V)[0, 1])),
        ("f1:4", 0.0),
    ],
)
def test_a_measure_by_hand(name: str, value: float) -> None:
    """Of four truths and decisions."""
    assert decide.as_metric(name)(Y, V) == pytest.approx(value)


def test_costs_by_hand() -> None:
    """Of classes and other actions."""
    metric = decide.cost([[0, 1], [5, 2]], ["ill", "well"], ["wait", "treat"])
    assert metric(["ill", "well", "well"], ["wait", "wait", "treat"]) == pytest.approx(7 / 3)
    with pytest.raises(InvalidArgument, match="got 'dead'"):
        metric(["dead"], ["wait"])


def test_f1_and_auc_are_those_of_scikit_learn() -> None:
    """On random labels with ties."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 200), rng.integers(0, 20, 200) / 20
    assert decide.auc(1)(y, score) == pytest.approx(metrics.roc_auc_score(y, score))
    called = score > 0.4
    found = decide.f1(1)(y, called.astype(object))
    assert found == pytest.approx(metrics.f1_score(y, called))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 5)), min_size=2, max_size=9).filter(
        lambda pairs: len({y for y, _ in pairs}) > 1
    )
)
def test_ranking_by_all_pairs(pairs: list[tuple[int, int]]) -> None:
    """Each pair with different truths weighs their difference; equal decisions are half right."""
    right = total = 0.0
    for (y, v), (z, w) in itertools.permutations(pairs, 2):
        if y > z:
            total += y - z
            right += (y - z) * (1.0 if v > w else 0.5 if v == w else 0.0)
    truths, said = zip(*pairs, strict=True)
    assert decide.METRICS["ranking"](truths, said) == pytest.approx(right / total)


def test_what_cannot_be_measured_is_nan() -> None:
    """The correlation with a constant, the order of equal truths."""
    assert np.isnan(decide.METRICS["pearson"]([1, 2], [3, 3]))
    assert np.isnan(decide.METRICS["ranking"]([2, 2], [1, 3]))


def test_a_measure_over_rows_is_the_measure_of_these_rows() -> None:
    """For metrics with losses and without."""
    rows = np.array([0, 2, 2, 3])
    for name in ("rmse", "exact_match", "pearson"):
        metric = decide.METRICS[name]
        assert metric.over(Y, V)(rows) == pytest.approx(metric(Y[rows], V[rows]))


@pytest.mark.parametrize("bad", ["mse", "pinball", "pinball:2", "pinball:x", 3, None])
def test_an_unknown_metric_is_refused(bad: Any) -> None:
    """With the known ones."""
    with pytest.raises(InvalidArgument, match="expected"):
        decide.as_metric(bad)


def test_a_loss_of_the_user_is_a_metric() -> None:
    """Named after the function."""

    def off(y: int, v: int) -> float:
        return math.sqrt(abs(y - v))

    metric = decide.as_metric(off)
    assert metric.name == "off"
    assert metric([1, 4], [1, 0]) == pytest.approx(1)


def test_the_overlap_of_words_is_high_where_it_is_good() -> None:
    """Though a loss is made small."""
    metric = decide.METRICS["token_f1"]
    assert metric(["red house", "bird"], ["house", "stone"]) == pytest.approx(1 / 3)
    assert metric.higher_is_better
    assert metric.losses is not None
    assert metric.losses(np.array(["a bird"]), np.array(["bird"])).tolist() == [0]


def test_truths_and_decisions_must_be_as_many() -> None:
    """And some."""
    for y, v in (([1], [1, 2]), ([], [])):
        with pytest.raises(InvalidArgument, match="as many"):
            decide.METRICS["rmse"](y, v)


def test_scores_by_their_definition() -> None:
    """CRPS by all pairs, Brier's over all classes."""
    rng = np.random.default_rng(1)
    v, w, y = rng.integers(0, 5, (6, 4)), rng.dirichlet(np.ones(4), 6), rng.integers(0, 6, 6)
    laws = Laws.of_rows(v.tolist(), w)
    apart = np.abs(v[:, :, None] - v[:, None, :])
    far = (w * np.abs(v - y[:, None])).sum(1)
    by_pairs = far - np.einsum("ni,nj,nij->n", w, w, apart) / 2
    assert crps(laws, y) == pytest.approx(by_pairs)
    chances = np.stack([laws.of(c) for c in range(6)], 1)
    assert brier(laws, y) == pytest.approx(((chances - np.eye(6)[y]) ** 2).sum(1))
    assert proper(laws, y) == pytest.approx(by_pairs)
    words = Laws.of_rows([["a", "b"]])
    assert proper(words, np.array(["c"], object)) == pytest.approx([1.5])


def test_the_true_law_has_the_best_scores() -> None:
    """In expectation, beside any other one."""
    rng = np.random.default_rng(2)
    true = rng.dirichlet(np.ones(4))
    for _ in range(50):
        other = rng.dirichlet(np.ones(4))
        for score in (crps, brier):
            of = [
                float(true @ [score(Laws.of_rows([list(range(4))], [p]), np.array([y]))[0]
                              for y in range(4)])
                for p in (true, other)
            ]  # fmt: skip
            assert of[0] <= of[1] + 1e-12


@pytest.mark.parametrize("positive", [True, False, 1, 0, "yes"])
def test_the_positive_class_is_the_one_that_is_told(positive: Any) -> None:
    """Of perfect laws F1 and AUC are 1, whichever class and whatever labels."""
    kinds: dict[type, list[Any]] = {bool: [True, False], int: [1, 0], str: ["yes", "no"]}
    labels = kinds[type(positive)]
    truths = [labels[i % 2] for i in range(9)]
    chances = [[1.0, 0.0] if y == labels[0] else [0.0, 1.0] for y in truths]
    laws = Laws.of_probabilities(chances, labels)
    for metric in (decide.f1(positive), decide.auc(positive)):
        assert metric(truths, metric.decide(laws)) == 1
    learned = decide.f1(positive)
    assert learned.fitted is not None
    fitted = learned.fitted(laws, np.array(truths, object))
    assert fitted(truths, fitted.decide(laws)) == 1
    calls = [np.bool_(y == positive) for y in truths]
    assert decide.f1(positive)(truths, calls) == 1


def test_metrics_are_made_again_from_how_they_were_made() -> None:
    """Which is what goes to another process."""
    laws = Laws.of_rows([[1, 2], [2, 2]])
    for metric in (
        *decide.METRICS.values(),
        decide.pinball(0.9),
        decide.cost([[0, 1], [1, 0]], [1, 2]),
        decide.f1(2, 0.5),
        decide.auc(2),
        decide.of_loss(math.dist),
    ):
        make, told = metric.__reduce__()
        again = make(*told)
        assert again.name == metric.name
        if metric.name not in ("token_f1", "dist"):
            assert again.decide(laws).tolist() == metric.decide(laws).tolist()
    with pytest.raises(TypeError, match="cannot pickle the metric 'own'"):
        decide.Metric("own", decide.METRICS["rmse"].decide, None).__reduce__()


def test_a_loss_that_is_nan_is_refused() -> None:
    """Or it would be the smallest; costs must be a table."""
    with pytest.raises(InvalidArgument, match="nan in row 0"):
        decide.of_loss(lambda y, v: math.nan).decide(Laws.of_rows([[1, 2]]))
    for costs, classes in (([[0], [1, 2]], [1, 2]), ([[0]], "1"), ([[0]], 5)):
        with pytest.raises(InvalidArgument, match="expected"):
            decide.cost(costs, classes)  # type: ignore[arg-type]


def test_squad_drops_punctuation() -> None:
    """It does not split at it."""
    for a, b in (("U.S.", "us"), ("don't", "dont"), ("1,000", "1000")):
        assert rules.token_f1(a, b) == 1
