"""The distributed build beside the local one: recall at the same lists, and where the time goes.

    datasets.py -> soardb.cluster (Cluster.load), soardb.connect -> [bench_cluster_build.py]
    -> results/cluster-build-*.json, *.png

The points of a set are written to Parquet files of 10,000 rows a row group. Then there are

  distributed  Cluster.load() over the shards of a Ray of this machine: one model, learnt by Ray
               tasks on a sample, and every shard encodes its points with it
  local        one collection of all points, its model learnt by compact(); with as many lists as a
               shard of the distributed build has, so that list for list they can be compared
  apart        the same shards, each of which learnt lists of its own points

the first two of them once for each of --seeds seeds, as two builds of different seeds differ too.

All are asked every query with the same nprobe: each visits nprobe of its nlist lists, so the same
share of them, and as the lists of the shards are together those of a local build, the same number
of points to within chance. Candidates scored again are as many in all: --rerank locally and a
shard's part of it on each shard. The merge is planned to lose nothing. What is compared is
recall@10, query by query, as a mean over the seeds: the difference, and its standard error.

Then a local and the distributed build, each with the options that it chooses for itself, are asked
by target_recall: a shard has the lists that fit its points, fewer than the local build has.

A set with fewer than 5,000 queries has so many of its points set aside and asked too. Times are of
the wall: files are read, points written and flushed, indexes built and their curves measured, by
one machine's cores for all shards.

    python -m benchmarks.bench_cluster_build wordnet-minilm-384-angular glove6b-50-angular
    python -m benchmarks.bench_cluster_build --tiny
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks.bench_churn import drawn, finish
from benchmarks.bench_target import with_queries
from benchmarks.datasets import Dataset, load
from benchmarks.environment import need

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
TINY = "tiny-32-angular"
SETS = ("wordnet-minilm-384-angular", "glove6b-50-angular")
NPROBES = (1, 2, 4, 8, 16, 32, 64, 128)
TARGETS = (0.8, 0.9, 0.95, 0.99)
_FILES, _GROUP_ROWS, _BATCH = 8, 10_000, 10_000
_OBJECTS = 400 * 2**20
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Setup:
    """What one run measures. nlist: of the builds that are compared list for list."""

    dataset: str
    shards: int = 4
    cpus: int = 2
    rerank: int = 400
    queries: int = 10_000
    seeds: int = 3
    nlist: int | None = None


@dataclass
class Build:
    """One kind of build: seconds of each, in all and by stage, and what it found.

    points  by nprobe or by target: recall, its standard error, and for nprobe the recall of each
            seed and how much more the distributed build found
    """

    name: str
    nlist: int
    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)


def run(setup: Setup, folder: Path) -> list[Build]:
    """Every build and what it found, printed as it is measured."""
    ray = need("ray")
    data = with_queries(load(setup.dataset))
    files = _written(data, folder / "source")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(
            num_cpus=setup.cpus,
            object_store_memory=_OBJECTS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        return _compared(setup, data, files, folder)
    finally:
        ray.shutdown()


def _compared(setup: Setup, data: Dataset, files: Path, folder: Path) -> list[Build]:
    from soardb.cluster import Cluster

    queries = drawn(data.test, setup.queries, 0)
    part = {"rerank": setup.rerank // setup.shards, "merge_recall": 1.0}
    with (
        Cluster(
            "ray://auto",
            storage=folder / "cluster",
            shards=setup.shards,
            timeout=_PATIENCE_S,
            write_timeout=_PATIENCE_S,
        ) as cluster,
        soardb.connect(folder / "local") as database,
    ):
        own = Build("local, own options", 0)
        local_own = _local(database, data, own, {})
        hits = local_own.search(queries, K, exact=True, with_payload=False)
        truth = np.array([one.ids for one in hits])
        distributed, local = Build("distributed", 0), Build("local", 0)
        found: dict[str, list[np.ndarray]] = {"distributed": [], "local": [], "apart": []}
        own_too = Build("distributed, own options", 0)
        for seed in range(setup.seeds):
            index: dict[str, Any] = {"seed": seed}
            if setup.nlist is not None:
                index["nlist"] = setup.nlist
            made = _loaded(cluster, data, files, distributed, index)
            found["distributed"].append(_asked(made, queries, truth, distributed.nlist, **part))
            if seed == 0:
                own_too.nlist = distributed.nlist
                for build, collection in ((own, local_own), (own_too, made)):
                    _promised(build, collection, queries, truth)
            cluster.drop_collection(distributed.name)
            made = _local(database, data, local, {"seed": seed, "nlist": distributed.nlist})
            found["local"].append(_asked(made, queries, truth, local.nlist, rerank=setup.rerank))
            database.drop_collection(_safe(local.name))
        apart = Build("apart", 0)
        made = _apart(cluster, data, apart, {"nlist": distributed.nlist})
        found["apart"].append(_asked(made, queries, truth, apart.nlist, **part))
        for build in (distributed, local, apart):
            _differ(build, found["distributed"], found[build.name])
        cluster.stop()
    return [distributed, local, apart, own, own_too]


def _promised(build: Build, made: Any, queries: np.ndarray, truth: np.ndarray) -> None:
    """Note what is found where a recall is asked for."""
    for target in TARGETS:
        hits = made.search(queries, K, target_recall=target, with_payload=False)
        recalls = _recalls(hits, truth)
        build.points.append(_point(recalls) | {"target": target})
        print(f"{build.name:<26} nlist {build.nlist:>5} asked {target:<5} "
              f"found {recalls.mean():.4f}", flush=True)  # fmt: skip


def _loaded(cluster: Any, data: Dataset, files: Path, build: Build, index: dict[str, Any]) -> Any:
    """Cluster.load(), with the seconds of its stages."""
    began: dict[str, float] = {}
    started = time.perf_counter()

    def note(stage: str, share: float) -> None:
        del share
        began.setdefault(stage, time.perf_counter())

    made = cluster.load(build.name, files, metric=data.metric, index=index, progress=note)
    ended = time.perf_counter()
    marks = [*began.items(), ("", ended)]
    stages = {
        stage: following - at for (stage, at), (_, following) in pairwise(marks) if stage != "done"
    }
    return _told(build, made, cluster.shards, ended - started, stages)


def _local(
    database: soardb.Database, data: Dataset, build: Build, index: dict[str, Any]
) -> soardb.Collection:
    """One collection of all points, written and compacted."""
    made: soardb.Collection = _by_hand(database, data, build, index, 1)
    return made


def _apart(cluster: Any, data: Dataset, build: Build, index: dict[str, Any]) -> Any:
    """A collection over shards, each of which learns its own lists."""
    return _by_hand(cluster, data, build, index, cluster.shards)


def _by_hand(database: Any, data: Dataset, build: Build, index: dict[str, Any], shards: int) -> Any:
    started = time.perf_counter()
    d = data.train.shape[1]
    made = database.create_collection(_safe(build.name), d, data.metric, index=index)
    stages = {"load": _put(made, data)}
    made.compact(retrain=True)
    seconds = time.perf_counter() - started
    stages["build"] = seconds - stages["load"]
    return _told(build, made, shards, seconds, stages)


def _put(made: Any, data: Dataset) -> float:
    started = time.perf_counter()
    for first in range(0, len(data.train), _BATCH):
        part = slice(first, min(first + _BATCH, len(data.train)))
        made.upsert(np.arange(part.start, part.stop), data.train[part], ack="logged")
    return time.perf_counter() - started


def _told(build: Build, made: Any, shards: int, seconds: float, stages: dict[str, float]) -> Any:
    build.nlist = made.stats()["nlist"] // shards
    build.seconds.append(seconds)
    build.stages.append(stages)
    said = ", ".join(f"{name} {took:.1f}" for name, took in stages.items())
    print(f"{build.name}: {build.nlist} lists, {seconds:.1f} s ({said})", flush=True)
    return made


def _asked(
    made: Any, queries: np.ndarray, truth: np.ndarray, nlist: int, **options: Any
) -> np.ndarray:
    """(nprobes, nq) recall of each query at each nprobe."""
    every = []
    for nprobe in _nprobes(nlist):
        hits = made.search(queries, K, nprobe=nprobe, with_payload=False, **options)
        every.append(_recalls(hits, truth))
    return np.array(every)


def _differ(build: Build, distributed: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
    """Note the recall at each nprobe, and what the distributed build found more."""
    more = np.mean(distributed, axis=0) - np.mean(found, axis=0)  # (nprobes, nq)
    for at, nprobe in enumerate(_nprobes(build.nlist)):
        point = _point(np.mean(found, axis=0)[at]) | {
            "nprobe": nprobe,
            "share": nprobe / build.nlist,
            "of_seeds": [float(one[at].mean()) for one in found],
            "distributed_more": float(more[at].mean()),
            "distributed_more_error": float(more[at].std() / np.sqrt(more.shape[1])),
        }
        build.points.append(point)
        seeds = " ".join(f"{recall:.4f}" for recall in point["of_seeds"])
        print(f"{build.name:<12} nprobe {nprobe:>4} recall {point['recall']:.4f} ({seeds}) "
              f"distributed more by {point['distributed_more']:+.4f} "
              f"+-{point['distributed_more_error']:.4f}", flush=True)  # fmt: skip


def _point(recalls: np.ndarray) -> dict[str, Any]:
    return {
        "recall": float(recalls.mean()),
        "error": float(recalls.std() / np.sqrt(len(recalls))),
    }


def _nprobes(nlist: int) -> list[int]:
    return [nprobe for nprobe in NPROBES if nprobe <= nlist]


def _safe(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def _recalls(hits: Sequence[Any], truth: np.ndarray) -> np.ndarray:
    """(nq,) share of the true K of each query."""
    pairs = zip(truth, hits, strict=True)
    return np.array([np.isin(true, one.ids).mean() for true, one in pairs])


def _written(data: Dataset, folder: Path) -> Path:
    """The points as Parquet files."""
    pa = need("pyarrow")
    parquet = need("pyarrow.parquet")
    folder.mkdir()
    n, d = data.train.shape
    each = -(-n // _FILES)
    for i, first in enumerate(range(0, n, each)):
        rows = np.arange(first, min(first + each, n))
        flat = pa.array(np.ascontiguousarray(data.train[rows]).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, d)
        parquet.write_table(
            pa.table({"id": pa.array(rows), "vector": vectors}),
            folder / f"{i}.parquet",
            row_group_size=_GROUP_ROWS,
        )
    return folder


def plot(report: dict[str, Any], path: Path) -> None:
    """Recall by the share of lists read, and the distributed build's difference from the others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for build in report["builds"]:
        points = [point for point in build["points"] if "nprobe" in point]
        if not points:
            continue
        shares = [point["share"] for point in points]
        left.plot(shares, [point["recall"] for point in points], marker=".", label=build["name"])
        if build["name"] != "distributed":
            right.errorbar(
                shares,
                [point["distributed_more"] for point in points],
                [2 * point["distributed_more_error"] for point in points],
                fmt="o-",
                ms=3,
                label=f"less {build['name']}",
            )
    right.axhspan(-0.005, 0.005, color="0.9", zorder=0)
    left.set(xscale="log", xlabel="share of the lists read", ylabel="recall@10")
    right.set(xscale="log", xlabel="share of the lists read", ylabel="recall@10, distributed")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(f"{report['setup']['dataset']}, {report['setup']['shards']} shards")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each set, write JSON and plot of each; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_cluster_build", description=__doc__
    )
    parser.add_argument("datasets", nargs="*", default=SETS)
    parser.add_argument("--tiny", action="store_true", help=f"only {TINY}")
    parser.add_argument("--shards", type=int, default=Setup.shards)
    parser.add_argument("--cpus", type=int, default=Setup.cpus, help="of Ray's books")
    parser.add_argument("--queries", type=int, default=Setup.queries)
    parser.add_argument("--seeds", type=int, default=Setup.seeds)
    parser.add_argument("--rerank", type=int, default=Setup.rerank, help="candidates in all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    for dataset in [TINY] if given.tiny else given.datasets:
        setup = Setup(
            dataset,
            given.shards,
            given.cpus,
            given.rerank,
            given.queries,
            given.seeds,
            16 if given.tiny else None,
        )
        code = finish("cluster-build", setup, given.results, "builds", run, plot)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
