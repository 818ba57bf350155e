"""Comparisons of rules by metrics, samples by their number, controls, and their pictures.

compare.py, plot.py -> [test_decide_compare.py]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.errors import InvalidArgument
from soardb.pipelines import decide
from soardb.pipelines.decide import Laws, rules
from soardb.pipelines.decide.plot import plot_comparison, plot_sweep

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(10, 0.4), 800)
LAWS = Laws.of_probabilities(P, list(range(10)))
TRUTHS = np.array([RNG.choice(10, p=row) for row in P])
OWN = {"exact_match": "mode", "rmse": "mean", "absolute_error": "median"}
DECIDED = {"mode": rules.mode(LAWS), "mean": rules.mean(LAWS), "median": rules.median(LAWS)}


def test_the_diagonal_wins_under_the_true_laws() -> None:
    """By the whole interval, of every metric over every other rule."""
    table = decide.compare(DECIDED, TRUTHS, OWN)
    for metric, own in OWN.items():
        for name in DECIDED:
            if name != own:
                gain = table.gains[name, metric]
                assert gain.wins, (name, metric)
                assert gain.low < gain.gain < gain.high
    cell = table.cells["mean", "rmse"]
    assert cell.value == pytest.approx(np.sqrt(((DECIDED["mean"] - TRUTHS) ** 2).mean()))
    assert cell.low < cell.value < cell.high


def test_pairs_of_questions_stay_together() -> None:
    """A difference that is the same for all questions has an interval of no width."""
    shifted = {"a": TRUTHS + 1.0, "b": TRUTHS + 3.0}
    gain = decide.compare(shifted, TRUTHS, {"absolute_error": "a"}).gains["b", "absolute_error"]
    assert (gain.gain, gain.low, gain.high) == pytest.approx((2, 2, 2))
    lost = decide.compare(shifted, TRUTHS, {"absolute_error": "b"}).gains["a", "absolute_error"]
    assert lost.loses
    assert not lost.wins


def test_the_interval_is_that_of_the_normal_theory() -> None:
    """Of a mean of many losses, within a few percent."""
    losses = np.abs(DECIDED["median"] - TRUTHS)
    cell = decide.compare(DECIDED, TRUTHS, OWN, resamples=4000).cells["median", "absolute_error"]
    half = 1.96 * losses.std(ddof=1) / len(losses) ** 0.5
    assert (cell.high - cell.low) / 2 == pytest.approx(half, rel=0.06)


def test_controls_are_fitted_on_other_questions() -> None:
    """Constants, and the line of least squares."""
    found = decide.controls(LAWS[:400], LAWS[400:], TRUTHS[400:], rules.mode)
    assert (found["constant mean"] == TRUTHS[400:].mean()).all()
    assert (found["constant median"] == np.median(TRUTHS[400:])).all()
    x = DECIDED["mode"]
    slope, intercept = np.polyfit(x[400:], TRUTHS[400:], 1)
    assert found["recalibrated"] == pytest.approx(intercept + slope * x[:400])
    alike = Laws.of_rows([[3], [3]])
    same = decide.controls(alike, alike, [1, 2], rules.mode)
    assert same["recalibrated"] == pytest.approx([1.5, 1.5])


def test_more_samples_come_closer_to_the_law() -> None:
    """One sample is worse than the mode, and even than a constant; many come to the mean."""
    samples = [RNG.choice(10, 64, p=row).tolist() for row in P]
    swept = decide.sweep(samples, TRUTHS, "rmse", [1, 4, 16, 64], draws=10)
    values = [one.value for one in swept]
    rmse = decide.METRICS["rmse"]
    assert values == sorted(values, reverse=True)
    assert values[0] > rmse(TRUTHS, np.full(800, TRUTHS.mean()))
    assert values[-1] == pytest.approx(rmse(TRUTHS, DECIDED["mean"]), rel=0.02)
    assert all(one.low < one.value < one.high for one in swept)


def test_samples_that_could_not_be_parsed_are_left_out_of_a_sweep() -> None:
    """Of each draw; where nothing is left something must stand."""
    (one,) = decide.sweep([[None, 2], [None, 2]], [2, 2], "rmse", [2])
    assert one.value == 0
    with pytest.raises(InvalidArgument, match="none; tell what stands otherwise"):
        decide.sweep([[None], [2]], [2, 2], "rmse", [1])
    (one,) = decide.sweep([[None], [2]], [5, 2], "rmse", [1], otherwise=5)
    assert one.value == 0
    with pytest.raises(InvalidArgument, match="no more samples"):
        decide.sweep([[1], [2, 3]], [2, 2], "rmse", [2])


def test_what_cannot_be_compared_is_refused() -> None:
    """Unknown names, lengths that differ."""
    with pytest.raises(InvalidArgument, match="named 'best'"):
        decide.compare(DECIDED, TRUTHS, {"rmse": "best"})
    with pytest.raises(InvalidArgument, match="800 decisions of 'a'"):
        decide.compare({"a": [1]}, TRUTHS, {"rmse": "a"})
    with pytest.raises(InvalidArgument, match="samples for 800"):
        decide.sweep([[1]], TRUTHS, "rmse", [1])


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """A panel a table, one a metric."""
    cells = decide.compare(DECIDED, TRUTHS, OWN, resamples=50).to_json()["cells"]
    figure = plot_comparison({"a": cells, "b": cells}, tmp_path / "table.png")
    assert len(figure.axes) == 2
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(DECIDED)
    assert (tmp_path / "table.png").stat().st_size > 10_000
    rows = [
        {"what": "samples", "metric": m, "k": k, "value": 1 / k, "low": 0.5 / k, "high": 2 / k}
        for m in ("rmse", "pearson")
        for k in (1, 2, 4)
    ]
    assert len(plot_sweep(rows, tmp_path / "samples.svg").axes) == 2
    with pytest.raises(InvalidArgument, match="got none"):
        plot_comparison({})
    with pytest.raises(InvalidArgument, match="got none"):
        plot_sweep([])


def test_metrics_of_one_name_are_refused() -> None:
    """Where names are told, both have their column."""
    costs = [decide.cost(np.eye(10), range(10), name=name) for name in ("cost", "cost", "other")]
    decided = {"mode": DECIDED["mode"]}
    with pytest.raises(InvalidArgument, match="got two 'cost'"):
        decide.compare(decided, TRUTHS, {costs[0]: "mode", costs[1]: "mode"})
    table = decide.compare(decided, TRUTHS, {costs[0]: "mode", costs[2]: "mode"}, resamples=10)
    assert list(table.own) == ["cost", "other"]


def test_what_cannot_be_asked_is_left_out_where_it_may_be() -> None:
    """But never a metric's own decisions."""
    decided: Any = {"mean": DECIDED["mean"], "words": ["a"] * len(TRUTHS)}
    options: Any = {"resamples": 10}
    table = decide.compare(decided, TRUTHS, {"rmse": "mean"}, leave_out=True, **options)
    assert list(table.cells) == [("mean", "rmse")]
    with pytest.raises(InvalidArgument, match="numbers for this metric"):
        decide.compare(decided, TRUTHS, {"rmse": "mean"}, **options)
    with pytest.raises(InvalidArgument, match="numbers for this metric"):
        decide.compare(decided, TRUTHS, {"rmse": "words"}, leave_out=True, **options)
