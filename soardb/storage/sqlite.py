"""SQLite as soardb uses it: how a file is opened, and what its errors mean here.

    rows.py -> [sqlite.py] -> apsw

WAL mode, so that readers never wait for the writer; the flush at a commit is chosen transaction by
transaction (`set_durability`). apsw carries its own SQLite: the version that a machine happens to
have may be old enough to lose pages of a WAL (fixed in SQLite 3.51.3).

Nothing here knows a table.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from soardb.errors import (
    CorruptStorage,
    InUse,
    NotFound,
    OutOfMemory,
    OutOfSpace,
    ReadOnly,
    SoarError,
    WriteFailed,
)

__all__ = ["fetch_all", "no_space", "open_file", "translated"]

_BUSY_MS = 5_000
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def no_space(error: OSError) -> bool:
    """Whether a failed system call says that the disk, a quota or a file-size limit is full."""
    return error.errno in _NO_SPACE


@contextlib.contextmanager
def translated(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of SQLite and of the file system as errors of soardb, with the file's name."""
    try:
        yield
    except apsw.FullError as error:
        raise OutOfSpace(
            f"{path}: the disk is full, nothing of this call was written; free space and repeat it"
        ) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise CorruptStorage(
            f"{path}: damaged ({error}); `soardb repair` saves what is readable"
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise InUse(f"{path}: another process holds it: {error}") from error
    except (apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise ReadOnly(f"{path}: cannot be written: {error}") from error
    except apsw.NoMemError as error:
        raise OutOfMemory(f"{path}: SQLite found no memory") from error
    except apsw.CantOpenError as error:
        raise _cannot_open(path, error) from error
    except apsw.IOError as error:
        raise WriteFailed(
            f"{path}: the disk refused ({error}); the collection takes no writes until it is "
            "opened anew, and what was acknowledged before is kept"
        ) from error
    except UnicodeDecodeError as error:  # texts of ours are all UTF-8
        raise CorruptStorage(f"{path}: a text in it is damaged ({error})") from error
    except apsw.SQLError as error:  # a table or column that we made is not there
        raise CorruptStorage(f"{path}: not a row store of ours: {error}") from error
    except OSError as error:
        if isinstance(error, SoarError):
            raise
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{path}: no such file or folder; was it moved or deleted?") from error
        if no_space(error):
            raise OutOfSpace(f"{path}: {error.strerror}; free space and repeat the call") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ReadOnly(f"{path}: {error.strerror}") from error
        raise WriteFailed(f"{path}: {error}") from error


def _cannot_open(path: str | os.PathLike[str], error: Exception) -> SoarError:
    if not Path(path).exists():
        return CorruptStorage(f"{path}: the file is missing; restore it or run `soardb repair`")
    if not os.access(path, os.W_OK) or not os.access(Path(path).parent, os.W_OK):
        return ReadOnly(f"{path}: cannot be opened for writing; check its owner and mode")
    return WriteFailed(f"{path}: cannot be opened: {error}")


def open_file(
    path: str | os.PathLike[str], *, create_pages: int = 0, read_only: bool = False
) -> apsw.Connection:
    """A connection in WAL mode.

    create_pages  page size in bytes of a file that is made now; 0: the file exists
    read_only     nothing is written; a folder that cannot be written is read as it stands

    Errors: CorruptStorage, ReadOnly, InUse, OutOfSpace, WriteFailed.
    """
    with translated(path):
        connection = _connect(os.fspath(path), create_pages, read_only)
        connection.set_busy_timeout(_BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.execute("PRAGMA cell_size_check=ON")
        if create_pages:
            connection.execute(f"PRAGMA page_size={int(create_pages)}")
        if not read_only:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchall()[0][0]
            if mode != "wal":
                raise WriteFailed(f"{path}: expected SQLite's WAL mode, got {mode!r}")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # rows.py does it after the replies
            connection.execute("PRAGMA fullfsync=ON")  # macOS: flush the drive too
            connection.execute("PRAGMA checkpoint_fullfsync=ON")
            connection.execute(f"PRAGMA journal_size_limit={64 * 2**20}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return connection


def fetch_all(connection: apsw.Connection, query: str, bindings: Any = ()) -> list[Any]:
    """Every record of a query."""
    return connection.execute(query, bindings).fetchall()


def _connect(path: str, create_pages: int, read_only: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create_pages else 0)
    if not read_only:
        return apsw.Connection(path, flags=flags)
    if not os.access(Path(path).parent, os.W_OK) and not Path(path + "-wal").exists():
        # Nobody can write here: without the shared memory file that WAL readers want.
        uri = f"file:{_quoted(path)}?immutable=1"
        return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    return apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
