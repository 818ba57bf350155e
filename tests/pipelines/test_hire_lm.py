"""HiRE heads and feed-forward parts beside the exact ones, and a model that decodes with them.

small.py -> [test_hire_lm.py] -> pipelines/hire_lm
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import InvalidArgument, NotTrained
from soardb.kernels.layout import F32
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder, Mixer
from soardb.models.hugging import HuggingModel
from soardb.models.registry import Registry
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, generate
from soardb.models.tokens import Tokens
from soardb.models.training import held_out_loss
from soardb.pipelines.hire_lm import (
    LAWS,
    Copy,
    HireConfig,
    HireHead,
    HireMixer,
    HireModel,
    Trunk,
    fitted,
    hired,
    inputs_of,
)
from soardb.pipelines.speculate import ModelDrafter, SpeculateConfig, decode
from tests.models.small import decoder, tokens

RELU = DecoderConfig(60, 32, 2, 2, hidden=128, context=24, mixer="relu", active=16, group=4)
COPIES = [
    Copy(bits=8),
    Copy(bits=4),
    Copy(rank=12),
    Copy(bits=4, turned=True),
    Copy(rank=12, weighted=False),
]


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    """Of a decoder with 400 tokens."""
    return Trunk(DecoderModel(decoder(DecoderConfig(400, 32, 2, 2, context=24), 3)))


@pytest.fixture(scope="module")
def states(trunk: Trunk) -> F32:
    """Of 60 sequences of 20 random tokens."""
    return trunk.states(tokens(60, 20, 1, 400))


def calibrated(trunk: Trunk, states: F32, copied: Copy = COPIES[1], k: int = 8) -> HireHead:
    """Made with a third of the states, calibrated on another; the last is for the test."""
    head = HireHead(trunk.head, copied.make(trunk.head, states[:400]), k=k)
    head.calibrate(states[400:800], 0.95)
    return head


class TestTrunk:
    def test_states_are_what_the_head_takes(self, trunk: Trunk, states: F32) -> None:
        """In one pass and token by token; and what is forgotten is read anew."""
        model = decoder(DecoderConfig(400, 32, 2, 2, context=24), 3)
        row = tokens(1, 20, 1, 400)[0].tolist()
        session = trunk.session()
        found = torch.cat([session.read(row[:7]), *(session.read([t]) for t in row[7:])])
        whole = DecoderModel(model).session().read(row)
        assert torch.allclose(found @ torch.from_numpy(trunk.head).T, whole, atol=1e-4)
        session.back_to(12)
        assert torch.allclose(session.read(row[12:]), found[12:], atol=1e-5)
        assert trunk.states(torch.tensor([row])) == pytest.approx(found.numpy(), abs=1e-4)
        assert trunk.width == states.shape[1] == 32

    def test_a_hugging_model_has_one_too(self) -> None:
        """By its own base model, over its own cache."""
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=32,
        )  # fmt: skip
        model = HuggingModel(transformers.LlamaForCausalLM(config), None)
        trunk = Trunk(model)
        head = HireHead(trunk.head, Copy(bits=8).make(trunk.head), k=4, predicted=90)
        mine, whole = HireModel(trunk, head, "filled").session(), model.session()
        for part in ([1, 2, 3], [4], [5, 6]):
            logits, told = mine.read(part), whole.read(part)
            assert torch.equal(logits.argmax(-1), told.argmax(-1))
            assert torch.allclose(logits, told, atol=0.01)
        mine.back_to(3)
        assert (mine.length, mine.room) == (3, 32)

    def test_what_does_more_than_a_product_is_refused(self) -> None:
        """A bias or a cap after the head would be lost without a word."""

        class Capped(Decoder):
            def logits(self, hidden: torch.Tensor) -> torch.Tensor:
                return 5 * torch.tanh(super().logits(hidden) / 5)

        capped = Capped(DecoderConfig(20, 32, 1, 2, context=8)).eval()
        with torch.no_grad():
            capped.embedding.weight *= 100
        with pytest.raises(InvalidArgument, match="product of head and state"):
            Trunk(DecoderModel(capped))
        with pytest.raises(InvalidArgument, match="expected a DecoderModel"):
            Trunk("model")  # type: ignore[arg-type]


class TestHead:
    @pytest.mark.parametrize("copied", COPIES, ids=lambda c: c.name)
    def test_recall_on_other_states_is_what_was_calibrated(
        self, trunk: Trunk, states: F32, copied: Copy
    ) -> None:
        """Against brute force; and every logit that comes back is exact."""
        head = calibrated(trunk, states, copied)
        assert head.predicted is not None
        assert 8 <= head.predicted < 400
        judged = states[800:]
        exact = judged @ trunk.head.T
        logits, found = head.topk(judged)
        assert logits == pytest.approx(np.take_along_axis(exact, found, 1), abs=1e-4)
        least = np.sort(exact, axis=1)[:, -8:-7]
        recall = (logits >= least - 1e-4).mean()
        assert recall > 0.94  # measured 0.953 to 0.99
        assert (np.diff(logits, axis=1) <= 0).all()

    def test_all_predicted_is_the_dense_head(self, trunk: Trunk, states: F32) -> None:
        """Under both laws what is kept is the dense head's, and below it is less."""
        head = HireHead(trunk.head, Copy(bits=4).make(trunk.head), k=8, predicted=400)
        exact = states[:50] @ trunk.head.T
        order = np.argsort(-exact, axis=1)[:, :8]
        for law in LAWS:
            logits = head.logits(states[:50], law)
            assert (np.sort(np.argsort(-logits, axis=1)[:, :8]) == np.sort(order)).all()
            assert np.take_along_axis(logits, order, 1) == pytest.approx(
                np.take_along_axis(exact, order, 1), abs=1e-4
            )
        assert np.isneginf(head.logits(states[:50])).sum() == 50 * 392
        assert head.traffic().rescore == head.traffic().dense

    @pytest.mark.parametrize("copied", COPIES, ids=lambda c: c.name)
    def test_filled_logits_are_near_to_those_of_the_head(
        self, trunk: Trunk, states: F32, copied: Copy
    ) -> None:
        """So the law of all tokens is nearer than that of the kept ones."""
        head = calibrated(trunk, states, copied, k=2)
        judged = states[800:850]
        exact = torch.from_numpy(judged @ trunk.head.T).softmax(-1)
        far = {
            law: float((torch.from_numpy(head.logits(judged, law)).softmax(-1) - exact).abs().sum())
            for law in LAWS
        }
        assert far["filled"] < (0.3 if copied.bits else 0.95) * far["kept"]  # measured 0.02 to 0.9

    def test_turned_bits_see_past_large_coordinates(self, trunk: Trunk) -> None:
        """As a few of a language model's states are; products are the same but for the rounding."""
        random = np.random.default_rng(0)
        x = random.standard_normal((300, 32)).astype(np.float32)
        x[:, 5] = 60 + 10 * x[:, 5]
        exact = x[200:] @ trunk.head.T
        errors = []
        for copied in (Copy(bits=4), Copy(bits=4, turned=True)):
            made = copied.make(trunk.head, x[:200])
            found = made.scores(x[200:]) * made.factors(x[200:])[:, None]
            errors.append(np.abs(found - exact).mean())
            order = np.argsort(-made.scores(x[200:]), axis=1)[:, :1]
            assert (made.predict(x[200:], 1) == order).mean() > 0.98
        assert errors[1] < 0.6 * errors[0]  # measured 0.38

    def test_trained_factors_know_the_largest_better(self) -> None:
        """Than the SVD that they began as, which spends its rank on rows that never win."""
        random = np.random.default_rng(0)
        x = random.standard_normal((1500, 24)).astype(np.float32)
        x[:, 0] = 1
        rows = np.zeros((400, 24), np.float32)
        rows[:60, 1:9] = random.standard_normal((60, 8))
        rows[60:, 0], rows[60:, 9:] = -30, 2 * random.standard_normal((340, 15))
        true = np.argsort(-(x[1000:] @ rows.T), axis=1)[:, :8]
        found = []
        for steps in (0, 150):
            made = Copy(rank=6, trained=steps).make(rows, x[:1000])
            said = made.predict(x[1000:], 24)
            found.append(np.mean([np.isin(a, b).mean() for a, b in zip(true, said, strict=True)]))
            assert made.bytes_read() == 4 * 6 * (400 + 24)
        assert found[1] > found[0] + 0.1  # measured 0.41 and 0.61

    def test_factors_of_nothing_are_refused(self) -> None:
        """No states, no weight; a mixer asks for other rows than a head does."""
        rows, x = np.ones((20, 4), np.float32), np.ones((5, 4), np.float32)
        for weight, some in ((rows, x[:0]), (0 * rows, x)):
            with pytest.raises(InvalidArgument, match="states to learn from"):
                Copy(rank=2, trained=3).make(weight, some)

    def test_bad_input_is_refused(self, trunk: Trunk, states: F32) -> None:
        """With what was expected."""
        made = Copy(bits=4).make(trunk.head)
        with pytest.raises(NotTrained, match="calibrate"):
            HireHead(trunk.head, made).topk(states[:1])
        head = HireHead(trunk.head, made, predicted=20)
        with pytest.raises(InvalidArgument, match="law"):
            head.logits(states[:1], "other")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="law"):
            HireModel(trunk, head, "other")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="shape"):
            head.topk(states[:1, :5])
        with pytest.raises(InvalidArgument, match="the k kept"):
            HireHead(trunk.head, made, k=30, predicted=20)
        for wrong in (
            Copy(),
            Copy(bits=4, rank=4),
            Copy(bits=5),
            Copy(rank=0),
            Copy(rank=4, turned=True),
            Copy(bits=4, trained=5),
            Copy(rank=4, weighted=False, trained=5),
        ):
            with pytest.raises(InvalidArgument, match="bits|rank"):
                wrong.make(trunk.head)
        for wrong in (Copy(rank=4), Copy(bits=4, turned=True)):
            with pytest.raises(InvalidArgument, match="states to make"):
                wrong.make(trunk.head)
        with pytest.raises(InvalidArgument, match="at least one state"):
            Copy(bits=4, turned=True).make(trunk.head, states[:0])
        other = HireHead(trunk.head[:50], Copy(bits=4).make(trunk.head[:50]), predicted=20)
        with pytest.raises(InvalidArgument, match="expected a head"):
            HireModel(trunk, other)


class TestModel:
    def test_greedy_text_is_that_of_the_dense_head(self, trunk: Trunk, states: F32) -> None:
        """Where the largest logit is found, which is what k' is for."""
        model = DecoderModel(decoder(DecoderConfig(400, 32, 2, 2, context=24), 3))
        mine = HireModel(trunk, calibrated(trunk, states, k=2))
        same = 0
        for seed in range(20):
            prompt = tokens(1, 4, 50 + seed, 400)[0].tolist()
            texts = [
                list(generate(m, prompt, 16, Sampling(0.0), torch.Generator()))
                for m in (model, mine)
            ]
            same += texts[0] == texts[1]
        assert same >= 18  # measured 20

    def test_a_session_goes_back(self, trunk: Trunk, states: F32) -> None:
        """Step by step equals one pass, after forgetting too."""
        mine = HireModel(trunk, calibrated(trunk, states), "filled").session()
        row = tokens(1, 12, 9, 400)[0].tolist()
        whole = mine.read(row)
        mine.back_to(5)
        steps = torch.cat([mine.read([t]) for t in row[5:]])
        assert torch.allclose(steps, whole[5:], atol=1e-2)
        assert mine.length == 12

    @pytest.mark.parametrize("law", ["kept", "filled"])
    def test_as_a_draft_it_changes_no_text(self, trunk: Trunk, states: F32, law: Any) -> None:
        """The target is itself with the dense head: greedy text is the target's, in few passes."""
        model = DecoderModel(decoder(DecoderConfig(400, 32, 2, 2, context=24), 3))
        mine = HireModel(trunk, calibrated(trunk, states), law)
        config = SpeculateConfig(4, 15, Sampling(0.0))
        prompt = tokens(1, 4, 77, 400)[0].tolist()
        alone = list(generate(model, prompt, 15, Sampling(0.0), torch.Generator()))
        found = decode(model, ModelDrafter(mine), prompt, config)
        assert found.tokens == alone
        assert found.tau > 3


def mixer_of(config: DecoderConfig = RELU, seed: int = 0) -> tuple[Mixer, F32]:
    """A layer's mixer with inputs of it."""
    model = decoder(config, seed, sharp=3.0)
    return model.layers[1].mixer, inputs_of(model, tokens(30, 20, 2, config.vocabulary))[1]  # type: ignore[return-value]


class TestMixer:
    @pytest.mark.parametrize("group", [1, 4])
    @pytest.mark.parametrize("block", [1, 7])
    @pytest.mark.parametrize("common", [0.0, 0.25, 1.0])
    def test_all_predicted_is_the_exact_mixer(self, group: int, block: int, common: float) -> None:
        """To 1e-5, whatever is on the common path or in a run."""
        mixer, x = mixer_of(replace(RELU, group=group))
        mine = HireMixer(
            mixer, Copy(bits=4), x[:200], common=common, predicted=128 // group, block=block
        )
        given = torch.from_numpy(x[200:260]).reshape(3, 20, 32)
        with torch.inference_mode():
            told = mixer(given)
        assert float((mine(given) - told).abs().max()) < 1e-5 * max(1, float(told.abs().max()))

    @pytest.mark.parametrize("group", [1, 4])
    @pytest.mark.parametrize("common", [0.0, 0.2])
    @pytest.mark.parametrize("copied", COPIES[:4], ids=lambda c: c.name)
    def test_recall_on_other_states_is_what_was_calibrated(
        self, group: int, common: float, copied: Copy
    ) -> None:
        """Of the units that are on in the exact mixer."""
        mixer, x = mixer_of(replace(RELU, group=group))
        mine = HireMixer(mixer, copied, x[:200], common=common)
        curve = mine.calibrate(x[200:400], 0.95)
        assert mine.predicted is not None
        assert mine.on <= mine.predicted < mine.groups
        assert curve.recall[-1] == 1
        found, (sums, on) = mine.predict(x[400:]), mine.support(x[400:])
        hit = [np.isin(o[s > 0], f).mean() for f, o, s in zip(found, on, sums, strict=True)]
        assert np.mean(hit) > 0.93  # measured 0.948 to 0.995

    def test_the_common_path_is_what_is_on_most_often(self) -> None:
        """It is computed for every token, and the copy holds the others alone."""
        mixer, x = mixer_of()
        mine = HireMixer(mixer, Copy(bits=8), x, common=0.25, predicted=10)
        _, on = mine.support(x)
        often = np.bincount(on.ravel(), minlength=32)
        assert len(mine.common) == 8
        assert often[mine.common].min() >= np.delete(often, mine.common).max()
        found = mine.predict(x[:50])
        assert np.isin(mine.common, found[0]).all()
        assert all(len(set(row)) == 10 for row in found.tolist())
        assert mine.estimator is not None
        assert mine.estimator.n == 24 * 4

    def test_a_run_gathers_the_union_once(self) -> None:
        """Each token then has what any of them asked for, so none finds less than alone."""
        mixer, x = mixer_of()
        mine = HireMixer(mixer, Copy(rank=6), x[:200], predicted=8, block=5)
        some = x[200:205]
        union = np.unique(mine.predict(some))
        together = mine.mix(some)
        assert (mine.runs, mine.up_read) == (1, len(union))
        assert 8 < len(union) < 32
        mask = np.zeros(32, np.float32)
        mask[union] = 1
        up, down = mixer.up.weight.detach().numpy(), mixer.out.weight.detach().numpy()
        units = np.maximum(some @ up.T, 0) * np.repeat(mask, 4)
        sums = units.reshape(5, 32, 4).sum(2)
        kept = np.argsort(-sums, axis=1)[:, :4]
        on = np.zeros((5, 32), np.float32)
        np.put_along_axis(on, kept, 1, axis=1)
        assert together == pytest.approx((units * np.repeat(on, 4, 1)) @ down.T, abs=1e-5)
        needed = len(np.unique(kept))
        assert mine.traffic().rescore == (len(union) + needed) * 4 * 32 * 4

    def test_a_decoder_with_it_says_nearly_the_same(self) -> None:
        """And the decoder that it was made of is left as it was."""
        model = decoder(RELU, 0, sharp=3.0)
        before = copy.deepcopy(model.state_dict())
        found = hired(model, tokens(30, 20, 2, 60), Copy(bits=8), recall_target=0.97, common=0.1)
        judged = tokens(40, 20, 3, 60)
        assert held_out_loss(found, judged) == pytest.approx(held_out_loss(model, judged), abs=0.02)
        with torch.inference_mode():
            same = model.logits(model(judged)).argmax(-1) == found.logits(found(judged)).argmax(-1)
        assert float(same.float().mean()) > 0.95
        assert all(isinstance(layer.mixer, HireMixer) for layer in found.layers)
        assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())

    def test_bad_input_is_refused(self) -> None:
        """With what was expected."""
        mixer, x = mixer_of()
        for config in (
            replace(RELU, active=None, group=1),
            replace(RELU, mixer="swiglu", active=None, group=1),
        ):
            with pytest.raises(InvalidArgument, match="top-k ReLU"):
                HireMixer(mixer_of(config)[0], Copy(bits=8))
        with pytest.raises(InvalidArgument, match="common within"):
            HireMixer(mixer, Copy(bits=8), x, common=1.5)
        with pytest.raises(InvalidArgument, match="common path"):
            HireMixer(mixer, Copy(bits=8), common=0.5)
        with pytest.raises(InvalidArgument, match="groups that stay on"):
            HireMixer(mixer, Copy(bits=8), predicted=2)
        with pytest.raises(InvalidArgument, match="a copy that is not trained"):
            HireMixer(mixer, Copy(rank=4, trained=3), x)
        with pytest.raises(NotTrained, match="calibrate"):
            HireMixer(mixer, Copy(bits=8)).mix(x[:1])
        with pytest.raises(InvalidArgument, match="at least one state"):
            HireMixer(mixer, Copy(bits=8)).calibrate(x[:0])
        with pytest.raises(InvalidArgument, match="two sequences"):
            hired(decoder(RELU), tokens(1, 5, 0, 60), Copy(bits=8))


class TestFitted:
    def test_what_is_reported_is_of_states_that_chose_nothing(self) -> None:
        """Recall reaches what was asked, and bytes are those of the copy and of k' rows."""
        model = DecoderModel(decoder(DecoderConfig(400, 32, 2, 2, context=24), 3))
        row = tokens(1, 2400, 4, 400)[0].numpy()
        for copied in (Copy(bits=4), Copy(rank=16)):
            head, report = fitted(model, row, HireConfig(copied, 4, 0.95, 20, 120))
            assert head.predicted == report.predicted < 400
            assert report.calibrated_recall >= 0.95
            assert report.recall > 0.94  # measured 0.966, 0.956
            assert report.same_first > 0.96
            assert report.judged == 800
            assert report.dense_bytes == 400 * 32 * 4
            assert report.row_bytes == report.predicted * 32 * 4
            assert report.copy_bytes == head.estimator.bytes_read()
            assert report.to_json()["copy"] == copied.name
        with pytest.raises(InvalidArgument, match="three windows"):
            fitted(model, row[:50], HireConfig(window=20))

    def test_the_command_tells_it(self, tmp_path: Path) -> None:
        """As JSON and as a table; a recall that so few texts cannot show is refused."""
        texts = [" ".join(f"word{i * j % 17}" for j in range(12)) for i in range(120)]
        (tmp_path / "texts.txt").write_text("\n".join(texts), "utf-8")
        vocabulary = Tokens.trained(texts, 290)
        with soardb.connect(tmp_path / "db"):
            pass
        config = DecoderConfig(len(vocabulary), 32, 1, 2, context=80)
        Registry(tmp_path / "db").add_decoder("small", decoder(config), vocabulary)
        asked = ["models", "hire", str(tmp_path / "db"), "small", "--texts"]
        asked += [str(tmp_path / "texts.txt"), "--k", "3", "--recall", "0.9"]
        done = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)
        report = json.loads(done.stdout)
        assert report["copy"] == "4 bits, turned"
        assert report["recall"] > 0.85  # measured 0.96
        done = CliRunner().invoke(app, [*asked, "--rank", "20"], catch_exceptions=False)
        assert "rank 20, weighted" in done.output
        with pytest.raises(InvalidArgument, match="both or neither"):
            CliRunner().invoke(app, [*asked, "--rank", "20", "--bits", "4"], catch_exceptions=False)
