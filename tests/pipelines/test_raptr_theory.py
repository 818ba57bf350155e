"""What RaPTr rests on: the lemma at random weights, and the toy in which the order matters.

[test_raptr_theory.py] -> pipelines/raptr/theory.py, polynomial.py
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.training import TrainConfig
from soardb.pipelines.raptr import Paths, RandomPlan, Schedule, Subnetwork
from soardb.pipelines.raptr.polynomial import Polynomial, ResidualNet, learn
from soardb.pipelines.raptr.theory import COMBINATIONS, output_change, output_changes, slope

DEPTHS = [32, 64, 128, 256]


class TestLemma:
    def test_only_residual_and_norm_together_make_layers_matter_less(self) -> None:
        """As 1 / sqrt(L) with both; by a constant without either."""
        found = output_changes(DEPTHS, 48, seeds=4)
        slopes = {name: slope(DEPTHS, changes) for name, changes in found.items()}
        assert set(slopes) == set(COMBINATIONS)
        assert -0.55 < slopes["residual and norm"] < -0.35  # measured -0.41
        for name in set(slopes) - {"residual and norm"}:
            assert abs(slopes[name]) < 0.15, name  # measured 0.07 at most
            assert min(found[name]) > 0.4

    def test_a_change_is_that_of_two_networks(self) -> None:
        """By hand: three layers, each left out."""
        rng = np.random.default_rng(5)
        start = rng.standard_normal(9)
        weights = [rng.standard_normal((9, 9)) / 3 for _ in range(3)]

        def normed(y: Any) -> Any:
            return (y - y.mean()) / y.std()

        def output(without: int | None) -> Any:
            y = start
            for layer, weight in enumerate(weights):
                if layer != without:
                    y = y + weight @ normed(y)
            return normed(y)

        whole = output(None)
        gaps = [np.linalg.norm(output(layer) - whole) for layer in range(3)]
        wanted = np.mean(gaps) / np.linalg.norm(whole)
        assert output_change(3, 9, residual=True, norm=True, seed=5) == pytest.approx(wanted)

    def test_deep_networks_without_a_norm_stay_finite(self) -> None:
        """Their streams would grow by 2^(L / 2)."""
        assert np.isfinite(output_change(1500, 8, residual=True, norm=False))

    def test_slopes_need_two_points(self) -> None:
        """Of powers, they are the power."""
        assert slope([1, 2, 4], [3, 3 / 2**0.5, 3 / 2]) == pytest.approx(-0.5)
        with pytest.raises(InvalidArgument, match="two depths"):
            slope([4], [1.0])


class TestPolynomial:
    def test_degrees_are_told_apart(self) -> None:
        """Over all x: what an answer lacks of a degree is left of it, and nothing else."""
        made = Polynomial(8, (1, 3), 4, seed=1)
        x = torch.tensor(list(product([-1.0, 1.0], repeat=8)))
        y = made(x)
        assert float(y.square().mean()) == pytest.approx(1, abs=1e-5)
        assert made.left(x, y) == pytest.approx({1: 0, 3: 0}, abs=1e-10)
        assert made.left(x, torch.zeros(256)) == pytest.approx({1: 1, 3: 1}, abs=1e-5)
        low = made.products(x, 1) @ made.coefficients[1]
        assert made.left(x, low) == pytest.approx({1: 0, 3: 1}, abs=1e-5)
        assert made.left(x, 0.5 * y) == pytest.approx({1: 0.25, 3: 0.25}, abs=1e-5)

    def test_terms_are_there_once(self) -> None:
        """And not more of them than there can be."""
        made = Polynomial(6, (1, 2), 6)
        assert len({tuple(term) for term in made.terms[2].tolist()}) == 6
        assert sorted(made.terms[1].flatten().tolist()) == list(range(6))
        with pytest.raises(InvalidArgument, match="at most 6 terms of degree 1"):
            Polynomial(6, (1,), 7)

    def test_a_net_runs_its_part(self) -> None:
        """Skipped blocks have no gradient."""
        net = ResidualNet(6, 4, 8, 8)
        net(torch.ones(3, 6), Subnetwork.of([0, 2])).sum().backward()
        has = [all(w.grad is not None for w in block.parameters()) for block in net.layers]
        assert has == [True, False, True, False]

    def test_dropping_late_loses_what_is_high_and_raptr_does_not(self) -> None:
        """The same stages forwards and backwards: the same cost, another end."""
        made = Polynomial(12, (1, 3), 6)
        train = TrainConfig(500, 128, 2, 5e-3, warm=30, weight_decay=0.0)

        def learned(depths: str) -> Any:
            net = ResidualNet(12, 4, 32, 16)
            plan = RandomPlan(Schedule.parsed(depths, train.steps), Paths(4, ()))
            return learn(made, net, plan, train, looks=10, tested=2**12)

        rising, falling = learned("1-2-3-4"), learned("4-3-2-1")
        assert rising.steps == falling.steps == [*range(0, 500, 50), 500]
        # RaPTr: the low degree first, then the high one too, of what learns and of the whole net.
        assert rising.left_by_parts[1][2] < 0.05  # measured 0.011
        assert rising.left_by_parts[3][2] > 0.7  # 0.917
        assert rising.left[1][-1] < 0.02  # 0.002
        assert rising.left[3][-1] < 0.2  # 0.093
        # Backwards: the high degree was there, and is lost to what learns last; the low one is not.
        assert min(falling.left_by_parts[3]) < 0.25  # 0.123
        assert falling.left_by_parts[3][-1] > 0.4  # 0.612
        assert falling.left_by_parts[1][-1] < 0.05  # 0.008
        # The whole net, which no late step saw, is thrown off in both.
        assert min(falling.left[3]) < 0.06  # 0.026
        assert falling.left[3][-1] > 1.2 * rising.left[3][-1]  # 0.137
        assert falling.left[1][-1] > 10 * rising.left[1][-1]  # 0.222
