"""From measured points to a setting: between them, at other k, under filters, beyond them.

    soardb/curve.py -> [test_curve.py]

The curves here are made up, of laws that are known, so that what is chosen can be calculated.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from soardb.curve import Curve, Curves, Effort, OperatingPoint, as_only_target, as_target
from soardb.errors import InvalidArgument


def line(k: int = 10, share: float = 1.0, ease: float = 1.0, rerank: int = 100) -> Curve:
    """What is missed falls as 0.4 / (ease * nprobe): nprobe 1 has recall 0.6 at ease 1."""
    points = [point(nprobe, rerank, 1 - 0.4 / (ease * nprobe)) for nprobe in (1, 2, 4, 8, 16, 64)]
    return Curve(k, 1_000, points, share)


def point(
    nprobe: int, rerank: int, recall: float, latency_us: float = 1.0, spread: float = 1e-12
) -> OperatingPoint:
    """One that is known almost exactly."""
    return OperatingPoint(
        Effort(nprobe, rerank),
        recall,
        recall - spread,
        min(1.0, recall + spread),
        latency_us,
        100 * nprobe,
    )


class TestCurve:
    @pytest.mark.parametrize("target", [0.6, 0.8, 0.9, 0.95, 0.97, 0.99])
    def test_between_points_the_least_setting_that_reaches_the_target(self, target: float) -> None:
        """The next power of two would visit up to twice the lists."""
        found = line().choose(target)
        assert found.effort is not None
        assert found.effort.nprobe == max(1, math.ceil(0.4 / (1 - target) - 1e-6))
        assert found.recall == pytest.approx(1 - 0.4 / found.effort.nprobe)
        assert found.is_reached
        assert found.low is not None
        assert found.high is not None
        assert found.recall is not None
        assert found.low < found.recall < found.high

    def test_a_target_that_nothing_reaches_is_said(self) -> None:
        """The best there is, and the recall that it has."""
        found = line().choose(0.999)
        assert not found.is_reached
        assert found.effort == Effort(64, 100)
        assert found.recall == pytest.approx(1 - 0.4 / 64)

    def test_half_a_standard_error_is_to_spare(self) -> None:
        """The cheapest of many settings was lucky; 0.02 around 0.95 are 0.01 of error."""
        sure = [point(n, 100, 1 - 0.4 / n) for n in (1, 2, 4, 8, 16, 64)]
        vague = [point(n, 100, 1 - 0.4 / n, spread=0.02) for n in (1, 2, 4, 8, 16, 64)]
        efforts = [Curve(10, 1_000, points).choose(0.95).effort for points in (sure, vague)]
        assert [effort and effort.nprobe for effort in efforts] == [8, 9]
        assert Curve(10, 1_000, vague).choose(0.95).recall == pytest.approx(1 - 0.4 / 9)

    def test_between_neighbouring_reranks_the_least_that_reaches_the_target(self) -> None:
        """Where one list more would find far more than was asked for."""
        lines = [(20, (0.60, 0.84)), (40, (0.68, 0.88)), (80, (0.70, 0.90))]
        points = [
            point(n, r, recall) for r, pair in lines for n, recall in zip((1, 2), pair, strict=True)
        ]
        found = Curve(10, 1_000, points).choose(0.86)
        assert found.recall == pytest.approx(0.86, abs=0.002)
        assert found.effort == Effort(2, 28)  # 20 * 2 ** (log(0.16 / 0.14) / log(0.16 / 0.12)), up
        far = [p for p in points if p.rerank != 40]
        assert Curve(10, 1_000, far).choose(0.86).effort == Effort(2, 80)

    def test_noise_does_not_turn_the_curve(self) -> None:
        """A point that fell below its left neighbour by chance counts together with it."""
        recalls = {1: 0.80, 2: 0.92, 4: 0.90, 8: 0.97}
        curve = Curve(10, 1_000, [point(n, 100, recall) for n, recall in recalls.items()])
        effort = curve.choose(0.91).effort
        assert effort is not None
        assert effort.nprobe == 2

    def test_of_lines_that_reach_it_the_one_with_least_work(self) -> None:
        """By codes and candidates looked at; a clock would choose differently every time."""
        few = [point(n, 20, min(0.93, 1 - 0.4 / n), 9.0) for n in (1, 2, 4, 8, 16, 64)]
        many = [point(n, 100, 1 - 0.4 / n, 0.1) for n in (1, 2, 4, 8, 16, 64)]
        curve = Curve(10, 1_000, many + few)
        assert curve.choose(0.9).effort == Effort(4, 20)
        assert curve.choose(0.95).effort == Effort(8, 100)

    def test_a_curve_without_a_miss(self) -> None:
        """Recall 1 of the questions asked is drawn as half a hit missed."""
        curve = Curve(10, 1_000, [point(1, 50, 0.9), point(2, 50, 1.0)])
        found = curve.choose(0.99)
        assert found.effort == Effort(2, 50)
        assert found.recall is not None
        assert found.recall >= 0.99

    def test_without_partitions_it_is_exact(self) -> None:
        """There is nothing to choose, and nothing is missed."""
        exact = Curve(10, 5, [OperatingPoint(None, 1.0, 1.0, 1.0, 50.0)])
        found = exact.choose(0.95)
        assert (found.effort, found.recall, found.is_reached) == (None, 1.0, True)


class TestCurves:
    curves = Curves(
        1_000, 1_000, [line(1, ease=4), line(10), line(100, ease=0.25), line(10, 0.1, ease=0.5)]
    )

    @pytest.mark.parametrize(("k", "nprobe"), [(1, 2), (10, 8), (100, 32)])
    def test_a_measured_k_has_its_own_curve(self, k: int, nprobe: int) -> None:
        """Each as if the others were not there."""
        effort = self.curves.choose(k, 0.95).effort
        assert effort is not None
        assert effort.nprobe == nprobe

    def test_another_k_lies_between(self) -> None:
        """By the logs: 10 * sqrt(10) half-way between 10 and 100."""
        effort = self.curves.choose(32, 0.95).effort
        assert effort is not None
        assert effort.nprobe == 17

    def test_beyond_the_largest_k_no_recall_is_promised(self) -> None:
        """The lines go on, candidates as many a result; figures nobody measured are not told."""
        found = self.curves.choose(1_000, 0.95)
        assert found.effort is not None
        assert found.effort.nprobe > 100
        assert found.effort.rerank == 1_000
        assert (found.recall, found.low, found.high) == (None, None, None)

    def test_a_filter_has_the_curve_of_its_share(self) -> None:
        """Between shares by the logs, for other k by as much as that k needs without a filter."""
        at = {share: self.curves.choose(10, 0.95, share).effort for share in (1.0, 0.3, 0.1)}
        assert [effort and effort.nprobe for effort in at.values()] == [8, 12, 16]
        effort = self.curves.choose(100, 0.95, 0.1).effort
        assert effort is not None
        assert effort.nprobe == 64

    def test_a_filter_of_its_own_curve(self) -> None:
        """One that follows the vectors."""
        hard = line(10, 0.1, ease=0.1)
        assert self.curves.under(hard, 10, 0.9).effort == Effort(40, 100)
        assert self.curves.under(hard, 1, 0.9).effort == Effort(10, 100)

    def test_all_is_exact(self) -> None:
        """A recall of 1 is a promise that no measuring can give."""
        assert self.curves.choose(10, 1.0).effort is None
        assert self.curves.under(line(), 10, 1.0).effort is None

    def test_they_go_through_json(self) -> None:
        """For the row store, and for the file of an index."""
        given = json.loads(json.dumps(self.curves.to_json()))
        assert Curves.of_json(given) == self.curves

    @pytest.mark.parametrize("bad", [{}, {"n": 1}, {"n": 1, "live": 1, "curves": []}, [], "x",
                                     {"n": 1, "live": 1, "curves": [{"k": 1}]}])  # fmt: skip
    def test_what_is_none_of_ours_is_refused(self, bad: Any) -> None:
        """By errors that those who read it expect."""
        with pytest.raises((KeyError, TypeError, ValueError)):
            Curves.of_json(bad)


class TestTarget:
    @pytest.mark.parametrize("bad", [0, -0.1, 1.01, "0.9", None, True, math.nan, [0.9]])
    def test_what_is_no_recall(self, bad: Any) -> None:
        """Named, with what came."""
        with pytest.raises(InvalidArgument, match="target_recall above 0 and at most 1"):
            as_target(bad)

    def test_a_target_beside_a_setting(self) -> None:
        """Which of the two should count?"""
        assert as_only_target(0.9, None, None, False) == 0.9
        for said, name in (((4, None, False), "nprobe"), ((None, 4, False), "rerank"),
                           ((None, None, True), "exact")):  # fmt: skip
            with pytest.raises(
                InvalidArgument, match=f"either target_recall.* or {name}; got both"
            ):
                as_only_target(0.9, *said)
