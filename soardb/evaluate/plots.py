"""Figures of what the other modules here measure.

    partitions.py, recall.py, memory.py -> [plots.py] -> files

Each function returns a matplotlib Figure, and writes it when given a path; the suffix tells the
format. matplotlib is imported by the first call; without it the call says which extra to install.
Figures are drawn without pyplot, so they need no display and leave no global state behind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from soardb.errors import Unavailable
from soardb.evaluate.partitions import KMeansRecall, ResidualAngles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RECALL_TICKS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_HIGHEST_RECALL = 0.9995
_COLOURS = ("#1f5fa8", "#d1603d", "#2e8b57", "#8e5ba6", "#c99a1e", "#5a6570", "#0d9aa3", "#b0305c")


def plot_kmeans_recall(
    curves: Mapping[str, KMeansRecall],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    min_recall: float = 0.5,
) -> Figure:
    """Recall of the partition choice against points read, one line a spilling rule.

    curves      name -> curve
    min_recall  where the recall axis begins; it is stretched towards its end at 0.9995, as that is
                where the lines differ
    """
    figure, axes = blank(title)
    for (name, curve), colour in zip(curves.items(), _colours(curves), strict=True):
        shown = (curve.recall >= min_recall) & (curve.recall <= _HIGHEST_RECALL)
        misses = 1 - curve.recall[shown]
        axes.plot(curve.points_read[shown], misses, label=name, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="points read a query", ylabel="k-means recall")
    _recall_axis(axes, "y", min_recall)
    return finished(figure, axes, path)


def plot_recall_qps(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    k: int = 10,
    min_recall: float = 0.5,
) -> Figure:
    """Queries a second against recall@k, one line an index.

    curves  name -> (recalls, QPS), one entry a parameter setting, in any order; a recall beyond
            0.9995, where the axis ends, is drawn there
    """
    figure, axes = blank(title)
    for (name, (recalls, qps)), colour in zip(curves.items(), _colours(curves), strict=True):
        order = np.argsort(recalls)
        recall, rate = np.asarray(recalls)[order], np.asarray(qps)[order]
        shown = recall >= min_recall
        misses = 1 - np.minimum(recall, _HIGHEST_RECALL)
        axes.plot(misses[shown], rate[shown], label=name, color=colour, marker="o", ms=3)
    axes.set(xscale="log", yscale="log", xlabel=f"recall@{k}", ylabel="queries a second")
    _recall_axis(axes, "x", min_recall)
    return finished(figure, axes, path)


def plot_residual_angles(
    angles: Mapping[str, ResidualAngles],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Density of |cos(r, r')| over the spilled vectors, one line a spilling rule."""
    figure, axes = blank(title)
    edges = np.linspace(0, 1, 51)
    for (name, found), colour in zip(angles.items(), _colours(angles), strict=True):
        density, _ = np.histogram(np.abs(found.cosines), bins=edges)
        share = density / max(1, density.sum()) / np.diff(edges)
        label = f"{name}: mean {found.mean_abs:.3f}, {found.spilled_fraction:.0%} spilled"
        axes.stairs(share, edges, label=label, color=colour, linewidth=1.5)
    axes.set(xlabel="|cos(r, r')|", ylabel="density", xlim=(0, 1))
    return finished(figure, axes, path)


def plot_memory(
    indexes: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Bytes a vector by part, one stacked bar an index.

    indexes  name -> bytes_per_vector(index); the entry "total" becomes the figure beside the bar
    """
    figure, axes = blank(title)
    parts = list(dict.fromkeys(p for index in indexes.values() for p in index if p != "total"))
    left = np.zeros(len(indexes))
    for i, part in enumerate(parts):
        width = np.array([index.get(part, 0.0) for index in indexes.values()])
        axes.barh(list(indexes), width, left=left, label=part, color=_COLOURS[i % len(_COLOURS)])
        left += width
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:.1f}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="bytes a vector", xlim=(0, 1.12 * float(left.max(initial=1))))
    return finished(figure, axes, path)


def plot_layouts(
    layouts: Mapping[str, tuple[float, float]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    marked: str = "",
) -> Figure:
    """Counted time of a query against bytes a vector, a point a layout; `marked` stands out.

    layouts  name -> (bytes a vector, microseconds)
    """
    figure, axes = blank(title)
    for name, (size, cost) in layouts.items():
        colour = _COLOURS[1] if name == marked else _COLOURS[0]
        axes.plot([size], [cost], marker="o", color=colour, zorder=3 if name == marked else 2)
        axes.annotate(name, (size, cost), (4, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="bytes a vector, float32 rows aside", ylabel="counted microseconds a query")
    return finished(figure, axes, path)


def blank(title: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes. Errors: Unavailable without matplotlib."""
    figure, (axes,) = abreast(1, (7.5, 4.8))
    axes.set_title(title)
    return figure, axes


def abreast(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `size` inches with so many axes side by side. Errors: as blank()."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Unavailable(
            "plots need matplotlib; install it with: pip install 'soardb[plot]'"
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _colours(names: Mapping[str, object]) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]


def _recall_axis(axes: Axes, which: Literal["x", "y"], lowest: float) -> None:
    """Label a logarithmic axis of misses (1 - recall) with recalls, the best at the far end."""
    ticks = [tick for tick in _RECALL_TICKS if tick >= lowest]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks([1 - tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)
    (axes.set_xlim if which == "x" else axes.set_ylim)(1 - lowest, 1 - _HIGHEST_RECALL)


def finished(figure: Figure, axes: Axes, path: str | os.PathLike[str] | None) -> Figure:
    """With a grid, with a legend where lines have names, and in a file where a path is told."""
    axes.grid(visible=True, alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
