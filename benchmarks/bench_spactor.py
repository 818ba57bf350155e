"""SpacTor beside span corruption alone: clean loss, what a classifier gains, and operations.

    synsets.py, soardb.pipelines.spactor -> [bench_spactor.py] -> results/spactor.*

Encoder-decoders are pretrained on the same windows of WordNet's glosses, cut in the same places:
by span corruption, by SpacTor for a quarter of the steps and for all of them, and with replaced
tokens but without their detection (`--ablations` adds detection without span corruption, and
masked guessing by the encoder in its place). Along the way they are measured on clean held-out
glosses, and classifiers are fine-tuned from them: from a noun's gloss to the lexicographer's file
that it stands in, one of 26, of a thousand examples, each with five seeds. Test glosses are in no
training text. Steps and operations to the final score of span corruption are read off the curves.

    python -m benchmarks.bench_spactor
    python -m benchmarks.bench_spactor --tiny

Arms that are done are kept in a journal beside the data sets.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import provenance
from benchmarks.environment import cache_folder
from benchmarks.journal import Journal
from benchmarks.packages import fetch
from benchmarks.recipes import WORDNET
from benchmarks.reports import grid, header, written
from benchmarks.synsets import Synset, read_synsets
from soardb.errors import SoarError
from soardb.kernels.layout import I64
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.encoder import Encoder
from soardb.models.t5 import T5
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, row_of
from soardb.pipelines.spactor import Look, Objective, SpacTor, SpactorConfig, fine_tuned, run

__all__ = ["ABLATIONS", "ARMS", "Setup", "main", "reached", "summary", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
MODEL = T5Config(EncoderConfig(2048, 16, 128, 4, 4, context=96), 2)
TRAIN = TrainConfig(3000, 32, 48, 2e-3, warm=100)
TUNE = TrainConfig(160, 32, 48, 1e-3, warm=16)

ARMS: dict[str, tuple[Objective, float]] = {
    "SC": ("sc", 0.0),
    "SpacTor, T/4": ("hybrid", 0.25),
    "SpacTor, all": ("hybrid", math.inf),
    "noise only": ("noise", math.inf),
}
ABLATIONS: dict[str, tuple[Objective, float]] = {
    "RTD only, T/4": ("rtd", 0.25),
    "SC + MLM, T/4": ("sc+mlm", 0.25),
}


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    looks   shares of the steps at which the clean loss is measured
    tuned   those at which classifiers are fine-tuned, with `tunings` seeds each
    """

    name: str = "spactor"
    model: T5Config = MODEL
    train: TrainConfig = TRAIN
    tune: TrainConfig = TUNE
    looks: tuple[float, ...] = tuple(n / 20 for n in range(20))
    tuned: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    tunings: int = 5
    examples: int = 1000
    tested: int = 2000
    held: int = 512


TINY = Setup(
    "spactor-tiny", T5Config(EncoderConfig(300, 8, 16, 2, 2, context=48), 1),
    TrainConfig(12, 8, 24, 1e-2, warm=2), TrainConfig(6, 8, 24, 1e-2, warm=1), (0.0, 0.5),
    (0.5, 1.0), 2, 60, 60, 16,
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """tokens, and rows of them to pretrain with and to measure with; labelled texts of both."""

    tokens: Tokens
    train: I64
    held: I64
    examples: tuple[list[list[int]], list[int]]
    tests: tuple[list[list[int]], list[int]]
    classes: int


# --- texts --------------------------------------------------------------------------------------


def load(setup: Setup) -> Task:
    """Glosses in random order, 4,000 of them held out; nouns of both with their files."""
    synsets = read_synsets(fetch(WORDNET, _say))
    random.Random(0).shuffle(synsets)
    return task_of(synsets, 4000, setup)


def made_up(setup: Setup) -> Task:
    """Sentences of a few words in a fixed order; the last words say the class."""
    rng = random.Random(0)
    ends = ["the north", "a river", "old times"]
    words = [["a", "the", "some"], ["small", "large", "odd"], ["bird", "stone"], ["of", "near"]]
    made = []
    for _ in range(800):
        kind = rng.randrange(3)
        made.append(Synset((), 3 + kind, " ".join([*map(rng.choice, words), ends[kind]])))
    return task_of(made, 200, setup)


def task_of(synsets: Sequence[Synset], held: int, setup: Setup) -> Task:
    train, test = synsets[:-held], synsets[-held:]
    tokens = Tokens.trained([one.gloss for one in train], setup.model.encoder.text_tokens)

    def labelled(some: Sequence[Synset], most: int) -> tuple[list[list[int]], list[int]]:
        nouns = [one for one in some if 3 <= one.file <= 28][:most]
        return [tokens.encode(one.gloss) for one in nouns], [one.file - 3 for one in nouns]

    rows = row_of([one.gloss for one in train], tokens), row_of([one.gloss for one in test], tokens)
    return Task(tokens, *rows, labelled(train, setup.examples), labelled(test, setup.tested), 26)


# --- measuring ----------------------------------------------------------------------------------


def measured(arm: tuple[Objective, float], task: Task, setup: Setup, seed: int) -> dict[str, Any]:
    """Pretrain by an arm: what each look saw, accuracies of the fine-tuned, losses by parts."""
    steps = setup.train.steps
    tuned = {round(share * steps): share for share in setup.tuned}
    looks = {round(share * steps) for share in setup.looks} | set(tuned)
    config = SpactorConfig(
        *arm, train=replace(setup.train, seed=seed), held=setup.held,
        looks=tuple(sorted(looks - {steps})),
    )  # fmt: skip
    kept: dict[int, Encoder] = {}

    def look(found: Look, spactor: SpacTor) -> None:
        if found.step in tuned:
            kept[found.step] = copy.deepcopy(spactor.t5.encoder).eval()

    end = task.tokens.end
    assert end is not None
    began = time.process_time()
    found = run(
        T5(setup.model, seed), task.train, config, end=end, held=task.held, look=look,
        progress=_say,
    )  # fmt: skip
    spent = time.process_time() - began
    accuracies = {}
    for step, encoder in kept.items():
        accuracies[str(step)] = [
            _tuned(encoder, task, replace(setup.tune, seed=100 * seed + one))
            for one in range(setup.tunings)
        ]
        print(f"  step {step}: accuracy {np.mean(accuracies[str(step)]):.4f}", flush=True)
    return {
        "cpu_s": spent,
        "looks": [one.to_json() for one in found.looks],
        "accuracy": accuracies,
        "parts": _thinned(found.parts),
        "flops": {"first": found.flops[0], "last": found.flops[-1]},
        "targets": sum(found.targets),
    }


def _tuned(encoder: Encoder, task: Task, train: TrainConfig) -> float:
    made = fine_tuned(encoder, *task.examples, task.classes, train)
    return made.accuracy([row[: train.window] for row in task.tests[0]], task.tests[1])


def _thinned(parts: list[dict[str, float]], every: int = 20) -> list[dict[str, float]]:
    """Means over `every` steps, of the parts that all of them have."""
    found = []
    for first in range(0, len(parts), every):
        some = parts[first : first + every]
        names = set.intersection(*map(set, some))
        found.append({n: float(np.mean([one[n] for one in some])) for n in sorted(names)})
    return found


def journey(
    arms: Mapping[str, tuple[Objective, float]], task: Task, setup: Setup, seeds: int,
    journal: Journal,
) -> None:  # fmt: skip
    """Train and measure whatever is not in the journal."""
    for seed in range(seeds):
        for name, arm in arms.items():
            if journal.has(seed=seed, arm=name):
                continue
            print(f"seed {seed}  {name}", flush=True)
            row = {"seed": seed, "arm": name, **measured(arm, task, setup, seed)}
            journal.add(row)
            print(
                f"seed {seed}  {name:<14} clean {row['looks'][-1]['clean']:.4f}  "
                f"{row['cpu_s']:.0f} s",
                flush=True,
            )


# --- the report ---------------------------------------------------------------------------------


def reached(curve: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """Where a curve of (x, y) first is at or below `wanted`, between its points; None: nowhere."""
    for (x0, y0), (x1, y1) in zip([curve[0], *curve], curve, strict=False):
        if y1 <= wanted:
            return x1 if y0 <= wanted or y0 == y1 else x0 + (x1 - x0) * (y0 - wanted) / (y0 - y1)
    return None


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Tables: final losses and costs by arm, accuracies along training, steps to SC's scores."""
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    base = {row["seed"]: row for row in by_arm["SC"]}
    losses, accuracies, reaching = [], [], []
    for arm, some in by_arm.items():
        final = [row["looks"][-1]["clean"] for row in some]
        gaps = [row["looks"][-1]["clean"] - base[row["seed"]]["looks"][-1]["clean"] for row in some]
        one: dict[str, Any] = {"arm": arm, "seeds": len(some), "clean": float(np.mean(final))}
        one |= {"over_sc": float(np.mean(gaps)), "over_sc_ci": _half(gaps)}
        one |= _detections(some)
        one["tflops"] = float(np.mean([row["looks"][-1]["flops"] for row in some])) / 1e12
        one["first_step"] = some[0]["flops"]["first"] / some[0]["flops"]["last"]
        losses.append(one)
        for step in some[0]["accuracy"]:
            mine = np.array([row["accuracy"][step] for row in some])
            theirs = np.array([base[row["seed"]]["accuracy"][step] for row in some])
            accuracies.append({
                "arm": arm, "step": int(step), "accuracy": float(mine.mean()),
                "ci": _half(mine.ravel()), "over_sc": float((mine - theirs).mean()),
                "over_sc_ci": _half((mine - theirs).ravel()),
            })  # fmt: skip
        reaching.append({"arm": arm, **_reaching(some, base)})
    return {"losses": losses, "accuracies": accuracies, "reaching": reaching}


def _detections(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the last look, and the best area of all."""
    told = [[one["detection"] for one in row["looks"]] for row in rows]
    if any(one is None for some in told for one in some):
        return {}
    found = {
        f"generator_{name}": float(np.mean([some[-1][name] for some in told]))
        for name in ("replaced", "accuracy", "same")
    }
    if told[0][0]["area"] is not None:
        found["rtd_auc"] = float(np.mean([some[-1]["area"] for some in told]))
        found["best_auc"] = float(np.mean([max(one["area"] for one in some) for some in told]))
    return found


def _reaching(
    rows: Sequence[Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Shares of SC's steps and operations to its final clean loss and accuracy, over the seeds.

    None where a seed does not get there.
    """
    shares: dict[str, list[float | None]] = {}
    for row in rows:
        sc = base[row["seed"]]
        end = sc["looks"][-1]
        wanted = end["clean"]
        score = -float(np.mean(sc["accuracy"][str(end["step"])]))
        flops_at = {one["step"]: one["flops"] for one in row["looks"]}
        tuned = [(int(step), -float(np.mean(some))) for step, some in row["accuracy"].items()]
        curves = {
            ("clean", "step"): ([(x["step"], x["clean"]) for x in row["looks"]], wanted),
            ("clean", "flops"): ([(x["flops"], x["clean"]) for x in row["looks"]], wanted),
            ("accuracy", "step"): (tuned, score),
            ("accuracy", "flops"): ([(flops_at[x], y) for x, y in tuned], score),
        }
        for (what, axis), (curve, goal) in curves.items():
            x = reached(curve, goal)
            shares.setdefault(f"{what}_{axis}", []).append(None if x is None else x / end[axis])
    return {
        name: None if None in some else float(np.mean([x for x in some if x is not None]))
        for name, some in shares.items()
    }


def _half(values: Sequence[float] | np.ndarray[Any, Any]) -> float | None:
    """Half of a 95 % interval of the mean by Student's t; None of a single value."""
    n = len(values)
    if n < 2:
        return None
    return float(_T95[min(n - 2, len(_T95) - 1)] * np.std(values, ddof=1) / math.sqrt(n))


_T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16,
        2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064)  # fmt: skip
"""Of 1 to 24 degrees of freedom; more are taken for 24."""


def table(report: Mapping[str, Any]) -> str:
    """Markdown: losses, accuracies, shares of steps and operations."""
    lines = [
        f"{report['seeds']} seed(s) of pretraining, {report['setup']['tunings']} of fine-tuning "
        "each. clean: cross entropy of span corruption on clean held-out glosses, nats a target "
        "token; over_sc: beside SC of the same seed; ci: half of a 95 % interval; first_step: "
        "operations of the first step over those of the last; reaching: shares of SC's steps and "
        "operations until its final score."
    ]
    for name in ("losses", "accuracies", "reaching"):
        lines += grid(name, report["summary"][name], 4)
    return "\n".join([*lines, ""])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Clean loss over steps and operations, accuracy over steps, the area of detection."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(4, (18, 4.2))
    rows = [row for row in report["rows"] if row["seed"] == 0]
    for row in rows:
        looks = [one for one in row["looks"] if one["step"]]
        clean = [one["clean"] for one in looks]
        panels[0].plot([one["step"] for one in looks], clean, label=row["arm"])
        panels[1].plot([one["flops"] / 1e12 for one in looks], clean)
        seen = [one for one in looks if (one["detection"] or {}).get("area") is not None]
        panels[3].plot([x["step"] for x in seen], [x["detection"]["area"] for x in seen])
    for arm in (row["arm"] for row in rows):
        mine = [one for one in report["summary"]["accuracies"] if one["arm"] == arm]
        errors = [one["ci"] or 0.0 for one in mine]
        steps = [one["step"] for one in mine]
        panels[2].errorbar(steps, [one["accuracy"] for one in mine], errors, capsize=2)
    labels = [("step", "clean loss, nats"), ("TFLOPs", "clean loss, nats"),
              ("step", "accuracy, fine-tuned"), ("step", "area of detection")]  # fmt: skip
    for panel, (x, y) in zip(panels, labels, strict=True):
        panel.set(xlabel=x, ylabel=y)
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 250 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_spactor", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="made-up texts, to see that it runs")
    parser.add_argument("--seeds", type=int, default=1, help="of pretraining")
    parser.add_argument("--ablations", action="store_true", help="two more arms")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    arms = ARMS | (ABLATIONS if given.ablations else {})
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        task = made_up(setup) if given.tiny else load(setup)
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        journey(arms, task, setup, given.seeds, journal)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [row for row in journal.rows if row["seed"] < given.seeds]
    report = {
        **header("spactor", commit, setup, ("torch",)),
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
