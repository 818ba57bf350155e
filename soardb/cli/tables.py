"""What the command line shows: tables on standard output, progress bars on standard error.

    commands.py -> [tables.py]

Everything here takes finished figures; nothing is measured or decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from soardb.clustering import Progress as Report
    from soardb.curve import Effort, Expected
    from soardb.evaluate import CurvePoint
    from soardb.index.layout import Tried
    from soardb.index.plan import Choice
    from soardb.kernels.layout import F32, I64
    from soardb.tuning import Curve

out = Console(markup=False, highlight=False, emoji=False)
err = Console(stderr=True, markup=False, highlight=False, emoji=False)

_SHOWN_QUERIES = 20
_WORDS_ABREAST = 4


def note(text: str) -> None:
    """One line about what is going on."""
    err.print(text, soft_wrap=True)


def failure(error: Exception) -> None:
    """One red line, whatever line breaks the message has."""
    err.print(Text(f"error: {' '.join(str(error).split())}", "red"), soft_wrap=True)


@contextmanager
def bars() -> Iterator[Report]:
    """Show each stage that is reported as a bar, from the first report to the end of the block."""
    columns = (TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn())
    display = Progress(*columns, console=err)
    tasks: dict[str, Any] = {}

    def report(stage: str, fraction: float) -> None:
        if not tasks:
            display.start()
        if stage not in tasks:
            tasks[stage] = display.add_task(stage, total=1.0)
        display.update(tasks[stage], completed=fraction)

    try:
        yield report
    finally:
        if tasks:
            display.stop()


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        table.add_row(*row)
    _print(title, table)


def facts(title: str, values: Mapping[str, Any]) -> None:
    table = Table.grid("", "", padding=(0, 2))
    table.columns[0].style = "dim"
    for name, value in values.items():
        table.add_row(name, str(value))
    _print(title, table)


def _print(title: str, table: Table) -> None:
    out.print(Text(title, "bold"), soft_wrap=True)
    out.print(table)
    out.print()


def neighbours(found: Mapping[str, Sequence[tuple[str, float]]]) -> None:
    words = list(found)
    for first in range(0, len(words), _WORDS_ABREAST):
        columns = words[first : first + _WORDS_ABREAST]
        rows = zip(*(found[word] for word in columns), strict=True)
        cells = [[f"{word} {score:.3f}" for word, score in row] for row in rows]
        _table("nearest words, and the cosine of each", columns, cells)


def curve(points: Sequence[CurvePoint], title: str, usual: int | None) -> None:
    rows = [
        [
            "exact" if point.nprobe is None else str(point.nprobe),
            f"{point.recall:.4f}",
            f"{point.timing.qps:,.0f}",
            f"{point.timing.p50_ms:.3f}",
            f"{point.timing.p99_ms:.3f}",
            "default" if point.nprobe == usual else "",
        ]
        for point in points
    ]
    _table(title, ["nprobe", "recall", "QPS", "p50 ms", "p99 ms", ""], rows)


def operating_points(measured: Curve, title: str) -> None:
    rows = [
        [
            "exact" if point.nprobe is None else str(point.nprobe),
            "" if point.rerank is None else str(point.rerank),
            _stop(point.effort),
            f"{point.recall:.4f}",
            f"{point.low:.4f}..{point.high:.4f}",
            f"{point.latency_us:,.0f}",
        ]
        for point in measured.points
    ]
    _table(title, ["nprobe", "rerank", "stop", "recall", "95 %", "median us"], rows)


def choices(found: Sequence[Expected]) -> None:
    rows = [
        [
            f"{choice.target:g}",
            "exact" if choice.effort is None else str(choice.effort.nprobe),
            "" if choice.effort is None else str(choice.effort.rerank),
            _stop(choice.effort),
            "" if choice.recall is None else f"{choice.recall:.4f}",
            "" if choice.is_reached else "not reached",
        ]
        for choice in found
    ]
    columns = ["target recall", "nprobe", "rerank", "stop", "expected", ""]
    _table("what searches choose", columns, rows)


def layouts(found: Sequence[Tried], chosen: Choice, title: str) -> None:
    rows = [
        [
            f"{tried.choice.nlist:,}",
            str(tried.choice.dims_per_block),
            f"{tried.choice.soar_lambda:g}",
            f"{tried.choice.avq_eta:g}",
            " ".join((str(tried.effort.nprobe), str(tried.effort.rerank), _stop(tried.effort))),
            f"{tried.recall:.4f}",
            f"{tried.scanned:,.0f}",
            f"{tried.cost_us:.1f}",
            f"{tried.bytes:.0f}",
            "chosen" if tried.choice == chosen else "" if tried.is_reached else "not reached",
        ]
        for tried in found
    ]
    columns = ["nlist", "dims", "soar", "avq", "nprobe, rerank, stop", "recall"]
    _table(title, [*columns, "codes", "us", "bytes", ""], rows)


def _stop(effort: Effort | None) -> str:
    return "" if effort is None or effort.stop is None else f"{effort.stop:g}"


def results(scores: F32, ids: I64) -> None:
    table = Table("query", "ids and scores, best first", box=box.SIMPLE_HEAD, show_edge=False)
    shown = zip(ids[:_SHOWN_QUERIES].tolist(), scores[:_SHOWN_QUERIES].tolist(), strict=True)
    for query, (row_ids, row_scores) in enumerate(shown):
        pairs = zip(row_ids, row_scores, strict=True)
        table.add_row(str(query), "  ".join(f"{i}\u00a0({score:.4f})" for i, score in pairs))
    out.print(table)
    if len(ids) > _SHOWN_QUERIES:
        note = f"the first {_SHOWN_QUERIES} of {len(ids):,} queries; for all use --json or --out"
        err.print(note)
