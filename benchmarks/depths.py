"""Glosses of WordNet's nouns with their vectors, and how deep each noun lies: a task of numbers.

    datasets.py, words.py -> [depths.py] -> bench_decide.py

A reader of "a domesticated carnivorous mammal ..." is to say how many steps below "entity" the noun
lies, 0 to 18, or what stands above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks import datasets
from benchmarks.environment import Progress, silent
from benchmarks.packages import fetch
from benchmarks.recipes import WORDNET
from benchmarks.words import Noun, read_nouns
from soardb.kernels.layout import F32, I64

__all__ = ["DEEPEST", "Depths", "load", "made_up", "parts"]

DEEPEST = 18
_SET = "wordnet-minilm-384-angular"


@dataclass(frozen=True)
class Depths:
    """nouns: n of them; vectors: (n, 384) of their glosses, of unit length."""

    nouns: list[Noun]
    vectors: F32

    def __len__(self) -> int:
        return len(self.nouns)

    def __getitem__(self, rows: I64) -> Depths:
        return Depths([self.nouns[row] for row in rows.tolist()], self.vectors[rows])

    @property
    def depths(self) -> I64:
        """(n,) steps below "entity"."""
        return np.array([noun.depth for noun in self.nouns])


def load(progress: Progress = silent) -> Depths:
    """All nouns, their vectors from the data set of glosses."""
    nouns = read_nouns(fetch(WORDNET, progress))
    data = datasets.load(_SET, progress=progress)
    assert data.labels is not None
    assert data.test_labels is not None
    row_of = {text: row for row, text in enumerate([*data.labels, *data.test_labels])}
    vectors = np.concatenate([data.train, data.test])
    return Depths(nouns, vectors[[row_of[noun.gloss] for noun in nouns]])


def made_up(n: int, seed: int = 0) -> Depths:
    """Glosses of five words that hint at a random depth, and vectors that do: to try code with."""
    rng = np.random.default_rng(seed)
    depths = rng.integers(3, 13, n)
    hints = np.clip(depths[:, None] + rng.integers(-1, 2, (n, 5)), 0, DEEPEST)
    names = [chr(ord("a") + i) * 3 for i in range(DEEPEST + 1)]
    nouns = [
        Noun(" ".join(names[i] for i in row), int(depth), f"the {names[row[0]]} thing")
        for row, depth in zip(hints.tolist(), depths, strict=True)
    ]
    vectors = np.eye(DEEPEST + 1)[hints].mean(axis=1) + rng.normal(0, 0.05, (n, DEEPEST + 1))
    return Depths(nouns, vectors.astype(np.float32))


def parts(n: int, fit: int, test: int, train: int | None, seed: int) -> tuple[I64, I64, I64]:
    """Rows to train on (all that remain unless told), to fit decisions on, to test with."""
    rows = np.random.default_rng(seed).permutation(n)
    return rows[fit + test :][:train], rows[:fit], rows[fit : fit + test]
