"""What a run of bench_diagnose.py says: figures over the seeds, tables and a picture.

    bench_diagnose.py -> [diagnose_report.py] -> results/diagnose-*.md, .png

Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["figures", "plot", "summary", "table"]

CELL = ("randomness", "width", "steps")


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each cell: of each figure the mean, lowest and highest over the seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in CELL), []).append(row)
    return [
        {
            **dict(zip(CELL, cell, strict=True)),
            "seeds": len(some),
            **_over_seeds([row["figures"] for row in some]),
        }
        for cell, some in groups.items()
    ]


def figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one ensemble, as bench_diagnose.measured() has it."""
    line, kl, off = row["fits"]["correct"], row["kl_fits"]["correct"], row["fits"]["wrong"]
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
        "wrong_slope": None if off is None else off["slope"],
        "wrong_r2": None if off is None else off["r2"],
        "cone_median": cone["median"],
        "cone_p99": cone["p99"],
        "cone_largest": cone["largest"],
        "above_1": cone["share_above"],
        "ece": calibration["ece"],
        "member_error": calibration["member_error"],
        "disagreement": calibration["disagreement"],
        "excess": calibration["excess"],
        "unsureness": calibration["unsureness"],
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


def _over_seeds(seeds: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in seeds[0]:
        values = [one[name] for one in seeds]
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
            "the wrong pictures, their median and the slope of their line. KL: the line of that "
            "decomposition through the correct ones.",
            "",
            *lines(
                ["", "median", "99 %", "largest", "above 1", "wrong", "of them", "their slope",
                 "KL: slope", "R^2"],
                [
                    [
                        name(row),
                        f"{row['cone_median']:.2f}",
                        f"{row['cone_p99']:.1f}",
                        f"{row['cone_largest']:.1f}",
                        f"{row['above_1']:.0%}",
                        f"{row['wrong']:.0f}",
                        cell(row, "wrong_ratio", ".3f"),
                        cell(row, "wrong_slope", ".2f"),
                        f"{row['kl_slope']:.3f}",
                        f"{row['kl_r2']:.3f}",
                    ]
                    for row in rows
                ],
            ),
            "",
            "Calibration: of a calibrated ensemble disagreement is the error of a replica, and the "
            "last two columns agree.",
            "",
            *lines(
                ["", "ECE", "disagreement", "error of a replica", "mean bias^2", "mean variance",
                 "difference, plain", "1 - E h^2"],
                [
                    [
                        name(row),
                        *(
                            f"{row[figure]:.4f}"
                            for figure in (
                                "ece", "disagreement", "member_error", "mean_bias",
                                "mean_variance", "excess", "unsureness",
                            )
                        ),
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
    line = row["figures"]
    ends = np.array([bias[correct & (bias > 0)].min(), bias[correct].max()])
    axes.plot(ends, np.exp(line["intercept"]) * ends ** line["slope"], "k-", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="bias^2", ylabel="variance")
    axes.set_title(
        f"width {row['width']}: slope {line['slope']:.2f}, R^2 {line['r2']:.2f}", fontsize=9
    )
    axes.legend(fontsize=8)
