"""Tuning: the curve of recall and latency that a caller asks to see, measured now.

    collection.py -> [tuning.py] -> promises.py, index/exam.py

Without settings all curves of the collection are measured anew, and searches choose by them from
then on; the one of the k that was asked for is returned. With settings just these are measured, on
the same questions, and nothing is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from soardb import deadline
from soardb.arrays import as_int
from soardb.curve import Curve, Effort, OperatingPoint
from soardb.errors import Closed, InvalidArgument
from soardb.index.exam import LEAST, Exam, Report, jittered, last_scores, nprobes
from soardb.options import MAX_LIMIT, as_settings
from soardb.promises import Subject, refresh_curves
from soardb.reads import Reads

__all__ = ["Curve", "OperatingPoint", "tune"]

_STEP = 2.0


def tune(
    reads: Reads,
    k: int,
    queries: int,
    nprobe_list: Sequence[int] | None,
    rerank_list: Sequence[int] | None,
    seed: int,
    progress: Report,
    stop: threading.Event | None,
) -> Curve:
    """See Collection.tune."""
    k = as_int(k, "k", 1, MAX_LIMIT - 1)
    wanted = as_int(queries, "queries", 1, 100_000)
    asked = as_settings(nprobe_list, "nprobes"), as_settings(rerank_list, "reranks")
    seed = as_int(seed, "seed", 0, 2**63 - 1)

    def report(stage: str, share: float) -> None:
        if stop is not None and stop.is_set():
            raise Closed("the tuning was stopped")
        reads.check_open()
        deadline.check()
        progress(stage, share)

    report("truth", 0.0)
    contents = reads.ready()
    if contents.table.live <= k:
        raise InvalidArgument(
            f"expected more than k = {k} points to measure recall@{k}, the collection has "
            f"{contents.table.live:,}"
        )
    is_small = contents.index.model is None or contents.table.live < LEAST
    curve = None
    if asked == (None, None) and not is_small:
        with reads.core.measuring:
            curves = refresh_curves(
                reads.core, reads.writer, report, ks=(k,), queries=wanted, seed=seed
            )
        if curves is not None:
            curve = next(c for c in curves.curves if c.k == k and c.share == 1)
    if curve is None:
        subject = Subject.of(contents, reads.core.lock.read)
        curve = _looked_at(subject, k, wanted, *asked, seed, report)
    progress("done", 1.0)
    return curve


def _looked_at(
    subject: Subject,
    k: int,
    wanted: int,
    nprobe_list: list[int] | None,
    rerank_list: list[int] | None,
    seed: int,
    report: Report,
) -> Curve:
    """Just these settings; without partitions the one exact point."""
    exam = drawn_exam(subject, k, wanted, seed, report)
    if subject.contents.index.model is None:
        return Curve(k, len(exam.own), [exam.point(None)])
    usual = subject.usual(k)
    probes = nprobe_list or sorted({*nprobes(subject.nlist, _STEP), usual.nprobe})
    depths = rerank_list or [usual.rerank]
    efforts = [Effort(nprobe, rerank) for rerank in depths for nprobe in probes]
    return Curve(k, len(exam.own), [exam.point(effort) for effort in efforts])


def drawn_exam(subject: Subject, k: int, wanted: int, seed: int, report: Report) -> Exam:
    """Questions drawn from the points, and what an exact search finds."""
    rng = np.random.default_rng(seed)
    own = subject.live
    if wanted < len(own):
        own = rng.choice(own, wanted, replace=False)
    metric = subject.contents.index.metric
    asked = jittered(subject.drawn(own), metric, rng)
    step, last = 100, np.empty(len(own), np.float32)
    for first in range(0, len(own), step):
        report("truth", first / len(own))
        part = slice(first, first + step)
        last[part] = last_scores(*subject.exact(asked[part], k + 1, None), own[part], k)
    return Exam(subject, k, asked, own, last, report=report)
