"""The distributed build beside the local one: recall at the same lists, and where the time goes.

    datasets.py -> soardb.cluster (Cluster.load), soardb.connect -> [bench_cluster_build.py]
    -> results/cluster-build-*.json, *.png

The points of a set are written to Parquet files of 10,000 rows a row group. Then there are

  distributed  Cluster.load() over the shards of a Ray of this machine: one model, learnt by Ray
               tasks on a sample, and every shard encodes its points with it
  local        one collection of all points, its model learnt by compact(); with as many lists as a
               shard of the distributed build has, so that list for list they can be compared
  other seed   the same with another seed: how far two local builds are from one another
  apart        the same shards, each of which learnt lists of its own points

All are asked every query of the set with the same nprobe: each visits nprobe of its nlist lists, so
the same share of them, and as the lists of the shards are together those of the local build, the
same number of points to within chance. Candidates scored again are as many in all: --rerank locally
and a shard's part of it on each shard. The merge is planned to lose nothing. What is compared is
the difference of recall@10, query by query: its mean, and the standard error of that.

Then local and distributed with the options that each chooses for itself are asked by target_recall:
a shard then has the lists that fit its points, fewer than the local build has.

Times are of the wall: files are read, points written and flushed, indexes built and their curves
measured, by one machine's cores for all shards.

    python -m benchmarks.bench_cluster_build wordnet-minilm-384-angular glove6b-50-angular
    python -m benchmarks.bench_cluster_build --tiny
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import soardb
from benchmarks.bench_churn import drawn, finish
from benchmarks.datasets import Dataset, load
from benchmarks.environment import need

RESULTS = Path(__file__).resolve().parent / "results"
K = 10
TINY = "tiny-32-angular"
SETS = ("wordnet-minilm-384-angular", "glove6b-50-angular")
NPROBES = (1, 2, 4, 8, 16, 32, 64, 128)
TARGETS = (0.8, 0.9, 0.95, 0.99)
_FILES, _GROUP_ROWS, _BATCH = 8, 10_000, 10_000
_NAME = "all"
_OBJECTS = 400 * 2**20
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Setup:
    """What one run measures. nlist: of the builds that are compared list for list."""

    dataset: str
    shards: int = 4
    cpus: int = 2
    rerank: int = 400
    queries: int = 2_000
    nlist: int | None = None


@dataclass
class Build:
    """One build: how it was made, seconds in all and by stage, and what it found."""

    name: str
    nlist: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)


def run(setup: Setup, folder: Path) -> list[Build]:
    """Every build and what it found, printed as it is measured."""
    ray = need("ray")
    data = load(setup.dataset)
    queries = drawn(data.test, setup.queries, 0)
    truth = _truth(data, queries)
    files = _written(data, folder / "source")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=setup.cpus,
        object_store_memory=_OBJECTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        return _compared(setup, data, queries, truth, files, folder)
    finally:
        ray.shutdown()


def _compared(
    setup: Setup,
    data: Dataset,
    queries: np.ndarray,
    truth: np.ndarray,
    files: Path,
    folder: Path,
) -> list[Build]:
    from soardb.cluster import Cluster

    builds = []
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
        index = {} if setup.nlist is None else {"nlist": setup.nlist}
        made, one = _loaded(cluster, data, files, "distributed", index)
        builds.append(one)
        base = _asked(made, queries, truth, one, setup.rerank // setup.shards, merge_recall=1.0)
        for name, seed in (("local", 0), ("other seed", 1)):
            local, one = _local(database, data, name, {"nlist": builds[0].nlist, "seed": seed})
            builds.append(one)
            found = _asked(local, queries, truth, one, setup.rerank)
            _differ(one, base, found)
            database.drop_collection(_safe(name))
        apart, one = _apart(cluster, data, {"nlist": builds[0].nlist})
        builds.append(one)
        found = _asked(apart, queries, truth, one, setup.rerank // setup.shards, merge_recall=1.0)
        _differ(one, base, found)
        cluster.drop_collection("apart")
        local, one = _local(database, data, "local, own options", {})
        builds.append(one)
        chosen = Build("distributed, own options", builds[0].nlist, builds[0].seconds)
        builds.append(chosen)
        for each, collection in ((one, local), (chosen, made)):
            for target in TARGETS:
                hits = collection.search(queries, K, target_recall=target, with_payload=False)
                recalls = _recalls(hits, truth)
                each.points.append(_point(recalls) | {"target": target})
                print(f"{each.name:<26} nlist {each.nlist:>5} asked {target:<5} "
                      f"found {recalls.mean():.4f}", flush=True)  # fmt: skip
        cluster.stop()
    return builds


def _loaded(
    cluster: Any, data: Dataset, files: Path, name: str, index: dict[str, Any]
) -> tuple[Any, Build]:
    """Cluster.load(), with the seconds of its stages."""
    began: dict[str, float] = {}
    started = time.perf_counter()

    def note(stage: str, share: float) -> None:
        del share
        began.setdefault(stage, time.perf_counter())

    made = cluster.load(name, files, metric=data.metric, index=index or None, progress=note)
    ended = time.perf_counter()
    marks = [*began.items(), ("", ended)]
    stages = {
        stage: following - at for (stage, at), (_, following) in pairwise(marks) if stage != "done"
    }
    nlist = made.stats()["nlist"] // cluster.shards
    return made, _told(Build(name, nlist, ended - started, stages))


def _local(
    database: soardb.Database, data: Dataset, name: str, index: dict[str, Any]
) -> tuple[soardb.Collection, Build]:
    """One collection of all points, written and compacted."""
    started = time.perf_counter()
    made = database.create_collection(_safe(name), data.train.shape[1], data.metric, index=index)
    stages = {"load": _put(made, data)}
    made.compact(retrain=True)
    seconds = time.perf_counter() - started
    stages["build"] = seconds - stages["load"]
    return made, _told(Build(name, made.stats()["nlist"], seconds, stages))


def _apart(cluster: Any, data: Dataset, index: dict[str, Any]) -> tuple[Any, Build]:
    """A collection over shards, each of which learns its own lists."""
    started = time.perf_counter()
    made = cluster.create_collection("apart", data.train.shape[1], data.metric, index=index)
    stages = {"load": _put(made, data)}
    made.compact(retrain=True)
    seconds = time.perf_counter() - started
    stages["build"] = seconds - stages["load"]
    nlist = made.stats()["nlist"] // cluster.shards
    return made, _told(Build("apart", nlist, seconds, stages))


def _put(made: Any, data: Dataset) -> float:
    started = time.perf_counter()
    for first in range(0, len(data.train), _BATCH):
        part = slice(first, min(first + _BATCH, len(data.train)))
        made.upsert(np.arange(part.start, part.stop), data.train[part], ack="logged")
    return time.perf_counter() - started


def _told(build: Build) -> Build:
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in build.stages.items())
    print(f"{build.name}: {build.nlist} lists, {build.seconds:.1f} s ({stages})", flush=True)
    return build


def _asked(
    made: Any, queries: np.ndarray, truth: np.ndarray, build: Build, rerank: int, **options: Any
) -> list[np.ndarray]:
    """Recall of each query at each nprobe, noted in the build."""
    every = []
    for nprobe in _nprobes(build.nlist):
        hits = made.search(queries, K, nprobe=nprobe, rerank=rerank, with_payload=False, **options)
        recalls = _recalls(hits, truth)
        every.append(recalls)
        build.points.append(_point(recalls) | {"nprobe": nprobe, "share": nprobe / build.nlist})
    return every


def _differ(build: Build, base: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
    """Note what the distributed build found more, query by query, at each nprobe."""
    for point, one, other in zip(build.points, base, found, strict=True):
        more = one - other
        point["distributed_more"] = float(more.mean())
        point["distributed_more_error"] = float(more.std() / np.sqrt(len(more)))
        print(f"{build.name:<12} nprobe {point['nprobe']:>4} recall {point['recall']:.4f} "
              f"distributed {one.mean():.4f} {more.mean():+.4f} "
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


def _truth(data: Dataset, queries: np.ndarray) -> np.ndarray:
    """(nq, K) the exact answers of the queries that were drawn."""
    rows = {row.tobytes(): i for i, row in enumerate(data.test)}
    chosen = [rows[query.tobytes()] for query in queries]
    return np.asarray(data.neighbors[chosen, :K])


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
        if "distributed_more" in points[0]:
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
            16 if given.tiny else None,
        )
        code = finish("cluster-build", setup, given.results, "builds", run, plot)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
