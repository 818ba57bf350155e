"""SOAR on against off at equal recall: speed and points read, over lambda and numbers of lists.

    bench_peers.measure, SoarIndex -> [bench_soar.py] -> results/soar-*.json, *.png, *.md

Spilling stores most vectors twice, so lists are longer and fewer are visited. At equal nprobe a
spilled index always wins; here every lambda, 0 being plain IVF, sweeps nprobe and rerank, and what
is compared is what the front of each costs at the same recall: queries per second on one core, and
codes read per query. Each lambda is tried with 1.75 sqrt(n) lists and with twice as many, for
spilling competes with finer lists.

    python -m benchmarks.bench_soar --dataset glove6b-100-angular
    python -m benchmarks.bench_soar --dataset tiny-32-angular --lambdas 0,1.5 --repeat 1

The default that follows is named in the report: the lambda whose slowest ratio to the best of all,
over the recalls of the table, is the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, index_cache, plots, provenance
from benchmarks.bench_peers import RESULTS, choose_queries, circumstances, measure
from benchmarks.peer_worker import Options
from benchmarks.peers import PEERS, Soardb, Spec, partitions
from soardb.errors import InvalidArgument, SoarError

LAMBDAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
FACTORS = (1, 2)  # of peers.partitions
_COLOURS = ("#5a6570", "#c98a1e", "#2e8b57", "#c8102e", "#1f5fa8", "#8e5ba6")


def specs(n: int, lambdas: Sequence[float], factors: Sequence[int]) -> list[Spec]:
    """One build for each lambda and number of lists; all else is what train() chooses."""
    return [
        Spec("soardb", f"l{factor * partitions(n)}-lambda{value:g}", {
            "nlist": factor * partitions(n), "soar_lambda": value,
        })
        for factor in factors
        for value in lambdas
    ]  # fmt: skip


def run(
    options: Options, lambdas: Sequence[float], factors: Sequence[int], lock: Path | None = None
) -> dict[str, Any]:
    """Measure every build; return the report. Errors as of bench_peers.measure."""
    dataset = datasets.load(options.dataset)
    wanted = specs(len(dataset.train), lambdas, factors)
    summaries = measure(wanted, dataset, options, lock)
    queries = dataset.test[choose_queries(len(dataset.test), options.queries)]
    for spec, summary in zip(wanted, summaries, strict=True):
        index = _opened(spec, dataset, options)
        summary["spilled_share"] = index.spilled_share
        summary["described"] = index.describe()
        for point in summary["points"]:
            point["single"]["codes_read"] = _codes_read(index, queries, options.k, point)
    return {
        "benchmark": "soar",
        "commit": provenance.commit(),
        **circumstances(dataset, options),
        "lambdas": list(lambdas),
        "peers": summaries,
        "follows": best_lambda(summaries),
    }


def _opened(spec: Spec, dataset: datasets.Dataset, options: Options) -> Any:
    """The index that `measure` has built and kept."""
    peer = Soardb(dataset.metric, options.k, spec.build)
    index_cache.reopen(
        peer,
        index_cache.folder_of(
            spec, PEERS["soardb"], dataset.sha256, options.k, options.build_threads
        ),
    )
    return peer.index


def _codes_read(index: Any, queries: Any, k: int, point: Mapping[str, Any]) -> float:
    """The mean number of codes in the lists that a query visits, both copies of a vector counted.

    The index knows it of each query and keeps it to itself; its searcher tells.
    """
    arguments = point["arguments"]
    knobs = [arguments.get(name) for name in ("nprobe", "rerank", "stop", "target_recall")]
    plan = index._plan(k, *knobs)
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    codes = np.empty(len(queries), np.int64)
    index._open_searcher().search(queries, k, plan, 1, scores, ids, None, codes)
    return float(codes.mean())


# --- what the report says -----------------------------------------------------------------------


def costs(peer: Mapping[str, Any], target: float) -> tuple[float | None, float | None]:
    """QPS and codes read at a recall, each off the front of its own figure."""
    points = [point["single"] for point in peer["points"]]
    qps = plots.qps_at(plots.pareto(points), target)
    # Fewer codes are better as more queries a second are, so the same front serves for both.
    rates = [{"recall": p["recall"], "qps": 1 / p["codes_read"]} for p in points]
    rate = plots.qps_at(plots.pareto(rates), target)
    return qps, None if rate is None else 1 / rate


def best_lambda(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The build whose worst ratio to the best QPS over plots.TARGETS is highest, and that ratio."""
    table = {peer["label"]: [costs(peer, t)[0] or 0.0 for t in plots.TARGETS] for peer in summaries}
    best = [max(row[i] for row in table.values()) or 1.0 for i in range(len(plots.TARGETS))]
    ratios = {
        label: min(q / b for q, b in zip(row, best, strict=True)) for label, row in table.items()
    }
    label = max(ratios, key=lambda name: ratios[name])
    peer = next(peer for peer in summaries if peer["label"] == label)
    return {"label": label, **peer["build"], "worst_ratio_to_best": ratios[label]}


def table(report: Mapping[str, Any]) -> str:
    """QPS and codes read at each recall, a line for each build, as Markdown."""
    targets = plots.TARGETS
    header = [
        "lists", "lambda", "stored twice",
        *(f"QPS @{target:.2f}" for target in targets),
        *(f"codes read @{target:.2f}" for target in targets),
        "build s", "B/vector",
    ]  # fmt: skip
    rows = [header, ["---:"] * len(header)]
    for peer in report["peers"]:
        at = [costs(peer, target) for target in targets]
        rows.append([
            str(peer["build"]["nlist"]),
            f"{peer['build']['soar_lambda']:g}" if peer["build"]["soar_lambda"] else "off",
            f"{peer['spilled_share']:.0%}",
            *("-" if qps is None else f"{qps:,.0f}" for qps, _ in at),
            *("-" if codes is None else f"{codes:,.0f}" for _, codes in at),
            f"{peer['build_seconds']:.1f}",
            f"{peer['index_bytes'] / report['dataset']['n']:,.0f}",
        ])  # fmt: skip
    follows = report["follows"]
    kind = f"lambda {follows['soar_lambda']:g}" if follows["soar_lambda"] else "no spilling"
    last = (
        f"Closest to the best at every recall: {kind} with {follows['nlist']} lists, "
        f"never below {follows['worst_ratio_to_best']:.0%} of it."
    )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([plots.caption(report), "", *lines, "", last])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw QPS and codes read over recall, a colour a lambda, a dash a number of lists."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 6), layout="constrained")
    fast, lean = figure.subplots(1, 2)
    counts = sorted({peer["build"]["nlist"] for peer in report["peers"]})
    for peer in report["peers"]:
        lambda_ = peer["build"]["soar_lambda"]
        colour = _COLOURS[report["lambdas"].index(lambda_) % len(_COLOURS)]
        dash = ("solid", "dashed", "dotted")[counts.index(peer["build"]["nlist"]) % 3]
        name = f"{peer['build']['nlist']} lists, " + (f"lambda {lambda_:g}" if lambda_ else "off")
        points = [point["single"] for point in peer["points"]]
        front = plots.pareto(points)
        fast.plot([p["recall"] for p in front], [p["qps"] for p in front],
                  color=colour, linestyle=dash, label=name)  # fmt: skip
        front = plots.pareto([{**p, "qps": 1 / p["codes_read"]} for p in points])
        lean.plot([p["recall"] for p in front], [p["codes_read"] for p in front],
                  color=colour, linestyle=dash, label=name)  # fmt: skip
    fast.set(ylabel="QPS, one core, one call per query", yscale="log", xlabel="recall")
    lean.set(ylabel="codes read per query", yscale="log", xlabel="recall")
    for axes in (fast, lean):
        axes.set_xlim(0.85, 1.0)
        axes.grid(visible=True, which="both", color="0.92", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    lean.legend(frameon=False, fontsize=8)
    figure.suptitle(plots.caption(report), fontsize=9, color="0.35")
    figure.savefig(path, dpi=160)


# --- command line -------------------------------------------------------------------------------


def _numbers(text: str, kind: type[float] | type[int]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"expected numbers with commas between them, got {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and figure, print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_soar")
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--lambdas", default=",".join(f"{value:g}" for value in LAMBDAS))
    parser.add_argument("--factors", default=",".join(map(str, FACTORS)), help="of 1.75 sqrt(n)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--lock", type=Path, help="file to hold while building or measuring")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    options = Options(
        dataset=given.dataset,
        libraries=("soardb",),
        repeat=given.repeat,
        queries=given.queries,
        core=given.core,
        clock=given.clock,
    )
    try:
        report = run(
            options, _numbers(given.lambdas, float), _numbers(given.factors, int), given.lock
        )
    except SoarError as error:
        print(f"bench_soar: {error}", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    stem = given.out / f"soar-{given.dataset}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(report) + "\n")
    plot(report, stem.with_suffix(".png"))
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
