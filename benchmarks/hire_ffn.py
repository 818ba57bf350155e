"""Feed-forward parts of which few units stay on: what training so costs, and HiRE upon them.

    glosses_lm.py, soardb.pipelines.hire_lm -> [hire_ffn.py] -> bench_hire_lm.py

Decoders of equal size and steps are trained on the same glosses: every ReLU unit on, or a share of
them, one by one or in groups. Upon those that were trained to a tenth, HiRE then decides from a
cheap copy which units are looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks import glosses_lm
from benchmarks.glosses_lm import Texts
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder, Mixer
from soardb.models.training import TrainConfig, Windows, held_out_loss
from soardb.pipelines.hire_lm import Copy, HireMixer, hired, inputs_of

__all__ = ["TINY_FFN", "FfnSetup", "arms", "mixers", "train", "trained", "wide"]

Say = Callable[[str, float], None]
Row = dict[str, Any]

RECALL = 0.99
DECODER = DecoderConfig(1024, 128, 2, 4, hidden=1024, context=96, mixer="relu")
TRAIN = TrainConfig(600, 16, 64, 3e-3)


@dataclass(frozen=True)
class FfnSetup:
    """What is trained and measured.

    active  units that stay on, multiples of `group`
    upon    which of them HiRE is tried upon
    ranks   of low-rank copies
    calibrating, window, windows  sequences for k', and for what is tested; tokens of each
    """

    vocabulary: int = 1024
    decoder: DecoderConfig = DECODER
    train: TrainConfig = TRAIN
    seeds: int = 2
    active: tuple[int, ...] = (48, 104, 256)
    group: int = 8
    upon: int = 104
    ranks: tuple[int, ...] = (16, 32, 64)
    calibrating: int = 60
    window: int = 48
    windows: int = 60


TINY_FFN = FfnSetup(
    300, DecoderConfig(300, 32, 2, 2, hidden=64, context=48, mixer="relu"),
    TrainConfig(20, 8, 32, 1e-2, 5), 1, (8, 32), 4, 8, (8,), 40, 24, 4,
)  # fmt: skip


def arms(setup: FfnSetup) -> list[DecoderConfig]:
    """Every unit on; then each share, one by one and in groups."""
    return [setup.decoder] + [
        replace(setup.decoder, active=active, group=group)
        for group in (1, setup.group)
        for active in setup.active
    ]


def trained(texts: Texts, setup: FfnSetup, config: DecoderConfig, seed: int, say: Say) -> Decoder:
    """One arm, from the cache or anew."""
    return glosses_lm.trained(texts, config, replace(setup.train, seed=seed), say)


def train(texts: Texts, setup: FfnSetup, say: Say) -> list[Row]:
    """Loss and perplexity on test glosses, means over seeds."""
    rows = []
    for config in arms(setup):
        losses = [
            glosses_lm.mean_loss(trained(texts, setup, config, seed, say), texts.test, setup.window)
            for seed in range(setup.seeds)
        ]
        perplexities = np.exp(losses)
        rows.append(
            {
                "active": config.active or config.units,
                "group": config.group,
                "share": (config.active or config.units) / config.units,
                "loss": float(np.mean(losses)),
                "perplexity": float(perplexities.mean()),
                "sd": float(perplexities.std(ddof=1)) if len(losses) > 1 else None,
                "seeds": setup.seeds,
            }
        )
    return rows


# --- HiRE upon what was trained -----------------------------------------------------------------


def mixers(texts: Texts, setup: FfnSetup, say: Say) -> list[Row]:
    """Single units and groups; each copy, with and without a common path, runs of 1 and of 5."""
    rows = []
    for group in (1, setup.group):
        config = replace(setup.decoder, active=setup.upon, group=group)
        model = trained(texts, setup, config, 0, say)
        fit = Windows(texts.train, setup.window, 99)(setup.calibrating)
        test = Windows(texts.test, setup.window, 98)(setup.windows)
        copies = [Copy(bits=8), Copy(bits=4), Copy(bits=4, turned=True)]
        for copied in copies + [Copy(rank=r) for r in setup.ranks]:
            for common in (0.0, 0.05):
                blocks = (1, 5) if copied == Copy(bits=4) else (1,)
                for block in blocks:
                    found = hired(
                        model, fit, copied, recall_target=RECALL, common=common, block=block
                    )
                    rows.append(
                        {"group": group, "copy": copied.name, "common": common, "block": block}
                        | _compared(model, found, test, setup)
                    )
    return rows


def _compared(model: Decoder, found: Decoder, test: torch.Tensor, setup: FfnSetup) -> Row:
    """Of test sequences: k' and units computed, what is found of what is on, loss and agreement."""
    layers: list[HireMixer] = [layer.mixer for layer in found.layers]  # type: ignore[misc]
    hits = [
        np.mean([np.isin(o[s > 0], f).mean() for s, o, f in
                 zip(*mine.support(x), mine.predict(x), strict=True) if (s > 0).any()])
        for mine, x in zip(layers, inputs_of(model, test), strict=True)
    ]  # fmt: skip
    with torch.inference_mode():
        logits = [m.logits(m(test)) for m in (model, found)]
    agree = float((logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean())
    told = [mine.traffic() for mine in layers]
    return {
        "on": layers[0].on,
        "predicted": [mine.predicted for mine in layers],
        "computed_share": float(np.mean([m.up_read / m.runs / m.groups for m in layers])),
        "recall": float(np.mean(hits)),
        "loss": held_out_loss(found, test) - held_out_loss(model, test),
        "same_first": agree,
        "kilobytes": sum(t.estimate + t.rescore for t in told) / 1e3,
        "dense_kilobytes": sum(t.dense for t in told) / 1e3,
        "predicted_speedup": sum(t.dense for t in told) / sum(t.estimate + t.rescore for t in told),
    }


# --- time alone ---------------------------------------------------------------------------------


def wide(shape: tuple[int, int, int], rounds: int) -> list[Row]:
    """Microseconds of a wide part of random weights, a twentieth of whose units stays on.

    k' is twice the groups that are on. Random weights say nothing of recall, so none is told.
    """
    width, units, group = shape
    on = max(1, units // group // 20)
    every = DecoderConfig(2, width, 1, 1, hidden=units, mixer="relu")
    few = Mixer(replace(every, active=on * group, group=group)).eval()
    dense = Mixer(every).eval()
    dense.load_state_dict(few.state_dict())
    copies = (Copy(bits=8), Copy(bits=4), Copy(rank=width // 8, weighted=False))
    made = {c.name: HireMixer(few, c, predicted=2 * on, block=5) for c in copies}
    ways: dict[str, Mixer | HireMixer] = {
        "dense, every unit": dense, "dense, top-k": few, **made,
    }  # fmt: skip
    rows: list[Row] = [{"way": name} for name in ways]
    rng = np.random.default_rng(0)
    for count, of in ((1, ""), (5, "_of_5")):
        for mine in made.values():
            mine.runs = mine.up_read = mine.down_read = 0
        times = np.empty((rounds + 1, len(ways)))
        for turn in range(rounds + 1):
            x = torch.from_numpy(rng.standard_normal((count, width), np.float32))
            for place, way in enumerate(ways.values()):
                began = time.perf_counter()
                with torch.inference_mode():
                    way(x)
                times[turn, place] = time.perf_counter() - began
        medians = np.median(times[1:], axis=0) * 1e6
        for row, us in zip(rows, medians, strict=True):
            told = made[row["way"]].traffic() if row["way"] in made else None
            row |= {
                f"us{of}": float(us),
                f"speedup{of}": float(medians[0] / us),
                f"predicted_speedup{of}": 1.0 if told is None else told.speedup,
            }
    return rows
