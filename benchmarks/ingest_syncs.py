"""What a database flushes to disk before it calls a write done, from a trace of its system calls.

    ingest_run.py under strace -> [ingest_syncs.py] -> bench_ingest.py

The traced process flushes a file of its own before and after each write. Whatever fsync,
fdatasync, syncfs or msync(MS_SYNC) of the process, in any of its threads, has returned between two
such marks was done before the write was acknowledged. sync_file_range and msync(MS_ASYNC) are not
counted: neither promises that anything is on the disk. Files opened with O_SYNC or O_DSYNC are
named besides, since each write to them is a flush of its own.

A count says that something was flushed, not that it was everything. So files that were made within
a write and not flushed by its end are named too: where such a file holds what was written, the
write was not durable. Without strace nothing is measured, and the report says so.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["STRACE", "Syncs", "parse"]

STRACE = (
    "strace",
    "-f",
    "-y",
    "-s",
    "400",
    "-e",
    "trace=fsync,fdatasync,msync,sync_file_range,sync,syncfs,openat",
)
_LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*?)(?:\) += .*| <unfinished \.\.\.>)$")
_RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>")
_PATH = re.compile(r"<(?P<path>/[^>]*)>")
_MARK = re.compile(r"/(begin|end)-(batch|single)$")
_MADE_UP = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b(c-)?[0-9a-f]{16}\b")
_FLUSHING = ("fsync", "fdatasync", "sync", "syncfs")


@dataclass
class Syncs:
    """Flushes that returned within each write of one kind, and the files they were of.

    left  files that were made within a write and not flushed by its end
    """

    per_write: list[int] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        counts = self.per_write
        return {
            "writes": len(counts),
            "writes_with_a_sync": sum(count > 0 for count in counts),
            "syncs_per_write": float(statistics.median(counts)) if counts else None,
            "files": dict(sorted(self.files.items(), key=lambda item: -item[1])),
            "made_and_not_flushed": dict(sorted(self.left.items(), key=lambda item: -item[1])),
        }


def parse(lines: Iterable[str], folder: str) -> dict[str, Any]:
    """Counts by kind of write, "batch" and "single", and the files opened for synchronous writing.

    lines   the output of strace with the options of STRACE
    folder  of the database; paths are told relative to it, numbers and made-up names shortened
    """
    trace = _Trace(folder)
    for line in lines:
        if (matched := _LINE.match(line)) is not None:
            trace.take(matched["pid"], matched["rest"])
    return {
        **{kind: syncs.to_json() for kind, syncs in trace.found.items()},
        "opened_for_synchronous_writing": trace.synchronous,
    }


class _Trace:
    """The state of reading one trace: which write is under way, and who waits for a flush."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.found = {"batch": Syncs(), "single": Syncs()}
        self.synchronous: dict[str, int] = {}
        self._current: Syncs | None = None
        self._made: set[str] = set()
        self._waiting: dict[str, tuple[str, str | None]] = {}  # thread -> call and path

    def take(self, pid: str, rest: str) -> None:
        """One line: the call of a thread, or its end."""
        if _RESUMED.match(rest) is not None:
            if pid in self._waiting:
                self._flushed(*self._waiting.pop(pid))
            return
        call = _CALL.match(rest)
        if call is None:
            return
        name, arguments = call["name"], call["arguments"]
        if name == "openat":
            self._opened(arguments)
            return
        found = _PATH.search(arguments)
        path = None if found is None else found["path"]
        mark = None if path is None else _MARK.search(path)
        if mark is not None:
            self._mark(mark[1], mark[2])
        elif name in _FLUSHING or (name == "msync" and "MS_SYNC" in arguments):
            if rest.endswith("<unfinished ...>"):
                self._waiting[pid] = (name, path)
            else:
                self._flushed(name, path)

    def _mark(self, which: str, kind: str) -> None:
        if which == "begin":
            self._current = self.found[kind]
            self._current.per_write.append(0)
        elif self._current is not None:
            for path in self._made:
                _add(self._current.left, self._short(path))
            self._current = None
        self._made.clear()

    def _opened(self, arguments: str) -> None:
        quoted = arguments.split('"')
        path = quoted[1] if len(quoted) > 2 else ""
        if not path.startswith(self.folder):
            return
        if re.search(r"\bO_D?SYNC\b", quoted[2]):
            _add(self.synchronous, self._short(path))
        if "O_CREAT" in quoted[2] and self._current is not None:
            self._made.add(path)

    def _flushed(self, name: str, path: str | None) -> None:
        if self._current is None:
            return
        self._current.per_write[-1] += 1
        target = "a mapped file" if path is None else self._short(path)
        _add(self._current.files, f"{name}: {target}")
        self._made.discard(path or "")

    def _short(self, path: str) -> str:
        """A path without the folder, and with N for each number and each made-up name."""
        relative = path.removeprefix(self.folder).lstrip("/") or "."
        relative = _MADE_UP.sub("N", relative)
        return re.sub(r"\d+", "N", re.sub(r"\.(atomicwrite|tmp)\w+", r".\1N", relative))


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
