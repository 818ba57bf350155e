"""The transformer: one pass, many steps and a cache that goes back say the same.

decoder.py, cache.py, session.py, sampling.py -> [test_decoder.py]
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder, top_groups, turned
from soardb.models.sampling import Sampling, drawn
from soardb.models.session import DecoderModel, DecoderSession, generate, sampled
from tests.models.small import SMALL, decoder, tokens

CONFIGS = {
    "plain": SMALL,
    "grouped keys": DecoderConfig(20, 32, 2, 4, key_heads=2, context=24),
    "one key head": DecoderConfig(20, 32, 1, 4, key_heads=1, context=24),
    "relu": DecoderConfig(20, 32, 2, 2, mixer="relu", context=24),
    "top units": DecoderConfig(
        20, 32, 2, 2, hidden=64, mixer="relu", active=16, group=4, context=24
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_step_by_step_is_one_pass(name: str) -> None:
    """Token by token, in uneven blocks, and after going back: within 1e-5."""
    model = decoder(CONFIGS[name])
    row = tokens(1, 20)
    with torch.inference_mode():
        whole = model.logits(model(row))[0]
    session = DecoderSession(model)
    steps = torch.cat([session.read([t]) for t in row[0].tolist()])
    assert torch.allclose(steps, whole, atol=1e-5)
    session.back_to(4)
    session.read([1, 2, 3, 1, 2])  # other tokens, forgotten again
    session.back_to(4)
    rest = row[0, 4:].tolist()
    blocks = torch.cat([session.read(rest[:7]), session.read(rest[7:9]), session.read(rest[9:])])
    assert torch.allclose(blocks, whole[4:], atol=1e-5)
    assert session.length == 20


def test_nothing_looks_ahead() -> None:
    """A later token changes nothing before it, and something from it on."""
    model, row = decoder(), tokens(1, 12)
    other = row.clone()
    other[0, 7] = (other[0, 7] + 1) % SMALL.vocabulary
    with torch.inference_mode():
        a, b = model.logits(model(row))[0], model.logits(model(other))[0]
    assert torch.equal(a[:7], b[:7])
    assert not torch.allclose(a[7:], b[7:], atol=1e-3)


def test_only_distances_between_tokens_count() -> None:
    """Rotary positions: products of queries and keys stay when both move."""
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    near, far = turned(x, 0, 10_000.0), turned(x, 17, 10_000.0)
    a, b = near @ near.transpose(-1, -2), far @ far.transpose(-1, -2)
    assert torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(near.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(near, far, atol=1e-2)


def test_layers_can_be_left_out_and_states_are_those_of_the_way() -> None:
    """What a subset computes is what its layers do, one after the other."""
    model, row = decoder(), tokens(2, 9)
    with torch.inference_mode():
        states = model.states(row)
        assert torch.allclose(model.norm(states[-1]), model(row), atol=1e-6)
        by_hand = model.norm(model.layers[1](model.embedding(row), None, 1))
        assert torch.equal(model(row, layers=[1]), by_hand)
    with pytest.raises(InvalidArgument, match="all layers with a cache"):
        model(row, Cache(SMALL, 2), [0])


def test_the_largest_groups_stay_on() -> None:
    """By their sums; the gradient is that of the units that stay."""
    units = torch.tensor([[1.0, 0, 5, 1, 3, 2.5, 0, 0]], requires_grad=True)
    mask = top_groups(units, 4, 2)
    assert mask.tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]
    (units * mask).sum().backward()  # type: ignore[no-untyped-call]
    assert units.grad is not None
    assert units.grad.tolist() == mask.tolist()


def test_the_context_is_a_limit() -> None:
    """Named, and nothing is half read."""
    session = DecoderSession(decoder())
    session.read(tokens(1, 20)[0].tolist())
    with pytest.raises(InvalidArgument, match="at most 24 tokens in the context, got 25"):
        session.read([1] * 5)
    assert session.length == 20
    assert session.read([1] * 4).shape == (4, SMALL.vocabulary)
    with pytest.raises(InvalidArgument, match=r"0\.\.24"):
        session.back_to(25)
    with pytest.raises(InvalidArgument, match="got none"):
        session.read([])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30}, "multiple of 2 x heads"),
        ({"heads": 8, "key_heads": 3}, "key_heads divide"),
        ({"key_heads": 9}, "key_heads"),
        ({"mixer": "gelu"}, "swiglu, relu"),
        ({"active": 8}, "mixer 'relu'"),
        ({"mixer": "relu", "hidden": 64, "active": 7, "group": 4}, "multiple of the group"),
        ({"mixer": "relu", "hidden": 62, "group": 4}, "groups of 4 divide"),
        ({"rope_base": 1.0}, "rope_base"),
        ({"vocabulary": 1}, "vocabulary"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    """Before any weight is made."""
    with pytest.raises(InvalidArgument, match=message):
        Decoder(DecoderConfig(**{"vocabulary": 10, "width": 32, **settings}))


def test_settings_go_to_json_and_back() -> None:
    """And unknown ones are refused."""
    for config in CONFIGS.values():
        assert DecoderConfig.of_json(config.to_json()) == config
    wrong: list[Any] = [{"width": 32}, {"vocabulary": 9, "code": "x"}, [], None]
    for bad in wrong:
        with pytest.raises(InvalidArgument, match="settings of a decoder"):
            DecoderConfig.of_json(bad)


class TestSampling:
    def test_laws_by_hand(self) -> None:
        """Temperature, then the likeliest k, then those that sum to p."""
        z = torch.log(torch.tensor([0.5, 0.2, 0.2, 0.1]))
        assert Sampling().law(z).tolist() == pytest.approx([0.5, 0.2, 0.2, 0.1])
        assert Sampling(0).law(z).tolist() == [1, 0, 0, 0]
        squares = torch.tensor([0.25, 0.04, 0.04, 0.01]) / 0.34
        assert Sampling(0.5).law(z).tolist() == pytest.approx(squares.tolist())
        assert Sampling(1, top_k=1).law(z).tolist() == [1, 0, 0, 0]
        kept = Sampling(1, top_p=0.6).law(z)
        assert kept.tolist() == pytest.approx([5 / 7, 2 / 7, 0, 0])
        both = Sampling(1, top_k=3, top_p=0.99).law(z)
        assert both.tolist() == pytest.approx([5 / 9, 2 / 9, 2 / 9, 0])

    def test_a_batch_of_laws_is_row_by_row(self) -> None:
        """Each by its own logits."""
        z = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
        for sampling in (Sampling(0), Sampling(0.7, 4, 0.8)):
            rows = torch.stack([sampling.law(row) for row in z])
            assert torch.allclose(sampling.law(z), rows)
            assert torch.allclose(rows.sum(-1), torch.ones(5, dtype=torch.float64))

    @pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}])
    def test_what_is_no_law_is_refused(self, bad: dict[str, Any]) -> None:
        """By name."""
        with pytest.raises(InvalidArgument, match=next(iter(bad))):
            Sampling(**bad).check()


def test_generation_draws_from_the_law() -> None:
    """One at a time and many at once; the end stops both."""
    model, random = decoder(), torch.Generator().manual_seed(0)
    prompt = [3, 4, 5]
    with torch.inference_mode():
        law = Sampling().law(model.logits(model(torch.tensor([prompt])))[0, -1])
    rows = torch.tensor([prompt] * 4000)
    first = sampled(model, rows, 1, Sampling(), random)[:, 0]
    shares = torch.bincount(first, minlength=SMALL.vocabulary) / 4000
    assert float((shares - law).abs().sum() / 2) < 0.05
    greedy = list(generate(DecoderModel(model), prompt, 8, Sampling(0), random))
    assert sampled(model, rows[:1], 8, Sampling(0), random)[0].tolist() == greedy
    end = greedy[2]
    stopped = list(generate(DecoderModel(model), prompt, 8, Sampling(0), random, end))
    assert stopped == greedy[: greedy.index(end) + 1]
    padded = sampled(model, rows[:1], 8, Sampling(0), random, end)[0].tolist()
    assert padded == stopped + [end] * (8 - len(stopped))
    assert len(list(generate(DecoderModel(model), prompt, 100, Sampling(), random))) == 24 - 3 + 1
    one = drawn(law, torch.Generator().manual_seed(5))
    assert one == drawn(law, torch.Generator().manual_seed(5))
