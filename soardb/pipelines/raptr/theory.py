"""Why a new stage does not upset a network: what one layer of many matters, at random weights.

    [theory.py] -> benchmarks/bench_raptr_theory.py

Linear layers y_l = y_(l-1) + W_l LN(y_(l-1)), each part of which can be left out. With the
residual and the norm the normed output changes by O(1 / sqrt L) when a layer is dropped; without
either, by a constant (arXiv 2402.05913, the lemma on stability of stages). Its constants are not
looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soardb.arrays import as_int
from soardb.errors import InvalidArgument

__all__ = ["COMBINATIONS", "output_change", "output_changes", "slope"]

COMBINATIONS: Mapping[str, tuple[bool, bool]] = {
    "residual and norm": (True, True),
    "residual alone": (True, False),
    "norm alone": (False, True),
    "neither": (False, False),
}
"""Whether layers add to what they get, and whether they norm it before."""


def output_change(depth: int, width: int, *, residual: bool, norm: bool, seed: int = 0) -> float:
    """Of the normed output, against its length, when one of `depth` layers is dropped.

    A mean over the layers, for one network with weights from N(0, 1 / width) and one input. Costs
    depth^2 products of width^2.
    """
    as_int(depth, "depth", 1, 100_000)
    as_int(width, "width", 2, 100_000)
    rng = np.random.default_rng(seed)
    start = rng.standard_normal((width, 1))
    # Column j is the stream of the network without layer j; the last one is that of the whole.
    streams = np.repeat(start, depth + 1, axis=1)
    for layer in range(depth):
        weights = rng.standard_normal((width, width)) / np.sqrt(width)
        made = weights @ (_normed(streams) if norm else streams)
        if residual:
            made += streams
        made[:, layer] = streams[:, layer]
        # Only directions matter in the end; without a norm lengths may leave what a float holds.
        streams = made if norm else made / np.linalg.norm(made[:, -1])
    outputs = _normed(streams)
    whole = outputs[:, -1:]
    gaps = np.linalg.norm(outputs[:, :-1] - whole, axis=0) / np.linalg.norm(whole)
    return float(gaps.mean())


def output_changes(depths: Sequence[int], width: int, seeds: int = 3) -> dict[str, list[float]]:
    """By combination, for each depth: the mean over seeds."""
    return {
        name: [
            sum(
                output_change(depth, width, residual=residual, norm=norm, seed=seed)
                for seed in range(seeds)
            )
            / seeds
            for depth in depths
        ]
        for name, (residual, norm) in COMBINATIONS.items()
    }


def slope(depths: Sequence[int], changes: Sequence[float]) -> float:
    """Of log change against log depth, by least squares."""
    if len(depths) < 2 or len(depths) != len(changes):
        raise InvalidArgument(
            f"expected a change for each of two depths at least, got {len(depths)} and "
            f"{len(changes)}"
        )
    return float(np.polyfit(np.log(depths), np.log(changes), 1)[0])


def _normed(streams: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns as a layer norm leaves them: mean 0, variance 1."""
    centred = streams - streams.mean(0)
    normed: NDArray[np.float64] = centred / centred.std(0)
    return normed
