"""The feed-forward part by HiRE: a cheap copy says which units may be on, those alone are computed.

    copies.py, soardb.topk, models/decoder.py -> [mixer.py] -> decoding

For a Mixer that was trained with top-k ReLU: of `units` few groups stay on, so few rows of `up` and
of `out` are needed. A group counts by the sum of its activations, as in training.

* common path: groups that are on most often are always computed, and the copy holds the others.
* union: tokens that are read together, as speculative decoding has them, are computed on all groups
  that any of them asks for, and a token may find more than it asked for.

What is on among the groups that were computed is decided exactly, and computed exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from soardb.arrays import as_int, as_vectors
from soardb.errors import InvalidArgument, NotTrained
from soardb.kernels.layout import F32, I64
from soardb.models.decoder import Decoder, Layer, Mixer
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
    block      tokens that follow one another and share what is read

    runs, up_read, down_read count runs so far, and the groups of either matrix that they read.
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
        if copied.trained:
            raise InvalidArgument(
                "expected a copy that is not trained, as that learns the likeliest tokens of a head"
            )
        self.group, self.on = mixer.group, mixer.active // mixer.group
        up: F32 = mixer.up.weight.detach().numpy()  # (units, width)
        down: F32 = mixer.out.weight.detach().numpy().T  # (units, width)
        self.groups, self.width = len(up) // self.group, up.shape[1]
        self._up = np.ascontiguousarray(up)
        self._down = np.ascontiguousarray(down)
        given = None if states is None else as_vectors(states, self.width, "dot", "states")
        self.common = self._often_on(given, common)
        rest = np.ones(self.groups, bool)
        rest[self.common] = False
        self._rest: I64 = np.flatnonzero(rest)
        self.estimator = (
            copied.make(self._up[np.repeat(rest, self.group)], given) if len(self._rest) else None
        )
        self.predicted: int | None = None
        if predicted is not None:
            self.predicted = as_int(
                predicted, "predicted", max(self.on, len(self.common)), self.groups,
                "it must hold the groups that stay on, and the common ones",
            )  # fmt: skip
        self.block = as_int(block, "block", 1, 1_000_000)
        self.runs = self.up_read = self.down_read = 0

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
        units = np.maximum(asked @ self._up.T, 0)
        return topk(_sums(units, self.group), self.on)

    # --- predicted ------------------------------------------------------------------------------

    def _scores(self, states: F32) -> F32:
        """(m, groups) predicted sums, up to a factor of each state; the common path at infinity."""
        out = np.full((len(states), self.groups), np.inf, np.float32)
        if self.estimator is not None:
            found = self.estimator.scores(states).reshape(len(states), -1, self.group)
            sums = np.maximum(found, 0).sum(axis=2)
            # Groups that seem to be off are not all alike: some nearly are not.
            out[:, self._rest] = np.where(sums > 0, sums, found.max(axis=2))
        return out

    def predict(self, states: F32) -> I64:
        """(m, k') groups to compute for each of (m, width) states, the common ones first."""
        if self.predicted is None:
            raise NotTrained(
                "expected a number of predicted groups; pass predicted= or calibrate()"
            )
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
        """(t, width) float32 -> the same: one run, what any token asks for read once."""
        t = len(states)
        union = np.unique(self.predict(states))
        units = np.empty((t, len(union) * self.group), np.float32)
        for columns, rows in self._tiles(self._up, union):
            units[:, columns] = states @ rows.T
        np.maximum(units, 0, out=units)
        _, on = topk(_sums(units, self.group), min(self.on, len(union)))
        mask = np.zeros((t, len(union), 1), np.float32)
        np.put_along_axis(mask[..., 0], on, 1.0, axis=1)
        needed = np.unique(on)
        kept = (units.reshape(t, -1, self.group)[:, needed] * mask[:, needed]).reshape(t, -1)
        out = np.zeros((t, self.width), np.float32)
        for columns, rows in self._tiles(self._down, union[needed]):
            out += kept[:, columns] @ rows
        self.runs += 1
        self.up_read += len(union)
        self.down_read += len(needed)
        return out

    def _tiles(self, matrix: F32, groups: I64) -> Iterator[tuple[slice, F32]]:
        """Rows of (units, width) that are in rising groups, each with its columns among those.

        Groups that are neighbours come as they lie in memory; single units are gathered, as a
        product each would cost more than the copy.
        """
        if self.group == 1:
            yield slice(len(groups)), matrix[groups]
            return
        ends = np.flatnonzero(np.diff(groups, append=groups[-1:] + 2) != 1) + 1
        first = 0
        for end in ends.tolist():
            run = groups[first:end]
            rows = matrix[run[0] * self.group : (run[-1] + 1) * self.group]
            yield slice(first * self.group, end * self.group), rows
            first = end

    def traffic(self) -> Traffic:
        """Bytes of a run: the whole mixer, or the copy and what was read, by the mean so far.

        Before any run: k' groups of `up`, and of `out` those that are on.
        """
        up = self.groups if self.predicted is None else self.predicted
        read = (self.up_read + self.down_read) / self.runs if self.runs else up + self.on
        group = self.group * self.width * self._up.itemsize
        copied = 0 if self.estimator is None else self.estimator.bytes_read()
        return Traffic(2 * self.groups * group, copied, round(read * group))


def inputs_of(decoder: Decoder, tokens: Tensor) -> list[F32]:
    """What (b, t) tokens bring before each layer's mixer: (b * t, width) float32 a layer."""
    found: list[F32] = []

    def keep(module: Any, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].detach().flatten(0, 1).numpy().copy())

    hooks = [mixer.register_forward_pre_hook(keep) for mixer in _mixers(decoder)]
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
    parts = zip(found.layers, _mixers(decoder), making, judging, strict=True)
    for layer, mixer, states, others in parts:
        mine = HireMixer(mixer, copied, states, common=common, block=block)
        mine.calibrate(others, recall_target)
        layer.mixer = mine
    return found.eval()


def _mixers(decoder: Decoder) -> list[Mixer]:
    found = []
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        if not isinstance(layer.mixer, Mixer):
            raise InvalidArgument(
                f"expected the mixers of a trained decoder, got {type(layer.mixer).__name__}"
            )
        found.append(layer.mixer)
    return found


def _sums(units: F32, group: int) -> F32:
    """(m, n) activations -> (m, n / group)."""
    return units if group == 1 else units.reshape(len(units), -1, group).sum(axis=2)
