"""Curves of a training: losses over steps, and where stages begin.

    run.py -> [plot.py] -> cli, files

matplotlib is imported by the call; without it the call says which extra to install.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from soardb.evaluate.plots import blank, finished
from soardb.pipelines.raptr.run import Pretrained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_losses"]

_SMOOTHED = 50  # steps


def plot_losses(
    found: Pretrained, path: str | os.PathLike[str] | None = None, *, title: str = ""
) -> Figure:
    """Loss of what learned, a mean over 50 steps, and of the whole network where it was looked at.

    Errors: Unavailable without matplotlib.
    """
    figure, axes = blank(title)
    losses = np.asarray(found.losses)
    width = min(_SMOOTHED, len(losses))
    smooth = np.convolve(losses, np.full(width, 1 / width), "valid")
    axes.plot(np.arange(width, len(losses) + 1), smooth, color="0.7", label="what learned")
    looks = found.log.evaluations
    if looks:
        steps, whole = [one.steps for one in looks], [one.loss for one in looks]
        axes.plot(steps, whole, "o-", ms=3, label="the whole network, on texts held out")
    for one in found.log.transitions:
        axes.axvline(one.step, color="0.85", lw=1, zorder=0)
    axes.set(xlabel="steps", ylabel="nats a token")
    return finished(figure, axes, path)
