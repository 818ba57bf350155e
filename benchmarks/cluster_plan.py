"""One number of shards under a load: latency, bytes, memory, building and cost; the fewest that do.

    cluster_model.py, cluster_queue.py -> [cluster_plan.py] -> cluster_sim.py

A workload and a cluster become the times of one call (costs_of), these become latencies in a
simulation (plan), and plans are tried until one does (smallest). validate() does the same for the
cluster that was measured, and puts both beside each other.

Everything that is not a measurement is a field of Workload, Cluster or Prices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.cluster_model import REFERENCE_D, Calibration, asked_of_shards
from benchmarks.cluster_queue import F64, Costs, Lognormal, simulate

__all__ = [
    "MOST_SHARDS",
    "QUANTILES",
    "Cluster",
    "Prices",
    "Workload",
    "costs_of",
    "failing",
    "plan",
    "smallest",
    "validate",
]

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
MOST_BUSY = 0.8  # of the cores of a host, for `smallest`
MOST_SHARDS = 4096
_GIB = 2.0**30
_HOURS_A_MONTH = 730.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """What is asked.

    batch          queries of one message
    payload_bytes  of a point, stored and sent with each hit; 0: there are none, none are read
    """

    vectors: float = 1e9
    dim: int = 768
    qps: float = 1000.0
    k: int = 10
    target_recall: float = 0.95
    batch: int = 1
    payload_bytes: float = 100.0


@dataclass(frozen=True)
class Cluster:
    """What answers. One shard a host unless told; parameters, not measurements.

    network_ms, gbit_s      round trip and bandwidth of the network between driver and shards
    straggler, straggler_ms how often a message meets one, and how long that takes in the mean
    driver_share            of its time that a driver may work: there are as many as that takes
    host_gib, memory_share  memory of a host, and the share of it that a shard may take
    """

    shards: int = 1
    shards_per_host: int = 1
    cores: int = 8
    precision: str = "float32"
    network_ms: float = 0.2
    gbit_s: float = 10.0
    straggler: float = 1e-3
    straggler_ms: float = 10.0
    driver_share: float = 0.3
    host_gib: float = 256.0
    memory_share: float = 0.8

    @property
    def hosts(self) -> int:
        """Of all shards."""
        return -(-self.shards // self.shards_per_host)


@dataclass(frozen=True)
class Prices:
    """Assumed, in any currency; without a source."""

    vcpu_hour: float = 0.05
    gib_hour: float = 0.006
    disk_gib_month: float = 0.1


# ---------------------------------------------------------------- one plan


def costs_of(work: Workload, cluster: Cluster, known: Calibration) -> tuple[Costs, Row]:
    """What a call takes, in seconds, and what that was computed from."""
    n = work.vectors / cluster.shards
    asked, recall = asked_of_shards(work.vectors, work.k, cluster.shards, work.target_recall)
    c = min(asked.c, work.k)
    curve, talk = known.query_us(recall), known.messages
    query_s = curve.at(n) / 1e6 * work.dim / REFERENCE_D
    request = known.wire.request(work.batch, work.dim)
    answer = known.wire.answer(work.batch, c, work.payload_bytes)
    rate = cluster.gbit_s * 1e9 / 8
    search = Lognormal(query_s, known.sigma).of_sum(work.batch)
    read_s = 0.0
    if work.payload_bytes:
        read_s = talk.shard_reading + work.batch * c * talk.shard_payload
    message = talk.shard_message + work.batch * talk.shard_query + read_s
    per_message = talk.driver_message + work.batch * c * talk.driver_hit
    one_way = (talk.idle_s + cluster.network_ms / 1e3) / 2 + request / rate

    def wire(rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
        return np.full(shape, one_way)

    def service(rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
        taken = message + search(rng, shape)
        if cluster.straggler:
            late = rng.random(shape) < cluster.straggler
            taken[late] += rng.exponential(cluster.straggler_ms / 1e3, int(late.sum()))
        return np.asarray(taken)

    costs = Costs(
        send=per_message / 2,
        receive=max(per_message / 2, answer / rate),
        around=talk.driver_around,
        wire=wire,
        service=service,
    )
    late_s = cluster.straggler * cluster.straggler_ms / 1e3
    return costs, {
        "vectors_a_shard": n,
        "beyond_measured": curve.beyond(n),
        "c": c,
        "merge_recall": asked.expected_recall,
        "shard_recall": recall,
        "search_us_a_query": query_s * 1e6,
        "payloads_us_a_query": read_s / work.batch * 1e6,
        "service_ms_a_message": (message + work.batch * query_s + late_s) * 1e3,
        "request_bytes": request,
        "answer_bytes": answer,
    }


def plan(
    work: Workload,
    cluster: Cluster,
    known: Calibration,
    prices: Prices,
    *,
    calls: int = 20_000,
    seed: int = 0,
) -> Row:
    """One number of shards under a load, as JSON values.

    Latencies are None where it is overloaded, and where no calls are to be simulated.
    """
    costs, found = costs_of(work, cluster, known)
    rate = work.qps / work.batch
    in_use = rate * found["service_ms_a_message"] / 1e3 * cluster.shards_per_host / cluster.cores
    drivers = max(1, math.ceil(rate * costs.driver_s(cluster.shards) / cluster.driver_share))
    latency: Row = dict.fromkeys([*QUANTILES, "mean"])
    if in_use < 1 and calls:
        seconds = simulate(
            costs,
            hosts=cluster.hosts,
            shards_per_host=cluster.shards_per_host,
            cores=cluster.cores,
            drivers=drivers,
            rate=rate,
            calls=calls,
            seed=seed,
        )
        # Of a batch each query waited until it was full: the last one not at all.
        rng = np.random.default_rng([seed, 1])
        seconds = seconds + rng.integers(0, work.batch, len(seconds)) / work.qps
        latency = {name: float(np.quantile(seconds, q)) * 1e3 for name, q in QUANTILES.items()}
        latency["mean"] = float(seconds.mean()) * 1e3
    memory = known.memory_bytes(found["vectors_a_shard"], work.dim, cluster.precision)
    disk = known.disk_bytes(
        found["vectors_a_shard"], work.dim, cluster.precision, work.payload_bytes
    )
    per_host = sum(memory.values()) * cluster.shards_per_host / _GIB
    build_s = known.build_cpu_s(found["vectors_a_shard"], work.dim)
    on_hosts = cluster.shards / cluster.shards_per_host
    shards_cpu = found["service_ms_a_message"] / 1e3 * cluster.shards / work.batch
    driver_cpu = costs.driver_s(cluster.shards) / work.batch
    cores = on_hosts * cluster.cores + drivers
    gib = sum(memory.values()) * cluster.shards / _GIB / cluster.memory_share
    disk_gib = sum(disk.values()) * cluster.shards / _GIB
    hourly = (
        cores * prices.vcpu_hour
        + gib * prices.gib_hour
        + disk_gib * prices.disk_gib_month / _HOURS_A_MONTH
    )
    bytes_a_call = cluster.shards * (found["request_bytes"] + found["answer_bytes"])
    stored = work.vectors * (4.0 * work.dim + work.payload_bytes)
    return found | {
        "shards": cluster.shards,
        "hosts": cluster.hosts,
        "drivers": drivers,
        "cores_in_use": in_use,
        "latency_ms": latency,
        "bytes_on_the_wire_a_query": bytes_a_call / work.batch,
        "gbit_s_of_all": bytes_a_call * rate * 8 / 1e9,
        "memory_bytes_a_shard": memory,
        "memory_gib_a_host": per_host,
        "fits_in_memory": per_host <= cluster.host_gib * cluster.memory_share,
        "disk_bytes_a_shard": disk,
        "bytes_a_vector": {
            "memory": sum(memory.values()) / found["vectors_a_shard"],
            "disk": sum(disk.values()) / found["vectors_a_shard"],
        },
        "cpu_ms_a_query": {"shards": shards_cpu * 1e3, "driver": driver_cpu * 1e3},
        "build": {
            "cpu_hours": build_s * cluster.shards / 3600,
            "hours": build_s * cluster.shards_per_host / cluster.cores / 3600,
            "ingest_hours_at_least": stored / (cluster.gbit_s * 1e9 / 8 * on_hosts) / 3600,
        },
        "vcpu": cores,
        "memory_gib": gib,
        "disk_gib": disk_gib,
        "price_an_hour": hourly,
        "price_a_million_queries": hourly / 3600 / work.qps * 1e6,
    }


def smallest(
    work: Workload,
    cluster: Cluster,
    known: Calibration,
    prices: Prices,
    p99_ms: float,
    *,
    calls: int = 4_000,
    seed: int = 0,
) -> tuple[Row | None, list[Row]]:
    """The least number of shards that fits, is at most MOST_BUSY and has that p99; and all tried.

    None where there is none up to MOST_SHARDS. Memory and load fall as shards grow in number, the
    tail need not; so from the least that fits the number grows by a quarter a step, and between
    the first that does and the one before it is halved.
    """
    tried: dict[int, Row] = {}

    def fits(row: Row) -> bool:
        return bool(row["fits_in_memory"] and row["cores_in_use"] <= MOST_BUSY)

    def does(shards: int) -> bool:
        if shards not in tried:
            chosen = replace(cluster, shards=shards)
            tried[shards] = plan(work, chosen, known, prices, calls=0)
            if fits(tried[shards]):  # nothing is simulated where memory or load forbid it
                tried[shards] = plan(work, chosen, known, prices, calls=calls, seed=seed)
        p99 = tried[shards]["latency_ms"]["p99"]
        return p99 is not None and bool(p99 <= p99_ms)

    shards, before = 1, 0
    while not does(shards):
        if shards >= MOST_SHARDS:
            return None, [tried[s] for s in sorted(tried)]
        before, shards = shards, min(MOST_SHARDS, max(shards + 1, shards * 5 // 4))
    while shards - before > 1:
        middle = (before + shards) // 2
        if does(middle):
            shards = middle
        else:
            before = middle
    return tried[shards], [tried[s] for s in sorted(tried)]


def failing(row: Row, p99_ms: float) -> list[str]:
    """Why a plan does not do, in words."""
    reasons = []
    if not row["fits_in_memory"]:
        reasons.append(f"{row['memory_gib_a_host']:,.0f} GiB a host")
    if row["cores_in_use"] > MOST_BUSY:
        reasons.append(f"cores {row['cores_in_use']:.0%} in use")
    p99 = row["latency_ms"]["p99"]
    if p99 is not None and p99 > p99_ms:
        reasons.append(f"p99 {p99:,.1f} ms")
    return reasons


# ---------------------------------------------------------------- against the real thing


def validate(known: Calibration, calls_report: Row, *, cores: int = 2, seed: int = 0) -> list[Row]:
    """Foretold beside measured latency of the real Ray: all shards on one host, one caller.

    Messages were calibrated on collections with nothing to search, the search itself in another
    benchmark on other vectors of the same law; what is foretold is their sum on shared cores. One
    core is the driver's while it sends and takes; the rest, but one at least, are the shards'.
    """
    rows, setup = [], calls_report["setup"]
    for way in calls_report["ways"]:
        if way["what"] == "floor":
            continue
        shards, points = way["shards"], float(np.mean(calls_report["points_of_shards"]))
        recall = setup["target_recall"]
        work = Workload(
            points * shards,
            setup["d"],
            1.0,
            setup["k"],
            recall,
            way["batch"],
            payload_bytes=2.0 if way["what"] == "paid" else 0.0,
        )
        cluster = Cluster(
            shards,
            shards_per_host=shards,
            cores=cores,
            network_ms=0.0,
            gbit_s=1e3,
            straggler=0.0,
        )
        costs, found = costs_of(work, cluster, known)
        seconds = simulate(
            costs,
            hosts=1,
            shards_per_host=shards,
            cores=cores,
            drivers=1,
            rate=0.0,
            calls=400,
            seed=seed,
        )
        foretold, measured = float(np.median(seconds)) * 1e3, way["ms"]["0.5"]
        on_shards = shards * found["service_ms_a_message"]
        foretold_cpu = costs.driver_s(shards) * 1e3 + on_shards
        rows.append(
            {
                "what": way["what"],
                "shards": shards,
                "batch": way["batch"],
                "c": way["c"],
                "foretold_p50_ms": foretold,
                "measured_p50_ms": measured,
                "error": foretold / measured - 1,
                "measured_p10_ms": way["ms"]["0.1"],
                "error_to_p10": foretold / way["ms"]["0.1"] - 1,
                "foretold_p90_ms": float(np.quantile(seconds, 0.9)) * 1e3,
                "measured_p90_ms": way["ms"]["0.9"],
                "foretold_cpu_ms": foretold_cpu,
                "measured_cpu_ms": way["cpu_ms_driver"] + way["cpu_ms_shards"],
                "cpu_error": foretold_cpu / (way["cpu_ms_driver"] + way["cpu_ms_shards"]) - 1,
            }
        )
    return rows
