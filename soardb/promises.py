"""Measuring what recall costs in a collection, while reads and writes go on.

    compaction.py, database.py, tuning.py -> [promises.py] -> index/exam.py, contents.py, core.py

What is asked and how it is judged is the exam's (index/exam.py). Here it is given the points of
the contents that are live at the beginning, under the lock between reads and changes, one search
at a time; what is written meanwhile is not looked at.

The curves belong to a generation, and are kept in the row store under its checksum: a few
kilobytes, which a snapshot takes along. They are derived: lost, they are measured again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb import deadline
from soardb.contents import Contents
from soardb.core import CURVES, Core
from soardb.curve import QUERIES, Curves, Effort
from soardb.index.exam import LEAST, Report, measure, measure_filter
from soardb.index.plan import default_rerank
from soardb.index.rounding import counted, kept_recall, lowered
from soardb.kernels.layout import F32, I64, U8
from soardb.search import EXACT_NUMBERS
from soardb.storage.rows import RowStore
from soardb.writer import Effect, Group, Writer

__all__ = [
    "Subject",
    "are_stale",
    "ensure_curves",
    "keep_curves",
    "measure_filters",
    "measured",
    "refresh_curves",
]

Lock = Callable[[], AbstractContextManager[Any]]
"""A block in which the contents do not change."""

LEAST_ASKED = 250
"""Queries of callers below which points are drawn in their place."""

_SHARES = (0.3, 0.1, 0.03, 0.01, 0.003)
_APART = 1.5  # times the least share that is not scored exactly; one so near stands for it
_FEW_CHANGES = 1_000  # so many never make curves stale


@dataclass(frozen=True, slots=True)
class Subject:
    """Contents as exam.py measures them; rows are positions."""

    contents: Contents
    lock: Lock
    n: int
    live: I64
    alive: U8 | None

    @classmethod
    def of(cls, contents: Contents, lock: Lock) -> Subject:
        """The points that are live now."""
        with lock():
            table = contents.table
            alive = None
            if table.alive is not None:
                alive = np.packbits(table.alive_mask(), bitorder="little")
            return cls(contents, lock, table.n, table.live_positions(), alive)

    @property
    def nlist(self) -> int:
        """See Examined."""
        return self.contents.index.nlist

    def usual(self, k: int) -> Effort:
        """See Examined."""
        index = self.contents.index
        assert index.model is not None
        return Effort(index.default_nprobe, default_rerank(k, index.model.choice.dims_per_block))

    def drawn(self, rows: I64) -> F32:
        """See Examined."""
        with self.lock():
            return self.contents.vectors(rows)

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        """See Examined."""
        with self.lock():
            index = self.contents.index
            is_all = rows is None and self.alive is None and len(index) == self.n
            some = None if is_all else self.live if rows is None else rows
            done = index.exact(queries, min(k, self.n if some is None else len(some)), some)
        return done.scores, done.rows

    def search(
        self, queries: F32, k: int, effort: Effort, allowed: U8 | None
    ) -> tuple[F32, I64, int]:
        """See Examined."""
        with self.lock():
            index = self.contents.index
            done = index.search(
                queries,
                k,
                nprobe=effort.nprobe,
                rerank=effort.rerank,
                stop=effort.stop,
                allowed=self._known(self.alive if allowed is None else allowed, len(index)),
            )
        return done.scores, done.rows, done.scanned

    def _known(self, bits: U8 | None, n: int) -> U8 | None:
        """A bitmap of n rows in which those that came since are not allowed."""
        if n == self.n:
            return bits
        if bits is None:
            mask = np.zeros(n, bool)
            mask[: self.n] = True
            return np.packbits(mask, bitorder="little")
        more: U8 = np.zeros(-(-n // 8), np.uint8)
        more[: len(bits)] = bits
        return more


def measured(
    contents: Contents,
    lock: Lock,
    *,
    seed: int,
    report: Report,
    asked: F32 | None = None,
    ks: Sequence[int] = (),
    queries: int = QUERIES,
) -> Curves | None:
    """The curves of contents as they are now; None where every search is exact.

    asked: queries of callers, which are questions in the place of points where they are enough.
    Costs `queries` exact searches and about thirty times as many others; the
    shares measured are those of filters that the planner does not answer exactly anyway.
    """
    subject = Subject.of(contents, lock)
    index = contents.index
    if index.model is None or len(subject.live) < LEAST:
        return None
    least = EXACT_NUMBERS / (len(subject.live) * index.d)
    shares = [share for share in _SHARES if share > least]
    if min(shares, default=1.0) > _APART * least:
        shares.append(least)
    curves = measure(
        subject,
        subject.live,
        index.metric,
        n=subject.n,
        asked=asked if asked is not None and len(asked) >= LEAST_ASKED else None,
        ks=ks,
        shares=shares,
        queries=queries,
        seed=seed,
        report=report,
    )
    return counted(curves, subject, index.form, index.metric, subject.live, seed)


def are_stale(contents: Contents, share: float) -> bool:
    """Whether contents with partitions have no curves, or more than a share has changed since."""
    curves, table = contents.curves, contents.table
    if contents.index.model is None or table.live < LEAST:
        return False
    if curves is None:
        return True
    return contents.changed > max(share * curves.n, _FEW_CHANGES)


def refresh_curves(
    core: Core,
    writer: Writer,
    report: Report,
    *,
    ks: Sequence[int] = (),
    queries: int = QUERIES,
    seed: int | None = None,
) -> Curves | None:
    """Measure the contents as they are now; searches choose by it from now on.

    And after the next opening too, unless a collection that is only read is measured. seed: the
    collection's unless given.
    """
    seed = core.settings.params.seed if seed is None else seed
    contents = core.contents
    curves = measured(
        contents,
        core.lock.read,
        seed=seed,
        report=report,
        asked=core.asked_queries(),
        ks=ks,
        queries=queries,
    )
    if curves is None:
        return None
    contents.curves = curves
    if not core.is_read_only:
        writer.submit(_Keep(contents), "logged")
    return curves


@dataclass(slots=True)
class _Keep:
    """The job that writes the curves of contents, if they are the current ones still."""

    contents: Contents
    alone: bool = True

    def size(self) -> tuple[int, int]:
        """See Job.size."""
        return 1, 0

    def run(self, group: Group) -> tuple[Effect, Any]:
        """See Job.run."""
        if group.core.contents is self.contents:
            keep_curves(group.store, self.contents)
        return Effect(np.empty(0, np.int64)), None


def keep_curves(store: RowStore, contents: Contents) -> None:
    """Put the curves of a generation in the open transaction."""
    if contents.curves is not None and contents.generation is not None:
        checksum = contents.generation.mapped.checksum
        store.set(CURVES, {"generation": checksum, "curves": contents.curves.to_json()})


def measure_filters(core: Core, report: Report) -> None:
    """Measure the filters that were asked often and have no curve yet."""
    contents = core.contents
    for known in contents.filter_curves.wanted():
        subject = Subject.of(contents, core.lock.read)
        matching = known.allowed.positions()
        if len(matching) > LEAST:
            index, seed = contents.index, core.settings.params.seed
            curve = measure_filter(
                subject,
                subject.live,
                matching,
                index.metric,
                n=subject.n,
                seed=seed,
                report=report,
            )
            share = kept_recall(
                subject, index.form, index.metric, subject.live, matching, curve.k, seed
            )
            known.curve = lowered(curve, share)


def ensure_curves(core: Core, writer: Writer) -> None:
    """Measure now where nothing was measured yet: for the first search that names a recall."""
    if are_stale(core.contents, math.inf):
        with core.measuring:
            if are_stale(core.contents, math.inf):
                refresh_curves(core, writer, lambda stage, share: deadline.check())
