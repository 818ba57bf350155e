"""A pretraining as a picture: the parts of its loss, and what it is on clean inputs.

run.py -> [plot.py] -> cli
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soardb.evaluate.plots import abreast
from soardb.pipelines.spactor.run import Pretrained

__all__ = ["plot_training"]

_NAMES = {
    "sc": "what was left out, as trained",
    "mlm": "masked guessing",
    "rtd": "replaced or not",
}


def plot_training(found: Pretrained, path: Path, title: str = "") -> None:
    """Draw the parts over the steps, and the looks over the operations. Errors: Unavailable."""
    figure, (parts, looks) = abreast(2, (11, 4.2))
    for name, label in _NAMES.items():
        told = [(n, one[name]) for n, one in enumerate(found.parts) if name in one]
        if told:
            steps, values = np.array(told).T
            width = max(1, len(values) // 100)
            count = len(values) // width * width
            means = (x[:count].reshape(-1, width).mean(1) for x in (steps, values))
            parts.plot(*means, label=label)
    clean = [one.clean for one in found.looks]
    parts.plot([one.step for one in found.looks], clean, "ko-", ms=3, lw=0.8, label="on clean")
    looks.plot([one.flops / 1e12 for one in found.looks], clean, "ko-", ms=3, lw=0.8)
    parts.set(xlabel="step", ylabel="nats", title=title)
    looks.set(xlabel="operations, 10^12", ylabel="nats a target token, clean inputs")
    parts.legend(fontsize=8)
    for panel in (parts, looks):
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
