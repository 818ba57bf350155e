"""The packed codes of the partitions: one arena of blocks, a slice of it a list.

    ivf.py -> [lists.py] -> kernels (pack_codes, append_codes)

A list is `count` codes from block `start` on, with room for `room` blocks; beside each code stands
the row that it belongs to. A list that outgrows its room moves to the end of the arena with half as
much again, and the arena is packed anew when more than half of it is left behind. Codes of a list
keep the order in which they came; removing closes the gaps.

Nothing here knows what a code means.
"""

from __future__ import annotations

import numpy as np

from soardb.errors import CorruptStorage
from soardb.kernels.dispatch import active
from soardb.kernels.layout import BLOCK, I32, I64, LINE, U8, U32
from soardb.kernels.memory import aligned, zeros_aligned
from soardb.kernels.reference import room_for

__all__ = ["CodeLists"]


class CodeLists:
    """nlist growable lists of (code, row) pairs; m sub-spaces, a multiple of 8.

    start (nlist,) int64 and count (nlist,) int32; codes (nblock, m/8, 64) uint8 and rows
    (nblock * 16,) uint32 are the arena.
    """

    def __init__(self, nlist: int, m: int) -> None:
        self.start: I64 = np.zeros(nlist, np.int64)
        self.count: I32 = np.zeros(nlist, np.int32)
        self.codes: U8 = np.zeros((0, m // 8, LINE), np.uint8)
        self.rows: U32 = np.zeros(0, np.uint32)
        self._room: I64 = np.zeros(nlist, np.int64)
        self._used = 0

    def reserve(self, counts: np.ndarray, arena: tuple[U8, U32] | None = None) -> None:
        """Exactly the room for counts (nlist,) codes, lists in order; all lists must be empty.

        arena: `codes` and `rows` to fill, zeros, of sum(ceil(counts / 16)) blocks; a mapped file's.
        """
        assert not self.count.any()
        blocks = -(-counts.astype(np.int64) // BLOCK)
        self.start, self._room = np.cumsum(blocks) - blocks, blocks
        self._used = int(blocks.sum())
        if arena is None:
            shape = (self._used, *self.codes.shape[1:])
            arena = zeros_aligned(shape, np.uint8), np.zeros(self._used * BLOCK, np.uint32)
        self.codes, self.rows = arena

    @classmethod
    def of(cls, start: I64, count: I32, codes: U8, rows: U32, n: int) -> CodeLists:
        """Lists over the mapped arrays of `packed()`, of rows below n.

        CorruptStorage where the lists do not fill the arena in order, or a row is not below n.
        """
        lists = cls(len(start), codes.shape[1] * 8)
        blocks = -(-count.astype(np.int64) // BLOCK)
        if (count < 0).any() or blocks.sum() != len(codes) or len(rows) != len(codes) * BLOCK:
            raise CorruptStorage(
                f"expected lists that fill {len(codes)} blocks, got {blocks.sum()}"
            )
        if (start != np.cumsum(blocks) - blocks).any():
            raise CorruptStorage("expected lists one after the other, got gaps or overlaps")
        if rows.max(initial=0) >= max(n, 1):
            raise CorruptStorage(f"a list holds row {rows.max()}, the index has {n}")
        lists.start, lists.count, lists.codes, lists.rows = start, count, codes, rows
        lists._room, lists._used = blocks, len(codes)
        return lists

    def __len__(self) -> int:
        return int(self.count.sum())

    @property
    def m(self) -> int:
        """Sub-spaces of a code."""
        return int(self.codes.shape[1]) * 8

    def memory(self) -> dict[str, int]:
        """Bytes of the arena, spare room included."""
        return {"codes": self.codes.nbytes, "code_rows": self.rows.nbytes}

    def list_rows(self, part: int) -> U32:
        """Rows of one list, in order: a view."""
        first = self.start[part] * BLOCK
        return self.rows[first : first + self.count[part]]

    def list_codes(self, part: int) -> U8:
        """(count, m) uint8 codes of one list, unpacked."""
        count = int(self.count[part])
        first = self.start[part]
        return active.unpack_codes(self.codes[first : first + -(-count // BLOCK)], count)

    def append(self, parts: I32, rows: U32, codes: U8) -> None:
        """Add (n,) pairs: list, row and (n, m) code of each; contiguous arrays.

        Happens in place, in O(m) a pair and the bytes of what moves; `start`, `codes` and `rows`
        are new arrays where there was no arena yet or it had to grow.
        """
        if not len(parts):
            return
        if not len(self.codes):
            self.reserve(np.bincount(parts, minlength=len(self.count)))
        done = 0
        while True:
            appended, self._used = active.append_codes(
                self.start,
                self.count,
                self._room,
                self._used,
                self.codes,
                self.rows,
                parts[done:],
                rows[done:],
                codes[done:],
            )
            done += appended
            if done == len(parts):
                return
            self._make_room(room_for(int(self.count[parts[done]]) // BLOCK + 1))

    def replace(self, part: int, keep: np.ndarray, rows: U32) -> None:
        """Keep the codes of one list where the (count,) mask is true, under new row numbers."""
        self._put(part, self.list_codes(part)[keep], rows)

    def validate(self, n: int, most: int) -> None:
        """CorruptStorage unless each of n rows stands in 1..most different lists. O(codes)."""
        parts = [self.list_rows(part) for part in range(len(self.count))]
        held = np.concatenate(parts) if parts else np.empty(0, np.uint32)
        if (held >= n).any():
            raise CorruptStorage(f"a list holds row {held.max()}, the index has {n}")
        copies = np.bincount(held, minlength=n)
        if n and (copies.min() < 1 or copies.max() > most):
            row = int(((copies < 1) | (copies > most)).argmax())
            raise CorruptStorage(f"row {row} stands in {copies[row]} lists, expected 1..{most}")
        for part, rows in enumerate(parts):
            if len(np.unique(rows)) != len(rows):
                raise CorruptStorage(f"list {part} holds a row twice")

    def homes(self, n: int) -> I32:
        """(n, 2) int32: the lists that hold each row; -1 where there is no second one."""
        parts = np.repeat(np.arange(len(self.count)), self.count)
        offsets = np.arange(len(parts)) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        rows = self.rows[np.repeat(self.start * BLOCK, self.count) + offsets]
        order = np.argsort(rows, kind="stable")
        rows, parts = rows[order], parts[order]
        is_second = np.concatenate([[False], rows[1:] == rows[:-1]])
        homes = np.full((n, 2), -1, np.int32)
        homes[rows[~is_second], 0] = parts[~is_second]
        homes[rows[is_second], 1] = parts[is_second]
        return homes

    def packed(self) -> tuple[I64, I32, U8, U32]:
        """start, count, codes, rows without spare room, lists in order: what is saved."""
        blocks = -(-self.count.astype(np.int64) // BLOCK)
        start = np.cumsum(blocks) - blocks
        source = np.repeat(self.start - start, blocks) + np.arange(int(blocks.sum()))
        if len(source) == len(self.codes) and (source == np.arange(len(source))).all():
            return start, self.count, self.codes, self.rows
        rows = self.rows.reshape(-1, BLOCK)[source].reshape(-1)
        return start, self.count, aligned(self.codes[source]), rows

    def _put(self, part: int, codes: U8, rows: U32) -> None:
        packed = active.pack_codes(codes)
        if len(packed) > self._room[part]:
            self._move(part, len(packed))
        first = int(self.start[part])
        self.codes[first : first + len(packed)] = packed
        self.rows[first * BLOCK : first * BLOCK + len(rows)] = rows
        self.rows[first * BLOCK + len(rows) : (first + len(packed)) * BLOCK] = 0
        self.count[part] = len(rows)

    def _move(self, part: int, blocks: int) -> None:
        room = room_for(blocks)
        if self._used + room > len(self.codes):
            self._make_room(room)
        self.start[part], self._room[part] = self._used, room
        self._used += room

    def _make_room(self, blocks: int) -> None:
        """Make that many blocks free at the end: pack what is left behind, then grow."""
        left_behind = self._used - int(self._room.sum())
        if 2 * left_behind > self._used:
            self.start, _, self.codes, self.rows = self.packed()
            self._room = -(-self.count.astype(np.int64) // BLOCK)
            self._used = int(self._room.sum())
        self._grow(self._used + blocks)

    def _grow(self, need: int) -> None:
        size = max(need, len(self.codes) + len(self.codes) // 2)
        codes = zeros_aligned((size, *self.codes.shape[1:]), np.uint8)
        codes[: len(self.codes)] = self.codes
        rows = np.zeros(size * BLOCK, np.uint32)
        rows[: len(self.rows)] = self.rows
        self.codes, self.rows = codes, rows
