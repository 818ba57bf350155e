"""Bias and variance of small networks over their width: are the two aligned, and by what?

    scikit-learn's digits, soardb.pipelines.diagnose -> [bench_diagnose.py] -> results/diagnose-*

For each seed the pictures are dealt into a training and a test set, and forty replicas of a network
are trained on the former, for each width and each kind of randomness. Of the test pictures bias and
variance are taken apart; the report has the line through those that the ensemble gets right, and
what keeps one from believing it too soon: lines from disjoint replicas and from few of them, narrow
networks, ones that are stopped early, wrong pictures, the KL version. Beside it stands what the
model of neural collapse predicts.

    python -m benchmarks.bench_diagnose
    python -m benchmarks.bench_diagnose --tiny

Each ensemble is written to a journal beside the data sets when it is measured: a run that was
stopped goes on where it was. A report is of whole seeds alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from benchmarks.environment import cache_folder, need
from benchmarks.journal import Journal
from soardb.errors import SoarError
from soardb.kernels.layout import F32, I64
from soardb.pipelines import diagnose
from soardb.pipelines.diagnose.stability import by_members

__all__ = ["Cell", "Setup", "cells", "main", "measured", "summary", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
EXTRA = "bench-diagnose"
_EARLY = 60  # steps of training that is stopped early


@dataclass(frozen=True)
class Setup:
    """What one run measures. widths: trained by init alone; data_widths: the other kinds too."""

    dataset: str
    train: int
    test: int
    seeds: int
    members: int = 40
    steps: int = 400
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
    data_widths: tuple[int, ...] = (16, 64, 256)
    early_width: int = 128
    counts: tuple[int, ...] = (4, 6, 10, 20, 40)


DIGITS = Setup("digits", train=900, test=897, seeds=5)
TINY = Setup(
    "made-up", 200, 150, seeds=2, members=8, steps=60,
    widths=(2, 16), data_widths=(16,), early_width=16, counts=(4, 8),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """An ensemble to train and to measure."""

    randomness: str
    width: int
    steps: int


def cells(setup: Setup) -> Iterator[Cell]:
    """The width sweep, the training that is stopped early, then the other kinds of randomness."""
    for width in setup.widths:
        yield Cell("init", width, setup.steps)
    yield Cell("init", setup.early_width, min(_EARLY, setup.steps // 2))
    for randomness in ("bootstrap", "halves"):
        for width in setup.data_widths:
            yield Cell(randomness, width, setup.steps)


def load(name: str) -> tuple[F32, I64]:
    """(n, d) features and (n,) classes."""
    if name == "digits":
        found = need("sklearn.datasets", EXTRA).load_digits()
        return (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 400)
    points = 2 * rng.standard_normal((3, 5))[kinds] + rng.standard_normal((400, 5))
    return points.astype(np.float32), kinds


def measured(setup: Setup, cell: Cell, seed: int) -> dict[str, Any]:
    """One ensemble, trained and diagnosed: plain values."""
    features, classes = load(setup.dataset)
    order = np.random.default_rng(seed).permutation(len(classes))
    train, test = order[: setup.train], order[setup.train : setup.train + setup.test]
    config = diagnose.TrainConfig(
        setup.members,
        cell.randomness,  # type: ignore[arg-type]
        width=cell.width,
        steps=cell.steps,
        seed=seed,
    )
    began = time.process_time()
    replicas = diagnose.Replicas(config).fit(features[train], classes[train])
    trained = time.process_time()
    ensemble = diagnose.Ensemble.of_logits(
        replicas.logits(features[test]), replicas.codes(classes[test]), randomness=config.told
    )
    pairs = cell.randomness == "halves"
    found = diagnose.run(
        ensemble,
        diagnose.DiagnoseConfig(
            "pairs" if pairs else "unbiased", members=setup.counts, kl=True, cone=1.0, seed=seed
        ),
    )
    wrong = ~found.correct
    row = {
        "seed": seed,
        **asdict(cell),
        **{
            name: value
            for name, value in found.to_json().items()
            if name not in ("config", "seconds", "misaligned", "randomness")
        },
        "plain_by_members": {
            str(count): None if one is None else one.to_json()
            for count, one in by_members(
                ensemble, found.correct, setup.counts, "plain", bootstrap=0
            ).items()
        },
        "wrong_ratio": _ratio(found, wrong) if wrong.any() else None,
        "train_cpu_s": trained - began,
        "diagnose_cpu_s": time.process_time() - trained,
    }
    if seed == 0 and cell in _drawn(setup):
        row["samples"] = {
            "bias": [float(f"{x:.4g}") for x in found.parts.bias],
            "variance": [float(f"{x:.4g}") for x in found.parts.variance],
            "correct": found.correct.astype(int).tolist(),
        }
    return row


def _drawn(setup: Setup) -> list[Cell]:
    """The cells whose samples are in the picture: small networks, and the widest."""
    small = 4 if 4 in setup.widths else setup.widths[0]
    return [Cell("init", width, setup.steps) for width in (small, setup.widths[-1])]


def _ratio(found: diagnose.Diagnosis, mask: Any) -> float:
    return float(np.median(found.parts.variance[mask] / found.parts.bias[mask]))


def run(setup: Setup, journal: Journal) -> Iterator[int]:
    """Measure whatever is not in the journal; yields how many seeds are whole, after each."""
    need("torch", "train").set_num_threads(1)
    for seed in range(setup.seeds):
        for cell in cells(setup):
            if journal.has(seed=seed, **asdict(cell)):
                continue
            row = measured(setup, cell, seed)
            journal.add(row)
            line = row["fits"]["correct"]
            print(
                f"seed {seed}  {cell.randomness:<9} width {cell.width:>3}, {cell.steps} steps: "
                f"slope {line['slope']:.3f}, R^2 {line['r2']:.3f}, {row['train_cpu_s']:.1f} s",
                flush=True,
            )
        yield seed + 1


# --- the report ---------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each cell: of each figure the mean, lowest and highest over the seeds."""
    groups: dict[Cell, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(Cell(row["randomness"], row["width"], row["steps"]), []).append(row)
    return [
        {**asdict(cell), "seeds": len(some), **_over_seeds([_figures(row) for row in some])}
        for cell, some in groups.items()
    ]


def _figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    line, kl = row["fits"]["correct"], row["kl_fits"]["correct"]
    calibration, cone, halves = row["calibration"], row["cone"], row["split_half"]
    found = {
        "member_accuracy": 1 - calibration["member_error"],
        "ensemble_accuracy": 1 - calibration["ensemble_error"],
        "slope": line["slope"],
        "slope_low": line["slope_interval"][0],
        "slope_high": line["slope_interval"][1],
        "intercept": line["intercept"],
        "r2": line["r2"],
        "residual_sd": line["residual_sd"],
        "binned_slope": line["binned_slope"],
        "half_slope": float(np.mean([half["slope"] for half in halves])),
        "half_r2": float(np.mean([half["r2"] for half in halves])),
        "half_sd": float(np.mean([half["residual_sd"] for half in halves])),
        "kl_slope": kl["slope"],
        "kl_r2": kl["r2"],
        "wrong": row["n"] - line["n"] - line["dropped"],
        "wrong_ratio": row["wrong_ratio"],
        "cone_median": cone["median"],
        "cone_p99": cone["p99"],
        "cone_largest": cone["largest"],
        "above_1": cone["share_above"],
        "ece": calibration["ece"],
        "member_error": calibration["member_error"],
        "disagreement": calibration["disagreement"],
        "mean_bias": row["mean"]["bias"],
        "mean_variance": row["mean"]["variance"],
        "train_cpu_s": row["train_cpu_s"],
    }
    for count, one in row["by_members"].items():
        found[f"intercept_{count}"] = None if one is None else one["intercept"]
        found[f"slope_{count}"] = None if one is None else one["slope"]
        plain = row["plain_by_members"][str(count)]
        found[f"plain_intercept_{count}"] = None if plain is None else plain["intercept"]
    return found


def _over_seeds(figures: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in figures[0]:
        values = [one[name] for one in figures]
        known = [value for value in values if value is not None]
        found[name] = float(np.mean(known)) if known else None
        found[f"{name}_range"] = [min(known), max(known)] if known else None
    return found


def table(report: Mapping[str, Any]) -> str:
    """Markdown: the lines, then what stands beside them, then the number of replicas."""
    setup, rows = report["setup"], report["summary"]
    counts = setup["counts"]

    def name(row: Mapping[str, Any]) -> str:
        early = f", {row['steps']} steps" if row["steps"] != setup["steps"] else ""
        return f"{row['randomness']}, {row['width']}{early}"

    def cell(row: Mapping[str, Any], figure: str, form: str) -> str:
        return "-" if row[figure] is None else format(row[figure], form)

    def spread(row: Mapping[str, Any], figure: str, form: str) -> str:
        low, high = row[f"{figure}_range"]
        return f"{row[figure]:{form}} ({low:{form}}..{high:{form}})"

    def lines(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
        rule = ["---", *["---:"] * (len(header) - 1)]
        return ["| " + " | ".join(row) + " |" for row in [header, rule, *body]]

    return "\n".join(
        [
            f"{setup['dataset']}, {setup['train']} to train with and {setup['test']} to test with, "
            f"{setup['members']} replicas of three affine maps with ReLU between, "
            f"{setup['steps']} steps. Randomness and width; the line through the pictures that the "
            f"ensemble gets right: mean of {report['seeds']} seeds (lowest..highest). sd: of the "
            "residuals, in nats. Disjoint: bias^2 of one half of the replicas, variance of the "
            "other.",
            "",
            *lines(
                ["", "accuracy of a replica", "of all", "slope", "R^2", "sd", "intercept",
                 "disjoint: slope", "R^2", "sd"],
                [
                    [
                        name(row),
                        f"{row['member_accuracy']:.3f}",
                        f"{row['ensemble_accuracy']:.3f}",
                        spread(row, "slope", ".3f"),
                        spread(row, "r2", ".3f"),
                        f"{row['residual_sd']:.2f}",
                        f"{row['intercept']:.2f}",
                        f"{row['half_slope']:.3f}",
                        f"{row['half_r2']:.3f}",
                        f"{row['half_sd']:.2f}",
                    ]
                    for row in rows
                ],
            ),
            "",
            "Variance / bias^2: median of all pictures, 99th percentile, largest, share above 1; "
            "median of the wrong pictures. KL: the line of that decomposition.",
            "",
            *lines(
                ["", "median", "99 %", "largest", "above 1", "wrong", "of them", "KL: slope",
                 "R^2", "ECE", "disagreement", "error"],
                [
                    [
                        name(row),
                        f"{row['cone_median']:.2f}",
                        f"{row['cone_p99']:.1f}",
                        f"{row['cone_largest']:.1f}",
                        f"{row['above_1']:.0%}",
                        f"{row['wrong']:.0f}",
                        cell(row, "wrong_ratio", ".3f"),
                        f"{row['kl_slope']:.3f}",
                        f"{row['kl_r2']:.3f}",
                        f"{row['ece']:.4f}",
                        f"{row['disagreement']:.4f}",
                        f"{row['member_error']:.4f}",
                    ]
                    for row in rows
                ],
            ),
            "",
            "Intercept of the first m replicas, and in brackets that of plain estimates, which are "
            "of these replicas and not of all that could be:",
            "",
            *lines(
                ["", *(f"m = {count}" for count in counts)],
                [
                    [
                        name(row),
                        *(
                            f"{cell(row, f'intercept_{count}', '.2f')} "
                            f"({cell(row, f'plain_intercept_{count}', '.2f')})"
                            for count in counts
                        ),
                    ]
                    for row in rows
                ],
            ),
            "",
        ]
    )  # fmt: skip


def collapse() -> dict[str, Any]:
    """Slopes that neural collapse predicts, of ten classes over the scale."""
    scales = tuple(np.linspace(0, 12, 25).tolist())
    found: dict[str, Any] = {}
    for noise, scale in (("gumbel", 1.0), ("normal", 1.0), ("normal", 0.5)):
        config = diagnose.CollapseConfig(
            scales=scales,
            noise=noise,  # type: ignore[arg-type]
            noise_scale=scale,
        )
        found[f"{noise}, {scale:g}"] = diagnose.simulate(config).to_json()
    return found


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Samples of small and wide networks; slope and R^2 over width; intercepts; the simulation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.5), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    setup = report["setup"]
    with_samples = {row["width"]: row for row in report["rows"] if "samples" in row}
    for axes, row in zip(panels, (with_samples[w] for w in sorted(with_samples)), strict=False):
        _samples(axes, row)
    sweep = [
        row
        for row in report["summary"]
        if row["randomness"] == "init" and row["steps"] == setup["steps"]
    ]
    widths = [row["width"] for row in sweep]
    for axes, value, name in ((panels[2], "slope", "slope"), (panels[3], "r2", "R^2")):
        for key, label in ((value, "all replicas"), (f"half_{value}", "disjoint replicas")):
            ends = np.array([row[f"{key}_range"] for row in sweep])
            (line,) = axes.plot(widths, [row[key] for row in sweep], "o-", ms=4, label=label)
            axes.fill_between(widths, ends[:, 0], ends[:, 1], color=line.get_color(), alpha=0.2)
        axes.axhline(1, color="0.6", lw=0.8, ls=":")
        axes.set(xscale="log", xlabel="width", ylabel=name)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.legend(fontsize=8)
    panels[2].set_ylim(-1.5, 1.2)
    counts = setup["counts"]
    for row in report["summary"]:
        if row["width"] == setup["data_widths"][-1] and row["steps"] == setup["steps"]:
            intercepts = [row[f"intercept_{count}"] for count in counts]
            (line,) = panels[4].plot(counts, intercepts, "o-", ms=4, label=row["randomness"])
            plain = [row[f"plain_intercept_{count}"] for count in counts]
            panels[4].plot(counts, plain, ":", color=line.get_color())
    panels[4].set(
        xscale="log",
        xlabel="replicas",
        ylabel=f"intercept, width {setup['data_widths'][-1]} (dotted: plain)",
    )
    panels[4].set_xticks(counts, [str(count) for count in counts])
    panels[4].minorticks_off()
    panels[4].legend(fontsize=8)
    for name, found in report["collapse"].items():
        scales = np.array(found["scales"])
        slopes = np.array(found["slopes"], np.float64)
        panels[5].plot((scales[1:] + scales[:-1]) / 2, slopes, label=f"noise: {name}")
    panels[5].axhline(1, color="0.6", lw=0.8, ls=":")
    panels[5].set(xlabel="scale of features, simulated", ylabel="slope", ylim=(-1.5, 2))
    panels[5].legend(fontsize=8)
    for axes in panels:
        axes.grid(visible=True, color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{setup['dataset']}, {setup['members']} replicas, mean of {report['seeds']} seeds, "
        "bands from lowest to highest",
        fontsize=9,
        color="0.35",
    )
    figure.savefig(path, dpi=100)


def _samples(axes: Any, row: Mapping[str, Any]) -> None:
    bias, variance = (np.array(row["samples"][key]) for key in ("bias", "variance"))
    correct = np.array(row["samples"]["correct"], np.bool_)
    for mask, colour, name in ((correct, "C0", "correct"), (~correct, "C3", "wrong")):
        axes.scatter(bias[mask], variance[mask], s=5, color=colour, lw=0, alpha=0.6, label=name)
    line = row["fits"]["correct"]
    ends = np.array([bias[correct & (bias > 0)].min(), bias[correct].max()])
    axes.plot(ends, np.exp(line["intercept"]) * ends ** line["slope"], "k-", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="bias^2", ylabel="variance")
    axes.set_title(
        f"width {row['width']}: slope {line['slope']:.2f}, R^2 {line['r2']:.2f}", fontsize=9
    )
    axes.legend(fontsize=8)


def _write(setup: Setup, rows: Sequence[Mapping[str, Any]], commit: str, stem: Path) -> None:
    seeds = len({row["seed"] for row in rows})
    report = {
        "benchmark": "diagnose",
        "commit": commit,
        "machine": provenance.machine(),
        "date": datetime.date.today().isoformat(),
        "setup": asdict(setup),
        "versions": {"torch": need("torch", "train").__version__, "numpy": np.__version__},
        "seeds": seeds,
        "summary": summary(rows),
        "collapse": collapse(),
        "rows": list(rows),
    }
    plain = json.loads(json.dumps(report))
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(table(plain), "utf-8")
    plot(plain, stem.with_suffix(".png"))
    print(f"written: {stem.name}.json, .md, .png, of {seeds} seeds", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot after each seed: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_diagnose", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="a few points, to see that it runs")
    parser.add_argument("--seeds", type=int, help="how many, others than usual")
    parser.add_argument("--journal", type=Path, help="of what is measured; beside the data sets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else DIGITS
    if given.seeds is not None:
        setup = replace(setup, seeds=given.seeds)
    name = f"diagnose-{'tiny' if given.tiny else setup.dataset}"
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    try:
        path = given.journal or cache_folder() / f"{name}.jsonl"
        journal = Journal(path, {**asdict(setup), "seeds": 0})  # more seeds may follow
        for whole in run(setup, journal):
            rows = [row for row in journal.rows if row["seed"] < whole]
            _write(setup, rows, commit, given.results / name)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
