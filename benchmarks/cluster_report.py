"""Plans for people: sentences, tables and figures.

    cluster_plan.py -> [cluster_report.py] -> cluster_sim.py

Nothing here computes what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cluster_model import PRECISIONS, REFERENCE_D, Calibration
from benchmarks.cluster_plan import QUANTILES, Cluster, Prices, Row, Workload

__all__ = ["as_table", "plots", "sentences", "validation_table"]

_GIB = 2.0**30


def sentences(row: Row, work: Workload, cluster: Cluster, prices: Prices) -> str:
    """A plan in words."""
    latency = row["latency_ms"]
    memory, disk = row["bytes_a_vector"]["memory"], row["bytes_a_vector"]["disk"]
    lines = [
        f"{row['shards']:,} shards of {row['vectors_a_shard']:,.0f} vectors on {row['hosts']:,} "
        f"hosts of {cluster.cores} cores, {row['memory_gib_a_host']:,.1f} GiB in use on each; "
        f"{row['drivers']:,} drivers",
        f"latency: p50 {latency['p50']:,.2f} ms, p99 {latency['p99']:,.2f} ms, p99.9 "
        f"{latency['p99.9']:,.2f} ms at {work.qps:,.0f} queries/s; cores "
        f"{row['cores_in_use']:.0%} in use",
        f"each shard answers with {row['c']} of {work.k} at recall {row['shard_recall']:.4f}; the "
        f"merge keeps {row['merge_recall']:.4f}",
        f"{row['bytes_on_the_wire_a_query']:,.0f} bytes on the wire a query, "
        f"{row['gbit_s_of_all']:,.2f} Gbit/s in all",
        f"{memory:,.0f} bytes of memory and {disk:,.0f} of disk a vector ({cluster.precision}); "
        f"{row['memory_gib']:,.0f} GiB and {row['disk_gib']:,.0f} GiB in all",
        f"a query takes {row['cpu_ms_a_query']['shards']:,.2f} ms of the shards' cores and "
        f"{row['cpu_ms_a_query']['driver']:,.2f} ms of drivers'",
        f"building: {row['build']['cpu_hours']:,.0f} core hours, "
        f"{row['build']['hours']:,.2f} h on all hosts at once",
        f"price: {row['price_an_hour']:,.2f} an hour, {row['price_a_million_queries']:,.2f} a "
        f"million queries, if a vCPU hour is {prices.vcpu_hour:g}, a GiB hour "
        f"{prices.gib_hour:g} and a GiB of disk {prices.disk_gib_month:g} a month (assumed)",
    ]
    if row["beyond_measured"] > 1:
        lines.append(
            f"note: a shard is {row['beyond_measured']:,.1f} times larger than any measured"
        )
    return "\n".join(lines)


def as_table(rows: Sequence[Row]) -> str:
    """Plans as Markdown."""
    lines = [
        "| vectors | batch | shards | vectors a shard | beyond measured | drivers | cores in use "
        "| p50 ms | p99 ms | p99.9 ms | bytes a query | GiB a host | CPU ms a query "
        "| build core h | build h | price an hour |",
        "| ---: " * 16 + "|",
    ]
    for row in rows:
        latency = [
            "overloaded" if row["latency_ms"][name] is None else f"{row['latency_ms'][name]:,.1f}"
            for name in QUANTILES
        ]
        gib = f"{row['memory_gib_a_host']:,.0f}" + ("" if row["fits_in_memory"] else " (too many)")
        lines.append(
            f"| {row['vectors']:.0e} | {row['batch']} | {row['shards']:,} "
            f"| {row['vectors_a_shard']:.0e} | {row['beyond_measured']:,.0f} | {row['drivers']} "
            f"| {row['cores_in_use']:,.2f} | {' | '.join(latency)} "
            f"| {row['bytes_on_the_wire_a_query']:,.0f} | {gib} "
            f"| {sum(row['cpu_ms_a_query'].values()):,.1f} | {row['build']['cpu_hours']:,.0f} "
            f"| {row['build']['hours']:,.1f} | {row['price_an_hour']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def validation_table(rows: Sequence[Row]) -> str:
    """Foretold beside measured, as Markdown."""
    lines = [
        "| what | shards | batch | foretold p50 ms | measured p50 | error | measured p10 | error "
        "| foretold CPU ms | measured | error |",
        "| --- " + "| ---: " * 10 + "|",
    ]
    lines += [
        f"| {row['what']} | {row['shards']} | {row['batch']} | {row['foretold_p50_ms']:.2f} "
        f"| {row['measured_p50_ms']:.2f} | {row['error']:+.0%} | {row['measured_p10_ms']:.2f} "
        f"| {row['error_to_p10']:+.0%} | {row['foretold_cpu_ms']:.2f} "
        f"| {row['measured_cpu_ms']:.2f} | {row['cpu_error']:+.0%} |"
        for row in rows
    ]
    told = []
    for name, key in (("p50", "error"), ("p10", "error_to_p10"), ("processor time", "cpu_error")):
        errors = np.abs([row[key] for row in rows])
        told.append(f"{name} {np.median(errors):.0%} in the median and {errors.max():.0%} at most")
    lines += ["", f"Errors without their sign: {'; '.join(told)}."]
    return "\n".join(lines) + "\n"


def plots(report: Row, known: Calibration, stem: Path) -> None:
    """Tail against shards, cost against n, memory against shards: one figure each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, batch in zip(figure.subplots(1, 2), (1, 64), strict=True):
        rows = [row for row in report["fan_out"] if row["batch"] == batch]
        for colour, name in enumerate(QUANTILES):
            shards = [row["shards"] for row in rows]
            axes.loglog(
                shards, [r["latency_ms"][name] for r in rows], "o-", ms=3, color=f"C{colour}",
                label=name,
            )  # fmt: skip
            calm = [row["without_stragglers_ms"][name] for row in rows]
            axes.loglog(shards, calm, "--", lw=1, color=f"C{colour}")
        axes.set_title(f"10 million vectors a shard, half load, batch {batch}", fontsize=9)
        axes.set_xlabel("shards (dashed: without stragglers)")
        axes.set_ylabel("ms")
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend()
    figure.savefig(f"{stem}-latency.png", dpi=130)

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    curve = known.query_us(report["workload"]["target_recall"])
    left.loglog(curve.n, curve.cost, "o", label="measured")
    sizes = np.geomspace(curve.n[0], 1e9, 60)
    left.loglog(sizes, [curve.at(n) for n in sizes], "-", lw=1,
                label=f"beyond: n^{curve.exponent:.2f}")  # fmt: skip
    left.set_ylabel(f"µs a query, {REFERENCE_D} dimensions, one core")
    left.set_xlabel("vectors of a shard")
    left.legend()
    for vectors in sorted({row["vectors"] for row in report["plans"]}):
        rows = [r for r in report["plans"] if r["vectors"] == vectors and r["batch"] == 1]
        right.loglog([r["shards"] for r in rows],
                     [sum(r["cpu_ms_a_query"].values()) for r in rows], "o-", ms=3,
                     label=f"{vectors:.0e} vectors")  # fmt: skip
    right.set_ylabel("ms of all cores a query, batch 1")
    right.set_xlabel("shards")
    right.legend()
    for axes in (left, right):
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(f"{stem}-cost.png", dpi=130)

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    dim, counts = report["workload"]["dim"], np.geomspace(1, 1000, 31)
    for colour, precision in enumerate(PRECISIONS):
        for style, vectors in zip(("-", "--", ":"), (1e9, 1e10, 1e11), strict=True):
            gib = [
                sum(known.memory_bytes(vectors / s, dim, precision).values()) / _GIB for s in counts
            ]
            axes.loglog(counts, gib, style, color=f"C{colour}", lw=1.2,
                        label=f"{precision}, {vectors:.0e}")  # fmt: skip
    axes.axhline(report["cluster"]["host_gib"] * report["cluster"]["memory_share"], color="k", lw=1)
    axes.set_xlabel("shards (line: a host's share)")
    axes.set_ylabel(f"GiB of memory a shard, {dim} dimensions")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, ncol=2)
    figure.savefig(f"{stem}-memory.png", dpi=130)
