"""Divergences by their definition, tau against real decoding, and drafts that come closer.

small.py -> [test_distillspec.py] -> pipelines/distillspec
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, sampled
from soardb.models.training import TrainConfig
from soardb.pipelines.distillspec import (
    DIVERGENCES,
    PRESETS,
    Cost,
    DistillConfig,
    agreement,
    cost_of,
    divergence,
    expected_blocks,
    iid_tau,
    run,
)
from soardb.pipelines.distillspec.measure import until
from soardb.pipelines.speculate import ModelDrafter, SpeculateConfig, decode
from tests.models.small import decoder, tokens

TARGET = decoder(DecoderConfig(12, 32, 2, 2, context=24), 1, sharp=25)
DRAFT = decoder(DecoderConfig(12, 16, 1, 2, context=24), 2, sharp=15)
ROW = tokens(1, 3000, 5, 12)[0].numpy()
QUICK = TrainConfig(60, 16, rate=1e-2, warm=5)


class TestDivergences:
    def test_by_their_definition(self) -> None:
        """On random laws, in float64, against sums over the vocabulary."""
        random = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 7, 5, generator=random, dtype=torch.float64)
        p, q = a.softmax(-1).numpy(), b.softmax(-1).numpy()

        def kl(x: Any, y: Any) -> Any:
            return (x * np.log(x / y)).sum(-1)

        m = 0.3 * p + 0.7 * q
        want = {
            "fkl": kl(p, q),
            "rkl": kl(q, p),
            "jsd": 0.3 * kl(p, m) + 0.7 * kl(q, m),
            "tvd": np.abs(p - q).sum(-1) / 2,
        }
        for kind, values in want.items():
            found = divergence(kind, a, b, 0.3)  # type: ignore[arg-type]
            assert found.numpy() == pytest.approx(values, rel=1e-6)

    @pytest.mark.parametrize("kind", DIVERGENCES)
    def test_descending_makes_the_draft_the_target(self, kind: Any) -> None:
        """Of one law with free logits; the target has no gradient."""
        target = torch.tensor([1.0, 0.2, -1.0, 0.5], requires_grad=True)
        wanted = target.detach().softmax(0)
        draft = torch.zeros(4, requires_grad=True)
        adam = torch.optim.Adam([draft], lr=0.03)
        before = 0.5 * float((wanted - draft.detach().softmax(0)).abs().sum())
        for _ in range(300):
            adam.zero_grad()
            divergence(kind, target, draft).backward()  # type: ignore[no-untyped-call]
            adam.step()
        after = 0.5 * float((wanted - draft.detach().softmax(0)).abs().sum())
        assert after < 0.25 * before
        assert target.grad is None

    def test_small_beta_is_forward_kl(self) -> None:
        """JSD over beta, in the limit."""
        a, b = torch.tensor([1.0, 0.0, 2.0]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
        found = float(divergence("jsd", a, b, 1e-5)) / 1e-5
        assert found == pytest.approx(float(divergence("fkl", a, b)), rel=1e-3)

    def test_the_gradient_of_tvd_plus_is_the_scaled_reward(self) -> None:
        """Centred within a context: contexts weigh anew, the direction within one is TVD's."""
        a, b = torch.tensor([1.0, 0.0, 2.0, 0.3]), torch.tensor([0.0, 1.0, 0.5, 0.0])
        grads = []
        for kind in ("tvd", "tvd++"):
            draft = b.clone().requires_grad_()
            divergence(kind, a, draft).backward()  # type: ignore[no-untyped-call]
            assert draft.grad is not None
            grads.append(draft.grad / draft.grad.norm())
        assert torch.allclose(grads[0], grads[1], atol=1e-5)

    def test_what_is_unknown_is_refused(self) -> None:
        """By the names of the known ones."""
        z = torch.zeros(3)
        with pytest.raises(InvalidArgument, match="fkl, rkl, jsd"):
            divergence("kl", z, z)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="beta"):
            divergence("jsd", z, z, 1.0)


class TestMeasure:
    def test_blocks_of_a_text_by_simulation(self) -> None:
        """Dice for every token, block by block, as decoding does it."""
        rng = np.random.default_rng(0)
        kept = rng.random((1, 9))
        kept[0, -1] = 0
        for gamma in (1, 3, 5):
            counts = []
            for _ in range(4000):
                at = blocks = 0
                while at < 9:
                    blocks += 1
                    for _ in range(gamma):
                        if at >= 9 or rng.random() >= kept[0, at]:
                            break
                        at += 1
                    at += 1  # the target's own token
                counts.append(blocks)
            found = expected_blocks(torch.from_numpy(kept), torch.tensor([9]), gamma)
            assert float(found) == pytest.approx(np.mean(counts), abs=0.08)

    def test_blocks_without_dice(self) -> None:
        """All kept, none kept, and a text that ended early."""
        ones, zeros = torch.ones(1, 12).double(), torch.zeros(1, 12).double()
        assert float(expected_blocks(ones, torch.tensor([12]), 5)) == 2
        assert float(expected_blocks(zeros, torch.tensor([12]), 5)) == 12
        assert float(expected_blocks(zeros, torch.tensor([4]), 5)) == 4

    @pytest.mark.parametrize("sampling", [Sampling(), Sampling(0)])
    def test_tau_is_that_of_real_decoding(self, sampling: Sampling) -> None:
        """Within the noise of 150 texts; alpha is one less total variation on the way."""
        prompts = tokens(150, 4, 3, 12)
        found = agreement(TARGET, DRAFT, prompts, 16, (3,), sampling, seed=1)
        drafter, target, blocks = ModelDrafter(DecoderModel(DRAFT)), DecoderModel(TARGET), 0
        for seed, prompt in enumerate(prompts.tolist()):
            config = SpeculateConfig(3, 16, sampling, seed=seed)
            blocks += len(decode(target, drafter, prompt, config).blocks)
        assert found.tau[3] == pytest.approx(150 * 16 / blocks, rel=0.06)
        assert found.tokens == 150 * 16
        assert found.iid[3] == pytest.approx(iid_tau(found.alpha, 3))

    def test_a_draft_that_is_the_target(self) -> None:
        """Everything is kept."""
        found = agreement(TARGET, TARGET, tokens(5, 4, 3, 12), 18, (2,))
        assert found.alpha == pytest.approx(1)
        assert found.tau[2] == pytest.approx(3)
        assert iid_tau(1.0, 2) == 3
        assert iid_tau(0.0, 2) == 1

    def test_what_follows_the_end_does_not_count(self) -> None:
        """Neither for alpha nor for tau."""
        mask = until(torch.tensor([[1, 0, 2], [0, 0, 1], [1, 2, 3]]), 0)
        assert mask.tolist() == [[True, True, False], [True, False, False], [True] * 3]
        found = agreement(TARGET, DRAFT, tokens(40, 4, 3, 12), 16, (3,), end=2)
        assert found.tokens < 40 * 16

    def test_costs_make_a_speed(self) -> None:
        """tau / (c gamma + 1), of times that were taken."""
        assert Cost(0.1, 1.0).speedup(3.0, 5) == pytest.approx(2)
        cost = cost_of(DecoderModel(TARGET), DecoderModel(DRAFT), [1, 2, 3], 3, repeats=5)
        assert cost.draft_s > 0
        assert cost.c > 0

    def test_models_of_other_tokens_are_refused(self) -> None:
        """By their numbers."""
        other = decoder(DecoderConfig(13, 16, 1, 2, context=24))
        with pytest.raises(InvalidArgument, match="13 and 12"):
            agreement(TARGET, other, tokens(2, 4, 0, 12), 4)
        with pytest.raises(InvalidArgument, match="13 and 12"):
            run(TARGET, other, ROW, DistillConfig())


class TestRun:
    @pytest.mark.parametrize("name", [*PRESETS])
    def test_presets_train_and_take_their_texts(self, name: str) -> None:
        """From where the paper's table says; the models that were given stay."""
        preset = PRESETS[name]
        config = DistillConfig(
            preset.divergence, preset.beta, preset.fixed, preset.student, 4, 12, train=QUICK
        )
        before = copy.deepcopy(DRAFT.state_dict())
        found = run(TARGET, DRAFT, ROW, config)
        wanted = {
            "SeqKD": {"target"},
            "SupKD": {"data"},
            "ImitKD": {"data", "draft"},
            "f-Distill": {"draft", "target"},
            "GKD": {"draft"},
            "control": {"data"},
        }
        assert {where for where, count in found.sources.items() if count} == wanted[name]
        assert sum(found.sources.values()) == 60
        assert all(torch.equal(before[k], v) for k, v in DRAFT.state_dict().items())

    @pytest.mark.parametrize("kind", ["fkl", "jsd", "tvd"])
    def test_distillation_on_its_own_texts_raises_alpha(self, kind: str) -> None:
        """And random texts by cross entropy, which know nothing of the target, do not."""
        prompts = tokens(60, 4, 9, 12)
        config = DistillConfig(kind, prompt=4, length=12, train=QUICK)
        start = agreement(TARGET, DRAFT, prompts, 12).alpha
        distilled = agreement(TARGET, run(TARGET, DRAFT, ROW, config).draft, prompts, 12).alpha
        control = DistillConfig("ce", fixed=1, prompt=4, length=12, train=QUICK)
        plain = agreement(TARGET, run(TARGET, DRAFT, ROW, control).draft, prompts, 12).alpha
        assert distilled > start + 0.05
        assert distilled > plain + 0.05

    def test_the_same_seed_trains_the_same(self) -> None:
        """Weight for weight."""
        config = DistillConfig(prompt=4, length=8, train=TrainConfig(5, 4))
        a, b = (run(TARGET, DRAFT, ROW, config).draft.state_dict() for _ in range(2))
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_texts_that_are_written_have_no_gradient(self) -> None:
        """The loss of a text is what it would be were the text data."""
        config = DistillConfig("fkl", prompt=4, length=6, train=TrainConfig(1, 4, warm=0))
        random = torch.Generator().manual_seed(0)
        heads = tokens(4, 4, 1, 12)
        assert not sampled(DRAFT, heads, 6, Sampling(), random).is_floating_point()
        assert np.isfinite(run(TARGET, DRAFT, ROW, config).losses[0])

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"divergence": "kl"}, "fkl, rkl"),
            ({"fixed": 1.5}, "fixed"),
            ({"student": -0.1}, "student"),
            ({"beta": 0.0}, "beta"),
            ({"temperature": -1.0}, "temperature"),
            ({"prompt": 20, "length": 20}, "within both contexts"),
            ({"train": TrainConfig(0)}, "steps"),
        ],
    )
    def test_settings_that_mean_nothing_are_refused(
        self, told: dict[str, Any], message: str
    ) -> None:
        """By name."""
        with pytest.raises(InvalidArgument, match=message):
            run(TARGET, DRAFT, ROW, DistillConfig(**told))
