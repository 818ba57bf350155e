"""What can go wrong, from the caller's side.

    SoarError
      InvalidArgument (ValueError)      the call can never succeed as written
      NotTrained      (RuntimeError)    call train() first
      NotFound        (LookupError)     no such collection or id; not KeyError, whose str() quotes
      CorruptStorage  (OSError)         bytes on disk fail their checksum
      Unavailable     (ConnectionError) worth retrying

Every error of soardb is one of these; each is also the builtin that a caller would expect. A
message names what was expected, what came and what to do.
"""

from __future__ import annotations

__all__ = [
    "CorruptStorage",
    "InvalidArgument",
    "NotFound",
    "NotTrained",
    "SoarError",
    "Unavailable",
]


class SoarError(Exception):
    """Any error that soardb raises on purpose."""


class InvalidArgument(SoarError, ValueError):
    """The call can never succeed as written."""


class NotTrained(SoarError, RuntimeError):
    """The index has no partitions yet: call train() first."""


class NotFound(SoarError, LookupError):
    """No such collection or id."""


class CorruptStorage(SoarError, OSError):
    """A file of ours is damaged, truncated or not one of ours."""


class Unavailable(SoarError, ConnectionError):
    """The other side did not answer; the same call may work later."""
