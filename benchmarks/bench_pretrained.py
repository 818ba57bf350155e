"""A pretrained target and a small draft that is made for it: SmolLM2-135M, before and after.

    smollm2.py, glosses_lm.py, soardb.pipelines.distillspec -> [bench_pretrained.py] -> results/

A draft with the target's tokenizer is trained on glosses, and goes on from there for equally many
steps: by cross entropy (the control), towards the target on glosses, or towards it on texts of its
own. Measured with the target after beginnings of held-out glosses, at temperature 1 and greedily:
how often a drafted token is kept, tokens a pass, and seconds of real decoding beside the target
alone and beside drafts from stored text; predicted speed beside it.

    python -m benchmarks.bench_pretrained
    python -m benchmarks.bench_pretrained --tiny

What was trained is kept beside the data sets, and arms that are done in a journal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import glosses_lm, provenance, smollm2
from benchmarks.decoding import LAWS, decoded
from benchmarks.environment import cache_folder
from benchmarks.glosses_lm import Texts, mean_loss, prompts_of
from benchmarks.journal import Journal
from benchmarks.reports import grid, header, written
from soardb.errors import SoarError
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.llama import as_decoder
from soardb.models.training import TrainConfig
from soardb.pipelines.distillspec import DistillConfig, agreement, run

__all__ = ["ARMS", "Setup", "main", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
DRAFT = DecoderConfig(49_152, 128, 2, 4, context=256)
TRAIN_DRAFT = TrainConfig(800, 16, 40, 3e-3)


@dataclass(frozen=True)
class Setup:
    """What one run measures. The draft's vocabulary is the target's."""

    name: str = "pretrained"
    draft: DecoderConfig = DRAFT
    train_draft: TrainConfig = TRAIN_DRAFT
    steps: int = 200
    batch: int = 16
    rate: float = 1e-3
    prompt: int = 16
    length: int = 24
    prompts: int = 112
    gammas: tuple[int, ...] = (2, 3, 5)
    decoded: int = 8  # prompts that are really decoded, and the tokens and block lengths of that
    longest: int = 32
    blocks: tuple[int, ...] = (1, 2, 3)


TINY = Setup(
    "pretrained-tiny", DecoderConfig(300, 16, 1, 2, context=64), TrainConfig(10, 8, 24, 1e-2),
    20, 8, 1e-2, 4, 12, 16, (2, 3), 3, 12, (1, 2),
)  # fmt: skip

ARMS: dict[str, tuple[str, float]] = {  # divergence, and the share of batches from the data
    "cross entropy": ("ce", 1.0),
    "forward KL, glosses": ("fkl", 1.0),
    "forward KL, own texts": ("fkl", 0.0),
}


def distilled(
    arm: str, texts: Texts, target: Decoder, draft: Decoder, setup: Setup, seed: int
) -> Decoder:
    """The draft after an arm's steps, from the cache or anew."""
    kind, fixed = ARMS[arm]
    train = TrainConfig(setup.steps, setup.batch, rate=setup.rate, warm=min(20, setup.steps),
                        seed=seed)  # fmt: skip
    config = DistillConfig(kind, fixed=fixed, prompt=setup.prompt, length=setup.length, train=train)
    told = {
        "config": asdict(config),
        "from": asdict(setup.draft),
        "begun": asdict(setup.train_draft),
    }

    def make() -> Decoder:
        end = texts.tokens.end
        return run(target, draft, texts.train, config, end=end, progress=_say).draft

    return glosses_lm.kept(told, texts.train, draft.config, make)


def measured(texts: Texts, target: Decoder, draft: Decoder, setup: Setup) -> dict[str, Any]:
    """Agreement by law, and cross entropy on test glosses."""
    prompts = prompts_of(texts.test, setup.prompts, setup.prompt, 7)
    row: dict[str, Any] = {"loss": mean_loss(draft, texts.test, setup.prompt + setup.length)}
    for name, law in LAWS.items():
        found = agreement(
            target, draft, prompts, setup.length, setup.gammas, law, texts.tokens.end, seed=11
        )
        row[name] = {"alpha": found.alpha, "tau": {str(g): t for g, t in found.tau.items()}}
    return row


def journey(
    texts: Texts, target: Decoder, setup: Setup, seeds: int, journal: Journal
) -> dict[str, Decoder]:
    """Train and measure what is not in the journal; the drafts of the first seed."""
    first: dict[str, Decoder] = {}
    for seed in range(seeds):
        told = replace(setup.train_draft, seed=seed)
        draft = glosses_lm.trained(texts, setup.draft, told, _say)
        for arm in ("before", *ARMS):
            found = draft if arm == "before" else distilled(arm, texts, target, draft, setup, seed)
            first.setdefault(arm, found)
            if journal.has(seed=seed, arm=arm):
                continue
            row = {"seed": seed, "arm": arm, **measured(texts, target, found, setup)}
            journal.add(row)
            print(
                f"seed {seed}  {arm:<22} alpha {row['T = 1']['alpha']:.4f}  greedy "
                f"{row['greedy']['alpha']:.4f}  loss {row['loss']:.4f}",
                flush=True,
            )
    return first


# --- the report ---------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, Any]], gammas: Sequence[int]) -> list[dict[str, Any]]:
    """A row an arm: means over seeds of alpha and tau by law, and of the loss on glosses."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        one: dict[str, Any] = {"arm": arm, "seeds": len(mine)}
        for law in LAWS:
            one[f"alpha, {law}"] = sum(row[law]["alpha"] for row in mine) / len(mine)
            for g in gammas:
                taus = [row[law]["tau"][str(g)] for row in mine]
                one[f"tau {g}, {law}"] = sum(taus) / len(taus)
        one["loss"] = sum(row["loss"] for row in mine) / len(mine)
        found.append(one)
    return found


def table(report: Mapping[str, Any]) -> str:
    """Markdown: agreement by arm, then real decoding."""
    return "\n".join(
        [
            f"Mean of {report['seeds']} seeds, {report['setup']['steps']} steps each from the same "
            f"draft; the target's loss on test glosses is {report['target_loss']:.3f}.",
            *grid("agreement", report["summary"]),
            *grid("decoded", report["decoded"]),
            "",
        ]
    )


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Tokens a pass, and time beside the target alone, by block length, at both laws."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(2 * len(LAWS), (16, 4.2))
    rows = report["decoded"]
    names = [name for name in dict.fromkeys(row["draft"] for row in rows) if name != "none"]
    for place, (value, label) in enumerate(
        (("tau", "tokens a pass"), ("speedup", "times as fast as the target alone"))
    ):
        for law, panel in zip(LAWS, panels[place * len(LAWS) :], strict=False):
            for name in names:
                mine = [r for r in rows if (r["draft"], r["law"]) == (name, law)]
                panel.plot([r["gamma"] for r in mine], [r[value] for r in mine], "o-", ms=4,
                           label=name)  # fmt: skip
            panel.axhline(1, color="0.6", lw=1)
            panel.set(xlabel="block length", ylabel=label, title=law)
            panel.grid(visible=True, color="0.92")
            panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    print(f"\r{stage}: {share:.0%}   ", end="" if share < 1 else "\n", flush=True)


def _target(given: Any, setup: Setup) -> tuple[Texts, Decoder]:
    """Texts in the target's tokens, and the target."""
    if given.tiny:
        texts = glosses_lm.made_up(setup.draft.vocabulary)
        large = replace(setup.draft, width=32, layers=2)
        return texts, glosses_lm.trained(texts, large, TrainConfig(60, 8, 32, 1e-2))
    model = smollm2.load()
    return glosses_lm.load(tokens=model.tokens), as_decoder(model.network)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_pretrained", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="made-up texts, to see that it runs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        texts, target = _target(given, setup)
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        drafts = journey(texts, target, setup, given.seeds, journal)
        prompts = prompts_of(texts.test, setup.decoded, setup.prompt, 13).tolist()
        rows = [row for row in journal.rows if row["seed"] < given.seeds]
        report = {
            **header("pretrained", commit, setup, ("torch",)),
            "seeds": given.seeds,
            "target_loss": mean_loss(target, texts.test, setup.prompt + setup.length, 64),
            "parameters": {
                "target": sum(w.numel() for w in target.parameters()),
                "draft": sum(w.numel() for w in drafts["before"].parameters()),
            },
            "summary": summary(rows, setup.gammas),
            "decoded": decoded(target, drafts, texts.train, prompts, setup.longest, setup.blocks,
                               texts.tokens.end),
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
