"""How many shards: latency, bytes, memory, building and cost, from what was measured of one.

    cluster_model.py (measured costs), cluster_plan.py -> [cluster_sim.py] -> cluster_report.py
        -> results/cluster-sim.json, cluster-sim-*.png, the answer to one question on the terminal

    python -m benchmarks.cluster_sim --vectors 1e9 --dim 768 --qps 1000 --p99-ms 50 \\
        --target-recall 0.95                  the smallest number of shards that does it
    python -m benchmarks.cluster_sim          1 to 1,000 shards, 1e9 to 1e11 vectors: JSON, plots
    python -m benchmarks.cluster_sim --measure   messages of a real Ray of this machine, before that
    python -m benchmarks.cluster_sim --validate  foretold beside measured, of what --measure left

Assumptions are listed in cluster_model.py and in every report. Same seed, same answer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import provenance
from benchmarks.cluster_model import (
    ASSUMPTIONS,
    PRECISIONS,
    REFERENCE_D,
    RESULTS,
    Calibration,
    read_calibration,
)
from benchmarks.cluster_plan import (
    MOST_SHARDS,
    Cluster,
    Prices,
    Row,
    Workload,
    costs_of,
    failing,
    plan,
    smallest,
    validate,
)
from benchmarks.cluster_report import as_table, plots, sentences, validation_table
from soardb.errors import InvalidArgument, SoarError, Unavailable

# ---------------------------------------------------------------- reports


def sweep(
    works: Iterable[Workload],
    shards: Sequence[int],
    cluster: Cluster,
    known: Calibration,
    prices: Prices,
    *,
    calls: int,
    seed: int,
) -> list[Row]:
    """A plan for each workload and number of shards."""
    rows = []
    for work in works:
        for count in shards:
            row = plan(work, replace(cluster, shards=count), known, prices, calls=calls, seed=seed)
            rows.append({"vectors": work.vectors, "batch": work.batch, "qps": work.qps} | row)
    return rows


def fan_out(
    known: Calibration, cluster: Cluster, prices: Prices, *, calls: int, seed: int
) -> list[Row]:
    """The tail against the number of shards of ten million vectors each, at half load."""
    rows = []
    for shards in (1, 2, 4, 10, 20, 50, 100, 200, 500, 1000):
        for batch in (1, 64):
            work = Workload(vectors=1e7 * shards, batch=batch)
            chosen = replace(cluster, shards=shards)
            _, found = costs_of(work, chosen, known)
            busy = found["service_ms_a_message"] / 1e3 / chosen.cores / batch
            at_half = replace(work, qps=0.5 / busy)
            row = plan(at_half, chosen, known, prices, calls=calls, seed=seed)
            calm = plan(
                at_half, replace(chosen, straggler=0.0), known, prices, calls=calls, seed=seed
            )
            rows.append(
                {
                    "shards": shards,
                    "batch": batch,
                    "qps": at_half.qps,
                    "latency_ms": row["latency_ms"],
                    "without_stragglers_ms": calm["latency_ms"],
                    "drivers": row["drivers"],
                }
            )
    return rows


def full_report(
    known: Calibration,
    calls_report: Row,
    cluster: Cluster,
    prices: Prices,
    *,
    calls: int,
    seed: int,
) -> Row:
    """1 to 1,000 shards and 1e9 to 1e11 vectors, the tail by fan-out, and the validation."""
    work = Workload()
    works = [
        replace(work, vectors=vectors, batch=batch)
        for vectors in (1e9, 1e10, 1e11)
        for batch in (1, 64)
    ]
    curve = known.query_us(work.target_recall)
    return {
        "benchmark": "cluster-sim",
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "calls": calls,
        "assumptions": ASSUMPTIONS,
        "calibration": {
            "sources": dict(known.sources),
            "query_us": {"n": curve.n, "us": curve.cost, "d": REFERENCE_D},
            "exponent_of_all_sizes": curve.whole_exponent,
            "exponent_of_the_largest": curve.exponent,
            "sigma": known.sigma,
            "dim_exponent": known.dim_exponent,
            "code_bytes_a_dimension": known.code_bytes,
            "messages_s": asdict(known.messages),
            "wire_bytes": asdict(known.wire),
            "row_bytes_beyond": known.row_bytes,
        },
        "workload": asdict(work),
        "cluster": asdict(cluster),
        "prices": asdict(prices),
        "plans": sweep(works, (1, 10, 100, 1000), cluster, known, prices, calls=calls, seed=seed),
        "fan_out": fan_out(known, cluster, prices, calls=calls, seed=seed),
        "validation": validate(known, calls_report, seed=seed),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one question, or write the report; returns the exit code, 1 where nothing does."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for of in (Workload(), Cluster(), Prices()):
        for name, value in asdict(of).items():
            flag, default = f"--{name.replace('_', '-')}", value
            if name == "shards":
                parser.add_argument(flag, type=int, help="this many, and not the fewest that do")
            elif name == "vectors":
                parser.add_argument(flag, type=float, help="how many; the full report without it")
            elif name == "precision":
                parser.add_argument(flag, choices=list(PRECISIONS), default=default, help="kept")
            else:
                parser.add_argument(flag, type=type(value), default=default, help="see above")
    parser.add_argument("--p99-ms", type=float, default=50.0, help="the slowest p99 allowed")
    parser.add_argument("--calls", type=int, default=20_000, help="simulated")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--measure", action="store_true", help="measure messages on Ray first")
    parser.add_argument("--validate", action="store_true", help="foretold beside measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are and go")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except SoarError as error:
        parser.error(str(error))


def _run(given: argparse.Namespace) -> int:
    fields = vars(given)
    prices = Prices(**{name: fields[name] for name in asdict(Prices())})
    _positive(fields, (*asdict(Prices()), "qps", "batch", "dim", "k", "cores", "calls", "p99_ms"))
    _positive(fields, ("gbit_s", "host_gib", "memory_share", "driver_share", "shards_per_host"))
    shared = {name: fields[name] for name in asdict(Cluster()) if name != "shards"}
    cluster = Cluster(shards=given.shards or 1, **shared)
    if given.measure:
        try:
            from benchmarks.cluster_measure import Measure, measure
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"{error.name} is not installed; pip install 'soardb[ray]'"
            ) from error
        measure(Measure(), given.out / "cluster-calls.json")
    known = read_calibration(given.out)
    calls_report = json.loads((given.out / "cluster-calls.json").read_text("utf-8"))
    if given.validate or given.measure:
        print(validation_table(validate(known, calls_report, seed=given.seed)))
        return 0
    if given.vectors is None:
        report = full_report(
            known, calls_report, cluster, prices, calls=given.calls, seed=given.seed
        )
        stem = given.out / "cluster-sim"
        stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        tables = as_table(report["plans"]) + "\n" + validation_table(report["validation"])
        stem.with_suffix(".md").write_text(tables, "utf-8")
        plots(report, known, stem)
        print(tables)
        return 0
    work = Workload(**{name: fields[name] for name in asdict(Workload())})
    if given.shards:
        row = plan(work, cluster, known, prices, calls=given.calls, seed=given.seed)
        if row["latency_ms"]["p50"] is None:
            print(f"overloaded: cores {row['cores_in_use']:.0%} in use; take more shards or cores")
            return 1
        print(sentences(row, work, cluster, prices))
        return 0
    calls = max(200, given.calls // 5)  # for each number that is tried
    found, tried = smallest(
        work, cluster, known, prices, given.p99_ms, calls=calls, seed=given.seed
    )
    if found is None:
        least = nearest(tried)
        print(
            f"no number of shards up to {MOST_SHARDS:,} does it; with {least['shards']:,}: "
            f"{', '.join(failing(least, given.p99_ms))}. Send batches, or allow more time, cores "
            "or memory"
        )
        return 1
    fewer = [row for row in tried if row["shards"] < found["shards"]]
    print(sentences(found, work, cluster, prices))
    if fewer:
        why = ", ".join(failing(fewer[-1], given.p99_ms))
        print(f"with {fewer[-1]['shards']:,} shards: {why}")
    return 0


def nearest(tried: Sequence[Row]) -> Row:
    """Of plans that do not do the one with the least p99, or the last that was overloaded."""
    known = [row for row in tried if row["latency_ms"]["p99"] is not None]
    return min(known, key=lambda row: float(row["latency_ms"]["p99"]), default=tried[-1])


def _positive(fields: Row, names: Iterable[str]) -> None:
    for name in names:
        if not fields[name] > 0:
            raise InvalidArgument(
                f"expected --{name.replace('_', '-')} above 0, got {fields[name]:g}"
            )


if __name__ == "__main__":
    sys.exit(main())
