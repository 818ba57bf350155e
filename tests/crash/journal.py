"""The journal of a workload: what it was about to do, and what it was told had been done.

    workload.py -> [journal.py] -> checker.py

One JSON object a line, appended with one write each to a file outside the database, so that a
kill leaves whole lines, in the order in which things happened. A line before a call has `op`; the
one after it has `done`, with the number of the operation. Everything that went wrong in the child
is a line with `error` or `warning`.

Nothing here knows what the operations mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Journal", "Record", "read_journal"]


class Journal:
    """A file that threads append to."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line."""
        line = json.dumps(entry).encode() + b"\n"
        assert os.write(self._handle, line) == len(line)


@dataclass(slots=True)
class Record:
    """One operation as the journal has it."""

    operation: dict[str, Any]
    begun: int
    """Line of the intent."""
    done: int | None = None
    """Line of the acknowledgement, or None."""


@dataclass(slots=True)
class Read:
    """A whole journal: operations of each thread in order, and what went wrong."""

    by_thread: dict[int, list[Record]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    is_ready: bool = False
    reads: int = 0
    builds: int = 0


def read_journal(path: Path) -> Read:
    """The journal of a process that may have died at any moment; a torn last line is dropped."""
    read = Read()
    if not path.exists():
        return read
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        read.problems.append(f"torn line in the journal: {rest[:80]!r}")
    for number, line in enumerate(lines):
        entry = json.loads(line)
        if "op" in entry:
            read.by_thread.setdefault(entry["thread"], []).append(Record(entry, number))
        elif "done" in entry:
            last = read.by_thread[entry["thread"]][-1]
            assert last.operation["number"] == entry["done"], "a thread does one thing at a time"
            last.done = number
        elif "ready" in entry:
            read.is_ready = True
        elif "reads" in entry:
            read.reads += entry["reads"]
        elif "built" in entry:
            read.builds += 1
        else:
            read.problems.append(str(entry.get("error") or entry.get("warning")))
    return read
