"""SpacTor's parts: what is left out and what is replaced, and that nothing leaks between them.

-> [test_spactor.py] -> pipelines/spactor
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from soardb.errors import InvalidArgument
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.encoder import padded
from soardb.models.t5 import T5
from soardb.pipelines.spactor import (
    OBJECTIVES,
    Corrupted,
    Generator,
    GeneratorConfig,
    Objective,
    ObjectiveConfig,
    ReplacedHead,
    SpacTor,
    Spans,
    area,
    corrupted,
    is_text,
    masked,
    span_counts,
    span_mask,
)
from soardb.pipelines.spactor.generator import said

TEXT = EncoderConfig(40, 6, 32, 4, 2, context=64)
CONFIG = T5Config(TEXT, 2)
RANDOM = np.random.default_rng


def rows(count: int = 6, length: int = 40, seed: int = 0) -> Any:
    """(count, length) text tokens at random, none of them an end."""
    return RANDOM(seed).integers(1, TEXT.text_tokens, (count, length))


def batch(seed: int = 0) -> Corrupted:
    """Of rows of unlike lengths, so with pads on both sides."""
    told = [rows(1, length, length)[0] for length in (40, 25, 12, 33)]
    return corrupted(told, Spans(), TEXT, 0, RANDOM(seed))


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSpans:
    @pytest.mark.parametrize(
        ("length", "spans", "want"),
        [
            (64, Spans(), (10, 3)),
            (512, Spans(), (77, 26)),
            (20, Spans(), (3, 1)),
            (2, Spans(), (1, 1)),
            (3, Spans(0.9, 1.0), (2, 1)),
            (10, Spans(0.5, 1.0), (5, 5)),
            (10, Spans(0.99, 3.0), (9, 1)),
        ],
    )
    def test_counts_follow_from_the_length(
        self, length: int, spans: Spans, want: tuple[int, int]
    ) -> None:
        """Rounded, one at least, and never all of a row."""
        assert span_counts(length, spans) == want
        for seed in range(20):
            mask = span_mask(length, spans, RANDOM(seed))
            begins = mask & ~np.concatenate([[False], mask[:-1]])
            assert (len(mask), mask.sum(), begins.sum()) == (length, *want)
            assert not mask[0]
            assert mask[-1]

    def test_each_cut_is_as_likely_as_another(self) -> None:
        """Two pieces of four tokens among six others: 3 x 5 ways, by chi-square of 9,000 draws."""
        source, counts = RANDOM(1), Counter[bytes]()
        for _ in range(9000):
            counts[span_mask(10, Spans(0.4, 2.0), source).tobytes()] += 1
        assert len(counts) == 15
        chi = sum((seen - 600) ** 2 / 600 for seen in counts.values())
        assert chi < 36.1  # of 14 degrees, one in a thousand is above; measured 9.5

    def test_text_and_targets_by_hand(self) -> None:
        """A sentinel for a piece here, before the piece there, and the end."""
        row = np.arange(1, 13)
        found = corrupted([row], Spans(0.4, 2.5), TEXT, 0, RANDOM(3))
        mask = span_mask(12, Spans(0.4, 2.5), RANDOM(3))
        inputs, targets, number = [], [], TEXT.first_sentinel - 1
        for place, token in enumerate(row.tolist()):
            if mask[place] and not mask[place - 1]:
                number += 1
                inputs.append(number)
                targets.append(number)
            (targets if mask[place] else inputs).append(token)
        assert found.inputs.tolist() == [inputs]
        assert found.targets.tolist() == [[*targets, 0]]

    def test_nothing_is_lost_and_nothing_is_twice(self) -> None:
        """Both together give the row back, whatever its length."""
        told = [rows(1, length, length)[0] for length in range(2, 40)]
        found = corrupted(told, Spans(), TEXT, 0, RANDOM(5))
        for row, inputs, targets in zip(told, found.inputs, found.targets, strict=True):
            pieces: dict[int, list[int]] = {}
            for token in targets[targets != TEXT.pad].tolist()[:-1]:
                if token >= TEXT.first_sentinel:
                    pieces[token] = []
                else:
                    pieces[max(pieces)].append(token)
            back = [
                one for token in inputs[inputs != TEXT.pad].tolist()
                for one in pieces.get(token, [token])
            ]  # fmt: skip
            assert back == row.tolist()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Spans(0.0).check(), "density"),
            (lambda: Spans(1.0).check(), "density"),
            (lambda: Spans(0.1, 0.5).check(), "at least 1 token"),
            (lambda: span_counts(1, Spans()), "at least 2 tokens"),
            (
                lambda: corrupted(rows(1, 60), Spans(0.5, 1.0), TEXT, 0, RANDOM(0)),
                "at most 6 pieces",
            ),
        ],
    )
    def test_what_cannot_be_cut_is_refused(self, make: Any, message: str) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match=message):
            make()


class TestMasks:
    def test_text_alone_is_masked(self) -> None:
        """No sentinel, no pad; round(rate x text) of each row, and one at least."""
        inputs = batch().inputs
        for rate in (0.001, 0.15, 0.5, 1.0):
            where = masked(inputs, rate, TEXT, random())
            assert not (where & ~is_text(inputs, TEXT)).any()
            text = is_text(inputs, TEXT).sum(1)
            assert where.sum(1).tolist() == [max(1, round(rate * int(n))) for n in text]

    def test_each_text_token_is_as_likely(self) -> None:
        """Over 4,000 draws of 3 of 12: a quarter each, within 4 standard deviations."""
        inputs = padded([[*range(1, 7), TEXT.first_sentinel, *range(7, 13), TEXT.pad]], TEXT.pad)
        source = random(1)
        draws = torch.cat([masked(inputs, 0.25, TEXT, source) for _ in range(4000)])
        seen = draws.double().mean(0)
        text = is_text(inputs, TEXT)[0]
        assert seen[~text].sum() == 0
        assert (seen[text] - 0.25).abs().max() < 4 * (0.25 * 0.75 / 4000) ** 0.5

    def test_a_row_without_text_has_none(self) -> None:
        """Rather than a pad."""
        only = torch.tensor([[TEXT.first_sentinel, TEXT.pad]])
        assert not masked(only, 0.5, TEXT, random()).any()


def spactor(told: ObjectiveConfig | None = None, seed: int = 0) -> SpacTor:
    return SpacTor(T5(CONFIG, seed), told or ObjectiveConfig(), seed)


class Seen:
    """What an encoder was given to read."""

    def __init__(self, model: SpacTor) -> None:
        self.tokens: list[torch.Tensor] = []
        model.t5.encoder.register_forward_pre_hook(lambda _, given: self.tokens.append(given[0]))


class TestObjective:
    def test_only_masked_text_is_replaced(self) -> None:
        """Sentinels, pads and all else stay; what is drawn is a text token."""
        inputs = batch().inputs
        noised = spactor().noised(inputs, random(2))
        assert torch.equal(noised.seen[~noised.where], inputs[~noised.where])
        assert is_text(noised.seen[noised.where], TEXT).all()
        assert torch.equal(noised.wanted, inputs[noised.where])
        assert (noised.seen != inputs).any()

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_no_mask_reaches_the_t5(self, objective: Objective) -> None:
        """But under sc+mlm, which is about that; the generator's masks are its own."""
        model, told = spactor(), batch()
        seen = Seen(model)
        model(told, objective, random(3))
        found = seen.tokens[0]
        assert len(seen.tokens) == 1
        assert bool((found == TEXT.mask).any()) == (objective == "sc+mlm")
        assert torch.equal(found == TEXT.pad, told.inputs == TEXT.pad)
        first = TEXT.first_sentinel
        assert torch.equal(found[told.inputs >= first], told.inputs[told.inputs >= first])
        assert torch.equal(found, told.inputs) == (objective == "sc")

    def test_a_token_that_was_drawn_as_it_stood_is_no_replacement(self) -> None:
        """A generator that is sure of the original: nothing counts as replaced, though masked."""
        model, told = spactor(), batch()
        asked: list[torch.Tensor] = []

        def sure(inputs: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
            asked.append(where)
            wanted = told.inputs[where]
            return 1e4 * torch.nn.functional.one_hot(wanted, TEXT.text_tokens).float()

        model.generator.forward = sure  # type: ignore[method-assign]
        lesson = model(told, "hybrid", random(4))
        assert asked[0].any()
        there = is_text(told.inputs, TEXT)
        logits = model.head(model.t5.encoder(told.inputs)[there]).detach()
        want = torch.nn.functional.softplus(logits).mean()  # -log p(not replaced)
        assert float(lesson.parts["rtd"].detach()) == pytest.approx(float(want), abs=1e-6)

    def test_sentinels_and_pads_are_not_asked_about(self) -> None:
        """The head's loss is the mean over text, by hand."""
        model, told = spactor(), batch()
        lesson = model(told, "rtd", random(5))
        noised = model.noised(told.inputs, random(5))
        total, count = 0.0, 0
        logits = model.head(model.t5.encoder(noised.seen)).detach()
        for place in torch.nonzero(told.inputs < TEXT.text_tokens).tolist():
            i, j = place
            sign = 1.0 if noised.seen[i, j] != told.inputs[i, j] else -1.0
            total += float(torch.nn.functional.softplus(-sign * logits[i, j]))
            count += 1
        assert float(lesson.parts["rtd"].detach()) == pytest.approx(total / count, abs=1e-5)
        assert count < told.inputs.numel()

    def test_no_gradient_goes_through_drawing(self) -> None:
        """Detection and span corruption teach the generator nothing; masked guessing alone does."""
        model = spactor(ObjectiveConfig(generator=GeneratorConfig(tied=False)))
        lesson = model(batch(), "hybrid", random(6))
        mine = list(model.generator.parameters())
        others = lesson.parts["rtd"] + lesson.parts["sc"]
        found = torch.autograd.grad(others, mine, retain_graph=True, allow_unused=True)
        assert all(one is None for one in found)
        own = torch.autograd.grad(lesson.parts["mlm"], mine, retain_graph=True)
        assert any(one.abs().sum() > 0 for one in own)
        t5 = torch.autograd.grad(
            lesson.parts["mlm"], list(model.t5.parameters()), allow_unused=True
        )
        assert all(one is None for one in t5)
        assert not said(model.noised(batch().inputs, random(6)).logits, random()).requires_grad

    def test_tied_the_generator_moves_the_embedding_alone(self) -> None:
        """Of the T5: one embedding, counted once."""
        model = spactor()
        lesson = model(batch(), "noise", random(7))
        named = dict(model.t5.named_parameters())
        found = torch.autograd.grad(lesson.parts["mlm"], list(named.values()), allow_unused=True)
        moved = [name for name, one in zip(named, found, strict=True) if one is not None]
        assert moved == ["encoder.embedding.weight"]
        assert model.generator.embedding is model.t5.encoder.embedding
        ids = [id(weight) for weight in model.parameters()]
        assert len(ids) == len(set(ids))

    def test_parts_and_weights(self) -> None:
        """Which parts each objective has, and that the whole is their sum over lambda2."""
        told = ObjectiveConfig(lambda1=7.0, lambda2=4.0)
        model, wanted = spactor(told), {
            "sc": {"sc"}, "hybrid": {"mlm", "rtd", "sc"}, "noise": {"mlm", "sc"},
            "rtd": {"mlm", "rtd"}, "sc+mlm": {"mlm", "sc"},
        }  # fmt: skip
        weights = {"mlm": 1.0, "rtd": 7.0, "sc": 4.0}
        for objective in OBJECTIVES:
            lesson = model(batch(), objective, random(8))
            assert set(lesson.parts) == wanted[objective]
            whole = sum(weights[name] * float(one.detach()) for name, one in lesson.parts.items())
            assert float(lesson.loss.detach()) == pytest.approx(whole / 4, abs=1e-5)

    @pytest.mark.parametrize("objective", OBJECTIVES)
    @pytest.mark.parametrize(
        "size",
        [
            GeneratorConfig(),
            GeneratorConfig(0.5, 0.5),
            GeneratorConfig(0.5, 0.5, tied=False),
            GeneratorConfig(1.0, 1.0, tied=False),
        ],
    )
    def test_operations_are_those_that_ran(
        self, objective: Objective, size: GeneratorConfig
    ) -> None:
        """By PyTorch's own counter, forward and backward, to the last one."""
        model = spactor(ObjectiveConfig(generator=size))
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            lesson = model(batch(), objective, random(9))
            lesson.loss.backward()
        assert lesson.flops == counter.get_total_flops()

    def test_a_linear_head_is_counted_too(self) -> None:
        """One map of the two."""
        model = spactor(ObjectiveConfig(head="linear"))
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            lesson = model(batch(), "hybrid", random(9))
            lesson.loss.backward()
        assert lesson.flops == counter.get_total_flops()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ObjectiveConfig(lambda1=-1).check(), "lambda1"),
            (lambda: ObjectiveConfig(lambda2=0).check(), "lambda2"),
            (lambda: ObjectiveConfig(mask_rate=0).check(), "mask_rate"),
            (lambda: ObjectiveConfig(head="deep").check(), "linear, mlp"),  # type: ignore[arg-type]
            (lambda: ReplacedHead(8, "deep"), "linear, mlp"),  # type: ignore[arg-type]
            (lambda: GeneratorConfig(depth=0).check(), "depth"),
            (lambda: GeneratorConfig(width=2).check(), "width"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make: Any, message: str) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match=message):
            make()


class TestGenerator:
    def test_sizes_are_shares(self) -> None:
        """One layer at least, a width that its heads divide, units in proportion."""
        shape = GeneratorConfig(0.25, 0.5).shape(TEXT)
        assert (shape.layers, shape.width, shape.units) == (1, 16, 48)
        assert GeneratorConfig(0.01, 0.01).shape(TEXT).width == 4
        assert GeneratorConfig(1.0, 1.0).shape(TEXT) == TEXT.shape(4)

    def test_untied_it_has_an_embedding_of_its_own(self) -> None:
        """Drawn anew; the T5's is as it was."""
        t5 = T5(CONFIG, 1)
        before = t5.encoder.embedding.weight.clone()
        for size in (GeneratorConfig(), GeneratorConfig(0.5, 0.5, tied=False)):
            made = Generator(TEXT, size, t5.encoder.embedding, 2)
            assert (made.embedding is t5.encoder.embedding) == size.tied
            assert torch.equal(t5.encoder.embedding.weight, before)

    def test_it_says_text_at_its_places_alone(self) -> None:
        """And what it says there hangs on all it reads."""
        model = spactor()
        inputs = batch().inputs
        where = masked(inputs, 0.2, TEXT, random(1))
        logits = model.generator(inputs.masked_fill(where, TEXT.mask), where)
        assert logits.shape == (int(where.sum()), TEXT.text_tokens)
        other = inputs.clone()
        other[0, 0] = 1 + other[0, 0] % 39
        again = model.generator(other.masked_fill(where, TEXT.mask), where)
        mine = int(where[0].sum())
        assert not torch.allclose(again[:mine], logits[:mine], atol=1e-7)
        assert torch.equal(again[mine:], logits[mine:])

    def test_tokens_are_drawn_from_its_law(self) -> None:
        """At temperature 1, by the shares of 20,000 draws."""
        law = torch.tensor([0.5, 0.3, 0.2])
        drawn = said(law.log().repeat(20_000, 1), random(2))
        shares = torch.bincount(drawn, minlength=3) / 20_000
        assert (shares - law).abs().max() < 0.015


def test_the_area_is_that_of_all_pairs() -> None:
    """By comparing each replaced token with each other; ties count half."""
    source = random(3)
    scores = torch.randint(0, 12, (300,), generator=source).float()
    labels = torch.rand(300, generator=source) < 0.2
    pairs = scores[labels][:, None] - scores[~labels][None]
    want = float(((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean())
    assert area(scores, labels) == pytest.approx(want, abs=1e-12)
    assert area(torch.tensor([1.0, 2.0]), torch.tensor([False, True])) == 1
    assert np.isnan(area(torch.tensor([1.0]), torch.tensor([True])))
