"""Samples of many prompts at once are those of each prompt alone.

soardb/models/batches.py, small.py -> [test_batches.py]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from soardb import deadline
from soardb.errors import InvalidArgument, TimedOut
from soardb.models import batches
from soardb.models import cache as cache_module
from soardb.models.batches import Draws, continued, token_at, tokens_held
from soardb.models.cache import Cache
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, DecoderSession, generate
from tests.models.small import SMALL, decoder

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [3, 3]]
GREEDY = Sampling(0)


def alone(model: Decoder, prompt: list[int], written: list[int]) -> float:
    """The log-probability of tokens after a prompt, read by a session."""
    logits = DecoderSession(model).read([*prompt, *written])[len(prompt) - 1 : -1]
    laws = logits.double().log_softmax(-1)
    return float(laws.gather(-1, torch.tensor(written)[:, None]).sum())


class TestPadding:
    def test_a_prompt_is_read_as_it_is_alone(self) -> None:
        """What stands before a prompt is seen by none of its tokens."""
        model = decoder()
        width = max(map(len, PROMPTS))
        rows = torch.tensor([[0] * (width - len(one)) + one for one in PROMPTS])
        starts = torch.tensor([width - len(one) for one in PROMPTS])
        with torch.inference_mode():
            cache = Cache(model.config, len(PROMPTS), width, starts)
            found = model.logits(model(rows, cache))
        for row, prompt in zip(found, PROMPTS, strict=True):
            expected = DecoderSession(model).read(prompt)
            torch.testing.assert_close(row[-len(prompt) :], expected, atol=1e-4, rtol=1e-4)

    def test_what_stands_before_changes_nothing(self) -> None:
        """Whatever tokens the pads are, and none of their states is other than a number."""
        model = decoder()
        found = []
        for pad in (0, 7):
            with torch.inference_mode():
                cache = Cache(model.config, 1, 8, torch.tensor([5]))
                found.append(model(torch.tensor([[pad] * 5 + [1, 2, 3]]), cache))
        assert bool(found[1].isfinite().all())
        assert torch.equal(found[0][:, 5:], found[1][:, 5:])
        assert not torch.equal(found[0][:, :5], found[1][:, :5])

    def test_shared_key_heads_are_masked_too(self) -> None:
        """Grouped queries go through another path of the attention."""
        model = decoder(DecoderConfig(20, 32, 2, 4, 2, context=24))
        found = continued(model, PROMPTS, Draws(1, 8, GREEDY), [0] * 4)
        for prompt, (one,) in zip(PROMPTS, found, strict=True):
            random = torch.Generator()
            assert one.tokens == list(generate(DecoderModel(model), prompt, 8, GREEDY, random))


class TestBranches:
    @pytest.mark.parametrize("pads", [0, 2])
    def test_a_branch_sees_the_stem_and_itself(self, pads: int) -> None:
        """Each is what a session reads that goes that way alone."""
        model = decoder()
        stem, ways = [1, 2, 3, 4], [[5, 8, 4], [6, 9, 4], [7, 10, 2]]
        starts = torch.tensor([pads]) if pads else None
        with torch.inference_mode():
            cache = Cache(model.config, 1, 24, starts)
            model(torch.tensor([[0] * pads + stem]), cache)
            cache.branch(3)
            turns = torch.tensor(ways).T
            found = [model.logits(model(one[None], cache))[0] for one in turns]
        for number, way in enumerate(ways):
            expected = DecoderSession(model).read([*stem, *way])[len(stem) :]
            mine = torch.stack([one[number] for one in found])
            torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("is_copy", [True, False])
    @pytest.mark.parametrize("pads", [0, 2])
    def test_rows_are_taken_with_their_branches(self, is_copy: bool, pads: int) -> None:
        """Whatever stands in the others."""
        model = decoder()
        with torch.inference_mode():
            cache = Cache(model.config, 2, 24, torch.tensor([1, pads]) if pads else None)
            model(torch.tensor([[0] * pads + [1, 2, 3], [0] * pads + [4, 5, 6]]), cache)
            cache.branch(2)
            model(torch.tensor([[7, 8], [9, 10]]), cache)
            if is_copy:
                cache = cache.picked(torch.tensor([1]), cache.room)
            else:
                cache.keep(torch.tensor([1]))
            found = model.logits(model(torch.tensor([[11, 12]]), cache))[0]
        for number, way in enumerate([[4, 5, 6, 9, 11], [4, 5, 6, 10, 12]]):
            expected = DecoderSession(model).read(way)[-1]
            torch.testing.assert_close(found[number], expected, atol=1e-4, rtol=1e-4)

    def test_a_branch_has_no_branches(self) -> None:
        """They would have to be told apart by more than their place."""
        cache = Cache(SMALL)
        cache.branch(2)
        with pytest.raises(InvalidArgument, match="without branches, it has 2"):
            cache.branch(2)

    def test_what_would_be_read_wrongly_is_refused(self) -> None:
        """Other than a token of each, and going back into what they have in common."""
        model = decoder()
        with torch.inference_mode():
            cache = Cache(model.config)
            model(torch.tensor([[1, 2, 3]]), cache)
            cache.branch(2)
            with pytest.raises(InvalidArgument, match="a token of each of 2 branches, got 4"):
                model(torch.tensor([[1, 2, 3, 4]]), cache)
            model(torch.tensor([[4, 5]]), cache)
            model(torch.tensor([[6, 7]]), cache)
            with pytest.raises(InvalidArgument, match=r"in 3\.\.7, got 2"):
                cache.back_to(2)
            with pytest.raises(InvalidArgument, match="a multiple of 2 branches, got 6"):
                cache.back_to(6)
            cache.back_to(5)
            found = model.logits(model(torch.tensor([[6, 8]]), cache))[0, 1]
        expected = DecoderSession(model).read([1, 2, 3, 5, 8])[-1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_a_mask_is_not_that_of_before(self) -> None:
        """As many tokens to the same place, before they branched and after."""
        model = decoder()
        with torch.inference_mode():
            cache = Cache(model.config, 1, 24, torch.tensor([0]))
            model(torch.tensor([[1, 2, 3]]), cache)
            model(torch.tensor([[4, 5]]), cache)
            cache.back_to(3)
            cache.branch(2)
            found = model.logits(model(torch.tensor([[4, 5]]), cache))[0, 1]
        expected = DecoderSession(model).read([1, 2, 3, 5])[-1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("n", [1, 4, 6, 7, 16])
    def test_what_is_held_is_bounded(self, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """By what is promised, for any number of samples."""
        held: list[int] = []

        class Counted(Cache):
            def __init__(self, config: DecoderConfig, rows: int, room: int, starts: Any) -> None:
                super().__init__(config, rows, room, starts)
                held.append(rows * self.room)

        monkeypatch.setattr(batches, "Cache", Counted)
        monkeypatch.setattr(cache_module, "Cache", Counted)
        continued(decoder(), PROMPTS, Draws(n, 6), [0] * 4)
        assert sum(held) == len(PROMPTS) * tokens_held(n, 7, 6)


class TestContinued:
    def test_greedy_tokens_are_those_of_a_session(self) -> None:
        """The same tokens, and their log-probabilities to float rounding."""
        model = decoder()
        found = continued(model, PROMPTS, Draws(2, 12, GREEDY), [0] * 4)
        for prompt, samples in zip(PROMPTS, found, strict=True):
            expected = list(generate(DecoderModel(model), prompt, 12, GREEDY, torch.Generator()))
            for one in samples:
                assert one.tokens == expected
                assert one.logprob == pytest.approx(alone(model, prompt, expected), abs=1e-4)

    def test_a_sample_is_the_same_whatever_is_beside_it(self) -> None:
        """Samples that end early leave the batch, and no other sample changes by it."""
        model = decoder(sharp=5)
        draws = Draws(8, 14, end=2)
        seeds = [11, 12, 13, 14]
        together = continued(model, PROMPTS, draws, seeds)
        for prompt, seed, samples in zip(PROMPTS, seeds, together, strict=True):
            for one, other in zip(
                samples, continued(model, [prompt], draws, [seed])[0], strict=True
            ):
                assert one.tokens == other.tokens
                assert one.is_finished == other.is_finished
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        lengths = {len(one.tokens) for samples in together for one in samples}
        assert len(lengths) > 3  # they did end at unlike times

    def test_log_probabilities_are_at_temperature_1(self) -> None:
        """However the tokens were drawn."""
        model = decoder()
        for sampling in (Sampling(0.3), Sampling(2.0), Sampling(1.0, top_k=2)):
            found = continued(model, PROMPTS, Draws(2, 6, sampling), [1, 2, 3, 4])
            for prompt, samples in zip(PROMPTS, found, strict=True):
                for one in samples:
                    assert one.logprob == pytest.approx(alone(model, prompt, one.tokens), abs=1e-4)

    def test_a_sample_ends_with_the_end(self) -> None:
        """The end is its last token and comes once; a sample without it is not finished."""
        found = continued(decoder(sharp=5), PROMPTS, Draws(16, 12, end=2), [1, 2, 3, 4])
        told = [one for samples in found for one in samples]
        for one in told:
            assert one.is_finished == (one.tokens[-1] == 2)
            assert 2 not in one.tokens[:-1]
            assert one.is_finished or len(one.tokens) == 12
        assert {one.is_finished for one in told} == {True, False}

    def test_a_sample_ends_where_it_is_told_to(self) -> None:
        """is_over sees all tokens so far, and the last of them is kept."""
        draws = Draws(4, 12, is_over=lambda tokens: len(tokens) == 3)
        for samples in continued(decoder(), PROMPTS, draws, [1, 2, 3, 4]):
            assert [len(one.tokens) for one in samples] == [3] * 4
            assert all(one.is_finished for one in samples)

    def test_a_sample_ends_where_the_context_is_full(self) -> None:
        """Each by its own prompt: a long one beside it takes nothing of its room."""
        prompts = [[1], list(range(20))]
        short, long = continued(decoder(), prompts, Draws(1, 50, GREEDY), [0, 0])
        assert len(short[0].tokens) == SMALL.context - 1
        assert len(long[0].tokens) == SMALL.context - 20
        assert short[0].tokens == list(
            generate(DecoderModel(decoder()), [1], SMALL.context - 1, GREEDY, torch.Generator())
        )

    def test_samples_follow_the_law(self) -> None:
        """The pairs of two tokens at temperature 1 come as often as the model says."""
        model = decoder(DecoderConfig(5, 16, 1, 2, context=8), sharp=20)
        count = 20_000
        samples = continued(model, [[1, 2], [3]], Draws(count, 2), [5, 6])[0]
        pairs = np.zeros((5, 5))
        for one in samples:
            pairs[tuple(one.tokens)] += 1
        expected = np.exp([[alone(model, [1, 2], [a, b]) for b in range(5)] for a in range(5)])
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        likely = expected * count > 5
        squares = (pairs - expected * count)[likely] ** 2 / (expected * count)[likely]
        # Of 24 degrees at most: 51 is passed once in a thousand seeds.
        assert squares.sum() < 51
        assert likely.sum() > 5

    def test_the_time_of_a_call_is_kept(self) -> None:
        """A batch is given up between two tokens."""
        with deadline.within(0.0), pytest.raises(TimedOut):
            continued(decoder(), PROMPTS, Draws(1, 12), [0] * 4)

    @pytest.mark.parametrize(
        ("prompts", "seeds", "draws", "word"),
        [
            ([[]], [0], Draws(), "1..23 tokens"),
            ([[1] * 24], [0], Draws(), "1..23 tokens"),
            ([[1], [2]], [0], Draws(), "2 seeds"),
            ([[1]], [0], Draws(0), "n"),
            ([[1]], [0], Draws(longest=0), "longest"),
            ([[1]], [0], Draws(sampling=Sampling(-1)), "temperature"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, prompts: list[list[int]], seeds: list[int], draws: Draws, word: str
    ) -> None:
        """With the number that was expected."""
        with pytest.raises(InvalidArgument, match=word):
            continued(decoder(), prompts, draws, seeds)

    def test_no_prompts_have_no_samples(self) -> None:
        """As any list of none."""
        assert continued(decoder(), [], Draws(), []) == []


class TestTokenAt:
    def test_a_token_without_probability_never_comes(self) -> None:
        """Not at 0, not next to 1, not between."""
        law = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0], dtype=torch.float64)
        numbers = [0.0, 0.2499, 0.25, 0.9, 1 - 2.0**-53]
        found = [int(token_at(law, torch.tensor(one, dtype=torch.float64))) for one in numbers]
        assert found == [1, 1, 3, 3, 3]
