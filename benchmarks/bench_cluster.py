"""A cluster beside one collection: the same answers, and what the way over Ray costs a query.

    datasets.py -> [bench_cluster.py] -> soardb, soardb on Ray -> results/cluster-*.json, *.md

The same points lie in an embedded collection and on the shards of a cluster. exact=True must give
the same ids and scores, bit by bit. Batches of 1, 64 and 1,024 are timed at exact=True and at a
target recall, both collections in turn, pass after pass; latency is of the caller's clock,
processor time of all processes. The same calls on a collection of a hundred points, where an index
has nothing to do, are the floor: what messages, checks and merging take by themselves.

    python -m benchmarks.bench_cluster
    python -m benchmarks.bench_cluster --tiny
    python -m benchmarks.bench_cluster --target ray://head:10001 --storage s3://bucket/prefix

Without --target a small Ray is begun here, every shard in a process of its own on these cores. With
another Ray the processor time of shards is not known, unless it runs on this machine (--same-host).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

import soardb
from benchmarks import provenance
from benchmarks.datasets import load
from benchmarks.judge import TOLERANCE, Judge
from benchmarks.ray_processes import descendants, loads, pickled, processor_s, ray_for
from soardb.cluster import Cluster
from soardb.cluster.calls import Job, shard_name
from soardb.cluster.merge import merged
from soardb.cluster.searching import planned
from soardb.hits import HitColumns
from soardb.kernels.layout import F32

RESULTS = Path(__file__).resolve().parent / "results"
NAME, FLOOR = "bench", "bench-floor"
_CHUNK = 20_000
Row = dict[str, Any]
Held = dict[tuple[str, str], Any]  # collections by system and name


@dataclass(frozen=True)
class Setup:
    """What one run does. calls: of each batch size in a pass."""

    dataset: str = "wordnet-minilm-384-angular"
    n: int = 100_000
    shards: int = 4
    k: int = 10
    target_recall: float = 0.95
    batches: tuple[int, ...] = (1, 64, 1024)
    calls: tuple[int, ...] = (100, 6, 2)
    exact_calls: tuple[int, ...] = (20, 2, 1)
    floor_points: int = 100
    passes: int = 5
    patience_s: float = 300.0


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Clock:
    """Processor seconds so far: of this process, of the shards, of Ray's own processes."""

    shards: tuple[int, ...]
    others: tuple[int, ...]

    def read(self) -> tuple[float, float, float]:
        """(driver, shards, Ray)."""
        return time.process_time(), processor_s(self.shards), processor_s(self.others)

    def read_before(self) -> tuple[float, float, float]:
        """The same; what the reading itself takes is then not counted as the driver's."""
        shards, others = processor_s(self.shards), processor_s(self.others)
        return time.process_time(), shards, others


def fill(collection: Any, vectors: F32) -> None:
    """Store all, under their row numbers, and build."""
    for first in range(0, len(vectors), _CHUNK):
        part = vectors[first : first + _CHUNK]
        collection.upsert(np.arange(first, first + len(part), dtype=np.int64), part)
    collection.compact()


def ids_of(found: HitColumns, k: int) -> Any:
    """(nq, k) int64 ids of an answer in which every query has k hits."""
    return np.asarray(found.ids).reshape(len(found.counts), k)


def same_answers(embedded: Any, cluster: Any, queries: F32, setup: Setup) -> Row:
    """How many queries have the same exact ids and scores, in one batch and one by one."""
    few = queries[: setup.batches[1]]
    equal_ids = equal_scores = asked = 0
    for batch in (queries, *few[:, None]):
        ours = embedded.search_columns(batch, setup.k, exact=True)
        theirs = cluster.search_columns(batch, setup.k, exact=True, timeout=setup.patience_s)
        equal_ids += int((ids_of(ours, setup.k) == ids_of(theirs, setup.k)).all(axis=1).sum())
        scores = ours.scores.reshape(len(batch), -1) == theirs.scores.reshape(len(batch), -1)
        equal_scores += int(scores.all(axis=1).sum())
        asked += len(batch)
    return {"queries": asked, "equal_ids": equal_ids, "equal_scores": equal_scores}


def timed(
    search: Callable[[F32], object], queries: F32, batch: int, calls: int, clock: Clock
) -> Row:
    """Milliseconds of each call, and microseconds of processor time a query by process."""
    before, each = clock.read_before(), list[float]()
    for call in range(calls):
        first = call * batch % max(1, len(queries) - batch + 1)
        asked = queries[first : first + batch]
        began = time.perf_counter()
        search(asked)
        each.append((time.perf_counter() - began) * 1e3)
    spent = np.subtract(clock.read(), before) / (calls * batch) * 1e6
    return {"ms": each, "cpu_us": spent.tolist()}


def interleaved(
    ways: dict[tuple[str, str, int], Any], queries: F32, setup: Setup, clock: Clock
) -> None:
    """Every way once a pass; what disturbs the machine for a while then meets all of them."""
    for number in range(setup.passes + 1):
        for (_, mode, batch), way in ways.items():
            calls = setup.exact_calls if mode == "exact" else setup.calls
            count = calls[setup.batches.index(batch)]
            found = timed(way["search"], queries, batch, count if number else 1, clock)
            if number:  # the first pass warms up
                way["passes"].append(found)
        print(f"pass {number} of {setup.passes}", flush=True)


def summed(way: Row, batch: int) -> Row:
    """Medians over passes of one way: latency of a call and of a query, processor time."""
    per_pass = [float(np.median(found["ms"])) for found in way["passes"]]
    every = np.concatenate([found["ms"] for found in way["passes"]])
    cpu = np.median([found["cpu_us"] for found in way["passes"]], axis=0).tolist()
    call_ms = float(np.median(per_pass))
    return {
        "call_ms": call_ms,
        "call_ms_passes": per_pass,
        "call_ms_p99": float(np.quantile(every, 0.99)),
        "calls": len(every),
        "query_us": call_ms * 1e3 / batch,
        "cpu_us": sum(cpu),
        "cpu_us_driver": cpu[0],
        "cpu_us_shards": cpu[1],
        "cpu_us_ray": cpu[2],
    }


# ---------------------------------------------------------------- parts of the overhead


def ask_of(cluster: Cluster) -> Callable[[dict[str, Job]], dict[str, Any]]:
    """The calls on actors as the cluster itself makes them."""
    actors = cluster._actors
    return lambda jobs: actors.all(jobs, 60.0)


def least_ms(run: Callable[[], object], seconds: float = 0.3) -> float:
    """Median milliseconds of a call that is repeated for a while."""
    run()
    each: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(each) < 5:
        began = time.perf_counter()
        run()
        each.append((time.perf_counter() - began) * 1e3)
    return float(np.median(each))


def parts_of(cluster: Cluster, collection: Any, queries: F32, setup: Setup) -> list[Row]:
    """For each batch: messages and their sizes, and what pickling and merging take."""
    ask, rows = ask_of(cluster), []
    merge_target = 1 - 0.05 * (1 - setup.target_recall)
    c = planned(setup.n, setup.k, setup.shards, merge_target).c
    for batch in setup.batches:
        asked = queries[:batch]
        options = {"limit": c, "with_payload": True, "explain": True, "threads": 1,
                   "target_recall": setup.target_recall, "timeout": 60.0}  # fmt: skip
        arguments = (collection.id, asked, options)
        job = Job("search", arguments)
        jobs = {shard_name(number): job for number in range(setup.shards)}
        replies = list(ask(jobs).values())
        is_put = asked.nbytes > 100_000  # as searching.py does, once for all shards
        sent = (collection.id, None, options) if is_put else arguments
        sizes = [len(pickled(reply)) for reply in replies]
        rows.append(
            {
                "batch": batch,
                "c": c,
                "messages": setup.shards,
                "request_bytes": len(pickled(sent)) * setup.shards,
                "stored_once_bytes": len(pickled(asked)) if is_put else 0,
                "reply_bytes": sum(sizes),
                "ms": _handling_ms(arguments, replies, setup),
            }
        )
    return rows


def _handling_ms(arguments: Any, replies: list[HitColumns], setup: Setup) -> Row:
    """Milliseconds of what is done to the messages of one call, for all shards."""
    first, data = replies[0], pickled(replies[0])
    return {
        "merge": least_ms(partial(merged, replies, setup.k)),
        "pickle_requests": setup.shards * least_ms(partial(pickled, arguments)),
        "pickle_replies": setup.shards * least_ms(partial(pickled, first)),
        "unpickle_replies": setup.shards * least_ms(partial(loads, data)),
    }


def empty_calls(cluster: Cluster, setup: Setup) -> Row:
    """Milliseconds of a call that does nothing: Ray's own, of one shard and of all."""
    ask, found = ask_of(cluster), {}
    handle = cluster._actors.known(shard_name(0))
    found["ray_get_of_1_shard"] = least_ms(lambda: ray.get(handle.process.remote()), 0.6)
    for shards in sorted({1, 2, setup.shards}):
        jobs = {shard_name(number): Job("process") for number in range(shards)}
        found[f"ask_of_{shards}_shards"] = least_ms(partial(ask, jobs), 0.6)
    handles = [cluster._actors.known(shard_name(number)) for number in range(setup.shards)]
    found[f"ray_get_of_{setup.shards}_shards"] = least_ms(
        lambda: ray.get([h.process.remote() for h in handles]), 0.6
    )
    return found


# ---------------------------------------------------------------- all of it


def run(
    setup: Setup, target: str, storage: str, folder: Path, *, here: bool, made_here: bool
) -> Row:
    """Fill both, compare answers, measure; JSON values."""
    dataset = load(setup.dataset)
    # The order of the set is none by chance: the first rows would be unlike the queries.
    kept = np.sort(np.random.default_rng(1).permutation(len(dataset.train))[: setup.n])
    vectors = np.ascontiguousarray(dataset.train[kept])
    drawn = np.random.default_rng(0).permutation(len(dataset.test))[: max(setup.batches)]
    queries = np.ascontiguousarray(dataset.test[drawn])
    with (
        Cluster(
            target,
            storage=storage,
            shards=setup.shards,
            timeout=setup.patience_s,
            write_timeout=setup.patience_s,
        ) as cluster,
        soardb.connect(folder / "embedded") as database,
    ):
        try:
            pids = tuple(cluster.processes().values()) if here else ()
            others = sorted(descendants(os.getpid()) - set(pids)) if here and made_here else []
            clock = Clock(pids, tuple(others))
            held: Held = {}
            for system, home in (("embedded", database), ("cluster", cluster)):
                for name, rows in ((NAME, vectors), (FLOOR, vectors[: setup.floor_points])):
                    held[system, name] = home.create_collection(name, vectors.shape[1])
                    fill(held[system, name], rows)
                print(f"{system} is filled", flush=True)
            return _measured(setup, held, cluster, clock, vectors, queries)
        finally:
            for name in (NAME, FLOOR):
                if name in cluster.list_collections():
                    cluster.drop_collection(name)
            if made_here:
                cluster.stop()


def _measured(
    setup: Setup, held: Held, cluster: Cluster, clock: Clock, vectors: F32, queries: F32
) -> Row:
    same = same_answers(held["embedded", NAME], held["cluster", NAME], queries, setup)
    print(f"same answers: {same}", flush=True)
    modes: dict[str, tuple[str, Row]] = {
        "floor": (FLOOR, {"exact": True}),
        "target": (NAME, {"target_recall": setup.target_recall}),
        "exact": (NAME, {"exact": True}),
    }
    ways: dict[tuple[str, str, int], Any] = {}
    for mode, (name, options) in modes.items():
        for batch in setup.batches:
            for system in ("embedded", "cluster"):
                collection = held[system, name]
                ways[system, mode, batch] = {
                    "passes": [],
                    "search": partial(collection.search_columns, limit=setup.k, **options),
                }
    interleaved(ways, queries, setup, clock)
    truth = ids_of(held["embedded", NAME].search_columns(queries, setup.k, exact=True), setup.k)
    judge = Judge(vectors, queries, truth, "cosine", setup.k)
    recalls = {
        system: judge.recall(
            ids_of(
                held[system, NAME].search_columns(
                    queries, setup.k, target_recall=setup.target_recall
                ),
                setup.k,
            ),
            tolerance=TOLERANCE,
        )
        for system in ("embedded", "cluster")
    }
    rows = []
    for mode in modes:
        for batch in setup.batches:
            ours = summed(ways["embedded", mode, batch], batch)
            theirs = summed(ways["cluster", mode, batch], batch)
            rows.append(
                {
                    "mode": mode,
                    "batch": batch,
                    "embedded": ours,
                    "cluster": theirs,
                    "overhead_us": theirs["query_us"] - ours["query_us"],
                    "overhead_cpu_us": theirs["cpu_us"] - ours["cpu_us"],
                }
            )
    explained = held["cluster", NAME].search_columns(
        queries[:1], setup.k, target_recall=setup.target_recall, explain=True
    )
    return {
        "same_answers": same,
        "recall": recalls,
        "rows": rows,
        "parts": parts_of(cluster, held["cluster", NAME], queries, setup),
        "empty_calls_ms": empty_calls(cluster, setup),
        "stages_ms": explained.plan.stages,
        "is_processor_time_of_all": bool(clock.shards),
    }


def as_table(report: Row) -> str:
    """The measurements as Markdown."""
    setup, same = report["setup"], report["same_answers"]
    lines = [
        f"{setup['dataset']}, {setup['n']:,} vectors, {setup['shards']} shards, "
        f"recall@{setup['k']} at target {setup['target_recall']}: "
        f"{report['recall']['embedded']:.4f} embedded, {report['recall']['cluster']:.4f} cluster.",
        f"Exact answers: of {same['queries']:,} queries {same['equal_ids']:,} have equal ids and "
        f"{same['equal_scores']:,} equal scores.",
        "",
        "| search | batch | embedded us/query | cluster us/query | overhead us/query "
        "| CPU embedded | CPU cluster | of it driver | shards | Ray |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        ours, theirs = row["embedded"], row["cluster"]
        lines.append(
            f"| {row['mode']} | {row['batch']} | {ours['query_us']:,.1f} "
            f"| {theirs['query_us']:,.1f} | {row['overhead_us']:,.1f} | {ours['cpu_us']:,.1f} "
            f"| {theirs['cpu_us']:,.1f} | {theirs['cpu_us_driver']:,.1f} "
            f"| {theirs['cpu_us_shards']:,.1f} | {theirs['cpu_us_ray']:,.1f} |"
        )
    lines += [
        "",
        "| batch | c | requests, bytes | stored once | replies, bytes | bytes a query | merge ms "
        "| pickle requests | pickle replies | unpickle replies |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["parts"]:
        total = row["request_bytes"] + row["stored_once_bytes"] + row["reply_bytes"]
        ms = row["ms"]
        lines.append(
            f"| {row['batch']} | {row['c']} | {row['request_bytes']:,} "
            f"| {row['stored_once_bytes']:,} | {row['reply_bytes']:,} "
            f"| {total / row['batch']:,.0f} | {ms['merge']:.3f} | {ms['pickle_requests']:.3f} "
            f"| {ms['pickle_replies']:.3f} | {ms['unpickle_replies']:.3f} |"
        )
    lines += ["", "Calls that do nothing, ms: "
              + ", ".join(f"{name.replace('_', ' ')} {ms:.3f}"
                          for name, ms in report["empty_calls_ms"].items()) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; write JSON and a table; returns the exit code, 1 where exact answers differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a small set, for a look")
    parser.add_argument("--dataset", default=Setup.dataset)
    parser.add_argument("--n", type=int, default=Setup.n, help="vectors, at most")
    parser.add_argument("--shards", type=int, default=Setup.shards)
    parser.add_argument("--passes", type=int, default=Setup.passes)
    parser.add_argument("--target", default="ray://local", help="a Ray cluster that is there")
    parser.add_argument("--storage", help="of that cluster; a folder or URI that all nodes reach")
    parser.add_argument("--same-host", action="store_true", help="all its nodes are this machine")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--label", default="", help="for the names of the results")
    given = parser.parse_args(arguments)
    setup = Setup(given.dataset, given.n, given.shards, passes=given.passes)
    if given.tiny:
        setup = Setup("tiny-32-angular", 3_000, 2, batches=(1, 8, 40), calls=(5, 2, 1),
                      exact_calls=(3, 1, 1), passes=3)  # fmt: skip
    made_here = given.target == "ray://local"
    if not made_here and not given.storage:
        parser.error("expected --storage beside --target: a place that all nodes reach")
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, ray_for(given.target) as target:
        storage = given.storage or f"{folder}/storage"
        found = run(
            setup,
            target,
            storage,
            Path(folder),
            here=made_here or given.same_host,
            made_here=made_here,
        )
        known: Any = ray.nodes  # untyped
        nodes = sum(node["Alive"] for node in known())
    report = {
        "benchmark": "cluster",
        "setup": asdict(setup),
        "nodes": nodes,
        "ray": ray.__version__,
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **found,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    name = "-".join(filter(None, ("cluster", "tiny" if given.tiny else setup.dataset, given.label)))
    (given.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (given.out / f"{name}.md").write_text(as_table(report), "utf-8")
    print(as_table(report))
    same = report["same_answers"]
    return 0 if same["equal_ids"] == same["equal_scores"] == same["queries"] else 1


if __name__ == "__main__":
    sys.exit(main())
