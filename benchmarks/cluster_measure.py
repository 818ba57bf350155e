"""What a message to a shard costs, and how long calls on 1 to 8 shards take: for the simulation.

    soardb on Ray, bench_scale.py (vectors) -> [cluster_measure.py] -> results/cluster-calls.json

Eight shards of one Ray, each in a process of its own, are asked as soardb/cluster/searching.py asks
them: 1, 2, 4 or all 8 at once, with 1, 64 or 1,024 queries, and what they answer is merged. Thrice:
on a hundred points a shard, where there is nothing to search, which gives the cost of messages
("floor"); on a shard's worth of points at a target recall ("real"), which the simulation has to
foretell; and there with payloads, which gives the cost of reading one ("paid", of one shard), and
which is foretold, too.

    python -m benchmarks.cluster_sim --measure

Times are of the caller's clock, processor time is of the driver and of the shards.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

import soardb
from benchmarks import provenance
from benchmarks.bench_scale import Setup as Distribution
from benchmarks.bench_scale import chunk
from benchmarks.cluster_model import asked_of_shards
from benchmarks.ray_processes import busy_s, descendants, pickled, processor_s, ray_for
from soardb.cluster import Cluster
from soardb.cluster.calls import Job, shard_name
from soardb.cluster.merge import merged
from soardb.cluster.placement import shard_of
from soardb.kernels.layout import F32

__all__ = ["Measure", "measure"]

Row = dict[str, Any]
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True)
class Measure:
    """What is measured. points: of a shard; calls: of each number of queries in a pass."""

    shards: int = 8
    asked: tuple[int, ...] = (1, 2, 4, 8)
    batches: tuple[int, ...] = (1, 64, 1024)
    calls: tuple[int, ...] = (60, 12, 3)
    points: int = 40_000
    floor_points: int = 100
    k: int = 10
    target_recall: float = 0.95
    passes: int = 5
    rows_points: int = 20_000
    d: int = 96


def measure(setup: Measure, out: Path) -> Row:
    """Measure and write the JSON."""
    vectors = _vectors(setup)
    queries = chunk(Distribution(d=setup.d), 10**6, max(setup.batches))
    with tempfile.TemporaryDirectory(prefix="calls-") as folder, ray_for("ray://local") as target:
        with Cluster(
            target,
            storage=f"{folder}/storage",
            shards=setup.shards,
            timeout=300.0,
            write_timeout=300.0,
        ) as cluster:
            try:
                found = _calls(cluster, setup, vectors, queries)
            finally:
                cluster.stop()
        found["row_store"] = _row_store(setup, vectors, Path(folder))
    report = {
        "benchmark": "cluster-calls",
        "setup": asdict(setup),
        "ray": ray.__version__,
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **found,
    }
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def _vectors(setup: Measure) -> F32:
    wanted, distribution = setup.shards * setup.points, Distribution(d=setup.d)
    numbers = range(-(-wanted // 100_000))
    return np.concatenate([chunk(distribution, i, 100_000) for i in numbers])[:wanted]


def _calls(cluster: Cluster, setup: Measure, vectors: F32, queries: F32) -> Row:
    floor, real = (cluster.create_collection(name, setup.d) for name in ("floor", "real"))
    ids = np.arange(len(vectors), dtype=np.int64)
    few = ids[: setup.floor_points * setup.shards]
    floor.upsert(few, vectors[few])
    for first in range(0, len(ids), 40_000):
        real.upsert(ids[first : first + 40_000], vectors[first : first + 40_000])
    real.compact()
    points = np.bincount(shard_of(ids.tolist(), setup.shards), minlength=setup.shards)
    ways: list[Row] = [
        {"what": name, "shards": shards, "batch": batch, "calls": calls, "passes": []}
        for name in ("floor", "real", "paid")
        for shards in setup.asked
        for batch, calls in zip(setup.batches, setup.calls, strict=True)
    ]
    pids = list(cluster.processes().values())
    held = {"floor": floor.id, "real": real.id, "paid": real.id}
    ours = [os.getpid(), *descendants(os.getpid())]
    others = []
    for number in range(setup.passes + 1):
        began, busy, own = time.perf_counter(), busy_s(), processor_s(ours)
        for way in ways:
            found = _timed(cluster, held[way["what"]], way, queries, setup, pids, warm=not number)
            if number:
                way["passes"].append(found)
        of_others = busy_s() - busy - (processor_s(ours) - own)
        others.append(max(0.0, of_others / (time.perf_counter() - began)))
        print(f"pass {number} of {setup.passes}", flush=True)
    for way in ways:
        passes = way.pop("passes")
        every = np.concatenate([found["ms"] for found in passes])
        way["ms"] = {f"{q:g}": float(np.quantile(every, q)) for q in QUANTILES}
        way["ms_mean"] = float(every.mean())
        way["ms_passes"] = [float(np.median(found["ms"])) for found in passes]
        for name in ("cpu_ms_driver", "cpu_ms_shards", "merge_ms"):
            way[name] = float(np.median([found[name] for found in passes]))
        way["calls"] = len(every)
        way["c"] = _options(setup, way)["limit"]
    replies = _replies(cluster, held["real"], queries, setup)
    return {
        "points_of_shards": points.tolist(),
        "cores_busy_with_other_work": others,
        "ways": ways,
        "messages": replies,
    }


def _options(setup: Measure, way: Row) -> Row:
    """What a cluster of so many shards would ask each of them."""
    n = setup.points * way["shards"]
    asked, recall = asked_of_shards(n, setup.k, way["shards"], setup.target_recall)
    return {
        "limit": min(asked.c, setup.k),
        "target_recall": recall,
        "explain": True,
        "with_payload": way["what"] == "paid",
    }


def _timed(
    cluster: Cluster,
    collection: str,
    way: Row,
    queries: F32,
    setup: Measure,
    pids: Sequence[int],
    *,
    warm: bool,
) -> Row:
    actors, batch, count = cluster._actors, way["batch"], 2 if warm else way["calls"]
    options, k = _options(setup, way), setup.k
    each, merging, of_shards = [], 0.0, processor_s(pids)
    driver = time.process_time()
    for call in range(count):
        first = call * batch % (len(queries) - batch + 1)
        asked: Any = queries[first : first + batch]
        began = time.perf_counter()
        if asked.nbytes > 100_000 and way["shards"] > 1:  # as searching.py does
            asked = ray.put(asked)
        job = Job("search", (collection, asked, options))
        jobs = {shard_name(number): job for number in range(way["shards"])}
        answers = list(actors.all(jobs, 300.0).values())
        answered = time.perf_counter()
        merged(answers, k)
        ended = time.perf_counter()
        each.append((ended - began) * 1e3)
        merging += ended - answered
    driver = time.process_time() - driver
    return {
        "ms": each,
        "cpu_ms_driver": driver * 1e3 / count,
        "cpu_ms_shards": (processor_s(pids) - of_shards) * 1e3 / count,
        "merge_ms": merging * 1e3 / count,
    }


def _replies(cluster: Cluster, collection: str, queries: F32, setup: Measure) -> list[Row]:
    """Bytes of a request and of a reply by queries and hits."""
    rows, options = [], _options(setup, {"what": "real", "shards": 1})
    for batch in setup.batches:
        for limit in (1, setup.k):
            arguments = (collection, queries[:batch], options | {"limit": limit})
            job = Job("search", arguments)
            (reply,) = cluster._actors.all({shard_name(0): job}, 300.0).values()
            rows.append(
                {
                    "batch": batch,
                    "limit": limit,
                    "request_bytes": len(pickled(arguments)),
                    "reply_bytes": len(pickled(reply)),
                }
            )
    return rows


def _row_store(setup: Measure, vectors: F32, folder: Path) -> Row:
    """What a stored row takes on disk beyond vector and payload; files of a checkpointed store."""
    payloads = [{"n": number % 1000} for number in range(setup.rows_points)]
    with soardb.connect(folder / "rows") as database:
        collection = database.create_collection("rows", setup.d)
        ids = np.arange(setup.rows_points, dtype=np.int64)
        collection.upsert(ids, vectors[: setup.rows_points], payloads)
    size = sum(
        file.stat().st_size for file in (folder / "rows").rglob("rows.sqlite*") if file.is_file()
    )
    text = sum(len(json.dumps(payload, separators=(",", ":"))) for payload in payloads)
    beyond = size - vectors[: setup.rows_points].nbytes - text
    return {"rows": setup.rows_points, "bytes": size, "bytes_a_row_beyond": beyond / len(ids)}
