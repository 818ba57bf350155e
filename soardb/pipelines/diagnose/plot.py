"""A picture of a diagnosis: variance over bias, the cone, and confidence beside accuracy.

    run.py's diagnoses -> [plot.py] -> a matplotlib file

matplotlib is imported by the first call; without it the call says which extra to install.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from soardb.errors import InvalidArgument, Unavailable
from soardb.pipelines.diagnose.calibration import reliability
from soardb.pipelines.diagnose.cone import envelope
from soardb.pipelines.diagnose.fit import usable
from soardb.pipelines.diagnose.run import Diagnosis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_diagnosis"]

_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#7f8c8d"
_MOST_DOTS = 20_000


def plot_diagnosis(found: Diagnosis, path: str | os.PathLike[str]) -> Figure:
    """Draw three panels into a file; its ending says the format.

    Log variance over log bias^2, correct and wrong samples apart, with the line through the correct
    ones; the same on plain axes, under the cone that holds 99 % and under what is possible; how
    often the mean of the replicas is right, over how sure it is.

    Errors: Unavailable without matplotlib; InvalidArgument where no sample has both above 0.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed; pip install 'soardb[plot]'") from error
    if not usable(found.parts.bias, found.parts.variance).any():
        raise InvalidArgument("expected samples with bias and variance above 0, there are none")
    figure = Figure(figsize=(16, 5), dpi=120, layout="constrained")
    figure.suptitle(f"{found.ensemble.members} replicas, {found.ensemble.randomness}", fontsize=9)
    for draw, axes in zip((_alignment, _cone, _calibration), figure.subplots(1, 3), strict=True):
        axes.grid(alpha=0.25)
        draw(axes, found)
    figure.savefig(path)
    return figure


def _alignment(axes: Any, found: Diagnosis) -> None:
    kept = usable(found.parts.bias, found.parts.variance)
    _dots(axes, found, kept)
    line = found.fits["correct"]
    if line is not None:
        own = found.parts.bias[kept & found.correct]
        ends = np.array([own.min(), own.max()])
        axes.plot(ends, np.exp(line.at(ends)), color="black", lw=1, label="fit of the correct")
        axes.set_title(f"slope {line.slope:.3f}, R^2 {line.r2:.3f}")
    axes.set(xscale="log", yscale="log", xlabel="bias^2", ylabel="variance")
    axes.legend()


def _cone(axes: Any, found: Diagnosis) -> None:
    _dots(axes, found, np.ones(len(found), np.bool_))
    top = max(float(found.parts.bias.max()), 1e-12)
    across = np.linspace(0, top, 200)
    highest = max(float(found.parts.variance.max()) * 1.1, 1e-12)
    axes.plot(across, envelope(across, found.ensemble.classes), ":", color=_GREY, label="possible")
    if found.cone is not None:
        axes.plot(across, found.cone.p99 * across, "k-", lw=1, label="99 % are below")
        axes.set_title(f"variance up to {found.cone.p99:.3g} bias^2")
    axes.set(xlim=(0, top * 1.02), ylim=(0, highest), xlabel="bias^2", ylabel="variance")
    axes.legend()


def _calibration(axes: Any, found: Diagnosis) -> None:
    bins = reliability(found.ensemble.mean, found.ensemble.labels, found.config.bins)
    kept = bins.counts > 0
    axes.plot([0, 1], [0, 1], ":", color=_GREY)
    axes.plot(bins.confidence[kept], bins.accuracy[kept], "o-", color=_BLUE)
    axes.set(xlabel="confidence", ylabel="share correct", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"ECE {found.calibration.ece:.4f}")


def _dots(axes: Any, found: Diagnosis, kept: Any) -> None:
    shown = np.random.default_rng(0).permutation(np.flatnonzero(kept))[:_MOST_DOTS]
    for mask, colour, name in (
        (found.correct, _BLUE, "correct"),
        (~found.correct, _RED, "wrong"),
    ):
        rows = shown[mask[shown]]
        axes.scatter(
            found.parts.bias[rows],
            found.parts.variance[rows],
            s=6,
            color=colour,
            linewidths=0,
            alpha=0.6,
            label=f"{name}, {int(mask.sum()):,}",
        )
