"""Bias and variance of each sample: what adds up, what is unbiased, what bounds what.

ensembles.py -> [test_diagnose.py]; test_diagnose_lines.py has fits and the report
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soardb.errors import InvalidArgument
from soardb.pipelines.diagnose import (
    ESTIMATORS,
    CollapseConfig,
    Ensemble,
    binary,
    calibration_of,
    cone_of,
    kl,
    simulate,
    squared,
)
from soardb.pipelines.diagnose.calibration import ece, reliability
from soardb.pipelines.diagnose.cone import envelope
from tests.pipelines.ensembles import by_chance, logits_of, wild


class TestSquared:
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @pytest.mark.parametrize("seed", range(5))
    def test_bias_and_variance_are_the_risk(self, estimator: Any, seed: int) -> None:
        """Of every sample and by every estimator, with the risk from the definition."""
        for ensemble in (by_chance(seed), wild(seed, 8, 200, 3)):
            parts = squared(ensemble, estimator)
            one_hot = np.eye(ensemble.classes)[ensemble.labels]
            risk = ((ensemble.probabilities - one_hot) ** 2).sum(axis=2).mean(axis=0)
            assert np.abs(parts.bias + parts.variance - risk).max() < 1e-12
            assert np.abs(parts.risk - risk).max() < 1e-12

    def test_by_hand(self) -> None:
        """Two replicas, (0.8, 0.2) and (0.6, 0.4), of a sample of class 0."""
        ensemble = Ensemble.of_probabilities([[[0.8, 0.2]], [[0.6, 0.4]]], [0])
        plain = squared(ensemble, "plain")
        assert plain.bias[0] == pytest.approx(2 * 0.3**2)
        assert plain.variance[0] == pytest.approx(2 * 0.1**2)
        for estimator in ESTIMATORS[::2]:
            parts = squared(ensemble, estimator)
            assert parts.bias[0] == pytest.approx(2 * 0.2 * 0.4)  # <h_1 - e_y, h_2 - e_y>
            assert parts.variance[0] == pytest.approx(2 * 0.02)

    def test_unbiased_and_plain_estimates_by_simulation(self) -> None:
        """10,000 ensembles of 4 replicas whose mean and variance are known: 2 classes, uniform.

        bias^2 is 2 (1/2)^2 and variance 2/12. Within 5 standard errors of it, but for the plain
        ones, off by variance / 4 = 0.0417, which is above 20 standard errors.
        """
        p = np.random.default_rng(0).random((4, 10_000))
        ensemble = Ensemble.of_probabilities(np.stack([p, 1 - p], 2), np.zeros(10_000, np.int64))

        def off(values: Any, truth: float) -> float:
            return float((values.mean() - truth) / (values.std() / 100))

        for estimator in ESTIMATORS[::2]:
            parts = squared(ensemble, estimator)
            assert abs(off(parts.bias, 1 / 2)) < 5
            assert abs(off(parts.variance, 1 / 6)) < 5
        plain = squared(ensemble, "plain")
        assert abs(off(plain.bias, 1 / 2 + 1 / 24)) < 5
        assert abs(off(plain.variance, 1 / 6 - 1 / 24)) < 5
        assert off(plain.bias, 1 / 2) > 10
        assert off(plain.variance, 1 / 6) < -20

    def test_bias_is_never_below_zero_by_pairs_of_replicas(self) -> None:
        """Though it is a difference: of (m - 1) one-hot replicas that are right it is 0 exactly."""
        p = np.zeros((5, 1, 3))
        p[:4, 0, 0] = 1
        p[4, 0] = [0.7, 0.2, 0.1]
        assert squared(Ensemble.of_probabilities(p, [0])).bias[0] == 0
        for seed in range(5):
            assert (squared(wild(seed, 7, 2000, 4)).bias >= 0).all()

    def test_a_bias_that_one_replica_hides_is_still_found(self) -> None:
        """Errors of 0.5 and 1e-12: bias^2 less variance / m would be rounding alone."""
        errors = np.array([0.5, 1e-12, 1e-12])
        z = np.stack([np.zeros(3), np.log(errors / (1 - errors))], axis=1)[:, None]
        found = squared(Ensemble.of_logits(z, [0]))
        assert found.bias[0] == pytest.approx(2 * (1e-12 + 1e-24) / 3, rel=1e-9, abs=0)

    def test_pairs_want_an_even_number(self) -> None:
        with pytest.raises(InvalidArgument, match="even number of replicas with 'pairs', got 5"):
            squared(by_chance(0, members=5), "pairs")

    def test_sure_models_do_not_end_in_rounding(self) -> None:
        """At a margin of 60, 1 - p is 1e-26, and so bias^2 1e-52: 1 minus p would be 0."""
        z = np.zeros((2, 1, 2))
        z[0, 0, 0], z[1, 0, 0] = 60, 61
        found = squared(Ensemble.of_logits(z, [0]), "plain")
        first, second = np.exp(-60), np.exp(-61)
        assert found.bias[0] == pytest.approx(2 * ((first + second) / 2) ** 2, rel=1e-12, abs=0)
        assert found.variance[0] == pytest.approx(2 * ((first - second) / 2) ** 2, rel=1e-12, abs=0)


class TestKL:
    @pytest.mark.parametrize("seed", range(5))
    def test_bias_and_variance_are_the_cross_entropy(self, seed: int) -> None:
        """With KL(g || h) and the geometric mean g as they are defined."""
        ensemble = by_chance(seed)
        parts = kl(ensemble)
        rows = np.arange(len(ensemble))
        risk = -np.log(ensemble.probabilities[:, rows, ensemble.labels]).mean(axis=0)
        assert np.abs(parts.bias + parts.variance - risk).max() < 1e-12
        assert np.abs(parts.risk - risk).max() < 1e-12
        g = np.exp(np.log(ensemble.probabilities).mean(axis=0))
        g /= g.sum(axis=1, keepdims=True)
        variance = (g * (np.log(g) - np.log(ensemble.probabilities))).sum(axis=2).mean(axis=0)
        assert np.abs(parts.variance - variance).max() < 1e-12
        assert np.abs(parts.bias + np.log(g[rows, ensemble.labels])).max() < 1e-12

    def test_far_from_certain_and_far_from_right(self) -> None:
        """Margins of 2000, whose probabilities are 0 in any float."""
        z = np.zeros((3, 2, 3))
        z[:, 0, 0], z[:, 1, 1] = 2000, [2000, 2001, 2002]
        parts = kl(Ensemble.of_logits(z, [0, 0]))
        assert parts.bias == pytest.approx([0, 2001])
        assert parts.variance == pytest.approx([0, 0], abs=1e-12)
        assert parts.risk == pytest.approx([0, 2001])

    def test_zeros_are_refused_and_a_floor_admits_them(self) -> None:
        ensemble = Ensemble.of_probabilities([[[1.0, 0.0]], [[0.5, 0.5]]], [1])
        with pytest.raises(InvalidArgument, match="above 0 for the KL decomposition, some are 0"):
            kl(ensemble)
        parts = kl(ensemble.floored(1e-6))
        assert parts.risk[0] == pytest.approx((np.log(1e6) + np.log(2)) / 2, rel=1e-5)
        with pytest.raises(InvalidArgument, match="at most 1/2"):
            ensemble.floored(0.7)


class TestCone:
    @pytest.mark.parametrize(("members", "classes"), [(2, 2), (3, 10), (8, 3), (20, 2)])
    def test_no_predictions_leave_the_two_bounds(self, members: int, classes: int) -> None:
        """Variance is at most (m - 1) bias^2 and at most the envelope, whatever is predicted."""
        ensemble = wild(members, members, 4000, classes)
        parts = squared(ensemble, "plain")
        assert (parts.variance <= (members - 1) * parts.bias * (1 + 1e-9)).all()
        assert (parts.variance <= envelope(parts.bias, classes) + 1e-12).all()
        found = cone_of(parts, members)
        assert found is not None
        assert found.largest <= found.certain * (1 + 1e-9)
        assert found.certain == members - 1

    def test_both_bounds_are_reached(self) -> None:
        """One replica of four that is surely wrong, of two classes: C = 3, and no more possible."""
        p = np.zeros((4, 1, 2))
        p[0, 0, 1] = p[1:, 0, 0] = 1
        parts = squared(Ensemble.of_probabilities(p, [0]), "plain")
        assert parts.variance[0] == pytest.approx(3 * parts.bias[0])
        assert parts.variance[0] == pytest.approx(envelope(parts.bias, 2)[0])

    def test_the_share_above_a_bound_is_counted(self) -> None:
        ensemble = by_chance(3)
        parts = squared(ensemble, "plain")
        ratios = parts.variance / parts.bias
        found = cone_of(parts, 6, float(np.median(ratios)))
        assert found is not None
        assert found.share_above == 0.5
        assert found.median == pytest.approx(np.median(ratios))
        assert found.largest == ratios.max()
        with pytest.raises(InvalidArgument, match="bound above 0"):
            cone_of(parts, 6, -1.0)

    def test_samples_without_a_bias_are_counted_apart(self) -> None:
        p = np.zeros((2, 2, 2))
        p[:, 0, 0] = 1
        p[:, 1] = 0.5
        found = cone_of(squared(Ensemble.of_probabilities(p, [0, 0])), 2)
        assert found is not None
        assert (found.n, found.dropped, found.largest) == (1, 1, 0)
        assert cone_of(squared(Ensemble.of_probabilities(p[:, :1], [0])), 2) is None


class TestCalibration:
    def test_the_residual_is_what_the_mean_owes_to_calibration(self) -> None:
        """excess - unsureness = 2 E <h, h - e_y>, of any ensemble."""
        for ensemble in (by_chance(1), wild(1, 5, 500, 4)):
            found = calibration_of(ensemble)
            h = ensemble.mean
            owed = 2 * (h * (h - np.eye(ensemble.classes)[ensemble.labels])).sum(axis=1).mean()
            assert found.residual == pytest.approx(owed, abs=1e-12)

    def test_labels_drawn_from_the_mean_are_calibrated(self) -> None:
        """20,000 samples: residual and gap within 5 standard errors, which are below 0.004."""
        rng = np.random.default_rng(4)
        n, m = 20_000, 40
        said = rng.dirichlet([0.5, 0.5, 0.5], n)
        # one-hot replicas, so that their mean over many is `said`
        p = np.eye(3)[(rng.random((m, n, 1)) > said.cumsum(axis=1)[:, :2]).sum(axis=2)]
        labels = (rng.random((n, 1)) > said.cumsum(axis=1)[:, :2]).sum(axis=1)
        found = calibration_of(Ensemble.of_probabilities(p, labels))
        assert abs(found.gap) < 0.01
        assert found.disagreement == pytest.approx(1 - (said**2).sum(axis=1).mean(), abs=0.01)
        assert found.unsureness == pytest.approx(0, abs=1e-12)
        # m is finite: the mean of the replicas is off by variance / m, twice
        assert found.residual == pytest.approx(2 * found.disagreement / m, abs=0.02)
        off = calibration_of(Ensemble.of_probabilities(p, rng.permutation(labels)))
        assert off.gap < -0.1
        assert off.residual > 0.1

    def test_of_one_hot_replicas_variance_is_disagreement(self) -> None:
        """And bias^2 two times the error less it, by the unbiased estimates."""
        rng = np.random.default_rng(2)
        p = np.eye(4)[rng.integers(0, 4, (7, 300))]
        labels = rng.integers(0, 4, 300)
        ensemble = Ensemble.of_probabilities(p, labels)
        found, parts = calibration_of(ensemble), squared(ensemble)
        assert parts.variance.mean() == pytest.approx(found.disagreement, abs=1e-12)
        owed = 2 * found.member_error - found.disagreement
        assert parts.bias.mean() == pytest.approx(owed, abs=1e-12)

    def test_the_error_of_confidence_by_hand(self) -> None:
        """Two bins: 0.6 and right half the time, 0.9 and always right."""
        p = [[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]]
        assert ece(p, [0, 1, 0, 0], 10) == pytest.approx((0.1 + 0.1) / 2)
        assert ece(p, [0, 1, 0, 0], 1) == pytest.approx(0.0)

    def test_a_confidence_on_an_edge_is_in_the_bin_below(self) -> None:
        found = reliability([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]], [0, 1, 0], 4)
        assert found.counts.tolist() == [0, 1, 1, 1]
        assert found.accuracy[1:].tolist() == [1, 0, 1]
        assert np.isnan(found.confidence[0])


class TestCollapse:
    def test_of_two_classes_it_agrees_with_the_integrals(self) -> None:
        """Within 4 %, of 200,000 replicas; Gumbel noise has heavy tails at large scales."""
        scales = (0.0, 0.5, 1.0, 2.0, 4.0)
        found = simulate(CollapseConfig(2, scales, members=200_000))
        known = binary(scales)
        assert found.bias == pytest.approx(known.bias, rel=0.04)
        assert found.variance == pytest.approx(known.variance, rel=0.04)

    def test_the_integrals_agree_with_sums(self) -> None:
        u = (np.arange(1_000_000) + 0.5) / 1_000_000
        scales = np.array([0.0, 0.003, 0.007, 0.0072, 0.1, 1.0, 3.0])
        known = binary(scales)
        for s, bias, variance in zip(scales, known.bias, known.variance, strict=True):
            e = 1 / (1 + np.exp(np.sqrt(2) * s) * u / (1 - u))
            assert bias == pytest.approx(2 * e.mean() ** 2, rel=1e-6)
            assert variance == pytest.approx(2 * e.var(), rel=1e-6)

    def test_the_ratio_of_logarithms_is_between_0_557_and_2(self) -> None:
        """Of one probability, which is half of the squared norm: the published corollary."""
        known = binary(np.linspace(0, 200, 2001))
        ratio = np.log(known.bias / 2) / np.log(known.variance / 2)
        assert ratio.min() == pytest.approx(np.log(4) / np.log(12))  # 0.5579, at s = 0
        assert (np.diff(ratio) > 0).all()
        assert 1.9 < ratio[-1] < 2

    def test_light_noise_aligns_and_heavy_noise_halves_the_slope(self) -> None:
        """At large scales: log variance follows log bias^2 by 1 of normal noise, by 1/2 of Gumbel.

        The chance of an error e is about exp(-a) of both, but Gumbel noise has the mean of e^2 made
        by the rare replicas that are wrong, as exp(-a) and not as exp(-2a).
        """
        normal = simulate(CollapseConfig(2, (6.0, 8.0), noise="normal", noise_scale=0.5))
        assert normal.slopes[0] == pytest.approx(1, abs=0.02)
        assert binary([30.0, 40.0]).slopes[0] == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"classes": 1}, "classes within 2"),
            ({"scales": (1.0,)}, "at least two scales"),
            ({"scales": (2.0, 1.0)}, "that rise"),
            ({"noise": "cauchy"}, "noise one of gumbel, normal, got 'cauchy'"),
            ({"noise_scale": 0.0}, "noise_scale above 0"),
        ],
    )
    def test_bad_input_is_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            simulate(CollapseConfig(**options))


class TestEnsemble:
    def test_logits_and_their_probabilities_are_the_same(self) -> None:
        z, labels = logits_of(0)
        first = Ensemble.of_logits(z, labels)
        e = np.exp(z)
        second = Ensemble.of_probabilities(e / e.sum(axis=2, keepdims=True), first.labels)
        assert np.abs(first.probabilities - second.probabilities).max() < 1e-14
        assert np.abs(first.logs - second.logs).max() < 1e-12
        assert (first.correct == second.correct).all()

    @pytest.mark.parametrize(
        ("p", "labels", "ids", "message"),
        [
            (np.ones((2, 3)), [0] * 3, None, r"of shape \(m, n, c\)"),
            (np.ones((1, 3, 1)), [0] * 3, None, "at least 2 replicas"),
            (np.full((2, 3, 2), 0.6), [0] * 3, None, "one sum is off by 0.2; logits go through"),
            (np.array([[[1.5, -0.5]]] * 2), [0], None, "at least 0, some are below"),
            (np.full((2, 1, 2), np.nan), [0], None, "finite probabilities"),
            ("many", [0], None, "as numbers"),
            (np.full((2, 3, 2), 0.5), [0, 1], None, "label of each of 3 samples"),
            (np.full((2, 3, 2), 0.5), [0.0, 1.0, 0.0], None, "got float64"),
            (np.full((2, 3, 2), 0.5), [0, 1, 2], None, r"in 0\.\.1, got 2 at 2"),
            (np.full((2, 3, 2), 0.5), [0, 1, -1], None, r"in 0\.\.1, got -1 at 2"),
            (np.full((2, 3, 2), 0.5), [0, 1, 1], [5, 6], "3 ids that differ, got 2"),
            (np.full((2, 3, 2), 0.5), [0, 1, 1], [5, 6, 6], "2 of them different"),
        ],
    )
    def test_bad_input_is_named(self, p: Any, labels: Any, ids: Any, message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            Ensemble.of_probabilities(p, labels, ids)
