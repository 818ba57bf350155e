"""Each rule of decide against brute force: nothing that may be said has a smaller expected loss.

rules.py, metrics.py -> [test_decide_rules.py]
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soardb.errors import InvalidArgument
from soardb.pipelines import decide
from soardb.pipelines.decide import Laws, rules

TWO_PEAKS = Laws.of_rows([[1, 5, 4]], [[0.5, 0.4, 0.1]])

# What may be said, apart from the law's own values: a fine grid.
FINE = np.linspace(0.25, 9.75, 951)

NUMBERS = ["squared_error", "absolute_error", "squared_log_error", "squared_relative_error"]


@st.composite
def laws(draw: st.DrawFn) -> Laws:
    """One to four laws of one to six values in 0.5..9.5, equal ones and weights of 0 among them."""
    rows = draw(st.integers(1, 4))
    value = st.integers(1, 19).map(lambda i: i / 2)
    weight = st.integers(0, 20)
    values, weights = [], []
    for _ in range(rows):
        size = draw(st.integers(1, 6))
        values.append(draw(st.lists(value, min_size=size, max_size=size)))
        some = draw(st.lists(weight, min_size=size, max_size=size))
        some[0] += 1
        weights.append(np.array(some) / sum(some))
    return Laws.of_rows(values, weights)


def expected(law: Laws, row: int, loss: Any, decision: Any) -> float:
    """The loss of a decision that a law promises, by its definition."""
    pairs = zip(law.values[row].tolist(), law.weights[row].tolist(), strict=True)
    return float(sum(w * loss(y, decision) for y, w in pairs if w > 0))


def loss_of(metric: decide.Metric) -> Any:
    """The loss of one truth and one decision."""
    assert metric.losses is not None
    losses = metric.losses

    def one(y: Any, v: Any) -> float:
        return float(losses(np.array([y]), np.array([v]))[0])

    return one


@settings(max_examples=60, deadline=None)
@given(some=laws(), name=st.sampled_from(NUMBERS), q=st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_no_number_is_better(some: Laws, name: str, q: float) -> None:
    """Than the closed form of a metric, nor than the quantile for its pinball loss."""
    for metric in (decide.METRICS[name], decide.pinball(q)):
        decided, losses = metric.decide(some), metric.losses
        assert losses is not None
        promised = metric.risk(some, decided)
        assert promised is not None
        for row in range(len(some)):
            own = expected(some, row, loss_of(metric), decided[row])
            assert promised[row] == pytest.approx(own, abs=1e-12)
            kept = some.weights[row] > 0
            y, w = some.values[row, kept].astype(float), some.weights[row, kept]
            tried = np.concatenate([FINE, y])
            risks = sum(
                weight * losses(np.full(len(tried), truth), tried)
                for truth, weight in zip(y, w, strict=True)
            )
            assert own <= risks.min() + 1e-12


@settings(max_examples=60, deadline=None)
@given(some=laws(), seed=st.integers(0, 1000))
def test_no_value_or_action_is_better(some: Laws, seed: int) -> None:
    """For exact match, any costs, and any loss over candidates."""
    classes = sorted(set(some.values[some.weights > 0].tolist()))
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 6, (len(classes), 4)).astype(float)
    for metric, among in (
        (decide.METRICS["exact_match"], classes),
        (decide.cost(costs, classes, list("abcd")), list("abcd")),
        (decide.of_loss(lambda y, v: (y - v) ** 4, classes), classes),
    ):
        decided = metric.decide(some).tolist()
        for row in range(len(some)):
            risks = {v: expected(some, row, loss_of(metric), v) for v in among}
            assert risks[decided[row]] <= min(risks.values()) + 1e-12


@settings(max_examples=40, deadline=None)
@given(
    p=st.lists(st.integers(0, 20).map(lambda i: i / 20), min_size=1, max_size=8).filter(any),
)
def test_no_other_choice_has_a_better_f1(p: list[float]) -> None:
    """Of a population: of all subsets that could be called positive."""
    chance = np.array(p)

    def f1(called: Any) -> float:
        return float(2 * chance[called].sum() / (np.sum(called) + chance.sum()))

    best = max(f1(np.array(c)) for c in itertools.product([False, True], repeat=len(p)))
    at = rules.f1_threshold(chance)
    assert at == pytest.approx(best / 2)
    assert f1(chance >= at - 1e-12) == pytest.approx(best)
    some = Laws.of_probabilities(np.stack([1 - chance, chance], 1), ["no", "yes"])
    assert f1(decide.f1("yes").decide(some).astype(bool)) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12))
def test_no_other_cut_has_a_better_f1_on_known_answers(pairs: list[tuple[int, bool]]) -> None:
    """Whatever the probabilities are worth."""
    p, y = np.array([a / 9 for a, _ in pairs]), np.array([b for _, b in pairs])
    metric = decide.f1(positive=True)
    truths = y.astype(object)

    def f1(at: float) -> float:
        return metric(truths, (p >= at).astype(object))

    assert f1(rules.best_f1_cut(p, y)) == pytest.approx(max(f1(at) for at in [*p, 2.0]))


def drawn_truths(some: Laws) -> tuple[Any, Any]:
    """All truths that independent laws can have together, (t, n), and their probabilities."""
    kept = [some.weights[row] > 0 for row in range(len(some))]
    values = [some.values[row, k] for row, k in enumerate(kept)]
    weights = [some.weights[row, k] for row, k in enumerate(kept)]
    truths = np.array(list(itertools.product(*values)), float)
    return truths, np.array([np.prod(w) for w in itertools.product(*weights)])


@settings(max_examples=25, deadline=None)
@given(some=laws().filter(lambda law: len(law) > 1), seed=st.integers(0, 1000))
def test_no_other_score_puts_more_pairs_in_order(some: Laws, seed: int) -> None:
    """Than the mean: the expected weight of right pairs, over all truths there can be.

    The weight of all pairs does not depend on the score, so the numerator of the measure decides.
    """
    truths, p = drawn_truths(some)
    ranking = decide.METRICS["ranking"]

    def right(score: Any) -> float:
        total = 0.0
        for y, chance in zip(truths, p, strict=True):
            weight = np.abs(np.subtract.outer(y, y)).sum() / 2
            if weight > 0:
                total += chance * weight * ranking(y, score)
        return total

    best = right(ranking.decide(some))
    rng = np.random.default_rng(seed)
    for other in (rng.random(len(some)), rules.median(some), -rules.mean(some)):
        assert best >= right(other) - 1e-9


def test_no_other_score_correlates_better() -> None:
    """Than the mean, over a population of questions with known laws."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(6, 0.3), 4000)
    some = Laws.of_probabilities(p, [0, 1, 2, 5, 9, 20])
    truths = np.array([rng.choice([0, 1, 2, 5, 9, 20], p=row) for row in p])
    pearson = decide.METRICS["pearson"]
    best = pearson(truths, pearson.decide(some))
    for other in (rules.mode, rules.median, rules.squared_log):
        assert best > pearson(truths, other(some)) + 0.003


def test_a_law_of_two_peaks() -> None:
    """Mode, mean and median differ; half the weight is on 1."""
    assert rules.mode(TWO_PEAKS).tolist() == [1]
    assert rules.mean(TWO_PEAKS) == pytest.approx([2.9])
    assert rules.median(TWO_PEAKS) == pytest.approx([2.5])  # the middle of 1 and 4
    assert rules.quantile(TWO_PEAKS, 0.49) == pytest.approx([1])
    assert rules.quantile(TWO_PEAKS, 0.51) == pytest.approx([4])


def test_the_median_of_an_even_number_of_samples_is_between_the_middle_two() -> None:
    """Also where they are equal, and of one."""
    assert rules.median(Laws.of_rows([[4, 1, 3, 2]])) == pytest.approx([2.5])
    assert rules.median(Laws.of_rows([[4, 1, 1, 1]])) == pytest.approx([1])
    assert rules.median(Laws.of_rows([[7]])) == pytest.approx([7])


def test_equal_values_weigh_together_in_the_mode() -> None:
    """Though another one weighs more than each of them; of ties the first is said."""
    assert rules.mode(Laws.of_rows([["a", "b", "b"]], [[0.4, 0.3, 0.3]])).tolist() == ["b"]
    assert rules.mode(Laws.of_rows([["b", "a"]])).tolist() == ["b"]


def test_candidates_may_come_from_elsewhere() -> None:
    """From other samples of the same question, or one list for all."""
    evidence = Laws.of_rows([[0, 10], [2]])
    others = Laws.of_rows([[1, 4, 9], [7]])

    def far(y: float, v: float) -> float:
        return (y - v) ** 2

    assert rules.smallest_risk(evidence, far, others).tolist() == [4, 7]
    assert rules.smallest_risk(evidence, far, [3, 6]).tolist() == [6, 3]
    with pytest.raises(InvalidArgument, match="candidates for 2 laws"):
        rules.smallest_risk(evidence, far, others[:1])
    with pytest.raises(InvalidArgument, match="candidates to decide among"):
        rules.smallest_risk(evidence, far, [])


def test_words_that_overlap() -> None:
    """The answer between two others shares most with both; articles do not count."""
    answers = ["the red house", "red house", "big red house", "house"]
    assert rules.token_f1(answers[0], answers[1]) == 1
    assert rules.token_f1("Red, house!", "house") == pytest.approx(2 / 3)
    assert rules.token_f1("the", "") == 1
    assert rules.token_f1("house", "the") == 0
    assert decide.METRICS["token_f1"].decide(Laws.of_rows([answers])).tolist() == ["the red house"]


@pytest.mark.parametrize(
    ("metric", "values", "message"),
    [
        ("squared_error", ["a"], "numbers for this metric, got 'a'"),
        ("squared_log_error", [-1], "above -1"),
        ("squared_relative_error", [0, 1], "other than 0"),
        (decide.cost([[0]], [1]), [2], "among the classes"),
    ],
)
def test_values_that_do_not_suit_a_metric_are_refused(
    metric: Any, values: list[Any], message: str
) -> None:
    """By name of what was expected."""
    with pytest.raises(InvalidArgument, match=message):
        decide.as_metric(metric).decide(Laws.of_rows([values]))
