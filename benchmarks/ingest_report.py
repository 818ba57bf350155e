"""From a report of bench_ingest.py to what people read: a table and a figure.

    results/ingest-*.json -> [ingest_report.py] -> results/ingest-*.md, *.png

Nothing here measures anything, so both can be made anew from an old report:

    python -m benchmarks.ingest_report benchmarks/results/ingest-glove6b-100-angular.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.redraw import redraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]

_COLOURS = {
    "soardb": "#c8102e",
    "qdrant-edge": "#1f5fa8",
    "zvec": "#2e8b57",
    "lancedb": "#8e5ba6",
    "chroma": "#c98a1e",
    "milvus-lite": "#5a6570",
}
_MIB = 2**20


# --- the table ----------------------------------------------------------------------------------


def table(report: Report) -> str:
    """The report as Markdown: the figures, then what durability and index mean in each row."""
    header = [
        "database",
        "flushed before it answers",
        "rows/s (least to most)",
        "single p50 / p99 ms",
        "count",
        "at once: recall, p50 ms",
        "indexed",
        "build s",
        "built: recall, p50 ms",
        "disk MiB",
        "peak RSS MiB",
    ]
    lines = [header, ["---", "---", *["---:"] * 2, "---", *["---:"] * 6]]
    lines += [_row(peer) for peer in report["peers"]]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    words = [
        f"* **{peer['label']}** ({peer['version']}): {_promise(peer)} [{peer['source']}]. "
        f"Measured: {measured(peer['syncs'])}. Index: {peer['index']}."
        for peer in report["peers"]
    ]
    missing = [f"* **{label}** was skipped: {why}" for label, why in report["skipped"].items()]
    missing += [
        f"* **{label}** failed: {' '.join(why.split())}" for label, why in report["failed"].items()
    ]
    return "\n".join([caption(report), "", *rows, "", *words, *missing])


def _row(peer: Mapping[str, Any]) -> list[str]:
    least, most = min(peer["rows_per_s_rounds"]), max(peer["rows_per_s_rounds"])
    return [
        peer["label"],
        verdict(peer),
        f"{peer['rows_per_s']:,.0f} ({least:,.0f} to {most:,.0f})",
        f"{peer['single_p50_ms']:.2f} / {peer['single_p99_ms']:.2f}",
        "right" if peer["is_count_right"] else "WRONG",
        f"{peer['at_once']['recall']:.3f}, {peer['at_once']['p50_ms']:.2f}",
        _indexed(peer["at_once"]),
        f"{peer['build_s']:.1f}",
        f"{peer['built']['recall']:.3f}, {peer['built']['p50_ms']:.2f}",
        f"{peer['disk_bytes'] / _MIB:,.0f}",
        f"{peer['peak_rss_bytes'] / _MIB:,.0f}",
    ]


def _promise(peer: Mapping[str, Any]) -> str:
    """The durability that was asked for, in words, with what it leaves out."""
    strongest = "the strongest it offers" if peer["is_strongest"] else "not the strongest it offers"
    return "; ".join(part for part in (peer["durability"], peer["gap"], strongest) if part)


def verdict(peer: Mapping[str, Any]) -> str:
    """Yes with the flushes of a single write, no, in part, or a share of the writes."""
    syncs = peer["syncs"]
    if not syncs["measured"]:
        return "not measured"
    kinds = [syncs["batch"], syncs["single"]]
    if all(kind["writes_with_a_sync"] == kind["writes"] for kind in kinds):
        answer = "in part" if peer["gap"] else "yes"
        return f"{answer}, {syncs['single']['syncs_per_write']:g} a write"
    if not any(kind["writes_with_a_sync"] for kind in kinds):
        return "no"
    return "some: " + ", ".join(
        f"{kind['writes_with_a_sync']} of {kind['writes']} {name}"
        for name, kind in (("batches", syncs["batch"]), ("singles", syncs["single"]))
    )


def measured(syncs: Mapping[str, Any]) -> str:
    """What the trace of system calls showed, in words."""
    if not syncs["measured"]:
        return f"nothing, {' '.join(syncs['why'].split())}"
    parts = [
        f"{kind['writes_with_a_sync']} of {kind['writes']} {name} waited for a flush, "
        f"{kind['syncs_per_write']:g} each"
        for name, kind in (("batches", syncs["batch"]), ("single upserts", syncs["single"]))
    ]
    if files := syncs["single"]["files"]:
        parts.append("of " + ", ".join(f"`{name}`" for name in list(files)[:6]))
    if left := syncs["single"]["made_and_not_flushed"]:
        parts.append("made and not flushed " + ", ".join(f"`{name}`" for name in list(left)[:6]))
    if opened := syncs["opened_for_synchronous_writing"]:
        parts.append("opened for synchronous writing: " + ", ".join(f"`{name}`" for name in opened))
    return "; ".join(parts)


def _indexed(state: Mapping[str, Any]) -> str:
    """The share of points in the index, over the rounds."""
    if any(indexed is None for indexed in state["indexed"]):
        return "not told"
    pairs = zip(state["indexed"], state["counts"], strict=True)
    shares = sorted(indexed / max(1, count) for indexed, count in pairs)
    return f"{shares[len(shares) // 2]:.0%}"


def caption(report: Report) -> str:
    """One line on the run: data, machine, disk."""
    data, machine, given = report["dataset"], report["machine"], report["parameters"]
    disk, cores = report["disk"], report["threads"]["cores"]
    warning = ", a file system without a disk" if disk["filesystem"] in ("tmpfs", "ramfs") else ""
    return (
        f"{data['name']}, {data['n']:,} x {data['d']} in batches of {given['batch']:,}, then "
        f"{given['singles']:,} single upserts; recall@{given['k']} over {given['queries']:,} "
        f"queries; {given['rounds']} rounds, medians. {machine['cpu']}, {len(cores)} used; "
        f"{disk['filesystem']}{warning}, whose own fsync takes {disk['fsync_p50_ms']:.2f} ms "
        f"(p99 {disk['fsync_p99_ms']:.2f})."
    )


# --- the figure ---------------------------------------------------------------------------------


def plot(report: Report, path: Path) -> None:
    """Draw rows a second and the 99th percentile of a single upsert as bars, and save them.

    Full bars are writes that were flushed before they were acknowledged, hollow ones were not.
    """
    from matplotlib.figure import Figure

    peers = list(report["peers"])
    figure = Figure(figsize=(12, 1.6 + 0.42 * len(peers)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, peers, "rows_per_s", "{:,.0f}")
    _bars(right, peers, "single_p99_ms", "{:,.2f}")
    left.set(title="rows a second in batches", xlabel="more is better")
    right.set(title="single upsert, p99 in ms", xlabel="less is better")
    left.set_yticks(range(len(peers)), [peer["label"] for peer in peers])
    left.invert_yaxis()
    figure.suptitle(
        f"{caption(report)}\nFull: flushed to disk before the call returns. Hollow: not.",
        fontsize=8,
        color="0.35",
        wrap=True,
    )
    figure.savefig(path, dpi=160)


def _bars(axes: Axes, peers: Sequence[Mapping[str, Any]], value: str, form: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for place, peer in enumerate(peers):
        colour = _COLOURS[peer["library"]]
        is_flushed = verdict(peer).startswith("yes")
        axes.barh(
            place,
            peer[value],
            height=0.62,
            facecolor=colour if is_flushed else "white",
            edgecolor=colour,
            linewidth=1.4,
        )
        axes.annotate(
            form.format(peer[value]),
            (peer[value], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )
    values = [peer[value] for peer in peers]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, max(values) * 4)
    axes.grid(visible=True, which="major", axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def write(report: Report, stem: Path) -> list[Path]:
    """Write <stem>.md and <stem>.png; return them."""
    text, figure = stem.with_suffix(".md"), stem.with_suffix(".png")
    text.write_text(table(report) + "\n")
    plot(report, figure)
    return [text, figure]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the table and the figure of an existing report anew."""
    redraw("ingest_report", "bench_ingest", write, arguments)


if __name__ == "__main__":
    main()
