"""RaPTr beside training the whole network, stacking, dropping: loss over counted operations.

    glosses_lm.py, soardb.pipelines.raptr -> [bench_raptr.py] -> results/raptr.*

Language models of the bytes of WordNet's glosses, 8 layers, from the same weights and windows by
seed. Every arm but the whole network at equal steps costs the same, counted as it ran, with the
head. Losses are of the whole network on test glosses; intervals are Student's over seeds, and those
of gaps are of differences by seed. Beside it: what stages do to the loss and how much each layer
matters then, and the time of a step against the layers that ran.

    python -m benchmarks.bench_raptr
    python -m benchmarks.bench_raptr --ablations    # scales, moments, paths, schedules, widths too
    python -m benchmarks.bench_raptr --tiny

Arms that are done are kept in a journal beside the data sets, and an arm goes on from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import glosses_lm, provenance
from benchmarks.environment import cache_folder
from benchmarks.glosses_lm import Texts
from benchmarks.journal import Journal
from benchmarks.reports import grid, header, written
from soardb.errors import SoarError
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.flops import pass_flops
from soardb.models.training import TrainConfig, Windows, adam_of
from soardb.pipelines.raptr import RaptrConfig, Subnetwork, loss_of, run
from soardb.pipelines.raptr.baselines import (
    constant,
    dropping,
    falling,
    full,
    full_at_equal_flops,
    stacking,
)

__all__ = ["ABLATIONS", "ARMS", "Setup", "interval", "main", "summary", "table", "timed"]

RESULTS = Path(__file__).resolve().parent / "results"
DECODER = DecoderConfig(257, 64, 8, 4, context=64)
TRAIN = TrainConfig(2000, 32, 64, 3e-3, warm=100)
_WHOLE, _EQUAL, _RAPTR = "whole", "whole, equal cost", "RaPTr"


@dataclass(frozen=True)
class Setup:
    """What one run measures. 257 tokens are the bytes, and an end."""

    name: str = "raptr"
    vocabulary: int = 257
    decoder: DecoderConfig = DECODER
    train: TrainConfig = TRAIN
    depths: str = "4-5-7-8"
    evaluate_every: int = 100
    held_out: int = 256
    tested: int = 1024
    timings: int = 15


TINY = Setup(
    "raptr-tiny", 300, DecoderConfig(300, 16, 4, 2, context=32),
    TrainConfig(24, 8, 24, 1e-2, warm=4), "2-3-3-4", 8, 16, 32, 2,
)  # fmt: skip

Make = Callable[[RaptrConfig, DecoderConfig], RaptrConfig]


def _with(**told: Any) -> Make:
    return lambda config, decoder: replace(config, **told)


ARMS: dict[str, Make] = {
    _WHOLE: full,
    _EQUAL: full_at_equal_flops,
    _RAPTR: _with(),
    "one depth": constant,
    "stacking": stacking,
    "progressive dropping": dropping,
    "RaPTr backwards": falling,
}

ABLATIONS: dict[str, Make] = {
    "no scale": _with(scale="none"),
    "1 / p": _with(scale="inverse"),
    "stream": _with(scale="stream"),
    "Bernoulli": _with(paths="bernoulli"),
    "moments decay": _with(skipped="decayed"),
    "no layer fixed": _with(fixed=()),
    "steeper": lambda config, decoder: replace(config, depths=_steeper(decoder.layers)),
    "warm-up": lambda config, decoder: replace(config, warm_up=config.train.steps // 10),
    "stacking, copied moments": lambda c, d: replace(stacking(c, d), moments="copied"),
    "widths": lambda config, decoder: replace(
        full(config, decoder), depths="-".join([str(decoder.layers)] * 2),
        heads=f"{decoder.heads // 2}-{decoder.heads}",
    ),
}  # fmt: skip
"""Of RaPTr. Warm-up and widths cost more; the table says how much."""


def _steeper(layers: int) -> str:
    """Four stages with the same average, three quarters of all, that begin lower: 3-6-7-8 of 8."""
    first = max(2, 3 * layers // 8)
    rest = 2 * layers - first
    return f"{first}-{rest // 2}-{rest - rest // 2}-{layers}"


# --- arms -----------------------------------------------------------------------------------------


def measured(arm: str, texts: Texts, setup: Setup, seed: int) -> dict[str, Any]:
    """One training: losses of the whole network, cost, transitions, time of steps."""
    train = replace(setup.train, seed=seed)
    config = RaptrConfig(setup.depths, evaluate_every=setup.evaluate_every, train=train)
    config = {**ARMS, **ABLATIONS}[arm](config, setup.decoder)
    held_out = Windows(texts.test, train.window, 54321)(setup.held_out)
    place = cache_folder() / f"{setup.name}-{seed}-{arm.replace(' ', '-').replace('/', '')}.state"
    decoder = Decoder(setup.decoder, seed)
    found = run(decoder, texts.train, config, held_out=held_out, checkpoint=place, progress=_say)
    loss = glosses_lm.mean_loss(found.decoder, texts.test, train.window, setup.tested)
    place.unlink()
    log = found.log
    return {
        "seed": seed,
        "arm": arm,
        "steps": config.train.steps,
        "loss": loss,
        "flops": log.flops,
        "cpu_s": sum(log.seconds),
        "step_ms": log.step_ms(),
        "evaluations": [asdict(one) for one in log.evaluations],
        "transitions": [asdict(one) for one in log.transitions],
        "config": config.to_json(),
    }


def timed(setup: Setup) -> list[dict[str, float]]:
    """Steps of n of L layers beside those of a network that has n, one after the other by turns.

    The shortest of each counts: there and back, and the optimiser's part; ms of the processor.
    """
    layers = setup.decoder.layers
    depths = range(1, layers + 1)
    whole = Decoder(setup.decoder)
    small = {n: Decoder(replace(setup.decoder, layers=n)) for n in depths}
    adams = {id(one): adam_of([one], setup.train) for one in (whole, *small.values())}
    row = np.random.default_rng(0).integers(0, setup.decoder.vocabulary, 5000)
    batch = Windows(row, setup.train.window)(setup.train.batch)

    def step(decoder: Decoder, n: int) -> float:
        began = time.process_time()
        loss = loss_of(decoder, batch, Subnetwork.of(range(n)), "none")
        adams[id(decoder)].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # so in PyTorch
        adams[id(decoder)].step()
        return 1000 * (time.process_time() - began)

    parts: dict[int, list[float]] = {n: [] for n in depths}
    alone: dict[int, list[float]] = {n: [] for n in depths}
    for _ in range(setup.timings + 1):
        for n in depths:
            parts[n].append(step(whole, n))
            alone[n].append(step(small[n], n))
    tokens = setup.train.window - 1
    return [
        {
            "layers": n,
            "ms": min(parts[n][1:]),
            "ms_of_a_network_of_so_many": min(alone[n][1:]),
            "gflops": pass_flops(setup.decoder, setup.train.batch, tokens, n) / 1e9,
        }
        for n in depths
    ]


def journey(texts: Texts, setup: Setup, arms: Sequence[str], seeds: int, journal: Journal) -> None:
    """Train and measure whatever is not in the journal, a seed after the other."""
    for seed in range(seeds):
        for arm in arms:
            if journal.has(seed=seed, arm=arm):
                continue
            row = measured(arm, texts, setup, seed)
            journal.add(row)
            print(
                f"seed {seed}  {arm:<24} loss {row['loss']:.4f}  {row['flops'] / 1e12:.2f} TFLOP  "
                f"{row['cpu_s']:.0f} s",
                flush=True,
            )


# --- the report -----------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean, Student's; None of a single value."""
    n = len(values)
    if n < 2:
        return None
    return _student(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)


def _student(freedom: int) -> float:
    """The 0.975 quantile."""
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
    return known.get(freedom, 2.262 if freedom == 9 else 1.96 + 2.4 / freedom)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row an arm: its loss, gaps by seed to both whole networks and to RaPTr, cost and time."""
    by: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["arm"], {})[row["seed"]] = row
    whole = np.mean([row["flops"] for row in by[_WHOLE].values()])
    found = []
    for arm, seeds in by.items():
        losses = [row["loss"] for row in seeds.values()]
        one: dict[str, Any] = {
            "arm": arm,
            "seeds": len(seeds),
            "steps": next(iter(seeds.values()))["steps"],
            "cost": float(np.mean([row["flops"] for row in seeds.values()]) / whole),
            "loss": float(np.mean(losses)),
            "interval": interval(losses),
        }
        for name in (_WHOLE, _EQUAL, _RAPTR):
            gaps = [row["loss"] - by[name][s]["loss"] for s, row in seeds.items() if s in by[name]]
            one[f"over {name}"] = float(np.mean(gaps))
            one[f"interval over {name}"] = interval(gaps)
        one["cpu_s"] = float(np.mean([row["cpu_s"] for row in seeds.values()]))
        found.append(one)
    return found


def transitions(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each arm and stage, means over seeds; psi the mean over layers, and the largest."""
    by: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        for one in row["transitions"]:
            by.setdefault((row["arm"], one["step"]), []).append(one)
    names = ("loss_before", "loss_after", "whole", "left_out")
    return [
        {
            "arm": arm,
            "step": step,
            "depths": f"{some[0]['before']:g} -> {some[0]['after']:g}",
            **{name: float(np.mean([one[name] for one in some])) for name in names},
            "psi": float(np.mean([np.mean(one["changes"]) for one in some])),
            "largest psi": float(np.mean([np.max(one["changes"]) for one in some])),
        }
        for (arm, step), some in by.items()
    ]


def table(report: Mapping[str, Any]) -> str:
    """Markdown: losses with intervals, transitions, time of steps."""
    lines = [
        f"Means of {report['seeds']} seeds; losses in nats a token, of the whole network on test "
        "glosses, with 95 % intervals; gaps by seed. cost: counted operations, against the whole "
        "network at equal steps.",
        "",
        "| arm | steps | cost | loss | over whole | over whole at equal cost | over RaPTr | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["summary"]:
        cells = [_shown(row["loss"], row["interval"], ".4f")]
        for name in (_WHOLE, _EQUAL, _RAPTR):
            gap = _shown(row[f"over {name}"], row[f"interval over {name}"], "+.4f")
            cells.append("" if row["arm"] == name else gap)
        lines.append(
            f"| {row['arm']} | {row['steps']:,} | {row['cost']:.3f} | {' | '.join(cells)} "
            f"| {row['cpu_s']:.0f} |"
        )
    lines += grid("what a new stage does", report["transitions"], 4)
    lines += grid("a step, by the layers that run", report["timed"], 2)
    return "\n".join([*lines, ""])


def _shown(value: float, half: float | None, digits: str) -> str:
    return f"{value:{digits}}" + ("" if half is None else f" ± {half:.4f}")


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Loss over counted operations by arm; and the time of a step over the layers that ran."""
    from soardb.evaluate.plots import abreast

    figure, (curves, times) = abreast(2, (13, 4.6))
    by: dict[str, list[list[Mapping[str, float]]]] = {}
    for row in report["rows"]:
        if row["arm"] in ARMS:
            by.setdefault(row["arm"], []).append(row["evaluations"])
    for arm, some in by.items():
        spent = np.mean([[one["flops"] for one in line] for line in some], axis=0)[1:] / 1e12
        losses = np.mean([[one["loss"] for one in line] for line in some], axis=0)[1:]
        width = 2.2 if arm in (_WHOLE, _EQUAL, _RAPTR) else 1.2
        curves.plot(spent, losses, lw=width, label=arm)
    ends = [row["loss"] for row in report["summary"]]
    curves.set(
        xlabel="counted TFLOP", ylabel="nats a token, whole network",
        ylim=(min(ends) - 0.02, min(ends) + 0.6),
    )  # fmt: skip
    layers = [row["layers"] for row in report["timed"]]
    part = f"of {max(layers)} layers, so many"
    times.plot(layers, [row["ms"] for row in report["timed"]], "o-", label=part)
    small = [row["ms_of_a_network_of_so_many"] for row in report["timed"]]
    times.plot(layers, small, "x--", label="a network that has so many")
    times.set(xlabel="layers that run", ylabel="ms a step", ylim=(0, None))
    for panel in (curves, times):
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 250 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_raptr", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="made-up texts, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablations", action="store_true", help="variants of RaPTr too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    arms = [*ARMS, *(ABLATIONS if given.ablations else ())]
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        load = glosses_lm.made_up if given.tiny else glosses_lm.load
        texts = load(setup.vocabulary)
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        journey(texts, setup, arms, given.seeds, journal)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    known = [*ARMS, *ABLATIONS]
    rows = sorted(
        (row for row in journal.rows if row["seed"] < given.seeds),
        key=lambda row: (known.index(row["arm"]), row["seed"]),
    )
    report = {
        **header("raptr", commit, setup, ("torch",)),
        "seeds": given.seeds,
        "summary": summary(rows),
        "transitions": transitions(rows),
        "timed": timed(setup),
        "rows": rows,
    }
    stem = given.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
