"""Pictures of a selection: the chosen points among all, and radius against weight over lambda.

    run.py's selections -> [plot.py] -> matplotlib files

matplotlib is imported by the first call; without it the call says which extra to install.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soardb.errors import InvalidArgument
from soardb.evaluate.plots import blank, finished
from soardb.kernels.layout import F32
from soardb.pipelines.select.run import SelectConfig, Selection, run
from soardb.pipelines.select.source import Source, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LAMBDAS", "plot_selection", "plot_tradeoff", "projected"]

LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_MOST_DOTS = 20_000
_SAMPLE = 50_000


def projected(vectors: npt.ArrayLike, seed: int = 0) -> F32:
    """(n, 2) of (n, d) vectors: their first two principal directions, learned from a sample."""
    array = np.asarray(vectors, np.float32)
    if array.ndim != 2 or array.shape[1] < 2:
        raise InvalidArgument(f"expected (n, d) vectors, d at least 2, got shape {array.shape}")
    rows = np.random.default_rng(seed).permutation(len(array))[:_SAMPLE]
    middle = array[rows].mean(axis=0)
    centred = array[rows] - middle
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    found: F32 = ((array - middle) @ axes[:, :-3:-1]).astype(np.float32)
    return found


def plot_selection(
    vectors: npt.ArrayLike, selection: Selection, path: str | os.PathLike[str], seed: int = 0
) -> Figure:
    """All points, coloured by their weights where they were told, and the chosen ones among them.

    vectors: (n, d), in the order of the source of the selection. Of many points a sample is drawn,
    of the chosen ones all. Errors: Unavailable without matplotlib.
    """
    flat = projected(vectors, seed)
    figure, axes = blank(
        f"{selection.config.method}: {len(selection)} of {selection.n:,}, radius "
        f"{selection.certificate.radius:.3g}"
    )
    shown = np.random.default_rng(seed).permutation(len(flat))[:_MOST_DOTS]
    axes.scatter(flat[shown, 0], flat[shown, 1], s=3, color="#b9c2cc", linewidths=0, label="all")
    chosen = flat[selection.rows]
    dots = axes.scatter(
        chosen[:, 0], chosen[:, 1], s=14, c=selection.weights, cmap="viridis", label="chosen"
    )
    figure.colorbar(dots, ax=axes, label="weight of the chosen")
    axes.set(xlabel="first principal direction", ylabel="second")
    return finished(figure, axes, path)


def plot_tradeoff(
    points: Any,
    config: SelectConfig,
    path: str | os.PathLike[str],
    *,
    lambdas: Sequence[float] = LAMBDAS,
    progress: Callable[[str, float], None] = lambda stage, share: None,
    **given: Any,
) -> list[Selection]:
    """Choose for every lambda, and draw radius against weight; returns the selections.

    points: as for run(), which they are read for once. given: weights, probabilities or logits.
    """
    if not lambdas:
        raise InvalidArgument("expected at least one lambda, got none")
    figure, axes = blank(
        f"{config.method}, k = {config.k}, for each lambda"
    )  # matplotlib must be there first
    source = points if isinstance(points, Source) else read(points, config, **given)
    found = []
    for number, radius_weight in enumerate(lambdas):
        found.append(run(source, replace(config, radius_weight=radius_weight)))
        progress("lambdas", (number + 1) / len(lambdas))
    radii = [one.certificate.radius for one in found]
    means = [one.certificate.weight / config.k for one in found]
    axes.plot(means, radii, "o-", color="#1f5fa8")
    labels: dict[tuple[float, float], list[str]] = {}
    for one, at in zip(found, zip(means, radii, strict=True), strict=True):
        labels.setdefault(at, []).append(f"{one.config.radius_weight:g}")
    for at, names in labels.items():
        axes.annotate(", ".join(names), at, xytext=(5, 5), textcoords="offset points")
    axes.set(xlabel="mean weight of the chosen points", ylabel="radius")
    finished(figure, axes, path)
    return found
