"""Filtered search: recall, speed and plan at each selectivity.

    datasets.py -> soardb.connect -> [bench_filters.py] -> results/filters-*.json, *.png

Every point carries three fields: `rank`, a random permutation, so that `rank < s * n` matches the
share s independently of the vectors; `group`, which follows the vectors (the nearest of 1,000 of
them), so that a query's neighbours match together or not at all; and `tag`, a keyword of chosen
frequency. For each share and each kind of filter: recall@10 at the default settings against exact
answers, whether min(10, matches) rows came every time, queries a second of single calls without
payload on one core, and the plan that was chosen. Between two writes a collection remembers which
rows a filter matches: "QPS" is with that, "fresh" with the filter evaluated anew at every query.

    python -m benchmarks.bench_filters glove6b-100-angular
    python -m benchmarks.bench_filters tiny-32-angular --queries 100
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks.bench_churn import drawn, finish, share_found
from benchmarks.datasets import load
from soardb import F
from soardb.clustering import kmeans
from soardb.filters import Expr
from soardb.kernels.layout import F32
from soardb.metrics import unit_rows
from soardb.soar import nearest

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
SHARES = (1.0, 0.9, 0.5, 0.1, 0.01, 0.001, 0.0001)
_BATCH = 10_000
_GROUPS = 1000


@dataclass(frozen=True)
class Setup:
    """What one run measures."""

    dataset: str
    queries: int = 500
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One filter. kind: "none", "independent", "keyword" or "clustered"."""

    kind: str
    share: float
    matches: int
    recall: float
    always_full: bool
    qps: float
    qps_fresh: float
    strategy: str
    nprobe: int | None
    rows_scanned: int


def run(setup: Setup, folder: Path) -> list[Row]:
    """Every row of the table, printed as it is measured."""
    data = load(setup.dataset)
    metric = data.metric
    rng = np.random.default_rng(setup.seed)
    n = len(data.train)
    queries = drawn(data.test, setup.queries, setup.seed)
    payloads = _payloads(data.train, rng, metric)
    rows = []
    with soardb.connect(folder / "db") as database:
        schema = {"rank": "int", "tag": "keyword", "group": "int"}
        collection = database.create_collection("all", data.train.shape[1], metric, schema=schema)
        for first in range(0, n, _BATCH):
            part = slice(first, min(first + _BATCH, n))
            columns: dict[str, Any] = {name: values[part] for name, values in payloads.items()}
            ids = np.arange(part.start, part.stop)
            collection.upsert(ids, data.train[part], columns, ack="logged")
        collection.compact(retrain=True)
        print(f"{'filter':<12} {'share':>8} {'matches':>8} {'recall@10':>9} {'full':>5} "
              f"{'QPS':>8} {'fresh':>8}  plan")  # fmt: skip
        for kind, share, where in _filters(n, payloads):
            row = _measure(collection, queries, setup, kind, share, where)
            rows.append(row)
            plan = f"{row.strategy}, nprobe {row.nprobe}" if row.nprobe else row.strategy
            print(f"{row.kind:<12} {row.share:>8.2%} {row.matches:>8,} {row.recall:>9.4f} "
                  f"{row.always_full!s:>5} {row.qps:>8,.0f} {row.qps_fresh:>8,.0f}  {plan}",
                  flush=True)  # fmt: skip
    return rows


def _payloads(
    vectors: F32, rng: np.random.Generator, metric: str
) -> dict[str, np.ndarray | list[str]]:
    n = len(vectors)
    compared = unit_rows(vectors) if metric == "cosine" else vectors
    centroids = kmeans(compared, min(_GROUPS, n // 20), seed=1, points_per_centroid=50)
    # tag "t0.01" stands on a hundredth of the points, and so on; the others have "other".
    tags = np.array(["other"] * n, dtype=object)
    order, first = rng.permutation(n), 0
    for share in SHARES[3:]:
        count = max(1, round(share * n))
        tags[order[first : first + count]] = f"t{share:g}"
        first += count
    return {
        "rank": rng.permutation(n),
        "tag": tags.tolist(),
        "group": nearest(compared, centroids).astype(np.int64),
    }


def _filters(n: int, payloads: dict[str, Any]) -> list[tuple[str, float, Expr | None]]:
    """(kind, share, filter) in the order of the table."""
    found: list[tuple[str, float, Expr | None]] = [("none", 1.0, None)]
    found += [("independent", s, F("rank") < max(1, round(s * n))) for s in SHARES]
    found += [("keyword", s, F("tag") == f"t{s:g}") for s in SHARES[3:]]
    counts = np.bincount(payloads["group"])
    order = np.argsort(-counts, kind="stable")
    for share in (0.5, 0.1, 0.01):
        # Groups spread over all of them until they hold the share.
        chosen = order[:: max(1, round(1 / share))]
        found.append(
            ("clustered", float(counts[chosen].sum() / n), F("group").isin(chosen.tolist()))
        )
    return found


def _measure(
    collection: soardb.Collection,
    queries: F32,
    setup: Setup,
    kind: str,
    share: float,
    where: Expr | None,
) -> Row:
    matches = collection.count(where)
    most = min(K, matches)
    expected = collection.search(queries, K, filter=where, exact=True, with_payload=False)
    truth = np.stack([h.ids for h in expected])
    found, times, fresh_times = [], [], []
    for _ in range(setup.repeats):
        started = time.perf_counter()
        found = [collection.search(q, K, filter=where, with_payload=False) for q in queries]
        times.append(time.perf_counter() - started)
        fresh_times.append(_fresh_seconds(collection, queries, where))
    is_full = all(len(hits) == most for hits in found)
    recall = share_found(np.stack([h.ids for h in found]), truth) if most else 1.0
    plan = collection.search(queries[0], K, filter=where, explain=True).plan
    assert plan is not None
    return Row(
        kind,
        share,
        matches,
        recall,
        is_full,
        len(queries) / float(np.median(times)),
        len(queries) / float(np.median(fresh_times)),
        plan.strategy,
        plan.nprobe,
        plan.rows_scanned,
    )


def _fresh_seconds(collection: soardb.Collection, queries: F32, where: Expr | None) -> float:
    """Seconds for all queries when none may use what an earlier one found out about the filter."""
    total = 0.0
    for query in queries:
        collection._core.contents.version += 1
        started = time.perf_counter()
        collection.search(query, K, filter=where, with_payload=False)
        total += time.perf_counter() - started
    return total


def plot(report: dict[str, Any], path: Path) -> None:
    """QPS and recall over selectivity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    speed, recall = figure.subplots(1, 2)
    for kind in ("independent", "keyword", "clustered"):
        rows = [row for row in report["rows"] if row["kind"] == kind]
        shares = [row["share"] for row in rows]
        speed.plot(shares, [row["qps"] for row in rows], marker="o", label=kind)
        recall.plot(shares, [row["recall"] for row in rows], marker="o", label=kind)
    for axes, label in ((speed, "queries a second, one core"), (recall, f"recall@{K}")):
        axes.set_xscale("log")
        axes.set_xlabel("share of points that match")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    speed.set_yscale("log")
    recall.axhline(0.95, color="black", linewidth=0.8, linestyle="dashed")
    recall.set_ylim(0.9, 1.005)
    speed.legend()
    figure.suptitle(f"filtered search at default settings, {report['setup']['dataset']}")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a row a filter, write JSON and plot; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_filters", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="glove6b-100-angular")
    parser.add_argument("--queries", type=int, default=Setup.queries)
    parser.add_argument("--repeats", type=int, default=Setup.repeats)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = Setup(given.dataset, given.queries, given.repeats, given.seed)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return finish("filters", setup, given.results, "rows", run, plot)


if __name__ == "__main__":
    sys.exit(main())
