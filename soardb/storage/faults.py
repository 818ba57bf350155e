"""Named points of the write path where a test may stop the process.

    everything that writes -> [faults.py]

`SOARDB_CRASH_AT=put.before_commit` kills the process with SIGKILL when it reaches that point;
`SOARDB_CRASH_AT=put.before_commit:3` at the third time. Without the variable a point costs one
dictionary look-up. `POINTS` is the whole list, so that a test can try each; a point that is not in
it cannot be reached.

Nothing here changes what is written.
"""

from __future__ import annotations

import os
import signal
import threading

from soardb.errors import InvalidArgument

__all__ = ["POINTS", "reach"]

POINTS = (
    "write.begun",
    "write.before_commit",
    "write.after_commit",
    "write.after_witness",
    "write.applied",
    "checkpoint.begun",
    "checkpoint.done",
    "build.trained",
    "build.encoded",
    "build.before_rename",
    "build.after_rename",
    "install.before_commit",
    "install.after_commit",
    "install.old_removed",
    "create.folder_made",
    "create.listed",
    "drop.folder_moved",
    "drop.unlisted",
    "catalog.before_rename",
    "snapshot.copied",
    "snapshot.before_rename",
    "restore.unpacked",
)


def _armed() -> tuple[str, int] | None:
    text = os.environ.get("SOARDB_CRASH_AT")
    if not text:
        return None
    point, _, count = text.partition(":")
    if point not in POINTS or not (count or "1").isdigit():
        raise InvalidArgument(
            f"expected SOARDB_CRASH_AT as POINT or POINT:COUNT with POINT one of "
            f"{', '.join(POINTS)}; got {text!r}"
        )
    return point, int(count or 1)


_trap = _armed()
_seen = 0
_lock = threading.Lock()


def reach(point: str) -> None:
    """Say that the write path has come to a point of POINTS; kills the process where armed."""
    global _seen
    assert point in POINTS, point
    if _trap is None or _trap[0] != point:
        return
    with _lock:
        _seen += 1
        if _seen == _trap[1]:
            os.kill(os.getpid(), signal.SIGKILL)
