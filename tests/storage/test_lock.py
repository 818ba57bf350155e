"""The lock on a database directory: one owner, named to the second, freed by the kernel.

    soardb/storage/lock.py -> [test_lock.py]

Processes that are killed while they hold it are tried in tests/collections/test_database.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from soardb.errors import InUse, InvalidArgument, ReadOnly, WriteFailed
from soardb.storage import lock as locks
from soardb.storage.lock import DirectoryLock

SUPERUSER = hasattr(os, "geteuid") and os.geteuid() == 0


class TestOwning:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """The second hears who has it and what it can do; after release it may."""
        first = DirectoryLock(tmp_path)
        expected = rf"{tmp_path} is open in process {os.getpid()}; close it there, or open it for"
        with pytest.raises(InUse, match=expected):
            DirectoryLock(tmp_path)
        first.release()
        DirectoryLock(tmp_path).release()

    def test_the_file_stays_and_says_nothing(self, tmp_path: Path) -> None:
        """Removing it would let two processes hold two files of one name."""
        lock = DirectoryLock(tmp_path)
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"
        lock.release()
        assert (tmp_path / "LOCK").read_text() == ""

    def test_a_number_that_a_dead_process_left_does_not_matter(self, tmp_path: Path) -> None:
        """The lock is the kernel's; the file is for people."""
        (tmp_path / "LOCK").write_text("999999 and a longer text than ours\n")
        lock = DirectoryLock(tmp_path)
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"
        lock.release()

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 100])
    def test_garbage_in_the_file_is_no_obstacle_to_the_message(
        self, tmp_path: Path, content: bytes
    ) -> None:
        """The second is refused all the same."""
        first = DirectoryLock(tmp_path)
        (tmp_path / "LOCK").write_bytes(content)
        with pytest.raises(InUse, match="is open in process"):
            DirectoryLock(tmp_path)
        first.release()

    def test_a_full_disk_does_not_keep_one_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The number is only for the message of another."""

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        first = DirectoryLock(tmp_path)
        with pytest.raises(InUse, match="process unknown"):
            DirectoryLock(tmp_path)
        first.release()

    def test_nothing_stays_open_after_a_refusal(self, tmp_path: Path) -> None:
        """Else each try would cost a file descriptor."""
        first = DirectoryLock(tmp_path)
        lowest = os.dup(0)
        os.close(lowest)
        for _ in range(5):
            with pytest.raises(InUse):
                DirectoryLock(tmp_path)
        again = os.dup(0)
        os.close(again)
        assert again == lowest
        first.release()


class TestPlaces:
    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
    def test_a_network_file_system_is_refused(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unless it is asked for: neither lock nor flush mean there what they mean here."""
        mounts = tmp_path / "mounts"
        folder = tmp_path / "a b"
        folder.mkdir()
        escaped = str(folder.resolve()).replace(" ", "\\040")
        mounts.write_text(
            f"proc /proc proc rw 0 0\n/dev/x / ext4 rw 0 0\nsrv:/x {escaped} {kind} rw 0 0\n"
        )
        monkeypatch.setattr(locks, "_MOUNTS", mounts)
        expected = rf"network file system \({kind}\).*use a local disk, or pass allow_network=True"
        with pytest.raises(InvalidArgument, match=expected):
            DirectoryLock(folder)
        assert list(folder.iterdir()) == []
        DirectoryLock(folder, allow_network=True).release()
        DirectoryLock(tmp_path).release()  # beside the mount

    def test_a_name_that_begins_alike_is_another_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mount at data does not hold data2."""
        for name in ("data", "data2"):
            (tmp_path / name).mkdir()
        mounts = tmp_path / "mounts"
        mounts.write_text(f"srv:/x {(tmp_path / 'data').resolve()} nfs rw 0 0\nbroken line\n\n")
        monkeypatch.setattr(locks, "_MOUNTS", mounts)
        DirectoryLock(tmp_path / "data2").release()
        with pytest.raises(InvalidArgument):
            DirectoryLock(tmp_path / "data")

    def test_without_a_list_of_mounts_it_is_taken_as_local(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Systems without it are no worse off."""
        monkeypatch.setattr(locks, "_MOUNTS", tmp_path / "missing")
        DirectoryLock(tmp_path).release()

    @pytest.mark.skipif(SUPERUSER, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        """Says so as such."""
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(ReadOnly):
                DirectoryLock(tmp_path)
        finally:
            tmp_path.chmod(0o700)

    def test_errors_of_the_system_are_translated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Permission denied, and a file system that knows no locks, are not "in use"."""

        def denied(*_: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", denied)
            with pytest.raises(ReadOnly, match="LOCK: Permission denied"):
                DirectoryLock(tmp_path)

        def unknown(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", unknown)
        with pytest.raises(WriteFailed, match="No locks available"):
            DirectoryLock(tmp_path)
