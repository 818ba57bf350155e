"""Top-k: predicted recall beside measured recall, and time beside NumPy's and full scoring.

    datasets.py -> soardb.topk -> [bench_topk.py] -> results/topk.json, topk.png, topk.md

Four parts, each a table:

    selection  topk and approx_topk beside numpy.argpartition, on random scores, on scores of real
               queries, and on scores that come rising, which is the worst order for a scan
    hire       8 and 4 bits and low rank: k' calibrated on some queries, recall and time on others
    shards     DA-TOP-k on scores of real queries: c a shard, expected and measured recall
    lists      choosing the nprobe best of many centroids, which is the selection inside a search

    python -m benchmarks.bench_topk
    python -m benchmarks.bench_topk --tiny

One core, one thread; the least of several rounds, for `hire` of three passes over all searches.
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE should not be set, or NumPy is not at its best.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from benchmarks.datasets import load
from soardb.errors import SoarError
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32
from soardb.metrics import unit_rows
from soardb.topk import (
    Hire,
    LowRank,
    Quantized,
    approx_topk,
    chernoff_bound,
    expected_recall,
    plan_shards,
    plan_topk,
    simulate_shards,
    topk,
    traffic,
)
from soardb.topk.plan import bucket_plans

RESULTS = Path(__file__).resolve().parent / "results"
HIRE_PASSES = 3
Row = dict[str, Any]
Search = Callable[[], object]


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    datasets     whose vectors give real scores
    sizes        (n, k) of random rows
    calibrating  queries for k'; judging: others, for recall
    rounds       of each measurement; the least counts
    """

    datasets: tuple[str, ...] = ("glove6b-100-angular", "wordnet-minilm-384-angular")
    sizes: tuple[tuple[int, int], ...] = (
        (32_768, 128),
        (262_144, 128),
        (262_144, 1024),
        (1_000_000, 100),
        (1_000_000, 4096),
    )
    calibrating: int = 500
    judging: int = 500
    rounds: int = 7
    seed: int = 0


TINY = Setup(
    datasets=("tiny-32-angular",),
    sizes=((4096, 32), (16_384, 600)),
    calibrating=50,
    judging=50,
    rounds=2,
)


def least_us(run: Callable[[], object], rounds: int) -> float:
    """Microseconds of the quickest of several rounds; a round repeats for 2 ms at least."""
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    repeat = max(1, int(2e-3 / max(once, 1e-7)))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        best = min(best, (time.perf_counter() - start) / repeat)
    return round(best * 1e6, 2)


def numpy_topk(scores: F32, k: int) -> Any:
    """The k best of one row in order, as one writes it in NumPy."""
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def numpy_scores_topk(vectors: F32, query: F32, k: int) -> Any:
    """Every vector scored by NumPy, then its selection."""
    return numpy_topk(vectors @ query, k)


def share_found(ids: Any, scores: F32, k: int) -> float:
    """Mean share of the k best of each row of (nq, n) scores that ids (nq, k) hold."""
    least = np.partition(scores, -k, axis=1)[:, -k : scores.shape[1] - k + 1]
    return float((np.take_along_axis(scores, ids, axis=1) >= least).mean())


# --- selection ----------------------------------------------------------------------------------


def selection(setup: Setup) -> list[Row]:
    """topk, approx_topk at three targets, NumPy; random, real and rising scores."""
    rng = np.random.default_rng(setup.seed)
    rows = []
    for n, k in setup.sizes:
        scores = rng.standard_normal((8, n), np.float32)
        rows += _select("random", scores, k, setup)
        rows += _select("rising", np.sort(scores, axis=1), k, setup)
    for name in setup.datasets:
        vectors, queries = unit_vectors(name, setup)
        scores = np.ascontiguousarray(queries[:8] @ vectors.T)
        for k in sorted({min(100, len(vectors)), min(4096, len(vectors) // 8)}):
            rows += _select(name, scores, k, setup)
    return rows


def _select(what: str, scores: F32, k: int, setup: Setup) -> list[Row]:
    n = scores.shape[1]
    one = scores[:1].copy()
    facts = {"scores": what, "n": n, "k": k}
    rows: list[Row] = [
        facts
        | {
            "way": "numpy.argpartition",
            "recall": 1.0,
            "us": least_us(lambda: numpy_topk(one[0], k), setup.rounds),
        },
        facts | {"way": "topk", "recall": 1.0, "us": least_us(lambda: topk(one, k), setup.rounds)},
    ]
    return rows + [
        facts | _bucketed(scores, one, k, target, setup) for target in (0.90, 0.95, 0.99)
    ]


def _bucketed(scores: F32, one: F32, k: int, target: float, setup: Setup) -> Row:
    """The cheapest plan of buckets for a target, and whether the planner would take it."""
    n = scores.shape[1]
    plan = cheapest_buckets(n, k, target)
    buckets, keep = plan
    found = approx_topk(scores, k, buckets=buckets, keep=keep)
    return {
        "way": f"approx_topk {target:g}",
        "buckets": buckets,
        "keep": keep,
        "planner_takes_exact": plan_topk(n, k, target).is_exact,
        "expected_recall": round(expected_recall(n, k, buckets, keep), 4),
        "recall": round(share_found(found.ids, scores, k), 4),
        "proven_exact": round(float(found.is_exact.mean()), 3),
        "us": least_us(lambda: approx_topk(one, k, buckets=buckets, keep=keep), setup.rounds),
    }


def cheapest_buckets(n: int, k: int, target: float) -> tuple[int, int]:
    """(buckets, keep) that the planner would take if there were no exact scan."""
    best = min(bucket_plans(n, k, target), key=lambda plan: plan.cost_ns)
    return best.buckets, best.keep


# --- HiRE ---------------------------------------------------------------------------------------


def unit_vectors(name: str, setup: Setup) -> tuple[F32, F32]:
    """(vectors, queries drawn at random) of a set, of unit length under cosine."""
    dataset = load(name)
    drawn = np.random.default_rng(setup.seed).permutation(len(dataset.test))
    queries = dataset.test[drawn]
    if dataset.metric == "cosine":
        return unit_rows(dataset.train), unit_rows(queries)
    return np.ascontiguousarray(dataset.train), np.ascontiguousarray(queries)


def hire(setup: Setup) -> list[Row]:
    """Each estimator at each target: k', recall where it was calibrated and elsewhere, time.

    Every search of a set is timed once a pass, and the least of all passes counts: what disturbs
    the machine for seconds then meets all of them.
    """
    return [row for name in setup.datasets for row in _hire_on(name, setup)]


def _hire_on(name: str, setup: Setup) -> list[Row]:
    vectors, queries = unit_vectors(name, setup)
    third, d = len(queries) // 3, vectors.shape[1]
    calibrating = queries[: min(setup.calibrating, third)]
    judging = queries[third : 2 * third][: setup.judging]
    one, many = judging[:1], judging[:64]
    truth, _ = active.exact_topk(vectors, judging, 10, "dot")
    facts = {"dataset": name, "n": len(vectors), "d": d}
    dense = facts | {"recall": 1.0, "megabytes": round(vectors.nbytes / 1e6, 1)}
    searches: list[tuple[Row, Search, Search | None]] = [
        (
            dense | {"estimator": "none: every vector scored"},
            partial(active.exact_topk, vectors, one, 10, "dot"),
            partial(active.exact_topk, vectors, many, 10, "dot"),
        ),
        (
            dense | {"estimator": "none: NumPy, then argpartition"},
            partial(numpy_scores_topk, vectors, one[0], 10),
            None,
        ),
    ]
    weighted = LowRank(vectors, rank=d // 2, queries=queries[2 * third :])
    for label, how, estimator in (
        ("8 bits", {"bits": 8}, Quantized(vectors, bits=8)),
        ("4 bits", {"bits": 4}, Quantized(vectors, bits=4)),
        (f"rank {d // 4}", {"rank": d // 4}, LowRank(vectors, rank=d // 4)),
        (f"rank {d // 2}", {"rank": d // 2}, LowRank(vectors, rank=d // 2)),
        (f"rank {d // 2}, weighted", {"rank": d // 2}, weighted),
    ):
        model = Hire(vectors, estimator)
        curve = model.calibrate(calibrating, 10)
        for target in (0.90, 0.95, 0.99):
            predicted = curve.choose(target)
            at = int(np.searchsorted(curve.predicted, predicted))
            scores, _ = model.topk(judging, 10, predicted=predicted)
            moved = traffic(len(vectors), d, predicted, **how)
            row: Row = facts | {
                "estimator": label,
                "target": target,
                "predicted": predicted,
                "calibrated_recall": round(float(curve.recall[at]), 4),
                "recall": round(float((scores >= truth[:, -1:] - 1e-6).mean()), 4),
                "megabytes": round((moved.estimate + moved.rescore) / 1e6, 1),
                "bytes_model_speedup": round(moved.speedup, 2),
            }
            searches.append(
                (
                    row,
                    partial(model.topk, one, 10, predicted=predicted),
                    partial(model.topk, many, 10, predicted=predicted),
                )
            )
    for _ in range(min(HIRE_PASSES, setup.rounds)):
        for row, single, batch in searches:
            row["us"] = min(row.get("us", np.inf), least_us(single, 2))
            if batch is not None:
                start = time.perf_counter()
                batch()
                each = round((time.perf_counter() - start) / len(many) * 1e6, 2)
                row["us_of_64"] = min(row.get("us_of_64", np.inf), each)
    return [row for row, _, _ in searches]


# --- shards -------------------------------------------------------------------------------------


def shards(setup: Setup) -> list[Row]:
    """DA-TOP-k by slack: expected and measured recall, random placement and file order."""
    rows: list[Row] = []
    for name in setup.datasets:
        vectors, queries = unit_vectors(name, setup)
        scores = np.ascontiguousarray(queries[: min(40, setup.judging)] @ vectors.T)
        n = len(vectors)
        for s in (2, 4, 8, 16):
            for k in (16, 128):
                for c in sorted({min(k, -(-int(x * k) // s)) for x in (1, 1.25, 1.5, 2)}):
                    random = simulate_shards(scores, k, s, c, seed=len(rows))
                    in_order = simulate_shards(scores, k, s, c, placement="contiguous")
                    rows.append(
                        {
                            "dataset": name,
                            "n": n,
                            "shards": s,
                            "k": k,
                            "c": c,
                            "slack": round(c * s / k, 3),
                            "expected_recall": round(expected_recall(n, k, s, c), 4),
                            "recall": round(float(random.mean()), 4),
                            "standard_error": round(float(random.std() / len(random) ** 0.5), 4),
                            "recall_in_file_order": round(float(in_order.mean()), 4),
                            "chernoff_loss": round(chernoff_bound(k, s, c), 4),
                        }
                    )
                plan = plan_shards(n, k, s, recall_target=0.99)
                random = simulate_shards(scores, k, s, plan.c, seed=len(rows))
                rows.append(
                    {
                        "dataset": name,
                        "n": n,
                        "shards": s,
                        "k": k,
                        "c": plan.c,
                        "slack": round(plan.slack, 3),
                        "planned_for": 0.99,
                        "expected_recall": round(plan.expected_recall, 4),
                        "recall": round(float(random.mean()), 4),
                        "standard_error": round(float(random.std() / len(random) ** 0.5), 4),
                    }
                )
    return rows


# --- choosing lists -----------------------------------------------------------------------------


def lists(setup: Setup) -> list[Row]:
    """Of nlist centroid scores the nprobe best: every way there is."""
    rng = np.random.default_rng(setup.seed)
    rows: list[Row] = []
    for nlist, nprobe in ((2048, 32), (8192, 64), (32_768, 128), (131_072, 256)):
        if nlist > 8192 and setup.rounds == TINY.rounds:
            continue
        scores = rng.standard_normal((8, nlist), np.float32)
        one = scores[:1].copy()
        rows.append(
            {
                "nlist": nlist,
                "nprobe": nprobe,
                "way": "exact scan",
                "recall": 1.0,
                "us": least_us(partial(active.select_topk, one, nprobe), setup.rounds),
            }
        )
        for target in (0.95, 0.99):
            buckets, keep = cheapest_buckets(nlist, nprobe, target)
            ids = active.bucket_topk(scores, buckets, keep, nprobe)[1]
            rows.append(
                {
                    "nlist": nlist,
                    "nprobe": nprobe,
                    "way": f"{buckets} buckets of {keep}",
                    "expected_recall": round(expected_recall(nlist, nprobe, buckets, keep), 4),
                    "recall": round(share_found(ids, scores, nprobe), 4),
                    "us": least_us(
                        partial(active.bucket_topk, one, buckets, keep, nprobe), setup.rounds
                    ),
                }
            )
    return rows


# --- the report ---------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Setup], list[Row]]] = {
    "selection": selection,
    "hire": hire,
    "shards": shards,
    "lists": lists,
}


def as_table(rows: Sequence[Row]) -> str:
    """Rows of one part as Markdown; columns in the order in which they come up."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{row[name]:g}" if isinstance(row.get(name), float) else str(row.get(name, ""))
                 for name in names]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Three figures side by side: time of selection, recall predicted and measured, HiRE."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5))
    for way, colour in (("numpy.argpartition", "#5a6570"), ("topk", "#1f5fa8"),
                        ("approx_topk 0.95", "#c8102e")):  # fmt: skip
        for what, mark in (("random", "o"), ("rising", "^")):
            some = [r for r in report["selection"] if r["way"] == way and r["scores"] == what]
            left.plot(
                range(len(some)), [r["us"] for r in some], mark + "-", color=colour,
                label=f"{way}, {what}", alpha=1 if what == "random" else 0.5,
            )  # fmt: skip
            left.set_xticks(range(len(some)), [f"{r['k']} of\n{r['n']:,}" for r in some])
    left.set(yscale="log", ylabel="microseconds a row", title="the k best of n scores")
    left.legend(fontsize=7)
    for part, mark, colour in (("selection", "o", "#c8102e"), ("shards", "s", "#1f5fa8")):
        some = [r for r in report[part] if "expected_recall" in r and r.get("scores") != "rising"]
        middle.plot([r["expected_recall"] for r in some], [r["recall"] for r in some], mark,
                    color=colour, label={"selection": "buckets", "shards": "shards"}[part],
                    alpha=0.6)  # fmt: skip
    some = [r for r in report["hire"] if "calibrated_recall" in r]
    middle.plot([r["calibrated_recall"] for r in some], [r["recall"] for r in some], "x",
                color="#2e8b57", label="HiRE, calibrated")  # fmt: skip
    low = min(middle.get_xlim()[0], middle.get_ylim()[0])
    middle.plot([low, 1], [low, 1], color="#999999", linewidth=0.8)
    middle.set(xlabel="predicted recall", ylabel="measured recall", title="predicted, measured")
    middle.legend(fontsize=8)
    names = list(dict.fromkeys((r["dataset"], r["estimator"]) for r in some))
    for dataset, estimator in names:
        line = [r for r in some if (r["dataset"], r["estimator"]) == (dataset, estimator)]
        right.plot([r["recall"] for r in line], [r["us"] for r in line], "o-",
                   label=f"{estimator}, {dataset}")  # fmt: skip
    for r in report["hire"]:
        if r["estimator"].startswith("none: every"):
            right.axhline(r["us"], color="#999999", linestyle="--", linewidth=0.8)
    right.set(xlabel="recall@10, queries not calibrated on", ylabel="microseconds a query",
              yscale="log", title="one query; dashed: every vector scored")  # fmt: skip
    right.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for and write JSON, table and figure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_topk", description="Top-k, predicted and measured."
    )
    parser.add_argument("--tiny", action="store_true", help="some seconds, to see that it runs")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma separated")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    setup = TINY if options.tiny else Setup()
    chosen = options.parts.split(",")
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    name = "topk-tiny" if options.tiny else "topk"
    path = options.results / f"{name}.json"
    report: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    try:
        for part in chosen:
            report[part] = PARTS[part](setup)
            report.setdefault("measured", {})[part] = {
                "commit": provenance.commit(),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }
            print(f"\n## {part}\n\n{as_table(report[part])}", flush=True)
    except SoarError as error:
        print(f"bench_topk: {error}", file=sys.stderr)
        return 1
    report |= {
        "benchmark": "topk",
        "machine": provenance.machine(),
        "openblas": {v: os.environ.get(v) for v in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")},
        "setup": asdict(setup),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    tables = [f"## {part}\n\n{as_table(report[part])}\n" for part in PARTS if part in report]
    path.with_suffix(".md").write_text("\n".join(tables), "utf-8")
    if all(part in report for part in PARTS):
        draw(report, path.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
