"""Recall as a promise: what was asked, what the plan expected, what exact answers say was found.

    datasets.py -> soardb.connect -> [bench_target.py] -> results/target-*.json, *.png

A collection is loaded and compacted, which measures its curves from its own points. All queries of
the data set, which no curve has seen, are then asked with each target_recall: without a filter, and
under filters that let through a tenth and a hundredth of the points. A set with fewer than 5,000
has so many of its points set aside and asked too. "random" has nothing to do with the vectors,
"position" are the first points of the file, "clustered" whole groups of them (bench_filters.py). A
filter that follows the vectors is asked until the worker has measured it, as it would be in use.
QPS are single calls without payload, by CPU time; exact plans are asked 500 times, since their
recall is 1.

A found recall has the standard error that is shown, and the curve has one of its own of about 0.004
at 0.8 and 0.001 at 0.99: --seed draws other questions for it.

    python -m benchmarks.bench_target glove6b-100-angular glove6b-50-angular
    python -m benchmarks.bench_target --keep folder-of-built-collections --seed 1
    python -m benchmarks.bench_target --tiny
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks.bench_churn import drawn, finish
from benchmarks.datasets import Dataset, load
from soardb import F
from soardb.clustering import kmeans
from soardb.filters import Expr
from soardb.kernels.layout import F32
from soardb.metrics import unit_rows
from soardb.soar import nearest

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
TARGETS = (0.8, 0.9, 0.95, 0.99)
TINY = "tiny-32-angular"
SETS = (
    "glove6b-50-angular",
    "glove6b-100-angular",
    "wordnet-minilm-384-angular",
    "synth-128-1m-euclidean",
)
_BATCH = 10_000
_GROUPS = 1000
_WAIT_S = 120
_EXACT = 500
_LEAST_QUERIES, _ASIDE = 5_000, 5
_NAME = "all"


@dataclass(frozen=True)
class Setup:
    """What one run measures."""

    dataset: str
    queries: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One target under one filter. expected: None where nothing was measured for such a search."""

    kind: str
    share: float
    target: float
    expected: float | None
    recall: float
    error: float
    """Standard error of the measured recall, from the queries' spread."""
    queries: int
    qps: float
    strategy: str
    nprobe: int | None
    rerank: int | None


def run(setup: Setup, folder: Path) -> list[Row]:
    """Every row of the table, printed as it is measured; the collection stays in the folder."""
    data = with_queries(load(setup.dataset))
    n = len(data.train)
    queries = drawn(data.test, setup.queries, setup.seed)
    groups = _groups(data.train, data.metric)
    rows = []
    with soardb.connect(folder / setup.dataset) as database:
        made = _opened(database, data, groups)
        started = time.perf_counter()
        made.tune(seed=setup.seed)
        print(f"{setup.dataset}: {n:,} points, curves in {time.perf_counter() - started:.1f} s")
        print(f"{'filter':<10} {'share':>7} {'asked':>6} {'expected':>8} {'found':>15} {'QPS':>8}"
              "  plan")  # fmt: skip
        for kind, share, where in _filters(n, groups):
            truth = made.search(queries, K, filter=where, exact=True, with_payload=False)
            _settle(made, queries, where)
            for target in TARGETS:
                row = _measure(made, queries, truth, kind, share, where, target)
                rows.append(row)
                expected = "none" if row.expected is None else f"{row.expected:.4f}"
                plan = f"{row.strategy}, {row.nprobe}, {row.rerank}" if row.nprobe else row.strategy
                print(f"{kind:<10} {share:>7.2%} {target:>6} {expected:>8} "
                      f"{row.recall:>6.4f} +-{row.error:.4f} {row.qps:>8,.0f}  {plan}",
                      flush=True)  # fmt: skip
    return rows


def with_queries(data: Dataset) -> Dataset:
    """The set, with points set aside as queries where it has too few."""
    more = max(0, _LEAST_QUERIES - len(data.test))
    if not more or more > len(data.train) // 20:
        return data
    rng = np.random.default_rng(_ASIDE)
    is_asked = np.zeros(len(data.train), bool)
    is_asked[rng.choice(len(data.train), more, replace=False)] = True
    train = np.ascontiguousarray(data.train[~is_asked])
    return replace(data, train=train, test=np.concatenate([data.test, data.train[is_asked]]))


def _opened(database: soardb.Database, data: Dataset, groups: np.ndarray) -> soardb.Collection:
    """The collection of a set, loaded and compacted if the database has none yet."""
    if _NAME in database.list_collections():
        return database.get_collection(_NAME)
    n, rank = len(data.train), np.random.default_rng(0).permutation(len(data.train))
    schema = {"rank": "int", "place": "int", "group": "int"}
    made = database.create_collection(_NAME, data.train.shape[1], data.metric, schema=schema)
    for first in range(0, n, _BATCH):
        part = slice(first, min(first + _BATCH, n))
        ids = np.arange(part.start, part.stop)
        columns: dict[str, Any] = {"rank": rank[part], "place": ids, "group": groups[part]}
        made.upsert(ids, data.train[part], columns, ack="logged")
    made.compact(retrain=True)
    return made


def _groups(vectors: F32, metric: str) -> np.ndarray:
    """(n,) int64, which follow the vectors."""
    compared = unit_rows(vectors) if metric == "cosine" else vectors
    centres = kmeans(compared, min(_GROUPS, len(vectors) // 20), seed=1, points_per_centroid=50)
    return nearest(compared, centres).astype(np.int64)


def _filters(n: int, groups: np.ndarray) -> Iterator[tuple[str, float, Expr | None]]:
    yield "none", 1.0, None
    counts = np.bincount(groups)
    order = np.argsort(-counts, kind="stable")
    for share in (0.1, 0.01):
        yield "random", share, F("rank") < round(share * n)
        yield "position", share, F("place") < round(share * n)
        chosen = order[:: round(1 / share)]
        yield "clustered", float(counts[chosen].sum() / n), F("group").isin(chosen.tolist())


def _settle(made: soardb.Collection, queries: F32, where: Expr | None) -> None:
    """Ask as often as makes a filter worth measuring, and wait until that is done."""
    if where is None:
        return
    for query in queries[:100]:
        made.search(query, K, filter=where, with_payload=False)
    until = time.monotonic() + _WAIT_S
    while made._core.contents.filter_curves.wanted() and time.monotonic() < until:
        time.sleep(0.1)


def _measure(
    made: soardb.Collection,
    queries: F32,
    truth: Sequence[Any],
    kind: str,
    share: float,
    where: Expr | None,
    target: float,
) -> Row:
    plan = made.search(queries[0], K, filter=where, target_recall=target, explain=True).plan
    if plan.strategy.startswith("exact"):
        queries, truth = queries[:_EXACT], truth[:_EXACT]
    last = np.array([hits.scores[-1] for hits in truth])
    started = time.thread_time()
    found = [
        made.search(query, K, filter=where, target_recall=target, with_payload=False)
        for query in queries
    ]
    seconds = time.thread_time() - started
    scores = np.stack([hits.scores for hits in found])
    recalls = (scores >= (last - 1e-6 * np.abs(last))[:, None]).mean(axis=1)
    return Row(
        kind,
        share,
        target,
        plan.expected_recall,
        float(recalls.mean()),
        float(recalls.std() / np.sqrt(len(recalls))),
        len(recalls),
        len(queries) / seconds,
        plan.strategy,
        plan.nprobe,
        plan.rerank,
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """What was found less what was asked, by target and filter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys((row["kind"], round(row["share"], 2)) for row in report["rows"]))
    for at, (kind, share) in enumerate(names):
        rows = [r for r in report["rows"] if (r["kind"], round(r["share"], 2)) == (kind, share)]
        places = [i + 0.08 * (at - len(names) / 2) for i in range(len(rows))]
        misses = [row["recall"] - row["target"] for row in rows]
        errors = [2 * row["error"] for row in rows]
        axes.errorbar(places, misses, errors, fmt="o", ms=4, label=f"{kind} {share:.0%}")
    axes.axhspan(-0.01, 0.01, color="0.9", zorder=0)
    axes.set_xticks(range(len(TARGETS)), [f"{target:g}" for target in TARGETS])
    axes.set(xlabel="target_recall", ylabel="recall found less recall asked")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"recall as a promise, {report['setup']['dataset']}")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each set, write JSON and plot of each; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_target", description=__doc__)
    parser.add_argument("datasets", nargs="*", default=SETS)
    parser.add_argument("--tiny", action="store_true", help=f"only {TINY}")
    parser.add_argument("--queries", type=int, default=Setup.queries)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="where collections stay, and are used again")
    given = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for dataset in [TINY] if given.tiny else given.datasets:
        setup = Setup(dataset, given.queries, given.seed)

        def kept(setup: Setup, folder: Path) -> list[Row]:
            return run(setup, given.keep or folder)

        code = finish("target", setup, given.results, "rows", kept, plot)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
