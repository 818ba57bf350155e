"""Speculative decoding is the target's own decoding: by chi-square, token by token, and by passes.

chains.py, small.py -> [test_speculate.py] -> pipelines/speculate
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chi2

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, generate
from soardb.pipelines.speculate import (
    Lenience,
    ModelDrafter,
    SpeculateConfig,
    TextDrafter,
    acceptance,
    decode,
    residual,
    verified,
)
from tests.models.small import decoder
from tests.pipelines.chains import Chain, exact_laws

TARGET = Chain(4, 0)
DRAFT = Chain(4, 1, like=TARGET)
PROMPT = [1, 2]
LENGTH, RUNS = 3, 1500


def p_value(counts: Counter[tuple[int, ...]], laws: dict[tuple[int, ...], float]) -> float:
    """Of a chi-square test, what is rare put together; what is impossible must not come."""
    assert all(laws[text] > 0 for text in counts)
    runs = sum(counts.values())
    rare = [text for text, p in laws.items() if p * runs < 5]
    cells = [(counts[t], p * runs) for t, p in laws.items() if p * runs >= 5]
    if (rest := sum(laws[t] for t in rare) * runs) > 0:
        cells.append((sum(counts[t] for t in rare), rest))
    statistic = sum((seen - due) ** 2 / due for seen, due in cells)
    return float(chi2.sf(statistic, len(cells) - 1))


def drawn(drafter: Any, sampling: Sampling, gamma: int, **told: Any) -> Counter[tuple[int, ...]]:
    """Many continuations, each of its own seed."""
    out: Counter[tuple[int, ...]] = Counter()
    for seed in range(RUNS):
        config = SpeculateConfig(gamma, LENGTH, sampling, seed=seed, **told)
        out[tuple(decode(TARGET, drafter, PROMPT, config).tokens)] += 1
    return out


class TestLosslessness:
    @pytest.mark.parametrize("gamma", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("temperature", [0.7, 1.0])
    def test_what_comes_out_is_drawn_from_the_target(self, gamma: int, temperature: float) -> None:
        """Against the exact law of all continuations."""
        sampling = Sampling(temperature)
        laws = exact_laws(TARGET, PROMPT, LENGTH, sampling)
        assert p_value(drawn(ModelDrafter(DRAFT), sampling, gamma), laws) > 1e-4

    @pytest.mark.parametrize("sampling", [Sampling(1, top_k=2), Sampling(0.9, top_p=0.7)])
    def test_top_k_and_top_p_are_those_of_the_target(self, sampling: Sampling) -> None:
        """Folded into both laws; nothing that they forbid comes out."""
        laws = exact_laws(TARGET, PROMPT, LENGTH, sampling)
        assert p_value(drawn(ModelDrafter(DRAFT), sampling, 3), laws) > 1e-4

    def test_the_test_notices_what_is_lossy(self) -> None:
        """Or it would prove nothing: with eps 0.3 the law is another."""
        laws = exact_laws(TARGET, PROMPT, LENGTH, Sampling())
        lossy = drawn(ModelDrafter(DRAFT), Sampling(), 3, lenience=Lenience("square", 0.3))
        assert p_value(lossy, laws) < 1e-6

    def test_stored_text_drafts_exactly_too(self) -> None:
        """Though its laws are sure."""
        drafter = TextDrafter([[1, 2, 3, 0, 1, 2, 1], [2, 2, 2]], 4, longest=2)
        laws = exact_laws(TARGET, PROMPT, LENGTH, Sampling())
        assert p_value(drawn(drafter, Sampling(), 3), laws) > 1e-4

    @pytest.mark.parametrize("gamma", [1, 2, 3, 4, 5])
    def test_greedy_is_the_same_token_for_token(self, gamma: int) -> None:
        """Of tables and of transformers, whose caches go back, to the end of the context."""
        random = torch.Generator()
        models = [(TARGET, DRAFT, 40)]
        large, small = decoder(seed=1), decoder(DecoderConfig(20, 16, 1, 2, context=24), 2)
        models.append((DecoderModel(large), DecoderModel(small), 22))  # type: ignore[arg-type]
        for target, draft, longest in models:
            want = list(generate(target, PROMPT, longest, Sampling(0), random))
            config = SpeculateConfig(gamma, longest, Sampling(0))
            for drafter in (ModelDrafter(draft), TextDrafter([want[3:]], target.vocabulary)):
                assert decode(target, drafter, PROMPT, config).tokens == want

    def test_transformers_are_drawn_from_exactly(self) -> None:
        """First two tokens of many runs, by the target's laws."""
        large = decoder(DecoderConfig(4, 16, 1, 2, context=8), 3, sharp=40)
        target, draft = DecoderModel(large), DecoderModel(decoder(SMALL_DRAFT, 4, sharp=30))
        laws: dict[tuple[int, ...], float] = {}
        with torch.inference_mode():
            first = Sampling().law(large.logits(large(torch.tensor([PROMPT])))[0, -1])
            for a in range(4):
                row = torch.tensor([[*PROMPT, a]])
                second = Sampling().law(large.logits(large(row))[0, -1])
                laws |= {(a, b): float(first[a] * second[b]) for b in range(4)}
        counts: Counter[tuple[int, ...]] = Counter()
        drafter = ModelDrafter(draft)
        for seed in range(RUNS):
            config = SpeculateConfig(2, 2, seed=seed)
            counts[tuple(decode(target, drafter, PROMPT, config).tokens)] += 1
        assert p_value(counts, laws) > 1e-4


SMALL_DRAFT = DecoderConfig(4, 16, 1, 2, context=8)


class TestEfficiency:
    def test_a_draft_that_is_the_target_is_always_kept(self) -> None:
        """Every block is whole: gamma + 1 tokens a pass."""
        config = SpeculateConfig(4, 50, seed=3)
        found = decode(TARGET, ModelDrafter(TARGET), PROMPT, config)
        assert len(found.tokens) == 50
        assert [len(block.tokens) for block in found.blocks] == [5] * 10
        assert found.tau == 5

    def test_the_share_kept_is_one_less_total_variation(self) -> None:
        """Of one law over another, by many draws."""
        random = torch.Generator().manual_seed(0)
        p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
        assert float(acceptance(p, q)) == pytest.approx(0.6)
        two, one, kept = torch.stack([p, p]), q[None], 0
        for _ in range(5000):
            token = int(torch.multinomial(q, 1, generator=random))
            kept += verified(two, one, [token], random)[0]
        assert kept / 5000 == pytest.approx(0.6, abs=0.03)

    def test_the_residual_is_what_the_target_has_more(self) -> None:
        """Made to sum to 1; of equal laws the law itself."""
        p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
        assert residual(p, q).tolist() == pytest.approx([0.75, 0.25, 0])
        assert residual(p, p).tolist() == p.tolist()

    def test_lenience_keeps_more(self) -> None:
        """In the order of its definition, and all of it at the end."""
        taus = []
        for kind, eps in (("linear", 1.0), ("linear", 0.3), ("square", 0.3), ("square", 0.001)):
            config = SpeculateConfig(4, 400, lenience=Lenience(kind, eps), seed=1)  # type: ignore[arg-type]
            taus.append(decode(TARGET, ModelDrafter(DRAFT), PROMPT, config).tau)
        assert taus == sorted(taus)
        assert taus[-1] == 5
        p = torch.tensor([0.25])
        assert [float(Lenience(k, 0.5).of(p)) for k in ("linear", "square", "power")] == [
            0.5, 1.0, 0.5,
        ]  # fmt: skip

    def test_passes_are_counted(self) -> None:
        """One of the target a block, and one of the draft a token that it proposes."""
        TARGET.passes = 0
        drafter = ModelDrafter(DRAFT)
        found = decode(TARGET, drafter, PROMPT, SpeculateConfig(3, 30, seed=2))
        assert TARGET.passes == len(found.blocks) + 1  # and the prompt
        assert drafter.passes == sum(block.drafted for block in found.blocks)
        assert sum(block.kept for block in found.blocks) + len(found.blocks) == 30

    def test_stored_text_is_found_by_its_last_tokens(self) -> None:
        """Longer ones first, what was just said before what is stored."""
        drafter = TextDrafter([[5, 6, 7, 8, 9], [6, 1]], 10, longest=3)
        random = torch.Generator()
        propose = drafter.propose
        assert propose([0, 5, 6], 2, Sampling(), random)[0] == [7, 8]
        assert propose([0, 6], 9, Sampling(), random)[0] == [7, 8, 9]
        assert propose([4, 4], 9, Sampling(), random)[0] == []
        said = [5, 6, 7, 2, 3, 5, 6, 7]
        tokens, laws = propose(said, 3, Sampling(), random)
        assert tokens == [2, 3, 5]
        assert laws.argmax(1).tolist() == tokens
        assert laws.sum().item() == 3


class TestEnds:
    def test_the_end_is_the_last_token(self) -> None:
        """Wherever in a block it comes."""
        for seed in range(30):
            config = SpeculateConfig(4, 60, seed=seed)
            tokens = decode(TARGET, ModelDrafter(DRAFT), PROMPT, config, end=3).tokens
            assert 3 not in tokens[:-1]
            assert tokens[-1] == 3 or len(tokens) == 60

    def test_the_same_seed_says_the_same(self) -> None:
        """Whatever the drafter did before."""
        drafter = ModelDrafter(DRAFT)
        runs = [decode(TARGET, drafter, PROMPT, SpeculateConfig(3, 20, seed=s)) for s in (1, 2, 1)]
        assert runs[0].tokens == runs[2].tokens != runs[1].tokens

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ({"gamma": 0}, "gamma"),
            ({"longest": 0}, "longest"),
            ({"sampling": Sampling(-1)}, "temperature"),
            ({"lenience": Lenience("linear", 0)}, "eps"),
            ({"lenience": Lenience("half", 1)}, "linear, square, power"),  # type: ignore[arg-type]
        ],
    )
    def test_settings_that_mean_nothing_are_refused(
        self, told: dict[str, Any], message: str
    ) -> None:
        """By name."""
        with pytest.raises(InvalidArgument, match=message):
            decode(TARGET, ModelDrafter(DRAFT), PROMPT, SpeculateConfig(**told))

    def test_a_prompt_must_be_there(self) -> None:
        """And a drafter must have begun, and tokens must be of the vocabulary."""
        for row in ([1, 9, 2], [-1]):
            with pytest.raises(InvalidArgument, match=r"tokens in 0\.\.3"):
                TextDrafter([[1, 2], row], 4)
        with pytest.raises(InvalidArgument, match="at least one token"):
            decode(TARGET, ModelDrafter(DRAFT), [], SpeculateConfig())
        with pytest.raises(InvalidArgument, match="begin"):
            ModelDrafter(DRAFT).propose(PROMPT, 3, Sampling(), torch.Generator())
