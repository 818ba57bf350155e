"""From measurements of one machine to what a shard of any size costs: time, bytes, building.

    results/scale-*.json, precision-*.json, peers-*.json, cluster-calls.json
        -> [cluster_model.py] -> cluster_sim.py

Costs that grow with the vectors of a shard were measured at seven sizes and are read between them
on logarithmic axes; beyond the largest they go on as a power of n fitted to the three largest, and
whoever reads one is told how far beyond. Costs of messages are straight lines through what was
measured with 1 to 8 shards and 1 to 1,024 queries.

Nothing here draws a random number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_scale import cost_at
from soardb.errors import InvalidArgument
from soardb.topk import ShardPlan, plan_shards

__all__ = [
    "ASSUMPTIONS",
    "Calibration",
    "Messages",
    "Power",
    "Wire",
    "asked_of_shards",
    "read_calibration",
]

RESULTS = Path(__file__).resolve().parent / "results"
PRECISIONS = {"float32": 4.0, "bfloat16": 2.0, "int8": 0.0}  # bytes a dimension beside the codes
MERGE_SHARE = 0.05  # of the loss that a target allows, for the merge; as in searching.py
MOST_PLANNED = 2**30  # beyond it the law of placement is that of this many, as in searching.py
REFERENCE_D = 96  # of the vectors of scale-96.json

ASSUMPTIONS = (
    "Vectors are as hard to search as the clustered ones of bench_scale.py, and the recall is "
    "recall@10 whatever k.",
    "The cost of a query is proportional to the dimension, as the bytes it reads are; the one pair "
    "of measurements in two dimensions (report: dim_exponent) says less, which is left as a "
    "margin.",
    "Beyond ten million vectors a shard the cost grows by the power of n fitted to the three "
    "largest sizes measured; each row says how far beyond they are.",
    "Cores are like the one measured and are not slowed by their neighbours.",
    "All that a search may read (codes, centroids, bytes for the re-ranking, vectors) is in memory."
    " Rows and payloads are on disk; those of results are in the memory of the system when they are"
    " read, as they were where it was measured. Every shard reads the payloads of its c results.",
    "Queries of one batch are independent, and one costs what it costs by itself: nothing is taken "
    "off for lists that queries of a batch share.",
    "Service times are lognormal about their mean, with the ratio of p99 to p50 that was measured "
    "over single queries.",
    "Besides, a message meets a straggler with a small probability, who takes an exponential time "
    "more and keeps its core busy: a parameter, not a measurement.",
    "One way of a message takes half of what an empty call was measured to take beyond processor "
    "time, plus half of the round trip of the network (a parameter), plus its bytes over the "
    "bandwidth (a parameter); the driver takes the bytes of answers one after the other.",
    "A driver is one process that works on one call's messages at a time (Python holds one lock); "
    "there are as many drivers as keep each below a share of its time (a parameter).",
    "Calls come by a Poisson process; a batch is sent once it is full.",
    "Points are placed by hash, so shards are equal but for chance, and c comes from the planner "
    "of DA-TOP-k at the recall that searching.py leaves to the merge.",
    "No shard is missing, nothing is written meanwhile, and nothing is filtered.",
    "Prices are parameters; their defaults are round numbers without a source.",
    "Of a build: every shard trains its own index, on all its cores at once without loss; ingest "
    "is bounded by the network alone.",
    "Ray's own header of a call or an answer is a parameter.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Power:
    """A cost over n as measured: straight between points on logarithmic axes, a power beyond."""

    n: tuple[float, ...]
    cost: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.n) < 2 or len(self.n) != len(self.cost):
            raise InvalidArgument(
                f"expected two measured sizes or more with a cost each, got {len(self.n)} sizes "
                f"and {len(self.cost)} costs; measure again with make bench-scale"
            )

    def at(self, n: float) -> float:
        """The cost at n."""
        logs, costs = np.log(self.n), np.log(self.cost)
        x = math.log(n)
        if x > logs[-1]:
            return float(np.exp(costs[-1] + self.exponent * (x - logs[-1])))
        if x < logs[0]:
            slope = (costs[1] - costs[0]) / (logs[1] - logs[0])
            return float(np.exp(costs[0] + slope * (x - logs[0])))
        return float(np.exp(np.interp(x, logs, costs)))

    @property
    def exponent(self) -> float:
        """Of the power of n through the three largest sizes."""
        return float(np.polyfit(np.log(self.n[-3:]), np.log(self.cost[-3:]), 1)[0])

    @property
    def whole_exponent(self) -> float:
        """Of the power of n through all sizes."""
        return float(np.polyfit(np.log(self.n), np.log(self.cost), 1)[0])

    def beyond(self, n: float) -> float:
        """n over the largest size measured; 1 within."""
        return max(1.0, n / self.n[-1])


@dataclass(frozen=True, slots=True)
class Messages:
    """Processor seconds that messages take, for a call on s shards with a batch of B queries.

    driver: around + s * (message + B * c * hit), the merge included
    shard:  message + B * query, beside the search itself, and where payloads are read
            reading + B * c * payload
    idle_s: what a call on one shard takes beyond all processor time
    """

    driver_around: float
    driver_message: float
    driver_hit: float
    shard_message: float
    shard_query: float
    shard_reading: float
    shard_payload: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes of messages: straight lines through what was measured, and Ray's own header.

    request: request_fixed + B * 4 d; answer: answer_fixed + B * (answer_query + c * hit)
    """

    request_fixed: float
    answer_fixed: float
    answer_query: float
    hit: float
    header: float

    def request(self, batch: int, d: int) -> float:
        """Bytes to one shard."""
        return self.header + self.request_fixed + batch * 4.0 * d

    def answer(self, batch: int, c: int, payload: float) -> float:
        """Bytes from one shard. payload: bytes a hit."""
        return (
            self.header + self.answer_fixed + batch * (self.answer_query + c * (self.hit + payload))
        )


@dataclass(frozen=True)
class Calibration:
    """All that was measured, and from which files of which commits.

    scale         the report of bench_scale.py
    sigma         of the lognormal law of one query's time
    dim_exponent  that of the dimension in the cost of a query, from one pair; not used, see
                  ASSUMPTIONS
    code_bytes    (d, bytes a dimension) of codes and their rows, by rising d
    row_bytes     on disk for each row beyond vector and payload
    """

    scale: Mapping[str, Any]
    sigma: float
    dim_exponent: float
    code_bytes: tuple[tuple[int, float], ...]
    messages: Messages
    wire: Wire
    row_bytes: float
    sources: Mapping[str, str]

    def query_us(self, recall: float) -> Power:
        """Microseconds a query of REFERENCE_D dimensions at a recall@10; see query_cost()."""
        return query_cost(self.scale, recall)

    def build_cpu_s(self, n: float, d: int) -> float:
        """Processor seconds to train and fill an index of n vectors."""
        return self._of_build("train_cpu_s", n) * d / REFERENCE_D + (
            self._of_build("add_cpu_s", n) * d / REFERENCE_D
        )

    def _of_build(self, name: str, n: float) -> float:
        rows = [row for row in self.scale["rows"] if row["nlist"]]
        return Power(tuple(r["n"] for r in rows), tuple(r[name] for r in rows)).at(n)

    def memory_bytes(self, n: float, d: int, precision: str) -> dict[str, float]:
        """Bytes in memory of a shard, by part."""
        if precision not in PRECISIONS:
            raise InvalidArgument(
                f"expected precision one of {', '.join(PRECISIONS)}, got {precision!r}"
            )
        largest = self.scale["rows"][-1]
        lists = largest["nlist"] * math.sqrt(n / largest["n"])
        a_list = largest["index_bytes"]["centroids"] / largest["nlist"] * d / REFERENCE_D
        sizes, per_dim = zip(*self.code_bytes, strict=True)
        codes = float(np.interp(math.log(d), np.log(sizes), per_dim))
        return {
            "codes": n * d * codes,
            "rerank_store": n * d * 1.0,
            "vectors": n * d * PRECISIONS[precision],
            "ids": n * 8.0,
            "centroids": lists * a_list,
        }

    def disk_bytes(self, n: float, d: int, precision: str, payload: float) -> dict[str, float]:
        """Bytes on disk of a shard: rows, and two generations, as one replaces the other."""
        index = sum(self.memory_bytes(n, d, precision).values())
        return {"rows": n * (4.0 * d + self.row_bytes + payload), "generations": 2 * index}


def asked_of_shards(n: float, k: int, shards: int, target_recall: float) -> tuple[ShardPlan, float]:
    """What each shard is asked for, and the recall that it has to reach; as searching.py does."""
    merge = 1 - MERGE_SHARE * (1 - target_recall)
    size = min(int(n), MOST_PLANNED)
    if shards > size:
        raise InvalidArgument(f"expected a vector a shard or more, got {size} for {shards} shards")
    plan = plan_shards(size, min(k, size), shards, recall_target=merge)
    return plan, min(1.0, target_recall / plan.expected_recall)


def query_cost(scale: Mapping[str, Any], recall: float) -> Power:
    """Microseconds a query over n, from a report of bench_scale.py. Errors: InvalidArgument."""
    rows = [row for row in scale["rows"] if row["nlist"]]
    reached = [(r["n"], cost) for r in rows if (cost := cost_at(r["points"], recall))]
    if len(reached) < 2:
        most = max(row["points"][-1]["recall"] for row in rows)
        raise InvalidArgument(
            f"expected a recall of one shard that was measured at two sizes or more, got "
            f"{recall:.4f}; the most was {most:.4f}, so ask for less"
        )
    return Power(tuple(n for n, _ in reached), tuple(cost for _, cost in reached))


# ---------------------------------------------------------------- reading the measurements


def read_calibration(folder: Path = RESULTS, *, header: float = 1500.0) -> Calibration:
    """From the committed results. header: bytes of Ray's own a message. Errors: InvalidArgument."""
    names = {
        "scale": "scale-96.json",
        "precision": "precision-wordnet-minilm-384.json",
        "peers": "peers-wordnet-minilm-384-angular.json",
        "calls": "cluster-calls.json",
    }
    reports = {key: _read(folder / name) for key, name in names.items()}
    scale, calls = reports["scale"], reports["calls"]
    largest = scale["rows"][-1]
    own = largest["index_bytes"]
    reference = (own["codes"] + own["code_rows"]) / largest["n"] / REFERENCE_D
    minilm = reports["precision"]["precisions"]["float32"]["bytes_per_vector"]
    d = reports["precision"]["dataset"]["d"]
    spread, us = _of_single_queries(reports["peers"])
    at_its_size = query_cost(scale, 0.95).at(reports["peers"]["dataset"]["n"])
    return Calibration(
        scale,
        sigma=math.log(spread) / 2.3263,
        dim_exponent=math.log(us / at_its_size) / math.log(d / REFERENCE_D),
        code_bytes=(
            (REFERENCE_D, reference),
            (d, (minilm["codes"] + minilm["code_rows"]) / d),
        ),
        messages=messages_of(calls["ways"]),
        wire=_wire(calls, header),
        row_bytes=calls["row_store"]["bytes_a_row_beyond"],
        sources={key: f"{name} of {reports[key]['commit']}" for key, name in names.items()},
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InvalidArgument(
            f"expected the measurements in {path}, there are none; run --measure, or make "
            "bench-scale, bench-precision and bench"
        )
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _of_single_queries(report: Mapping[str, Any]) -> tuple[float, float]:
    """(p99 / p50, mean microseconds) of soardb's default at target recall 0.95."""
    (peer,) = [peer for peer in report["peers"] if peer["label"] == "soardb-default"]
    point = next(p for p in peer["points"] if not p["arguments"])["single"]
    return point["p99_us"] / point["p50_us"], 1e6 / point["qps"]


def messages_of(ways: Sequence[Mapping[str, Any]]) -> Messages:
    """Straight lines through what calls on shards without much to search took."""
    floor = [way for way in ways if way["what"] == "floor"]
    s = np.array([way["shards"] for way in floor], float)
    b = np.array([way["batch"] for way in floor], float)
    c = np.array([way["c"] for way in floor], float)
    driver = np.array([way["cpu_ms_driver"] for way in floor]) / 1e3
    shard = np.array([way["cpu_ms_shards"] for way in floor]) / 1e3 / s
    around, message, hit = _fit(np.stack([np.ones_like(s), s, s * b * c], axis=1), driver)
    shard_message, shard_query = _fit(np.stack([np.ones_like(b), b], axis=1), shard)
    single = next(way for way in floor if way["shards"] == 1 and way["batch"] == 1)
    busy = (single["cpu_ms_driver"] + single["cpu_ms_shards"]) / 1e3
    idle = max(0.0, single["ms"]["0.5"] / 1e3 - busy)
    reading, payload = _payloads(ways)
    return Messages(around, message, hit, shard_message, shard_query, reading, payload, idle)


def _payloads(ways: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of a message and of a hit that one shard takes more where it reads payloads."""
    by_name = {(way["what"], way["batch"]): way for way in ways if way["shards"] == 1}
    hits, more = [], []
    for (what, batch), way in by_name.items():
        if what == "paid":
            without = by_name["real", batch]
            hits.append(float(batch * way["c"]))
            more.append(max(1e-9, (way["cpu_ms_shards"] - without["cpu_ms_shards"]) / 1e3))
    reading, payload = _fit(np.stack([np.ones(len(hits)), np.array(hits)], axis=1), np.array(more))
    return reading, payload


def _fit(columns: Any, values: Any) -> list[float]:
    """Least squares of relative errors, no coefficient below zero."""
    weights = 1 / values
    kept = list(range(columns.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(
            columns[:, kept] * weights[:, None], np.ones(len(values)), rcond=None
        )
        if (found >= 0).all() or len(kept) == 1:
            break
        del kept[int(found.argmin())]
    out = np.zeros(columns.shape[1])
    out[kept] = np.maximum(found, 0)
    return [float(value) for value in out]


def _wire(calls: Mapping[str, Any], header: float) -> Wire:
    rows = calls["messages"]
    d = calls["setup"]["d"]
    request = float(np.mean([row["request_bytes"] - row["batch"] * 4 * d for row in rows]))
    b = np.array([row["batch"] for row in rows], float)
    hits = b * np.array([row["limit"] for row in rows])
    answer = np.array([row["reply_bytes"] for row in rows], float)
    fixed, query, hit = _fit(np.stack([np.ones_like(b), b, hits], axis=1), answer)
    return Wire(request, fixed, query, hit, header)
