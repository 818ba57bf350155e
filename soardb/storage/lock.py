"""One process owns a database directory: an advisory lock that the kernel frees.

    database.py -> [lock.py]

The file holds the owner's process number, for the message that the second process gets; the lock
itself is flock, so a process that dies in any way leaves none behind. Locks of this kind are not
to be trusted on network file systems, which are therefore refused unless asked for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from soardb.errors import InUse, InvalidArgument
from soardb.storage.sqlite import translated

__all__ = ["DirectoryLock"]

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs"}
_MOUNTS = Path("/proc/self/mounts")


class DirectoryLock:
    """Held from construction to release(). Errors: InUse, naming the owner; ReadOnly."""

    def __init__(self, folder: Path, *, allow_network: bool = False) -> None:
        kind = _file_system(folder)
        if kind in _NETWORK and not allow_network:
            raise InvalidArgument(
                f"{folder} lies on a network file system ({kind}), where locks and flushes are not "
                "to be trusted; use a local disk, or pass allow_network=True if nothing else "
                "writes there"
            )
        self._path = folder / "LOCK"
        with translated(self._path):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(self._handle, 64, 0).decode("ascii", "replace").strip()
                os.close(self._handle)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise InUse(
                    f"{folder} is open in process {owner or 'unknown'}; close it there, or open it "
                    "for reading with read_only=True"
                ) from None
            # The number is only for a message: a full disk must not keep one from opening.
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next process have it."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
        os.close(self._handle)


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on; "" where the system does not tell."""
    if not _MOUNTS.exists():
        return ""
    best, kind = "", ""
    path = str(folder.resolve())
    for line in _MOUNTS.read_text("utf-8", "replace").splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind
