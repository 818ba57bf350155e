"""Training: windows of a long row of tokens, a loss, AdamW, and a rate that rises and falls.

    decoder.py -> [training.py] -> pipelines

One loop for every loss: whoever distils or prunes brings a function of the step. Where a checkpoint
is told, the loop takes up the state that it finds there, and goes on to the same end, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.models.checkpoint import Checkpoint
from soardb.models.decoder import Decoder
from soardb.models.tokens import Tokens
from soardb.options import as_number

__all__ = [
    "TrainConfig",
    "Windows",
    "adam_of",
    "cross_entropy",
    "descend",
    "expect_tokens",
    "held_out_loss",
    "row_of",
]

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast.

    steps, batch, window  of optimisation; sequences a step; tokens of each
    rate          of AdamW at its highest; it rises for `warm` steps, and falls as a cosine to a
                  tenth of that
    weight_decay  of matrices; clip: largest norm of the gradient
    seed          of the windows
    """

    steps: int = 1000
    batch: int = 32
    window: int = 64
    rate: float = 3e-3
    warm: int = 50
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.steps, "steps", 1, 100_000_000)
        as_int(self.batch, "batch", 1, 1_000_000)
        as_int(self.window, "window", 2, 1_000_000)
        as_int(self.warm, "warm", 0, 100_000_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        for name in ("rate", "clip"):
            if as_number(getattr(self, name), name) <= 0:
                raise InvalidArgument(f"expected {name} above 0, got {getattr(self, name)}")
        if as_number(self.weight_decay, "weight_decay") < 0:
            raise InvalidArgument(f"expected weight_decay of at least 0, got {self.weight_decay}")


def row_of(texts: Iterable[str], tokens: Tokens) -> I64:
    """All texts one after the other as (n,) tokens, each with its end."""
    out: list[int] = []
    for text in texts:
        out += tokens.encode(text)
        if tokens.end is not None:
            out.append(tokens.end)
    return np.array(out, np.int64)


class Windows:
    """Random windows of a row of tokens, the same ones for the same seed."""

    def __init__(self, row: I64, window: int, seed: int = 0) -> None:
        if len(row) < window:
            raise InvalidArgument(f"expected at least {window} tokens, got {len(row)}")
        self._row = torch.from_numpy(np.ascontiguousarray(row, np.int64))
        self._window = window
        self.random = np.random.default_rng(seed)

    def __call__(self, batch: int) -> Tensor:
        """(batch, window) tokens."""
        starts = self.random.integers(0, len(self._row) - self._window + 1, batch)
        at = torch.from_numpy(starts)[:, None] + torch.arange(self._window)
        return self._row[at]


def expect_tokens(tokens: I64 | Tensor, vocabulary: int, what: str) -> None:
    """InvalidArgument unless all are in 0..vocabulary-1; what: their name in the error."""
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise InvalidArgument(
            f"expected tokens in 0..{vocabulary - 1} in {what}, got {int(tokens.min())}.."
            f"{int(tokens.max())}"
        )


def cross_entropy(decoder: Decoder, tokens: Tensor) -> Tensor:
    """Mean over (b, t) tokens, each but the first, of -log p(token | those before), in nats."""
    logits = decoder.logits(decoder(tokens[:, :-1]))
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def held_out_loss(decoder: Decoder, windows: Tensor, batch: int = 64) -> float:
    """Mean cross entropy of (n, t) windows, in nats a token."""
    with torch.inference_mode():
        parts = [cross_entropy(decoder, part) * len(part) for part in torch.split(windows, batch)]
    return float(torch.stack(parts).sum() / len(windows))


def descend(
    parts: Sequence[nn.Module],
    loss_of: Callable[[int], Tensor],
    config: TrainConfig,
    progress: Progress = lambda stage, share: None,
    stage: str = "training",
    *,
    adam: torch.optim.AdamW | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[float]:
    """Make loss_of(step) small over the parameters of the parts that want a gradient.

    adam        that takes the steps, where the caller changes its state too; adam_of() unless told
    checkpoint  where the state is kept, and from which it goes on; none unless told. A run that
                was stopped ends as one that was not, bit by bit

    Returns the loss of every step. Errors: InvalidArgument, also where a loss is not finite:
    nothing that follows it would mean anything; CorruptStorage of a checkpoint.
    """
    config.check()
    weights = [w for part in parts for w in part.parameters() if w.requires_grad]
    if adam is None:
        adam = adam_of(parts, config)
    rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: _share(step, config))
    losses = [] if checkpoint is None else checkpoint.load(parts, adam, rates)
    for step in range(len(losses), config.steps):
        loss = loss_of(step)
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # so in PyTorch
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        adam.step()
        rates.step()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise InvalidArgument(
                f"expected a finite loss, got {losses[-1]} at step {step}; lower the rate"
            )
        if step % 20 == 19 or step + 1 == config.steps:
            progress(stage, (step + 1) / config.steps)
        if checkpoint is not None and checkpoint.is_due(step + 1, config.steps):
            checkpoint.save(parts, adam, rates, losses)
    return losses


def adam_of(parts: Sequence[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that want a gradient; only matrices decay."""
    weights = [w for part in parts for w in part.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.95))


def _share(step: int, config: TrainConfig) -> float:
    """Of the highest rate."""
    if step < config.warm:
        return (step + 1) / config.warm
    done = (step - config.warm) / max(1, config.steps - config.warm)
    return 0.1 + 0.9 * (1 + float(np.cos(np.pi * done))) / 2
