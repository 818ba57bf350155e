"""What rounding costs in recall, for curves of an index that rounds its vectors.

    ivf.py, promises.py -> [rounding.py] -> form.py, exam.py, curve.py

An exam asks an index for the nearest of the vectors that it keeps, as it has no others; what was
asked for are the nearest of those that were given. Where each number was rounded to a step, what
was given lies anywhere within it: numbers drawn from there make vectors that are as likely as the
given ones. So the best of the kept vectors are moved by such draws and ranked anew, and as many of
the k as are lost by that are taken to have been lost by the rounding. benchmarks/LOG.md has the
estimate beside the truth.

Nothing here knows of ids, files or locks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from soardb.curve import Curve, Curves
from soardb.index.exam import Examined, jittered
from soardb.index.form import Form
from soardb.index.model import as_compared
from soardb.kernels.dispatch import active
from soardb.kernels.layout import I64, Metric

__all__ = ["counted", "kept_recall", "lowered"]

_QUESTIONS = 500
_AT_ONCE = 50


def counted(
    curves: Curves, index: Examined, form: Form, metric: Metric, rows: I64, seed: int
) -> Curves:
    """Curves of exam.measure() with what rounding loses taken off; float32 loses nothing.

    rows are the live ones that were asked about. Costs 500 exact searches a curve.
    """
    if form.precision == "float32":
        return curves
    rng, found = np.random.default_rng(seed), []
    for curve in curves.curves:
        some = None
        if curve.share < 1:
            some = np.sort(rng.permutation(rows)[: round(curve.share * len(rows))])
        share = kept_recall(index, form, metric, rows, some, curve.k, seed)
        found.append(lowered(curve, share))
    return Curves(curves.n, curves.live, found)


def lowered(curve: Curve, share: float) -> Curve:
    """A curve of which each recall is that share of what was measured."""
    points = [
        replace(point, recall=share * point.recall, low=share * point.low, high=share * point.high)
        for point in curve.points
    ]
    return replace(curve, points=points)


def kept_recall(
    index: Examined,
    form: Form,
    metric: Metric,
    rows: I64,
    among: I64 | None,
    k: int,
    seed: int,
) -> float:
    """The expected recall@k of an exact search of kept vectors against the vectors as given.

    rows   (n,) points that questions are drawn from
    among  (m,) points that may be found; None: all
    """
    rng = np.random.default_rng(seed)
    held = len(rows) if among is None else len(among)
    room = min(2 * k + 20, held - 1)
    if form.precision == "float32" or room <= k:
        return 1.0
    own = rng.permutation(rows)[:_QUESTIONS]
    asked = jittered(index.drawn(own), metric, rng)
    kept = 0
    for first in range(0, len(own), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        for query, mine, near in zip(
            asked[some], own[some], index.exact(asked[some], room + 1, among)[1], strict=True
        ):
            vectors = index.drawn(near[(near != mine) & (near >= 0)][:room])
            moved = vectors + form.steps(vectors) * rng.uniform(-0.5, 0.5, vectors.shape)
            given = as_compared(moved.astype(np.float32), metric)
            scores = active.exact_scores(given, query, metric)
            kept += int((np.argsort(-scores, kind="stable")[:k] < k).sum())
    return kept / (k * len(own))
