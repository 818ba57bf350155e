"""What leaving out a layer does to a network, and what a new stage does to its loss.

    subnetwork.py, plans.py -> [probes.py] -> run.py, benchmarks

RaPTr's bound: when a stage begins, the loss of what learns differs by no more than the output's
sensitivity to dropping a layer, psi_l. L_1 is the mean loss with one layer left out, L_2 that of
the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soardb.models.decoder import Decoder
from soardb.pipelines.raptr.subnetwork import Scale, Subnetwork, held_out_loss, hidden_of

__all__ = ["Sensitivity", "Transition", "mean_loss", "one_left_out", "sensitivities"]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Of a network to leaving out a layer.

    change  of the normed output of a token, against its own length, on average: psi of the layer
    loss    without the layer, in nats a token
    """

    layer: int
    change: float
    loss: float


@dataclass(frozen=True, slots=True)
class Transition:
    """When a stage begins with a step, before anything is learned in it; losses in nats a token.

    before, after  depths, as the schedule has them
    loss_before    of paths of the stage that ends, on average
    loss_after     of paths of the one that begins
    whole          of the whole network: L_2
    left_out       with one layer left out, the mean over those that are not fixed: L_1
    changes        psi of each layer that is there
    """

    step: int
    before: float
    after: float
    loss_before: float
    loss_after: float
    whole: float
    left_out: float
    changes: tuple[float, ...]


def sensitivities(
    decoder: Decoder,
    windows: Tensor,
    scale: Scale = "none",
    layers: Sequence[int] | None = None,
    batch: int = 64,
) -> list[Sensitivity]:
    """To leaving out each layer, one at a time, over (n, t) windows.

    scale   of the layers that are left; see subnetwork.SCALES
    layers  that there are; all unless told

    Costs a pass over the windows a layer, twice, and one more.
    """
    there = tuple(range(len(decoder.layers))) if layers is None else tuple(layers)
    whole = _outputs(decoder, windows, Subnetwork.of(there), scale, batch)
    found = []
    for layer in there:
        part = Subnetwork.of([other for other in there if other != layer])
        outputs = _outputs(decoder, windows, part, scale, batch)
        change = float(((outputs - whole).norm(dim=-1) / whole.norm(dim=-1)).mean())
        found.append(
            Sensitivity(layer, change, held_out_loss(decoder, windows, part, scale, batch))
        )
    return found


def one_left_out(found: Sequence[Sensitivity], fixed: Sequence[int] = ()) -> float:
    """L_1: the mean loss with one layer left out that is not fixed; of any, where all are."""
    losses = [one.loss for one in found if one.layer not in fixed] or [one.loss for one in found]
    return sum(losses) / len(losses)


def mean_loss(
    decoder: Decoder, windows: Tensor, draw: Callable[[], Subnetwork], count: int, scale: Scale
) -> float:
    """Over `count` parts that are drawn, of (n, t) windows each."""
    return sum(held_out_loss(decoder, windows, draw(), scale) for _ in range(count)) / count


def _outputs(
    decoder: Decoder, windows: Tensor, part: Subnetwork, scale: Scale, batch: int
) -> Tensor:
    with torch.inference_mode():
        return torch.cat(
            [hidden_of(decoder, some[:, :-1], part, scale) for some in torch.split(windows, batch)]
        )
