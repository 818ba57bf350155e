"""Vector files: what is written is read back, and a damaged file is named with its offset.

soardb.vectors_io -> [test_vectors_io.py]
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from soardb.errors import CorruptStorage, InvalidArgument, NotFound
from soardb.kernels.layout import F32
from soardb.vectors_io import (
    BenchmarkFile,
    read_benchmark,
    read_ids,
    read_vectors,
    write_benchmark,
    write_vectors,
)

SUFFIXES = ("npy", "fvecs", "fbin")


@pytest.fixture
def vectors() -> F32:
    return np.random.default_rng(0).standard_normal((23, 7)).astype(np.float32)


@pytest.fixture
def bench_file() -> BenchmarkFile:
    rng = np.random.default_rng(1)
    return BenchmarkFile(
        train=rng.standard_normal((40, 5)).astype(np.float32),
        test=rng.standard_normal((6, 5)).astype(np.float32),
        neighbors=rng.integers(0, 40, (6, 10)),
        distances=np.sort(rng.random((6, 10)).astype(np.float32)),
        metric="cosine",
    )


class TestRoundTrip:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_bit_comes_back(self, tmp_path: Path, vectors: F32, suffix: str) -> None:
        file = tmp_path / f"v.{suffix}"
        write_vectors(file, vectors)
        found = read_vectors(file)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert np.array_equal(found, vectors)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_leaves_nothing_but_the_file(self, tmp_path: Path, vectors: F32, suffix: str) -> None:
        """The scratch file has taken the place of the old one."""
        file = tmp_path / f"v.{suffix}"
        write_vectors(file, vectors[:3])
        write_vectors(file, vectors)
        assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
        assert len(read_vectors(file)) == len(vectors)

    def test_strings_name_files_too(self, tmp_path: Path, vectors: F32) -> None:
        write_vectors(str(tmp_path / "v.FBIN"), vectors)
        assert np.array_equal(read_vectors(str(tmp_path / "v.FBIN")), vectors)

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u1", "i8"])
    def test_npy_of_any_real_number_becomes_float32(self, tmp_path: Path, dtype: str) -> None:
        numbers = np.arange(12).reshape(4, 3).astype(dtype)
        np.save(tmp_path / "v.npy", numbers)
        found = read_vectors(tmp_path / "v.npy")
        assert found.dtype == np.float32
        assert np.array_equal(found, numbers.astype(np.float32))

    def test_npy_in_fortran_order_is_turned_round(self, tmp_path: Path) -> None:
        numbers = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
        np.save(tmp_path / "v.npy", numbers)
        found = read_vectors(tmp_path / "v.npy")
        assert found.flags.c_contiguous
        assert np.array_equal(found, numbers)

    def test_float32_files_are_mapped_not_copied(self, tmp_path: Path, vectors: F32) -> None:
        """A file bigger than memory can be opened; the map is read-only."""
        for suffix in ("npy", "fbin"):
            write_vectors(tmp_path / f"v.{suffix}", vectors)
            assert not read_vectors(tmp_path / f"v.{suffix}").flags.writeable

    @pytest.mark.parametrize("suffix", ["npy", "fbin"])
    def test_no_vectors_at_all(self, tmp_path: Path, suffix: str) -> None:
        write_vectors(tmp_path / f"v.{suffix}", np.empty((0, 7), np.float32))
        assert read_vectors(tmp_path / f"v.{suffix}").shape == (0, 7)

    def test_byte_layout_of_fbin_and_fvecs(self, tmp_path: Path) -> None:
        """Others write and read these files, so the bytes themselves are the promise."""
        write_vectors(tmp_path / "v.fbin", [[1.5, -2.0]])
        write_vectors(tmp_path / "v.fvecs", [[1.5, -2.0]])
        assert (tmp_path / "v.fbin").read_bytes() == struct.pack("<IIff", 1, 2, 1.5, -2.0)
        assert (tmp_path / "v.fvecs").read_bytes() == struct.pack("<iff", 2, 1.5, -2.0)


class TestDamage:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_cut_anywhere_is_noticed(self, tmp_path: Path, vectors: F32, suffix: str) -> None:
        """fvecs has no total in its header, so there only a cut within a row can be seen."""
        file = tmp_path / f"v.{suffix}"
        write_vectors(file, vectors[:4])
        whole = file.read_bytes()
        row_bytes = 4 * (vectors.shape[1] + 1)
        for length in range(len(whole)):
            if suffix == "fvecs" and length and length % row_bytes == 0:
                continue
            file.write_bytes(whole[:length])
            with pytest.raises(CorruptStorage, match=r"v\.\w+: .*offset"):
                read_vectors(file)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_bytes_too_many_are_noticed(self, tmp_path: Path, vectors: F32, suffix: str) -> None:
        file = tmp_path / f"v.{suffix}"
        write_vectors(file, vectors)
        file.write_bytes(file.read_bytes() + b"\0")
        with pytest.raises(CorruptStorage):
            read_vectors(file)

    def test_fvecs_with_a_second_dimension_names_the_row(
        self, tmp_path: Path, vectors: F32
    ) -> None:
        file = tmp_path / "v.fvecs"
        write_vectors(file, vectors)
        damaged = bytearray(file.read_bytes())
        damaged[5 * 32 : 5 * 32 + 4] = struct.pack("<i", 9)
        file.write_bytes(damaged)
        with pytest.raises(CorruptStorage, match="got 9 in row 5 at offset 160"):
            read_vectors(file)

    @pytest.mark.parametrize("d", [0, -1])
    def test_fvecs_of_no_dimension(self, tmp_path: Path, d: int) -> None:
        (tmp_path / "v.fvecs").write_bytes(struct.pack("<i", d))
        with pytest.raises(CorruptStorage, match="offset 0"):
            read_vectors(tmp_path / "v.fvecs")

    def test_npy_header_of_rubbish(self, tmp_path: Path) -> None:
        (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': 4}    \n" + bytes(64))
        with pytest.raises(CorruptStorage, match="header"):
            read_vectors(tmp_path / "v.npy")


class TestWrongFiles:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=r"none\.npy"):
            read_vectors(tmp_path / "none.npy")

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument):
            read_vectors(tmp_path)

    def test_unknown_suffix_lists_the_known_ones(self, tmp_path: Path) -> None:
        (tmp_path / "v.csv").write_text("1,2\n")
        with pytest.raises(InvalidArgument, match=r"\.npy, \.fvecs, \.fbin"):
            read_vectors(tmp_path / "v.csv")
        with pytest.raises(InvalidArgument, match=r"\.npy, \.fvecs, \.fbin"):
            write_vectors(tmp_path / "w.csv", [[1.0]])

    @pytest.mark.parametrize(
        "array",
        [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((2, 2), complex), np.array([["a", "b"]])],
        ids=["1-d", "3-d", "complex", "text"],
    )
    def test_npy_of_something_else(self, tmp_path: Path, array: npt.NDArray[Any]) -> None:
        np.save(tmp_path / "v.npy", array)
        with pytest.raises(InvalidArgument, match=r"v\.npy: expected"):
            read_vectors(tmp_path / "v.npy")

    def test_pickles_are_never_opened(self, tmp_path: Path) -> None:
        np.save(tmp_path / "v.npy", np.array([[print]], dtype=object))
        with pytest.raises(InvalidArgument):
            read_vectors(tmp_path / "v.npy")

    def test_numbers_too_large_for_float32_stay_visible(self, tmp_path: Path) -> None:
        """They become infinite, which the index refuses; they do not wrap into plausible ones."""
        np.save(tmp_path / "v.npy", np.array([[1e300, 1.0]]))
        assert np.isinf(read_vectors(tmp_path / "v.npy")[0, 0])

    def test_writing_into_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            write_vectors(tmp_path / "none" / "v.npy", [[1.0]])

    def test_writing_something_else_leaves_the_old_file(self, tmp_path: Path, vectors: F32) -> None:
        write_vectors(tmp_path / "v.npy", vectors)
        with pytest.raises(InvalidArgument):
            write_vectors(tmp_path / "v.npy", np.zeros(3))
        assert np.array_equal(read_vectors(tmp_path / "v.npy"), vectors)


class TestIds:
    @pytest.mark.parametrize("dtype", ["i4", "u2", ">i8"])
    def test_integers_become_int64(self, tmp_path: Path, dtype: str) -> None:
        np.save(tmp_path / "ids.npy", np.array([7, 3, 9]).astype(dtype))
        ids = read_ids(tmp_path / "ids.npy")
        assert ids.dtype == np.int64
        assert ids.tolist() == [7, 3, 9]

    @pytest.mark.parametrize("ids", [np.zeros((2, 1), int), np.zeros(2)], ids=["2-d", "float"])
    def test_anything_else_is_refused(self, tmp_path: Path, ids: npt.NDArray[Any]) -> None:
        np.save(tmp_path / "ids.npy", ids)
        with pytest.raises(InvalidArgument, match=r"shape \(n,\)"):
            read_ids(tmp_path / "ids.npy")

    def test_another_suffix_and_a_cut_file(self, tmp_path: Path) -> None:
        np.save(tmp_path / "ids.npy", np.arange(5))
        whole = (tmp_path / "ids.npy").read_bytes()
        (tmp_path / "ids.npy").write_bytes(whole[:-1])
        with pytest.raises(CorruptStorage, match="offset"):
            read_ids(tmp_path / "ids.npy")
        (tmp_path / "ids.txt").write_text("1 2 3")
        with pytest.raises(InvalidArgument, match=r"\.npy"):
            read_ids(tmp_path / "ids.txt")


class TestBenchmarkFiles:
    def test_every_part_comes_back(self, tmp_path: Path, bench_file: BenchmarkFile) -> None:
        file = tmp_path / "b.hdf5"
        write_benchmark(file, bench_file)
        found = read_benchmark(file)
        assert found.metric == bench_file.metric
        for part in ("train", "test", "neighbors", "distances"):
            assert np.array_equal(getattr(found, part), getattr(bench_file, part)), part
        assert found.neighbors.dtype == np.int64
        assert np.array_equal(read_vectors(file), bench_file.train)
        assert np.array_equal(read_vectors(file, part="test"), bench_file.test)

    def test_reads_what_ann_benchmarks_writes(self, tmp_path: Path) -> None:
        """Double precision distances, int32 neighbours, a distance by its name there."""
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "b.hdf5", "w") as content:
            content.attrs.update(type="dense", distance="euclidean", dimension=2)
            content["train"] = np.eye(2, dtype="f4")
            content["test"] = np.ones((1, 2), "f8")
            content["neighbors"] = np.array([[1, 0]], "i4")
            content["distances"] = np.ones((1, 2), "f8")
        found = read_benchmark(tmp_path / "b.hdf5")
        assert found.metric == "l2"
        assert found.test.dtype == np.float32

    def test_a_cut_file(self, tmp_path: Path, bench_file: BenchmarkFile) -> None:
        file = tmp_path / "b.hdf5"
        write_benchmark(file, bench_file)
        whole = file.read_bytes()
        for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(CorruptStorage, match="offset"):
                read_benchmark(file)

    def test_a_part_is_missing(self, tmp_path: Path, bench_file: BenchmarkFile) -> None:
        h5py = pytest.importorskip("h5py")
        write_benchmark(tmp_path / "b.hdf5", bench_file)
        with h5py.File(tmp_path / "b.hdf5", "a") as content:
            del content["neighbors"]
        with pytest.raises(InvalidArgument, match=r"'neighbors'.*train"):
            read_benchmark(tmp_path / "b.hdf5")

    def test_a_distance_that_is_none_of_ours(
        self, tmp_path: Path, bench_file: BenchmarkFile
    ) -> None:
        h5py = pytest.importorskip("h5py")
        write_benchmark(tmp_path / "b.hdf5", bench_file)
        with h5py.File(tmp_path / "b.hdf5", "a") as content:
            content.attrs["distance"] = "jaccard"
        with pytest.raises(InvalidArgument, match="'jaccard'"):
            read_benchmark(tmp_path / "b.hdf5")

    def test_neighbours_outside_of_the_train_set(
        self, tmp_path: Path, bench_file: BenchmarkFile
    ) -> None:
        h5py = pytest.importorskip("h5py")
        write_benchmark(tmp_path / "b.hdf5", bench_file)
        with h5py.File(tmp_path / "b.hdf5", "a") as content:
            content["neighbors"][2, 3] = 40
        with pytest.raises(CorruptStorage, match="got 40 at row 2, column 3"):
            read_benchmark(tmp_path / "b.hdf5")

    def test_shapes_that_do_not_fit(self, tmp_path: Path, bench_file: BenchmarkFile) -> None:
        for wrong in (
            replace(bench_file, test=bench_file.test[:, :4]),
            replace(bench_file, neighbors=bench_file.neighbors[:5]),
            replace(bench_file, distances=bench_file.distances[:, :9]),
        ):
            with pytest.raises(InvalidArgument):
                write_benchmark(tmp_path / "b.hdf5", wrong)
        assert not (tmp_path / "b.hdf5").exists()
