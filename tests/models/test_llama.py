"""A LLaMA of Hugging Face as a Decoder: the same logits, or a word on what differs.

-> [test_llama.py] -> soardb/models/llama.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from soardb.errors import InvalidArgument
from soardb.models.hugging import HuggingModel
from soardb.models.llama import as_decoder
from soardb.models.session import DecoderModel
from soardb.models.tokens import Tokens
from tests.models.trained import TEXTS, llama

TOKENS = Tokens.trained(TEXTS, 280)


def read(folder: Path, **told: Any) -> Any:
    """The network of a LLaMA that was written so."""
    settings = {"tie_word_embeddings": True, **told}
    return HuggingModel.of_folder(llama(folder, TOKENS, **settings)).network


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_both_say_the_same(tmp_path: Path, keys: int) -> None:
    """In one pass and step by step; the weights are shared."""
    network = read(
        tmp_path, num_key_value_heads=keys, rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, initializer_range=0.5,
    )  # fmt: skip
    decoder = as_decoder(network)
    rows = torch.randint(0, len(TOKENS), (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        want, got = network(rows).logits, decoder.logits(decoder(rows))
    assert want.std() > 0.5
    assert torch.allclose(want, got, atol=1e-4, rtol=1e-4)
    session = DecoderModel(decoder).session()
    steps = torch.cat([session.read([t]) for t in rows[0].tolist()])
    assert torch.allclose(steps, want[0], atol=1e-4, rtol=1e-4)
    assert decoder.embedding.weight.data_ptr() == network.get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"tie_word_embeddings": False}, "output tied"),
        ({"attention_bias": True}, "no biases"),
        ({"mlp_bias": True}, "no biases"),
        ({"hidden_act": "gelu"}, "SwiGLU"),
        ({"head_dim": 16}, "make up the width"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "plain rotary positions",
        ),
    ],
)
def test_what_differs_is_named(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    """And nothing is made of it."""
    with pytest.raises(InvalidArgument, match=message):
        as_decoder(read(tmp_path, **told))


def test_another_architecture_is_named() -> None:
    """GPT-2 has learned positions."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with pytest.raises(InvalidArgument, match="type llama"):
        as_decoder(transformers.GPT2LMHeadModel(config))
