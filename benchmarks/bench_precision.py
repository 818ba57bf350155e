"""What is kept of a vector: bytes, recall and time of each precision, side by side.

    SoarIndex(precision=...) -> [bench_precision.py] -> results/precision-*.json, *.md

The three indexes are trained alike and asked the same queries with the same settings, in turn, so
that what differs is what is kept alone. Recall is against the vectors as they were given, that of
an exact search included: what rounding itself loses. Beside it stands what the index foretells of
it (soardb/index/rounding.py) without those vectors.

    python -m benchmarks.bench_precision --dataset glove6b-100-angular
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks import datasets, provenance
from benchmarks.bench_peers import RESULTS
from soardb import SoarIndex
from soardb.evaluate.memory import bytes_per_vector
from soardb.index.ivf import _AsExamined
from soardb.index.rounding import kept_recall
from soardb.kernels.layout import F32, Precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SETTINGS = ((8, 60), (16, 100), (34, 165), (64, 165), (128, 450), (256, 900))  # nprobe, rerank
TARGETS = (0.8, 0.9, 0.95, 0.97, 0.99)
K = 10


def run(name: str, queries: int, repeat: int, seed: int, nlist: int | None) -> dict[str, Any]:
    """Build and measure; nlist None: as many lists as train() chooses."""
    dataset = datasets.load(name)
    vectors = np.ascontiguousarray(dataset.train)
    chosen = np.random.default_rng(seed).permutation(len(dataset.test))[:queries]
    asked = np.ascontiguousarray(dataset.test[chosen])
    truth: Any = dataset.neighbors[chosen, :K]
    indexes: dict[Precision, SoarIndex] = {}
    report: dict[Precision, dict[str, Any]] = {}
    for precision in PRECISIONS:
        started = time.process_time()
        index = SoarIndex(vectors.shape[1], dataset.metric, nlist=nlist, precision=precision)
        index.train(vectors)
        index.add(vectors)
        built = time.process_time() - started
        index.tune()
        indexes[precision] = index
        exact = index.search(asked, K, exact=True)[1]
        report[precision] = {
            "build_cpu_s": built,
            "bytes_per_vector": bytes_per_vector(index),
            "exact_recall": _recall(exact, truth),
            "foretold_recall": _foretold(index),
            "targets": [_at_target(index, asked, truth, target) for target in TARGETS],
            "settings": [],
        }
    for nprobe, rerank in SETTINGS:
        setting = {"nprobe": nprobe, "rerank": rerank}
        times: dict[Precision, list[float]] = {precision: [] for precision in PRECISIONS}
        for _ in range(repeat):
            for precision in PRECISIONS:
                times[precision].append(_single(indexes[precision], asked, setting))
        for precision in PRECISIONS:
            found = indexes[precision].search(asked, K, **setting)[1]  # type: ignore[arg-type]
            report[precision]["settings"].append(
                setting
                | {
                    "recall": _recall(found, truth),
                    "cpu_us": float(np.median(times[precision])),
                    "qps_to_float32": float(
                        np.median(np.divide(times["float32"], times[precision]))
                    ),
                }
            )
    return {
        "benchmark": "precision",
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "dataset": {"name": name, "n": len(vectors), "d": vectors.shape[1]},
        "metric": dataset.metric,
        "k": K,
        "queries": len(asked),
        "repeat": repeat,
        "seed": seed,
        "precisions": report,
    }


def _foretold(index: SoarIndex) -> float:
    rows = index._rows
    if index._model is None:
        return 1.0
    examined = _AsExamined(index, index._model)
    return kept_recall(examined, rows.form, index.metric, rows.ids, None, K, seed=0)


def _recall(ids: Any, truth: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(ids, truth, strict=True)]))


def _single(index: SoarIndex, queries: F32, setting: Mapping[str, Any]) -> float:
    """Microseconds of the thread's own time a query, each asked by itself."""
    started = time.thread_time()
    for query in queries:
        index.search(query[None], K, **setting)
    return (time.thread_time() - started) / len(queries) * 1e6


def _at_target(index: SoarIndex, queries: F32, truth: Any, target: float) -> dict[str, Any]:
    expected = index.expected(K, target)
    found = index.search(queries, K, target_recall=target)[1]
    return {
        "target": target,
        "is_reached": expected.is_reached,
        "expected": expected.recall,
        "recall": _recall(found, truth),
    }


def table(report: Mapping[str, Any]) -> str:
    """Bytes, recall and time of each precision, as Markdown."""
    rows = [
        ["precision", "bytes a vector", "of them vectors", "recall of an exact search", "foretold",
         *(f"recall and time at {a} / {b}" for a, b in SETTINGS),
         *(f"at target {target:g}" for target in TARGETS)],
    ]  # fmt: skip
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for precision, found in report["precisions"].items():
        held = found["bytes_per_vector"]
        rows.append([
            precision,
            f"{held['total']:,.0f}",
            f"{held['vectors']:,.0f}",
            f"{found['exact_recall']:.4f}",
            f"{found['foretold_recall']:.4f}",
            *(f"{point['recall']:.3f}, {point['cpu_us']:.1f} us" for point in found["settings"]),
            *(
                f"{point['recall']:.3f}" + ("" if point["is_reached"] else " (not reached)")
                for point in found["targets"]
            ),
        ])  # fmt: skip
    name, n = report["dataset"]["name"], report["dataset"]["n"]
    caption = f"{name}, {n:,} vectors, {report['queries']:,} queries, recall@{K}, one core."
    return "\n".join([caption, "", *("| " + " | ".join(row) + " |" for row in rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON and table, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--nlist", type=int, default=None, help="lists of each index")
    parser.add_argument("--out", type=Path, default=None, help="folder of the report")
    given = parser.parse_args(arguments)
    report = run(given.dataset, given.queries, given.repeat, given.seed, given.nlist)
    folder = given.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"precision-{given.dataset.rpartition('-')[0]}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(table(report) + "\n", "utf-8")
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
