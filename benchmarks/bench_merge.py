"""Recall of the merge over shards: predicted beside measured, for 2 to 16 shards.

    datasets.py, exact answers of shards -> [bench_merge.py] -> results/merge.json, .md, .png

Points lie where a cluster would put them, by the hash of their ids; each shard answers with its c
exactly nearest, and soardb/cluster/merge.py puts them together. What is lost is lost by the merge
alone. Prediction: E[recall] = (s / k) E[min(X, c)] with X hypergeometric (soardb/topk/shards.py).

    python -m benchmarks.bench_merge
    python -m benchmarks.bench_merge --tiny

A placement is one draw, and all queries share it. So it is repeated with other ids for the same
points, and the interval is that of the mean over placements (Student's t); their spread is taken to
be at least that of independent losses as many as predicted, or rare losses that did not happen in
any of them would leave no interval at all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import provenance
from benchmarks.datasets import load
from soardb.cluster.merge import cut, merged
from soardb.cluster.placement import shard_of
from soardb.hits import HitColumns
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.metrics import unit_rows
from soardb.topk import expected_recall, plan_shards

RESULTS = Path(__file__).resolve().parent / "results"
TARGETS = (0.9, 0.95, 0.99, 0.999)
F64 = npt.NDArray[np.float64]
Row = dict[str, Any]

# Student's t at 97.5 % for 1 to 15 degrees of freedom, and the normal value beyond.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
      2.145, 2.131)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What one run measures. placements: how often the points are dealt out anew."""

    datasets: tuple[str, ...] = ("wordnet-minilm-384-angular", "glove6b-100-angular")
    shards: tuple[int, ...] = tuple(range(2, 17))
    ks: tuple[int, ...] = (10, 100)
    queries: int = 100
    placements: int = 6
    threads: int = 1
    seed: int = 0


# ---------------------------------------------------------------- one placement


def ids_of(n: int, placement: int) -> I64:
    """(n,) int64: names of n points, others for each placement."""
    return np.arange(n, dtype=np.int64) + (np.int64(placement) << np.int64(40))


def answers(
    vectors: F32, queries: F32, ids: I64, shards: int, k: int, *, threads: int = 1
) -> list[HitColumns]:
    """The k exactly nearest of each shard, under inner product; fewer where it holds fewer.

    vectors (n, d), queries (nq, d) float32; ids (n,) int64, by which points are placed.
    """
    owner, parts = shard_of(ids.tolist(), shards), []
    for shard in range(shards):
        rows = np.flatnonzero(owner == shard)
        most = min(k, len(rows))
        scores, places = active.exact_topk(vectors[rows], queries, most, "dot", threads)
        parts.append(_columns(scores, ids[rows][places]))
    return parts


def _columns(scores: F32, ids: I64) -> HitColumns:
    nq, k = scores.shape
    counts = np.full(nq, k, np.int64)
    return HitColumns(counts, ids.ravel(), scores.ravel(), None, None, None, None, "dot", 0)


def merge_recall(parts: Sequence[HitColumns], whole: HitColumns, c: int, k: int) -> F64:
    """(nq,) float64: the share of the hits in `whole`, the k best of all, that c a shard keep."""
    few = merged([cut(part, c) for part in parts], k)
    # One number for a query and a rank of an id, so that one look-up serves all queries.
    names, ranks = np.unique(np.asarray(whole.ids), return_inverse=True)
    wanted = ranks + np.repeat(np.arange(len(whole.counts)), whole.counts) * len(names)
    place = np.minimum(np.searchsorted(names, np.asarray(few.ids)), len(names) - 1)
    is_named = names[place] == np.asarray(few.ids)
    found = place + np.repeat(np.arange(len(few.counts)), few.counts) * len(names)
    kept = np.isin(wanted, found[is_named]).reshape(len(whole.counts), -1)
    return np.asarray(kept.mean(axis=1))


# ---------------------------------------------------------------- all of them


def widths(n: int, k: int, shards: int) -> list[int]:
    """What is asked of a shard: from ceil(k / s) to k, and what the planner says for TARGETS."""
    least = -(-k // shards)
    grid = np.unique(np.round(np.geomspace(least, k, 7)).astype(int)).tolist()
    plans = [plan_shards(n, k, shards, recall_target=target).c for target in TARGETS]
    return sorted({*grid, *(max(c, least) for c in plans), *plans})


def interval(means: F64, predicted: float, hits: int) -> float:
    """Half the width of the 95 % interval of the mean of these, each of so many wanted hits."""
    t = _T[len(means) - 2] if len(means) - 2 < len(_T) else 1.96
    spread = max(float(means.std(ddof=1)), (max(0.0, 1 - predicted) / hits) ** 0.5)
    return float(t * spread / len(means) ** 0.5)


def measured(vectors: F32, queries: F32, setup: Setup) -> list[Row]:
    """A row for each number of shards, k and c."""
    n, rows = len(vectors), []
    for shards in setup.shards:
        found: dict[tuple[int, int], list[float]] = {}
        for placement in range(setup.placements):
            ids = ids_of(n, placement + setup.seed * setup.placements)
            deep = answers(vectors, queries, ids, shards, max(setup.ks), threads=setup.threads)
            for k in setup.ks:
                parts = [cut(part, k) for part in deep]
                whole = merged(parts, k)
                for c in widths(n, k, shards):
                    recall = float(merge_recall(parts, whole, c, k).mean())
                    found.setdefault((k, c), []).append(recall)
        for (k, c), means in sorted(found.items()):
            rows.append(_row(n, len(queries), k, shards, c, np.array(means)))
    return rows


def _row(n: int, nq: int, k: int, shards: int, c: int, means: F64) -> Row:
    predicted = expected_recall(n, k, shards, c)
    half = interval(means, predicted, nq * k)
    return {
        "shards": shards,
        "k": k,
        "c": c,
        "slack": round(c * shards / k, 4),
        "predicted": predicted,
        "measured": float(means.mean()),
        "interval": [float(means.mean()) - half, float(means.mean()) + half],
        "placements": means.tolist(),
        "planned_for": [
            target for target in TARGETS if plan_shards(n, k, shards, recall_target=target).c == c
        ],
    }


def summary(rows: Sequence[Row]) -> Row:
    """How far prediction and measurement are apart, over all rows that can lose anything."""
    lossy = [row for row in rows if row["c"] < row["k"]]
    apart = np.array([row["measured"] - row["predicted"] for row in lossy])
    inside = [row["interval"][0] - 1e-9 <= row["predicted"] <= row["interval"][1] + 1e-9
              for row in lossy]  # fmt: skip
    plans = [(row, target) for row in rows for target in row["planned_for"]]
    short = [max(0.0, target - row["measured"]) for row, target in plans]
    return {
        "rows": len(lossy),
        "mean_difference": float(apart.mean()),
        "rms_difference": float(np.sqrt((apart**2).mean())),
        "most_difference": float(np.abs(apart).max()),
        "share_of_intervals_that_hold_the_prediction": float(np.mean(inside)),
        "plans": len(plans),
        "most_short_of_a_plan": float(max(short)),
    }


# ---------------------------------------------------------------- for people


def as_table(report: Row) -> str:
    """What the planner asks for and what it gave, as Markdown; one table a data set."""
    lines = []
    for name, part in report["datasets"].items():
        lines += [f"{name}, {part['n']:,} vectors, {part['queries']} queries, "
                  f"{report['setup']['placements']} placements."]  # fmt: skip
        lines += ["", "| shards | k | planned for | c | c s / k | predicted | measured | ± |"]
        lines += ["| ---: " * 8 + "|"]
        lines += [
            f"| {row['shards']} | {row['k']} | {target:g} | {row['c']} | {row['slack']:.2f} "
            f"| {row['predicted']:.4f} | {row['measured']:.4f} "
            f"| {(row['interval'][1] - row['interval'][0]) / 2:.4f} |"
            for row in part["rows"]
            for target in row["planned_for"]
        ]
        said = part["summary"]
        lines += [
            "",
            f"Over {said['rows']} settings with c < k the measured recall less the predicted is "
            f"{said['mean_difference']:+.5f} in the mean, {said['most_difference']:.4f} at most; "
            f"{said['share_of_intervals_that_hold_the_prediction']:.0%} of the 95 % intervals hold "
            "the prediction.",
            "",
        ]
    return "\n".join(lines)


def plot(report: Row, path: Path) -> None:
    """Recall over c s / k: lines are predicted, points with their intervals measured."""
    from matplotlib.figure import Figure

    shown, ks = (2, 4, 8, 16), report["setup"]["ks"]
    parts = report["datasets"]
    figure = Figure(figsize=(5 * len(ks), 3.4 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), len(ks), squeeze=False)
    for line, (name, part) in enumerate(parts.items()):
        for column, k in enumerate(ks):
            axes = grid[line][column]
            for colour, shards in enumerate(s for s in shown if s in report["setup"]["shards"]):
                rows = [r for r in part["rows"] if r["k"] == k and r["shards"] == shards]
                slack = [row["slack"] for row in rows]
                axes.plot(slack, [row["predicted"] for row in rows], color=f"C{colour}", lw=1)
                axes.errorbar(
                    slack,
                    [row["measured"] for row in rows],
                    [(row["interval"][1] - row["interval"][0]) / 2 for row in rows],
                    fmt="o",
                    ms=3,
                    color=f"C{colour}",
                    label=f"{shards} shards",
                )
            axes.set_xscale("log", base=2)
            axes.set_title(f"{name}, k = {k}", fontsize=9)
            axes.set_xlabel("results that travel, c s / k")
            axes.set_ylabel("recall of the merge")
            axes.grid(visible=True, alpha=0.3)
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def unit_vectors(name: str, setup: Setup) -> tuple[F32, F32]:
    """(vectors, queries drawn at random) of a set under cosine, of unit length."""
    dataset = load(name)
    drawn = np.random.default_rng(setup.seed).permutation(len(dataset.test))[: setup.queries]
    return unit_rows(dataset.train), unit_rows(dataset.test[drawn])


def run(setup: Setup) -> Row:
    """Every data set, as JSON values."""
    datasets: Row = {}
    for name in setup.datasets:
        vectors, queries = unit_vectors(name, setup)
        rows = measured(vectors, queries, setup)
        datasets[name] = {
            "n": len(vectors),
            "d": vectors.shape[1],
            "queries": len(queries),
            "rows": rows,
            "summary": summary(rows),
        }
        print(f"{name}: {json.dumps(datasets[name]['summary'])}", flush=True)
    return {
        "benchmark": "merge",
        "setup": asdict(setup),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "datasets": datasets,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; write JSON, table and plot; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small set, for a look")
    parser.add_argument("--shards", help="numbers, such as 2,4,8,12,16")
    parser.add_argument("--placements", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = Setup(threads=given.threads)
    if given.tiny:
        setup = Setup(("tiny-32-angular",), (2, 5, 16), queries=50, placements=4)
    changes: Row = {}
    if given.shards:
        changes["shards"] = tuple(int(text) for text in given.shards.split(","))
    if given.placements:
        changes["placements"] = given.placements
    setup = Setup(**asdict(setup) | changes)
    report = run(setup)
    given.out.mkdir(parents=True, exist_ok=True)
    stem = given.out / ("merge-tiny" if given.tiny else "merge")
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(as_table(report), "utf-8")
    plot(report, stem.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
