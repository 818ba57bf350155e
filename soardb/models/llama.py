"""A LLaMA of Hugging Face as a Decoder, for whatever takes a model apart.

    hugging.py -> [llama.py] -> decoder.py, registry.py

Both are the same transformer under two sets of names, so that distilling, Tandem and HiRE, which
ask for layers and states, take a pretrained model as they take one that was trained here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder

__all__ = ["as_decoder"]

_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
    "post_attention_layernorm": "mixer_norm",
    "mlp.gate_proj": "mixer.gate",
    "mlp.up_proj": "mixer.up",
    "mlp.down_proj": "mixer.out",
}


def as_decoder(network: Any) -> Decoder:
    """The same weights, shared, not copied; its logits are the same to float32's rounding.

    network  a transformers model of type "llama", whose output is tied to its embedding

    Errors: InvalidArgument, naming what a Decoder does not have.
    """
    config = _config_of(network.config)
    given: dict[str, Tensor] = network.state_dict()
    weights = {
        "embedding.weight": given["model.embed_tokens.weight"],
        "norm.weight": given["model.norm.weight"],
    }
    for layer in range(config.layers):
        for theirs, ours in _NAMES.items():
            name = f"layers.{layer}.{ours}.weight"
            weights[name] = given[f"model.layers.{layer}.{theirs}.weight"]
    with torch.device("meta"):
        found = Decoder(config)
    found.load_state_dict(weights, assign=True)
    return found.eval()


def _config_of(told: Any) -> DecoderConfig:
    if told.model_type != "llama":
        raise InvalidArgument(f"expected a model of type llama, got {told.model_type}")
    rope = told.rope_parameters
    differences = {
        "an output tied to the embedding": told.tie_word_embeddings,
        "no biases": not (getattr(told, "attention_bias", 0) or getattr(told, "mlp_bias", 0)),
        "plain rotary positions": rope.get("rope_type", "default") == "default",
        "SwiGLU": told.hidden_act == "silu",
        "heads that make up the width": told.head_dim * told.num_attention_heads
        == told.hidden_size,
    }
    for name, holds in differences.items():
        if not holds:
            raise InvalidArgument(f"expected {name}, as a Decoder has, got another")
    found = DecoderConfig(
        told.vocab_size,
        told.hidden_size,
        told.num_hidden_layers,
        told.num_attention_heads,
        told.num_key_value_heads,
        told.intermediate_size,
        told.max_position_embeddings,
        float(rope["rope_theta"]),
        float(told.rms_norm_eps),
    )
    found.check()
    return found
