"""A GGUF file of a LLaMA with weights of no training, small enough to be made in a test.

-> [tiny_gguf.py] -> test_agent_language.py

Its tokens are the bytes and the end alone, so that a grammar is followed letter by letter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soardb.models.tokens import Tokens

WIDTH, LAYERS, HEADS, HIDDEN = 32, 2, 2, 64


def tiny_gguf(path: Path, context: int = 4096, seed: int = 0) -> Path:
    """The file, some 200 kB."""
    gguf = pytest.importorskip("gguf")
    names = _names()
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 0.2) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(names))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    kind = gguf.TokenType
    writer.add_token_types([kind.CONTROL, *[kind.NORMAL] * (len(names) - 1)])
    # llama.cpp wants merges: one that makes no token is never used.
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_tensor("token_embd.weight", matrix(len(names), WIDTH, 1.0))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", matrix(len(names), WIDTH))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{name}.weight", matrix(WIDTH, WIDTH))
        writer.add_tensor(f"{block}.ffn_gate.weight", matrix(HIDDEN, WIDTH))
        writer.add_tensor(f"{block}.ffn_up.weight", matrix(HIDDEN, WIDTH))
        writer.add_tensor(f"{block}.ffn_down.weight", matrix(WIDTH, HIDDEN))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _names() -> list[str]:
    """Of the tokens, in their order: the end, then a letter for each byte."""
    told = Tokens.trained([""], 257).tokenizer.get_vocab()
    return sorted(told, key=lambda name: int(told[name]))
