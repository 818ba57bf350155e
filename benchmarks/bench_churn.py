"""Recall while points come, go and change: a live collection beside a fresh build.

    datasets.py -> soardb.connect -> [bench_churn.py] -> results/churn-*.json, *.png

A collection is loaded with most of a data set and compacted. In each round a share of the points is
deleted, as many new ones are inserted, and another share is overwritten with other vectors, while
the background worker is held back; recall@10 at the default settings is measured then (tombstones
and a delta in place), and again after compaction, each time against exact answers over the points
that are live, and beside an index built afresh from exactly these points with the same settings.

    python -m benchmarks.bench_churn glove6b-100-angular
    python -m benchmarks.bench_churn tiny-32-angular --queries 100
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks import provenance
from benchmarks.datasets import load
from soardb.errors import SoarError
from soardb.evaluate import ground_truth
from soardb.kernels.layout import F32, I64

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
_BATCH = 10_000
_NEVER = soardb.Policy(tail=1e9, tombstones=1e9, growth=1e9, skew=1e9, least=2**60)


@dataclass(frozen=True)
class Setup:
    """What one run does. Shares are of the live points, a round."""

    dataset: str
    rounds: int = 3
    delete: float = 0.3
    insert: float = 0.3
    update: float = 0.2
    queries: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """One measurement. retrained: whether compaction learnt partitions anew."""

    round: int
    points: int
    struck: int
    before: float
    after: float
    fresh: float


def run(setup: Setup, folder: Path) -> list[Step]:
    """Every round's recalls."""
    data = load(setup.dataset)
    metric = data.metric
    rng = np.random.default_rng(setup.seed)
    vectors = np.ascontiguousarray(data.train[rng.permutation(len(data.train))])
    queries = drawn(data.test, setup.queries, setup.seed)
    n = int(len(vectors) / (1 + setup.insert * setup.rounds))
    held: dict[int, int] = {i: i for i in range(n)}  # id -> row of vectors
    unused = n
    steps = []
    with soardb.connect(folder / "live", policy=_NEVER) as database:
        live = database.create_collection("live", vectors.shape[1], metric)
        _load(live, np.arange(n), vectors[:n])
        live.compact(retrain=True)
        for number in range(1, setup.rounds + 1):
            size = len(held)
            known = np.array(list(held))
            gone = rng.choice(known, int(setup.delete * size), replace=False)
            live.delete(gone)
            for point_id in gone.tolist():
                del held[point_id]
            new = np.arange(unused, min(unused + int(setup.insert * size), len(vectors)))
            unused += len(new)
            _load(live, new, vectors[new])
            held |= {i: i for i in new.tolist()}
            changed = rng.choice(np.array(list(held)), int(setup.update * size), replace=False)
            # Overwritten points take the vectors of other points, so every one of them moves.
            rows = rng.permutation([held[i] for i in changed.tolist()])
            _load(live, changed, vectors[rows])
            held |= dict(zip(changed.tolist(), rows.tolist(), strict=True))
            ids = np.array(sorted(held))
            now = vectors[[held[i] for i in ids.tolist()]]
            _, truth = ground_truth(now, queries, K, metric, threads=2)
            expected = ids[truth]
            struck = live.stats()["struck"]
            before = _recall(live, queries, expected)
            live.compact()
            after = _recall(live, queries, expected)
            fresh = database.create_collection(f"fresh-{number}", vectors.shape[1], metric)
            _load(fresh, ids, now)
            fresh.compact(retrain=True)
            step = Step(number, len(ids), struck, before, after, _recall(fresh, queries, expected))
            database.drop_collection(f"fresh-{number}")
            steps.append(step)
            print(
                f"round {number}: {step.points:,} points, {step.struck:,} struck; recall@{K} "
                f"before {step.before:.4f}, after {step.after:.4f}, fresh build {step.fresh:.4f}",
                flush=True,
            )
    return steps


def drawn(queries: F32, count: int, seed: int) -> F32:
    """That many of the queries, at random: the first ones of a word set are its easy words."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(queries), min(count, len(queries)), replace=False)
    return np.ascontiguousarray(queries[np.sort(chosen)])


def _load(collection: soardb.Collection, ids: I64, vectors: F32) -> None:
    for first in range(0, len(ids), _BATCH):
        part = slice(first, first + _BATCH)
        collection.upsert(ids[part], vectors[part], ack="logged")


def _recall(collection: soardb.Collection, queries: F32, expected: I64) -> float:
    hits = collection.search(queries, K, with_payload=False)
    return share_found(np.stack([h.ids for h in hits]), expected)


def share_found(found: I64, expected: I64) -> float:
    """Share of (nq, k) expected ids that are among the (nq, k) found ones of the same query."""
    hits = (found[:, :, None] == expected[:, None, :]).any(axis=1)
    return float(hits.mean())


def plot(report: dict[str, Any], path: Path) -> None:
    """Recall by round: before and after compaction, and of a fresh build."""
    from matplotlib.figure import Figure

    steps = report["steps"]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    rounds = [step["round"] for step in steps]
    for name, label, marker in (
        ("fresh", "fresh build", "o"),
        ("after", "after compaction", "s"),
        ("before", "before it", "^"),
    ):
        axes.plot(rounds, [step[name] for step in steps], marker=marker, label=label)
    axes.set_xticks(rounds)
    axes.set_xlabel("round of deleting 30 %, inserting 30 %, overwriting 20 %")
    axes.set_ylabel(f"recall@{K}")
    low = min(min(step["before"], step["after"], step["fresh"]) for step in steps)
    axes.set_ylim(min(0.9, low - 0.01), 1.0)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(f"recall under churn, {report['setup']['dataset']}")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line a round, write JSON and plot; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_churn", description=__doc__)
    parser.add_argument("dataset", nargs="?", default="glove6b-100-angular")
    parser.add_argument("--rounds", type=int, default=Setup.rounds)
    parser.add_argument("--queries", type=int, default=Setup.queries)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = Setup(given.dataset, rounds=given.rounds, queries=given.queries, seed=given.seed)
    return finish("churn", setup, given.results, "steps", run, plot)


def finish(
    name: str,
    setup: Any,
    results: Path,
    part: str,
    run: Callable[[Any, Path], Sequence[Any]],
    plot: Callable[[dict[str, Any], Path], None],
) -> int:
    """Run in a folder of its own, write results/<name>-<data set>.json and its plot: exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"soardb-{name}-") as folder:
            found = run(setup, Path(folder))
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        "benchmark": name,
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.date.today().isoformat(),
        "setup": asdict(setup),
        "k": K,
        part: [asdict(one) for one in found],
    }
    path = results / f"{name}-{setup.dataset}.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    plot(report, path.with_suffix(".png"))
    print(f"written: {path.name}, {path.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
