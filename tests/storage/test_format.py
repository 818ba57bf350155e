"""The file format under damage: every byte, every bit, hostile headers, failing disks.

    soardb/storage/format.py -> [test_format.py]

The rule: a file is read as it was written, or CorruptStorage names what is wrong. Never a crash,
never a wrong array. Whole indexes get the same treatment in tests/index/test_soar_index.py.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb import CorruptStorage, InvalidArgument, NotFound
from soardb.storage import format as storage
from soardb.storage.format import FORMAT_VERSION, read_arrays, write_arrays

PAGE = 4096
PREFIX = struct.Struct("<8sIIQ")

ARRAYS: dict[str, np.ndarray] = {
    "floats": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bytes": np.arange(10, dtype=np.uint8),
    "longs": np.array([2**62, -1, 0]),
}
PARAMETERS = {"d": 4, "name": "häuser", "nested": {"a": [1, 2.5, None, True]}}


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Equal names, in order, and equal arrays."""
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sound file of three small arrays."""
    path = tmp_path / "arrays.soar"
    write_arrays(path, "test", PARAMETERS, ARRAYS)
    return path


def used_bytes(data: bytes) -> list[range]:
    """Prefix and header, then each array: everything but the padding between them."""
    _, _, _, length = PREFIX.unpack(data[: PREFIX.size])
    start = -(-(PREFIX.size + length) // PAGE) * PAGE
    header = json.loads(data[PREFIX.size : PREFIX.size + length])
    parts = [range(PREFIX.size + length)]
    for entry in header["arrays"]:
        size = np.dtype(entry["dtype"]).itemsize * int(np.prod(entry["shape"]))
        parts.append(range(start + entry["offset"], start + entry["offset"] + size))
    return parts


class TestRoundTrip:
    def test_what_was_written_is_read(self, file: Path) -> None:
        """Names, order, shapes, dtypes, values, parameters."""
        parameters, arrays = read_arrays(file, "test")
        assert parameters == PARAMETERS
        assert same(arrays, ARRAYS)

    @pytest.mark.parametrize("dtype", ["<f4", "<i4", "<i8", "<u4", "|u1"])
    @pytest.mark.parametrize("shape", [(), (0,), (0, 7), (1,), (3, 0, 2), (2, 3, 4, 5), (5000,)])
    def test_every_dtype_and_shape(
        self, tmp_path: Path, dtype: str, shape: tuple[int, ...]
    ) -> None:
        """Empty arrays keep their other dimensions; a scalar comes back as one element."""
        size = int(np.prod(shape))
        array = np.arange(size).astype(dtype).reshape(shape)
        write_arrays(tmp_path / "a", "test", {}, {"x": array, "after": ARRAYS["bytes"]})
        _, arrays = read_arrays(tmp_path / "a", "test")
        assert arrays["x"].shape == (shape or (1,))
        assert arrays["x"].dtype == dtype
        assert np.array_equal(arrays["x"].reshape(shape), array)
        assert np.array_equal(arrays["after"], ARRAYS["bytes"])

    def test_no_arrays_at_all(self, tmp_path: Path) -> None:
        """Parameters alone make a file."""
        write_arrays(tmp_path / "a", "test", {"x": 1}, {})
        assert read_arrays(tmp_path / "a", "test") == ({"x": 1}, {})

    def test_layout_of_the_input_does_not_matter(self, tmp_path: Path) -> None:
        """Fortran order, strides and read-only arrays are written in C order."""
        base = np.arange(24, dtype=np.float32).reshape(4, 6)
        base.flags.writeable = False
        views = {"fortran": np.asfortranarray(base), "strided": base[::2, 1::2], "plain": base}
        write_arrays(tmp_path / "a", "test", {}, views)
        _, arrays = read_arrays(tmp_path / "a", "test")
        assert all(np.array_equal(arrays[name], view) for name, view in views.items())

    def test_arrays_lie_on_pages(self, file: Path) -> None:
        """So that a mapping is aligned for any kernel and shares whole pages."""
        _, arrays = read_arrays(file, "test")
        assert all(array.ctypes.data % 64 == 0 for array in arrays.values())
        assert file.stat().st_size % PAGE == 0

    def test_the_same_content_gives_the_same_bytes(self, file: Path, tmp_path: Path) -> None:
        """No time, no path, no random padding inside."""
        write_arrays(tmp_path / "b", "test", PARAMETERS, ARRAYS)
        assert (tmp_path / "b").read_bytes() == file.read_bytes()

    def test_an_array_of_several_checksum_pieces(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each piece has its own checksum; the error names the one that fails."""
        monkeypatch.setattr(storage, "_PIECE", 1000)
        path = tmp_path / "a"
        array = np.arange(3300, dtype=np.uint8) * 7
        write_arrays(path, "test", {}, {"x": array})
        assert np.array_equal(read_arrays(path, "test")[1]["x"], array)
        data = bytearray(path.read_bytes())
        data[PAGE + 2500] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptStorage, match=f"array 'x' fails at offset {PAGE + 2000}"):
            read_arrays(path, "test")


class TestMapping:
    def test_writing_to_an_array_never_reaches_the_file(self, file: Path) -> None:
        """The mapping is private: indexes change their arrays in place."""
        before = file.read_bytes()
        _, arrays = read_arrays(file, "test")
        for array in arrays.values():
            array[...] = 7
        assert file.read_bytes() == before
        assert same(read_arrays(file, "test")[1], ARRAYS)

    def test_arrays_survive_the_replacement_of_the_file(self, file: Path) -> None:
        """A reader keeps what it mapped; a new reader sees the new file."""
        _, old = read_arrays(file, "test")
        write_arrays(file, "test", {}, {"floats": np.zeros(3, np.float32)})
        assert same(old, ARRAYS)
        assert same(read_arrays(file, "test")[1], {"floats": np.zeros(3, np.float32)})

    def test_arrays_survive_the_removal_of_the_file(self, file: Path) -> None:
        """And they keep the mapping alive, with no handle left to close."""
        arrays = read_arrays(file, "test")[1]
        file.unlink()
        assert same(arrays, ARRAYS)


class TestDamage:
    def test_truncation_at_every_byte(self, file: Path) -> None:
        """A copy that stopped early is never used, not even one that lacks only padding."""
        for length in reversed(range(file.stat().st_size)):
            os.truncate(file, length)
            with pytest.raises(CorruptStorage, match=str(file)):
                read_arrays(file, "test")

    def test_a_longer_file_is_refused(self, file: Path) -> None:
        """Bytes after the end belong to no one."""
        for tail in (b"\0", bytes(PAGE)):
            longer = file.with_name("longer")
            longer.write_bytes(file.read_bytes() + tail)
            with pytest.raises(CorruptStorage, match="bytes, the file has"):
                read_arrays(longer, "test")

    def test_a_flipped_bit_in_every_byte(self, file: Path) -> None:
        """Each bit of every byte that is read; the error names the file.

        Padding is never read: flips there change no array and go unnoticed.
        """
        data = bytearray(file.read_bytes())
        used = used_bytes(bytes(data))
        handle = os.open(file, os.O_WRONLY)
        for part in used:
            for place in part:
                for bit in range(8):
                    os.pwrite(handle, bytes([data[place] ^ 1 << bit]), place)
                    with pytest.raises(CorruptStorage, match=str(file)):
                        read_arrays(file, "test")
                os.pwrite(handle, data[place : place + 1], place)
        padding = sorted(set(range(len(data))).difference(*used))
        for place in padding:
            os.pwrite(handle, bytes([data[place] ^ 0xFF]), place)
        os.close(handle)
        assert len(padding) > 3 * PAGE
        assert same(read_arrays(file, "test")[1], ARRAYS)

    def test_the_message_says_where(self, file: Path) -> None:
        """File, array and offset, so that a disk can be examined."""
        data = bytearray(file.read_bytes())
        place = used_bytes(bytes(data))[2].start
        data[place + 3] ^= 1
        file.write_bytes(data)
        with pytest.raises(
            CorruptStorage, match=rf"{file}: checksum of array 'bytes' fails at offset {place}"
        ):
            read_arrays(file, "test")

    def test_two_arrays_swapped(self, file: Path) -> None:
        """Sound bytes in the wrong place are damage too."""
        data = bytearray(file.read_bytes())
        _, first, second, _ = used_bytes(bytes(data))
        one, two = data[first.start :][:PAGE], data[second.start :][:PAGE]
        data[first.start : first.start + PAGE], data[second.start : second.start + PAGE] = two, one
        file.write_bytes(data)
        with pytest.raises(CorruptStorage, match="array 'floats'"):
            read_arrays(file, "test")

    def test_zeros_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        """What some file systems leave after a power cut."""
        for size in (1, 24, PAGE, 3 * PAGE):
            (tmp_path / "a").write_bytes(bytes(size))
            with pytest.raises(CorruptStorage):
                read_arrays(tmp_path / "a", "test")

    def test_a_text_mode_copy(self, file: Path) -> None:
        """The line ending in the magic betrays it."""
        file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
        with pytest.raises(CorruptStorage, match="not a soardb file"):
            read_arrays(file, "test")


class TestWrongFile:
    def test_another_kind(self, file: Path) -> None:
        """A sound file, but not what was asked for: the caller's mistake."""
        with pytest.raises(InvalidArgument, match=r"kind 'flat-index', .* holds 'test'"):
            read_arrays(file, "flat-index")

    @pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, 2**32 - 1])
    def test_another_version(self, file: Path, version: int) -> None:
        """The message names both versions and what to do."""
        data = bytearray(file.read_bytes())
        data[8:12] = struct.pack("<I", version)
        file.write_bytes(data)
        with pytest.raises(CorruptStorage, match=f"format version {version} .* build the index"):
            read_arrays(file, "test")

    def test_another_format(self, tmp_path: Path) -> None:
        """A NumPy file, a text."""
        np.save(tmp_path / "a.npy", np.zeros(100))
        (tmp_path / "b.txt").write_text("Sehr geehrte Damen und Herren,\n" * 10)
        for name in ("a.npy", "b.txt"):
            with pytest.raises(CorruptStorage, match="not a soardb file"):
                read_arrays(tmp_path / name, "test")

    def test_nothing_there(self, tmp_path: Path) -> None:
        """A missing file, a folder, a name that no file can have."""
        for path in (tmp_path / "none", tmp_path, tmp_path / "a\0b"):
            with pytest.raises(NotFound, match="expected a soardb file at"):
                read_arrays(path, "test")


def forge(path: Path, header: object, body: bytes = bytes(PAGE), *, raw: bytes = b"") -> None:
    """A file whose prefix and header checksum are right, whatever the header says."""
    text = raw or json.dumps(header).encode()
    prefix = PREFIX.pack(b"SOARDB\r\n", FORMAT_VERSION, zlib.crc32(text), len(text))
    start = -(-(PREFIX.size + len(text)) // PAGE) * PAGE
    path.write_bytes((prefix + text).ljust(start, b"\0") + body)


def entry(**changes: object) -> dict[str, object]:
    """The description of 16 zero bytes, changed."""
    sound: dict[str, object] = {
        "name": "x",
        "dtype": "<f4",
        "shape": [4],
        "offset": 0,
        "crc32": [zlib.crc32(bytes(16))],
    }
    return sound | changes


def header(*entries: object, **changes: object) -> dict[str, object]:
    """A header of these entries, changed."""
    return {"kind": "test", "parameters": {}, "arrays": list(entries)} | changes


class TestHostileHeaders:
    """Correct checksums over lies: made on purpose, so nothing of it may be believed."""

    def test_the_forger_can_make_a_sound_file(self, tmp_path: Path) -> None:
        """What follows is refused for what it says, not for how it was made."""
        forge(tmp_path / "a", header(entry()))
        _, arrays = read_arrays(tmp_path / "a", "test")
        assert same(arrays, {"x": np.zeros(4, np.float32)})

    @pytest.mark.parametrize(
        "lie",
        [
            entry(shape=[2**40]),
            entry(shape=[2**62, 2**62]),
            entry(shape=[10**400]),
            entry(shape=[0, 2**63]),
            entry(shape=[0, 2**62, 2**62]),
            entry(shape=[0, 10**400], crc32=[]),
            entry(shape=[0, 2**62, 2**62], crc32=[]),
            entry(shape=[1] * 100, crc32=[zlib.crc32(bytes(4))]),
            entry(shape=[-4]),
            entry(shape=[-1, -4]),
            entry(shape=[4.0]),
            entry(shape=[float("nan")]),
            entry(shape=["4"]),
            entry(shape=[[4]]),
            entry(shape="4"),
            entry(shape=4),
            entry(shape=None),
            entry(shape={"4": 4}),
            entry(shape=[5]),
            entry(shape=[3]),
            entry(offset=-16),
            entry(offset=-(2**63)),
            entry(offset=2**63),
            entry(offset=10**30),
            entry(offset=PAGE),
            entry(offset=16),
            entry(offset=1.5),
            entry(offset=float("inf")),
            entry(offset="0"),
            entry(offset=None),
            entry(dtype="object"),
            entry(dtype="|O"),
            entry(dtype="<f8"),
            entry(dtype="<f2"),
            entry(dtype=">f4"),
            entry(dtype="f4,f4"),
            entry(dtype="|V16", shape=[1]),
            entry(dtype=""),
            entry(dtype=None),
            entry(dtype=["<f4"]),
            entry(crc32=[]),
            entry(crc32=[0]),
            entry(crc32=[zlib.crc32(bytes(16))] * 2),
            entry(crc32=[float("nan")]),
            entry(crc32=None),
            entry(crc32=7),
            entry(name=None),
            entry(name=["x"]),
            entry(name={}),
            {},
            [],
            None,
            "x",
            7,
        ],
        ids=lambda lie: json.dumps(lie)[:60],
    )
    def test_a_false_description_of_an_array(self, tmp_path: Path, lie: object) -> None:
        """Shapes, offsets, types and checksums that cannot be."""
        forge(tmp_path / "a", header(lie))
        with pytest.raises(CorruptStorage):
            read_arrays(tmp_path / "a", "test")

    @pytest.mark.parametrize(
        "lie",
        [
            header(entry(), entry()),
            header(entry(), entry(name="y")),
            header(entry(), entry(name="y", offset=16)),
            header(entry(), entry(name="y", offset=8)),
            header(entry(offset=PAGE), entry(name="y")),
            header(arrays={}),
            header(arrays=None),
            header(arrays=3),
            header(arrays="xy"),
            header(parameters=None),
            header(parameters=3),
            header(parameters=[1]),
            {"kind": "test"},
            {"kind": "test", "arrays": []},
            {"arrays": [], "parameters": {}},
            [],
            [header()],
            None,
            "header",
            7,
            float("nan"),
        ],
        ids=lambda lie: json.dumps(lie)[:60],
    )
    def test_a_false_header(self, tmp_path: Path, lie: object) -> None:
        """Overlaps, names that stand twice, parts that are missing or of another type."""
        forge(tmp_path / "a", lie, bytes(2 * PAGE))
        with pytest.raises(CorruptStorage):
            read_arrays(tmp_path / "a", "test")

    @pytest.mark.parametrize(
        "raw",
        [
            b"\xff\xfe\x00 not text",
            b"{",
            b"{'kind': 'test'}",
            b'{"kind": "test", "arrays": [], "parameters": {}} and more',
            b"[" * 200_000,
            b'{"a":' * 100_000,
            b'{"kind": "test", "parameters": '
            + b"[" * 100_000
            + b"]" * 100_000
            + b', "arrays": []}',
            b'{"kind": "test", "parameters": {"n": ' + b"9" * 5000 + b'}, "arrays": []}',
            b" ",
        ],
        ids=["bytes", "open", "python", "tail", "deep", "deeper", "deep value", "digits", "blank"],
    )
    def test_a_header_that_is_no_json(self, tmp_path: Path, raw: bytes) -> None:
        """Not text, not closed, nested without end, a number of five thousand digits."""
        forge(tmp_path / "a", None, raw=raw)
        with pytest.raises(CorruptStorage, match="not one of ours"):
            read_arrays(tmp_path / "a", "test")

    @pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 64 * 2**20 + 1, 3 * PAGE, 0, 1])
    def test_a_false_header_length(self, tmp_path: Path, length: int) -> None:
        """Nothing is allocated on a stranger's word."""
        path = tmp_path / "a"
        forge(path, header(entry()))
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack("<Q", length)
        path.write_bytes(data)
        with pytest.raises(CorruptStorage, match="header"):
            read_arrays(path, "test")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestWriting:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        """Said before anything is written."""
        with pytest.raises(NotFound, match=r"expected the folder .*nowhere to exist; make it"):
            write_arrays(tmp_path / "nowhere" / "a", "test", {}, ARRAYS)

    def test_a_folder_in_the_place_of_the_file(self, tmp_path: Path) -> None:
        """It stays, and nothing is left beside it."""
        (tmp_path / "a").mkdir()
        with pytest.raises(InvalidArgument, match="a file to write to, got the folder"):
            write_arrays(tmp_path / "a", "test", {}, ARRAYS)
        assert files_in(tmp_path) == {"a"}

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
    def test_a_read_only_folder(self, tmp_path: Path) -> None:
        """The error of the file system, and nothing is left behind."""
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
        with pytest.raises(PermissionError):
            write_arrays(folder / "a", "test", {}, ARRAYS)
        assert files_in(folder) == set()

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_disk_that_fails_leaves_the_old_file(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """Whole or not at all: no half of a new file, no temporary one."""

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = file.read_bytes()
        monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match="space"):
            write_arrays(file, "test", {}, {"x": np.ones(100_000, np.float32)})
        monkeypatch.undo()
        assert files_in(file.parent) == {file.name}
        assert file.read_bytes() == before

    def test_a_disk_that_is_full(self, file: Path) -> None:
        """The same with a real limit: this process may write no more than 64 KiB into a file."""
        resource = pytest.importorskip("resource")
        signal = pytest.importorskip("signal")
        before = file.read_bytes()
        old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, old_limit[1]))
        try:
            with pytest.raises(OSError, match=r"[Ff]ile too large"):
                write_arrays(file, "test", {}, {"x": np.ones(100_000, np.float32)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
            signal.signal(signal.SIGXFSZ, old_handler)
        assert files_in(file.parent) == {file.name}
        assert file.read_bytes() == before

    def test_a_folder_that_cannot_be_synced(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Told to the caller; the file is then the new one, and whole."""

        def fail(folder: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(storage, "sync_folder", fail)
        with pytest.raises(OSError, match="Input/output"):
            write_arrays(file, "test", {}, {"x": np.ones(3, np.float32)})
        assert files_in(file.parent) == {file.name}
        assert same(read_arrays(file, "test")[1], {"x": np.ones(3, np.float32)})

    def test_an_interrupt_leaves_the_old_file(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C is no reason for a stray file."""

        def interrupt(handle: int) -> None:
            raise KeyboardInterrupt

        before = file.read_bytes()
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_arrays(file, "test", {}, {})
        assert files_in(file.parent) == {file.name}
        assert file.read_bytes() == before

    def test_file_and_folder_are_synced_in_that_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Contents, then the name, then the folder that holds the name: safe at a power cut."""
        steps: list[str] = []
        sync, replace = os.fsync, os.replace

        def note_sync(handle: int) -> None:
            steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
            sync(handle)

        def note_replace(source: Any, target: Any) -> None:
            steps.append("name")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", note_sync)
        monkeypatch.setattr(os, "replace", note_replace)
        write_arrays(tmp_path / "a", "test", {}, ARRAYS)
        assert steps == ["file", "name", "folder"]

    def test_the_umask_of_the_user_holds(self, tmp_path: Path) -> None:
        """An index of private vectors is as private as any other file of its owner."""
        before = os.umask(0o077)
        try:
            write_arrays(tmp_path / "private", "test", {}, ARRAYS)
            os.umask(0o022)
            write_arrays(tmp_path / "shared", "test", {}, ARRAYS)
        finally:
            os.umask(before)
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("name", ["a b", "ä.soar", ".hidden", "x" * 200, "-rf", "%s"])
    def test_any_name(self, tmp_path: Path, name: str) -> None:
        """The path is a name, nothing more; a str will do."""
        write_arrays(f"{tmp_path}/{name}", "test", {}, ARRAYS)
        assert files_in(tmp_path) == {name}
        assert same(read_arrays(f"{tmp_path}/{name}", "test")[1], ARRAYS)
