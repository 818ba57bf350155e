"""The file: it has the layout of ann-benchmarks, and no change to it stays unseen.

The tiny set is written for real, damaged in one place, and opened again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dataset_files, datasets
from soardb.errors import CorruptStorage

h5py = pytest.importorskip("h5py")

TINY = "tiny-32-angular"


class TestLayout:
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
            dataset_files.write(tmp_path / "new" / "x.hdf5", bad, source="")
        assert list((tmp_path / "new").iterdir()) == []
