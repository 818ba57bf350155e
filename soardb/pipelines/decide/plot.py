"""Pictures of comparisons: what other decisions lose against a metric's own, and samples.

    compare.py's tables as rows -> [plot.py] -> matplotlib files

matplotlib is imported by the first call; without it the call says which extra to install.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from soardb.errors import InvalidArgument
from soardb.evaluate.plots import abreast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_comparison", "plot_sweep"]

Rows = Sequence[Mapping[str, Any]]


def plot_comparison(
    tables: Mapping[str, Rows], path: str | os.PathLike[str] | None = None
) -> Figure:
    """A panel a table: how much worse than a metric's own decisions the others are, in percent.

    tables  by title: the cells of Table.to_json()

    A ring is the metric's own; an empty square has no measure, such as the correlation of a
    constant. Errors: InvalidArgument without cells.
    """
    if not tables or not all(tables.values()):
        raise InvalidArgument("expected tables with cells to draw, got none")
    figure, panels = abreast(len(tables), (1.5 + 6 * len(tables), 5.5))
    for panel, (title, cells) in zip(panels, tables.items(), strict=True):
        names = list(dict.fromkeys(cell["decisions"] for cell in cells))
        metrics = list(dict.fromkeys(cell["metric"] for cell in cells))
        lost = np.full((len(names), len(metrics)), np.nan)
        own = {c["metric"]: c["value"] for c in cells if c["decisions"] == c["own"]}
        for cell in cells:
            at = names.index(cell["decisions"]), metrics.index(cell["metric"])
            if cell["decisions"] == cell["own"]:
                panel.plot(at[1], at[0], "o", ms=14, mfc="none", mec="0.2")
                lost[at] = 0
            elif cell["gain"] is not None and own[cell["metric"]]:
                lost[at] = 100 * cell["gain"] / abs(own[cell["metric"]])
        panel.imshow(np.clip(lost, 0, 30), cmap="Oranges", vmin=0, vmax=30, aspect="auto")
        for row, column in zip(*np.nonzero(np.isfinite(lost)), strict=True):
            shown = f"{lost[row, column]:.1f}"
            dark = lost[row, column] > 20
            panel.text(
                column, row, shown, ha="center", va="center", size=7,
                color="white" if dark else "0.15",
            )  # fmt: skip
        panel.set_xticks(range(len(metrics)), metrics, rotation=40, ha="right", size=8)
        panel.set_yticks(range(len(names)), names, size=8)
        panel.set_title(f"{title}: % worse than the metric's own decisions (ring)", fontsize=9)
    if path is not None:
        figure.savefig(path, dpi=140)
    return figure


def plot_sweep(rows: Rows, path: str | os.PathLike[str] | None = None) -> Figure:
    """A panel a metric: its measure over the number of samples k, with intervals.

    rows  what, metric, k, value, low, high of each point. Errors: InvalidArgument without rows.
    """
    if not rows:
        raise InvalidArgument("expected rows to draw, got none")
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    figure, panels = abreast(len(metrics), (4.5 * len(metrics), 4))
    for panel, metric in zip(panels, metrics, strict=True):
        for what in dict.fromkeys(row["what"] for row in rows):
            mine = [r for r in rows if r["metric"] == metric and r["what"] == what]
            k = [row["k"] for row in mine]
            panel.plot(k, [row["value"] for row in mine], "o-", ms=3, label=what)
            panel.fill_between(
                k, [row["low"] for row in mine], [row["high"] for row in mine], alpha=0.2
            )
        panel.set(xscale="log", xlabel="samples", ylabel=metric)
        ticks = sorted({row["k"] for row in rows})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize=8)
    if path is not None:
        figure.savefig(path, dpi=140)
    return figure
