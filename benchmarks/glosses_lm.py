"""Language models of WordNet's glosses: the texts, their tokens, and a trained target and draft.

    words.py, soardb.models -> [glosses_lm.py] -> bench_distillspec.py, bench_tandem.py

What is trained is kept beside the data sets, by what it was trained with.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.environment import Progress, cache_folder, need, silent
from benchmarks.packages import fetch
from benchmarks.recipes import WORDNET
from benchmarks.words import read_wordnet
from soardb.kernels.layout import I64
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.tokens import Tokens
from soardb.models.training import (
    TrainConfig,
    Windows,
    cross_entropy,
    descend,
    held_out_loss,
    row_of,
)

__all__ = ["Texts", "kept", "load", "made_up", "trained"]


@dataclass(frozen=True)
class Texts:
    """Tokens of glosses, one after the other, each with its end; test glosses are in no other."""

    tokens: Tokens
    train: I64
    test: I64


def load(
    vocabulary: int = 1024,
    held_out: int = 4000,
    progress: Progress = silent,
    tokens: Tokens | None = None,
) -> Texts:
    """All 117,000 glosses in random order, the last `held_out` of them to test with.

    tokens  of a model; learned from the glosses unless told
    """
    glosses = read_wordnet(fetch(WORDNET, progress))
    random.Random(0).shuffle(glosses)
    return _texts(glosses, vocabulary, held_out, tokens)


def made_up(vocabulary: int = 300) -> Texts:
    """Sentences of a few words in a fixed order, to try code with."""
    rng = random.Random(0)
    words = [["a", "the", "some"], ["small", "large", "odd"], ["bird", "stone", "song"],
             ["of", "in", "near"], ["the north", "a river", "old times"]]  # fmt: skip
    return _texts([" ".join(rng.choice(w) for w in words) for _ in range(800)], vocabulary, 200)


def _texts(
    glosses: list[str], vocabulary: int, held_out: int, tokens: Tokens | None = None
) -> Texts:
    train, test = glosses[:-held_out], glosses[-held_out:]
    told = tokens or Tokens.trained(train, vocabulary)
    return Texts(told, row_of(train, told), row_of(test, told))


def trained(
    texts: Texts,
    config: DecoderConfig,
    train: TrainConfig,
    progress: Callable[[str, float], None] = silent,
    row: I64 | None = None,
) -> Decoder:
    """A decoder of these texts by cross entropy, from the cache or anew; seeded by train.seed."""
    data = texts.train if row is None else row

    def make() -> Decoder:
        decoder = Decoder(config, train.seed)
        windows = Windows(data, train.window, train.seed)
        descend(
            [decoder],
            lambda step: cross_entropy(decoder, windows(train.batch)),
            train,
            progress,
            f"training, width {config.width}",
        )
        return decoder.eval()

    return kept({"config": asdict(config), "train": asdict(train)}, data, config, make)


def kept(
    told: Mapping[str, Any], row: I64, config: DecoderConfig, make: Callable[[], Decoder]
) -> Decoder:
    """What make() makes, from the cache if it was made before: by what is told, and the tokens."""
    text = json.dumps({**told, "tokens": len(row)}, sort_keys=True)
    mark = hashlib.sha256(text.encode() + row.tobytes()).hexdigest()
    path = cache_folder() / "models" / f"{mark[:16]}.safetensors"
    files = need("safetensors.torch")
    if path.exists():
        decoder = Decoder(config)
        decoder.load_state_dict(files.load_file(path))
        return decoder.eval()
    decoder = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    files.save_file(decoder.state_dict(), partial)
    partial.replace(path)
    return decoder


def prompts_of(row: I64, count: int, length: int, seed: int) -> Any:
    """(count, length) windows of a row at random, as a tensor."""
    return Windows(row, length, seed)(count)


def mean_loss(decoder: Decoder, row: I64, window: int, count: int = 400) -> float:
    """Cross entropy in nats a token, over the same windows each time."""
    batch = max(1, min(64, 2**26 // (window * decoder.config.vocabulary)))
    return held_out_loss(decoder, Windows(row, window, 12345)(count), batch)


def characters(texts: Texts) -> float:
    """Characters a token."""
    text = texts.tokens.decode([t for t in texts.test.tolist() if t != texts.tokens.end])
    return len(text) / max(1, int(np.sum(texts.test != texts.tokens.end)))
