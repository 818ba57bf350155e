"""The table of a collection: for every position its row number, its id, and whether it is live.

    contents.py -> [table.py]

A position is a place in the index and in the columns: 0 to n - 1, first those of the generation
(mapped from its file, in list order), then what came since (the tail, in order of arrival). A
point that is overwritten or deleted leaves its position struck; compaction gives new positions.

Ids are found by sorted keys in the base, by a dictionary in the tail. The key of an integer is the
integer, that of a string 64 bits of its hash, so equal keys are compared as strings.

Nothing here is the truth: it all follows from the row store, and nothing here touches a disk.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

import numpy as np

from soardb.errors import CorruptStorage
from soardb.index.rows import expect_array
from soardb.kernels.layout import I64, U8
from soardb.schema import PointId

__all__ = ["IdKind", "Table", "id_keys", "id_kind_of"]

IdKind = str  # "int" or "str"


def id_kind_of(point_id: PointId) -> IdKind:
    """What a collection calls this kind of id."""
    return "str" if isinstance(point_id, str) else "int"


def id_keys(ids: Sequence[PointId], kind: IdKind) -> I64:
    """(n,) int64 keys of ids: integers themselves, hashes of strings. Disks hold them: for ever."""
    if kind == "int":
        return np.asarray(ids, np.int64)
    joined = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(joined, "<i8").astype(np.int64)


class Table:
    """n positions; `live` of them are live. kind: of the ids, None while there are none."""

    def __init__(self, kind: IdKind | None) -> None:
        self.kind = kind
        self.n = 0
        self.live = 0
        self._n_base = 0
        empty = np.empty(0, np.int64)
        self._base: dict[str, np.ndarray] = {
            "rows": empty,
            "row_keys": empty,
            "row_order": np.empty(0, np.uint32),
            "id_keys": empty,
            "id_order": np.empty(0, np.uint32),
        }
        self._tail_rows: I64 = empty
        self._tail_ids: list[PointId] = []
        self._by_id: dict[PointId, int] = {}
        self._alive: U8 = np.empty(0, np.uint8)
        self._tail_order: tuple[int, I64, I64] = (0, empty, empty)

    # ------------------------------------------------------------------ base: to arrays and back

    @staticmethod
    def arrays(rows: I64, ids: Sequence[PointId], kind: IdKind) -> dict[str, np.ndarray]:
        """What a generation stores of (n,) rows and ids in order of position."""
        row_order = np.argsort(rows, kind="stable").astype(np.uint32)
        keys = id_keys(ids, kind)
        id_order = np.argsort(keys, kind="stable").astype(np.uint32)
        arrays: dict[str, np.ndarray] = {
            "rows": rows,
            "row_keys": rows[row_order],
            "row_order": row_order,
            "id_keys": keys[id_order],
            "id_order": id_order,
        }
        if kind == "int":
            return arrays | {"point_ids": keys}
        texts = [str(i).encode() for i in ids]
        lengths = np.array([len(text) for text in texts], np.int64)
        return arrays | {
            "id_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "id_bytes": np.frombuffer(b"".join(texts), np.uint8),
        }

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], kind: IdKind | None) -> Table:
        """A table over the arrays of `arrays()`, all live. Errors: CorruptStorage."""
        table = cls(kind)
        n = len(arrays["rows"])
        for name in ("rows", "row_keys", "id_keys"):
            expect_array(arrays, name, np.int64, (n,))
        for name in ("row_order", "id_order"):
            expect_array(arrays, name, np.uint32, (n,))
            if n and int(arrays[name].max()) >= n:
                raise CorruptStorage(f"array {name!r} points beyond its {n} rows")
        if kind == "str" and n:
            offsets = arrays["id_offsets"]
            expect_array(arrays, "id_offsets", np.int64, (n + 1,))
            size = len(arrays["id_bytes"])
            if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
                raise CorruptStorage(f"array 'id_offsets' does not cut {size} bytes in order")
        elif n:
            expect_array(arrays, "point_ids", np.int64, (n,))
        table._base = arrays
        table.n = table._n_base = table.live = n
        table._alive = _ones(n)
        return table

    # ------------------------------------------------------------------ changing it

    def append(self, rows: I64, ids: Sequence[PointId]) -> I64:
        """Add (m,) rows, greater than all before, and their ids; returns their positions."""
        if not len(rows):
            return np.empty(0, np.int64)
        if self.kind is None:
            self.kind = id_kind_of(ids[0])
        first, m = self.n, len(rows)
        used = first - self._n_base
        if used + m > len(self._tail_rows):
            grown = np.empty(max(used + m, 2 * len(self._tail_rows), 1024), np.int64)
            grown[:used] = self._tail_rows[:used]
            self._tail_rows = grown
        self._tail_rows[used : used + m] = rows
        self._tail_ids.extend(ids)
        self._by_id.update(zip(ids, range(first, first + m), strict=True))
        self.n += m
        self.live += m
        if len(self._alive) * 8 < self.n:
            # Bits beyond n are set, so that a new position is live as soon as it is there.
            room = _ones(self.n + self.n // 2 + 8192)
            old = self._alive[: -(-first // 8)]
            room[: len(old)] = old
            self._alive = room
        return np.arange(first, self.n, dtype=np.int64)

    def strike(self, positions: I64) -> int:
        """Mark positions as gone; those that are already do not count. Returns how many were."""
        live = positions[self.is_live(positions)]
        np.bitwise_and.at(self._alive, live >> 3, ~(1 << (live & 7)).astype(np.uint8))
        self.live -= len(live)
        return len(live)

    # ------------------------------------------------------------------ asking it

    @property
    def alive(self) -> U8 | None:
        """Bit p of the bitmap (least bit first) says that position p is live; None: all are."""
        return None if self.live == self.n else self._alive

    def alive_mask(self) -> np.ndarray:
        """(n,) bool."""
        return np.unpackbits(self._alive, count=self.n, bitorder="little").view(bool)

    def is_live(self, positions: I64) -> np.ndarray:
        """(m,) bool."""
        bits: U8 = self._alive[positions >> 3] >> (positions & 7).astype(np.uint8) & 1
        return bits.view(bool)

    def live_positions(self) -> I64:
        """All of them, rising."""
        if self.live == self.n:
            return np.arange(self.n, dtype=np.int64)
        return np.flatnonzero(self.alive_mask())

    def rows_at(self, positions: I64) -> I64:
        """Row numbers of positions."""
        if self._n_base == 0:
            return self._tail_rows[positions]
        if self.n == self._n_base:
            return self._base_rows[positions]
        rows = np.empty(len(positions), np.int64)
        is_base = positions < self._n_base
        rows[is_base] = self._base_rows[positions[is_base]]
        rows[~is_base] = self._tail_rows[positions[~is_base] - self._n_base]
        return rows

    def ids_at(self, positions: I64) -> I64 | list[PointId]:
        """Ids of positions: (m,) int64, or a list of strings."""
        if self.kind == "str":
            return [self._string_at(p) for p in positions.tolist()]
        if self.n == self._n_base and self.n:
            found: I64 = self._base["point_ids"][positions]
            return found
        tail, n_base = self._tail_ids, self._n_base
        base = self._base.get("point_ids")
        return np.array(
            [
                base[p] if base is not None and p < n_base else tail[p - n_base]
                for p in positions.tolist()
            ],
            np.int64,
        )

    def _string_at(self, position: int) -> PointId:
        if position >= self._n_base:
            return self._tail_ids[position - self._n_base]
        first, last = self._base["id_offsets"][position : position + 2]
        return bytes(self._base["id_bytes"][first:last]).decode()

    def find(self, ids: Sequence[PointId]) -> I64:
        """Live position of each id, -1 where it has none. O(log n) each."""
        found = np.full(len(ids), -1, np.int64)
        if not len(ids) or self.kind != id_kind_of(ids[0]):
            return found
        if self._by_id:
            found = np.array([self._by_id.get(i, -1) for i in ids], np.int64)
            known = np.flatnonzero(found >= 0)
            found[known[~self.is_live(found[known])]] = -1
        if self._n_base:
            self._find_in_base(ids, found)
        return found

    def _find_in_base(self, ids: Sequence[PointId], found: I64) -> None:
        open_ones = np.flatnonzero(found < 0)
        keys = id_keys([ids[i] for i in open_ones.tolist()], self.kind or "int")
        sorted_keys, order = self._base["id_keys"], self._base["id_order"]
        places = np.searchsorted(sorted_keys, keys)
        inside = places < len(sorted_keys)
        hits = np.flatnonzero(inside)
        hits = hits[sorted_keys[places[hits]] == keys[hits]]
        if self.kind == "int":
            positions = order[places[hits]].astype(np.int64)
            alive = self.is_live(positions)
            found[open_ones[hits[alive]]] = positions[alive]
            hits = hits[~alive]
        # Side by side stand strings of equal hash, and an expired point with its successor.
        for hit in hits:
            place, wanted = int(places[hit]), ids[int(open_ones[hit])]
            while place < len(sorted_keys) and sorted_keys[place] == keys[hit]:
                position = int(order[place])
                is_same = self.kind == "int" or self._string_at(position) == wanted
                if is_same and self.is_live(np.array([position]))[0]:
                    found[open_ones[hit]] = position
                    break
                place += 1

    def page(self, after: PointId | None, limit: int, mask: np.ndarray | None) -> I64:
        """The next live positions in the order of ids, at most `limit`: (m,) int64.

        after: the last id that was taken, None for the first page; mask (n,) bool: which positions
        count. Integers come in their order, strings in that of their hashes: a fixed one. Costs
        O(log n + limit) over the base, and a sort of the tail when that has changed.
        """
        start = None if after is None else self._order_of(after)
        found = self._page_of_base(start, limit, mask) + self._page_of_tail(start, limit, mask)
        found.sort(key=lambda item: item[0])
        return np.array([position for _, position in found[:limit]], np.int64)

    def _order_of(self, point_id: PointId) -> tuple[int, PointId]:
        return int(id_keys([point_id], self.kind or "int")[0]), point_id

    def _page_of_base(
        self, start: tuple[int, PointId] | None, limit: int, mask: np.ndarray | None
    ) -> list[tuple[tuple[int, PointId], int]]:
        keys, order = self._base["id_keys"], self._base["id_order"]
        place = 0 if start is None else int(np.searchsorted(keys, start[0]))
        found: list[tuple[tuple[int, PointId], int]] = []
        while place < len(keys) and len(found) < limit:
            last = min(place + max(4 * limit, 1024), len(keys))
            positions = order[place:last].astype(np.int64)
            keep = self.is_live(positions)
            if mask is not None:
                keep &= mask[positions]
            chosen = np.flatnonzero(keep)[: limit - len(found) + 8]  # some may equal the start
            ids = self.ids_at(positions[chosen])
            plain = ids.tolist() if isinstance(ids, np.ndarray) else ids
            for i, point_id in zip(chosen.tolist(), plain, strict=True):
                item = int(keys[place + i]), point_id
                if start is None or item > start:
                    found.append((item, int(positions[i])))
            if len(chosen) < int(keep.sum()):
                last = place + int(chosen[-1]) + 1
            place = last
        return found

    def _page_of_tail(
        self, start: tuple[int, PointId] | None, limit: int, mask: np.ndarray | None
    ) -> list[tuple[tuple[int, PointId], int]]:
        keys, positions = self._sorted_tail()
        place = 0 if start is None else int(np.searchsorted(keys, start[0]))
        found: list[tuple[tuple[int, PointId], int]] = []
        while place < len(keys) and len(found) < limit:
            position = int(positions[place])
            item = int(keys[place]), self._tail_ids[position - self._n_base]
            is_after = start is None or item > start
            is_live = self._alive[position >> 3] >> (position & 7) & 1
            if is_after and is_live and (mask is None or mask[position]):
                found.append((item, position))
            place += 1
        return found

    def _sorted_tail(self) -> tuple[I64, I64]:
        """Keys and positions of the tail in the order of ids, made anew when it has grown."""
        if self._tail_order[0] != self.n:
            keys = id_keys(self._tail_ids, self.kind or "int")
            # Equal hashes are put in the order of their strings, as pages promise.
            order = np.argsort(keys, kind="stable")
            same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
            if self.kind == "str" and len(same):
                order = np.array(
                    sorted(order.tolist(), key=lambda i: (int(keys[i]), self._tail_ids[i]))
                )
            self._tail_order = self.n, keys[order], order + self._n_base
        return self._tail_order[1], self._tail_order[2]

    @property
    def _base_rows(self) -> I64:
        rows: I64 = self._base["rows"]
        return rows

    def positions_of(self, rows: I64) -> I64:
        """Position of each row number, live or struck; -1 where it has none."""
        found = np.full(len(rows), -1, np.int64)
        keys, order = self._base["row_keys"], self._base["row_order"]
        if len(keys):
            places = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
            is_hit = keys[places] == rows
            found[is_hit] = order[places[is_hit]]
        tail = self._tail_rows[: self.n - self._n_base]
        if len(tail):
            places = np.minimum(np.searchsorted(tail, rows), len(tail) - 1)
            is_hit = tail[places] == rows
            found[is_hit] = places[is_hit] + self._n_base
        return found

    @property
    def tail(self) -> int:
        """Positions that came since the generation."""
        return self.n - self._n_base

    def memory(self) -> dict[str, int]:
        """Bytes by part; "ids" of the base are mapped, "tail_ids" are not."""
        names = ("point_ids", "id_offsets", "id_bytes", "id_keys", "id_order")
        return {
            "ids": sum(self._base[name].nbytes for name in names if name in self._base),
            "rows": sum(self._base[name].nbytes for name in ("rows", "row_keys", "row_order")),
            "tail_ids": sys.getsizeof(self._by_id)
            + sys.getsizeof(self._tail_ids)
            + sum(sys.getsizeof(i) for i in self._tail_ids[:1000])
            * max(len(self._tail_ids), 1)
            // max(min(len(self._tail_ids), 1000), 1)
            + self._tail_rows.nbytes,
            "tombstones": self._alive.nbytes,
        }


def _ones(n: int) -> U8:
    return np.full(-(-n // 8), 0xFF, np.uint8)
