"""Tandem: one pass and work with caches say the same, nothing leaks, and the text is the primary's.

small.py -> [test_tandem.py] -> pipelines/tandem
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, generate
from soardb.models.training import TrainConfig
from soardb.pipelines.speculate import SpeculateConfig, decode
from soardb.pipelines.tandem import (
    PrimaryModel,
    PrimarySession,
    Router,
    Tandem,
    TandemConfig,
    TandemDrafter,
    block_mask,
    distil_alone,
    layer_map,
    quality,
    run,
    train_router,
    write,
)
from soardb.pipelines.tandem.session import _Secondary
from tests.models.small import decoder, tokens

V = 20
LARGE = DecoderConfig(V, 32, 3, 4, key_heads=2, context=40)
SMALL = DecoderConfig(V, 24, 2, 3, context=40)
QUICK = TrainConfig(40, 16, 24, 1e-2, warm=5)


def tandem(seed: int = 0) -> Tandem:
    """Of two decoders whose laws are not flat."""
    made = Tandem(decoder(LARGE, seed), decoder(SMALL, seed + 1), layer_map("even", 3, 2), seed)
    return made.eval()


def test_who_may_look_where() -> None:
    """Blocks of two, by hand: others before the block, oneself within it."""
    found = block_mask(4, 2).int().tolist()
    assert found == [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 1, 1],
    ]
    for gamma in (1, 3, 50):
        assert block_mask(9, gamma).sum(1).tolist() == list(range(1, 10))


def test_layers_are_mapped() -> None:
    """Evenly, to the last, or to the middle."""
    assert layer_map("even", 5, 2) == (2, 5)
    assert layer_map("last", 5, 2) == (5, 5)
    assert layer_map("middle", 5, 1) == (3,)
    with pytest.raises(InvalidArgument, match="even, last, middle"):
        layer_map("first", 5, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [1, 2, 3, 5])
def test_work_with_caches_is_the_one_pass(gamma: int) -> None:
    """Token by token, block by block: within 1e-5; after a block was taken back too."""
    both, row = tandem(), tokens(1, 17, 3)
    with torch.inference_mode():
        whole = both.logits(both(row, gamma))[0]
        session, secondary = PrimarySession(both), _Secondary(both)
        said = row[0].tolist()
        for first in range(0, 17, gamma):
            if first:
                session.read([*said[first - gamma : first], 1, 2])
                session.back_to(first)
            secondary.begin_block(session)
            for place in range(first, min(first + gamma, 17)):
                logits = secondary.read(said[place], place)
                assert torch.allclose(logits, whole[place], atol=1e-5), place


def test_keys_that_were_made_of_taken_back_tokens_are_gone() -> None:
    """A block begins behind what the primary has read, however far it has been before."""
    both, row = tandem(), tokens(1, 12, 4)[0].tolist()
    with torch.inference_mode():
        fresh, stale = _Secondary(both), _Secondary(both)
        session, other = PrimarySession(both), PrimarySession(both)
        session.read(row[:10])
        stale.begin_block(session)
        session.back_to(4)
        session.read(row[10:])
        stale.begin_block(session)
        other.read([*row[:4], *row[10:]])
        fresh.begin_block(other)
        assert torch.allclose(fresh.read(3, 6), stale.read(3, 6), atol=1e-5)


@pytest.mark.parametrize("gamma", [1, 2, 4])
def test_nothing_later_is_seen(gamma: int) -> None:
    """A token changes nothing before its place, and what is at its place and after."""
    both, row = tandem(), tokens(1, 12, 5)
    with torch.inference_mode():
        base = both(row, gamma)[0]
        for place in range(12):
            other = row.clone()
            other[0, place] = (other[0, place] + 1) % V
            changed = (both(other, gamma)[0] - base).abs().amax(1) > 1e-6
            assert changed[:place].sum() == 0
            assert changed[place:].all()


def test_the_primary_is_seen_only_before_the_block() -> None:
    """Its state of a block's first token knows what is to be said: noise there changes nothing."""
    both, row, gamma = tandem(), tokens(1, 12, 6), 3
    with torch.inference_mode():
        states = both.seen(row)
        base = both(row, gamma, states)[0]
        for place in range(12):
            noisy = [state.clone() for state in states]
            for state in noisy:
                state[0, place] += 3 * torch.randn(state.shape[-1])
            changed = (both(row, gamma, noisy)[0] - base).abs().amax(1) > 1e-6
            behind = (place // gamma + 1) * gamma
            assert changed[:behind].sum() == 0
            assert changed[behind:].all()


class TestDecoding:
    @pytest.mark.parametrize("gamma", [1, 2, 3, 5])
    def test_the_text_is_the_primarys(self, gamma: int) -> None:
        """Greedily, token for token, to the end of the context; with a router too."""
        both = tandem()
        want = list(
            generate(DecoderModel(both.primary), [1, 2], 37, Sampling(0), torch.Generator())
        )
        for router in (None, Router(both.secondary, 0.5), Router(both.secondary, 1.0)):
            target = PrimaryModel(both)
            drafter = TandemDrafter(both, target, router)
            found = decode(target, drafter, [1, 2], SpeculateConfig(gamma, 37, Sampling(0)))
            assert found.tokens == want

    def test_two_tokens_are_drawn_from_the_primarys_law(self) -> None:
        """By total variation of many draws, which a draft's own law would fail."""
        both = Tandem(
            decoder(DecoderConfig(4, 16, 1, 2, context=8), 3),
            decoder(DecoderConfig(4, 16, 1, 2, context=8), 4, sharp=40),
            (1,),
        )
        target = PrimaryModel(both)
        drafter, counts, runs = TandemDrafter(both, target), Counter[int](), 1500
        for seed in range(runs):
            config = SpeculateConfig(2, 3, seed=seed)
            counts[decode(target, drafter, [1, 2], config).tokens[0]] += 1
        with torch.inference_mode():
            row = torch.tensor([[1, 2]])
            p = Sampling().law(both.primary.logits(both.primary(row))[0, -1]).tolist()
            q = Sampling().law(both.logits(both(row, 8))[0, -1]).tolist()
        seen = [counts[token] / runs for token in range(4)]
        far = [sum(abs(a - b) for a, b in zip(seen, law, strict=True)) / 2 for law in (p, q)]
        assert far[0] < 0.04 < far[1]

    @pytest.mark.parametrize("free_token", [True, False])
    def test_writing_alone_counts_its_passes(self, free_token: bool) -> None:
        """gamma tokens a round, and the primary's own one where it is taken."""
        both = tandem()
        random = torch.Generator().manual_seed(0)
        found = write(both, [1, 2, 3], 20, 4, Sampling(), random, free_token=free_token)
        assert len(found.tokens) == 20
        assert found.primary_passes == (4 if free_token else 5)
        assert found.secondary_passes == (16 if free_token else 20)
        again = write(both, [1], 30, 4, Sampling(), random, free_token=free_token, end=5)
        assert 5 not in again.tokens[:-1]
        assert len(write(both, [1], 100, 3, Sampling(), random).tokens) == 39

    def test_writing_alone_is_the_one_pass(self) -> None:
        """Greedily: each token is the likeliest of the pass over all that was written.

        A prompt of one token, which is not the primary's to read: blocks begin at multiples of
        gamma, as in training.
        """
        both, gamma = tandem(), 4
        found = write(both, [7], 16, gamma, Sampling(0), torch.Generator(), free_token=False)
        row = torch.tensor([[7, *found.tokens]])
        with torch.inference_mode():
            said = both.logits(both(row, gamma)).argmax(-1)[0]
        assert said[:-1].tolist() == found.tokens

    def test_it_needs_its_own_target(self) -> None:
        """And a prompt."""
        both = tandem()
        with pytest.raises(InvalidArgument, match="all but the last token"):
            TandemDrafter(both, PrimaryModel(both)).propose(
                [1, 2], 3, Sampling(), torch.Generator()
            )
        with pytest.raises(InvalidArgument, match="at least one token"):
            write(both, [], 3, 2, Sampling(), torch.Generator())


def periodic() -> Any:
    """A row in which the token eight places before says what follows: easy for who sees far."""
    random = torch.Generator().manual_seed(0)
    row = torch.randint(0, V, (8,), generator=random).repeat(400)
    noise = torch.rand(len(row), generator=random) < 0.1
    row[noise] = torch.randint(0, V, (int(noise.sum()),), generator=random)
    return row.numpy()


class TestTraining:
    def test_only_secondary_and_projections_learn(self) -> None:
        """Both stages; the primary stays bit by bit."""
        both = tandem()
        before = copy.deepcopy(both.state_dict())
        config = TandemConfig((2, 3), QUICK, QUICK, warm_projections=5)
        losses = run(both, periodic(), config)
        assert len(losses) == 5 + 80
        assert losses[44] < losses[0]
        changed = {
            name.partition(".")[0]
            for name, weight in both.state_dict().items()
            if not torch.equal(weight, before[name])
        }
        assert changed == {"secondary", "projections"}
        assert all(w.requires_grad for w in both.secondary.parameters())

    def test_distillation_brings_both_laws_together(self) -> None:
        """Beside the same secondary as it was."""
        row = periodic()
        both = Tandem(decoder(LARGE, sharp=8), decoder(SMALL, 1, sharp=8), (1, 3))
        windows = torch.from_numpy(row[:480]).reshape(20, 24)

        def measured() -> Any:
            return quality(both.primary, lambda t: both.logits(both(t, 2)), windows)

        before = measured()
        run(both, row, TandemConfig((2,), QUICK, QUICK, weight=0.0))
        after = measured()
        assert after.variation < before.variation
        assert 0 <= after.accuracy <= 1
        same = quality(both.primary, lambda t: both.primary.logits(both.primary(t)), windows)
        assert same.relative == 1
        assert same.variation == pytest.approx(0, abs=1e-6)

    def test_the_baseline_learns_alone(self) -> None:
        """The same loss, no view of the primary."""
        primary, secondary = decoder(LARGE), Decoder(SMALL, 1)
        losses = distil_alone(primary, secondary, periodic(), QUICK, 0.5)
        assert losses[-1] < losses[0]

    def test_a_router_learns_where_both_differ(self) -> None:
        """Its prediction goes with the total variation; a high threshold ends blocks early."""
        both, row = tandem(), periodic()
        router = Router(both.secondary, seed=3)
        losses = train_router(both, router, row, 2, TrainConfig(150, 16, 24, 1e-2, warm=5))
        assert sum(losses[-10:]) < sum(losses[:10])
        sample = torch.from_numpy(row[:480]).reshape(20, 24)
        with torch.inference_mode():
            small = both.logits(both(sample, 2))
            large = both.primary.logits(both.primary(sample))
            variation = (small.softmax(-1) - large.softmax(-1)).abs().sum(-1) / 2
            said = router(small).sigmoid()
        together = torch.stack([variation.flatten(), said.flatten()])
        assert float(torch.corrcoef(together)[0, 1]) > 0.2
        assert not any("embedding" in name for name, _ in router.named_parameters())

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Tandem(decoder(LARGE), decoder(SMALL), (1,)), "each of 2 layers"),
            (lambda: Tandem(decoder(LARGE), decoder(SMALL), (1, 4)), "layers"),
            (
                lambda: Tandem(decoder(LARGE), decoder(DecoderConfig(9, 16, 1, 2)), (1,)),
                "9 and 20",
            ),
            (lambda: run(tandem(), periodic(), TandemConfig(())), "at least one gamma"),
            (lambda: run(tandem(), periodic(), TandemConfig((0,))), "gammas"),
            (lambda: run(tandem(), periodic(), TandemConfig(weight=2)), "weight"),
            (lambda: Router(decoder(SMALL), threshold=2), "threshold"),
            (lambda: Router(decoder(SMALL), top=0), "top"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make: Any, message: str) -> None:
        """With what was expected."""
        with pytest.raises(InvalidArgument, match=message):
            make()
