"""A registry with a target and a draft that have learned a little, for those that serve it.

-> [trained.py] -> service/test_models.py, pipelines/test_pairs.py
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import soardb
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, Windows, cross_entropy, descend, row_of

WORDS = [["a", "the"], ["small", "large"], ["bird", "stone"], ["of", "near"], ["rivers", "walls"]]
TEXTS = [" ".join(np.random.default_rng(i).choice(words) for words in WORDS) for i in range(200)]


def llama(folder: Path, tokens: Tokens, room: int = 128, **told: Any) -> Path:
    """A small LLaMA with this tokenizer, as Hugging Face writes it, with weights of no training.

    told  more of its configuration
    """
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = {
        "vocab_size": len(tokens), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": room, "bos_token_id": None, "eos_token_id": 0,
    }  # fmt: skip
    config = transformers.LlamaConfig(**{**settings, **told})
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens.tokenizer, eos_token="<end>"
    )
    fast.save_pretrained(folder)
    return folder


def _loss(decoder: Decoder, windows: Windows, step: int) -> Tensor:
    return cross_entropy(decoder, windows(16))


def filled(folder: Path) -> Registry:
    """Of a new database, with "large", and "small", which drafts for it."""
    soardb.connect(folder).close()
    registry = Registry(folder)
    tokens = Tokens.trained(TEXTS, 280)
    row = row_of(TEXTS, tokens)
    for name, width, layers, steps in (("large", 32, 2, 60), ("small", 16, 1, 30)):
        decoder = Decoder(DecoderConfig(len(tokens), width, layers, 2, context=128), 1)
        windows = Windows(row, 24, 0)
        loss = partial(_loss, decoder, windows)
        descend([decoder], loss, TrainConfig(steps, 16, 24, 0.01, seed=0))
        lineage = {"method": "cross entropy", "steps": steps}
        registry.add_decoder(name, decoder.eval(), tokens, metrics={"loss": 1.5}, lineage=lineage)
    return registry
