"""From a report of bench_service.py to what people read: tables and a figure.

    results/service-*.json -> [service_report.py] -> results/service-*.md, *.png

Nothing here measures anything, so both can be made anew from an old report, an unfinished one
included:

    python -m benchmarks.service_report benchmarks/results/service-glove6b-100-angular.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.redraw import redraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]
Row = Mapping[str, Any]

_COLOURS = {
    "soardb": "#c8102e",
    "milvus": "#1f5fa8",
    "redis": "#2e8b57",
    "pgvector": "#8e5ba6",
    "chroma": "#c98a1e",
    "echo": "#9aa3ab",
    "exact": "#5a6570",
}
_MIB = 2**20


# --- the tables ---------------------------------------------------------------------------------


def table(report: Report) -> str:
    """The report as Markdown: searching, loading, then what each row is."""
    parts = [caption(report), "", *_searching(report), "", *_loading(report), ""]
    parts += [line for peer in report["peers"] if (line := _share(peer, report))]
    parts += [_words(peer) for peer in report["peers"]]
    parts += [f"* **{label}** was skipped: {why}" for label, why in report["skipped"].items()]
    parts += [
        f"* **{label}** failed: {' '.join(why.split())}" for label, why in report["failed"].items()
    ]
    return "\n".join(parts)


def _searching(report: Report) -> list[str]:
    given = report["parameters"]
    clients, batches = list(map(str, given["clients"])), list(map(str, given["batches"]))
    header = ["server", f"recall@{given['k']}"]
    header += [f"RPC/s, {c} client{'s' if c != '1' else ''}" for c in clients]
    header += [f"p50 / p99 ms, {c}" for c in clients]
    header += [f"queries/s, {b} a call" for b in batches]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for peer in report["peers"]:
        points = [peer["singles"][c] for c in clients]
        line = [peer["label"], "" if peer["recall"] is None else f"{peer['recall']:.3f}"]
        line += [f"{point['calls_per_s']:,.0f}" for point in points]
        line += [f"{point['p50_ms']:.2f} / {point['p99_ms']:.2f}" for point in points]
        for batch in batches:
            point = peer["batches"].get(batch)
            line.append("absent" if point is None else f"{point['queries_per_s']:,.0f}")
        lines.append(line)
    return _markdown(lines)


def _loading(report: Report) -> list[str]:
    header = ["server", "vectors/s written", "searchable after s", "memory MiB", "disk MiB"]
    most = str(report["parameters"]["clients"][-1])
    header += [f"server / client CPU ms a query, {most} clients"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for peer in report["peers"]:
        point = peer["singles"][most]
        busy = f"{point['server_cpu_ms']:.3f} / {point['client_cpu_ms']:.3f}"
        if peer["is_ceiling"]:
            lines.append([peer["label"], "", "", "", "", busy])
            continue
        lines.append(
            [
                peer["label"],
                f"{peer['vectors_per_s']:,.0f}",
                f"{peer['ready_s']:.1f}",
                f"{peer['server_bytes'] / _MIB:,.0f}",
                f"{peer['disk_bytes'] / _MIB:,.0f}",
                busy,
            ]
        )
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in lines]


def _share(peer: Row, report: Report) -> str:
    """How near soardb comes to what its stack can carry."""
    ceiling = next((one for one in report["peers"] if one["is_ceiling"]), None)
    if ceiling is None or not peer["name"].startswith("soardb"):
        return ""
    shares = [
        f"{peer['singles'][c]['calls_per_s'] / ceiling['singles'][c]['calls_per_s']:.2f} at {c}"
        for c in peer["singles"]
    ]
    return f"{peer['label']} reaches these shares of the raw echo, by clients: {', '.join(shares)}."


def _words(peer: Row) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in peer["versions"].items())
    searches = sorted({json.dumps(search) for search in peer["searches"]})
    parts = [
        f"{peer['variant']}, searched with {' or '.join(searches)}",
        f"written: {peer['durability']}",
        f"many a call: {peer['batch'] or 'absent'}",
    ]
    return f"* **{peer['label']}** ({versions}): {'; '.join(parts)} [{peer['source']}]."


def caption(report: Report) -> str:
    """One line on the run: data, machine, how long."""
    data, machine, given = report["dataset"], report["machine"], report["parameters"]
    unfinished = "" if report["is_complete"] else " Unfinished."
    rounds = max((len(peer["rounds"]) for peer in report["peers"]), default=0)
    return (
        f"{data['name']}, {data['n']:,} x {data['d']}, cosine; {given['queries']:,} queries drawn "
        f"at random, k = {given['k']}; the cheapest setting of each server that reaches recall "
        f"{given['recall']}; {given['seconds']:g} s a point, {rounds} rounds, medians. Server and "
        f"client on {machine['cpu']}{_others(report)}.{unfinished}"
    )


def _others(report: Report) -> str:
    """What other work took of the machine meanwhile: under much of it no figure is worth much."""
    taken = sorted(
        point["other_cores"]
        for peer in report["peers"]
        for one in peer["rounds"]
        for point in (*one["singles"].values(), *one["batches"].values())
    )
    if not taken:
        return ""
    return f", of which other work took {taken[len(taken) // 2]:.2f} (at most {taken[-1]:.2f})"


# --- the figure ---------------------------------------------------------------------------------


def plot(report: Report, path: Path) -> None:
    """Draw calls a second and the median latency over the number of clients, and save them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for peer in report["peers"]:
        _line(left, peer, "calls_per_s")
        _line(right, peer, "p50_ms")
    left.set(title="single queries a second", ylabel="RPC/s, more is better")
    right.set(title="median latency", ylabel="p50 in ms, less is better")
    clients = report["parameters"]["clients"]
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="closed-loop clients")
        axes.set_xticks(clients, list(map(str, clients)))
        axes.minorticks_off()
        axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(caption(report), fontsize=8, color="0.35", wrap=True)
    figure.savefig(path, dpi=160)


def _line(axes: Axes, peer: Row, field: str) -> None:
    name = peer["name"].partition("-")[0]
    points = sorted((int(clients), point[field]) for clients, point in peer["singles"].items())
    axes.plot(
        [clients for clients, _ in points],
        [value for _, value in points],
        marker="o",
        markersize=4,
        linestyle="--" if peer["is_ceiling"] else "-",
        color=_COLOURS.get(name, "#333333"),
        label=peer["label"],
    )


def write(report: Report, stem: Path) -> list[Path]:
    """Write <stem>.md and <stem>.png; return them."""
    text, figure = stem.with_suffix(".md"), stem.with_suffix(".png")
    text.write_text(table(report) + "\n")
    plot(report, figure)
    return [text, figure]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tables and the figure of an existing report anew."""
    redraw("service_report", "bench_service", write, arguments)


if __name__ == "__main__":
    main()
