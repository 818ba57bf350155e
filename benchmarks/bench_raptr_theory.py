"""What RaPTr rests on: the lemma of one layer of many, and the toy in which the order matters.

    soardb.pipelines.raptr.theory, polynomial -> [bench_raptr_theory.py] -> results/raptr-theory.*

The lemma: the change of a linear network's normed output when one of L layers is dropped, at random
weights, with and without residuals and norms; slopes of its logarithm against log L. The toy: terms
of degree 1 and 3, learned by a residual net of 8 blocks with the stages of RaPTr, the same
backwards, progressive dropping, and the whole net; what is left of each degree, by the whole net
and by parts as they learn.

    python -m benchmarks.bench_raptr_theory
    python -m benchmarks.bench_raptr_theory --tiny
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import provenance
from benchmarks.reports import grid, header, written
from soardb.models.training import TrainConfig
from soardb.pipelines.raptr import Paths, Plan, RandomPlan, Schedule
from soardb.pipelines.raptr.baselines import Dropping
from soardb.pipelines.raptr.polynomial import Polynomial, ResidualNet, learn
from soardb.pipelines.raptr.subnetwork import Scale
from soardb.pipelines.raptr.theory import output_changes, slope

__all__ = ["ARMS", "Setup", "main", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
TRAIN = TrainConfig(2500, 128, 2, 5e-3, warm=50, weight_decay=0.0)


@dataclass(frozen=True)
class Setup:
    """What one run measures; sizes of the lemma's networks, then of the toy."""

    name: str = "raptr-theory"
    depths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    width: int = 96
    networks: int = 4
    variables: int = 20
    terms: int = 10
    layers: int = 8
    net_width: int = 48
    hidden: int = 16
    train: TrainConfig = TRAIN
    looks: int = 25


TINY = Setup("raptr-theory-tiny", (4, 8, 16), 16, 1, 8, 3, 4, 8, 8, replace(TRAIN, steps=20), 4)

Make = Callable[[Setup, int], Plan]


def _staged(rising: bool) -> Make:
    def make(setup: Setup, seed: int) -> Plan:
        sizes = [setup.layers * quarter // 4 for quarter in (1, 2, 3, 4)]
        text = "-".join(map(str, sizes if rising else reversed(sizes)))
        return RandomPlan(
            Schedule.parsed(text, setup.train.steps), Paths(setup.layers, (), seed=seed)
        )

    return make


ARMS: dict[str, Make] = {
    "whole": lambda setup, seed: RandomPlan(
        Schedule.parsed(str(setup.layers), setup.train.steps), Paths(setup.layers, (), seed=seed)
    ),
    "RaPTr": _staged(True),
    "RaPTr backwards": _staged(False),
    "progressive dropping": lambda setup, seed: Dropping(
        setup.layers, setup.train.steps, limit=0.125, speed=3.0, seed=seed
    ),
}


def lemma(setup: Setup) -> dict[str, Any]:
    """Changes by combination and depth, and their slopes over all depths and over the last four."""
    found = output_changes(setup.depths, setup.width, setup.networks)
    tail = slice(-4, None)
    return {
        name: {
            "changes": changes,
            "slope": slope(setup.depths, changes),
            "slope of the deepest": slope(setup.depths[tail], changes[tail]),
        }
        for name, changes in found.items()
    }


def toy(setup: Setup, seeds: int) -> list[dict[str, Any]]:
    """A row an arm and seed: what is left of each degree over time."""
    rows = []
    for seed in range(seeds):
        made = Polynomial(setup.variables, (1, 3), setup.terms, seed)
        for arm, plan in ARMS.items():
            net = ResidualNet(setup.variables, setup.layers, setup.net_width, setup.hidden, seed)
            train = replace(setup.train, seed=seed)
            scale: Scale = "inverse" if arm == "progressive dropping" else "sqrt"
            found = learn(made, net, plan(setup, seed), train, scale, looks=setup.looks)
            rows.append({"arm": arm, "seed": seed, **asdict(found)})
            ends = {degree: f"{left[-1]:.3f}" for degree, left in found.left.items()}
            print(f"seed {seed}  {arm:<22} left {ends}", flush=True)
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row an arm: at the end, the mean over seeds and the worst of them; and the best it was."""
    found = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        one: dict[str, Any] = {"arm": arm}
        for name, of in (("left", "whole"), ("left_by_parts", "parts")):
            for degree in mine[0][name]:
                ends = [row[name][degree][-1] for row in mine]
                one[f"degree {degree}, {of}"] = float(np.mean(ends))
                one[f"degree {degree}, {of}, worst"] = max(ends)
        one["degree 3, parts, at best"] = float(
            np.mean([min(row["left_by_parts"][3]) for row in mine])
        )
        found.append(one)
    return found


def table(report: Mapping[str, Any]) -> str:
    """Markdown: slopes, then what is left of each degree."""
    depths = report["setup"]["depths"]
    slopes = [
        {
            "combination": name,
            **{
                f"L = {depth}": change for depth, change in zip(depths, one["changes"], strict=True)
            },
            "slope": one["slope"],
            "slope of the deepest": one["slope of the deepest"],
        }
        for name, one in report["lemma"].items()
    ]
    lines = [f"Means of {report['setup']['networks']} networks, and of {report['seeds']} seeds."]
    lines += grid("output change when a layer is dropped", slopes)
    lines += grid("share of a degree's energy that is left at the end", report["summary"])
    return "\n".join([*lines, ""])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """The lemma; and what is left of both degrees over the steps, by parts as they learn."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(3, (16, 4.6))
    depths = report["setup"]["depths"]
    for name, one in report["lemma"].items():
        label = f"{name}: slope {one['slope of the deepest']:.2f}"
        panels[0].loglog(depths, one["changes"], "o-", ms=4, label=label)
    panels[0].set(xlabel="layers", ylabel="output change, one dropped", title="the lemma")
    for panel, name, title in (
        (panels[1], "left_by_parts", "parts as they learn"),
        (panels[2], "left", "the whole net"),
    ):
        for number, arm in enumerate(ARMS):
            mine = [row for row in report["rows"] if row["arm"] == arm]
            for degree, style in ((1, ":"), (3, "-")):
                left = np.mean([row[name][degree] for row in mine], axis=0)
                label = arm if degree == 3 else "_"  # which a legend leaves out
                panel.plot(mine[0]["steps"], left, style, color=f"C{number}", label=label)
        panel.set(xlabel="steps", ylabel="left of degree 1 (dots), 3 (lines)", title=title)
        panel.set(ylim=(-0.02, 1.05))
    for panel in panels:
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_raptr_theory", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="small, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    rows = toy(setup, given.seeds)
    report = {
        **header("raptr-theory", commit, setup, ("torch",)),
        "seeds": given.seeds,
        "lemma": lemma(setup),
        "summary": summary(rows),
        "rows": rows,
    }
    stem = given.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
