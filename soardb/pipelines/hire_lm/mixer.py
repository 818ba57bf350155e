"""The feed-forward part by HiRE: a cheap copy says which units may be on, those alone are computed.

    copies.py, soardb.topk, models/decoder.py -> [mixer.py] -> decoding

For a Mixer that was trained with top-k ReLU: of `units` few groups stay on, so few rows of `up` and
of `out` are needed. A group counts by the sum of its activations, as in training.

* common path: groups that are on most often are always computed, and the copy holds the others.
* union: tokens that are read together, as speculative decoding has them, are computed on all groups
  that any of them asks for. Each row is gathered once, and a token may find more than it asked for.

What is on among the groups that were computed is decided exactly, and computed exactly.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from soardb.arrays import as_int, as_vectors
from soardb.errors import InvalidArgument, NotTrained
from soardb.kernels.layout import F32, I64
from soardb.models.decoder import Decoder, Mixer
from soardb.options import as_number
from soardb.pipelines.hire_lm.copies import Copy
from soardb.topk import Calibration, Traffic, topk
from soardb.topk.hire import curve_of, ranks_of

__all__ = ["HireMixer", "hired", "inputs_of"]


class HireMixer(nn.Module):
    """In the place of a trained Mixer, for inference.

    mixer      of "relu" with active units. Errors: InvalidArgument for others
    copied     how the copy is made
    states     (m, width) inputs of this layer: they choose the common path, and weigh a rank
    common     share of the groups that are always computed, 0..1
    predicted  groups that are computed for a token, k', the common ones included; None: calibrate()
    block      tokens that follow one another and share what is gathered
    """

    def __init__(
        self,
        mixer: Mixer,
        copied: Copy,
        states: npt.ArrayLike | None = None,
        *,
        common: float = 0.0,
        predicted: int | None = None,
        block: int = 1,
    ) -> None:
        super().__init__()
        if mixer.gate is not None or mixer.active is None:
            raise InvalidArgument(
                "expected a mixer that was trained with top-k ReLU (active=), whose other units "
                "are off; others lose what is left out"
            )
        self.group, self.active = mixer.group, mixer.active // mixer.group
        up: F32 = mixer.up.weight.detach().numpy()  # (units, width)
        down: F32 = mixer.out.weight.detach().numpy().T  # (units, width)
        self.groups, self.width = len(up) // self.group, up.shape[1]
        self._up = np.ascontiguousarray(up).reshape(self.groups, self.group, self.width)
        self._down = np.ascontiguousarray(down).reshape(self.groups, self.group, self.width)
        given = None if states is None else as_vectors(states, self.width, "dot", "states")
        self.common = self._often_on(given, common)
        rest = np.ones(self.groups, bool)
        rest[self.common] = False
        self._rest: I64 = np.flatnonzero(rest)
        self.estimator = (
            copied.make(self._up[self._rest].reshape(-1, self.width), given)
            if len(self._rest)
            else None
        )
        self.predicted: int | None = None
        if predicted is not None:
            self.predicted = as_int(
                predicted, "predicted", max(self.active, len(self.common)), self.groups,
                "it must hold the groups that stay on, and the common ones",
            )  # fmt: skip
        self.block = as_int(block, "block", 1, 1_000_000)
        self.blocks = self.gathered = 0

    def _often_on(self, states: F32 | None, share: float) -> I64:
        if not 0 <= as_number(share, "common") <= 1:
            raise InvalidArgument(f"expected common within 0..1, got {share}")
        count = round(share * self.groups)
        if not count:
            return np.empty(0, np.int64)
        if states is None:
            raise InvalidArgument("expected states to choose the common path by, got none")
        _, on = self.support(states)
        often = np.bincount(on.ravel(), minlength=self.groups)
        return np.sort(np.argsort(-often, kind="stable")[:count])

    # --- exactly --------------------------------------------------------------------------------

    def support(self, states: npt.ArrayLike) -> tuple[F32, I64]:
        """What is on in the exact mixer: (sums, groups), each (m, active groups), best first."""
        asked = as_vectors(states, self.width, "dot", "states")
        units = np.maximum(asked @ self._up.reshape(-1, self.width).T, 0)
        return topk(_sums(units, self.group), self.active)

    # --- predicted ------------------------------------------------------------------------------

    def _scores(self, states: F32) -> F32:
        """(m, groups) predicted sums, up to a factor of each state; the common path at infinity."""
        out = np.full((len(states), self.groups), np.inf, np.float32)
        if self.estimator is not None:
            found = self.estimator.scores(states)
            # One by one the order of products is that of activations, and tells more below zero.
            out[:, self._rest] = found if self.group == 1 else _sums(np.maximum(found, 0), self.group)
        return out

    def predict(self, states: F32) -> I64:
        """(m, k') groups to compute for each of (m, width) states, the common ones first."""
        if self.predicted is None:
            raise NotTrained("expected a number of predicted groups; pass predicted= or calibrate()")
        always = np.broadcast_to(self.common, (len(states), len(self.common)))
        if self.predicted == len(self.common):
            return always
        _, found = topk(self._scores(states)[:, self._rest], self.predicted - len(self.common))
        return np.concatenate([always, self._rest[found]], axis=1)

    def calibrate(
        self, states: npt.ArrayLike, recall_target: float = 0.99, *, confidence: float = 0.95
    ) -> Calibration:
        """Take the least k', in groups, that finds this share of the groups that are on.

        states  (m, width) inputs of this layer that it was not made with. A group whose sum is 0
                counts as found, as nothing is lost by it
        """
        asked = as_vectors(states, self.width, "dot", "states")
        if not len(asked):
            raise InvalidArgument("expected at least one state to calibrate on, got none")
        sums, on = self.support(asked)
        ranks = np.where(sums > 0, ranks_of(self._scores(asked), on), 0)
        curve = curve_of(np.sort(ranks, axis=1), self.groups, confidence)
        self.predicted = max(curve.choose(recall_target), len(self.common))
        return curve

    # --- the mixer ------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) normed -> the same, in runs of `block` tokens. No gradient goes through."""
        flat = np.ascontiguousarray(x.detach().reshape(-1, self.width).numpy())
        runs = [self.mix(flat[at : at + self.block]) for at in range(0, len(flat), self.block)]
        return torch.from_numpy(np.concatenate(runs)).reshape(x.shape)

    def mix(self, states: F32) -> F32:
        """(t, width) float32 -> the same: one run, what any token asks for gathered once."""
        union = np.unique(self.predict(states))  # (u,)
        up = self._up[union].reshape(-1, self.width)  # (u group, width)
        units = np.maximum(states @ up.T, 0)
        _, on = topk(_sums(units, self.group), min(self.active, len(union)))
        mask = np.zeros((len(states), len(union)), bool)
        np.put_along_axis(mask, on, True, axis=1)
        units *= np.repeat(mask, self.group, axis=1)
        self.blocks += 1
        self.gathered += len(union)
        out: F32 = units @ self._down[union].reshape(-1, self.width)
        return out

    def traffic(self) -> Traffic:
        """Bytes of a run: the whole mixer, or the copy and what was gathered, by the mean so far.

        Before any run: k' groups.
        """
        rows = self.groups if self.predicted is None else self.predicted
        groups = self.gathered / self.blocks if self.blocks else rows
        group = 2 * self.group * self.width * 4
        copied = 0 if self.estimator is None else self.estimator.bytes_read()
        return Traffic(self.groups * group, copied, round(groups * group))


def inputs_of(decoder: Decoder, tokens: Tensor) -> list[F32]:
    """What (b, t) tokens bring before each layer's mixer: (b * t, width) float32 a layer."""
    found: list[F32] = []

    def keep(module: Any, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].detach().flatten(0, 1).numpy().copy())

    hooks = [layer.mixer.register_forward_pre_hook(keep) for layer in decoder.layers]
    try:
        with torch.inference_mode():
            decoder(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def hired(
    decoder: Decoder,
    tokens: Tensor,
    copied: Copy,
    *,
    recall_target: float = 0.99,
    common: float = 0.0,
    block: int = 1,
) -> Decoder:
    """The decoder with a HireMixer in each layer; `decoder` itself stays as it is.

    tokens  (b, t), b at least 2: one half of the sequences makes the copies and the common path,
            the other calibrates
    """
    if tokens.dim() != 2 or len(tokens) < 2:
        raise InvalidArgument(
            f"expected at least two sequences of tokens, got a shape of {tuple(tokens.shape)}"
        )
    half = len(tokens) // 2
    making, judging = inputs_of(decoder, tokens[:half]), inputs_of(decoder, tokens[half:])
    found = copy.deepcopy(decoder)
    for layer, states, others in zip(found.layers, making, judging, strict=True):
        mixer = HireMixer(layer.mixer, copied, states, common=common, block=block)
        mixer.calibrate(others, recall_target)
        layer.mixer = mixer
    return found.eval()


def _sums(units: F32, group: int) -> F32:
    """(m, n) activations -> (m, n / group)."""
    return units if group == 1 else units.reshape(len(units), -1, group).sum(axis=2)
