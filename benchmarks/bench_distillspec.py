"""Drafts for a target, distilled from several texts by several divergences: the recipe table.

    glosses_lm.py, soardb.pipelines.distillspec, speculate -> [bench_distillspec.py] -> results/

A target and, for each seed, a draft are trained on the same glosses. Every arm goes on from that
draft for equally many steps: cross entropy alone (the control), or a divergence from the target on
texts of the data, of the draft, of the target, or of both by turns; data are all glosses, or few of
them. Measured on test prompts, at temperature 1 and greedily: how often a drafted token is kept,
tokens a pass of the target, and what that is worth in time.

    python -m benchmarks.bench_distillspec
    python -m benchmarks.bench_distillspec --tiny

Arms that are done are kept in a journal beside the data sets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import glosses_lm, provenance
from benchmarks.decoding import LAWS, decoded
from benchmarks.environment import cache_folder
from benchmarks.glosses_lm import Texts, mean_loss, prompts_of
from benchmarks.journal import Journal
from benchmarks.reports import grid, header, written
from soardb.errors import SoarError
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel
from soardb.models.training import TrainConfig
from soardb.pipelines.distillspec import DistillConfig, agreement, cost_of, run
from soardb.pipelines.speculate import (
    Lenience,
    ModelDrafter,
    SpeculateConfig,
    decode,
)

__all__ = ["ARMS", "Setup", "main", "summary", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
GAMMAS = (3, 5, 7)


TARGET = DecoderConfig(1024, 192, 5, 6, context=96)
DRAFT = DecoderConfig(1024, 48, 1, 3, context=96)
TRAIN_TARGET = TrainConfig(2500, 32, 64, 2e-3)
TRAIN_DRAFT = TrainConfig(1500, 32, 64, 3e-3)


@dataclass(frozen=True)
class Setup:
    """What one run measures."""

    name: str = "distillspec"
    vocabulary: int = 1024
    target: DecoderConfig = TARGET
    draft: DecoderConfig = DRAFT
    train_target: TrainConfig = TRAIN_TARGET
    train_draft: TrainConfig = TRAIN_DRAFT
    few: int = 77_000  # tokens of the small data, about 200,000 characters
    fewer: int = 8_000
    steps: int = 200
    rate: float = 1e-3
    prompt: int = 8
    length: int = 24
    prompts: int = 512
    decoded: int = 60  # prompts that are really decoded


TINY = Setup(
    "distillspec-tiny", 300, DecoderConfig(300, 32, 2, 2, context=40),
    DecoderConfig(300, 16, 1, 2, context=40), TrainConfig(60, 8, 32, 1e-2),
    TrainConfig(20, 8, 32, 1e-2), 600, 100, 6, 1e-2, 4, 12, 24, 3,
)  # fmt: skip

SOURCES: dict[str, dict[str, float]] = {
    "data": {"fixed": 1.0, "student": 0.0},
    "few data": {"fixed": 1.0, "student": 0.0},
    "fewer data": {"fixed": 1.0, "student": 0.0},
    "draft": {"fixed": 0.0, "student": 1.0},
    "both": {"fixed": 0.0, "student": 0.5},
    "target": {"fixed": 0.0, "student": 0.0},
    "target, greedy": {"fixed": 0.0, "student": 0.0, "temperature": 0.0},
}
ALL = ("fkl", "jsd", "rkl", "tvd")
ARMS = [
    ("ce", "data"),
    ("ce", "few data"),
    *((kind, source) for kind in ALL for source in ("data", "few data", "draft", "both", "target")),
    *((kind, source) for kind in ("fkl", "jsd") for source in ("fewer data", "target, greedy")),
]


# --- measuring ----------------------------------------------------------------------------------


def measured(texts: Texts, target: Decoder, draft: Decoder, setup: Setup) -> dict[str, Any]:
    """Agreement by law, and cross entropy on test glosses."""
    prompts = prompts_of(texts.test, setup.prompts, setup.prompt, 7)
    row: dict[str, Any] = {"loss": mean_loss(draft, texts.test, setup.prompt + setup.length)}
    for name, law in LAWS.items():
        found = agreement(
            target, draft, prompts, setup.length, GAMMAS, law, texts.tokens.end, seed=11
        )
        row[name] = {"alpha": found.alpha, "tau": {str(g): t for g, t in found.tau.items()}}
    return row


def journey(texts: Texts, setup: Setup, seeds: int, journal: Journal) -> tuple[Decoder, Decoder]:
    """Train what is not in the journal; the target and the first seed's draft."""
    target = glosses_lm.trained(texts, setup.target, setup.train_target, _say)
    first = None
    for seed in range(seeds):
        draft = glosses_lm.trained(texts, setup.draft, replace(setup.train_draft, seed=seed), _say)
        first = first or draft
        if not journal.has(seed=seed, divergence="", source="start"):
            journal.add({"seed": seed, "divergence": "", "source": "start",
                         **measured(texts, target, draft, setup)})  # fmt: skip
        for divergence, source in ARMS:
            if journal.has(seed=seed, divergence=divergence, source=source):
                continue
            began = time.process_time()
            found = _distilled(texts, target, draft, setup, divergence, source, seed)
            row = {"seed": seed, "divergence": divergence, "source": source,
                   "cpu_s": time.process_time() - began,
                   **measured(texts, target, found, setup)}  # fmt: skip
            journal.add(row)
            print(
                f"seed {seed}  {divergence:<4} {source:<9} alpha {row['T = 1']['alpha']:.4f}  "
                f"greedy {row['greedy']['alpha']:.4f}  loss {row['loss']:.4f}  "
                f"{row['cpu_s']:.0f} s",
                flush=True,
            )
    assert first is not None
    return target, first


def _distilled(
    texts: Texts,
    target: Decoder,
    draft: Decoder,
    setup: Setup,
    divergence: str,
    source: str,
    seed: int,
) -> Decoder:
    config = DistillConfig(
        divergence,
        prompt=setup.prompt,
        length=setup.length,
        train=TrainConfig(setup.steps, rate=setup.rate, warm=min(20, setup.steps), seed=seed),
        **SOURCES[source],
    )
    counts = {"few data": setup.few, "fewer data": setup.fewer}
    data = texts.train[: counts[source]] if source in counts else None
    return run(target, draft, texts.train, config, data=data, end=texts.tokens.end).draft


def lossy(
    texts: Texts, target: Decoder, drafts: Mapping[str, Decoder], setup: Setup
) -> list[dict[str, Any]]:
    """Lenient decoding: tau, and how likely the target finds the text that comes of it."""
    prompts = prompts_of(texts.test, setup.decoded, setup.prompt, 17).tolist()
    model, end, rows = DecoderModel(target), texts.tokens.end, []
    for name, draft in drafts.items():
        drafter = ModelDrafter(DecoderModel(draft))
        for kind, eps in (
            ("linear", 1.0), ("linear", 0.3), ("linear", 0.01), ("square", 0.3), ("square", 0.03),
            ("power", 0.7), ("power", 0.3), ("power", 0.03),
        ):  # fmt: skip
            tokens = passes = 0
            loss = 0.0
            for seed, prompt in enumerate(prompts):
                config = SpeculateConfig(
                    5, setup.length, Sampling(1.0), Lenience(kind, eps), seed  # type: ignore[arg-type]
                )  # fmt: skip
                found = decode(model, drafter, prompt, config, end)
                tokens, passes = tokens + len(found.tokens), passes + len(found.blocks)
                row = torch.tensor([[*prompt, *found.tokens]])
                with torch.inference_mode():
                    logs = target.logits(target(row[:, :-1])).log_softmax(-1)
                said = logs[0, len(prompt) - 1 :].gather(1, row[0, len(prompt) :, None])
                loss -= float(said.sum())
            rows.append({"draft": name, "lenience": kind, "eps": eps, "tau": tokens / passes,
                         "loss": loss / tokens})  # fmt: skip
    return rows


def garden(
    texts: Texts, target: Decoder, setup: Setup, kind: str, source: str
) -> list[dict[str, Any]]:
    """The model garden in two stages: a smaller target by distillation, then a draft for that.

    kind, source  by which both are distilled
    Quality is the cross entropy on test glosses; time is that of one token in passes of the large
    target, by measured costs and tau at gamma 5.
    """
    wide = max(2 * setup.draft.heads, setup.target.width // 2 // (2 * 3) * 6)
    middle_config = replace(
        setup.target, width=wide - wide % (2 * setup.draft.heads), layers=2, heads=setup.draft.heads
    )
    told = replace(setup.train_draft, seed=100)
    raw = glosses_lm.trained(texts, middle_config, told, _say)
    small = glosses_lm.trained(texts, setup.draft, replace(setup.train_draft, seed=0), _say)

    def distilled(teacher: Decoder, student: Decoder, steps: int) -> Decoder:
        return _distilled(texts, teacher, student, replace(setup, steps=steps), kind, source, 0)

    middle = distilled(target, raw, 2 * setup.steps)
    pairs = {
        "large alone": (target, None),
        "large, draft": (target, small),
        "large, draft distilled to it": (target, distilled(target, small, setup.steps)),
        "smaller": (raw, None),
        "smaller, distilled": (middle, None),
        "smaller, distilled, draft": (middle, small),
        "smaller, distilled, draft distilled to it": (
            middle,
            distilled(middle, small, setup.steps),
        ),
    }
    prompts = prompts_of(texts.test, setup.prompts, setup.prompt, 19)
    rows = []
    for name, (model, draft) in pairs.items():
        first = prompts[0].tolist()
        alone = cost_of(DecoderModel(target), DecoderModel(model), first, 5)
        row = {"what": name, "loss": mean_loss(model, texts.test, setup.prompt + setup.length),
               "time": alone.draft_s / _token_s(target, first)}  # fmt: skip
        if draft is not None:
            cost = cost_of(DecoderModel(model), DecoderModel(draft), first, 5)
            tau = agreement(model, draft, prompts, setup.length, (5,), end=texts.tokens.end).tau[5]
            row |= {"tau": tau, "c": cost.c}
            row["time"] = (5 * cost.draft_s + cost.target_s) / tau / _token_s(target, first)
        rows.append(row)
    return rows


def _token_s(model: Decoder, prompt: list[int]) -> float:
    """Seconds of a pass over one token."""
    return cost_of(DecoderModel(model), DecoderModel(model), prompt, 1).draft_s


# --- the report ---------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row an arm: means over seeds, and the gain over the control of equal steps, by seed."""
    cells: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["divergence"], row["source"]), {})[row["seed"]] = row
    control = cells["ce", "data"]
    found = []
    for (divergence, source), by_seed in cells.items():
        one: dict[str, Any] = {"divergence": divergence, "source": source, "seeds": len(by_seed)}
        one["loss"] = float(np.mean([row["loss"] for row in by_seed.values()]))
        for law in LAWS:
            alphas = [row[law]["alpha"] for row in by_seed.values()]
            gains = [
                row[law]["alpha"] - control[seed][law]["alpha"] for seed, row in by_seed.items()
            ]
            taus = {g: float(np.mean([row[law]["tau"][str(g)] for row in by_seed.values()]))
                    for g in GAMMAS}  # fmt: skip
            one[law] = {
                "alpha": float(np.mean(alphas)),
                "gain": float(np.mean(gains)),
                "gain_sd": float(np.std(gains, ddof=1)) if len(gains) > 1 else None,
                "tau": {str(g): tau for g, tau in taus.items()},
            }
        found.append(one)
    return found


def best_of(means: Sequence[Mapping[str, Any]], law: str) -> tuple[str, str]:
    """Divergence and texts of the arm whose tokens are kept most often under a law."""
    arms = [row for row in means if row["divergence"] not in ("", "ce")]
    best = max(arms, key=lambda row: row[law]["alpha"])
    return best["divergence"], best["source"]


def table(report: Mapping[str, Any]) -> str:
    """Markdown: the recipe at both laws, real decoding, lossy decoding, the garden."""
    lines = [
        f"Mean of {report['seeds']} seeds, {report['setup']['steps']} steps each from the same "
        "draft; tau at gamma 5; gain: of alpha over the control (ce on data), with its sd over "
        "seeds.",
        "",
        "| divergence | texts | alpha, T = 1 | gain | tau | alpha, greedy | gain | tau | loss |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["summary"]:
        cells = [row["divergence"] or "before", row["source"]]
        for law in LAWS:
            mine = row[law]
            sd = "" if mine["gain_sd"] is None else f" ± {mine['gain_sd']:.4f}"
            cells += [f"{mine['alpha']:.4f}", f"{mine['gain']:+.4f}{sd}", f"{mine['tau']['5']:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{row['loss']:.4f}"]) + " |")
    for name in ("decoded", "lossy", "garden"):
        lines += grid(name, report[name])
        if name == "decoded":
            told = [f"for {law}: {kind} on {source}"
                    for law, (kind, source) in report["distilled"].items()]  # fmt: skip
            lines += ["", f"Distilled {'; '.join(told)}; of seed 0."]
    return "\n".join([*lines, ""])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Gains in alpha over the control by texts and divergence, at both laws."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(len(LAWS), (12, 4.2))
    rows = [r for r in report["summary"] if r["divergence"] not in ("", "ce")]
    kinds = list(dict.fromkeys(row["divergence"] for row in rows))
    sources = list(dict.fromkeys(row["source"] for row in rows))
    for panel, law in zip(panels, LAWS, strict=True):
        for number, kind in enumerate(kinds):
            mine = {row["source"]: row[law] for row in rows if row["divergence"] == kind}
            told = [s for s in sources if s in mine]
            x = np.array([sources.index(s) for s in told]) + (number - 1.5) * 0.2
            errors = [mine[s]["gain_sd"] or 0.0 for s in told]
            gains = [100 * mine[s]["gain"] for s in told]
            panel.bar(x, gains, 0.18, yerr=[100 * e for e in errors], label=kind, capsize=2)
        panel.set_xticks(range(len(sources)), [s.replace(" ", "\n") for s in sources])
        panel.set(ylabel="points of alpha over the control", title=law)
        panel.grid(visible=True, axis="y", color="0.92")
        panel.set_axisbelow(b=True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 250 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_distillspec", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="made-up texts, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        texts = glosses_lm.made_up(setup.vocabulary) if given.tiny else glosses_lm.load()
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        target, start = journey(texts, setup, given.seeds, journal)
        rows = [row for row in journal.rows if row["seed"] < given.seeds]
        means = summary(rows)
        best = {law: best_of(means, law) for law in LAWS}
        drafts = {
            "before": start,
            "control": _distilled(texts, target, start, setup, "ce", "data", 0),
            **{
                f"distilled for {law}": _distilled(texts, target, start, setup, *arm, 0)
                for law, arm in best.items()
            },
        }
        sampled = {name: drafts[name] for name in ("before", "distilled for T = 1")}
        report = {
            **header("distillspec", commit, setup, ("torch", "numpy")),
            "seeds": given.seeds,
            "target_loss": mean_loss(target, texts.test, setup.prompt + setup.length),
            "summary": means,
            "distilled": best,
            "decoded": decoded(
                target, drafts, texts.train[: setup.few],
                prompts_of(texts.test, setup.decoded, setup.prompt, 13).tolist(), setup.length,
                GAMMAS, texts.tokens.end,
            ),
            "lossy": lossy(texts, target, sampled, setup),
            "garden": garden(texts, target, setup, *best["T = 1"]),
            "rows": rows,
        }  # fmt: skip
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stem = given.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
