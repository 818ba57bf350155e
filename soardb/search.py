"""The planner: how a query with a filter is answered, and the answer in positions.

    collection.py -> [search.py] -> contents.py, filters/, fulltext.py

A filter is evaluated to the exact set of matching rows, so the plan knows how many there are:

    few           their vectors are scored, each ("exact on matches")
    more          the lists are scanned under a bitmap of the matching rows, in more lists the fewer
                  match, and in all of them before fewer than k come back ("filter in scan")
    most          when a sample says that nearly all match, the search runs without the filter for
                  a few more results, and the filter is tried on these alone ("post-filter"); if k
                  are not left, the scan under the bitmap follows

A batch of queries that leaves the effort to the planner is answered by scoring every row, or every
matching row, where that costs less a query than the lists do.

Whatever the plan, k rows come back where k match, with exact scores.

Call with the contents locked for reading. Nothing here knows of ids or payloads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from soardb.contents import Contents
from soardb.curve import DEFAULT_TARGET, WIDENING, Expected
from soardb.filters import Expr, matching
from soardb.filters.allowed import Allowed
from soardb.filters.expr import And, Matches, Not, Or
from soardb.hits import Plan
from soardb.index.live import Searched
from soardb.index.plan import default_rerank
from soardb.kernels.layout import F32, I64, U8

__all__ = ["EXACT_NUMBERS", "Found", "Knobs", "Planner", "TextMatch", "has_text_condition"]

TextMatch = Callable[[str, str, Literal["all", "any"]], I64]

EXACT_NUMBERS = 1_000_000
"""Matching rows times dimensions that are scored without the index."""

_SAMPLE = 1_024
_LARGE = 1_000_000  # positions below which evaluating the filter costs less than going without
_POST_FILTER_SHARE = 0.7
_WARY = 0.05  # share of changes from which on a curve's fewer candidates are not trusted
_EXACT_CODES = 0.6  # codes that are scanned in the time of one dimension of an exact score


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a caller said of one search; None is chosen.

    target  recall to aim at; beside it no nprobe, rerank or exact
    """

    nprobe: int | None = None
    rerank: int | None = None
    exact: bool = False
    threads: int = 1
    target: float | None = None

    @property
    def aim(self) -> float | None:
        """The recall to aim at, said or not; None where settings were said."""
        if self.nprobe is not None or self.rerank is not None or self.exact:
            return None
        return DEFAULT_TARGET if self.target is None else self.target


@dataclass(slots=True)
class Found:
    """Scores (nq, k) and positions (nq, k), best first, position -1 where there are no more."""

    scores: F32
    positions: I64
    plan: Plan


@dataclass(slots=True)
class _Clock:
    """Milliseconds by stage."""

    stages: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.stages[name] = self.stages.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now


class Planner:
    """One search over contents that stay as they are meanwhile."""

    def __init__(
        self, contents: Contents, knobs: Knobs, where: Expr | None, text_match: TextMatch
    ) -> None:
        self._contents, self._knobs, self._where = contents, knobs, where
        self._text_match = text_match
        self._clock = _Clock()
        self._allowed: Allowed | None = None
        self._expected: Expected | None = None

    def search(self, queries: F32, k: int) -> Found:
        """The k closest live and matching positions of each of (nq, d) queries."""
        live = self._contents.table.live
        if not live or not len(queries):
            return self._nothing(len(queries), 0 if self._where is not None else None)
        if self._where is None:
            return self._unfiltered(queries, min(k, live))
        share = self._sampled_share()
        if share is not None and share >= _POST_FILTER_SHARE:
            found = self._post_filtered(queries, k, share)
            if found is not None:
                return found
        return self._filtered(queries, k)

    def matches(self) -> I64:
        """Live positions that match the filter, rising; all live ones without a filter."""
        table = self._contents.table
        if self._where is None:
            return table.live_positions()
        return self._filter().positions()

    def count(self) -> int:
        """How many live positions match."""
        return self._contents.table.live if self._where is None else self._filter().count

    def _filter(self) -> Allowed:
        """The live positions that match, remembered between two changes of the contents."""
        if self._allowed is None:
            assert self._where is not None
            contents = self._contents
            known = contents.filtered.get(contents.version, self._where)
            if known is None:
                known = self._evaluated()
                contents.filtered.put(contents.version, self._where, known)
            self._allowed = known
            self._clock.stage("filter")
        return self._allowed

    def _evaluated(self) -> Allowed:
        assert self._where is not None
        table = self._contents.table
        found = matching(self._where, self._contents.columns, self._text_match)
        alive = None if table.live == table.n else table.alive_mask()
        return Allowed.of(found, table.n, alive)

    def holds(self, positions: I64) -> np.ndarray:
        """(m,) bool: which rising positions match the filter."""
        if self._where is None:
            return np.ones(len(positions), bool)
        found = matching(self._where, self._contents.columns, self._text_match, positions)
        return np.isin(positions, found.positions(), assume_unique=True)

    # ------------------------------------------------------------------ the plans

    def _unfiltered(self, queries: F32, k: int) -> Found:
        contents, knobs = self._contents, self._knobs
        is_flat = knobs.exact or contents.index.model is None
        if is_flat or self._is_exact_better(k, 1.0, None, len(queries)):
            rows = None if contents.table.alive is None else contents.table.live_positions()
            return self._as_found(self._exact(queries, k, rows), "exact", None, 1.0)
        done = self._by_lists(queries, k, knobs.nprobe, contents.table.alive, contents.table.live)
        return self._as_found(done, "lists" if done.plan else "exact", None, 1.0)

    def _is_exact_better(self, k: int, share: float, matching: Allowed | None, nq: int) -> bool:
        """Choose how hard to search; true where the target needs an exact search of the matches.

        That is where no setting reaches a target that the caller named, and where scoring the
        matches costs no more than the lists do.
        """
        aim, contents = self._knobs.aim, self._contents
        curves, index = contents.curves, contents.index
        if aim is None or curves is None:
            return False
        if matching is None or self._where is None:
            found = curves.choose(k, aim, share)
        else:
            known = contents.filter_curves.look(
                self._where, matching, index.n_base, index.nlist, nq
            )
            if known.is_even:
                found = curves.choose(k, aim, share)
            elif known.curve is not None:
                found = curves.under(known.curve, k, aim)
            else:
                found = curves.choose(k, 1.0)  # exactly, until it is measured
        self._expected = found
        if found.effort is None or (not found.is_reached and self._knobs.target is not None):
            return True
        exact = _EXACT_CODES * index.d
        return matching is not None and matching.count * exact <= found.cost

    def _sampled_share(self) -> float | None:
        """The share of matches in a sample; None where counting them all is as cheap."""
        contents, where = self._contents, self._where
        n = contents.table.n
        if self._knobs.exact or contents.index.model is None or n < _LARGE or where is None:
            return None
        if has_text_condition(where) or contents.filtered.get(contents.version, where) is not None:
            return None
        step = n / _SAMPLE
        sample = (np.arange(_SAMPLE) * step + step / 2).astype(np.int64)
        sample = sample[contents.table.is_live(sample)]
        share = float(self.holds(sample).mean()) if len(sample) else 0.0
        self._clock.stage("estimate")
        return share

    def _post_filtered(self, queries: F32, k: int, share: float) -> Found | None:
        table = self._contents.table
        more = min(math.ceil(1.25 * k / share) + 4, table.live)
        if self._is_exact_better(more, 1.0, None, len(queries)):
            return None
        done = self._by_lists(queries, more, self._knobs.nprobe, table.alive, table.live)
        candidates = np.unique(done.rows[done.rows >= 0])
        kept = candidates[self.holds(candidates)]
        is_kept = np.isin(done.rows, kept)
        if (is_kept.sum(axis=1) < k).any():
            return None
        order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
        self._clock.stage("filter")
        cut = Searched(
            np.take_along_axis(done.scores, order, axis=1),
            np.take_along_axis(done.rows, order, axis=1),
            done.scanned,
            done.plan,
        )
        return self._as_found(cut, "post-filter", None, share)

    def _filtered(self, queries: F32, k: int) -> Found:
        contents, knobs = self._contents, self._knobs
        allowed, live = self._filter(), contents.table.live
        m = allowed.count
        if not m:
            return self._nothing(len(queries), 0)
        k, share = min(k, m), m / live
        is_small = m * contents.index.d <= EXACT_NUMBERS
        if (
            knobs.exact
            or contents.index.model is None
            or is_small
            or self._is_exact_better(k, share, allowed, len(queries))
        ):
            done = self._exact(queries, k, allowed.positions())
            return self._as_found(done, "exact on matches", m, share)
        nprobe = knobs.nprobe
        if nprobe is None and self._expected is None:
            nprobe = math.ceil(contents.index.default_nprobe * share**-WIDENING)
        done = self._by_lists(queries, k, nprobe, allowed.bitmap(), m)
        strategy = "filter in scan" if done.plan else "exact on matches"
        return self._as_found(done, strategy, m, share)

    def _exact(self, queries: F32, k: int, rows: I64 | None) -> Searched:
        done = self._contents.index.exact(queries, k, rows, self._knobs.threads)
        self._clock.stage("score")
        return done

    def _by_lists(
        self, queries: F32, k: int, nprobe: int | None, allowed: U8 | None, rows: int
    ) -> Searched:
        """By the lists, or by all of the `rows` that are allowed where a batch costs less so."""
        rerank, threads, all_rows = self._knobs.rerank, self._knobs.threads, rows
        if self._knobs.nprobe is not None:
            all_rows = 0
        effort = None if self._expected is None else self._expected.effort
        stop = None
        if effort is not None:
            nprobe, stop = effort.nprobe, effort.stop
            rerank = max(effort.rerank, self._least_rerank(k))
        done = self._contents.index.search(
            queries,
            k,
            nprobe=nprobe,
            rerank=rerank,
            stop=stop,
            allowed=allowed,
            threads=threads,
            all_rows=all_rows,
        )
        self._clock.stage("scan")
        return done

    def _least_rerank(self, k: int) -> int:
        """The usual candidates once much has changed since the curves were measured.

        Codes of points unlike those that training saw may take the places of better candidates.
        """
        contents = self._contents
        curves, model = contents.curves, contents.index.model
        if curves is None or model is None or contents.changed <= _WARY * curves.n:
            return 0
        return default_rerank(k, model.choice.dims_per_block)

    def _as_found(self, done: Searched, strategy: str, m: int | None, share: float) -> Found:
        found = self._expected
        recall: tuple[float | None, float | None, float | None] = (None, None, None)
        if done.plan is None:  # an exact search, whatever it was chosen for
            recall = (1.0, 1.0, 1.0)
        elif found is not None:
            recall = found.recall, found.low, found.high
        plan = Plan(
            strategy,
            self._contents.table.live,
            m,
            share,
            None if done.plan is None else done.plan.nprobe,
            None if done.plan is None else done.plan.rerank,
            done.scanned,
            self._clock.stages,
            self._knobs.aim,
            *recall,
        )
        return Found(done.scores, done.rows, plan)

    def _nothing(self, nq: int, m: int | None) -> Found:
        share = 1.0 if m is None else 0.0
        plan = Plan("exact", self._contents.table.live, m, share, None, None, 0, self._clock.stages)
        return Found(np.empty((nq, 0), np.float32), np.empty((nq, 0), np.int64), plan)


def has_text_condition(expr: Expr | None) -> bool:
    """Whether a filter asks the full text, which answers for all rows at once."""
    if isinstance(expr, And | Or):
        return any(has_text_condition(child) for child in expr.children)
    return has_text_condition(expr.child) if isinstance(expr, Not) else isinstance(expr, Matches)
