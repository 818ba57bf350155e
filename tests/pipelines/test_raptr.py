"""RaPTr's parts: schedules, paths, what runs, what it costs, what is scaled.

models/small.py -> [test_raptr.py] -> pipelines/raptr
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.flops import Breadth
from soardb.models.training import TrainConfig, cross_entropy
from soardb.pipelines.raptr import (
    Paths,
    RaptrConfig,
    Schedule,
    Subnetwork,
    hidden_of,
    loss_of,
)
from soardb.pipelines.raptr.baselines import (
    Dropping,
    constant,
    dropping,
    falling,
    full,
    full_at_equal_flops,
    plan_of,
    planned_flops,
    stacking,
)
from soardb.pipelines.raptr.plans import RandomPlan
from soardb.pipelines.raptr.subnetwork import SCALES, flops_of, held_out_loss, through
from soardb.pipelines.raptr.widths import Widths, narrowed
from tests.models.small import decoder, tokens
from tests.models.test_flops import counter

V = 20
DEEP = DecoderConfig(V, 32, 6, 4, key_heads=2, context=24)
PLAIN = DecoderConfig(V, 32, 6, 4, context=24)


class TestSchedules:
    def test_stages_share_the_steps(self) -> None:
        """Equally; what does not divide goes to the earlier ones."""
        found = Schedule.parsed("6-8-10-12", 10)
        assert [stage.size for stage in found.stages] == [6, 8, 10, 12]
        assert [stage.steps for stage in found.stages] == [3, 3, 2, 2]
        assert [stage.first for stage in found.stages] == [0, 3, 6, 8]
        assert [found.at(step).size for step in range(10)] == [6, 6, 6, 8, 8, 8, 10, 10, 12, 12]
        assert [step for step in range(10) if found.begins(step)] == [3, 6, 8]
        assert found.steps == 10

    def test_the_papers_costs_come_out(self) -> None:
        """6-8-10-12 in equal stages is 9 of 12 layers, a saving of 1.33; 12-16-20-24 in
        proportional ones is 20 of 24, of 1.2."""
        assert Schedule.parsed("6-8-10-12", 4000).mean == 9
        found = Schedule.parsed("12-16-20-24", 1000, "proportional")
        assert [stage.steps for stage in found.stages] == [100, 200, 300, 400]
        assert found.mean == 20

    def test_a_warm_up_comes_before(self) -> None:
        """Of the whole network; the stages share what is left."""
        found = Schedule.parsed("4-6", 50, warm_up=10, whole=8)
        assert [(stage.size, stage.steps) for stage in found.stages] == [(8, 10), (4, 20), (6, 20)]

    @pytest.mark.parametrize(
        ("text", "steps", "lengths", "warm_up"),
        [
            ("4-five", 10, "equal", 0), ("", 10, "equal", 0), ("0-4", 10, "equal", 0),
            ("4-5-6", 2, "equal", 0), ("4", 10, "equal", 10), ("4", 10, "longer", 0),
            ("4", 0, "equal", 0), ("nan-4", 10, "equal", 0),
        ],
    )  # fmt: skip
    def test_what_is_no_schedule_is_refused(
        self, text: str, steps: int, lengths: Any, warm_up: int
    ) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match="expected"):
            Schedule.parsed(text, steps, lengths, warm_up=warm_up)


class TestPaths:
    @pytest.mark.parametrize("kind", ["exact", "bernoulli"])
    def test_fixed_layers_are_in_all_and_others_equally_often(self, kind: Any) -> None:
        """By the mean depth, and by each layer's share: (n - |F|) / (L - |F|)."""
        paths = Paths(12, (0, 11), kind, seed=3)
        drawn = [paths(6) for _ in range(4000)]
        assert all(path == tuple(sorted(set(path))) for path in drawn)
        counts = Counter(layer for path in drawn for layer in path)
        assert counts[0] == counts[11] == 4000
        shares = [counts[layer] / 4000 for layer in range(1, 11)]
        assert all(abs(share - 0.4) < 0.04 for share in shares)  # five standard deviations
        depths = [len(path) for path in drawn]
        assert np.mean(depths) == pytest.approx(6, abs=0.12)
        if kind == "exact":
            assert set(depths) == {6}
        else:
            assert np.std(depths) == pytest.approx(math.sqrt(10 * 0.4 * 0.6), abs=0.1)

    def test_a_depth_between_whole_numbers_is_met_on_average(self) -> None:
        """By the two around it."""
        paths = Paths(8, (0, 7), seed=1)
        depths = [len(paths(5.25)) for _ in range(4000)]
        assert set(depths) == {5, 6}
        assert np.mean(depths) == pytest.approx(5.25, abs=0.04)

    def test_the_last_stage_is_the_whole_network(self) -> None:
        """In each of its steps, of either kind."""
        for kind in ("exact", "bernoulli"):
            paths = Paths(5, (0, 4), kind)
            assert {paths(5) for _ in range(100)} == {(0, 1, 2, 3, 4)}

    def test_a_seed_is_a_row_of_paths(self) -> None:
        """The same again, and others for another."""
        rows = [[Paths(9, (0,), seed=s)(4) for _ in range(1)] for s in (1, 1)]
        assert rows[0] == rows[1]
        one, two = Paths(9, (0,), seed=1), Paths(9, (0,), seed=2)
        assert [one(4) for _ in range(9)] != [two(4) for _ in range(9)]

    def test_what_no_path_can_be_is_refused(self) -> None:
        """Fixed layers that are not there, depths below them or above all."""
        with pytest.raises(InvalidArgument, match="fixed"):
            Paths(4, (4,))
        for depth in (1, 4.5):
            with pytest.raises(InvalidArgument, match="depths"):
                Paths(4, (0, 3)).check(depth)


class TestSubnetworks:
    @pytest.mark.parametrize("scale", SCALES)
    def test_the_whole_one_is_the_decoder(self, scale: Any) -> None:
        """Bit by bit, whatever scales while something is left out."""
        model, rows = decoder(DEEP), tokens(3, 12)
        whole = Subnetwork.of(range(6))
        with torch.no_grad():
            assert torch.equal(hidden_of(model, rows, whole, scale), model(rows))
            assert torch.equal(loss_of(model, rows, whole, scale), cross_entropy(model, rows))

    def test_unscaled_it_is_the_pass_through_those_layers(self) -> None:
        """As Decoder.forward takes them."""
        model, rows = decoder(DEEP), tokens(3, 12)
        part = Subnetwork.of([0, 2, 5])
        with torch.no_grad():
            assert torch.equal(hidden_of(model, rows, part, "none"), model(rows, layers=[0, 2, 5]))

    def test_scales_by_hand(self) -> None:
        """Blocks that add 1, 10, 100, 1000 to a stream of 1; the second and third left out."""
        blocks = [lambda x, add=add: x + add for add in (1.0, 10.0, 100.0, 1000.0)]
        part = Subnetwork((0, 3), (1.0, 0.25))
        x = torch.ones(1)

        def value(scale: Any) -> float:
            return float(through(blocks, x, part, scale))

        assert value("none") == 1 + 1 + 1000
        assert value("sqrt") == pytest.approx(1 + math.sqrt(4 / 2) * 1001)
        assert value("inverse") == 1 + 1 + 4 * 1000
        assert value("stream") == pytest.approx(2 * math.sqrt(3 / 1) + 1000)

    def test_inverse_is_the_whole_on_average(self) -> None:
        """Over paths of five and six layers of six, those on which all run included."""
        plan = plan_of(config("5.5"), DEEP)
        assert isinstance(plan, RandomPlan)
        blocks = [lambda x: x + 1.0] * 6
        x = torch.zeros(1, dtype=torch.float64)
        found = [float(through(blocks, x, plan.drawn(5.5), "inverse")) for _ in range(2000)]
        assert set(np.round(found, 3)) == {np.round(2 + n / 0.875, 3) for n in (3, 4)}
        assert np.mean(found) == pytest.approx(6, abs=0.05)

    def test_sqrt_keeps_how_much_layers_add_up_to(self) -> None:
        """At random weights: the stream's spread, behind half of 32 layers, is that of all."""
        config = DecoderConfig(V, 64, 32, 4, context=24)
        model, rows = Decoder(config), tokens(4, 12)
        with torch.no_grad():
            blocks: Any = model.layers
            for layer in blocks:  # as large as what they read, as in a trained network
                layer.attention.out.weight *= 40
                layer.mixer.out.weight *= 40
            start = model.embedding(rows)
            model.norm = torch.nn.Identity()  # type: ignore[assignment]

            def spread(part: Subnetwork, scale: Any) -> float:
                return float((hidden_of(model, rows, part, scale) - start).norm())

            whole = spread(Subnetwork.of(range(32)), "none")
            half = Subnetwork((*range(0, 32, 2),), (0.5,) * 16)
            ratios = {scale: spread(half, scale) / whole for scale in ("none", "sqrt", "inverse")}
        assert ratios["sqrt"] == pytest.approx(1, abs=0.15)
        assert ratios["none"] < 0.85 < 1.15 < ratios["inverse"]

    def test_skipped_layers_are_never_called(self) -> None:
        """Nor have they a gradient."""
        model, rows = decoder(DEEP), tokens(3, 12)
        called: list[int] = []
        for number, layer in enumerate(model.layers):
            layer.register_forward_pre_hook(lambda *_, number=number: called.append(number))
        loss_of(model, rows, Subnetwork.of([0, 3, 5]), "sqrt").backward()  # type: ignore[no-untyped-call]
        assert called == [0, 3, 5]
        has = [all(w.grad is not None for w in layer.parameters()) for layer in model.layers]
        assert has == [True, False, False, True, False, True]

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("layers", [(0, 5), (0, 1, 3, 5), ()])
    def test_what_is_counted_is_what_ran(self, layers: tuple[int, ...], scale: Any) -> None:
        """By PyTorch's own counter, to the last operation; scaling is no product of matrices."""
        model, rows = Decoder(DEEP), tokens(3, 12)
        part = Subnetwork.of(layers)
        with counter() as found:
            loss_of(model, rows, part, scale).backward()  # type: ignore[no-untyped-call]
        assert flops_of(DEEP, 3, 11, part) == found.get_total_flops()

    def test_a_held_out_loss_is_a_mean_over_windows(self) -> None:
        """However they are cut."""
        model, rows = decoder(DEEP), tokens(7, 12)
        part = Subnetwork.of([0, 5])
        with torch.no_grad():
            wanted = float(loss_of(model, rows, part, "sqrt"))
        for batch in (1, 3, 64):
            found = held_out_loss(model, rows, part, "sqrt", batch)
            assert found == pytest.approx(wanted, abs=1e-5)


class TestWidths:
    @pytest.mark.parametrize("config", [DEEP, PLAIN])
    @pytest.mark.parametrize("scale", SCALES)
    def test_all_of_a_layer_is_the_layer(self, config: DecoderConfig, scale: Any) -> None:
        """Every head and unit: within rounding."""
        model, x = decoder(config), torch.randn(2, 9, 32)
        blocks: Any = model.layers
        layer, part = blocks[1], Widths(config)(config.heads)
        with torch.no_grad():
            assert torch.allclose(narrowed(layer, x, part, scale), layer(x, None, 1), atol=1e-5)

    @pytest.mark.parametrize("config", [DEEP, PLAIN])
    def test_a_part_is_the_layer_with_the_rest_at_zero(self, config: DecoderConfig) -> None:
        """Heads whose output is not read, and units likewise."""
        model, x = decoder(config), torch.randn(2, 9, 32)
        blocks: Any = model.layers
        layer, part = blocks[1], Widths(config, 4)(2)
        group = config.heads // config.keys
        with torch.no_grad():
            found = narrowed(layer, x, part, "none")
            heads = {int(key) * group + i for key in part.keys for i in range(group)}
            for head in set(range(4)) - heads:
                layer.attention.out.weight[:, head * 8 : head * 8 + 8] = 0
            off = [unit for unit in range(config.units) if unit not in part.units.tolist()]
            layer.mixer.out.weight[:, off] = 0
            assert torch.allclose(layer(x, None, 1), found, atol=1e-5)
        assert len(heads) == 2
        assert len(part.units) == config.units // 2

    def test_what_is_counted_is_what_ran(self) -> None:
        """Of layers that run in part, beside whole and skipped ones."""
        model, rows, widths = Decoder(DEEP), tokens(3, 12), Widths(DEEP)
        part = Subnetwork((0, 2, 3, 5), (1.0,) * 4, {2: widths(2), 3: widths(2)})
        assert part.parts[2].breadth == Breadth(2, 1, DEEP.units // 2)
        with counter() as found:
            loss_of(model, rows, part, "sqrt").backward()  # type: ignore[no-untyped-call]
        assert flops_of(DEEP, 3, 11, part) == found.get_total_flops()

    def test_what_a_layer_cannot_be_is_refused(self) -> None:
        """Heads that share no keys evenly, and units that go off by themselves."""
        with pytest.raises(InvalidArgument, match="multiple of 2"):
            Widths(DEEP).check(3)
        top = DecoderConfig(V, 32, 2, 2, mixer="relu", hidden=64, active=16)
        with pytest.raises(InvalidArgument, match="active"):
            Widths(top)


def config(depths: str = "3-4-5-6", **told: Any) -> RaptrConfig:
    return RaptrConfig(depths, train=TrainConfig(40, 4, 12, 1e-2, warm=5), **told)


class TestConfigurations:
    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"depths": "1-6"}, "depths of 2"), ({"depths": "3-7"}, "depths of 2"),
            ({"fixed": (6,)}, "fixed"), ({"paths": "some"}, "paths"), ({"scale": "most"}, "scale"),
            ({"skipped": "lost"}, "skipped"), ({"method": "other"}, "method"),
            ({"heads": "2-4"}, "as many stages"), ({"heads": "1-2-4-4"}, "multiple of 2"),
            ({"method": "stacking"}, "'none'"), ({"moments": "old"}, "moments"),
            ({"method": "stacking", "scale": "none", "depths": "6-4"}, "grow"),
            ({"method": "stacking", "scale": "none", "warm_up": 3}, "warm_up"),
            ({"limit": 0}, "limit"), ({"speed": 0}, "speed"), ({"warm_up": 40}, "a step at least"),
            ({"evaluate_every": 0}, "evaluate_every"), ({"probe_paths": 0}, "probe_paths"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused(self, told: Any, message: str) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match=message):
            config(**told).check(DEEP)

    def test_backwards_is_of_equal_stages(self) -> None:
        """Lengths, a warm-up and heads are no matter of order."""
        for told in ({"lengths": "proportional"}, {"warm_up": 3}, {"heads": "2-2-4-4"}):
            with pytest.raises(InvalidArgument, match="backwards"):
                falling(config("3-4-5-6", **told), DEEP)

    def test_every_baseline_costs_what_it_should(self) -> None:
        """The same as RaPTr, planned, but for the whole network at equal steps."""
        raptr = config("3-4-5-6")
        cost = planned_flops(raptr, DEEP)
        for other in (constant, falling, stacking):
            found = other(raptr, DEEP)
            found.check(DEEP)
            assert planned_flops(found, DEEP) == pytest.approx(cost)
        whole = full(raptr, DEEP)
        whole.check(DEEP)
        assert planned_flops(whole, DEEP) > 1.2 * cost
        short = full_at_equal_flops(raptr, DEEP)
        assert planned_flops(short, DEEP) == pytest.approx(cost, rel=0.5 / short.train.steps)
        assert short.train.steps < whole.train.steps
        dropped = dropping(raptr, DEEP)
        dropped.check(DEEP)
        assert planned_flops(dropped, DEEP) == pytest.approx(cost, rel=1e-6)

    @pytest.mark.parametrize("heads", [None, "2-2-4-4"])
    @pytest.mark.parametrize("warm_up", [0, 7])
    def test_plans_cost_what_they_run(self, heads: str | None, warm_up: int) -> None:
        """Step by step, exactly."""
        told = config("3-4-5-6", heads=heads, warm_up=warm_up)
        plan = plan_of(told, DEEP)
        ran = sum(flops_of(DEEP, 4, 11, plan.draw(step)) for step in range(40))
        assert ran == pytest.approx(planned_flops(told, DEEP))

    def test_dropping_drops_later_layers_more_and_ever_more(self) -> None:
        """The last one as the limit says."""
        plan = Dropping(6, 1000, limit=0.4, speed=10)
        assert plan.shares(0) == [1.0] * 6
        end = plan.shares(999)
        assert end == sorted(end, reverse=True)
        assert end[-1] == pytest.approx(0.4, abs=1e-3)
        assert plan.shares(100)[-1] > plan.shares(200)[-1]
        drawn = [plan.draw(999) for _ in range(2000)]
        share = sum(5 in part.layers for part in drawn) / 2000
        assert share == pytest.approx(0.4, abs=0.05)
        assert all(part.keep == tuple(end[layer] for layer in part.layers) for part in drawn)
