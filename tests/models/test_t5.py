"""The encoder-decoder: step by step is one pass, pads are seen by nobody, and it is kept as it was.

-> [test_t5.py] -> soardb/models/encoder.py, t5.py, registry.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.cache import Cache
from soardb.models.config import DecoderConfig, EncoderConfig, T5Config
from soardb.models.decoder import Decoder
from soardb.models.encoder import Encoder, padded
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.models.scoring import scorer
from soardb.models.session import generate
from soardb.models.t5 import T5, shifted
from soardb.models.tokens import Tokens
from tests.models.small import tokens

CONFIG = T5Config(EncoderConfig(20, 4, 32, 3, 4, context=24), 2)


def t5(seed: int = 0, sharp: float = 8.0) -> T5:
    """With weights that are larger than those of a beginning, so that its laws are not flat."""
    model = T5(CONFIG, seed).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(sharp)
    return model


@pytest.mark.parametrize("steps", [[1] * 9, [4, 1, 4], [9]])
def test_writing_step_by_step_is_the_one_pass(steps: list[int]) -> None:
    """Within 1e-5, of two texts of unlike length at once."""
    model, said = t5(), tokens(2, 9, 1)
    inputs = padded([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]], CONFIG.encoder.pad)
    with torch.inference_mode():
        whole = model.logits(model(inputs, said))
        memory = model.memory(model.encoder(inputs), inputs)
        cache = Cache(CONFIG.decoder, 2)
        parts = [
            model.logits(model.decode(one, memory, cache)) for one in torch.split(said, steps, 1)
        ]
    assert cache.length == 9
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_pads_are_seen_by_nobody() -> None:
    """A short text beside a long one reads, and is written of, as alone."""
    model, said = t5(), tokens(1, 6, 2)
    short, long = [3, 1, 4], [2, 7, 1, 8, 2, 8, 1, 8]
    alone = torch.tensor([short])
    both = padded([short, long], CONFIG.encoder.pad)
    with torch.inference_mode():
        assert torch.allclose(model.encoder(both)[0, :3], model.encoder(alone)[0], atol=1e-5)
        beside = model(both, said.repeat(2, 1))[0]
        assert torch.allclose(beside, model(alone, said)[0], atol=1e-5)
        vectors = model.encoder.vectors(both)
        assert torch.allclose(vectors[0], model.encoder.vectors(alone)[0], atol=1e-5)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-6)


def test_who_sees_whom() -> None:
    """The encoder both ways; the decoder what was written, and all that was read."""
    model, inputs, said = t5(), tokens(1, 8, 3), tokens(1, 7, 4)
    with torch.inference_mode():
        encoded, written = model.encoder(inputs)[0], model(inputs, said)[0]
        for place in range(7):
            other = inputs.clone()
            other[0, place] = (other[0, place] + 1) % 20
            assert ((model.encoder(other)[0] - encoded).abs().amax(1) > 1e-6).all()
            assert ((model(other, said)[0] - written).abs().amax(1) > 1e-6).all()
            later = said.clone()
            later[0, place] = (later[0, place] + 1) % 20
            changed = (model(inputs, later)[0] - written).abs().amax(1) > 1e-6
            assert not changed[:place].any()
            assert changed[place:].all()


def test_words_have_an_order_within_a_text_and_none_across() -> None:
    """The same words in another order are another text; across, the order alone says nothing."""
    model = t5()
    with torch.inference_mode():
        a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[3, 2, 1]])
        assert not torch.allclose(model.encoder.vectors(a), model.encoder.vectors(b), atol=1e-3)
        encoded, said = model.encoder(a), tokens(1, 4, 5)
        forth = model.decode(said, model.memory(encoded, a))
        back = model.decode(said, model.memory(encoded.flip(1), a))
        assert torch.allclose(forth, back, atol=1e-5)


def test_the_loss_is_of_targets_and_no_pads() -> None:
    """By hand, and a pad more or less is the same."""
    model, inputs = t5(), tokens(1, 8, 6)
    targets = torch.tensor([[22, 3, 4, 0]])
    with torch.inference_mode():
        encoded = model.encoder(inputs)
        logs = model.logits(model(inputs, torch.tensor([[20, 22, 3, 4]]))).log_softmax(-1)
        want = -logs[0].gather(1, targets.T).mean()
        assert float(model.loss(encoded, inputs, targets)) == pytest.approx(float(want), abs=1e-5)
        longer = torch.tensor([[22, 3, 4, 0, 20, 20]])
        found = float(model.loss(encoded, inputs, longer))
        assert found == pytest.approx(float(want), abs=1e-5)
    assert shifted(targets, 20).tolist() == [[20, 22, 3, 4]]


class TestRegistry:
    TOKENS = Tokens.trained(["a small bird sang", "of the north"] * 4, 270)
    SHAPE = EncoderConfig(len(TOKENS), 4, 32, 2, 2, context=48)

    def test_a_t5_comes_back_as_it_was(self, tmp_path: Path) -> None:
        """And what it is made of, and its encoder."""
        registry = Registry(tmp_path)
        model = T5(T5Config(self.SHAPE, 1), 3).eval()
        entry = registry.add_t5("bird", model, self.TOKENS, metrics={"loss": 2.0})
        assert entry.architecture == "t5"
        assert entry.parameters == sum(weight.numel() for weight in model.parameters())
        loaded = registry.load("bird")
        inputs = torch.tensor([loaded.tokens.encode("a bird of the north")])
        with torch.inference_mode():
            assert torch.equal(loaded.t5(inputs, inputs), model(inputs, inputs))
        assert loaded.encoder is loaded.t5.encoder
        assert loaded.t5.config == model.config
        assert not loaded.t5.training

    def test_an_encoder_comes_back_as_it_was(self, tmp_path: Path) -> None:
        """By the vectors of texts."""
        registry = Registry(tmp_path)
        model = Encoder(self.SHAPE, 5).eval()
        registry.add_encoder("eye", model, self.TOKENS)
        loaded = registry.load("eye")
        inputs = torch.tensor([loaded.tokens.encode("the north")])
        with torch.inference_mode():
            assert torch.equal(loaded.encoder.vectors(inputs), model.vectors(inputs))

    def test_what_does_not_write_is_refused_by_those_who_want_text(self, tmp_path: Path) -> None:
        """With its name and architecture."""
        registry = Registry(tmp_path)
        registry.add_t5("bird", T5(T5Config(self.SHAPE, 1)), self.TOKENS)
        registry.add_encoder("eye", Encoder(self.SHAPE), self.TOKENS)
        plain = DecoderConfig(len(self.TOKENS), 16, 1, 2)
        registry.add_decoder("pen", Decoder(plain), self.TOKENS)
        with pytest.raises(InvalidArgument, match="writes on, bird has the architecture t5"):
            list(generate(registry.load("bird").model, [1], 3, Sampling(), torch.Generator()))
        with pytest.raises(InvalidArgument, match="writes on, eye has the architecture encoder"):
            _ = registry.load("eye").decoder
        with pytest.raises(InvalidArgument, match="writes on, got one of architecture T5"):
            scorer(registry.load("bird").network)
        with pytest.raises(InvalidArgument, match="expected a t5, eye has"):
            _ = registry.load("eye").t5
        with pytest.raises(
            InvalidArgument, match="an encoder or a t5, pen has the architecture decoder"
        ):
            _ = registry.load("pen").encoder

    def test_what_does_not_write_is_not_uploaded(self, tmp_path: Path) -> None:
        """A server holds models that write; nothing of another is taken."""
        registry = Registry(tmp_path)
        entry = registry.add_t5("bird", T5(T5Config(self.SHAPE, 1)), self.TOKENS)
        with pytest.raises(InvalidArgument, match="architecture one of decoder, .* got 't5'"):
            registry.expected("copy", entry.to_json())

    def test_a_vocabulary_that_is_too_small_is_refused(self, tmp_path: Path) -> None:
        """Pads, masks and sentinels are no tokens of a text."""
        small = Encoder(EncoderConfig(len(self.TOKENS) - 1, 4, 16, 1, 2))
        with pytest.raises(InvalidArgument, match="vocabulary of at least"):
            Registry(tmp_path).add_encoder("eye", small, self.TOKENS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EncoderConfig(1).check(), "text_tokens"),
        (lambda: EncoderConfig(9, 0).check(), "sentinels"),
        (lambda: EncoderConfig(9, 1, 30, 1, 4).check(), "multiple of 2 x heads"),
        (lambda: EncoderConfig.of_json({"width": 8}), "settings of an encoder"),
        (lambda: T5Config(EncoderConfig(9), 0).check(), "decoder_layers"),
        (lambda: T5Config.of_json({"decoder_layers": 8}), "settings of a T5"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidArgument, match=message):
        make()
