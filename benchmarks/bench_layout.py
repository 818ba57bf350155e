"""Layouts chosen by measuring beside those of the formulas: counted cost, and measured speed.

    choose_layout, SoarIndex -> [bench_layout.py] -> results/layout-*.json, *.png

Both layouts are built over the whole set, and each is asked the test queries, one a call, with the
settings that it chooses for a dozen recalls. The time is that of the thread on the processor,
median of interleaved passes; the table reads it off at equal recall. Layouts named by --also are
built and measured too.

    python -m benchmarks.bench_layout --dataset glove6b-100-angular
    python -m benchmarks.bench_layout --fit

--fit reads the results of all sets, and fits the weights of soardb/index/work.py to them: of each
search the work was counted and the time taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, plots, provenance
from benchmarks.bench_peers import RESULTS, _held, choose_queries
from benchmarks.judge import TOLERANCE, Judge
from soardb import SoarIndex, choose_layout
from soardb.errors import InvalidArgument, SoarError
from soardb.evaluate import plot_recall_qps
from soardb.index.layout import Layout
from soardb.index.work import WEIGHTS, Work, work_of

TARGETS = (0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.993)
SHOWN = (0.9, 0.95, 0.99)
K = 10


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Choose, build and measure; return the report."""
    dataset = datasets.load(given.dataset)
    vectors, metric = dataset.train, dataset.metric
    start, cpu = time.perf_counter(), time.process_time()
    layout = choose_layout(vectors, metric, target_recall=given.target)
    chosen_s, chosen_cpu_s = time.perf_counter() - start, time.process_time() - cpu
    show(layout, f"{given.dataset}, {chosen_cpu_s:.0f} s of processor time")
    wanted: dict[str, dict[str, Any]] = {"formulas": {}, "measured": dict(layout.options)}
    if not layout.tried or layout.choice == layout.tried[0].choice:
        del wanted["measured"]
    wanted |= {also: json.loads(also) for also in given.also}
    built: list[dict[str, Any]] = []
    indexes: list[SoarIndex] = []
    for name, options in wanted.items():
        index, seconds = opened(given, options, vectors, metric)
        built.append({"name": name, "build_cpu_s": seconds})
        indexes.append(index)
        print(f"{name}: {index.describe()}", flush=True)
    queries = choose_queries(len(dataset.test), given.queries)
    judge = Judge(vectors, dataset.test[queries], dataset.neighbors[queries], metric, K)
    for one, index in zip(built, indexes, strict=True):
        one |= {"described": index.describe(), "bytes": sum(index.memory().values())}
    measure(indexes, built, dataset.test[queries], judge, given)
    return {
        "benchmark": "layout",
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "dataset": {"name": given.dataset, "n": len(vectors), "d": vectors.shape[1]},
        "queries": len(queries),
        "repeat": given.repeat,
        "layout": layout.to_json(),
        "layout_s": chosen_s,
        "layout_cpu_s": chosen_cpu_s,
        "built": built,
    }


def opened(
    given: argparse.Namespace, options: dict[str, Any], vectors: Any, metric: str
) -> tuple[SoarIndex, float | None]:
    """An index with its curves, and the processor time of its build; None where it was kept."""
    label = "-".join(f"{key}{value:g}" for key, value in sorted(options.items())) or "formulas"
    file = given.keep / f"{given.dataset}-{label}.soar" if given.keep else None
    if file is not None and file.exists():
        return SoarIndex.load(file), None
    start = time.process_time()
    index = SoarIndex(vectors.shape[1], metric, **options)
    index.train(vectors)
    index.add(vectors)
    seconds = time.process_time() - start
    index.tune()
    if file is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        index.save(file)
    return index, seconds


def measure(
    indexes: Sequence[SoarIndex],
    built: Sequence[dict[str, Any]],
    queries: Any,
    judge: Judge,
    given: argparse.Namespace,
) -> None:
    """Add "points" to each: setting, recall, microseconds of the thread a query, counted work."""
    single = [query[None] for query in queries]
    for one, index in zip(built, indexes, strict=True):
        found = [index.expected(K, target).effort for target in TARGETS]
        efforts = {effort for effort in found if effort is not None}
        one["points"] = [
            {**asdict(effort), **facts(index, asdict(effort), queries, judge), "us": []}
            for effort in sorted(efforts, key=str)
        ]
    for _ in range(given.repeat):
        with _held(given.lock):
            os.sched_setaffinity(0, {given.core})
            for one, index in zip(built, indexes, strict=True):
                for point in one["points"]:
                    knobs = {name: point[name] for name in ("nprobe", "rerank", "stop")}
                    for query in single[:200]:
                        index.search(query, K, **knobs)
                    start = time.thread_time()
                    for query in single:
                        index.search(query, K, **knobs)
                    point["us"].append((time.thread_time() - start) / len(single) * 1e6)
    for one in built:
        for point in one["points"]:
            point["us"] = float(np.median(point["us"]))
            point["qps"] = 1e6 / point["us"]


def facts(index: SoarIndex, knobs: dict[str, Any], queries: Any, judge: Judge) -> dict[str, Any]:
    """Recall of a setting, codes looked at a query, and the work counted."""
    plan = index._plan(K, knobs["nprobe"], knobs["rerank"], knobs["stop"], None)
    scanned = np.zeros(len(queries), np.int64)
    _, ids = index._by_lists(queries, K, plan, 1, scanned)
    codes, model = float(scanned.mean()), index._model
    assert model is not None
    lists = min(knobs["nprobe"], codes * index.nlist / (len(index) * (1 + index.spilled_share)))
    work = work_of(plan, model.choice, codes, lists, model.product.m, index.d)
    recall = judge.recall(ids, tolerance=TOLERANCE)
    return {"recall": recall, "scanned": codes, "work": asdict(work), "counted": work.microseconds}


def at_recall(points: Sequence[Mapping[str, Any]], recall: float) -> float | None:
    """Queries a second at a recall, off the front of the points."""
    return plots.qps_at(plots.pareto(points), recall)


# --- the fit --------------------------------------------------------------------------------------


def fit(folder: Path) -> str:
    """Weights with the least relative error over all results, none negative, and that error."""
    points = [
        (report["dataset"]["name"], point)
        for file in sorted(folder.glob("layout-*.json"))
        for report in [json.loads(file.read_text("utf-8"))]
        for one in report["built"]
        for point in one["points"]
    ]
    if not points:
        raise InvalidArgument(f"expected results of bench_layout in {folder}, found none")
    times = np.array([point["us"] for _, point in points])
    counts = np.array([astuple(Work(**point["work"])) for _, point in points])
    weights = least_squares(counts / times[:, None] / 1000, np.ones(len(times)))
    foreseen = counts @ weights / 1000
    lines = [f"{len(points)} searches"]
    for name in sorted({name for name, _ in points}):
        of = np.array([name == other for other, _ in points])
        error = foreseen[of] / times[of]
        lines.append(f"{name}: {error.min():.2f}..{error.max():.2f} of the time, "
                     f"spread {error.std():.3f}")  # fmt: skip
    lines.append(str(Work(*(float(f"{weight:.3g}") for weight in weights))))
    lines.append(f"in use: {WEIGHTS}")
    return "\n".join(lines)


def least_squares(a: Any, b: Any) -> Any:
    """x >= 0 with the least |a x - b|: projected coordinate descent, for a handful of columns."""
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1
    gram, rest = (a / scale).T @ (a / scale), (a / scale).T @ b
    x = np.zeros(a.shape[1])
    for _ in range(100_000):
        for j in range(len(x)):
            if gram[j, j]:
                x[j] = max(0.0, x[j] + (rest[j] - gram[j] @ x) / gram[j, j])
    return x / scale


# --- what is shown --------------------------------------------------------------------------------


def show(layout: Layout, title: str) -> None:
    """The layouts that were tried, as a table."""
    print(title)
    for tried in [*layout.tried, *layout.confirmed]:
        print(f"  {tried.choice} {tried.effort} recall {tried.recall:.4f} "
              f"codes {tried.scanned:,.0f} us {tried.cost_us:.2f}")  # fmt: skip
    print(f"  {layout.reason}", flush=True)


def table(report: Mapping[str, Any]) -> str:
    """QPS at each recall, a line a build, as Markdown."""
    head = ["layout", "lists", "dims a code", "avq_eta", "soar_lambda",
            *(f"QPS @{recall:.2f}" for recall in SHOWN), "build, CPU s", "B/vector"]  # fmt: skip
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for one in report["built"]:
        d, found = one["described"], [at_recall(one["points"], recall) for recall in SHOWN]
        rows.append([
            one["name"] if not one["name"].startswith("{") else "beside",
            f"{d['nlist']:,}", str(d["dims_per_block"]), f"{d['avq_eta']:g}",
            f"{d['soar_lambda']:g}",
            *("-" if qps is None else f"{qps:,.0f}" for qps in found),
            "kept" if one["build_cpu_s"] is None else f"{one['build_cpu_s']:.0f}",
            f"{one['bytes'] / report['dataset']['n']:,.0f}",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON and figure, print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_layout")
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--also", action="append", default=[], help="options of a build, JSON")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--lock", type=Path, help="file to hold while measuring")
    parser.add_argument("--keep", type=Path, help="folder to keep indexes in, and to find them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--fit", action="store_true", help="the weights, by the results there are")
    given = parser.parse_args(arguments)
    try:
        if given.fit:
            print(fit(given.out))
            return 0
        report = run(given)
    except SoarError as error:
        print(f"bench_layout: {error}", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    stem = given.out / f"layout-{given.dataset}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    plot_recall_qps(
        {
            f"{one['name']}: {one['described']['nlist']} lists, "
            f"{one['described']['dims_per_block']} dims": (
                [point["recall"] for point in one["points"]],
                [point["qps"] for point in one["points"]],
            )
            for one in report["built"]
            if not one["name"].startswith("{")
        },
        stem.with_suffix(".png"),
        title=given.dataset,
        min_recall=0.8,
    )
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
