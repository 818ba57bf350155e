"""Feed-forward parts of which few units stay on: what training so costs, and HiRE upon them.

    glosses_lm.py, soardb.pipelines.hire_lm -> [hire_ffn.py] -> bench_hire_lm.py

Decoders of equal size and steps are trained on the same glosses: every ReLU unit on, or a share of
them, one by one or in groups. Upon those that were trained to a tenth, HiRE then decides from a
cheap copy which units are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import glosses_lm
from benchmarks.glosses_lm import Texts
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.training import TrainConfig

__all__ = ["FfnSetup", "TINY_FFN", "arms", "trained"]


@dataclass(frozen=True)
class FfnSetup:
    """What is trained and measured.

    active  units that stay on, multiples of `group`
    upon    which of them HiRE is tried upon
    """

    vocabulary: int = 1024
    decoder: DecoderConfig = DecoderConfig(
        1024, 128, 2, 4, hidden=1024, context=96, mixer="relu"
    )
    train: TrainConfig = TrainConfig(600, 16, 64, 3e-3)
    seeds: int = 2
    active: tuple[int, ...] = (48, 104, 256)
    group: int = 8
    upon: int = 104
    calibrating: int = 2000
    window: int = 48
    windows: int = 60


TINY_FFN = FfnSetup(
    300, DecoderConfig(300, 32, 2, 2, hidden=64, context=48, mixer="relu"),
    TrainConfig(20, 8, 32, 1e-2, 5), 1, (8, 32), 4, 8, 300, 24, 4,
)  # fmt: skip


def arms(setup: FfnSetup) -> list[DecoderConfig]:
    """Every unit on; then each share, one by one and in groups."""
    return [setup.decoder] + [
        replace(setup.decoder, active=active, group=group)
        for group in (1, setup.group)
        for active in setup.active
    ]


def trained(
    texts: Texts, setup: FfnSetup, config: DecoderConfig, seed: int, say: Callable[[str, float], None]
) -> Decoder:
    """One arm, from the cache or anew."""
    return glosses_lm.trained(texts, config, replace(setup.train, seed=seed), say)
