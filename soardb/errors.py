"""What can go wrong, from the caller's side.

    SoarError
      InvalidArgument (ValueError)      the call can never succeed as written
      AlreadyExists   (ValueError)      a collection, an alias or an id is there already
      NotTrained      (RuntimeError)    call train() first
      NotFound        (LookupError)     no such collection or id; not KeyError, whose str() quotes
      CorruptStorage  (OSError)         bytes on disk fail their checksum
      OutOfSpace      (OSError)         the disk is full; nothing was written, reads go on
      WriteFailed     (OSError)         the disk refused a write; closed to writes until reopened
      InUse           (OSError)         another process owns the directory
      ReadOnly        (PermissionError) opened for reading, or the directory cannot be written
      OutOfMemory     (MemoryError)     the memory limit would be exceeded
      NotAllowed      (PermissionError) a server wants a key, or one with more rights
      Closed          (RuntimeError)    the database or the collection was closed or dropped
      Unavailable     (ConnectionError) worth retrying
      TimedOut        (TimeoutError)    the call's time was up, or its caller went away
      MalformedOutput (ValueError)      a language model wrote what cannot be read

Every error of soardb is one of these; each is also the builtin that a caller would expect. A
message names what was expected, what came and what to do.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "Closed",
    "CorruptStorage",
    "InUse",
    "InvalidArgument",
    "MalformedOutput",
    "NotAllowed",
    "NotFound",
    "NotTrained",
    "OutOfMemory",
    "OutOfSpace",
    "ReadOnly",
    "SoarError",
    "TimedOut",
    "Unavailable",
    "WriteFailed",
]


class SoarError(Exception):
    """Any error that soardb raises on purpose."""


class InvalidArgument(SoarError, ValueError):
    """The call can never succeed as written."""


class AlreadyExists(SoarError, ValueError):
    """A collection, an alias or an id of that name is there already."""


class NotTrained(SoarError, RuntimeError):
    """The index has no partitions yet: call train() first."""


class NotFound(SoarError, LookupError):
    """No such collection or id."""


class CorruptStorage(SoarError, OSError):
    """A file of ours is damaged, truncated or not one of ours."""


class OutOfSpace(SoarError, OSError):
    """The disk is full. Nothing of the call was written; reads go on, and writes when it is not."""


class WriteFailed(SoarError, OSError):
    """The disk refused a write or a flush: what it holds is uncertain until it is opened anew."""


class InUse(SoarError, OSError):
    """Another process owns the directory."""


class ReadOnly(SoarError, PermissionError):
    """Opened for reading, or the directory cannot be written."""


class OutOfMemory(SoarError, MemoryError):
    """The memory limit would be exceeded."""


class NotAllowed(SoarError, PermissionError):
    """The server wants a key, or one that may do this."""


class Closed(SoarError, RuntimeError):
    """The database or the collection was closed or dropped."""


class Unavailable(SoarError, ConnectionError):
    """The other side did not answer; the same call may work later."""


class TimedOut(SoarError, TimeoutError):
    """The call's time was up, or its caller went away.

    A read was given up; of a write nothing was written.
    """


class MalformedOutput(SoarError, ValueError):
    """A language model wrote what cannot be read as what it was asked for, however often asked."""
