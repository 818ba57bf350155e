"""Points read against k-means recall: what spilling buys before any quantisation.

    datasets.py -> soardb.clustering, soardb.soar -> [bench_kmr.py] -> results/kmr-*.json, *.png

One k-means partitioning is trained for a data set; then every vector gets no second partition, its
second nearest one, or the one that SOAR chooses at each lambda. For each rule the curve says how
many points must be read, both copies of a spilled vector counted, until the partitions visited
hold a given share of the true neighbours. Rules are compared by the points they read at equal
recall, which is fair to lists of different lengths; at equal nprobe a spilled index always wins.

    python -m benchmarks.bench_kmr glove6b-100-angular
    python -m benchmarks.bench_kmr synth-128-1m-euclidean --nlist 2500 --k 10
    python -m benchmarks.bench_kmr tiny-32-angular --nlist 20

SOAR stores a vector once where no second partition scores better than the first, as the index
does; --always adds the curves in which every vector is stored twice. Second nearest always stores
twice: the first partition is the nearest one and would always win.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from benchmarks.datasets import Dataset, load, names
from soardb.clustering import avq_centroids, kmeans
from soardb.errors import InvalidArgument, SoarError
from soardb.evaluate import (
    KMeansRecall,
    ResidualAngles,
    kmeans_recall,
    plot_kmeans_recall,
    plot_residual_angles,
    residual_angles,
    score_errors,
)
from soardb.kernels.layout import F32, I32
from soardb.metrics import unit_rows
from soardb.soar import nearest, spill

RESULTS = Path(__file__).resolve().parent / "results"
TARGETS = (0.8, 0.9, 0.95, 0.99)
LAMBDAS = (0.5, 1.0, 1.5, 2.5)
LEAST_POINTS_A_CENTROID = 128
PLAIN, SECOND = "no spill", "second nearest"


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    nlist    None: one partition for every 400 vectors
    avq_eta  1 leaves the means of k-means; more moves them as AVQ does
    always   measure also SOAR with every vector stored twice
    """

    dataset: str
    nlist: int | None = None
    k: int = 100
    queries: int = 2000
    lambdas: tuple[float, ...] = LAMBDAS
    avq_eta: float = 1.0
    always: bool = False
    iterations: int = 10
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Rule:
    """One way of spilling, measured; angles and correlation need a second partition."""

    name: str
    curve: KMeansRecall
    angles: ResidualAngles | None = None
    correlation: float | None = None

    def points_at(self, recall: float) -> float:
        return self.curve.points_read_at(recall)


def measure(setup: Setup) -> tuple[list[Rule], dict[str, Any]]:
    """Train one partitioning and spill by every rule: the rules, and the facts of the run."""
    dataset = load(setup.dataset)
    vectors, queries, true_rows = _comparable(dataset, setup)
    nlist = setup.nlist or max(1, len(vectors) // 400)
    points_a_centroid = len(vectors) // nlist
    if points_a_centroid < LEAST_POINTS_A_CENTROID:
        raise InvalidArgument(
            f"expected nlist of at most {len(vectors) // LEAST_POINTS_A_CENTROID}, so that k-means "
            f"sees {LEAST_POINTS_A_CENTROID} points a centroid, got {nlist}"
        )
    start = time.perf_counter()
    centroids = kmeans(
        vectors,
        nlist,
        seed=setup.seed,
        iterations=setup.iterations,
        points_per_centroid=points_a_centroid,
        threads=setup.threads,
    )
    primary = nearest(vectors, centroids, threads=setup.threads)
    if setup.avq_eta != 1:
        centroids = avq_centroids(vectors, primary, centroids, setup.avq_eta)
    train_s = time.perf_counter() - start
    rules = list(_rules(setup, vectors, centroids, primary, queries, true_rows, dataset.metric))
    facts = {
        "n": len(vectors),
        "d": vectors.shape[1],
        "metric": dataset.metric,
        "sha256": dataset.sha256,
        "nlist": len(centroids),
        "points_a_centroid": points_a_centroid,
        "train_s": round(train_s, 2),
        "largest_list": int(np.bincount(primary).max()),
    }
    return rules, facts


def _comparable(dataset: Dataset, setup: Setup) -> tuple[F32, F32, I32]:
    """(vectors, queries, true rows), at unit length under cosine as the index compares them.

    Queries are drawn: the first ones of a word set are its frequent words, which are easier.
    """
    if not 1 <= setup.k <= dataset.neighbors.shape[1]:
        raise InvalidArgument(
            f"expected k within 1..{dataset.neighbors.shape[1]}, the neighbours that "
            f"{dataset.name} lists, got {setup.k}"
        )
    rng = np.random.default_rng(setup.seed)
    chosen = rng.permutation(len(dataset.test))[: setup.queries]
    true_rows = dataset.neighbors[chosen, : setup.k]
    if dataset.metric == "cosine":
        return unit_rows(dataset.train), unit_rows(dataset.test[chosen]), true_rows
    return dataset.train, dataset.test[chosen], true_rows


def _rules(
    setup: Setup,
    vectors: F32,
    centroids: F32,
    primary: I32,
    queries: F32,
    true_rows: I32,
    metric: str,
) -> Iterator[Rule]:
    yield Rule(PLAIN, kmeans_recall(centroids, primary, queries, true_rows, metric))
    variants = [(SECOND, 0.0, False)]
    variants += [(f"SOAR {soar_lambda:g}", soar_lambda, True) for soar_lambda in setup.lambdas]
    if setup.always:
        variants += [(f"SOAR {value:g}, always", value, False) for value in setup.lambdas]
    for name, soar_lambda, include_primary in variants:
        spilled = spill(
            vectors,
            centroids,
            primary,
            soar_lambda=soar_lambda,
            include_primary=include_primary,
            threads=setup.threads,
        )
        both = np.stack((primary, spilled), axis=1)
        errors = score_errors(vectors, centroids, primary, spilled, queries, true_rows)
        yield Rule(
            name,
            kmeans_recall(centroids, both, queries, true_rows, metric),
            residual_angles(vectors, centroids, primary, spilled),
            errors.correlation,
        )


def as_report(setup: Setup, rules: Sequence[Rule], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that a reader needs to make the figures again, as JSON values."""
    return {
        "benchmark": "kmr",
        "commit": provenance.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": provenance.machine(),
        "setup": asdict(setup),
        **facts,
        "rules": [_rule_report(rule) for rule in rules],
    }


def _rule_report(rule: Rule) -> dict[str, Any]:
    steps = np.unique(np.geomspace(1, len(rule.curve.nprobe), 200).round().astype(int)) - 1
    report: dict[str, Any] = {
        "name": rule.name,
        "points_read_at": {f"{target:g}": round(rule.points_at(target), 1) for target in TARGETS},
        "nprobe": rule.curve.nprobe[steps].tolist(),
        "points_read": rule.curve.points_read[steps].round(1).tolist(),
        "recall": rule.curve.recall[steps].round(6).tolist(),
    }
    if rule.angles is not None and rule.correlation is not None:
        report["spilled_fraction"] = round(rule.angles.spilled_fraction, 4)
        report["mean_abs_cosine"] = round(rule.angles.mean_abs, 4)
        report["score_error_correlation"] = round(rule.correlation, 4)
    return report


def as_table(rules: Sequence[Rule]) -> str:
    """Points read at each recall, and in brackets how many times fewer than without spilling."""
    plain = rules[0]
    head = ["rule", *(f"at {target:g}" for target in TARGETS), "spilled", "|cos|", "correlation"]
    lines = [head]
    for rule in rules:
        cells = [rule.name]
        for target in TARGETS:
            points = rule.points_at(target)
            cells.append(f"{points:,.0f} ({plain.points_at(target) / points:.2f}x)")
        if rule.angles is None or rule.correlation is None:
            cells += ["0%", "", ""]
        else:
            cells.append(f"{rule.angles.spilled_fraction:.0%}")
            cells += [f"{rule.angles.mean_abs:.3f}", f"{rule.correlation:.3f}"]
        lines.append(cells)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON and figures; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_kmr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help=f"one of {', '.join(names())}")
    parser.add_argument("--nlist", type=int, help="partitions; default n / 400")
    parser.add_argument("--k", type=int, default=100, help="true neighbours a query; default 100")
    parser.add_argument("--queries", type=int, default=2000, help="default 2000")
    parser.add_argument("--lambdas", type=float, nargs="+", default=list(LAMBDAS))
    parser.add_argument("--avq-eta", type=float, default=1.0, help="AVQ centroids; default 1, off")
    parser.add_argument("--always", action="store_true", help="also SOAR storing everything twice")
    parser.add_argument("--iterations", type=int, default=10, help="of k-means; default 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="for training; default 1")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = vars(parser.parse_args(arguments))
    folder: Path = options.pop("out")
    setup = Setup(**{**options, "lambdas": tuple(options["lambdas"])})
    try:
        rules, facts = measure(setup)
        report = as_report(setup, rules, facts)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{setup.dataset}: {facts['n']:,} x {facts['d']}, {facts['metric']}, "
        f"{facts['nlist']:,} partitions, recall@{setup.k}; points read a query"
    )
    print(as_table(rules))
    stem = f"kmr-{setup.dataset}-{facts['nlist']}-at{setup.k}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    title = f"{setup.dataset}, {facts['nlist']:,} partitions, k = {setup.k}"
    plot_kmeans_recall({r.name: r.curve for r in rules}, folder / f"{stem}.png", title=title)
    angles = {rule.name: rule.angles for rule in rules if rule.angles is not None}
    plot_residual_angles(angles, folder / f"{stem}-angles.png", title=title)
    print(f"written: {folder / stem}.json, .png, -angles.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
