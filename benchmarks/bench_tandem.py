"""Tandem beside the same small model alone and distilled: quality, and tokens a pass.

    glosses_lm.py, soardb.pipelines.tandem, speculate -> [bench_tandem.py] -> results/tandem.*

A primary and a secondary are trained on the same glosses. Every arm goes on from that secondary for
equally many steps: alone by cross entropy, alone by half of it and half the primary's laws, or in
tandem, with several maps of layers and block lengths in training. Measured on test glosses at
several block lengths: accuracy, cross entropy, how often both find the same token likeliest, total
variation. Then each drafts for the primary: tokens a pass, passes of both, time; with a router that
ends blocks too.

    python -m benchmarks.bench_tandem
    python -m benchmarks.bench_tandem --tiny
    python -m benchmarks.bench_tandem --arms "alone, distil;tandem, even"

Arms that are done are kept in a journal beside the data sets.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import glosses_lm, provenance
from benchmarks.decoding import LAWS
from benchmarks.environment import cache_folder
from benchmarks.glosses_lm import Texts, prompts_of
from benchmarks.journal import Journal
from benchmarks.reports import grid, header, written
from soardb.errors import SoarError
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.session import DecoderModel
from soardb.models.training import TrainConfig, Windows
from soardb.pipelines.distillspec import iid_tau
from soardb.pipelines.speculate import ModelDrafter, SpeculateConfig, decode
from soardb.pipelines.tandem import (
    PrimaryModel,
    Router,
    Tandem,
    TandemConfig,
    TandemDrafter,
    distil_alone,
    layer_map,
    quality,
    run,
    train_router,
)

__all__ = ["ARMS", "Setup", "main", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
PRIMARY = DecoderConfig(1024, 192, 5, 6, context=96)
SECONDARY = DecoderConfig(1024, 64, 2, 4, context=96)
TRAIN_PRIMARY = TrainConfig(2500, 32, 64, 2e-3)
TRAIN_SECONDARY = TrainConfig(1500, 32, 64, 3e-3)


@dataclass(frozen=True)
class Setup:
    """What one run measures. Steps of stage 1 and 2; both for every arm."""

    name: str = "tandem"
    vocabulary: int = 1024
    primary: DecoderConfig = PRIMARY
    secondary: DecoderConfig = SECONDARY
    train_primary: TrainConfig = TRAIN_PRIMARY
    train_secondary: TrainConfig = TRAIN_SECONDARY
    ce_steps: int = 1500
    distil_steps: int = 500
    rate: float = 3e-3
    batch: int = 32
    window: int = 64
    gammas: tuple[int, ...] = (1, 2, 3, 5, 8)
    drafted: tuple[int, ...] = (2, 3, 5, 7)
    router_steps: int = 300
    windows: int = 256
    prompts: int = 60
    prompt: int = 8
    length: int = 24


TINY = Setup(
    "tandem-tiny", 300, DecoderConfig(300, 32, 2, 2, context=40),
    DecoderConfig(300, 16, 2, 2, context=40), TrainConfig(60, 8, 32, 1e-2),
    TrainConfig(20, 8, 32, 1e-2), 8, 4, 1e-2, 8, 24, (1, 2), (2,), 5, 8, 3, 4, 8,
)  # fmt: skip

ARMS: dict[str, dict[str, Any]] = {
    "alone, ce": {"alone": 1.0},
    "alone, distil": {"alone": 0.5},
    "tandem, even": {"map": "even", "gammas": (2,)},
    "tandem, even, any gamma": {"map": "even", "gammas": (1, 2, 3, 5)},
    "tandem, middle": {"map": "middle", "gammas": (2,)},
    "tandem, last": {"map": "last", "gammas": (2,)},
}


# --- arms ---------------------------------------------------------------------------------------


def trained(
    arm: str, texts: Texts, primary: Decoder, secondary: Decoder, setup: Setup, seed: int
) -> Decoder | Tandem:
    """The secondary after the arm's steps: alone, or in a Tandem. From the cache, or anew."""
    told = ARMS[arm]
    first = TrainConfig(setup.ce_steps, setup.batch, setup.window, setup.rate, seed=seed)
    second = replace(first, steps=setup.distil_steps, rate=setup.rate / 3, seed=seed + 1000)
    small = copy.deepcopy(secondary).requires_grad_(requires_grad=True)
    if "alone" in told:
        distil_alone(primary, small, texts.train, first, 1.0, _say)
        distil_alone(primary, small, texts.train, second, told["alone"], _say)
        return small.eval()
    both = Tandem(
        primary, small, layer_map(told["map"], setup.primary.layers, setup.secondary.layers), seed
    )
    run(both, texts.train, TandemConfig(told["gammas"], first, second), _say)
    return both.eval()


def qualities(
    found: Decoder | Tandem, primary: Decoder, texts: Texts, setup: Setup
) -> dict[str, Any]:
    """By the block length of the test; of a secondary alone the same at all."""
    windows = Windows(texts.test, setup.window, 12345)(setup.windows)
    if isinstance(found, Decoder):
        one = asdict(quality(primary, lambda t: found.logits(found(t)), windows))
        return {str(gamma): one for gamma in setup.gammas}
    both = found
    return {
        str(gamma): asdict(
            quality(primary, lambda t, g=gamma: both.logits(both(t, g)), windows)  # type: ignore[misc]
        )
        for gamma in setup.gammas
    }


def drafting(
    found: Decoder | Tandem, router: Router | None, primary: Decoder, texts: Texts, setup: Setup
) -> list[dict[str, Any]]:
    """Speculative decoding with it, text after text: tau, passes of both, time."""
    prompts = prompts_of(texts.test, setup.prompts, setup.prompt, 13).tolist()
    rows = []
    for law_name, law in LAWS.items():
        for gamma in setup.drafted:
            target: Any
            drafter: Any
            if isinstance(found, Tandem):
                target = PrimaryModel(found)
                drafter = TandemDrafter(found, target, router)
            else:
                target, drafter = DecoderModel(primary), ModelDrafter(DecoderModel(found))
            tokens = blocks = kept = drafted = 0
            began = time.process_time()
            for seed, prompt in enumerate(prompts):
                config = SpeculateConfig(gamma, setup.length, law, seed=seed)
                done = decode(target, drafter, prompt, config, texts.tokens.end)
                tokens, blocks = tokens + len(done.tokens), blocks + len(done.blocks)
                kept += sum(block.kept for block in done.blocks)
                drafted += sum(block.drafted for block in done.blocks)
            spent = time.process_time() - began
            rows.append(
                {
                    "law": law_name,
                    "gamma": gamma,
                    "router": router is not None,
                    "tau": tokens / blocks,
                    "kept": kept / max(1, drafted),
                    "primary_passes": blocks / tokens,
                    "secondary_passes": drafter.passes / tokens,
                    "ms_a_token": 1000 * spent / tokens,
                    "iid_tau": iid_tau(kept / max(1, drafted), gamma),
                }
            )
    return rows


def journey(texts: Texts, setup: Setup, seeds: int, arms: Sequence[str], journal: Journal) -> None:
    """Train and measure whatever is not in the journal."""
    primary = glosses_lm.trained(texts, setup.primary, setup.train_primary, _say)
    for seed in range(seeds):
        told = replace(setup.train_secondary, seed=seed)
        secondary = glosses_lm.trained(texts, setup.secondary, told, _say)
        if not journal.has(seed=seed, arm="before"):
            row = {"seed": seed, "arm": "before"}
            journal.add({**row, "quality": qualities(secondary, primary, texts, setup),
                         "drafting": drafting(secondary, None, primary, texts, setup)})  # fmt: skip
        for arm in arms:
            if journal.has(seed=seed, arm=arm):
                continue
            began = time.process_time()
            found = trained(arm, texts, primary, secondary, setup, seed)
            rows = drafting(found, None, primary, texts, setup)
            if isinstance(found, Tandem):
                router = Router(found.secondary, seed=seed)
                config = TrainConfig(setup.router_steps, setup.batch, setup.window, 1e-3, seed=seed)
                train_router(found, router, texts.train, max(setup.drafted), config, _say)
                widest = replace(setup, drafted=(max(setup.drafted),))
                rows += drafting(found, router, primary, texts, widest)
            measured: dict[str, Any] = {
                "seed": seed,
                "arm": arm,
                "cpu_s": time.process_time() - began,
                "quality": qualities(found, primary, texts, setup),
                "drafting": rows,
            }
            journal.add(measured)
            at_two = measured["quality"]["2"]
            print(
                f"seed {seed}  {arm:<24} loss {at_two['loss']:.4f}  accuracy "
                f"{at_two['accuracy']:.4f}  TV {at_two['variation']:.4f}  "
                f"{measured['cpu_s']:.0f} s",
                flush=True,
            )


# --- the report ---------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Means over seeds: quality by arm and block length, drafting by arm, law, gamma, router."""
    qualities_by: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    drafts_by: dict[tuple[Any, ...], list[Mapping[str, float]]] = {}
    for row in rows:
        for gamma, one in row["quality"].items():
            qualities_by.setdefault((row["arm"], gamma), []).append(one)
        for one in row["drafting"]:
            key = (row["arm"], one["law"], one["gamma"], one["router"])
            drafts_by.setdefault(key, []).append(
                {k: v for k, v in one.items() if k not in ("law", "gamma", "router")}
            )
    return {
        "quality": [
            {"arm": arm, "gamma": int(gamma), **_mean(some)}
            for (arm, gamma), some in qualities_by.items()
        ],
        "drafting": [
            {"arm": arm, "law": law, "gamma": gamma, "router": router, **_mean(some)}
            for (arm, law, gamma, router), some in drafts_by.items()
        ],
    }


def _mean(some: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in some) / len(some) for name in some[0]}


def table(report: Mapping[str, Any]) -> str:
    """Markdown: quality by arm and block length, then drafting."""
    lines = [f"Means over {report['seeds']} seeds."]
    for name in ("quality", "drafting"):
        lines += grid(name, report["summary"][name], 4)
    return "\n".join([*lines, ""])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Loss and total variation over the block length of the test, by arm."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(2, (12, 4.2))
    rows = report["summary"]["quality"]
    for panel, value in zip(panels, ("loss", "variation"), strict=True):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            mine = [row for row in rows if row["arm"] == arm]
            style = "o-" if arm.startswith("tandem") else "--"
            panel.plot([r["gamma"] for r in mine], [r[value] for r in mine], style, ms=4, label=arm)
        panel.set(xlabel="block length", ylabel=value)
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 500 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_tandem", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="made-up texts, to see that it runs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arms", default=";".join(ARMS), help="with ; between")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    arms = given.arms.split(";")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"expected arms of {'; '.join(ARMS)}, got {'; '.join(unknown)}")
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        texts = glosses_lm.made_up(setup.vocabulary) if given.tiny else glosses_lm.load()
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        journey(texts, setup, given.seeds, arms, journal)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [
        row for row in journal.rows
        if row["seed"] < given.seeds and row["arm"] in ("before", *arms)
    ]  # fmt: skip
    report = {
        **header("tandem", commit, setup, ("torch",)),
        "seeds": given.seeds,
        "summary": summary(rows),
        "rows": rows,
    }
    stem = given.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
