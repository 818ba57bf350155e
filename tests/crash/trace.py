"""A recorded trace, and what a power cut may leave of it.

    shim.c -> a trace file -> [trace.py] -> powercut.py

Replayed record by record. For each file two things are kept apart: what a flush has made durable,
and the writes since; for each folder likewise the names. At any moment a state of the disk can be
drawn: durable parts are always there, of the others all, none, or some, as a `Loss` says. A write
may be torn at sectors of 512 bytes; names of one folder come in their order, as journals keep
them.

Nothing here knows what the files mean.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal

__all__ = ["LOSSES", "Disk", "Event", "Loss", "read_trace"]

_HEAD: Final = struct.Struct("<IIQQQQ")
_MAGIC: Final = 0x53484D31
_SECTOR: Final = 512
_KINDS: Final = (
    "create", "write", "truncate", "fsync", "rename", "unlink", "mkdir", "rmdir", "mark", "content"
)  # fmt: skip

Part = Literal["none", "some", "all"]


@dataclass(frozen=True, slots=True)
class Loss:
    """How much of what was not flushed is there after the cut."""

    names: Part
    data: Part


LOSSES: Final = [
    Loss("none", "none"),
    Loss("all", "none"),
    Loss("all", "all"),
    Loss("none", "some"),
    Loss("all", "some"),
    Loss("some", "some"),
    Loss("some", "none"),
]


@dataclass(frozen=True, slots=True)
class Event:
    """One record. path and target are relative to the database's folder."""

    kind: str
    file: int
    offset: int
    path: str
    data: bytes


def read_trace(path: Path) -> Iterator[Event]:
    """All records of a file, in order."""
    data = path.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        magic, kind, file, offset, n, n_path = _HEAD.unpack_from(data, at)
        assert magic == _MAGIC, f"no record at {at}"
        at += _HEAD.size
        name = data[at : at + n_path].decode()
        at += n_path
        yield Event(_KINDS[kind - 1], file, offset, name, data[at : at + n])
        at += n


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data) of a write, (size, None) of a truncation."""


@dataclass(slots=True)
class _Folder:
    live: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)
    pending: list[tuple[str | None, str | None, _Node]] = field(default_factory=list)
    """(old name or None, new name or None, node)."""

    def change(self, old: str | None, new: str | None, node: _Node) -> None:
        """A name goes, comes, or both at once."""
        _rename(self.live, old, new, node)
        self.pending.append((old, new, node))


_Node = _File | _Folder


class Disk:
    """The folder of a database as a sequence of events made it."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.marks: list[str] = []
        self._nodes: dict[int, _Node] = {}

    def do(self, event: Event) -> None:
        """Take the next event."""
        match event.kind:
            case "create" | "mkdir":
                if not event.path:
                    return  # the root itself
                node: _Node = _File() if event.kind == "create" else _Folder()
                self._nodes[event.file] = node
                folder, name = self._place(event.path)
                folder.change(None, name, node)
            case "write":
                self._file(event).pending.append((event.offset, event.data))
            case "truncate":
                self._file(event).pending.append((event.offset, None))
            case "content":
                file = self._file(event)
                file.durable, file.pending = bytearray(event.data), []
            case "fsync":
                self._flush(event)
            case "rename":
                folder, old = self._place(event.path)
                target, new = self._place(event.data.decode())
                assert folder is target, "a move to another folder"
                folder.change(old, new, folder.live[old])
            case "unlink" | "rmdir":
                folder, name = self._place(event.path)
                folder.change(name, None, folder.live[name])
            case "mark":
                self.marks.append(event.data.decode())

    def _file(self, event: Event) -> _File:
        node = self._nodes[event.file]
        assert isinstance(node, _File)
        return node

    def _place(self, path: str) -> tuple[_Folder, str]:
        """The folder that holds a path, and the name in it."""
        *parents, name = PurePosixPath(path.lstrip("/")).parts
        return self._folder(parents), name

    def _folder(self, parts: list[str] | tuple[str, ...]) -> _Folder:
        node: _Node = self.root
        for part in parts:
            assert isinstance(node, _Folder)
            node = node.live[part]
        assert isinstance(node, _Folder)
        return node

    def _flush(self, event: Event) -> None:
        if event.offset:
            folder = self._folder(PurePosixPath(event.path.lstrip("/")).parts)
            for change in folder.pending:
                _rename(folder.durable, *change)
            folder.pending.clear()
            return
        file = self._file(event)
        for offset, data in file.pending:
            _apply(file.durable, offset, data)
        file.pending.clear()

    # ------------------------------------------------------------------ after the cut

    def leave(self, target: Path, loss: Loss, rng: random.Random) -> None:
        """Write what a cut at this moment leaves into a new folder."""
        self._leave(self.root, target, loss, rng)

    def _leave(self, folder: _Folder, target: Path, loss: Loss, rng: random.Random) -> None:
        target.mkdir()
        names = dict(folder.durable)
        n = len(folder.pending)
        kept = {"none": 0, "some": rng.randint(0, n), "all": n}[loss.names]
        for change in folder.pending[:kept]:
            _rename(names, *change)
        for name, node in names.items():
            if isinstance(node, _Folder):
                self._leave(node, target / name, loss, rng)
            else:
                (target / name).write_bytes(_contents(node, loss.data, rng))


def _rename(names: dict[str, _Node], old: str | None, new: str | None, node: _Node) -> None:
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _contents(file: _File, part: Part, rng: random.Random) -> bytes:
    """A file's content with none, some or all of the writes that were not flushed."""
    content = bytearray(file.durable)
    if part == "none":
        return bytes(content)
    for offset, data in file.pending:
        fate = "kept" if part == "all" else rng.choice(["kept", "lost", "torn"])
        if fate == "kept" or (fate == "torn" and data is None):
            _apply(content, offset, data)
        elif fate == "torn" and data is not None:
            first = 0
            while first < len(data):
                last = min(len(data), first + _SECTOR - (offset + first) % _SECTOR)
                if rng.random() < 0.5:
                    _apply(content, offset + first, data[first:last])
                first = last
    return bytes(content)
