"""From measured points to what people read: Pareto fronts, QPS at a recall, a table, figures.

    results/*.json -> [plots.py] -> results/*.png, *.md

A point is a mapping with at least "recall" and "qps"; a report is what bench_peers.py writes.
Nothing here measures anything, so tables and figures can be made anew from an old report:

    python -m benchmarks.plots benchmarks/results/peers-glove6b-100-angular.json
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.redraw import redraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = Mapping[str, Any]
Report = Mapping[str, Any]

TARGETS = (0.90, 0.95, 0.99)
DEFAULT = "soardb-default"  # the label of soardb as it comes
_COLOURS = {
    "soardb": "#c8102e",
    "scann": "#1f5fa8",
    "faiss": "#2e8b57",
    "svs": "#00838f",
    "rabitq": "#5d4037",
    "hnswlib": "#8e5ba6",
    "usearch": "#c98a1e",
    "exact": "#5a6570",
}
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)), (0, (9, 3)))
_RECALL_TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_LOWEST_RECALL, _HIGHEST_RECALL = 0.80, 0.9995


# --- curves -------------------------------------------------------------------------------------


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both recall and QPS, by ascending recall.

    Of equal points the first stays. QPS falls strictly along the result.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p["qps"], -p["recall"])):
        if not front or point["recall"] > front[-1]["recall"]:
            front.append(point)
    return front


def qps_at(front: Sequence[Point], recall: float) -> float | None:
    """QPS where a Pareto front crosses a recall: linear in recall, logarithmic in QPS.

    Below the front's range the fastest point's own QPS, which reaches more than was asked;
    above it None, for nothing that was measured gets there.
    """
    if not front or recall > front[-1]["recall"]:
        return None
    if recall <= front[0]["recall"]:
        return float(front[0]["qps"])
    i = next(i for i, point in enumerate(front) if point["recall"] >= recall)
    low, high = front[i - 1], front[i]
    weight = (recall - low["recall"]) / (high["recall"] - low["recall"])
    return math.exp((1 - weight) * math.log(low["qps"]) + weight * math.log(high["qps"]))


def front_of(peer: Mapping[str, Any], mode: str) -> list[Point]:
    """The Pareto front of one peer of a report; mode "single", "batch" or "parallel"."""
    return pareto([{**point[mode], "arguments": point["arguments"]} for point in peer["points"]])


# --- the table ----------------------------------------------------------------------------------


def table(report: Report) -> str:
    """The report as Markdown: a line on the run, every index, and the best of each library.

    Indexes stand by QPS at recall 0.95, the fastest first.
    """
    modes = _modes(report)
    header = [
        "index",
        *(f"{modes[mode]} @{target:.2f}" for mode in modes for target in TARGETS),
        "p50 / p99 us at >= 0.95",
        "build s",
        "CPU s",
        "index B/vector",
        "RSS B/vector",
    ]
    ranked = sorted(report["peers"], key=lambda peer: -_qps_at_095(front_of(peer, "single")))
    lines = [header, ["---", *["---:"] * 3 * len(modes), "---", *["---:"] * 4]]
    lines += [_row(peer, report["dataset"]["n"], modes) for peer in ranked]
    return "\n".join(
        [caption(report), "", *_markdown(lines), "", *_markdown(_best_rows(report, modes))]
    )


def _modes(report: Report) -> dict[str, str]:
    """The ways of asking that a report has, and their names in a header."""
    names = {"single": "QPS", "batch": "batch", "parallel": _parallel_name(report)}
    return {mode: name for mode, name in names.items() if mode in report["peers"][0]["points"][0]}


def _parallel_name(report: Report) -> str:
    return f"batch, {report['threads'].get('batch', 1)} threads,"


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in lines]


def _qps_at_095(front: Sequence[Point]) -> float:
    return qps_at(front, 0.95) or 0.0


def _row(peer: Mapping[str, Any], n: int, modes: Mapping[str, str]) -> list[str]:
    single = front_of(peer, "single")
    good = next((point for point in single if point["recall"] >= 0.95), None)
    latency = "-"
    if good is not None:
        chosen = _named(good["arguments"])
        latency = f"{good['p50_us']:,.0f} / {good['p99_us']:,.0f}" + (
            f" ({chosen})" if chosen else ""
        )
    cpu_seconds = peer.get("build_cpu_seconds")
    return [
        peer["label"],
        *(_count(qps_at(front_of(peer, mode), target)) for mode in modes for target in TARGETS),
        latency,
        f"{peer['build_seconds']:.1f}",
        "-" if cpu_seconds is None else f"{cpu_seconds:.1f}",
        f"{peer['index_bytes'] / n:,.0f}",
        f"{peer['rss_bytes'] / n:,.0f}",
    ]


def _best_rows(report: Report, modes: Mapping[str, str]) -> list[list[str]]:
    """Of each library the best of all its indexes, soardb's defaults apart, and who it was."""
    header = [
        "best of its sweep",
        *(f"{modes[mode]} @{target:.2f}" for mode in modes for target in TARGETS),
        *(f"by @{target:.2f}" for target in TARGETS),
    ]
    rows = [header, ["---", *["---:"] * 3 * len(modes), *["---"] * 3]]
    groups: dict[str, list[Any]] = {}
    for peer in report["peers"]:
        groups.setdefault(peer["library"], []).append(peer)
        if peer["label"] == DEFAULT:
            groups[DEFAULT] = [peer]
    for name, group in groups.items():
        fronts = {mode: best_front(group, mode) for mode in modes}
        who = [_slowest_above(fronts["single"], target) for target in TARGETS]
        rows.append(
            [
                name,
                *(_count(qps_at(fronts[mode], target)) for mode in modes for target in TARGETS),
                *("-" if point is None else f"{point['label']}" for point in who),
            ]
        )
    rows[2:] = sorted(rows[2:], key=lambda row: -float(row[2].replace(",", "").replace("-", "0")))
    return rows + _as_it_comes(groups.get(DEFAULT, []), modes)


def best_front(group: Sequence[Mapping[str, Any]], mode: str) -> list[Point]:
    """The Pareto front of several indexes taken together; points carry the label of theirs."""
    return pareto([{**p, "label": peer["label"]} for peer in group for p in front_of(peer, mode)])


def _slowest_above(front: Sequence[Point], recall: float) -> Point | None:
    return next((point for point in front if point["recall"] >= recall), None)


def _as_it_comes(group: Sequence[Mapping[str, Any]], modes: Mapping[str, str]) -> list[list[str]]:
    """A row of the point that names no query parameter: recall beside its speed."""
    points = [p for peer in group for p in peer["points"] if not p["arguments"]]
    return [
        [
            "soardb, nothing named",
            *(
                cell
                for mode in modes
                for cell in (
                    f"{_count(point[mode]['qps'])} at {point[mode]['recall']:.3f}",
                    "",
                    "",
                )
            ),
            *["", "", ""],
        ]
        for point in points
    ]


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def caption(report: Report) -> str:
    """Data, machine, threads and passes of a report, in one line."""
    data, machine, threads = report["dataset"], report["machine"], report["threads"]
    return (
        f"{data['name']}: {data['n']:,} x {data['d']}, {data['metric']}, recall@{data['k']} over "
        f"{data['queries']:,} queries. {machine['cpu']}, {threads['query']} thread per query, "
        f"{threads['build']} per build, median of {report['repeat']} passes"
        + (", by CPU time." if report.get("clock") == "cpu" else ".")
    )


# --- figures ------------------------------------------------------------------------------------


def plot_recall_qps(report: Report, path: Path) -> None:
    """Draw QPS over recall, single queries and batched, one line per index, and save it."""
    _draw(
        report, path, "QPS, one core", {"single": "one call per query", "batch": "one call for all"}
    )


def plot_recall_latency(report: Report, path: Path) -> None:
    """Draw the 99th percentile of a single query's latency over recall, and save it."""
    _draw(report, path, "p99, microseconds", {"single": "one call per query"}, value="p99_us")


def plot_memory(report: Report, path: Path, *, recall: float = 0.95) -> None:
    """Draw QPS at one recall over the bytes per vector of each index, and save it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ends = []
    for peer in report["peers"]:
        qps = qps_at(front_of(peer, "single"), recall)
        if qps is not None:
            x, colour = peer["index_bytes"] / report["dataset"]["n"], _COLOURS[peer["library"]]
            axes.plot(x, qps, "o", color=colour)
            ends.append((x, qps, peer["label"], colour))
    axes.set(xlabel="bytes per vector, vectors for re-ranking included", yscale="log")
    axes.set_ylabel(f"QPS at recall {recall:.2f}, one call per query")
    axes.set_xlim(left=0)
    _tidy(axes)
    _label_lines(axes, ends)
    figure.suptitle(caption(report), fontsize=8, color="0.35")
    figure.savefig(path, dpi=160)


def _draw(
    report: Report, path: Path, ylabel: str, modes: Mapping[str, str], *, value: str = "qps"
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 * len(modes), 6), layout="constrained")
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    labels = []
    for axes, (mode, title) in zip(panels, modes.items(), strict=True):
        labels.append([end for line in _lines(report, mode, value) if (end := _plot(axes, *line))])
        axes.set(yscale="log", title=title, xlabel=f"recall@{report['dataset']['k']}")
        _recall_axis(axes)
        _tidy(axes)
    for axes, ends in zip(panels, labels, strict=True):  # after all lines: they share the limits
        _label_lines(axes, ends)
    panels[0].set_ylabel(ylabel)
    figure.suptitle(caption(report), fontsize=9, color="0.35")
    figure.savefig(path, dpi=160)


def _lines(report: Report, mode: str, value: str) -> list[tuple[Any, ...]]:
    """Label, colour, dash and points of each index: a colour a library, a dash an index of it."""
    seen: dict[str, int] = {}
    lines = []
    for peer in report["peers"]:
        nth = seen[peer["library"]] = seen.get(peer["library"], -1) + 1
        points = [(point["recall"], point[value]) for point in front_of(peer, mode)]
        lines.append(
            (peer["label"], _COLOURS[peer["library"]], _DASHES[nth % len(_DASHES)], points)
        )
    return lines


def _plot(
    axes: Axes, label: str, colour: str, dash: Any, points: Sequence[tuple[float, float]]
) -> tuple[float, float, str, str] | None:
    """Draw one line; return its right end with label and colour, or None if it is out of view.

    The line stops where it first reaches the edge of the view: beyond, all recalls look alike.
    """
    shown = [(r, y) for r, y in points if _LOWEST_RECALL <= r < _HIGHEST_RECALL]
    shown += [(_HIGHEST_RECALL, y) for r, y in points if r >= _HIGHEST_RECALL][:1]
    if not shown:
        return None
    xs, ys = [_stretch(r) for r, _ in shown], [y for _, y in shown]
    marker = "o" if len(shown) == 1 else "."
    axes.plot(xs, ys, color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.6)
    return xs[-1], ys[-1], label, colour


def _stretch(recall: float) -> float:
    """Each tenth of the misses takes the same room: 0.9, 0.99 and 0.999 are evenly spaced."""
    return -math.log10(1 - recall)


def _recall_axis(axes: Axes) -> None:
    ticks = [tick for tick in _RECALL_TICKS if _LOWEST_RECALL <= tick <= _HIGHEST_RECALL]
    axes.set_xticks([_stretch(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_xlim(_stretch(_LOWEST_RECALL), _stretch(_HIGHEST_RECALL) + 0.03)


def _label_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's name right of the panel, at its height or just above the one below it.

    A thin leader joins the name to the end of its line.
    """
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    right = axes.get_xlim()[1]
    gap, height = 0.03 * (high - low), -math.inf
    for x, y, label, colour in sorted(ends, key=lambda end: end[1]):
        height = max(math.log10(y), height + gap)
        axes.annotate(
            label,
            (x, y),
            xytext=(right + 0.03 * (right - axes.get_xlim()[0]), 10**height),
            textcoords="data",
            annotation_clip=False,
            color=colour,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5},
        )


def _tidy(axes: Axes) -> None:
    """Light grid, no box, plain numbers on the logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def write_figures(report: Report, stem: Path) -> list[Path]:
    """Write <stem>.png (recall and QPS), <stem>-latency.png and <stem>-memory.png; return them."""
    paths = [stem.with_name(f"{stem.name}{suffix}.png") for suffix in ("", "-latency", "-memory")]
    for draw, path in zip((plot_recall_qps, plot_recall_latency, plot_memory), paths, strict=True):
        draw(report, path)
    return paths


def write(report: Report, stem: Path) -> list[Path]:
    """Write <stem>.md and the figures; return them."""
    text = stem.with_suffix(".md")
    text.write_text(table(report) + "\n")
    return [text, *write_figures(report, stem)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the table and the figures of an existing report anew."""
    redraw("plots", "bench_peers", write, arguments)


if __name__ == "__main__":
    main()
