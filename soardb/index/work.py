"""The work of one search, counted, and about how long a core takes for it.

    layout.py, benchmarks/bench_layout.py -> [work.py] -> plan.py, model.py

A search scores centroids, fills look-up tables, scans codes, and scores candidates again from bytes
and at last from vectors. Each is counted in the unit that its time goes with, and the time is a
weighted sum. The weights were fitted once to the processor time of real searches, one query a call
(benchmarks/LOG.md, "Layouts by measuring"): what is compared by them are layouts of one data set,
so ratios matter and not the machine. The same counts give the same time, on any day.

Nothing here searches. curve.py compares settings of one index, by fewer terms; tiles.py compares
batches with exact search.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from soardb.index.model import store_stride
from soardb.index.plan import Choice
from soardb.kernels.layout import SearchPlan

__all__ = ["WEIGHTS", "Work", "work_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """Counts of one search, or what one of each takes in nanoseconds.

    calls      1, for what every search costs
    centroids  bytes of centroids and cells that are scored
    tables     entries of look-up tables
    lists      lists visited
    codes      bytes of codes scanned
    kept       codes that the scan keeps
    rows       bytes of rows scored again, 8-bit and at last float32
    """

    calls: float
    centroids: float
    tables: float
    lists: float
    codes: float
    kept: float
    rows: float

    @property
    def microseconds(self) -> float:
        """About what it takes one core."""
        pairs = zip(astuple(self), astuple(WEIGHTS), strict=True)
        return float(sum(count * weight for count, weight in pairs)) / 1000


WEIGHTS = Work(5690.0, 0.0129, 1.85, 90.0, 0.0468, 28.8, 0.0179)
"""Nanoseconds of each; AVX-512 with VNNI and VBMI, fitted by benchmarks/bench_layout.py."""


def work_of(plan: SearchPlan, choice: Choice, scanned: float, lists: float, m: int, d: int) -> Work:
    """Counts of a search with this plan in an index of this choice.

    scanned, lists  codes looked at and lists visited a query, which `stop` may make fewer than the
                    plan's
    m               sub-spaces of a code
    """
    scored = choice.nlist
    if choice.ncell:
        scored = choice.ncell + round(choice.nlist * plan.cellprobe / choice.ncell)
    return Work(
        calls=1,
        centroids=scored * d,
        tables=16 * m,
        lists=lists,
        codes=scanned * m / 2,
        kept=plan.collect,
        rows=plan.rerank * store_stride(d) + plan.refine * 4 * d,
    )
