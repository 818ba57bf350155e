"""What callers use: the sets by name, made once or downloaded, and the command line.

The tiny set is made for real, in a cache of each test's own; downloads come from a folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import datasets
from benchmarks.exact import ground_truth
from benchmarks.recipes import mixture
from soardb.errors import CorruptStorage, NotFound, Unavailable

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("cache")

TINY = "tiny-32-angular"


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

    def test_keeps_labels_with_their_rows(self, tiny: datasets.Dataset) -> None:
        """A label that moved would turn every demonstration into nonsense, silently."""
        points = mixture(4200, 32, clusters=60, rank=8, noise=0.1, seed=0)
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
        rows, distances = ground_truth(train, train[:5], "cosine")
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
